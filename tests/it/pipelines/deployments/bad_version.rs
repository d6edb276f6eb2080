//! A new version that cannot run, and hosts that come with nothing.

use super::{Fleet, Place, SERVE, answer, until};
use crate::pipelines::crash_suite::host::Host;
use serde_json::{Value, json};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
tables:
  users: { topic: NAME.users, schema: { id: int } }
stages:
  - { name: mine, plugin: ./mine.wasm, with: WITH }
  - { name: stamp, plugin: map, with: { set: { v: VERSION } } }
sinks:
  - { from: stamp, topic: NAME.out }
";

const WELL: &str = "{ mode: Identity }";

fn write(place: &Place, with: &str, version: &str) {
    std::fs::write(place.path().join("mine.wasm"), crate::guests::hostile()).unwrap();
    place.write(&MANIFEST.replace("WITH", with).replace("VERSION", version));
}

#[test]
fn a_bad_new_version_never_touches_the_one_that_runs() {
    for mut fleet in Fleet::each() {
        fleet.place.topic("NAME.users", "1");
        // Where there are several hosts, one of them has what the other has not.
        if let [_, second] = &mut fleet.hosts[..] {
            second.variables.push(("MILLSTREAM_SECRET_PEPPER", "hot".to_owned()));
        }
        let fleet = fleet.start();
        write(&fleet.place, WELL, "'1'");
        fleet.good(&["deploy", "pipeline.yaml"]);
        let mut records = 10;
        fleet.feed(0..records);
        fleet.worked(0, records, 1);

        let mut withdrawn = 0;
        // By a host, beside what runs: the plugin traps where it starts, says no, or is to have what the host has not.
        let secret = "{ mode: Identity, salt: { secret: pepper } }";
        for (with, says) in [
            ("{ mode: PanicInit }", &["stage `mine`", "in init"][..]),
            ("{ mode: FailInit }", &["stage `mine`", "no such list"]),
            (secret, &["stage `mine`", "`pepper`", "MILLSTREAM_SECRET_PEPPER"]),
        ] {
            write(&fleet.place, with, "'2'");
            fleet.bad(&["deploy", "pipeline.yaml"], 9, &[says, &["was withdrawn: host"]].concat());
            withdrawn += 1;
            records = goes_on(&fleet, records, withdrawn);
        }
        // Before any host is asked: mistakes of the file, of the types, of the component.
        write(&fleet.place, WELL, "'a + 1'");
        fleet.bad(&["deploy", "pipeline.yaml"], 3, &["not defined for text and int"]);
        write(&fleet.place, "{ mode: MistakesDescribe }", "'2'");
        fleet.bad(&["deploy", "pipeline.yaml"], 3, &["wrong"]);
        std::fs::write(fleet.place.path().join("mine.wasm"), "no component").unwrap();
        fleet.bad(&["deploy", "pipeline.yaml"], 3, &["mine.wasm"]);
        fleet.bad(&["swap", "NAME", "mine", "./mine.wasm"], 1, &["./mine.wasm cannot be used"]);
        records = goes_on(&fleet, records, withdrawn);

        // A good one is none the worse for it.
        write(&fleet.place, WELL, "'2'");
        let deployed = fleet.good(&["deploy", "pipeline.yaml"]);
        assert_eq!((&deployed["state"], &deployed["diff"]["class"]), (&json!("running"), &json!("hot")), "{deployed}");
        fleet.feed(records..records + 10);
        fleet.worked(records, records + 10, 2);
        fleet.stop();
    }
}

/// The first generation is the one that works, as if nothing had been; so many were withdrawn. Answers how many records there are then.
fn goes_on(fleet: &Fleet, records: u64, withdrawn: usize) -> u64 {
    let end = records + 10;
    fleet.feed(records..end);
    fleet.worked(0, end, 1);
    let status = fleet.status();
    assert!(status["active"]["generation"] == 1 && status["next"].is_null(), "{status}");
    let places = status["partitions"].as_array().unwrap();
    assert!(places.iter().all(|place| place["generation"] == 1 && place["parked"].is_null()), "{status}");
    let history = fleet.good(&["history", "NAME"]);
    let generations = history["generations"].as_array().unwrap();
    assert_eq!(generations.iter().filter(|one| one["withdrawn"].is_string()).count(), withdrawn, "{history}");
    let cuts = |one: &Value| one["cuts"].as_array().is_some_and(|cuts| !cuts.is_empty());
    assert!(generations.iter().all(|one| cuts(one) == (one["generation"] == 1)), "only the first has ever worked: {history}");
    end
}

