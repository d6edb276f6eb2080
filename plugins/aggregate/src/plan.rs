//! From configuration and input to what is read, kept and written, and every mistake in the configuration.

use crate::config::Config;
use crate::function::{COLLECT_DEFAULT, COLLECT_MAX, Computed, Function, NAMES};
use crate::group::Group;
use crate::syntax::{self, Call};
use crate::value::Value;
use millstream_guest::column::Type;
use millstream_guest::describe::{
    Base, Description, FieldType, Mistake, Occasion, Output, OutputKey, Read, Schema, Store, StoreField, Window,
};
use millstream_guest::duration;
use millstream_guest::field::{Field, Path};

/// Where the stored row keeps the highest record time. No field can have this name.
const TIME: &str = "$time";
/// Where the row of a session keeps the time of its first record.
const START: &str = "$start";

/// When results are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    Updates,
    Changes,
    Final,
}

/// One field of the result.
#[derive(Debug)]
pub struct Computation {
    pub name: Path,
    pub computed: Computed,
    /// Index into `reads`; None for `count()`.
    pub read: Option<usize>,
    /// Its columns of the stored row.
    pub columns: std::ops::Range<usize>,
}

#[derive(Debug)]
pub struct Plan {
    pub group: Group,
    /// The group's fields as the results show them.
    group_fields: Vec<FieldType>,
    /// The record's key type, or text for a group's.
    pub key: Type,
    pub window: Option<Window>,
    pub emit: Emit,
    /// The group's fields (or the key) first, then the window's start and end if it has a fixed length, then what is computed from.
    pub reads: Vec<Read>,
    pub results: Vec<Computation>,
    /// The stored row: the highest record time, of a session its start, then the columns of each result.
    pub stored: Vec<StoreField>,
}

fn mistake(at: impl Into<String>, message: impl Into<String>, proposal: &str) -> Mistake {
    let proposal = (!proposal.is_empty()).then(|| proposal.to_owned());
    Mistake { at: at.into(), span: None, message: message.into(), proposal }
}

/// A member's name in a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn declared(input: &Schema, field: &Field) -> Option<FieldType> {
    input.fields.iter().find(|declared| declared.path == *field).cloned()
}

/// The types of fields that no schema declares.
fn pseudo_type(field: &Field) -> Option<Type> {
    match field {
        Field::Key | Field::Topic | Field::Header(_) => Some(Type::Text),
        Field::Timestamp | Field::Partition | Field::Offset | Field::Input | Field::WindowStart | Field::WindowEnd => Some(Type::Int),
        Field::Value(_) => None,
    }
}

