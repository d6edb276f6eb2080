//! Swaps on a real Kafka, one after the other under load: two hosts of a fleet run a keyed list-append and another one behind a repartition,
//! while generations take each other's place, at once or after a trial, and hosts are killed, leave and join. Every output says by which manifest and by
//! which version of the plugin it was made; in the end that is held against the recorded cut-overs, and everything that came out against a model.
//!
//! `short` makes ten swaps, four of them after a trial. `long` makes `MILLSTREAM_SWAPS`:
//! `cargo test -p millstream --test it swap_suite::long -- --ignored --nocapture`.

mod checker;
mod disturbances;
mod topics;
mod trials;

use super::crash_suite::checker::Verdict;
use super::crash_suite::host::Host;
use super::crash_suite::topics::{PARTITIONS, Sender, last_offsets, uncommitted};
use super::{Place, Random, text, until};
use crate::cluster::{Cluster, OFFSETS_PARTITIONS};
use checker::{Content, Stamp};
use disturbances::{DISTURBANCES, DISTURBED, Disturbance};
use millstream::io::{Log, Position, TopicPartition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trials::{ENDS, End, Trial};

const LIST_STAGE: &str = "list";
const GROUP_STAGE: &str = "group-list";
/// By version.
const PLUGINS: [&str; 2] = ["./list-append.wasm", "./list-append-next.wasm"];

/// Both segments write the manifest's number and the version of their plugin.
const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { seq: int, id: int, group: text, time: int } }
stages:
  - { name: stamp, from: in, plugin: map, with: { set: { config: 'CONFIG' } } }
  - { name: list, from: stamp, plugin: LIST }
  - { name: by-group, from: stamp, plugin: map, with: { set: { $key: group } } }
  - { name: group-list, from: by-group, plugin: GROUP }
  - { name: stamp-group, from: group-list, plugin: map, with: { set: { config: 'CONFIG' } } }
SIDE_STAGE
sinks:
  - { from: list, topic: NAME.lists }
  - { from: stamp-group, topic: NAME.groups }
SIDE_SINK
";
/// A store more or less makes hosts drain; what comes of it is not looked at.
const SIDE_STAGE: &str = "  - { name: side, from: stamp, plugin: aggregate, with: { compute: { count: count() } } }";
const SIDE_SINK: &str = "  - { from: side, topic: NAME.side }";

/// Checkpoints are made at the end alone: with each, hosts delete what they have processed from the repartition topic, which is to be read in the end.
const SERVE: [&str; 9] = ["serve", "--fleet", "NAME", "--commit-interval", "50", "--checkpoint-interval", "3600000", "--workers", "2"];
const SETTINGS: &str = "\
[kafka.consumer]
session.timeout.ms = 6000
heartbeat.interval.ms = 500
[kafka.producer]
transaction.timeout.ms = 6000
";
const TOPICS: [&str; 4] = ["NAME.in", "NAME.lists", "NAME.groups", "NAME.side"];
const REPARTITION: &str = "NAME.group-list.repartition";
const OWN: [&str; 3] = [REPARTITION, "NAME.list.changelog", "NAME.group-list.changelog"];

/// Longest that a command, or what it brings about, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a generation takes the place of another. One more way is one more of these: `Suite::begin` says what is called, and `Suite::ended` what must come
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A file with another number, and with any version of each plugin.
    Deploy,
    /// Another plugin for one stage.
    Swap,
    /// To any generation of another content.
    Rollback,
    /// A file with a store more or less: hosts give their tasks up and begin anew.
    Drain,
    /// Tried first.
    Try(Trial),
}

const STEPS: [Step; 10] =
    [Step::Deploy, Step::Swap, Step::Rollback, Step::Swap, Step::Drain, Step::Deploy, Step::Rollback, Step::Swap, Step::Deploy, Step::Swap];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy of another configuration",
            Self::Swap => "swap of a stage's plugin",
            Self::Rollback => "rollback",
            Self::Drain => "deploy with a store more or less",
            Self::Try(trial) => trial.name(),
        }
    }
}

/// How often something was done, and how long its commands took.
#[derive(Default)]
struct Done(Vec<Duration>);

/// What is deployed: what its outputs tell, and whether it has the stage at the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deployed {
    content: Content,
    side: bool,
}

