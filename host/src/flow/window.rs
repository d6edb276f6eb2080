//! Tumbling windows of record time, as the host hands them to a stage.

use crate::column::{Bitmap, Column, Values};
use crate::flow::batch::Batch;
use crate::plugin::describe::Window;

/// The windows of a batch's rows.
pub struct Assigned {
    /// Milliseconds; one for each row.
    pub starts: Vec<i64>,
    pub size: i64,
    /// Rows whose window was closed before they came: stream time had reached end + grace.
    pub late: Bitmap,
    pub late_rows: usize,
}

/// The window of each row: [start, start + size) with start a multiple of the size.
pub fn assign(batch: &Batch, window: Window) -> Assigned {
    let size = window.size.max(1);
    let mut assigned = Assigned { starts: Vec::with_capacity(batch.rows), size, late: Bitmap::default(), late_rows: 0 };
    for row in 0..batch.rows {
        let start = batch.time(row).div_euclid(size).saturating_mul(size);
        assigned.starts.push(start);
        let close = start.saturating_add(size).saturating_add(window.grace.max(0));
        if close <= batch.origin.stream_times[batch.origin_row(row)] {
            assigned.late.set(row);
            assigned.late_rows += 1;
        }
    }
    assigned
}

impl Assigned {
    pub fn column(&self, end: bool) -> Column {
        let shift = if end { self.size } else { 0 };
        let values = self.starts.iter().map(|start| start.saturating_add(shift)).collect();
        Column { values: Values::Ints(values), validity: Bitmap::default() }
    }
}
