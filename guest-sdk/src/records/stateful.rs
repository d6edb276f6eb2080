//! Transforms with a store of typed rows.

use super::member::{Cursor, Declared, Prepared, declared};
pub(super) use super::rows::texts;
use super::rows::{Row, Rows};
use super::{Output, Reject, Sink, Transform, description, each_row, place_of};
use crate::column::Cell;
use crate::describe::{Description, Mistake, OutputKey, Store, Timers};
use crate::field::Field;
use crate::plugin::{Batch, Plugin, Setup};
use crate::verdict::Verdict;
use std::collections::BTreeSet;

/// The keys that a record will ask for, beside its own.
#[derive(Debug, Default)]
pub struct Keys(BTreeSet<String>);

impl Keys {
    pub fn add(&mut self, key: impl Into<String>) {
        self.0.insert(key.into());
    }
}

/// A transform that keeps rows by key.
pub trait Stored: Transform {
    type Row: Row;
    /// The fields that make a record's own key.
    const BY: &'static [&'static str];
    /// Announces keys, so that they are fetched with those of the whole batch.
    fn keys(_row: &mut Cursor<'_, '_>, _keys: &mut Keys) -> Result<(), Reject> {
        Ok(())
    }
    /// Whether there is a function for timers.
    const TIMED: bool = false;
    /// The ways from older types of its rows.
    fn migrations() -> Vec<super::Migration<Self::Row>> {
        Vec::new()
    }
    /// A timer is due.
    fn fired(_config: &Self::Config, _timer: super::Timer<'_>, _rows: &mut Rows<Self::Row>, _sink: &mut Sink) -> Result<(), Reject> {
        Err(Reject::new("the plugin has no function for timers"))
    }
    /// `key` is the record's own.
    fn record(
        config: &Self::Config,
        row: &mut Cursor<'_, '_>,
        key: &str,
        rows: &mut Rows<Self::Row>,
        sink: &mut Sink,
    ) -> Result<(), Reject>;
}

/// The plugin of a [`Stored`].
#[derive(Debug)]
pub struct Stateful<T: Transform> {
    config: T::Config,
    reads: Vec<Declared>,
    /// Of the key's fields in `reads`.
    by: Vec<usize>,
    outputs: Vec<Output>,
}

fn reads<T: Stored>() -> (Vec<Declared>, Vec<usize>) {
    let mut reads = T::reads();
    let by: Vec<_> = T::BY.iter().map(|field| place_of::<&str>(&mut reads, field)).collect();
    (reads, by)
}

impl<T: Stored> Plugin for Stateful<T> {
    const NAME: &'static str = T::NAME;
    const VERSION: &'static str = T::VERSION;
    const SUMMARY: &'static str = T::SUMMARY;
    type Config = T::Config;

    fn describe(_: &Setup<T::Config>) -> Result<Description, Vec<Mistake>> {
        let (reads, by) = reads::<T>();
        let mut description = description::<T>(&reads)?;
        description.stores = vec![Store {
            name: String::new(),
            key: crate::column::Type::Text,
            fields: declared::<T::Row>().iter().map(super::migrate::field).collect(),
            by: by.iter().map(|place| reads[*place].path.clone()).collect(),
            windowed: false,
            emits: Vec::new(),
            migrates: super::migrate::listed::<T>(),
        }];
        if T::TIMED {
            description.timers = description.stores.first().map(|store| Timers { key: store.key, by: store.by.clone() });
            if description.timers.as_ref().is_some_and(|timers| timers.by != [Field::Key]) {
                // What a timer makes has the timer's key.
                description.outputs.iter_mut().for_each(|output| output.key = OutputKey::Text);
            }
        }
        Ok(description)
    }

    fn init(setup: Setup<T::Config>) -> Result<Self, String> {
        let (reads, by) = reads::<T>();
        Ok(Self { config: setup.config, reads, by, outputs: T::outputs() })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        let columns = Prepared::all(&batch.fields)?;
        let mut keys = Keys::default();
        let own: Vec<_> = (0..batch.rows).map(|row| self.own_key(&columns, row)).collect();
        for (row, key) in own.iter().enumerate() {
            crate::log::set_current_row(Some(row as u32));
            if let Ok(key) = key {
                keys.add(key.as_str());
                // What is wrong with the record is said when it is worked on.
                let _ = T::keys(&mut Cursor::new(&columns, &self.reads, row), &mut keys);
            }
        }
        let mut rows = Rows::new();
        rows.fetch(keys.0);
        let verdict = each_row::<T>(&self.outputs, batch.rows, |row, sink| {
            let result = own[row].as_ref().map_err(Reject::clone).and_then(|key| {
                T::record(&self.config, &mut Cursor::new(&columns, &self.reads, row), key, &mut rows, sink)?;
                rows.failure().map_or(Ok(()), |failure| Err(Reject::new(failure)))
            });
            let taken = sink.close(result);
            rows.close(taken);
        });
        rows.flush();
        // Where there is no function for timers, the component does not import them.
        if T::TIMED {
            super::timed::flush(&mut rows);
        } else if rows.has_timers() {
            return Err("it sets timers, but names no function for them: `timer = function`".to_owned());
        }
        Ok(verdict)
    }

    fn fire_in_test(&mut self, times: Vec<i64>, keys: crate::column::Column) -> Result<Verdict, String> {
        crate::plugin::Timed::fire(self, times, keys)
    }
}

impl<T: Stored> Stateful<T> {
    pub(super) fn config(&self) -> &T::Config {
        &self.config
    }

    pub(super) fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// One field: its text. Several: a JSON object in the order of `BY`.
    fn own_key(&self, columns: &[Prepared<'_>], row: usize) -> Result<String, Reject> {
        let mut key = serde_json::Map::new();
        for place in &self.by {
            let path = &self.reads[*place].path;
            let value: serde_json::Value = match columns[*place].cell(row) {
                Cell::Null => return Err(Reject::new(format!("`{path}` is null, and part of the key"))),
                Cell::Bool(value) => value.into(),
                Cell::Int(value) => value.into(),
                Cell::Float(value) => value.into(),
                Cell::Text(text) if self.by.len() == 1 => return Ok(text.to_owned()),
                Cell::Text(text) => text.into(),
                Cell::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
                Cell::Blob(_) => return Err(Reject::new(format!("`{path}` is bytes, and no part of a key"))),
            };
            if self.by.len() == 1 {
                return Ok(value.to_string());
            }
            key.insert(path.to_string(), value);
        }
        Ok(serde_json::Value::Object(key).to_string())
    }
}
