//! A run as it is seen and steered from outside. Each worker publishes a copy of its figures a few times a second, so that whoever
//! reads them keeps none waiting; trouble and pauses are told at once.

use crate::io::TopicPartition;
use crate::shadow::Report;
use crate::summary::{Summary, Works};
use crate::task::TaskId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a worker publishes its figures.
const PUBLISH: Duration = Duration::from_millis(250);
/// A log that is out of reach for longer makes the run unhealthy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One for a run, shared by its workers and whoever watches them.
#[derive(Debug, Default)]
pub struct Monitor {
    /// Counts pauses and resumes: odd while the run is paused.
    turns: AtomicU64,
    /// How often parked tasks were told to try again.
    revivals: AtomicU64,
    /// How often the sources were shut and opened again: odd while nothing more is taken of them.
    shuts: AtomicU64,
    posts: Mutex<Vec<Arc<Post>>>,
    /// Where partitions end, as far as it was looked up.
    ends: Mutex<BTreeMap<TopicPartition, i64>>,
}

/// Odd = on. One that is on already stays.
fn turn(count: &AtomicU64, on: bool) {
    // Fails where it is so already.
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| ((count % 2 == 1) != on).then_some(count + 1));
}

/// What one worker has told. It stays when the worker is gone, so that counters never fall.
#[derive(Debug)]
struct Post {
    worker: String,
    told: Mutex<Told>,
    /// The pause that the worker has come to rest in.
    settled: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Told {
    phase: Phase,
    figures: Arc<Figures>,
    /// Since when the log is out of reach.
    troubled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reads tables, joins the group.
    Starting,
    Running,
    Ended,
    Failed,
}

/// A partition that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub why: Arc<str>,
    /// The generation that came to what it cannot get over.
    pub generation: u64,
}

/// What a worker did and where it stands.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub summary: Summary,
    pub commit_time: Histogram,
    /// How long tasks stood still at turns to new generations.
    pub turn_time: Histogram,
    /// Milliseconds; tasks without a record are left out.
    pub stream_times: BTreeMap<TaskId, i64>,
    pub partitions: BTreeMap<TopicPartition, PartitionFigures>,
    /// Partitions that stand still, and why.
    pub parked: BTreeMap<TopicPartition, Parked>,
    /// That the worker works by, and the one on trial; 0 = without a fleet, none.
    pub generation: u64,
    pub trial: u64,
    /// What each generation did.
    pub works: BTreeMap<u64, Works>,
    /// Tasks that may have rows of older types.
    pub sweeping: usize,
    /// The number of the time that the sources are shut, if everything that was taken of them is committed.
    pub quiet: Option<u64>,
    /// The generation on trial that is compared, and how it compares.
    pub shadow: Option<(u64, Report)>,
    /// Records of changelogs read, and to read at most, of the restore under way or else of the last one.
    pub restored: (u64, u64),
}

/// Where a worker stands in a partition of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFigures {
    pub committed: i64,
    /// The offset behind the last record processed.
    pub position: i64,
    /// Records fetched and not yet processed.
    pub waiting: usize,
}

/// Durations, counted by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    pub sum: Duration,
}

/// Upper bounds of a histogram's buckets, in seconds; the last one has none.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Histogram {
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += took;
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds with the number of durations in each bucket alone.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.counts).collect()
    }
}

/// How a run fares, the worst of its workers deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// A worker has ended with an error.
    Failed,
    /// The log is out of reach, for so long.
    Waiting(Duration),
    Starting,
    /// Records of changelogs read, and to read at most.
    Restoring(u64, u64),
    Paused,
    Running,
    /// Every worker has done all that it was to do.
    Ended,
}

impl Health {
    pub fn is_well(self) -> bool {
        match self {
            Self::Failed => false,
            Self::Waiting(time) => time <= PATIENCE,
            _ => true,
        }
    }
}

/// A worker at a moment.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub worker: String,
    pub phase: Phase,
    pub figures: Arc<Figures>,
    /// For how long the log has been out of reach.
    pub troubled: Option<Duration>,
}

impl Monitor {
    /// A worker takes its place.
    pub fn seat(self: &Arc<Self>, member: &str) -> Seat {
        let worker = member.rsplit('.').next().unwrap_or(member).to_owned();
        let told = Told { phase: Phase::Starting, figures: Arc::default(), troubled: None };
        let post = Arc::new(Post { worker, told: Mutex::new(told), settled: watch::Sender::new(0) });
        lock(&self.posts).push(post.clone());
        Seat { monitor: self.clone(), post, published: None, well: false }
    }

