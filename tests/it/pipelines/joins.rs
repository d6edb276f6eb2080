//! Joins through the program, held against models: however batches are cut, over restarts, kills and repartition topics, on both logs.

use super::{Place, Random, failure, success, text, until};
use millstream::io::TopicPartition;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const ROWS: [&str; 3] = ["1", "7", "1000"];
const WITHIN: i64 = 5000;
const GRACE: i64 = 2000;

/// `ON`, `JOIN` and `LATE` are to be put in.
const STREAMS: &str = "\
pipeline: NAME
sources:
  left: { topic: NAME.left, schema: { n: int, k: text } }
  right: { topic: NAME.right, schema: { n: int, of: text } }
stages:
  - name: pairs
    from: [left, right]
    plugin: join
    LATE
    with: { ON within: 5s, grace: 2s, join: JOIN, fields: { l: left.n, r: right.n, at: right.$timestamp } }
sinks:
  - { from: pairs, topic: NAME.out }
";

const BY_FIELD: &str = "on: { left: k, right: of },";

fn streams(on: &str, join: &str) -> String {
    STREAMS.replace("ON", on).replace("JOIN", join).replace("    LATE\n", "")
}

/// A record of a side: its number, which is unlike any other's, its key and time.
#[derive(Clone, Copy, Debug)]
struct Given {
    left: bool,
    n: i64,
    key: u64,
    time: i64,
}

impl Given {
    fn line(&self, keyed: bool) -> String {
        let key = format!("k{}", self.key);
        let value = if self.left { json!({ "n": self.n, "k": key }) } else { json!({ "n": self.n, "of": key }) };
        format!("{}\n", json!({ "key": keyed.then_some(key), "timestamp": self.time, "value": value }))
    }
}

/// Records of both sides, of times that rise but for `back` milliseconds.
fn records(random: &mut Random, numbers: std::ops::Range<i64>, back: u64) -> Vec<Given> {
    let given = |n: i64| Given {
        left: random.below(2) == 0,
        n,
        key: random.below(8),
        time: 1_700_000_000_000 + n * 300 - random.below(back.max(1)) as i64,
    };
    numbers.map(given).collect()
}

fn produce(place: &Place, records: &[Given], keyed: bool) {
    for (topic, left) in [("NAME.left", true), ("NAME.right", false)] {
        let of_side = records.iter().filter(|record| record.left == left);
        place.produce(topic, &of_side.map(|record| record.line(keyed)).collect::<String>());
    }
}

/// The order in which a task takes two partitions: of the next two the one with the lower time, of equal times the left.
fn taken(records: &[Given]) -> Vec<Given> {
    let (mut left, mut right): (Vec<Given>, Vec<Given>) = records.iter().rev().partition(|record| record.left);
    let mut order = Vec::new();
    loop {
        let first = match (left.last(), right.last()) {
            (Some(one), Some(other)) if other.time < one.time => right.pop(),
            (None, _) => right.pop(),
            _ => left.pop(),
        };
        match first {
            Some(record) => order.push(record),
            None => return order,
        }
    }
}

/// A join in the plainest way.
#[derive(Default)]
struct Model {
    left_join: bool,
    stream_time: Option<i64>,
    records: Vec<(Given, bool)>,
    results: Vec<Value>,
    late: u64,
}

fn result(key: u64, time: i64, left: i64, right: Option<Given>) -> Value {
    json!([format!("k{key}"), time, left, right.map(|right| right.n), right.map(|right| right.time)])
}

impl Model {
    fn open(&self, time: i64) -> bool {
        self.stream_time.is_none_or(|now| now <= time + WITHIN + GRACE)
    }

    fn take(&mut self, record: Given) {
        let late = !self.open(record.time);
        let mut partners: Vec<usize> = (0..self.records.len())
            .filter(|place| {
                let other = self.records[*place].0;
                other.left != record.left && other.key == record.key && (other.time - record.time).abs() <= WITHIN && self.open(other.time)
            })
            .collect();
        partners.sort_by_key(|place| self.records[*place].0.time);
        self.stream_time = self.stream_time.max(Some(record.time));
        self.close();
        if late {
            self.late += 1;
            return;
        }
        for place in &partners {
            let (other, matched) = &mut self.records[*place];
            *matched = true;
            let (left, right) = if record.left { (record, *other) } else { (*other, record) };
            self.results.push(result(record.key, left.time.max(right.time), left.n, Some(right)));
        }
        self.records.push((record, !partners.is_empty()));
    }

