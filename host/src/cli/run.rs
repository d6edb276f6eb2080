//! `millstream run`.

use super::files::Files;
use super::progress::Line;
use super::{Context, Exit, Failure, Outcome, Output, stop};
use crate::dry_run::{DryLog, DryRun};
use crate::http;
use crate::io::{Log, Member, TopicPartition, partitions_of};
use crate::jsonl::{self, Standing};
use crate::log::embedded::{EmbeddedLog, folder};
use crate::manifest::{self, Secrets};
use crate::pipeline::Pipeline;
use crate::plugin::engine::Engine;
use crate::record::Records;
use crate::runtime::{self, Creates, RunError};
use crate::summary::Summary;
use crate::task::{BatchLimit, Setting};
use crate::worker::Options;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sources and tables may come from files or standard input, and sinks go to files or standard output, as the JSON lines of `produce` and `consume`:
  millstream run pipeline.yaml --source ratings=ratings.jsonl --source users=users.jsonl --sink poor_ratings=-
Without --data, topics and state then live in a folder that is gone afterwards.")]
pub struct Args {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Stop at the ends of the topics as they are now
    #[arg(long)]
    until_end: bool,
    /// At the end, close every window that is open and give its results out; what comes later for them is late
    #[arg(long)]
    close_windows: bool,
    /// Show what would be written, as JSON lines, and commit nothing; implies --until-end
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Stop after so many records of the sources
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Read a source or table from a file (`-` is standard input) to its end; not with --brokers
    #[arg(long = "source", value_name = "NAME=FILE", value_parser = assignment)]
    pub(super) sources: Vec<(String, PathBuf)>,
    /// Write what comes to a sink's topic to a file too (`-` is standard output); not with --brokers
    #[arg(long = "sink", value_name = "TOPIC=FILE", value_parser = assignment)]
    pub(super) sinks: Vec<(String, PathBuf)>,
    /// Commit this often
    #[arg(long, default_value = "100", value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    commit_interval: u64,
    /// On Kafka: write committed state to the data folder this often; what is not there is read from the changelogs at the next start
    #[arg(long, default_value = "10000", value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    checkpoint_interval: u64,
    /// Threads that share the partitions, each with a transaction of its own [default: as many as there are cores on Kafka, one on the embedded log]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Rows of a batch at most; results do not depend on it
    #[arg(long, default_value = "1000", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_rows: u32,
    /// Serve figures (/metrics), health (/healthz), and pausing (POST /pause, /resume) over HTTP; a port alone is one of 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", env = "MILLSTREAM_LISTEN")]
    listen: Option<String>,
}

fn assignment(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE, as in ratings=ratings.jsonl or ratings=-".to_owned()),
    }
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let interrupted = stop::on_signals(context.global.output)?;
    let listener = args.listen.as_deref().map(http::bind).transpose()?;
    let loaded = manifest::load(&args.file, &Engine::new()?)?;
    if !loaded.warnings.0.is_empty() && context.global.output == Output::Text {
        super::check::print_diagnostics(&loaded.warnings);
    }
    let files = Files::new(args, &loaded.pipeline, context).map_err(usage)?;
    let ends = args.until_end || args.dry_run || files.any_sources();
    if args.close_windows && !ends {
        return Err(usage(anyhow::anyhow!("--close-windows closes what is open at the end of the input: say --until-end too")));
    }
    let (log, _identity, host) = open(context, &loaded.pipeline, files.temporary(context))?;
    crate::verbs::check_log(&loaded, &*log, context.connection.brokers.is_some())?;
    let creates = match &context.connection.brokers {
        _ if args.dry_run && !files.any_sources() => Creates::Nothing,
        Some(_) => Creates::Declared,
        None => Creates::All,
    };
    let data = context.connection.data_folder();
    let limit = BatchLimit { rows: args.batch_rows as usize, ..BatchLimit::default() };
    let dry = args.dry_run.then(|| DryLog::new(log.clone(), &loaded.pipeline).map(Arc::new)).transpose()?;
    let log = match &dry {
        Some(dry) => dry.clone() as Arc<dyn Log>,
        None => log,
    };
    let mut setting = runtime::prepare(loaded.pipeline, &log, &Secrets::load()?, limit, creates, Some(&data)).map_err(failure)?;
    setting.dry = args.dry_run;
    let setting = Arc::new(setting);
    let workers = workers(args, &setting, context.connection.brokers.is_some()).map_err(usage)?;
    let read_whole = files.read_whole(&log)?;
    let mut options = Options {
        until_end: args.until_end || args.dry_run || read_whole,
        close_windows: args.close_windows,
        commit_interval: Duration::from_millis(args.commit_interval),
        checkpoint_interval: Duration::from_millis(args.checkpoint_interval),
        limit: args.limit,
        host,
        workers,
        alone: context.connection.brokers.is_none(),
        ..Options::default()
    };
    let listener =
        listener.map(|listener| http::run::Listener::start(listener, &setting.pipeline, &options.monitor, log.clone())).transpose()?;
    if let Some(listener) = &listener {
        tell_address(context, listener.address);
    }
    let mut printers = files.print(&log)?;
    let mut status = Status::new(context);
    let mut summary = Summary::default();
    let mut go = |options: &Options, stop: &AtomicBool| -> Result<(), Failure> {
        let member = dry.as_ref().map(|log| dry_member(log, &setting)).transpose()?;
        let (done, ended) = runtime::run(&setting, &log, member, options.clone(), stop, &mut |done| {
            status.show(done);
            printers.follow();
        });
        summary.add(&done);
        ended.map_err(failure)
    };
    // While standard input lasts, its records are processed as they come; then everything to the end.
    let mut ended = Ok(());
    if let Some(stream) = files.stream(&log, &interrupted)? {
        ended = go(&options, &stream.over);
        if ended.is_ok() && !interrupted.load(Ordering::Relaxed) {
            ended = stream.outcome();
        }
        options.until_end = true;
    }
    if ended.is_ok() && !interrupted.load(Ordering::Relaxed) {
        ended = go(&options, &interrupted);
    }
    printers.follow();
    status.clear();
    let idle = ended.is_ok() && !interrupted.load(Ordering::Relaxed) && args.limit.is_none() && !files.any_sources();
    report(context, &setting.pipeline, &summary, status.started.elapsed(), idle);
    printers.outcome()?;
    ended
}

