//! Everything that a worker does to the world outside goes through these traits: the log, its members and readers, the committed
//! state behind the stores, the clock. The data path knows nothing else, so that a simulator can stand in for all of it.

use crate::record::Records;
use std::sync::Arc;
use std::time::Duration;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub partitions: i32,
    /// The largest record that the topic takes, key and value and headers, in bytes; None = no limit known.
    pub max_message_bytes: Option<usize>,
}

/// The offsets of a partition that can be read: `begin` is the first, `end` is one past the last that a read_committed reader reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub begin: i64,
    pub end: i64,
}

/// What a topic of a pipeline's own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// Keeps the last record of each key.
    Changelog,
    /// Keeps every record until it is deleted by name.
    Repartition,
    /// What the hosts of a fleet have decided: keeps the last record of each key, tombstones for a week. A host that was away for longer reads it from the
    /// beginning.
    Control,
}

/// How a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Only the last record of each key is kept, and nothing is deleted by age or size.
    pub compacted: bool,
    /// Records are kept until they are deleted by name.
    pub unlimited: bool,
    /// How long a tombstone can still be read in a compacted topic.
    pub tombstones: Duration,
}

/// Where a consumer group stands in a partition: the next offset to read, and what was committed with it (at most 512 bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: i64,
    pub metadata: String,
}

/// Consecutive records of one partition. Offsets rise strictly; they may have gaps.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub from: TopicPartition,
    pub offsets: Vec<i64>,
    pub records: Records,
}

/// What a reader or a member has to tell.
#[derive(Debug)]
// Moved once a batch, not once a record.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    Records(Fetched),
    /// The end of a partition was reached: every record below `offset` that can be read was handed over. Told each time the end is reached anew.
    End {
        at: TopicPartition,
        offset: i64,
    },
    /// A member got these partitions. Nothing is fetched from them until `start`.
    Assigned(Vec<TopicPartition>),
    /// A member must give these partitions up: commit what is finished, then `release`. `lost`: they are another's already, nothing can be committed.
    Revoked {
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
    /// Nothing came within the time given.
    Idle,
}

/// How much one `poll` may hand over. One record is handed over however big it is.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimit {
    pub rows: usize,
    pub bytes: usize,
}

/// What the caller must do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Abort the transaction, drop what is not committed, read again from the committed positions.
    Rewind,
    /// Another holds our name now: give up all tasks, commit nothing.
    Fenced,
    /// It is unknown whether the commit came through: a new member, committed positions read again, replay.
    Indefinite,
    /// The log cannot be reached for now: wait and try again.
    Wait,
    /// A record that was appended is refused for good, and with it what it was to be committed with: abort, and find it.
    Isolate,
    /// Nothing that the program can do: stop, tell the user.
    Stop,
}

/// A failure of the log. The message says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LogError {
    pub remedy: Remedy,
    pub message: String,
}

impl LogError {
    pub fn stop(message: impl Into<String>) -> Self {
        Self { remedy: Remedy::Stop, message: message.into() }
    }
}

/// Writes to a store of a task, to become committed with the positions.
#[derive(Clone, Debug)]
pub struct StateWrites {
    pub store: Arc<str>,
    pub task: i32,
    /// Encoded keys with their encoded rows, None = deleted. Each key once.
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What becomes visible together with the records appended since the last commit.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub positions: Vec<(TopicPartition, Position)>,
    pub state: Vec<StateWrites>,
}

/// How far a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitState {
    InFlight,
    Done,
}

