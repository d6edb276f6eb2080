//! Builds plugins to components: finds the Wasm target, runs cargo, makes the component. Shared by `build.rs` and `millstream build`.
