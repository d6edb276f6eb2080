//! From JSON records to the columns that a plugin asked for, by the host's rules.

use super::{Record, base64};
use crate::column::{Cell, ColumnBuilder, Type};
use crate::describe::{Description, Part, Read, Schema};
use crate::fake::{self, Rows, Value};
use crate::field::Field;
use crate::headers::HeadersBuilder;
use crate::plugin::Batch;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What goes to the plugin; which of the records that are; and who is refused before the call.
pub fn batch(description: &Description, records: &[Record], first: usize, stream_time: i64) -> (Batch, Vec<usize>, Vec<(usize, String)>) {
    assert!(!description.leaves, "plugins that ask for leaves are tested in columns");
    let mut taken = Vec::new();
    let mut rejects = Vec::new();
    let mut fields: Vec<_> = description.reads.iter().map(|read| ColumnBuilder::new(read.kind, records.len())).collect();
    for (place, record) in records.iter().enumerate() {
        if record.value.is_null() && !description.tombstones {
            continue;
        }
        let cells: Result<Vec<_>, _> = description.reads.iter().map(|read| value(read, record, first + place)).collect();
        match cells {
            Ok(cells) => {
                cells.iter().zip(&mut fields).for_each(|(cell, field)| field.cell(cell.cell()));
                taken.push(place);
            }
            Err(reason) => rejects.push((first + place, reason)),
        }
    }
    let part = |part| description.parts.contains(&part);
    let blobs = |get: &dyn Fn(&Record) -> Option<Vec<u8>>| {
        let mut blobs = ColumnBuilder::new(Type::Bytes, taken.len());
        for place in &taken {
            match get(&records[*place]) {
                Some(bytes) => blobs.bytes(&bytes),
                None => blobs.null(),
            }
        }
        blobs.finish()
    };
    let headers = || {
        let mut headers = HeadersBuilder::default();
        for place in &taken {
            for (name, value) in &records[*place].headers {
                headers.push(name.as_bytes(), Some(value.as_bytes()));
            }
            headers.close();
        }
        headers.finish()
    };
    let batch = Batch {
        rows: taken.len(),
        stream_time,
        timestamps: taken.iter().map(|place| records[*place].timestamp).collect(),
        fields: fields.into_iter().map(ColumnBuilder::finish).collect(),
        keys: part(Part::Key).then(|| blobs(&|record| record.key.clone().map(String::into_bytes))),
        values: part(Part::Value).then(|| blobs(&|record| (!record.value.is_null()).then(|| record.value.to_string().into_bytes()))),
        headers: part(Part::Headers).then(headers),
        leaves: None,
    };
    (batch, taken, rejects)
}

fn value(read: &Read, record: &Record, offset: usize) -> Result<Value, String> {
    let text = |text: &str| Json::String(text.to_owned());
    if read.input.is_some_and(|input| input != record.input) {
        return Ok(Value::Null);
    }
    let found = match &read.path {
        Field::Value(path) => path.0.iter().try_fold(&record.value, |at, part| at.get(part)).cloned(),
        Field::Key => record.key.as_deref().map(text),
        Field::Timestamp => Some(record.timestamp.into()),
        Field::Topic => Some(text("test")),
        Field::Partition => Some(0.into()),
        Field::Offset => Some(offset.into()),
        Field::Input => Some(record.input.into()),
        Field::Header(name) => record.headers.iter().rev().find(|(header, _)| header == name).map(|(_, value)| text(value)),
        Field::WindowStart | Field::WindowEnd => None,
    };
    let found = found.unwrap_or(Json::Null);
    if found.is_null() {
        // A tombstone has no fields that could be missing.
        return if read.required && !record.value.is_null() { Err(format!("`{}` is missing", read.path)) } else { Ok(Value::Null) };
    }
    // Keys and headers are bytes in the log; a number there is its digits.
    let parsed = match (&read.path, read.kind, &found) {
        (Field::Key | Field::Header(_), Type::Int | Type::Float, Json::String(digits)) => {
            serde_json::from_str(digits).unwrap_or(Json::Null)
        }
        _ => found,
    };
    typed(&parsed, read.kind).ok_or_else(|| format!("`{}` is not of type {}", read.path, read.kind))
}

/// By the table of types in the host's JSON format. None: another type.
fn typed(value: &Json, kind: Type) -> Option<Value> {
    Some(match kind {
        Type::Boolean => Value::Bool(value.as_bool()?),
        Type::Int => Value::Int(value.as_i64()?),
        Type::Float => Value::Float(value.as_f64()?),
        Type::Text => Value::Text(value.as_str()?.to_owned()),
        Type::Bytes => Value::Bytes(base64::decode(value.as_str()?)?),
        Type::Json => Value::Json(value.to_string()),
    })
}

/// A cell as JSON.
pub fn json(cell: Cell<'_>) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Bool(value) => value.into(),
        Cell::Int(value) => value.into(),
        Cell::Float(value) => value.into(),
        Cell::Text(text) => text.into(),
        Cell::Blob(bytes) => base64::encode(bytes).into(),
        Cell::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| panic!("the plugin wrote a json field that is no JSON")),
    }
}

/// Puts a row into a table, if the plugin reads that table.
pub fn fill_table(table: &str, key: &str, row: &Json, schema: &Schema) {
    let values = schema.fields.iter().map(|field| {
        let read = Read { required: !field.nullable, ..Read::of(field.path.clone(), field.kind) };
        let value = value(&read, &Record::new(row.clone()), 0);
        value.unwrap_or_else(|reason| panic!("the row `{key}` of the table `{table}`: {reason}"))
    });
    let values = values.collect();
    fake::table(table, |rows| rows.rows.insert(key.as_bytes().to_vec(), (Value::Text(key.to_owned()), values)));
}

/// A store's rows as JSON objects by the text of their keys.
pub fn show(rows: &mut Rows) -> BTreeMap<String, Json> {
    let text = |key: &Value| match json(key.cell()) {
        Json::String(text) => text,
        other => other.to_string(),
    };
    let object = |values: &[Value]| {
        let members = rows.fields.iter().zip(values).map(|((name, _), value)| (name.clone(), json(value.cell())));
        Json::Object(members.collect())
    };
    rows.rows.values().map(|(key, values)| (text(key), object(values))).collect()
}
