//! The manifest's language as data: which keys stand where and what they hold. Reading, the JSON schema for editors, and the test that holds the
//! documentation to it all come from here, so that they cannot drift apart.

use super::diagnostic::{Report, Span, nearest, propose};
use super::units;
use super::yaml::{Entry, Node, Value};
use crate::column::Type;
use crate::field::Path;
use serde_json::json;

/// What may stand at a place.
pub(crate) enum Shape {
    Any,
    Bool,
    Int,
    /// A text with rules of its own.
    Text(&'static TextShape),
    /// One of a few words, each with its meaning.
    Word(&'static [(&'static str, &'static str)]),
    /// A block of these keys.
    Keys(&'static Keys),
    /// A block of names of the user's own.
    Named {
        name: &'static TextShape,
        of: &'static Shape,
    },
    List(&'static Shape),
    /// The fields of a source or a table. `file` and `closed` are options beside the fields; a field may still have these names, since a type is
    /// neither `true` nor a path.
    Schema,
    /// The first that has the kind (text, block, list ...) of what stands there.
    Either(&'static [&'static Shape]),
}

pub(crate) struct TextShape {
    /// As in "a topic's name".
    pub what: &'static str,
    /// A regular expression for editors; `check` decides.
    pub pattern: Option<&'static str>,
    /// Err: why it is none.
    pub check: fn(&str) -> Result<(), String>,
}

pub(crate) struct Keys {
    /// As in "a source".
    pub what: &'static str,
    pub keys: &'static [Key],
}

pub(crate) struct Key {
    pub name: &'static str,
    pub required: bool,
    pub shape: &'static Shape,
    pub about: &'static str,
}

const fn must(name: &'static str, shape: &'static Shape, about: &'static str) -> Key {
    Key { name, required: true, shape, about }
}

const fn may(name: &'static str, shape: &'static Shape, about: &'static str) -> Key {
    Key { name, required: false, shape, about }
}

fn any_text(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(()) }
}

/// Names of sources, tables, stages, stores: no dot, since `stage.output` names an output.
fn name(text: &str) -> Result<(), String> {
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
        return Err(format!("`{wrong}` may not stand in it: letters, digits, `-` and `_` may"));
    }
    any_text(text)
}

/// Kafka's rule.
fn topic(text: &str) -> Result<(), String> {
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(format!("`{wrong}` may not stand in it: letters, digits, `.`, `-` and `_` may"));
    }
    match text {
        "" => Err("it is empty".to_owned()),
        "." | ".." => Err("a folder's name is no topic".to_owned()),
        _ if text.len() > 249 => Err("it has more than 249 characters".to_owned()),
        _ => Ok(()),
    }
}

fn path(text: &str) -> Result<(), String> {
    if text.starts_with('$') {
        return Err("fields of the value stand here, no pseudo-fields".to_owned());
    }
    Path::parse(text).map(drop).map_err(|error| error.to_string())
}

/// As in `text?`.
fn kind(text: &str) -> Result<(), String> {
    let word = text.strip_suffix('?').unwrap_or(text);
    match kind_of(word) {
        Some(_) => Ok(()),
        None => Err(propose(word, TYPES.iter().map(|(word, _)| *word)).unwrap_or_default()),
    }
}

pub(crate) fn kind_of(word: &str) -> Option<Type> {
    [Type::Boolean, Type::Int, Type::Float, Type::Text, Type::Bytes, Type::Json].into_iter().find(|kind| kind.name() == word)
}

const TYPES: &[(&str, &str)] = &[
    ("boolean", "true or false"),
    ("int", "a whole number of 64 bits"),
    ("float", "any number, to the nearest double"),
    ("text", "a text"),
    ("bytes", "bytes, base64 in JSON"),
    ("json", "anything: its source text as it stands"),
];

