//! What is committed of a group, from outside.

use super::admin::{Admin, block_on, options};
use super::config::PATIENCE;
use super::errors;
use super::native::{self, Client, Failure};
use crate::io::{LogError, Position, TopicPartition};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

/// Where the group of `client` stands.
pub fn committed(client: &Client, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
    let what = "looking up committed positions";
    let failed = |failure| errors::failed(what, &failure);
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let list = native::list(partitions.iter().map(|at| (&*at.topic, at.partition, None))).map_err(failed)?;
    native::committed(client, &list, PATIENCE).map_err(failed)?;
    let entries = native::list_entries(&list);
    partitions
        .iter()
        .map(|at| {
            let Some(entry) = entries.iter().find(|entry| entry.partition == at.partition && entry.topic == *at.topic) else {
                return Ok(None);
            };
            if let Some(code) = entry.error {
                return Err(errors::failed(&format!("{what} of {at}"), &native::Failure::new(code, code.to_string())));
            }
            let metadata = String::from_utf8_lossy(&entry.metadata).into_owned();
            Ok((entry.offset >= 0).then_some(Position { offset: entry.offset, metadata }))
        })
        .collect()
}

/// A list of partitions with what is committed there.
pub fn list_of(positions: &[(TopicPartition, Position)]) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (at, position) in positions {
        let mut entry = list.add_partition(&at.topic, at.partition);
        entry.set_offset(Offset::Offset(position.offset)).map_err(Failure::from)?;
        if !position.metadata.is_empty() {
            entry.set_metadata(&position.metadata);
        }
    }
    Ok(list)
}

/// Commits positions as nobody's member: brokers take that while the group has none. False: it has some.
pub fn set_positions(client: &Client, group: &str, positions: &[(TopicPartition, Position)]) -> Result<bool, LogError> {
    if positions.is_empty() {
        return Ok(true);
    }
    let set = list_of(positions).and_then(|list| {
        native::commit_offsets(client, &list)?;
        let refused = native::list_entries(&list).into_iter().find_map(|entry| entry.error);
        refused.map_or(Ok(()), |code| Err(Failure::new(code, code.to_string())))
    });
    match set {
        Ok(()) => Ok(true),
        Err(failure) if matches!(failure.code, Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress) => Ok(false),
        Err(failure) => Err(errors::failed(&format!("setting positions of the group {group}"), &failure)),
    }
}

/// Deletes a group with its positions. False: it has members.
pub fn delete(admin: &Admin, group: &str) -> Result<bool, LogError> {
    let what = format!("deleting the group {group}");
    let deleted = block_on(admin.delete_groups(&[group], &options())).map_err(|error| errors::failed(&what, &error.into()))?;
    match deleted.into_iter().next() {
        Some(Err((_, Code::NonEmptyGroup))) => Ok(false),
        Some(Ok(_) | Err((_, Code::GroupIdNotFound))) | None => Ok(true),
        Some(Err((_, code))) => Err(errors::failed(&what, &Failure::new(code, code.to_string()))),
    }
}
