//! Card numbers, by every way that they have leaked elsewhere.

use super::{Place, failure, success, text};
use serde_json::json;

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { id: int } }
stages:
  - { name: clean, plugin: mask, with: { rules: [{ fields: '**', card: { keep_last: 4 } }] } }
  - { name: kept, plugin: filter, with: { where: 'id > 0' } }
sinks:
  - { from: kept, topic: NAME.out }
on_error: POLICY
";

/// What must stand nowhere: the digits that masking takes away.
const SPELLINGS: [&str; 4] = ["4444-3333-2222", "4444 3333 2222", "444433332222", "4444.3333.2222"];

fn lines() -> String {
    let raw = |value: &str| json!({ "key": "k", "value_text": value, "timestamp": 5 });
    let mut lines = vec![
        raw(r#"{"id":1,"card":"4444-3333-2222-1111","card":"4444333322221111"}"#),
        raw(r#"{"id":2,"c\u0061rd":"4444 3333 2222 1111"}"#),
        raw(r#"{"id":3,"card":4444333322221111,"more":[{"n":4444333322221111},"4444333322221111"]}"#),
        json!({ "key": "4444333322221111", "value": { "id": 4 }, "headers": { "card": "4444-3333-2222-1111" } }),
        json!({ "key": "4444-3333-2222-1111", "value": null, "headers": { "card": "4444 3333 2222 1111" } }),
        raw(r#"{"id":5,"card":"4444-3333-2222-1111""#),
        raw(r#"4444333322221111"#),
        raw(r#"["4444-3333-2222-1111"]"#),
        raw(r#"{"id":"4444333322221111","card":"4444-3333-2222-1111"}"#),
        raw(r#"{"id":-4444333322221111,"id":4444333322221111}"#),
        raw(r#"{"id":0.4444333322221111}"#),
        raw(r#"{"id":6,"card":"\u0034444-3333-2222-1111","t":"pay 4444-3333-2222-1111 now"}"#),
        raw(r#"{"id":7,"nested":{"a":"{\"card\":\"4444333322221111\"}"}}"#),
        json!({ "key": "k", "value_base64": "eyJpZCI6OCwiY2FyZCI6IjQ0NDQzMzMzMjIyMjExMTEiLCJ4Ijoi/yJ9" }),
    ];
    lines.push(json!({ "key": "last", "value": { "id": 9, "card": "4444-3333-2222-1111" } }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn clean(what: &str, said: &str) {
    for digits in SPELLINGS {
        if let Some(at) = said.find(digits) {
            let line = said[..at].matches('\n').count();
            panic!("{what}: {digits} in line {}: {}", line + 1, said.lines().nth(line).unwrap_or_default());
        }
    }
}

/// All that a command printed and logged with `--log trace`.
fn told(output: &std::process::Output, parts: &[&str]) {
    let said = text(&output.stderr);
    clean("standard output", &text(&output.stdout));
    clean("standard error", &said);
    // What is not logged cannot leak: that there is a log, down to the last level, belongs to the test.
    for part in parts {
        assert!(said.lines().any(|line| line.contains("TRACE") && line.contains(part)), "no TRACE line about {part}: {said}");
    }
}

#[test]
fn a_card_number_is_in_no_output_dead_letter_or_log() {
    let kafka = Place::kafka();
    let places = ["1", "1000"].map(|rows| (Place::embedded(), rows)).into_iter().chain(kafka.map(|place| (place, "1000")));
    for (place, rows) in places {
        place.write(&MANIFEST.replace("POLICY", "{ dead_letter: NAME.dead }"));
        for topic in ["NAME.in", "NAME.out", "NAME.dead"] {
            place.topic(topic, "1");
        }
        place.produce("NAME.in", &lines());
        // The client library at its most talkative.
        std::fs::write(place.path().join("millstream.toml"), "[kafka]\ndebug = \"all\"\n").unwrap();
        let output = place.run(&["--batch-rows", rows, "--log", "trace"]);
        success(&output);
        told(&output, &["fetched", "a plugin took a batch", "committing", if place.brokers.is_some() { "librdkafka" } else { "" }]);
        let (out, dead) = (place.consume("NAME.out"), place.consume("NAME.dead"));
        clean("the output", &out.join("\n"));
        clean("the dead letters", &dead.join("\n"));
        assert!(out.iter().any(|record| record.contains("\"last\"") && record.contains("xxxx-xxxx-xxxx-1111")), "{out:?}");
        assert_eq!(out.len() + dead.len(), lines().lines().count());
    }
}

#[test]
fn a_card_number_is_in_no_error() {
    let place = Place::embedded();
    place.write(&MANIFEST.replace("POLICY", "fail"));
    let lines = lines();
    // Each bad record alone stops a pipeline of its own.
    for number in [0, 5, 7, 8, 13] {
        let line = lines.lines().nth(number).unwrap();
        let manifest = MANIFEST.replace("POLICY", "fail").replace("NAME", &format!("p{number}"));
        place.write(&manifest);
        place.produce(&format!("p{number}.in"), line);
        let output = place.run(&["--log", "trace"]);
        told(&output, &["fetched"]);
        failure(&output, 4);
    }
}
