//! What comes out does not depend on how the input is cut into batches: merges, several sources, several partitions.

use super::{Place, success};
use serde_json::json;
use std::collections::BTreeMap;

const ROWS: [&str; 3] = ["1", "7", "1000"];

/// Runs a pipeline on the same input with each size of batches; the outputs, which are equal.
fn alike(manifest: &str, inputs: &[(&str, &str, String)], outputs: &[&str]) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<Vec<String>>> = Vec::new();
    for rows in ROWS {
        let place = Place::embedded();
        place.write(manifest);
        for (topic, partitions, lines) in inputs {
            place.topic(topic, partitions);
            place.produce(topic, lines);
        }
        place.run_well(&["--batch-rows", rows]);
        found.push(outputs.iter().map(|topic| place.consume(topic)).collect());
    }
    for (other, rows) in found[1..].iter().zip(&ROWS[1..]) {
        for ((one, other), topic) in found[0].iter().zip(other).zip(outputs) {
            assert_eq!(one, other, "{topic}: batches of 1 and of {rows}");
        }
    }
    found.remove(0)
}

fn values(records: &[String], field: &str) -> Vec<serde_json::Value> {
    records.iter().map(|record| serde_json::from_str::<serde_json::Value>(record).unwrap()["value"][field].clone()).collect()
}

#[test]
fn merged_branches_keep_the_order_of_the_records() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, schema: { n: int } }
stages:
  - { name: even, from: in, plugin: filter, with: { where: 'n % 2 == 0' } }
  - { name: three, from: in, plugin: filter, with: { where: 'n % 3 == 0' } }
  - { name: tag, from: three, plugin: map, with: { set: { tag: '\"three\"' } } }
  - { name: both, from: [even, tag], plugin: map, with: { set: { twice: 'n * 2' } } }
sinks:
  - { from: both, topic: out }
  - { from: [even, tag, in], topic: merged }
";
    let lines: String = (0..50)
        .map(|n| match n {
            6 | 13 => format!("{{\"key\":\"{n}\",\"value\":null,\"timestamp\":{n}}}\n"),
            _ => format!("{{\"key\":\"{}\",\"value\":{{\"n\":{n}}},\"timestamp\":{n}}}\n", n % 5),
        })
        .collect();
    let outputs = alike(manifest, &[("in", "1", lines)], &["out", "merged"]);
    let expected: Vec<_> = (0..50)
        .flat_map(|n| match n {
            // Tombstones pass every filter, so both branches.
            6 | 13 => vec![json!(null); 2],
            _ => vec![json!(n); usize::from(n % 2 == 0) + usize::from(n % 3 == 0)],
        })
        .collect();
    assert_eq!(values(&outputs[0], "n"), expected);
    assert_eq!(outputs[1].len(), expected.len() + 50);
}

#[test]
fn merged_keys_keep_the_format_of_their_branch() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, key: json, schema: { n: int } }
stages:
  - { name: own, plugin: map, with: { set: { $key: '\"own \" + string(n)' } } }
sinks:
  - { from: [in, own], topic: out, key: text }
";
    // Keys as JSON texts: `\"came 0\"`.
    let lines: String = (0..9).map(|n| format!("{{\"key\":\"\\\"came {n}\\\"\",\"value\":{{\"n\":{n}}},\"timestamp\":{n}}}\n")).collect();
    let outputs = alike(manifest, &[("in", "1", lines)], &["out"]);
    let keys: Vec<_> = outputs[0].iter().map(|record| serde_json::from_str::<serde_json::Value>(record).unwrap()["key"].clone()).collect();
    assert_eq!(keys, (0..9).flat_map(|n| [json!(format!("came {n}")), json!(format!("own {n}"))]).collect::<Vec<_>>());
}

fn keys(records: &[String]) -> Vec<String> {
    let key = |record: &String| serde_json::from_str::<serde_json::Value>(record).unwrap()["key"].as_str().unwrap().to_owned();
    records.iter().map(key).collect()
}

/// Records of these keys, as they stand in the topic.
fn keyed(keys: &[&str]) -> String {
    let line = |(n, key): (usize, &&str)| format!("{}\n", json!({ "key": key, "value": { "n": n }, "timestamp": n }));
    keys.iter().enumerate().map(line).collect()
}

#[test]
fn masked_keys_stay_in_the_format_of_their_source() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, key: json, schema: { n: int } }
stages:
  - { name: clean, plugin: mask, with: { rules: [{ fields: $key, card: { keep_last: 4 } }] } }
sinks:
  - { from: clean, topic: same }
  - { from: clean, topic: json, key: json }
  - { from: clean, topic: text, key: text }
";
    // Batches of 7 without any that changes, with some, with all.
    let plain = ["\"a\"", "1", "[2]", "{\"u\":3}", "\"4\"", "true", "\"b c\""];
    let card = "\"4444-3333-2222-1111\"";
    let some = ["\"a\"", card, "{\"card\":\"4444333322221111\"}", "4444333322221111", "\"b\"", "5", "null"];
    let outputs = alike(manifest, &[("in", "1", keyed(&[plain, some, [card; 7]].concat()))], &["same", "json", "text"]);
    let masked = "\"xxxx-xxxx-xxxx-1111\"";
    let expected = ["\"a\"", masked, "{\"card\":\"xxxxxxxxxxxx1111\"}", "\"xxxxxxxxxxxx1111\"", "\"b\"", "5", "null"];
    let expected = [plain, expected, [masked; 7]].concat();
    assert_eq!(keys(&outputs[0]), expected);
    assert_eq!(keys(&outputs[1]), expected);
    assert_eq!(keys(&outputs[2]), expected.iter().map(|key| key.trim_matches('"')).collect::<Vec<_>>());
}

