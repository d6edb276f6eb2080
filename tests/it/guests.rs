//! The guests of `tests/guests`, built once a test run.

use millstream::guest_build;
use std::path::Path;
use std::sync::OnceLock;

/// One that breaks the contract.
pub fn hostile() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build("millstream-hostile"))
}

/// One with timers.
pub fn timers() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build("millstream-timers"))
}

/// One that appends numbers to lists.
pub fn list_append() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build("millstream-list-append"))
}

/// One that keeps totals; one that keeps them in rows of another type, which it makes of the first one's; and one with a third type, to which there is a way
/// from the second alone.
pub fn totals() -> [&'static [u8]; 3] {
    static COMPONENTS: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let components = COMPONENTS.get_or_init(|| ["millstream-totals", "millstream-totals-next", "millstream-totals-third"].map(build));
    components.each_ref().map(Vec::as_slice)
}

/// The same as another version.
pub fn list_append_next() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build("millstream-list-append-next"))
}

fn build(package: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Beside the standard plugins, whose dependencies it shares.
    let target_dir = Path::new(env!("CARGO_BIN_EXE_millstream")).ancestors().nth(2).unwrap().join("guests");
    let packages = [package.to_owned()];
    let build = guest_build::Build {
        manifest: &root.join("Cargo.toml"),
        packages: &packages,
        target_dir: &target_dir,
        profile: Some("plugin"),
        locked: true,
    };
    let folder = build.run(&guest_build::find_toolchain(|message| eprintln!("{message}")).unwrap()).unwrap();
    guest_build::component(&std::fs::read(folder.join(guest_build::module_file(&packages[0]))).unwrap()).unwrap()
}
