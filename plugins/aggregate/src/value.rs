//! One value, owned: what a store's row holds of a column.

use millstream_guest::column::{Cell, ColumnBuilder, Type};

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text, bytes or JSON, as the column's type says.
    Bytes(Vec<u8>),
}

impl Value {
    pub fn of(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Bool(value) => Self::Bool(value),
            Cell::Int(value) => Self::Int(value),
            Cell::Float(value) => Self::Float(value),
            Cell::Text(text) | Cell::Json(text) => Self::Bytes(text.as_bytes().to_vec()),
            Cell::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    /// As a cell of a column of type `kind`.
    pub fn cell(&self, kind: Type) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int(value) => Cell::Int(*value),
            Self::Float(value) => Cell::Float(*value),
            Self::Bytes(bytes) => match (kind, std::str::from_utf8(bytes)) {
                (Type::Text, Ok(text)) => Cell::Text(text),
                (Type::Json, Ok(text)) => Cell::Json(text),
                _ => Cell::Blob(bytes),
            },
        }
    }

    /// Appends it to a column of its type.
    pub fn push(&self, column: &mut ColumnBuilder) {
        match self {
            Self::Null => column.null(),
            Self::Bool(value) => column.bool(*value),
            Self::Int(value) => column.int(*value),
            Self::Float(value) => column.float(*value),
            Self::Bytes(bytes) => column.bytes(bytes),
        }
    }

    /// The int, or 0.
    pub fn int(&self) -> i64 {
        if let Self::Int(value) = self { *value } else { 0 }
    }

    /// The number, or 0.
    pub fn float(&self) -> f64 {
        match self {
            Self::Float(value) => *value,
            Self::Int(value) => *value as f64,
            _ => 0.0,
        }
    }
}
