//! `millstream check`.

use super::{Context, Outcome, Output};
use crate::column::Type;
use crate::field::Path;
use crate::io::{Guarantee, Log};
use crate::manifest::{self, Diagnostics, Loaded};
use crate::pipeline::{Input, Pipeline, PluginRef, Regroup, Scope, Stage, TableKey};
use crate::plugin::describe::Base;
use crate::plugin::engine::Engine;
use crate::verbs::check_log;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let loaded = manifest::load(&args.file, &Engine::new()?)?;
    if let Some(log) = reachable_log(context)? {
        check_log(&loaded, &*log, context.connection.brokers.is_some())?;
    }
    match context.global.output {
        Output::Json => println!("{}", to_json(&loaded)),
        Output::Text => {
            if !loaded.warnings.0.is_empty() {
                print_diagnostics(&loaded.warnings);
            }
            print_summary(&loaded.pipeline);
        }
    }
    Ok(())
}

/// To standard error: with the lines of the file on a terminal, else one line for each.
pub(super) fn print_diagnostics(found: &Diagnostics) {
    let fancy = std::io::IsTerminal::is_terminal(&std::io::stderr());
    anstream::eprint!("{}", found.render(fancy));
    anstream::eprintln!("{}", found.summary());
}

/// The log that is named or stands in the data folder: a check makes no folder.
pub(super) fn reachable_log(context: &Context) -> anyhow::Result<Option<std::sync::Arc<dyn Log>>> {
    if context.connection.brokers.is_none() && !context.connection.data_folder().exists() {
        return Ok(None);
    }
    context.connection.open().map(Some)
}

fn input_name(pipeline: &Pipeline, input: Input) -> String {
    match input {
        Input::Source(at) => pipeline.sources.get(at).map(|source| source.name.clone()).unwrap_or_default(),
        Input::Stage(at, output) => match pipeline.stages.get(at) {
            Some(stage) if stage.description.outputs.len() > 1 => {
                format!("{}.{}", stage.name, stage.description.outputs.get(output).map_or("", |output| output.name.as_str()))
            }
            Some(stage) => stage.name.clone(),
            None => String::new(),
        },
    }
}

fn input_names(pipeline: &Pipeline, inputs: &[Input]) -> Vec<String> {
    inputs.iter().map(|input| input_name(pipeline, *input)).collect()
}

fn plugin_name(stage: &Stage) -> String {
    match &stage.reference {
        PluginRef::Standard(name) => name.clone(),
        PluginRef::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}

fn reads(stage: &Stage) -> Vec<String> {
    let leaves = stage.description.leaves.then(|| "every leaf".to_owned());
    stage.description.reads.iter().map(|read| format!("{}: {}", read.path, read.kind)).chain(leaves).collect()
}

/// What each output writes, with its name if there are several.
fn writes(stage: &Stage) -> Vec<String> {
    let outputs = &stage.description.outputs;
    let mut all = Vec::new();
    for output in outputs {
        let prefix = if outputs.len() > 1 { format!("{}: ", output.name) } else { String::new() };
        // What is removed in every row stands among the fields too.
        let written = output.fields.iter().filter(|field| !output.removes.contains(&field.path));
        let fields = written.map(|field| format!("{prefix}{}: {}", field.path, field.kind));
        let removed = output.removes.iter().map(|path| format!("{prefix}- {path}"));
        let new = (output.base == Base::Replace).then(|| format!("{prefix}a new record"));
        all.extend(new.into_iter().chain(fields).chain(removed));
    }
    all
}

fn table_names(pipeline: &Pipeline, stage: &Stage) -> Vec<String> {
    stage.tables.iter().filter_map(|table| pipeline.tables.get(*table)).map(|table| table.name.clone()).collect()
}

fn print_summary(pipeline: &Pipeline) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["stage", "plugin", "from", "reads", "writes", "stores", "tables", "permissions"]);
    let cell = |items: Vec<String>| items.join("\n");
    for stage in &pipeline.stages {
        table.add_row([
            stage.name.clone(),
            plugin_name(stage),
            cell(input_names(pipeline, &stage.from)),
            cell(reads(stage)),
            cell(writes(stage)),
            cell(stage.stores.clone()),
            cell(table_names(pipeline, stage)),
            cell(stage.plugin.imports().to_vec()),
        ]);
    }
    let mut out = String::new();
    for source in pipeline.sources.iter().filter(|source| source.table.is_none()) {
        out.push_str(&format!("source {}: topic {}\n", source.name, source.topic));
    }
    if !pipeline.stages.is_empty() {
        out.push_str(&format!("{table}\n"));
    }
    for sink in pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()) {
        out.push_str(&format!("sink {}: from {}\n", sink.topic, input_names(pipeline, &sink.from).join(", ")));
    }
    let scoped =
        |scope| pipeline.tables.iter().filter(move |table| table.scope == scope).map(|table| table.name.as_str()).collect::<Vec<_>>();
    let partitioned = scoped(Scope::Partitioned);
    if !partitioned.is_empty() {
        out.push_str(&format!("tables ({}) are partitioned: each record meets them as of its own place\n", partitioned.join(", ")));
    }
    let names = scoped(Scope::Global);
    if !names.is_empty() {
        out.push_str(&format!(
            "tables ({}) are read to their end before the first record, then as they come: what a record finds later depends on when it is processed\n",
            names.join(", ")
        ));
    }
    for (sink, by) in pipeline.sinks.iter().filter_map(|sink| Some((sink, sink.regroup.as_ref()?))) {
        out.push_str(&format!("topic {}: of the pipeline's own; brings records together by {}\n", sink.topic, by_text(by)));
    }
    if pipeline.guarantee == Guarantee::AtLeastOnce {
        out.push_str(
            "guarantee: at least once on Kafka: after a failure, records since the last commit count again, in outputs and in state\n",
        );
    }
    anstream::print!("{out}pipeline {}: no mistakes\n", pipeline.name);
}

