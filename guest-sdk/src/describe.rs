//! The JSON of `about` and `describe`: what host and plugin tell each other before the first batch. The schemas are published in
//! `wit/*.schema.json` (written by `millstream schema contract`, held to these types by a test).
//!
//! Unknown members are ignored, by the host in answers and by the SDK in requests, so that the contract can grow. What was published is frozen: within 1.x nothing is
//! renamed or taken away, a new member of an answer may be missing, and a request has no new type (`tests/it/contract/schemas.rs`).

use crate::column::Type;
use crate::field::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `about` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    pub name: String,
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub summary: String,
    /// JSON schema (draft 7) of the configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Whether the output of a stage with this plugin may be dead-lettered in the clear (`mask`): the default of a stage's `protects`.
    #[serde(default)]
    pub protects: bool,
}

/// A field that exists in a stage's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldType {
    pub path: Field,
    #[serde(rename = "type")]
    pub kind: Type,
    #[serde(default)]
    pub nullable: bool,
}

/// The fields of an input or of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Schema {
    pub fields: Vec<FieldType>,
    /// Whether there may be fields that are not listed: they have type `json`.
    #[serde(default)]
    pub open: bool,
}

/// What `describe` and `init` get. Types are those of this schema, names with `$` at most `$key`: a plugin of 1.0 reads what any host of 1.x sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// What the manifest says under `with`. In `describe`, secrets are the text `<secret NAME>`.
    pub config: serde_json::Value,
    /// What all inputs have in common.
    pub input: Schema,
    /// Each input, in the order of the stage's `from`.
    #[serde(default)]
    pub inputs: Vec<Schema>,
    /// Every table of the manifest, by name.
    #[serde(default)]
    pub tables: BTreeMap<String, Schema>,
}

/// A part of a record that is no field of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Key,
    /// The value's bytes.
    Value,
    Headers,
}

/// A field that a plugin reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    pub path: Field,
    #[serde(rename = "type")]
    pub kind: Type,
    /// A row in which it is missing or null is rejected before the call.
    #[serde(default)]
    pub required: bool,
    /// The place in the request's `inputs` of the only input whose rows have the field: those of the others are null. None: it is read of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u32>,
}

impl Read {
    /// A field of all inputs, which may be missing.
    pub fn of(path: Field, kind: Type) -> Self {
        Self { path, kind, required: false, input: None }
    }
}

/// What an output stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The input's record; written fields are spliced into it.
    Extend,
    /// A new object of the written fields, in their order.
    Replace,
}

/// What an output does with the keys of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputKey {
    /// Every record keeps the one that it came with; what comes of no record but of a store or timer that is kept by `$key` has that key.
    Kept,
    /// Verdicts may give new ones: text (a number as its digits), or bytes of the plugin's own making.
    #[default]
    Text,
    /// Verdicts may give new ones: in the format of those that the batch holds as the part `key`. The base must be `extend`.
    AsRead,
}

/// An output of a plugin. The first is where `all` and `select` go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// `out` is what a stage's name alone means.
    pub name: String,
    pub base: Base,
    /// Fields that `derive` writes, in this order. Paths into the value; `$key` and the like go through the record of `derived`.
    #[serde(default)]
    pub fields: Vec<FieldType>,
    /// Paths that are gone afterwards, for the next stage's schema. Each stands in `fields` too, and `derive` marks its rows as `removed`.
    #[serde(default)]
    pub removes: Vec<Field>,
    /// What becomes of keys.
    #[serde(default)]
    pub key: OutputKey,
}

impl Output {
    /// The output of a plugin that changes no record.
    pub fn unchanged() -> Self {
        Self { name: "out".to_owned(), base: Base::Extend, fields: Vec::new(), removes: Vec::new(), key: OutputKey::Kept }
    }
}

/// A column of a store's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoreField {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Type,
    #[serde(default)]
    pub nullable: bool,
    /// What the column holds in rows that were written before there was it; null if this is absent. Of the column's type; bytes are no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
}

impl StoreField {
    /// Without a default.
    pub fn new(name: impl Into<String>, kind: Type, nullable: bool) -> Self {
        Self { name: name.into(), kind, nullable, default: None }
    }
}

/// A store that a plugin keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Store {
    /// Empty = as the stage. Two stores of a stage need names.
    #[serde(default)]
    pub name: String,
    /// Type of the keys: text, int or bytes.
    pub key: Type,
    /// The columns of a row.
    pub fields: Vec<StoreField>,
    /// The fields that the keys are made of. Exactly `["$key"]`: rows live where their record's partition lives; anything else needs
    /// all records of a group in one task.
    pub by: Vec<Field>,
    /// Keys are bytes: 8 bytes of time (sign-flipped big-endian milliseconds), then the rest. The time is the window's start; with sessions, that of the
    /// session's last record. Rows of closed windows are dropped by the host.
    #[serde(default)]
    pub windowed: bool,
    /// When rows of this store are handed to the export `emitting`. `closed` needs a windowed store.
    #[serde(default)]
    pub emits: Vec<Occasion>,
    /// Older types of its rows, each as its columns, of which the export `migration` makes rows of this one. Rows of other older types are taken by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrates: Vec<Vec<StoreField>>,
}

