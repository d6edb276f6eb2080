//! Sources read from files and standard input, sinks written to files and standard output: through the topics of the embedded log, so that a
//! pipeline meets nothing but topics.

use super::Context;
use super::run::Args;
use crate::io::{Event, FetchLimit, Log, Reader, partitions_of};
use crate::jsonl::{self, Standing};
use crate::pipeline::{Pipeline, Policy};
use anyhow::Context as _;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a run was told to read and write beside its topics.
pub struct Files {
    /// Topics and their files.
    sources: Vec<(Arc<str>, PathBuf)>,
    sinks: Vec<(Arc<str>, PathBuf)>,
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Whether two names are of one file; terminals, pipes and the like are for any number of uses.
fn same(one: &Path, other: &Path) -> bool {
    let whole = |file: &Path| file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned());
    std::fs::metadata(one).map_or(true, |about| about.is_file()) && whole(one) == whole(other)
}

impl Files {
    pub fn new(args: &Args, pipeline: &Pipeline, context: &Context) -> anyhow::Result<Self> {
        anyhow::ensure!(
            context.connection.brokers.is_none() || args.sources.is_empty() && args.sinks.is_empty(),
            "--source and --sink work on the embedded log; with --brokers, use `millstream produce` and `millstream consume`"
        );
        anyhow::ensure!(!args.dry_run || args.sinks.is_empty(), "a dry run prints what would be written; --sink has nothing to show");
        anyhow::ensure!(
            !args.dry_run || args.sources.is_empty() || context.connection.data.is_none(),
            "a dry run writes nothing, and --source would append to the topics in the data folder: leave one of --dry-run, --source and --data (MILLSTREAM_DATA) out"
        );
        let mut sources = Vec::new();
        for (name, file) in &args.sources {
            let known = pipeline.sources.iter().map(|source| (&source.name, &source.topic));
            let mut known = known.chain(pipeline.tables.iter().map(|table| (&table.name, &table.topic)));
            let Some((_, topic)) = known.find(|(own, _)| *own == name) else {
                anyhow::bail!("--source {name}: the pipeline has no source or table of that name");
            };
            anyhow::ensure!(!sources.iter().any(|(other, _)| other == topic), "--source {name} is given twice");
            sources.push((topic.clone(), file.clone()));
        }
        anyhow::ensure!(sources.iter().filter(|(_, file)| is_stdin(file)).count() <= 1, "standard input can be read for one source only");
        let mut sinks = Vec::new();
        for (name, file) in &args.sinks {
            let letters = pipeline.policies().filter_map(|policy| match policy {
                Policy::DeadLetter { topic, .. } => Some(topic),
                _ => None,
            });
            let Some(topic) = pipeline.sinks.iter().map(|sink| &sink.topic).chain(letters).find(|topic| ***topic == **name) else {
                anyhow::bail!("--sink {name}: nothing of the pipeline writes that topic");
            };
            let taken = sources.iter().chain(&sinks).find(|(_, other)| !is_stdin(file) && same(file, other));
            if let Some((other, _)) = taken {
                anyhow::bail!("--sink {name}: {} is the file of `{other}` too: give each its own", file.display());
            }
            sinks.push((topic.clone(), file.clone()));
        }
        Ok(Self { sources, sinks })
    }

    /// Whether something is read beside the topics.
    pub fn any_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether topics and state are for this run alone.
    pub fn temporary(&self, context: &Context) -> bool {
        !self.sources.is_empty() && context.connection.data.is_none()
    }

    /// Appends the files to their topics. True: the run ends with them, since nothing is read from standard input.
    pub fn read_whole(&self, log: &Arc<dyn Log>) -> anyhow::Result<bool> {
        for (topic, file) in self.sources.iter().filter(|(_, file)| !is_stdin(file)) {
            append(log, topic, file)?;
        }
        Ok(!self.sources.is_empty() && !self.sources.iter().any(|(_, file)| is_stdin(file)))
    }

