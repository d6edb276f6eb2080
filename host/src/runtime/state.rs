//! What a pipeline's stores stand on: the types of their rows, and their changelogs.

use super::{Creates, Fresh, RunError};
use crate::flow::plan::Plan;
use crate::io::{Internal, LocalState, Log, LogError, Position, partitions_of};
use crate::pipeline::{Pipeline, Source};
use crate::plugin::describe::Store;
use crate::store::changelog::{Changelog, Changelogs};
use crate::store::{RowType, StoreTypes, store_of, turn};
use crate::task::{self, Metadata};
use std::sync::Arc;
use std::time::Duration;

/// The stores of a pipeline as they are described, by name: of stages, and of partitioned tables, which are no stage's.
fn described(pipeline: &Pipeline) -> Vec<(Option<usize>, String, Store)> {
    let mut stores = Vec::new();
    for (index, stage) in pipeline.stages.iter().enumerate() {
        // The keys of timers begin with a time, as those of windows: in the changelog it reads as `start`.
        let timers = task::timers(&stage.description).map(|timers| Store { windowed: true, ..timers });
        let described = stage.description.stores.iter().cloned().chain(timers);
        stores.extend(stage.stores.iter().cloned().zip(described).map(|(name, described)| (Some(index), name, described)));
    }
    let tables = pipeline.sources.iter().filter_map(|source| Some(&pipeline.tables[source.table?]));
    stores.extend(tables.map(|table| (None, table.name.clone(), store_of(table))));
    stores
}

/// The types that rows which are kept may have, as far as that is known where a pipeline is made ready.
pub(super) enum Older {
    /// Nothing is known, or they were looked at elsewhere.
    None,
    /// What is kept is all there is: the last one, or others from which there was a way to it.
    Last,
    /// Any that there ever was: a sweep is not through.
    All,
}

/// Gives the types of the stores' rows their numbers. A type without a way from those that rows may have is refused before anything is done.
pub(super) fn add_types(pipeline: &Pipeline, types: &StoreTypes, older: Older) -> Result<(), RunError> {
    for (stage, name, store) in described(pipeline) {
        let (known, now) = (types.of(&name)?, RowType::of(&store.fields));
        let rows: Vec<Arc<RowType>> = match older {
            _ if stage.is_none() => Vec::new(),
            Older::None => Vec::new(),
            Older::Last => known.last().map(|(_, last)| last).into_iter().collect(),
            Older::All => known.all(),
        };
        for row in rows.iter().filter(|row| ***row != now) {
            let way = turn::way(row, &store).and_then(|way| turn::allowed(&way, pipeline.guarantee));
            let mut why = way.err().map(|why| turn::no_way(&name, row, &now, &why));
            if let (Older::All, Some(why)) = (&older, &mut why) {
                why.push_str(" (rows still become rows of the type before, a few with each commit: once `millstream_migrating_tasks` is 0, that type alone counts)");
            }
            if let Some(why) = why {
                return Err(RunError::Setup(format!("pipeline `{}`: {why}", pipeline.name)));
            }
        }
        types.add(&name, &store)?;
    }
    Ok(())
}

/// The changelogs of a pipeline's stores: created for a group that has not begun, checked for one that has.
#[allow(clippy::too_many_arguments)]
pub(super) fn changelogs(
    pipeline: &Pipeline,
    plan: &Plan,
    counts: &[i32],
    log: &dyn Log,
    creates: Creates,
    local: Arc<dyn LocalState>,
    types: &StoreTypes,
    fresh: Option<Fresh<'_>>,
) -> Result<Changelogs, RunError> {
    let mut partitions = Vec::new();
    for source in &pipeline.sources {
        if log.topic(&source.topic)?.is_some() {
            partitions.extend(partitions_of(log, &source.topic)?);
        }
    }
    let mut stores = Vec::new();
    for (stage, name, described) in described(pipeline) {
        let segment = match stage {
            Some(stage) => plan.segments.iter().position(|segment| segment.stages[stage]).unwrap_or_default(),
            None => {
                let own = |source: &Source| source.table.is_some_and(|table| pipeline.tables[table].name == name);
                pipeline.sources.iter().position(own).map_or(0, |source| plan.segment_of[source])
            }
        };
        stores.push(Changelog::new(&pipeline.name, &name, segment, &described, types.of(&name)?));
    }
    let mut tombstones = Duration::MAX;
    let mut exist = true;
    for changelog in &stores {
        let topic = &changelog.topic;
        let tasks = plan.segments[changelog.segment].sources.iter().map(|source| counts[*source]).max().unwrap_or(1);
        let mut found = log.topic(topic)?;
        let mut begun = false;
        if found.is_none() && creates != Creates::Nothing {
            // Of a store that is new with a generation, it has begun with the first position of that one.
            let since = fresh.map_or(0, |fresh| if fresh.stores.contains(&*changelog.store) { fresh.generation } else { fresh.epoch });
            let counts = |position: &Position| Metadata::of(&position.metadata).map_or(0, |metadata| metadata.generation) >= since;
            begun = log.committed(&pipeline.name, &partitions)?.iter().flatten().any(counts);
            if begun {
                // Another host may have made it meanwhile, and begun.
                found = log.topic(topic)?;
            }
        }
        match found {
            Some(found) if found.partitions != tasks => {
                return Err(LogError::stop(format!(
                    "the changelog {topic} has {} partitions, but the sources have {tasks}: was their number changed? Rows would not be found where their keys \
                     are now. Nothing was changed; run the pipeline under another name to start anew",
                    found.partitions
                ))
                .into());
            }
            Some(_) => {}
            None if creates == Creates::Nothing => {
                exist = false;
                continue;
            }
            None if begun => {
                return Err(LogError::stop(format!(
                    "the changelog {topic} is missing, but the group `{}` has read records: it was deleted, and the state of store `{}` with it. Bring it back, or run \
                     the pipeline under another name to start anew; nothing was changed",
                    pipeline.name, changelog.store
                ))
                .into());
            }
            None => log.create_internal(topic, tasks, Internal::Changelog)?,
        }
        if let Some(retention) = log.retention(topic)? {
            if !retention.compacted {
                return Err(LogError::stop(format!(
                    "the changelog {topic} is not compacted: rows would be deleted by age. Set `cleanup.policy=compact` on it (and nothing beside it)"
                ))
                .into());
            }
            tombstones = tombstones.min(retention.tombstones);
        }
    }
    let since = fresh.map_or(0, |fresh| fresh.generation.max(fresh.epoch));
    Ok(Changelogs { stores, local, claims: Arc::default(), tombstones, since, exist })
}
