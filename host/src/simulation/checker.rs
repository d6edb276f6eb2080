//! What must hold at the end, as a read_committed reader sees it.

mod emptied;

use super::broker::{Broker, Record};
use super::model::{self, Number, Outcome, Version};
use super::workload::{ALARMS, CONTROL, FOUND, INPUT, OUTPUT, ROWS, TIMERS, WINDOWS, hash, list, user};
use crate::generation::{Cut, Tried, WorksBy};
use crate::io::{CommittedState, LocalState, TopicPartition};
use crate::store::changelog::Changelog;
use crate::store::{LocalMemory, encode_int};
use crate::store::{RowTypes, row};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use emptied::emptied;

/// Every partition of a topic.
pub fn partitions(broker: &Broker, topic: &Arc<str>) -> Vec<TopicPartition> {
    let count = broker.topics.get(topic).map_or(0, Vec::len);
    (0..count).map(|partition| TopicPartition::new(topic.clone(), partition as i32)).collect()
}

fn json(record: &Record) -> Value {
    record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
}

/// For each user 1 to `count`, each once and in order, with the hash of exactly that list.
pub fn outputs(broker: &Broker, counts: &[i64]) -> Result<(), String> {
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for at in partitions(broker, &OUTPUT.into()) {
        for (offset, record) in broker.partition(&at).committed(0, usize::MAX) {
            let value = json(record);
            let user = value["user"].as_str().unwrap_or_default();
            let last = seen.entry(user.to_owned()).or_default();
            let seq = value["seq"].as_i64().unwrap_or_default();
            if seq != *last + 1 {
                return Err(format!("{at}@{offset}: {seq} of {user} comes after {last}"));
            }
            *last = seq;
            if value["hash"].as_i64() != Some(hash(&list(seq))) {
                return Err(format!("{at}@{offset}: {seq} of {user} was appended to another list"));
            }
        }
    }
    for (number, count) in counts.iter().enumerate() {
        let last = seen.remove(&user(number)).unwrap_or_default();
        if last != *count {
            return Err(format!("of {} {last} of {count} came out", user(number)));
        }
    }
    match seen.into_keys().next() {
        Some(user) => Err(format!("there is no user {user}")),
        None => Ok(()),
    }
}

