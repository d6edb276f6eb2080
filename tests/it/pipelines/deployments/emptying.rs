//! A stage behind a repartition topic gives way to another: what is under way in the topic is processed to its end before the other begins.

use super::{Fleet, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { user: text, team: text } }
stages:
  - { name: grouped, plugin: aggregate, store: by-FIELD, with: { group_by: [FIELD], compute: { n: count() } } }
sinks:
  - { from: grouped, topic: NAME.out }
";

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"key\":\"k{n}\",\"value\":{{\"user\":\"u{}\",\"team\":\"t{}\"}}}}\n", n % 50, n % 3)).collect()
}

/// Longest that what was sent may take to be counted.
const PATIENCE: Duration = Duration::from_secs(60);

/// The highest count of each group, of users and of teams: how many records were counted.
fn counted(fleet: &Fleet) -> [u64; 2] {
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    for line in fleet.place.consume("NAME.out") {
        let value = serde_json::from_str::<Value>(&line).unwrap()["value"].clone();
        let group = value["user"].as_str().or(value["team"].as_str()).unwrap().to_owned();
        let n = value["n"].as_u64().unwrap();
        let known = highest.entry(group).or_default();
        *known = n.max(*known);
    }
    ["u", "t"].map(|kind| highest.iter().filter(|(group, _)| group.starts_with(kind)).map(|(_, n)| n).sum())
}

/// However it ends.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_repartition_topic_is_emptied_before_it_goes() {
    for fleet in Fleet::each() {
        let fleet = fleet.start();
        let deploy = |field: &str, how: &[&str]| {
            fleet.place.write(&MANIFEST.replace("FIELD", field));
            fleet.call(&[&["deploy", "pipeline.yaml"], how].concat())
        };
        assert_eq!(deploy("user", &[]).0, 0);
        let (fed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let from = fed.load(Ordering::Relaxed);
                    fleet.place.produce("NAME.in", &lines(from..from + 100));
                    fed.store(from + 100, Ordering::Relaxed);
                }
            });
            let _stops = Stops(&stop);
            until("records flow", || counted(&fleet)[0] > 0);
            let (code, told, error) = deploy("team", &["--allow", "state", "--allow", "windows"]);
            assert!(code == 0 && told["diff"]["class"] == "drain", "{told} {error}");
            assert_eq!(told["diff"]["empties"].as_array().map(Vec::len), Some(1), "{told}");
            until("records flow again", || counted(&fleet)[1] > 0);
        });
        let fed = fed.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        let mut found = counted(&fleet);
        while found.iter().sum::<u64>() < fed {
            if Instant::now() > deadline {
                panic!(
                    "for {PATIENCE:?} it was waited until every record counts: of {fed} that were sent {} count, by user and by team {found:?}; {}",
                    found.iter().sum::<u64>(),
                    fleet.status()
                );
            }
            found = counted(&fleet);
        }
        assert_eq!(found.iter().sum::<u64>(), fed, "{found:?}");

        // Nothing is processed while a pipeline is paused, so nothing is emptied.
        fleet.good(&["pause", "NAME"]);
        let (code, told, _) = deploy("user", &["--allow", "state", "--allow", "windows"]);
        assert!(code == 1 && told.to_string().contains("emptied first") && told.to_string().contains("millstream resume"), "{code} {told}");
        fleet.good(&["resume", "NAME"]);
        fleet.stop();
    }
}
