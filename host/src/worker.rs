//! A worker: one thread, one member of the group, its tasks. Polls, processes, commits output, state and positions as one; while a commit is in
//! flight it goes on polling and processing in memory.

mod commit;
mod ends;
mod follow;
mod partitions;
mod recovery;

use crate::course::{Course, Heading};
use crate::explain;
use crate::io::{Clock, Event, FetchLimit, Log, LogError, Member, Membership, TopicPartition, partitions_of};
use crate::isolation::Isolation;
use crate::monitor::{Figures, Histogram, Monitor, Parked, PartitionFigures, Seat};
use crate::planted::{Mistake, planted};
use crate::record::Records;
use crate::restore::Restore;
use crate::shadow::Report;
use crate::store::changelog::Claim;
use crate::summary::{Summary, Works};
use crate::tables::TableReader;
use crate::task::{Produced, Setting, Stop, Task, TaskId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How a worker runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stop at the ends of the sources and tables as they are at the start.
    pub until_end: bool,
    /// Commit this long after the first record since the last commit.
    pub commit_interval: Duration,
    /// Commit after so many records, however little time has passed.
    pub commit_rows: usize,
    /// Write committed rows to the local copies of the stores this often, where the log keeps state as changelogs.
    pub checkpoint_interval: Duration,
    /// Hand over every window that is still open when the ends are reached.
    pub close_windows: bool,
    /// Rows that wait in memory for one partition before its fetching pauses.
    pub queue_rows: usize,
    /// Stop after so many records of the sources.
    pub limit: Option<u64>,
    /// Names this host in groups and transactions, stable over restarts.
    pub host: String,
    /// Threads, each a member of the group with a transaction of its own.
    pub workers: usize,
    /// A task that meets a record or a plugin that fails for good stands still alone, the others go on.
    pub park: bool,
    /// Nobody else can run the pipeline meanwhile: a run without a fleet goes on from wherever one has left it.
    pub alone: bool,
    /// Where the run is watched and steered from; one for all its workers.
    pub monitor: Arc<Monitor>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            until_end: false,
            close_windows: false,
            commit_interval: Duration::from_millis(100),
            commit_rows: 50_000,
            checkpoint_interval: Duration::from_secs(10),
            queue_rows: 10_000,
            limit: None,
            host: "host".to_owned(),
            workers: 1,
            park: false,
            alone: false,
            monitor: Arc::default(),
        }
    }
}

/// What one of several workers has of its own.
#[derive(Default)]
pub struct Role {
    /// Among the host's workers.
    pub number: usize,
    /// Stands in for the log's own (a dry run).
    pub member: Option<Box<dyn Member>>,
    /// The tables, read to their ends: one worker keeps them current for all.
    pub tables: Option<TableReader>,
}

/// How a run ended other than well.
#[derive(Debug)]
pub enum Ended {
    /// A record or a plugin; what was before it is committed.
    Stopped(Stop),
    Log(LogError),
    /// A stage's plugin did not start; why, in words.
    Init(String),
}