/// Each result is of the generation that, as the control topic has it, worked at the place of its record in one of the topics `before`; each generation began once in
/// each partition, behind the one before it; and that which is to work in a partition number, `newest`, does.
pub fn generations(broker: &Broker, sources: &[Arc<str>], before: &[&str], newest: &dyn Fn(i32) -> WorksBy) -> Result<(), String> {
    let mut cuts: BTreeMap<(String, i32), BTreeMap<u64, Told>> = BTreeMap::new();
    for (_, record) in broker.partition(&TopicPartition::new(CONTROL, 0)).committed(0, usize::MAX) {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let parts: Vec<&str> = key.split('/').collect();
        let [_, _, generation, topic, partition] = parts[..] else { return Err(format!("{key} is told")) };
        let (Ok(generation), Ok(partition)) = (generation.parse(), partition.parse()) else { return Err(format!("{key} is told")) };
        let told = cuts.entry((topic.to_owned(), partition)).or_default().entry(generation).or_default();
        let cut: Cut = serde_json::from_value(json(record)).map_err(|error| format!("{key}: {error}"))?;
        let twice = match cut.keys {
            Some(keys) => told.all.is_some() || told.some.replace(Tried { offset: cut.offset, keys }).is_some(),
            None => told.all.replace(cut.offset).is_some(),
        };
        if twice {
            return Err(format!("{key} is told twice"));
        }
        if cut.keys.is_none() && cut.tried != told.some {
            return Err(format!("{key}: that it worked for some keys is told as {:?}, and was {:?}", cut.tried, told.some));
        }
    }
    for at in sources.iter().flat_map(|topic| partitions(broker, topic)) {
        let told = cuts.entry((at.topic.to_string(), at.partition)).or_default();
        if !told.values().flat_map(|told| told.some.map(|some| some.offset).into_iter().chain(told.all)).is_sorted() {
            return Err(format!("{at}: a generation began before the one before it: {told:?}"));
        }
        let newest = newest(at.partition);
        let base = told.iter().rev().find(|(_, told)| told.all.is_some()).map_or(0, |(generation, _)| *generation);
        let last = told
            .last_key_value()
            .map(|(last, told)| WorksBy { newest: *last, divided: told.some.filter(|_| told.all.is_none()).map(|some| (some.keys, base)) });
        if last != Some(newest) {
            return Err(format!("{at}: {newest:?} is not the last that is told: {told:?}"));
        }
    }
    let mut places = BTreeMap::new();
    for at in before.iter().flat_map(|topic| partitions(broker, &(*topic).into())) {
        for (offset, record) in broker.partition(&at).all_committed() {
            let value = json(record);
            places.insert((text(&value, "user"), int(&value, "seq")), (at.clone(), offset, record.key.as_deref().map(<[u8]>::to_vec)));
        }
    }
    for out in partitions(broker, &OUTPUT.into()) {
        for (_, record) in broker.partition(&out).committed(0, usize::MAX) {
            let value = json(record);
            let number = (text(&value, "user"), int(&value, "seq"));
            let Some((at, offset, key)) = places.get(&number) else { return Err(format!("{number:?} comes from nowhere")) };
            let told = &cuts[&(at.topic.to_string(), at.partition)];
            let works = |told: &Told| {
                let some = told.some.is_some_and(|some| some.offset <= *offset && some.keys.hold(key.as_deref()));
                some || told.all.is_some_and(|from| from <= *offset)
            };
            let expected = told.iter().rev().find(|(_, told)| works(told)).map(|(generation, _)| *generation);
            let version = int(&value, "version") as u64;
            if expected != Some(version) {
                return Err(format!("{number:?}, of {at}@{offset}, is by generation {version}, not {expected:?}: {told:?}"));
            }
        }
    }
    Ok(())
}

/// From where on a generation is told to work in a partition.
#[derive(Debug, Default)]
struct Told {
    some: Option<Tried>,
    all: Option<i64>,
}

/// For each user 1 to `count`, each at least once, and none before the one before it.
pub fn outputs_at_least(broker: &Broker, counts: &[i64]) -> Result<(), String> {
    let mut reached = vec![0; counts.len()];
    for at in partitions(broker, &OUTPUT.into()) {
        for (offset, record) in broker.partition(&at).committed(0, usize::MAX) {
            let value = json(record);
            let seq = value["seq"].as_i64().unwrap_or_default();
            let number = (0..counts.len()).find(|number| value["user"] == user(*number)).ok_or("there is another user")?;
            if seq > reached[number] + 1 {
                return Err(format!("{at}@{offset}: {seq} of {} comes after {}", user(number), reached[number]));
            }
            reached[number] = reached[number].max(seq);
        }
    }
    match (0..counts.len()).find(|number| reached[*number] != counts[*number]) {
        Some(number) => Err(format!("of {} {} of {} came out", user(number), reached[number], counts[number])),
        None => Ok(()),
    }
}

/// The changelog's list of every user has each number at least once.
pub fn lists_at_least(broker: &Broker, changelog: &Changelog, counts: &[i64]) -> Result<(), String> {
    let lists = newest_lists(broker, changelog);
    for (number, count) in counts.iter().enumerate() {
        let found = lists.get(&user(number)).map(String::as_str).unwrap_or_default();
        if let Some(missing) = (1..=*count).find(|seq| !found.split(',').any(|it| it == seq.to_string())) {
            return Err(format!("the changelog has the list {found} for {}, without {missing}", user(number)));
        }
    }
    Ok(())
}

