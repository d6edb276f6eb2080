//! Every change of a row's type, and rows that are turned by it, in all layers.

use super::turn::{From, Way, told, way};
use super::*;
use crate::column::Strings;
use crate::plugin::describe::StoreField;
use serde_json::json;

fn row_type(columns: &[(&str, Type, bool)]) -> RowType {
    RowType::of(&fields(columns))
}

fn fields(columns: &[(&str, Type, bool)]) -> Vec<StoreField> {
    columns.iter().map(|(name, kind, nullable)| StoreField::new(*name, *kind, *nullable)).collect()
}

fn store(columns: &[(&str, Type, bool)]) -> Store {
    let fields = fields(columns);
    Store { name: String::new(), key: Type::Text, fields, by: Vec::new(), windowed: false, emits: Vec::new(), migrates: Vec::new() }
}

fn with_default(mut store: Store, place: usize, default: serde_json::Value) -> Store {
    store.fields[place].default = Some(default);
    store
}

use Type::{Boolean, Bytes, Float, Int, Json, Text};

#[test]
fn compatible_changes_go_by_name() {
    let plain = |place| From::Column(place, None);
    let cases = [
        ("nothing", row_type(&[("a", Int, false)]), store(&[("a", Int, false)]), vec![plain(0)]),
        (
            "another order",
            row_type(&[("a", Int, false), ("b", Text, true)]),
            store(&[("b", Text, true), ("a", Int, false)]),
            vec![plain(1), plain(0)],
        ),
        (
            "added, nullable",
            row_type(&[("a", Int, false)]),
            store(&[("a", Int, false), ("b", Text, true)]),
            vec![plain(0), From::New(Value::Null)],
        ),
        ("added with a default", row_type(&[]), with_default(store(&[("b", Int, false)]), 0, json!(7)), vec![From::New(Value::Int(7))]),
        ("dropped", row_type(&[("a", Int, false), ("b", Json, false)]), store(&[("a", Int, false)]), vec![plain(0)]),
        ("widened", row_type(&[("a", Int, true)]), store(&[("a", Float, true)]), vec![From::Widened(0, None)]),
        ("may be null now", row_type(&[("a", Bytes, false)]), store(&[("a", Bytes, true)]), vec![plain(0)]),
        (
            "may be null no more, with a default",
            row_type(&[("a", Boolean, true)]),
            with_default(store(&[("a", Boolean, false)]), 0, json!(true)),
            vec![From::Column(0, Some(Value::Bool(true)))],
        ),
    ];
    for (what, from, to, expected) in cases {
        assert_eq!(way(&from, &to), Ok(Way::ByName(expected)), "{what}");
    }
}

use super::row::Value;

#[test]
fn what_has_no_way_by_name_says_why() {
    let cases = [
        ("`a` was int and is text", row_type(&[("a", Int, false)]), store(&[("a", Text, false)])),
        ("`a` was float and is int", row_type(&[("a", Float, false)]), store(&[("a", Int, false)])),
        ("`a` was text and is json", row_type(&[("a", Text, false)]), store(&[("a", Json, false)])),
        ("`a` was text and is bytes", row_type(&[("a", Text, false)]), store(&[("a", Bytes, false)])),
        ("`b` is added, may not be null, and has no default", row_type(&[]), store(&[("b", Int, false)])),
        ("`a` may be null in older rows", row_type(&[("a", Int, true)]), store(&[("a", Float, false)])),
    ];
    for (why, from, to) in cases {
        let found = way(&from, &to).unwrap_err();
        assert!(found.starts_with(why), "{found}");
    }
}

#[test]
fn types_that_the_plugin_lists_go_through_it() {
    let old = [("a", Int, false), ("b", Text, true)];
    let mut to = store(&[("c", Int, true)]);
    assert!(matches!(way(&row_type(&old), &to), Ok(Way::ByName(_))), "a column is dropped, another added");
    to.migrates = vec![fields(&[("x", Int, false)]), fields(&[("b", Text, true), ("a", Int, true)])];
    assert_eq!(way(&row_type(&old), &to), Ok(Way::ByPlugin(1, vec![1, 0])));
    assert_eq!(way(&row_type(&[("x", Int, false)]), &to), Ok(Way::ByPlugin(0, vec![0])));
    // The plugin would not expect the null.
    assert!(matches!(way(&row_type(&[("x", Int, true)]), &to), Ok(Way::ByName(_))));
    let once = turn::allowed(&Way::ByPlugin(0, Vec::new()), crate::io::Guarantee::AtLeastOnce).unwrap_err();
    assert!(once.contains("at-least-once"), "{once}");
    assert!(turn::allowed(&Way::ByName(Vec::new()), crate::io::Guarantee::AtLeastOnce).is_ok());
}

