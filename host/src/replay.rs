//! Records once more through the task that took them, with the state that they met: it is built of all that came before, as long as the inputs hold
//! everything since the pipeline began. Nothing is written.
//!
//! There is no group, no commit and no clock: a task is a function of its records, and gets them from readers of its own, one for each partition.

use crate::dry_run::DryLog;
use crate::fleet::record::Kind;
use crate::fleet::{Deployment, Generation};
use crate::flow::plan::Plan;
use crate::io::{Event, FetchLimit, Fetched, Guarantee, LocalState, Log, LogError, Position, Reader, TopicPartition};
use crate::manifest::Secrets;
use crate::pipeline::{Pipeline, Scope, Start};
use crate::plugin::describe::Occasion;
use crate::record::Records;
use crate::runtime::{self, Creates, RunError};
use crate::store::LocalFolder;
use crate::tables::TableReader;
use crate::task::{BatchLimit, Produced, Setting, Task, TaskId};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: FetchLimit = FetchLimit { rows: 1000, bytes: 1 << 20 };
const WAIT: Duration = Duration::from_millis(100);
/// Records between two moves of rows from memory to the folder.
const KEPT_ROWS: usize = 50_000;

/// Of which task a stretch is replayed, by what, and what is read for it.
pub struct Stretch {
    pub task: TaskId,
    /// Whose records are shown.
    pub at: TopicPartition,
    pub offsets: Range<i64>,
    pub inputs: Vec<Input>,
    /// What is to be known of the results.
    pub notes: Vec<String>,
}

/// A partition that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub at: TopicPartition,
    pub offsets: Range<i64>,
    /// Only the last record of a key is kept in its topic: any of these may be missing.
    compacted: bool,
}

impl Stretch {
    /// What is read to replay `offsets` of `at` by this pipeline, a generation's. `empty`: without the state that was there. Err: why it cannot be exact.
    pub fn new(
        pipeline: &Pipeline,
        generation: &Generation,
        known: &Deployment,
        log: &dyn Log,
        (at, offsets): (&TopicPartition, Range<i64>),
        empty: bool,
    ) -> anyhow::Result<Self> {
        let plan = Plan::new(pipeline);
        let source = pipeline.sources.iter().position(|source| source.topic == at.topic).unwrap_or_default();
        let segment = plan.segment_of[source];
        let task = TaskId { segment, partition: at.partition };
        let stages = || pipeline.stages.iter().zip(&plan.segments[segment].stages).filter(|(_, reached)| **reached).map(|(stage, _)| stage);
        let sources = plan.segments[segment].sources.iter().map(|source| &pipeline.sources[*source]);
        let why = stages().find(|stage| !stage.stores.is_empty()).map(|stage| format!("stage `{}` has state", stage.name)).or_else(|| {
            sources.clone().find(|source| source.table.is_some()).map(|source| format!("`{}` is a partitioned table", source.name))
        });
        let mut stretch = Self { task, at: at.clone(), offsets, inputs: Vec::new(), notes: Vec::new() };
        let Some(why) = why.clone().filter(|_| !empty) else {
            if why.is_some() {
                stretch.notes.push("it begins without state: what is shown is not what was given".to_owned());
            }
            let offsets = stretch.offsets.clone();
            stretch.inputs.push(Input { at: at.clone(), offsets, compacted: false });
            stretch.say_what_goes_on(pipeline, &plan);
            return Ok(stretch);
        };
        for source in sources {
            let partitions = log.topic(&source.topic)?.map_or(0, |topic| topic.partitions);
            if at.partition >= partitions || stretch.inputs.iter().any(|input| input.at.topic == source.topic) {
                continue;
            }
            let from = TopicPartition { topic: source.topic.clone(), partition: at.partition };
            let bounds = log.bounds(&from)?;
            let refused = |missing: String| {
                anyhow::anyhow!(
                    "{why}, and {missing}: what was given for {at}@{} cannot be given again; `--state empty` shows what it gives without state",
                    stretch.offsets.start
                )
            };
            let begun = began(known, &pipeline.name, log, &from).map_err(&refused)?;
            let begin = match (begun, source.start) {
                (Some(begun), _) => begun,
                // Nothing was taken of it yet: it would begin as its source says.
                (None, Start::Earliest) => bounds.begin,
                (None, Start::Latest) => bounds.end,
                (None, Start::At(time)) => log.offset_at(&from, time)?,
            };
            if bounds.begin > begin {
                return Err(refused(format!(
                    "the records {begin} to {} of {from} are no longer there, of which it was made (the pipeline began at {begin})",
                    bounds.begin - 1
                )));
            }
            if begin > bounds.begin && known.epoch() == 0 && source.start == Start::Earliest {
                return Err(refused(format!(
                    "the fleet took {from} over at offset {begin}, although there are records before that: what a run before the fleet has made of them is not known"
                )));
            }
            if begin > 0 && begun.is_some() && known.epoch() == 0 {
                stretch.notes.push(format!(
                    "as far as the fleet knows, `{}` began at {from}@{begin}; what a `millstream run` without the fleet had read before is not in the state",
                    pipeline.name
                ));
            }
            let mut until = bounds.end;
            if from == *at {
                if stretch.offsets.start < begin {
                    return Err(refused(format!("the pipeline began at {from}@{begin}, behind that record")));
                }
                until = stretch.offsets.end.min(bounds.end);
                stretch.offsets.end = until;
            }
            let compacted = log.retention(&from.topic)?.is_some_and(|retention| retention.compacted);
            stretch.inputs.push(Input { at: from, offsets: begin..until.max(begin), compacted });
        }
        let before = stretch.inputs.iter().filter(|input| !input.offsets.is_empty());
        let told = |input: &Input| {
            let Range { start, end } = input.offsets;
            format!("{} from offset {start} on ({} offsets)", input.at, end - start)
        };
        let before: Vec<_> = before.map(told).collect();
        stretch.notes.push(format!("the state is made anew of {}", before.join(" and ")));
        if pipeline.guarantee == Guarantee::AtLeastOnce {
            stretch
                .notes
                .push("`guarantee: at-least-once`: what was read again after a failure has counted twice, and counts once here".to_owned());
        }
        stretch.say_who_worked(generation, known);
        stretch.say_in_which_order(pipeline, &plan);
        stretch.say_what_goes_on(pipeline, &plan);
        for stage in stages().filter(|stage| stage.description.stores.iter().any(|store| store.emits.contains(&Occasion::Changed))) {
            stretch.notes.push(format!(
                "stage `{}` gives its results at commits (`emit: changes`): how many there were depends on when those were; shown is what one behind the last record gives",
                stage.name
            ));
        }
        for table in
            stages().flat_map(|stage| &stage.tables).map(|table| &pipeline.tables[*table]).filter(|table| table.scope == Scope::Global)
        {
            stretch
                .notes
                .push(format!("the global table `{}` is looked up as it is now: what records met then is not promised", table.name));
        }
        stretch.notes.dedup();
        Ok(stretch)
    }

