//! A task: one partition number of a pipeline's sources (or all of them), with its stages and stores. It takes records in order, sends them
//! through the stages, and hands over what is to be appended. Everything it does is a function of its records: the clock
//! is asked only for the figures of `Counters`.

mod commit;
pub mod division;
mod give;
mod make;
mod metadata;
mod queue;
mod refused;
mod setting;
pub mod shadow;
mod succeed;
mod sweep;
mod timers;

pub use commit::Committing;
pub use metadata::Metadata;
pub use setting::{BatchLimit, Setting, Spare};
pub use timers::store as timers;

use make::{own_table, sinks, stages};
use queue::{Queue, cut};

use crate::flow::batch::{Batch, Carried, Origin};
use crate::flow::placement::Placement;
use crate::flow::plan::{self, Plan, SourcePlan};
use crate::flow::reject::Rejected;
use crate::flow::repartition;
use crate::flow::sink::Sink;
use crate::flow::source::{self, Taken};
use crate::flow::stage::{CallFailure, Give, Stage, write_errors};
use crate::generation::Tried;
use crate::io::{Fetched, LogError, Position, TopicPartition};
use crate::isolation::Guilty;
use crate::pipeline;
use crate::plugin::CallError;
use crate::record::Records;
use crate::shadow::Refused;
use crate::store::{PartitionedTable, StateStore};
use crate::summary::{Summary, Works};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A task's name: a segment of the pipeline, and a partition number of its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub segment: usize,
    pub partition: i32,
}

/// What came of a batch.
#[derive(Default)]
pub struct Produced {
    pub appends: Vec<(TopicPartition, Records)>,
    /// Records taken.
    pub rows: usize,
    /// Of them, those of the user's sources.
    pub records: usize,
    /// The place of the last of them in its topic.
    pub last: Option<(TopicPartition, i64)>,
    /// Some of it comes of no record: closed windows, timers.
    pub apart: bool,
}

/// What stages and sinks have counted.
type Figures = (Vec<crate::flow::stage::Counters>, Vec<u64>);

/// Why a task cannot go on. What it did before stands, and can be committed.
#[derive(Debug)]
pub enum Stop {
    /// A plugin failed on a batch.
    Call(Box<CallFailure>),
    /// A record was refused and the policy is `fail`.
    Record(Box<Rejected>),
    /// Rows of an older type cannot become rows of the newest; of the stage, if they are a stage's.
    Rows {
        stage: Option<usize>,
        why: String,
    },
    Log(LogError),
}

pub struct Task {
    pub id: TaskId,
    setting: Arc<Setting>,
    queues: Vec<Queue>,
    stages: Vec<Stage>,
    sinks: Vec<Sink>,
    /// By table of the pipeline: the task's part of a partitioned one of its segment.
    tables: Vec<Option<Arc<Mutex<PartitionedTable>>>>,
    placement: Placement,
    /// A run to the end: a repartition topic has no end before that is known.
    to_end: bool,
    stream_time: i64,
    /// Of a segment behind repartition topics.
    clock: Option<repartition::Clock>,
    /// What the tasks downstream were told last.
    told: Option<repartition::Standing>,
    /// The number of the commit that is under way, above all before.
    commit: Arc<AtomicI64>,
    /// Rows of a store were committed once.
    keeps_state: bool,
    /// Every window was closed behind the last record.
    closed: bool,
    /// Records taken, by this generation.
    taken: u64,
    /// Refused records by code, since the start.
    refused: BTreeMap<&'static str, u64>,
    /// Refused records of the last batch, while somebody wants to know.
    refusals: Option<Vec<Refused>>,
    /// Records buried, by topic, since the start.
    buried: BTreeMap<Arc<str>, u64>,
    /// A record that stops the task: what lies before it is processed first.
    failed: Option<Stop>,
    /// The task met a failure: nothing behind it counts as passed.
    halted: bool,
    /// Nothing is taken of the user's sources.
    shut: bool,
    /// Of a stage with timers: what was taken and is still to be processed, and how many rows are tried at once.
    rest: Option<(usize, Taken)>,
    reach: usize,
    /// Rows of the next batch at most, beside the setting's limit.
    most: usize,
    /// Records that the log refuses.
    guilty: Vec<Guilty>,
    /// Something was given out since the last batch that comes of no record.
    apart: bool,
    /// Rows of older types are turned, and are to be committed whether or not a record was read.
    swept: bool,
    /// There may be rows of older types that the sweep has not looked at.
    sweeps: bool,
    /// Rows of older types that were turned by the sweep.
    turned: u64,
    /// That a setting writes rows of its types is kept.
    begun: bool,
    /// A newer generation that is compared with this one.
    shadow: Option<shadow::Shadow>,
    /// A newer generation that works for some keys.
    division: Option<division::Division>,
}

