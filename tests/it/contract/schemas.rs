//! The JSON schemas of 1.0 against the published ones. What plugins give may be told in more ways than then; what plugins get may not, beyond members that they
//! pass over.

use super::{MEANING, read};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Who reads what a schema describes.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    /// Everything that was right then is right now.
    Host,
    /// Everything that is right now was right then.
    Plugin,
}

const SCHEMAS: [(&str, Reader); 4] = [
    ("about.schema.json", Reader::Host),
    ("describe-request.schema.json", Reader::Plugin),
    ("describe-answer.schema.json", Reader::Host),
    ("describe-errors.schema.json", Reader::Host),
];

struct Comparison<'a> {
    then: &'a Value,
    now: &'a Value,
    reader: Reader,
    broken: Vec<String>,
    /// Pairs of definitions that are looked at already.
    seen: BTreeSet<(String, String)>,
}

/// What a reference leads to.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"].as_array().filter(|all| all.len() == 1)?[0]["$ref"].as_str());
    match reference {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => schema,
    }
}

/// A schema as a list of alternatives: its types, texts and members of `oneOf` and `anyOf`.
fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> Vec<(String, &'a Value)> {
    let schema = resolved(root, schema);
    if let Some(any) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return any.iter().flat_map(|one| alternatives(root, one)).collect();
    }
    if let Some(texts) = schema["enum"].as_array() {
        return texts.iter().map(|text| (text.to_string(), schema)).collect();
    }
    if !schema["const"].is_null() {
        return vec![(schema["const"].to_string(), schema)];
    }
    match &schema["type"] {
        Value::Array(types) => types.iter().map(|kind| (kind.as_str().unwrap().to_owned(), schema)).collect(),
        Value::String(kind) => vec![(kind.clone(), schema)],
        _ => vec![("anything".to_owned(), schema)],
    }
}

impl Comparison<'_> {
    fn compare(&mut self, at: &str, then: &Value, now: &Value) {
        if !self.seen.insert((then.to_string(), now.to_string())) {
            return;
        }
        let (was, is) = (alternatives(self.then, then), alternatives(self.now, now));
        // Whatever the writer may write, the reader must know.
        let (written, known, told) =
            if self.reader == Reader::Host { (&was, &is, "is not taken any more") } else { (&is, &was, "was not there") };
        let anything = known.iter().any(|(name, _)| name == "anything");
        for (name, _) in written.iter().filter(|(name, _)| !anything && !known.iter().any(|(known, _)| known == name)) {
            self.broken.push(format!("{at}: {name} {told}"));
        }
        let pairs: Vec<_> = was.iter().filter_map(|(name, was)| Some((*was, is.iter().find(|(is, _)| is == name)?.1))).collect();
        for (was, is) in pairs {
            self.inside(at, was, is);
        }
    }

    fn inside(&mut self, at: &str, was: &Value, is: &Value) {
        let names = |schema: &Value| -> BTreeSet<String> {
            schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let (then, now) = (names(was), names(is));
        let (wanted, sure, told) = if self.reader == Reader::Host { (&now, &then, "is wanted") } else { (&then, &now, "may be missing") };
        self.broken.extend(wanted.difference(sure).map(|name| format!("{at}.{name} {told}, which was not so")));
        for (name, was) in was["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match is["properties"].get(name) {
                None => self.broken.push(format!("{at} is gone")),
                Some(is) => {
                    // What stands for a member that is not there.
                    if was["default"] != is["default"] {
                        self.broken.push(format!("{at} has another default: {}, not {}", is["default"], was["default"]));
                    }
                    self.compare(&at, was, is);
                }
            }
        }
        for part in ["items", "additionalProperties"] {
            match (&was[part], &is[part]) {
                (Value::Null, Value::Null) => {}
                (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
                    was.iter().zip(is).for_each(|(was, is)| self.compare(&format!("{at}[]"), was, is));
                }
                (Value::Object(_), Value::Object(_)) => self.compare(&format!("{at}[]"), &was[part], &is[part]),
                (was, is) => self.broken.push(format!("{at}: {part} was {was}, is {is}")),
            }
        }
        for bound in ["minimum", "maximum", "minItems", "maxItems", "pattern"] {
            if was[bound] != is[bound] {
                self.broken.push(format!("{at}: {bound} was {}, is {}", was[bound], is[bound]));
            }
        }
    }
}

fn broken(then: &Value, now: &Value, reader: Reader) -> Vec<String> {
    let mut comparison = Comparison { then, now, reader, broken: Vec::new(), seen: BTreeSet::new() };
    comparison.compare("$", then, now);
    comparison.broken
}

fn schema(folder: &str, name: &str) -> Value {
    serde_json::from_str(&read(&format!("{folder}/{name}"))).unwrap()
}

#[test]
fn what_the_schemas_of_1_0_had_is_there() {
    for (name, reader) in SCHEMAS {
        let broken = broken(&schema("tests/frozen/1.0/wit", name), &schema("wit", name), reader);
        assert!(broken.is_empty(), "wit/{name}: {MEANING}:\n{}", broken.join("\n"));
    }
}

#[test]
fn changes_that_break_are_told_from_those_that_do_not() {
    let change = |name: &str, pointer: &str, to: Value| {
        let (then, reader) = (schema("wit", name), SCHEMAS.iter().find(|(known, _)| *known == name).unwrap().1);
        let mut now = then.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let parent = now.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
        match to {
            Value::Null => drop(parent.as_object_mut().unwrap().remove(member).unwrap()),
            to => parent[member] = to,
        }
        broken(&then, &now, reader)
    };
    let (answer, request) = ("describe-answer.schema.json", "describe-request.schema.json");
    for (name, pointer, to, told) in [
        (answer, "/properties/table_keys", Value::Null, "$.table_keys is gone"),
        (answer, "/definitions/Window/properties/grace/type", json!("string"), "$.window.grace: integer is not taken"),
        (answer, "/definitions/Window/properties/grace/default", json!(5), "$.window.grace has another default"),
        (answer, "/definitions/Type/oneOf/0/enum", json!(["boolean", "int", "float", "text"]), "\"bytes\" is not taken"),
        (answer, "/definitions/Output/required", json!(["name", "base", "key"]), "$.outputs[].key is wanted"),
        (answer, "/properties/outputs/type", json!("object"), "$.outputs: array is not taken"),
        (request, "/required", json!(["config"]), "$.input may be missing"),
        (
            request,
            "/definitions/Type/oneOf/0/enum",
            json!(["boolean", "int", "float", "text", "bytes", "decimal"]),
            "\"decimal\" was not there",
        ),
        (request, "/definitions/Schema/properties/open/type", json!(["boolean", "null"]), "null was not there"),
    ] {
        let broken = change(name, pointer, to);
        assert!(broken.iter().any(|broken| broken.contains(told)), "{pointer}: {broken:?}");
    }
    for (name, pointer, to) in [
        (answer, "/properties/more", json!({ "type": "boolean", "default": false })),
        (answer, "/definitions/Type/oneOf/0/enum", json!(["boolean", "int", "float", "text", "bytes", "decimal"])),
        (answer, "/definitions/Output/required", json!(["name"])),
        (request, "/properties/more", json!({ "type": "boolean" })),
        (request, "/required", json!(["config", "input", "inputs"])),
        (request, "/properties/config/description", json!("another")),
    ] {
        assert_eq!(change(name, pointer, to), Vec::<String>::new(), "{pointer}");
    }
}