const NAME: TextShape = TextShape { what: "a name", pattern: Some("^[A-Za-z0-9_-]+$"), check: name };
const PIPELINE: TextShape = TextShape { what: "a pipeline's name", pattern: Some("^[A-Za-z0-9._-]+$"), check: topic };
const TOPIC: TextShape = TextShape { what: "a topic's name", pattern: Some("^[A-Za-z0-9._-]{1,249}$"), check: topic };
const PATH: TextShape = TextShape { what: "a field's path, as in `address.city`", pattern: None, check: path };
const KIND: TextShape = TextShape {
    what: "a type (boolean, int, float, text, bytes, json; with `?` if it may be null)",
    pattern: Some("^(boolean|int|float|text|bytes|json)\\??$"),
    check: kind,
};
const FREE: TextShape = TextShape { what: "a text", pattern: None, check: any_text };
const INPUT: TextShape = TextShape { what: "the name of a source or an earlier stage, or `stage.output`", pattern: None, check: any_text };
const PLUGIN: TextShape = TextShape { what: "a standard plugin or a path such as ./plugin.wasm", pattern: None, check: any_text };
const DURATION: TextShape = TextShape {
    what: "a duration such as 500ms, 10s, 1m, 2h or 7d",
    pattern: Some("^[0-9]+(\\.[0-9]+)?(ms|s|m|h|d)$"),
    check: |text| units::duration(text).map(drop),
};
const SIZE: TextShape = TextShape {
    what: "a size such as 512KiB, 64MiB or 1GiB",
    pattern: Some("^[0-9]+(B|KiB|MiB|GiB)$"),
    check: |text| units::size(text).map(drop),
};
const START: TextShape = TextShape {
    what: "`earliest`, `latest`, a time such as 2026-01-31T08:00:00Z, or milliseconds since 1970",
    pattern: None,
    check: |text| units::start(text).map(drop),
};

static NAMED_OUTPUTS: Shape = Shape::Either(&[&Shape::Text(&INPUT), &Shape::List(&Shape::Text(&INPUT))]);
static TOPIC_SHAPE: Shape = Shape::Text(&TOPIC);
static FORMAT: Shape = Shape::Word(&[("json", "JSON objects"), ("raw", "bytes without fields, for plugins that read the value as it is")]);
static KEY_FORMAT: Shape = Shape::Word(&[
    ("text", "text as it is, a number as its digits"),
    ("json", "a JSON value; an object for composite keys"),
    ("int32", "4 bytes, big-endian (Kafka's IntegerSerializer)"),
    ("int64", "8 bytes, big-endian (Kafka's LongSerializer)"),
    ("bytes", "bytes as they are"),
]);

static SCHEMA_FIELD: Keys = Keys {
    what: "a field of a schema",
    keys: &[
        must("type", &Shape::Text(&KIND), "The field's type."),
        may("from", &Shape::Text(&KIND), "The type that it has in the bytes, if it is to be converted."),
        may("nullable", &Shape::Bool, "Whether it may be null or missing; the same as `?` behind the type."),
    ],
};
static SCHEMA_FIELD_SHAPE: Shape = Shape::Keys(&SCHEMA_FIELD);
pub(crate) static SCHEMA: Shape = Shape::Schema;
static SCHEMA_MEMBER: Shape = Shape::Either(&[&Shape::Text(&KIND), &Shape::Keys(&SCHEMA_FIELD)]);

static TIME: Keys = Keys {
    what: "a record's time",
    keys: &[
        must("field", &Shape::Text(&PATH), "The field that holds it."),
        may("unit", &Shape::Word(&[("ms", "milliseconds since 1970 (default)"), ("s", "seconds since 1970")]), "What the field counts."),
        may(
            "max_ahead",
            &Shape::Text(&DURATION),
            "A time further ahead of the record's own timestamp is that record's error, so that one bad clock cannot close every window. Default 1h.",
        ),
    ],
};

static SOURCE: Keys = Keys {
    what: "a source",
    keys: &[
        must("topic", &TOPIC_SHAPE, "The topic that is read."),
        may("format", &FORMAT, "How values are written. Default json."),
        may("key", &KEY_FORMAT, "How keys are written. Default text."),
        may(
            "start",
            &Shape::Either(&[&Shape::Text(&START), &Shape::Int]),
            "Where a new consumer group starts: `earliest` (default), `latest`, or a time.",
        ),
        may("time", &Shape::Keys(&TIME), "A field that is the record's time; without it, the record's timestamp is."),
        may(
            "tombstones",
            &Shape::Word(&[
                ("pass", "they go around plugins and reach the sinks unchanged (default)"),
                ("deliver", "plugins see them, every field null"),
                ("drop", "they are dropped"),
            ]),
            "What becomes of records without a value.",
        ),
        may(
            "schema",
            &SCHEMA,
            "The declared fields: path to type. `closed: true` = there are no others; `file: PATH` = the block stands in a file.",
        ),
    ],
};

