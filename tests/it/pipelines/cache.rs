//! Compiled plugins are kept, and never needed.

use super::{Place, success, text};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

const MANIFEST: &str = "\
pipeline: NAME
sources: { in: { topic: in, schema: { n: int } } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n > 0' } }
sinks: [{ from: keep, topic: out }]
";

fn check(place: &Place, cache: &Path) -> Output {
    let output = place.command(&["check", "pipeline.yaml", "--log", "millstream=debug"]).env("MILLSTREAM_CACHE", cache).output().unwrap();
    success(&output);
    output
}

/// Whether the plugin came from the cache.
fn kept(output: &Output) -> bool {
    let said = text(&output.stderr);
    let ready: Vec<_> = said.lines().filter(|line| line.contains("a component is ready")).collect();
    assert_eq!(ready.len(), 1, "{said}");
    ready[0].contains("kept=true")
}

/// Files with compiled code.
fn compiled(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            compiled(&path, found);
        } else if path.extension().is_none() {
            found.push(path);
        }
    }
}

#[test]
fn a_plugin_is_compiled_once_whatever_befalls_the_cache() {
    let place = Place::embedded();
    place.write(MANIFEST);
    let cache = place.path().join("cache/millstream");
    assert!(!kept(&check(&place, &cache)));
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(kept(&check(&place, &cache)));

    let mut files = Vec::new();
    compiled(&cache, &mut files);
    assert_eq!(files.len(), 1, "{files:?}");
    for damaged in [b"".to_vec(), b"no code at all".to_vec(), std::fs::read(&files[0]).unwrap()[..1000].to_vec()] {
        std::fs::write(&files[0], damaged).unwrap();
        assert!(!kept(&check(&place, &cache)), "what is damaged is compiled anew");
        assert!(kept(&check(&place, &cache)));
    }

    // Another user could put code there.
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = check(&place, &cache);
    assert!(!kept(&output));
    assert!(text(&output.stderr).contains("others may write to it; --cache names another folder"), "{}", text(&output.stderr));
    // No folder at all.
    assert!(!kept(&check(&place, &place.path().join("pipeline.yaml"))));
}
