//! The generation of a deployment: what its tasks write beside their results, so that it is on record from which offset on it worked.

use crate::io::TopicPartition;
use crate::record::{Records, RecordsBuilder};
use std::sync::Arc;

/// The generation of a pipeline that a fleet runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Rises with each deployment of the pipeline; at least 1.
    pub number: u64,
    /// The fleet's control topic, of one partition.
    pub control: Arc<str>,
    /// Whose tasks these are.
    pub host: Arc<str>,
    /// The generation with which the pipeline's state was emptied last; 0 = never.
    pub epoch: u64,
}

/// What stands in the control topic of a generation that has begun to work in a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// The first offset that it processed.
    pub offset: i64,
    pub host: String,
    /// Wall clock, milliseconds since the epoch.
    pub at: i64,
}

impl Generation {
    pub fn control(&self) -> TopicPartition {
        TopicPartition::new(self.control.clone(), 0)
    }

    /// The record that tells that this generation works in a partition from `offset` on.
    pub fn cut(&self, pipeline: &str, at: &TopicPartition, offset: i64, now: i64) -> Records {
        let cut = Cut { offset, host: self.host.to_string(), at: now };
        let value = serde_json::to_vec(&cut).unwrap_or_default();
        let mut record = RecordsBuilder::default();
        record.push(now, Some(cut_key(pipeline, self.number, at).as_bytes()), Some(&value), []);
        record.finish()
    }
}

/// `cut/<pipeline>/<generation>/<topic>/<partition>`; no name of a pipeline or topic has a slash.
pub fn cut_key(pipeline: &str, generation: u64, at: &TopicPartition) -> String {
    format!("cut/{pipeline}/{generation}/{}/{}", at.topic, at.partition)
}
