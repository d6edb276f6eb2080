//! Where a record's way begins: records of a source become a batch, with times and the fields that stages behind it read.

use crate::column::{Bitmap, Cell};
use crate::flow::batch::{Batch, Carried, Held, Origin, Slot, slots_of};
use crate::flow::plan::SourcePlan;
use crate::flow::reject::Rejected;
use crate::pipeline::{Source, Tombstones};
use crate::record::Records;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Consecutive records with where they stood.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    pub partitions: Vec<i32>,
    pub offsets: Vec<i64>,
    pub records: Records,
    /// Of records of several sources: that of each.
    pub sources: Option<Vec<usize>>,
    /// Of records that came through a repartition topic: then partitions and offsets are those of their origin.
    pub provenance: Option<Provenance>,
}

/// What records bring with them through a repartition topic.
#[derive(Clone, Debug)]
pub struct Provenance {
    pub carried: Carried,
    /// Record times.
    pub times: Vec<i64>,
    /// Where the clock stands before and after each record.
    pub before: Vec<i64>,
    pub after: Vec<i64>,
    /// Where it stands after the last, if that is not `after`.
    pub pending: Option<i64>,
}

impl Taken {
    /// The source of a row; `one`: of all of them, where they are of one.
    pub fn source(&self, one: usize, row: usize) -> usize {
        self.sources.as_ref().map_or(one, |sources| sources[row])
    }

    /// The first rows alone, of records as they were fetched.
    pub fn first(&self, rows: usize) -> Self {
        let first: Vec<u32> = (0..rows as u32).collect();
        Self {
            partitions: self.partitions[..rows].to_vec(),
            offsets: self.offsets[..rows].to_vec(),
            records: self.records.gather(&first),
            sources: self.sources.as_ref().map(|sources| sources[..rows].to_vec()),
            provenance: None,
        }
    }

    /// All but the first rows.
    pub fn after(&self, rows: usize) -> Self {
        let rest: Vec<u32> = (rows as u32..self.offsets.len() as u32).collect();
        Self {
            partitions: self.partitions[rows..].to_vec(),
            offsets: self.offsets[rows..].to_vec(),
            records: self.records.gather(&rest),
            sources: self.sources.as_ref().map(|sources| sources[rows..].to_vec()),
            provenance: None,
        }
    }
}

/// Milliseconds: 100 million days before and after 1970, as ECMAScript has it. No window, grace or timer behind them comes near the end of an i64.
const TIMES: RangeInclusive<i64> = -8_640_000_000_000_000..=8_640_000_000_000_000;

/// Decodes what was taken; of several sources, `source` is any of them: they are alike. What no stage will see is in `rejected` (the policy decides) or
/// dropped (tombstones, if so declared). `stream_time` is moved by the records that pass.
pub fn read(source: &Source, index: usize, plan: &SourcePlan, taken: Taken, stream_time: &mut i64, rejected: &mut Vec<Rejected>) -> Batch {
    let rows = taken.offsets.len();
    let mut fields = vec![Slot::Missing; plan.wanted.len()];
    let values = Held::new(taken.records.values.clone());
    let mut failed: Vec<(usize, &'static str, String)> = Vec::new();
    if !plan.decoded.is_empty() {
        let decoded = plan.decoder.decode(values.view(), rows);
        for error in &decoded.failed {
            failed.push((error.row as usize, error.code, with_place(&error.message, error.at)));
        }
        for (slot, field) in plan.decoded.iter().zip(slots_of(decoded.fields)) {
            fields[*slot] = field;
        }
    }

    let mut bad = Bitmap::default();
    for (row, ..) in &failed {
        bad.set(*row);
    }
    let provenance = taken.provenance;
    let mut times = provenance.as_ref().map_or_else(|| taken.records.timestamps.clone(), |provenance| provenance.times.clone());
    if let (Some(time), Some(slot)) = (&source.time, plan.time)
        && let Slot::Held(held) = &fields[slot]
    {
        for (row, own) in times.iter_mut().enumerate() {
            if bad.get(row) || taken.records.values.is_null(row) {
                continue;
            }
            let wrong = match held.view().cell(row) {
                Cell::Int(value) => match value.checked_mul(time.unit) {
                    Some(millis) if millis <= own.saturating_add(time.max_ahead) => {
                        *own = millis;
                        continue;
                    }
                    Some(_) => ("time_ahead", format!("the time in `{}` is too far ahead of the record's timestamp", time.field)),
                    None => ("out_of_range", format!("the time in `{}` is out of range", time.field)),
                },
                _ => match held.error(row) {
                    Some(error) => (error.code, with_place(&format!("`{}`: {}", time.field, error.message), error.at)),
                    None => ("missing_field", format!("the time field `{}` is missing", time.field)),
                },
            };
            bad.set(row);
            failed.push((row, wrong.0, wrong.1));
        }
    }

    if plan.counts_time && provenance.is_none() {
        for (row, time) in times.iter().enumerate().filter(|(_, time)| !TIMES.contains(time)) {
            if !bad.get(row) {
                bad.set(row);
                let reason = format!(
                    "its time, {time} ms, is out of range: windows and timers count up to {} ms before and after 1970",
                    TIMES.end()
                );
                failed.push((row, "out_of_range", reason));
            }
        }
    }

    let mut stream_times = Vec::with_capacity(rows);
    for (row, time) in times.iter().enumerate() {
        if let Some(provenance) = &provenance {
            *stream_time = (*stream_time).max(provenance.before[row]);
        }
        stream_times.push(*stream_time);
        match &provenance {
            Some(provenance) => *stream_time = (*stream_time).max(provenance.after[row]),
            None if !bad.get(row) => *stream_time = (*stream_time).max(*time),
            None => {}
        }
    }
    if let Some(pending) = provenance.as_ref().and_then(|provenance| provenance.pending) {
        *stream_time = (*stream_time).max(pending);
    }
    let origin = Arc::new(Origin {
        source: index,
        carried: match (provenance, taken.sources) {
            (Some(provenance), _) => Some(provenance.carried),
            (None, Some(sources)) => Some(Carried { direct: true, sources, rows: (0..rows as u32).collect() }),
            (None, None) => None,
        },
        partitions: taken.partitions,
        offsets: taken.offsets,
        records: taken.records,
        times,
        stream_times,
    });
    failed.sort_by_key(|(row, ..)| *row);
    rejected.extend(failed.into_iter().map(|(row, code, reason)| Rejected {
        origin: origin.clone(),
        origin_row: row,
        stage: None,
        code,
        reason,
        shown: None,
    }));
    if source.tombstones == Tombstones::Drop {
        for row in 0..rows {
            if origin.records.values.is_null(row) {
                bad.set(row);
            }
        }
    }
    let batch = Batch::new(origin, values, fields);
    if bad.any(rows) { batch.without(&bad) } else { batch }
}

/// A message with the byte of the value at which the trouble stands.
pub fn with_place(message: &str, at: Option<usize>) -> String {
    match at {
        Some(byte) => format!("{message} at byte {byte}"),
        None => message.to_owned(),
    }
}
