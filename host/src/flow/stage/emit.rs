//! Results that come of no record: rows of closed windows, and rows that changed since the last commit, are handed to the plugin, which makes
//! results of them.
//!
//! A closed window takes no rows, so it does not matter when in a batch it is handed over: its results stand before the record whose time closed it,
//! wherever batches end.

use super::{CallFailure, Shared, Stage};
use crate::column::{Bitmap, ColumnBuilder, Type};
use crate::field::Field;
use crate::flow::batch::{Base, Batch, GivenKeys, Held, HeldHeaders, Origin, Slot};
use crate::flow::kept::{self, KeptRows};
use crate::flow::plan::{Plan, SourcePlan};
use crate::flow::reject::Rejected;
use crate::io::LogError;
use crate::key;
use crate::pipeline::{KeyFormat, Source};
use crate::plugin::describe::Occasion;
use crate::plugin::{CallError, Outcome, Verdict};
use crate::record::Headers;
use crate::store::Handed;
use std::sync::{Arc, PoisonError};

/// Rows that are handed over in one call.
const ROWS: usize = 1000;

/// When results are given that come of no record.
#[derive(Clone, Copy, Debug)]
pub enum Give {
    /// Of windows that this stream time closes.
    Closed(i64),
    /// Of rows that changed since the last commit.
    Changed,
    /// Of timers that this stream time makes due.
    Due(i64),
}

impl Stage {
    /// The indices of stores whose rows are handed over.
    fn handing(&self, occasion: Occasion) -> Vec<usize> {
        let stores = self.description.stores.iter().enumerate();
        stores.filter(|(_, store)| store.emits.contains(&occasion)).map(|(index, _)| index).collect()
    }

    /// Whether it may have something to hand over.
    pub fn gives(&self, give: Give) -> bool {
        let occasion = match give {
            Give::Closed(_) => Occasion::Closed,
            Give::Changed => Occasion::Changed,
            Give::Due(_) => return self.description.timers.is_some(),
        };
        self.description.stores.iter().any(|store| store.emits.contains(&occasion))
    }

    /// The stream time at which every window is closed that is open now; None if there is none whose rows are handed over.
    pub fn closes_all(&mut self) -> Result<Option<i64>, LogError> {
        let Some(window) = self.description.window else { return Ok(None) };
        let (mut last, closed_below) = (None, self.closed_below);
        for store in self.handing(Occasion::Closed) {
            last = last.max(self.stores(|stores| stores[store].last_window(closed_below))?);
        }
        Ok(last.map(|last| window.closes(last)))
    }

    /// Hands over what is due. A batch for each output, whose rows stand before the records that they come of.
    pub fn give(
        &mut self,
        give: Give,
        origin: &Arc<Origin>,
        plan: &Plan,
        source: &Source,
        rejected: &mut Vec<Rejected>,
    ) -> Result<Vec<Option<Batch>>, CallFailure> {
        let source_plan = &plan.sources[origin.source];
        let mut parts: Vec<Vec<Batch>> = vec![Vec::new(); self.description.outputs.len()];
        match (give, self.description.window) {
            (Give::Closed(stream_time), Some(window)) => {
                let below = window.open_from(stream_time);
                let from = std::mem::replace(&mut self.closed_below, below);
                // Between two starts nothing closes.
                let same =
                    !window.session && (below - 1).div_euclid(window.advance()) == (from.saturating_sub(1)).div_euclid(window.advance());
                if below <= from || same {
                    return Ok(vec![None; parts.len()]);
                }
                for store in self.handing(Occasion::Closed) {
                    loop {
                        let handed = self.stores(|stores| stores[store].windows(from, below, ROWS));
                        let handed = handed.map_err(|message| self.failed(CallError::Trapped(message), origin, 0))?;
                        if handed.is_empty() {
                            break;
                        }
                        let rows = handed.times().map(|time| closing_row(origin, stream_time, window.closes(time))).collect();
                        self.hand_over(store, Occasion::Closed, &handed, origin, rows, source_plan, source, &mut parts)?;
                        self.stores(|stores| stores[store].drop_handed(&handed));
                        if handed.len() < ROWS {
                            break;
                        }
                    }
                }
            }
            (Give::Closed(_), None) => {}
            (Give::Due(stream_time), _) => self.fire(stream_time, origin, source_plan, &mut parts)?,
            (Give::Changed, _) => {
                for store in self.handing(Occasion::Changed) {
                    let changed = self.stores(|stores| stores[store].changed(ROWS));
                    for handed in changed.map_err(|message| self.failed(CallError::Trapped(message), origin, 0))? {
                        let rows = vec![0; handed.len()];
                        self.hand_over(store, Occasion::Changed, &handed, origin, rows, source_plan, source, &mut parts)?;
                    }
                }
            }
        }
        let mut outputs = Vec::with_capacity(parts.len());
        for parts in parts {
            let (merged, errors) = Batch::merge(parts, source_plan.format, &source_plan.wanted);
            self.refuse_writes(errors, origin, rejected);
            self.counters.rows_out += merged.as_ref().map_or(0, |batch| batch.rows as u64);
            outputs.push(merged);
        }
        Ok(outputs)
    }

