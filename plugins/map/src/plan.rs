//! From the configuration to what is read and written, with every mistake on the way.

use crate::{Config, cast};
use millstream_expression::{Expression, Kind, Ordered, Scope, Unresolved, pointer};
use millstream_guest::column::Type;
use millstream_guest::describe::{Base, Description, FieldType, Mistake, Output, OutputKey, Part, Schema};
use millstream_guest::field::{Field, Path};

/// What becomes of records.
pub struct Plan {
    pub writes: Vec<Write>,
    pub key: Option<Key>,
    pub timestamp: Option<Expression>,
    description: Description,
}

/// A field of the value that is written or removed.
pub struct Write {
    pub path: Path,
    pub change: Change,
}

pub enum Change {
    Set(Expression),
    /// From the field at this place of the reads.
    Rename(usize),
    Cast {
        read: usize,
        from: Type,
        to: Type,
    },
    Remove,
}

pub struct Key {
    pub expression: Expression,
    /// It needs fields of the value, which a tombstone does not have.
    pub needs_value: bool,
}

/// A write, with the place in the configuration that asks for it.
struct Draft {
    write: Write,
    kind: Type,
    nullable: bool,
    at: String,
}

struct Planner<'a> {
    scope: Scope<'a>,
    drafts: Vec<Draft>,
    mistakes: Vec<Mistake>,
}

impl Plan {
    pub fn new(config: &Config, input: &Schema) -> Result<Self, Vec<Mistake>> {
        let mut planner = Planner { scope: Scope::new(input), drafts: Vec::new(), mistakes: Vec::new() };
        if config.set.0.is_empty() && config.rename.0.is_empty() && config.remove.is_empty() && config.cast.0.is_empty() {
            planner.mistake(String::new(), "nothing is to be done", Some("give `set`, `rename`, `remove` or `cast`"));
        }
        planner.rename(&config.rename);
        planner.cast(&config.cast);
        let (key, timestamp) = planner.set(&config.set, input);
        planner.remove(&config.remove);
        planner.remove_old_names(&config.rename);
        planner.overlaps();
        if !planner.mistakes.is_empty() {
            return Err(planner.mistakes);
        }
        let Planner { scope, drafts, .. } = planner;
        let removes = drafts.iter().filter(|draft| matches!(draft.write.change, Change::Remove));
        let removes = removes.map(|draft| Field::Value(draft.write.path.clone())).collect();
        let field = |draft: &Draft| FieldType { path: Field::Value(draft.write.path.clone()), kind: draft.kind, nullable: draft.nullable };
        let description = Description {
            reads: scope.reads().to_vec(),
            // A delete must meet the key that its record was given; the value tells which rows are deletes.
            tombstones: key.is_some(),
            parts: if key.is_some() { vec![Part::Value] } else { Vec::new() },
            outputs: vec![Output {
                name: "out".to_owned(),
                base: Base::Extend,
                fields: drafts.iter().map(field).collect(),
                removes,
                key: if key.is_some() { OutputKey::Text } else { OutputKey::Kept },
            }],
            warnings: scope.warnings().to_vec(),
            ..Description::default()
        };
        Ok(Self { writes: drafts.into_iter().map(|draft| draft.write).collect(), key, timestamp, description })
    }

    pub fn describe(self) -> Description {
        self.description
    }
}

