//! From CEL's tree to a checked one: names resolved, types known, every mistake with its place.

use crate::functions;
use crate::interpreter::{self, RowExpression};
use crate::kind::Kind;
use crate::node::{Node, Op};
use crate::scalar::{Arithmetic, Order, Scalar};
use crate::scope::{Resolved, Scope, Unresolved};
use crate::source::{Source, Span};
use cel::Env;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use std::sync::Arc;

/// Deeper trees would need more stack than a plugin has.
const DEEPEST: usize = 200;

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub span: Span,
    pub message: String,
    pub proposal: Option<String>,
}

pub(crate) struct Checker<'c, 'a> {
    scope: &'c mut Scope<'a>,
    source: &'c Source,
    /// Variables of the macros around.
    locals: Vec<String>,
    depth: usize,
    problems: Vec<Problem>,
    /// By node.
    spans: Vec<Span>,
    env: Option<Arc<Env>>,
}

/// A mistake was noted; the expression around it has no type.
pub(crate) struct Noted;
pub(crate) type Checked = Result<Node, Noted>;

impl<'c, 'a> Checker<'c, 'a> {
    pub fn new(scope: &'c mut Scope<'a>, source: &'c Source) -> Self {
        Self { scope, source, locals: Vec::new(), depth: 0, problems: Vec::new(), spans: Vec::new(), env: None }
    }

    /// The checked tree and the spans of its nodes.
    pub fn check(mut self, expression: &IdedExpr) -> Result<(Node, Vec<Span>), Vec<Problem>> {
        match self.node(expression) {
            Ok(node) if self.problems.is_empty() => Ok((node, self.spans)),
            _ => Err(self.problems),
        }
    }

    /// The whole expression for the interpreter: what the columns are held against.
    #[cfg(test)]
    pub fn whole(mut self, expression: &IdedExpr, kind: Kind) -> Result<(Node, Vec<Span>), Vec<Problem>> {
        match self.by_row(expression, kind) {
            Ok(node) => Ok((node, self.spans)),
            Err(Noted) => Err(self.problems),
        }
    }

    pub fn problem(&mut self, at: &IdedExpr, message: impl Into<String>, proposal: Option<String>) -> Noted {
        let span = self.source.span(at);
        self.problems.push(Problem { span, message: message.into(), proposal });
        Noted
    }

    pub fn made(&mut self, at: &IdedExpr, kind: Kind, nullable: bool, op: Op) -> Checked {
        let Ok(id) = u16::try_from(self.spans.len()) else { return Err(self.problem(at, "the expression is too long", None)) };
        self.spans.push(self.source.span(at));
        Ok(Node { kind, nullable, id, op })
    }

    pub fn node(&mut self, expression: &IdedExpr) -> Checked {
        self.depth += 1;
        if self.depth > DEEPEST {
            self.depth -= 1;
            return Err(self.problem(expression, "the expression is nested too deeply", None));
        }
        let node = self.inner(expression);
        self.depth -= 1;
        node
    }

