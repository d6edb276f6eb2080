//! Rows on their way from a source to the sinks: the records they come from, a selection, the fields decoded so far, and the changes that
//! stages made. Nothing is copied until a stage or a sink reads it.

use crate::column::{Bitmap, Cell, Column, ColumnBuilder, Indexed, Strings, Type};
use crate::field::Path;
use crate::flow::kept::{KeptRow, KeptRows};
use crate::format::{Change, DecodedField, EncodeError, FieldError, Format, Wanted};
use crate::key;
use crate::pipeline::KeyFormat;
use crate::record::{Headers, Records};
use std::collections::BTreeMap;
use std::sync::Arc;

/// From the rows of a batch to the rows of what it holds; None = one to one.
pub type Index = Option<Arc<Vec<u32>>>;

/// The records that a batch comes from, and where they stood.
#[derive(Debug)]
pub struct Origin {
    /// The source's index in the pipeline: how the records are read.
    pub source: usize,
    /// Of records of several sources: that of each.
    pub carried: Option<Carried>,
    pub partitions: Vec<i32>,
    pub offsets: Vec<i64>,
    pub records: Records,
    /// Record times, milliseconds: the timestamp, or the source's time field.
    pub times: Vec<i64>,
    /// Stream time before each record; `i64::MIN` if there was none.
    pub stream_times: Vec<i64>,
}

/// Records whose sources are told one by one. Of those that came through a repartition topic, partitions and offsets are those of their origin.
#[derive(Clone, Debug)]
pub struct Carried {
    /// They are of several sources of the task, as they were fetched.
    pub direct: bool,
    /// The source that each record came from first.
    pub sources: Vec<usize>,
    /// The place of each record among those that were fetched.
    pub rows: Vec<u32>,
}

impl Origin {
    /// Where a record came from first: source, partition, offset.
    pub fn place(&self, row: usize) -> (usize, i32, i64) {
        let source = self.carried.as_ref().map_or(self.source, |carried| carried.sources[row]);
        (source, self.partitions[row], self.offsets[row])
    }

    /// The place of a record among those that were fetched.
    pub fn fetched_row(&self, row: usize) -> usize {
        self.carried.as_ref().map_or(row, |carried| carried.rows[row] as usize)
    }
}

/// A column as a batch sees it.
#[derive(Clone, Debug)]
pub struct Held {
    pub column: Arc<Column>,
    pub index: Index,
    /// Rows of the column that could not be decoded.
    pub errors: Option<Arc<BTreeMap<u32, FieldError>>>,
}

impl Held {
    pub fn new(column: Column) -> Self {
        Self { column: Arc::new(column), index: None, errors: None }
    }

    pub fn view(&self) -> Indexed<'_> {
        Indexed { column: &self.column, index: self.index.as_ref().map(|index| index.as_slice()) }
    }

    /// The column in the batch's rows; copied only behind a selection.
    pub fn gathered(&self) -> Arc<Column> {
        match &self.index {
            None => self.column.clone(),
            Some(index) => Arc::new(self.column.gather(index)),
        }
    }

    pub fn error(&self, row: usize) -> Option<&FieldError> {
        self.errors.as_ref()?.get(&(self.view().row(row) as u32))
    }

    fn of_decoded(decoded: DecodedField) -> Self {
        let errors = decoded.errors;
        Self {
            column: Arc::new(decoded.column),
            index: None,
            errors: (!errors.is_empty()).then(|| Arc::new(errors.into_iter().map(|error| (error.row, error)).collect())),
        }
    }
}

/// A decoded field of the plan.
#[derive(Clone, Debug)]
pub enum Slot {
    /// No row has it.
    Missing,
    Held(Held),
    /// The value changed under it: to be decoded again when it is read.
    Stale,
}

/// What the changes of a batch stand on.
#[derive(Clone, Debug)]
pub enum Base {
    /// The value's bytes.
    Value(Held),
    /// A new, empty object for each row.
    Empty,
}

