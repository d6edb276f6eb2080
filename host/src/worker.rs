//! A worker: one thread, one member of the group, its tasks. Polls, processes, commits output, state and positions as one; while a commit is in
//! flight it goes on polling and processing in memory.

use crate::fault;
use crate::io::{
    Checkpoint, Clock, Commit, CommitState, Event, FetchLimit, Log, LogError, Member, Membership, Position, Remedy, TopicPartition,
    partitions_of,
};
use crate::isolation::{Finding, Guilty, Isolation};
use crate::monitor::{Figures, Histogram, Monitor, PartitionFigures, Seat};
use crate::pipeline::Start;
use crate::planted::{Mistake, planted};
use crate::record::Records;
use crate::restore::Restore;
use crate::store::changelog::Claim;
use crate::summary::Summary;
use crate::tables::TableReader;
use crate::task::{Metadata, Produced, Setting, Stop, Task, TaskId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// A stage's plugin did not start.
    Init {
        stage: usize,
        error: crate::plugin::CallError,
    },
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
/// Committed rows of a worker's stores that wait for a checkpoint, in bytes, before one is made early.
const DIRTY_BYTES: usize = 16 << 20;
/// How often the group is asked whether its other members are done.
const ASK: Duration = Duration::from_millis(300);
/// How long a poll waits when there is nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// How long a task waits for a partition that is silent though it is not known to be at its end, where records meet rows as of their own place.
const TABLE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the group waits at a revocation until what is finished is committed: as long as brokers keep a transaction open.
const REVOKE: Duration = Duration::from_secs(10);
/// How often a member that was fenced joins anew.
const REJOIN: Duration = Duration::from_secs(60);
/// Pauses between attempts while the log is out of reach.
const BACK_OFF: [Duration; 5] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];
/// Brokers that are just back may put a member out once more, or refuse what was under way: that belongs to the trouble before, which was told.
const AFTERMATH: Duration = Duration::from_secs(10);

/// A commit under way.
struct InFlight {
    tasks: Vec<TaskId>,
    /// Positions in repartition topics.
    passed: Vec<(TopicPartition, i64)>,
    positions: Vec<(TopicPartition, i64)>,
    since: Duration,
    /// Records of the sources.
    records: u64,
    /// Rows, and where the last of them stands in its topic.
    rows: usize,
    last: Option<(TopicPartition, i64)>,
}

/// The ends of changelogs when everything committed before was applied, by task and store. They hold for a checkpoint once a further commit has come
/// through: that proves that nobody else has written in between.
type Captured = BTreeMap<(TaskId, Arc<str>), i64>;

pub struct Worker<'a> {
    setting: Arc<Setting>,
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
    /// Rows since the last commit, and when the first of them was processed.
    since_commit: usize,
    first_since: Option<Duration>,
    /// Records of the sources among them.
    records: u64,
    /// The last of those rows, in its topic.
    last: Option<(TopicPartition, i64)>,
    /// The log has refused a record that is yet to be found.
    isolation: Option<Isolation>,
    /// Records of the sources, since the start; what is dropped uncommitted, and read again, counts once.
    pub processed: u64,
    pub commits: u64,
    paused: Vec<TopicPartition>,
    stopped: Option<Stop>,
    /// When the member was fenced last.
    fenced: Option<Duration>,
    /// That the log is in trouble was told, and the trouble lasts.
    troubled: bool,
    /// When the last trouble was over.
    well_since: Option<Duration>,
    /// What tasks did that were given up since.
    retired: Summary,
    /// Where it is watched and steered from.
    seat: Seat,
    /// The committed positions of its partitions.
    committed: BTreeMap<TopicPartition, i64>,
    commit_time: Histogram,
    /// Records of changelogs read, and to read at most, of the last restore that has ended.
    restored: (u64, u64),
}

