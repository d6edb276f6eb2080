use super::*;
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::describe::{FieldType, Schema};
use millstream_guest::field::Field;
use millstream_guest::testing::{self, Columns, Value};
use millstream_guest::verdict::{Derived, Outcome};
use serde_json::json;
use std::collections::BTreeMap;

fn schema(fields: &[(&str, Type)], open: bool) -> Schema {
    let field = |(path, kind): &(&str, Type)| FieldType { path: Field::parse(path).unwrap(), kind: *kind, nullable: true };
    Schema { fields: fields.iter().map(field).collect(), open }
}

fn tables() -> BTreeMap<String, Schema> {
    BTreeMap::from([(
        "users".to_owned(),
        schema(&[("id", Type::Int), ("first_name", Type::Text), ("last_name", Type::Text), ("club.status", Type::Text)], false),
    )])
}

fn input() -> Schema {
    schema(&[("user_id", Type::Int), ("nick", Type::Text)], true)
}

fn config(on: &str, join: &str) -> serde_json::Value {
    json!({
        "table": "users",
        "on": on,
        "join": join,
        "add": {"club_status": "users.club.status", "full.name": "users.first_name + ' ' + users.last_name", "shout": "nick + '!'"},
    })
}

fn start(on: &str, join: &str) -> Columns<Enrich> {
    let enrich = Columns::start(config(on, join), input(), tables()).unwrap();
    let text = |text: &str| Value::Text(text.to_owned());
    testing::put_table_row("users", "3", vec![Value::Int(3), text("Ann"), text("Lee"), text("Platinum")]);
    testing::put_table_row("users", "4", vec![Value::Int(4), text("Bob"), Value::Null, Value::Null]);
    enrich
}

fn column(kind: Type, cells: &[Cell<'_>]) -> Column {
    let mut out = ColumnBuilder::new(kind, cells.len());
    cells.iter().for_each(|cell| out.cell(*cell));
    out.finish()
}

/// The columns in the order of the description's reads.
fn batch(enrich: &Columns<Enrich>, ids: &Column, nicks: &Column, rows: usize) -> Batch {
    let column = |path: &str| if path == "nick" { nicks.clone() } else { ids.clone() };
    let fields = enrich.description.reads.iter().map(|read| column(&read.path.to_string())).collect();
    Batch { rows, fields, ..Batch::default() }
}

fn derived(outcome: Outcome) -> Derived {
    match outcome {
        Outcome::Derive(mut outputs) if outputs.len() == 1 => outputs.remove(0),
        other => panic!("{other:?}"),
    }
}

fn cells(derived: &Derived, field: usize) -> Vec<Cell<'_>> {
    (0..derived.source.len()).map(|row| derived.fields[field].column.cell(row)).collect()
}

#[test]
fn inner_drops_what_finds_nothing() {
    let mut enrich = start("user_id", "inner");
    let ids = column(Type::Int, &[Cell::Int(3), Cell::Int(9), Cell::Null, Cell::Int(4), Cell::Int(3)]);
    let nicks = column(Type::Text, &[Cell::Text("a"), Cell::Null, Cell::Null, Cell::Text("b"), Cell::Null]);
    let verdict = enrich.process(batch(&enrich, &ids, &nicks, 5)).unwrap();
    let reasons: Vec<_> = verdict.rejects.iter().map(|reject| (reject.row, reject.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (3, "add `full.name`: `users.first_name + ' ' + users.last_name`: an operand is null"),
            (4, "add `shout`: `nick + '!'`: an operand is null"),
        ]
    );
    let derived = derived(verdict.outcome);
    assert_eq!(derived.source, [0]);
    assert_eq!(cells(&derived, 0), [Cell::Text("Platinum")]);
    assert_eq!(cells(&derived, 1), [Cell::Text("Ann Lee")]);
    assert_eq!(cells(&derived, 2), [Cell::Text("a!")]);
}