static TABLE: Keys = Keys {
    what: "a table",
    keys: &[
        must("topic", &TOPIC_SHAPE, "The topic that holds it; the record's key is the row's identity."),
        may("format", &FORMAT, "How values are written. Default json."),
        may("key", &KEY_FORMAT, "How keys are written. Default text."),
        may(
            "scope",
            &Shape::Word(&[
                ("global", "read to its end, on every host, before the first record (default)"),
                ("partitioned", "a partition in each task; each record meets it as of its own place"),
            ]),
            "How it is spread.",
        ),
        may("schema", &SCHEMA, "The declared fields, as for a source."),
    ],
};

static DEAD_LETTER: Keys = Keys {
    what: "an error policy",
    keys: &[
        must("dead_letter", &TOPIC_SHAPE, "The topic that takes the records that failed."),
        may(
            "include",
            &Shape::Word(&[("original", "key and value of the original, even where no stage has protected them")]),
            "What a dead letter holds besides the record as a protecting stage left it.",
        ),
    ],
};
static POLICY: Shape = Shape::Either(&[
    &Shape::Word(&[("fail", "commit what is before the record, then stop (default)"), ("skip", "count it and go on")]),
    &Shape::Keys(&DEAD_LETTER),
]);

static LATE: Shape = Shape::Either(&[&Shape::Word(&[("skip", "count it and go on (default)")]), &Shape::Keys(&DEAD_LETTER)]);

static LIMITS: Keys = Keys {
    what: "limits",
    keys: &[
        may("cpu", &Shape::Text(&DURATION), "CPU time of one call. Default 1s."),
        may("memory", &Shape::Text(&SIZE), "Memory of one instance. Default 64MiB."),
    ],
};

static STAGE: Keys = Keys {
    what: "a stage",
    keys: &[
        must("name", &Shape::Text(&NAME), "A name of your own; what is kept (stores) is named after it."),
        must(
            "plugin",
            &Shape::Text(&PLUGIN),
            "A standard plugin (filter, map, mask, enrich, aggregate, join), or a component's path such as ./plugin.wasm.",
        ),
        may(
            "from",
            &NAMED_OUTPUTS,
            "What it reads: sources and earlier stages, `stage.output` for a named output, a list to merge. Default: the stage before.",
        ),
        may("with", &Shape::Any, "The plugin's configuration."),
        may("on_error", &POLICY, "What becomes of a record that fails here. Default: the pipeline's."),
        may("on_late", &LATE, "What becomes of a record that comes when its window is closed. Default skip."),
        may("limits", &Shape::Keys(&LIMITS), "Limits of this plugin. Default: the pipeline's."),
        may(
            "allow",
            &Shape::Either(&[&Shape::Text(&FREE), &Shape::List(&Shape::Text(&FREE))]),
            "What the component may import besides state, tables, log, windows and timers.",
        ),
        may("protects", &Shape::Bool, "What leaves this stage may be shown in dead letters. Default: as the plugin says (`mask` does)."),
        may(
            "log",
            &Shape::Word(&[("unsafe", "the plugin's log and reasons are shown although no stage before it protects")]),
            "How much of the plugin's log is shown.",
        ),
        may(
            "store",
            &Shape::Either(&[&Shape::Text(&NAME), &Shape::List(&Shape::Text(&NAME))]),
            "Names of its stores. Default: the stage's name.",
        ),
    ],
};

static SINK: Keys = Keys {
    what: "a sink",
    keys: &[
        must("from", &NAMED_OUTPUTS, "What it writes: a source, a stage, `stage.output`, or a list to merge."),
        must("topic", &TOPIC_SHAPE, "The topic that is written; no two sinks write the same."),
        may("key", &KEY_FORMAT, "How keys are written. Default: bytes as they come."),
        may("format", &FORMAT, "How values are written. Default: as the sources."),
        may("fields", &Shape::List(&Shape::Text(&PATH)), "The fields that are written, all others dropped. Default: all."),
        may("create", &Shape::Bool, "Create the topic if it is missing (the embedded log always does)."),
        may("provenance", &Shape::Bool, "Each record tells in headers where it comes from: pipeline, generation, plugins, source record."),
    ],
};

