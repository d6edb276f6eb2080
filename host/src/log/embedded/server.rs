//! The holder's end of the socket: answers other processes of the same user.

use super::cursor::Cursors;
use super::exclusive::Turns;
use super::wire::{self, Answer, Hello, PROTOCOL, Request};
use super::{EmbeddedLog, Shared, framing};
use crate::io::{Event, FetchLimit, Log, LogError, Position, TopicPartition};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// A socket's address has room for 107 bytes; less on some systems.
const MOST_ADDRESS: usize = 100;

/// One poll holds the log open for that long at most, so that who gives the folder up need not wait for readers.
const MOST_WAIT: Duration = Duration::from_millis(250);

/// Gives the folder up unless a pipeline runs; tells whether it did.
pub type GiveUp = Arc<dyn Fn() -> bool + Send + Sync>;

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    stopped: Arc<AtomicBool>,
    /// A folder of its own, where the data folder's path is too long or takes no sockets.
    _elsewhere: Option<tempfile::TempDir>,
}

/// The file that tells where the socket is.
pub fn address_file(folder: &Path) -> PathBuf {
    folder.join("socket")
}

impl Server {
    /// `give_up` None: the folder is never given up.
    pub fn start(shared: &Arc<Shared>, give_up: Option<GiveUp>) -> Result<Self, LogError> {
        let folder = shared.folder.path();
        let failure =
            |error: std::io::Error| LogError::stop(format!("cannot open the socket of the data folder {}: {error}", folder.display()));
        let (listener, socket, elsewhere) = listen(folder).map_err(failure)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let server = Self { socket, stopped: stopped.clone(), _elsewhere: elsewhere };
        std::fs::write(address_file(folder), server.socket.as_os_str().as_encoded_bytes()).map_err(failure)?;
        let shared = Arc::downgrade(shared);
        let accept = move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else {
                    // Out of descriptors, most likely: let others end first.
                    thread::sleep(Duration::from_millis(50));
                    continue;
                };
                let (shared, give_up) = (shared.clone(), give_up.clone());
                let started = thread::Builder::new().name("millstream-socket".into()).spawn(move || {
                    if let Err(error) = converse(stream, &shared, give_up.as_ref()) {
                        tracing::debug!(%error, "a connection to the data folder's socket ended");
                    }
                });
                if let Err(error) = started {
                    tracing::warn!(%error, "cannot answer on the data folder's socket");
                }
            }
        };
        thread::Builder::new().name("millstream-accept".into()).spawn(accept).map_err(failure)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts; it sees the flag and ends.
        drop(UnixStream::connect(&self.socket));
        drop(std::fs::remove_file(&self.socket));
    }
}

/// Listens in the data folder if its path is short enough, else in a folder of its own. Both are for this user alone.
fn listen(folder: &Path) -> std::io::Result<(UnixListener, PathBuf, Option<tempfile::TempDir>)> {
    let run = std::path::absolute(folder)?.join("run");
    let socket = run.join("socket");
    if socket.as_os_str().len() <= MOST_ADDRESS {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run)?;
        // Also if it was there before, whoever made it.
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700))?;
        // Left by a holder that was killed: nobody listens there, for the folder is ours.
        drop(std::fs::remove_file(&socket));
        match UnixListener::bind(&socket) {
            Ok(listener) => return Ok((listener, socket, None)),
            Err(error) => tracing::debug!(%error, "the data folder takes no socket"),
        }
    }
    let mut elsewhere = tempfile::Builder::new().prefix("millstream-").tempdir()?;
    if elsewhere.path().as_os_str().len() > MOST_ADDRESS - 2 {
        elsewhere = tempfile::Builder::new().prefix("millstream-").tempdir_in("/tmp")?;
    }
    let socket = elsewhere.path().join("s");
    Ok((UnixListener::bind(&socket)?, socket, Some(elsewhere)))
}

