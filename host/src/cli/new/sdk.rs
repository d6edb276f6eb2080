//! The SDK's sources, carried in the program: the SDK is on no registry yet, so `new` writes them beside the plugin.

use anyhow::{Context, Result, bail};

// Written by build.rs: `FILES`, the SDK's files with their texts, and `WORKSPACE` and `LOCK`, the workspace's Cargo.toml and Cargo.lock.
include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// The SDK's files, with manifests that stand without this workspace.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    let text = |(file, text): &(&'static str, &str)| {
        let text = if file.ends_with("Cargo.toml") {
            stand_alone(text, WORKSPACE).with_context(|| format!("the SDK's {file}"))?
        } else {
            (*text).to_owned()
        };
        Ok((*file, text))
    };
    FILES.iter().map(text).collect()
}

/// Replaces what a manifest inherits from its workspace by what the workspace says. Line by line: both files are our own.
fn stand_alone(manifest: &str, workspace: &str) -> Result<String> {
    let mut out = String::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        if section == "[lints]" {
            continue;
        }
        let Some(key) = line.strip_suffix(".workspace = true") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let from = if section == "[package]" { "[workspace.package]" } else { "[workspace.dependencies]" };
        let Some(value) = value(workspace, from, key) else { bail!("{from} does not say what `{key}` is") };
        // Paths in the workspace begin at its root, of which the SDK is a folder.
        out.push_str(&format!("{key} = {}\n", value.replace("\"guest-sdk/", "\"")));
    }
    Ok(out)
}

fn value<'w>(workspace: &'w str, section: &str, key: &str) -> Option<&'w str> {
    let lines = workspace.lines().skip_while(|line| line.trim() != section).skip(1).take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_workspace_is_left() {
        let files = files().unwrap();
        let manifests: Vec<_> = files.iter().filter(|(file, _)| file.ends_with("Cargo.toml")).collect();
        assert_eq!(manifests.len(), 2);
        for (file, text) in manifests {
            let manifest: toml::Table = toml::from_str(text).unwrap();
            assert!(!text.contains("workspace"), "{file}:\n{text}");
            assert!(manifest["package"]["version"].is_str(), "{file}");
        }
        for wanted in ["src/lib.rs", "wit/plugin.wit", "macros/src/lib.rs", "README.md"] {
            assert!(files.iter().any(|(file, _)| *file == wanted), "{wanted} is not carried");
        }
        assert!(stand_alone("[package]\nname.workspace = true\n", "[workspace.package]\nversion = \"1\"\n").is_err());
    }
}
