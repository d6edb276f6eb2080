//! The workers of a pipeline, and what happens to them: one advances by a turn, dies, is started again, stands still between two of its calls while
//! the others go on, loses its session or its name.

use super::broker::{Broker, Record, TRANSACTION_LIFETIME};
use super::checker::{self, Ends};
use super::log::SimulatedLog;
use super::random::Random;
use super::workload::{self, CONTROL, INPUT, Kind, ROWS};
use super::world::{self, Faults, Figures, Folder, Handle, Process, SimulatedClock, World, say, with};
use crate::course::Course;
use crate::io::{LocalState, Log, LogError, Remedy, TopicPartition, partition_for};
use crate::manifest::Secrets;
use crate::pipeline::Pipeline;
use crate::runtime::{self, Creates, RunError};
use crate::store::LocalMemory;
use crate::store::changelog::Changelogs;
use crate::task::{BatchLimit, Setting};
use crate::worker::{Ended, Options, Role, Worker};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod swap;

/// What happens most in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Whatever a seed makes of it.
    Any,
    /// Two hosts stand still often and write checkpoints all the time.
    Restless,
    /// Two hosts hand tasks over one by one, while partitions are paused and appends are not taken: tasks that stay begin anew.
    Parting,
}

/// What a seed makes of a run.
#[derive(Clone, Debug)]
struct Shape {
    workers: usize,
    /// The workers are of one process, with one folder.
    one_host: bool,
    partitions: i32,
    kind: Kind,
    /// Rows of a table come only when all before them is processed, and records of the stream too: then it is known what they meet.
    gated: bool,
    /// Members keep through a rebalance what stays theirs.
    partial: bool,
    /// New generations of the pipeline come while it runs.
    swaps: bool,
    /// So many runs to the end, each over a part of the records; 0 = one that goes on.
    runs: usize,
    /// The last of them closes every window.
    close: bool,
    /// By user: how many numbers come.
    counts: Vec<i64>,
    steps: usize,
    batch_rows: usize,
    queue_rows: usize,
    commit_interval: Duration,
    commit_rows: usize,
    checkpoint_interval: Duration,
    faults: Faults,
    slow: usize,
}

impl Shape {
    fn of(random: &mut Random, kind: Kind, mood: Mood) -> Self {
        let workers = 1 + random.below(2);
        let users = 1 + random.below(4);
        let shape = Self {
            workers,
            one_host: workers > 1 && random.once_in(3),
            partitions: 1 + random.below(2) as i32,
            kind,
            gated: random.once_in(2),
            partial: random.once_in(3),
            swaps: kind.swaps() && random.once_in(2),
            runs: random.of(&[0, 0, 0, 1, 2, 3]),
            close: random.once_in(2),
            counts: (0..users).map(|_| 1 + random.below(14) as i64).collect(),
            steps: 40 + random.below(120),
            batch_rows: 1 + random.below(5),
            queue_rows: random.of(&[2, 100]),
            commit_interval: Duration::from_millis(random.of(&[0, 5, 50])),
            commit_rows: 1 + random.below(12),
            // As often marks are repeated, which is no rest.
            checkpoint_interval: Duration::from_millis(random.of(if kind == Kind::Chained { &[400, 1000] } else { &[0, 0, 20, 400] })),
            faults: Faults {
                crash: random.of(&[0, 60, 150, 400]),
                still: random.of(&[0, 30, 100]),
                away: random.of(&[0, 0, 100, 400]),
                untaken: random.of(&[0, 0, 30, 100]),
                indefinite: random.of(&[0, 3, 10]),
            },
            slow: random.of(&[2, 2, 8]),
        };
        let shape = Self { swaps: shape.swaps && shape.runs == 0, ..shape };
        let faults = shape.faults;
        match mood {
            Mood::Any => shape,
            Mood::Restless => Self {
                workers: 2,
                one_host: false,
                runs: 0,
                partial: false,
                steps: 160,
                checkpoint_interval: Duration::ZERO,
                faults: Faults { still: 15, crash: 400, away: 0, indefinite: 0, ..faults },
                ..shape
            },
            Mood::Parting => Self {
                workers: 2,
                one_host: false,
                partial: true,
                partitions: 2,
                queue_rows: 2,
                counts: vec![14; 4],
                faults: Faults { still: 30, untaken: 30, ..faults },
                ..shape
            },
        }
    }
}

