//! What is run, and on what. For each user numbers come in a row, and native plugins keep them: in lists, in windows, beside timers, beside a table.

mod plugins;

use super::broker::Record;
use crate::manifest;
use crate::pipeline::Pipeline;
use crate::plugin::describe::Store;
use crate::store::changelog::Changelog;
use crate::store::{RowType, RowTypes, store_of};
use crate::task;
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

pub use plugins::{FOLLOWS, GRACE, SIZE, repeats};

pub const INPUT: &str = "in";
pub const OUTPUT: &str = "out";
/// The table's topic, and its name.
pub const ROWS: &str = "rows";
/// Stages, their stores, and the topics that they are written to.
pub const LISTS: &str = "lists";
pub const WINDOWS: &str = "windows";
pub const ALARMS: &str = "alarms";
pub const FOUND: &str = "found";
/// The control topic of the fleet.
pub const CONTROL: &str = "fleet.control";
/// The store of the timers.
pub const TIMERS: &str = "alarms.timers";

/// Which pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Each number is appended to its user's list.
    Lists,
    /// The same, through a repartition topic.
    Regrouped,
    /// Numbers are gathered in windows, and meet a partitioned table.
    Windows,
    /// The same beside timers: then batches end before a timer is due.
    Timers,
    /// Windows, whose results go through a repartition topic and are appended to lists.
    Chained,
    /// As `Lists`, at least once.
    AtLeastOnce,
    /// Lists of users and of teams in turns: each generation groups by something else than the one before, and begins new lists.
    Emptied,
}

impl Kind {
    pub fn regrouped(self) -> bool {
        self == Self::Regrouped
    }

    /// Records have times of their own.
    pub fn timed(self) -> bool {
        matches!(self, Self::Windows | Self::Timers | Self::Chained)
    }

    /// A table's records come beside the stream's.
    pub fn table(self) -> bool {
        matches!(self, Self::Windows | Self::Timers)
    }

    pub fn segments(self) -> usize {
        if matches!(self, Self::Regrouped | Self::Chained | Self::Emptied) { 2 } else { 1 }
    }

    /// Its results tell by which generation they were made.
    pub fn swaps(self) -> bool {
        matches!(self, Self::Lists | Self::Regrouped)
    }

    /// The topics whose records the lists are made of.
    pub fn before_lists(self) -> &'static [&'static str] {
        match self {
            Self::Regrouped => &["sim.lists.repartition"],
            Self::Emptied => &["sim.lists.repartition", "sim.others.repartition"],
            _ => &[INPUT],
        }
    }

    fn manifest(self, generation: u64) -> String {
        let lists = |by: &str| {
            format!(
                "sources: {{ in: {{ topic: {INPUT}, schema: {{ user: text, seq: int }} }} }}\n\
                 stages: [{{ name: {LISTS}, plugin: append, with: {{ by: {by}, version: {generation} }} }}]\n\
                 sinks: [{{ from: {LISTS}, topic: {OUTPUT}, create: true }}]\n"
            )
        };
        let sink = |stage: &str| format!("  - {{ from: {stage}, topic: {stage}, create: true }}\n");
        match self {
            Self::Lists => lists("$key"),
            Self::Regrouped => lists("user"),
            Self::Emptied => format!(
                "sources: {{ in: {{ topic: {INPUT}, schema: {{ user: text, team: text, seq: int, number: int }} }} }}\n\
                 stages: [{{ name: {stage}, plugin: append, store: {LISTS}-{generation}, with: {{ by: {by}, of: number, version: {generation} }} }}]\n\
                 sinks: [{{ from: {stage}, topic: {OUTPUT}, create: true }}]\n",
                stage = stage_of(generation),
                by = grouped_by(generation),
            ),
            Self::AtLeastOnce => format!("guarantee: at-least-once\n{}", lists("$key")),
            Self::Chained => format!(
                "sources: {{ in: {{ topic: {INPUT}, schema: {{ user: text, seq: int }} }} }}\n\
                 stages:\n  - {{ name: {WINDOWS}, plugin: tally, with: {{ by: $key }} }}\n  - {{ name: {LISTS}, plugin: append, with: {{ by: user, of: start }} }}\n\
                 sinks: [{{ from: {LISTS}, topic: {OUTPUT}, create: true }}]\n"
            ),
            Self::Windows | Self::Timers => {
                let mut stages = vec![(WINDOWS, "tally"), (FOUND, "find")];
                stages.extend((self == Self::Timers).then_some((ALARMS, "alarm")));
                let of =
                    |(name, plugin): &(&str, &str)| format!("  - {{ name: {name}, plugin: {plugin}, from: in, with: {{ by: $key }} }}\n");
                format!(
                    "sources: {{ in: {{ topic: {INPUT}, schema: {{ user: text, seq: int, due: int }} }} }}\n\
                     tables: {{ {ROWS}: {{ topic: {ROWS}, scope: partitioned, schema: {{ version: int }} }} }}\n\
                     stages:\n{}sinks:\n{}",
                    stages.iter().map(of).collect::<String>(),
                    stages.iter().map(|(name, _)| sink(name)).collect::<String>(),
                )
            }
        }
    }
}