    /// State is built by one generation, whoever worked then.
    fn say_who_worked(&mut self, generation: &Generation, known: &Deployment) {
        for input in &self.inputs {
            let cuts = known.cuts.range(known.epoch()..).filter_map(|(number, cuts)| Some((*number, cuts.get(&input.at)?.offset)));
            let worked: Vec<_> = cuts.filter(|(_, offset)| *offset < input.offsets.end).collect();
            if worked.iter().any(|(number, _)| *number != generation.number) {
                let told: Vec<_> = worked.iter().map(|(number, offset)| format!("{number} from offset {offset}")).collect();
                self.notes.push(format!(
                    "{} was processed by the generations {}: shown is what generation {} gives that works from the beginning",
                    input.at,
                    told.join(", "),
                    generation.number
                ));
            }
        }
    }

    fn say_in_which_order(&mut self, pipeline: &Pipeline, plan: &Plan) {
        let segment = &plan.segments[self.task.segment];
        if self.inputs.len() > 1 {
            let inputs: Vec<_> = self.inputs.iter().map(|input| input.at.to_string()).collect();
            self.notes.push(format!(
                "the task reads {}: their records are taken by timestamp, as a task takes them that finds both; where one was silent or late at the time, the order may have \
                 been another",
                inputs.join(" and ")
            ));
        }
        let windowed = pipeline.stages.iter().zip(&segment.stages).any(|(stage, reached)| *reached && stage.description.window.is_some());
        if windowed && !segment.upstream.is_empty() {
            self.notes.push(
                "time behind a repartition topic goes on as its senders tell in it: after a restart a window may have been closed by another record than here"
                    .to_owned(),
            );
        }
    }

    fn say_what_goes_on(&mut self, pipeline: &Pipeline, plan: &Plan) {
        for sink in &plan.segments[self.task.segment].sends {
            let topic = &pipeline.sinks[*sink].topic;
            self.notes.push(format!(
                "the stages behind {topic} are not part of this: `--from {topic}/PARTITION@OFFSET` replays them, as long as that topic holds all that went through it"
            ));
        }
    }
}

