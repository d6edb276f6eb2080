//! From the records of a table's topic to its rows: a value replaces its key's row, a tombstone deletes it.

use crate::column::{Column, Indexed, Type};
use crate::field::Field;
use crate::format::{DecodedField, Decoder, Wanted};
use crate::key;
use crate::pipeline::Table;
use crate::record::Records;
use std::collections::BTreeMap;

/// Reads records of a table.
pub struct RowReader {
    table: Table,
    columns: Vec<Type>,
    decoder: Box<dyn Decoder>,
}

/// What a number of records say.
pub struct Changes {
    /// By record; None: it has no key that could name a row.
    pub keys: Vec<Option<Vec<u8>>>,
    columns: Vec<DecodedField>,
    /// Records that cannot be read, with a code and the reason: the row before them stays.
    pub wrong: BTreeMap<usize, (&'static str, String)>,
}

impl RowReader {
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
        }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn columns(&self) -> &[Type] {
        &self.columns
    }

    pub fn read(&self, records: &Records) -> Changes {
        let decoded = self.decoder.decode(Indexed { column: &records.values, index: None }, records.len());
        let mut wrong = BTreeMap::new();
        for error in &decoded.failed {
            wrong.insert(error.row as usize, (error.code, error.message.clone()));
        }
        for (field, place) in decoded.fields.iter().zip(&self.table.schema.schema.fields) {
            for error in &field.errors {
                let message = format!("field `{}`: {}", place.path, error.message);
                wrong.entry(error.row as usize).or_insert((error.code, message));
            }
            if !place.nullable {
                for row in (0..records.len()).filter(|row| !records.values.is_null(*row) && field.column.is_null(*row)) {
                    let message = format!("the required field `{}` is missing", place.path);
                    wrong.entry(row).or_insert(("missing_field", message));
                }
            }
        }
        let mut keys = Vec::with_capacity(records.len());
        for row in 0..records.len() {
            let key = match records.keys.bytes(row).map(|bytes| key::text(bytes, self.table.key)) {
                Some(Ok(key)) => Some(key.as_bytes().to_vec()),
                Some(Err(message)) => {
                    wrong.insert(row, ("wrong_key", message.to_owned()));
                    None
                }
                None => {
                    wrong.insert(row, ("missing_key", "the record has no key, which is what names a table's row".to_owned()));
                    None
                }
            };
            keys.push(key);
        }
        Changes { keys, columns: decoded.fields, wrong }
    }
}

impl Changes {
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().map(|field| &field.column)
    }
}
