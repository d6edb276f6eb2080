//! Parts of pipelines side by side: stages, sinks, sources, the fields that they read and write.

use crate::field::Field;
use crate::manifest::hide_secrets;
use crate::pipeline::{Input, InputKeys, Pipeline, Policy, Regroup, Sink, Source, Stage};
use crate::plugin::describe::{Base, FieldType, Schema};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Added,
    Removed,
    Changed,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// A part of a pipeline that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub name: String,
    pub change: What,
    /// A line for each thing.
    pub details: Vec<String>,
}

impl Change {
    pub fn of(name: &str, change: What, details: Vec<String>) -> Self {
        Self { name: name.to_owned(), change, details }
    }
}

pub fn listed(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What came, what went, and what `changed` finds in those that are in both.
pub fn compare<T>(old: &[T], new: &[T], name: impl Fn(&T) -> &str, changed: impl Fn(&T, &T) -> Vec<String>) -> Vec<Change> {
    let mut changes = Vec::new();
    for one in old.iter().filter(|one| !new.iter().any(|other| name(other) == name(one))) {
        changes.push(Change::of(name(one), What::Removed, Vec::new()));
    }
    for other in new {
        match old.iter().find(|one| name(one) == name(other)) {
            None => changes.push(Change::of(name(other), What::Added, Vec::new())),
            Some(one) => {
                let details = changed(one, other);
                if !details.is_empty() {
                    changes.push(Change::of(name(other), What::Changed, details));
                }
            }
        }
    }
    changes
}

fn arrow<T: PartialEq>(details: &mut Vec<String>, what: &str, one: &T, other: &T, text: impl Fn(&T) -> String) {
    if one != other {
        details.push(format!("{what}: {} -> {}", text(one), text(other)));
    }
}

pub fn stage(old: &Pipeline, one: &Stage, new: &Pipeline, other: &Stage) -> Vec<String> {
    let mut details = Vec::new();
    let plugin = |stage: &Stage| {
        let (about, digest) = (stage.plugin.about(), stage.plugin.digest());
        format!("{} {} ({})", about.name, about.version, digest.get(..8).unwrap_or(digest))
    };
    if one.plugin.digest() != other.plugin.digest() {
        details.push(format!("plugin: {} -> {}", plugin(one), plugin(other)));
    }
    config("with", &hide_secrets(&one.with), &hide_secrets(&other.with), &mut details);
    arrow(&mut details, "from", &inputs(old, &one.from), &inputs(new, &other.from), Clone::clone);
    arrow(&mut details, "limits.cpu", &one.limits.cpu, &other.limits.cpu, |cpu| format!("{cpu:?}"));
    arrow(&mut details, "limits.memory", &one.limits.memory, &other.limits.memory, |memory| format!("{memory} bytes"));
    arrow(&mut details, "on_error", &one.on_error, &other.on_error, policy);
    arrow(&mut details, "on_late", &one.on_late, &other.on_late, policy);
    arrow(&mut details, "protects", &one.protects, &other.protects, bool::to_string);
    arrow(&mut details, "log: unsafe", &one.log_unsafe, &other.log_unsafe, bool::to_string);
    let reads = |stage: &Stage| -> Vec<String> {
        let of = |input: Option<u32>| input.map(|input| format!(" of input {input}")).unwrap_or_default();
        let read = |read: &crate::plugin::describe::Read| {
            format!("{}: {}{}{}", read.path, read.kind, if read.required { ", required" } else { "" }, of(read.input))
        };
        let leaves = stage.description.leaves.then(|| "every leaf".to_owned());
        stage.description.reads.iter().map(read).chain(leaves).collect()
    };
    came_and_went("reads", &reads(one), &reads(other), &mut details);
    let writes = |stage: &Stage| -> Vec<String> {
        let several = stage.description.outputs.len() > 1;
        let output = |output: &crate::plugin::describe::Output| -> Vec<String> {
            let prefix = if several { format!("{}: ", output.name) } else { String::new() };
            let fields = output.fields.iter().filter(|field| !output.removes.contains(&field.path)).map(column);
            let new = (output.base == Base::Replace).then(|| "a new record".to_owned());
            fields.chain(new).map(|text| format!("{prefix}{text}")).collect()
        };
        stage.description.outputs.iter().flat_map(output).collect()
    };
    came_and_went("writes", &writes(one), &writes(other), &mut details);
    let removes = |stage: &Stage| -> Vec<String> {
        stage.description.outputs.iter().flat_map(|output| &output.removes).map(Field::to_string).collect()
    };
    came_and_went("removes", &removes(one), &removes(other), &mut details);
    arrow(&mut details, "stores", &one.stores, &other.stores, |stores| stores.join(", "));
    let tables = |pipeline: &Pipeline, stage: &Stage| -> Vec<String> {
        stage.tables.iter().map(|table| pipeline.tables[*table].name.clone()).collect()
    };
    came_and_went("looks up", &tables(old, one), &tables(new, other), &mut details);
    details
}

fn column(field: &FieldType) -> String {
    format!("{}: {}{}", field.path, field.kind, if field.nullable { "?" } else { "" })
}

/// A schema's fields with their types, in its order.
pub fn columns(schema: &Schema) -> Vec<String> {
    schema.fields.iter().map(column).collect()
}

fn came_and_went(what: &str, one: &[String], other: &[String], details: &mut Vec<String>) {
    details.extend(one.iter().filter(|text| !other.contains(text)).map(|text| format!("{what} no longer {text}")));
    details.extend(other.iter().filter(|text| !one.contains(text)).map(|text| format!("{what} {text}")));
}

/// Differences of two configurations, by their paths; values are cut short.
fn config(path: &str, one: &Value, other: &Value, details: &mut Vec<String>) {
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() <= 80 { text } else { format!("{}...", text.chars().take(77).collect::<String>()) }
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                match other.get(key) {
                    Some(new) => config(&format!("{path}.{key}"), value, new, details),
                    None => details.push(format!("{path}.{key}: {} -> nothing", short(value))),
                }
            }
            for (key, value) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                details.push(format!("{path}.{key}: nothing -> {}", short(value)));
            }
        }
        _ if one == other => {}
        _ => details.push(format!("{path}: {} -> {}", short(one), short(other))),
    }
}

