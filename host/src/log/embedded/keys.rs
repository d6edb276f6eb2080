//! Keys and small values of the database. Numbers are big-endian, so that keys sort as they count.

use crate::io::Position;

/// The prefix of a topic's batches.
pub fn topic(topic: u32) -> [u8; 4] {
    topic.to_be_bytes()
}

/// The prefix of a partition's batches.
pub fn partition(topic: u32, partition: i32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&self::topic(topic));
    key[4..].copy_from_slice(&partition.to_be_bytes());
    key
}

/// A batch, by its first offset. Partitions and offsets are never negative.
pub fn batch(topic: u32, partition_number: i32, base: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&partition(topic, partition_number));
    key[8..].copy_from_slice(&base.to_be_bytes());
    key
}

/// The first offset of the batch with this key.
pub fn base(key: &[u8]) -> Option<i64> {
    key.get(8..16)?.try_into().ok().map(i64::from_be_bytes)
}

/// What the index says of a batch: rows and highest timestamp.
pub fn index(rows: usize, highest_timestamp: i64) -> [u8; 12] {
    let mut value = [0; 12];
    value[..4].copy_from_slice(&(rows as u32).to_be_bytes());
    value[4..].copy_from_slice(&highest_timestamp.to_be_bytes());
    value
}

pub fn read_index(value: &[u8]) -> Option<(usize, i64)> {
    let (rows, time) = value.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*rows) as usize, i64::from_be_bytes(time.try_into().ok()?)))
}

/// A group's position in a partition. The name's length goes first: no name is another's prefix.
pub fn position(group: &str, topic: u32, partition_number: i32) -> Vec<u8> {
    let mut key = name(group);
    key.extend_from_slice(&partition(topic, partition_number));
    key
}

/// The topic of a position, by its key.
pub fn topic_of_position(key: &[u8]) -> Option<u32> {
    let (_, partition) = key.split_last_chunk::<8>()?;
    partition.first_chunk().copied().map(u32::from_be_bytes)
}

/// The prefix of all that is kept for a group: among positions, and among rows of stores.
pub fn group(group: &str) -> Vec<u8> {
    name(group)
}

pub fn position_value(position: &Position) -> Vec<u8> {
    let mut value = position.offset.to_be_bytes().to_vec();
    value.extend_from_slice(position.metadata.as_bytes());
    value
}

pub fn read_position(value: &[u8]) -> Option<Position> {
    let (offset, metadata) = value.split_first_chunk::<8>()?;
    Some(Position { offset: i64::from_be_bytes(*offset), metadata: std::str::from_utf8(metadata).ok()?.to_owned() })
}

/// The prefix of a store's rows for a task.
pub fn state(group: &str, store: &str, task: i32) -> Vec<u8> {
    let mut key = name(group);
    key.extend_from_slice(&name(store));
    key.extend_from_slice(&task.to_be_bytes());
    key
}

/// Names are limited to 255 bytes where they are made.
fn name(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 64);
    key.extend_from_slice(&(name.len() as u16).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// The first key behind all that begin with `prefix`; None if there is none.
pub fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut key = prefix.get(..=last)?.to_vec();
    *key.last_mut()? += 1;
    Some(key)
}