impl From<LogError> for Ended {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// What a worker tells while it runs.
pub trait Observer {
    /// Called between batches.
    fn progress(&mut self, worker: &Worker<'_>);
}

/// Rows that wait to be appended behind a commit in flight.
const PENDING_ROWS: usize = 100_000;
/// How long a poll waits when there is nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// How long a task waits for a partition that is silent though it is not known to be at its end, where records meet rows as of their own place.
const TABLE_PATIENCE: Duration = Duration::from_secs(1);

/// What is processed and not committed.
#[derive(Debug, Default)]
struct Uncommitted {
    rows: usize,
    /// Records of the sources among them.
    records: u64,
    /// Where the last of them stands in its topic.
    last: Option<(TopicPartition, i64)>,
    /// There are results that come of no record.
    apart: bool,
}

/// A commit under way.
struct InFlight {
    tasks: Vec<TaskId>,
    /// Positions in repartition topics.
    passed: Vec<(TopicPartition, i64)>,
    positions: Vec<(TopicPartition, i64)>,
    since: Duration,
    of: Uncommitted,
}

/// The ends of changelogs when everything committed before was applied, by task and store. They hold for a checkpoint once a further commit has come
/// through: that proves that nobody else has written in between.
type Captured = BTreeMap<(TaskId, Arc<str>), i64>;

pub struct Worker<'a> {
    course: Arc<Course>,
    /// By which it works; its `setting` stands also for what every generation has in common: sources, segments, changelogs.
    heading: Heading,
    log: Arc<dyn Log>,
    /// In the group: `<host>.<worker>`.
    name: String,
    member: Box<dyn Member>,
    clock: &'a dyn Clock,
    options: Options,
    stop: &'a AtomicBool,
    tables: Option<TableReader>,
    pub tasks: BTreeMap<TaskId, Task>,
    /// For `until_end`: those of the user's sources are captured at the start, those of repartition topics once all that is written to them is.
    ends: BTreeMap<TopicPartition, i64>,
    /// For `until_end`: the level of the segments that are being processed to their ends.
    level: usize,
    /// When the group was last asked how far it is.
    asked: Duration,
    /// Appends that wait for the commit in flight.
    pending: Vec<(TopicPartition, Records)>,
    pending_rows: usize,
    in_flight: Option<InFlight>,
    /// Until when the commit in flight is waited for.
    deadline: Option<Duration>,
    captured: Option<Captured>,
    /// To the local copies of tasks that have stores.
    claims: BTreeMap<TaskId, Claim>,
    /// Committed positions in repartition topics, below which nobody reads any more, and when records were deleted there last.
    passed: HashMap<TopicPartition, i64>,
    deleted: Duration,
    /// When tasks last repeated where they stand.
    marked: Duration,
    /// When the last checkpoint was made.
    checkpointed: Duration,
    /// Tasks that take no records yet.
    restore: Option<Restore>,
    /// Since when polls bring nothing.
    idle_since: Option<Duration>,
    /// Since the last commit, and when the first of it was processed.
    uncommitted: Uncommitted,
    first_since: Option<Duration>,
    /// The log has refused a record that is yet to be found.
    isolation: Option<Isolation>,
    /// Searches in a row that found nothing.
    fruitless: u32,
    /// Partitions whose tasks a rewind has dropped, and not made again yet.
    owed: Vec<TopicPartition>,
    /// Records of the sources, since the start; what is dropped uncommitted, and read again, counts once.
    pub processed: u64,
    pub commits: u64,
    paused: Vec<TopicPartition>,
    /// Nothing is taken of the user's sources; the number of the time that they are shut.
    shut: Option<u64>,
    stopped: Option<Stop>,
    /// Tasks that stand still, and why; and how often those were told to try again.
    parked: BTreeMap<TaskId, Parked>,
    revived: u64,
    /// Partitions that are at a newer generation, and since when.
    behind: BTreeMap<TopicPartition, u64>,
    behind_since: Option<Duration>,
    /// When the member was fenced last.
    fenced: Option<Duration>,
    /// That the log is in trouble was told, and the trouble lasts.
    troubled: bool,
    /// When the last trouble was over.
    well_since: Option<Duration>,
    /// What tasks did that were given up since.
    retired: Summary,
    /// What each generation did in them.
    worked: BTreeMap<u64, Works>,
    /// Where it is watched and steered from.
    seat: Seat,
    /// The committed positions of its partitions.
    committed: BTreeMap<TopicPartition, i64>,
    commit_time: Histogram,
    turn_time: Histogram,
    /// Records of changelogs read, and to read at most, of the last restore that has ended.
    restored: (u64, u64),
}

impl<'a> Worker<'a> {
    /// Joins the group.
    pub fn new(
        course: Arc<Course>,
        log: Arc<dyn Log>,
        role: Role,
        clock: &'a dyn Clock,
        options: Options,
        stop: &'a AtomicBool,
    ) -> Result<Self, Ended> {
        let Role { number, member, tables } = role;
        let heading = course.now();
        let setting = &heading.setting;
        let name = format!("{}.{number}", options.host);
        let seat = options.monitor.seat(&name);
        let member = match member {
            Some(member) => member,
            None => join(setting, &log, &name)?,
        };
        let mut ends = BTreeMap::new();
        if options.until_end {
            for source in setting.pipeline.sources.iter().filter(|source| source.carries.is_none()) {
                for partition in partitions_of(&*log, &source.topic)? {
                    let end = log.bounds(&partition)?.end;
                    ends.insert(partition, end);
                }
            }
        }
        Ok(Self {
            course,
            heading,
            log,
            name,
            member,
            clock,
            options,
            stop,
            tables,
            tasks: BTreeMap::new(),
            ends,
            level: 0,
            asked: Duration::ZERO,
            pending: Vec::new(),
            pending_rows: 0,
            in_flight: None,
            deadline: None,
            captured: None,
            claims: BTreeMap::new(),
            passed: HashMap::new(),
            deleted: clock.elapsed(),
            marked: clock.elapsed(),
            checkpointed: clock.elapsed(),
            restore: None,
            idle_since: None,
            uncommitted: Uncommitted::default(),
            first_since: None,
            isolation: None,
            fruitless: 0,
            owed: Vec::new(),
            processed: 0,
            commits: 0,
            paused: Vec::new(),
            shut: None,
            stopped: None,
            parked: BTreeMap::new(),
            revived: seat.revivals(),
            behind: BTreeMap::new(),
            behind_since: None,
            fenced: None,
            troubled: false,
            well_since: None,
            retired: Summary::default(),
            worked: BTreeMap::new(),
            seat,
            committed: BTreeMap::new(),
            commit_time: Histogram::default(),
            turn_time: Histogram::default(),
            restored: (0, 0),
        })
    }

