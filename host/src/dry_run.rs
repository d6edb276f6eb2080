//! A member that commits nothing: it reads from where the group stands, outside the group, and hands what would be written to its owner.

use crate::io::{Commit, CommitState, Event, FetchLimit, Log, LogError, Member, Position, Reader, TopicPartition};
use crate::record::Records;
use std::sync::Arc;
use std::time::Duration;

/// Takes what would be appended.
pub type Show = Box<dyn FnMut(&TopicPartition, &Records) + Send>;

pub struct DryRun {
    log: Arc<dyn Log>,
    group: String,
    reader: Box<dyn Reader>,
    /// To be told as assigned, once.
    partitions: Option<Vec<TopicPartition>>,
    show: Show,
}

impl DryRun {
    pub fn new(log: &Arc<dyn Log>, group: &str, partitions: Vec<TopicPartition>, show: Show) -> Result<Self, LogError> {
        Ok(Self { log: log.clone(), group: group.to_owned(), reader: log.reader()?, partitions: Some(partitions), show })
    }
}

impl Member for DryRun {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        match self.partitions.take() {
            Some(partitions) => Ok(Event::Assigned(partitions)),
            None => self.reader.poll(limit, wait),
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.log.committed(&self.group, partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.reader.assign(partitions)
    }

    // The queues of a run to the end are bounded by its limit: there is nothing to hold back.
    fn pause(&mut self, _: &[TopicPartition]) -> Result<(), LogError> {
        Ok(())
    }

    fn resume(&mut self, _: &[TopicPartition]) -> Result<(), LogError> {
        Ok(())
    }

    fn release(&mut self, _: &[TopicPartition]) -> Result<(), LogError> {
        Ok(())
    }

    fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
        (self.show)(to, records);
        Ok(())
    }

    fn begin_commit(&mut self, _: Commit) -> Result<(), LogError> {
        Ok(())
    }

    fn poll_commit(&mut self, _: Duration) -> Result<CommitState, LogError> {
        Ok(CommitState::Done)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}
