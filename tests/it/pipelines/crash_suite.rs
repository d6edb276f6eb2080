//! Exactly once on a real Kafka, whatever befalls hosts and brokers: two hosts run a pipeline with a list for each key, a repartition and windows, while they
//! are killed, halted and bereft of their state, and their brokers too. In the end everything that came out is held against a model.
//!
//! `short` does everything once. `long` goes on for `MILLSTREAM_CRASH_MINUTES`:
//! `cargo test -p millstream --test it crash_suite::long -- --ignored --nocapture`. With `MILLSTREAM_CRASH_GROUP_PROTOCOL=consumer` both run by the consumer
//! group protocol; what that protocol does otherwise, `consumer_protocol` does in each run of the tests.

// The suite of swaps uses them too.
pub mod checker;
pub mod host;
pub mod topics;

use super::state::copy;
use super::{Place, Random, success};
use crate::cluster::Cluster;
use checker::Verdict;
use host::{Host, SmallDisk};
use millstream::io::{Log, TopicPartition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use topics::{Feed, PARTITIONS, Sender};

/// What a host does here: small batches and many commits.
const RUN: [&str; 6] = ["run", "pipeline.yaml", "--commit-interval", "20", "--batch-rows", "50"];

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { seq: int, id: int, group: text, time: int } }
stages:
  - { name: list, from: in, plugin: ./list-append.wasm }
  - { name: by-group, from: in, plugin: aggregate, with: { group_by: [group], compute: { count: count(), total: sum(id) } } }
  - name: by-window
    from: in
    plugin: aggregate
    with: { window: { tumbling: 2s, grace: 1s }, compute: { count: count(), total: sum(seq), list: 'collect(seq, 100000)' } }
sinks:
  - { from: list, topic: NAME.lists }
  - { from: by-group, topic: NAME.groups }
  - { from: by-window, topic: NAME.windows }
";

/// As short as Kafka allows by default.
const SESSION: Duration = Duration::from_secs(6);
const SETTINGS: &str = "\
[kafka.consumer]
session.timeout.ms = 6000
heartbeat.interval.ms = 500
[kafka.producer]
transaction.timeout.ms = 6000
";
/// The same by the consumer group protocol, where the brokers decide what a session is: see `server_properties`.
const SETTINGS_CONSUMER: &str = "\
[kafka.consumer]
group.protocol = \"consumer\"
[kafka.producer]
transaction.timeout.ms = 6000
";

const OUTPUTS: [&str; 3] = ["NAME.lists", "NAME.groups", "NAME.windows"];
const OWN: [&str; 4] = ["NAME.list.changelog", "NAME.by-group.changelog", "NAME.by-window.changelog", "NAME.by-group.repartition"];

/// Longest that records may not come out after a fault.
const PATIENCE: Duration = Duration::from_secs(90);

/// What befalls hosts and brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A host is killed at any moment.
    Kill,
    /// Both hosts are killed, each at a point of its commits.
    KillBoth(&'static str, &'static str),
    /// Another host joins; both are killed while they give partitions up: at making the local copies whole, and when all is committed.
    KillAtRevoke,
    /// A host's state is deleted; it is killed while it restores it.
    StateLost,
    /// A copy of the state is put back that is older than what was committed since.
    StateOld,
    /// A host is halted, at any moment or at a point of a commit, until others have its partitions; then it goes on.
    Zombie,
    /// A host joins, and leaves.
    Rebalance,
    BrokerHalts,
    BrokerDies,
    DiskFull,
}

const ALL: [Fault; 11] = [
    Fault::Kill,
    Fault::KillBoth("appended", "positions-sent"),
    Fault::KillBoth("committed", "applied"),
    Fault::KillAtRevoke,
    Fault::StateLost,
    Fault::StateOld,
    Fault::Zombie,
    Fault::Rebalance,
    Fault::BrokerHalts,
    Fault::BrokerDies,
    Fault::DiskFull,
];

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Kill => "kill -9 at any moment".to_owned(),
            Self::KillBoth(one, other) => format!("kill -9 at `{one}` and `{other}`"),
            Self::KillAtRevoke => "kill -9 at `checkpointing` and `revoking`".to_owned(),
            Self::StateLost => "local state deleted, kill -9 at `restoring`".to_owned(),
            Self::StateOld => "old local state put back".to_owned(),
            Self::Zombie => "a host halts beyond its session (zombie)".to_owned(),
            Self::Rebalance => "a host joins and leaves".to_owned(),
            Self::BrokerHalts => "the broker hangs".to_owned(),
            Self::BrokerDies => "the broker is killed".to_owned(),
            Self::DiskFull => "disk full".to_owned(),
        }
    }
}