impl Task {
    pub fn new(id: TaskId, setting: Arc<Setting>) -> Self {
        let pipeline = &setting.pipeline;
        let tables: Vec<_> = (0..pipeline.tables.len()).map(|table| own_table(&setting, id, table)).collect();
        let stages = stages(&setting, id, &tables, &mut HashMap::new(), None);
        let commit = Arc::default();
        let sinks = sinks(&setting, id, &commit);
        let segments = &setting.plan.segments;
        let upstream = &segments[id.segment].upstream;
        let clock = (!upstream.is_empty()).then(|| {
            let sources = upstream.iter().flat_map(|segment| &segments[*segment].sources);
            let partitions = sources.map(|source| setting.partitions[*source]);
            repartition::Clock::new(partitions.max().unwrap_or(1))
        });
        Self { clock, commit, ..Self::with(id, setting, tables, stages, sinks) }
    }

    /// A task of these parts, with no partitions yet.
    fn with(
        id: TaskId,
        setting: Arc<Setting>,
        tables: Vec<Option<Arc<Mutex<PartitionedTable>>>>,
        stages: Vec<Stage>,
        sinks: Vec<Sink>,
    ) -> Self {
        Self {
            id,
            placement: Placement::new(&setting.pipeline),
            setting,
            queues: Vec::new(),
            stages,
            sinks,
            tables,
            to_end: false,
            stream_time: i64::MIN,
            clock: None,
            told: None,
            commit: Arc::default(),
            keeps_state: false,
            closed: true,
            taken: 0,
            refused: BTreeMap::new(),
            refusals: None,
            buried: BTreeMap::new(),
            failed: None,
            halted: false,
            shut: false,
            rest: None,
            reach: usize::MAX,
            most: usize::MAX,
            guilty: Vec::new(),
            apart: false,
            swept: false,
            sweeps: true,
            turned: 0,
            begun: false,
            shadow: None,
            division: None,
        }
    }

    /// Loads every plugin of the segment, before the first record.
    pub fn prepare(&mut self) -> Result<(), (usize, CallError)> {
        let reached = &self.setting.plan.segments[self.id.segment].stages;
        for (index, stage) in self.stages.iter_mut().enumerate().filter(|(index, _)| reached[*index]) {
            stage.take_ready(self.setting.spare.take(index));
            stage.prepare().map_err(|error| (index, error))?;
        }
        Ok(())
    }

    /// The run is one to the end.
    pub fn to_end(&mut self) {
        self.to_end = true;
    }

    /// Takes no more of the user's sources than what is begun, and goes on with repartition topics and tables; or takes of them again.
    pub fn shut(&mut self, shut: bool) {
        self.shut = shut;
    }

    /// Its batches have at most so many rows.
    pub fn narrow(&mut self, rows: usize) {
        self.most = rows;
    }

    /// This record is not processed: its results were refused by the log.
    pub fn refuse(&mut self, guilty: Guilty) {
        self.guilty.push(guilty);
    }

    /// Whether it matters which of its partitions comes first: records meet rows as of their own place, or those of another input.
    pub fn order_matters(&self) -> bool {
        let segment = &self.setting.plan.segments[self.id.segment];
        self.tables.iter().any(Option::is_some) || plan::joins(&self.setting.pipeline, segment)
    }

