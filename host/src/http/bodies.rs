//! What requests carry: a manifest with the files that it names, a component.

use crate::fleet::bundle::{Bundle, Component};
use crate::manifest::{Attachments, Loaded, is_path};
use crate::plugin::{Loader, standard};
use crate::verbs::{Exit, Failure};
use base64::Engine as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::path::Path;

/// Of `POST /v1/pipelines`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The manifest's text.
    manifest: String,
    /// The file's name, for messages.
    #[serde(default = "unnamed")]
    name: String,
    /// Files with schemas, by the paths that stand in the manifest.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Components by the paths that stand in the manifest, in base64.
    #[serde(default)]
    components: BTreeMap<String, String>,
}

/// Of `POST /v1/pipelines/{name}/swap`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    pub stage: String,
    /// A standard plugin, or how the component is called in the manifest: a path.
    pub plugin: String,
    /// In base64.
    component: Option<String>,
}

fn unnamed() -> String {
    "pipeline.yaml".to_owned()
}

pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| wrong(format!("the body is not the JSON that is expected: {error}")))
}

fn wrong(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn bytes(what: &str, text: &str) -> Result<Vec<u8>, Failure> {
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| wrong(format!("{what} is not base64: {error}")))
}

/// What a request carries; nothing is read from this host's files.
struct Sent {
    files: BTreeMap<String, String>,
    components: BTreeMap<String, Vec<u8>>,
}

impl Attachments for Sent {
    fn component(&self, written: &str) -> IoResult<Option<Cow<'static, [u8]>>> {
        match self.components.get(written) {
            Some(component) => Ok(Some(Cow::Owned(component.clone()))),
            None if is_path(written) => Err(not_sent("components", written)),
            None => Ok(standard::component(written).map(Cow::Borrowed)),
        }
    }

    fn schema(&self, written: &str) -> IoResult<String> {
        self.files.get(written).cloned().ok_or_else(|| not_sent("files", written))
    }
}

fn not_sent(field: &str, written: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the request does not carry it: put it under `{field}`, as `{written}`"))
}

impl Deploy {
    /// The checked pipeline with all that it names.
    pub fn load(self, loader: &dyn Loader) -> Result<(Bundle, Loaded), Failure> {
        let mut components = BTreeMap::new();
        for (written, text) in &self.components {
            components.insert(written.clone(), bytes(&format!("components: `{written}`"), text)?);
        }
        let sent = Sent { files: self.files, components };
        let (bundle, loaded) = Bundle::load(Path::new(&self.name), self.manifest, loader, &sent)?;
        let unknown =
            sent.components.keys().find(|written| !bundle.components.contains_key(*written)).map(|written| ("components", written));
        let unknown = unknown.or_else(|| sent.files.keys().find(|path| !bundle.files.contains_key(*path)).map(|path| ("files", path)));
        match unknown {
            // A slip of a path would else deploy something other than what was meant.
            Some((field, name)) => Err(wrong(format!("{field}: the manifest does not name `{name}`"))),
            None => Ok((bundle, loaded)),
        }
    }
}

impl Swap {
    pub fn component(&self, loader: &dyn Loader) -> Result<Component, Failure> {
        use anyhow::Context as _;
        let plugin = &self.plugin;
        let found: Cow<'static, [u8]> = match &self.component {
            Some(text) if is_path(plugin) => bytes("component", text)?.into(),
            Some(_) => {
                return Err(wrong(format!(
                    "plugin: `{plugin}` would be a standard plugin's name; call the component by a path, as in ./{plugin}.wasm"
                )));
            }
            None if is_path(plugin) => {
                return Err(wrong(format!("the request does not carry `{plugin}`: put it under `component`, in base64")));
            }
            None => {
                let names = standard::NAMES.join(", ");
                let known = standard::component(plugin);
                known.ok_or_else(|| wrong(format!("there is no standard plugin `{plugin}`; there are {names}")))?.into()
            }
        };
        let loaded = loader.load(&found).with_context(|| format!("{plugin} cannot be used"))?;
        Ok(Component::new(found, loaded.about()))
    }
}
