use super::*;
use millstream_guest::column::{Cell, ColumnBuilder, Type};
use millstream_guest::describe::{Request, Schema};
use millstream_guest::field::Field;
use millstream_guest::testing::{self, Answers, Case, Columns, Record, Value};
use millstream_guest::verdict::{Derived, Outcome};
use serde_json::json;
use std::collections::BTreeMap;

const LEFT: &[(&str, &str)] = &[("id", "int"), ("user", "text?")];
const RIGHT: &[(&str, &str)] = &[("id", "int"), ("owner", "int?")];

fn streams(on: serde_json::Value, join: &str) -> serde_json::Value {
    let fields = json!({ "id": "left.id", "other": "right.id", "at": "right.$timestamp" });
    json!({ "on": on, "within": "10ms", "grace": "5ms", "join": join, "fields": fields })
}

fn request(config: serde_json::Value) -> Request {
    let open = Schema { fields: Vec::new(), open: true };
    Request { config, input: open, inputs: vec![testing::schema(LEFT), testing::schema(RIGHT)], tables: BTreeMap::new() }
}

/// A record: side, key, id, time.
type Given = (u32, &'static str, i64, i64);

/// A result: key, left's id, right's id, time.
type Told = (String, Option<i64>, Option<i64>, i64);

/// A join at work as the host has it: batches are cut anyhow, what is closed is handed over before the record that closes it.
struct Host {
    join: Columns<Joined>,
    stream_time: i64,
    results: Vec<Told>,
    late: usize,
}

impl Host {
    fn new(join: &str) -> Self {
        Self {
            join: Columns::of(request(streams(serde_json::Value::Null, join))).unwrap(),
            stream_time: i64::MIN,
            results: Vec::new(),
            late: 0,
        }
    }

    fn batch(&self, records: &[Given]) -> Batch {
        let column = |read: &millstream_guest::describe::Read| {
            let mut column = ColumnBuilder::new(read.kind, records.len());
            for (side, key, id, time) in records {
                let own = read.input.is_none_or(|input| input == *side);
                column.cell(match read.path.to_string().as_str() {
                    _ if !own => Cell::Null,
                    "$input" => Cell::Int((*side).into()),
                    "$key" if key.is_empty() => Cell::Null,
                    "$key" => Cell::Text(key),
                    "id" => Cell::Int(*id),
                    "$timestamp" => Cell::Int(*time),
                    other => panic!("{other}"),
                });
            }
            column.finish()
        };
        Batch {
            rows: records.len(),
            stream_time: self.stream_time,
            timestamps: records.iter().map(|record| record.3).collect(),
            fields: self.join.description.reads.iter().map(column).collect(),
            ..Batch::default()
        }
    }

    /// Takes records in batches of so many.
    fn take(&mut self, records: &[Given], rows: usize) {
        for records in records.chunks(rows) {
            let batch = self.batch(records);
            let times = batch.timestamps.clone();
            let verdict = self.join.process(batch).unwrap();
            assert_eq!(verdict.rejects, []);
            self.late += testing::late_rows().len();
            // By record: what closes before it, then its own.
            let own = told(verdict.outcome, |row| records[row].1.to_owned());
            for (row, time) in times.into_iter().enumerate() {
                self.stream_time = self.stream_time.max(time);
                self.close();
                self.results.extend(own.iter().filter(|(source, _)| *source == row).map(|(_, told)| told.clone()));
            }
        }
    }

    fn close(&mut self) {
        let window = self.join.description.window.unwrap();
        if self.join.description.stores[0].emits.is_empty() {
            return;
        }
        let closed = |key: &Value| matches!(key, Value::Bytes(key) if index::split(key).unwrap().0 < window.open_from(self.stream_time));
        let verdict = self.join.emit(0, Occasion::Closed, closed).unwrap();
        self.results.extend(told(verdict.outcome, |_| String::new()).into_iter().map(|(_, told)| told));
    }
}

/// What comes out: its row and itself. Keys that are given go before the records'.
fn told(outcome: Outcome, key: impl Fn(usize) -> String) -> Vec<(usize, Told)> {
    let derived: Derived = match outcome {
        Outcome::Derive(mut outputs) => match outputs.pop() {
            Some(derived) => derived,
            None => return Vec::new(),
        },
        other => panic!("{other:?}"),
    };
    let int = |column: usize, row: usize| match derived.fields[column].column.cell(row) {
        Cell::Int(value) => Some(value),
        _ => None,
    };
    let times = derived.timestamps.unwrap();
    let given = |row: usize| derived.keys.as_ref().map(|keys| String::from_utf8(keys.bytes(row).unwrap().to_vec()).unwrap());
    let told = |row: usize| (given(row).unwrap_or_else(|| key(derived.source[row] as usize)), int(0, row), int(1, row), times[row]);
    (0..times.len()).map(|row| (derived.source[row] as usize, told(row))).collect()
}

/// The same in the plainest way.
#[derive(Default)]
struct Model {
    left_join: bool,
    stream_time: Option<i64>,
    /// Side, key, id, time, whether it met one; in the order of arrival.
    records: Vec<(Given, bool)>,
    results: Vec<Told>,
    late: usize,
}

impl Model {
    fn open(&self, time: i64) -> bool {
        self.stream_time.is_none_or(|now| now <= time + 10 + 5)
    }

    fn take(&mut self, record: Given) {
        let (side, key, id, time) = record;
        let late = !self.open(time);
        // What this record closes has had its chance.
        let open: Vec<bool> = self.records.iter().map(|(other, _)| self.open(other.3)).collect();
        self.stream_time = Some(self.stream_time.map_or(time, |now| now.max(time)));
        self.close();
        if key.is_empty() {
            if side == 0 && self.left_join {
                self.results.push((String::new(), Some(id), None, time));
            }
            return;
        }
        if late {
            self.late += 1;
            return;
        }
        let mut partners: Vec<usize> = (0..self.records.len())
            .filter(|place| {
                let (other, _) = &self.records[*place];
                other.0 != side && other.1 == key && (other.3 - time).abs() <= 10 && open[*place]
            })
            .collect();
        partners.sort_by_key(|place| self.records[*place].0.3);
        for place in &partners {
            let (other, matched) = &mut self.records[*place];
            *matched = true;
            let ids = if side == 0 { (Some(id), Some(other.2)) } else { (Some(other.2), Some(id)) };
            self.results.push((key.to_owned(), ids.0, ids.1, time.max(other.3)));
        }
        self.records.push((record, !partners.is_empty()));
    }

    /// Lonely left records that are closed, in the order of time, then of keys.
    fn close(&mut self) {
        if !self.left_join {
            return;
        }
        let closed: Vec<bool> = self.records.iter().map(|((.., time), _)| !self.open(*time)).collect();
        let mut alone = Vec::new();
        for ((record, matched), _) in self.records.iter_mut().zip(&closed).filter(|((record, _), closed)| record.0 == 0 && **closed) {
            if !std::mem::replace(matched, true) {
                alone.push((record.3, record.1, record.2));
            }
        }
        alone.sort_by_key(|(time, key, _)| (*time, *key));
        self.results.extend(alone.into_iter().map(|(time, key, id)| (key.to_owned(), Some(id), None, time)));
    }
}

/// A pseudo-random sequence that is the same everywhere.
fn random(state: &mut u64, below: u64) -> i64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    ((*state >> 33) % below) as i64
}

