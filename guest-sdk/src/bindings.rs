//! What wit-bindgen makes of the contract; only `convert`, `export` and the wasm halves of `state`, `tables` and `log` look in here.
#![allow(unsafe_code, missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "wit",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_bindings",
    default_bindings_module: "millstream_guest::bindings",
});

/// The optional export `emitting`.
pub mod emits {
    wit_bindgen::generate!({
        path: "wit",
        world: "emits",
        with: { "millstream:plugin/types@1.0.0": crate::bindings::millstream::plugin::types },
        pub_export_macro: true,
        export_macro_name: "export_emits",
        default_bindings_module: "millstream_guest::bindings::emits",
    });
}

/// The optional export `timed`.
pub mod fires {
    wit_bindgen::generate!({
        path: "wit",
        world: "fires",
        with: { "millstream:plugin/types@1.0.0": crate::bindings::millstream::plugin::types },
        pub_export_macro: true,
        export_macro_name: "export_fires",
        default_bindings_module: "millstream_guest::bindings::fires",
    });
}

/// The optional export `migration`.
pub mod migrates {
    wit_bindgen::generate!({
        path: "wit",
        world: "migrates",
        with: { "millstream:plugin/types@1.0.0": crate::bindings::millstream::plugin::types },
        pub_export_macro: true,
        export_macro_name: "export_migrates",
        default_bindings_module: "millstream_guest::bindings::migrates",
    });
}
