//! The control topic on the embedded log: two writers, chunks, what is hidden and what is wrong.

use super::super::record::{Answer, Answered, Class, Head, Next, State};
use super::*;
use crate::log::embedded::{EmbeddedLog, Options};

fn log() -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::temporary(Options::default()).unwrap())
}

fn open(log: &Arc<dyn Log>) -> Control {
    Control::create(log.clone(), "f", None).unwrap()
}

fn head(generation: u64) -> Head {
    Head { generation, next: None, trial: None, state: State::Running, change: String::new(), at: 0, by: "me".to_owned() }
}

fn key() -> Key {
    Key::Head("p".to_owned())
}

fn generation(view: &View) -> u64 {
    view.pipeline("p").and_then(|known| known.head.as_ref()).map_or(0, |head| head.generation)
}

#[test]
fn a_fleet_begins_with_its_topic() {
    let log = log();
    assert!(matches!(Control::open(log.clone(), "f", None), Err(ControlError::NoFleet { .. })));
    assert!(log.topics().unwrap().is_empty(), "who only looks makes nothing");
    let mut first = open(&log);
    let mut second = open(&log);
    first.change(|_| Ok(vec![(key(), Some(Value::Head(head(1))))])).unwrap();
    assert_eq!(generation(second.refresh().unwrap()), 1);
    assert_eq!(log.topic("f.control").unwrap().unwrap().partitions, 1);
}

#[test]
fn a_topic_that_is_no_control_topic_is_not_used() {
    let log = log();
    log.create_topic("f.control", 2).unwrap();
    let error = Control::create(log.clone(), "f", None).err().unwrap().to_string();
    assert!(error.contains("2 partitions") && error.contains("--fleet"), "{error}");
    for name in ["", "a/b", "a b", &"x".repeat(201)] {
        assert!(Control::create(log.clone(), name, None).is_err(), "{name}");
    }
}

#[test]
fn of_two_that_change_at_once_one_wins_and_the_other_sees_it() {
    let log = log();
    let mut controls = [open(&log), open(&log)];
    let rounds = 20;
    std::thread::scope(|scope| {
        let count = |control: &mut Control| {
            let mut lost = 0;
            while generation(control.refresh().unwrap()) < rounds {
                let seen = generation(control.view());
                // What was seen before the change is what is expected to stand.
                let changed = control.change(|view| {
                    if generation(view) != seen {
                        return Err(Refusal::Conflict(generation(view).to_string()));
                    }
                    Ok(vec![(key(), Some(Value::Head(head(seen + 1))))])
                });
                match changed {
                    Ok(()) => assert!(generation(control.view()) > seen),
                    Err(ControlError::Refused(Refusal::Conflict(_))) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            lost
        };
        let [one, other] = &mut controls;
        let other = scope.spawn(move || count(other));
        let lost = count(one) + other.join().unwrap();
        println!("{lost} changes came second");
    });
    // Every number was written once: no change was lost, none came twice.
    let end = log.high_watermark(controls[0].partition()).unwrap();
    assert_eq!(end, rounds as i64);
    assert_eq!(generation(controls[0].refresh().unwrap()), rounds);
}

#[test]
fn who_decided_by_what_is_no_longer_so_decides_anew() {
    let log = log();
    let (mut one, mut other) = (open(&log), open(&log));
    let mut seen = Vec::new();
    one.change(|view| {
        seen.push(generation(view));
        if seen.len() == 1 {
            other.change(|_| Ok(vec![(key(), Some(Value::Head(head(5))))])).unwrap();
        }
        Ok(vec![(key(), Some(Value::Head(head(generation(view) + 1))))])
    })
    .unwrap();
    assert_eq!(seen, [0, 5]);
    assert_eq!(generation(one.view()), 6);
    assert_eq!(generation(other.refresh().unwrap()), 6);
}

#[test]
fn a_refused_change_writes_nothing() {
    let log = log();
    let mut control = open(&log);
    let refused = control.change(|_| Err(Refusal::Wrong("no".to_owned())));
    assert!(matches!(refused, Err(ControlError::Refused(Refusal::Wrong(_)))));
    control.change(|_| Ok(Vec::new())).unwrap();
    let answer = Value::Answer(Answer { state: Answered::Ready, error: None, at: 0 });
    control.change(|_| Ok(vec![(Key::Answer("p".to_owned(), 1, "h".to_owned()), Some(answer.clone()))])).unwrap_err();
    assert_eq!(log.high_watermark(control.partition()).unwrap(), 0);
}

/// A log of which nobody knows whether an exclusive append came through, and that asks again: as Kafka after a timeout.
struct Doubtful(Arc<dyn Log>);

impl Log for Doubtful {
    fn topics(&self) -> Result<Vec<crate::io::Topic>, LogError> {
        self.0.topics()
    }
    fn topic(&self, name: &str) -> Result<Option<crate::io::Topic>, LogError> {
        self.0.topic(name)
    }
    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        self.0.create_topic(name, partitions)
    }
    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.0.delete_topic(name)
    }
    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.0.delete_group(group)
    }
    fn move_group(&self, group: &str, positions: &[(TopicPartition, crate::io::Position)]) -> Result<(), LogError> {
        self.0.move_group(group, positions)
    }
    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.0.delete_before(partitions)
    }
    fn bounds(&self, partition: &TopicPartition) -> Result<crate::io::Bounds, LogError> {
        self.0.bounds(partition)
    }
    /// One more than can be read: a transaction is open.
    fn high_watermark(&self, partition: &TopicPartition) -> Result<i64, LogError> {
        Ok(self.0.bounds(partition)?.end + i64::from(self.0.topic("hidden")?.is_some()))
    }
    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError> {
        self.0.offset_at(partition, time)
    }
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<crate::io::Position>>, LogError> {
        self.0.committed(group, partitions)
    }
    fn produce(&self, topic: &str, partition: Option<i32>, records: &crate::record::Records) -> Result<(), LogError> {
        self.0.produce(topic, partition, records)
    }
    fn exclusively(
        &self,
        name: &str,
        to: &TopicPartition,
        decide: &mut dyn FnMut() -> Result<Option<crate::record::Records>, LogError>,
    ) -> Result<(), LogError> {
        self.0.exclusively(name, to, decide)?;
        // Another's change comes over it before it is asked again.
        let another = Head { change: "another".to_owned(), ..head(9) };
        self.0.produce(&to.topic, Some(0), &records(&[(key(), Some(Value::Head(another)))], 0))?;
        self.0.exclusively(name, to, decide)
    }
    fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader()
    }
    fn member(&self, membership: &crate::io::Membership) -> Result<Box<dyn crate::io::Member>, LogError> {
        self.0.member(membership)
    }
    fn state(&self, group: &str) -> Result<Option<Arc<dyn crate::io::CommittedState>>, LogError> {
        self.0.state(group)
    }
}

