//! A task's part in a commit: what its transaction carries beside the records.

use super::{Metadata, Task};
use crate::flow::repartition;
use crate::generation::{CutOver, WorksBy};
use crate::io::{LogError, Position, StateWrites, TopicPartition};
use crate::record::Records;
use crate::store::StateStore;
use std::sync::atomic::Ordering;

/// What a task has to commit.
#[derive(Default)]
pub struct Committing {
    pub positions: Vec<(TopicPartition, Position)>,
    pub state: Vec<StateWrites>,
    /// Records that tell the tasks downstream where this one stands.
    pub marks: Vec<(TopicPartition, Records)>,
    /// From which offsets on the task's newest generation works, where that is not committed yet.
    pub cuts: Vec<CutOver>,
    /// Its number among the task's, where records tell which one they belong to.
    pub number: Option<i64>,
}

impl Task {
    /// Where the task stands, for the tasks that get its records.
    pub(super) fn standing(&self) -> repartition::Standing {
        repartition::Standing { stream_time: self.stream_time, idle: self.queues.iter().all(|queue| queue.rows == 0 && queue.ended()) }
    }

    /// Tells the tasks downstream again where this one stands, for those that began since.
    pub fn repeat_mark(&mut self) {
        self.told = None;
    }

    /// Whether the tasks downstream wait to hear that there is nothing more for now.
    pub fn mark_due(&self) -> bool {
        let segment = &self.setting.plan.segments[self.id.segment];
        if segment.sends.is_empty() || !segment.timed || self.halted {
            return false;
        }
        self.told.is_none_or(|told| !told.idle) && self.standing().idle
    }

    /// Whether it is to be committed that its generation works here.
    pub fn cut_due(&self) -> bool {
        self.queues.iter().any(|queue| queue.cut)
    }

    /// What is to be committed: positions that moved, and state. None if nothing moved; `all`: every position, moved or not.
    pub fn begin_commit(&mut self, all: bool) -> Result<Option<Committing>, LogError> {
        for queue in &mut self.queues {
            // Control records and the like behind the last record count as passed.
            if !self.halted
                && self.rest.is_none()
                && queue.rows == 0
                && let Some(end) = queue.end
                && queue.position.is_some_and(|position| position < end)
            {
                queue.position = Some(end);
                queue.moved = true;
            }
        }
        let all = all || self.mark_due() || std::mem::take(&mut self.swept);
        if !all && !self.queues.iter().any(|queue| queue.moved || queue.cut) {
            return Ok(None);
        }
        let mut committing = Committing::default();
        let stream_time = self.stream_time;
        let mut outcome = Ok(());
        self.each_store(|store| match store.expire(stream_time) {
            Ok(()) => committing.state.extend(store.begin_commit()),
            Err(error) => outcome = Err(error),
        });
        outcome?;
        self.keeps_state |= !committing.state.is_empty();
        committing.number = self.tells_commits().then(|| self.commit.fetch_add(1, Ordering::Relaxed));
        let WorksBy { newest: generation, divided } = self.works_by();
        let (keys, beside) = divided.unzip();
        let mut metadata = Metadata {
            generation,
            from: None,
            keys,
            beside,
            stream_time: self.stream_time(),
            state: self.keeps_state,
            closed: self.closed,
            commit: committing.number,
        };
        let mut queues = std::mem::take(&mut self.queues);
        for queue in queues.iter_mut().filter(|queue| all || queue.moved || queue.cut) {
            queue.moved = false;
            metadata.from = (generation > 0).then_some(queue.since);
            if std::mem::take(&mut queue.cut) {
                committing.cuts.extend(self.cut_over(&queue.from, queue.since, queue.base_cut, queue.tried));
            }
            let offset = queue.position.unwrap_or(0);
            committing.positions.push((queue.from.clone(), Position { offset, metadata: metadata.text() }));
        }
        self.queues = queues;
        self.tell(&mut committing.marks);
        Ok(Some(committing))
    }

    /// Tells the tasks downstream where this one stands, if that is news.
    pub(super) fn tell(&mut self, marks: &mut Vec<(TopicPartition, Records)>) {
        let setting = self.setting.clone();
        let segment = &setting.plan.segments[self.id.segment];
        let standing = self.standing();
        if segment.sends.is_empty() || !segment.timed || self.told == Some(standing) {
            return;
        }
        self.told = Some(standing);
        for sink in &segment.sends {
            let topic = &setting.pipeline.sinks[*sink].topic;
            let partitions = setting.topics.get(topic).map_or(1, |(partitions, _)| *partitions);
            let records = repartition::mark(self.id.partition, standing);
            marks.extend((0..partitions).map(|partition| (TopicPartition::new(topic.clone(), partition), records.clone())));
        }
    }

    /// The commit that was begun is through.
    pub fn committed(&mut self) {
        self.each_store(StateStore::committed);
    }
}