    fn inner(&mut self, at: &IdedExpr) -> Checked {
        match self.reference(at) {
            Some(Ok(found)) => return self.made(at, found.kind, found.nullable, Op::Slot(found.slot)),
            Some(Err(unknown)) => return Err(self.problem(at, unknown.message, unknown.proposal)),
            None => {}
        }
        match &at.expr {
            Expr::Literal(value) => self.literal(at, value),
            // Only variables of macros are left.
            Expr::Ident(_) => self.by_row(at, Kind::Dyn),
            Expr::Select(select) if select.test => match self.tested(at) {
                Some(Ok(found)) => {
                    let slot = self.made(at, found.kind, found.nullable, Op::Slot(found.slot))?;
                    let null = self.made(at, Kind::Null, true, Op::Constant(Scalar::Null))?;
                    self.made(at, Kind::Bool, false, Op::Equal { negate: true, left: slot.into(), right: null.into() })
                }
                Some(Err(unknown)) => Err(self.problem(at, unknown.message, unknown.proposal)),
                None => {
                    self.node(&select.operand)?;
                    self.by_row(at, Kind::Bool)
                }
            },
            Expr::Select(select) => {
                let operand = self.node(&select.operand)?;
                match operand.kind {
                    Kind::Dyn | Kind::Map => self.by_row(at, Kind::Dyn),
                    kind => Err(self.problem(at, format!("{} has no member `{}`", kind.name(), select.field), None)),
                }
            }
            Expr::List(list) => {
                self.all(&list.elements)?;
                self.by_row(at, Kind::List)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let key = self.node(&entry.key)?;
                        if !key.kind.fits(Kind::Text) {
                            return Err(self.problem(&entry.key, "the keys of a map are texts here, as in JSON", None));
                        }
                        self.node(&entry.value)?;
                    }
                }
                self.by_row(at, Kind::Map)
            }
            Expr::Comprehension(comprehension) => self.comprehension(at, comprehension),
            Expr::Call(call) => self.call(at, call),
            Expr::Struct(_) => Err(self.problem(at, "messages cannot be built here", None)),
            Expr::Unspecified => Err(self.problem(at, "a part of the expression is missing", None)),
        }
    }

    pub fn all(&mut self, expressions: &[IdedExpr]) -> Result<Vec<Node>, Noted> {
        let nodes: Vec<Checked> = expressions.iter().map(|expression| self.node(expression)).collect();
        nodes.into_iter().collect()
    }

    /// The field that a name, a chain of names or `$headers["x"]` stands for; None = something else.
    fn reference(&mut self, expression: &IdedExpr) -> Option<Result<Resolved, Unresolved>> {
        let (root, names) = chain(expression)?;
        self.resolve(root, names)
    }

    /// The field of `has(field)`.
    fn tested(&mut self, expression: &IdedExpr) -> Option<Result<Resolved, Unresolved>> {
        let Expr::Select(select) = &expression.expr else { return None };
        let (root, mut names) = chain(&select.operand)?;
        names.push(select.field.clone());
        self.resolve(root, names)
    }

    fn resolve(&mut self, root: &IdedExpr, mut names: Vec<String>) -> Option<Result<Resolved, Unresolved>> {
        if self.source.is_pseudo(root.id) {
            let (start, end) = self.source.token(root.id)?;
            names[0] = self.source.text((start + 1, end)).to_owned();
            return Some(self.scope.pseudo(&names));
        }
        if names[0].starts_with('@') || self.locals.contains(&names[0]) {
            return None;
        }
        Some(self.scope.name(&names))
    }

    fn literal(&mut self, at: &IdedExpr, value: &LiteralValue) -> Checked {
        let (kind, value) = match value {
            LiteralValue::Boolean(value) => (Kind::Bool, Scalar::Bool(value.into_inner())),
            LiteralValue::Int(value) => (Kind::Int, Scalar::Int(value.into_inner())),
            LiteralValue::Double(value) => (Kind::Double, Scalar::Double(value.into_inner())),
            LiteralValue::String(text) => (Kind::Text, Scalar::Text(text.inner().to_owned().into())),
            LiteralValue::Bytes(bytes) => (Kind::Bytes, Scalar::Bytes(bytes.inner().to_vec().into())),
            LiteralValue::Null => (Kind::Null, Scalar::Null),
            LiteralValue::UInt(_) => {
                return Err(self.problem(at, "there are no unsigned numbers here", Some("leave out the `u`".to_owned())));
            }
        };
        self.made(at, kind, kind == Kind::Null, Op::Constant(value))
    }

    fn comprehension(&mut self, at: &IdedExpr, comprehension: &ComprehensionExpr) -> Checked {
        let range = self.node(&comprehension.iter_range)?;
        if !matches!(range.kind, Kind::Dyn | Kind::List | Kind::Map) {
            let message = format!("{} has no members to go through", range.kind.name());
            return Err(self.problem(&comprehension.iter_range, message, None));
        }
        let outer = self.locals.len();
        self.locals.push(comprehension.iter_var.clone());
        self.locals.extend(comprehension.iter_var2.clone());
        let step = self.node(&comprehension.loop_step);
        self.locals.truncate(outer);
        step?;
        let kind = match &comprehension.accu_init.expr {
            Expr::List(_) => Kind::List,
            _ => Kind::Bool,
        };
        self.by_row(at, kind)
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Checked {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (operators::LOGICAL_NOT, None, [inner]) => {
                let inner = self.wanted(inner, Kind::Bool, "`!`")?;
                self.made(at, Kind::Bool, false, Op::Not(inner.into()))
            }
            (operators::LOGICAL_AND, None, [left, right]) => {
                let (left, right) = self.both(left, right, Kind::Bool, "`&&`")?;
                self.made(at, Kind::Bool, false, Op::And(left.into(), right.into()))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                let (left, right) = self.both(left, right, Kind::Bool, "`||`")?;
                self.made(at, Kind::Bool, false, Op::Or(left.into(), right.into()))
            }
            (operators::NOT_STRICTLY_FALSE, None, [inner]) => {
                self.node(inner)?;
                self.by_row(at, Kind::Bool)
            }
            (operators::NEGATE, None, [inner]) => {
                let node = self.node(inner)?;
                match node.kind {
                    Kind::Int | Kind::Double | Kind::Dyn => self.made(at, node.kind, false, Op::Negate(node.into())),
                    kind => Err(self.problem(at, format!("`-` needs a number, this is {}", kind.name()), None)),
                }
            }
            (operators::EQUALS, None, [left, right]) => self.equality(at, false, left, right),
            (operators::NOT_EQUALS, None, [left, right]) => self.equality(at, true, left, right),
            (operators::LESS, None, [left, right]) => self.order(at, Order::Less, left, right),
            (operators::LESS_EQUALS, None, [left, right]) => self.order(at, Order::LessOrEqual, left, right),
            (operators::GREATER, None, [left, right]) => self.order(at, Order::Greater, left, right),
            (operators::GREATER_EQUALS, None, [left, right]) => self.order(at, Order::GreaterOrEqual, left, right),
            (operators::ADD, None, [left, right]) => self.arithmetic(at, Arithmetic::Add, left, right),
            (operators::SUBSTRACT, None, [left, right]) => self.arithmetic(at, Arithmetic::Subtract, left, right),
            (operators::MULTIPLY, None, [left, right]) => self.arithmetic(at, Arithmetic::Multiply, left, right),
            (operators::DIVIDE, None, [left, right]) => self.arithmetic(at, Arithmetic::Divide, left, right),
            (operators::MODULO, None, [left, right]) => self.arithmetic(at, Arithmetic::Remainder, left, right),
            (operators::IN, None, [needle, list]) => self.membership(at, needle, list),
            (operators::CONDITIONAL, None, [condition, then, other]) => self.conditional(at, condition, then, other),
            (operators::INDEX, None, [operand, index]) => {
                let (operand, index) = (self.node(operand), self.node(index));
                let operand = operand?;
                index?;
                match operand.kind {
                    Kind::Dyn | Kind::List | Kind::Map => self.by_row(at, Kind::Dyn),
                    kind => Err(self.problem(at, format!("{} has no members", kind.name()), None)),
                }
            }
            _ => functions::check(self, at, call),
        }
    }

    /// A node of a kind, or of one that is known row by row only.
    pub fn wanted(&mut self, expression: &IdedExpr, kind: Kind, by: &str) -> Checked {
        let node = self.node(expression)?;
        if node.kind.fits(kind) {
            return Ok(node);
        }
        let proposal = match (kind, node.kind) {
            (Kind::Bool, Kind::Null) => None,
            (Kind::Bool, found) => Some(format!("compare it: `{} == ...`, it is {}", self.text(expression), found.name())),
            (Kind::Text, Kind::Int | Kind::Double | Kind::Bool) => Some(format!("`string({})`", self.text(expression))),
            (Kind::Int, Kind::Double | Kind::Text) => Some(format!("`int({})`", self.text(expression))),
            _ => None,
        };
        Err(self.problem(expression, format!("{by} needs {}, this is {}", kind.name(), node.kind.name()), proposal))
    }

    fn both(&mut self, left: &IdedExpr, right: &IdedExpr, kind: Kind, by: &str) -> Result<(Node, Node), Noted> {
        let (left, right) = (self.wanted(left, kind, by), self.wanted(right, kind, by));
        Ok((left?, right?))
    }

    fn pair(&mut self, left: &IdedExpr, right: &IdedExpr) -> Result<(Node, Node), Noted> {
        let (left, right) = (self.node(left), self.node(right));
        Ok((left?, right?))
    }

    pub fn text(&self, expression: &IdedExpr) -> String {
        self.source.text(self.source.span(expression)).to_owned()
    }

    fn equality(&mut self, at: &IdedExpr, negate: bool, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let (a, b) = self.pair(left, right)?;
        let null = a.kind == Kind::Null || b.kind == Kind::Null;
        if !null && !comparable(a.kind, b.kind) {
            let proposal = self.conversion((left, &a), (right, &b));
            return Err(self.problem(at, format!("{} and {} are never equal", a.kind.name(), b.kind.name()), proposal));
        }
        self.made(at, Kind::Bool, false, Op::Equal { negate, left: a.into(), right: b.into() })
    }

    fn order(&mut self, at: &IdedExpr, order: Order, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let (a, b) = self.pair(left, right)?;
        for (side, node) in [(left, &a), (right, &b)] {
            if matches!(node.kind, Kind::Null | Kind::List | Kind::Map) {
                return Err(self.problem(side, format!("{} has no order", node.kind.name()), None));
            }
        }
        if !comparable(a.kind, b.kind) {
            let proposal = self.conversion((left, &a), (right, &b));
            return Err(self.problem(at, format!("{} and {} cannot be compared", a.kind.name(), b.kind.name()), proposal));
        }
        self.made(at, Kind::Bool, false, Op::Order(order, a.into(), b.into()))
    }

    fn arithmetic(&mut self, at: &IdedExpr, operation: Arithmetic, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let (a, b) = self.pair(left, right)?;
        let kind = if a.kind == Kind::Dyn { b.kind } else { a.kind };
        let allowed = match operation {
            Arithmetic::Add => {
                matches!(kind, Kind::Int | Kind::Double | Kind::Text | Kind::Bytes | Kind::List | Kind::Dyn)
            }
            Arithmetic::Remainder => matches!(kind, Kind::Int | Kind::Dyn),
            _ => matches!(kind, Kind::Int | Kind::Double | Kind::Dyn),
        };
        if !allowed || !a.kind.fits(b.kind) {
            let proposal = self.conversion((left, &a), (right, &b));
            return Err(self.problem(at, format!("this is not defined for {} and {}", a.kind.name(), b.kind.name()), proposal));
        }
        if kind == Kind::List {
            return self.by_row(at, kind);
        }
        self.made(at, kind, false, Op::Arithmetic(operation, a.into(), b.into()))
    }

    /// How two operands of different kinds come together.
    fn conversion(&self, (left, a): (&IdedExpr, &Node), (right, b): (&IdedExpr, &Node)) -> Option<String> {
        let convert = |expression: &IdedExpr, to: &str| Some(format!("`{to}({})`", self.text(expression)));
        match (a.kind, b.kind) {
            (Kind::Int, Kind::Double) => convert(left, "double"),
            (Kind::Double, Kind::Int) => convert(right, "double"),
            (Kind::Text, Kind::Int | Kind::Double | Kind::Bool) => convert(right, "string"),
            (Kind::Int | Kind::Double | Kind::Bool, Kind::Text) => convert(left, "string"),
            _ => None,
        }
    }

    fn membership(&mut self, at: &IdedExpr, needle: &IdedExpr, list: &IdedExpr) -> Checked {
        let (needle, members) = (self.node(needle), self.node(list));
        let (needle, members) = (needle?, members?);
        if !matches!(members.kind, Kind::Dyn | Kind::List | Kind::Map) {
            return Err(self.problem(list, format!("`in` needs a list, this is {}", members.kind.name()), None));
        }
        let Expr::List(elements) = &list.expr else { return self.by_row(at, Kind::Bool) };
        let mut constants = Vec::new();
        for element in &elements.elements {
            let node = self.node(element)?;
            if !comparable(node.kind, needle.kind) && node.kind != Kind::Null && needle.kind != Kind::Null {
                return Err(self.problem(element, format!("{} and {} are never equal", needle.kind.name(), node.kind.name()), None));
            }
            match node.op {
                Op::Constant(value) => constants.push(value),
                _ => return self.by_row(at, Kind::Bool),
            }
        }
        self.made(at, Kind::Bool, false, Op::In(needle.into(), constants))
    }

    fn conditional(&mut self, at: &IdedExpr, condition: &IdedExpr, then: &IdedExpr, other: &IdedExpr) -> Checked {
        let condition = self.wanted(condition, Kind::Bool, "the condition before `?`");
        let (then, other) = self.pair(then, other)?;
        let condition = condition?;
        let kind = match (then.kind, other.kind) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (a, b) if a == b => a,
            _ => Kind::Dyn,
        };
        let nullable = then.nullable || other.nullable;
        self.made(at, kind, nullable, Op::If(condition.into(), then.into(), other.into()))
    }

    /// For the interpreter; its parts were checked.
    pub fn by_row(&mut self, at: &IdedExpr, kind: Kind) -> Checked {
        let mut slots = Vec::new();
        let expression = self.rewritten(at, &mut slots);
        let env = self.env.get_or_insert_with(interpreter::environment).clone();
        let nullable = matches!(kind, Kind::Dyn | Kind::Null);
        self.made(at, kind, nullable, Op::Row(Box::new(RowExpression { expression, slots, env })))
    }

    /// The expression with the variables of slots for fields, and `field != null` for `has(field)`.
    fn rewritten(&mut self, at: &IdedExpr, slots: &mut Vec<usize>) -> IdedExpr {
        if let Some(Ok(found)) = self.reference(at) {
            return variable(at.id, found.slot, slots);
        }
        let ided = |expr| IdedExpr { id: at.id, expr };
        if matches!(&at.expr, Expr::Select(select) if select.test)
            && let Some(Ok(found)) = self.tested(at)
        {
            let null = ided(Expr::Literal(LiteralValue::Null));
            let args = vec![variable(at.id, found.slot, slots), null];
            return ided(Expr::Call(CallExpr { func_name: operators::NOT_EQUALS.to_owned(), target: None, args }));
        }
        let mut expression = at.clone();
        match &mut expression.expr {
            Expr::Call(call) => {
                if let Some(target) = &mut call.target {
                    **target = self.rewritten(target, slots);
                }
                call.args.iter_mut().for_each(|argument| *argument = self.rewritten(argument, slots));
            }
            Expr::Select(select) => *select.operand = self.rewritten(&select.operand, slots),
            Expr::List(list) => list.elements.iter_mut().for_each(|element| *element = self.rewritten(element, slots)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        entry.key = self.rewritten(&entry.key, slots);
                        entry.value = self.rewritten(&entry.value, slots);
                    }
                }
            }
            Expr::Comprehension(comprehension) => {
                comprehension.iter_range = self.rewritten(&comprehension.iter_range, slots);
                let outer = self.locals.len();
                self.locals.push(comprehension.iter_var.clone());
                self.locals.extend(comprehension.iter_var2.clone());
                comprehension.loop_step = self.rewritten(&comprehension.loop_step, slots);
                self.locals.truncate(outer);
            }
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
        }
        expression
    }
}

fn comparable(left: Kind, right: Kind) -> bool {
    left.fits(right) || (left.is_number() && right.is_number())
}

fn variable(id: u64, slot: usize, slots: &mut Vec<usize>) -> IdedExpr {
    if !slots.contains(&slot) {
        slots.push(slot);
    }
    IdedExpr { id, expr: Expr::Ident(interpreter::variable(slot)) }
}

/// The root and the names of `a.b.c` or `$headers["x"]`.
fn chain(expression: &IdedExpr) -> Option<(&IdedExpr, Vec<String>)> {
    match &expression.expr {
        Expr::Ident(name) => Some((expression, vec![name.clone()])),
        Expr::Select(select) if !select.test => {
            let (root, mut names) = chain(&select.operand)?;
            names.push(select.field.clone());
            Some((root, names))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match (call.args.as_slice(), &call.target) {
            ([operand, index], None) => match (&operand.expr, &index.expr) {
                (Expr::Ident(name), Expr::Literal(LiteralValue::String(header))) if name == "_headers" => {
                    Some((operand, vec![name.clone(), header.inner().to_owned()]))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