pub fn policy(policy: &Policy) -> String {
    match policy {
        Policy::Fail => "fail".to_owned(),
        Policy::Skip => "skip".to_owned(),
        Policy::DeadLetter { topic, include_original } => {
            format!("dead letters to {topic}{}", if *include_original { ", with the original" } else { "" })
        }
    }
}

/// What stages and sinks read, by the names of the manifest: those of the repartition topic that may lie before.
fn inputs(pipeline: &Pipeline, inputs: &[Input]) -> String {
    let name = |input: &Input| match *input {
        Input::Source(source) => pipeline.sources[source].name.clone(),
        Input::Stage(at, output) => {
            let stage = &pipeline.stages[at];
            let outputs = &stage.description.outputs;
            if outputs.len() > 1 { format!("{}.{}", stage.name, outputs[output].name) } else { stage.name.clone() }
        }
    };
    listed(inputs.iter().flat_map(|input| pipeline.upstream(input)).map(name))
}

/// How a source is read, but for its key; what it declares.
pub fn source(one: &Source, other: &Source) -> Vec<String> {
    let mut details = schema("", &one.schema.schema, &other.schema.schema);
    arrow(&mut details, "format", &one.format, &other.format, |format| format!("{format:?}").to_lowercase());
    arrow(&mut details, "tombstones", &one.tombstones, &other.tombstones, |word| format!("{word:?}").to_lowercase());
    if one.time != other.time {
        details.push("another field is its time, or it is read otherwise".to_owned());
    }
    if one.schema.from != other.schema.from {
        details.push("other conversions".to_owned());
    }
    // Where a new group starts does not matter to one that has positions.
    if one.is_stream() != other.is_stream() {
        details.push("a source became a table's topic, or a table's a source".to_owned());
    }
    details
}

/// Of the fields of two schemas; each line begins with `prefix`.
pub fn schema(prefix: &str, one: &Schema, other: &Schema) -> Vec<String> {
    let mut details = Vec::new();
    let fields = |schema: &Schema| -> BTreeMap<String, String> {
        let text = |field: &FieldType| format!("{}{}", field.kind, if field.nullable { "?" } else { "" });
        schema.fields.iter().map(|field| (field.path.to_string(), text(field))).collect()
    };
    let (had, has) = (fields(one), fields(other));
    for (path, kind) in &had {
        match has.get(path) {
            None => details.push(format!("{prefix}no longer `{path}: {kind}`")),
            Some(now) if now != kind => details.push(format!("{prefix}`{path}`: {kind} -> {now}")),
            Some(_) => {}
        }
    }
    details.extend(has.iter().filter(|(path, _)| !had.contains_key(*path)).map(|(path, kind)| format!("{prefix}`{path}: {kind}`")));
    if one.open != other.open {
        details.push(format!("{prefix}{}", if other.open { "other fields too" } else { "no other fields" }));
    }
    details
}

