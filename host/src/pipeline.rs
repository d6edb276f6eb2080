//! A pipeline, checked: what `manifest` makes of a file once every stage has described itself, and all that the data path needs to know.
//! Whoever holds one may rely on it: names resolve, types fit, there is no cycle.

use crate::column::Type;
use crate::field::Path;
use crate::io::Guarantee;
use crate::plugin::describe::{Description, Schema};
use crate::plugin::{Limits, Plugin};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone)]
pub struct Pipeline {
    /// Also the consumer group.
    pub name: String,
    pub sources: Vec<Source>,
    pub tables: Vec<Table>,
    /// Each reads sources and earlier stages only.
    pub stages: Vec<Stage>,
    pub sinks: Vec<Sink>,
    /// For what fails before the first stage (decoding) and after the last (encoding).
    pub on_error: Policy,
    pub guarantee: Guarantee,
}

/// By what records are brought together before a stage that needs all records of a group in one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regroup {
    /// The record's key, which a stage before may have changed.
    Key,
    /// Fields of the value, with their types.
    Fields(Vec<(Path, Type)>),
    /// All records form one group.
    One,
    /// What names a row of a partitioned table, so that a record meets the partition of the row.
    Table(TableKey),
    /// What records of several inputs meet by, as text.
    Inputs(InputKeys),
}

/// How the keys of a stage that tells its inputs apart are found in its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputKeys {
    /// By input: the field of the value that holds it, with its type; None = the record's key.
    pub fields: Vec<Option<(Path, Type)>>,
    /// By source, of the user's: the input that its records come by.
    pub of: Vec<Option<u32>>,
}

/// How the keys of a partitioned table are found in records of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The field of the value that holds it, with its type; None = the record's key.
    pub field: Option<(Path, Type)>,
    /// How the table's topic writes keys.
    pub format: KeyFormat,
    /// The table's topic: as many partitions has the repartition topic.
    pub topic: Arc<str>,
}

impl Pipeline {
    /// What an input stands for, through repartition topics: where records of a repartition come from.
    pub fn upstream<'a>(&'a self, input: &'a Input) -> &'a [Input] {
        match *input {
            Input::Source(source) => match self.sources.get(source).and_then(|source| source.carries) {
                Some(sink) => &self.sinks[sink].from,
                None => std::slice::from_ref(input),
            },
            Input::Stage(..) => std::slice::from_ref(input),
        }
    }

    /// A stage's inputs as its manifest names them: those of the repartition topic that may lie before it.
    pub fn named_inputs<'a>(&'a self, stage: &'a Stage) -> &'a [Input] {
        match stage.from.as_slice() {
            [one] => self.upstream(one),
            several => several,
        }
    }

    /// By source of the user's: the input of a stage by which its records come, through repartition topics too. Err: a source that reaches it by two.
    pub fn inputs_of(&self, stage: &Stage) -> Result<Vec<Option<u32>>, usize> {
        let mut of = vec![None; self.sources.len()];
        for (input, number) in self.named_inputs(stage).iter().zip(0..) {
            let mut todo = vec![*input];
            while let Some(input) = todo.pop() {
                match input {
                    Input::Stage(earlier, _) => todo.extend(&self.stages[earlier].from),
                    Input::Source(source) => match self.sources[source].carries {
                        Some(sink) => todo.extend(&self.sinks[sink].from),
                        None if of[source].is_some_and(|other| other != number) => return Err(source),
                        None => of[source] = Some(number),
                    },
                }
            }
        }
        Ok(of)
    }

