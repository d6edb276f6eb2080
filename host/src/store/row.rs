//! Rows of stores and tables as bytes and as values.

use crate::column::{Bitmap, Cell, ColumnBuilder, Type};
use crate::plugin::Found;

/// A value of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text, bytes or JSON, by the column's type.
    Bytes(Box<[u8]>),
}

/// The columns of a row, in the described order.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Vec<Value>);

impl Value {
    /// In a column of this type.
    pub fn cell(&self, kind: Type) -> Cell<'_> {
        match (self, kind) {
            (Self::Null, _) => Cell::Null,
            (Self::Bool(value), _) => Cell::Bool(*value),
            (Self::Int(value), _) => Cell::Int(*value),
            (Self::Float(value), _) => Cell::Float(*value),
            (Self::Bytes(bytes), Type::Text) => Cell::Text(std::str::from_utf8(bytes).unwrap_or_default()),
            (Self::Bytes(bytes), Type::Json) => Cell::Json(std::str::from_utf8(bytes).unwrap_or_default()),
            (Self::Bytes(bytes), _) => Cell::Blob(bytes),
        }
    }

    pub fn of(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Bool(value) => Self::Bool(value),
            Cell::Int(value) => Self::Int(value),
            Cell::Float(value) => Self::Float(value),
            Cell::Text(text) | Cell::Json(text) => Self::Bytes(text.as_bytes().into()),
            Cell::Blob(bytes) => Self::Bytes(bytes.into()),
        }
    }
}

/// Rows of the first type begin with their first column. Those of others begin with a byte from here on, which is none of a column: the number 1, and so on.
const FIRST_NUMBER: u8 = 0x10;
/// So many types rows can have, by their numbers.
pub const MOST_NUMBERS: u8 = 0xff - FIRST_NUMBER + 2;

/// The number of a row's type, and its columns.
pub fn split(row: &[u8]) -> (u8, &[u8]) {
    match row.split_first() {
        Some((first, columns)) if *first >= FIRST_NUMBER => (first - FIRST_NUMBER + 1, columns),
        _ => (0, row),
    }
}

/// Encodes a row: the number of its type, then for each column a byte (0 null, 1 a value, 2 false, 3 true), then 8 bytes little-endian of a number, or the
/// length (4 bytes little-endian) and the bytes.
pub fn encode<'a>(number: u8, cells: impl Iterator<Item = Cell<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    if number > 0 {
        out.push(FIRST_NUMBER + (number - 1));
    }
    for cell in cells {
        match cell {
            Cell::Null => out.push(0),
            Cell::Bool(value) => out.push(2 + u8::from(value)),
            Cell::Int(value) => {
                out.push(1);
                out.extend(value.to_le_bytes());
            }
            Cell::Float(value) => {
                out.push(1);
                out.extend(value.to_le_bytes());
            }
            Cell::Text(text) | Cell::Json(text) => bytes(&mut out, text.as_bytes()),
            Cell::Blob(blob) => bytes(&mut out, blob),
        }
    }
    out
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.push(1);
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value);
}

impl Row {
    /// `from`: behind the number of the type. None: these bytes are no row of these columns.
    pub fn decode(mut from: &[u8], columns: &[Type]) -> Option<Self> {
        let mut values = Vec::with_capacity(columns.len());
        for kind in columns {
            let tag = *from.split_off_first()?;
            values.push(match (tag, kind) {
                (0, _) => Value::Null,
                (2 | 3, Type::Boolean) => Value::Bool(tag == 3),
                (1, Type::Int) => Value::Int(i64::from_le_bytes(from.split_off(..8)?.try_into().ok()?)),
                (1, Type::Float) => Value::Float(f64::from_le_bytes(from.split_off(..8)?.try_into().ok()?)),
                (1, Type::Text | Type::Bytes | Type::Json) => {
                    let length = u32::from_le_bytes(from.split_off(..4)?.try_into().ok()?) as usize;
                    let bytes = from.split_off(..length)?;
                    if *kind != Type::Bytes {
                        std::str::from_utf8(bytes).ok()?;
                    }
                    Value::Bytes(bytes.into())
                }
                _ => return None,
            });
        }
        from.is_empty().then_some(Self(values))
    }
}

/// Builds the answer to a look-up.
pub struct FoundBuilder {
    present: Bitmap,
    fields: Vec<ColumnBuilder>,
    rows: usize,
}

impl FoundBuilder {
    pub fn new(columns: &[Type], rows: usize) -> Self {
        let fields = columns.iter().map(|kind| ColumnBuilder::new(*kind, rows)).collect();
        Self { present: Bitmap::filled(rows, false), fields, rows: 0 }
    }

    pub fn push(&mut self, row: &Row) {
        self.present.set(self.rows);
        self.rows += 1;
        for (column, value) in self.fields.iter_mut().zip(&row.0) {
            match value {
                Value::Null => column.null(),
                Value::Bool(value) => column.bool(*value),
                Value::Int(value) => column.int(*value),
                Value::Float(value) => column.float(*value),
                Value::Bytes(bytes) => column.bytes(bytes),
            }
        }
    }

    pub fn absent(&mut self) {
        self.rows += 1;
        for column in &mut self.fields {
            column.null();
        }
    }

    pub fn finish(self) -> Found {
        Found { present: self.present, fields: self.fields.into_iter().map(ColumnBuilder::finish).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_broken_ones_are_told() {
        let kinds = [Type::Int, Type::Text, Type::Boolean, Type::Float, Type::Bytes];
        let cells = [Cell::Int(-7), Cell::Text("é"), Cell::Bool(true), Cell::Null, Cell::Blob(&[255])];
        for number in [0, 1, 0x0f, 0x10, MOST_NUMBERS - 1] {
            assert_eq!(split(&encode(number, cells.into_iter())), (number, &encode(0, cells.into_iter())[..]));
            assert_eq!(split(&encode(number, std::iter::empty())), (number, &[][..]), "a row without columns");
        }
        let bytes = encode(0, cells.into_iter());
        let row = Row::decode(&bytes, &kinds).unwrap();
        assert_eq!(row, Row(cells.into_iter().map(Value::of).collect()));
        for length in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..length], &kinds), None, "cut at {length}");
        }
        assert_eq!(Row::decode(&bytes, &[Type::Int]), None);
        assert_eq!(Row::decode(&bytes, &[Type::Text; 5]), None);
    }
}
