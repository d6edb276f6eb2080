//! What wit-bindgen makes of the contract; only `convert`, `export` and the wasm halves of `state`, `tables` and `log` look in here.
#![allow(unsafe_code, missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "wit",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_bindings",
    default_bindings_module: "millstream_guest::bindings",
});
