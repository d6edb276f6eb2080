//! The stage's timers, of stream time: durable, one for each time and key. On native targets: an in-process fake, see `testing`.

use crate::column::Column;

#[cfg(not(target_family = "wasm"))]
use crate::fake as host;

/// Sets timers; one that is set already stays one. A time that has passed counts as the next moment at which stream time advances.
pub fn set_many(times: &[i64], keys: &Column) {
    host::set_timers(times, keys);
}

/// Those that are not set are passed over.
pub fn delete_many(times: &[i64], keys: &Column) {
    host::delete_timers(times, keys);
}

#[cfg(target_family = "wasm")]
mod host {
    use super::Column;
    use crate::bindings::millstream::plugin::timers as wit;

    pub fn set_timers(times: &[i64], keys: &Column) {
        wit::set_many(times, &keys.clone().into());
    }

    pub fn delete_timers(times: &[i64], keys: &Column) {
        wit::delete_many(times, &keys.clone().into());
    }
}