struct Running {
    course: Arc<Course>,
    worker: Worker<'static>,
    failures: usize,
    process: usize,
}

/// A place for a worker.
struct Slot {
    host: Arc<str>,
    /// Of the host's workers.
    number: usize,
    /// In the group.
    name: Arc<str>,
    folder: usize,
    running: Option<Running>,
    /// The process that has the place, also while it is on the stack.
    process: Option<usize>,
    stop: &'static AtomicBool,
    /// Its name was taken by another: it is not started again.
    ghost: bool,
    /// It ended as it should.
    ended: bool,
    /// It ended by itself: the run reached its end.
    finished: bool,
    /// It had tasks to its end: all that it did is committed, and in its local copies.
    whole: bool,
}

impl Slot {
    fn new((host, number): (usize, usize)) -> Self {
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
        }
    }
}

struct Fleet {
    shape: Shape,
    pipeline: Pipeline,
    /// What the control topic has said; nothing = there is no fleet.
    told: Vec<swap::Told>,
    /// The highest generation that there was.
    generations: u64,
    slots: Vec<Slot>,
    /// By user: how many were produced.
    produced: Vec<i64>,
    /// By user: how many are to be produced for now.
    goal: Vec<i64>,
    /// The ends of the sources at the start of each run to the end.
    ends: Vec<Ends>,
    /// The run under way closes every window at its end.
    closing: bool,
    /// The newest record time, of pipelines with windows.
    time: i64,
    /// By user: the newest version in the table, and the newest that is surely met.
    versions: Vec<i64>,
    met: Vec<i64>,
    upstream: i32,
    /// Earlier states of folders.
    copies: Vec<(usize, LocalMemory)>,
    /// Workers that stand still on the stack.
    standing: usize,
    violation: Option<String>,
}

thread_local!(static FLEET: RefCell<Option<Fleet>> = const { RefCell::new(None) });

fn fleet<T>(work: impl FnOnce(&mut Fleet) -> T) -> T {
    FLEET.with_borrow_mut(|fleet| work(fleet.as_mut().expect("a fleet was begun in this thread")))
}

fn below(count: usize) -> usize {
    with(|world| world.random.below(count))
}

fn once_in(count: usize) -> bool {
    with(|world| world.random.once_in(count))
}

fn violate(what: String) {
    say!("VIOLATION: {what}");
    fleet(|fleet| {
        fleet.violation.get_or_insert(what);
    });
}

fn violation() -> Result<(), String> {
    fleet(|fleet| fleet.violation.clone().map_or(Ok(()), Err))
}

/// Runs a seed. Err: what does not hold.
pub fn run(seed: u64, pipeline: &Pipeline, kind: Kind, mood: Mood, loud: bool) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    let shape = Shape::of(&mut random, kind, mood);
    if loud {
        eprintln!("{shape:?}");
    }
    let Shape { steps, runs, .. } = shape;
    begin(random, pipeline, shape, loud);
    end(match runs {
        0 => (0..steps).try_for_each(|_| happen_well()).and_then(|()| finish()),
        _ => (0..runs).try_for_each(|run| run_to_end(run, runs, steps)),
    })
}

