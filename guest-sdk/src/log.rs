//! The plugin's log: the host writes it to its own, with stage, topic, partition and offset. On native targets it goes to a fake that
//! `testing` shows.
//!
//! Never log values of records: the log is read by more people than the topic.

use std::cell::Cell;

const TRACE: u8 = 0;
const DEBUG: u8 = 1;
const INFO: u8 = 2;
const WARN: u8 = 3;
const ERROR: u8 = 4;
/// For the panic hook alone.
#[cfg(target_family = "wasm")]
pub(crate) const PANIC: u8 = 5;

thread_local! {
    static CURRENT_ROW: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The row of the batch that is being worked on: panics and messages without a row of their own are about it. The record traits set it; a
/// plugin in columns may.
pub fn set_current_row(row: Option<u32>) {
    CURRENT_ROW.set(row);
}

/// What `set_current_row` said last.
pub fn current_row() -> Option<u32> {
    CURRENT_ROW.get()
}

/// Writes a message. Levels: 0 trace, 1 debug, 2 info, 3 warn, 4 error.
pub fn write(level: u8, row: Option<u32>, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::millstream::plugin::log::write(level, row.unwrap_or(u32::MAX), message);
    #[cfg(not(target_family = "wasm"))]
    crate::fake::log(level, row, message);
}

macro_rules! levels {
    ($($name:ident $level:ident)*) => {$(
        #[doc = concat!("Writes a message of level ", stringify!($name), ", about the current row.")]
        pub fn $name(message: impl AsRef<str>) {
            write($level, current_row(), message.as_ref());
        }
    )*};
}
levels! { trace TRACE debug DEBUG info INFO warn WARN error ERROR }
