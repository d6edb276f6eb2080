//! The places of workers: a process takes one, advances in it by turns, and is no more.

use super::{fleet, regrouping, swap, violate};
use crate::course::Course;
use crate::generation::Generation;
use crate::io::{LocalState, Log, LogError, Remedy};
use crate::manifest::Secrets;
use crate::monitor::Monitor;
use crate::runtime::{self, Creates, Fresh, RunError};
use crate::simulation::log::SimulatedLog;
use crate::simulation::workload;
use crate::simulation::world::{Folder, Handle, Process, SimulatedClock, say, with};
use crate::store::changelog::Changelogs;
use crate::task::{BatchLimit, Setting};
use crate::worker::{Ended, Options, Role, Worker};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Running {
    pub course: Arc<Course>,
    pub worker: Worker<'static>,
    pub failures: usize,
    pub process: usize,
}

/// A place for a worker.
pub struct Slot {
    pub host: Arc<str>,
    /// Of the host's workers.
    pub number: usize,
    /// In the group.
    pub name: Arc<str>,
    pub folder: usize,
    pub running: Option<Running>,
    /// The process that has the place, also while it is on the stack.
    pub process: Option<usize>,
    pub stop: &'static AtomicBool,
    /// Its name was taken by another: it is not started again.
    pub ghost: bool,
    /// It ended as it should.
    pub ended: bool,
    /// It ended by itself: the run reached its end.
    pub finished: bool,
    /// It had tasks to its end: all that it did is committed, and in its local copies.
    pub whole: bool,
    /// Of what the control topic has said, how much the host has heard, and the generation that its worker began with.
    pub knows: usize,
    pub generation: u64,
    /// It hears nothing before this time, milliseconds since the epoch.
    pub deaf: i64,
    /// Where the host steers its worker from.
    pub monitor: Arc<Monitor>,
}

impl Slot {
    pub fn new((host, number): (usize, usize)) -> Self {
        Self {
            host: format!("host{host}").into(),
            number,
            name: format!("host{host}.{number}").into(),
            folder: host,
            running: None,
            process: None,
            stop: Box::leak(Box::default()),
            ghost: false,
            ended: false,
            finished: false,
            whole: false,
            knows: 0,
            generation: 0,
            deaf: 0,
            monitor: Arc::default(),
        }
    }
}

/// `generation`: what it begins with, if there is a fleet; with that one came `new_stores`.
fn setting(
    handle: &Handle,
    folder: usize,
    generation: Option<Generation>,
    new_stores: Option<(BTreeSet<String>, u64)>,
) -> Result<(Setting, Arc<dyn Log>), RunError> {
    let (mut pipeline, shape) = fleet(|fleet| (fleet.pipeline.clone(), fleet.shape.clone()));
    if let Some(generation) = &generation {
        pipeline = workload::pipeline_of(shape.kind, generation.number);
    }
    let log: Arc<dyn Log> = Arc::new(SimulatedLog(handle.clone()));
    let limit = BatchLimit { rows: shape.batch_rows, ..BatchLimit::default() };
    let local = || Ok(Arc::new(Folder { handle: handle.clone(), number: folder }) as Arc<dyn LocalState>);
    let fresh = new_stores.as_ref().map(|(stores, generation)| Fresh { stores, generation: *generation, epoch: 0 });
    let mut setting = runtime::prepare_on(pipeline, &log, &Secrets::default(), limit, Creates::Declared, &local, fresh)?;
    setting.generation = generation;
    if let Some(changelogs) = setting.changelogs.take().and_then(Arc::into_inner) {
        let claims = with(|world| world.claims[folder].clone());
        setting.changelogs = Some(Arc::new(Changelogs { claims, ..changelogs }));
    }
    Ok((setting, log))
}

