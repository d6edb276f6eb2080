//! Plugins that trap or never end: the pipeline stops with their names, and goes on from there with a better one.

use super::{Place, failure};
use millstream::plugin::standard;
use serde_json::json;

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { a: text, n: int } }
tables:
  users: { topic: NAME.users, schema: { id: int } }
stages:
  - { name: first, plugin: filter, with: { where: 'n >= 0' } }
  - { name: mine, plugin: ./mine.wasm, with: WITH, limits: { cpu: 200ms } }
sinks:
  - { from: mine, topic: NAME.out }
";

const GOOD: &str = "{ where: 'n >= 0' }";

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("{}\n", json!({ "key": n.to_string(), "value": { "a": "text", "n": n }, "timestamp": n }))).collect()
}

fn set(place: &Place, component: &[u8], with: &str) {
    std::fs::write(place.path().join("mine.wasm"), component).unwrap();
    place.write(&MANIFEST.replace("WITH", with));
}

#[test]
fn a_plugin_that_fails_stops_the_pipeline_until_it_is_mended() {
    let place = Place::embedded();
    let filter = standard::component("filter").unwrap();
    let mut count = 10;
    set(&place, filter, GOOD);
    place.produce("NAME.in", &lines(0, count));
    assert_eq!(place.run_well(&[]), 10);
    for (mode, expected) in [
        ("Unreachable", "trap"),
        ("Panic", "out of cheese"),
        ("EndlessLoop", "limits"),
        ("MemoryHog", "limits"),
        ("Recursion", "stage `mine`"),
        ("WildPointer", "stage `mine`"),
        ("FailProcess", "no more"),
        ("SelectOutOfRange", "stage `mine`"),
        ("UnknownStore", "stage `mine`"),
    ] {
        place.produce("NAME.in", &lines(count, count + 10));
        set(&place, crate::guests::hostile(), &format!("{{ mode: {mode} }}"));
        let said = failure(&place.run(&["--batch-rows", "4"]), 5);
        for part in ["pipeline `p`", "stage `mine`", "hostile 0.1.0", &format!("p.in/0@{count} to p.in/0@"), expected] {
            assert!(said.contains(part), "{mode}: no `{part}` in: {said}");
        }
        let done: Vec<_> = (0..count).map(|n| json!(n)).collect();
        assert_eq!(place.field("NAME.out", "n"), done, "{mode}");

        count += 10;
        set(&place, filter, GOOD);
        assert_eq!(place.run_well(&["--batch-rows", "4"]), 10, "{mode}");
        let done: Vec<_> = (0..count).map(|n| json!(n)).collect();
        assert_eq!(place.field("NAME.out", "n"), done, "{mode}");
    }
}

#[test]
fn a_plugin_that_does_not_start_reads_nothing() {
    let place = Place::embedded();
    place.produce("NAME.in", &lines(0, 3));
    for mode in ["FailInit", "PanicInit", "LoopInit"] {
        set(&place, crate::guests::hostile(), &format!("{{ mode: {mode} }}"));
        let said = failure(&place.run(&[]), 5);
        assert!(said.contains("stage `mine`") && said.contains("nothing was read"), "{said}");
    }
    set(&place, standard::component("filter").unwrap(), GOOD);
    assert_eq!(place.run_well(&[]), 3);
    assert_eq!(place.field("NAME.out", "n"), [0, 1, 2].map(|n| json!(n)));
}
