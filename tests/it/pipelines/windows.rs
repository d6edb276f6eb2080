//! Windows through the program, held against models that find them in the plainest way: whatever the size of batches, and over restarts.

use super::{Place, Random, success};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ROWS: [&str; 3] = ["1", "7", "1000"];
const KEYS: [&str; 3] = ["a", "b", "c"];

/// A record: time, key, number.
type Record = (i64, usize, i64);

/// Records in an order that is not quite that of their times, so that some come late.
fn records(count: i64, random: &mut Random) -> Vec<Record> {
    let mut time = 1_000_000;
    (0..count)
        .map(|_| {
            time += random.below(900) as i64;
            let back = if random.below(4) == 0 { random.below(9000) as i64 } else { random.below(500) as i64 };
            (time - back, random.below(3) as usize, random.below(100) as i64)
        })
        .collect()
}

fn lines(records: &[Record]) -> String {
    let line = |(time, key, n): &Record| format!("{{\"key\":\"{}\",\"value\":{{\"n\":{n}}},\"timestamp\":{time}}}\n", KEYS[*key]);
    records.iter().map(line).collect()
}

fn manifest(window: &str, emit: &str, on_late: &str) -> String {
    format!(
        "\
pipeline: p
sources:
  in: {{ topic: in, schema: {{ n: int }} }}
stages:
  - name: counts
    plugin: aggregate
    {on_late}
    with:
      window: {window}
      emit: {emit}
      compute: {{ count: count(), sum: sum(n) }}
sinks:
  - {{ from: counts, topic: out }}
"
    )
}

/// A place whose topic `in` holds these records.
fn place(manifest: &str, records: &[Record]) -> Place {
    let place = Place::embedded();
    place.write(manifest);
    place.topic("in", "1");
    place.produce("in", &lines(records));
    place
}

fn run(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(success(&place.run(arguments)).trim()).unwrap()
}

/// What is left of a result: key, time, value's members.
fn result(key: usize, time: i64, start: i64, end: i64, count: i64, sum: i64) -> Value {
    json!([KEYS[key], time, start, end, count, sum])
}

fn results(place: &Place, topic: &str) -> Vec<Value> {
    let read = |line: String| {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = &record["value"];
        json!([record["key"], record["timestamp"], value["window_start"], value["window_end"], value["count"], value["sum"]])
    };
    place.consume(topic).into_iter().map(read).collect()
}

/// Windows of a length, one each `advance`.
struct Windows {
    size: i64,
    advance: i64,
    grace: i64,
    /// By start and key: count, sum, highest time.
    open: BTreeMap<(i64, usize), (i64, i64, i64)>,
    stream_time: i64,
    late: i64,
    updates: Vec<Value>,
    finals: Vec<Value>,
}

impl Windows {
    fn new(size: i64, advance: i64, grace: i64) -> Self {
        Self { size, advance, grace, open: BTreeMap::new(), stream_time: i64::MIN, late: 0, updates: Vec::new(), finals: Vec::new() }
    }

    fn closed(&self, start: i64) -> bool {
        start + self.size + self.grace <= self.stream_time
    }

    fn take(&mut self, (time, key, n): Record) {
        let first = (time - self.size).div_euclid(self.advance) + 1;
        for start in (first..=time.div_euclid(self.advance)).map(|place| place * self.advance) {
            if self.closed(start) {
                self.late += 1;
                continue;
            }
            let (count, sum, highest) = self.open.entry((start, key)).or_insert((0, 0, i64::MIN));
            (*count, *sum, *highest) = (*count + 1, *sum + n, (*highest).max(time));
            self.updates.push(result(key, (*highest).min(start + self.size - 1), start, start + self.size, *count, *sum));
        }
        self.stream_time = self.stream_time.max(time);
        while let Some(((start, _), _)) = self.open.first_key_value()
            && self.closed(*start)
        {
            self.close_first();
        }
    }

    fn close_first(&mut self) {
        if let Some(((start, key), (count, sum, highest))) = self.open.pop_first() {
            self.finals.push(result(key, highest.min(start + self.size - 1), start, start + self.size, count, sum));
        }
    }
}

#[test]
fn hopping_windows_are_those_of_a_model() {
    let records = records(400, &mut Random::new());
    for (window, mut model) in [
        ("{ hopping: 10s, advance: 4s, grace: 1s }", Windows::new(10_000, 4000, 1000)),
        ("{ tumbling: 5s, grace: 2s }", Windows::new(5000, 5000, 2000)),
    ] {
        records.iter().for_each(|record| model.take(*record));
        assert!(model.late > 10);
        for rows in ROWS {
            let place = place(&manifest(window, "updates", ""), &records);
            let report = run(&place, &["--batch-rows", rows]);
            assert_eq!(report["stages"][0]["late"], model.late, "{window}, batches of {rows}");
            assert!(results(&place, "out") == model.updates, "{window}, batches of {rows}");
        }
    }
}

