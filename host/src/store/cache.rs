//! Committed rows in memory.

use super::Key;
use std::collections::HashMap;
use std::mem;

/// What a row in memory takes beside its bytes: two vectors, their allocations, its slot.
const ROW_OVERHEAD: usize = 96;

/// Committed rows in memory, half of them the ones used last. Rows that are asked for move to the young half; when that is full, the old half goes.
pub struct Cache {
    pub bytes: usize,
    young: HashMap<Key, Option<Vec<u8>>, foldhash::fast::RandomState>,
    old: HashMap<Key, Option<Vec<u8>>, foldhash::fast::RandomState>,
    young_bytes: usize,
}

impl Cache {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, young: HashMap::default(), old: HashMap::default(), young_bytes: 0 }
    }

    pub fn get(&mut self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        if let Some(row) = self.young.get(key) {
            return Some(row.clone());
        }
        let (key, row) = self.old.remove_entry(key)?;
        self.insert(key, row.clone());
        Some(row)
    }

    pub fn insert(&mut self, key: Key, row: Option<Vec<u8>>) {
        self.young_bytes += size_of(key.len(), row.as_ref());
        if self.young_bytes > self.bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = size_of(key.len(), row.as_ref());
        } else {
            self.old.remove(&key);
        }
        let length = key.len();
        if let Some(before) = self.young.insert(key, row) {
            self.young_bytes = self.young_bytes.saturating_sub(size_of(length, before.as_ref()));
        }
    }

    pub fn remove(&mut self, key: &[u8]) {
        if let Some((key, row)) = self.young.remove_entry(key) {
            self.young_bytes = self.young_bytes.saturating_sub(size_of(key.len(), row.as_ref()));
        }
        self.old.remove(key);
    }
}

pub fn size_of(key_length: usize, row: Option<&Vec<u8>>) -> usize {
    ROW_OVERHEAD + key_length + row.map_or(0, Vec::len)
}
