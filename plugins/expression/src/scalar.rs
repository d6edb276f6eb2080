//! One value, and what CEL's operators do with it. The loops over columns are shortcuts for these.

use crate::fault::Fault;
use crate::json;
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// The source text of an array or an object.
    Json(Cow<'a, str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl Order {
    #[inline]
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    /// The same comparison with its sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl TextTest {
    #[inline]
    pub fn holds(self, text: &str, pattern: &str) -> bool {
        match self {
            Self::StartsWith => text.as_bytes().starts_with(pattern.as_bytes()),
            Self::EndsWith => text.as_bytes().ends_with(pattern.as_bytes()),
            Self::Contains => text.contains(pattern),
        }
    }
}

impl Scalar<'_> {
    pub fn into_owned(self) -> Scalar<'static> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(value) => Scalar::Bool(value),
            Self::Int(value) => Scalar::Int(value),
            Self::Double(value) => Scalar::Double(value),
            Self::Text(text) => Scalar::Text(text.into_owned().into()),
            Self::Bytes(bytes) => Scalar::Bytes(bytes.into_owned().into()),
            Self::Json(text) => Scalar::Json(text.into_owned().into()),
        }
    }

    /// The same value, borrowed.
    pub fn by_ref(&self) -> Scalar<'_> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(value) => Scalar::Bool(*value),
            Self::Int(value) => Scalar::Int(*value),
            Self::Double(value) => Scalar::Double(*value),
            Self::Text(text) => Scalar::Text(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Scalar::Bytes(Cow::Borrowed(bytes)),
            Self::Json(text) => Scalar::Json(Cow::Borrowed(text)),
        }
    }

    pub fn truth(&self) -> Result<bool, Fault> {
        match self {
            Self::Bool(value) => Ok(*value),
            _ => Err(Fault::NotBoolean),
        }
    }
}

/// `==`: defined for any two values; numbers compare as numbers.
pub fn equal(left: &Scalar<'_>, right: &Scalar<'_>) -> bool {
    use Scalar::{Bool, Bytes, Double, Int, Json, Null, Text};
    match (left, right) {
        (Null, Null) => true,
        (Bool(a), Bool(b)) => a == b,
        (Int(a), Int(b)) => a == b,
        (Int(a), Double(b)) | (Double(b), Int(a)) => *a as f64 == *b,
        (Double(a), Double(b)) => a == b,
        (Text(a), Text(b)) => a == b,
        (Bytes(a), Bytes(b)) => a == b,
        (Json(a), Json(b)) => json::equal(a, b),
        _ => false,
    }
}

/// `<` and its like.
pub fn order(left: &Scalar<'_>, right: &Scalar<'_>) -> Result<Ordering, Fault> {
    use Scalar::{Bool, Bytes, Double, Int, Text};
    match (left, right) {
        (Int(a), Int(b)) => Ok(a.cmp(b)),
        (Int(a), Double(b)) => (*a as f64).partial_cmp(b).ok_or(Fault::NotOrdered),
        (Double(a), Int(b)) => a.partial_cmp(&(*b as f64)).ok_or(Fault::NotOrdered),
        (Double(a), Double(b)) => a.partial_cmp(b).ok_or(Fault::NotOrdered),
        (Text(a), Text(b)) => Ok(a.cmp(b)),
        (Bytes(a), Bytes(b)) => Ok(a.cmp(b)),
        (Bool(a), Bool(b)) => Ok(a.cmp(b)),
        _ => Err(Fault::NotOrdered),
    }
}

pub fn arithmetic(operation: Arithmetic, left: &Scalar<'_>, right: &Scalar<'_>) -> Result<Scalar<'static>, Fault> {
    use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
    match (left, right) {
        (Scalar::Int(a), Scalar::Int(b)) => {
            if *b == 0 && matches!(operation, Divide | Remainder) {
                return Err(Fault::DivisionByZero);
            }
            let result = match operation {
                Add => a.checked_add(*b),
                Subtract => a.checked_sub(*b),
                Multiply => a.checked_mul(*b),
                Divide => a.checked_div(*b),
                Remainder => a.checked_rem(*b),
            };
            result.map(Scalar::Int).ok_or(Fault::Overflow)
        }
        (Scalar::Double(a), Scalar::Double(b)) => match operation {
            Add => Ok(Scalar::Double(a + b)),
            Subtract => Ok(Scalar::Double(a - b)),
            Multiply => Ok(Scalar::Double(a * b)),
            Divide => Ok(Scalar::Double(a / b)),
            Remainder => Err(Fault::WrongType),
        },
        (Scalar::Text(a), Scalar::Text(b)) if operation == Add => Ok(Scalar::Text(format!("{a}{b}").into())),
        (Scalar::Bytes(a), Scalar::Bytes(b)) if operation == Add => Ok(Scalar::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        (Scalar::Json(a), Scalar::Json(b)) if operation == Add => json::concatenated(a, b).map(|text| Scalar::Json(text.into())),
        (Scalar::Null, _) | (_, Scalar::Null) => Err(Fault::NullOperand),
        _ => Err(Fault::WrongType),
    }
}

pub fn negated(value: &Scalar<'_>) -> Result<Scalar<'static>, Fault> {
    match value {
        Scalar::Int(value) => value.checked_neg().map(Scalar::Int).ok_or(Fault::Overflow),
        Scalar::Double(value) => Ok(Scalar::Double(-value)),
        Scalar::Null => Err(Fault::NullOperand),
        _ => Err(Fault::WrongType),
    }
}

/// `size()`: characters of a text, bytes, members of an array or object.
pub fn size(value: &Scalar<'_>) -> Result<Scalar<'static>, Fault> {
    match value {
        Scalar::Text(text) => Ok(Scalar::Int(text.chars().count() as i64)),
        Scalar::Bytes(bytes) => Ok(Scalar::Int(bytes.len() as i64)),
        Scalar::Json(text) => json::size(text).map(Scalar::Int),
        Scalar::Null => Err(Fault::NullOperand),
        _ => Err(Fault::WrongType),
    }
}

pub fn text_test(test: TextTest, text: &Scalar<'_>, pattern: &Scalar<'_>) -> Result<bool, Fault> {
    match (text, pattern) {
        (Scalar::Text(text), Scalar::Text(pattern)) => Ok(test.holds(text, pattern)),
        (Scalar::Null, _) | (_, Scalar::Null) => Err(Fault::NullOperand),
        _ => Err(Fault::WrongType),
    }
}
