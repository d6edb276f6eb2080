//! What the names of an expression mean: fields of the input, parts of the record, columns of a table.

use crate::kind::Kind;
use crate::words::nearest;
use millstream_guest::column::Type;
use millstream_guest::describe::{FieldType, Read, Schema};
use millstream_guest::field::{Field, Path};

/// The names of one stage. Every field that one of its expressions mentions is read once, in the order of mention.
pub struct Scope<'a> {
    input: &'a Schema,
    table: Option<(&'a str, &'a Schema)>,
    reads: Vec<Read>,
    /// What each slot stands for.
    slots: Vec<Slot>,
    warnings: Vec<String>,
    windows: bool,
}

/// A value that expressions can name.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub origin: Origin,
    /// What to look for in a field of type `json`.
    pub member: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// A place in the reads.
    Input(usize),
    /// A column of the table.
    Table(usize),
}

/// A name that means something.
pub struct Resolved {
    pub slot: usize,
    pub kind: Kind,
    pub nullable: bool,
}

/// A name that means nothing.
pub struct Unresolved {
    pub message: String,
    pub proposal: Option<String>,
}

impl<'a> Scope<'a> {
    pub fn new(input: &'a Schema) -> Self {
        Self { input, table: None, reads: Vec::new(), slots: Vec::new(), warnings: Vec::new(), windows: false }
    }

    /// The columns of a table are named `table.column`.
    pub fn with_table(self, name: &'a str, schema: &'a Schema) -> Self {
        Self { table: Some((name, schema)), ..self }
    }

    /// `$window.start` and `$window.end` are there.
    pub fn with_windows(self) -> Self {
        Self { windows: true, ..self }
    }

    /// What the expressions so far read, in the order in which a batch has it.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// What was assumed, for `Description::warnings`.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Reads a field as `kind`, besides what expressions read: its place in the reads.
    pub fn read(&mut self, path: Field, kind: Type) -> usize {
        if let Some(place) = self.reads.iter().position(|read| read.path == path && read.kind == kind) {
            return place;
        }
        self.reads.push(Read::of(path, kind));
        self.reads.len() - 1
    }