impl Plan {
    pub fn new(config: &Config, input: &Schema) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let window = window(config, &mut mistakes);
        let emit = match config.emit.as_str() {
            "updates" => Emit::Updates,
            "changes" => Emit::Changes,
            "final" if config.window.is_some() => Emit::Final,
            "final" => {
                let message = "`emit: final` gives one result for each closed window, and there is no window";
                mistakes.push(mistake("/emit", message, "window: { tumbling: 1m }, or emit: updates"));
                Emit::Final
            }
            other => {
                let message = format!(
                    "`{other}` is no way to give results out: updates (one for each record), changes (one for each changed group at a commit), final (one for each closed window)"
                );
                mistakes.push(mistake("/emit", message, "updates"));
                Emit::Updates
            }
        };
        let session = window.is_some_and(|window| window.session);
        let mut plan = Self {
            group: Group::Key,
            group_fields: Vec::new(),
            key: Type::Text,
            window,
            emit,
            reads: Vec::new(),
            results: Vec::new(),
            stored: vec![StoreField { name: TIME.to_owned(), kind: Type::Int, nullable: false, default: None }],
        };
        if session {
            plan.stored.push(StoreField { name: START.to_owned(), kind: Type::Int, nullable: false, default: None });
        }
        plan.group_by(config, input, &mut mistakes);
        if window.is_some() && !session {
            plan.read(&Field::WindowStart, Type::Int);
            plan.read(&Field::WindowEnd, Type::Int);
        }
        plan.compute(config, input, &mut mistakes);
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
    }

    /// The index of a read; the same field is read once.
    fn read(&mut self, path: &Field, kind: Type) -> usize {
        if let Some(place) = self.reads.iter().position(|read| read.path == *path) {
            return place;
        }
        self.reads.push(Read::of(path.clone(), kind));
        self.reads.len() - 1
    }

    fn group_by(&mut self, config: &Config, input: &Schema, mistakes: &mut Vec<Mistake>) {
        if config.group_by.is_empty() || config.group_by == ["$key"] {
            self.key = declared(input, &Field::Key).map_or(Type::Text, |field| field.kind);
            self.read(&Field::Key, self.key);
            return;
        }
        let mut names = Vec::new();
        for (place, text) in config.group_by.iter().enumerate() {
            let at = format!("/group_by/{place}");
            match Field::parse(text) {
                Ok(field @ Field::Value(_)) => {
                    let kind = declared(input, &field).map_or(Type::Text, |field| field.kind);
                    if matches!(kind, Type::Json | Type::Bytes) {
                        mistakes.push(mistake(
                            at.clone(),
                            format!("`{field}` is {kind}, and groups are made of text, int, float or boolean"),
                            "declare its type in the source's schema, or make a field of that type with `map`",
                        ));
                    }
                    let name = field.to_string();
                    if names.contains(&name) {
                        mistakes.push(mistake(at, format!("`{field}` is named twice"), ""));
                    }
                    self.read(&field, kind);
                    self.group_fields.push(FieldType { path: field, kind, nullable: false });
                    names.push(name);
                }
                Ok(other) => mistakes.push(mistake(
                    at,
                    format!("{other} cannot stand among the fields of a group"),
                    "$key alone (or no group_by) for the record's key; for others, a field set with `map`",
                )),
                Err(error) => mistakes.push(mistake(at, error.to_string(), "")),
            }
        }
        self.group = Group::Fields(names);
    }

    fn compute(&mut self, config: &Config, input: &Schema, mistakes: &mut Vec<Mistake>) {
        if config.compute.0.is_empty() {
            mistakes.push(mistake("/compute", "there is nothing to compute", "{ records: count() }"));
        }
        let mut calls = Vec::new();
        for (name, text) in &config.compute.0 {
            let at = format!("/compute/{}", escaped(name));
            let call = syntax::parse(text)
                .map_err(|wrong| Mistake { span: Some((wrong.at.start, wrong.at.end)), ..mistake(at.clone(), wrong.message, "") })
                .and_then(|call| function(&call, &at).map(|function| (call, function)));
            let path = Path::parse(name).map_err(|error| mistake(at.clone(), error.to_string(), ""));
            match (call, path) {
                (Ok((call, function)), Ok(path)) => calls.push((at, path, call, function)),
                (call, path) => mistakes.extend(call.err().into_iter().chain(path.err())),
            }
        }
        // A field that nobody declares has one type for all who read it.
        let numbers: Vec<Field> =
            calls.iter().filter(|call| call.3.assumes() == Type::Float).filter_map(|call| Some(call.2.path.as_ref()?.0.clone())).collect();
        for (at, name, call, function) in calls {
            self.add(input, &numbers, &at, name, &call, function).unwrap_or_else(|mistake| mistakes.push(mistake));
        }
    }

    fn add(&mut self, input: &Schema, numbers: &[Field], at: &str, name: Path, call: &Call, function: Function) -> Result<(), Mistake> {
        let taken = self.group_fields.iter().filter_map(|field| match &field.path {
            Field::Value(path) => Some(path.clone()),
            _ => None,
        });
        let window = ["window_start", "window_end"].map(|name| Path(vec![name.to_owned()]));
        let window = window.into_iter().filter(|_| self.window.is_some());
        let mut taken = taken.chain(window).chain(self.results.iter().map(|result| result.name.clone()));
        if let Some(other) = taken.find(|other| other.is_prefix_of(&name) || name.is_prefix_of(other)) {
            return Err(mistake(at, format!("the result has a field `{other}` already"), "another name"));
        }
        let (read, of) = match &call.path {
            None => (None, Type::Int),
            Some((field, span)) => {
                let read_already = self.reads.iter().find(|read| read.path == *field).map(|read| read.kind);
                let kind = declared(input, field)
                    .map(|field| field.kind)
                    .or(pseudo_type(field))
                    .or(read_already)
                    .unwrap_or(if numbers.contains(field) { Type::Float } else { function.assumes() });
                if let Some(takes) = function.takes()
                    && !takes.contains(&kind)
                {
                    let takes: Vec<_> = takes.iter().map(|kind| kind.name()).collect();
                    let message = format!("`{}` takes {}, and `{field}` is {kind}", call.name, takes.join(", "));
                    return Err(Mistake { span: Some((span.start, span.end)), ..mistake(at, message, "") });
                }
                if matches!(field, Field::WindowStart | Field::WindowEnd) && self.window.is_none_or(|window| window.session) {
                    let message = if self.window.is_none() { "there is no window" } else { "a session's start and end are not known yet" };
                    return Err(Mistake { span: Some((span.start, span.end)), ..mistake(at, message, "window: { tumbling: 1m }") });
                }
                (Some(self.read(field, kind)), kind)
            }
        };
        let computed = Computed { function, of };
        let first = self.stored.len();
        let column = |((end, kind, nullable), start): ((&str, Type, bool), Value)| {
            // A group that was there before the computation begins as one without records.
            let default = match start {
                Value::Int(number) => Some(number.into()),
                Value::Float(number) => Some(number.into()),
                Value::Bytes(text) => serde_json::from_slice(&text).ok(),
                _ => None,
            };
            StoreField { name: format!("{name}{end}"), kind, nullable, default }
        };
        self.stored.extend(computed.columns().into_iter().zip(computed.start()).map(column));
        self.results.push(Computation { name, computed, read, columns: first..self.stored.len() });
        Ok(())
    }

    pub fn describe(&self) -> Description {
        let int = |name: &str| FieldType { path: Field::Value(Path(vec![name.to_owned()])), kind: Type::Int, nullable: false };
        let mut fields = self.group_fields.clone();
        if self.window.is_some() {
            fields.extend([int("window_start"), int("window_end")]);
        }
        fields.extend(self.results.iter().map(|result| {
            let (kind, nullable) = result.computed.result_type();
            FieldType { path: Field::Value(result.name.clone()), kind, nullable }
        }));
        let (by, key) = match &self.group {
            Group::Key => (vec![Field::Key], OutputKey::Kept),
            Group::Fields(_) => (self.group_fields.iter().map(|field| field.path.clone()).collect(), OutputKey::Text),
        };
        Description {
            reads: self.reads.clone(),
            leaves: false,
            parts: Vec::new(),
            tombstones: false,
            outputs: vec![Output { name: "out".to_owned(), base: Base::Replace, fields, removes: Vec::new(), key }],
            stores: self.stores(by),
            tables: Vec::new(),
            table_keys: Vec::new(),
            input_keys: Vec::new(),
            window: self.window,
            timers: None,
            warnings: Vec::new(),
        }
    }

    fn stores(&self, by: Vec<Field>) -> Vec<Store> {
        let mut emits = Vec::new();
        if self.emit == Emit::Changes {
            emits.push(Occasion::Changed);
        }
        // A closed session must leave the list of its group, also where nothing is given out.
        if self.emit == Emit::Final || self.is_session() {
            emits.push(Occasion::Closed);
        }
        let (key, windowed) = (self.store_key(), self.window.is_some());
        let rows = Store { name: String::new(), key, fields: self.stored.clone(), by: by.clone(), windowed, emits, migrates: Vec::new() };
        let spans = StoreField { name: "sessions".to_owned(), kind: Type::Json, nullable: false, default: None };
        let key = self.group_key();
        let sessions =
            Store { name: "sessions".to_owned(), key, fields: vec![spans], by, windowed: false, emits: Vec::new(), migrates: Vec::new() };
        std::iter::once(rows).chain(self.is_session().then_some(sessions)).collect()
    }

    pub fn is_session(&self) -> bool {
        self.window.is_some_and(|window| window.session)
    }

    /// The type of a group's key alone.
    pub fn group_key(&self) -> Type {
        if self.key == Type::Bytes { Type::Bytes } else { Type::Text }
    }

    /// The type of the store's keys.
    pub fn store_key(&self) -> Type {
        if self.window.is_some() { Type::Bytes } else { self.group_key() }
    }

    /// How many of the reads make the group.
    pub fn group_reads(&self) -> usize {
        match &self.group {
            Group::Key => 1,
            Group::Fields(names) => names.len(),
        }
    }

    /// The types of the group's fields in the results.
    pub fn group_types(&self) -> impl Iterator<Item = Type> {
        self.group_fields.iter().map(|field| field.kind)
    }
}

