//! Compiled components on disk, so that a machine compiles a plugin once. The cache is wasmtime's own, keyed by the component, the engine's settings
//! and wasmtime's version, and bounded in size. Native code is loaded from it: nobody else may write to its folder.

use anyhow::{Context, ensure};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use wasmtime::{Cache, CacheConfig};

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Keeps compiled plugins in this folder, which need not exist. To be called before the first engine is made; the first call counts.
pub fn keep_compiled(folder: PathBuf) {
    let _ = FOLDER.set(folder);
}

/// None where no folder was named, or where it cannot be used: then every process compiles for itself.
pub fn open() -> Option<Cache> {
    let folder = FOLDER.get()?;
    // In a folder of its own: what wasmtime does not know in its folder, it deletes.
    let opened = prepare(folder).and_then(|folder| prepare(&folder.join("compiled"))).and_then(|folder| {
        let mut config = CacheConfig::new();
        config.with_directory(folder);
        Ok(Cache::new(config)?)
    });
    opened
        .inspect_err(|error| {
            tracing::debug!("compiled plugins are not kept in {}: {error:#}; --cache names another folder", folder.display())
        })
        .ok()
}

/// The folder as an absolute path, made if it is missing.
fn prepare(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).context("it cannot be created")?;
    let found = std::fs::metadata(&folder)?;
    ensure!(found.uid() == rustix::process::geteuid().as_raw(), "it belongs to another user");
    ensure!(found.mode() & 0o022 == 0, "others may write to it");
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = prepare(&parent.path().join("a/b")).unwrap();
        for made in [folder.as_path(), folder.parent().unwrap()] {
            assert_eq!(std::fs::metadata(made).unwrap().mode() & 0o777, 0o700, "{}", made.display());
        }
        prepare(&folder).unwrap();
    }

    #[test]
    fn no_native_code_is_loaded_from_where_others_may_write() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o722, 0o720, 0o702] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(prepare(folder.path()).is_err(), "{mode:o}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(prepare(file.path()).is_err(), "a file is no folder");
    }
}
