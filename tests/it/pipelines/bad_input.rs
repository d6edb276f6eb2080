//! Records that cannot be processed: none stops or loses another.

use super::{Place, failure, success};
use serde_json::{Value, json};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { id: int, stars: int } }
tables:
  users: { topic: NAME.users, schema: { id: int, name: text? } }
stages:
  - { name: good, plugin: filter, with: { where: 'stars > 1' } }
  - { name: clean, plugin: mask, with: { rules: [{ fields: '**', card: { keep_last: 4 } }] } }
  - { name: named, plugin: enrich, with: { table: users, on: id, join: left, add: { name: users.name } } }
sinks:
  - { from: named, topic: NAME.out, create: true }
on_error: POLICY
";

const STATELESS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { id: int, stars: int } }
stages:
  - { name: good, plugin: filter, with: { where: 'stars > 1' } }
sinks:
  - { from: good, topic: NAME.out, create: true }
on_error: POLICY
";

const DEAD: &str = "{ dead_letter: NAME.dead }";

/// A line of each kind, and what is wrong with it; None: nothing.
fn input() -> Vec<(String, Option<&'static str>)> {
    let good = |id: usize| (json!({ "key": id.to_string(), "value": { "id": id, "stars": 5 }, "timestamp": 1000 + id }).to_string(), None);
    let raw = |text: &str, code| (json!({ "key": "bad", "value_text": text, "timestamp": 7 }).to_string(), Some(code));
    let bytes = |base64: &str, code| (json!({ "key": "bad", "value_base64": base64, "timestamp": 7 }).to_string(), code);
    let long = "x".repeat(5 << 20);
    vec![
        good(0),
        good(1),
        raw("{\"id\":1,\"stars\":", "not_json"),
        good(2),
        raw("{\"id\":1}", "rejected"),
        raw("{\"id\":1,\"stars\":\"five\"}", "wrong_type"),
        // {"id":1,"stars":5,"x":"<ff>"}
        bytes("eyJpZCI6MSwic3RhcnMiOjUsIngiOiL/In0=", Some("invalid_utf8")),
        good(3),
        raw("", "empty_value"),
        (json!({ "key": "4", "value": { "id": 4, "stars": 5, "long": long }, "timestamp": 1 }).to_string(), None),
        (json!({ "key": "5", "value": { "id": 5, "stars": 5 }, "timestamp": 1, "headers": [[{ "base64": "/w==" }, { "base64": "/v8=" }]] }).to_string(), None),
        (json!({ "key": "gone", "value": null, "timestamp": 1, "headers": { "h": "v" } }).to_string(), None),
        raw("[1]", "rejected"),
        good(6),
        raw("{\"id\":1,\"stars\":1.0}", "wrong_type"),
        good(7),
    ]
}

/// Where changes of several stages wait to be written, the policy is that of the stage whose change fails.
#[test]
fn a_change_that_cannot_be_written_is_its_own_stages_error() {
    const WRITES: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { id: int } }
stages:
  - { name: bad, plugin: map, with: { set: { a.b: id } }, on_error: skip }
  - { name: good, plugin: map, with: { set: { c: id } }, on_error: fail }
sinks:
  - { from: good, topic: NAME.out, create: true }
";
    let place = Place::embedded();
    place.write(WRITES);
    place.topic("NAME.in", "1");
    let line = |id: usize, a: Value| json!({ "value": { "id": id, "a": a } }).to_string();
    place.produce("NAME.in", &[line(1, json!({})), line(2, json!(7)), line(3, json!({ "x": 1 }))].join("\n"));
    assert_eq!(place.run_well(&[]), 3);
    assert_eq!(place.field("NAME.out", "c"), [json!(1), json!(3)]);
}

fn filled(place: Place, manifest: &str, policy: &str) -> Place {
    place.write(&manifest.replace("POLICY", policy));
    place.topic("NAME.in", "1");
    if place.brokers.is_some() {
        place.topic("NAME.dead", "1");
    }
    // Kafka's brokers take records of 1 MiB.
    let large = place.brokers.is_none();
    let lines: Vec<String> = input().into_iter().map(|(line, _)| line).filter(|line| large || line.len() < 1 << 20).collect();
    place.produce("NAME.in", &lines.join("\n"));
    place
}

fn ids(place: &Place) -> Vec<Value> {
    let records = place.consume("NAME.out");
    let records = records.iter().map(|record| serde_json::from_str::<Value>(record).unwrap());
    records.map(|record| if record["value"].is_null() { record["key"].clone() } else { record["value"]["id"].clone() }).collect()
}

