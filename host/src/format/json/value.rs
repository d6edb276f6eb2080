//! From a literal to a cell of a column, and back.

use super::scan::{self, Scanner};
use super::text::{self, Text};
use crate::column::{ColumnBuilder, Indexed, Type, Values};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Where a value stands in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Literal {
    pub start: usize,
    /// 0 = there is no value.
    pub end: usize,
    /// For a string: whether there are escapes in it.
    pub escaped: bool,
}

/// Why a literal is no value of the type that was asked for: a code, and what the user reads.
pub type Unfit = (&'static str, String);

/// What a literal is, in the words of the types.
fn kind_of(literal: &[u8]) -> &'static str {
    match literal.first() {
        Some(b'"') => "text",
        Some(b't' | b'f') => "boolean",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'n') => "null",
        _ if is_integral(literal) => "int",
        _ => "float",
    }
}

fn is_number(literal: &[u8]) -> bool {
    matches!(literal.first(), Some(b'-' | b'0'..=b'9'))
}

fn is_integral(number: &[u8]) -> bool {
    !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

fn wrong_type(expected: Type, literal: &[u8]) -> Unfit {
    ("wrong_type", format!("expected {expected}, found {}", kind_of(literal)))
}

fn out_of_range(expected: Type) -> Unfit {
    let message = match expected {
        Type::Int => "expected int, found a number beyond 64 bits",
        _ => "expected float, found a number beyond the largest double",
    };
    ("out_of_range", message.to_owned())
}

/// Whether a declared conversion exists.
pub fn converts(from: Type, to: Type) -> bool {
    from == to
        || matches!(
            (from, to),
            (Type::Text, Type::Int | Type::Float | Type::Boolean | Type::Json | Type::Bytes)
                | (Type::Int | Type::Float | Type::Boolean | Type::Json, Type::Text)
                | (Type::Int, Type::Float)
                | (Type::Float, Type::Int)
        )
}

/// Appends a literal's value to a column of type `kind`; on an error nothing is appended.
#[inline]
pub fn read(json: &[u8], place: Literal, kind: Type, column: &mut ColumnBuilder, scratch: &mut Vec<u8>) -> Result<(), Unfit> {
    let literal = json.get(place.start..place.end).unwrap_or_default();
    match literal.first() {
        None | Some(b'n') => column.null(),
        Some(first) => match kind {
            Type::Text => column.bytes(text(json, place, kind, scratch)?),
            Type::Int => column.int(int(literal)?),
            Type::Float => column.float(float(literal)?),
            Type::Boolean => match first {
                b't' => column.bool(true),
                b'f' => column.bool(false),
                _ => return Err(wrong_type(kind, literal)),
            },
            Type::Bytes => column.bytes(&bytes(text(json, place, kind, scratch)?)?),
            Type::Json => column.bytes(literal),
        },
    }
    Ok(())
}

/// As `read`, with a declared conversion.
pub fn convert(
    json: &[u8],
    place: Literal,
    from: Type,
    kind: Type,
    column: &mut ColumnBuilder,
    scratch: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let literal = json.get(place.start..place.end).unwrap_or_default();
    match (from, kind, literal.first()) {
        (_, _, None | Some(b'n')) => column.null(),
        (Type::Text, Type::Text | Type::Bytes, _) => return read(json, place, kind, column, scratch),
        (Type::Text, _, _) => {
            let says = text(json, place, Type::Text, scratch)?;
            let unfit = || ("wrong_type", format!("expected {kind} in a text, found another text"));
            match kind {
                // The grammar of JSON's numbers, so that a number means the same inside and outside of quotes.
                Type::Int | Type::Float => {
                    let mut scan = Scanner::new(says);
                    if scan.number().is_err() || scan.at != says.len() || (kind == Type::Int && !is_integral(says)) {
                        return Err(unfit());
                    }
                    if kind == Type::Int { column.int(int(says)?) } else { column.float(float(says)?) }
                }
                Type::Boolean => match says {
                    b"true" => column.bool(true),
                    b"false" => column.bool(false),
                    _ => return Err(unfit()),
                },
                _ => {
                    scan::validate(says).map_err(|_| unfit())?;
                    column.bytes(says);
                }
            }
        }
        (Type::Json, Type::Text, _) => column.bytes(literal),
        (Type::Int, Type::Text | Type::Float, _) => {
            let value = int(literal)?;
            if kind == Type::Text { column.bytes(literal) } else { column.float(value as f64) }
        }
        (Type::Float, Type::Text, _) => {
            float(literal)?;
            column.bytes(literal);
        }
        (Type::Float, Type::Int, _) => column.int(whole(literal)?),
        (Type::Boolean, Type::Text, Some(b't' | b'f')) => column.bytes(literal),
        _ if from == kind => return read(json, place, kind, column, scratch),
        (Type::Boolean, Type::Text, _) => return Err(wrong_type(from, literal)),
        _ => return Err(("wrong_type", format!("there is no conversion from {from} to {kind}"))),
    }
    Ok(())
}

#[inline]
fn text<'a>(json: &'a [u8], place: Literal, expected: Type, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Unfit> {
    if json.get(place.start) != Some(&b'"') {
        return Err(wrong_type(expected, json.get(place.start..place.end).unwrap_or_default()));
    }
    let text = Text { start: place.start + 1, end: place.end - 1, escaped: place.escaped };
    text.unescape(json, scratch)
        .map_err(|_| ("lone_surrogate", format!("expected {expected}, found a text with half a pair of surrogates, which is no Unicode")))
}

#[inline]
fn int(literal: &[u8]) -> Result<i64, Unfit> {
    let (negative, digits) = match literal.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, literal),
    };
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(wrong_type(Type::Int, literal));
        }
        // Counted downwards, since there is one more number below zero than above.
        let next = value.checked_mul(10).and_then(|value| value.checked_sub(i64::from(digit)));
        value = match next {
            Some(value) => value,
            None if is_integral(digits) => return Err(out_of_range(Type::Int)),
            None => return Err(wrong_type(Type::Int, literal)),
        };
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or_else(|| out_of_range(Type::Int)) }
}

