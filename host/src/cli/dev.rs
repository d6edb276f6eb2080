//! `millstream dev`: a pipeline that runs while its author works on it. What is saved is built and takes over where the pipeline stands, as a deployment does;
//! what is written is shown beside.

use super::{Context, Failure, Outcome, build, check, stop};
use crate::fleet::bundle::Bundle;
use crate::fleet::control::Control;
use crate::fleet::host::Host;
use crate::fleet::running::Place;
use crate::fleet::{Kind, State, Told};
use crate::io::{Event, FetchLimit, Log, Reader, TopicPartition};
use crate::jsonl::{self, Standing};
use crate::log::embedded::EmbeddedLog;
use crate::manifest::{Secrets, is_path, plugins};
use crate::plugin::engine::Engine;
use crate::task::BatchLimit;
use crate::verbs::{Caller, Candidate, How, Means, Step, print};
use crate::worker::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How often files are looked at. One that changed is waited for until it stays as it is for as long.
const LOOK: Duration = Duration::from_millis(250);
/// Of the control topic that this command has for itself.
const FLEET: &str = "dev";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The pipeline runs on the embedded log. Its file, its schema files and its plugins are watched; the plugin `./NAME.wasm` is built anew when the sources \
of the crate beside it change. In another terminal, `millstream produce TOPIC` appends records, and `millstream history PIPELINE --fleet dev` shows from \
which offsets on each version worked."
)]
pub struct Args {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do not show what is written
    #[arg(long)]
    quiet: bool,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    if context.connection.brokers.is_some() {
        let why = "`dev` runs on the embedded log: on Kafka it would be a member of the pipeline's own group; leave --brokers out, and `millstream deploy` what is done";
        return Err(anyhow::anyhow!(why).into());
    }
    let stop = stop::on_signals(context.global.output)?;
    let data = context.connection.data_folder();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open_with(&data, context.connection.embedded_options())?);
    let cache = context.global.cache_folder();
    let open = || Control::create(log.clone(), FLEET, cache.as_deref());
    let options = Options { host: FLEET.to_owned(), ..Options::default() };
    let place = Place {
        log: log.clone(),
        loader: Arc::new(Engine::new()?),
        secrets: Arc::new(Secrets::load()?),
        data,
        kafka: false,
        limit: BatchLimit::default(),
        options,
        workers: 1,
    };
    let mut control = open()?;
    leave_others(&mut control)?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ended, ending) = (&ended, &stop);
        let hosted = open()?;
        let host = scope.spawn(move || {
            let outcome = Host::new(hosted, place, FLEET.to_owned(), ending).run();
            ended.store(true, Ordering::Relaxed);
            outcome
        });
        let worked = work(args, &log, &open, &stop, ended);
        stop.store(true, Ordering::Relaxed);
        let hosted = host.join().unwrap_or_else(|_| Err(crate::io::LogError::stop("the host panicked: a mistake in the program")));
        worked?;
        Ok(hosted?)
    })
}

/// Another pipeline, of an earlier call, does not run beside this one.
fn leave_others(control: &mut Control) -> Result<(), Failure> {
    use crate::fleet::{Head, Key, Value};
    control.refresh()?;
    let changed = control.change(|view| {
        let runs = view.pipelines.iter().filter_map(|(name, known)| Some((name, known.head.as_ref()?)));
        let stopped = runs.filter(|(_, head)| head.state != State::Deleted).map(|(name, head)| {
            let head = Head { generation: 0, next: None, trial: None, state: State::Deleted, ..head.clone() };
            (Key::Head(name.clone()), Some(Value::Head(head)))
        });
        Ok(stopped.collect())
    });
    Ok(changed.map_err(anyhow::Error::from)?)
}