static GIVEN_RECORD: Keys = Keys {
    what: "a record",
    keys: &[
        may("key", &Shape::Any, "The key, in the words of its key format."),
        may("value", &Shape::Any, "The value; `null` is a tombstone."),
        may("raw", &Shape::Text(&FREE), "The value's text byte for byte, instead of `value`: for what is broken."),
        may("headers", &Shape::Named { name: &FREE, of: &Shape::Any }, "Headers: name to text."),
        may("timestamp", &Shape::Int, "Milliseconds since 1970. Default: by the order in the case."),
        may("partition", &Shape::Int, "The partition. Default: by the key."),
    ],
};
static EXPECTED_RECORD: Keys = Keys {
    what: "an expected record",
    keys: &[
        may("key", &Shape::Any, "The key."),
        may("value", &Shape::Any, "Fields of the value; `!missing` for one that must not be there; `null` is a tombstone."),
        may("headers", &Shape::Named { name: &FREE, of: &Shape::Any }, "Headers that must be there; `!missing` for one that must not."),
        may("timestamp", &Shape::Int, "The record's time."),
        may("exact", &Shape::Bool, "The value has these fields and no others."),
    ],
};
static CASE: Keys = Keys {
    what: "a test",
    keys: &[
        must("name", &Shape::Text(&FREE), "What is shown, in a sentence."),
        must(
            "given",
            &Shape::Named { name: &NAME, of: &Shape::List(&Shape::Keys(&GIVEN_RECORD)) },
            "Records for sources and tables, by their names.",
        ),
        must(
            "expect",
            &Shape::Named { name: &TOPIC, of: &Shape::List(&Shape::Keys(&EXPECTED_RECORD)) },
            "Records of output topics, in order within a key; `[]` = none; a topic that is not listed is not checked.",
        ),
    ],
};

static PIPELINE_KEYS: Keys = Keys {
    what: "a pipeline",
    keys: &[
        must("pipeline", &Shape::Text(&PIPELINE), "The pipeline's name; also the consumer group."),
        must("sources", &Shape::Named { name: &NAME, of: &Shape::Keys(&SOURCE) }, "Topics that are read, by names of your own."),
        may(
            "tables",
            &Shape::Named { name: &NAME, of: &Shape::Keys(&TABLE) },
            "Topics whose last record for each key is a row to look up.",
        ),
        may("stages", &Shape::List(&Shape::Keys(&STAGE)), "What is done, in order; each reads the one before unless it says `from`."),
        must("sinks", &Shape::List(&Shape::Keys(&SINK)), "Topics that are written."),
        may("on_error", &POLICY, "What becomes of a record that fails. Default fail."),
        may("limits", &Shape::Keys(&LIMITS), "Limits of every plugin."),
        may(
            "guarantee",
            &Shape::Word(&[
                ("exactly-once", "output, state and positions are committed as one (default)"),
                ("at-least-once", "on Kafka without transactions: after a failure, records since the last commit count again"),
            ]),
            "How often a record counts, whatever fails.",
        ),
        may("tests", &Shape::List(&Shape::Keys(&CASE)), "Cases for `millstream test`."),
    ],
};

/// The whole file.
pub(crate) static MANIFEST: Shape = Shape::Keys(&PIPELINE_KEYS);
/// A member of a `schema` block that is an option, no field.
pub(crate) fn is_schema_option(entry: &Entry) -> bool {
    match &entry.value.value {
        Value::Bool(_) => entry.key == "closed",
        Value::Text(text) => entry.key == "file" && kind(text).is_err(),
        _ => false,
    }
}

