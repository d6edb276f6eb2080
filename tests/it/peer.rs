//! The same recorded records through Kafka Streams and through Millstream: what comes out is compared record by record, in its order.
//! Where the two differ on purpose, a test shows both sides; host/docs/compared-with-kafka-streams.md tells why.
//!
//! Kafka Streams runs the topologies of `tests/peer` in its `TopologyTestDriver`, without a broker. Needs a JDK and Maven.

mod differences;
mod input;

use crate::cluster::maven;
use crate::pipelines::{Place, Random, success};
use input::Recorded;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const RECORDS: usize = 3000;

const FILTER: &str = "\
pipeline: NAME
sources:
  events: { topic: events, schema: { amount: int?, channel: text? } }
stages:
  - { name: kept, plugin: filter, with: { where: 'channel != \"test\" && amount >= 50' } }
sinks:
  - { from: kept, topic: out }
on_error: skip
";

/// Left out of the next two, they look at no field.
const SUM: &str = ", amount: sum(amount)";

const COUNT: &str = "\
pipeline: NAME
sources:
  events: { topic: events, schema: { amount: int? } }
stages:
  - { name: counted, plugin: aggregate, with: { compute: { records: count(), amount: sum(amount) } } }
sinks:
  - { from: counted, topic: out }
on_error: skip
";

const WINDOWED_COUNT: &str = "\
pipeline: NAME
sources:
  events: { topic: events, schema: { amount: int? } }
stages:
  - name: counted
    plugin: aggregate
    with: { window: { tumbling: 1m, grace: 10s }, emit: updates, compute: { records: count(), amount: sum(amount) } }
sinks:
  - { from: counted, topic: out }
on_error: skip
";

/// `JOIN` and `TOMBSTONES` are to be put in.
const ENRICH: &str = "\
pipeline: NAME
sources:
  events: { topic: events, tombstones: TOMBSTONES, schema: { user: text? } }
tables:
  users: { topic: users, schema: { level: text? } }
stages:
  - { name: joined, plugin: enrich, with: { table: users, on: user, join: JOIN, add: { level: users.level } } }
sinks:
  - { from: joined, topic: out }
on_error: skip
";

/// A table that changes while the stream goes on.
const STREAM_TABLE: &str = "\
pipeline: NAME
sources:
  events: { topic: events, tombstones: drop }
tables:
  users: { topic: users, scope: partitioned, schema: { level: text? } }
stages:
  - { name: joined, plugin: enrich, with: { table: users, on: $key, join: JOIN, add: { level: users.level } } }
sinks:
  - { from: joined, topic: out }
on_error: skip
";

/// `JOIN` is to be put in.
const STREAM_STREAM: &str = "\
pipeline: NAME
sources:
  events: { topic: events, schema: { id: int } }
  others: { topic: others, schema: { id: int } }
stages:
  - name: joined
    from: [events, others]
    plugin: join
    with: { within: 5s, grace: 10s, join: JOIN, fields: { id: left.id, other: right.id } }
sinks:
  - { from: joined, topic: out }
on_error: skip
";

const TABLE_TABLE: &str = "\
pipeline: NAME
sources:
  events: { topic: events, schema: { id: int } }
  users: { topic: users, schema: { level: text? } }
stages:
  - { name: joined, from: [events, users], plugin: join, with: { of: tables, join: JOIN, fields: { id: left.id, level: right.level } } }
sinks:
  - { from: joined, topic: out }
on_error: skip
";

fn enrich(join: &str, tombstones: &str) -> String {
    ENRICH.replace("JOIN", join).replace("TOMBSTONES", tombstones)
}

#[test]
fn filter() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let compared = peer.compare("filter", FILTER, &input, &mut random);
    assert!(compared.records > RECORDS / 10 && compared.records < RECORDS / 2, "{} records passed", compared.records);
}

#[test]
fn keyed_count() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let compared = peer.compare("count", COUNT, &input, &mut random);
    assert!(compared.records > RECORDS * 9 / 10 && compared.records < RECORDS, "{} records were counted", compared.records);
    peer.compare("count-alone", &COUNT.replace(SUM, ""), &input, &mut random);
}

