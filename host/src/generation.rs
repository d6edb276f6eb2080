//! The generation of a deployment: what its tasks write beside their results, so that it is on record from which offset on it worked.

use crate::io::TopicPartition;
use crate::record::{Records, RecordsBuilder};
use crate::share::Keys;
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
    /// It works for these keys alone, a canary; the generation beside it for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// It works for all keys, and did so for some before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
}

/// From which offset on a generation worked for a share of a partition's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tried {
    pub offset: i64,
    pub keys: Keys,
}

/// What works in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorksBy {
    /// The newest generation.
    pub newest: u64,
    /// The keys for which it works alone, and the generation that does for the others; None = for all.
    pub divided: Option<(Keys, u64)>,
}

impl WorksBy {
    /// The generation that works for every key for which no newer one does.
    pub fn base(self) -> u64 {
        self.divided.map_or(self.newest, |(_, beside)| beside)
    }

    pub fn keys(self) -> Option<Keys> {
        self.divided.map(|(keys, _)| keys)
    }
}

impl Tried {
    /// What is to be told of `before`, which began at `offset`, with the cut-over to `now`.
    pub fn before(before: WorksBy, offset: i64, now: WorksBy) -> Option<Self> {
        let keys = before.keys().filter(|_| before.newest == now.newest && now.divided.is_none())?;
        Some(Self { offset, keys })
    }
}

/// That a generation has begun to work in a partition, which is yet to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOver {
    pub generation: Generation,
    pub at: TopicPartition,
    pub offset: i64,
    pub keys: Option<Keys>,
    pub tried: Option<Tried>,
}

impl Generation {
    pub fn control(&self) -> TopicPartition {
        TopicPartition::new(self.control.clone(), 0)
    }
}

impl CutOver {
    /// The record that tells of it.
    pub fn record(&self, pipeline: &str, now: i64) -> Records {
        let Self { generation, at, offset, keys, tried } = self;
        let cut = Cut { offset: *offset, host: generation.host.to_string(), at: now, keys: *keys, tried: *tried };
        let value = serde_json::to_vec(&cut).unwrap_or_default();
        let mut record = RecordsBuilder::default();
        record.push(now, Some(cut_key(pipeline, generation.number, at).as_bytes()), Some(&value), []);
        record.finish()
    }
}

/// `cut/<pipeline>/<generation>/<topic>/<partition>`; no name of a pipeline or topic has a slash.
pub fn cut_key(pipeline: &str, generation: u64, at: &TopicPartition) -> String {
    format!("cut/{pipeline}/{generation}/{}/{}", at.topic, at.partition)
}
