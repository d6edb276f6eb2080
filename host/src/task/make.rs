//! What a task is made of, by a setting: stages with their stores, sinks, its parts of partitioned tables.

use super::{Setting, TaskId, timers};
use crate::flow::migrate::ByPlugin;
use crate::flow::plan;
use crate::flow::provenance::Provenance;
use crate::flow::sink::Sink;
use crate::flow::stage::Stage;
use crate::io::Guarantee;
use crate::pipeline;
use crate::store::{CACHE_BYTES, Migrate, PartitionedTable, RowTypes, StateStore, TableView};
use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

/// The stages of a task. Stores are taken from `kept`, or else made. `over`: another generation's pipeline and stages, which share theirs.
pub(super) fn stages(
    setting: &Setting,
    id: TaskId,
    tables: &[Option<Arc<Mutex<PartitionedTable>>>],
    kept: &mut HashMap<Arc<str>, StateStore>,
    over: Option<(&pipeline::Pipeline, &[Stage])>,
) -> Vec<Stage> {
    let pipeline = &setting.pipeline;
    let exposed = plan::exposed(pipeline);
    let stores = pipeline.stages.iter().map(|stage| stage.stores.len()).sum::<usize>();
    let tasks = setting.partitions.iter().copied().max().unwrap_or(1).max(1) as usize;
    let cached = CACHE_BYTES / (stores * tasks).max(1);
    // Rows of a stage that this task never reaches are another task's.
    let reached = &setting.plan.segments[id.segment].stages;
    let mut stage_of = |(index, stage): (usize, &pipeline::Stage)| {
        let same = |(known, _): &(&pipeline::Stage, &Stage)| !stage.stores.is_empty() && known.stores == stage.stores;
        if let Some((_, own)) = over.and_then(|(pipeline, stages)| pipeline.stages.iter().zip(stages).find(same)) {
            return Stage::over(pipeline, index, setting.requests[index].clone(), exposed[index], own);
        }
        let description = &stage.description;
        let timers = timers(description);
        let mut stores = Vec::new();
        if let Some(state) = setting.state.as_ref().filter(|_| reached[index]) {
            for (name, described) in stage.stores.iter().zip(description.stores.iter().chain(&timers)) {
                let make = || {
                    let types = types_of(setting, name);
                    let store = StateStore::new(name, id.partition, described, description.window, state.clone(), types).cached(cached);
                    if setting.writes_back() { store.write_back() } else { store }
                };
                let store = kept.remove(name.as_str()).map(|store| store.succeed(described)).unwrap_or_else(make);
                stores.push(store.migrating(migrate(setting, index, stores.len())));
            }
        }
        // A stage of another segment sees none of the partitioned ones, and is not called.
        let view = |table: &usize| match (&setting.tables[*table], &tables[*table]) {
            (Some(global), _) => Some(TableView::Global(global.clone())),
            (None, own) => own.clone().map(TableView::Partitioned),
        };
        let views = stage.tables.iter().filter_map(view).collect();
        Stage::new(pipeline, index, setting.requests[index].clone(), exposed[index], stores, views)
    };
    pipeline.stages.iter().enumerate().map(&mut stage_of).collect()
}

/// The types of a store's rows, which are known since the setting was made.
pub(super) fn types_of(setting: &Setting, store: &str) -> Arc<RowTypes> {
    setting.types.of(store).unwrap_or_else(|_| RowTypes::in_memory(store))
}

/// The way of a store's older rows through the stage's plugin, if it has one.
fn migrate(setting: &Setting, stage: usize, store: usize) -> Option<Box<dyn Migrate>> {
    let described = &setting.pipeline.stages[stage];
    let lists = described.description.stores.get(store).is_some_and(|store| !store.migrates.is_empty());
    let once = setting.pipeline.guarantee == Guarantee::ExactlyOnce;
    (lists && once).then(|| {
        Box::new(ByPlugin {
            plugin: described.plugin.clone(),
            request: Arc::new(setting.requests[stage].clone()),
            description: Arc::new(described.description.clone()),
            limits: described.limits,
            store,
            instance: None,
        }) as Box<dyn Migrate>
    })
}

/// `commit`: the number of the task's commit that is under way.
pub(super) fn sinks(setting: &Setting, id: TaskId, commit: &Arc<AtomicI64>) -> Vec<Sink> {
    let commit = setting.tells_commits().then_some(commit);
    let sink = |(index, sink): (usize, &pipeline::Sink)| {
        let (partitions, max) = setting.topics.get(&sink.topic).copied().unwrap_or((1, None));
        let made = Sink::new(sink.clone(), id.partition, partitions, max);
        match sink.provenance {
            true => made.telling(Provenance::new(&setting.pipeline, index, setting.generation_number(), id.partition, commit.cloned())),
            false => made,
        }
    };
    setting.pipeline.sinks.iter().enumerate().map(sink).collect()
}

/// The task's part of a partitioned table, if it is one of its segment.
pub(super) fn own_table(setting: &Setting, id: TaskId, table: usize) -> Option<Arc<Mutex<PartitionedTable>>> {
    let source = setting.pipeline.sources.iter().position(|source| source.table == Some(table))?;
    let state = setting.state.clone().filter(|_| setting.plan.segment_of[source] == id.segment)?;
    let described = &setting.pipeline.tables[table];
    let mut own = PartitionedTable::new(described, id.partition, state, types_of(setting, &described.name));
    if setting.writes_back() {
        own.store = own.store.write_back();
    }
    Some(Arc::new(Mutex::new(own)))
}
