//! Headers of output records that tell where they come from: pipeline, generation, plugins, and the place of the record that caused them.

use crate::flow::batch::Batch;
use crate::pipeline::{Input, Pipeline};
use crate::record::{Headers, HeadersBuilder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The pipeline's name.
pub const PIPELINE: &str = "millstream.pipeline";
/// The generation of its deployment, as digits; absent where it runs without a fleet.
pub const GENERATION: &str = "millstream.generation";
/// The stages on the way, in order, as `stage=plugin@version:digest`, with the first 16 hexadecimal digits; separated by commas.
pub const PLUGINS: &str = "millstream.plugins";
/// The input record that caused it, as `topic/partition@offset`: one of the user's sources, also behind repartition topics.
pub const SOURCE: &str = "millstream.source";

/// What a sink says of its records.
pub struct Provenance {
    /// Headers that every record of the sink has.
    fixed: Vec<(&'static str, String)>,
    /// By source.
    topics: Vec<Arc<str>>,
}

impl Provenance {
    /// Of the sink of this index. `generation`: 0 = without a fleet.
    pub fn new(pipeline: &Pipeline, sink: usize, generation: u64) -> Self {
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
        Self { fixed, topics: pipeline.sources.iter().map(|source| source.topic.clone()).collect() }
    }

    /// What a record grows by, at most, bytes.
    pub fn bytes(&self) -> usize {
        let fixed: usize = self.fixed.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        // A partition, an offset, and what stands between.
        let place = self.topics.iter().map(|topic| topic.len()).max().unwrap_or(0) + 32;
        fixed + SOURCE.len() + place + 10
    }

    /// The headers of a batch's rows with these behind them. What a pipeline before has said under the same names gives way.
    pub fn add(&self, headers: &Headers, batch: &Batch) -> Headers {
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
            out.close();
        }
        out.finish()
    }
}

fn is_own(name: &[u8]) -> bool {
    [PIPELINE, GENERATION, PLUGINS, SOURCE].iter().any(|own| own.as_bytes() == name)
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