/// The offset from which on a pipeline has processed a partition, with no state before; None = it has not yet. Err: its state cannot be made anew, and why.
fn began(known: &Deployment, pipeline: &str, log: &dyn Log, at: &TopicPartition) -> Result<Option<i64>, String> {
    let epoch = known.epoch();
    let moved =
        known.generations.values().find(|generation| generation.number > epoch && generation.kind == Kind::Reset { cleared: false });
    if let Some(moved) = moved {
        return Err(format!("generation {} went on from other positions with the state that was there (`reset`)", moved.number));
    }
    let cut = known.cuts.range(epoch..).find_map(|(_, cuts)| cuts.get(at));
    if let Some(cut) = cut {
        return Ok(Some(cut.offset));
    }
    let committed = log.committed(pipeline, std::slice::from_ref(at)).map_err(|error| error.message)?;
    match committed.into_iter().next().flatten() {
        Some(position) if epoch > 0 => Ok(Some(position.offset)),
        Some(_) => Err(format!("{at} was read by a run without the fleet, which does not tell where it began")),
        None => Ok(None),
    }
}

/// Whoever looks on.
pub trait Observer {
    /// So many records are read, of so many at most.
    fn progress(&mut self, read: u64, total: u64);
    /// What the records that are shown give. Not what goes to another part of the pipeline.
    fn results(&mut self, to: &TopicPartition, records: &Records);
}

/// An input while it is read.
struct Feed {
    input: Input,
    reader: Box<dyn Reader>,
    /// Everything below was handed to the task, or waits in `rest`.
    next: i64,
    /// Of the partition whose records are shown: the first of those, and what came with them.
    rest: Option<Fetched>,
}

/// Puts the pipeline before the stretch's records, and shows what comes of them.
pub fn run(
    pipeline: Pipeline,
    generation: crate::generation::Generation,
    stretch: &Stretch,
    log: Arc<dyn Log>,
    secrets: &Secrets,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let as_log: Arc<dyn Log> = Arc::new(DryLog::as_new(log.clone())?);
    let folder = tempfile::tempdir().map_err(|error| RunError::Setup(format!("cannot make a folder for the state: {error}")))?;
    let name = pipeline.name.clone();
    let local = || -> Result<Arc<dyn LocalState>, LogError> { Ok(Arc::new(LocalFolder::open(folder.path(), &name, None)?)) };
    let mut setting = runtime::prepare_on(pipeline, &as_log, secrets, BatchLimit::default(), Creates::Nothing, &local, None)?;
    setting.generation = Some(generation);
    // Nothing of it is committed, so its records belong to no commit.
    if let Some(changelogs) = setting.changelogs.as_mut().and_then(Arc::get_mut) {
        changelogs.exist = false;
    }
    let setting = Arc::new(setting);
    TableReader::new(&setting, &*log, stop)?;
    let mut task = Task::new(stretch.task, setting.clone());
    task.to_end();
    task.prepare().map_err(|(stage, error)| RunError::Plugin(crate::explain::not_started(&setting.pipeline, stage, &error)))?;
    let mut feeds = Vec::new();
    for input in &stretch.inputs {
        let Range { start, end } = input.offsets;
        let position = Position { offset: start, metadata: String::new() };
        for source in (0..setting.pipeline.sources.len()).filter(|source| setting.pipeline.sources[*source].topic == input.at.topic) {
            task.add(source, input.at.clone(), &position, Some(end), 0);
        }
        let mut reader = log.reader()?;
        reader.assign(&[(input.at.clone(), start)])?;
        feeds.push(Feed { input: input.clone(), reader, next: start, rest: None });
    }
    let mut replayed = Replayed { task, feeds, stretch, setting, shows: false, read: 0, unmoved: 0 };
    replayed.go(stop, observer)
}

struct Replayed<'s> {
    task: Task,
    feeds: Vec<Feed>,
    stretch: &'s Stretch,
    setting: Arc<Setting>,
    /// The first record that is shown was reached: from here on each goes alone.
    shows: bool,
    read: u64,
    /// Records since rows were moved from memory.
    unmoved: usize,
}

