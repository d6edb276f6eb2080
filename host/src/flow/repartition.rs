//! Between two segments of a pipeline: records are written to a topic of the pipeline's own by the key of the stage that groups them, so that a group
//! meets in one task, and come back as what they were: key, headers, time and place of origin travel in two headers.
//!
//! Times. A record carries the stream time of the task that sent it. Downstream the clock stands at the lowest of all sending tasks, so that a task
//! that is ahead closes no window for records of one that is behind. A task that has nothing more to send tells so by a *mark* and is left
//! out; marks are records without key and value. A mark of idleness counts only if it was written since the receiving task began: what was idle
//! when an earlier run ended may have much to send now. Tasks repeat theirs, so that nobody waits for ever.

use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::field::Path;
use crate::flow::batch::{Batch, Carried, Held};
use crate::flow::plan::SourcePlan;
use crate::flow::source::{Provenance, Taken};
use crate::format::{DecodedField, Wanted};
use crate::key;
use crate::pipeline::{InputKeys, KeyFormat, Regroup, TableKey};
use crate::record::{HeadersBuilder, Records, RecordsBuilder};
use std::borrow::Cow;
use std::collections::BTreeMap;

const ORIGIN: &[u8] = b"millstream.origin";
/// The key that the record had.
const KEY: &[u8] = b"millstream.key";
const MARK: &[u8] = b"millstream.mark";

/// Where a task stands, for those that get its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Milliseconds; `i64::MIN` before the first record.
    pub stream_time: i64,
    /// Everything that there is was sent.
    pub idle: bool,
}

/// The keys by which rows are spread: canonical JSON of the typed fields. A row without them has the key `null`; the stage behind refuses it.
/// By a table's key they are spread as the table's records are. `own`: the records' keys as they are to be carried.
pub fn keys(regroup: &Regroup, batch: &Batch, own: &Column, values: &Held, source: &SourcePlan, source_key: KeyFormat) -> Column {
    let mut keys = ColumnBuilder::new(Type::Bytes, batch.rows);
    match regroup {
        Regroup::Key => (0..batch.rows).for_each(|row| keys.bytes(own.bytes(row).unwrap_or(b"null"))),
        Regroup::One => (0..batch.rows).for_each(|_| keys.bytes(b"[]")),
        Regroup::Table(TableKey { field: None, format, .. }) => {
            for row in 0..batch.rows {
                let key = batch.key(row).and_then(|key| key::convert(key, batch.key_format(row, source_key), *format).ok());
                keys.bytes(key.as_deref().unwrap_or(b"null"));
            }
        }
        Regroup::Table(TableKey { field: Some(field), format, .. }) => {
            let decoded = decode(std::slice::from_ref(field), batch, values, source);
            for row in 0..batch.rows {
                let key = decoded.first().and_then(|field| table_key(field.column.cell(row), *format));
                keys.bytes(key.as_deref().unwrap_or(b"null"));
            }
        }
        Regroup::Inputs(InputKeys { fields, of }) => {
            let wanted: Vec<_> = fields.iter().flatten().cloned().collect();
            let decoded = if wanted.is_empty() { Vec::new() } else { decode(&wanted, batch, values, source) };
            // By input: the place of its field among those.
            let mut next = 0..;
            let places: Vec<Option<usize>> = fields.iter().map(|field| field.as_ref().and_then(|_| next.next())).collect();
            for row in 0..batch.rows {
                let input = of.get(batch.origin.place(batch.origin_row(row)).0).copied().flatten();
                let key = match input.and_then(|input| places.get(input as usize)?.as_ref()) {
                    Some(place) => table_key(decoded[*place].column.cell(row), KeyFormat::Text).map(Cow::Owned),
                    None => batch.key(row).and_then(|key| key::convert(key, batch.key_format(row, source_key), KeyFormat::Text).ok()),
                };
                keys.bytes(key.as_deref().unwrap_or(b"null"));
            }
        }
        Regroup::Fields(fields) => {
            let decoded = decode(fields, batch, values, source);
            let mut key = Vec::new();
            for row in 0..batch.rows {
                key.clear();
                if let [one] = decoded.as_slice() {
                    write_json(&one.column, row, &mut key);
                } else {
                    for (at, field) in decoded.iter().enumerate() {
                        key.push(if at == 0 { b'[' } else { b',' });
                        write_json(&field.column, row, &mut key);
                    }
                    key.push(b']');
                }
                keys.bytes(&key);
            }
        }
    }
    keys.finish()
}