/// A field that a stage wrote.
#[derive(Clone, Debug)]
pub struct Changed {
    pub path: Arc<Path>,
    /// The stage's index: whose policy an error in applying it gets.
    pub stage: usize,
    pub column: Arc<Column>,
    pub kept: Arc<Bitmap>,
    pub removed: Arc<Bitmap>,
    pub index: Index,
}

/// Headers as a batch sees them.
#[derive(Clone, Debug)]
pub struct HeldHeaders {
    pub headers: Arc<Headers>,
    pub index: Index,
}

/// Keys of which a stage gave at least some.
#[derive(Clone, Debug)]
pub struct GivenKeys {
    /// Blobs, nullable.
    pub held: Held,
    /// Marks the keys that are text. The others are in the source's format: they come from a branch that gave none, or from a plugin that keeps to it.
    pub texts: (Arc<Bitmap>, Index),
}

/// Rows between two stages.
#[derive(Clone, Debug)]
pub struct Batch {
    pub rows: usize,
    pub origin: Arc<Origin>,
    /// From rows to records of the origin; never falls.
    pub from: Index,
    pub base: Base,
    pub changes: Vec<Changed>,
    /// By the plan's slots.
    pub fields: Vec<Slot>,
    /// What stages replaced; else the origin's.
    pub keys: Option<GivenKeys>,
    pub headers: Option<HeldHeaders>,
    pub times: Option<(Arc<Vec<i64>>, Index)>,
    /// Rows that a stage turned into tombstones, beside those whose base is null.
    pub tombstones: Option<(Arc<Bitmap>, Index)>,
    /// The rows of stores that these were made from, where that is to be told.
    pub kept: Option<KeptRows>,
}

/// A row whose changes could not be written.
#[derive(Clone, Debug)]
pub struct WriteError {
    /// The record of the origin that the row comes from.
    pub origin_row: usize,
    /// The stage whose change failed; None if it is not known.
    pub stage: Option<usize>,
    pub error: FieldError,
}

fn at(index: &Index, row: usize) -> usize {
    index.as_ref().map_or(row, |index| index[row] as usize)
}

/// Puts selections behind indices, each different index once.
struct Selector<'a> {
    rows: &'a Arc<Vec<u32>>,
    done: Vec<(*const Vec<u32>, Arc<Vec<u32>>)>,
}

impl<'a> Selector<'a> {
    fn new(rows: &'a Arc<Vec<u32>>) -> Self {
        Self { rows, done: Vec::new() }
    }

    fn index(&mut self, index: &Index) -> Index {
        let Some(index) = index else { return Some(self.rows.clone()) };
        let place = Arc::as_ptr(index);
        if let Some((_, new)) = self.done.iter().find(|(old, _)| *old == place) {
            return Some(new.clone());
        }
        let new = Arc::new(self.rows.iter().map(|row| index[*row as usize]).collect::<Vec<_>>());
        self.done.push((place, new.clone()));
        Some(new)
    }

    fn held(&mut self, held: &Held) -> Held {
        Held { column: held.column.clone(), index: self.index(&held.index), errors: held.errors.clone() }
    }
}

impl Batch {
    /// A source's rows as they came, with its decoded fields.
    pub fn new(origin: Arc<Origin>, values: Held, fields: Vec<Slot>) -> Self {
        Self {
            rows: origin.offsets.len(),
            origin,
            from: None,
            base: Base::Value(values),
            changes: Vec::new(),
            fields,
            keys: None,
            headers: None,
            times: None,
            tombstones: None,
            kept: None,
        }
    }

    pub fn origin_row(&self, row: usize) -> usize {
        at(&self.from, row)
    }

    pub fn time(&self, row: usize) -> i64 {
        match &self.times {
            Some((times, index)) => times[at(index, row)],
            None => self.origin.times[self.origin_row(row)],
        }
    }

    /// The timestamp that a sink writes: an unchanged record keeps its own, whatever its time field says.
    pub fn timestamp(&self, row: usize) -> i64 {
        match &self.times {
            Some((times, index)) => times[at(index, row)],
            None => self.origin.records.timestamps[self.origin_row(row)],
        }
    }

    pub fn key(&self, row: usize) -> Option<&[u8]> {
        match &self.keys {
            Some(keys) => keys.held.view().bytes(row),
            None => self.origin.records.keys.bytes(self.origin_row(row)),
        }
    }

