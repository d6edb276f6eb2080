//! Expressions over fields of records: CEL, checked against a schema, evaluated a column at a time.
//!
//! [`Scope`] says what names mean and collects what is read; [`Expression::compile`] checks a text in it; [`Expression::eval`] yields a column.
//! The common subset (comparison, logic, arithmetic, `in`, `has`, `size`, text tests, `? :`, conversions) runs over columns, the rest goes row by
//! row through the interpreter of the `cel` crate. Both give the same results: the tests of `differential.rs` hold them together.

mod check;
mod convert;
#[cfg(test)]
mod differential;
mod fast;
mod fault;
mod functions;
mod interpreter;
mod json;
mod kind;
mod node;
mod ordered;
mod scalar;
mod scope;
mod source;
#[cfg(test)]
mod tests;
mod vector;
mod words;

pub use check::Problem;
pub use kind::Kind;
pub use ordered::{Ordered, pointer};
pub use scope::{Scope, Unresolved};
pub use words::nearest;

use fault::Code;
use millstream_guest::column::{Column, Type};
use millstream_guest::describe::Mistake;
use node::{Node, Slots};
use scalar::Scalar;
use scope::{Origin, Slot};
use source::{Source, Span};
use vector::{Data, Vector};

/// Of an expression in a reason, characters: a batch may be full of them.
const LONGEST_QUOTE: usize = 80;

/// A checked expression.
pub struct Expression {
    node: Node,
    slots: Vec<Slot>,
    spans: Vec<Span>,
    text: String,
}

/// The columns that expressions of a [`Scope`] look at.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    pub rows: usize,
    /// The fields of a batch, in the order of [`Scope::reads`].
    pub fields: &'a [Column],
    /// The columns of the scope's table, in the order of its schema; empty without a table.
    pub table: &'a [Column],
}

/// What an expression yields.
#[derive(Debug)]
pub struct Evaluated {
    /// Of the expression's type; null where there is no value.
    pub column: Column,
    pub errors: Vec<RowError>,
}

/// Rows for which a condition holds.
#[derive(Debug)]
pub struct Selected {
    /// Strictly increasing.
    pub rows: Vec<u32>,
    pub errors: Vec<RowError>,
}

/// A row for which an expression has no value. The reason quotes the expression, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub row: u32,
    pub reason: String,
}

impl Expression {
    /// Checks a text. What it reads is added to the scope, its batches must have all that the scope reads in the end.
    pub fn compile(text: &str, scope: &mut Scope<'_>) -> Result<Self, Vec<Problem>> {
        let (source, expression) = Source::parse(text).map_err(|problems| {
            let problem = |(span, message): (Span, String)| Problem { span, proposal: proposal_for(&message, text), message };
            problems.into_iter().map(problem).collect::<Vec<_>>()
        })?;
        let (node, spans) = check::Checker::new(scope, &source).check(&expression)?;
        Ok(Self { node, slots: scope.slots().to_vec(), spans, text: text.to_owned() })
    }

    /// The same, with mistakes at `at`, a JSON pointer into the configuration.
    pub fn compile_at(at: &str, text: &str, scope: &mut Scope<'_>) -> Result<Self, Vec<Mistake>> {
        Self::compile(text, scope).map_err(|problems| {
            let mistake = |problem: Problem| Mistake {
                at: at.to_owned(),
                span: Some(problem.span),
                message: problem.message,
                proposal: problem.proposal,
            };
            problems.into_iter().map(mistake).collect()
        })
    }

    /// A condition: of type boolean, or known row by row only.
    pub fn condition_at(at: &str, text: &str, scope: &mut Scope<'_>) -> Result<Self, Vec<Mistake>> {
        let condition = Self::compile_at(at, text, scope)?;
        if condition.node.kind.fits(Kind::Bool) {
            return Ok(condition);
        }
        Err(vec![Mistake {
            at: at.to_owned(),
            span: Some((0, text.len())),
            message: format!("a condition must be boolean, this is {}", condition.node.kind.name()),
            proposal: Some("compare it with `==`, `!=`, `<` or the like".to_owned()),
        }])
    }

    /// Type of the result, and whether it can be null.
    pub fn kind(&self) -> (Type, bool) {
        (self.node.kind.column(), self.node.nullable)
    }