#[test]
fn of_two_deploys_at_once_one_wins() {
    for fleet in Fleet::each() {
        fleet.place.topic("NAME.users", "1");
        let fleet = fleet.start();
        write(&fleet.place, WELL, "'1'");
        fleet.good(&["deploy", "pipeline.yaml"]);
        let (mut version, mut records, mut conflicts) = (1, 0, 0);
        // A command that starts late may find the other at its end, and be right to come second.
        for round in 0..8 {
            let file = |version: u64| format!("version-{version}.yaml");
            let versions = [version + 1, version + 2];
            for version in versions {
                write(&fleet.place, WELL, &format!("'{version}'"));
                std::fs::rename(fleet.place.path().join("pipeline.yaml"), fleet.place.path().join(file(version))).unwrap();
            }
            let commands = versions.map(|version| {
                (version, fleet.place.command(&["deploy", &file(version), "--fleet", "NAME", "--output", "json"]).spawn().unwrap())
            });
            let mut ended = commands.map(|(version, command)| (version, answer(&command.wait_with_output().unwrap())));
            ended.sort_by_key(|(_, (code, json, _))| (*code, json["generation"].as_u64()));
            let [(first, (code, ..)), (second, (other, json, _))] = &ended;
            assert_eq!(*code, 0, "round {round}: neither has won: {ended:?}");
            let wins = match *other {
                0 => *second,
                code => {
                    assert_eq!(code, 8, "round {round}: {json}");
                    let told = json["error"].as_str().unwrap();
                    assert!(told.contains("is deploying generation") || told.contains("was changed meanwhile"), "{told}");
                    conflicts += 1;
                    *first
                }
            };
            fleet.feed(records..records + 4);
            fleet.worked(records, records + 4, wins);
            (version, records) = (version + 2, records + 4);
            if conflicts > 0 {
                break;
            }
        }
        assert!(conflicts > 0, "two commands never met");
        fleet.stop();
    }
}

const STATEFUL: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
stages:
  - { name: seq, plugin: map, with: { set: { seq: n } } }
  - { name: list, plugin: ./list-append.wasm }
  - { name: stamp, plugin: map, with: { set: { v: count } } }
sinks:
  - { from: stamp, topic: NAME.out }
";

#[test]
fn a_host_with_nothing_but_the_brokers_finds_its_work_and_its_state() {
    let Some(place) = Place::kafka() else { return };
    let fleet = Fleet::on(place, 0);
    std::fs::write(fleet.place.path().join("list-append.wasm"), crate::guests::list_append()).unwrap();
    fleet.place.write(STATEFUL);
    let deployed = fleet.good(&["deploy", "pipeline.yaml"]);
    assert_eq!(deployed["state"], "no_host", "{deployed}");
    for file in ["list-append.wasm", "pipeline.yaml"] {
        std::fs::remove_file(fleet.place.path().join(file)).unwrap();
    }
    // The same twice, each time by a host with folders that nobody has used.
    for round in 0..2 {
        fleet.feed(0..6);
        let mut host = Host::new(&fleet.place, &format!("new-{round}"), &SERVE);
        let empty = tempfile::tempdir().unwrap();
        let folder = |name: &str| empty.path().join(name).to_string_lossy().into_owned();
        host.data = folder("data").into();
        host.variables = vec![("MILLSTREAM_CACHE", folder("cache")), ("HOME", folder("home"))];
        host.start(&fleet.place, None);
        until("all has come out", || {
            assert!(!host.is_dead(), "{}", host.said());
            fleet.count() == 6 * (round + 1)
        });
        assert!(host.stop().success(), "{}", host.said());
    }
    let mut found: Vec<(u64, u64)> = fleet
        .place
        .consume("NAME.out")
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone())
        .map(|value| (value["n"].as_u64().unwrap(), value["v"].as_u64().unwrap()))
        .collect();
    found.sort();
    // Three records of each key, then three more: the second host has found the first one's state.
    let expected: Vec<(u64, u64)> = (0..6).flat_map(|n| [(n, n / 2 + 1), (n, n / 2 + 4)]).collect();
    assert_eq!(found, expected);
}