fn converse(mut stream: UnixStream, shared: &Weak<Shared>, give_up: Option<&GiveUp>) -> std::io::Result<()> {
    wire::send(&mut stream, &Hello { protocol: PROTOCOL, pid: std::process::id() }, &[])?;
    let mut cursors = Cursors::default();
    loop {
        let (request, bytes): (Request, _) = wire::receive(&mut stream)?;
        let (answer, bytes) = match (request, shared.upgrade()) {
            (_, None) => (Answer::Gone, Vec::new()),
            (Request::Yield, Some(shared)) => {
                // The last one who holds the log open closes it.
                drop(shared);
                let yielded = give_up.is_some_and(|give_up| give_up());
                (if yielded { Answer::Yielded } else { Answer::Refused }, Vec::new())
            }
            (request, Some(shared)) => {
                answer(&shared, &mut cursors, request, &bytes).unwrap_or_else(|error| (Answer::failed(&error), Vec::new()))
            }
        };
        wire::send(&mut stream, &answer, &bytes)?;
        stream.flush()?;
    }
}

fn answer(shared: &Arc<Shared>, cursors: &mut Cursors, request: Request, bytes: &[u8]) -> Result<(Answer, Vec<u8>), LogError> {
    let log = EmbeddedLog { shared: shared.clone() };
    let at = |place| TopicPartition::from(place);
    let answer = match request {
        Request::Topics => Answer::topics(&log.topics()?),
        Request::Topic(name) => Answer::topics(log.topic(&name)?.as_slice()),
        Request::CreateTopic(name, partitions) => log.create_topic(&name, partitions).map(|()| Answer::Done)?,
        Request::Bounds(place) => Answer::bounds(log.bounds(&at(place))?),
        Request::OffsetAt(place, time) => Answer::Offset(log.offset_at(&at(place), time)?),
        Request::Committed(group, places) => {
            let partitions: Vec<TopicPartition> = places.into_iter().map(at).collect();
            Answer::committed(log.committed(&group, &partitions)?)
        }
        Request::DeleteTopic(name) => log.delete_topic(&name).map(|()| Answer::Done)?,
        Request::DeleteGroup(group) => log.delete_group(&group).map(|()| Answer::Done)?,
        Request::MoveGroup(group, places) => {
            let positions: Vec<_> =
                places.into_iter().map(|(place, offset, metadata)| (at(place), Position { offset, metadata })).collect();
            log.move_group(&group, &positions).map(|()| Answer::Done)?
        }
        Request::Produce(topic, partition) => {
            let records = framing::decode(bytes).map_err(|error| LogError::stop(error.to_string()))?;
            log.produce(&topic, partition, &records).map(|()| Answer::Done)?
        }
        Request::Turn(name) => Answer::Turn(log.turn(&name)?),
        Request::AppendInTurn(name, turn, place) => {
            let records = framing::decode(bytes).map_err(|error| LogError::stop(error.to_string()))?;
            if log.append_in_turn(&name, turn, &at(place), &records)? { Answer::Done } else { Answer::Overtaken }
        }
        Request::Assign(places) => {
            *cursors = Cursors::default();
            for (place, offset) in places {
                cursors.start(shared, &at(place), offset)?;
            }
            Answer::Done
        }
        Request::Poll { rows, bytes, wait_ms } => {
            let wait = Duration::from_millis(wait_ms).min(MOST_WAIT);
            match cursors.poll(shared, FetchLimit { rows, bytes }, wait)? {
                Event::Records(fetched) => {
                    let first = fetched.offsets.first().copied().unwrap_or_default();
                    let bytes = framing::encode_whole(&fetched.records).map_err(|error| LogError::stop(error.to_string()))?;
                    return Ok((Answer::Records((&fetched.from).into(), first), bytes));
                }
                Event::End { at, offset } => Answer::End((&at).into(), offset),
                _ => Answer::Idle,
            }
        }
        Request::Yield => Answer::Refused,
    };
    Ok((answer, Vec::new()))
}
