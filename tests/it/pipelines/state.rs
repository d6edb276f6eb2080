//! State on Kafka: changelogs, local copies, restoring, and what becomes of a run whose changelogs or positions are not as it left them.

use super::{Place, failure, success};
use serde_json::{Value, json};
use std::path::Path;

const BY_KEY: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
stages:
  - { name: totals, plugin: aggregate, with: { compute: { count: count(), total: sum(n), all: 'collect(n, 5)', mean: avg(n) } } }
  - { name: by-minute, from: in, plugin: aggregate, with: { window: { tumbling: 1m, grace: 10s }, compute: { count: count() } } }
sinks:
  - { from: totals, topic: NAME.totals }
  - { from: by-minute, topic: NAME.minutes }
";

fn lines(from: u64, to: u64) -> String {
    (from..to)
        .map(|n| format!("{{\"key\":\"k{}\",\"timestamp\":{},\"value\":{{\"n\":{n}}}}}\n", n % 17, 1_700_000_000_000u64 + n * 700))
        .collect()
}

/// A pipeline with keyed state over three partitions, on Kafka.
fn place() -> Option<Place> {
    let place = Place::kafka()?;
    place.write(BY_KEY);
    for topic in ["NAME.in", "NAME.totals", "NAME.minutes"] {
        place.topic(topic, "3");
    }
    Some(place)
}

/// What the embedded log makes of the same records, in two runs.
fn expected(cut: u64, end: u64) -> [Vec<String>; 2] {
    let place = Place::embedded();
    place.write(BY_KEY);
    for topic in ["NAME.in", "NAME.totals", "NAME.minutes"] {
        place.topic(topic, "3");
    }
    for (from, to) in [(0, cut), (cut, end)] {
        place.produce("NAME.in", &lines(from, to));
        place.run_well(&[]);
    }
    outputs(&place)
}

fn outputs(place: &Place) -> [Vec<String>; 2] {
    ["NAME.totals", "NAME.minutes"].map(|topic| place.consume(topic))
}

