//! The plugin as a whole: batches in, results and stored rows out.

use crate::Aggregate;
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::describe::{FieldType, Mistake, Occasion, Schema, Window};
use millstream_guest::field::Field;
use millstream_guest::testing::{Columns, Value, late_rows, store_rows};
use millstream_guest::verdict::{Outcome, Verdict};
use millstream_guest::{Batch, Plugin};
use serde_json::json;
use std::collections::BTreeMap;

fn schema(fields: &[(&str, Type)]) -> Schema {
    let fields = fields.iter().map(|(path, kind)| FieldType { path: Field::parse(path).unwrap(), kind: *kind, nullable: true });
    Schema { fields: fields.collect(), open: true }
}

fn ratings() -> Schema {
    schema(&[("club", Type::Text), ("stars", Type::Int), ("price", Type::Float), ("channel", Type::Text)])
}

fn start(config: serde_json::Value) -> Columns<Aggregate> {
    Columns::start(config, ratings(), BTreeMap::new()).unwrap()
}

fn mistakes(config: serde_json::Value) -> Vec<Mistake> {
    let config = serde_json::from_value(config).unwrap();
    Aggregate::describe(&millstream_guest::Setup { config, input: ratings(), inputs: vec![ratings()], tables: BTreeMap::new() })
        .unwrap_err()
}

/// A record: its time, and a cell for each read.
type Record<'a> = (i64, Vec<Cell<'a>>);