/// A place that holds topics. Cheap to share between threads.
pub trait Log: Send + Sync {
    fn topics(&self) -> Result<Vec<Topic>, LogError>;
    /// None if there is no such topic.
    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError>;
    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError>;
    /// Creates a topic of a pipeline's own. One that is there already is left as it is.
    fn create_internal(&self, name: &str, partitions: i32, _what: Internal) -> Result<(), LogError> {
        let created = self.create_topic(name, partitions);
        // Hosts that start at the same time want the same topics: one of them is the first.
        if created.is_err() && self.topic(name)?.is_some() { Ok(()) } else { created }
    }
    /// Deletes a topic with all that is in it; one that is not there is fine. A topic that is created under this name later has nothing of it. On the
    /// embedded log whoever still reads it gets an error, and the positions of all groups in it are gone too; on Kafka brokers drop those a while later.
    fn delete_topic(&self, name: &str) -> Result<(), LogError>;
    /// Deletes what is committed for a group: its positions, and on the embedded log the state of its stores (on Kafka those are changelogs, which are
    /// topics). A group that is not there is fine; one with members is an error with `Wait`, and keeps everything. On Kafka a member that has left
    /// counts until its session has timed out (10 s, unless the settings say otherwise).
    fn delete_group(&self, group: &str) -> Result<(), LogError>;
    /// Commits positions for a group that has no members, whether or not it has any yet; other positions stay. One with members is an error with `Wait`,
    /// as in `delete_group`.
    fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError>;
    /// None: this log keeps every record for ever.
    fn retention(&self, _topic: &str) -> Result<Option<Retention>, LogError> {
        Ok(None)
    }
    /// Deletes records below these offsets; some may stay. For topics that one group alone reads.
    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError>;
    /// One past the last record of a partition, committed or not.
    fn high_watermark(&self, partition: &TopicPartition) -> Result<i64, LogError> {
        Ok(self.bounds(partition)?.end)
    }
    /// The command that creates a topic here, for messages to the user.
    fn creation(&self, name: &str, partitions: Option<i32>) -> String {
        let partitions = partitions.map(|partitions| format!(" --partitions {partitions}")).unwrap_or_default();
        format!("millstream topic create {name}{partitions}")
    }
    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError>;
    /// The first offset whose timestamp is at least `time` (milliseconds); the end if there is none.
    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError>;
    /// Where a group stands, without joining it.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError>;
    /// Appends outside any pipeline (`produce`, test data): durable when it returns. `partition` None = by the key (`partition_for`), records
    /// without a key spread evenly.
    fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError>;
    /// Appends to one partition what `decide` says after it has read the partition: between the two, no other `exclusively` of the same `name` has
    /// written, in whatever process. `decide` reads to the end by a reader of its own, and is called again if another came between or if nobody knows
    /// whether the append came through (it may have): each time it decides anew, by nothing but what it reads. None, or no records: nothing is written.
    ///
    /// Durable when it returns; on Kafka readers may see it some milliseconds later, the next `decide` always does. An error of `decide` is returned as
    /// it is, and nothing is written. Who came in vain too often gets an error with `Wait`; the last try may still come through.
    ///
    /// Only what is written by this is kept apart: members and `produce` may append to the same partition at any time, also between what `decide`
    /// reads and the append. On Kafka an open transaction of a member hides what lies behind it, writes by this among them: `decide` asks for the
    /// `high_watermark` first, reads until a record or an `End` is there, and fails if that takes too long. It calls no `exclusively` of this log
    /// itself. The topic must be there.
    fn exclusively(
        &self,
        name: &str,
        to: &TopicPartition,
        decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
    ) -> Result<(), LogError>;
    /// A reader of its own, outside any group; committed records only.
    fn reader(&self) -> Result<Box<dyn Reader>, LogError>;
    /// A member of the group `group`: a worker's end of the log.
    fn member(&self, membership: &Membership) -> Result<Box<dyn Member>, LogError>;
    /// The committed state of a pipeline's stores; None if this log keeps state as changelogs only.
    fn state(&self, group: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError>;
}

/// Who joins a group, for which topics.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The pipeline's name.
    pub group: String,
    /// Stable over restarts: `<host id>.<worker>`.
    pub member: String,
    pub topics: Vec<Arc<str>>,
    pub guarantee: Guarantee,
}

/// How often a record of a source counts, whatever fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// Once: output, state and positions are committed as one.
    #[default]
    ExactlyOnce,
    /// At least once: output and state are acknowledged, then positions are committed. After a failure, records since the last commit count again.
    AtLeastOnce,
}

/// Reads partitions that its owner names.
pub trait Reader: Send {
    /// Reads these partitions, each from the given offset on, and no others.
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError>;
    /// Records, `End` or `Idle`.
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError>;
}

