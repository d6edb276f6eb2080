//! Where Kafka Streams and Millstream differ, each with what both make of a few records. If one of these fails, a difference is gone or has
//! changed: host/docs/compared-with-kafka-streams.md must say so.

use super::input::Recorded;
use super::{COUNT, FILTER, Peer, WINDOWED_COUNT, enrich, millstream};
use crate::pipelines::{Place, failure};
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;

fn record(topic: &'static str, key: &str, value: Value, timestamp: i64) -> Recorded {
    Recorded { topic, key: (!key.is_empty()).then(|| key.to_owned()), value, timestamp }
}

fn event(key: &str, timestamp: i64) -> Recorded {
    record("events", key, json!({ "amount": 1 }), timestamp)
}

/// Key, window's start and count of each result.
fn counts(results: &[Value]) -> Vec<(&str, i64, i64)> {
    let number = |result: &Value, field: &str| result["value"][field].as_i64().unwrap();
    results.iter().map(|result| (result["key"].as_str().unwrap(), number(result, "window_start"), number(result, "records"))).collect()
}

fn ours(manifest: &str, input: &[Recorded]) -> Vec<Value> {
    millstream(manifest, &[input], 1000).0
}

#[test]
fn stream_time_is_moved_by_records_that_are_not_counted() {
    let Some(peer) = Peer::find() else { return };
    for ahead in [event("", 5 * MINUTE), record("events", "a", Value::Null, 5 * MINUTE)] {
        let input = [event("a", 0), ahead, event("a", 1)];
        let theirs = peer.run("windowed-count", &input);
        assert_eq!(counts(&theirs), [("a", 0, 1), ("a", 0, 2)]);
        let (ours, late) = millstream(WINDOWED_COUNT, &[&input], 1000);
        assert_eq!((counts(&ours), late), (vec![("a", 0, 1)], 1));
    }
}

/// Kafka Streams' operator begins without a stream time; its test driver cannot show it.
#[test]
fn stream_time_survives_a_restart() {
    let (ours, late) = millstream(WINDOWED_COUNT, &[&[event("a", 0), event("a", 5 * MINUTE)], &[event("a", 1)]], 1000);
    assert_eq!((counts(&ours), late), (vec![("a", 0, 1), ("a", 5 * MINUTE, 1)], 1));
}

#[test]
fn tombstones_are_never_counted() {
    let Some(peer) = Peer::find() else { return };
    let input = [event("a", 0), record("events", "a", Value::Null, 1), event("a", 2)];
    let theirs = peer.run("windowed-count-with-tombstones", &input);
    assert_eq!(counts(&theirs), [("a", 0, 1), ("a", 0, 2), ("a", 0, 3)]);
    assert_eq!(counts(&ours(WINDOWED_COUNT, &input)), [("a", 0, 1), ("a", 0, 2)]);
    // Without windows Kafka Streams passes over them too.
    assert_eq!(peer.run("count", &input), ours(COUNT, &input));
}

#[test]
fn tombstones_pass_a_join() {
    let Some(peer) = Peer::find() else { return };
    let input = [
        record("users", "u1", json!({ "level": "gold" }), 0),
        record("events", "a", json!({ "user": "u1" }), 1),
        record("events", "a", Value::Null, 2),
    ];
    let joined = json!({ "key": "a", "value": { "user": "u1", "level": "gold" }, "timestamp": 1 });
    let tombstone = json!({ "key": "a", "value": null, "timestamp": 2 });
    for join in ["inner", "left"] {
        assert_eq!(peer.run(&format!("enrich-{join}"), &input), std::slice::from_ref(&joined));
        assert_eq!(ours(&enrich(join, "pass"), &input), [joined.clone(), tombstone.clone()]);
    }
}

#[test]
fn what_cannot_be_counted_or_judged_is_an_error() {
    let Some(peer) = Peer::find() else { return };
    let no_amount = record("events", "a", json!({ "channel": "web" }), 1);
    for (scenario, manifest, guilty) in [("count", COUNT, event("", 1)), ("filter", FILTER, no_amount)] {
        let input = [guilty];
        assert_eq!(peer.run(scenario, &input), [Value::Null; 0], "{scenario}: dropped");
        // With the policy `fail`, which is the default.
        let place = Place::embedded();
        place.write(&manifest.replace("on_error: skip\n", ""));
        place.produce("events", &input[0].line());
        failure(&place.run(&[]), 4);
    }
}
