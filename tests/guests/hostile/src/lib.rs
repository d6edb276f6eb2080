//! A guest that breaks every rule of the contract, one mode at a time. `tests/it/hostile.rs` says what the host must make of each mode.

pub mod modes;

#[cfg(target_family = "wasm")]
mod guest;
#[cfg(target_family = "wasm")]
mod malformed;
