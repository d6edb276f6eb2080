//! `millstream why` of results of stages with state: the store, the key and the version of the row that a record was made from, and where that row stands in the
//! changelog. What it tells is held against the changelog as anybody reads it: its rows count, so which of them a result belongs to follows from the counts.

use super::Place;
use super::Random;
use super::replays::{Running, numbered};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const STAGES: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { id: int, g: int } } }
stages:
  - { name: all, plugin: aggregate, with: { compute: { n: count() } } }
  - { name: shown, plugin: map, from: all, with: { set: { twice: 'n + n' } } }
  - { name: hops, plugin: aggregate, from: in, store: hopping, with: { window: { hopping: 200ms, advance: 100ms, grace: 100s }, compute: { n: count() } } }
  - { name: closed, plugin: aggregate, from: in, with: { window: { tumbling: 100ms, grace: 50ms }, emit: final, compute: { n: count() } } }
  - { name: visits, plugin: aggregate, from: in, with: { window: { session: 60ms }, emit: final, compute: { n: count() } } }
  - { name: changed, plugin: aggregate, from: in, with: { emit: changes, compute: { n: count() } } }
sinks:
  - { from: shown, topic: NAME.all, provenance: true }
  - { from: hops, topic: NAME.hops, provenance: true }
  - { from: closed, topic: NAME.closed, provenance: true }
  - { from: visits, topic: NAME.visits, provenance: true }
  - { from: changed, topic: NAME.changed, provenance: true }
";
const TOPICS: [&str; 6] = ["NAME.in", "NAME.all", "NAME.hops", "NAME.closed", "NAME.visits", "NAME.changed"];

fn place_of(topic: &str, record: &Json) -> String {
    format!("{topic}/{}@{}", record["partition"], record["offset"])
}

/// The records of a store's changelog by partition and key: offset, and the count of the row; None = deleted.
fn changelog(running: &Running, store: &str) -> BTreeMap<(i64, String), Vec<(i64, Option<i64>)>> {
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in running.records(&format!("NAME.{store}.changelog")) {
        let at = (record["partition"].as_i64().unwrap(), record["key"].as_str().unwrap().to_owned());
        rows.entry(at).or_default().push((record["offset"].as_i64().unwrap(), record["value"]["n"].as_i64()));
    }
    rows
}

/// What is told of the results of a stage: each is of the row whose count it gives.
fn follow(
    running: &Running,
    topic: &str,
    store: &str,
    key: impl Fn(&Json) -> String,
    window: impl Fn(&Json) -> Json,
    closed: bool,
) -> usize {
    let kafka = running.place.brokers.is_some();
    let changelog = if kafka { changelog(running, store) } else { BTreeMap::new() };
    let records = running.records(topic);
    let every = records.len().div_ceil(12);
    let mut known = 0;
    for record in records.iter().step_by(every) {
        let why = running.good(&["why", &place_of(topic, record)]);
        let row = &why["row"];
        let version = row["version"].as_str().unwrap();
        assert_eq!((row["store"].as_str(), &row["key"], &row["window"]), (Some(store), &record["key"], &window(record)), "{why}");
        assert!(version.starts_with("[[\"$time\",\"int\"]") && version.ends_with("[\"n\",\"int\"]]"), "{why}");
        if !kafka {
            assert!(row["changelog"].is_null() && row["why_not"].as_str().unwrap().contains("there is no changelog"), "{why}");
            continue;
        }
        // A key's records are of the partition that it was read from.
        let task = row["task"].as_i64().unwrap();
        assert_eq!(Some(task), record["key"].as_str().unwrap()[1..2].parse().ok(), "{why}");
        let rows = &changelog[&(task, key(record))];
        let n = record["value"]["n"].as_i64().unwrap();
        let told = &row["changelog"];
        assert_eq!(
            (told["topic"].as_str(), told["partition"].as_i64()),
            (Some(&*running.place.named(&format!("NAME.{store}.changelog"))), Some(task)),
            "{why}"
        );
        assert_eq!((told["committed"].as_str(), told["deleted"].as_bool()), (Some("with"), Some(closed)), "{why}");
        let (expected, before) = if closed {
            // The last row that there was, and its end.
            let end = rows.iter().position(|(_, row)| row.is_none()).unwrap();
            (rows[end].0, end.checked_sub(1).map(|last| rows[last]))
        } else {
            // Counts rise: the first commit that has counted so far.
            (rows.iter().find(|(_, row)| row.is_some_and(|counted| counted >= n)).unwrap().0, None)
        };
        assert_eq!(told["offset"].as_i64(), Some(expected), "{why}: {record} {rows:?}");
        if closed {
            assert_eq!(told["before"]["offset"].as_i64(), before.map(|(offset, _)| offset), "{why}: {record} {rows:?}");
            // What the commit that closed it has counted itself, never stood there.
            assert!(before.is_none_or(|(_, counted)| counted <= Some(n)), "{record} {rows:?}");
        } else {
            assert_eq!(told["version"].as_str(), Some(version), "{why}");
        }
        known += 1;
    }
    known
}

