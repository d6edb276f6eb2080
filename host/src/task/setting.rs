//! What every task of a run shares: the pipeline, planned, with its tables and types, and plugin instances made ahead.

use super::Metadata;
use crate::flow::plan::Plan;
use crate::generation::Generation;
use crate::io::{CommittedState, Guarantee};
use crate::pipeline::{self, Pipeline};
use crate::plugin::{CallError, Instance, describe};
use crate::store::changelog::Changelogs;
use crate::store::{GlobalTable, StoreTypes};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How much one batch holds.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    pub rows: usize,
    pub bytes: usize,
}

impl Default for BatchLimit {
    fn default() -> Self {
        Self { rows: 1000, bytes: 1 << 20 }
    }
}

/// What every task of a pipeline shares.
pub struct Setting {
    pub pipeline: Pipeline,
    pub plan: Plan,
    /// By stage, with secrets.
    pub requests: Vec<describe::Request>,
    /// By table; None for a partitioned one, of which each task has its part.
    pub tables: Vec<Option<Arc<RwLock<GlobalTable>>>>,
    /// None for a pipeline without stores.
    pub state: Option<Arc<dyn CommittedState>>,
    /// Of the rows of its stores; those that are described are among them.
    pub types: Arc<StoreTypes>,
    /// Where the log keeps state as changelogs only; `state` is then their local copy.
    pub changelogs: Option<Arc<Changelogs>>,
    /// Nothing is committed: what is written to `state` comes to it never.
    pub dry: bool,
    /// Partitions and largest message of every topic that is written.
    pub topics: HashMap<Arc<str>, (i32, Option<usize>)>,
    /// How many partitions each source has.
    pub partitions: Vec<i32>,
    pub limit: BatchLimit,
    /// A new instance of every plugin for each batch: shows who keeps state in memory (tests).
    pub fresh_instances: bool,
    /// Of a pipeline that a fleet runs.
    pub generation: Option<Generation>,
    /// Instances made ahead.
    pub spare: Spare,
}

impl Setting {
    /// Whether the tasks of a segment hand over closed windows.
    pub fn gives_windows(&self, segment: usize) -> bool {
        let reached = &self.plan.segments[segment].stages;
        let closes =
            |stage: &pipeline::Stage| stage.description.stores.iter().any(|store| store.emits.contains(&describe::Occasion::Closed));
        self.pipeline.stages.iter().zip(reached).any(|(stage, reached)| *reached && closes(stage))
    }

    /// Whether a position says that its task has kept something in the stores that there are.
    pub fn has_kept(&self, metadata: &Metadata) -> bool {
        metadata.state && self.changelogs.as_ref().is_none_or(|changelogs| metadata.generation >= changelogs.since)
    }

    /// Whether rows stay in memory behind the commit that has written them.
    pub fn writes_back(&self) -> bool {
        self.changelogs.is_some() || self.dry
    }

    /// Whether records tell which commit they belong to, so that the rows that they were made from are found in changelogs. At least once, one commit may be
    /// several.
    pub fn tells_commits(&self) -> bool {
        let tells = self.pipeline.guarantee == Guarantee::ExactlyOnce && self.pipeline.sinks.iter().any(|sink| sink.provenance);
        tells && self.changelogs.as_ref().is_some_and(|changelogs| changelogs.exist)
    }

    /// 0 = without a fleet.
    pub fn generation_number(&self) -> u64 {
        self.generation.as_ref().map_or(0, |generation| generation.number)
    }

    /// Makes `count` instances of each stage's plugin. Err: the stage whose plugin does not start, and why.
    pub fn make_ready(&self, count: usize) -> Result<(), (usize, CallError)> {
        for (index, stage) in self.pipeline.stages.iter().enumerate() {
            let make = || stage.plugin.instantiate(&self.requests[index], &stage.description, stage.limits);
            let made = (0..count).map(|_| make()).collect::<Result<Vec<_>, _>>().map_err(|error| (index, error))?;
            let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
            spare.resize_with(self.pipeline.stages.len(), Vec::new);
            spare[index].extend(made);
        }
        Ok(())
    }

    /// What is left of the instances made ahead goes.
    pub fn drop_spare(&self) {
        self.spare.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Instances of the stages' plugins, made before they are needed, so that a task which takes them waits for none.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<Box<dyn Instance>>>>);

impl Spare {
    pub fn take(&self, stage: usize) -> Option<Box<dyn Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(stage)?.pop()
    }
}
