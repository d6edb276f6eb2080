//! A pipeline with all that its manifest names: taken from files once, then carried by the control topic, so that hosts need no files.

use super::component::digest;
use super::record::{CHUNK, ComponentRef, Generation};
use crate::manifest::{self, Attachments, Diagnostics, Loaded, OnDisk, Recorded};
use crate::plugin::Loader;
use crate::plugin::describe::About;
use sha2::Digest;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// The largest manifest with its schema files, bytes: a record of the control topic, which Kafka takes up to a mebibyte by default,
/// and in JSON a line's end takes two.
pub const MOST_TEXT: usize = 512 << 10;

/// A component and what it says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub reference: ComponentRef,
    pub bytes: Cow<'static, [u8]>,
}

impl Component {
    pub fn new(bytes: Cow<'static, [u8]>, about: &About) -> Self {
        let chunks = u32::try_from(bytes.len().div_ceil(CHUNK).max(1)).unwrap_or(u32::MAX);
        let (name, version) = (about.name.clone(), about.version.clone());
        let reference = ComponentRef { digest: digest(&bytes), bytes: bytes.len() as u64, chunks, name, version };
        Self { reference, bytes }
    }
}

/// A manifest with all that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The file's name, for diagnostics.
    pub name: String,
    pub manifest: String,
    /// Files with schemas, by their paths as the manifest has them.
    pub files: BTreeMap<String, String>,
    /// By what the manifest says under `plugin:`.
    pub components: BTreeMap<String, Component>,
}

impl Bundle {
    /// Reads a manifest and checks it, with what it names beside itself.
    pub fn read(path: &Path, loader: &dyn Loader) -> Result<(Self, Loaded), Diagnostics> {
        Self::load(path, manifest::read(path)?, loader, &OnDisk::beside(path))
    }

    /// The same for a text, with what it names from anywhere; diagnostics name `path`.
    pub fn load(path: &Path, text: String, loader: &dyn Loader, attachments: &dyn Attachments) -> Result<(Self, Loaded), Diagnostics> {
        let recorded = Recorded::new(attachments);
        let loaded = manifest::load_with(path, text.clone(), loader, &recorded)?;
        let components = recorded.components.into_inner().into_iter().map(|(written, bytes)| {
            // It was loaded before, for its stage.
            let about = loader.load(&bytes).map(|plugin| plugin.about().clone()).unwrap_or_default();
            (written, Component::new(bytes, &about))
        });
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let bundle = Self { name, manifest: text, components: components.collect(), files: recorded.schemas.into_inner() };
        Ok((bundle, loaded))
    }

