//! What readers, members and stores of a log share: the database, and every write and look-up in it.

use super::catalog::{self, Catalog, TopicEntry};
use super::folder::Folder;
use super::server::Server;
use super::{Durability, Options, framing, keys};
use crate::io::{Commit, LogError, Position, TopicPartition, partition_for};
use crate::record::Records;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

mod removal;

/// What readers, members and stores of a log share.
pub struct Shared {
    /// First: the socket is gone before the folder is.
    pub server: Mutex<Option<Server>>,
    database: Database,
    /// Topics by name.
    topics: Keyspace,
    /// Rows and highest timestamp of each batch.
    index: Keyspace,
    records: Keyspace,
    positions: Keyspace,
    pub state: Keyspace,
    pub catalog: Catalog,
    /// The number of the next topic. None is used twice while the folder is open: whoever still holds a topic that was deleted finds nothing under its number.
    next_topic: AtomicU32,
    /// Held while a commit assigns offsets and writes, and while a topic is created.
    pub writing: Mutex<()>,
    pub appended: Appended,
    /// By name: the turn of whoever writes exclusively next. Over when it has written.
    pub turns: Mutex<HashMap<String, u64>>,
    /// Groups that have a member.
    pub groups: Mutex<HashSet<String>>,
    options: Options,
    /// Where the next record without a key goes.
    spread: AtomicUsize,
    /// Behind the database: the folder is given up when the database is closed.
    pub folder: Folder,
    /// Deleted last.
    _temporary: Option<tempfile::TempDir>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

/// Batches for a partition.
pub struct Append {
    pub topic: Arc<TopicEntry>,
    pub partition: i32,
    pub batches: Vec<framing::EncodedBatch>,
}

/// Counts commits that appended something; who waits for records waits here.
#[derive(Debug, Default)]
pub struct Appended {
    commits: Mutex<u64>,
    changed: Condvar,
}

impl Appended {
    pub fn count(&self) -> u64 {
        *self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        *self.commits.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until the count is no longer `seen`; false if the deadline passed before. No deadline = for ever.
    pub fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        while *commits == seen {
            let Some(deadline) = deadline else {
                commits = self.changed.wait(commits).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            commits = self.changed.wait_timeout(commits, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Batches are big and written once: apart from the keys, so that merging tables does not copy them.
fn records_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .with_kv_separation(Some(KvSeparationOptions::default().compression(CompressionType::Lz4)))
}

impl Shared {
    pub fn open(folder: Folder, options: Options, temporary: Option<tempfile::TempDir>) -> Result<Self, LogError> {
        catalog::check_partitions("(default)", options.partitions)?;
        let failure = |error: fjall::Error| LogError::stop(format!("cannot open the log in {}: {error}", folder.database().display()));
        // Compressing in the journal would cost every commit more than all the rest of it; fjall compresses what it moves to tables.
        let database = Database::builder(folder.database()).journal_compression(CompressionType::None).open().map_err(failure)?;
        let small = KeyspaceCreateOptions::default;
        let topics = database.keyspace("topics", small).map_err(failure)?;
        let index = database.keyspace("index", small).map_err(failure)?;
        let records = database.keyspace("records", records_options).map_err(failure)?;
        let positions = database.keyspace("positions", small).map_err(failure)?;
        let state = database.keyspace("state", small).map_err(failure)?;
        let shared = Self {
            server: Mutex::default(),
            database,
            topics,
            index,
            records,
            positions,
            state,
            catalog: Catalog::default(),
            next_topic: AtomicU32::new(0),
            writing: Mutex::new(()),
            appended: Appended::default(),
            turns: Mutex::default(),
            groups: Mutex::default(),
            options,
            spread: AtomicUsize::new(0),
            folder,
            _temporary: temporary,
        };
        shared.load_topics()?;
        Ok(shared)
    }

    pub fn failure(&self, what: &str, error: &fjall::Error) -> LogError {
        let folder = self.folder.path().display();
        let hint = match error {
            fjall::Error::Poisoned => "an earlier write failed; is the disk full? start again when it is mended",
            _ => "is the disk full or damaged?",
        };
        LogError::stop(format!("cannot {what} in the data folder {folder}: {error} ({hint})"))
    }

    fn damaged(&self, what: &str) -> LogError {
        LogError::stop(format!("the data folder {} is damaged: {what}", self.folder.path().display()))
    }

    fn load_topics(&self) -> Result<(), LogError> {
        for row in self.topics.iter() {
            let (name, value) = row.into_inner().map_err(|error| self.failure("read topics", &error))?;
            let unreadable = || self.damaged("an entry of a topic cannot be read");
            let name: Arc<str> = std::str::from_utf8(&name).map_err(|_| unreadable())?.into();
            let (id, partitions) = value.split_first_chunk::<4>().ok_or_else(unreadable)?;
            let id = u32::from_be_bytes(*id);
            let partitions = partitions.try_into().map(i32::from_be_bytes).map_err(|_| unreadable())?;
            catalog::check_partitions(&name, partitions).map_err(|_| unreadable())?;
            let ends = (0..partitions).map(|partition| self.stored_end(id, partition)).collect::<Result<Vec<_>, _>>()?;
            self.next_topic.fetch_max(id + 1, Ordering::Relaxed);
            self.catalog.add(Arc::new(TopicEntry::new(id, name, ends)));
        }
        Ok(())
    }

    fn stored_end(&self, topic: u32, partition: i32) -> Result<i64, LogError> {
        let Some(last) = self.index.prefix(keys::partition(topic, partition)).next_back() else { return Ok(0) };
        let (key, value) = last.into_inner().map_err(|error| self.failure("read the index", &error))?;
        let end = keys::base(&key).zip(keys::read_index(&value)).map(|(base, (rows, _))| base + rows as i64);
        end.ok_or_else(|| self.damaged("an entry of the index cannot be read"))
    }

    /// The first offset of a partition that is still there.
    pub fn begin(&self, topic: &TopicEntry, partition: i32) -> Result<i64, LogError> {
        let Some(first) = self.index.prefix(keys::partition(topic.id, partition)).next() else { return Ok(0) };
        let key = first.key().map_err(|error| self.failure("read the index", &error))?;
        keys::base(&key).ok_or_else(|| self.damaged("an entry of the index cannot be read"))
    }

    /// Deletes the batches that lie below an offset as a whole. The last one stays: its place is where the next one goes.
    pub fn delete_before(&self, at: &TopicPartition, offset: i64) -> Result<(), LogError> {
        let topic = self.catalog.find(&at.topic)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut before = None;
        for entry in self.index.prefix(keys::partition(topic.id, at.partition)) {
            let key = entry.key().map_err(|error| self.failure("read the index", &error))?;
            let base = keys::base(&key).ok_or_else(|| self.damaged("an entry of the index cannot be read"))?;
            if let Some(key) = before.replace(key) {
                if base > offset {
                    break;
                }
                batch.remove(&self.index, key.clone());
                batch.remove(&self.records, key);
            }
        }
        batch.commit().map_err(|error| self.failure("delete records", &error))
    }

    pub fn topic_or_create(&self, name: &str) -> Result<Arc<TopicEntry>, LogError> {
        if let Some(topic) = self.catalog.get(name) {
            return Ok(topic);
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.catalog.get(name) {
            Some(topic) => Ok(topic),
            None => self.create(name, self.options.partitions),
        }
    }

    /// Creates a topic; `writing` is held.
    pub fn create(&self, name: &str, partitions: i32) -> Result<Arc<TopicEntry>, LogError> {
        catalog::check_name(name)?;
        catalog::check_partitions(name, partitions)?;
        let id = self.next_topic.load(Ordering::Relaxed);
        let value = [id.to_be_bytes(), partitions.to_be_bytes()].concat();
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        batch.insert(&self.topics, name.as_bytes(), value);
        batch.commit().map_err(|error| self.failure("create a topic", &error))?;
        self.next_topic.store(id + 1, Ordering::Relaxed);
        let topic = Arc::new(TopicEntry::new(id, name.into(), (0..partitions).map(|_| 0)));
        self.catalog.add(topic.clone());
        Ok(topic)
    }

    /// Makes records, positions and state visible as one. A partition stands in `appends` once.
    pub fn commit(&self, appends: Vec<Append>, group: &str, commit: &Commit) -> Result<(), LogError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(appends, group, commit)
    }

    /// Like `commit`; `writing` is held.
    pub fn write(&self, appends: Vec<Append>, group: &str, commit: &Commit) -> Result<(), LogError> {
        let mode = match self.options.durability {
            Durability::Process => PersistMode::Buffer,
            Durability::Power => PersistMode::SyncData,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        let mut ends = Vec::with_capacity(appends.len());
        for append in appends {
            let mut end = append.topic.end(append.partition)?;
            for encoded in append.batches {
                let key = keys::batch(append.topic.id, append.partition, end);
                end += encoded.rows as i64;
                batch.insert(&self.index, key, keys::index(encoded.rows, encoded.highest_timestamp));
                batch.insert(&self.records, key, encoded.bytes);
            }
            ends.push((append.topic, append.partition, end));
        }
        for (at, position) in &commit.positions {
            let topic = self.catalog.find(&at.topic)?;
            batch.insert(&self.positions, keys::position(group, topic.id, at.partition), keys::position_value(position));
        }
        for writes in &commit.state {
            let prefix = keys::state(group, &writes.store, writes.task);
            for (key, row) in &writes.rows {
                let full = [prefix.as_slice(), key].concat();
                if full.len() > usize::from(u16::MAX) {
                    let (store, bytes, most) = (&writes.store, key.len(), usize::from(u16::MAX) - prefix.len());
                    return Err(LogError::stop(format!("a key of store `{store}` has {bytes} bytes, the embedded log takes {most}")));
                }
                match row {
                    Some(row) => batch.insert(&self.state, full, row.as_slice()),
                    None => batch.remove(&self.state, full),
                }
            }
        }
        batch.commit().map_err(|error| self.failure("commit", &error))?;
        let appended = !ends.is_empty();
        for (topic, partition, end) in ends {
            topic.move_end(partition, end);
        }
        if appended {
            self.appended.add();
        }
        Ok(())
    }

    pub fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let one = |at: &TopicPartition| {
            let Some(topic) = self.catalog.get(&at.topic) else { return Ok(None) };
            let value = self.positions.get(keys::position(group, topic.id, at.partition));
            let Some(value) = value.map_err(|error| self.failure("read positions", &error))? else { return Ok(None) };
            keys::read_position(&value).map(Some).ok_or_else(|| self.damaged("a position cannot be read"))
        };
        partitions.iter().map(one).collect()
    }

    /// The first offset of the batch that holds `offset`, which is below the end.
    pub fn base_of(&self, topic: &TopicEntry, partition: i32, offset: i64) -> Result<i64, LogError> {
        let (first, last) = (keys::batch(topic.id, partition, 0), keys::batch(topic.id, partition, offset));
        let Some(entry) = self.index.range(first..=last).next_back() else {
            return Err(self.damaged(&format!("no batch holds offset {offset} of {}/{partition}", topic.name)));
        };
        let key = entry.key().map_err(|error| self.failure("read the index", &error))?;
        keys::base(&key).ok_or_else(|| self.damaged("an entry of the index cannot be read"))
    }

    pub fn batch(&self, topic: &TopicEntry, partition: i32, base: i64) -> Result<fjall::Slice, LogError> {
        let batch = self.records.get(keys::batch(topic.id, partition, base)).map_err(|error| self.failure("read records", &error))?;
        batch.ok_or_else(|| self.damaged(&format!("the batch at offset {base} of {}/{partition} is missing", topic.name)))
    }

    pub fn offset_at(&self, at: &TopicPartition, time: i64) -> Result<i64, LogError> {
        let topic = self.catalog.find(&at.topic)?;
        let end = topic.end(at.partition)?;
        for entry in self.index.prefix(keys::partition(topic.id, at.partition)) {
            let (key, value) = entry.into_inner().map_err(|error| self.failure("read the index", &error))?;
            let unreadable = || self.damaged("an entry of the index cannot be read");
            let base = keys::base(&key).ok_or_else(unreadable)?;
            let (_, highest) = keys::read_index(&value).ok_or_else(unreadable)?;
            if highest < time || base >= end {
                continue;
            }
            let bytes = self.batch(&topic, at.partition, base)?;
            let batch = framing::Batch::parse(&bytes).map_err(|error| self.damaged(&error.to_string()))?;
            if let Some(row) = batch.first_at(time) {
                return Ok(base + row as i64);
            }
        }
        Ok(end)
    }

    pub fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError> {
        let topic = self.topic_or_create(topic)?;
        let misshapen = |error| LogError::stop(format!("cannot append to `{}`: {error}", topic.name));
        let mut appends = Vec::new();
        match partition {
            Some(partition) => {
                topic.end(partition)?;
                let batches = framing::encode(records).map_err(misshapen)?;
                appends.push(Append { topic: topic.clone(), partition, batches });
            }
            None if topic.partitions() == 1 => {
                let batches = framing::encode(records).map_err(misshapen)?;
                appends.push(Append { topic: topic.clone(), partition: 0, batches });
            }
            None => {
                let count = topic.partitions();
                let mut rows = vec![Vec::new(); count as usize];
                for row in 0..records.len() {
                    let to = match records.keys.bytes(row) {
                        Some(key) => partition_for(key, count) as usize,
                        None => self.spread.fetch_add(1, Ordering::Relaxed) % count as usize,
                    };
                    if let Some(rows) = rows.get_mut(to) {
                        rows.push(row as u32);
                    }
                }
                for (partition, rows) in (0..).zip(rows).filter(|(_, rows)| !rows.is_empty()) {
                    let batches = framing::encode(&records.gather(&rows)).map_err(misshapen)?;
                    appends.push(Append { topic: topic.clone(), partition, batches });
                }
            }
        }
        appends.retain(|append| !append.batches.is_empty());
        if appends.is_empty() {
            return Ok(());
        }
        self.commit(appends, "", &Commit::default())
    }
}
