//! What a guest may call, and what its store holds: the limits of the call under way and the services lent to it.

use super::budget;
use super::convert;
use crate::column::Column;
use crate::plugin::bindings::millstream::plugin::{log, state, tables, timers, types, windows};
use crate::plugin::describe::Description;
use crate::plugin::{CallError, Found, Limits, Page, Services, verify};
use std::sync::Arc;
use std::time::Duration;

/// The level at which the SDK's panic hook says what happened before it traps.
const PANIC: u8 = 5;
/// `row` of a message about none.
const NO_ROW: u32 = u32::MAX;
/// Bytes of a message; the rest is cut off.
const MESSAGE: usize = 8 << 10;
/// Elements of all tables: more than any language's runtime needs.
pub const TABLE_ELEMENTS: usize = 100_000;

/// The data of a guest's store.
pub struct Data {
    limits: Limits,
    /// The thread's CPU time at which the call's budget is used up.
    cpu_end: Duration,
    /// Bytes of all linear memories.
    memory: usize,
    /// Why the host stopped the guest: goes before what wasmtime says.
    failure: Option<CallError>,
    panic: Option<(String, Option<u32>)>,
    /// None while the guest has no stores and tables: outside `process`.
    description: Option<Arc<Description>>,
    rows: usize,
    pub services: Box<dyn Services>,
}

impl Data {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            cpu_end: Duration::ZERO,
            memory: 0,
            failure: None,
            panic: None,
            description: None,
            rows: 0,
            services: Box::new(Absent),
        }
    }

    /// A call begins, on this thread.
    pub fn begin(&mut self) {
        self.cpu_end = budget::thread_cpu().saturating_add(self.limits.cpu);
        self.failure = None;
        self.panic = None;
    }

    /// A batch begins: state and tables may be used.
    pub fn open(&mut self, description: &Arc<Description>, rows: usize) {
        self.description = Some(description.clone());
        self.rows = rows;
    }

    /// Why the call that just ended in an error failed, if the host knows better than wasmtime.
    pub fn take_failure(&mut self) -> Option<CallError> {
        let panicked = |(message, row)| CallError::Panicked { message, row };
        self.failure.take().or_else(|| self.panic.take().map(panicked))
    }

    /// At a tick: whether the guest may go on.
    pub fn within_budget(&mut self) -> wasmtime::Result<()> {
        if budget::thread_cpu() < self.cpu_end { Ok(()) } else { self.stop(CallError::OutOfTime(self.limits.cpu)) }
    }

    /// Notes why and traps the guest.
    fn stop<T>(&mut self, failure: CallError) -> wasmtime::Result<T> {
        let error = wasmtime::Error::msg(failure.to_string());
        self.failure = Some(failure);
        Err(error)
    }

    fn misuse<T>(&mut self, used: Result<T, String>) -> wasmtime::Result<T> {
        used.or_else(|message| self.stop(CallError::Trapped(message)))
    }

    fn get(&mut self, store: u32, keys: &Column) -> Result<Found, String> {
        self.checked_keys(store, keys, None)?;
        self.services.get_many(store, keys)
    }

    fn put(&mut self, store: u32, keys: Column, fields: Vec<Column>) -> Result<(), String> {
        let description = self.checked_keys(store, &keys, None)?;
        let described = &description.stores[store as usize];
        if fields.len() != described.fields.len() {
            return Err(format!("a row of store {store} has {} fields, {} are given", described.fields.len(), fields.len()));
        }
        verify::rows_of_store(&fields, &described.fields, verify::rows(&keys)).map_err(|error| format!("store {store}, {error}"))?;
        self.services.put_many(store, keys, fields)
    }

    fn delete(&mut self, store: u32, keys: Column) -> Result<(), String> {
        self.checked_keys(store, &keys, None)?;
        self.services.delete_many(store, keys)
    }

    fn page(&mut self, store: u32, low: &Column, high: &Column, limit: u32) -> Result<Page, String> {
        self.checked_keys(store, low, Some(1))?;
        self.checked_keys(store, high, Some(1))?;
        self.services.scan(store, low, high, limit)
    }

    fn look_up(&mut self, table: u32, rows: &[u32], keys: &Column) -> Result<Found, String> {
        let description = self.described("tables")?;
        let count = description.tables.len();
        if table as usize >= count {
            return Err(format!("table {table} is used, {count} are described"));
        }
        verify::column(keys, keys.kind(), rows.len()).map_err(|error| format!("table {table}, keys: {error}"))?;
        if let Some(row) = rows.iter().find(|row| **row as usize >= self.rows) {
            return Err(format!("table {table} is asked for row {row}, the batch has {} rows", self.rows));
        }
        self.services.lookup(table, rows, keys)
    }

    fn late_rows(&mut self, rows: &[u32]) -> Result<(), String> {
        let description = self.described("windows")?;
        if !description.window.is_some_and(|window| window.session) {
            return Err("rows are said to be late, but that is the plugin's to tell only of sessions".to_owned());
        }
        if !rows.is_sorted_by(|a, b| a < b) || rows.last().is_some_and(|row| *row as usize >= self.rows) {
            return Err("rows that are said to be late must rise strictly, and be rows of the batch".to_owned());
        }
        self.services.late(rows)
    }

    fn change_timers(&mut self, times: &[i64], keys: &Column, set: bool) -> Result<(), String> {
        let description = self.described("timers")?;
        let Some(described) = &description.timers else {
            return Err("timers are used, but none are described".to_owned());
        };
        verify::column_without_nulls(keys, described.key, times.len()).map_err(|error| format!("timers, keys: {error}"))?;
        self.services.change_timers(times, keys, set)
    }

    fn described(&self, what: &str) -> Result<Arc<Description>, String> {
        self.description.clone().ok_or_else(|| format!("{what} can be used only while a batch is processed"))
    }

    /// Keys of a store that exists; how many, if that is fixed.
    fn checked_keys(&self, store: u32, keys: &Column, rows: Option<usize>) -> Result<Arc<Description>, String> {
        let description = self.described("state")?;
        let Some(described) = description.stores.get(store as usize) else {
            return Err(format!("store {store} is used, {} are described", description.stores.len()));
        };
        verify::column_without_nulls(keys, described.key, rows.unwrap_or_else(|| verify::rows(keys)))
            .map_err(|error| format!("store {store}, keys: {error}"))?;
        Ok(description)
    }
}

