//! One batch: what changes is found first, and only then, if there is anything, an answer is built.

use crate::Mask;
use crate::json_text::RefusedName;
use crate::plan::{Scope, Target};
use crate::rule::Active;
use millstream_guest::Batch;
use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Strings, Type, Values};
use millstream_guest::headers::{Headers, HeadersBuilder};
use millstream_guest::verdict::{Derived, Outcome, Reject, ReplacedLeaves, Verdict, Written};
use std::collections::BTreeMap;

const NAME_OF_MEMBER: &str = "the name of a member holds a card number, and names are not rewritten";
const NAME_OF_HEADER: &str = "the name of a header holds a card number, and names are not rewritten";
const NAME_IN_KEY: &str = "the name of a member in the key holds a card number, and names are not rewritten";
const NAME_IN_HEADER: &str = "the name of a member in a header's value holds a card number, and names are not rewritten";
const BINARY_KEY: &str = "the key is a binary number and a card number, and has no room for the masked one";

/// Reasons by row.
type Rejected = BTreeMap<usize, &'static str>;
/// New bytes by row, or by entry of the headers.
type Changed = BTreeMap<usize, Vec<u8>>;

impl Mask {
    pub fn mask(&mut self, batch: &Batch) -> Result<Verdict, String> {
        let mut rejected = Rejected::new();
        let keys = match &batch.keys {
            Some(keys) if self.plan.reads_key() => self.change_keys(keys, batch.rows, &mut rejected),
            _ => Changed::new(),
        };
        let headers = match &batch.headers {
            Some(headers) if self.plan.reads_headers() => self.change_headers(headers, batch.rows, &mut rejected),
            _ => Changed::new(),
        };
        let leaves = self.change_leaves(batch, &mut rejected)?;
        let rejects = rejected.iter().map(|(row, reason)| Reject { row: *row as u32, reason: (*reason).to_owned() }).collect();
        let rows = 0..batch.rows as u32;
        let source: Vec<u32> =
            if rejected.is_empty() { rows.collect() } else { rows.filter(|row| !rejected.contains_key(&(*row as usize))).collect() };
        let (fields, fields_changed) = self.change_fields(batch, &source)?;
        if keys.is_empty() && headers.is_empty() && leaves.entries.is_empty() && !fields_changed {
            return Ok(Verdict { outcome: Outcome::All, rejects });
        }
        let derived = Derived {
            output: 0,
            fields,
            timestamps: None,
            keys: batch.keys.as_ref().filter(|_| !keys.is_empty()).map(|old| new_keys(old, &keys, &source)),
            values: None,
            headers: batch.headers.as_ref().filter(|_| !headers.is_empty()).map(|old| new_headers(old, &headers, &source)),
            leaves: (!leaves.entries.is_empty()).then_some(leaves),
            tombstones: Bitmap::default(),
            source,
        };
        Ok(Verdict { outcome: Outcome::Derive(vec![derived]), rejects })
    }

    fn rules(&self, holds: impl Fn(&Scope) -> bool) -> Vec<usize> {
        (0..self.plan.scopes.len()).filter(|rule| holds(&self.plan.scopes[*rule])).collect()
    }

    fn change_keys(&self, keys: &Column, rows: usize, rejected: &mut Rejected) -> Changed {
        let set = self.rules(|scope| scope.everything || scope.key);
        let mut changed = Changed::new();
        if self.plan.key == Type::Int {
            for row in 0..rows {
                if binary_number(keys.bytes(row)).is_some_and(|number| self.actions.finds_card(&set, number.to_string().as_bytes())) {
                    rejected.insert(row, BINARY_KEY);
                }
            }
            return changed;
        }
        let active = self.actions.active_in_bytes(data(keys));
        if !set.iter().any(|rule| active[*rule]) {
            return changed;
        }
        let shortest = self.actions.shortest(&active);
        if longest(keys) < shortest {
            return changed;
        }
        for row in 0..rows {
            let Some(key) = keys.bytes(row).filter(|key| key.len() >= shortest) else { continue };
            match self.actions.change_bytes(&set, &active, key, self.plan.key == Type::Json) {
                Ok(Some(bytes)) => drop(changed.insert(row, bytes)),
                Ok(None) => {}
                Err(RefusedName) => drop(rejected.insert(row, NAME_IN_KEY)),
            }
        }
        changed
    }

