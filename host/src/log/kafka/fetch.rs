//! From librdkafka's queue to columns: messages of several partitions come mixed, and leave as consecutive records of one.

use super::errors;
use super::native::{Failure, Message, Queue};
use crate::column::{Column, ColumnBuilder, Strings, Type};
use crate::io::{Event, FetchLimit, Fetched, LogError, TopicPartition};
use crate::record::{Headers, HeadersBuilder, Records};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Records of one partition in the making.
struct Building {
    /// Of this batch of messages only.
    topic_id: usize,
    from: TopicPartition,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: Cells,
    values: Cells,
    /// Begun with the first record that has any.
    headers: Option<HeadersBuilder>,
    bytes: usize,
}

/// No column is made larger than this in advance: one big record does not make all later batches big.
const HINT: usize = 1 << 20;

/// How large the last columns were: the next are most likely of the same size, and need not grow.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    rows: usize,
    keys: usize,
    values: usize,
}

/// A column of blobs: plain until the first null.
struct Cells {
    strings: Strings,
    nulls: Option<ColumnBuilder>,
}

impl Cells {
    fn new(rows: usize, bytes: usize) -> Self {
        Self { strings: Strings::with_capacity(rows, bytes), nulls: None }
    }

    fn bytes(&self) -> usize {
        self.strings.data.len()
    }

    fn push(&mut self, cell: Option<&[u8]>) {
        match (&mut self.nulls, cell) {
            (None, Some(bytes)) => self.strings.push(bytes),
            (Some(column), Some(bytes)) => column.bytes(bytes),
            (Some(column), None) => column.null(),
            (None, None) => {
                let mut column = ColumnBuilder::new(Type::Bytes, self.strings.len() + 1);
                for bytes in self.strings.iter() {
                    column.bytes(bytes);
                }
                column.null();
                self.nulls = Some(column);
            }
        }
    }

    fn finish(self) -> Column {
        match self.nulls {
            Some(column) => column.finish(),
            None => Column::blobs(self.strings),
        }
    }
}

impl Building {
    fn new(topic_id: usize, from: TopicPartition, sizes: Sizes) -> Self {
        Self {
            topic_id,
            from,
            offsets: Vec::with_capacity(sizes.rows),
            timestamps: Vec::with_capacity(sizes.rows),
            keys: Cells::new(sizes.rows, sizes.keys),
            values: Cells::new(sizes.rows, sizes.values),
            headers: None,
            bytes: 0,
        }
    }

    fn push(&mut self, message: &Message<'_>) {
        let rows = self.offsets.len();
        let (key, value) = (message.key(), message.value());
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.offsets.push(message.offset());
        self.timestamps.push(message.timestamp());
        self.keys.push(key);
        self.values.push(value);
        let headers = &mut self.headers;
        message.headers(|name, value| {
            let headers = headers.get_or_insert_with(|| {
                let mut headers = HeadersBuilder::default();
                (0..rows).for_each(|_| headers.close());
                headers
            });
            headers.push(name, value);
        });
        if let Some(headers) = headers {
            headers.close();
        }
    }

    /// Whether a record of this size may still join.
    fn has_room(&self, bytes: usize, limit: FetchLimit) -> bool {
        self.offsets.is_empty() || (self.offsets.len() < limit.rows && self.bytes + bytes <= limit.bytes)
    }

    fn finish(self, sizes: &mut Sizes) -> Ready {
        *sizes = Sizes { rows: self.offsets.len(), keys: self.keys.bytes().min(HINT), values: self.values.bytes().min(HINT) };
        let records = Records {
            timestamps: self.timestamps,
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers.map_or_else(Headers::default, HeadersBuilder::finish),
        };
        Ready::records(Fetched { from: self.from, offsets: self.offsets, records })
    }
}

/// What is to be handed over.
struct Ready {
    /// None: an error of no partition.
    of: Option<TopicPartition>,
    event: Result<Event, LogError>,
}

impl Ready {
    fn records(fetched: Fetched) -> Self {
        Self { of: Some(fetched.from.clone()), event: Ok(Event::Records(fetched)) }
    }

    fn end(at: TopicPartition, offset: i64) -> Self {
        Self { of: Some(at.clone()), event: Ok(Event::End { at, offset }) }
    }
}

/// A queue's messages as events, in the order of each partition.
pub struct Fetcher {
    queue: Queue,
    ready: VecDeque<Ready>,
    building: Vec<Building>,
    sizes: Sizes,
}

