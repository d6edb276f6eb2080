//! The contract of a log, as tests over the trait. Each log makes them its own by `contract_tests!`.

use millstream::io::{
    Bounds, Commit, CommitState, Event, FetchLimit, Fetched, Guarantee, Internal, Log, LogError, Member, Membership, Position, Reader,
    Remedy, TopicPartition, partition_for,
};
use millstream::record::{Records, RecordsBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Makes a test of every clause for the log that the function `$open` opens.
macro_rules! contract_tests {
    ($open:path) => {
        contract_tests!($open: every_part_of_a_record_comes_back, offsets_rise_from_the_beginning, polls_keep_to_their_limits,
            one_record_comes_however_big, the_end_is_told_each_time_it_is_reached, keys_choose_partitions, topics_are_listed_and_bounded,
            offsets_are_found_by_time, readers_do_not_disturb_each_other, a_group_starts_without_positions, a_commit_is_seen_whole,
            an_abort_leaves_nothing, a_rewind_reads_again, a_paused_partition_keeps_its_place, what_is_not_committed_is_lost_on_leave,
            what_does_not_exist_is_an_error,
            exclusive_writes_lose_nothing, an_exclusive_write_may_be_none, a_pipelines_own_topic_may_be_there,
            a_topic_that_is_deleted_leaves_nothing, groups_without_members_are_moved_and_deleted);
    };
    ($open:path: $($clause:ident),*) => {
        $(
            #[test]
            fn $clause() {
                if let Some(log) = $open() {
                    $crate::log_contract::$clause(&*log);
                }
            }
        )*
    };
}
pub(crate) use contract_tests;

/// Longest that any one thing may take: a group on Kafka has to form.
const PATIENCE: Duration = Duration::from_secs(60);

const ALL: FetchLimit = FetchLimit { rows: 1000, bytes: 1 << 20 };

/// A name that no other test, and no earlier run, uses.
pub fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    format!("{name}-{}-{now}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn topic(log: &dyn Log, name: &str, partitions: i32) -> String {
    let name = fresh(name);
    log.create_topic(&name, partitions).unwrap();
    name
}

/// Records with these values, without keys, a millisecond apart.
pub fn values(values: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Records {
    let mut builder = RecordsBuilder::default();
    for (row, value) in values.into_iter().enumerate() {
        builder.push(1_700_000_000_000 + row as i64, None, Some(value.as_ref()), []);
    }
    builder.finish()
}

pub fn numbers(range: std::ops::Range<usize>) -> Records {
    values(range.map(|number| number.to_string()))
}

pub fn texts(records: &Records) -> Vec<String> {
    (0..records.len()).map(|row| String::from_utf8_lossy(records.values.bytes(row).unwrap_or(b"(null)")).into_owned()).collect()
}

fn strings(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Polls until something other than `Idle` comes.
fn next(mut poll: impl FnMut(Duration) -> Result<Event, LogError>) -> Event {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match poll(Duration::from_millis(200)).unwrap() {
            Event::Idle => {}
            event => return event,
        }
    }
    panic!("nothing came in {PATIENCE:?}");
}

/// Everything up to the first `End`, and the end.
fn to_end(reader: &mut dyn Reader, limit: FetchLimit) -> (Vec<Fetched>, i64) {
    let mut batches = Vec::new();
    loop {
        match next(|wait| reader.poll(limit, wait)) {
            Event::Records(fetched) => batches.push(fetched),
            Event::End { offset, .. } => return (batches, offset),
            event => panic!("a reader told {event:?}"),
        }
    }
}

/// The values in a partition, from its beginning to its end.
pub fn read_all(log: &dyn Log, topic: &str, partition: i32) -> Vec<String> {
    let at = TopicPartition::new(topic, partition);
    let mut reader = log.reader().unwrap();
    let begin = log.bounds(&at).unwrap().begin;
    reader.assign(&[(at, begin)]).unwrap();
    to_end(&mut *reader, ALL).0.iter().flat_map(|fetched| texts(&fetched.records)).collect()
}

/// The same once all that was committed can be read: a commit is told before each of its partitions shows it. Nothing may be open.
fn read_settled(log: &dyn Log, topic: &str, partition: i32) -> Vec<String> {
    let at = TopicPartition::new(topic, partition);
    let deadline = Instant::now() + PATIENCE;
    while log.bounds(&at).unwrap().end < log.high_watermark(&at).unwrap() {
        assert!(Instant::now() < deadline, "{at} does not show a commit in {PATIENCE:?}");
    }
    read_all(log, topic, partition)
}

fn join(log: &dyn Log, group: &str, topics: &[&str]) -> (Box<dyn Member>, Vec<TopicPartition>) {
    let membership = Membership {
        group: group.to_owned(),
        member: format!("{group}.0"),
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        guarantee: Guarantee::ExactlyOnce,
    };
    let mut member = log.member(&membership).unwrap();
    match next(|wait| member.poll(ALL, wait)) {
        Event::Assigned(mut partitions) => {
            partitions.sort();
            (member, partitions)
        }
        event => panic!("a new member told {event:?}"),
    }
}

fn commit(member: &mut dyn Member, at: &TopicPartition, offset: i64, metadata: &str) {
    let position = Position { offset, metadata: metadata.to_owned() };
    member.begin_commit(Commit { positions: vec![(at.clone(), position)], state: Vec::new() }).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while member.poll_commit(Duration::from_millis(200)).unwrap() == CommitState::InFlight {
        assert!(Instant::now() < deadline, "the commit did not end in {PATIENCE:?}");
    }
}

/// The next `rows` values that a member gets.
fn take(member: &mut dyn Member, rows: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < rows {
        if let Event::Records(fetched) = next(|wait| member.poll(ALL, wait)) {
            taken.extend(texts(&fetched.records));
        }
    }
    taken
}

type Part = Option<Vec<u8>>;
/// Timestamp, key, value, headers.
type Parts = (i64, Part, Part, Vec<(Vec<u8>, Part)>);

fn parts(records: &Records) -> Vec<Parts> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let record = |row: usize| {
        let headers = records.headers.of(row).map(|(name, value)| (name.to_vec(), owned(value))).collect();
        (records.timestamps[row], owned(records.keys.bytes(row)), owned(records.values.bytes(row)), headers)
    };
    (0..records.len()).map(record).collect()
}

pub fn every_part_of_a_record_comes_back(log: &dyn Log) {
    let topic = topic(log, "parts", 1);
    let mut builder = RecordsBuilder::default();
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), [(&b"name"[..], Some(&b"text"[..])), (b"name", Some(b"again"))]);
    builder.push(1_700_000_000_007, None, Some(b""), []);
    builder.push(1_700_000_000_003, Some(b""), None, [(&b"bytes"[..], Some(&b"\xff\x00\xfe"[..])), (b"null", None), (b"empty", Some(b""))]);
    builder.push(1_700_000_000_003, Some(b"\xff\x00"), Some(b"\x00\xff\xfe"), []);
    let records = builder.finish();
    log.produce(&topic, Some(0), &records).unwrap();
    let mut reader = log.reader().unwrap();
    reader.assign(&[(TopicPartition::new(topic.as_str(), 0), 0)]).unwrap();
    let read: Vec<_> = to_end(&mut *reader, ALL).0.iter().flat_map(|fetched| parts(&fetched.records)).collect();
    assert_eq!(read, parts(&records));
}