/// Two workers of a host restore the same task, one of which has lost it and did not hear so yet: neither may hold up the other for ever.
pub fn two_of_a_host_restore(seed: u64, pipeline: &Pipeline, loud: bool) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    let quiet =
        Shape { workers: 2, one_host: true, partitions: 1, partial: false, runs: 0, ..Shape::of(&mut random, Kind::Lists, Mood::Any) };
    begin(random, pipeline, Shape { faults: Faults::default(), ..quiet }, loud);
    let gets_the_task = |slot: usize| -> Result<(), String> {
        start(slot);
        for _ in 0..100 {
            step(slot);
            if fleet(|fleet| fleet.slots[slot].running.as_ref().is_some_and(|running| !running.worker.tasks.is_empty())) {
                return violation();
            }
        }
        Err("the task is not given".to_owned())
    };
    let meet = || {
        calm_down(0, &sources())?;
        stop(0, &sources())?;
        // All that is left to read is a transaction that was aborted: each is done with it before it looks what the group has to say.
        fleet(|fleet| {
            let changelog = workload::changelogs(&fleet.pipeline).swap_remove(0).partition(0);
            with(|world| {
                let id = "upstream".into();
                let record = workload::record(0, 0, Kind::Lists, 0);
                world.broker.append(&id, fleet.upstream, world.now, &changelog, &[record]).expect("nothing is under way");
                world.broker.end(&id, fleet.upstream, false).expect("it is open");
                (0..1000).for_each(|_| world.go_on());
            });
        });
        gets_the_task(0)?;
        let name = fleet(|fleet| fleet.slots[0].name.clone());
        with(|world| expire_member(world, &name));
        gets_the_task(1)?;
        for _ in 0..100 {
            (0..2).for_each(step);
            let whole = |slot: &Slot| {
                slot.running.as_ref().is_some_and(|running| !running.worker.tasks.is_empty() && running.worker.restoring().is_none())
            };
            if fleet(|fleet| fleet.slots.iter().any(whole)) {
                return finish();
            }
        }
        Err("they take the task's local copy from each other for ever".to_owned())
    };
    end(meet())
}

/// The world, as it is before anything happened.
fn begin(random: Random, pipeline: &Pipeline, shape: Shape, loud: bool) {
    let kind = shape.kind;
    let folders = if shape.one_host { 1 } else { shape.workers };
    let swaps = shape.swaps;
    let mut broker = Broker::default();
    if swaps {
        broker.topics.entry(CONTROL.into()).or_default().resize_with(1, Default::default);
    }
    for topic in [INPUT, ROWS].iter().take(if kind.table() { 2 } else { 1 }) {
        broker.topics.entry((*topic).into()).or_default().resize_with(shape.partitions as usize, Default::default);
    }
    broker.group.partial = shape.partial;
    let upstream = broker.init(&"upstream".into()).expect("it is the first");
    world::begin(World {
        random,
        now: Duration::from_secs(1),
        broker,
        folders: (0..folders).map(|_| LocalMemory::default()).collect(),
        claims: (0..folders).map(|_| Arc::default()).collect(),
        processes: Vec::new(),
        faults: shape.faults,
        slow: shape.slow,
        figures: Figures::default(),
        loud,
    });
    let place = |worker| if shape.one_host { (0, worker) } else { (worker, 0) };
    let slots = (0..shape.workers).map(|worker| Slot::new(place(worker))).collect();
    let zeros = vec![0; shape.counts.len()];
    let goal = shape.counts.clone();
    FLEET.set(Some(Fleet {
        shape,
        pipeline: pipeline.clone(),
        told: swaps.then(swap::Told::first).into_iter().collect(),
        generations: 1,
        slots,
        produced: zeros.clone(),
        goal,
        ends: Vec::new(),
        closing: false,
        time: 10_000,
        versions: zeros.clone(),
        met: zeros,
        upstream,
        copies: Vec::new(),
        standing: 0,
        violation: None,
    }));
}

fn end(checked: Result<(), String>) -> Result<Figures, String> {
    if let Err(what) = checked {
        violate(what);
    }
    let figures = with(|world| world.figures);
    // Workers go before what they are handles of.
    let ended = FLEET.take().and_then(|fleet| fleet.violation);
    ended.map_or(Ok(figures), Err)
}

