//! A worker: one thread, one member of the group, its tasks. Polls, processes, commits output, state and positions as one; while a commit is in
//! flight it goes on polling and processing in memory.

use crate::io::{
    Clock, Commit, CommitState, Event, FetchLimit, Log, LogError, Member, Membership, Position, Reader, Remedy, TopicPartition,
};
use crate::pipeline::Start;
use crate::record::Records;
use crate::store::GlobalTable;
use crate::summary::Summary;
use crate::task::{Produced, Setting, Stop, Task};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
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
    /// Hand over every window that is still open when the ends are reached.
    pub close_windows: bool,
    /// Stop after so many records of the sources.
    pub limit: Option<u64>,
    pub member: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            until_end: false,
            close_windows: false,
            commit_interval: Duration::from_millis(100),
            commit_rows: 50_000,
            limit: None,
            member: "host.0".to_owned(),
        }
    }
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

/// Rows that wait in memory for one partition before its fetching pauses.
const QUEUE_ROWS: usize = 10_000;
/// Rows that wait to be appended behind a commit in flight.
const PENDING_ROWS: usize = 100_000;
/// How long a poll waits when there is nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// Pauses between attempts while the log is out of reach.
const BACK_OFF: [Duration; 5] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// A commit under way.
struct InFlight {
    tasks: Vec<i32>,
}

pub struct Worker<'a> {
    setting: Arc<Setting>,
    log: Arc<dyn Log>,
    member: Box<dyn Member>,
    clock: &'a dyn Clock,
    options: Options,
    stop: &'a AtomicBool,
    tables: Option<TableReader>,
    pub tasks: BTreeMap<i32, Task>,
    /// Captured at the start, for `until_end`.
    ends: HashMap<TopicPartition, i64>,
    /// Appends that wait for the commit in flight.
    pending: Vec<(TopicPartition, Records)>,
    pending_rows: usize,
    in_flight: Option<InFlight>,
    /// Rows since the last commit, and when the first of them was processed.
    since_commit: usize,
    first_since: Option<Duration>,
    /// Records of the sources, since the start.
    pub processed: u64,
    pub commits: u64,
    paused: Vec<TopicPartition>,
    assigned: bool,
    stopped: Option<Stop>,
    /// What tasks did that were given up since.
    retired: Summary,
}

impl<'a> Worker<'a> {
    /// Reads the tables to their ends, then joins the group.
    pub fn new(
        setting: Arc<Setting>,
        log: Arc<dyn Log>,
        clock: &'a dyn Clock,
        options: Options,
        stop: &'a AtomicBool,
    ) -> Result<Self, Ended> {
        let member = join(&setting, &log, &options)?;
        Self::with_member(setting, log, member, clock, options, stop)
    }

    /// As `new`, with a member of the caller's.
    pub fn with_member(
        setting: Arc<Setting>,
        log: Arc<dyn Log>,
        member: Box<dyn Member>,
        clock: &'a dyn Clock,
        options: Options,
        stop: &'a AtomicBool,
    ) -> Result<Self, Ended> {
        let mut ends = HashMap::new();
        if options.until_end {
            for source in &setting.pipeline.sources {
                for partition in partitions_of(&*log, &source.topic)? {
                    let end = log.bounds(&partition)?.end;
                    ends.insert(partition, end);
                }
            }
        }
        let tables = TableReader::new(&setting, &*log, stop)?;
        Ok(Self {
            setting,
            log,
            member,
            clock,
            options,
            stop,
            tables,
            tasks: BTreeMap::new(),
            ends,
            pending: Vec::new(),
            pending_rows: 0,
            in_flight: None,
            since_commit: 0,
            first_since: None,
            processed: 0,
            commits: 0,
            paused: Vec::new(),
            assigned: false,
            stopped: None,
            retired: Summary::default(),
        })
    }

