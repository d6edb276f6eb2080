//! What a task gives out beside the results of its records: changed rows at a commit, and windows that are closed at the end of a run.

use super::{Produced, Stop, Task};
use crate::flow::batch::{Batch, Held, Origin, Slot};
use crate::flow::stage::{Give, Stage};
use crate::record::RecordsBuilder;
use std::sync::Arc;

impl Task {
    /// Results of the rows that changed since the last commit: a part of that commit. On `Err` nothing may be committed.
    pub fn give_changes(&mut self) -> Result<Option<Produced>, Stop> {
        if !self.queues.iter().any(|queue| queue.moved) {
            return Ok(None);
        }
        self.give_shadow();
        let produced = if self.gives_changes() { Some(self.give(Give::Changed)?) } else { None };
        self.compare_changes();
        Ok(produced)
    }

    /// Whether a stage gives out what changed at each commit.
    pub(super) fn gives_changes(&self) -> bool {
        let reached = &self.setting.plan.segments[self.id.segment].stages;
        self.stages.iter().zip(reached).any(|(stage, reached)| *reached && stage.gives(Give::Changed))
    }

    /// Hands over every window that is still open, as if time had gone on until the last of them is closed. What comes later for them is late.
    pub fn close_windows(&mut self) -> Result<Option<Produced>, Stop> {
        let mut produced: Option<Produced> = None;
        loop {
            let mut end = None;
            let reached = &self.setting.plan.segments[self.id.segment].stages;
            for (stage, _) in self.stages.iter_mut().zip(reached).filter(|(_, reached)| **reached) {
                end = end.max(stage.closes_all().map_err(Stop::Log)?);
            }
            // What one stage gives out may open windows of the next.
            let Some(end) = end else {
                // That there are none is to be committed too: others of the group wait for it.
                if !std::mem::replace(&mut self.closed, true) {
                    self.queues.iter_mut().for_each(|queue| queue.moved = true);
                }
                return Ok(produced);
            };
            let before = self.stream_time;
            self.stream_time = before.max(end);
            let given = self.give_at(Give::Closed(self.stream_time), before)?;
            let whole = produced.get_or_insert_default();
            whole.appends.extend(given.appends);
            whole.apart = true;
            // The state and the time are to be committed, though no record was read.
            if let Some(queue) = self.queues.first_mut() {
                queue.moved = true;
            }
        }
    }

    pub(super) fn give(&mut self, give: Give) -> Result<Produced, Stop> {
        self.give_at(give, self.stream_time)
    }

    fn give_at(&mut self, give: Give, stream_time: i64) -> Result<Produced, Stop> {
        let Some(first) = self.here(stream_time) else { return Ok(Produced::default()) };
        let (mut rejected, mut appends) = (Vec::new(), Vec::new());
        let done = self.pass(first.origin.source, &first, give, &mut rejected, &mut appends);
        match done.and_then(|()| self.settle(rejected, &mut appends)) {
            Ok(()) => {
                self.keep_batch();
                Ok(Produced { appends, ..Produced::default() })
            }
            Err(stop) => {
                self.halted = true;
                self.stages.iter_mut().for_each(Stage::reset);
                Err(stop)
            }
        }
    }

    /// A batch of no rows that stands where the first partition stands: what is given out comes of no record.
    pub(super) fn here(&self, stream_time: i64) -> Option<Batch> {
        let sources = &self.setting.pipeline.sources;
        let queue = self.queues.iter().find(|queue| sources[queue.source].table.is_none())?;
        let mut record = RecordsBuilder::default();
        record.push(stream_time, None, None, []);
        let records = record.finish();
        let values = Held::new(records.values.clone());
        let origin = Origin {
            source: queue.source,
            carried: None,
            partitions: vec![queue.from.partition],
            offsets: vec![queue.position.unwrap_or(0)],
            records,
            times: vec![stream_time],
            stream_times: vec![stream_time],
        };
        let slots = vec![Slot::Missing; self.setting.plan.sources[queue.source].wanted.len()];
        Some(Batch::new(Arc::new(origin), values, slots).select(Vec::new()))
    }
}
