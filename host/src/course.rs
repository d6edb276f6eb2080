//! What the workers of a run are to do, which may change while they run: the setting of a newer generation is handed over here, and each worker
//! turns to it between two transactions.

use crate::task::Setting;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One for a run, shared by its workers and whoever deploys.
pub struct Course {
    /// Counts the settings handed over, so that a worker looks behind the lock only if there is a new one.
    turn: AtomicU64,
    setting: Mutex<Arc<Setting>>,
}

impl Course {
    pub fn new(setting: Arc<Setting>) -> Self {
        Self { turn: AtomicU64::new(1), setting: Mutex::new(setting) }
    }

    /// How many settings there were.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// The newest setting, and its number.
    pub fn now(&self) -> (Arc<Setting>, u64) {
        let setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        (setting.clone(), self.turn())
    }

    /// Hands a setting over that tasks can turn to where they stand: with the same sources, tables, stores and repartition topics. One of no newer generation is
    /// left aside: there is one way only.
    pub fn turn_to(&self, next: Arc<Setting>) {
        let number = |setting: &Setting| setting.generation.as_ref().map(|generation| generation.number);
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if number(&next) <= number(&setting) {
            return;
        }
        *setting = next;
        self.turn.fetch_add(1, Ordering::Release);
    }
}
