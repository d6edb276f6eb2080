//! Stages in their order: load the plugin, hold the configuration against it, let it describe itself, follow the types.

use super::attachments::{Attachments, is_path};
use super::declare;
use super::diagnostic::{Report, Span, nearest, propose};
use super::flow::{Flow, Found, key_type};
use super::resolve::{Draft, Named};
use super::secret::{Secrets, hide_secrets, secret_names, variable};
use super::with;
use super::yaml::{Node, Value};
use crate::column::Type;
use crate::field::{Field, Path};
use crate::pipeline::{Input, InputKeys, KeyFormat, PluginRef, Policy, Regroup, Scope, Stage, TableKey};
use crate::plugin::describe::{Base, Description, Mistake, Output, Part, Read, Request};
use crate::plugin::{DescribeError, Loader, Plugin};
use std::sync::Arc;

use crate::plugin::standard::NAMES as STANDARD;
/// What every component may import.
const GRANTED: [&str; 5] = ["state", "tables", "log", "windows", "timers"];

/// A stage after it was looked at.
pub(super) struct StageDone {
    pub name: String,
    /// None if there was a mistake.
    pub stage: Option<Stage>,
    /// Names, and what the records hold: None if that cannot be told.
    pub outputs: Vec<(String, Option<Flow>)>,
    /// Which outputs somebody reads.
    pub read: Vec<bool>,
}

impl StageDone {
    /// The index of an output; None = what the stage's name alone means. Err: a mistake, or None if the stage could not be looked at.
    pub fn find_output(&self, output: Option<&str>) -> Result<usize, Option<(String, Option<String>)>> {
        if self.outputs.is_empty() {
            return Err(None);
        }
        let names = || self.outputs.iter().map(|(name, _)| name.as_str());
        let wanted = output.unwrap_or("out");
        match names().position(|name| name == wanted) {
            Some(found) => Ok(found),
            None if output.is_none() && self.outputs.len() == 1 => Ok(0),
            None if self.stage.is_none() => Err(None),
            None => {
                let all: Vec<String> = names().map(|name| format!("`{}.{name}`", self.name)).collect();
                let message = match output {
                    Some(output) => format!("the stage `{}` has no output `{output}`", self.name),
                    None => format!("the stage `{}` has several outputs", self.name),
                };
                let near = output.and_then(|output| nearest(output, names())).map(|near| format!("did you mean `{}.{near}`?", self.name));
                Err(Some((message, near.or_else(|| Some(format!("it has {}", all.join(", ")))))))
            }
        }
    }
}

/// What of a stage is needed all over.
struct Place<'n> {
    name: &'n str,
    node: &'n Node,
    /// The plugin's place, for what has no better one.
    plugin: Span,
}

impl<'n> Place<'n> {
    fn with(&self) -> Option<&'n Node> {
        self.node.get("with")
    }
}

