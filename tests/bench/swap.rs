//! What a swap costs a pipeline that runs on a real Kafka: `cargo bench -p millstream --bench swap [-- [SWAPS [BACKLOG]] [COMPONENT.wasm]...]`.
//!
//! A worker with four partitions reads what is constantly produced, through a plugin and a keyed count with its state, exactly-once, a commit every
//! 100 ms. Its plugin is swapped again and again, as a host does it: checked and instantiated beside what runs, then the worker turns between
//! two transactions. A *pause* is the time between two batches: at a turn, from the last batch of the old generation to the end of the first of the new one;
//! as a control, the longest one of each commit without a turn. Then, over a backlog, throughput while a new component is compiled beside it, and without.
//!
//! Components read `stars` of a record and keep it if they like (`with: { least: N }`, which may be ignored); without one, the standard `filter` is measured.

#[allow(dead_code, reason = "no benchmark disturbs its cluster")]
#[path = "../it/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "no plugin is measured alone")]
mod shared;

use cluster::{cluster, unique};
use millstream::clock::SystemClock;
use millstream::course::{Course, Heading};
use millstream::generation::Generation;
use millstream::io::Log;
use millstream::log::kafka::KafkaLog;
use millstream::manifest::{self, Secrets};
use millstream::plugin::engine::Engine;
use millstream::record::{Records, RecordsBuilder};
use millstream::runtime::{self, Creates};
use millstream::settings::KafkaSettings;
use millstream::task::{BatchLimit, Setting};
use millstream::worker::{Observer, Options, Role, Worker};
use shared::{median, thread_cpu};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 4;
const KEYS: u64 = 20_000;
/// Records that are produced at once, and how often: 40 000 a second.
const PORTION: u64 = 400;
const EVERY: Duration = Duration::from_millis(10);
/// Between two swaps, so that there are commits without one.
const BETWEEN: Duration = Duration::from_millis(300);
/// Versions from this one on are compiled.
const ANEW: u64 = 1_000_000;
/// Records, for throughput while a component is compiled: some minutes of work, unless told otherwise.
const BACKLOG: u64 = 12_000_000;
/// A stretch of throughput, while something is compiled and while nothing is.
const STRETCH: Duration = Duration::from_secs(2);

fn main() {
    // Cargo passes flags of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let numbers: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let swaps = numbers.first().map_or(200, |swaps| *swaps as usize);
    let backlog = numbers.get(1).copied().unwrap_or(BACKLOG);
    let components: Vec<PathBuf> = arguments.iter().filter(|argument| argument.ends_with(".wasm")).map(PathBuf::from).collect();
    let Some(cluster) = cluster() else { return };
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&cluster.brokers, KafkaSettings::default()).expect("connected"));
    if components.is_empty() {
        measure(&log, None, swaps, backlog);
    }
    components.iter().for_each(|component| measure(&log, Some(component), swaps, backlog));
}

fn measure(log: &Arc<dyn Log>, component: Option<&Path>, swaps: usize, backlog: u64) {
    let bytes = component.map(|path| std::fs::read(path).expect("a component"));
    match (component, &bytes) {
        (Some(path), Some(bytes)) => println!("{}, {} kB:", path.display(), bytes.len() / 1000),
        _ => println!("filter:"),
    }
    pauses(log, bytes.as_deref(), swaps);
    throughput(log, bytes.as_deref(), backlog);
}

/// A pipeline with topics and state of its own.
struct Place {
    log: Arc<dyn Log>,
    name: String,
    folder: tempfile::TempDir,
    component: Option<Vec<u8>>,
}

impl Place {
    fn new(log: &Arc<dyn Log>, component: Option<&[u8]>) -> Self {
        let name = unique("swap");
        for (topic, partitions) in [("in", PARTITIONS), ("out", PARTITIONS), ("control", 1)] {
            log.create_topic(&format!("{name}.{topic}"), partitions).expect("a topic");
        }
        Self { log: log.clone(), name, folder: tempfile::tempdir().expect("a folder"), component: component.map(<[u8]>::to_vec) }
    }

