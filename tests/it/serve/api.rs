//! The API of a host: what the command line does, and who is let in.

use super::{Host, command, manifest, until};
use crate::cluster::Cluster;
use base64::Engine as _;
use millstream::plugin::standard;
use serde_json::{Value, json};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const NONE: Value = Value::Null;

/// A manifest with a schema and a component beside it.
const OWN: &str = "\
pipeline: low
sources: { in: { topic: ratings, schema: { file: ratings.yaml } } }
stages:
  - { name: low, plugin: ./own.wasm, with: { where: 'stars < 3' } }
sinks:
  - { from: low, topic: low }
";

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn filter() -> String {
    base64(standard::component("filter").unwrap())
}

fn own(manifest: &str) -> Value {
    json!({ "name": "low.yaml", "manifest": manifest, "files": { "ratings.yaml": "stars: int\n" }, "components": { "./own.wasm": filter() } })
}

fn plain(name: &str, below: u32) -> Value {
    json!({ "manifest": manifest(name).replace("< 3", &format!("< {below}")) })
}

fn with_topic(partitions: &str) -> Host {
    with_topic_on(Host::start(&[]), partitions)
}

fn with_topic_on(host: Host, partitions: &str) -> Host {
    host.call(&["topic", "create", "ratings", "--partitions", partitions]);
    host
}

#[test]
fn a_fleet_is_steered_without_a_shell() {
    is_steered(with_topic("2"));
}

#[test]
fn a_fleet_is_steered_without_a_shell_on_kafka() {
    let Some(cluster) = Cluster::own() else { return };
    let host = Host::start_in(tempfile::tempdir().unwrap(), &[], &[("MILLSTREAM_BROKERS", &cluster.brokers)]);
    host.call(&["topic", "create", "low", "--partitions", "2"]);
    is_steered(with_topic_on(host, "2"));
}