#[test]
fn left_keeps_it_with_nulls() {
    let mut enrich = start("user_id", "left");
    assert!(enrich.description.outputs[0].fields.iter().all(|field| field.nullable));
    let ids = column(Type::Int, &[Cell::Int(3), Cell::Int(9), Cell::Null]);
    let nicks = column(Type::Text, &[Cell::Text("a"), Cell::Null, Cell::Text("c")]);
    let verdict = enrich.process(batch(&enrich, &ids, &nicks, 3)).unwrap();
    assert_eq!(verdict.rejects, []);
    let derived = derived(verdict.outcome);
    assert_eq!(derived.source, [0, 1, 2]);
    assert_eq!(cells(&derived, 1), [Cell::Text("Ann Lee"), Cell::Null, Cell::Null]);
    assert_eq!(cells(&derived, 2), [Cell::Text("a!"), Cell::Null, Cell::Null]);
}

#[test]
fn keys_are_texts_ints_or_either_in_json() {
    let nicks = column(Type::Text, &[Cell::Text("3"), Cell::Text("4x"), Cell::Null]);
    let found = |on: &str, ids: &Column, rows: usize| {
        let mut enrich = start(on, "inner");
        let verdict = enrich.process(batch(&enrich, ids, &nicks, rows)).unwrap();
        let rejected: Vec<u32> = verdict.rejects.iter().map(|reject| reject.row).collect();
        (derived(verdict.outcome).source, rejected)
    };
    assert_eq!(found("nick", &column(Type::Int, &[Cell::Null; 3]), 3), (vec![0], vec![]));
    assert_eq!(found("user_id + 1", &column(Type::Int, &[Cell::Int(2), Cell::Int(8)]), 2), (vec![0], vec![]));
    let ids = column(Type::Json, &[Cell::Json("3"), Cell::Json("{}")]);
    assert_eq!(found("other", &ids, 2), (vec![0], vec![1]));
    assert_eq!(found("user_id + 1", &column(Type::Int, &[Cell::Int(i64::MAX)]), 1), (vec![], vec![0]));
}

#[test]
fn mistakes_name_what_would_be_right() {
    let mistakes = |config: serde_json::Value| Columns::<Enrich>::start(config, input(), tables()).err().unwrap();
    let found = mistakes(json!({"table": "user", "on": "user_id", "add": {}}));
    assert_eq!((found[0].at.as_str(), found[0].proposal.as_deref()), ("/table", Some("did you mean `users`?")));
    let found = mistakes(json!({"table": "users", "on": "user_id == 1", "add": {"x": "users.frist_name", "$key": "1", "x.y": "1"}}));
    let places: Vec<&str> = found.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(places, ["/on", "/add/x", "/add/$key"]);
    assert_eq!(found[1].proposal.as_deref(), Some("did you mean `users.first_name`?"));
    assert_eq!(mistakes(json!({"table": "users", "on": "nick", "add": {"x": "1", "x.y": "1"}}))[0].at, "/add/x.y");
    assert_eq!(mistakes(json!({"table": "users", "on": "nick", "join": "outer", "add": {}}))[0].at, "/join");
}

/// However the rows are cut, the result is the same.
#[test]
fn cuts_do_not_matter() {
    let ids: Vec<Cell<'_>> = (0..2100).map(|row| if row % 7 == 0 { Cell::Null } else { Cell::Int(row % 6) }).collect();
    let nicks: Vec<Cell<'_>> = (0..2100).map(|row| if row % 11 == 0 { Cell::Null } else { Cell::Text("n") }).collect();
    for join in ["inner", "left"] {
        let whole = |size: usize| {
            let mut enrich = start("user_id", join);
            let mut all = Vec::new();
            for (place, (ids, nicks)) in ids.chunks(size).zip(nicks.chunks(size)).enumerate() {
                let batch = batch(&enrich, &column(Type::Int, ids), &column(Type::Text, nicks), ids.len());
                let verdict = enrich.process(batch).unwrap();
                let first = (place * size) as u32;
                all.extend(verdict.rejects.into_iter().map(|reject| (reject.row + first, reject.reason)));
                let derived = derived(verdict.outcome);
                for (at, row) in derived.source.iter().enumerate() {
                    let values: Vec<Cell<'_>> = derived.fields.iter().map(|field| field.column.cell(at)).collect();
                    all.push((row + first, format!("{values:?}")));
                }
            }
            all.sort();
            all
        };
        let expected = whole(1000);
        assert!(!expected.is_empty());
        assert_eq!(whole(1), expected);
        assert_eq!(whole(7), expected);
    }
}