#[test]
fn windowed_count_with_late_records() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let compared = peer.compare("windowed-count", WINDOWED_COUNT, &input, &mut random);
    assert!(compared.late > RECORDS as u64 / 50, "only {} records were late", compared.late);
    assert!(compared.records > RECORDS / 2, "{} records were counted", compared.records);
    peer.compare("windowed-count-alone", &WINDOWED_COUNT.replace(SUM, ""), &input, &mut random);
}

#[test]
fn hopping_windows() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let hopping = WINDOWED_COUNT.replace("tumbling: 1m", "hopping: 1m, advance: 20s");
    let compared = peer.compare("hopping-count", &hopping, &input, &mut random);
    assert!(compared.records > RECORDS, "{} results", compared.records);
}

/// Kafka Streams takes back a session that a record lengthens or joins with another; what it gives then is compared.
#[test]
fn session_windows() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let sessions = WINDOWED_COUNT.replace("tumbling: 1m", "session: 5s");
    let given = |results: Vec<Value>| results.into_iter().filter(|result| result["value"]["retracted"].is_null()).collect();
    let compared = peer.compare_in_order("session-count", &sessions, &input, &mut random, given);
    assert!(compared.late > RECORDS as u64 / 50 && compared.records > RECORDS / 2, "{} late, {} results", compared.late, compared.records);
}

#[test]
fn results_of_closed_windows() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::events(&mut random, RECORDS);
    let closed = WINDOWED_COUNT.replace("emit: updates", "emit: final");
    let compared = peer.compare("final-count", &closed, &input, &mut random);
    assert!(compared.records > 100, "{} results", compared.records);
}

#[test]
fn stream_table_join() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let mut input = input::users(&mut random);
    input.extend(input::events(&mut random, RECORDS));
    // An inner join drops unknown users, a left join nothing but tombstones.
    let inner = peer.compare("enrich-inner", &enrich("inner", "drop"), &input, &mut random);
    let left = peer.compare("enrich-left", &enrich("left", "drop"), &input, &mut random);
    assert!(inner.records > RECORDS / 4 && inner.records < left.records, "{} and {} were joined", inner.records, left.records);
}

#[test]
fn stream_partitioned_table_join() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::in_order(input::events(&mut random, RECORDS), input::rows(&mut random, RECORDS / 3));
    let inner = peer.compare("stream-table-inner", &STREAM_TABLE.replace("JOIN", "inner"), &input, &mut random);
    let left = peer.compare("stream-table-left", &STREAM_TABLE.replace("JOIN", "left"), &input, &mut random);
    assert!(inner.records > RECORDS / 4 && inner.records < left.records, "{} and {} were joined", inner.records, left.records);
}

/// The test of differences shows what becomes of records that are later than these.
#[test]
fn stream_stream_join() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let pairs =
        |results: Vec<Value>| -> (Vec<Value>, Vec<Value>) { results.into_iter().partition(|result| !result["value"]["other"].is_null()) };
    // Pairs come in the same order. When Kafka Streams gives a record without a partner is a matter of when it looks for those that are closed.
    let alone_last = |results| {
        let (mut results, mut alone) = pairs(results);
        alone.sort_by_key(Value::to_string);
        results.extend(alone);
        results
    };
    for (join, back) in [("inner", 10_000), ("left", 5000)] {
        let [events, others] = input::two_streams(&mut random, RECORDS, back);
        let mut input = input::in_order(others, events);
        // It looks when all that was open at its last look is closed.
        input.push(input::far_ahead("events", &input));
        let manifest = STREAM_STREAM.replace("JOIN", join);
        let compared = peer.compare_in_order(&format!("stream-stream-{join}"), &manifest, &input, &mut random, alone_last);
        assert!(compared.records > 200 && compared.late == 0, "{join}: {} results", compared.records);
    }
}

#[test]
fn table_table_join() {
    let Some(peer) = Peer::find() else { return };
    let mut random = Random::new();
    let input = input::in_order(input::rows(&mut random, RECORDS / 3), input::events(&mut random, RECORDS));
    let inner = peer.compare("table-table-inner", &TABLE_TABLE.replace("JOIN", "inner"), &input, &mut random);
    let left = peer.compare("table-table-left", &TABLE_TABLE.replace("JOIN", "left"), &input, &mut random);
    assert!(inner.records > RECORDS / 4 && inner.records < left.records, "{} and {} results", inner.records, left.records);
}