struct Suite {
    hosts: Vec<Host>,
    cluster: Cluster,
    place: Place,
    log: Arc<dyn Log>,
    random: Random,
    /// By generation that was active.
    deployed: BTreeMap<u64, Deployed>,
    /// Canaries that were rolled back.
    tried: BTreeMap<u64, Deployed>,
    /// The number of the last generation, whatever became of it.
    last: u64,
    config: i64,
    guests: usize,
    steps: BTreeMap<&'static str, Done>,
    disturbances: BTreeMap<&'static str, Done>,
    /// Commands that ended before every partition was cut over.
    outstanding: usize,
    verdict: Verdict,
}

impl Suite {
    /// None where there can be no cluster, which was said.
    fn new() -> Option<(Self, Sender)> {
        let cluster = Cluster::own()?;
        let place = Place::on(&cluster);
        for (file, component) in PLUGINS.iter().zip([crate::guests::list_append(), crate::guests::list_append_next()]) {
            std::fs::write(place.path().join(file), component).unwrap();
        }
        std::fs::write(place.path().join("millstream.toml"), SETTINGS).unwrap();
        for topic in TOPICS {
            place.topic(topic, &PARTITIONS.to_string());
        }
        let mut random = Random::new();
        let sender = Sender::new(&place, &cluster.brokers, Random(random.below(u64::MAX) | 1));
        let hosts = ["a", "b"].iter().map(|name| Host::new(&place, name, &SERVE)).collect();
        let suite = Self {
            hosts,
            log: place.log(),
            cluster,
            place,
            random,
            deployed: BTreeMap::new(),
            tried: BTreeMap::new(),
            last: 0,
            config: 0,
            guests: 0,
            steps: BTreeMap::new(),
            disturbances: BTreeMap::new(),
            outstanding: 0,
            verdict: Verdict::default(),
        };
        Some((suite, sender))
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.place.command(&[arguments, &["--fleet", "NAME", "--output", "json"]].concat()).spawn().unwrap()
    }

    /// The newest generation that is active.
    fn active(&self) -> Deployed {
        *self.deployed.values().last().expect("something is deployed")
    }

    /// Generations that are of something else than the active one. The fleet keeps components of the newest 20.
    fn others(&self) -> Vec<u64> {
        let now = self.deployed.values().last();
        self.deployed.iter().rev().take(18).filter(|(_, deployed)| Some(*deployed) != now).map(|(number, _)| *number).collect()
    }

    /// What no deployment was yet.
    fn another(&mut self, side: bool) -> Deployed {
        self.config += 1;
        let mut version = || self.random.below(2) as i64;
        Deployed { content: Content { config: self.config, list: version(), group: version() }, side }
    }

    /// Writes the file of a deployment, with `more` behind.
    fn write_as(&self, Deployed { content, side }: Deployed, more: &str) {
        let plugin = |version: i64| PLUGINS[version as usize];
        let manifest = MANIFEST
            .replace("CONFIG", &content.config.to_string())
            .replace("LIST", plugin(content.list))
            .replace("GROUP", plugin(content.group))
            .replace("SIDE_STAGE", if side { SIDE_STAGE } else { "" })
            .replace("SIDE_SINK", if side { SIDE_SINK } else { "" });
        self.place.write(&(manifest + more));
    }

    /// Calls the command of a step; with what is to be deployed by it.
    fn begin(&mut self, step: Step) -> (Child, Deployed) {
        self.begin_with(step, &self.others(), &["--timeout", "90"])
    }

    /// `to`: generations that a rollback may go to. `how`: further flags.
    fn begin_with(&mut self, step: Step, to: &[u64], how: &[&str]) -> (Child, Deployed) {
        match step {
            Step::Deploy | Step::Drain | Step::Try(_) => {
                let side = self.deployed.values().last().is_some_and(|deployed| deployed.side) != (step == Step::Drain);
                let next = self.another(side);
                self.write_as(next, "");
                let gained = ["--allow", "side=state", "--allow", "side=windows"];
                (self.spawn(&[&["deploy", "pipeline.yaml"][..], how, &gained].concat()), next)
            }
            Step::Swap => {
                let mut next = self.active();
                let (stage, version) = match self.random.below(2) {
                    0 => (LIST_STAGE, &mut next.content.list),
                    _ => (GROUP_STAGE, &mut next.content.group),
                };
                *version = 1 - *version;
                let plugin = PLUGINS[*version as usize];
                (self.spawn(&[&["swap", "NAME", stage, plugin][..], how].concat()), next)
            }
            Step::Rollback => {
                let to = to[self.random.below(to.len() as u64) as usize];
                (self.spawn(&[&["rollback", "NAME", "--to", &to.to_string()][..], how].concat()), self.deployed[&to])
            }
        }
    }

