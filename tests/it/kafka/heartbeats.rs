//! What the brokers tell members by heartbeats, when they are slow (consumer protocol).

use super::members::{assigned, membership};
use super::{LIMIT, On, records, topic, until};
use crate::cluster::{Cluster, unique};
use millstream::io::{Event, Log, Member, Membership, Remedy, TopicPartition};
use millstream::log::kafka::KafkaLog;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the broker hangs: the client waits for an answer as long as from one heartbeat to the next, 500 ms here, looks each second, and drops what comes
/// after that.
const HANGS: Duration = Duration::from_millis(2500);
/// So long after a partition is released the broker has heard of it, and in most rounds has not told it to the other member yet.
const HEARD: Duration = Duration::from_millis(60);
const ROUNDS: usize = 3;

/// A member that joins anew when it is told to.
struct Joining<'a> {
    log: &'a KafkaLog,
    membership: Membership,
    member: Box<dyn Member>,
    owned: BTreeSet<TopicPartition>,
    found: BTreeSet<TopicPartition>,
    /// So often an answer came too late.
    late: usize,
}

impl<'a> Joining<'a> {
    fn new(log: &'a KafkaLog, membership: Membership) -> Self {
        let member = log.member(&membership).expect("a member");
        Self { log, membership, member, owned: BTreeSet::new(), found: BTreeSet::new(), late: 0 }
    }

    fn turn(&mut self) {
        match self.member.poll(LIMIT, Duration::from_millis(10)) {
            Ok(Event::Assigned(partitions)) => {
                self.member.start(&partitions.iter().map(|at| (at.clone(), 0)).collect::<Vec<_>>()).expect("started");
                self.owned.extend(partitions);
            }
            Ok(Event::Revoked { partitions, .. }) => {
                self.owned.retain(|at| !partitions.contains(at));
                self.member.release(&partitions).expect("released");
            }
            Ok(Event::Records(fetched)) => {
                assert!(self.owned.contains(&fetched.from), "records of {}, which it has not", fetched.from);
                self.found.insert(fetched.from);
            }
            Ok(Event::End { .. } | Event::Idle) => {}
            Err(error) => {
                assert!(error.remedy == Remedy::Indefinite && error.message.contains("heartbeat"), "{error}");
                self.late += 1;
                self.member.abandon();
                self.owned.clear();
                self.member = self.log.member(&self.membership).expect("a member in its place");
            }
        }
    }
}

/// That a partition is free is told by one answer only, to a member that has been in the group for a while.
#[test]
fn what_an_answer_said_that_came_too_late_is_not_lost() {
    let Some(mut cluster) = Cluster::own() else { return };
    let on = On { brokers: cluster.brokers.clone(), protocol: "consumer" };
    let log = &on.log();
    let mut late = 0;
    for _ in 0..ROUNDS {
        let topic = topic(log, "late", 3);
        for partition in 0..3 {
            log.produce(&topic, Some(partition), &records(["a"])).expect("produced");
        }
        let group = unique("group");
        let join = |name: &str| Joining::new(log, membership(&group, name, &[&topic]));
        let mut first = join("host.0");
        first.owned.extend(assigned(&mut first.member));
        let mut second = join("host.1");
        until("the second has one", || {
            first.turn();
            second.turn();
            (first.owned.len() == 2 && second.owned.len() == 1).then_some(())
        });
        // `range` goes by names: the second gives its partition to the third and gets one of the first, which keeps it for now.
        let mut third = join("host.2");
        let mut revoked = None;
        until("the second waits for the first", || {
            second.turn();
            third.turn();
            match first.member.poll(LIMIT, Duration::from_millis(10)).expect("a poll") {
                Event::Revoked { partitions, .. } => revoked = Some(partitions),
                Event::Assigned(partitions) => panic!("{partitions:?} were assigned"),
                _ => {}
            }
            (revoked.is_some() && second.owned.is_empty() && third.owned.len() == 1).then_some(())
        });
        let revoked = revoked.expect("a revocation");
        first.owned.retain(|at| !revoked.contains(at));
        first.member.release(&revoked).expect("released");
        let released = Instant::now();
        while released.elapsed() < HEARD {
            first.turn();
        }
        cluster.halt();
        let halted = Instant::now();
        let mut members = [first, second, third];
        while halted.elapsed() < HANGS {
            members.iter_mut().for_each(Joining::turn);
        }
        cluster.go_on();
        until("each has a partition", || {
            members.iter_mut().for_each(Joining::turn);
            let owned: BTreeSet<_> = members.iter().flat_map(|joining| &joining.owned).collect();
            (owned.len() == 3 && members.iter().all(|joining| joining.owned.len() == 1)).then_some(())
        });
        // Started anew, each reads it.
        for joining in &mut members {
            joining.found.clear();
            let starts: Vec<_> = joining.owned.iter().map(|at| (at.clone(), 0)).collect();
            joining.member.start(&starts).expect("started");
        }
        until("the records of all", || {
            members.iter_mut().for_each(Joining::turn);
            let found: BTreeSet<_> = members.iter().flat_map(|joining| &joining.found).cloned().collect();
            (found.len() == 3).then_some(())
        });
        late += members.iter().map(|joining| joining.late).sum::<usize>();
    }
    assert!(late > 0, "no answer came too late");
}
