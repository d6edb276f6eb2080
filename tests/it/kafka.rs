//! The log on a real Kafka. Transactions, fencing and rebalancing can be tested nowhere else.

mod heartbeats;
mod members;
mod moves;
mod rebalances;
mod refusals;

use crate::cluster::{Admin, cluster, unique};
use crate::log_contract::{self, contract_tests};
use members::{assigned, commit, membership};
use millstream::io::{Bounds, Event, FetchLimit, Internal, Log, Remedy, Retention, TopicPartition};
use millstream::log::kafka::KafkaLog;
use millstream::record::{Records, RecordsBuilder};
use millstream::settings::{KafkaSettings, Settings};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: FetchLimit = FetchLimit { rows: 1000, bytes: 1 << 20 };
const WAIT: Duration = Duration::from_millis(100);
/// Longer than any step takes on a slow machine, so that a hang is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The log of the test cluster, or the end of the test where there is none.
macro_rules! log {
    () => {
        match cluster() {
            Some(cluster) => KafkaLog::connect(&cluster.brokers, KafkaSettings::default()).expect("the cluster answers"),
            None => return,
        }
    };
}

/// A group protocol on a cluster.
#[derive(Clone)]
struct On {
    brokers: String,
    protocol: &'static str,
}

impl On {
    /// None where there is no cluster.
    fn new(protocol: &'static str) -> Option<Self> {
        cluster().map(|cluster| Self { brokers: cluster.brokers.clone(), protocol })
    }

    fn log(&self) -> KafkaLog {
        self.log_with("")
    }

    /// With more tables of settings.
    fn log_with(&self, more: &str) -> KafkaLog {
        let settings = settings(&format!("[kafka.consumer]\ngroup.protocol = \"{}\"\n{more}", self.protocol));
        KafkaLog::connect(&self.brokers, settings).expect("the cluster answers")
    }

    fn is_classic(&self) -> bool {
        self.protocol == "classic"
    }
}

/// Makes two tests of each function, one for each group protocol.
macro_rules! both_protocols {
    ($($test:ident),* $(,)?) => {
        both_protocols!(classic, "classic": $($test),*);
        both_protocols!(consumer, "consumer": $($test),*);
    };
    ($module:ident, $protocol:literal: $($test:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    if let Some(on) = super::On::new($protocol) {
                        super::$test(&on);
                    }
                }
            )*
        }
    };
}
use both_protocols;

mod contract {
    mod classic {
        use super::super::*;

        fn open() -> Option<Box<dyn Log>> {
            On::new("classic").map(|on| -> Box<dyn Log> { Box::new(on.log()) })
        }

        contract_tests!(open);
    }

    mod consumer {
        use super::super::*;

        fn open() -> Option<Box<dyn Log>> {
            On::new("consumer").map(|on| -> Box<dyn Log> { Box::new(on.log()) })
        }

        contract_tests!(open: a_group_starts_without_positions, a_commit_is_seen_whole, an_abort_leaves_nothing, a_rewind_reads_again,
            a_paused_partition_keeps_its_place, what_is_not_committed_is_lost_on_leave);
    }
}

fn settings(text: &str) -> KafkaSettings {
    Settings::parse(text, Path::new("test.toml")).expect("settings").kafka
}

fn topic(log: &KafkaLog, name: &str, partitions: i32) -> Arc<str> {
    let name = unique(name);
    log.create_topic(&name, partitions).expect("a new topic");
    name.into()
}

/// Records with a key, a value and time 1000 + their number.
fn records<'a>(values: impl IntoIterator<Item = &'a str>) -> Records {
    let mut builder = RecordsBuilder::default();
    for (row, value) in values.into_iter().enumerate() {
        builder.push(1000 + row as i64, Some(format!("k{row}").as_bytes()), Some(value.as_bytes()), []);
    }
    builder.finish()
}

fn at(topic: &Arc<str>, partition: i32) -> TopicPartition {
    TopicPartition::new(topic.clone(), partition)
}

fn values(records: &Records) -> Vec<String> {
    (0..records.len()).map(|row| String::from_utf8_lossy(records.values.bytes(row).expect("a value")).into_owned()).collect()
}

/// Calls `step` until it gives something.
fn until<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(value) = step() {
            return value;
        }
    }
    panic!("{what}: not within {DEADLINE:?}");
}

