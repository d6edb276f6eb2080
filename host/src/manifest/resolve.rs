//! Names: what stands where, who reads whom, and what may not meet.

use super::attachments::Attachments;
use super::case::{Case, Expect, ExpectRecord, Given, GivenRecord, Target};
use super::declare;
use super::diagnostic::{Report, Span, propose};
use super::flow::Flow;
use super::stages::{self, StageDone};
use super::yaml::{Entry, Node, Value};
use crate::field::Path;
use crate::flow::plan;
use crate::pipeline::{Input, KeyFormat, Pipeline, Policy, Regroup, Scope, Sink, Source, Table};
use crate::plugin::{Limits, Loader};
use std::collections::HashMap;
use std::sync::Arc;

/// What a name of the manifest stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Source(usize),
    Table(usize),
    Stage(usize),
}

/// A manifest while it is resolved.
pub(super) struct Draft<'a> {
    pub report: &'a Report,
    pub names: HashMap<&'a str, (Named, Span)>,
    pub sources: Vec<(Source, Flow)>,
    pub tables: Vec<Table>,
    pub stages: Vec<StageDone>,
    pub on_error: Policy,
    pub limits: Limits,
    /// Which sources are read, by index.
    pub read_sources: Vec<bool>,
    pub used_tables: Vec<bool>,
    /// Stages whose records go through a repartition topic first, by what, and the format of the keys there.
    pub regroups: Vec<(usize, Regroup, Option<KeyFormat>)>,
}

/// The pipeline and its cases; None if a mistake keeps them from being.
pub(super) fn resolve(report: &Report, root: &Node, loader: &dyn Loader, attachments: &dyn Attachments) -> Option<(Pipeline, Vec<Case>)> {
    let entries = |key| root.get(key).map(Node::entries).unwrap_or_default();
    let sources: Vec<_> = entries("sources").iter().map(|entry| declare::source(report, entry, attachments)).collect();
    let tables: Vec<_> = entries("tables").iter().map(|entry| declare::table(report, entry, attachments)).collect();
    let mut draft = Draft {
        report,
        names: HashMap::new(),
        read_sources: vec![false; sources.len()],
        used_tables: vec![false; tables.len()],
        sources,
        tables,
        stages: Vec::new(),
        on_error: declare::policy(root.get("on_error")).unwrap_or(Policy::Fail),
        limits: declare::limits(root.get("limits"), Limits::default()),
        regroups: Vec::new(),
    };
    if let Some(node) = root.get("sources").filter(|node| matches!(&node.value, Value::Map(entries) if entries.is_empty())) {
        report.error(node.span, "a pipeline needs a source", None);
    }
    if let Some(node) = root.get("sinks").filter(|node| matches!(&node.value, Value::List(items) if items.is_empty())) {
        report.error(node.span, "a pipeline needs a sink", None);
    }
    let stages = stages_of(root);
    draft.collect_names(entries("sources"), entries("tables"), stages);
    draft.check_source_topics(entries("sources"));
    draft.check_table_topics(entries("tables"));

    for (at, node) in stages.iter().enumerate() {
        let done = stages::resolve(&mut draft, at, node, loader, attachments);
        draft.stages.push(done);
    }
    let sink_nodes = root.get("sinks").map(Node::items).unwrap_or_default();
    let sinks = draft.sinks(sink_nodes);
    // As written: a sink whose stage has mistakes has its topic all the same.
    let mut topics: Vec<&str> = sink_nodes.iter().filter_map(|node| node.get("topic")?.text()).collect();
    topics.extend(draft.check_dead_letters(root, stages, &topics));
    draft.warn_unread(entries("sources"), entries("tables"), stages);
    let cases = root.get("tests").map(Node::items).unwrap_or_default().iter().map(|node| draft.case(node, &topics)).collect();

    let name = root.get("pipeline").and_then(Node::text)?.to_owned();
    let regroups = std::mem::take(&mut draft.regroups);
    let used_tables = std::mem::take(&mut draft.used_tables);
    let stages = draft.stages.into_iter().map(|done| done.stage).collect::<Option<Vec<_>>>()?;
    let mut pipeline = Pipeline {
        name,
        sources: draft.sources.into_iter().map(|(source, _)| source).collect(),
        tables: draft.tables,
        stages,
        sinks: sinks.into_iter().collect::<Option<Vec<_>>>()?,
        on_error: draft.on_error,
        guarantee: declare::guarantee(root.get("guarantee")),
    };
    for table in (0..pipeline.tables.len()).filter(|table| used_tables[*table]) {
        if pipeline.tables[table].scope == Scope::Partitioned {
            pipeline.read_table(table);
        }
    }
    for (stage, by, key) in regroups {
        pipeline.regroup(stage, by, key);
    }
    check_circles(report, entries("tables"), &pipeline);
    check_inputs(report, stages_of(root), &pipeline);
    Some((pipeline, cases))
}