    fn close(&mut self) {
        let closed: Vec<bool> = self.records.iter().map(|(record, _)| !self.open(record.time)).collect();
        let records = self.records.iter_mut().zip(&closed).filter(|((record, _), closed)| record.left && **closed && self.left_join);
        let alone = records.filter(|((_, matched), _)| !*matched);
        let mut alone: Vec<Given> = alone
            .map(|((record, matched), _)| {
                *matched = true;
                *record
            })
            .collect();
        alone.sort_by_key(|record| (record.time, record.key));
        self.results.extend(alone.into_iter().map(|record| result(record.key, record.time, record.n, None)));
    }

    fn close_all(&mut self) {
        self.stream_time = Some(i64::MAX / 2);
        self.close();
    }
}

fn results(place: &Place) -> Vec<Value> {
    let read = |line: String| {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = &record["value"];
        json!([record["key"], record["timestamp"], value["l"], value["r"], value["at"]])
    };
    place.consume("NAME.out").into_iter().map(read).collect()
}

fn report(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(success(&place.run(arguments)).trim()).unwrap()
}

#[test]
fn pairs_of_streams_are_those_of_a_model() {
    let mut random = Random::new();
    let records = records(&mut random, 0..700, 12_000);
    let (before, after) = records.split_at(300 + random.below(200) as usize);
    for join in ["inner", "left"] {
        let mut model = Model { left_join: join == "left", ..Model::default() };
        taken(before).into_iter().chain(taken(after)).for_each(|record| model.take(record));
        assert!(model.late > 20 && model.results.len() > 300, "{} late, {} results", model.late, model.results.len());
        let open = model.results.len();
        model.close_all();
        // Of an inner join nothing is open at the end; of a left one something is, by most seeds.
        assert!(join == "left" || model.results.len() == open);
        for rows in ROWS {
            // In two runs: the second one goes on where the first one stood.
            let place = Place::embedded();
            place.write(&streams("", join));
            let mut late = 0;
            for part in [before, after] {
                produce(&place, part, true);
                let told = &report(&place, &["--batch-rows", rows])["stages"][0];
                late += told["late"].as_u64().unwrap();
                // The sides come in turn: a batch holds both.
                assert!(rows != "1000" || told["calls"].as_u64().unwrap() < 10, "{told}");
            }
            assert_eq!(late, model.late, "{join}, batches of {rows}");
            let found = results(&place);
            let differs = found.iter().zip(&model.results).position(|(found, expected)| found != expected);
            assert!(
                found == model.results[..open],
                "{join}, batches of {rows}: {} of {open}, the first other one: {differs:?}",
                found.len()
            );
            report(&place, &["--batch-rows", rows, "--close-windows"]);
            assert!(results(&place) == model.results, "{join}, batches of {rows}: what was open at the end");
        }
    }
}

#[test]
fn late_records_may_become_dead_letters() {
    let place = Place::embedded();
    place.write(&streams("", "left").replace("    with:", "    on_late: { dead_letter: NAME.late }\n    with:"));
    let given = |left, n, time: i64| Given { left, n, key: 1, time: 100_000 + time };
    produce(&place, &[given(true, 1, 0), given(true, 2, 7001), given(true, 3, -1), given(false, 4, 2000)], true);
    let told = report(&place, &["--close-windows"]);
    assert_eq!(told["stages"][0]["late"], 1, "{told}");
    assert_eq!(results(&place), [json!(["k1", 102_000, 1, 4, 102_000]), json!(["k1", 107_001, 2, null, null])]);
    let letters = place.consume("NAME.late");
    assert!(letters.len() == 1 && letters[0].contains("\"millstream.error\":\"late\"") && letters[0].contains("\"n\":3"), "{letters:?}");
}