/// All that can be read of a topic, by a reader from the beginning to the ends of all partitions.
fn read(log: &KafkaLog, topic: &Arc<str>) -> BTreeMap<i32, (Vec<i64>, Vec<Records>, i64)> {
    let partitions = log.topic(topic).expect("metadata").expect("the topic").partitions;
    let mut reader = log.reader().expect("a reader");
    reader.assign(&(0..partitions).map(|partition| (at(topic, partition), 0)).collect::<Vec<_>>()).expect("assigned");
    let mut found: BTreeMap<i32, (Vec<i64>, Vec<Records>, i64)> = BTreeMap::new();
    let mut ended = 0;
    until("reading to the ends", || {
        match reader.poll(LIMIT, WAIT).expect("a poll") {
            Event::Records(fetched) => {
                assert!(fetched.offsets.len() <= LIMIT.rows && fetched.offsets.len() == fetched.records.len());
                let entry = found.entry(fetched.from.partition).or_default();
                entry.0.extend(fetched.offsets);
                entry.1.push(fetched.records);
            }
            Event::End { at, offset } => {
                found.entry(at.partition).or_default().2 = offset;
                ended += 1;
            }
            Event::Idle => {}
            other => panic!("a reader said {other:?}"),
        }
        (ended == partitions).then_some(())
    });
    found
}

/// Waits until what was committed can be read: a commit is told before each of its partitions shows it. Nothing may be open.
fn settled(log: &KafkaLog, topic: &Arc<str>) {
    let partitions = log.topic(topic).expect("metadata").expect("the topic").partitions;
    for at in (0..partitions).map(|partition| at(topic, partition)) {
        until("the end of a commit", || (log.bounds(&at).expect("bounds").end == log.high_watermark(&at).expect("the end")).then_some(()));
    }
}

/// Everything that was committed to a topic, and is settled.
fn committed_values(log: &KafkaLog, topic: &Arc<str>) -> Vec<String> {
    settled(log, topic);
    read_values(log, topic)
}

fn read_values(log: &KafkaLog, topic: &Arc<str>) -> Vec<String> {
    read(log, topic).into_values().flat_map(|(_, batches, _)| batches.iter().flat_map(values).collect::<Vec<_>>()).collect()
}

#[test]
fn of_hosts_that_make_a_topic_at_the_same_time_none_fails() {
    let hosts = [log!(), log!(), log!(), log!(), log!(), log!()];
    for round in 0..40 {
        let name = unique("own");
        let start = std::sync::Barrier::new(hosts.len());
        std::thread::scope(|scope| {
            for log in &hosts {
                scope.spawn(|| {
                    start.wait();
                    log.create_internal(&name, 3, Internal::Changelog).unwrap_or_else(|error| panic!("round {round}: {error}"));
                    // Whoever is told so finds it.
                    assert_eq!(log.topic(&name).unwrap().map(|topic| topic.partitions), Some(3), "round {round}");
                });
            }
        });
    }
}

#[test]
fn produce_and_read_keep_every_byte() {
    let log = log!();
    let topic = topic(&log, "bytes", 1);
    let mut builder = RecordsBuilder::default();
    builder.push(1, Some(b"key"), Some(b"value"), []);
    builder.push(1_700_000_000_000, None, Some(b""), []);
    builder.push(3, Some(b""), None, [(&b"name"[..], Some(&b"one"[..])), (b"name", None), (b"", Some(b""))]);
    builder.push(4, Some(&[0xff, 0, 0xfe]), Some(&[0xc3, 0x28]), [(&[0xff, 0xfe][..], Some(&[0x80, 0][..]))]);
    builder.push(5, None, None, []);
    let records = builder.finish();
    log.produce(&topic, None, &records).expect("produced");
    let found = read(&log, &topic);
    let (offsets, batches, end) = &found[&0];
    assert_eq!(offsets, &[0, 1, 2, 3, 4]);
    assert_eq!(*end, 5);
    let [batch] = &batches[..] else { panic!("one batch, not {}", batches.len()) };
    assert_eq!(batch, &records);
}

