//! Restoring: before a task takes records, the local copies of its stores are brought up to the changelogs.
//!
//! A changelog is read to its *high watermark*, not to the last stable offset: an open transaction of a crashed writer would hide later records that
//! are committed. The reader waits until what is open there is ended, by the brokers' time-out at the latest.

use crate::io::{Checkpoint, Clock, Event, FetchLimit, Log, LogError, Reader, TopicPartition};
use crate::planted::{Mistake, planted};
use crate::store::changelog::{Changelogs, Claim, Written};
use crate::task::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: FetchLimit = FetchLimit { rows: 5_000, bytes: 4 << 20 };
/// Rows that are written at once: enough for a table of some megabytes.
const WRITE_ROWS: usize = 50_000;

/// A changelog's partition that is read.
struct Part {
    changelog: usize,
    task: TaskId,
    next: i64,
    high: i64,
    claim: Claim,
    /// Read and not yet written.
    rows: Vec<Written>,
}

/// What is being restored.
pub struct Restore {
    changelogs: Arc<Changelogs>,
    reader: Box<dyn Reader>,
    parts: BTreeMap<TopicPartition, Part>,
    /// Tasks that wait, done or not.
    tasks: BTreeSet<TaskId>,
    pub read: u64,
    /// Records to read, at most: compaction may have removed some.
    pub total: u64,
}

impl Restore {
    /// Looks what these tasks lack, whose local copies the caller has claimed. `kept`: tasks that have committed state, by their positions.
    pub fn begin(
        changelogs: &Arc<Changelogs>,
        log: &dyn Log,
        clock: &dyn Clock,
        tasks: BTreeMap<TaskId, Claim>,
        kept: &BTreeSet<TaskId>,
    ) -> Result<Self, LogError> {
        let local = &changelogs.local;
        let mut parts = BTreeMap::new();
        let mut total = 0;
        for (task, claim) in &tasks {
            let own: Vec<_> = changelogs.stores.iter().enumerate().filter(|(_, changelog)| changelog.segment == task.segment).collect();
            let mut empty = !own.is_empty();
            for (index, changelog) in &own {
                let number = task.partition;
                let at = changelog.partition(number);
                if !changelogs.exist {
                    claim.hold(|| local.wipe(&changelog.store, number))?;
                    continue;
                }
                // Before the end is asked for: another worker of this host may still be writing.
                let known = local.checkpoint(&changelog.store, number)?;
                let (high, begin) = (log.high_watermark(&at)?, log.bounds(&at)?.begin);
                let high = if planted(Mistake::RestoreToLastStable) { log.bounds(&at)?.end } else { high };
                empty &= high == 0;
                let from = match known {
                    Some(checkpoint) if checkpoint.offset > high => return Err(anew(&changelog.topic, number)),
                    Some(checkpoint) if checkpoint.offset >= begin && !too_old(&checkpoint, clock.now(), changelogs.tombstones) => {
                        checkpoint.offset
                    }
                    _ => {
                        claim.hold(|| local.wipe(&changelog.store, number))?;
                        begin
                    }
                };
                if from < high {
                    total += (high - from) as u64;
                    parts.insert(at, Part { changelog: *index, task: *task, next: from, high, claim: claim.clone(), rows: Vec::new() });
                }
            }
            if empty && changelogs.exist && kept.contains(task) {
                let topic = own.first().map_or("", |(_, changelog)| &changelog.topic);
                return Err(anew(topic, task.partition));
            }
        }
        let mut reader = log.reader()?;
        if !parts.is_empty() {
            let starts: Vec<_> = parts.iter().map(|(at, part): (_, &Part)| (at.clone(), part.next)).collect();
            reader.assign(&starts)?;
        }
        Ok(Self { changelogs: changelogs.clone(), reader, parts, tasks: tasks.into_keys().collect(), read: 0, total })
    }

    /// Reads on for at most so long. True: all is restored.
    pub fn step(&mut self, clock: &dyn Clock, wait: Duration) -> Result<bool, LogError> {
        if self.parts.is_empty() {
            return Ok(true);
        }
        let (at, reached) = match self.reader.poll(LIMIT, wait)? {
            Event::Records(fetched) => {
                let Some(part) = self.parts.get_mut(&fetched.from) else { return Ok(false) };
                let changelog = &self.changelogs.stores[part.changelog];
                let decoded = changelog.decode(&fetched.records, &mut part.rows);
                let numbers = decoded.map_err(|(row, message)| {
                    LogError::stop(format!(
                        "the record {}@{} is not of store `{}`: {message}; is the topic written by another program, or was the stage changed? \
                         Nothing was changed; run the pipeline under another name to start anew",
                        fetched.from,
                        fetched.offsets.get(row).copied().unwrap_or_default(),
                        changelog.store
                    ))
                })?;
                for number in numbers {
                    changelog.types.seen(part.task.partition, number)?;
                }
                self.read += fetched.offsets.len() as u64;
                (fetched.from, fetched.offsets.last().map_or(part.next, |last| last + 1))
            }
            // Control records and what was aborted count as passed.
            Event::End { at, offset } => (at, offset),
            _ => return Ok(false),
        };
        let Some(part) = self.parts.get_mut(&at) else { return Ok(false) };
        part.next = part.next.max(reached);
        let done = part.next >= part.high;
        if done || part.rows.len() >= WRITE_ROWS {
            let checkpoint = Checkpoint { offset: part.next, written_at: clock.now() };
            let store = &self.changelogs.stores[part.changelog].store;
            let rows = std::mem::take(&mut part.rows);
            part.claim.hold(|| self.changelogs.local.write(store, part.task.partition, &rows, Some(&checkpoint)))?;
            crate::fault::point("restoring");
        }
        if done {
            self.parts.remove(&at);
        }
        Ok(self.parts.is_empty())
    }

    pub fn tasks(&self) -> &BTreeSet<TaskId> {
        &self.tasks
    }

    /// Leaves a task out that was given up. False: none is left.
    pub fn forget(&mut self, task: TaskId) -> bool {
        self.tasks.remove(&task);
        self.parts.retain(|_, part| part.task != task);
        !self.tasks.is_empty()
    }
}

/// Older than this, a copy may have missed tombstones that compaction has removed since: deleted keys would live on in it.
fn too_old(checkpoint: &Checkpoint, now: i64, tombstones: Duration) -> bool {
    now.saturating_sub(checkpoint.written_at) > i64::try_from(tombstones.as_millis() / 2).unwrap_or(i64::MAX)
}

fn anew(topic: &str, task: i32) -> LogError {
    LogError::stop(format!(
        "the changelog {topic}/{task} holds less than was committed to it: it was deleted, or made anew, and state is lost with it. Nothing was changed. \
         Bring the topic back, or run the pipeline under another name to start anew"
    ))
}