fn some_records(seed: u64) -> Vec<Given> {
    let (mut state, mut now) = (seed, 1000);
    (0..400)
        .map(|id| {
            now += random(&mut state, 4);
            let back = if random(&mut state, 5) == 0 { random(&mut state, 40) } else { random(&mut state, 4) };
            let key = ["a", "b", "c", ""][(random(&mut state, 13) as usize).min(12) / 4];
            (random(&mut state, 2) as u32, key, id, now - back)
        })
        .collect()
}

#[test]
fn pairs_are_those_of_a_model_however_batches_are_cut() {
    for seed in 0..30 {
        let records = some_records(seed);
        for join in ["inner", "left"] {
            let mut model = Model { left_join: join == "left", ..Model::default() };
            records.iter().for_each(|record| model.take(*record));
            assert!(model.results.len() > 100 && model.late > 5, "seed {seed}: {} results, {} late", model.results.len(), model.late);
            for rows in [1, 7, 1000] {
                let mut host = Host::new(join);
                host.take(&records, rows);
                assert_eq!(host.late, model.late, "seed {seed}, {join}, batches of {rows}");
                assert_eq!(host.results, model.results, "seed {seed}, {join}, batches of {rows}");
            }
        }
    }
}

#[test]
fn several_records_of_one_time_meet_each_other() {
    let records = [(0, "a", 1, 5), (0, "a", 2, 5), (1, "a", 3, 5), (1, "a", 4, 15), (1, "a", 5, 16), (0, "a", 6, 5)];
    for rows in [1, 10] {
        let mut host = Host::new("inner");
        host.take(&records, rows);
        let ids: Vec<_> = host.results.iter().map(|(_, left, right, time)| (left.unwrap(), right.unwrap(), *time)).collect();
        assert_eq!(ids, [(1, 3, 5), (2, 3, 5), (1, 4, 15), (2, 4, 15), (6, 3, 5), (6, 4, 15)]);
    }
}

