//! From configuration and inputs to what is read, kept and written, and every mistake in the configuration.

use crate::config::{Config, Join, Of, On};
use millstream_expression::pointer;
use millstream_guest::column::Type;
use millstream_guest::describe::{
    Base, Description, FieldType, Mistake, Occasion, Output, OutputKey, Part, Read, Schema, Store, StoreField, Window,
};
use millstream_guest::duration;
use millstream_guest::field::Field;

pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;
const NAMES: [&str; 2] = ["left", "right"];
/// Where a table's row keeps the time of a side's record; null where the side has none.
const TIME: &str = "$time";

/// One of the two inputs.
#[derive(Debug, Default)]
pub struct Side {
    /// The place of its key among the reads.
    pub key: usize,
    /// The places of its fields among the reads, as they are kept.
    pub reads: Vec<usize>,
}

/// One field of the result.
#[derive(Debug)]
pub struct Given {
    pub field: FieldType,
    pub side: usize,
    /// Its place among the side's fields.
    pub column: usize,
}

#[derive(Debug)]
pub struct Plan {
    pub join: Join,
    /// Of streams.
    pub window: Option<Window>,
    /// `$input` first.
    pub reads: Vec<Read>,
    pub sides: [Side; 2],
    pub results: Vec<Given>,
    /// What the records of each side meet by.
    input_keys: Vec<Field>,
    /// Results have the keys of their records; else they are given what the records met by, as text.
    pub own_keys: bool,
}

fn mistake(at: impl Into<String>, message: impl Into<String>, proposal: &str) -> Mistake {
    let proposal = (!proposal.is_empty()).then(|| proposal.to_owned());
    Mistake { at: at.into(), span: None, message: message.into(), proposal }
}

/// Type of a field, and whether it may be null.
fn declared(input: &Schema, field: &Field) -> Option<(Type, bool)> {
    let known = input.fields.iter().find(|known| known.path == *field).map(|known| (known.kind, known.nullable));
    known.or(match field {
        Field::Value(_) => None,
        Field::Key | Field::Header(_) => Some((Type::Text, true)),
        Field::Topic => Some((Type::Text, false)),
        _ => Some((Type::Int, false)),
    })
}

