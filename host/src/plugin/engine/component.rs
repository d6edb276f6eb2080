//! What a component is, read from its bytes and never from its word: its imports are its permissions, the names of its interfaces tell the version of the
//! contract that it was built for.

use super::contract::{CONTRACT, Contract};
use anyhow::{Context, bail};
use wasmparser::{Encoding, Parser, Payload};

/// What plugins and host agree on.
const PACKAGE: &str = "millstream:plugin/";

const BUILD: &str = "`millstream build` makes one";
const WITHOUT_WASI: &str =
    "build for wasm32-unknown-unknown, without WASI: `millstream build` does; time is the record's, and there are no files and no network";

/// What a component's bytes tell.
pub struct Surface {
    /// The interfaces that it imports, by their short names, in its order.
    pub imports: Vec<String>,
    /// The highest version of the contract that one of its interfaces is of.
    pub contract: Contract,
}

/// Reads a component. Err: a message for the user: no component, no plugin, a contract that this host does not serve, an import that nobody offers.
pub fn surface(bytes: &[u8]) -> anyhow::Result<Surface> {
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
    let contract = contract(&imports, &exports)?;
    let mut names = Vec::new();
    for import in imports {
        if let Some(name) = imported(&import)? {
            names.push(name);
        }
    }
    Ok(Surface { imports: names, contract })
}

/// `millstream:plugin/state@1.0.3` as (`state`, `1.0.3`).
fn of_contract(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE).map(|name| name.split_once('@').unwrap_or((name, "")))
}

/// Goes by every interface: one that was put together of several parts may name several versions.
fn contract(imports: &[String], exports: &[String]) -> anyhow::Result<Contract> {
    if !exports.iter().filter_map(|name| of_contract(name)).any(|(name, _)| name == "transform") {
        bail!("it does not export `millstream:plugin/transform`: it is a component, but no Millstream plugin");
    }
    let mut highest = Contract { major: CONTRACT.major, minor: 0 };
    for (_, version) in imports.iter().chain(exports).filter_map(|name| of_contract(name)) {
        highest = highest.max(CONTRACT.serves(version)?);
    }
    Ok(highest)
}

/// The short name of an import; None for the types, which permit nothing.
fn imported(import: &str) -> anyhow::Result<Option<String>> {
    match of_contract(import) {
        Some(("types", _)) => Ok(None),
        Some((name @ ("state" | "tables" | "log" | "windows" | "timers"), _)) => Ok(Some(name.to_owned())),
        Some((name, _)) => bail!("it imports `{name}` of the plugin contract, which this host does not offer"),
        None if import.starts_with("wasi:") => bail!("it imports `{import}`, which no plugin is granted: {WITHOUT_WASI}"),
        None => bail!(
            "it imports `{import}`, which nobody offers: a plugin may import `state`, `tables`, `log`, `windows` and `timers` of `millstream:plugin`"
        ),
    }
}
