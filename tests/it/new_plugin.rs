//! From nothing to a plugin of one's own, outside the clone: `new`, `cargo test`, `build`.

use std::path::Path;
use std::process::{Command, Output};

fn millstream(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millstream")).args(arguments).current_dir(folder).output().unwrap()
}

fn succeeds(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Cargo as a user calls it: not with what the cargo around this test has set.
fn cargo(folder: &Path, target: &Path, arguments: &[&str]) -> Output {
    Command::new("cargo").args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS").output().unwrap()
}

const KINDS: [&str; 5] = ["filter", "map", "route", "aggregate", "enrich"];

#[test]
fn every_kind_of_new_plugin_passes_its_tests_and_builds() {
    let folder = tempfile::tempdir().unwrap();
    // One folder for what all of them compile alike.
    let target = folder.path().join("target");
    for kind in KINDS {
        let name = format!("my-{kind}");
        succeeds(millstream(folder.path(), &["new", "plugin", &name, "--kind", kind]));
        let tests = cargo(&folder.path().join(&name), &target, &["test"]);
        assert!(succeeds(tests).contains("test result: ok. 1 passed"), "{kind}");
        // The others are built alike.
        if !matches!(kind, "filter" | "aggregate" | "enrich") {
            continue;
        }

        let build = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["build", &name, "--output", "json"])
            .current_dir(folder.path())
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_str(&succeeds(build)).unwrap();
        assert_eq!((report["name"].as_str(), report["version"].as_str()), (Some(name.as_str()), Some("0.1.0")));
        // A component imports what it uses and nothing else: its imports are its permissions.
        let imports = match kind {
            "aggregate" => vec!["log", "state"],
            "enrich" => vec!["log", "tables"],
            _ => vec!["log"],
        };
        let mut found: Vec<_> = report["imports"].as_array().unwrap().iter().filter_map(|import| import.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, imports, "{kind}");
        let file = folder.path().join(&name).join(format!("{name}.wasm"));
        assert_eq!(report["size"].as_u64(), Some(file.metadata().unwrap().len()), "{kind}");
    }
}

#[test]
fn new_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(millstream(folder.path(), &["new", "pipeline", "mine"]));
    let before = std::fs::read_to_string(folder.path().join("mine/pipeline.yaml")).unwrap();
    assert!(before.contains("pipeline: mine"));
    for what in [["new", "pipeline", "mine"], ["new", "plugin", "mine"]] {
        let output = millstream(folder.path(), &what);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("is there already"));
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("mine/pipeline.yaml")).unwrap(), before);
}

#[test]
fn build_shows_what_is_wrong_with_the_crate() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |expected: &str| {
        let output = millstream(folder.path(), &["build"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "expected `{expected}` in:\n{text}");
    };
    wrong("has no Cargo.toml");
    let manifest = "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), "pub fn f() {").unwrap();
    wrong("crate-type = [\"cdylib\"");
    std::fs::write(folder.path().join("Cargo.toml"), format!("{manifest}[lib]\ncrate-type = [\"cdylib\"]\n")).unwrap();
    wrong("this file contains an unclosed delimiter");
    std::fs::write(folder.path().join("src/lib.rs"), "pub fn f() {}").unwrap();
    wrong("the module exports no plugin");
}

#[test]
fn the_sdk_carries_the_contract_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert!(read("wit/plugin.wit") == read("guest-sdk/wit/plugin.wit"), "copy wit/plugin.wit to guest-sdk/wit/");
}
