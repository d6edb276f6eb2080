//! What an expression yields for every row of a batch.

use crate::fault::{Code, Fault};
use crate::json;
use crate::kind::Kind;
use crate::scalar::Scalar;
use millstream_guest::column::{Column, ColumnBuilder, Strings, Values};
use std::borrow::Cow;

/// The values of all rows. Nulls and faults stand beside them; the slot of such a row is ignored.
pub enum Data<'a> {
    /// The same for every row.
    Constant(Scalar<'a>),
    Bools(Vec<bool>),
    Ints(Cow<'a, [i64]>),
    Doubles(Cow<'a, [f64]>),
    Texts(Cow<'a, Strings>),
    Blobs(Cow<'a, Strings>),
    /// JSON texts, each parsed when looked at.
    Jsons(&'a Strings),
    Scalars(Vec<Scalar<'static>>),
}

pub struct Vector<'a> {
    pub data: Data<'a>,
    /// None = no row is null.
    pub nulls: Option<Vec<bool>>,
    /// None = no row has a fault.
    pub faults: Option<Vec<Code>>,
}

impl<'a> Vector<'a> {
    pub fn constant(value: Scalar<'a>) -> Self {
        Self { data: Data::Constant(value), nulls: None, faults: None }
    }

    pub fn bools(values: Vec<bool>) -> Self {
        Self { data: Data::Bools(values), nulls: None, faults: None }
    }

    /// A field of a batch.
    pub fn of_column(column: &'a Column, rows: usize) -> Self {
        let data = match &column.values {
            Values::Bools(bits) => Data::Bools((0..rows).map(|row| bits[row / 8] >> (row % 8) & 1 == 1).collect()),
            Values::Ints(values) => Data::Ints(values.into()),
            Values::Floats(values) => Data::Doubles(values.into()),
            Values::Texts(strings) => Data::Texts(Cow::Borrowed(strings)),
            Values::Blobs(strings) => Data::Blobs(Cow::Borrowed(strings)),
            Values::Jsons(strings) => Data::Jsons(strings),
        };
        let nulls = (!column.validity.0.is_empty()).then(|| (0..rows).map(|row| !column.validity.get(row)).collect());
        Self { data, nulls, faults: None }
    }

    #[inline]
    fn fault(&self, row: usize) -> Code {
        self.faults.as_ref().map_or(Code::NONE, |faults| faults[row])
    }

    /// The value of a row. `node` is who asks: a field that is not valid JSON is found here.
    #[inline]
    pub fn at(&self, row: usize, node: u16) -> Result<Scalar<'_>, Code> {
        let fault = self.fault(row);
        if fault.is_some() {
            return Err(fault);
        }
        if self.nulls.as_ref().is_some_and(|nulls| nulls[row]) {
            return Ok(Scalar::Null);
        }
        Ok(match &self.data {
            Data::Constant(value) => value.by_ref(),
            Data::Bools(values) => Scalar::Bool(values[row]),
            Data::Ints(values) => Scalar::Int(values[row]),
            Data::Doubles(values) => Scalar::Double(values[row]),
            Data::Texts(strings) => Scalar::Text(text(strings.get(row)).into()),
            Data::Blobs(strings) => Scalar::Bytes(strings.get(row).into()),
            Data::Jsons(strings) => return json::scalar(text(strings.get(row))).map_err(|fault| Code::new(node, fault)),
            Data::Scalars(values) => values[row].by_ref(),
        })
    }

    /// A column of `kind`, with the rows that have no value; null is one only if `nullable`.
    pub fn into_column(self, kind: Kind, nullable: bool, rows: usize, node: u16) -> (Column, Vec<(u32, Code)>) {
        let mut out = ColumnBuilder::new(kind.column(), rows);
        let mut faults = Vec::new();
        let mut buffer = Vec::new();
        for row in 0..rows {
            let value = self
                .at(row, node)
                .and_then(|value| append(&mut out, kind, nullable, value, &mut buffer).map_err(|fault| Code::new(node, fault)));
            if let Err(code) = value {
                out.null();
                faults.push((row as u32, code));
            }
        }
        (out.finish(), faults)
    }
}

/// Text of a column: checked to be UTF-8 before it came in.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn append(out: &mut ColumnBuilder, kind: Kind, nullable: bool, value: Scalar<'_>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
    match (kind, value) {
        (_, Scalar::Null) if nullable => out.null(),
        (_, Scalar::Null) => return Err(Fault::Null),
        (Kind::Bool, Scalar::Bool(value)) => out.bool(value),
        (Kind::Int, Scalar::Int(value)) => out.int(value),
        (Kind::Double, Scalar::Double(value)) if value.is_finite() => out.float(value),
        (Kind::Double, Scalar::Double(_)) => return Err(Fault::NotFinite),
        (Kind::Text, Scalar::Text(text)) => out.bytes(text.as_bytes()),
        (Kind::Bytes, Scalar::Bytes(bytes)) => out.bytes(&bytes),
        (Kind::Null | Kind::List | Kind::Map | Kind::Dyn, value) => {
            buffer.clear();
            json::write(&value, buffer)?;
            out.bytes(buffer);
        }
        _ => return Err(Fault::WrongType),
    }
    Ok(())
}

/// Builds a vector of a kind row by row.
pub struct Builder {
    data: Data<'static>,
    nulls: Option<Vec<bool>>,
    faults: Option<Vec<Code>>,
    rows: usize,
    capacity: usize,
    node: u16,
}

impl Builder {
    pub fn new(kind: Kind, rows: usize, node: u16) -> Self {
        let data = match kind {
            Kind::Bool => Data::Bools(Vec::with_capacity(rows)),
            Kind::Int => Data::Ints(Vec::with_capacity(rows).into()),
            Kind::Double => Data::Doubles(Vec::with_capacity(rows).into()),
            Kind::Text => Data::Texts(Cow::Owned(Strings::with_capacity(rows, 0))),
            Kind::Bytes => Data::Blobs(Cow::Owned(Strings::with_capacity(rows, 0))),
            Kind::Null | Kind::List | Kind::Map | Kind::Dyn => Data::Scalars(Vec::with_capacity(rows)),
        };
        Self { data, nulls: None, faults: None, rows: 0, capacity: rows, node }
    }

    pub fn push(&mut self, value: Result<Scalar<'_>, Code>) {
        match (&mut self.data, value) {
            (Data::Scalars(values), Ok(value)) => values.push(value.into_owned()),
            (Data::Bools(values), Ok(Scalar::Bool(value))) => values.push(value),
            (Data::Ints(values), Ok(Scalar::Int(value))) => values.to_mut().push(value),
            (Data::Doubles(values), Ok(Scalar::Double(value))) => values.to_mut().push(value),
            (Data::Texts(strings), Ok(Scalar::Text(text))) => strings.to_mut().push(text.as_bytes()),
            (Data::Blobs(strings), Ok(Scalar::Bytes(bytes))) => strings.to_mut().push(&bytes),
            (_, value) => {
                self.skip();
                match value {
                    Ok(Scalar::Null) => self.nulls.get_or_insert_with(|| vec![false; self.capacity])[self.rows] = true,
                    Ok(_) => self.mark(Code::new(self.node, Fault::WrongType)),
                    Err(code) => self.mark(code),
                }
            }
        }
        self.rows += 1;
    }

    fn mark(&mut self, code: Code) {
        self.faults.get_or_insert_with(|| vec![Code::NONE; self.capacity])[self.rows] = code;
    }

    /// Fills the slot of a row without a value.
    fn skip(&mut self) {
        match &mut self.data {
            Data::Bools(values) => values.push(false),
            Data::Ints(values) => values.to_mut().push(0),
            Data::Doubles(values) => values.to_mut().push(0.0),
            Data::Texts(strings) | Data::Blobs(strings) => strings.to_mut().close(),
            Data::Scalars(values) => values.push(Scalar::Null),
            Data::Constant(_) | Data::Jsons(_) => {}
        }
    }

    pub fn finish(self) -> Vector<'static> {
        Vector { data: self.data, nulls: self.nulls, faults: self.faults }
    }
}