pub(super) fn resolve(draft: &mut Draft<'_>, at: usize, node: &Node, loader: &dyn Loader, attachments: &dyn Attachments) -> StageDone {
    let name = node.get("name").and_then(Node::text).unwrap_or_default();
    let place = Place { name, node, plugin: node.get("plugin").map_or(node.head(), |plugin| plugin.span) };
    let mut done = StageDone { name: name.to_owned(), stage: None, outputs: Vec::new(), read: Vec::new() };
    let from = inputs(draft, at, node);
    let input = from.as_ref().and_then(|from| draft.merged(from));
    let loaded = node.get("plugin").and_then(|plugin| load(draft.report, plugin, loader, attachments));

    let config = place.with().map_or_else(
        || serde_json::json!({}),
        |with| match &with.value {
            Value::Null => serde_json::json!({}),
            _ => with.to_json(),
        },
    );
    if let Some(with) = place.with() {
        refuse_tags(draft.report, with, "a configuration is plain YAML");
    }
    warn_secrets(draft.report, &place, &config);
    let Some((reference, plugin)) = loaded else {
        guess(&mut done, input, node.get("plugin").and_then(Node::text));
        return done;
    };
    let permitted = check_imports(draft.report, &place, plugin.as_ref());
    let config_fits = with::validate(draft.report, name, &plugin.about().config, &hide_secrets(&config), place.with(), place.plugin);
    let (Some(from), Some(input)) = (from, input) else {
        guess(&mut done, None, None);
        return done;
    };
    let inputs: Vec<Flow> = from.iter().filter_map(|input| draft.flow(*input).cloned()).collect();
    let description = if config_fits { describe(draft, &place, plugin.as_ref(), &config, &input, &inputs) } else { None };
    let Some(description) = description else {
        guess(&mut done, Some(input), node.get("plugin").and_then(Node::text));
        return done;
    };
    let sound = check_description(draft.report, &place, plugin.as_ref(), &description, inputs.len());
    check_reads(draft.report, &place, &description, &input, &inputs);
    check_writes(draft.report, &place, &description, &input);
    for warning in &description.warnings {
        // What a remark names first is most probably what it is about.
        let named = warning.split('`').nth(1).filter(|word| !word.is_empty());
        let at = named.and_then(|word| with::mention(&draft.report.source.text, place.with()?, word)).unwrap_or(place.plugin);
        draft.report.warn(at, format!("stage `{name}`: {warning}"), None);
    }
    if let (Some(on_late), None) = (node.get("on_late"), description.window) {
        draft.report.error(on_late.head(), format!("stage `{name}` has no window, so nothing comes too late"), "leave it out".to_owned());
    }
    let tables = tables(draft, &place, &description);
    let mut stores = stores(draft, &place, &description);
    // No name of the user's own has a dot in it.
    stores.extend(description.timers.is_some().then(|| format!("{name}.timers")));
    let mut spread_by_key = input.source_key;
    match (regroup(&description, &input, &inputs), meet_tables(draft, &place, &description, &input)) {
        (Some(by), None) | (None, Some(by)) => {
            spread_by_key = false;
            draft.regroups.push((at, by, input.key));
        }
        (None, None) => {}
        (Some(_), Some(_)) => {
            let message = format!("stage `{name}` needs its records by the keys of its store and by those of its partitioned table",);
            let help = "make a stage of each, or make the table `scope: global`".to_owned();
            draft.report.error(place.plugin, message, help);
        }
    }

    // Who asks for the keys of several formats gets them as text, and text they are from there on.
    let as_text = description.parts.contains(&Part::Key).then_some(KeyFormat::Text);
    let taken = Flow { key: input.key.or(as_text), source_key: spread_by_key, ..input.clone() };
    done.outputs = description.outputs.iter().map(|output| (output.name.clone(), Some(taken.after(name, output)))).collect();
    done.read = vec![false; done.outputs.len()];
    if !(sound && permitted) {
        return done;
    }
    done.stage = Some(Stage {
        name: name.to_owned(),
        reference,
        protects: node.get("protects").and_then(Node::boolean).unwrap_or(plugin.about().protects),
        plugin,
        from,
        with: config,
        input: input.schema(),
        inputs: inputs.iter().map(Flow::schema).collect(),
        description,
        on_error: declare::policy(node.get("on_error")).unwrap_or_else(|| draft.on_error.clone()),
        on_late: declare::policy(node.get("on_late")).unwrap_or(Policy::Skip),
        limits: declare::limits(node.get("limits"), draft.limits),
        log_unsafe: node.get("log").is_some(),
        stores,
        tables,
    });
    done
}

/// What the outputs of a stage with mistakes probably are, so that the stages behind it can be looked at all the same.
fn guess(done: &mut StageDone, input: Option<Flow>, plugin: Option<&str>) {
    // Filter and mask leave the fields as they are. Of others nothing can be told: who reads them is not checked this time.
    if let (Some(flow), Some("filter" | "mask")) = (input, plugin) {
        done.outputs = vec![("out".to_owned(), Some(flow))];
        done.read = vec![true];
    }
}

