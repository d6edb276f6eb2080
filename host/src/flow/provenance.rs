//! Headers of output records that tell where they come from: pipeline, generation, plugins, the place of the record that caused them, and the row of a store
//! that they were made from.

use crate::column::Type;
use crate::flow::batch::Batch;
use crate::flow::kept::KeptRow;
use crate::key::convert;
use crate::pipeline::{self, Input, KeyFormat, Pipeline};
use crate::plugin::describe;
use crate::record::{Headers, HeadersBuilder};
use crate::store::changelog::windowed_key;
use crate::store::{RowType, decode_int};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The pipeline's name.
pub const PIPELINE: &str = "millstream.pipeline";
/// The generation of its deployment, as digits; absent where it runs without a fleet.
pub const GENERATION: &str = "millstream.generation";
/// The stages on the way, in order, as `stage=plugin@version:digest`, with the first 16 hexadecimal digits; separated by commas.
pub const PLUGINS: &str = "millstream.plugins";
/// The input record that caused it, as `topic/partition@offset`: one of the user's sources, also behind repartition topics.
pub const SOURCE: &str = "millstream.source";

/// The row of a store that it was made from, as JSON: a `Row`. Absent where no stage since the last repartition topic keeps something.
pub const ROW: &str = "millstream.row";

/// The row of a store that a record was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    pub stage: String,
    /// Absent where it is not known which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Of the store: also the partition of its changelog.
    pub task: i32,
    /// The row's key, without the time of a windowed one; of an int its digits. With neither this nor `base64`, it is not told: see `withheld`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The same, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The key is known, and is not told: it is not the record's own, so the record may be meant to hide it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// Of a windowed row: the window's start, of a session the time of its last record. Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// The window's end, of one that is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// It was handed over when its window closed, and deleted with the same commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// The type of the row, as in `millstream.version` of its changelog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The number of the commit that the record belongs to, where the store has a changelog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<i64>,
}

impl Row {
    /// The key of the row's records in the changelog; None = it is not told.
    pub fn changelog_key(&self) -> Option<Vec<u8>> {
        let key = match (&self.key, &self.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(text)) => BASE64.decode(text).ok()?,
            (None, None) => return None,
        };
        Some(self.start.map_or(key.clone(), |start| windowed_key(&key, start).into_bytes()))
    }
}

/// What is told of a stage's rows.
struct Kept {
    stage: String,
    stores: Vec<(String, describe::Store, String)>,
    window: Option<describe::Window>,
}

/// What a sink says of its records.
pub struct Provenance {
    /// Headers that every record of the sink has.
    fixed: Vec<(&'static str, String)>,
    /// By source.
    topics: Vec<Arc<str>>,
    /// By stage.
    kept: Vec<Kept>,
    task: i32,
    /// The number of the commit that is under way; None where the stores have no changelogs.
    commit: Option<Arc<AtomicI64>>,
}

impl Provenance {
    /// Of the sink of this index, in the task of this number. `generation`: 0 = without a fleet. `commit`: the number of the commit under way, if that is told.
    pub fn new(pipeline: &Pipeline, sink: usize, generation: u64, task: i32, commit: Option<Arc<AtomicI64>>) -> Self {
        let mut fixed = vec![(PIPELINE, pipeline.name.clone())];
        if generation > 0 {
            fixed.push((GENERATION, generation.to_string()));
        }
        let on_the_way = on_the_way(pipeline, &pipeline.sinks[sink].from);
        let plugin = |stage: &usize| {
            let stage = &pipeline.stages[*stage];
            let (about, digest) = (stage.plugin.about(), stage.plugin.digest());
            format!("{}={}@{}:{}", stage.name, about.name, about.version, digest.get(..16).unwrap_or(digest))
        };
        fixed.push((PLUGINS, on_the_way.iter().map(plugin).collect::<Vec<_>>().join(",")));
        let kept = |stage: &pipeline::Stage| Kept {
            stage: stage.name.clone(),
            stores: stage
                .stores
                .iter()
                .zip(&stage.description.stores)
                .map(|(name, store)| (name.clone(), store.clone(), RowType::of(&store.fields).text().to_owned()))
                .collect(),
            window: stage.description.window,
        };
        Self {
            fixed,
            topics: pipeline.sources.iter().map(|source| source.topic.clone()).collect(),
            kept: pipeline.stages.iter().map(kept).collect(),
            task,
            commit,
        }
    }

