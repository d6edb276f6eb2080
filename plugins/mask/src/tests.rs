//! The plugin as a whole: batches in, verdicts out.

use crate::Mask;
use millstream_guest::column::{Cell, Column, ColumnBuilder, Strings, Type};
use millstream_guest::describe::{Description, FieldType, Mistake, Part, Schema};
use millstream_guest::field::{Field, Path};
use millstream_guest::headers::HeadersBuilder;
use millstream_guest::testing::Columns;
use millstream_guest::verdict::{Derived, Outcome, Verdict};
use millstream_guest::{Batch, Leaves, Plugin};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CARD: &str = "4444-3333-2222-1111";
const MASKED: &str = "xxxx-xxxx-xxxx-1111";

fn schema(fields: &[(&str, Type)], open: bool) -> Schema {
    let fields = fields.iter().map(|(path, kind)| FieldType { path: Field::parse(path).unwrap(), kind: *kind, nullable: true });
    Schema { fields: fields.collect(), open }
}

fn start(rules: Value, input: Schema) -> Columns<Mask> {
    Columns::start(json!({ "rules": rules }), input, BTreeMap::new()).unwrap()
}

fn everything() -> Columns<Mask> {
    start(json!([{ "fields": "**", "card": {} }]), schema(&[("stars", Type::Int)], true))
}

fn describe(rules: Value, input: Schema) -> Result<Description, Vec<Mistake>> {
    Mask::describe(&millstream_guest::Setup {
        config: serde_json::from_value(json!({ "rules": rules })).unwrap(),
        input,
        inputs: Vec::new(),
        tables: BTreeMap::new(),
    })
}

/// The leaves of JSON records, as the host gives them.
fn leaves(records: &[&str]) -> Leaves {
    fn walk(value: &Value, path: String, out: &mut Leaves) {
        let mut leaf = |text: &str| {
            out.paths.push(path.as_bytes());
            out.values.push(text.as_bytes());
        };
        match value {
            Value::String(text) => leaf(text),
            Value::Number(number) => leaf(&number.to_string()),
            Value::Array(items) if items.is_empty() => leaf("[]"),
            Value::Object(members) if members.is_empty() => leaf("{}"),
            Value::Null | Value::Bool(_) => leaf(&value.to_string()),
            Value::Array(items) => items.iter().enumerate().for_each(|(place, item)| walk(item, format!("{path}[{place}]"), out)),
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                let name = Path(vec![name.clone()]).to_string();
                walk(value, if path.is_empty() { name } else { format!("{path}.{name}") }, out);
            }),
        }
    }
    let mut out = Leaves { offsets: vec![0], ..Leaves::default() };
    for record in records {
        walk(&serde_json::from_str(record).unwrap(), String::new(), &mut out);
        out.offsets.push(out.values.len() as u32);
    }
    out
}

