//! The stage's stores, by their index in `describe`'s answer, many keys a call. On native targets: an in-process fake, see `testing`.
//!
//! Wrong use (an unknown store, a column of another type or length) ends the call: on Wasm in a trap, natively in a panic.

use crate::column::Column;
use crate::verdict::{Found, Page};

#[cfg(not(target_family = "wasm"))]
use crate::fake as host;

/// A row for each key, in the order asked. Equal keys may repeat.
pub fn get_many(store: u32, keys: &Column) -> Found {
    host::get_many(store, keys)
}

/// Writes a row for each key; the last of equal keys wins.
pub fn put_many(store: u32, keys: Column, fields: Vec<Column>) {
    host::put_many(store, keys, fields);
}

pub fn delete_many(store: u32, keys: &Column) {
    host::delete_many(store, keys);
}

/// The rows whose keys are in `[low, high)`, each a column of one row, in the order of encoded keys.
pub fn scan(store: u32, low: &Column, high: &Column, limit: u32) -> Page {
    host::scan(store, low, high, limit)
}

#[cfg(target_family = "wasm")]
mod host {
    use super::{Column, Found, Page};
    use crate::bindings::millstream::plugin::state as wit;
    use crate::convert::each;

    pub fn get_many(store: u32, keys: &Column) -> Found {
        wit::get_many(store, &keys.clone().into()).into()
    }

    pub fn put_many(store: u32, keys: Column, fields: Vec<Column>) {
        wit::put_many(store, &keys.into(), &each(fields));
    }

    pub fn delete_many(store: u32, keys: &Column) {
        wit::delete_many(store, &keys.clone().into());
    }

    pub fn scan(store: u32, low: &Column, high: &Column, limit: u32) -> Page {
        let page = wit::scan(store, &low.clone().into(), &high.clone().into(), limit);
        Page { keys: page.keys.into(), fields: each(page.fields), more: page.more }
    }
}
