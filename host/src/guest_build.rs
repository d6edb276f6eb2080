//! Builds plugins to components: finds the Wasm target, runs cargo, makes the component. Shared by `build.rs` and `millstream build`,
//! hence without any import of this crate.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What plugins are compiled for: no WASI, so that a component imports just what it uses.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A compiler that can build for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one of `cargo` and `rustc` as they are.
    Installed,
    /// Debian's package rustc-web: the target's library is built from its sources with every set of plugins.
    Debian { linker: PathBuf },
}

/// One run of cargo for any number of plugins.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// The `Cargo.toml` of the package or workspace.
    pub manifest: &'a Path,
    /// Empty = the manifest's own package.
    pub packages: &'a [String],
    /// Not the target folder of a cargo that waits for this one: they would wait for each other's lock.
    pub target_dir: &'a Path,
    /// A profile of the workspace; None = `release` with the settings that plugins want.
    pub profile: Option<&'a str>,
    pub locked: bool,
}

impl Build<'_> {
    /// Runs cargo; its messages go to standard error as they are. Answers the folder of the core modules.
    pub fn run(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        let mut command = self.command(toolchain);
        let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        if !status.success() {
            bail!("cargo could not build the plugin ({status}); its messages are above");
        }
        Ok(self.target_dir.join(TARGET).join(self.profile.unwrap_or("release")))
    }

    fn command(&self, toolchain: &Toolchain) -> Command {
        let mut command = match toolchain {
            Toolchain::Installed => Command::new(cargo()),
            Toolchain::Debian { linker } => {
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env_remove("RUSTDOC");
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        command.arg("build").arg("--manifest-path").arg(self.manifest).args(["--target", TARGET]);
        command.arg("--target-dir").arg(self.target_dir);
        command.args(["--profile", self.profile.unwrap_or("release")]);
        for package in self.packages {
            command.args(["-p", package]);
        }
        if matches!(toolchain, Toolchain::Debian { .. }) {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        if self.locked {
            command.arg("--locked");
        }
        if offline() {
            command.arg("--offline");
        }
        // Cargo hands its build scripts what it was called with, flags for the host's target and clippy's wrapper among it.
        for name in
            ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"]
        {
            command.env_remove(name);
        }
        command.env("CARGO_BUILD_BUILD_DIR", self.target_dir);
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-Ctarget-feature=+simd128");
        if self.profile.is_none() {
            for (name, value) in
                [("OPT_LEVEL", "3"), ("LTO", "fat"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort"), ("STRIP", "true"), ("DEBUG", "false")]
            {
                command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
            }
        }
        command
    }
}

/// The file of a package's core module in [`Build::run`]'s folder.
pub fn module_file(library: &str) -> String {
    format!("{}.wasm", library.replace('-', "_"))
}

/// Makes a component of a core module.
pub fn component(module: &[u8]) -> Result<Vec<u8>> {
    // Of a module without exports the encoder makes a component without exports.
    let export = b"millstream:plugin/transform@";
    if !module.windows(export.len()).any(|bytes| bytes == export) {
        bail!(
            "the module exports no plugin: its crate needs one of the SDK's attributes on a function, or `millstream_guest::export!(MyPlugin);`"
        );
    }
    let encode = || wit_component::ComponentEncoder::default().validate(true).module(module)?.encode();
    encode().context("the module cannot be made a component: was it built with the SDK of another version?")
}

/// Looks for a compiler, in this order: the target is installed; rustup can add it; Debian's package is installed.
/// `say` tells the user what is being done to the machine.
pub fn find_toolchain(say: impl Fn(&str)) -> Result<Toolchain> {
    if has_target() {
        return Ok(Toolchain::Installed);
    }
    let mut tried = Vec::new();
    if offline() {
        tried.push("rustup was not asked: CARGO_NET_OFFLINE is set");
    } else if is_set("MILLSTREAM_NO_INSTALL") {
        tried.push("rustup was not asked: MILLSTREAM_NO_INSTALL is set");
    } else {
        say(&format!("adding the compiler's target for plugins: rustup target add {TARGET}"));
        match Command::new("rustup").args(["target", "add", TARGET]).status() {
            Ok(status) if status.success() && has_target() => return Ok(Toolchain::Installed),
            Ok(_) => tried.push("`rustup target add` failed; its messages are above"),
            Err(_) => tried.push("there is no rustup"),
        }
    }
    if let Some(linker) = debian_linker() {
        return Ok(Toolchain::Debian { linker });
    }
    tried.push("Debian's rustc-web is not installed");
    bail!(
        "this compiler cannot build plugins: its target {TARGET} is missing ({}). One of these helps:\n  \
         rustup target add {TARGET}\n  \
         sudo apt-get install -y --no-install-recommends rustc-web rust-web-src cargo-web   (Debian and Ubuntu)",
        tried.join("; ")
    )
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

fn offline() -> bool {
    is_set("CARGO_NET_OFFLINE")
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn has_target() -> bool {
    let folder = output(rustc().args(["--print", "target-libdir", "--target", TARGET]));
    let files = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    files.is_some_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
}

/// Debian's compiler has the library's sources but no `rust-lld`, which comes with rustup's.
fn debian_linker() -> Option<PathBuf> {
    let sysroot = PathBuf::from(output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?);
    if !sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file() || !Path::new("/usr/bin/cargo").is_file() {
        return None;
    }
    let near = output(rustc().args(["--print", "sysroot"])).map(|sysroot| {
        let host = output(rustc().args(["--print", "host-tuple"])).unwrap_or_default();
        Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld")
    });
    let folders = std::env::var_os("PATH").unwrap_or_default();
    near.into_iter().chain(std::env::split_paths(&folders).map(|folder| folder.join("rust-lld"))).find(|linker| linker.is_file())
}
