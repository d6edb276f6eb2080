//! Columns in Arrow's layout: the one shape of data between log, stages, plugins and stores.
//!
//! The rules are those of `wit/plugin.wit`: offsets have one entry more than rows and start with 0, bitmaps are least significant bit
//! first, an empty validity means that every row is set.

use serde::{Deserialize, Serialize};

/// A bit for each row, least significant first. Bits beyond the bytes read as unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap(pub Vec<u8>);

impl Bitmap {
    /// `rows` bits, all of them `set`.
    pub fn filled(rows: usize, set: bool) -> Self {
        Self(vec![if set { 0xff } else { 0 }; rows.div_ceil(8)])
    }

    #[inline]
    pub fn get(&self, row: usize) -> bool {
        self.0.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
    }

    /// Sets the bit of `row`, growing as needed.
    #[inline]
    pub fn set(&mut self, row: usize) {
        if self.0.len() <= row / 8 {
            self.0.resize(row / 8 + 1, 0);
        }
        self.0[row / 8] |= 1 << (row % 8);
    }

    #[inline]
    pub fn clear(&mut self, row: usize) {
        if let Some(byte) = self.0.get_mut(row / 8) {
            *byte &= !(1 << (row % 8));
        }
    }

    /// Whether any of the first `rows` bits is set.
    pub fn any(&self, rows: usize) -> bool {
        let whole = (rows / 8).min(self.0.len());
        self.0[..whole].iter().any(|byte| *byte != 0) || (whole * 8..rows).any(|row| self.get(row))
    }

    /// The bits of `rows`, in that order.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let mut out = Self(vec![0; rows.len().div_ceil(8)]);
        for (to, from) in rows.iter().enumerate() {
            if self.get(*from as usize) {
                out.0[to / 8] |= 1 << (to % 8);
            }
        }
        out
    }
}

/// Variable-length values, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings {
    pub data: Vec<u8>,
    pub offsets: Vec<u32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { data: Vec::new(), offsets: vec![0] }
    }
}

impl Strings {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { data: Vec::with_capacity(bytes), offsets }
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    #[inline]
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.close();
    }

    /// Ends a row whose bytes were appended to `data` directly.
    #[inline]
    pub fn close(&mut self) {
        debug_assert!(self.data.len() < i32::MAX as usize, "a column stays below 2^31 bytes");
        self.offsets.push(self.data.len() as u32);
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.get(row))
    }

    pub fn gather(&self, rows: &[u32]) -> Self {
        let bytes = rows.iter().map(|row| self.get(*row as usize).len()).sum();
        let mut out = Self::with_capacity(rows.len(), bytes);
        for row in rows {
            out.push(self.get(*row as usize));
        }
        out
    }
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    Boolean,
    Int,
    Float,
    Text,
    Bytes,
    /// Source text of anything nested, or of unknown type.
    Json,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Json => "json",
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The values of a column, by type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Bit-packed. The count of rows comes from the column's neighbours or `Column::rows`' caller.
    Bools(Vec<u8>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Strings),
    Blobs(Strings),
    Jsons(Strings),
}

/// One field of every row. An empty validity means that every row has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub values: Values,
    pub validity: Bitmap,
}

/// One value, borrowed from a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Blob(&'a [u8]),
    /// JSON source text.
    Json(&'a str),
}

impl Column {
    pub fn kind(&self) -> Type {
        match self.values {
            Values::Bools(_) => Type::Boolean,
            Values::Ints(_) => Type::Int,
            Values::Floats(_) => Type::Float,
            Values::Texts(_) => Type::Text,
            Values::Blobs(_) => Type::Bytes,
            Values::Jsons(_) => Type::Json,
        }
    }

    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        !self.validity.0.is_empty() && !self.validity.get(row)
    }

    /// The bytes of a row of a variable-length column; None for a null row and for a column of fixed width.
    #[inline]
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        if self.is_null(row) {
            return None;
        }
        match &self.values {
            Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => Some(strings.get(row)),
            _ => None,
        }
    }

    /// The value of a row. Text and JSON must be UTF-8 (columns from outside are checked where they come in).
    pub fn cell(&self, row: usize) -> Cell<'_> {
        if self.is_null(row) {
            return Cell::Null;
        }
        match &self.values {
            Values::Bools(bits) => Cell::Bool(bits[row / 8] >> (row % 8) & 1 == 1),
            Values::Ints(values) => Cell::Int(values[row]),
            Values::Floats(values) => Cell::Float(values[row]),
            Values::Texts(strings) => Cell::Text(std::str::from_utf8(strings.get(row)).unwrap_or_default()),
            Values::Blobs(strings) => Cell::Blob(strings.get(row)),
            Values::Jsons(strings) => Cell::Json(std::str::from_utf8(strings.get(row)).unwrap_or_default()),
        }
    }

    /// The rows `rows`, in that order.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let values = match &self.values {
            Values::Bools(bits) => Values::Bools(Bitmap(bits.clone()).gather(rows).0),
            Values::Ints(values) => Values::Ints(rows.iter().map(|row| values[*row as usize]).collect()),
            Values::Floats(values) => Values::Floats(rows.iter().map(|row| values[*row as usize]).collect()),
            Values::Texts(strings) => Values::Texts(strings.gather(rows)),
            Values::Blobs(strings) => Values::Blobs(strings.gather(rows)),
            Values::Jsons(strings) => Values::Jsons(strings.gather(rows)),
        };
        let validity = if self.validity.0.is_empty() { Bitmap::default() } else { self.validity.gather(rows) };
        Self { values, validity }
    }

    /// A column of blobs in which every row is set.
    pub fn blobs(strings: Strings) -> Self {
        Self { values: Values::Blobs(strings), validity: Bitmap::default() }
    }
}