fn batch(aggregate: &Columns<Aggregate>, records: &[Record<'_>]) -> Batch {
    let column = |(place, kind): (usize, Type)| -> Column {
        let mut column = ColumnBuilder::new(kind, records.len());
        records.iter().for_each(|(_, cells)| column.cell(cells[place]));
        column.finish()
    };
    let kinds = aggregate.description.reads.iter().map(|read| read.kind).enumerate();
    Batch {
        rows: records.len(),
        timestamps: records.iter().map(|(time, _)| *time).collect(),
        fields: kinds.map(column).collect(),
        ..Batch::default()
    }
}

/// A result as text: source row, key, time, fields.
fn results(aggregate: &mut Columns<Aggregate>, records: &[Record<'_>]) -> (Vec<String>, Vec<(u32, String)>) {
    let verdict = aggregate.process(batch(aggregate, records)).unwrap();
    shown(verdict)
}

fn shown(verdict: Verdict) -> (Vec<String>, Vec<(u32, String)>) {
    let Outcome::Derive(derived) = verdict.outcome else { panic!("an aggregate derives") };
    let rejects = || verdict.rejects.iter().map(|reject| (reject.row, reject.reason.clone())).collect();
    let Some(derived) = derived.first() else { return (Vec::new(), rejects()) };
    let shown = (0..derived.source.len()).map(|row| {
        let key = derived.keys.as_ref().map(|keys| String::from_utf8_lossy(keys.bytes(row).unwrap()).into_owned());
        let fields: Vec<_> = derived.fields.iter().map(|field| Value::of(field.column.cell(row))).collect();
        format!("{} {key:?} {} {fields:?}", derived.source[row], derived.timestamps.as_ref().unwrap()[row])
    });
    (shown.collect(), rejects())
}

#[test]
fn balance_by_key() {
    let mut aggregate = start(json!({ "compute": { "balance": "sum(stars)", "bookings": "count()" } }));
    let description = &aggregate.description;
    assert_eq!(description.stores[0].by, [Field::Key]);
    assert_eq!((description.stores[0].key, description.stores[0].windowed, description.window), (Type::Text, false, None));
    let record = |time, stars| (time, vec![Cell::Text("account"), Cell::Int(stars)]);
    let (out, rejects) = results(&mut aggregate, &[record(10, 50), record(30, 25), record(20, -60)]);
    assert_eq!(out, ["0 None 10 [Int(50), Int(1)]", "1 None 30 [Int(75), Int(2)]", "2 None 30 [Int(15), Int(3)]"]);
    assert!(rejects.is_empty());
    assert_eq!(store_rows(0), [(Value::Text("account".into()), vec![Value::Int(30), Value::Int(15), Value::Int(3)])]);
}

#[test]
fn groups_of_one_and_of_several_fields() {
    let mut aggregate = start(json!({ "group_by": ["club"], "compute": { "stars": "avg(stars)" } }));
    let (out, _) = results(&mut aggregate, &[(1, vec![Cell::Text("gold"), Cell::Int(3)]), (2, vec![Cell::Text("gold"), Cell::Int(4)])]);
    assert_eq!(out[1], r#"1 Some("gold") 2 [Text("gold"), Float(3.5)]"#);
    let names: Vec<_> = aggregate.description.stores[0].fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["$time", "stars.sum", "stars.count"]);

    let mut aggregate = start(json!({ "group_by": ["club", "stars"], "compute": { "n": "count()" } }));
    let (out, _) = results(&mut aggregate, &[(1, vec![Cell::Text("a\"b"), Cell::Int(3)])]);
    assert_eq!(out[0], r#"0 Some("{\"club\":\"a\\\"b\",\"stars\":3}") 1 [Text("a\"b"), Int(3), Int(1)]"#);
}

#[test]
fn windows() {
    let mut aggregate = start(
        json!({ "group_by": ["club"], "window": { "tumbling": "1m", "grace": "10s" }, "compute": { "n": "count()", "last": "last(channel)" } }),
    );
    assert_eq!(aggregate.description.window, Some(Window::tumbling(60_000, 10_000)));
    let written: Vec<_> = aggregate.description.outputs[0].fields.iter().map(|field| (field.path.to_string(), field.nullable)).collect();
    assert_eq!(
        written,
        [("club".into(), false), ("window_start".into(), false), ("window_end".into(), false), ("n".into(), false), ("last".into(), true)]
    );
    let record = |time: i64, channel| {
        let window = time.div_euclid(60_000) * 60_000;
        (time, vec![Cell::Text("gold"), Cell::Int(window), Cell::Int(window + 60_000), Cell::Text(channel)])
    };
    let (out, _) = results(&mut aggregate, &[record(59_999, "web"), record(60_000, "ios"), record(1, "android"), record(-1, "past")]);
    assert_eq!(
        out,
        [
            r#"0 Some("gold") 59999 [Text("gold"), Int(0), Int(60000), Int(1), Text("web")]"#,
            r#"1 Some("gold") 60000 [Text("gold"), Int(60000), Int(120000), Int(1), Text("ios")]"#,
            r#"2 Some("gold") 59999 [Text("gold"), Int(0), Int(60000), Int(2), Text("android")]"#,
            r#"3 Some("gold") -1 [Text("gold"), Int(-60000), Int(0), Int(1), Text("past")]"#,
        ]
    );
    // A result's time stays inside its window, whatever time the record has.
    let outside = (70_000, vec![Cell::Text("tin"), Cell::Int(0), Cell::Int(60_000), Cell::Null]);
    assert!(results(&mut aggregate, &[outside]).0[0].starts_with(r#"0 Some("tin") 59999 "#));
    // In the order of time, also below zero.
    let keys: Vec<_> = store_rows(0).into_iter().map(|(key, _)| key).filter(|key| !format!("{key:?}").contains("116, 105, 110")).collect();
    let key = |start: i64| Value::Bytes([&(start ^ i64::MIN).to_be_bytes()[..], b"gold"].concat());
    assert_eq!(keys, [key(-60_000), key(0), key(60_000)]);
}

#[test]
fn a_refused_record_leaves_no_trace() {
    let mut aggregate = start(json!({ "compute": { "n": "count()", "sum": "sum(stars)", "most": "max(price)" } }));
    let record = |key, stars, price| (5, vec![key, Cell::Int(stars), Cell::Float(price)]);
    let records = [
        record(Cell::Text("a"), i64::MAX, 1.0),
        record(Cell::Text("a"), 1, 9.0),
        record(Cell::Null, 1, 1.0),
        record(Cell::Text("a"), -1, 2.0),
        record(Cell::Text("b"), 0, 0.5),
    ];
    let (out, rejects) = results(&mut aggregate, &records);
    assert_eq!(out[1], format!("3 None 5 [Int(2), Int({}), Float(2.0)]", i64::MAX - 1));
    assert_eq!(rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    assert!(rejects[0].1.contains("`sum`") && rejects.iter().all(|(_, reason)| !reason.contains("9223372036854775807")));
    // A group all of whose records are refused is not stored.
    let mut aggregate = start(json!({ "compute": { "sum": "sum(price)" } }));
    results(&mut aggregate, &[(1, vec![Cell::Text("a"), Cell::Float(f64::MAX)])]);
    let (out, rejects) =
        results(&mut aggregate, &[(1, vec![Cell::Text("a"), Cell::Float(f64::MAX)]), (1, vec![Cell::Null, Cell::Float(1.0)])]);
    assert_eq!((out.len(), rejects.len(), store_rows(0).len()), (0, 2, 1));
}

#[test]
fn a_group_needs_all_its_fields() {
    let mut aggregate = start(json!({ "group_by": ["club", "channel"], "compute": { "n": "count()" } }));
    let (out, rejects) = results(&mut aggregate, &[(1, vec![Cell::Text("a"), Cell::Null]), (1, vec![Cell::Text("a"), Cell::Text("b")])]);
    assert_eq!(out.len(), 1);
    assert_eq!(rejects, [(0, "`channel` is null or missing, so the record belongs to no group".to_owned())]);
}

/// Results and stored rows are the same however the records are cut into batches.
#[test]
fn batch_cuts_change_nothing() {
    let config = json!({
        "group_by": ["club"],
        "window": { "tumbling": "1s" },
        "compute": {
            "n": "count()", "rated": "count(stars)", "sum": "sum(stars)", "least": "min(price)", "most": "max(channel)", "mean": "avg(price)",
            "first": "first(stars)", "last": "last(channel)", "some": "collect(stars, 5)"
        }
    });
    let reads: Vec<_> = start(config.clone()).description.reads.iter().map(|read| read.path.to_string()).collect();
    assert_eq!(reads, ["club", "$window.start", "$window.end", "stars", "price", "channel"]);
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let clubs = ["gold", "silver", "bronze"];
    let records: Vec<Record<'_>> = (0..1000i64)
        .map(|row| {
            let time = row * 7 + random(50) as i64;
            let start = time / 1000 * 1000;
            let club = if random(20) == 0 { Cell::Null } else { Cell::Text(clubs[random(3) as usize]) };
            let stars = match random(30) {
                0 => Cell::Null,
                1 => Cell::Int(i64::MAX),
                stars => Cell::Int(stars as i64 % 5),
            };
            let price = if random(9) == 0 { Cell::Null } else { Cell::Float(random(1000) as f64 / 7.0) };
            (time, vec![club, Cell::Int(start), Cell::Int(start + 1000), stars, price, Cell::Text(clubs[random(3) as usize])])
        })
        .collect();
    let run = |cut: usize| {
        let mut aggregate = start(config.clone());
        let mut all = Vec::new();
        for (part, records) in records.chunks(cut).enumerate() {
            let (out, rejects) = results(&mut aggregate, records);
            let row = |row: &str| (part * cut + row.parse::<usize>().unwrap()).to_string();
            all.extend(out.into_iter().map(|line| {
                let (source, rest) = line.split_once(' ').unwrap();
                format!("{} {rest}", row(source))
            }));
            all.extend(rejects.into_iter().map(|(rejected, reason)| format!("{} {reason}", row(&rejected.to_string()))));
        }
        all.sort();
        (all, store_rows(0))
    };
    let whole = run(1000);
    assert_eq!(whole.0.len(), 1000);
    assert!(whole.0.iter().any(|line| line.contains("range of int")) && whole.1.len() > 15);
    assert!(run(1) == whole);
    assert!(run(7) == whole);
}

#[test]
fn undeclared_fields_have_one_assumed_type() {
    let aggregate =
        start(json!({ "group_by": ["region"], "compute": { "n": "count(amount)", "sum": "sum(amount)", "any": "first(thing)" } }));
    let reads: Vec<_> = aggregate.description.reads.iter().map(|read| (read.path.to_string(), read.kind)).collect();
    assert_eq!(reads, [("region".into(), Type::Text), ("amount".into(), Type::Float), ("thing".into(), Type::Json)]);
}

#[test]
fn pseudo_fields_and_keys_of_other_types() {
    let input = schema(&[("$key", Type::Int), ("a", Type::Int)]);
    let mut aggregate =
        Columns::<Aggregate>::start(json!({ "compute": { "latest": "max($timestamp)", "n": "count(a)" } }), input, BTreeMap::new())
            .unwrap();
    let (out, _) = results(&mut aggregate, &[(9, vec![Cell::Int(7), Cell::Int(9), Cell::Null])]);
    assert_eq!(out, ["0 None 9 [Int(9), Int(0)]"]);
    assert_eq!(store_rows(0)[0].0, Value::Text("7".into()));
}

#[test]
fn mistakes_are_found_all_at_once() {
    let found = mistakes(json!({
        "group_by": ["club", "club", "$offset", "a..b"],
        "window": { "tumbling": "0s", "grace": "soon" },
        "emit": "soonest",
        "compute": {
            "club": "count()", "a": "sum(channel)", "b": "average(stars)", "c": "sum(", "d": "sum()", "e": "collect(stars, 0)",
            "f": "sum(stars, 3)", "x.y": "count()", "x": "count()", "g/h": "median(stars)"
        }
    }));
    let found: Vec<_> = found.iter().map(|mistake| (mistake.at.as_str(), mistake.span)).collect();
    assert_eq!(
        found,
        [
            ("/window/tumbling", None),
            ("/window/grace", None),
            ("/emit", None),
            ("/group_by/1", None),
            ("/group_by/2", None),
            ("/group_by/3", None),
            ("/compute/b", Some((0, 7))),
            ("/compute/c", Some((3, 4))),
            ("/compute/d", Some((0, 3))),
            ("/compute/e", Some((15, 16))),
            ("/compute/f", Some((11, 12))),
            ("/compute/g~1h", Some((0, 6))),
            ("/compute/club", None),
            ("/compute/a", Some((4, 11))),
            ("/compute/x", None),
        ]
    );
    assert_eq!(mistakes(json!({ "compute": {} }))[0].at, "/compute");
    assert!(mistakes(json!({ "emit": "final", "compute": { "n": "count()" } }))[0].message.contains("no window"));
    assert_eq!(mistakes(json!({ "compute": { "n": "min($window.start)" } }))[0].span, Some((4, 17)));
}

#[test]
fn an_empty_batch_and_a_wrong_one() {
    let mut aggregate = start(json!({ "compute": { "n": "count()" } }));
    assert_eq!(results(&mut aggregate, &[]), (vec![], vec![]));
    assert!(aggregate.process(Batch { rows: 1, timestamps: vec![0], ..Batch::default() }).is_err());
}

#[test]
fn kinds_of_windows() {
    let window = |window: serde_json::Value| start(json!({ "window": window, "compute": { "n": "count()" } })).description.window.unwrap();
    let hopping = Window { size: 300_000, advance: 60_000, session: false, grace: 1000 };
    assert_eq!(window(json!({ "hopping": "5m", "advance": "1m", "grace": "1s" })), hopping);
    assert_eq!(window(json!({ "session": "30m" })), Window { size: 1_800_000, session: true, ..Window::default() });
    for (window, at) in [
        (json!({}), "/window"),
        (json!({ "tumbling": "1m", "session": "1m" }), "/window"),
        (json!({ "hopping": "1m" }), "/window"),
        (json!({ "hopping": "1m", "advance": "2m" }), "/window/advance"),
        (json!({ "hopping": "1h", "advance": "1s" }), "/window/advance"),
        (json!({ "tumbling": "1m", "advance": "1m" }), "/window/advance"),
        (json!({ "session": "soon" }), "/window/session"),
    ] {
        let found = mistakes(json!({ "window": window, "compute": { "n": "count()" } }));
        assert_eq!((found.len(), found[0].at.as_str()), (1, at), "{window}");
    }
    let found = mistakes(json!({ "window": { "session": "1m" }, "compute": { "n": "max($window.end)" } }));
    assert_eq!(found[0].span, Some((4, 15)));
}

/// Results of closed windows say all that those of records do, though they come of no record.
#[test]
fn results_of_closed_windows() {
    let config = |group: serde_json::Value, emit: &str| json!({ "group_by": group, "window": { "tumbling": "1m" }, "emit": emit, "compute": { "n": "count()", "mean": "avg(price)" } });
    for (group, cells, key, fields) in [
        (json!(["club"]), vec![Cell::Text("go\"ld")], "go\"ld", r#"Text("go\"ld")"#),
        (json!(["stars"]), vec![Cell::Int(-4)], "-4", "Int(-4)"),
        (json!(["price"]), vec![Cell::Float(2.0)], "2.0", "Float(2.0)"),
        (json!(["club", "stars"]), vec![Cell::Text("a"), Cell::Int(3)], r#"{"club":"a","stars":3}"#, r#"Text("a"), Int(3)"#),
    ] {
        let mut aggregate = start(config(group.clone(), "final"));
        assert_eq!(aggregate.description.stores[0].emits, [Occasion::Closed]);
        let price = group == json!(["price"]);
        let record = |time: i64| {
            let window = [Cell::Int(0), Cell::Int(60_000)];
            let price = (!price).then_some(Cell::Float(1.5));
            (time, cells.iter().copied().chain(window).chain(price).collect::<Vec<_>>())
        };
        assert_eq!(results(&mut aggregate, &[record(5), record(59_999), record(7)]), (vec![], vec![]));
        let mean = if price { 2.0 } else { 1.5 };
        let expected = format!("0 {:?} 59999 [{fields}, Int(0), Int(60000), Int(3), Float({mean:?})]", Some(key));
        let closed = shown(aggregate.emit(0, Occasion::Closed, |_| true).unwrap());
        assert_eq!(closed, (vec![expected], vec![]));
        assert!(store_rows(0).is_empty());
    }
    // A wrong key is no panic.
    let mut aggregate = start(config(json!(["stars"]), "final"));
    let (keys, row) = (ColumnBuilder::new(Type::Bytes, 0), aggregate.description.stores[0].fields.clone());
    let mut keys = keys;
    keys.bytes(b"short");
    let fields = row.iter().map(|field| {
        let mut column = ColumnBuilder::new(field.kind, 1);
        column.null();
        column.finish()
    });
    assert!(crate::Emitting::emit(&mut aggregate.plugin, 0, Occasion::Closed, keys.finish(), fields.collect()).is_err());
}

#[test]
fn results_of_changed_groups() {
    let mut aggregate = start(json!({ "emit": "changes", "compute": { "n": "count()", "most": "max(stars)" } }));
    assert_eq!(aggregate.description.stores[0].emits, [Occasion::Changed]);
    let record = |time, key, stars| (time, vec![Cell::Text(key), Cell::Int(stars)]);
    let (out, _) = results(&mut aggregate, &[record(3, "b", 1), record(9, "a", 4), record(4, "b", 7)]);
    assert!(out.is_empty());
    let changed = shown(aggregate.emit(0, Occasion::Changed, |_| true).unwrap()).0;
    assert_eq!(changed, [r#"0 Some("a") 9 [Int(1), Int(4)]"#, r#"1 Some("b") 4 [Int(2), Int(7)]"#]);
    assert_eq!(store_rows(0).len(), 2, "they stay");
}

fn sessions(emit: &str) -> Columns<Aggregate> {
    start(json!({
        "group_by": ["club"],
        "window": { "session": "10ms", "grace": "5ms" },
        "emit": emit,
        "compute": { "n": "count()", "sum": "sum(stars)", "first": "first(stars)", "all": "collect(stars, 3)" },
    }))
}

#[test]
fn records_join_sessions() {
    let mut aggregate = sessions("updates");
    let record = |time: i64, stars| (time, vec![Cell::Text("gold"), Cell::Int(stars)]);
    // Two sessions, which the third record joins: each is just within the gap.
    let (out, _) = results(&mut aggregate, &[record(100, 1), record(120, 2), record(110, 3), record(131, 4)]);
    assert_eq!(
        out,
        [
            r#"0 Some("gold") 100 [Text("gold"), Int(100), Int(100), Int(1), Int(1), Int(1), Json("[1]")]"#,
            // 100 + 10 + 5 < 120: the first one is closed, and takes nothing.
            r#"1 Some("gold") 120 [Text("gold"), Int(120), Int(120), Int(1), Int(2), Int(2), Json("[2]")]"#,
            r#"2 Some("gold") 120 [Text("gold"), Int(110), Int(120), Int(2), Int(5), Int(2), Json("[2,3]")]"#,
            r#"3 Some("gold") 131 [Text("gold"), Int(131), Int(131), Int(1), Int(4), Int(4), Json("[4]")]"#,
        ]
    );
    let mut aggregate = sessions("updates");
    let (out, _) = results(&mut aggregate, &[record(100, 1), record(111, 2), record(105, i64::MAX), record(106, 3)]);
    assert_eq!(out.len(), 3, "{out:?}");
    assert_eq!(out[2], r#"3 Some("gold") 111 [Text("gold"), Int(100), Int(111), Int(3), Int(6), Int(1), Json("[1,2,3]")]"#);
    let keys = |store| store_rows(store).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(0), [Value::Bytes([&(111 ^ i64::MIN).to_be_bytes()[..], b"gold"].concat())], "the rows of the two are gone");
    assert_eq!(store_rows(1), [(Value::Text("gold".into()), vec![Value::Json("[[100,111]]".into())])]);
    assert!(shown(aggregate.emit(0, Occasion::Closed, |_| true).unwrap()).0.is_empty(), "each update was given out");
    assert!(store_rows(1).is_empty(), "a closed session leaves the list of its group");
}

/// Against sessions found in the plainest way; however the records are cut into batches.
#[test]
fn sessions_as_a_model_has_them() {
    let mut seed = 11u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let clubs = ["gold", "silver", "bronze"];
    let records: Vec<(i64, usize, i64)> =
        (0..600i64).map(|row| (1000 + row * 3 + random(25) as i64 - random(25) as i64, random(3) as usize, random(100) as i64)).collect();
    // Club, first and last time, count, sum.
    let mut model: Vec<(usize, i64, i64, i64, i64)> = Vec::new();
    let (mut late, mut stream_time) = (Vec::new(), i64::MIN);
    for (row, (time, club, stars)) in records.iter().enumerate() {
        let open = |last: i64| last + 10 + 5 >= stream_time;
        let near = |session: &&(usize, i64, i64, i64, i64)| {
            session.0 == *club && open(session.2) && session.1 - 10 <= *time && *time <= session.2 + 10
        };
        let joined: Vec<_> = model.iter().filter(near).copied().collect();
        if joined.is_empty() && !open(*time) {
            late.push(row as u32);
        } else {
            model.retain(|session| !joined.contains(session));
            let start = joined.iter().map(|session| session.1).min().unwrap_or(*time).min(*time);
            let last = joined.iter().map(|session| session.2).max().unwrap_or(*time).max(*time);
            let (count, sum) = joined.iter().fold((1, *stars), |(count, sum), session| (count + session.3, sum + session.4));
            model.push((*club, start, last, count, sum));
        }
        stream_time = stream_time.max(*time);
    }
    model.sort_by_key(|(club, _, last, ..)| (*last, clubs[*club]));
    assert!(late.len() > 10 && model.len() > 30, "{} {}", late.len(), model.len());
    for cut in [1, 7, 1000] {
        let mut aggregate = sessions("final");
        let (mut out, mut found_late, mut stream_time) = (Vec::new(), Vec::new(), i64::MIN);
        let window = aggregate.description.window.unwrap();
        for (part, records) in records.chunks(cut).enumerate() {
            let rows: Vec<Record<'_>> =
                records.iter().map(|(time, club, stars)| (*time, vec![Cell::Text(clubs[*club]), Cell::Int(*stars)])).collect();
            let input = Batch { stream_time, ..batch(&aggregate, &rows) };
            assert_eq!(shown(aggregate.process(input).unwrap()), (vec![], vec![]));
            found_late.extend(late_rows().into_iter().map(|row| (part * cut) as u32 + row));
            stream_time = records.iter().map(|(time, ..)| *time).fold(stream_time, i64::max);
            let closed =
                |key: &Value| matches!(key, Value::Bytes(key) if crate::group::split(key).unwrap().0 < window.open_from(stream_time));
            out.extend(shown(aggregate.emit(0, Occasion::Closed, closed).unwrap()).0);
        }
        out.extend(shown(aggregate.emit(0, Occasion::Closed, |_| true).unwrap()).0);
        assert_eq!(found_late, late, "batches of {cut}");
        let plain: Vec<String> =
            out.iter().map(|line| line.split_once(' ').unwrap().1.rsplit_once(", Int(").unwrap().0.to_owned()).collect();
        let expected: Vec<String> = model
            .iter()
            .map(|(club, start, last, count, sum)| {
                let club = clubs[*club];
                format!("Some({club:?}) {last} [Text({club:?}), Int({start}), Int({last}), Int({count}), Int({sum})")
            })
            .collect();
        assert_eq!(plain, expected, "batches of {cut}");
        assert!(store_rows(0).is_empty() && store_rows(1).is_empty());
    }
}
