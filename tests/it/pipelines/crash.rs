//! Every record counts once, whenever the process ends.

use super::{Place, Random, success, text};
use std::time::{Duration, Instant};

const RECORDS: u64 = 30_000;
const OFTEN: [&str; 4] = ["--commit-interval", "5", "--batch-rows", "100"];

const STATEFUL: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, k: text } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n % 7 != 0' } }
  - { name: by-k, plugin: aggregate, with: { group_by: [k], compute: { count: count(), total: sum(n) } } }
  - name: windows
    from: keep
    plugin: aggregate
    with: { group_by: [k], window: { hopping: 100ms, advance: 40ms }, emit: final, compute: { count: count() } }
  - { name: sessions, from: keep, plugin: aggregate, with: { group_by: [k], window: { session: 13ms }, emit: final, compute: { count: count() } } }
sinks:
  - { from: keep, topic: NAME.kept }
  - { from: by-k, topic: NAME.totals }
  - { from: [windows, sessions], topic: NAME.finals }
";

const STATELESS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, k: text } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n % 7 != 0' } }
sinks:
  - { from: keep, topic: NAME.kept }
";

fn lines() -> String {
    (0..RECORDS)
        .map(|n| format!("{{\"key\":\"{}\",\"timestamp\":{},\"value\":{{\"n\":{n},\"k\":\"k{}\"}}}}\n", n % 11, 1000 + n, n % 13))
        .collect()
}

fn prepared(place: Place, manifest: &str) -> Place {
    place.write(manifest);
    place.topic("NAME.in", "1");
    place.topic("NAME.kept", "1");
    place.produce("NAME.in", &lines());
    place
}

/// Runs undisturbed, twice: what comes out, and how long a run takes without and with its records.
fn undisturbed(place: &Place, topics: &[&str]) -> (Vec<Vec<String>>, Duration, Duration) {
    let started = Instant::now();
    assert_eq!(place.run_well(&OFTEN), RECORDS);
    let whole = started.elapsed();
    let outputs: Vec<_> = topics.iter().map(|topic| place.consume(topic)).collect();

    let started = Instant::now();
    assert_eq!(place.run_well(&OFTEN), 0, "a second run finds nothing to do");
    let empty = started.elapsed();
    assert!(outputs == topics.iter().map(|topic| place.consume(topic)).collect::<Vec<_>>(), "a second run changed the output");
    assert_eq!(outputs[0].len() as u64, RECORDS - RECORDS.div_ceil(7));
    (outputs, empty.min(whole), whole)
}

/// Kills runs at random moments between their first record and their end, until some were in the midst of it; then lets one end by itself.
fn disturbed(place: &Place, topic: &str, empty: Duration, whole: Duration) -> bool {
    let mut random = Random::new();
    let (mut partial, mut before, mut first) = (0, 0, empty * 7 / 10);
    for _ in 0..12 {
        let wait = first + Duration::from_micros(random.below((whole.saturating_sub(empty) / 2).as_micros() as u64));
        let mut run = place.start(&[&["--until-end"], OFTEN.as_slice()].concat());
        // A random moment is what the test is about: nothing is waited for.
        std::thread::sleep(wait);
        run.kill().unwrap();
        if run.wait().unwrap().code().is_some() {
            break;
        }
        let written = place.consume(topic).len();
        if written == before {
            // Too early: the machine is busier than before.
            first += whole / 20;
        } else {
            partial += 1;
        }
        before = written;
        if partial == 4 {
            break;
        }
    }
    let left = place.run_well(&OFTEN);
    eprintln!("killed {partial} runs in their midst; {left} of {RECORDS} records were left for the last one");
    partial > 0
}

fn equal(place: &Place, topics: &[&str], outputs: &[Vec<String>]) {
    for (topic, expected) in topics.iter().zip(outputs) {
        let found = place.consume(topic);
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert!(found == *expected, "{topic}: {} records instead of {}, the first other one: {differs:?}", found.len(), expected.len());
    }
}

#[test]
#[ignore = "takes minutes on two cores"]
fn runs_that_are_killed_count_every_record_once() {
    let topics = ["NAME.kept", "NAME.totals", "NAME.finals"];
    let (outputs, empty, whole) = undisturbed(&prepared(Place::embedded(), STATEFUL), &topics);
    assert_eq!(outputs[1].len(), outputs[0].len());
    // On a machine that is now quick, now slow, the moments may all be too early or too late.
    let hit = (0..3).any(|_| {
        let place = prepared(Place::embedded(), STATEFUL);
        let hit = disturbed(&place, topics[0], empty, whole);
        equal(&place, &topics, &outputs);
        hit
    });
    assert!(hit, "no run was disturbed");
}

#[test]
#[ignore = "takes minutes on two cores"]
fn runs_on_kafka_that_are_killed_count_every_record_once() {
    let topics = ["NAME.kept"];
    let Some(one) = Place::kafka() else { return };
    let (outputs, empty, whole) = undisturbed(&prepared(one, STATELESS), &topics);
    let hit = (0..3).filter_map(|_| Place::kafka()).any(|place| {
        let place = prepared(place, STATELESS);
        let hit = disturbed(&place, topics[0], empty, whole);
        // Names of its own stand nowhere in records: outputs are alike.
        equal(&place, &topics, &outputs);
        hit
    });
    assert!(hit, "no run was disturbed");
}

/// Before a run holds the folder, another process that reads there would keep it out.
fn holds_its_log(place: &Place, id: u32) -> bool {
    place.brokers.is_some() || std::fs::read_to_string(place.path().join("data/lock")).is_ok_and(|holder| holder.trim() == id.to_string())
}

#[test]
fn a_run_that_is_told_to_stop_commits_and_ends_well() {
    for place in [Some(Place::embedded()), Place::kafka()].into_iter().flatten() {
        let place = prepared(place, STATELESS);
        let run = place.start(&["--commit-interval", "1000", "--batch-rows", "10"]);
        // The first commit; from then on there is more to commit than was.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds_its_log(&place, run.id()) || text(&place.call(&["consume", "NAME.kept", "--until-end"]).stdout).is_empty() {
            assert!(Instant::now() < deadline, "nothing was committed");
        }
        let signal = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
        assert!(signal.success());
        let report: serde_json::Value = serde_json::from_str(success(&run.wait_with_output().unwrap()).trim()).unwrap();
        let (records, kept) = (report["records"].as_u64().unwrap(), place.consume("NAME.kept").len() as u64);
        assert_eq!(kept, records - records.div_ceil(7), "what was processed is committed: {report}");
        assert_eq!(place.run_well(&[]), RECORDS - records);
        assert_eq!(place.consume("NAME.kept").len() as u64, RECORDS - RECORDS.div_ceil(7));
    }
}
