//! Rows that change their type from one generation to the next: turned hot, under input, killed in the middle of the sweep; each ends as the newer type, once.
//! The newer plugin's `migration` is not idempotent (it doubles a total and adds one), so a row that went through it twice shows.

use super::{Place, text, until, until_within};
use millstream::io::LocalState;
use millstream::store::LocalFolder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PIPELINE: &str = "\
pipeline: NAME
sources: { in: { topic: NAME.in, schema: { n: int } } }
stages: [{ name: totals, plugin: ./old.wasm }]
sinks: [{ from: totals, topic: NAME.out }]
";
const KEYS: u64 = 12_000;
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: &str = "2";

fn place_of(place: Place) -> Place {
    for (name, component) in ["old", "next", "third"].into_iter().zip(crate::guests::totals()) {
        std::fs::write(place.path().join(format!("{name}.wasm")), component).unwrap();
        let manifest = place.named(&PIPELINE.replace("old.wasm", &format!("{name}.wasm")));
        std::fs::write(place.path().join(format!("{name}.yaml")), manifest).unwrap();
    }
    place.write(PIPELINE);
    for topic in ["NAME.in", "NAME.out"] {
        place.topic(topic, PARTITIONS);
    }
    place
}

/// One record for each key.
fn lines(keys: std::ops::Range<u64>, n: i64) -> String {
    keys.map(|key| format!("{{\"key\":\"k{key}\",\"value\":{{\"n\":{n}}}}}\n")).collect()
}

/// A host of the place's fleet, whose log is kept.
struct Host {
    child: Child,
    log: std::path::PathBuf,
}

