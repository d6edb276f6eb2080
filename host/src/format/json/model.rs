//! The format against a model: random texts, good and broken, read and edited here and by way of serde_json. A failure prints its seed;
//! `MILLSTREAM_SEED=N` runs that one again, `MILLSTREAM_CASES=N` runs more of them.

use super::{Json, scan};
use crate::column::{Bitmap, Cell, Column, ColumnBuilder, Indexed, Strings, Type};
use crate::field::Path;
use crate::format::{Change, Format, Wanted};
use crate::plugin::ReplacedLeaves;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Xorshift: enough for tests, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Runs a property for many seeds.
fn for_seeds(cases: u64, property: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("MILLSTREAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLSTREAM_CASES").unwrap_or(cases),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| property(&mut Random::new(seed))) {
            eprintln!("run it again with MILLSTREAM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const NAMES: [&str; 8] = ["a", "b", "c", "a.b", "", "ä", "a_long_name_1", "a_long_name_2"];

fn space(random: &mut Random, out: &mut String) {
    if random.one_in(6) {
        out.push_str(random.pick(&[" ", "\n", "\t", "\r\n", "    "]));
    }
}

fn name(random: &mut Random, out: &mut String) {
    out.push('"');
    for character in NAMES[random.below(NAMES.len())].chars() {
        if random.one_in(12) {
            out.push_str(&format!("\\u{:04x}", character as u32));
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn text(random: &mut Random, out: &mut String) {
    out.push('"');
    for _ in 0..random.below(6) {
        let plain = ["x", "4444 3333", "ä", "😀", "/", "\u{7f}", "eight by", "{[:,]}"];
        let escapes = ["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u00e4", "\\ud83d\\ude00", "\\u0000"];
        match random.below(40) {
            0 => out.push_str(random.pick(&["\\ud800", "\\udc00x", "\\ud83d\\u0041"])),
            1..=12 => out.push_str(random.pick(&escapes)),
            _ => out.push_str(random.pick(&plain)),
        }
    }
    out.push('"');
}

fn value(random: &mut Random, depth: usize, out: &mut String) {
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => out.push_str(random.pick(&["null", "true", "false"])),
        1 | 2 => text(random, out),
        3 => out.push_str(&(random.next() as i64 >> random.below(48)).to_string()),
        4 => {
            out.push_str(random.pick(&["0", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616"]))
        }
        5 => {
            out.push_str(random.pick(&["-0.0", "1.5", "1e3", "1E-7", "0.1e+2", "1e-400", "1.7976931348623157e308", "123456789.987654321"]))
        }
        6 => {
            out.push('[');
            for place in 0..random.below(4) {
                if place > 0 {
                    out.push(',');
                }
                space(random, out);
                value(random, depth - 1, out);
                space(random, out);
            }
            out.push(']');
        }
        _ => object(random, depth - 1, out),
    }
}

fn object(random: &mut Random, depth: usize, out: &mut String) {
    out.push('{');
    space(random, out);
    // Now and then more than what is searched one by one; nearly always with a name twice.
    let members = if random.one_in(60) { 20 } else { random.below(5) };
    for place in 0..members {
        if place > 0 {
            out.push(',');
            space(random, out);
        }
        name(random, out);
        space(random, out);
        out.push(':');
        space(random, out);
        value(random, depth, out);
        space(random, out);
    }
    out.push('}');
}

/// A text that is JSON, an object more often than not.
fn json(random: &mut Random) -> String {
    let mut out = String::new();
    space(random, &mut out);
    if random.one_in(10) {
        value(random, 3, &mut out)
    } else {
        object(random, 3, &mut out)
    }
    space(random, &mut out);
    out
}

/// Breaks a text, or not quite.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => bytes.insert(at, b"{}[],:\"\\0-.eE+tfn u\x00\xff"[random.below(21)]),
            _ if at == bytes.len() => {}
            3 => bytes[at] = random.next() as u8,
            _ => {
                bytes.remove(at);
            }
        }
    }
}

/// What a text says, with every member in its order, be it there twice.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Builder;
        impl<'de> Visitor<'de> for Builder {
            type Value = Tree;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Number(value.into()))
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
                serde_json::Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom("not finite"))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Tree::Array(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Tree::Object(all))
            }
        }
        deserializer.deserialize_any(Builder)
    }
}

