//! What records of JSON look like: a type for every path, from samples.

use crate::column::Type;
use crate::field::Path;
use serde_json::Value;
use std::collections::HashMap;

/// More members than this: names are data (a dictionary), and the object is taken as a whole.
const DICTIONARY: usize = 100;
/// Objects nested deeper are taken as a whole.
const DEPTH: usize = 16;

/// Samples, summed up.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Records that are objects.
    pub objects: usize,
    /// Valid JSON that is no object.
    pub others: usize,
    root: Members,
}

/// A field as the samples have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    pub path: Path,
    pub kind: Type,
    /// Null or missing in some record.
    pub nullable: bool,
    /// Records in which it has a value.
    pub values: usize,
    pub nulls: usize,
    /// Why it is `json`, and other things worth knowing; empty if there is nothing.
    pub remark: String,
}

#[derive(Clone, Debug, Default)]
struct Members {
    /// In the order of their first appearance.
    all: Vec<(String, Seen)>,
    places: HashMap<String, usize>,
}

/// How often a member had which type.
#[derive(Clone, Debug, Default)]
struct Seen {
    nulls: usize,
    booleans: usize,
    ints: usize,
    floats: usize,
    texts: usize,
    arrays: usize,
    objects: usize,
    members: Members,
}

impl Samples {
    pub fn add(&mut self, record: &Value) {
        match record {
            Value::Object(members) => {
                self.objects += 1;
                self.root.add(members, 1);
            }
            _ => self.others += 1,
        }
    }

    /// The fields, in the order in which they first appeared.
    pub fn fields(&self) -> Vec<Inferred> {
        let mut fields = Vec::new();
        self.root.list(self.objects, &mut Vec::new(), &mut fields);
        fields
    }
}

impl Members {
    fn add(&mut self, members: &serde_json::Map<String, Value>, depth: usize) {
        for (name, value) in members {
            let place = match self.places.get(name) {
                Some(place) => *place,
                // Enough to know that it is a dictionary; a stream of new names must not fill the memory.
                None if self.all.len() > DICTIONARY => continue,
                None => {
                    self.places.insert(name.clone(), self.all.len());
                    self.all.push((name.clone(), Seen::default()));
                    self.all.len() - 1
                }
            };
            if let Some((_, seen)) = self.all.get_mut(place) {
                seen.add(value, depth);
            }
        }
    }

    fn list(&self, records: usize, parents: &mut Vec<String>, fields: &mut Vec<Inferred>) {
        for (name, seen) in &self.all {
            parents.push(name.clone());
            if seen.is_nested() {
                seen.members.list(records, parents, fields);
            } else {
                fields.push(seen.field(Path(parents.clone()), records));
            }
            parents.pop();
        }
    }
}

impl Seen {
    fn add(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) if number.is_i64() => self.ints += 1,
            Value::Number(_) => self.floats += 1,
            Value::String(_) => self.texts += 1,
            Value::Array(_) => self.arrays += 1,
            Value::Object(members) => {
                self.objects += 1;
                if depth < DEPTH {
                    self.members.add(members, depth + 1);
                }
            }
        }
    }

    fn values(&self) -> usize {
        self.booleans + self.ints + self.floats + self.texts + self.arrays + self.objects
    }

    /// Whether its members stand for it: it is always an object, if anything, and has some.
    fn is_nested(&self) -> bool {
        self.objects > 0 && self.objects == self.values() && (1..=DICTIONARY).contains(&self.members.all.len())
    }

    fn field(&self, path: Path, records: usize) -> Inferred {
        let values = self.values();
        let only = |count: usize| count == values;
        let (kind, remark) = match () {
            () if values == 0 => (Type::Json, "always null".to_owned()),
            () if only(self.ints) => (Type::Int, String::new()),
            () if only(self.ints + self.floats) => {
                (Type::Float, if self.ints > 0 { format!("{} of them written as int", self.ints) } else { String::new() })
            }
            () if only(self.texts) => (Type::Text, String::new()),
            () if only(self.booleans) => (Type::Boolean, String::new()),
            () if only(self.arrays) => (Type::Json, "an array".to_owned()),
            () if only(self.objects) && self.members.all.len() > DICTIONARY => {
                (Type::Json, format!("an object of more than {DICTIONARY} names: a dictionary?"))
            }
            () if only(self.objects) => (Type::Json, "an object".to_owned()),
            () => (Type::Json, self.mixture()),
        };
        Inferred { path, kind, nullable: values < records, values, nulls: self.nulls, remark }
    }

    fn mixture(&self) -> String {
        let counts = [
            (self.ints, "int"),
            (self.floats, "float"),
            (self.texts, "text"),
            (self.booleans, "boolean"),
            (self.arrays, "array"),
            (self.objects, "object"),
        ];
        let named: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{name} {count}")).collect();
        format!("mixed: {}", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(records: &[&str]) -> Vec<(String, String)> {
        let mut samples = Samples::default();
        records.iter().for_each(|record| samples.add(&serde_json::from_str(record).unwrap()));
        let typed = |field: Inferred| (field.path.to_string(), format!("{}{}", field.kind, if field.nullable { "?" } else { "" }));
        samples.fields().into_iter().map(typed).collect()
    }

    fn expected(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(path, kind)| ((*path).to_owned(), (*kind).to_owned())).collect()
    }

    #[test]
    fn types_are_those_that_hold_every_sample() {
        let records = [
            r#"{"i":1,"f":1,"t":"x","b":true,"list":[1],"mixed":1,"big":9223372036854775808,"empty":{}}"#,
            r#"{"i":-2,"f":1.5,"t":"","b":false,"list":[],"mixed":"1","big":1,"empty":{}}"#,
        ];
        let fields = [
            ("i", "int"),
            ("f", "float"),
            ("t", "text"),
            ("b", "boolean"),
            ("list", "json"),
            ("mixed", "json"),
            ("big", "float"),
            ("empty", "json"),
        ];
        assert_eq!(infer(&records), expected(&fields));
    }

    #[test]
    fn what_is_null_or_missing_once_is_nullable() {
        let records = [r#"{"a":1,"b":null,"c":null,"o":{"x":1,"y":1}}"#, r#"{"b":1,"c":null,"a":2}"#, r#"{"a":3,"b":1,"o":{"x":2}}"#];
        assert_eq!(infer(&records), expected(&[("a", "int"), ("b", "int?"), ("c", "json?"), ("o.x", "int?"), ("o.y", "int?")]));
    }

    #[test]
    fn objects_become_paths_unless_they_are_something_else_too() {
        let records = [r#"{"a":{"b.c":{"d":"x"}},"m":{"k":1}}"#, r#"{"a":{"b.c":{"d":"y"}},"m":3}"#];
        assert_eq!(infer(&records), expected(&[("a.\"b.c\".d", "text"), ("m", "json")]));
        let mut samples = Samples::default();
        for place in 0..=2 * DICTIONARY {
            samples.add(&serde_json::json!({ "by_id": { place.to_string(): 1 } }));
        }
        let fields = samples.fields();
        assert_eq!((fields.len(), fields[0].kind, fields[0].nullable), (1, Type::Json, false));
        assert!(fields[0].remark.contains("dictionary"), "{}", fields[0].remark);
    }

    #[test]
    fn records_that_are_no_objects_are_counted_apart() {
        let mut samples = Samples::default();
        samples.add(&serde_json::json!([1]));
        samples.add(&serde_json::json!({ "a": 1 }));
        assert_eq!((samples.objects, samples.others, samples.fields()[0].nullable), (1, 1, false));
    }
}
