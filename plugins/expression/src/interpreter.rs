//! What lies outside the common subset: row by row through the interpreter of the `cel` crate.

use crate::fault::{Code, Fault};
use crate::json;
use crate::kind::Kind;
use crate::node::Slots;
use crate::scalar::Scalar;
use crate::vector::{Builder, Vector};
use cel::common::ast::IdedExpr;
use cel::{Context, Env, ExecutionError, Value};
use std::sync::Arc;

/// An expression in which every field is the variable of its slot.
pub struct RowExpression {
    pub expression: IdedExpr,
    /// The slots that occur in it.
    pub slots: Vec<usize>,
    pub env: Arc<Env>,
}

/// A variable's name; no identifier of a user starts with `@`.
pub fn variable(slot: usize) -> String {
    format!("@{slot}")
}

/// The functions that expressions may call: CEL's own and its strings extension.
pub fn environment() -> Arc<Env> {
    let mut env = Env::stdlib();
    // Only a name that is taken already is an error, and the standard environment has none of these.
    let _ = env.add_extension(cel::extensions::strings);
    Arc::new(env)
}

impl RowExpression {
    pub fn eval(&self, slots: &dyn Slots, kind: Kind, node: u16) -> Vector<'static> {
        let rows = slots.rows();
        let fields: Vec<(String, Vector<'_>)> = self.slots.iter().map(|slot| (variable(*slot), slots.vector(*slot))).collect();
        let mut context = Context::with_env(self.env.clone());
        let mut out = Builder::new(kind, rows, node);
        for row in 0..rows {
            out.push(self.row(&fields, row, &mut context, node));
        }
        out.finish()
    }

    fn row(&self, fields: &[(String, Vector<'_>)], row: usize, context: &mut Context<'_, '_>, node: u16) -> Result<Scalar<'static>, Code> {
        let here = |fault| Code::new(node, fault);
        for (name, field) in fields {
            let value = json::to_cel(field.at(row, node)?).map_err(here)?;
            context.add_variable_from_value(name.as_str(), value);
        }
        let value = Value::resolve(&self.expression, context).map_err(|error| here(fault(&error)))?;
        json::from_cel(value).map_err(here)
    }
}

fn fault(error: &ExecutionError) -> Fault {
    match error {
        ExecutionError::Overflow(..) => Fault::Overflow,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => Fault::DivisionByZero,
        ExecutionError::NoSuchKey(_) => Fault::MissingKey,
        ExecutionError::IndexOutOfBounds(_) => Fault::OutOfBounds,
        ExecutionError::ValuesNotComparable(..) => Fault::NotOrdered,
        ExecutionError::FunctionError { .. } => Fault::Conversion,
        _ => Fault::WrongType,
    }
}