fn window(config: &Config, mistakes: &mut Vec<Mistake>) -> Option<Window> {
    let given = config.window.as_ref()?;
    let mut length = |text: &str, at: &str, least: i64| {
        let millis = duration::parse(text).filter(|millis| *millis >= least);
        if millis.is_none() {
            mistakes.push(mistake(at, "a length of time is wanted", "a number and one of ms, s, m, h, d: 1m"));
        }
        millis
    };
    let kinds = [("tumbling", &given.tumbling), ("hopping", &given.hopping), ("session", &given.session)];
    let named: Vec<_> = kinds.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))).collect();
    let size = match named.as_slice() {
        [(name, text)] => length(text, &format!("/window/{name}"), 1),
        _ => None,
    };
    let grace = length(&given.grace, "/window/grace", 0);
    let [(name, _)] = named.as_slice() else {
        let message = "a window is one of tumbling, hopping and session";
        mistakes.push(mistake("/window", message, "{ tumbling: 1m }, { hopping: 5m, advance: 1m } or { session: 30m }"));
        return None;
    };
    let advance = match (*name, &given.advance) {
        ("hopping", Some(text)) => {
            let advance = length(text, "/window/advance", 1);
            match advance.zip(size) {
                Some((advance, size)) if advance > size || size / advance > MOST_WINDOWS => {
                    let message = format!("windows begin at least once in their length, and at most {MOST_WINDOWS} times");
                    mistakes.push(mistake("/window/advance", message, ""));
                    return None;
                }
                _ => advance,
            }
        }
        ("hopping", None) => {
            mistakes.push(mistake(
                "/window",
                "hopping windows need `advance`: from one window's start to the next",
                "{ hopping: 5m, advance: 1m }",
            ));
            None
        }
        (_, None) => Some(0),
        (other, Some(_)) => {
            mistakes.push(mistake("/window/advance", format!("`advance` is of hopping windows, and this one is `{other}`"), ""));
            None
        }
    };
    Some(Window { size: size?, advance: advance?, session: *name == "session", grace: grace? })
}