impl Plan {
    pub fn new(config: &Config, inputs: &[Schema]) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let [left, right] = inputs else {
            let message = format!("a join has two inputs, and the stage has {}", inputs.len());
            return Err(vec![mistake("", message, "`from: [LEFT, RIGHT]`; several ways of one side are merged by a stage before")]);
        };
        let inputs = [left, right];
        let mut plan = Self {
            join: config.join,
            window: window(config, &mut mistakes),
            reads: vec![Read::of(Field::Input, Type::Int)],
            sides: [Side::default(), Side::default()],
            results: Vec::new(),
            input_keys: Vec::new(),
            own_keys: false,
        };
        plan.on(config, inputs, &mut mistakes);
        if config.fields.0.is_empty() {
            mistakes.push(mistake("/fields", "the result has no fields", "{ amount: left.amount, paid: right.paid }"));
        }
        for (name, text) in &config.fields.0 {
            plan.add(name, text, inputs).unwrap_or_else(|mistake| mistakes.push(mistake));
        }
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
    }

    /// The index of a read; the same one is made once.
    fn read(&mut self, read: Read) -> usize {
        if let Some(place) = self.reads.iter().position(|known| *known == read) {
            return place;
        }
        self.reads.push(read);
        self.reads.len() - 1
    }

    fn on(&mut self, config: &Config, inputs: [&Schema; 2], mistakes: &mut Vec<Mistake>) {
        let texts = match &config.on {
            None => [("/on", "$key"), ("/on", "$key")],
            Some(On::Both(text)) => [("/on", text.as_str()), ("/on", text.as_str())],
            Some(On::Each(each)) => [("/on/left", each.left.as_str()), ("/on/right", each.right.as_str())],
        };
        for ((at, text), input) in texts.into_iter().zip(inputs) {
            match Field::parse(text) {
                Ok(field @ (Field::Key | Field::Value(_))) => {
                    let kind = declared(input, &field).map_or(Type::Text, |(kind, _)| kind);
                    if !matches!((kind, &field), (Type::Text | Type::Int | Type::Json, _) | (Type::Bytes, Field::Key)) {
                        mistakes.push(mistake(at, format!("records meet by text or int, and `{field}` is {kind}"), "another field"));
                    }
                    self.input_keys.push(field);
                }
                Ok(other) => mistakes.push(mistake(at, format!("records cannot meet by {other}"), "a field of the value, or $key")),
                Err(error) => mistakes.push(mistake(at, error.to_string(), "")),
            }
        }
        let [left, right] = self.input_keys.as_slice() else { return };
        let by_key = *left == Field::Key && *right == Field::Key;
        if config.of == Of::Tables && !by_key {
            mistakes.push(mistake("/on", "the rows of tables meet by their keys: a deleted row has no other field", "leave it out"));
        }
        let kinds = [(left.clone(), inputs[0]), (right.clone(), inputs[1])]
            .map(|(field, input)| declared(input, &field).map_or(Type::Text, |(kind, _)| kind));
        // Written in two ways, keys meet as text.
        self.own_keys = by_key && kinds[0] == kinds[1];
        for (side, field) in self.input_keys.clone().into_iter().enumerate() {
            let read = match field {
                Field::Key => Read::of(Field::Key, if self.own_keys { kinds[side] } else { Type::Text }),
                field => Read { input: Some(side as u32), ..Read::of(field, kinds[side]) },
            };
            self.sides[side].key = self.read(read);
        }
    }

    fn add(&mut self, name: &str, text: &str, inputs: [&Schema; 2]) -> Result<(), Mistake> {
        let at = pointer(&["fields", name]);
        let path = match Field::parse(name) {
            Ok(Field::Value(path)) => path,
            Ok(other) => return Err(mistake(at, format!("`{other}` is no field of the value"), "`map` can set $key and $timestamp")),
            Err(error) => return Err(mistake(at, error.to_string(), "")),
        };
        let overlaps =
            |given: &&Given| matches!(&given.field.path, Field::Value(other) if other.is_prefix_of(&path) || path.is_prefix_of(other));
        if let Some(other) = self.results.iter().find(overlaps) {
            return Err(mistake(at, format!("the result has a field `{}` already", other.field.path), "another name"));
        }
        let named = |side: usize| text.trim().strip_prefix(NAMES[side]).and_then(|rest| rest.strip_prefix('.'));
        let Some((side, field)) = [LEFT, RIGHT].into_iter().find_map(|side| Some((side, named(side)?))) else {
            let message = format!("`{text}` is no field of a side");
            return Err(mistake(at, message, "left.FIELD or right.FIELD; a `map` stage behind can compute with them"));
        };
        let field = match Field::parse(field) {
            Ok(Field::Input | Field::WindowStart | Field::WindowEnd) | Err(_) => {
                let message = format!("`{text}` is no field of a record");
                return Err(mistake(at, message, "a path as `left.a.b`, or left.$timestamp, left.$key and the like"));
            }
            Ok(field) => field,
        };
        let (kind, nullable) = declared(inputs[side], &field).unwrap_or((Type::Json, true));
        // What is declared as always there is: the host refuses a record without it.
        let required = !nullable && matches!(field, Field::Value(_));
        let read = self.read(Read { path: field, kind, required, input: Some(side as u32) });
        let reads = &mut self.sides[side].reads;
        let column = reads.iter().position(|known| *known == read).unwrap_or_else(|| {
            reads.push(read);
            reads.len() - 1
        });
        let nullable = nullable || side == RIGHT && self.join == Join::Left;
        self.results.push(Given { field: FieldType { path: Field::Value(path), kind, nullable }, side, column });
        Ok(())
    }

    pub fn describe(&self) -> Description {
        let fields = self.results.iter().map(|given| given.field.clone()).collect();
        Description {
            reads: self.reads.clone(),
            // Whether a table's record deletes its row.
            parts: if self.window.is_none() { vec![Part::Value] } else { Vec::new() },
            tombstones: self.window.is_none(),
            outputs: vec![Output {
                name: "out".to_owned(),
                base: Base::Replace,
                fields,
                removes: Vec::new(),
                key: if self.own_keys { OutputKey::Kept } else { OutputKey::Text },
            }],
            stores: if self.window.is_some() { self.stores_of_streams() } else { vec![self.store_of_tables()] },
            input_keys: self.input_keys.clone(),
            window: self.window,
            ..Description::default()
        }
    }

    /// The fields of a side as they are kept.
    fn columns(&self, side: usize, prefix: &str) -> Vec<StoreField> {
        let column = |read: &usize| {
            let read = &self.reads[*read];
            StoreField { name: format!("{prefix}{}", read.path), kind: read.kind, nullable: true, default: None }
        };
        self.sides[side].reads.iter().map(column).collect()
    }

    fn stores_of_streams(&self) -> Vec<Store> {
        // Keys are the records' own only if both sides' are.
        let by = self.input_keys.iter().find(|key| !self.own_keys && **key != Field::Key).unwrap_or(&Field::Key);
        let store = |name: &str, fields| Store {
            name: name.to_owned(),
            key: Type::Bytes,
            fields,
            by: vec![by.clone()],
            windowed: true,
            emits: Vec::new(),
            migrates: Vec::new(),
        };
        let entries = |side: usize| StoreField { name: NAMES[side].to_owned(), kind: Type::Bytes, nullable: false, default: None };
        let mut left = store(NAMES[LEFT], self.columns(LEFT, ""));
        if self.join == Join::Left {
            left.emits.push(Occasion::Closed);
        }
        let index = store("index", vec![entries(LEFT), entries(RIGHT)]);
        vec![left, store(NAMES[RIGHT], self.columns(RIGHT, "")), index]
    }

    fn store_of_tables(&self) -> Store {
        let side = |side: usize| {
            let time = StoreField { name: format!("{}.{TIME}", NAMES[side]), kind: Type::Int, nullable: true, default: None };
            std::iter::once(time).chain(self.columns(side, &format!("{}.", NAMES[side])))
        };
        Store {
            name: String::new(),
            key: self.table_key(),
            fields: side(LEFT).chain(side(RIGHT)).collect(),
            by: vec![Field::Key],
            windowed: false,
            emits: Vec::new(),
            migrates: Vec::new(),
        }
    }

    /// The type of a table's keys in the store.
    pub fn table_key(&self) -> Type {
        if self.reads[self.sides[LEFT].key].kind == Type::Bytes { Type::Bytes } else { Type::Text }
    }

    /// The types of the result's fields.
    pub fn result_types(&self) -> impl Iterator<Item = Type> {
        self.results.iter().map(|given| given.field.kind)
    }
}