/// The state is as large as what is open.
#[test]
fn closed_records_leave_nothing_behind() {
    let mut random = Random::new();
    let place = Place::embedded();
    place.write(&streams("", "left"));
    produce(&place, &records(&mut random, 0..6000, 0), true);
    // Time goes on, and a commit drops what is closed.
    produce(&place, &[Given { left: false, n: 9000, key: 0, time: 1_700_000_000_000 + 90_000 * 300 }], true);
    place.run_well(&["--batch-rows", "1000"]);
    produce(&place, &[Given { left: false, n: 9001, key: 0, time: 1_700_000_000_000 + 90_001 * 300 }], true);
    place.run_well(&[]);
    let state = place.log().state("p").unwrap().unwrap();
    for (store, most) in [("pairs-left", 0), ("pairs-right", 2), ("pairs-index", 1)] {
        let rows = state.scan(store, 0, &[], None, 10_000).unwrap().len();
        assert!(rows <= most, "{store} has {rows} rows");
    }
}

/// Fields of one name have other types on the two sides, and a batch holds both. What stops a run stops it behind all that comes before, of either side.
#[test]
fn a_bad_record_of_one_side_stops_neither_before_it() {
    let manifest = "\
pipeline: p
sources:
  left: { topic: left, schema: { n: int } }
  right: { topic: right, schema: { n: text } }
stages:
  - { name: pairs, from: [left, right], plugin: join, with: { within: 5s, fields: { l: left.n, r: right.n } } }
sinks:
  - { from: pairs, topic: out }
";
    let place = Place::embedded();
    place.write(manifest);
    let line = |n: i64, value: Value| format!("{}\n", json!({ "key": "k", "timestamp": n * 10, "value": { "n": value } }));
    place.produce("left", &(0..40).step_by(2).map(|n| line(n, json!(n))).collect::<String>());
    let right = |n: i64| line(n, if n == 21 { json!(21) } else { json!(n.to_string()) });
    place.produce("right", &(1..40).step_by(2).map(right).collect::<String>());
    let told = failure(&place.run(&[]), 4);
    assert!(told.contains("right/0@10") && told.contains("field `n`"), "{told}");
    let pairs = |below: i64| -> Vec<Value> {
        let partners = |n: i64| (0..n).filter(move |other| (other + n) % 2 == 1 && *other != 21);
        let pair = |one: i64, other: i64| if one % 2 == 0 { json!([one, other.to_string()]) } else { json!([other, one.to_string()]) };
        (0..below).filter(|n| *n != 21).flat_map(|n| partners(n).map(move |other| pair(n, other))).collect()
    };
    let found = || -> Vec<Value> { place.field("out", "l").into_iter().zip(place.field("out", "r")).map(|(l, r)| json!([l, r])).collect() };
    assert_eq!(found(), pairs(21), "what is before it is committed");
    place.write(&format!("{manifest}on_error: skip\n"));
    assert_eq!(place.run_well(&[]), 19, "from the record on");
    assert_eq!(found(), pairs(40));
}

const KILLS: u64 = 5;

/// Every pair once, over a repartition topic and kills in the midst of runs.
fn survives_kills(place: &Place, workers: &[&str]) {
    const PART: i64 = 3000;
    place.write(&streams(BY_FIELD, "left").replace("    with:", "    on_late: { dead_letter: NAME.late }\n    with:"));
    place.topic("NAME.late", "1");
    place.topic("NAME.left", "3");
    place.topic("NAME.right", "3");
    place.topic("NAME.out", "1");
    let mut random = Random::new();
    let often = [&["--commit-interval", "5", "--batch-rows", "100"], workers].concat();
    let (log, out) = (place.log(), TopicPartition::new(place.named("NAME.out"), 0));
    let end = || log.bounds(&out).unwrap().end;
    let mut all = Vec::new();
    for part in 0..KILLS as i64 {
        let part = records(&mut random, part * PART..(part + 1) * PART, 1500);
        // Without keys they are spread in turn: partners meet behind the repartition topic only.
        produce(place, &part, false);
        all.extend(part);
        let enough = end() + 1 + random.below(PART as u64 / 2) as i64;
        let mut run = place.start(&often);
        until("the output grows", || end() >= enough || run.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        run.kill().unwrap();
        let ended = run.wait_with_output().unwrap();
        assert_eq!(ended.status.signal(), Some(9), "it ended by itself: {}{}", text(&ended.stdout), text(&ended.stderr));
    }
    drop(log);
    place.run_well(&[&often[..], &["--close-windows"]].concat());
    let told = report(place, &["--close-windows"]);
    assert_eq!(told["records"], 0, "a second run finds nothing to do: {told}");
    let late = place.consume("NAME.late");
    assert!(late.is_empty(), "{} are late: {:?}", late.len(), &late[..late.len().min(3)]);
    let mut model = Model { left_join: true, ..Model::default() };
    all.into_iter().for_each(|record| model.take(record));
    model.close_all();
    assert_eq!(model.late, 0);
    let order = |results: Vec<Value>| -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        results.into_iter().for_each(|result| *counts.entry(result.to_string()).or_default() += 1);
        counts
    };
    // In which order records of several tasks meet is a matter of timing; who meets whom is not.
    let (found, expected) = (order(results(place)), order(model.results));
    let other: Vec<_> = expected.iter().filter(|(result, count)| found.get(*result) != Some(count)).take(5).collect();
    let more: Vec<_> = found.iter().filter(|(result, _)| !expected.contains_key(*result)).take(5).collect();
    assert!(
        other.is_empty() && more.is_empty(),
        "{} of {}; missing or other: {other:?}; not expected: {more:?}",
        found.len(),
        expected.len()
    );
    assert!(expected.len() > 10_000);
}

