//! State stores of a task: typed rows by key, in layers: the batch under way, the open transaction, the transaction in flight, committed rows that
//! wait for the next checkpoint, committed rows in memory, the committed state below. Reads see the newest; what is not committed never gets below.

mod cache;
pub mod changelog;
mod handed;
mod local;
mod partitioned;
pub(crate) mod row;
mod rows;
#[cfg(test)]
mod scan_model;
mod sweep;
mod table;
pub mod turn;
#[cfg(test)]
mod turn_tests;
pub mod types;

pub use handed::Handed;
pub use local::{LocalFolder, LocalMemory};
pub use partitioned::{PartitionedTable, store_of};
pub use row::Row;
pub use sweep::Swept;
pub use table::{GlobalTable, TableView};
pub use turn::Migrate;
pub use types::{RowType, RowTypes, StoreTypes};

use crate::column::{Cell, Column, ColumnBuilder, Type, Values};
use crate::io::{CommittedState, LogError, StateRows, StateWrites};
use crate::plugin::describe::{Store, Window};
use crate::plugin::{Found, Page};
use cache::{Cache, size_of};
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::ops::Bound;
use std::sync::Arc;
use sweep::Sweep;
use turn::Way;

type Key = Vec<u8>;
type Layer = BTreeMap<Key, Option<Vec<u8>>>;

/// Committed rows kept in memory, bytes of all stores of a pipeline on a host, shared evenly by their tasks.
pub const CACHE_BYTES: usize = 64 << 20;
/// A store of a task.
pub struct StateStore {
    name: Arc<str>,
    task: i32,
    key: Type,
    fields: Vec<Type>,
    window: Option<Window>,
    /// Of its rows: what they are now, by its number, and how those of others become that.
    described: Arc<Store>,
    types: Arc<RowTypes>,
    number: u8,
    ways: BTreeMap<u8, Result<(Arc<RowType>, Arc<Way>), String>>,
    migrate: Option<Box<dyn Migrate>>,
    /// Rows of other types are none: they can be made anew of something else.
    strict: bool,
    sweep: Sweep,
    committed: Arc<dyn CommittedState>,
    /// Writes of the batch under way: dropped if it fails.
    batch: Layer,
    /// Writes since the last commit.
    open: Layer,
    /// Writes of the commit in flight.
    in_flight: Layer,
    /// Committed rows that the state below does not have yet; only with `write_back`.
    dirty: Layer,
    dirty_bytes: usize,
    /// The commit does not reach the state below: a checkpoint does.
    write_back: bool,
    cache: Cache,
    /// Every window that starts below is already dropped.
    dropped_below: i64,
    /// Stands on the rows of another store: what it has once seen or written is its own.
    apart: bool,
    /// Of a store apart: there is nothing below.
    alone: bool,
}

impl StateStore {
    /// `window`: of the stage, for a store that is windowed. `types`: of its rows; that of the description is among them.
    pub fn new(
        name: &str,
        task: i32,
        described: &Store,
        window: Option<Window>,
        committed: Arc<dyn CommittedState>,
        types: Arc<RowTypes>,
    ) -> Self {
        Self {
            name: name.into(),
            task,
            key: described.key,
            fields: described.fields.iter().map(|field| field.kind).collect(),
            window: window.filter(|_| described.windowed),
            number: types.find(RowType::of(&described.fields).text()).unwrap_or_default(),
            described: Arc::new(described.clone()),
            types,
            ways: BTreeMap::new(),
            migrate: None,
            strict: false,
            sweep: Sweep::default(),
            committed,
            batch: Layer::new(),
            open: Layer::new(),
            in_flight: Layer::new(),
            dirty: Layer::new(),
            dirty_bytes: 0,
            write_back: false,
            cache: Cache::new(CACHE_BYTES),
            dropped_below: i64::MIN,
            apart: false,
            alone: false,
        }
    }

    /// A row is copied when it is first read, and never asked for again; nothing that is written leaves the store. `alone`: there are no rows below.
    pub fn apart(mut self, alone: bool) -> Self {
        self.apart = true;
        self.alone = alone;
        self.write_back = true;
        self.cache = Cache::new(0);
        self
    }

    /// Of a store apart: keeps what was written.
    pub fn settle_apart(&mut self) {
        self.in_flight = mem::take(&mut self.open);
        self.committed();
    }

    /// Of a store apart: has these rows from now on.
    pub fn adopt(&mut self, rows: StateRows) {
        for (key, row) in rows {
            self.dirty_bytes += size_of(key.len(), Some(&row));
            self.dirty.insert(key, Some(row));
        }
    }

