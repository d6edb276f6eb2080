//! Dry runs: what would be written is shown, and nothing is committed. The group is not joined; reading begins where it stands.
//!
//! Repartition topics are the pipeline's own: for a dry run they live in a temporary log beside the real one.

use crate::io::{
    Bounds, Commit, CommitState, CommittedState, Event, FetchLimit, Internal, Log, LogError, Member, Membership, Position, Reader,
    Retention, Topic, TopicPartition,
};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::pipeline::Pipeline;
use crate::record::Records;
use crate::runtime;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A log with the repartition topics of a pipeline put beside it.
pub struct DryLog {
    log: Arc<dyn Log>,
    own: EmbeddedLog,
    own_topics: BTreeSet<Arc<str>>,
    /// Instead of the group's positions: the offsets that are read of one partition; all others have nothing to read.
    only: Option<(TopicPartition, Range<i64>)>,
    /// What is kept of the pipeline's stores is not to be seen.
    without_state: bool,
}

impl DryLog {
    pub fn new(log: Arc<dyn Log>, pipeline: &Pipeline) -> Result<Self, LogError> {
        let own_topics: BTreeSet<Arc<str>> =
            pipeline.sources.iter().filter(|source| source.carries.is_some()).map(|source| source.topic.clone()).collect();
        let mut counts = vec![1; pipeline.sources.len()];
        for (source, count) in pipeline.sources.iter().zip(&mut counts).filter(|(source, _)| source.carries.is_none()) {
            *count = log.topic(&source.topic)?.map_or(1, |topic| topic.partitions);
        }
        let most = runtime::partitions_read(pipeline, &*log)?.unwrap_or(1);
        let own = EmbeddedLog::temporary(Options::default())?;
        for source in pipeline.sources.iter().filter(|source| source.carries.is_some()) {
            let partitions = runtime::repartition_count(pipeline, source, &counts).unwrap_or(most);
            own.create_internal(&source.topic, partitions, Internal::Repartition)?;
        }
        Ok(Self { log, own, own_topics, only: None, without_state: false })
    }

    /// Reads these offsets of one partition only. Of some records alone nothing was kept.
    pub fn only(mut self, at: TopicPartition, offsets: Range<i64>) -> Self {
        self.only = Some((at, offsets));
        self.without_state = true;
        self
    }

    /// The log with its repartition topics, as if no state were kept.
    pub fn as_new(log: Arc<dyn Log>) -> Result<Self, LogError> {
        let own = EmbeddedLog::temporary(Options::default())?;
        Ok(Self { log, own, own_topics: BTreeSet::new(), only: None, without_state: true })
    }

    fn position(&self, at: &TopicPartition) -> Result<Option<Position>, LogError> {
        let Some((only, offsets)) = self.only.as_ref().filter(|_| !self.own_topics.contains(&at.topic)) else { return Ok(None) };
        let offset = if at == only { offsets.start } else { self.bounds(at)?.end };
        Ok(Some(Position { offset, metadata: "{}".to_owned() }))
    }

    fn of(&self, topic: &str) -> &dyn Log {
        if self.own_topics.contains(topic) { &self.own } else { &*self.log }
    }
}

fn writes_nothing() -> LogError {
    LogError::stop("a dry run writes nothing: a mistake in the program")
}

impl Log for DryLog {
    fn topics(&self) -> Result<Vec<Topic>, LogError> {
        self.log.topics()
    }

    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError> {
        self.of(name).topic(name)
    }

    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        self.log.create_topic(name, partitions)
    }

    fn delete_topic(&self, _: &str) -> Result<(), LogError> {
        Err(writes_nothing())
    }

    fn delete_group(&self, _: &str) -> Result<(), LogError> {
        Err(writes_nothing())
    }

    fn move_group(&self, _: &str, _: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        Err(writes_nothing())
    }

    fn retention(&self, topic: &str) -> Result<Option<Retention>, LogError> {
        self.of(topic).retention(topic)
    }

    fn delete_before(&self, _: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        Ok(())
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.of(&partition.topic).high_watermark(partition)
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        let bounds = self.of(&partition.topic).bounds(partition)?;
        let only = self.only.as_ref().filter(|(only, _)| only == partition);
        Ok(only.map_or(bounds, |(_, offsets)| Bounds { end: bounds.end.min(offsets.end), ..bounds }))
    }

    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError> {
        self.of(&partition.topic).offset_at(partition, time)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        if self.only.is_some() {
            return partitions.iter().map(|at| self.position(at)).collect();
        }
        let other: Vec<_> = partitions.iter().filter(|at| !self.own_topics.contains(&at.topic)).cloned().collect();
        let mut others = self.log.committed(group, &other)?.into_iter();
        Ok(partitions.iter().map(|at| if self.own_topics.contains(&at.topic) { None } else { others.next().flatten() }).collect())
    }

    fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError> {
        self.of(topic).produce(topic, partition, records)
    }

    fn exclusively(&self, _: &str, _: &TopicPartition, _: &mut dyn FnMut() -> Result<Option<Records>, LogError>) -> Result<(), LogError> {
        Err(writes_nothing())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        self.log.reader()
    }

    fn member(&self, _: &Membership) -> Result<Box<dyn Member>, LogError> {
        Err(LogError::stop("a dry run joins no group: a mistake in the program"))
    }

    fn state(&self, group: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError> {
        if self.without_state { Ok(None) } else { self.log.state(group) }
    }
}

/// Takes what would be appended.
pub type Show = Box<dyn FnMut(&TopicPartition, &Records) + Send>;

pub struct DryRun {
    log: Arc<DryLog>,
    group: String,
    reader: Box<dyn Reader>,
    own_reader: Box<dyn Reader>,
    own_reads: bool,
    /// To be told as assigned, once.
    partitions: Option<Vec<TopicPartition>>,
    show: Show,
}

impl DryRun {
    /// `partitions`: of the pipeline's sources, its own among them.
    pub fn new(log: &Arc<DryLog>, group: &str, partitions: Vec<TopicPartition>, show: Show) -> Result<Self, LogError> {
        let (reader, own_reader) = (log.log.reader()?, log.own.reader()?);
        Ok(Self { log: log.clone(), group: group.to_owned(), reader, own_reader, own_reads: false, partitions: Some(partitions), show })
    }
}

impl Member for DryRun {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        if let Some(partitions) = self.partitions.take() {
            return Ok(Event::Assigned(partitions));
        }
        if self.own_reads {
            match self.own_reader.poll(limit, Duration::ZERO)? {
                Event::Idle => {}
                event => return Ok(event),
            }
        }
        self.reader.poll(limit, wait)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.log.committed(&self.group, partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let (own, other): (Vec<_>, Vec<_>) = partitions.iter().cloned().partition(|(at, _)| self.log.own_topics.contains(&at.topic));
        self.own_reads = !own.is_empty();
        self.own_reader.assign(&own)?;
        self.reader.assign(&other)
    }

    // Partitions are started once.
    fn hold(&mut self, _: &[TopicPartition]) -> Result<(), LogError> {
        Ok(())
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
        if self.log.own_topics.contains(&to.topic) {
            return self.log.own.produce(&to.topic, Some(to.partition), records);
        }
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
