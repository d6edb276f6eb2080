use super::*;
use millstream_guest::column::{Cell, Column, ColumnBuilder};
use millstream_guest::describe::{FieldType, Schema};
use millstream_guest::field::Field;
use millstream_guest::testing::Columns;
use millstream_guest::verdict::{Derived, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn schema(open: bool) -> Schema {
    let field = |path: &str, kind, nullable| FieldType { path: Field::parse(path).unwrap(), kind, nullable };
    Schema {
        fields: vec![
            field("id", Type::Int, false),
            field("first", Type::Text, true),
            field("last", Type::Text, true),
            field("price", Type::Float, true),
            field("address", Type::Json, true),
        ],
        open,
    }
}

fn start(config: Value) -> Columns<Map> {
    Columns::start(config, schema(true), BTreeMap::new()).unwrap()
}

fn mistakes(config: Value) -> Vec<(String, String)> {
    match Columns::<Map>::start(config, schema(false), BTreeMap::new()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.into_iter().map(|mistake| (mistake.at, mistake.message)).collect(),
    }
}

/// Rows as JSON objects, by the paths that are read.
fn batch(map: &Columns<Map>, rows: &[Value]) -> Batch {
    let fields = map.description.reads.iter().map(|read| {
        let mut out = ColumnBuilder::new(read.kind, rows.len());
        for row in rows {
            let value = &row[read.path.to_string()];
            match (read.kind, value) {
                (_, Value::Null) => out.null(),
                (Type::Json, value) => out.bytes(value.to_string().as_bytes()),
                (_, Value::String(text)) => out.bytes(text.as_bytes()),
                (Type::Int, value) => out.int(value.as_i64().unwrap()),
                (Type::Float, value) => out.float(value.as_f64().unwrap()),
                (kind, value) => panic!("{value} as {kind}"),
            }
        }
        out.finish()
    });
    let mut values = ColumnBuilder::new(Type::Bytes, rows.len());
    for row in rows {
        if row.get("tombstone").is_some() { values.null() } else { values.bytes(b"{}") }
    }
    Batch { rows: rows.len(), fields: fields.collect(), timestamps: vec![5; rows.len()], values: Some(values.finish()), ..Batch::default() }
}

type Shown = Vec<(String, String)>;

/// What is written for each row: path to value, `-` for removed; kept fields are left out.
fn shown(map: &Columns<Map>, derived: &Derived) -> Vec<Shown> {
    let fields = &map.description.outputs[0].fields;
    assert_eq!(fields.len(), derived.fields.len());
    (0..derived.source.len())
        .map(|row| {
            let written = fields.iter().zip(&derived.fields).filter(|(_, written)| !written.kept.get(row));
            let value = |column: &Column| match column.cell(row) {
                Cell::Null => "null".to_owned(),
                Cell::Int(value) => value.to_string(),
                Cell::Float(value) => format!("{value:?}"),
                Cell::Text(text) => format!("'{text}'"),
                Cell::Json(text) => text.to_owned(),
                other => format!("{other:?}"),
            };
            written
                .map(|(field, written)| {
                    assert_eq!(field.kind, written.column.kind());
                    (field.path.to_string(), if written.removed.get(row) { "-".to_owned() } else { value(&written.column) })
                })
                .collect()
        })
        .collect()
}

fn derived(outcome: Outcome) -> Derived {
    match outcome {
        Outcome::Derive(mut outputs) if outputs.len() == 1 => outputs.remove(0),
        other => panic!("{other:?}"),
    }
}

fn run(config: Value, rows: &[Value]) -> (Vec<Shown>, Vec<(u32, String)>) {
    let mut map = start(config);
    let verdict = map.process(batch(&map, rows)).unwrap();
    let rejects = verdict.rejects.into_iter().map(|reject| (reject.row, reject.reason)).collect();
    (shown(&map, &derived(verdict.outcome)), rejects)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn set_writes_in_the_order_of_the_configuration() {
    let (rows, rejects) = run(
        json!({"set": {"name.full": "first + ' ' + last", "half": "price / 2.0", "town": "address.town", "one": "1", "none": "null"}}),
        &[json!({"id": 1, "first": "A", "last": "B", "price": 3.0, "address": {"town": "X"}})],
    );
    assert_eq!(rows, [pairs(&[("name.full", "'A B'"), ("half", "1.5"), ("town", "\"X\""), ("one", "1"), ("none", "null")])]);
    assert!(rejects.is_empty());
}

#[test]
fn a_row_without_a_result_is_rejected_and_the_others_stay_with_theirs() {
    let rows = [json!({"first": "A", "last": "B"}), json!({"first": "A"}), json!({"first": "C", "last": "D"})];
    let mut map = start(json!({"set": {"full": "first + last"}, "remove": ["first"]}));
    let verdict = map.process(batch(&map, &rows)).unwrap();
    assert_eq!(verdict.rejects.len(), 1);
    assert_eq!((verdict.rejects[0].row, verdict.rejects[0].reason.as_str()), (1, "set `full`: `first + last`: an operand is null"));
    let derived = derived(verdict.outcome);
    assert_eq!(derived.source, [0, 2]);
    assert_eq!(shown(&map, &derived), [pairs(&[("full", "'AB'"), ("first", "-")]), pairs(&[("full", "'CD'"), ("first", "-")])]);
}

#[test]
fn what_is_missing_is_not_renamed() {
    let config = json!({"rename": {"first": "given", "other": "else.where"}});
    let (rows, _) = run(config, &[json!({"first": "A", "other": [1, 2]}), json!({})]);
    assert_eq!(rows[0], pairs(&[("given", "'A'"), ("else.where", "[1,2]"), ("first", "-"), ("other", "-")]));
    assert_eq!(rows[1], pairs(&[("first", "-"), ("other", "-")]));
}

#[test]
fn two_fields_can_swap_their_names() {
    let (rows, _) = run(json!({"rename": {"first": "last", "last": "first"}}), &[json!({"first": "A", "last": "B"})]);
    assert_eq!(rows, [pairs(&[("last", "'A'"), ("first", "'B'")])]);
}

#[test]
fn everything_sees_the_record_as_it_came_in() {
    let config = json!({"set": {"first": "string(price)"}, "rename": {"first": "given"}, "cast": {"price": "int"}});
    let (rows, _) = run(config, &[json!({"first": "A", "price": 2.0})]);
    assert_eq!(rows, [pairs(&[("given", "'A'"), ("price", "2"), ("first", "'2'")])]);
}

#[test]
fn a_value_that_does_not_convert_rejects_with_its_path() {
    let (rows, rejects) = run(json!({"cast": {"first": "int"}}), &[json!({"first": "12"}), json!({"first": "secret"}), json!({})]);
    assert_eq!(rows, [pairs(&[("first", "12")]), pairs(&[])]);
    assert_eq!(rejects, [(1, "cast `first`: the text cannot be converted to int".to_owned())]);
}

#[test]
fn key_and_time_of_a_record_can_be_set() {
    let mut map = start(json!({"set": {"$key": "id", "$timestamp": "$timestamp + 1", "id": "id + 1"}}));
    assert!(map.description.tombstones);
    let mut rows = batch(&map, &[json!({"id": 7, "$timestamp": 5}), json!({"tombstone": true, "$timestamp": 5})]);
    let verdict = map.process(rows.clone()).unwrap();
    let row = derived(verdict.outcome);
    assert_eq!(row.keys.unwrap().cell(0), Cell::Blob(b"7"));
    assert_eq!(row.timestamps, Some(vec![6]));
    assert_eq!(verdict.rejects[0].row, 1, "its key cannot be computed");

    let mut map = start(json!({"set": {"$key": "'u-' + $key", "id": "id + 1"}}));
    rows = batch(&map, &[json!({"$key": "a", "id": 1}), json!({"tombstone": true, "$key": "b"})]);
    let verdict = map.process(rows).unwrap();
    assert_eq!(verdict.rejects, []);
    let rows = derived(verdict.outcome);
    let keys = rows.keys.unwrap();
    assert_eq!((keys.cell(0), keys.cell(1)), (Cell::Blob(b"u-a"), Cell::Blob(b"u-b")));
    assert_eq!((rows.tombstones.get(0), rows.tombstones.get(1)), (false, true));
}

#[test]
fn the_schema_after_it_is_described() {
    let map = start(json!({"set": {"n": "size(first)"}, "rename": {"id": "number"}, "cast": {"price": "text"}, "remove": ["last"]}));
    let output = &map.description.outputs[0];
    let fields: Vec<_> = output.fields.iter().map(|field| (field.path.to_string(), field.kind, field.nullable)).collect();
    assert_eq!(
        fields,
        [
            ("number".to_owned(), Type::Int, false),
            ("price".to_owned(), Type::Text, true),
            ("n".to_owned(), Type::Int, false),
            ("last".to_owned(), Type::Json, true),
            ("id".to_owned(), Type::Json, true),
        ]
    );
    assert_eq!(output.removes.iter().map(Field::to_string).collect::<Vec<_>>(), ["last", "id"]);
}

#[test]
fn mistakes_are_all_reported() {
    let found = mistakes(json!({
        "set": {"a b.": "1", "x": "firts + last", "$offset": "1", "$timestamp": "first"},
        "rename": {"nothing": "y", "first": "last"},
        "cast": {"price": "boolean"},
        "remove": ["address.town", "address", "$key"],
    }));
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    for place in ["/set/a b.", "/set/x", "/set/$offset", "/set/$timestamp", "/rename/nothing", "/cast/price", "/remove/1", "/remove/2"] {
        assert!(places.contains(&place), "{place}: {found:?}");
    }
    assert_eq!(mistakes(json!({})), [(String::new(), "nothing is to be done".to_owned())]);
    let overlaps = mistakes(json!({"set": {"address.town": "'x'"}, "remove": ["address", "first"], "cast": {"first": "int"}}));
    assert_eq!(overlaps.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), ["/remove/0", "/remove/1"]);
    assert!(mistakes(json!({"sets": {}}))[0].1.contains("sets"));
}

/// However the rows are cut, the result is the same.
#[test]
fn cuts_do_not_matter() {
    let rows: Vec<Value> = (0..2100)
        .map(|row| if row % 5 == 0 { json!({"id": row}) } else { json!({"id": row, "first": format!("{}", row % 13), "last": "x"}) })
        .collect();
    let config = json!({"set": {"full": "last + first"}, "rename": {"id": "number"}, "cast": {"first": "int"}});
    let whole = |size: usize| {
        let mut map = start(config.clone());
        let mut all = (Vec::new(), Vec::new());
        for (place, rows) in rows.chunks(size).enumerate() {
            let verdict = map.process(batch(&map, rows)).unwrap();
            let first = (place * size) as u32;
            all.1.extend(verdict.rejects.into_iter().map(|reject| (reject.row + first, reject.reason)));
            let derived = derived(verdict.outcome);
            all.0.extend(derived.source.iter().map(|row| row + first).zip(shown(&map, &derived)));
        }
        all
    };
    let expected = whole(1000);
    assert!(!expected.0.is_empty() && !expected.1.is_empty());
    assert_eq!(whole(1), expected);
    assert_eq!(whole(7), expected);
}
