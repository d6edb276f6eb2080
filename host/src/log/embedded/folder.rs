//! The data folder: its format, its lock, and the identity of the host that it stands for.
//!
//! | file | holds |
//! |---|---|
//! | `format` | the folder's format version |
//! | `host-id` | a random name, made once |
//! | `lock` | locked by the process that has the embedded log open; its process id |
//! | `socket` | the address at which that process answers others |
//! | `pipelines/NAME.lock` | locked by the process that runs the pipeline under this host's name |
//! | `log/` | the embedded log's database |

use crate::random::random;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;

/// Why a folder could not be held.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("the data folder {} is in use by {}", .folder.display(), process(*.pid))]
    Held { folder: PathBuf, pid: Option<u32> },
    #[error("pipeline `{pipeline}` runs already with the data folder {}, in {}; stop it, or name another folder by --data", .folder.display(), process(*.pid))]
    Runs { pipeline: String, folder: PathBuf, pid: Option<u32> },
    #[error("the data folder {} was written by a newer version of the program (format {found}, this one knows format {FORMAT}): use that version, or another folder by --data", .0.display(), found = .1)]
    Newer(PathBuf, String),
    #[error("{what} {}: {error}", .path.display())]
    File { what: &'static str, path: PathBuf, error: std::io::Error },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// A data folder that this process alone holds, until this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, creating it if it is missing.
    pub fn hold(path: &Path) -> Result<Self, FolderError> {
        prepare(path)?;
        let (lock, pid) = lock(&path.join("lock"))?;
        let Some(lock) = lock else { return Err(FolderError::Held { folder: path.to_owned(), pid }) };
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join("log")
    }
}

/// The right to run a pipeline in this host's name, until this is dropped.
#[derive(Debug)]
pub struct Identity {
    pub host_id: String,
    _lock: File,
}

/// Takes the name of this host for a pipeline: two processes with one name would push each other out of the group.
/// Apart from the lock of the embedded log, so a pipeline on Kafka does not keep others from the folder's topics.
pub fn identity(folder: &Path, pipeline: &str) -> Result<Identity, FolderError> {
    let host_id = host_id(folder)?;
    let pipelines = folder.join("pipelines");
    std::fs::create_dir_all(&pipelines).map_err(file_error("cannot create", &pipelines))?;
    let name: String = pipeline.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let (lock, pid) = lock(&pipelines.join(format!("{name}.lock")))?;
    let Some(lock) = lock else { return Err(FolderError::Runs { pipeline: pipeline.to_owned(), folder: folder.to_owned(), pid }) };
    Ok(Identity { host_id, _lock: lock })
}

/// The host's name, made at the first call. Does not touch the embedded log and needs no lock.
pub fn host_id(folder: &Path) -> Result<String, FolderError> {
    prepare(folder)?;
    let path = folder.join("host-id");
    if let Some(id) = read_host_id(&path)? {
        return Ok(id);
    }
    // Written aside and linked into place: of two processes that come at once both end with the same name.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(file_error("cannot write into", folder))?;
    writeln!(file, "{:012x}", random() >> 16).map_err(file_error("cannot write", &path))?;
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file_error("cannot write", &path)(error.error)),
    }
    let empty = || file_error("cannot use", &path)(std::io::Error::other("it is empty; remove it to get a new host id"));
    read_host_id(&path)?.ok_or_else(empty)
}

fn read_host_id(path: &Path) -> Result<Option<String>, FolderError> {
    match std::fs::read_to_string(path) {
        Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("cannot read", path)(error)),
    }
}

/// Creates the folder if it is missing and checks its format.
fn prepare(folder: &Path) -> Result<(), FolderError> {
    // Records are nobody else's business; a folder that exists keeps the permissions that it has.
    let create = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    create.map_err(file_error("cannot create the data folder", folder))?;
    let path = folder.join("format");
    match std::fs::read_to_string(&path) {
        // Written whole or not at all, but for a crash between the two steps of a write.
        Ok(text) if text.trim().is_empty() => write_format(&path),
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(format) if format <= FORMAT => Ok(()),
            _ => Err(FolderError::Newer(folder.to_owned(), text.trim().chars().take(20).collect())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_format(&path),
        Err(error) => Err(file_error("cannot read", &path)(error)),
    }
}

fn write_format(path: &Path) -> Result<(), FolderError> {
    std::fs::write(path, format!("{FORMAT}\n")).map_err(file_error("cannot write", path))
}

/// Locks a file and writes this process's id into it; else the id that stands there.
fn lock(path: &Path) -> Result<(Option<File>, Option<u32>), FolderError> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let mut file = open.map_err(file_error("cannot open", path))?;
    match file.try_lock() {
        Ok(()) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(file_error("cannot write", path))?;
            Ok((Some(file), None))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Ok((None, pid))
        }
        Err(TryLockError::Error(error)) => Err(file_error("cannot lock", path)(error)),
    }
}

fn file_error(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> FolderError {
    let path = path.to_owned();
    move |error| FolderError::File { what, path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::hold(folder.path()).unwrap();
        let error = Folder::hold(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(held);
        Folder::hold(folder.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("format"), "2\n").unwrap();
        let error = Folder::hold(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 2") && error.contains("format 1"), "{error}");
    }

    #[test]
    fn the_host_id_is_made_once_and_locked_by_pipeline() {
        let folder = tempfile::tempdir().unwrap();
        let id = host_id(folder.path()).unwrap();
        assert_eq!(id.len(), 12);
        let first = identity(folder.path(), "a/b").unwrap();
        assert_eq!(first.host_id, id);
        identity(folder.path(), "other").unwrap();
        assert!(identity(folder.path(), "a/b").unwrap_err().to_string().contains("runs already"));
        drop(first);
        identity(folder.path(), "a/b").unwrap();
    }
}
