//! Values of `json` columns: CEL's view of them, parsed only as far as needed.

use crate::fault::Fault;
use crate::scalar::Scalar;
use cel::Value as CelValue;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The value of a JSON text; arrays and objects stay text.
pub fn scalar(text: &str) -> Result<Scalar<'_>, Fault> {
    let text = text.trim_ascii();
    match text.as_bytes() {
        b"null" => Ok(Scalar::Null),
        b"true" => Ok(Scalar::Bool(true)),
        b"false" => Ok(Scalar::Bool(false)),
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Ok(Scalar::Text(text[1..text.len() - 1].into())),
        [b'"', ..] => serde_json::from_str::<String>(text).map(|text| Scalar::Text(text.into())).map_err(|_| Fault::Malformed),
        [b'{' | b'[', ..] => Ok(Scalar::Json(text.into())),
        [b'-' | b'0'..=b'9', ..] => number(text).ok_or(Fault::Malformed),
        _ => Err(Fault::Malformed),
    }
}

/// An int where the text has neither fraction nor exponent and fits, else a double.
fn number(text: &str) -> Option<Scalar<'static>> {
    if !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
        && let Ok(value) = text.parse()
    {
        return Some(Scalar::Int(value));
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Double)
}

/// What `path` leads to; a missing member reads as null.
pub fn member(text: &str, path: &[String]) -> Result<Scalar<'static>, Fault> {
    let root: Value = parse(text)?;
    let mut value = &root;
    for name in path {
        match value.get(name) {
            Some(next) => value = next,
            None => return Ok(Scalar::Null),
        }
    }
    of_value(value)
}

fn parse(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|_| Fault::Malformed)
}

fn of_value(value: &Value) -> Result<Scalar<'static>, Fault> {
    match value {
        Value::Null => Ok(Scalar::Null),
        Value::Bool(value) => Ok(Scalar::Bool(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(value) => Ok(Scalar::Int(value)),
            None => number.as_f64().map(Scalar::Double).ok_or(Fault::Malformed),
        },
        Value::String(text) => Ok(Scalar::Text(text.clone().into())),
        Value::Array(_) | Value::Object(_) => Ok(Scalar::Json(value.to_string().into())),
    }
}

/// Equality of arrays and objects: member by member, numbers as numbers.
pub fn equal(left: &str, right: &str) -> bool {
    left == right || matches!((parse(left), parse(right)), (Ok(left), Ok(right)) if equal_values(&left, &right))
}

fn equal_values(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_values(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal_values(a, b)))
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        _ => left == right,
    }
}

/// Members of an array or object.
pub fn size(text: &str) -> Result<i64, Fault> {
    match parse(text)? {
        Value::Array(members) => Ok(members.len() as i64),
        Value::Object(members) => Ok(members.len() as i64),
        _ => Err(Fault::WrongType),
    }
}

/// `+` of two arrays.
pub fn concatenated(left: &str, right: &str) -> Result<String, Fault> {
    match (parse(left)?, parse(right)?) {
        (Value::Array(mut left), Value::Array(right)) => {
            left.extend(right);
            Ok(Value::Array(left).to_string())
        }
        _ => Err(Fault::WrongType),
    }
}

