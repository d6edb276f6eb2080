//! The examples as a user runs them: topics filled from `data/`, the pipeline run to their ends, every output read. Each runs with batches of 1, 7 and
//! 1000 rows, whose outputs must be the same to the byte, and once more, with nothing left to do.

use crate::program;
use millstream::io::Log;
use millstream::log::embedded::EmbeddedLog;
use millstream::manifest::{self, Secrets};
use millstream::plugin::engine::Engine;
use millstream::runtime::{self, Creates};
use millstream::task::BatchLimit;
use millstream::worker::Options;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Test numbers that the data holds in many spellings; none may be in any output.
const CARDS: [&str; 5] = ["4444333322221111", "5555555555554444", "4111111111111111", "378282246310005", "6011111111111117"];

fn folder(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/examples").join(example)
}

fn millstream(example: &str, data: &Path, arguments: &[&str]) -> Output {
    let output = program::millstream(&folder(example))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env("MILLSTREAM_LOG", "millstream=trace")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {arguments:?}: {}\n{said}", output.status);
    output
}

/// What a run of an example wrote.
struct Ran {
    /// Lines of `consume`, by topic.
    topics: BTreeMap<String, String>,
    /// All that the runs printed and logged.
    said: String,
}

impl Ran {
    fn lines(&self, topic: &str) -> Vec<Value> {
        self.topics[topic].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The members `members` of each record's value.
    fn values(&self, topic: &str, members: &[&str]) -> Vec<Value> {
        let pick = |line: &Value| members.iter().map(|member| line["value"][member].clone()).collect();
        self.lines(topic).iter().map(pick).collect()
    }
}

/// An example's topics in a data folder of their own.
struct Place {
    example: &'static str,
    data: tempfile::TempDir,
}

impl Place {
    fn filled(example: &'static str) -> Self {
        let place = Self { example, data: tempfile::tempdir().unwrap() };
        let mut files: Vec<_> = std::fs::read_dir(folder(example).join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in &files {
            let topic = file.file_stem().unwrap().to_str().unwrap();
            place.millstream(&["topic", "create", topic]);
            place.millstream(&["produce", topic, "--file", file.to_str().unwrap()]);
        }
        place
    }

    fn millstream(&self, arguments: &[&str]) -> Output {
        millstream(self.example, self.data.path(), arguments)
    }

    /// Runs the pipeline to the ends in this process, where each plugin is compiled once for all tests. The count of records.
    fn run(&self, rows: usize) -> u64 {
        let file = folder(self.example).join("pipeline.yaml");
        let pipeline = manifest::load(&file, &Engine::new().unwrap()).unwrap().pipeline;
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(self.data.path()).unwrap());
        let limit = BatchLimit { rows, ..BatchLimit::default() };
        let setting = Arc::new(runtime::prepare(pipeline, &log, &Secrets::load().unwrap(), limit, Creates::All, None).unwrap());
        let options = Options { until_end: true, ..Options::default() };
        let (summary, ended) = runtime::run(&setting, &log, None, options, &Arc::new(AtomicBool::new(false)), &mut |_| {});
        ended.unwrap();
        summary.records
    }

