//! A generation in the shadow of the one that works, a newer one that is tried or, of a canary, the one beside it: it processes the same records, over what the other has in its stores as it was before each batch, and
//! what it writes is its own. What it gives is compared and dropped.

use super::make::{sinks, stages, types_of};
use super::queue::Queue;
use super::{Setting, Stop, Task, TaskId, pipeline};
use crate::explain;
use crate::flow::sink::Sink;
use crate::flow::source::Taken;
use crate::flow::stage::{Below, Give, Stage};
use crate::io::CommittedState;
use crate::plugin::describe::Store;
use crate::shadow::{Given, Report};
use crate::store::{LocalMemory, StateStore};
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
    /// Until its first batch: the timers that it takes over, by their stores.
    timers: Vec<Below>,
    /// It has processed no batch yet.
    new: bool,
    /// Rows of the task's next batch that it has processed already: where timers divide that one's batches and not its own.
    ahead: usize,
    /// What the task made of the records since the two last stood at one place, and what the shadow did.
    given: [Given; 2],
    /// Records whose results are compared, but for what they changed.
    compared: u64,
    /// The task gives out at the next commit what changed before this began.
    late: bool,
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

    /// Processes the batch that the task `of` is about to process, all of it, over what that one has now.
    fn process(&mut self, of: &Task, source: usize, next: &Taken) -> Result<(), Stop> {
        // Not when it began: what the task did then may have been undone.
        if std::mem::take(&mut self.new) {
            self.late = of.queues.iter().any(|queue| queue.moved);
            for below in std::mem::take(&mut self.timers) {
                let rows = below.scan(below.name(), of.id.partition, &[], None, usize::MAX).map_err(Stop::Log)?;
                let mut rows = Some(rows);
                self.task.each_store(|store| {
                    if store.name() == below.name() {
                        store.adopt(rows.take().unwrap_or_default());
                    }
                });
            }
        }
        let rows = next.offsets.len();
        if self.ahead == 0 {
            self.stand_where(of);
        }
        // Marks alone are a batch too.
        while self.ahead < rows || rows == 0 {
            let rest = if self.ahead == 0 { next.clone() } else { next.after(self.ahead) };
            let figures = self.task.figures();
            let produced = self.task.process(source, rest, &figures)?;
            self.given[1].extend(self.task.take_given());
            self.ahead += produced.rows;
            if rows == 0 {
                break;
            }
        }
        Ok(())
    }

    fn stand_where(&mut self, of: &Task) {
        self.task.stream_time = of.stream_time;
        self.task.clock.clone_from(&of.clock);
        for (own, queue) in self.task.queues.iter_mut().zip(&of.queues) {
            own.position = queue.position;
        }
    }

    /// Holds what both gave against each other; `apart`: what changed at a commit.
    fn compare(&mut self, of: &Task, source: usize, apart: bool) {
        let [own, its] = std::mem::take(&mut self.given);
        let changes = of.gives_changes() || self.task.gives_changes();
        // What records changed is told at the commit: they count when that is compared too.
        let records = if apart || !changes { std::mem::take(&mut self.compared) } else { 0 };
        // What is tried is the newer one: of a canary that is the task's own.
        let canary = of.setting.generation_number() > self.setting().generation_number();
        let (works, tried) = if canary { (&its, &own) } else { (&own, &its) };
        self.report.compare((&of.setting.pipeline.sources[source].topic, &self.known), records, apart, works, tried);
        if apart || !changes {
            self.settle();
        }
    }

    /// Its rows stand; it ends if they are too many.
    fn settle(&mut self) {
        let mut bytes = 0;
        let stream_time = self.task.stream_time;
        self.task.each_store(|store| {
            store.settle_apart();
            if store.dirty_bytes() > BUDGET / 2 {
                store.trim_apart(stream_time);
            }
            bytes += store.dirty_bytes();
        });
        self.report.bytes = bytes as u64;
        if bytes > BUDGET {
            self.report.ended = Some(format!("its own rows need more than {} MiB in one task", BUDGET >> 20));
            // The report stays; the rows go.
            self.task.stages.clear();
        }
    }
}

/// Why a pipeline's tasks can have no shadow: None = they can.
pub fn refusal(pipeline: &pipeline::Pipeline) -> Option<String> {
    let stage = |why: &str, is: &dyn Fn(&pipeline::Stage) -> bool| {
        pipeline.stages.iter().find(|stage| is(stage)).map(|stage| format!("stage `{}` {why}", stage.name))
    };
    use crate::plugin::describe::Occasion;
    let timed = stage("has timers", &|stage| stage.description.timers.is_some())?;
    let changes = |stage: &pipeline::Stage| stage.description.stores.iter().any(|store| store.emits.contains(&Occasion::Changed));
    // A commit falls where timers divide the batches of the one, and in the middle of what the other has processed.
    Some(format!("{timed}, and {}", stage("gives out what changed at each commit (`emit: changes`)", &changes)?))
}

