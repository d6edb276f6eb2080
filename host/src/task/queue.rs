//! The partitions of a task as they wait, and the order in which their records are taken.

use super::{BatchLimit, Task};
use crate::flow::source::Taken;
use crate::generation::Tried;
use crate::io::{Fetched, LogError, TopicPartition};
use crate::record::{Records, RecordsBuilder};
use std::collections::VecDeque;

/// A partition that a task reads.
pub(super) struct Queue {
    pub(super) source: usize,
    pub(super) from: TopicPartition,
    /// Fetched and not yet taken; the first one from row `taken` on.
    pub(super) waiting: VecDeque<Fetched>,
    pub(super) taken: usize,
    pub(super) rows: usize,
    /// The offset behind the last record taken, or the end that was told.
    pub(super) position: Option<i64>,
    /// The end of the partition, when it was told and nothing came since.
    pub(super) end: Option<i64>,
    /// Records from this offset on are not for this run (`--until-end`).
    pub(super) until: Option<i64>,
    /// More may come until the captured end is known, whatever is told.
    pub(super) open_end: bool,
    /// The position moved since the last commit.
    pub(super) moved: bool,
    /// Of a repartition topic: its end when the task began.
    pub(super) fresh_from: i64,
    /// The offset from which on the task's newest generation works here.
    pub(super) since: i64,
    /// That it does is not committed yet.
    pub(super) cut: bool,
    /// Neither is it that the generation for the other keys does.
    pub(super) base_cut: bool,
    /// It did so for some keys before, which is told with the cut-over.
    pub(super) tried: Option<Tried>,
}

impl Task {
    /// Takes the next batch in order, if there is one: the record with the lowest timestamp first, then the lowest source (tables before streams),
    /// partition, offset. With `patient`, waits until every partition has a record or is at its end.
    pub(super) fn take(&mut self, patient: bool) -> Option<(usize, Taken)> {
        let limit = BatchLimit { rows: self.setting.limit.rows.min(self.most), ..self.setting.limit };
        let (shut, sources) = (self.shut, &self.setting.pipeline.sources);
        let is_shut = |queue: &Queue| shut && sources[queue.source].is_stream();
        if let [queue] = self.queues.as_mut_slice() {
            return if is_shut(queue) { None } else { queue.take_front(limit).map(|taken| (queue.source, taken)) };
        }
        if patient && self.queues.iter().any(|queue| queue.rows == 0 && !queue.ended() && !is_shut(queue)) {
            return None;
        }
        let together = self.setting.plan.together[self.id.segment].is_some();
        // Queue, piece, row in the piece.
        let mut picked: Vec<(usize, usize, usize)> = Vec::new();
        let mut cursors: Vec<Cursor> = self.queues.iter().map(Cursor::new).collect();
        let mut bytes = 0;
        let mut source = None;
        while picked.len() < limit.rows {
            let open = cursors.iter().enumerate().filter(|(at, _)| !is_shut(&self.queues[*at]));
            let next = open.filter_map(|(at, cursor)| Some((cursor.timestamp(&self.queues[at])?, at))).min();
            let Some((_, at)) = next else { break };
            if *source.get_or_insert(self.queues[at].source) != self.queues[at].source && !together {
                break;
            }
            let size = cursors[at].bytes(&self.queues[at]);
            if bytes + size > limit.bytes && !picked.is_empty() {
                break;
            }
            bytes += size;
            picked.push((at, cursors[at].piece, cursors[at].at));
            cursors[at].advance(&self.queues[at]);
            // Behind the last row that is here, the next one of that partition may be older than any other.
            if patient && cursors[at].timestamp(&self.queues[at]).is_none() && !self.queues[at].ended() {
                break;
            }
        }
        let source = source?;
        let taken = gather(&self.queues, &picked);
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let count = picked.iter().filter(|(from, ..)| *from == at).count();
            queue.drop_front(count);
        }
        Some((source, taken))
    }
}

impl Queue {
    /// Err: these records do not come behind those that are here, or were taken.
    pub(super) fn check_place(&self, fetched: &Fetched) -> Result<(), LogError> {
        let last = self.waiting.back().and_then(|waiting| waiting.offsets.last()).map(|last| last + 1);
        let (place, first) = (last.max(self.position).unwrap_or(0), fetched.offsets.first().copied().unwrap_or(i64::MAX));
        if first >= place && fetched.offsets.is_sorted_by(|one, next| one < next) {
            return Ok(());
        }
        Err(LogError::stop(format!(
            "{}: records from offset {first} on were handed over again or out of order, behind those below offset {place}: a mistake in the program. Nothing of them was \
             processed; start it again, and it goes on from what is committed",
            self.from
        )))
    }

    /// Whether nothing more is known to come: the end was told, or the captured one is reached.
    pub(super) fn ended(&self) -> bool {
        match self.until {
            // An end that was told may be one of the past.
            Some(until) => self.position.max(self.end).is_some_and(|reached| reached >= until),
            None => self.end.is_some() && !self.open_end,
        }
    }

