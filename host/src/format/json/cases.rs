//! The table "JSON, each row a test" of `host/docs/formats.md`: a test for each row, named after it.

use super::Json;
use crate::column::{Bitmap, Cell, Column, ColumnBuilder, Indexed, Type};
use crate::field::Path;
use crate::format::{Change, Decoded, Encoded, Format, Wanted};
use crate::plugin::ReplacedLeaves;

fn blobs(rows: &[&str]) -> Column {
    let mut column = ColumnBuilder::new(Type::Bytes, rows.len());
    rows.iter().for_each(|row| column.bytes(row.as_bytes()));
    column.finish()
}

fn all(column: &Column) -> Indexed<'_> {
    Indexed { column, index: None }
}

fn wanted(path: &str, kind: Type) -> Wanted {
    Wanted { path: Path::parse(path).unwrap(), kind, from: None }
}

fn decode_as(json: &str, wanted: Wanted) -> Decoded {
    Json.decode(all(&blobs(&[json])), 1, &[wanted])
}

/// The field as the text of its cell, or the code of its error with the byte.
fn read_as(json: &str, wanted: Wanted) -> Result<String, (&'static str, Option<usize>)> {
    let decoded = decode_as(json, wanted);
    if let Some(error) = decoded.failed.first().or(decoded.fields[0].errors.first()) {
        assert_eq!(decoded.fields[0].column.cell(0), Cell::Null, "the slot of a failed row is null");
        return Err((error.code, error.at));
    }
    Ok(match decoded.fields[0].column.cell(0) {
        Cell::Null => "null".to_owned(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Float(value) => format!("{value:?}"),
        Cell::Text(text) | Cell::Json(text) => text.to_owned(),
        Cell::Blob(bytes) => format!("{bytes:?}"),
    })
}

fn read(json: &str, path: &str, kind: Type) -> Result<String, (&'static str, Option<usize>)> {
    read_as(json, wanted(path, kind))
}

fn value(text: &str) -> Result<String, (&'static str, Option<usize>)> {
    Ok(text.to_owned())
}

/// What a test writes.
#[derive(Clone, Copy)]
enum To<'a> {
    Cell(Cell<'a>),
    Removed,
    Kept,
}
use To::{Kept, Removed};

fn encode(base: Option<&str>, changes: &[(&str, To<'_>)]) -> Encoded {
    let columns: Vec<_> = changes
        .iter()
        .map(|(path, to)| {
            let kind = match to {
                To::Cell(Cell::Bool(_)) => Type::Boolean,
                To::Cell(Cell::Int(_)) => Type::Int,
                To::Cell(Cell::Float(_)) => Type::Float,
                To::Cell(Cell::Blob(_)) => Type::Bytes,
                To::Cell(Cell::Json(_)) => Type::Json,
                _ => Type::Text,
            };
            let mut column = ColumnBuilder::new(kind, 1);
            column.cell(if let To::Cell(cell) = to { *cell } else { Cell::Null });
            let mark = |set| if set { Bitmap::filled(1, true) } else { Bitmap::default() };
            (Path::parse(path).unwrap(), column.finish(), mark(matches!(to, Kept)), mark(matches!(to, Removed)))
        })
        .collect();
    let changes: Vec<_> = columns.iter().map(|(path, column, kept, removed)| Change { path, column: all(column), kept, removed }).collect();
    let base = base.map(|base| blobs(&[base]));
    Json.encode(base.as_ref().map(all), 1, &changes)
}

fn write(base: &str, changes: &[(&str, To<'_>)]) -> Result<String, (&'static str, Option<usize>)> {
    let encoded = encode(Some(base), changes);
    match (encoded.failed.first(), encoded.values.bytes(0)) {
        (None, Some(bytes)) => Ok(String::from_utf8(bytes.to_vec()).unwrap()),
        (Some(failed), None) => Err((failed.error.code, failed.error.at)),
        _ => panic!("either a value or an error"),
    }
}

fn int(value: i64) -> To<'static> {
    To::Cell(Cell::Int(value))
}

fn json(text: &str) -> To<'_> {
    To::Cell(Cell::Json(text))
}

#[test]
fn paths() {
    let record = r#" { "a" : { "b" : 1 , "b.c" : 2, "q\"\\" : 3 }, "a.b": 4, "list": [ {"b": 5} ], "": 6, "$key": 7 } "#;
    assert_eq!(read(record, "a.b", Type::Int), value("1"));
    assert_eq!(read(record, "a.\"b.c\"", Type::Int), value("2"));
    assert_eq!(read(record, r#"a."q\"\\""#, Type::Int), value("3"));
    assert_eq!(read(record, "\"a.b\"", Type::Int), value("4"));
    assert_eq!(read(record, "\"\"", Type::Int), value("6"));
    assert_eq!(read(record, "\"$key\"", Type::Int), value("7"));
    // Arrays as a whole only, in the source's spelling.
    assert_eq!(read(record, "list", Type::Json), value(r#"[ {"b": 5} ]"#));
    assert_eq!(read(record, "list.b", Type::Int), value("null"));
    // A path and its prefix may both be read.
    let both = Json.decode(all(&blobs(&[r#"{"a":{"b":1}}"#])), 1, &[wanted("a", Type::Json), wanted("a.b", Type::Int)]);
    assert_eq!((both.fields[0].column.cell(0), both.fields[1].column.cell(0)), (Cell::Json(r#"{"b":1}"#), Cell::Int(1)));
}

#[test]
fn keys_are_compared_after_unescaping() {
    assert_eq!(read(r#"{"c\u0061rd":"x"}"#, "card", Type::Text), value("x"));
    assert_eq!(read(r#"{"\u00e4\ud83d\ude00":"x"}"#, "ä😀", Type::Text), value("x"));
    assert_eq!(read(r#"{"\ud800":1,"a":2}"#, "a", Type::Int), value("2"));
    assert_eq!(write(r#"{"c\u0061rd":"x"}"#, &[("card", int(1))]), value(r#"{"c\u0061rd":1}"#));
}

#[test]
fn duplicate_keys() {
    assert_eq!(read(r#"{"a":1,"b":0,"a":2}"#, "a", Type::Int), Err(("duplicate_field", Some(13))));
    assert_eq!(read(r#"{"card":1,"c\u0061rd":2}"#, "card", Type::Int), Err(("duplicate_field", Some(10))));
    assert_eq!(read(r#"{"a":{"b":1},"a":{}}"#, "a.b", Type::Int), Err(("duplicate_field", Some(13))));
    assert_eq!(read(r#"{"a":null,"a":null}"#, "a.b", Type::Int), Err(("duplicate_field", Some(10))));
    // Elsewhere they are nobody's business.
    assert_eq!(read(r#"{"x":1,"x":2,"a":{"y":1,"y":2,"b":3}}"#, "a.b", Type::Int), value("3"));
    // The other fields of the row are read.
    let decoded = Json.decode(all(&blobs(&[r#"{"a":1,"a":2,"b":3}"#])), 1, &[wanted("a", Type::Int), wanted("b", Type::Int)]);
    assert_eq!((decoded.fields[0].errors.len(), decoded.fields[1].errors.len()), (1, 0));
    assert_eq!(decoded.fields[1].column.cell(0), Cell::Int(3));

    assert_eq!(write(r#"{"a":1,"a":2}"#, &[("a", int(3))]), Err(("duplicate_field", Some(7))));
    assert_eq!(write(r#"{"a":1,"\u0061":2}"#, &[("a", Removed)]), Err(("duplicate_field", Some(7))));
    assert_eq!(write(r#"{"a":{},"a":{}}"#, &[("a.b", int(3))]), Err(("duplicate_field", Some(8))));
    assert_eq!(write(r#"{"x":1,"x":2}"#, &[("a", int(3))]), value(r#"{"x":1,"x":2,"a":3}"#));
    assert_eq!(write(r#"{"a":1,"a":2}"#, &[("a", Kept), ("b", int(1))]), value(r#"{"a":1,"a":2,"b":1}"#));
    let error = &encode(Some(r#"{"a":{"b":1,"b":2}}"#), &[("a.b", int(3))]).failed[0].error;
    assert!(error.message.contains("`a.b`"), "{}", error.message);
}

#[test]
fn ints() {
    for (literal, expected) in [
        ("0", value("0")),
        ("-0", value("0")),
        ("9223372036854775807", value("9223372036854775807")),
        ("-9223372036854775808", value("-9223372036854775808")),
        ("9223372036854775808", Err(("out_of_range", Some(5)))),
        ("-9223372036854775809", Err(("out_of_range", Some(5)))),
        ("123456789012345678901234567890", Err(("out_of_range", Some(5)))),
        ("123456789012345678901234567890.5", Err(("wrong_type", Some(5)))),
        ("1.0", Err(("wrong_type", Some(5)))),
        ("1e3", Err(("wrong_type", Some(5)))),
        ("1E3", Err(("wrong_type", Some(5)))),
        ("\"1\"", Err(("wrong_type", Some(5)))),
        ("true", Err(("wrong_type", Some(5)))),
        ("{}", Err(("wrong_type", Some(5)))),
        ("[1]", Err(("wrong_type", Some(5)))),
        ("null", value("null")),
    ] {
        assert_eq!(read(&format!("{{\"a\":{literal}}}"), "a", Type::Int), expected, "{literal}");
    }
}

#[test]
fn floats() {
    for (literal, expected) in [
        ("1", value("1.0")),
        ("-0.0", value("-0.0")),
        ("1e3", value("1000.0")),
        ("0.1", value("0.1")),
        ("9007199254740993", value("9007199254740992.0")),
        ("2.2250738585072011e-308", value("2.225073858507201e-308")),
        ("5e-324", value("5e-324")),
        ("1e-400", value("0.0")),
        ("1.7976931348623157e308", value("1.7976931348623157e308")),
        ("1.8e308", Err(("out_of_range", Some(5)))),
        ("-1e999", Err(("out_of_range", Some(5)))),
        ("\"1\"", Err(("wrong_type", Some(5)))),
        ("null", value("null")),
    ] {
        assert_eq!(read(&format!("{{\"a\":{literal}}}"), "a", Type::Float), expected, "{literal}");
    }
}

#[test]
fn texts() {
    for (literal, expected) in [
        (r#""""#, value("")),
        (r#""a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00 ä""#, value("a\"\\/\u{8}\u{c}\n\r\tä😀 ä")),
        (r#""\ud800""#, Err(("lone_surrogate", Some(5)))),
        (r#""\udc00\ud800""#, Err(("lone_surrogate", Some(5)))),
        ("1", Err(("wrong_type", Some(5)))),
        ("true", Err(("wrong_type", Some(5)))),
        ("null", value("null")),
    ] {
        assert_eq!(read(&format!("{{\"a\":{literal}}}"), "a", Type::Text), expected, "{literal}");
    }
    // In a field that nobody wants it stays.
    assert_eq!(read(r#"{"b":"\ud800","a":"x"}"#, "a", Type::Text), value("x"));
}

#[test]
fn booleans() {
    for (literal, expected) in [
        ("true", value("true")),
        ("false", value("false")),
        ("null", value("null")),
        ("1", Err(("wrong_type", Some(5)))),
        ("\"true\"", Err(("wrong_type", Some(5)))),
        ("True", Err(("not_json", Some(5)))),
        ("tru", Err(("not_json", Some(8)))),
    ] {
        assert_eq!(read(&format!("{{\"a\":{literal}}}"), "a", Type::Boolean), expected, "{literal}");
    }
}

#[test]
fn bytes_are_base64() {
    for (literal, expected) in [
        (r#""""#, value("[]")),
        (r#""AP8=""#, value("[0, 255]")),
        (r#""AP8\u003d""#, value("[0, 255]")),
        (r#""AP8""#, Err(("bad_base64", Some(5)))),
        (r#""A!""#, Err(("bad_base64", Some(5)))),
        ("1", Err(("wrong_type", Some(5)))),
        ("null", value("null")),
    ] {
        assert_eq!(read(&format!("{{\"a\":{literal}}}"), "a", Type::Bytes), expected, "{literal}");
    }
    assert_eq!(write("{}", &[("a", To::Cell(Cell::Blob(&[0, 255])))]), value(r#"{"a":"AP8="}"#));
}

#[test]
fn json_is_the_source_text() {
    for literal in [r#"{ "b" : [1.0, 1e3 ] }"#, "[ ]", "\"\\u0061\"", "1.50", "true"] {
        assert_eq!(read(&format!("{{\"a\": {literal} }}"), "a", Type::Json), value(literal));
    }
}

#[test]
fn conversions_are_only_those_declared() {
    let wrong = |code| Err((code, Some(5)));
    for (from, to, literal, expected) in [
        (Type::Text, Type::Int, r#""-42""#, value("-42")),
        (Type::Text, Type::Int, r#""4\u0032""#, value("42")),
        (Type::Text, Type::Int, r#""1.0""#, wrong("wrong_type")),
        (Type::Text, Type::Int, r#"" 1""#, wrong("wrong_type")),
        (Type::Text, Type::Int, r#""""#, wrong("wrong_type")),
        (Type::Text, Type::Int, r#""9223372036854775808""#, wrong("out_of_range")),
        (Type::Text, Type::Int, "1", wrong("wrong_type")),
        (Type::Text, Type::Int, "null", value("null")),
        (Type::Text, Type::Float, r#""1e3""#, value("1000.0")),
        (Type::Text, Type::Float, r#""NaN""#, wrong("wrong_type")),
        (Type::Text, Type::Float, r#""1e999""#, wrong("out_of_range")),
        (Type::Text, Type::Boolean, r#""true""#, value("true")),
        (Type::Text, Type::Boolean, r#""yes""#, wrong("wrong_type")),
        (Type::Text, Type::Json, r#""{\"b\": 1}""#, value(r#"{"b": 1}"#)),
        (Type::Text, Type::Json, r#""{""#, wrong("wrong_type")),
        (Type::Text, Type::Bytes, r#""AP8=""#, value("[0, 255]")),
        (Type::Int, Type::Text, "-7", value("-7")),
        (Type::Int, Type::Text, "1.0", wrong("wrong_type")),
        (Type::Int, Type::Text, "\"1\"", wrong("wrong_type")),
        (Type::Int, Type::Float, "7", value("7.0")),
        (Type::Int, Type::Float, "7.5", wrong("wrong_type")),
        (Type::Float, Type::Text, "1.50", value("1.50")),
        (Type::Float, Type::Int, "3.0", value("3")),
        (Type::Float, Type::Int, "1e3", value("1000")),
        (Type::Float, Type::Int, "9223372036854775807", value("9223372036854775807")),
        (Type::Float, Type::Int, "3.5", wrong("wrong_type")),
        (Type::Float, Type::Int, "1e18", wrong("out_of_range")),
        (Type::Float, Type::Int, "\"1\"", wrong("wrong_type")),
        (Type::Boolean, Type::Text, "false", value("false")),
        (Type::Boolean, Type::Text, "0", wrong("wrong_type")),
        (Type::Json, Type::Text, r#"[1, "x"]"#, value(r#"[1, "x"]"#)),
        (Type::Int, Type::Int, "1", value("1")),
    ] {
        assert!(super::converts(from, to), "{from} to {to}");
        let wanted = Wanted { from: Some(from), ..wanted("a", to) };
        assert_eq!(read_as(&format!("{{\"a\":{literal}}}"), wanted), expected, "{to} from {from}: {literal}");
    }
    assert!(!super::converts(Type::Boolean, Type::Int));
    let none = Wanted { from: Some(Type::Boolean), ..wanted("a", Type::Int) };
    assert_eq!(read_as("{\"a\":true}", none), wrong("wrong_type"));
}

#[test]
fn writing_floats() {
    for float in [1.0, 0.1, -0.0, 1e15, 1e16, 1e300, 5e-324, 123456.789, 2.225073858507201e-308] {
        let written = write("{}", &[("a", To::Cell(Cell::Float(float)))]).unwrap();
        let literal = written.strip_prefix("{\"a\":").unwrap().strip_suffix('}').unwrap();
        assert!(literal.contains(['.', 'e']), "{literal}");
        assert_eq!(literal.parse::<f64>().unwrap().to_bits(), float.to_bits());
        // As few digits as Rust's own shortest round trip.
        let digits = |text: &str| text.split('e').next().unwrap().replace(['.', '-'], "").trim_matches('0').len();
        assert_eq!(digits(literal), digits(&format!("{float:e}")), "{literal}");
    }
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(write("{}", &[("a", To::Cell(Cell::Float(float)))]), Err(("out_of_range", Some(1))));
    }
}

#[test]
fn writing_in_place() {
    let base = r#" { "a" : 1 , "t":"x\u0041", "o" : { "k" : [ 1.50 ] } } "#;
    assert_eq!(write(base, &[("a", int(-7))]), value(&base.replace(" 1 ,", " -7 ,")));
    assert_eq!(write(base, &[("t", To::Cell(Cell::Text("q\"\u{1}ä")))]), value(&base.replace(r"x\u0041", r#"q\"\u0001ä"#)));
    assert_eq!(write(base, &[("o.k", To::Cell(Cell::Bool(true)))]), value(&base.replace("[ 1.50 ]", "true")));
    assert_eq!(write(base, &[("o.k", To::Cell(Cell::Null))]), value(&base.replace("[ 1.50 ]", "null")));
    assert_eq!(write(base, &[("o", json("[ 2 ]"))]), value(&base.replace(r#"{ "k" : [ 1.50 ] }"#, "[ 2 ]")));
    assert_eq!(write(base, &[("o.k", int(2)), ("a", int(3))]), value(&base.replace("[ 1.50 ]", "2").replace(" 1 ,", " 3 ,")));
    assert_eq!(write(base, &[]), value(base));
    assert_eq!(write(base, &[("a", Kept)]), value(base));
    // What nobody changed is not even looked at.
    assert_eq!(write("{broken", &[("a", Kept)]), value("{broken"));
}

#[test]
fn a_new_field() {
    assert_eq!(write("{}", &[("z", int(1)), ("a", int(2))]), value(r#"{"z":1,"a":2}"#));
    assert_eq!(write(" { } ", &[("a", int(2))]), value(" {\"a\":2 } "));
    assert_eq!(write(r#"{ "x": 1 }"#, &[("z", int(1)), ("a", int(2))]), value(r#"{ "x": 1,"z":1,"a":2 }"#));
    assert_eq!(write(r#"{"x":{"y":1},"u":2}"#, &[("x.z", int(1)), ("\"q\\\"\"", int(2))]), value(r#"{"x":{"y":1,"z":1},"u":2,"q\"":2}"#));
    // A fresh object.
    let fresh = encode(None, &[("b", int(1)), ("a.c", json("[]")), ("gone", Removed), ("kept", Kept)]);
    assert_eq!(fresh.values.bytes(0), Some(&br#"{"b":1,"a":{"c":[]}}"#[..]));
    assert_eq!(encode(None, &[]).values.bytes(0), Some(&b"{}"[..]));
}

#[test]
fn a_missing_parent() {
    assert_eq!(
        write(r#"{"x":1}"#, &[("a.b.c", int(1)), ("y", int(2)), ("a.d", int(3))]),
        value(r#"{"x":1,"a":{"b":{"c":1},"d":3},"y":2}"#)
    );
    assert_eq!(write("{}", &[("a.b", Removed)]), value("{}"));
    assert_eq!(write("{}", &[("a.b", Removed), ("a.c", int(1))]), value(r#"{"a":{"c":1}}"#));
}

#[test]
fn a_parent_that_is_no_object() {
    for parent in ["null", "1", "\"x\"", "[{}]", "true"] {
        let base = format!("{{\"a\":{parent}}}");
        assert_eq!(write(&base, &[("a.b", int(1))]), Err(("not_an_object", Some(5))), "{parent}");
        // There is nothing to remove.
        assert_eq!(write(&base, &[("a.b", Removed)]), value(&base));
    }
    for record in ["null", "1", "[]"] {
        assert_eq!(write(record, &[("a", int(1))]), Err(("not_an_object", Some(0))));
        assert_eq!(write(record, &[("a", Removed)]), value(record));
    }
}

#[test]
fn an_error_names_the_change_that_failed() {
    let nan = To::Cell(Cell::Float(f64::NAN));
    let cases: [(&str, &[(&str, To<'_>)], usize); 9] = [
        (r#"{"a":1}"#, &[("c", int(1)), ("a.b", int(2)), ("d", int(3))], 1),
        // To remove what is not there is no error.
        (r#"{"a":1}"#, &[("a.x", Removed), ("a.b", int(1)), ("a.c", int(1))], 1),
        (r#"{"a":1,"a":2}"#, &[("c", int(1)), ("a", Removed)], 1),
        (r#"{"a":{"x":1},"a":2}"#, &[("c", int(1)), ("a.b", Kept), ("a.x", Removed)], 2),
        ("{}", &[("c", int(1)), ("d", nan), ("e", int(1))], 1),
        // What a later stage writes has a walk of its own.
        ("{}", &[("a", int(1)), ("c", int(1)), ("a.b", int(1)), ("d", int(1))], 2),
        // Without a base that can be read, the first one that asks for something.
        ("{", &[("k", Kept), ("c", int(1)), ("d", int(1))], 1),
        ("", &[("k", Kept), ("c", Removed)], 1),
        ("[1]", &[("c", Removed), ("d", int(1))], 1),
    ];
    for (base, changes, expected) in cases {
        let failed = encode(Some(base), changes).failed;
        assert_eq!(failed.iter().map(|failed| failed.change).collect::<Vec<_>>(), [Some(expected)], "{base}");
    }
}

#[test]
fn removing() {
    let base = r#"{ "a": 1 , "b": 2, "c":3 }"#;
    assert_eq!(write(base, &[("a", Removed)]), value(r#"{ "b": 2, "c":3 }"#));
    assert_eq!(write(base, &[("b", Removed)]), value(r#"{ "a": 1 , "c":3 }"#));
    assert_eq!(write(base, &[("c", Removed)]), value(r#"{ "a": 1 , "b": 2 }"#));
    assert_eq!(write(base, &[("a", Removed), ("b", Removed)]), value(r#"{ "c":3 }"#));
    assert_eq!(write(base, &[("b", Removed), ("c", Removed)]), value(r#"{ "a": 1  }"#));
    assert_eq!(write(base, &[("a", Removed), ("c", Removed)]), value(r#"{ "b": 2 }"#));
    assert_eq!(write(base, &[("x", Removed)]), value(base));
    assert_eq!(write(r#"{"o":{"a":1,"b":2}}"#, &[("o.a", Removed), ("o.b", Removed)]), value(r#"{"o":{}}"#));
    assert_eq!(write(r#"{"a":1}"#, &[("a", Removed), ("b", int(2))]), value(r#"{"b":2}"#));
    assert_eq!(write(r#"{"a":1,"b":2}"#, &[("b", Removed), ("c", int(3))]), value(r#"{"a":1,"c":3}"#));
}

#[test]
fn renaming() {
    let base = r#"{"old": { "x" : 1.50 } ,"b":2}"#;
    let Ok(source) = read(base, "old", Type::Json) else { panic!("it is there") };
    assert_eq!(write(base, &[("old", Removed), ("new", json(&source))]), value(r#"{"b":2,"new":{ "x" : 1.50 }}"#));
}

#[test]
fn what_a_later_stage_writes_again() {
    assert_eq!(write(r#"{"b":0}"#, &[("a", int(1)), ("a", int(2))]), value(r#"{"b":0,"a":2}"#));
    assert_eq!(write(r#"{"a":0,"b":0}"#, &[("a", Removed), ("a", int(2))]), value(r#"{"b":0,"a":2}"#));
    assert_eq!(write(r#"{"a":0}"#, &[("a", int(1)), ("a", Removed)]), value("{}"));
    assert_eq!(write(r#"{"a":0}"#, &[("a", int(1)), ("a", Kept)]), value(r#"{"a":1}"#));
    assert_eq!(write("{}", &[("a.b", int(1)), ("a", json("{\"c\":2}"))]), value(r#"{"a":{"c":2}}"#));
    assert_eq!(write("{}", &[("a", json("{\"c\":2}")), ("a.b", int(1)), ("x", int(9))]), value(r#"{"a":{"c":2,"b":1},"x":9}"#));
    assert_eq!(write("{}", &[("a", int(2)), ("a.b", int(1))]), Err(("not_an_object", Some(5))));
}

#[test]
fn not_an_object() {
    for record in ["null", "1", "\"a\"", "[{\"a\":1}]", " true "] {
        assert_eq!(read(record, "a", Type::Int), value("null"), "{record}");
    }
}

#[test]
fn depth() {
    let nested = |depth: usize| format!("{{\"a\":1,\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(read(&nested(128), "a", Type::Int), value("1"));
    assert_eq!(read(&nested(129), "a", Type::Int), Err(("too_deep", Some(138))));
    assert_eq!(read(&nested(100_000), "a", Type::Int), Err(("too_deep", Some(138))));
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    let path = vec!["a"; 128].join(".");
    assert_eq!(read(&objects(128), &path, Type::Int), value("1"));
    assert_eq!(read(&objects(129), &path, Type::Int), Err(("too_deep", Some(640))));
    assert_eq!(write(&objects(129), &[(&path, int(1))]), Err(("too_deep", Some(640))));
    for (depth, failed) in [(128, 0), (129, 1)] {
        assert_eq!(Json.leaves(all(&blobs(&[&objects(depth), &nested(depth)])), 2).1.len(), 2 * failed);
    }
}

#[test]
fn a_value_of_no_bytes_is_no_tombstone() {
    assert_eq!(read("", "a", Type::Int), Err(("empty_value", None)));
    assert_eq!(write("", &[("a", int(1))]), Err(("empty_value", None)));
    assert_eq!(read("  ", "a", Type::Int), Err(("not_json", Some(2))));
}

#[test]
fn tombstones_stay() {
    let mut column = ColumnBuilder::new(Type::Bytes, 1);
    column.null();
    let (values, path) = (column.finish(), Path::parse("a").unwrap());
    let decoded = Json.decode(all(&values), 1, &[wanted("a", Type::Int)]);
    assert_eq!((decoded.fields[0].column.cell(0), decoded.failed.len()), (Cell::Null, 0));
    let none = Bitmap::default();
    let change = Change { path: &path, column: all(&decoded.fields[0].column), kept: &none, removed: &none };
    let encoded = Json.encode(Some(all(&values)), 1, &[change]);
    assert_eq!((encoded.values, encoded.failed.len()), (values.clone(), 0));
    let (leaves, failed) = Json.leaves(all(&values), 1);
    assert_eq!((leaves.offsets, failed.len()), (vec![0, 0], 0));
}

#[test]
fn broken_json_says_where() {
    for (record, at) in [
        ("{", 1),
        ("{\"a\":1", 6),
        ("{\"a\":1,}", 7),
        ("{\"a\" 1}", 5),
        ("{\"a\":01}", 6),
        ("{\"a\":1.}", 7),
        ("{\"a\":-}", 6),
        ("{\"a\":+1}", 5),
        ("{\"a\":1e}", 7),
        ("{a:1}", 1),
        ("{'a':1}", 1),
        ("{\"a\":\"\n\"}", 6),
        ("{\"a\":\"\\x\"}", 7),
        ("{\"a\":\"\\u12g4\"}", 10),
        ("{\"a\":\"x", 7),
        ("{\"a\":[1 2]}", 8),
        ("{\"a\":[1,]}", 8),
        ("{\"a\":[}", 6),
        ("{} {}", 3),
        ("nul", 3),
        ("NaN", 0),
        ("\u{feff}{}", 0),
    ] {
        assert_eq!(read(record, "zzz", Type::Int), Err(("not_json", Some(at))), "{record}");
        assert_eq!(read(record, "a", Type::Json), Err(("not_json", Some(at))), "{record}");
        assert_eq!(write(record, &[("zzz", Removed)]), Err(("not_json", Some(at))), "{record}");
        assert_eq!(Json.leaves(all(&blobs(&[record])), 1).1[0].at, Some(at), "{record}");
    }
}

#[test]
fn invalid_utf8_says_where() {
    let mut column = ColumnBuilder::new(Type::Bytes, 1);
    column.bytes(b"{\"x\":\"\xff\",\"a\":1}");
    let values = column.finish();
    let decoded = Json.decode(all(&values), 1, &[wanted("a", Type::Int)]);
    assert_eq!((decoded.failed[0].code, decoded.failed[0].at), ("invalid_utf8", Some(6)));
    assert_eq!(Json.leaves(all(&values), 1).1[0].code, "invalid_utf8");
}

#[test]
fn errors_name_types_and_never_values() {
    let secret = "4444333322221111";
    for (record, kind) in [
        (format!("{{\"a\":\"{secret}\"}}"), Type::Int),
        (format!("{{\"a\":{secret}{secret}}}"), Type::Int),
        (format!("{{\"a\":{secret}}}"), Type::Text),
        (format!("{{\"a\":\"{secret}!\"}}"), Type::Bytes),
        (format!("{{\"a\":{secret}"), Type::Int),
    ] {
        let decoded = decode_as(&record, wanted("a", kind));
        let error = decoded.failed.first().or(decoded.fields[0].errors.first()).unwrap();
        assert!(!format!("{error:?}").contains("4444"), "{error:?}");
    }
    let error = &decode_as("{\"a\":\"1\"}", wanted("a", Type::Int)).fields[0].errors[0];
    assert_eq!(error.message, "expected int, found text");
    let error = &decode_as("{\"a\":[]}", wanted("a", Type::Text)).fields[0].errors[0];
    assert_eq!(error.message, "expected text, found an array");
}

#[test]
fn leaves() {
    let record = r#"{ "a.b": {"c\u0061rd": "44\u0034 x"}, "items": [ {"name": "n"}, [1.50], true, null ], "$k": "v", "": -1, "q\"": "" }"#;
    let values = blobs(&[record, "\"top\"", "{}", "[7]"]);
    let (leaves, failed) = Json.leaves(all(&values), 4);
    assert!(failed.is_empty());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries: Vec<_> = leaves.paths.iter().map(text).zip(leaves.values.iter().map(text)).collect();
    let expected = [
        (r#""a.b".card"#, "444 x"),
        ("items[0].name", "n"),
        ("items[1][0]", "1.50"),
        ("items[2]", "true"),
        ("items[3]", "null"),
        ("\"$k\"", "v"),
        ("\"\"", "-1"),
        (r#""q\"""#, ""),
        ("", "top"),
        ("", "{}"),
        ("[0]", "7"),
    ];
    assert_eq!(entries, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
    assert_eq!(leaves.offsets, [0, 8, 9, 10, 11]);
    let (from, to) = leaves.spans[0];
    assert_eq!(&record[from as usize..to as usize], r#""44\u0034 x""#);

    let mut new = crate::column::Strings::default();
    [&b"x\"1"[..], b"nine", b"t"].iter().for_each(|text| new.push(text));
    let replaced = Json.replace_leaves(all(&values), 4, &leaves, &ReplacedLeaves { entries: vec![0, 2, 8], values: new });
    assert_eq!(text(replaced.bytes(0).unwrap()), record.replace(r"44\u0034 x", "x\\\"1").replace("1.50", "\"nine\""));
    assert_eq!([1, 2, 3].map(|row| text(replaced.bytes(row).unwrap())), ["\"t\"", "{}", "[7]"]);
}

#[test]
fn leaves_of_a_record_with_a_duplicate_key_anywhere() {
    let many: String = (0..40).map(|place| format!("\"field_{place}\":{place},")).collect();
    for (record, code) in [
        (r#"{"a":1,"\u0061":2}"#.to_owned(), "duplicate_field"),
        (r#"[{"a":{"x":null,"x":null}}]"#.to_owned(), "duplicate_field"),
        (format!("{{{many}\"field_7\":0}}"), "duplicate_field"),
        (r#"{"a":"\ud800"}"#.to_owned(), "lone_surrogate"),
        (r#"{"\ud800":true}"#.to_owned(), "lone_surrogate"),
    ] {
        let (leaves, failed) = Json.leaves(all(&blobs(&["{\"a\":1}", &record, "{\"b\":2}"])), 3);
        assert_eq!(failed.iter().map(|error| (error.row, error.code)).collect::<Vec<_>>(), [(1, code)], "{record}");
        assert_eq!((leaves.offsets, leaves.values.len(), leaves.paths.len()), (vec![0, 1, 1, 2], 2, 2));
    }
    let (_, failed) = Json.leaves(all(&blobs(&[&format!("{{{many}\"z\":{{\"field_1\":1}}}}")])), 1);
    assert!(failed.is_empty());
}

#[test]
fn rows_come_through_a_selection() {
    let values = blobs(&["{\"a\":0}", "{\"a\":1}", "{\"a\":2}"]);
    let index = [2, 0, 2];
    let selected = Indexed { column: &values, index: Some(&index) };
    let decoded = Json.decode(selected, 3, &[wanted("a", Type::Int)]);
    assert_eq!([0, 1, 2].map(|row| decoded.fields[0].column.cell(row)), [Cell::Int(2), Cell::Int(0), Cell::Int(2)]);

    let (path, mut kept, mut removed) = (Path::parse("a").unwrap(), Bitmap::filled(3, false), Bitmap::filled(3, false));
    kept.set(1);
    removed.set(2);
    let mut column = ColumnBuilder::new(Type::Int, 2);
    column.int(8);
    column.int(9);
    let column = column.finish();
    let change = Change { path: &path, column: Indexed { column: &column, index: Some(&[1, 0, 0]) }, kept: &kept, removed: &removed };
    let encoded = Json.encode(Some(selected), 3, &[change]);
    assert_eq!([0, 1, 2].map(|row| encoded.values.bytes(row).unwrap()), [&b"{\"a\":9}"[..], b"{\"a\":0}", b"{}"]);
}