    /// The manifest of a version. Versions below `ANEW` have one of two components, which are compiled once; later ones have each a component of their own.
    fn manifest(&self, version: u64) -> PathBuf {
        let plugin = match &self.component {
            Some(bytes) => {
                let component = if version < ANEW { version % 2 } else { version };
                std::fs::write(self.folder.path().join(format!("{component}.wasm")), marked(bytes, component)).expect("a component");
                // Engines of languages with a garbage collector grow over millions of records.
                format!("plugin: ./{component}.wasm, limits: {{ memory: 1GiB }}, with: {{ least: {} }}", version % 2)
            }
            None => format!("plugin: filter, with: {{ where: stars >= {} }}", version % 2),
        };
        let text = format!(
            "pipeline: {name}\nsources: {{ in: {{ topic: {name}.in, schema: {{ stars: int }} }} }}\nstages:\n  - {{ name: keep, {plugin} }}\n  \
             - {{ name: count, plugin: aggregate, with: {{ compute: {{ count: count() }} }} }}\nsinks:\n  - {{ from: count, topic: {name}.out }}\n",
            name = self.name
        );
        let file = self.folder.path().join(format!("{version}.yaml"));
        std::fs::write(&file, text).expect("a manifest");
        file
    }

    fn generation(&self, number: u64) -> Option<Generation> {
        Some(Generation { number, control: format!("{}.control", self.name).into(), host: "bench".into(), epoch: 0 })
    }

    fn first(&self) -> Course {
        let loaded = manifest::load(&self.manifest(1), &Engine::new().expect("an engine")).expect("no mistakes");
        let (limit, secrets) = (BatchLimit::default(), Secrets::load().expect("secrets"));
        let setting = runtime::prepare(loaded.pipeline, &self.log, &secrets, limit, Creates::Declared, Some(self.folder.path()));
        Course::new(Arc::new(Setting { generation: self.generation(1), ..setting.expect("ready") }))
    }

    /// All that happens beside the run: the component is compiled and checked, its first instances are made.
    fn prepare(&self, number: u64, now: &Setting) -> Setting {
        let loaded = manifest::load(&self.manifest(number), &Engine::new().expect("an engine")).expect("no mistakes");
        let secrets = Secrets::load().expect("secrets");
        let next = runtime::prepare_next(loaded.pipeline, now, &*self.log, &secrets, Creates::Declared, false)
            .expect("ready")
            .expect("it can turn");
        let next = Setting { generation: self.generation(number), ..next };
        assert!(next.make_ready(PARTITIONS as usize).is_ok());
        next
    }

    fn run(&self, course: &Arc<Course>, stop: &AtomicBool, observer: &mut dyn Observer) {
        let clock = SystemClock::default();
        let options = Options { host: "bench".to_owned(), ..Options::default() };
        let worker = Worker::new(course.clone(), self.log.clone(), Role::default(), &clock, options, stop).expect("a worker");
        worker.run(observer).expect("a good end");
    }
}

/// The same component with another digest: with one more custom section.
fn marked(component: &[u8], version: u64) -> Vec<u8> {
    let name = format!("version {version}");
    let length = u8::try_from(name.len()).expect("short");
    [component, &[0, length + 1, length], name.as_bytes()].concat()
}

