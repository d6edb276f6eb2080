//! What a worker does when the log fails: it goes back to what is committed, looks for a record that is refused, waits, or gives up.

use super::{Ended, Worker, join};
use crate::io::{LogError, Remedy};
use crate::isolation::{Finding, Guilty, Isolation};
use crate::planted::{Mistake, planted};
use crate::task::Task;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a member that was fenced joins anew.
const REJOIN: Duration = Duration::from_secs(60);
/// Pauses between attempts while the log is out of reach.
const BACK_OFF: [Duration; 5] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];
/// So many searches for a refused record that find none end the run: no record is refused alone, it is the size of a whole batch, say.
const FRUITLESS: u32 = 3;
/// Brokers that are just back may put a member out once more, or refuse what was under way: that belongs to the trouble before, which was told.
const AFTERMATH: Duration = Duration::from_secs(10);

impl Worker<'_> {
    /// After a failure of the log: goes back to what is committed, or gives up.
    pub(super) fn recover(&mut self, mut error: LogError, failures: &mut usize) -> Result<(), Ended> {
        loop {
            let Some(pause) = BACK_OFF.get((*failures).min(BACK_OFF.len() - 1)) else { return Err(error.into()) };
            if self.stop.load(Ordering::Relaxed) {
                return if error.remedy == Remedy::Rewind { self.let_go(&error) } else { Err(error.into()) };
            }
            // A member that was away for too long can be fenced by its own second attempt to come back. Where another has the name, that one is fenced
            // by this, and does the same: the second time within the minute decides.
            if error.remedy == Remedy::Fenced && self.fenced.is_none_or(|at| self.clock.elapsed() >= at + REJOIN) {
                self.fenced = Some(self.clock.elapsed());
                error.remedy = Remedy::Indefinite;
            }
            if error.remedy == Remedy::Isolate {
                error = self.isolate(error)?;
            }
            match error.remedy {
                Remedy::Stop | Remedy::Fenced | Remedy::Isolate => return Err(error.into()),
                Remedy::Rewind if self.isolation.is_some() => {}
                Remedy::Wait | Remedy::Rewind | Remedy::Indefinite => match self.member.away() {
                    Some(reason) => self.trouble(&format!("{error}: {reason}")),
                    None => self.trouble(&error.message),
                },
            }
            *failures += 1;
            if error.remedy != Remedy::Rewind || *failures > 1 {
                self.clock.pause(*pause);
            }
            match self.rewind(error.remedy) {
                Ok(()) => return Ok(()),
                Err(Ended::Log(again)) => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    /// Drops all that is not committed and reads again from the committed positions.
    pub(super) fn rewind(&mut self, remedy: Remedy) -> Result<(), Ended> {
        self.forget_uncommitted();
        self.owed.extend(self.tasks.values().flat_map(Task::partitions));
        self.owed.sort();
        self.owed.dedup();
        let tasks = std::mem::take(&mut self.tasks);
        tasks.values().for_each(|task| self.retire(task));
        if planted(Mistake::OverlayKept) {
            self.tasks = tasks;
            self.tasks.values_mut().for_each(Task::forget_partitions);
        }
        self.paused.clear();
        self.committed.clear();
        self.parked.clear();
        self.restore = None;
        if remedy == Remedy::Rewind || planted(Mistake::GoesOnAfterIndefinite) {
            self.member.abort()?;
            let owed = self.owed.clone();
            if !owed.is_empty() {
                self.assign(&owed)?;
            }
        } else {
            self.member.abandon();
            self.behind.clear();
            self.member = join(&self.heading.setting, &self.log, &self.name)?;
        }
        self.owed.clear();
        Ok(())
    }

    /// Told to stop, and what was under way cannot be committed any more: that is left to whoever has the partitions next.
    pub(super) fn let_go(&mut self, error: &LogError) -> Result<(), Ended> {
        tracing::info!(pipeline = self.heading.setting.pipeline.name, "{error}; what is not committed is done again by who comes next");
        self.forget_uncommitted();
        self.restore = None;
        std::mem::take(&mut self.tasks).values().for_each(|task| self.retire(task));
        self.committed.clear();
        Ok(self.member.abort()?)
    }

    pub(super) fn forget_uncommitted(&mut self) {
        self.pending.clear();
        self.pending_rows = 0;
        let in_flight = self.in_flight.take().map_or(0, |commit| commit.of.records);
        self.processed -= in_flight + std::mem::take(&mut self.uncommitted).records;
        self.captured = None;
        self.first_since = None;
        self.stopped = None;
    }

    /// The log has refused a record of the commit under way, for good. What is read again is committed in smaller parts, until it is found.
    pub(super) fn isolate(&mut self, error: LogError) -> Result<LogError, LogError> {
        let of = self.in_flight.as_ref().map_or(&self.uncommitted, |commit| &commit.of);
        let (rows, apart) = (of.rows, of.apart);
        let last = of.last.clone().filter(|_| !apart).map(|(at, offset)| Guilty { at, offset, reason: error.message.clone() });
        if self.fruitless >= FRUITLESS {
            return Err(LogError { remedy: Remedy::Stop, ..error });
        }
        let isolation = self.isolation.get_or_insert_with(|| {
            tracing::warn!(
                pipeline = self.heading.setting.pipeline.name,
                "{error}; the {rows} records since the last commit are read again, to find the one whose results these are"
            );
            Isolation::default()
        });
        match isolation.refused(rows, last) {
            Finding::Narrower => Ok(LogError { remedy: Remedy::Rewind, ..error }),
            Finding::Hopeless => Err(LogError { remedy: Remedy::Stop, ..error }),
        }
    }

    /// After a commit of so many rows: the next may be larger again.
    pub(super) fn widen(&mut self, rows: usize) {
        let full = self.options.commit_rows;
        if let Some(isolation) = self.isolation.take_if(|isolation| isolation.committed(rows, full)) {
            self.fruitless = if isolation.found() { 0 } else { self.fruitless + 1 };
        }
    }

    /// Looks whether the log can be reached, when nothing comes from it.
    pub(super) fn watch(&mut self) {
        match self.member.away() {
            Some(reason) => self.tell(&reason),
            // With nothing to commit; else the next commit shows whether all is well again. Without tasks, the group is yet to be heard of.
            None if !self.tasks.is_empty() && self.in_flight.is_none() && self.first_since.is_none() => self.well(),
            None => {}
        }
    }

    /// Something failed that the run gets over by itself.
    pub(super) fn trouble(&mut self, reason: &str) {
        if self.well_since.is_some_and(|since| self.clock.elapsed() < since + AFTERMATH) {
            tracing::debug!(pipeline = self.heading.setting.pipeline.name, "{reason}");
        } else {
            self.tell(reason);
        }
    }

    /// Tells why the run waits: once, however long it lasts and whatever fails meanwhile.
    pub(super) fn tell(&mut self, reason: &str) {
        let pipeline = &self.heading.setting.pipeline.name;
        if std::mem::replace(&mut self.troubled, true) {
            tracing::debug!(pipeline, "{reason}");
        } else {
            tracing::warn!(pipeline, "{reason}; what is not committed is done again, and the run goes on by itself as soon as it can");
        }
        self.seat.trouble();
    }

    pub(super) fn well(&mut self) {
        if std::mem::take(&mut self.troubled) {
            self.well_since = Some(self.clock.elapsed());
            self.seat.well();
            tracing::info!(pipeline = self.heading.setting.pipeline.name, "the log is well again");
        }
    }
}
