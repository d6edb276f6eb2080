//! Two tables: the last record of a key is its row. Each change of a row of one side gives the key's new result.

use crate::config::Join;
use crate::index::At;
use crate::plan::{LEFT, Plan, RIGHT};
use crate::results::{Fields, Result, keys_of, side_and_key};
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::verdict::{Reject, Verdict};
use millstream_guest::{Batch, state};
use std::borrow::Cow;
use std::collections::HashMap;

const STORE: u32 = 0;

/// A key that the batch meets: the row of each side and its time.
struct Touched<'a> {
    key: Cow<'a, [u8]>,
    rows: [Option<(At, i64)>; 2],
    changed: bool,
}

impl Plan {
    pub fn process_tables(&self, batch: &Batch) -> std::result::Result<Verdict, String> {
        let Some(values) = &batch.values else { return Err("the host does not tell which records delete".to_owned()) };
        let (mut touched, mut places): (Vec<Touched<'_>>, HashMap<Cow<'_, [u8]>, usize>) = (Vec::new(), HashMap::new());
        let (mut members, mut rejects) = (Vec::new(), Vec::new());
        for row in 0..batch.rows {
            let keyed = side_and_key(self, batch, row)
                .and_then(|(side, key)| Ok((side, key.ok_or_else(|| "the record has no key, so it is no row of a table".to_owned())?)));
            match keyed {
                Err(reason) => rejects.push(Reject { row: row as u32, reason }),
                Ok((side, key)) => {
                    let place = *places.entry(key).or_insert_with_key(|key| {
                        touched.push(Touched { key: key.clone(), rows: [None; 2], changed: false });
                        touched.len() - 1
                    });
                    members.push((row, side, place));
                }
            }
        }
        let found = self.load_tables(&mut touched);
        let mut results = Vec::with_capacity(members.len());
        for (row, side, place) in members {
            let (touched, time, deletes) = (&mut touched[place], batch.timestamps[row], values.is_null(row));
            let old = std::mem::replace(&mut touched.rows[side], (!deletes).then_some((At::Batch(row as u32), time)));
            touched.changed = true;
            let other = touched.rows[1 - side];
            let left_alone = self.join == Join::Left && side == LEFT;
            // A row that nothing stood beside had no result; a left one that was not there neither.
            if other.is_none() && !(left_alone && !(deletes && old.is_none())) {
                continue;
            }
            let tombstone = deletes && (side == LEFT || self.join == Join::Inner);
            results.push(Result {
                source: row as u32,
                sides: touched.rows.map(|row| row.map(|(at, _)| at).filter(|_| !tombstone)),
                time: other.map_or(time, |(_, other)| time.max(other)),
                tombstone,
            });
        }
        let of_side = |side: usize| {
            let first = self.first_column(side) + 1;
            found.get(first..first + self.sides[side].reads.len()).unwrap_or_default()
        };
        let fields = Fields { plan: self, batch: &batch.fields, found: [of_side(LEFT), of_side(RIGHT)] };
        self.save_tables(&touched, &fields);
        let key = (!self.own_keys).then_some(|result: &Result| match batch.fields[self.sides[LEFT].key].cell(result.source as usize) {
            Cell::Text(text) => Some(text.as_bytes()),
            _ => None,
        });
        Ok(fields.verdict(&results, key, rejects))
    }

    /// Where the columns of a side begin in a stored row: with its time.
    fn first_column(&self, side: usize) -> usize {
        if side == LEFT { 0 } else { 1 + self.sides[LEFT].reads.len() }
    }

    /// Fills the keys that a batch meets; answers with the columns of what was found.
    fn load_tables(&self, touched: &mut [Touched<'_>]) -> Vec<Column> {
        if touched.is_empty() {
            return Vec::new();
        }
        let found = state::get_many(STORE, &keys_of(self.table_key(), touched.iter().map(|touched| &touched.key)));
        for (row, touched) in touched.iter_mut().enumerate().filter(|(row, _)| found.present.get(*row)) {
            touched.rows = [LEFT, RIGHT].map(|side| match found.fields[self.first_column(side)].cell(row) {
                Cell::Int(time) => Some((At::Found(row as u32), time)),
                _ => None,
            });
        }
        found.fields
    }

    fn save_tables(&self, touched: &[Touched<'_>], fields: &Fields<'_>) {
        let (gone, changed): (Vec<_>, Vec<_>) =
            touched.iter().filter(|touched| touched.changed).partition(|touched| touched.rows.iter().all(Option::is_none));
        if !gone.is_empty() {
            state::delete_many(STORE, &keys_of(self.table_key(), gone.iter().map(|touched| &touched.key)));
        }
        if changed.is_empty() {
            return;
        }
        let mut columns = Vec::new();
        for side in [LEFT, RIGHT] {
            let mut times = ColumnBuilder::new(Type::Int, changed.len());
            changed.iter().for_each(|touched| times.cell(touched.rows[side].map_or(Cell::Null, |(_, time)| Cell::Int(time))));
            columns.push(times.finish());
            for (column, read) in self.sides[side].reads.iter().enumerate() {
                let mut cells = ColumnBuilder::new(self.reads[*read].kind, changed.len());
                changed.iter().for_each(|touched| cells.cell(fields.cell(side, column, touched.rows[side].map(|(at, _)| at))));
                columns.push(cells.finish());
            }
        }
        state::put_many(STORE, keys_of(self.table_key(), changed.iter().map(|touched| &touched.key)), columns);
    }
}
