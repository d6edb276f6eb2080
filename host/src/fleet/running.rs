//! A pipeline that a host runs: its workers in threads of their own, and what is prepared beside them to take their place.

use super::bundle::Bundle;
use super::record::{self, Mode};
use crate::course::{Course, Heading, Trial};
use crate::explain;
use crate::generation::Generation;
use crate::io::{Log, TopicPartition};
use crate::log::embedded::{Identity, identity};
use crate::manifest::Secrets;
use crate::monitor::{Figures, Monitor, Parked, Phase};
use crate::pipeline::Pipeline;
use crate::plugin::Loader;
use crate::runtime::{self, Creates, RunError};
use crate::shadow::Report;
use crate::summary::Works;
use crate::task::{BatchLimit, Setting};
use crate::worker::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// What every pipeline of a host shares.
#[derive(Clone)]
pub struct Place {
    pub log: Arc<dyn Log>,
    pub loader: Arc<dyn Loader>,
    pub secrets: Arc<Secrets>,
    /// Local copies of state, and the host's name.
    pub data: PathBuf,
    /// The log is Kafka: several workers, state in changelogs, topics that nobody makes by naming them.
    pub kafka: bool,
    pub limit: BatchLimit,
    /// As each run gets them, but for its monitor and its number of workers.
    pub options: Options,
    /// At most so many workers for a pipeline.
    pub workers: usize,
}

impl Place {
    fn creates(&self) -> Creates {
        if self.kafka { Creates::Declared } else { Creates::All }
    }
}

/// A generation that is loaded, compiled and checked, and takes over when it is told to.
pub struct Prepared {
    pub generation: Generation,
    pub pipeline: Pipeline,
    /// To which the tasks that run can turn where they stand. None: they end, and begin anew by it.
    pub hot: Option<Arc<Setting>>,
    /// Stores that the generation which ran last had not, and the first number that may have them: see `runtime::new_stores`.
    pub new_stores: (BTreeSet<String>, u64),
}

impl Prepared {
    /// To begin anew by it.
    pub fn without_run(self) -> Self {
        Self { hot: None, ..self }
    }
}

/// Loads a generation and makes sure that its plugins start, beside what runs. `last`: the one that ran last, as far as that is known. `now`: what runs, and
/// whether rows of its stores may be of older types.
///
/// Err: why it cannot run on this host, for whoever deploys.
pub fn prepare(
    place: &Place,
    bundle: &Bundle,
    generation: &Generation,
    last: Option<(u64, &Bundle)>,
    now: Option<(&Setting, bool)>,
) -> anyhow::Result<Prepared> {
    let loaded = bundle.pipeline(&*place.loader)?;
    let pipeline = loaded.pipeline;
    let not_started = |pipeline: &Pipeline, (stage, error)| anyhow::anyhow!(explain::not_started(pipeline, stage, &error));
    let mut hot = None;
    if let Some((now, sweeps)) = now.filter(|(now, _)| is_of(now, generation.epoch) && runtime::can_turn(&now.pipeline, &pipeline)) {
        hot = runtime::prepare_next(pipeline.clone(), now, &*place.log, &place.secrets, place.creates(), sweeps)?;
    }
    if let Some(next) = &mut hot {
        next.generation = Some(generation.clone());
        // As many as there may be tasks here: at the turn nobody waits for an instance.
        let tasks = next.partitions.iter().copied().max().unwrap_or(1);
        next.make_ready(tasks.max(1) as usize).map_err(|error| not_started(&pipeline, error))?;
    } else {
        runtime::try_start(&pipeline, &place.secrets)?.map_err(|error| not_started(&pipeline, error))?;
    }
    let mut new_stores = (BTreeSet::new(), 0);
    if let Some((ran, bundle)) = last.filter(|_| hot.is_none()) {
        let before = runtime::store_names(&bundle.pipeline(&*place.loader)?.pipeline);
        new_stores = runtime::new_stores(&runtime::store_names(&pipeline), &before, ran);
    }
    Ok(Prepared { generation: generation.clone(), pipeline, hot: hot.map(Arc::new), new_stores })
}

/// Whether a run stands on the state that there is; else it was emptied under it.
fn is_of(now: &Setting, epoch: u64) -> bool {
    now.generation.as_ref().is_some_and(|generation| generation.epoch == epoch)
}

/// A pipeline at work.
pub struct Running {
    /// That was begun with, or turned to since.
    pub number: u64,
    /// The one on trial.
    pub trial: Option<u64>,
    pub monitor: Arc<Monitor>,
    /// There once the topics are looked up and the state is opened.
    course: Arc<OnceLock<Arc<Course>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    /// Begins to run a generation. `paused`: it takes no records before it is told to; `shut`: none of the user's sources.
    pub fn start(place: &Place, prepared: &Prepared, paused: bool, shut: bool) -> std::io::Result<Self> {
        let monitor = Arc::new(Monitor::default());
        monitor.shut(shut);
        if paused {
            monitor.pause();
        }
        let (course, stop) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let generation = prepared.generation.clone();
        let number = generation.number;
        let thread = {
            let (place, pipeline, new_stores) = (place.clone(), prepared.pipeline.clone(), prepared.new_stores.clone());
            let (monitor, course, stop) = (monitor.clone(), course.clone(), stop.clone());
            let name = format!("run {}", pipeline.name);
            std::thread::Builder::new()
                .name(name)
                .spawn(move || run(&place, pipeline, generation, (&new_stores.0, new_stores.1), monitor, &course, &stop))?
        };
        Ok(Self { number, trial: None, monitor, course, stop, thread: Some(thread) })
    }

