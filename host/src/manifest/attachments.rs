//! What a manifest names beside itself: components and files with schemas. Where they come from is not the manifest's: from files beside it, or from
//! a deployment that carries them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};

/// Gives what a manifest names, by the words in which it stands there.
pub trait Attachments {
    /// The component that `plugin:` names: a standard plugin's, or a file's. None: there is no standard plugin of that name.
    fn component(&self, written: &str) -> Result<Option<Cow<'static, [u8]>>>;
    /// The file that `schema: { file: ... }` names.
    fn schema(&self, written: &str) -> Result<String>;
}

/// Whether what stands under `plugin:` is a path rather than the name of a standard plugin.
pub fn is_path(written: &str) -> bool {
    written.contains(['/', '\\', '.'])
}

/// Files beside the manifest, and the standard plugins of this program.
pub struct OnDisk {
    folder: PathBuf,
    standard: fn(&str) -> Option<&'static [u8]>,
}

impl OnDisk {
    /// Beside the manifest of this path.
    pub fn beside(manifest: &Path) -> Self {
        Self::with_standard(manifest, crate::plugin::standard::component)
    }

    /// With other standard plugins, for tests.
    pub(crate) fn with_standard(manifest: &Path, standard: fn(&str) -> Option<&'static [u8]>) -> Self {
        Self { folder: manifest.parent().unwrap_or(Path::new("")).to_owned(), standard }
    }
}

impl Attachments for OnDisk {
    fn component(&self, written: &str) -> Result<Option<Cow<'static, [u8]>>> {
        if is_path(written) {
            return std::fs::read(self.folder.join(written)).map(|bytes| Some(bytes.into()));
        }
        Ok((self.standard)(written).map(Cow::Borrowed))
    }

    fn schema(&self, written: &str) -> Result<String> {
        std::fs::read_to_string(self.folder.join(written))
    }
}

/// Keeps what another gave.
pub struct Recorded<'a> {
    from: &'a dyn Attachments,
    pub components: RefCell<BTreeMap<String, Cow<'static, [u8]>>>,
    pub schemas: RefCell<BTreeMap<String, String>>,
}

impl<'a> Recorded<'a> {
    pub fn new(from: &'a dyn Attachments) -> Self {
        Self { from, components: RefCell::default(), schemas: RefCell::default() }
    }
}

impl Attachments for Recorded<'_> {
    fn component(&self, written: &str) -> Result<Option<Cow<'static, [u8]>>> {
        // Once: two stages of a plugin have one component, also when its file is written meanwhile.
        if let Some(known) = self.components.borrow().get(written) {
            return Ok(Some(known.clone()));
        }
        let found = self.from.component(written)?;
        if let Some(component) = &found {
            self.components.borrow_mut().insert(written.to_owned(), component.clone());
        }
        Ok(found)
    }

    fn schema(&self, written: &str) -> Result<String> {
        if let Some(known) = self.schemas.borrow().get(written) {
            return Ok(known.clone());
        }
        let found = self.from.schema(written)?;
        self.schemas.borrow_mut().insert(written.to_owned(), found.clone());
        Ok(found)
    }
}
