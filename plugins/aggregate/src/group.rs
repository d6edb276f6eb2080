//! The key of a group: of its row in the store, and of its results.

use crate::function::write_json;
use millstream_guest::column::{Cell, Column};

/// Bytes before the key of a windowed row: the window's start.
const START: usize = 8;

/// What makes a group.
#[derive(Clone, Debug)]
pub enum Group {
    /// The record's key, as it is.
    Key,
    /// Fields by name: one alone is its text; several are a JSON object in the order declared.
    Fields(Vec<String>),
}

impl Group {
    /// Writes the key of a row, or says why it has none. `columns` hold the key, or the fields.
    pub fn write(&self, columns: &[Column], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, columns) {
            (Self::Key, [key, ..]) => match key.cell(row) {
                Cell::Null => Err("the record has no key, so it belongs to no group".to_owned()),
                cell => {
                    write_text(cell, out);
                    Ok(())
                }
            },
            (Self::Fields(names), columns) => {
                for (name, column) in names.iter().zip(columns) {
                    if column.is_null(row) {
                        return Err(format!("`{name}` is null or missing, so the record belongs to no group"));
                    }
                }
                match (names.as_slice(), columns) {
                    ([_], [column, ..]) => write_text(column.cell(row), out),
                    _ => write_object(names, columns, row, out),
                }
                Ok(())
            }
            (Self::Key, []) => Err("the record has no key, so it belongs to no group".to_owned()),
        }
    }
}

/// The bytes before a windowed key: windows in the order of time.
pub fn window_prefix(start: i64) -> [u8; START] {
    (start ^ i64::MIN).to_be_bytes()
}

fn write_text(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Blob(bytes) => out.extend_from_slice(bytes),
        other => write_json(other, out),
    }
}

fn write_object(names: &[String], columns: &[Column], row: usize, out: &mut Vec<u8>) {
    for (place, (name, column)) in names.iter().zip(columns).enumerate() {
        out.push(if place == 0 { b'{' } else { b',' });
        write_json(Cell::Text(name), out);
        out.push(b':');
        write_json(column.cell(row), out);
    }
    out.push(b'}');
}
