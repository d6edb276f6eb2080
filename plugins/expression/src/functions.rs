//! The functions that expressions may call, and their types.

use crate::check::{Checked, Checker};
use crate::kind::Kind;
use crate::node::Op;
use crate::scalar::TextTest;
use crate::words::nearest;
use cel::common::ast::{CallExpr, IdedExpr};

/// A member function on text: names, types of the arguments of which so many at least are given, type of the result.
const ON_TEXT: &[(&str, &[Kind], usize, Kind)] = &[
    ("startsWith", &[Kind::Text], 1, Kind::Bool),
    ("endsWith", &[Kind::Text], 1, Kind::Bool),
    ("contains", &[Kind::Text], 1, Kind::Bool),
    ("charAt", &[Kind::Int], 1, Kind::Text),
    ("indexOf", &[Kind::Text, Kind::Int], 1, Kind::Int),
    ("lastIndexOf", &[Kind::Text, Kind::Int], 1, Kind::Int),
    ("lowerAscii", &[], 0, Kind::Text),
    ("upperAscii", &[], 0, Kind::Text),
    ("trim", &[], 0, Kind::Text),
    ("reverse", &[], 0, Kind::Text),
    ("replace", &[Kind::Text, Kind::Text, Kind::Int], 2, Kind::Text),
    ("split", &[Kind::Text, Kind::Int], 1, Kind::List),
    ("substring", &[Kind::Int, Kind::Int], 1, Kind::Text),
];

const OTHERS: &[&str] =
    &["size", "join", "has", "int", "double", "string", "bool", "bytes", "dyn", "all", "exists", "exists_one", "map", "filter"];

/// Checks a call of a function.
pub fn check(checker: &mut Checker<'_, '_>, at: &IdedExpr, call: &CallExpr) -> Checked {
    match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
        ("size", None, [value]) | ("size", Some(value), []) => {
            let node = checker.node(value)?;
            match node.kind {
                Kind::Text | Kind::Bytes | Kind::Dyn => checker.made(at, Kind::Int, false, Op::Size(node.into())),
                Kind::List | Kind::Map => checker.by_row(at, Kind::Int),
                kind => Err(checker.problem(value, format!("{} has no size", kind.name()), None)),
            }
        }
        ("int", None, [value]) => conversion(checker, at, value, Kind::Int, &[Kind::Int, Kind::Double, Kind::Text]),
        ("double", None, [value]) => conversion(checker, at, value, Kind::Double, &[Kind::Int, Kind::Double, Kind::Text]),
        ("string", None, [value]) => {
            conversion(checker, at, value, Kind::Text, &[Kind::Int, Kind::Double, Kind::Text, Kind::Bool, Kind::Bytes])
        }
        ("bool", None, [value]) => conversion(checker, at, value, Kind::Bool, &[Kind::Bool, Kind::Text]),
        ("bytes", None, [value]) => {
            let node = checker.node(value)?;
            match node.kind {
                Kind::Text | Kind::Bytes | Kind::Dyn => checker.by_row(at, Kind::Bytes),
                kind => Err(checker.problem(value, format!("`bytes` does not convert {}", kind.name()), None)),
            }
        }
        ("dyn", None, [value]) => {
            checker.node(value)?;
            checker.by_row(at, Kind::Dyn)
        }
        ("join", Some(list), arguments) if arguments.len() <= 1 => {
            let list = checker.wanted(list, Kind::List, "`join`");
            for argument in arguments {
                checker.wanted(argument, Kind::Text, "`join`")?;
            }
            list?;
            checker.by_row(at, Kind::Text)
        }
        (name, Some(text), arguments) => match ON_TEXT.iter().find(|(known, ..)| *known == name) {
            Some((_, kinds, least, result)) => on_text(checker, at, call, text, (kinds, *least, *result)),
            None => unknown(checker, at, name, arguments.len()),
        },
        (name, None, arguments) => unknown(checker, at, name, arguments.len()),
    }
}

fn on_text(
    checker: &mut Checker<'_, '_>,
    at: &IdedExpr,
    call: &CallExpr,
    text: &IdedExpr,
    (kinds, least, result): (&[Kind], usize, Kind),
) -> Checked {
    let name = format!("`{}`", call.func_name);
    let text = checker.wanted(text, Kind::Text, &name);
    if call.args.len() < least || call.args.len() > kinds.len() {
        let wanted = if least == kinds.len() { least.to_string() } else { format!("{least} to {}", kinds.len()) };
        return Err(checker.problem(at, format!("{name} takes {wanted} arguments, here are {}", call.args.len()), None));
    }
    let mut arguments = Vec::new();
    for (argument, kind) in call.args.iter().zip(kinds) {
        arguments.push(checker.wanted(argument, *kind, &name));
    }
    let text = text?;
    let mut arguments = arguments.into_iter().collect::<Result<Vec<_>, _>>()?;
    let test = match call.func_name.as_str() {
        "startsWith" => TextTest::StartsWith,
        "endsWith" => TextTest::EndsWith,
        "contains" => TextTest::Contains,
        _ => return checker.by_row(at, result),
    };
    match arguments.pop() {
        Some(pattern) => checker.made(at, Kind::Bool, false, Op::TextTest(test, text.into(), pattern.into())),
        None => checker.by_row(at, result),
    }
}

fn conversion(checker: &mut Checker<'_, '_>, at: &IdedExpr, value: &IdedExpr, to: Kind, from: &[Kind]) -> Checked {
    let node = checker.node(value)?;
    if node.kind != Kind::Dyn && !from.contains(&node.kind) {
        return Err(checker.problem(value, format!("{} cannot be converted to {}", node.kind.name(), to.name()), None));
    }
    checker.made(at, to, false, Op::Convert(to, node.into()))
}

fn unknown(checker: &mut Checker<'_, '_>, at: &IdedExpr, name: &str, arguments: usize) -> Checked {
    let known = || ON_TEXT.iter().map(|(name, ..)| *name).chain(OTHERS.iter().copied());
    if known().any(|known| known == name) {
        return Err(checker.problem(at, format!("`{name}` is not called like this, with {arguments} arguments"), None));
    }
    let proposal = match name {
        "matches" => Some("there are no regular expressions here; `startsWith`, `endsWith`, `contains` and `indexOf` are".to_owned()),
        "timestamp" | "duration" => Some("times are ints, in milliseconds since 1970".to_owned()),
        "uint" => Some("`int`".to_owned()),
        _ => nearest(name, known()).map(|near| format!("did you mean `{near}`?")),
    };
    Err(checker.problem(at, format!("there is no function `{name}`"), proposal))
}
