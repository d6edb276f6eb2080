//! A global table: a topic's last row for each key, in memory, the same for every task of a host.

use super::row::{FoundBuilder, Row, Value};
use super::rows::RowReader;
use super::{PartitionedTable, texts};
use crate::column::Column;
use crate::io::Fetched;
use crate::pipeline::Table;
use crate::plugin::Found;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A global table, kept current by its reader.
pub struct GlobalTable {
    reader: RowReader,
    rows: HashMap<Box<[u8]>, Row, foldhash::fast::RandomState>,
    /// Records that did not decode: the row before them stays.
    pub broken: u64,
}

impl GlobalTable {
    pub fn new(table: &Table) -> Self {
        Self { reader: RowReader::new(table), rows: HashMap::default(), broken: 0 }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes records over: a value replaces its key's row, a tombstone deletes it. What cannot be read is told, by its place, and passed over.
    pub fn apply(&mut self, fetched: &Fetched) -> Vec<String> {
        let records = &fetched.records;
        let changes = self.reader.read(records);
        let mut told = Vec::new();
        for (row, key) in changes.keys.iter().enumerate() {
            if let Some((_, message)) = changes.wrong.get(&row) {
                self.broken += 1;
                let table = &self.reader.table().name;
                told.push(format!("table `{table}`: record {}/{} is passed over: {message}", fetched.from, fetched.offsets[row]));
                continue;
            }
            let Some(key) = key else { continue };
            if records.values.is_null(row) {
                self.rows.remove(key.as_slice());
            } else {
                let values = changes.columns().map(|column| Value::of(column.cell(row))).collect();
                self.rows.insert(key.as_slice().into(), Row(values));
            }
        }
        told
    }

    /// The row of each key (text); a null key finds nothing.
    pub fn lookup(&self, keys: &Column) -> Result<Found, String> {
        let rows = texts(keys, &self.reader.table().name)?;
        let mut found = FoundBuilder::new(self.reader.columns(), rows);
        for row in 0..rows {
            match keys.bytes(row).and_then(|key| self.rows.get(key)) {
                Some(values) => found.push(values),
                None => found.absent(),
            }
        }
        Ok(found.finish())
    }
}

/// A table as a stage sees it.
#[derive(Clone)]
pub enum TableView {
    Global(Arc<RwLock<GlobalTable>>),
    /// The task's own partition of it.
    Partitioned(Arc<Mutex<PartitionedTable>>),
}

impl TableView {
    pub fn lookup(&self, keys: &Column) -> Result<Found, String> {
        match self {
            Self::Global(table) => table.read().unwrap_or_else(PoisonError::into_inner).lookup(keys),
            Self::Partitioned(table) => table.lock().unwrap_or_else(PoisonError::into_inner).lookup(keys),
        }
    }
}