/// A worker's end of the log: consumes as a member of a group, and commits output, state and positions as one.
///
/// What is appended belongs to the open transaction, which begins with the first append after a commit. While a commit is in flight nothing may be
/// appended; polling goes on.
pub trait Member: Send {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError>;
    /// Why the log cannot be reached at the moment, in words for the user. The member goes on trying by itself; asked when a poll brought nothing.
    fn away(&mut self) -> Option<String> {
        None
    }
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError>;
    /// Fetches assigned partitions from these offsets on: after `Assigned` (with none of them, if they are not wanted yet), and again to rewind. Ends a pause.
    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError>;
    /// Fetches these partitions no more until they are started anew; they have no place meanwhile, and cannot be resumed.
    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    /// Stops and restarts fetching from a partition that is started, keeping its place.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    /// Confirms a revocation.
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError>;
    /// Starts to commit what was appended, with these positions and state. Positions are never empty.
    fn begin_commit(&mut self, commit: Commit) -> Result<(), LogError>;
    fn poll_commit(&mut self, wait: Duration) -> Result<CommitState, LogError>;
    /// Drops what was appended since the last commit.
    fn abort(&mut self) -> Result<(), LogError>;
    /// Gives up what the group gave, whatever becomes of the commit in flight: another member is made in its place.
    fn abandon(&mut self) {}
    /// Leaves the group in good order; what is not committed is dropped.
    fn leave(self: Box<Self>) -> Result<(), LogError>;
}

/// Rows of a key range, in the order of keys.
pub type StateRows = Vec<(Vec<u8>, Vec<u8>)>;

/// Among the tasks of a store: what is kept of the types of its rows, under an empty key.
pub const ROW_TYPES: i32 = -1;

/// Committed state, by store, task and encoded key.
pub trait CommittedState: Send + Sync {
    fn get(&self, store: &str, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError>;
    /// Rows with low <= key < high, at most `limit`, in the order of keys. `high` None = to the end.
    fn scan(&self, store: &str, task: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError>;
    /// What is kept of the types of a store's rows, beside them.
    fn row_types(&self, store: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.get(store, ROW_TYPES, &[])
    }
    /// Keeps it, as durably as rows, and before rows that are written after.
    fn keep_row_types(&self, store: &str, types: &[u8]) -> Result<(), LogError>;
}

/// Up to where a local copy of a store's state has the changelog.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// Every record of the changelog's partition below this offset is in.
    pub offset: i64,
    /// Wall clock, milliseconds since the epoch.
    pub written_at: i64,
}

/// A local copy of committed state that a log keeps as changelogs. May lag behind the log, and is rebuilt from it where it is missing.
pub trait LocalState: CommittedState {
    /// None: nothing is known of this store's task; what rows there are do not count.
    fn checkpoint(&self, store: &str, task: i32) -> Result<Option<Checkpoint>, LogError>;
    /// Writes committed rows (the last of equal keys wins), then the checkpoint that they reach, if they reach one. After a crash in between there are
    /// rows beyond the checkpoint, which the changelog brings again.
    fn write(&self, store: &str, task: i32, rows: &[(Vec<u8>, Option<Vec<u8>>)], checkpoint: Option<&Checkpoint>) -> Result<(), LogError>;
    /// Drops everything of a store's task.
    fn wipe(&self, store: &str, task: i32) -> Result<(), LogError>;
}

/// Time, passed in.
pub trait Clock: Send + Sync {
    /// Wall clock, milliseconds since the epoch.
    fn now(&self) -> i64;
    /// Time since some fixed moment; never falls.
    fn elapsed(&self) -> Duration;
    /// Waits so long, or until the thread is unparked.
    fn pause(&self, wait: Duration) {
        std::thread::park_timeout(wait);
    }
}

/// Every partition of a topic.
pub fn partitions_of(log: &dyn Log, topic: &Arc<str>) -> Result<Vec<TopicPartition>, LogError> {
    let Some(described) = log.topic(topic)? else {
        return Err(LogError::stop(format!("there is no topic `{topic}`; create it: {}", log.creation(topic, None))));
    };
    Ok((0..described.partitions).map(|partition| TopicPartition::new(topic.clone(), partition)).collect())
}

/// The partition of a key among `partitions`, as Kafka's Java clients choose it: murmur2 of the key's bytes.
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key, KAFKAS_SEED) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`
const KAFKAS_SEED: u32 = 0x9747_b28c;

/// MurmurHash2, 32 bit.
pub fn murmur2(data: &[u8], seed: u32) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = seed ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        for (text, hash) in [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)] {
            assert_eq!(murmur2(text.as_bytes(), KAFKAS_SEED) as i32, hash, "{text}");
        }
    }
}
