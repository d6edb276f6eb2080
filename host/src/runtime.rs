//! Puts a checked pipeline on a log: secrets, tables, topics, state. The one place that knows both.

use crate::clock::SystemClock;
use crate::course::Course;
use crate::explain;
use crate::flow::plan::Plan;
use crate::io::{Internal, LocalState, Log, LogError, Member, Position, partitions_of};
use crate::manifest::{Secrets, resolve_secrets};
use crate::pipeline::{Input, Pipeline, Policy, Regroup, Scope, Source, Stage, Table};
use crate::plugin::CallError;
use crate::plugin::describe::{Request, Store};
use crate::store::changelog::{Changelog, Changelogs};
use crate::store::{GlobalTable, LocalFolder, LocalMemory, RowType, StoreTypes, store_of, turn};
use crate::summary::Summary;
use crate::tables::TableReader;
use crate::task::{self, BatchLimit, Metadata, Setting, Spare, Stop};
use crate::worker::{Ended, Observer, Options, Role, Worker};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What may be created on a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creates {
    /// Every topic that a pipeline names.
    All,
    /// Sinks with `create: true`.
    Declared,
    Nothing,
}

/// Why a run did not end well, in words: what happened, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Record(String),
    #[error("{0}")]
    Plugin(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Setup(String),
}

/// Stores whose changelogs may be missing although the group has read records: as long as none of it is of the generation that they came with, or a later one.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'a> {
    /// That came after the generation which ran last.
    pub stores: &'a BTreeSet<String>,
    /// The first that may have them, or the first without one that went. 0 = none came or went.
    pub generation: u64,
    /// With which generation all state was emptied last; local copies of an earlier one are dropped. 0 = never.
    pub epoch: u64,
}

/// Makes ready what the pipeline's tasks share. `data`: the folder for local copies of state, where the log keeps it as changelogs; None = in memory.
pub fn prepare(
    pipeline: Pipeline,
    log: &Arc<dyn Log>,
    secrets: &Secrets,
    limit: BatchLimit,
    creates: Creates,
    data: Option<&Path>,
) -> Result<Setting, RunError> {
    prepare_fresh(pipeline, log, secrets, limit, creates, data, None)
}

/// As `prepare`, of a generation of a fleet.
pub fn prepare_fresh(
    pipeline: Pipeline,
    log: &Arc<dyn Log>,
    secrets: &Secrets,
    limit: BatchLimit,
    creates: Creates,
    data: Option<&Path>,
    fresh: Option<Fresh<'_>>,
) -> Result<Setting, RunError> {
    let name = pipeline.name.clone();
    let local = || -> Result<Arc<dyn LocalState>, LogError> {
        Ok(match data {
            Some(folder) if creates != Creates::Nothing => Arc::new(LocalFolder::open(folder, &name, fresh.map(|fresh| fresh.epoch))?),
            _ => Arc::new(LocalMemory::default()),
        })
    };
    prepare_on(pipeline, log, secrets, limit, creates, &local, fresh)
}

/// The same, with `local` to open the local copies of stores, if the log keeps state as changelogs.
pub fn prepare_on(
    pipeline: Pipeline,
    log: &Arc<dyn Log>,
    secrets: &Secrets,
    limit: BatchLimit,
    creates: Creates,
    local: &dyn Fn() -> Result<Arc<dyn LocalState>, LogError>,
    fresh: Option<Fresh<'_>>,
) -> Result<Setting, RunError> {
    let requests = requests(&pipeline, secrets)?;
    let (partitions, topics) = topics(&pipeline, &**log, creates)?;
    let plan = Plan::new(&pipeline);
    let (mut state, mut logged, mut types) = (None, None, Arc::default());
    let keeps = |stage: &Stage| !stage.stores.is_empty() || pipeline.table_sources(stage).next().is_some();
    if pipeline.stages.iter().any(keeps) {
        state = log.state(&pipeline.name)?;
        if let Some(state) = &state {
            types = Arc::new(StoreTypes::new(state.clone(), creates != Creates::Nothing));
            add_types(&pipeline, &types, Older::Last)?;
        } else {
            let local = local()?;
            types = Arc::new(StoreTypes::new(local.clone(), true));
            add_types(&pipeline, &types, Older::None)?;
            let changelogs = changelogs(&pipeline, &plan, &partitions, &**log, creates, local.clone(), &types, fresh)?;
            state = Some(local);
            logged = Some(Arc::new(changelogs));
        }
    }
    let global = |table: &Table| (table.scope == Scope::Global).then(|| Arc::new(RwLock::new(GlobalTable::new(table))));
    let tables = pipeline.tables.iter().map(global).collect();
    Ok(Setting {
        plan,
        requests,
        tables,
        state,
        types,
        changelogs: logged,
        dry: false,
        partitions,
        topics,
        limit,
        fresh_instances: false,
        generation: None,
        spare: Spare::default(),
        pipeline,
    })
}