impl Replayed<'_> {
    fn go(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<(), RunError> {
        let total = self.stretch.inputs.iter().map(|input| (input.offsets.end - input.offsets.start) as u64).sum();
        while !stop.load(Ordering::Relaxed) && !self.is_done() {
            match self.task.step(true).map_err(|stop| runtime::stopped(&self.setting.pipeline, stop))? {
                Some(produced) => self.take_over(&produced, observer)?,
                None if self.feed()? => {}
                None => break,
            }
            observer.progress(self.read, total);
        }
        if self.shows {
            let changes = self.give_changes()?;
            self.show(changes.iter(), observer);
        }
        Ok(())
    }

    /// Whether every record that is to be shown was processed.
    fn is_done(&self) -> bool {
        let Stretch { at, offsets, .. } = self.stretch;
        self.shows && self.task.places().any(|(from, position, waiting)| from == at && waiting == 0 && position >= offsets.end)
    }

    fn show<'p>(&self, produced: impl Iterator<Item = &'p Produced>, observer: &mut dyn Observer) {
        let sinks = &self.setting.pipeline.sinks;
        let own = |to: &TopicPartition| sinks.iter().any(|sink| sink.topic == to.topic && sink.regroup.is_some());
        let appends = produced.flat_map(|produced| &produced.appends).filter(|(to, _)| !own(to));
        appends.for_each(|(to, records)| observer.results(to, records));
    }

    fn take_over(&mut self, produced: &Produced, observer: &mut dyn Observer) -> Result<(), RunError> {
        let Stretch { at, offsets, .. } = self.stretch;
        if self.shows {
            // Each record is a batch: what came of the batch came of it.
            if produced.last.as_ref().is_some_and(|(from, offset)| from == at && offsets.contains(offset)) {
                self.show(std::iter::once(produced), observer);
            }
            return Ok(());
        }
        self.unmoved += produced.rows;
        if self.unmoved >= KEPT_ROWS { self.settle() } else { Ok(()) }
    }

    /// Hands the task what it waits for. False: there is nothing more.
    fn feed(&mut self) -> Result<bool, RunError> {
        for place in 0..self.feeds.len() {
            let feed = &mut self.feeds[place];
            let at = feed.input.at.clone();
            if self.task.waiting(&at) > 0 {
                continue;
            }
            if let Some(rest) = feed.rest.take() {
                if !self.shows {
                    self.shows = true;
                    self.settle()?;
                    self.task.narrow(1);
                }
                self.task.offer(rest)?;
                return Ok(true);
            }
            if feed.next >= feed.input.offsets.end {
                continue;
            }
            match feed.reader.poll(LIMIT, WAIT)? {
                Event::Records(fetched) => self.take(place, fetched)?,
                Event::End { offset, .. } => {
                    feed.next = feed.next.max(offset);
                    self.task.end(&at, offset);
                }
                _ => {}
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes records of an input over: those that are to be shown are kept back until the others are processed.
    fn take(&mut self, place: usize, fetched: Fetched) -> Result<(), RunError> {
        let feed = &mut self.feeds[place];
        let Some(last) = fetched.offsets.last().copied() else { return Ok(()) };
        if feed.input.compacted {
            let until = feed.input.offsets.end;
            let expected = (feed.next..).zip(&fetched.offsets).find(|(expected, offset)| expected != *offset && *expected < until);
            if let Some((expected, offset)) = expected {
                return Err(RunError::Setup(format!(
                    "the topic {} is compacted, and of partition {} the offsets {expected} to {} are missing: what stood there may have been part of the state, so what was given for \
                     {}@{} cannot be given again; `--state empty` shows what it gives without state",
                    feed.input.at.topic,
                    feed.input.at.partition,
                    offset - 1,
                    self.stretch.at,
                    self.stretch.offsets.start
                )));
            }
        }
        feed.next = last + 1;
        self.read += fetched.offsets.len() as u64;
        let before = if feed.input.at == self.stretch.at && !self.shows {
            fetched.offsets.partition_point(|offset| *offset < self.stretch.offsets.start)
        } else {
            fetched.offsets.len()
        };
        let part = |rows: Range<usize>| {
            let picked: Vec<u32> = (rows.start as u32..rows.end as u32).collect();
            Fetched { from: fetched.from.clone(), offsets: fetched.offsets[rows].to_vec(), records: fetched.records.gather(&picked) }
        };
        if before < fetched.offsets.len() {
            feed.rest = Some(part(before..fetched.offsets.len()));
        }
        if before > 0 {
            self.task.offer(part(0..before))?;
        }
        Ok(())
    }

    fn give_changes(&mut self) -> Result<Option<Produced>, RunError> {
        self.task.give_changes().map_err(|stop| runtime::stopped(&self.setting.pipeline, stop))
    }

    /// As a commit does: what changed is no longer new, and its rows go to the folder.
    fn settle(&mut self) -> Result<(), RunError> {
        self.unmoved = 0;
        self.give_changes()?;
        let Some(committing) = self.task.begin_commit(true)? else { return Ok(()) };
        let Some(changelogs) = &self.setting.changelogs else { return Ok(()) };
        for writes in &committing.state {
            changelogs.local.write(&writes.store, writes.task, &writes.rows, None)?;
        }
        self.task.committed();
        self.task.each_store(|store| {
            let rows = store.take_dirty();
            store.checkpointed(rows);
        });
        Ok(())
    }
}
