//! The log on a real Kafka. Transactions, fencing and rebalancing can be tested nowhere else.

use crate::cluster::{Admin, cluster, unique};
use crate::log_contract::{self, contract_tests};
use millstream::io::{
    Bounds, Commit, CommitState, Event, FetchLimit, Guarantee, Internal, Log, LogError, Member, Membership, Position, Remedy, Retention,
    TopicPartition,
};
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

mod contract {
    use super::*;

    fn open() -> Option<Box<dyn Log>> {
        cluster()
            .map(|cluster| -> Box<dyn Log> { Box::new(KafkaLog::connect(&cluster.brokers, KafkaSettings::default()).expect("connected")) })
    }

    contract_tests!(open);
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

fn read_values(log: &KafkaLog, topic: &Arc<str>) -> Vec<String> {
    read(log, topic).into_values().flat_map(|(_, batches, _)| batches.iter().flat_map(values).collect::<Vec<_>>()).collect()
}

fn membership(group: &str, member: &str, topics: &[&Arc<str>]) -> Membership {
    Membership {
        group: group.to_owned(),
        member: member.to_owned(),
        topics: topics.iter().map(|topic| (*topic).clone()).collect(),
        guarantee: Guarantee::ExactlyOnce,
    }
}

/// Polls until partitions are assigned, and starts them from the committed positions, or the beginning.
fn assigned(member: &mut Box<dyn Member>) -> Vec<TopicPartition> {
    let partitions = until("an assignment", || match member.poll(LIMIT, WAIT).expect("a poll") {
        Event::Assigned(partitions) => Some(partitions),
        Event::Idle => None,
        other => panic!("before the assignment: {other:?}"),
    });
    resume_from_committed(member, &partitions);
    partitions
}

fn resume_from_committed(member: &mut Box<dyn Member>, partitions: &[TopicPartition]) {
    let positions = member.committed(partitions).expect("committed positions");
    let places: Vec<_> =
        partitions.iter().cloned().zip(positions.into_iter().map(|position| position.map_or(0, |position| position.offset))).collect();
    member.start(&places).expect("started");
}

fn commit(member: &mut Box<dyn Member>, positions: &[(TopicPartition, i64, &str)]) -> Result<(), LogError> {
    let positions = positions
        .iter()
        .map(|(at, offset, metadata)| (at.clone(), Position { offset: *offset, metadata: (*metadata).to_owned() }))
        .collect();
    member.begin_commit(Commit { positions, state: Vec::new() })?;
    let deadline = Instant::now() + DEADLINE;
    while member.poll_commit(WAIT)? == CommitState::InFlight {
        assert!(Instant::now() < deadline, "a commit did not end");
    }
    Ok(())
}

/// The next records that a member hands over.
fn next_records(member: &mut Box<dyn Member>) -> (TopicPartition, Vec<i64>, Records) {
    until("records", || match member.poll(LIMIT, WAIT).expect("a poll") {
        Event::Records(fetched) => Some((fetched.from, fetched.offsets, fetched.records)),
        Event::End { .. } | Event::Idle => None,
        other => panic!("instead of records: {other:?}"),
    })
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
fn output_and_positions_commit_as_one_and_an_abort_leaves_nothing() {
    let log = log!();
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 2));
    let group = unique("group");
    log.produce(&input, None, &records(["a", "b", "c"])).expect("produced");
    let mut member = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    let partitions = assigned(&mut member);
    assert_eq!(partitions, [at(&input, 0)]);
    assert_eq!(log.committed(&group, &partitions).expect("positions"), [None]);