/// Whether two settings stand on the same tables and state: of one run.
pub fn of_one_run(one: &Setting, other: &Setting) -> bool {
    let same = |(one, other): (&Option<Arc<_>>, &Option<Arc<_>>)| match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    };
    let state = match (&one.changelogs, &other.changelogs) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    };
    state && one.tables.len() == other.tables.len() && one.tables.iter().zip(&other.tables).all(same)
}

/// Makes ready a newer form of a pipeline that runs, to which its tasks can turn where they stand: on the same sources, tables, stores and repartition topics.
///
/// None: they cannot, since a topic has another number of partitions by now. `sweeps`: rows of types older than its own may be left.
pub fn prepare_next(
    pipeline: Pipeline,
    now: &Setting,
    log: &dyn Log,
    secrets: &Secrets,
    creates: Creates,
    sweeps: bool,
) -> Result<Option<Setting>, RunError> {
    let plan = Plan::new(&pipeline);
    if let Some(what) = apart(&now.pipeline, &now.plan, &pipeline, &plan) {
        return Err(RunError::Setup(format!("pipeline `{}`: {what} changes, which no running task can follow", pipeline.name)));
    }
    let requests = requests(&pipeline, secrets)?;
    let (partitions, topics) = topics(&pipeline, log, creates)?;
    if partitions != now.partitions {
        return Ok(None);
    }
    if now.state.is_some() {
        add_types(&pipeline, &now.types, if sweeps { Older::All } else { Older::None })?;
    }
    Ok(Some(Setting {
        plan,
        requests,
        tables: now.tables.clone(),
        state: now.state.clone(),
        types: now.types.clone(),
        changelogs: now.changelogs.clone(),
        dry: now.dry,
        partitions,
        topics,
        limit: now.limit,
        fresh_instances: false,
        generation: None,
        spare: Spare::default(),
        pipeline,
    }))
}

/// Whether tasks can turn from one form of a pipeline to another where they stand.
pub fn can_turn(now: &Pipeline, next: &Pipeline) -> bool {
    apart(now, &Plan::new(now), next, &Plan::new(next)).is_none()
}

/// The names of a pipeline's stores, those of partitioned tables among them.
pub fn store_names(pipeline: &Pipeline) -> BTreeSet<String> {
    let own = pipeline.stages.iter().flat_map(|stage| stage.stores.iter().cloned());
    let tables = pipeline.sources.iter().filter_map(|source| Some(pipeline.tables[source.table?].name.clone()));
    own.chain(tables).collect()
}

/// Which stores a generation has that the one which `ran` last had not, and the first number that may have them: their changelogs may be missing. The
/// number is 0 if both have the same ones.
pub fn new_stores(own: &BTreeSet<String>, before: &BTreeSet<String>, ran: u64) -> (BTreeSet<String>, u64) {
    (own.difference(before).cloned().collect(), if own == before { 0 } else { ran + 1 })
}

/// Starts an instance of each stage's plugin, and lets it go. Err within: the stage whose plugin does not start, and why.
pub fn try_start(pipeline: &Pipeline, secrets: &Secrets) -> Result<Result<(), (usize, CallError)>, RunError> {
    let requests = requests(pipeline, secrets)?;
    let started = pipeline.stages.iter().zip(&requests).enumerate().try_for_each(|(index, (stage, request))| {
        stage.plugin.instantiate(request, &stage.description, stage.limits).map(drop).map_err(|error| (index, error))
    });
    Ok(started)
}

