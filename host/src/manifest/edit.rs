//! Changes a manifest's text at one place, and nowhere else.

use super::diagnostic::{Report, Source};
use super::yaml::{self, Node};
use std::path::Path;
use std::sync::Arc;

/// The text with the `plugin:` of one stage replaced; every other byte stays. Err: why that cannot be.
pub fn with_plugin(text: &str, stage: &str, plugin: &str) -> Result<String, String> {
    let root = parse(text).ok_or("the manifest is not YAML")?;
    let (at, node) = find(&root, stage)?;
    let span = node.get("plugin").ok_or_else(|| format!("stage `{stage}` has no `plugin:`"))?.span;
    let (before, after) = text.get(..span.start).zip(text.get(span.end..)).ok_or("the manifest cannot be cut at its plugin")?;
    let changed = format!("{before}{}{after}", scalar(plugin));
    // What stands under an anchor is somewhere else too: nothing else may mean something else now.
    let mut wanted = root.to_json();
    if let Some(value) = wanted.pointer_mut(&format!("/stages/{at}/plugin")) {
        *value = plugin.into();
    }
    if parse(&changed).is_none_or(|found| found.to_json() != wanted) {
        return Err(format!(
            "the plugin of stage `{stage}` cannot be replaced alone: it is written with a YAML anchor or alias, or as a block; write it plainly in the file, and deploy that"
        ));
    }
    Ok(changed)
}

/// What a manifest says under `plugin:`, by stage, in its order.
pub fn plugins(text: &str) -> Vec<(String, String)> {
    let Some(root) = parse(text) else { return Vec::new() };
    let word = |node: &Node, key| node.get(key).and_then(Node::text).map(str::to_owned);
    stages(&root).iter().filter_map(|node| Some((word(node, "name")?, word(node, "plugin")?))).collect()
}

/// The topics that a manifest reads by itself: of its sources and partitioned tables.
pub fn topics_read(text: &str) -> Vec<String> {
    let Some(root) = parse(text) else { return Vec::new() };
    let entries = |key| root.get(key).map(Node::entries).unwrap_or_default().iter().map(|entry| &entry.value);
    let partitioned = |node: &&Node| node.get("scope").and_then(Node::text) == Some("partitioned");
    let tables = entries("tables").filter(partitioned);
    entries("sources").chain(tables).filter_map(|node| Some(node.get("topic")?.text()?.to_owned())).collect()
}

/// The schema files that a manifest names, as it has them.
pub fn schema_files(text: &str) -> Vec<String> {
    let Some(root) = parse(text) else { return Vec::new() };
    let entries = |key| root.get(key).map(Node::entries).unwrap_or_default().iter().map(|entry| &entry.value);
    let file = |node: &Node| Some(node.get("schema")?.get("file")?.text()?.to_owned());
    entries("sources").chain(entries("tables")).filter_map(file).collect()
}

fn parse(text: &str) -> Option<Node> {
    let report = Report::new(Arc::new(Source { path: Path::new("").to_owned(), text: text.to_owned() }));
    yaml::parse(&report)
}

fn stages(root: &Node) -> &[Node] {
    root.get("stages").map(Node::items).unwrap_or_default()
}

fn find<'a>(root: &'a Node, stage: &str) -> Result<(usize, &'a Node), String> {
    let name = |node: &'a Node| node.get("name").and_then(Node::text);
    stages(root).iter().enumerate().find(|(_, node)| name(node) == Some(stage)).ok_or_else(|| {
        let names: Vec<&str> = stages(root).iter().filter_map(name).collect();
        match super::diagnostic::nearest(stage, names.iter().copied()) {
            Some(near) => format!("there is no stage `{stage}`; did you mean `{near}`?"),
            None => format!("there is no stage `{stage}`; there are {}", names.join(", ")),
        }
    })
}

/// A text as a YAML scalar, in quotes only where it must be.
fn scalar(text: &str) -> String {
    let harmless = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-@".contains(c)) && !text.starts_with(['-', '@']);
    // `true`, `1.0` and the like are something else without quotes.
    let plain = harmless && parse(text).is_some_and(|node| node.text() == Some(text));
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plugin_is_replaced_and_every_other_byte_stays() {
        let text = "# ä comment\npipeline: p\nstages:\n  - name: a   # first\n    plugin:   filter    # kept\n    with: { plugin: filter }\n  - { name: b, plugin: \"./b.wasm\", with: {} }\nsinks: []\n";
        let changed = with_plugin(text, "a", "./new/a.wasm").unwrap();
        assert_eq!(changed, text.replace("plugin:   filter    #", "plugin:   ./new/a.wasm    #"));
        let changed = with_plugin(text, "b", "mask").unwrap();
        assert_eq!(changed, text.replace("\"./b.wasm\"", "mask"));
        let changed = with_plugin(text, "b", "./it's {new}: #1.wasm").unwrap();
        assert_eq!(changed, text.replace("\"./b.wasm\"", "\"./it's {new}: #1.wasm\""));
        assert_eq!(plugins(&changed)[1], ("b".to_owned(), "./it's {new}: #1.wasm".to_owned()));
        for odd in ["true", "1.0", "~", "-", "", "a\nb", "*x", "\u{1F600}.wasm"] {
            let changed = with_plugin(text, "a", odd).unwrap();
            assert_eq!(plugins(&changed)[0].1, odd);
        }
    }

    #[test]
    fn topics_are_those_of_sources_and_partitioned_tables() {
        let text = "sources: { a: { topic: one } }\ntables: { b: { topic: two }, c: { topic: three, scope: partitioned } }\nsinks: [{ topic: four }]\n";
        assert_eq!(topics_read(text), ["one", "three"]);
        assert!(topics_read("sources: [").is_empty() && topics_read("sources: 1").is_empty());
    }

    #[test]
    fn what_would_change_more_is_refused() {
        let error = with_plugin("stages: [{ name: abc, plugin: filter }]", "abd", "mask").unwrap_err();
        assert!(error.contains("did you mean `abc`"), "{error}");
        let shared = "stages:\n  - { name: a, plugin: &p filter }\n  - { name: b, plugin: *p }\n";
        assert!(with_plugin(shared, "a", "mask").unwrap_err().contains("anchor"));
        assert_eq!(with_plugin(shared, "b", "mask").unwrap(), shared.replace("*p", "mask"));
        let whole = "other: &s { name: a, plugin: filter }\nstages: [*s]\n";
        assert!(with_plugin(whole, "a", "mask").unwrap_err().contains("anchor"));
        assert!(with_plugin("stages: [{ name: a }]", "a", "mask").unwrap_err().contains("no `plugin:`"));
        assert!(with_plugin("stages: {", "a", "mask").is_err());
    }
}
