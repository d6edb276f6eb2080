//! Records that a stage or a format refused, and the dead letters made of them.

use crate::flow::batch::{Batch, Held, Origin};
use crate::record::RecordsBuilder;
use std::sync::Arc;

/// A record that is not processed further.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub origin: Arc<Origin>,
    pub origin_row: usize,
    /// The stage that refused it; None = the source could not read it.
    pub stage: Option<usize>,
    /// What went wrong, for machines: `rejected`, `wrong_type`, `not_json` ...
    pub code: &'static str,
    /// For people; never quotes values. What a plugin said is withheld where the record may not be shown.
    pub reason: String,
    /// The record as it stood, where it may be shown.
    pub shown: Option<Shown>,
}

/// The code of records that came when their windows were closed.
pub const LATE: &str = "late";

/// The code of records whose results a topic does not take.
pub const NOT_TAKEN: &str = "not_taken";

/// A record as it stood at a stage.
#[derive(Clone, Debug)]
pub struct Shown {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Shown {
    /// A row of a batch, with its encoded values.
    pub fn of(batch: &Batch, values: &Held, row: usize) -> Self {
        let (headers, index) = batch.headers();
        let at = index.as_ref().map_or(row, |index| index[row] as usize);
        Self {
            key: batch.key(row).map(<[u8]>::to_vec),
            value: values.view().bytes(row).map(<[u8]>::to_vec),
            headers: headers.of(at).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        }
    }

    /// The record as it came.
    pub fn original(origin: &Origin, row: usize) -> Self {
        Self {
            key: origin.records.keys.bytes(row).map(<[u8]>::to_vec),
            value: origin.records.values.bytes(row).map(<[u8]>::to_vec),
            headers: origin.records.headers.of(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        }
    }
}

/// Names of what a dead letter tells about.
pub struct Place<'a> {
    pub pipeline: &'a str,
    /// The stage's name, or the source's.
    pub stage: &'a str,
    pub plugin: &'a str,
    pub topic: &'a str,
}

/// Appends a dead letter: where the record came from and why it was refused in headers, key and value only if they may be shown.
pub fn dead_letter(into: &mut RecordsBuilder, rejected: &Rejected, place: &Place<'_>, include_original: bool) {
    let row = rejected.origin_row;
    let original = include_original.then(|| Shown::original(&rejected.origin, row));
    let shown = original.as_ref().or(rejected.shown.as_ref());
    let numbers = [rejected.origin.partitions[row].to_string(), rejected.origin.offsets[row].to_string()];
    let told: [(&str, &str); 8] = [
        ("millstream.pipeline", place.pipeline),
        ("millstream.stage", place.stage),
        ("millstream.plugin", place.plugin),
        ("millstream.error", rejected.code),
        ("millstream.reason", &rejected.reason),
        ("millstream.topic", place.topic),
        ("millstream.partition", &numbers[0]),
        ("millstream.offset", &numbers[1]),
    ];
    let told = told.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
    let own = shown.iter().flat_map(|shown| shown.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
    into.push(
        rejected.origin.records.timestamps[row],
        shown.and_then(|shown| shown.key.as_deref()),
        shown.and_then(|shown| shown.value.as_deref()),
        own.chain(told),
    );
}

/// Dead letters of one topic, in the order of records, then of stages.
pub fn sorted(mut rejected: Vec<Rejected>) -> Vec<Rejected> {
    rejected.sort_by_key(|rejected| (rejected.origin_row, rejected.stage.map_or(0, |stage| stage + 1)));
    rejected
}
