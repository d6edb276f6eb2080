//! All that is outside of the workers: the brokers, the folders with local copies, time, and what goes wrong. One world in a thread; whatever
//! a worker calls comes by here, and each call is a place where its process may die or stand still.

use super::broker::{Broker, Refusal};
use super::fleet;
use super::random::Random;
use crate::io::{Checkpoint, Clock, CommittedState, LocalState, LogError, Remedy, StateRows};
use crate::store::LocalMemory;
use crate::store::changelog::Claims;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// How often things go wrong: once in so many calls, 0 = never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crash: usize,
    /// A process stands still, for the turns of others.
    pub still: usize,
    /// The log cannot be reached.
    pub away: usize,
    /// What was appended was not taken.
    pub untaken: usize,
    /// Of commits: nobody knows how they ended.
    pub indefinite: usize,
}

/// What went wrong, and what was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub calls: u64,
    pub crashes: u64,
    pub stills: u64,
    pub errors: u64,
    pub indefinite: u64,
    pub refused: u64,
    pub expired: u64,
    pub replaced: u64,
    pub copies: u64,
    /// Deployments that group by something else: made active, and given up.
    pub regrouped: u64,
    pub withdrawn: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.crashes += other.crashes;
        self.stills += other.stills;
        self.errors += other.errors;
        self.indefinite += other.indefinite;
        self.refused += other.refused;
        self.expired += other.expired;
        self.replaced += other.replaced;
        self.copies += other.copies;
        self.regrouped += other.regrouped;
        self.withdrawn += other.withdrawn;
    }
}

/// A program that runs, or ran.
#[derive(Debug)]
pub struct Process {
    /// Instance and transactional id.
    pub name: Arc<str>,
    /// Its local copies.
    pub folder: usize,
    pub dead: bool,
    /// Another was alive that had its name: each may fence the other.
    pub rival: bool,
    /// Has joined the group once.
    pub joined: bool,
}

pub struct World {
    pub random: Random,
    pub now: Duration,
    pub broker: Broker,
    pub folders: Vec<LocalMemory>,
    /// By folder: of the process that has it.
    pub claims: Vec<Arc<Claims>>,
    pub processes: Vec<Process>,
    pub faults: Faults,
    /// Commits and markers go on once in so many calls.
    pub slow: usize,
    pub figures: Figures,
    /// Told when a seed is run alone.
    pub loud: bool,
}

/// Wall clock at the start.
const EPOCH: i64 = 1_700_000_000_000;

/// No run takes so long.
const LAST: Duration = Duration::from_secs(100_000);

thread_local!(static WORLD: RefCell<Option<World>> = const { RefCell::new(None) });

pub fn begin(world: World) {
    WORLD.set(Some(world));
}

pub fn with<T>(work: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a world was begun in this thread")))
}

pub fn pass(time: Duration) {
    with(|world| world.now += time);
}

/// Says what happens, when a seed is run alone.
macro_rules! say {
    ($($what:tt)*) => {
        if $crate::simulation::world::with(|world| world.loud) {
            let now = $crate::simulation::world::with(|world| world.now);
            eprintln!("{now:>12.3?} {}", format_args!($($what)*));
        }
    };
}
pub(super) use say;

impl World {
    /// Ends a process, and with it all workers that share its folder.
    pub fn kill(&mut self, process: usize) {
        let folder = self.processes[process].folder;
        self.processes.iter_mut().filter(|other| other.folder == folder).for_each(|other| other.dead = true);
    }

    /// What goes on beside the caller.
    pub fn go_on(&mut self) {
        self.now += self.random.micros(1000);
        if self.random.once_in(self.slow) {
            self.broker.go_on(&mut self.random, self.now);
        }
    }
}

/// One process' end of the world.
#[derive(Clone, Debug)]
pub struct Handle {
    pub process: usize,
    pub name: Arc<str>,
}

pub fn dead() -> LogError {
    LogError::stop("the process is dead")
}

impl Handle {
    /// Begins every call. Err: the process is dead, the call does nothing.
    pub fn enter(&self) -> Result<(), LogError> {
        self.pass(true)
    }