#[inline]
fn float(literal: &[u8]) -> Result<f64, Unfit> {
    if !is_number(literal) {
        return Err(wrong_type(Type::Float, literal));
    }
    let parsed = std::str::from_utf8(literal).ok().and_then(|text| text.parse::<f64>().ok());
    match parsed {
        Some(value) if value.is_finite() => Ok(value),
        _ => Err(out_of_range(Type::Float)),
    }
}

/// A number without a fraction, however it is written: `3.0`, `1e3`.
fn whole(literal: &[u8]) -> Result<i64, Unfit> {
    /// Above, not every integer is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if is_number(literal) && is_integral(literal) {
        return int(literal);
    }
    let value = float(literal)?;
    if value.fract() != 0.0 {
        return Err(("wrong_type", "expected int, found a number with a fraction".to_owned()));
    }
    if value.abs() > EXACT { Err(out_of_range(Type::Int)) } else { Ok(value as i64) }
}

fn bytes(text: &[u8]) -> Result<Vec<u8>, Unfit> {
    BASE64.decode(text).map_err(|_| ("bad_base64", "expected bytes, found a text that is not base64 (RFC 4648, with padding)".to_owned()))
}

/// Appends a cell as JSON. None: a NaN or an infinity, which JSON cannot say.
pub fn write(cells: Indexed<'_>, row: usize, out: &mut Vec<u8>) -> Option<()> {
    let row = cells.row(row);
    if cells.column.is_null(row) {
        out.extend_from_slice(b"null");
        return Some(());
    }
    match &cells.column.values {
        Values::Bools(bits) => {
            let set = bits.get(row / 8)? >> (row % 8) & 1 == 1;
            out.extend_from_slice(if set { b"true" } else { b"false" });
        }
        Values::Ints(values) => serde_json::to_writer(out, values.get(row)?).ok()?,
        // The shortest digits that read back as the same double, always with `.` or `e`.
        Values::Floats(values) => {
            let value = values.get(row).filter(|value| value.is_finite())?;
            serde_json::to_writer(out, value).ok()?;
        }
        Values::Texts(strings) => text::write(strings.get(row), out),
        Values::Jsons(strings) => out.extend_from_slice(strings.get(row)),
        Values::Blobs(strings) => {
            out.push(b'"');
            let start = out.len();
            let bytes = strings.get(row);
            out.resize(start + bytes.len().div_ceil(3) * 4, 0);
            BASE64.encode_slice(bytes, out.get_mut(start..)?).ok()?;
            out.push(b'"');
        }
    }
    Some(())
}
