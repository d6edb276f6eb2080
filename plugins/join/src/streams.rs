//! Two streams: each pair of a left and a right record of a key that are within a time of each other gives a result when the later of the two comes.
//! In a left join, a left record that has had no partner gives its own when it is closed.
//!
//! A record is kept until it is closed: when stream time has passed its time + within + grace. What is closed has no partners any more, whether its row is
//! still there or not, so that results do not depend on when rows are dropped.

use crate::config::Join;
use crate::index::{self, At, Entry, index_key, last_of, row_key, split, stretches};
use crate::plan::{LEFT, Plan, RIGHT};
use crate::results::{Fields, Result, keys_of, rows_of, side_and_key};
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::describe::Window;
use millstream_guest::verdict::{Reject, Verdict};
use millstream_guest::{Batch, state, windows};
use std::borrow::Cow;
use std::collections::HashMap;

/// The stores of the sides are 0 and 1.
const INDEX: u32 = 2;

/// A record that takes part.
struct Member<'a> {
    row: u32,
    side: usize,
    key: Cow<'a, [u8]>,
    /// Places of the two stretches that hold its partners, and of the one of them that holds itself.
    stretches: [usize; 2],
    own: usize,
}

/// A stretch of a key's records that the batch meets.
struct Stretch {
    /// Its key in the index.
    key: Vec<u8>,
    entries: [Vec<Entry>; 2],
    changed: bool,
}

/// What a batch writes and asks for.
#[derive(Default)]
struct Rows {
    /// By side: keys of rows that are kept and wanted.
    wanted: [Vec<Vec<u8>>; 2],
    /// By side: keys of new rows, and where they stand in the batch.
    new: [Vec<(Vec<u8>, u32)>; 2],
}

impl Plan {
    pub fn process_streams(&self, window: Window, batch: &Batch) -> std::result::Result<Verdict, String> {
        let stream_times = windows::stream_times();
        if stream_times.len() != batch.rows {
            return Err("the host does not tell the stream time of each row".to_owned());
        }
        let (mut members, mut late, mut rejects, mut results) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut found, mut places): (Vec<Stretch>, HashMap<Vec<u8>, usize>) = (Vec::new(), HashMap::new());
        for (row, before) in stream_times.iter().enumerate() {
            let (time, number) = (batch.timestamps[row], row as u32);
            match side_and_key(self, batch, row) {
                Err(reason) => rejects.push(Reject { row: number, reason }),
                // It meets nobody.
                Ok((LEFT, None)) if self.join == Join::Left => {
                    results.push(Result { source: number, sides: [Some(At::Batch(number)), None], time, tombstone: false });
                }
                Ok((_, None)) => {}
                Ok(_) if time < window.open_from(*before) => late.push(number),
                Ok((side, Some(key))) => {
                    let lasts = stretches(time, window.size);
                    let stretches = lasts.map(|last| {
                        *places.entry(index_key(last, &key)).or_insert_with_key(|key| {
                            found.push(Stretch { key: key.clone(), entries: [Vec::new(), Vec::new()], changed: false });
                            found.len() - 1
                        })
                    });
                    let own = stretches[usize::from(lasts[0] != last_of(time, window.size))];
                    members.push(Member { row: number, side, key, stretches, own });
                }
            }
        }
        load(&mut found);
        let mut rows = Rows::default();
        for member in &members {
            let open_from = window.open_from(stream_times[member.row as usize]);
            self.meet(member, batch.timestamps[member.row as usize], window.size, open_from, &mut found, &mut rows, &mut results);
        }
        let kept = [LEFT, RIGHT].map(|side| match rows.wanted[side].as_slice() {
            [] => Vec::new(),
            wanted => state::get_many(side as u32, &keys_of(Type::Bytes, wanted.iter())).fields,
        });
        save(self, batch, &found, &rows);
        if !late.is_empty() {
            windows::late(&late);
        }
        let fields = Fields { plan: self, batch: &batch.fields, found: [&kept[LEFT], &kept[RIGHT]] };
        // Those without a key were found first.
        results.sort_by_key(|result| result.source);
        let key = (!self.own_keys).then_some(|result: &Result| {
            let member = members.binary_search_by_key(&result.source, |member| member.row).ok()?;
            Some(&*members[member].key)
        });
        Ok(fields.verdict(&results, key, rejects))
    }

    /// Pairs a record with those that came before it, and puts it among them.
    #[allow(clippy::too_many_arguments)]
    fn meet(
        &self,
        member: &Member<'_>,
        time: i64,
        within: i64,
        open_from: i64,
        found: &mut [Stretch],
        rows: &mut Rows,
        results: &mut Vec<Result>,
    ) {
        let (side, other) = (member.side, 1 - member.side);
        let (from, to) = (time.saturating_sub(within).max(open_from), time.saturating_add(within));
        let mut matched = false;
        for stretch in member.stretches {
            let stretch = &mut found[stretch];
            let entries = &mut stretch.entries[other];
            let first = entries.partition_point(|entry| entry.time < from);
            for entry in entries[first..].iter_mut().take_while(|entry| entry.time <= to) {
                matched = true;
                if entry.at == At::Kept {
                    entry.at = At::Found(rows.wanted[other].len() as u32);
                    rows.wanted[other].push(row_key(entry.time, &member.key, entry.number));
                }
                if self.join == Join::Left && other == LEFT && !entry.matched {
                    entry.matched = true;
                    stretch.changed = true;
                }
                let mut sides = [Some(entry.at); 2];
                sides[side] = Some(At::Batch(member.row));
                results.push(Result { source: member.row, sides, time: time.max(entry.time), tombstone: false });
            }
        }
        let own = &mut found[member.own];
        let number = index::insert(&mut own.entries[side], time, matched && self.join == Join::Left, At::Batch(member.row));
        own.changed = true;
        rows.new[side].push((row_key(time, &member.key, number), member.row));
    }

    /// Left records of a left join that are closed: those without a partner give a result.
    pub fn alone(&self, store: u32, keys: &Column, fields: &[Column]) -> std::result::Result<Verdict, String> {
        let (Some(window), LEFT) = (self.window, store as usize) else { return Err("the rows are not what was asked for".to_owned()) };
        let broken =
            |row: usize| format!("the row {row} is not one of this plugin's: was the stage changed? start the pipeline under another name");
        let mut closed = Vec::with_capacity(rows_of(keys));
        let (mut found, mut places): (Vec<Stretch>, HashMap<Vec<u8>, usize>) = (Vec::new(), HashMap::new());
        for row in 0..rows_of(keys) {
            let (time, key, number) = keys.bytes(row).and_then(split).ok_or_else(|| broken(row))?;
            let stretch = *places.entry(index_key(last_of(time, window.size), key)).or_insert_with_key(|key| {
                found.push(Stretch { key: key.clone(), entries: [Vec::new(), Vec::new()], changed: false });
                found.len() - 1
            });
            closed.push((time, key, number, stretch));
        }
        load(&mut found);
        let mut results = Vec::new();
        for (row, (time, _, number, stretch)) in closed.iter().enumerate() {
            let entries = &found[*stretch].entries[LEFT];
            let first = entries.partition_point(|entry| entry.time < *time);
            let entry = entries[first..].iter().take_while(|entry| entry.time == *time).find(|entry| entry.number == *number);
            if !entry.ok_or_else(|| broken(row))?.matched {
                results.push(Result { source: row as u32, sides: [Some(At::Found(row as u32)), None], time: *time, tombstone: false });
            }
        }
        let fields = Fields { plan: self, batch: &[], found: [fields, &[]] };
        Ok(fields.verdict(&results, Some(|result: &Result| Some(closed[result.source as usize].1)), Vec::new()))
    }
}