#[test]
fn keys_choose_partitions_as_in_java_and_null_keys_go_round() {
    let log = log!();
    let topic = topic(&log, "spread", 4);
    let mut builder = RecordsBuilder::default();
    for number in 0..40 {
        builder.push(number, Some(format!("key{number}").as_bytes()), Some(b"keyed"), []);
        builder.push(number, None, Some(b"plain"), []);
    }
    log.produce(&topic, None, &builder.finish()).expect("produced");
    log.produce(&topic, Some(3), &records(["fixed"])).expect("produced");
    let found = read(&log, &topic);
    for (partition, (_, batches, _)) in &found {
        let mut plain = 0;
        for batch in batches {
            for row in 0..batch.len() {
                match (batch.keys.bytes(row), batch.values.bytes(row)) {
                    (_, Some(b"fixed")) => assert_eq!(*partition, 3),
                    (Some(key), _) => assert_eq!(millstream::io::partition_for(key, 4), *partition),
                    (None, _) => plain += 1,
                }
            }
        }
        assert_eq!(plain, 10, "partition {partition}");
    }
    let error = log.produce(&topic, Some(4), &records(["nowhere"])).expect_err("no such partition");
    assert!(error.remedy == Remedy::Stop && error.message.contains("0 to 3"), "{error}");
}

#[test]
fn topics_are_described_and_missing_ones_named() {
    let log = log!();
    let name = topic(&log, "described", 3);
    let found = log.topic(&name).expect("metadata").expect("the topic");
    assert_eq!((found.partitions, found.max_message_bytes), (3, Some(1_048_588)));
    assert!(log.topics().expect("a list").iter().any(|topic| topic.name == name && topic.partitions == 3));
    let missing: Arc<str> = unique("missing").into();
    assert_eq!(log.topic(&missing).expect("metadata"), None);
    for error in [
        log.produce(&missing, None, &records(["x"])).expect_err("no topic"),
        log.member(&membership(&unique("group"), "host.0", &[&missing])).map(drop).expect_err("no topic"),
    ] {
        assert!(error.remedy == Remedy::Stop && error.message.contains(&*missing) && error.message.contains("topic create"), "{error}");
    }
    // A look-up makes no topic.
    assert_eq!(log.topic(&missing).expect("metadata"), None);
    let error = log.create_topic(&name, 1).expect_err("it is there");
    assert!(error.remedy == Remedy::Stop && error.message.contains("exists"), "{error}");
}

#[test]
fn bounds_and_times_are_found() {
    let log = log!();
    let topic = topic(&log, "times", 1);
    let here = at(&topic, 0);
    assert_eq!(log.bounds(&here).expect("bounds"), Bounds { begin: 0, end: 0 });
    assert_eq!(log.offset_at(&here, 0).expect("a place"), 0);
    log.produce(&topic, None, &records(["a", "b", "c"])).expect("produced");
    assert_eq!(log.bounds(&here).expect("bounds"), Bounds { begin: 0, end: 3 });
    for (time, offset) in [(-5, 0), (0, 0), (1000, 0), (1001, 1), (1002, 2), (1003, 3)] {
        assert_eq!(log.offset_at(&here, time).expect("a place"), offset, "time {time}");
    }
}

#[test]
fn limits_hold_and_a_reader_starts_where_it_is_told() {
    let log = log!();
    let topic = topic(&log, "limits", 1);
    let all: Vec<String> = (0..500).map(|number| format!("value {number:04}")).collect();
    log.produce(&topic, None, &records(all.iter().map(String::as_str))).expect("produced");
    let mut reader = log.reader().expect("a reader");
    // Sizes from tiny to more than there is, changed at each poll.
    let limits = [(1, 1 << 20), (7, 1 << 20), (1000, 40), (3, 1), (64, 400)];
    reader.assign(&[(at(&topic, 0), 100)]).expect("assigned");
    let mut found = Vec::new();
    let mut turn = 0;
    let end = until("the end", || {
        let (rows, bytes) = limits[turn % limits.len()];
        turn += 1;
        match reader.poll(FetchLimit { rows, bytes }, WAIT).expect("a poll") {
            Event::Records(fetched) => {
                assert!(fetched.records.len() <= rows);
                assert!(fetched.records.len() == 1 || fetched.records.bytes() <= bytes, "{} bytes, limit {bytes}", fetched.records.bytes());
                assert_eq!(fetched.offsets.first().copied(), Some(100 + found.len() as i64));
                found.extend(values(&fetched.records));
                None
            }
            Event::End { offset, .. } => Some(offset),
            _ => None,
        }
    });
    assert_eq!(end, 500);
    assert_eq!(found, all[100..]);
    // Assigned anew, elsewhere.
    reader.assign(&[(at(&topic, 0), 498)]).expect("assigned");
    let again = until("records", || match reader.poll(LIMIT, WAIT).expect("a poll") {
        Event::Records(fetched) => Some(fetched.offsets),
        _ => None,
    });
    assert_eq!(again, [498, 499]);
    // The end is told again when it is reached anew.
    let mut ends = Vec::new();
    until("two ends", || {
        if let Event::End { offset, .. } = reader.poll(LIMIT, WAIT).expect("a poll") {
            ends.push(offset);
            if ends.len() == 1 {
                log.produce(&topic, None, &records(["later"])).expect("produced");
            }
        }
        (ends.len() == 2).then_some(())
    });
    assert_eq!(ends, [500, 501]);
}

