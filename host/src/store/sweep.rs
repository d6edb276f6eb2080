//! The sweep: a store's rows of older types become rows of the newest a few at a time, each in a commit, while records flow. It can end at any point: each row
//! tells its type.

use super::{Key, StateStore};
use crate::io::LogError;
use crate::planted::{Mistake, planted};
use std::collections::BTreeMap;
use std::mem;

/// How far the sweep of a store's task is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Sweep {
    /// It is not known yet whether there are older rows.
    #[default]
    Unknown,
    /// The next key to look at.
    At(Key),
    /// Every row was looked at; what was turned is not committed yet.
    Ended,
    /// All rows are of the newest type.
    Done,
}

/// What a step of the sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows looked at.
    pub seen: usize,
    /// Rows of older types among them, which are of the newest now.
    pub turned: usize,
}

/// Rows that are turned at a time.
const CHUNK: usize = 1000;

impl StateStore {
    /// Whether there may be rows of older types that were not looked at.
    pub fn sweeps(&self) -> bool {
        match &self.sweep {
            Sweep::Unknown => !self.strict && !self.types.is_clean(self.task, self.number),
            Sweep::At(_) => true,
            Sweep::Ended | Sweep::Done => false,
        }
    }

    /// Looks at up to so many rows, and writes those of older types anew, to become committed with the rest. Nothing may be in the batch under way. Err: why a
    /// row cannot be turned; it is as it was.
    pub fn sweep(&mut self, most: usize) -> Result<Swept, String> {
        let mut swept = Swept::default();
        if !self.sweeps() {
            return Ok(swept);
        }
        let mut next = match mem::take(&mut self.sweep) {
            Sweep::At(key) => key,
            _ => {
                tracing::info!(
                    store = &*self.name,
                    task = self.task,
                    "rows of older types become rows of the newest, a few with each commit"
                );
                Key::new()
            }
        };
        while swept.seen < most {
            let (mut rows, last) = self.stretch(&next, CHUNK.min(most - swept.seen)).map_err(|error| error.message)?;
            swept.seen += rows.len().max(1);
            rows.retain(|(_, row)| !self.is_current(row));
            // Should it fail, the next attempt begins anew.
            swept.turned += self.turn(&mut rows)?;
            for (key, row) in rows {
                self.open.insert(key, Some(row));
            }
            let Some(last) = last else {
                self.sweep = Sweep::Ended;
                return Ok(swept);
            };
            next = last;
            next.push(0);
        }
        self.sweep = Sweep::At(next);
        Ok(swept)
    }

    /// The rows from a key on, with the last key up to which these are all; None = to the end.
    fn stretch(&self, low: &[u8], limit: usize) -> Result<(Vec<(Key, Vec<u8>)>, Option<Key>), LogError> {
        let mut rows: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        let below = self.committed.scan(&self.name, self.task, low, None, limit)?;
        let mut last = (below.len() == limit).then(|| below.last().map(|(key, _)| key.clone())).flatten();
        rows.extend(below.into_iter().map(|(key, row)| (key, Some(row))));
        for layer in [&self.dirty, &self.in_flight, &self.open, &self.batch].into_iter().filter(|_| !planted(Mistake::SweepBelow)) {
            let mut count = 0;
            for (key, row) in layer.range(low.to_vec()..).take(limit) {
                rows.insert(key.clone(), row.clone());
                count += 1;
                if count == limit && last.as_ref().is_none_or(|last| key < last) {
                    last = Some(key.clone());
                }
            }
        }
        if let Some(last) = &last {
            rows.retain(|key, _| key <= last);
        }
        Ok((rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect(), last))
    }

    /// Everything in flight is committed.
    pub(super) fn swept(&mut self) {
        if self.sweep != Sweep::Ended {
            return;
        }
        self.sweep = Sweep::Done;
        // Not kept, it costs the next start another look at all rows.
        match self.types.clean(self.task, self.number) {
            Ok(()) => tracing::info!(store = &*self.name, task = self.task, "all rows are of the newest type"),
            Err(error) => tracing::warn!(store = &*self.name, task = self.task, "{error}"),
        }
    }
}