/// The time that a record waits for those of the other side, as a session of one record: closed when stream time has passed the record's + within + grace.
fn window(config: &Config, mistakes: &mut Vec<Mistake>) -> Option<Window> {
    let mut length = |text: &str, at: &str, least: i64| {
        let millis = duration::parse(text).filter(|millis| *millis >= least);
        if millis.is_none() {
            mistakes.push(mistake(at, "a length of time is wanted", "a number and one of ms, s, m, h, d: 10m"));
        }
        millis
    };
    match (config.of, &config.within) {
        (Of::Streams, Some(within)) => {
            let grace = config.grace.as_deref().map_or(Some(0), |grace| length(grace, "/grace", 0));
            Some(Window { size: length(within, "/within", 1)?, grace: grace?, session: true, ..Window::default() })
        }
        (Of::Streams, None) => {
            let message = "streams are joined within a time: how far apart two records may be";
            mistakes.push(mistake("", message, "`within: 10m`, or `of: tables` for the latest record of each key"));
            None
        }
        (Of::Tables, _) => {
            for (at, given) in [("/within", &config.within), ("/grace", &config.grace)] {
                if given.is_some() {
                    mistakes.push(mistake(at, "the rows of tables stay until they are replaced", "leave it out, or `of: streams`"));
                }
            }
            None
        }
    }
}
