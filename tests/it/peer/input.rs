//! Input that looks as real input does at its worst: ties, records out of order and far too late, tombstones, records without a key, fields
//! that are missing, users that no table knows.

use crate::pipelines::Random;
use serde_json::{Value, json};

/// A record as `millstream produce` reads it.
pub struct Recorded {
    pub topic: &'static str,
    pub key: Option<String>,
    /// Null is a tombstone.
    pub value: Value,
    pub timestamp: i64,
}

impl Recorded {
    pub fn line(&self) -> String {
        json!({ "topic": self.topic, "key": self.key, "value": self.value, "timestamp": self.timestamp }).to_string()
    }
}

const START: i64 = 1_700_000_000_000;
const WINDOW: i64 = 60_000;
const GRACE: i64 = 10_000;
/// How many users events name; a table knows fewer.
const USERS: u64 = 40;

/// The table's topic: rows that change, rows that are deleted, levels that are null, and a record that names no row.
pub fn users(random: &mut Random) -> Vec<Recorded> {
    let mut users = Vec::new();
    for change in 0..100 {
        let level = ["gold", "silver", "none"][random.below(3) as usize];
        let value = match random.below(10) {
            0 | 1 => Value::Null,
            2 => json!({ "level": null }),
            3 => json!({ "name": "without a level" }),
            _ => json!({ "level": level, "name": format!("user {change}") }),
        };
        let key = (change != 50).then(|| format!("u{}", random.below(USERS * 3 / 4)));
        users.push(Recorded { topic: "users", key, value, timestamp: START });
    }
    users
}

/// A stream of events over about three quarters of an hour.
///
/// Records without a key and tombstones are never ahead of all others: they would move stream time here and not there, which is a test of
/// its own.
pub fn events(random: &mut Random, count: usize) -> Vec<Recorded> {
    // No record is earlier.
    let (mut now, mut highest) = (START, START - 5 * WINDOW);
    let mut events = Vec::with_capacity(count);
    for id in 0..count {
        now += match random.below(100) {
            0..30 => 0,
            30..90 => random.below(1500) as i64,
            // To the edge of a window, or to where one closes.
            90..99 => GRACE - now % GRACE,
            _ => WINDOW + random.below(GRACE as u64) as i64,
        };
        let mut timestamp = match random.below(100) {
            0..75 => now,
            75..90 => now - random.below(2 * GRACE as u64) as i64,
            90..94 => now - random.below(5 * WINDOW as u64) as i64,
            // The last and the first millisecond of a window that is about to close.
            94..97 => now - now % WINDOW - 1,
            _ => now - now % WINDOW,
        };
        let key = (random.below(50) != 0).then(|| format!("k{}", random.below(30)));
        let value = if random.below(30) == 0 { Value::Null } else { event(random, id) };
        if key.is_none() || value.is_null() {
            timestamp = timestamp.min(highest);
        }
        highest = highest.max(timestamp);
        events.push(Recorded { topic: "events", key, value, timestamp });
    }
    events
}

fn event(random: &mut Random, id: usize) -> Value {
    let mut event = json!({ "id": id, "note": "\u{e9}\n\"quoted\"" });
    // A field may be missing, null, or there.
    let mut field = |name: &str, value: Value, odds: u64| match odds {
        0 => {}
        1 => event[name] = Value::Null,
        _ => event[name] = value,
    };
    field("amount", json!(random.below(200) as i64 - 50), random.below(15));
    field("channel", json!(["web", "app", "test"][random.below(3) as usize]), random.below(15));
    field("user", json!(format!("u{}", random.below(USERS))), random.below(15));
    event
}

/// Rows of a table by the events' keys, over about the same time: rows that change, are deleted, have no level; and records that name no row.
pub fn rows(random: &mut Random, count: usize) -> Vec<Recorded> {
    let mut now = START;
    let mut rows = Vec::with_capacity(count);
    for change in 0..count {
        now += random.below(6000) as i64;
        let value = match random.below(10) {
            0 | 1 => Value::Null,
            2 => json!({ "level": null }),
            3 => json!({ "name": "without a level" }),
            _ => json!({ "level": format!("level {change}"), "id": change }),
        };
        let key = (random.below(50) != 0).then(|| format!("k{}", random.below(25)));
        rows.push(Recorded { topic: "users", key, value, timestamp: now });
    }
    rows
}

/// Two streams over the same time, out of order by at most `back` milliseconds. What Kafka Streams passes over is never ahead of what it takes: stream time
/// would differ.
pub fn two_streams(random: &mut Random, count: usize, back: i64) -> [Vec<Recorded>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    let mut highest = [None; 2];
    for mut record in events(random, count) {
        let side = random.below(2) as usize;
        let passed_over = record.key.is_none() || record.value.is_null();
        record.topic = ["events", "others"][side];
        record.timestamp = match highest[side] {
            Some(highest) if passed_over => record.timestamp.clamp(highest - back, highest),
            Some(highest) => record.timestamp.max(highest - back),
            None if passed_over => continue,
            None => record.timestamp,
        };
        highest[side] = highest[side].max(Some(record.timestamp));
        streams[side].push(record);
    }
    streams
}

/// A record an hour behind all others.
pub fn far_ahead(topic: &'static str, records: &[Recorded]) -> Recorded {
    let last = records.iter().map(|record| record.timestamp).max().unwrap_or(START);
    Recorded { topic, key: Some("far".to_owned()), value: json!({ "id": -1 }), timestamp: last + 3_600_000 }
}

/// Two topics in the order in which Millstream takes them: the record with the lower timestamp of the next two; of equal ones the second's, a table's.
pub fn in_order(stream: Vec<Recorded>, table: Vec<Recorded>) -> Vec<Recorded> {
    let (mut stream, mut table) = (stream.into_iter().peekable(), table.into_iter().peekable());
    let mut all = Vec::new();
    loop {
        let first = match (stream.peek(), table.peek()) {
            (Some(record), Some(row)) if record.timestamp < row.timestamp => stream.next(),
            (_, Some(_)) => table.next(),
            (_, None) => stream.next(),
        };
        match first {
            Some(record) => all.push(record),
            None => return all,
        }
    }
}
