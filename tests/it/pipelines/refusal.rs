//! Records whose results a topic does not take: found among all that were to be committed with them, and handled by their policy.

use super::{Place, failure, until};
use crate::cluster::{Admin, cluster};
use serde_json::{Value, json};

/// What comes in goes out as it is, and is counted by group; whoever does not come out is not counted.
const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, group: text } }
stages:
  - { name: count, plugin: aggregate, with: { group_by: [group], compute: { count: count() } } }
sinks:
  - { from: in, topic: NAME.out }
  - { from: count, topic: NAME.counts, create: true }
on_error: POLICY
";
const RECORDS: usize = 64;
/// They have no key, which a compacted topic demands.
const GUILTY: [usize; 3] = [5, 6, 40];

fn place(policy: &str) -> Option<Place> {
    let place = Place::kafka()?;
    place.write(&MANIFEST.replace("POLICY", policy));
    place.topic("NAME.in", "1");
    Admin::new(cluster()?).create(&place.named("NAME.out"), 1, &[("cleanup.policy", "compact")]);
    let record = |n: usize| {
        let key = if GUILTY.contains(&n) { Value::Null } else { json!(format!("key-{n}")) };
        json!({ "key": key, "value": { "n": n, "group": (n % 2).to_string() }, "timestamp": 1000 + n }).to_string() + "\n"
    };
    place.produce("NAME.in", &(0..RECORDS).map(record).collect::<String>());
    Some(place)
}

/// The counts of the two groups of the first records, in the order of records.
fn counts(records: usize) -> Vec<Value> {
    let mut counts = [0, 0];
    let good = (0..records).filter(|n| !GUILTY.contains(n));
    good.map(|n| {
        counts[n % 2] += 1;
        json!(counts[n % 2])
    })
    .collect()
}

#[test]
fn a_record_that_a_topic_does_not_take_is_found_and_buried() {
    let Some(place) = place("{ dead_letter: NAME.dead }") else { return };
    place.topic("NAME.dead", "1");
    assert_eq!(place.run_well(&["--workers", "1"]), RECORDS as u64);
    the_guilty_are_buried(&place);
}

/// What is appended last, the rows of the changelog, is appended when the refusal has come already.
#[test]
fn it_is_found_too_where_the_refusal_comes_before_the_commit() {
    let (Some(place), Some(cluster)) = (Place::kafka(), cluster()) else { return };
    place.write(
        "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: count, plugin: aggregate, with: { compute: { count: count() } } }
sinks:
  - { from: in, topic: NAME.out }
  - { from: count, topic: NAME.counts }
on_error: { dead_letter: NAME.dead }
",
    );
    ["NAME.in", "NAME.dead", "NAME.counts"].iter().for_each(|topic| place.topic(topic, "1"));
    Admin::new(cluster).create(&place.named("NAME.out"), 1, &[("message.timestamp.before.max.ms", "86400000")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as usize;
    let record = |n: usize| {
        let time = if GUILTY.contains(&n) { 1000 } else { now };
        json!({ "key": "k", "value": { "n": n }, "timestamp": time }).to_string() + "\n"
    };
    place.produce("NAME.in", &(0..RECORDS).map(record).collect::<String>());
    let mut run = place.start(&["--workers", "1", "--commit-interval", "200"]);
    let good = RECORDS - GUILTY.len();
    until("all is written", || place.consume("NAME.counts").len() == good);
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(place.field("NAME.counts", "count"), (1..=good).map(|count| json!(count)).collect::<Vec<_>>());
    assert_eq!(place.field("NAME.out", "n").len(), good);
    assert_eq!(place.consume("NAME.dead").len(), GUILTY.len());
}

fn the_guilty_are_buried(place: &Place) {
    let good: Vec<_> = (0..RECORDS).filter(|n| !GUILTY.contains(n)).map(|n| json!(n)).collect();
    assert_eq!(place.field("NAME.out", "n"), good);
    assert_eq!(place.field("NAME.counts", "count"), counts(RECORDS));
    let dead: Vec<Value> = place.consume("NAME.dead").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |name: &str| -> Vec<Value> { dead.iter().map(|record| record["headers"][format!("millstream.{name}")].clone()).collect() };
    assert_eq!(told("offset"), GUILTY.map(|n| json!(n.to_string())));
    assert_eq!(told("error"), ["not_taken"; 3]);
    for reason in told("reason") {
        let reason = reason.as_str().unwrap();
        assert!(reason.contains(&place.named("NAME.out")) && reason.contains("without a key"), "{reason}");
    }
}

#[test]
fn under_fail_all_before_it_is_committed_and_the_record_is_named() {
    let Some(place) = place("fail") else { return };
    let said = failure(&place.run(&["--workers", "1"]), 4);
    assert!(said.contains(&place.named("record NAME.in/0@5")) && said.contains("not_taken"), "{said}");
    assert_eq!(place.field("NAME.out", "n"), (0..5).map(|n| json!(n)).collect::<Vec<_>>());
    let said = failure(&place.run(&["--workers", "1"]), 4);
    assert!(said.contains(&place.named("record NAME.in/0@5")), "{said}");
    assert_eq!(place.field("NAME.out", "n").len(), 5);
}

#[test]
fn dead_letters_that_are_not_taken_either_end_the_run() {
    let (Some(place), Some(cluster)) = (place("{ dead_letter: NAME.dead }"), cluster()) else { return };
    Admin::new(cluster).create(&place.named("NAME.dead"), 1, &[("cleanup.policy", "compact")]);
    let said = failure(&place.run(&["--workers", "1"]), 6);
    assert!(said.contains(&place.named("NAME.dead")) && said.contains("without a key"), "{said}");
    assert_eq!(place.field("NAME.out", "n").len(), 5);
}

/// Results of closed windows, which the topic refuses for their times: no record is to blame.
#[test]
fn what_comes_of_no_record_is_blamed_on_none() {
    let (Some(place), Some(cluster)) = (Place::kafka(), cluster()) else { return };
    place.write(
        "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: count, plugin: aggregate, with: { window: { tumbling: 10ms }, emit: final, compute: { count: count() } } }
sinks:
  - { from: count, topic: NAME.out }
on_error: { dead_letter: NAME.dead }
",
    );
    place.topic("NAME.in", "1");
    place.topic("NAME.dead", "1");
    Admin::new(cluster).create(&place.named("NAME.out"), 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let record = |n: usize| json!({ "key": "k", "value": { "n": n }, "timestamp": 1000 + n }).to_string() + "\n";
    place.produce("NAME.in", &(0..RECORDS).map(record).collect::<String>());
    let said = failure(&place.run(&["--workers", "1"]), 6);
    assert!(said.contains(&place.named("NAME.out")) && said.contains("message.timestamp.before.max.ms"), "{said}");
    assert_eq!(place.consume("NAME.dead"), [""; 0]);
}