/// A group reads a topic once: a partitioned table cannot be both before a repartition and behind it.
fn check_circles(report: &Report, entries: &[Entry], pipeline: &Pipeline) {
    let segments = plan::segments(pipeline);
    for (at, segment) in segments.iter().enumerate().filter(|(at, _)| plan::sends_to_itself(&segments, *at)) {
        let Some(table) = segment.sources.iter().find_map(|source| pipeline.sources[*source].table) else { continue };
        let stages = pipeline.stages.iter().zip(&segments[at].stages).filter(|(stage, of)| **of && stage.tables.contains(&table));
        let names: Vec<String> = stages.map(|(stage, _)| format!("`{}`", stage.name)).collect();
        let name = &pipeline.tables[table].name;
        if let Some(entry) = entries.get(table) {
            report.error(
                entry.key_span,
                format!("the partitioned table `{name}` is looked up before a repartition and behind it, but its records are read once"),
                format!("look it up in one of the stages {} only, or make it `scope: global`", names.join(", ")),
            );
        }
    }
}

/// By which input of a stage a record came is known by its source: none may come by two.
fn check_inputs(report: &Report, nodes: &[Node], pipeline: &Pipeline) {
    for (stage, node) in pipeline.stages.iter().zip(nodes).filter(|(stage, _)| stage.description.tells_inputs()) {
        let Err(source) = pipeline.inputs_of(stage) else { continue };
        report.error(
            node.get("from").map_or(node.head(), Node::head),
            format!(
                "stage `{}` tells its inputs apart by the sources of their records, and those of `{}` come by two of them",
                stage.name, pipeline.sources[source].name
            ),
            "send one of the two through a topic of its own, by a pipeline before this one".to_owned(),
        );
    }
}

fn stages_of(root: &Node) -> &[Node] {
    root.get("stages").map(Node::items).unwrap_or_default()
}

impl<'a> Draft<'a> {
    /// Sources, tables and stages share one namespace.
    fn collect_names(&mut self, sources: &'a [Entry], tables: &'a [Entry], stages: &'a [Node]) {
        let sources = sources.iter().enumerate().map(|(at, entry)| (entry.key.as_str(), Named::Source(at), entry.key_span));
        let tables = tables.iter().enumerate().map(|(at, entry)| (entry.key.as_str(), Named::Table(at), entry.key_span));
        let stages = stages
            .iter()
            .enumerate()
            .filter_map(|(at, node)| node.get("name").and_then(|name| Some((name.text()?, Named::Stage(at), name.span))));
        for (name, what, span) in sources.chain(tables).chain(stages) {
            if let Some((_, first)) = self.names.get(name) {
                let line = self.report.source.place(first.start).0;
                self.report.error(
                    span,
                    format!("the name `{name}` is taken"),
                    format!("it stands in line {line}; sources, tables and stages share their names"),
                );
            } else {
                self.names.insert(name, (what, span));
            }
        }
    }

    fn check_source_topics(&self, entries: &[Entry]) {
        for (at, (source, _)) in self.sources.iter().enumerate() {
            let first = self.sources.iter().take(at).find(|(first, _)| first.topic == source.topic && !source.topic.is_empty());
            if let (Some((first, _)), Some(entry)) = (first, entries.get(at)) {
                self.report.error(
                    topic_span(&entry.value).unwrap_or(entry.key_span),
                    format!("the topic `{}` is the source `{}` already", source.topic, first.name),
                    format!("any number of stages can read one source: `from: {}`", first.name),
                );
            }
        }
    }

