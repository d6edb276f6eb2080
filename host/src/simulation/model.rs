//! What the pipelines with windows, timers and a table make of one partition's records, in the plainest way.

use super::workload::{FOLLOWS, GRACE, SIZE, hash, repeats};
use std::collections::{BTreeMap, BTreeSet};

/// A record of the stream.
#[derive(Clone, Debug)]
pub struct Number {
    pub time: i64,
    pub user: String,
    pub seq: i64,
    pub due: i64,
}

/// What comes out, and what is kept.
#[derive(Debug, Default)]
pub struct Outcome {
    /// As they stand in their topics.
    pub windows: Vec<String>,
    pub alarms: Vec<String>,
    /// Windows that are open, and timers that wait: a time and a user.
    pub open: BTreeSet<(i64, String)>,
    pub waiting: BTreeSet<(i64, String)>,
}

/// `close`: at the end, every window is closed.
pub fn outcome(numbers: &[Number], close: bool) -> Outcome {
    let mut open: BTreeMap<(i64, String), String> = BTreeMap::new();
    let mut waiting: BTreeSet<(i64, String)> = BTreeSet::new();
    let mut lists: BTreeMap<String, (String, i64)> = BTreeMap::new();
    let mut outcome = Outcome::default();
    let mut stream_time: Option<i64> = None;
    for Number { time, user, seq, due } in numbers {
        let start = time.div_euclid(SIZE) * SIZE;
        let late = stream_time.is_some_and(|stream_time| start + SIZE + GRACE <= stream_time);
        if stream_time.is_none_or(|stream_time| *time > stream_time) {
            stream_time = Some(*time);
            give_out(&mut open, &mut outcome.windows, |start| start + SIZE + GRACE <= *time);
            // What is set meanwhile waits for the next advance.
            let later = waiting.split_off(&(*time + 1, String::new()));
            for (at, user) in std::mem::replace(&mut waiting, later) {
                let (list, last) = lists.entry(user.clone()).or_default();
                list.push_str(&format!("t{at},"));
                *last = if *last == at { 0 } else { *last };
                outcome.alarms.push(format!("{user} {at} {}", hash(list)));
                if repeats(at) {
                    waiting.insert((at + FOLLOWS, user));
                }
            }
        }
        if !late {
            open.entry((start, user.clone())).or_default().push_str(&format!("{seq},"));
        }
        let (list, last) = lists.entry(user.clone()).or_default();
        list.push_str(&format!("{seq},"));
        outcome.alarms.push(format!("{user} {time} {}", hash(list)));
        if seq % 4 == 0 && *last > 0 {
            waiting.remove(&(*last, user.clone()));
            *last = 0;
        }
        if *due > 0 {
            *last = time + due;
            waiting.insert((*last, user.clone()));
        }
    }
    if close {
        give_out(&mut open, &mut outcome.windows, |_| true);
    }
    Outcome { open: open.into_keys().collect(), waiting, ..outcome }
}

fn give_out(open: &mut BTreeMap<(i64, String), String>, given: &mut Vec<String>, closed: impl Fn(i64) -> bool) {
    open.retain(|(start, user), list| {
        if closed(*start) {
            given.push(format!("{user} {start} {list}"));
        }
        !closed(*start)
    });
}

/// A row's version in the table.
#[derive(Clone, Debug)]
pub struct Version {
    pub time: i64,
    pub user: String,
    pub version: i64,
}

/// The version that each record of the stream meets: the record with the lowest time comes first, of equal times the table's.
/// `versions`: what the records before have left.
pub fn found(numbers: &[Number], table: &[Version], versions: &mut BTreeMap<String, i64>) -> Vec<i64> {
    let mut table = table.iter().peekable();
    let mut take = |until: i64, versions: &mut BTreeMap<String, i64>| {
        while let Some(row) = table.next_if(|row| row.time <= until) {
            versions.insert(row.user.clone(), row.version);
        }
    };
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        take(number.time, versions);
        found.push(versions.get(&number.user).copied().unwrap_or_default());
    }
    take(i64::MAX, versions);
    found
}