/// None: half a surrogate, or a number beyond the doubles, which the model cannot hold.
fn tree(bytes: &[u8]) -> Option<Tree> {
    serde_json::from_slice(bytes).ok()
}

impl Tree {
    /// Err: the path or one that leads to it is there twice.
    fn get(&self, path: &[String]) -> Result<Option<&Tree>, ()> {
        let Some((first, rest)) = path.split_first() else { return Ok(Some(self)) };
        let Self::Object(members) = self else { return Ok(None) };
        let mut named = members.iter().filter(|(name, _)| name == first);
        match (named.next(), named.next()) {
            (None, _) => Ok(None),
            (Some((_, member)), None) => member.get(rest),
            _ => Err(()),
        }
    }

    /// Err: it is there twice, or a parent is no object.
    fn edit(&mut self, path: &[String], new: Option<&Tree>) -> Result<(), ()> {
        let Self::Object(members) = self else { return if new.is_some() { Err(()) } else { Ok(()) } };
        let Some((first, rest)) = path.split_first() else { return Err(()) };
        let places: Vec<usize> = (0..members.len()).filter(|place| members[*place].0 == *first).collect();
        match (places.as_slice(), new) {
            ([], None) => Ok(()),
            ([], Some(new)) => {
                let nested = rest.iter().rev().fold(new.clone(), |inner, name| Self::Object(vec![(name.clone(), inner)]));
                members.push((first.clone(), nested));
                Ok(())
            }
            ([place], new) => match (rest, new) {
                ([], Some(new)) => {
                    members[*place].1 = new.clone();
                    Ok(())
                }
                ([], None) => {
                    members.remove(*place);
                    Ok(())
                }
                _ => members[*place].1.edit(rest, new),
            },
            _ => Err(()),
        }
    }

    /// Leaves, in order. Err: some object has a member twice.
    fn leaves(&self, path: &str, all: &mut Vec<(String, Tree)>) -> Result<(), ()> {
        match self {
            Self::Array(items) if !items.is_empty() => {
                for (place, item) in items.iter().enumerate() {
                    item.leaves(&format!("{path}[{place}]"), all)?;
                }
            }
            Self::Object(members) if !members.is_empty() => {
                for (place, (name, member)) in members.iter().enumerate() {
                    if members[..place].iter().any(|(other, _)| other == name) {
                        return Err(());
                    }
                    let dot = if path.is_empty() { "" } else { "." };
                    member.leaves(&format!("{path}{dot}{}", Path(vec![name.clone()])), all)?;
                }
            }
            _ => all.push((path.to_owned(), self.clone())),
        }
        Ok(())
    }

    /// Alike, but for the last digit of doubles: serde_json reads them less exactly.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => one == other || numbers_alike(one, other),
            (Self::Array(one), Self::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is_like(other))
            }
            (Self::Object(one), Self::Object(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && one.1.is_like(&other.1))
            }
            _ => self == other,
        }
    }
}

fn numbers_alike(one: &serde_json::Number, other: &serde_json::Number) -> bool {
    let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) else { return false };
    (one - other).abs() <= one.abs() * 1e-15
}

fn blobs(rows: &[&[u8]]) -> Column {
    let mut column = ColumnBuilder::new(Type::Bytes, rows.len());
    rows.iter().for_each(|row| column.bytes(row));
    column.finish()
}

fn all(column: &Column) -> Indexed<'_> {
    Indexed { column, index: None }
}

fn path(random: &mut Random) -> Path {
    Path((0..=random.below(3)).map(|_| NAMES[random.below(NAMES.len())].to_owned()).collect())
}

/// A change as a test makes it: a path, and the JSON text or None = removed.
type Edit = (Path, Option<String>);

fn splice(base: &[u8], edits: &[Edit]) -> Result<Vec<u8>, &'static str> {
    let none = Bitmap::default();
    let columns: Vec<_> = edits
        .iter()
        .map(|(_, new)| {
            let mut column = ColumnBuilder::new(Type::Json, 1);
            column.cell(new.as_deref().map_or(Cell::Null, Cell::Json));
            (column.finish(), Bitmap::filled(1, new.is_none()))
        })
        .collect();
    let changes: Vec<_> = edits
        .iter()
        .zip(&columns)
        .map(|((path, _), (column, removed))| Change { path, column: all(column), kept: &none, removed })
        .collect();
    let encoded = Json.encode(Some(all(&blobs(&[base]))), 1, &changes);
    match encoded.failed.first() {
        Some(failed) => Err(failed.error.code),
        None => Ok(encoded.values.bytes(0).expect("a row without an error has a value").to_vec()),
    }
}

