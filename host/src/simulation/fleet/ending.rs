//! After the last fault: all is processed, the workers end, and everything is looked at.

use super::regrouping::{self, Regrouping};
use super::upstream::produce;
use super::worker::Slot;
use super::worker::{start, step};
use super::{fleet, happen_well, once_in, swap, violation};
use crate::generation::WorksBy;
use crate::simulation::checker;
use crate::simulation::workload::{self, Kind};
use crate::simulation::world::{Faults, World, say, with};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn sources() -> Vec<Arc<str>> {
    fleet(|fleet| fleet.pipeline.sources.iter().map(|source| source.topic.clone()).collect())
}

fn settled() -> bool {
    let sources = sources();
    let deployed = |told: &Regrouping, slot: &Slot| told.is_over() && (slot.process.is_none() || slot.generation == told.active());
    let produced = fleet(|fleet| {
        let deployed = fleet.regrouping.as_ref().is_none_or(|told| fleet.slots.iter().all(|slot| deployed(told, slot)));
        deployed && fleet.produced == fleet.goal
    });
    produced && with(|world| checker::rest(&world.broker, &sources)).is_ok()
}

/// The workers up to `last` go on, nothing goes wrong any more, until all is processed.
pub fn calm_down(last: usize) -> Result<(), String> {
    for round in 0..4000 {
        if fleet(|fleet| fleet.produced != fleet.goal) {
            produce();
        }
        for slot in 0..=last {
            if fleet(|fleet| fleet.slots[slot].process.is_none()) {
                start(slot);
            }
            swap::learn(slot, true);
            regrouping::tend(slot, true);
            step(slot);
        }
        regrouping::deploy(false);
        with(World::go_on);
        violation()?;
        // The last one takes over all that the others had.
        let whole = last > 0
            || fleet(|fleet| {
                let wanted = fleet.shape.partitions as usize * fleet.shape.kind.segments();
                let running = fleet.slots[0].running.as_ref();
                running.is_some_and(|running| running.worker.tasks.len() == wanted && running.worker.restoring().is_none())
            });
        if round % 4 == 3 && whole && settled() {
            return Ok(());
        }
    }
    let sources = sources();
    let rest = with(|world| checker::rest(&world.broker, &sources));
    Err(format!("no end comes with {} workers: {rest:?}", last + 1))
}

/// Nothing goes wrong any more.
fn become_calm() {
    say!("it becomes calm");
    with(|world| world.faults = Faults::default());
    fleet(|fleet| {
        fleet.calm = true;
        for slot in fleet.slots.iter().filter(|slot| slot.ghost) {
            if let Some(process) = slot.process {
                with(|world| world.processes[process].dead = true);
            }
        }
        fleet.slots.retain(|slot| !slot.ghost);
    });
}

/// A part of the records is there, and the workers run to their ends.
pub fn run_to_end(run: usize, runs: usize, steps: usize) -> Result<(), String> {
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
pub fn finish() -> Result<(), String> {
    become_calm();
    for slot in (0..fleet(|fleet| fleet.slots.len())).rev() {
        calm_down(slot)?;
        stop(slot)?;
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
                        checker::generations(broker, &sources, fleet.shape.kind.before_lists(), &|at| told.of(at))?;
                    }
                    checker::outputs(broker, &fleet.produced)?;
                    checker::lists(broker, &changelogs[0], &fleet.produced)?;
                }
                Kind::Emptied => {
                    let Some(told) = &fleet.regrouping else { return Err("nothing is deployed".to_owned()) };
                    checker::emptied(broker, &fleet.produced, told.highest)?;
                    let newest = WorksBy { newest: told.active(), divided: None };
                    checker::generations(broker, &sources, fleet.shape.kind.before_lists(), &|_| newest)?;
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
pub fn stop(slot: usize) -> Result<(), String> {
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
        calm_down(slot)?;
    }
    Err("a worker does not end as it is told".to_owned())
}