    /// The format of a row's key, where those of its source have the format `source`.
    pub fn key_format(&self, row: usize, source: KeyFormat) -> KeyFormat {
        match &self.keys {
            Some(GivenKeys { texts: (marks, index), .. }) if marks.get(at(index, row)) => KeyFormat::Text,
            _ => source,
        }
    }

    /// The headers, and from which index on.
    pub fn headers(&self) -> (&Headers, &Index) {
        match &self.headers {
            Some(held) => (&held.headers, &held.index),
            None => (&self.origin.records.headers, &self.from),
        }
    }

    /// The headers of the rows that are asked for; the others have none.
    pub fn headers_where(&self, wanted: impl Fn(usize) -> bool) -> Headers {
        let (headers, index) = self.headers();
        let mut out = crate::record::HeadersBuilder::default();
        for row in 0..self.rows {
            if wanted(row) {
                headers.of(at(index, row)).for_each(|(name, value)| out.push(name, value));
            }
            out.close();
        }
        out.finish()
    }

    pub fn is_tombstone(&self, row: usize) -> bool {
        if let Some((marks, index)) = &self.tombstones
            && marks.get(at(index, row))
        {
            return true;
        }
        match &self.base {
            Base::Value(held) => held.column.is_null(held.view().row(row)),
            Base::Empty => false,
        }
    }

    /// The row of a store that a row was made from.
    pub fn kept_row(&self, row: usize) -> Option<&KeptRow> {
        let (rows, index) = self.kept.as_ref()?;
        rows.get(at(index, row))?.as_ref()
    }

    /// Whether some row may be a tombstone; quick.
    pub fn may_hold_tombstones(&self) -> bool {
        self.tombstones.is_some() || matches!(&self.base, Base::Value(held) if !held.column.validity.0.is_empty())
    }

    /// The rows `rows`, in that order; repeats allowed, never falling.
    pub fn select(&self, rows: Vec<u32>) -> Self {
        let rows = Arc::new(rows);
        let mut selector = Selector::new(&rows);
        Self {
            rows: rows.len(),
            origin: self.origin.clone(),
            from: selector.index(&self.from),
            base: match &self.base {
                Base::Value(held) => Base::Value(selector.held(held)),
                Base::Empty => Base::Empty,
            },
            changes: self.changes.iter().map(|change| Changed { index: selector.index(&change.index), ..change.clone() }).collect(),
            fields: self
                .fields
                .iter()
                .map(|slot| match slot {
                    Slot::Held(held) => Slot::Held(selector.held(held)),
                    other => other.clone(),
                })
                .collect(),
            keys: self.keys.as_ref().map(|GivenKeys { held, texts: (marks, index) }| GivenKeys {
                held: selector.held(held),
                texts: (marks.clone(), selector.index(index)),
            }),
            headers: self.headers.as_ref().map(|held| HeldHeaders { headers: held.headers.clone(), index: selector.index(&held.index) }),
            times: self.times.as_ref().map(|(times, index)| (times.clone(), selector.index(index))),
            tombstones: self.tombstones.as_ref().map(|(marks, index)| (marks.clone(), selector.index(index))),
            kept: self.kept.as_ref().map(|(rows, index)| (rows.clone(), selector.index(index))),
        }
    }

    /// The batch without the rows that `drop` marks.
    pub fn without(&self, drop: &Bitmap) -> Self {
        self.select((0..self.rows as u32).filter(|row| !drop.get(*row as usize)).collect())
    }

