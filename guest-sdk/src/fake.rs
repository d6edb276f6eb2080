//! In place of the host on native targets: stores, tables and a log of this thread. `testing` opens and shows them.

use crate::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use crate::describe::{Description, Schema};
use crate::verdict::{Found, Page};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A value of a row, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Json(String),
}

impl Value {
    pub fn of(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Bool(value) => Self::Bool(value),
            Cell::Int(value) => Self::Int(value),
            Cell::Float(value) => Self::Float(value),
            Cell::Text(text) => Self::Text(text.to_owned()),
            Cell::Blob(bytes) => Self::Bytes(bytes.to_owned()),
            Cell::Json(text) => Self::Json(text.to_owned()),
        }
    }

    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int(value) => Cell::Int(*value),
            Self::Float(value) => Cell::Float(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Bytes(bytes) => Cell::Blob(bytes),
            Self::Json(text) => Cell::Json(text),
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: u8,
    pub row: Option<u32>,
    pub message: String,
}

/// A store, or a table: rows by encoded key.
#[derive(Clone, Debug)]
pub struct Rows {
    pub name: String,
    pub key: Type,
    pub fields: Vec<(String, Type)>,
    pub rows: BTreeMap<Vec<u8>, (Value, Vec<Value>)>,
}

impl Rows {
    fn find(&self, keys: &Column) -> Found {
        let rows = rows(keys);
        let mut present = Bitmap::filled(rows, false);
        let mut fields: Vec<_> = self.fields.iter().map(|(_, kind)| ColumnBuilder::new(*kind, rows)).collect();
        for row in 0..rows {
            let found = encode(keys.cell(row)).and_then(|key| self.rows.get(&key));
            if found.is_some() {
                present.set(row);
            }
            for (place, field) in fields.iter_mut().enumerate() {
                field.cell(found.map_or(Cell::Null, |(_, values)| values[place].cell()));
            }
        }
        Found { present, fields: fields.into_iter().map(ColumnBuilder::finish).collect() }
    }
}

