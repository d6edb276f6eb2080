//! Native plugins: what a guest would do, without Wasm.

use super::hash;
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::plugin::describe::{About, Description, Occasion, Request};
use crate::plugin::{CallError, Derived, DescribeError, Input, Instance, Limits, Loader, Outcome, Plugin, Services, Verdict, Written};
use crate::store::{decode_int, encode_int};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Windows' length and grace, milliseconds.
pub const SIZE: i64 = 50;
pub const GRACE: i64 = 20;
/// A timer that repeats is due again so much later.
pub const FOLLOWS: i64 = 25;

/// Whether a timer that fires sets the next one.
pub fn repeats(time: i64) -> bool {
    time % 3 == 0
}

/// The "component" of a plugin is its name.
pub fn component(name: &str) -> Option<&'static [u8]> {
    ["append", "tally", "alarm", "find"].into_iter().find(|known| *known == name).map(str::as_bytes)
}

pub struct Natives;

impl Loader for Natives {
    fn load(&self, component: &[u8]) -> anyhow::Result<Arc<dyn Plugin>> {
        let name = std::str::from_utf8(component)?.to_owned();
        let config = json!({ "type": "object", "properties": { "by": { "type": "string" }, "of": { "type": "string" }, "version": { "type": "integer" } } });
        let about = About { name, version: "1.0.0".to_owned(), config, ..About::default() };
        let imports = ["state", "tables", "windows", "timers"].map(str::to_owned).to_vec();
        Ok(Arc::new(Native { about, imports }))
    }
}

struct Native {
    about: About,
    imports: Vec<String>,
}

impl Plugin for Native {
    fn about(&self) -> &About {
        &self.about
    }

