//! A host: the program with a data folder of its own, and what can befall it.

use super::super::Place;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest that a host may take to do what it was told.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Host {
    pub name: String,
    pub data: PathBuf,
    /// The command that it runs.
    arguments: Vec<String>,
    /// Of its environment, beside what all have.
    pub variables: Vec<(&'static str, String)>,
    /// What all of its processes have said.
    log: PathBuf,
    child: Option<Child>,
}

impl Host {
    pub fn new(place: &Place, name: &str, arguments: &[&str]) -> Self {
        let folder = place.path().join("hosts");
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let host = Self { name: name.to_owned(), data, arguments, variables: Vec::new(), log, child: None };
        std::fs::create_dir_all(&host.data).unwrap();
        host
    }

    /// Starts the program; `fault`: what it does to itself.
    pub fn start(&mut self, place: &Place, fault: Option<&str>) {
        self.start_with(place, fault, &[]);
    }

    /// The same of a host that tells what it has: see `has_partitions`.
    pub fn start_watched(&mut self, place: &Place, fault: &str) {
        self.start_with(place, Some(fault), &["--listen", "127.0.0.1:0"]);
    }

    /// Whether the group has given it partitions, of one that was started to be watched.
    pub fn has_partitions(&self) -> bool {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.rsplit("--- started").next().unwrap_or_default();
        let address = last.lines().find_map(|line| line.split_once("listening address=")?.1.split_whitespace().next());
        let Some(mut stream) = address.and_then(|address| TcpStream::connect(address).ok()) else { return false };
        let mut answer = String::new();
        // Err: it has ended meanwhile.
        let asked = write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains("\nkafka_consumergroup_lag{")
    }

    fn start_with(&mut self, place: &Place, fault: Option<&str>, more: &[&str]) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let mut log = self.log();
        writeln!(log, "--- started, fault {fault:?}").unwrap();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = place.command(&[&arguments[..], more, &["--log", "warn,millstream=info", "--output", "json"]].concat());
        command.envs(self.variables.iter().cloned()).env("MILLSTREAM_DATA", &self.data);
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        if let Some(fault) = fault {
            command.env("MILLSTREAM_FAULT", fault);
        }
        self.child = Some(command.spawn().unwrap());
    }

    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.log).unwrap()
    }

    /// The end of what it has said.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether its last process has said only that no broker answers: one that has begun goes on whatever they do.
    pub fn found_no_broker(&self) -> bool {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.rsplit("--- started").next().unwrap_or_default();
        last.contains("no Kafka broker answers") && !last.contains(" WARN ") && !last.contains(" INFO ")
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits for its end; None if it does not come.
    pub fn end_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Tells it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.end_within(PATIENCE).unwrap_or_else(|| panic!("{} does not stop:\n{}", self.name, self.said()))
    }

    pub fn halt(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Whether the process is stopped, as by itself at a point.
    pub fn halted(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status().unwrap();
        assert!(done.success(), "{} is gone", self.name);
    }

    fn id(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Its copies of the state.
    pub fn state(&self) -> PathBuf {
        self.data.join("state")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.said());
        }
    }
}

/// A file system of its own on a folder, so small that it can be filled; None where it may not be made.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    pub fn on(folder: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(folder).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { at: folder.to_owned() })
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut file = File::create(self.at.join("fill")).unwrap();
        let zeros = vec![0; 1 << 16];
        while file.write_all(&zeros).is_ok() {}
        while file.write_all(&[0; 64]).is_ok() {}
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.at.join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