    /// Workers stop processing, commit what they have processed, and keep their place in the group.
    pub fn pause(&self) {
        turn(&self.turns, true);
    }

    pub fn resume(&self) {
        turn(&self.turns, false);
    }

    pub fn paused(&self) -> bool {
        self.turns.load(Ordering::Acquire) % 2 == 1
    }

    /// Workers take no more of the user's sources, and go on with what is under way behind them; `false`: they take of them again.
    pub fn shut(&self, shut: bool) {
        turn(&self.shuts, shut);
    }

    /// Whether the sources are shut, and every worker has committed what it took of them. What was told when they were shut before does not count.
    pub fn is_quiet(&self) -> bool {
        let shuts = self.shuts.load(Ordering::Acquire);
        let is = |worker: &WorkerView| worker.figures.quiet == Some(shuts);
        let workers = self.workers();
        let mut running = workers.iter().filter(|worker| worker.phase == Phase::Running).peekable();
        shuts % 2 == 1 && running.peek().is_some() && running.all(is)
    }

    /// Tasks that stand still try again.
    pub fn revive(&self) {
        self.revivals.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until every worker has come to rest in this pause: nothing is being processed, and all that was is committed.
    pub async fn settled(&self) {
        let pause = self.turns.load(Ordering::Acquire);
        let posts: Vec<_> = lock(&self.posts).clone();
        for post in posts {
            // Fails only if the sender is gone, which `post` holds.
            let _ = post.settled.subscribe().wait_for(|settled| *settled >= pause).await;
        }
    }

    /// Every worker that there was.
    pub fn workers(&self) -> Vec<WorkerView> {
        let posts = lock(&self.posts);
        let view = |post: &Arc<Post>| {
            let told = lock(&post.told).clone();
            let troubled = told.troubled.map(|since| since.elapsed());
            WorkerView { worker: post.worker.clone(), phase: told.phase, figures: told.figures, troubled }
        };
        posts.iter().map(view).collect()
    }

    pub fn health(&self) -> Health {
        let workers = self.workers();
        let any = |phase| workers.iter().any(|worker| worker.phase == phase);
        if any(Phase::Failed) {
            return Health::Failed;
        }
        if let Some(time) = workers.iter().filter_map(|worker| worker.troubled).max() {
            return Health::Waiting(time);
        }
        if workers.is_empty() || any(Phase::Starting) {
            return Health::Starting;
        }
        let restoring = workers.iter().filter_map(|worker| worker.figures.summary.restoring);
        if let Some((read, total)) = restoring.reduce(|sum, (read, total)| (sum.0 + read, sum.1 + total)) {
            return Health::Restoring(read, total);
        }
        match (any(Phase::Running), self.paused()) {
            (true, true) => Health::Paused,
            (true, false) => Health::Running,
            (false, _) => Health::Ended,
        }
    }

    /// Remembers where a partition ends.
    pub fn ends_at(&self, at: TopicPartition, end: i64) {
        lock(&self.ends).insert(at, end);
    }

    pub fn ends(&self) -> BTreeMap<TopicPartition, i64> {
        lock(&self.ends).clone()
    }
}

/// A worker's place in its run's monitor. A worker that leaves it without having ended well has failed, however it came about.
#[derive(Debug)]
pub struct Seat {
    monitor: Arc<Monitor>,
    post: Arc<Post>,
    /// When figures were last published.
    published: Option<Duration>,
    well: bool,
}

impl Seat {
    pub fn paused(&self) -> bool {
        self.monitor.paused()
    }

    /// The number of the time that the sources are shut, if they are.
    pub fn shut(&self) -> Option<u64> {
        Some(self.monitor.shuts.load(Ordering::Acquire)).filter(|shuts| shuts % 2 == 1)
    }

    pub fn revivals(&self) -> u64 {
        self.monitor.revivals.load(Ordering::Acquire)
    }

    /// The worker has come to rest in the pause of now.
    pub fn settle(&self) {
        let turns = self.monitor.turns.load(Ordering::Acquire);
        // Whoever resumed meanwhile will have to pause again, under another number.
        if turns % 2 == 1 {
            self.post.settled.send_if_modified(|settled| std::mem::replace(settled, turns) != turns);
        }
    }