/// Something happens. Err: what does not hold.
fn happen_well() -> Result<(), String> {
    happen();
    violation()
}

/// Something happens: mostly, a worker advances.
fn happen() {
    let all_there = fleet(|fleet| fleet.shape.runs > 0);
    match below(24) {
        0..=2 if !all_there => produce(),
        3 => tamper(),
        4 => expire(),
        5 if once_in(3) => {
            let slot = below(fleet(|fleet| fleet.slots.len()));
            fleet(|fleet| fleet.slots[slot].stop.store(true, Ordering::Relaxed));
        }
        6 if once_in(4) => replace(),
        7 if fleet(|fleet| !fleet.told.is_empty()) => swap::deploy_or_learn(),
        _ => {
            let slot = below(fleet(|fleet| fleet.slots.len()));
            let (absent, done) =
                fleet(|fleet| (fleet.slots[slot].process.is_none(), fleet.slots[slot].ghost || fleet.slots[slot].finished));
            if !absent {
                step(slot);
            } else if !done && once_in(2) {
                start(slot);
            }
        }
    }
}

/// Called by a worker that stands still: the others go on meanwhile.
pub fn stand_still(handle: &Handle) {
    let standing = fleet(|fleet| {
        fleet.standing += 1;
        fleet.standing
    });
    if standing <= 2 {
        with(|world| world.figures.stills += 1);
        say!("{handle} stands still");
        if once_in(2) {
            with(|world| expire_member(world, &handle.name));
        }
        if once_in(4) {
            world::pass(TRANSACTION_LIFETIME);
        }
        for _ in 0..1 + below(60) {
            happen();
        }
        say!("{handle} goes on");
    }
    fleet(|fleet| fleet.standing -= 1);
}

fn expire_member(world: &mut World, name: &Arc<str>) {
    world.figures.expired += u64::from(world.broker.knows(name));
    world.broker.expire(name);
}

/// A session ends.
fn expire() {
    let name = fleet(|fleet| fleet.slots[with(|world| world.random.below(fleet.slots.len()))].name.clone());
    say!("the session of {name} ends");
    with(|world| expire_member(world, &name));
}

/// Some records come in.
fn produce() {
    fleet(|fleet| with(|world| fleet.produce(world)));
}

impl Fleet {
    fn produce(&mut self, world: &mut World) {
        let Shape { kind, gated, runs, .. } = self.shape;
        let gated = gated && runs == 0;
        let consumed = |topic: &str, world: &World| kind.table() && world.broker.consumed(&topic.into());
        if consumed(ROWS, world) {
            self.met.clone_from(&self.versions);
        }
        let rows = kind.table() && world.random.once_in(3);
        if kind.table() && gated && !(consumed(ROWS, world) && (!rows || consumed(INPUT, world))) {
            return;
        }
        let id = "upstream".into();
        let (transactional, aborted) = (world.random.once_in(2), world.random.once_in(4));
        for _ in 0..1 + world.random.below(6) {
            let user = world.random.below(self.produced.len());
            let seq = self.produced[user] + 1;
            if seq > self.goal[user] {
                continue;
            }
            let lost = transactional && aborted;
            let record = self.record(world, user, if lost { -1 } else { seq }, rows);
            let to = TopicPartition::new(
                if rows { ROWS } else { INPUT },
                partition_for(record.key.as_deref().unwrap_or_default(), self.shape.partitions),
            );
            if !transactional {
                world.broker.produce(&to, &[record]);
            } else if world.broker.append(&id, self.upstream, world.now, &to, &[record]).is_err() {
                // The transaction before is being ended.
                return;
            }
            match (lost, rows) {
                (true, _) => {}
                (false, true) => self.versions[user] += 1,
                (false, false) => self.produced[user] = seq,
            }
        }
        if transactional {
            // Err: nothing was left to produce.
            let _ = world.broker.end(&id, self.upstream, !aborted);
        }
    }

