//! `millstream replay` of pipelines with state: what it shows is, byte for byte, what the host gave for these records, or it is refused and says what is missing.

use super::crash_suite::host::Host;
use super::{Place, Random, text, until};
use millstream::io::TopicPartition;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// A host that runs the pipeline `NAME` of a place.
pub struct Running {
    pub place: Place,
    host: Host,
}

impl Running {
    /// `topics`, each of two partitions.
    pub fn on(place: Place, topics: &[&str]) -> Self {
        for topic in topics {
            place.topic(topic, "2");
        }
        let mut host = Host::new(&place, "host", &["serve", "--fleet", "NAME", "--commit-interval", "20", "--workers", "1"]);
        if place.brokers.is_none() {
            host.data = place.path().join("data");
        }
        host.start(&place, None);
        let running = Self { place, host };
        until("the host lives", || running.call(&["status"]).1["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()));
        running
    }

    /// The host dies, and comes back.
    pub fn restart(&mut self) {
        self.host.kill();
        self.host.start(&self.place, None);
    }

    /// On the embedded log, and on Kafka where there is one.
    pub fn each(topics: &'static [&'static str]) -> impl Iterator<Item = Self> {
        [Some(Place::embedded()), Place::kafka()].into_iter().flatten().map(|place| Self::on(place, topics))
    }

    pub fn call(&self, arguments: &[&str]) -> (i32, Json, String) {
        let output = self.place.call(&[arguments, &["--fleet", "NAME", "--output", "json"]].concat());
        (output.status.code().unwrap_or(-1), serde_json::from_slice(&output.stdout).unwrap_or_default(), text(&output.stderr))
    }

    #[track_caller]
    pub fn good(&self, arguments: &[&str]) -> Json {
        let (code, json, error) = self.call(arguments);
        assert_eq!(code, 0, "{arguments:?}: {json} {error}\n{}", self.host.said());
        json
    }

    #[track_caller]
    pub fn deploy(&self, manifest: &str) {
        self.place.write(manifest);
        self.good(&["deploy", "pipeline.yaml", "--allow", "state", "--allow", "windows", "--allow", "tables"]);
    }

    /// Waits until every record of the sources and of what lies between is processed and committed.
    pub fn until_done(&self) {
        until("no lag", || {
            let status = self.call(&["status", "NAME"]).1;
            let partitions = status["pipelines"][0]["partitions"].as_array().cloned().unwrap_or_default();
            !partitions.is_empty() && partitions.iter().all(|at| at["lag"] == 0)
        });
    }

    /// The records of a topic, each with its place.
    pub fn records(&self, topic: &str) -> Vec<Json> {
        let output = self.place.call(&["consume", topic, "--until-end"]);
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The exit code, what is shown, and what is said of it.
    pub fn replay(&self, from: &str, count: u64, arguments: &[&str]) -> (i32, Vec<Json>, String) {
        let count = count.to_string();
        let output = self.place.call(&[&["replay", "NAME", "--fleet", "NAME", "--from", from, "--count", &count], arguments].concat());
        let lines = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap_or(-1), lines, text(&output.stderr))
    }

    /// What these topics have of the records `offsets` of a partition, as their headers tell.
    pub fn given(&self, topics: &[&str], at: &str, offsets: std::ops::Range<i64>) -> Vec<String> {
        let at = self.place.named(at);
        let records = topics.iter().flat_map(|topic| self.records(topic));
        let of = |record: &Json| {
            let source = record["headers"]["millstream.source"].as_str().unwrap_or_else(|| panic!("{record} tells no source")).to_owned();
            let (from, offset) = source.rsplit_once('@').unwrap();
            from == at && offsets.contains(&offset.parse::<i64>().unwrap())
        };
        comparable(records.filter(of))
    }

    #[track_caller]
    fn is_given_again(&self, topics: &[&str], at: &str, offsets: std::ops::Range<i64>) -> usize {
        let given = self.given(topics, at, offsets.clone());
        let (code, lines, said) = self.replay(&format!("{at}@{}", offsets.start), (offsets.end - offsets.start) as u64, &[]);
        assert_eq!(code, 0, "{said}");
        let again = comparable(lines.into_iter());
        let differing: Vec<_> = again.iter().zip(&given).filter(|(again, given)| again != given).take(2).collect();
        assert!(
            again.len() == given.len() && differing.is_empty(),
            "{at}@{offsets:?}: {} and {}: {differing:#?} {said}",
            again.len(),
            given.len()
        );
        given.len()
    }

    #[track_caller]
    fn refused(&self, from: &str, says: &[&str]) {
        let (code, lines, said) = self.replay(from, 1, &[]);
        let says = says.iter().map(|part| self.place.named(part));
        assert!(code == 1 && lines.is_empty() && says.clone().all(|part| said.contains(&part)), "{code} {lines:?} {said}");
        assert!(said.contains("--state empty"), "{said}");
    }
}

/// Records without what their place in a topic and a commit give them, sorted. Which topic it is, the plugins of the headers tell.
fn comparable(records: impl Iterator<Item = Json>) -> Vec<String> {
    let told = |record: Json| {
        let headers = record["headers"].as_object().unwrap().iter().filter(|(name, _)| *name != "millstream.row");
        let headers: BTreeMap<&String, &Json> = headers.collect();
        json!([record["partition"], record["timestamp"], record["key"], record["value"], headers]).to_string()
    };
    let mut records: Vec<String> = records.map(told).collect();
    records.sort();
    records
}

/// Records with these numbers, in both partitions; their times go up and down.
pub fn numbered(random: &mut Random, numbers: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let time = 1000 + n * 10 + random.below(200);
        let (partition, key) = (random.below(2), random.below(3));
        json!({ "partition": partition, "key": format!("k{partition}{key}"), "timestamp": time, "value": { "id": n, "g": random.below(3) } })
    };
    numbers.map(line).map(|line| format!("{line}\n")).collect()
}