impl<'a> Worker<'a> {
    /// Joins the group.
    pub fn new(
        setting: Arc<Setting>,
        log: Arc<dyn Log>,
        role: Role,
        clock: &'a dyn Clock,
        options: Options,
        stop: &'a AtomicBool,
    ) -> Result<Self, Ended> {
        let Role { number, member, tables } = role;
        let name = format!("{}.{number}", options.host);
        let seat = options.monitor.seat(&name);
        let member = match member {
            Some(member) => member,
            None => join(&setting, &log, &name)?,
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
            setting,
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
            since_commit: 0,
            first_since: None,
            records: 0,
            last: None,
            isolation: None,
            processed: 0,
            commits: 0,
            paused: Vec::new(),
            stopped: None,
            fenced: None,
            troubled: false,
            well_since: None,
            retired: Summary::default(),
            seat,
            committed: BTreeMap::new(),
            commit_time: Histogram::default(),
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
            if self.seat.due(self.clock.elapsed()) {
                self.seat.publish(self.figures());
            }
        };
        observer.progress(&self);
        self.end(ended)
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
        let setting = self.setting.clone();
        let limit = FetchLimit { rows: setting.limit.rows, bytes: setting.limit.bytes };
        let most = self.options.queue_rows;
        let mut idle = false;
        match self.member.poll(limit, wait)? {
            Event::Records(fetched) => {
                let from = fetched.from.clone();
                tracing::trace!(%from, first = fetched.offsets.first(), rows = fetched.offsets.len(), "fetched");
                if let Some(task) = self.task_of(&from) {
                    task.offer(fetched);
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
        self.idle_since = if idle { self.idle_since.or(Some(self.clock.elapsed())) } else { None };
        self.process(idle)?;
        self.resume()?;
        self.progress_commit(Duration::ZERO)?;
        if self.clock.elapsed() >= self.marked + self.options.checkpoint_interval {
            self.marked = self.clock.elapsed();
            self.tasks.values_mut().for_each(Task::repeat_mark);
        }
        if self.first_since.is_none() && self.restore.is_none() && self.tasks.values().any(Task::mark_due) {
            self.first_since = Some(self.clock.elapsed());
        }
        if self.in_flight.is_none() && self.commit_due() {
            self.begin_commit()?;
        }
        if self.seat.paused() && self.in_flight.is_none() && self.first_since.is_none() {
            self.seat.settle();
        }
        Ok(true)
    }

    /// Looks whether the log can be reached, when nothing comes from it.
    fn watch(&mut self) {
        match self.member.away() {
            Some(reason) => self.tell(&reason),
            // With nothing to commit; else the next commit shows whether all is well again. Without tasks, the group is yet to be heard of.
            None if !self.tasks.is_empty() && self.in_flight.is_none() && self.first_since.is_none() => self.well(),
            None => {}
        }
    }

    /// Something failed that the run gets over by itself.
    fn trouble(&mut self, reason: &str) {
        if self.well_since.is_some_and(|since| self.clock.elapsed() < since + AFTERMATH) {
            tracing::debug!(pipeline = self.setting.pipeline.name, "{reason}");
        } else {
            self.tell(reason);
        }
    }

    /// Tells why the run waits: once, however long it lasts and whatever fails meanwhile.
    fn tell(&mut self, reason: &str) {
        let pipeline = &self.setting.pipeline.name;
        if std::mem::replace(&mut self.troubled, true) {
            tracing::debug!(pipeline, "{reason}");
        } else {
            tracing::warn!(pipeline, "{reason}; what is not committed is done again, and the run goes on by itself as soon as it can");
        }
        self.seat.trouble();
    }

    fn well(&mut self) {
        if std::mem::take(&mut self.troubled) {
            self.well_since = Some(self.clock.elapsed());
            self.seat.well();
            tracing::info!(pipeline = self.setting.pipeline.name, "the log is well again");
        }
    }

    /// Records of changelogs read, and to read at most, while state is being restored.
    pub fn restoring(&self) -> Option<(u64, u64)> {
        self.restore.as_ref().map(|restore| (restore.read, restore.total))
    }

    /// What was done so far, over all tasks.
    pub fn summary(&self) -> Summary {
        let pipeline = &self.setting.pipeline;
        let mut summary = Summary {
            records: self.processed,
            commits: self.commits,
            stages: vec![Default::default(); pipeline.stages.len()],
            sinks: vec![0; pipeline.sinks.len()],
            refused: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            restoring: self.restoring(),
        };
        summary.add(&self.retired);
        for task in self.tasks.values() {
            summary.add(&task.summary());
        }
        summary
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
            stream_times: self.tasks.iter().filter_map(|(id, task)| Some((*id, task.stream_time()?))).collect(),
            partitions,
            restored: self.restoring().unwrap_or(self.restored),
        }
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
                if self.stopped.is_some() || self.pending_rows > PENDING_ROWS {
                    break;
                }
                let Some(task) = self.tasks.get_mut(&number) else { break };
                // What is processed behind a commit in flight would be in the next one, whatever its size.
                if self.isolation.is_some() && (self.in_flight.is_some() || self.since_commit >= most) {
                    break;
                }
                task.narrow(if self.isolation.is_some() { most - self.since_commit } else { usize::MAX });
                let patient = self.options.until_end || !idle || task.order_matters() && !waited;
                let patient = patient && !planted(Mistake::NoPatience);
                match task.step(patient) {
                    Ok(Some(produced)) => self.take_over(produced)?,
                    Ok(None) => break,
                    Err(Stop::Log(error)) => return Err(error.into()),
                    Err(stop) => self.stopped = Some(stop),
                }
                let over = self.options.limit.is_some_and(|limit| self.processed >= limit) || self.stop.load(Ordering::Relaxed);
                if over || self.seat.paused() {
                    return Ok(());
                }
                if self.in_flight.is_none() && self.since_commit >= most {
                    self.begin_commit()?;
                }
            }
        }
        if self.pending_rows > PENDING_ROWS {
            self.progress_commit(Duration::from_millis(100))?;
        }
        Ok(())
    }

