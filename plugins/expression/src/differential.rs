//! Random expressions over random rows: the columns and the interpreter must agree, value for value and error for error.

use crate::{Columns, Expression, Problem, Scope, check, source};
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::describe::{FieldType, Schema};
use millstream_guest::field::Field;

/// xorshift64*: enough for tests, and no dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const FIELDS: &[(&str, Type)] = &[
    ("s", Type::Text),
    ("t.u", Type::Text),
    ("i", Type::Int),
    ("j", Type::Int),
    ("d", Type::Float),
    ("b", Type::Boolean),
    ("c", Type::Boolean),
    ("y", Type::Bytes),
    ("x", Type::Json),
    ("$key", Type::Text),
];

fn schema() -> Schema {
    let field = |(path, kind): &(&str, Type)| FieldType { path: Field::parse(path).unwrap(), kind: *kind, nullable: true };
    Schema { fields: FIELDS.iter().map(field).collect(), open: false }
}

fn column(kind: Type, rows: usize, random: &mut Random) -> Column {
    let mut out = ColumnBuilder::new(kind, rows);
    let nulls = random.below(3) > 0;
    for _ in 0..rows {
        if nulls && random.below(4) == 0 {
            out.null();
            continue;
        }
        match kind {
            Type::Boolean => out.bool(random.below(2) == 0),
            Type::Int => out.int([0, 1, 2, 3, -1, 7, i64::MAX, i64::MIN][random.below(8)]),
            Type::Float => out.float([0.0, 1.0, 1.5, -2.0, 3.0, 1e300, 9.3e18, -0.0][random.below(8)]),
            Type::Text => out.bytes(random.one(&["", "a", "ab", "b", "7", "iOS-test", "äö", "true", "1.5"]).as_bytes()),
            Type::Bytes => out.bytes([&b""[..], b"a", b"ab", b"\xff"][random.below(4)]),
            Type::Json => out.bytes(
                random
                    .one(&[
                        "1",
                        "2.0",
                        "-3",
                        "\"a\"",
                        "\"a\\u0062\"",
                        "true",
                        "[1,2,\"a\"]",
                        "{\"m\":1,\"n\":[2]}",
                        "{\"m\":{\"n\":3}}",
                        "1e3",
                        "[]",
                    ])
                    .as_bytes(),
            ),
        }
    }
    out.finish()
}

fn boolean(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return random.one(&["b", "c", "true", "false", "x"]).to_owned();
    }
    let next = depth - 1;
    match random.below(14) {
        0 | 1 => format!("({} && {})", boolean(random, next), boolean(random, next)),
        2 | 3 => format!("({} || {})", boolean(random, next), boolean(random, next)),
        4 => format!("!{}", boolean(random, next)),
        5 => format!("({} {} {})", number(random, next), random.one(&["==", "!=", "<", "<=", ">", ">="]), number(random, next)),
        6 => format!("({} {} {})", text(random, next), random.one(&["==", "!=", "<", ">="]), text(random, next)),
        7 => format!("({} {} {})", any(random, next), random.one(&["==", "!="]), random.one(&["null", "x", "x.m"])),
        8 => format!("{}.{}({})", text(random, next), random.one(&["startsWith", "endsWith", "contains"]), text(random, 0)),
        9 => format!("({} in [{}, {}])", text(random, next), random.one(&["'a'", "''", "null"]), random.one(&["'ab'", "'äö'", "s"])),
        10 => format!("({} in {})", number(random, next), random.one(&["[1, 2, 1.5]", "[1, 2]", "[null, 3]", "[]"])),
        11 => random
            .one(&["has(t.u)", "has(x.m)", "has(x.m.n)", "x.exists(e, e == 1)", "x.all(e, e != 'a')", "'a' in x", "(y < b'b')"])
            .to_owned(),
        12 => format!("({} ? {} : {})", boolean(random, next), boolean(random, next), boolean(random, next)),
        _ => format!("bool({})", text(random, next)),
    }
}

fn int(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return random.one(&["i", "j", "1", "0", "-2", "x", "9223372036854775807"]).to_owned();
    }
    let next = depth - 1;
    match random.below(6) {
        0 | 1 => format!("({} {} {})", int(random, next), random.one(&["+", "-", "*", "/", "%"]), int(random, next)),
        2 => format!("(-{})", int(random, next)),
        3 => format!("size({})", random.one(&["s", "t.u", "x", "y", "x.n", "[i, j]"])),
        4 => format!("int({})", any(random, next)),
        _ => format!("({} ? {} : {})", boolean(random, next), int(random, next), int(random, next)),
    }
}

fn double(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return random.one(&["d", "1.5", "0.0", "x"]).to_owned();
    }
    let next = depth - 1;
    match random.below(4) {
        0 | 1 => format!("({} {} {})", double(random, next), random.one(&["+", "-", "*", "/"]), double(random, next)),
        2 => format!("double({})", any(random, next)),
        _ => format!("({} ? {} : {})", boolean(random, next), double(random, next), double(random, next)),
    }
}

