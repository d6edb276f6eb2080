//! The embedded log: topics, records, positions and state of pipelines in one fjall database in the data folder.
//!
//! Records are kept as batches of columns (`framing`), a batch under the first of its offsets; an index beside them holds each batch's rows and
//! highest timestamp. A transaction lives in the member's memory and becomes one atomic write: records, positions and state, with the offsets
//! assigned there, so nothing of an uncommitted transaction exists and offsets have no gaps.

mod attached;
mod attached_reader;
mod catalog;
mod client;
mod cursor;
mod exclusive;
pub mod folder;
mod framing;
mod keys;
mod member;
mod reader;
mod server;
mod shared;
mod state;
mod wire;

pub use attached::AttachedLog;
pub use folder::{FolderError, Identity, host_id, identity};

use crate::io::{Bounds, CommittedState, Log, LogError, Member, Membership, Position, Reader, Topic, TopicPartition};
use crate::record::Records;
use folder::Folder;
use shared::{Append, Shared};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the operating system has it: survives the end of the process, however sudden, but perhaps not a loss of power.
    #[default]
    Process,
    /// When the disk has it: survives a loss of power, at the cost of an fsync for each commit.
    Power,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Partitions of a topic that comes to be by being written or subscribed.
    pub partitions: i32,
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: 1, durability: Durability::default() }
    }
}

/// The log of a data folder that this process holds. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

/// Opens the log of a folder, in this process or through the one that holds it. See `AttachedLog`.
pub fn open(folder: &Path, options: Options) -> anyhow::Result<Arc<dyn Log>> {
    Ok(Arc::new(AttachedLog::open(folder, options)?))
}

/// Folders of temporary logs, of which some may be gone.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl EmbeddedLog {
    /// Takes the folder for this process, opens its log and answers other processes through the folder's socket, until the last clone is gone.
    /// Creates what is missing. A command that holds the folder only to read or append gives it up; where a pipeline runs, this is an error.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        Self::open_with(folder, Options::default())
    }

    pub fn open_with(folder: &Path, options: Options) -> Result<Self, LogError> {
        let log = Self::open_held(attached::take_over(folder)?, options, None)?;
        log.serve_until(None)?;
        Ok(log)
    }

    /// A log in a folder of its own, deleted with the last clone.
    pub fn temporary(options: Options) -> Result<Self, LogError> {
        let folder = tempfile::Builder::new().prefix("millstream-").tempdir();
        let folder = folder.map_err(|error| LogError::stop(format!("cannot create a temporary folder: {error}")))?;
        let held = Folder::hold(folder.path()).map_err(|error| LogError::stop(error.to_string()))?;
        TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).push(folder.path().to_owned());
        Self::open_held(held, options, Some(folder))
    }

    /// Removes the folders of all temporary logs, as the process ends: threads that wait for input may hold one for longer than that.
    pub fn remove_temporary() {
        for folder in std::mem::take(&mut *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)) {
            // Whoever has it open may still write a file.
            for _ in 0..100 {
                match std::fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(std::time::Duration::from_millis(10)),
                    _ => break,
                }
            }
        }
    }

    fn open_held(folder: Folder, options: Options, temporary: Option<tempfile::TempDir>) -> Result<Self, LogError> {
        Ok(Self { shared: Arc::new(Shared::open(folder, options, temporary)?) })
    }

    /// Answers other processes through the folder's socket.
    fn serve_until(&self, give_up: Option<server::GiveUp>) -> Result<(), LogError> {
        let server = server::Server::start(&self.shared, give_up)?;
        *self.shared.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }
}

impl Log for EmbeddedLog {
    fn topics(&self) -> Result<Vec<Topic>, LogError> {
        Ok(self.shared.catalog.all().iter().map(|topic| topic.topic()).collect())
    }

    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError> {
        Ok(self.shared.catalog.get(name).map(|topic| topic.topic()))
    }

    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        let _writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = self.shared.catalog.get(name) {
            return Err(LogError::stop(format!("topic `{name}` exists already, with {} partitions", topic.partitions())));
        }
        self.shared.create(name, partitions).map(|_| ())
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        let topic = self.shared.catalog.find(&partition.topic)?;
        let end = topic.end(partition.partition)?;
        Ok(Bounds { begin: self.shared.begin(&topic, partition.partition)?.min(end), end })
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.shared.delete_topic(name)
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.shared.delete_group(group)
    }

    fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.shared.move_group(group, positions)
    }

    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        partitions.iter().try_for_each(|(at, offset)| self.shared.delete_before(at, *offset))
    }

    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError> {
        self.shared.offset_at(partition, time)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.shared.committed(group, partitions)
    }

    fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError> {
        self.shared.produce(topic, partition, records)
    }

    fn exclusively(
        &self,
        name: &str,
        to: &TopicPartition,
        decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
    ) -> Result<(), LogError> {
        exclusive::write(self, name, to, decide)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(reader::EmbeddedReader::new(self.shared.clone())))
    }

    fn member(&self, membership: &Membership) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(member::EmbeddedMember::join(&self.shared, membership)?))
    }

    fn state(&self, group: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError> {
        Ok(Some(Arc::new(state::EmbeddedState { shared: self.shared.clone(), group: group.to_owned() })))
    }
}