    /// A group has one position in a partition: who reads it as a partitioned table reads it as nothing else.
    fn check_table_topics(&self, entries: &[Entry]) {
        for (at, table) in self.tables.iter().enumerate().filter(|(_, table)| table.scope == Scope::Partitioned && !table.topic.is_empty())
        {
            let source = self.sources.iter().map(|(source, _)| source).find(|source| source.topic == table.topic);
            let other = self
                .tables
                .iter()
                .enumerate()
                .find(|(other, known)| *other != at && known.topic == table.topic && (*other < at || known.scope == Scope::Global));
            let taken = match (source, other) {
                (Some(source), _) => format!("the source `{}`", source.name),
                (None, Some((_, other))) => format!("the table `{}`", other.name),
                (None, None) => continue,
            };
            let Some(entry) = entries.get(at) else { continue };
            self.report.error(
                topic_span(&entry.value).unwrap_or(entry.key_span),
                format!("the topic `{}` is {taken} already: a partitioned table's is read for it alone", table.topic),
                "make the table `scope: global`".to_owned(),
            );
        }
    }

    /// What a `from` names, for the stage of this index (or, after the last, a sink).
    pub(super) fn inputs(&mut self, node: &Node, before: usize) -> Option<Vec<Input>> {
        let mut inputs = Vec::new();
        let mut whole = true;
        for one in node.one_or_more() {
            match one.text().and_then(|text| self.input(text, one.span, before)) {
                Some(input) if inputs.contains(&input) => {
                    self.report.error(one.span, format!("`{}` is listed twice", one.text().unwrap_or_default()), None);
                }
                Some(input) => inputs.push(input),
                None => whole = false,
            }
        }
        if node.one_or_more().is_empty() {
            self.report.error(node.span, "the list is empty", "name a source or a stage".to_owned());
        }
        (whole && !inputs.is_empty()).then_some(inputs)
    }

    fn input(&mut self, text: &str, span: Span, before: usize) -> Option<Input> {
        let (name, output) = match text.split_once('.') {
            Some((name, output)) => (name, Some(output)),
            None => (text, None),
        };
        let Some((what, place)) = self.names.get(name).copied() else {
            let known = self.names.iter().filter(|(_, (what, _))| match what {
                Named::Source(_) => true,
                Named::Table(_) => false,
                Named::Stage(at) => *at < before,
            });
            let mut known: Vec<&str> = known.map(|(name, _)| *name).collect();
            known.sort_unstable();
            self.report.error(span, format!("there is no source or stage `{name}`"), propose(name, known));
            return None;
        };
        match what {
            Named::Source(at) => {
                if let Some(output) = output {
                    self.report.error(span, format!("the source `{name}` has no output `{output}`"), format!("write `{name}`"));
                    return None;
                }
                if let Some(read) = self.read_sources.get_mut(at) {
                    *read = true;
                }
                Some(Input::Source(at))
            }
            Named::Table(_) => {
                let help =
                    format!("a table is looked up; to read its records, declare a source on its topic too (used by a plugin as `{name}`)");
                self.report.error(span, format!("`{name}` is a table, no stream"), help);
                None
            }
            Named::Stage(at) if at >= before => {
                let line = self.report.source.place(place.start).0;
                let message = if at == before {
                    "a stage cannot read itself".to_owned()
                } else {
                    format!("the stage `{name}` stands below, in line {line}")
                };
                self.report.error(span, message, "a stage reads sources and stages before it".to_owned());
                None
            }
            Named::Stage(at) => {
                let done = self.stages.get_mut(at)?;
                match done.find_output(output) {
                    Ok(found) => {
                        if let Some(read) = done.read.get_mut(found) {
                            *read = true;
                        }
                        Some(Input::Stage(at, found))
                    }
                    Err(Some((message, help))) => {
                        self.report.error(span, message, help);
                        None
                    }
                    // The stage has mistakes of its own.
                    Err(None) => None,
                }
            }
        }
    }

    /// What is known of the records of one input; None if its stage has mistakes.
    pub(super) fn flow(&self, input: Input) -> Option<&Flow> {
        match input {
            Input::Source(at) => self.sources.get(at).map(|(_, flow)| flow),
            Input::Stage(at, output) => self.stages.get(at)?.outputs.get(output)?.1.as_ref(),
        }
    }