fn text(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return random.one(&["s", "t.u", "'a'", "''", "'äö'", "x", "$key"]).to_owned();
    }
    let next = depth - 1;
    match random.below(5) {
        0 | 1 => format!("({} + {})", text(random, next), text(random, next)),
        2 => format!("string({})", any(random, next)),
        3 => format!("{}.{}", text(random, next), random.one(&["upperAscii()", "trim()", "substring(1)", "replace('a', 'b')"])),
        _ => format!("({} ? {} : {})", boolean(random, next), text(random, next), text(random, next)),
    }
}

fn number(random: &mut Random, depth: usize) -> String {
    if random.below(2) == 0 { int(random, depth) } else { double(random, depth) }
}

fn any(random: &mut Random, depth: usize) -> String {
    match random.below(6) {
        0 => boolean(random, depth),
        1 => int(random, depth),
        2 => double(random, depth),
        3 => text(random, depth),
        4 => format!("({} ? {} : {})", boolean(random, 0), int(random, 0), text(random, 0)),
        _ => random.one(&["x", "x.m", "[i, 1]", "{'a': j}", "null", "y"]).to_owned(),
    }
}

/// The whole expression through the interpreter.
fn interpreted(text: &str, scope: &mut Scope<'_>) -> Result<Expression, Vec<Problem>> {
    let (source, parsed) = source::Source::parse(text).unwrap();
    let (node, _) = check::Checker::new(scope, &source).check(&parsed)?;
    let (mut whole, spans) = check::Checker::new(scope, &source).whole(&parsed, node.kind)?;
    whole.nullable = node.nullable;
    Ok(Expression { node: whole, slots: scope.slots().to_vec(), spans, text: text.to_owned() })
}

/// Doubles by their bits, so that -0.0 and 0.0 differ; JSON by its text.
fn printed(cell: Cell<'_>) -> String {
    match cell {
        Cell::Float(value) => format!("float {:x}", value.to_bits()),
        cell => format!("{cell:?}"),
    }
}

#[test]
fn columns_and_interpreter_agree() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0001);
    println!("SEED={seed}");
    let mut random = Random(seed);
    let schema = schema();
    let (mut compared, mut errors) = (0, 0);
    for _ in 0..8000 {
        let depth = random.below(4);
        let text = if random.below(2) == 0 { boolean(&mut random, depth) } else { any(&mut random, depth) };
        let mut scope = Scope::new(&schema);
        let Ok(columnar) = Expression::compile(&text, &mut scope) else { continue };
        let interpreted = interpreted(&text, &mut scope).map_err(|problems| format!("{text}: {problems:?}")).unwrap();
        let rows = [1, 7, 20][random.below(3)];
        let fields: Vec<Column> = scope.reads().iter().map(|read| column(read.kind, rows, &mut random)).collect();
        let columns = Columns { rows, fields: &fields, table: &[] };
        let (left, right) = (columnar.eval(columns), interpreted.eval(columns));
        for row in 0..rows {
            let inputs: Vec<_> = fields.iter().map(|field| field.cell(row)).collect();
            let failed = |errors: &[crate::RowError]| errors.iter().find(|error| error.row == row as u32).map(|error| error.reason.clone());
            let (a, b) = (failed(&left.errors), failed(&right.errors));
            assert_eq!(a.is_some(), b.is_some(), "{text}\n  {inputs:?}\n  columns {a:?}, interpreter {b:?}");
            assert_eq!(printed(left.column.cell(row)), printed(right.column.cell(row)), "{text}\n  {inputs:?}");
            compared += 1;
            errors += usize::from(a.is_some());
        }
    }
    println!("{compared} values, {errors} of them errors");
    assert!(
        compared > 10_000 && errors > 1000 && compared > 2 * errors,
        "{compared} values, {errors} errors: the expressions are too one-sided"
    );
}

/// Damaged expressions end in mistakes whose spans lie in the text, never in a panic.
#[test]
fn damaged_texts_are_mistakes() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0002);
    println!("SEED={seed}");
    let mut random = Random(seed);
    let schema = schema();
    let pieces = [
        "$", "`", "\"", "'''", "r'", "\\", "ä", "🎉", "(", ")", "[", "]", "{", "}", "?", ":", ".", "..", "0x", "1e", "u", "//", "\n", "\0",
        "&&", "has(", "in", "-", "!",
    ];
    let mut refused = 0;
    for _ in 0..4000 {
        let depth = random.below(3);
        let mut text: Vec<char> = boolean(&mut random, depth).chars().collect();
        for _ in 0..=random.below(3) {
            let at = random.below(text.len() + 1);
            match random.below(3) {
                0 => text.truncate(at),
                1 => drop(text.splice(at..at, random.one(&pieces).chars()).collect::<Vec<_>>()),
                _ if at < text.len() => drop(text.remove(at)),
                _ => {}
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = Expression::compile(&text, &mut Scope::new(&schema)) {
            refused += 1;
            assert!(!problems.is_empty(), "{text:?}");
            for problem in problems {
                assert!(text.get(problem.span.0..problem.span.1).is_some(), "{text:?}: {problem:?}");
            }
        }
    }
    assert!(refused > 1000, "{refused} of 4000 were damaged enough");
}
