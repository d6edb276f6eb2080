//! Whether repartition topics are empty for a group: everything in them is processed and committed.

use crate::io::{Event, FetchLimit, Log, LogError, Position, TopicPartition};
use std::time::{Duration, Instant};

/// How long the end of a partition is looked for behind the committed position.
const LOOK: Duration = Duration::from_secs(2);

/// The first partition in which something is left for a group, with its committed position; None = they are empty.
///
/// `levels`: each is written by those before it alone, and the first by nobody any more. What a level was told is committed is written to the next one by then,
/// so that looking at them in this order is enough.
pub fn left(log: &dyn Log, group: &str, levels: &[Vec<TopicPartition>]) -> Result<Option<(TopicPartition, i64)>, LogError> {
    for level in levels {
        let committed = log.committed(group, level)?;
        for (at, committed) in level.iter().zip(committed) {
            let from = place(log, at, committed)?;
            if !is_end(log, at, from)? {
                return Ok(Some((at.clone(), from)));
            }
        }
    }
    Ok(None)
}

fn place(log: &dyn Log, at: &TopicPartition, committed: Option<Position>) -> Result<i64, LogError> {
    let begin = log.bounds(at)?.begin;
    Ok(committed.map_or(begin, |position| position.offset.max(begin)))
}

/// Whether no record stands from an offset on, also none that is not committed yet: only marks of transactions, and what was aborted.
fn is_end(log: &dyn Log, at: &TopicPartition, from: i64) -> Result<bool, LogError> {
    let end = log.high_watermark(at)?;
    if from >= end {
        return Ok(true);
    }
    let mut reader = log.reader()?;
    reader.assign(&[(at.clone(), from)])?;
    let since = Instant::now();
    while since.elapsed() < LOOK {
        match reader.poll(FetchLimit { rows: 1, bytes: 1 << 20 }, Duration::from_millis(100))? {
            Event::Records(fetched) if !fetched.offsets.is_empty() => return Ok(false),
            // An open transaction ends what can be read before it.
            Event::End { offset, .. } if offset >= end => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}