fn inputs(draft: &mut Draft<'_>, at: usize, node: &Node) -> Option<Vec<Input>> {
    if let Some(from) = node.get("from") {
        return draft.inputs(from, at);
    }
    let Some(before) = at.checked_sub(1) else {
        return match draft.sources.as_slice() {
            [_] => {
                draft.read_sources.fill(true);
                Some(vec![Input::Source(0)])
            }
            sources => {
                let names: Vec<&str> = sources.iter().map(|(source, _)| source.name.as_str()).collect();
                if let Some(first) = names.first() {
                    let message = "with several sources, the first stage names what it reads";
                    draft.report.error(node.head(), message, format!("for example `from: {first}` (sources: {})", names.join(", ")));
                }
                None
            }
        };
    };
    let done = draft.stages.get_mut(before)?;
    match done.find_output(None) {
        Ok(output) => {
            if let Some(read) = done.read.get_mut(output) {
                *read = true;
            }
            Some(vec![Input::Stage(before, output)])
        }
        Err(Some((message, help))) => {
            draft.report.error(node.head(), format!("{message}: say with `from` which one is read"), help);
            None
        }
        Err(None) => None,
    }
}

fn load(report: &Report, node: &Node, loader: &dyn Loader, attachments: &dyn Attachments) -> Option<(PluginRef, Arc<dyn Plugin>)> {
    let name = node.text()?;
    if name.contains("://") {
        let message = "plugins from a registry are not offered yet";
        report.error(node.span, message, "fetch the component and name its file, as in ./plugin.wasm".to_owned());
        return None;
    }
    let path = report.source.path.parent().unwrap_or(std::path::Path::new("")).join(name);
    let (reference, what) = if is_path(name) {
        let what = path.display().to_string();
        (PluginRef::File(std::path::absolute(&path).unwrap_or(path)), what)
    } else {
        (PluginRef::Standard(name.to_owned()), format!("the standard plugin `{name}`"))
    };
    let bytes = match attachments.component(name) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let help = match nearest(name, STANDARD.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the standard plugins are {}; a plugin of your own is a path such as ./{name}.wasm", STANDARD.join(", ")),
            };
            report.error(node.span, format!("there is no standard plugin `{name}`"), help);
            return None;
        }
        Err(error) => {
            let help = "the path is relative to the manifest; `millstream build` makes the component of a plugin".to_owned();
            report.error(node.span, format!("cannot read {what}: {error}"), help);
            return None;
        }
    };
    match loader.load(&bytes) {
        Ok(plugin) => Some((reference, plugin)),
        Err(error) => {
            report.error(node.span, format!("{what} cannot be used: {error:#}"), None);
            None
        }
    }
}

/// Tags such as `!missing` have a meaning in few places.
pub(super) fn refuse_tags(report: &Report, node: &Node, help: &str) {
    if let Some(tag) = &node.tag {
        report.error(node.span, format!("the tag `{tag}` has no meaning here"), help.to_owned());
    }
    node.items().iter().for_each(|item| refuse_tags(report, item, help));
    node.entries().iter().for_each(|entry| refuse_tags(report, &entry.value, help));
}

fn warn_secrets(report: &Report, place: &Place<'_>, config: &serde_json::Value) {
    let names = secret_names(config);
    if names.is_empty() {
        return;
    }
    // A file that cannot be read is an error of the run.
    let secrets = Secrets::load().unwrap_or_default();
    for name in names.iter().filter(|name| secrets.get(name).is_none()) {
        let at = place.with().and_then(|with| with::mention(&report.source.text, with, name)).unwrap_or(place.plugin);
        report.warn(at, format!("the secret `{name}` is not set on this machine"), format!("a run needs it: {}=...", variable(name)));
    }
}