/// Windows that one record may belong to: what the host allows.
const MOST_WINDOWS: i64 = 1000;

fn function(call: &Call, at: &str) -> Result<Function, Mistake> {
    let here = |range: &std::ops::Range<usize>, message: String, proposal: &str| Mistake {
        span: Some((range.start, range.end)),
        ..mistake(at, message, proposal)
    };
    let function = match call.name.as_str() {
        "count" if call.path.is_none() => Function::Count,
        "count" => Function::CountValues,
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Avg,
        "first" => Function::First,
        "last" => Function::Last,
        "collect" => {
            let limit = call.number.as_ref().map_or(COLLECT_DEFAULT, |(number, _)| *number);
            match &call.number {
                Some((_, range)) if !(1..=COLLECT_MAX).contains(&limit) => {
                    return Err(here(range, format!("a limit from 1 to {COLLECT_MAX} is wanted"), &COLLECT_DEFAULT.to_string()));
                }
                _ => Function::Collect { limit: limit as i64 },
            }
        }
        other => return Err(here(&call.name_at, format!("there is no function `{other}`"), &format!("one of {NAMES}"))),
    };
    match (function, &call.path, &call.number) {
        (Function::Count | Function::Collect { .. }, _, _) if call.path.is_some() || function == Function::Count => {}
        (_, None, _) => return Err(here(&call.name_at, format!("`{}` needs a field", call.name), &format!("{}(path)", call.name))),
        (_, _, Some((_, range))) => return Err(here(range, format!("`{}` takes one field and nothing more", call.name), "")),
        _ => {}
    }
    Ok(function)
}
