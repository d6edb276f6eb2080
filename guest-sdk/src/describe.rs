//! The JSON of `about` and `describe`: what host and plugin tell each other before the first batch. The schemas are published in
//! `wit/*.schema.json` (written by `millstream schema contract`, held to these types by a test).
//!
//! Unknown members are ignored in answers, so that the contract can grow.

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

/// What `describe` and `init` get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// What the manifest says under `with`. In `describe`, secrets are the text `<secret NAME>`.
    pub config: serde_json::Value,
    pub input: Schema,
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
}

impl Output {
    /// The output of a plugin that changes no record.
    pub fn unchanged() -> Self {
        Self { name: "out".to_owned(), base: Base::Extend, fields: Vec::new(), removes: Vec::new() }
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
    /// Keys are bytes: 8 bytes of window start (sign-flipped big-endian milliseconds), then the rest. Rows of closed windows are dropped by the host.
    #[serde(default)]
    pub windowed: bool,
}

/// Tumbling windows of record time, in milliseconds: the host gives `$window.start` and `$window.end`, counts late rows and keeps them from the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    pub size: i64,
    /// A window takes rows until stream time has passed its end by this much.
    #[serde(default)]
    pub grace: i64,
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
    #[serde(default)]
    pub window: Option<Window>,
    /// Remarks for `check`.
    #[serde(default)]
    pub warnings: Vec<String>,
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
