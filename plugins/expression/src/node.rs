//! The checked tree of an expression, and its evaluation column by column.

use crate::fault::{Code, Fault};
use crate::interpreter::RowExpression;
use crate::kind::Kind;
use crate::scalar::{self, Arithmetic, Order, Scalar, TextTest};
use crate::vector::{Builder, Data, Vector};
use crate::{convert, fast};

pub struct Node {
    pub kind: Kind,
    pub nullable: bool,
    /// Place in the expression's list of spans.
    pub id: u16,
    pub op: Op,
}

pub enum Op {
    Constant(Scalar<'static>),
    Slot(usize),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Equal {
        negate: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    Order(Order, Box<Node>, Box<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Scalar<'static>>),
    Size(Box<Node>),
    TextTest(TextTest, Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Convert(Kind, Box<Node>),
    /// Outside the common subset: row by row, by the interpreter.
    Row(Box<RowExpression>),
}

/// The fields of a batch by slot.
pub trait Slots {
    fn rows(&self) -> usize;
    fn vector(&self, slot: usize) -> Vector<'_>;
}

impl Node {
    pub fn eval<'a>(&'a self, slots: &'a dyn Slots) -> Vector<'a> {
        let rows = slots.rows();
        match &self.op {
            Op::Constant(value) => Vector::constant(value.by_ref()),
            Op::Slot(slot) => slots.vector(*slot),
            Op::Not(inner) => match inner.eval(slots) {
                Vector { data: Data::Bools(mut values), nulls: None, faults } => {
                    values.iter_mut().for_each(|value| *value = !*value);
                    Vector { data: Data::Bools(values), nulls: None, faults }
                }
                inner => self.each(rows, |row| Ok(Scalar::Bool(!self.truth(&inner, row)?))),
            },
            Op::Negate(inner) => self.unary(rows, &inner.eval(slots), scalar::negated),
            Op::Size(inner) => self.unary(rows, &inner.eval(slots), scalar::size),
            Op::Convert(kind, inner) => {
                let inner = inner.eval(slots);
                let fast = if *kind == Kind::Double { fast::widened(&inner) } else { None };
                fast.unwrap_or_else(|| self.unary(rows, &inner, |value| convert::to(*kind, value)))
            }
            Op::And(left, right) => self.logic(false, rows, &left.eval(slots), &right.eval(slots)),
            Op::Or(left, right) => self.logic(true, rows, &left.eval(slots), &right.eval(slots)),
            Op::Equal { negate, left, right } => self.equal(rows, *negate, &left.eval(slots), &right.eval(slots)),
            Op::Order(order, left, right) => self.order(rows, *order, &left.eval(slots), &right.eval(slots)),
            Op::Arithmetic(operation, left, right) => {
                let (left, right) = (left.eval(slots), right.eval(slots));
                fast::doubles(*operation, &left, &right, rows)
                    .unwrap_or_else(|| self.binary(rows, &left, &right, |left, right| scalar::arithmetic(*operation, left, right)))
            }
            Op::In(needle, list) => {
                let needle = needle.eval(slots);
                let found = |needle: &Scalar<'_>| list.iter().any(|member| scalar::equal(member, needle));
                match fast::is_one_of(&needle, list) {
                    Some(values) => Vector::bools(values),
                    None => self.unary(rows, &needle, |needle| Ok(Scalar::Bool(found(needle)))),
                }
            }
            Op::TextTest(test, text, pattern) => {
                let (text, pattern) = (text.eval(slots), pattern.eval(slots));
                if let Data::Constant(Scalar::Text(pattern)) = &pattern.data
                    && let Some(out) = fast::text_test(&text, pattern, *test, self.id)
                {
                    return out;
                }
                self.binary(rows, &text, &pattern, |text, pattern| scalar::text_test(*test, text, pattern).map(Scalar::Bool))
            }
            Op::If(condition, then, other) => {
                let (condition, then, other) = (condition.eval(slots), then.eval(slots), other.eval(slots));
                self.each(rows, |row| if self.truth(&condition, row)? { then.at(row, self.id) } else { other.at(row, self.id) })
            }
            Op::Row(expression) => expression.eval(slots, self.kind, self.id),
        }
    }

    /// The slots that it looks at.
    pub fn slots(&self, out: &mut Vec<usize>) {
        match &self.op {
            Op::Constant(_) => {}
            Op::Slot(slot) => out.push(*slot),
            Op::Not(inner) | Op::Negate(inner) | Op::Size(inner) | Op::Convert(_, inner) | Op::In(inner, _) => inner.slots(out),
            Op::And(left, right)
            | Op::Or(left, right)
            | Op::Equal { left, right, .. }
            | Op::Order(_, left, right)
            | Op::Arithmetic(_, left, right)
            | Op::TextTest(_, left, right) => [left, right].iter().for_each(|side| side.slots(out)),
            Op::If(condition, then, other) => [condition, then, other].iter().for_each(|part| part.slots(out)),
            Op::Row(expression) => out.extend(&expression.slots),
        }
    }

    fn code(&self, fault: Fault) -> Code {
        Code::new(self.id, fault)
    }

    fn truth(&self, vector: &Vector<'_>, row: usize) -> Result<bool, Code> {
        vector.at(row, self.id)?.truth().map_err(|fault| self.code(fault))
    }

    fn each<'v>(&self, rows: usize, value: impl Fn(usize) -> Result<Scalar<'v>, Code>) -> Vector<'static> {
        let mut out = Builder::new(self.kind, rows, self.id);
        for row in 0..rows {
            out.push(value(row));
        }
        out.finish()
    }

    fn unary(&self, rows: usize, inner: &Vector<'_>, apply: impl Fn(&Scalar<'_>) -> Result<Scalar<'static>, Fault>) -> Vector<'static> {
        self.each(rows, |row| apply(&inner.at(row, self.id)?).map_err(|fault| self.code(fault)))
    }

    fn binary(
        &self,
        rows: usize,
        left: &Vector<'_>,
        right: &Vector<'_>,
        apply: impl Fn(&Scalar<'_>, &Scalar<'_>) -> Result<Scalar<'static>, Fault>,
    ) -> Vector<'static> {
        self.each(rows, |row| apply(&left.at(row, self.id)?, &right.at(row, self.id)?).map_err(|fault| self.code(fault)))
    }

    fn equal(&self, rows: usize, negate: bool, left: &Vector<'_>, right: &Vector<'_>) -> Vector<'static> {
        let fast = match (&left.data, &right.data) {
            (_, Data::Constant(constant)) => fast::equal(left, constant, negate),
            (Data::Constant(constant), _) => fast::equal(right, constant, negate),
            _ => None,
        };
        match fast {
            Some(values) => Vector::bools(values),
            None => self.binary(rows, left, right, |left, right| Ok(Scalar::Bool(scalar::equal(left, right) != negate))),
        }
    }