pub fn offsets_rise_from_the_beginning(log: &dyn Log) {
    let topic = topic(log, "offsets", 1);
    for from in 0..5 {
        log.produce(&topic, Some(0), &numbers(from * 3..from * 3 + 3)).unwrap();
    }
    let at = TopicPartition::new(topic.as_str(), 0);
    let mut reader = log.reader().unwrap();
    for start in [0, 7, 14] {
        reader.assign(&[(at.clone(), start)]).unwrap();
        let (batches, end) = to_end(&mut *reader, ALL);
        assert_eq!(end, 15);
        assert!(batches.iter().all(|fetched| fetched.from == at && fetched.offsets.len() == fetched.records.len()));
        let offsets: Vec<i64> = batches.iter().flat_map(|fetched| fetched.offsets.clone()).collect();
        assert_eq!(offsets, (start..15).collect::<Vec<_>>());
        let read: Vec<String> = batches.iter().flat_map(|fetched| texts(&fetched.records)).collect();
        assert_eq!(read, strings(start as usize..15));
    }
}

pub fn polls_keep_to_their_limits(log: &dyn Log) {
    let topic = topic(log, "limits", 1);
    log.produce(&topic, Some(0), &numbers(0..100)).unwrap();
    for from in 100..120 {
        log.produce(&topic, Some(0), &numbers(from..from + 1)).unwrap();
    }
    let mut reader = log.reader().unwrap();
    for (limit, most) in
        [(FetchLimit { rows: 7, bytes: 1 << 20 }, 7), (FetchLimit { rows: 1000, bytes: 30 }, 30), (FetchLimit { rows: 1, bytes: 1 }, 1)]
    {
        reader.assign(&[(TopicPartition::new(topic.as_str(), 0), 0)]).unwrap();
        let (batches, _) = to_end(&mut *reader, limit);
        let longest = batches.iter().map(|fetched| fetched.records.len()).max();
        assert!(longest <= Some(most), "{longest:?} records with {limit:?}");
        let read: Vec<String> = batches.iter().flat_map(|fetched| texts(&fetched.records)).collect();
        assert_eq!(read, strings(0..120), "{limit:?}");
    }
}

