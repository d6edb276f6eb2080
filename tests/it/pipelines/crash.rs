//! Every record counts once, whenever the process ends.

use super::{Place, Random, success, text, until};
use millstream::io::TopicPartition;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Small batches and many commits.
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

const FINALS: &str = "NAME.finals";

const STATELESS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, k: text } }
stages:
  - { name: keep, plugin: filter, with: { where: 'n % 7 != 0' } }
sinks:
  - { from: keep, topic: NAME.kept }
";

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers
        .map(|n| format!("{{\"key\":\"{}\",\"timestamp\":{},\"value\":{{\"n\":{n},\"k\":\"k{}\"}}}}\n", n % 11, 1000 + n, n % 13))
        .collect()
}

/// How many of so many records the filter keeps.
fn kept(records: u64) -> u64 {
    records - records.div_ceil(7)
}

fn prepare(place: &Place, manifest: &str) {
    place.write(manifest);
    place.topic("NAME.in", "1");
    place.topic("NAME.kept", "1");
}

/// Kills in the midst of a run, each at a moment of its own.
const KILLS: usize = 10;
/// Records that are there anew when a run starts that is to be killed.
const CHUNK: u64 = 4000;

/// Kills runs, each when its output has grown by a random number of records and it has more to do. Then one run ends by itself. The number of records
/// that there were in the end.
fn disturbed(place: &Place, topics: &[&str]) -> u64 {
    let mut random = Random::new();
    let log = place.log();
    let end = || log.bounds(&TopicPartition::new(place.named(topics[0]), 0)).unwrap().end;
    let (mut records, mut kills, mut tries) = (0, 0, 0);
    while kills < KILLS {
        tries += 1;
        assert!(tries <= 4 * KILLS, "only {kills} of {tries} runs were killed in their midst");
        place.produce("NAME.in", &lines(records..records + CHUNK));
        records += CHUNK;
        let enough = end() + 1 + random.below(CHUNK / 2) as i64;
        let mut run = place.start(&OFTEN);
        until("the output grows", || end() >= enough || run.try_wait().unwrap().is_some());
        // Some way into what it does between two commits.
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        run.kill().unwrap();
        let ended = run.wait_with_output().unwrap();
        assert_eq!(ended.status.signal(), Some(9), "it ended by itself: {}", text(&ended.stderr));
        let written = place.consume(topics[0]).len() as u64;
        assert!(written <= kept(records), "{written} of {}", kept(records));
        kills += usize::from(written < kept(records));
    }
    let left = place.run_well(&OFTEN);
    eprintln!("killed {kills} of {tries} runs in their midst; {left} of {records} records were left for the last one");
    assert!(left > 0);
    records
}

/// As if nothing had been killed: a place of the same kind, the same records, one run.
fn equal_to_one_run(place: &Place, other: &Place, manifest: &str, topics: &[&str], records: u64) {
    prepare(other, manifest);
    other.produce("NAME.in", &lines(0..records));
    assert_eq!(other.run_well(&OFTEN), records);
    for topic in topics {
        let (mut found, mut expected) = (place.consume(topic), other.consume(topic));
        if *topic == FINALS {
            // Two segments write it, in no fixed order.
            found.sort();
            expected.sort();
            assert!(expected.len() > 1000, "{}", expected.len());
        } else {
            assert_eq!(expected.len() as u64, kept(records));
        }
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert!(found == expected, "{topic}: {} records instead of {}, the first other one: {differs:?}", found.len(), expected.len());
    }
    let counts = || topics.iter().map(|topic| place.consume(topic).len()).collect::<Vec<_>>();
    let before = counts();
    assert_eq!(other.run_well(&OFTEN), 0, "a second run finds nothing to do");
    assert_eq!(place.run_well(&OFTEN), 0, "a second run finds nothing to do");
    assert_eq!(counts(), before, "a second run changed the output");
}

#[test]
fn runs_that_are_killed_count_every_record_once() {
    let topics = ["NAME.kept", "NAME.totals", FINALS];
    let (place, other) = (Place::embedded(), Place::embedded());
    prepare(&place, STATEFUL);
    let records = disturbed(&place, &topics);
    equal_to_one_run(&place, &other, STATEFUL, &topics, records);
}

#[test]
fn runs_on_kafka_that_are_killed_count_every_record_once() {
    let topics = ["NAME.kept"];
    let (Some(place), Some(other)) = (Place::kafka(), Place::kafka()) else { return };
    prepare(&place, STATELESS);
    let records = disturbed(&place, &topics);
    equal_to_one_run(&place, &other, STATELESS, &topics, records);
}

#[test]
fn a_run_that_is_told_to_stop_commits_and_ends_well() {
    for place in [Some(Place::embedded()), Place::kafka()].into_iter().flatten() {
        const RECORDS: u64 = 30_000;
        prepare(&place, STATELESS);
        place.produce("NAME.in", &lines(0..RECORDS));
        let run = place.start(&["--commit-interval", "1000", "--batch-rows", "10"]);
        // The first commit; from then on there is more to commit than was.
        let (log, to) = (place.log(), TopicPartition::new(place.named("NAME.kept"), 0));
        until("a commit", || log.bounds(&to).unwrap().end > 0);
        drop(log);
        let signal = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
        assert!(signal.success());
        let report: serde_json::Value = serde_json::from_str(success(&run.wait_with_output().unwrap()).trim()).unwrap();
        let (records, written) = (report["records"].as_u64().unwrap(), place.consume("NAME.kept").len() as u64);
        assert_eq!(written, kept(records), "what was processed is committed: {report}");
        assert_eq!(place.run_well(&[]), RECORDS - records);
        assert_eq!(place.consume("NAME.kept").len() as u64, kept(RECORDS));
    }
}
