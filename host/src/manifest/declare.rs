//! Sources, tables, policies and limits: what a manifest says by itself, without asking a plugin.

use super::attachments::Attachments;
use super::diagnostic::{Report, Source as File, Span};
use super::flow::{Flow, Known};
use super::grammar::{self, kind_of};
use super::units;
use super::yaml::{self, Entry, Node};
use crate::column::Type;
use crate::field::{Field, Path};
use crate::io::Guarantee;
use crate::pipeline::{FormatKind, KeyFormat, Policy, Scope, Source, SourceSchema, Start, Table, TimeField, Tombstones};
use crate::plugin::Limits;
use crate::plugin::describe::{FieldType, Schema};
use std::sync::Arc;

pub(crate) fn format(node: Option<&Node>) -> Option<FormatKind> {
    match node?.text()? {
        "json" => Some(FormatKind::Json),
        "raw" => Some(FormatKind::Raw),
        _ => None,
    }
}

pub(crate) fn key_format(node: Option<&Node>) -> Option<KeyFormat> {
    match node?.text()? {
        "text" => Some(KeyFormat::Text),
        "json" => Some(KeyFormat::Json),
        "int32" => Some(KeyFormat::Int32),
        "int64" => Some(KeyFormat::Int64),
        "bytes" => Some(KeyFormat::Bytes),
        _ => None,
    }
}

pub(crate) fn topic(node: &Node) -> Arc<str> {
    node.get("topic").and_then(Node::text).unwrap_or_default().into()
}

/// A source, and what its records are known to hold.
pub(crate) fn source(report: &Report, entry: &Entry, attachments: &dyn Attachments) -> (Source, Flow) {
    let node = &entry.value;
    let (schema, fields) = schema(report, node, attachments);
    let source = Source {
        name: entry.key.clone(),
        topic: topic(node),
        format: format(node.get("format")).unwrap_or_default(),
        key: key_format(node.get("key")).unwrap_or_default(),
        start: node.get("start").map(start).unwrap_or_default(),
        time: node.get("time").and_then(|time| time_field(report, time, &fields)),
        tombstones: match node.get("tombstones").and_then(Node::text) {
            Some("deliver") => Tombstones::Deliver,
            Some("drop") => Tombstones::Drop,
            _ => Tombstones::Pass,
        },
        schema,
        carries: None,
        table: None,
    };
    let open = source.schema.schema.open && source.format != FormatKind::Raw;
    let flow = Flow { fields, removed: Vec::new(), open, format: source.format, key: Some(source.key), source_key: true };
    (source, flow)
}

/// Exactly once where nothing is said.
pub(crate) fn guarantee(node: Option<&Node>) -> Guarantee {
    match node.and_then(Node::text) {
        Some("at-least-once") => Guarantee::AtLeastOnce,
        _ => Guarantee::ExactlyOnce,
    }
}

pub(crate) fn table(report: &Report, entry: &Entry, attachments: &dyn Attachments) -> Table {
    let node = &entry.value;
    let (schema, _) = schema(report, node, attachments);
    Table {
        name: entry.key.clone(),
        topic: topic(node),
        format: format(node.get("format")).unwrap_or_default(),
        key: key_format(node.get("key")).unwrap_or_default(),
        scope: match node.get("scope").and_then(Node::text) {
            Some("partitioned") => Scope::Partitioned,
            _ => Scope::Global,
        },
        schema,
    }
}

fn start(node: &Node) -> Start {
    match (node.int(), node.text()) {
        (Some(at), _) => Start::At(at),
        (None, Some(text)) => units::start(text).unwrap_or_default(),
        _ => Start::default(),
    }
}

fn time_field(report: &Report, node: &Node, fields: &[Known]) -> Option<TimeField> {
    let field = node.get("field")?;
    let path = Path::parse(field.text()?).ok()?;
    if let Some(known) = fields.iter().find(|known| known.path == path)
        && known.kind != Type::Int
    {
        report.error(
            field.span,
            format!("`{path}` is {} ({}), but a record's time is an int", known.kind, known.origin),
            format!("declare it as `{{ type: int, from: {} }}` if the text is a number", known.kind),
        );
    }
    let max_ahead = node.get("max_ahead").and_then(Node::text).and_then(|text| units::duration(text).ok());
    Some(TimeField {
        field: path,
        unit: if node.get("unit").and_then(Node::text) == Some("s") { 1000 } else { 1 },
        max_ahead: max_ahead.map_or(3_600_000, |ahead| i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX)),
    })
}