/// Exactly at within + grace a record is still waited for.
#[test]
fn a_left_record_is_alone_when_it_is_closed() {
    let mut host = Host::new("left");
    host.take(&[(0, "a", 1, 100), (0, "b", 2, 100), (1, "b", 3, 101), (1, "z", 4, 115)], 1);
    assert_eq!(host.results, [("b".to_owned(), Some(2), Some(3), 101)]);
    host.take(&[(1, "z", 5, 116)], 1);
    assert_eq!(host.results[1..], [("a".to_owned(), Some(1), None, 100)]);
    // Closed, it meets nobody; and this one is not late itself.
    host.take(&[(1, "a", 6, 110)], 1);
    assert_eq!((host.results.len(), host.late), (2, 0));
}

/// Records by fields, through the contract of columns.
fn by_fields(config: serde_json::Value, records: &[(u32, i64, serde_json::Value)]) -> Answers {
    let case = Case::<Joined>::new().config(config).and_input(LEFT).and_input(RIGHT);
    case.run(records.iter().map(|(input, time, value)| Record::new(value.clone()).key(format!("k{time}")).timestamp(*time).by(*input)))
}

#[test]
fn fields_of_different_types_meet_as_text() {
    let answers = by_fields(
        streams(json!({ "left": "user", "right": "owner" }), "left"),
        &[
            (0, 1, json!({ "id": 1, "user": "7" })),
            (1, 2, json!({ "id": 2, "owner": 7 })),
            (1, 3, json!({ "id": 3 })),
            (0, 4, json!({ "id": 4, "user": null })),
            (0, 5, json!({ "user": "7" })),
        ],
    );
    let out: Vec<_> = answers.output("out").iter().map(|record| (record.key.clone(), record.value.clone(), record.timestamp)).collect();
    assert_eq!(
        out,
        [(Some("7".to_owned()), json!({ "id": 1, "other": 2, "at": 2 }), 2), (None, json!({ "id": 4, "other": null, "at": null }), 4),]
    );
    assert_eq!(answers.rejects, [(4, "`id` is missing".to_owned())]);
}

fn tables(join: &str, changes: &[(u32, &str, Option<i64>, i64)]) -> Answers {
    let config = json!({ "of": "tables", "join": join, "fields": { "id": "left.id", "other": "right.id" } });
    let case = Case::<Joined>::new().config(config).and_input(LEFT).and_input(RIGHT);
    case.run(changes.iter().map(|(side, key, id, time)| {
        let record = Record::new(id.map_or(json!(null), |id| json!({ "id": id }))).timestamp(*time).by(*side);
        if key.is_empty() { record } else { record.key(*key) }
    }))
}

/// Key, ids (none: a tombstone), time.
fn shown(answers: &Answers) -> Vec<(String, String, i64)> {
    let record = |record: &Record| {
        let value = &record.value;
        let ids = if value.is_null() { "gone".to_owned() } else { format!("{} {}", value["id"], value["other"]) };
        (record.key.clone().unwrap(), ids, record.timestamp)
    };
    answers.output("out").iter().map(record).collect()
}

