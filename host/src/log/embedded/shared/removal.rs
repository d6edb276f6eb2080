//! Topics and groups that go, and groups that are moved. Each is one atomic write: after a crash all of it is there, or nothing.

use super::{Shared, keys};
use crate::io::{Commit, LogError, Position, Remedy, TopicPartition};
use crate::log::embedded::member::check_metadata;
use fjall::PersistMode;
use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

impl Shared {
    pub fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = self.catalog.get(name) else { return Ok(()) };
        let failed = |error: fjall::Error| self.failure(&format!("delete the topic {name}"), &error);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        batch.remove(&self.topics, name.as_bytes());
        for entry in self.index.prefix(keys::topic(topic.id)) {
            let key = entry.key().map_err(failed)?;
            batch.remove(&self.index, key.clone());
            batch.remove(&self.records, key);
        }
        for entry in self.positions.iter() {
            let key = entry.key().map_err(failed)?;
            if keys::topic_of_position(&key) == Some(topic.id) {
                batch.remove(&self.positions, key);
            }
        }
        batch.commit().map_err(failed)?;
        self.catalog.remove(&topic);
        // Whoever waits for its records is told.
        self.appended.add();
        Ok(())
    }

    pub fn delete_group(&self, group: &str) -> Result<(), LogError> {
        let _groups = self.without_members(group)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: fjall::Error| self.failure(&format!("delete the group {group}"), &error);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for keyspace in [&self.positions, &self.state] {
            for entry in keyspace.prefix(keys::group(group)) {
                batch.remove(keyspace, entry.key().map_err(failed)?);
            }
        }
        batch.commit().map_err(failed)
    }

    pub fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        check_metadata(positions)?;
        for (at, _) in positions {
            self.catalog.find(&at.topic)?.end(at.partition)?;
        }
        let _groups = self.without_members(group)?;
        self.commit(Vec::new(), group, &Commit { positions: positions.to_vec(), state: Vec::new() })
    }

    /// Nobody joins the group while this is held.
    fn without_members(&self, group: &str) -> Result<MutexGuard<'_, HashSet<String>>, LogError> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if !groups.contains(group) {
            return Ok(groups);
        }
        let message =
            format!("the group {group} has a member, whose positions and state stay as they are; stop its pipeline, and try again");
        Err(LogError { remedy: Remedy::Wait, message })
    }
}
