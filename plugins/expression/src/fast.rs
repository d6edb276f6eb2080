//! Loops for the frequent cases: a typed column without faults against a constant.
//!
//! None = no such case; the general loop over scalars decides, with the same result.

use crate::fault::{Code, Fault};
use crate::scalar::{Arithmetic, Order, Scalar, TextTest};
use crate::vector::{Data, Vector};
use millstream_guest::column::Strings;

/// `column == constant`, or `!=` if `negate`.
pub fn equal(column: &Vector<'_>, constant: &Scalar<'_>, negate: bool) -> Option<Vec<bool>> {
    if column.faults.is_some() {
        return None;
    }
    let mut out = match (&column.data, constant) {
        (_, Scalar::Null) => match (&column.data, &column.nulls) {
            (Data::Constant(_) | Data::Jsons(_) | Data::Scalars(_), _) | (_, None) => return None,
            (_, Some(nulls)) => return Some(nulls.iter().map(|null| *null != negate).collect()),
        },
        (Data::Texts(strings), Scalar::Text(text)) => equal_bytes(strings, text.as_bytes(), negate),
        (Data::Ints(values), Scalar::Int(constant)) => values.iter().map(|value| (value == constant) != negate).collect(),
        (Data::Ints(values), Scalar::Double(constant)) => values.iter().map(|value| (*value as f64 == *constant) != negate).collect(),
        (Data::Doubles(values), constant) => {
            let constant = double(constant)?;
            values.iter().map(|value| (*value == constant) != negate).collect()
        }
        _ => return None,
    };
    if let Some(nulls) = &column.nulls {
        for (value, null) in out.iter_mut().zip(nulls) {
            *value = if *null { negate } else { *value };
        }
    }
    Some(out)
}

fn equal_bytes(strings: &Strings, constant: &[u8], negate: bool) -> Vec<bool> {
    each(strings, |bytes| (bytes == constant) != negate)
}

/// A test of each row's bytes.
fn each(strings: &Strings, test: impl Fn(&[u8]) -> bool) -> Vec<bool> {
    let data = strings.data.as_slice();
    strings.offsets.windows(2).map(|ends| data.get(ends[0] as usize..ends[1] as usize).is_some_and(&test)).collect()
}

/// `column < constant` and its like. Null rows are faults of `node`.
pub fn order(column: &Vector<'_>, constant: &Scalar<'_>, order: Order, node: u16) -> Option<Vector<'static>> {
    if column.faults.is_some() {
        return None;
    }
    let out = match (&column.data, constant) {
        (Data::Ints(values), Scalar::Int(constant)) => match order {
            Order::Less => values.iter().map(|value| value < constant).collect(),
            Order::LessOrEqual => values.iter().map(|value| value <= constant).collect(),
            Order::Greater => values.iter().map(|value| value > constant).collect(),
            Order::GreaterOrEqual => values.iter().map(|value| value >= constant).collect(),
        },
        (Data::Ints(values), Scalar::Double(constant)) if !constant.is_nan() => {
            values.iter().map(|value| (*value as f64).partial_cmp(constant).is_some_and(|ordering| order.holds(ordering))).collect()
        }
        // NaN cannot come in from a record, but from a computation.
        (Data::Doubles(values), constant) if !values.iter().any(|value| value.is_nan()) => {
            let constant = double(constant).filter(|constant| !constant.is_nan())?;
            values.iter().map(|value| value.partial_cmp(&constant).is_some_and(|ordering| order.holds(ordering))).collect()
        }
        _ => return None,
    };
    Some(Vector { data: Data::Bools(out), nulls: None, faults: null_faults(column, Code::new(node, Fault::NotOrdered)) })
}

