//! The plugin contract is frozen: what `tests/frozen/1.0` holds is how it was, and it must go on as it was. A component that was built then runs; what the
//! published WIT and the schemas had then they have still; components of versions that do not fit are told so.

mod frozen;
mod schemas;
mod versions;
mod wit;

use std::path::{Path, PathBuf};

/// What it means when a test of this folder fails.
const MEANING: &str = "this breaks plugins that are built for contract 1.0, which hosts serve unchanged as long as they serve 1.x. Mend the host, or make it a 2.0 \
beside 1.x (host/docs/contract.md, \"Evolution\"). What stands under tests/frozen/1.0 is never changed";

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(folder(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The component that was built for 1.0.
fn frozen_guest() -> Vec<u8> {
    std::fs::read(folder("tests/frozen/1.0/frozen.wasm")).unwrap()
}