const WINDOWS: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { id: int, g: int } } }
stages:
  - { name: odd, plugin: filter, with: { where: 'id % 5 != 4' } }
  - { name: all, plugin: aggregate, from: odd, with: { compute: { n: count(), ids: 'collect(id, 5)' } } }
  - { name: closed, plugin: aggregate, from: odd, with: { window: { tumbling: 100ms, grace: 50ms }, emit: final, compute: { n: count(), last: last(id) } } }
  - { name: hops, plugin: aggregate, from: odd, with: { window: { hopping: 200ms, advance: 100ms }, compute: { n: count() } } }
  - { name: seen, plugin: aggregate, from: odd, with: { window: { session: 60ms }, emit: final, compute: { n: count() } } }
sinks:
  - { from: all, topic: NAME.all, provenance: true }
  - { from: closed, topic: NAME.closed, provenance: true }
  - { from: hops, topic: NAME.hops, provenance: true }
  - { from: seen, topic: NAME.seen, provenance: true }
";

#[test]
fn groups_and_windows_are_given_again_from_the_beginning_of_the_inputs() {
    let mut random = Random::new();
    for running in Running::each(&["NAME.in", "NAME.all", "NAME.closed", "NAME.hops", "NAME.seen"]) {
        running.deploy(WINDOWS);
        let topics = ["NAME.all", "NAME.closed", "NAME.hops", "NAME.seen"];
        // In pieces, so that there are several commits between them.
        for piece in 0..8 {
            running.place.produce("NAME.in", &numbered(&mut random, piece * 50..piece * 50 + 50));
            running.until_done();
        }
        let mut given = 0;
        for at in ["NAME.in/0", "NAME.in/1"] {
            for from in [0, 7, 60 + random.below(60) as i64] {
                given += running.is_given_again(&topics, at, from..from + 10);
            }
        }
        assert!(given > 100, "{given}");
        // Nothing was written, and nothing is said of other generations.
        let before = running.records("NAME.all").len();
        let (_, lines, said) = running.replay("NAME.in/1@100", 1000, &[]);
        assert!(lines.len() > 50 && said.contains("the state is made anew of") && !said.contains("generations"), "{said}");
        assert_eq!(running.records("NAME.all").len(), before);

        // By a generation that came later, it is what that one gives from the beginning: which is said.
        running.deploy(&WINDOWS.replace("collect(id, 5)", "collect(id, 6)"));
        running.place.produce("NAME.in", &numbered(&mut random, 400..410));
        running.until_done();
        let (_, lines, said) = running.replay("NAME.in/1@100", 1000, &[]);
        assert!(said.contains("by the generations 1 from offset 0, 2 from offset") && said.contains("generation 2 gives"), "{said}");
        let ids = |line: &Json| line["value"]["ids"].as_array().map_or(0, Vec::len);
        assert!(lines.iter().any(|line| ids(line) == 6), "{lines:?}");
        let (code, _, said) = running.replay("NAME.in/1@100", 1, &["--state", "empty"]);
        assert!(code == 0 && said.contains("what is shown is not what was given"), "{said}");
    }
}

