//! What a plugin answers to a batch, and what the host answers to a plugin's questions.

use crate::column::{Bitmap, Column, Strings};
use crate::headers::Headers;

/// The answer to a batch; as in the contract, and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// In the order of rows.
    pub rejects: Vec<Reject>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    All,
    Select(Vec<u32>),
    /// At most one for each output.
    Derive(Vec<Derived>),
}

/// `source` of a row that comes from no input row.
pub const FROM_NONE: u32 = u32::MAX;

#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    pub output: usize,
    pub source: Vec<u32>,
    pub fields: Vec<Written>,
    pub timestamps: Option<Vec<i64>>,
    pub keys: Option<Column>,
    pub values: Option<Column>,
    pub headers: Option<Headers>,
    pub leaves: Option<ReplacedLeaves>,
    pub tombstones: Bitmap,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub column: Column,
    pub kept: Bitmap,
    pub removed: Bitmap,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReplacedLeaves {
    pub entries: Vec<u32>,
    pub values: Strings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub row: u32,
    pub reason: String,
}

/// Rows of a store or a table, in the order asked.
#[derive(Clone, Debug)]
pub struct Found {
    pub present: Bitmap,
    pub fields: Vec<Column>,
}

/// A stretch of a store.
#[derive(Clone, Debug)]
pub struct Page {
    pub keys: Column,
    pub fields: Vec<Column>,
    pub more: bool,
}