/// What two forms of a pipeline do not have in common of all that tasks keep: None = a running task can turn from one to the other.
fn apart(now: &Pipeline, plan: &Plan, next: &Pipeline, next_plan: &Plan) -> Option<&'static str> {
    let source = |source: &Source| (source.topic.clone(), source.key, source.carries.is_some(), source.table);
    if now.sources.iter().map(source).ne(next.sources.iter().map(source)) || plan.segment_of != next_plan.segment_of {
        return Some("what it reads, or where it repartitions,");
    }
    let table =
        |table: &Table| (table.name.clone(), table.topic.clone(), table.format, table.key, table.scope, format!("{:?}", table.schema));
    if now.tables.iter().map(table).ne(next.tables.iter().map(table)) {
        return Some("a table");
    }
    let regroups = |pipeline: &Pipeline| -> Vec<_> {
        pipeline.sinks.iter().filter_map(|sink| Some((sink.topic.clone(), sink.key, sink.format, sink.regroup.clone()?))).collect()
    };
    if regroups(now) != regroups(next) {
        return Some("by what a repartition topic brings records together");
    }
    if now.guarantee != next.guarantee {
        return Some("the guarantee");
    }
    let (now, next, guarantee) = (stores(now, plan), stores(next, next_plan), next.guarantee);
    let turns = now.len() == next.len()
        && now.iter().zip(&next).all(|((name, (kept, (rows, _))), (other, (next, (_, store))))| {
            let turns = || turn::way(rows, store).is_ok_and(|way| turn::allowed(&way, guarantee).is_ok());
            name == other && kept == next && (*rows == RowType::of(&store.fields) || turns())
        });
    (!turns).then_some("the state of a stage")
}

/// Each store's name with what a running task cannot change of it (the segment whose tasks keep it, its keys and windows), its rows' type, and its description.
fn stores(pipeline: &Pipeline, plan: &Plan) -> BTreeMap<String, ((usize, String), (RowType, Store))> {
    let mut stores = BTreeMap::new();
    for (index, stage) in pipeline.stages.iter().enumerate() {
        let segment = plan.segments.iter().position(|segment| segment.stages[index]).unwrap_or_default();
        let timers = task::timers(&stage.description);
        for (name, store) in stage.stores.iter().zip(stage.description.stores.iter().chain(&timers)) {
            let window = stage.description.window.filter(|_| store.windowed);
            // What the plugin calls it is its own business.
            let kept = format!("{:?} {:?} {window:?}", store.key, store.by);
            stores.insert(name.clone(), ((segment, kept), (RowType::of(&store.fields), store.clone())));
        }
    }
    stores
}

/// By stage, what its plugin is started with.
fn requests(pipeline: &Pipeline, secrets: &Secrets) -> Result<Vec<Request>, RunError> {
    let tables: BTreeMap<_, _> = pipeline.tables.iter().map(|table| (table.name.clone(), table.schema.schema.clone())).collect();
    let mut requests = Vec::with_capacity(pipeline.stages.len());
    for stage in &pipeline.stages {
        let config = resolve_secrets(&stage.with, &|name| secrets.get(name)).map_err(|missing| {
            let variables: Vec<_> = missing.iter().map(|name| crate::manifest::variable(name)).collect();
            RunError::Setup(format!(
                "pipeline `{}`, stage `{}`: the secrets {} are not given; set {} or name a file in MILLSTREAM_SECRETS",
                pipeline.name,
                stage.name,
                missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
                variables.join(", ")
            ))
        })?;
        requests.push(Request { config, input: stage.input.clone(), inputs: stage.inputs.clone(), tables: tables.clone() });
    }
    Ok(requests)
}

/// Partitions and limits of topics that a pipeline writes.
type Written = HashMap<Arc<str>, (i32, Option<usize>)>;