/// A record that every one of its windows refuses is refused once.
#[test]
fn a_record_of_several_windows_is_rejected_once() {
    let text = manifest("{ hopping: 10s, advance: 1s }", "updates", "on_error: { dead_letter: dead }");
    let place = Place::embedded();
    place.write(&text);
    place.topic("in", "1");
    place.produce("in", "{\"value\":{\"n\":1},\"timestamp\":50000}\n{\"key\":\"a\",\"value\":{\"n\":1},\"timestamp\":50001}\n");
    let report = run(&place, &[]);
    assert_eq!((place.consume("dead").len(), place.consume("out").len()), (1, 10));
    assert_eq!(report["stages"][0]["rejected"], 1);
}

#[test]
fn closed_windows_are_given_out_once() {
    let records = records(600, &mut Random::new());
    let mut model = Windows::new(10_000, 4000, 1000);
    records.iter().for_each(|record| model.take(*record));
    assert!(model.finals.len() > 50 && !model.open.is_empty());
    let closed = model.finals.len();
    while !model.open.is_empty() {
        model.close_first();
    }
    for rows in ROWS {
        // In two runs: the second one goes on where the first one stood.
        let place = place(&manifest("{ hopping: 10s, advance: 4s, grace: 1s }", "final", ""), &records[..333]);
        run(&place, &["--batch-rows", rows]);
        place.produce("in", &lines(&records[333..]));
        run(&place, &["--batch-rows", rows]);
        assert!(results(&place, "out") == model.finals[..closed], "batches of {rows}: the open ones stay open");
        run(&place, &["--batch-rows", rows, "--close-windows"]);
        assert!(results(&place, "out") == model.finals, "batches of {rows}");
        // What is closed stays closed, and is given out once.
        let late = records.iter().map(|record| record.0).max().unwrap();
        place.produce("in", &lines(&[(late, 0, 1)]));
        assert!(run(&place, &["--close-windows"])["stages"][0]["late"].as_i64().unwrap() > 0);
        assert_eq!(results(&place, "out").len(), model.finals.len());
    }
}

/// On Kafka such a run begins without partitions, and here without its local copy of the state.
#[test]
fn windows_are_closed_by_a_run_that_finds_nothing_to_read() {
    for place in [Some(Place::embedded()), Place::kafka()].into_iter().flatten() {
        let names = [("pipeline: p", "pipeline: NAME"), ("topic: in", "topic: NAME.in"), ("topic: out", "topic: NAME.out")];
        place.write(&names.iter().fold(manifest("{ tumbling: 10s }", "final", ""), |text, (from, to)| text.replace(from, to)));
        place.topic("NAME.in", "2");
        place.topic("NAME.out", "1");
        let start = 1_700_000_000_000;
        place.produce("NAME.in", &lines(&[(start, 0, 1), (start + 1, 1, 2), (start + 2, 0, 3), (start + 3, 2, 4)]));
        run(&place, &[]);
        assert!(results(&place, "NAME.out").is_empty(), "no window is closed");
        if place.brokers.is_some() {
            std::fs::remove_dir_all(place.path().join("data/state")).unwrap();
        }
        for _ in 0..2 {
            run(&place, &["--close-windows"]);
            let sums: BTreeSet<_> =
                results(&place, "NAME.out").iter().map(|result| (result[0].clone().to_string(), result[5].as_i64())).collect();
            let expected = [("\"a\"", 4), ("\"b\"", 2), ("\"c\"", 4)];
            assert_eq!(sums, expected.map(|(key, sum)| (key.to_owned(), Some(sum))).into());
            assert_eq!(results(&place, "NAME.out").len(), 3, "each once");
        }
    }
}