    let (from, offsets, batch) = next_records(&mut member);
    assert_eq!((from, offsets, values(&batch)), (at(&input, 0), vec![0, 1, 2], vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
    // Aborted: neither seen nor counted.
    member.append(&at(&output, 0), &records(["dropped"])).expect("appended");
    member.abort().expect("aborted");
    member.abort().expect("nothing to abort is fine");
    // Rewound: the same records again.
    resume_from_committed(&mut member, &partitions);
    let (_, offsets, _) = next_records(&mut member);
    assert_eq!(offsets, [0, 1, 2]);
    member.append(&at(&output, 0), &records(["A", "B"])).expect("appended");
    member.append(&at(&output, 1), &records(["C"])).expect("appended");
    // Open: nothing is to be seen yet. Its records hold back the end.
    assert_eq!(read_values(&log, &output), Vec::<String>::new());
    assert_eq!(log.committed(&group, &partitions).expect("positions"), [None]);
    commit(&mut member, &[(at(&input, 0), 3, "generation 1 ü")]).expect("committed");
    // Brokers write the markers after they have answered.
    let stable = |partition| {
        let at = at(&output, partition);
        log.bounds(&at).expect("bounds").end == log.high_watermark(&at).expect("an end")
    };
    until("the commit's markers", || (0..2).all(stable).then_some(()));
    let found = read(&log, &output);
    assert_eq!(found[&0].1.iter().flat_map(values).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(found[&1].1.iter().flat_map(values).collect::<Vec<_>>(), ["C"]);
    let position = Position { offset: 3, metadata: "generation 1 ü".to_owned() };
    assert_eq!(log.committed(&group, &partitions).expect("positions"), [Some(position.clone())]);
    assert_eq!(member.committed(&partitions).expect("positions"), [Some(position)]);
    // The end lies past the records of an abort and the markers of transactions, and is what `bounds` says.
    for partition in 0..2 {
        let bounds = log.bounds(&at(&output, partition)).expect("bounds");
        assert_eq!(found[&partition].2, bounds.end);
        assert!(bounds.end > found[&partition].0.last().expect("records") + 1);
    }
    // Positions alone.
    commit(&mut member, &[(at(&input, 0), 2, "")]).expect("committed");
    assert_eq!(log.committed(&group, &partitions).expect("positions"), [Some(Position { offset: 2, metadata: String::new() })]);
    member.leave().expect("left");
    // Where it stands outlives the member.
    let mut member = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    assigned(&mut member);
    assert_eq!(next_records(&mut member).1, [2]);
}

#[test]
fn a_commit_needs_positions_and_takes_no_state() {
    let log = log!();
    let input = topic(&log, "in", 1);
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&input])).expect("a member");
    let error = member.begin_commit(Commit::default()).expect_err("no positions");
    assert_eq!(error.remedy, Remedy::Stop);
    let state = vec![millstream::io::StateWrites { store: "counts".into(), task: 0, rows: Vec::new() }];
    let positions = vec![(at(&input, 0), Position { offset: 0, metadata: String::new() })];
    let error = member.begin_commit(Commit { positions, state }).expect_err("state goes to changelogs");
    assert!(error.remedy == Remedy::Stop && error.message.contains("changelogs"), "{error}");
    assert_eq!(member.poll_commit(Duration::ZERO).expect("nothing in flight"), CommitState::Done);
}

#[test]
fn a_member_of_the_same_name_fences_the_older_one() {
    let log = log!();
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    let group = unique("group");
    log.produce(&input, None, &records(["a"])).expect("produced");
    let mut old = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    assigned(&mut old);
    next_records(&mut old);
    old.append(&at(&output, 0), &records(["old"])).expect("appended");
    // A zombie's open transaction ends by an abort when its successor begins.
    let mut new = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    assigned(&mut new);
    let error = commit(&mut old, &[(at(&input, 0), 1, "old")]).expect_err("fenced");
    assert_eq!(error.remedy, Remedy::Fenced, "{error}");
    assert_eq!(next_records(&mut new).1, [0]);
    new.append(&at(&output, 0), &records(["new"])).expect("appended");
    commit(&mut new, &[(at(&input, 0), 1, "new")]).expect("committed");
    assert_eq!(read_values(&log, &output), ["new"]);
    // The group refuses the old one too.
    let error = until("the old member is told", || old.poll(LIMIT, WAIT).err());
    assert_eq!(error.remedy, Remedy::Fenced, "{error}");
    drop(old);
    let committed = log.committed(&group, &[at(&input, 0)]).expect("positions");
    assert_eq!(committed, [Some(Position { offset: 1, metadata: "new".to_owned() })]);
}

#[test]
fn a_transaction_open_for_too_long_is_no_fencing() {
    let Some(cluster) = cluster() else { return };
    let log = KafkaLog::connect(&cluster.brokers, settings("[kafka.producer]\ntransaction.timeout.ms = 1000\n")).expect("connected");
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    let group = unique("group");
    let mut member = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    assigned(&mut member);
    member.append(&at(&output, 0), &records(["slow"])).expect("appended");
    // The brokers abort it by themselves: the end can then be read.
    let ended = log.reader().and_then(|mut reader| {
        reader.assign(&[(at(&output, 0), 0)])?;
        let mut end = 0;
        until("the brokers' abort", || {
            if let Event::End { offset, .. } = reader.poll(LIMIT, WAIT).expect("a poll") {
                end = offset;
            }
            (end > 0).then_some(())
        });
        Ok(end)
    });
    assert!(ended.expect("a reader") >= 2, "the record and its marker");
    let error = commit(&mut member, &[(at(&input, 0), 7, "late")]).expect_err("too late");
    assert!(matches!(error.remedy, Remedy::Indefinite | Remedy::Rewind), "{error}");
    drop(member);
    assert_eq!(log.committed(&group, &[at(&input, 0)]).expect("positions"), [None]);
    assert_eq!(read_values(&log, &output), Vec::<String>::new());
    let mut member = log.member(&membership(&group, "host.0", &[&input])).expect("a new member");
    assigned(&mut member);
    member.append(&at(&output, 0), &records(["again"])).expect("appended");
    commit(&mut member, &[(at(&input, 0), 7, "")]).expect("committed");
    assert_eq!(read_values(&log, &output), ["again"]);
}