impl types::Host for Data {}

impl state::Host for Data {
    fn get_many(&mut self, store: u32, keys: types::ColumnResult) -> wasmtime::Result<types::Found> {
        let found = self.get(store, &convert::column(keys));
        self.misuse(found).map(convert::give_found)
    }

    fn put_many(&mut self, store: u32, keys: types::ColumnResult, fields: Vec<types::ColumnResult>) -> wasmtime::Result<()> {
        let done = self.put(store, convert::column(keys), fields.into_iter().map(convert::column).collect());
        self.misuse(done)
    }

    fn delete_many(&mut self, store: u32, keys: types::ColumnResult) -> wasmtime::Result<()> {
        let done = self.delete(store, convert::column(keys));
        self.misuse(done)
    }

    fn scan(&mut self, store: u32, low: types::ColumnResult, high: types::ColumnResult, limit: u32) -> wasmtime::Result<state::Page> {
        let page = self.page(store, &convert::column(low), &convert::column(high), limit);
        self.misuse(page).map(convert::give_page)
    }
}

impl tables::Host for Data {
    fn lookup(&mut self, table: u32, rows: Vec<u32>, keys: types::ColumnResult) -> wasmtime::Result<types::Found> {
        let found = self.look_up(table, &rows, &convert::column(keys));
        self.misuse(found).map(convert::give_found)
    }
}

impl windows::Host for Data {
    fn stream_times(&mut self) -> wasmtime::Result<Vec<i64>> {
        let times = self.described("windows").and_then(|_| self.services.stream_times());
        self.misuse(times)
    }

    fn late(&mut self, rows: Vec<u32>) -> wasmtime::Result<()> {
        let done = self.late_rows(&rows);
        self.misuse(done)
    }
}

impl timers::Host for Data {
    fn set_many(&mut self, times: Vec<i64>, keys: types::ColumnResult) -> wasmtime::Result<()> {
        let done = self.change_timers(&times, &convert::column(keys), true);
        self.misuse(done)
    }

    fn delete_many(&mut self, times: Vec<i64>, keys: types::ColumnResult) -> wasmtime::Result<()> {
        let done = self.change_timers(&times, &convert::column(keys), false);
        self.misuse(done)
    }
}

impl log::Host for Data {
    fn write(&mut self, level: u8, row: u32, mut message: String) -> wasmtime::Result<()> {
        message.truncate(message.floor_char_boundary(MESSAGE));
        let row = Some(row).filter(|row| *row != NO_ROW && (*row as usize) < self.rows);
        if level == PANIC {
            self.panic = Some((message, row));
        } else {
            // Levels above are of a later contract: an error is the highest there is.
            self.services.log(level.min(PANIC - 1), row, &message);
        }
        Ok(())
    }
}

impl wasmtime::ResourceLimiter for Data {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let memory = self.memory.saturating_sub(current).saturating_add(desired);
        if memory > self.limits.memory {
            return self.stop(CallError::OutOfMemory(self.limits.memory));
        }
        self.memory = memory;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

/// The services outside of a call. State and tables are refused before they come here; messages of `describe` and `init` are dropped, since
/// they are about no record and may hold secrets.
struct Absent;

const ABSENT: &str = "there are no services outside of a call";

impl Services for Absent {
    fn get_many(&mut self, _: u32, _: &Column) -> Result<Found, String> {
        Err(ABSENT.to_owned())
    }

    fn put_many(&mut self, _: u32, _: Column, _: Vec<Column>) -> Result<(), String> {
        Err(ABSENT.to_owned())
    }

    fn delete_many(&mut self, _: u32, _: Column) -> Result<(), String> {
        Err(ABSENT.to_owned())
    }

    fn scan(&mut self, _: u32, _: &Column, _: &Column, _: u32) -> Result<Page, String> {
        Err(ABSENT.to_owned())
    }

    fn lookup(&mut self, _: u32, _: &[u32], _: &Column) -> Result<Found, String> {
        Err(ABSENT.to_owned())
    }

    fn log(&mut self, _: u8, _: Option<u32>, _: &str) {}
}