#[test]
fn pairs_survive_kills() {
    survives_kills(&Place::embedded(), &[]);
}

#[test]
fn pairs_survive_kills_on_kafka() {
    let Some(place) = Place::kafka() else { return };
    survives_kills(&place, &["--workers", "2"]);
}

/// `JOIN` is to be put in.
const TABLES: &str = "\
pipeline: NAME
sources:
  names: { topic: NAME.names, schema: { name: text } }
  cities: { topic: NAME.cities, key: text, schema: { city: text? } }
stages:
  - { name: both, from: [names, cities], plugin: join, with: { of: tables, join: JOIN, fields: { name: left.name, city: right.city } } }
sinks:
  - { from: both, topic: NAME.out }
";

/// Changes of rows: key, whether of the left side, its text (none: deleted). Times rise.
type Change = (u64, bool, Option<String>, i64);

fn changes(random: &mut Random, numbers: std::ops::Range<i64>) -> Vec<Change> {
    let change = |n| (random.below(12), random.below(2) == 0, (random.below(4) > 0).then(|| format!("v{n}")), 1_700_000_000_000 + n);
    numbers.map(change).collect()
}

/// By key: results in their order.
fn joined_tables(changes: &[Change], left_join: bool) -> BTreeMap<String, Vec<Value>> {
    let mut rows: BTreeMap<u64, [Option<(String, i64)>; 2]> = BTreeMap::new();
    let mut results: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, left, value, time) in changes {
        let row = rows.entry(*key).or_default();
        let side = usize::from(!*left);
        let old = std::mem::replace(&mut row[side], value.clone().map(|value| (value, *time)));
        let other = row[1 - side].clone();
        if other.is_none() && !(left_join && *left && (old.is_some() || value.is_some())) {
            continue;
        }
        let gone = value.is_none() && (*left || !left_join);
        let text = |side: usize| row[side].as_ref().map(|(text, _)| text.clone());
        let value = if gone { Value::Null } else { json!({ "name": text(0), "city": text(1) }) };
        let time = other.map_or(*time, |(_, other)| other.max(*time));
        results.entry(format!("k{key}")).or_default().push(json!([value, time]));
    }
    results
}

fn tables_are_joined(place: &Place, join: &str, forget: bool) {
    place.write(&TABLES.replace("JOIN", join));
    for topic in ["NAME.names", "NAME.cities", "NAME.out"] {
        place.topic(topic, "3");
    }
    let mut random = Random::new();
    let mut all = Vec::new();
    for (part, rows) in (0..).zip(ROWS) {
        let changes = changes(&mut random, part * 400..(part + 1) * 400);
        for (topic, left, field) in [("NAME.names", true, "name"), ("NAME.cities", false, "city")] {
            let lines = changes.iter().filter(|change| change.1 == left).map(|(key, _, text, time)| {
                let value = text.as_ref().map(|text| json!({ field: text }));
                format!("{}\n", json!({ "key": format!("k{key}"), "timestamp": time, "value": value }))
            });
            place.produce(topic, &lines.collect::<String>());
        }
        all.extend(changes);
        if forget && part == 2 {
            std::fs::remove_dir_all(place.path().join("data/state")).unwrap();
        }
        assert_eq!(place.run_well(&["--batch-rows", rows, "--commit-interval", "5"]), 400);
    }
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in place.consume("NAME.out") {
        let mut record: Value = serde_json::from_str(&line).unwrap();
        let key = record["key"].as_str().unwrap().to_owned();
        found.entry(key).or_default().push(json!([record["value"].take(), record["timestamp"]]));
    }
    let expected = joined_tables(&all, join == "left");
    let wrong: Vec<_> = expected.iter().filter(|(key, results)| found.get(*key) != Some(results)).map(|(key, _)| key).collect();
    assert!(wrong.is_empty() && found.len() == expected.len(), "{join}: other results of {wrong:?}");
    assert!(expected.values().map(Vec::len).sum::<usize>() > 500);
}