    /// Runs until it is told to stop, the captured ends are reached, or something fails. Whatever was processed well is committed at the end.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<(), Ended> {
        let mut failures = 0;
        let ended = loop {
            match self.turn() {
                Ok(true) => failures = 0,
                Ok(false) => break Ok(()),
                Err(Ended::Log(error)) => match self.recover(error, &mut failures) {
                    Ok(()) => {}
                    Err(ended) => break Err(ended),
                },
                Err(other) => break Err(other),
            }
            observer.progress(&self);
        };
        let ended = ended.and_then(|()| match self.stopped.take() {
            Some(stop) => Err(Ended::Stopped(stop)),
            None => Ok(()),
        });
        observer.progress(&self);
        let left = self.member.leave();
        ended?;
        Ok(left?)
    }

    /// Polls once, processes what is there, commits what is due. False: all is done.
    fn turn(&mut self) -> Result<bool, Ended> {
        let stopping =
            self.stop.load(Ordering::Relaxed) || self.stopped.is_some() || self.options.limit.is_some_and(|limit| self.processed >= limit);
        if stopping || self.finished() {
            if !stopping && self.options.close_windows {
                self.close_windows()?;
            }
            self.commit_all()?;
            return Ok(false);
        }
        let wait = self.patience();
        let setting = self.setting.clone();
        let limit = FetchLimit { rows: setting.limit.rows, bytes: setting.limit.bytes };
        let mut idle = false;
        match self.member.poll(limit, wait)? {
            Event::Records(fetched) => {
                let from = fetched.from.clone();
                if let Some(task) = self.task_of(&from) {
                    task.offer(fetched);
                    if task.waiting(&from) > QUEUE_ROWS {
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
            Event::Revoked { partitions, lost } => self.revoke(&partitions, lost)?,
            Event::Idle => idle = true,
        }
        if let Some(tables) = &mut self.tables
            && !self.options.until_end
        {
            tables.follow()?;
        }
        self.process(idle)?;
        self.resume()?;
        self.progress_commit(Duration::ZERO)?;
        if self.in_flight.is_none() && self.commit_due() {
            self.begin_commit()?;
        }
        Ok(true)
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
        };
        summary.add(&self.retired);
        for task in self.tasks.values() {
            summary.add(&task.summary());
        }
        summary
    }

    /// How long a poll may wait: not past the next commit.
    fn patience(&self) -> Duration {
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
        let patient = self.options.until_end || !idle;
        let numbers: Vec<i32> = self.tasks.keys().copied().collect();
        for number in numbers {
            loop {
                if self.stopped.is_some() || self.pending_rows > PENDING_ROWS {
                    break;
                }
                let Some(task) = self.tasks.get_mut(&number) else { break };
                match task.step(patient) {
                    Ok(Some(produced)) => self.take_over(produced)?,
                    Ok(None) => break,
                    Err(Stop::Log(error)) => return Err(error.into()),
                    Err(stop) => self.stopped = Some(stop),
                }
                if self.options.limit.is_some_and(|limit| self.processed >= limit) || self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if self.in_flight.is_none() && self.since_commit >= self.options.commit_rows {
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
        self.processed += produced.rows as u64;
        self.since_commit += produced.rows;
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

    fn commit_due(&self) -> bool {
        self.since_commit >= self.options.commit_rows
            || self.first_since.is_some_and(|first| self.clock.elapsed() >= first + self.options.commit_interval)
    }

    fn close_windows(&mut self) -> Result<(), Ended> {
        let numbers: Vec<i32> = self.tasks.keys().copied().collect();
        for number in numbers {
            let produced = self.tasks.get_mut(&number).map(Task::close_windows).transpose().map_err(stopped)?.flatten();
            produced.map_or(Ok(()), |produced| self.take_over(produced))?;
        }
        Ok(())
    }

    /// Starts to commit everything processed so far. Nothing may be in flight.
    fn begin_commit(&mut self) -> Result<(), Ended> {
        for task in self.tasks.values_mut() {
            let changes = task.give_changes().map_err(stopped)?;
            for (to, records) in changes.map(|changes| changes.appends).unwrap_or_default() {
                self.member.append(&to, &records)?;
            }
        }
        let mut commit = Commit::default();
        let mut tasks = Vec::new();
        for (number, task) in &mut self.tasks {
            if let Some((positions, state)) = task.begin_commit()? {
                commit.positions.extend(positions);
                commit.state.extend(state);
                tasks.push(*number);
            }
        }
        self.since_commit = 0;
        self.first_since = None;
        if commit.positions.is_empty() {
            return Ok(());
        }
        self.in_flight = Some(InFlight { tasks });
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
            for number in done.tasks {
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.committed();
                }
            }
        }
        for (to, records) in std::mem::take(&mut self.pending) {
            self.member.append(&to, &records)?;
        }
        self.pending_rows = 0;
        Ok(())
    }

    /// Commits everything processed so far, and waits for it.
    fn commit_all(&mut self) -> Result<(), Ended> {
        while self.in_flight.is_some() {
            self.progress_commit(Duration::from_millis(100))?;
        }
        self.begin_commit()?;
        while self.in_flight.is_some() {
            self.progress_commit(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Whether everything is processed that a run to the end has to.
    fn finished(&self) -> bool {
        self.options.until_end && (self.ends.is_empty() || self.assigned && self.tasks.values().all(Task::done))
    }

    fn resume(&mut self) -> Result<(), Ended> {
        let setting = self.setting.clone();
        let mut ready = Vec::new();
        self.paused.retain(|from| {
            let waiting = self.tasks.get(&task_number(&setting, from)).map_or(0, |task| task.waiting(from));
            if waiting < QUEUE_ROWS / 2 {
                ready.push(from.clone());
            }
            waiting >= QUEUE_ROWS / 2
        });
        if !ready.is_empty() {
            self.member.resume(&ready)?;
        }
        Ok(())
    }

    fn task_of(&mut self, from: &TopicPartition) -> Option<&mut Task> {
        let number = task_number(&self.setting, from);
        self.tasks.get_mut(&number).filter(|task| task.reads(from))
    }

    /// Makes tasks of partitions, each from its committed position on.
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Ended> {
        let committed = self.member.committed(partitions)?;
        let setting = self.setting.clone();
        let mut starts = Vec::new();
        for (partition, committed) in partitions.iter().zip(committed) {
            let position = match committed {
                Some(position) => self.inside(partition, position)?,
                None => self.first_position(partition)?,
            };
            starts.push((partition.clone(), position.offset));
            let number = task_number(&setting, partition);
            let mut task = match self.tasks.remove(&number) {
                Some(task) => task,
                None => {
                    let mut task = Task::new(number, setting.clone());
                    task.prepare().map_err(|(stage, error)| Ended::Init { stage, error })?;
                    task
                }
            };
            let until = self.options.until_end.then(|| self.ends.get(partition).copied().unwrap_or(position.offset));
            for source in (0..setting.pipeline.sources.len()).filter(|source| setting.pipeline.sources[*source].topic == partition.topic) {
                task.add(source, partition.clone(), &position, until);
            }
            self.tasks.insert(number, task);
        }
        self.member.start(&starts)?;
        self.assigned = true;
        Ok(())
    }

    /// A committed position must still lie in its partition.
    fn inside(&self, partition: &TopicPartition, position: Position) -> Result<Position, LogError> {
        let bounds = self.log.bounds(partition)?;
        if position.offset < bounds.begin || position.offset > bounds.end {
            return Err(LogError::stop(format!(
                "group `{}` stands at offset {} of {partition}, but the partition holds {} to {}: records were deleted before they were read, or the topic was \
                 made anew. Reset the group's offsets or run the pipeline under another name; nothing was changed",
                self.setting.pipeline.name, position.offset, bounds.begin, bounds.end
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
        if lost {
            self.member.abort()?;
            self.forget_uncommitted();
        } else {
            self.commit_all()?;
        }
        // A task keeps no partition of its own: its others are taken up again from their committed positions.
        let mut others = Vec::new();
        for partition in partitions {
            let number = task_number(&self.setting, partition);
            if let Some(task) = self.tasks.remove(&number) {
                self.retired.add(&task.summary());
                others.extend(task.partitions().into_iter().filter(|other| !partitions.contains(other)));
            }
        }
        self.paused.retain(|paused| !partitions.contains(paused));
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
        self.in_flight = None;
        self.since_commit = 0;
        self.first_since = None;
        self.stopped = None;
    }

    /// After a failure of the log: goes back to what is committed, or gives up.
    fn recover(&mut self, mut error: LogError, failures: &mut usize) -> Result<(), Ended> {
        loop {
            let Some(pause) = BACK_OFF.get((*failures).min(BACK_OFF.len() - 1)) else { return Err(error.into()) };
            if self.stop.load(Ordering::Relaxed) {
                return Err(error.into());
            }
            match error.remedy {
                Remedy::Stop | Remedy::Fenced => return Err(error.into()),
                Remedy::Wait | Remedy::Rewind | Remedy::Indefinite => {
                    // Said once, however long it lasts.
                    if *failures == 0 {
                        tracing::warn!(pipeline = self.setting.pipeline.name, "{error}; going back to the last commit");
                    }
                }
            }
            *failures += 1;
            if error.remedy != Remedy::Rewind || *failures > 1 {
                std::thread::park_timeout(*pause);
            }
            match self.rewind(error.remedy) {
                Ok(()) => return Ok(()),
                Err(Ended::Log(again)) => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    /// Drops all that is not committed and reads again from the committed positions.
    fn rewind(&mut self, remedy: Remedy) -> Result<(), Ended> {
        self.forget_uncommitted();
        let partitions: Vec<TopicPartition> = self.tasks.values().flat_map(Task::partitions).collect();
        for task in std::mem::take(&mut self.tasks).into_values() {
            self.retired.add(&task.summary());
        }
        self.paused.clear();
        if remedy == Remedy::Rewind {
            self.member.abort()?;
            if !partitions.is_empty() {
                self.assign(&partitions)?;
            }
        } else {
            self.assigned = false;
            self.member = join(&self.setting, &self.log, &self.options)?;
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

fn join(setting: &Setting, log: &Arc<dyn Log>, options: &Options) -> Result<Box<dyn Member>, LogError> {
    let mut topics: Vec<_> = setting.pipeline.sources.iter().map(|source| source.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    log.member(&Membership { group: setting.pipeline.name.clone(), member: options.member.clone(), topics })
}

fn task_number(setting: &Setting, partition: &TopicPartition) -> i32 {
    if setting.pipeline.single_task { 0 } else { partition.partition }
}

/// Every partition of a topic.
pub fn partitions_of(log: &dyn Log, topic: &Arc<str>) -> Result<Vec<TopicPartition>, LogError> {
    let Some(described) = log.topic(topic)? else {
        return Err(LogError::stop(format!("there is no topic `{topic}`; create it: millstream topic create {topic}")));
    };
    Ok((0..described.partitions).map(|partition| TopicPartition::new(topic.clone(), partition)).collect())
}

/// Keeps the global tables current.
struct TableReader {
    reader: Box<dyn Reader>,
    tables: Vec<(Arc<str>, Arc<RwLock<GlobalTable>>)>,
    told: u64,
}

/// Records of tables that do not decode are told one by one up to here, then counted.
const TOLD: u64 = 10;

impl TableReader {
    /// Reads every table to its end. None if there are none.
    fn new(setting: &Setting, log: &dyn Log, stop: &AtomicBool) -> Result<Option<Self>, LogError> {
        let described = &setting.pipeline.tables;
        if described.is_empty() {
            return Ok(None);
        }
        let mut starts = Vec::new();
        let mut left: HashMap<TopicPartition, i64> = HashMap::new();
        for table in described {
            for partition in partitions_of(log, &table.topic)? {
                let bounds = log.bounds(&partition)?;
                if starts.iter().any(|(known, _)| *known == partition) {
                    continue;
                }
                starts.push((partition.clone(), bounds.begin));
                if bounds.end > bounds.begin {
                    left.insert(partition, bounds.end);
                }
            }
        }
        let mut reader = log.reader()?;
        reader.assign(&starts)?;
        let tables = described.iter().map(|table| table.topic.clone()).zip(setting.tables.iter().cloned()).collect();
        let mut tables = Self { reader, tables, told: 0 };
        while !left.is_empty() && !stop.load(Ordering::Relaxed) {
            match tables.poll(Duration::from_millis(100), &left)? {
                Some((at, offset)) if left.get(&at).is_some_and(|end| offset >= *end) => drop(left.remove(&at)),
                _ => {}
            }
        }
        Ok(Some(tables))
    }

    /// Takes over what has come, without waiting.
    fn follow(&mut self) -> Result<(), LogError> {
        while self.poll(Duration::ZERO, &HashMap::new())?.is_some() {}
        Ok(())
    }

    /// One poll; answers with the partition that moved and its next offset. Records at or past a captured end are left out.
    fn poll(&mut self, wait: Duration, ends: &HashMap<TopicPartition, i64>) -> Result<Option<(TopicPartition, i64)>, LogError> {
        match self.reader.poll(FetchLimit { rows: 1000, bytes: 1 << 20 }, wait)? {
            Event::Records(fetched) => {
                for (topic, table) in &self.tables {
                    if *topic == fetched.from.topic {
                        for message in table.write().unwrap_or_else(PoisonError::into_inner).apply(&fetched) {
                            self.told += 1;
                            if self.told <= TOLD {
                                tracing::warn!("{message}");
                            }
                        }
                    }
                }
                let next = fetched.offsets.last().map_or(0, |offset| offset + 1);
                Ok(Some((fetched.from, next)))
            }
            Event::End { at, offset } if ends.contains_key(&at) => Ok(Some((at, offset))),
            _ => Ok(None),
        }
    }
}
