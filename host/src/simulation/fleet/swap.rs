//! New generations of the pipeline: they come to be, and each worker learns of them sooner or later, or begins with an old one.

use super::{CONTROL, Handle, SimulatedLog, below, fleet, once_in, say, workload};
use crate::generation::Generation;
use crate::manifest::Secrets;
use crate::runtime::{self, Creates};
use std::sync::Arc;

/// So many at most: each is loaded as a pipeline of its own.
const MOST: u64 = 6;

fn generation(number: u64, handle: &Handle) -> Generation {
    Generation { number, control: CONTROL.into(), host: handle.name.clone() }
}

/// A worker that starts knows one of the generations.
pub fn known_at_a_start(handle: &Handle) -> Option<Generation> {
    let newest = fleet(|fleet| fleet.newest);
    if newest == 0 {
        return None;
    }
    let number = if once_in(3) { 1 + below(newest as usize) as u64 } else { newest };
    Some(generation(number, handle))
}

/// There is a new generation, or a worker learns of one.
pub fn deploy_or_learn() {
    if once_in(3) {
        fleet(|fleet| fleet.newest = (fleet.newest + 1).min(MOST));
        let newest = fleet(|fleet| fleet.newest);
        say!("generation {newest} is deployed");
    } else {
        learn(below(fleet(|fleet| fleet.slots.len())), once_in(2));
    }
}

/// A worker learns of a newer generation; `newest`: of the last one.
pub fn learn(slot: usize, newest: bool) {
    let known = fleet(|fleet| {
        let running = fleet.slots[slot].running.as_ref()?;
        let handle = Handle { process: running.process, name: fleet.slots[slot].name.clone() };
        Some((running.course.clone(), handle, fleet.newest))
    });
    let Some((course, handle, last)) = known else { return };
    let (now, _) = course.now();
    let Some(own) = now.generation.as_ref().map(|generation| generation.number).filter(|own| *own < last) else { return };
    let number = if newest { last } else { own + 1 };
    let log = SimulatedLog(handle.clone());
    let pipeline = workload::pipeline_of(fleet(|fleet| fleet.shape.kind), number);
    // What fails is tried again at another time.
    let Ok(mut next) = runtime::prepare_next(pipeline, &now, &log, &Secrets::default(), Creates::Declared) else { return };
    next.generation = Some(generation(number, &handle));
    say!("{handle} learns of generation {number}");
    course.turn_to(Arc::new(next));
}
