//! A connection to the process that holds a data folder.

use super::server::address_file;
use super::wire::{self, Answer, Hello, PROTOCOL, Request};
use crate::io::LogError;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long is waited for a holder's greeting, and for an answer before it is looked whether it still greets.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection. One request is under way at a time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    folder: PathBuf,
    pub pid: u32,
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum Lost {
    /// It was not carried out: the holder is gone, or has given the folder up.
    Undone,
    /// The holder went away before it answered: the request may have been carried out.
    Unknown,
    /// The holder is there and does not answer, nor greet anybody: the request may be carried out yet.
    Silent,
}

impl Connection {
    /// None if nobody answers (yet). An error if who answers speaks another protocol.
    pub fn open(folder: &Path) -> Result<Option<Self>, LogError> {
        let Some((stream, hello)) = greeted(folder) else { return Ok(None) };
        if hello.protocol == PROTOCOL {
            return Ok(Some(Self { stream, folder: folder.to_owned(), pid: hello.pid }));
        }
        Err(LogError::stop(format!(
            "the data folder {} is in use by process {}, another version of this program: stop it first, or use its version",
            folder.display(),
            hello.pid
        )))
    }

    pub fn ask(&mut self, request: &Request, bytes: &[u8]) -> Result<(Answer, Vec<u8>), Lost> {
        let lost = |error: std::io::Error, otherwise| if is_late(&error) { Lost::Silent } else { otherwise };
        // A request of which something is missing is not carried out.
        wire::send(&mut Patient(self), request, bytes).map_err(|error| lost(error, Lost::Undone))?;
        match wire::receive(&mut Patient(self)) {
            Ok((Answer::Gone, _)) => Err(Lost::Undone),
            Ok(answer) => Ok(answer),
            Err(error) => Err(lost(error, Lost::Unknown)),
        }
    }
}

/// A stream to the holder, which has greeted. None: nobody does.
fn greeted(folder: &Path) -> Option<(UnixStream, Hello)> {
    let address = std::fs::read(address_file(folder)).ok()?;
    let mut stream = UnixStream::connect(OsString::from_vec(address)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).ok()?;
    let (hello, _) = wire::receive::<Hello>(&mut stream).ok()?;
    Some((stream, hello))
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The holder may take its time for an answer, as long as it greets whoever else comes: it works on it.
struct Patient<'c>(&'c Connection);

impl Patient<'_> {
    fn until_done<T>(&self, mut work: impl FnMut(&UnixStream) -> std::io::Result<T>) -> std::io::Result<T> {
        loop {
            match work(&self.0.stream) {
                Err(error) if is_late(&error) && greeted(&self.0.folder).is_some_and(|(_, hello)| hello.pid == self.0.pid) => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.until_done(|mut stream| stream.read(bytes))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.until_done(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