fn local(place: &Place) -> std::path::PathBuf {
    place.path().join("data/state")
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn state_goes_on_over_runs_with_without_and_with_old_local_copies() {
    let Some(place) = place() else { return };
    place.produce("NAME.in", &lines(0, 1000));
    assert_eq!(place.run_well(&["--commit-interval", "5", "--batch-rows", "10"]), 1000);
    assert_eq!(place.run_well(&[]), 0, "a second run finds nothing to do");
    let old = tempfile::tempdir().unwrap();
    copy(&local(&place), old.path());

    // With the copy that the last run left, without one, with one that is behind.
    for (step, meddle) in [
        (1000, &(|| {}) as &dyn Fn()),
        (2000, &|| std::fs::remove_dir_all(local(&place)).unwrap()),
        (3000, &|| {
            std::fs::remove_dir_all(local(&place)).unwrap();
            copy(old.path(), &local(&place));
        }),
    ] {
        place.produce("NAME.in", &lines(step, step + 1000));
        meddle();
        assert_eq!(place.run_well(&["--commit-interval", "20"]), 1000);
    }
    let [totals, minutes] = expected(1000, 4000);
    let [found_totals, found_minutes] = outputs(&place);
    assert!(found_totals == totals, "other totals than on the embedded log");
    assert!(found_minutes == minutes, "other counts of minutes than on the embedded log");
}

/// The last record of each key of a topic.
fn last(place: &Place, topic: &str) -> std::collections::BTreeMap<String, Value> {
    let records = place.consume(topic).into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
    records.map(|record| (record["key"].to_string(), record)).collect()
}

#[test]
fn a_changelog_is_a_topic_that_anybody_can_read() {
    let Some(place) = place() else { return };
    place.produce("NAME.in", &lines(0, 500));
    place.run_well(&[]);
    let rows = last(&place, "NAME.totals.changelog");
    assert_eq!(rows.len(), 17);
    let k3 = &rows["\"k3\""];
    let ns: Vec<u64> = (0..500).filter(|n| n % 17 == 3).collect();
    assert_eq!(k3["value"]["count"], json!(ns.len()));
    assert_eq!(k3["value"]["total"], json!(ns.iter().sum::<u64>()));
    assert_eq!(k3["value"]["all"], json!(ns[..5]));
    let version = k3["headers"]["millstream.version"].as_str().unwrap();
    assert!(version.starts_with(r#"[["$time","int"],["#) && version.contains(r#"["count","int"]"#), "{k3}");
    // In the partition of the task, which is where the key's records are.
    let input = last(&place, "NAME.in");
    assert!(rows.iter().all(|(key, row)| row["partition"] == input[key]["partition"]));

    // 500 records are 350 s: what is older than the last minute and ten seconds is closed and gone.
    let minutes = last(&place, "NAME.by-minute.changelog");
    let (gone, open): (Vec<_>, Vec<_>) = minutes.values().partition(|row| row["value"].is_null());
    assert!(!gone.is_empty() && !open.is_empty(), "{} closed, {} open", gone.len(), open.len());
    assert!(minutes.keys().all(|key| key.contains("start")), "{minutes:?}");
}

#[test]
fn a_changelog_that_does_not_fit_is_refused_and_nothing_is_changed() {
    let Some(wrong) = place() else { return };
    wrong.topic("NAME.totals.changelog", "2");
    wrong.produce("NAME.in", &lines(0, 10));
    let told = failure(&wrong.run(&[]), 6);
    assert!(told.contains("totals.changelog has 2 partitions, but the sources have 3"), "{told}");
    assert!(wrong.consume("NAME.totals").is_empty());

    let Some(loose) = place() else { return };
    loose.topic("NAME.totals.changelog", "3");
    let told = failure(&loose.run(&[]), 6);
    assert!(told.contains("is not compacted") && told.contains("cleanup.policy=compact"), "{told}");
}

#[test]
fn a_changelog_that_was_deleted_or_made_anew_is_told() {
    let (Some(place), Some(cluster)) = (place(), crate::cluster::cluster()) else { return };
    place.produce("NAME.in", &lines(0, 100));
    place.run_well(&[]);
    let before = outputs(&place);
    let admin = crate::cluster::Admin::new(cluster);
    for store in ["totals", "by-minute"] {
        admin.delete(&place.named(&format!("NAME.{store}.changelog")));
    }
    place.produce("NAME.in", &lines(100, 110));
    let told = failure(&place.run(&[]), 6);
    assert!(told.contains("is missing, but the group") && told.contains("under another name"), "{told}");

    for store in ["totals", "by-minute"] {
        admin.create(&place.named(&format!("NAME.{store}.changelog")), 3, &[("cleanup.policy", "compact")]);
    }
    let told = failure(&place.run(&[]), 6);
    assert!(told.contains("made anew"), "{told}");
    std::fs::remove_dir_all(local(&place)).unwrap();
    let told = failure(&place.run(&[]), 6);
    assert!(told.contains("made anew"), "also without a local copy that remembers: {told}");
    assert_eq!(outputs(&place), before, "nothing was changed");
}

#[test]
fn positions_of_another_program_are_told() {
    let (Some(place), Some(cluster)) = (place(), crate::cluster::cluster()) else { return };
    place.produce("NAME.in", &lines(0, 30));
    place.run_well(&[]);
    crate::cluster::Admin::new(cluster).commit(&place.name, &place.named("NAME.in"), 0, 0);
    let told = failure(&place.run(&[]), 6);
    assert!(told.contains("was not written by a run of this pipeline"), "{told}");
}

#[test]
fn a_dry_run_reads_state_and_leaves_it() {
    let Some(place) = place() else { return };
    place.produce("NAME.in", &lines(0, 34));
    success(&place.run(&["--dry-run"]));
    place.run_well(&[]);
    let state = last(&place, "NAME.totals.changelog");
    place.produce("NAME.in", &lines(34, 51));
    let shown = success(&place.call(&["run", "pipeline.yaml", "--dry-run"]));
    let counts: Vec<u64> = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["topic"].as_str() == Some(&place.named("NAME.totals")))
        .map(|record| record["value"]["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [3; 17], "{shown}");
    assert!(!shown.contains("changelog"), "{shown}");
    assert_eq!(last(&place, "NAME.totals.changelog"), state);
    assert_eq!(place.run_well(&[]), 17);
}

/// Groups by another field than the key, twice, over four partitions and two workers.
const REGROUPED: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, team: text, house: text } }
stages:
  - { name: by-team, plugin: aggregate, with: { group_by: [team, house], compute: { count: count(), total: sum(n) } } }
  - { name: by-house, plugin: aggregate, with: { group_by: [house], compute: { changes: count(), highest: max(total) } } }
  - { name: by-minute, from: in, plugin: aggregate, with: { group_by: [house], window: { tumbling: 1m, grace: 0s }, compute: { count: count() } } }
sinks:
  - { from: by-team, topic: NAME.teams }
  - { from: by-house, topic: NAME.houses }
  - { from: by-minute, topic: NAME.minutes }
";

fn regrouped_lines(from: u64, to: u64) -> String {
    (from..to)
        .map(|n| {
            let (team, time) = (n % 12, 1_700_000_000_000u64 + n * 50);
            format!("{{\"key\":\"k{n}\",\"timestamp\":{time},\"value\":{{\"n\":{n},\"team\":\"t{team}\",\"house\":\"h{}\"}}}}\n", team % 3)
        })
        .collect()
}

/// What all came to in the end, whatever the order of tasks on the way.
fn settled(place: &Place, records: u64) {
    let values = |topic| last(place, topic).into_values().map(|record| record["value"].clone()).collect::<Vec<_>>();
    let teams = values("NAME.teams");
    assert_eq!(teams.len(), 12);
    for team in teams {
        let number: u64 = team["team"].as_str().unwrap()[1..].parse().unwrap();
        let ns: Vec<u64> = (0..records).filter(|n| n % 12 == number).collect();
        assert_eq!((&team["count"], &team["total"]), (&json!(ns.len()), &json!(ns.iter().sum::<u64>())), "{team}");
    }
    let houses = values("NAME.houses");
    assert_eq!(
        houses.iter().map(|house| house["changes"].as_u64().unwrap()).sum::<u64>(),
        records,
        "each change of a team once: {houses:?}"
    );
    let mut minutes = std::collections::BTreeMap::new();
    for record in place.consume("NAME.minutes") {
        let value = serde_json::from_str::<Value>(&record).unwrap()["value"].clone();
        minutes.insert((value["house"].to_string(), value["window_start"].as_u64().unwrap()), value["count"].as_u64().unwrap());
    }
    assert_eq!(minutes.values().sum::<u64>(), records, "no record came too late for its minute: {minutes:?}");
}

#[test]
fn groups_over_several_workers_and_hosts_count_every_record_once() {
    several_workers_and_hosts("");
}

#[test]
fn groups_by_the_consumer_protocol_over_several_workers_and_hosts_count_every_record_once() {
    several_workers_and_hosts(super::CONSUMER_PROTOCOL);
}

fn several_workers_and_hosts(settings: &str) {
    let Some(place) = Place::kafka() else { return };
    std::fs::write(place.path().join("millstream.toml"), settings).unwrap();
    place.write(REGROUPED);
    for topic in ["NAME.in", "NAME.teams", "NAME.houses", "NAME.minutes"] {
        place.topic(topic, "4");
    }
    place.produce("NAME.in", &regrouped_lines(0, 1500));
    assert_eq!(place.run_well(&["--workers", "2", "--commit-interval", "20", "--batch-rows", "50"]), 1500);
    settled(&place, 1500);
    assert_eq!(place.run_well(&["--workers", "2"]), 0, "a second run finds nothing to do");

    // Two hosts at once, each with a folder of its own and two workers.
    place.produce("NAME.in", &regrouped_lines(1500, 4000));
    let other = place.path().join("other");
    let second = place
        .command(&["run", "pipeline.yaml", "--until-end", "--output", "json", "--workers", "2", "--data", other.to_str().unwrap()])
        .spawn();
    let first = place.run_well(&["--workers", "2", "--commit-interval", "20", "--batch-rows", "50"]);
    let report: Value = serde_json::from_str(success(&second.unwrap().wait_with_output().unwrap()).trim()).unwrap();
    eprintln!("one host took {first} records, the other {}", report["records"]);
    settled(&place, 4000);

    // One host takes all over, with what the other has done.
    place.produce("NAME.in", &regrouped_lines(4000, 4600));
    assert_eq!(place.run_well(&[]), 600);
    settled(&place, 4600);
}

#[test]
fn repartition_topics_lose_what_is_processed() {
    for place in [Some(Place::embedded()), Place::kafka()].into_iter().flatten() {
        place.write(REGROUPED);
        for topic in ["NAME.in", "NAME.teams", "NAME.houses", "NAME.minutes"] {
            place.topic(topic, "2");
        }
        let log = place.log();
        let begins = || {
            let topic: std::sync::Arc<str> = place.named("NAME.by-team.repartition").into();
            let begin = |partition| log.bounds(&millstream::io::TopicPartition::new(topic.clone(), partition)).unwrap().begin;
            begin(0) + begin(1)
        };
        let mut from = 0;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while from == 0 || begins() == 0 {
            assert!(std::time::Instant::now() < deadline, "nothing is deleted");
            place.produce("NAME.in", &regrouped_lines(from, from + 400));
            place.run_well(&["--commit-interval", "5", "--batch-rows", "20", "--checkpoint-interval", "10"]);
            from += 400;
        }
        settled(&place, from);
    }
}

#[test]
fn at_least_once_loses_nothing_and_says_what_it_is() {
    for settings in ["", super::CONSUMER_PROTOCOL] {
        let Some(place) = Place::kafka() else { return };
        std::fs::write(place.path().join("millstream.toml"), settings).unwrap();
        place.write(&format!("{BY_KEY}guarantee: at-least-once\n"));
        for topic in ["NAME.in", "NAME.totals", "NAME.minutes"] {
            place.topic(topic, "3");
        }
        let shown = success(&place.call(&["check", "pipeline.yaml"]));
        assert!(shown.contains("guarantee: at least once"), "{shown}");
        // Undisturbed, it counts as exactly as any.
        for (from, to) in [(0, 1000), (1000, 4000)] {
            place.produce("NAME.in", &lines(from, to));
            assert_eq!(place.run_well(&["--commit-interval", "20"]), to - from);
        }
        let [totals, minutes] = expected(1000, 4000);
        let [found_totals, found_minutes] = outputs(&place);
        assert!(found_totals == totals && found_minutes == minutes, "other results than on the embedded log");
        assert_eq!(place.run_well(&[]), 0);
    }
}

/// A window of one key, and a group behind a repartition, whose clock goes by all partitions.
const TWO_CLOCKS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int, group: text } }
stages:
  - { name: by-window, from: in, plugin: aggregate, with: { window: { tumbling: 1m }, compute: { count: count() } } }
  - { name: by-group, from: in, plugin: aggregate, with: { group_by: [group], compute: { count: count() } } }