impl Fetcher {
    pub fn new(queue: Queue) -> Self {
        Self { queue, ready: VecDeque::new(), building: Vec::new(), sizes: Sizes::default() }
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Drops what was fetched from some partitions and not handed over, errors too: they come again where they matter. A member that was away, say, reads
    /// what another has passed and deleted since, and hears in the same moment that the partition is not its own any more.
    pub fn forget(&mut self, forget: impl Fn(&TopicPartition) -> bool) {
        self.ready.retain(|ready| !ready.of.as_ref().is_some_and(&forget));
    }

    /// Takes messages from the queue, waiting for the first if none is at hand. `place` names a partition that is wanted, None drops its messages.
    /// Returns how many messages came.
    pub fn fetch(&mut self, limit: FetchLimit, wait: Duration, mut place: impl FnMut(&str, i32) -> Option<TopicPartition>) -> usize {
        let Self { queue, ready, building, sizes } = self;
        // The partition of the message before, which mostly is this one's too.
        let mut dropped = None;
        let came = queue.take(limit.rows, wait, |message| {
            let id = (message.topic_id(), message.partition());
            if dropped == Some(id) {
                return;
            }
            match message.error() {
                None => {}
                Some(Code::PartitionEOF) => {
                    if let Some(at) = place(&message.topic(), message.partition()) {
                        if let Some(place) = building.iter().position(|open| open.from == at) {
                            ready.push_back(building.swap_remove(place).finish(sizes));
                        }
                        ready.push_back(Ready::end(at, message.offset()));
                    }
                    return;
                }
                // Out of the group for not polling; the revocation says it too.
                Some(Code::PollExceeded) => {
                    tracing::warn!("{}", message.error_text());
                    return;
                }
                Some(code) => {
                    // An error of a partition that is no longer wanted is no news.
                    let topic = message.topic();
                    let of_partition = !topic.is_empty() && message.partition() >= 0;
                    let at = of_partition.then(|| place(&topic, message.partition())).flatten();
                    if !of_partition || at.is_some() {
                        let what = match (topic.is_empty(), message.partition()) {
                            (true, _) => "reading".to_owned(),
                            (false, ..0) => format!("reading {topic}"),
                            (false, partition) => format!("reading {topic}/{partition}"),
                        };
                        let error = errors::failed(&what, &Failure::new(code, message.error_text()));
                        ready.push_back(Ready { of: at, event: Err(error) });
                    }
                    return;
                }
            }
            let known = building.iter().position(|open| (open.topic_id, open.from.partition) == id);
            let open = match known {
                Some(place) => place,
                None => {
                    let Some(from) = place(&message.topic(), message.partition()) else {
                        dropped = Some(id);
                        return;
                    };
                    building.push(Building::new(id.0, from, *sizes));
                    building.len() - 1
                }
            };
            let size = message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
            let Some(open) = building.get_mut(open) else { return };
            if !open.has_room(size, limit) {
                let next = Building::new(id.0, open.from.clone(), *sizes);
                ready.push_back(std::mem::replace(open, next).finish(sizes));
            }
            open.push(&message);
        });
        ready.extend(building.drain(..).map(|open| open.finish(sizes)));
        came
    }

    /// What is to be handed over next, cut to the limit.
    pub fn next(&mut self, limit: FetchLimit) -> Option<Result<Event, LogError>> {
        let event = self.ready.pop_front()?.event;
        let Ok(Event::Records(fetched)) = event else { return Some(event) };
        match cut(&fetched, limit) {
            Some(rows) => {
                let (first, rest) = split(&fetched, rows);
                self.ready.push_front(Ready::records(rest));
                Some(Ok(Event::Records(first)))
            }
            None => Some(Ok(Event::Records(fetched))),
        }
    }
}

/// How many rows fit, if not all do: the limit was smaller at this poll than at the one that fetched.
fn cut(fetched: &Fetched, limit: FetchLimit) -> Option<usize> {
    let rows = fetched.offsets.len();
    if rows <= limit.rows.max(1) && fetched.records.bytes() <= limit.bytes {
        return None;
    }
    let mut bytes = 0;
    let fit = (0..rows.min(limit.rows))
        .take_while(|row| {
            let size = |column: &Column| column.bytes(*row).map_or(0, <[u8]>::len);
            bytes += size(&fetched.records.keys) + size(&fetched.records.values);
            bytes <= limit.bytes
        })
        .count()
        .max(1);
    (fit < rows).then_some(fit)
}

fn split(fetched: &Fetched, rows: usize) -> (Fetched, Fetched) {
    let part = |range: std::ops::Range<usize>| {
        let places: Vec<u32> = range.clone().map(|row| row as u32).collect();
        Fetched {
            from: fetched.from.clone(),
            offsets: fetched.offsets.get(range).map(<[i64]>::to_vec).unwrap_or_default(),
            records: fetched.records.gather(&places),
        }
    };
    (part(0..rows), part(rows..fetched.offsets.len()))
}

/// The names of topics, so that all records of a topic share one.
#[derive(Debug, Default)]
pub struct Names(Vec<Arc<str>>);

impl Names {
    pub fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.push(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::super::native::{self, Kind};
    use super::*;

    #[test]
    fn what_is_forgotten_of_a_partition_is_its_errors_too() {
        let client = native::client(&rdkafka::ClientConfig::new(), Kind::Lookup, Context::default()).expect("a client");
        let mut fetcher = Fetcher::new(Queue::new(Arc::new(client)));
        let at = |partition| TopicPartition { topic: "numbers".into(), partition };
        let limit = FetchLimit { rows: 10, bytes: 1000 };
        let error = |of: Option<TopicPartition>, text: &str| Ready { of, event: Err(LogError::stop(text.to_owned())) };
        fetcher.ready.push_back(Ready::end(at(0), 1));
        fetcher.ready.push_back(error(Some(at(0)), "of 0"));
        fetcher.ready.push_back(error(Some(at(1)), "of 1"));
        fetcher.ready.push_back(error(None, "of none"));
        fetcher.forget(|at| at.partition == 0);
        let left: Vec<String> = std::iter::from_fn(|| fetcher.next(limit)).map(|event| event.expect_err("an error").message).collect();
        assert_eq!(left, ["of 1", "of none"]);
    }
}