/// Nothing is open, and every record of the sources is behind the committed positions.
pub fn rest(broker: &Broker, sources: &[Arc<str>]) -> Result<(), String> {
    if !broker.at_rest() {
        return Err("a transaction is under way at rest".to_owned());
    }
    for at in broker.topics.keys().flat_map(|topic| partitions(broker, topic)) {
        let partition = broker.partition(&at);
        if partition.last_stable() != partition.high_watermark() {
            return Err(format!("{at}: the last stable offset is below the high watermark"));
        }
    }
    for at in sources.iter().flat_map(|topic| partitions(broker, topic)) {
        let position = broker.group.positions.get(&at).map_or(0, |position| position.offset);
        let partition = broker.partition(&at);
        if position > partition.high_watermark() {
            return Err(format!("{at}: the position {position} lies behind the end"));
        }
        // Marks, which tell the time behind a repartition topic, have no value; the last ones may be read by the next run.
        let rest = partition.committed(position, usize::MAX);
        if let Some((offset, _)) = rest.iter().find(|(_, record)| record.value.is_some()) {
            return Err(format!("{at}: the record @{offset} is not behind the position {position}"));
        }
    }
    Ok(())
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn apply(rows: &mut Rows, broker: &Broker, changelog: &Changelog, task: i32, from: i64) -> Result<(), String> {
    let records = broker.partition(&changelog.partition(task)).committed(from, usize::MAX);
    let mut written = Vec::new();
    let columns = super::broker::columns_of(records.iter().map(|(_, record)| *record));
    changelog.decode(&columns, &mut written).map_err(|(row, message)| format!("the changelog's record {row}: {message}"))?;
    for (key, row) in written {
        match row {
            Some(row) => drop(rows.insert(key, told(&changelog.types, &row)?)),
            None => drop(rows.remove(&key)),
        }
    }
    Ok(())
}

/// A row with its type, whose number is another elsewhere.
fn told(types: &RowTypes, row: &[u8]) -> Result<Vec<u8>, String> {
    let (number, columns) = row::split(row);
    let of = types.of(number).ok_or("a row is of no known type")?;
    Ok([of.text().as_bytes(), columns].concat())
}

fn rows_of(folder: &LocalMemory, store: &str, task: i32) -> Result<Rows, String> {
    let rows = folder.scan(store, task, &[], None, usize::MAX).map_err(|error| error.message)?;
    let types = RowTypes::open(store, Arc::new(folder.copy()), false).map_err(|error| error.message)?;
    rows.into_iter().map(|(key, row)| Ok((key, told(&types, &row)?))).collect()
}

/// Each local copy becomes what the changelog has by what it lacks, and `last`, of who ended well and had all tasks, lacks nothing.
pub fn copies(broker: &Broker, changelog: &Changelog, folders: &[LocalMemory], last: Option<usize>) -> Result<(), String> {
    let store = &changelog.store;
    for at in partitions(broker, &changelog.topic) {
        let task = at.partition;
        let mut rebuilt = Rows::new();
        apply(&mut rebuilt, broker, changelog, task, 0)?;
        for (number, folder) in folders.iter().enumerate() {
            let checkpoint = folder.checkpoint(store, task).map_err(|error| error.message)?;
            let Some(checkpoint) = checkpoint else { continue };
            let mut rows = rows_of(folder, store, task)?;
            if last == Some(number) && rows != rebuilt {
                let differ = rebuilt.iter().filter(|(key, row)| rows.get(*key) != Some(row)).count();
                let (has, end) = (checkpoint.offset, broker.partition(&at).high_watermark());
                return Err(format!(
                    "folder {number}, at {has} of {end} in {at}, has {} rows for {}, {differ} of them wrong",
                    rows.len(),
                    rebuilt.len()
                ));
            }
            apply(&mut rows, broker, changelog, task, checkpoint.offset)?;
            if rows != rebuilt {
                return Err(format!("folder {number} goes wrong in {at} from its checkpoint {} on", checkpoint.offset));
            }
        }
        let lacks = |folder: &LocalMemory| folder.checkpoint(store, task).is_ok_and(|checkpoint| checkpoint.is_none());
        if !rebuilt.is_empty() && last.is_some_and(|last| lacks(&folders[last])) {
            return Err(format!("a folder has nothing of {at} after a good end"));
        }
    }
    Ok(())
}

fn newest_lists(broker: &Broker, changelog: &Changelog) -> BTreeMap<String, String> {
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for at in partitions(broker, &changelog.topic) {
        for (_, record) in broker.partition(&at).committed(0, usize::MAX) {
            let user = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            lists.insert(user, json(record)["list"].as_str().unwrap_or_default().to_owned());
        }
    }
    lists
}

/// The changelog holds every user's list.
pub fn lists(broker: &Broker, changelog: &Changelog, counts: &[i64]) -> Result<(), String> {
    let mut lists = newest_lists(broker, changelog);
    for (number, count) in counts.iter().enumerate() {
        let found = lists.remove(&user(number)).unwrap_or_default();
        if found != list(*count) {
            return Err(format!("the changelog has the list {found} for {}", user(number)));
        }
    }
    Ok(())
}

/// The stream's records in a partition, with their offsets.
fn numbers(broker: &Broker, at: &TopicPartition) -> Vec<(i64, Number, Value)> {
    let records = broker.partition(at).committed(0, usize::MAX).into_iter();
    let number = |(offset, record): (i64, &Record)| {
        let value = json(record);
        let (seq, due) = (int(&value, "seq"), int(&value, "due"));
        (offset, Number { time: record.timestamp, user: text(&value, "user"), seq, due }, value)
    };
    records.map(number).collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn int(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// Windows' results that went through a repartition topic: of each user in the order of windows, each once, appended to the list of those before.
pub fn chained(broker: &Broker, closed: bool) -> Result<(), String> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for at in partitions(broker, &INPUT.into()) {
        let numbers: Vec<Number> = numbers(broker, &at).into_iter().map(|(_, number, _)| number).collect();
        for window in model::outcome(&numbers, closed).windows {
            let mut words = window.splitn(3, ' ');
            let (user, start) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let list = lists.entry(user.to_owned()).or_default();
            list.push_str(&format!("{start},"));
            expected.entry(user.to_owned()).or_default().push(format!("{window} {}", hash(list)));
        }
    }
    for at in partitions(broker, &OUTPUT.into()) {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (_, record) in broker.partition(&at).committed(0, usize::MAX) {
            let it = json(record);
            let (user, window) = (text(&it, "user"), format!("{} {}", int(&it, "start"), text(&it, "list")));
            found.entry(user.clone()).or_default().push(format!("{user} {window} {}", int(&it, "hash")));
        }
        for (user, found) in found {
            same(&at, found.into_iter(), expected.remove(&user).unwrap_or_default())?;
        }
    }
    match expected.into_values().next() {
        Some(missing) => Err(format!("{missing:?} did not come out")),
        None => Ok(()),
    }
}

/// The ends of partitions when a run to the end began.
pub type Ends = BTreeMap<TopicPartition, i64>;

/// What windows, timers and look-ups gave out, and what they keep. `runs`: those to the end; without them a record says itself what it may meet.
/// `closed`: the last run closed every window.
pub fn timed(broker: &Broker, changelogs: &[Changelog], runs: &[Ends], closed: bool) -> Result<(), String> {
    for at in partitions(broker, &INPUT.into()) {
        let task = at.partition;
        let beside = |topic: &str| TopicPartition::new(topic, task);
        let written = |topic: &str| match broker.topics.contains_key(topic) {
            true => broker.partition(&beside(topic)).committed(0, usize::MAX),
            false => Vec::new(),
        };
        let input = numbers(broker, &at);
        let numbers: Vec<Number> = input.iter().map(|(_, number, _)| number.clone()).collect();
        let Outcome { windows, alarms, open, waiting } = model::outcome(&numbers, closed);

        let given = written(WINDOWS).into_iter().map(|(_, record)| json(record));
        same(&beside(WINDOWS), given.map(|it| format!("{} {} {}", text(&it, "user"), int(&it, "start"), text(&it, "list"))), windows)?;
        if broker.topics.contains_key(ALARMS) {
            let given = written(ALARMS).into_iter().map(|(_, record)| json(record));
            same(&beside(ALARMS), given.map(|it| format!("{} {} {}", text(&it, "user"), int(&it, "at"), int(&it, "hash"))), alarms)?;
        }

        let found: Vec<Value> = written(FOUND).into_iter().map(|(_, record)| json(record)).collect();
        let place = |value: &Value| format!("{} {}", text(value, "user"), int(value, "seq"));
        same(&beside(FOUND), found.iter().map(place), input.iter().map(|(.., value)| place(value)).collect())?;
        let rows: Vec<(i64, Version)> = written(ROWS)
            .into_iter()
            .map(|(offset, record)| {
                let user = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
                (offset, Version { time: record.timestamp, user, version: int(&json(record), "version") })
            })
            .collect();
        let mut versions = BTreeMap::new();
        if runs.is_empty() {
            for value in &found {
                let (least, most, met) = (int(value, "least"), int(value, "most"), int(value, "version"));
                let least = versions.insert(text(value, "user"), met).unwrap_or_default().max(least);
                if !(least..=most).contains(&met) {
                    return Err(format!("{}: {} met version {met}, not {least} to {most}", beside(FOUND), place(value)));
                }
            }
        } else {
            let mut expected = Vec::new();
            let mut begins: Ends = BTreeMap::new();
            for ends in runs {
                let of = |at: &TopicPartition, offset: i64| (begins.get(at).copied().unwrap_or(0)..ends[at]).contains(&offset);
                let numbers: Vec<_> = input.iter().filter(|(offset, ..)| of(&at, *offset)).map(|(_, number, _)| number.clone()).collect();
                let table = beside(ROWS);
                let rows: Vec<_> = rows.iter().filter(|(offset, _)| of(&table, *offset)).map(|(_, row)| row.clone()).collect();
                expected.extend(model::found(&numbers, &rows, &mut versions));
                begins.clone_from(ends);
            }
            let met = found.iter().map(|value| format!("{} version {}", place(value), int(value, "version")));
            let wanted = numbers.iter().zip(&expected).map(|(number, version)| format!("{} {} version {version}", number.user, number.seq));
            same(&beside(FOUND), met, wanted.collect())?;
        }

        let newest: BTreeMap<String, i64> = rows.into_iter().map(|(_, row)| (row.user, row.version)).collect();
        for changelog in changelogs {
            let mut kept = Rows::new();
            apply(&mut kept, broker, changelog, task, 0)?;
            let times = |kept: &BTreeSet<(i64, String)>| -> Vec<Vec<u8>> {
                kept.iter().map(|(time, user)| [&encode_int(*time)[..], user.as_bytes()].concat()).collect()
            };
            let expected = match &*changelog.store {
                WINDOWS => times(&open),
                TIMERS => times(&waiting),
                ROWS => newest.keys().map(|user| user.as_bytes().to_vec()).collect(),
                _ => continue,
            };
            if kept.keys().ne(&expected) {
                let texts = |keys: Vec<&Vec<u8>>| keys.iter().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
                let (kept, expected) = (texts(kept.keys().collect()), texts(expected.iter().collect()));
                return Err(format!("{} has {kept}, not {expected}", changelog.partition(task)));
            }
        }
    }
    Ok(())
}

fn same(at: &TopicPartition, found: impl Iterator<Item = String>, expected: Vec<String>) -> Result<(), String> {
    let mut count = 0;
    for (place, found) in found.enumerate() {
        count += 1;
        match expected.get(place) {
            Some(expected) if *expected == found => {}
            Some(expected) => return Err(format!("{at}: the record number {place} is `{found}`, not `{expected}`")),
            None => return Err(format!("{at}: `{found}` comes after all that was to come")),
        }
    }
    match expected.get(count) {
        Some(missing) => Err(format!("{at}: `{missing}` is missing")),
        None => Ok(()),
    }
}
