//! The topics of the suite: the input that is fed into one, and all of them read back.

use super::super::{Place, Random};
use super::checker::{Appended, Found, Grouped, Input, List, WINDOW, Windowed};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const PARTITIONS: i32 = 4;
const KEYS: u64 = 100;
const GROUPS: u64 = 12;
/// Milliseconds from a record's time to the next one's.
const STEP: i64 = 5;
/// Records between two pauses, unless the suite wants others.
const GUST: u64 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// Records that wait for the hosts when the broker is killed.
const BURST: u64 = 2000;

/// Counts records that did not arrive: then the input is not what the test thinks.
#[derive(Clone, Default)]
struct Lost(Arc<AtomicU64>);

impl ClientContext for Lost {}

impl ProducerContext for Lost {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("input did not arrive: {error}");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends records to the input topic, steadily.
pub struct Feed {
    stop: Arc<AtomicBool>,
    hold: Arc<AtomicBool>,
    /// All that was sent has arrived, and nothing is sent.
    held: Arc<AtomicBool>,
    thread: Option<JoinHandle<Sender>>,
}

/// What was sent so far.
pub struct Sender {
    producer: ThreadedProducer<Lost>,
    lost: Lost,
    topic: String,
    random: Random,
    seqs: Vec<i64>,
    /// Records between two pauses.
    pub gust: u64,
    pub sent: i64,
}

impl Sender {
    pub fn new(place: &Place, brokers: &str, random: Random) -> Self {
        let lost = Lost::default();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        // Longer than any outage of the suite.
        config.set("message.timeout.ms", "300000").set("linger.ms", "5").set("reconnect.backoff.max.ms", "500");
        let producer = config.create_with_context(lost.clone()).expect("a producer");
        Self { producer, lost, topic: place.named("NAME.in"), random, seqs: vec![0; KEYS as usize], gust: GUST, sent: 0 }
    }

    /// One in fifty is three windows late.
    fn send(&mut self, key: u64) {
        let seq = &mut self.seqs[key as usize];
        *seq += 1;
        self.sent += 1;
        let group = self.random.below(GROUPS);
        let late = if self.random.below(50) == 0 { 6000 } else { 0 };
        let time = 1_700_000_000_000 + self.sent * STEP - late;
        let (key, value) = (format!("k{key}"), format!("{{\"seq\":{seq},\"id\":{},\"group\":\"g{group}\",\"time\":{time}}}", self.sent));
        let mut record = BaseRecord::to(&self.topic).key(&key).payload(&value).timestamp(time);
        while let Err((error, back)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            record = back;
            std::thread::sleep(PAUSE);
        }
    }

    /// Goes on in a thread of its own.
    pub fn start(mut self) -> Feed {
        let stop = Arc::new(AtomicBool::new(false));
        let (hold, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told, told_to_hold, holds) = (stop.clone(), hold.clone(), held.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                if told_to_hold.load(Ordering::SeqCst) {
                    if !holds.load(Ordering::SeqCst) {
                        // So that hosts have work to do meanwhile.
                        (0..BURST).for_each(|at| self.send(at % KEYS));
                        self.arrived();
                        holds.store(true, Ordering::SeqCst);
                    }
                    std::thread::sleep(PAUSE);
                    continue;
                }
                holds.store(false, Ordering::SeqCst);
                for _ in 0..self.gust {
                    let key = self.random.below(KEYS);
                    self.send(key);
                }
                std::thread::sleep(PAUSE);
            }
            self
        });
        Feed { stop, hold, held, thread: Some(thread) }
    }

    /// One more record of each key.
    pub fn one_each(&mut self) {
        (0..KEYS).for_each(|key| self.send(key));
        self.arrived();
    }

    fn arrived(&self) {
        self.producer.flush(Duration::from_secs(300)).expect("all input is written");
        assert_eq!(self.lost.0.load(Ordering::Relaxed), 0, "the input has holes");
    }
}

impl Feed {
    /// Nothing is on its way when this returns, until `go_on`: a librdkafka that sends while its broker is killed has been seen to lose a batch, and to write
    /// one twice, without an error. What is in the topic would be right, and not what the test thinks.
    pub fn hold(&self) {
        self.hold.store(true, Ordering::SeqCst);
        super::super::until("the feed holds", || self.held.load(Ordering::SeqCst));
    }

    pub fn go_on(&self) {
        self.hold.store(false, Ordering::SeqCst);
        super::super::until("the feed goes on", || !self.held.load(Ordering::SeqCst));
    }