/// Where the run is to be found: needed where any free port was asked for.
pub(super) fn tell_address(context: &Context, address: std::net::SocketAddr) {
    tracing::info!(%address, "listening");
    if context.global.output == Output::Text {
        anstream::eprintln!("figures and health: http://{address}/metrics http://{address}/healthz");
    }
}

/// Of arguments that are wrong beside what they are for.
fn usage(error: anyhow::Error) -> Failure {
    Failure { exit: Exit::Usage, error }
}

/// The log, the lock on this host's name, and that name.
fn open(context: &Context, pipeline: &Pipeline, temporary: bool) -> Result<(Arc<dyn Log>, Option<folder::Identity>, String), Failure> {
    let folder = context.connection.data_folder();
    let (log, identity): (Arc<dyn Log>, _) = match &context.connection.brokers {
        Some(_) => {
            let identity = folder::identity(&folder, &pipeline.name)?;
            (context.connection.open()?, Some(identity))
        }
        None if temporary => (Arc::new(EmbeddedLog::temporary(context.connection.embedded_options())?), None),
        None => (Arc::new(EmbeddedLog::open_with(&folder, context.connection.embedded_options())?), None),
    };
    let host = identity.as_ref().map_or_else(|| "embedded".to_owned(), |identity| identity.host_id.clone());
    Ok((log, identity, host))
}

/// How many workers run: no more than there are partitions to share.
fn workers(args: &Args, setting: &Setting, on_kafka: bool) -> anyhow::Result<usize> {
    // A limit of records is for one who counts; the embedded log and a dry run have one member.
    let one = args.dry_run || args.limit.is_some() || !on_kafka;
    if let Some(wanted) = args.workers.filter(|wanted| one && *wanted > 1) {
        let why = if on_kafka { "with --limit or --dry-run" } else { "on the embedded log" };
        anyhow::bail!("--workers {wanted}: {why} a pipeline runs in one worker; leave --workers out");
    }
    let partitions = setting.partitions.iter().copied().max().unwrap_or(1).max(1) as usize;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(if one { 1 } else { args.workers.map_or_else(cores, usize::from).min(partitions) })
}

/// A member that prints what would be written.
pub(super) fn dry_member(log: &Arc<DryLog>, setting: &Arc<Setting>) -> Result<Box<dyn Member>, Failure> {
    let pipeline = &setting.pipeline;
    let mut partitions = Vec::new();
    for source in &pipeline.sources {
        partitions.extend(partitions_of(&**log, &source.topic)?);
    }
    partitions.sort();
    partitions.dedup();
    let shown = setting.clone();
    let show = move |to: &TopicPartition, records: &Records| {
        // Changelogs are the pipeline's own; repartition topics do not come here.
        if shown.topics.contains_key(&to.topic) {
            print_records(to, records);
        }
    };
    Ok(Box::new(DryRun::new(log, &pipeline.name, partitions, Box::new(show))?))
}