/// By what a repartition topic brings records together.
fn by_text(by: &Regroup) -> String {
    match by {
        Regroup::Key => "their key, which a stage before may have changed".to_owned(),
        Regroup::Fields(fields) => fields.iter().map(|(path, _)| format!("`{path}`")).collect::<Vec<_>>().join(", "),
        Regroup::Table(TableKey { field, topic, .. }) => match field {
            Some((path, _)) => format!("`{path}`, as the keys of the table's topic {topic}"),
            None => format!("their key, as the keys of the table's topic {topic}"),
        },
        Regroup::Inputs(keys) => {
            let field = |field: &Option<(Path, Type)>| field.as_ref().map_or("their key".to_owned(), |(path, _)| format!("`{path}`"));
            keys.fields.iter().map(field).collect::<Vec<_>>().join(" and ")
        }
        Regroup::One => "nothing: all in one partition".to_owned(),
    }
}

fn to_json(loaded: &Loaded) -> serde_json::Value {
    let pipeline = &loaded.pipeline;
    json!({
        "pipeline": pipeline.name,
        "diagnostics": loaded.warnings.to_json(),
        "sources": pipeline.sources.iter().filter(|source| source.is_stream()).map(|source| json!({ "name": source.name, "topic": *source.topic })).collect::<Vec<_>>(),
        "tables": pipeline.tables.iter().map(|table| json!({ "name": table.name, "topic": *table.topic, "scope": if table.scope == Scope::Partitioned { "partitioned" } else { "global" } })).collect::<Vec<_>>(),
        "stages": pipeline.stages.iter().map(|stage| json!({
            "name": stage.name,
            "plugin": plugin_name(stage),
            "digest": stage.plugin.digest(),
            "from": input_names(pipeline, &stage.from),
            "reads": stage.description.reads,
            "leaves": stage.description.leaves,
            "outputs": stage.description.outputs,
            "stores": stage.stores,
            "tables": table_names(pipeline, stage),
            "imports": stage.plugin.imports(),
        })).collect::<Vec<_>>(),
        "sinks": pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()).map(|sink| json!({ "topic": *sink.topic, "from": input_names(pipeline, &sink.from) })).collect::<Vec<_>>(),
        "repartitions": pipeline.sinks.iter().filter_map(|sink| {
            Some(json!({ "topic": *sink.topic, "from": input_names(pipeline, &sink.from), "by": by_text(sink.regroup.as_ref()?) }))
        }).collect::<Vec<_>>(),
        "tests": loaded.cases.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::{EmbeddedLog, Options};
    use std::path::Path;

    fn load(text: &str) -> Loaded {
        manifest::load_text(Path::new("p.yaml"), text.to_owned(), &Engine::new().unwrap()).map_err(|found| found.to_string()).unwrap()
    }

    fn found(loaded: &Loaded, log: &dyn Log, on_kafka: bool) -> Vec<String> {
        let Err(error) = check_log(loaded, log, on_kafka) else { return Vec::new() };
        let found = error.downcast::<Diagnostics>().unwrap();
        found.0.iter().filter(|one| one.severity == manifest::Severity::Error).map(|one| one.to_plain()).collect()
    }

    const KEYED: &str = "pipeline: p
sources:
  a: { topic: a }
  b: { topic: b }
stages:
  - { name: count, from: [a, b], plugin: aggregate, with: { compute: { n: count() } } }
sinks: [{ from: count, topic: out }]
on_error: { dead_letter: dead }
";

    #[test]
    fn missing_topics_come_with_their_command() {
        let log = EmbeddedLog::temporary(Options::default()).unwrap();
        let loaded = load(
            "pipeline: p\nsources: { a: { topic: a } }\nsinks:\n  - { from: a, topic: out }\n  - { from: a, topic: made, create: true }\non_error: { dead_letter: dead }\n",
        );
        assert_eq!(
            found(&loaded, &log, true),
            [
                "p.yaml:2:24: error: the topic `a` (a source's) is missing\n  help: millstream topic create a\n",
                "p.yaml:4:23: error: the topic `out` (a sink's) is missing\n  help: millstream topic create out\n",
                "p.yaml:6:26: error: the topic `dead` (for dead letters) is missing\n  help: millstream topic create dead\n",
            ]
        );
        log.create_topic("a", 3).unwrap();
        let commands: Vec<_> = found(&loaded, &log, true).iter().filter_map(|one| Some(one.split_once("help: ")?.1.to_owned())).collect();
        assert_eq!(commands, ["millstream topic create out --partitions 3\n", "millstream topic create dead --partitions 3\n"]);
        for topic in ["out", "dead"] {
            log.create_topic(topic, 1).unwrap();
        }
        assert!(found(&loaded, &log, true).is_empty());
    }

    #[test]
    fn topics_of_one_store_have_as_many_partitions() {
        let log = EmbeddedLog::temporary(Options::default()).unwrap();
        log.create_topic("a", 2).unwrap();
        log.create_topic("b", 3).unwrap();
        let uneven = found(&load(KEYED), &log, false);
        assert_eq!(uneven.len(), 1);
        assert!(uneven[0].contains("(`a` has 2, `b` has 3)"), "{}", uneven[0]);
        // One task over all partitions does not care.
        let single = KEYED.replace("with: { ", "with: { group_by: [g], ");
        assert!(found(&load(&single), &log, false).is_empty());
    }
}
