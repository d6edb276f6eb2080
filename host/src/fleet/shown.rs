//! What a host runs, as others see it: figures and health are read here, and keep the host not waiting.

use crate::monitor::Monitor;
use crate::task::Setting;
use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A pipeline that a host looks after.
#[derive(Clone)]
pub struct Shown {
    /// The generation that is to run; 0 = none.
    pub active: u64,
    pub trial: Option<u64>,
    /// There once it has begun.
    pub run: Option<(Arc<Setting>, Arc<Monitor>)>,
    /// Why the active generation does not run here.
    pub failure: Option<String>,
}

/// The pipelines of a host, by name.
#[derive(Default)]
pub struct Board(Mutex<Told>);

#[derive(Default)]
struct Told {
    pipelines: BTreeMap<String, Shown>,
    /// Since when the control topic is out of reach.
    lost: Option<Instant>,
}

impl Debug for Board {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.lock().pipelines.keys()).finish()
    }
}

impl Board {
    pub fn put(&self, name: &str, shown: Shown) {
        self.lock().pipelines.insert(name.to_owned(), shown);
    }

    pub fn remove(&self, name: &str) {
        self.lock().pipelines.remove(name);
    }

    pub fn pipelines(&self) -> BTreeMap<String, Shown> {
        self.lock().pipelines.clone()
    }

    /// The monitors of what runs.
    pub fn monitors(&self) -> Vec<Arc<Monitor>> {
        self.lock().pipelines.values().filter_map(|shown| Some(shown.run.as_ref()?.1.clone())).collect()
    }

    /// The control topic was read.
    pub fn reached(&self) {
        self.lock().lost = None;
    }

    /// The control topic cannot be read.
    pub fn lost(&self) {
        self.lock().lost.get_or_insert_with(Instant::now);
    }

    /// For how long the control topic has been out of reach.
    pub fn away(&self) -> Option<Duration> {
        self.lock().lost.map(|since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
