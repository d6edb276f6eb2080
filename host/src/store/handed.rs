//! Rows that are handed to their plugin: of closed windows, or changed since the last commit.

use super::{Key, Layer, StateStore, decode_int, encode_int, row};
use crate::column::{Column, ColumnBuilder, Type};
use crate::io::LogError;

/// Rows of a store, in the order of their keys.
pub struct Handed {
    pub keys: Column,
    pub fields: Vec<Column>,
    /// As they are stored.
    encoded: Vec<Key>,
}

impl Handed {
    /// The keys as the store encodes them.
    pub fn encoded(&self) -> &[Vec<u8>] {
        &self.encoded
    }

    pub fn len(&self) -> usize {
        self.encoded.len()
    }

    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// The times that windowed keys begin with.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        self.encoded.iter().map(|key| time_of(key))
    }
}

fn time_of(key: &[u8]) -> i64 {
    key.get(..8).and_then(decode_int).unwrap_or(i64::MIN)
}

impl StateStore {
    /// Rows of windows with times in [from, below), at most `limit`.
    pub fn windows(&mut self, from: i64, below: i64, limit: usize) -> Result<Handed, String> {
        let rows = self.range(&encode_int(from), Some(&encode_int(below)), limit).map_err(|error| error.message)?;
        self.handed(rows)
    }

    /// The lowest time that a key begins with, `from` or later.
    pub fn first_time(&self, from: i64) -> Result<Option<i64>, LogError> {
        let committed = |low: &[u8]| self.committed.scan(&self.name, self.task, low, None, 1).map(|mut rows| rows.pop());
        let layers = [&self.batch, &self.open, &self.in_flight, &self.dirty];
        let mut low = encode_int(from).to_vec();
        let mut below = committed(&low)?;
        loop {
            let in_layers = layers.iter().filter_map(|layer| layer.range(low.clone()..).next().map(|(key, _)| key));
            let Some(key) = in_layers.chain(below.as_ref().map(|(key, _)| key)).min().cloned() else { return Ok(None) };
            if layers.iter().find_map(|layer| layer.get(&key)).is_none_or(Option::is_some) {
                return Ok(Some(time_of(&key)));
            }
            low = key;
            low.push(0);
            if below.as_ref().is_some_and(|(key, _)| *key < low) {
                below = committed(&low)?;
            }
        }
    }

    /// The highest time of a window with time `from` or later.
    pub fn last_window(&self, from: i64) -> Result<Option<i64>, LogError> {
        const PAGE: usize = 1000;
        let (mut low, mut last) = (encode_int(from).to_vec(), None);
        loop {
            let page = self.range(&low, None, PAGE)?;
            let Some((key, _)) = page.last() else { return Ok(last) };
            last = Some(time_of(key));
            if page.len() < PAGE {
                return Ok(last);
            }
            low.clone_from(key);
            low.push(0);
        }
    }

    /// Rows that were written since the last commit and are still there, in pieces of at most `limit`.
    pub fn changed(&mut self, limit: usize) -> Result<Vec<Handed>, String> {
        let mut changed: Layer = self.open.clone();
        changed.extend(self.batch.iter().map(|(key, row)| (key.clone(), row.clone())));
        let rows: Vec<(Key, Vec<u8>)> = changed.into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
        rows.chunks(limit).map(|rows| self.handed(rows.to_vec())).collect()
    }

    /// Drops what was handed over, with the batch under way.
    pub fn drop_handed(&mut self, handed: &Handed) {
        self.batch.extend(handed.encoded.iter().map(|key| (key.clone(), None)));
    }

    fn handed(&mut self, mut rows: Vec<(Key, Vec<u8>)>) -> Result<Handed, String> {
        self.turn(&mut rows)?;
        let mut keys = ColumnBuilder::new(self.key, rows.len());
        let mut fields = row::FoundBuilder::new(&self.fields, rows.len());
        for (key, bytes) in &rows {
            match self.key {
                Type::Int => keys.int(decode_int(key).ok_or_else(|| self.broken())?),
                _ => keys.bytes(key),
            }
            fields.push(&self.decode(bytes)?);
        }
        let encoded = rows.iter().map(|(key, _)| key.clone()).collect();
        Ok(Handed { keys: keys.finish(), fields: fields.finish().fields, encoded })
    }
}