    /// Adds a partition, read from `position` on. `fresh_from`: of a repartition topic, its end now.
    pub fn add(&mut self, source: usize, from: TopicPartition, position: &Position, until: Option<i64>, fresh_from: i64) {
        let metadata = Metadata::of(&position.metadata).unwrap_or_default();
        self.stream_time = self.stream_time.max(metadata.stream_time.unwrap_or(i64::MIN));
        self.keeps_state |= self.setting.has_kept(&metadata);
        self.commit.fetch_max(metadata.commit.map_or(0, |before| before + 1), Ordering::Relaxed);
        self.closed &= metadata.closed;
        let (before, now) = (metadata.works_by(), self.works_by());
        let cut = now != before;
        let tried = Tried::before(before, metadata.from.unwrap_or(position.offset), now);
        if let Some(clock) = &mut self.clock {
            clock.known(self.stream_time);
        }
        self.queues.push(Queue {
            source,
            from,
            waiting: VecDeque::new(),
            taken: 0,
            rows: 0,
            position: Some(position.offset),
            end: None,
            until,
            open_end: self.to_end && self.order_matters() && self.setting.pipeline.sources[source].carries.is_some(),
            moved: false,
            fresh_from,
            since: if cut { position.offset } else { metadata.from.unwrap_or(position.offset) },
            cut,
            base_cut: now.base() != before.base(),
            tried,
        });
        // Of equal times, a table's record comes first: what was written together is found.
        let sources = &self.setting.pipeline.sources;
        self.queues.sort_by_key(|queue| (sources[queue.source].table.is_none(), queue.source, queue.from.clone()));
    }

    /// Commits have numbers from this on, if they had none as high. By wall clock in milliseconds, numbers also rise over what nobody remembers.
    pub fn number_commits_from(&mut self, least: i64) {
        self.commit.fetch_max(least, Ordering::Relaxed);
    }