/// Builds a column row by row.
#[derive(Clone, Debug)]
pub struct ColumnBuilder {
    values: Values,
    /// Allocated at the first null.
    validity: Bitmap,
    rows: usize,
}

impl ColumnBuilder {
    pub fn new(kind: Type, rows: usize) -> Self {
        let strings = || Strings::with_capacity(rows, 0);
        let values = match kind {
            Type::Boolean => Values::Bools(Vec::with_capacity(rows.div_ceil(8))),
            Type::Int => Values::Ints(Vec::with_capacity(rows)),
            Type::Float => Values::Floats(Vec::with_capacity(rows)),
            Type::Text => Values::Texts(strings()),
            Type::Bytes => Values::Blobs(strings()),
            Type::Json => Values::Jsons(strings()),
        };
        Self { values, validity: Bitmap::default(), rows: 0 }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    fn next(&mut self) {
        if !self.validity.0.is_empty() {
            self.validity.set(self.rows);
        }
        self.rows += 1;
    }

    pub fn null(&mut self) {
        if self.validity.0.is_empty() {
            self.validity = Bitmap::filled(self.rows.max(1), true);
            for row in self.rows..self.validity.0.len() * 8 {
                self.validity.clear(row);
            }
        }
        if self.validity.0.len() <= self.rows / 8 {
            self.validity.0.push(0);
        }
        match &mut self.values {
            Values::Bools(bits) => {
                if bits.len() <= self.rows / 8 {
                    bits.push(0);
                }
            }
            Values::Ints(values) => values.push(0),
            Values::Floats(values) => values.push(0.0),
            Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => strings.close(),
        }
        self.rows += 1;
    }

    pub fn bool(&mut self, value: bool) {
        if let Values::Bools(bits) = &mut self.values {
            if bits.len() <= self.rows / 8 {
                bits.push(0);
            }
            bits[self.rows / 8] |= u8::from(value) << (self.rows % 8);
        }
        self.next();
    }

    pub fn int(&mut self, value: i64) {
        if let Values::Ints(values) = &mut self.values {
            values.push(value);
        }
        self.next();
    }

    pub fn float(&mut self, value: f64) {
        if let Values::Floats(values) = &mut self.values {
            values.push(value);
        }
        self.next();
    }

    /// A row of text, bytes or JSON.
    pub fn bytes(&mut self, value: &[u8]) {
        if let Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) = &mut self.values {
            strings.push(value);
        }
        self.next();
    }

    /// Appends a cell of this column's type, or null.
    pub fn cell(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Null => self.null(),
            Cell::Bool(value) => self.bool(value),
            Cell::Int(value) => self.int(value),
            Cell::Float(value) => self.float(value),
            Cell::Text(text) | Cell::Json(text) => self.bytes(text.as_bytes()),
            Cell::Blob(bytes) => self.bytes(bytes),
        }
    }

    pub fn finish(self) -> Column {
        Column { values: self.values, validity: self.validity }
    }
}

/// A column seen through a selection: row i is the column's row `index[i]`, or i without an index.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'a> {
    pub column: &'a Column,
    pub index: Option<&'a [u32]>,
}

impl<'a> Indexed<'a> {
    #[inline]
    pub fn row(&self, row: usize) -> usize {
        self.index.map_or(row, |index| index[row] as usize)
    }

    #[inline]
    pub fn bytes(&self, row: usize) -> Option<&'a [u8]> {
        self.column.bytes(self.row(row))
    }

    pub fn cell(&self, row: usize) -> Cell<'a> {
        self.column.cell(self.row(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builder_marks_nulls_wherever_they_come() {
        for nulls in 0u32..1 << 10 {
            let mut builder = ColumnBuilder::new(Type::Int, 10);
            for row in 0..10 {
                if nulls >> row & 1 == 1 { builder.null() } else { builder.int(row) }
            }
            let column = builder.finish();
            for row in 0..10usize {
                assert_eq!(column.is_null(row), nulls >> row & 1 == 1, "nulls {nulls:b}, row {row}");
            }
        }
    }

    #[test]
    fn gather_keeps_values_and_nulls() {
        let mut builder = ColumnBuilder::new(Type::Text, 3);
        builder.bytes(b"a");
        builder.null();
        builder.bytes(b"ccc");
        let column = builder.finish().gather(&[2, 2, 1, 0]);
        let cells: Vec<_> = (0..4).map(|row| column.cell(row)).collect();
        assert_eq!(cells, [Cell::Text("ccc"), Cell::Text("ccc"), Cell::Null, Cell::Text("a")]);
    }
}
