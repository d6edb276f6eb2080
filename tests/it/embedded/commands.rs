//! `topic`, `produce` and `consume` through the program: on the embedded log, and what does not depend on the log also on Kafka.

use crate::cluster::{cluster, unique};
use crate::program::millstream;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Where the topics are.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Folder(&'a Path),
    Brokers(&'a str),
}

fn command(place: Place<'_>, args: &[&str]) -> Command {
    let mut command = millstream(Path::new("."));
    command.args(args);
    match place {
        Place::Folder(folder) => command.arg("--data").arg(folder),
        Place::Brokers(brokers) => command.args(["--brokers", brokers]),
    };
    command
}

/// Runs a command with this input to its end.
fn run(place: Place<'_>, args: &[&str], input: &[u8]) -> Output {
    let mut child = command(place, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A command that ends before its input does closes it: no failure of the test.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

fn ok(place: Place<'_>, args: &[&str], input: &[u8]) -> String {
    let output = run(place, args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fails(place: Place<'_>, args: &[&str], input: &[u8], code: i32) -> String {
    let output = run(place, args, input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    error
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn topics_are_created_listed_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::Folder(folder.path());
    assert!(ok(at, &["topic", "list"], b"").contains("no topics yet"));
    assert_eq!(ok(at, &["topic", "create", "ratings", "--partitions", "2"], b""), "created topic ratings with 2 partitions\n");
    assert!(fails(at, &["topic", "create", "ratings"], b"", 6).contains("exists already"));
    ok(at, &["produce", "ratings", "--partition", "1"], b"{\"value\":1}\n{\"value\":2}\n");
    assert_eq!(json(&ok(at, &["topic", "list", "--output", "json"], b"")), serde_json::json!([{ "topic": "ratings", "partitions": 2 }]));
    let described = json(&ok(at, &["topic", "describe", "ratings", "--group", "p", "--output", "json"], b""));
    assert_eq!(described["records"], 2);
    assert_eq!(
        described["partitions"][1],
        serde_json::json!({ "partition": 1, "begin": 0, "end": 2, "records": 2, "position": null, "lag": 2 })
    );
    let text = ok(at, &["topic", "describe", "ratings"], b"");
    assert!(text.starts_with("ratings: 2 records\n") && text.contains("partition"), "{text}");
    let error = fails(at, &["topic", "describe", "ratngs"], b"", 6);
    assert!(error.contains("did you mean `ratings`?"), "{error}");
}

#[test]
fn what_is_consumed_can_be_produced_again() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(Place::Folder(folder.path()), "one", "two");
}

#[test]
fn what_is_consumed_from_kafka_can_be_produced_again() {
    let Some(cluster) = cluster() else { return };
    let at = Place::Brokers(&cluster.brokers);
    let (one, two) = (unique("one"), unique("two"));
    round_trip(at, &one, &two);
    let error = fails(at, &["produce", &one[..one.len() - 1]], b"{\"value\":1}\n", 6);
    assert!(error.contains("did you mean"), "{error}");
    assert!(ok(at, &["topic", "list"], b"").contains(&two));
}

fn round_trip(at: Place<'_>, one: &str, two: &str) {
    let lines = [
        &b"{\"key\":\"k\",\"value\":{\"a\" : 1.50},\"timestamp\":1700000000000,\"headers\":{\"h\":\"v\",\"n\":null}}\n"[..],
        b"plain\tnot json \xff\n",
        b"3\t null \n",
        b"{\"key_base64\":\"/w==\",\"value\":null,\"headers\":[[\"x\",\"1\"],[\"x\",{\"base64\":\"/w==\"}]]}\n",
        b"{\"value_text\":\"\"}\r\n\n",
        b"{\"key\":{\"id\":7},\"value\":\"text\"}",
    ]
    .concat();
    ok(at, &["topic", "create", one, "--partitions", "3"], b"");
    ok(at, &["topic", "create", two, "--partitions", "3"], b"");
    assert!(ok(at, &["produce", one], &lines).starts_with(&format!("appended 6 records to {one}")));
    let consumed = ok(at, &["consume", one, "--until-end"], b"");
    assert_eq!(consumed.lines().count(), 6);
    assert!(
        consumed.contains("\"timestamp\":1700000000000,\"key\":\"k\",\"value\":{\"a\" : 1.50},\"headers\":{\"h\":\"v\",\"n\":null}}"),
        "{consumed}"
    );
    ok(at, &["produce", two], consumed.as_bytes());
    let mut again: Vec<String> = ok(at, &["consume", two, "--until-end"], b"").lines().map(str::to_owned).collect();
    let mut consumed: Vec<String> = consumed.lines().map(str::to_owned).collect();
    consumed.sort();
    again.sort();
    assert_eq!(again, consumed);
    let values = ok(at, &["consume", one, "--until-end", "--values", "--partition", "2"], b"");
    let described = json(&ok(at, &["topic", "describe", one, "--output", "json"], b""));
    assert_eq!(values.lines().count() as i64, described["partitions"][2]["records"].as_i64().unwrap());
}

#[test]
fn a_line_that_is_no_record_is_named_and_nothing_is_lost_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::Folder(folder.path());
    let error = fails(at, &["produce", "t"], b"{\"value\":1}\n\n{\"value\":2}\n4111111111111111\n{\"value\":3}\n", 1);
    assert!(error.contains("standard input, line 4") && error.contains("2 records before were appended, nothing after"), "{error}");
    assert!(!error.contains("4111"), "{error}");
    assert_eq!(ok(at, &["consume", "t", "--until-end", "--values"], b""), "1\n2\n");
    let error = fails(at, &["produce", "t"], b"{\"value\":1,\"partition\":5}\n", 1);
    assert!(error.contains("line 1") && error.contains("no partition 5") && error.contains("nothing was appended"), "{error}");
    assert_eq!(
        ok(at, &["produce", "raw", "--raw", "--output", "json"], b"4111111111111111\n{\"value\":3}\n").trim(),
        "{\"topic\":\"raw\",\"created\":true,\"records\":2,\"partitions\":{\"0\":2}}"
    );
    assert_eq!(ok(at, &["consume", "raw", "--until-end", "--values"], b""), "4111111111111111\n{\"value\":3}\n");
    ok(at, &["produce", "sep", "--key-separator", "|"], b"a|b\tc\n");
    assert!(ok(at, &["consume", "sep", "--until-end"], b"").contains("\"key\":\"a\",\"value_text\":\"b\\tc\""));
}

#[test]
fn consume_begins_and_stops_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::Folder(folder.path());
    let lines: String =
        (0..3000).map(|number| format!("{{\"value\":{number},\"timestamp\":{}}}\n", 1_700_000_000_000_i64 + number * 1000)).collect();
    ok(at, &["produce", "t"], lines.as_bytes());
    let values = |args: &[&str]| -> Vec<i64> {
        let args: Vec<&str> = ["consume", "t", "--until-end", "--values"].iter().chain(args).copied().collect();
        ok(at, &args, b"").lines().map(|line| line.parse().unwrap()).collect()
    };
    assert_eq!(values(&[]), (0..3000).collect::<Vec<_>>());
    assert_eq!(values(&["--from", "2990"]), (2990..3000).collect::<Vec<_>>());
    assert_eq!(values(&["--from", "2023-11-14T22:13:25Z", "--limit", "2"]), [5, 6]);
    assert_eq!(values(&["--from", "latest"]), Vec::<i64>::new());
    assert_eq!(values(&["--from", "9999"]), Vec::<i64>::new());
    fails(at, &["consume", "t", "--from", "sometime"], b"", 2);
    assert!(fails(at, &["consume", "t", "--partition", "1"], b"", 6).contains("no partition 1"));
    let error = fails(at, &["consume", "nowhere", "--until-end"], b"", 6);
    assert!(error.contains("no topic `nowhere`"), "{error}");
}

/// A `consume` that follows, as it prints.
struct Follower {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follower {
    fn start(place: Place<'_>) -> Self {
        let mut child = command(place, &["consume", "t", "--values"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn interrupt(mut self) -> Option<i32> {
        let kill = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap().code()
    }
}

#[test]
fn consume_follows_what_others_append_and_ends_well_when_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::Folder(folder.path());
    ok(at, &["produce", "t"], b"{\"value\":1}\n");
    // The first holds the folder, the second asks it, as `produce` does.
    let (mut first, mut second) = (Follower::start(at), Follower::start(at));
    assert_eq!((first.next(), second.next()), ("1".to_owned(), "1".to_owned()));
    ok(at, &["produce", "t"], b"{\"value\":2}\n");
    assert_eq!((first.next(), second.next()), ("2".to_owned(), "2".to_owned()));
    assert_eq!(first.interrupt(), Some(0));
    ok(at, &["produce", "t"], b"{\"value\":3}\n");
    assert_eq!(second.next(), "3");
    assert_eq!(second.interrupt(), Some(0));
}

#[test]
fn consume_ends_quietly_when_nobody_reads_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::Folder(folder.path());
    let lines: String = (0..50_000).map(|number| format!("{{\"value\":{number}}}\n")).collect();
    ok(at, &["produce", "t"], lines.as_bytes());
    let mut child = command(at, &["consume", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"offset\":0"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()), (Some(0), String::new()));
}