    /// Takes the partitions away, and leaves all else.
    pub(crate) fn forget_partitions(&mut self) {
        self.queues.clear();
    }

    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.queues.iter().map(|queue| queue.from.clone()).collect()
    }

    pub fn reads(&self, from: &TopicPartition) -> bool {
        self.queues.iter().any(|queue| queue.from == *from)
    }

    /// Rows that wait in the queue of a partition.
    pub fn waiting(&self, from: &TopicPartition) -> usize {
        self.queues.iter().find(|queue| queue.from == *from).map_or(0, |queue| queue.rows)
    }

    /// Takes records in. Err: they lie below what was taken in before, which no log hands over that does what it promises; they would count twice.
    pub fn offer(&mut self, fetched: Fetched) -> Result<(), LogError> {
        let Some(queue) = self.queues.iter_mut().find(|queue| queue.from == fetched.from) else { return Ok(()) };
        queue.check_place(&fetched)?;
        let wanted = match queue.until {
            Some(until) => fetched.offsets.partition_point(|offset| *offset < until),
            None => fetched.offsets.len(),
        };
        queue.end = None;
        if wanted < fetched.offsets.len() {
            // The captured end is reached: what follows is for the next run.
            queue.end = queue.until;
        }
        if wanted > 0 {
            queue.rows += wanted;
            let fetched = if wanted == fetched.offsets.len() { fetched } else { cut(&fetched, wanted) };
            queue.waiting.push_back(fetched);
        }
        Ok(())
    }

    /// The end of a partition was reached.
    pub fn end(&mut self, at: &TopicPartition, offset: i64) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.from == *at) {
            queue.end = Some(queue.until.map_or(offset, |until| offset.min(until)));
        }
    }

    /// Records from this offset of a partition on are not for this run.
    pub fn limit(&mut self, at: &TopicPartition, until: i64) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.from == *at) {
            queue.until = Some(until);
        }
    }

    /// Whether every partition is processed to its captured end.
    pub fn done(&self) -> bool {
        self.rest.is_none()
            && self.queues.iter().all(|queue| {
                queue.rows == 0 && queue.until.is_some_and(|until| queue.position.unwrap_or(0).max(queue.end.unwrap_or(0)) >= until)
            })
    }

    /// Processes the next batch, if there is one. On `Err` everything before the guilty record or call is done and may be committed; the
    /// task takes no more.
    pub fn step(&mut self, patient: bool) -> Result<Option<Produced>, Stop> {
        if let Some(stop) = self.failed.take() {
            return Err(stop);
        }
        let Some((source, taken)) = self.rest.take().or_else(|| self.take(patient)) else { return Ok(None) };
        let next = match self.guilty_row(source, &taken) {
            Some((0, reason)) => return self.pass_guilty(source, &taken, &reason).map(Some),
            Some((row, _)) => taken.first(row),
            None => taken.clone(),
        };
        self.step_shadow(source, &next);
        let clock = self.clock.clone();
        let figures = self.figures();
        match self.process(source, next, &figures) {
            Ok(mut produced) => {
                self.pass_over(source, &taken, produced.rows);
                self.taken += produced.rows as u64;
                self.compare_shadow(source, produced.rows);
                self.place(&mut produced, source, &taken);
                if self.setting.fresh_instances {
                    self.stages.iter_mut().for_each(Stage::reset);
                }
                Ok(Some(produced))
            }
            Err(mut stop) => {
                self.halted = true;
                if let Some(setting) = self.shadow.as_ref().map(|shadow| shadow.setting().clone()) {
                    // It has gone further than what stands now.
                    self.begin_shadow(setting);
                }
                // What lies before the guilty record is processed alone, until nothing in it is guilty.
                let mut rows = stop.first_row();
                loop {
                    self.rewind_batch(&figures);
                    self.clock.clone_from(&clock);
                    let Some(count) = rows.filter(|count| *count > 0) else {
                        return Err(stop);
                    };
                    let before = taken.first(count);
                    match self.process(source, before.clone(), &figures) {
                        Ok(mut produced) => {
                            self.place(&mut produced, source, &taken);
                            if produced.rows < count {
                                // A timer is due before it.
                                self.halted = false;
                                self.pass_over(source, &taken, produced.rows);
                            } else {
                                self.advance(&positions_of(source, &before));
                                self.failed = Some(stop);
                            }
                            return Ok(Some(produced));
                        }
                        Err(earlier) => {
                            rows = earlier.first_row().map(|row| row.min(count - 1));
                            stop = earlier;
                        }
                    }
                }
            }
        }
    }

    /// Says of what was produced where its last record stands, and whether some of it comes of none.
    fn place(&mut self, produced: &mut Produced, source: usize, taken: &Taken) {
        produced.last = self.last_of(source, taken, produced.rows);
        produced.apart = std::mem::take(&mut self.apart);
    }

    /// The place in its topic of the last of so many rows.
    fn last_of(&self, source: usize, taken: &Taken, rows: usize) -> Option<(TopicPartition, i64)> {
        let row = rows.checked_sub(1)?;
        let topic = self.setting.pipeline.sources[taken.source(source, row)].topic.clone();
        Some((TopicPartition { topic, partition: *taken.partitions.get(row)? }, *taken.offsets.get(row)?))
    }

    /// A record's way: source, stages, sinks, dead letters.
    fn process(&mut self, source: usize, taken: Taken, figures: &Figures) -> Result<Produced, Stop> {
        let setting = self.setting.clone();
        let pipeline = &setting.pipeline;
        let described = &pipeline.sources[source];
        let rows = taken.offsets.len();
        self.placement.check(pipeline, source, setting.partitions[source], &taken).map_err(|message| Stop::Log(LogError::stop(message)))?;
        if let Some(table) = described.table {
            let mut appends = Vec::new();
            let rejected = self.take_rows(source, table, taken);
            self.settle(rejected, &mut appends)?;
            self.keep_batch();
            return Ok(Produced { appends, rows, ..Produced::default() });
        }
        if self.is_timed() {
            return self.process_timed(source, taken, figures);
        }
        let taken = self.received(source, taken)?;
        let records = if described.carries.is_none() { rows } else { 0 };
        let mut appends = Vec::new();
        self.stream_time = self.pass_all(source, taken, &mut appends)?;
        self.keep_batch();
        Ok(Produced { appends, rows, records, ..Produced::default() })
    }

    /// The records, or those of them whose key `is_own`. Answers stream time behind all of them; what the stores get is the caller's to keep.
    fn pass_batch(
        &mut self,
        source: usize,
        taken: Taken,
        is_own: Option<&dyn Fn(Option<&[u8]>) -> bool>,
        appends: &mut Vec<(TopicPartition, Records)>,
    ) -> Result<i64, Stop> {
        let setting = self.setting.clone();
        let (pipeline, plan) = (&setting.pipeline, &setting.plan);
        let mut rejected = Vec::new();
        let mut stream_time = self.stream_time;
        let source_plan = self.reading(plan, &taken).unwrap_or(&plan.sources[source]);
        let mut first = source::read(&pipeline.sources[source], source, source_plan, taken, &mut stream_time, &mut rejected);
        // Marks alone may close windows: then what is given out comes of no record.
        if first.origin.offsets.is_empty() {
            first = self.here(stream_time).unwrap_or(first);
        }
        if let Some(is_own) = is_own {
            first = first.select((0..first.rows as u32).filter(|row| is_own(first.key(*row as usize))).collect());
            rejected.retain(|refused| is_own(refused.origin.records.keys.bytes(refused.origin_row)));
        }
        self.pass(source, &first, Give::Closed(stream_time), &mut rejected, appends)?;
        self.settle(rejected, appends)?;
        Ok(stream_time)
    }

    /// How records are read that are of several sources.
    fn reading<'p>(&self, plan: &'p Plan, taken: &Taken) -> Option<&'p SourcePlan> {
        plan.together[self.id.segment].as_ref().filter(|_| taken.sources.is_some())
    }

    /// Stages and sinks. What a stage gives out beside its records' results stands before them.
    fn pass(
        &mut self,
        source: usize,
        first: &Batch,
        give: Give,
        rejected: &mut Vec<Rejected>,
        appends: &mut Vec<(TopicPartition, Records)>,
    ) -> Result<(), Stop> {
        let setting = self.setting.clone();
        let (pipeline, plan) = (&setting.pipeline, &setting.plan);
        let (described, source_plan) = (&pipeline.sources[source], &plan.sources[source]);
        let reached = &plan.segments[self.id.segment].stages;
        let mut outputs: Vec<Vec<Option<Batch>>> = Vec::with_capacity(pipeline.stages.len());
        for (index, stage) in pipeline.stages.iter().enumerate() {
            let input = inputs(&stage.from, source, first, &outputs, source_plan, rejected);
            let mut output = vec![None; stage.description.outputs.len()];
            let stage = &mut self.stages[index];
            let started = std::time::Instant::now();
            let failed = |failure| Stop::Call(Box::new(failure));
            if let Some(batch) = input {
                output = stage.run(batch, plan, described, rejected).map_err(failed)?;
            }
            if reached[index] && stage.gives(give) {
                let given = stage.give(give, &first.origin, plan, described, rejected).map_err(failed)?;
                // What changed since the last commit is of the records since then.
                self.apart |= !matches!(give, Give::Changed) && given.iter().any(Option::is_some);
                for (output, given) in output.iter_mut().zip(given) {
                    let parts = given.into_iter().chain(output.take()).collect();
                    let (merged, errors) = Batch::merge(parts, source_plan.format, &source_plan.wanted);
                    rejected.extend(write_errors(errors, &first.origin));
                    *output = merged;
                }
            }
            stage.counters.time += started.elapsed();
            outputs.push(output);
        }
        for (sink, at) in pipeline.sinks.iter().zip(0..) {
            let input = inputs(&sink.from, source, first, &outputs, source_plan, rejected);
            if let Some(batch) = input {
                let writer: &mut Sink = &mut self.sinks[at];
                writer.write(&batch, source_plan, described.key, rejected, appends);
            }
        }
        Ok(())
    }

    /// Records of a partitioned table become its rows. They move no stream time: a table has no windows, and closes none of a stream's.
    fn take_rows(&mut self, source: usize, table: usize, taken: Taken) -> Vec<Rejected> {
        let Some(own) = &self.tables[table] else { return Vec::new() };
        let wrong = own.lock().unwrap_or_else(PoisonError::into_inner).apply(&taken.records);
        if wrong.is_empty() {
            return Vec::new();
        }
        let times = taken.records.timestamps.clone();
        let origin = Arc::new(Origin {
            source,
            carried: None,
            partitions: taken.partitions,
            offsets: taken.offsets,
            records: taken.records,
            stream_times: times.clone(),
            times,
        });
        let refuse = |(row, (code, reason))| Rejected { origin: origin.clone(), origin_row: row, stage: None, code, reason, shown: None };
        wrong.into_iter().map(refuse).collect()
    }

    fn keep_batch(&mut self) {
        self.each_store(StateStore::keep_batch);
    }

    /// Records of a repartition topic become what they were; others are.
    fn received(&mut self, source: usize, taken: Taken) -> Result<Taken, Stop> {
        let Some(clock) = self.clock.as_mut().filter(|_| self.setting.pipeline.sources[source].carries.is_some()) else { return Ok(taken) };
        let places: Vec<_> = taken.partitions.iter().copied().zip(taken.offsets.iter().copied()).collect();
        let own = |queue: &&Queue| queue.source == source && taken.partitions.first() == Some(&queue.from.partition);
        let fresh_from = self.queues.iter().find(own).map_or(0, |queue| queue.fresh_from);
        repartition::receive(taken, fresh_from, clock).map_err(|row| {
            let topic = &self.setting.pipeline.sources[source].topic;
            let (partition, offset) = places[row];
            Stop::Log(LogError::stop(format!(
                "the record {topic}/{partition}@{offset} is not of this pipeline's making: another program writes into its repartition topic; \
                 stop that, delete the record, and run again"
            )))
        })
    }

    /// The first rows of what was taken are processed; the others come next.
    fn pass_over(&mut self, source: usize, taken: &Taken, rows: usize) {
        if rows == taken.offsets.len() {
            self.advance(&positions_of(source, taken));
        } else {
            self.advance(&positions_of(source, &taken.first(rows)));
            self.rest = Some((source, taken.after(rows)));
        }
    }

    /// Moves the positions of partitions behind the records that were processed.
    fn advance(&mut self, last: &BTreeMap<(usize, i32), i64>) {
        for queue in &mut self.queues {
            if let Some(offset) = last.get(&(queue.source, queue.from.partition)) {
                queue.position = Some(offset + 1);
                queue.moved = true;
                self.closed = false;
            }
        }
    }

    /// What is put back if a batch is undone.
    fn figures(&self) -> Figures {
        (self.stages.iter().map(|stage| stage.counters).collect(), self.sinks.iter().map(|sink| sink.rows).collect())
    }

    /// Undoes what a batch left behind; `figures` are those before it.
    fn rewind_batch(&mut self, figures: &Figures) {
        self.apart = false;
        self.take_given();
        self.reset_stages(figures);
        self.each_store(StateStore::drop_batch);
    }

    /// Instances begin anew, and count on from these figures.
    fn reset_stages(&mut self, figures: &Figures) {
        for (stage, counters) in self.stages.iter_mut().zip(&figures.0) {
            stage.reset();
            stage.counters = *counters;
        }
        for (sink, rows) in self.sinks.iter_mut().zip(&figures.1) {
            sink.rows = *rows;
        }
    }

    /// How its shadow compares, if it has one.
    pub fn shadow(&self) -> Option<&shadow::Shadow> {
        self.shadow.as_ref()
    }

    /// By which it works.
    pub fn setting(&self) -> &Arc<Setting> {
        &self.setting
    }

    /// What its own generation did in it, and records of all.
    fn own_works(&self) -> Works {
        let time = self.stages.iter().map(|stage| stage.counters.time).sum();
        Works { records: self.taken, refused: self.refused.values().sum(), time }
    }

    /// Works on each store of the task.
    pub fn each_store(&mut self, mut work: impl FnMut(&mut StateStore)) {
        for stage in &mut self.stages {
            stage.stores(|stores| stores.iter_mut().for_each(&mut work));
        }
        for table in self.tables.iter().flatten() {
            work(&mut table.lock().unwrap_or_else(PoisonError::into_inner).store);
        }
    }

    /// What the task did since it was made. Its records and commits are the worker's to count.
    pub fn summary(&self) -> Summary {
        Summary {
            stages: self.stages.iter().map(|stage| stage.counters).collect(),
            sinks: self.sinks.iter().map(|sink| sink.rows).collect(),
            refused: self.refused.clone(),
            dead_letters: self.buried.clone(),
            turned: self.turned,
            ..Summary::default()
        }
    }

    /// The highest record time that was processed, in milliseconds; None before the first record.
    pub fn stream_time(&self) -> Option<i64> {
        (self.stream_time != i64::MIN).then_some(self.stream_time)
    }

    /// Where each partition of each source stands: the offset behind the last record taken, and how many records wait.
    pub fn places(&self) -> impl Iterator<Item = (&TopicPartition, i64, usize)> {
        self.queues.iter().map(|queue| (&queue.from, queue.position.unwrap_or(0), queue.rows))
    }
}