#[test]
fn validity_agrees() {
    for_seeds(20_000, |random| {
        let mut bytes = json(random).into_bytes();
        if !random.one_in(4) {
            mutate(random, &mut bytes);
        }
        let valid = std::str::from_utf8(&bytes).is_ok() && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        let values = blobs(&[&bytes]);
        let some = Wanted { path: path(random), kind: Type::Json, from: None };
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(Json.decode(all(&values), 1, &[some]).failed.is_empty(), valid, "{shown}");
        let spliced = splice(&bytes, &[(path(random), None)]);
        // A duplicate is told at once, whatever follows.
        assert!(if valid { matches!(spliced, Ok(_) | Err("duplicate_field")) } else { spliced.is_err() }, "{shown}: {spliced:?}");
        let (_, failed) = Json.leaves(all(&values), 1);
        let accepted = failed.iter().all(|error| matches!(error.code, "duplicate_field" | "lone_surrogate"));
        assert!(if valid { accepted } else { !failed.is_empty() }, "{shown}: {failed:?}");
        if std::str::from_utf8(&bytes).is_ok() && !bytes.is_empty() {
            assert_eq!(scan::validate(&bytes).is_ok(), valid, "{shown}");
        }
    });
}

#[test]
fn arbitrary_bytes_never_panic() {
    for_seeds(5_000, |random| {
        let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        let values = blobs(&[&bytes]);
        let wanted = [Type::Int, Type::Text, Type::Json].map(|kind| Wanted { path: path(random), kind, from: None });
        Json.decode(all(&values), 1, &wanted);
        Json.leaves(all(&values), 1);
        let _ = splice(&bytes, &[(path(random), Some("1".to_owned())), (path(random), None)]);
    });
}

#[test]
fn projection_agrees() {
    for_seeds(20_000, |random| {
        let bytes = json(random).into_bytes();
        let Some(model) = tree(&bytes) else { return };
        let kinds = [Type::Int, Type::Float, Type::Text, Type::Boolean, Type::Json];
        let wanted: Vec<_> = (0..4).map(|_| Wanted { path: path(random), kind: kinds[random.below(5)], from: None }).collect();
        let decoded = Json.decode(all(&blobs(&[&bytes])), 1, &wanted);
        assert!(decoded.failed.is_empty());
        for (wanted, field) in wanted.iter().zip(decoded.fields) {
            let shown = format!("{} as {} in {}", wanted.path, wanted.kind, String::from_utf8_lossy(&bytes));
            let (code, cell) = (field.errors.first().map(|error| error.code), field.column.cell(0));
            let agrees = match (model.get(&wanted.path.0), wanted.kind) {
                (Err(()), _) => code == Some("duplicate_field"),
                (Ok(None | Some(Tree::Null)), _) => code.is_none() && cell == Cell::Null,
                (Ok(Some(found)), Type::Json) => matches!(cell, Cell::Json(text) if tree(text.as_bytes()).as_ref() == Some(found)),
                (Ok(Some(Tree::Bool(value))), Type::Boolean) => cell == Cell::Bool(*value),
                (Ok(Some(Tree::Text(text))), Type::Text) => cell == Cell::Text(text),
                (Ok(Some(Tree::Number(number))), Type::Float) => {
                    matches!(cell, Cell::Float(value) if numbers_alike(number, &serde_json::Number::from_f64(value).expect("finite")))
                }
                (Ok(Some(Tree::Number(number))), Type::Int) => match number.as_i64() {
                    Some(value) => cell == Cell::Int(value),
                    None => matches!(code, Some("wrong_type" | "out_of_range")),
                },
                (Ok(Some(_)), _) => code == Some("wrong_type"),
            };
            assert!(agrees, "{shown}: {code:?}, {cell:?}");
        }
    });
}

