//! What state costs on a real Kafka, beside Kafka Streams doing the same: `cargo bench -p millstream --bench state [-- RECORDS [ROUNDS]]`.
//!
//! First a keyed count over 20 000 keys and a windowed count: exactly-once, a commit every 100 ms, one worker or thread, one output for each input (the
//! cache of Kafka Streams is off), the same topic of JSON records; then both with the last result of each key a commit (`emit: changes`, and Kafka
//! Streams' cache of 10 MB, its default). They take turns; CPU seconds of the process per million records. Kafka Streams is measured behind a warm-up
//! of a third of the records, Millstream whole, with its start. Then, for a million keys: memory of the program at its highest, how long a restart
//! takes until the first output (after a good end, and after a kill), and how fast state is restored.

#[allow(dead_code, reason = "no benchmark disturbs its cluster")]
#[path = "../it/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "no plugin is measured alone")]
mod shared;

use cluster::{Cluster, cluster, maven, unique};
use millstream::io::{Log, TopicPartition};
use millstream::log::kafka::KafkaLog;
use millstream::manifest::{self, Secrets};
use millstream::plugin::engine::Engine;
use millstream::record::RecordsBuilder;
use millstream::runtime::{self, Creates};
use millstream::settings::KafkaSettings;
use millstream::task::BatchLimit;
use millstream::worker::Options;
use shared::median;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 4;
const KEYS: u64 = 1_000_000;

const COUNT: &str = "{ compute: { count: count() } }";
/// What is compared: its name, the topology's name, `with` of the stage, the cache of Kafka Streams.
const COMPARED: [(&str, &str, &str, &str); 4] = [
    ("keyed count", "count-alone", COUNT, "0"),
    ("windowed count", "windowed-count-alone", "{ window: { tumbling: 1m, grace: 10s }, compute: { count: count() } }", "0"),
    ("keyed count, changes", "count-alone", "{ emit: changes, compute: { count: count() } }", "10485760"),
    (
        "windowed count, changes",
        "windowed-count-alone",
        "{ emit: changes, window: { tumbling: 1m, grace: 10s }, compute: { count: count() } }",
        "10485760",
    ),
];

fn main() {
    // Cargo passes flags of its own.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(1_500_000);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let Some(cluster) = cluster() else { return };
    if !maven::there("comparisons with Kafka Streams", &["java", "javac", "mvn"], "a JDK 17 and Maven") {
        return;
    }
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&cluster.brokers, KafkaSettings::default()).expect("connected"));
    beside_kafka_streams(cluster, &log, count, rounds);
    a_million_keys(cluster, &log);
}

/// CPU time of this process, all threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn beside_kafka_streams(cluster: &Cluster, log: &Arc<dyn Log>, count: usize, rounds: usize) {
    let jars = maven::jars(&format!("streams-{}", maven::KAFKA), "kafka-streams-test-utils").join("*");
    let classes = tempfile::tempdir().expect("a folder");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peer");
    let mut javac = Command::new("javac");
    javac.arg("-cp").arg(&jars).arg("-d").arg(classes.path());
    javac.args(["Topologies.java", "Peer.java", "Bench.java"].map(|source| sources.join(source)));
    assert!(javac.status().expect("javac").success());
    let java = |arguments: &[&str]| {
        let output = maven::java(&[classes.path().to_owned(), jars.clone()], "error").arg("Bench").args(arguments).output().expect("java");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    java(&["fill", &cluster.brokers, &PARTITIONS.to_string(), &count.to_string()]);
    let warm_up = (count / 3).to_string();
    let millions = count as f64 / 1e6;
    let mut costs: [[Vec<f64>; 2]; COMPARED.len()] = Default::default();
    for round in 0..rounds {
        for ((name, topology, with, cache), costs) in COMPARED.iter().zip(&mut costs) {
            let wall = Instant::now();
            let ours = run(log, with, count as u64).as_secs_f64() / millions;
            let rate = millions * 1e3 / wall.elapsed().as_secs_f64();
            let line = java(&["run", &cluster.brokers, topology, &warm_up, cache]);
            let theirs: serde_json::Value = serde_json::from_str(line.trim()).expect("a line of JSON");
            let streams = theirs["cpu_seconds_per_million"].as_f64().expect("a number");
            println!("round {round} {name:>23}: Millstream {ours:.2} CPU s/M, {rate:.0} k records/s; Kafka Streams {theirs}");
            costs[0].push(ours);
            costs[1].push(streams);
        }
    }
    for ((name, ..), [ours, theirs]) in COMPARED.iter().zip(costs) {
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{name}: Millstream {ours:.2}, Kafka Streams {theirs:.2} CPU s/M, ratio {:.2} (medians of {rounds} rounds)",
            median(ratios)
        );
    }
}

