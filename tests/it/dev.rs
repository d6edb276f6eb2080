//! `millstream dev`: what is saved takes over, what is wrong leaves what runs, what is written is shown.

use crate::program::millstream;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn manifest(version: &str) -> String {
    format!(
        "pipeline: p
sources: {{ in: {{ topic: in, schema: {{ id: int }} }} }}
stages:
  - {{ name: label, plugin: ./label.wasm, with: {{ set: {{ version: '{version}' }} }} }}
sinks: [{{ from: label, topic: out }}]
"
    )
}

/// The lines of a stream, as they come.
fn lines(stream: impl Read + Send + 'static, to: std::sync::mpsc::Sender<String>) {
    std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
}

struct Dev {
    child: Child,
    said: Receiver<String>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn new(folder: &Path) -> Self {
        let mut child = millstream(folder).args(["dev", "p.yaml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (to, said) = channel();
        lines(child.stdout.take().unwrap(), to.clone());
        lines(child.stderr.take().unwrap(), to);
        Self { child, said }
    }

    #[track_caller]
    fn says(&self, what: &str) {
        let since = Instant::now();
        let mut heard = Vec::new();
        while let Ok(line) = self.said.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
            if line.contains(what) {
                return;
            }
            heard.push(line);
        }
        panic!("`{what}` is not said; heard:\n{}", heard.join("\n"));
    }
}

#[test]
fn what_is_saved_takes_over_and_what_is_wrong_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let save = |text: &str| std::fs::write(folder.join("p.yaml"), text).unwrap();
    std::fs::write(folder.join("label.wasm"), millstream::plugin::standard::component("map").unwrap()).unwrap();
    save(&manifest("1"));
    let produce = |id: u64| {
        let mut child = millstream(folder).args(["produce", "in"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{{\"key\":\"k\",\"value\":{{\"id\":{id}}}}}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    let mut dev = Dev::new(folder);
    dev.says("generation 1 runs on every live host");
    produce(1);
    dev.says(r#""value":{"id":1,"version":1}"#);
    save(&manifest("2"));
    dev.says("generation 2 runs on every live host");
    produce(2);
    dev.says(r#""value":{"id":2,"version":2}"#);
    save(&manifest("2").replace("set:", "sett:"));
    dev.says("did you mean `set`?");
    dev.says("what ran goes on");
    produce(3);
    dev.says(r#""value":{"id":3,"version":2}"#);
    // Saved while a deployment is under way: it comes next.
    save(&manifest("3"));
    dev.says("class: hot");
    save(&manifest("4"));
    dev.says("generation 4 runs on every live host");
    // A component that is none, and one that is.
    std::fs::write(folder.join("label.wasm"), b"no component").unwrap();
    dev.says("what ran goes on");
    std::fs::write(folder.join("label.wasm"), millstream::plugin::standard::component("filter").unwrap()).unwrap();
    dev.says("what ran goes on");
    produce(4);
    dev.says(r#""value":{"id":4,"version":4}"#);

    rustix::process::kill_process(rustix::process::Pid::from_child(&dev.child), rustix::process::Signal::TERM).unwrap();
    assert!(dev.child.wait().unwrap().success());
    // What it leaves can be run without a fleet.
    std::fs::write(folder.join("label.wasm"), millstream::plugin::standard::component("map").unwrap()).unwrap();
    let run = millstream(folder).args(["run", "p.yaml", "--until-end"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let refused = millstream(folder).args(["dev", "p.yaml", "--brokers", "127.0.0.1:1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("runs on the embedded log"));
}
