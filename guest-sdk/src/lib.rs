#![doc = include_str!("../README.md")]

pub mod column;
pub mod describe;
pub mod duration;
pub mod field;
pub mod headers;
pub mod log;
pub mod plugin;
pub mod records;
pub mod state;
pub mod tables;
pub mod timers;
pub mod transform;
pub mod verdict;
pub mod windows;

pub use millstream_guest_macros::{Fields, Outputs, aggregate, enrich, filter, map, stateful};
pub use plugin::{Batch, Emitting, Leaves, Migrating, Plugin, Setup, Timed};
pub use records::{Answer, Change, Fields, Json, JsonText, Keys, Reject, Rows, Timer};

// What the macros write names this crate, in its own tests too.
extern crate self as millstream_guest;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_family = "wasm")]
mod convert;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod export;
#[cfg(not(target_family = "wasm"))]
mod fake;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

/// Exports a [`Plugin`]: once in a crate, and only where the target is Wasm (elsewhere the crate is a library that tests can call).
/// `export!(MyPlugin: emitting)` exports [`Emitting`] too, `timed` stands for [`Timed`], `migrating` for [`Migrating`]; several with commas between them.
#[macro_export]
macro_rules! export {
    ($plugin:ty : $($also:ident),+) => {
        $crate::export!($plugin);
        $($crate::export_also!($plugin, $also);)+
    };
    ($plugin:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export::Exported<$plugin>;
    $crate::bindings::export_bindings!(Exported with_types_in $crate::bindings);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_a_plugin<P: $crate::Plugin>() {}
            is_a_plugin::<$plugin>();
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_also {
    ($plugin:ty, timed) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export::Exported<$plugin>;
    $crate::bindings::fires::export_fires!(Exported with_types_in $crate::bindings::fires);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_timed<P: $crate::Timed>() {}
            is_timed::<$plugin>();
        };
    };
    ($plugin:ty, emitting) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export::Exported<$plugin>;
    $crate::bindings::emits::export_emits!(Exported with_types_in $crate::bindings::emits);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn emits<P: $crate::Emitting>() {}
            emits::<$plugin>();
        };
    };
    ($plugin:ty, migrating) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export::Exported<$plugin>;
    $crate::bindings::migrates::export_migrates!(Exported with_types_in $crate::bindings::migrates);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn migrates<P: $crate::Migrating>() {}
            migrates::<$plugin>();
        };
    };
}