    fn record(&mut self, world: &mut World, user: usize, seq: i64, rows: bool) -> Record {
        if !self.shape.kind.timed() {
            return workload::record(user, seq, self.shape.kind, world.now.as_millis() as i64);
        }
        self.time += world.random.of(&[0, 0, 3, 10, 40]);
        let time = self.time - world.random.below(30) as i64;
        if rows {
            return workload::row(user, self.versions[user] + 1, time);
        }
        let due = world.random.of(&[0, 0, 5, 20, 60, 200]);
        let most = if self.shape.gated { self.met[user] } else { i64::MAX };
        workload::timed_record(user, seq, time, due, (self.met[user], most))
    }
}

/// Somebody deletes the folder of a host that does not run, or puts an old copy back; or makes a copy.
fn tamper() {
    fleet(|fleet| {
        with(|world| {
            let folder = world.random.below(world.folders.len());
            let runs = fleet.slots.iter().any(|slot| slot.folder == folder && slot.process.is_some());
            match world.random.below(4) {
                0 | 1 => fleet.copies.push((folder, world.folders[folder].copy())),
                2 if !runs => {
                    world.figures.copies += 1;
                    world.folders[folder] = LocalMemory::default();
                }
                3 if !runs => {
                    let own: Vec<_> = fleet.copies.iter().filter(|(of, _)| *of == folder).collect();
                    if !own.is_empty() {
                        world.figures.copies += 1;
                        world.folders[folder] = own[world.random.below(own.len())].1.copy();
                    }
                }
                _ => {}
            }
        });
    });
}

/// Another process starts with the name of one that runs, on a copy of its folder.
fn replace() {
    let slot = below(fleet(|fleet| fleet.slots.len()));
    let fits =
        fleet(|fleet| fleet.slots[slot].process.is_some() && !fleet.slots[slot].ghost && !fleet.shape.one_host && fleet.slots.len() < 4);
    if !fits {
        return;
    }
    let folder = with(|world| {
        world.figures.replaced += 1;
        let copy = world.folders[fleet(|fleet| fleet.slots[slot].folder)].copy();
        world.folders.push(copy);
        world.claims.push(Arc::default());
        world.folders.len() - 1
    });
    fleet(|fleet| {
        let old = &mut fleet.slots[slot];
        let new = Slot { folder, ..Slot::new((slot, 0)) };
        // The old one keeps its folder and goes on as long as it is let.
        let old = std::mem::replace(old, new);
        fleet.slots.push(Slot { ghost: true, ..old });
    });
    start(slot);
}

fn setting(handle: &Handle, folder: usize, told: Option<&(swap::Told, u64)>) -> Result<(Setting, Arc<dyn Log>), RunError> {
    let (mut pipeline, shape) = fleet(|fleet| (fleet.pipeline.clone(), fleet.shape.clone()));
    let generation = told.map(|told| swap::first(told, handle));
    if let Some(generation) = &generation {
        pipeline = workload::pipeline_of(shape.kind, generation.number);
    }
    let log: Arc<dyn Log> = Arc::new(SimulatedLog(handle.clone()));
    let limit = BatchLimit { rows: shape.batch_rows, ..BatchLimit::default() };
    let local = || Ok(Arc::new(Folder { handle: handle.clone(), number: folder }) as Arc<dyn LocalState>);
    let mut setting = runtime::prepare_on(pipeline, &log, &Secrets::default(), limit, Creates::Declared, &local, None)?;
    setting.generation = generation;
    if let Some(changelogs) = setting.changelogs.take().and_then(Arc::into_inner) {
        let claims = with(|world| world.claims[folder].clone());
        setting.changelogs = Some(Arc::new(Changelogs { claims, ..changelogs }));
    }
    Ok((setting, log))
}

