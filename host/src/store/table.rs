//! A global table: a topic's last row for each key, in memory, the same for every task of a host.

use super::row::{FoundBuilder, Row, Value};
use crate::column::{Column, Type};
use crate::field::Field;
use crate::format::{Decoder, Wanted};
use crate::io::Fetched;
use crate::key;
use crate::pipeline::Table;
use crate::plugin::Found;
use std::collections::HashMap;

/// A global table, kept current by its reader.
pub struct GlobalTable {
    table: Table,
    columns: Vec<Type>,
    decoder: Box<dyn Decoder>,
    rows: HashMap<Box<[u8]>, Row, foldhash::fast::RandomState>,
    /// Records that did not decode: the row before them stays.
    pub broken: u64,
}

impl GlobalTable {
    pub fn new(table: &Table) -> Self {
        let fields = table.schema.schema.fields.iter().filter_map(|field| match &field.path {
            Field::Value(path) => Some((path, field.kind)),
            _ => None,
        });
        let wanted: Vec<_> = fields
            .map(|(path, kind)| Wanted {
                path: path.clone(),
                kind,
                from: table.schema.from.iter().find(|(declared, _)| declared == path).map(|(_, from)| *from),
            })
            .collect();
        Self {
            table: table.clone(),
            columns: wanted.iter().map(|wanted| wanted.kind).collect(),
            decoder: crate::format::of(table.format).decoder(&wanted),
            rows: HashMap::default(),
            broken: 0,
        }
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
        let decoded = self.decoder.decode(crate::column::Indexed { column: &records.values, index: None }, records.len());
        let mut wrong: HashMap<usize, String> = HashMap::new();
        for error in &decoded.failed {
            wrong.insert(error.row as usize, error.message.clone());
        }
        for (field, place) in decoded.fields.iter().zip(&self.table.schema.schema.fields) {
            for error in &field.errors {
                wrong.entry(error.row as usize).or_insert_with(|| format!("field `{}`: {}", place.path, error.message));
            }
            if !place.nullable {
                for row in (0..records.len()).filter(|row| !records.values.is_null(*row) && field.column.is_null(*row)) {
                    wrong.entry(row).or_insert_with(|| format!("the required field `{}` is missing", place.path));
                }
            }
        }
        let mut told = Vec::new();
        for row in 0..records.len() {
            let key = match records.keys.bytes(row).map(|bytes| key::text(bytes, self.table.key)) {
                Some(Ok(key)) => key.as_bytes().to_vec(),
                Some(Err(message)) => {
                    wrong.insert(row, message.to_owned());
                    Vec::new()
                }
                None => {
                    wrong.insert(row, "the record has no key, which is what names a table's row".to_owned());
                    Vec::new()
                }
            };
            if let Some(message) = wrong.get(&row) {
                self.broken += 1;
                told.push(format!(
                    "table `{}`: record {}/{} is passed over: {message}",
                    self.table.name, fetched.from, fetched.offsets[row]
                ));
            } else if records.values.is_null(row) {
                self.rows.remove(key.as_slice());
            } else {
                let values = decoded.fields.iter().map(|field| Value::of(field.column.cell(row))).collect();
                self.rows.insert(key.into(), Row(values));
            }
        }
        told
    }

    /// The row of each key (text); a null key finds nothing.
    pub fn lookup(&self, keys: &Column) -> Result<Found, String> {
        let crate::column::Values::Texts(texts) = &keys.values else {
            return Err(format!("the keys of table `{}` are asked as text, not {}", self.table.name, keys.kind()));
        };
        let mut found = FoundBuilder::new(&self.columns, texts.len());
        for row in 0..texts.len() {
            match keys.bytes(row).and_then(|key| self.rows.get(key)) {
                Some(values) => found.push(values),
                None => found.absent(),
            }
        }
        Ok(found.finish())
    }
}
