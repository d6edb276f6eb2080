//! One batch: the stored rows of its groups are read once, every record is taken in, and the changed rows are written once.

use crate::group::{Group, window_prefix};
use crate::plan::{Emit, Plan};
use crate::value::Value;
use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use millstream_guest::verdict::{Derived, Outcome, Reject, Verdict, Written};
use millstream_guest::{Batch, state};
use std::collections::HashMap;

/// The stage's store of groups.
pub const STORE: u32 = 0;

/// A group that the batch meets.
struct Touched {
    /// Key of the stored row: the window's start, if there is one, and the group's key.
    key: Vec<u8>,
    stored: Vec<Value>,
    changed: bool,
}

/// What goes out, column by column.
pub struct Results {
    source: Vec<u32>,
    keys: ColumnBuilder,
    times: Vec<i64>,
    fields: Vec<ColumnBuilder>,
}

/// Where the group's fields of a result come from.
pub enum Fields<'a> {
    /// The first columns of a batch, at a row.
    Row(&'a [Column], usize),
    Values(&'a [Value]),
}

impl Fields<'_> {
    fn push(&self, place: usize, column: &mut ColumnBuilder) {
        match self {
            Self::Row(columns, row) => column.cell(columns[place].cell(*row)),
            Self::Values(values) => values[place].push(column),
        }
    }
}

impl Plan {
    pub fn process(&self, batch: &Batch) -> Result<Verdict, String> {
        if batch.fields.len() != self.reads.len() || batch.timestamps.len() != batch.rows {
            return Err("the batch is not what was asked for".to_owned());
        }
        if self.is_session() {
            return self.process_sessions(batch);
        }
        let mut rejects = Vec::new();
        let (mut touched, place) = self.groups(batch, &mut rejects);
        self.load(&mut touched);
        let mut results = self.results(if self.emit == Emit::Updates { batch.rows } else { 0 });
        for (row, group) in place.into_iter().enumerate() {
            let Some(group) = group.and_then(|group| touched.get_mut(group)) else { continue };
            match self.refusal(batch, row, &group.stored) {
                Some(reason) => rejects.push(Reject { row: row as u32, reason }),
                None => {
                    group.changed = true;
                    self.take_in(batch, row, &mut group.stored);
                    if self.emit == Emit::Updates {
                        let window = self.window.and_then(|_| self.window_of(batch, row));
                        let prefix = if self.window.is_some() { window_prefix(0).len() } else { 0 };
                        let fields = Fields::Row(&batch.fields, row);
                        self.give_out(row as u32, &group.key[prefix..], &fields, window, &group.stored, &mut results);
                    }
                }
            }
        }
        self.save(&touched);
        // A result of a record has the record's key, which may be no text.
        let keys = matches!(self.group, Group::Fields(_));
        Ok(self.verdict(results, keys, rejects))
    }

    pub fn results(&self, rows: usize) -> Results {
        Results {
            source: Vec::with_capacity(rows),
            keys: ColumnBuilder::new(Type::Bytes, rows),
            times: Vec::with_capacity(rows),
            fields: self.result_types().map(|kind| ColumnBuilder::new(kind, rows)).collect(),
        }
    }

    /// `keys`: whether the results have keys of their own.
    pub fn verdict(&self, results: Results, keys: bool, mut rejects: Vec<Reject>) -> Verdict {
        rejects.sort_by_key(|reject| reject.row);
        if results.source.is_empty() {
            return Verdict { outcome: Outcome::Derive(Vec::new()), rejects };
        }
        let field = |column: ColumnBuilder| Written { column: column.finish(), kept: Bitmap::default(), removed: Bitmap::default() };
        let derived = Derived {
            output: 0,
            source: results.source,
            fields: results.fields.into_iter().map(field).collect(),
            timestamps: Some(results.times),
            keys: keys.then(|| results.keys.finish()),
            values: None,
            headers: None,
            leaves: None,
            tombstones: Bitmap::default(),
        };
        Verdict { outcome: Outcome::Derive(vec![derived]), rejects }
    }

    fn result_types(&self) -> impl Iterator<Item = Type> {
        let window = self.window.iter().flat_map(|_| [Type::Int, Type::Int]);
        self.group_types().chain(window).chain(self.results.iter().map(|result| result.computed.result_type().0))
    }

    /// The window of a row: start and end.
    fn window_of(&self, batch: &Batch, row: usize) -> Option<(i64, i64)> {
        let first = self.group_reads();
        match (batch.fields.get(first)?.cell(row), batch.fields.get(first + 1)?.cell(row)) {
            (Cell::Int(start), Cell::Int(end)) => Some((start, end)),
            _ => None,
        }
    }

