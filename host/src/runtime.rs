//! Puts a checked pipeline on a log: secrets, tables, topics, state. The one place that knows both.

use crate::clock::SystemClock;
use crate::flow::plan::Plan;
use crate::io::{Log, LogError, Member};
use crate::manifest::{Secrets, resolve_secrets};
use crate::pipeline::{Pipeline, Policy};
use crate::plugin::CallError;
use crate::plugin::describe::Request;
use crate::store::GlobalTable;
use crate::summary::Summary;
use crate::task::{BatchLimit, Setting, Stop};
use crate::worker::{Ended, Observer, Options, Worker};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

/// What may be created on a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creates {
    /// Every topic that a pipeline names.
    All,
    /// Sinks with `create: true`.
    Declared,
    Nothing,
}

/// Why a run did not end well, in words: what happened, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Record(String),
    #[error("{0}")]
    Plugin(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Setup(String),
}

/// Makes ready what the pipeline's tasks share.
pub fn prepare(
    pipeline: Pipeline,
    log: &Arc<dyn Log>,
    secrets: &Secrets,
    limit: BatchLimit,
    creates: Creates,
) -> Result<Setting, RunError> {
    let tables: BTreeMap<_, _> = pipeline.tables.iter().map(|table| (table.name.clone(), table.schema.schema.clone())).collect();
    let mut requests = Vec::with_capacity(pipeline.stages.len());
    for stage in &pipeline.stages {
        let config = resolve_secrets(&stage.with, &|name| secrets.get(name)).map_err(|missing| {
            let variables: Vec<_> = missing.iter().map(|name| crate::manifest::variable(name)).collect();
            RunError::Setup(format!(
                "pipeline `{}`, stage `{}`: the secrets {} are not given; set {} or name a file in MILLSTREAM_SECRETS",
                pipeline.name,
                stage.name,
                missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
                variables.join(", ")
            ))
        })?;
        requests.push(Request { config, input: stage.input.clone(), tables: tables.clone() });
    }
    let topics = topics(&pipeline, &**log, creates)?;
    let mut state = None;
    if pipeline.stages.iter().any(|stage| !stage.stores.is_empty()) {
        state = log.state(&pipeline.name)?;
        if state.is_none() {
            let stages: Vec<_> =
                pipeline.stages.iter().filter(|stage| !stage.stores.is_empty()).map(|stage| format!("`{}`", stage.name)).collect();
            return Err(RunError::Setup(format!(
                "pipeline `{}`: state on Kafka comes with a later version, but {} keep some; run the pipeline on the embedded log (without --brokers)",
                pipeline.name,
                stages.join(", ")
            )));
        }
    }
    let plan = Plan::new(&pipeline);
    let tables = pipeline.tables.iter().map(|table| Arc::new(RwLock::new(GlobalTable::new(table)))).collect();
    Ok(Setting { plan, requests, tables, state, topics, limit, fresh_instances: false, pipeline })
}

/// Partitions and limits of the topics that the pipeline writes; creates what may be created. All missing topics are told at once.
fn topics(pipeline: &Pipeline, log: &dyn Log, creates: Creates) -> Result<HashMap<Arc<str>, (i32, Option<usize>)>, RunError> {
    let mut missing = Vec::new();
    let mut partitions = 1;
    for source in &pipeline.sources {
        match log.topic(&source.topic)? {
            Some(topic) => partitions = partitions.max(topic.partitions),
            None if creates == Creates::All => log.create_topic(&source.topic, 1)?,
            None => missing.push(source.topic.clone()),
        }
    }
    for table in &pipeline.tables {
        if log.topic(&table.topic)?.is_none() {
            match creates {
                Creates::All => log.create_topic(&table.topic, 1)?,
                _ => missing.push(table.topic.clone()),
            }
        }
    }
    let dead = pipeline.policies().filter_map(|policy| match policy {
        Policy::DeadLetter { topic, .. } => Some((topic.clone(), false)),
        _ => None,
    });
    let mut written = HashMap::new();
    for (name, create) in pipeline.sinks.iter().map(|sink| (sink.topic.clone(), sink.create)).chain(dead) {
        if written.contains_key(&name) {
            continue;
        }
        if log.topic(&name)?.is_none() && (creates == Creates::All || creates == Creates::Declared && create) {
            log.create_topic(&name, partitions)?;
        }
        match log.topic(&name)? {
            Some(topic) => drop(written.insert(name, (topic.partitions, topic.max_message_bytes))),
            // A dry run writes nothing: it needs no topic.
            None if creates == Creates::Nothing => drop(written.insert(name, (partitions, None))),
            None => missing.push(name),
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Ok(written);
    }
    let commands: Vec<_> = missing.iter().map(|topic| format!("  millstream topic create {topic}")).collect();
    Err(LogError::stop(format!("these topics are missing; create them, or say `create: true` at a sink:\n{}", commands.join("\n"))).into())
}

/// Keeps the newest summary, and passes it on.
struct Summarize<'a> {
    summary: Summary,
    also: &'a mut dyn FnMut(&Summary),
}

