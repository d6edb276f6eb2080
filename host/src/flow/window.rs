//! Windows of record time, as the host hands them to a stage. A row that belongs to several windows comes once for each; what is closed takes no rows.

use crate::column::{Bitmap, Column, Values};
use crate::flow::batch::Batch;
use crate::plugin::describe::Window;

/// What came too late.
#[derive(Default)]
pub struct Late {
    /// Rows all of whose windows were closed before they came.
    pub rows: Bitmap,
    /// Rows, once for each of their windows that was closed.
    pub count: usize,
}

/// Which rows come too late. Of sessions the plugin alone can tell: a late row may still belong to a session that is open.
pub fn late(batch: &Batch, window: Window) -> Late {
    let mut late = Late::default();
    if window.session {
        return late;
    }
    for row in 0..batch.rows {
        let open_from = open_from(batch, row, window);
        let (mut closed, mut open) = (0, false);
        for start in window.starts(batch.time(row)) {
            if start < open_from {
                closed += 1;
            } else {
                // Starts rise: the rest is open too.
                open = true;
                break;
            }
        }
        late.count += closed;
        if !open {
            late.rows.set(row);
        }
    }
    late
}

fn open_from(batch: &Batch, row: usize, window: Window) -> i64 {
    window.open_from(batch.origin.stream_times[batch.origin_row(row)])
}

/// The open windows of a batch's rows.
pub struct Assigned {
    /// The row of each entry; None = each row once, in order.
    pub rows: Option<Vec<u32>>,
    /// Milliseconds; one for each entry.
    pub starts: Vec<i64>,
    span: i64,
}

/// The open windows of each row, of which none may be late.
pub fn assign(batch: &Batch, window: Window) -> Assigned {
    let several = window.advance() < window.size;
    let mut assigned = Assigned { rows: several.then(Vec::new), starts: Vec::with_capacity(batch.rows), span: window.span() };
    for row in 0..batch.rows {
        let open_from = if window.session { i64::MIN } else { open_from(batch, row, window) };
        for start in window.starts(batch.time(row)).filter(|start| *start >= open_from) {
            assigned.starts.push(start);
            if let Some(rows) = &mut assigned.rows {
                rows.push(row as u32);
            }
        }
    }
    assigned
}

impl Assigned {
    pub fn column(&self, end: bool) -> Column {
        let shift = if end { self.span } else { 0 };
        let values = self.starts.iter().map(|start| start.saturating_add(shift)).collect();
        Column { values: Values::Ints(values), validity: Bitmap::default() }
    }
}

/// Entries of a call at most, of rows that come once for each of their windows.
const ENTRIES: i64 = 10_000;

/// Rows of a batch that one call may take.
pub fn rows_of_a_call(window: Window) -> usize {
    let windows = window.size.max(1) / window.advance();
    if windows <= 1 { usize::MAX } else { (ENTRIES / windows).max(1) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::batch::{Held, Origin};
    use crate::record::RecordsBuilder;
    use std::sync::Arc;

    /// Records of these times, each with the stream time before it.
    fn batch(rows: &[(i64, i64)]) -> Batch {
        let mut records = RecordsBuilder::default();
        rows.iter().for_each(|(time, _)| records.push(*time, None, Some(b"{}"), []));
        let records = records.finish();
        let origin = Origin {
            carried: None,
            source: 0,
            partitions: vec![0; rows.len()],
            offsets: (0..rows.len() as i64).collect(),
            times: records.timestamps.clone(),
            stream_times: rows.iter().map(|(_, stream_time)| *stream_time).collect(),
            records,
        };
        let values = Held::new(origin.records.values.clone());
        Batch::new(Arc::new(origin), values, Vec::new())
    }

    #[test]
    fn a_row_has_a_window_for_each_advance() {
        let window = Window { size: 10, advance: 4, grace: 2, ..Window::default() };
        assert_eq!(window.starts(9).collect::<Vec<_>>(), [0, 4, 8]);
        assert_eq!(window.starts(11).collect::<Vec<_>>(), [4, 8]);
        assert_eq!(window.starts(-1).collect::<Vec<_>>(), [-8, -4]);
        // [0, 10) is closed at 12, [4, 14) at 16, [8, 18) at 20.
        let batch = batch(&[(9, i64::MIN), (9, 11), (9, 12), (9, 19), (9, 20)]);
        let late = late(&batch, window);
        assert_eq!((late.count, (0..5).map(|row| late.rows.get(row)).collect::<Vec<_>>()), (6, vec![false, false, false, false, true]));
        let open = batch.without(&late.rows);
        let assigned = assign(&open, window);
        assert_eq!(assigned.rows, Some(vec![0, 0, 0, 1, 1, 1, 2, 2, 3]));
        assert_eq!(assigned.starts, [0, 4, 8, 0, 4, 8, 4, 8, 8]);
        assert_eq!(assigned.column(true).cell(0), crate::column::Cell::Int(10));
    }

    /// A window as long as its advance, and one with gaps between.
    #[test]
    fn a_row_may_have_one_window_or_none() {
        let tumbling = Window::tumbling(10, 0);
        assert_eq!(tumbling.starts(-1).chain(tumbling.starts(10)).collect::<Vec<_>>(), [-10, 10]);
        assert!(assign(&batch(&[(1, 0)]), tumbling).rows.is_none());
        let session = Window { size: 5, session: true, ..Window::default() };
        assert_eq!((session.starts(7).collect::<Vec<_>>(), session.span(), session.closes(7), session.open_from(13)), (vec![7], 6, 13, 8));
        assert_eq!(late(&batch(&[(1, 100)]), session).count, 0, "the plugin's to tell");
    }
}
