//! The guest that was built for contract 1.0, through the program, in every mode: what comes out is what came out then. Each folder of `cases` is a mode: `1.yaml`
//! is run over the topics in `1`, then `2.yaml` over those in `2`; what all topics of `out` hold then must be as it stands there.

use super::{MEANING, folder, frozen_guest, read};
use crate::pipelines::{Place, failure, success};
use serde_json::Value;
use sha2::Digest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CASES: [&str; 9] = ["select", "shapes", "values", "inputs", "state", "sessions", "changes", "timers", "migration"];
/// What the guest logs with `log: unsafe`, in the cases that do.
const LOGGED: [(&str, &[&str]); 2] = [
    ("select", &["WARN millstream::plugin: an odd number is dropped pipeline=\"frozen\" stage=\"frozen\" record=\"in/0@2\""]),
    (
        "state",
        &[
            "TRACE millstream::plugin: frozen says 0 ",
            "DEBUG millstream::plugin: frozen says 1 ",
            "INFO millstream::plugin: frozen says 2 ",
            "WARN millstream::plugin: frozen says 3 ",
            "ERROR millstream::plugin: frozen says 4 pipeline=\"frozen\" stage=\"frozen\" record=\"in/0@12\"",
            "ERROR millstream::plugin: frozen says what a later contract may ",
        ],
    ),
];
const SECRET: (&str, &str) = ("MILLSTREAM_SECRET_FROZEN", "known");

fn case(name: &str) -> PathBuf {
    folder("tests/frozen/1.0/cases").join(name)
}

/// The files of a folder, by the topic that each is of.
fn topics(folder: &Path) -> Vec<(String, String)> {
    let mut topics: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    topics.sort();
    topics
}

/// Key, value, time and headers of a record, as a text, since the order of a value's fields is promised too. Of the host's own headers only why a record was
/// refused: the plugin said that.
fn record(line: &str) -> String {
    let mut members: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
    members.retain(|name, _| name != "partition");
    if let Some(headers) = members.get_mut("headers").and_then(Value::as_object_mut) {
        headers.retain(|name, _| !name.starts_with("millstream.") || name == "millstream.reason");
    }
    serde_json::to_string(&members).unwrap()
}

/// Runs a case in batches of at most `rows` records; what was logged.
fn run(name: &str, rows: &str) -> (Place, String) {
    let (place, case) = (Place::embedded(), case(name));
    std::fs::write(place.path().join("frozen.wasm"), frozen_guest()).unwrap();
    let mut logged = String::new();
    for step in 1.. {
        let Ok(manifest) = std::fs::read_to_string(case.join(format!("{step}.yaml"))) else { break };
        place.write(&manifest);
        topics(&case.join(step.to_string())).iter().for_each(|(topic, lines)| place.produce(topic, lines));
        // One commit: what is told at commits is told once.
        let arguments = ["run", "pipeline.yaml", "--until-end", "--output", "json", "--batch-rows", rows, "--commit-interval", "60000"];
        let output = place.command(&arguments).env(SECRET.0, SECRET.1).env("MILLSTREAM_LOG", "millstream::plugin=trace").output().unwrap();
        success(&output);
        logged.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (place, logged)
}

#[test]
fn what_came_out_in_1_0_comes_out() {
    for name in CASES {
        for rows in ["1", "3", "1000"] {
            let (place, logged) = run(name, rows);
            for (topic, then) in topics(&case(name).join("out")) {
                let then: Vec<_> = then.lines().map(record).collect();
                let now: Vec<_> = place.consume(&topic).iter().map(|line| record(line)).collect();
                let place = now.iter().zip(&then).position(|(now, then)| now != then).unwrap_or(now.len().min(then.len()));
                let differs = (now.get(place), then.get(place));
                assert!(
                    now == then,
                    "case {name}, batches of {rows}, topic {topic}, record {place}: {MEANING}.\nNow and then: {differs:#?}"
                );
            }
            for line in LOGGED.iter().filter(|(case, _)| *case == name).flat_map(|(_, lines)| *lines) {
                assert!(logged.contains(line), "case {name}: the log lacks {line:?}: {MEANING}.\n{logged}");
            }
        }
    }
}

#[test]
fn what_its_description_said_is_told() {
    let told = |name: &str, code: i32| {
        let place = Place::embedded();
        std::fs::write(place.path().join("frozen.wasm"), frozen_guest()).unwrap();
        place.write(&read(&format!("tests/frozen/1.0/cases/{name}/1.yaml")));
        let output = place.command(&["check", "pipeline.yaml"]).env(SECRET.0, SECRET.1).output().unwrap();
        if code == 0 { format!("{}{}", success(&output), String::from_utf8_lossy(&output.stderr)) } else { failure(&output, code) }
    };
    for (name, code, parts) in [
        ("select", 0, &["a warning of the frozen guest"] as &[&str]),
        ("state", 0, &["users have name+age"]),
        ("inputs", 0, &["inputs l and n"]),
        ("mistaken", 3, &["this is a mistake", "help: select", "pipeline.yaml:4:"]),
    ] {
        let told = told(name, code);
        for part in parts {
            assert!(told.contains(part), "case {name}: {part:?} is not told: {MEANING}.\n{told}");
        }
    }
}

/// It was built once, and never again.
#[test]
fn the_frozen_guest_is_the_one_that_was_built() {
    let digest: String = sha2::Sha256::digest(frozen_guest()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(read("tests/frozen/1.0/README.md").contains(&digest), "tests/frozen/1.0/frozen.wasm is another: {digest}");
}
