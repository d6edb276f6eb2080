//! Members of groups: what a worker holds.

use super::cursor::Cursors;
use super::{Append, Shared, framing};
use crate::io::{Commit, CommitState, Event, FetchLimit, LogError, Member, Membership, Position, TopicPartition};
use crate::record::Records;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Appended pieces smaller than this are put together before they are encoded.
const SMALL_ROWS: usize = 500;
const SMALL_BYTES: usize = framing::BATCH_BYTES / 4;

/// The most that a position's metadata may have, in bytes.
const MAX_METADATA: usize = 512;

/// The one member of a group. It gets every partition of its topics at its first poll.
#[derive(Debug)]
pub struct EmbeddedMember {
    shared: Arc<Shared>,
    group: String,
    /// None once told.
    assignment: Option<Vec<TopicPartition>>,
    cursors: Cursors,
    /// What was appended since the last commit.
    open: HashMap<TopicPartition, Pending>,
}

/// Records of the open transaction for a partition.
#[derive(Debug, Default)]
struct Pending {
    encoded: Vec<framing::EncodedBatch>,
    /// Small pieces, behind what is encoded.
    small: Records,
}

impl EmbeddedMember {
    pub fn join(shared: &Arc<Shared>, membership: &Membership) -> Result<Self, LogError> {
        let mut partitions = Vec::new();
        for topic in &membership.topics {
            let topic = shared.topic_or_create(topic)?;
            partitions.extend((0..topic.partitions()).map(|partition| TopicPartition::new(topic.name.clone(), partition)));
        }
        partitions.sort();
        partitions.dedup();
        let group = membership.group.clone();
        if group.is_empty() || group.len() > 255 {
            return Err(LogError::stop("a group's name has 1 to 255 bytes"));
        }
        if !shared.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone()) {
            return Err(LogError::stop(format!(
                "pipeline `{group}` runs already in this process: on the embedded log a group has one member"
            )));
        }
        Ok(Self { shared: shared.clone(), group, assignment: Some(partitions), cursors: Cursors::default(), open: HashMap::new() })
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.shared.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.group);
    }
}

impl Member for EmbeddedMember {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        match self.assignment.take() {
            Some(partitions) => Ok(Event::Assigned(partitions)),
            None => self.cursors.poll(&self.shared, limit, wait),
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.shared.committed(&self.group, partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        partitions.iter().try_for_each(|(at, offset)| self.cursors.start(&self.shared, at, *offset))
    }

    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.cursors.stop(partitions);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.cursors.set_paused(partitions, true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.cursors.set_paused(partitions, false);
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.cursors.stop(partitions);
        Ok(())
    }

    fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
        if !self.open.contains_key(to) {
            // Now rather than at the commit, where nobody knows any more whose mistake it was.
            self.shared.topic_or_create(&to.topic)?.end(to.partition)?;
            self.open.insert(to.clone(), Pending::default());
        }
        let Some(pending) = self.open.get_mut(to) else { return Ok(()) };
        pending.append(records).map_err(|error| LogError::stop(format!("cannot append to {to}: {error}")))
    }

    fn begin_commit(&mut self, commit: Commit) -> Result<(), LogError> {
        if commit.positions.is_empty() {
            return Err(LogError::stop("a commit without positions: a mistake in the program"));
        }
        check_metadata(&commit.positions)?;
        let mut appends = Vec::with_capacity(self.open.len());
        for (to, mut pending) in self.open.drain() {
            pending.close().map_err(|error| LogError::stop(format!("cannot append to {to}: {error}")))?;
            appends.push(Append { topic: self.shared.catalog.find(&to.topic)?, partition: to.partition, batches: pending.encoded });
        }
        self.shared.commit(appends, &self.group, &commit)
    }

    fn poll_commit(&mut self, _wait: Duration) -> Result<CommitState, LogError> {
        // `begin_commit` has done it all: the batch goes to the journal in less time than a thread would take to hear of it.
        Ok(CommitState::Done)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.open.clear();
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

pub fn check_metadata(positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
    let Some((at, position)) = positions.iter().find(|(_, position)| position.metadata.len() > MAX_METADATA) else { return Ok(()) };
    let bytes = position.metadata.len();
    Err(LogError::stop(format!("the metadata of the position in {at} has {bytes} bytes, the limit is {MAX_METADATA}")))
}

impl Pending {
    fn append(&mut self, records: &Records) -> Result<(), framing::Misshapen> {
        if records.len() >= SMALL_ROWS || records.bytes() >= SMALL_BYTES {
            self.close()?;
            self.encoded.extend(framing::encode(records)?);
            return Ok(());
        }
        // Checks the records and joins them in one go.
        let piece = framing::encode_whole(records)?;
        let joined = framing::Batch::parse(&piece).and_then(|batch| batch.append_to(&mut self.small, 0, batch.rows()));
        debug_assert!(joined.is_ok(), "what was encoded just now decodes");
        if self.small.len() >= SMALL_ROWS || self.small.bytes() >= SMALL_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), framing::Misshapen> {
        if !self.small.is_empty() {
            self.encoded.extend(framing::encode(&std::mem::take(&mut self.small))?);
        }
        Ok(())
    }
}
