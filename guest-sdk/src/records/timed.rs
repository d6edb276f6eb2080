//! Timers of transforms with rows.

use super::rows::{Row, Rows};
use super::stateful::{Stateful, Stored, texts};
use super::{Output, Sink};
use crate::column::Column;
use crate::field::Field;
use crate::plugin::Timed;
use crate::timers;
use crate::verdict::{Derived, Outcome, Verdict};

/// A timer that is due.
#[derive(Clone, Copy, Debug)]
pub struct Timer<'a> {
    /// What it was set to, milliseconds: stream time is there or beyond.
    pub time: i64,
    pub key: &'a str,
}

/// Hands what was set and deleted to the host.
pub(super) fn flush<R: Row>(rows: &mut Rows<R>) {
    let (set, deleted) = rows.take_timers();
    let columns = |timers: &[(i64, String)]| -> (Vec<i64>, Column) {
        (timers.iter().map(|(time, _)| *time).collect(), texts(timers.iter().map(|(_, key)| key)))
    };
    if !set.is_empty() {
        let (times, keys) = columns(&set);
        timers::set_many(&times, &keys);
    }
    if !deleted.is_empty() {
        let (times, keys) = columns(&deleted);
        timers::delete_many(&times, &keys);
    }
}

impl<T: Stored> Timed for Stateful<T> {
    fn fire(&mut self, times: Vec<i64>, keys: Column) -> Result<Verdict, String> {
        let due: Vec<(i64, &str)> = times
            .iter()
            .enumerate()
            .map(|(row, time)| (*time, std::str::from_utf8(keys.bytes(row).unwrap_or_default()).unwrap_or_default()))
            .collect();
        let mut rows = Rows::new();
        rows.fetch(due.iter().map(|(_, key)| (*key).to_owned()).collect());
        let mut sink = Sink::new(self.outputs(), due.len());
        for (row, (time, key)) in due.iter().enumerate() {
            sink.open(row);
            let result = T::fired(self.config(), Timer { time: *time, key }, &mut rows, &mut sink);
            let result = result.and_then(|()| rows.failure().map_or(Ok(()), |failure| Err(super::Reject::new(failure))));
            // There is no record that could be refused.
            if let Some(reject) = sink.close_timer(result) {
                return Err(format!("a timer cannot be refused: {}", reject.reason));
            }
            rows.close(true);
        }
        rows.flush();
        flush(&mut rows);
        let mut verdict = sink.finish(false, due.len());
        if let Outcome::Derive(outputs) = &mut verdict.outcome {
            outputs.iter_mut().for_each(|derived| complete(derived, &due, &self.outputs()[derived.output]));
        }
        Ok(verdict)
    }
}

/// What an answer does not say is the timer's: its key and its time.
fn complete(derived: &mut Derived, due: &[(i64, &str)], output: &Output) {
    let writes = |wanted: &Field| output.columns.iter().any(|column| column.path == *wanted);
    if !writes(&Field::Key) {
        let mut keys = crate::column::ColumnBuilder::new(crate::column::Type::Bytes, derived.source.len());
        derived.source.iter().for_each(|row| keys.bytes(due[*row as usize].1.as_bytes()));
        derived.keys = Some(keys.finish());
    }
    if !writes(&Field::Timestamp) {
        derived.timestamps = Some(derived.source.iter().map(|row| due[*row as usize].0).collect());
    }
}
