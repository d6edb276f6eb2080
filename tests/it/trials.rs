//! Canaries and shadows of a real host, on the embedded log: what is promoted or rolled back by itself, what is told of it, and where each record comes from.

use crate::guests;
use crate::program::millstream;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Fleet {
    folder: tempfile::TempDir,
    host: Child,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

impl Fleet {
    /// A host, and a topic `in` of two partitions.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = millstream(folder.path()).args(["serve", "--commit-interval", "20"]).stderr(Stdio::null()).spawn().unwrap();
        let fleet = Self { folder, host };
        fleet.until("the host lives", || fleet.call(&["status"]).1["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()));
        fleet.good(&["topic", "create", "in", "--partitions", "2"]);
        fleet
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn call(&self, args: &[&str]) -> (i32, Json, String) {
        let output = millstream(self.path()).args(args).args(["--output", "json"]).output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), json, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[track_caller]
    fn good(&self, args: &[&str]) -> Json {
        let (code, json, error) = self.call(args);
        assert_eq!(code, 0, "{args:?}: {json} {error}");
        json
    }

    #[track_caller]
    fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let since = Instant::now();
        while !is() {
            assert!(
                since.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}: {} {}",
                self.call(&["status"]).1,
                self.call(&["history", "p"]).1
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn deploy(&self, manifest: &str, args: &[&str]) -> Json {
        std::fs::write(self.path().join("p.yaml"), manifest).unwrap();
        self.good(&[&["deploy", "p.yaml"], args].concat())
    }

    /// Ends the trial.
    fn end_trial(&self) {
        self.good(&["rollback", "p"]);
    }

    /// Records with these numbers, each key in the partition of its own.
    fn produce(&self, numbers: std::ops::Range<u64>) {
        let line = |number: u64| format!("{{\"key\":\"k{}\",\"value\":{{\"id\":{number},\"n\":1}},\"timestamp\":{number}}}\n", number % 7);
        self.produce_lines(&numbers.map(line).collect::<String>());
    }

    fn produce_lines(&self, lines: &str) {
        let mut child = millstream(self.path()).args(["produce", "in"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Everything in a topic, as JSON lines.
    fn consume(&self, topic: &str) -> Vec<Json> {
        let output = millstream(self.path()).args(["consume", topic, "--until-end"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn until_done(&self) {
        self.until("no lag", || {
            let status = self.call(&["status", "p"]).1;
            let partitions = status["pipelines"][0]["partitions"].as_array().cloned().unwrap_or_default();
            !partitions.is_empty() && partitions.iter().all(|at| at["lag"] == 0)
        });
    }

    /// By partition of `in`: the generations with the offsets at which they began.
    fn cuts(&self) -> BTreeMap<i64, BTreeMap<i64, u64>> {
        let mut cuts: BTreeMap<i64, BTreeMap<i64, u64>> = BTreeMap::new();
        for generation in self.good(&["history", "p"])["generations"].as_array().unwrap() {
            for cut in generation["cuts"].as_array().unwrap().iter().filter(|cut| cut["topic"] == "in") {
                let place = cuts.entry(cut["partition"].as_i64().unwrap()).or_default();
                // Of two that began at one offset, the later one worked.
                place.insert(cut["offset"].as_i64().unwrap(), generation["generation"].as_u64().unwrap());
            }
        }
        cuts
    }
}

fn header<'j>(record: &'j Json, name: &str) -> &'j str {
    let headers = record["headers"].as_object().unwrap_or_else(|| panic!("{record} has no headers"));
    headers[name].as_str().unwrap_or_else(|| panic!("{record}"))
}

/// A stage that writes `version`, and a count by key.
fn manifest(version: &str) -> String {
    format!(
        "pipeline: p
sources: {{ in: {{ topic: in, schema: {{ id: int, n: int }} }} }}
stages:
  - {{ name: label, plugin: map, on_error: skip, with: {{ set: {{ version: '{version}' }} }} }}
  - {{ name: count, plugin: aggregate, from: label, with: {{ compute: {{ n: count(), last: last(id) }} }} }}
sinks:
  - {{ from: label, topic: labelled, provenance: true }}
  - {{ from: count, topic: counted }}
"
    )
}

#[test]
fn a_canary_that_fails_on_some_records_is_rolled_back_by_itself_and_each_record_tells_its_generation() {
    let fleet = Fleet::new();
    fleet.deploy(&manifest("1"), &[]);
    fleet.produce(0..700);
    // One record in fifty is refused.
    let told = fleet.deploy(&manifest("2 + 10 / (id % 50)"), &["--canary", "1", "--promote-after", "never"]);
    assert_eq!(told["trial"]["canary"]["partitions"], serde_json::json!([1]));
    let (code, refused, _) = fleet.call(&["deploy", "p.yaml", "--canary", "0"]);
    assert!(code != 0 && refused.to_string().contains("on trial") || refused["state"] == "unchanged", "{refused}");
    let mut next = 700;
    fleet.until("the canary is rolled back", || {
        fleet.produce(next..next + 350);
        next += 350;
        fleet.call(&["history", "p"]).1["generations"].as_array().is_some_and(|all| all.len() == 3)
    });
    fleet.produce(next..next + 100);
    next += 100;
    fleet.until_done();
    let history = fleet.good(&["history", "p"]);
    let withdrawn = history["generations"][1]["withdrawn"].as_str().unwrap();
    assert!(withdrawn.contains("rolled back") && withdrawn.contains("were refused"), "{withdrawn}");
    assert!(history["generations"][2]["active"] == true, "{history}");

    let cuts = fleet.cuts();
    assert_eq!(cuts[&0].len(), 2, "partition 0 was never in the canary: {cuts:?}");
    assert_eq!(cuts[&1].len(), 3, "{cuts:?}");
    let mut seen = 0;
    let mut of_canary = 0;
    for record in fleet.consume("labelled") {
        let (at, offset) = header(&record, "millstream.source").rsplit_once('@').unwrap();
        let partition: i64 = at.rsplit_once('/').unwrap().1.parse().unwrap();
        let expected = cuts[&partition].range(..=offset.parse::<i64>().unwrap()).next_back().unwrap().1;
        assert_eq!(header(&record, "millstream.generation"), expected.to_string(), "{record} {cuts:?}");
        let version = record["value"]["version"].as_i64().unwrap();
        assert_eq!(version == 1, *expected != 2, "{record}");
        of_canary += u64::from(*expected == 2);
        seen += 1;
    }
    assert!(of_canary > 0, "{cuts:?}");
    // Only what the canary refused is missing.
    let refused = next - seen;
    assert!((1..=next / 50 + 1).contains(&refused), "{refused} of {next}");
    let counted: u64 = fleet
        .consume("counted")
        .iter()
        .map(|record| (record["key"].as_str().unwrap().to_owned(), record["value"]["n"].as_u64().unwrap()))
        .collect::<BTreeMap<_, _>>()
        .values()
        .sum();
    assert_eq!(counted, seen, "each record counts once, whichever generation took it");

    // Where a record of the canary comes from.
    let record = fleet.consume("labelled").into_iter().find(|record| header(record, "millstream.generation") == "2").unwrap();
    let place = format!("labelled/{}@{}", record["partition"], record["offset"]);
    let why = fleet.good(&["why", &place, "--show"]);
    assert_eq!((why["generation"].as_u64(), why["source_is_there"].as_bool()), (Some(2), Some(true)), "{why}");
    assert!(why["plugins"][0].as_str().unwrap().starts_with("label=map@"), "{why}");
    assert_eq!(why["source_value"]["value"]["id"], record["value"]["id"], "{why}");
    let (code, refused, _) = fleet.call(&["why", "counted/0@0"]);
    assert!(code == 1 && refused.to_string().contains("provenance: true"), "{refused}");
}

#[test]
fn a_canary_that_gives_something_else_is_rolled_back_by_itself_with_the_field_that_differs() {
    let fleet = Fleet::new();
    fleet.deploy(&manifest("1"), &[]);
    fleet.produce(0..700);
    fleet.until_done();
    // Of one record in ten something else comes, which is less than what is allowed. The count is kept by both, and is the same.
    let other = manifest("1 + (id % 10) / 9").replace("last(id)", "max(id)");
    let told = fleet.deploy(&other, &["--canary", "1", "--promote-after", "never", "--max-differences", "20%"]);
    assert_eq!(told["trial"]["canary"]["terms"]["differences"], 0.2, "{told}");
    let mut next = 700;
    let compared = || fleet.call(&["status", "p"]).1["pipelines"][0]["shadow"].clone();
    fleet.until("the canary is compared", || {
        fleet.produce(next..next + 350);
        next += 350;
        compared()["records"].as_u64() >= Some(500)
    });
    let report = compared();
    assert_eq!(report["differences"].as_object().unwrap().keys().collect::<Vec<_>>(), ["labelled: version"], "{report}");
    let (records, differing) = (report["records"].as_u64().unwrap(), report["differing"].as_u64().unwrap());
    assert!((records / 20..records / 5).contains(&differing), "{report}");
    let example = report["differences"]["labelled: version"]["examples"][0].as_str().unwrap();
    assert!(example.starts_with("in/1@"), "only the canary's partition is compared: {report}");
    fleet.good(&["promote", "p"]);
    fleet.produce(next..next + 100);
    next += 100;
    fleet.until_done();
    assert!(compared().is_null());

    // The same again with less allowed.
    let third = manifest("(id % 10) / 9 + (id % 5) / 4");
    fleet.deploy(&third, &["--canary", "0", "--promote-after", "never", "--max-differences", "5%"]);
    fleet.until("the canary is rolled back", || {
        fleet.produce(next..next + 350);
        next += 350;
        fleet.call(&["history", "p"]).1["generations"].as_array().is_some_and(|all| all.len() == 4)
    });
    fleet.until_done();
    let history = fleet.good(&["history", "p"]);
    let withdrawn = history["generations"][2]["withdrawn"].as_str().unwrap();
    assert!(withdrawn.contains("something else came than beside it") && withdrawn.contains("5.00 % are allowed"), "{withdrawn}");
    let (_, field) = withdrawn.split_once("are allowed: labelled: version: ").unwrap_or_else(|| panic!("{withdrawn}"));
    assert!(field.contains("in/0@"), "{withdrawn}");
    // What was written is of the generation that worked there, and nothing is counted twice.
    let cuts = fleet.cuts();
    for record in fleet.consume("labelled") {
        let (at, offset) = header(&record, "millstream.source").rsplit_once('@').unwrap();
        let partition: i64 = at.rsplit_once('/').unwrap().1.parse().unwrap();
        let expected = cuts[&partition].range(..=offset.parse::<i64>().unwrap()).next_back().unwrap().1;
        assert_eq!(header(&record, "millstream.generation"), expected.to_string(), "{record} {cuts:?}");
    }
    let last: BTreeMap<String, u64> = fleet
        .consume("counted")
        .iter()
        .map(|record| (record["key"].as_str().unwrap().to_owned(), record["value"]["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(last.values().sum::<u64>(), next);
    assert_eq!(fleet.consume("labelled").len() as u64, next);

    // One that gives the same is promoted by itself.
    fleet.deploy(&other.replace("max(id)", "last(id)"), &["--canary", "1", "--promote-after", "1s", "--max-differences", "0%"]);
    fleet.until("it is promoted", || {
        fleet.produce(next..next + 100);
        next += 100;
        fleet.call(&["status", "p"]).1["pipelines"][0]["active"]["generation"] == 5
    });
}

/// By partition of `in`: each generation with the offset from which on it worked, for all keys or for some before that.
fn cuts_with_keys(fleet: &Fleet) -> BTreeMap<i64, Vec<(u64, Option<i64>, Option<i64>)>> {
    let mut cuts: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for generation in fleet.good(&["history", "p"])["generations"].as_array().unwrap() {
        for cut in generation["cuts"].as_array().unwrap().iter().filter(|cut| cut["topic"] == "in") {
            let (offset, tried) = (cut["offset"].as_i64(), cut["tried"]["offset"].as_i64());
            let (some, all) = if cut["keys"].is_null() { (tried, offset) } else { (offset, None) };
            cuts.entry(cut["partition"].as_i64().unwrap()).or_default().push((generation["generation"].as_u64().unwrap(), some, all));
        }
    }
    cuts
}

#[test]
fn a_canary_for_some_keys_has_their_records_alone_until_it_is_promoted_or_rolled_back() {
    let fleet = Fleet::new();
    fleet.deploy(&manifest("1"), &[]);
    fleet.produce(0..700);
    fleet.until_done();
    let told = fleet.deploy(&manifest("2"), &["--canary", "keys=50%", "--promote-after", "never"]);
    assert_eq!(told["trial"]["canary"]["partitions"], serde_json::json!([0, 1]), "{told}");
    assert!(told["cuts"].as_array().unwrap().iter().all(|cut| cut["keys"] == 0.5), "{told}");
    fleet.produce(700..1400);
    fleet.until_done();
    let status = fleet.good(&["status", "p"]);
    for place in status["pipelines"][0]["partitions"].as_array().unwrap() {
        assert_eq!((&place["generation"], &place["keys"], &place["beside"]), (&2.into(), &0.5.into(), &1.into()), "{status}");
    }
    fleet.good(&["promote", "p"]);
    fleet.produce(1400..2100);
    fleet.until_done();
    // And one that is rolled back, by itself: it stops at a record, which is then processed by what works beside it.
    fleet.deploy(&manifest("3 + 0 / (id % 50)").replace("on_error: skip, ", ""), &["--canary", "keys=50%", "--promote-after", "never"]);
    let mut next = 2100;
    fleet.until("the canary is rolled back", || {
        fleet.produce(next..next + 350);
        next += 350;
        fleet.call(&["history", "p"]).1["generations"].as_array().is_some_and(|all| all.len() == 4)
    });
    fleet.produce(next..next + 70);
    next += 70;
    fleet.until_done();
    let history = fleet.good(&["history", "p"]);
    assert!(history["generations"][2]["withdrawn"].as_str().unwrap().contains("rolled back"), "{history}");

    let cuts = cuts_with_keys(&fleet);
    for (partition, cuts) in &cuts {
        let [(1, None, Some(0)), (2, Some(some), Some(all)), (3, Some(third), None), (4, None, Some(fourth))] = cuts[..] else {
            panic!("partition {partition}: {cuts:?}");
        };
        assert!(0 < some && some < all && all <= third && third <= fourth, "{cuts:?}");
    }
    // By key: the generations that made its records while one was tried. It is one for each key, and not the same for all.
    let mut of_keys: [BTreeMap<String, std::collections::BTreeSet<u64>>; 2] = Default::default();
    let mut last = BTreeMap::new();
    let all = fleet.consume("labelled");
    assert_eq!(all.len() as u64, next, "each record once");
    for record in all {
        let (at, offset) = header(&record, "millstream.source").rsplit_once('@').unwrap();
        let (partition, offset): (i64, i64) = (at.rsplit_once('/').unwrap().1.parse().unwrap(), offset.parse().unwrap());
        let generation: u64 = header(&record, "millstream.generation").parse().unwrap();
        let version = record["value"]["version"].as_u64().unwrap();
        assert_eq!(version, if generation == 4 { 2 } else { generation }, "{record}");
        let (whole, _, _) = *cuts[&partition].iter().rev().find(|(.., all)| all.is_some_and(|all| all <= offset)).unwrap();
        let tried = cuts[&partition].iter().find(|(number, some, _)| *number == whole + 1 && some.is_some_and(|some| some <= offset));
        let key = record["key"].as_str().unwrap().to_owned();
        match tried {
            Some((tried, ..)) => {
                assert!(generation == whole || generation == *tried, "{record} {cuts:?}");
                of_keys[usize::from(*tried == 3)].entry(key.clone()).or_default().insert(generation);
            }
            None => assert_eq!(generation, whole, "{record} {cuts:?}"),
        }
        // A key's records stay in order.
        let id = record["value"]["id"].as_u64().unwrap();
        assert!(last.insert(key, id).is_none_or(|before| before < id), "{record}");
    }
    for by_key in &of_keys[..1] {
        assert!(by_key.values().all(|by| by.len() == 1), "{by_key:?}");
        assert_eq!(by_key.values().flatten().collect::<std::collections::BTreeSet<_>>().len(), 2, "{by_key:?}");
    }
    // The same keys, whichever the generation.
    for (key, by) in &of_keys[1] {
        assert!(by.len() == 1, "{key}: {by:?}");
        assert_eq!(by.contains(&3), of_keys[0][key].contains(&2), "{of_keys:?}");
    }
    let counts: BTreeMap<String, u64> = fleet
        .consume("counted")
        .iter()
        .map(|record| (record["key"].as_str().unwrap().to_owned(), record["value"]["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts.values().sum::<u64>(), next, "rows are of both generations");

    // What cannot be divided is refused, with the reason and another way.
    let refused = |manifest: &str, why: &str| {
        std::fs::write(fleet.path().join("p.yaml"), manifest).unwrap();
        let (code, refused, error) = fleet.call(&["deploy", "p.yaml", "--canary", "keys=50%"]);
        assert!(code == 11 && refused.to_string().contains(why), "{code} {refused} {error}");
        assert!(refused.to_string().contains("some partitions (--canary 25%)"), "{refused}");
    };
    refused(&manifest("4").replace("last: last(id)", "last: last(id), most: max(id)"), "the rows of stage `count`");
    for (name, with, why) in
        [("q", "window: { tumbling: 1h }", "stage `count` has windows"), ("r", "group_by: [id]", "something else than the record's key")]
    {
        let other = |version| {
            manifest(version).replace("pipeline: p", &format!("pipeline: {name}")).replace("{ compute", &format!("{{ {with}, compute"))
        };
        fleet.deploy(&other("1"), &[]);
        refused(&other("2"), why);
    }
    let (code, refused, error) = fleet.call(&["deploy", "p.yaml", "--canary", "keys=0%"]);
    assert!(code == 2 && refused["error"].to_string().contains("keys=10%"), "{code} {refused} {error}");
}

/// What two topics hold, without where each stood among the others.
fn outputs(fleet: &Fleet) -> Vec<String> {
    let mut all = Vec::new();
    for topic in ["labelled", "counted"] {
        let records =
            fleet.consume(topic).into_iter().map(|record| format!("{topic} {} {} {}", record["partition"], record["key"], record["value"]));
        all.extend(records);
    }
    all.sort();
    all
}

/// The same records on each.
fn process<const N: usize>(fleets: [&Fleet; N], numbers: std::ops::Range<u64>) {
    for fleet in fleets {
        fleet.produce(numbers.clone());
        fleet.until_done();
    }
}

#[test]
fn a_shadow_tells_exactly_what_differs_and_touches_nothing() {
    let (with, without) = (Fleet::new(), Fleet::new());
    for fleet in [&with, &without] {
        fleet.deploy(&manifest("1"), &[]);
        fleet.produce(0..500);
        fleet.until_done();
    }
    let other = manifest("1 + id % 2").replace("last(id)", "max(id)");
    let told = with.deploy(&other, &["--shadow"]);
    assert!(told["trial"]["shadow"].is_object(), "{told}");
    process([&with, &without], 500..1500);
    with.until("all is compared", || with.call(&["status", "p"]).1["pipelines"][0]["shadow"]["records"].as_u64() >= Some(1000));
    let shadow = with.good(&["status", "p"])["pipelines"][0]["shadow"].clone();
    let differences = shadow["differences"].as_object().unwrap();
    assert_eq!(differences.keys().collect::<Vec<_>>(), ["labelled: version"], "{shadow}");
    assert_eq!(differences["labelled: version"]["count"], 500, "{shadow}");
    assert_eq!(outputs(&with), outputs(&without), "what is written is as without a shadow");
    // It goes without a trace.
    with.good(&["rollback", "p"]);
    assert_eq!(with.good(&["status", "p"])["pipelines"][0]["active"]["generation"], 1);

    // One that gives the same is promoted by itself, and keeps the state.
    let same = manifest("1").replace("last(id)", "max(id)");
    with.deploy(&same, &["--shadow", "--promote-after-records", "200"]);
    let mut next = 1500;
    with.until("it is promoted", || {
        with.produce(next..next + 100);
        next += 100;
        with.call(&["status", "p"]).1["pipelines"][0]["active"]["generation"] == 3
    });
    with.until_done();
    with.produce(next..next + 100);
    with.until_done();
    without.produce(1500..next + 100);
    without.until_done();
    assert_eq!(outputs(&with), outputs(&without));
    assert!(with.cuts().values().all(|cuts| cuts.values().last() == Some(&3)), "{:?}", with.cuts());
}

impl Fleet {
    /// What was compared, once so many records were.
    fn compared(&self, records: u64) -> Json {
        let shadow = |fleet: &Self| fleet.call(&["status", "p"]).1["pipelines"][0]["shadow"].clone();
        self.until("all is compared", || shadow(self)["records"].as_u64() >= Some(records));
        shadow(self)
    }
}

#[test]
fn a_shadow_gives_out_what_changed_at_each_commit_too() {
    let (with, without) = (Fleet::new(), Fleet::new());
    let manifest = |version: &str, last: &str| {
        format!(
            "pipeline: p
sources: {{ in: {{ topic: in, schema: {{ id: int, n: int }} }} }}
stages:
  - {{ name: label, plugin: map, with: {{ set: {{ version: '{version}' }} }} }}
  - {{ name: count, plugin: aggregate, with: {{ emit: changes, compute: {{ n: count(), last: {last}(id), version: last(version) }} }} }}
sinks:
  - {{ from: label, topic: labelled }}
  - {{ from: count, topic: counted }}
"
        )
    };
    for fleet in [&with, &without] {
        fleet.deploy(&manifest("1", "last"), &[]);
        fleet.produce(0..500);
        fleet.until_done();
    }
    with.deploy(&manifest("id == 1491 ? 2 : 1", "max"), &["--shadow"]);
    process([&with, &without], 500..1500);
    let shadow = with.compared(1000);
    let told: Vec<_> = shadow["differences"].as_object().unwrap().iter().map(|(what, it)| format!("{what} {}", it["count"])).collect();
    // The key of that record has three more, perhaps before the commit that tells of it.
    assert!(told == ["labelled: version 1"] || told == ["counted: version 1", "labelled: version 1"], "{shadow}");
    with.produce(1500..1507);
    without.produce(1500..1507);
    with.end_trial();
    // One whose last record of a key differs for good: each commit tells so, of that key alone.
    with.deploy(&manifest("id % 7 == 3 ? 2 : 1", "max"), &["--shadow"]);
    process([&with, &without], 1507..2507);
    let shadow = with.compared(1000);
    let differences = &shadow["differences"];
    assert_eq!(differences.as_object().unwrap().keys().collect::<Vec<_>>(), ["counted: version", "labelled: version"], "{shadow}");
    let (commits, records) = (differences["counted: version"]["count"].as_u64(), differences["labelled: version"]["count"].as_u64());
    assert!(commits > Some(0) && commits <= records && records == Some(143), "{shadow}");
    with.end_trial();
    with.deploy(&manifest("1", "max"), &["--shadow", "--promote-after-records", "200"]);
    let mut next = 2507;
    with.until("it is promoted", || {
        with.produce(next..next + 100);
        next += 100;
        with.call(&["status", "p"]).1["pipelines"][0]["active"]["generation"] == 4
    });
    with.until_done();
    process([&without], 2507..next);
    // How many commits there were is chance: the last change of each key is not.
    let last = |fleet: &Fleet| -> BTreeMap<String, Json> {
        fleet.consume("counted").into_iter().map(|record| (record["key"].to_string(), record["value"].clone())).collect()
    };
    assert_eq!(last(&with), last(&without));
}

#[test]
fn a_shadow_has_timers_of_its_own() {
    let (with, without) = (Fleet::new(), Fleet::new());
    let manifest = |tag: &str| {
        format!(
            "pipeline: p
sources: {{ in: {{ topic: in, schema: {{ id: int, n: int }} }} }}
stages:
  - {{ name: visits, plugin: ./timers.wasm }}
  - {{ name: tagged, plugin: map, with: {{ set: {{ tag: '{tag}' }} }} }}
sinks:
  - {{ from: tagged, topic: told }}
"
        )
    };
    // A visit ends a second behind its last record; some records come later than that.
    let produce = |fleet: &Fleet, numbers: std::ops::Range<u64>| {
        let line = |number: u64| {
            let time = number * 60 + number / 25 * 1500;
            format!("{{\"key\":\"k{}\",\"value\":{{\"id\":{number},\"n\":{}}},\"timestamp\":{time}}}\n", number * 5 % 7, number % 4)
        };
        fleet.produce_lines(&numbers.map(line).collect::<String>());
    };
    let ends = |fleet: &Fleet| fleet.consume("told").iter().filter(|record| record["value"]["what"] == "end").count() as u64;
    for fleet in [&with, &without] {
        std::fs::write(fleet.path().join("timers.wasm"), guests::timers()).unwrap();
        fleet.deploy(&manifest("\"told\""), &[]);
        produce(fleet, 0..310);
        fleet.until_done();
    }
    let before = ends(&with);
    with.deploy(&manifest("what == \"end\" ? \"end\" : \"told\""), &["--shadow"]);
    for fleet in [&with, &without] {
        produce(fleet, 310..900);
        fleet.until_done();
    }
    let (shadow, ended) = (with.compared(590), ends(&with) - before);
    assert!(ended > 50, "{ended}");
    let differences = shadow["differences"].as_object().unwrap();
    assert_eq!(differences.keys().collect::<Vec<_>>(), ["told: tag"], "{shadow}");
    assert_eq!(differences["told: tag"]["count"], ended, "{shadow}");
    with.end_trial();
    with.deploy(&manifest("\"to\" + \"ld\""), &["--shadow", "--promote-after-records", "200"]);
    let mut next = 900;
    with.until("it is promoted", || {
        produce(&with, next..next + 100);
        next += 100;
        with.call(&["status", "p"]).1["pipelines"][0]["active"]["generation"] == 3
    });
    with.until_done();
    produce(&without, 900..next);
    without.until_done();
    let told = |fleet: &Fleet| -> Vec<String> {
        let mut told: Vec<_> = fleet
            .consume("told")
            .into_iter()
            .map(|record| format!("{} {} {}", record["key"], record["timestamp"], record["value"]))
            .collect();
        told.sort();
        told
    };
    assert_eq!(told(&with), told(&without), "what is written is as without a shadow");
}

#[test]
fn records_are_replayed_by_any_generation_and_nothing_is_written() {
    let fleet = Fleet::new();
    let stateless = |version: &str| manifest(version).lines().filter(|line| !line.contains("count")).collect::<Vec<_>>().join("\n");
    fleet.deploy(&stateless("1"), &[]);
    fleet.produce(0..100);
    fleet.until_done();
    fleet.deploy(&stateless("2"), &[]);
    let replay = |args: &[&str]| {
        let output = millstream(fleet.path()).args(["replay", "p", "--from", "in/0@3", "--count", "2"]).args(args).output().unwrap();
        let lines: Vec<Json> = String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (output.status.code(), lines, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, version) in [(&[][..], 2), (&["--generation", "1"][..], 1)] {
        let (code, lines, error) = replay(args);
        assert_eq!(code, Some(0), "{error}");
        assert_eq!(lines.iter().map(|line| line["value"]["version"].as_i64()).collect::<Vec<_>>(), [Some(version); 2], "{lines:?}");
    }
    assert_eq!(fleet.consume("labelled").len(), 100);
    let (code, _, error) = replay(&["--generation", "9"]);
    assert!(code == Some(1) && error.contains("no generation 9"), "{error}");
    fleet.deploy(&manifest("3"), &["--allow", "state", "--allow", "windows"]);
    // The inputs hold everything, so with state too; what earlier generations made of it is not in it, which is told.
    let (code, lines, error) = replay(&[]);
    assert!(code == Some(0) && error.contains("by the generations 1 from offset 0") && error.contains("generation 3 gives"), "{error}");
    let counts: Vec<_> = lines.iter().filter_map(|line| line["value"]["last"].as_i64().and(line["value"]["n"].as_i64())).collect();
    assert!(counts.len() == 2 && counts.iter().any(|n| *n > 1), "{lines:?}");
    let (code, lines, error) = replay(&["--state", "empty"]);
    let counts: Vec<_> = lines.iter().filter_map(|line| line["value"]["last"].as_i64().and(line["value"]["n"].as_i64())).collect();
    assert!(code == Some(0) && error.contains("without state") && counts == [1, 1], "{lines:?} {error}");
}

#[test]
fn a_reset_goes_on_from_other_positions_with_the_state_or_without() {
    let fleet = Fleet::new();
    fleet.deploy(&manifest("1"), &[]);
    fleet.produce(0..70);
    fleet.until_done();
    // By key, the last count that was given.
    let counts = || {
        let last = fleet
            .consume("counted")
            .into_iter()
            .map(|record| (record["key"].as_str().unwrap().to_owned(), record["value"]["n"].as_u64().unwrap()));
        let last: BTreeMap<String, u64> = last.collect();
        assert_eq!(last.len(), 7);
        last.into_values().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(counts(), [10]);
    let (code, refused, _) = fleet.call(&["reset", "p", "--to", "earliest"]);
    assert!(code == 1 && refused.to_string().contains("--state keep"), "{refused}");
    let (code, refused, _) = fleet.call(&["reset", "p", "--offset", "in/0@9999", "--state", "keep"]);
    assert!(code == 1 && refused.to_string().contains("cannot go on at 9999"), "{refused}");
    let dry = fleet.good(&["reset", "p", "--to", "earliest", "--state", "clear", "--dry-run"]);
    assert!(dry["generation"].is_null() && dry["positions"].as_array().unwrap().len() == 2, "{dry}");

    let reset = fleet.good(&["reset", "p", "--to", "earliest", "--state", "clear"]);
    assert_eq!((reset["generation"].as_u64(), reset["cleared"].as_bool()), (Some(2), Some(true)), "{reset}");
    fleet.until("all is read again", || fleet.consume("counted").len() == 140);
    assert_eq!(counts(), [10], "from nothing");
    fleet.good(&["reset", "p", "--to", "earliest", "--state", "keep"]);
    fleet.until("all is read again", || fleet.consume("counted").len() == 210);
    assert_eq!(counts(), [20], "on top of what was there");
    fleet.until_done();
    fleet.good(&["reset", "p", "--to", "latest", "--state", "keep"]);
    fleet.produce(70..77);
    fleet.until("what is new is read", || fleet.consume("counted").len() == 217);
    assert_eq!(counts(), [21]);
    assert!(fleet.cuts().values().all(|cuts| cuts.values().last() == Some(&4)), "{:?}", fleet.cuts());
}