    /// What it yields, in CEL's own distinctions.
    pub fn cel_kind(&self) -> Kind {
        self.node.kind
    }

    /// The places in [`Scope::reads`] of the fields that it looks at.
    pub fn reads(&self) -> Vec<usize> {
        let mut used = Vec::new();
        self.node.slots(&mut used);
        let origins = used.iter().filter_map(|slot| self.slots.get(*slot));
        let mut reads: Vec<usize> = origins
            .filter_map(|slot| match slot.origin {
                Origin::Input(read) => Some(read),
                Origin::Table(_) => None,
            })
            .collect();
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    pub fn eval(&self, columns: Columns<'_>) -> Evaluated {
        let bound = Bound { slots: &self.slots, columns };
        let (column, faults) = self.node.eval(&bound).into_column(self.node.kind, self.node.nullable, columns.rows, self.node.id);
        Evaluated { column, errors: self.errors(faults) }
    }

    /// The rows for which a condition is true.
    pub fn select(&self, columns: Columns<'_>) -> Selected {
        let bound = Bound { slots: &self.slots, columns };
        let vector = self.node.eval(&bound);
        let mut rows = vec![0; columns.rows];
        let mut count = 0;
        let mut faults = Vec::new();
        match &vector {
            Vector { data: Data::Bools(values), nulls: None, faults: None } => {
                // Without a branch, since which rows pass is not predictable.
                for (row, (value, _)) in values.iter().zip(0..columns.rows).enumerate() {
                    rows[count] = row as u32;
                    count += usize::from(*value);
                }
            }
            vector => {
                for row in 0..columns.rows {
                    let truth =
                        vector.at(row, self.node.id).and_then(|value| value.truth().map_err(|fault| Code::new(self.node.id, fault)));
                    match truth {
                        Ok(value) => {
                            rows[count] = row as u32;
                            count += usize::from(value);
                        }
                        Err(code) => faults.push((row as u32, code)),
                    }
                }
            }
        }
        rows.truncate(count);
        Selected { rows, errors: self.errors(faults) }
    }

    fn errors(&self, faults: Vec<(u32, Code)>) -> Vec<RowError> {
        let error = |(row, code): (u32, Code)| {
            let (start, end) = self.spans.get(code.node()).copied().unwrap_or_default();
            let part = self.text.get(start..end).unwrap_or_default();
            let why = code.fault().map_or("no value", fault::Fault::message);
            let reason = match part.char_indices().nth(LONGEST_QUOTE) {
                Some((end, _)) => format!("`{}...`: {why}", &part[..end]),
                None => format!("`{part}`: {why}"),
            };
            RowError { row, reason }
        };
        faults.into_iter().map(error).collect()
    }
}

/// Slots of an expression, bound to a batch.
struct Bound<'a> {
    slots: &'a [Slot],
    columns: Columns<'a>,
}

impl Slots for Bound<'_> {
    fn rows(&self) -> usize {
        self.columns.rows
    }

    fn vector(&self, slot: usize) -> Vector<'_> {
        let Some(Slot { origin, member }) = self.slots.get(slot) else { return Vector::constant(Scalar::Null) };
        let column = match origin {
            Origin::Input(place) => self.columns.fields.get(*place),
            Origin::Table(place) => self.columns.table.get(*place),
        };
        let Some(column) = column else { return Vector::constant(Scalar::Null) };
        let whole = Vector::of_column(column, self.columns.rows);
        if member.is_empty() {
            return whole;
        }
        let mut out = vector::Builder::new(Kind::Dyn, self.columns.rows, 0);
        for row in 0..self.columns.rows {
            out.push(match column.cell(row) {
                millstream_guest::column::Cell::Json(text) => json::member(text, member).map_err(|fault| Code::new(0, fault)),
                _ => Ok(Scalar::Null),
            });
        }
        out.finish()
    }
}

/// Hints for what the parser refuses.
fn proposal_for(message: &str, text: &str) -> Option<String> {
    if message.contains("has") && message.contains("macro") {
        return Some("`has` asks for a member: `has(a.b)`; for a field write `field != null`".to_owned());
    }
    let single = |mark: char| text.contains(mark);
    if message.contains("token recognition") && single('=') {
        return Some("equality is `==`".to_owned());
    }
    None
}
