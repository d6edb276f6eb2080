//! Components as they come from the control topic: gathered chunk by chunk, verified by their digest, kept as files.

use sha2::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// SHA-256 of a component, hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The components of a fleet that this process has seen whole, in a folder.
#[derive(Debug)]
pub struct Components {
    folder: PathBuf,
    /// Chunks of components that are not whole yet.
    open: BTreeMap<String, Gathered>,
    whole: BTreeSet<String>,
    /// Deletes the folder with this, where none was named.
    _temporary: Option<tempfile::TempDir>,
}

#[derive(Debug, Default)]
struct Gathered {
    count: u32,
    chunks: BTreeMap<u32, Vec<u8>>,
}

/// Of what a record of the topic says: no component is so big.
const MOST_CHUNKS: u32 = 2048;

impl Components {
    /// In `<cache>/components`, made if it is missing; without a cache, or where it cannot be used, in a folder that is gone afterwards.
    pub fn open(cache: Option<&Path>) -> std::io::Result<Self> {
        let make = |folder: PathBuf| {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // Whether one can write there shows when one does.
            tempfile::NamedTempFile::new_in(&folder)?;
            Ok::<_, std::io::Error>(folder)
        };
        let kept = cache.and_then(|cache| {
            let folder = cache.join("components");
            make(folder.clone()).inspect_err(|error| tracing::debug!("components are not kept in {}: {error}", folder.display())).ok()
        });
        let (folder, temporary) = match kept {
            Some(folder) => (folder, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("millstream-components-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        Ok(Self { folder, open: BTreeMap::new(), whole: BTreeSet::new(), _temporary: temporary })
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }

    /// Whether the topic has every chunk.
    pub fn has(&self, digest: &str) -> bool {
        self.whole.contains(digest)
    }

    /// A chunk of the topic. Err: why it, or the component that it completes, is none.
    pub fn add(&mut self, digest: &str, chunk: u32, bytes: &[u8], count: u32) -> Result<(), String> {
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("it is named by something else than a SHA-256".to_owned());
        }
        if count > MOST_CHUNKS || chunk >= count {
            return Err(format!("chunk {chunk} of {count}: there are at most {MOST_CHUNKS}"));
        }
        if self.whole.contains(digest) {
            return Ok(());
        }
        let gathered = self.open.entry(digest.to_owned()).or_default();
        if gathered.count != count {
            *gathered = Gathered { count, chunks: BTreeMap::new() };
        }
        gathered.chunks.insert(chunk, bytes.to_vec());
        if gathered.chunks.len() < count as usize {
            return Ok(());
        }
        let Some(gathered) = self.open.remove(digest) else { return Ok(()) };
        let component: Vec<u8> = gathered.chunks.into_values().flatten().collect();
        if self::digest(&component) != digest {
            return Err("its chunks do not make what its digest says".to_owned());
        }
        self.keep(digest, &component).map_err(|error| format!("cannot keep it in {}: {error}", self.folder.display()))?;
        self.whole.insert(digest.to_owned());
        Ok(())
    }

    /// A chunk is gone from the topic, and with it the component.
    pub fn remove(&mut self, digest: &str, chunk: u32) {
        self.whole.remove(digest);
        if let Some(gathered) = self.open.get_mut(digest) {
            gathered.chunks.remove(&chunk);
        }
    }

    /// Before its chunks are read again.
    pub fn forget(&mut self, digest: &str) {
        self.whole.remove(digest);
        self.open.remove(digest);
    }

    /// Written aside and moved into place: other processes keep theirs in the same folder.
    fn keep(&self, digest: &str, component: &[u8]) -> std::io::Result<()> {
        let path = self.file(digest);
        if std::fs::read(&path).is_ok_and(|kept| kept == component) {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(component)?;
        file.persist(&path)?;
        Ok(())
    }

    /// The component, verified. None: the topic has not all of it, or the file was deleted or changed since.
    pub fn get(&self, digest: &str) -> Option<Vec<u8>> {
        let bytes = self.whole.contains(digest).then(|| std::fs::read(self.file(digest)).ok())??;
        (self::digest(&bytes) == digest).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_kept_when_it_is_whole_and_right() {
        let folder = tempfile::tempdir().unwrap();
        let mut components = Components::open(Some(folder.path())).unwrap();
        let digest = digest(b"component");
        // In any order, one of them twice.
        components.add(&digest, 1, b"nent", 2).unwrap();
        components.add(&digest, 1, b"nent", 2).unwrap();
        assert!(!components.has(&digest) && components.get(&digest).is_none());
        components.add(&digest, 0, b"compo", 2).unwrap();
        assert_eq!(components.get(&digest).as_deref(), Some(&b"component"[..]));
        let file = folder.path().join(format!("components/{digest}.wasm"));
        assert_eq!(std::fs::read(&file).unwrap(), b"component");

        std::fs::write(&file, b"something else").unwrap();
        assert_eq!(components.get(&digest), None, "what another wrote is not run");
        let mut again = Components::open(Some(folder.path())).unwrap();
        again.add(&digest, 0, b"component", 1).unwrap();
        assert_eq!(again.get(&digest).as_deref(), Some(&b"component"[..]), "a damaged file is mended");
        again.remove(&digest, 0);
        assert!(!again.has(&digest));
    }

    #[test]
    fn what_is_not_what_it_says_is_refused() {
        let mut components = Components::open(None).unwrap();
        let right = digest(b"component");
        assert!(components.add(&right, 0, b"another", 1).unwrap_err().contains("digest"));
        assert!(!components.has(&right));
        for (name, chunk, count) in [("../../etc/passwd", 0, 1), (&*right, 1, 1), (&*right, 0, 0), (&*right, 0, u32::MAX)] {
            assert!(components.add(name, chunk, b"component", count).is_err(), "{name} {chunk} {count}");
        }
        components.add(&right, 0, b"component", 1).unwrap();
    }

    #[test]
    fn without_a_usable_cache_they_live_as_long_as_the_process_wants() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for cache in [None, Some(file.path())] {
            let mut components = Components::open(cache).unwrap();
            let digest = digest(b"x");
            components.add(&digest, 0, b"x", 1).unwrap();
            let kept = components.file(&digest);
            assert!(kept.exists());
            drop(components);
            assert!(!kept.exists());
        }
    }
}
