//! What a worker does about a member in trouble: one whose commit does not end, one that was fenced.

use millstream::course::Course;
use millstream::io::{
    Clock, Commit, CommitState, Event, FetchLimit, Guarantee, Log, LogError, Member, Membership, Position, Remedy, TopicPartition,
};
use millstream::log::embedded::EmbeddedLog;
use millstream::manifest::{self, Secrets};
use millstream::plugin::engine::Engine;
use millstream::record::{Records, RecordsBuilder};
use millstream::runtime::{self, Creates};
use millstream::task::BatchLimit;
use millstream::worker::{Observer, Options, Role, Worker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A tenth of a second goes by with every look.
#[derive(Default)]
struct Looks(AtomicU64);

impl Clock for Looks {
    fn now(&self) -> i64 {
        1_700_000_000_000
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(100 * self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn pause(&self, _: Duration) {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The first commit never ends, and the partitions are wanted back meanwhile.
    Commit,
    /// The first poll tells that another has the name.
    Fenced,
}

/// A member in trouble.
struct Troubled {
    trouble: Trouble,
    inner: Option<Box<dyn Member>>,
    given: Vec<TopicPartition>,
    committing: bool,
    released: Arc<AtomicBool>,
}

impl Troubled {
    fn inner(&mut self) -> &mut Box<dyn Member> {
        self.inner.as_mut().expect("it has not left")
    }
}

impl Member for Troubled {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        if self.trouble == Trouble::Fenced {
            self.inner = None;
            return Err(LogError { remedy: Remedy::Fenced, message: "another has the name".to_owned() });
        }
        if self.committing {
            return Ok(Event::Revoked { partitions: self.given.clone(), lost: false });
        }
        let event = self.inner().poll(limit, wait)?;
        if let Event::Assigned(partitions) = &event {
            self.given.clone_from(partitions);
        }
        Ok(event)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.inner().committed(partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.inner().start(partitions)
    }

    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner().hold(partitions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner().pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner().resume(partitions)
    }

    fn release(&mut self, _: &[TopicPartition]) -> Result<(), LogError> {
        panic!("what may have been committed is not given up as if it were not")
    }

    fn append(&mut self, _: &TopicPartition, _: &Records) -> Result<(), LogError> {
        Ok(())
    }

    fn begin_commit(&mut self, _: Commit) -> Result<(), LogError> {
        self.committing = true;
        // Its name is free for the next.
        self.inner = None;
        Ok(())
    }

    fn poll_commit(&mut self, _: Duration) -> Result<CommitState, LogError> {
        Ok(CommitState::InFlight)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

impl Drop for Troubled {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Relaxed);
    }
}

/// Stops the run when all has come out.
struct Until<'a> {
    log: &'a dyn Log,
    stop: &'a AtomicBool,
}

impl Observer for Until<'_> {
    fn progress(&mut self, _: &Worker<'_>) {
        let end = self.log.bounds(&TopicPartition::new("out", 0)).unwrap().end;
        self.stop.store(end == 5, Ordering::Relaxed);
    }
}

/// Runs a pipeline of five records, until they are out, by a member in trouble and then by its successor.
fn outlives(trouble: Trouble) {
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(folder.path()).unwrap());
    log.create_topic("in", 1).unwrap();
    let mut records = RecordsBuilder::default();
    (0..5).for_each(|number| records.push(number, None, Some(b"{}"), []));
    log.produce("in", None, &records.finish()).unwrap();
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, "pipeline: p\nsources: { in: { topic: in } }\nsinks: [{ from: in, topic: out, create: true }]\n").unwrap();
    let loaded = manifest::load(&file, &Engine::new().unwrap()).unwrap();
    let setting = runtime::prepare(loaded.pipeline, &log, &Secrets::load().unwrap(), BatchLimit::default(), Creates::All, None).unwrap();

    let released = Arc::new(AtomicBool::new(false));
    let membership =
        Membership { group: "p".to_owned(), member: "host.0".to_owned(), topics: vec!["in".into()], guarantee: Guarantee::ExactlyOnce };
    let inner = Some(log.member(&membership).unwrap());
    let troubled = Troubled { trouble, inner, given: Vec::new(), committing: false, released: released.clone() };
    let role = Role { member: Some(Box::new(troubled)), ..Role::default() };
    let (clock, stop) = (Looks::default(), AtomicBool::new(false));
    let worker = Worker::new(Arc::new(Course::new(Arc::new(setting))), log.clone(), role, &clock, Options::default(), &stop)
        .unwrap_or_else(|_| panic!("a worker"));
    // A new member goes on from what is committed, which is nothing.
    worker.run(&mut Until { log: &*log, stop: &stop }).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert!(released.load(Ordering::Relaxed));
    assert_eq!(log.bounds(&TopicPartition::new("out", 0)).unwrap().end, 5);
}

#[test]
fn a_commit_that_does_not_end_holds_a_revocation_up_for_ten_seconds() {
    outlives(Trouble::Commit);
}

#[test]
fn a_member_that_was_fenced_joins_anew_once() {
    outlives(Trouble::Fenced);
}
