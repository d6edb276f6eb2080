//! `millstream why`: where an output record comes from, as its headers tell (`provenance: true` at its sink), and the row of a store that it was made from.

use super::super::{Context, Outcome, Output};
use super::{Fleet, row};
use crate::flow::provenance::{GENERATION, PIPELINE, PLUGINS, ROW, Row, SOURCE};
use crate::io::{Event, FetchLimit, Log, TopicPartition};
use crate::jsonl;
use crate::record::Records;
use crate::verbs::print;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a record is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The record, as TOPIC/PARTITION@OFFSET
    #[arg(value_name = "RECORD", value_parser = place)]
    record: (TopicPartition, i64),
    /// Print the record and the one that caused it, values too: they may hold what the output hides
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    fleet: Fleet,
}

/// `topic/partition@offset`.
pub fn place(text: &str) -> Result<(TopicPartition, i64), String> {
    let parse = || {
        let (at, offset) = text.rsplit_once('@')?;
        let (topic, partition) = at.rsplit_once('/')?;
        let (partition, offset) =
            (partition.parse().ok().filter(|number| *number >= 0)?, offset.parse().ok().filter(|offset| *offset >= 0)?);
        (!topic.is_empty()).then(|| (TopicPartition::new(topic, partition), offset))
    };
    parse().ok_or_else(|| "expected TOPIC/PARTITION@OFFSET, as in orders/0@17".to_owned())
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let log = context.connection.open()?;
    let (at, offset) = &args.record;
    let found = record(&*log, at, *offset)?.ok_or_else(|| {
        anyhow::anyhow!("there is no record {at}@{offset}: it was deleted, compacted away, or is none of a committed transaction")
    })?;
    let header = |name: &str| found.headers.last(0, name.as_bytes()).flatten().map(|value| String::from_utf8_lossy(value).into_owned());
    let (Some(pipeline), Some(source)) = (header(PIPELINE), header(SOURCE)) else {
        let untold = anyhow::anyhow!("{at}@{offset} does not tell where it comes from: say `provenance: true` at the sink that writes it");
        return Err(untold.into());
    };
    let number = header(GENERATION).and_then(|number| number.parse::<u64>().ok());
    let plugins: Vec<String> = header(PLUGINS).unwrap_or_default().split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
    let (_, control) = args.fleet.find(context)?;
    let deployed = number.and_then(|number| control.as_ref()?.view().pipeline(&pipeline)?.generations.get(&number).cloned());
    let cause = place(&source).map_err(anyhow::Error::msg)?;
    let cause_record = record(&*log, &cause.0, cause.1)?;
    let kept = header(ROW).map(|text| {
        serde_json::from_str::<Row>(&text)
            .map_err(|_| anyhow::anyhow!("the header {ROW} of {at}@{offset} cannot be read: is it of a newer version of the program?"))
    });
    let kept = kept.transpose()?.map(|kept| row::tell(&*log, context, &pipeline, &kept)).transpose()?;
    if context.global.output == Output::Json {
        let shown = |records: &Records, at: &TopicPartition, offset| {
            args.show.then(|| line(records, at, offset)).and_then(|line| serde_json::from_str::<Value>(&line).ok())
        };
        println!(
            "{}",
            json!({
                "record": format!("{at}@{offset}"), "pipeline": pipeline, "generation": number, "plugins": plugins, "source": source,
                "deployed": deployed.as_ref().map(|one| json!({ "kind": one.kind, "at": one.at, "by": one.by, "digest": one.digest })),
                "source_is_there": cause_record.is_some(), "row": kept.map(|kept| kept.json),
                "value": shown(&found, at, *offset),
                "source_value": cause_record.as_ref().and_then(|record| shown(record, &cause.0, cause.1)),
            })
        );
        return Ok(());
    }
    anstream::println!(
        "{at}@{offset} was written by pipeline {pipeline}{}",
        number.map(|number| format!(", generation {number}")).unwrap_or_default()
    );
    match (&deployed, number) {
        (Some(one), _) => anstream::println!("  {} of {} by {} ({})", one.kind, print::time(one.at), one.by, one.digest),
        (None, Some(_)) => anstream::println!("  of which the fleet `{}` knows nothing (another is named by --fleet)", args.fleet.fleet),
        (None, None) => {}
    }
    for plugin in &plugins {
        anstream::println!("  stage {plugin}");
    }
    let there = if cause_record.is_some() { "" } else { ", which is no longer there" };
    anstream::println!("caused by {source}{there}");
    kept.iter().flat_map(|kept| &kept.lines).for_each(|line| anstream::println!("{line}"));
    if args.show {
        anstream::print!("{}", line(&found, at, *offset));
        cause_record.iter().for_each(|record| anstream::print!("{}", line(record, &cause.0, cause.1)));
    }
    Ok(())
}

fn line(records: &Records, at: &TopicPartition, offset: i64) -> String {
    let mut line = Vec::new();
    let standing = jsonl::Standing { topic: Some(&at.topic), partition: at.partition, offset: Some(offset) };
    let (key, value) = (records.keys.bytes(0), records.values.bytes(0));
    jsonl::write(&mut line, Some(standing), records.timestamps[0], key, value, records.headers.of(0));
    String::from_utf8_lossy(&line).into_owned()
}

/// The record at this offset; None if there is none.
fn record(log: &dyn Log, at: &TopicPartition, offset: i64) -> Result<Option<Records>, crate::io::LogError> {
    let Some(topic) = log.topic(&at.topic)? else { return Ok(None) };
    if !(0..topic.partitions).contains(&at.partition) {
        return Ok(None);
    }
    let bounds = log.bounds(at)?;
    if !(bounds.begin..bounds.end).contains(&offset) {
        return Ok(None);
    }
    let mut reader = log.reader()?;
    reader.assign(&[(at.clone(), offset)])?;
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        match reader.poll(FetchLimit { rows: 1, bytes: 1 << 20 }, Duration::from_millis(100))? {
            Event::Records(fetched) if fetched.offsets.first() == Some(&offset) => return Ok(Some(fetched.records.gather(&[0]))),
            Event::Records(_) => return Ok(None),
            Event::End { offset: end, .. } if end > offset => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}