#[test]
fn a_result_names_the_row_that_it_was_made_from_and_where_that_stands() {
    let mut random = Random::new();
    for mut running in Running::each(&TOPICS) {
        running.deploy(STAGES);
        for piece in 0..6 {
            running.place.produce("NAME.in", &numbered(&mut random, piece * 40..piece * 40 + 40));
            running.until_done();
            if piece == 2 {
                running.restart();
            }
        }
        let plain = |record: &Json| record["key"].as_str().unwrap().to_owned();
        let windowed = |record: &Json| json!({ "key": record["key"], "start": record["value"]["window_start"] }).to_string();
        let window = |record: &Json| json!({ "start": record["value"]["window_start"], "end": record["value"]["window_end"] });
        let session = |record: &Json| json!({ "key": record["key"], "start": record["value"]["window_end"] }).to_string();
        let last = |record: &Json| json!({ "last": record["value"]["window_end"] });
        let known = [
            follow(&running, "NAME.all", "all", plain, |_| Json::Null, false),
            follow(&running, "NAME.hops", "hopping", windowed, window, false),
            follow(&running, "NAME.closed", "closed", windowed, window, true),
            follow(&running, "NAME.visits", "visits", session, last, true),
            follow(&running, "NAME.changed", "changed", plain, |_| Json::Null, false),
        ];
        assert!(running.place.brokers.is_none() || known.iter().all(|known| *known > 4), "{known:?}");
        // In words too.
        let record = &running.records("NAME.hops")[0];
        let output = running.place.call(&["why", &place_of("NAME.hops", record), "--fleet", "NAME"]);
        let said = super::success(&output);
        let row = format!(
            "made from the row of store hopping, task {}: key {}, window ",
            &record["key"].as_str().unwrap()[1..2],
            record["key"].as_str().unwrap()
        );
        assert!(said.contains(&row) && said.contains("version ($time: int, n: int)"), "{said}");
        assert_eq!(said.contains("it was written with the record at"), running.place.brokers.is_some(), "{said}");
    }
}

const HIDDEN: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { card: text, n: int } } }
stages:
  - { name: cards, plugin: aggregate, with: { group_by: [card], compute: { n: count() } } }
  - { name: hidden, plugin: map, with: { set: { $key: '\"none\"' }, remove: [card] } }
sinks: [{ from: hidden, topic: NAME.out, provenance: true }]
";

/// What a stage behind the state hides does not come back in a header.
#[test]
fn a_key_that_the_record_hides_is_not_told() {
    for running in Running::each(&["NAME.in", "NAME.out"]) {
        running.deploy(HIDDEN);
        running.place.produce("NAME.in", "{\"key\":\"a\",\"value\":{\"card\":\"4111111111111111\",\"n\":1}}\n");
        super::until("it comes out", || running.records("NAME.out").len() == 1);
        let record = running.records("NAME.out").remove(0);
        assert!(!record.to_string().contains("4111"), "{record}");
        let why = running.good(&["why", &place_of("NAME.out", &record)]);
        assert_eq!((&why["row"]["store"], &why["row"]["key"]), (&json!("cards"), &Json::Null), "{why}");
        assert!(why["row"]["why_not"].as_str().unwrap().contains("may be meant to hide it") && !why.to_string().contains("4111"), "{why}");
    }
}

const JOINED: &str = "\
pipeline: NAME
sources:
  left: { topic: NAME.in, schema: { id: int, g: int } }
  right: { topic: NAME.right, schema: { id: int, g: int } }
stages:
  - { name: rows, from: [left, right], plugin: join, with: { of: tables, join: left, fields: { l: left.id, r: right.id } } }
  - { name: pairs, from: [left, right], plugin: join, with: { within: 1h, fields: { l: left.id, r: right.id } } }
sinks:
  - { from: rows, topic: NAME.rows, provenance: true }
  - { from: pairs, topic: NAME.pairs, provenance: true }
";

#[test]
fn of_a_join_the_row_is_named_where_it_is_one() {
    let running = Running::on(Place::embedded(), &["NAME.in", "NAME.right", "NAME.rows", "NAME.pairs"]);
    running.deploy(JOINED);
    for topic in ["NAME.in", "NAME.right"] {
        running.place.produce(topic, "{\"partition\":1,\"key\":\"k\",\"value\":{\"id\":1,\"g\":2},\"timestamp\":5}\n");
    }
    running.until_done();
    let why = |topic: &str| running.good(&["why", &place_of(topic, running.records(topic).last().unwrap())])["row"].clone();
    let row = why("NAME.rows");
    assert_eq!((&row["store"], &row["key"], &row["task"]), (&json!("rows"), &json!("k"), &json!(1)), "{row}");
    let row = why("NAME.pairs");
    assert!(row["store"].is_null() && row["why_not"].as_str().unwrap().contains("which row it was is not told"), "{row}");
}
