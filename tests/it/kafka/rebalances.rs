//! Partitions that go from member to member, by either group protocol: each record counts, and what stays goes on where it was.

use super::members::{commit, membership, resume_from_committed};
use super::{LIMIT, On, at, both_protocols, committed_values, read_values, records, topic, until, values};
use crate::cluster::unique;
use millstream::io::{Event, FetchLimit, Guarantee, Log, Member, Membership, Position, Remedy, TopicPartition};
use millstream::log::kafka::KafkaLog;
use millstream::record::RecordsBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

both_protocols!(
    members_hand_partitions_over_and_each_record_counts_once,
    members_of_at_least_once_hand_partitions_over_without_loss,
    what_stays_goes_on_at_its_place,
    a_member_leaves_in_the_midst_of_a_rebalance,
    what_was_passed_may_be_deleted_before_the_others_move,
    a_revocation_is_confirmed_by_its_release_alone,
);

/// A worker in little: copies input to output, commits, gives partitions up when told.
struct Copier<'a> {
    member: Box<dyn Member>,
    output: &'a Arc<str>,
    owned: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, i64>,
}

impl Copier<'_> {
    fn turn(&mut self) -> usize {
        match self.member.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
            Event::Assigned(partitions) => {
                self.owned.extend(partitions.iter().cloned());
                resume_from_committed(&mut self.member, &partitions);
            }
            Event::Revoked { partitions, lost } => {
                assert!(!lost, "{partitions:?} were lost");
                self.owned.retain(|at| !partitions.contains(at));
                self.commit();
                self.member.release(&partitions).expect("released");
            }
            Event::Records(fetched) => {
                assert!(self.owned.contains(&fetched.from), "records of {}, which is not this member's", fetched.from);
                self.member.append(&at(self.output, fetched.from.partition), &fetched.records).expect("appended");
                self.positions.insert(fetched.from, fetched.offsets.last().expect("records") + 1);
                return fetched.records.len();
            }
            Event::End { .. } | Event::Idle => self.commit(),
        }
        0
    }

    fn commit(&mut self) {
        let positions: Vec<_> = std::mem::take(&mut self.positions).into_iter().map(|(at, offset)| (at, offset, "")).collect();
        if positions.is_empty() {
            return;
        }
        if let Err(error) = commit(&mut self.member, &positions) {
            // The group went on at this moment.
            assert_eq!(error.remedy, Remedy::Rewind, "{error}");
            self.member.abort().expect("aborted");
            resume_from_committed(&mut self.member, &self.owned.iter().cloned().collect::<Vec<_>>());
        }
    }
}

fn copy(log: &KafkaLog, membership: &Membership, output: &Arc<str>, copied: &AtomicUsize, stop: &AtomicBool) {
    let member = log.member(membership).expect("a member");
    let mut copier = Copier { member, output, owned: BTreeSet::new(), positions: BTreeMap::new() };
    while !stop.load(Ordering::SeqCst) {
        copied.fetch_add(copier.turn(), Ordering::SeqCst);
    }
    copier.commit();
    copier.member.leave().expect("left");
}

/// Two members share a topic while numbers come, the second from some moment on. All numbers that came out, sorted, and how many went in.
fn shared(on: &On, guarantee: Guarantee) -> (Vec<usize>, usize) {
    // Whatever fails, the threads end.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let log = &on.log();
    let (input, output) = (&topic(log, "in", 4), &topic(log, "out", 4));
    let group = unique("group");
    let member = |name: &str| Membership { guarantee, ..membership(&group, name, &[input]) };
    let stop = &AtomicBool::new(false);
    let copied = &[const { AtomicUsize::new(0) }; 2];
    let mut produced = 0;
    std::thread::scope(|scope| {
        let _stop = Stop(stop);
        let mut feed = || {
            let mut builder = RecordsBuilder::default();
            (produced..produced + 40).for_each(|number| builder.push(1, None, Some(number.to_string().as_bytes()), []));
            log.produce(input, None, &builder.finish()).expect("produced");
            produced += 40;
        };
        let first = member("host.0");
        scope.spawn(move || copy(log, &first, output, &copied[0], stop));
        feed();
        until("the first copies", || (copied[0].load(Ordering::SeqCst) >= 40).then_some(()));
        let second = member("host.1");
        scope.spawn(move || copy(log, &second, output, &copied[1], stop));
        // Partitions move while records come.
        until("the second copies too", || {
            feed();
            (copied[1].load(Ordering::SeqCst) >= 100).then_some(())
        });
        until("all records are copied", || {
            let found: BTreeSet<_> = read_values(log, output).into_iter().collect();
            (found.len() >= produced).then_some(())
        });
    });
    let mut found: Vec<usize> = committed_values(log, output).iter().map(|value| value.parse().expect("a number")).collect();
    found.sort_unstable();
    (found, produced)
}

