//! Whole pipelines through the program, under what befalls them: crashes, brokers that go away, bad records, bad plugins, signals.

mod bad_input;
mod bad_plugin;
mod cache;
mod crash;
mod crash_suite;
mod deployments;
mod joins;
mod leaks;
mod migration;
pub mod operation;
mod order;
mod origins;
mod outage;
mod refusal;
mod replays;
mod state;
mod swap_suite;
mod tables;
mod timers;
mod topics;
mod windows;

use crate::cluster::{Cluster, cluster, unique};
use crate::program::millstream;
use millstream::io::Log;
use millstream::log::Connection;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings that choose the consumer group protocol.
const CONSUMER_PROTOCOL: &str = "[kafka.consumer]\ngroup.protocol = \"consumer\"\n";

/// A folder with a manifest and either a data folder or names of its own on the test cluster.
pub struct Place {
    folder: tempfile::TempDir,
    brokers: Option<String>,
    /// Put for `NAME` in manifests and topics.
    name: String,
}

impl Place {
    pub fn embedded() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), brokers: None, name: "p".to_owned() }
    }

    /// None where there is no cluster.
    fn kafka() -> Option<Self> {
        Some(Self::on(cluster()?))
    }

    fn on(cluster: &Cluster) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), brokers: Some(cluster.brokers.clone()), name: unique("pipeline") }
    }

    fn named(&self, text: &str) -> String {
        text.replace("NAME", &self.name)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, manifest: &str) {
        std::fs::write(self.path().join("pipeline.yaml"), self.named(manifest)).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = millstream(self.path());
        command.env("MILLSTREAM_DATA", self.path().join("data"));
        if let Some(brokers) = &self.brokers {
            command.env("MILLSTREAM_BROKERS", brokers);
        }
        command.args(arguments.iter().map(|argument| self.named(argument)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The place's log in this process; another process that runs a pipeline there takes the folder over.
    fn log(&self) -> Arc<dyn Log> {
        let connection = Connection { brokers: self.brokers.clone(), data: Some(self.path().join("data")), ..Connection::default() };
        connection.open().unwrap()
    }

    fn topic(&self, topic: &str, partitions: &str) {
        success(&self.call(&["topic", "create", topic, "--partitions", partitions]));
    }

    pub fn produce(&self, topic: &str, lines: &str) {
        success(&self.try_to_produce(topic, lines));
    }

    fn try_to_produce(&self, topic: &str, lines: &str) -> Output {
        let mut child = self.command(&["produce", topic]).stdin(Stdio::piped()).spawn().unwrap();
        // A process that ends at once reads nothing.
        let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(&[&["run", "pipeline.yaml", "--output", "json"], arguments].concat()).spawn().unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.call(&[&["run", "pipeline.yaml", "--until-end", "--output", "json"], arguments].concat())
    }

    /// Runs to the end; the number of records that it took from the sources.
    fn run_well(&self, arguments: &[&str]) -> u64 {
        let report: serde_json::Value = serde_json::from_str(success(&self.run(arguments)).trim()).unwrap();
        report["records"].as_u64().unwrap()
    }

    /// The records of a topic as lines, in the order of partitions, without their offsets: a transaction takes offsets of its own.
    pub fn consume(&self, topic: &str) -> Vec<String> {
        let output = self.call(&["consume", topic, "--until-end"]);
        let mut records: Vec<(u64, String)> = success(&output)
            .lines()
            .map(|line| {
                let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
                let partition = record["partition"].as_u64().unwrap();
                record.as_object_mut().unwrap().remove("offset");
                (partition, record.to_string())
            })
            .collect();
        records.sort_by_key(|(partition, _)| *partition);
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// One field of the values of a topic.
    fn field(&self, topic: &str, field: &str) -> Vec<serde_json::Value> {
        let records = self.consume(topic);
        let values = records.iter().map(|record| serde_json::from_str::<serde_json::Value>(record).unwrap());
        values.map(|record| record["value"][field].clone()).collect()
    }
}

/// Asks again and again until something is so.
fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_within(Duration::from_secs(120), what, is_so);
}

fn until_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that ended well has printed.
pub fn success(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a command that ended with this code has printed.
pub fn failure(output: &Output, code: i32) -> String {
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{all}");
    all
}

/// Numbers that look random, from a seed that was printed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let seed = match std::env::var("MILLSTREAM_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        eprintln!("MILLSTREAM_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}