fn is_steered(host: Host) {
    let dry = host.done("POST", "/v1/pipelines?dry_run=true", &own(OWN));
    assert!(dry["state"] == "dry_run" && dry["diff"]["class"] == "new", "{dry}");
    assert_eq!(host.done("GET", "/v1/status", &NONE)["pipelines"], json!([]));

    let first = host.done("POST", "/v1/pipelines", &own(OWN));
    assert!(first["state"] == "running" && first["generation"] == 1 && first["pipeline"] == "low", "{first}");
    assert_eq!(host.done("POST", "/v1/pipelines", &own(OWN))["state"], "unchanged");
    host.produce("ratings", "{\"stars\":1}\n{\"stars\":5}\n{\"stars\":2}\n");
    let lag = |status: &Value| -> i64 {
        status["pipelines"][0]["partitions"].as_array().unwrap().iter().map(|place| place["lag"].as_i64().unwrap()).sum()
    };
    until("all is processed", || lag(&host.done("GET", "/v1/pipelines/low", &NONE)) == 0);
    // The same as the command tells, but for what goes on.
    let (mut shown, mut told) = (host.done("GET", "/v1/pipelines/low", &NONE), host.call(&["status", "low"]));
    for status in [&mut shown, &mut told] {
        let one = &mut status["hosts"][0];
        assert_eq!(one["live"], true);
        (one["at"], one["heard"]) = (NONE, NONE);
    }
    assert_eq!(shown, told);
    assert_eq!(host.done("GET", "/v1/pipelines/low/history", &NONE), host.call(&["history", "low"]));

    let swapped = host.done("POST", "/v1/pipelines/low/swap", &json!({ "stage": "low", "plugin": "filter" }));
    assert!(swapped["generation"] == 2 && swapped["diff"]["class"] == "hot", "{swapped}");
    let sent = json!({ "stage": "low", "plugin": "./new.wasm", "component": filter() });
    assert_eq!(host.done("POST", "/v1/pipelines/low/swap", &sent)["generation"], 3);
    assert_eq!(host.done("POST", "/v1/pipelines/low/rollback?to=1&timeout=30", &NONE)["generation"], 4);
    let history = host.done("GET", "/v1/pipelines/low/history", &NONE);
    let kinds: Vec<&Value> = history["generations"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    let swap = json!({ "swap": { "stage": "low" } });
    assert_eq!(kinds, [&json!("deploy"), &swap, &swap, &json!({ "rollback": { "of": 1 } })]);
    assert!(history["generations"][0]["by"].as_str().unwrap().starts_with("API of "), "{history}");

    // Two trials: one is promoted, one taken back.
    let canary = host.done("POST", "/v1/pipelines?canary=50%25&promote_after=never", &own(&OWN.replace("< 3", "< 4")));
    assert!(canary["generation"] == 5 && canary["trial"].to_string().contains("canary"), "{canary}");
    host.refused("POST", "/v1/pipelines", &own(&OWN.replace("< 3", "< 5")), (409, "conflict", "is on trial"));
    assert_eq!(host.done("POST", "/v1/pipelines/low/promote", &NONE)["state"], "promoted");
    host.refused("POST", "/v1/pipelines/low/promote", &NONE, (400, "failure", "no generation of `low` is on trial"));
    host.done("POST", "/v1/pipelines?shadow=true", &own(&OWN.replace("< 3", "< 5")));
    assert_eq!(host.done("POST", "/v1/pipelines/low/rollback", &NONE)["state"], "rolled_back");
    let status = host.done("GET", "/v1/pipelines/low", &NONE);
    assert!(status["pipelines"][0]["trial"].is_null() && status["pipelines"][0]["active"]["generation"] == 5, "{status}");

    for (method, path, state) in [
        ("POST", "/v1/pipelines/low/pause", "paused"),
        ("POST", "/v1/pipelines/low/resume", "running"),
        ("DELETE", "/v1/pipelines/low", "deleted"),
    ] {
        let steered = host.done(method, path, &NONE);
        assert!(steered["state"] == state && steered["hosts"] == 1, "{steered}");
        assert_eq!(host.call(&["status", "low"])["pipelines"][0]["state"], state);
    }
    host.refused("POST", "/v1/pipelines/low/pause", &NONE, (404, "failure", "was deleted"));
    host.end();
}

#[test]
fn status_tells_of_repartition_topics_too() {
    let host = with_topic("2");
    let grouped = "pipeline: low\nsources: { in: { topic: ratings, schema: { stars: int } } }\n\
                   stages: [{ name: by-stars, plugin: aggregate, with: { group_by: [stars], compute: { n: count() } } }]\n\
                   sinks: [{ from: by-stars, topic: low, create: true }]\n";
    host.done("POST", "/v1/pipelines", &json!({ "manifest": grouped }));
    host.produce("ratings", "{\"stars\":1}\n{\"stars\":5}\n{\"stars\":2}\n");
    let repartition = || host.done("GET", "/v1/pipelines/low", &NONE)["pipelines"][0]["repartition"].clone();
    let sum = |places: &Value, field: &str| places.as_array().unwrap().iter().filter_map(|place| place[field].as_i64()).sum::<i64>();
    until("all is processed", || {
        let places = repartition();
        sum(&places, "committed") >= 3 && sum(&places, "lag") == 0
    });
    let places = repartition();
    assert!(places.as_array().unwrap().iter().all(|place| place["topic"] == "low.by-stars.repartition"), "{places}");
    assert_eq!(places, host.call(&["status", "low"])["pipelines"][0]["repartition"]);
    host.end();
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let host = with_topic("1");
    host.done("POST", "/v1/pipelines", &own(OWN));
    let deploy = |body: &Value, expected| host.refused("POST", "/v1/pipelines", body, expected);
    let wrong = deploy(&own(&OWN.replace("sinks:", "snks:")), (422, "manifest", "did you mean `sinks`?"));
    let place = &wrong["diagnostics"][0];
    assert!(wrong["exit"] == 3 && place["file"] == "low.yaml" && place["line"] == 5 && place["column"] == 1, "{wrong}");
    deploy(&json!({ "manifest": OWN }), (422, "manifest", "put it under `components`, as `./own.wasm`"));
    // No file of the host's is read, whatever a manifest names.
    std::fs::write(host.path().join("ratings.yaml"), "stars: int\n").unwrap();
    deploy(
        &json!({ "manifest": OWN, "components": { "./own.wasm": filter() } }),
        (422, "manifest", "put it under `files`, as `ratings.yaml`"),
    );
    let mut more = own(OWN);
    more["files"]["other.yaml"] = "x: int\n".into();
    deploy(&more, (400, "usage", "does not name `other.yaml`"));
    let mut broken = own(OWN);
    broken["components"]["./own.wasm"] = "no base64!".into();
    deploy(&broken, (400, "usage", "`./own.wasm` is not base64"));
    broken["components"]["./own.wasm"] = base64(b"no component").into();
    deploy(&broken, (422, "manifest", "./own.wasm"));
    deploy(&json!({ "manifest": OWN, "file": {} }), (400, "usage", "unknown field `file`"));
    deploy(&NONE, (400, "usage", "not the JSON that is expected"));
    host.refused("POST", "/v1/pipelines?timeout=0", &own(OWN), (400, "usage", "1..=3600"));
    host.refused("POST", "/v1/pipelines?wait=1", &own(OWN), (400, "usage", "--wait"));

    let state = OWN.replace("plugin: ./own.wasm, with: { where: 'stars < 3' }", "plugin: aggregate, with: { compute: { n: count() } }");
    let state = json!({ "manifest": state, "files": { "ratings.yaml": "stars: int\n" } });
    let denied = deploy(&state, (403, "denied", "stage `low` gains `state`"));
    assert_eq!(denied["exit"], 11);
    assert_eq!(host.done("POST", "/v1/pipelines?allow=low%3Dstate&allow=windows&dry_run", &state)["diff"]["class"], "drain");

    let swap = |body: &Value, expected| host.refused("POST", "/v1/pipelines/low/swap", body, expected);
    swap(&json!({ "stage": "lwo", "plugin": "filter" }), (400, "failure", "there is no stage `lwo`"));
    swap(&json!({ "stage": "low", "plugin": "filtre" }), (400, "usage", "no standard plugin `filtre`"));
    swap(&json!({ "stage": "low", "plugin": "./own.wasm" }), (400, "usage", "put it under `component`"));
    swap(&json!({ "stage": "low", "plugin": "own", "component": filter() }), (400, "usage", "./own.wasm"));
    swap(&json!({ "stage": "low", "plugin": "./x.wasm", "component": base64(b"x") }), (400, "failure", "cannot be used"));
    swap(&json!({ "stage": "low", "plugin": "mask" }), (422, "manifest", "where"));
    for (method, path) in [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/history"),
        ("POST", "/rollback"),
        ("POST", "/promote"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ] {
        host.refused(method, &format!("/v1/pipelines/lo{path}"), &NONE, (404, "failure", "did you mean `low`?"));
    }
    host.refused("POST", "/v1/pipelines/low/rollback", &NONE, (400, "failure", "is the first"));
    host.refused("POST", "/v1/pipelines/low/rollback?to=7", &NONE, (404, "failure", "no generation 7"));
    host.refused("GET", "/v2/status", &NONE, (404, "usage", "/v1/openapi.json"));
    host.refused("PUT", "/v1/status", &NONE, (405, "usage", "no such method"));
    let (status, document) = host.request("GET", "/v1/openapi.json", &NONE);
    assert!(status == 200 && document["openapi"] == "3.1.0", "{document}");

    // Told by its length, before it comes.
    let (status, answer) = host.request_as("Content-Length: 70000000\r\n", "POST", "/v1/pipelines", &NONE);
    assert_eq!((status, &answer["name"]), (413, &json!("usage")), "{answer}");
    for path in ["/v1/status", "/v1/pipelines/low"] {
        let (status, _) = host.request_as("Origin: http://elsewhere.example\r\n", "GET", path, &NONE);
        assert_eq!(status, 403, "a page in a browser");
    }
    let (status, answer) = host.request_as("Origin: http://elsewhere.example\r\n", "DELETE", "/v1/pipelines/low", &NONE);
    assert_eq!((status, host.call(&["status", "low"])["pipelines"][0]["state"].as_str()), (403, Some("running")), "{answer}");
    host.end();
}

#[test]
fn of_two_that_deploy_at_once_one_is_first() {
    let host = with_topic("1");
    host.done("POST", "/v1/pipelines", &plain("p", 1));
    let mut done = 1;
    let deadline = Instant::now() + Duration::from_secs(120);
    // Threads may come one after the other: then both are done, and it is tried again.
    for round in 1.. {
        assert!(Instant::now() < deadline, "never at once");
        let barrier = Barrier::new(2);
        let both: Vec<(u16, Value)> = std::thread::scope(|scope| {
            let one = |below: u32| {
                let (barrier, host) = (&barrier, &host);
                move || {
                    barrier.wait();
                    host.request("POST", "/v1/pipelines", &plain("p", below))
                }
            };
            let threads = [scope.spawn(one(2 * round)), scope.spawn(one(2 * round + 1))];
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let well = both.iter().filter(|(status, _)| *status == 200).count();
        assert!(well >= 1, "{both:?}");
        done += well;
        if let Some((status, answer)) = both.iter().find(|(status, _)| *status != 200) {
            assert_eq!((*status, &answer["name"], &answer["exit"]), (409, &json!("conflict"), &json!(8)), "{answer}");
            break;
        }
    }
    let history = host.done("GET", "/v1/pipelines/p/history", &NONE);
    assert_eq!(history["generations"].as_array().unwrap().len(), done, "the other has written nothing: {history}");
    host.end();
}

const ADMIN: &str = "administrator-0123456789";
const READER: &str = "reader-0123456789abcdef";

#[test]
fn who_has_no_token_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokens"), format!("# who may\nadmin alice {ADMIN}\nread {READER}\n")).unwrap();
    let host = Host::start_in(folder, &["--tokens", "tokens"], &[]);
    let as_ = |token: &str, method: &str, path: &str, body: &Value| {
        let header = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        host.request_as(&header, method, path, body)
    };
    host.call(&["topic", "create", "ratings", "--partitions", "1"]);
    for token in ["", "administrator-0123456788", "administrator", &ADMIN.to_uppercase()] {
        for (method, path) in
            [("GET", "/v1/status"), ("POST", "/v1/pipelines"), ("DELETE", "/v1/pipelines/p"), ("GET", "/metrics"), ("GET", "/x")]
        {
            let (status, answer) = as_(token, method, path, &NONE);
            assert_eq!((status, &answer["name"]), (401, &json!("denied")), "{method} {path} {token}: {answer}");
        }
    }
    let (status, answer) = host.ask("GET", "/v1/status", &format!("Authorization: Basic {ADMIN}\r\n"), b"");
    assert_eq!(status, 401, "{answer}");
    assert_eq!(as_(READER, "GET", "/v1/status", &NONE).0, 200);
    let (status, answer) = as_(READER, "POST", "/v1/pipelines", &plain("p", 3));
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("may look"), "{answer}");
    let (status, answer) = as_(ADMIN, "POST", "/v1/pipelines", &plain("p", 3));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(as_(READER, "POST", "/v1/pipelines/p/pause", &NONE).0, 403);
    let history = as_(READER, "GET", "/v1/pipelines/p/history", &NONE).1;
    assert!(history["generations"][0]["by"].as_str().unwrap().starts_with("alice by the API of "), "{history}");
    until("it runs", || as_(READER, "GET", "/healthz", &NONE).1["pipelines"]["p"]["status"] == "running");
    assert_eq!(as_("", "GET", "/healthz", &NONE), (200, json!({ "status": "running" })), "no names without a token");
    let (status, figures) = host.ask("GET", "/metrics", &format!("Authorization: Bearer {READER}\r\n"), b"");
    assert!(status == 200 && figures.contains("pipeline=\"p\""), "{figures}");
    let said = host.said.lock().unwrap().clone();
    assert!(said.contains("compared") && !said.contains(ADMIN) && !said.contains(READER), "{said}");
    host.end();
}

#[test]
fn an_address_of_others_needs_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], variables: &[(&str, &str)], says: &[&str]| {
        let output = command(folder.path(), &[&["serve", "--listen"], args].concat()).envs(variables.iter().copied()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(says.iter().all(|one| told.contains(one)) && !told.contains(ADMIN), "{told}");
        assert!(!folder.path().join(".millstream").exists(), "nothing was opened");
    };
    refused(&["0.0.0.0:0"], &[], &["could deploy and delete", "--tokens FILE", "MILLSTREAM_TOKENS", "--figures-only", "127.0.0.1"]);
    refused(&["0.0.0.0:0"], &[("MILLSTREAM_TOKENS", "")], &["MILLSTREAM_TOKENS: there is no token in it"]);
    refused(&["0.0.0.0:0"], &[("MILLSTREAM_TOKENS", "admin short")], &["line 1: the token is shorter"]);
    refused(&["0.0.0.0:0", "--tokens", "nowhere"], &[], &["--tokens: cannot read nowhere"]);
    std::fs::write(folder.path().join("tokens"), format!("everybody {ADMIN}")).unwrap();
    refused(&["0.0.0.0:0", "--tokens", "tokens"], &[], &["line 1 begins with no role"]);

    let local = |mut host: Host| {
        host.address = host.address.replace("0.0.0.0", "127.0.0.1");
        host
    };
    let host = local(Host::start_in(tempfile::tempdir().unwrap(), &["--listen", "0.0.0.0:0"], &[("MILLSTREAM_TOKENS", ADMIN)]));
    assert_eq!(host.request("GET", "/v1/status", &NONE).0, 401);
    assert_eq!(host.request_as(&format!("Authorization: Bearer {ADMIN}\r\n"), "GET", "/v1/status", &NONE).0, 200);
    host.end();
    let host = local(Host::start(&["--listen", "0.0.0.0:0", "--figures-only"]));
    host.figures();
    assert_eq!(host.request("GET", "/v1/status", &NONE).0, 404);
    host.end();
}