#[test]
fn changes_are_told_column_by_column() {
    let (from, to) = (
        row_type(&[("a", Int, false), ("b", Text, true), ("c", Int, false), ("d", Int, false)]),
        row_type(&[("a", Float, false), ("c", Int, true), ("d", Int, false), ("e", Json, true)]),
    );
    assert_eq!(told(&from, &to), ["`a` is widened: int -> float", "`c`: int -> int?", "`e: json?` is added", "`b: text?` is dropped"]);
    assert_eq!(
        told(&row_type(&[("a", Int, false), ("b", Int, false)]), &row_type(&[("b", Int, false), ("a", Int, false)])),
        ["the order of the columns"]
    );
}

#[test]
fn defaults_must_be_of_their_column() {
    let fits = |kind, default: serde_json::Value| turn::fits(&StoreField { default: Some(default), ..StoreField::new("a", kind, false) });
    assert!(fits(Int, json!(1)) && fits(Float, json!(1)) && fits(Text, json!("")) && fits(Boolean, json!(false)) && fits(Json, json!([1])));
    assert!(
        !fits(Int, json!(1.5)) && !fits(Int, json!("1")) && !fits(Bytes, json!("")) && !fits(Text, json!(null)) && !fits(Json, json!(null))
    );
}

fn texts<'a>(keys: impl IntoIterator<Item = &'a str>) -> Column {
    let mut strings = Strings::default();
    keys.into_iter().for_each(|key| strings.push(key.as_bytes()));
    Column { values: Values::Texts(strings), validity: Default::default() }
}

fn ints(values: &[i64]) -> Vec<Column> {
    vec![Column { values: Values::Ints(values.to_vec()), validity: Default::default() }]
}

/// A store over local rows, as a task has it.
struct Bench {
    local: Arc<LocalMemory>,
    types: Arc<RowTypes>,
}

impl Bench {
    fn new() -> Self {
        let local = Arc::new(LocalMemory::default());
        Self { types: RowTypes::open("s", local.clone(), true).unwrap(), local }
    }

    fn open(&self, described: &Store) -> StateStore {
        self.types.number(&RowType::of(&described.fields)).unwrap();
        StateStore::new("s", 0, described, None, self.local.clone(), self.types.clone())
    }

    fn commit(&self, store: &mut StateStore) -> usize {
        store.keep_batch();
        let writes = store.begin_commit();
        let count = writes.as_ref().map_or(0, |writes| writes.rows.len());
        if let Some(writes) = writes {
            crate::io::LocalState::write(&*self.local, "s", 0, &writes.rows, None).unwrap();
        }
        store.committed();
        count
    }

    /// The numbers of the types of the committed rows.
    fn numbers(&self) -> Vec<u8> {
        self.local.scan("s", 0, &[], None, usize::MAX).unwrap().iter().map(|(_, row)| row::split(row).0).collect()
    }
}

/// Adds one to what it is given, so that a row that comes twice shows.
struct AddsOne(Arc<std::sync::atomic::AtomicUsize>);

