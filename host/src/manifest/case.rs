//! The tests that stand in a manifest, with the places of what they expect.

use super::diagnostic::Span;
use super::yaml::{Entry, Node, Value};

/// One test.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub span: Span,
    pub given: Vec<Given>,
    pub expect: Vec<Expect>,
}

/// What records are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Index into the pipeline's sources.
    Source(usize),
    /// Index into the pipeline's tables.
    Table(usize),
}

#[derive(Clone, Debug)]
pub struct Given {
    pub to: Target,
    /// In the order of the case.
    pub records: Vec<GivenRecord>,
}

#[derive(Clone, Debug)]
pub struct GivenRecord {
    pub span: Span,
    /// In the words of the key format; None or null = no key.
    pub key: Option<serde_json::Value>,
    pub value: GivenValue,
    /// None = a header without a value.
    pub headers: Vec<(String, Option<String>)>,
    /// Milliseconds since the epoch; None = by the order in the case.
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GivenValue {
    Tombstone,
    Json(serde_json::Value),
    /// The value's bytes, as they stand.
    Raw(String),
}

/// What a topic is to hold.
#[derive(Clone, Debug)]
pub struct Expect {
    pub topic: String,
    pub span: Span,
    /// In order within a key. Empty = the topic stays empty.
    pub records: Vec<ExpectRecord>,
}

#[derive(Clone, Debug)]
pub struct ExpectRecord {
    pub span: Span,
    /// None = not compared; null = no key.
    pub key: Option<(serde_json::Value, Span)>,
    /// None = not compared.
    pub value: Option<Expected>,
    pub headers: Vec<(String, Expected)>,
    pub timestamp: Option<(i64, Span)>,
    /// The value has the named fields and no others.
    pub exact: bool,
}

/// A value that is expected, with its place.
#[derive(Clone, Debug)]
pub struct Expected {
    pub span: Span,
    pub what: ExpectedValue,
}

#[derive(Clone, Debug)]
pub enum ExpectedValue {
    /// `!missing`: it is not there.
    Missing,
    /// Null, true, false, a number or a text; as the value of a record, null is a tombstone.
    Is(serde_json::Value),
    List(Vec<Expected>),
    /// These members; others are allowed unless `exact`.
    Fields(Vec<(String, Expected)>),
}

/// The tag of what must not be there.
const MISSING: &str = "!missing";

impl Expected {
    fn from(node: &Node) -> Self {
        let what = match &node.value {
            _ if node.tag.as_deref() == Some(MISSING) => ExpectedValue::Missing,
            Value::List(items) => ExpectedValue::List(items.iter().map(Self::from).collect()),
            Value::Map(entries) => ExpectedValue::Fields(members(entries)),
            _ => ExpectedValue::Is(node.to_json()),
        };
        Self { span: node.span, what }
    }
}

fn members(entries: &[Entry]) -> Vec<(String, Expected)> {
    entries
        .iter()
        .map(|entry| {
            let mut expected = Expected::from(&entry.value);
            // An empty value has no place of its own to show.
            if expected.span.start == expected.span.end {
                expected.span = entry.key_span;
            }
            (entry.key.clone(), expected)
        })
        .collect()
}

fn as_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::Null => None,
        Value::Text(text) => Some(text.clone()),
        _ => Some(node.to_json().to_string()),
    }
}

impl GivenRecord {
    pub(super) fn from(node: &Node) -> Self {
        let value = match (node.get("raw").and_then(Node::text), node.get("value")) {
            (Some(raw), _) => GivenValue::Raw(raw.to_owned()),
            (None, Some(Node { value: Value::Null, .. }) | None) => GivenValue::Tombstone,
            (None, Some(value)) => GivenValue::Json(value.to_json()),
        };
        Self {
            span: node.head(),
            key: node.get("key").map(Node::to_json).filter(|key| !key.is_null()),
            value,
            headers: node
                .get("headers")
                .map(Node::entries)
                .unwrap_or_default()
                .iter()
                .map(|entry| (entry.key.clone(), as_text(&entry.value)))
                .collect(),
            timestamp: node.get("timestamp").and_then(Node::int),
            partition: node.get("partition").and_then(Node::int).and_then(|partition| i32::try_from(partition).ok()),
        }
    }
}

impl ExpectRecord {
    pub(super) fn from(node: &Node) -> Self {
        Self {
            span: node.head(),
            key: node.get("key").map(|key| (key.to_json(), key.span)),
            value: node.get("value").map(Expected::from),
            headers: node.get("headers").map(|headers| members(headers.entries())).unwrap_or_default(),
            timestamp: node.get("timestamp").and_then(|time| Some((time.int()?, time.span))),
            exact: node.get("exact").and_then(Node::boolean).unwrap_or_default(),
        }
    }
}