/// Results of closed windows stand before the records that closed them, also on their way through other stages, and into other windows.
#[test]
fn results_of_windows_go_on_as_records_do() {
    let text = "\
pipeline: p
sources:
  in: { topic: in, schema: { n: int } }
stages:
  - { name: short, plugin: aggregate, with: { window: { tumbling: 2s }, emit: final, compute: { count: count(), sum: sum(n) } } }
  - { name: tagged, plugin: map, with: { set: { tag: '\"short\"' } } }
  - name: long
    plugin: aggregate
    with: { window: { tumbling: 10s }, emit: final, compute: { count: sum(count), sum: sum(sum) } }
sinks:
  - { from: [tagged, in], topic: merged }
  - { from: long, topic: out }
";
    let records = records(300, &mut Random::new());
    let mut short = Windows::new(2000, 2000, 0);
    let mut long = Windows::new(10_000, 10_000, 0);
    let mut merged = Vec::new();
    for record in &records {
        let before = short.finals.len();
        short.take(*record);
        let given = short.finals[before..].to_vec();
        merged.extend(given.iter().map(|result| (result[0].clone(), result[1].clone())));
        merged.push((json!(KEYS[record.1]), json!(record.0)));
        for result in given {
            let (key, time) = (KEYS.iter().position(|key| result[0] == *key).unwrap(), result[1].as_i64().unwrap());
            let start = time.div_euclid(10_000) * 10_000;
            assert!(!long.closed(start), "nothing is late that comes from a window before");
            let (count, sum, highest) = long.open.entry((start, key)).or_insert((0, 0, i64::MIN));
            let (more, n) = (result[4].as_i64().unwrap(), result[5].as_i64().unwrap());
            (*count, *sum, *highest) = (*count + more, *sum + n, (*highest).max(time));
        }
        long.stream_time = short.stream_time;
        while let Some(((start, _), _)) = long.open.first_key_value()
            && long.closed(*start)
        {
            long.close_first();
        }
    }
    assert!(long.finals.len() > 20);
    let mut bytes: Vec<Vec<String>> = Vec::new();
    for rows in ROWS {
        let place = place(text, &records);
        run(&place, &["--batch-rows", rows]);
        assert!(results(&place, "out") == long.finals, "batches of {rows}");
        let found: Vec<_> = place
            .consume("merged")
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|record| (record["key"].clone(), record["timestamp"].clone()))
            .collect();
        assert!(found == merged, "batches of {rows}");
        bytes.push(place.consume("merged"));
        // Windows that open only by what others give out are closed too.
        run(&place, &["--close-windows"]);
        let counted: i64 = results(&place, "out").iter().map(|result| result[4].as_i64().unwrap()).sum();
        assert_eq!(counted, records.len() as i64 - short.late, "batches of {rows}");
    }
    assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2]);
}

/// One result for each group that changed, in the commit that holds the changes.
#[test]
fn changed_groups_are_given_out_at_a_commit() {
    let text = "\
pipeline: p
sources:
  in: { topic: in, schema: { n: int } }
stages:
  - { name: counts, plugin: aggregate, with: { emit: changes, compute: { count: count(), sum: sum(n) } } }
  - { name: all, plugin: aggregate, with: { group_by: [count], emit: changes, compute: { sum: count() } } }
sinks:
  - { from: counts, topic: out }
  - { from: all, topic: again }
";
    let records = records(200, &mut Random::new());
    let place = place(text, &records[..150]);
    let once = ["--commit-interval", "60000"];
    let totals = |records: &[Record]| -> BTreeMap<usize, (i64, i64, i64)> {
        let mut totals = BTreeMap::new();
        for (time, key, n) in records {
            let (count, sum, highest) = totals.entry(*key).or_insert((0, 0, i64::MIN));
            (*count, *sum, *highest) = (*count + 1, *sum + n, (*highest).max(*time));
        }
        totals
    };
    let expected = |totals: BTreeMap<usize, (i64, i64, i64)>| -> Vec<Value> {
        totals.into_iter().map(|(key, (count, sum, time))| json!([KEYS[key], time, null, null, count, sum])).collect()
    };
    // One for each side of the repartition.
    assert_eq!(run(&place, &once)["commits"], 2);
    let first = expected(totals(&records[..150]));
    assert_eq!(results(&place, "out"), first);
    assert_eq!(results(&place, "again").len(), first.iter().map(|result| result[4].to_string()).collect::<BTreeSet<_>>().len());
    // Of the next records, only their own groups.
    let rest: Vec<Record> = records[150..].iter().copied().filter(|record| record.1 != 1).collect();
    place.produce("in", &lines(&rest));
    run(&place, &once);
    let all: Vec<Record> = records[..150].iter().chain(&rest).copied().collect();
    let second: Vec<_> = expected(totals(&all)).into_iter().filter(|result| result[0] != KEYS[1]).collect();
    assert_eq!(results(&place, "out")[first.len()..], second);
    run(&place, &once);
    assert_eq!(results(&place, "out").len(), first.len() + second.len(), "nothing changed");
}

