//! Puts a checked pipeline on a log: secrets, tables, topics, state. The one place that knows both.

mod state;
mod topics;

pub use topics::{partitions_read, repartition_count, uneven};

use state::{Older, add_types, changelogs};
use topics::topics;

use crate::clock::SystemClock;
use crate::course::Course;
use crate::explain;
use crate::flow::plan::Plan;
use crate::io::{LocalState, Log, LogError, Member};
use crate::manifest::{Secrets, resolve_secrets};
use crate::pipeline::{Pipeline, Scope, Source, Stage, Table};
use crate::plugin::CallError;
use crate::plugin::describe::{Request, Store};
use crate::store::{GlobalTable, LocalFolder, LocalMemory, RowType, StoreTypes, turn};
use crate::summary::Summary;
use crate::tables::TableReader;
use crate::task::{self, BatchLimit, Setting, Spare, Stop};
use crate::worker::{Ended, Observer, Options, Role, Worker};
use std::collections::{BTreeMap, BTreeSet};
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