fn members_hand_partitions_over_and_each_record_counts_once(on: &On) {
    let (found, produced) = shared(on, Guarantee::ExactlyOnce);
    assert_eq!(found, (0..produced).collect::<Vec<_>>());
}

fn members_of_at_least_once_hand_partitions_over_without_loss(on: &On) {
    let (mut found, produced) = shared(on, Guarantee::AtLeastOnce);
    found.dedup();
    assert_eq!(found, (0..produced).collect::<Vec<_>>());
}

/// A member of several that share, in one thread, what they know of places.
struct Reading {
    member: Box<dyn Member>,
    owned: BTreeSet<TopicPartition>,
}

impl Reading {
    fn new(log: &KafkaLog, membership: &Membership) -> Self {
        Self { member: log.member(membership).expect("a member"), owned: BTreeSet::new() }
    }

    /// One poll; `places`: the offsets that are to come next.
    fn turn(&mut self, limit: FetchLimit, places: &mut BTreeMap<TopicPartition, i64>) {
        match self.member.poll(limit, Duration::from_millis(20)).expect("a poll") {
            Event::Assigned(partitions) => {
                let starts: Vec<_> = partitions.iter().map(|at| (at.clone(), places[at])).collect();
                self.owned.extend(partitions);
                self.member.start(&starts).expect("started");
            }
            Event::Revoked { partitions, .. } => {
                self.owned.retain(|at| !partitions.contains(at));
                self.member.release(&partitions).expect("released");
            }
            Event::Records(fetched) => {
                let place = places.get_mut(&fetched.from).expect("a place");
                let expected: Vec<i64> = (*place..*place + fetched.offsets.len() as i64).collect();
                assert_eq!(fetched.offsets, expected, "{}: one record after the other, each once", fetched.from);
                *place += fetched.offsets.len() as i64;
            }
            Event::End { at, offset } => assert_eq!(offset, places[&at], "{at}: the end comes behind the last record"),
            Event::Idle => {}
        }
    }
}

fn what_stays_goes_on_at_its_place(on: &On) {
    let log = on.log();
    let topic = topic(&log, "stays", 4);
    let group = unique("group");
    let all: Vec<_> = (0..4).map(|partition| at(&topic, partition)).collect();
    let mut places: BTreeMap<TopicPartition, i64> = all.iter().map(|at| (at.clone(), 0)).collect();
    let mut produced = 0_i64;
    let mut feed = |count: i64| {
        let values: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        (0..4).for_each(|partition| log.produce(&topic, Some(partition), &records(values.iter().map(String::as_str))).expect("produced"));
        produced += count;
        produced
    };
    // Fetched by many, handed over one by one.
    let single = FetchLimit { rows: 1000, bytes: 1 };
    let reached = |places: &BTreeMap<TopicPartition, i64>, end: i64| places.values().all(|place| *place >= end).then_some(());
    let mut first = Reading::new(&log, &membership(&group, "host.0", &[&topic]));
    let end = feed(3);
    until("the first reads to the ends", || {
        first.turn(LIMIT, &mut places);
        reached(&places, end)
    });
    // The ends are told, which librdkafka counts; nothing comes behind them until others have joined.
    (0..10).for_each(|_| first.turn(LIMIT, &mut places));
    for round in 0..2 {
        let mut second = Reading::new(&log, &membership(&group, "host.1", &[&topic]));
        until("the second gets some", || {
            first.turn(single, &mut places);
            second.turn(single, &mut places);
            (first.owned.len() == 2 && second.owned.len() == 2).then_some(())
        });
        let end = feed(20);
        until("half of it is read", || {
            first.turn(single, &mut places);
            second.turn(single, &mut places);
            (places.values().sum::<i64>() > 4 * end - 40).then_some(())
        });
        // Halfway, and one goes; a static member's partitions are given away when its session ends.
        second.member.leave().expect("left");
        until(&format!("the first has all again, round {round}"), || {
            first.turn(single, &mut places);
            (first.owned.len() == 4).then_some(())
        });
        until("all is read", || {
            first.turn(single, &mut places);
            reached(&places, end)
        });
    }
}