    /// What its workers are to do now. None: it is still starting.
    pub fn setting(&self) -> Option<Arc<Setting>> {
        Some(self.course.get()?.now().setting)
    }

    /// Its workers turn to another generation where they stand, with one on trial. `prepared`: what was prepared for it. False: it has
    /// not begun yet, or cannot where it stands.
    pub fn turn_to(&mut self, number: u64, trial: Option<&record::Trial>, prepared: &BTreeMap<u64, Prepared>) -> bool {
        let Some(course) = self.course.get() else { return false };
        let now = course.now();
        let setting = |number: u64| {
            let known = [Some(&now.setting), now.trial.as_ref().map(|trial| &trial.setting), now.shadow.as_ref()];
            let known = known.into_iter().flatten().find(|known| known.generation_number() == number);
            known.or_else(|| prepared.get(&number)?.hot.as_ref().filter(|hot| runtime::of_one_run(hot, &now.setting))).cloned()
        };
        let Some(own) = setting(number) else { return false };
        let (mut canary, mut shadow) = (None, None);
        if let Some(trial) = trial {
            let Some(setting) = setting(trial.generation) else { return false };
            match &trial.mode {
                Mode::Canary { partitions, keys, terms } => {
                    let (partitions, compared) = (Arc::new(partitions.clone()), terms.differences.is_some());
                    canary = Some(Trial { setting, partitions, keys: *keys, compared });
                }
                Mode::Shadow { .. } => shadow = Some(setting),
            }
        }
        course.turn_to(Heading { setting: own, trial: canary, shadow, number: now.number + 1 });
        self.number = number;
        self.trial = trial.map(|trial| trial.generation);
        true
    }

    /// What is left of the instances that were made ahead goes.
    pub fn drop_spare(&self) {
        let Some(course) = self.course.get() else { return };
        let now = course.now();
        now.setting.drop_spare();
        if let Some(trial) = &now.trial {
            trial.setting.drop_spare();
        }
    }

    /// Whether every worker works by its generation, and by the one on trial.
    pub fn is_turned(&self) -> bool {
        let workers = self.monitor.workers();
        let mut running = workers.iter().filter(|worker| worker.phase == Phase::Running).peekable();
        let tried = |figures: &Figures| figures.trial.max(figures.shadow.as_ref().map_or(0, |(number, _)| *number));
        let is = |figures: &Figures| figures.generation == self.number && tried(figures) == self.trial.unwrap_or(0);
        running.peek().is_some() && running.all(|worker| is(&worker.figures))
    }

    /// Whether all its workers have committed what they took of the sources, which are shut.
    pub fn is_quiet(&self) -> bool {
        self.monitor.is_quiet()
    }

    /// Whether rows of its stores may be of older types.
    pub fn sweeps(&self) -> bool {
        self.monitor.workers().iter().any(|worker| worker.figures.sweeping > 0)
    }

    /// What a generation did in its workers.
    pub fn works(&self, number: u64) -> Works {
        let mut works = Works::default();
        for worker in self.monitor.workers() {
            works += worker.figures.works.get(&number).copied().unwrap_or_default();
        }
        works
    }

    /// How the generation on trial compares in its workers, if it is compared.
    pub fn shadow(&self) -> Report {
        let mut report = Report::default();
        for worker in self.monitor.workers() {
            let own = worker.figures.shadow.as_ref().filter(|(number, _)| Some(*number) == self.trial);
            own.inspect(|(_, own)| report.add(own));
        }
        report
    }

    /// Partitions that stand still, and why.
    pub fn parked(&self) -> BTreeMap<TopicPartition, Parked> {
        let workers = self.monitor.workers();
        let parked = workers.iter().flat_map(|worker| worker.figures.parked.iter());
        parked.map(|(at, parked)| (at.clone(), parked.clone())).collect()
    }

    /// Tells its workers to commit what is done and to leave.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<Result<(), String>> {
        if !self.thread.as_ref()?.is_finished() {
            return None;
        }
        Some(self.join())
    }

    /// Waits for its end.
    pub fn join(&mut self) -> Result<(), String> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended.map_err(|error| error.to_string()),
            Some(Err(_)) => Err("a thread of the run panicked: a mistake in the program".to_owned()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        drop(self.join());
    }
}

fn run(
    place: &Place,
    pipeline: Pipeline,
    generation: Generation,
    (new_stores, since): (&BTreeSet<String>, u64),
    monitor: Arc<Monitor>,
    course: &OnceLock<Arc<Course>>,
    stop: &AtomicBool,
) -> Result<(), RunError> {
    // Two processes with one name would push each other out of the group.
    let held: Option<Identity> = match place.kafka {
        true => Some(identity(&place.data, &pipeline.name).map_err(|error| RunError::Setup(error.to_string()))?),
        false => None,
    };
    let fresh = Some(runtime::Fresh { stores: new_stores, generation: since, epoch: generation.epoch });
    let data = Some(place.data.as_path());
    let mut setting = runtime::prepare_fresh(pipeline, &place.log, &place.secrets, place.limit, place.creates(), data, fresh)?;
    setting.generation = Some(generation);
    let partitions = setting.partitions.iter().copied().max().unwrap_or(1).max(1) as usize;
    let workers = if place.kafka { place.workers.clamp(1, partitions) } else { 1 };
    let options = Options { monitor, workers, park: true, ..place.options.clone() };
    let begun = course.get_or_init(|| Arc::new(Course::new(Arc::new(setting))));
    let (_, ended) = runtime::follow(begun, &place.log, None, options, stop, &mut |_| {});
    drop(held);
    ended
}