#[test]
fn what_the_inputs_no_longer_hold_is_not_made_up() {
    let mut random = Random::new();
    for running in Running::each(&["NAME.in", "NAME.all", "NAME.closed", "NAME.hops", "NAME.seen"]) {
        running.deploy(WINDOWS);
        running.place.produce("NAME.in", &numbered(&mut random, 0..60));
        running.until_done();
        assert_eq!(running.replay("NAME.in/0@9", 1, &[]).0, 0);
        if running.place.brokers.is_some() {
            let at = TopicPartition::new(running.place.named("NAME.in"), 0);
            running.place.log().delete_before(&[(at, 5)]).unwrap();
            running.refused("NAME.in/0@9", &["stage `all` has state", "the records 0 to 4 of NAME.in/0 are no longer there", "began at 0"]);
            // The other partition is another task's.
            assert_eq!(running.replay("NAME.in/1@9", 1, &[]).0, 0);
        }
        running.good(&["reset", "NAME", "--offset", "NAME.in/0@9", "--state", "keep"]);
        running.until_done();
        running.refused("NAME.in/1@9", &["generation 2 went on from other positions"]);
        running.good(&["reset", "NAME", "--offset", "NAME.in/1@8", "--state", "clear"]);
        running.until_done();
        running.refused("NAME.in/1@7", &["began at NAME.in/1@8"]);
        let (code, lines, said) = running.replay("NAME.in/1@8", 2, &[]);
        assert!(code == 0 && said.contains("NAME.in/1 from offset 8".replace("NAME", &running.place.named("NAME")).as_str()), "{said}");
        let counts = |line: &Json| line["topic"].as_str().unwrap().ends_with(".all").then(|| line["value"]["n"].as_i64().unwrap());
        assert!(lines.iter().filter_map(counts).all(|n| n <= 2), "{lines:?}");
    }
}

const JOIN: &str = "\
pipeline: NAME
sources:
  left: { topic: NAME.in, schema: { id: int, g: int } }
  right: { topic: NAME.right, schema: { id: int, g: int } }
stages:
  - { name: pairs, from: [left, right], plugin: join, with: { within: 100ms, grace: 100ms, join: left, fields: { l: left.id, r: right.id } } }
  - { name: n, from: pairs, plugin: aggregate, with: { compute: { n: count(), r: last(r) } } }
sinks:
  - { from: pairs, topic: NAME.pairs, provenance: true }
  - { from: n, topic: NAME.n, provenance: true }
";