/// The last offset of each source's partition; `source` is that of all, if they are of one.
fn positions_of(source: usize, taken: &Taken) -> BTreeMap<(usize, i32), i64> {
    let place = |row: usize| (taken.source(source, row), taken.partitions[row]);
    (0..taken.offsets.len()).map(|row| (place(row), taken.offsets[row])).collect()
}

/// What a stage or sink gets of this batch: the outputs it reads, interleaved.
fn inputs(
    from: &[pipeline::Input],
    source: usize,
    first: &Batch,
    outputs: &[Vec<Option<Batch>>],
    plan: &SourcePlan,
    rejected: &mut Vec<Rejected>,
) -> Option<Batch> {
    let direct = first.origin.carried.as_ref().filter(|carried| carried.direct);
    let part = |input: &pipeline::Input| match (*input, direct) {
        (pipeline::Input::Source(index), None) => (index == source && first.rows > 0).then(|| first.clone()),
        (pipeline::Input::Source(_), Some(carried)) => of_sources(first, carried, std::slice::from_ref(input)),
        (pipeline::Input::Stage(stage, output), _) => outputs.get(stage)?.get(output)?.clone(),
    };
    let parts = match direct {
        // In one piece, which is in order.
        Some(carried) if from.iter().all(|input| matches!(input, pipeline::Input::Source(_))) => {
            of_sources(first, carried, from).into_iter().collect()
        }
        _ => from.iter().filter_map(part).collect(),
    };
    let (merged, errors) = Batch::merge(parts, plan.format, &plan.wanted);
    rejected.extend(write_errors(errors, &first.origin));
    merged
}

/// The rows of a batch of several sources that are of these.
fn of_sources(first: &Batch, carried: &Carried, from: &[pipeline::Input]) -> Option<Batch> {
    let of = |row: &u32| from.contains(&pipeline::Input::Source(carried.sources[first.origin_row(*row as usize)]));
    let rows: Vec<u32> = (0..first.rows as u32).filter(of).collect();
    match rows.len() {
        0 => None,
        all if all == first.rows => Some(first.clone()),
        _ => Some(first.select(rows)),
    }
}

impl Stop {
    /// The record of the batch before which all is well.
    fn first_row(&self) -> Option<usize> {
        match self {
            Self::Call(failure) => Some(failure.origin.fetched_row(failure.rows.0)),
            Self::Record(rejected) => Some(rejected.origin.fetched_row(rejected.origin_row)),
            Self::Rows { .. } | Self::Log(_) => None,
        }
    }
}
