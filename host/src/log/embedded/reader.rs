//! Readers of the embedded log, outside any group.

use super::Shared;
use super::cursor::Cursors;
use crate::io::{Event, FetchLimit, LogError, Reader, TopicPartition};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct EmbeddedReader {
    shared: Arc<Shared>,
    cursors: Cursors,
}

impl EmbeddedReader {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cursors: Cursors::default() }
    }
}

impl Reader for EmbeddedReader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let mut cursors = Cursors::default();
        for (at, offset) in partitions {
            cursors.start(&self.shared, at, *offset)?;
        }
        self.cursors = cursors;
        Ok(())
    }

    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        self.cursors.poll(&self.shared, limit, wait)
    }
}