#[test]
fn the_sides_of_a_join_are_taken_in_the_order_of_time() {
    let mut random = Random::new();
    for running in Running::each(&["NAME.in", "NAME.right", "NAME.pairs", "NAME.n"]) {
        // Both sides are there before the pipeline is: then it finds them side by side.
        running.place.produce("NAME.in", &numbered(&mut random, 0..150));
        running.place.produce("NAME.right", &numbered(&mut random, 0..150));
        running.deploy(JOIN);
        running.until_done();
        let mut given = 0;
        for at in ["NAME.in/0", "NAME.right/0", "NAME.in/1", "NAME.right/1"] {
            given += running.is_given_again(&["NAME.pairs", "NAME.n"], at, 30..50);
        }
        assert!(given > 50, "{given}");
        let (_, _, said) = running.replay("NAME.in/0@30", 1, &[]);
        let order = running.place.named("the task reads NAME.in/0 and NAME.right/0: their records are taken by timestamp");
        assert!(said.contains(&order), "{said}");
    }
}

const TABLE: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { id: int, g: int } } }
tables: { names: { topic: NAME.names, scope: partitioned, schema: { id: int } } }
stages:
  - { name: named, plugin: enrich, with: { table: names, on: $key, join: left, add: { name: names.id } } }
sinks: [{ from: named, topic: NAME.named, provenance: true }]
";

#[test]
fn a_partitioned_table_is_met_as_it_was() {
    let mut random = Random::new();
    for running in Running::each(&["NAME.in", "NAME.names", "NAME.named"]) {
        let keyed = |random: &mut Random, numbers: std::ops::Range<u64>| -> String {
            let line = |n: u64| json!({ "key": format!("k{}", random.below(5)), "timestamp": 1000 + n, "value": { "id": n, "g": 1 } });
            numbers.map(line).map(|line| format!("{line}\n")).collect()
        };
        let (names, stream) = (keyed(&mut random, 0..60), keyed(&mut random, 0..60));
        running.place.produce("NAME.names", &names);
        running.place.produce("NAME.in", &stream);
        running.deploy(TABLE);
        running.until_done();
        let given: usize = ["NAME.in/0", "NAME.in/1"].iter().map(|at| running.is_given_again(&["NAME.named"], at, 10..30)).sum();
        assert!(given > 15, "{given}");
        let found: BTreeSet<String> = running.records("NAME.named").iter().map(|record| record["value"]["name"].to_string()).collect();
        assert!(found.len() > 5, "records meet different versions of the rows: {found:?}");
    }
}

const GROUPS: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { id: int, g: int } } }
stages: [{ name: by, plugin: aggregate, with: { group_by: [g], compute: { n: count(), last: last(id) } } }]
sinks: [{ from: by, topic: NAME.by, provenance: true }]
";

#[test]
fn what_lies_behind_a_repartition_topic_is_replayed_from_that_topic() {
    let mut random = Random::new();
    for running in Running::each(&["NAME.in", "NAME.by"]) {
        running.deploy(GROUPS);
        running.place.produce("NAME.in", &numbered(&mut random, 0..60));
        running.until_done();
        let (code, lines, said) = running.replay("NAME.in/0@9", 3, &[]);
        assert!(code == 0 && lines.is_empty(), "{code} {lines:?} {said}");
        assert!(said.contains(&running.place.named("--from NAME.by.repartition/PARTITION@OFFSET")), "{said}");
        // By partition, all that came out: of each group in the order of the topic.
        let mut given: BTreeMap<i64, Vec<Json>> = BTreeMap::new();
        for record in running.records("NAME.by") {
            given.entry(record["partition"].as_i64().unwrap()).or_default().push(record["value"].clone());
        }
        for (partition, given) in given {
            let (code, lines, said) = running.replay(&format!("NAME.by.repartition/{partition}@0"), 10_000, &[]);
            let values: Vec<Json> = lines.into_iter().map(|line| line["value"].clone()).collect();
            assert!(code == 0 && values == given, "{partition}: {values:?} {given:?} {said}");
        }
        if running.place.brokers.is_some() {
            let at = TopicPartition::new(running.place.named("NAME.by.repartition"), 0);
            running.place.log().delete_before(&[(at, 4)]).unwrap();
            running.refused(
                "NAME.by.repartition/0@5",
                &["stage `by` has state", "the records 0 to 3 of NAME.by.repartition/0 are no longer there"],
            );
        }
    }
}