#[test]
fn a_change_recognises_its_own_earlier_write_under_another_that_came_over_it() {
    let inner = log();
    let log: Arc<dyn Log> = Arc::new(Doubtful(inner.clone()));
    let mut control = open(&log);
    let mut asked = 0;
    let next = Some(Next { generation: 2, mode: Class::Hot, until: 0, empties: false });
    control
        .change(|_| {
            asked += 1;
            Ok(vec![(key(), Some(Value::Head(Head { next: next.clone(), ..head(1) })))])
        })
        .unwrap();
    assert_eq!(asked, 1);
    assert_eq!(inner.high_watermark(control.partition()).unwrap(), 2);
    assert_eq!(generation(control.view()), 9);
}

#[test]
fn what_a_transaction_hides_is_not_waited_for_without_end() {
    let inner = log();
    let log: Arc<dyn Log> = Arc::new(Doubtful(inner.clone()));
    let mut control = open(&log);
    control.refresh().unwrap();
    inner.create_topic("hidden", 1).unwrap();
    control.patience = Duration::from_millis(300);
    let error = control.refresh().unwrap_err();
    assert!(error.remedy == Remedy::Wait && error.message.contains("transaction"), "{error}");
}

#[test]
fn components_go_through_the_topic_once() {
    let log = log();
    let mut control = open(&log);
    let component: Vec<u8> = (0..2 * CHUNK + 7).map(|byte| (byte % 251) as u8).collect();
    let (digest, chunks) = control.put_component(&component).unwrap();
    assert_eq!(chunks, 3);
    let end = log.high_watermark(control.partition()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut other = Control::open(log.clone(), "f", Some(folder.path())).unwrap();
    assert_eq!(other.component(&digest).unwrap(), None, "nothing was read yet");
    assert_eq!(other.put_component(&component).unwrap(), (digest.clone(), 3));
    assert_eq!(log.high_watermark(control.partition()).unwrap(), end, "it is there already");
    assert!(other.component(&digest).unwrap().unwrap() == component);
    // The cache is emptied under it.
    std::fs::remove_dir_all(folder.path().join("components")).unwrap();
    assert!(other.component(&digest).is_err(), "there is no folder to put it");
    std::fs::create_dir(folder.path().join("components")).unwrap();
    other.view.components.add(&digest, 0, b"", 3).unwrap();
    let mut again = Control::open(log, "f", Some(folder.path())).unwrap();
    again.refresh().unwrap();
    std::fs::remove_file(folder.path().join(format!("components/{digest}.wasm"))).unwrap();
    assert!(again.component(&digest).unwrap().unwrap() == component, "it is read again");
}