/// Records that would be written, as JSON lines on standard output.
pub(super) fn print_records(to: &TopicPartition, records: &Records) {
    let mut lines = Vec::new();
    for row in 0..records.len() {
        let (key, value) = (records.keys.bytes(row), records.values.bytes(row));
        let standing = Standing { topic: Some(&to.topic), partition: to.partition, offset: None };
        jsonl::write(&mut lines, Some(standing), records.timestamps[row], key, value, records.headers.of(row));
    }
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
        super::output_failed(&error.to_string());
    }
}

pub(super) fn failure(error: RunError) -> Failure {
    let exit = match &error {
        RunError::Record(_) => Exit::Record,
        RunError::Plugin(_) => Exit::Plugin,
        RunError::Log(_) => Exit::Log,
        RunError::Setup(_) => Exit::Failure,
    };
    Failure { exit, error: error.into() }
}

/// Tells on the terminal how far the run is.
struct Status {
    line: Line,
    started: Instant,
}

impl Status {
    fn new(context: &Context) -> Self {
        Self { line: Line::new(context), started: Instant::now() }
    }

    fn show(&mut self, summary: &Summary) {
        let started = self.started;
        self.line.show(|| {
            let rate = summary.records as f64 / started.elapsed().as_secs_f64();
            let written: u64 = summary.sinks.iter().sum();
            match summary.restoring {
                Some((read, total)) => format!("restoring state: {read} of {total} records of the changelogs"),
                None => format!("{} records in, {written} out, {rate:.0}/s, {} commits", summary.records, summary.commits),
            }
        });
    }

    fn clear(&self) {
        self.line.clear();
    }
}

/// What the run did, on standard error for people (standard output may hold records), as JSON for scripts.
/// `idle`: if no record was processed, there was none.
fn report(context: &Context, pipeline: &Pipeline, summary: &Summary, took: Duration, idle: bool) {
    match context.global.output {
        Output::Json => println!("{}", to_json(pipeline, summary, took)),
        Output::Text if idle && summary.records == 0 && summary.sinks.iter().all(|rows| *rows == 0) => {
            anstream::eprintln!("pipeline `{}`: nothing to do: every record of its sources was processed before", pipeline.name);
        }
        Output::Text => anstream::eprintln!("{}", to_text(pipeline, summary, took)),
    }
}

pub(super) fn to_json(pipeline: &Pipeline, summary: &Summary, took: Duration) -> serde_json::Value {
    let stages = pipeline.stages.iter().zip(&summary.stages).map(|(stage, did)| {
        serde_json::json!({
            "stage": stage.name, "in": did.rows_in, "out": did.rows_out, "rejected": did.rejected, "late": did.late,
            "calls": did.calls, "ns_per_record": nanos(did.time, did.rows_in),
        })
    });
    let sinks = pipeline.sinks.iter().zip(&summary.sinks).map(|(sink, rows)| serde_json::json!({ "topic": &*sink.topic, "records": rows }));
    serde_json::json!({
        "pipeline": pipeline.name, "records": summary.records, "commits": summary.commits, "seconds": took.as_secs_f64(),
        "stages": stages.collect::<Vec<_>>(), "sinks": sinks.collect::<Vec<_>>(), "refused": summary.refused,
    })
}

pub(super) fn to_text(pipeline: &Pipeline, summary: &Summary, took: Duration) -> String {
    use comfy_table::{CellAlignment, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["stage", "in", "out", "rejected", "late", "ns/record"]);
    for (stage, did) in pipeline.stages.iter().zip(&summary.stages) {
        let numbers = [did.rows_in, did.rows_out, did.rejected, did.late, nanos(did.time, did.rows_in)].map(|number| number.to_string());
        table.add_row(std::iter::once(stage.name.clone()).chain(numbers));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text =
        format!("pipeline `{}`: {} records in {:.2} s, {} commits\n", pipeline.name, summary.records, took.as_secs_f64(), summary.commits);
    if !pipeline.stages.is_empty() {
        text.push_str(&format!("{table}\n"));
    }
    for (sink, rows) in pipeline.sinks.iter().zip(&summary.sinks) {
        text.push_str(&format!("-> {}: {rows} records\n", sink.topic));
    }
    let refused: u64 = summary.refused.values().sum();
    if refused > 0 {
        let codes: Vec<_> = summary.refused.iter().map(|(code, count)| format!("{code} {count}")).collect();
        text.push_str(&format!("refused: {refused} records ({})\n", codes.join(", ")));
    }
    text.truncate(text.trim_end().len());
    text
}

fn nanos(time: Duration, rows: u64) -> u64 {
    time.as_nanos().checked_div(rows.into()).unwrap_or(0) as u64
}