    /// What a generation carries, with its components.
    pub fn of(generation: &Generation, component: &mut dyn FnMut(&ComponentRef) -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Self> {
        let mut components = BTreeMap::new();
        for (written, reference) in &generation.plugins {
            let bytes = Cow::Owned(component(reference)?);
            components.insert(written.clone(), Component { reference: reference.clone(), bytes });
        }
        let (name, manifest, files) = (generation.name.clone(), generation.manifest.clone(), generation.files.clone());
        Ok(Self { name, manifest, files, components })
    }

    /// The checked pipeline; no file is read.
    pub fn pipeline(&self, loader: &dyn Loader) -> Result<Loaded, Diagnostics> {
        manifest::load_with(&PathBuf::from(&self.name), self.manifest.clone(), loader, self)
    }

    /// References to its components, for a generation's record.
    pub fn plugins(&self) -> BTreeMap<String, ComponentRef> {
        self.components.iter().map(|(written, component)| (written.clone(), component.reference.clone())).collect()
    }

    /// Of manifest, files and plugins: the first 16 hexadecimal digits of a SHA-256.
    pub fn digest(&self) -> String {
        let mut hash = sha2::Sha256::new();
        // With lengths, so that nothing of one part can be taken for another's.
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(&self.manifest);
        add(&self.files.len().to_string());
        for (path, text) in &self.files {
            add(path);
            add(text);
        }
        for (written, component) in &self.components {
            add(written);
            add(&component.reference.digest);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Err: it does not fit into a record of the control topic.
    pub fn check_size(&self) -> Result<(), String> {
        let size = self.manifest.len() + self.files.iter().map(|(path, text)| path.len() + text.len()).sum::<usize>();
        if size > MOST_TEXT {
            return Err(format!(
                "the manifest and its schema files are {} KiB together, but a deployment holds {} KiB of text at most: move test data out of the manifest",
                size.div_ceil(1024),
                MOST_TEXT >> 10
            ));
        }
        Ok(())
    }

    /// Replaces the plugin of one stage: `written` is how it is named, by a path or as a standard plugin. Err: why that cannot be.
    ///
    /// Where other stages name their plugin in the same words, but have another component, the new one is named with the beginning of its digest.
    pub fn with_plugin(&self, stage: &str, written: &str, component: Component) -> Result<Self, String> {
        let others = manifest::plugins(&self.manifest).into_iter().any(|(name, plugin)| name != stage && plugin == written);
        let differs = self.components.get(written).is_some_and(|known| known.reference.digest != component.reference.digest);
        let written = if others && differs {
            format!("{written}@{}", component.reference.digest.get(..8).unwrap_or_default())
        } else {
            written.to_owned()
        };
        let mut changed = self.clone();
        changed.manifest = manifest::with_plugin(&self.manifest, stage, &written)?;
        changed.components.insert(written, component);
        let named: Vec<String> = manifest::plugins(&changed.manifest).into_iter().map(|(_, plugin)| plugin).collect();
        changed.components.retain(|written, _| named.contains(written));
        Ok(changed)
    }
}

impl Attachments for Bundle {
    fn component(&self, written: &str) -> std::io::Result<Option<Cow<'static, [u8]>>> {
        match self.components.get(written) {
            Some(component) => Ok(Some(component.bytes.clone())),
            None => Err(Error::new(ErrorKind::NotFound, "the deployment does not carry it")),
        }
    }

    fn schema(&self, written: &str) -> std::io::Result<String> {
        self.files.get(written).cloned().ok_or_else(|| Error::new(ErrorKind::NotFound, "the deployment does not carry it"))
    }
}

/// A generation's checked pipeline, of its components alone: for hosts. `component`: gives a component by its digest, verified.
pub fn load(
    generation: &Generation,
    component: &mut dyn FnMut(&ComponentRef) -> anyhow::Result<Vec<u8>>,
    loader: &dyn Loader,
) -> anyhow::Result<Loaded> {
    Ok(Bundle::of(generation, component)?.pipeline(loader)?)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Class, Kind};
    use super::*;
    use crate::plugin::engine::Engine;
    use crate::plugin::standard;

    const MANIFEST: &str = "pipeline: p
sources: { in: { topic: in, schema: { file: s.yaml, more: int } } }
stages:
  - { name: a, plugin: filter, with: { where: 'stars < 3' } }
  - { name: b, plugin: ./own.wasm, with: { where: 'more > 1' } }
sinks: [{ from: b, topic: out }]
";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), MANIFEST).unwrap();
        std::fs::write(folder.path().join("s.yaml"), "stars: int\n").unwrap();
        std::fs::write(folder.path().join("own.wasm"), standard::component("filter").unwrap()).unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Bundle {
        Bundle::read(&folder.path().join("p.yaml"), &Engine::new().unwrap()).map_err(|found| found.to_string()).unwrap().0
    }

    fn generation(bundle: &Bundle) -> Generation {
        Generation {
            number: 1,
            base: 0,
            kind: Kind::Deploy,
            manifest: bundle.manifest.clone(),
            name: bundle.name.clone(),
            files: bundle.files.clone(),
            plugins: bundle.plugins(),
            class: Class::New,
            digest: bundle.digest(),
            at: 0,
            by: String::new(),
            epoch: 0,
            withdrawn: None,
        }
    }

    #[test]
    fn a_deployment_needs_no_files() {
        let folder = folder();
        let bundle = read(&folder);
        assert_eq!(bundle.name, "p.yaml");
        assert_eq!(bundle.files, BTreeMap::from([("s.yaml".to_owned(), "stars: int\n".to_owned())]));
        let plugins = bundle.plugins();
        assert_eq!(plugins.keys().collect::<Vec<_>>(), ["./own.wasm", "filter"]);
        assert_eq!(plugins["filter"].digest, plugins["./own.wasm"].digest);
        assert_eq!((plugins["filter"].name.as_str(), plugins["filter"].version.as_str()), ("filter", env!("CARGO_PKG_VERSION")));
        drop(folder);

        let generation = serde_json::to_string(&generation(&bundle)).unwrap();
        let generation: Generation = serde_json::from_str(&generation).unwrap();
        let mut component = |reference: &ComponentRef| {
            let found = bundle.components.values().find(|known| known.reference.digest == reference.digest);
            Ok(found.unwrap().bytes.to_vec())
        };
        let loaded = load(&generation, &mut component, &Engine::new().unwrap()).unwrap();
        let stages: Vec<_> = loaded.pipeline.stages.iter().map(|stage| (stage.name.as_str(), stage.plugin.digest().to_owned())).collect();
        let digest = plugins["filter"].digest.clone();
        assert_eq!(stages, [("a", digest.clone()), ("b", digest)]);
        assert_eq!(Bundle::of(&generation, &mut component).unwrap(), bundle);
        let lost = load(&generation, &mut |_| anyhow::bail!("lost"), &Engine::new().unwrap());
        assert_eq!(lost.err().unwrap().to_string(), "lost");
    }

    #[test]
    fn a_standard_plugin_is_the_one_that_was_deployed() {
        let folder = folder();
        let mut bundle = read(&folder);
        let mut other = bundle.components["filter"].clone();
        other.bytes = Cow::Borrowed(standard::component("mask").unwrap());
        bundle.components.insert("filter".to_owned(), other);
        let found = bundle.pipeline(&Engine::new().unwrap()).err().unwrap().to_string();
        assert!(found.contains("where"), "mask knows no `where`: {found}");
        bundle.components.remove("filter");
        let found = bundle.pipeline(&Engine::new().unwrap()).err().unwrap().to_string();
        assert!(found.contains("does not carry it"), "{found}");
    }

    #[test]
    fn the_digest_tells_every_part() {
        let folder = folder();
        let bundle = read(&folder);
        let digest = bundle.digest();
        assert_eq!(digest.len(), 16);
        assert_eq!(read(&folder).digest(), digest);
        let mut changed = bundle.clone();
        changed.manifest.push('\n');
        assert_ne!(changed.digest(), digest);
        let mut changed = bundle.clone();
        changed.files.insert("s.yaml".to_owned(), "stars: int?\n".to_owned());
        assert_ne!(changed.digest(), digest);
        let mut changed = bundle.clone();
        changed.components.get_mut("filter").unwrap().reference.digest.replace_range(..1, "x");
        assert_ne!(changed.digest(), digest);
        assert!(bundle.check_size().is_ok());
        let mut big = bundle;
        big.files.insert("x".to_owned(), " ".repeat(MOST_TEXT));
        assert!(big.check_size().is_err());
    }

    #[test]
    fn a_swap_changes_one_stage_though_another_has_the_same_file() {
        let folder = folder();
        let text = MANIFEST.replace("plugin: filter", "plugin: ./own.wasm");
        std::fs::write(folder.path().join("p.yaml"), &text).unwrap();
        let bundle = read(&folder);
        let mut newer = bundle.components["./own.wasm"].clone();
        newer.reference.digest = "ab".repeat(32);
        let swapped = bundle.with_plugin("a", "./own.wasm", newer.clone()).unwrap();
        assert_eq!(manifest::plugins(&swapped.manifest)[0].1, "./own.wasm@abababab");
        assert_eq!(manifest::plugins(&swapped.manifest)[1].1, "./own.wasm");
        assert_eq!(swapped.components["./own.wasm"], bundle.components["./own.wasm"]);
        // Of one stage alone, the words stay.
        let again = swapped.with_plugin("a", "mask", newer.clone()).unwrap();
        assert_eq!(again.plugins().keys().collect::<Vec<_>>(), ["./own.wasm", "mask"]);
        assert!(bundle.with_plugin("c", "mask", newer).unwrap_err().contains("no stage `c`"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let found = Bundle::read(Path::new("/nowhere/p.yaml"), &Engine::new().unwrap()).err().unwrap().to_string();
        assert!(found.contains("cannot read the file"), "{found}");
    }
}