    fn change_headers(&self, headers: &Headers, rows: usize, rejected: &mut Rejected) -> Changed {
        let everywhere = self.rules(|scope| scope.everything);
        let named = self.plan.scopes.iter().any(|scope| !scope.headers.is_empty());
        let active = self.actions.active_in_bytes(data(&headers.values));
        let mut changed = Changed::new();
        let names_are_safe = !crate::card::may_hold_card(&headers.names.data);
        if names_are_safe && !active.contains(&true) {
            return changed;
        }
        for row in 0..rows {
            for entry in headers.entries(row) {
                let name = headers.names.get(entry);
                if !names_are_safe && self.actions.finds_card(&everywhere, name) {
                    rejected.insert(row, NAME_OF_HEADER);
                }
                let Some(value) = headers.values.bytes(entry) else { continue };
                let set = match named {
                    false => &everywhere,
                    true => &self.rules(|scope| scope.everything || scope.headers.iter().any(|named| named.as_bytes() == name)),
                };
                match self.actions.change_bytes(set, &active, value, false) {
                    Ok(Some(bytes)) => drop(changed.insert(entry, bytes)),
                    Ok(None) => {}
                    Err(RefusedName) => drop(rejected.insert(row, NAME_IN_HEADER)),
                }
            }
        }
        changed
    }

    fn change_leaves(&mut self, batch: &Batch, rejected: &mut Rejected) -> Result<ReplacedLeaves, String> {
        let mut entries = Vec::new();
        let mut values = Strings::default();
        let nothing = ReplacedLeaves { entries: Vec::new(), values: Strings::default() };
        let Some(leaves) = batch.leaves.as_ref().filter(|_| self.plan.leaves) else { return Ok(nothing) };
        if leaves.offsets.len() != batch.rows + 1 {
            return Err("the batch's leaves have another count of rows than the batch".to_owned());
        }
        let active = self.actions.active(&leaves.values.data);
        let names_are_safe = !self.actions.has_cards() || !crate::card::may_hold_card(&leaves.paths.data);
        if names_are_safe && !active.contains(&true) {
            return Ok(nothing);
        }
        // Most leaves are told by their length alone; only if names are suspect must each be looked at.
        let shortest = if names_are_safe { self.actions.shortest(&active) } else { 0 };
        let for_all = self.leaf_rules.for_all();
        let cards = for_all.as_ref().and_then(|set| self.actions.only_cards(set, &active));
        if let Some(cards) = cards
            && names_are_safe
            && rejected.is_empty()
        {
            for entry in self.suspects.of(&leaves.values) {
                if let Some(text) = cards.mask(leaves.values.get(*entry as usize)) {
                    entries.push(*entry);
                    values.push(&text);
                }
            }
            return Ok(ReplacedLeaves { entries, values });
        }
        for row in 0..batch.rows {
            if !rejected.is_empty() && rejected.contains_key(&row) {
                continue;
            }
            let before = (entries.len(), values.data.len());
            let first = leaves.offsets[row] as usize;
            let end = leaves.offsets[row + 1] as usize;
            for (place, ends) in leaves.values.offsets[first..=end].windows(2).enumerate() {
                let (from, to) = (ends[0] as usize, ends[1] as usize);
                if to - from < shortest {
                    continue;
                }
                let entry = first + place;
                let set = match &for_all {
                    Some(set) => set,
                    None => self.leaf_rules.of(place, leaves.paths.get(entry)),
                };
                if !names_are_safe && self.actions.finds_card(set, leaves.paths.get(entry)) {
                    rejected.insert(row, NAME_OF_MEMBER);
                    break;
                }
                let value = &leaves.values.data[from..to];
                // Nothing stands there; or a text that reads so, which tells no more.
                if matches!(value, b"null" | b"{}" | b"[]") {
                    continue;
                }
                if let Some(text) = self.actions.change_text(set, &active, value) {
                    entries.push(entry as u32);
                    values.push(&text);
                }
            }
            if rejected.contains_key(&row) {
                entries.truncate(before.0);
                values.offsets.truncate(before.0 + 1);
                values.data.truncate(before.1);
            }
        }
        Ok(ReplacedLeaves { entries, values })
    }