    /// The declared type of a field, if it is declared.
    pub fn declared(&self, path: &Field) -> Option<&'a FieldType> {
        self.input.fields.iter().find(|field| field.path == *path)
    }

    /// Type and nullability of a field by its full path, as a manifest names it. Not declared = json, a mistake if the schema is closed.
    pub fn field(&mut self, path: &Field) -> Result<(Type, bool), Unresolved> {
        if let Some(field) = self.declared(path) {
            return Ok((field.kind, field.nullable));
        }
        match path {
            Field::Value(value) if self.is_inside_json(value) => Ok((Type::Json, true)),
            Field::Value(value) => self.undeclared(value).map(|()| (Type::Json, true)),
            pseudo => Ok(of_pseudo(pseudo)),
        }
    }

    /// Whether a declared field of type json holds the path.
    fn is_inside_json(&self, path: &Path) -> bool {
        self.input
            .fields
            .iter()
            .any(|field| matches!(&field.path, Field::Value(parent) if field.kind == Type::Json && parent.is_prefix_of(path)))
    }

    /// Whether the path is an object of which members are declared.
    fn holds_declared(&self, path: &Path) -> bool {
        self.input.fields.iter().any(|field| matches!(&field.path, Field::Value(member) if path.is_prefix_of(member)))
    }

    fn slot(&mut self, slot: Slot) -> usize {
        if let Some(place) = self.slots.iter().position(|known| *known == slot) {
            return place;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// A name that begins with `$`, without it: `["key"]`, `["window", "start"]`, `["headers", "x"]`, `["value", ...]`.
    pub(crate) fn pseudo(&mut self, names: &[String]) -> Result<Resolved, Unresolved> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let field = match names.as_slice() {
            ["key"] => Field::Key,
            ["timestamp"] => Field::Timestamp,
            ["topic"] => Field::Topic,
            ["partition"] => Field::Partition,
            ["offset"] => Field::Offset,
            ["headers", name] => Field::Header((*name).to_owned()),
            ["window", "start"] if self.windows => Field::WindowStart,
            ["window", "end"] if self.windows => Field::WindowEnd,
            ["window", ..] if !self.windows => {
                return Err(Unresolved { message: "this stage has no window".to_owned(), proposal: None });
            }
            ["value", path @ ..] if !path.is_empty() => {
                return self.value(&path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            }
            ["value"] => {
                return Err(Unresolved {
                    message: "`$value` is no field by itself".to_owned(),
                    proposal: Some("name a field: `$value.name`".to_owned()),
                });
            }
            ["headers"] => {
                return Err(Unresolved {
                    message: "headers are read by name".to_owned(),
                    proposal: Some("`$headers[\"name\"]`".to_owned()),
                });
            }
            _ => {
                let known = ["key", "timestamp", "topic", "partition", "offset", "headers", "window", "value"];
                return Err(Unresolved {
                    message: format!("`${}` is no part of a record", names.join(".")),
                    proposal: Some(match nearest(names.first().copied().unwrap_or_default(), known) {
                        Some(near) => format!("did you mean `${near}`?"),
                        None => "there are $key, $timestamp, $topic, $partition, $offset and $headers[\"name\"]".to_owned(),
                    }),
                });
            }
        };
        let (kind, nullable) = self.declared(&field).map_or_else(|| of_pseudo(&field), |known| (known.kind, known.nullable));
        let read = self.read(field, kind);
        Ok(Resolved { slot: self.slot(Slot { origin: Origin::Input(read), member: Vec::new() }), kind: Kind::of(kind), nullable })
    }

    /// A name: of the table, else the longest declared path that it begins with, else an undeclared field.
    pub(crate) fn name(&mut self, names: &[String]) -> Result<Resolved, Unresolved> {
        match (self.table, names) {
            (Some((table, schema)), [first, rest @ ..]) if first == table => self.column(table, schema, rest),
            _ => self.value(names),
        }
    }

    fn column(&mut self, table: &str, schema: &Schema, names: &[String]) -> Result<Resolved, Unresolved> {
        if names.is_empty() {
            return Err(Unresolved {
                message: format!("`{table}` is a table"),
                proposal: Some(format!("name a column: `{table}.column`")),
            });
        }
        let Some((place, field, member)) = longest(schema, names) else {
            let name = names.join(".");
            let columns: Vec<String> = schema.fields.iter().map(|field| field.path.to_string()).collect();
            return Err(Unresolved {
                message: format!("the table `{table}` declares no column `{name}`"),
                proposal: Some(match nearest(&name, columns.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{table}.{near}`?"),
                    None => format!("declare it in the schema of `{table}`"),
                }),
            });
        };
        let (kind, nullable) = (field.kind, field.nullable);
        self.found(Origin::Table(place), kind, nullable, member, names)
    }

    fn value(&mut self, names: &[String]) -> Result<Resolved, Unresolved> {
        if let Some((_, field, member)) = longest(self.input, names) {
            let (kind, nullable) = (field.kind, field.nullable);
            let read = self.read(field.path.clone(), kind);
            return self.found(Origin::Input(read), kind, nullable, member, names);
        }
        let path = Path(names.to_vec());
        self.undeclared(&path)?;
        let read = self.read(Field::Value(path), Type::Json);
        self.found(Origin::Input(read), Type::Json, true, 0, names)
    }

    fn found(&mut self, origin: Origin, kind: Type, nullable: bool, member: usize, names: &[String]) -> Result<Resolved, Unresolved> {
        let member = names[names.len() - member..].to_vec();
        let below = !member.is_empty();
        if below && kind != Type::Json {
            return Err(Unresolved {
                message: format!("`{}` is {} and has no members", names[..names.len() - member.len()].join("."), with_article(kind)),
                proposal: None,
            });
        }
        let slot = self.slot(Slot { origin, member });
        Ok(Resolved { slot, kind: Kind::of(kind), nullable: nullable || below })
    }

    /// A mistake if the schema is closed, else a warning.
    fn undeclared(&mut self, path: &Path) -> Result<(), Unresolved> {
        if self.holds_declared(path) {
            return Ok(());
        }
        let name = path.to_string();
        let declared: Vec<String> = self.input.fields.iter().map(|field| field.path.to_string()).collect();
        let near = nearest(&name, declared.iter().map(String::as_str));
        if !self.input.open {
            return Err(Unresolved {
                message: format!("the input has no field `{name}`"),
                proposal: Some(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it in the schema of the source".to_owned(),
                }),
            });
        }
        let hint = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
        let warning = format!("`{name}` is not declared in the schema: it is read as json, and is null where it is missing{hint}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        Ok(())
    }
}

/// The field with the longest path that `names` begins with, its place, and how many names are left.
fn longest<'s>(schema: &'s Schema, names: &[String]) -> Option<(usize, &'s FieldType, usize)> {
    let fields = schema.fields.iter().enumerate();
    let candidates = fields.filter_map(|(place, field)| match &field.path {
        Field::Value(path) if names.starts_with(&path.0) => Some((place, field, names.len() - path.0.len())),
        _ => None,
    });
    candidates.min_by_key(|(_, _, left)| *left)
}

/// Type and nullability of a pseudo-field that the schema says nothing of.
fn of_pseudo(field: &Field) -> (Type, bool) {
    match field {
        Field::Timestamp | Field::Partition | Field::Offset | Field::Input | Field::WindowStart | Field::WindowEnd => (Type::Int, false),
        Field::Topic => (Type::Text, false),
        Field::Key | Field::Header(_) => (Type::Text, true),
        Field::Value(_) => (Type::Json, true),
    }
}

pub(crate) fn with_article(kind: Type) -> String {
    match kind {
        Type::Int => "an int".to_owned(),
        Type::Text | Type::Bytes | Type::Json => kind.name().to_owned(),
        Type::Boolean | Type::Float => format!("a {kind}"),
    }
}
