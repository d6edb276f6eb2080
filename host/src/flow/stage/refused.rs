//! Rows that a stage refuses, before its plugin sees them or because it says so.

use super::Stage;
use crate::column::Bitmap;
use crate::flow::batch::{Batch, Origin, Slot, WriteError};
use crate::flow::plan::{Plan, ReadFrom};
use crate::flow::reject::{LATE, Rejected, Shown};
use crate::flow::source::with_place;
use crate::format::{FieldError, Format};
use std::sync::Arc;

/// Row, code, reason.
type Reason = (usize, &'static str, String);

impl Stage {
    /// Marks records that take more than a quarter of the stage's memory: a guest holds a few copies of what it gets.
    pub(super) fn check_sizes(&self, batch: &Batch, refused: &mut Bitmap, reasons: &mut Vec<Reason>) {
        let most = self.limits.memory / 4;
        if batch.origin.records.bytes() <= most {
            return;
        }
        for row in 0..batch.rows {
            let origin = batch.origin_row(row);
            let (key, value) = (batch.origin.records.keys.bytes(origin), batch.origin.records.values.bytes(origin));
            let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            if size > most && !refused.get(row) {
                refused.set(row);
                let reason =
                    format!("the record has {size} bytes, more than a quarter of the stage's memory; raise `limits: {{ memory: ... }}`");
                reasons.push((row, "too_large", reason));
            }
        }
    }

    /// Marks rows with a field that could not be decoded, or is required and missing.
    pub(super) fn check_reads(&self, batch: &Batch, plan: &Plan, refused: &mut Bitmap, reasons: &mut Vec<Reason>) {
        for (read, described) in plan.reads[self.index].iter().zip(&self.description.reads) {
            let ReadFrom::Slot(slot) = read else { continue };
            let of_input = |row: usize| described.input.is_none() || described.input == self.input_of(batch, row);
            match &batch.fields[*slot] {
                Slot::Held(held) => {
                    if held.errors.is_none() && (!described.required || held.column.validity.0.is_empty()) {
                        continue;
                    }
                    for row in 0..batch.rows {
                        if refused.get(row) || !of_input(row) {
                            continue;
                        }
                        if let Some(FieldError { code, message, at, .. }) = held.error(row) {
                            refused.set(row);
                            reasons.push((row, code, with_place(&format!("field `{}`: {message}", described.path), *at)));
                        } else if described.required && held.column.is_null(held.view().row(row)) && !batch.is_tombstone(row) {
                            refused.set(row);
                            reasons.push((row, "missing_field", format!("the required field `{}` is missing", described.path)));
                        }
                    }
                }
                _ if described.required => {
                    let lacks = |row: &usize| !refused.get(*row) && !batch.is_tombstone(*row) && of_input(*row);
                    for row in (0..batch.rows).filter(lacks).collect::<Vec<_>>() {
                        refused.set(row);
                        reasons.push((row, "missing_field", format!("the required field `{}` is missing", described.path)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Records rows that are refused before or by the plugin, as they stand.
    pub(super) fn refuse(&mut self, batch: &Batch, format: &dyn Format, mut reasons: Vec<Reason>, rejected: &mut Vec<Rejected>) {
        if reasons.is_empty() {
            return;
        }
        self.counters.rejected += reasons.len() as u64;
        reasons.sort_by_key(|(row, ..)| *row);
        self.tell(batch, format, reasons, rejected);
    }

    /// Records rows that came when their windows were closed, if that is wanted.
    pub(super) fn tell_late(&self, rows: impl Iterator<Item = usize>, batch: &Batch, format: &dyn Format, rejected: &mut Vec<Rejected>) {
        let reason = "it came when its window was closed: stream time had reached the window's end and grace";
        let reasons: Vec<_> = rows.filter(|_| self.tells_late).map(|row| (row, LATE, reason.to_owned())).collect();
        if !reasons.is_empty() {
            self.tell(batch, format, reasons, rejected);
        }
    }

    /// Rows in their order, each with its code and its reason.
    pub(super) fn tell(&self, batch: &Batch, format: &dyn Format, reasons: Vec<Reason>, rejected: &mut Vec<Rejected>) {
        let rows = batch.select(reasons.iter().map(|(row, ..)| *row as u32).collect());
        let encoded = self.exposed.then(|| rows.encode(format));
        for (at, (_, code, reason)) in reasons.into_iter().enumerate() {
            let shown = encoded
                .as_ref()
                .filter(|(_, errors)| !errors.iter().any(|failure| failure.error.row as usize == at))
                .map(|(values, _)| Shown::of(&rows, values, at));
            rejected.push(Rejected {
                origin: batch.origin.clone(),
                origin_row: rows.origin_row(at),
                stage: Some(self.index),
                code,
                reason,
                shown,
            });
        }
    }

    /// Records rows whose changes, made by this or an earlier stage, cannot be written.
    pub(super) fn refuse_writes(&mut self, errors: Vec<WriteError>, origin: &Arc<Origin>, rejected: &mut Vec<Rejected>) {
        self.counters.rejected += errors.len() as u64;
        rejected.extend(write_errors(errors, origin));
    }
}

/// Rows whose changes cannot be written, each put to the stage that made them.
pub fn write_errors(errors: Vec<WriteError>, origin: &Arc<Origin>) -> impl Iterator<Item = Rejected> {
    errors.into_iter().map(|failure| Rejected {
        origin: origin.clone(),
        origin_row: failure.origin_row,
        stage: failure.stage,
        code: failure.error.code,
        reason: with_place(&failure.error.message, failure.error.at),
        shown: None,
    })
}
