//! Hosts, and for each pipeline what runs and how far it is.

use super::{Answer, Failure, deployment, print, trial};
use crate::clock::SystemClock;
use crate::fleet::{Control, Deployment, Generation, State};
use crate::io::{Bounds, Clock, TopicPartition};
use crate::manifest;
use crate::pipeline::repartition_topic;
use crate::shadow::Report;
use crate::share::Keys;
use crate::task::Metadata;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How far a pipeline is in a partition of a source, or of a repartition topic.
struct Place {
    at: TopicPartition,
    bounds: Bounds,
    committed: Option<i64>,
    /// Of the committed position.
    generation: Option<u64>,
    /// The keys for which that one works, and the generation that works for the others.
    divided: Option<(Keys, u64)>,
    parked: Option<String>,
}

/// How far a pipeline is.
struct Places {
    /// In its sources and partitioned tables.
    sources: Vec<Place>,
    /// In its own topics between stages.
    repartition: Vec<Place>,
}

impl Place {
    fn lag(&self) -> i64 {
        self.bounds.end.saturating_sub(self.committed.unwrap_or(self.bounds.begin)).max(0)
    }
}

/// Hosts, and what runs: of one pipeline, or of all.
pub fn status(control: &Control, pipeline: Option<&str>) -> Result<Answer, Failure> {
    let now = now();
    let view = control.view();
    let mut pipelines = Vec::new();
    match pipeline {
        Some(name) => pipelines.push((name, deployment(control, name, true)?)),
        None => pipelines.extend(view.pipelines.iter().map(|(name, known)| (name.as_str(), known))),
    }
    let mut shown = Vec::new();
    for (name, known) in pipelines {
        shown.push((name, known, places(control, name, known)?));
    }
    let hosts = view.hosts.iter().map(|(id, heard)| {
        let mut host = json!(heard.record);
        host["id"] = id.as_str().into();
        host["heard"] = heard.at.into();
        host["live"] = heard.is_live(now).into();
        host
    });
    let pipelines: Vec<_> = shown.iter().map(|(name, known, places)| in_json(control, name, known, places)).collect();
    let json = json!({ "fleet": control.fleet(), "hosts": hosts.collect::<Vec<_>>(), "pipelines": pipelines, "set_aside": view.set_aside });
    let mut text = format!("fleet {}\n", control.fleet());
    if view.hosts.is_empty() {
        text.push_str("no host runs; start one with `millstream serve`\n");
    }
    for (id, heard) in &view.hosts {
        let record = &heard.record;
        let silent = now.saturating_sub(heard.at);
        let standing = if heard.is_live(now) {
            format!("live, for {}", print::span(now.saturating_sub(record.started)))
        } else {
            format!("silent for {}, since {}", print::span(silent), print::time(heard.at))
        };
        let _ = writeln!(text, "host {id} ({}, process {}, version {}): {standing}", record.name, record.pid, record.version);
    }
    for (name, known, places) in &shown {
        print_pipeline(control, &mut text, name, known, places);
    }
    Ok(Answer { json, text })
}

fn now() -> i64 {
    SystemClock::default().now()
}

fn places(control: &Control, name: &str, known: &Deployment) -> Result<Places, Failure> {
    let Some(shown) = known.active().or(known.next()) else { return Ok(Places { sources: Vec::new(), repartition: Vec::new() }) };
    // Whether one lies before a stage is known once plugins are loaded; that it is there shows as much.
    let stages = manifest::plugins(&shown.manifest).into_iter();
    let own: Vec<String> = stages.map(|(stage, _)| repartition_topic(name, &stage)).collect();
    let mut read = partitions_there(control, manifest::topics_read(&shown.manifest))?;
    let own = partitions_there(control, &own)?;
    // That something stands still is told also of a topic which this generation does not read any more.
    let parked: BTreeSet<&str> =
        known.parked.keys().map(|at| &*at.topic).filter(|topic| read.iter().chain(&own).all(|at| *at.topic != **topic)).collect();
    read.extend(partitions_there(control, &parked)?);
    Ok(Places { sources: places_in(control, name, known, read)?, repartition: places_in(control, name, known, own)? })
}

/// Every partition of those of the topics that are there.
fn partitions_there<T: AsRef<str>>(control: &Control, topics: impl IntoIterator<Item = T>) -> Result<Vec<TopicPartition>, Failure> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = control.log().topic(topic.as_ref())?.map_or(0, |topic| topic.partitions);
        partitions.extend((0..count).map(|partition| TopicPartition::new(topic.as_ref(), partition)));
    }
    Ok(partitions)
}

