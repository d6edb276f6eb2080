//! What `wit/plugin.wit` generates for the host, and nothing else. Only `engine` uses it.

// The generated wrappers skip a type check that `load` of the same code has made.
#![allow(unsafe_code)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    // A batch is lowered from the host's own columns, without a copy in between; what a guest gives is owned.
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});