/// By which field a generation of `Kind::Emptied` groups.
pub fn grouped_by(generation: u64) -> &'static str {
    if generation % 2 == 1 { "user" } else { "team" }
}

/// Its stage, after which the repartition topic is named: in some generations that goes, in others it comes back.
pub fn stage_of(generation: u64) -> &'static str {
    if generation.is_multiple_of(3) { "others" } else { LISTS }
}

/// The pipeline, checked as a user's.
pub fn pipeline(kind: Kind) -> Pipeline {
    pipeline_of(kind, if kind == Kind::Emptied { 1 } else { 0 })
}

thread_local!(static LOADED: RefCell<HashMap<(Kind, u64), Pipeline>> = RefCell::default());

/// One of its generations; 0 = without a fleet.
pub fn pipeline_of(kind: Kind, generation: u64) -> Pipeline {
    LOADED.with_borrow_mut(|loaded| loaded.entry((kind, generation)).or_insert_with(|| load(kind, generation)).clone())
}

fn load(kind: Kind, generation: u64) -> Pipeline {
    let text = format!("pipeline: sim\n{}", kind.manifest(generation));
    let path = Path::new("sim.yaml");
    match manifest::load_with(path, text, &plugins::Natives, &manifest::OnDisk::with_standard(path, plugins::component)) {
        Ok(loaded) => loaded.pipeline,
        Err(found) => panic!("{:?}", found.0.iter().map(|one| &one.message).collect::<Vec<_>>()),
    }
}

/// All changelogs of a pipeline.
pub fn changelogs(pipeline: &Pipeline) -> Vec<Changelog> {
    let mut found = Vec::new();
    let changelog = |store: &str, described: &Store| {
        let types = RowTypes::in_memory(store);
        types.number(&RowType::of(&described.fields)).expect("it is the first");
        Changelog::new(&pipeline.name, store, 0, described, types)
    };
    for stage in &pipeline.stages {
        let timers = task::timers(&stage.description).map(|timers| Store { windowed: true, ..timers });
        let described = stage.stores.iter().zip(stage.description.stores.iter().chain(&timers));
        found.extend(described.map(|(name, described)| changelog(name, described)));
    }
    found.extend(pipeline.tables.iter().map(|table| changelog(&table.name, &store_of(table))));
    found
}

/// FNV-1a of a list, as a positive number.
pub fn hash(list: &str) -> i64 {
    let hash = list.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 1) as i64
}

/// The list of the numbers 1 to `count`.
pub fn list(count: i64) -> String {
    (1..=count).map(|number| format!("{number},")).collect()
}

pub fn user(number: usize) -> String {
    format!("u{number}")
}

/// The team of a user.
pub fn team(user: usize) -> String {
    format!("t{}", user % 2)
}

/// A user's number, as one that no other user has; and whose it is.
pub fn number(user: usize, seq: i64) -> i64 {
    1000 * user as i64 + seq
}

pub fn member(number: i64) -> usize {
    (number / 1000) as usize
}

/// A user's next number, as a record. Users that share a key share a partition.
pub fn record(number: usize, seq: i64, kind: Kind, time: i64) -> Record {
    let key = if kind.regrouped() || kind == Kind::Emptied { format!("k{}", number / 2) } else { user(number) };
    let mut value = json!({ "user": user(number), "seq": seq });
    if kind == Kind::Emptied {
        // Of a team are users of several keys.
        value["team"] = team(number).into();
        value["number"] = self::number(number, seq).into();
    }
    of_json(key, &value, time)
}

/// A user's next number in a pipeline with windows: after `due` a timer is due, if that is not 0; the table's version that it meets is one of `versions`.
pub fn timed_record(number: usize, seq: i64, time: i64, due: i64, versions: (i64, i64)) -> Record {
    of_json(user(number), &json!({ "user": user(number), "seq": seq, "due": due, "least": versions.0, "most": versions.1 }), time)
}

/// A version of a user's row in the table.
pub fn row(number: usize, version: i64, time: i64) -> Record {
    of_json(user(number), &json!({ "version": version }), time)
}

fn of_json(key: String, value: &serde_json::Value, timestamp: i64) -> Record {
    Record { timestamp, key: Some(key.into_bytes()), value: Some(value.to_string().into_bytes()), headers: Vec::new() }
}