const TIMERS: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { n: int } } }
tables: { names: { topic: NAME.names, schema: { id: int } } }
stages:
  - { name: visits, plugin: ./timers.wasm }
  - { name: tagged, plugin: enrich, with: { table: names, on: $key, join: left, add: { name: names.id } } }
  - { name: each, plugin: aggregate, from: visits, with: { emit: changes, compute: { told: count() } } }
sinks:
  - { from: tagged, topic: NAME.told, provenance: true }
  - { from: each, topic: NAME.each }
";

#[test]
fn timers_fire_again_and_what_is_not_promised_is_said() {
    let mut random = Random::new();
    let running = Running::on(Place::embedded(), &["NAME.in", "NAME.told", "NAME.each", "NAME.names"]);
    std::fs::write(running.place.path().join("timers.wasm"), crate::guests::timers()).unwrap();
    running.place.write(TIMERS);
    running.good(&["deploy", "pipeline.yaml"]);
    let mut time = 0;
    let line = |_| {
        time += random.below(60) as i64;
        let key = format!("k{}", random.below(40));
        json!({ "partition": random.below(2), "key": key, "timestamp": time, "value": { "n": random.below(9) } })
    };
    let lines: String = (0..300).map(line).map(|line| format!("{line}\n")).collect();
    running.place.produce("NAME.in", &lines);
    running.until_done();
    let (_, lines, said) = running.replay("NAME.in/0@50", 20, &[]);
    let (told, each): (Vec<Json>, Vec<Json>) = lines.into_iter().partition(|line| line["topic"] == "p.told");
    assert_eq!(comparable(told.into_iter()), running.given(&["NAME.told"], "NAME.in/0", 50..70), "{said}");
    assert!(running.given(&["NAME.told"], "NAME.in/0", 50..70).iter().any(|told| told.contains("\"what\":\"end\"")), "{said}");
    // One for each group that the twenty have changed, as if they were one commit.
    let keys: BTreeSet<String> = each.iter().map(|line| line["key"].to_string()).collect();
    assert!(!each.is_empty() && keys.len() == each.len(), "{each:?}");
    for part in ["stage `each` gives its results at commits", "the global table `names` is looked up as it is now"] {
        assert!(said.contains(part), "{said}");
    }
}

const COPY: &str = "\
pipeline: NAMEcopy
sources: { raw: { topic: NAME.raw, schema: { id: int } } }
stages: [{ name: all, plugin: filter, with: { where: 'true' } }]
sinks: [{ from: all, topic: NAME.in }]
";

const COUNT: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { id: int } } }
stages: [{ name: n, plugin: aggregate, with: { compute: { n: count() } } }]
sinks: [{ from: n, topic: NAME.n, provenance: true }]
";

/// Kafka alone compacts.
#[test]
fn what_may_have_been_compacted_away_is_not_passed_over() {
    let Some(place) = Place::kafka() else { return };
    let admin = crate::cluster::Admin::new(crate::cluster::cluster().unwrap());
    admin.create(&place.named("NAME.in"), 1, &[("cleanup.policy", "compact")]);
    let running = Running::on(place, &["NAME.n"]);
    running.place.topic("NAME.raw", "1");
    running.place.write(COPY);
    for id in 0..3 {
        running.place.produce("NAME.raw", &format!("{{\"key\":\"k\",\"value\":{{\"id\":{id}}}}}\n"));
        running.place.run_well(&[]);
    }
    running.deploy(COUNT);
    until("all is counted", || running.records("NAME.n").len() == 3);
    // Behind each transaction stands its end, which a reader cannot tell from a record that is gone.
    let offsets: Vec<i64> = running.records("NAME.in").iter().map(|record| record["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [0, 2, 4]);
    assert_eq!(running.is_given_again(&["NAME.n"], "NAME.in/0", 0..1), 1);
    running.refused("NAME.in/0@4", &["the topic NAME.in is compacted, and of partition 0 the offsets 1 to 1 are missing"]);
}
