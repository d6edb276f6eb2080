//! The topics of the log and where each partition ends, in memory.

use crate::io::{LogError, Topic};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The most partitions that a topic may have: each costs a look-up when the folder is opened.
pub const MAX_PARTITIONS: i32 = 10_000;

/// A topic. Its ends move only under the log's commit lock.
#[derive(Debug)]
pub struct TopicEntry {
    pub id: u32,
    pub name: Arc<str>,
    ends: Vec<AtomicI64>,
    /// Whoever still reads or writes it is told.
    deleted: AtomicBool,
}

impl TopicEntry {
    pub fn new(id: u32, name: Arc<str>, ends: impl IntoIterator<Item = i64>) -> Self {
        Self { id, name, ends: ends.into_iter().map(AtomicI64::new).collect(), deleted: AtomicBool::new(false) }
    }

    pub fn partitions(&self) -> i32 {
        self.ends.len() as i32
    }

    /// One past the last committed offset; an error if there is no such partition, or the topic was deleted.
    pub fn end(&self, partition: i32) -> Result<i64, LogError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(LogError::stop(format!("topic `{}` was deleted while it was in use", self.name)));
        }
        let end = usize::try_from(partition).ok().and_then(|partition| self.ends.get(partition));
        end.map(|end| end.load(Ordering::Acquire)).ok_or_else(|| {
            let last = self.partitions() - 1;
            LogError::stop(format!("topic `{}` has no partition {partition}: its partitions are 0 to {last}", self.name))
        })
    }

    /// Makes offsets below `end` visible.
    pub fn move_end(&self, partition: i32, end: i64) {
        if let Some(of) = usize::try_from(partition).ok().and_then(|partition| self.ends.get(partition)) {
            of.store(end, Ordering::Release);
        }
    }

    pub fn topic(&self) -> Topic {
        Topic { name: self.name.clone(), partitions: self.partitions(), max_message_bytes: None }
    }
}

#[derive(Debug, Default)]
pub struct Catalog(RwLock<BTreeMap<Arc<str>, Arc<TopicEntry>>>);

impl Catalog {
    pub fn get(&self, name: &str) -> Option<Arc<TopicEntry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn find(&self, name: &str) -> Result<Arc<TopicEntry>, LogError> {
        self.get(name).ok_or_else(|| LogError::stop(format!("there is no topic `{name}`; `millstream topic create {name}` makes it")))
    }

    pub fn all(&self) -> Vec<Arc<TopicEntry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets a topic, also for those who have found it before.
    pub fn remove(&self, entry: &TopicEntry) {
        entry.deleted.store(true, Ordering::Release);
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&entry.name);
    }

    pub fn add(&self, entry: Arc<TopicEntry>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(entry.name.clone(), entry);
    }
}

/// Names as Kafka takes them, so that a pipeline can move between the two logs.
pub fn check_name(name: &str) -> Result<(), LogError> {
    let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if name.is_empty() || name.len() > 249 || !legal || name == "." || name == ".." {
        let shown: String = name.chars().take(60).collect();
        return Err(LogError::stop(format!("`{shown}` cannot be a topic's name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_`, `-`")));
    }
    Ok(())
}

pub fn check_partitions(name: &str, partitions: i32) -> Result<(), LogError> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    Err(LogError::stop(format!("topic `{name}` cannot have {partitions} partitions: 1 to {MAX_PARTITIONS}")))
}
