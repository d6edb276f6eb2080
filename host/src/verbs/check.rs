//! A pipeline against the log on which it is to run.

use crate::io::{Log, LogError};
use crate::manifest::{Diagnostic, Diagnostics, Loaded};
use crate::pipeline::{Input, Pipeline, Policy};
use crate::runtime;
use std::collections::BTreeSet;

/// A pipeline against a log: topics, partitions, state. Err: what keeps it from running there, with the warnings that were known before
/// (as `manifest::Diagnostics`), or the log's own failure.
pub fn check_log(loaded: &Loaded, log: &dyn Log, on_kafka: bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    if on_kafka {
        let read = runtime::partitions_read(&loaded.pipeline, log)?;
        for (topic, what, written) in needed_topics(&loaded.pipeline) {
            if log.topic(topic)?.is_none() {
                let help = log.creation(topic, read.filter(|_| written));
                found.push(loaded.about_topic(topic, format!("the topic `{topic}` ({what}) is missing"), Some(help)));
            }
        }
    }
    found.extend(uneven_sources(loaded, log)?);
    if found.is_empty() {
        return Ok(());
    }
    found.extend(loaded.warnings.0.iter().cloned());
    found.sort_by_key(|one| one.span.start);
    Err(Diagnostics(found).into())
}

/// Topics that must be there on Kafka, each once, and whether the pipeline writes them.
fn needed_topics(pipeline: &Pipeline) -> Vec<(&str, &'static str, bool)> {
    let sources = pipeline.sources.iter().filter(|source| source.is_stream()).map(|source| (&*source.topic, "a source's", false));
    let tables = pipeline.tables.iter().map(|table| (&*table.topic, "a table's", false));
    let sinks = pipeline.sinks.iter().filter(|sink| !sink.create).map(|sink| (&*sink.topic, "a sink's", true));
    let dead = pipeline.policies().filter_map(|policy| match policy {
        Policy::DeadLetter { topic, .. } => Some((&**topic, "for dead letters", true)),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    sources.chain(tables).chain(sinks).chain(dead).filter(|(topic, ..)| seen.insert(*topic)).collect()
}

/// A key is in one partition number only if all sources of a store have as many partitions.
fn uneven_sources(loaded: &Loaded, log: &dyn Log) -> Result<Vec<Diagnostic>, LogError> {
    let pipeline = &loaded.pipeline;
    let mut problems = Vec::new();
    // Of inputs that are told apart, `runtime::uneven` tells.
    for stage in pipeline.stages.iter().filter(|stage| !stage.stores.is_empty() && stage.description.input_keys.is_empty()) {
        let mut counts = Vec::new();
        for source in sources_of(pipeline, &stage.from) {
            if let Some(source) = pipeline.sources.get(source)
                && let Some(topic) = log.topic(&source.topic)?
            {
                counts.push((topic.name, topic.partitions));
            }
        }
        if counts.windows(2).any(|two| matches!(two, [(_, one), (_, other)] if one != other)) {
            let counts: Vec<String> = counts.iter().map(|(topic, count)| format!("`{topic}` has {count}")).collect();
            let message = format!(
                "the stage `{}` keeps rows by key for topics with different numbers of partitions ({}): records of one key would not meet",
                stage.name,
                counts.join(", ")
            );
            problems.push(loaded.about_stage(&stage.name, message, Some("give these topics the same number of partitions".to_owned())));
        }
    }
    if let Some(counts) = partition_counts(pipeline, log)? {
        for (stage, message, help) in runtime::uneven(pipeline, &counts) {
            problems.push(loaded.about_stage(&pipeline.stages[stage].name, message, Some(help)));
        }
    }
    Ok(problems)
}

/// By source; None if a topic of the user's is missing. Repartition topics count as they would be made.
fn partition_counts(pipeline: &Pipeline, log: &dyn Log) -> Result<Option<Vec<i32>>, LogError> {
    let mut counts = vec![1; pipeline.sources.len()];
    for (source, count) in pipeline.sources.iter().zip(&mut counts).filter(|(source, _)| source.carries.is_none()) {
        let Some(topic) = log.topic(&source.topic)? else { return Ok(None) };
        *count = topic.partitions;
    }
    let most = runtime::partitions_read(pipeline, log)?.unwrap_or(1);
    for (at, source) in pipeline.sources.iter().enumerate().filter(|(_, source)| source.carries.is_some()) {
        let planned = runtime::repartition_count(pipeline, source, &counts).unwrap_or(most);
        counts[at] = log.topic(&source.topic)?.map_or(planned, |topic| topic.partitions);
    }
    Ok(Some(counts))
}

/// Indices of the sources whose records reach these inputs.
fn sources_of(pipeline: &Pipeline, from: &[Input]) -> BTreeSet<usize> {
    let mut sources = BTreeSet::new();
    let mut inputs: Vec<Input> = from.to_vec();
    let mut seen = BTreeSet::new();
    while let Some(input) = inputs.pop() {
        match input {
            Input::Source(source) => {
                sources.insert(source);
            }
            Input::Stage(stage, _) => {
                if seen.insert(stage) {
                    inputs.extend(pipeline.stages.get(stage).map(|stage| stage.from.as_slice()).unwrap_or_default());
                }
            }
        }
    }
    sources
}