pub fn one_record_comes_however_big(log: &dyn Log) {
    const BIG: usize = 5 << 20;
    let topic = topic(log, "big", 1);
    if log.topic(&topic).unwrap().unwrap().max_message_bytes.is_some_and(|most| most < BIG + 1024) {
        println!("SKIPPED: the log's topics do not take a record of 5 MB");
        return;
    }
    let big = vec![b'x'; BIG];
    log.produce(&topic, Some(0), &values([b"before".as_slice(), &big, b"after"])).unwrap();
    let mut reader = log.reader().unwrap();
    reader.assign(&[(TopicPartition::new(topic.as_str(), 0), 0)]).unwrap();
    let (batches, _) = to_end(&mut *reader, FetchLimit { rows: 10, bytes: 1000 });
    let sizes: Vec<usize> = batches.iter().flat_map(|fetched| texts(&fetched.records)).map(|text| text.len()).collect();
    assert_eq!(sizes, [6, BIG, 5]);
}

pub fn the_end_is_told_each_time_it_is_reached(log: &dyn Log) {
    let topic = topic(log, "ends", 2);
    let at = |partition| TopicPartition::new(topic.as_str(), partition);
    log.produce(&topic, Some(1), &numbers(0..2)).unwrap();
    let mut reader = log.reader().unwrap();
    reader.assign(&[(at(0), 0), (at(1), 0)]).unwrap();
    let (mut ends, mut read) = (BTreeMap::new(), Vec::new());
    while ends.len() < 2 {
        match next(|wait| reader.poll(ALL, wait)) {
            Event::Records(fetched) => read.extend(texts(&fetched.records)),
            Event::End { at, offset } => assert_eq!(ends.insert(at.partition, (offset, read.len())), None),
            event => panic!("{event:?}"),
        }
    }
    assert_eq!((ends[&0].0, ends[&1]), (0, (2, 2)), "every record below an end comes before it is told");
    assert!(matches!(reader.poll(ALL, Duration::from_millis(50)).unwrap(), Event::Idle), "an end is told once");

    log.produce(&topic, Some(0), &numbers(5..6)).unwrap();
    let Event::Records(fetched) = next(|wait| reader.poll(ALL, wait)) else { panic!("what is appended reaches a reader at the end") };
    assert_eq!((fetched.from, texts(&fetched.records)), (at(0), strings(5..6)));
    let Event::End { at: ended, offset } = next(|wait| reader.poll(ALL, wait)) else { panic!("the end was reached anew") };
    assert_eq!((ended, offset), (at(0), 1));
}