#[test]
fn changes_of_tables_are_those_of_a_model() {
    for join in ["inner", "left"] {
        tables_are_joined(&Place::embedded(), join, false);
    }
}

#[test]
fn changes_of_tables_are_those_of_a_model_on_kafka() {
    let Some(place) = Place::kafka() else { return };
    tables_are_joined(&place, "left", true);
}

#[test]
fn sides_with_other_numbers_of_partitions_are_told() {
    let place = Place::embedded();
    place.write(&streams("", "inner"));
    place.topic("NAME.left", "3");
    place.topic("NAME.right", "2");
    let told = failure(&place.run(&[]), 3);
    assert!(told.contains("stage `pairs` joins by the records' keys, but `p.left` has 3 partitions and `p.right` has 2"), "{told}");
    let told = failure(&place.call(&["check", "pipeline.yaml"]), 3);
    assert!(told.contains("records of one key would not meet") && told.contains("give both topics as many partitions"), "{told}");
    // Through a repartition topic they would meet, but not in the order of time.
    place.write(&streams(BY_FIELD, "inner"));
    let told = failure(&place.run(&[]), 3);
    assert!(told.contains("a worker could read one side ahead of the other"), "{told}");
    let place = Place::embedded();
    place.write(&streams(BY_FIELD, "inner"));
    let told = success(&place.call(&["check", "pipeline.yaml"]));
    assert!(told.contains("topic p.pairs.repartition: of the pipeline's own; brings records together by `k` and `of`"), "{told}");
    place.run_well(&[]);
}

/// Keys that are written in two ways meet as text, a stage may stand before a side, and a result has what they met by as its key.
#[test]
fn keys_of_two_formats_meet() {
    let place = Place::embedded();
    place.write(
        "\
pipeline: NAME
sources:
  left: { topic: NAME.left, key: json, schema: { n: int } }
  right: { topic: NAME.right, schema: { n: text } }
stages:
  - { name: some, from: left, plugin: filter, with: { where: n != 2 } }
  - { name: pairs, from: [some, right], plugin: join, with: { within: 1s, join: left, fields: { l: left.n, r: right.n, k: left.$key } } }
sinks:
  - { from: pairs, topic: NAME.out }
",
    );
    place.topic("NAME.left", "2");
    place.topic("NAME.right", "2");
    let left = |key: &str, n: i64| format!("{}\n", json!({ "key": key, "timestamp": 5, "value": { "n": n } }));
    place.produce("NAME.left", &[left("7", 1), left("7", 2), left("\"a\"", 3), left("\"b\"", 4)].concat());
    place.produce(
        "NAME.right",
        &["7", "a"].map(|key| format!("{}\n", json!({ "key": key, "timestamp": 6, "value": { "n": key } }))).concat(),
    );
    place.run_well(&["--close-windows"]);
    let mut found: Vec<Value> = place.consume("NAME.out").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    found.sort_by_key(|record| record["value"]["l"].as_i64());
    let shown: Vec<Value> = found.into_iter().map(|record| json!([record["key"], record["value"], record["timestamp"]])).collect();
    let expected = [
        json!(["7", { "l": 1, "r": "7", "k": "7" }, 6]),
        json!(["a", { "l": 3, "r": "a", "k": "a" }, 6]),
        json!(["b", { "l": 4, "r": null, "k": "b" }, 5]),
    ];
    assert_eq!(shown, expected);
}
