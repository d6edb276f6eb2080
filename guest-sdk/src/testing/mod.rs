//! Tests a plugin without Wasm and without a host: records in, records out, state to look into.
//!
//! ```
//! use millstream_guest::{Fields, testing::Case};
//! use serde_json::json;
//!
//! /// Drops what the test channel sent.
//! #[millstream_guest::filter]
//! fn keep(rating: Rating) -> bool {
//!     rating.channel != "iOS-test"
//! }
//!
//! #[derive(Fields)]
//! struct Rating<'a> {
//!     channel: &'a str,
//! }
//!
//! # fn main() {
//! let answers = Case::<Keep>::new().run([json!({ "channel": "web" }), json!({ "channel": "iOS-test" })]);
//! assert_eq!(answers.values("out"), [json!({ "channel": "web" })]);
//! # }
//! ```

mod apply;
mod base64;
mod columns;
mod project;

pub use crate::fake::{Line, Rows, Value};
pub use columns::{Columns, late_rows, log_lines, open, put_table_row, store_rows};

use crate::column::Type;
use crate::describe::{Description, FieldType, Mistake, Request, Schema};
use crate::field::Field;
use crate::plugin::Plugin;
use crate::{fake, transform};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A record as it stands in a topic. A value of `null` is a tombstone, which goes around the plugin unless it asks for tombstones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub key: Option<String>,
    pub value: Json,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub headers: Vec<(String, String)>,
    /// By which of the stage's inputs it comes. What comes out has 0.
    pub input: u32,
}

impl From<Json> for Record {
    fn from(value: Json) -> Self {
        Self { value, ..Self::default() }
    }
}

impl Record {
    pub fn new(value: Json) -> Self {
        value.into()
    }

    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// It comes by this one of the stage's inputs.
    pub fn by(mut self, input: u32) -> Self {
        self.input = input;
        self
    }

    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A plugin and what it stands on.
#[derive(Debug)]
pub struct Case<P> {
    config: Json,
    input: Schema,
    inputs: Vec<Schema>,
    tables: BTreeMap<String, Schema>,
    rows: Vec<(String, String, Json)>,
    plugin: PhantomData<fn() -> P>,
}

impl<P: Plugin> Default for Case<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Plugin> Case<P> {
    pub fn new() -> Self {
        let input = Schema { fields: Vec::new(), open: true };
        Self { config: Json::Null, input, inputs: Vec::new(), tables: BTreeMap::new(), rows: Vec::new(), plugin: PhantomData }
    }

    /// What the manifest says under `with`.
    pub fn config(mut self, config: Json) -> Self {
        self.config = config;
        self
    }

    /// The input's schema, in the manifest's words: `[("stars", "int"), ("channel", "text?")]`. Plugins over records need none.
    pub fn input(mut self, fields: &[(&str, &str)]) -> Self {
        self.input = schema(fields);
        self
    }

    /// One more input with its schema, for a plugin that tells its inputs apart: records name theirs with [`Record::by`].
    pub fn and_input(mut self, fields: &[(&str, &str)]) -> Self {
        self.inputs.push(schema(fields));
        self
    }