    /// The groups of the batch in the order in which they come, and the group of each row.
    fn groups(&self, batch: &Batch, rejects: &mut Vec<Reject>) -> (Vec<Touched>, Vec<Option<usize>>) {
        let mut touched: Vec<Touched> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut place = Vec::with_capacity(batch.rows);
        let mut key = Vec::new();
        for row in 0..batch.rows {
            key.clear();
            if self.window.is_some() {
                let Some((start, _)) = self.window_of(batch, row) else {
                    rejects.push(Reject { row: row as u32, reason: "the record has no window".to_owned() });
                    place.push(None);
                    continue;
                };
                key.extend_from_slice(&window_prefix(start));
            }
            let group = self.group.write(&batch.fields[..self.group_reads()], row, &mut key);
            place.push(match group {
                Err(reason) => {
                    rejects.push(Reject { row: row as u32, reason });
                    None
                }
                Ok(()) => Some(match places.get(&key) {
                    Some(place) => *place,
                    None => {
                        touched.push(Touched { key: key.clone(), stored: Vec::new(), changed: false });
                        places.insert(key.clone(), touched.len() - 1);
                        touched.len() - 1
                    }
                }),
            });
        }
        (touched, place)
    }

    fn keys_of<'a>(&self, groups: impl Iterator<Item = &'a Touched>) -> Column {
        let mut keys = ColumnBuilder::new(self.store_key(), 0);
        groups.for_each(|group| keys.bytes(&group.key));
        keys.finish()
    }

    fn load(&self, touched: &mut [Touched]) {
        if touched.is_empty() {
            return;
        }
        let found = state::get_many(STORE, &self.keys_of(touched.iter()));
        for (row, group) in touched.iter_mut().enumerate() {
            group.stored = if found.present.get(row) {
                found.fields.iter().map(|column| Value::of(column.cell(row))).collect()
            } else {
                self.start(i64::MIN)
            };
        }
    }

    /// The stored row of a group without records; of a session that a record of this time begins.
    pub fn start(&self, time: i64) -> Vec<Value> {
        let times = std::iter::once(Value::Int(time)).chain(self.is_session().then_some(Value::Int(time)));
        times.chain(self.results.iter().flat_map(|result| result.computed.start())).collect()
    }

    fn save(&self, touched: &[Touched]) {
        let changed: Vec<_> = touched.iter().filter(|group| group.changed).collect();
        self.put(self.keys_of(changed.iter().copied()), changed.iter().map(|group| group.stored.as_slice()));
    }

    /// Writes rows.
    pub fn put<'a>(&self, keys: Column, rows: impl ExactSizeIterator<Item = &'a [Value]> + Clone) {
        if rows.len() == 0 {
            return;
        }
        let columns = self.stored.iter().enumerate().map(|(place, field)| {
            let mut column = ColumnBuilder::new(field.kind, rows.len());
            rows.clone().for_each(|row| row[place].push(&mut column));
            column.finish()
        });
        state::put_many(STORE, keys, columns.collect());
    }

    fn cell<'a>(&self, batch: &'a Batch, read: Option<usize>, row: usize) -> Cell<'a> {
        read.map_or(Cell::Null, |read| batch.fields[read].cell(row))
    }

    /// Why a record cannot be taken in. Names the field, never the value.
    pub fn refusal(&self, batch: &Batch, row: usize, stored: &[Value]) -> Option<String> {
        self.results.iter().find_map(|result| {
            let reason = result.computed.refuses(&stored[result.columns.clone()], self.cell(batch, result.read, row))?;
            Some(format!("`{}`: {reason}", result.name))
        })
    }

    pub fn take_in(&self, batch: &Batch, row: usize, stored: &mut [Value]) {
        stored[0] = Value::Int(stored[0].int().max(batch.timestamps[row]));
        for result in &self.results {
            result.computed.add(&mut stored[result.columns.clone()], self.cell(batch, result.read, row));
        }
    }

    /// A result of row `source`, for a group with this key.
    pub fn give_out(
        &self,
        source: u32,
        key: &[u8],
        group: &Fields<'_>,
        window: Option<(i64, i64)>,
        stored: &[Value],
        results: &mut Results,
    ) {
        let highest = stored[0].int();
        results.source.push(source);
        results.keys.bytes(key);
        // A session's end is the time of its last record.
        results.times.push(window.filter(|_| !self.is_session()).map_or(highest, |(_, end)| highest.min(end - 1)));
        let mut fields = results.fields.iter_mut();
        if let Group::Fields(names) = &self.group {
            for (place, field) in (0..names.len()).zip(&mut fields) {
                group.push(place, field);
            }
        }
        if let Some((start, end)) = window {
            for (time, field) in [start, end].into_iter().zip(&mut fields) {
                field.int(time);
            }
        }
        for (result, field) in self.results.iter().zip(fields) {
            result.computed.result(&stored[result.columns.clone()]).push(field);
        }
    }
}
