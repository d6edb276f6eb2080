//! From a file to a checked pipeline: the YAML as a tree with places (`yaml`), held against the language (`grammar`), names resolved (`resolve`),
//! plugins asked and types followed from source to sink (`stages`, `flow`). Every mistake is reported, not only the first.

mod attachments;
mod case;
mod declare;
mod diagnostic;
mod edit;
mod flow;
mod grammar;
mod resolve;
mod secret;
mod stages;
#[cfg(test)]
mod tests;
mod units;
mod with;
mod yaml;

pub use attachments::{Attachments, OnDisk, Recorded, is_path};
pub use case::{Case, Expect, ExpectRecord, Expected, ExpectedValue, Given, GivenRecord, GivenValue, Target};
pub use diagnostic::{Diagnostic, Diagnostics, Severity, Source, Span};
pub use edit::{plugins, schema_files, topics_read, with_plugin};
pub use secret::{Secrets, hide_secrets, resolve_secrets, secret_names, variable};
pub(crate) use units::{duration as parse_duration, start as parse_start};

use crate::pipeline::Pipeline;
use crate::plugin::Loader;
use diagnostic::Report;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A manifest without mistakes.
#[derive(Clone)]
pub struct Loaded {
    pub pipeline: Pipeline,
    pub cases: Vec<Case>,
    /// No errors among them.
    pub warnings: Diagnostics,
    /// What the spans of `cases` point into.
    pub source: Arc<Source>,
    places: Places,
}

/// Where topics and stages are named first.
#[derive(Clone, Debug, Default)]
struct Places {
    topics: HashMap<String, Span>,
    stages: HashMap<String, Span>,
}

impl Places {
    fn collect(root: &yaml::Node) -> Self {
        let mut places = Self::default();
        let owners =
            ["sources", "tables"].into_iter().filter_map(|key| root.get(key)).flat_map(yaml::Node::entries).map(|entry| &entry.value);
        let stages = root.get("stages").map(yaml::Node::items).unwrap_or_default();
        let sinks = root.get("sinks").map(yaml::Node::items).unwrap_or_default();
        let policies = std::iter::once(root).chain(stages).flat_map(|node| [node.get("on_error"), node.get("on_late")]);
        let policies = policies.filter_map(|policy| policy?.get("dead_letter"));
        for topic in owners.chain(sinks).filter_map(|node| node.get("topic")).chain(policies) {
            places.topics.entry(topic.text().unwrap_or_default().to_owned()).or_insert(topic.span);
        }
        for name in stages.iter().filter_map(|stage| stage.get("name")) {
            places.stages.entry(name.text().unwrap_or_default().to_owned()).or_insert(name.span);
        }
        places
    }
}

impl Loaded {
    /// A mistake that shows only outside of the file, at the place where it names this topic.
    pub fn about_topic(&self, topic: &str, message: String, help: Option<String>) -> Diagnostic {
        self.about(self.places.topics.get(topic), message, help)
    }

    /// The same for a stage.
    pub fn about_stage(&self, stage: &str, message: String, help: Option<String>) -> Diagnostic {
        self.about(self.places.stages.get(stage), message, help)
    }

    fn about(&self, span: Option<&Span>, message: String, help: Option<String>) -> Diagnostic {
        let span = span.copied().unwrap_or_default();
        Diagnostic { severity: Severity::Error, source: self.source.clone(), span, message, help }
    }
}

/// Reads and checks a manifest. Plugins are compiled and asked to describe themselves; nothing else runs.
pub fn load(path: &Path, loader: &dyn Loader) -> Result<Loaded, Diagnostics> {
    load_text(path, read(path)?, loader)
}

/// The text of a manifest's file.
pub fn read(path: &Path) -> Result<String, Diagnostics> {
    std::fs::read_to_string(path).map_err(|error| {
        let report = Report::new(Arc::new(Source { path: path.to_owned(), text: String::new() }));
        report.error(Span::default(), format!("cannot read the file: {error}"), None);
        report.finish()
    })
}

/// The same for a text that stands in no file; `path` is what diagnostics name, and what plugins' paths are relative to.
pub fn load_text(path: &Path, text: String, loader: &dyn Loader) -> Result<Loaded, Diagnostics> {
    load_with(path, text, loader, &OnDisk::beside(path))
}

/// The same with what it names beside itself from elsewhere; `path` is only what diagnostics name.
pub fn load_with(path: &Path, text: String, loader: &dyn Loader, attachments: &dyn Attachments) -> Result<Loaded, Diagnostics> {
    let source = Arc::new(Source { path: path.to_owned(), text });
    let report = Report::new(source.clone());
    let mut places = Places::default();
    let result = yaml::parse(&report).and_then(|root| {
        grammar::validate(&report, &root, &grammar::MANIFEST, root.head());
        places = Places::collect(&root);
        resolve::resolve(&report, &root, loader, attachments)
    });
    let failed = report.has_errors();
    let found = report.finish();
    match result {
        Some((pipeline, cases)) if !failed => Ok(Loaded { pipeline, cases, warnings: found, source, places }),
        _ => Err(found),
    }
}

/// The manifest's JSON schema (draft 7), for editors; kept in `host/docs/manifest.schema.json`.
pub fn json_schema() -> serde_json::Value {
    let mut schema = serde_json::json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A Millstream pipeline",
    });
    if let (Some(members), serde_json::Value::Object(language)) = (schema.as_object_mut(), grammar::schema_of(&grammar::MANIFEST)) {
        members.extend(language);
    }
    schema
}