    pub(super) fn merged(&self, inputs: &[Input]) -> Option<Flow> {
        let flows = inputs.iter().map(|input| self.flow(*input)).collect::<Option<Vec<_>>>()?;
        Some(Flow::merge(&flows))
    }

    fn sinks(&mut self, nodes: &[Node]) -> Vec<Option<Sink>> {
        let mut topics: HashMap<Arc<str>, Span> = HashMap::new();
        let mut sinks = Vec::new();
        for node in nodes {
            let topic = declare::topic(node);
            let at = topic_span(node).unwrap_or(node.head());
            if !topic.is_empty() {
                if let Some(first) = topics.get(&topic) {
                    let line = self.report.source.place(first.start).0;
                    self.report.error(
                        at,
                        format!("the topic `{topic}` has a sink already, in line {line}"),
                        "one sink can write several stages: `from: [a, b]`".to_owned(),
                    );
                }
                topics.entry(topic.clone()).or_insert(at);
                if let Some((source, _)) = self.sources.iter().find(|(source, _)| source.topic == topic) {
                    self.report.error(
                        at,
                        format!("the topic `{topic}` is the source `{}`: the pipeline would read what it writes", source.name),
                        None,
                    );
                }
                let table = self.tables.iter().find(|table| table.topic == topic && table.scope == Scope::Partitioned);
                if let Some(table) = table {
                    let message =
                        format!("the topic `{topic}` is the partitioned table `{}`: the pipeline would read what it writes", table.name);
                    self.report.error(at, message, None);
                }
            }
            sinks.push(self.sink(node, topic));
        }
        sinks
    }

    fn sink(&mut self, node: &Node, topic: Arc<str>) -> Option<Sink> {
        let before = self.stages.len();
        let from = self.inputs(node.get("from")?, before)?;
        let flow = self.merged(&from)?;
        let format = declare::format(node.get("format"));
        if let (Some(wanted), Some(at)) = (format, node.get("format"))
            && wanted != flow.format
        {
            let name = |format| if format == crate::pipeline::FormatKind::Json { "json" } else { "raw" };
            self.report.error(
                at.span,
                format!("the records that come here are {}", name(flow.format)),
                "formats are not converted yet: leave `format` out".to_owned(),
            );
        }
        let fields = node.get("fields").map(|fields| {
            let mut paths: Vec<Path> = Vec::new();
            for item in fields.items() {
                let Some(path) = item.text().and_then(|text| Path::parse(text).ok()) else { continue };
                if let super::flow::Found::Wrong { message, help } = flow.find(&path, None) {
                    self.report.error(item.span, message, help);
                }
                match paths.iter().find(|other| other.is_prefix_of(&path) || path.is_prefix_of(other)) {
                    Some(other) if *other == path => self.report.error(item.span, format!("`{path}` is listed twice"), None),
                    Some(other) => {
                        self.report.error(item.span, format!("`{path}` and `{other}` overlap"), "list only the outer one".to_owned())
                    }
                    None => paths.push(path),
                }
            }
            paths
        });
        Some(Sink {
            from,
            topic,
            key: declare::key_format(node.get("key")),
            format: format.unwrap_or(flow.format),
            fields,
            create: node.get("create").and_then(Node::boolean).unwrap_or_default(),
            provenance: node.get("provenance").and_then(Node::boolean).unwrap_or_default(),
            regroup: None,
        })
    }

