//! Timers of a plugin, through the program, held against a model of them: whatever the size of batches, over restarts and kills.

use super::{Place, Random, success};
use crate::guests;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ROWS: [&str; 3] = ["1", "7", "1000"];
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

const MANIFEST: &str = "\
pipeline: p
sources:
  in: { topic: in, schema: { n: int } }
stages:
  - { name: visits, plugin: ./timers.wasm }
  - { name: tagged, plugin: map, with: { set: { tag: '\"told\"' } } }
sinks:
  - { from: [tagged, in], topic: out }
";

type Record = (i64, usize, i64);

fn place(records: &[Record]) -> Place {
    let place = Place::embedded();
    place.write(MANIFEST);
    std::fs::write(place.path().join("timers.wasm"), guests::timers()).unwrap();
    place.topic("in", "1");
    produce(&place, records);
    place
}

fn produce(place: &Place, records: &[Record]) {
    let line = |(time, key, n): &Record| format!("{{\"key\":\"{}\",\"value\":{{\"n\":{n}}},\"timestamp\":{time}}}\n", KEYS[*key]);
    place.produce("in", &records.iter().map(line).collect::<String>());
}

fn told(place: &Place) -> Vec<Value> {
    let read = |line: String| {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = &record["value"];
        json!([record["key"], record["timestamp"], value["what"], value["records"], value["sum"]])
    };
    place.consume("out").into_iter().map(read).collect()
}

/// What the guest does, in the plainest way.
#[derive(Default)]
struct Model {
    stream_time: Option<i64>,
    timers: BTreeSet<(i64, usize)>,
    /// Records, sum, end.
    visits: BTreeMap<usize, (i64, i64, i64)>,
    told: Vec<Value>,
}

impl Model {
    fn take(&mut self, (time, key, n): Record) {
        if self.stream_time.is_none_or(|before| time > before) {
            self.stream_time = Some(time);
            let later = self.timers.split_off(&(time + 1, 0));
            for (due, key) in std::mem::replace(&mut self.timers, later) {
                let Some((records, sum, ends)) = self.visits.get(&key).copied() else { continue };
                let what = if ends == due { "end" } else { "reminder" };
                self.told.push(json!([KEYS[key], due, what, records, sum]));
                if ends == due {
                    self.visits.remove(&key);
                } else {
                    self.timers.insert((due + 300, key));
                }
            }
        }
        let visit = self.visits.entry(key).or_insert((0, 0, 0));
        if visit.0 > 0 {
            self.timers.remove(&(visit.2, key));
        } else {
            self.timers.insert((time + 300, key));
        }
        *visit = (visit.0 + 1, visit.1 + n, visit.2.max(time + 1000));
        self.timers.insert((visit.2, key));
        self.told.push(json!([KEYS[key], time, null, null, null]));
    }
}

#[test]
fn timers_fire_before_the_record_that_makes_them_due() {
    let mut random = Random::new();
    let mut time = 10_000;
    let records: Vec<Record> = (0..400)
        .map(|_| {
            time += if random.below(20) == 0 { random.below(2500) } else { random.below(120) } as i64;
            (time - random.below(200) as i64, random.below(4) as usize, random.below(10) as i64)
        })
        .collect();
    let mut model = Model::default();
    records.iter().for_each(|record| model.take(*record));
    let ends = model.told.iter().filter(|told| told[2] == "end").count();
    assert!(ends > 10 && model.told.len() > records.len() + 2 * ends, "{ends}");
    let mut bytes = Vec::new();
    for rows in ROWS {
        let place = place(&records[..151]);
        success(&place.run(&["--batch-rows", rows]));
        produce(&place, &records[151..]);
        success(&place.run(&["--batch-rows", rows, "--commit-interval", "1"]));
        let told = told(&place);
        let differs = told.iter().zip(&model.told).position(|(found, expected)| found != expected);
        assert_eq!((differs, told.len()), (None, model.told.len()), "batches of {rows}");
        bytes.push(place.consume("out"));
    }
    assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2]);
}

/// A record that stops the run lies behind timers that are due, and timers lie behind it.
#[test]
fn what_stops_a_run_leaves_the_timers() {
    let mut records: Vec<Record> = (0..60).map(|n| (10_000 + n * 137, (n % 4) as usize, 1)).collect();
    let mut model = Model::default();
    records.iter().for_each(|record| model.take(*record));
    let place = place(&records[..30]);
    place.produce("in", "{\"key\":\"a\",\"value\":{\"n\":\"no number\"},\"timestamp\":14100}\n");
    produce(&place, &records.split_off(30));
    let stopped = place.run(&["--batch-rows", "1000"]);
    assert_eq!(stopped.status.code(), Some(4));
    let before = told(&place);
    assert!(before.len() > 30 && before == model.told[..before.len()]);
    place.write(&MANIFEST.replace("sinks:\n", "on_error: skip\nsinks:\n"));
    success(&place.run(&[]));
    // The refused record has no place among the results of timers, but in the sink that it reads the source through.
    let after: Vec<_> = told(&place).into_iter().filter(|told| told[1] != 14_100).collect();
    assert!(after == model.told, "{after:?}");
}
