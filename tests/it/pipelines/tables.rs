//! Partitioned tables: each record meets the row as of its own place, on both logs, over restarts and lost copies of state; what is not
//! partitioned alike is told, or brought together.

use super::{Place, Random, failure, success};
use serde_json::{Value, json};
use std::collections::HashMap;

/// `ON` and `JOIN` are to be put in.
const MANIFEST: &str = "\
pipeline: NAME
sources:
  events: { topic: NAME.events, tombstones: drop, schema: { user: text? } }
tables:
  users: { topic: NAME.users, scope: partitioned, schema: { level: text? } }
stages:
  - { name: joined, plugin: enrich, with: { table: users, on: ON, join: left, add: { level: users.level } } }
sinks:
  - { from: joined, topic: NAME.out }
on_error: ERRORS
";

fn manifest(on: &str) -> String {
    MANIFEST.replace("ON", on).replace("ERRORS", "fail")
}

/// Records of both topics, in the order of time: a user's row changes or goes, events name users.
struct Input {
    users: Vec<Value>,
    events: Vec<Value>,
    /// By the event's number, the level that its user had.
    expected: HashMap<u64, Value>,
}

fn input(random: &mut Random, count: u64, from: u64, levels: &mut HashMap<String, Value>) -> Input {
    let mut input = Input { users: Vec::new(), events: Vec::new(), expected: HashMap::new() };
    for n in from..from + count {
        // Several have the same time: then the table's comes first, in the order in which they stand here.
        let time = 1_700_000_000_000 + n / 4 * 1000;
        let user = format!("u{}", random.below(20));
        if n % 4 < 2 {
            let level = match random.below(5) {
                0 => Value::Null,
                _ => json!(format!("level {n}")),
            };
            let value = if level.is_null() { Value::Null } else { json!({ "level": level }) };
            levels.insert(user.clone(), level);
            input.users.push(json!({ "key": user, "timestamp": time, "value": value }));
        } else {
            input.expected.insert(n, levels.get(&user).cloned().unwrap_or(Value::Null));
            input.events.push(json!({ "key": user, "timestamp": time, "value": { "n": n, "user": user } }));
        }
    }
    input
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

fn found(place: &Place) -> HashMap<u64, Value> {
    let records: Vec<Value> = place.consume("NAME.out").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: HashMap<_, _> =
        records.iter().map(|record| (record["value"]["n"].as_u64().unwrap(), record["value"]["level"].clone())).collect();
    assert_eq!(found.len(), records.len(), "some came twice");
    found
}

fn place(kafka: bool, manifest: &str, events: &str, users: &str) -> Option<Place> {
    let place = if kafka { Place::kafka()? } else { Place::embedded() };
    place.write(manifest);
    place.topic("NAME.events", events);
    place.topic("NAME.users", users);
    place.topic("NAME.out", events);
    Some(place)
}

/// Runs over parts of the input, with what `between` does before the second and each later one; compares with the model.
fn as_of_its_place(place: &Place, between: &[&dyn Fn(&Place)]) {
    let mut random = Random::new();
    let mut levels = HashMap::new();
    let mut expected = HashMap::new();
    for part in 0..=between.len() {
        let input = input(&mut random, 1200, part as u64 * 1200, &mut levels);
        place.produce("NAME.users", &lines(&input.users));
        place.produce("NAME.events", &lines(&input.events));
        expected.extend(input.expected);
        if let Some(meddle) = part.checked_sub(1).and_then(|part| between.get(part)) {
            meddle(place);
        }
        let rows = (1 + random.below(100)).to_string();
        let taken = place.run_well(&["--batch-rows", &rows, "--commit-interval", "5"]);
        assert_eq!(taken, 600, "records of tables count as none of the sources'");
        let found = found(place);
        let wrong = expected.iter().filter(|(n, level)| found.get(n) != Some(level));
        let wrong: Vec<_> = wrong.map(|(n, level)| (n, level, found.get(n))).take(5).collect();
        assert!(wrong.is_empty(), "part {part}, {} of {} events: {wrong:?}", found.len(), expected.len());
    }
}

fn forget(place: &Place) {
    std::fs::remove_dir_all(place.path().join("data/state")).unwrap();
}

#[test]
fn records_meet_rows_as_of_their_own_place() {
    as_of_its_place(&place(false, &manifest("$key"), "3", "3").unwrap(), &[&|_| {}, &|_| {}]);
}

#[test]
fn records_meet_rows_as_of_their_own_place_on_kafka() {
    let Some(place) = place(true, &manifest("$key"), "3", "3") else { return };
    as_of_its_place(&place, &[&|_| {}, &forget]);
    // The table is state like any: a changelog that anybody can read.
    let rows = place.consume("NAME.users.changelog");
    assert!(rows.iter().any(|row| row.contains("\"level\":\"level ")), "{rows:?}");
}

/// The stream's keys are others, and its partitions fewer: it goes through a topic that is spread as the table is.
#[test]
fn a_stream_with_other_keys_is_brought_to_the_tables_partitions() {
    as_of_its_place(&place(false, &manifest("user"), "1", "3").unwrap(), &[&|_| {}, &|_| {}]);
}

#[test]
fn a_stream_with_other_keys_is_brought_to_the_tables_partitions_on_kafka() {
    let Some(place) = place(true, &manifest("user"), "1", "3") else { return };
    as_of_its_place(&place, &[&forget]);
}

#[test]
fn key_formats_meet_by_a_repartition() {
    let manifest = manifest("$key").replace("topic: NAME.users,", "topic: NAME.users, key: json,");
    let place = place(false, &manifest, "2", "3").unwrap();
    let shown = success(&place.call(&["check", "pipeline.yaml"]));
    assert!(shown.contains("brings records together by their key, as the keys of the table's topic p.users"), "{shown}");
    let users: Vec<_> =
        (0..50).map(|n| json!({ "key": format!("\"u{n}\""), "timestamp": 1, "value": { "level": n.to_string() } })).collect();
    let events: Vec<_> = (0..50).map(|n| json!({ "key": format!("u{n}"), "timestamp": 2, "value": { "n": n } })).collect();
    place.produce("NAME.users", &lines(&users));
    place.produce("NAME.events", &lines(&events));
    place.run_well(&[]);
    assert_eq!(found(&place), (0..50).map(|n| (n, json!(n.to_string()))).collect());
}

/// A run that goes on reads a table to its end before the first record that is later than it.
#[test]
fn a_run_that_goes_on_waits_for_the_table() {
    let Some(place) = place(true, &manifest("$key"), "2", "2") else { return };
    let users: Vec<_> = (0..20_000).map(|n| json!({ "key": format!("u{n}"), "timestamp": 1, "value": { "level": "x" } })).collect();
    let events: Vec<_> = (0..2000).map(|n| json!({ "key": format!("u{}", n * 10), "timestamp": 2, "value": { "n": n } })).collect();
    place.produce("NAME.events", &lines(&events));
    place.produce("NAME.users", &lines(&users));
    let mut run = place.start(&[]);
    super::until("all events are joined", || {
        if run.try_wait().unwrap().is_some() {
            let mut told = String::new();
            std::io::Read::read_to_string(&mut run.stderr.take().unwrap(), &mut told).unwrap();
            panic!("the run ended: {told}");
        }
        place.consume("NAME.out").len() == 2000
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(found(&place).values().all(|level| level == "x"));
}

#[test]
fn topics_with_other_partitions_are_told() {
    let place = place(false, &manifest("$key"), "2", "3").unwrap();
    place.produce("NAME.events", "{\"key\":\"a\",\"value\":{}}\n");
    for told in [failure(&place.run(&[]), 3), failure(&place.call(&["check", "pipeline.yaml"]), 3)] {
        assert!(told.contains("has 3 partitions, but `p.events` has 2") && told.contains("$key: $key"), "{told}");
    }
    // What is proposed works.
    let proposed = manifest("$key").replace("stages:\n", "stages:\n  - { name: keyed, plugin: map, with: { set: { $key: $key } } }\n");
    place.write(&proposed);
    assert_eq!(place.run_well(&[]), 1);
}

#[test]
fn keys_in_the_wrong_partition_stop_the_run() {
    let wrong = |topic: &str, value: Value| {
        let place = place(false, &manifest("$key"), "3", "3").unwrap();
        let right = json!({ "key": "u1", "value": value });
        place.produce(topic, &lines(&vec![right; 3]));
        let lies: Value = serde_json::from_str(&place.consume(topic)[0]).unwrap();
        let other = (lies["partition"].as_u64().unwrap() + 1) % 3;
        place.produce(topic, &lines(&[json!({ "key": "u1", "value": value, "partition": other })]));
        failure(&place.run(&[]), 6)
    };
    let told = wrong("NAME.events", json!({ "n": 1 }));
    assert!(told.contains("p.events/") && told.contains("murmur2") && told.contains("$key: $key"), "{told}");
    let told = wrong("NAME.users", json!({ "level": "x" }));
    assert!(told.contains("p.users/") && told.contains("scope: global"), "{told}");
}

#[test]
fn rows_that_cannot_be_read_get_the_pipelines_policy() {
    let users = lines(&[
        json!({ "key": "a", "timestamp": 1, "value": { "level": "x" } }),
        json!({ "key": "a", "timestamp": 2, "value": { "level": 5 } }),
        json!({ "timestamp": 3, "value": { "level": "no key" } }),
    ]);
    for (errors, dead) in [("skip", 0), ("{ dead_letter: NAME.dead }", 2)] {
        let place = place(false, &MANIFEST.replace("ON", "$key").replace("ERRORS", errors), "1", "1").unwrap();
        place.produce("NAME.users", &users);
        place.produce("NAME.events", "{\"key\":\"a\",\"timestamp\":9,\"value\":{\"n\":1}}\n");
        place.run_well(&[]);
        assert_eq!(found(&place), HashMap::from([(1, json!("x"))]), "the row before stays");
        if dead > 0 {
            let letters = place.consume("NAME.dead");
            assert_eq!(letters.len(), dead, "{letters:?}");
            assert!(letters.iter().all(|letter| letter.contains("\"millstream.stage\":\"users\"")), "{letters:?}");
        }
    }
    let place = place(false, &manifest("$key"), "1", "1").unwrap();
    place.produce("NAME.users", &users);
    let told = failure(&place.run(&[]), 4);
    assert!(told.contains("source `users`") && told.contains("p.users/0@1"), "{told}");
}