/// Keys that `map` made are text, whatever those of the source are, for the stages behind too.
#[test]
fn keys_of_several_formats_are_handed_over_as_text() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, key: json, schema: { n: int } }
stages:
  - { name: own, plugin: map, with: { set: { $key: '\"own \" + string(n % 2)' } } }
  - { name: hidden, plugin: mask, with: { rules: [{ fields: $key, whole: { with: hidden } }] } }
  - { name: both, from: [in, own], plugin: mask, with: { rules: [{ fields: $key, replace: { '1': one } }] } }
sinks:
  - { from: hidden, topic: hidden, key: json }
  - { from: both, topic: both, key: json }
";
    let outputs = alike(manifest, &[("in", "1", keyed(&["\"own 1\"", "\"0\"", "2", "\"1\""]))], &["hidden", "both"]);
    assert_eq!(keys(&outputs[0]), ["\"hidden\""; 4]);
    let expected = ["own one", "own 0", "0", "own one", "2", "own 0", "one", "own one"];
    assert_eq!(keys(&outputs[1]), expected.map(|key| format!("\"{key}\"")));
}

#[test]
fn keys_of_several_formats_meet_as_text() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, key: json, schema: { n: int } }
stages:
  - { name: own, plugin: map, with: { set: { $key: '\"own \" + string(n % 2)' } } }
  - { name: counted, from: [in, own], plugin: aggregate, with: { group_by: [$key], compute: { count: count() } } }
sinks:
  - { from: counted, topic: counted, key: json }
";
    for rows in ROWS {
        let place = Place::embedded();
        place.write(manifest);
        place.topic("in", "3");
        place.produce("in", &keyed(&["\"own 1\"", "\"own 1\"", "2", "\"own 0\""]));
        place.run_well(&["--batch-rows", rows]);
        let records = place.consume("counted");
        let mut counts: Vec<_> = keys(&records).into_iter().zip(values(&records, "count")).map(|(key, n)| format!("{key} {n}")).collect();
        counts.sort();
        let expected = ["2", "own 0", "own 0", "own 0", "own 1", "own 1", "own 1", "own 1"].iter().zip([1, 1, 2, 3, 1, 2, 3, 4]);
        assert_eq!(counts, expected.map(|(key, n)| format!("\"{key}\" {n}")).collect::<Vec<_>>(), "batches of {rows}");
    }
}

#[test]
fn two_sources_meet_in_the_order_of_their_times() {
    let manifest = "\
pipeline: NAME
sources:
  a: { topic: a, time: { field: t }, schema: { n: int, t: int } }
  b: { topic: b, schema: { n: int } }
stages:
  - { name: total, from: [a, b], plugin: aggregate, with: { group_by: [n], compute: { count: count(), total: sum(n) } } }
sinks:
  - { from: total, topic: totals }
  - { from: a, topic: a2 }
";
    let line = |n: usize| format!("{{\"key\":\"{n}\",\"value\":{{\"n\":{},\"t\":{}}},\"timestamp\":{}}}\n", n % 3, n * 7 % 40, n);
    let a: String = (0..40).filter(|n| n % 3 != 0).map(line).collect();
    let b: String = (0..40).filter(|n| n % 3 == 0).map(line).collect();
    let outputs = alike(manifest, &[("a", "1", a), ("b", "1", b)], &["totals", "a2"]);
    assert_eq!(values(&outputs[0], "n"), (0..40).map(|n| json!(n % 3)).collect::<Vec<_>>());
    assert_eq!(outputs[1].len(), 26);
}

#[test]
fn groups_over_several_partitions_lose_no_record_to_a_clock_that_is_ahead() {
    let manifest = "\
pipeline: NAME
sources:
  in: { topic: in, schema: { n: int, group: text } }
stages:
  - { name: total, plugin: aggregate, with: { group_by: [group], window: { tumbling: 10ms, grace: 3ms }, compute: { count: count(), total: sum(n) } } }
sinks:
  - { from: total, topic: totals }
";
    let lines: String = (0..900)
        .map(|n| format!("{{\"key\":\"{n}\",\"value\":{{\"n\":{n},\"group\":\"{}\"}},\"timestamp\":{}}}\n", n % 4, 1000 + n))
        .collect();
    let mut expected: BTreeMap<(String, u64), (u64, u64)> = BTreeMap::new();
    for n in 0..900 {
        let (count, total) = expected.entry(((n % 4).to_string(), (1000 + n) / 10 * 10)).or_default();
        *count += 1;
        *total += n;
    }
    for (rows, partitions) in [("1", "3"), ("7", "3"), ("1000", "3"), ("50", "1")] {
        let place = Place::embedded();
        place.write(manifest);
        place.topic("in", partitions);
        place.produce("in", &lines);
        let report: serde_json::Value = serde_json::from_str(success(&place.run(&["--batch-rows", rows])).trim()).unwrap();
        assert_eq!((&report["records"], &report["stages"][0]["late"]), (&json!(900), &json!(0)), "{report}");
        let mut last = BTreeMap::new();
        for record in place.consume("totals") {
            let value = serde_json::from_str::<serde_json::Value>(&record).unwrap()["value"].clone();
            let at = (value["group"].as_str().unwrap().to_owned(), value["window_start"].as_u64().unwrap());
            last.insert(at, (value["count"].as_u64().unwrap(), value["total"].as_u64().unwrap()));
        }
        assert!(last == expected, "{rows} rows a batch, {partitions} partitions: {last:?}");
    }
}
