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
    /// By time and key: whether the timer is to be set or deleted.
    timers: BTreeMap<(i64, String), bool>,
    /// What the current record did to the timers before.
    timers_undo: Vec<((i64, String), Option<bool>)>,
}

#[derive(Clone, Debug)]
struct Slot<R> {
    row: Option<R>,
    dirty: bool,
}

impl<R: Row> Rows<R> {
    pub(super) fn new() -> Self {
        Self {
            cached: BTreeMap::new(),
            undo: Vec::new(),
            columns: declared::<R>(),
            failure: None,
            timers: BTreeMap::new(),
            timers_undo: Vec::new(),
        }
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

    /// Sets a timer of stream time, of a plugin that names a `timer` function: it is called when a record advances stream time to `time` or beyond, before that
    /// record. There is one timer for each time and key.
    pub fn set_timer(&mut self, time: i64, key: &str) {
        self.timer(time, key, true);
    }

    /// Deletes a timer, if it is set.
    pub fn delete_timer(&mut self, time: i64, key: &str) {
        self.timer(time, key, false);
    }

    fn timer(&mut self, time: i64, key: &str, set: bool) {
        let timer = (time, key.to_owned());
        let before = self.timers.insert(timer.clone(), set);
        self.timers_undo.push((timer, before));
    }

    pub(super) fn has_timers(&self) -> bool {
        !self.timers.is_empty()
    }

    /// The timers to set and to delete.
    pub(super) fn take_timers(&mut self) -> (Vec<(i64, String)>, Vec<(i64, String)>) {
        let (set, deleted): (Vec<_>, Vec<_>) = std::mem::take(&mut self.timers).into_iter().partition(|(_, set)| *set);
        let timers = |timers: Vec<((i64, String), bool)>| timers.into_iter().map(|(timer, _)| timer).collect();
        (timers(set), timers(deleted))
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
            self.timers_undo.clear();
        }
        while let Some((timer, before)) = self.timers_undo.pop() {
            match before {
                Some(set) => self.timers.insert(timer, set),
                None => self.timers.remove(&timer),
            };
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
pub(super) fn texts<'k>(keys: impl ExactSizeIterator<Item = &'k String>) -> crate::column::Column {
    let mut column = ColumnBuilder::new(Type::Text, keys.len());
    keys.for_each(|key| column.bytes(key.as_bytes()));
    column.finish()
}