#[derive(Clone, Default)]
struct Host {
    stores: Vec<Rows>,
    tables: Vec<Rows>,
    log: Vec<Line>,
    /// Of the batch under way.
    stream_times: Vec<i64>,
    late: Vec<u32>,
    /// By time and encoded key.
    timers: BTreeMap<(i64, Vec<u8>), Value>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Opens empty stores and tables as a plugin described them; what was there before on this thread is gone, the log too.
pub fn open(description: &Description, tables: &BTreeMap<String, Schema>) {
    let stores = description.stores.iter().map(|store| Rows {
        name: store.name.clone(),
        key: store.key,
        fields: store.fields.iter().map(|field| (field.name.clone(), field.kind)).collect(),
        rows: BTreeMap::new(),
    });
    let tables = description.tables.iter().map(|name| Rows {
        name: name.clone(),
        key: Type::Text,
        fields: tables[name].fields.iter().map(|field| (field.path.to_string(), field.kind)).collect(),
        rows: BTreeMap::new(),
    });
    HOST.set(Host { stores: stores.collect(), tables: tables.collect(), ..Host::default() });
}

/// A look at a store; None if there is none.
pub fn store<R>(index: u32, look: impl FnOnce(&mut Rows) -> R) -> Option<R> {
    HOST.with_borrow_mut(|host| host.stores.get_mut(index as usize).map(look))
}

/// A look at a table; None if there is none of that name.
pub fn table<R>(name: &str, look: impl FnOnce(&mut Rows) -> R) -> Option<R> {
    HOST.with_borrow_mut(|host| host.tables.iter_mut().find(|table| table.name == name).map(look))
}

/// What was logged since `open`.
pub fn lines() -> Vec<Line> {
    HOST.with_borrow(|host| host.log.clone())
}

/// A batch begins: rows of these times, the first one at this stream time.
pub fn begin(stream_time: i64, timestamps: &[i64]) {
    HOST.with_borrow_mut(|host| {
        host.late.clear();
        host.stream_times = timestamps
            .iter()
            .scan(stream_time, |highest, time| {
                let before = *highest;
                *highest = before.max(*time);
                Some(before)
            })
            .collect();
    });
}

/// Rows of the last batch that the plugin said to be late.
pub fn late_rows() -> Vec<u32> {
    HOST.with_borrow(|host| host.late.clone())
}

/// All that the host holds, to be put back.
pub struct Snapshot(Host);

pub fn snapshot() -> Snapshot {
    HOST.with_borrow(|host| Snapshot(host.clone()))
}

pub fn restore(snapshot: &Snapshot) {
    HOST.set(snapshot.0.clone());
}

/// The timers that are set, in order.
pub fn timers() -> Vec<(i64, Value)> {
    HOST.with_borrow(|host| host.timers.iter().map(|((time, _), key)| (*time, key.clone())).collect())
}

/// Takes away what is due at this stream time.
pub fn take_due(stream_time: i64) -> Vec<(i64, Value)> {
    HOST.with_borrow_mut(|host| {
        let later = host.timers.split_off(&(stream_time.saturating_add(1), Vec::new()));
        std::mem::replace(&mut host.timers, later).into_iter().map(|((time, _), key)| (time, key)).collect()
    })
}

/// Keys in the order in which the host keeps them; None for null.
pub fn encode(key: Cell<'_>) -> Option<Vec<u8>> {
    match key {
        Cell::Int(value) => Some((value ^ i64::MIN).to_be_bytes().to_vec()),
        Cell::Text(text) => Some(text.as_bytes().to_vec()),
        Cell::Blob(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

fn rows(column: &Column) -> usize {
    use crate::column::Values;
    match &column.values {
        Values::Ints(values) => values.len(),
        Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => strings.len(),
        Values::Floats(values) => values.len(),
        Values::Bools(_) => panic!("a key is text, int or bytes"),
    }
}

fn opened<R>(store: u32, keys: &Column, work: impl FnOnce(&mut Rows) -> R) -> R {
    self::store(store, |rows| {
        assert_eq!(rows.key, keys.kind(), "the keys of store {store} (`{}`) have another type", rows.name);
        work(rows)
    })
    .unwrap_or_else(|| panic!("there is no store {store}: `describe` declares none at this place, or `testing` did not open it"))
}

pub(crate) fn get_many(store: u32, keys: &Column) -> Found {
    opened(store, keys, |store| store.find(keys))
}

pub(crate) fn put_many(store: u32, keys: Column, fields: Vec<Column>) {
    opened(store, &keys, |store| {
        let kinds: Vec<_> = fields.iter().map(Column::kind).collect();
        let declared: Vec<_> = store.fields.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, declared, "the columns put into the store `{}` are not those it was described with", store.name);
        for row in 0..rows(&keys) {
            let key = encode(keys.cell(row)).expect("a key that is put is not null");
            let values = fields.iter().map(|field| Value::of(field.cell(row))).collect();
            store.rows.insert(key, (Value::of(keys.cell(row)), values));
        }
    });
}

pub(crate) fn delete_many(store: u32, keys: &Column) {
    opened(store, keys, |store| {
        for row in 0..rows(keys) {
            store.rows.remove(&encode(keys.cell(row)).expect("a key that is deleted is not null"));
        }
    });
}

pub(crate) fn scan(store: u32, low: &Column, high: &Column, limit: u32) -> Page {
    opened(store, low, |store| {
        let low = encode(low.cell(0)).expect("the low end of a scan is not null");
        let high = encode(high.cell(0)).expect("the high end of a scan is not null");
        let mut keys = ColumnBuilder::new(store.key, 0);
        let mut fields: Vec<_> = store.fields.iter().map(|(_, kind)| ColumnBuilder::new(*kind, 0)).collect();
        let mut more = false;
        if low < high {
            for (key, values) in store.rows.range(low..high).map(|(_, row)| row) {
                if keys.rows() == limit as usize {
                    more = true;
                    break;
                }
                keys.cell(key.cell());
                for (field, value) in fields.iter_mut().zip(values) {
                    field.cell(value.cell());
                }
            }
        }
        Page { keys: keys.finish(), fields: fields.into_iter().map(ColumnBuilder::finish).collect(), more }
    })
}

pub(crate) fn lookup(table: u32, rows: &[u32], keys: &Column) -> Found {
    assert_eq!(rows.len(), self::rows(keys), "a look-up names a row of the batch for each key");
    HOST.with_borrow(|host| match host.tables.get(table as usize) {
        Some(table) => table.find(keys),
        None => panic!("there is no table {table}: `describe` names none at this place, or `testing` did not open it"),
    })
}

pub(crate) fn log(level: u8, row: Option<u32>, message: &str) {
    HOST.with_borrow_mut(|host| host.log.push(Line { level, row, message: message.to_owned() }));
}

pub(crate) fn stream_times() -> Vec<i64> {
    HOST.with_borrow(|host| host.stream_times.clone())
}

pub(crate) fn late(rows: &[u32]) {
    HOST.with_borrow_mut(|host| {
        assert!(rows.is_sorted_by(|a, b| a < b), "late rows are strictly increasing");
        assert!(rows.iter().all(|row| (*row as usize) < host.stream_times.len()), "a late row is one of the batch");
        host.late.extend_from_slice(rows);
    });
}

fn each_timer(times: &[i64], keys: &Column, mut work: impl FnMut(&mut Host, (i64, Vec<u8>), Value)) {
    assert_eq!(times.len(), rows(keys), "a timer has a time and a key");
    HOST.with_borrow_mut(|host| {
        for (row, time) in times.iter().enumerate() {
            let key = encode(keys.cell(row)).expect("a timer's key is not null");
            work(host, (*time, key), Value::of(keys.cell(row)));
        }
    });
}

pub(crate) fn set_timers(times: &[i64], keys: &Column) {
    each_timer(times, keys, |host, timer, key| drop(host.timers.insert(timer, key)));
}

pub(crate) fn delete_timers(times: &[i64], keys: &Column) {
    each_timer(times, keys, |host, timer, _| drop(host.timers.remove(&timer)));
}