    fn take_over(&mut self, produced: Produced) -> Result<(), Ended> {
        self.processed += produced.records as u64;
        self.records += produced.records as u64;
        self.since_commit += produced.rows;
        self.last = produced.last.or(self.last.take());
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

    /// Rows of a commit, of which it may be a batch more.
    fn commit_rows(&self) -> usize {
        self.isolation.as_ref().map_or(self.options.commit_rows, |isolation| isolation.rows().min(self.options.commit_rows))
    }

    fn commit_due(&self) -> bool {
        self.since_commit >= self.commit_rows()
            || self.first_since.is_some() && self.seat.paused()
            || self.first_since.is_some_and(|first| self.clock.elapsed() >= first + self.options.commit_interval)
    }

    /// Hands over the windows that are still open in the tasks of this level.
    fn close_windows(&mut self) -> Result<(), Ended> {
        let level = |id: &TaskId| self.setting.plan.segments[id.segment].level;
        let closes = |id: &TaskId| level(id) == self.level && self.setting.gives_windows(id.segment);
        let ids: Vec<TaskId> = self.tasks.keys().filter(|id| closes(id)).copied().collect();
        for id in ids {
            let produced = self.tasks.get_mut(&id).map(Task::close_windows).transpose().map_err(stopped)?.flatten();
            produced.map_or(Ok(()), |produced| self.take_over(produced))?;
        }
        Ok(())
    }

    /// Starts to commit everything processed so far. Nothing may be in flight.
    fn begin_commit(&mut self) -> Result<(), Ended> {
        self.begin_commit_of(false)
    }

    /// `all`: every position, moved or not.
    fn begin_commit_of(&mut self, all: bool) -> Result<(), Ended> {
        // What is being restored has nothing of its own to commit, and its stores are not whole: what they would drop as closed is not known yet.
        let waiting = self.restore.as_ref().map(|restore| restore.tasks().clone()).unwrap_or_default();
        for (_, task) in self.tasks.iter_mut().filter(|(id, _)| !waiting.contains(id)) {
            let changes = task.give_changes().map_err(stopped)?;
            for (to, records) in changes.map(|changes| changes.appends).unwrap_or_default() {
                self.member.append(&to, &records)?;
            }
        }
        let mut commit = Commit::default();
        let mut tasks = Vec::new();
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| !waiting.contains(id)) {
            if let Some(committing) = task.begin_commit(all)? {
                commit.positions.extend(committing.positions);
                commit.state.extend(committing.state);
                for (to, records) in &committing.marks {
                    self.member.append(to, records)?;
                }
                tasks.push(*id);
            }
        }
        let (rows, last) = (std::mem::take(&mut self.since_commit), self.last.take());
        let records = std::mem::take(&mut self.records);
        self.first_since = None;
        if commit.positions.is_empty() {
            return Ok(());
        }
        if planted(Mistake::NoPositions) {
            commit.positions.clear();
        }
        if planted(Mistake::OnePastPositions) {
            commit.positions.iter_mut().for_each(|(_, position)| position.offset += 1);
        }
        for (at, position) in &commit.positions {
            tracing::trace!(%at, offset = position.offset, "committing");
        }
        if let Some(changelogs) = &self.setting.changelogs {
            let now = self.clock.now();
            for writes in std::mem::take(&mut commit.state) {
                if planted(Mistake::TimersApart) && writes.store.ends_with(".timers") {
                    changelogs.local.write(&writes.store, writes.task, &writes.rows, None)?;
                    continue;
                }
                let unknown = || LogError::stop(format!("there is no changelog of store `{}`: a mistake in the program", writes.store));
                let changelog = changelogs.find(&writes.store).ok_or_else(unknown)?;
                let records = changelog.encode(&writes, now).map_err(LogError::stop)?;
                self.member.append(&changelog.partition(writes.task), &records)?;
                if planted(Mistake::ApplyBeforeCommit) {
                    changelogs.local.write(&writes.store, writes.task, &writes.rows, None)?;
                }
            }
        }
        fault::point("appended");
        let carried =
            |at: &TopicPartition| self.setting.pipeline.sources.iter().any(|source| source.carries.is_some() && source.topic == at.topic);
        let passed = commit.positions.iter().filter(|(at, _)| carried(at)).map(|(at, position)| (at.clone(), position.offset)).collect();
        let positions = commit.positions.iter().map(|(at, position)| (at.clone(), position.offset)).collect();
        self.in_flight = Some(InFlight { tasks, passed, positions, since: self.clock.elapsed(), records, rows, last });
        self.member.begin_commit(commit)?;
        Ok(())
    }