fn decode(fields: &[(Path, Type)], batch: &Batch, values: &Held, source: &SourcePlan) -> Vec<DecodedField> {
    let wanted: Vec<Wanted> = fields
        .iter()
        .map(|(path, kind)| {
            let declared = source.wanted.iter().find(|wanted| wanted.path == *path && wanted.kind == *kind);
            declared.cloned().unwrap_or(Wanted { path: path.clone(), kind: *kind, from: None })
        })
        .collect();
    source.format.decode(values.view(), batch.rows, &wanted).fields
}

/// A value as the key of a table's record; None: no row has such a key.
fn table_key(cell: Cell<'_>, format: KeyFormat) -> Option<Vec<u8>> {
    let number = |text: String| match format {
        KeyFormat::Json => Some(text.into_bytes()),
        _ => key::convert(text.as_bytes(), KeyFormat::Text, format).ok().map(Cow::into_owned),
    };
    match cell {
        Cell::Text(text) => key::convert(text.as_bytes(), KeyFormat::Text, format).ok().map(Cow::into_owned),
        Cell::Int(value) => number(value.to_string()),
        Cell::Json(text) => match serde_json::from_str(text).ok()? {
            serde_json::Value::String(text) => table_key(Cell::Text(&text), format),
            serde_json::Value::Number(value) => number(value.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn write_json(column: &Column, row: usize, out: &mut Vec<u8>) {
    let json = match column.cell(row) {
        Cell::Null => serde_json::Value::Null,
        Cell::Bool(value) => value.into(),
        Cell::Int(value) => value.into(),
        Cell::Float(value) => value.into(),
        Cell::Text(text) => text.into(),
        Cell::Blob(bytes) => serde_json::Value::from(bytes),
        Cell::Json(text) => return out.extend_from_slice(text.as_bytes()),
    };
    out.extend_from_slice(json.to_string().as_bytes());
}

/// Turns the rows of a batch, written as records with their own keys, into records for the repartition topic. `task`: the sender's number.
pub fn send(batch: &Batch, task: i32, records: Records, keys: Column) -> Records {
    let mut headers = HeadersBuilder::default();
    for row in 0..batch.rows {
        for (name, value) in records.headers.of(row) {
            headers.push(name, value);
        }
        let at = batch.origin_row(row);
        let (source, partition, offset) = batch.origin.place(at);
        let origin = format!("{source} {partition} {offset} {} {task} {}", batch.time(row), batch.origin.stream_times[at]);
        headers.push(ORIGIN, Some(origin.as_bytes()));
        headers.push(KEY, records.keys.bytes(row));
        headers.close();
    }
    Records { timestamps: records.timestamps, keys, values: records.values, headers: headers.finish() }
}

/// Tells where a task stands.
pub fn mark(task: i32, standing: Standing) -> Records {
    let mut records = RecordsBuilder::default();
    let text = format!("{task} {} {}", standing.stream_time, u8::from(standing.idle));
    // A mark has no time of its own; its topic keeps records whatever their time.
    records.push(standing.stream_time.max(0), None, None, [(MARK, Some(text.as_bytes()))]);
    records.finish()
}

/// Records of a repartition topic as what they were; `fresh_from`: the end of the partition when the task began. Err: the first row that is not of this
/// program's making.
pub fn receive(taken: Taken, fresh_from: i64, clock: &mut Clock) -> Result<Taken, usize> {
    let rows = taken.offsets.len();
    let mut back = Taken::default();
    let carried = Carried { direct: false, sources: Vec::with_capacity(rows), rows: Vec::with_capacity(rows) };
    let mut provenance = Provenance { carried, times: Vec::new(), before: Vec::new(), after: Vec::new(), pending: None };
    let mut keys = ColumnBuilder::new(Type::Bytes, rows);
    let mut headers = HeadersBuilder::default();
    for row in 0..rows {
        let old = &taken.records.headers;
        if let Some(Some(mark)) = old.last(row, MARK) {
            let [task, stream_time, idle] = numbers(mark).ok_or(row)?;
            clock.see(task as i32, Standing { stream_time, idle: idle != 0 && taken.offsets[row] >= fresh_from });
            // The next row finds the clock as it stands then; there may be none.
            provenance.pending = Some(clock.lowest());
            continue;
        }
        let origin = old.last(row, ORIGIN).flatten().ok_or(row)?;
        let [source, partition, offset, time, task, stream_time] = numbers(origin).ok_or(row)?;
        let key = old.last(row, KEY).ok_or(row)?;
        clock.see(task as i32, Standing { stream_time, idle: false });
        provenance.before.push(clock.lowest());
        clock.see(task as i32, Standing { stream_time: stream_time.max(time), idle: false });
        provenance.after.push(clock.lowest());
        provenance.pending = None;
        provenance.carried.sources.push(source as usize);
        provenance.carried.rows.push(row as u32);
        provenance.times.push(time);
        back.partitions.push(partition as i32);
        back.offsets.push(offset);
        match key {
            Some(key) => keys.bytes(key),
            None => keys.null(),
        }
        // Ours come last: a header of the same name is the record's own.
        let own = old.entries(row).len() - 2;
        for (name, value) in old.of(row).take(own) {
            headers.push(name, value);
        }
        headers.close();
    }
    let keep = &provenance.carried.rows;
    let timestamps = keep.iter().map(|row| taken.records.timestamps[*row as usize]).collect();
    let values = if keep.len() == rows { taken.records.values } else { taken.records.values.gather(keep) };
    back.records = Records { timestamps, keys: keys.finish(), values, headers: headers.finish() };
    back.provenance = Some(provenance);
    Ok(back)
}

fn numbers<const N: usize>(text: &[u8]) -> Option<[i64; N]> {
    let mut parts = std::str::from_utf8(text).ok()?.split(' ');
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// The stream time of a task that gets records of several others.
#[derive(Clone, Debug)]
pub struct Clock {
    /// How many tasks send.
    senders: i32,
    seen: BTreeMap<i32, Standing>,
    /// What was committed: who was not heard of since counts as standing there.
    known: i64,
}

impl Clock {
    pub fn new(senders: i32) -> Self {
        Self { senders, seen: BTreeMap::new(), known: i64::MIN }
    }

    /// What a position says of the stream time that was reached.
    pub fn known(&mut self, stream_time: i64) {
        self.known = self.known.max(stream_time);
    }

    fn see(&mut self, task: i32, standing: Standing) {
        let seen = self.seen.entry(task).or_insert(standing);
        *seen = Standing { stream_time: standing.stream_time.max(seen.stream_time), idle: standing.idle };
    }

    /// The lowest of the senders that may send more; if none may, the highest of all.
    fn lowest(&self) -> i64 {
        let heard = self.seen.len() as i32 >= self.senders;
        let working = self.seen.values().filter(|standing| !standing.idle).map(|standing| standing.stream_time);
        let lowest = match (heard, working.min()) {
            (true, Some(lowest)) => lowest,
            (true, None) => self.seen.values().map(|standing| standing.stream_time).max().unwrap_or(i64::MIN),
            (false, _) => i64::MIN,
        };
        lowest.max(self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(stream_time: i64, idle: bool) -> Standing {
        Standing { stream_time, idle }
    }

    #[test]
    fn the_clock_stands_at_the_lowest_that_may_send_more() {
        let mut clock = Clock::new(2);
        clock.known(100);
        assert_eq!(clock.lowest(), 100);
        clock.see(0, standing(500, false));
        assert_eq!(clock.lowest(), 100, "nothing is known of the other");
        clock.see(1, standing(300, false));
        assert_eq!(clock.lowest(), 300);
        clock.see(1, standing(200, false));
        assert_eq!(clock.lowest(), 300, "a task that reads again goes back in nobody's eyes");
        clock.see(1, standing(300, true));
        assert_eq!(clock.lowest(), 500);
        clock.see(0, standing(600, true));
        assert_eq!(clock.lowest(), 600, "all is sent");
        clock.see(1, standing(300, false));
        assert_eq!(clock.lowest(), 300, "the task's own stream time keeps it from falling");
    }

    #[test]
    fn a_mark_of_an_earlier_run_makes_nobody_idle() {
        let marks = |fresh_from| {
            let mut clock = Clock::new(2);
            for task in 0..2 {
                let records = mark(task, standing(500 + i64::from(task), task == 1));
                let taken = Taken { partitions: vec![0], offsets: vec![i64::from(task)], records, ..Taken::default() };
                receive(taken, fresh_from, &mut clock).unwrap();
            }
            clock.see(0, standing(900, false));
            clock.lowest()
        };
        assert_eq!((marks(0), marks(2)), (900, 501));
    }

    #[test]
    fn records_of_others_are_told() {
        let mut records = RecordsBuilder::default();
        records.push(1, None, Some(b"{}"), [(ORIGIN, Some(&b"0 0 0 0 0 0"[..]))]);
        let taken = Taken { partitions: vec![0], offsets: vec![0], records: records.finish(), ..Taken::default() };
        assert_eq!(receive(taken, 0, &mut Clock::new(1)).err(), Some(0), "the key's header is missing");
    }
}