impl Observer for Summarize<'_> {
    fn progress(&mut self, worker: &Worker<'_>) {
        self.summary = worker.summary();
        (self.also)(&self.summary);
    }
}

/// Runs a prepared pipeline in this thread. `member` stands in for the log's own (a dry run). The summary comes in either case.
pub fn run(
    setting: &Arc<Setting>,
    log: &Arc<dyn Log>,
    member: Option<Box<dyn Member>>,
    options: Options,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Summary),
) -> (Summary, Result<(), RunError>) {
    let clock = SystemClock::default();
    let worker = match member {
        Some(member) => Worker::with_member(setting.clone(), log.clone(), member, &clock, options, stop),
        None => Worker::new(setting.clone(), log.clone(), &clock, options, stop),
    };
    let mut observer = Summarize { summary: Summary::default(), also: progress };
    let ended = worker.and_then(|worker| worker.run(&mut observer));
    (observer.summary, ended.map_err(|ended| explain(&setting.pipeline, ended)))
}

/// What happened, where, what to do.
fn explain(pipeline: &Pipeline, ended: Ended) -> RunError {
    let name = &pipeline.name;
    let at = |index: usize| {
        let stage = &pipeline.stages[index];
        let about = stage.plugin.about();
        format!("pipeline `{name}`, stage `{}` (plugin {} {})", stage.name, about.name, about.version)
    };
    match ended {
        Ended::Log(error) => error.into(),
        Ended::Init { stage, error } => {
            let help = match &error {
                CallError::Failed(_) => "mend the stage's configuration",
                _ => "mend the plugin",
            };
            RunError::Plugin(format!("{} did not start: {error}; {help} and run again: nothing was read", at(stage)))
        }
        Ended::Stopped(Stop::Log(error)) => error.into(),
        Ended::Stopped(Stop::Call(failure)) => {
            let (origin, (first, last)) = (&failure.origin, failure.rows);
            let topic = &pipeline.sources[origin.source].topic;
            let place = |row: usize| format!("{topic}/{}@{}", origin.partitions[row], origin.offsets[row]);
            let records = if first == last {
                format!("record {}", place(first))
            } else {
                format!("one of the records {} to {}", place(first), place(last))
            };
            let help = match &failure.error {
                CallError::OutOfTime(_) | CallError::OutOfMemory(_) => "mend the plugin or raise the stage's `limits`",
                _ => "mend the plugin",
            };
            RunError::Plugin(format!(
                "{}, {records}: {}; {help} and run again: what came before is committed, the run goes on from there",
                at(failure.stage),
                failure.error
            ))
        }
        Ended::Stopped(Stop::Record(rejected)) => {
            let (origin, row) = (&rejected.origin, rejected.origin_row);
            let source = &pipeline.sources[origin.source];
            let whose = match rejected.stage {
                Some(stage) => at(stage),
                None => format!("pipeline `{name}`, source `{}`", source.name),
            };
            RunError::Record(format!(
                "{whose}: record {}/{}@{} was refused ({}): {}; the policy is `fail`: what came before is committed; mend the record's producer or the pipeline, \
                 or say `on_error: skip` or `on_error: {{ dead_letter: TOPIC }}`",
                source.topic, origin.partitions[row], origin.offsets[row], rejected.code, rejected.reason
            ))
        }
    }
}
