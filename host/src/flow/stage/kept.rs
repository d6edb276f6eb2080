//! The rows of its store that a stage's results were made from, where the plugin does not say it. Its description says of which fields the store's keys are
//! made: the key that the record has by them is looked for among the rows that the call has written, or that are there. Where it is not found, the plugin makes
//! keys in a way of its own, and nothing is told.

use super::Stage;
use crate::column::{Cell, Column, Type};
use crate::flow::batch::{Batch, Slot};
use crate::flow::kept::{self, KeptRow, KeptRows};
use crate::flow::plan::{Plan, ReadFrom};
use crate::store::encode_int;
use std::sync::Arc;

/// Where the keys of a call's rows come from.
struct Keys<'a> {
    /// By field of the store's `by`, then by row.
    by: Vec<Box<dyn Fn(usize) -> Cell<'a> + 'a>>,
    names: Vec<String>,
    /// By row, the start of its window.
    starts: Option<&'a [i64]>,
}

impl Stage {
    /// The rows of its store that the rows of a call belong to.
    pub(super) fn rows_of_call(&mut self, live: &Batch, plan: &Plan, pseudo: &[Option<Column>], starts: Option<&[i64]>) -> KeptRows {
        let description = self.description.clone();
        let session = description.window.is_some_and(|window| window.session);
        let windowed = description.stores.iter().filter(|store| store.windowed).count();
        let store = match description.stores.first() {
            // Of several stores with the times of records, it is not known of which one.
            Some(store) if windowed <= 1 => store,
            _ => return kept::unknown(self.index, live.rows),
        };
        let reads = &plan.reads[self.index];
        let mut keys = Keys { by: Vec::new(), names: Vec::new(), starts };
        for field in &store.by {
            let places: Vec<usize> = (0..reads.len()).filter(|place| description.reads[*place].path == *field).collect();
            if places.is_empty() {
                return kept::unknown(self.index, live.rows);
            }
            keys.names.push(field.to_string());
            // What is read of one input is null in the rows of others.
            keys.by.push(Box::new(move |row| {
                let cell = |place: &usize| match (&reads[*place], &pseudo[*place]) {
                    (ReadFrom::Slot(slot), _) => match &live.fields[*slot] {
                        Slot::Held(held) => held.view().cell(row),
                        _ => Cell::Null,
                    },
                    (_, Some(column)) => column.cell(row),
                    (_, None) => Cell::Null,
                };
                places.iter().map(cell).find(|cell| *cell != Cell::Null).unwrap_or(Cell::Null)
            }));
        }
        self.kept_rows(self.index, live.rows, store.key, store.windowed, session && store.windowed, &keys)
    }

    /// The rows of the stage's first store that the rows of a call belong to, behind the call.
    fn kept_rows(&mut self, index: usize, rows: usize, key: Type, windowed: bool, session: bool, keys: &Keys<'_>) -> KeptRows {
        let found = self.stores(|stores| {
            let Some(store) = stores.first_mut() else { return vec![None; rows] };
            let sessions = session.then(|| store.written_behind_times());
            let mut find = |row: usize| {
                let forms = forms(row, key, keys);
                if let Some(sessions) = &sessions {
                    return forms.iter().find_map(|form| sessions.get(form).cloned().flatten());
                }
                let start = if windowed { encode_int(*keys.starts?.get(row)?).to_vec() } else { Vec::new() };
                forms.into_iter().map(|form| [start.as_slice(), &form].concat()).find(|key| store.holds(key))
            };
            (0..rows).map(&mut find).collect()
        });
        let told = |key: Option<Vec<u8>>| Some(KeptRow { stage: index, store: 0, key: key.map(Into::into), closed: false });
        (Arc::new(found.into_iter().map(told).collect()), None)
    }
}

/// The keys that a row may have: one field as its text, several as an object, in the order declared or sorted.
fn forms(row: usize, key: Type, keys: &Keys<'_>) -> Vec<Vec<u8>> {
    if let [one] = keys.by.as_slice() {
        return match (one(row), key) {
            (Cell::Null, _) => Vec::new(),
            (Cell::Int(value), Type::Int) => vec![encode_int(value).to_vec()],
            (Cell::Text(text), _) => vec![text.as_bytes().to_vec()],
            (Cell::Blob(bytes), _) => vec![bytes.to_vec()],
            (Cell::Json(text), _) => {
                let parsed = serde_json::from_str::<serde_json::Value>(text).map(|value| match value {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                });
                std::iter::once(text.to_owned()).chain(parsed).map(String::into_bytes).collect()
            }
            (cell, _) => vec![json(cell).to_string().into_bytes()],
        };
    }
    let mut members: Vec<(&String, String)> = Vec::with_capacity(keys.by.len());
    for (name, by) in keys.names.iter().zip(&keys.by) {
        match by(row) {
            Cell::Null => return Vec::new(),
            Cell::Json(text) => members.push((name, text.to_owned())),
            cell => members.push((name, json(cell).to_string())),
        }
    }
    let object = |members: &[(&String, String)]| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name.as_str()))).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    };
    let declared = object(&members);
    members.sort();
    vec![declared, object(&members)]
}

fn json(cell: Cell<'_>) -> serde_json::Value {
    match cell {
        Cell::Bool(value) => value.into(),
        Cell::Int(value) => value.into(),
        Cell::Float(value) => value.into(),
        Cell::Text(text) | Cell::Json(text) => text.into(),
        Cell::Blob(bytes) => String::from_utf8_lossy(bytes).into(),
        Cell::Null => serde_json::Value::Null,
    }
}
