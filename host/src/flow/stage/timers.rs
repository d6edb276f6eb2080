//! A stage's timers: rows of a store behind the plugin's own, in the order of time, then of key.

use super::{CallFailure, Stage, StageServices};
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::flow::batch::{Batch, Origin};
use crate::flow::kept;
use crate::flow::plan::SourcePlan;
use crate::io::LogError;
use crate::pipeline::KeyFormat;
use crate::plugin::CallError;
use crate::store::{decode_int, encode_int};
use std::sync::{Arc, PoisonError};

/// Timers of one call.
const TIMERS: usize = 1000;

impl Stage {
    /// The time of the earliest timer, of those too that were deleted since it was last asked for: one record may have set it and a later one deleted it,
    /// with one between that makes it due.
    pub fn next_timer(&mut self) -> Result<Option<i64>, LogError> {
        let place = self.description.stores.len();
        if self.description.timers.is_none() {
            return Ok(None);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let first = shared.stores[place].first_time(shared.timers_from)?;
        shared.timers_from = first.unwrap_or(i64::MAX);
        Ok([first, shared.touched.take()].into_iter().flatten().min())
    }

    /// Hands over what is due. What is set meanwhile is not due yet, hence all are taken first.
    pub(super) fn fire(
        &mut self,
        stream_time: i64,
        origin: &Arc<Origin>,
        source_plan: &SourcePlan,
        parts: &mut [Vec<Batch>],
    ) -> Result<(), CallFailure> {
        let place = self.description.stores.len();
        let Some(kind) = self.description.timers.as_ref().map(|timers| timers.key) else { return Ok(()) };
        let mut due = Vec::new();
        loop {
            let piece = self.stores(|stores| {
                let piece = stores[place].windows(i64::MIN, stream_time.saturating_add(1), TIMERS)?;
                stores[place].drop_handed(&piece);
                Ok(piece)
            });
            let piece = piece.map_err(|message: String| self.failed(CallError::Trapped(message), origin, 0))?;
            let last = piece.len() < TIMERS;
            due.push(piece);
            if last {
                break;
            }
        }
        for piece in due.into_iter().filter(|piece| !piece.is_empty()) {
            let times: Vec<i64> = piece.times().collect();
            let keys = keys_of(&piece.keys, times.len(), kind);
            let rows = vec![0; times.len()];
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).begin(origin.clone(), rows.clone());
            let answer = self.prepare().and_then(|()| match &mut self.instance {
                Some(instance) => instance.fire(&times, &keys, &mut self.services),
                None => Err(CallError::Trapped("there is no instance".to_owned())),
            });
            let verdict = answer.map_err(|error| self.failed(error, origin, 0))?;
            self.counters.calls += 1;
            let kept = self.tells_rows.then(|| kept::unknown(self.index, rows.len()));
            self.take_given(verdict, origin, rows, (KeyFormat::Text, kept), source_plan, parts);
        }
        Ok(())
    }
}

/// The plugin's keys, behind the times.
fn keys_of(stored: &Column, rows: usize, kind: Type) -> Column {
    let mut keys = ColumnBuilder::new(kind, rows);
    for row in 0..rows {
        let key = stored.bytes(row).and_then(|key| key.get(8..)).unwrap_or_default();
        match kind {
            Type::Int => keys.int(decode_int(key).unwrap_or_default()),
            _ => keys.bytes(key),
        }
    }
    keys.finish()
}

impl StageServices {
    pub(super) fn timers(&mut self, times: &[i64], keys: &Column, set: bool) -> Result<(), String> {
        let mut stored = ColumnBuilder::new(Type::Bytes, times.len());
        for (row, time) in times.iter().enumerate() {
            let mut key = encode_int(*time).to_vec();
            match keys.cell(row) {
                Cell::Int(value) => key.extend(encode_int(value)),
                Cell::Text(text) => key.extend(text.as_bytes()),
                Cell::Blob(bytes) => key.extend(bytes),
                _ => return Err("a timer's key is null".to_owned()),
            }
            stored.bytes(&key);
        }
        let stored = stored.finish();
        self.with(|shared| {
            let Some(timers) = shared.stores.last_mut() else { return Err("there are no timers".to_owned()) };
            shared.touched = times.iter().copied().chain(shared.touched).min();
            if !set {
                return timers.delete_many(&stored);
            }
            shared.timers_from = times.iter().copied().fold(shared.timers_from, i64::min);
            timers.put_many(&stored, &[])
        })
    }
}
