//! Reading places in partitions, and the poll over several of them that readers and members share.

use super::Shared;
use super::catalog::TopicEntry;
use super::framing::Batch;
use crate::io::{Event, FetchLimit, Fetched, LogError, TopicPartition};
use crate::record::Records;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More than this is never handed over at once, whatever the limit says: a column stays below 2^31 bytes.
const MOST_BYTES: usize = 1 << 30;

/// A place in a partition.
#[derive(Debug)]
struct Cursor {
    topic: Arc<TopicEntry>,
    at: TopicPartition,
    /// The offset to read next.
    next: i64,
    /// The end that was told last.
    told: Option<i64>,
    paused: bool,
    /// The batch that was read last, kept while `next` lies in it.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    base: i64,
    bytes: fjall::Slice,
}

/// Places in partitions, read in turn.
#[derive(Debug, Default)]
pub struct Cursors {
    all: Vec<Cursor>,
    /// Whose turn it is.
    turn: usize,
}

impl Cursors {
    /// Reads `at` from `offset` on, anew if it was read before.
    pub fn start(&mut self, shared: &Shared, at: &TopicPartition, offset: i64) -> Result<(), LogError> {
        let topic = shared.catalog.find(&at.topic)?;
        let end = topic.end(at.partition)?;
        if !(0..=end).contains(&offset) {
            return Err(LogError::stop(format!(
                "{at} cannot be read from offset {offset}: it holds offsets 0 to {end} (has the data folder been replaced?)"
            )));
        }
        let cursor = Cursor { topic, at: at.clone(), next: offset, told: None, paused: false, held: None };
        match self.all.iter_mut().find(|cursor| cursor.at == *at) {
            Some(place) => *place = cursor,
            None => self.all.push(cursor),
        }
        Ok(())
    }

    pub fn stop(&mut self, partitions: &[TopicPartition]) {
        self.all.retain(|cursor| !partitions.contains(&cursor.at));
    }

    pub fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for cursor in self.all.iter_mut().filter(|cursor| partitions.contains(&cursor.at)) {
            cursor.paused = paused;
        }
    }

    /// Records, the end of a partition, or nothing within `wait`.
    pub fn poll(&mut self, shared: &Shared, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        let deadline = Instant::now().checked_add(wait);
        loop {
            // Before looking, so that what is appended meanwhile ends the wait.
            let seen = shared.appended.count();
            for step in 0..self.all.len() {
                let place = (self.turn + step) % self.all.len();
                let Some(cursor) = self.all.get_mut(place) else { continue };
                if cursor.paused {
                    continue;
                }
                if let Some(fetched) = cursor.fetch(shared, limit)? {
                    self.turn = place + 1;
                    return Ok(Event::Records(fetched));
                }
                if cursor.told != Some(cursor.next) {
                    cursor.told = Some(cursor.next);
                    return Ok(Event::End { at: cursor.at.clone(), offset: cursor.next });
                }
            }
            if !shared.appended.wait(seen, deadline) {
                return Ok(Event::Idle);
            }
        }
    }
}

impl Cursor {
    fn fetch(&mut self, shared: &Shared, limit: FetchLimit) -> Result<Option<Fetched>, LogError> {
        let fetched = self.fetch_next(shared, limit);
        if fetched.is_err() {
            // What was deleted meanwhile is not damaged.
            self.topic.end(self.at.partition)?;
        }
        fetched
    }

    /// The next records, None at the end: small batches merged, big ones cut.
    fn fetch_next(&mut self, shared: &Shared, limit: FetchLimit) -> Result<Option<Fetched>, LogError> {
        let end = self.topic.end(self.at.partition)?;
        let most_rows = limit.rows.max(1);
        let most_bytes = limit.bytes.min(MOST_BYTES);
        let mut records = Records::default();
        let mut bytes = 0;
        let mut next = self.next;
        while next < end && records.len() < most_rows {
            let held = match self.held.take() {
                Some(held) if held.holds(next)? => held,
                held => Held::find(shared, &self.topic, self.at.partition, next, held.as_ref())?,
            };
            let held = self.held.insert(held);
            let batch = held.batch(&self.at)?;
            let from = (next - held.base) as usize;
            let room = most_bytes.saturating_sub(bytes);
            let mut rows = batch.fitting(from, room).min(most_rows - records.len());
            if rows == 0 && records.is_empty() {
                rows = 1;
            }
            if rows == 0 {
                break;
            }
            bytes += batch.bytes(from, from + rows);
            batch.append_to(&mut records, from, from + rows).map_err(|error| damaged(&self.at, held.base, &error))?;
            next += rows as i64;
        }
        if records.is_empty() {
            return Ok(None);
        }
        let offsets = (self.next..next).collect();
        self.next = next;
        Ok(Some(Fetched { from: self.at.clone(), offsets, records }))
    }
}

impl Held {
    /// The batch that holds `offset`, which is below the end. Right behind `before` its key is known.
    fn find(shared: &Shared, topic: &TopicEntry, partition: i32, offset: i64, before: Option<&Self>) -> Result<Self, LogError> {
        let follows =
            before.is_some_and(|before| Batch::parse(&before.bytes).is_ok_and(|batch| before.base + batch.rows() as i64 == offset));
        let base = if follows { offset } else { shared.base_of(topic, partition, offset)? };
        let bytes = shared.batch(topic, partition, base)?;
        let held = Self { base, bytes };
        if held.holds(offset)? {
            return Ok(held);
        }
        Err(LogError::stop(format!("the data folder is damaged: no batch holds offset {offset} of {}/{partition}", topic.name)))
    }

    fn holds(&self, offset: i64) -> Result<bool, LogError> {
        let batch = Batch::parse(&self.bytes).map_err(|error| LogError::stop(format!("the data folder is damaged: {error}")))?;
        Ok(offset >= self.base && offset < self.base + batch.rows() as i64)
    }

    fn batch(&self, at: &TopicPartition) -> Result<Batch<'_>, LogError> {
        Batch::parse(&self.bytes).map_err(|error| damaged(at, self.base, &error))
    }
}

fn damaged(at: &TopicPartition, base: i64, error: &super::framing::Damaged) -> LogError {
    LogError::stop(format!("cannot read the batch at offset {base} of {at} in the data folder: {error}"))
}