    /// Of a store apart: forgets its rows of windows that are closed, which are dropped below too; and that a row is gone that is not below.
    pub fn trim_apart(&mut self, stream_time: i64) {
        if let Some(window) = self.window {
            let open_from = encode_int(window.open_from(stream_time));
            self.dirty = self.dirty.split_off(open_from.as_slice());
        }
        if self.alone {
            self.dirty.retain(|_, row| row.is_some());
        }
        self.dirty_bytes = self.dirty.iter().map(|(key, row)| size_of(key.len(), row.as_ref())).sum();
    }

    /// Committed rows stay in memory until a checkpoint writes them.
    pub fn write_back(mut self) -> Self {
        self.write_back = true;
        self
    }

    /// Keeps at most so many bytes of committed rows in memory.
    pub fn cached(mut self, bytes: usize) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// Takes no rows of other types.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Rows of the types that the description lists go through this.
    pub fn migrating(mut self, migrate: Option<Box<dyn Migrate>>) -> Self {
        self.migrate = migrate;
        self
    }

    /// Goes on with rows as they are described now: with the same key and windows. Nothing may be in the batch under way, or in the open transaction.
    pub fn succeed(mut self, described: &Store) -> Self {
        debug_assert!(self.batch.is_empty() && self.open.is_empty(), "rows of the type before are not committed yet");
        self.ways.clear();
        self.migrate = None;
        self.described = Arc::new(described.clone());
        self.fields = described.fields.iter().map(|field| field.kind).collect();
        let number = self.types.find(RowType::of(&described.fields).text()).unwrap_or_default();
        if number != self.number {
            self.number = number;
            self.sweep = Sweep::default();
        }
        self
    }

    /// Rows are written as they are described, from now on. It is told where that is kept.
    pub fn begin(&self) -> Result<(), LogError> {
        self.types.writes(self.number)
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The encoded row of an encoded key, newest layer first.
    pub fn read(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        for layer in [&self.batch, &self.open, &self.in_flight, &self.dirty] {
            if let Some(row) = layer.get(key) {
                return Ok(row.clone());
            }
        }
        if let Some(row) = self.cache.get(key) {
            return Ok(row);
        }
        let row = self.committed.get(&self.name, self.task, key)?;
        if self.apart {
            self.dirty_bytes += size_of(key.len(), row.as_ref());
            self.dirty.insert(key.to_vec(), row.clone());
        } else {
            self.cache.insert(key.to_vec(), row.clone());
        }
        Ok(row)
    }

    pub fn get_many(&mut self, keys: &Column) -> Result<Found, String> {
        let rows = rows_of(keys, self.key, &self.name)?;
        let mut found = row::FoundBuilder::new(&self.fields, rows);
        for at in 0..rows {
            let key = self.encoded(keys, at)?;
            match self.read(&key).map_err(|error| error.message)? {
                Some(bytes) if !self.is_current(&bytes) => return self.get_older(keys, rows),
                Some(bytes) => found.push(&self.decode(&bytes)?),
                None => found.absent(),
            }
        }
        Ok(found.finish())
    }

    /// As `get_many`, where a row is of an older type: those are turned all at once.
    fn get_older(&mut self, keys: &Column, rows: usize) -> Result<Found, String> {
        let (mut there, mut read) = (Vec::with_capacity(rows), Vec::new());
        for at in 0..rows {
            let key = self.encoded(keys, at)?;
            let row = self.read(&key).map_err(|error| error.message)?;
            there.push(row.is_some());
            read.extend(row.map(|row| (key, row)));
        }
        self.turn(&mut read)?;
        let mut found = row::FoundBuilder::new(&self.fields, rows);
        let mut read = read.iter();
        for there in there {
            match there.then(|| read.next()).flatten() {
                Some((_, row)) => found.push(&self.decode(row)?),
                None => found.absent(),
            }
        }
        Ok(found.finish())
    }

    /// A row of the type that is described.
    fn decode(&self, row: &[u8]) -> Result<Row, String> {
        Row::decode(row::split(row).1, &self.fields).ok_or_else(|| self.broken())
    }

    /// A row as it is stored.
    pub fn encode<'a>(&self, cells: impl Iterator<Item = Cell<'a>>) -> Vec<u8> {
        row::encode(self.number, cells)
    }