fn a_revocation_is_confirmed_by_its_release_alone(on: &On) {
    let log = on.log();
    let topic = topic(&log, "confirmed", 2);
    let group = unique("group");
    for partition in 0..2 {
        log.produce(&topic, Some(partition), &records(["0", "1", "2"])).expect("produced");
    }
    let mut first = log.member(&membership(&group, "host.0", &[&topic])).expect("a member");
    super::members::assigned(&mut first);
    let mut second = log.member(&membership(&group, "host.1", &[&topic])).expect("a member");
    let mut poll_second = || match second.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
        Event::Assigned(partitions) => Some(partitions),
        Event::Idle => None,
        other => panic!("the second was told {other:?}"),
    };
    let revoked = until("a revocation", || {
        assert_eq!(poll_second(), None, "nothing is free yet");
        match first.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
            Event::Revoked { partitions, lost } => {
                assert!(!lost);
                Some(partitions)
            }
            Event::Assigned(partitions) => panic!("{partitions:?} were assigned"),
            _ => None,
        }
    });
    assert_eq!(revoked.len(), if on.is_classic() { 2 } else { 1 }, "{revoked:?}");
    // Whatever is done with what stays, or with the others, gives nothing away.
    let kept: Vec<_> = [at(&topic, 0), at(&topic, 1)].into_iter().filter(|at| !revoked.contains(at)).collect();
    first.hold(&revoked).expect("held");
    first.hold(&kept).expect("held");
    first.start(&kept.iter().map(|at| (at.clone(), 1)).collect::<Vec<_>>()).expect("started");
    first.pause(&kept).expect("paused");
    first.resume(&kept).expect("resumed");
    (0..50).for_each(|_| assert_eq!(poll_second(), None, "the first has released nothing"));
    let positions: Vec<_> = revoked.iter().map(|at| (at.clone(), 2, "")).collect();
    commit(&mut first, &positions).expect("it still has them");
    first.release(&revoked).expect("released");
    // Of what stays, since it was started. It may come before the second gets anything.
    let mut stayed = Vec::new();
    let mut poll_first = |stayed: &mut Vec<i64>| match first.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
        Event::Assigned(partitions) => resume_from_committed(&mut first, &partitions),
        Event::Records(fetched) if kept.contains(&fetched.from) => stayed.extend(fetched.offsets),
        _ => {}
    };
    let mut gained = until("the second gets some", || {
        poll_first(&mut stayed);
        poll_second()
    });
    gained.sort();
    let expected =
        gained.iter().map(|at| revoked.contains(at).then(|| Position { offset: 2, metadata: String::new() })).collect::<Vec<_>>();
    assert_eq!(second.committed(&gained).expect("positions"), expected);
    resume_from_committed(&mut second, &gained);
    let (from, offsets, batch) = super::members::next_records(&mut second);
    assert!(gained.contains(&from));
    assert_eq!((offsets, values(&batch)), (vec![2], vec!["2".to_owned()]));
    // What stayed goes on where it was started.
    if !kept.is_empty() {
        until("what stayed goes on", || {
            poll_first(&mut stayed);
            (stayed.last() == Some(&2)).then_some(())
        });
        assert_eq!(stayed, [1, 2]);
    }
}