/// Deploys what is saved, and shows what is written, until it is stopped.
fn work(
    args: &Args,
    log: &Arc<dyn Log>,
    open: &dyn Fn() -> Result<Control, crate::fleet::ControlError>,
    stop: &Arc<AtomicBool>,
    ended: &AtomicBool,
) -> Outcome {
    let mut printer = Printer { log: log.clone(), reader: log.reader()?, read: BTreeMap::new() };
    let mut seen = Watched::default();
    let mut first = true;
    while !stop.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed) {
        let now = Watched::of(&args.file);
        if now != seen {
            // Editors write in several steps.
            std::thread::park_timeout(LOOK);
            let settled = Watched::of(&args.file);
            if settled != now {
                continue;
            }
            let changed: BTreeSet<&PathBuf> =
                settled.crates.iter().filter(|(folder, at)| seen.crates.get(*folder) != Some(at)).map(|(folder, _)| folder).collect();
            let built = changed.into_iter().try_for_each(|folder| rebuild(folder, first));
            // With what the build wrote, and before anything is read for the deployment: what is saved from here on comes next.
            seen = Watched { crates: settled.crates, ..Watched::of(&args.file) };
            let outcome = built.and_then(|()| deploy(args, log, open, &mut printer, stop));
            if let Err(failure) = outcome {
                tell(&failure);
            }
            first = false;
        }
        if args.quiet {
            std::thread::park_timeout(LOOK);
        } else {
            printer.print(LOOK)?;
        }
    }
    Ok(())
}

fn tell(failure: &Failure) {
    match failure.error.downcast_ref::<crate::manifest::Diagnostics>() {
        Some(found) => check::print_diagnostics(found),
        None => anstream::eprintln!("error: {:#}", failure.error),
    }
    anstream::eprintln!("waiting for the next change; what ran goes on");
}

/// Builds the plugin of a crate. At the start, one that is newer than its sources is taken as it is.
fn rebuild(folder: &Path, first: bool) -> Result<(), Failure> {
    let own = |file: &Path| std::fs::metadata(file).and_then(|found| found.modified()).ok();
    let components = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = components.filter(|path| path.extension().is_some_and(|end| end == "wasm")).filter_map(|path| own(&path)).max();
    if first && newest.is_some_and(|newest| newest >= newest_source(folder)) {
        return Ok(());
    }
    anstream::eprintln!("building {}", folder.display());
    let built = build::build(folder, None)?;
    let about = built.plugin.about();
    anstream::eprintln!("built {} {} ({} KiB)", about.name, about.version, built.size.div_ceil(1024));
    Ok(())
}

fn deploy(
    args: &Args,
    log: &Arc<dyn Log>,
    open: &dyn Fn() -> Result<Control, crate::fleet::ControlError>,
    printer: &mut Printer,
    stop: &Arc<AtomicBool>,
) -> Outcome {
    let engine = Engine::new()?;
    let (bundle, loaded) = Bundle::read(&args.file, &engine)?;
    check::print_diagnostics(&loaded.warnings);
    let sinks: Vec<Arc<str>> = loaded.pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()).map(|sink| sink.topic.clone()).collect();
    let mut control = open().map_err(anyhow::Error::from)?;
    control.refresh()?;
    printer.show(&sinks)?;
    let means = Means { kafka: false, loader: &engine, caller: &Author { stop: stop.clone() } };
    let done = Candidate { bundle, loaded, kind: Kind::Deploy }.go(Some(&mut control), Some(&**log), &How::trying(), &means)?;
    anstream::print!("{}", done.text);
    Ok(())
}

/// Whoever works on the pipeline.
struct Author {
    stop: Arc<AtomicBool>,
}

impl Caller for Author {
    fn by(&self) -> String {
        crate::fleet::by()
    }

    fn stop(&self) -> anyhow::Result<Arc<AtomicBool>> {
        Ok(self.stop.clone())
    }