    pub fn put_many(&mut self, keys: &Column, fields: &[Column]) -> Result<(), String> {
        let rows = rows_of(keys, self.key, &self.name)?;
        if fields.len() != self.fields.len() || fields.iter().zip(&self.fields).any(|(column, kind)| column.kind() != *kind) {
            return Err(format!("the rows of store `{}` have other columns", self.name));
        }
        for at in 0..rows {
            let key = self.encoded(keys, at)?;
            if self.window.is_some() {
                self.dropped_below = self.dropped_below.min(time_of(&key).unwrap_or(i64::MIN));
            }
            let row = self.encode(fields.iter().map(|column| column.cell(at)));
            self.batch.insert(key, Some(row));
        }
        Ok(())
    }

    pub fn delete_many(&mut self, keys: &Column) -> Result<(), String> {
        for at in 0..rows_of(keys, self.key, &self.name)? {
            let key = self.encoded(keys, at)?;
            self.batch.insert(key, None);
        }
        Ok(())
    }

    /// The row of an encoded key.
    pub fn row(&mut self, key: &[u8]) -> Result<Option<Row>, String> {
        match self.read(key).map_err(|error| error.message)? {
            Some(bytes) if self.is_current(&bytes) => self.decode(&bytes).map(Some),
            Some(bytes) => {
                let mut rows = [(key.to_vec(), bytes)];
                self.turn(&mut rows)?;
                self.decode(&rows[0].1).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Writes the encoded row of an encoded key; None deletes it.
    pub fn set(&mut self, key: Vec<u8>, row: Option<Vec<u8>>) {
        self.batch.insert(key, row);
    }

    pub fn scan(&mut self, low: &Column, high: &Column, limit: u32) -> Result<Page, String> {
        if rows_of(low, self.key, &self.name)? != 1 || rows_of(high, self.key, &self.name)? != 1 {
            return Err("a range has one low and one high key".to_owned());
        }
        let (low, high) = (self.encoded(low, 0)?, self.encoded(high, 0)?);
        let limit = limit as usize;
        let mut rows = self.range(&low, Some(&high), limit.saturating_add(1)).map_err(|error| error.message)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        self.turn(&mut rows)?;
        let mut keys = ColumnBuilder::new(self.key, rows.len());
        let mut found = row::FoundBuilder::new(&self.fields, rows.len());
        for (key, bytes) in &rows {
            match self.key {
                Type::Int => keys.int(decode_int(key).ok_or_else(|| self.broken())?),
                _ => keys.bytes(key),
            }
            found.push(&self.decode(bytes)?);
        }
        Ok(Page { keys: keys.finish(), fields: found.finish().fields, more })
    }

    /// Encoded rows with low <= key < high (None: to the end), newest layer first.
    pub fn range(&self, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        if high.is_some_and(|high| low >= high) {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(low), high.map_or(Bound::Unbounded, Bound::Excluded));
        let mut changed = Layer::new();
        for layer in [&self.dirty, &self.in_flight, &self.open, &self.batch] {
            changed.extend(layer.range::<[u8], _>(bounds).map(|(key, row)| (key.clone(), row.clone())));
        }
        // Each deleted row may hide a committed one: read so many more.
        let hidden = changed.values().filter(|row| row.is_none()).count();
        let below = self.committed.scan(&self.name, self.task, low, high, limit.saturating_add(hidden))?;
        let cut = (below.len() == limit.saturating_add(hidden)).then(|| below.last().map(|(key, _)| key.clone())).flatten();
        let mut rows: BTreeMap<Key, Vec<u8>> = below.into_iter().collect();
        for (key, row) in changed {
            match row {
                // Beyond what was read of the committed rows the order is not known yet.
                Some(_) if cut.as_ref().is_some_and(|cut| key > *cut) => {}
                Some(row) => drop(rows.insert(key, row)),
                None => drop(rows.remove(&key)),
            }
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    fn encoded(&self, keys: &Column, at: usize) -> Result<Key, String> {
        match keys.cell(at) {
            Cell::Int(value) => Ok(encode_int(value).to_vec()),
            Cell::Text(text) => Ok(text.as_bytes().to_vec()),
            Cell::Blob(bytes) => Ok(bytes.to_vec()),
            _ => Err(format!("a key of store `{}` is null", self.name)),
        }
    }

    fn broken(&self) -> String {
        format!(
            "a row of store `{}` does not have the columns that the plugin describes: was the pipeline changed? start it under another name",
            self.name
        )
    }

    /// Whether the batch has written or deleted the row of an encoded key, or it is there.
    pub fn holds(&mut self, key: &[u8]) -> bool {
        self.batch.contains_key(key) || self.read(key).is_ok_and(|row| row.is_some())
    }

    /// The keys with a time that the batch has written rows of, by what stands behind the time; None where there are several.
    pub fn written_behind_times(&self) -> HashMap<Vec<u8>, Option<Key>> {
        let mut found = HashMap::new();
        for (key, _) in self.batch.iter().filter(|(_, row)| row.is_some()) {
            if let Some(rest) = key.get(8..) {
                found.entry(rest.to_vec()).and_modify(|one| *one = None).or_insert_with(|| Some(key.clone()));
            }
        }
        found
    }

    /// Keeps what the batch wrote.
    pub fn keep_batch(&mut self) {
        self.open.append(&mut self.batch);
    }

    /// Whether the batch wrote nothing yet.
    pub fn is_clean(&self) -> bool {
        self.batch.is_empty()
    }

    /// Drops what the batch wrote.
    pub fn drop_batch(&mut self) {
        self.batch.clear();
    }

    /// Drops everything that is not committed.
    pub fn abort(&mut self) {
        self.batch.clear();
        self.open.clear();
        self.in_flight.clear();
        // What was in flight may have been committed all the same.
        self.cache = Cache::new(self.cache.bytes);
        self.dropped_below = i64::MIN;
        self.sweep = Sweep::default();
    }

    /// Drops rows of windows that `stream_time` has closed: not all at once, but more than are written meanwhile.
    pub fn expire(&mut self, stream_time: i64) -> Result<(), LogError> {
        let Some(window) = self.window else { return Ok(()) };
        let open_from = window.open_from(stream_time);
        if open_from <= self.dropped_below {
            return Ok(());
        }
        // Who writes a row for each record has as many to drop.
        let most = 1000 + 2 * self.open.len();
        let closed = self.range(&encode_int(self.dropped_below), Some(&encode_int(open_from)), most)?;
        let last = closed.last().and_then(|(key, _)| time_of(key));
        self.dropped_below = if closed.len() < most { open_from } else { last.unwrap_or(self.dropped_below) };
        for (key, _) in closed {
            self.open.insert(key, None);
        }
        Ok(())
    }

    /// Hands over what is to be committed.
    pub fn begin_commit(&mut self) -> Option<StateWrites> {
        if self.open.is_empty() {
            return None;
        }
        self.in_flight = mem::take(&mut self.open);
        let rows = self.in_flight.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
        Some(StateWrites { store: self.name.clone(), task: self.task, rows })
    }

    /// The commit is through.
    pub fn committed(&mut self) {
        for (key, row) in mem::take(&mut self.in_flight) {
            if self.write_back {
                self.cache.remove(&key);
                let length = key.len();
                self.dirty_bytes += size_of(length, row.as_ref());
                if let Some(before) = self.dirty.insert(key, row) {
                    self.dirty_bytes = self.dirty_bytes.saturating_sub(size_of(length, before.as_ref()));
                }
            } else {
                self.cache.insert(key, row);
            }
        }
        self.swept();
    }

    /// Bytes of committed rows that wait for a checkpoint.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Hands over the committed rows that wait for a checkpoint.
    pub fn take_dirty(&mut self) -> Vec<changelog::Written> {
        self.dirty_bytes = 0;
        mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Rows that a checkpoint has written: they may leave memory now.
    pub fn checkpointed(&mut self, rows: Vec<changelog::Written>) {
        for (key, row) in rows {
            self.cache.insert(key, row);
        }
    }
}

/// The rows of a column of keys of any type.
pub fn rows_of_column(keys: &Column) -> usize {
    match &keys.values {
        Values::Ints(values) => values.len(),
        Values::Texts(strings) | Values::Blobs(strings) => strings.len(),
        _ => 0,
    }
}

/// The rows of a column of keys, if it is one.
fn rows_of(keys: &Column, kind: Type, store: &str) -> Result<usize, String> {
    match &keys.values {
        Values::Ints(values) if kind == Type::Int => Ok(values.len()),
        Values::Texts(strings) if kind == Type::Text => Ok(strings.len()),
        Values::Blobs(strings) if kind == Type::Bytes => Ok(strings.len()),
        _ => Err(format!("the keys of store `{store}` are of type {kind}, not {}", keys.kind())),
    }
}

/// The rows of a column of a table's keys.
fn texts(keys: &Column, table: &str) -> Result<usize, String> {
    match &keys.values {
        Values::Texts(texts) => Ok(texts.len()),
        _ => Err(format!("the keys of table `{table}` are asked as text, not {}", keys.kind())),
    }
}

/// In the order of numbers: sign flipped, big-endian.
pub fn encode_int(value: i64) -> [u8; 8] {
    (value as u64 ^ 1 << 63).to_be_bytes()
}

/// The time that a windowed key begins with.
fn time_of(key: &[u8]) -> Option<i64> {
    decode_int(key.get(..8)?)
}

pub fn decode_int(key: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(key.try_into().ok()?) ^ 1 << 63) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Strings;
    use crate::plugin::describe::StoreField;
    use std::sync::Mutex;

    fn text_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Column {
        let mut strings = Strings::default();
        for key in keys {
            strings.push(key.as_bytes());
        }
        Column { values: Values::Texts(strings), validity: Default::default() }
    }

    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<Key, Vec<u8>>>);

    impl CommittedState for Memory {
        fn get(&self, _: &str, _: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }

        fn scan(&self, _: &str, _: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<crate::io::StateRows, LogError> {
            let rows = self.0.lock().unwrap();
            let inside = rows.range(low.to_vec()..).take_while(|(key, _)| high.is_none_or(|high| key.as_slice() < high));
            Ok(inside.take(limit).map(|(key, row)| (key.clone(), row.clone())).collect())
        }

        fn keep_row_types(&self, _: &str, _: &[u8]) -> Result<(), LogError> {
            Ok(())
        }
    }

    fn described() -> Store {
        let fields = vec![StoreField { name: "n".to_owned(), kind: Type::Int, nullable: false, default: None }];
        Store { name: String::new(), key: Type::Text, fields, by: Vec::new(), windowed: false, emits: Vec::new(), migrates: Vec::new() }
    }

    fn ints(values: &[i64]) -> Vec<Column> {
        vec![Column { values: Values::Ints(values.to_vec()), validity: Default::default() }]
    }

    fn read(store: &mut StateStore, key: &str) -> Option<i64> {
        let found = store.get_many(&text_keys([key])).unwrap();
        match found.fields[0].cell(0) {
            Cell::Int(value) if found.present.get(0) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn layers_are_read_newest_first_and_dropped_alone() {
        let memory = Arc::new(Memory::default());
        memory.0.lock().unwrap().insert(b"a".to_vec(), row::encode(0, [Cell::Int(1)].into_iter()));
        let mut store = StateStore::new("s", 0, &described(), None, memory, RowTypes::in_memory("s"));
        assert_eq!(read(&mut store, "a"), Some(1));
        store.put_many(&text_keys(["a", "b", "b"]), &ints(&[2, 3, 4])).unwrap();
        assert_eq!((read(&mut store, "a"), read(&mut store, "b")), (Some(2), Some(4)));
        store.drop_batch();
        assert_eq!((read(&mut store, "a"), read(&mut store, "b")), (Some(1), None));
        store.put_many(&text_keys(["a"]), &ints(&[5])).unwrap();
        store.keep_batch();
        assert_eq!(store.begin_commit().unwrap().rows.len(), 1);
        store.delete_many(&text_keys(["a"])).unwrap();
        assert_eq!(read(&mut store, "a"), None);
        store.drop_batch();
        assert_eq!(read(&mut store, "a"), Some(5), "in flight");
        store.abort();
        assert_eq!(read(&mut store, "a"), Some(1), "an abort goes back to what is committed");
    }

    #[test]
    fn ranges_see_all_layers() {
        let memory = Arc::new(Memory::default());
        for key in ["a", "c", "e", "g"] {
            memory.0.lock().unwrap().insert(key.as_bytes().to_vec(), row::encode(0, [Cell::Int(0)].into_iter()));
        }
        let mut store = StateStore::new("s", 0, &described(), None, memory, RowTypes::in_memory("s"));
        store.put_many(&text_keys(["b", "e", "z"]), &ints(&[1, 2, 3])).unwrap();
        store.keep_batch();
        store.delete_many(&text_keys(["a", "c"])).unwrap();
        for limit in 1..5 {
            let page = store.scan(&text_keys(["a"]), &text_keys(["h"]), limit).unwrap();
            let keys: Vec<_> = (0..limit.min(3) as usize).map(|row| page.keys.cell(row)).collect();
            assert_eq!(keys, [Cell::Text("b"), Cell::Text("e"), Cell::Text("g")][..keys.len()], "limit {limit}");
            assert_eq!(page.more, limit < 3, "limit {limit}");
        }
    }

    #[test]
    fn rows_of_windows_are_found_by_their_time() {
        let key = |time: i64, rest: &[u8]| [&encode_int(time)[..], rest].concat();
        let blobs = |keys: &[Vec<u8>]| {
            let mut strings = Strings::default();
            keys.iter().for_each(|key| strings.push(key));
            Column { values: Values::Blobs(strings), validity: Default::default() }
        };
        let memory = Arc::new(Memory::default());
        for time in [-5, 10, 20] {
            memory.0.lock().unwrap().insert(key(time, b"a"), row::encode(0, [Cell::Int(time)].into_iter()));
        }
        let described = Store { key: Type::Bytes, windowed: true, ..described() };
        let mut store = StateStore::new("s", 0, &described, Some(Window::tumbling(10, 0)), memory, RowTypes::in_memory("s"));
        assert_eq!((store.first_time(i64::MIN).unwrap(), store.last_window(0).unwrap()), (Some(-5), Some(20)));
        store.delete_many(&blobs(&[key(-5, b"a"), key(20, b"a"), key(7, b"never there")])).unwrap();
        store.keep_batch();
        store.put_many(&blobs(&[key(15, b"b"), key(10, b"b")]), &ints(&[1, 2])).unwrap();
        assert_eq!(
            (store.first_time(i64::MIN).unwrap(), store.first_time(11).unwrap(), store.first_time(16).unwrap()),
            (Some(10), Some(15), None)
        );
        assert_eq!((store.last_window(i64::MIN).unwrap(), store.last_window(16).unwrap()), (Some(15), None));
        let closed = store.windows(i64::MIN, 15, 1000).unwrap();
        assert_eq!((closed.times().collect::<Vec<_>>(), closed.keys.bytes(1)), (vec![10, 10], Some(&key(10, b"b")[..])));
        assert_eq!(store.windows(i64::MIN, 15, 1).unwrap().len(), 1);
        store.drop_handed(&closed);
        assert!(store.windows(i64::MIN, 15, 1000).unwrap().is_empty());
        let changed: Vec<usize> = store.changed(1000).unwrap().iter().map(Handed::len).collect();
        assert_eq!(changed, [1], "what is gone did not change");
        store.drop_batch();
        assert_eq!(store.first_time(i64::MIN).unwrap(), Some(10), "with the batch, what was handed over is there again");
    }

    #[test]
    fn closed_windows_are_dropped_faster_than_rows_are_written() {
        let memory = Arc::new(Memory::default());
        let described = Store { key: Type::Bytes, windowed: true, ..described() };
        let mut store = StateStore::new("s", 0, &described, Some(Window::tumbling(10, 0)), memory.clone(), RowTypes::in_memory("s"));
        let mut commit = |times: std::ops::Range<i64>, stream_time: i64| {
            let mut keys = Strings::default();
            times.clone().for_each(|time| keys.push(&encode_int(time)));
            store
                .put_many(&Column { values: Values::Blobs(keys), validity: Default::default() }, &ints(&times.collect::<Vec<_>>()))
                .unwrap();
            store.keep_batch();
            store.expire(stream_time).unwrap();
            let mut rows = memory.0.lock().unwrap();
            for (key, row) in store.begin_commit().map(|writes| writes.rows).unwrap_or_default() {
                match row {
                    Some(row) => drop(rows.insert(key, row)),
                    None => drop(rows.remove(&key)),
                }
            }
            store.committed();
            rows.len()
        };
        // Each commit writes 5000 rows and closes as many: one is behind, no more.
        for round in 0..10 {
            let left = commit(round * 5000..(round + 1) * 5000, round * 5000 + 9);
            assert!(left <= 5000, "round {round}: {left} rows");
        }
        assert!(commit(50_000..50_001, 60_010) >= 3000, "with few rows written, few are dropped");
        for _ in 0..5 {
            commit(0..0, 60_010);
        }
        assert_eq!(commit(0..0, 60_010), 0);
        // What a plugin writes where all is closed is dropped too.
        assert_eq!((commit(7..8, 60_010), commit(0..0, 60_010)), (0, 0));
    }

    #[test]
    fn encoded_ints_sort_as_numbers() {
        let values = [i64::MIN, -2, -1, 0, 1, i64::MAX];
        assert!(values.is_sorted_by_key(|value| encode_int(*value)));
        assert!(values.iter().all(|value| decode_int(&encode_int(*value)) == Some(*value)));
    }
}