/// The partition counts of the sources, and what is known of the topics that the pipeline writes; creates what may be created, and the pipeline's own
/// topics. All missing topics are told at once.
fn topics(pipeline: &Pipeline, log: &dyn Log, creates: Creates) -> Result<(Vec<i32>, Written), RunError> {
    let mut missing = Vec::new();
    let read = partitions_read(pipeline, log)?;
    let partitions = read.unwrap_or(1);
    let mut counts = vec![1; pipeline.sources.len()];
    for (source, count) in pipeline.sources.iter().zip(&mut counts).filter(|(source, _)| source.carries.is_none()) {
        match log.topic(&source.topic)? {
            Some(topic) => *count = topic.partitions,
            None if creates == Creates::All => {
                *count = partitions;
                make_topic(log, &source.topic, *count)?;
            }
            None => missing.push((source.topic.clone(), None)),
        }
    }
    let wanted = |source: &Source| repartition_count(pipeline, source, &counts).unwrap_or(partitions);
    let own: Vec<_> = pipeline.sources.iter().map(|source| source.carries.map(|_| (source, wanted(source)))).collect();
    for (own, count) in own.into_iter().zip(&mut counts) {
        if let Some((source, wanted)) = own {
            *count = repartition_topic(log, &source.topic, wanted, creates, !missing.is_empty())?;
        }
    }
    let uneven = uneven(pipeline, &counts);
    if let Some((_, message, help)) = uneven.into_iter().next().filter(|_| missing.is_empty()) {
        return Err(LogError::stop(format!("{message}. Nothing was changed; {help}")).into());
    }
    for table in &pipeline.tables {
        if log.topic(&table.topic)?.is_none() {
            match creates {
                Creates::All => make_topic(log, &table.topic, 1)?,
                _ => missing.push((table.topic.clone(), None)),
            }
        }
    }
    let dead = pipeline.policies().filter_map(|policy| match policy {
        Policy::DeadLetter { topic, .. } => Some((topic.clone(), false)),
        _ => None,
    });
    let mut written = HashMap::new();
    let (own, sinks): (Vec<_>, Vec<_>) = pipeline.sinks.iter().partition(|sink| sink.regroup.is_some());
    for sink in own {
        let topic = log.topic(&sink.topic)?;
        let count = pipeline.sources.iter().position(|source| source.topic == sink.topic).map_or(partitions, |source| counts[source]);
        written.insert(sink.topic.clone(), topic.map_or((count, None), |topic| (topic.partitions, topic.max_message_bytes)));
    }
    for (name, create) in sinks.into_iter().map(|sink| (sink.topic.clone(), sink.create)).chain(dead) {
        if written.contains_key(&name) {
            continue;
        }
        if log.topic(&name)?.is_none() && (creates == Creates::All || creates == Creates::Declared && create) {
            make_topic(log, &name, partitions)?;
        }
        match log.topic(&name)? {
            Some(topic) => drop(written.insert(name, (topic.partitions, topic.max_message_bytes))),
            // A dry run writes nothing: it needs no topic.
            None if creates == Creates::Nothing => drop(written.insert(name, (partitions, None))),
            None => missing.push((name, read)),
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Ok((counts, written));
    }
    let commands: Vec<_> = missing.iter().map(|(topic, partitions)| format!("  {}", log.creation(topic, *partitions))).collect();
    Err(LogError::stop(format!("these topics are missing; create them, or say `create: true` at a sink:\n{}", commands.join("\n"))).into())
}

/// Creates a topic, unless another host has done so at the same time.
fn make_topic(log: &dyn Log, name: &str, partitions: i32) -> Result<(), LogError> {
    let created = log.create_topic(name, partitions);
    if created.is_err() && log.topic(name)?.is_some() { Ok(()) } else { created }
}

/// The number of partitions of a repartition topic, which is created if it is missing. `hold`: create nothing, the run will not start.
fn repartition_topic(log: &dyn Log, name: &str, partitions: i32, creates: Creates, hold: bool) -> Result<i32, LogError> {
    let found = log.topic(name)?;
    if found.is_none() && creates != Creates::Nothing && !hold {
        log.create_internal(name, partitions, Internal::Repartition)?;
    }
    if found.is_some() && log.retention(name)?.is_some_and(|retention| !retention.unlimited) {
        return Err(LogError::stop(format!(
            "the repartition topic {name} deletes records by age, size or key: some would be lost before they are read. Set `cleanup.policy=delete`, \
             `retention.ms=-1` and `retention.bytes=-1` on it"
        )));
    }
    Ok(found.map_or(partitions, |topic| topic.partitions))
}

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
enum Older {
    /// Nothing is known, or they were looked at elsewhere.
    None,
    /// What is kept is all there is: the last one, or others from which there was a way to it.
    Last,
    /// Any that there ever was: a sweep is not through.
    All,
}

/// Gives the types of the stores' rows their numbers. A type without a way from those that rows may have is refused before anything is done.
fn add_types(pipeline: &Pipeline, types: &StoreTypes, older: Older) -> Result<(), RunError> {
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
fn changelogs(
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

/// What a topic is created with that the pipeline writes: as many partitions as the widest of its sources has; None if there is no source yet.
pub fn partitions_read(pipeline: &Pipeline, log: &dyn Log) -> Result<Option<i32>, LogError> {
    let mut most = None;
    for source in pipeline.sources.iter().filter(|source| source.is_stream()) {
        most = most.max(log.topic(&source.topic)?.map(|topic| topic.partitions));
    }
    Ok(most)
}

/// The partitions of a repartition topic whose records meet a table: as many as the table has. None: of any other.
pub fn repartition_count(pipeline: &Pipeline, source: &Source, counts: &[i32]) -> Option<i32> {
    let Some(Regroup::Table(key)) = source.carries.and_then(|sink| pipeline.sinks[sink].regroup.as_ref()) else { return None };
    let table = pipeline.sources.iter().position(|source| source.table.is_some() && source.topic == key.topic)?;
    counts.get(table).copied()
}

/// Stages whose records would not meet each other, or the rows of a partitioned table, since topics have other numbers of partitions: the stage's index, what
/// is wrong, what to do.
pub fn uneven(pipeline: &Pipeline, counts: &[i32]) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    for (index, stage) in pipeline.stages.iter().enumerate() {
        for table in pipeline.table_sources(stage) {
            let sources = pipeline.meeting(stage);
            let Some(other) = sources.into_iter().find(|source| counts[*source] != counts[table]) else { continue };
            let (source, topic) = (&pipeline.sources[other], &pipeline.sources[table]);
            let message = format!(
                "stage `{}` looks up the partitioned table `{}`, whose topic `{}` has {} partitions, but `{}` has {}: records would not meet their rows",
                stage.name, topic.name, topic.topic, counts[table], source.topic, counts[other]
            );
            let help = match source.carries {
                Some(_) => {
                    "the table's topic was made anew with other partitions: run the pipeline under another name to start anew".to_owned()
                }
                None => format!(
                    "give both topics as many partitions; or send the stage's records through a repartition topic by a stage before it: `plugin: map, with: \
                     {{ set: {{ $key: $key }} }}`; or make the table `{}` global (`scope: global`)",
                    topic.name
                ),
            };
            found.push((index, message, help));
        }
        found.extend(uneven_inputs(pipeline, stage, counts).map(|(message, help)| (index, message, help)));
    }
    found
}

/// Of a stage whose inputs meet by their keys: whether one has another number of partitions.
fn uneven_inputs(pipeline: &Pipeline, stage: &Stage, counts: &[i32]) -> Option<(String, String)> {
    if stage.description.input_keys.is_empty() {
        return None;
    }
    let differ = |from: &[Input]| {
        let sources = pipeline.origins(from);
        let first = *sources.first()?;
        let other = *sources.iter().find(|source| counts[**source] != counts[first])?;
        let told = |source: usize| format!("`{}` has {} partitions", pipeline.sources[source].topic, counts[source]);
        Some((told(first), told(other)))
    };
    let help = || "give both topics as many partitions".to_owned();
    if let Some((one, other)) = differ(&stage.from) {
        let message =
            format!("stage `{}` joins by the records' keys, but {one} and {other}: records of one key would not meet", stage.name);
        return Some((message, help()));
    }
    // Before a repartition topic they meet wherever they come from. But members share topics by their partition numbers, and whoever reads one side without
    // the other cannot hold it back.
    let (one, other) = stage.description.window.and_then(|_| differ(pipeline.named_inputs(stage)))?;
    let message = format!(
        "stage `{}` joins within a time, but {one} and {other}: a worker could read one side ahead of the other, which would make the other's records late",
        stage.name
    );
    Some((message, help()))
}

/// Keeps the newest summary of a worker for whoever asks.
struct Summarize<'a>(&'a Mutex<Summary>);

impl Observer for Summarize<'_> {
    fn progress(&mut self, worker: &Worker<'_>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = worker.summary();
    }
}

