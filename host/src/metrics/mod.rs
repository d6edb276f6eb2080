//! The figures of a run, or of all pipelines of a host, as OpenMetrics text, which Prometheus scrapes. `host/docs/operation.md` lists them: whoever adds
//! one adds it there.

mod page;

use crate::fleet::shown::{Board, Shown};
use crate::flow::stage::Counters;
use crate::io::TopicPartition;
use crate::monitor::{Histogram, Monitor, PartitionFigures, Phase, WorkerView};
use crate::pipeline::Pipeline;
use crate::task::TaskId;
use page::{Labels, Page};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the text is sent as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes figures, as often as it is asked.
pub struct Metrics(Registry);

impl Metrics {
    /// Of one run.
    pub fn new(pipeline: &Pipeline, monitor: Arc<Monitor>) -> Self {
        Self::of(Whose::Run(Run::new(pipeline, monitor)))
    }

    /// Of whatever runs on a host.
    pub fn of_host(board: Arc<Board>) -> Self {
        Self::of(Whose::Host(board))
    }

    fn of(whose: Whose) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Figures { whose, started: SystemTime::now() }));
        Self(registry)
    }

    pub fn text(&self) -> Result<String, Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Figures {
    whose: Whose,
    started: SystemTime,
}

#[derive(Debug)]
enum Whose {
    Run(Run),
    Host(Arc<Board>),
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut page = Page::default();
        match &self.whose {
            Whose::Run(run) => run.figures(&mut page),
            Whose::Host(board) => {
                for (name, shown) in board.pipelines() {
                    page.of(&name);
                    deployed(&mut page, &shown);
                    if let Some((setting, monitor)) = shown.run {
                        Run::new(&setting.pipeline, monitor).figures(&mut page);
                    }
                }
            }
        }
        process(&mut page, self.started);
        page.encode(encoder)
    }
}

/// What a fleet has a host do with a pipeline.
fn deployed(page: &mut Page, shown: &Shown) {
    let alone = |value: u64| [(Vec::new(), value)];
    page.gauge("millstream_generation_active", "The generation that is to run, 0 if none is.", None, alone(shown.active));
    page.gauge("millstream_generation_on_trial", "The generation on trial, 0 if none is.", None, alone(shown.trial.unwrap_or(0)));
    let failed = u64::from(shown.failure.is_some());
    page.gauge("millstream_pipeline_failed", "1 while the active generation does not run here because it failed.", None, alone(failed));
    let Some((_, monitor)) = &shown.run else { return };
    let workers = monitor.workers();
    let works = by_worker(&workers, |worker, number: &mut u64| *number = worker.figures.generation);
    page.gauge("millstream_generation", "The generation by which a worker works.", None, works);
    let running = || workers.iter().filter(|worker| worker.phase == Phase::Running);
    let parked: usize = running().map(|worker| worker.figures.parked.len()).sum();
    page.gauge(
        "millstream_parked_partitions",
        "Partitions that stand still, since a record cannot be processed.",
        None,
        alone(parked as u64),
    );
    let turns = by_worker(&workers, |worker, sum: &mut Histogram| sum.add(&worker.figures.turn_time));
    page.histogram("millstream_turn_duration", "How long a task stood still at a turn to another generation.", turns);
    let shadows = running().filter_map(|worker| worker.figures.shadow.as_ref());
    let mut compared: BTreeMap<u64, [u64; 3]> = BTreeMap::new();
    for (generation, report) in shadows {
        let sums = compared.entry(*generation).or_default();
        let differences = report.differences.values().map(|difference| difference.count).sum::<u64>();
        for (sum, more) in sums.iter_mut().zip([report.records, report.outputs, differences]) {
            *sum += more;
        }
    }
    let of = |at: usize| compared.iter().map(move |(generation, sums)| (vec![("generation", generation.to_string())], sums[at]));
    page.counter("millstream_shadow_records", "Records that a generation in the shadow has processed too.", None, of(0));
    page.counter("millstream_shadow_outputs", "Outputs that were compared with those of a generation in the shadow.", None, of(1));
    page.counter(
        "millstream_shadow_differences",
        "Differences between what a generation in the shadow gave and what was written.",
        None,
        of(2),
    );
}

#[derive(Debug)]
struct Run {
    pipeline: String,
    stages: Vec<String>,
    sinks: Vec<Arc<str>>,
    monitor: Arc<Monitor>,
}

