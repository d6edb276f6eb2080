//! What goes out, and what both kinds of joins have in common: keys as text, fields of both sides wherever they are.

use crate::index::At;
use crate::plan::{Plan, RIGHT};
use millstream_guest::Batch;
use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Type, Values};
use millstream_guest::verdict::{Derived, Outcome, Reject, Verdict, Written};
use std::borrow::Cow;

/// A result: of which row of the batch it comes, and where the fields of its sides are.
#[derive(Clone, Copy, Debug)]
pub struct Result {
    pub source: u32,
    pub sides: [Option<At>; 2],
    pub time: i64,
    pub tombstone: bool,
}

/// The fields of both sides: those of a batch, and those that were kept.
pub struct Fields<'a> {
    pub plan: &'a Plan,
    pub batch: &'a [Column],
    pub found: [&'a [Column]; 2],
}

impl<'a> Fields<'a> {
    pub fn cell(&self, side: usize, column: usize, at: Option<At>) -> Cell<'a> {
        match at {
            Some(At::Batch(row)) => self.batch[self.plan.sides[side].reads[column]].cell(row as usize),
            Some(At::Found(row)) => self.found[side][column].cell(row as usize),
            Some(At::Kept) | None => Cell::Null,
        }
    }

    /// The columns of the results, in the order of the description.
    fn columns(&self, results: &[Result]) -> Vec<Column> {
        let column = |(given, kind): (&crate::plan::Given, Type)| {
            let mut column = ColumnBuilder::new(kind, results.len());
            for result in results {
                column.cell(self.cell(given.side, given.column, result.sides[given.side]));
            }
            column.finish()
        };
        self.plan.results.iter().zip(self.plan.result_types()).map(column).collect()
    }

    /// `key`: the key of a result, where it is not that of its record.
    pub fn verdict<'k>(&self, results: &[Result], key: Option<impl Fn(&Result) -> Option<&'k [u8]>>, rejects: Vec<Reject>) -> Verdict {
        if results.is_empty() {
            return Verdict { outcome: Outcome::Derive(Vec::new()), rejects };
        }
        let field = |column| Written { column, kept: Bitmap::default(), removed: Bitmap::default() };
        let mut tombstones = Bitmap::default();
        if results.iter().any(|result| result.tombstone) {
            tombstones = Bitmap::filled(results.len(), false);
            results.iter().enumerate().filter(|(_, result)| result.tombstone).for_each(|(row, _)| tombstones.set(row));
        }
        let keys = key.map(|key| {
            let mut keys = ColumnBuilder::new(Type::Bytes, results.len());
            for result in results {
                match key(result) {
                    Some(key) => keys.bytes(key),
                    None => keys.null(),
                }
            }
            keys.finish()
        });
        let derived = Derived {
            output: 0,
            source: results.iter().map(|result| result.source).collect(),
            fields: self.columns(results).into_iter().map(field).collect(),
            timestamps: Some(results.iter().map(|result| result.time).collect()),
            keys,
            values: None,
            headers: None,
            leaves: None,
            tombstones,
        };
        Verdict { outcome: Outcome::Derive(vec![derived]), rejects }
    }
}

/// Which side a row of the batch is of, and what it meets by; or why it cannot be told.
pub fn side_and_key<'a>(plan: &Plan, batch: &'a Batch, row: usize) -> std::result::Result<(usize, Option<Cow<'a, [u8]>>), String> {
    let side = match batch.fields[0].cell(row) {
        Cell::Int(side) if side as usize <= RIGHT => side as usize,
        _ => return Err("the host does not tell by which input it comes".to_owned()),
    };
    let read = plan.sides[side].key;
    let key = match batch.fields[read].cell(row) {
        Cell::Null => None,
        Cell::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
        Cell::Blob(bytes) => Some(Cow::Borrowed(bytes)),
        Cell::Int(value) => Some(Cow::Owned(value.to_string().into_bytes())),
        // A key of JSON is compared as it stands; of a field it is known record by record what it is.
        Cell::Json(text) if plan.own_keys => Some(Cow::Borrowed(text.as_bytes())),
        Cell::Json(text) => match serde_json::from_str(text) {
            Ok(serde_json::Value::String(text)) => Some(Cow::Owned(text.into_bytes())),
            Ok(serde_json::Value::Number(number)) if number.is_i64() => Some(Cow::Owned(number.to_string().into_bytes())),
            Ok(serde_json::Value::Null) => None,
            _ => return Err(format!("`{}`: records meet by text or int, and this is neither", plan.reads[read].path)),
        },
        Cell::Bool(_) | Cell::Float(_) => {
            return Err(format!("`{}`: records meet by text or int, and this is neither", plan.reads[read].path));
        }
    };
    Ok((side, key))
}

/// A column of keys.
pub fn keys_of<K: AsRef<[u8]>>(kind: Type, keys: impl Iterator<Item = K>) -> Column {
    let mut column = ColumnBuilder::new(kind, 0);
    keys.for_each(|key| column.bytes(key.as_ref()));
    column.finish()
}

/// The rows of a column of keys.
pub fn rows_of(keys: &Column) -> usize {
    match &keys.values {
        Values::Texts(strings) | Values::Blobs(strings) => strings.len(),
        _ => 0,
    }
}