/// Why a row is handed to the export `emitting`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// It was written since the last commit.
    Changed,
    /// Its window is closed: it is dropped afterwards.
    Closed,
}

/// Windows of record time, in milliseconds: the host gives `$window.start` and `$window.end`, counts late rows and keeps them from the plugin.
/// A row that belongs to several windows comes once for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// The length, milliseconds, above 0. Of sessions: the longest time between a record and the next one of its session.
    pub size: i64,
    /// A window begins at every multiple of this, milliseconds; 0 = of `size`, so that each row has one.
    #[serde(default)]
    pub advance: i64,
    /// Sessions: the plugin finds and merges those of a group; a row's window is that of a session of it alone.
    #[serde(default)]
    pub session: bool,
    /// A window takes rows until stream time has passed its end by this much, milliseconds.
    #[serde(default)]
    pub grace: i64,
}

impl Window {
    pub fn tumbling(size: i64, grace: i64) -> Self {
        Self { size, grace, ..Self::default() }
    }

    /// From one window's start to the next.
    pub fn advance(&self) -> i64 {
        if self.advance > 0 { self.advance } else { self.size.max(1) }
    }

    /// From the time in a windowed key to the window's end.
    pub fn span(&self) -> i64 {
        // A record exactly `size` behind the last one still belongs to its session.
        self.size.max(1).saturating_add(i64::from(self.session))
    }

    /// The stream time at which the window with this time in its keys is closed.
    pub fn closes(&self, time: i64) -> i64 {
        time.saturating_add(self.span()).saturating_add(self.grace.max(0))
    }

    /// The lowest time in a windowed key that is still open at this stream time: everything below is closed.
    pub fn open_from(&self, stream_time: i64) -> i64 {
        // Closed: time + span + grace <= stream time.
        stream_time.saturating_sub(self.span()).saturating_sub(self.grace.max(0)).saturating_add(1)
    }

    /// The starts of the windows that a record of this time belongs to, rising. Of sessions: the time itself.
    pub fn starts(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let advance = self.advance();
        let last = if self.session { time } else { time.div_euclid(advance).saturating_mul(advance) };
        let count =
            if self.session { 1 } else { (time.saturating_sub(self.size.max(1)).div_euclid(advance)).abs_diff(time.div_euclid(advance)) };
        (0..count as i64).rev().map(move |back| last.saturating_sub(back.saturating_mul(advance)))
    }
}

/// Timers that a plugin sets. It must export `timed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timers {
    /// Type of the keys: text, int or bytes.
    pub key: Type,
    /// The fields that the keys are made of, as for a store.
    pub by: Vec<Field>,
}

/// What `describe` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Description {
    #[serde(default)]
    pub reads: Vec<Read>,
    /// Whether the batch is to hold every leaf of the value. The first output's base must then be `extend`.
    #[serde(default)]
    pub leaves: bool,
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Whether tombstones are to reach the plugin (every field null, no leaves) instead of going around it: for who changes keys or headers.
    #[serde(default)]
    pub tombstones: bool,
    /// At least one.
    pub outputs: Vec<Output>,
    #[serde(default)]
    pub stores: Vec<Store>,
    /// Names of tables, of those in the request.
    #[serde(default)]
    pub tables: Vec<String>,
    /// For each of `tables`: the field whose value, as text, is the key that is looked up; null or missing if it is no field as it stands. A
    /// partitioned table needs it: records are brought to the partition of their row by it.
    #[serde(default)]
    pub table_keys: Vec<Option<Field>>,
    /// For a stage that tells its inputs apart: for each of them the field, a value's or `$key`, by which its records meet those of the others in one task.
    /// Values are compared as text, an int as its digits. Goes before the stores' `by`. Records are then taken in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_keys: Vec<Field>,
    #[serde(default)]
    pub window: Option<Window>,
    #[serde(default)]
    pub timers: Option<Timers>,
    /// Remarks for `check`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Description {
    /// Whether it matters by which input a row comes.
    pub fn tells_inputs(&self) -> bool {
        !self.input_keys.is_empty() || self.reads.iter().any(|read| read.path == Field::Input || read.input.is_some())
    }
}

/// A mistake in the configuration; `describe`'s error is a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mistake {
    /// JSON pointer into the configuration (RFC 6901).
    pub at: String,
    /// For a text with a language of its own (CEL): byte range of the mistake in that text.
    #[serde(default)]
    pub span: Option<(usize, usize)>,
    pub message: String,
    /// What would be right.
    #[serde(default)]
    pub proposal: Option<String>,
}
