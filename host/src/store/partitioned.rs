//! A partitioned table: the rows of one partition of its topic, in a store of the task whose stages look them up. Its records are an input of the
//! task: each row is there from its record's place on, and is committed with the position behind it.

use super::row::FoundBuilder;
use super::rows::RowReader;
use super::{RowTypes, StateStore, texts};
use crate::column::{Column, Type};
use crate::field::Field;
use crate::io::CommittedState;
use crate::pipeline::Table;
use crate::plugin::Found;
use crate::plugin::describe::{Store, StoreField};
use crate::record::Records;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct PartitionedTable {
    reader: RowReader,
    pub store: StateStore,
}

impl PartitionedTable {
    pub fn new(table: &Table, task: i32, state: Arc<dyn CommittedState>, types: Arc<RowTypes>) -> Self {
        // A row of another type lacks what its record may have had.
        Self { reader: RowReader::new(table), store: StateStore::new(&table.name, task, &store_of(table), None, state, types).strict() }
    }

    /// Takes records over. What cannot be read is answered, with a code and the reason: the row before it stays.
    pub fn apply(&mut self, records: &Records) -> BTreeMap<usize, (&'static str, String)> {
        let mut changes = self.reader.read(records);
        for (at, key) in std::mem::take(&mut changes.keys).into_iter().enumerate() {
            let Some(key) = key.filter(|_| !changes.wrong.contains_key(&at)) else { continue };
            let row = (!records.values.is_null(at)).then(|| self.store.encode(changes.columns().map(|column| column.cell(at))));
            self.store.set(key, row);
        }
        changes.wrong
    }

    /// The row of each key (text) as of now; a null key finds nothing.
    pub fn lookup(&mut self, keys: &Column) -> Result<Found, String> {
        let rows = texts(keys, &self.reader.table().name)?;
        let mut found = FoundBuilder::new(self.reader.columns(), rows);
        for at in 0..rows {
            let row = match keys.bytes(at) {
                Some(key) => self.store.row(key)?,
                None => None,
            };
            match row {
                Some(row) => found.push(&row),
                None => found.absent(),
            }
        }
        Ok(found.finish())
    }
}

/// The store that holds a table's rows: its key is the record's, as text.
pub fn store_of(table: &Table) -> Store {
    let fields = table.schema.schema.fields.iter().filter_map(|field| match &field.path {
        Field::Value(path) => Some(StoreField { name: path.to_string(), kind: field.kind, nullable: field.nullable, default: None }),
        _ => None,
    });
    Store {
        name: table.name.clone(),
        key: Type::Text,
        fields: fields.collect(),
        by: vec![Field::Key],
        windowed: false,
        emits: Vec::new(),
        migrates: Vec::new(),
    }
}