    /// `still`: the process may stand still here.
    fn pass(&self, still: bool) -> Result<(), LogError> {
        enum Then {
            GoOn,
            Dead,
            Crash,
            Still,
        }
        let process = self.process;
        let then = with(|world| {
            if world.processes[process].dead {
                return Then::Dead;
            }
            world.figures.calls += 1;
            world.go_on();
            if world.random.once_in(world.faults.crash) {
                world.kill(process);
                world.figures.crashes += 1;
                return Then::Crash;
            }
            if still && world.random.once_in(world.faults.still) { Then::Still } else { Then::GoOn }
        });
        match then {
            Then::GoOn => Ok(()),
            Then::Dead => Err(dead()),
            Then::Crash => {
                say!("{self} dies");
                Err(dead())
            }
            Then::Still => {
                fleet::stand_still(self);
                Ok(())
            }
        }
    }

    /// As `enter`, for a call that needs the brokers.
    pub fn reach(&self) -> Result<(), LogError> {
        self.enter()?;
        let away = with(|world| {
            let away = world.random.once_in(world.faults.away);
            world.figures.errors += u64::from(away);
            away
        });
        if away { Err(wait("no broker answers")) } else { Ok(()) }
    }

    /// Asks the brokers until they have time.
    pub fn ask<T>(&self, what: &str, mut ask: impl FnMut(&mut Broker, Duration) -> Result<T, Refusal>) -> Result<T, LogError> {
        for _ in 0..400 {
            let answer = with(|world| ask(&mut world.broker, world.now));
            match answer {
                Err(Refusal::Concurrent) => with(|world| {
                    world.now += Duration::from_millis(5);
                    world.go_on();
                }),
                Ok(answer) => return Ok(answer),
                Err(refusal) => {
                    with(|world| world.figures.refused += 1);
                    say!("{self}: {what}: {refusal:?}");
                    return Err(refused(what, refusal));
                }
            }
        }
        Err(wait(&format!("{what}: the transaction before has not ended")))
    }
}

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.name, self.process)
    }
}

pub fn wait(what: &str) -> LogError {
    LogError { remedy: Remedy::Wait, message: what.to_owned() }
}

fn refused(what: &str, refusal: Refusal) -> LogError {
    let remedy = match refusal {
        Refusal::Fenced => Remedy::Fenced,
        Refusal::IllegalGeneration => Remedy::Rewind,
        Refusal::Concurrent => Remedy::Wait,
        // librdkafka: fatal, and only a new producer may go on.
        Refusal::InvalidState => Remedy::Indefinite,
    };
    LogError { remedy, message: format!("{what}: {refusal:?}") }
}

/// The world's time.
#[derive(Debug)]
pub struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> i64 {
        EPOCH + with(|world| world.now).as_millis() as i64
    }

    fn elapsed(&self) -> Duration {
        with(|world| world.now)
    }

    fn pause(&self, wait: Duration) {
        let now = with(|world| {
            world.now += wait;
            world.go_on();
            world.now
        });
        assert!(now < LAST, "a worker waits and tries again without end");
    }
}

/// The local copies of a process.
pub struct Folder {
    pub handle: Handle,
    pub number: usize,
}

impl Folder {
    fn open<T>(&self, work: impl FnOnce(&LocalMemory) -> Result<T, LogError>) -> Result<T, LogError> {
        // Under a lock: a worker that stood still here would hold up the others of its host.
        self.handle.pass(false)?;
        with(|world| work(&world.folders[self.number]))
    }
}

impl CommittedState for Folder {
    fn get(&self, store: &str, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.open(|memory| memory.get(store, task, key))
    }

    fn scan(&self, store: &str, task: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        self.open(|memory| memory.scan(store, task, low, high, limit))
    }

    fn keep_row_types(&self, store: &str, types: &[u8]) -> Result<(), LogError> {
        self.open(|memory| memory.keep_row_types(store, types))
    }
}

impl LocalState for Folder {
    fn checkpoint(&self, store: &str, task: i32) -> Result<Option<Checkpoint>, LogError> {
        self.open(|memory| memory.checkpoint(store, task))
    }

    fn write(&self, store: &str, task: i32, rows: &[(Vec<u8>, Option<Vec<u8>>)], checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let reached = checkpoint.map(|checkpoint| checkpoint.offset);
        self.open(|memory| memory.write(store, task, rows, checkpoint))?;
        say!("{} writes {} rows of {store}/{task} to folder {}, up to {reached:?}", self.handle, rows.len(), self.number);
        Ok(())
    }

    fn wipe(&self, store: &str, task: i32) -> Result<(), LogError> {
        self.open(|memory| memory.wipe(store, task))?;
        say!("{} wipes {store}/{task} in folder {}", self.handle, self.number);
        Ok(())
    }
}
