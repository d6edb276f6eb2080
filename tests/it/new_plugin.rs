//! From nothing to a plugin of one's own, outside the clone: `new`, `cargo test`, `build`, and batches through the engine.

use crate::program;
use millstream::column::{Cell, Column, ColumnBuilder, Type, Values};
use millstream::plugin::describe::{Description, Request};
use millstream::plugin::engine::Engine;
use millstream::plugin::{CallError, Found, Input, Limits, Loader, Outcome, Page, Services, Verdict};
use millstream_guest::{state, tables, testing};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

fn millstream(folder: &Path, arguments: &[&str]) -> Output {
    program::millstream(folder).args(arguments).output().unwrap()
}

fn succeeds(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Cargo as a user calls it: not with what the cargo around this test has set.
fn cargo(folder: &Path, target: &Path, arguments: &[&str]) -> Output {
    Command::new("cargo").args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS").output().unwrap()
}

const KINDS: [&str; 5] = ["filter", "map", "route", "aggregate", "enrich"];

#[test]
fn every_kind_of_new_plugin_passes_its_tests_builds_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    // One folder for what all of them compile alike.
    let target = folder.path().join("target");
    for kind in KINDS {
        let name = format!("my-{kind}");
        succeeds(millstream(folder.path(), &["new", "plugin", &name, "--kind", kind]));
        let tests = cargo(&folder.path().join(&name), &target, &["test"]);
        assert!(succeeds(tests).contains("test result: ok. 1 passed"), "{kind}");

        match kind {
            "filter" => {
                let source = folder.path().join(&name).join("src/lib.rs");
                let text = std::fs::read_to_string(&source).unwrap();
                let unlucky = "assert!(order.amount != 13, \"unlucky\"); order.currency == \"EUR\"";
                let changed = text.replacen("order.currency == \"EUR\"", unlucky, 1);
                assert_ne!(changed, text);
                std::fs::write(source, changed).unwrap();
                a_filter_selects_and_panics_with_its_place(&built(folder.path(), &target, &name, &["log"]));
            }
            "aggregate" => an_aggregate_keeps_its_rows_with_the_host(&built(folder.path(), &target, &name, &["log", "state"])),
            "enrich" => a_join_asks_the_host_for_rows(&built(folder.path(), &target, &name, &["log", "tables"])),
            "route" => a_router_sends_records_to_their_sinks(folder.path(), &target, &name),
            // Built alike, and slow to build.
            _ => {}
        }
    }
}

/// Builds a component and looks at the report. A component imports what it uses and nothing else: its imports are its permissions.
fn built(folder: &Path, target: &Path, name: &str, imports: &[&str]) -> Vec<u8> {
    let mut build = program::millstream(folder);
    build.args(["build", name, "--output", "json"]).env("CARGO_TARGET_DIR", target);
    let report: serde_json::Value = serde_json::from_str(&succeeds(build.output().unwrap())).unwrap();
    assert_eq!((report["name"].as_str(), report["version"].as_str()), (Some(name), Some("0.1.0")));
    let mut found: Vec<_> = report["imports"].as_array().unwrap().iter().filter_map(|import| import.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, imports, "{name}");
    let component = std::fs::read(folder.join(name).join(format!("{name}.wasm"))).unwrap();
    assert_eq!(report["size"].as_u64(), Some(component.len() as u64), "{name}");
    component
}