/// Kafka Streams, with the topologies of `tests/peer` compiled.
struct Peer {
    classes: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

/// What was found equal.
struct Compared {
    records: usize,
    /// Records that Millstream's first stage found late.
    late: u64,
}

impl Peer {
    /// None if there cannot be one, which was said.
    fn find() -> Option<&'static Self> {
        static PEER: OnceLock<Option<Peer>> = OnceLock::new();
        let start = || maven::there("comparisons with Kafka Streams", &["java", "javac", "mvn"], "a JDK 17 and Maven").then(Self::compile);
        PEER.get_or_init(start).as_ref()
    }

    fn compile() -> Self {
        let jars = maven::jars(&format!("streams-{}", maven::KAFKA), "kafka-streams-test-utils").join("*");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peer");
        let folder = tempfile::tempdir().unwrap();
        let mut javac = Command::new("javac");
        javac.args(["-Xlint:all", "-Werror", "-cp"]).arg(&jars).arg("-d").arg(folder.path());
        javac.args(["Topologies.java", "Peer.java", "Bench.java"].map(|source| sources.join(source)));
        success(&javac.stdin(Stdio::null()).output().unwrap());
        Self { classes: vec![folder.path().to_owned(), jars], _folder: folder }
    }

    /// What Kafka Streams makes of these records.
    fn run(&self, scenario: &str, input: &[Recorded]) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("input.jsonl");
        std::fs::write(&file, lines(input.iter())).unwrap();
        let mut java = maven::java(&self.classes, "error");
        let output = java.args(["Peer", scenario]).arg(&file).stdin(Stdio::null()).output().unwrap();
        success(&output).lines().map(result).collect()
    }

    /// Runs both; fails at the first record that differs.
    fn compare(&self, scenario: &str, manifest: &str, input: &[Recorded], random: &mut Random) -> Compared {
        self.compare_in_order(scenario, manifest, input, random, |results| results)
    }

    /// The same, of results put in an order.
    fn compare_in_order(
        &self,
        scenario: &str,
        manifest: &str,
        input: &[Recorded],
        random: &mut Random,
        order: impl Fn(Vec<Value>) -> Vec<Value>,
    ) -> Compared {
        let theirs = order(self.run(scenario, input));
        // Any cut into batches must do, and a restart anywhere (behind the table, which is read before all else).
        let restart = input.len() / 4 + random.below(input.len() as u64 / 2) as usize;
        let (before, after) = input.split_at(restart);
        let (ours, late) = millstream(manifest, &[before, after], 1 + random.below(1000));
        let ours = order(ours);
        if let Some(at) = (0..theirs.len().max(ours.len())).find(|at| theirs.get(*at) != ours.get(*at)) {
            let show = |side: &[Value]| -> String {
                let around = side.iter().skip(at.saturating_sub(2)).take(5);
                around.map(|record| format!("\n  {record}")).collect()
            };
            panic!(
                "{scenario}: record {at} differs ({} by Kafka Streams, {} by Millstream)\nKafka Streams:{}\nMillstream:{}",
                theirs.len(),
                ours.len(),
                show(&theirs),
                show(&ours)
            );
        }
        Compared { records: ours.len(), late }
    }
}

/// What Millstream makes of these records in a run for each part, and how many its first stage found late.
fn millstream(manifest: &str, parts: &[&[Recorded]], batch_rows: u64) -> (Vec<Value>, u64) {
    let place = Place::embedded();
    place.write(manifest);
    let mut late = 0;
    for part in parts {
        let mut topics: BTreeMap<&str, Vec<&Recorded>> = BTreeMap::new();
        for record in *part {
            topics.entry(record.topic).or_default().push(record);
        }
        for (topic, records) in topics {
            place.produce(topic, &lines(records.into_iter()));
        }
        let report = success(&place.run(&["--batch-rows", &batch_rows.to_string()]));
        let report: Value = serde_json::from_str(report.trim()).unwrap();
        late += report["stages"][0]["late"].as_u64().unwrap();
    }
    (place.consume("out").iter().map(|line| result(line)).collect(), late)
}

fn lines<'a>(records: impl Iterator<Item = &'a Recorded>) -> String {
    records.map(|record| format!("{}\n", record.line())).collect()
}

/// What of an output record is compared. Both sides have one partition, and write no headers.
fn result(line: &str) -> Value {
    let mut record: Value = serde_json::from_str(line).unwrap();
    json!({ "key": record["key"].take(), "value": record["value"].take(), "timestamp": record["timestamp"].take() })
}
