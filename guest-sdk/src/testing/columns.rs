//! Tests of plugins in columns. State, tables and log are this thread's own.

use crate::column::ColumnBuilder;
use crate::describe::{Description, Mistake, Occasion, Request, Schema};
use crate::fake::{Line, Value};
use crate::plugin::{Batch, Emitting, Plugin};
use crate::verdict::Verdict;
use std::collections::BTreeMap;

/// A plugin in columns, described and started, with empty stores. One at a time on a thread: the next one opens stores of its own.
#[derive(Debug)]
pub struct Columns<P> {
    pub plugin: P,
    pub description: Description,
}

impl<P: Plugin> Columns<P> {
    /// `config` is what the manifest says under `with`.
    pub fn start(config: serde_json::Value, input: Schema, tables: BTreeMap<String, Schema>) -> Result<Self, Vec<Mistake>> {
        Self::of(Request { config, inputs: vec![input.clone()], input, tables })
    }

    /// The same, of all that the host tells.
    pub fn of(request: Request) -> Result<Self, Vec<Mistake>> {
        let description = P::describe(&crate::transform::setup::<P>(request.clone())?)?;
        crate::fake::open(&description, &request.tables);
        let plugin = P::init(crate::transform::setup::<P>(request)?)
            .map_err(|message| vec![Mistake { at: String::new(), span: None, message, proposal: None }])?;
        Ok(Self { plugin, description })
    }

    pub fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        crate::fake::begin(batch.stream_time, &batch.timestamps);
        self.plugin.process(batch)
    }
}

impl<P: Emitting> Columns<P> {
    /// Hands the plugin the rows of a store that `wanted` names by their keys, in their order. After `closed` they are dropped, as by the host.
    pub fn emit(&mut self, store: u32, occasion: Occasion, wanted: impl Fn(&Value) -> bool) -> Result<Verdict, String> {
        let described = &self.description.stores[store as usize];
        let rows: Vec<_> = store_rows(store).into_iter().filter(|(key, _)| wanted(key)).collect();
        let mut keys = ColumnBuilder::new(described.key, rows.len());
        rows.iter().for_each(|(key, _)| keys.cell(key.cell()));
        let fields = described.fields.iter().enumerate().map(|(place, field)| {
            let mut column = ColumnBuilder::new(field.kind, rows.len());
            rows.iter().for_each(|(_, values)| column.cell(values[place].cell()));
            column.finish()
        });
        let verdict = self.plugin.emit(store, occasion, keys.finish(), fields.collect())?;
        if occasion == Occasion::Closed {
            crate::fake::store(store, |kept| kept.rows.retain(|_, (key, _)| !rows.iter().any(|(gone, _)| gone == key)));
        }
        Ok(verdict)
    }
}

/// Rows of the last batch that the plugin said to be late.
pub fn late_rows() -> Vec<u32> {
    crate::fake::late_rows()
}

/// Opens empty stores and tables on this thread, as a plugin described them; [`Columns::start`] does so itself. What was there is gone.
pub fn open(description: &Description, tables: &BTreeMap<String, Schema>) {
    crate::fake::open(description, tables);
}

/// Puts a row into a table that the plugin reads. Values in the order of the table's fields.
pub fn put_table_row(table: &str, key: &str, values: Vec<Value>) {
    let put = crate::fake::table(table, |rows| {
        assert_eq!(values.len(), rows.fields.len(), "the table `{table}` has other fields");
        rows.rows.insert(key.as_bytes().to_vec(), (Value::Text(key.to_owned()), values));
    });
    assert!(put.is_some(), "the plugin reads no table `{table}`");
}

/// The rows of a store, by its index in `describe`'s answer, in the order of encoded keys.
pub fn store_rows(store: u32) -> Vec<(Value, Vec<Value>)> {
    crate::fake::store(store, |rows| rows.rows.values().cloned().collect()).unwrap_or_default()
}

/// What the plugin logged since it was started.
pub fn log_lines() -> Vec<Line> {
    crate::fake::lines()
}
