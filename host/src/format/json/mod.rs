//! JSON: one parse a record, projection of the wanted fields, splice of the changed ones. Every byte that nobody changed stays.

mod decode;
mod encode;
mod leaves;
mod scan;
mod text;
mod trie;
mod value;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod model;

use super::{Change, Decoder, Encoded, FieldError, Format, Wanted};
use crate::column::{Column, Indexed};
use crate::plugin::{Leaves, ReplacedLeaves};
use scan::{Fault, Scanner};
pub use value::converts;

/// The format `json`.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn decoder(&self, wanted: &[Wanted]) -> Box<dyn Decoder> {
        Box::new(decode::Projection::new(wanted))
    }

    fn encode(&self, base: Option<Indexed<'_>>, rows: usize, changes: &[Change<'_>]) -> Encoded {
        encode::encode(base, rows, changes)
    }

    fn leaves(&self, values: Indexed<'_>, rows: usize) -> (Leaves, Vec<FieldError>) {
        leaves::leaves(values, rows)
    }

    fn replace_leaves(&self, values: Indexed<'_>, rows: usize, leaves: &Leaves, replaced: &ReplacedLeaves) -> Column {
        leaves::replace(values, rows, leaves, replaced)
    }
}

/// Why a row is refused.
#[derive(Debug)]
struct Refusal {
    code: &'static str,
    message: String,
    at: Option<usize>,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>, at: usize) -> Self {
        Self { code, message: message.into(), at: Some(at) }
    }

    fn of(self, row: usize) -> FieldError {
        FieldError { row: row as u32, code: self.code, message: self.message, at: self.at }
    }
}

/// Starts to read a record.
#[inline]
fn open(json: &[u8]) -> Result<Scanner<'_>, Refusal> {
    if json.is_empty() {
        return Err(Refusal {
            code: "empty_value",
            message: "the value is empty, which is no JSON (a tombstone is null)".to_owned(),
            at: None,
        });
    }
    match std::str::from_utf8(json) {
        Ok(_) => Ok(Scanner::new(json)),
        Err(error) => Err(Refusal::new("invalid_utf8", "the value is not UTF-8", error.valid_up_to())),
    }
}

#[cold]
fn refusal(fault: Fault) -> Refusal {
    match fault {
        Fault::NotJson(at) => Refusal::new("not_json", "the value is not valid JSON", at),
        Fault::TooDeep(at) => Refusal::new("too_deep", format!("objects and arrays are nested deeper than {}", scan::MAX_DEPTH), at),
    }
}
