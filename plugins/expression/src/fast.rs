//! Loops for the frequent cases: a typed column without faults against a constant.
//!
//! None = no such case; the general loop over scalars decides, with the same result.

use crate::fault::{Code, Fault};
use crate::scalar::{Order, Scalar, TextTest};
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
        (Data::Doubles(values), Scalar::Double(constant)) => values.iter().map(|value| (value == constant) != negate).collect(),
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
        // NaN cannot come in from a record, but from a computation.
        (Data::Doubles(values), Scalar::Double(constant)) if !constant.is_nan() && !values.iter().any(|value| value.is_nan()) => {
            values.iter().map(|value| value.partial_cmp(constant).is_some_and(|ordering| order.holds(ordering))).collect()
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

fn null_faults(column: &Vector<'_>, code: Code) -> Option<Vec<Code>> {
    let nulls = column.nulls.as_ref().filter(|nulls| nulls.contains(&true))?;
    Some(nulls.iter().map(|null| if *null { code } else { Code::NONE }).collect())
}
