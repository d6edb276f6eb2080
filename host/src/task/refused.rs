//! What becomes of records that were refused, by a stage, a sink or the log: each by its policy.

use super::{Produced, Stop, Task};
use crate::flow::batch::Origin;
use crate::flow::reject::{self, Place, Rejected};
use crate::flow::source::Taken;
use crate::io::{TopicPartition, partition_for};
use crate::isolation::Guilty;
use crate::pipeline::{Pipeline, Policy};
use crate::record::{Records, RecordsBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Task {
    /// What becomes of refused records, each by its policy.
    pub(super) fn settle(&mut self, rejected: Vec<Rejected>, appends: &mut Vec<(TopicPartition, Records)>) -> Result<(), Stop> {
        let setting = self.setting.clone();
        let pipeline = &setting.pipeline;
        let rejected = reject::sorted(rejected);
        let policy = |rejected: &Rejected| policy_of(pipeline, rejected);
        if let Some(guilty) = rejected.iter().find(|rejected| *policy(rejected) == Policy::Fail) {
            return Err(Stop::Record(Box::new(guilty.clone())));
        }
        let mut letters: BTreeMap<Arc<str>, Vec<&Rejected>> = BTreeMap::new();
        for refused in &rejected {
            *self.refused.entry(refused.code).or_default() += 1;
            if let Some(refusals) = &mut self.refusals {
                let (_, partition, offset) = refused.origin.place(refused.origin_row);
                refusals.push((refused.code, (partition, offset)));
            }
            if let Policy::DeadLetter { topic, .. } = policy(refused) {
                letters.entry(topic.clone()).or_default().push(refused);
            }
        }
        for (topic, refused) in letters {
            self.bury(&topic, &refused, appends);
            *self.buried.entry(topic).or_default() += refused.len() as u64;
        }
        Ok(())
    }

    /// Appends dead letters to their topic, each in the partition of its key, or of the number that its record came from.
    fn bury(&self, topic: &Arc<str>, refused: &[&Rejected], appends: &mut Vec<(TopicPartition, Records)>) {
        let pipeline = &self.setting.pipeline;
        let partitions = self.setting.topics.get(topic).map_or(1, |(partitions, _)| *partitions).max(1);
        let mut builders: BTreeMap<i32, RecordsBuilder> = BTreeMap::new();
        for rejected in refused {
            let (source, origin_partition, _) = rejected.origin.place(rejected.origin_row);
            let source = &pipeline.sources[source];
            let stage = rejected.stage.map(|stage| &pipeline.stages[stage]);
            let place = Place {
                pipeline: &pipeline.name,
                stage: stage.map_or(&source.name, |stage| &stage.name),
                plugin: stage.map_or("", |stage| &stage.plugin.about().name),
                topic: &source.topic,
            };
            let policy = policy_of(pipeline, rejected);
            let include = matches!(policy, Policy::DeadLetter { include_original: true, .. });
            let key = rejected.shown.as_ref().and_then(|shown| shown.key.as_deref());
            let partition = match key {
                Some(key) => partition_for(key, partitions),
                None => origin_partition % partitions,
            };
            reject::dead_letter(builders.entry(partition).or_default(), rejected, &place, include);
        }
        appends.extend(builders.into_iter().map(|(partition, records)| (TopicPartition::new(topic.clone(), partition), records.finish())));
    }

    /// The first row of these that the log refuses, and why.
    pub(super) fn guilty_row(&self, source: usize, taken: &Taken) -> Option<(usize, String)> {
        if self.guilty.is_empty() {
            return None;
        }
        let topic = |row: usize| &self.setting.pipeline.sources[taken.source(source, row)].topic;
        (0..taken.offsets.len()).find_map(|row| {
            let same = |guilty: &&Guilty| guilty.at.partition == taken.partitions[row] && guilty.offset == taken.offsets[row];
            let guilty = self.guilty.iter().find(|guilty| same(guilty) && *topic(row) == guilty.at.topic)?;
            Some((row, guilty.reason.clone()))
        })
    }

    /// The first of these records is the one that the log refuses: its policy decides. Time does not move by it, as by none that cannot be read.
    pub(super) fn pass_guilty(&mut self, source: usize, taken: &Taken, reason: &str) -> Result<Produced, Stop> {
        let first = self.received(source, taken.first(1))?;
        let times = first.records.timestamps.clone();
        let origin = Arc::new(Origin {
            source: taken.source(source, 0),
            carried: first.provenance.map(|provenance| provenance.carried),
            partitions: first.partitions,
            offsets: first.offsets,
            records: first.records,
            stream_times: vec![self.stream_time; times.len()],
            times,
        });
        let refuse = |row| Rejected {
            origin: origin.clone(),
            origin_row: row,
            stage: None,
            code: reject::NOT_TAKEN,
            reason: reason.to_owned(),
            shown: None,
        };
        let mut appends = Vec::new();
        let refused = (0..origin.offsets.len()).map(refuse).collect();
        if let Err(stop) = self.settle_guilty(refused, origin.records.keys.bytes(0), &mut appends) {
            self.halted = true;
            return Err(stop);
        }
        self.pass_over(source, taken, 1);
        let records = usize::from(self.setting.pipeline.sources[source].is_stream());
        Ok(Produced { appends, rows: 1, records, last: self.last_of(source, taken, 1), apart: false })
    }
}

fn policy_of<'p>(pipeline: &'p Pipeline, rejected: &Rejected) -> &'p Policy {
    match rejected.stage.map(|stage| &pipeline.stages[stage]) {
        Some(stage) if rejected.code == reject::LATE => &stage.on_late,
        Some(stage) => &stage.on_error,
        None => &pipeline.on_error,
    }
}
