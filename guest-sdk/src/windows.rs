//! Windows as the host sees them, for plugins that find sessions. On native targets: an in-process fake, see `testing`.

#[cfg(not(target_family = "wasm"))]
use crate::fake as host;

/// Stream time before each row of the batch, `i64::MIN` if there was none: with `Window::open_from` it tells which sessions are closed for that row.
pub fn stream_times() -> Vec<i64> {
    host::stream_times()
}

/// These rows of the batch, strictly increasing, came when their session was closed: the host counts them as late. They must not stand in the verdict.
pub fn late(rows: &[u32]) {
    host::late(rows);
}

#[cfg(target_family = "wasm")]
mod host {
    use crate::bindings::millstream::plugin::windows as wit;

    pub fn stream_times() -> Vec<i64> {
        wit::stream_times()
    }

    pub fn late(rows: &[u32]) {
        wit::late(rows);
    }
}
