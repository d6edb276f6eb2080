//! From a verdict to records, by the host's rules.

use super::project::json;
use super::{Answers, Record};
use crate::describe::{Base, Description};
use crate::field::Field;
use crate::verdict::{Derived, FROM_NONE, Outcome, Verdict};
use serde_json::{Map, Value as Json};

/// Adds what a verdict says about `records`, of which the plugin saw those in `taken`.
pub fn verdict(verdict: Verdict, description: &Description, records: &[Record], taken: &[usize], first: usize, answers: &mut Answers) {
    let rejected = |row: usize| verdict.rejects.iter().any(|reject| reject.row as usize == row);
    for reject in &verdict.rejects {
        answers.rejects.push((first + taken[reject.row as usize], reject.reason.clone()));
    }
    // What goes around the plugin keeps its place among the records of the first output.
    let around = |place: &usize| records[*place].value.is_null() && !description.tombstones;
    let mut first_output: Vec<(usize, Record)> = (0..records.len()).filter(around).map(|place| (place, records[place].clone())).collect();
    match &verdict.outcome {
        Outcome::All => {
            first_output
                .extend(taken.iter().enumerate().filter(|(row, _)| !rejected(*row)).map(|(_, place)| (*place, records[*place].clone())));
        }
        Outcome::Select(rows) => {
            assert!(rows.is_sorted_by(|a, b| a < b), "`select` must be strictly increasing");
            for row in rows {
                assert!(!rejected(*row as usize), "row {row} is selected and rejected");
                first_output.push((taken[*row as usize], records[taken[*row as usize]].clone()));
            }
        }
        Outcome::Derive(outputs) => {
            for derived in outputs {
                assert!(derived.source.is_sorted(), "`source` must never fall");
                let marks = derived.tombstones.0.len();
                assert!(
                    marks == 0 || marks == derived.source.len().div_ceil(8),
                    "tombstones: {marks} bytes for {} rows",
                    derived.source.len()
                );
                let output = &description.outputs[derived.output];
                for (row, source) in derived.source.iter().enumerate() {
                    assert!(*source == FROM_NONE || !rejected(*source as usize), "row {source} is written and rejected");
                    let place = if *source == FROM_NONE { records.len() } else { taken[*source as usize] };
                    let record = record(derived, row, records.get(place), output);
                    match derived.output {
                        0 => first_output.push((place, record)),
                        _ => answers.outputs.entry(output.name.clone()).or_default().push(record),
                    }
                }
            }
        }
    }
    first_output.sort_by_key(|(place, _)| *place);
    let name = description.outputs[0].name.clone();
    answers.outputs.entry(name).or_default().extend(first_output.into_iter().map(|(_, record)| record));
}

fn record(derived: &Derived, row: usize, source: Option<&Record>, output: &crate::describe::Output) -> Record {
    let mut record = Record { input: 0, ..source.cloned().unwrap_or_default() };
    if output.base == Base::Replace {
        record.value = Json::Object(Map::new());
    }
    assert_eq!(derived.fields.len(), output.fields.len(), "the plugin writes other fields than it described");
    for (field, written) in output.fields.iter().zip(&derived.fields) {
        assert_eq!(field.kind, written.column.kind(), "`{}` is written with another type than described", field.path);
        let Field::Value(path) = &field.path else { panic!("`{}` is no field of the value", field.path) };
        if written.kept.get(row) {
            continue;
        }
        let value = (!written.removed.get(row)).then(|| json(written.column.cell(row)));
        put(&mut record.value, &path.0, value);
    }
    if let Some(values) = &derived.values {
        let bytes = values.bytes(row);
        record.value =
            bytes.map_or(Json::Null, |bytes| serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into()));
    }
    if derived.tombstones.get(row) {
        record.value = Json::Null;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(keys) = &derived.keys {
        record.key = keys.bytes(row).map(text);
    }
    if let Some(timestamps) = &derived.timestamps {
        record.timestamp = timestamps[row];
    }
    if let Some(headers) = &derived.headers {
        record.headers = headers.of(row).map(|(name, value)| (text(name), text(value.unwrap_or_default()))).collect();
    }
    record
}

/// Writes or removes a value; missing parents are created.
fn put(at: &mut Json, path: &[String], value: Option<Json>) {
    let Some((name, rest)) = path.split_first() else { return };
    let Json::Object(members) = at else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => {
            members.insert(name.clone(), value);
        }
        (true, None) => {
            members.shift_remove(name);
        }
        (false, value) => {
            if value.is_some() || members.contains_key(name) {
                put(members.entry(name.clone()).or_insert_with(|| Json::Object(Map::new())), rest, value);
            }
        }
    }
}
