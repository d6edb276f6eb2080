//! The topics that a pipeline reads and writes: how many partitions they have, whether records would meet in them, what may be created.

use super::{Creates, RunError};
use crate::io::{Internal, Log, LogError};
use crate::pipeline::{Input, Pipeline, Policy, Regroup, Source, Stage};
use std::collections::HashMap;
use std::sync::Arc;

/// Partitions and limits of topics that a pipeline writes.
pub(super) type Written = HashMap<Arc<str>, (i32, Option<usize>)>;

/// The partition counts of the sources, and what is known of the topics that the pipeline writes; creates what may be created, and the pipeline's own
/// topics. All missing topics are told at once.
pub(super) fn topics(pipeline: &Pipeline, log: &dyn Log, creates: Creates) -> Result<(Vec<i32>, Written), RunError> {
    let mut missing = Vec::new();
    let read = partitions_read(pipeline, log)?;
    let partitions = read.unwrap_or(1);
    let mut counts = vec![1; pipeline.sources.len()];
    for (source, count) in pipeline.sources.iter().zip(&mut counts).filter(|(source, _)| source.carries.is_none()) {
        match log.topic(&source.topic)? {
            Some(topic) => *count = topic.partitions,
            None if creates == Creates::All => {
                *count = partitions;
                make_topic(log, &source.topic, *count)?;
            }
            None => missing.push((source.topic.clone(), None)),
        }
    }
    let wanted = |source: &Source| repartition_count(pipeline, source, &counts).unwrap_or(partitions);
    let own: Vec<_> = pipeline.sources.iter().map(|source| source.carries.map(|_| (source, wanted(source)))).collect();
    for (own, count) in own.into_iter().zip(&mut counts) {
        if let Some((source, wanted)) = own {
            *count = repartition_topic(log, &source.topic, wanted, creates, !missing.is_empty())?;
        }
    }
    let uneven = uneven(pipeline, &counts);
    if let Some((_, message, help)) = uneven.into_iter().next().filter(|_| missing.is_empty()) {
        return Err(LogError::stop(format!("{message}. Nothing was changed; {help}")).into());
    }
    for table in &pipeline.tables {
        if log.topic(&table.topic)?.is_none() {
            match creates {
                Creates::All => make_topic(log, &table.topic, 1)?,
                _ => missing.push((table.topic.clone(), None)),
            }
        }
    }
    let dead = pipeline.policies().filter_map(|policy| match policy {
        Policy::DeadLetter { topic, .. } => Some((topic.clone(), false)),
        _ => None,
    });
    let mut written = HashMap::new();
    let (own, sinks): (Vec<_>, Vec<_>) = pipeline.sinks.iter().partition(|sink| sink.regroup.is_some());
    for sink in own {
        let topic = log.topic(&sink.topic)?;
        let count = pipeline.sources.iter().position(|source| source.topic == sink.topic).map_or(partitions, |source| counts[source]);
        written.insert(sink.topic.clone(), topic.map_or((count, None), |topic| (topic.partitions, topic.max_message_bytes)));
    }
    for (name, create) in sinks.into_iter().map(|sink| (sink.topic.clone(), sink.create)).chain(dead) {
        if written.contains_key(&name) {
            continue;
        }
        if log.topic(&name)?.is_none() && (creates == Creates::All || creates == Creates::Declared && create) {
            make_topic(log, &name, partitions)?;
        }
        match log.topic(&name)? {
            Some(topic) => drop(written.insert(name, (topic.partitions, topic.max_message_bytes))),
            // A dry run writes nothing: it needs no topic.
            None if creates == Creates::Nothing => drop(written.insert(name, (partitions, None))),
            None => missing.push((name, read)),
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Ok((counts, written));
    }
    let commands: Vec<_> = missing.iter().map(|(topic, partitions)| format!("  {}", log.creation(topic, *partitions))).collect();
    Err(LogError::stop(format!("these topics are missing; create them, or say `create: true` at a sink:\n{}", commands.join("\n"))).into())
}

/// Creates a topic, unless another host has done so at the same time.
fn make_topic(log: &dyn Log, name: &str, partitions: i32) -> Result<(), LogError> {
    let created = log.create_topic(name, partitions);
    if created.is_err() && log.topic(name)?.is_some() { Ok(()) } else { created }
}

/// The number of partitions of a repartition topic, which is created if it is missing. `hold`: create nothing, the run will not start.
fn repartition_topic(log: &dyn Log, name: &str, partitions: i32, creates: Creates, hold: bool) -> Result<i32, LogError> {
    let found = log.topic(name)?;
    if found.is_none() && creates != Creates::Nothing && !hold {
        log.create_internal(name, partitions, Internal::Repartition)?;
    }
    if found.is_some() && log.retention(name)?.is_some_and(|retention| !retention.unlimited) {
        return Err(LogError::stop(format!(
            "the repartition topic {name} deletes records by age, size or key: some would be lost before they are read. Set `cleanup.policy=delete`, \
             `retention.ms=-1` and `retention.bytes=-1` on it"
        )));
    }
    Ok(found.map_or(partitions, |topic| topic.partitions))
}

/// What a topic is created with that the pipeline writes: as many partitions as the widest of its sources has; None if there is no source yet.
pub fn partitions_read(pipeline: &Pipeline, log: &dyn Log) -> Result<Option<i32>, LogError> {
    let mut most = None;
    for source in pipeline.sources.iter().filter(|source| source.is_stream()) {
        most = most.max(log.topic(&source.topic)?.map(|topic| topic.partitions));
    }
    Ok(most)
}

/// The partitions of a repartition topic whose records meet a table: as many as the table has. None: of any other.
pub fn repartition_count(pipeline: &Pipeline, source: &Source, counts: &[i32]) -> Option<i32> {
    let Some(Regroup::Table(key)) = source.carries.and_then(|sink| pipeline.sinks[sink].regroup.as_ref()) else { return None };
    let table = pipeline.sources.iter().position(|source| source.table.is_some() && source.topic == key.topic)?;
    counts.get(table).copied()
}

/// Stages whose records would not meet each other, or the rows of a partitioned table, since topics have other numbers of partitions: the stage's index, what
/// is wrong, what to do.
pub fn uneven(pipeline: &Pipeline, counts: &[i32]) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    for (index, stage) in pipeline.stages.iter().enumerate() {
        for table in pipeline.table_sources(stage) {
            let sources = pipeline.meeting(stage);
            let Some(other) = sources.into_iter().find(|source| counts[*source] != counts[table]) else { continue };
            let (source, topic) = (&pipeline.sources[other], &pipeline.sources[table]);
            let message = format!(
                "stage `{}` looks up the partitioned table `{}`, whose topic `{}` has {} partitions, but `{}` has {}: records would not meet their rows",
                stage.name, topic.name, topic.topic, counts[table], source.topic, counts[other]
            );
            let help = match source.carries {
                Some(_) => {
                    "the table's topic was made anew with other partitions: run the pipeline under another name to start anew".to_owned()
                }
                None => format!(
                    "give both topics as many partitions; or send the stage's records through a repartition topic by a stage before it: `plugin: map, with: \
                     {{ set: {{ $key: $key }} }}`; or make the table `{}` global (`scope: global`)",
                    topic.name
                ),
            };
            found.push((index, message, help));
        }
        found.extend(uneven_inputs(pipeline, stage, counts).map(|(message, help)| (index, message, help)));
    }
    found
}