fn a_member_leaves_in_the_midst_of_a_rebalance(on: &On) {
    let log = on.log();
    let topic = topic(&log, "left", 1);
    let group = unique("group");
    let mut first = log.member(&membership(&group, "host.B", &[&topic])).expect("a member");
    super::members::assigned(&mut first);
    // `range` goes by names: this one's comes first.
    let mut second = log.member(&membership(&group, "host.A", &[&topic])).expect("a member");
    let mut gained = BTreeSet::new();
    let mut poll_second = || {
        if let Event::Assigned(partitions) = second.poll(LIMIT, Duration::from_millis(20)).expect("a poll") {
            gained.extend(partitions);
        }
        gained.len()
    };
    until("a revocation", || {
        poll_second();
        matches!(first.poll(LIMIT, Duration::from_millis(20)).expect("a poll"), Event::Revoked { .. }).then_some(())
    });
    // Told of all that it has, and it has not released it.
    let (done, left) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(first.leave()));
    until("the first leaves", || left.recv_timeout(Duration::from_millis(100)).ok()).expect("left");
    until("the second has all", || (poll_second() == 1).then_some(()));
}

/// The end of a transaction is passed without a record that could be handed over.
fn what_was_passed_may_be_deleted_before_the_others_move(on: &On) {
    let log = on.log();
    let (input, other) = (topic(&log, "passed", 2), topic(&log, "other", 1));
    let mut writer = log.member(&membership(&unique("group"), "host.0", &[&other])).expect("a member");
    super::members::assigned(&mut writer);
    writer.append(&at(&input, 0), &records(["a"])).expect("appended");
    commit(&mut writer, &[(at(&other, 0), 0, "")]).expect("committed");
    let mut member = log.member(&membership(&unique("group"), "host.0", &[&input])).expect("a member");
    super::members::assigned(&mut member);
    until("the end behind the transaction", || {
        matches!(member.poll(LIMIT, Duration::from_millis(20)).expect("a poll"), Event::End { at, offset: 2 } if at.partition == 0)
            .then_some(())
    });
    commit(&mut member, &[(at(&input, 0), 2, "")]).expect("committed");
    log.delete_before(&[(at(&input, 0), 2)]).expect("deleted");
    member.start(&[(at(&input, 1), 0)]).expect("started");
    log.produce(&input, Some(0), &records(["b"])).expect("produced");
    assert_eq!(super::members::next_records(&mut member).1, [2]);
}

/// A stop of all hosts, another setting, a start.
#[test]
fn a_group_changes_its_protocol_and_back_and_keeps_its_positions() {
    let Some(classic) = On::new("classic") else { return };
    let consumer = On { protocol: "consumer", ..classic.clone() };
    let log = classic.log();
    let topic = topic(&log, "changed", 2);
    let all = [at(&topic, 0), at(&topic, 1)];
    let group = unique("group");
    let name = membership(&group, "host.0", &[&topic]);
    for (round, on) in (1..).zip([&classic, &consumer, &classic, &consumer]) {
        let log = on.log();
        let mut member = log.member(&name).expect("a member");
        let mut told = BTreeSet::new();
        let partitions = until("an assignment", || match member.poll(LIMIT, Duration::from_millis(20)) {
            Ok(Event::Assigned(mut partitions)) => {
                partitions.sort();
                Some(partitions)
            }
            Ok(_) => None,
            // The session of the member of the other protocol is not over yet.
            Err(error) => {
                assert_eq!(error.remedy, Remedy::Wait, "{error}");
                told.insert(error.message);
                member = log.member(&name).expect("a member");
                None
            }
        });
        assert_eq!(partitions, all);
        let found: Vec<_> =
            member.committed(&all).expect("positions").into_iter().map(|position| position.map_or(0, |at| at.offset)).collect();
        assert_eq!(found, [round - 1, 0], "round {round}, {told:?}");
        member.start(&[(all[0].clone(), 0), (all[1].clone(), 0)]).expect("started");
        commit(&mut member, &[(all[0].clone(), round, "")]).expect("committed");
        member.leave().expect("left");
    }
}