    /// By row, what is told of the row of a store that it was made from. `source_key`: the format of keys that no stage gave.
    pub fn rows(&self, batch: &Batch, source_key: KeyFormat) -> Vec<Option<Vec<u8>>> {
        let told = |row: usize| {
            let key = batch.key(row).map(|key| convert(key, batch.key_format(row, source_key), KeyFormat::Text));
            let own = key.and_then(Result::ok).unwrap_or_default();
            serde_json::to_vec(&self.row(batch.kept_row(row)?, &own)?).ok()
        };
        (0..batch.rows).map(told).collect()
    }

    /// `own`: the record's key, as text.
    fn row(&self, kept: &KeptRow, own: &[u8]) -> Option<Row> {
        let stage = self.kept.get(kept.stage)?;
        let mut row = Row { stage: stage.stage.clone(), task: self.task, ..Row::default() };
        row.commit = self.commit.as_ref().map(|commit| commit.load(Ordering::Relaxed));
        let (name, store, version) = stage.stores.get(kept.store)?;
        let Some(encoded) = &kept.key else {
            row.store = Some(name.clone()).filter(|_| stage.stores.len() == 1);
            row.version = Some(version.clone()).filter(|_| stage.stores.len() == 1);
            return Some(row);
        };
        (row.store, row.version, row.closed) = (Some(name.clone()), Some(version.clone()), kept.closed);
        let mut rest = &encoded[..];
        if store.windowed {
            let (start, behind) = encoded.split_first_chunk::<8>()?;
            row.start = decode_int(start);
            row.end = stage.window.filter(|window| !window.session).zip(row.start).map(|(window, start)| start.saturating_add(window.size));
            rest = behind;
        }
        let digits = if store.key == Type::Int { decode_int(rest).map(|number| number.to_string()) } else { None };
        let key = digits.as_ref().map_or(rest, |digits| digits.as_bytes());
        match std::str::from_utf8(key) {
            _ if key != own => row.withheld = true,
            Ok(text) => row.key = Some(text.to_owned()),
            Err(_) => row.base64 = Some(BASE64.encode(key)),
        }
        Some(row)
    }

    /// What a record grows by, at most, bytes.
    pub fn bytes(&self) -> usize {
        let fixed: usize = self.fixed.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        // A partition, an offset, and what stands between.
        let place = self.topics.iter().map(|topic| topic.len()).max().unwrap_or(0) + 32;
        fixed + SOURCE.len() + place + 10
    }

    /// The headers of a batch's rows with these behind them, `rows` among them. What a pipeline before has said under the same names gives way.
    pub fn add(&self, headers: &Headers, batch: &Batch, rows: &[Option<Vec<u8>>]) -> Headers {
        let mut out = HeadersBuilder::default();
        for row in 0..batch.rows {
            for (name, value) in headers.of(row).filter(|(name, _)| !is_own(name)) {
                out.push(name, value);
            }
            for (name, value) in &self.fixed {
                out.push(name.as_bytes(), Some(value.as_bytes()));
            }
            let (source, partition, offset) = batch.origin.place(batch.origin_row(row));
            out.push(SOURCE.as_bytes(), Some(format!("{}/{partition}@{offset}", self.topics[source]).as_bytes()));
            if let Some(Some(told)) = rows.get(row) {
                out.push(ROW.as_bytes(), Some(told));
            }
            out.close();
        }
        out.finish()
    }
}

/// By stage: whether a sink behind it, with no repartition topic between, tells where its records come from.
pub fn tells_rows(pipeline: &Pipeline) -> Vec<bool> {
    let mut tells = vec![false; pipeline.stages.len()];
    let mut todo: Vec<Input> = pipeline.sinks.iter().filter(|sink| sink.provenance).flat_map(|sink| sink.from.iter().copied()).collect();
    while let Some(input) = todo.pop() {
        if let Input::Stage(stage, _) = input
            && !std::mem::replace(&mut tells[stage], true)
        {
            todo.extend(&pipeline.stages[stage].from);
        }
    }
    tells
}

fn is_own(name: &[u8]) -> bool {
    [PIPELINE, GENERATION, PLUGINS, SOURCE, ROW].iter().any(|own| own.as_bytes() == name)
}

/// The stages whose records reach these inputs, repartition topics between them or not.
fn on_the_way(pipeline: &Pipeline, from: &[Input]) -> BTreeSet<usize> {
    let mut stages = BTreeSet::new();
    let mut todo = from.to_vec();
    while let Some(input) = todo.pop() {
        match input {
            Input::Stage(stage, _) => {
                if stages.insert(stage) {
                    todo.extend(&pipeline.stages[stage].from);
                }
            }
            Input::Source(source) => todo.extend(pipeline.sources[source].carries.into_iter().flat_map(|sink| &pipeline.sinks[sink].from)),
        }
    }
    stages
}