    fn digest(&self) -> &str {
        "0"
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn offers(&self, _: &str) -> bool {
        true
    }

    fn describe(&self, request: &Request) -> Result<Description, DescribeError> {
        let (by, of) = (&request.config["by"], request.config["of"].as_str().unwrap_or("seq"));
        let read = |path: &str, kind: &str| json!({ "path": path, "type": kind, "required": true });
        let field = |path: &str, kind: &str| json!({ "path": path, "type": kind });
        let column = |name: &str, kind: &str| json!({ "name": name, "type": kind });
        let group = by.as_str().filter(|by| !by.starts_with('$')).unwrap_or("user");
        let described = match self.about.name.as_str() {
            "append" => json!({
                "reads": [read(group, "text"), read(of, "int")],
                "outputs": [{ "name": "out", "base": "extend", "fields": [field("hash", "int"), field("version", "int")] }],
                "stores": [{ "key": "text", "fields": lists(rows_of(version(request))), "by": [by], "migrates": migrates(rows_of(version(request))) }],
            }),
            "tally" => json!({
                "reads": [read("user", "text"), read("seq", "int"), read("$window.start", "int")],
                "outputs": [{ "name": "out", "base": "replace", "fields": [field("user", "text"), field("start", "int"), field("list", "text")] }],
                "stores": [{ "key": "bytes", "windowed": true, "fields": [column("list", "text")], "by": [by], "emits": ["closed"] }],
                "window": { "size": SIZE, "grace": GRACE },
            }),
            "alarm" => json!({
                "reads": [read("user", "text"), read("seq", "int"), read("due", "int"), read("$timestamp", "int")],
                "outputs": [{ "name": "out", "base": "replace", "fields": [field("user", "text"), field("at", "int"), field("hash", "int")] }],
                "stores": [{ "key": "text", "fields": [column("list", "text"), column("last", "int")], "by": [by] }],
                "timers": { "key": "text", "by": [by] },
            }),
            _ => json!({
                "reads": [read("$key", "text")],
                "outputs": [{ "name": "out", "base": "extend", "fields": [field("version", "int")] }],
                "tables": [super::ROWS],
                "table_keys": ["$key"],
            }),
        };
        Ok(serde_json::from_value(described).expect("it describes itself"))
    }

    fn instantiate(&self, request: &Request, _: &Description, _: Limits) -> Result<Box<dyn Instance>, CallError> {
        Ok(match self.about.name.as_str() {
            "append" => Box::new(Append { version: version(request) }),
            "tally" => Box::new(Tally),
            "alarm" => Box::new(Alarm),
            _ => Box::new(Find),
        })
    }
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Column {
    let mut column = ColumnBuilder::new(Type::Text, 0);
    texts.into_iter().for_each(|text| column.bytes(text.as_bytes()));
    column.finish()
}

fn blobs<'a>(blobs: impl IntoIterator<Item = &'a [u8]>) -> Column {
    let mut column = ColumnBuilder::new(Type::Bytes, 0);
    blobs.into_iter().for_each(|blob| column.bytes(blob));
    column.finish()
}

fn ints(ints: impl IntoIterator<Item = i64>) -> Column {
    let mut column = ColumnBuilder::new(Type::Int, 0);
    ints.into_iter().for_each(|int| column.int(int));
    column.finish()
}

fn text(column: &Column, row: usize) -> String {
    match column.cell(row) {
        Cell::Text(text) => text.to_owned(),
        _ => String::new(),
    }
}

fn int(column: &Column, row: usize) -> i64 {
    match column.cell(row) {
        Cell::Int(int) => int,
        _ => 0,
    }
}

/// Generations of the lists' plugin, at most.
const VERSIONS: i64 = 10;

/// 0 = without a fleet.
fn version(request: &Request) -> i64 {
    request.config["version"].as_i64().unwrap_or_default()
}

/// Two generations each have rows of one type, so that both can work in one task.
fn rows_of(version: i64) -> i64 {
    (version + 1) / 2
}

/// The columns of a list: each type of rows has one of its own.
fn lists(version: i64) -> Json {
    let list = json!({ "name": "list", "type": "text" });
    let own = json!({ "name": format!("v{version}"), "type": "int", "nullable": true });
    if version > 0 { json!([list, own]) } else { json!([list]) }
}

/// For every second type the plugin makes its rows of the others' itself; the others take them by name.
fn migrates(version: i64) -> Vec<Json> {
    let others = (0..VERSIONS).filter(|other| *other != version);
    if version > 0 && version % 2 == 0 { others.map(lists).collect() } else { Vec::new() }
}

/// One output row for each of `source`'s.
fn derived(source: Vec<u32>, fields: Vec<Column>, keys: Option<Column>) -> Verdict {
    let written = |column| Written { column, kept: Default::default(), removed: Default::default() };
    let derived = Derived {
        output: 0,
        source,
        fields: fields.into_iter().map(written).collect(),
        timestamps: None,
        keys,
        values: None,
        headers: None,
        leaves: None,
        tombstones: Default::default(),
    };
    Verdict { outcome: Outcome::Derive(vec![derived]), rejects: Vec::new() }
}

fn rows(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

fn none() -> Result<Verdict, CallError> {
    Err(CallError::Failed("it has nothing of that kind".to_owned()))
}

/// Appends each number to its user's list, or that of what else it groups by, and gives the list's hash, and its own version.
struct Append {
    version: i64,
}

impl Instance for Append {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let mut lists: BTreeMap<String, String> = (0..input.rows).map(|row| (text(input.fields[0], row), String::new())).collect();
        let found = services.get_many(0, &texts(lists.keys().map(String::as_str))).map_err(CallError::Trapped)?;
        for (at, list) in lists.values_mut().enumerate() {
            *list = text(&found.fields[0], at);
        }
        let mut hashes = Vec::with_capacity(input.rows);
        for row in 0..input.rows {
            let list = lists.entry(text(input.fields[0], row)).or_default();
            list.push_str(&format!("{},", int(input.fields[1], row)));
            hashes.push(hash(list));
        }
        let (keys, written) = (texts(lists.keys().map(String::as_str)), texts(lists.values().map(String::as_str)));
        let own = ints(lists.values().map(|_| self.version));
        let fields = std::iter::once(written).chain((self.version > 0).then_some(own)).collect();
        services.put_many(0, keys, fields).map_err(CallError::Trapped)?;
        let versions = hashes.iter().map(|_| self.version);
        Ok(derived(rows(input.rows), vec![ints(hashes.iter().copied()), ints(versions)], None))
    }

    fn migrate(&mut self, _: usize, _: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, CallError> {
        let count = crate::store::rows_of_column(keys);
        Ok(vec![fields[0].clone(), ints((0..count).map(|_| self.version))])
    }

    fn emit(&mut self, _: usize, _: Occasion, _: &Column, _: &[Column], _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }

    fn fire(&mut self, _: &[i64], _: &Column, _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }
}

/// Gathers the numbers of each user and window, and gives them out when the window is closed.
struct Tally;

impl Instance for Tally {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let key = |row: usize| [&encode_int(int(input.fields[2], row))[..], text(input.fields[0], row).as_bytes()].concat();
        let mut lists: BTreeMap<Vec<u8>, String> = (0..input.rows).map(|row| (key(row), String::new())).collect();
        let found = services.get_many(0, &blobs(lists.keys().map(Vec::as_slice))).map_err(CallError::Trapped)?;
        for (at, list) in lists.values_mut().enumerate() {
            *list = text(&found.fields[0], at);
        }
        for row in 0..input.rows {
            lists.entry(key(row)).or_default().push_str(&format!("{},", int(input.fields[1], row)));
        }
        let (keys, written) = (blobs(lists.keys().map(Vec::as_slice)), texts(lists.values().map(String::as_str)));
        services.put_many(0, keys, vec![written]).map_err(CallError::Trapped)?;
        Ok(Verdict { outcome: Outcome::Derive(Vec::new()), rejects: Vec::new() })
    }

    fn emit(&mut self, _: usize, _: Occasion, keys: &Column, fields: &[Column], _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let count = crate::store::rows_of_column(keys);
        let (mut users, mut starts) = (Vec::new(), Vec::new());
        for row in 0..count {
            let (start, user) = keys.bytes(row).unwrap_or_default().split_at(8);
            starts.push(decode_int(start).unwrap_or_default());
            users.push(String::from_utf8_lossy(user).into_owned());
        }
        let users = texts(users.iter().map(String::as_str));
        Ok(derived(rows(count), vec![users.clone(), ints(starts), fields[0].clone()], Some(users)))
    }

    fn fire(&mut self, _: &[i64], _: &Column, _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }
}

/// Appends each number, and each timer that fires, to its user's list. Every fourth number takes the last timer back.
struct Alarm;

/// By user, the list and the time of the last timer.
type Alarms = BTreeMap<String, (String, i64)>;

impl Alarm {
    fn known(users: impl Iterator<Item = String>, services: &mut Box<dyn Services>) -> Result<Alarms, CallError> {
        let mut known: Alarms = users.map(|user| (user, Default::default())).collect();
        let found = services.get_many(0, &texts(known.keys().map(String::as_str))).map_err(CallError::Trapped)?;
        for (at, state) in known.values_mut().enumerate() {
            *state = (text(&found.fields[0], at), int(&found.fields[1], at));
        }
        Ok(known)
    }