/// A component's imports are its permissions.
fn check_imports(report: &Report, place: &Place<'_>, plugin: &dyn Plugin) -> bool {
    let mut permitted = true;
    for import in plugin.imports().iter().filter(|import| !GRANTED.contains(&import.as_str())) {
        permitted = false;
        report.error(
            place.plugin,
            format!("the plugin of stage `{}` wants `{import}`, which no plugin is given", place.name),
            if import.starts_with("wasi:") {
                "build it without WASI: for Rust, `millstream build` (target wasm32-unknown-unknown)".to_owned()
            } else {
                "plugins have their state, tables and log; everything else comes with the record".to_owned()
            },
        );
    }
    for one in place.node.get("allow").map(Node::one_or_more).unwrap_or_default() {
        let Some(name) = one.text() else { continue };
        let help = "state, tables and log need no permission, and nothing else is offered yet: leave `allow` out";
        report.error(one.span, format!("`{name}` cannot be allowed"), help.to_owned());
        permitted = false;
    }
    permitted
}

fn describe(
    draft: &Draft<'_>,
    place: &Place<'_>,
    plugin: &dyn Plugin,
    config: &serde_json::Value,
    input: &Flow,
    inputs: &[Flow],
) -> Option<Description> {
    let request = Request {
        config: hide_secrets(config),
        input: input.schema(),
        inputs: inputs.iter().map(Flow::schema).collect(),
        tables: draft.tables.iter().map(|table| (table.name.clone(), table.schema.schema.clone())).collect(),
    };
    match plugin.describe(&request) {
        Ok(description) => Some(description),
        Err(DescribeError::Mistakes(mistakes)) => {
            for mistake in &mistakes {
                report_mistake(draft.report, place, mistake);
            }
            if mistakes.is_empty() {
                draft.report.error(
                    place.plugin,
                    format!("the plugin of stage `{}` refuses its configuration and does not say why", place.name),
                    None,
                );
            }
            None
        }
        Err(DescribeError::Call(error)) => {
            draft.report.error(place.plugin, format!("the plugin of stage `{}` cannot describe itself: {error}", place.name), None);
            None
        }
    }
}

fn report_mistake(report: &Report, place: &Place<'_>, mistake: &Mistake) {
    let at = match mistake.span {
        Some(inside) => with::place_inside(&report.source.text, place.with(), &mistake.at, inside, place.plugin),
        None => with::place(place.with(), &mistake.at, place.plugin),
    };
    report.error(at, mistake.message.clone(), mistake.proposal.clone());
}

/// Whether the answer of `describe` keeps the contract.
fn check_description(report: &Report, place: &Place<'_>, plugin: &dyn Plugin, description: &Description, inputs: usize) -> bool {
    let mut breaches: Vec<String> = Vec::new();
    let outputs = &description.outputs;
    match outputs.first() {
        None => breaches.push("it has no output".to_owned()),
        Some(first) if description.leaves && first.base != Base::Extend => {
            breaches.push("it asks for leaves, but its first output has not the base `extend`".to_owned());
        }
        Some(_) => {}
    }
    for (at, output) in outputs.iter().enumerate() {
        if output.name.is_empty() || output.name.contains('.') {
            breaches.push(format!("`{}` is no name of an output", output.name));
        }
        if outputs.iter().take(at).any(|other| other.name == output.name) {
            breaches.push(format!("it has two outputs `{}`", output.name));
        }
        breaches.extend(overlaps(output));
        for field in output.fields.iter().map(|field| &field.path).chain(&output.removes) {
            if !matches!(field, Field::Value(_)) {
                breaches.push(format!("it lists `{field}` among the fields that it writes: only fields of the value stand there"));
            }
        }
    }
    for read in &description.reads {
        if matches!(read.path, Field::WindowStart | Field::WindowEnd) && description.window.is_none() {
            breaches.push(format!("it reads `{}`, but has no window", read.path));
        }
        if read.input.is_some_and(|input| input as usize >= inputs) {
            breaches.push(format!("it reads `{}` of an input that the stage does not have", read.path));
        }
    }
    let keys = &description.input_keys;
    if !keys.is_empty() && (keys.len() != inputs || keys.iter().any(|key| !matches!(key, Field::Value(_) | Field::Key))) {
        breaches.push("the keys of its inputs are one field of the value, or $key, for each input".to_owned());
    }
    if description.timers.is_some() && !plugin.offers("timed") {
        breaches.push("it has timers, but does not export `timed`".to_owned());
    }
    for store in &description.stores {
        if !matches!(store.key, Type::Text | Type::Int | Type::Bytes) {
            breaches.push(format!("a store has keys of type {}: text, int and bytes are possible", store.key));
        }
        if !store.emits.is_empty() && !plugin.offers("emitting") {
            breaches.push("rows of a store are to be handed to it, but it does not export `emitting`".to_owned());
        }
        if store.windowed && (store.key != Type::Bytes || description.window.is_none()) {
            breaches.push("a windowed store needs a window, and keys of type bytes".to_owned());
        }
    }
    if description.window.is_some_and(|window| window.size <= 0 || window.grace < 0) {
        breaches.push("a window's size is positive, its grace not negative".to_owned());
    }
    for breach in &breaches {
        report.error(place.plugin, format!("the plugin of stage `{}` breaks the contract: {breach}", place.name), None);
    }
    breaches.is_empty()
}