/// Each named output goes to a sink of its own, through the program; what nobody refers to by name is the stage's first output.
fn a_router_sends_records_to_their_sinks(folder: &Path, target: &Path, name: &str) {
    built(folder, target, name, &["log"]);
    let pipeline = format!(
        "\
pipeline: routed
sources: {{ orders: {{ topic: orders, schema: {{ id: text }} }} }}
stages:
  - {{ name: apart, plugin: ./{name}/{name}.wasm }}
  - {{ name: dear, from: apart.large, plugin: map, with: {{ set: {{ dear: 'true' }} }} }}
sinks:
  - {{ from: apart, topic: items }}
  - {{ from: dear, topic: large }}
  - {{ from: apart.empty, topic: empty }}
  - {{ from: [apart, apart.large], topic: all }}
"
    );
    std::fs::write(folder.join("routed.yaml"), pipeline).unwrap();
    let order = |id: &str, items: serde_json::Value| json!({ "key": id, "timestamp": 7, "value": { "id": id, "items": items } });
    let item = |name: &str, price: u32| json!({ "name": name, "price": price });
    let orders = [
        order("a", json!([item("pen", 99), item("desk", 100_000), item("ink", 5)])),
        order("b", json!([])),
        order("c", json!([item("sofa", 250_000)])),
    ];
    std::fs::write(folder.join("orders.jsonl"), orders.map(|order| format!("{order}\n")).concat()).unwrap();
    let run = |rows: &str| {
        let files = ["items", "large", "empty", "all"].map(|topic| format!("{topic}={topic}.jsonl"));
        let sinks = files.iter().flat_map(|file| ["--sink", file]);
        let arguments = ["run", "routed.yaml", "--batch-rows", rows, "--source", "orders=orders.jsonl"];
        succeeds(millstream(folder, &arguments.into_iter().chain(sinks).collect::<Vec<_>>()));
        ["items", "large", "empty", "all"].map(|topic| {
            let lines = std::fs::read_to_string(folder.join(format!("{topic}.jsonl"))).unwrap();
            lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].take()).collect::<Vec<_>>()
        })
    };
    let of = |order: &str, name: &str, price: u32| json!({ "order": order, "name": name, "price": price });
    let dear = |order: &str, name: &str, price: u32| json!({ "order": order, "name": name, "price": price, "dear": true });
    for rows in ["1", "1000"] {
        let [items, large, empty, all] = run(rows);
        assert_eq!(items, [of("a", "pen", 99), of("a", "ink", 5)]);
        assert_eq!(large, [dear("a", "desk", 100_000), dear("c", "sofa", 250_000)]);
        assert_eq!(empty, [json!({ "id": "b", "items": [] })]);
        // Records of one record come by output, in the order of the merge's list.
        assert_eq!(all, [of("a", "pen", 99), of("a", "ink", 5), of("a", "desk", 100_000), of("c", "sofa", 250_000)]);
    }
}

/// The host's side, answered by the fake that native tests of plugins use.
struct Fake;

impl Services for Fake {
    fn get_many(&mut self, store: u32, keys: &Column) -> Result<Found, String> {
        Ok(state::get_many(store, keys))
    }
    fn put_many(&mut self, store: u32, keys: Column, fields: Vec<Column>) -> Result<(), String> {
        state::put_many(store, keys, fields);
        Ok(())
    }
    fn delete_many(&mut self, store: u32, keys: Column) -> Result<(), String> {
        state::delete_many(store, &keys);
        Ok(())
    }
    fn scan(&mut self, store: u32, low: &Column, high: &Column, limit: u32) -> Result<Page, String> {
        Ok(state::scan(store, low, high, limit))
    }
    fn lookup(&mut self, table: u32, rows: &[u32], keys: &Column) -> Result<Found, String> {
        Ok(tables::lookup(table, rows, keys))
    }
    fn log(&mut self, _: u8, _: Option<u32>, _: &str) {}
}

/// A plugin in the engine, with fake stores and tables of this thread.
struct Live {
    description: Description,
    instance: Box<dyn millstream::plugin::Instance>,
}

impl Live {
    fn start(component: &[u8], request: serde_json::Value, fill: impl FnOnce()) -> Self {
        let request: Request = serde_json::from_value(request).unwrap();
        let plugin = Engine::new().unwrap().load(component).unwrap();
        let description = plugin.describe(&request).unwrap();
        testing::open(&description, &request.tables);
        fill();
        let limits = Limits { cpu: std::time::Duration::from_secs(20), ..Limits::default() };
        let instance = plugin.instantiate(&request, &description, limits).unwrap();
        Self { description, instance }
    }

    /// Columns in the order of `reads`, whose names are checked.
    fn call(&mut self, fields: &[(&str, Column)]) -> Result<Verdict, CallError> {
        let reads: Vec<_> = self.description.reads.iter().map(|read| read.path.to_string()).collect();
        assert_eq!(reads, fields.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let columns: Vec<_> = fields.iter().map(|(_, column)| column).collect();
        let Values::Ints(first) = &columns[0].values else { panic!("the first field of every template is an int") };
        let rows = first.len();
        let timestamps = vec![0; rows];
        let input = Input {
            rows,
            stream_time: 0,
            timestamps: &timestamps,
            fields: &columns,
            keys: None,
            values: None,
            headers: None,
            leaves: None,
        };
        let mut services: Box<dyn Services> = Box::new(Fake);
        self.instance.call(&input, &mut services)
    }
}

fn ints(values: &[i64]) -> Column {
    let mut column = ColumnBuilder::new(Type::Int, values.len());
    values.iter().for_each(|value| column.int(*value));
    column.finish()
}

fn texts(values: &[Option<&str>]) -> Column {
    let mut column = ColumnBuilder::new(Type::Text, values.len());
    values.iter().for_each(|value| column.cell(value.map_or(Cell::Null, Cell::Text)));
    column.finish()
}

fn cells(column: &Column, rows: usize) -> Vec<Cell<'_>> {
    (0..rows).map(|row| column.cell(row)).collect()
}