fn records(start: u64, count: u64) -> Records {
    let mut records = RecordsBuilder::default();
    for number in start..start + count {
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
        records.push(1_700_000_000_000, Some(format!("key-{key:06}").as_bytes()), Some(br#"{"stars":3}"#), []);
    }
    records.finish()
}

/// The longest pause of every commit without a turn, and the pause of every turn.
struct Pauses {
    last: Instant,
    longest: Duration,
    processed: u64,
    commits: u64,
    generation: u64,
    turning: bool,
    ordinary: Vec<Duration>,
    turns: Vec<Duration>,
}

impl Observer for Pauses {
    fn progress(&mut self, worker: &Worker<'_>) {
        let generation = worker.tasks.values().next().map_or(0, |task| task.setting().generation_number());
        self.turning |= self.generation > 0 && generation > self.generation;
        self.generation = self.generation.max(generation);
        if worker.processed > self.processed {
            let pause = self.last.elapsed();
            (self.last, self.processed) = (Instant::now(), worker.processed);
            if std::mem::take(&mut self.turning) {
                self.turns.push(pause);
                self.longest = Duration::ZERO;
            } else {
                self.longest = self.longest.max(pause);
            }
        }
        if worker.commits > self.commits {
            self.commits = worker.commits;
            self.ordinary.extend(Some(std::mem::take(&mut self.longest)).filter(|longest| !longest.is_zero()));
        }
    }
}

fn pauses(log: &Arc<dyn Log>, component: Option<&[u8]>, swaps: usize) {
    let place = Place::new(log, component);
    let course = Arc::new(place.first());
    let (stop, fed, ready) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let mut pauses = Pauses {
        last: Instant::now(),
        longest: Duration::ZERO,
        processed: 0,
        commits: 0,
        generation: 0,
        turning: false,
        ordinary: Vec::new(),
        turns: Vec::new(),
    };
    let prepared = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            for portion in 0.. {
                if fed.load(Ordering::Relaxed) {
                    break;
                }
                place.log.produce(&format!("{}.in", place.name), None, &records(portion * PORTION, PORTION)).expect("produced");
                ready.store(portion > 100, Ordering::Relaxed);
                std::thread::sleep((EVERY * portion as u32).saturating_sub(began.elapsed()));
            }
        });
        scope.spawn(|| {
            while !ready.load(Ordering::Relaxed) {
                std::thread::sleep(BETWEEN);
            }
            for number in 2..2 + swaps as u64 {
                let (now, began) = (course.now(), Instant::now());
                let next = place.prepare(number, &now.setting);
                prepared.lock().expect("nobody panicked").push(began.elapsed());
                // What compiling disturbs is told apart from the turn.
                std::thread::sleep(BETWEEN);
                course.turn_to(Heading { setting: Arc::new(next), trial: None, shadow: None, number: now.number + 1 });
                std::thread::sleep(BETWEEN);
            }
            fed.store(true, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        });
        place.run(&course, &stop, &mut pauses);
    });
    let told = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)].as_secs_f64() * 1e3;
        println!("  {what} ({}): median {:.2}, p90 {:.2}, p99 {:.2}, longest {:.2} ms", times.len(), at(0.5), at(0.9), at(0.99), at(1.0));
        at(0.99)
    };
    assert_eq!(pauses.turns.len(), swaps, "every generation has worked");
    let turns = told("pause at a turn", pauses.turns);
    let ordinary = told("longest pause of a commit without a turn", pauses.ordinary);
    println!("  p99 at a turn beyond p99 of a commit: {:.2} ms", turns - ordinary);
    told("prepared beside", prepared.into_inner().expect("nobody panicked"));
}

/// How many records a run has processed, for other threads.
struct Processed<'a>(&'a AtomicU64);

impl Observer for Processed<'_> {
    fn progress(&mut self, worker: &Worker<'_>) {
        self.0.store(worker.processed, Ordering::Relaxed);
    }
}

fn throughput(log: &Arc<dyn Log>, component: Option<&[u8]>, backlog: u64) {
    let place = Place::new(log, component);
    for start in (0..backlog).step_by(10_000) {
        log.produce(&format!("{}.in", place.name), None, &records(start, 10_000)).expect("produced");
    }
    let course = Arc::new(place.first());
    let (stop, processed) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut cores = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while processed.load(Ordering::Relaxed) < backlog / 20 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut version = ANEW;
            for compiles in [false, true].into_iter().cycle() {
                let (began, before) = (Instant::now(), processed.load(Ordering::Relaxed));
                // A large component takes longer than the stretch, small ones are compiled one after the other.
                let compiled = std::thread::scope(|scope| {
                    let compiling = compiles.then(|| {
                        scope.spawn(|| {
                            let cpu = thread_cpu();
                            while began.elapsed() < STRETCH {
                                drop(place.prepare(version, &course.now().setting));
                                version += 1;
                            }
                            (thread_cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64()
                        })
                    });
                    std::thread::sleep(STRETCH.saturating_sub(began.elapsed()));
                    let (took, now) = (began.elapsed().as_secs_f64(), processed.load(Ordering::Relaxed));
                    if now < backlog * 9 / 10 {
                        rates[usize::from(compiles)].push((now - before) as f64 / took / 1e3);
                    }
                    compiling.map(|thread| thread.join().expect("compiled"))
                });
                cores.extend(compiled);
                if processed.load(Ordering::Relaxed) >= backlog * 9 / 10 {
                    return stop.store(true, Ordering::Relaxed);
                }
            }
        });
        place.run(&course, &stop, &mut Processed(&processed));
    });
    let [without, with] = rates.map(median);
    let number = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "  throughput: {without:.0} k records/s, while compiling {with:.0} (ratio {:.2}); a compilation takes {:.2} of {number} cores (medians of {} stretches)",
        with / without,
        median(cores.clone()),
        cores.len()
    );
}