    /// Runs until it is told to stop, the captured ends are reached, or something fails. Whatever was processed well is committed at the end.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<(), Ended> {
        let mut failures = 0;
        let ended = loop {
            match self.advance(&mut failures) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(ended) => break Err(ended),
            }
            observer.progress(&self);
            self.publish();
        };
        observer.progress(&self);
        self.end(ended)
    }

    /// Tells whoever watches, a few times a second.
    pub(crate) fn publish(&mut self) {
        if self.seat.due(self.clock.elapsed()) {
            self.seat.publish(self.figures());
        }
    }

    /// One turn; what the run gets over by itself, it gets over. `failures`: in a row. False: all is done.
    pub(crate) fn advance(&mut self, failures: &mut usize) -> Result<bool, Ended> {
        match self.turn() {
            Ok(more) => {
                *failures = 0;
                Ok(more)
            }
            Err(Ended::Log(error)) => self.recover(error, failures).map(|()| true),
            Err(other) => Err(other),
        }
    }

    /// After the last turn: leaves the group, and tells how it ended.
    pub(crate) fn end(mut self, ended: Result<(), Ended>) -> Result<(), Ended> {
        let ended = ended.and_then(|()| match self.stopped.take() {
            Some(stop) => Err(Ended::Stopped(stop)),
            None => Ok(()),
        });
        self.seat.publish(self.figures());
        let left = self.member.leave();
        ended?;
        left?;
        self.seat.end_well();
        Ok(())
    }

    /// Polls once, processes what is there, commits what is due. False: all is done.
    fn turn(&mut self) -> Result<bool, Ended> {
        let stopping =
            self.stop.load(Ordering::Relaxed) || self.stopped.is_some() || self.options.limit.is_some_and(|limit| self.processed >= limit);
        if stopping || self.finished()? {
            self.commit_all()?;
            self.checkpoint_all()?;
            return Ok(false);
        }
        let wait = self.patience();
        let setting = self.heading.setting.clone();
        let limit = FetchLimit { rows: setting.limit.rows, bytes: setting.limit.bytes };
        let most = self.options.queue_rows;
        let mut idle = false;
        match self.member.poll(limit, wait)? {
            Event::Records(fetched) => {
                let from = fetched.from.clone();
                tracing::trace!(%from, first = fetched.offsets.first(), rows = fetched.offsets.len(), "fetched");
                if let Some(task) = self.task_of(&from) {
                    task.offer(fetched)?;
                    if task.waiting(&from) > most {
                        self.member.pause(std::slice::from_ref(&from))?;
                        self.paused.push(from);
                    }
                }
            }
            Event::End { at, offset } => {
                if let Some(task) = self.task_of(&at) {
                    task.end(&at, offset);
                }
            }
            Event::Assigned(partitions) => self.assign(&partitions)?,
            Event::Revoked { partitions, lost } => {
                self.revoke(&partitions, lost)?;
                // Whoever gets them looks for himself.
                self.isolation = None;
            }
            Event::Idle => {
                idle = true;
                self.watch();
            }
        }
        // Behind the poll: of two workers of a host that both believe to have a task, one hears here that it has lost it, instead of taking the
        // task's local copy back for ever.
        self.restore_on()?;
        if let Some(tables) = &mut self.tables
            && !self.options.until_end
        {
            tables.follow()?;
        }
        self.shut = self.seat.shut();
        self.idle_since = if idle { self.idle_since.or(Some(self.clock.elapsed())) } else { None };
        self.process(idle)?;
        self.resume()?;
        self.progress_commit(Duration::ZERO)?;
        if self.clock.elapsed() >= self.marked + self.options.checkpoint_interval && self.shut.is_none() {
            self.marked = self.clock.elapsed();
            self.tasks.values_mut().for_each(Task::repeat_mark);
        }
        if self.first_since.is_none() && self.restore.is_none() {
            let due = self.tasks.values().any(|task| task.mark_due() || task.cut_due()) || !self.seat.paused() && self.sweeping() > 0;
            self.first_since = due.then(|| self.clock.elapsed());
        }
        if self.in_flight.is_none() && self.commit_due() {
            self.begin_commit()?;
        }
        if self.seat.revivals() != self.revived {
            self.revive()?;
        }
        self.follow()?;
        if self.seat.paused() && self.in_flight.is_none() && self.first_since.is_none() {
            self.seat.settle();
        }
        Ok(true)
    }

    /// Records of changelogs read, and to read at most, while state is being restored.
    pub fn restoring(&self) -> Option<(u64, u64)> {
        self.restore.as_ref().map(|restore| (restore.read, restore.total))
    }

    /// What was done so far, over all tasks.
    pub fn summary(&self) -> Summary {
        let pipeline = &self.heading.setting.pipeline;
        let mut summary = Summary {
            records: self.processed,
            commits: self.commits,
            stages: vec![Default::default(); pipeline.stages.len()],
            sinks: vec![0; pipeline.sinks.len()],
            refused: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            restoring: self.restoring(),
            turned: 0,
        };
        summary.add(&self.retired);
        for task in self.tasks.values() {
            summary.add(&self.summary_of(task));
        }
        summary
    }

    /// What a task did, by the stages of the generation that works.
    fn summary_of(&self, task: &Task) -> Summary {
        let own = task.setting();
        let mut summary = task.summary();
        if !Arc::ptr_eq(own, &self.heading.setting) {
            summary = summary.renamed(&own.pipeline, &self.heading.setting.pipeline);
        }
        if let Some((other, divided)) = task.divided_summary() {
            summary.add(&divided.renamed(&other.pipeline, &self.heading.setting.pipeline));
        }
        summary
    }

    /// Keeps what a task did that goes.
    fn retire(&mut self, task: &Task) {
        let summary = self.summary_of(task);
        self.retired.add(&summary);
        for (generation, works) in task.works() {
            *self.worked.entry(generation).or_default() += works;
        }
    }

    /// What is told to whoever watches.
    fn figures(&self) -> Figures {
        let mut partitions: BTreeMap<TopicPartition, PartitionFigures> = BTreeMap::new();
        for (at, position, waiting) in self.tasks.values().flat_map(Task::places) {
            let Some(committed) = self.committed.get(at).copied() else { continue };
            let known = partitions.entry(at.clone()).or_insert(PartitionFigures { committed, position, waiting: 0 });
            known.position = known.position.min(position);
            known.waiting += waiting;
        }
        Figures {
            summary: self.summary(),
            commit_time: self.commit_time,
            turn_time: self.turn_time,
            stream_times: self.tasks.iter().filter_map(|(id, task)| Some((*id, task.stream_time()?))).collect(),
            partitions,
            parked: self
                .parked
                .iter()
                .flat_map(|(id, why)| self.tasks.get(id).into_iter().flat_map(Task::partitions).map(|at| (at, why.clone())))
                .collect(),
            generation: self.heading.setting.generation_number(),
            trial: self.heading.trial.as_ref().map_or(0, |trial| trial.setting.generation_number()),
            works: self.works(),
            quiet: self.shut.filter(|_| self.is_quiet()),
            sweeping: self.tasks.values().filter(|task| task.sweep_due()).count(),
            shadow: self.heading.compared().map(|number| (number, self.shadow_report())),
            restored: self.restoring().unwrap_or(self.restored),
        }
    }

    /// Whether all that was processed is committed, and nothing is on its way to be.
    fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.first_since.is_none() && self.pending.is_empty() && self.restore.is_none()
    }

    /// Tasks that may have rows of older types, and go on.
    fn sweeping(&self) -> usize {
        self.tasks.iter().filter(|(id, task)| task.sweep_due() && !self.parked.contains_key(id)).count()
    }

    fn shadow_report(&self) -> Report {
        let mut report = Report::default();
        self.tasks.values().filter_map(Task::shadow).for_each(|shadow| report.add(&shadow.report));
        report
    }

    fn works(&self) -> BTreeMap<u64, Works> {
        let mut works = self.worked.clone();
        for task in self.tasks.values() {
            for (generation, more) in task.works() {
                *works.entry(generation).or_default() += more;
            }
        }
        works
    }

    /// How long a poll may wait: not past the next commit.
    fn patience(&self) -> Duration {
        if self.restore.is_some() {
            return Duration::ZERO;
        }
        if self.in_flight.is_some() {
            return Duration::from_millis(1);
        }
        match self.first_since {
            Some(first) => (first + self.options.commit_interval).saturating_sub(self.clock.elapsed()).min(IDLE),
            None => IDLE,
        }
    }

    /// Processes what waits in the queues. `idle`: nothing more comes for now, so that nobody waits for a partition that is silent.
    fn process(&mut self, idle: bool) -> Result<(), Ended> {
        if self.seat.paused() {
            // What is fetched waits in the queues, and fetching pauses when they are full: membership and places are kept.
            return Ok(());
        }
        let most = self.commit_rows();
        let waited = self.idle_since.is_some_and(|since| self.clock.elapsed() >= since + TABLE_PATIENCE);
        let numbers: Vec<TaskId> = self.tasks.keys().copied().collect();
        for number in numbers {
            loop {
                if self.stopped.is_some() || self.pending_rows > PENDING_ROWS || self.parked.contains_key(&number) {
                    break;
                }
                let Some(task) = self.tasks.get_mut(&number) else { break };
                // What is processed behind a commit in flight would be in the next one, whatever its size.
                if self.isolation.is_some() && (self.in_flight.is_some() || self.uncommitted.rows >= most) {
                    break;
                }
                task.shut(self.shut.is_some() && !planted(Mistake::NotShut));
                let isolated = if self.isolation.is_some() { most - self.uncommitted.rows } else { usize::MAX };
                let left = self
                    .options
                    .limit
                    .map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(self.processed)).unwrap_or(usize::MAX));
                task.narrow(isolated.min(left));
                let patient = self.options.until_end || !idle || task.order_matters() && !waited;
                let patient = patient && !planted(Mistake::NoPatience);
                match task.step(patient) {
                    Ok(Some(produced)) => self.take_over(produced)?,
                    Ok(None) => break,
                    Err(Stop::Log(error)) => return Err(error.into()),
                    Err(stop) if self.options.park => self.park(number, &stop),
                    Err(stop) => self.stopped = Some(stop),
                }
                let over = self.options.limit.is_some_and(|limit| self.processed >= limit) || self.stop.load(Ordering::Relaxed);
                if over || self.seat.paused() {
                    return Ok(());
                }
                if self.in_flight.is_none() && self.uncommitted.rows >= most {
                    self.begin_commit()?;
                }
            }
        }
        if self.pending_rows > PENDING_ROWS {
            self.progress_commit(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// The task takes no more until it is told to try again.
    fn park(&mut self, number: TaskId, stop: &Stop) {
        let own = self.tasks.get(&number).map_or(&self.heading.setting, |task| task.stopped_by(stop)).clone();
        let why = explain::stopped(&own.pipeline, stop);
        // The search for it is over: what comes behind waits with it.
        self.isolation = None;
        tracing::error!(
            pipeline = self.heading.setting.pipeline.name,
            partition = number.partition,
            "{why}; the partition stands still until `resume`"
        );
        self.parked.insert(number, Parked { why: why.into(), generation: own.generation_number() });
    }

    fn take_over(&mut self, produced: Produced) -> Result<(), Ended> {
        self.processed += produced.records as u64;
        self.uncommitted.records += produced.records as u64;
        self.uncommitted.rows += produced.rows;
        self.uncommitted.last = produced.last.or(self.uncommitted.last.take());
        self.uncommitted.apart |= produced.apart;
        if self.first_since.is_none() {
            self.first_since = Some(self.clock.elapsed());
        }
        if self.in_flight.is_some() {
            self.pending_rows += produced.rows;
            self.pending.extend(produced.appends);
            return Ok(());
        }
        for (to, records) in &produced.appends {
            self.member.append(to, records)?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Ended> {
        let setting = self.heading.setting.clone();
        let few = self.options.queue_rows.div_ceil(2);
        let mut ready = Vec::new();
        self.paused.retain(|from| {
            let waiting = self.tasks.get(&task_of(&setting, from)).map_or(0, |task| task.waiting(from));
            if waiting < few {
                ready.push(from.clone());
            }
            waiting >= few
        });
        if !ready.is_empty() {
            self.member.resume(&ready)?;
        }
        Ok(())
    }

    fn task_of(&mut self, from: &TopicPartition) -> Option<&mut Task> {
        let id = task_of(&self.heading.setting, from);
        self.tasks.get_mut(&id).filter(|task| task.reads(from))
    }
}

/// Why a task stops, of what cannot be undone alone.
fn stopped(stop: Stop) -> Ended {
    match stop {
        Stop::Log(error) => Ended::Log(error),
        stop => Ended::Stopped(stop),
    }
}

fn join(setting: &Setting, log: &Arc<dyn Log>, name: &str) -> Result<Box<dyn Member>, LogError> {
    let mut topics: Vec<_> = setting.pipeline.sources.iter().map(|source| source.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    log.member(&Membership { group: setting.pipeline.name.clone(), member: name.to_owned(), topics, guarantee: setting.pipeline.guarantee })
}

/// The task of a partition of a source.
fn task_of(setting: &Setting, partition: &TopicPartition) -> TaskId {
    let source = setting.pipeline.sources.iter().position(|source| source.topic == partition.topic).unwrap_or_default();
    TaskId { segment: setting.plan.segment_of[source], partition: partition.partition }
}
