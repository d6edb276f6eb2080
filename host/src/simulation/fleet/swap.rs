//! New generations of the pipeline: they come to be, everywhere or on trial in some partitions, are promoted or rolled back; and each worker learns of that
//! sooner or later, or begins with what was before.

use super::{below, fleet, once_in};
use crate::course::{self, Heading};
use crate::generation::{Generation, WorksBy};
use crate::io::Log;
use crate::manifest::Secrets;
use crate::runtime::{self, Creates, RunError};
use crate::share::Keys;
use crate::simulation::log::SimulatedLog;
use crate::simulation::workload::{self, CONTROL};
use crate::simulation::world::{Handle, say};
use crate::task::{Setting, division, shadow};
use std::collections::BTreeSet;
use std::sync::Arc;

/// So many at most: each is loaded as a pipeline of its own.
const MOST: u64 = 6;

/// What the control topic says: the generation that works, and one on trial with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub works: u64,
    pub trial: Option<Trial>,
}

/// A generation on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub generation: u64,
    pub partitions: BTreeSet<i32>,
    /// None = all.
    pub keys: Option<Keys>,
}

impl Told {
    pub fn first() -> Self {
        Self { works: 1, trial: None }
    }

    /// What is to work in a partition number.
    pub fn of(&self, partition: i32) -> WorksBy {
        match &self.trial {
            Some(trial) if trial.partitions.contains(&partition) => {
                WorksBy { newest: trial.generation, divided: trial.keys.map(|keys| (keys, self.works)) }
            }
            _ => WorksBy { newest: self.works, divided: None },
        }
    }
}

pub fn generation(number: u64, handle: &Handle) -> Generation {
    Generation { number, control: CONTROL.into(), host: handle.name.clone(), epoch: 0 }
}

/// What a worker that starts knows: something that was told once, and as which.
pub fn known_at_a_start() -> Option<(Told, u64)> {
    let told = fleet(|fleet| fleet.told.clone());
    let last = told.len().checked_sub(1)?;
    let at = if once_in(3) { below(told.len()) } else { last };
    Some((told[at].clone(), at as u64 + 1))
}

/// The generation that a worker starts with.
pub fn first((told, _): &(Told, u64), handle: &Handle) -> Generation {
    generation(told.works, handle)
}

/// There is a new generation, the one on trial is promoted or rolled back, or a worker learns of something.
pub fn deploy_or_learn() {
    if !once_in(3) {
        return learn(below(fleet(|fleet| fleet.slots.len())), once_in(2));
    }
    let (Some(last), highest, partitions) = fleet(|fleet| (fleet.told.last().cloned(), fleet.generations, fleet.shape.partitions)) else {
        return;
    };
    let promoted = last.trial.as_ref().map(|trial| trial.generation).filter(|_| once_in(2));
    let next = match promoted {
        Some(trial) => Told { works: trial, trial: None },
        None if highest == MOST => return,
        None if last.trial.is_none() && once_in(2) => {
            let kind = fleet(|fleet| fleet.shape.kind);
            let (now, next) = (workload::pipeline_of(kind, last.works), workload::pipeline_of(kind, highest + 1));
            let divides = division::refusal(&now, &next).is_none() && !once_in(3);
            let keys = Keys::of_share(0.25 * (1 + below(3)) as f64).filter(|_| divides);
            let partitions = (0..partitions).filter(|_| keys.is_some() || once_in(2)).collect();
            Told { trial: Some(Trial { generation: highest + 1, partitions, keys }), ..last }
        }
        None => Told { works: highest + 1, trial: None },
    };
    say!("the control topic says {next:?}");
    fleet(|fleet| {
        fleet.generations = fleet.generations.max(next.works).max(next.trial.as_ref().map_or(0, |trial| trial.generation));
        fleet.told.push(next);
    });
}

/// A worker learns of what was told after what it knows; `last`: of the last.
pub fn learn(slot: usize, last: bool) {
    let known = fleet(|fleet| {
        let running = fleet.slots[slot].running.as_ref()?;
        let handle = Handle { process: running.process, name: fleet.slots[slot].name.clone() };
        Some((running.course.clone(), handle, fleet.told.clone()))
    });
    let Some((course, handle, told)) = known else { return };
    let now = course.now();
    let at = now.number as usize;
    let number = if last { told.len() } else { at + 1 };
    let Some(next) = told.get(at..number).and_then(<[Told]>::last) else { return };
    // What fails is tried again at another time.
    if let Ok(heading) = heading(&now, next, number as u64, &handle) {
        say!("{handle} learns of {next:?}");
        course.turn_to(heading);
    }
}

/// What a worker makes of what it is told, the `number`th that was told; `now`: what it has.
pub fn heading(now: &Heading, told: &Told, number: u64, handle: &Handle) -> Result<Heading, RunError> {
    let setting = |number: u64| -> Result<Arc<Setting>, RunError> {
        let known = [Some(&now.setting), now.trial.as_ref().map(|trial| &trial.setting)];
        if let Some(known) = known.into_iter().flatten().find(|known| known.generation_number() == number) {
            return Ok(known.clone());
        }
        let log = SimulatedLog(handle.clone());
        let pipeline = workload::pipeline_of(fleet(|fleet| fleet.shape.kind), number);
        let next = runtime::prepare_next(pipeline, &now.setting, &log as &dyn Log, &Secrets::default(), Creates::Declared, false)?;
        let mut next = next.expect("partitions stay as many");
        next.generation = Some(generation(number, handle));
        Ok(Arc::new(next))
    };
    let trial = |Trial { generation, partitions, keys }: &Trial| -> Result<course::Trial, RunError> {
        let setting = setting(*generation)?;
        // Every other one is compared, where that can be: nothing comes of it.
        let compared = keys.is_none() && generation % 2 == 0 && shadow::refusal(&setting.pipeline).is_none();
        Ok(course::Trial { setting, partitions: Arc::new(partitions.clone()), keys: *keys, compared })
    };
    Ok(Heading { setting: setting(told.works)?, trial: told.trial.as_ref().map(trial).transpose()?, shadow: None, number })
}