/// A path and its prefix are never both written by one stage.
fn overlaps(output: &Output) -> Vec<String> {
    let paths: Vec<&Path> = output
        .fields
        .iter()
        .filter_map(|field| match &field.path {
            Field::Value(path) => Some(path),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        for other in paths.iter().take(at) {
            if other == path {
                found.push(format!("it writes `{path}` twice"));
            } else if other.is_prefix_of(path) || path.is_prefix_of(other) {
                found.push(format!("it writes `{other}` and `{path}`, of which one holds the other"));
            }
        }
    }
    found
}

fn check_reads(report: &Report, place: &Place<'_>, description: &Description, input: &Flow, inputs: &[Flow]) {
    for read in &description.reads {
        // An input that there is not is a breach of the contract, told as that.
        let Some(input) = read.input.map_or(Some(input), |of| inputs.get(of as usize)) else { continue };
        let found = match &read.path {
            Field::Value(path) => input.find(path, Some(read.kind)),
            pseudo => check_pseudo(pseudo, read.kind, input),
        };
        let at = || {
            let text = read.path.to_string();
            place.with().and_then(|with| with::mention(&report.source.text, with, &text)).unwrap_or(place.plugin)
        };
        match found {
            Found::Fine => {}
            Found::Assumed => report.warn(at(), assumed(place, read), assumed_help(read, input)),
            Found::Wrong { message, help } => report.error(at(), format!("stage `{}`: {message}", place.name), help),
        }
    }
}

fn assumed(place: &Place<'_>, read: &Read) -> String {
    match &read.path {
        Field::Value(path) => format!("stage `{}` reads `{path}` as {}, which no schema declares: it is assumed", place.name, read.kind),
        pseudo => format!("stage `{}` reads `{pseudo}` as {}: a record where it is none is rejected", place.name, read.kind),
    }
}

fn assumed_help(read: &Read, input: &Flow) -> String {
    let Field::Value(path) = &read.path else {
        return "a source says with `key:` how its keys are written; text is the default".to_owned();
    };
    let declare = format!("declare it in the source's schema: `{path}: {}`", read.kind);
    match input.similar(path) {
        Some(near) => format!("did you mean `{near}`? Else {declare}"),
        None => declare,
    }
}

fn check_pseudo(field: &Field, kind: Type, input: &Flow) -> Found {
    let has = match field {
        Field::Key => input.key.map_or(Type::Text, key_type),
        Field::Topic | Field::Header(_) => Type::Text,
        _ => Type::Int,
    };
    let fits = match (kind, field) {
        (Type::Bytes, _) => matches!(field, Field::Key | Field::Header(_)),
        // Every key can be had as text or JSON; as a number only if it is one.
        (Type::Text | Type::Json, Field::Key) => true,
        (Type::Int | Type::Float, Field::Key) if kind != has => return Found::Assumed,
        _ => kind == has,
    };
    if fits { Found::Fine } else { Found::Wrong { message: format!("reads `{field}` as {kind}, but it is {has}"), help: None } }
}

/// A field cannot be written below one that is no object.
fn check_writes(report: &Report, place: &Place<'_>, description: &Description, input: &Flow) {
    for output in description.outputs.iter().filter(|output| output.base == Base::Extend) {
        for field in &output.fields {
            let Field::Value(path) = &field.path else { continue };
            let parent = input.fields.iter().find(|known| known.path != *path && known.path.is_prefix_of(path) && known.kind != Type::Json);
            if let Some(parent) = parent.filter(|parent| !output.removes.contains(&Field::Value(parent.path.clone()))) {
                let text = path.to_string();
                let at = place.with().and_then(|with| with::mention(&report.source.text, with, &text)).unwrap_or(place.plugin);
                report.error(
                    at,
                    format!("stage `{}` writes `{path}`, but `{}` is {} ({})", place.name, parent.path, parent.kind, parent.origin),
                    None,
                );
            }
        }
    }
}

fn tables(draft: &mut Draft<'_>, place: &Place<'_>, description: &Description) -> Vec<usize> {
    let mut found = Vec::new();
    for name in &description.tables {
        match draft.names.get(name.as_str()) {
            Some((Named::Table(at), _)) => {
                found.push(*at);
                if let Some(used) = draft.used_tables.get_mut(*at) {
                    *used = true;
                }
            }
            _ => {
                let at = place.with().and_then(|with| with::mention(&draft.report.source.text, with, name)).unwrap_or(place.plugin);
                let known: Vec<&str> = draft.tables.iter().map(|table| table.name.as_str()).collect();
                draft.report.error(
                    at,
                    format!("stage `{}` looks up `{name}`, but there is no such table", place.name),
                    propose(name, known),
                );
            }
        }
    }
    found
}

/// The names of a stage's stores: what the manifest says, else the stage's, and the plugin's name behind it if it has several.
fn stores(draft: &Draft<'_>, place: &Place<'_>, description: &Description) -> Vec<String> {
    let report = draft.report;
    let names: Vec<String> = match place.node.get("store") {
        Some(node) => {
            let given: Vec<&Node> = node.one_or_more().iter().collect();
            if given.len() != description.stores.len() {
                report.error(
                    node.head(),
                    format!("stage `{}` has {} stores, but {} names stand here", place.name, description.stores.len(), given.len()),
                    None,
                );
            }
            given.iter().filter_map(|node| node.text()).map(str::to_owned).collect()
        }
        None => description
            .stores
            .iter()
            .map(|store| if store.name.is_empty() { place.name.to_owned() } else { format!("{}-{}", place.name, store.name) })
            .collect(),
    };
    for (at, name) in names.iter().enumerate() {
        let span = place.node.get("store").map_or(place.plugin, |node| node.one_or_more().get(at).map_or(node.head(), |one| one.span));
        let other = draft.stages.iter().filter_map(|done| done.stage.as_ref()).find(|stage| stage.stores.contains(name));
        if draft.tables.iter().any(|table| table.name == *name && table.scope == Scope::Partitioned) {
            let message = format!("the store `{name}` is the partitioned table's of that name");
            report.error(span, message, "give it a name of its own: `store: ...`".to_owned());
        } else if let Some(other) = other {
            report.error(
                span,
                format!("the store `{name}` is the stage `{}`'s", other.name),
                "give it a name of its own: `store: ...`".to_owned(),
            );
        } else if names.iter().take(at).any(|earlier| earlier == name) {
            report.error(span, format!("stage `{}` has two stores `{name}`", place.name), "name them: `store: [a, b]`".to_owned());
        }
    }
    names
}

/// Records of one group must meet in one task. They do if the group is the key by which they were spread over the partitions; else they go through
/// a repartition topic.
fn regroup(description: &Description, input: &Flow, inputs: &[Flow]) -> Option<Regroup> {
    if !description.input_keys.is_empty() {
        return meet_inputs(description, input, inputs);
    }
    let timers = description.timers.iter().map(|timers| &timers.by);
    let groups: Vec<&Vec<Field>> = description.stores.iter().map(|store| &store.by).chain(timers).collect();
    let by = groups.iter().find(|by| ***by != [Field::Key]).or(groups.first())?;
    if **by == [Field::Key] {
        return (!input.source_key).then_some(Regroup::Key);
    }
    let typed = |field: &Field| match field {
        Field::Value(path) => {
            let read = description.reads.iter().find(|read| read.path == *field);
            Some((path.clone(), read.map_or(Type::Json, |read| read.kind)))
        }
        _ => None,
    };
    match by.iter().map(typed).collect::<Option<Vec<_>>>() {
        Some(fields) if !fields.is_empty() => Some(Regroup::Fields(fields)),
        // Of what is no field of the value, or of nothing: in one place they meet in any case.
        _ => Some(Regroup::One),
    }
}

/// Records of several inputs meet by a key of each: where it is the one by which all of them were spread, they meet as they are.
fn meet_inputs(description: &Description, input: &Flow, inputs: &[Flow]) -> Option<Regroup> {
    let by_key = description.input_keys.iter().all(|key| *key == Field::Key);
    let alike = |flow: &Flow| {
        flow.source_key && flow.key.zip(inputs.first().and_then(|first| first.key)).is_some_and(|(one, other)| alike(one, other))
    };
    if by_key && (input.source_key || inputs.iter().all(alike)) {
        return None;
    }
    let typed = |(key, of): (&Field, u32)| match key {
        Field::Value(path) => {
            let read = description.reads.iter().find(|read| read.path == *key && read.input.is_none_or(|input| input == of));
            Some((path.clone(), read.map_or(Type::Json, |read| read.kind)))
        }
        _ => None,
    };
    let fields = description.input_keys.iter().zip(0..).map(typed).collect();
    Some(Regroup::Inputs(InputKeys { fields, of: Vec::new() }))
}

/// A partitioned table is met by the records in the partition of the row's number: those that have the row's key as their own, written as the table's
/// keys are. All others go through a repartition topic first.
fn meet_tables(draft: &Draft<'_>, place: &Place<'_>, description: &Description, input: &Flow) -> Option<Regroup> {
    let mut wanted: Option<TableKey> = None;
    let mut as_they_are = None;
    for (at, name) in description.tables.iter().enumerate() {
        let Some(table) = draft.tables.iter().find(|table| table.name == *name && table.scope == Scope::Partitioned) else { continue };
        let by = description.table_keys.get(at).and_then(Option::as_ref);
        let field = match by {
            Some(Field::Key) => None,
            Some(Field::Value(path)) => {
                let read = description.reads.iter().find(|read| read.path == Field::Value(path.clone()));
                Some((path.clone(), read.map_or(Type::Json, |read| read.kind)))
            }
            _ => {
                let span = place.with().and_then(|with| with::mention(&draft.report.source.text, with, name)).unwrap_or(place.plugin);
                draft.report.error(
                    span,
                    format!("stage `{}` looks up the partitioned table `{name}` by something else than a field or the key", place.name),
                    "compute the key in a `map` stage before and look it up by that field, or make the table `scope: global`".to_owned(),
                );
                continue;
            }
        };
        if field.is_none() && input.source_key && input.key.is_some_and(|key| alike(key, table.key)) {
            as_they_are = Some(name);
            continue;
        }
        let key = TableKey { field, format: table.key, topic: table.topic.clone() };
        match &wanted {
            Some(first) if (&first.field, first.format) != (&key.field, key.format) => {
                as_they_are = Some(name);
            }
            Some(_) => {}
            None => wanted = Some(key),
        }
    }
    if let (Some(_), Some(other)) = (&wanted, as_they_are) {
        draft.report.error(
            place.plugin,
            format!(
                "stage `{}` looks up partitioned tables by different keys, `{other}` among them: its records can be in one place only",
                place.name
            ),
            "make a stage of each, or make one of the tables `scope: global`".to_owned(),
        );
    }
    wanted.map(Regroup::Table)
}

/// Whether equal keys of these formats have equal bytes.
fn alike(one: KeyFormat, other: KeyFormat) -> bool {
    let plain = |format| matches!(format, KeyFormat::Text | KeyFormat::Bytes);
    one == other || plain(one) && plain(other)
}