pub fn keys_choose_partitions(log: &dyn Log) {
    let topic = topic(log, "keys", 5);
    let mut builder = RecordsBuilder::default();
    for number in 0..40 {
        builder.push(1_700_000_000_000, Some(format!("key-{number}").as_bytes()), Some(number.to_string().as_bytes()), []);
    }
    log.produce(&topic, None, &builder.finish()).unwrap();
    for partition in 0..5 {
        let expected: Vec<String> = (0..40)
            .filter(|number| partition_for(format!("key-{number}").as_bytes(), 5) == partition)
            .map(|number| number.to_string())
            .collect();
        assert_eq!(read_all(log, &topic, partition), expected, "partition {partition}");
    }
    log.produce(&topic, None, &numbers(100..200)).unwrap();
    let all: usize = (0..5).map(|partition| read_all(log, &topic, partition).len()).sum();
    assert_eq!(all, 140, "records without a key are not lost");
}

pub fn topics_are_listed_and_bounded(log: &dyn Log) {
    let name = topic(log, "listed", 3);
    let found = log.topic(&name).unwrap().unwrap();
    assert_eq!((&*found.name, found.partitions), (name.as_str(), 3));
    assert!(log.topics().unwrap().contains(&found));
    assert_eq!(log.topic(&fresh("missing")).unwrap(), None);
    log.produce(&name, Some(2), &numbers(0..4)).unwrap();
    let bounds = |partition| log.bounds(&TopicPartition::new(name.as_str(), partition)).unwrap();
    assert_eq!((bounds(0).begin, bounds(0).end, bounds(2).begin, bounds(2).end), (0, 0, 0, 4));
    let error = log.create_topic(&name, 3).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
}

pub fn offsets_are_found_by_time(log: &dyn Log) {
    let topic = topic(log, "times", 1);
    let at = TopicPartition::new(topic.as_str(), 0);
    let base = 1_700_000_000_000;
    for start in [0, 100, 50, 200] {
        let mut builder = RecordsBuilder::default();
        for step in 0..3 {
            builder.push(base + start + step, None, Some(b"x"), []);
        }
        log.produce(&topic, Some(0), &builder.finish()).unwrap();
    }
    // Timestamps by offset: 0 1 2, 100 101 102, 50 51 52, 200 201 202.
    for (time, offset) in [(-1, 0), (0, 0), (2, 2), (3, 3), (60, 3), (101, 4), (103, 9), (202, 11), (203, 12)] {
        assert_eq!(log.offset_at(&at, base + time).unwrap(), offset, "time {time}");
    }
}

pub fn readers_do_not_disturb_each_other(log: &dyn Log) {
    let topic = topic(log, "readers", 1);
    let at = TopicPartition::new(topic.as_str(), 0);
    log.produce(&topic, Some(0), &numbers(0..10)).unwrap();
    let (mut one, mut other) = (log.reader().unwrap(), log.reader().unwrap());
    one.assign(&[(at.clone(), 0)]).unwrap();
    other.assign(&[(at.clone(), 5)]).unwrap();
    let three = FetchLimit { rows: 3, bytes: 1 << 20 };
    let read = |reader: &mut dyn Reader| match next(|wait| reader.poll(three, wait)) {
        Event::Records(fetched) => texts(&fetched.records),
        event => panic!("{event:?}"),
    };
    assert_eq!(read(&mut *one), strings(0..3));
    assert_eq!(read(&mut *other), strings(5..8));
    assert_eq!(read(&mut *one), strings(3..6));
    other.assign(&[(at, 0)]).unwrap();
    assert_eq!(read(&mut *other), strings(0..3), "a reader reads only what it was assigned last");
}