impl Task {
    /// Begins a shadow that works by `setting`, which has the same sources, tables, stores and segments. Its count begins anew.
    pub fn begin_shadow(&mut self, setting: Arc<Setting>) {
        let mut own: HashMap<Arc<str>, StateStore> = HashMap::new();
        let mut taken_over = Vec::new();
        for (stage, described) in self.stages.iter().zip(&self.setting.pipeline.stages) {
            let next = setting.pipeline.stages.iter().find(|next| next.stores == described.stores);
            let Some(description) = next.map(|next| &next.description) else { continue };
            let mut store = |described: &Store, name: &Arc<str>, below: Option<Arc<dyn CommittedState>>| {
                let alone = below.is_none();
                let below = below.unwrap_or_else(|| Arc::new(LocalMemory::default()));
                let store = StateStore::new(name, self.id.partition, described, description.window, below, types_of(&setting, name));
                own.insert(name.clone(), store.apart(alone));
            };
            let mut below = stage.below().into_iter();
            for (described, below) in description.stores.iter().zip(&mut below) {
                let name = below.name().clone();
                store(described, &name, Some(Arc::new(below)));
            }
            // Which timers there are is found by ranges, not by keys: one that the task sets from now on is none of the shadow's.
            if let (Some(described), Some(below)) = (timers(description), below.next()) {
                store(&described, below.name(), None);
                taken_over.push(below);
            }
        }
        let stages = stages(&setting, self.id, &self.tables, &mut own, None);
        let sinks = watching(&setting, self.id);
        let mut task = self.beside(setting, stages, sinks);
        task.refusals = Some(Vec::new());
        self.sinks.iter_mut().for_each(Sink::watch);
        self.refusals = Some(Vec::new());
        let known = named(&self.setting.pipeline).chain(named(&task.setting.pipeline)).collect();
        self.shadow = Some(Shadow {
            task: Box::new(task),
            known,
            timers: taken_over,
            new: true,
            ahead: 0,
            given: Default::default(),
            compared: 0,
            late: false,
            report: Report::default(),
        });
    }

    pub fn end_shadow(&mut self) {
        self.shadow = None;
        self.sinks.iter_mut().for_each(Sink::unwatch);
        self.refusals = None;
    }

    /// The shadow processes a batch that is about to be processed. What it gives is kept for `compare_shadow`.
    pub(super) fn step_shadow(&mut self, source: usize, next: &Taken) {
        self.with_shadow(|shadow, task, _| if task.compares(source) { shadow.process(task, source, next) } else { Ok(()) });
    }

    /// Behind a batch, of which so many rows are processed.
    pub(super) fn compare_shadow(&mut self, source: usize, rows: usize) {
        self.with_shadow(|shadow, task, own| {
            if task.compares(source) {
                shadow.given[0].extend(own);
                shadow.compared += rows as u64;
                shadow.ahead = shadow.ahead.saturating_sub(rows);
                if shadow.ahead == 0 {
                    shadow.compare(task, source, false);
                }
            }
            Ok(())
        });
    }

    /// The shadow gives out what changed since the last commit.
    pub(super) fn give_shadow(&mut self) {
        self.with_shadow(|shadow, task, _| {
            if shadow.task.gives_changes() {
                shadow.stand_where(task);
                shadow.task.give(Give::Changed)?;
                shadow.given[1].extend(shadow.task.take_given());
            }
            Ok(())
        });
    }

    /// Both have given out what changed.
    pub(super) fn compare_changes(&mut self) {
        self.with_shadow(|shadow, task, own| {
            if !task.gives_changes() && !shadow.task.gives_changes() {
                return Ok(());
            }
            shadow.given[0].extend(own);
            if std::mem::take(&mut shadow.late) || shadow.new {
                shadow.given = Default::default();
                shadow.compared = 0;
            }
            let Some(source) = task.queues.iter().map(|queue| queue.source).find(|source| task.compares(*source)) else { return Ok(()) };
            shadow.compare(task, source, true);
            Ok(())
        });
    }

    /// Does something with the shadow, if there is one that has not ended, and with what the task itself has given since the last time. Where that fails,
    /// the shadow ends.
    fn with_shadow(&mut self, work: impl FnOnce(&mut Shadow, &Self, Given) -> Result<(), Stop>) {
        let Some(mut shadow) = self.shadow.take() else { return };
        let own = self.take_given();
        if shadow.report.ended.is_none()
            && let Err(stop) = work(&mut shadow, self, own)
        {
            shadow.report.ended = Some(explain::stopped(&shadow.task.setting.pipeline, &stop));
        }
        self.shadow = Some(shadow);
    }

    /// Whether what comes of a source's records is compared: rows of tables are the task's alone.
    fn compares(&self, source: usize) -> bool {
        self.setting.pipeline.sources[source].table.is_none()
    }

    /// What came of the last batch, for who compares.
    pub(super) fn take_given(&mut self) -> Given {
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
