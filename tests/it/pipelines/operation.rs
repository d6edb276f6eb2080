//! A run as those who operate it meet it: figures, health, pausing.

use super::outage::Run;
use super::{Place, failure, until};
use crate::cluster::Cluster;
use millstream::io::TopicPartition;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n % 3 != 0' } }
sinks:
  - { from: keep, topic: NAME.out }
on_error: { dead_letter: NAME.dead }
";

const PARTITIONS: i32 = 2;

fn filled(place: Place) -> Place {
    place.write(MANIFEST);
    for topic in ["NAME.in", "NAME.out", "NAME.dead"] {
        place.topic(topic, &PARTITIONS.to_string());
    }
    place
}

fn line(partition: u64, n: u64) -> String {
    format!("{{\"partition\":{partition},\"timestamp\":{},\"value\":{{\"n\":{n}}}}}\n", 1_000_000 + n * 1000)
}

/// Records of both partitions, in turns.
fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| line(n % PARTITIONS as u64, n)).collect()
}

/// What comes out of them, by partition.
fn expected(numbers: std::ops::Range<u64>) -> Vec<Value> {
    let of = |partition| numbers.clone().filter(move |n| n % PARTITIONS as u64 == partition && n % 3 != 0);
    (0..PARTITIONS as u64).flat_map(of).map(|n| json!(n)).collect()
}

/// A run with its address.
struct Watched {
    run: Run,
    address: String,
}

impl Watched {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let run = Run::start(place, &[&["--listen", "127.0.0.1:0"], arguments].concat());
        let mut address = None;
        until("an address that was told", || {
            let said = run.said.lock().unwrap().clone();
            address = said.lines().find_map(|line| Some(line.split_once("listening address=")?.1.trim().to_owned()));
            address.is_some()
        });
        Self { address: address.unwrap(), run }
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, header: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {}\r\n{header}Connection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if path == "/metrics" && status == 200 {
            assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        }
        (status, body.to_owned())
    }

    fn json(&self, method: &str, path: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, path, "");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn figures(&self) -> Figures {
        let (status, text) = self.ask("GET", "/metrics", "");
        assert_eq!(status, 200);
        Figures::parse(&text)
    }
}

/// Series by name and labels, which are in the order of their names.
pub struct Figures(pub BTreeMap<String, f64>);

impl Figures {
    /// Of one pipeline, whose name is left out.
    fn parse(text: &str) -> Self {
        let named = Self::parse_named(text);
        let unnamed = |name: String| {
            let (metric, labels) = name.split_once('{').unwrap();
            let labels = labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.starts_with("pipeline="));
            format!("{metric}{{{}}}", labels.collect::<Vec<_>>().join(","))
        };
        Self(named.0.into_iter().map(|(name, value)| (unnamed(name), value)).collect())
    }

    /// Holds every line to what OpenMetrics asks for.
    pub fn parse_named(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let (mut families, mut series) = (BTreeSet::new(), BTreeMap::new());
        let (mut family, mut kind) = (String::new(), String::new());
        for line in lines.lines() {
            if let Some(about) = line.strip_prefix("# ") {
                let words: Vec<&str> = about.splitn(3, ' ').collect();
                match words[..] {
                    ["HELP", name, help] => {
                        assert!(families.insert(name.to_owned()), "a second family {name}");
                        assert!(help.ends_with('.'), "{line}");
                        family = name.to_owned();
                    }
                    ["TYPE", name, of] => {
                        assert_eq!(name, family, "{line}");
                        kind = of.to_owned();
                    }
                    ["UNIT", name, unit] => assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (metric, labels) = name.split_once('{').unwrap_or((name, "}"));
            let suffix = metric.strip_prefix(&family).unwrap_or_else(|| panic!("{line}: not of {family}"));
            let suffixes: &[&str] = match &*kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("{other}"),
            };
            assert!(suffixes.contains(&suffix), "{line}: {kind}");
            let labels = labels.strip_suffix('}').unwrap();
            let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
            assert!(labels.iter().all(|label| label.split_once("=\"").is_some_and(|(_, value)| value.ends_with('"'))), "{line}");
            labels.sort_unstable();
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            assert!(series.insert(format!("{metric}{{{}}}", labels.join(",")), value).is_none(), "{line}: twice");
        }
        Self(series)
    }

    pub fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn of(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_else(|| panic!("{name} is not there: {:#?}", self.0))
    }

    /// Over all series of a name.
    fn sum(&self, metric: &str) -> f64 {
        self.all(metric).map(|(_, value)| value).sum()
    }

    fn all(&self, metric: &str) -> impl Iterator<Item = (&String, f64)> {
        self.0.iter().filter(move |(name, _)| name.split('{').next() == Some(metric)).map(|(name, value)| (name, *value))
    }
}