#[test]
fn pause_keeps_the_place_also_at_the_end() {
    let log = log!();
    let topic = topic(&log, "paused", 2);
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    log.produce(&topic, Some(0), &records(["a0"])).expect("produced");
    log.produce(&topic, Some(1), &records(["b0"])).expect("produced");
    assigned(&mut member);
    // To the ends of both.
    let mut ends = 0;
    until("both ends", || {
        ends += i32::from(matches!(member.poll(LIMIT, WAIT).expect("a poll"), Event::End { .. }));
        (ends == 2).then_some(())
    });
    let here = [at(&topic, 0)];
    for round in 1..4 {
        member.pause(&here).expect("paused");
        member.pause(&here).expect("paused twice");
        log.produce(&topic, Some(0), &records([&*format!("a{round}")])).expect("produced");
        log.produce(&topic, Some(1), &records([&*format!("b{round}")])).expect("produced");
        // The other goes on.
        let (from, _, batch) = next_records(&mut member);
        assert_eq!((from.partition, values(&batch)), (1, vec![format!("b{round}")]));
        member.resume(&here).expect("resumed");
        let (from, offsets, batch) = next_records(&mut member);
        assert_eq!((from.partition, values(&batch), offsets), (0, vec![format!("a{round}")], vec![round]));
    }
}

#[test]
fn pause_loses_nothing_of_what_was_fetched_and_not_handed_over() {
    let log = log!();
    let topic = topic(&log, "fetched", 1);
    log.produce(&topic, None, &records(["0", "1", "2", "3", "4", "5"])).expect("produced");
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    let partitions = assigned(&mut member);
    // All are fetched at once, and handed over one at a time.
    let single = FetchLimit { rows: 1000, bytes: 1 };
    let mut found = Vec::new();
    until("all records", || {
        if let Event::Records(fetched) = member.poll(single, WAIT).expect("a poll") {
            found.extend(fetched.offsets);
            member.pause(&partitions).expect("paused");
            assert!(matches!(member.poll(single, Duration::ZERO).expect("a poll"), Event::Idle), "paused is paused");
            member.resume(&partitions).expect("resumed");
        }
        (found.len() >= 6).then_some(())
    });
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_start_ends_a_pause() {
    let log = log!();
    let topic = topic(&log, "restarted", 1);
    log.produce(&topic, None, &records(["0", "1", "2"])).expect("produced");
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    let partitions = assigned(&mut member);
    assert_eq!(next_records(&mut member).1, [0, 1, 2]);
    member.pause(&partitions).expect("paused");
    member.start(&[(at(&topic, 0), 1)]).expect("rewound");
    assert_eq!(next_records(&mut member).1, [1, 2]);
    // Nor does one outlive a hold.
    member.pause(&partitions).expect("paused");
    member.hold(&partitions).expect("held");
    member.start(&[(at(&topic, 0), 2)]).expect("rewound");
    assert_eq!(next_records(&mut member).1, [2]);
}

#[test]
fn rewinding_some_partitions_leaves_the_others_where_they_are() {
    let log = log!();
    let topic = topic(&log, "rewound", 2);
    for partition in 0..2 {
        log.produce(&topic, Some(partition), &records(["0", "1", "2", "3"])).expect("produced");
    }
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    assigned(&mut member);
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let two = FetchLimit { rows: 2, bytes: 1 << 20 };
    let mut rewound = false;
    until("all records", || {
        if let Event::Records(fetched) = member.poll(two, WAIT).expect("a poll") {
            let offsets = found.entry(fetched.from.partition).or_default();
            offsets.extend(fetched.offsets);
            if !rewound && fetched.from.partition == 0 {
                rewound = true;
                member.start(&[(at(&topic, 0), 1)]).expect("rewound");
            }
        }
        (found.values().map(Vec::len).sum::<usize>() == 9).then_some(())
    });
    assert_eq!(found[&0], [0, 1, 1, 2, 3]);
    assert_eq!(found[&1], [0, 1, 2, 3]);
}

/// What a worker does: copies input to output, commits, gives partitions up when told. Returns when `stop` says so.
fn copy(log: &KafkaLog, membership: &Membership, output: &Arc<str>, stop: impl Fn() -> bool) -> usize {
    let mut member = log.member(membership).expect("a member");
    let mut positions: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut copied = 0;
    while !stop() {
        match member.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
            Event::Assigned(partitions) => resume_from_committed(&mut member, &partitions),
            Event::Revoked { partitions, lost } => {
                if !lost && !positions.is_empty() {
                    commit_all(&mut member, &mut positions);
                }
                assert!(!lost, "a partition was lost");
                member.release(&partitions).expect("released");
            }
            Event::Records(fetched) => {
                member.append(&at(output, fetched.from.partition), &fetched.records).expect("appended");
                copied += fetched.records.len();
                positions.insert(fetched.from, fetched.offsets.last().expect("records") + 1);
            }
            Event::End { .. } | Event::Idle if !positions.is_empty() => commit_all(&mut member, &mut positions),
            Event::End { .. } | Event::Idle => {}
        }
    }
    if !positions.is_empty() {
        commit_all(&mut member, &mut positions);
    }
    member.leave().expect("left");
    copied
}