    /// The values' bytes with all changes applied. The slots of failed rows are null.
    pub fn encode(&self, format: &dyn Format) -> (Held, Vec<WriteError>) {
        let marks = self.tombstones.as_ref().filter(|(marks, _)| !marks.0.is_empty());
        if let Base::Value(held) = &self.base
            && self.changes.is_empty()
            && marks.is_none()
        {
            return (held.clone(), Vec::new());
        }
        let in_rows = |marks: &Bitmap, index: &Index| match index {
            Some(index) if !marks.0.is_empty() => marks.gather(index),
            _ => marks.clone(),
        };
        let masks: Vec<_> =
            self.changes.iter().map(|change| (in_rows(&change.kept, &change.index), in_rows(&change.removed, &change.index))).collect();
        let changes: Vec<_> = self
            .changes
            .iter()
            .zip(&masks)
            .map(|(change, (kept, removed))| Change {
                path: &change.path,
                column: Indexed { column: &change.column, index: change.index.as_ref().map(|index| index.as_slice()) },
                kept,
                removed,
            })
            .collect();
        let base = match &self.base {
            Base::Value(held) => Some(held.view()),
            Base::Empty => None,
        };
        let encoded = format.encode(base, self.rows, &changes);
        let mut values = encoded.values;
        if let Some((marks, index)) = marks {
            if values.validity.0.is_empty() {
                values.validity = Bitmap::filled(self.rows, true);
            }
            for row in 0..self.rows {
                if marks.get(at(index, row)) {
                    values.validity.clear(row);
                }
            }
        }
        let failed = encoded.failed.into_iter().filter(|failed| !self.is_tombstone(failed.error.row as usize));
        let failed = failed.map(|EncodeError { change, error }| {
            let stage = change.and_then(|change| self.changes.get(change)).map(|change| change.stage);
            WriteError { origin_row: self.origin_row(error.row as usize), stage, error }
        });
        let failed = failed.collect();
        (Held::new(values), failed)
    }

    /// The batch with its changes written into the values' bytes, without the rows where that failed.
    pub fn materialize(&self, format: &dyn Format) -> (Self, Vec<WriteError>) {
        if self.changes.is_empty() && self.tombstones.is_none() && matches!(self.base, Base::Value(_)) {
            return (self.clone(), Vec::new());
        }
        let (values, errors) = self.encode(format);
        let whole = Self { base: Base::Value(values), changes: Vec::new(), tombstones: None, ..self.clone() };
        if errors.is_empty() {
            return (whole, errors);
        }
        let mut failed = Bitmap::default();
        for failure in &errors {
            failed.set(failure.error.row as usize);
        }
        (whole.without(&failed), errors)
    }

    /// Decodes the slots `which` anew from the values' bytes, for all rows. The batch must be materialized.
    pub fn decode(&mut self, format: &dyn Format, slots: &[Wanted], which: &[usize]) {
        let Base::Value(values) = &self.base else { return };
        let wanted: Vec<_> = which.iter().map(|slot| slots[*slot].clone()).collect();
        let decoded = format.decode(values.view(), self.rows, &wanted);
        for (slot, field) in which.iter().zip(decoded.fields) {
            self.fields[*slot] = Slot::Held(Held::of_decoded(field));
        }
    }

    /// Writes new bytes for the rows `changed` of a materialized batch (`values` are all rows'), and brings the decoded fields up to date.
    pub fn replace_values(&mut self, values: Column, changed: &[u32], format: &dyn Format, slots: &[Wanted]) {
        self.base = Base::Value(Held::new(values));
        let Base::Value(values) = &self.base else { return };
        let live: Vec<_> = (0..self.fields.len()).filter(|slot| !matches!(self.fields[*slot], Slot::Stale)).collect();
        if live.is_empty() || changed.is_empty() {
            return;
        }
        let wanted: Vec<_> = live.iter().map(|slot| slots[*slot].clone()).collect();
        let decoded = format.decode(Indexed { column: &values.column, index: Some(changed) }, changed.len(), &wanted);
        let mut places = vec![u32::MAX; self.rows];
        for (place, row) in changed.iter().enumerate() {
            places[*row as usize] = place as u32;
        }
        for (slot, field) in live.into_iter().zip(decoded.fields) {
            let fresh = Held::of_decoded(field);
            let mut builder = ColumnBuilder::new(slots[slot].kind, self.rows);
            let mut errors = BTreeMap::new();
            for (row, place) in places.iter().enumerate() {
                let (held, at) = match &self.fields[slot] {
                    _ if *place != u32::MAX => (Some(&fresh), *place as usize),
                    Slot::Held(old) => (Some(old), row),
                    _ => (None, 0),
                };
                builder.cell(held.map_or(Cell::Null, |held| held.view().cell(at)));
                if let Some(error) = held.and_then(|held| held.error(at)) {
                    errors.insert(row as u32, error.clone());
                }
            }
            let errors = (!errors.is_empty()).then(|| Arc::new(errors));
            self.fields[slot] = Slot::Held(Held { column: Arc::new(builder.finish()), index: None, errors });
        }
    }

