//! Typed rows of the stage's store: fetched for a batch at once, written back at once, undone for a record that is refused.

use super::member::{Cursor, Declared, Fields, Prepared, Writer, columns, declared};
use crate::column::{ColumnBuilder, Type};
use crate::state;
use std::collections::BTreeMap;

/// A row of state: an owned struct with `#[derive(Fields, Clone)]`.
pub trait Row: for<'a> Fields<'a> + Clone + 'static {}
impl<T: for<'a> Fields<'a> + Clone + 'static> Row for T {}

/// The rows of the stage's store. Reads see what earlier records of the batch wrote.
#[derive(Debug)]
pub struct Rows<R> {
    cached: BTreeMap<String, Slot<R>>,
    /// What the current record found where it wrote first.
    undo: Vec<(String, Option<Slot<R>>)>,
    columns: Vec<Declared>,
    failure: Option<String>,
}

#[derive(Clone, Debug)]
struct Slot<R> {
    row: Option<R>,
    dirty: bool,
}

impl<R: Row> Rows<R> {
    pub(super) fn new() -> Self {
        Self { cached: BTreeMap::new(), undo: Vec::new(), columns: declared::<R>(), failure: None }
    }

    /// The row of a key. A key that was not announced costs a call to the host of its own.
    pub fn get(&mut self, key: &str) -> Option<&R> {
        if !self.cached.contains_key(key) {
            self.fetch([key.to_owned()].into());
        }
        self.cached.get(key)?.row.as_ref()
    }

    pub fn put(&mut self, key: &str, row: R) {
        if let (Some(flaw), None) = (row.flaw(""), &self.failure) {
            self.failure = Some(flaw);
        }
        self.write(key, Some(row));
    }

    pub fn delete(&mut self, key: &str) {
        self.write(key, None);
    }

    fn write(&mut self, key: &str, row: Option<R>) {
        let before = self.cached.insert(key.to_owned(), Slot { row, dirty: true });
        self.undo.push((key.to_owned(), before));
    }

    /// Fetches those keys that are not here yet.
    pub(super) fn fetch(&mut self, keys: std::collections::BTreeSet<String>) {
        let keys: Vec<_> = keys.into_iter().filter(|key| !self.cached.contains_key(key)).collect();
        if keys.is_empty() {
            return;
        }
        let found = state::get_many(0, &texts(keys.iter()));
        let prepared = Prepared::all(&found.fields);
        for (place, key) in keys.into_iter().enumerate() {
            let row = match &prepared {
                Ok(prepared) if found.present.get(place) => R::read(&mut Cursor::new(prepared, &self.columns, place)).map(Some),
                Ok(_) => Ok(None),
                Err(message) => Err(super::Reject::new(message.clone())),
            };
            let row = row.unwrap_or_else(|reject| panic!("a row of the store is not of the plugin's type: {reject}"));
            self.cached.insert(key, Slot { row, dirty: false });
        }
    }

    /// Why the current record's writes cannot be kept.
    pub(super) fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Ends a record: its writes stay, or are undone.
    pub(super) fn close(&mut self, keep: bool) {
        if keep {
            self.undo.clear();
        }
        while let Some((key, slot)) = self.undo.pop() {
            match slot {
                Some(slot) => self.cached.insert(key, slot),
                // Never fetched, hence unknown again.
                None => self.cached.remove(&key),
            };
        }
    }

    /// Ends a batch: what was written goes to the host, and nothing is kept here (memory is not state).
    pub(super) fn flush(&mut self) {
        let cached = std::mem::take(&mut self.cached);
        let dirty: Vec<_> = cached.into_iter().filter(|(_, slot)| slot.dirty).collect();
        let (put, deleted): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|(_, slot)| slot.row.is_some());
        if !put.is_empty() {
            let mut written = columns(&self.columns, put.len());
            for row in put.iter().filter_map(|(_, slot)| slot.row.as_ref()) {
                row.write(&mut Writer::new(&mut written));
            }
            let fields = written.into_iter().map(|column| column.builder.finish()).collect();
            state::put_many(0, texts(put.iter().map(|(key, _)| key)), fields);
        }
        if !deleted.is_empty() {
            state::delete_many(0, &texts(deleted.iter().map(|(key, _)| key)));
        }
    }
}

/// A column of keys.
fn texts<'k>(keys: impl ExactSizeIterator<Item = &'k String>) -> crate::column::Column {
    let mut column = ColumnBuilder::new(Type::Text, keys.len());
    keys.for_each(|key| column.bytes(key.as_bytes()));
    column.finish()
}