fn a_filter_selects_and_panics_with_its_place(component: &[u8]) {
    let request = || json!({ "config": { "at_least": 100 }, "input": { "fields": [], "open": true } });
    let orders = |amounts: &[i64], currencies: &[Option<&str>]| {
        [("amount", ints(amounts)), ("currency", texts(currencies)), ("customer.country", texts(&vec![None; amounts.len()]))]
    };
    let mut live = Live::start(component, request(), || {});
    let verdict = live.call(&orders(&[100, 99, 200, 100], &[Some("EUR"), Some("EUR"), Some("EUR"), Some("USD")])).unwrap();
    assert_eq!((verdict.outcome, verdict.rejects), (Outcome::Select(vec![0, 2]), vec![]));
    let error = live.call(&orders(&[1, 13], &[Some("EUR"), Some("EUR")])).unwrap_err();
    let CallError::Panicked { message, row } = error else { panic!("{error}") };
    assert!(message.starts_with("unlucky, at src/lib.rs:"), "{message}");
    assert_eq!(row, Some(1));
}

fn an_aggregate_keeps_its_rows_with_the_host(component: &[u8]) {
    let request = json!({ "config": null, "input": { "fields": [], "open": true } });
    let mut live = Live::start(component, request, || {});
    let bookings = |amounts: &[i64], keys: &[Option<&str>]| [("amount", ints(amounts)), ("$key", texts(keys))];
    live.call(&bookings(&[50], &[Some("a")])).unwrap();
    let verdict = live.call(&bookings(&[25, -80, 7, -60], &[Some("a"), Some("a"), Some("b"), Some("a")])).unwrap();
    assert_eq!(verdict.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [1]);
    let Outcome::Derive(outputs) = verdict.outcome else { panic!("{verdict:?}") };
    assert_eq!(outputs[0].source, [0, 2, 3]);
    assert_eq!(cells(&outputs[0].fields[0].column, 3), [Cell::Int(75), Cell::Int(7), Cell::Int(15)]);
    use testing::Value::{Int, Text};
    let rows = [(Text("a".into()), vec![Int(15), Int(3)]), (Text("b".into()), vec![Int(7), Int(1)])];
    assert_eq!(testing::store_rows(0), rows);
}

fn a_join_asks_the_host_for_rows(component: &[u8]) {
    let request = json!({
        "config": null,
        "input": { "fields": [], "open": true },
        "tables": { "customers": { "fields": [{ "path": "age", "type": "int", "nullable": true }, { "path": "level", "type": "text" }] } },
    });
    let fill = || testing::put_table_row("customers", "7", vec![testing::Value::Null, testing::Value::Text("gold".into())]);
    let mut live = Live::start(component, request, fill);
    let verdict = live.call(&[("amount", ints(&[500, 500])), ("customer_id", texts(&[Some("8"), Some("7")]))]).unwrap();
    let Outcome::Derive(outputs) = verdict.outcome else { panic!("{verdict:?}") };
    assert_eq!(cells(&outputs[0].fields[0].column, 2), [Cell::Null, Cell::Text("gold")]);
    assert_eq!(cells(&outputs[0].fields[1].column, 2), [Cell::Int(0), Cell::Int(50)]);
}

#[test]
fn a_new_pipeline_is_right() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(millstream(folder.path(), &["new", "pipeline", "mine"]));
    succeeds(millstream(&folder.path().join("mine"), &["check", "pipeline.yaml"]));
}

#[test]
fn new_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(millstream(folder.path(), &["new", "pipeline", "mine"]));
    let before = std::fs::read_to_string(folder.path().join("mine/pipeline.yaml")).unwrap();
    assert!(before.contains("pipeline: mine"));
    for what in [["new", "pipeline", "mine"], ["new", "plugin", "mine"]] {
        let output = millstream(folder.path(), &what);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("is there already"));
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("mine/pipeline.yaml")).unwrap(), before);
}

#[test]
fn build_shows_what_is_wrong_with_the_crate() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |expected: &str| {
        let output = millstream(folder.path(), &["build"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "expected `{expected}` in:\n{text}");
    };
    wrong("has no Cargo.toml");
    let manifest = "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), "pub fn f() {").unwrap();
    wrong("crate-type = [\"cdylib\"");
    std::fs::write(folder.path().join("Cargo.toml"), format!("{manifest}[lib]\ncrate-type = [\"cdylib\"]\n")).unwrap();
    wrong("this file contains an unclosed delimiter");
    std::fs::write(folder.path().join("src/lib.rs"), "pub fn f() {}").unwrap();
    wrong("the module exports no plugin");
}

#[test]
fn the_sdk_carries_the_contract_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert!(read("wit/plugin.wit") == read("guest-sdk/wit/plugin.wit"), "copy wit/plugin.wit to guest-sdk/wit/");
}