/// Fills the stretches that a batch meets.
fn load(found: &mut [Stretch]) {
    if found.is_empty() {
        return;
    }
    let rows = state::get_many(INDEX, &keys_of(Type::Bytes, found.iter().map(|stretch| &stretch.key)));
    for (row, stretch) in found.iter_mut().enumerate().filter(|(row, _)| rows.present.get(*row)) {
        stretch.entries = [LEFT, RIGHT].map(|side| match rows.fields[side].cell(row) {
            Cell::Blob(bytes) => index::read(bytes),
            _ => Vec::new(),
        });
    }
}

/// Writes the batch's records, and the stretches that changed.
fn save(plan: &Plan, batch: &Batch, found: &[Stretch], rows: &Rows) {
    for side in [LEFT, RIGHT].into_iter().filter(|side| !rows.new[*side].is_empty()) {
        let new = &rows.new[side];
        let at: Vec<u32> = new.iter().map(|(_, row)| *row).collect();
        let fields = plan.sides[side].reads.iter().map(|read| batch.fields[*read].gather(&at)).collect();
        state::put_many(side as u32, keys_of(Type::Bytes, new.iter().map(|(key, _)| key)), fields);
    }
    let changed: Vec<&Stretch> = found.iter().filter(|stretch| stretch.changed).collect();
    if changed.is_empty() {
        return;
    }
    let lists = [LEFT, RIGHT].map(|side| {
        let mut lists = ColumnBuilder::new(Type::Bytes, changed.len());
        changed.iter().for_each(|stretch| lists.bytes(&index::write(&stretch.entries[side])));
        lists.finish()
    });
    state::put_many(INDEX, keys_of(Type::Bytes, changed.iter().map(|stretch| &stretch.key)), lists.into());
}
