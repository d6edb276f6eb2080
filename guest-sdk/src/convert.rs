//! Between the generated types and this crate's: vectors are moved, so the cost does not grow with the rows.

use crate::bindings::millstream::plugin::types as wit;
use crate::column::{Bitmap, Column, Strings, Values};
use crate::headers::Headers;
use crate::plugin::{Batch, Leaves};
use crate::verdict::{Derived, Found, Outcome, Reject, ReplacedLeaves, Verdict, Written};

macro_rules! same_fields {
    ($($wit:ident => $own:ident { $($field:ident),* })*) => {$(
        impl From<wit::$wit> for $own {
            fn from(from: wit::$wit) -> Self {
                Self { $($field: from.$field.into()),* }
            }
        }
        impl From<$own> for wit::$wit {
            fn from(from: $own) -> Self {
                Self { $($field: from.$field.into()),* }
            }
        }
    )*};
}
same_fields! {
    Strings => Strings { data, offsets }
    Column => Column { values, validity }
    HeaderColumns => Headers { offsets, names, values }
    Leaves => Leaves { offsets, paths, values }
}

macro_rules! values {
    ($($variant:ident),*) => {
        impl From<wit::Values> for Values {
            fn from(from: wit::Values) -> Self {
                match from { $(wit::Values::$variant(values) => Self::$variant(values.into())),* }
            }
        }
        impl From<Values> for wit::Values {
            fn from(from: Values) -> Self {
                match from { $(Values::$variant(values) => Self::$variant(values.into())),* }
            }
        }
    };
}
values!(Bools, Ints, Floats, Texts, Blobs, Jsons);

impl From<Vec<u8>> for Bitmap {
    fn from(bits: Vec<u8>) -> Self {
        Self(bits)
    }
}

impl From<Bitmap> for Vec<u8> {
    fn from(bits: Bitmap) -> Self {
        bits.0
    }
}

/// A handful of items a call, whatever the rows.
pub(crate) fn each<From, To: std::convert::From<From>>(items: Vec<From>) -> Vec<To> {
    items.into_iter().map(To::from).collect()
}

impl From<wit::Found> for Found {
    fn from(from: wit::Found) -> Self {
        Self { present: from.present.into(), fields: each(from.fields) }
    }
}

impl From<wit::Batch> for Batch {
    fn from(from: wit::Batch) -> Self {
        Self {
            rows: from.rows as usize,
            stream_time: from.stream_time,
            timestamps: from.timestamps,
            fields: each(from.fields),
            keys: from.keys.map(Into::into),
            values: from.values.map(Into::into),
            headers: from.headers.map(Into::into),
            leaves: from.leaves.map(Into::into),
        }
    }
}

impl From<Written> for wit::Written {
    fn from(from: Written) -> Self {
        Self { column: from.column.into(), kept: from.kept.0, removed: from.removed.0 }
    }
}

impl From<ReplacedLeaves> for wit::ReplacedLeaves {
    fn from(from: ReplacedLeaves) -> Self {
        Self { entries: from.entries, values: from.values.into() }
    }
}

impl From<Derived> for wit::Derived {
    fn from(from: Derived) -> Self {
        Self {
            output: from.output as u32,
            source: from.source,
            fields: each(from.fields),
            timestamps: from.timestamps,
            keys: from.keys.map(Into::into),
            values: from.values.map(Into::into),
            headers: from.headers.map(Into::into),
            leaves: from.leaves.map(Into::into),
            tombstones: from.tombstones.0,
        }
    }
}

impl From<Reject> for wit::Reject {
    fn from(from: Reject) -> Self {
        Self { row: from.row, reason: from.reason }
    }
}

impl From<Verdict> for wit::Verdict {
    fn from(from: Verdict) -> Self {
        let outcome = match from.outcome {
            Outcome::All => wit::Outcome::All,
            Outcome::Select(rows) => wit::Outcome::Select(rows),
            Outcome::Derive(outputs) => wit::Outcome::Derive(each(outputs)),
        };
        Self { outcome, rejects: each(from.rejects) }
    }
}