    fn order(&self, rows: usize, order: Order, left: &Vector<'_>, right: &Vector<'_>) -> Vector<'static> {
        let fast = match (&left.data, &right.data) {
            (_, Data::Constant(constant)) => fast::order(left, constant, order, self.id),
            (Data::Constant(constant), _) => fast::order(right, constant, order.flipped(), self.id),
            _ => None,
        };
        fast.unwrap_or_else(|| self.binary(rows, left, right, |left, right| Ok(Scalar::Bool(order.holds(scalar::order(left, right)?)))))
    }

    /// `||` (`absorbing` true) and `&&` (false): a side with the absorbing value decides, whatever the other side is.
    fn logic(&self, absorbing: bool, rows: usize, left: &Vector<'_>, right: &Vector<'_>) -> Vector<'static> {
        if let (Vector { data: Data::Bools(a), nulls: None, faults: None }, Vector { data: Data::Bools(b), nulls: None, faults: None }) =
            (left, right)
        {
            let values = a.iter().zip(b);
            return Vector::bools(match absorbing {
                true => values.map(|(a, b)| *a | *b).collect(),
                false => values.map(|(a, b)| *a & *b).collect(),
            });
        }
        self.each(rows, |row| match (self.truth(left, row), self.truth(right, row)) {
            (Ok(value), _) | (_, Ok(value)) if value == absorbing => Ok(Scalar::Bool(absorbing)),
            (Ok(_), Ok(_)) => Ok(Scalar::Bool(!absorbing)),
            (Err(code), _) | (_, Err(code)) => Err(code),
        })
    }
}
