//! Columns from rows, and cells as text.

use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use millstream_guest::field::Field;
use millstream_guest::verdict::{Derived, Written};

pub fn field(path: &str) -> Field {
    Field::parse(path).expect("a field")
}

fn column<T>(kind: Type, rows: impl IntoIterator<Item = Option<T>>, add: impl Fn(&mut ColumnBuilder, T)) -> Column {
    let mut column = ColumnBuilder::new(kind, 0);
    for row in rows {
        match row {
            Some(value) => add(&mut column, value),
            None => column.null(),
        }
    }
    column.finish()
}

pub fn ints(rows: impl IntoIterator<Item = Option<i64>>) -> Column {
    column(Type::Int, rows, |column, value| column.int(value))
}

pub fn floats(rows: impl IntoIterator<Item = Option<f64>>) -> Column {
    column(Type::Float, rows, |column, value| column.float(value))
}

pub fn bools(rows: impl IntoIterator<Item = Option<bool>>) -> Column {
    column(Type::Boolean, rows, |column, value| column.bool(value))
}

/// Text, bytes or JSON.
pub fn strings(kind: Type, rows: impl IntoIterator<Item = Option<String>>) -> Column {
    column(kind, rows, |column, value| column.bytes(value.as_bytes()))
}

pub fn texts(rows: impl IntoIterator<Item = Option<String>>) -> Column {
    strings(Type::Text, rows)
}

pub fn blobs(rows: impl IntoIterator<Item = Option<String>>) -> Column {
    strings(Type::Bytes, rows)
}

/// A column of one row.
pub fn text(value: &str) -> Column {
    texts([Some(value.to_owned())])
}

pub fn int(column: &Column, row: usize) -> Option<i64> {
    match column.cell(row) {
        Cell::Int(value) => Some(value),
        _ => None,
    }
}

/// A cell as text; null as `-`.
pub fn show(column: &Column, row: usize) -> String {
    match column.cell(row) {
        Cell::Null => "-".to_owned(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Float(value) => format!("{value:?}"),
        Cell::Text(value) | Cell::Json(value) => value.to_owned(),
        Cell::Blob(value) => String::from_utf8_lossy(value).into_owned(),
    }
}

/// A row of several columns.
pub fn show_row(columns: &[Column], row: usize) -> String {
    columns.iter().map(|column| show(column, row)).collect::<Vec<_>>().join(",")
}

pub fn written(column: Column) -> Written {
    Written { column, kept: Bitmap::default(), removed: Bitmap::default() }
}

pub fn derived(output: usize, source: Vec<u32>, fields: Vec<Column>) -> Derived {
    Derived {
        output,
        source,
        fields: fields.into_iter().map(written).collect(),
        timestamps: None,
        keys: None,
        values: None,
        headers: None,
        leaves: None,
        tombstones: Bitmap::default(),
    }
}

pub fn marks(rows: impl IntoIterator<Item = bool>) -> Bitmap {
    let rows: Vec<bool> = rows.into_iter().collect();
    let mut bitmap = Bitmap::filled(rows.len(), false);
    rows.iter().enumerate().filter(|(_, set)| **set).for_each(|(row, _)| bitmap.set(row));
    bitmap
}