impl Run {
    fn new(pipeline: &Pipeline, monitor: Arc<Monitor>) -> Self {
        Self {
            pipeline: pipeline.name.clone(),
            stages: pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
            sinks: pipeline.sinks.iter().map(|sink| sink.topic.clone()).collect(),
            monitor,
        }
    }

    fn figures(&self, page: &mut Page) {
        let workers = self.monitor.workers();
        page.of(&self.pipeline);
        self.records(page, &workers);
        self.stages(page, &workers);
        self.places(page, &workers);
        self.workers(page, &workers);
    }

    /// What went in and out.
    fn records(&self, page: &mut Page, workers: &[WorkerView]) {
        let read = by_worker(workers, |worker, sum: &mut u64| *sum += worker.figures.summary.records);
        page.counter("millstream_records_read", "Records taken from the sources.", None, read);
        let mut sinks: BTreeMap<&str, u64> = BTreeMap::new();
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        let mut dead: BTreeMap<&str, u64> = BTreeMap::new();
        for topic in &self.sinks {
            sinks.entry(topic).or_default();
        }
        for summary in workers.iter().map(|worker| &worker.figures.summary) {
            for (topic, rows) in self.sinks.iter().zip(&summary.sinks) {
                *sinks.entry(topic).or_default() += rows;
            }
            for (code, count) in &summary.refused {
                *refused.entry(code).or_default() += count;
            }
            for (topic, count) in &summary.dead_letters {
                *dead.entry(topic).or_default() += count;
            }
        }
        page.counter("millstream_sink_records", "Records written, by topic.", None, by_name("topic", sinks));
        page.counter("millstream_refused_records", "Records refused, by what was wrong with them.", None, by_name("code", refused));
        page.counter("millstream_dead_letters", "Dead letters written, by topic.", None, by_name("topic", dead));
    }

    fn stages(&self, page: &mut Page, workers: &[WorkerView]) {
        let mut totals = vec![Counters::default(); self.stages.len()];
        for worker in workers {
            for (total, part) in totals.iter_mut().zip(&worker.figures.summary.stages) {
                *total += *part;
            }
        }
        let counts: [(&str, &str, fn(&Counters) -> u64); 5] = [
            ("millstream_stage_rows_in", "Rows that came to a stage.", |stage| stage.rows_in),
            ("millstream_stage_rows_out", "Rows that a stage has passed on.", |stage| stage.rows_out),
            ("millstream_stage_rows_rejected", "Rows that failed at a stage.", |stage| stage.rejected),
            ("millstream_stage_rows_late", "Rows whose window was closed.", |stage| stage.late),
            ("millstream_stage_calls", "Calls of a stage's plugin.", |stage| stage.calls),
        ];
        let by_stage = || self.stages.iter().map(|name| vec![("stage", name.clone())]).zip(&totals);
        for (name, help, figure) in counts {
            page.counter(name, help, None, by_stage().map(|(labels, stage)| (labels, figure(stage))));
        }
        let busy = by_stage().map(|(labels, stage)| (labels, stage.time.as_secs_f64()));
        page.counter("millstream_stage_busy", "Time in a stage's plugin and around it.", Some(Unit::Seconds), busy);
    }

    /// Where the run stands in its partitions.
    fn places(&self, page: &mut Page, workers: &[WorkerView]) {
        let ends = self.monitor.ends();
        // Of a partition that goes from one worker to another both may tell for a moment.
        let mut partitions: BTreeMap<&TopicPartition, PartitionFigures> = BTreeMap::new();
        let mut times: BTreeMap<TaskId, i64> = BTreeMap::new();
        for worker in workers.iter().filter(|worker| worker.phase == Phase::Running) {
            for (at, place) in &worker.figures.partitions {
                let known = partitions.entry(at).or_insert(*place);
                if place.committed > known.committed {
                    *known = *place;
                }
            }
            for (task, time) in &worker.figures.stream_times {
                let known = times.entry(*task).or_insert(*time);
                *known = (*known).max(*time);
            }
        }
        let (mut committed, mut waiting, mut known, mut lags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, place) in partitions {
            let labels = || vec![("topic", at.topic.to_string()), ("partition", at.partition.to_string())];
            committed.push((labels(), place.committed));
            waiting.push((labels(), place.waiting));
            if let Some(end) = ends.get(at) {
                let end = (*end).max(place.position).max(place.committed);
                known.push((labels(), end));
                lags.push((labels(), end - place.committed));
            }
        }
        page.gauge("millstream_source_committed_offset", "The committed position in a partition of a source.", None, committed);
        page.gauge("millstream_source_end_offset", "The end of a partition of a source, as it was a few seconds ago.", None, known);
        page.gauge("millstream_source_waiting_records", "Records fetched and not yet processed.", None, waiting);
        page.lag(lags);
        let times = times.into_iter().map(|(task, time)| {
            (vec![("segment", task.segment.to_string()), ("partition", task.partition.to_string())], time as f64 / 1000.0)
        });
        let help = "The highest record time that a task has processed, since the epoch.";
        page.gauge("millstream_task_stream_time", help, Some(Unit::Seconds), times);
    }

