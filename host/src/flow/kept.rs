//! Which row of a store a result was made from: told where a sink asks for provenance.
//!
//! A result of a row that was handed over (a closed window, a changed group) is of that row. Of any other result the plugin does not say it, but its description
//! says of which fields the store's keys are made: the key that the record has by them is looked for among the rows that the call has written, or that are there. Where
//! it is not found, the plugin makes keys in a way of its own, and nothing is told.

use crate::column::{Cell, Type};
use crate::flow::batch::Index;
use crate::flow::stage::Stage;
use crate::plugin::FROM_NONE;
use crate::store::{Handed, encode_int};
use std::sync::Arc;

/// The row of a store of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRow {
    pub stage: usize,
    /// Among the stage's.
    pub store: usize,
    /// As the store encodes it; None = it is not known which row it is.
    pub key: Option<Arc<[u8]>>,
    /// It was handed over since its window was closed, and is deleted with the same commit.
    pub closed: bool,
}

/// By row; None = no stage that keeps something was on its way.
pub type KeptRows = (Arc<Vec<Option<KeptRow>>>, Index);

/// Every row of a batch of these is of the row that was handed over.
pub fn handed(stage: usize, store: usize, handed: &Handed, closed: bool) -> KeptRows {
    let row = |key: &Vec<u8>| Some(KeptRow { stage, store, key: Some(key.as_slice().into()), closed });
    (Arc::new(handed.encoded().iter().map(row).collect()), None)
}

/// So many rows of a stage of which it is not known what they were made from.
pub fn unknown(stage: usize, rows: usize) -> KeptRows {
    (Arc::new(vec![Some(KeptRow { stage, store: 0, key: None, closed: false }); rows]), None)
}

/// What is told of rows that a plugin derived: of those "from none", that nothing is known.
pub fn derived(kept: KeptRows, source: &[u32], stage: usize) -> KeptRows {
    if source.last() != Some(&FROM_NONE) {
        return kept;
    }
    let (rows, index) = kept;
    let own = |(at, from): (usize, &u32)| match from {
        &FROM_NONE => Some(KeptRow { stage, store: 0, key: None, closed: false }),
        _ => rows[index.as_ref().map_or(at, |index| index[at] as usize)].clone(),
    };
    (Arc::new(source.iter().enumerate().map(own).collect()), None)
}

/// Where the keys of a call's rows come from.
pub struct Keys<'a> {
    /// By field of the store's `by`, then by row.
    pub by: Vec<Box<dyn Fn(usize) -> Cell<'a> + 'a>>,
    pub names: Vec<String>,
    /// By row, the start of its window.
    pub starts: Option<&'a [i64]>,
}

impl Stage {
    /// The rows of the stage's first store that the rows of a call belong to, behind the call.
    pub(super) fn kept_rows(&mut self, index: usize, rows: usize, key: Type, windowed: bool, session: bool, keys: &Keys<'_>) -> KeptRows {
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
