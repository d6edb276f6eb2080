//! Steering a fleet from the command line: what each command does, says and ends with, with hosts that answer as they are told and without.

use crate::cluster::{cluster, unique};
use crate::program::millstream;
use millstream::fleet::record::records;
use millstream::fleet::{Answer, Answered, Control, Cut, HostRecord, Key, PROTOCOL, State, Value};
use millstream::io::{Commit, CommitState, Event, FetchLimit, Guarantee, Log, Membership, Position, TopicPartition};
use millstream::log::embedded;
use millstream::plugin::standard;
use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PIPELINE: &str = "\
pipeline: low
sources: { ratings: { topic: ratings, schema: { file: ratings.yaml } } }
stages:
  - { name: low, plugin: ./own.wasm, with: { where: 'stars < 3' } }
sinks:
  - { from: low, topic: low }
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "p.yaml", PIPELINE);
    write(folder.path(), "ratings.yaml", "stars: int\n");
    write(folder.path(), "own.wasm", standard::component("filter").unwrap());
    folder
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), content).unwrap();
}

/// The exit code, standard output as JSON, standard error.
fn call(folder: &Path, args: &[&str]) -> (i32, Json, String) {
    let output = millstream(folder).args(args).args(["--output", "json"]).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"));
    (output.status.code().unwrap(), json, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn good(folder: &Path, args: &[&str]) -> Json {
    let (code, json, error) = call(folder, args);
    assert_eq!(code, 0, "{args:?}: {json} {error}");
    json
}

#[track_caller]
fn bad(folder: &Path, args: &[&str], code: i32, says: &str) {
    let (found, json, error) = call(folder, args);
    assert_eq!(found, code, "{args:?}: {json} {error}");
    assert!(json.to_string().contains(says), "{args:?}: {json}");
}

/// What people are shown.
#[track_caller]
fn shown(folder: &Path, args: &[&str]) -> String {
    let output = millstream(folder).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_pipeline_is_deployed_changed_and_taken_back_without_a_host() {
    let folder = folder();
    let folder = folder.path();
    let diff = good(folder, &["diff", "p.yaml"]);
    assert!(diff["base"].is_null() && diff["diff"]["class"] == "new", "{diff}");
    assert!(!folder.join(".millstream").exists(), "who only looks makes nothing");
    good(folder, &["deploy", "p.yaml", "--dry-run"]);
    assert!(!folder.join(".millstream").exists());

    let first = good(folder, &["deploy", "p.yaml"]);
    assert!(first["state"] == "no_host" && first["generation"] == 1, "{first}");
    assert_eq!(good(folder, &["deploy", "p.yaml"])["state"], "unchanged");
    assert_eq!(good(folder, &["diff", "p.yaml"])["diff"]["stages"], serde_json::json!([]));

    write(folder, "p.yaml", PIPELINE.replace("stars < 3", "stars < 2"));
    let dry = good(folder, &["deploy", "p.yaml", "--dry-run"]);
    assert!(dry["state"] == "dry_run" && dry["base"] == 1, "{dry}");
    let second = good(folder, &["deploy", "p.yaml"]);
    assert!(second["generation"] == 2 && second["diff"]["class"] == "hot", "{second}");
    let text = shown(folder, &["diff", "p.yaml"]);
    assert!(text.contains("compared with generation 2") && text.contains("nothing that a host would do differently"), "{text}");

    // What is deployed needs no files any more.
    for file in ["p.yaml", "ratings.yaml", "own.wasm"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    let third = good(folder, &["rollback", "low"]);
    assert!(
        third["generation"] == 3 && third["diff"]["stages"][0]["details"][0] == "with.where: \"stars < 2\" -> \"stars < 3\"",
        "{third}"
    );
    let fourth = good(folder, &["swap", "low", "low", "filter"]);
    assert_eq!(fourth["generation"], 4);

    let history = good(folder, &["history", "low"]);
    let kinds: Vec<String> = history["generations"].as_array().unwrap().iter().map(|one| one["kind"].to_string()).collect();
    assert_eq!(kinds, ["\"deploy\"", "\"deploy\"", "{\"rollback\":{\"of\":1}}", "{\"swap\":{\"stage\":\"low\"}}"]);
    let text = shown(folder, &["history", "low"]);
    assert!(text.lines().count() == 4 && text.contains("rollback to 1") && text.contains("swap of stage low"), "{text}");

    for (command, state) in [("pause", "paused"), ("resume", "running"), ("delete", "deleted")] {
        assert_eq!(good(folder, &[command, "low"])["state"], state);
        assert_eq!(good(folder, &["status", "low"])["pipelines"][0]["state"], state);
    }
    bad(folder, &["pause", "low"], 1, "was deleted");
    write(folder, "p.yaml", PIPELINE);
    write(folder, "ratings.yaml", "stars: int\n");
    write(folder, "own.wasm", standard::component("filter").unwrap());
    let again = good(folder, &["deploy", "p.yaml"]);
    assert!(again["generation"] == 5 && again["diff"]["class"] == "new", "{again}");
}

#[test]
fn status_says_how_far_a_pipeline_is() {
    let folder = folder();
    let folder = folder.path();
    write(folder, "r.jsonl", "{\"stars\":1}\n{\"stars\":5}\n{\"stars\":2}\n");
    shown(folder, &["produce", "ratings", "--raw", "-f", "r.jsonl"]);
    good(folder, &["deploy", "p.yaml"]);
    shown(folder, &["run", "p.yaml", "--until-end", "--limit", "2", "--batch-rows", "1"]);
    let status = good(folder, &["status"]);
    let place = &status["pipelines"][0]["partitions"][0];
    assert_eq!((&place["topic"], &place["committed"], &place["end"], &place["lag"]), (&"ratings".into(), &2.into(), &3.into(), &1.into()));
    let text = shown(folder, &["status", "low"]);
    assert!(text.contains("no host runs") && text.contains("generation 1 (deploy, new, "), "{text}");
}

#[test]
fn status_tells_of_repartition_topics_as_of_sources() {
    let folder = folder();
    let folder = folder.path();
    let grouped = "pipeline: p\nsources: { in: { topic: ratings, schema: { user: text } } }\n\
                   stages: [{ name: by-user, plugin: aggregate, with: { group_by: [user], compute: { n: count() } } }]\n\
                   sinks: [{ from: by-user, topic: out }]\n";
    write(folder, "p.yaml", grouped);
    let repartition = || good(folder, &["status"])["pipelines"][0]["repartition"].clone();
    shown(folder, &["topic", "create", "ratings", "--partitions", "2"]);
    good(folder, &["deploy", "p.yaml"]);
    assert_eq!(repartition(), serde_json::json!([]), "a host makes the topic, and none runs");

    let lines =
        |users: std::ops::Range<u32>| users.map(|n| format!("{{\"key\":\"k{n}\",\"value\":{{\"user\":\"u{n}\"}}}}\n")).collect::<String>();
    write(folder, "r.jsonl", lines(0..20));
    shown(folder, &["produce", "ratings", "-f", "r.jsonl"]);
    shown(folder, &["run", "p.yaml", "--until-end"]);
    let places = repartition();
    let of = |place: &Json, field: &str| place[field].as_i64().unwrap();
    for (place, number) in places.as_array().unwrap().iter().zip(0..) {
        assert!(place["topic"] == "p.by-user.repartition" && of(place, "partition") == number, "{places}");
        assert!(of(place, "committed") > 0 && of(place, "committed") == of(place, "end") && of(place, "lag") == 0, "{places}");
    }
    assert_eq!(places.as_array().unwrap().len(), 2, "{places}");

    // As if somebody had stopped in between: it is sent, and not processed.
    write(folder, "more.jsonl", lines(0..7));
    shown(folder, &["produce", "p.by-user.repartition", "-f", "more.jsonl"]);
    let behind = repartition();
    assert_eq!(behind.as_array().unwrap().iter().map(|place| of(place, "lag")).sum::<i64>(), 7, "{behind}");
    let text = shown(folder, &["status", "p"]);
    for place in behind.as_array().unwrap() {
        let [number, committed, end, lag] = ["partition", "committed", "end", "lag"].map(|field| of(place, field).to_string());
        let told = text.lines().any(|line| line.split_whitespace().take(5).eq(["p.by-user.repartition", &number, &committed, &end, &lag]));
        assert!(told, "{place} is not in:\n{text}");
    }
}

#[test]
fn wrong_names_files_and_places_are_told() {
    let folder = folder();
    let folder = folder.path();
    let known = ["status", "history low", "swap low low filter", "rollback low", "pause low", "resume low", "delete low"];
    for command in known {
        bad(folder, &command.split(' ').collect::<Vec<_>>(), 1, "there is no fleet `millstream` here");
    }
    assert!(!folder.join(".millstream").exists());
    for command in known.into_iter().chain(["deploy p.yaml", "diff p.yaml"]) {
        let args = [&command.split(' ').collect::<Vec<_>>()[..], &["--brokers", "127.0.0.1:1"]].concat();
        bad(folder, &args, 6, "no Kafka broker answers");
    }
    bad(folder, &["deploy", "nowhere.yaml"], 3, "cannot read the file");
    bad(folder, &["diff", "nowhere.yaml"], 3, "cannot read the file");
    write(folder, "bad.yaml", PIPELINE.replace("sinks:", "snks:"));
    bad(folder, &["deploy", "bad.yaml"], 3, "did you mean `sinks`?");
    assert!(!folder.join(".millstream").exists(), "a file with mistakes begins no fleet");

    good(folder, &["deploy", "p.yaml"]);
    for command in ["status lo", "history lo", "swap lo low filter", "rollback lo", "pause lo", "resume lo", "delete lo"] {
        bad(folder, &command.split(' ').collect::<Vec<_>>(), 1, "did you mean `low`?");
    }
    bad(folder, &["history", "low", "--fleet", "other"], 1, "there is no fleet `other` here");
    bad(folder, &["rollback", "low"], 1, "is the first");
    bad(folder, &["rollback", "low", "--to", "7"], 1, "no generation 7");
    bad(folder, &["swap", "low", "lwo", "filter"], 1, "there is no stage `lwo`");
    bad(folder, &["swap", "low", "low", "filtre"], 1, "no standard plugin `filtre`");
    bad(folder, &["swap", "low", "low", "./nowhere.wasm"], 1, "cannot read ./nowhere.wasm");
    write(folder, "text.wasm", "no component");
    bad(folder, &["swap", "low", "low", "./text.wasm"], 1, "./text.wasm cannot be used");
    // A plugin that does not take the configuration: the mistake has its place in what is deployed.
    bad(folder, &["swap", "low", "low", "mask"], 3, "where");
    let output = millstream(folder).args(["status", "--fleet", "a/b"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn permissions_and_what_the_name_cannot_have_are_refused() {
    let folder = folder();
    let folder = folder.path();
    good(folder, &["deploy", "p.yaml"]);
    write(
        folder,
        "p.yaml",
        PIPELINE.replace("plugin: ./own.wasm, with: { where: 'stars < 3' }", "plugin: aggregate, with: { compute: { n: count() } }"),
    );
    let (code, refused, _) = call(folder, &["deploy", "p.yaml"]);
    let says = refused["error"].as_str().unwrap();
    assert!(code == 11 && says.contains("stage `low` gains `state`") && says.contains("--allow low=state"), "{refused}");
    bad(folder, &["deploy", "p.yaml", "--allow", "other=state"], 11, "gains");
    // The flags that it proposes are the ones that it takes.
    let flags: Vec<&str> = says.split(' ').skip_while(|word| *word != "--allow").collect();
    let allowed = good(folder, &[&["deploy", "p.yaml"][..], &flags].concat());
    assert!(allowed["generation"] == 2 && allowed["diff"]["class"] == "drain", "{allowed}");

    write(folder, "p.yaml", PIPELINE.replace("topic: ratings,", "topic: ratings, key: json,"));
    bad(folder, &["deploy", "p.yaml"], 11, "Give the pipeline another name");
    assert_eq!(good(folder, &["history", "low"])["generations"].as_array().unwrap().len(), 2);
}

/// A host of a fleet that answers as it is told.
struct Host {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Says = fn(Answered) -> Option<(Answered, &'static str)>;

impl Host {
    fn start(log: Arc<dyn Log>, fleet: &str, says: Says) -> Self {
        let mut control = Control::create(log, fleet, None).unwrap();
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        let alive = move || {
            let record =
                HostRecord { name: "m".to_owned(), version: "0".to_owned(), protocol: PROTOCOL, pid: 1, started: now(), at: now() };
            (Key::Host("h".to_owned()), Some(Value::Host(record)))
        };
        control.produce(&[alive()]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut done = Vec::new();
            let mut beat = std::time::Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if beat.elapsed() > Duration::from_secs(5) {
                    beat = std::time::Instant::now();
                    control.produce(&[alive()]).unwrap();
                }
                control.poll(Duration::from_millis(50)).unwrap();
                let heads = control.view().pipelines.iter().filter_map(|(name, known)| Some((name.clone(), known.head.clone()?)));
                for (name, head) in heads.collect::<Vec<_>>() {
                    let asked = head.next.as_ref().map(|next| (next.generation, Answered::Ready));
                    let active = (head.generation > 0 && head.state == State::Running).then_some((head.generation, Answered::Running));
                    for (generation, what) in asked.into_iter().chain(active) {
                        if done.contains(&(name.clone(), generation, what)) {
                            continue;
                        }
                        done.push((name.clone(), generation, what));
                        let Some((state, error)) = says(what) else { continue };
                        let error = (!error.is_empty()).then(|| error.to_owned());
                        let answer = Value::Answer(Answer { state, error, at: now() });
                        let mut entries = vec![(Key::Answer(name.clone(), generation, "h".to_owned()), Some(answer))];
                        if state == Answered::Running {
                            let cut = Value::Cut(Cut { offset: 7, host: "h".to_owned(), at: now(), keys: None, tried: None });
                            entries.push((Key::Cut(name.clone(), generation, TopicPartition::new("ratings", 0)), Some(cut)));
                        }
                        control.log().produce(&control.partition().topic, Some(0), &records(&entries, now())).unwrap();
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn willing(what: Answered) -> Option<(Answered, &'static str)> {
    Some((what, ""))
}

fn embedded_log(folder: &Path) -> Arc<dyn Log> {
    embedded::open(&folder.join(".millstream"), embedded::Options::default()).unwrap()
}

#[test]
fn hosts_are_asked_before_and_told_after() {
    let folder = folder();
    let folder = folder.path();
    let log = embedded_log(folder);
    log.create_topic("ratings", 1).unwrap();
    let host = Host::start(log.clone(), "millstream", willing);
    let (code, deployed, progress) = call(folder, &["deploy", "p.yaml"]);
    assert_eq!(code, 0, "{deployed} {progress}");
    assert!(
        deployed["state"] == "running" && deployed["cuts"][0]["offset"] == 7 && deployed["outstanding"] == serde_json::json!([]),
        "{deployed}"
    );
    let said: Vec<_> =
        ["asked of h to prepare it", "host h: ready", "generation 1 is active", "host h: running"].map(|one| progress.find(one)).into();
    assert!(said.iter().all(Option::is_some) && said.is_sorted(), "{progress}");
    let status = good(folder, &["status"]);
    assert!(status["hosts"][0]["live"] == true && status["pipelines"][0]["active"]["answers"]["h"]["state"] == "running", "{status}");
    let text = shown(folder, &["history", "low"]);
    assert!(text.contains("ratings/0 from offset 7 (host h)"), "{text}");
    drop(host);

    let host = Host::start(log.clone(), "millstream", |_| Some((Answered::Failed, "no secret `pepper` here")));
    write(folder, "p.yaml", PIPELINE.replace("stars < 3", "stars < 2"));
    bad(folder, &["deploy", "p.yaml"], 9, "no secret `pepper` here");
    drop(host);
    let host = Host::start(log.clone(), "millstream", |_| None);
    bad(folder, &["deploy", "p.yaml", "--timeout", "1"], 10, "no answer of h");
    let history = good(folder, &["history", "low"]);
    let withdrawn: Vec<bool> = history["generations"].as_array().unwrap().iter().map(|one| one["withdrawn"].is_string()).collect();
    assert_eq!(withdrawn, [false, true, true]);
    assert_eq!(good(folder, &["status", "low"])["pipelines"][0]["active"]["generation"], 1);
    bad(folder, &["rollback", "low", "--to", "2"], 1, "was withdrawn and never ran");

    // While one is on its way, everybody else has to wait.
    let first = millstream(folder).args(["deploy", "p.yaml", "--timeout", "60"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut control = Control::open(log, "millstream", None).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while control.refresh().unwrap().pipeline("low").and_then(|known| known.next()).is_none() {
        assert!(std::time::Instant::now() < deadline, "nothing is asked for");
        control.poll(Duration::from_millis(50)).unwrap();
    }
    bad(folder, &["swap", "low", "low", "filter"], 8, "is deploying generation 4");
    bad(folder, &["pause", "low"], 8, "is deploying generation 4");
    // A signal takes it back.
    let pid = first.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(130));
    let history = good(folder, &["history", "low"]);
    assert_eq!(history["generations"][3]["withdrawn"], "the command was interrupted");
    drop(host);
}

#[test]
fn on_kafka_too() {
    let Some(cluster) = cluster() else { return };
    let folder = folder();
    let folder = folder.path();
    let (fleet, topic, out, name) = (unique("fleet"), unique("ratings"), unique("low"), unique("pipeline"));
    let text = PIPELINE
        .replace("topic: ratings", &format!("topic: {topic}"))
        .replace("topic: low", &format!("topic: {out}"))
        .replace("pipeline: low", &format!("pipeline: {name}"));
    write(folder, "p.yaml", &text);
    let on = ["--brokers", &cluster.brokers, "--fleet", &fleet];
    let with = |args: &[&'static str]| -> Vec<String> { args.iter().copied().chain(on).map(str::to_owned).collect() };
    let args = |list: &[String]| list.iter().map(|text| text.replace("NAME", &name)).collect::<Vec<_>>();
    let go = |list: &[&'static str]| {
        let args = args(&with(list));
        call(folder, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (code, missing, _) = go(&["deploy", "p.yaml"]);
    assert!(code == 3 && missing.to_string().contains("is missing"), "{missing}");
    let (code, none, _) = go(&["status"]);
    assert!(code == 1 && none.to_string().contains("there is no fleet"), "{none}");
    let settings = millstream::settings::KafkaSettings::default();
    let log: Arc<dyn Log> = Arc::new(millstream::log::kafka::KafkaLog::connect(&cluster.brokers, settings).unwrap());
    log.create_topic(&topic, 2).unwrap();
    log.create_topic(&out, 2).unwrap();
    let (code, first, error) = go(&["deploy", "p.yaml"]);
    assert!(code == 0 && first["state"] == "no_host", "{first} {error}");
    assert!(log.retention(&format!("{fleet}.control")).unwrap().is_some_and(|kept| kept.compacted));
    let host = Host::start(log.clone(), &fleet, willing);
    write(folder, "p.yaml", text.replace("stars < 3", "stars < 2"));
    let (code, second, error) = go(&["deploy", "p.yaml"]);
    assert!(code == 0 && second["state"] == "running" && second["generation"] == 2, "{second} {error}");
    drop(host);

    // Two at once: the one that comes second writes nothing.
    let mut controls = [0, 1].map(|_| Control::open(log.clone(), &fleet, None).unwrap());
    let rounds = 6;
    let key = || Key::Head("counter".to_owned());
    let count =
        |control: &Control| control.view().pipeline("counter").and_then(|known| known.head.as_ref()).map_or(0, |head| head.generation);
    std::thread::scope(|scope| {
        for control in &mut controls {
            scope.spawn(move || {
                for _ in 0..rounds {
                    let change = control.change(|view| {
                        let known = view.pipeline("counter").and_then(|known| known.head.as_ref()).map_or(0, |head| head.generation);
                        let (change, by) = (String::new(), "me".to_owned());
                        let head = millstream::fleet::Head {
                            generation: known + 1,
                            next: None,
                            trial: None,
                            state: State::Running,
                            change,
                            at: 0,
                            by,
                        };
                        Ok(vec![(key(), Some(Value::Head(head)))])
                    });
                    change.unwrap();
                }
            });
        }
    });
    controls[0].refresh().unwrap();
    assert_eq!(count(&controls[0]), 2 * rounds, "no change was lost, none came twice");
}

/// A task writes its cut-over within its transaction: until that is over it hides what others have written behind it, which nobody may miss.
#[test]
fn on_kafka_an_open_transaction_is_waited_for() {
    let Some(cluster) = cluster() else { return };
    let settings = millstream::settings::KafkaSettings::default();
    let log: Arc<dyn Log> = Arc::new(millstream::log::kafka::KafkaLog::connect(&cluster.brokers, settings).unwrap());
    let (fleet, topic, group) = (unique("fleet"), unique("in"), unique("group"));
    log.create_topic(&topic, 1).unwrap();
    let control = Control::create(log.clone(), &fleet, None).unwrap();
    let membership = Membership { group, member: unique("m"), topics: vec![topic.as_str().into()], guarantee: Guarantee::ExactlyOnce };
    let mut member = log.member(&membership).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let limit = FetchLimit { rows: 1000, bytes: 1 << 20 };
    while !matches!(member.poll(limit, Duration::from_millis(200)).unwrap(), Event::Assigned(_)) {
        assert!(Instant::now() < deadline, "nothing is assigned");
    }
    let at = TopicPartition::new(topic.as_str(), 0);
    member.start(&[(at.clone(), 0)]).unwrap();
    let cut = (
        Key::Cut("p".to_owned(), 1, at.clone()),
        Some(Value::Cut(Cut { offset: 0, host: "h".to_owned(), at: 0, keys: None, tried: None })),
    );
    member.append(control.partition(), &records(&[cut], 0)).unwrap();
    while log.high_watermark(control.partition()).unwrap() == 0 {
        assert!(Instant::now() < deadline, "the append does not reach the brokers");
        member.poll(limit, Duration::from_millis(50)).unwrap();
    }
    // Behind it, a host's word.
    let answer = Value::Answer(Answer { state: Answered::Ready, error: None, at: 0 });
    control.produce(&[(Key::Answer("p".to_owned(), 1, "h".to_owned()), Some(answer))]).unwrap();
    let (send, come) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut control = control;
        let read = control.refresh().map(|view| {
            let known = view.pipeline("p");
            known.is_some_and(|known| known.cuts[&1].len() == 1 && known.answers[&1].len() == 1)
        });
        send.send(read).unwrap();
    });
    let early = come.recv_timeout(Duration::from_secs(1));
    assert!(early.is_err(), "it did not wait: {early:?}");
    let position = Position { offset: 0, metadata: String::new() };
    member.begin_commit(Commit { positions: vec![(at, position)], state: Vec::new() }).unwrap();
    while member.poll_commit(Duration::from_millis(100)).unwrap() == CommitState::InFlight {
        assert!(Instant::now() < deadline, "the commit does not end");
    }
    assert!(come.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), "something was missed");
    reader.join().unwrap();
}
