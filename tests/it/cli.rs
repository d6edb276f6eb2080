//! The command as a user meets it: the demo, files in place of topics, dry runs, exit codes.

use crate::program::millstream;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ran(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const PIPELINE: &str = "\
pipeline: unhappy
sources: { ratings: { topic: ratings, schema: { stars: int } } }
stages:
  - { name: low, plugin: filter, with: { where: 'stars < 3' } }
sinks:
  - { from: low, topic: low }
";

const RATINGS: &str =
    "{\"key\":\"a\",\"value\":{\"stars\":1}}\n{\"key\":\"b\",\"value\":{\"stars\":5}}\n{\"key\":\"c\",\"value\":{\"stars\":2}}\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("ratings.jsonl"), RATINGS).unwrap();
    folder
}

/// Keys of printed records.
fn keys(stdout: &[u8]) -> Vec<String> {
    let parsed = text(stdout).lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>();
    parsed.iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_demo_tells_what_came_of_it_and_can_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let demo = || {
        let mut command = millstream(folder.path());
        command.args(["demo", "--output", "json"]);
        serde_json::from_slice::<serde_json::Value>(&ran(command).stdout).unwrap()
    };
    let first = demo();
    assert_eq!(first["run"]["records"], 3000);
    assert!(first["outputs"].as_array().unwrap().iter().all(|output| output["records"].as_i64().unwrap() > 0), "{first}");
    let second = demo();
    assert_eq!(second["run"]["records"], 0);
    assert_eq!(first["outputs"], second["outputs"]);
}