    /// A step's command has ended: its generation runs everywhere.
    fn ended(&mut self, step: Step, next: Deployed, output: &Output) {
        let said = || format!("{}\n{}", text(&output.stdout), text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let Some(generation) = answer["generation"].as_u64().filter(|_| output.status.success()) else {
            panic!("{}: {}\n{}", step.name(), output.status, said());
        };
        if answer["state"] != "running" {
            self.verdict.violation(format!("{}: it does not run: {}", step.name(), said()));
        }
        // Where partitions move from host to host nobody has them for a while: the command says so, and ends.
        if answer["outstanding"].as_array().is_none_or(|outstanding| !outstanding.is_empty()) {
            self.outstanding += 1;
            until("every partition is cut over", || self.cut_over(generation, &(0..PARTITIONS).collect()));
        }
        let class = if self.deployed.values().last().is_some_and(|before| before.side == next.side) { "hot" } else { "drain" };
        if !self.deployed.is_empty() && answer["diff"]["class"] != class {
            self.verdict.violation(format!("{}: not {class}: {}", step.name(), said()));
        }
        self.deployed.insert(generation, next);
        self.last = generation;
    }

    /// Whether it is told of these partitions from which offset on this generation works there.
    fn cut_over(&self, generation: u64, partitions: &BTreeSet<i32>) -> bool {
        let history = self.told(&["history", "NAME"]);
        let all = history["generations"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|one| one["generation"].as_u64() == Some(generation));
        let of = |cut: &&Value| cut["partition"].as_i64().is_some_and(|partition| partitions.contains(&(partition as i32)));
        one.and_then(|one| one["cuts"].as_array()).is_some_and(|cuts| cuts.iter().filter(of).count() == 2 * partitions.len())
    }

    /// What a command says that only looks.
    fn told(&self, arguments: &[&str]) -> Value {
        let output = self.spawn(arguments).wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// One generation takes the place of another, with or without a disturbance.
    fn step(&mut self, mut step: Step, disturbance: Option<Disturbance>) {
        if step == Step::Rollback && self.others().is_empty() {
            step = Step::Deploy;
        }
        let host = self.random.below(self.hosts.len() as u64) as usize;
        let started = Instant::now();
        let guest = match step {
            Step::Try(trial) if disturbance == Some(Disturbance::KillAtCut) => {
                step = Step::Try(trial.cutting_everywhere());
                self.try_out(trial.cutting_everywhere(), disturbance, host)
            }
            Step::Try(trial) => self.try_out(trial, disturbance, host),
            _ => self.replace(step, disturbance, host),
        };
        let took = started.elapsed();
        eprintln!("{:.1?}: {}{}", took, step.name(), disturbance.map(|one| format!("; {}", one.name())).unwrap_or_default());
        let done = match disturbance {
            Some(disturbance) => self.disturbances.entry(disturbance.name()).or_default(),
            None => self.steps.entry(step.name()).or_default(),
        };
        done.0.push(took);
        if let Some(guest) = guest {
            self.leaves(guest);
        }
        self.look_after_hosts(step.name());
    }

    /// A generation takes the place of another everywhere. Answers the host that joined meanwhile.
    fn replace(&mut self, step: Step, disturbance: Option<Disturbance>, host: usize) -> Option<Host> {
        if disturbance == Some(Disturbance::KillAtCut) {
            self.restart_to_die_at_cut(host);
        }
        let (command, next) = self.begin(step);
        let guest = disturbance.and_then(|disturbance| self.disturb(disturbance, host));
        let output = command.wait_with_output().unwrap();
        self.ended(step, next, &output);
        guest
    }

    /// No host may end unless it is made to.
    fn look_after_hosts(&mut self, after: &str) {
        for host in &mut self.hosts {
            if let Some(status) = host.ended() {
                self.verdict.violation(format!("after {after}: host {} has ended by itself ({status}):\n{}", host.name, host.said()));
                host.start(&self.place, None);
            }
        }
    }

    fn at(&self, topic: &str) -> Vec<TopicPartition> {
        let topic = self.place.named(topic);
        (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect()
    }

    /// Waits until the committed positions of a topic have reached these offsets.
    fn reached(&self, topic: &str, ends: &[i64]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // While a torn transaction holds positions, nobody is told of them.
            let committed = self.log.committed(&self.place.named("NAME"), &self.at(topic));
            let offset = |position: &Option<Position>| position.as_ref().map_or(0, |position| position.offset);
            let reached =
                |committed: &Vec<Option<Position>>| committed.iter().map(offset).zip(ends).all(|(committed, end)| committed >= *end);
            if committed.as_ref().is_ok_and(reached) {
                return;
            }
            if Instant::now() > deadline {
                panic!("{topic}: {committed:?} is committed, not {ends:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until records of every partition are processed that were there when this was called.
    fn goes_on(&self) {
        let ends: Vec<i64> = self.at("NAME.in").iter().map(|at| self.log.bounds(at).unwrap().end).collect();
        self.reached("NAME.in", &ends);
    }

    /// Until all input is processed, behind the repartition too.
    fn settle(&mut self) {
        self.goes_on();
        // In the transactions that have brought the input's positions here.
        let ends = last_offsets(&self.place, &self.cluster.brokers, REPARTITION);
        self.reached(REPARTITION, &ends);
        self.look_after_hosts("the end of the input");
        let output = self.spawn(&["status", "NAME"]).wait_with_output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let pipeline = &status["pipelines"][0];
        let newest = self.deployed.keys().last().copied();
        let well = |place: &Value| place["lag"] == 0 && place["parked"].is_null() && place["generation"].as_u64() == newest;
        let places = pipeline["partitions"].as_array().cloned().unwrap_or_default();
        let rests = pipeline["state"] == "running" && places.len() == PARTITIONS as usize && places.iter().all(well);
        if !rests || status["set_aside"] != 0 || !output.status.success() {
            self.verdict.violation(format!("not at rest at the end: {status} {}", text(&output.stderr)));
        }
    }

    /// Looks at everything, at rest.
    fn check(&mut self, sent: i64) {
        let mut verdict = std::mem::take(&mut self.verdict);
        let found = topics::found(&self.place, &self.cluster.brokers, &mut verdict);
        verdict.add(checker::check(&found));
        let input: usize = found.input.iter().map(Vec::len).sum();
        if input as i64 != sent {
            verdict.violation(format!("{sent} records were sent, {input} are there"));
        }
        let deployed: BTreeMap<u64, Content> = self.deployed.iter().map(|(number, deployed)| (*number, deployed.content)).collect();
        let tried = self.tried.iter().map(|(number, tried)| (*number, tried.content));
        let worked: BTreeMap<u64, Content> = deployed.clone().into_iter().chain(tried).collect();
        if worked != found.contents {
            verdict.violation(format!("deployed was {worked:?}, the control topic tells {:?}", found.contents));
        }
        let mut all: Vec<TopicPartition> = TOPICS.iter().chain(&OWN).flat_map(|topic| self.at(topic)).collect();
        all.push(TopicPartition::new(self.place.named("NAME.control"), 0));
        all.extend((0..OFFSETS_PARTITIONS).map(|partition| TopicPartition::new("__consumer_offsets", partition)));
        for at in all {
            let (stable, high) = (self.log.bounds(&at).unwrap().end, self.log.high_watermark(&at).unwrap());
            if stable != high {
                verdict.violation(format!("{at}: something is left open: the last stable offset is {stable}, the end {high}"));
            }
        }
        // If outputs of few generations came out, there is little to show.
        let stamps =
            |stamps: &mut dyn Iterator<Item = Stamp>| stamps.map(|stamp| (stamp.config, stamp.version)).collect::<BTreeSet<_>>().len();
        let kinds = |kind: fn(&Content) -> (i64, i64)| deployed.values().map(kind).collect::<BTreeSet<_>>().len();
        let seen = [
            (stamps(&mut found.lists.iter().map(|(_, stamp)| *stamp)), kinds(|content| (content.config, content.list))),
            (stamps(&mut found.groups.iter().map(|(.., stamp)| *stamp)), kinds(|content| (content.config, content.group))),
        ];
        if seen.iter().any(|(seen, all)| seen < all) {
            verdict.violation(format!("outputs of (seen, deployed) {seen:?} kinds: of some generation nothing came out"));
        }
        let aborted = uncommitted(&self.place, &self.cluster.brokers, "NAME.lists") - found.lists.len() as u64;
        eprintln!(
            "{} cut-overs, {} committed positions; {aborted} records of aborted transactions lie in NAME.lists, unseen by readers of what is committed",
            found.cuts.len(),
            found.commits.len()
        );
        self.verdict = verdict;
    }

    /// Makes these swaps and checks. `fresh`: in the end a host with no state goes on.
    fn run(mut self, sender: Sender, steps: &[(Step, Option<Disturbance>)], fresh: bool) {
        let started = Instant::now();
        let feed = sender.start();
        for host in &mut self.hosts {
            host.start(&self.place, None);
        }
        until("two hosts live", || {
            let output = self.spawn(&["status"]).wait_with_output().unwrap();
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            status["hosts"].as_array().is_some_and(|hosts| hosts.len() == 2)
        });
        self.step(Step::Deploy, None);
        self.steps.clear();
        for (step, disturbance) in steps {
            self.step(*step, *disturbance);
        }
        let mut sender = feed.stop();
        self.settle();
        for host in std::mem::take(&mut self.hosts) {
            self.leaves(host);
        }
        if fresh {
            // What it makes of one more record of each key shows the state that it found.
            sender.one_each();
            let mut host = Host::new(&self.place, "fresh", &SERVE);
            host.start(&self.place, None);
            self.hosts.push(host);
            self.settle();
            let host = self.hosts.pop().expect("the host");
            self.leaves(host);
        }
        let (records, took) = (sender.sent, started.elapsed());
        self.check(records);
        self.report(records, took);
        assert_eq!(self.verdict.violations, 0, "{:#?}", self.verdict.told);
    }

    fn report(&self, records: i64, took: Duration) {
        eprintln!("{:<42} {:>5} {:>8} {:>8}  until every partition works by it", "swap", "times", "median", "longest");
        let tell = |name: &str, done: &Done| {
            let mut times = done.0.clone();
            times.sort();
            let (median, longest) = (times[times.len() / 2].as_secs_f64(), times[times.len() - 1].as_secs_f64());
            eprintln!("{name:<42} {:>5} {median:>6.1} s {longest:>6.1} s", times.len());
        };
        self.steps.iter().for_each(|(name, done)| tell(name, done));
        self.disturbances.iter().for_each(|(name, done)| tell(&format!("any; {name}"), done));
        let swaps = self.steps.values().chain(self.disturbances.values()).map(|done| done.0.len()).sum::<usize>();
        let verdict = &self.verdict;
        eprintln!(
            "{} commands ended before every partition was cut over, as partitions were on their way to another host",
            self.outstanding
        );
        eprintln!("{swaps} swaps in {took:.0?}; {records} records fed, {} checked; {} violations", verdict.checked, verdict.violations);
        for told in &verdict.told {
            eprintln!("VIOLATION: {told}");
        }
    }
}

#[test]
fn short() {
    let Some((mut suite, mut sender)) = Suite::new() else { return };
    sender.gust = 3;
    let mut steps: Vec<_> = STEPS[..6].iter().map(|step| (*step, None)).collect();
    let mut one_of = |ends: [End; 2]| ends[suite.random.below(2) as usize];
    let (well, badly) = ([End::Promoted, End::PromotedByItself], [End::RolledBack, End::RolledBackByItself]);
    let any = [one_of(well), one_of(badly)];
    let trials = [Trial::Canary(one_of(any)), Trial::Keys(one_of(well)), Trial::Keys(one_of(badly)), Trial::Shadow(one_of(any))];
    steps.extend(trials.map(|trial| (Step::Try(trial), None)));
    for at in (1..steps.len()).rev() {
        steps.swap(at, suite.random.below(at as u64 + 1) as usize);
    }
    let half = steps.len() / 2;
    let kill = [Disturbance::Kill, Disturbance::KillAtCut][suite.random.below(2) as usize];
    steps[suite.random.below(half as u64) as usize].1 = Some(kill);
    steps[half + suite.random.below(half as u64) as usize].1 = Some(Disturbance::Leave);
    suite.run(sender, &steps, false);
}

#[test]
#[ignore = "makes MILLSTREAM_SWAPS (200) swaps, for a quarter of an hour or so"]
fn long() {
    let Some((mut suite, sender)) = Suite::new() else { return };
    let swaps: usize = std::env::var("MILLSTREAM_SWAPS").map_or(200, |text| text.parse().expect("a number of swaps"));
    let (mut steps, mut tries) = (Vec::new(), 0);
    for at in 0..swaps {
        let one_of = |random: &mut Random, count: usize| random.below(count as u64) as usize;
        let step = match suite.random.below(2) {
            0 => STEPS[one_of(&mut suite.random, STEPS.len())],
            // Each in turn.
            _ => {
                tries += 1;
                let end = ENDS[tries / 3 % ENDS.len()];
                Step::Try([Trial::Canary, Trial::Keys, Trial::Shadow][tries % 3](end))
            }
        };
        let disturbance = (at % DISTURBED == DISTURBED / 2).then(|| DISTURBANCES[at / DISTURBED % DISTURBANCES.len()]);
        steps.push((step, disturbance));
    }
    suite.run(sender, &steps, true);
}