    /// A table of the manifest with its schema and its rows by key.
    pub fn table<'r>(mut self, name: &str, fields: &[(&str, &str)], rows: impl IntoIterator<Item = (&'r str, Json)>) -> Self {
        self.tables.insert(name.to_owned(), schema(fields));
        self.rows.extend(rows.into_iter().map(|(key, row)| (name.to_owned(), key.to_owned(), row)));
        self
    }

    /// What the plugin answers to `describe`.
    pub fn describe(&self) -> Result<Description, Vec<Mistake>> {
        P::describe(&transform::setup::<P>(self.request())?)
    }

    /// Runs the records twice, as one batch and as one record a call with a new instance each: what comes out must be the same.
    ///
    /// # Panics
    /// If it is not, if the plugin has no use for the configuration, or if a call fails.
    pub fn run<R: Into<Record>>(&self, records: impl IntoIterator<Item = R>) -> Answers {
        let records: Vec<Record> = records.into_iter().map(Into::into).collect();
        let whole = self.run_cut(&records, usize::MAX);
        let single = self.run_cut(&records, 1);
        assert_eq!(
            whole, single,
            "one batch (left) and one record a call (right) must come to the same: an instance's memory is not state"
        );
        whole
    }

    fn request(&self) -> Request {
        let inputs = if self.inputs.is_empty() { vec![self.input.clone()] } else { self.inputs.clone() };
        Request { config: self.config.clone(), input: self.input.clone(), inputs, tables: self.tables.clone() }
    }

    fn run_cut(&self, records: &[Record], rows: usize) -> Answers {
        let description = self.describe().unwrap_or_else(|mistakes| panic!("the plugin refuses its configuration: {mistakes:?}"));
        fake::open(&description, &self.tables);
        for (table, key, row) in &self.rows {
            project::fill_table(table, key, row, &self.tables[table]);
        }
        let mut answers = Answers::default();
        for output in &description.outputs {
            answers.outputs.insert(output.name.clone(), Vec::new());
        }
        let mut stream_time = i64::MIN;
        let cut = rows.min(records.len()).max(1);
        let (mut first, mut limit, mut fired) = (0, cut, None);
        while first < records.len() {
            let request = serde_json::to_string(&self.request()).unwrap_or_default();
            let mut plugin = transform::init_json::<P>(&request).unwrap_or_else(|message| panic!("the plugin does not start: {message}"));
            // Timers that the first record makes due; once, whatever is set meanwhile.
            let time = records[first].timestamp;
            if time > stream_time && fired.replace(first) != Some(first) {
                fire(&mut plugin, &description, fake::take_due(time), &mut answers);
            }
            let most = &records[first..records.len().min(first + limit)];
            let batch = &most[..until_due(most, stream_time)];
            let before = fake::snapshot();
            let (input, taken, rejects) = project::batch(&description, batch, first, stream_time);
            fake::begin(input.stream_time, &input.timestamps);
            let verdict = plugin.process(input).unwrap_or_else(|message| panic!("the call failed: {message}"));
            let reached = until_due(batch, stream_time);
            if reached < batch.len() {
                // A timer was set that a later record of the batch makes due: once more, up to there.
                fake::restore(&before);
                limit = reached;
                continue;
            }
            answers.rejects.extend(rejects);
            apply::verdict(verdict, &description, batch, &taken, first, &mut answers);
            stream_time = batch.iter().map(|record| record.timestamp).fold(stream_time, i64::max);
            (first, limit) = (first + batch.len(), cut);
        }
        answers.rejects.sort();
        answers.log = fake::lines().into_iter().map(|line| line.message).collect();
        answers.timers = fake::timers();
        answers.stores = (0..description.stores.len() as u32).filter_map(|store| fake::store(store, project::show)).collect();
        answers
    }
}

/// How many records there are before one, behind the first, that makes a timer due.
fn until_due(records: &[Record], mut stream_time: i64) -> usize {
    let earliest = fake::timers().first().map_or(i64::MAX, |(time, _)| *time);
    for (place, record) in records.iter().enumerate() {
        if place > 0 && record.timestamp > stream_time && record.timestamp >= earliest {
            return place;
        }
        stream_time = stream_time.max(record.timestamp);
    }
    records.len()
}

fn fire<P: Plugin>(plugin: &mut P, description: &Description, due: Vec<(i64, Value)>, answers: &mut Answers) {
    let Some(timers) = description.timers.as_ref().filter(|_| !due.is_empty()) else { return };
    let mut keys = crate::column::ColumnBuilder::new(timers.key, due.len());
    due.iter().for_each(|(_, key)| keys.cell(key.cell()));
    let verdict = plugin.fire_in_test(due.iter().map(|(time, _)| *time).collect(), keys.finish());
    let verdict = verdict.unwrap_or_else(|message| panic!("a timer failed: {message}"));
    let empty = vec![Record::new(Json::Object(serde_json::Map::new())); due.len()];
    apply::verdict(verdict, description, &empty, &(0..due.len()).collect::<Vec<_>>(), 0, answers);
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// By the output's name, in order.
    pub outputs: BTreeMap<String, Vec<Record>>,
    /// The place of each refused record, and the reason.
    pub rejects: Vec<(usize, String)>,
    pub log: Vec<String>,
    /// The timers that are set at the end: time and key.
    pub timers: Vec<(i64, Value)>,
    /// The rows of each store by key, as JSON objects.
    pub stores: Vec<BTreeMap<String, Json>>,
}

impl Answers {
    /// The records of an output.
    ///
    /// # Panics
    /// If the plugin has no output of that name.
    pub fn output(&self, name: &str) -> &[Record] {
        self.outputs.get(name).unwrap_or_else(|| panic!("the plugin's outputs are {:?}", self.outputs.keys()))
    }

    /// The values of an output's records.
    pub fn values(&self, name: &str) -> Vec<Json> {
        self.output(name).iter().map(|record| record.value.clone()).collect()
    }

    /// A row of the plugin's first store.
    pub fn state(&self, key: &str) -> Option<&Json> {
        self.stores.first()?.get(key)
    }
}

/// A schema in the manifest's words.
///
/// # Panics
/// If a name or type is none.
pub fn schema(fields: &[(&str, &str)]) -> Schema {
    let field = |(name, kind): &(&str, &str)| FieldType {
        path: Field::parse(name).unwrap_or_else(|error| panic!("{error}")),
        kind: match kind.trim_end_matches('?') {
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "float" => Type::Float,
            "text" => Type::Text,
            "bytes" => Type::Bytes,
            "json" => Type::Json,
            other => panic!("`{other}` is no type: boolean, int, float, text, bytes or json, with `?` if it may be null"),
        },
        nullable: kind.ends_with('?'),
    };
    Schema { fields: fields.iter().map(field).collect(), open: true }
}