/// Of a stage whose inputs meet by their keys: whether one has another number of partitions.
fn uneven_inputs(pipeline: &Pipeline, stage: &Stage, counts: &[i32]) -> Option<(String, String)> {
    if stage.description.input_keys.is_empty() {
        return None;
    }
    let differ = |from: &[Input]| {
        let sources = pipeline.origins(from);
        let first = *sources.first()?;
        let other = *sources.iter().find(|source| counts[**source] != counts[first])?;
        let told = |source: usize| format!("`{}` has {} partitions", pipeline.sources[source].topic, counts[source]);
        Some((told(first), told(other)))
    };
    let help = || "give both topics as many partitions".to_owned();
    if let Some((one, other)) = differ(&stage.from) {
        let message =
            format!("stage `{}` joins by the records' keys, but {one} and {other}: records of one key would not meet", stage.name);
        return Some((message, help()));
    }
    // Before a repartition topic they meet wherever they come from. But members share topics by their partition numbers, and whoever reads one side without
    // the other cannot hold it back.
    let (one, other) = stage.description.window.and_then(|_| differ(pipeline.named_inputs(stage)))?;
    let message = format!(
        "stage `{}` joins within a time, but {one} and {other}: a worker could read one side ahead of the other, which would make the other's records late",
        stage.name
    );
    Some((message, help()))
}