pub fn a_group_starts_without_positions(log: &dyn Log) {
    let (one, two) = (topic(log, "group-a", 2), topic(log, "group-b", 1));
    let group = fresh("group");
    let (mut member, assigned) = join(log, &group, &[&one, &two]);
    let expected = vec![TopicPartition::new(one.as_str(), 0), TopicPartition::new(one.as_str(), 1), TopicPartition::new(two.as_str(), 0)];
    assert_eq!(assigned, expected);
    assert_eq!(member.committed(&assigned).unwrap(), [None, None, None]);
    assert_eq!(log.committed(&group, &assigned).unwrap(), [None, None, None]);
    log.produce(&one, Some(0), &numbers(0..1)).unwrap();
    assert!(matches!(member.poll(ALL, Duration::from_millis(50)).unwrap(), Event::Idle), "nothing is fetched before start");
    member.leave().unwrap();
}

pub fn a_commit_is_seen_whole(log: &dyn Log) {
    let (input, output, more) = (topic(log, "in", 1), topic(log, "out", 2), topic(log, "more", 1));
    let group = fresh("group");
    log.produce(&input, Some(0), &numbers(0..10)).unwrap();
    let (mut member, assigned) = join(log, &group, &[&input]);
    member.start(&[(assigned[0].clone(), 0)]).unwrap();
    assert_eq!(take(&mut *member, 10), strings(0..10));
    let to = |topic: &str, partition| TopicPartition::new(topic, partition);
    member.append(&to(&output, 0), &numbers(0..3)).unwrap();
    member.append(&to(&output, 1), &numbers(100..900)).unwrap();
    member.append(&to(&more, 0), &numbers(1..2)).unwrap();
    member.append(&to(&output, 0), &numbers(3..5)).unwrap();
    for (topic, partition) in [(&output, 0), (&output, 1), (&more, 0)] {
        assert_eq!(read_all(log, topic, partition), Vec::<String>::new(), "nothing is seen before the commit");
    }
    assert_eq!(log.committed(&group, &assigned).unwrap(), [None]);

    commit(&mut *member, &assigned[0], 10, "first");
    assert_eq!(read_settled(log, &output, 0), strings(0..5));
    assert_eq!(read_settled(log, &output, 1), strings(100..900));
    assert_eq!(read_settled(log, &more, 0), strings(1..2));
    let position = |offset, metadata: &str| Some(Position { offset, metadata: metadata.to_owned() });
    assert_eq!(log.committed(&group, &assigned).unwrap(), [position(10, "first")]);

    // Without output, and again with some.
    commit(&mut *member, &assigned[0], 10, "second");
    member.append(&to(&output, 0), &numbers(5..7)).unwrap();
    commit(&mut *member, &assigned[0], 10, &"m".repeat(512));
    assert_eq!(member.committed(&assigned).unwrap(), [position(10, &"m".repeat(512))]);
    assert_eq!(read_settled(log, &output, 0), strings(0..7));
    member.leave().unwrap();

    let (mut member, again) = join(log, &group, &[&input]);
    assert_eq!(member.committed(&again).unwrap(), [position(10, &"m".repeat(512))], "positions outlive the member");
    member.leave().unwrap();
}

pub fn an_abort_leaves_nothing(log: &dyn Log) {
    let (input, output) = (topic(log, "in", 1), topic(log, "out", 1));
    let (mut member, assigned) = join(log, &fresh("group"), &[&input]);
    let to = TopicPartition::new(output.as_str(), 0);
    member.append(&to, &numbers(0..600)).unwrap();
    member.append(&to, &numbers(600..601)).unwrap();
    member.abort().unwrap();
    assert_eq!(read_settled(log, &output, 0), Vec::<String>::new());
    member.append(&to, &numbers(7..9)).unwrap();
    commit(&mut *member, &assigned[0], 0, "");
    assert_eq!(read_settled(log, &output, 0), strings(7..9), "only what was appended after the abort");
    member.leave().unwrap();
}

