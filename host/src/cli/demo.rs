//! `millstream demo`: the ratings pipeline on records that come with the program, on an embedded log of its own.

use super::{Context, Failure, Outcome, Output};
use crate::io::{Event, FetchLimit, Log, partitions_of};
use crate::log::embedded::EmbeddedLog;
use crate::manifest::{self, Loaded, Secrets};
use crate::plugin::engine::Engine;
use crate::runtime::{self, Creates};
use crate::summary::Summary;
use crate::task::BatchLimit;
use crate::worker::Options;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const FILES: [(&str, &str); 3] = [
    ("pipeline.yaml", include_str!("../../../tests/examples/ratings/pipeline.yaml")),
    ("data/ratings.jsonl", include_str!("../../../tests/examples/ratings/data/ratings.jsonl")),
    ("data/users.jsonl", include_str!("../../../tests/examples/ratings/data/users.jsonl")),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the demo puts its pipeline, data and log
    #[arg(long, default_value = "millstream-demo", value_name = "DIR")]
    folder: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    if context.connection.brokers.is_some() {
        return Err(anyhow::anyhow!("the demo brings its own log, so that nothing is needed for it: leave --brokers out").into());
    }
    let say = |text: String| {
        if context.global.output == Output::Text {
            anstream::println!("{text}");
        }
    };
    let folder = &args.folder;
    for (name, text) in FILES {
        write(&folder.join(name), text)?;
    }
    let data = folder.join("log");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open_with(&data, context.connection.embedded_options())?);
    let pipeline_file = folder.join("pipeline.yaml");
    say(format!("The pipeline is {}: ratings of flights, joined with customers.\n", pipeline_file.display()));

    say("What came in".to_owned());
    let mut came_in = Vec::new();
    for (topic, partitions, file) in [("ratings", 4, "data/ratings.jsonl"), ("users", 1, "data/users.jsonl")] {
        if log.topic(topic)?.is_none() {
            log.create_topic(topic, partitions)?;
            let described =
                log.topic(topic)?.ok_or_else(|| anyhow::anyhow!("topic `{topic}` is not there although it was just created"))?;
            super::produce::feed(&*log, described, &folder.join(file))?;
        }
        let (count, sample) = look(&log, topic, 1)?;
        say(format!("  {topic}: {count} records, as {}", sample.first().map_or("", String::as_str)));
        came_in.push(serde_json::json!({ "topic": topic, "records": count }));
    }

    let loaded = manifest::load(&pipeline_file, &Engine::new()?)?;
    let started = Instant::now();
    let setting = runtime::prepare(loaded.pipeline.clone(), &log, &Secrets::load()?, BatchLimit::default(), Creates::All, None);
    let setting = Arc::new(setting.map_err(super::run::failure)?);
    let options = Options { until_end: true, ..Options::default() };
    let (summary, ended) = runtime::run(&setting, &log, None, options, &AtomicBool::new(false), &mut |_| {});
    ended.map_err(super::run::failure)?;
    show(context, folder, &data, &log, &loaded, &summary, started.elapsed(), came_in)
}

#[allow(clippy::too_many_arguments)]
fn show(
    context: &Context,
    folder: &Path,
    data: &Path,
    log: &Arc<dyn Log>,
    loaded: &Loaded,
    summary: &Summary,
    took: Duration,
    came_in: Vec<serde_json::Value>,
) -> Result<(), Failure> {
    let pipeline = &loaded.pipeline;
    let mut topics: Vec<Arc<str>> = pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()).map(|sink| sink.topic.clone()).collect();
    topics.push("ratings.dead".into());
    if context.global.output == Output::Json {
        let mut outputs = Vec::new();
        for topic in &topics {
            outputs.push(serde_json::json!({ "topic": &**topic, "records": look(log, topic, 0)?.0 }));
        }
        let did = super::run::to_json(pipeline, summary, took);
        println!("{}", serde_json::json!({ "folder": folder, "inputs": came_in, "run": did, "outputs": outputs }));
        return Ok(());
    }
    anstream::println!("\nWhat each stage did\n{}\n", indent(&super::run::to_text(pipeline, summary, took)));
    anstream::println!("What the output topics hold");
    for topic in &topics {
        let (count, sample) = look(log, topic, 2)?;
        anstream::println!("  {topic}: {count} records, as");
        for line in sample {
            anstream::println!("    {line}");
        }
    }
    let (folder, data) = (folder.display(), data.display());
    anstream::println!(
        "\nWhat to try next\n  \
         millstream run {folder}/pipeline.yaml --data {data} --until-end     again: nothing is left to do, nothing is doubled\n  \
         millstream consume poor_ratings --data {data} --until-end | head    card numbers are masked wherever they stood\n  \
         millstream test {folder}/pipeline.yaml                              the tests that stand in the pipeline's file\n  \
         millstream check {folder}/pipeline.yaml                             types from source to sink; break a name and see\n  \
         millstream new plugin my-filter                                     a plugin of your own\n\
         (with cargo: `cargo run --release --` in place of `millstream`)"
    );
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let error = |error: std::io::Error| anyhow::anyhow!("cannot write {}: {error}; name another place by --folder", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(error)?;
    }
    // What somebody changed by hand stays.
    if path.exists() { Ok(()) } else { std::fs::write(path, text).map_err(error) }
}

/// How many records a topic holds, and the values of its first ones, short enough for a line.
fn look(log: &Arc<dyn Log>, topic: &str, samples: usize) -> anyhow::Result<(i64, Vec<String>)> {
    let mut count = 0;
    let mut starts = Vec::new();
    for partition in partitions_of(&**log, &topic.into())? {
        let bounds = log.bounds(&partition)?;
        count += bounds.end - bounds.begin;
        starts.push((partition, bounds.begin));
    }
    let mut sample = Vec::new();
    if count > 0 && samples > 0 {
        let mut reader = log.reader()?;
        reader.assign(&starts)?;
        if let Event::Records(fetched) = reader.poll(FetchLimit { rows: samples, bytes: 1 << 16 }, Duration::from_secs(1))? {
            for row in 0..fetched.records.len() {
                let text = match fetched.records.values.bytes(row) {
                    Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    None => {
                        let told = fetched.records.headers.last(row, b"millstream.reason").flatten().map(String::from_utf8_lossy);
                        told.map_or_else(|| "a tombstone".to_owned(), |reason| format!("no value shown; refused because {reason}"))
                    }
                };
                sample.push(if text.chars().count() > 160 { format!("{}...", text.chars().take(157).collect::<String>()) } else { text });
            }
        }
    }
    Ok((count, sample))
}
