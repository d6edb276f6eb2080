//! A connection to the process that holds a data folder.

use super::server::address_file;
use super::wire::{self, Answer, Hello, PROTOCOL, Request};
use crate::io::LogError;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer is waited for. No request takes as long, not even behind a large append on a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection. One request is under way at a time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    pub pid: u32,
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum Lost {
    /// It was not carried out: the holder is gone, or has given the folder up.
    Undone,
    /// The holder went away before it answered: the request may have been carried out.
    Unknown,
    /// The holder is there and does not answer: the request may be carried out yet.
    Silent,
}

impl Connection {
    /// None if nobody answers (yet). An error if who answers speaks another protocol.
    pub fn open(folder: &Path) -> Result<Option<Self>, LogError> {
        let Ok(address) = std::fs::read(address_file(folder)) else { return Ok(None) };
        let Ok(mut stream) = UnixStream::connect(OsString::from_vec(address)) else { return Ok(None) };
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).map_err(|error| LogError::stop(format!("the socket of the data folder: {error}")))?;
        }
        let Ok((hello, _)) = wire::receive::<Hello>(&mut stream) else { return Ok(None) };
        if hello.protocol == PROTOCOL {
            return Ok(Some(Self { stream, pid: hello.pid }));
        }
        Err(LogError::stop(format!(
            "the data folder {} is in use by process {}, another version of this program: stop it first, or use its version",
            folder.display(),
            hello.pid
        )))
    }

    pub fn ask(&mut self, request: &Request, bytes: &[u8]) -> Result<(Answer, Vec<u8>), Lost> {
        // A request of which something is missing is not carried out.
        wire::send(&mut self.stream, request, bytes).map_err(|_| Lost::Undone)?;
        match wire::receive(&mut self.stream) {
            Ok((Answer::Gone, _)) => Err(Lost::Undone),
            Ok(answer) => Ok(answer),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Lost::Silent),
            Err(_) => Err(Lost::Unknown),
        }
    }
}