sinks:
  - { from: by-window, topic: NAME.windows }
  - { from: by-group, topic: NAME.groups }
";

#[test]
fn a_segment_that_is_ahead_closes_no_window_of_another() {
    for place in [Some(Place::embedded()), Place::kafka()].into_iter().flatten() {
        place.write(TWO_CLOCKS);
        for topic in ["NAME.in", "NAME.windows", "NAME.groups"] {
            place.topic(topic, "2");
        }
        // Two partitions, an hour apart.
        let line = |partition: usize, time: u64| {
            format!(
                "{{\"key\":\"k{partition}\",\"partition\":{partition},\"timestamp\":{time},\"value\":{{\"n\":1,\"group\":\"g{partition}\"}}}}\n"
            )
        };
        for time in [1_000, 2_000, 3_000] {
            place.produce("NAME.in", &(line(0, time) + &line(1, 3_600_000 + time)));
            assert_eq!(place.run_well(&[]), 2);
        }
        let counts: Vec<_> = place.consume("NAME.windows").iter().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        let of = |key: &str| {
            counts.iter().filter(|record| record["key"] == key).map(|record| record["value"]["count"].clone()).collect::<Vec<_>>()
        };
        assert_eq!((of("k0"), of("k1")), (vec![json!(1), json!(2), json!(3)], vec![json!(1), json!(2), json!(3)]));
    }
}

