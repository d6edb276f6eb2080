//! Whether keys lie where they belong: a record meets the row of a partitioned table only if both topics put equal keys to the same partition number.
//! That is known only by looking: the first keys of each partition are hashed.

use crate::flow::source::Taken;
use crate::io::partition_for;
use crate::pipeline::{Pipeline, Scope};
use std::collections::HashMap;

/// Keys of a partition that are looked at.
const KEYS: u32 = 100;

/// The keys that a task has looked at.
pub struct Placement {
    /// By source: a stage that meets a partitioned table by its records' own keys, and the name of the table.
    met: Vec<Option<(usize, usize)>>,
    seen: HashMap<(usize, i32), u32>,
}

impl Placement {
    pub fn new(pipeline: &Pipeline) -> Self {
        let mut met = vec![None; pipeline.sources.len()];
        for (index, stage) in pipeline.stages.iter().enumerate() {
            for table in stage.tables.iter().filter(|table| pipeline.tables[**table].scope == Scope::Partitioned) {
                for source in pipeline.meeting(stage) {
                    let described = &pipeline.sources[source];
                    // Repartition topics are the pipeline's own, spread as they must be.
                    if described.carries.is_none() && described.table.is_none_or(|own| own == *table) {
                        met[source].get_or_insert((index, *table));
                    }
                }
            }
        }
        Self { met, seen: HashMap::new() }
    }

    /// Err: a key in the wrong partition, in words.
    pub fn check(&mut self, pipeline: &Pipeline, source: usize, partitions: i32, taken: &Taken) -> Result<(), String> {
        let Some((stage, table)) = self.met[source] else { return Ok(()) };
        for (row, partition) in taken.partitions.iter().enumerate() {
            let seen = self.seen.entry((source, *partition)).or_default();
            if *seen >= KEYS {
                continue;
            }
            let Some(key) = taken.records.keys.bytes(row) else { continue };
            *seen += 1;
            let right = partition_for(key, partitions);
            if right != *partition {
                let (described, table) = (&pipeline.sources[source], &pipeline.tables[table].name);
                let help = match described.table {
                    Some(_) => format!("or make the table `{table}` global (`scope: global`)"),
                    None => format!(
                        "or send its records through a repartition topic by a stage before `{}`: `plugin: map, with: {{ set: {{ $key: $key }} }}`",
                        pipeline.stages[stage].name
                    ),
                };
                return Err(format!(
                    "the key of record {}/{partition}@{} belongs to partition {right} of {partitions} (murmur2): whoever writes the topic spreads keys \
                     otherwise, and records would not meet their rows of table `{table}`. Nothing of it was kept. Write the topic with murmur2, as Kafka's \
                     Java clients do (`partitioner=murmur2_random` for clients on librdkafka), {help}",
                    described.topic, taken.offsets[row]
                ));
            }
        }
        Ok(())
    }
}