pub fn a_rewind_reads_again(log: &dyn Log) {
    let input = topic(log, "in", 1);
    log.produce(&input, Some(0), &numbers(0..10)).unwrap();
    let (mut member, assigned) = join(log, &fresh("group"), &[&input]);
    member.start(&[(assigned[0].clone(), 2)]).unwrap();
    assert_eq!(take(&mut *member, 8), strings(2..10));
    member.start(&[(assigned[0].clone(), 4)]).unwrap();
    assert_eq!(take(&mut *member, 6), strings(4..10));
    member.leave().unwrap();
}

pub fn a_paused_partition_keeps_its_place(log: &dyn Log) {
    let input = topic(log, "in", 2);
    let (mut member, assigned) = join(log, &fresh("group"), &[&input]);
    member.start(&[(assigned[0].clone(), 0), (assigned[1].clone(), 0)]).unwrap();
    member.pause(&assigned[..1]).unwrap();
    log.produce(&input, Some(0), &numbers(0..5)).unwrap();
    log.produce(&input, Some(1), &numbers(10..15)).unwrap();
    assert_eq!(take(&mut *member, 5), strings(10..15));
    member.resume(&assigned[..1]).unwrap();
    assert_eq!(take(&mut *member, 5), strings(0..5));
    member.leave().unwrap();
}

pub fn what_is_not_committed_is_lost_on_leave(log: &dyn Log) {
    let (input, output) = (topic(log, "in", 1), topic(log, "out", 1));
    let group = fresh("group");
    let (mut member, _) = join(log, &group, &[&input]);
    member.append(&TopicPartition::new(output.as_str(), 0), &numbers(0..5)).unwrap();
    member.leave().unwrap();
    let (mut member, assigned) = join(log, &group, &[&input]);
    commit(&mut *member, &assigned[0], 0, "");
    assert_eq!(read_all(log, &output, 0), Vec::<String>::new());
    member.leave().unwrap();
}

/// The values of a partition, as whoever decides reads them: all that was there when it began. `hidden` is told each time something is still hidden.
pub fn read_whole(log: &dyn Log, at: &TopicPartition, hidden: &mut dyn FnMut()) -> Vec<String> {
    let all = log.high_watermark(at).unwrap();
    let mut reader = log.reader().unwrap();
    reader.assign(&[(at.clone(), 0)]).unwrap();
    let mut read = Vec::new();
    loop {
        match next(|wait| reader.poll(ALL, wait)) {
            Event::Records(fetched) => {
                read.extend(texts(&fetched.records));
                // Others may append so fast that no end is ever reached.
                if fetched.offsets.last().is_some_and(|last| last + 1 >= all) {
                    return read;
                }
            }
            Event::End { offset, .. } if offset >= all => return read,
            Event::End { .. } => hidden(),
            event => panic!("a reader told {event:?}"),
        }
    }
}

/// The numbers among the values of a partition.
pub fn counted(values: &[String]) -> Vec<usize> {
    values.iter().filter_map(|value| value.parse().ok()).collect()
}

/// Appends one more than the last number, if no other does at the same time.
pub fn count_on(log: &dyn Log, name: &str, at: &TopicPartition) -> Result<(), LogError> {
    log.exclusively(name, at, &mut || {
        let last = counted(&read_whole(log, at, &mut || {})).last().copied().unwrap_or(0);
        Ok(Some(numbers(last + 1..last + 2)))
    })
}

/// Threads of several logs, which are one, count on in one partition while others append to it.
pub fn count_together(logs: &[&dyn Log], threads: usize, times: usize) {
    let topic = topic(logs[0], "count", 1);
    let (name, at) = (fresh("counter"), TopicPartition::new(topic.as_str(), 0));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (log, name, topic, at) = (logs[thread % logs.len()], &name, &topic, &at);
            scope.spawn(move || {
                for _ in 0..times {
                    count_on(log, name, at).unwrap();
                    log.produce(topic, Some(0), &values(["noise"])).unwrap();
                }
            });
        }
    });
    let values = read_whole(logs[0], &at, &mut || {});
    assert_eq!(counted(&values), (1..=threads * times).collect::<Vec<_>>());
    assert_eq!(values.len(), 2 * threads * times);
}