pub fn start(slot: usize) {
    let (name, host, number, folder, stop) = fleet(|fleet| {
        let slot = &fleet.slots[slot];
        slot.stop.store(false, Ordering::Relaxed);
        (slot.name.clone(), slot.host.to_string(), slot.number, slot.folder, slot.stop)
    });
    let process = with(|world| {
        let mut rival = false;
        for other in world.processes.iter_mut().filter(|other| other.name == name && !other.dead) {
            other.rival = true;
            rival = true;
        }
        world.processes.push(Process { name: name.clone(), folder, dead: false, rival, joined: false });
        world.processes.len() - 1
    });
    fleet(|fleet| fleet.slots[slot].process = Some(process));
    let handle = Handle { process, name };
    say!("{handle} starts on folder {folder}");
    let failed = |error| match error {
        RunError::Log(error) => Ended::Log(error),
        other => Ended::Log(LogError::stop(other.to_string())),
    };
    let told = swap::known_at_a_start();
    let (mut generation, mut new_stores) = (told.as_ref().map(|told| swap::first(told, &handle)), None);
    if let Some((number, before)) = regrouping::heard_at_a_start(slot) {
        generation = Some(swap::generation(number, &handle));
        new_stores = Some(before);
    }
    let monitor = fleet(|fleet| fleet.slots[slot].monitor.clone());
    let started = setting(&handle, folder, generation, new_stores).map_err(failed);
    let started = started.and_then(|(setting, log)| {
        let shape = fleet(|fleet| fleet.shape.clone());
        let options = Options {
            until_end: shape.runs > 0,
            close_windows: fleet(|fleet| fleet.closing),
            commit_interval: shape.commit_interval,
            commit_rows: shape.commit_rows,
            checkpoint_interval: shape.checkpoint_interval,
            queue_rows: shape.queue_rows,
            limit: None,
            host,
            workers: shape.workers,
            monitor,
            ..Options::default()
        };
        let role = Role { number, ..Role::default() };
        let course = Arc::new(Course::new(Arc::new(setting)));
        if let Some((told, number)) = &told {
            let heading = swap::heading(&course.now(), told, *number, &handle).map_err(failed)?;
            course.turn_to(heading);
        }
        Ok((course.clone(), Worker::new(course, log, role, &SimulatedClock, options, stop)?))
    });
    match started {
        Ok((course, worker)) => put_back(slot, Running { course, worker, failures: 0, process }),
        Err(ended) => {
            // What fails at the start is told, whether the group was joined before or not.
            with(|world| world.processes[process].joined = false);
            over(process, Err(ended));
        }
    }
}

/// A worker that was on the stack goes back to its place, wherever that is now.
fn put_back(slot: usize, running: Running) {
    fleet(|fleet| {
        let at = match fleet.slots[slot].process {
            Some(process) if process == running.process => Some(slot),
            _ => fleet.slots.iter().position(|slot| slot.process == Some(running.process)),
        };
        if let Some(at) = at {
            fleet.slots[at].running = Some(running);
        }
    });
}

/// A worker advances by a turn.
pub fn step(slot: usize) {
    let Some(mut running) = fleet(|fleet| fleet.slots[slot].running.take()) else { return };
    let process = running.process;
    let outcome = running.worker.advance(&mut running.failures);
    if with(|world| world.processes[process].dead) {
        drop(running);
        return over(process, Ok(()));
    }
    match outcome {
        Ok(true) => {
            running.worker.publish();
            put_back(slot, running);
        }
        Ok(false) => {
            fleet(|fleet| fleet.slots[slot].whole = !running.worker.tasks.is_empty());
            over(process, running.worker.end(Ok(())));
        }
        Err(ended) => {
            drop(running);
            over(process, Err(ended));
        }
    }
}

/// A process is no more.
fn over(process: usize, outcome: Result<(), Ended>) {
    let (dead, name) = with(|world| (world.processes[process].dead, world.processes[process].name.clone()));
    let stopped = fleet(|fleet| {
        let slot = fleet.slots.iter_mut().find(|slot| slot.process == Some(process));
        slot.is_some_and(|slot| {
            slot.process = None;
            slot.ended = !dead && outcome.is_ok();
            let stopped = slot.stop.load(Ordering::Relaxed);
            slot.finished = slot.ended && !stopped;
            stopped
        })
    });
    if dead {
        return;
    }
    with(|world| world.processes[process].dead = true);
    let (rival, joined) = with(|world| (world.processes[process].rival, world.processes[process].joined));
    match outcome {
        Ok(()) => say!("{name}#{process} ends"),
        Err(Ended::Log(error)) => {
            say!("{name}#{process} ends: {error}");
            match error.remedy {
                Remedy::Fenced if rival => {}
                // At the start; and after it was told to stop it does not wait for brokers.
                Remedy::Wait | Remedy::Indefinite if stopped || !joined => {}
                Remedy::Rewind if !joined => {}
                // It did not learn of a newer generation in time.
                Remedy::Stop
                    if fleet(|fleet| !fleet.told.is_empty() || fleet.regrouping.is_some())
                        && error.message.contains("leaves the partition to others") => {}
                _ => violate(format!("{name}#{process} ended: {error}")),
            }
        }
        Err(other) => violate(format!("{name}#{process} ended: {other:?}")),
    }
}