    /// What the topics hold. Dead letters without their offsets and sorted: tasks on both sides of a repartition write them, in no fixed order.
    fn outputs(&self, topics: &[&str]) -> BTreeMap<String, String> {
        let consume = |topic: &&str| {
            let output = self.millstream(&["consume", topic, "--until-end"]);
            let text = String::from_utf8(output.stdout).unwrap();
            if !topic.ends_with(".dead") {
                return ((*topic).to_owned(), text);
            }
            let without_offset = |line: &str| {
                let mut letter: serde_json::Value = serde_json::from_str(line).unwrap();
                letter.as_object_mut().unwrap().remove("offset");
                letter.to_string() + "\n"
            };
            let mut letters: Vec<String> = text.lines().map(without_offset).collect();
            letters.sort();
            ((*topic).to_owned(), letters.concat())
        };
        topics.iter().map(consume).collect()
    }
}

/// Runs an example by the command, then again, then with other cuts, and hands its outputs out.
fn example(name: &'static str, topics: &[&str]) -> Ran {
    let place = Place::filled(name);
    let first = place.millstream(&["run", "pipeline.yaml", "--until-end"]);
    let ran = Ran { topics: place.outputs(topics), said: String::from_utf8_lossy(&[first.stdout, first.stderr].concat()).into_owned() };
    assert_eq!(place.run(1000), 0, "{name}: nothing is left to do");
    assert!(place.outputs(topics) == ran.topics, "{name}: a run without input changed the output");
    for rows in [1, 7] {
        let place = Place::filled(name);
        assert!(place.run(rows) > 0);
        for (topic, text) in place.outputs(topics) {
            assert!(text == ran.topics[&topic], "{name}: {topic} differs with batches of {rows}");
        }
    }
    ran
}

fn assert_no_cards(ran: &Ran) {
    for (place, text) in ran.topics.iter().map(|(topic, text)| (topic.as_str(), text)).chain([("what was printed", &ran.said)]) {
        for line in text.lines() {
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            for card in CARDS {
                assert!(!digits.contains(card), "a card number is in {place}: {line}");
            }
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn account_balance() {
    let ran = example("account-balance", &["balances"]);
    let balances: Vec<_> = ran.lines("balances").iter().map(|line| (line["key"].clone(), line["value"]["balance"].clone())).collect();
    let of = |key: &str| balances.iter().filter(|(of, _)| of == key).map(|(_, balance)| balance.as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!((of("account-1"), of("account-2"), of("account-3")), (vec![50, 75, 15], vec![100, 1], vec![7]));
}

#[test]
fn basket() {
    let ran = example("basket", &["basket_contents", "basket_history"]);
    let contents: Vec<_> = ran.lines("basket_contents").into_iter().map(|line| (line["key"].clone(), line["value"].clone())).collect();
    let last: BTreeMap<_, _> = contents.iter().map(|(key, value)| (key.as_str().unwrap(), value["quantity"].as_i64().unwrap())).collect();
    assert_eq!(last[r#"{"basket":"b1","item":"tea"}"#], 1);
    assert_eq!(last[r#"{"basket":"b1","item":"cup"}"#], 0);
    let history = ran.values("basket_history", &["events", "items", "changes"]);
    assert_eq!(history.last(), Some(&json(r#"[5,["tea","cup","tea","pot","cup"],[2,1,-1,1,-1]]"#)));
}

#[test]
fn sensor_cleansing() {
    let ran = example("sensor-cleansing", &["temp_clean", "temp_refused", "temp_refused_counts", "temp_dead"]);
    let clean = ran.values("temp_clean", &["SENSOR_ID", "TEMP"]);
    assert!(clean.iter().all(|value| value[0].is_string() && (-50.0..=60.0).contains(&value[1].as_f64().unwrap())));
    let refused = ran.lines("temp_refused");
    let mut counts = BTreeMap::new();
    refused.iter().for_each(|line| *counts.entry(line["value"]["reason"].as_str().unwrap()).or_insert(0) += 1);
    let told = ran.values("temp_refused_counts", &["reason", "readings"]);
    let told: BTreeMap<_, _> = told.iter().map(|value| (value[0].as_str().unwrap(), value[1].as_i64().unwrap())).collect();
    assert_eq!(counts, told);
    assert_eq!(counts.len(), 3);
    // Two stages read the source, and each refuses the reading that is no number.
    assert_eq!(clean.len() + refused.len() + ran.lines("temp_dead").len() / 2, 400);
}

#[test]
fn page_views() {
    let ran = example("page-views", &["page_views_enriched", "page_views_gold"]);
    let views = ran.values("page_views_enriched", &["user_id", "level"]);
    assert_eq!(views.len(), 300);
    assert!(views.iter().any(|view| view[0].is_null()), "views of nobody pass");
    for view in &views {
        let known = view[0].as_str().and_then(|user| user.strip_prefix("user_")?.parse::<u32>().ok()).is_some_and(|user| user <= 20);
        assert_eq!(known, view[1].is_string(), "{view}");
    }
    assert_eq!(views.iter().filter(|view| view[1] == "gold").count(), ran.lines("page_views_gold").len());
}

#[test]
fn card_masking() {
    let ran = example("card-masking", &["payments_masked", "payments_dead"]);
    assert_no_cards(&ran);
    let masked = &ran.topics["payments_masked"];
    assert!(!masked.contains('４') && masked.matches("1111").count() >= 12);
    let lines = ran.lines("payments_masked");
    assert_eq!(lines.len(), 17);
    let keys: Vec<_> = lines.iter().filter(|line| line["key"] == "xxxx-xxxx-xxxx-1111").collect();
    assert_eq!((keys.len(), &keys[1]["value"]), (2, &Value::Null), "the delete has the key of its record");
    assert!(masked.contains(r#"{"id":26,"c\u0061rd":"xxxx-xxxx-xxxx-1111"}"#), "what did not change stays to the byte");
    assert!(masked.contains(r#"{"id":30,"rating_time":1519304105213,"note":"nothing here","phone":"030 1234567"}"#));
    let dead = ran.lines("payments_dead");
    assert_eq!(dead.len(), 3);
    assert!(dead.iter().all(|letter| letter["key"].is_null() && letter["value"].is_null()));
}

#[test]
fn ratings() {
    let outputs = ["unhappy_platinum_customers", "poor_ratings", "ratings_by_club_status", "ratings.dead"];
    let ran = example("ratings", &outputs);
    assert_no_cards(&ran);
    assert!(ran.topics.values().all(|text| !text.contains("expletive") && !text.contains("iOS-test")));
    assert!(ran.topics["poor_ratings"].contains("xxxx") && ran.topics["poor_ratings"].contains("****"));

    // The same from the files, by other means.
    let read = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder("ratings").join("data").join(name)).unwrap();
        text.lines().map(json).collect()
    };
    let users: BTreeMap<_, _> =
        read("users.jsonl").iter().map(|line| (line["value"]["id"].clone().as_i64(), line["value"].clone())).collect();
    let (mut unhappy, mut poor) = (Vec::new(), Vec::new());
    for line in read("ratings.jsonl") {
        let (rating, timestamp) = (&line["value"], line["timestamp"].as_i64().unwrap());
        let ahead = rating["rating_time"].as_i64().is_none_or(|time| time > timestamp + 3_600_000);
        if ahead || rating["channel"] == "iOS-test" || rating["stars"].as_i64().is_none_or(|stars| stars >= 3) {
            continue;
        }
        poor.push(rating["rating_id"].clone());
        if users.get(&rating["user_id"].as_i64()).is_some_and(|user| user["club_status"] == "Platinum") {
            unhappy.push(rating["rating_id"].clone());
        }
    }
    let ids = |topic: &str| ran.lines(topic).iter().map(|line| line["value"]["rating_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("poor_ratings"), poor);
    assert_eq!(ids("unhappy_platinum_customers"), unhappy);
    assert!(unhappy.len() > 100 && poor.len() > 500);

    let mut last: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for value in ran.values("ratings_by_club_status", &["club_status", "window_start", "ratings", "window_end"]) {
        let start = value[1].as_i64().unwrap();
        assert_eq!((start % 60_000, value[3].as_i64().unwrap()), (0, start + 60_000));
        let counted = last.entry((value[0].as_str().unwrap().to_owned(), start)).or_default();
        *counted += 1;
        assert_eq!(value[2].as_i64(), Some(*counted), "an update for each rating");
    }
    assert_eq!(last.keys().map(|(club, _)| club.as_str()).collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert!(last.len() >= 4 * 12);
}

#[test]
fn order_payments() {
    let ran = example("order-payments", &["orders_paid", "orders_unpaid", "customer_labels", "order_payments.dead"]);
    // The same from the files, by other means.
    let read = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder("order-payments").join("data").join(name)).unwrap();
        text.lines().map(json).collect()
    };
    let (orders, payments) = (read("orders.jsonl"), read("payments.jsonl"));
    let time = |line: &Value| line["timestamp"].as_i64().unwrap();
    let end = orders.iter().chain(&payments).map(time).max().unwrap();
    let (mut paid, mut unpaid) = (Vec::new(), Vec::new());
    for order in &orders {
        let of_order = payments.iter().filter(|payment| payment["value"]["order_id"] == order["value"]["id"]);
        let paying: Vec<_> = of_order.filter(|payment| (time(payment) - time(order)).abs() <= 600_000).collect();
        paid.extend(paying.iter().map(|payment| (order["value"]["id"].to_string(), payment["value"]["amount"].as_i64())));
        if paying.is_empty() && time(order) + 660_000 < end {
            unpaid.push((order["value"]["id"].to_string(), None));
        }
    }
    for (topic, mut expected) in [("orders_paid", paid), ("orders_unpaid", unpaid)] {
        let mut found: Vec<_> =
            ran.values(topic, &["order", "paid"]).iter().map(|value| (value[0].to_string(), value[1].as_i64())).collect();
        found.sort();
        expected.sort();
        assert!(found.len() > 10 && found == expected, "{topic}: {} of {}", found.len(), expected.len());
    }
    let mut rows: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for (file, left) in [("customers.jsonl", true), ("addresses.jsonl", false)] {
        for line in read(file) {
            let row = rows.entry(line["key"].to_string()).or_default();
            *(if left { &mut row.0 } else { &mut row.1 }) = line["value"].clone();
        }
    }
    let labels: BTreeMap<_, _> =
        ran.lines("customer_labels").into_iter().map(|mut line| (line["key"].to_string(), line["value"].take())).collect();
    for (key, (customer, address)) in rows {
        let label = labels.get(&key).cloned().unwrap_or_default();
        let expected =
            if customer.is_null() { Value::Null } else { serde_json::json!({ "name": customer["name"], "city": address["city"] }) };
        assert_eq!(label, expected, "{key}");
    }
}

/// The cases that stand in the manifests.
#[test]
fn manifest_tests() {
    let mut examples: Vec<_> = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    examples.sort();
    assert!(examples.len() >= 6);
    for example in examples {
        let example = example.to_str().unwrap();
        let output = program::millstream(&folder(example)).args(["test", "pipeline.yaml"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{example}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}
