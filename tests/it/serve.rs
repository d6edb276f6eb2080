//! A host of a fleet over HTTP: figures and health of all that it runs, and the API by which the fleet is steered.

mod api;

use crate::pipelines::operation::Figures;
use crate::program::millstream;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PIPELINE: &str = "\
pipeline: NAME
sources: { in: { topic: ratings, schema: { stars: int } } }
stages:
  - { name: low, plugin: filter, with: { where: 'stars < 3' } }
sinks:
  - { from: low, topic: NAME }
";

fn manifest(name: &str) -> String {
    PIPELINE.replace("NAME", name)
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A host that listens, on the embedded log of a folder of its own.
struct Host {
    folder: tempfile::TempDir,
    child: Child,
    /// Of its environment, and of that of commands beside it.
    variables: Vec<(String, String)>,
    address: String,
    said: Arc<Mutex<String>>,
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = millstream(folder);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Host {
    fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args, &[])
    }

    fn start_in(folder: tempfile::TempDir, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let own: &[&str] = if args.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let all = [&["serve", "--log", "info"], own, args].concat();
        let mut child = command(folder.path(), &all).envs(variables.iter().copied()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, heard) = (child.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        let mut address = None;
        until("an address that is told", || {
            let said = said.lock().unwrap();
            address = said.lines().find_map(|line| Some(line.split_once("listening address=")?.1.trim().to_owned()));
            assert!(child.try_wait().unwrap().is_none(), "it ended: {said}");
            address.is_some()
        });
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { folder, child, variables, address: address.unwrap(), said }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.path(), args);
        command.envs(self.variables.iter().cloned());
        command
    }

    /// A command beside the host, which ends well.
    #[track_caller]
    fn call(&self, args: &[&str]) -> Value {
        let output = self.command(args).args(["--output", "json"]).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {out} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    fn produce(&self, topic: &str, lines: &str) {
        let mut child = self.command(&["produce", topic, "--raw"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
    }

    fn deploy(&self, name: &str) -> Value {
        let file = format!("{name}.yaml");
        std::fs::write(self.path().join(&file), manifest(name)).unwrap();
        self.call(&["deploy", &file])
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = if headers.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{length}{headers}Connection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).unwrap();
        // Whoever is refused may be so before all was read.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn health(&self) -> (u16, Value) {
        let (status, body) = self.ask("GET", "/healthz", "", b"");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// A request of the API with a JSON body, and its JSON answer.
    fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.request_as("", method, path, body)
    }

    fn request_as(&self, headers: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, answer) = self.ask(method, path, headers, &body);
        (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method} {path}: {status}: {error}: {answer}")))
    }

    /// A request that is done.
    #[track_caller]
    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// A request that is refused, with the name of the exit code, and what is said.
    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: &Value, (status, name, says): (u16, &str, &str)) -> Value {
        let (found, answer) = self.request(method, path, body);
        assert_eq!((found, answer["name"].as_str()), (status, Some(name)), "{method} {path}: {answer}");
        assert!(answer.to_string().contains(says), "{method} {path}: {answer}");
        answer
    }

    fn figures(&self) -> Figures {
        let (status, text) = self.ask("GET", "/metrics", "", b"");
        assert_eq!(status, 200, "{text}");
        Figures::parse_named(&text)
    }

    /// Tells it to stop, and waits: it ends well.
    fn end(mut self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.said.lock().unwrap());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn figures_and_health_are_of_all_pipelines() {
    let host = Host::start(&[]);
    assert_eq!(host.health(), (200, json!({ "status": "running", "pipeline": null, "pipelines": {} })));
    host.call(&["topic", "create", "ratings", "--partitions", "2"]);
    host.deploy("one");
    host.deploy("two");
    host.produce("ratings", "{\"stars\":1}\n{\"stars\":5}\n{\"stars\":2}\n");
    // Each family once, or `parse_named` would not have it.
    until("both have read all, and their lag is known", || {
        let figures = host.figures();
        ["one", "two"].iter().all(|name| {
            let lag = |partition| {
                figures.find(&format!("kafka_consumergroup_lag{{consumergroup=\"{name}\",partition=\"{partition}\",topic=\"ratings\"}}"))
            };
            let read = figures.find(&format!("millstream_records_read_total{{pipeline=\"{name}\",worker=\"0\"}}"));
            lag(0) == Some(0.0) && lag(1) == Some(0.0) && read == Some(3.0)
        })
    });
    let figures = host.figures();
    for name in ["one", "two"] {
        let of = |metric: &str| figures.find(&format!("{metric}{{pipeline=\"{name}\"}}"));
        assert_eq!(of("millstream_generation_active"), Some(1.0));
        assert_eq!(of("millstream_generation_on_trial"), Some(0.0));
        assert_eq!(of("millstream_parked_partitions"), Some(0.0));
        assert_eq!(of("millstream_pipeline_failed"), Some(0.0));
        assert_eq!(figures.find(&format!("millstream_sink_records_total{{pipeline=\"{name}\",topic=\"{name}\"}}")), Some(2.0));
        assert_eq!(figures.find(&format!("millstream_generation{{pipeline=\"{name}\",worker=\"0\"}}")), Some(1.0));
    }
    let standing = json!({ "status": "running", "parked": 0 });
    assert_eq!(host.health(), (200, json!({ "status": "running", "pipeline": null, "pipelines": { "one": standing, "two": standing } })));

    // A turn from one generation to the next is measured.
    std::fs::write(host.path().join("two.yaml"), manifest("two").replace("< 3", "< 2")).unwrap();
    assert_eq!(host.call(&["deploy", "two.yaml"])["diff"]["class"], "hot");
    host.produce("ratings", "{\"stars\":1}\n{\"stars\":2}\n");
    until("the turn is in the figures", || {
        let figures = host.figures();
        figures.find("millstream_generation{pipeline=\"two\",worker=\"0\"}") == Some(2.0)
            && figures.find("millstream_turn_duration_seconds_count{pipeline=\"two\",worker=\"0\"}").is_some_and(|count| count > 0.0)
    });
    // Beside it, one in the shadow that differs.
    std::fs::write(host.path().join("two.yaml"), manifest("two").replace("< 3", "< 1")).unwrap();
    host.call(&["deploy", "two.yaml", "--shadow"]);
    host.produce("ratings", "{\"stars\":1}\n{\"stars\":0}\n");
    until("the comparison is in the figures", || {
        let figures = host.figures();
        let of = |metric: &str| figures.find(&format!("{metric}{{generation=\"3\",pipeline=\"two\"}}"));
        figures.find("millstream_generation_on_trial{pipeline=\"two\"}") == Some(3.0)
            && of("millstream_shadow_records_total") == Some(2.0)
            && of("millstream_shadow_differences_total") == Some(1.0)
    });
    listed(&host.figures());

    host.call(&["pause", "one"]);
    until("the pause is seen", || host.health().1["pipelines"]["one"]["status"] == "paused");
    assert_eq!((&host.health().1["pipeline"], &host.health().1["status"]), (&json!("one"), &json!("paused")), "the worst of them");
    host.call(&["delete", "one"]);
    until("it is gone", || host.health().1["pipelines"].get("one").is_none());
    assert_eq!(host.figures().find("millstream_generation_active{pipeline=\"one\"}"), None);
    host.end();
}

/// Every figure stands in the documentation.
fn listed(figures: &Figures) {
    let page = include_str!("../../host/docs/operation.md");
    for name in figures.0.keys() {
        let metric = name.split('{').next().unwrap();
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| metric.strip_suffix(suffix));
        let known = [Some(metric), histogram].into_iter().flatten().any(|name| page.contains(&format!("`{name}`")));
        assert!(known, "operation.md does not list {metric}");
    }
}

