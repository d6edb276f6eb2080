//! The manifest's tables that `describe` named, by their index there. On native targets: an in-process fake, see `testing`.

use crate::column::Column;
use crate::verdict::Found;

/// A row of the table for each key, each as of the place of the batch's row `rows[i]`. A null key finds nothing.
pub fn lookup(table: u32, rows: &[u32], keys: &Column) -> Found {
    #[cfg(target_family = "wasm")]
    return crate::bindings::millstream::plugin::tables::lookup(table, rows, &keys.clone().into()).into();
    #[cfg(not(target_family = "wasm"))]
    crate::fake::lookup(table, rows, keys)
}