    /// The columns of the targets for the rows of `source`, and whether any row differs from the input.
    fn change_fields(&self, batch: &Batch, source: &[u32]) -> Result<(Vec<Written>, bool), String> {
        let mut any = false;
        let mut fields = Vec::with_capacity(self.plan.targets.len());
        for (place, target) in self.plan.targets.iter().enumerate() {
            let column = batch.fields.get(place).ok_or("the batch has fewer fields than were asked for")?;
            let active = match &column.values {
                Values::Texts(strings) => self.actions.active(&strings.data),
                _ => vec![true; self.plan.scopes.len()],
            };
            let mut out = ColumnBuilder::new(Type::Text, source.len());
            let mut kept = Bitmap::filled(source.len(), true);
            for (to, row) in source.iter().enumerate() {
                match self.change_cell(target, &active, column.cell(*row as usize)) {
                    Some(text) => {
                        out.bytes(&text);
                        kept.clear(to);
                        any = true;
                    }
                    None => out.null(),
                }
            }
            fields.push(Written { column: out.finish(), kept, removed: Bitmap::default() });
        }
        Ok((fields, any))
    }

    /// The new text of a field; None if it stays. Numbers and booleans always become texts, so that the field has one type.
    fn change_cell(&self, target: &Target, active: &Active, cell: Cell<'_>) -> Option<Vec<u8>> {
        /// From here on a double no longer holds every digit, and Luhn's check says nothing.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let text = match cell {
            Cell::Null | Cell::Blob(_) => return None,
            Cell::Text(text) | Cell::Json(text) => return self.actions.change_text(&target.rules, active, text.as_bytes()),
            Cell::Bool(value) => value.to_string(),
            Cell::Int(value) => value.to_string(),
            Cell::Float(value) => {
                let text = value.to_string();
                match self.actions.card_rule(&target.rules) {
                    Some(cards) if value.abs() >= EXACT => String::from_utf8_lossy(&cards.hide_number(text.as_bytes())).into_owned(),
                    _ => text,
                }
            }
        };
        Some(self.actions.change_text(&target.rules, active, text.as_bytes()).unwrap_or_else(|| text.into_bytes()))
    }
}

/// The bytes of a column's longest text.
fn longest(column: &Column) -> usize {
    match &column.values {
        Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => {
            strings.offsets.windows(2).fold(0, |longest, ends| longest.max(ends[1].wrapping_sub(ends[0]))) as usize
        }
        _ => 0,
    }
}

fn data(column: &Column) -> &[u8] {
    match &column.values {
        Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => &strings.data,
        _ => &[],
    }
}

/// A key of the formats `int32` and `int64`.
fn binary_number(key: Option<&[u8]>) -> Option<i64> {
    let key = key?;
    <[u8; 8]>::try_from(key)
        .map(i64::from_be_bytes)
        .or_else(|_| <[u8; 4]>::try_from(key).map(|bytes| i64::from(i32::from_be_bytes(bytes))))
        .ok()
}

fn new_keys(old: &Column, changed: &Changed, source: &[u32]) -> Column {
    let mut out = ColumnBuilder::new(Type::Bytes, source.len());
    for row in source {
        match changed.get(&(*row as usize)).map(Vec::as_slice).or(old.bytes(*row as usize)) {
            Some(bytes) => out.bytes(bytes),
            None => out.null(),
        }
    }
    out.finish()
}

fn new_headers(old: &Headers, changed: &Changed, source: &[u32]) -> Headers {
    let mut out = HeadersBuilder::default();
    for row in source {
        for entry in old.entries(*row as usize) {
            out.push(old.names.get(entry), changed.get(&entry).map(Vec::as_slice).or(old.values.bytes(entry)));
        }
        out.close();
    }
    out.finish()
}