fn column(kind: Type, cells: &[Cell<'_>]) -> Column {
    let mut out = ColumnBuilder::new(kind, cells.len());
    cells.iter().for_each(|cell| out.cell(*cell));
    out.finish()
}

fn batch(records: &[&str]) -> Batch {
    Batch { rows: records.len(), timestamps: vec![0; records.len()], leaves: Some(leaves(records)), ..Batch::default() }
}

fn derived(verdict: &Verdict) -> &Derived {
    match &verdict.outcome {
        Outcome::Derive(derived) => &derived[0],
        other => panic!("expected derive, not {other:?}"),
    }
}

/// The replaced leaves, by the index of their entry.
fn replaced(verdict: &Verdict) -> Vec<(u32, String)> {
    let leaves = derived(verdict).leaves.as_ref().unwrap();
    leaves.entries.iter().copied().zip(leaves.values.iter().map(|text| String::from_utf8(text.to_vec()).unwrap())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn nothing_found_costs_nothing() {
    let mut mask = everything();
    let verdict = mask.process(batch(&[r#"{"rating_time":1519304105213,"message":"worst. flight. ever."}"#, "{}"])).unwrap();
    assert_eq!(verdict, Verdict { outcome: Outcome::All, rejects: vec![] });
}

#[test]
fn leaves_of_every_shape() {
    let mut mask = everything();
    let verdict = mask
        .process(batch(&[
            r#"{"c\u0061rd":"\u0034444-3333-2222-1111","a":[{"b":"no"},{"n":4444333322221111}]}"#,
            r#"{"message":"nothing"}"#,
            r#""4444 3333 2222 1111""#,
        ]))
        .unwrap();
    assert_eq!(replaced(&verdict), [(0, MASKED.to_owned()), (2, "xxxxxxxxxxxx1111".to_owned()), (4, "xxxx xxxx xxxx 1111".to_owned())]);
    assert_eq!(derived(&verdict).source, [0, 1, 2]);
    assert!(derived(&verdict).keys.is_none() && derived(&verdict).fields.is_empty());
}

#[test]
fn names_of_members_cannot_be_rewritten() {
    let mut mask = everything();
    let records =
        [r#"{"a":"4444333322221111"}"#, r#"{"x":"4444333322221111","b":{"4444-3333-2222-1111":1}}"#, r#"{"c":"4444333322221111"}"#];
    let verdict = mask.process(batch(&records)).unwrap();
    assert_eq!(verdict.rejects.len(), 1);
    assert_eq!(verdict.rejects[0].row, 1);
    assert!(!verdict.rejects[0].reason.contains("1111"));
    assert_eq!(derived(&verdict).source, [0, 2]);
    assert_eq!(replaced(&verdict).iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), [0, 3]);
    for empty in ["true", "null", "{}", "[]", "[{}]"] {
        let record = format!(r#"{{"a":{{"4444 3333\u00a02222 1111":{empty}}}}}"#);
        assert_eq!(mask.process(batch(&[&record])).unwrap().rejects.len(), 1, "{record}");
    }
}

#[test]
fn keys_and_headers() {
    let mut mask = everything();
    assert_eq!(mask.description.parts, [Part::Key, Part::Headers]);
    assert!(mask.description.tombstones, "a delete must be masked as its record is");
    let key = format!(r#"{{"card":"\u0034{}","n":4444333322221111}}"#, &CARD[1..]);
    let mut headers = HeadersBuilder::default();
    for (name, value) in [("trace", Some(&b"1"[..])), ("card", Some(CARD.as_bytes())), ("card", None)] {
        headers.push(name.as_bytes(), value);
    }
    (0..4).for_each(|_| headers.close());
    let input = Batch {
        keys: Some(column(Type::Bytes, &[Cell::Blob(CARD.as_bytes()), Cell::Blob(key.as_bytes()), Cell::Blob(b"7"), Cell::Null])),
        headers: Some(headers.finish()),
        ..batch(&["{}", "{}", "{}", "{}"])
    };
    let verdict = mask.process(input).unwrap();
    let derived = derived(&verdict);
    let keys = derived.keys.as_ref().unwrap();
    let keys: Vec<_> = (0..4).map(|row| keys.bytes(row).map(text)).collect();
    let json_key = format!(r#"{{"card":"{MASKED}","n":"xxxxxxxxxxxx1111"}}"#);
    assert_eq!(keys, [Some(MASKED.to_owned()), Some(json_key), Some("7".to_owned()), None]);
    let headers = derived.headers.as_ref().unwrap();
    let first: Vec<_> = headers.of(0).map(|(name, value)| (text(name), value.map(text))).collect();
    assert_eq!(first, [("trace".into(), Some("1".into())), ("card".into(), Some(MASKED.into())), ("card".into(), None)]);
    assert_eq!(headers.of(3).count(), 0);
    assert!(derived.leaves.is_none());
}

/// In a key that holds JSON an escape can hide what is looked for.
#[test]
fn escapes_in_keys() {
    let mut mask = start(json!([{ "fields": ["$key"], "email": {} }]), schema(&[], true));
    let input = Batch { keys: Some(column(Type::Bytes, &[Cell::Blob(br#"{"mail":"jane\u0040b.de"}"#)])), ..batch(&["{}"]) };
    let verdict = mask.process(input).unwrap();
    assert_eq!(derived(&verdict).keys.as_ref().unwrap().bytes(0), Some(&br#"{"mail":"***@b.de"}"#[..]));
}

#[test]
fn names_in_keys_and_headers_are_rejected() {
    let mut mask = everything();
    let mut headers = HeadersBuilder::default();
    headers.close();
    headers.push(CARD.as_bytes(), None);
    headers.close();
    let input = Batch {
        keys: Some(column(Type::Bytes, &[Cell::Blob(br#"{"\u0034444333322221111":1}"#), Cell::Null])),
        headers: Some(headers.finish()),
        ..batch(&["{}", "{}"])
    };
    let verdict = mask.process(input).unwrap();
    assert_eq!(verdict.outcome, Outcome::All);
    assert_eq!(verdict.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_binary_key_is_rejected_and_a_json_key_stays_json() {
    let mut mask = start(json!([{ "fields": "**", "card": {} }]), schema(&[("$key", Type::Int)], true));
    let keys = [4_444_333_322_221_111i64.to_be_bytes(), 7i64.to_be_bytes()];
    let input = Batch { keys: Some(column(Type::Bytes, &[Cell::Blob(&keys[0]), Cell::Blob(&keys[1])])), ..batch(&["{}", "{}"]) };
    let verdict = mask.process(input).unwrap();
    assert_eq!((verdict.outcome, verdict.rejects.len(), verdict.rejects[0].row), (Outcome::All, 1, 0));

    let mut mask = start(json!([{ "fields": ["$key"], "card": {} }]), schema(&[("$key", Type::Json)], true));
    let input = Batch { keys: Some(column(Type::Bytes, &[Cell::Blob(b"4444333322221111")])), ..batch(&["{}"]) };
    let verdict = mask.process(input).unwrap();
    assert_eq!(derived(&verdict).keys.as_ref().unwrap().bytes(0), Some(&br#""xxxxxxxxxxxx1111""#[..]));
}

#[test]
fn declared_texts_go_as_columns() {
    let mut mask = start(
        json!([{ "fields": ["message"], "replace": { "bad": "***" } }, { "fields": ["message"], "card": {} }]),
        schema(&[("message", Type::Text)], true),
    );
    assert!(!mask.description.leaves && mask.description.parts.is_empty() && mask.description.warnings.is_empty());
    let cells = [Cell::Text("bad 4444-3333-2222-1111"), Cell::Null, Cell::Text("fine")];
    let input = |cells: &[Cell<'_>]| Batch { rows: cells.len(), fields: vec![column(Type::Text, cells)], ..Batch::default() };
    let verdict = mask.process(input(&cells)).unwrap();
    let field = &derived(&verdict).fields[0];
    assert_eq!(field.column.cell(0), Cell::Text("*** xxxx-xxxx-xxxx-1111"));
    assert_eq!([0, 1, 2].map(|row| field.kept.get(row)), [false, true, true]);
    assert_eq!(mask.process(input(&cells[1..])).unwrap().outcome, Outcome::All);
}

/// A declared number becomes a text in every row: a field has one type.
#[test]
fn declared_numbers_become_texts() {
    let rules = json!([{ "fields": ["card", "amount"], "card": {} }, { "fields": ["flag"], "whole": {} }]);
    let mut mask =
        start(rules, schema(&[("card", Type::Int), ("amount", Type::Float), ("flag", Type::Boolean), ("other", Type::Int)], true));
    assert!(!mask.description.leaves);
    let written: Vec<_> = mask.description.outputs[0].fields.iter().map(|field| (field.path.to_string(), field.kind)).collect();
    assert_eq!(written, [("card".into(), Type::Text), ("amount".into(), Type::Text), ("flag".into(), Type::Text)]);
    let input = Batch {
        rows: 3,
        fields: vec![
            column(Type::Int, &[Cell::Int(4_444_333_322_221_111), Cell::Int(7), Cell::Null]),
            column(Type::Float, &[Cell::Float(4_444_333_322_221_111.0), Cell::Float(0.5), Cell::Float(4_444_333_322_221_111_111.0)]),
            column(Type::Boolean, &[Cell::Bool(true), Cell::Bool(false), Cell::Null]),
        ],
        ..Batch::default()
    };
    let verdict = mask.process(input).unwrap();
    let cells = |field: usize| [0, 1, 2].map(|row| derived(&verdict).fields[field].column.cell(row));
    assert_eq!(cells(0), [Cell::Text("xxxxxxxxxxxx1111"), Cell::Text("7"), Cell::Null]);
    assert_eq!(cells(1), [Cell::Text("xxxxxxxxxxxx1111"), Cell::Text("0.5"), Cell::Text("xxxxxxxxxxxxxxx1300")]);
    assert_eq!(cells(2), [Cell::Text("***"), Cell::Text("***"), Cell::Null]);
    assert!(derived(&verdict).fields[0].kept.get(2) && !derived(&verdict).fields[0].kept.get(1));
}

/// With `**` beside it, a declared number is still written as a column, and not as a leaf too.
#[test]
fn columns_and_leaves_together() {
    let rules =
        json!([{ "fields": "**", "card": {} }, { "fields": ["user"], "whole": {} }, { "fields": ["note"], "whole": { "with": "-" } }]);
    let mut mask = start(rules, schema(&[("user", Type::Int), ("note", Type::Text)], true));
    assert!(mask.description.leaves);
    let input =
        Batch { fields: vec![column(Type::Int, &[Cell::Int(5)])], ..batch(&[r#"{"user":5,"note":"n","notes":"4444333322221111"}"#]) };
    let verdict = mask.process(input).unwrap();
    assert_eq!(derived(&verdict).fields[0].column.cell(0), Cell::Text("***"));
    assert_eq!(replaced(&verdict), [(1, "-".to_owned()), (2, "xxxxxxxxxxxx1111".to_owned())]);
}

#[test]
fn undeclared_paths_are_found_in_the_leaves() {
    let rules = json!([{ "fields": ["customer", "a.\"b.c\""], "whole": {} }]);
    let mut mask = start(rules, schema(&[], true));
    assert_eq!(mask.description.warnings.len(), 2);
    let records = [
        r#"{"customer":{"name":"x","ids":[1,"y"]},"customers":"z","a":{"b.c":"w","b":{"c":"v"}}}"#,
        r#"{"customers":"z","customer":"u"}"#,
        r#"{"customer":"u","a":null}"#,
        r#"{"customer":[true,null,{}]}"#,
    ];
    let verdict = mask.process(batch(&records)).unwrap();
    assert_eq!(replaced(&verdict).iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), [0, 1, 2, 4, 7, 8, 10]);
}

/// What is remembered of one record's paths must not hold for another's, wherever its leaves stand.
#[test]
fn records_of_different_shapes_follow_one_another() {
    let rules = json!([{ "fields": "**", "card": {} }, { "fields": ["a"], "replace": { "a text to find": "-" } }]);
    let mut mask = start(rules, schema(&[], true));
    let card = "4444333322221111";
    let many: Vec<_> = (0..5000).map(|place| format!("\"f{place}\":1")).collect();
    let many = format!("{{{},\"a\":\"a text to find\",\"b\":\"a text to find\",\"c\":\"{card}\"}}", many.join(","));
    let records = [
        r#"{"x":1,"y":"some long text here","b":"a text to find"}"#,
        "4444333322221111",
        &many,
        r#"{"a":"a text to find"}"#,
        "\"4444333322221111\"",
    ];
    let verdict = mask.process(batch(&records)).unwrap();
    let texts: Vec<_> = replaced(&verdict).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["xxxxxxxxxxxx1111", "-", "xxxxxxxxxxxx1111", "-", "xxxxxxxxxxxx1111"]);
}

#[test]
fn addresses_hashes_and_their_order() {
    let rules = json!([
        { "fields": ["mail"], "email": { "keep_domain": true } },
        { "fields": ["id"], "hash": { "key": "0123456789abcdef", "length": 16 } },
        { "fields": ["late"], "replace": { " at ": "@" } },
        { "fields": ["late"], "email": {} },
    ]);
    let input = schema(&[("mail", Type::Text), ("id", Type::Text), ("late", Type::Text)], true);
    let mut mask = Mask::init(millstream_guest::Setup {
        config: serde_json::from_value(json!({ "rules": rules })).unwrap(),
        input,
        inputs: Vec::new(),
        tables: BTreeMap::new(),
    })
    .unwrap();
    let texts = |cells: [&'static str; 2]| column(Type::Text, &cells.map(Cell::Text));
    let fields = vec![texts(["a.b@c.de", "none"]), texts(["3", "3"]), texts(["jane at home.org", "-"])];
    let verdict = mask.process(Batch { rows: 2, fields, ..Batch::default() }).unwrap();
    let cell = |field: usize, row: usize| derived(&verdict).fields[field].column.cell(row);
    assert_eq!(cell(0, 0), Cell::Text("***@c.de"));
    assert!(derived(&verdict).fields[0].kept.get(1));
    let Cell::Text(hash) = cell(1, 0) else { panic!("a hash is text") };
    assert_eq!((hash.len(), cell(1, 1)), (16, Cell::Text(hash)));
    assert_eq!(cell(2, 0), Cell::Text("***@home.org"));
}

#[test]
fn mistakes_are_found_all_at_once() {
    let rules = json!([
        { "fields": [] , "card": { "keep_last": 5, "char": "7" } },
        { "fields": ["$offset", "a..b", "nowhere"], "whole": {} },
        { "fields": "**" },
        { "fields": ["a"], "card": {}, "whole": {} },
        { "fields": ["a"], "hash": "written down" },
        { "fields": ["bytes", "flag"], "replace": {} },
    ]);
    let input = schema(&[("a", Type::Text), ("bytes", Type::Bytes), ("flag", Type::Boolean)], false);
    let mistakes = describe(rules, input).unwrap_err();
    let at: Vec<_> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(
        at,
        [
            "/rules/4/hash",
            "/rules/0/card/keep_last",
            "/rules/0/card/char",
            "/rules/0/fields",
            "/rules/1/fields/0",
            "/rules/1/fields/1",
            "/rules/1/fields/2",
            "/rules/2",
            "/rules/3",
            "/rules/5/replace",
            "/rules/5/fields/0",
            "/rules/5/fields/1",
        ]
    );
    assert_eq!(describe(json!([]), schema(&[], true)).unwrap_err()[0].at, "/rules");
}

#[test]
fn the_secret_of_a_hash_is_a_reference() {
    let rules = |hash: Value| json!([{ "fields": ["id"], "hash": hash }]);
    for hash in [json!("<secret HASH_KEY>"), json!({ "key": "<secret HASH_KEY>" })] {
        assert!(describe(rules(hash), schema(&[("id", Type::Int)], true)).is_ok());
    }
    assert_eq!(describe(rules(json!({ "key": "<secret K>", "length": 4 })), schema(&[], true)).unwrap_err()[0].at, "/rules/0/hash/length");
}

/// The order in which leaks have happened elsewhere; broken JSON and duplicate keys never reach the plugin.
#[test]
fn random_records_leak_nothing() {
    let mut random = crate::random::Random::from_environment();
    let mut mask = everything();
    for _ in 0..500 {
        let mut records = Vec::new();
        for _ in 0..8 {
            let card = random.pick(&[
                r#""4444-3333-2222-1111""#,
                "4444333322221111",
                r#""no card""#,
                r#""\u0034444\u00a03333.2222/1111""#,
                "12",
                r#""paid with 4444 3333 2222 1111, thanks""#,
            ]);
            records.push(match random.below(3) {
                0 => format!(r#"{{"m":{card},"n":{{"x":[1,{card}]}}}}"#),
                1 => format!(r#"[{card},{{"z":{card}}}]"#),
                _ => format!(r#"{{"c\u0061rd":{card}}}"#),
            });
        }
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        let input = batch(&records);
        let before = input.leaves.clone().unwrap();
        let verdict = mask.process(input).unwrap();
        let mut after: Vec<_> = before.values.iter().map(text).collect();
        if let Outcome::Derive(_) = verdict.outcome {
            replaced(&verdict).into_iter().for_each(|(entry, text)| after[entry as usize] = text);
        }
        for (old, new) in before.values.iter().map(text).zip(after) {
            let digits: String = new.chars().filter(char::is_ascii_digit).collect();
            assert!(!digits.contains("4444333322221111"), "seed {}: {new}", random.seed());
            assert!(old.contains("4444") || old == new, "seed {}", random.seed());
        }
    }
}

#[test]
fn an_empty_batch() {
    let mut mask = everything();
    let input =
        Batch { leaves: Some(Leaves { offsets: vec![0], paths: Strings::default(), values: Strings::default() }), ..Batch::default() };
    assert_eq!(mask.process(input).unwrap().outcome, Outcome::All);
}