    fn workers(&self, page: &mut Page, workers: &[WorkerView]) {
        let commits = by_worker(workers, |worker, sum: &mut u64| *sum += worker.figures.summary.commits);
        page.counter("millstream_commits", "Commits that came through.", None, commits);
        let times = by_worker(workers, |worker, sum: &mut Histogram| sum.add(&worker.figures.commit_time));
        page.histogram("millstream_commit_duration", "From the beginning of a commit until it came through.", times);
        let read = by_worker(workers, |worker, sum: &mut u64| *sum += worker.figures.restored.0);
        page.gauge("millstream_restore_read_records", "Records of changelogs read by the restore under way, or the last one.", None, read);
        let total = by_worker(workers, |worker, sum: &mut u64| *sum += worker.figures.restored.1);
        let help = "Records of changelogs that the restore under way, or the last one, has to read at most.";
        page.gauge("millstream_restore_expected_records", help, None, total);
        let turned = by_worker(workers, |worker, sum: &mut u64| *sum += worker.figures.summary.turned);
        let help = "Rows of stores that became rows of their newest type by the sweep.";
        page.counter("millstream_migrated_rows", help, None, turned);
        let sweeping = by_worker(workers, |worker, sum: &mut u64| *sum = worker.figures.sweeping as u64);
        let help = "Tasks whose stores may hold rows of older types.";
        page.gauge("millstream_migrating_tasks", help, None, sweeping);
        let flags: [(&str, &str, fn(&WorkerView) -> bool); 3] = [
            ("millstream_worker_up", "1 while a worker runs, 0 when it has ended.", |worker| {
                matches!(worker.phase, Phase::Starting | Phase::Running)
            }),
            ("millstream_restoring", "1 while a worker restores state.", |worker| worker.figures.summary.restoring.is_some()),
            ("millstream_waiting_for_log", "1 while a worker waits for a log that is out of reach.", |worker| worker.troubled.is_some()),
        ];
        for (name, help, flag) in flags {
            let raised = by_worker(workers, |worker, sum: &mut u64| *sum = u64::from(flag(worker)));
            page.gauge(name, help, None, raised);
        }
        page.gauge("millstream_paused", "1 while the run is paused.", None, [(Vec::new(), u64::from(self.monitor.paused()))]);
    }
}

/// A figure for each worker; of workers that followed one another under a name, `add` sees all, in their order.
fn by_worker<T: Default>(workers: &[WorkerView], add: impl Fn(&WorkerView, &mut T)) -> impl Iterator<Item = (Labels, T)> {
    let mut sums: BTreeMap<&str, T> = BTreeMap::new();
    for worker in workers {
        add(worker, sums.entry(&worker.worker).or_default());
    }
    by_name("worker", sums).collect::<Vec<_>>().into_iter()
}

fn by_name<T>(label: &'static str, figures: BTreeMap<&str, T>) -> impl Iterator<Item = (Labels, T)> {
    figures.into_iter().map(move |(name, figure)| (vec![(label, name.to_owned())], figure))
}

fn process(page: &mut Page, started: SystemTime) {
    // A gauge, since parsers of Prometheus' older format know no type `info`.
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.own(("millstream_build_info", "The program, always 1.", None, MetricType::Gauge), version, 1_u64);
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the run has started, since the epoch.";
    page.own(("process_start_time", help, Some(Unit::Seconds), MetricType::Gauge), Vec::new(), since);
    let cpu = cpu_time().as_secs_f64();
    page.own(("process_cpu", "CPU time of all threads.", Some(Unit::Seconds), MetricType::Counter), Vec::new(), cpu);
    if let Some(bytes) = resident_bytes() {
        let about = ("process_resident_memory", "Memory held by the process.", Some(Unit::Bytes), MetricType::Gauge);
        page.own(about, Vec::new(), bytes as f64);
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// None where the system does not tell it in Linux's way.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
