//! A generation in the shadow of the one that works, a newer one that is tried or, of a canary, the one beside it: it processes the same records, over what the other has in its stores as it was before each batch, and
//! what it writes is its own. What it gives is compared and dropped.

use super::make::{sinks, stages, types_of};
use super::queue::Queue;
use super::{Setting, Task, TaskId, pipeline};
use crate::explain;
use crate::flow::sink::Sink;
use crate::flow::source::Taken;
use crate::flow::stage::{Below, Stage};
use crate::shadow::{Given, Report};
use crate::store::StateStore;
use crate::task::timers;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Rows of its own that a task's shadow may have, bytes; beyond, it ends.
const BUDGET: usize = 64 << 20;

/// A task's shadow.
pub struct Shadow {
    task: Box<Task>,
    /// The fields that the two pipelines name.
    known: BTreeSet<String>,
    pub report: Report,
}

impl Shadow {
    pub fn setting(&self) -> &Arc<Setting> {
        self.task.setting()
    }

    /// Whether it is this task's, with all of its partitions, and works by `setting`.
    pub fn stands_on(&self, task: &Task, setting: &Arc<Setting>) -> bool {
        Arc::ptr_eq(self.setting(), setting) && self.task.partitions() == task.partitions()
    }
}

/// Why a pipeline's tasks can have no shadow: None = they can.
pub fn refusal(pipeline: &pipeline::Pipeline) -> Option<String> {
    let stage = |why: &str, is: &dyn Fn(&pipeline::Stage) -> bool| {
        pipeline.stages.iter().find(|stage| is(stage)).map(|stage| format!("stage `{}` {why}", stage.name))
    };
    use crate::plugin::describe::Occasion;
    stage("has timers", &|stage| stage.description.timers.is_some()).or_else(|| {
        let changes = |stage: &pipeline::Stage| stage.description.stores.iter().any(|store| store.emits.contains(&Occasion::Changed));
        stage("gives out what changed at each commit (`emit: changes`)", &changes)
    })
}

impl Task {
    /// Begins a shadow that works by `setting`, which has the same sources, tables, stores and segments. Its count begins anew.
    pub fn begin_shadow(&mut self, setting: Arc<Setting>) {
        let mut own: HashMap<Arc<str>, StateStore> = HashMap::new();
        for (stage, described) in self.stages.iter().zip(&self.setting.pipeline.stages) {
            let next = setting.pipeline.stages.iter().find(|next| next.stores == described.stores);
            let Some(description) = next.map(|next| &next.description) else { continue };
            let timers = timers(description);
            let stores = description.stores.iter().chain(&timers).zip(stage.below());
            own.extend(stores.map(|(described, below): (_, Below)| {
                let name = below.name().clone();
                let store =
                    StateStore::new(&name, self.id.partition, described, description.window, Arc::new(below), types_of(&setting, &name));
                (name, store.apart())
            }));
        }
        let stages = stages(&setting, self.id, &self.tables, &mut own, None);
        let sinks = watching(&setting, self.id);
        let mut task = self.beside(setting, stages, sinks);
        task.refusals = Some(Vec::new());
        self.sinks.iter_mut().for_each(Sink::watch);
        self.refusals = Some(Vec::new());
        let known = named(&self.setting.pipeline).chain(named(&task.setting.pipeline)).collect();
        self.shadow = Some(Shadow { task: Box::new(task), known, report: Report::default() });
    }

    pub fn end_shadow(&mut self) {
        self.shadow = None;
        self.sinks.iter_mut().for_each(Sink::unwatch);
        self.refusals = None;
    }

    /// The shadow processes a batch that is about to be processed. What it gave is kept for `compare_shadow`.
    pub(super) fn step_shadow(&mut self, source: usize, next: &Taken) -> Option<Given> {
        let mut shadow = self.shadow.take_if(|shadow| shadow.report.ended.is_none())?;
        let described = &self.setting.pipeline.sources[source];
        let ahead = if described.table.is_some() {
            None
        } else {
            let task = &mut shadow.task;
            task.stream_time = self.stream_time;
            task.clock.clone_from(&self.clock);
            for (own, queue) in task.queues.iter_mut().zip(&self.queues) {
                own.position = queue.position;
            }
            let figures = task.figures();
            match task.process(source, next.clone(), &figures) {
                Ok(_) => Some(task.take_given()),
                Err(stop) => {
                    shadow.report.ended = Some(explain::stopped(&task.setting.pipeline, &stop));
                    None
                }
            }
        };
        self.shadow = Some(shadow);
        self.take_given();
        ahead
    }

    /// Behind the batch: both have processed all of it.
    pub(super) fn compare_shadow(&mut self, source: usize, records: u64, ahead: Option<Given>) {
        if self.shadow.is_none() {
            return;
        }
        let own = self.take_given();
        let (Some(ahead), Some(shadow)) = (ahead, &mut self.shadow) else { return };
        // What is tried is the newer one: of a canary that is the task's own.
        let canary = self.setting.generation_number() > shadow.setting().generation_number();
        let (works, tried) = if canary { (&ahead, &own) } else { (&own, &ahead) };
        let Shadow { known, report, .. } = shadow;
        report.compare((&self.setting.pipeline.sources[source].topic, known), records, works, tried);
        let mut bytes = 0;
        let stream_time = shadow.task.stream_time;
        shadow.task.each_store(|store| {
            store.settle_apart();
            if store.dirty_bytes() > BUDGET / 2 {
                store.forget_closed(stream_time);
            }
            bytes += store.dirty_bytes();
        });
        shadow.report.bytes = bytes as u64;
        if bytes > BUDGET {
            shadow.report.ended = Some(format!("its own rows need more than {} MiB in one task", BUDGET >> 20));
            // The report stays; the rows go.
            shadow.task.stages.clear();
        }
    }

    /// What came of the last batch, for who compares.
    fn take_given(&mut self) -> Given {
        let refused = self.refusals.as_mut().map(std::mem::take).unwrap_or_default();
        Given { written: self.sinks.iter_mut().flat_map(Sink::take_written).collect(), refused }
    }
}

/// The fields that a pipeline names: of its sources, and that its stages write.
fn named(pipeline: &pipeline::Pipeline) -> impl Iterator<Item = String> {
    let sources = pipeline.sources.iter().flat_map(|source| source.schema.schema.fields.iter().map(|field| field.path.to_string()));
    let outputs = pipeline.stages.iter().flat_map(|stage| &stage.description.outputs);
    sources.chain(outputs.flat_map(|output| output.fields.iter().map(|field| field.path.to_string())))
}

fn watching(setting: &Setting, id: TaskId) -> Vec<Sink> {
    let mut sinks = sinks(setting, id, &Arc::default());
    sinks.iter_mut().for_each(Sink::watch);
    sinks
}

impl Task {
    /// A task that stands where this one stands, with no records of its own.
    pub(super) fn beside(&self, setting: Arc<Setting>, stages: Vec<Stage>, sinks: Vec<Sink>) -> Self {
        let queue = |queue: &Queue| Queue { waiting: VecDeque::new(), from: queue.from.clone(), ..*queue };
        // Stages look into the task's own tables; their rows are the task's to keep.
        let tables = vec![None; self.tables.len()];
        Self {
            queues: self.queues.iter().map(queue).collect(),
            stream_time: self.stream_time,
            clock: self.clock.clone(),
            keeps_state: self.keeps_state,
            closed: self.closed,
            sweeps: false,
            begun: true,
            ..Self::with(self.id, setting, tables, stages, sinks)
        }
    }
}