    /// Whether it is time to publish.
    pub fn due(&mut self, now: Duration) -> bool {
        let due = self.published.is_none_or(|last| now >= last + PUBLISH);
        if due {
            self.published = Some(now);
        }
        due
    }

    pub fn publish(&self, figures: Figures) {
        let mut told = lock(&self.post.told);
        told.figures = Arc::new(figures);
        if told.phase == Phase::Starting {
            told.phase = Phase::Running;
        }
    }

    /// The log is out of reach.
    pub fn trouble(&self) {
        lock(&self.post.told).troubled.get_or_insert_with(Instant::now);
    }

    pub fn well(&self) {
        lock(&self.post.told).troubled = None;
    }

    pub fn end_well(mut self) {
        self.well = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut told = lock(&self.post.told);
        told.phase = if self.well { Phase::Ended } else { Phase::Failed };
        told.troubled = None;
        drop(told);
        // Nobody waits for a worker that is gone.
        self.post.settled.send_replace(u64::MAX);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor() -> (Arc<Monitor>, Seat, Seat) {
        let monitor = Arc::new(Monitor::default());
        let seats = (monitor.seat("host.0"), monitor.seat("host.1"));
        (monitor, seats.0, seats.1)
    }

    #[test]
    fn what_was_said_when_the_sources_were_shut_before_does_not_count() {
        let (monitor, first, second) = monitor();
        let say = |seat: &Seat| seat.publish(Figures { quiet: seat.shut(), ..Figures::default() });
        say(&first);
        say(&second);
        assert!(!monitor.is_quiet(), "nothing is shut");
        monitor.shut(true);
        say(&first);
        assert!(!monitor.is_quiet(), "the second one is yet to say so");
        say(&second);
        monitor.shut(true);
        assert!(monitor.is_quiet());
        monitor.shut(false);
        monitor.shut(true);
        assert!(!monitor.is_quiet(), "something was taken meanwhile");
        say(&first);
        say(&second);
        assert!(monitor.is_quiet());
    }

    #[test]
    fn health_is_that_of_the_worst_worker() {
        let (monitor, first, second) = monitor();
        assert_eq!(monitor.health(), Health::Starting);
        first.publish(Figures::default());
        assert_eq!(monitor.health(), Health::Starting, "the second one is yet to come");
        let summary = |restoring| Summary { restoring, ..Summary::default() };
        second.publish(Figures { summary: summary(Some((3, 10))), ..Figures::default() });
        assert_eq!(monitor.health(), Health::Restoring(3, 10));
        second.publish(Figures::default());
        assert_eq!(monitor.health(), Health::Running);
        monitor.pause();
        assert_eq!(monitor.health(), Health::Paused);
        first.trouble();
        assert!(matches!(monitor.health(), Health::Waiting(_)) && monitor.health().is_well());
        first.well();
        monitor.resume();
        first.end_well();
        assert_eq!(monitor.health(), Health::Running);
        drop(second);
        assert_eq!(monitor.health(), Health::Failed, "left without having ended well");
        assert!(!monitor.health().is_well());
    }

    #[test]
    fn a_log_out_of_reach_is_borne_for_a_while() {
        let second = Duration::from_secs(1);
        assert!(Health::Waiting(PATIENCE).is_well());
        assert!(!Health::Waiting(PATIENCE + second).is_well());
    }

    #[test]
    fn a_pause_is_settled_by_every_worker_and_each_time_anew() {
        let (monitor, first, second) = monitor();
        let settled = |monitor: &Arc<Monitor>| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::pin!(monitor.settled()).poll(&mut context).is_ready()
        };
        monitor.pause();
        monitor.pause();
        first.settle();
        assert!(!settled(&monitor), "the second worker is not at rest");
        second.settle();
        assert!(settled(&monitor));
        monitor.resume();
        monitor.pause();
        assert!(!settled(&monitor), "that was the pause before");
        second.settle();
        drop(first);
        assert!(settled(&monitor), "nobody waits for a worker that is gone");
    }

    #[test]
    fn durations_fall_into_the_bucket_that_bounds_them() {
        let mut histogram = Histogram::default();
        for millis in [1, 5, 6, 40_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut twice = histogram;
        twice.add(&histogram);
        let buckets: Vec<_> = twice.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(0.005, 4), (0.01, 2), (f64::INFINITY, 2)]);
        assert_eq!((twice.count(), twice.sum), (8, Duration::from_millis(80_024)));
    }
}
