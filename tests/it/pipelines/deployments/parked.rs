//! Partitions that stand still: of a record that fails, or of a version that does.

use super::{Fleet, until};
use serde_json::{Value, json};

/// 10 is poison to it.
const DIVIDES: &str = "1000 / (n - 10)";
const MENDED: &str = "n == 10 ? 0 : 1000 / (n - 10)";

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
stages:
  - { name: divide, plugin: map, with: { set: { part: 'PART' } } }
  - { name: stamp, plugin: map, with: { set: { v: 'VERSION' } } }
sinks:
  - { from: stamp, topic: NAME.out }
on_error: fail
";

fn write(fleet: &Fleet, part: &str, version: u64) {
    fleet.place.write(&MANIFEST.replace("PART", part).replace("VERSION", &version.to_string()));
}

fn parked(fleet: &Fleet) -> Vec<Value> {
    let status = fleet.status();
    let mut places = status["partitions"].as_array().unwrap().clone();
    places.sort_by_key(|place| place["partition"].as_u64());
    places.into_iter().map(|place| place["parked"].clone()).collect()
}

fn evens(found: &[(u64, Value)]) -> Vec<u64> {
    found.iter().map(|(n, _)| *n).filter(|n| n % 2 == 0).collect()
}

#[test]
fn a_partition_with_a_poison_record_is_parked_alone_until_a_mended_version_comes() {
    for fleet in Fleet::each() {
        let fleet = fleet.start();
        write(&fleet, DIVIDES, 1);
        fleet.good(&["deploy", "pipeline.yaml"]);
        fleet.feed(0..10);
        fleet.comes_out(10);
        // The even ones are in partition 0: what comes after the poison waits behind it.
        fleet.feed(10..11);
        until("partition 0 stands still", || parked(&fleet)[0].is_string());
        let why = parked(&fleet)[0].as_str().unwrap().to_owned();
        let name = fleet.place.named("NAME");
        for part in [format!("pipeline `{name}`"), "stage `divide`".to_owned(), format!("{name}.in/0@5")] {
            assert!(why.contains(&part), "no {part} in: {why}");
        }
        fleet.feed(11..20);
        // Of the other partition, whose records are the odd ones.
        assert_eq!(evens(&fleet.comes_out(15)), [0, 2, 4, 6, 8], "something came out of a partition that stands still");
        assert_eq!(parked(&fleet)[1], Value::Null);
        let shown = fleet.place.call(&["status", "NAME", "--fleet", "NAME"]);
        assert!(super::text(&shown.stdout).contains("stage `divide`"), "{}", super::text(&shown.stdout));

        // As long as nothing is mended, trying again helps nothing.
        fleet.good(&["resume", "NAME"]);
        fleet.feed(20..22);
        assert_eq!(evens(&fleet.comes_out(16)), [0, 2, 4, 6, 8]);
        until("partition 0 stands still again", || parked(&fleet)[0].is_string());

        write(&fleet, MENDED, 2);
        fleet.good(&["deploy", "pipeline.yaml"]);
        fleet.good(&["resume", "NAME"]);
        let found = fleet.comes_out(22);
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..22).collect::<Vec<_>>());
        let of = |version: u64| found.iter().filter(|(_, v)| *v == version).map(|(n, _)| *n).collect::<Vec<_>>();
        let first: Vec<u64> = (0..10).chain((11..22).step_by(2)).collect();
        assert_eq!(of(1), first, "what the first version had made");
        assert_eq!(of(2), [10, 12, 14, 16, 18, 20], "what waited for the second one");
        until("nothing is parked", || parked(&fleet).iter().all(Value::is_null));
        fleet.stop();
    }
}

const TRAPS: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
tables:
  users: { topic: NAME.users, schema: { id: int } }
stages:
  - { name: mine, plugin: ./mine.wasm, with: { mode: MODE } }
  - { name: stamp, plugin: map, with: { set: { v: 'VERSION' } } }
sinks:
  - { from: stamp, topic: NAME.out }
";

#[test]
fn a_version_that_traps_at_its_records_is_gone_back_from() {
    for fleet in Fleet::each() {
        fleet.place.topic("NAME.users", "1");
        std::fs::write(fleet.place.path().join("mine.wasm"), crate::guests::hostile()).unwrap();
        let fleet = fleet.start();
        let deploy = |mode: &str, version: &str| {
            fleet.place.write(&TRAPS.replace("MODE", mode).replace("VERSION", version));
            fleet.good(&["deploy", "pipeline.yaml"])
        };
        deploy("Identity", "1");
        fleet.feed(0..10);
        fleet.worked(0, 10, 1);
        deploy("Panic", "2");
        fleet.feed(10..20);
        until("every partition stands still", || parked(&fleet).iter().all(Value::is_string));
        assert!(parked(&fleet).iter().all(|why| why.as_str().unwrap().contains("out of cheese")), "{:?}", parked(&fleet));
        let back = fleet.good(&["rollback", "NAME"]);
        assert_eq!(back["generation"], json!(3), "{back}");
        fleet.worked(0, 20, 1);
        until("nothing is parked", || parked(&fleet).iter().all(Value::is_null));
        fleet.stop();
    }
}