/// By what records are brought together; which source is which input's does not matter, and its numbers change with the manifest.
pub fn same_regroup(one: Option<&Regroup>, other: Option<&Regroup>) -> bool {
    match (one, other) {
        (Some(Regroup::Inputs(InputKeys { fields: one, .. })), Some(Regroup::Inputs(InputKeys { fields: other, .. }))) => one == other,
        _ => one == other,
    }
}

/// Sinks by their topics: where they take records from, and what will stand in these.
pub fn sinks(old: &Pipeline, new: &Pipeline) -> Vec<Change> {
    let own = |pipeline: &Pipeline| -> Vec<Sink> { pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()).cloned().collect() };
    compare(
        &own(old),
        &own(new),
        |sink| &sink.topic,
        |one, other| {
            let mut details = Vec::new();
            arrow(&mut details, "from", &inputs(old, &one.from), &inputs(new, &other.from), Clone::clone);
            arrow(&mut details, "key", &one.key, &other.key, |key| {
                key.map_or("as it comes".to_owned(), |key| format!("{key:?}").to_lowercase())
            });
            arrow(&mut details, "format", &one.format, &other.format, |format| format!("{format:?}").to_lowercase());
            arrow(&mut details, "fields", &one.fields, &other.fields, |fields| match fields {
                None => "all".to_owned(),
                Some(fields) => listed(fields.iter()),
            });
            details.extend(schema("will write ", &written(old, one), &written(new, other)));
            details
        },
    )
}

/// What is known of the records of a sink.
pub fn written(pipeline: &Pipeline, sink: &Sink) -> Schema {
    let mut merged: Option<Schema> = None;
    for input in &sink.from {
        let schema = output(pipeline, *input);
        merged = Some(match merged {
            None => schema,
            Some(before) => common(&before, &schema),
        });
    }
    let mut schema = merged.unwrap_or_default();
    schema.fields.retain(|field| matches!(field.path, Field::Value(_)));
    if let Some(fields) = &sink.fields {
        schema.fields.retain(|known| matches!(&known.path, Field::Value(path) if fields.iter().any(|field| field.is_prefix_of(path))));
        schema.open = false;
    }
    schema
}

/// What is in the records of both; of two types, neither is known.
fn common(one: &Schema, other: &Schema) -> Schema {
    let mut fields = Vec::new();
    for field in &one.fields {
        match other.fields.iter().find(|known| known.path == field.path) {
            Some(known) if known.kind == field.kind => {
                fields.push(FieldType { nullable: field.nullable || known.nullable, ..field.clone() })
            }
            Some(_) => {}
            None => fields.push(FieldType { nullable: true, ..field.clone() }),
        }
    }
    let only = other.fields.iter().filter(|field| !one.fields.iter().any(|known| known.path == field.path));
    fields.extend(only.map(|field| FieldType { nullable: true, ..field.clone() }));
    Schema { fields, open: one.open || other.open }
}

/// What is known of the records of an input.
fn output(pipeline: &Pipeline, input: Input) -> Schema {
    let (stage, output) = match input {
        Input::Source(source) => return pipeline.sources[source].schema.schema.clone(),
        Input::Stage(stage, output) => (&pipeline.stages[stage], output),
    };
    let output = &stage.description.outputs[output];
    let mut schema = match output.base {
        Base::Extend => stage.input.clone(),
        Base::Replace => Schema { fields: Vec::new(), open: output.fields.is_empty() },
    };
    let below = |outer: &Field, inner: &Field| match (outer, inner) {
        (Field::Value(outer), Field::Value(inner)) => outer.is_prefix_of(inner),
        _ => false,
    };
    for removed in &output.removes {
        schema.fields.retain(|known| !below(removed, &known.path));
    }
    for field in output.fields.iter().filter(|field| !output.removes.contains(&field.path)) {
        match schema.fields.iter_mut().find(|known| known.path == field.path) {
            Some(known) => *known = field.clone(),
            None => schema.fields.push(field.clone()),
        }
    }
    schema
}
