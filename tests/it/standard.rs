//! The standard plugins as what they are: components. Records go in as JSON and come out as JSON, whatever the size of the batches.

use millstream::column::{Bitmap, Column, ColumnBuilder, Indexed, Type};
use millstream::field::{Field, Path};
use millstream::format::{Change, Format, Wanted, json::Json};
use millstream::plugin::describe::{Description, Request};
use millstream::plugin::engine::Engine;
use millstream::plugin::{Found, Input, Limits, Loader, Outcome, Page, Plugin, Services, standard};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

fn plugin(name: &str) -> Arc<dyn Plugin> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().unwrap());
    engine.load(standard::component(name).unwrap()).unwrap()
}

/// A table `users` in which the key n, below 5, has the name `user n`.
struct Users;

impl Services for Users {
    fn get_many(&mut self, _: u32, _: &Column) -> Result<Found, String> {
        Err("there is no store".to_owned())
    }
    fn put_many(&mut self, _: u32, _: Column, _: Vec<Column>) -> Result<(), String> {
        Err("there is no store".to_owned())
    }
    fn delete_many(&mut self, _: u32, _: Column) -> Result<(), String> {
        Err("there is no store".to_owned())
    }
    fn scan(&mut self, _: u32, _: &Column, _: &Column, _: u32) -> Result<Page, String> {
        Err("there is no store".to_owned())
    }
    fn lookup(&mut self, table: u32, rows: &[u32], keys: &Column) -> Result<Found, String> {
        assert_eq!((table, keys.kind()), (0, Type::Text));
        let mut present = Bitmap::filled(rows.len(), false);
        let mut names = ColumnBuilder::new(Type::Text, rows.len());
        for row in 0..rows.len() {
            match keys.bytes(row) {
                Some([digit @ b'0'..=b'4']) => {
                    present.set(row);
                    names.bytes(&[b"user ", [*digit].as_slice()].concat());
                }
                _ => names.null(),
            }
        }
        Ok(Found { present, fields: vec![names.finish()] })
    }
    fn log(&mut self, _: u8, _: Option<u32>, message: &str) {
        panic!("nothing is to be logged: {message}");
    }
}

fn request(config: Value) -> Request {
    serde_json::from_value(json!({
        "config": config,
        "input": {
            "fields": [
                { "path": "id", "type": "int" },
                { "path": "channel", "type": "text", "nullable": true },
                { "path": "price", "type": "float", "nullable": true },
            ],
            "open": true,
        },
        "tables": { "users": { "fields": [{ "path": "name", "type": "text", "nullable": true }] } },
    }))
    .unwrap()
}

