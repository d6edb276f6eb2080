//! Builds the standard plugins and lays their components beside the program that embeds them (`plugin/standard.rs`); lists the SDK's sources,
//! which `millstream new` writes (`cli/new/sdk.rs`).

#[path = "src/guest_build.rs"]
#[allow(dead_code)]
mod guest_build;

use anyhow::{Context, Result, bail};
use guest_build::{Build, component, find_toolchain, module_file};
use std::path::{Path, PathBuf};

const PLUGINS: [&str; 6] = ["filter", "map", "mask", "enrich", "aggregate", "join"];

fn main() {
    // Not by `?`: a missing target is no bug to trace back.
    if let Err(error) = run() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")?).parent().context("the package has no folder above it")?.to_owned();
    let out = PathBuf::from(variable("OUT_DIR")?);
    for path in ["plugins", "guest-sdk", "wit", "Cargo.lock", "Cargo.toml", "host/build.rs", "host/src/guest_build.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for name in ["MILLSTREAM_PLUGINS_DIR", "MILLSTREAM_NO_INSTALL", "CARGO_NET_OFFLINE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    std::fs::write(out.join("sdk.rs"), sdk(&root)?)?;
    match std::env::var_os("MILLSTREAM_PLUGINS_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => copy_prebuilt(Path::new(&folder), &out),
        None => build(&root, &out),
    }
}

/// Constants that carry the SDK.
fn sdk(root: &Path) -> Result<String> {
    let sdk = root.join("guest-sdk");
    let mut files = Vec::new();
    collect(&sdk, &mut files)?;
    files.sort();
    let mut out = "const FILES: &[(&str, &str)] = &[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(&sdk)?.to_string_lossy().replace('\\', "/");
        out.push_str(&format!("    ({name:?}, include_str!({file:?})),\n"));
    }
    out.push_str("];\n");
    for (name, file) in [("WORKSPACE", "Cargo.toml"), ("LOCK", "Cargo.lock")] {
        out.push_str(&format!("pub const {name}: &str = include_str!({:?});\n", root.join(file)));
    }
    Ok(out)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs" || end == "toml" || end == "wit" || end == "md") {
            files.push(path);
        }
    }
    Ok(())
}

fn copy_prebuilt(folder: &Path, out: &Path) -> Result<()> {
    for name in PLUGINS {
        let from = folder.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", from.display());
        std::fs::copy(&from, out.join(format!("{name}.wasm"))).with_context(|| {
            format!("MILLSTREAM_PLUGINS_DIR says that the standard plugins are built, but {} cannot be read", from.display())
        })?;
    }
    Ok(())
}

fn build(root: &Path, out: &Path) -> Result<()> {
    let target_dir = guests_dir(out);
    std::fs::create_dir_all(&target_dir)?;
    // Debug and release builds share the folder; a module must not change between cargo's writing and our reading.
    let lock = std::fs::File::create(target_dir.join(".modules.lock"))?;
    lock.lock()?;
    let packages = PLUGINS.map(|name| format!("millstream-{name}"));
    let manifest = root.join("Cargo.toml");
    let build = Build { manifest: &manifest, packages: &packages, target_dir: &target_dir, profile: Some("plugin"), locked: true };
    let toolchain = find_toolchain(|message| println!("cargo::warning={message}"))
        .context("the standard plugins cannot be built (MILLSTREAM_PLUGINS_DIR may name a folder of built ones)")?;
    let folder = build.run(&toolchain)?;
    for (name, package) in PLUGINS.iter().zip(&packages) {
        let file = folder.join(module_file(package));
        let module = std::fs::read(&file).with_context(|| format!("cargo built no {}", file.display()))?;
        let component = component(&module).with_context(|| format!("plugins/{name}"))?;
        std::fs::write(out.join(format!("{name}.wasm")), component)?;
    }
    Ok(())
}

/// Beside the folders of the profiles, so that they share it: `<target>/<profile>/build/<package>/out` is cargo's layout.
fn guests_dir(out: &Path) -> PathBuf {
    let build = out.ancestors().find(|folder| folder.ends_with("build"));
    build.and_then(|build| build.parent()?.parent()).unwrap_or(out).join("guests")
}

fn variable(name: &str) -> Result<String> {
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(error) => bail!("{name}: {error}; this script is run by cargo"),
    }
}