/// Sessions, final, against sessions found in the plainest way.
#[test]
fn sessions_are_those_of_a_model() {
    let records = records(400, &mut Random::new());
    let (gap, grace) = (700, 300);
    // Last and first time, key, count, sum.
    let mut open: Vec<(i64, i64, usize, i64, i64)> = Vec::new();
    let (mut stream_time, mut late, mut finals) = (i64::MIN, 0, Vec::new());
    let give = |sessions: &mut Vec<(i64, i64, usize, i64, i64)>, closed: &dyn Fn(i64) -> bool, finals: &mut Vec<Value>| {
        sessions.sort();
        finals.extend(
            sessions
                .extract_if(.., |session| closed(session.0))
                .map(|(last, start, key, count, sum)| result(key, last, start, last, count, sum)),
        );
    };
    for (time, key, n) in &records {
        let near: Vec<_> =
            open.extract_if(.., |session| session.2 == *key && session.1 - gap <= *time && *time <= session.0 + gap).collect();
        if near.is_empty() && time + gap + grace < stream_time {
            late += 1;
        } else {
            let whole = near.iter().fold((*time, *time, *key, 1, *n), |whole, one| {
                (whole.0.max(one.0), whole.1.min(one.1), *key, whole.3 + one.3, whole.4 + one.4)
            });
            open.push(whole);
        }
        stream_time = stream_time.max(*time);
        give(&mut open, &|last| last + gap + grace < stream_time, &mut finals);
    }
    let closed = finals.len();
    give(&mut open, &|_| true, &mut finals);
    assert!(late > 10 && closed > 50, "{late} {closed}");
    for rows in ROWS {
        let text = manifest("{ session: 700ms, grace: 300ms }", "final", "on_late: { dead_letter: late }");
        let place = place(&text, &records[..200]);
        let first = run(&place, &["--batch-rows", rows])["stages"][0]["late"].as_i64().unwrap();
        place.produce("in", &lines(&records[200..]));
        let second = run(&place, &["--batch-rows", rows])["stages"][0]["late"].as_i64().unwrap();
        assert_eq!(first + second, late, "batches of {rows}");
        assert_eq!(place.consume("late").len() as i64, late);
        assert!(results(&place, "out") == finals[..closed], "batches of {rows}");
        run(&place, &["--close-windows"]);
        assert!(results(&place, "out") == finals, "batches of {rows}");
    }
}

/// Late records as they came, with where from and why; under the rules of privacy.
#[test]
fn late_records_become_dead_letters() {
    let late = "on_late: { dead_letter: late }";
    let records = [(100_000, 0, 1), (120_000, 1, 2), (100_001, 2, 3), (121_000, 0, 4)];
    let place = place(&manifest("{ tumbling: 10s }", "updates", late), &records);
    let report = run(&place, &[]);
    assert_eq!(
        (&report["stages"][0]["late"], &report["stages"][0]["rejected"], &report["refused"]["late"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let letters = place.consume("late");
    assert_eq!(letters.len(), 1);
    let letter: Value = serde_json::from_str(&letters[0]).unwrap();
    assert_eq!((&letter["key"], &letter["value"], &letter["timestamp"]), (&json!("c"), &json!({ "n": 3 }), &json!(100_001)));
    let headers = letter["headers"].to_string();
    assert!(["\"late\"", "counts", "\"2\""].iter().all(|part| headers.contains(part)), "{headers}");

    // Not before a stage that protects.
    let masked = manifest("{ tumbling: 10s }", "updates", late)
        .replace("stages:\n", "stages:\n  - { name: hide, plugin: mask, with: { rules: [{ fields: [n], replace: { a: b } }] } }\n")
        .replace("    plugin: aggregate\n", "    plugin: aggregate\n    from: in\n");
    let place = self::place(
        &masked.replace("from: counts, topic: out }", "from: counts, topic: out }\n  - { from: hide, topic: hidden }"),
        &records,
    );
    run(&place, &[]);
    let letter: Value = serde_json::from_str(&place.consume("late")[0]).unwrap();
    assert!(letter["key"].is_null() && letter["value"].is_null(), "{letter}");
}

/// Windows and timers count from them: at the ends of all numbers a window would have no end.
#[test]
fn times_that_no_window_can_hold_are_refused() {
    for window in ["{ tumbling: 10ms }", "{ hopping: 10ms, advance: 5ms }", "{ session: 10ms }"] {
        let place = Place::embedded();
        place.write(&format!("{}on_error: skip\n", manifest(window, "final", "")));
        place.topic("in", "1");
        let line = |time: i64| format!("{{\"key\":\"a\",\"value\":{{\"n\":1}},\"timestamp\":{time}}}\n");
        let most = 8_640_000_000_000_000;
        place.produce("in", &[i64::MIN, i64::MAX, -most, most + 1, most].map(line).concat());
        let report = run(&place, &["--close-windows"]);
        assert_eq!(report["refused"]["out_of_range"], 3, "{report}");
        let windows = if window.contains("hopping") { 4 } else { 2 };
        assert_eq!(place.consume("out").len(), windows, "{window}");
    }
}