    fn keep(known: &Alarms, services: &mut Box<dyn Services>) -> Result<(), CallError> {
        let lists = texts(known.values().map(|(list, _)| list.as_str()));
        let last = ints(known.values().map(|(_, last)| *last));
        services.put_many(0, texts(known.keys().map(String::as_str)), vec![lists, last]).map_err(CallError::Trapped)
    }
}

impl Instance for Alarm {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let mut known = Self::known((0..input.rows).map(|row| text(input.fields[0], row)), services)?;
        let mut hashes = Vec::with_capacity(input.rows);
        for row in 0..input.rows {
            let [seq, due, time] = [1, 2, 3].map(|field| int(input.fields[field], row));
            let user = text(input.fields[0], row);
            let key = texts([user.as_str()]);
            let (list, last) = known.entry(user).or_default();
            list.push_str(&format!("{seq},"));
            if seq % 4 == 0 && *last > 0 {
                services.change_timers(&[*last], &key, false).map_err(CallError::Trapped)?;
                *last = 0;
            }
            if due > 0 {
                *last = time + due;
                services.change_timers(&[*last], &key, true).map_err(CallError::Trapped)?;
            }
            hashes.push(hash(list));
        }
        Self::keep(&known, services)?;
        Ok(derived(rows(input.rows), vec![input.fields[0].clone(), input.fields[3].clone(), ints(hashes)], None))
    }

    fn emit(&mut self, _: usize, _: Occasion, _: &Column, _: &[Column], _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }

    fn fire(&mut self, times: &[i64], keys: &Column, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let mut known = Self::known((0..times.len()).map(|row| text(keys, row)), services)?;
        let mut hashes = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let user = text(keys, row);
            let key = texts([user.as_str()]);
            let (list, last) = known.entry(user).or_default();
            list.push_str(&format!("t{time},"));
            if *last == *time {
                *last = 0;
            }
            if repeats(*time) {
                services.change_timers(&[time + FOLLOWS], &key, true).map_err(CallError::Trapped)?;
            }
            hashes.push(hash(list));
        }
        Self::keep(&known, services)?;
        Ok(derived(rows(times.len()), vec![keys.clone(), ints(times.iter().copied()), ints(hashes)], Some(keys.clone())))
    }
}

/// Gives each record the version of its user's row in the table.
struct Find;

impl Instance for Find {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let found = services.lookup(0, &rows(input.rows), input.fields[0]).map_err(CallError::Trapped)?;
        let versions = (0..input.rows).map(|row| int(&found.fields[0], row));
        Ok(derived(rows(input.rows), vec![ints(versions)], None))
    }

    fn emit(&mut self, _: usize, _: Occasion, _: &Column, _: &[Column], _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }

    fn fire(&mut self, _: &[i64], _: &Column, _: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        none()
    }
}
