//! A run to the end: the captured ends, segment after segment, and the windows that are still open there.

use super::{Ended, Worker, stopped, task_of};
use crate::io::{TopicPartition, partitions_of};
use crate::task::{Metadata, Task, TaskId};
use std::time::Duration;

/// How often the group is asked whether its other members are done.
const ASK: Duration = Duration::from_millis(300);

impl Worker<'_> {
    /// Whether everything is processed that a run to the end has to: segment after segment, each once all that sends to it has committed.
    pub(super) fn finished(&mut self) -> Result<bool, Ended> {
        if !self.options.until_end {
            return Ok(false);
        }
        if self.ends.is_empty() {
            return Ok(true);
        }
        let setting = self.heading.setting.clone();
        let segments = &setting.plan.segments;
        let of_level = |id: &TaskId| segments[id.segment].level == self.level;
        // A task whose state is not whole yet has windows to close of which it knows nothing.
        if self.restore.is_some() || !self.tasks.iter().filter(|(id, _)| of_level(id)).all(|(_, task)| task.done()) {
            return Ok(false);
        }
        if self.options.close_windows {
            self.close_windows()?;
        }
        self.commit_all()?;
        if !self.level_done()? {
            return Ok(false);
        }
        if !segments.iter().any(|segment| segment.level > self.level) {
            return Ok(true);
        }
        let mut ends = Vec::new();
        let next = segments.iter().filter(|segment| segment.level == self.level + 1);
        for source in next.flat_map(|segment| &segment.sources) {
            for at in partitions_of(&*self.log, &setting.pipeline.sources[*source].topic)? {
                // Not the last stable offset: a commit is told before each partition shows it.
                let end = self.log.high_watermark(&at)?;
                ends.push((at, end));
            }
        }
        // All of them, or none: a level of which an end is not known would count as done.
        self.level += 1;
        for (at, end) in ends {
            if let Some(task) = self.tasks.get_mut(&task_of(&setting, &at)) {
                task.limit(&at, end);
            }
            self.ends.insert(at, end);
        }
        Ok(false)
    }

    /// Whether every member of the group has committed this level to its end; those of this worker have.
    pub(super) fn level_done(&mut self) -> Result<bool, Ended> {
        let level = |at: &TopicPartition| self.heading.setting.plan.segments[task_of(&self.heading.setting, at).segment].level;
        let others: Vec<TopicPartition> = self
            .ends
            .keys()
            .filter(|at| level(at) == self.level && !self.tasks.get(&task_of(&self.heading.setting, at)).is_some_and(|task| task.reads(at)))
            .cloned()
            .collect();
        if others.is_empty() {
            return Ok(true);
        }
        if self.clock.elapsed() < self.asked + ASK {
            return Ok(false);
        }
        self.asked = self.clock.elapsed();
        let committed = self.log.committed(&self.heading.setting.pipeline.name, &others)?;
        for (at, committed) in others.iter().zip(committed) {
            let end = self.ends[at];
            // Windows are closed behind the last record: by who has the partition, or gets it.
            let closes = self.options.close_windows && self.heading.setting.gives_windows(task_of(&self.heading.setting, at).segment);
            let reached = match committed {
                Some(position) => {
                    position.offset >= end && (!closes || Metadata::of(&position.metadata).is_some_and(|metadata| metadata.closed))
                }
                None => self.first_position(at)?.offset >= end,
            };
            if !reached {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands over the windows that are still open in the tasks of this level.
    pub(super) fn close_windows(&mut self) -> Result<(), Ended> {
        let level = |id: &TaskId| self.heading.setting.plan.segments[id.segment].level;
        let closes = |id: &TaskId| level(id) == self.level && self.heading.setting.gives_windows(id.segment);
        let ids: Vec<TaskId> = self.tasks.keys().filter(|id| closes(id)).copied().collect();
        for id in ids {
            let produced = self.tasks.get_mut(&id).map(Task::close_windows).transpose().map_err(stopped)?.flatten();
            produced.map_or(Ok(()), |produced| self.take_over(produced))?;
        }
        Ok(())
    }
}