/// `column.startsWith(constant)` and its like. Null rows are faults of `node`.
pub fn text_test(column: &Vector<'_>, pattern: &str, test: TextTest, node: u16) -> Option<Vector<'static>> {
    let (Data::Texts(strings), None) = (&column.data, &column.faults) else { return None };
    let pattern = pattern.as_bytes();
    let out = match test {
        TextTest::StartsWith => each(strings, |bytes| bytes.starts_with(pattern)),
        TextTest::EndsWith => each(strings, |bytes| bytes.ends_with(pattern)),
        TextTest::Contains => return None,
    };
    Some(Vector { data: Data::Bools(out), nulls: None, faults: null_faults(column, Code::new(node, Fault::NullOperand)) })
}

/// `column in constants`, where all constants are texts, or all ints.
pub fn is_one_of(column: &Vector<'_>, constants: &[Scalar<'_>]) -> Option<Vec<bool>> {
    if column.faults.is_some() {
        return None;
    }
    let mut out: Vec<bool> = match &column.data {
        Data::Texts(strings) => {
            let texts: Option<Vec<&[u8]>> = constants.iter().map(|constant| text(constant).map(str::as_bytes)).collect();
            let texts = texts?;
            each(strings, |bytes| texts.contains(&bytes))
        }
        Data::Ints(values) => {
            let ints: Option<Vec<i64>> = constants.iter().map(int).collect();
            let ints = ints?;
            values.iter().map(|value| ints.contains(value)).collect()
        }
        _ => return None,
    };
    if let Some(nulls) = &column.nulls {
        out.iter_mut().zip(nulls).for_each(|(value, null)| *value &= !null);
    }
    Some(out)
}

/// Arithmetic of doubles without nulls and faults. Never an error, but for `%`, which doubles do not have.
pub fn doubles(operation: Arithmetic, left: &Vector<'_>, right: &Vector<'_>, rows: usize) -> Option<Vector<'static>> {
    let apply = match operation {
        Arithmetic::Add => |a: f64, b: f64| a + b,
        Arithmetic::Subtract => |a: f64, b: f64| a - b,
        Arithmetic::Multiply => |a: f64, b: f64| a * b,
        Arithmetic::Divide => |a: f64, b: f64| a / b,
        Arithmetic::Remainder => return None,
    };
    if left.nulls.is_some() || left.faults.is_some() || right.nulls.is_some() || right.faults.is_some() {
        return None;
    }
    let out: Vec<f64> = match (&left.data, &right.data) {
        (Data::Doubles(a), Data::Doubles(b)) => a.iter().zip(b.iter()).map(|(a, b)| apply(*a, *b)).collect(),
        (Data::Doubles(a), Data::Constant(Scalar::Double(b))) => a.iter().map(|a| apply(*a, *b)).collect(),
        (Data::Constant(Scalar::Double(a)), Data::Doubles(b)) => b.iter().map(|b| apply(*a, *b)).collect(),
        _ => return None,
    };
    (out.len() == rows).then_some(Vector { data: Data::Doubles(out.into()), nulls: None, faults: None })
}

/// `double(column)` of ints.
pub fn widened(column: &Vector<'_>) -> Option<Vector<'static>> {
    let (Data::Ints(values), None, None) = (&column.data, &column.nulls, &column.faults) else { return None };
    Some(Vector { data: Data::Doubles(values.iter().map(|value| *value as f64).collect()), nulls: None, faults: None })
}

fn text<'a>(constant: &'a Scalar<'_>) -> Option<&'a str> {
    match constant {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

fn int(constant: &Scalar<'_>) -> Option<i64> {
    match constant {
        Scalar::Int(value) => Some(*value),
        _ => None,
    }
}

/// A number, as doubles are compared with it.
fn double(constant: &Scalar<'_>) -> Option<f64> {
    match constant {
        Scalar::Double(value) => Some(*value),
        Scalar::Int(value) => Some(*value as f64),
        _ => None,
    }
}

fn null_faults(column: &Vector<'_>, code: Code) -> Option<Vec<Code>> {
    let nulls = column.nulls.as_ref().filter(|nulls| nulls.contains(&true))?;
    Some(nulls.iter().map(|null| if *null { code } else { Code::NONE }).collect())
}
