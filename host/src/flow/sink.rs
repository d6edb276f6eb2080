//! Where a record's way ends: values are encoded, keys written as the sink declares, each row goes to its partition.

use crate::column::{Bitmap, Column, ColumnBuilder, Type};
use crate::field::Path;
use crate::flow::batch::{Batch, Held};
use crate::flow::plan::SourcePlan;
use crate::flow::provenance::{Provenance, ROW};
use crate::flow::reject::Rejected;
use crate::flow::repartition;
use crate::flow::stage::write_errors;
use crate::format::{Change, Wanted};
use crate::io::{TopicPartition, partition_for};
use crate::key;
use crate::pipeline::{self, KeyFormat};
use crate::record::Records;
use crate::shadow::Written;
use std::sync::Arc;

/// A sink and its topic.
pub struct Sink {
    sink: pipeline::Sink,
    /// The task's number.
    task: i32,
    partitions: i32,
    max_message_bytes: Option<usize>,
    pub rows: u64,
    /// What is told of each record.
    provenance: Option<Provenance>,
    /// What it wrote since it was last asked, while somebody wants to know.
    written: Option<Vec<Written>>,
}

/// Bytes of a record beside key, value and headers: lengths, offset and timestamp differences, and its share of the batch's header.
const RECORD_OVERHEAD: usize = 100;

impl Sink {
    pub fn new(sink: pipeline::Sink, task: i32, partitions: i32, max_message_bytes: Option<usize>) -> Self {
        Self { sink, task, partitions: partitions.max(1), max_message_bytes, rows: 0, provenance: None, written: None }
    }

    /// Tells of each record where it comes from.
    pub fn telling(mut self, provenance: Provenance) -> Self {
        self.provenance = Some(provenance);
        self
    }

    /// Keeps what it writes from now on.
    pub fn watch(&mut self) {
        self.written.get_or_insert_default();
    }

    pub fn unwatch(&mut self) {
        self.written = None;
    }