fn places_in(control: &Control, name: &str, known: &Deployment, partitions: Vec<TopicPartition>) -> Result<Vec<Place>, Failure> {
    let log = control.log();
    let positions = log.committed(name, &partitions)?;
    let mut places = Vec::new();
    for (at, position) in partitions.into_iter().zip(positions) {
        let bounds = log.bounds(&at)?;
        let metadata = position.as_ref().and_then(|position| Metadata::of(&position.metadata));
        let divided = metadata.as_ref().and_then(|metadata| metadata.keys.zip(metadata.beside));
        let generation = metadata.map(|metadata| metadata.generation);
        let parked = known.parked.get(&at).map(|parked| parked.reason.clone());
        places.push(Place { bounds, committed: position.map(|position| position.offset), generation, divided, parked, at });
    }
    Ok(places)
}

fn standing(known: &Deployment) -> &'static str {
    match &known.head {
        None => "unknown",
        Some(head) if head.state == State::Running && known.active().is_none() => "not active",
        Some(head) => head.state.name(),
    }
}

fn place_in_json(place: &Place) -> Value {
    json!({
        "topic": *place.at.topic,
        "partition": place.at.partition,
        "committed": place.committed,
        "end": place.bounds.end,
        "lag": place.lag(),
        "generation": place.generation,
        "keys": place.divided.map(|(keys, _)| keys.share()),
        "beside": place.divided.map(|(_, beside)| beside),
        "parked": place.parked,
    })
}

fn in_json(control: &Control, name: &str, known: &Deployment, places: &Places) -> Value {
    let of = |generation: Option<&Generation>| {
        let generation = generation?;
        let answers = known.answers.get(&generation.number).cloned().unwrap_or_default();
        Some(json!({
            "generation": generation.number,
            "kind": generation.kind,
            "class": generation.class,
            "digest": generation.digest,
            "at": generation.at,
            "by": generation.by,
            "answers": answers,
        }))
    };
    let trial = known.head.as_ref().and_then(|head| head.trial.as_ref());
    let shadow = trial.filter(|trial| trial.mode.compares());
    json!({
        "pipeline": name,
        "state": standing(known),
        "by": known.head.as_ref().map(|head| &head.by),
        "at": known.head.as_ref().map(|head| head.at),
        "active": of(known.active()),
        "next": of(known.next()),
        "shadow": shadow.map(|trial| control.view().shadow(name, trial.generation, now())),
        "trial": trial,
        "partitions": places.sources.iter().map(place_in_json).collect::<Vec<_>>(),
        "repartition": places.repartition.iter().map(place_in_json).collect::<Vec<_>>(),
    })
}

/// How a generation on trial compares.
fn print_shadow(text: &mut String, report: &Report) {
    let differences: u64 = report.differences.values().map(|difference| difference.count).sum();
    let _ = writeln!(
        text,
        "  compared: {} records, {} outputs, {differences} differences of {} records; {} records since the last one",
        report.records, report.outputs, report.differing, report.clean
    );
    for (what, difference) in &report.differences {
        let _ = writeln!(text, "  {}", difference.told(what));
    }
    if let Some(why) = &report.ended {
        let _ = writeln!(text, "  it has ended: {why}");
    }
}

fn print_pipeline(control: &Control, text: &mut String, name: &str, known: &Deployment, places: &Places) {
    let by = known.head.as_ref().map(|head| format!(", {} by {}", print::time(head.at), head.by)).unwrap_or_default();
    let _ = writeln!(text, "\npipeline {name}: {}{by}", standing(known));
    let trial = known.head.as_ref().and_then(|head| head.trial.as_ref());
    let on_trial = trial.and_then(|trial| known.generations.get(&trial.generation));
    if let Some(trial) = trial {
        let _ = writeln!(text, "generation {} is on trial: {}", trial.generation, trial::told(&trial.mode));
        if trial.mode.compares() {
            print_shadow(text, &control.view().shadow(name, trial.generation, now()));
        }
    }
    for (what, generation) in [("generation", known.active()), ("on trial: generation", on_trial), ("next: generation", known.next())] {
        let Some(generation) = generation else { continue };
        let _ = writeln!(text, "{what} {} ({}, {}, {})", generation.number, generation.kind, generation.class.name(), generation.digest);
        for (host, answer) in known.answers.get(&generation.number).unwrap_or(&BTreeMap::new()) {
            let error = answer.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            let _ = writeln!(text, "  host {host}: {}{error}", answer.state.name());
        }
    }
    if places.sources.is_empty() {
        return;
    }
    let mut table = print::table(&["topic", "partition", "committed", "end", "lag", "generation", "parked"]);
    let dash = || "-".to_owned();
    for place in places.sources.iter().chain(&places.repartition) {
        table.add_row([
            place.at.topic.to_string(),
            place.at.partition.to_string(),
            place.committed.map_or_else(dash, |offset| offset.to_string()),
            place.bounds.end.to_string(),
            place.lag().to_string(),
            place.generation.map_or_else(dash, |generation| match place.divided {
                Some((keys, beside)) => format!("{generation} for {keys}, else {beside}"),
                None => generation.to_string(),
            }),
            place.parked.clone().unwrap_or_default(),
        ]);
    }
    let _ = writeln!(text, "{}", table.trim_fmt());
}
