//! Which row of a store a result was made from: told where a sink asks for provenance.
//!
//! A result of a row that was handed over (a closed window, a changed group) is of that row. Of any other result the plugin does not say it: see `stage::kept`.

use crate::flow::batch::Index;
use crate::plugin::FROM_NONE;
use crate::store::Handed;
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
pub fn rows_derived(kept: KeptRows, source: &[u32], stage: usize) -> KeptRows {
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
