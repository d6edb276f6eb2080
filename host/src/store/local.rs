//! The local copies of a pipeline's stores: committed rows in a fjall database in the data folder, in memory for runs that leave nothing behind.
//! What is here may lag behind the changelogs, and can be deleted at any time: it is rebuilt.

use crate::io::{Checkpoint, CommittedState, LocalState, LogError, ROW_TYPES, StateRows};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of the rows' layout. A folder of an older one is rebuilt from the changelogs; one of a newer program is refused.
const FORMAT: u32 = 3;
/// Bytes of blocks that are kept in memory; rows in use are kept by the stores themselves.
const BLOCK_CACHE: u64 = 16 << 20;
/// Bytes of small writes that are kept in memory before they become a table.
const WRITE_BUFFER: u64 = 8 << 20;
/// Bytes of rows that are written as a table at once. What is less goes through the journal, which the next start reads from its beginning: it is cut
/// only at 64 MB, and a million rows in it cost a start some seconds.
const TABLE_BYTES: usize = 1 << 20;
/// Rows that one atomic write drops.
const WIPE_ROWS: usize = 10_000;

/// Rows by store, task and key, in a folder that one process holds.
pub struct LocalFolder {
    path: PathBuf,
    database: Database,
    /// Checkpoints too: a keyspace of their own, which seldom fills its buffer, would keep the journal of all the others.
    rows: Keyspace,
}

impl LocalFolder {
    /// Opens or creates `<data folder>/state/<pipeline>`.
    /// `epoch`: counts how often the pipeline's state was emptied; rows of an earlier one are dropped. None = as they are.
    pub fn open(data: &Path, pipeline: &str, epoch: Option<u64>) -> Result<Self, LogError> {
        let path = data.join("state").join(pipeline);
        let file_failed =
            |what: &str, error: std::io::Error| LogError::stop(format!("cannot {what} the state folder {}: {error}", path.display()));
        std::fs::create_dir_all(&path).map_err(|error| file_failed("create", error))?;
        let format = path.join("format");
        match std::fs::read_to_string(&format) {
            Ok(text) if text.trim().parse() == Ok(FORMAT) => {}
            Ok(text) if text.trim().parse::<u32>().is_ok_and(|found| found < FORMAT) => {
                match std::fs::remove_dir_all(path.join("rows")) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_failed("rebuild", error)),
                    _ => {}
                }
                std::fs::write(&format, format!("{FORMAT}\n")).map_err(|error| file_failed("write", error))?;
            }
            Ok(text) if !text.trim().is_empty() => {
                return Err(LogError::stop(format!(
                    "the state folder {} was written by a newer version of the program (format {}, this one knows format {FORMAT}): use that version, or \
                     delete the folder: it is rebuilt from the changelogs",
                    path.display(),
                    text.trim()
                )));
            }
            Ok(_) => std::fs::write(&format, format!("{FORMAT}\n")).map_err(|error| file_failed("write", error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::write(&format, format!("{FORMAT}\n")).map_err(|error| file_failed("write", error))?;
            }
            Err(error) => return Err(file_failed("read", error)),
        }
        if let Some(epoch) = epoch {
            let file = path.join("epoch");
            let known = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            if known != epoch {
                match std::fs::remove_dir_all(path.join("rows")) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_failed("empty", error)),
                    _ => {}
                }
                std::fs::write(&file, format!("{epoch}\n")).map_err(|error| file_failed("write", error))?;
            }
        }
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => LogError::stop(format!(
                "the state folder {} is in use by another process; name another data folder by --data",
                path.display()
            )),
            error => LogError::stop(format!(
                "cannot open the state folder {}: {error}; is the disk full? If it is damaged, delete it: it is rebuilt from the changelogs",
                path.display()
            )),
        };
        let database = Database::builder(path.join("rows"))
            .journal_compression(CompressionType::None)
            .cache_size(BLOCK_CACHE)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let rows = database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER)).map_err(failed)?;
        Ok(Self { path, database, rows })
    }

    fn failed(&self, what: &str, error: &fjall::Error) -> LogError {
        LogError::stop(format!(
            "cannot {what} state in {}: {error}; is the disk full? Nothing is lost: what is committed stands in the changelogs, and the next run goes on from there",
            self.path.display()
        ))
    }
}

/// The rows of a store's task begin with this: no name is another's prefix, since its length goes first.
fn prefix(store: &str, task: i32) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(store.len() + 64);
    prefix.extend_from_slice(&(store.len() as u16).to_be_bytes());
    prefix.extend_from_slice(store.as_bytes());
    prefix.extend_from_slice(&task.to_be_bytes());
    prefix
}

/// No store's name is so long.
fn checkpoint_key(store: &str, task: i32) -> Vec<u8> {
    [&[0xff, 0xff], prefix(store, task).as_slice()].concat()
}

