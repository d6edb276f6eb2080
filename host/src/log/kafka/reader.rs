//! Reads partitions outside any group.

use super::config::PATIENCE;
use super::errors;
use super::fetch::{Fetcher, Names};
use super::native::{self, Client, Queue, TopicHandle};
use crate::io::{Event, FetchLimit, LogError, Reader, TopicPartition};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// librdkafka's simple consumer: it needs no group, hence no right to one.
pub struct KafkaReader {
    // Before the topics: a queue is not destroyed while partitions feed it.
    topics: HashMap<Arc<str>, TopicHandle>,
    started: Vec<TopicPartition>,
    fetcher: Fetcher,
    names: Names,
    client: Arc<Client>,
}

impl KafkaReader {
    pub fn new(client: Arc<Client>) -> Self {
        let fetcher = Fetcher::new(Queue::new(client.clone()));
        Self { topics: HashMap::new(), started: Vec::new(), fetcher, names: Names::default(), client }
    }

    fn stop(&mut self) -> Result<(), LogError> {
        for at in std::mem::take(&mut self.started) {
            if let Some(topic) = self.topics.get(&at.topic) {
                topic.stop(at.partition).map_err(|failure| errors::failed(&format!("ending to read {at}"), &failure))?;
            }
        }
        self.fetcher.forget(|_| true);
        Ok(())
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.stop()?;
        for (at, offset) in partitions {
            let failed = |failure| errors::failed(&format!("reading {at}"), &failure);
            if !self.topics.contains_key(&at.topic) {
                self.topics.insert(at.topic.clone(), TopicHandle::new(self.client.clone(), &at.topic).map_err(failed)?);
            }
            if let Some(topic) = self.topics.get(&at.topic) {
                topic.fetch(at.partition, (*offset).max(0), self.fetcher.queue()).map_err(failed)?;
                self.started.push(at.clone());
            }
        }
        Ok(())
    }

    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        if let Some(event) = self.fetcher.next(limit) {
            return event;
        }
        native::serve(&self.client, Duration::ZERO);
        let Self { started, names, .. } = self;
        let came = self.fetcher.fetch(limit, wait, |topic, partition| {
            let at = TopicPartition { topic: names.get(topic), partition };
            started.contains(&at).then_some(at)
        });
        if came > 0 {
            self.client.context().reached();
        }
        if let Some(event) = self.fetcher.next(limit) {
            return event;
        }
        match super::lost(&self.client, PATIENCE) {
            None => Ok(Event::Idle),
            Some(_) if native::ping(&self.client, Duration::from_millis(250)).is_ok() => {
                self.client.context().reached();
                Ok(Event::Idle)
            }
            Some(error) => Err(error),
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::debug!("{error}");
        }
    }
}
