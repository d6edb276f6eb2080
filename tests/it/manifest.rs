//! `check` with the real plugins: types from source to sink, places in the file, exit codes, output for scripts.

use crate::program::millstream;
use millstream::manifest::{self, Severity};
use millstream::plugin::engine::Engine;
use std::path::Path;
use std::process::Output;

/// Line, column, severity and message of each diagnostic, in this process: it compiles each plugin once.
fn found(text: &str) -> Vec<(usize, usize, Severity, String)> {
    let found = match manifest::load_text(Path::new("pipeline.yaml"), text.to_owned(), &Engine::new().unwrap()) {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    found.0.iter().map(|one| (one.line(), one.column(), one.severity, one.message.clone())).collect()
}

fn errors(text: &str) -> Vec<(usize, usize)> {
    found(text).into_iter().filter(|one| one.2 == Severity::Error).map(|one| (one.0, one.1)).collect()
}

fn check(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    millstream(folder.path()).args(["check", "pipeline.yaml"]).args(arguments).output().unwrap()
}

const RATINGS: &str = r#"pipeline: ratings
sources:
  ratings:
    topic: ratings
    format: json
    key: text
    start: earliest
    time: { field: rating_time, unit: ms }
    schema: { rating_id: int, user_id: int, stars: int, channel: text?, rating_time: int, message: text? }
tables:
  users: { topic: users, format: json, key: text, scope: global, schema: { id: int, first_name: text?, last_name: text?, club_status: text } }
stages:
  - name: drop-tests
    plugin: filter
    with: { where: 'channel != "iOS-test"' }
  - name: clean
    plugin: mask
    with:
      rules:
        - { fields: '**', card: { keep_last: 4 } }
        - { fields: [message], replace: { '(expletive deleted)': '****' } }
  - name: with-user
    plugin: enrich
    with: { table: users, on: user_id, join: inner, add: { club_status: users.club_status, full_name: 'users.first_name + " " + users.last_name' } }
  - name: unhappy
    plugin: filter
    with: { where: 'stars < 3 && club_status == "Platinum"' }
  - name: poor
    from: clean
    plugin: filter
    with: { where: 'stars < 3' }
  - name: by-club
    from: with-user
    plugin: aggregate
    with: { group_by: [club_status], window: { tumbling: 1m, grace: 10s }, emit: updates, compute: { ratings: count(), stars: avg(stars) } }
sinks:
  - { from: unhappy, topic: unhappy_platinum_customers }
  - { from: poor, topic: poor_ratings }
  - { from: by-club, topic: ratings_by_club_status, key: text }
on_error: { dead_letter: ratings.dead }
limits: { cpu: 1s, memory: 64MiB }
tests:
  - name: a test rating is dropped, an unhappy platinum customer is found
    given:
      users: [{ key: 3, value: { id: 3, club_status: Platinum } }]
      ratings: [{ value: { rating_id: 1, user_id: 3, stars: 1, channel: web, rating_time: 1519304105213 } }]
    expect: { unhappy_platinum_customers: [{ value: { user_id: 3, stars: 1 } }] }
"#;

#[test]
fn the_ratings_pipeline_has_no_mistakes() {
    let output = check(RATINGS, &["--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["repartitions"],
        serde_json::json!([{ "topic": "ratings.by-club.repartition", "from": ["with-user"], "by": "`club_status`" }])
    );
    assert_eq!(json["stages"][5]["stores"], serde_json::json!(["by-club"]));
    assert_eq!(json["stages"][2]["tables"], serde_json::json!(["users"]));
    assert!(json["diagnostics"].as_array().unwrap().iter().all(|one| one["severity"] == "warning"));
    let text = check(RATINGS, &[]);
    let shown = String::from_utf8(text.stdout).unwrap();
    for wanted in [
        "drop-tests",
        "channel: text",
        "topic ratings.by-club.repartition: of the pipeline's own; brings records together by `club_status`",
        "pipeline ratings: no mistakes",
    ] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
}

/// Each mistake on its own line, all of them in one run, each where it stands.
#[test]
fn types_and_expressions_are_checked_at_their_places() {
    let wrong = RATINGS
        .replace("channel != \"iOS-test\"", "chanel != \"iOS-test\"")
        .replace("keep_last: 4", "keep_lst: 4")
        .replace("on: user_id", "on: user_i")
        .replace("with: { where: 'stars < 3' }", "with: { where: 'message < 3' }")
        .replace("stars: avg(stars)", "stars: avg(club_status)")
        .replace("topic: poor_ratings", "topic: ratings");
    let lines: Vec<(usize, bool)> = found(&wrong).into_iter().map(|one| (one.0, one.2 == Severity::Error)).collect();
    // The schema is open: fields that nobody declares are warnings. What stands behind a stage that cannot be looked at is not guessed at.
    assert_eq!(lines, [(15, false), (20, true), (24, false), (31, true), (35, true), (38, true)], "{:#?}", found(&wrong));
    let closed = wrong.replace("message: text? }\ntables", "message: text?, closed: true }\ntables");
    let lines: Vec<usize> = errors(&closed).into_iter().map(|one| one.0).collect();
    assert_eq!(lines, [15, 20, 24, 31, 38], "{:#?}", found(&closed));
}

#[test]
fn a_field_that_no_one_provides_or_of_another_type_is_refused() {
    let head = "pipeline: p\nsources: { in: { topic: in, schema: { stars: int, name: text, closed: true } } }\nstages:\n";
    let tail = "sinks: [{ from: last, topic: out }]\n";
    for (stage, place) in [
        ("  - { name: last, plugin: filter, with: { where: 'star < 3' } }\n", (4, 51)),
        ("  - { name: last, plugin: filter, with: { where: 'name < 3' } }\n", (4, 51)),
        (
            "  - { name: first, plugin: map, with: { remove: [name] } }\n  - { name: last, plugin: filter, with: { where: 'name == \"x\"' } }\n",
            (5, 51),
        ),
        (
            "  - { name: first, plugin: aggregate, with: { group_by: [name], compute: { n: count() } } }\n  - { name: last, plugin: filter, with: { where: 'n > 1 && stars > 1' } }\n",
            (5, 60),
        ),
    ] {
        let text = format!("{head}{stage}{tail}");
        assert_eq!(errors(&text), [place], "{stage}{:#?}", found(&text));
    }
}

#[test]
fn mistakes_for_people_go_to_standard_error() {
    let output = check("pipeline: p\nsources: { a: { topic: a } }\nsinks: [{ form: a, topic: b }]\n", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(shown, "pipeline.yaml:3:11: error: a sink has no key `form`\n  help: did you mean `from`?\n1 mistake\n");
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let output = millstream(Path::new(".")).args(["check", "no-such.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot read the file"));
}
