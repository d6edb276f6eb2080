//! What the workers of a run are to do, which may change while they run: settings of newer generations are handed over here, and each worker turns to
//! them between two transactions.

use crate::share::Keys;
use crate::task::Setting;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One for a run, shared by its workers and whoever deploys.
pub struct Course {
    /// The number of the heading, so that a worker looks behind the lock only if there is a new one.
    number: AtomicU64,
    heading: Mutex<Heading>,
}

/// By which settings tasks work. All have the same sources, tables, stores and repartition topics.
#[derive(Clone)]
pub struct Heading {
    pub setting: Arc<Setting>,
    /// A newer generation on trial: a canary.
    pub trial: Option<Trial>,
    /// A newer generation that is only compared, everywhere.
    pub shadow: Option<Arc<Setting>>,
    /// Rises from heading to heading.
    pub number: u64,
}

#[derive(Clone)]
pub struct Trial {
    pub setting: Arc<Setting>,
    /// The partition numbers whose tasks work by it.
    pub partitions: Arc<BTreeSet<i32>>,
    /// The keys of them for which they do; None = all.
    pub keys: Option<Keys>,
    /// The generation that works in the others is in its shadow in these, to be compared with it.
    pub compared: bool,
}

/// A newer generation that works for some keys of a task.
pub type Division<'c> = Option<(&'c Arc<Setting>, Keys)>;

impl Heading {
    /// That of the tasks with this partition number.
    pub fn setting_of(&self, partition: i32) -> &Arc<Setting> {
        match &self.trial {
            Some(trial) if trial.keys.is_none() && trial.partitions.contains(&partition) => &trial.setting,
            _ => &self.setting,
        }
    }

    /// What works for some keys of the tasks with this partition number, if anything does.
    pub fn division_of(&self, partition: i32) -> Division<'_> {
        let trial = self.trial.as_ref().filter(|trial| trial.partitions.contains(&partition))?;
        Some((&trial.setting, trial.keys?))
    }

    /// The newest generation that works in tasks with this partition number, and whether it does for all keys: what is committed by a later one of these is
    /// not for them.
    pub fn newest_of(&self, partition: i32) -> (u64, bool) {
        match self.division_of(partition) {
            Some((setting, _)) => (setting.generation_number(), false),
            None => (self.setting_of(partition).generation_number(), true),
        }
    }

    /// What is in the shadow of the tasks with this partition number, if anything is.
    pub fn shadow_of(&self, partition: i32) -> Option<&Arc<Setting>> {
        match &self.trial {
            Some(trial) if trial.compared && trial.partitions.contains(&partition) => Some(&self.setting),
            _ => self.shadow.as_ref(),
        }
    }

    /// The generation on trial that is compared, if one is.
    pub fn compared(&self) -> Option<u64> {
        let canary = self.trial.as_ref().filter(|trial| trial.compared).map(|trial| &trial.setting);
        self.shadow.as_ref().or(canary).map(|setting| setting.generation_number())
    }
}

impl Course {
    pub fn new(setting: Arc<Setting>) -> Self {
        Self { number: AtomicU64::new(0), heading: Mutex::new(Heading { setting, trial: None, shadow: None, number: 0 }) }
    }

    /// The number of the newest heading.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The newest heading.
    pub fn now(&self) -> Heading {
        self.heading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a heading over. One that is no newer is left aside: there is one way only.
    pub fn turn_to(&self, next: Heading) {
        let mut heading = self.heading.lock().unwrap_or_else(PoisonError::into_inner);
        if next.number <= heading.number {
            return;
        }
        self.number.store(next.number, Ordering::Release);
        *heading = next;
    }
}