/// In the order of keys; the last of equal ones.
fn newest(rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<(&[u8], Option<&Vec<u8>>)> {
    let mut newest: Vec<_> = rows.iter().rev().map(|(key, row)| (key.as_slice(), row.as_ref())).collect();
    newest.sort_by_key(|(key, _)| *key);
    newest.dedup_by_key(|(key, _)| *key);
    newest
}

impl CommittedState for LocalFolder {
    fn get(&self, store: &str, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        let mut full = prefix(store, task);
        full.extend_from_slice(key);
        let row = self.rows.get(full).map_err(|error| self.failed("read", &error))?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn scan(&self, store: &str, task: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        let prefix = prefix(store, task);
        let from = [prefix.as_slice(), low].concat();
        let to = high.map(|high| [prefix.as_slice(), high].concat());
        if to.as_ref().is_some_and(|to| from >= *to) {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for row in self.rows.range((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded))).take(limit) {
            let (key, value) = row.into_inner().map_err(|error| self.failed("read", &error))?;
            let Some(key) = key.strip_prefix(prefix.as_slice()) else { break };
            rows.push((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    fn keep_row_types(&self, store: &str, types: &[u8]) -> Result<(), LogError> {
        self.write(store, ROW_TYPES, &[(Vec::new(), Some(types.to_vec()))], None)
    }
}

impl LocalState for LocalFolder {
    fn checkpoint(&self, store: &str, task: i32) -> Result<Option<Checkpoint>, LogError> {
        let found = self.rows.get(checkpoint_key(store, task)).map_err(|error| self.failed("read", &error))?;
        // One that cannot be read is none: the rows are rebuilt.
        Ok(found.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn write(&self, store: &str, task: i32, rows: &[(Vec<u8>, Option<Vec<u8>>)], checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let prefix = prefix(store, task);
        if let Some((key, _)) = rows.iter().find(|(key, _)| prefix.len() + key.len() > usize::from(u16::MAX)) {
            let most = usize::from(u16::MAX) - prefix.len();
            return Err(LogError::stop(format!("a key of store `{store}` has {} bytes, a store takes {most}", key.len())));
        }
        let failed = |error: fjall::Error| self.failed("write", &error);
        let full = |key: &[u8]| [prefix.as_slice(), key].concat();
        // No fsync: a loss of power may take the last writes whole, and the changelog has them.
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        let bytes: usize = rows.iter().map(|(key, row)| key.len() + row.as_ref().map_or(0, Vec::len)).sum();
        if bytes < TABLE_BYTES {
            for (key, row) in rows {
                match row {
                    Some(row) => batch.insert(&self.rows, full(key), row.as_slice()),
                    None => batch.remove(&self.rows, full(key)),
                }
            }
        } else {
            let mut table = self.rows.start_ingestion().map_err(failed)?;
            for (key, row) in newest(rows) {
                match row {
                    Some(row) => table.write(full(key), row.as_slice()),
                    None => table.write_tombstone(full(key)),
                }
                .map_err(failed)?;
            }
            table.finish().map_err(failed)?;
        }
        // After a table, not with it: a crash in between leaves rows that the changelog brings once more.
        if let Some(checkpoint) = checkpoint {
            let text = serde_json::to_vec(checkpoint).map_err(|error| LogError::stop(error.to_string()))?;
            batch.insert(&self.rows, checkpoint_key(store, task), text);
        }
        batch.commit().map_err(failed)
    }

    fn wipe(&self, store: &str, task: i32) -> Result<(), LogError> {
        let prefix = prefix(store, task);
        // The checkpoint first: rows without one do not count.
        self.rows.remove(checkpoint_key(store, task)).map_err(|error| self.failed("write", &error))?;
        loop {
            let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
            let mut count = 0;
            for row in self.rows.prefix(&prefix).take(WIPE_ROWS) {
                batch.remove(&self.rows, row.key().map_err(|error| self.failed("read", &error))?);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            batch.commit().map_err(|error| self.failed("write", &error))?;
        }
    }
}

type MemoryKey = (String, i32);

#[derive(Clone, Default)]
struct Memory {
    rows: BTreeMap<MemoryKey, BTreeMap<Vec<u8>, Vec<u8>>>,
    checkpoints: BTreeMap<MemoryKey, Checkpoint>,
}

/// Rows in memory, gone with the process: for dry runs and simulations.
#[derive(Default)]
pub struct LocalMemory {
    memory: Mutex<Memory>,
}

impl LocalMemory {
    /// Another with the same rows.
    #[cfg(test)]
    pub fn copy(&self) -> Self {
        Self { memory: Mutex::new(self.lock().clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommittedState for LocalMemory {
    fn get(&self, store: &str, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.lock().rows.get(&(store.to_owned(), task)).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, store: &str, task: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        let memory = self.lock();
        let Some(rows) = memory.rows.get(&(store.to_owned(), task)) else { return Ok(Vec::new()) };
        let inside = rows.range(low.to_vec()..).take_while(|(key, _)| high.is_none_or(|high| key.as_slice() < high));
        Ok(inside.take(limit).map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    fn keep_row_types(&self, store: &str, types: &[u8]) -> Result<(), LogError> {
        self.write(store, ROW_TYPES, &[(Vec::new(), Some(types.to_vec()))], None)
    }
}

impl LocalState for LocalMemory {
    fn checkpoint(&self, store: &str, task: i32) -> Result<Option<Checkpoint>, LogError> {
        Ok(self.lock().checkpoints.get(&(store.to_owned(), task)).cloned())
    }

    fn write(&self, store: &str, task: i32, rows: &[(Vec<u8>, Option<Vec<u8>>)], checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let mut memory = self.lock();
        let kept = memory.rows.entry((store.to_owned(), task)).or_default();
        for (key, row) in rows {
            match row {
                Some(row) => drop(kept.insert(key.clone(), row.clone())),
                None => drop(kept.remove(key)),
            }
        }
        if let Some(checkpoint) = checkpoint {
            memory.checkpoints.insert((store.to_owned(), task), checkpoint.clone());
        }
        Ok(())
    }

    fn wipe(&self, store: &str, task: i32) -> Result<(), LogError> {
        let mut memory = self.lock();
        memory.checkpoints.remove(&(store.to_owned(), task));
        memory.rows.remove(&(store.to_owned(), task));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Vec<u8> {
        vec![number]
    }

    fn both(test: impl Fn(&dyn LocalState)) {
        let folder = tempfile::tempdir().unwrap();
        test(&LocalFolder::open(folder.path(), "p", None).unwrap());
        test(&LocalMemory::default());
    }

    #[test]
    fn rows_and_checkpoints_of_each_task_stand_apart() {
        both(|state| {
            let checkpoint = Checkpoint { offset: 7, written_at: 1 };
            state.write("s", 0, &[(key(1), Some(b"a".to_vec())), (key(2), Some(b"b".to_vec()))], Some(&checkpoint)).unwrap();
            state.write("s", 1, &[(key(1), Some(b"other".to_vec()))], None).unwrap();
            state.write("st", 0, &[(key(1), Some(b"longer name".to_vec()))], None).unwrap();
            state.write("s", 0, &[(key(2), None), (key(3), Some(b"c".to_vec()))], None).unwrap();
            assert_eq!(state.checkpoint("s", 0).unwrap(), Some(checkpoint));
            assert_eq!(state.checkpoint("s", 1).unwrap(), None);
            assert_eq!(state.get("s", 0, &key(1)).unwrap(), Some(b"a".to_vec()));
            assert_eq!(state.get("s", 0, &key(2)).unwrap(), None);
            assert_eq!(state.scan("s", 0, &[], None, 10).unwrap(), [(key(1), b"a".to_vec()), (key(3), b"c".to_vec())]);
            assert_eq!(state.scan("s", 0, &key(2), Some(&key(3)), 10).unwrap(), []);
            state.wipe("s", 0).unwrap();
            assert_eq!(state.checkpoint("s", 0).unwrap(), None);
            assert_eq!(state.scan("s", 0, &[], None, 10).unwrap(), []);
            assert_eq!(state.get("s", 1, &key(1)).unwrap(), Some(b"other".to_vec()));
            assert_eq!(state.get("st", 0, &key(1)).unwrap(), Some(b"longer name".to_vec()));
        });
    }

    #[test]
    fn what_is_written_as_a_table_is_as_what_is_written_in_small() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let folder = tempfile::tempdir().unwrap();
        let (kept, model) = (LocalFolder::open(folder.path(), "p", None).unwrap(), LocalMemory::default());
        for offset in 0..12 {
            // Of 40 rows, every second write is above the limit; keys come again within a write, and out of order.
            let width = if offset % 2 == 0 { 10 } else { 2 * TABLE_BYTES / 40 };
            let rows: Vec<_> = (0..40).map(|at| (vec![next(30) as u8], (next(4) > 0).then(|| vec![at; width]))).collect();
            let checkpoint = Checkpoint { offset, written_at: 1 };
            for state in [&kept as &dyn LocalState, &model] {
                state.write("s", 0, &rows, Some(&checkpoint)).unwrap();
                assert_eq!(state.checkpoint("s", 0).unwrap(), Some(checkpoint.clone()));
            }
            assert_eq!(kept.scan("s", 0, &[], None, 100).unwrap(), model.scan("s", 0, &[], None, 100).unwrap(), "after write {offset}");
        }
        drop(kept);
        let again = LocalFolder::open(folder.path(), "p", None).unwrap();
        assert_eq!(again.checkpoint("s", 0).unwrap(), Some(Checkpoint { offset: 11, written_at: 1 }));
        assert_eq!(again.scan("s", 0, &[], None, 100).unwrap(), model.scan("s", 0, &[], None, 100).unwrap());
    }

    #[test]
    fn a_folder_in_use_and_one_of_a_newer_program_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = LocalFolder::open(folder.path(), "p", None).unwrap();
        let error = LocalFolder::open(folder.path(), "p", None).err().unwrap().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(held);
        std::fs::write(folder.path().join("state/p/format"), "4\n").unwrap();
        let error = LocalFolder::open(folder.path(), "p", None).err().unwrap().to_string();
        assert!(error.contains("newer version") && error.contains("delete the folder"), "{error}");
    }
}