    /// The next rows, as many as a batch holds and as came in one piece.
    fn take_front(&mut self, limit: BatchLimit) -> Option<Taken> {
        let front = self.waiting.front()?;
        let (first, length) = (self.taken, front.offsets.len());
        let mut count = (length - first).min(limit.rows);
        if front.records.bytes() > limit.bytes {
            let mut bytes = 0;
            let fits = (first..first + count).take_while(|row| {
                bytes += size_of(&front.records, *row);
                bytes <= limit.bytes
            });
            count = fits.count().max(1);
        }
        let whole = first == 0 && count == length;
        let taken = if whole {
            let fetched = self.waiting.pop_front()?;
            let partitions = vec![fetched.from.partition; count];
            Taken { partitions, offsets: fetched.offsets, records: fetched.records, ..Taken::default() }
        } else {
            let rows: Vec<u32> = (first as u32..(first + count) as u32).collect();
            let taken = Taken {
                partitions: vec![front.from.partition; count],
                offsets: front.offsets[first..first + count].to_vec(),
                records: front.records.gather(&rows),
                ..Taken::default()
            };
            self.taken += count;
            if self.taken == length {
                self.waiting.pop_front();
                self.taken = 0;
            }
            taken
        };
        self.rows -= count;
        Some(taken)
    }

    fn drop_front(&mut self, mut count: usize) {
        self.rows -= count;
        while let Some(front) = self.waiting.front() {
            let left = front.offsets.len() - self.taken;
            if count < left {
                self.taken += count;
                return;
            }
            count -= left;
            self.waiting.pop_front();
            self.taken = 0;
        }
    }
}

fn size_of(records: &Records, row: usize) -> usize {
    records.keys.bytes(row).map_or(0, <[u8]>::len) + records.values.bytes(row).map_or(0, <[u8]>::len)
}

/// A place among the waiting rows of a queue.
struct Cursor {
    piece: usize,
    at: usize,
}

impl Cursor {
    fn new(queue: &Queue) -> Self {
        Self { piece: 0, at: queue.taken }
    }

    fn timestamp(&self, queue: &Queue) -> Option<i64> {
        queue.waiting.get(self.piece).map(|piece| piece.records.timestamps[self.at])
    }

    fn bytes(&self, queue: &Queue) -> usize {
        queue.waiting.get(self.piece).map_or(0, |piece| size_of(&piece.records, self.at))
    }

    fn advance(&mut self, queue: &Queue) {
        self.at += 1;
        if queue.waiting.get(self.piece).is_some_and(|piece| self.at >= piece.offsets.len()) {
            self.piece += 1;
            self.at = 0;
        }
    }
}

/// Copies picked rows of several queues into one piece, in that order.
fn gather(queues: &[Queue], picked: &[(usize, usize, usize)]) -> Taken {
    let mut taken = Taken::default();
    let mut records = RecordsBuilder::default();
    let sources: Vec<usize> = picked.iter().map(|(queue, ..)| queues[*queue].source).collect();
    taken.sources = sources.windows(2).any(|two| two[0] != two[1]).then_some(sources);
    for (queue, piece, at) in picked {
        let queue = &queues[*queue];
        let fetched = &queue.waiting[*piece];
        taken.partitions.push(queue.from.partition);
        taken.offsets.push(fetched.offsets[*at]);
        let own = &fetched.records;
        records.push(own.timestamps[*at], own.keys.bytes(*at), own.values.bytes(*at), own.headers.of(*at));
    }
    taken.records = records.finish();
    taken
}

/// The first rows of what was fetched.
pub(super) fn cut(fetched: &Fetched, rows: usize) -> Fetched {
    let first: Vec<u32> = (0..rows as u32).collect();
    Fetched { from: fetched.from.clone(), offsets: fetched.offsets[..rows].to_vec(), records: fetched.records.gather(&first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(offsets: &[i64]) -> Fetched {
        let mut records = RecordsBuilder::default();
        offsets.iter().for_each(|offset| records.push(*offset, None, Some(b"{}"), std::iter::empty::<(&[u8], Option<&[u8]>)>()));
        Fetched { from: TopicPartition::new("in", 3), offsets: offsets.to_vec(), records: records.finish() }
    }

    #[test]
    fn records_below_the_place_of_a_task_are_an_error_that_says_where() {
        let mut queue = Queue {
            source: 0,
            from: TopicPartition::new("in", 3),
            waiting: VecDeque::new(),
            taken: 0,
            rows: 0,
            position: Some(7),
            end: None,
            until: None,
            open_end: false,
            moved: false,
            fresh_from: 0,
            since: 0,
            cut: false,
            base_cut: false,
            tried: None,
        };
        let refused = |queue: &Queue, offsets: &[i64]| queue.check_place(&fetched(offsets)).unwrap_err().message;
        assert!(refused(&queue, &[6, 7]).starts_with("in/3: records from offset 6 on"), "{}", refused(&queue, &[6, 7]));
        // Gaps are marks of transactions, or what was aborted.
        for well in [&[7, 8][..], &[9, 12]] {
            queue.check_place(&fetched(well)).unwrap();
        }
        queue.waiting.push_back(fetched(&[9, 12]));
        assert!(refused(&queue, &[12, 13]).contains("below offset 13"), "what waits counts too");
        assert!(refused(&queue, &[15, 14]).contains("out of order"));
        queue.check_place(&fetched(&[13])).unwrap();
    }
}