impl Migrate for AddsOne {
    fn migrate(&mut self, from: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, String> {
        assert_eq!(from, 0);
        let Values::Ints(values) = &fields[0].values else { panic!("ints are asked for") };
        if rows_of_column(keys) != values.len() || values.contains(&13) {
            return Err("thirteen".to_owned());
        }
        self.0.fetch_add(values.len(), std::sync::atomic::Ordering::Relaxed);
        Ok(ints(&values.iter().map(|value| value + 1).collect::<Vec<_>>()))
    }
}

fn found(store: &mut StateStore, keys: &[&str]) -> Vec<Option<i64>> {
    let found = store.get_many(&texts(keys.iter().copied())).unwrap();
    let int = |row: usize| match found.fields[0].cell(row) {
        Cell::Int(value) => Some(value),
        _ => None,
    };
    (0..keys.len()).map(|row| int(row).filter(|_| found.present.get(row))).collect()
}

fn old() -> Store {
    store(&[("n", Int, false)])
}

fn new() -> Store {
    Store { migrates: vec![fields(&[("n", Int, false)])], ..store(&[("m", Int, false)]) }
}

#[test]
fn older_rows_are_read_as_newer_ones_in_every_layer_and_written_once() {
    let bench = Bench::new();
    let mut store = bench.open(&old()).write_back();
    for (keys, values) in [(["a", "b"], [1, 2]), (["c", "d"], [3, 4])] {
        store.put_many(&texts(keys), &ints(&values)).unwrap();
        store.keep_batch();
        // The first two reach the local copy, the others wait for a checkpoint.
        store.begin_commit();
        store.committed();
        if keys[0] == "a" {
            let rows = store.take_dirty();
            crate::io::LocalState::write(&*bench.local, "s", 0, &rows, None).unwrap();
            store.checkpointed(rows);
        }
    }
    store.put_many(&texts(["e"]), &ints(&[5])).unwrap();
    store.keep_batch();
    store.begin_commit();
    // In flight while the task turns.
    let calls = Arc::default();
    bench.types.number(&RowType::of(&new().fields)).unwrap();
    let mut store = store.succeed(&new()).migrating(Some(Box::new(AddsOne(Arc::clone(&calls)))));
    assert_eq!(found(&mut store, &["a", "x", "c", "e"]), [Some(2), None, Some(4), Some(6)]);
    let page = store.scan(&texts(["a"]), &texts(["z"]), 10).unwrap();
    assert_eq!(page.fields, ints(&[2, 3, 4, 5, 6]));
    assert_eq!(store.row(b"d").unwrap(), Some(Row(vec![Value::Int(5)])));
    store.put_many(&texts(["b"]), &ints(&[100])).unwrap();
    store.keep_batch();
    assert_eq!(found(&mut store, &["a", "b"]), [Some(2), Some(100)], "what is written anew is not turned again");
    store.committed();
    assert!(store.sweeps());
    let swept = store.sweep(100).unwrap();
    assert_eq!((swept.turned, store.sweeps()), (4, false));
    assert!(!bench.types.is_clean(0, 1), "it is not committed yet");
    store.begin_commit();
    store.committed();
    assert!(bench.types.is_clean(0, 1));
    assert_eq!(found(&mut store, &["a", "b", "c", "d", "e"]), [2, 100, 4, 5, 6].map(Some));
}

#[test]
fn a_sweep_goes_on_wherever_it_was_ended() {
    for budget in [1, 3, 7, 1000] {
        let bench = Bench::new();
        let mut store = bench.open(&old());
        let keys: Vec<String> = (0..50).map(|key| format!("k{key:02}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        store.put_many(&texts(keys.iter().copied()), &ints(&(0..50).map(|n| n * 100).collect::<Vec<_>>())).unwrap();
        bench.commit(&mut store);
        let calls: Arc<std::sync::atomic::AtomicUsize> = Arc::default();
        let mut rounds = 0;
        loop {
            // Each time anew, as after a crash: what the last step turned is committed or lost.
            let mut store = bench.open(&new()).migrating(Some(Box::new(AddsOne(calls.clone()))));
            if !store.sweeps() {
                break;
            }
            store.sweep(budget * (rounds + 1)).unwrap();
            if rounds % 3 != 2 {
                bench.commit(&mut store);
            }
            rounds += 1;
            assert!(rounds < 500, "budget {budget}: it does not end");
        }
        assert_eq!(bench.numbers(), [1; 50]);
        let mut store = bench.open(&new());
        assert_eq!(found(&mut store, &keys), (0..50).map(|n| Some(n * 100 + 1)).collect::<Vec<_>>(), "budget {budget}: each once");
    }
}

#[test]
fn a_row_that_cannot_be_migrated_stays_as_it_was() {
    let bench = Bench::new();
    let mut store = bench.open(&old());
    store.put_many(&texts(["a", "b"]), &ints(&[1, 13])).unwrap();
    bench.commit(&mut store);
    let before = bench.local.scan("s", 0, &[], None, 10).unwrap();
    let mut store = bench.open(&new()).migrating(Some(Box::new(AddsOne(Arc::default()))));
    for error in [store.get_many(&texts(["a", "b"])).unwrap_err(), store.sweep(100).unwrap_err(), store.row(b"b").unwrap_err()] {
        assert!(error.contains("store `s`") && error.contains("thirteen"), "{error}");
    }
    assert_eq!(found(&mut store, &["a"]), [Some(2)]);
    assert_eq!(bench.commit(&mut store), 0);
    assert_eq!(bench.local.scan("s", 0, &[], None, 10).unwrap(), before);
    // Without a way, too; and back again all is as it was.
    let mut other = bench.open(&self::store(&[("n", Text, false)]));
    let error = other.get_many(&texts(["a"])).unwrap_err();
    assert!(error.contains("`n` was int and is text") && error.contains("`migration`"), "{error}");
    assert!(other.sweep(100).is_err() && bench.open(&self::store(&[("n", Float, false)])).strict().row(b"a").is_err());
    assert_eq!(found(&mut bench.open(&old()), &["a", "b"]), [Some(1), Some(13)]);
}

#[test]
fn rows_go_by_name_and_back() {
    let bench = Bench::new();
    let mut store = bench.open(&self::store(&[("n", Int, false), ("t", Text, true)]));
    let t = Column { values: texts(["x", "y"]).values, validity: Default::default() };
    store.put_many(&texts(["a", "b"]), &[ints(&[1, 2]).remove(0), t]).unwrap();
    bench.commit(&mut store);
    let newer = with_default(self::store(&[("more", Boolean, false), ("n", Float, false)]), 0, json!(true));
    let mut store = bench.open(&newer);
    assert_eq!(store.row(b"a").unwrap(), Some(Row(vec![Value::Bool(true), Value::Float(1.0)])));
    store.sweep(100).unwrap();
    bench.commit(&mut store);
    assert_eq!(bench.numbers(), [1, 1]);
    let mut store = bench.open(&self::store(&[("n", Float, false), ("t", Text, true)]));
    assert_eq!(store.row(b"b").unwrap(), Some(Row(vec![Value::Float(2.0), Value::Null])));
}
