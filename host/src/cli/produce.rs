//! `millstream produce`.

use super::topic::missing;
use super::{Context, Outcome, Output};
use crate::io::{Clock, Log, LogError, Topic, partition_for};
use crate::jsonl::{self, Form, Line};
use crate::record::RecordsBuilder;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Lines are appended in batches of so many, or so many bytes.
const BATCH_ROWS: usize = 10_000;
const BATCH_BYTES: usize = 1 << 20;

/// The longest line that is read.
const MOST_LINE: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line is a JSON object with `value`, or a key, TAB and a value:
  {\"key\": \"7\", \"value\": {\"stars\": 1}, \"headers\": {\"source\": \"web\"}, \"timestamp\": 1700000000000}
  7<TAB>{\"stars\": 1}
`value` null is a tombstone. `consume` prints what this reads; host/docs/embedded-log.md has the whole rule.")]
pub struct Args {
    /// The topic; on the embedded log it is created if it is missing
    topic: String,
    /// Where the lines are; `-` is standard input
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    /// The partition of every record [default: as the line says, else by its key, else evenly]
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What stands between a key and its value
    #[arg(long, default_value = "\\t", value_name = "TEXT", conflicts_with = "raw")]
    key_separator: String,
    /// Every line is a value as it stands, without a key
    #[arg(long)]
    raw: bool,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let separator = args.key_separator.replace("\\t", "\t");
    let form = if args.raw { Form::Values } else { Form::Records { separator: separator.as_bytes() } };
    let (input, length, name) = open(&args.file)?;
    let log = context.connection.open()?;
    let (topic, created) = match log.topic(&args.topic)? {
        Some(topic) => (topic, false),
        None if context.connection.brokers.is_none() => {
            log.create_topic(&args.topic, 1)?;
            (log.topic(&args.topic)?.ok_or_else(|| missing(&*log, &args.topic))?, true)
        }
        None => return Err(missing(&*log, &args.topic).into()),
    };
    let mut writer = Writer {
        log: &*log,
        topic,
        only: args.partition,
        narrower: false,
        open: BTreeMap::new(),
        rows: 0,
        bytes: 0,
        spread: 0,
        counts: BTreeMap::new(),
    };
    let progress = progress(length);
    let outcome = append(input, &name, form, &mut writer, &progress);
    progress.finish_and_clear();
    let counts = writer.counts;
    let total: u64 = counts.values().sum();
    if let Err(error) = outcome {
        let before =
            if total == 0 { "nothing was appended".to_owned() } else { format!("{total} records before were appended, nothing after") };
        return Err(error.context(before).into());
    }
    match context.global.output {
        Output::Json => {
            println!("{}", serde_json::json!({ "topic": args.topic, "created": created, "records": total, "partitions": counts }))
        }
        Output::Text => {
            if created {
                anstream::println!("created topic {} with 1 partition", args.topic);
            }
            let places: Vec<String> = counts.iter().map(|(partition, count)| format!("{count} to partition {partition}")).collect();
            let places = if places.len() > 1 { format!(": {}", places.join(", ")) } else { String::new() };
            anstream::println!("appended {total} record{} to {}{places}", if total == 1 { "" } else { "s" }, args.topic);
        }
    }
    Ok(())
}

type Input = BufReader<Box<dyn Read>>;

/// The input, its length if it is known, and its name for messages.
fn open(file: &std::path::Path) -> anyhow::Result<(Input, Option<u64>, String)> {
    if file.as_os_str() == "-" {
        return Ok((BufReader::with_capacity(1 << 16, Box::new(std::io::stdin())), None, "standard input".to_owned()));
    }
    let name = file.display().to_string();
    let file = File::open(file).map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|about| about.len());
    Ok((BufReader::with_capacity(1 << 20, Box::new(file)), length, name))
}

/// Appends the lines of a file (`-` is standard input) to a topic that is there; answers with how many records. A partition that it has not, as of lines out of
/// a wider topic, counts as none.
pub(super) fn feed(log: &dyn Log, topic: Topic, file: &std::path::Path) -> anyhow::Result<u64> {
    let (input, _, name) = open(file)?;
    let mut writer =
        Writer { log, topic, only: None, narrower: true, open: BTreeMap::new(), rows: 0, bytes: 0, spread: 0, counts: BTreeMap::new() };
    append(input, &name, Form::default(), &mut writer, &ProgressBar::hidden())?;
    Ok(writer.counts.values().sum())
}

/// Shown only where standard error is a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let Some(length) = length else { return ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::new(length);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn append(mut input: Input, name: &str, form: Form<'_>, writer: &mut Writer<'_>, progress: &ProgressBar) -> anyhow::Result<()> {
    let clock = crate::clock::SystemClock::default();
    let mut buffer = Vec::new();
    for number in 1_u64.. {
        buffer.clear();
        let read =
            (&mut input).take(MOST_LINE).read_until(b'\n', &mut buffer).map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?;
        if read == 0 {
            break;
        }
        progress.inc(read as u64);
        let line = if read as u64 == MOST_LINE {
            Err(anyhow::anyhow!("it is longer than 1 GiB"))
        } else {
            jsonl::parse(&buffer, form).map_err(Into::into)
        };
        let added = line.and_then(|line| match line {
            Some(line) => writer.add(&line, clock.now()),
            None => Ok(()),
        });
        if let Err(error) = added {
            writer.flush()?;
            anyhow::bail!("{name}, line {number}: {error}");
        }
        // Where the next line has to be waited for, what is there is not kept back.
        if writer.rows >= BATCH_ROWS || writer.bytes >= BATCH_BYTES || input.buffer().is_empty() {
            writer.flush()?;
        }
    }
    writer.flush()?;
    Ok(())
}

/// Collects records by partition and appends them in batches.
struct Writer<'a> {
    log: &'a dyn Log,
    topic: Topic,
    only: Option<i32>,
    /// Lines may be of a topic with more partitions.
    narrower: bool,
    open: BTreeMap<i32, RecordsBuilder>,
    rows: usize,
    bytes: usize,
    /// Where the next record without a key goes.
    spread: i32,
    /// Records appended, by partition.
    counts: BTreeMap<i32, u64>,
}

impl Writer<'_> {
    fn add(&mut self, line: &Line<'_>, now: i64) -> anyhow::Result<()> {
        let count = self.topic.partitions;
        let told = line.partition.filter(|partition| !self.narrower || (0..count).contains(partition));
        let partition = match (self.only.or(told), &line.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for(key, count),
            (None, None) => {
                self.spread = (self.spread + 1) % count;
                (self.spread + count - 1) % count
            }
        };
        if !(0..count).contains(&partition) {
            anyhow::bail!("topic `{}` has no partition {partition}: its partitions are 0 to {}", self.topic.name, count - 1);
        }
        let headers = line.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        self.open.entry(partition).or_default().push(line.timestamp.unwrap_or(now), line.key.as_deref(), line.value.as_deref(), headers);
        self.rows += 1;
        self.bytes += line.key.as_ref().map_or(0, |key| key.len()) + line.value.as_ref().map_or(0, |value| value.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        (self.rows, self.bytes) = (0, 0);
        while let Some((partition, records)) = self.open.pop_first() {
            let records = records.finish();
            self.log.produce(&self.topic.name, Some(partition), &records)?;
            *self.counts.entry(partition).or_default() += records.len() as u64;
        }
        Ok(())
    }
}