#[test]
fn each_change_of_a_table_gives_a_result() {
    let changes = [
        (0, "a", Some(1), 10),
        (1, "b", Some(2), 11),
        (1, "a", Some(3), 5),
        (0, "a", Some(4), 4),
        (1, "a", None, 20),
        (0, "b", Some(5), 6),
        (0, "b", None, 7),
        (0, "c", None, 8),
        (1, "a", None, 3),
        (0, "a", None, 21),
        (0, "b", None, 9),
        (1, "b", None, 2),
    ];
    let inner = tables("inner", &changes);
    let wanted = |told: &[(&str, &str, i64)]| -> Vec<_> {
        told.iter().map(|(key, ids, time)| ((*key).to_owned(), (*ids).to_owned(), *time)).collect()
    };
    assert_eq!(
        shown(&inner),
        wanted(&[
            ("a", "1 3", 10),
            ("a", "4 3", 5),
            ("a", "gone", 20),
            ("b", "5 2", 11),
            ("b", "gone", 11),
            ("a", "gone", 4),
            ("b", "gone", 11)
        ])
    );
    assert!(inner.stores[0].is_empty(), "nothing is left of deleted rows: {:?}", inner.stores);
    let left = tables("left", &changes);
    assert_eq!(
        shown(&left),
        wanted(&[
            ("a", "1 null", 10),
            ("a", "1 3", 10),
            ("a", "4 3", 5),
            ("a", "4 null", 20),
            ("b", "5 2", 11),
            ("b", "gone", 11),
            ("a", "4 null", 4),
            ("a", "gone", 21),
            ("b", "gone", 11),
        ])
    );
    assert_eq!(tables("inner", &[(0, "", Some(1), 1)]).rejects[0].1, "the record has no key, so it is no row of a table");
}

#[test]
fn mistakes_name_what_would_be_right() {
    let mistakes = |config: serde_json::Value| -> Vec<(String, String)> {
        let mistakes = Columns::<Joined>::of(request(config)).err().unwrap();
        mistakes.into_iter().map(|mistake| (mistake.at, mistake.message)).collect()
    };
    let at = |config| mistakes(config).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(at(json!({ "within": "0s", "fields": {} })), ["/within", "/fields"]);
    assert_eq!(at(json!({ "within": "1m", "grace": "soon", "fields": { "a": "left.id" } })), ["/grace"]);
    let fields = json!({ "a": "id", "b": "left.", "c": "left.$input", "$key": "left.id", "d": "left.id", "d.e": "left.id" });
    assert_eq!(at(json!({ "within": "1m", "fields": fields })), ["/fields/a", "/fields/b", "/fields/c", "/fields/$key", "/fields/d.e"]);
    assert_eq!(
        mistakes(json!({ "fields": { "a": "left.id" } }))[0].1,
        "streams are joined within a time: how far apart two records may be"
    );
    assert_eq!(at(json!({ "of": "tables", "within": "1m", "on": "id", "fields": { "a": "left.id" } })), ["/within", "/on"]);
    assert_eq!(
        at(json!({ "within": "1m", "on": { "left": "$offset", "right": "x..y" }, "fields": { "a": "left.id" } })),
        ["/on/left", "/on/right"]
    );
    assert_eq!(at(json!({ "within": "1m", "on": "id", "left": 1, "fields": { "a": "left.id" } })), ["/left"]);
    let one = Request { inputs: vec![testing::schema(LEFT)], ..request(streams(json!("id"), "inner")) };
    let mistakes = Columns::<Joined>::of(one).err().unwrap();
    assert_eq!(mistakes[0].message, "a join has two inputs, and the stage has 1");
}

#[test]
fn what_is_kept_is_what_results_need() {
    let described = |config| Columns::<Joined>::of(request(config)).unwrap().description;
    let names = |description: &Description| -> Vec<String> {
        let store = |store: &millstream_guest::describe::Store| {
            let fields: Vec<_> = store.fields.iter().map(|field| field.name.clone()).collect();
            format!("{}: {}", store.name, fields.join(", "))
        };
        description.stores.iter().map(store).collect()
    };
    let of_streams = described(streams(json!({ "left": "user", "right": "owner" }), "left"));
    assert_eq!(names(&of_streams), ["left: id", "right: id, $timestamp", "index: left, right"]);
    assert_eq!(of_streams.input_keys, [Field::parse("user").unwrap(), Field::parse("owner").unwrap()]);
    assert!(!of_streams.tombstones && of_streams.stores[0].emits == [Occasion::Closed] && of_streams.stores[1].emits.is_empty());
    let nullable: Vec<bool> = of_streams.outputs[0].fields.iter().map(|field| field.nullable).collect();
    assert_eq!(nullable, [false, true, true]);
    let of_tables = described(json!({ "of": "tables", "fields": { "id": "left.id", "x": "right.x" } }));
    assert_eq!(names(&of_tables), [": left.$time, left.id, right.$time, right.x"]);
    assert!(of_tables.tombstones && of_tables.window.is_none());
    assert_eq!(of_tables.outputs[0].fields[1].kind, Type::Json);
}