#[test]
fn files_and_standard_streams_stand_in_for_topics() {
    let folder = folder();
    let mut command = millstream(folder.path());
    command.args(["run", "pipeline.yaml", "--source", "ratings=ratings.jsonl", "--sink", "low=-"]);
    assert_eq!(keys(&ran(command).stdout), ["a", "c"]);
    assert!(!folder.path().join(".millstream").exists(), "topics of files are gone with the run");

    for more in [&["--until-end", "--sink", "low=-"][..], &["--dry-run"]] {
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--source", "ratings=ratings.jsonl"]).args(more);
        assert_eq!(keys(&ran(command).stdout), ["a", "c"], "{more:?}");
    }

    let mut command = millstream(folder.path());
    command.args(["run", "pipeline.yaml", "--source", "ratings=-", "--sink", "low=low.jsonl"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(RATINGS.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(keys(&std::fs::read(folder.path().join("low.jsonl")).unwrap()), ["a", "c"]);
}

#[test]
fn a_dry_run_shows_and_leaves_everything_as_it_was() {
    let folder = folder();
    let mut command = millstream(folder.path());
    command.args(["produce", "ratings", "-f", "ratings.jsonl"]);
    ran(command);
    for _ in 0..2 {
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--dry-run"]);
        assert_eq!(keys(&ran(command).stdout), ["a", "c"]);
    }
    let mut command = millstream(folder.path());
    command.args(["run", "pipeline.yaml", "--until-end", "--limit", "1", "--batch-rows", "1", "--output", "json"]);
    let summary: serde_json::Value = serde_json::from_slice(&ran(command).stdout).unwrap();
    assert_eq!(summary["records"], 1);
    let mut command = millstream(folder.path());
    command.args(["run", "pipeline.yaml", "--until-end", "--output", "json"]);
    let summary: serde_json::Value = serde_json::from_slice(&ran(command).stdout).unwrap();
    assert_eq!(summary["records"], 2, "the limited run stands");
    let mut command = millstream(folder.path());
    command.args(["consume", "low", "--until-end"]);
    assert_eq!(keys(&ran(command).stdout), ["a", "c"]);
}

#[test]
fn a_failing_manifest_test_says_where() {
    let folder = folder();
    let case = "tests:\n  - name: one is low\n    given: { ratings: [{ key: a, value: { stars: 1 } }] }\n    expect:\n      low:\n        - { value: { stars: 2 } }\n";
    std::fs::write(folder.path().join("pipeline.yaml"), format!("{PIPELINE}{case}")).unwrap();
    let output = millstream(folder.path()).args(["test", "pipeline.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let said = text(&output.stdout);
    assert!(said.contains("FAILED") && said.contains("stars is 1, not 2") && said.contains("pipeline.yaml:12:"), "{said}");
}

#[test]
fn a_wrong_source_is_told_by_name() {
    let folder = folder();
    let output = millstream(folder.path()).args(["run", "pipeline.yaml", "--source", "rating=ratings.jsonl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no source or table of that name"), "{}", text(&output.stderr));
}

#[test]
fn files_are_told_apart_and_all_that_is_written_can_be_seen() {
    let folder = folder();
    let run = |more: &[&str]| {
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--source", "ratings=ratings.jsonl"]).args(more);
        command.output().unwrap()
    };
    for sink in ["ratings.jsonl", "./ratings.jsonl"] {
        let refused = run(&["--sink", &format!("low={sink}")]);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains("is the file of `ratings` too"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("ratings.jsonl")).unwrap(), RATINGS, "it was left alone");
    // Of a record of three, however large the batches.
    assert_eq!(keys(&run(&["--limit", "1", "--sink", "low=-"]).stdout), ["a"]);

    // What was printed of a topic with several partitions.
    let printed =
        RATINGS.replace("{\"key\"", "{\"topic\":\"wide\",\"partition\":7,\"offset\":3,\"key\"").replace("\"stars\":2", "\"stars\":\"?\"");
    std::fs::write(folder.path().join("ratings.jsonl"), printed).unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), format!("{PIPELINE}on_error: {{ dead_letter: dead }}\n")).unwrap();
    let ran = run(&["--sink", "low=-", "--sink", "dead=dead.jsonl"]);
    assert_eq!(keys(&ran.stdout), ["a"], "{}", text(&ran.stderr));
    assert_eq!(keys(&std::fs::read(folder.path().join("dead.jsonl")).unwrap()), ["c"]);
}

#[test]
fn output_that_is_lost_is_an_error_and_no_panic() {
    let (folder, temporary) = (folder(), tempfile::tempdir().unwrap());
    for args in [&["check", "pipeline.yaml"][..], &["run", "pipeline.yaml", "--source", "ratings=ratings.jsonl", "--dry-run"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = millstream(folder.path());
        let output = command.args(args).env("TMPDIR", temporary.path()).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("cannot write to standard output: No space left"), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "{args:?}");
    }
}

#[test]
fn a_dry_run_appends_nothing_to_topics_that_stay() {
    let folder = folder();
    for args in [&["--source", "ratings=ratings.jsonl"][..], &["--source", "ratings=-"]] {
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--dry-run"]).args(args).env("MILLSTREAM_DATA", folder.path().join("data"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("MILLSTREAM_DATA"), "{said}");
        assert!(!folder.path().join("data").exists());
    }
}

#[test]
fn wrong_arguments_are_told_as_json_too() {
    let folder = folder();
    let output = millstream(folder.path()).args(["--output", "json", "run", "pipeline.yaml", "--limit", "x"]).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.code() == Some(2) && told["name"] == "usage" && told["exit"] == 2, "{told}");
    assert!(told["error"].as_str().unwrap().contains("--limit"), "{told}");
}

#[test]
fn a_run_that_is_told_to_stop_while_it_waits_for_input_leaves_no_folder() {
    for signals in 1..=2 {
        let folder = folder();
        let temporary = tempfile::tempdir().unwrap();
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--source", "ratings=-", "--sink", "low=-"]).env("TMPDIR", temporary.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(RATINGS.as_bytes()).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert!(std::fs::read_dir(temporary.path()).unwrap().count() > 0);
        for _ in 0..signals {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
        }
        // Its input stays open.
        child.wait().unwrap();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "after {signals} signals");
    }
}

#[test]
fn a_process_that_stands_still_is_told() {
    let folder = folder();
    std::fs::write(folder.path().join("all.jsonl"), RATINGS).unwrap();
    let mut command = millstream(folder.path());
    command.args(["produce", "ratings", "-f", "all.jsonl"]);
    ran(command);
    let mut holder =
        Holder(millstream(folder.path()).args(["run", "pipeline.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let low = || keys(&millstream(folder.path()).args(["consume", "low", "--until-end"]).output().unwrap().stdout).len();
    let mut reaches = |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while low() < count {
            assert!(Instant::now() < deadline && holder.0.try_wait().unwrap().is_none(), "{} of {count}", low());
        }
    };
    reaches(2);
    let mut producer = millstream(folder.path());
    let mut producer =
        producer.args(["produce", "ratings"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let line = b"{\"key\":\"d\",\"value\":{\"stars\":1}}\n";
    producer.stdin.as_mut().unwrap().write_all(line).unwrap();
    reaches(3);
    let signal = |signal: &str| assert!(Command::new("kill").args([signal, &holder.0.id().to_string()]).status().unwrap().success());
    signal("-STOP");
    // Of one that has an answer to come, and of one that is yet to be greeted.
    producer.stdin.take().unwrap().write_all(line).unwrap();
    let list = millstream(folder.path()).args(["topic", "list"]).output().unwrap();
    let produced = producer.wait_with_output().unwrap();
    signal("-CONT");
    signal("-TERM");
    for (output, says) in [(list, "does not answer"), (produced, "whether what was asked for last was done is unknown")] {
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(6) && said.contains(&holder.0.id().to_string()) && said.contains(says), "{said}");
    }
    assert!(holder.0.wait().unwrap().success());
}

/// Ended with the test.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