    /// Puts a repartition topic, named after the stage, before a stage: a sink that writes it and a source that reads it. `key`: how the records'
    /// own keys are written; None = in several formats, so they travel as text.
    pub fn regroup(&mut self, stage: usize, mut by: Regroup, key: Option<KeyFormat>) {
        if let Regroup::Inputs(keys) = &mut by {
            // A source that comes by two inputs is a mistake that `check` tells.
            keys.of = self.inputs_of(&self.stages[stage]).unwrap_or_default();
        }
        let name = format!("{}.repartition", self.stages[stage].name);
        let topic: Arc<str> = repartition_topic(&self.name, &self.stages[stage].name).into();
        let source = Input::Source(self.sources.len());
        let from = std::mem::replace(&mut self.stages[stage].from, vec![source]);
        let origins = self.origins(&from);
        let mut schema = SourceSchema { schema: self.stages[stage].input.clone(), from: Vec::new() };
        for source in &origins {
            schema.from.extend(self.sources[*source].schema.from.iter().cloned());
        }
        let first = origins.first().map(|source| &self.sources[*source]);
        let (format, tombstones) = first.map_or_else(Default::default, |source| (source.format, source.tombstones));
        self.sources.push(Source {
            name,
            topic: topic.clone(),
            format,
            key: key.unwrap_or_default(),
            start: Start::Earliest,
            time: None,
            // One that is dropped is dropped where it is read first.
            tombstones: if tombstones == Tombstones::Drop { Tombstones::Pass } else { tombstones },
            schema,
            carries: Some(self.sinks.len()),
            table: None,
        });
        let as_text = key.is_none().then_some(KeyFormat::Text);
        self.sinks.push(Sink { from, topic, key: as_text, format, fields: None, create: true, provenance: false, regroup: Some(by) });
    }

    /// Adds the source that brings the records of a partitioned table.
    pub fn read_table(&mut self, table: usize) {
        let described = &self.tables[table];
        self.sources.push(Source {
            name: described.name.clone(),
            topic: described.topic.clone(),
            format: described.format,
            key: described.key,
            start: Start::Earliest,
            time: None,
            tombstones: Tombstones::Deliver,
            schema: described.schema.clone(),
            carries: None,
            table: Some(table),
        });
    }

    /// The partitioned tables that a stage looks up, each by the source that brings its records.
    pub fn table_sources<'a>(&'a self, stage: &'a Stage) -> impl Iterator<Item = usize> + 'a {
        let brings = |table: &usize| self.sources.iter().position(|source| source.table == Some(*table));
        stage.tables.iter().filter_map(brings)
    }

    /// The sources whose records must lie in the same partition number for a stage: those that reach it, and its partitioned tables'.
    pub fn meeting(&self, stage: &Stage) -> BTreeSet<usize> {
        let mut sources = self.origins(&stage.from);
        sources.extend(self.table_sources(stage));
        sources
    }

    /// The sources, of the user's or the pipeline's own, whose records reach these inputs without another repartition.
    pub fn origins(&self, from: &[Input]) -> BTreeSet<usize> {
        let mut sources = BTreeSet::new();
        let mut inputs: Vec<Input> = from.to_vec();
        while let Some(input) = inputs.pop() {
            match input {
                Input::Source(source) => drop(sources.insert(source)),
                Input::Stage(stage, _) => inputs.extend(&self.stages[stage].from),
            }
        }
        sources
    }
}

impl Pipeline {
    /// Every policy that may have a topic of its own.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.on_error).chain(self.stages.iter().flat_map(|stage| [&stage.on_error, &stage.on_late]))
    }
}

/// How values are written in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FormatKind {
    #[default]
    Json,
    /// No fields; for plugins that read the value's bytes.
    Raw,
}

/// How keys are written in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeyFormat {
    /// Text as it is, a number as its digits.
    #[default]
    Text,
    /// A JSON value; an object for composite keys.
    Json,
    /// 4 bytes, big-endian (Kafka's IntegerSerializer).
    Int32,
    /// 8 bytes, big-endian (Kafka's LongSerializer).
    Int64,
    Bytes,
}

/// What becomes of tombstones of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tombstones {
    /// They go around plugins of base `extend` and reach the sinks unchanged.
    #[default]
    Pass,
    /// Plugins see them, every field null.
    Deliver,
    Drop,
}

/// Where a new group starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Earliest,
    Latest,
    /// Milliseconds since the epoch.
    At(i64),
}