#[test]
fn a_reader_of_records_that_are_gone_says_so() {
    let log = log!();
    let topic = topic(&log, "gone", 1);
    log.produce(&topic, None, &records(["a"])).expect("produced");
    let mut reader = log.reader().expect("a reader");
    reader.assign(&[(at(&topic, 0), 77)]).expect("assigned");
    let error = until("an error", || reader.poll(LIMIT, WAIT).err());
    assert!(error.remedy == Remedy::Stop && error.message.contains(&*topic), "{error}");
}

#[test]
fn records_of_every_codec_are_read() {
    let Some(cluster) = cluster() else { return };
    let log = log!();
    let topic = topic(&log, "codecs", 1);
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let settings = settings(&format!("[kafka.producer]\n\"compression.type\" = \"{codec}\"\n"));
        let log = KafkaLog::connect(&cluster.brokers, settings).expect("connected");
        let value = format!("{codec} ").repeat(200);
        log.produce(&topic, None, &records([&*value; 50])).expect(codec);
    }
    let found = read_values(&log, &topic);
    let expected: Vec<String> = codecs.iter().flat_map(|codec| vec![format!("{codec} ").repeat(200); 50]).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_record_of_five_megabytes_passes_where_the_topic_takes_it() {
    let Some(cluster) = cluster() else { return };
    let log = log!();
    let (small, large) = (topic(&log, "small", 1), Arc::<str>::from(unique("large")));
    create_with(&cluster.brokers, &large, &[("max.message.bytes", "8000000")]);
    assert_eq!(log.topic(&large).expect("metadata").expect("the topic").max_message_bytes, Some(8_000_000));
    // Bytes that do not compress, in a fixed order.
    let mut state = 1_u64;
    let big: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(5_000_000)
    .collect();
    let mut builder = RecordsBuilder::default();
    builder.push(1, Some(b"big"), Some(&big), []);
    let record = builder.finish();
    log.produce(&large, None, &record).expect("the topic takes it");
    let found = read(&log, &large);
    assert_eq!(found[&0].1, std::slice::from_ref(&record));
    let error = log.produce(&small, None, &record).expect_err("too large");
    assert!(error.remedy == Remedy::Isolate && error.message.contains("max.message.bytes") && error.message.contains(&*small), "{error}");
    // The refused record does not come later, and others go on.
    log.produce(&small, None, &records(["fine"])).expect("produced");
    assert_eq!(read_values(&log, &small), ["fine"]);
}