    #[allow(clippy::too_many_arguments)]
    fn hand_over(
        &mut self,
        store: usize,
        occasion: Occasion,
        handed: &Handed,
        origin: &Arc<Origin>,
        rows: Vec<u32>,
        source_plan: &SourcePlan,
        source: &Source,
        parts: &mut [Vec<Batch>],
    ) -> Result<(), CallFailure> {
        let first = rows.first().map_or(0, |row| *row as usize);
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).begin(origin.clone(), rows.clone());
        let answer = self.prepare().and_then(|()| match &mut self.instance {
            Some(instance) => instance.emit(store, occasion, &handed.keys, &handed.fields, &mut self.services),
            None => Err(CallError::Trapped("there is no instance".to_owned())),
        });
        let verdict = answer.map_err(|error| self.failed(error, origin, first))?;
        self.counters.calls += 1;
        let format = self.key_format(store, source);
        let kept = self.tells_rows.then(|| kept::handed(self.index, store, handed, occasion == Occasion::Closed));
        self.take_given(verdict, origin, rows, (format, kept), source_plan, parts);
        Ok(())
    }

    /// Makes batches of what the plugin derived of rows, or timers, that were given to it: each stands before a record. With the format of keys, and the rows of
    /// stores that results are of.
    pub(super) fn take_given(
        &self,
        verdict: Verdict,
        origin: &Arc<Origin>,
        rows: Vec<u32>,
        (format, kept): (KeyFormat, Option<KeptRows>),
        source_plan: &SourcePlan,
        parts: &mut [Vec<Batch>],
    ) {
        let Outcome::Derive(outputs) = verdict.outcome else { return };
        let given = Batch {
            rows: rows.len(),
            origin: origin.clone(),
            from: Some(Arc::new(rows)),
            base: Base::Empty,
            changes: Vec::new(),
            fields: vec![Slot::Missing; source_plan.wanted.len()],
            keys: None,
            // Those of the record that closes a window are not the result's.
            headers: Some(HeldHeaders { headers: Arc::new(Headers::default()), index: None }),
            times: None,
            tombstones: None,
            kept,
        };
        for derived in outputs.into_iter().filter(|derived| !derived.source.is_empty()) {
            let output = derived.output;
            let mut batch = self.derive(derived, &given, None, source_plan);
            batch.keys = batch.keys.map(|keys| in_format(keys, format));
            parts[output].push(batch);
        }
    }

    pub(super) fn failed(&mut self, error: CallError, origin: &Arc<Origin>, row: usize) -> CallFailure {
        self.reset();
        CallFailure { stage: self.index, error: self.withheld(error), origin: origin.clone(), rows: (row, row) }
    }

    /// How the keys of results are written: as the record's, where they are the record's.
    fn key_format(&self, store: usize, source: &Source) -> KeyFormat {
        let own = self.description.stores[store].by == [Field::Key];
        let kind = self.request.input.fields.iter().find(|field| own && field.path == Field::Key).map(|field| field.kind);
        match (kind, source.key) {
            (Some(Type::Int), KeyFormat::Int32 | KeyFormat::Int64) | (Some(Type::Json), KeyFormat::Json) => source.key,
            _ => KeyFormat::Text,
        }
    }
}

/// The record that closes a window: the first after which stream time is there.
fn closing_row(origin: &Origin, stream_time: i64, closes: i64) -> u32 {
    debug_assert!(closes <= stream_time);
    let after = origin.stream_times.get(1..).unwrap_or_default();
    after.partition_point(|after| *after < closes).min(origin.stream_times.len().saturating_sub(1)) as u32
}

/// A plugin's keys are texts; where they stand for the source's own, they are written as those.
fn in_format(keys: GivenKeys, format: KeyFormat) -> GivenKeys {
    // No row is marked: all are in the source's format.
    let own = || (Arc::new(Bitmap::default()), None);
    match format {
        KeyFormat::Int32 | KeyFormat::Int64 => {}
        KeyFormat::Json => return GivenKeys { texts: own(), ..keys },
        KeyFormat::Text | KeyFormat::Bytes => return keys,
    }
    let rows = crate::store::rows_of_column(&keys.held.column);
    let mut column = ColumnBuilder::new(Type::Bytes, rows);
    for row in 0..rows {
        match keys.held.column.bytes(row).map(|text| key::convert(text, KeyFormat::Text, format)) {
            Some(Ok(bytes)) => column.bytes(&bytes),
            _ => column.null(),
        }
    }
    GivenKeys { held: Held::new(column.finish()), texts: own() }
}

impl Shared {
    /// A call begins, about these records.
    pub(super) fn begin(&mut self, origin: Arc<Origin>, from: Vec<u32>) {
        self.place = Some((origin, from));
        self.late.clear();
    }
}
