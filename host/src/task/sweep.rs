//! A task's part in the sweep: with each commit, a few rows of older types become rows of the newest.

use super::{Stop, Task};
use crate::io::LogError;
use std::sync::PoisonError;

impl Task {
    /// Whether there may be rows of older types that were not looked at.
    pub fn sweep_due(&self) -> bool {
        self.sweeps
    }

    /// Looks at up to so many rows, as a part of the commit that is about to begin. How many it looked at. Err: a row cannot be turned, and is as it was.
    pub fn sweep(&mut self, most: usize) -> Result<usize, Stop> {
        if !self.begun {
            self.begin().map_err(Stop::Log)?;
        }
        if !self.sweeps {
            return Ok(0);
        }
        let (mut seen, mut turned, mut sweeps, mut failed) = (0, 0, false, None);
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.stores(|stores| {
                for store in stores {
                    match store.sweep(most.saturating_sub(seen)) {
                        Ok(swept) => (seen, turned) = (seen + swept.seen, turned + swept.turned),
                        Err(why) => {
                            failed = Some(Stop::Rows { stage: Some(index), why });
                            return;
                        }
                    }
                    sweeps |= store.sweeps();
                }
            });
            if failed.is_some() {
                break;
            }
        }
        self.swept |= turned > 0;
        self.turned += turned as u64;
        self.sweeps = sweeps || failed.is_some();
        match failed {
            None => Ok(seen),
            Some(stop) => {
                self.halted = true;
                Err(stop)
            }
        }
    }

    /// Rows of the stores are written as they are described.
    fn begin(&mut self) -> Result<(), LogError> {
        let mut outcome = Ok(());
        for stage in &mut self.stages {
            stage.stores(|stores| {
                stores.iter().for_each(|store| outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| store.begin()))
            });
        }
        for table in self.tables.iter().flatten() {
            outcome = outcome.and_then(|()| table.lock().unwrap_or_else(PoisonError::into_inner).store.begin());
        }
        self.begun = outcome.is_ok();
        outcome
    }
}