    /// Records a field that a stage wrote, in this batch's rows, and brings the decoded fields up to date.
    pub fn write(&mut self, path: &Arc<Path>, stage: usize, column: Column, kept: Bitmap, removed: Bitmap, slots: &[Wanted]) {
        let column = Arc::new(column);
        let plain = kept.0.is_empty() && removed.0.is_empty();
        for (slot, wanted) in slots.iter().enumerate() {
            if wanted.path != **path {
                if wanted.path.is_prefix_of(path) || path.is_prefix_of(&wanted.path) {
                    self.fields[slot] = Slot::Stale;
                }
            } else if wanted.kind != column.kind() {
                self.fields[slot] = Slot::Stale;
            } else if plain {
                self.fields[slot] = Slot::Held(Held { column: column.clone(), index: None, errors: None });
            } else if !matches!(self.fields[slot], Slot::Stale) {
                self.fields[slot] = Slot::Held(self.overlaid(slot, &column, &kept, &removed));
            }
        }
        self.changes.push(Changed { path: path.clone(), stage, column, kept: Arc::new(kept), removed: Arc::new(removed), index: None });
    }

    /// The slot's column where `kept`, nothing where `removed`, else `column`.
    fn overlaid(&self, slot: usize, column: &Column, kept: &Bitmap, removed: &Bitmap) -> Held {
        let old = match &self.fields[slot] {
            Slot::Held(held) => Some(held),
            _ => None,
        };
        let mut builder = ColumnBuilder::new(column.kind(), self.rows);
        let mut errors = BTreeMap::new();
        for row in 0..self.rows {
            if kept.get(row) {
                builder.cell(old.map_or(Cell::Null, |held| held.view().cell(row)));
                if let Some(error) = old.and_then(|held| held.error(row)) {
                    errors.insert(row as u32, error.clone());
                }
            } else if removed.get(row) {
                builder.null();
            } else {
                builder.cell(column.cell(row));
            }
        }
        let errors = (!errors.is_empty()).then(|| Arc::new(errors));
        Held { column: Arc::new(builder.finish()), index: None, errors }
    }

    /// All keys as text, where those of the source have the format `source`. One that is not what it should be stays as it is.
    pub fn text_keys(&self, source: KeyFormat) -> GivenKeys {
        let mut column = ColumnBuilder::new(Type::Bytes, self.rows);
        for row in 0..self.rows {
            match self.key(row) {
                Some(key) => match key::convert(key, self.key_format(row, source), KeyFormat::Text) {
                    Ok(text) => column.bytes(&text),
                    Err(_) => column.bytes(key),
                },
                None => column.null(),
            }
        }
        GivenKeys { held: Held::new(column.finish()), texts: (Arc::new(Bitmap::filled(self.rows, true)), None) }
    }

