//! One batch: every change is computed from the record as it came in.

use crate::cast;
use crate::plan::{Change, Key, Plan, Write};
use millstream_expression::{Columns, Expression};
use millstream_guest::Batch;
use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use millstream_guest::verdict::{Derived, Outcome, Reject, Verdict, Written};
use std::collections::BTreeMap;

/// The rows that get no result, each with its first reason.
struct Rejects<'a> {
    reasons: BTreeMap<u32, String>,
    batch: &'a Batch,
}

impl Rejects<'_> {
    fn add(&mut self, row: u32, reason: impl FnOnce() -> String) {
        self.reasons.entry(row).or_insert_with(reason);
    }

    fn is_tombstone(&self, row: u32) -> bool {
        self.batch.values.as_ref().is_some_and(|values| values.is_null(row as usize))
    }

    /// An expression's column. `of_value`: it says something of the value, so that it does not matter for a tombstone.
    fn eval(&mut self, expression: &Expression, target: &dyn std::fmt::Display, of_value: bool) -> Column {
        let columns = Columns { rows: self.batch.rows, fields: &self.batch.fields, table: &[] };
        let evaluated = expression.eval(columns);
        for error in evaluated.errors {
            if !of_value || !self.is_tombstone(error.row) {
                self.add(error.row, || format!("set `{target}`: {}", error.reason));
            }
        }
        evaluated.column
    }
}

pub fn process(plan: &Plan, batch: &Batch) -> Verdict {
    let mut rejects = Rejects { reasons: BTreeMap::new(), batch };
    let mut fields: Vec<Written> = plan.writes.iter().map(|write| written(write, &mut rejects)).collect();
    let mut keys = plan.key.as_ref().map(|key| new_keys(key, &mut rejects));
    let mut timestamps = plan.timestamp.as_ref().map(|time| new_timestamps(time, &mut rejects));

    let mut source: Vec<u32> = (0..batch.rows as u32).collect();
    if !rejects.reasons.is_empty() {
        source.retain(|row| !rejects.reasons.contains_key(row));
        for field in &mut fields {
            field.column = field.column.gather(&source);
            field.kept = field.kept.gather(&source);
            field.removed = field.removed.gather(&source);
        }
        keys = keys.map(|keys| keys.gather(&source));
        timestamps = timestamps.map(|times| source.iter().filter_map(|row| times.get(*row as usize).copied()).collect());
    }
    let mut tombstones = Bitmap::default();
    for (place, row) in source.iter().enumerate() {
        if rejects.is_tombstone(*row) {
            tombstones.set(place);
        }
    }
    if !tombstones.0.is_empty() {
        tombstones.0.resize(source.len().div_ceil(8), 0);
    }
    let derived = Derived { output: 0, source, fields, timestamps, keys, values: None, headers: None, leaves: None, tombstones };
    let rejects = rejects.reasons.into_iter().map(|(row, reason)| Reject { row, reason }).collect();
    Verdict { outcome: Outcome::Derive(vec![derived]), rejects }
}

fn written(write: &Write, rejects: &mut Rejects<'_>) -> Written {
    let batch = rejects.batch;
    let rows = batch.rows;
    let nothing = || ColumnBuilder::new(Type::Json, 0).finish();
    match &write.change {
        Change::Set(expression) => {
            Written { column: rejects.eval(expression, &write.path, true), kept: Bitmap::default(), removed: Bitmap::default() }
        }
        Change::Rename(read) => {
            let column = batch.fields.get(*read).cloned().unwrap_or_else(nothing);
            Written { kept: nulls(&column, rows), column, removed: Bitmap::default() }
        }
        Change::Cast { read, from, to } => {
            let column = batch.fields.get(*read).cloned().unwrap_or_else(nothing);
            let kept = nulls(&column, rows);
            let (column, failed) = cast::column(&column, *to, rows);
            for row in failed {
                rejects.add(row, || match from {
                    Type::Json => format!("cast `{}`: the value cannot be converted to {to}", write.path),
                    from => format!("cast `{}`: the {from} cannot be converted to {to}", write.path),
                });
            }
            Written { column, kept, removed: Bitmap::default() }
        }
        Change::Remove => {
            let mut column = ColumnBuilder::new(Type::Json, rows);
            (0..rows).for_each(|_| column.null());
            Written { column: column.finish(), kept: Bitmap::default(), removed: Bitmap::filled(rows, true) }
        }
    }
}

/// The rows without a value; empty if there is none.
fn nulls(column: &Column, rows: usize) -> Bitmap {
    if column.validity.0.is_empty() {
        return Bitmap::default();
    }
    let mut out = Bitmap::filled(rows, false);
    for row in (0..rows).filter(|row| column.is_null(*row)) {
        out.set(row);
    }
    out
}

/// Keys as bytes: text as it is, an int as its digits, json as its text.
fn new_keys(key: &Key, rejects: &mut Rejects<'_>) -> Column {
    let mut out = ColumnBuilder::new(Type::Bytes, rejects.batch.rows);
    for row in (0..rejects.batch.rows as u32).filter(|_| key.needs_value) {
        if rejects.is_tombstone(row) {
            rejects.add(row, || "set `$key`: a tombstone has no value that its new key could be computed from".to_owned());
        }
    }
    let column = rejects.eval(&key.expression, &"$key", false);
    for row in 0..rejects.batch.rows {
        match column.cell(row) {
            Cell::Null => out.null(),
            Cell::Int(value) => out.bytes(value.to_string().as_bytes()),
            Cell::Blob(bytes) => out.bytes(bytes),
            Cell::Text(text) => out.bytes(text.as_bytes()),
            Cell::Json(text) => out.bytes(json_key(text).as_bytes()),
            Cell::Bool(_) | Cell::Float(_) => {
                rejects.add(row as u32, || "set `$key`: a key is text, an int, bytes or json".to_owned());
                out.null();
            }
        }
    }
    out.finish()
}

/// A text is a key without its quotes.
fn json_key(text: &str) -> std::borrow::Cow<'_, str> {
    match serde_json::from_str::<String>(text) {
        Ok(text) => text.into(),
        Err(_) => text.into(),
    }
}

fn new_timestamps(time: &Expression, rejects: &mut Rejects<'_>) -> Vec<i64> {
    let column = rejects.eval(time, &"$timestamp", true);
    let mut out = Vec::with_capacity(rejects.batch.rows);
    for row in 0..rejects.batch.rows {
        let old = rejects.batch.timestamps.get(row).copied().unwrap_or_default();
        let new = match column.cell(row) {
            Cell::Int(time) => Some(time),
            Cell::Json(text) => text.trim_ascii().parse().ok(),
            _ => None,
        };
        if new.is_none() && !rejects.is_tombstone(row as u32) {
            rejects.add(row as u32, || "set `$timestamp`: not an int".to_owned());
        }
        out.push(new.unwrap_or(old));
    }
    out
}
