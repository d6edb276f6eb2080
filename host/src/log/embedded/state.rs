//! The committed state of a pipeline's stores.

use super::{Shared, keys};
use crate::io::{Commit, CommittedState, LogError, ROW_TYPES, StateRows, StateWrites};
use std::sync::Arc;

#[derive(Debug)]
pub struct EmbeddedState {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
}

impl CommittedState for EmbeddedState {
    fn get(&self, store: &str, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        let mut full = keys::state(&self.group, store, task);
        full.extend_from_slice(key);
        let row = self.shared.state.get(full).map_err(|error| self.shared.failure("read state", &error))?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn scan(&self, store: &str, task: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        let prefix = keys::state(&self.group, store, task);
        let bound = |key: &[u8]| [prefix.as_slice(), key].concat();
        let from = bound(low);
        // A prefix begins with the length of a name, at most 255, so there is always a key behind it.
        let to = high.map_or_else(|| keys::after(&prefix), |high| Some(bound(high))).unwrap_or_default();
        if from >= to {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for row in self.shared.state.range(from..to).take(limit) {
            let (key, value) = row.into_inner().map_err(|error| self.shared.failure("read state", &error))?;
            let key = key.get(prefix.len()..).unwrap_or_default().to_vec();
            rows.push((key, value.to_vec()));
        }
        Ok(rows)
    }

    fn keep_row_types(&self, store: &str, types: &[u8]) -> Result<(), LogError> {
        let writes = StateWrites { store: store.into(), task: ROW_TYPES, rows: vec![(Vec::new(), Some(types.to_vec()))] };
        self.shared.commit(Vec::new(), &self.group, &Commit { positions: Vec::new(), state: vec![writes] })
    }
}
