//! What a component is, read from its bytes and never from its word: its imports are its permissions.

use anyhow::{Context, bail};
use wasmparser::{Encoding, Parser, Payload};

/// What plugins and host agree on.
const PACKAGE: &str = "millstream:plugin/";
/// The versions served: 0.1.x, as a prefix.
const SERVED: &str = "0.1.";

const BUILD: &str = "`millstream build` makes one";
const WITHOUT_WASI: &str =
    "build for wasm32-unknown-unknown, without WASI: `millstream build` does; time is the record's, and there are no files and no network";

/// The interfaces that a component imports, by their short names, in its order. Err: a message for the user.
pub fn imports(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
    if !bytes.starts_with(b"\0asm") {
        bail!("this is no WebAssembly: a plugin is a WebAssembly component; {BUILD}");
    }
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    // Components and modules nest; only what is on the outermost level counts.
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("this is no valid WebAssembly component")? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                bail!("this is a core WebAssembly module: a plugin is a component; {BUILD} from a crate")
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.context("this is no valid WebAssembly component")?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.context("this is no valid WebAssembly component")?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    exported(&exports)?;
    let mut names = Vec::new();
    for import in imports {
        if let Some(name) = imported(&import)? {
            names.push(name);
        }
    }
    Ok(names)
}

/// `millstream:plugin/state@0.1.3` as (`state`, `0.1.3`).
fn of_contract(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE).map(|name| name.split_once('@').unwrap_or((name, "")))
}

fn served(version: &str) -> bool {
    version.starts_with(SERVED)
}

fn exported(exports: &[String]) -> anyhow::Result<()> {
    match exports.iter().filter_map(|name| of_contract(name)).find(|(name, _)| *name == "transform") {
        Some((_, version)) if served(version) => Ok(()),
        Some((_, version)) => bail!(
            "it was built for version {version} of the plugin contract, this host serves {SERVED}x: build it anew with the SDK of this version"
        ),
        None => bail!("it does not export `millstream:plugin/transform`: it is a component, but no Millstream plugin"),
    }
}

/// The short name of an import; None for the types, which permit nothing.
fn imported(import: &str) -> anyhow::Result<Option<String>> {
    match of_contract(import) {
        Some((name, version)) if !served(version) => {
            bail!("it imports `{name}` of version {version} of the plugin contract, this host serves {SERVED}x")
        }
        Some(("types", _)) => Ok(None),
        Some((name @ ("state" | "tables" | "log" | "windows" | "timers"), _)) => Ok(Some(name.to_owned())),
        Some((name, _)) => bail!("it imports `{name}` of the plugin contract, which this host does not offer"),
        None if import.starts_with("wasi:") => bail!("it imports `{import}`, which no plugin is granted: {WITHOUT_WASI}"),
        None => bail!(
            "it imports `{import}`, which nobody offers: a plugin may import `state`, `tables`, `log`, `windows` and `timers` of `millstream:plugin`"
        ),
    }
}
