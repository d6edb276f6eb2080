//! What must hold at the end, as a read_committed reader sees it.

use super::broker::{Broker, Record};
use super::workload::{OUTPUT, STORE, hash, list};
use crate::io::{CommittedState, LocalState, TopicPartition};
use crate::store::LocalMemory;
use crate::store::changelog::Changelog;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    for (user, count) in counts.iter().enumerate() {
        let last = seen.remove(&format!("u{user}")).unwrap_or_default();
        if last != *count {
            return Err(format!("of u{user} {last} of {count} came out"));
        }
    }
    match seen.into_keys().next() {
        Some(user) => Err(format!("there is no user {user}")),
        None => Ok(()),
    }
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
        if let Some((offset, _)) = partition.committed(position, 1).first() {
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
            Some(row) => drop(rows.insert(key, row)),
            None => drop(rows.remove(&key)),
        }
    }
    Ok(())
}

fn rows_of(folder: &LocalMemory, task: i32) -> Result<Rows, String> {
    let rows = folder.scan(STORE, task, &[], None, usize::MAX).map_err(|error| error.message)?;
    Ok(rows.into_iter().collect())
}

/// The changelog holds every user's list; each local copy becomes the same by what it lacks, and `last`, of who ended well, lacks nothing.
pub fn state(broker: &Broker, changelog: &Changelog, counts: &[i64], folders: &[LocalMemory], last: usize) -> Result<(), String> {
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for at in partitions(broker, &changelog.topic) {
        let task = at.partition;
        for (_, record) in broker.partition(&at).committed(0, usize::MAX) {
            let user = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            lists.insert(user, json(record)["list"].as_str().unwrap_or_default().to_owned());
        }
        let mut rebuilt = Rows::new();
        apply(&mut rebuilt, broker, changelog, task, 0)?;
        for (number, folder) in folders.iter().enumerate() {
            let checkpoint = folder.checkpoint(STORE, task).map_err(|error| error.message)?;
            let Some(checkpoint) = checkpoint else { continue };
            let mut rows = rows_of(folder, task)?;
            if number == last && rows != rebuilt {
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
        if !rebuilt.is_empty() && folders[last].checkpoint(STORE, task).is_ok_and(|checkpoint| checkpoint.is_none()) {
            return Err(format!("folder {last} has nothing of {at} after a good end"));
        }
    }
    for (user, count) in counts.iter().enumerate() {
        let found = lists.remove(&format!("u{user}")).unwrap_or_default();
        if found != list(*count) {
            return Err(format!("the changelog has the list {found} for u{user}"));
        }
    }
    Ok(())
}