    /// Begins to append standard input to its topic, if a source is read from it.
    pub fn stream(&self, log: &Arc<dyn Log>, interrupted: &Arc<AtomicBool>) -> anyhow::Result<Option<Stream>> {
        let Some((topic, file)) = self.sources.iter().find(|(_, file)| is_stdin(file)).cloned() else { return Ok(None) };
        let stream = Stream { over: Arc::new(AtomicBool::new(false)), error: Arc::default() };
        let (log, over, error, interrupted) = (log.clone(), stream.over.clone(), stream.error.clone(), interrupted.clone());
        std::thread::Builder::new().name("stdin".to_owned()).spawn({
            let over = over.clone();
            move || {
                let outcome = append(&log, &topic, &file);
                *error.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err();
                over.store(true, Ordering::Relaxed);
            }
        })?;
        // A signal ends the wait for more, too.
        std::thread::Builder::new().name("stdin-over".to_owned()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if interrupted.load(Ordering::Relaxed) {
                    over.store(true, Ordering::Relaxed);
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        })?;
        Ok(Some(stream))
    }

    /// Opens what sinks are printed to; only records from now on.
    pub fn print(&self, log: &Arc<dyn Log>) -> anyhow::Result<Printers> {
        let mut printers = Vec::new();
        for (topic, file) in &self.sinks {
            let mut starts = Vec::new();
            for partition in partitions_of(&**log, topic)? {
                let end = log.bounds(&partition)?.end;
                starts.push((partition, end));
            }
            let mut reader = log.reader()?;
            reader.assign(&starts)?;
            let out: Box<dyn Write> = if is_stdin(file) {
                Box::new(std::io::stdout())
            } else {
                Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
            };
            printers.push(Printer { reader, out, name: file.display().to_string() });
        }
        Ok(Printers { printers, error: None })
    }
}

fn append(log: &Arc<dyn Log>, topic: &Arc<str>, file: &Path) -> anyhow::Result<u64> {
    let described = log.topic(topic)?.with_context(|| format!("there is no topic `{topic}`"))?;
    super::produce::feed(&**log, described, file)
}

/// Standard input on its way into a topic.
pub struct Stream {
    /// It came to its end, or failed, or nobody waits for it any more.
    pub over: Arc<AtomicBool>,
    error: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Stream {
    pub fn outcome(&self) -> Result<(), super::Failure> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

struct Printer {
    reader: Box<dyn Reader>,
    out: Box<dyn Write>,
    name: String,
}

/// Prints committed records of sinks.
pub struct Printers {
    printers: Vec<Printer>,
    error: Option<anyhow::Error>,
}

impl Printers {
    /// Prints what has come.
    pub fn follow(&mut self) {
        for printer in &mut self.printers {
            if self.error.is_none()
                && let Err(error) = printer.follow()
            {
                self.error = Some(error.context(format!("cannot write {}", printer.name)));
            }
        }
    }

    pub fn outcome(self) -> anyhow::Result<()> {
        // Whoever closed the pipe has seen enough.
        match self.error {
            Some(error) if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) => {
                Ok(())
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Printer {
    fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            match self.reader.poll(FetchLimit { rows: 1000, bytes: 1 << 20 }, Duration::ZERO)? {
                Event::Records(fetched) => {
                    let mut lines = Vec::new();
                    let records = &fetched.records;
                    for row in 0..records.len() {
                        let standing = Standing {
                            topic: Some(&fetched.from.topic),
                            partition: fetched.from.partition,
                            offset: Some(fetched.offsets[row]),
                        };
                        let (key, value) = (records.keys.bytes(row), records.values.bytes(row));
                        jsonl::write(&mut lines, Some(standing), records.timestamps[row], key, value, records.headers.of(row));
                    }
                    self.out.write_all(&lines)?;
                    self.out.flush()?;
                }
                Event::End { .. } => {}
                _ => return Ok(()),
            }
        }
    }
}
