//! Deployments to hosts that run: what a bad new version does to the one that runs, two commands at once, a host that has nothing, partitions that stand
//! still, pausing and deleting.

mod bad_version;
mod emptying;
mod joining;
mod parked;
mod steering;

use super::crash_suite::host::Host;
use super::{Place, text, until};
use millstream::io::TopicPartition;
use serde_json::{Value, json};

const SERVE: [&str; 7] = ["serve", "--fleet", "NAME", "--commit-interval", "20", "--workers", "1"];
const PARTITIONS: u64 = 2;

/// A fleet with hosts, and the one pipeline that it runs.
struct Fleet {
    place: Place,
    hosts: Vec<Host>,
}

impl Fleet {
    /// Of one host on the embedded log, and of two on Kafka where there is one.
    fn each() -> impl Iterator<Item = Self> {
        [Some((Place::embedded(), 1)), Place::kafka().map(|place| (place, 2))]
            .into_iter()
            .flatten()
            .map(|(place, hosts)| Self::on(place, hosts))
    }

    /// No host runs yet; the topics are there.
    fn on(place: Place, hosts: usize) -> Self {
        for topic in ["NAME.in", "NAME.out"] {
            place.topic(topic, &PARTITIONS.to_string());
        }
        let hosts = (0..hosts).map(|number| {
            let mut host = Host::new(&place, &format!("host-{number}"), &SERVE);
            if place.brokers.is_none() {
                host.data = place.path().join("data");
            }
            host
        });
        Self { hosts: hosts.collect(), place }
    }

    /// Starts all hosts, and waits until the fleet knows them.
    fn start(mut self) -> Self {
        for host in &mut self.hosts {
            host.start(&self.place, None);
        }
        until("all hosts live", || {
            let (code, status, _) = self.call(&["status"]);
            code == 0 && status["hosts"].as_array().is_some_and(|hosts| hosts.len() == self.hosts.len())
        });
        self
    }

    /// The exit code, standard output as JSON, standard error.
    fn call(&self, arguments: &[&str]) -> (i32, Value, String) {
        answer(&self.place.call(&[arguments, &["--fleet", "NAME", "--output", "json"]].concat()))
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> Value {
        let (code, json, error) = self.call(arguments);
        assert_eq!(code, 0, "{arguments:?}: {json} {error}");
        json
    }

    #[track_caller]
    fn bad(&self, arguments: &[&str], code: i32, says: &[&str]) {
        let (found, json, error) = self.call(arguments);
        assert_eq!(found, code, "{arguments:?}: {json} {error}");
        let told = json.to_string();
        assert!(says.iter().all(|part| told.contains(part)), "{arguments:?}: no {says:?} in {json}");
    }

    /// The pipeline, as `status` shows it.
    fn status(&self) -> Value {
        self.good(&["status", "NAME"])["pipelines"][0].clone()
    }

    /// Appends records with these numbers, in turns to the partitions. All of a partition have one key, and come out in one partition.
    fn feed(&self, numbers: std::ops::Range<u64>) {
        let line = |n: u64| {
            format!(
                "{}\n",
                json!({ "partition": n % PARTITIONS, "key": format!("k{}", n % PARTITIONS), "timestamp": 1000 + n, "value": { "a": "text", "n": n } })
            )
        };
        self.place.produce("NAME.in", &numbers.map(line).collect::<String>());
    }

    /// How many records have come out.
    fn count(&self) -> usize {
        self.place.consume("NAME.out").len()
    }

    /// Waits until so many records have come out, and answers the fields `n` and `v` of each, in the order of the numbers.
    fn comes_out(&self, count: usize) -> Vec<(u64, Value)> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
        while self.count() < count {
            if std::time::Instant::now() > deadline {
                panic!("{} of {count} records have come out: {}", self.count(), self.status());
            }
        }
        let mut found: Vec<(u64, Value)> = self
            .place
            .consume("NAME.out")
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone())
            .map(|value| (value["n"].as_u64().unwrap(), value["v"].clone()))
            .collect();
        // Those of a key must be in order already.
        for partition in 0..PARTITIONS {
            let numbers: Vec<u64> = found.iter().map(|(n, _)| *n).filter(|n| n % PARTITIONS == partition).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other), "out of order, or twice: {numbers:?}");
        }
        found.sort_by_key(|(n, _)| *n);
        found
    }

    /// Waits until the records up to `end` have come out, each once, those from `from` on by the version `v`.
    #[track_caller]
    fn worked(&self, from: u64, end: u64, v: u64) {
        let found = self.comes_out(end as usize);
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..end).collect::<Vec<_>>());
        let other = found.iter().find(|(n, by)| *n >= from && *by != v);
        assert_eq!(other, None, "made by another version than {v}");
    }

    /// The ends of what comes out, as readers of what is committed see it.
    fn ends(&self) -> Vec<i64> {
        let (log, topic) = (self.place.log(), self.place.named("NAME.out"));
        (0..PARTITIONS as i32).map(|partition| log.bounds(&TopicPartition::new(topic.as_str(), partition)).unwrap().end).collect()
    }

    /// No host may have ended.
    fn stop(mut self) {
        for host in &mut self.hosts {
            assert!(!host.is_dead(), "{} has ended by itself:\n{}", host.name, host.said());
            let status = host.stop();
            assert!(status.success(), "{}: {status}\n{}", host.name, host.said());
        }
    }
}

fn answer(output: &std::process::Output) -> (i32, Value, String) {
    let out = text(&output.stdout);
    let json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {}", text(&output.stderr)));
    (output.status.code().unwrap(), json, text(&output.stderr))
}
