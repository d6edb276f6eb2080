//! A worker turns to newer generations between two transactions, and steps aside from partitions that are at a newer one than it knows.

use super::{Ended, Worker};
use crate::explain;
use crate::io::{LogError, TopicPartition};
use crate::planted::{Mistake, planted};
use crate::plugin::CallError;
use crate::task::{Metadata, Setting, TaskId};
use std::sync::Arc;
use std::time::Duration;

/// How long a host that is behind may take to learn of a generation that others have committed.
const BEHIND: Duration = Duration::from_secs(30);

/// Why the worker ends that cannot make a task.
pub(super) fn not_started((setting, stage, error): (Arc<Setting>, usize, CallError)) -> Ended {
    Ended::Init(explain::not_started(&setting.pipeline, stage, &error))
}

impl Worker<'_> {
    /// Turns all tasks to the newest heading, if there is a newer one. Everything processed is in a transaction that is begun or done by then; the next one
    /// tells from which offsets on the generation works.
    pub(super) fn follow(&mut self) -> Result<(), Ended> {
        if self.course.number() == self.heading.number || self.isolation.is_some() {
            return self.check_behind();
        }
        if self.in_flight.is_none() {
            self.begin_commit()?;
        }
        if self.uncommitted.rows > 0 || !self.pending.is_empty() {
            // Behind the commit in flight something is processed already: at the next turn that belongs to the next commit.
            return Ok(());
        }
        let started = std::time::Instant::now();
        let heading = self.course.now();
        let turning: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(id, task)| !task.stands_by(heading.setting_of(id.partition), heading.division_of(id.partition)))
            .map(|(id, _)| *id)
            .collect();
        for id in &turning {
            let Some(mut task) = self.tasks.remove(id) else { continue };
            self.retire(&task);
            let next = heading.setting_of(id.partition).clone();
            task.succeed(next, heading.division_of(id.partition)).map_err(not_started)?;
            self.tasks.insert(*id, task);
        }
        self.retired = self.retired.renamed(&self.heading.setting.pipeline, &heading.setting.pipeline);
        self.heading = heading;
        self.cast_shadows();
        let took = started.elapsed();
        self.turn_time.observe(took);
        tracing::info!(
            pipeline = self.heading.setting.pipeline.name,
            generation = self.heading.setting.generation_number(),
            trial = self.heading.trial.as_ref().map(|trial| trial.setting.generation_number()),
            tasks = turning.len(),
            ?took,
            "the worker has turned to a new generation"
        );
        if !turning.is_empty() {
            self.first_since = Some(self.clock.elapsed());
        }
        let behind: Vec<TopicPartition> = self.behind.keys().cloned().collect();
        self.behind.clear();
        self.behind_since = None;
        if !behind.is_empty() {
            self.assign(&behind)?;
        }
        self.revive()?;
        Ok(())
    }

    /// Every task has the shadow that it is to have, or none.
    pub(super) fn cast_shadows(&mut self) {
        for (id, task) in &mut self.tasks {
            match self.heading.shadow_of(id.partition) {
                Some(setting) if task.shadow().is_none_or(|shadow| !shadow.stands_on(task, setting)) => task.begin_shadow(setting.clone()),
                None if task.shadow().is_some() => task.end_shadow(),
                _ => {}
            }
        }
    }

    /// Whether a partition is at a newer generation than this worker's: then it is left alone.
    pub(super) fn is_behind(&mut self, at: &TopicPartition, metadata: &str) -> Result<bool, LogError> {
        let metadata = Metadata::of(metadata).unwrap_or_default();
        // A generation that worked for some keys works for all later.
        let (newest, own) = ((metadata.generation, metadata.keys.is_none()), self.heading.newest_of(at.partition));
        let (committed, known, own) = (metadata.generation, newest <= own, own.0);
        if known || own == 0 && self.options.alone || planted(Mistake::NotBehind) {
            return Ok(false);
        }
        if own == 0 {
            return Err(LogError::stop(format!(
                "the group `{}` is run by a fleet (generation {committed} in {at}): deploy the pipeline to it (`millstream deploy`), or run it under another name; \
                 nothing was changed",
                self.heading.setting.pipeline.name
            )));
        }
        tracing::info!(pipeline = self.heading.setting.pipeline.name, %at, committed, own, "a partition is at a newer generation: waiting to learn of it");
        self.behind.insert(at.clone(), committed);
        self.behind_since.get_or_insert(self.clock.elapsed());
        Ok(true)
    }

    fn check_behind(&self) -> Result<(), Ended> {
        let Some((at, committed)) = self.behind.iter().next() else { return Ok(()) };
        if self.behind_since.is_none_or(|since| self.clock.elapsed() < since + BEHIND) {
            return Ok(());
        }
        let (own, _) = self.heading.newest_of(at.partition);
        Err(LogError::stop(format!(
            "pipeline `{}`: {at} is at generation {committed}, and this host has not learnt of it within {} s, it knows {own}: it leaves the partition to others; \
             can it read the fleet's control topic?",
            self.heading.setting.pipeline.name,
            BEHIND.as_secs()
        ))
        .into())
    }

    /// Tasks that were parked try again from their committed positions.
    pub(super) fn revive(&mut self) -> Result<(), Ended> {
        self.revived = self.seat.revivals();
        if self.parked.is_empty() {
            return Ok(());
        }
        self.commit_all()?;
        let parked = std::mem::take(&mut self.parked);
        let mut partitions = Vec::new();
        for id in parked.keys() {
            if let Some(task) = self.tasks.remove(id) {
                self.retire(&task);
                partitions.extend(task.partitions());
            }
        }
        partitions.sort();
        partitions.dedup();
        self.assign(&partitions)
    }
}
