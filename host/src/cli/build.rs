//! `millstream build`: a plugin's crate to a component.

use super::{Context, Outcome, Output};
use crate::guest_build::{Build, component, find_toolchain, module_file};
use crate::plugin::engine::Engine;
use crate::plugin::{Loader, Plugin};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin's folder: where its Cargo.toml is
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// Where the component goes [default: NAME.wasm beside Cargo.toml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let built = build(&args.folder, args.out.as_deref())?;
    report(&built.out, built.size, &*built.plugin, context.global.output);
    Ok(())
}

/// A component that was built.
pub struct Built {
    pub out: PathBuf,
    /// Bytes.
    pub size: usize,
    pub plugin: Arc<dyn Plugin>,
}

/// Builds the plugin of a folder. `out`: where the component goes; None = NAME.wasm beside Cargo.toml.
pub fn build(folder: &Path, out: Option<&Path>) -> Result<Built> {
    let package = Package::find(folder)?;
    let toolchain = find_toolchain(|message| anstream::eprintln!("{message}"))?;
    let names = [package.name.clone()];
    let build = Build { manifest: &package.manifest, packages: &names, target_dir: &package.target_dir, profile: None, locked: false };
    let module = build.run(&toolchain)?.join(module_file(&package.library));
    let module = std::fs::read(&module).with_context(|| format!("cargo built no {}", module.display()))?;
    let component = component(&module)?;
    let plugin = Engine::new()?.load(&component).context("the component is built, but no host would take it")?;

    let out = out.map_or_else(|| folder.join(format!("{}.wasm", package.name)), Path::to_owned);
    // Whole or not at all: a pipeline may be reading it.
    let beside = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(beside).with_context(|| format!("cannot write into {}", beside.display()))?;
    std::io::Write::write_all(&mut file, &component).with_context(|| format!("cannot write {}", out.display()))?;
    readable_by_all(file.as_file())?;
    file.persist(&out).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(Built { out, size: component.len(), plugin })
}

/// A temporary file is its owner's alone; a component is like any other file that a build makes.
fn readable_by_all(file: &std::fs::File) -> Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let _ = file;
    Ok(())
}

fn report(out: &Path, size: usize, plugin: &dyn Plugin, output: Output) {
    let about = plugin.about();
    match output {
        Output::Json => println!(
            "{}",
            serde_json::json!({
                "path": out, "size": size, "digest": format!("sha256:{}", plugin.digest()), "imports": plugin.imports(),
                "contract": plugin.contract().to_string(), "name": about.name, "version": about.version,
            })
        ),
        Output::Text => {
            let imports = if plugin.imports().is_empty() { "nothing".to_owned() } else { plugin.imports().join(", ") };
            println!("{}", out.display());
            println!("  plugin   {} {}", about.name, about.version);
            println!("  size     {} KiB", size.div_ceil(1024));
            println!("  digest   sha256:{}", plugin.digest());
            println!("  imports  {imports}");
            println!("  contract {}", plugin.contract());
        }
    }
}

/// What cargo says of the crate.
struct Package {
    manifest: PathBuf,
    name: String,
    /// The name of the library, which names the module's file.
    library: String,
    target_dir: PathBuf,
}

impl Package {
    fn find(folder: &Path) -> Result<Self> {
        let manifest = folder.join("Cargo.toml");
        let manifest = manifest.canonicalize().with_context(|| {
            format!("{} is no plugin's folder: it has no Cargo.toml (`millstream new plugin NAME` makes one that has)", folder.display())
        })?;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        let output = cargo
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo: plugins are built by a Rust toolchain (https://rustup.rs)")?;
        if !output.status.success() {
            bail!("cargo cannot read {} ({}); its messages are above", manifest.display(), output.status);
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata answered no JSON")?;
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(package) =
            packages.iter().find(|package| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))
        else {
            bail!("{} is a workspace without a package of its own: name the plugin's folder", manifest.display());
        };
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let is_cdylib =
            |target: &&serde_json::Value| target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"));
        let Some(library) = package["targets"].as_array().and_then(|targets| targets.iter().find(is_cdylib)) else {
            bail!("the crate `{name}` makes no module; its Cargo.toml needs:\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]");
        };
        Ok(Self {
            library: library["name"].as_str().unwrap_or_default().to_owned(),
            target_dir: metadata["target_directory"].as_str().unwrap_or_default().into(),
            name,
            manifest,
        })
    }
}
