//! The key of a group: of its row in the store, and of its results.

use crate::function::write_json;
use crate::value::Value;
use millstream_guest::column::{Cell, Column, Type};

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

impl Group {
    /// The values of the group's fields, of these types, from a key. None: it is no such key.
    pub fn read(&self, key: &[u8], types: impl Iterator<Item = Type>) -> Option<Vec<Value>> {
        let Self::Fields(names) = self else { return Some(Vec::new()) };
        if let [_] = names.as_slice() {
            let text = || std::str::from_utf8(key).ok();
            return types
                .map(|kind| {
                    Some(match kind {
                        Type::Boolean => Value::Bool(text()?.parse().ok()?),
                        Type::Int => Value::Int(text()?.parse().ok()?),
                        Type::Float => Value::Float(text()?.parse().ok()?),
                        _ => Value::Bytes(key.to_vec()),
                    })
                })
                .collect();
        }
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(key).ok()?;
        names
            .iter()
            .zip(types)
            .map(|(name, kind)| {
                let member = members.get(name)?;
                Some(match kind {
                    Type::Boolean => Value::Bool(member.as_bool()?),
                    Type::Int => Value::Int(member.as_i64()?),
                    Type::Float => Value::Float(member.as_f64()?),
                    _ => Value::Bytes(member.as_str()?.as_bytes().to_vec()),
                })
            })
            .collect()
    }
}

/// The time and the rest of a windowed key.
pub fn split(key: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = key.split_first_chunk::<START>()?;
    Some((i64::from_be_bytes(*time) ^ i64::MIN, rest))
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
