//! Formats behind one trait: a record is decoded once, and what changed is spliced into its bytes. The rules are the table "JSON, each row a test"
//! of the documentation (`host/docs/formats.md`).

pub mod infer;
pub mod json;
pub mod raw;

use crate::column::{Bitmap, Column, Indexed, Type};
use crate::field::Path;
use crate::pipeline::FormatKind;
use crate::plugin::Leaves;

/// The format of a kind.
pub fn of(kind: FormatKind) -> &'static dyn Format {
    match kind {
        FormatKind::Json => &json::Json,
        FormatKind::Raw => &raw::Raw,
    }
}

/// A field to decode.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub path: Path,
    pub kind: Type,
    /// The type it has in the source, if it is converted (`schema: { stars: { type: int, from: text } }`).
    pub from: Option<Type>,
}

/// Why a field of a row could not be read. Never quotes the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub row: u32,
    /// A code for headers and metrics: `wrong_type`, `duplicate_field`, `out_of_range`, `lone_surrogate`, `bad_base64`, `not_an_object`.
    pub code: &'static str,
    /// What was expected and found, as in "expected int, found text".
    pub message: String,
    /// Byte of the record's value at which it stands.
    pub at: Option<usize>,
}

/// The outcome of decoding a batch.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// One for each wanted field, in that order. Missing and null read alike; the slot of a failed row is null.
    pub fields: Vec<DecodedField>,
    /// Rows that are no records of this format at all (`not_json`, `invalid_utf8`, `empty_value`, `too_deep`), in the order of rows.
    pub failed: Vec<FieldError>,
}

#[derive(Clone, Debug)]
pub struct DecodedField {
    pub column: Column,
    /// In the order of rows.
    pub errors: Vec<FieldError>,
}

/// A field to write into rows.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub path: &'a Path,
    pub column: Indexed<'a>,
    /// In rows of the output (not of the column): what stays as the base has it.
    pub kept: &'a Bitmap,
    /// In rows of the output: what is removed. `kept` goes before it.
    pub removed: &'a Bitmap,
}

/// The outcome of encoding a batch.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Blobs, nullable. The slot of a failed row is null.
    pub values: Column,
    /// In the order of rows.
    pub failed: Vec<EncodeError>,
}

/// A row into which its changes could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// The change that failed, by its place among the changes: the first one of the row if the base cannot be read at all. None if nothing was to
    /// be changed.
    pub change: Option<usize>,
    /// Its message names the path.
    pub error: FieldError,
}

/// A format of record values. Null values (tombstones) decode to nulls and encode to null.
pub trait Format: Send + Sync {
    fn name(&self) -> &'static str;
    /// Prepares to read these fields; made once, used for every batch.
    fn decoder(&self, wanted: &[Wanted]) -> Box<dyn Decoder>;
    /// Splices changes, in their order, into each row's bytes; `base` None = into a new, empty object.
    /// Changes never hold a path and its prefix both for one row, unless both stand in an earlier stage's changes; the later one wins.
    fn encode(&self, base: Option<Indexed<'_>>, rows: usize, changes: &[Change<'_>]) -> Encoded;
    /// Every leaf of each row: texts, numbers, literals, empty objects and arrays. Rows that are no objects, arrays or leaves of this format have
    /// none and are named in the errors.
    fn leaves(&self, values: Indexed<'_>, rows: usize) -> (Leaves, Vec<FieldError>);
    /// Writes new texts for some entries of `leaves` (as `leaves` gave them for the same rows): entries strictly increasing.
    fn replace_leaves(&self, values: Indexed<'_>, rows: usize, leaves: &Leaves, replaced: &crate::plugin::ReplacedLeaves) -> Column;
    /// Reads fields of each row, for who does it only once.
    fn decode(&self, values: Indexed<'_>, rows: usize, wanted: &[Wanted]) -> Decoded {
        self.decoder(wanted).decode(values, rows)
    }
}

/// Reads the fields that it was made for.
pub trait Decoder: Send + Sync {
    /// Reads fields of each row. `values` are blobs, nullable.
    fn decode(&self, values: Indexed<'_>, rows: usize) -> Decoded;
}
