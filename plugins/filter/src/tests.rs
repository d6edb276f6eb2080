use super::*;
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::describe::{FieldType, Schema};
use millstream_guest::field::Field;
use std::collections::BTreeMap;

fn setup(condition: &str) -> Setup<Config> {
    let field = |path: &str, kind, nullable| FieldType { path: Field::parse(path).unwrap(), kind, nullable };
    Setup {
        config: Config { condition: condition.to_owned() },
        input: Schema { fields: vec![field("stars", Type::Int, true), field("channel", Type::Text, true)], open: true },
        inputs: Vec::new(),
        tables: BTreeMap::new(),
    }
}

fn ints(values: &[Option<i64>]) -> Column {
    let mut out = ColumnBuilder::new(Type::Int, values.len());
    values.iter().for_each(|value| out.cell(value.map_or(Cell::Null, Cell::Int)));
    out.finish()
}

fn texts(kind: Type, values: &[Option<&str>]) -> Column {
    let mut out = ColumnBuilder::new(kind, values.len());
    values.iter().for_each(|value| out.cell(value.map_or(Cell::Null, Cell::Text)));
    out.finish()
}

fn run(condition: &str, rows: usize, fields: Vec<Column>) -> Verdict {
    Filter::init(setup(condition)).unwrap().process(Batch { rows, fields, ..Batch::default() }).unwrap()
}

#[test]
fn rows_that_hold_are_selected() {
    let stars = ints(&[Some(1), Some(5), Some(2)]);
    assert_eq!(run("stars < 3", 3, vec![stars.clone()]), Verdict { outcome: Outcome::Select(vec![0, 2]), rejects: vec![] });
    assert_eq!(run("stars < 9", 3, vec![stars]), Verdict { outcome: Outcome::All, rejects: vec![] });
}

#[test]
fn null_is_equal_to_nothing_else_but_has_no_order() {
    let channel = texts(Type::Text, &[Some("web"), None, Some("iOS-test")]);
    assert_eq!(run(r#"channel != "iOS-test""#, 3, vec![channel]).outcome, Outcome::Select(vec![0, 1]));
    let verdict = run("stars < 3", 3, vec![ints(&[Some(1), None, Some(5)])]);
    assert_eq!(verdict.outcome, Outcome::Select(vec![0]));
    assert_eq!(verdict.rejects.len(), 1);
    assert_eq!(verdict.rejects[0].row, 1);
    assert!(verdict.rejects[0].reason.starts_with("`stars < 3`: "), "{:?}", verdict.rejects);
}

#[test]
fn rejects_and_passes_together_are_all() {
    let verdict = run("stars < 3", 2, vec![ints(&[Some(1), None])]);
    assert_eq!((verdict.outcome, verdict.rejects.len()), (Outcome::All, 1));
}

#[test]
fn an_error_that_decides_nothing_is_none() {
    let fields = || vec![ints(&[None, None]), texts(Type::Text, &[Some("a"), Some("b")])];
    let verdict = run("stars < 3 && channel == 'a'", 2, fields());
    assert_eq!(verdict.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [0]);
    let verdict = run("stars < 3 || channel == 'a'", 2, fields());
    assert_eq!(verdict.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_undeclared_field_is_json_and_warned_of() {
    let description = Filter::describe(&setup("chanel == 'web'")).unwrap();
    assert_eq!(description.reads[0].kind, Type::Json);
    assert!(description.warnings[0].contains("did you mean `channel`?"), "{:?}", description.warnings);
    let chanel = texts(Type::Json, &[Some("\"web\""), Some("3"), None, Some("\"w\\u0065b\""), Some("{}")]);
    assert_eq!(run("chanel == 'web'", 5, vec![chanel]).outcome, Outcome::Select(vec![0, 3]));
}

#[test]
fn a_condition_that_turns_out_to_be_no_boolean_rejects() {
    let flag = texts(Type::Json, &[Some("true"), Some("1"), None, Some("false")]);
    let verdict = run("flag", 4, vec![flag]);
    assert_eq!(verdict.outcome, Outcome::Select(vec![0]));
    assert_eq!(verdict.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn mistakes_have_places() {
    let mistakes = |condition: &str| Filter::describe(&setup(condition)).unwrap_err();
    let mistake = mistakes("stars == 'a' && channel < 3");
    assert_eq!(mistake.iter().map(|mistake| mistake.span).collect::<Vec<_>>(), [Some((0, 12)), Some((16, 27))]);
    assert_eq!(mistakes("stars + 1")[0].at, "/where");
    assert_eq!(mistakes("channel.startswith('a')")[0].proposal.as_deref(), Some("did you mean `startsWith`?"));
    assert_eq!(mistakes("stars = 3")[0].span, Some((6, 7)));
}

/// However the rows are cut, the same ones pass.
#[test]
fn cuts_do_not_matter() {
    let stars: Vec<Option<i64>> = (0..2500).map(|row| (row % 11 != 0).then_some(row * 7919 % 6)).collect();
    let passed = |size: usize| {
        let mut filter = Filter::init(setup("stars < 3 || stars == 5")).unwrap();
        let (mut passed, mut rejected) = (Vec::new(), Vec::new());
        for (batch, rows) in stars.chunks(size).enumerate() {
            let first = (batch * size) as u32;
            let verdict = filter.process(Batch { rows: rows.len(), fields: vec![ints(rows)], ..Batch::default() }).unwrap();
            let gone: Vec<u32> = verdict.rejects.iter().map(|reject| reject.row).collect();
            rejected.extend(gone.iter().map(|row| row + first));
            match verdict.outcome {
                Outcome::All => passed.extend((0..rows.len() as u32).filter(|row| !gone.contains(row)).map(|row| row + first)),
                Outcome::Select(rows) => passed.extend(rows.iter().map(|row| row + first)),
                Outcome::Derive(_) => panic!("a filter changes nothing"),
            }
        }
        (passed, rejected)
    };
    let whole = passed(1000);
    assert!(!whole.0.is_empty() && !whole.1.is_empty());
    assert_eq!(passed(1), whole);
    assert_eq!(passed(7), whole);
}