#[test]
fn a_dry_run_keeps_rows_that_no_cache_holds() {
    let place = Place::embedded();
    place.write(
        "\
pipeline: NAME
sources:
  in: { topic: in, schema: { note: text } }
stages:
  - { name: totals, plugin: aggregate, with: { compute: { count: count(), note: last(note) } } }
sinks:
  - { from: totals, topic: out }
",
    );
    // Tasks share the room for rows: that of 64 partitions has 1 MiB.
    place.topic("in", "64");
    let note = "n".repeat(300_000);
    let line = |n: usize| format!("{}\n", json!({ "partition": 0, "key": format!("k{}", n % 8), "value": { "note": note } }));
    place.produce("in", &(0..16).map(line).collect::<String>());
    let shown = success(&place.call(&["run", "pipeline.yaml", "--dry-run", "--commit-interval", "1", "--batch-rows", "1"]));
    let counts: Vec<u64> =
        shown.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"]["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [[1; 8], [2; 8]].concat());
}

#[test]
fn a_dry_run_on_the_embedded_log_leaves_nothing() {
    let place = Place::embedded();
    let manifest = |kind: &str| {
        format!(
            "\
pipeline: NAME
sources:
  in: {{ topic: in, schema: {{ n: {kind} }} }}
stages:
  - {{ name: totals, plugin: aggregate, with: {{ compute: {{ count: count(), last: last(n) }} }} }}
sinks:
  - {{ from: totals, topic: out }}
"
        )
    };
    let counts = |count: u64| {
        let records = place.consume("out").into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap()["value"].clone());
        assert_eq!(records.collect::<Vec<_>>(), (1..=count).map(|count| json!({ "count": count, "last": 7 })).collect::<Vec<_>>());
    };
    place.write(&manifest("int"));
    let told = failure(&place.call(&["run", "pipeline.yaml", "--dry-run"]), 6);
    assert!(told.contains("topic create in"), "{told}");
    let record = "{\"key\":\"a\",\"value\":{\"n\":7}}\n";
    place.produce("in", record);
    place.run_well(&[]);
    counts(1);
    place.produce("in", record);
    // From rows of this type there would be no way back.
    place.write(&manifest("float"));
    let shown = success(&place.call(&["run", "pipeline.yaml", "--dry-run"]));
    assert!(shown.contains("\"count\":2"), "{shown}");
    place.write(&manifest("int"));
    place.run_well(&[]);
    counts(2);
}