fn start(slot: usize) {
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
    let started = setting(&handle, folder, told.as_ref()).map_err(failed);
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
fn step(slot: usize) {
    let Some(mut running) = fleet(|fleet| fleet.slots[slot].running.take()) else { return };
    let process = running.process;
    let outcome = running.worker.advance(&mut running.failures);
    if with(|world| world.processes[process].dead) {
        drop(running);
        return over(process, Ok(()));
    }
    match outcome {
        Ok(true) => put_back(slot, running),
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
                Remedy::Stop if fleet(|fleet| !fleet.told.is_empty()) && error.message.contains("leaves the partition to others") => {}
                _ => violate(format!("{name}#{process} ended: {error}")),
            }
        }
        Err(other) => violate(format!("{name}#{process} ended: {other:?}")),
    }
}

fn sources() -> Vec<Arc<str>> {
    fleet(|fleet| fleet.pipeline.sources.iter().map(|source| source.topic.clone()).collect())
}

fn settled(sources: &[Arc<str>]) -> bool {
    let produced = fleet(|fleet| fleet.produced == fleet.goal);
    produced && with(|world| checker::rest(&world.broker, sources)).is_ok()
}

/// The workers up to `last` go on, nothing goes wrong any more, until all is processed.
fn calm_down(last: usize, sources: &[Arc<str>]) -> Result<(), String> {
    for round in 0..4000 {
        if fleet(|fleet| fleet.produced != fleet.goal) {
            produce();
        }
        for slot in 0..=last {
            if fleet(|fleet| fleet.slots[slot].process.is_none()) {
                start(slot);
            }
            swap::learn(slot, true);
            step(slot);
        }
        with(World::go_on);
        violation()?;
        // The last one takes over all that the others had.
        let whole = last > 0
            || fleet(|fleet| {
                let wanted = fleet.shape.partitions as usize * fleet.shape.kind.segments();
                let running = fleet.slots[0].running.as_ref();
                running.is_some_and(|running| running.worker.tasks.len() == wanted && running.worker.restoring().is_none())
            });
        if round % 4 == 3 && whole && settled(sources) {
            return Ok(());
        }
    }
    let rest = with(|world| checker::rest(&world.broker, sources));
    Err(format!("no end comes with {} workers: {rest:?}", last + 1))
}

/// Nothing goes wrong any more.
fn become_calm() {
    say!("it becomes calm");
    with(|world| world.faults = Faults::default());
    fleet(|fleet| {
        for slot in fleet.slots.iter().filter(|slot| slot.ghost) {
            if let Some(process) = slot.process {
                with(|world| world.processes[process].dead = true);
            }
        }
        fleet.slots.retain(|slot| !slot.ghost);
    });
}

/// A part of the records is there, and the workers run to their ends.
fn run_to_end(run: usize, runs: usize, steps: usize) -> Result<(), String> {
    fleet(|fleet| {
        fleet.goal = fleet.shape.counts.iter().map(|count| count * (run as i64 + 1) / runs as i64).collect();
        fleet.closing = fleet.shape.close && run + 1 == runs;
        fleet.slots.iter_mut().for_each(|slot| slot.finished = false);
    });
    while fleet(|fleet| fleet.produced != fleet.goal) {
        produce();
        with(World::go_on);
    }
    while !with(|world| world.broker.at_rest()) {
        with(World::go_on);
    }
    say!("run {run} to the end");
    fleet(|fleet| {
        with(|world| {
            let partitions = fleet.pipeline.sources.iter().filter(|source| source.carries.is_none());
            let partitions = partitions.flat_map(|source| checker::partitions(&world.broker, &source.topic));
            fleet.ends.push(partitions.map(|at| (at.clone(), world.broker.partition(&at).high_watermark())).collect());
            world.faults = fleet.shape.faults;
        });
    });
    (0..steps).try_for_each(|_| happen_well())?;
    become_calm();
    for _ in 0..4000 {
        if fleet(|fleet| fleet.slots.iter().all(|slot| slot.finished)) {
            for _ in 0..2000 {
                with(World::go_on);
            }
            return check(None);
        }
        for slot in 0..fleet(|fleet| fleet.slots.len()) {
            let (finished, absent, name) = fleet(|fleet| {
                let slot = &fleet.slots[slot];
                (slot.finished, slot.process.is_none(), slot.name.clone())
            });
            match (finished, absent) {
                // It is not there for the rebalances of others.
                (true, _) if once_in(8) => with(|world| world.broker.expire(&name)),
                (true, _) => {}
                (false, true) => start(slot),
                (false, false) => step(slot),
            }
        }
        with(World::go_on);
        violation()?;
    }
    let rest = with(|world| checker::rest(&world.broker, &sources()));
    Err(format!("run {run} comes to no end: {rest:?}"))
}

