//! What is run: for each user numbers come in a row, a plugin appends each to the user's list and gives a hash of the list.

use super::broker::Record;
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::manifest;
use crate::pipeline::Pipeline;
use crate::plugin::describe::{About, Description, Occasion, Request};
use crate::plugin::{CallError, Derived, DescribeError, Input, Instance, Limits, Loader, Outcome, Plugin, Services, Verdict, Written};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub const INPUT: &str = "in";
pub const OUTPUT: &str = "out";
pub const STORE: &str = "lists";

/// FNV-1a of a list, as a positive number.
pub fn hash(list: &str) -> i64 {
    let hash = list.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 1) as i64
}

/// The list of the numbers 1 to `count`.
pub fn list(count: i64) -> String {
    (1..=count).map(|number| format!("{number},")).collect()
}

/// The pipeline. `regrouped`: through a repartition topic.
pub fn pipeline(regrouped: bool) -> Pipeline {
    let by = if regrouped { "user" } else { "$key" };
    let text = format!(
        "pipeline: sim\nsources: {{ in: {{ topic: {INPUT}, schema: {{ user: text, seq: int }} }} }}\nstages:\n  - {{ name: {STORE}, plugin: append, with: {{ by: {by} }} }}\nsinks: [{{ from: {STORE}, topic: {OUTPUT}, create: true }}]\n"
    );
    let standard = |name: &str| -> Option<&'static [u8]> { (name == "append").then_some(&[][..]) };
    match manifest::load_with(Path::new("sim.yaml"), text, &Natives, &standard) {
        Ok(loaded) => loaded.pipeline,
        Err(found) => panic!("{:?}", found.0.iter().map(|one| &one.message).collect::<Vec<_>>()),
    }
}

/// A user's next number, as a record. Users that share a key share a partition.
pub fn record(user: usize, seq: i64, regrouped: bool, time: i64) -> (Vec<u8>, Record) {
    let key = if regrouped { format!("k{}", user / 2) } else { format!("u{user}") }.into_bytes();
    let value = json!({ "user": format!("u{user}"), "seq": seq }).to_string().into_bytes();
    (key.clone(), Record { timestamp: time, key: Some(key), value: Some(value), headers: Vec::new() })
}

struct Natives;

impl Loader for Natives {
    fn load(&self, _: &[u8]) -> anyhow::Result<Arc<dyn Plugin>> {
        let config = json!({ "type": "object", "properties": { "by": { "type": "string" } } });
        let about = About { name: "append".to_owned(), version: "1.0.0".to_owned(), config, ..About::default() };
        Ok(Arc::new(Append { about, imports: vec!["state".to_owned()] }))
    }
}

struct Append {
    about: About,
    imports: Vec<String>,
}

impl Plugin for Append {
    fn about(&self) -> &About {
        &self.about
    }

    fn digest(&self) -> &str {
        "0"
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn describe(&self, request: &Request) -> Result<Description, DescribeError> {
        let described = json!({
            "reads": [{ "path": "user", "type": "text", "required": true }, { "path": "seq", "type": "int", "required": true }],
            "outputs": [{ "name": "out", "base": "extend", "fields": [{ "path": "hash", "type": "int" }] }],
            "stores": [{ "key": "text", "fields": [{ "name": "list", "type": "text" }], "by": [request.config["by"]] }],
        });
        Ok(serde_json::from_value(described).expect("it describes itself"))
    }

    fn instantiate(&self, _: &Request, _: &Description, _: Limits) -> Result<Box<dyn Instance>, CallError> {
        Ok(Box::new(Appending))
    }
}

struct Appending;

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Column {
    let mut column = ColumnBuilder::new(Type::Text, 0);
    texts.into_iter().for_each(|text| column.bytes(text.as_bytes()));
    column.finish()
}

impl Instance for Appending {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let mut lists: BTreeMap<&str, String> = BTreeMap::new();
        let mut rows = Vec::with_capacity(input.rows);
        for row in 0..input.rows {
            let (Cell::Text(user), Cell::Int(seq)) = (input.fields[0].cell(row), input.fields[1].cell(row)) else {
                return Err(CallError::Failed("a row is not as declared".to_owned()));
            };
            lists.entry(user).or_default();
            rows.push((user, seq));
        }
        let found = services.get_many(0, &texts(lists.keys().copied())).map_err(CallError::Trapped)?;
        for (at, list) in lists.values_mut().enumerate() {
            if let Cell::Text(known) = found.fields[0].cell(at)
                && found.present.get(at)
            {
                *list = known.to_owned();
            }
        }
        let mut hashes = ColumnBuilder::new(Type::Int, input.rows);
        for (user, seq) in rows {
            let list = lists.entry(user).or_default();
            list.push_str(&format!("{seq},"));
            hashes.int(hash(list));
        }
        let (keys, rows) = (texts(lists.keys().copied()), texts(lists.values().map(String::as_str)));
        services.put_many(0, keys, vec![rows]).map_err(CallError::Trapped)?;
        let derived = Derived {
            output: 0,
            source: (0..input.rows as u32).collect(),
            fields: vec![Written { column: hashes.finish(), kept: Default::default(), removed: Default::default() }],
            timestamps: None,
            keys: None,
            values: None,
            headers: None,
            leaves: None,
            tombstones: Default::default(),
        };
        Ok(Verdict { outcome: Outcome::Derive(vec![derived]), rejects: Vec::new() })
    }

    fn emit(&mut self, _: usize, _: Occasion, _: &Column, _: &[Column], _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        Err(CallError::Failed("it gives nothing out beside its records' results".to_owned()))
    }

    fn fire(&mut self, _: &[i64], _: &Column, _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        Err(CallError::Failed("it sets no timers".to_owned()))
    }
}