fn commit_all(member: &mut Box<dyn Member>, positions: &mut BTreeMap<TopicPartition, i64>) {
    let committing: Vec<_> = std::mem::take(positions).into_iter().map(|(at, offset)| (at, offset, "")).collect();
    commit(member, &committing).expect("committed");
}

#[test]
fn members_share_partitions_and_hand_them_over_without_loss() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let log = log!();
    let (input, output) = (topic(&log, "in", 4), topic(&log, "out", 4));
    let group = unique("group");
    let stop = AtomicBool::new(false);
    let produced = AtomicUsize::new(0);
    let ended = || stop.load(Ordering::SeqCst);
    let ended = &ended;
    let (first, second) = std::thread::scope(|scope| {
        // Whatever fails, the threads end.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _stop = Stop(&stop);
        let feed = |count: usize| {
            for _ in 0..count {
                let start = produced.fetch_add(40, Ordering::SeqCst);
                let values: Vec<String> = (start..start + 40).map(|number| number.to_string()).collect();
                let mut builder = RecordsBuilder::default();
                values.iter().for_each(|value| builder.push(1, None, Some(value.as_bytes()), []));
                log.produce(&input, None, &builder.finish()).expect("produced");
            }
        };
        let reached = || {
            until("all records are copied", || {
                let found = read_values(&log, &output);
                (found.len() >= produced.load(Ordering::SeqCst)).then_some(())
            });
        };
        let first = scope.spawn(|| copy(&log, &membership(&group, "host.0", &[&input]), &output, ended));
        feed(5);
        reached();
        let second = scope.spawn(|| copy(&log, &membership(&group, "host.1", &[&input]), &output, ended));
        // Partitions move while records come.
        feed(30);
        reached();
        stop.store(true, Ordering::SeqCst);
        (first.join().expect("the first member"), second.join().expect("the second member"))
    });
    assert!(first > 0 && second > 0, "both worked: {first} and {second}");
    let mut found: Vec<usize> = read_values(&log, &output).iter().map(|value| value.parse().expect("a number")).collect();
    found.sort_unstable();
    assert_eq!(found, (0..produced.into_inner()).collect::<Vec<_>>());
}

#[test]
fn a_record_that_the_topic_does_not_take_fails_the_commit() {
    let log = log!();
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    let group = unique("group");
    log.produce(&input, None, &records(["a"])).expect("produced");
    let mut member = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    let partitions = assigned(&mut member);
    next_records(&mut member);
    let mut state = 7_u64;
    let big: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(2_000_000)
    .collect();
    let mut builder = RecordsBuilder::default();
    builder.push(1, None, Some(&big), []);
    member.append(&at(&output, 0), &builder.finish()).expect("queued");
    let error = commit(&mut member, &[(at(&input, 0), 1, "")]).expect_err("too large");
    assert!(error.remedy == Remedy::Isolate && error.message.contains(&*output) && error.message.contains("max.message.bytes"), "{error}");
    member.abort().expect("aborted");
    assert_eq!(log.committed(&group, &partitions).expect("positions"), [None]);
    // The member is as good as new.
    resume_from_committed(&mut member, &partitions);
    assert_eq!(next_records(&mut member).1, [0]);
    member.append(&at(&output, 0), &records(["fine"])).expect("appended");
    commit(&mut member, &[(at(&input, 0), 1, "")]).expect("committed");
    assert_eq!(read_values(&log, &output), ["fine"]);
}

#[test]
fn commits_are_quick() {
    let log = log!();
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&input])).expect("a member");
    assigned(&mut member);
    let mut times: Vec<Duration> = (0..20)
        .map(|round| {
            member.append(&at(&output, 0), &records(["x"])).expect("appended");
            let started = Instant::now();
            commit(&mut member, &[(at(&input, 0), round, "")]).expect("committed");
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    // The crate's own commit never takes less than 100 ms.
    assert!(times[0] < Duration::from_millis(90), "{times:?}");
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