fn records(rows: usize) -> Vec<String> {
    (0..rows)
        .map(|row| match row % 7 {
            0 => format!(r#"{{"id": {row}, "channel": null,  "other": [1, 2.50]}}"#),
            1 => format!(r#"{{"id": {row}, "price": {}.25, "tags": ["a", "b"], "x": "{row}"}}"#, row % 4),
            2 => format!(r#"{{"channel": "iOS-test", "id": {row}, "x": true}}"#),
            _ => format!(r#"{{ "id": {row}, "channel": "web", "price": 1e2, "x": "\u0061" }}"#),
        })
        .collect()
}

/// What becomes of the records: the row that each comes from and its bytes; and the rejects.
type Done = (Vec<(usize, String)>, Vec<(usize, String)>);

fn run(name: &str, config: Value, records: &[String], size: usize) -> Done {
    let plugin = plugin(name);
    let request = request(config);
    let description = plugin.describe(&request).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let mut instance = plugin.instantiate(&request, &description, Limits::default()).unwrap();
    let mut services: Box<dyn Services> = Box::new(Users);
    let mut result = Done::default();
    for (place, records) in records.chunks(size).enumerate() {
        let first = place * size;
        let mut values = ColumnBuilder::new(Type::Bytes, records.len());
        records.iter().for_each(|record| values.bytes(record.as_bytes()));
        let values = values.finish();
        let wanted: Vec<Wanted> = description.reads.iter().map(|read| wanted(&read.path, read.kind)).collect();
        let decoded = Json.decode(Indexed { column: &values, index: None }, records.len(), &wanted);
        assert!(decoded.failed.is_empty() && decoded.fields.iter().all(|field| field.errors.is_empty()));
        let fields: Vec<&Column> = decoded.fields.iter().map(|field| &field.column).collect();
        let timestamps = vec![0; records.len()];
        let input = Input {
            rows: records.len(),
            stream_time: 0,
            timestamps: &timestamps,
            fields: &fields,
            keys: None,
            values: None,
            headers: None,
            leaves: None,
        };
        let verdict = instance.call(&input, &mut services).unwrap_or_else(|error| panic!("{name}: {error}"));
        result.1.extend(verdict.rejects.iter().map(|reject| (first + reject.row as usize, reject.reason.clone())));
        let rejected = |row: &usize| verdict.rejects.iter().any(|reject| reject.row as usize == *row);
        let unchanged = |row: usize| (first + row, records[row].clone());
        match &verdict.outcome {
            Outcome::All => result.0.extend((0..records.len()).filter(|row| !rejected(row)).map(unchanged)),
            Outcome::Select(rows) => result.0.extend(rows.iter().map(|row| unchanged(*row as usize))),
            Outcome::Derive(outputs) => {
                let derived = &outputs[0];
                let written = spliced(&description, derived, &values);
                result.0.extend(derived.source.iter().map(|row| first + *row as usize).zip(written));
            }
        }
    }
    result
}

fn wanted(path: &Field, kind: Type) -> Wanted {
    match path {
        Field::Value(path) => Wanted { path: path.clone(), kind, from: None },
        other => panic!("{other} is not in a value"),
    }
}

fn spliced(description: &Description, derived: &millstream::plugin::Derived, values: &Column) -> Vec<String> {
    let rows = derived.source.len();
    let paths: Vec<Path> = description.outputs[0].fields.iter().map(|field| wanted(&field.path, field.kind).path).collect();
    let changes: Vec<Change<'_>> = paths
        .iter()
        .zip(&derived.fields)
        .map(|(path, written)| Change {
            path,
            column: Indexed { column: &written.column, index: None },
            kept: &written.kept,
            removed: &written.removed,
        })
        .collect();
    let encoded = Json.encode(Some(Indexed { column: values, index: Some(&derived.source) }), rows, &changes);
    assert_eq!(encoded.failed, []);
    (0..rows).map(|row| String::from_utf8(encoded.values.bytes(row).unwrap().to_vec()).unwrap()).collect()
}

/// Configurations that select, reject, drop and change; some through the interpreter.
fn cases() -> Vec<(&'static str, Value)> {
    vec![
        ("filter", json!({ "where": "channel != 'iOS-test'" })),
        ("filter", json!({ "where": "price < 50.0 || tags.exists(t, t == 'b')" })),
        (
            "map",
            json!({
                "set": { "double": "price * 2.0", "who.is": "'n' + string(id)" },
                "rename": { "channel": "via", "other": "more.other" },
                "cast": { "x": "text" },
                "remove": ["tags"],
            }),
        ),
        ("enrich", json!({ "table": "users", "on": "id % 6", "add": { "user.name": "users.name", "shout": "users.name + '!'" } })),
        ("enrich", json!({ "table": "users", "on": "x", "join": "left", "add": { "name": "users.name" } })),
    ]
}

#[test]
fn cuts_do_not_matter() {
    let records = records(1500);
    for (name, config) in cases() {
        let whole = run(name, config.clone(), &records, 1000);
        assert!(!whole.0.is_empty(), "{name} {config}");
        for size in [1, 7] {
            assert!(run(name, config.clone(), &records, size) == whole, "{name} {config}: batches of {size} give other results");
        }
    }
}

#[test]
fn what_comes_out_is_spliced() {
    let records = records(7);
    let (rows, rejects) = run("map", cases()[2].1.clone(), &records, 100);
    assert_eq!(rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 2], "{rejects:?}");
    assert_eq!(rejects[0].1, "set `double`: `price * 2.0`: an operand is null");
    assert_eq!(rows[0], (1, r#"{"id": 1, "price": 1.25, "x": "1","double":2.5,"who":{"is":"n1"}}"#.to_owned()));
    assert_eq!(rows[1].1, r#"{ "id": 3, "price": 1e2, "x": "a","via":"web","double":200.0,"who":{"is":"n3"} }"#);
    let (rows, rejects) = run("enrich", cases()[3].1.clone(), &records, 100);
    assert_eq!(rejects, []);
    assert_eq!(rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6], "5 % 6 is nobody's key");
    assert!(rows[0].1.contains(r#""user":{"name":"user 0"},"shout":"user 0!""#), "{}", rows[0].1);
}

/// A component's imports are its permissions: no more than it needs.
#[test]
fn imports_are_few() {
    for (name, allowed) in
        [("filter", &["log"][..]), ("map", &["log"]), ("enrich", &["log", "tables"]), ("join", &["log", "state", "windows"])]
    {
        let plugin = plugin(name);
        assert!(plugin.imports().iter().all(|import| allowed.contains(&import.as_str())), "{name}: {:?}", plugin.imports());
        assert_eq!(plugin.about().name, name);
        assert_eq!(plugin.about().config["additionalProperties"], json!(false), "{name}");
    }
}

/// The deepest expression that is accepted is within a guest's stack; a deeper one is a mistake, not a trap.
#[test]
fn deep_expressions_do_not_trap() {
    let plugin = plugin("filter");
    for depth in [10, 60, 90, 150, 190, 250, 1000] {
        for text in [
            format!("{}id{} == 1", "(".repeat(depth), ")".repeat(depth)),
            format!("id == {}", vec!["id"; depth].join("+")),
            format!("size({}[1]{}) == id", "[".repeat(depth), "]".repeat(depth)),
            format!("x{} == 1", ".y".repeat(depth)),
            vec!["tags.exists(t, t == 'a')"; depth].join(" || "),
        ] {
            match plugin.describe(&request(json!({ "where": text }))) {
                Ok(_) => {}
                Err(millstream::plugin::DescribeError::Mistakes(mistakes)) => {
                    assert!(depth > 60 && !mistakes.is_empty(), "{depth}: {mistakes:?}")
                }
                Err(error) => panic!("{depth}, {:.30}: {error}", text),
            }
        }
    }
}
