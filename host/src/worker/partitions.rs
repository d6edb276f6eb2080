//! Partitions that come and go: tasks begin at committed positions, behind the restore of their state, and end with a commit.

use super::follow::not_started;
use super::{Ended, IDLE, Worker, task_of};
use crate::explain;
use crate::fault;
use crate::io::{LogError, Position, Remedy, TopicPartition};
use crate::isolation::Isolation;
use crate::pipeline::Start;
use crate::planted::{Mistake, planted};
use crate::restore::Restore;
use crate::task::{Metadata, Task, TaskId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the group waits at a revocation until what is finished is committed: as long as brokers keep a transaction open.
const REVOKE: Duration = Duration::from_secs(10);

impl Worker<'_> {
    /// Makes tasks of partitions, each from its committed position on.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Ended> {
        // A pause was of the task before. Resuming a partition that is held would let records in while their task is being restored, and from the old place.
        if !planted(Mistake::PausesKept) {
            self.paused.retain(|paused| !partitions.contains(paused));
        }
        let committed = self.member.committed(partitions)?;
        let setting = self.heading.setting.clone();
        let (mut starts, mut behind) = (Vec::new(), Vec::new());
        let (mut fresh, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for (partition, committed) in partitions.iter().zip(committed) {
            let position = match committed {
                Some(position) => self.inside(partition, position)?,
                None => self.first_position(partition)?,
            };
            if self.is_behind(partition, &position.metadata)? {
                behind.push(partition.clone());
                continue;
            }
            starts.push((partition.clone(), position.offset));
            self.committed.insert(partition.clone(), position.offset);
            let id = task_of(&setting, partition);
            let mut task = match self.tasks.remove(&id) {
                Some(task) => task,
                None => {
                    let mut task = Task::new(id, self.heading.setting_of(id.partition).clone());
                    task.divide(self.heading.division_of(id.partition)).map_err(not_started)?;
                    task.number_commits_from(self.clock.now());
                    if self.options.until_end {
                        task.to_end();
                    }
                    task.prepare().map_err(|(stage, error)| Ended::Init(explain::not_started(&task.setting().pipeline, stage, &error)))?;
                    fresh.insert(id);
                    task
                }
            };
            if Metadata::of(&position.metadata).is_some_and(|metadata| setting.has_kept(&metadata)) {
                kept.insert(id);
            }
            for guilty in self.isolation.iter().flat_map(Isolation::guilty).filter(|guilty| guilty.at == *partition) {
                task.refuse(guilty.clone());
            }
            let until = self.ends.get(partition).copied();
            for source in (0..setting.pipeline.sources.len()).filter(|source| setting.pipeline.sources[*source].topic == partition.topic) {
                let carried = setting.pipeline.sources[source].carries.is_some();
                let fresh_from = if carried { self.log.bounds(partition)?.end } else { 0 };
                task.add(source, partition.clone(), &position, until, fresh_from);
            }
            self.tasks.insert(id, task);
        }
        self.cast_shadows();
        // What is to be restored first is started behind that.
        let waits = |at: &TopicPartition| {
            let id = task_of(&setting, at);
            setting.changelogs.is_some() && fresh.contains(&id)
                || self.restore.as_ref().is_some_and(|restore| restore.tasks().contains(&id))
        };
        let (waiting, ready): (Vec<_>, Vec<_>) = starts.into_iter().partition(|(at, _)| waits(at));
        behind.extend(waiting.into_iter().map(|(at, _)| at));
        self.member.hold(&behind)?;
        self.member.start(&ready)?;
        if let Some(changelogs) = setting.changelogs.as_ref().filter(|_| !fresh.is_empty()) {
            if let Some(restore) = &self.restore {
                fresh.extend(restore.tasks());
            }
            for id in &fresh {
                self.claims.insert(*id, changelogs.claims.take(id.segment, id.partition));
            }
            let tasks = self.claims.iter().filter(|(id, _)| fresh.contains(id)).map(|(id, claim)| (*id, claim.clone())).collect();
            self.restore = Some(Restore::begin(changelogs, &*self.log, self.clock, tasks, &kept)?);
        }
        Ok(())
    }

    /// Restores on; tasks that are whole again take records.
    pub(super) fn restore_on(&mut self) -> Result<(), Ended> {
        let Some(restore) = &mut self.restore else { return Ok(()) };
        if restore.step(self.clock, IDLE)? {
            let ready = restore.tasks().iter().filter_map(|number| self.tasks.get(number)).flat_map(Task::partitions);
            let starts: Vec<_> = ready.filter_map(|at| self.committed.get(&at).map(|offset| (at.clone(), *offset))).collect();
            if restore.read > 0 {
                tracing::info!(pipeline = self.heading.setting.pipeline.name, records = restore.read, "state is restored");
            }
            self.restored = (restore.read, restore.total);
            self.restore = None;
            self.member.start(&starts)?;
        }
        Ok(())
    }

    /// A committed position must still lie in its partition.
    pub(super) fn inside(&mut self, partition: &TopicPartition, mut position: Position) -> Result<Position, LogError> {
        loop {
            let bounds = self.log.bounds(partition)?;
            if (bounds.begin..=bounds.end).contains(&position.offset) {
                break;
            }
            // Another member may have gone on from there meanwhile, and deleted what it has processed.
            let again = self.member.committed(std::slice::from_ref(partition))?.pop().flatten();
            if let Some(again) = again.filter(|again| *again != position) {
                position = again;
                continue;
            }
            return Err(LogError::stop(format!(
                "group `{}` stands at offset {} of {partition}, but the partition holds {} to {}: records were deleted before they were read, or the topic was \
                 made anew. Reset the group's offsets or run the pipeline under another name; nothing was changed",
                self.heading.setting.pipeline.name, position.offset, bounds.begin, bounds.end
            )));
        }
        if self.heading.setting.changelogs.is_some() && Metadata::of(&position.metadata).is_none() {
            return Err(LogError::stop(format!(
                "the position of group `{}` in {partition} was not written by a run of this pipeline: another program uses the group, or its offsets were reset \
                 by another tool, and the state does not belong to them. Run the pipeline under another name, or delete the group's offsets and the \
                 pipeline's changelogs to start anew; nothing was changed",
                self.heading.setting.pipeline.name
            )));
        }
        Ok(position)
    }

    /// Where a new group starts, by what the source says.
    pub(super) fn first_position(&self, partition: &TopicPartition) -> Result<Position, LogError> {
        let source = self.heading.setting.pipeline.sources.iter().find(|source| source.topic == partition.topic);
        let offset = match source.map(|source| source.start).unwrap_or_default() {
            Start::Earliest => self.log.bounds(partition)?.begin,
            Start::Latest => self.log.bounds(partition)?.end,
            Start::At(time) => self.log.offset_at(partition, time)?,
        };
        Ok(Position { offset, metadata: String::new() })
    }

    /// Gives partitions up: what is finished is committed first, unless they are lost.
    pub(super) fn revoke(&mut self, partitions: &[TopicPartition], lost: bool) -> Result<(), Ended> {
        let aborted = if lost {
            // Told before an abort, which brokers that hang keep waiting.
            let reason = self.member.away();
            self.trouble(reason.as_deref().unwrap_or("the group has given this member up: it was not heard in time"));
            self.member.abort()?;
            self.forget_uncommitted();
            true
        } else {
            self.deadline = Some(self.clock.elapsed() + REVOKE);
            let committed = self.commit_all().and_then(|()| self.checkpoint_all());
            self.deadline = None;
            let aborted = match committed {
                // Given up all the same: the group waits for it. Whoever comes next begins at the last commit.
                Err(Ended::Log(error)) if matches!(error.remedy, Remedy::Rewind | Remedy::Isolate) => {
                    self.trouble(&error.message);
                    self.member.abort()?;
                    self.forget_uncommitted();
                    true
                }
                outcome => {
                    outcome?;
                    false
                }
            };
            fault::point("revoking");
            aborted
        };
        // A task keeps no partition of its own: its others are taken up again from their committed positions. So are those of tasks that stay, if what
        // they did was dropped.
        let mut ids: BTreeSet<TaskId> = partitions.iter().map(|at| task_of(&self.heading.setting, at)).collect();
        if aborted {
            ids.extend(self.tasks.keys());
        }
        let mut others = Vec::new();
        for id in ids {
            if self.restore.as_mut().is_some_and(|restore| !restore.forget(id)) {
                self.restore = None;
            }
            if let Some(task) = self.tasks.remove(&id) {
                self.retire(&task);
                others.extend(task.partitions().into_iter().filter(|other| !partitions.contains(other)));
            }
        }
        self.paused.retain(|paused| !partitions.contains(paused));
        self.committed.retain(|at, _| !partitions.contains(at));
        self.parked.retain(|id, _| self.tasks.contains_key(id));
        self.behind.retain(|at, _| !partitions.contains(at));
        self.member.release(partitions)?;
        others.sort();
        others.dedup();
        if !others.is_empty() {
            self.assign(&others)?;
        }
        Ok(())
    }
}