fn committed(place: &Place) -> Vec<i64> {
    let partitions: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(place.named("NAME.in"), partition)).collect();
    let positions = place.log().committed(&place.named("NAME"), &partitions).unwrap();
    positions.into_iter().map(|position| position.map_or(0, |position| position.offset)).collect()
}

#[test]
fn figures_tell_what_was_done_and_where_the_run_stands() {
    let place = filled(Place::embedded());
    let watched = Watched::start(&place, &[]);
    place.produce("NAME.in", &lines(0..20));
    // Broken, of a wrong type, and a null where the condition needs a number.
    let bad =
        ["{\"n\":", "{\"n\":\"x\"}", "{\"n\":1.5}"].map(|text| json!({ "partition": 0, "timestamp": 1, "value_text": text }).to_string());
    place.produce("NAME.in", &bad.join("\n"));
    until("everything committed, and seen", || {
        let figures = watched.figures();
        figures.sum("kafka_consumergroup_lag") == 0.0 && figures.sum("millstream_source_end_offset") == 23.0
    });
    let figures = watched.figures();
    let kept = expected(0..20).len() as f64;
    for (name, value) in [
        ("millstream_records_read_total{worker=\"0\"}", 23.0),
        ("millstream_stage_rows_in_total{stage=\"keep\"}", 22.0),
        ("millstream_stage_rows_out_total{stage=\"keep\"}", kept),
        ("millstream_stage_rows_rejected_total{stage=\"keep\"}", 2.0),
        ("millstream_stage_rows_late_total{stage=\"keep\"}", 0.0),
        ("millstream_sink_records_total{topic=\"p.out\"}", kept),
        ("millstream_refused_records_total{code=\"not_json\"}", 1.0),
        ("millstream_refused_records_total{code=\"wrong_type\"}", 2.0),
        ("millstream_dead_letters_total{topic=\"p.dead\"}", 3.0),
        ("millstream_source_committed_offset{partition=\"0\",topic=\"p.in\"}", 13.0),
        ("millstream_source_committed_offset{partition=\"1\",topic=\"p.in\"}", 10.0),
        ("millstream_source_waiting_records{partition=\"1\",topic=\"p.in\"}", 0.0),
        ("kafka_consumergroup_lag{consumergroup=\"p\",partition=\"0\",topic=\"p.in\"}", 0.0),
        ("millstream_task_stream_time_seconds{partition=\"0\",segment=\"0\"}", 1018.0),
        ("millstream_task_stream_time_seconds{partition=\"1\",segment=\"0\"}", 1019.0),
        ("millstream_worker_up{worker=\"0\"}", 1.0),
        ("millstream_restoring{worker=\"0\"}", 0.0),
        ("millstream_waiting_for_log{worker=\"0\"}", 0.0),
        ("millstream_paused{}", 0.0),
        (concat!("millstream_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(figures.of(name), value, "{name}");
    }
    assert!(figures.of("millstream_stage_calls_total{stage=\"keep\"}") >= 2.0);
    assert!(figures.of("millstream_stage_busy_seconds_total{stage=\"keep\"}") > 0.0);
    assert!(figures.of("process_resident_memory_bytes{}") > 1e6);
    assert!(figures.of("process_cpu_seconds_total{}") > 0.0);
    commits_are_measured(&figures, "0");
    assert_eq!(watched.json("GET", "/healthz"), (200, json!({ "status": "running", "pipeline": "p" })));
    assert_eq!(watched.ask("GET", "/other", "").0, 404);
    assert_eq!(watched.ask("GET", "/pause", "").0, 405);
    let report = watched.run.end();
    assert_eq!(report["records"], 23);
    assert_eq!(report["stages"][0]["out"].as_f64(), Some(kept));
}

fn commits_are_measured(figures: &Figures, worker: &str) {
    let of = |metric: &str| figures.of(&format!("{metric}{{worker=\"{worker}\"}}"));
    let count = of("millstream_commit_duration_seconds_count");
    assert!(count >= 1.0 && count == of("millstream_commits_total"), "{count} commits");
    assert!(of("millstream_commit_duration_seconds_sum") > 0.0);
    let bucket = |bound: &str| figures.of(&format!("millstream_commit_duration_seconds_bucket{{le=\"{bound}\",worker=\"{worker}\"}}"));
    let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "+Inf"];
    let counts = bounds.map(bucket);
    assert!(counts.is_sorted() && counts[12] == count, "{counts:?}");
}

/// Pauses a run, lets records come, and has it go on.
fn pause_and_go_on(place: &Place, arguments: &[&str]) {
    let watched = Watched::start(place, arguments);
    place.produce("NAME.in", &lines(0..100));
    until("the first records are out", || watched.figures().sum("millstream_records_read_total") == 100.0);

    let (status, _) = watched.ask("POST", "/pause", "Origin: http://elsewhere.example\r\n");
    assert_eq!((status, watched.figures().of("millstream_paused{}")), (403, 0.0), "a page in a browser may not pause a run");
    assert_eq!(watched.json("POST", "/pause"), (200, json!({ "paused": true, "settled": true })));
    // At rest: all that was processed is committed, without anybody waiting for it.
    let places = committed(place);
    assert_eq!(place.field("NAME.out", "n"), expected(0..100));
    until("the figures of the pause", || watched.figures().sum("millstream_commits_total") >= 1.0);
    let before = watched.figures();

    place.produce("NAME.in", &lines(100..200));
    until("the new records are fetched, and wait", || watched.figures().sum("millstream_source_waiting_records") == 100.0);
    until("the lag is seen", || watched.figures().sum("kafka_consumergroup_lag") >= 100.0);
    let paused = watched.figures();
    assert_eq!(paused.of("millstream_paused{}"), 1.0);
    for metric in ["millstream_records_read_total", "millstream_commits_total", "millstream_source_committed_offset"] {
        assert_eq!(paused.sum(metric), before.sum(metric), "{metric} of a run that is paused");
    }
    assert_eq!(watched.json("GET", "/healthz").1["status"], "paused");
    assert_eq!(place.field("NAME.out", "n"), expected(0..100), "nothing is written in a pause");
    assert_eq!(committed(place), places, "nothing is committed in a pause");

    assert_eq!(watched.json("POST", "/resume"), (200, json!({ "paused": false })));
    until("the others are out", || watched.figures().sum("millstream_records_read_total") == 200.0);
    until("there is no lag", || watched.figures().sum("kafka_consumergroup_lag") == 0.0);

    // What is fetched and waits when a paused run is told to stop is the next one's.
    assert_eq!(watched.json("POST", "/pause").0, 200);
    place.produce("NAME.in", &lines(200..300));
    until("the last records are fetched, and wait", || watched.figures().sum("millstream_source_waiting_records") == 100.0);
    assert_eq!(watched.run.end()["records"], 200);
    assert_eq!(place.run_well(&[]), 100);
    assert_eq!(place.field("NAME.out", "n"), expected(0..300), "each record once, in order");
}

#[test]
fn a_paused_run_keeps_its_place_and_goes_on() {
    pause_and_go_on(&filled(Place::embedded()), &[]);
}

#[test]
fn a_paused_run_on_kafka_keeps_its_place_and_goes_on() {
    if let Some(place) = Place::kafka() {
        // One worker: with two, the group may still be sharing partitions out, which commits.
        pause_and_go_on(&filled(place), &["--workers", "1"]);
    }
}

#[test]
fn lag_and_commit_times_on_kafka_are_those_of_the_workers() {
    let Some(place) = Place::kafka() else { return };
    let place = filled(place);
    let mut sent = 5000;
    place.produce("NAME.in", &lines(0..sent));
    let watched = Watched::start(&place, &["--workers", "2"]);
    // The one that joined first may have had all partitions to begin with.
    until("both workers have commits", || {
        place.produce("NAME.in", &lines(sent..sent + 100));
        sent += 100;
        watched.figures().all("millstream_commits_total").filter(|(_, commits)| *commits > 0.0).count() == 2
    });
    let partitions = PARTITIONS as usize;
    until("the lag is gone", || {
        let figures = watched.figures();
        figures.sum("millstream_records_read_total") == sent as f64
            && figures.all("kafka_consumergroup_lag").count() == partitions
            && figures.sum("kafka_consumergroup_lag") == 0.0
    });
    let figures = watched.figures();
    for worker in ["0", "1"] {
        commits_are_measured(&figures, worker);
    }
    let offsets: Vec<f64> = figures.all("millstream_source_committed_offset").map(|(_, offset)| offset).collect();
    assert_eq!(offsets, committed(&place).into_iter().map(|offset| offset as f64).collect::<Vec<_>>());
    let name = place.named("{consumergroup=\"NAME\",partition=\"1\",topic=\"NAME.in\"}");
    assert_eq!(figures.of(&format!("kafka_consumergroup_lag{name}")), 0.0);
    assert_eq!(watched.json("GET", "/healthz").1["status"], "running");
}

const COUNTS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: counts, plugin: aggregate, with: { compute: { count: count() } } }
sinks:
  - { from: counts, topic: NAME.out }
