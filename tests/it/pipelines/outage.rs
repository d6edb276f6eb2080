//! The broker goes away in the midst of a run and comes back: the run waits, says so once, goes on by itself, and every record counts once.

use super::{Place, text, until};
use crate::cluster::Cluster;
use millstream::io::TopicPartition;
use std::io::Read;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n % 7 != 0' } }
sinks:
  - { from: keep, topic: NAME.kept }
";

/// Many small commits.
const FINE: [&str; 4] = ["--commit-interval", "5", "--batch-rows", "50"];

/// More than a run has done when the outage begins.
const RECORDS: u64 = 30_000;

/// A run, and what it has said so far; killed when the test ends before it.
pub struct Run {
    child: Child,
    pub said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Run {
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = place.start(&[&["--log", "warn,millstream=info"], arguments].concat());
        let said = Arc::new(Mutex::new(String::new()));
        let (mut stderr, heard) = (child.stderr.take().unwrap(), said.clone());
        let listener = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                heard.lock().unwrap().push_str(&text(&buffer[..count]));
            }
        });
        Self { child, said, listener: Some(listener) }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn warnings(&mut self) -> Vec<String> {
        let said = self.said();
        assert!(self.child.try_wait().unwrap().is_none(), "the run has ended: {said}");
        said.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
    }

    fn terminate(&self) {
        let signal = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(signal.success());
    }

    /// Tells it to stop; its report.
    pub fn end(mut self) -> serde_json::Value {
        self.terminate();
        assert!(self.child.wait().unwrap().success());
        let mut report = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
        serde_json::from_str(report.trim()).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        eprintln!("the run said:\n{}", self.said.lock().unwrap());
    }
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"key\":\"{n}\",\"timestamp\":{},\"value\":{{\"n\":{n}}}}}\n", 1000 + n)).collect()
}

fn kept(records: u64) -> u64 {
    records - records.div_ceil(7)
}

/// A cluster of its own, with a run on it that has much to do and is in its midst.
fn busy() -> Option<(Cluster, Place, Run)> {
    let cluster = Cluster::own()?;
    let place = Place::on(&cluster);
    place.write(MANIFEST);
    place.topic("NAME.in", "1");
    place.topic("NAME.kept", "1");
    place.produce("NAME.in", &lines(0..RECORDS));
    let (log, to) = (place.log(), TopicPartition::new(place.named("NAME.kept"), 0));
    let run = Run::start(&place, &FINE);
    let mut end = 0;
    until("the run is in its midst", || {
        end = log.bounds(&to).unwrap().end;
        end > 100
    });
    // More than there are records in them, since each transaction takes an offset of its own.
    assert!(end < RECORDS as i64 / 2, "the run was too quick: {end}");
    Some((cluster, place, run))
}

fn warned(run: &mut Run, cluster: &Cluster, times: usize) {
    let warnings = run.warnings();
    assert_eq!(warnings.len(), times, "one outage, one warning: {warnings:#?}");
    let newest = &warnings[times - 1];
    for part in ["broker", &cluster.brokers, "goes on by itself"] {
        assert!(newest.contains(part), "no `{part}` in: {newest}");
    }
}

fn done(place: &Place, records: u64) {
    until("every record is done", || place.consume("NAME.kept").len() as u64 >= kept(records));
}

/// Every record counts once.
fn ended_well(run: Run, place: &Place, records: u64) {
    let report = run.end();
    assert!(report["records"].as_u64().unwrap() >= records, "{report}");
    let found: Vec<u64> = place.field("NAME.kept", "n").iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(found == (0..records).filter(|n| n % 7 != 0).collect::<Vec<_>>(), "records are missing, twice, or in another order");
    assert_eq!(place.run_well(&[]), 0, "all is committed");
}

#[test]
fn a_run_outlives_brokers_that_are_killed() {
    let Some((mut cluster, place, mut run)) = busy() else { return };
    cluster.kill();
    until("a warning", || !run.warnings().is_empty());
    cluster.restart();
    done(&place, RECORDS);
    warned(&mut run, &cluster, 1);

    // Once more, while there is nothing to do.
    cluster.kill();
    until("a second warning", || run.warnings().len() > 1);
    cluster.restart();
    place.produce("NAME.in", &lines(RECORDS..RECORDS + 1000));
    done(&place, RECORDS + 1000);
    warned(&mut run, &cluster, 2);
    ended_well(run, &place, RECORDS + 1000);
}

#[test]
fn a_run_outlives_brokers_that_hang() {
    let Some((mut cluster, place, mut run)) = busy() else { return };
    cluster.halt();
    until("a warning", || !run.warnings().is_empty());
    cluster.go_on();
    done(&place, RECORDS);
    warned(&mut run, &cluster, 1);
    ended_well(run, &place, RECORDS);
}

/// Whoever stops a run, stops it also where the brokers are gone for good.
fn ends_without_brokers(gone: fn(&mut Cluster)) {
    let Some((mut cluster, _place, mut run)) = busy() else { return };
    gone(&mut cluster);
    until("a warning", || !run.warnings().is_empty());
    let asked = Instant::now();
    run.terminate();
    let code = run.child.wait().unwrap().code();
    let (took, said) = (asked.elapsed(), run.said());
    let mut told = String::new();
    run.child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(code, Some(6), "{said} {told}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    // Why it cannot is told by the run, or by whoever ends it.
    assert!(told.contains(&cluster.brokers) || told.contains("told to stop") && told.contains("done again"), "{told}");
}

#[test]
fn a_run_ends_when_told_though_its_brokers_are_killed() {
    ends_without_brokers(Cluster::kill);
}

#[test]
fn a_run_ends_when_told_though_its_brokers_hang() {
    ends_without_brokers(Cluster::halt);
}
