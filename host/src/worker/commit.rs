//! Commits: output, state and positions as one, and now and then a checkpoint of the local copies behind them.

use super::{Captured, Ended, InFlight, Uncommitted, Worker, stopped};
use crate::fault;
use crate::io::{Checkpoint, Commit, CommitState, LogError, Remedy, TopicPartition};
use crate::planted::{Mistake, planted};
use crate::task::{Stop, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Committed rows of a worker's stores that wait for a checkpoint, in bytes, before one is made early.
const DIRTY_BYTES: usize = 16 << 20;
/// Rows that a commit looks at for older types: some 10 ms, so that records flow.
const SWEEP_ROWS: usize = 5_000;

impl Worker<'_> {
    /// Rows of a commit, of which it may be a batch more.
    pub(super) fn commit_rows(&self) -> usize {
        self.isolation.as_ref().map_or(self.options.commit_rows, |isolation| isolation.rows().min(self.options.commit_rows))
    }

    pub(super) fn commit_due(&self) -> bool {
        self.uncommitted.rows >= self.commit_rows()
            || self.first_since.is_some() && self.seat.paused()
            || self.first_since.is_some_and(|first| self.clock.elapsed() >= first + self.options.commit_interval)
    }

    /// Starts to commit everything processed so far. Nothing may be in flight.
    pub(super) fn begin_commit(&mut self) -> Result<(), Ended> {
        self.begin_commit_of(false)
    }

    /// `all`: every position, moved or not.
    pub(super) fn begin_commit_of(&mut self, all: bool) -> Result<(), Ended> {
        // What is being restored has nothing of its own to commit, and its stores are not whole: what they would drop as closed is not known yet.
        let waiting = self.restore.as_ref().map(|restore| restore.tasks().clone()).unwrap_or_default();
        for (_, task) in self.tasks.iter_mut().filter(|(id, _)| !waiting.contains(id)) {
            let changes = task.give_changes().map_err(stopped)?;
            for (to, records) in changes.map(|changes| changes.appends).unwrap_or_default() {
                self.member.append(&to, &records)?;
            }
        }
        self.sweep(&waiting)?;
        let mut commit = Commit::default();
        let (mut tasks, mut numbers) = (Vec::new(), BTreeMap::new());
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| !waiting.contains(id)) {
            if let Some(committing) = task.begin_commit(all)? {
                task.number_commits_from(self.clock.now());
                numbers.extend(committing.state.iter().map(|writes| ((writes.store.clone(), writes.task), committing.number)));
                commit.positions.extend(committing.positions);
                commit.state.extend(committing.state);
                for (to, records) in &committing.marks {
                    self.member.append(to, records)?;
                }
                for over in committing.cuts.iter().filter(|_| !planted(Mistake::NoCut)) {
                    let cut = over.record(&self.heading.setting.pipeline.name, self.clock.now());
                    self.member.append(&over.generation.control(), &cut)?;
                    fault::point("cut");
                }
                tasks.push(*id);
            }
        }
        self.first_since = None;
        if commit.positions.is_empty() {
            self.uncommitted = Uncommitted::default();
            return Ok(());
        }
        if planted(Mistake::NoPositions) {
            commit.positions.clear();
        }
        if planted(Mistake::OnePastPositions) {
            commit.positions.iter_mut().for_each(|(_, position)| position.offset += 1);
        }
        for (at, position) in &commit.positions {
            tracing::trace!(%at, offset = position.offset, "committing");
        }
        if let Some(changelogs) = &self.heading.setting.changelogs {
            let now = self.clock.now();
            for writes in std::mem::take(&mut commit.state) {
                if planted(Mistake::TimersApart) && writes.store.ends_with(".timers") {
                    changelogs.local.write(&writes.store, writes.task, &writes.rows, None)?;
                    continue;
                }
                let unknown = || LogError::stop(format!("there is no changelog of store `{}`: a mistake in the program", writes.store));
                let changelog = changelogs.find(&writes.store).ok_or_else(unknown)?;
                let number = numbers.get(&(writes.store.clone(), writes.task)).copied().flatten();
                for records in changelog.encode(&writes, now, number).map_err(LogError::stop)? {
                    self.member.append(&changelog.partition(writes.task), &records)?;
                }
                if planted(Mistake::ApplyBeforeCommit) {
                    changelogs.local.write(&writes.store, writes.task, &writes.rows, None)?;
                }
            }
        }
        fault::point("appended");
        let carried = |at: &TopicPartition| {
            self.heading.setting.pipeline.sources.iter().any(|source| source.carries.is_some() && source.topic == at.topic)
        };
        let passed = commit.positions.iter().filter(|(at, _)| carried(at)).map(|(at, position)| (at.clone(), position.offset)).collect();
        let positions = commit.positions.iter().map(|(at, position)| (at.clone(), position.offset)).collect();
        self.in_flight =
            Some(InFlight { tasks, passed, positions, since: self.clock.elapsed(), of: std::mem::take(&mut self.uncommitted) });
        self.member.begin_commit(commit)?;
        Ok(())
    }

    /// Has a few rows of older types become rows of the newest, in the commit that begins.
    fn sweep(&mut self, waiting: &BTreeSet<TaskId>) -> Result<(), Ended> {
        let mut most = SWEEP_ROWS;
        let ids: Vec<TaskId> = self.tasks.keys().copied().filter(|id| !waiting.contains(id) && !self.parked.contains_key(id)).collect();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id).filter(|_| self.stopped.is_none()) else { continue };
            match task.sweep(most) {
                Ok(seen) => {
                    most = most.saturating_sub(seen);
                    if seen > 0 {
                        fault::point("sweeping");
                    }
                }
                Err(Stop::Log(error)) => return Err(error.into()),
                Err(stop) if self.options.park => self.park(id, &stop),
                Err(stop) => self.stopped = Some(stop),
            }
        }
        Ok(())
    }

    /// Looks after the commit in flight, at most so long.
    pub(super) fn progress_commit(&mut self, wait: Duration) -> Result<(), Ended> {
        if self.in_flight.is_none() || self.member.poll_commit(wait)? == CommitState::InFlight {
            return Ok(());
        }
        if let Some(done) = self.in_flight.take() {
            self.commits += 1;
            self.commit_time.observe(self.clock.elapsed().saturating_sub(done.since));
            self.committed.extend(done.positions);
            self.well();
            self.widen(done.of.rows);
            for number in done.tasks {
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.committed();
                }
            }
            fault::point("applied");
            self.passed.extend(done.passed);
            self.delete_passed();
            match self.captured.take() {
                Some(captured) => self.checkpoint(captured)?,
                None if self.checkpoint_due() => {
                    let captured = self.capture()?;
                    if planted(Mistake::UnprovedCheckpoint) {
                        self.checkpoint(captured)?;
                    } else {
                        self.captured = Some(captured);
                    }
                }
                None => {}
            }
        }
        for (to, records) in std::mem::take(&mut self.pending) {
            self.member.append(&to, &records)?;
        }
        self.pending_rows = 0;
        Ok(())
    }

    /// Waits for the commit in flight.
    pub(super) fn end_commit(&mut self) -> Result<(), Ended> {
        while self.in_flight.is_some() {
            self.progress_commit(Duration::from_millis(100))?;
            if self.stop.load(Ordering::Relaxed) {
                // Nobody polls any more: why it does not end is told here.
                self.watch();
            }
            if self.in_flight.is_some() && self.deadline.is_some_and(|deadline| self.clock.elapsed() >= deadline) {
                let message = "partitions are to be given up, and the last commit has not ended in time".to_owned();
                return Err(LogError { remedy: Remedy::Indefinite, message }.into());
            }
        }
        Ok(())
    }

    /// Commits everything processed so far, and waits for it.
    pub(super) fn commit_all(&mut self) -> Result<(), Ended> {
        self.end_commit()?;
        self.begin_commit()?;
        self.end_commit()
    }

    /// Deletes what was processed from repartition topics, now and then. Nothing depends on it but space.
    pub(super) fn delete_passed(&mut self) {
        if self.passed.is_empty() || self.clock.elapsed() < self.deleted + self.options.checkpoint_interval {
            return;
        }
        self.deleted = self.clock.elapsed();
        let passed: Vec<_> = self.passed.drain().collect();
        if let Err(error) = self.log.delete_before(&passed) {
            tracing::warn!(pipeline = self.heading.setting.pipeline.name, "{error}; repartition topics keep what was processed, and grow");
        }
    }

    pub(super) fn checkpoint_due(&mut self) -> bool {
        if self.heading.setting.changelogs.is_none() {
            return false;
        }
        let waited = self.clock.elapsed() >= self.checkpointed + self.options.checkpoint_interval;
        let mut dirty = 0;
        for task in self.tasks.values_mut() {
            task.each_store(|store| dirty += store.dirty_bytes());
        }
        dirty > DIRTY_BYTES || waited && dirty > 0
    }

    /// The ends of the changelogs of stores with rows that wait. Everything committed is applied, and no commit is in flight.
    pub(super) fn capture(&mut self) -> Result<Captured, LogError> {
        let mut captured = Captured::new();
        let Some(changelogs) = self.heading.setting.changelogs.clone().filter(|changelogs| changelogs.exist) else { return Ok(captured) };
        for (number, task) in &mut self.tasks {
            let mut stores = Vec::new();
            task.each_store(|store| {
                if store.dirty_bytes() > 0 {
                    stores.push(store.name().clone());
                }
            });
            for store in stores {
                if let Some(changelog) = changelogs.find(&store) {
                    let end = self.log.bounds(&changelog.partition(number.partition))?.end;
                    captured.insert((*number, store), end);
                }
            }
        }
        Ok(captured)
    }

    /// Writes the committed rows that wait to the local copies.
    pub(super) fn checkpoint(&mut self, captured: Captured) -> Result<(), LogError> {
        let Some(changelogs) = self.heading.setting.changelogs.clone() else { return Ok(()) };
        let written_at = self.clock.now();
        for ((number, name), offset) in captured {
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            let Some(claim) = self.claims.get(&number) else { continue };
            let mut outcome = Ok(());
            task.each_store(|store| {
                if *store.name() == name && outcome.is_ok() {
                    outcome = claim.hold(|| {
                        let rows = store.take_dirty();
                        changelogs.local.write(&name, number.partition, &rows, Some(&Checkpoint { offset, written_at }))?;
                        store.checkpointed(rows);
                        Ok(())
                    });
                }
            });
            outcome?;
            fault::point("checkpointing");
        }
        self.checkpointed = self.clock.elapsed();
        Ok(())
    }

    /// Before tasks are given up: their local copies are made whole, so that whoever takes them next has little to restore.
    pub(super) fn checkpoint_all(&mut self) -> Result<(), Ended> {
        let captured = self.capture()?;
        if captured.is_empty() {
            return Ok(());
        }
        if planted(Mistake::UnprovedCheckpoint) {
            return Ok(self.checkpoint(captured)?);
        }
        self.captured = Some(captured);
        self.begin_commit_of(true)?;
        self.end_commit()
    }
}
