//! The workers of a pipeline, and what happens to them: one advances by a turn, dies, is started again, stands still between two of its calls while
//! the others go on, loses its session or its name.

use super::broker::{Broker, TRANSACTION_LIFETIME};
use super::checker::Ends;
use super::random::Random;
use super::workload::{self, CONTROL, INPUT, Kind, ROWS};
use super::world::{self, Faults, Figures, Handle, World, say, with};
use crate::pipeline::Pipeline;
use crate::store::LocalMemory;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

mod ending;
mod folders;
mod regrouping;
mod shape;
mod swap;
mod upstream;
mod worker;

use ending::{calm_down, finish, run_to_end, stop};
use folders::{replace, tamper};
use regrouping::Regrouping;
pub use shape::Mood;
use shape::Shape;
use upstream::produce;
use worker::{Slot, start, step};

struct Fleet {
    shape: Shape,
    pipeline: Pipeline,
    /// What the control topic has said; nothing = there is no fleet.
    told: Vec<swap::Told>,
    /// The highest generation that there was.
    generations: u64,
    /// Deployments that group by something else.
    regrouping: Option<Regrouping>,
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
    /// Nothing goes wrong any more.
    calm: bool,
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
        calm_down(0)?;
        stop(0)?;
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
    let (swaps, regroups) = (shape.swaps, kind == Kind::Emptied);
    let mut broker = Broker::default();
    if swaps || regroups {
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
        regrouping: regroups.then(Regrouping::new),
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
        calm: false,
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
    if fleet(|fleet| fleet.regrouping.is_some()) && once_in(2) {
        return regrouping::happen();
    }
    let all_there = fleet(|fleet| fleet.shape.runs > 0);
    match below(24) {
        0..=2 if !all_there => produce(),
        3 => tamper(),
        4 => expire(),
        5 if once_in(3) => {
            let slot = below(fleet(|fleet| fleet.slots.len()));
            fleet(|fleet| fleet.slots[slot].stop.store(true, Ordering::Relaxed));
        }
        // What one of two processes says that pass for one host would count for the other: a copied data folder is nothing that a deployment can see.
        6 if fleet(|fleet| fleet.regrouping.is_none()) && once_in(4) => replace(),
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
