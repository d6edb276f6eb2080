//! Writes that hang on what was read before. Each name has a turn, which is over when somebody writes under that name; who began to read in an earlier
//! turn is refused and decides anew. Turns live in the holder's memory and begin at a number that no other holder had, so that a new holder
//! refuses all of its predecessor's.

use super::{Append, EmbeddedLog, framing};
use crate::io::{Commit, LogError, TopicPartition};
use crate::log::exclusive::{Tried, try_until_done};
use crate::random::random;
use crate::record::Records;
use std::sync::PoisonError;

/// What is asked of the holder.
pub(super) trait Turns {
    fn turn(&self, name: &str) -> Result<u64, LogError>;
    /// False: the turn was over, and nothing was appended.
    fn append_in_turn(&self, name: &str, turn: u64, to: &TopicPartition, records: &Records) -> Result<bool, LogError>;
}

pub(super) fn write(
    log: &impl Turns,
    name: &str,
    to: &TopicPartition,
    decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
) -> Result<(), LogError> {
    try_until_done(name, to, || {
        let turn = log.turn(name)?;
        let Some(records) = decide()?.filter(|records| !records.is_empty()) else { return Ok(Tried::Done) };
        if log.append_in_turn(name, turn, to, &records)? {
            return Ok(Tried::Done);
        }
        Ok(Tried::Again("another wrote meanwhile".to_owned()))
    })
}

impl Turns for EmbeddedLog {
    fn turn(&self, name: &str) -> Result<u64, LogError> {
        let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(*turns.entry(name.to_owned()).or_insert_with(random))
    }

    fn append_in_turn(&self, name: &str, turn: u64, to: &TopicPartition, records: &Records) -> Result<bool, LogError> {
        let batches = framing::encode(records).map_err(|error| LogError::stop(format!("cannot append to {to}: {error}")))?;
        let _writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = turns.get_mut(name).filter(|now| **now == turn) else { return Ok(false) };
        let append = Append { topic: self.shared.catalog.find(&to.topic)?, partition: to.partition, batches };
        self.shared.write(vec![append], "", &Commit::default())?;
        *now = now.wrapping_add(1);
        Ok(true)
    }
}
