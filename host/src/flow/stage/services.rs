//! What a stage's plugin may use during a call: its stores, tables, time and log.

use super::Origin;
use crate::column::Column;
use crate::io::{CommittedState, LogError, StateRows};
use crate::plugin::{Found, Page, Services};
use crate::store::{StateStore, TableView};
use std::sync::{Arc, Mutex, PoisonError};

/// What the stage's plugin may use during a call.
pub(super) struct Shared {
    pub(super) stores: Vec<StateStore>,
    pub(super) tables: Vec<TableView>,
    /// Where the rows of the call come from.
    pub(super) place: Option<(Arc<Origin>, Vec<u32>)>,
    /// Rows of the call that its plugin said to be late.
    pub(super) late: Vec<u32>,
    /// There is no timer below.
    pub(super) timers_from: i64,
    /// The earliest timer that was set or deleted since it was last asked for.
    pub(super) touched: Option<i64>,
}

pub(super) struct StageServices {
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) pipeline: String,
    pub(super) stage: String,
    pub(super) topics: Vec<Arc<str>>,
    /// Whether the plugin's log may be shown.
    pub(super) exposed: bool,
}

impl StageServices {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn store<T>(&self, store: u32, work: impl FnOnce(&mut StateStore) -> Result<T, String>) -> Result<T, String> {
        self.with(|shared| match shared.stores.get_mut(store as usize) {
            Some(store) => work(store),
            None => Err(format!("there is no store {store}: `describe` names {}", shared.stores.len())),
        })
    }
}

impl Services for StageServices {
    fn get_many(&mut self, store: u32, keys: &Column) -> Result<Found, String> {
        self.store(store, |store| store.get_many(keys))
    }

    fn put_many(&mut self, store: u32, keys: Column, fields: Vec<Column>) -> Result<(), String> {
        self.store(store, |store| store.put_many(&keys, &fields))
    }

    fn delete_many(&mut self, store: u32, keys: Column) -> Result<(), String> {
        self.store(store, |store| store.delete_many(&keys))
    }

    fn scan(&mut self, store: u32, low: &Column, high: &Column, limit: u32) -> Result<Page, String> {
        self.store(store, |store| store.scan(low, high, limit))
    }

    fn lookup(&mut self, table: u32, _rows: &[u32], keys: &Column) -> Result<Found, String> {
        self.with(|shared| match shared.tables.get(table as usize) {
            Some(table) => table.lookup(keys),
            None => Err(format!("there is no table {table}: `describe` names {}", shared.tables.len())),
        })
    }

    fn stream_times(&mut self) -> Result<Vec<i64>, String> {
        self.with(|shared| match &shared.place {
            Some((origin, from)) => Ok(from.iter().map(|row| origin.stream_times[*row as usize]).collect()),
            None => Err("no batch is under way".to_owned()),
        })
    }

    fn change_timers(&mut self, times: &[i64], keys: &Column, set: bool) -> Result<(), String> {
        self.timers(times, keys, set)
    }

    fn late(&mut self, rows: &[u32]) -> Result<(), String> {
        self.with(|shared| shared.late.extend_from_slice(rows));
        Ok(())
    }

    fn log(&mut self, level: u8, row: Option<u32>, message: &str) {
        let place = row.and_then(|row| {
            self.with(|shared| {
                let (origin, from) = shared.place.as_ref()?;
                let row = *from.get(row as usize)? as usize;
                let (source, partition, offset) = origin.place(row);
                Some((self.topics.get(source)?.clone(), partition, offset))
            })
        });
        let place = place.map(|(topic, partition, offset)| format!("{topic}/{partition}@{offset}")).unwrap_or_default();
        let message = if self.exposed { message } else { "message withheld (`log: unsafe` shows it)" };
        let (pipeline, stage) = (&self.pipeline, &self.stage);
        match level {
            0 => tracing::trace!(target: "millstream::plugin", pipeline, stage, record = place, "{message}"),
            1 => tracing::debug!(target: "millstream::plugin", pipeline, stage, record = place, "{message}"),
            2 => tracing::info!(target: "millstream::plugin", pipeline, stage, record = place, "{message}"),
            3 => tracing::warn!(target: "millstream::plugin", pipeline, stage, record = place, "{message}"),
            _ => tracing::error!(target: "millstream::plugin", pipeline, stage, record = place, "{message}"),
        }
    }
}

/// A store of a stage as it is now, what is not committed included, as the ground of another's.
pub struct Below {
    pub(super) name: Arc<str>,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) index: usize,
}

impl Below {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn with<T>(&self, work: impl FnOnce(&mut StateStore) -> Result<T, LogError>) -> Result<T, LogError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone where the task has turned to another generation: its shadow goes with it.
        let gone = || LogError::stop(format!("the store `{}` is gone", self.name));
        work(shared.stores.get_mut(self.index).ok_or_else(gone)?)
    }
}

impl CommittedState for Below {
    fn get(&self, _: &str, _: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.with(|store| store.read(key))
    }

    fn scan(&self, _: &str, _: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        self.with(|store| store.range(low, high, limit))
    }

    // Whoever stands on it keeps nothing.
    fn row_types(&self, _: &str) -> Result<Option<Vec<u8>>, LogError> {
        Ok(None)
    }

    fn keep_row_types(&self, _: &str, _: &[u8]) -> Result<(), LogError> {
        Ok(())
    }
}