/// A pipeline from `events` to a topic of its own, to the end; its CPU time.
fn run(log: &Arc<dyn Log>, with: &str, count: u64) -> Duration {
    let (name, folder) = (unique("count"), tempfile::tempdir().expect("a folder"));
    log.create_topic(&format!("{name}.out"), PARTITIONS).expect("a topic");
    let file = manifest_file(folder.path(), &name, "events", with);
    let before = cpu();
    let loaded = manifest::load(&file, &Engine::new().expect("an engine")).expect("no mistakes");
    let (limit, secrets) = (BatchLimit::default(), Secrets::load().expect("secrets"));
    let setting = runtime::prepare(loaded.pipeline, log, &secrets, limit, Creates::Declared, Some(folder.path()));
    let options = Options { until_end: true, host: "bench".to_owned(), ..Options::default() };
    let (summary, ended) = runtime::run(&Arc::new(setting.expect("ready")), log, None, options, &AtomicBool::new(false), &mut |_| {});
    ended.expect("a good end");
    assert_eq!(summary.records, count);
    cpu() - before
}

fn manifest_file(folder: &Path, name: &str, input: &str, with: &str) -> PathBuf {
    let file = folder.join("pipeline.yaml");
    let text = format!(
        "pipeline: {name}\nsources: {{ in: {{ topic: {input} }} }}\nstages:\n  - {{ name: count, plugin: aggregate, with: {with} }}\n\
         sinks:\n  - {{ from: count, topic: {name}.out }}\non_error: skip\n"
    );
    std::fs::write(&file, text).expect("a manifest");
    file
}

fn a_million_keys(cluster: &Cluster, log: &Arc<dyn Log>) {
    let (name, folder) = (unique("million"), tempfile::tempdir().expect("a folder"));
    let input = format!("{name}.in");
    for topic in [&input, &format!("{name}.out")] {
        log.create_topic(topic, PARTITIONS).expect("a topic");
    }
    for start in (0..KEYS).step_by(10_000) {
        let mut records = RecordsBuilder::default();
        for number in start..start + 10_000 {
            records.push(1_700_000_000_000, Some(format!("key-{number:09}").as_bytes()), Some(br#"{"amount":1}"#), []);
        }
        log.produce(&input, None, &records.finish()).expect("produced");
    }
    manifest_file(folder.path(), &name, &input, COUNT);
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.args(["run", "pipeline.yaml", "--brokers", &cluster.brokers]).args(arguments).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program")
    };
    let (peak, took) = to_the_end(start(&["--until-end", "--workers", "1"]));
    println!("{KEYS} keys: {peak} MB at most, {:.1} s", took.as_secs_f64());

    let output: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(format!("{name}.out"), partition)).collect();
    let written = || output.iter().map(|at| log.bounds(at).expect("bounds").end).sum::<i64>();
    let produce = || {
        let mut records = RecordsBuilder::default();
        (0..1000).for_each(|number| records.push(1_700_000_000_001, Some(format!("key-{number:09}").as_bytes()), Some(b"{}"), []));
        log.produce(&input, None, &records.finish()).expect("produced");
    };
    for how in ["a good end", "kill -9"] {
        let first_output = |child: &mut Child, began: Instant, before: i64| {
            while written() == before {
                assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().expect("a child").is_none(), "nothing is written");
                // The broker has the same two cores.
                std::thread::sleep(Duration::from_millis(5));
            }
            began.elapsed()
        };
        if how == "kill -9" {
            let before = written();
            produce();
            let mut child = start(&["--workers", "1"]);
            first_output(&mut child, Instant::now(), before);
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        let before = written();
        produce();
        let began = Instant::now();
        let mut child = start(&["--workers", "1"]);
        let took = first_output(&mut child, began, before);
        println!("restart after {how}, local state intact: first output after {:.2} s", took.as_secs_f64());
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    // Something to do behind the restore: a run with nothing to do does not wait for it.
    produce();
    let loaded = manifest::load(&folder.path().join("pipeline.yaml"), &Engine::new().expect("an engine")).expect("no mistakes");
    let secrets = Secrets::load().expect("secrets");
    let restored = tempfile::tempdir().expect("a folder");
    let setting = runtime::prepare(loaded.pipeline, log, &secrets, BatchLimit::default(), Creates::Declared, Some(restored.path()));
    let options = Options { until_end: true, workers: 2, host: "restored".to_owned(), ..Options::default() };
    let (mut first, mut last): (Option<(Instant, u64)>, (Duration, u64)) = Default::default();
    let (_, ended) = runtime::run(&Arc::new(setting.expect("ready")), log, None, options, &AtomicBool::new(false), &mut |summary| {
        if let Some((read, _)) = summary.restoring {
            let (began, before) = *first.get_or_insert_with(|| (Instant::now(), read));
            last = (began.elapsed(), read.saturating_sub(before).max(last.1));
        }
    });
    ended.expect("a good end");
    let rate = last.1 as f64 / last.0.as_secs_f64() / 1e3;
    println!("restore with 2 workers: {} records in {:.1} s, {rate:.0} k records/s (between two looks)", last.1, last.0.as_secs_f64());
}

/// The highest memory of a process in MB, and how long it ran.
fn to_the_end(mut child: Child) -> (u64, Duration) {
    let began = Instant::now();
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) / 1000);
        std::thread::sleep(Duration::from_millis(20));
    }
    (peak, began.elapsed())
}
