//! `millstream consume`.

use super::topic::missing;
use super::{Context, Outcome, stop};
use crate::io::{Event, FetchLimit, Fetched, Log, LogError, Topic, TopicPartition};
use crate::jsonl::{self, Standing};
use crate::pipeline::Start;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: FetchLimit = FetchLimit { rows: 1000, bytes: 1 << 20 };

/// How soon an interrupt is noticed.
const SLICE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints JSON lines as `produce` reads them, each partition in its order. Without --until-end or --limit it waits for more until it is interrupted."
)]
pub struct Args {
    /// The topic
    topic: String,
    /// Stop at the end that each partition has when the command starts
    #[arg(long)]
    until_end: bool,
    /// Where to begin: earliest, latest, an offset, or a time as in 2026-11-20T10:00:00Z
    #[arg(long, default_value = "earliest", value_name = "PLACE", value_parser = place)]
    from: Place,
    /// Only this partition
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Stop after that many records
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    /// Print only the values as they are, one a line; a tombstone is `null`
    #[arg(long)]
    values: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Earliest,
    Latest,
    Offset(i64),
    Time(i64),
}

fn place(text: &str) -> Result<Place, String> {
    if let Ok(offset) = text.parse::<i64>() {
        return if offset >= 0 { Ok(Place::Offset(offset)) } else { Err("an offset is not negative".to_owned()) };
    }
    match crate::manifest::parse_start(text) {
        Ok(Start::Earliest) => Ok(Place::Earliest),
        Ok(Start::Latest) => Ok(Place::Latest),
        Ok(Start::At(time)) => Ok(Place::Time(time)),
        Err(_) => Err("earliest, latest, an offset, or a time as in 2026-11-20T10:00:00Z is expected".to_owned()),
    }
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let interrupted = stop::on_signals(context.global.output)?;
    let log = context.connection.open()?;
    let topic = log.topic(&args.topic)?.ok_or_else(|| missing(&*log, &args.topic))?;
    match print(args, &*log, &topic, &interrupted) {
        Err(error) if broken_pipe(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whoever read our output has seen enough.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn print(args: &Args, log: &dyn Log, topic: &Topic, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let mut places = Vec::new();
    // Partitions with records still to come, and where they end.
    let mut ends = BTreeMap::new();
    for partition in 0..topic.partitions {
        if args.partition.is_some_and(|only| only != partition) {
            continue;
        }
        let at = TopicPartition::new(topic.name.clone(), partition);
        let bounds = log.bounds(&at)?;
        let from = match args.from {
            Place::Earliest => bounds.begin,
            Place::Latest => bounds.end,
            Place::Offset(offset) => offset.clamp(bounds.begin, bounds.end),
            Place::Time(time) => log.offset_at(&at, time)?,
        };
        if from < bounds.end || !args.until_end {
            places.push((at, from));
            ends.insert(partition, if args.until_end { bounds.end } else { i64::MAX });
        }
    }
    if let Some(partition) = args.partition.filter(|partition| *partition >= topic.partitions) {
        let last = topic.partitions - 1;
        return Err(LogError::stop(format!("topic `{}` has no partition {partition}: its partitions are 0 to {last}", topic.name)).into());
    }
    let mut printer =
        Printer { out: std::io::stdout().lock(), line: Vec::new(), values: args.values, left: args.limit.unwrap_or(u64::MAX) };
    let mut reader = log.reader()?;
    reader.assign(&places)?;
    while !ends.is_empty() && printer.left > 0 && !interrupted.load(Ordering::Relaxed) {
        match reader.poll(LIMIT, SLICE)? {
            Event::Records(fetched) => {
                let partition = fetched.from.partition;
                let Some(end) = ends.get(&partition).copied() else { continue };
                printer.print(&fetched, end)?;
                if fetched.offsets.last().is_some_and(|last| last + 1 >= end) {
                    ends.remove(&partition);
                }
            }
            // On Kafka the last offsets may hold no records.
            Event::End { at, .. } if args.until_end => {
                ends.remove(&at.partition);
            }
            _ => {}
        }
    }
    Ok(())
}

struct Printer<'a> {
    out: std::io::StdoutLock<'a>,
    line: Vec<u8>,
    values: bool,
    left: u64,
}

impl Printer<'_> {
    /// Prints the records below `end`.
    fn print(&mut self, fetched: &Fetched, end: i64) -> std::io::Result<()> {
        self.line.clear();
        let records = &fetched.records;
        for (row, (offset, timestamp)) in fetched.offsets.iter().zip(&records.timestamps).enumerate() {
            if *offset >= end || self.left == 0 {
                break;
            }
            self.left -= 1;
            if self.values {
                self.line.extend_from_slice(records.values.bytes(row).unwrap_or(b"null"));
                self.line.push(b'\n');
            } else {
                let standing = Standing { topic: None, partition: fetched.from.partition, offset: Some(*offset) };
                let (key, value) = (records.keys.bytes(row), records.values.bytes(row));
                jsonl::write(&mut self.line, Some(standing), *timestamp, key, value, records.headers.of(row));
            }
        }
        self.out.write_all(&self.line)?;
        self.out.flush()
    }
}