    /// Interleaves batches of one origin by the record that rows come from, then by the order of the batches. What cannot be written is left out.
    pub fn merge(batches: Vec<Self>, format: &dyn Format, slots: &[Wanted]) -> (Option<Self>, Vec<WriteError>) {
        let mut batches: Vec<_> = batches.into_iter().filter(|batch| batch.rows > 0).collect();
        if batches.len() <= 1 {
            return (batches.pop(), Vec::new());
        }
        let mut errors = Vec::new();
        let parts: Vec<_> = batches
            .iter()
            .map(|batch| {
                let (part, failed) = batch.materialize(format);
                errors.extend(failed);
                part
            })
            .collect();
        let mut order: Vec<(u32, u32, u32)> = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            order.extend((0..part.rows).map(|row| (part.origin_row(row) as u32, place as u32, row as u32)));
        }
        order.sort_unstable();
        let merged = |kind: Type, cell: &dyn Fn(&Self, usize) -> Option<Held>| {
            let columns: Vec<_> = parts.iter().enumerate().map(|(place, part)| cell(part, place)).collect();
            let mut builder = ColumnBuilder::new(kind, order.len());
            let mut failed = BTreeMap::new();
            for (to, (_, place, row)) in order.iter().enumerate() {
                match &columns[*place as usize] {
                    Some(held) => {
                        builder.cell(held.view().cell(*row as usize));
                        if let Some(error) = held.error(*row as usize) {
                            failed.insert(to as u32, error.clone());
                        }
                    }
                    None => builder.null(),
                }
            }
            let errors = (!failed.is_empty()).then(|| Arc::new(failed));
            Held { column: Arc::new(builder.finish()), index: None, errors }
        };
        let base = merged(Type::Bytes, &|part, _| match &part.base {
            Base::Value(held) => Some(held.clone()),
            Base::Empty => None,
        });
        let fields = slots
            .iter()
            .enumerate()
            .map(|(slot, wanted)| {
                if parts.iter().any(|part| matches!(part.fields[slot], Slot::Stale)) {
                    return Slot::Stale;
                }
                Slot::Held(merged(wanted.kind, &|part, _| match &part.fields[slot] {
                    Slot::Held(held) => Some(held.clone()),
                    _ => None,
                }))
            })
            .collect();
        let keys = parts.iter().any(|part| part.keys.is_some()).then(|| {
            let held = merged(Type::Bytes, &|part, _| {
                Some(match &part.keys {
                    Some(keys) => keys.held.clone(),
                    None => Held { column: Arc::new(part.origin.records.keys.clone()), index: part.from.clone(), errors: None },
                })
            });
            let mut texts = Bitmap::default();
            for (to, (_, place, row)) in order.iter().enumerate() {
                if let Some(keys) = &parts[*place as usize].keys
                    && keys.texts.0.get(at(&keys.texts.1, *row as usize))
                {
                    texts.set(to);
                }
            }
            GivenKeys { held, texts: (Arc::new(texts), None) }
        });
        let headers = parts.iter().any(|part| part.headers.is_some()).then(|| {
            let mut builder = crate::record::HeadersBuilder::default();
            for (_, place, row) in &order {
                let (headers, index) = parts[*place as usize].headers();
                for (name, value) in headers.of(at(index, *row as usize)) {
                    builder.push(name, value);
                }
                builder.close();
            }
            HeldHeaders { headers: Arc::new(builder.finish()), index: None }
        });
        let times = parts
            .iter()
            .any(|part| part.times.is_some())
            .then(|| (Arc::new(order.iter().map(|(_, place, row)| parts[*place as usize].time(*row as usize)).collect::<Vec<_>>()), None));
        let kept = parts.iter().any(|part| part.kept.is_some()).then(|| {
            let rows = order.iter().map(|(_, place, row)| parts[*place as usize].kept_row(*row as usize).cloned());
            (Arc::new(rows.collect::<Vec<_>>()), None)
        });
        let from = Some(Arc::new(order.iter().map(|(origin, ..)| *origin).collect::<Vec<_>>()));
        let origin = parts[0].origin.clone();
        let whole = Self {
            rows: order.len(),
            origin,
            from,
            base: Base::Value(base),
            changes: Vec::new(),
            fields,
            keys,
            headers,
            times,
            tombstones: None,
            kept,
        };
        (Some(whole), errors)
    }

    /// The rows as records for a topic: values encoded, keys, headers and timestamps as they stand. The slots of failed rows are null.
    pub fn to_records(&self, values: &Held) -> Records {
        let keys = match &self.keys {
            Some(keys) => (*keys.held.gathered()).clone(),
            None => match &self.from {
                None => self.origin.records.keys.clone(),
                Some(from) => self.origin.records.keys.gather(from),
            },
        };
        let (headers, index) = self.headers();
        let headers = match index {
            None => headers.clone(),
            Some(index) => headers.gather(index),
        };
        let values = match &values.index {
            None => (*values.column).clone(),
            Some(index) => values.column.gather(index),
        };
        Records { timestamps: (0..self.rows).map(|row| self.timestamp(row)).collect(), keys, values, headers }
    }
}