#[test]
fn splicing_agrees() {
    for_seeds(20_000, |random| {
        let bytes = json(random).into_bytes();
        let Some(mut model) = tree(&bytes) else { return };
        let edits: Vec<Edit> = (0..1 + random.below(4))
            .map(|_| {
                let mut new = String::new();
                value(random, 2, &mut new);
                (path(random), Some(new).filter(|new| tree(new.as_bytes()).is_some() && !random.one_in(3)))
            })
            .collect();
        let outcome =
            edits.iter().try_for_each(|(path, new)| model.edit(&path.0, new.as_ref().and_then(|new| tree(new.as_bytes())).as_ref()));
        let spliced = splice(&bytes, &edits);
        let shown = format!("{} with {edits:?}", String::from_utf8_lossy(&bytes));
        match (outcome, spliced) {
            (Ok(()), Ok(spliced)) => {
                let got = tree(&spliced);
                assert!(got.is_some_and(|got| got.is_like(&model)), "{shown}: {}", String::from_utf8_lossy(&spliced));
            }
            (Err(()), Err("duplicate_field" | "not_an_object")) => {}
            (outcome, spliced) => panic!("{shown}: {outcome:?}, {spliced:?}"),
        }
    });
}

#[test]
fn what_is_spliced_back_leaves_the_very_bytes() {
    for_seeds(20_000, |random| {
        let bytes = json(random).into_bytes();
        let place = path(random);
        let wanted = Wanted { path: place.clone(), kind: Type::Json, from: None };
        let field = Json.decode(all(&blobs(&[&bytes])), 1, &[wanted]).fields.remove(0);
        let Ok(changed) = splice(&bytes, &[(place.clone(), Some("\"new\"".to_owned()))]) else { return };
        let back = match field.column.cell(0) {
            Cell::Json(source) => splice(&changed, &[(place, Some(source.to_owned()))]),
            // It was missing, and so may have been its parents: remove the outermost that was added.
            _ => {
                let added = (1..=place.0.len()).map(|length| Path(place.0[..length].to_vec())).find(|prefix| {
                    let wanted = Wanted { path: prefix.clone(), kind: Type::Json, from: None };
                    Json.decode(all(&blobs(&[&bytes])), 1, &[wanted]).fields[0].column.is_null(0)
                });
                let added = added.expect("the path itself at the latest");
                let was_null = tree(&bytes).is_none_or(|tree| tree.get(&added.0) != Ok(None));
                if was_null {
                    return;
                }
                splice(&changed, &[(added, None)])
            }
        };
        assert_eq!(back.map(String::from_utf8), Ok(String::from_utf8(bytes)), "through {}", String::from_utf8_lossy(&changed));
    });
}

#[test]
fn leaves_agree() {
    for_seeds(20_000, |random| {
        let bytes = json(random).into_bytes();
        let Some(model) = tree(&bytes) else { return };
        let values = blobs(&[&bytes]);
        let (leaves, failed) = Json.leaves(all(&values), 1);
        let shown = String::from_utf8_lossy(&bytes);
        let mut expected = Vec::new();
        if model.leaves("", &mut expected).is_err() {
            assert_eq!(failed.first().map(|error| error.code), Some("duplicate_field"), "{shown}");
            return;
        }
        assert!(failed.is_empty(), "{shown}: {failed:?}");
        assert_eq!(
            (leaves.paths.len(), leaves.values.len(), leaves.spans.len()),
            (expected.len(), expected.len(), expected.len()),
            "{shown}"
        );
        for (place, (path, leaf)) in expected.iter().enumerate() {
            assert_eq!(leaves.paths.get(place), path.as_bytes(), "{shown}");
            match leaf {
                Tree::Text(text) => assert_eq!(leaves.values.get(place), text.as_bytes(), "{shown}"),
                leaf => assert_eq!(tree(leaves.values.get(place)).as_ref(), Some(leaf), "{shown}"),
            }
        }
        // Every second leaf gets a new text; bytes outside of the leaves stay.
        let entries: Vec<u32> = (0..expected.len() as u32).filter(|_| random.one_in(2)).collect();
        let mut new = Strings::default();
        entries.iter().for_each(|_| new.push("\"ä\n".as_bytes()));
        let replaced = Json.replace_leaves(all(&values), 1, &leaves, &ReplacedLeaves { entries: entries.clone(), values: new });
        let mut by_hand = bytes.clone();
        for entry in entries.iter().rev() {
            let (from, to) = leaves.spans[*entry as usize];
            by_hand.splice(from as usize..to as usize, r#""\"ä\n""#.bytes());
        }
        assert_eq!(replaced.bytes(0), Some(&by_hand[..]), "{shown}");
    });
}