    pub fn take_written(&mut self) -> Vec<Written> {
        self.written.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Turns a batch into records for the partitions of the topic.
    pub fn write(
        &mut self,
        batch: &Batch,
        source: &SourcePlan,
        source_key: KeyFormat,
        rejected: &mut Vec<Rejected>,
        out: &mut Vec<(TopicPartition, Records)>,
    ) {
        let whole;
        let mut batch = batch;
        let (mut values, errors) = batch.encode(source.format);
        let mut bad = Bitmap::default();
        let mut refused: Vec<(usize, &'static str, String)> = Vec::new();
        for failure in &errors {
            bad.set(failure.error.row as usize);
        }
        rejected.extend(write_errors(errors, &batch.origin));
        if let Some(fields) = &self.sink.fields {
            values = Held::new(only(fields, &values, batch, source));
        }

        let mut keys = None;
        if let Some(to) = self.sink.key
            && (to != source_key || batch.keys.is_some())
        {
            let mut builder = ColumnBuilder::new(Type::Bytes, batch.rows);
            for row in 0..batch.rows {
                let key = batch.key(row);
                match key.map(|bytes| key::convert(bytes, batch.key_format(row, source_key), to)) {
                    Some(Ok(bytes)) => builder.bytes(&bytes),
                    // Within the pipeline it travels as it is: the stage that reads it tells, if there is one.
                    Some(Err(_)) if self.sink.regroup.is_some() => builder.bytes(key.unwrap_or_default()),
                    Some(Err(message)) => {
                        builder.null();
                        if !bad.get(row) {
                            bad.set(row);
                            refused.push((row, "wrong_key", format!("sink `{}`: {message}", self.sink.topic)));
                        }
                    }
                    None => builder.null(),
                }
            }
            keys = Some(builder.finish());
        }

        let mut rows = self.provenance.as_ref().filter(|_| batch.kept.is_some()).map_or_else(Vec::new, |told| told.rows(batch, source_key));
        if let Some(limit) = self.max_message_bytes {
            let told = self.provenance.as_ref().map_or(0, Provenance::bytes);
            let (headers, index) = batch.headers();
            for row in (0..batch.rows).filter(|row| !bad.get(*row)).collect::<Vec<_>>() {
                let at = index.as_ref().map_or(row, |index| index[row] as usize);
                let headers: usize = headers.of(at).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 10).sum();
                let told = told + rows.get(row).and_then(Option::as_ref).map_or(0, |row| row.len() + ROW.len() + 10);
                let size = batch.key(row).map_or(0, <[u8]>::len) + values.view().bytes(row).map_or(0, <[u8]>::len) + headers + told;
                if size + RECORD_OVERHEAD > limit {
                    bad.set(row);
                    let message = format!(
                        "topic `{}` takes records of at most {limit} bytes (max.message.bytes), this one has {size}",
                        self.sink.topic
                    );
                    refused.push((row, "too_large", message));
                }
            }
        }
        rejected.extend(refused.into_iter().map(|(row, code, reason)| Rejected {
            origin: batch.origin.clone(),
            origin_row: batch.origin_row(row),
            stage: None,
            code,
            reason,
            shown: None,
        }));

        let good: Vec<u32>;
        if bad.any(batch.rows) {
            good = (0..batch.rows as u32).filter(|row| !bad.get(*row as usize)).collect();
            keys = keys.map(|keys| keys.gather(&good));
            if !rows.is_empty() {
                rows = good.iter().map(|row| rows[*row as usize].take()).collect();
            }
            let index = good.iter().map(|row| values.view().row(*row as usize) as u32).collect();
            values.index = Some(Arc::new(index));
            whole = batch.select(good);
            batch = &whole;
        }
        if batch.rows == 0 {
            return;
        }
        self.rows += batch.rows as u64;
        let mut records = batch.to_records(&values);
        if let Some(keys) = keys {
            records.keys = keys;
        }
        if let Some(regroup) = &self.sink.regroup {
            let keys = repartition::keys(regroup, batch, &records.keys, &values, source, source_key);
            records = repartition::send(batch, self.task, records, keys);
        }
        if let Some(written) = &mut self.written {
            let place = |row| {
                let (_, partition, offset) = batch.origin.place(batch.origin_row(row));
                (partition, offset)
            };
            let origins = (0..batch.rows).map(place).collect();
            written.push(Written { topic: self.sink.topic.clone(), origins, records: records.clone() });
        }
        // Of no matter to who compares: it tells the generation.
        if let Some(provenance) = &self.provenance {
            records.headers = provenance.add(&records.headers, batch, &rows);
        }
        spread(records, batch, self.partitions, &self.sink.topic, out);
    }
}

/// Puts each record to the partition of its key; a record without one to the number that it came from.
fn spread(records: Records, batch: &Batch, partitions: i32, topic: &Arc<str>, out: &mut Vec<(TopicPartition, Records)>) {
    let place = |row: usize| match records.keys.bytes(row) {
        Some(key) => partition_for(key, partitions),
        None => batch.origin.partitions[batch.origin_row(row)] % partitions,
    };
    if partitions == 1 {
        out.push((TopicPartition::new(topic.clone(), 0), records));
        return;
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    for row in 0..records.len() {
        rows[place(row) as usize].push(row as u32);
    }
    if let Some(only) = rows.iter().position(|rows| rows.len() == records.len()) {
        out.push((TopicPartition::new(topic.clone(), only as i32), records));
        return;
    }
    for (partition, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        out.push((TopicPartition::new(topic.clone(), partition as i32), records.gather(&rows)));
    }
}

/// New objects of these fields alone, as they stand in the values; a missing one stays missing.
fn only(fields: &[Path], values: &Held, batch: &Batch, source: &SourcePlan) -> Column {
    let wanted: Vec<_> = fields.iter().map(|path| Wanted { path: path.clone(), kind: Type::Json, from: None }).collect();
    let decoded = source.format.decode(values.view(), batch.rows, &wanted);
    // A null is dropped like a missing field: both read alike.
    let kept: Vec<Bitmap> = decoded
        .fields
        .iter()
        .map(|field| {
            let mut kept = Bitmap::filled(batch.rows, false);
            (0..batch.rows).filter(|row| field.column.is_null(*row)).for_each(|row| kept.set(row));
            kept
        })
        .collect();
    let none = Bitmap::default();
    let changes: Vec<_> = fields
        .iter()
        .zip(&decoded.fields)
        .zip(&kept)
        .map(|((path, field), kept)| Change {
            path,
            column: crate::column::Indexed { column: &field.column, index: None },
            kept,
            removed: &none,
        })
        .collect();
    let mut encoded = source.format.encode(None, batch.rows, &changes).values;
    for row in 0..batch.rows {
        if values.view().bytes(row).is_none() {
            if encoded.validity.0.is_empty() {
                encoded.validity = Bitmap::filled(batch.rows, true);
            }
            encoded.validity.clear(row);
        }
    }
    encoded
}