";

#[test]
fn a_restore_tells_how_much_it_has_read() {
    let Some(place) = Place::kafka() else { return };
    place.write(COUNTS);
    place.topic("NAME.in", "1");
    place.topic("NAME.out", "1");
    let lines: String = (0..500).map(|n| format!("{{\"key\":\"{n}\",\"value\":{{\"n\":{n}}}}}\n")).collect();
    place.produce("NAME.in", &lines);
    place.run_well(&[]);
    std::fs::remove_dir_all(place.path().join("data/state")).unwrap();
    let watched = Watched::start(&place, &[]);
    let mut figures = watched.figures();
    until("the state is restored", || {
        figures = watched.figures();
        figures.sum("millstream_restoring") == 0.0
            && figures.find("millstream_restore_read_records{worker=\"0\"}").is_some_and(|read| read > 0.0)
    });
    assert_eq!(figures.of("millstream_restore_read_records{worker=\"0\"}"), 500.0);
    assert!(figures.of("millstream_restore_expected_records{worker=\"0\"}") >= 500.0);
}

#[test]
fn health_tells_of_a_log_that_is_away_for_long() {
    let Some(mut cluster) = Cluster::own() else { return };
    let place = filled(Place::on(&cluster));
    let watched = Watched::start(&place, &[]);
    place.produce("NAME.in", &lines(0..100));
    until("the first records are out", || watched.figures().sum("millstream_records_read_total") == 100.0);
    cluster.kill();
    until("the outage is known", || watched.json("GET", "/healthz").1["status"] == "waiting for the log");
    assert_eq!(watched.json("GET", "/healthz").0, 200, "for a while it is borne");
    until("every worker waits", || watched.figures().all("millstream_waiting_for_log").all(|(_, waits)| waits == 1.0));
    until("the run is unhealthy", || watched.json("GET", "/healthz").0 == 503);
    assert!(watched.json("GET", "/healthz").1["seconds"].as_u64().unwrap() >= 30);
    cluster.restart();
    until("all is well again", || {
        watched.json("GET", "/healthz") == (200, json!({ "status": "running", "pipeline": place.named("NAME") }))
    });
    place.produce("NAME.in", &lines(100..200));
    until("the others are out", || watched.figures().sum("kafka_consumergroup_lag") == 0.0 && committed(&place).iter().sum::<i64>() >= 200);
    assert_eq!(place.field("NAME.out", "n"), expected(0..200));
}

#[test]
fn an_address_in_use_is_told_before_anything_is_done() {
    let place = Place::embedded();
    place.write(MANIFEST);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = failure(&place.run(&["--listen", &port]), 1);
    assert!(told.contains(&format!("cannot listen on 127.0.0.1:{port}")) && told.contains("--listen"), "{told}");
    assert!(!place.path().join("data").exists(), "nothing was opened");
}