/// How often the caller hears of the progress.
const TOLD: Duration = Duration::from_millis(100);

/// As `follow`, of a pipeline that stays as it is.
pub fn run(
    setting: &Arc<Setting>,
    log: &Arc<dyn Log>,
    member: Option<Box<dyn Member>>,
    options: Options,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Summary),
) -> (Summary, Result<(), RunError>) {
    follow(&Arc::new(Course::new(setting.clone())), log, member, options, stop, progress)
}

/// Runs a prepared pipeline to its end, in as many workers as `options` says. `member` stands in for the log's own (a dry run, of one worker). The summary
/// comes in either case; of several failures the first is told, the others are logged.
pub fn follow(
    course: &Arc<Course>,
    log: &Arc<dyn Log>,
    member: Option<Box<dyn Member>>,
    options: Options,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Summary),
) -> (Summary, Result<(), RunError>) {
    let clock = SystemClock::default();
    let setting = course.now().setting;
    let tables = match TableReader::new(&setting, &**log, stop) {
        Ok(tables) => tables,
        Err(error) => return (Summary::default(), Err(error.into())),
    };
    // Of the caller's flag, or a worker that failed: the others commit what they have done, and end.
    let ending = AtomicBool::new(false);
    let summaries: Vec<Mutex<Summary>> = (0..options.workers.max(1)).map(|_| Mutex::default()).collect();
    let total = || {
        let mut total = Summary::default();
        summaries.iter().for_each(|summary| total.add(&summary.lock().unwrap_or_else(PoisonError::into_inner)));
        total
    };
    let mut firsts = (member, tables);
    let mut ended = Ok(());
    std::thread::scope(|scope| {
        let (clock, ending) = (&clock, &ending);
        let (done, ends) = std::sync::mpsc::channel();
        for (number, summary) in summaries.iter().enumerate() {
            let (member, tables) = std::mem::take(&mut firsts);
            let role = Role { number, member, tables };
            let (done, options) = (done.clone(), options.clone());
            let worker = move || {
                let worker = Worker::new(course.clone(), log.clone(), role, clock, options, ending);
                let ended = worker.and_then(|worker| worker.run(&mut Summarize(summary)));
                // Nobody listens any more only if the caller has panicked.
                drop(done.send(ended));
            };
            let started = std::thread::Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, worker);
            if let Err(error) = started {
                ended = Err(RunError::Setup(format!("cannot start a thread for a worker: {error}")));
                break;
            }
        }
        drop(done);
        loop {
            ending.fetch_or(stop.load(Ordering::Relaxed) || ended.is_err(), Ordering::Relaxed);
            match ends.recv_timeout(TOLD) {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    let failure = explain(&course.now().setting.pipeline, failure);
                    match &ended {
                        Ok(()) => ended = Err(failure),
                        Err(_) => tracing::error!(pipeline = setting.pipeline.name, "{failure}"),
                    }
                }
                Err(RecvTimeoutError::Timeout) => progress(&total()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    let total = total();
    progress(&total);
    (total, ended)
}

/// What happened, where, what to do.
fn explain(pipeline: &Pipeline, ended: Ended) -> RunError {
    match ended {
        Ended::Log(error) => error.into(),
        Ended::Init(why) => RunError::Plugin(why),
        Ended::Stopped(stop) => stopped(pipeline, stop),
    }
}

/// The same of a task that stopped.
pub fn stopped(pipeline: &Pipeline, stop: Stop) -> RunError {
    match stop {
        Stop::Log(error) => error.into(),
        Stop::Call(_) | Stop::Rows { .. } => RunError::Plugin(explain::stopped(pipeline, &stop)),
        Stop::Record(_) => RunError::Record(explain::stopped(pipeline, &stop)),
    }
}