fn expected(place: &Place) -> Vec<Value> {
    let mut ids = vec![json!(0), json!(1), json!(2), json!(3), json!(4), json!(5), json!("gone"), json!(6), json!(7)];
    ids.retain(|id| place.brokers.is_none() || *id != json!(4));
    ids
}

/// Offsets and codes of the dead letters.
fn dead(place: &Place) -> Vec<(String, String)> {
    let letters = place.consume("NAME.dead");
    let letters = letters.iter().map(|letter| serde_json::from_str::<Value>(letter).unwrap());
    let header = |letter: &Value, name: &str| letter["headers"][name].as_str().unwrap().to_owned();
    letters.map(|letter| (header(&letter, "millstream.offset"), header(&letter, "millstream.error"))).collect()
}

/// Where the bad records stand, among those that the place could take.
fn bad(place: &Place) -> Vec<(String, String)> {
    let large = place.brokers.is_none();
    let lines = input().into_iter().filter(|(line, _)| large || line.len() < 1 << 20);
    lines.enumerate().filter_map(|(offset, (_, code))| Some((offset.to_string(), code?.to_owned()))).collect()
}

fn places(policy: &str) -> Vec<Place> {
    let embedded = filled(with_users(Place::embedded()), MANIFEST, policy);
    let kafka = Place::kafka().map(|place| filled(place, STATELESS, policy));
    std::iter::once(embedded).chain(kafka).collect()
}

fn with_users(place: Place) -> Place {
    place.produce("NAME.users", "{\"key\":\"3\",\"value\":{\"id\":3,\"name\":\"Ada\"}}\n{\"key\":\"9\",\"value\":{\"id\":\"x\"}}\n{\"key\":\"8\",\"value_text\":\"{\"}\n");
    place
}

#[test]
fn bad_records_are_dead_letters_and_the_others_pass() {
    for place in places(DEAD) {
        assert_eq!(place.run_well(&["--batch-rows", "1000"]) as usize, input().len() - usize::from(place.brokers.is_some()));
        assert_eq!(ids(&place), expected(&place));
        assert_eq!(dead(&place), bad(&place));
        let out = place.consume("NAME.out");
        let find =
            |key: &str| out.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|record| record["key"] == key).unwrap();
        assert_eq!(find("gone"), json!({ "key": "gone", "value": null, "timestamp": 1, "partition": 0, "headers": { "h": "v" } }));
        assert_eq!(find("5")["headers"], json!([[{ "base64": "/w==" }, { "base64": "/v8=" }]]));
        if place.brokers.is_none() {
            assert_eq!(find("3")["value"]["name"], "Ada");
            assert_eq!(find("4")["value"]["long"].as_str().unwrap().len(), 5 << 20);
        }
    }
}

#[test]
fn bad_records_are_skipped_and_the_others_pass() {
    for place in places("skip") {
        place.run_well(&["--batch-rows", "3"]);
        assert_eq!(ids(&place), expected(&place));
    }
}

#[test]
fn a_bad_record_stops_the_pipeline_until_it_is_told_otherwise() {
    for place in places("fail") {
        let first = &bad(&place)[0].0;
        for again in 0..2 {
            let output = place.run(&["--batch-rows", "1000"]);
            let said = failure(&output, 4);
            assert!(said.contains(&place.named(&format!("NAME.in/0@{first}"))), "{said}");
            assert!(said.contains("not_json"), "{said}");
            assert_eq!(ids(&place), expected(&place)[..2], "what came before is written, once: run {again}");
        }
        let report = place.run(&[]);
        let report: Value = serde_json::from_str(super::text(&report.stdout).lines().next().unwrap()).unwrap();
        assert_eq!(report["records"], 0, "{report}");

        let manifest = if place.brokers.is_some() { STATELESS } else { MANIFEST };
        place.write(&manifest.replace("POLICY", DEAD));
        success(&place.run(&[]));
        assert_eq!(ids(&place), expected(&place));
        assert_eq!(dead(&place), bad(&place));
    }
}

#[test]
fn the_figures_of_a_stopped_run_count_every_record_once() {
    let place = filled(with_users(Place::embedded()), MANIFEST, "fail");
    let output = place.run(&["--batch-rows", "1000"]);
    let report: Value = serde_json::from_str(super::text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(report["records"], 2, "{report}");
    assert_eq!(report["sinks"][0]["records"], 2, "{report}");
    assert_eq!(report["stages"][0]["in"], 2, "{report}");
}
