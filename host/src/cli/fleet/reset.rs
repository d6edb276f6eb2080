//! `millstream reset`: a pipeline goes on from other positions, with its state or without.

use super::super::{Context, Exit, Failure, Outcome, Output, stop};
use super::Fleet;
use super::why::place;
use crate::clock::SystemClock;
use crate::fleet;
use crate::fleet::reset::{Reset, ResetError};
use crate::io::{Log, LogError, TopicPartition, partitions_of};
use crate::manifest::parse_start;
use crate::pipeline::{Pipeline, Start};
use crate::plugin::engine::Engine;
use crate::runtime;
use crate::verbs::{active, failed, loaded, print};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every host ends the pipeline first; then positions are moved, state is deleted if that is wanted, and the same content begins anew as another generation. \
With `--state keep` records that are read again count again in what is kept."
)]
pub struct Args {
    pipeline: String,
    /// Where every partition of the sources goes on: earliest, latest, or a time as in 2026-11-20T10:00:00Z [default: where it is]
    #[arg(long, value_name = "PLACE", value_parser = start)]
    to: Option<Start>,
    /// Where one partition goes on, as TOPIC/PARTITION@OFFSET; may be given several times. Others stay, unless --to says where
    #[arg(long, value_name = "PLACE", value_parser = place)]
    offset: Vec<(TopicPartition, i64)>,
    /// What becomes of the state of a pipeline that has some
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Show the positions, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long hosts may take to end the pipeline
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    fleet: Fleet,
}

fn start(text: &str) -> Result<Start, String> {
    parse_start(text).map_err(|_| "earliest, latest, or a time as in 2026-11-20T10:00:00Z is expected".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// It stays as it is
    Keep,
    /// It is deleted, with what is under way in repartition topics; partitioned tables are read anew
    Clear,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    let name = args.pipeline.as_str();
    let generation = active(&control, name)?;
    let (_, loaded) = loaded(&mut control, &generation, &Engine::new()?)?;
    let pipeline = loaded.pipeline;
    let stateful = !runtime::store_names(&pipeline).is_empty() || pipeline.sources.iter().any(|source| source.carries.is_some());
    if stateful && args.state.is_none() {
        return Err(
            anyhow::anyhow!("`{name}` has state or repartition topics: say what becomes of it, `--state keep` or `--state clear`").into()
        );
    }
    let clear = stateful && args.state == Some(State::Clear);
    let log = control.log().clone();
    let to = positions(args, &pipeline, &*log, clear)?;
    let at: Vec<TopicPartition> = to.keys().cloned().collect();
    let before: Vec<Option<i64>> = log.committed(name, &at)?.into_iter().map(|position| position.map(|position| position.offset)).collect();
    let number = if args.dry_run {
        None
    } else {
        let whole = pipeline.clone();
        let again = || {
            let to = positions(args, &whole, &*log, clear).map_err(|failure| LogError::stop(format!("{:#}", failure.error)))?;
            Ok(to.into_iter().collect())
        };
        let reset = Reset { pipeline, to: &again, clear, timeout: Duration::from_secs(args.timeout), by: fleet::by() };
        let stop = stop::on_signals(context.global.output)?;
        Some(reset.run(&mut control, &SystemClock::default(), &stop).map_err(not_done)?)
    };
    if context.global.output == Output::Json {
        let moved = to
            .iter()
            .zip(&before)
            .map(|((at, offset), before)| json!({ "topic": *at.topic, "partition": at.partition, "from": before, "to": offset }));
        println!("{}", json!({ "pipeline": name, "generation": number, "cleared": clear, "positions": moved.collect::<Vec<_>>() }));
        return Ok(());
    }
    let mut table = print::table(&["topic", "partition", "from", "to"]);
    for ((at, offset), before) in to.iter().zip(before) {
        table.add_row([
            at.topic.to_string(),
            at.partition.to_string(),
            before.map_or_else(|| "-".to_owned(), |before| before.to_string()),
            offset.to_string(),
        ]);
    }
    anstream::println!("{}", table.trim_fmt());
    match number {
        Some(number) => anstream::println!(
            "`{name}` goes on from there, as generation {number}{}",
            if clear { ", without the state that it had" } else { "" }
        ),
        None => anstream::println!("nothing was changed"),
    }
    Ok(())
}

/// Where each partition goes on that moves.
fn positions(args: &Args, pipeline: &Pipeline, log: &dyn Log, clear: bool) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let mut to = BTreeMap::new();
    for source in pipeline.sources.iter().filter(|source| source.carries.is_none()) {
        for at in partitions_of(log, &source.topic)? {
            let bounds = log.bounds(&at)?;
            let offset = match (source.table.is_some(), args.to) {
                // The rows are those of all its records.
                (true, _) if clear => bounds.begin,
                (true, _) => continue,
                (false, Some(Start::Earliest)) => bounds.begin,
                (false, Some(Start::Latest)) => bounds.end,
                (false, Some(Start::At(time))) => log.offset_at(&at, time)?,
                // Without its state a partition goes on from where it was, unless told otherwise.
                (false, None) if clear => match log.committed(&pipeline.name, std::slice::from_ref(&at))?.pop().flatten() {
                    Some(position) => position.offset,
                    None => continue,
                },
                (false, None) => continue,
            };
            to.insert(at, offset);
        }
    }
    for (at, offset) in &args.offset {
        let source = pipeline.sources.iter().find(|source| source.topic == at.topic && source.is_stream());
        let count = log.topic(&at.topic)?.map_or(0, |topic| topic.partitions);
        if source.is_none() || at.partition >= count {
            let topics: Vec<&str> = pipeline.sources.iter().filter(|source| source.is_stream()).map(|source| &*source.topic).collect();
            return Err(anyhow::anyhow!("{at} is no partition of a source of `{}`: it reads {}", pipeline.name, topics.join(", ")).into());
        }
        let bounds = log.bounds(at)?;
        if !(bounds.begin..=bounds.end).contains(offset) {
            return Err(anyhow::anyhow!("{at} holds the offsets {} to {}: it cannot go on at {offset}", bounds.begin, bounds.end).into());
        }
        to.insert(at.clone(), *offset);
    }
    Ok(to)
}

fn not_done(error: ResetError) -> Failure {
    let exit = match error {
        ResetError::Control(error) => return failed(error),
        ResetError::Busy { .. } => Exit::Timeout,
        ResetError::Interrupted(_) => Exit::Interrupted,
        ResetError::Half { .. } => Exit::Failure,
    };
    Failure { exit, error: error.into() }
}
