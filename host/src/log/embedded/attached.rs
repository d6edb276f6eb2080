//! The log of a data folder as commands use it: whoever comes first holds the folder and answers the others through its socket; when it goes, the
//! next one takes over. A command that only reads or appends gives the folder up to a process that wants to run a pipeline.

use super::attached_reader::AttachedReader;
use super::client::{Connection, Lost};
use super::exclusive::{self, Turns};
use super::folder::{Folder, FolderError};
use super::server::GiveUp;
use super::wire::{Answer, Place, Request, failure};
use super::{EmbeddedLog, Options, framing};
use crate::io::{Bounds, CommittedState, Log, LogError, Member, Membership, Position, Reader, Remedy, Topic, TopicPartition};
use crate::record::Records;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for a process that holds the folder but does not answer: it may be reading its journal after a crash.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a folder that was given up is left to who asked for it.
const LEFT_ALONE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(15);

/// The log of a folder, held by this process or another. Clones are the same log.
#[derive(Clone, Debug)]
pub struct AttachedLog(Arc<Attached>);

#[derive(Debug)]
struct Attached {
    folder: PathBuf,
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    role: Option<Role>,
    /// Counts the roles taken.
    turn: u64,
    /// A pipeline runs here: the folder is not given up.
    pinned: bool,
    given_up: Option<Instant>,
}

/// How this process reaches the log.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Holder(EmbeddedLog),
    Client(Arc<Mutex<Connection>>),
}

/// The folder's log, in this process: asked for from whoever holds it for a moment only.
pub(super) fn take_over(folder: &Path) -> Result<Folder, LogError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = match Folder::hold(folder) {
            Ok(folder) => return Ok(folder),
            Err(held @ FolderError::Held { .. }) => held,
            Err(error) => return Err(LogError::stop(error.to_string())),
        };
        let answer = Connection::open(folder)?.map(|mut connection| connection.ask(&Request::Yield, &[]));
        if let Some(Ok((Answer::Refused, _))) = answer {
            return Err(LogError::stop(format!(
                "{held}, which runs a pipeline: pipelines run in the process that holds the folder; stop it, or name another folder by --data"
            )));
        }
        if Instant::now() >= deadline {
            return Err(LogError::stop(format!("{held}, which does not give it up; stop it, or name another folder by --data")));
        }
        thread::sleep(PAUSE);
    }
}