/// Checks a node against a shape and reports every mistake. `at`: the place to name for what is missing.
pub(crate) fn validate(report: &Report, node: &Node, shape: &Shape, at: Span) {
    match shape {
        Shape::Any => return,
        Shape::Keys(_) | Shape::Named { .. } | Shape::List(_) | Shape::Schema | Shape::Either(_) => {}
        _ if !has_kind(node, shape) => return wrong_kind(report, node, shape, at),
        _ => {}
    }
    if let Some(tag) = &node.tag {
        report.error(node.span, format!("the tag `{tag}` has no meaning here"), None);
    }
    match shape {
        Shape::Any | Shape::Bool | Shape::Int => {}
        Shape::Text(text) => {
            if let Some(value) = node.text()
                && let Err(why) = (text.check)(value)
            {
                report.error(node.span, format!("`{value}` is not {}", text.what), Some(why).filter(|why| !why.is_empty()));
            }
        }
        Shape::Word(words) => {
            if let Some(value) = node.text()
                && !words.iter().any(|(word, _)| *word == value)
            {
                report.error(
                    node.span,
                    format!("`{value}` is not {}", describe(shape)),
                    propose(value, words.iter().map(|(word, _)| *word)),
                );
            }
        }
        Shape::Keys(keys) => match &node.value {
            Value::Map(entries) => validate_keys(report, entries, keys, at),
            _ => wrong_kind(report, node, shape, at),
        },
        Shape::Named { name, of } => match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if let Err(why) = (name.check)(&entry.key) {
                        report.error(entry.key_span, format!("`{}` is not {}", entry.key, name.what), why);
                    }
                    validate(report, &entry.value, of, entry.key_span);
                }
            }
            _ => wrong_kind(report, node, shape, at),
        },
        Shape::Schema => match &node.value {
            Value::Map(entries) => {
                for entry in entries.iter().filter(|entry| !is_schema_option(entry)) {
                    if let Err(why) = (PATH.check)(&entry.key) {
                        report.error(entry.key_span, format!("`{}` is not {}", entry.key, PATH.what), why);
                    }
                    validate(report, &entry.value, &SCHEMA_MEMBER, entry.key_span);
                }
            }
            _ => wrong_kind(report, node, shape, at),
        },
        Shape::List(of) => match &node.value {
            Value::List(items) => items.iter().for_each(|item| validate(report, item, of, item.head())),
            _ => wrong_kind(report, node, shape, at),
        },
        Shape::Either(shapes) => match shapes.iter().find(|shape| has_kind(node, shape)) {
            Some(shape) => validate(report, node, shape, at),
            None => wrong_kind(report, node, shape, at),
        },
    }
}

fn validate_keys(report: &Report, entries: &[Entry], keys: &Keys, at: Span) {
    for entry in entries {
        match keys.keys.iter().find(|key| key.name == entry.key) {
            Some(key) => validate(report, &entry.value, key.shape, entry.key_span),
            None => report.error(
                entry.key_span,
                format!("{} has no key `{}`", keys.what, entry.key),
                propose(&entry.key, keys.keys.iter().map(|key| key.name)),
            ),
        }
    }
    // A key that is written wrong is not missing as well.
    let known = || keys.keys.iter().map(|key| key.name);
    let unknown = entries.iter().filter(|entry| !known().any(|name| name == entry.key));
    let meant: Vec<&str> = unknown.filter_map(|entry| nearest(&entry.key, known())).collect();
    for key in keys.keys.iter().filter(|key| key.required && !meant.contains(&key.name)) {
        if !entries.iter().any(|entry| entry.key == key.name) {
            report.error(at, format!("{} needs the key `{}`", keys.what, key.name), format!("{}: {}", key.name, describe(key.shape)));
        }
    }
}

fn has_kind(node: &Node, shape: &Shape) -> bool {
    match (shape, &node.value) {
        (Shape::Any, _)
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Text(_) | Shape::Word(_), Value::Text(_))
        | (Shape::Keys(_) | Shape::Named { .. } | Shape::Schema, Value::Map(_))
        | (Shape::List(_), Value::List(_)) => true,
        (Shape::Int, Value::Number(number)) => number.as_i64().is_some(),
        (Shape::Either(shapes), _) => shapes.iter().any(|shape| has_kind(node, shape)),
        _ => false,
    }
}

