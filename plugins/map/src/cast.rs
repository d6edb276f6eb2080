//! Conversions of `cast`: strict, what does not convert is an error of its record.

use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use serde_json::Value;

/// Whether values of type `from` can be cast to `to` at all. What a `json` field holds is known record by record.
pub fn is_possible(from: Type, to: Type) -> bool {
    match (from, to) {
        (from, to) if from == to => true,
        (Type::Json, _) | (_, Type::Text) => true,
        (Type::Text, _) => true,
        (Type::Int, Type::Float) | (Type::Float, Type::Int) => true,
        (Type::Boolean | Type::Int | Type::Float, Type::Json) => true,
        _ => false,
    }
}

/// The converted column, and the rows whose value does not convert. Null stays null.
pub fn column(from: &Column, to: Type, rows: usize) -> (Column, Vec<u32>) {
    let mut out = ColumnBuilder::new(to, rows);
    let mut failed = Vec::new();
    for row in 0..rows {
        if cell(from.cell(row), to, &mut out).is_none() {
            out.null();
            failed.push(row as u32);
        }
    }
    (out.finish(), failed)
}

/// Appends the converted value; None if there is none, then nothing is appended.
fn cell(from: Cell<'_>, to: Type, out: &mut ColumnBuilder) -> Option<()> {
    match (from, to) {
        (Cell::Null, _) => out.null(),
        (Cell::Json(text), Type::Json) => out.bytes(text.as_bytes()),
        (Cell::Json(text), _) => return json(text, to, out),
        (Cell::Bool(value), Type::Boolean) => out.bool(value),
        (Cell::Int(value), Type::Int) => out.int(value),
        (Cell::Int(value), Type::Float) => out.float(value as f64),
        (Cell::Float(value), Type::Float) => out.float(value),
        (Cell::Float(value), Type::Int) => out.int(whole(value)?),
        (Cell::Text(text), Type::Text) => out.bytes(text.as_bytes()),
        (Cell::Text(text), Type::Int) => out.int(text.parse().ok()?),
        (Cell::Text(text), Type::Float) => out.float(text.parse().ok().filter(|value: &f64| value.is_finite())?),
        (Cell::Text("true"), Type::Boolean) => out.bool(true),
        (Cell::Text("false"), Type::Boolean) => out.bool(false),
        (Cell::Text(text), Type::Bytes) => out.bytes(text.as_bytes()),
        (Cell::Text(text), Type::Json) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
            match text.trim_ascii() {
                "null" => out.null(),
                text => out.bytes(text.as_bytes()),
            }
        }
        (Cell::Blob(bytes), Type::Bytes) => out.bytes(bytes),
        (Cell::Blob(bytes), Type::Text) => out.bytes(std::str::from_utf8(bytes).ok()?.as_bytes()),
        (Cell::Bool(value), Type::Text | Type::Json) => out.bytes(value.to_string().as_bytes()),
        (Cell::Int(value), Type::Text | Type::Json) => out.bytes(value.to_string().as_bytes()),
        (Cell::Float(value), Type::Text) => out.bytes(value.to_string().as_bytes()),
        (Cell::Float(value), Type::Json) => out.bytes(Value::from(value).to_string().as_bytes()),
        _ => return None,
    }
    Some(())
}

/// A value whose type is known only now. Arrays and objects convert to text alone: their source text.
fn json(text: &str, to: Type, out: &mut ColumnBuilder) -> Option<()> {
    let text = text.trim_ascii();
    if text.starts_with(['[', '{']) {
        return (to == Type::Text).then(|| out.bytes(text.as_bytes()));
    }
    match serde_json::from_str(text).ok()? {
        Value::Null => out.null(),
        Value::Bool(value) => return cell(Cell::Bool(value), to, out),
        Value::String(inner) => return cell(Cell::Text(&inner), to, out),
        Value::Number(_) if to == Type::Text => out.bytes(text.as_bytes()),
        Value::Number(number) => {
            return match number.as_i64() {
                Some(value) => cell(Cell::Int(value), to, out),
                None => cell(Cell::Float(number.as_f64()?), to, out),
            };
        }
        Value::Array(_) | Value::Object(_) => return None,
    }
    Some(())
}

/// 2^63 itself is no int.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value >= i64::MIN as f64 && value < i64::MAX as f64).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_converts_as_documented() {
        let text = |text: &'static str| Cell::Text(text);
        for (from, to, result) in [
            (text("12"), Type::Int, Some(Cell::Int(12))),
            (text(" 12"), Type::Int, None),
            (text("1.0"), Type::Int, None),
            (text("1e2"), Type::Float, Some(Cell::Float(100.0))),
            (text("inf"), Type::Float, None),
            (text("true"), Type::Boolean, Some(Cell::Bool(true))),
            (text("1"), Type::Boolean, None),
            (text("[1, 2]"), Type::Json, Some(Cell::Json("[1, 2]"))),
            (text("[1,"), Type::Json, None),
            (text("null"), Type::Json, Some(Cell::Null)),
            (Cell::Float(2.0), Type::Int, Some(Cell::Int(2))),
            (Cell::Float(2.5), Type::Int, None),
            (Cell::Float(9_223_372_036_854_775_808.0), Type::Int, None),
            (Cell::Int(3), Type::Float, Some(Cell::Float(3.0))),
            (Cell::Int(3), Type::Text, Some(text("3"))),
            (Cell::Json("1.50"), Type::Text, Some(text("1.50"))),
            (Cell::Json("\"a\\u0062\""), Type::Text, Some(text("ab"))),
            (Cell::Json("\"7\""), Type::Int, Some(Cell::Int(7))),
            (Cell::Json("1.0"), Type::Int, Some(Cell::Int(1))),
            (Cell::Json("{\"a\": 1}"), Type::Text, Some(text("{\"a\": 1}"))),
            (Cell::Json("{}"), Type::Int, None),
            (Cell::Blob(b"\xff"), Type::Text, None),
            (Cell::Null, Type::Int, Some(Cell::Null)),
        ] {
            let mut out = ColumnBuilder::new(to, 1);
            let converted = cell(from, to, &mut out).map(|()| out.finish());
            match (&converted, result) {
                (Some(column), Some(result)) => assert_eq!(column.cell(0), result, "{from:?} to {to}"),
                (None, None) => {}
                (_, expected) => panic!("{from:?} to {to}: {converted:?}, expected {expected:?}"),
            }
        }
    }
}
