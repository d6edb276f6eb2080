//! Between the generated types and the host's own: vectors are lent or moved, never copied.

use crate::column::{Bitmap, Column, Strings, Values};
use crate::plugin::bindings::millstream::plugin::{state, types};
use crate::plugin::{Derived, Found, Input, Leaves, Outcome, Page, Reject, ReplacedLeaves, Verdict, Written};
use crate::record::Headers;

fn lend_strings(strings: &Strings) -> types::StringsParam<'_> {
    types::StringsParam { data: &strings.data, offsets: &strings.offsets }
}

pub fn lend_column(column: &Column) -> types::ColumnParam<'_> {
    let values = match &column.values {
        Values::Bools(bits) => types::ValuesParam::Bools(bits),
        Values::Ints(values) => types::ValuesParam::Ints(values),
        Values::Floats(values) => types::ValuesParam::Floats(values),
        Values::Texts(strings) => types::ValuesParam::Texts(lend_strings(strings)),
        Values::Blobs(strings) => types::ValuesParam::Blobs(lend_strings(strings)),
        Values::Jsons(strings) => types::ValuesParam::Jsons(lend_strings(strings)),
    };
    types::ColumnParam { values, validity: &column.validity.0 }
}

/// `fields` and `no_offsets` are the caller's, because the batch only borrows: the lent fields, and the offsets that stand for "no headers".
pub fn lend_batch<'a>(input: &Input<'a>, fields: &'a [types::ColumnParam<'a>], no_offsets: &'a [u32]) -> types::Batch<'a> {
    types::Batch {
        rows: input.rows as u32,
        stream_time: input.stream_time,
        timestamps: input.timestamps,
        fields,
        keys: input.keys.map(lend_column),
        values: input.values.map(lend_column),
        headers: input.headers.map(|headers| lend_headers(headers, no_offsets)),
        leaves: input.leaves.map(lend_leaves),
    }
}

fn lend_headers<'a>(headers: &'a Headers, no_offsets: &'a [u32]) -> types::HeaderColumnsParam<'a> {
    types::HeaderColumnsParam {
        offsets: if headers.offsets.is_empty() { no_offsets } else { &headers.offsets },
        names: lend_strings(&headers.names),
        values: lend_column(&headers.values),
    }
}

fn lend_leaves(leaves: &Leaves) -> types::Leaves<'_> {
    types::Leaves { offsets: &leaves.offsets, paths: lend_strings(&leaves.paths), values: lend_strings(&leaves.values) }
}

fn strings(strings: types::StringsResult) -> Strings {
    Strings { data: strings.data, offsets: strings.offsets }
}

pub fn column(column: types::ColumnResult) -> Column {
    let values = match column.values {
        types::ValuesResult::Bools(bits) => Values::Bools(bits),
        types::ValuesResult::Ints(values) => Values::Ints(values),
        types::ValuesResult::Floats(values) => Values::Floats(values),
        types::ValuesResult::Texts(texts) => Values::Texts(strings(texts)),
        types::ValuesResult::Blobs(blobs) => Values::Blobs(strings(blobs)),
        types::ValuesResult::Jsons(jsons) => Values::Jsons(strings(jsons)),
    };
    Column { values, validity: Bitmap(column.validity) }
}

pub fn verdict(verdict: types::Verdict) -> Verdict {
    let outcome = match verdict.outcome {
        types::Outcome::All => Outcome::All,
        types::Outcome::Select(rows) => Outcome::Select(rows),
        types::Outcome::Derive(outputs) => Outcome::Derive(outputs.into_iter().map(derived).collect()),
    };
    let reject = |reject: types::Reject| Reject { row: reject.row, reason: reject.reason };
    Verdict { outcome, rejects: verdict.rejects.into_iter().map(reject).collect() }
}

fn derived(derived: types::Derived) -> Derived {
    let written =
        |field: types::Written| Written { column: column(field.column), kept: Bitmap(field.kept), removed: Bitmap(field.removed) };
    Derived {
        output: derived.output as usize,
        source: derived.source,
        fields: derived.fields.into_iter().map(written).collect(),
        timestamps: derived.timestamps,
        keys: derived.keys.map(column),
        values: derived.values.map(column),
        headers: derived.headers.map(|headers| Headers {
            offsets: headers.offsets,
            names: strings(headers.names),
            values: column(headers.values),
        }),
        leaves: derived.leaves.map(|leaves| ReplacedLeaves { entries: leaves.entries, values: strings(leaves.values) }),
        tombstones: Bitmap(derived.tombstones),
    }
}

fn give_strings(strings: Strings) -> types::StringsResult {
    types::StringsResult { data: strings.data, offsets: strings.offsets }
}

fn give_column(column: Column) -> types::ColumnResult {
    let values = match column.values {
        Values::Bools(bits) => types::ValuesResult::Bools(bits),
        Values::Ints(values) => types::ValuesResult::Ints(values),
        Values::Floats(values) => types::ValuesResult::Floats(values),
        Values::Texts(texts) => types::ValuesResult::Texts(give_strings(texts)),
        Values::Blobs(blobs) => types::ValuesResult::Blobs(give_strings(blobs)),
        Values::Jsons(jsons) => types::ValuesResult::Jsons(give_strings(jsons)),
    };
    types::ColumnResult { values, validity: column.validity.0 }
}

pub fn give_found(found: Found) -> types::Found {
    types::Found { present: found.present.0, fields: found.fields.into_iter().map(give_column).collect() }
}

pub fn give_page(page: Page) -> state::Page {
    state::Page { keys: give_column(page.keys), fields: page.fields.into_iter().map(give_column).collect(), more: page.more }
}
