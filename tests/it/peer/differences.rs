//! Where Kafka Streams and Millstream differ, each with what both make of a few records. If one of these fails, a difference is gone or has
//! changed: host/docs/compared-with-kafka-streams.md must say so.

use super::input::Recorded;
use super::{COUNT, FILTER, Peer, STREAM_STREAM, WINDOWED_COUNT, enrich, millstream};
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

fn numbered(topic: &'static str, key: &str, id: i64, timestamp: i64) -> Recorded {
    record(topic, key, json!({ "id": id }), timestamp)
}

/// The numbers of a pair, or of a left record alone, and the time of each result.
fn pairs(results: &[Value]) -> Vec<(i64, Option<i64>, i64)> {
    let number = |result: &Value, field: &str| result["value"][field].as_i64();
    results.iter().map(|result| (number(result, "id").unwrap(), number(result, "other"), result["timestamp"].as_i64().unwrap())).collect()
}

/// Within 5 s, grace 10 s.
#[test]
fn a_record_that_is_closed_meets_nobody() {
    let Some(peer) = Peer::find() else { return };
    let input = [numbered("events", "a", 1, 0), numbered("others", "z", 2, 15_002), numbered("others", "a", 3, 1)];
    for (join, alone) in [("inner", &[][..]), ("left", &[(1, None, 0)])] {
        let theirs = peer.run(&format!("stream-stream-{join}"), &input);
        assert_eq!(pairs(&theirs), [alone, &[(1, Some(3), 1)]].concat(), "alone, and then joined");
        // In the order in which they stand here: a run for each.
        let runs: Vec<&[Recorded]> = input.chunks(1).collect();
        let (ours, late) = millstream(&STREAM_STREAM.replace("JOIN", join), &runs, 1000);
        assert_eq!((pairs(&ours), late), (alone.to_vec(), 1));
    }
}

#[test]
fn a_left_record_out_of_order_waits_for_its_partner() {
    let Some(peer) = Peer::find() else { return };
    let input = [numbered("events", "a", 1, 10_000), numbered("events", "a", 2, 4000), numbered("others", "a", 3, 4500)];
    assert_eq!(pairs(&peer.run("stream-stream-left", &input)), [(2, None, 4000), (2, Some(3), 4500)]);
    let runs: Vec<&[Recorded]> = input.chunks(1).collect();
    let (ours, late) = millstream(&STREAM_STREAM.replace("JOIN", "left"), &runs, 1000);
    assert_eq!((pairs(&ours), late), (vec![(2, Some(3), 4500)], 0));
}

/// Kafka Streams looks for closed records when the last one that was open at its last look is closed: the second one waits for the third.
#[test]
fn a_left_record_alone_comes_when_it_is_closed() {
    let Some(peer) = Peer::find() else { return };
    let times = [0, 14_000, 14_500, 15_001, 29_001, 29_501];
    let input: Vec<Recorded> = times.into_iter().zip(1..).map(|(time, id)| numbered("events", &format!("k{id}"), id, time)).collect();
    let alone = [(1, None, 0), (2, None, 14_000), (3, None, 14_500)];
    for (count, theirs, ours) in [(4, 1, 1), (5, 1, 2), (6, 3, 3)] {
        assert_eq!(pairs(&peer.run("stream-stream-left", &input[..count])), alone[..theirs]);
        assert_eq!(pairs(&millstream(&STREAM_STREAM.replace("JOIN", "left"), &[&input[..count]], 1000).0), alone[..ours]);
    }
}
