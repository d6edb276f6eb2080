//! The guests of the tests as components.

use millstream::guest_build;
use std::path::Path;

/// Builds a guest of this workspace, unless it is built already.
pub fn component(package: &str) -> Vec<u8> {
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
    guest_build::component(&std::fs::read(folder.join(guest_build::module_file(package))).unwrap()).unwrap()
}