    fn tell(&self, step: &Step<'_>) {
        match step {
            Step::Compared { pipeline, base, diff } => anstream::print!("{}", print::diff(diff, pipeline, *base)),
            Step::Rollout { pipeline, told: Told::Answered { host, answer }, .. } => {
                anstream::eprintln!("{pipeline}: host {host}: {}", answer.state.name())
            }
            Step::Rollout { .. } => {}
        }
    }
}

/// When what is watched was last changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Watched {
    files: BTreeMap<PathBuf, Option<SystemTime>>,
    /// Folders of crates, with the time of their newest source.
    crates: BTreeMap<PathBuf, SystemTime>,
}

impl Watched {
    fn of(manifest: &Path) -> Self {
        let time = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
        let mut watched = Self::default();
        watched.files.insert(manifest.to_owned(), time(manifest));
        let Ok(text) = std::fs::read_to_string(manifest) else { return watched };
        let beside = manifest.parent().unwrap_or(Path::new(""));
        let components = plugins(&text).into_iter().map(|(_, plugin)| plugin).filter(|plugin| is_path(plugin));
        for path in components
            .map(|plugin| beside.join(plugin))
            .chain(crate::manifest::schema_files(&text).into_iter().map(|file| beside.join(file)))
        {
            watched.files.insert(path.clone(), time(&path));
            let Some(folder) = path.parent().filter(|_| path.extension().is_some_and(|end| end == "wasm")) else { continue };
            if folder.join("Cargo.toml").exists() {
                watched.crates.insert(folder.to_owned(), newest_source(folder));
            }
        }
        watched
    }
}

/// The time of the newest file of a crate: its Cargo.toml, and what lies under `src`.
fn newest_source(folder: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut todo = vec![folder.join("Cargo.toml"), folder.join("src")];
    while let Some(path) = todo.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            todo.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(time) = std::fs::metadata(&path).and_then(|found| found.modified()) {
            newest = newest.max(time);
        }
    }
    newest
}

/// Shows what is written to sinks, from when they are first named.
struct Printer {
    log: Arc<dyn Log>,
    reader: Box<dyn Reader>,
    /// Where each partition is read next.
    read: BTreeMap<TopicPartition, i64>,
}

impl Printer {
    fn show(&mut self, topics: &[Arc<str>]) -> Result<(), Failure> {
        for topic in topics {
            if self.log.topic(topic)?.is_none() {
                // A topic that comes to be later begins with its first record.
                self.read.entry(TopicPartition::new(topic.clone(), 0)).or_insert(0);
                continue;
            }
            for at in crate::io::partitions_of(&*self.log, topic)? {
                let end = self.log.bounds(&at)?.end;
                self.read.entry(at).or_insert(end);
            }
        }
        Ok(())
    }

    fn print(&mut self, wait: Duration) -> Result<(), Failure> {
        let mut known = Vec::new();
        for (at, next) in &self.read {
            if self.log.topic(&at.topic)?.is_some() {
                known.push((at.clone(), *next));
            }
        }
        if known.is_empty() {
            std::thread::park_timeout(wait);
            return Ok(());
        }
        self.reader.assign(&known)?;
        let until = std::time::Instant::now() + wait;
        while std::time::Instant::now() < until {
            let Event::Records(fetched) = self.reader.poll(FetchLimit { rows: 1000, bytes: 1 << 20 }, wait)? else { continue };
            let mut lines = Vec::new();
            for (row, offset) in fetched.offsets.iter().enumerate() {
                let standing = Standing { topic: Some(&fetched.from.topic), partition: fetched.from.partition, offset: Some(*offset) };
                let records = &fetched.records;
                jsonl::write(
                    &mut lines,
                    Some(standing),
                    records.timestamps[row],
                    records.keys.bytes(row),
                    records.values.bytes(row),
                    records.headers.of(row),
                );
            }
            // Whoever closed the other end has seen enough.
            let _ = std::io::stdout().write_all(&lines);
            if let Some(last) = fetched.offsets.last() {
                self.read.insert(fetched.from, last + 1);
            }
        }
        Ok(())
    }
}
