//! State, tables and the log; rows that changed.

use crate::columns::{blobs, bools, derived, field, floats, int, ints, show, show_row, strings, text, texts};
use crate::{Config, read, told};
use millstream_guest::column::{Column, Type};
use millstream_guest::describe::{Description, Occasion, Store, StoreField};
use millstream_guest::verdict::{Outcome, Verdict};
use millstream_guest::{Batch, Setup, log, state, tables};

fn store(name: &str, key: Type, fields: Vec<StoreField>) -> Store {
    Store { name: name.to_owned(), key, fields, by: vec![field("$key")], windowed: false, emits: Vec::new(), migrates: Vec::new() }
}

fn stored(name: &str, kind: Type) -> StoreField {
    StoreField::new(name, kind, true)
}

/// Three stores, one for each type of keys; the first has a column of each type.
pub fn state(setup: &Setup<Config>) -> Description {
    let columns = vec![
        StoreField::new("n", Type::Int, false),
        stored("flag", Type::Boolean),
        stored("half", Type::Float),
        stored("name", Type::Text),
        stored("raw", Type::Bytes),
        stored("doc", Type::Json),
    ];
    let known =
        setup.tables.get("users").map(|users| users.fields.iter().map(|field| field.path.to_string()).collect::<Vec<_>>().join("+"));
    Description {
        reads: vec![read("$key", Type::Text), read("do", Type::Text)],
        outputs: vec![told(&[("told", Type::Text)])],
        stores: vec![
            store("texts", Type::Text, columns),
            store("ints", Type::Int, vec![stored("n", Type::Int)]),
            store("bytes", Type::Bytes, vec![stored("n", Type::Int)]),
        ],
        tables: vec!["users".to_owned()],
        table_keys: vec![Some(field("$key"))],
        warnings: vec![format!("users have {}", known.unwrap_or_default())],
        ..Description::default()
    }
}

pub fn process_state(batch: &Batch) -> Verdict {
    let rows = (0..batch.rows).map(|row| Some(one(row, &show(&batch.fields[0], row), &show(&batch.fields[1], row))));
    let out = derived(0, (0..batch.rows as u32).collect(), vec![texts(rows)]);
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}

fn one(row: usize, key: &str, what: &str) -> String {
    let keys = text(key);
    match what {
        "put" => {
            let found = state::get_many(0, &keys);
            let n = if found.present.get(0) { int(&found.fields[0], 0).unwrap_or_default() + 1 } else { 1 };
            let odd = (n % 2 == 1).then_some(());
            // The last of equal keys wins.
            let fields = vec![
                ints([Some(-1), Some(n)]),
                bools([None, odd.map(|()| n > 2)]),
                floats([None, odd.map(|()| n as f64 / 2.0)]),
                texts([None, odd.map(|()| format!("ä{n}"))]),
                blobs([None, odd.map(|()| format!("b{n}"))]),
                strings(Type::Json, [None, odd.map(|()| format!("{{\"n\": {n}}}"))]),
            ];
            state::put_many(0, texts([Some(key.to_owned()), Some(key.to_owned())]), fields);
            let back = state::get_many(0, &texts([Some("nobody".to_owned()), Some(key.to_owned()), Some(key.to_owned())]));
            let present: String = (0..3).map(|row| if back.present.get(row) { '1' } else { '0' }).collect();
            let number = key.bytes().map(i64::from).sum::<i64>() - 200;
            state::put_many(1, ints([Some(number)]), vec![ints([Some(n)])]);
            state::put_many(2, blobs([Some(format!("{key}\u{ff}"))]), vec![ints([None])]);
            format!("{} bytes {present}: {} / {}", back.present.0.len(), show_row(&back.fields, 0), show_row(&back.fields, 2))
        }
        "delete" => {
            state::delete_many(0, &texts([Some(key.to_owned()), Some("nobody".to_owned())]));
            format!("deleted, found {}", state::get_many(0, &keys).present.get(0))
        }
        "scan" => {
            let texts = state::scan(0, &text("a"), &text("z"), 2);
            let numbers = state::scan(1, &ints([Some(i64::MIN)]), &ints([Some(i64::MAX)]), 100);
            let bytes = state::scan(2, &blobs([Some(String::new())]), &blobs([Some("b".to_owned())]), 100);
            let none = state::scan(0, &text("z"), &text("a"), 100);
            format!("{} | {} | {} | {}", page(&texts), page(&numbers), page(&bytes), page(&none))
        }
        "look" => {
            let found =
                tables::lookup(0, &[row as u32, row as u32, row as u32], &texts([Some(key.to_owned()), None, Some("nobody".to_owned())]));
            let present: String = (0..3).map(|row| if found.present.get(row) { '1' } else { '0' }).collect();
            format!("{present}: {}", show_row(&found.fields, 0))
        }
        _ => {
            for level in 0..5 {
                log::write(level, Some(row as u32), &format!("frozen says {level}"));
            }
            log::write(6, None, "frozen says what a later contract may");
            "logged".to_owned()
        }
    }
}

fn page(page: &millstream_guest::verdict::Page) -> String {
    let rows = page.fields.first().map_or(0, |column| match &column.values {
        millstream_guest::column::Values::Ints(values) => values.len(),
        _ => 0,
    });
    let keys: Vec<String> = (0..rows).map(|row| format!("{}:{}", show(&page.keys, row), show_row(&page.fields, row))).collect();
    format!("{} more {}", keys.join(" "), page.more)
}

/// Counts by key; the rows that changed are told when they are committed.
pub fn changes() -> Description {
    let counts = store("", Type::Text, vec![StoreField::new("n", Type::Int, false)]);
    Description {
        reads: vec![read("$key", Type::Text)],
        outputs: vec![told(&[("n", Type::Int)])],
        stores: vec![Store { emits: vec![Occasion::Changed], ..counts }],
        ..Description::default()
    }
}

pub fn process_changes(batch: &Batch) -> Verdict {
    for row in 0..batch.rows {
        let keys = text(&show(&batch.fields[0], row));
        let found = state::get_many(0, &keys);
        let n = if found.present.get(0) { int(&found.fields[0], 0).unwrap_or_default() } else { 0 };
        state::put_many(0, keys, vec![ints([Some(n + 1)])]);
    }
    Verdict { outcome: Outcome::Derive(Vec::new()), rejects: Vec::new() }
}

pub fn emit(store: u32, occasion: Occasion, keys: &Column, fields: &[Column]) -> Verdict {
    assert!(store == 0 && occasion == Occasion::Changed, "rows of another store, or for another reason");
    let rows = millstream_guest::column::Strings::len(match &keys.values {
        millstream_guest::column::Values::Texts(keys) => keys,
        _ => panic!("keys of another type"),
    });
    let mut out = derived(0, (0..rows as u32).collect(), vec![fields[0].clone()]);
    out.keys = Some(blobs((0..rows).map(|row| Some(show(keys, row)))));
    out.timestamps = Some((0..rows as i64).collect());
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}
