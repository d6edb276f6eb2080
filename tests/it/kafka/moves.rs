//! Partitions are started anew, paused, resumed and held at random, while members join: each goes on at its place, and none stands still.

use super::members::membership;
use super::{On, at, both_protocols, records, topic, until};
use crate::cluster::unique;
use crate::pipelines::Random;
use millstream::io::{Event, FetchLimit, Log, Member, TopicPartition};
use std::collections::BTreeMap;
use std::time::Duration;

both_protocols!(partitions_go_on_however_they_are_moved);

const PARTITIONS: i32 = 4;
/// In each partition.
const RECORDS: i64 = 200;
/// Members join one after the other.
const MEMBERS: usize = 3;
/// For each number of members: so often all must go on to their ends.
const ROUNDS: usize = 3;
/// Of random calls before that.
const CALLS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fetched,
    Paused,
    Held,
}

struct Moving {
    member: Box<dyn Member>,
    /// What it has, with the offset that is to come next.
    owned: BTreeMap<TopicPartition, (State, i64)>,
}

impl Moving {
    fn some(&self, random: &mut Random) -> Vec<TopicPartition> {
        self.owned.keys().filter(|_| random.below(2) == 0).cloned().collect()
    }

    fn turn(&mut self, random: &mut Random) {
        let limit = FetchLimit { rows: 1 + random.below(40) as usize, bytes: 1 << 20 };
        match self.member.poll(limit, Duration::from_millis(random.below(20))).expect("a poll") {
            Event::Assigned(partitions) => {
                let starts: Vec<_> = partitions.into_iter().map(|at| (at, random.below(RECORDS as u64) as i64)).collect();
                self.start(&starts);
            }
            Event::Revoked { partitions, lost } => {
                assert!(!lost, "{partitions:?} were lost");
                // The worker may do this while it gives others up.
                self.call(random);
                self.owned.retain(|at, _| !partitions.contains(at));
                self.member.release(&partitions).expect("released");
            }
            Event::Records(fetched) => {
                let (state, next) =
                    self.owned.get_mut(&fetched.from).unwrap_or_else(|| panic!("records of {}, which it has not", fetched.from));
                assert_eq!(*state, State::Fetched, "{}", fetched.from);
                let expected: Vec<i64> = (*next..*next + fetched.offsets.len() as i64).collect();
                assert_eq!(fetched.offsets, expected, "{}", fetched.from);
                *next += expected.len() as i64;
            }
            Event::End { at, offset } => {
                assert_eq!(self.owned[&at], (State::Fetched, offset), "{at}: the end comes behind the last record")
            }
            Event::Idle => {}
        }
    }

    fn start(&mut self, starts: &[(TopicPartition, i64)]) {
        self.owned.extend(starts.iter().map(|(at, next)| (at.clone(), (State::Fetched, *next))));
        self.member.start(starts).expect("started");
    }

    /// One random call.
    fn call(&mut self, random: &mut Random) {
        let some = self.some(random);
        match random.below(4) {
            0 => {
                let starts: Vec<_> = some.into_iter().map(|at| (at, random.below(RECORDS as u64) as i64)).collect();
                self.start(&starts);
            }
            1 => {
                self.set(&some, State::Fetched, State::Paused);
                self.member.pause(&some).expect("paused");
            }
            2 => {
                self.set(&some, State::Paused, State::Fetched);
                self.member.resume(&some).expect("resumed");
            }
            _ => {
                self.set(&some, State::Fetched, State::Held);
                self.set(&some, State::Paused, State::Held);
                self.member.hold(&some).expect("held");
            }
        }
    }

    fn set(&mut self, partitions: &[TopicPartition], from: State, to: State) {
        for (at, (state, _)) in &mut self.owned {
            if partitions.contains(at) && *state == from {
                *state = to;
            }
        }
    }

    /// Ends all pauses and holds.
    fn let_go_on(&mut self, random: &mut Random) {
        let of = |moving: &Self, state: State| {
            moving.owned.iter().filter(|(_, (its, _))| *its == state).map(|(at, _)| at.clone()).collect::<Vec<_>>()
        };
        let paused = of(self, State::Paused);
        self.set(&paused, State::Paused, State::Fetched);
        self.member.resume(&paused).expect("resumed");
        let held: Vec<_> = of(self, State::Held).into_iter().map(|at| (at, random.below(RECORDS as u64) as i64)).collect();
        // A start of nothing moves all others to their places anew.
        if !held.is_empty() {
            self.start(&held);
        }
    }
}

fn partitions_go_on_however_they_are_moved(on: &On) {
    // A fetch that waits for records holds the next one of all partitions up.
    let log = on.log_with("fetch.wait.max.ms = 20\n");
    let topic = topic(&log, "moved", PARTITIONS);
    let group = unique("group");
    let values: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    for partition in 0..PARTITIONS {
        log.produce(&topic, Some(partition), &records(values.iter().map(String::as_str))).expect("produced");
    }
    let random = &mut Random::new();
    let mut members: Vec<Moving> = Vec::new();
    for number in 0..MEMBERS {
        let member = log.member(&membership(&group, &format!("host.{number}"), &[&topic])).expect("a member");
        members.push(Moving { member, owned: BTreeMap::new() });
        for _ in 0..ROUNDS {
            for _ in 0..CALLS {
                for moving in &mut members {
                    moving.call(random);
                    (0..random.below(4)).for_each(|_| moving.turn(random));
                }
            }
            until("every partition goes on to its end", || {
                for moving in &mut members {
                    moving.turn(random);
                    moving.let_go_on(random);
                }
                let owned = || members.iter().flat_map(|moving| &moving.owned);
                // None is left out, and none is had by two.
                let all = (0..PARTITIONS).all(|partition| owned().filter(|(its, _)| **its == at(&topic, partition)).count() == 1);
                let busy = members.iter().all(|moving| !moving.owned.is_empty());
                (all && busy && owned().all(|(_, place)| *place == (State::Fetched, RECORDS))).then_some(())
            });
        }
    }
}
