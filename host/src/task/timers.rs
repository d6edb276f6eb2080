//! Timers: a batch ends before the record that makes one due. Which timers there are is known only when the records before are processed, so a batch is
//! tried, and if it set a timer that one of its own later records makes due, it is undone and ends before that record.

use super::{Figures, Produced, Stop, Task};
use crate::column::Type;
use crate::flow::source::{self, Taken};
use crate::flow::stage::Give;
use crate::plugin::describe::{Description, Store};

/// The store of a stage's timers: keys of time and key, rows without columns.
pub fn store(description: &Description) -> Option<Store> {
    let timers = description.timers.as_ref()?;
    let by = timers.by.clone();
    Some(Store {
        name: "timers".to_owned(),
        key: Type::Bytes,
        fields: Vec::new(),
        by,
        windowed: false,
        emits: Vec::new(),
        migrates: Vec::new(),
    })
}

impl Task {
    pub(super) fn is_timed(&self) -> bool {
        let reached = &self.setting.plan.segments[self.id.segment].stages;
        self.setting.pipeline.stages.iter().zip(reached).any(|(stage, reached)| *reached && stage.description.timers.is_some())
    }

    /// As `process`, of as many rows as come before the next timer: `Produced::rows` tells how many.
    pub(super) fn process_timed(&mut self, source: usize, taken: Taken, figures: &Figures) -> Result<Produced, Stop> {
        let setting = self.setting.clone();
        let (described, source_plan) = (&setting.pipeline.sources[source], &setting.plan.sources[source]);
        let (fetched, clock) = (taken.clone(), self.clock.clone());
        let taken = self.received(source, taken)?;
        let rows = taken.offsets.len();
        let (mut refused, mut last) = (Vec::new(), self.stream_time);
        let source_plan = self.reading(&setting.plan, &taken).unwrap_or(source_plan);
        let whole = source::read(described, source, source_plan, taken, &mut last, &mut refused);
        if rows == 0 {
            // Marks alone: time goes on, and no record comes of it.
            let before = self.stream_time;
            let Some(first) = self.here(last) else { return Ok(Produced { rows: fetched.offsets.len(), ..Produced::default() }) };
            let mut appends = Vec::new();
            if last > before {
                self.pass(source, &first, Give::Due(last), &mut refused, &mut appends)?;
            }
            self.pass(source, &first, Give::Closed(last), &mut refused, &mut appends)?;
            self.settle(refused, &mut appends)?;
            self.stream_time = last;
            self.keep_batch();
            return Ok(Produced { appends, rows: fetched.offsets.len(), ..Produced::default() });
        }
        // Stream time before each row, and behind the last.
        let times: Vec<i64> = whole.origin.stream_times.iter().copied().chain([last]).collect();
        let mut limit = rows.min(self.reach.max(1));
        loop {
            let (mut rejected, mut appends) = (Vec::new(), Vec::new());
            if times[1] > times[0] {
                self.pass(source, &whole.select(Vec::new()), Give::Due(times[1]), &mut rejected, &mut appends)?;
            }
            let end = self.until_due(&times, limit)?;
            let first = whole.select((0..whole.rows as u32).filter(|row| whole.origin_row(*row as usize) < end).collect());
            rejected.extend(refused.iter().filter(|refused| refused.origin_row < end).cloned());
            self.pass(source, &first, Give::Closed(times[end]), &mut rejected, &mut appends)?;
            let due = self.until_due(&times, end)?;
            if due < end {
                self.rewind_batch(figures);
                // The next ones probably come as close together.
                self.reach = due.saturating_mul(2);
                limit = due;
                continue;
            }
            self.reach = self.reach.saturating_mul(2);
            self.settle(rejected, &mut appends)?;
            self.stream_time = times[end];
            self.keep_batch();
            let mut rows = fetched.offsets.len();
            if end < whole.origin.offsets.len() {
                // The clock has seen records that are not processed yet.
                rows = whole.origin.fetched_row(end);
                self.clock = clock;
                self.received(source, fetched.first(rows))?;
            }
            let records = if described.carries.is_none() { rows } else { 0 };
            return Ok(Produced { appends, rows, records, ..Produced::default() });
        }
    }

    /// The first row behind row 0, and below `end`, that advances stream time to a timer.
    fn until_due(&mut self, times: &[i64], end: usize) -> Result<usize, Stop> {
        let reached = &self.setting.plan.segments[self.id.segment].stages;
        let mut earliest = None;
        for (stage, _) in self.stages.iter_mut().zip(reached).filter(|(_, reached)| **reached) {
            let next = stage.next_timer().map_err(Stop::Log)?;
            earliest = [earliest, next].into_iter().flatten().min();
        }
        let Some(earliest) = earliest else { return Ok(end) };
        Ok((1..end).find(|row| times[row + 1] > times[*row] && times[row + 1] >= earliest).unwrap_or(end))
    }
}
