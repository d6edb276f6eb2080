//! Whether repartition topics are empty for a group: everything in them is processed and committed.

use crate::flow::plan;
use crate::io::{Clock, Event, FetchLimit, Log, LogError, Position, TopicPartition, partitions_of};
use crate::pipeline::Pipeline;
use crate::planted::{Mistake, planted};
use std::time::Duration;

/// How long the end of a partition is looked for behind the committed position.
const LOOK: Duration = Duration::from_secs(2);

/// Every partition of a pipeline's repartition topics, by level.
pub fn levels(pipeline: &Pipeline, log: &dyn Log) -> Result<Vec<Vec<TopicPartition>>, LogError> {
    let segments = plan::segments(pipeline);
    let mut levels = vec![Vec::new(); segments.iter().map(|segment| segment.level).max().unwrap_or(0)];
    for segment in segments.iter().filter(|segment| segment.level > 0) {
        let sources = segment.sources.iter().map(|source| &pipeline.sources[*source]);
        for source in sources.filter(|source| source.carries.is_some()) {
            levels[segment.level - 1].extend(partitions_of(log, &source.topic)?);
        }
    }
    Ok(levels)
}

/// The first partition in which something is left for a group, with its committed position; None = they are empty.
///
/// `levels`: each is written by those before it alone, and the first by nobody any more. What a level was told is committed is written to the next one by then,
/// so that looking at them in this order is enough.
pub fn left(
    log: &dyn Log,
    clock: &dyn Clock,
    group: &str,
    levels: &[Vec<TopicPartition>],
) -> Result<Option<(TopicPartition, i64)>, LogError> {
    for level in levels.iter().filter(|_| !planted(Mistake::NotEmptied)) {
        let committed = log.committed(group, level)?;
        for (at, committed) in level.iter().zip(committed) {
            let from = place(log, at, committed)?;
            if !is_end(log, clock, at, from)? {
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
fn is_end(log: &dyn Log, clock: &dyn Clock, at: &TopicPartition, from: i64) -> Result<bool, LogError> {
    let end = log.high_watermark(at)?;
    if from >= end {
        return Ok(true);
    }
    let mut reader = log.reader()?;
    reader.assign(&[(at.clone(), from)])?;
    let deadline = clock.elapsed() + LOOK;
    while clock.elapsed() < deadline {
        match reader.poll(FetchLimit { rows: 1, bytes: 1 << 20 }, Duration::from_millis(100))? {
            Event::Records(fetched) if !fetched.offsets.is_empty() => return Ok(false),
            // An open transaction ends what can be read before it.
            Event::End { offset, .. } if offset >= end => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}