impl Host {
    fn start(place: &Place, name: &str, fault: Option<&str>) -> Self {
        let log = place.path().join(format!("{name}.log"));
        let mut command = place.command(&["serve", "--fleet", "NAME", "--commit-interval", "50", "--checkpoint-interval", "500"]);
        command.env("MILLSTREAM_LOG", "info").stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        if let Some(fault) = fault {
            command.env("MILLSTREAM_FAULT", fault);
        }
        let host = Self { child: command.spawn().unwrap(), log };
        // Who deploys asks hosts that are known to live.
        until("the host lives", || {
            let status: Value =
                serde_json::from_slice(&place.call(&["status", "--fleet", "NAME", "--output", "json"]).stdout).unwrap_or_default();
            status["hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|known| known["pid"] == host.child.id()))
        });
        host
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn stop(mut self) {
        // By a signal, so that it commits and leaves.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{}", self.said());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn deploy(place: &Place, manifest: &str) -> (i32, Value) {
    let output = place.call(&["deploy", manifest, "--fleet", "NAME", "--output", "json"]);
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (output.status.code().unwrap_or(-1), told)
}

/// What came out, by key, in the order of counts: count, total, how often the row was migrated.
fn results(place: &Place) -> BTreeMap<String, Vec<(i64, i64, Option<i64>)>> {
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in place.consume("NAME.out") {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = &record["value"];
        let told = (value["count"].as_i64().unwrap(), value["total"].as_i64().unwrap(), value["turned"].as_i64());
        found.entry(record["key"].as_str().unwrap().to_owned()).or_default().push(told);
    }
    found
}

/// How many records there are of each key.
fn fed_by_key(place: &Place, keys: u64) -> Vec<u64> {
    let mut counts = vec![0; keys as usize];
    for line in place.consume("NAME.in") {
        let record: Value = serde_json::from_str(&line).unwrap();
        counts[number(record["key"].as_str().unwrap())] += 1;
    }
    counts
}

/// That `lines` made a key of.
fn number(key: &str) -> usize {
    key[1..].parse().unwrap()
}

/// Of each key, every record counts once, and its row was migrated once, between two of them.
fn check(found: &BTreeMap<String, Vec<(i64, i64, Option<i64>)>>, fed: &[u64]) {
    assert_eq!(found.len(), fed.len());
    for (key, told) in found {
        assert_eq!(told.len() as u64, fed[number(key)], "{key}: {told:?}");
        let mut before = 0;
        for (place, (count, total, turned)) in told.iter().enumerate() {
            assert_eq!(*count, place as i64 + 1, "{key}: {told:?}");
            let was_turned = place > 0 && told[place - 1].2.is_some();
            before = if turned.is_some() && !was_turned { 2 * before + 1 } else { before };
            before += 1;
            assert_eq!((*total, *turned), (before, turned.map(|_| 1)), "{key}: {told:?}");
        }
        assert!(told.last().is_some_and(|last| last.2 == Some(1)), "{key}: {told:?}");
    }
}

/// What is kept of the place's rows here, by task: the byte that tells their type.
fn first_bytes(place: &Place) -> Vec<u8> {
    let scan = |scan: &dyn Fn(i32) -> Vec<(Vec<u8>, Vec<u8>)>| -> Vec<u8> { (0..2).flat_map(scan).map(|(_, row)| row[0]).collect() };
    if place.brokers.is_some() {
        let local = LocalFolder::open(&place.path().join("data"), &place.name, None).unwrap();
        let state: &dyn LocalState = &local;
        scan(&|task| state.scan("totals", task, &[], None, usize::MAX).unwrap())
    } else {
        let state = place.log().state(&place.name).unwrap().unwrap();
        scan(&|task| state.scan("totals", task, &[], None, usize::MAX).unwrap())
    }
}

/// The type of the row that each live key of the changelog has, as its header tells.
fn versions(place: &Place) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for line in place.consume("NAME.totals.changelog") {
        let record: Value = serde_json::from_str(&line).unwrap();
        last.insert(record["key"].to_string(), record["headers"]["millstream.version"].as_str().unwrap_or_default().to_owned());
    }
    last
}

/// `fault`: where the first host dies; `patience`: how long each step may take.
fn each_row_is_migrated_once(place: Place, keys: u64, fault: &str, patience: Duration) {
    let place = place_of(place);
    let mut host = Host::start(&place, "first", Some(fault));
    let (code, told) = deploy(&place, "pipeline.yaml");
    assert!(code == 0 && told["state"] == "running", "{told} {}", host.said());
    place.produce("NAME.in", &lines(0..keys, 1));
    until_within(patience, "the first rows are written", || place.consume("NAME.out").len() as u64 == keys);

    // Records go on flowing while the generations change, the host dies, and another goes on.
    let (fed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let next = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // The process that holds the embedded log is killed: what it was asked for then may be there of one partition only.
                if place.try_to_produce("NAME.in", &lines(0..50, 1)).status.success() {
                    fed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (place, stop) = (&place, &stop);
        let (deployed, began) = (scope.spawn(move || deploy(place, "next.yaml")), Instant::now());
        let died = host.child.wait().unwrap();
        assert!(!died.success() && host.said().contains("MILLSTREAM_FAULT=sweeping"), "{}", host.said());
        let next = Host::start(place, "second", None);
        let (_, told) = deployed.join().unwrap();
        assert_eq!((&told["diff"]["class"], told["generation"].as_u64()), (&Value::from("hot"), Some(2)), "{told}");
        let irreversible = told["diff"]["irreversible"].as_str().unwrap_or_default();
        assert!(irreversible.contains("`totals`") && irreversible.contains("`migration`"), "{told}");
        until_within(patience, "both partitions are through", || next.said().matches("all rows are of the newest type").count() == 2);
        let before = fed.load(Ordering::Relaxed);
        eprintln!(
            "{keys} rows through {:.1} s after `deploy`, with a kill; meanwhile {} records came",
            began.elapsed().as_secs_f64(),
            50 * before
        );
        until_within(patience, "records flow", || fed.load(Ordering::Relaxed) > before);
        stop.store(true, Ordering::Relaxed);
        next
    });
    // What is read last of every key shows its row.
    place.produce("NAME.in", &lines(0..keys, 1));
    let counts = fed_by_key(&place, keys);
    let records: u64 = counts.iter().sum();
    until_within(patience, "all is processed", || place.consume("NAME.out").len() as u64 == records);
    next.stop();
    check(&results(&place), &counts);
    let bytes = first_bytes(&place);
    assert_eq!(bytes.len() as u64, keys);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "rows of several types are left");
    if place.brokers.is_some() {
        let versions = versions(&place);
        assert_eq!(versions.len() as u64, keys);
        let newest = r#"[["count","int"],["total","int"],["turned","int"]]"#;
        assert!(versions.values().all(|version| version == newest), "{:?}", versions.values().find(|version| *version != newest));
    }
}

#[test]
fn each_row_is_migrated_once_on_the_embedded_log() {
    each_row_is_migrated_once(Place::embedded(), KEYS, "sweeping:2", PATIENCE);
}

#[test]
fn each_row_is_migrated_once_on_kafka() {
    let Some(place) = Place::kafka() else { return };
    each_row_is_migrated_once(place, KEYS, "sweeping:2", PATIENCE);
}

/// Takes some minutes: `cargo test -p millstream --test it a_million_rows -- --ignored --nocapture`.
#[test]
#[ignore = "long"]
fn a_million_rows_are_migrated_once_on_kafka() {
    let Some(place) = Place::kafka() else { return };
    each_row_is_migrated_once(place, 1_000_000, "sweeping:100", Duration::from_secs(600));
}

#[test]
fn a_trap_in_a_migration_parks_the_partition_and_leaves_its_rows() {
    let place = place_of(Place::embedded());
    let host = Host::start(&place, "host", None);
    assert_eq!(deploy(&place, "pipeline.yaml").0, 0);
    place.produce("NAME.in", &[lines(0..10, 1), lines(3..4, -100)].concat());
    until("the rows are written", || place.consume("NAME.out").len() == 11);
    deploy(&place, "next.yaml");
    let mut status = String::new();
    until("the partition is parked", || {
        status = text(&place.call(&["status", "--fleet", "NAME", "--output", "json"]).stdout);
        status.contains("were not migrated")
    });
    assert!(status.contains("a total below 0") && status.contains("stage `totals`"), "{status}");
    // Rows of the first type are left, so a third, to which there is a way from the second alone, is refused before it touches any.
    let (code, told) = deploy(&place, "third.yaml");
    let told = told.to_string();
    assert!(code != 0 && told.contains("`turned` is added") && told.contains("millstream_migrating_tasks"), "{code} {told}");
    host.stop();
    let bytes = first_bytes(&place);
    // A partition without the row went on; of the other, none is newer.
    assert!(bytes.len() == 10 && bytes.iter().any(|byte| *byte < 0x10), "{bytes:?}");
    // The plugin before knows the rows that are left: by it the partition goes on.
    let host = Host::start(&place, "again", None);
    let (code, told) = deploy(&place, "pipeline.yaml");
    assert_eq!((code, &told["diff"]["class"]), (0, &Value::from("hot")), "{told}");
    place.produce("NAME.in", &lines(3..4, 1));
    until("the record is processed", || place.consume("NAME.out").len() == 12);
    assert_eq!(results(&place)["k3"], [(1, 1, None), (2, -99, None), (3, -98, None)], "{}", host.said());
}

#[test]
fn at_least_once_has_no_migration() {
    let place = place_of(Place::embedded());
    for manifest in ["pipeline.yaml", "next.yaml"] {
        let path = place.path().join(manifest);
        let manifest = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{manifest}guarantee: at-least-once\n")).unwrap();
    }
    assert_eq!(deploy(&place, "pipeline.yaml").0, 0);
    let (code, told) = deploy(&place, "next.yaml");
    assert!(code != 0 && told.to_string().contains("at-least-once"), "{code} {told}");
    // Without a fleet, the same.
    place.produce("NAME.in", &lines(0..10, 1));
    assert_eq!(place.run_well(&["--limit", "10"]), 10);
    std::fs::copy(place.path().join("next.yaml"), place.path().join("pipeline.yaml")).unwrap();
    let output = place.run(&[]);
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success() && told.contains("at-least-once") && told.contains("`totals`"), "{told}");
}
