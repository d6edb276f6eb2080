//! Records as columns: what the log hands over and takes. No object for a single record exists between the log and a plugin.

use millstream_guest::column::{Bitmap, Column, ColumnBuilder, Strings, Type, Values};
pub use millstream_guest::headers::{Headers, HeadersBuilder};

/// Records as columns. Keys and values are blobs, nullable; a null value is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// Milliseconds since the epoch.
    pub timestamps: Vec<i64>,
    pub keys: Column,
    pub values: Column,
    pub headers: Headers,
}

impl Default for Records {
    fn default() -> Self {
        let none = || Column::blobs(Strings::default());
        Self { timestamps: Vec::new(), keys: none(), values: none(), headers: Headers::default() }
    }
}

impl Records {
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Bytes of keys and values, for limits.
    pub fn bytes(&self) -> usize {
        let size = |column: &Column| match &column.values {
            Values::Blobs(strings) => strings.data.len(),
            _ => 0,
        };
        size(&self.keys) + size(&self.values)
    }

    pub fn gather(&self, records: &[u32]) -> Self {
        Self {
            timestamps: records.iter().map(|record| self.timestamps[*record as usize]).collect(),
            keys: self.keys.gather(records),
            values: self.values.gather(records),
            headers: self.headers.gather(records),
        }
    }
}

/// Builds records one by one: for commands, tests and dead letters, not for the hot path.
#[derive(Clone, Debug)]
pub struct RecordsBuilder {
    timestamps: Vec<i64>,
    keys: ColumnBuilder,
    values: ColumnBuilder,
    headers: HeadersBuilder,
}

impl Default for RecordsBuilder {
    fn default() -> Self {
        let blobs = || ColumnBuilder::new(Type::Bytes, 0);
        Self { timestamps: Vec::new(), keys: blobs(), values: blobs(), headers: HeadersBuilder::default() }
    }
}

impl RecordsBuilder {
    pub fn push<'a>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        self.timestamps.push(timestamp);
        for (column, cell) in [(&mut self.keys, key), (&mut self.values, value)] {
            match cell {
                Some(bytes) => column.bytes(bytes),
                None => column.null(),
            }
        }
        for (name, value) in headers {
            self.headers.push(name, value);
        }
        self.headers.close();
    }

    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    pub fn finish(self) -> Records {
        Records { timestamps: self.timestamps, keys: self.keys.finish(), values: self.values.finish(), headers: self.headers.finish() }
    }
}

/// Whether a bitmap marks no row, given that empty means none.
pub fn none_marked(marks: &Bitmap, rows: usize) -> bool {
    marks.0.is_empty() || !marks.any(rows)
}