/// Appends a value's JSON text. Bytes are written as base64, as in a record.
pub fn write(value: &Scalar<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match value {
        Scalar::Null => out.extend_from_slice(b"null"),
        Scalar::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Scalar::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Scalar::Double(value) if value.is_finite() => serde_json::to_writer(out, value).map_err(|_| Fault::NotFinite)?,
        Scalar::Double(_) => return Err(Fault::NotFinite),
        Scalar::Text(text) => serde_json::to_writer(out, text.as_ref()).map_err(|_| Fault::Malformed)?,
        Scalar::Bytes(bytes) => {
            out.push(b'"');
            out.extend_from_slice(base64(bytes).as_bytes());
            out.push(b'"');
        }
        Scalar::Json(text) => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0u32, |word, (place, byte)| word | u32::from(*byte) << (16 - 8 * place));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

/// For the interpreter.
pub fn to_cel(value: Scalar<'_>) -> Result<CelValue, Fault> {
    Ok(match value {
        Scalar::Null => CelValue::Null,
        Scalar::Bool(value) => CelValue::Bool(value),
        Scalar::Int(value) => CelValue::Int(value),
        Scalar::Double(value) => CelValue::Float(value),
        Scalar::Text(text) => CelValue::String(Arc::new(text.into_owned())),
        Scalar::Bytes(bytes) => CelValue::Bytes(Arc::new(bytes.into_owned())),
        Scalar::Json(text) => value_to_cel(parse(&text)?)?,
    })
}

fn value_to_cel(value: Value) -> Result<CelValue, Fault> {
    Ok(match value {
        Value::Array(members) => CelValue::List(Arc::new(members.into_iter().map(value_to_cel).collect::<Result<_, _>>()?)),
        Value::Object(members) => {
            let members: Result<HashMap<String, CelValue>, Fault> =
                members.into_iter().map(|(name, value)| Ok((name, value_to_cel(value)?))).collect();
            CelValue::from(members?)
        }
        scalar => to_cel(of_value(&scalar)?)?,
    })
}

/// From the interpreter.
pub fn from_cel(value: CelValue) -> Result<Scalar<'static>, Fault> {
    Ok(match value {
        CelValue::Null => Scalar::Null,
        CelValue::Bool(value) => Scalar::Bool(value),
        CelValue::Int(value) => Scalar::Int(value),
        CelValue::UInt(value) => Scalar::Int(i64::try_from(value).map_err(|_| Fault::Overflow)?),
        CelValue::Float(value) => Scalar::Double(value),
        CelValue::String(text) => Scalar::Text(text.as_ref().clone().into()),
        CelValue::Bytes(bytes) => Scalar::Bytes(bytes.as_ref().clone().into()),
        value @ (CelValue::List(_) | CelValue::Map(_)) => {
            let mut out = Vec::new();
            write_cel(&value, &mut out)?;
            Scalar::Json(String::from_utf8(out).map_err(|_| Fault::Malformed)?.into())
        }
        _ => return Err(Fault::WrongType),
    })
}

/// Members of a map are written in the order of their names, so that equal maps are equal texts.
fn write_cel(value: &CelValue, out: &mut Vec<u8>) -> Result<(), Fault> {
    match value {
        CelValue::List(members) => {
            out.push(b'[');
            for (place, member) in members.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_cel(member, out)?;
            }
            out.push(b']');
            Ok(())
        }
        CelValue::Map(map) => {
            let mut members: Vec<(String, &CelValue)> = map.map.iter().map(|(name, value)| (name.to_string(), value)).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            out.push(b'{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(&Scalar::Text(name.into()), out)?;
                out.push(b':');
                write_cel(member, out)?;
            }
            out.push(b'}');
            Ok(())
        }
        scalar => write(&from_cel(scalar.clone())?, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn numbers_are_ints_where_they_can_be() {
        assert!(matches!(scalar("3"), Ok(Scalar::Int(3))));
        assert!(matches!(scalar("-0"), Ok(Scalar::Int(0))));
        assert!(matches!(scalar("3.0"), Ok(Scalar::Double(_))));
        assert!(matches!(scalar("9223372036854775808"), Ok(Scalar::Double(_))));
        assert!(matches!(scalar("1e999"), Err(Fault::Malformed)));
        assert!(matches!(scalar("x"), Err(Fault::Malformed)));
    }

    #[test]
    fn escapes_are_resolved() {
        assert!(matches!(scalar(r#""a\u0062""#), Ok(Scalar::Text(text)) if text == "ab"));
        assert!(matches!(scalar(r#"""#), Err(Fault::Malformed)));
    }
}