    /// Ends it; all that it sent has arrived.
    pub fn stop(mut self) -> Sender {
        self.stop.store(true, Ordering::SeqCst);
        let mut sender = self.thread.take().expect("a feed that runs").join().expect("a feed that ended well");
        // What comes after this ends at the very moment that closes a window, in one partition; it stays open in the others.
        while sender.sent % (WINDOW / STEP) != 0 {
            let key = sender.random.below(KEYS);
            sender.send(key);
        }
        sender.arrived();
        sender
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Reads a topic from beginning to end: partition, offset, key, value.
pub fn read(brokers: &str, topic: &str, isolation: &str, mut take: impl FnMut(i32, i64, &str, Option<&[u8]>)) {
    let mut take = |partition, offset, key: &[u8], value: Option<&[u8]>| {
        take(partition, offset, std::str::from_utf8(key).expect("a text"), value);
    };
    read_bytes(brokers, topic, PARTITIONS, isolation, &mut take);
}

/// The same of any number of partitions, with any keys.
pub fn read_bytes(brokers: &str, topic: &str, partitions: i32, isolation: &str, take: &mut dyn FnMut(i32, i64, &[u8], Option<&[u8]>)) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "reads-alone").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", isolation).set("auto.offset.reset", "error");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let mut ended = 0;
    while ended < partitions {
        match consumer.poll(Duration::from_secs(60)) {
            Some(Ok(record)) => {
                take(record.partition(), record.offset(), record.key().unwrap_or_default(), record.payload());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => panic!("reading {topic}: nothing comes"),
        }
    }
}

/// How many records a reader sees that does not ask for committed ones.
pub fn uncommitted(place: &Place, brokers: &str, topic: &str) -> u64 {
    let mut count = 0;
    read(brokers, &place.named(topic), "read_uncommitted", |_, _, _, _| count += 1);
    count
}

/// The offset behind the last record of each partition, but for marks, which have neither key nor value: one may be written behind what a run to the end
/// still reads.
pub fn last_offsets(place: &Place, brokers: &str, topic: &str) -> Vec<i64> {
    let mut last = vec![0; PARTITIONS as usize];
    read(brokers, &place.named(topic), "read_committed", |partition, offset, key, value| {
        if !key.is_empty() || value.is_some() {
            last[partition as usize] = offset + 1;
        }
    });
    last
}

#[derive(Deserialize)]
pub struct InputValue {
    seq: i64,
    id: i64,
    group: String,
    time: i64,
}

impl InputValue {
    pub fn of(self, key: &str) -> Input {
        let Self { seq, id, group, time } = self;
        Input { key: number(key), group: number(&group), seq, id, time }
    }
}

#[derive(Deserialize)]
struct AppendedValue {
    seq: i64,
    count: i64,
    hash: i64,
}

#[derive(Deserialize)]
struct GroupedValue {
    count: i64,
    total: i64,
}

#[derive(Deserialize)]
struct WindowedValue {
    #[serde(default)]
    window_start: i64,
    count: i64,
    total: i64,
    list: Vec<i64>,
}

#[derive(Deserialize)]
struct ListRow {
    count: i64,
    hash: i64,
    newest: String,
}

#[derive(Deserialize)]
struct WindowKey {
    key: String,
    start: i64,
}

pub fn parse<'v, T: Deserialize<'v>>(topic: &str, value: Option<&'v [u8]>) -> T {
    let value = value.unwrap_or_default();
    serde_json::from_slice(value).unwrap_or_else(|error| panic!("{topic}: {error}: {}", String::from_utf8_lossy(value)))
}

/// The number behind the first letter of a key or group.
pub fn number(text: &str) -> u32 {
    text.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no key of the input: {text}"))
}

/// Everything that stands in the topics, for readers of what is committed.
pub fn found(place: &Place, brokers: &str) -> Found {
    let mut found = Found { input: vec![Vec::new(); PARTITIONS as usize], ..Found::default() };
    let all = |topic: &str, take: &mut dyn FnMut(i32, &str, Option<&[u8]>)| {
        read(brokers, &place.named(topic), "read_committed", |partition, _, key, value| take(partition, key, value));
    };
    all("NAME.in", &mut |partition, key, value| {
        found.input[partition as usize].push(parse::<InputValue>("in", value).of(key));
    });
    all("NAME.lists", &mut |_, key, value| {
        let AppendedValue { seq, count, hash } = parse("lists", value);
        found.appended.push(Appended { key: number(key), seq, count, hash });
    });
    all("NAME.groups", &mut |_, key, value| {
        let GroupedValue { count, total } = parse("groups", value);
        found.grouped.push(Grouped { group: number(key), count, total });
    });
    all("NAME.windows", &mut |_, key, value| {
        let WindowedValue { window_start: start, count, total, list } = parse("windows", value);
        found.windowed.push(Windowed { key: number(key), start, count, total, list });
    });
    let state = &mut found.state;
    all("NAME.list.changelog", &mut |_, key, value| match value {
        Some(_) => {
            let ListRow { count, hash, newest } = parse("list.changelog", value);
            state.lists.insert(number(key), List { count, hash, newest });
        }
        None => drop(state.lists.remove(&number(key))),
    });
    all("NAME.by-group.changelog", &mut |_, key, value| match value {
        Some(_) => {
            let GroupedValue { count, total } = parse("by-group.changelog", value);
            state.groups.insert(number(key), (count, total));
        }
        None => drop(state.groups.remove(&number(key))),
    });
    all("NAME.by-window.changelog", &mut |_, key, value| {
        let WindowKey { key, start } = parse("by-window.changelog", Some(key.as_bytes()));
        let key = number(&key);
        match value {
            Some(_) => {
                let WindowedValue { count, total, list, .. } = parse("by-window.changelog", value);
                state.windows.insert((key, start), Windowed { key, start, count, total, list });
            }
            None => drop(state.windows.remove(&(key, start))),
        }
    });
    found
}