/// After the last fault: the rest is processed, the workers end one after the other, and all must be as if nothing had happened.
fn finish() -> Result<(), String> {
    become_calm();
    let sources = sources();
    for slot in (0..fleet(|fleet| fleet.slots.len())).rev() {
        calm_down(slot, &sources)?;
        stop(slot, &sources)?;
        let name = fleet(|fleet| fleet.slots[slot].name.clone());
        with(|world| world.broker.expire(&name));
    }
    for _ in 0..2000 {
        with(World::go_on);
    }
    violation()?;
    check(Some(fleet(|fleet| fleet.slots[0].folder)))
}

/// What must hold at rest. `last`: the folder of the worker that ended last, and had all tasks.
fn check(last: Option<usize>) -> Result<(), String> {
    let sources = sources();
    fleet(|fleet| {
        let changelogs = workload::changelogs(&fleet.pipeline);
        with(|world| {
            let broker = &world.broker;
            checker::rest(broker, &sources)?;
            match fleet.shape.kind {
                Kind::Windows | Kind::Timers => checker::timed(broker, &changelogs, &fleet.ends, fleet.closing)?,
                Kind::Chained => checker::chained(broker, fleet.closing)?,
                Kind::Lists | Kind::Regrouped => {
                    if let Some(told) = fleet.told.last() {
                        checker::generations(broker, &sources, &fleet.shape.kind.before_lists().into(), &|at| told.of(at))?;
                    }
                    checker::outputs(broker, &fleet.produced)?;
                    checker::lists(broker, &changelogs[0], &fleet.produced)?;
                }
                Kind::AtLeastOnce => {
                    checker::outputs_at_least(broker, &fleet.produced)?;
                    // Nobody is fenced: a worker that has lost its task may still write rows.
                    if fleet.shape.workers > 1 || world.figures.replaced > 0 {
                        return Ok(());
                    }
                    checker::lists_at_least(broker, &changelogs[0], &fleet.produced)?;
                }
            }
            changelogs.iter().try_for_each(|changelog| checker::copies(broker, changelog, &world.folders, last))
        })
    })
}

/// A worker ends as it is told.
fn stop(slot: usize, sources: &[Arc<str>]) -> Result<(), String> {
    for _ in 0..10 {
        fleet(|fleet| {
            fleet.slots[slot].ended = false;
            fleet.slots[slot].stop.store(true, Ordering::Relaxed);
        });
        for _ in 0..500 {
            if fleet(|fleet| fleet.slots[slot].process.is_none()) {
                break;
            }
            step(slot);
        }
        violation()?;
        // One that had to let its tasks go ends well, but leaves copies behind that lack something.
        if fleet(|fleet| fleet.slots[slot].ended && (slot > 0 || fleet.slots[slot].whole)) {
            return Ok(());
        }
        start(slot);
        calm_down(slot, sources)?;
    }
    Err("a worker does not end as it is told".to_owned())
}