    /// Looks after the commit in flight, at most so long.
    fn progress_commit(&mut self, wait: Duration) -> Result<(), Ended> {
        if self.in_flight.is_none() || self.member.poll_commit(wait)? == CommitState::InFlight {
            return Ok(());
        }
        if let Some(done) = self.in_flight.take() {
            self.commits += 1;
            self.commit_time.observe(self.clock.elapsed().saturating_sub(done.since));
            self.committed.extend(done.positions);
            self.well();
            self.widen()?;
            for number in done.tasks {
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.committed();
                }
            }
            fault::point("applied");
            self.passed.extend(done.passed);
            self.delete_passed();
            match self.captured.take() {
                Some(captured) => self.checkpoint(captured)?,
                None if self.checkpoint_due() => {
                    let captured = self.capture()?;
                    if planted(Mistake::UnprovedCheckpoint) {
                        self.checkpoint(captured)?;
                    } else {
                        self.captured = Some(captured);
                    }
                }
                None => {}
            }
        }
        for (to, records) in std::mem::take(&mut self.pending) {
            self.member.append(&to, &records)?;
        }
        self.pending_rows = 0;
        Ok(())
    }

    /// Deletes what was processed from repartition topics, now and then. Nothing depends on it but space.
    fn delete_passed(&mut self) {
        if self.passed.is_empty() || self.clock.elapsed() < self.deleted + self.options.checkpoint_interval {
            return;
        }
        self.deleted = self.clock.elapsed();
        let passed: Vec<_> = self.passed.drain().collect();
        if let Err(error) = self.log.delete_before(&passed) {
            tracing::warn!(pipeline = self.setting.pipeline.name, "{error}; repartition topics keep what was processed, and grow");
        }
    }

    fn checkpoint_due(&mut self) -> bool {
        if self.setting.changelogs.is_none() {
            return false;
        }
        let waited = self.clock.elapsed() >= self.checkpointed + self.options.checkpoint_interval;
        let mut dirty = 0;
        for task in self.tasks.values_mut() {
            task.each_store(|store| dirty += store.dirty_bytes());
        }
        dirty > DIRTY_BYTES || waited && dirty > 0
    }

    /// The ends of the changelogs of stores with rows that wait. Everything committed is applied, and no commit is in flight.
    fn capture(&mut self) -> Result<Captured, LogError> {
        let mut captured = Captured::new();
        let Some(changelogs) = self.setting.changelogs.clone().filter(|changelogs| changelogs.exist) else { return Ok(captured) };
        for (number, task) in &mut self.tasks {
            let mut stores = Vec::new();
            task.each_store(|store| {
                if store.dirty_bytes() > 0 {
                    stores.push(store.name().clone());
                }
            });
            for store in stores {
                if let Some(changelog) = changelogs.find(&store) {
                    let end = self.log.bounds(&changelog.partition(number.partition))?.end;
                    captured.insert((*number, store), end);
                }
            }
        }
        Ok(captured)
    }

    /// Writes the committed rows that wait to the local copies.
    fn checkpoint(&mut self, captured: Captured) -> Result<(), LogError> {
        let Some(changelogs) = self.setting.changelogs.clone() else { return Ok(()) };
        let written_at = self.clock.now();
        for ((number, name), offset) in captured {
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            let Some(claim) = self.claims.get(&number) else { continue };
            let mut outcome = Ok(());
            task.each_store(|store| {
                if *store.name() == name && outcome.is_ok() {
                    outcome = claim.hold(|| {
                        let rows = store.take_dirty();
                        changelogs.local.write(&name, number.partition, &rows, Some(&Checkpoint { offset, written_at }))?;
                        store.checkpointed(rows);
                        Ok(())
                    });
                }
            });
            outcome?;
            fault::point("checkpointing");
        }
        self.checkpointed = self.clock.elapsed();
        Ok(())
    }

    /// Before tasks are given up: their local copies are made whole, so that whoever takes them next has little to restore.
    fn checkpoint_all(&mut self) -> Result<(), Ended> {
        let captured = self.capture()?;
        if captured.is_empty() {
            return Ok(());
        }
        if planted(Mistake::UnprovedCheckpoint) {
            return Ok(self.checkpoint(captured)?);
        }
        self.captured = Some(captured);
        self.begin_commit_of(true)?;
        self.end_commit()
    }

    /// Commits everything processed so far, and waits for it.
    fn commit_all(&mut self) -> Result<(), Ended> {
        self.end_commit()?;
        self.begin_commit()?;
        self.end_commit()
    }

    /// Waits for the commit in flight.
    fn end_commit(&mut self) -> Result<(), Ended> {
        while self.in_flight.is_some() {
            self.progress_commit(Duration::from_millis(100))?;
            if self.in_flight.is_some() && self.deadline.is_some_and(|deadline| self.clock.elapsed() >= deadline) {
                let message = "partitions are to be given up, and the last commit has not ended in time".to_owned();
                return Err(LogError { remedy: Remedy::Indefinite, message }.into());
            }
        }
        Ok(())
    }

    /// Whether everything is processed that a run to the end has to: segment after segment, each once all that sends to it has committed.
    fn finished(&mut self) -> Result<bool, Ended> {
        if !self.options.until_end {
            return Ok(false);
        }
        if self.ends.is_empty() {
            return Ok(true);
        }
        let setting = self.setting.clone();
        let segments = &setting.plan.segments;
        let of_level = |id: &TaskId| segments[id.segment].level == self.level;
        // A task whose state is not whole yet has windows to close of which it knows nothing.
        if self.restore.is_some() || !self.tasks.iter().filter(|(id, _)| of_level(id)).all(|(_, task)| task.done()) {
            return Ok(false);
        }
        if self.options.close_windows {
            self.close_windows()?;
        }
        self.commit_all()?;
        if !self.level_done()? {
            return Ok(false);
        }
        if !segments.iter().any(|segment| segment.level > self.level) {
            return Ok(true);
        }
        let mut ends = Vec::new();
        let next = segments.iter().filter(|segment| segment.level == self.level + 1);
        for source in next.flat_map(|segment| &segment.sources) {
            for at in partitions_of(&*self.log, &setting.pipeline.sources[*source].topic)? {
                // Not the last stable offset: a commit is told before each partition shows it.
                let end = self.log.high_watermark(&at)?;
                ends.push((at, end));
            }
        }
        // All of them, or none: a level of which an end is not known would count as done.
        self.level += 1;
        for (at, end) in ends {
            if let Some(task) = self.tasks.get_mut(&task_of(&setting, &at)) {
                task.limit(&at, end);
            }
            self.ends.insert(at, end);
        }
        Ok(false)
    }

    /// Whether every member of the group has committed this level to its end; those of this worker have.
    fn level_done(&mut self) -> Result<bool, Ended> {
        let level = |at: &TopicPartition| self.setting.plan.segments[task_of(&self.setting, at).segment].level;
        let others: Vec<TopicPartition> = self
            .ends
            .keys()
            .filter(|at| level(at) == self.level && !self.tasks.get(&task_of(&self.setting, at)).is_some_and(|task| task.reads(at)))
            .cloned()
            .collect();
        if others.is_empty() {
            return Ok(true);
        }
        if self.clock.elapsed() < self.asked + ASK {
            return Ok(false);
        }
        self.asked = self.clock.elapsed();
        let committed = self.log.committed(&self.setting.pipeline.name, &others)?;
        for (at, committed) in others.iter().zip(committed) {
            let end = self.ends[at];
            // Windows are closed behind the last record: by who has the partition, or gets it.
            let closes = self.options.close_windows && self.setting.gives_windows(task_of(&self.setting, at).segment);
            let reached = match committed {
                Some(position) => {
                    position.offset >= end && (!closes || Metadata::of(&position.metadata).is_some_and(|metadata| metadata.closed))
                }
                None => self.first_position(at)?.offset >= end,
            };
            if !reached {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn resume(&mut self) -> Result<(), Ended> {
        let setting = self.setting.clone();
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
        let id = task_of(&self.setting, from);
        self.tasks.get_mut(&id).filter(|task| task.reads(from))
    }

    /// Makes tasks of partitions, each from its committed position on.
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Ended> {
        let committed = self.member.committed(partitions)?;
        let setting = self.setting.clone();
        let mut starts = Vec::new();
        let (mut fresh, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for (partition, committed) in partitions.iter().zip(committed) {
            let position = match committed {
                Some(position) => self.inside(partition, position)?,
                None => self.first_position(partition)?,
            };
            starts.push((partition.clone(), position.offset));
            self.committed.insert(partition.clone(), position.offset);
            let id = task_of(&setting, partition);
            let mut task = match self.tasks.remove(&id) {
                Some(task) => task,
                None => {
                    let mut task = Task::new(id, setting.clone());
                    if self.options.until_end {
                        task.to_end();
                    }
                    task.prepare().map_err(|(stage, error)| Ended::Init { stage, error })?;
                    fresh.insert(id);
                    task
                }
            };
            if Metadata::of(&position.metadata).is_some_and(|metadata| metadata.state) {
                kept.insert(id);
            }
            if let Some(guilty) = self.isolation.as_ref().and_then(Isolation::guilty).filter(|guilty| guilty.at == *partition) {
                task.refuse(guilty.clone());
            }
            let until = self.ends.get(partition).copied();
            for source in (0..setting.pipeline.sources.len()).filter(|source| setting.pipeline.sources[*source].topic == partition.topic) {
                let carried = setting.pipeline.sources[source].carries.is_some();
                let fresh_from = if carried { self.log.bounds(partition)?.end } else { 0 };
                task.add(source, partition.clone(), &position, until, fresh_from);
            }
            self.tasks.insert(id, task);
        }
        // What is to be restored first is started behind that.
        let waits = |at: &TopicPartition| {
            let id = task_of(&setting, at);
            setting.changelogs.is_some() && fresh.contains(&id)
                || self.restore.as_ref().is_some_and(|restore| restore.tasks().contains(&id))
        };
        let (waiting, ready): (Vec<_>, Vec<_>) = starts.into_iter().partition(|(at, _)| waits(at));
        self.member.hold(&waiting.into_iter().map(|(at, _)| at).collect::<Vec<_>>())?;
        self.member.start(&ready)?;
        if let Some(changelogs) = setting.changelogs.as_ref().filter(|_| !fresh.is_empty()) {
            if let Some(restore) = &self.restore {
                fresh.extend(restore.tasks());
            }
            for id in &fresh {
                self.claims.insert(*id, changelogs.claims.take(id.segment, id.partition));
            }
            let tasks = self.claims.iter().filter(|(id, _)| fresh.contains(id)).map(|(id, claim)| (*id, claim.clone())).collect();
            self.restore = Some(Restore::begin(changelogs, &*self.log, self.clock, tasks, &kept)?);
        }
        Ok(())
    }

    /// Restores on; tasks that are whole again take records.
    fn restore_on(&mut self) -> Result<(), Ended> {
        let Some(restore) = &mut self.restore else { return Ok(()) };
        if restore.step(self.clock, IDLE)? {
            let ready = restore.tasks().iter().filter_map(|number| self.tasks.get(number)).flat_map(Task::partitions);
            let starts: Vec<_> = ready.filter_map(|at| self.committed.get(&at).map(|offset| (at.clone(), *offset))).collect();
            if restore.read > 0 {
                tracing::info!(pipeline = self.setting.pipeline.name, records = restore.read, "state is restored");
            }
            self.restored = (restore.read, restore.total);
            self.restore = None;
            self.member.start(&starts)?;
        }
        Ok(())
    }

    /// A committed position must still lie in its partition.
    fn inside(&mut self, partition: &TopicPartition, mut position: Position) -> Result<Position, LogError> {
        loop {
            let bounds = self.log.bounds(partition)?;
            if (bounds.begin..=bounds.end).contains(&position.offset) {
                break;
            }
            // Another member may have gone on from there meanwhile, and deleted what it has processed.
            let again = self.member.committed(std::slice::from_ref(partition))?.pop().flatten();
            if let Some(again) = again.filter(|again| *again != position) {
                position = again;
                continue;
            }
            return Err(LogError::stop(format!(
                "group `{}` stands at offset {} of {partition}, but the partition holds {} to {}: records were deleted before they were read, or the topic was \
                 made anew. Reset the group's offsets or run the pipeline under another name; nothing was changed",
                self.setting.pipeline.name, position.offset, bounds.begin, bounds.end
            )));
        }
        if self.setting.changelogs.is_some() && Metadata::of(&position.metadata).is_none() {
            return Err(LogError::stop(format!(
                "the position of group `{}` in {partition} was not written by a run of this pipeline: another program uses the group, or its offsets were reset \
                 by another tool, and the state does not belong to them. Run the pipeline under another name, or delete the group's offsets and the \
                 pipeline's changelogs to start anew; nothing was changed",
                self.setting.pipeline.name
            )));
        }
        Ok(position)
    }

    /// Where a new group starts, by what the source says.
    fn first_position(&self, partition: &TopicPartition) -> Result<Position, LogError> {
        let source = self.setting.pipeline.sources.iter().find(|source| source.topic == partition.topic);
        let offset = match source.map(|source| source.start).unwrap_or_default() {
            Start::Earliest => self.log.bounds(partition)?.begin,
            Start::Latest => self.log.bounds(partition)?.end,
            Start::At(time) => self.log.offset_at(partition, time)?,
        };
        Ok(Position { offset, metadata: String::new() })
    }

    /// Gives partitions up: what is finished is committed first, unless they are lost.
    fn revoke(&mut self, partitions: &[TopicPartition], lost: bool) -> Result<(), Ended> {
        let aborted = if lost {
            // Told before an abort, which brokers that hang keep waiting.
            let reason = self.member.away();
            self.trouble(reason.as_deref().unwrap_or("the group has given this member up: it was not heard in time"));
            self.member.abort()?;
            self.forget_uncommitted();
            true
        } else {
            self.deadline = Some(self.clock.elapsed() + REVOKE);
            let committed = self.commit_all().and_then(|()| self.checkpoint_all());
            self.deadline = None;
            let aborted = match committed {
                // Given up all the same: the group waits for it. Whoever comes next begins at the last commit.
                Err(Ended::Log(error)) if matches!(error.remedy, Remedy::Rewind | Remedy::Isolate) => {
                    self.trouble(&error.message);
                    self.member.abort()?;
                    self.forget_uncommitted();
                    true
                }
                outcome => {
                    outcome?;
                    false
                }
            };
            fault::point("revoking");
            aborted
        };
        // A task keeps no partition of its own: its others are taken up again from their committed positions. So are those of tasks that stay, if what
        // they did was dropped.
        let mut ids: BTreeSet<TaskId> = partitions.iter().map(|at| task_of(&self.setting, at)).collect();
        if aborted {
            ids.extend(self.tasks.keys());
        }
        let mut others = Vec::new();
        for id in ids {
            if self.restore.as_mut().is_some_and(|restore| !restore.forget(id)) {
                self.restore = None;
            }
            if let Some(task) = self.tasks.remove(&id) {
                self.retired.add(&task.summary());
                others.extend(task.partitions().into_iter().filter(|other| !partitions.contains(other)));
            }
        }
        self.paused.retain(|paused| !partitions.contains(paused));
        self.committed.retain(|at, _| !partitions.contains(at));
        self.member.release(partitions)?;
        others.sort();
        others.dedup();
        if !others.is_empty() {
            self.assign(&others)?;
        }
        Ok(())
    }

    fn forget_uncommitted(&mut self) {
        self.pending.clear();
        self.pending_rows = 0;
        let in_flight = self.in_flight.take().map_or(0, |commit| commit.records);
        self.processed -= in_flight + std::mem::take(&mut self.records);
        self.captured = None;
        self.since_commit = 0;
        self.last = None;
        self.first_since = None;
        self.stopped = None;
    }

    /// The log has refused a record of the commit under way, for good. What is read again is committed in smaller parts, until it is found.
    fn isolate(&mut self, error: LogError) -> Result<LogError, LogError> {
        let (rows, last) = match &self.in_flight {
            Some(commit) => (commit.rows, commit.last.clone()),
            None => (self.since_commit, self.last.clone()),
        };
        let isolation = self.isolation.get_or_insert_with(|| {
            tracing::warn!(
                pipeline = self.setting.pipeline.name,
                "{error}; the {rows} records since the last commit are read again, to find the one whose results these are"
            );
            Isolation::begin(rows, error.message.clone())
        });
        let last = last.map(|(at, offset)| Guilty { at, offset, reason: error.message.clone() });
        match isolation.refused(rows, last) {
            Finding::Narrower => Ok(LogError { remedy: Remedy::Rewind, ..error }),
            Finding::Hopeless => Err(LogError { remedy: Remedy::Stop, ..error }),
        }
    }

    /// After a commit: the next may be larger again.
    fn widen(&mut self) -> Result<(), LogError> {
        let full = self.options.commit_rows;
        let Some(isolation) = self.isolation.take_if(|isolation| isolation.committed(full)) else { return Ok(()) };
        match isolation.guilty() {
            Some(_) => Ok(()),
            // No record is refused alone: it is the size of a whole batch, say.
            None => Err(LogError::stop(isolation.reason())),
        }
    }

    /// After a failure of the log: goes back to what is committed, or gives up.
    fn recover(&mut self, mut error: LogError, failures: &mut usize) -> Result<(), Ended> {
        loop {
            let Some(pause) = BACK_OFF.get((*failures).min(BACK_OFF.len() - 1)) else { return Err(error.into()) };
            if self.stop.load(Ordering::Relaxed) {
                return if error.remedy == Remedy::Rewind { self.let_go(&error) } else { Err(error.into()) };
            }
            // A member that was away for too long can be fenced by its own second attempt to come back. Where another has the name, that one is fenced
            // by this, and does the same: the second time within the minute decides.
            if error.remedy == Remedy::Fenced && self.fenced.is_none_or(|at| self.clock.elapsed() >= at + REJOIN) {
                self.fenced = Some(self.clock.elapsed());
                error.remedy = Remedy::Indefinite;
            }
            if error.remedy == Remedy::Isolate {
                error = self.isolate(error)?;
            }
            match error.remedy {
                Remedy::Stop | Remedy::Fenced | Remedy::Isolate => return Err(error.into()),
                Remedy::Rewind if self.isolation.is_some() => {}
                Remedy::Wait | Remedy::Rewind | Remedy::Indefinite => match self.member.away() {
                    Some(reason) => self.trouble(&format!("{error}: {reason}")),
                    None => self.trouble(&error.message),
                },
            }
            *failures += 1;
            if error.remedy != Remedy::Rewind || *failures > 1 {
                self.clock.pause(*pause);
            }
            match self.rewind(error.remedy) {
                Ok(()) => return Ok(()),
                Err(Ended::Log(again)) => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    /// Told to stop, and what was under way cannot be committed any more: that is left to whoever has the partitions next.
    fn let_go(&mut self, error: &LogError) -> Result<(), Ended> {
        tracing::info!(pipeline = self.setting.pipeline.name, "{error}; what is not committed is done again by who comes next");
        self.forget_uncommitted();
        self.restore = None;
        for task in std::mem::take(&mut self.tasks).values() {
            self.retired.add(&task.summary());
        }
        self.committed.clear();
        Ok(self.member.abort()?)
    }

    /// Drops all that is not committed and reads again from the committed positions.
    fn rewind(&mut self, remedy: Remedy) -> Result<(), Ended> {
        self.forget_uncommitted();
        let partitions: Vec<TopicPartition> = self.tasks.values().flat_map(Task::partitions).collect();
        let tasks = std::mem::take(&mut self.tasks);
        for task in tasks.values() {
            self.retired.add(&task.summary());
        }
        if planted(Mistake::OverlayKept) {
            self.tasks = tasks;
            self.tasks.values_mut().for_each(Task::forget_partitions);
        }
        self.paused.clear();
        self.committed.clear();
        self.restore = None;
        if remedy == Remedy::Rewind || planted(Mistake::GoesOnAfterIndefinite) {
            self.member.abort()?;
            if !partitions.is_empty() {
                self.assign(&partitions)?;
            }
        } else {
            self.member = join(&self.setting, &self.log, &self.name)?;
        }
        Ok(())
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
