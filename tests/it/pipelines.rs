//! Whole pipelines through the program, under what befalls them: crashes, bad records, bad plugins, signals.

mod bad_input;
mod bad_plugin;
mod crash;
mod leaks;
mod order;
mod timers;
mod windows;

use crate::cluster::{cluster, unique};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A folder with a manifest and either a data folder or names of its own on the test cluster.
struct Place {
    folder: tempfile::TempDir,
    brokers: Option<&'static str>,
    /// Put for `NAME` in manifests and topics.
    name: String,
}

impl Place {
    fn embedded() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), brokers: None, name: "p".to_owned() }
    }

    /// None where there is no cluster.
    fn kafka() -> Option<Self> {
        let cluster = cluster()?;
        Some(Self { folder: tempfile::tempdir().unwrap(), brokers: Some(&cluster.brokers), name: unique("pipeline") })
    }

    fn named(&self, text: &str) -> String {
        text.replace("NAME", &self.name)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, manifest: &str) {
        std::fs::write(self.path().join("pipeline.yaml"), self.named(manifest)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.current_dir(self.path()).env_remove("MILLSTREAM_OUTPUT").env_remove("MILLSTREAM_LOG").env_remove("MILLSTREAM_CONFIG");
        command.env_remove("MILLSTREAM_BROKERS").env_remove("MILLSTREAM_SYNC").env("MILLSTREAM_DATA", self.path().join("data"));
        if let Some(brokers) = self.brokers {
            command.env("MILLSTREAM_BROKERS", brokers);
        }
        command.args(arguments.iter().map(|argument| self.named(argument)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn topic(&self, topic: &str, partitions: &str) {
        success(&self.call(&["topic", "create", topic, "--partitions", partitions]));
    }

    fn produce(&self, topic: &str, lines: &str) {
        let mut child = self.command(&["produce", topic]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        success(&child.wait_with_output().unwrap());
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(&[&["run", "pipeline.yaml", "--output", "json"], arguments].concat()).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.call(&[&["run", "pipeline.yaml", "--until-end", "--output", "json"], arguments].concat())
    }

    /// Runs to the end; the number of records that it took from the sources.
    fn run_well(&self, arguments: &[&str]) -> u64 {
        let report: serde_json::Value = serde_json::from_str(success(&self.run(arguments)).trim()).unwrap();
        report["records"].as_u64().unwrap()
    }

    /// The records of a topic as lines, in the order of partitions, without their offsets: a transaction takes offsets of its own.
    fn consume(&self, topic: &str) -> Vec<String> {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that ended well has printed.
fn success(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a command that ended with this code has printed.
fn failure(output: &Output, code: i32) -> String {
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{all}");
    all
}

/// Numbers that look random, from a seed that was printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = match std::env::var("MILLSTREAM_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        eprintln!("MILLSTREAM_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}