fn create_with(brokers: &str, name: &str, config: &[(&str, &str)]) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<_> = rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (key, value) in config {
        topic = topic.set(key, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let results = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn no_broker_is_told_soon_with_its_address() {
    // Bound and closed again: nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let brokers = format!("127.0.0.1:{port}");
    let started = Instant::now();
    let error = KafkaLog::connect(&brokers, KafkaSettings::default()).map(drop).expect_err("nobody is there");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    assert!(error.remedy == Remedy::Wait && error.message.contains(&brokers), "{error}");

    // One that takes connections and says nothing is waited for, not longer than the patience.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let brokers = mute.local_addr().expect("an address").to_string();
    let started = Instant::now();
    let error = KafkaLog::connect(&brokers, KafkaSettings::default()).map(drop).expect_err("it says nothing");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(error.remedy == Remedy::Wait && error.message.contains(&brokers), "{error}");
}

#[test]
fn exclusive_writes_of_several_hosts_lose_nothing() {
    let (first, second) = (log!(), log!());
    log_contract::count_together(&[&first, &second], 4, 4);
    log_contract::who_is_overtaken_decides_anew(&first, &second);
    log_contract::who_is_not_overtaken_decides_once(&first, &second);
}

#[test]
fn who_dies_while_writing_exclusively_leaves_nothing() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let Some(cluster) = cluster() else { return };
    let log = log!();
    let (topic, name) = (topic(&log, "count", 1), unique("counter"));
    let at = at(&topic, 0);
    log_contract::count_on(&log, &name, &at).expect("written");
    assert_eq!(log_contract::read_whole(&log, &at, &mut || {}), ["1"]);
    // What a host has done that stops before its commit.
    let dead: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &cluster.brokers)
        .set("transactional.id", &name)
        .set("transaction.timeout.ms", "600000")
        .create()
        .expect("a producer");
    dead.init_transactions(DEADLINE).expect("initialised");
    dead.begin_transaction().expect("begun");
    dead.send(BaseRecord::<(), _>::to(&topic).payload("2")).expect("sent");
    dead.flush(DEADLINE).expect("in the partition");
    assert_eq!(log.high_watermark(&at).expect("an end"), 3, "a record, its marker, a record that is not committed");
    let began = Instant::now();
    log_contract::count_on(&log, &name, &at).expect("written");
    assert!(began.elapsed() < Duration::from_secs(10), "as long as the name takes to change hands: {:?}", began.elapsed());
    assert_eq!(log_contract::read_whole(&log, &at, &mut || {}), ["1", "2"]);
    assert_eq!(read(&log, &topic)[&0].0, [0, 4], "the second is not the dead one's");
    dead.commit_transaction(DEADLINE).expect_err("too late");
    assert_eq!(read_values(&log, &topic), ["1", "2"]);
}

#[test]
fn an_exclusive_write_sees_what_an_open_transaction_hides() {
    let log = log!();
    let (input, topic, name) = (topic(&log, "in", 1), topic(&log, "count", 1), unique("counter"));
    let (at, from) = (at(&topic, 0), at(&input, 0));
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&input])).expect("a member");
    assigned(&mut member);
    member.append(&at, &records(["cut-over"])).expect("appended");
    until("the member's record is in the partition", || (log.high_watermark(&at).expect("an end") > 0).then_some(()));
    // Behind the open transaction, where no reader sees it.
    log.exclusively(&name, &at, &mut || Ok(Some(records(["1"])))).expect("written");
    assert_eq!(read_values(&log, &topic), Vec::<String>::new());
    let (hidden, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut hidden = move || hidden.send(()).expect("who waits for it");
            let decided = log.exclusively(&name, &at, &mut || {
                let last = log_contract::counted(&log_contract::read_whole(&log, &at, &mut hidden)).len();
                Ok(Some(records([&*(last + 1).to_string()])))
            });
            decided.expect("written");
        });
        waits.recv_timeout(DEADLINE).expect("somebody reads");
        commit(&mut member, &[(from, 0, "")]).expect("committed");
    });
    assert_eq!(log_contract::read_whole(&log, &at, &mut || {}), ["cut-over", "1", "2"]);
}

#[test]
fn a_control_topic_keeps_the_last_record_of_each_key_and_tombstones_for_a_week() {
    let Some(cluster) = cluster() else { return };
    let log = log!();
    let name = unique("control");
    log.create_internal(&name, 1, Internal::Control).expect("created");
    let retention = log.retention(&name).expect("settings").expect("may be asked");
    assert_eq!(retention, Retention { compacted: true, unlimited: false, tombstones: Duration::from_secs(7 * 24 * 3600) });
    assert_eq!(Admin::new(cluster).setting(&name, "segment.ms"), "3600000");
    let plain = topic(&log, "plain", 1);
    let most = |name: &str| log.topic(name).expect("metadata").expect("the topic").max_message_bytes;
    assert!(most(&name).is_some() && most(&name) == most(&plain), "as the brokers have it");
}