/// How often something was done, and the longest time until all partitions went on.
#[derive(Default)]
struct Done {
    times: u32,
    longest: Duration,
}

struct Suite {
    hosts: Vec<Host>,
    /// Under the second host; it is unmounted when no host runs any more.
    disk: Option<SmallDisk>,
    cluster: Cluster,
    place: Place,
    log: Arc<dyn Log>,
    random: Random,
    guests: usize,
    done: BTreeMap<String, Done>,
    /// What went wrong on the way.
    trouble: Vec<String>,
}

impl Suite {
    /// None where there can be no cluster, which was said.
    fn new(settings: &str) -> Option<(Self, Sender)> {
        let cluster = Cluster::own()?;
        let place = Place::on(&cluster);
        place.write(MANIFEST);
        std::fs::write(place.path().join("list-append.wasm"), crate::guests::list_append()).unwrap();
        std::fs::write(place.path().join("millstream.toml"), settings).unwrap();
        for topic in ["NAME.in"].iter().chain(&OUTPUTS) {
            place.topic(topic, &PARTITIONS.to_string());
        }
        let mut random = Random::new();
        let sender = Sender::new(&place, &cluster.brokers, Random(random.below(u64::MAX) | 1));
        let hosts: Vec<Host> = ["a", "b"].iter().map(|name| Host::new(&place, name, &RUN)).collect();
        let disk = SmallDisk::on(&hosts[1].data);
        if disk.is_none() {
            eprintln!("NOT TESTED: a full disk, since no small file system can be mounted here (that needs root)");
        }
        let log = place.log();
        let (done, trouble) = (BTreeMap::new(), Vec::new());
        Some((Self { hosts, disk, cluster, place, log, random, guests: 0, done, trouble }, sender))
    }