/// A column of nulls.
pub fn nulls(kind: Type, rows: usize) -> Column {
    let mut builder = ColumnBuilder::new(kind, rows);
    for _ in 0..rows {
        builder.null();
    }
    builder.finish()
}

/// Decoded fields of a source, as the slots of its batches.
pub fn slots_of(decoded: Vec<DecodedField>) -> impl Iterator<Item = Slot> {
    decoded.into_iter().map(|field| Slot::Held(Held::of_decoded(field)))
}

/// An empty column of blobs.
pub fn no_blobs() -> Column {
    Column::blobs(Strings::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json::Json;
    use crate::record::RecordsBuilder;

    /// Records of these keys and values, at the offsets 0, 1, 2...
    fn batch(records: &[(&str, &str)]) -> Batch {
        let mut builder = RecordsBuilder::default();
        for (key, value) in records {
            builder.push(7, Some(key.as_bytes()), Some(value.as_bytes()), []);
        }
        let records = builder.finish();
        let rows = records.len();
        let values = Held::new(records.values.clone());
        let origin = Origin {
            source: 0,
            partitions: vec![0; rows],
            offsets: (0..rows as i64).collect(),
            times: records.timestamps.clone(),
            stream_times: vec![i64::MIN; rows],
            records,
            carried: None,
        };
        Batch::new(Arc::new(origin), values, Vec::new())
    }

    fn write(batch: &mut Batch, path: &str, stage: usize) {
        let mut column = ColumnBuilder::new(Type::Int, batch.rows);
        (0..batch.rows as i64).for_each(|row| column.int(row));
        batch.write(&Arc::new(Path::parse(path).unwrap()), stage, column.finish(), Bitmap::default(), Bitmap::default(), &[]);
    }

    #[test]
    fn what_cannot_be_written_is_put_to_the_stage_that_wrote_it() {
        let mut rows = batch(&[("k", "{}"), ("k", r#"{"a":1}"#), ("k", "{"), ("k", r#"{"b":[]}"#)]).select(vec![1, 2, 3]);
        for (path, stage) in [("x", 2), ("a.b", 4), ("b.a", 5), ("y", 6)] {
            write(&mut rows, path, stage);
        }
        let (_, errors) = rows.encode(&Json);
        let found: Vec<_> = errors.iter().map(|error| (error.origin_row, error.stage, error.error.code)).collect();
        assert_eq!(found, [(1, Some(4), "not_an_object"), (2, Some(2), "not_json"), (3, Some(5), "not_an_object")]);
    }

    #[test]
    fn merged_keys_keep_the_format_in_which_they_came() {
        let whole = batch(&[("1", "{}"), ("2", "{}"), ("3", "{}")]);
        let mut given = whole.select(vec![0, 2]);
        let mut keys = ColumnBuilder::new(Type::Bytes, 2);
        keys.bytes(b"one");
        keys.bytes(b"three");
        given.keys = Some(GivenKeys { held: Held::new(keys.finish()), texts: (Arc::new(Bitmap::filled(2, true)), None) });
        let merge = |parts| Batch::merge(parts, &Json, &[]).0.unwrap();
        let once = merge(vec![given.clone(), whole.clone()]);
        // What is merged may be selected from and merged again.
        let again = merge(vec![once.select(vec![1, 2, 3, 4]), given]);
        let keys = |batch: &Batch| -> Vec<_> {
            let key = |row| (String::from_utf8(batch.key(row).unwrap().to_vec()).unwrap(), batch.key_format(row, KeyFormat::Int64));
            (0..batch.rows).map(key).map(|(key, format)| format!("{key} {format:?}")).collect()
        };
        assert_eq!(keys(&whole), ["1 Int64", "2 Int64", "3 Int64"]);
        assert_eq!(keys(&once), ["one Text", "1 Int64", "2 Int64", "three Text", "3 Int64"]);
        assert_eq!(keys(&again), ["1 Int64", "one Text", "2 Int64", "three Text", "3 Int64", "three Text"]);
    }
}
