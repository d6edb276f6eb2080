//! `millstream schema`, through the program.

use crate::program;
use millstream::log::Connection;
use millstream::record::RecordsBuilder;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

fn millstream(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child =
        program::millstream(folder).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const LINES: &str = r#"{"id":1,"stars":4,"channel":"web","address":{"city":"Bern"},"a.b":1.5,"tags":["x"]}
{"id":2,"stars":4.5,"channel":null,"address":{"city":"Ulm","zip":"1"},"a.b":2,"tags":[]}

not json 4444333322221111
[1]
"#;

#[test]
fn a_block_for_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let output = millstream(folder.path(), &["schema", "infer", "-"], LINES);
    let expected = r#"# From 2 records of standard input. Left out: 1 not valid JSON (the first: line 4, byte 2), 1 no objects.
schema:
  id: int             # 2 of 2
  stars: float        # 2 of 2; 1 of them written as int
  channel: text?      # 1 of 2; null in 1
  address.city: text  # 2 of 2
  address.zip: text?  # 1 of 2; missing in 1
  '"a.b"': float      # 2 of 2; 1 of them written as int
  tags: json          # 2 of 2; an array
"#;
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn json_for_scripts_and_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample"), LINES).unwrap();
    let output = millstream(folder.path(), &["schema", "infer", "sample", "--limit", "1", "--output", "json"], "");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["schema"]["stars"], "int");
    assert_eq!((answer["records"].as_u64(), answer["not_json"].as_u64()), (Some(1), Some(0)));
    assert_eq!(answer["fields"][2]["path"], "channel");
}

#[test]
fn lines_as_produce_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"key\":\"1\",\"value\":{\"a\":1}}\n{\"key\":\"2\",\"value\":null}\n{\"value\":{\"a\":2},\"timestamp\":1}\n";
    let output = millstream(folder.path(), &["schema", "infer", "-"], lines);
    assert!(text(&output.stdout).ends_with("schema:\n  a: int  # 2 of 2\n"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("1 tombstones"));

    // As `consume` prints what is no JSON, or JSON in bytes that it would not keep.
    let lines = "{\"value\":{\"a\":1}}\n{\"key_base64\":\"/w==\",\"value_text\":\" {\\\"a\\\": 2}\"}\n{\"value_base64\":\"/w==\"}\n{\"value_text\":\"{\"}\n";
    let output = millstream(folder.path(), &["schema", "infer", "-"], lines);
    assert!(text(&output.stdout).ends_with("schema:\n  a: int  # 2 of 2\n"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("2 not valid JSON (the first: record 3"), "{}", text(&output.stdout));
}

#[test]
fn nothing_to_infer_from_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (input, says) in [("", "there are no records"), ("4444333322221111 x\n", "not valid JSON"), ("[1]\n", "no objects")] {
        let output = millstream(folder.path(), &["schema", "infer", "-"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("4444"), "an error never quotes a record");
    }
    let output = millstream(folder.path(), &["schema", "infer", "./missing"], "");
    assert!(text(&output.stderr).contains("./missing"), "{}", text(&output.stderr));
}

#[test]
fn a_topic_and_a_file_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection { data: Some(folder.path().join(".millstream")), ..Connection::default() };
    let log = connection.open().unwrap();
    log.create_topic("ratings", 2).unwrap();
    for partition in [0, 1] {
        let mut records = RecordsBuilder::default();
        for place in 0..50 {
            let value = format!("{{\"partition_{partition}\":{place}}}");
            records.push(place, Some(b"k"), (place % 10 > 0).then_some(value.as_bytes()), []);
        }
        log.produce("ratings", Some(partition), &records.finish()).unwrap();
    }
    drop(log);
    let infer = |args: &[&str]| millstream(folder.path(), &[&["schema", "infer", "--output", "json"], args].concat(), "");

    let answer: serde_json::Value = serde_json::from_slice(&infer(&["ratings"]).stdout).unwrap();
    assert_eq!((answer["records"].as_u64(), answer["tombstones"].as_u64()), (Some(90), Some(10)));
    assert_eq!((&answer["schema"]["partition_0"], &answer["schema"]["partition_1"]), (&"int?".into(), &"int?".into()));
    // Both partitions have their share of a limit.
    let answer: serde_json::Value = serde_json::from_slice(&infer(&["ratings", "--limit", "10"]).stdout).unwrap();
    assert_eq!(answer["records"].as_u64(), Some(8));
    assert_eq!(answer["schema"].as_object().unwrap().len(), 2);

    std::fs::write(folder.path().join("ratings"), "{\"from_file\":true}\n").unwrap();
    let output = infer(&["ratings"]);
    assert!(text(&output.stdout).contains("from_file"));
    assert!(text(&output.stderr).contains("a file and a topic"), "{}", text(&output.stderr));
    assert!(text(&infer(&["ratings", "--topic"]).stdout).contains("partition_0"));
    assert!(text(&infer(&["rating"]).stdout).contains("ratings"), "the topics that there are");
}

#[test]
fn the_published_schemas_can_be_printed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, has) in [("manifest", "/properties/pipeline"), ("contract", "/about.schema.json/properties/name")] {
        let output = millstream(folder.path(), &["schema", name], "");
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema.pointer(has).is_some(), "{name}");
    }
}
