//! Headers of records, as columns.

use crate::column::{Column, ColumnBuilder, Strings, Type};

/// Headers of every record: record i owns the entries `offsets[i] .. offsets[i+1]`. Names and values are bytes as they came
/// (Kafka's headers need not be UTF-8); values may be null.
#[derive(Clone, Debug, PartialEq)]
pub struct Headers {
    /// Empty = no record has a header.
    pub offsets: Vec<u32>,
    pub names: Strings,
    pub values: Column,
}

impl Default for Headers {
    fn default() -> Self {
        Self { offsets: Vec::new(), names: Strings::default(), values: Column::blobs(Strings::default()) }
    }
}

impl Headers {
    /// The entries of a record.
    pub fn entries(&self, record: usize) -> std::ops::Range<usize> {
        if self.offsets.is_empty() { 0..0 } else { self.offsets[record] as usize..self.offsets[record + 1] as usize }
    }

    pub fn of(&self, record: usize) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries(record).map(|entry| (self.names.get(entry), self.values.bytes(entry)))
    }

    /// The last value of the header `name`, as Kafka's `lastHeader` has it; Some(None) is a header with a null value.
    pub fn last(&self, record: usize, name: &[u8]) -> Option<Option<&[u8]>> {
        self.entries(record).rev().find(|entry| self.names.get(*entry) == name).map(|entry| self.values.bytes(entry))
    }

    pub fn gather(&self, records: &[u32]) -> Self {
        if self.offsets.is_empty() {
            return Self::default();
        }
        let mut out = HeadersBuilder::default();
        for record in records {
            for (name, value) in self.of(*record as usize) {
                out.push(name, value);
            }
            out.close();
        }
        out.finish()
    }
}

/// Builds headers record by record: `push` each entry, then `close` the record.
#[derive(Clone, Debug)]
pub struct HeadersBuilder {
    offsets: Vec<u32>,
    names: Strings,
    values: ColumnBuilder,
}

impl Default for HeadersBuilder {
    fn default() -> Self {
        Self { offsets: vec![0], names: Strings::default(), values: ColumnBuilder::new(Type::Bytes, 0) }
    }
}

impl HeadersBuilder {
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.names.push(name);
        match value {
            Some(value) => self.values.bytes(value),
            None => self.values.null(),
        }
    }

    pub fn close(&mut self) {
        self.offsets.push(self.names.len() as u32);
    }

    pub fn finish(self) -> Headers {
        if self.names.is_empty() {
            return Headers::default();
        }
        Headers { offsets: self.offsets, names: self.names, values: self.values.finish() }
    }
}
