//! Pausing, resuming, deleting.

use super::{Fleet, until};
use std::time::{Duration, Instant};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
stages:
  - { name: stamp, plugin: map, with: { set: { v: 'VERSION' } } }
sinks:
  - { from: stamp, topic: NAME.out }
";

/// Nothing may come out for so long.
const STILL: Duration = Duration::from_millis(1500);

fn deploy(fleet: &Fleet, version: &str) -> serde_json::Value {
    fleet.place.write(&MANIFEST.replace("VERSION", version));
    fleet.good(&["deploy", "pipeline.yaml"])
}

/// Feeds records from `next` on until some are there of which none comes out; how many there are then.
fn fed_until_still(fleet: &Fleet, mut next: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        assert!(Instant::now() < deadline, "it does not come to rest");
        let before = fleet.ends();
        fleet.feed(next..next + 2);
        next += 2;
        let fed = Instant::now();
        while fleet.ends() == before {
            if fed.elapsed() > STILL {
                return next;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_pipeline_is_paused_changed_meanwhile_resumed_and_deleted() {
    for fleet in Fleet::each() {
        let fleet = fleet.start();
        deploy(&fleet, "1");
        fleet.feed(0..10);
        fleet.worked(0, 10, 1);

        fleet.good(&["pause", "NAME"]);
        assert_eq!(fleet.status()["state"], "paused");
        let waiting = fed_until_still(&fleet, 10);
        let done = fleet.count() as u64;
        assert!(done < waiting, "{done} of {waiting}");
        // Hosts prepare what they are to run when it is resumed; until then nothing comes out.
        let second = deploy(&fleet, "2");
        assert_eq!(second["state"], "paused", "{second}");
        assert_eq!(fleet.count() as u64, done, "a paused pipeline has worked");

        fleet.good(&["resume", "NAME"]);
        fleet.worked(done, waiting, 2);
        let found = fleet.comes_out(waiting as usize);
        assert!(found.iter().all(|(n, v)| (*n < done) == (*v == 1)), "{found:?}");
        assert_eq!(fleet.status()["state"], "running");

        fleet.good(&["delete", "NAME"]);
        fleet.bad(&["resume", "NAME"], 1, &["was deleted"]);
        let status = fleet.status();
        assert!(status["state"] == "deleted" && status["active"].is_null(), "{status}");
        let left = fed_until_still(&fleet, waiting);
        let done = fleet.count() as u64;
        // Topics and positions stay: another deployment goes on from there, if it can.
        fleet.place.write(&format!("{}guarantee: at-least-once\n", MANIFEST.replace("VERSION", "3")));
        fleet.bad(&["deploy", "pipeline.yaml"], 11, &["generation 2, which was deleted", "guarantee", "another name"]);
        let third = deploy(&fleet, "3");
        assert!(third["generation"] == 3 && third["diff"]["class"] == "new", "{third}");
        fleet.worked(done, left, 3);
        until("every position is the third generation's", || {
            fleet.status()["partitions"].as_array().unwrap().iter().all(|place| place["generation"] == 3 && place["lag"] == 0)
        });
        fleet.stop();
    }
}