pub fn exclusive_writes_lose_nothing(log: &dyn Log) {
    count_together(&[log], 4, 5);
}

/// Of two logs, which are one, the second writes between what the first reads and what it appends.
pub fn who_is_overtaken_decides_anew(first: &dyn Log, second: &dyn Log) {
    let topic = topic(first, "count", 1);
    let (name, at) = (fresh("counter"), TopicPartition::new(topic.as_str(), 0));
    let mut seen = Vec::new();
    first
        .exclusively(&name, &at, &mut || {
            let read = counted(&read_whole(first, &at, &mut || {}));
            let last = read.last().copied().unwrap_or(0);
            if seen.is_empty() {
                count_on(second, &name, &at).unwrap();
            }
            seen.push(read);
            Ok(Some(numbers(last + 1..last + 2)))
        })
        .unwrap();
    assert_eq!(seen, [vec![], vec![1]], "it read again, once");
    assert_eq!(read_whole(first, &at, &mut || {}), ["1", "2"]);
}

/// What has another name, or none, comes between without a consequence.
pub fn who_is_not_overtaken_decides_once(first: &dyn Log, second: &dyn Log) {
    let topic = topic(first, "count", 1);
    let (name, at) = (fresh("counter"), TopicPartition::new(topic.as_str(), 0));
    let mut decided = 0;
    first
        .exclusively(&name, &at, &mut || {
            decided += 1;
            second.exclusively(&fresh("other"), &at, &mut || Ok(Some(values(["other"])))).unwrap();
            second.produce(&topic, Some(0), &values(["noise"])).unwrap();
            Ok(Some(numbers(1..2)))
        })
        .unwrap();
    assert_eq!(decided, 1);
    assert_eq!(read_whole(first, &at, &mut || {}), ["other", "noise", "1"]);
}

pub fn an_exclusive_write_may_be_none(log: &dyn Log) {
    let topic = topic(log, "count", 1);
    let (name, at) = (fresh("counter"), TopicPartition::new(topic.as_str(), 0));
    log.exclusively(&name, &at, &mut || Ok(None)).unwrap();
    log.exclusively(&name, &at, &mut || Ok(Some(Records::default()))).unwrap();
    let error = log.exclusively(&name, &at, &mut || Err(LogError::stop("I do not want to"))).unwrap_err();
    assert_eq!((error.remedy, &*error.message), (Remedy::Stop, "I do not want to"));
    assert_eq!(log.high_watermark(&at).unwrap(), 0, "nothing was written");
    count_on(log, &name, &at).unwrap();
    assert_eq!(read_whole(log, &at, &mut || {}), ["1"]);
    let missing = TopicPartition::new(fresh("missing"), 0);
    let error = log.exclusively(&name, &missing, &mut || Ok(Some(numbers(0..1)))).unwrap_err();
    assert!(error.message.contains(&*missing.topic), "{error}");
}

pub fn a_topic_that_is_deleted_leaves_nothing(log: &dyn Log) {
    let (name, other) = (topic(log, "gone", 2), topic(log, "stays", 1));
    let at = TopicPartition::new(name.as_str(), 1);
    for number in 0..3 {
        log.produce(&name, Some(1), &numbers(number..number + 1)).unwrap();
        log.produce(&other, Some(0), &numbers(number..number + 1)).unwrap();
    }
    log.delete_topic(&name).unwrap();
    assert_eq!(log.topic(&name).unwrap(), None);
    assert!(!log.topics().unwrap().iter().any(|topic| *topic.name == *name));
    assert!(log.bounds(&at).is_err());
    log.delete_topic(&name).unwrap();
    log.delete_topic(&fresh("missing")).unwrap();
    assert_eq!(read_all(log, &other, 0), strings(0..3));

    log.create_topic(&name, 3).unwrap();
    assert_eq!(log.bounds(&at).unwrap(), Bounds { begin: 0, end: 0 });
    log.produce(&name, Some(1), &numbers(7..9)).unwrap();
    assert_eq!(read_all(log, &name, 1), strings(7..9));
    assert_eq!(read_all(log, &name, 2), strings(0..0));
}