/// The name of the repartition topic that lies before a stage, if one does.
pub fn repartition_topic(pipeline: &str, stage: &str) -> String {
    format!("{pipeline}.{stage}.repartition")
}

/// A field of the value that is the record's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeField {
    pub field: Path,
    /// Milliseconds in one unit of the field: 1 or 1000.
    pub unit: i64,
    /// A time further ahead of the record's own timestamp is the record's error, milliseconds.
    pub max_ahead: i64,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub topic: Arc<str>,
    pub format: FormatKind,
    pub key: KeyFormat,
    pub start: Start,
    pub time: Option<TimeField>,
    pub tombstones: Tombstones,
    pub schema: SourceSchema,
    /// A repartition topic of the pipeline's own: the sink that writes it.
    pub carries: Option<usize>,
    /// The topic of a partitioned table: its records reach no stage, they are the table's rows.
    pub table: Option<usize>,
}

impl Source {
    /// A stream of the user's: neither a table nor of the pipeline's own.
    pub fn is_stream(&self) -> bool {
        self.carries.is_none() && self.table.is_none()
    }
}

/// The declared fields of a source or a table.
#[derive(Clone, Debug, Default)]
pub struct SourceSchema {
    pub schema: Schema,
    /// Declared conversions: the path's type in the bytes.
    pub from: Vec<(Path, Type)>,
}

/// How a table is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Read to its end into memory before the first record, on every host.
    #[default]
    Global,
    /// A partition in each task, in a store of the task; records meet it as of their own place.
    Partitioned,
}

/// A topic whose last record for each key is a row. Its identity is the record's key.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub topic: Arc<str>,
    pub format: FormatKind,
    pub key: KeyFormat,
    pub scope: Scope,
    pub schema: SourceSchema,
}

/// What a stage or sink reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    Source(usize),
    /// A stage's index and its output's.
    Stage(usize, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Commit what is before the record, then stop.
    Fail,
    /// Count it and go on.
    Skip,
    DeadLetter {
        topic: Arc<str>,
        /// Key and value of the original even where no stage has protected them.
        include_original: bool,
    },
}

/// Where a stage's component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginRef {
    /// One of those that come with the program.
    Standard(String),
    /// A component's file, absolute.
    File(std::path::PathBuf),
}

#[derive(Clone)]
pub struct Stage {
    pub name: String,
    pub reference: PluginRef,
    pub plugin: Arc<dyn Plugin>,
    /// Interleaved by the record that rows come from, then in this order.
    pub from: Vec<Input>,
    /// The configuration, with secrets still as `{secret: NAME}`.
    pub with: serde_json::Value,
    /// What the stage's inputs have in common.
    pub input: Schema,
    /// What each of them holds.
    pub inputs: Vec<Schema>,
    pub description: Description,
    pub on_error: Policy,
    /// What becomes of records whose windows are closed: `Skip`, or a dead letter.
    pub on_late: Policy,
    pub limits: Limits,
    /// What leaves this stage may be shown in dead letters.
    pub protects: bool,
    /// The plugin's log and reasons are shown although no stage before it protects.
    pub log_unsafe: bool,
    /// Names of its stores, as `description.stores`; behind them that of its timers, if it has some.
    pub stores: Vec<String>,
    /// Indices into `tables`, as `description.tables`.
    pub tables: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Sink {
    /// Interleaved as a stage's.
    pub from: Vec<Input>,
    /// No two sinks write the same topic.
    pub topic: Arc<str>,
    /// None = bytes as they come.
    pub key: Option<KeyFormat>,
    /// None = the format of the sources.
    pub format: FormatKind,
    /// The fields that are written, all others dropped; None = all.
    pub fields: Option<Vec<Path>>,
    /// Create the topic if it is missing.
    pub create: bool,
    /// Each record tells in headers where it comes from.
    pub provenance: bool,
    /// A repartition topic of the pipeline's own: how its records are spread.
    pub regroup: Option<Regroup>,
}
