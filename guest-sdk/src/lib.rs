//! Write Millstream plugins: records in, records out, typed state.

pub mod column;
pub mod describe;
pub mod field;
pub mod headers;
pub mod plugin;
pub mod verdict;

pub use plugin::{Batch, Leaves, Plugin, Setup};