    /// The topics of dead letters.
    fn check_dead_letters<'n>(&self, root: &'n Node, stages: &'n [Node], sinks: &[&str]) -> Vec<&'n str> {
        let of_stages = stages.iter().flat_map(|stage| [stage.get("on_error"), stage.get("on_late")]).flatten();
        let policies = root.get("on_error").into_iter().chain(of_stages);
        let topics: Vec<&'n Node> = policies.filter_map(|policy| policy.get("dead_letter")).collect();
        for node in &topics {
            let Some(topic) = node.text() else { continue };
            if let Some((source, _)) = self.sources.iter().find(|(source, _)| &*source.topic == topic) {
                self.report.error(
                    node.span,
                    format!("the topic `{topic}` is the source `{}`: dead letters would be read again", source.name),
                    format!("for example `{topic}.dead`"),
                );
            } else if sinks.contains(&topic) {
                self.report.error(
                    node.span,
                    format!("the topic `{topic}` is a sink's: dead letters would stand among results"),
                    format!("for example `{topic}.dead`"),
                );
            } else if let Some(table) = self.tables.iter().find(|table| &*table.topic == topic) {
                self.report.error(
                    node.span,
                    format!("the topic `{topic}` is the table `{}`", table.name),
                    format!("for example `{topic}.dead`"),
                );
            }
        }
        topics.into_iter().filter_map(Node::text).collect()
    }

    fn warn_unread(&self, sources: &[Entry], tables: &[Entry], stages: &[Node]) {
        // Who a mistake keeps from reading would be missed here.
        if self.report.has_errors() {
            return;
        }
        for (entry, read) in sources.iter().zip(&self.read_sources) {
            if !read {
                self.report.warn(entry.key_span, format!("nobody reads the source `{}`", entry.key), None);
            }
        }
        for (entry, used) in tables.iter().zip(&self.used_tables) {
            if !used {
                self.report.warn(entry.key_span, format!("no stage uses the table `{}`", entry.key), None);
            }
        }
        for (node, done) in stages.iter().zip(&self.stages) {
            let at = node.get("name").map_or(node.head(), |name| name.span);
            for ((output, _), _) in done.outputs.iter().zip(&done.read).filter(|(_, read)| !**read) {
                let message = if done.outputs.len() == 1 {
                    format!("nobody reads the stage `{}`", done.name)
                } else {
                    format!("nobody reads the output `{}.{output}`", done.name)
                };
                self.report.warn(at, message, "its records are dropped; add a sink, or a stage that reads it".to_owned());
            }
        }
    }

    fn case(&self, node: &Node, topics: &[&str]) -> Case {
        let mut given = Vec::new();
        for entry in node.get("given").map(Node::entries).unwrap_or_default() {
            let to = match self.names.get(entry.key.as_str()) {
                Some((Named::Source(at), _)) => Target::Source(*at),
                Some((Named::Table(at), _)) => Target::Table(*at),
                _ => {
                    let known: Vec<&str> = self
                        .sources
                        .iter()
                        .map(|(source, _)| source.name.as_str())
                        .chain(self.tables.iter().map(|table| table.name.as_str()))
                        .collect();
                    self.report.error(entry.key_span, format!("there is no source or table `{}`", entry.key), propose(&entry.key, known));
                    continue;
                }
            };
            for record in entry.value.items() {
                self.check_given(record);
            }
            given.push(Given { to, records: entry.value.items().iter().map(GivenRecord::from).collect() });
        }
        let mut expect = Vec::new();
        for entry in node.get("expect").map(Node::entries).unwrap_or_default() {
            if !topics.contains(&entry.key.as_str()) {
                self.report.error(
                    entry.key_span,
                    format!("no sink writes the topic `{}`", entry.key),
                    propose(&entry.key, topics.iter().copied()),
                );
            }
            let records = entry.value.items().iter().map(ExpectRecord::from).collect();
            expect.push(Expect { topic: entry.key.clone(), span: entry.key_span, records });
        }
        let name = node.get("name").and_then(Node::text).unwrap_or_default().to_owned();
        Case { name, span: node.get("name").map_or(node.head(), |name| name.span), given, expect }
    }

    fn check_given(&self, record: &Node) {
        if let (Some(raw), Some(_)) = (record.entry("raw"), record.get("value")) {
            self.report.error(raw.key_span, "a record has `value` or `raw`, not both", None);
        }
        if let Some(partition) = record.get("partition")
            && partition.int().is_some_and(|number| i32::try_from(number).map_or(true, |number| number < 0))
        {
            self.report.error(partition.span, "a partition is a number from 0 on", None);
        }
        stages::refuse_tags(self.report, record, "only what is expected may be `!missing`");
    }
}

fn topic_span(node: &Node) -> Option<Span> {
    node.get("topic").map(|topic| topic.span)
}