fn wrong_kind(report: &Report, node: &Node, shape: &Shape, at: Span) {
    let scalar = matches!(node.value, Value::Bool(_) | Value::Number(_));
    let help =
        (scalar && matches!(shape, Shape::Text(_))).then(|| "a text that looks like a number, true or false stands in quotes".to_owned());
    let span = if matches!(node.value, Value::Null) && node.span.start == node.span.end { at } else { node.head() };
    report.error(span, format!("expected {}, found {}", describe(shape), node.kind()), help);
}

/// A shape in words.
fn describe(shape: &Shape) -> String {
    match shape {
        Shape::Any => "a value".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Int => "a whole number".to_owned(),
        Shape::Text(text) => text.what.to_owned(),
        Shape::Word(words) => match words {
            [(word, _)] => format!("the word `{word}`"),
            _ => format!("one of {}", words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
        },
        Shape::Keys(keys) => {
            let names: Vec<&str> = keys.keys.iter().map(|key| key.name).collect();
            format!("{} (a block with {})", keys.what, names.join(", "))
        }
        Shape::Named { of, .. } => format!("a block of names, each with {}", describe(of)),
        Shape::Schema => "a block of fields with their types, as in `{ id: int, name: text? }`".to_owned(),
        Shape::List(of) => format!("a list, each item {}", describe(of)),
        Shape::Either(shapes) => shapes.iter().map(|shape| describe(shape)).collect::<Vec<_>>().join(", or "),
    }
}

/// The JSON schema of a shape, draft 7.
pub(crate) fn schema_of(shape: &Shape) -> serde_json::Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Int => json!({ "type": "integer" }),
        Shape::Text(text) => {
            let mut schema = json!({ "type": "string", "description": text.what });
            if let (Some(pattern), Some(members)) = (text.pattern, schema.as_object_mut()) {
                members.insert("pattern".to_owned(), pattern.into());
            }
            schema
        }
        // One constant for each, so that editors show the meaning of a word.
        Shape::Word(words) => {
            json!({ "oneOf": words.iter().map(|(word, about)| json!({ "const": word, "description": about })).collect::<Vec<_>>() })
        }
        Shape::Keys(keys) => {
            let properties: serde_json::Map<String, serde_json::Value> = keys
                .keys
                .iter()
                .map(|key| {
                    let mut schema = schema_of(key.shape);
                    if let Some(members) = schema.as_object_mut() {
                        members.insert("description".to_owned(), key.about.into());
                    }
                    (key.name.to_owned(), schema)
                })
                .collect();
            let required: Vec<&str> = keys.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
            let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
            if let (false, Some(members)) = (required.is_empty(), schema.as_object_mut()) {
                members.insert("required".to_owned(), required.into());
            }
            schema
        }
        Shape::Named { name, of } => {
            let mut schema = json!({ "type": "object", "additionalProperties": schema_of(of) });
            if let (Some(pattern), Some(members)) = (name.pattern, schema.as_object_mut()) {
                members.insert("propertyNames".to_owned(), json!({ "pattern": pattern }));
            }
            schema
        }
        Shape::Schema => json!({
            "type": "object",
            "properties": {
                "closed": { "anyOf": [{ "type": "boolean" }, schema_of(&SCHEMA_MEMBER)], "description": "true: there are no other fields." },
                "file": { "anyOf": [{ "type": "string" }, schema_of(&SCHEMA_FIELD_SHAPE)], "description": "A file that holds such a block; relative to this one." },
            },
            "additionalProperties": schema_of(&SCHEMA_MEMBER),
        }),
        Shape::List(of) => json!({ "type": "array", "items": schema_of(of) }),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(|shape| schema_of(shape)).collect::<Vec<_>>() }),
    }
}

/// Every key that the manifest knows, as `what.key`, for the documentation's test.
#[cfg(test)]
pub(crate) fn all_keys() -> Vec<(&'static str, &'static str)> {
    fn walk(shape: &'static Shape, out: &mut Vec<(&'static str, &'static str)>) {
        match shape {
            Shape::Keys(keys) => {
                for key in keys.keys {
                    out.push((keys.what, key.name));
                    walk(key.shape, out);
                }
            }
            Shape::Named { of, .. } | Shape::List(of) => walk(of, out),
            Shape::Schema => walk(&SCHEMA_FIELD_SHAPE, out),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| walk(shape, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(&MANIFEST, &mut out);
    out
}