#[test]
fn what_stands_still_is_told() {
    let host = Host::start(&[]);
    host.call(&["topic", "create", "ratings", "--partitions", "1"]);
    host.deploy("strict");
    host.produce("ratings", "{\"stars\":\"x\"}\n");
    until("the partition is parked", || host.health().1["pipelines"]["strict"]["parked"] == 1);
    assert_eq!(host.figures().find("millstream_parked_partitions{pipeline=\"strict\"}"), Some(1.0));
    host.end();
}

const SECRET: &str = "\
pipeline: hashed
sources: { in: { topic: ratings, schema: { stars: int, user: text } } }
stages:
  - { name: hide, plugin: mask, with: { rules: [{ fields: [user], hash: { secret: PEPPER } }] } }
sinks:
  - { from: hide, topic: hashed }
";

#[test]
fn the_worst_pipeline_is_told() {
    // Deployed where no host lives: it is active, and cannot run on one without its secret.
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("hashed", SECRET.to_owned()), ("well", manifest("well"))] {
        let file = format!("{name}.yaml");
        std::fs::write(folder.path().join(&file), text).unwrap();
        let output = command(folder.path(), &["deploy", &file]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let host = Host::start_in(folder, &[], &[]);
    until("one runs, one has failed", || {
        let (status, health) = host.health();
        health["pipelines"]["well"]["status"] == "running" && health["pipelines"]["hashed"]["status"] == "failed" && status == 503
    });
    let (_, health) = host.health();
    assert_eq!((&health["status"], &health["pipeline"]), (&json!("failed"), &json!("hashed")), "{health}");
    assert!(health["pipelines"]["hashed"]["error"].as_str().unwrap().contains("PEPPER"), "{health}");
    assert_eq!(host.figures().find("millstream_pipeline_failed{pipeline=\"hashed\"}"), Some(1.0));
    host.end();
}