impl Planner<'_> {
    fn mistake(&mut self, at: String, message: impl Into<String>, proposal: Option<&str>) {
        self.mistakes.push(Mistake { at, span: None, message: message.into(), proposal: proposal.map(str::to_owned) });
    }

    fn draft(&mut self, path: Path, change: Change, (kind, nullable): (Type, bool), at: String) {
        self.drafts.push(Draft { write: Write { path, change }, kind, nullable, at });
    }

    /// A path of the value.
    fn path(&mut self, text: &str, at: &str) -> Option<Path> {
        match Field::parse(text) {
            Ok(Field::Value(path)) => return Some(path),
            Ok(pseudo) => self.mistake(
                at.to_owned(),
                format!("`{pseudo}` is not a field of the value"),
                Some("of the rest of a record, `set` can write $key and $timestamp"),
            ),
            Err(error) => self.mistake(at.to_owned(), error.to_string(), None),
        }
        None
    }

    fn known(&mut self, path: &Path, at: &str) -> Option<(Type, bool)> {
        match self.scope.field(&Field::Value(path.clone())) {
            Ok(known) => Some(known),
            Err(Unresolved { message, proposal }) => {
                self.mistakes.push(Mistake { at: at.to_owned(), span: None, message, proposal });
                None
            }
        }
    }

    fn rename(&mut self, rename: &Ordered<String>) {
        for (old, new) in &rename.0 {
            let at = pointer(&["rename", old]);
            let (Some(old), Some(new)) = (self.path(old, &at), self.path(new, &at)) else { continue };
            let Some((kind, nullable)) = self.known(&old, &at) else { continue };
            let read = self.scope.read(Field::Value(old), kind);
            self.draft(new, Change::Rename(read), (kind, nullable), at);
        }
    }

    /// The old names, but not those that another field takes.
    fn remove_old_names(&mut self, rename: &Ordered<String>) {
        for (old, _) in &rename.0 {
            let Ok(Field::Value(path)) = Field::parse(old) else { continue };
            let taken = rename.0.iter().any(|(_, new)| Field::parse(new).is_ok_and(|new| new == Field::Value(path.clone())))
                || self.drafts.iter().any(|draft| draft.write.path == path && matches!(draft.write.change, Change::Set(_)));
            if !taken {
                self.draft(path, Change::Remove, (Type::Json, true), pointer(&["rename", old]));
            }
        }
    }

    fn cast(&mut self, casts: &Ordered<Type>) {
        for (text, to) in &casts.0 {
            let at = pointer(&["cast", text]);
            let Some(path) = self.path(text, &at) else { continue };
            let Some((from, nullable)) = self.known(&path, &at) else { continue };
            if !cast::is_possible(from, *to) {
                self.mistake(at, format!("`{path}` is {from}, which cannot be cast to {to}"), Some("compute it under `set`"));
                continue;
            }
            let read = self.scope.read(Field::Value(path.clone()), from);
            // A text can hold the JSON text `null`.
            let nullable = nullable || (from == Type::Text && *to == Type::Json);
            self.draft(path, Change::Cast { read, from, to: *to }, (*to, nullable), at);
        }
    }

    fn remove(&mut self, paths: &[String]) {
        for (place, text) in paths.iter().enumerate() {
            let at = pointer(&["remove", &place.to_string()]);
            let Some(path) = self.path(text, &at) else { continue };
            // What an open schema does not list may be there.
            if self.known(&path, &at).is_some() {
                self.draft(path, Change::Remove, (Type::Json, true), at);
            }
        }
    }

    fn set(&mut self, set: &Ordered<String>, input: &Schema) -> (Option<Key>, Option<Expression>) {
        let (mut key, mut timestamp) = (None, None);
        for (target, text) in &set.0 {
            let at = pointer(&["set", target]);
            let field = match Field::parse(target) {
                Ok(field) => field,
                Err(error) => {
                    self.mistake(at, error.to_string(), None);
                    continue;
                }
            };
            let expression = match Expression::compile_at(&at, text, &mut self.scope) {
                Ok(expression) => expression,
                Err(mistakes) => {
                    self.mistakes.extend(mistakes);
                    continue;
                }
            };
            match field {
                Field::Value(path) => {
                    let kind = expression.kind();
                    self.draft(path, Change::Set(expression), kind, at);
                }
                Field::Key => key = self.key(expression, input, at),
                Field::Timestamp if expression.cel_kind().fits(Kind::Int) => timestamp = Some(expression),
                Field::Timestamp => {
                    let message = format!("`$timestamp` is an int, in milliseconds since 1970; this is {}", expression.cel_kind().name());
                    self.mistake(at, message, None);
                }
                other => self.mistake(at, format!("`{other}` cannot be set"), Some("fields of the value, $key and $timestamp can")),
            }
        }
        (key, timestamp)
    }

    fn key(&mut self, expression: Expression, input: &Schema, at: String) -> Option<Key> {
        if input.fields.iter().any(|field| field.path == Field::Key && field.kind == Type::Int) {
            self.mistake(at, "the source's keys are binary numbers, which cannot be set", Some("declare `key: bytes` or `key: text`"));
            return None;
        }
        if matches!(expression.cel_kind(), Kind::Double | Kind::Bool | Kind::Null) {
            let message = format!("a key is text, an int, bytes or json; this is {}", expression.cel_kind().name());
            self.mistake(at, message, Some("`string(...)`"));
            return None;
        }
        let reads = self.scope.reads();
        let needs_value =
            expression.reads().into_iter().any(|read| reads.get(read).is_some_and(|read| matches!(read.path, Field::Value(_))));
        Some(Key { expression, needs_value })
    }

    /// A path and its prefix cannot both be written.
    fn overlaps(&mut self) {
        let mut found = Vec::new();
        for (place, draft) in self.drafts.iter().enumerate() {
            for earlier in &self.drafts[..place] {
                let (one, other) = (&earlier.write.path, &draft.write.path);
                let message = if one == other {
                    format!("`{other}` is changed twice, also at `{}`", earlier.at)
                } else if one.is_prefix_of(other) || other.is_prefix_of(one) {
                    format!("`{one}` (at `{}`) and `{other}` cannot both be changed: one holds the other", earlier.at)
                } else {
                    continue;
                };
                found.push(Mistake { at: draft.at.clone(), span: None, message, proposal: Some("use two stages".to_owned()) });
            }
        }
        self.mistakes.extend(found);
    }
}
