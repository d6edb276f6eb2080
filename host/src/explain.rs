//! Why a task or a run does not go on, in words: what happened, where, what to do.

use crate::pipeline::Pipeline;
use crate::plugin::CallError;
use crate::task::Stop;

/// A stage, with the plugin that it has.
pub fn stage(pipeline: &Pipeline, index: usize) -> String {
    let Some(stage) = pipeline.stages.get(index) else { return format!("pipeline `{}`", pipeline.name) };
    let about = stage.plugin.about();
    format!("pipeline `{}`, stage `{}` (plugin {} {})", pipeline.name, stage.name, about.name, about.version)
}

/// A plugin that did not start.
pub fn not_started(pipeline: &Pipeline, index: usize, error: &CallError) -> String {
    let help = match error {
        CallError::Failed(_) => "mend the stage's configuration",
        _ => "mend the plugin",
    };
    format!("{} did not start: {error}; {help} and run again: nothing was read", stage(pipeline, index))
}

/// A record or a plugin that stopped a task.
pub fn stopped(pipeline: &Pipeline, stop: &Stop) -> String {
    match stop {
        Stop::Log(error) => error.message.clone(),
        Stop::Rows { stage: index, why } => {
            let whose = index.map_or_else(|| format!("pipeline `{}`", pipeline.name), |index| stage(pipeline, index));
            format!("{whose}: {why}")
        }
        Stop::Call(failure) => {
            let (origin, (first, last)) = (&failure.origin, failure.rows);
            let place = |row: usize| {
                let (source, partition, offset) = origin.place(row);
                format!("{}/{partition}@{offset}", pipeline.sources[source].topic)
            };
            let records = if first == last {
                format!("record {}", place(first))
            } else {
                format!("one of the records {} to {}", place(first), place(last))
            };
            let help = match &failure.error {
                CallError::OutOfTime(_) | CallError::OutOfMemory(_) => "mend the plugin or raise the stage's `limits`",
                _ => "mend the plugin",
            };
            format!(
                "{}, {records}: {}; {help} and run again: what came before is committed, the run goes on from there",
                stage(pipeline, failure.stage),
                failure.error
            )
        }
        Stop::Record(rejected) => {
            let (origin, row) = (&rejected.origin, rejected.origin_row);
            let (source, partition, offset) = origin.place(row);
            let source = &pipeline.sources[source];
            let whose = match rejected.stage {
                Some(index) => stage(pipeline, index),
                None => format!("pipeline `{}`, source `{}`", pipeline.name, source.name),
            };
            format!(
                "{whose}: record {}/{partition}@{offset} was refused ({}): {}; the policy is `fail`: what came before is committed; mend the record's producer or the pipeline, \
                 or say `on_error: skip` or `on_error: {{ dead_letter: TOPIC }}`",
                source.topic, rejected.code, rejected.reason
            )
        }
    }
}