/// The declared fields of a source or table.
fn schema(report: &Report, owner: &Node, attachments: &dyn Attachments) -> (SourceSchema, Vec<Known>) {
    let mut block = Block { attachments, fields: Vec::new(), from: Vec::new(), closed: false };
    if let Some(node) = owner.get("schema") {
        if format(owner.get("format")) == Some(FormatKind::Raw) {
            report.error(node.head(), "values of format `raw` have no fields", "leave `schema` out, or say `format: json`".to_owned());
        }
        read_block(report, node, "", &mut block);
    }
    let Block { fields, from, closed, .. } = block;
    let described = fields
        .iter()
        .map(|known| FieldType { path: Field::Value(known.path.clone()), kind: known.kind, nullable: known.nullable })
        .collect();
    (SourceSchema { schema: Schema { fields: described, open: !closed }, from }, fields)
}

/// What is read of a block of fields.
struct Block<'a> {
    attachments: &'a dyn Attachments,
    fields: Vec<Known>,
    from: Vec<(Path, Type)>,
    closed: bool,
}

/// `file`: how the block's file is named in messages; empty for the manifest itself.
fn read_block(report: &Report, node: &Node, file: &str, block: &mut Block<'_>) {
    for entry in node.entries() {
        if grammar::is_schema_option(entry) {
            match (entry.value.boolean(), entry.value.text()) {
                (Some(value), _) => block.closed = value,
                (None, Some(_)) if !file.is_empty() => {
                    report.error(entry.value.span, "a schema's file names no further file", None);
                }
                (None, Some(path)) => read_file(report, path, entry.value.span, block),
                _ => {}
            }
            continue;
        }
        let Ok(path) = Path::parse(&entry.key) else { continue };
        let (word, converted, nullable) = match entry.value.text() {
            Some(word) => (Some(word), None, false),
            None => (
                entry.value.get("type").and_then(Node::text),
                entry.value.get("from"),
                entry.value.get("nullable").and_then(Node::boolean).unwrap_or_default(),
            ),
        };
        let Some(kind) = word.and_then(|word| kind_of(word.trim_end_matches('?'))) else { continue };
        let nullable = nullable || word.is_some_and(|word| word.ends_with('?'));
        if let Some(node) = converted
            && let Some(found) = node.text().and_then(|word| kind_of(word.trim_end_matches('?')))
            && found != kind
        {
            if !crate::format::json::converts(found, kind) {
                report.error(
                    node.span,
                    format!("there is no conversion from {found} to {kind}"),
                    "text can become any type; int, float, boolean and json can become text, int and float each other".to_owned(),
                );
            }
            block.from.push((path.clone(), found));
        }
        let line = report.source.place(entry.key_span.start).0;
        let origin = if file.is_empty() { format!("declared at line {line}") } else { format!("declared in {file}, line {line}") };
        check_nesting(report, &block.fields, &path, kind, entry.key_span);
        block.fields.push(Known { path, kind, nullable, origin, other: None });
    }
}

/// A field below one that is no object cannot be.
fn check_nesting(report: &Report, fields: &[Known], path: &Path, kind: Type, at: Span) {
    for known in fields {
        if known.path == *path {
            report.error(at, format!("`{path}` is declared twice ({})", known.origin), None);
        } else if (known.path.is_prefix_of(path) && known.kind != Type::Json) || (path.is_prefix_of(&known.path) && kind != Type::Json) {
            let (outer, inner) = if known.path.is_prefix_of(path) { (&known.path, path) } else { (path, &known.path) };
            report.error(at, format!("`{inner}` cannot be: `{outer}` is no object"), format!("declare `{outer}` as json, or leave it out"));
        }
    }
}

fn read_file(report: &Report, path: &str, span: Span, block: &mut Block<'_>) {
    let full = report.source.path.parent().unwrap_or(std::path::Path::new("")).join(path);
    let text = match block.attachments.schema(path) {
        Ok(text) => text,
        Err(error) => {
            return report.error(
                span,
                format!("cannot read the schema's file {}: {error}", full.display()),
                "the path is relative to the manifest; a field's type is one of boolean, int, float, text, bytes, json".to_owned(),
            );
        }
    };
    let inner = Report::new(Arc::new(File { path: full, text }));
    if let Some(root) = yaml::parse(&inner) {
        grammar::validate(&inner, &root, &grammar::SCHEMA, root.head());
        read_block(&inner, &root, path, block);
    }
    report.absorb(inner);
}

pub(crate) fn policy(node: Option<&Node>) -> Option<Policy> {
    let node = node?;
    match node.text() {
        Some("fail") => Some(Policy::Fail),
        Some("skip") => Some(Policy::Skip),
        Some(_) => None,
        None => Some(Policy::DeadLetter {
            topic: node.get("dead_letter").and_then(Node::text)?.into(),
            include_original: node.get("include").is_some(),
        }),
    }
}

/// Limits, `defaults` for what is not said.
pub(crate) fn limits(node: Option<&Node>, defaults: Limits) -> Limits {
    let text = |key| node.and_then(|node| node.get(key)).and_then(Node::text);
    Limits {
        cpu: text("cpu").and_then(|text| units::duration(text).ok()).unwrap_or(defaults.cpu),
        memory: text("memory").and_then(|text| units::size(text).ok()).unwrap_or(defaults.memory),
    }
}
