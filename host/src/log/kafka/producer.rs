//! Records from columns into a producer's queue.

use super::context::Context;
use super::errors;
use super::native::{self, Client, Failure, Kind, TopicHandle};
use crate::io::{LogError, Remedy};
use crate::record::Records;
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a full queue may stay full: longer than any record may wait in it.
const FULL: Duration = Duration::from_secs(90);

/// A producer with its topics.
pub struct Producer {
    client: Arc<Client>,
    topics: HashMap<Arc<str>, TopicHandle>,
}

impl Producer {
    pub fn new(config: &ClientConfig) -> Result<Self, LogError> {
        let client = native::client(config, Kind::Producer, Context::default())
            .map_err(|error| LogError::stop(format!("cannot make a Kafka producer: {error}")))?;
        Ok(Self { client: Arc::new(client), topics: HashMap::new() })
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Puts records into the queue, in order, each into the partition that `partition` says. A full queue is waited for.
    pub fn append(&mut self, topic: &Arc<str>, records: &Records, mut partition: impl FnMut(usize) -> i32) -> Result<(), LogError> {
        if !self.topics.contains_key(topic) {
            let handle =
                TopicHandle::new(self.client.clone(), topic).map_err(|failure| errors::failed(&format!("writing to {topic}"), &failure))?;
            self.topics.insert(topic.clone(), handle);
        }
        let Some(handle) = self.topics.get(topic) else { return Ok(()) };
        let plain = records.headers.offsets.is_empty();
        for row in 0..records.len() {
            let (key, value) = (records.keys.bytes(row), records.values.bytes(row));
            let timestamp = records.timestamps.get(row).copied().unwrap_or_default();
            let partition = partition(row);
            let mut full_since = None;
            loop {
                let entries = if plain { 0..0 } else { records.headers.entries(row) };
                let headers = entries.map(|entry| (records.headers.names.get(entry), records.headers.values.bytes(entry)));
                match handle.produce(partition, key, value, timestamp, headers) {
                    Ok(()) => break,
                    Err(failure) if failure.code == Code::QueueFull => self.wait_for_room(topic, &mut full_since)?,
                    Err(failure) => return Err(self.refused(topic, partition, failure)),
                }
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, topic: &str, full_since: &mut Option<Instant>) -> Result<(), LogError> {
        native::serve(&self.client, Duration::from_millis(5));
        let since = *full_since.get_or_insert_with(Instant::now);
        if since.elapsed() > FULL {
            let message = format!("writing to {topic}: the brokers have taken nothing for {} s", FULL.as_secs());
            return Err(LogError { remedy: Remedy::Indefinite, message });
        }
        Ok(())
    }

    /// An error of the call that produces: what the transaction or the topic suffered before, or of this record.
    fn refused(&self, topic: &str, partition: i32, failure: Failure) -> LogError {
        if failure.code == Code::State {
            // Reports of what was not delivered wait to be served: they are the cause.
            native::serve(&self.client, Duration::from_millis(100));
        }
        if let Some(undelivered) = self.client.context().take_undelivered() {
            return errors::not_taken(&undelivered);
        }
        let failure = native::fatal(&self.client).unwrap_or(failure);
        // "Erroneous state": the transaction is lost already.
        if failure.code == Code::State {
            return LogError {
                remedy: Remedy::Rewind,
                message: format!("writing to {topic}/{partition}: the transaction has failed before"),
            };
        }
        errors::failed(&format!("writing to {topic}/{partition}"), &failure)
    }

    /// Waits until all is acknowledged.
    pub fn flush(&self, wait: Duration) -> Result<(), LogError> {
        let flushed = native::flush(&self.client, wait);
        if let Some(undelivered) = self.client.context().take_undelivered() {
            return Err(errors::not_taken(&undelivered));
        }
        flushed.map_err(|failure| errors::failed("writing: waiting for the brokers' acknowledgement", &failure))
    }
}
