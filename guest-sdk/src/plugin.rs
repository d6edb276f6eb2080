//! A plugin in columns: what the host calls, one batch at a time. The macros and record traits of this crate stand on it; implement it yourself
//! only where a record at a time is too slow, or where a plugin must see the whole batch.

use crate::column::{Column, Strings};
use crate::describe::{Description, Mistake, Occasion, Schema};
use crate::headers::Headers;
use crate::verdict::Verdict;
use std::collections::BTreeMap;

/// Rows from the host. Only what `describe` asked for is there.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub rows: usize,
    /// Highest record time of the task before row 0, milliseconds; `i64::MIN` if there was none.
    pub stream_time: i64,
    pub timestamps: Vec<i64>,
    /// In the order of `reads`.
    pub fields: Vec<Column>,
    /// Blobs, nullable.
    pub keys: Option<Column>,
    /// Blobs, nullable: a null value is a tombstone.
    pub values: Option<Column>,
    pub headers: Option<Headers>,
    pub leaves: Option<Leaves>,
}

/// Every leaf of each row (texts, numbers, literals, empty objects and arrays): row i owns the entries `offsets[i] .. offsets[i+1]`.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    pub offsets: Vec<u32>,
    pub paths: Strings,
    pub values: Strings,
}

/// What `describe` and `init` get, with the configuration as the plugin's own type.
#[derive(Clone, Debug)]
pub struct Setup<C> {
    pub config: C,
    /// What all inputs have in common.
    pub input: Schema,
    /// Each input, in the order of the stage's `from`.
    pub inputs: Vec<Schema>,
    /// Every table of the manifest, by name.
    pub tables: BTreeMap<String, Schema>,
}

/// A plugin. Export it with `millstream_guest::export!(MyPlugin)`.
pub trait Plugin: Sized + 'static {
    /// Name, one sentence, and whether the output may be shown (`About::protects`).
    const NAME: &'static str;
    const VERSION: &'static str;
    const SUMMARY: &'static str;
    const PROTECTS: bool = false;
    /// `with:` in the manifest. Unknown members should be refused (`#[serde(deny_unknown_fields)]`).
    type Config: serde::de::DeserializeOwned + schemars::JsonSchema;

    /// Pure: from configuration and input to what is read and written.
    fn describe(setup: &Setup<Self::Config>) -> Result<Description, Vec<Mistake>>;
    /// Called once before the first batch, with secrets resolved.
    fn init(setup: Setup<Self::Config>) -> Result<Self, String>;
    /// One batch. Err: the whole call failed.
    fn process(&mut self, batch: Batch) -> Result<Verdict, String>;
    /// For tests, of plugins that are [`Timed`].
    #[doc(hidden)]
    fn fire_in_test(&mut self, _times: Vec<i64>, _keys: Column) -> Result<Verdict, String> {
        Err("the plugin has no timers".to_owned())
    }
}

/// A plugin with timers. Export it with `millstream_guest::export!(MyPlugin: timed)`, and say in the description with `timers` of which keys.
pub trait Timed: Plugin {
    /// Timers that are due, in order. The verdict derives: `source` names timers given here; keys and timestamps are given.
    fn fire(&mut self, times: Vec<i64>, keys: Column) -> Result<Verdict, String>;
}

/// A plugin with results that do not come of one record: of rows that changed, or of closed windows. Export it with
/// `millstream_guest::export!(MyPlugin: emitting)`, and say in the description's stores with `emits` which rows are wanted.
pub trait Emitting: Plugin {
    /// Rows of a store, in the order of encoded keys. The verdict derives: `source` names rows given here; keys and timestamps are given.
    fn emit(&mut self, store: u32, occasion: Occasion, keys: Column, fields: Vec<Column>) -> Result<Verdict, String>;
}

/// A plugin that makes rows of its stores of older ones. Export it with `millstream_guest::export!(MyPlugin: migrating)`, and list the older types in the
/// description's stores with `migrates`.
pub trait Migrating: Plugin {
    /// Rows of the `older`-th listed type of a store, their columns in the order that stands there. Answers with the store's columns, a row for each. Depends on
    /// nothing but what it is given: it may be asked again for the same row.
    fn migrate(&mut self, store: u32, older: u32, keys: Column, fields: Vec<Column>) -> Result<Vec<Column>, String>;
}
