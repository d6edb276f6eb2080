//! Members of groups, by either group protocol.

use super::{DEADLINE, LIMIT, On, WAIT, at, both_protocols, committed_values, read, read_values, records, settled, topic, until, values};
use crate::cluster::unique;
use millstream::io::{
    Commit, CommitState, Event, FetchLimit, Guarantee, Log, LogError, Member, Membership, Position, Remedy, TopicPartition,
};
use millstream::record::{Records, RecordsBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

both_protocols!(
    output_and_positions_commit_as_one_and_an_abort_leaves_nothing,
    a_commit_needs_positions_and_takes_no_state,
    a_member_of_the_same_name_fences_the_older_one,
    a_member_that_comes_back_for_more_topics_gets_them,
    a_transaction_open_for_too_long_is_no_fencing,
    pause_keeps_the_place_also_at_the_end,
    pause_loses_nothing_of_what_was_fetched_and_not_handed_over,
    a_start_ends_a_pause,
    starts_and_holds_may_follow_at_once,
    a_rewind_drops_what_was_fetched_and_not_handed_over,
    a_record_that_the_topic_does_not_take_fails_the_commit,
    rewinding_some_partitions_leaves_the_others_where_they_are,
    commits_are_quick
);

pub(super) fn membership(group: &str, member: &str, topics: &[&Arc<str>]) -> Membership {
    Membership {
        group: group.to_owned(),
        member: member.to_owned(),
        topics: topics.iter().map(|topic| (*topic).clone()).collect(),
        guarantee: Guarantee::ExactlyOnce,
    }
}

/// Polls until partitions are assigned, and starts them from the committed positions, or the beginning.
pub(super) fn assigned(member: &mut Box<dyn Member>) -> Vec<TopicPartition> {
    let partitions = until("an assignment", || match member.poll(LIMIT, WAIT).expect("a poll") {
        Event::Assigned(partitions) => Some(partitions),
        Event::Idle => None,
        other => panic!("before the assignment: {other:?}"),
    });
    resume_from_committed(member, &partitions);
    partitions
}

pub(super) fn resume_from_committed(member: &mut Box<dyn Member>, partitions: &[TopicPartition]) {
    let positions = member.committed(partitions).expect("committed positions");
    let places: Vec<_> =
        partitions.iter().cloned().zip(positions.into_iter().map(|position| position.map_or(0, |position| position.offset))).collect();
    member.start(&places).expect("started");
}

pub(super) fn commit(member: &mut Box<dyn Member>, positions: &[(TopicPartition, i64, &str)]) -> Result<(), LogError> {
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
pub(super) fn next_records(member: &mut Box<dyn Member>) -> (TopicPartition, Vec<i64>, Records) {
    until("records", || match member.poll(LIMIT, WAIT).expect("a poll") {
        Event::Records(fetched) => Some((fetched.from, fetched.offsets, fetched.records)),
        Event::End { .. } | Event::Idle => None,
        other => panic!("instead of records: {other:?}"),
    })
}

fn output_and_positions_commit_as_one_and_an_abort_leaves_nothing(on: &On) {
    let log = on.log();
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
    settled(&log, &output);
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

fn a_commit_needs_positions_and_takes_no_state(on: &On) {
    let log = on.log();
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

fn a_member_of_the_same_name_fences_the_older_one(on: &On) {
    let log = on.log();
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    let group = unique("group");
    log.produce(&input, None, &records(["a"])).expect("produced");
    let mut old = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    assigned(&mut old);
    next_records(&mut old);
    old.append(&at(&output, 0), &records(["old"])).expect("appended");
    // A zombie's open transaction ends by an abort when its successor begins.
    let mut new = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
    if on.is_classic() {
        assigned(&mut new);
    } else {
        // The group keeps the name for the old one, as long as that is heard of.
        let error = until("the name is taken", || new.poll(LIMIT, WAIT).err());
        assert!(error.remedy == Remedy::Wait && error.message.contains("group.consumer.session.timeout.ms"), "{error}");
    }
    let error = commit(&mut old, &[(at(&input, 0), 1, "old")]).expect_err("fenced");
    assert_eq!(error.remedy, Remedy::Fenced, "{error}");
    if on.is_classic() {
        // The group refuses the old one too.
        let error = until("the old member is told", || old.poll(LIMIT, WAIT).err());
        assert_eq!(error.remedy, Remedy::Fenced, "{error}");
    }
    drop(old);
    if !on.is_classic() {
        new.leave().expect("it never joined");
        new = log.member(&membership(&group, "host.0", &[&input])).expect("a member");
        assigned(&mut new);
    }
    assert_eq!(next_records(&mut new).1, [0]);
    new.append(&at(&output, 0), &records(["new"])).expect("appended");
    commit(&mut new, &[(at(&input, 0), 1, "new")]).expect("committed");
    assert_eq!(committed_values(&log, &output), ["new"]);
    let committed = log.committed(&group, &[at(&input, 0)]).expect("positions");
    assert_eq!(committed, [Some(Position { offset: 1, metadata: "new".to_owned() })]);
}

fn a_member_that_comes_back_for_more_topics_gets_them(on: &On) {
    let log = on.log();
    let (one, two) = (topic(&log, "one", 1), topic(&log, "two", 1));
    let group = unique("group");
    let mut member = log.member(&membership(&group, "host.0", &[&one])).expect("a member");
    assert_eq!(assigned(&mut member), [at(&one, 0)]);
    member.leave().expect("it leaves");
    let mut member = log.member(&membership(&group, "host.0", &[&one, &two])).expect("a member");
    let mut given = Vec::new();
    until("both topics", || {
        match member.poll(LIMIT, WAIT).expect("a poll") {
            Event::Assigned(partitions) => {
                resume_from_committed(&mut member, &partitions);
                given.extend(partitions);
            }
            Event::Revoked { partitions, .. } => {
                member.release(&partitions).expect("released");
                given.retain(|at| !partitions.contains(at));
            }
            _ => {}
        }
        given.sort();
        (given == [at(&one, 0), at(&two, 0)]).then_some(())
    });
    member.leave().expect("it leaves");
}

fn a_transaction_open_for_too_long_is_no_fencing(on: &On) {
    let log = on.log_with("[kafka.producer]\ntransaction.timeout.ms = 1000\n");
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
    assert_eq!(committed_values(&log, &output), ["again"]);
}

fn pause_keeps_the_place_also_at_the_end(on: &On) {
    let log = on.log();
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

fn pause_loses_nothing_of_what_was_fetched_and_not_handed_over(on: &On) {
    let log = on.log();
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

fn a_start_ends_a_pause(on: &On) {
    let log = on.log();
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

/// The client ends its process if it is told to stop a partition again before it has done so (librdkafka #5573).
fn starts_and_holds_may_follow_at_once(on: &On) {
    let log = on.log();
    let topic = topic(&log, "hurried", 2);
    for partition in 0..2 {
        log.produce(&topic, Some(partition), &records(["0", "1", "2"])).expect("produced");
    }
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    let partitions = assigned(&mut member);
    for _ in 0..2000 {
        member.start(&[(at(&topic, 0), 1)]).expect("rewound");
        member.hold(&partitions).expect("held");
        member.start(&[(at(&topic, 1), 2)]).expect("rewound");
    }
    member.start(&[(at(&topic, 0), 1)]).expect("rewound");
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    until("all records", || {
        if let Event::Records(fetched) = member.poll(LIMIT, WAIT).expect("a poll") {
            found.entry(fetched.from.partition).or_default().extend(fetched.offsets);
        }
        (found.values().map(Vec::len).sum::<usize>() >= 3).then_some(())
    });
    assert_eq!(found, BTreeMap::from([(0, vec![1, 2]), (1, vec![2])]));
}

fn rewinding_some_partitions_leaves_the_others_where_they_are(on: &On) {
    let log = on.log();
    let topic = topic(&log, "rewound", 2);
    for partition in 0..2 {
        log.produce(&topic, Some(partition), &records(["0", "1", "2", "3"])).expect("produced");
    }
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    assigned(&mut member);
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let two = FetchLimit { rows: 2, bytes: 1 << 20 };
    // How many came of the first partition until it was rewound. One or two at a time: the end of the other may take the place of a record.
    let mut before = None;
    until("all records", || {
        if let Event::Records(fetched) = member.poll(two, WAIT).expect("a poll") {
            let offsets = found.entry(fetched.from.partition).or_default();
            offsets.extend(fetched.offsets);
            if before.is_none() && fetched.from.partition == 0 && offsets.len() > 1 {
                before = Some(offsets.len());
                member.start(&[(at(&topic, 0), 1)]).expect("rewound");
            }
        }
        let at_end = |partition: i32| found.get(&partition).is_some_and(|offsets| offsets.last() == Some(&3));
        (before.is_some() && at_end(0) && at_end(1)).then_some(())
    });
    let expected: Vec<i64> = (0..before.expect("rewound") as i64).chain(1..4).collect();
    assert_eq!(found[&0], expected);
    assert_eq!(found[&1], [0, 1, 2, 3]);
}

fn a_rewind_drops_what_was_fetched_and_not_handed_over(on: &On) {
    let log = on.log();
    let topic = topic(&log, "dropped", 2);
    for partition in 0..2 {
        log.produce(&topic, Some(partition), &records(["0", "1", "2", "3"])).expect("produced");
    }
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&topic])).expect("a member");
    assigned(&mut member);
    // All are fetched at once, and handed over one at a time.
    let single = FetchLimit { rows: 1000, bytes: 1 };
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut rewound = false;
    until("all records, and no more", || match member.poll(single, WAIT).expect("a poll") {
        Event::Records(fetched) => {
            found.entry(fetched.from.partition).or_default().extend(fetched.offsets);
            if found.get(&0).is_some_and(|offsets| offsets.len() == 2) && !std::mem::replace(&mut rewound, true) {
                member.start(&[(at(&topic, 0), 0)]).expect("rewound");
            }
            None
        }
        Event::Idle => (found.values().map(Vec::len).sum::<usize>() >= 10).then_some(()),
        _ => None,
    });
    assert_eq!(found[&0], [0, 1, 0, 1, 2, 3]);
    assert_eq!(found[&1], [0, 1, 2, 3]);
}

fn a_record_that_the_topic_does_not_take_fails_the_commit(on: &On) {
    let log = on.log();
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
    let big = builder.finish();
    // The refusal is heard of in the midst of the commit, or before it.
    for polls in [0, 20] {
        member.append(&at(&output, 0), &big).expect("queued");
        (0..polls).for_each(|_| drop(member.poll(LIMIT, WAIT).expect("a poll")));
        let error = commit(&mut member, &[(at(&input, 0), 1, "")]).expect_err("too large");
        assert!(error.remedy == Remedy::Isolate && error.message.contains(&*output), "{error}");
        assert!(error.message.contains("max.message.bytes"), "{error}");
        member.abort().expect("aborted");
        assert_eq!(log.committed(&group, &partitions).expect("positions"), [None]);
        // The member is as good as new.
        resume_from_committed(&mut member, &partitions);
        assert_eq!(next_records(&mut member).1, [0]);
    }
    member.append(&at(&output, 0), &records(["fine"])).expect("appended");
    commit(&mut member, &[(at(&input, 0), 1, "")]).expect("committed");
    assert_eq!(committed_values(&log, &output), ["fine"]);
}

fn commits_are_quick(on: &On) {
    let log = on.log();
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