impl AttachedLog {
    pub fn open(folder: &Path, options: Options) -> Result<Self, LogError> {
        let log = Self(Arc::new(Attached { folder: folder.to_owned(), options, state: Mutex::default() }));
        log.role()?;
        Ok(log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the log is reached now, and the number of this role.
    pub(super) fn role(&self) -> Result<(Role, u64), LogError> {
        let mut state = self.state();
        if let Some(role) = &state.role {
            return Ok((role.clone(), state.turn));
        }
        let deadline = Instant::now() + PATIENCE;
        let role = loop {
            let mut why = FolderError::Held { folder: self.0.folder.clone(), pid: None };
            if state.given_up.is_none_or(|since| since.elapsed() > LEFT_ALONE) {
                match Folder::hold(&self.0.folder) {
                    Ok(folder) => break Role::Holder(self.serve(folder)?),
                    Err(held @ FolderError::Held { .. }) => why = held,
                    Err(error) => return Err(LogError::stop(error.to_string())),
                }
            }
            if let Some(connection) = Connection::open(&self.0.folder)? {
                break Role::Client(Arc::new(Mutex::new(connection)));
            }
            if Instant::now() >= deadline {
                return Err(LogError::stop(format!("{why}, which does not answer; stop it, or name another folder by --data")));
            }
            thread::sleep(PAUSE);
        };
        state.role = Some(role.clone());
        state.turn += 1;
        state.given_up = None;
        Ok((role, state.turn))
    }

    fn serve(&self, folder: Folder) -> Result<EmbeddedLog, LogError> {
        let log = EmbeddedLog::open_held(folder, self.0.options, None)?;
        let attached = Arc::downgrade(&self.0);
        // The process that goes gives up what it holds in any case.
        let give_up: GiveUp = Arc::new(move || attached.upgrade().is_none_or(|attached| Self(attached).give_up()));
        log.serve_until(Some(give_up))?;
        Ok(log)
    }

    fn give_up(&self) -> bool {
        let mut state = self.state();
        if state.pinned {
            return false;
        }
        if matches!(state.role, Some(Role::Holder(_))) {
            let role = state.role.take();
            state.given_up = Some(Instant::now());
            // Closing the database takes a while: not under the lock.
            drop(state);
            drop(role);
        }
        true
    }

    /// Forgets a role that has turned out to be none any more.
    pub(super) fn lost(&self, turn: u64) {
        let mut state = self.state();
        if state.turn == turn && !matches!(state.role, Some(Role::Holder(_))) {
            state.role = None;
        }
    }

    /// The log in this process, for good.
    fn pinned(&self) -> Result<EmbeddedLog, LogError> {
        let mut state = self.state();
        if let Some(Role::Holder(log)) = &state.role {
            let log = log.clone();
            state.pinned = true;
            return Ok(log);
        }
        let log = self.serve(take_over(&self.0.folder)?)?;
        *state = State { role: Some(Role::Holder(log.clone())), turn: state.turn + 1, pinned: true, given_up: None };
        Ok(log)
    }

    pub(super) fn connect(&self) -> Result<Option<Connection>, LogError> {
        Connection::open(&self.0.folder)
    }

    /// Does it here, or asks the holder; again at the next holder if this one is gone and nothing was done.
    fn either<T>(
        &self,
        here: impl Fn(&EmbeddedLog) -> Result<T, LogError>,
        request: &Request,
        bytes: &[u8],
        there: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, LogError> {
        loop {
            let (role, turn) = self.role()?;
            let connection = match role {
                Role::Holder(log) => return here(&log),
                Role::Client(connection) => connection,
            };
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            match connection.ask(request, bytes) {
                Ok((Answer::Failed(remedy, message), _)) => return Err(failure(&remedy, message)),
                Ok((answer, _)) => return there(answer).ok_or_else(|| out_of_step(connection.pid)),
                Err(Lost::Unknown) if matches!(request, Request::Produce(..) | Request::CreateTopic(..)) => {
                    self.lost(turn);
                    let message = format!(
                        "process {}, which holds the data folder, ended before it answered: whether the last records were appended is unknown",
                        connection.pid
                    );
                    return Err(LogError { remedy: Remedy::Indefinite, message });
                }
                Err(Lost::Silent) => {
                    // An answer that comes late must not be taken for that of another question.
                    self.lost(turn);
                    let appends = matches!(request, Request::Produce(..) | Request::CreateTopic(..) | Request::AppendInTurn(..));
                    return Err(LogError::stop(format!(
                        "process {}, which holds the data folder {}, does not answer: does it stand still? End it, or name another folder by --data{}",
                        connection.pid,
                        self.0.folder.display(),
                        if appends { "; whether what was asked for last was done is unknown" } else { "" }
                    )));
                }
                Err(Lost::Undone | Lost::Unknown) => self.lost(turn),
            }
        }
    }
}

pub(super) fn out_of_step(pid: u32) -> LogError {
    LogError::stop(format!("process {pid}, which holds the data folder, gave an answer that does not fit the question"))
}

fn listed(answer: Answer) -> Option<Vec<Topic>> {
    let Answer::Topics(topics) = answer else { return None };
    Some(topics.into_iter().map(|(name, partitions)| Topic { name: name.into(), partitions, max_message_bytes: None }).collect())
}

fn done(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

/// Sent again if the holder goes before it answers: the next one knows no turns, so that whatever was decided is decided anew.
impl Turns for AttachedLog {
    fn turn(&self, name: &str) -> Result<u64, LogError> {
        let there = |answer| if let Answer::Turn(turn) = answer { Some(turn) } else { None };
        self.either(|log| log.turn(name), &Request::Turn(name.to_owned()), &[], there)
    }

    fn append_in_turn(&self, name: &str, turn: u64, to: &TopicPartition, records: &Records) -> Result<bool, LogError> {
        let request = Request::AppendInTurn(name.to_owned(), turn, to.into());
        let bytes = framing::encode_whole(records).map_err(|error| LogError::stop(format!("cannot append to {to}: {error}")))?;
        let there = |answer| match answer {
            Answer::Done => Some(true),
            Answer::Overtaken => Some(false),
            _ => None,
        };
        self.either(|log| log.append_in_turn(name, turn, to, records), &request, &bytes, there)
    }
}

impl Log for AttachedLog {
    fn topics(&self) -> Result<Vec<Topic>, LogError> {
        self.either(|log| log.topics(), &Request::Topics, &[], listed)
    }

    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError> {
        self.either(|log| log.topic(name), &Request::Topic(name.to_owned()), &[], |answer| listed(answer).map(|mut topics| topics.pop()))
    }

    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        self.either(|log| log.create_topic(name, partitions), &Request::CreateTopic(name.to_owned(), partitions), &[], done)
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        let there = |answer| if let Answer::Bounds(begin, end) = answer { Some(Bounds { begin, end }) } else { None };
        self.either(|log| log.bounds(partition), &Request::Bounds(partition.into()), &[], there)
    }

    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError> {
        let there = |answer| if let Answer::Offset(offset) = answer { Some(offset) } else { None };
        self.either(|log| log.offset_at(partition, time), &Request::OffsetAt(partition.into(), time), &[], there)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let request = Request::Committed(group.to_owned(), partitions.iter().map(Place::from).collect());
        let there = |answer| {
            let Answer::Committed(positions) = answer else { return None };
            let position = |(offset, metadata)| Position { offset, metadata };
            (positions.len() == partitions.len()).then(|| positions.into_iter().map(|at| at.map(position)).collect())
        };
        self.either(|log| log.committed(group, partitions), &request, &[], there)
    }

    fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError> {
        let request = Request::Produce(topic.to_owned(), partition);
        let bytes = match self.role()?.0 {
            Role::Holder(log) => return log.produce(topic, partition, records),
            Role::Client(_) => {
                framing::encode_whole(records).map_err(|error| LogError::stop(format!("cannot append to `{topic}`: {error}")))?
            }
        };
        self.either(|log| log.produce(topic, partition, records), &request, &bytes, done)
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
        Ok(Box::new(AttachedReader::new(self.clone())))
    }

    fn member(&self, membership: &Membership) -> Result<Box<dyn Member>, LogError> {
        self.pinned()?.member(membership)
    }

    // Sent again if the holder goes before it answers: done twice is as done once.
    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.either(|log| log.delete_topic(name), &Request::DeleteTopic(name.to_owned()), &[], done)
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.either(|log| log.delete_group(group), &Request::DeleteGroup(group.to_owned()), &[], done)
    }

    fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let places = positions.iter().map(|(at, position)| (at.into(), position.offset, position.metadata.clone())).collect();
        self.either(|log| log.move_group(group, positions), &Request::MoveGroup(group.to_owned(), places), &[], done)
    }

    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.pinned()?.delete_before(partitions)
    }

    fn state(&self, group: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError> {
        self.pinned()?.state(group)
    }
}