    fn at(&self, topic: &str) -> Vec<TopicPartition> {
        let topic = self.place.named(topic);
        (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect()
    }

    /// How far readers of what is committed can read: every partition of the lists, and all groups together. None while no broker answers.
    fn ends(&self) -> Option<Vec<i64>> {
        let ends =
            |topic: &str| self.at(topic).iter().map(|at| self.log.bounds(at).ok().map(|bounds| bounds.end)).collect::<Option<Vec<_>>>();
        let mut all = ends("NAME.lists")?;
        all.push(ends("NAME.groups")?.iter().sum());
        Some(all)
    }

    /// Waits until records of every partition come out that were not out when this was called.
    fn goes_on(&mut self, after: &str) -> Duration {
        self.progress(after, false)
    }

    /// The same. `armed`: or until a host dies, which is to.
    fn progress(&mut self, after: &str, armed: bool) -> Duration {
        let started = Instant::now();
        let mut before = None;
        loop {
            if armed && self.hosts.iter_mut().any(Host::is_dead) {
                return started.elapsed();
            }
            if !armed {
                self.look_after_hosts(after);
            }
            if let Some(now) = self.ends() {
                let before = before.get_or_insert_with(|| now.clone());
                if before.iter().zip(&now).all(|(before, now)| now > before) {
                    return started.elapsed();
                }
            }
            if started.elapsed() > PATIENCE {
                for host in &self.hosts {
                    eprintln!("{} said:\n{}", host.name, host.said());
                }
                panic!("after {after}: no records come out for {PATIENCE:?}: {before:?}, {:?}", self.ends());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// No host may end unless it is made to.
    fn look_after_hosts(&mut self, after: &str) {
        for host in &mut self.hosts {
            if let Some(status) = host.ended() {
                // A start needs its brokers, as the documents say; one that was under way when they went is made again, as by whoever looks after it.
                if host.found_no_broker() {
                    host.start(&self.place, None);
                    continue;
                }
                self.trouble.push(format!("after {after}: host {} has ended by itself ({status}):\n{}", host.name, host.said()));
                host.start(&self.place, None);
            }
        }
    }

    /// Waits until a host has met its end at a point.
    fn awaits_death(&mut self, host: usize, fault: &str) {
        use std::os::unix::process::ExitStatusExt;
        let host = &mut self.hosts[host];
        match host.end_within(PATIENCE) {
            Some(status) if status.signal() == Some(9) => {}
            other => {
                self.trouble.push(format!("{fault}: host {} did not die of it ({other:?}):\n{}", host.name, host.said()));
                host.kill();
            }
        }
    }

    /// A host that is halted, until its session is over and others have its partitions.
    fn others_take_over(&mut self, host: usize) {
        let halted = Instant::now();
        while halted.elapsed() < SESSION + Duration::from_secs(1) {
            self.goes_on("a halt of a host");
        }
        self.hosts[host].go_on();
    }

    /// Another host joins the group.
    fn joins(&mut self) -> Host {
        self.guests += 1;
        let mut guest = Host::new(&self.place, &format!("guest-{}", self.guests), &RUN);
        guest.start(&self.place, None);
        guest
    }

    fn leaves(&mut self, mut guest: Host) {
        let status = guest.stop();
        if !status.success() {
            self.trouble.push(format!("host {} did not stop well ({status}):\n{}", guest.name, guest.said()));
        }
    }

    /// A pause in milliseconds.
    fn pause(&mut self, least: u64, most: u64) {
        std::thread::sleep(Duration::from_millis(least + self.random.below(most - least + 1)));
    }

    fn inject(&mut self, fault: Fault, feed: &Feed) {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        let name = fault.name();
        self.pause(0, 300);
        match fault {
            Fault::Kill => {
                self.hosts[host].kill();
                self.hosts[host].start(&self.place, None);
            }
            Fault::KillBoth(one, other) => {
                let points = [(host, one), (1 - host, other)].map(|(host, point)| (host, format!("{point}:{}", 1 + self.random.below(20))));
                for (host, point) in &points {
                    self.hosts[*host].kill();
                    self.hosts[*host].start(&self.place, Some(point));
                }
                for (host, point) in &points {
                    self.awaits_death(*host, point);
                    self.hosts[*host].start(&self.place, None);
                }
            }
            Fault::KillAtRevoke => {
                let points = [(host, "checkpointing:1"), (1 - host, "revoking:1")];
                for (host, point) in points {
                    self.hosts[host].kill();
                    self.hosts[host].start_watched(&self.place, point);
                }
                // A host that has nothing when the guest comes has nothing to give up.
                for (host, point) in points {
                    let host = &mut self.hosts[host];
                    super::until(&format!("{} has partitions, or has died at `{point}`", host.name), || {
                        host.is_dead() || host.has_partitions()
                    });
                }
                self.progress(&name, true);
                let guest = self.joins();
                for (host, point) in points {
                    self.awaits_death(host, point);
                    self.hosts[host].start(&self.place, None);
                }
                self.goes_on(&name);
                self.leaves(guest);
            }
            Fault::Zombie => {
                let points = [None, Some("appended"), Some("positions-sent"), Some("committed")];
                match points[self.random.below(points.len() as u64) as usize] {
                    None => self.hosts[host].halt(),
                    Some(point) => {
                        self.hosts[host].kill();
                        let nth = 1 + self.random.below(20);
                        self.hosts[host].start(&self.place, Some(&format!("{point}:{nth}:stop")));
                        super::until("the host halts", || self.hosts[host].halted());
                    }
                }
                self.others_take_over(host);
            }
            Fault::Rebalance => {
                let guest = self.joins();
                self.goes_on(&name);
                self.pause(0, 2000);
                self.leaves(guest);
            }
            Fault::BrokerHalts => {
                self.cluster.halt();
                self.pause(500, 5000);
                self.cluster.go_on();
            }
            Fault::BrokerDies => {
                feed.hold();
                self.pause(0, 100);
                self.cluster.kill();
                self.pause(0, 3000);
                self.cluster.restart();
                feed.go_on();
            }
            Fault::StateLost => {
                self.hosts[host].kill();
                std::fs::remove_dir_all(self.hosts[host].state()).unwrap();
                let fault = format!("restoring:{}", 1 + self.random.below(2));
                self.hosts[host].start(&self.place, Some(&fault));
                self.awaits_death(host, &fault);
                self.hosts[host].start(&self.place, None);
            }
            Fault::StateOld => {
                let old = tempfile::tempdir().unwrap();
                self.hosts[host].kill();
                copy(&self.hosts[host].state(), old.path());
                self.hosts[host].start(&self.place, None);
                self.goes_on(&name);
                // Ended well, so that the copy that is taken away is whole.
                let status = self.hosts[host].stop();
                assert!(status.success(), "{status}: {}", self.hosts[host].said());
                std::fs::remove_dir_all(self.hosts[host].state()).unwrap();
                copy(old.path(), &self.hosts[host].state());
                self.hosts[host].start(&self.place, None);
            }
            Fault::DiskFull => {
                let Some(disk) = &self.disk else { return };
                disk.fill();
                let host = &mut self.hosts[1];
                // At a checkpoint while it runs, or at the last one.
                let patience = if self.random.below(2) == 0 { Duration::ZERO } else { Duration::from_secs(12) };
                let status = host.end_within(patience).unwrap_or_else(|| host.stop());
                // What little it had to write may have found room in what the files hold already.
                if !status.success() && !host.said().contains("is the disk full?") {
                    self.trouble.push(format!("a full disk was not told ({status}):\n{}", host.said()));
                }
                eprintln!("a full disk: {status}");
                disk.empty();
                host.start(&self.place, None);
            }
        }
        let took = self.goes_on(&name);
        eprintln!("{name}: goes on after {took:.1?}");
        let done = self.done.entry(name).or_default();
        done.times += 1;
        done.longest = done.longest.max(took);
    }

    /// Until all input is processed; then every host is told to stop.
    fn settle(&mut self) {
        let at = self.at("NAME.in");
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look_after_hosts("the end of the input");
            let committed = self.log.committed(&self.place.named("NAME"), &at).unwrap();
            let behind = at
                .iter()
                .zip(committed)
                .filter(|(at, committed)| committed.as_ref().is_none_or(|position| position.offset < self.log.bounds(at).unwrap().end));
            if behind.count() == 0 {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "the input is not processed to its end:\n{}\n{}",
                self.hosts[0].said(),
                self.hosts[1].said()
            );
        }
        for host in &mut self.hosts {
            let status = host.stop();
            if !status.success() {
                self.trouble.push(format!("host {} did not stop well ({status}):\n{}", host.name, host.said()));
            }
        }
    }

    /// Runs a host to the end of what there is.
    fn to_the_end(&self, data: &std::path::Path) {
        let mut run = self.place.command(&["run", "pipeline.yaml", "--until-end", "--output", "json"]);
        let report: serde_json::Value = serde_json::from_str(success(&run.env("MILLSTREAM_DATA", data).output().unwrap()).trim()).unwrap();
        assert!(report["records"].as_u64().unwrap() >= 100, "nothing was left for a run to the end: {report}");
    }

    /// Looks at everything, at rest.
    fn check(&mut self, mut sender: Sender) -> Verdict {
        // A host that has nothing restores all state from the changelogs; then one that has its own goes on behind it. What each makes of further input
        // shows the state that it found.
        sender.one_each();
        self.to_the_end(&self.place.path().join("hosts/fresh"));
        sender.one_each();
        self.to_the_end(&self.hosts[0].data);

        let found = topics::found(&self.place, &self.cluster.brokers);
        let mut verdict = checker::check(&found);
        if found.input.concat().len() as i64 != sender.sent {
            let hidden = topics::uncommitted(&self.place, &self.cluster.brokers, "NAME.in");
            verdict.violation(format!(
                "{} records were sent, {} are there, {hidden} with aborted ones",
                sender.sent,
                found.input.concat().len()
            ));
        }
        for topic in ["NAME.in"].iter().chain(&OUTPUTS).chain(&OWN) {
            for at in self.at(topic) {
                let (stable, high) = (self.log.bounds(&at).unwrap().end, self.log.high_watermark(&at).unwrap());
                if stable != high {
                    verdict.violation(format!("{at}: something is left open: the last stable offset is {stable}, the end {high}"));
                }
            }
        }
        for topic in ["NAME.in", "NAME.by-group.repartition"] {
            let committed = self.log.committed(&self.place.named("NAME"), &self.at(topic)).unwrap();
            let ends = topics::last_offsets(&self.place, &self.cluster.brokers, topic);
            for (at, (committed, end)) in self.at(topic).iter().zip(committed.iter().zip(ends)) {
                let committed = committed.as_ref().map_or(0, |position| position.offset);
                if committed < end {
                    verdict.violation(format!("{at}: {committed} is committed, there are records up to {end}"));
                }
            }
        }
        // Of a pipeline that was never torn in the midst of a transaction there is nothing to show.
        let aborted = topics::uncommitted(&self.place, &self.cluster.brokers, "NAME.lists") - found.appended.len() as u64;
        eprintln!("{aborted} records of aborted transactions lie in NAME.lists, unseen by readers of what is committed");
        if aborted == 0 {
            verdict.violation("no fault has hit an open transaction: the suite shows nothing".to_owned());
        }
        for trouble in self.trouble.drain(..) {
            verdict.violation(trouble);
        }
        verdict
    }

    /// Starts the hosts, does what is to be done to them, and checks.
    fn run(mut self, sender: Sender, mut faults: impl FnMut(&mut Random) -> Option<Fault>) {
        let started = Instant::now();
        let feed = sender.start();
        for host in &mut self.hosts {
            host.start(&self.place, None);
        }
        self.goes_on("the start");
        while let Some(fault) = faults(&mut self.random) {
            self.inject(fault, &feed);
        }
        let sender = feed.stop();
        self.settle();
        let records = sender.sent;
        let verdict = self.check(sender);
        self.report(records, started.elapsed(), &verdict);
        assert_eq!(verdict.violations, 0, "{:#?}", verdict.told);
    }

    fn report(&self, records: i64, took: Duration, verdict: &Verdict) {
        eprintln!("{:<45} {:>5}  longest time until every partition went on", "fault", "times");
        for (name, done) in &self.done {
            eprintln!("{name:<45} {:>5}  {:.1?}", done.times, done.longest);
        }
        let faults: u32 = self.done.values().map(|done| done.times).sum();
        eprintln!("{faults} faults in {took:.0?}; {records} records fed, {} checked; {} violations", verdict.checked, verdict.violations);
        for told in &verdict.told {
            eprintln!("VIOLATION: {told}");
        }
    }
}

/// All faults, or those that `MILLSTREAM_CRASH_ONLY` names a part of.
fn wanted() -> Vec<Fault> {
    let only = std::env::var("MILLSTREAM_CRASH_ONLY").unwrap_or_default();
    ALL.into_iter().filter(|fault| fault.name().contains(&only)).collect()
}

/// By the group protocol that `MILLSTREAM_CRASH_GROUP_PROTOCOL` names; without it the classic one.
fn wanted_settings() -> &'static str {
    match std::env::var("MILLSTREAM_CRASH_GROUP_PROTOCOL").as_deref() {
        Err(_) | Ok("classic") => SETTINGS,
        Ok("consumer") => SETTINGS_CONSUMER,
        Ok(other) => panic!("MILLSTREAM_CRASH_GROUP_PROTOCOL is `classic` or `consumer`, not `{other}`"),
    }
}

/// What the consumer protocol does otherwise: partitions that move while others stay, and sessions that only the brokers end.
#[test]
fn consumer_protocol() {
    let Some((suite, sender)) = Suite::new(SETTINGS_CONSUMER) else { return };
    let mut faults = vec![Fault::Zombie, Fault::Rebalance, Fault::Kill, Fault::Rebalance];
    suite.run(sender, move |_| faults.pop());
}

#[test]
fn short() {
    let Some((mut suite, sender)) = Suite::new(wanted_settings()) else { return };
    let mut faults = wanted();
    for at in (1..faults.len()).rev() {
        faults.swap(at, suite.random.below(at as u64 + 1) as usize);
    }
    suite.run(sender, move |_| faults.pop());
}

#[test]
#[ignore = "goes on for MILLSTREAM_CRASH_MINUTES (30)"]
fn long() {
    let Some((suite, sender)) = Suite::new(wanted_settings()) else { return };
    let minutes: u64 = std::env::var("MILLSTREAM_CRASH_MINUTES").map_or(30, |text| text.parse().expect("a number of minutes"));
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let faults = wanted();
    suite.run(sender, move |random| (Instant::now() < end).then(|| faults[random.below(faults.len() as u64) as usize]));
}
