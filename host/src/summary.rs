//! What a run did, in numbers.

use crate::flow::stage::Counters;
use crate::pipeline::{Pipeline, Sink, Stage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What one generation did, by which it can be compared with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Works {
    /// Records taken.
    pub records: u64,
    /// Of them, those that were refused.
    pub refused: u64,
    /// In plugins and around them.
    pub time: Duration,
}

impl std::ops::AddAssign for Works {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.refused += other.refused;
        self.time += other.time;
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Records taken from the sources.
    pub records: u64,
    pub commits: u64,
    /// By stage.
    pub stages: Vec<Counters>,
    /// Rows written, by sink.
    pub sinks: Vec<u64>,
    /// Refused records, by what was wrong with them.
    pub refused: BTreeMap<&'static str, u64>,
    /// Dead letters, by topic.
    pub dead_letters: BTreeMap<Arc<str>, u64>,
    /// Records of changelogs read, and to read at most, while state is being restored.
    pub restoring: Option<(u64, u64)>,
}

impl Summary {
    /// Adds what a further run of the same pipeline did.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.commits += other.commits;
        self.stages.resize(other.stages.len(), Counters::default());
        self.sinks.resize(other.sinks.len(), 0);
        for (total, part) in self.stages.iter_mut().zip(&other.stages) {
            *total += *part;
        }
        for (total, part) in self.sinks.iter_mut().zip(&other.sinks) {
            *total += part;
        }
        if let Some((read, total)) = other.restoring {
            let (sum_read, sum_total) = self.restoring.unwrap_or_default();
            self.restoring = Some((sum_read + read, sum_total + total));
        }
        for (code, count) in &other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        for (topic, count) in &other.dead_letters {
            *self.dead_letters.entry(topic.clone()).or_default() += count;
        }
    }

    /// The same by the stages and sinks of a newer pipeline; what it has no more is left out.
    pub fn renamed(&self, from: &Pipeline, to: &Pipeline) -> Self {
        let stage = |stage: &Stage| from.stages.iter().position(|known| known.name == stage.name);
        let sink = |sink: &Sink| from.sinks.iter().position(|known| known.topic == sink.topic);
        Self {
            stages: to.stages.iter().map(|known| stage(known).and_then(|at| self.stages.get(at).copied()).unwrap_or_default()).collect(),
            sinks: to.sinks.iter().map(|known| sink(known).and_then(|at| self.sinks.get(at).copied()).unwrap_or_default()).collect(),
            ..self.clone()
        }
    }
}
