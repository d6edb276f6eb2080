//! A store whose rows have an older type and a newer one.

use crate::columns::{derived, field, int, ints, show, text, texts};
use crate::{read, told};
use millstream_guest::column::{Column, Type};
use millstream_guest::describe::{Description, Store, StoreField};
use millstream_guest::verdict::{Outcome, Verdict};
use millstream_guest::{Batch, state};

fn description(fields: Vec<StoreField>, migrates: Vec<Vec<StoreField>>) -> Description {
    let rows =
        Store { name: String::new(), key: Type::Text, fields, by: vec![field("$key")], windowed: false, emits: Vec::new(), migrates };
    Description {
        reads: vec![read("$key", Type::Text)],
        outputs: vec![told(&[("n", Type::Int), ("how", Type::Text), ("kind", Type::Text)])],
        stores: vec![rows],
        ..Description::default()
    }
}

fn count() -> StoreField {
    StoreField::new("n", Type::Int, false)
}

pub fn older() -> Description {
    description(vec![count()], Vec::new())
}

/// The older type is the second of the list. `kind` has a default, which rows that go through `migration` do not take.
pub fn newer() -> Description {
    let kind = StoreField { default: Some("default".into()), ..StoreField::new("kind", Type::Text, false) };
    let never = vec![count(), StoreField::new("never", Type::Float, true)];
    description(vec![count(), StoreField::new("how", Type::Text, true), kind], vec![never, vec![count()]])
}

pub fn process_older(batch: &Batch) -> Verdict {
    process(batch, |n| vec![ints([Some(n)])], |_| (None, None))
}

pub fn process_newer(batch: &Batch) -> Verdict {
    let row = |n| vec![ints([Some(n)]), texts([Some("put".to_owned())]), text("put")];
    process(batch, row, |fields| (Some(show(&fields[1], 0)), Some(show(&fields[2], 0))))
}

/// Counts by key, and tells of the row that was there before.
fn process(batch: &Batch, row: impl Fn(i64) -> Vec<Column>, before: impl Fn(&[Column]) -> (Option<String>, Option<String>)) -> Verdict {
    let (mut counts, mut hows, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..batch.rows {
        let keys = text(&show(&batch.fields[0], place));
        let found = state::get_many(0, &keys);
        let there = found.present.get(0);
        let n = if there { int(&found.fields[0], 0).unwrap_or_default() } else { 0 };
        let (how, kind) = if there { before(&found.fields) } else { (None, None) };
        state::put_many(0, keys, row(n + 1));
        counts.push(Some(n + 1));
        hows.push(how);
        kinds.push(kind);
    }
    let out = derived(0, (0..batch.rows as u32).collect(), vec![ints(counts), texts(hows), texts(kinds)]);
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}

/// A count of 99 cannot be migrated.
pub fn migrate(store: u32, older: u32, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, String> {
    assert!(store == 0 && older == 1 && fields.len() == 1, "rows of another store or type");
    let Some(rows) = rows_of(keys) else { return Err("keys of another type".to_owned()) };
    let counts: Vec<i64> = (0..rows).map(|row| int(&fields[0], row).unwrap_or_default()).collect();
    if counts.contains(&99) {
        return Err("99 cannot be migrated".to_owned());
    }
    let how = counts.iter().enumerate().map(|(row, n)| Some(format!("migrated {} from {n}", show(keys, row))));
    Ok(vec![ints(counts.iter().map(|n| Some(n * 100))), texts(how), texts(counts.iter().map(|_| Some("migrated".to_owned())))])
}

fn rows_of(keys: &Column) -> Option<usize> {
    match &keys.values {
        millstream_guest::column::Values::Texts(keys) => Some(keys.len()),
        _ => None,
    }
}