pub fn groups_without_members_are_moved_and_deleted(log: &dyn Log) {
    let (input, more) = (topic(log, "in", 2), topic(log, "more", 1));
    let group = fresh("group");
    let at = [TopicPartition::new(input.as_str(), 0), TopicPartition::new(input.as_str(), 1), TopicPartition::new(more.as_str(), 0)];
    let position = |offset, metadata: &str| Position { offset, metadata: metadata.to_owned() };
    let committed = || log.committed(&group, &at).unwrap();
    for partition in [0, 1] {
        log.produce(&input, Some(partition), &numbers(0..10)).unwrap();
    }

    log.delete_group(&group).unwrap();
    log.move_group(&group, &[]).unwrap();
    log.move_group(&group, &[(at[0].clone(), position(3, "first")), (at[2].clone(), position(0, ""))]).unwrap();
    assert_eq!(committed(), [Some(position(3, "first")), None, Some(position(0, ""))]);
    let missing = TopicPartition::new(fresh("missing"), 0);
    for wrong in [&missing, &TopicPartition::new(input.as_str(), 2)] {
        let error = log.move_group(&group, &[(at[0].clone(), position(9, "")), (wrong.clone(), position(0, ""))]).unwrap_err();
        assert!(error.message.contains(&*wrong.topic), "{error}");
    }
    assert_eq!(committed()[0], Some(position(3, "first")), "all of it or nothing");

    let (mut member, assigned) = join(log, &group, &[&input]);
    assert_eq!(member.committed(&assigned).unwrap(), [Some(position(3, "first")), None]);
    commit(&mut *member, &at[1], 5, "of the member");
    let refused = [log.move_group(&group, &[(at[0].clone(), position(4, "while it runs"))]), log.delete_group(&group)];
    for error in refused.map(Result::unwrap_err) {
        assert!(error.remedy == Remedy::Wait && error.message.contains(&group) && error.message.contains("member"), "{error}");
    }
    assert_eq!(committed(), [Some(position(3, "first")), Some(position(5, "of the member")), Some(position(0, ""))]);
    member.leave().unwrap();

    // A member may count for a while after it has left.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = log.move_group(&group, &[(at[0].clone(), position(1, "back"))]) {
        assert!(error.remedy == Remedy::Wait && Instant::now() < deadline, "{error}");
    }
    assert_eq!(committed(), [Some(position(1, "back")), Some(position(5, "of the member")), Some(position(0, ""))]);
    log.delete_group(&group).unwrap();
    assert_eq!(committed(), [None, None, None]);
    log.delete_group(&group).unwrap();
}

pub fn a_pipelines_own_topic_may_be_there(log: &dyn Log) {
    for what in [Internal::Changelog, Internal::Repartition, Internal::Control] {
        let name = fresh("own");
        log.create_internal(&name, 2, what).unwrap();
        log.create_internal(&name, 2, what).unwrap();
        assert_eq!(log.topic(&name).unwrap().unwrap().partitions, 2);
        assert!(log.create_topic(&name, 2).is_err(), "a user hears of it");
        assert!(log.create_internal("no/name", 1, what).is_err());
    }
}

pub fn what_does_not_exist_is_an_error(log: &dyn Log) {
    let name = topic(log, "small", 1);
    let missing = fresh("missing");
    for at in [TopicPartition::new(missing.as_str(), 0), TopicPartition::new(name.as_str(), 1)] {
        assert!(log.bounds(&at).unwrap_err().to_string().contains(&*at.topic), "{at}");
        assert!(log.offset_at(&at, 0).is_err(), "{at}");
    }
    assert!(log.produce(&name, Some(1), &numbers(0..1)).is_err());
    assert!(log.create_topic("no/name", 1).is_err());
    assert!(log.create_topic(&fresh("none"), 0).is_err());
}
