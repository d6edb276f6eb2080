//! The records of the control topic. Keys are text, values JSON (chunks of components: bytes); a tombstone takes back what its key said.

pub use crate::generation::Cut;
use crate::io::TopicPartition;
use crate::record::{Records, RecordsBuilder};
use crate::shadow::Report;
use crate::share::Keys;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What this program writes and understands. Told in a header of every record, so that a newer program's are set aside rather than misread.
pub const PROTOCOL: u32 = 1;
/// The header that tells it, as digits.
pub const PROTOCOL_HEADER: &str = "protocol";
/// The header of a chunk that tells how many there are, as digits.
pub const COUNT_HEADER: &str = "chunks";
/// A chunk of a component, bytes; the last is shorter.
pub const CHUNK: usize = 512 << 10;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `head/<pipeline>`
    Head(String),
    /// `generation/<pipeline>/<number>`
    Generation(String, u64),
    /// `component/<digest>/<chunk>`
    Component(String, u32),
    /// `cut/<pipeline>/<generation>/<topic>/<partition>`
    Cut(String, u64, TopicPartition),
    /// `answer/<pipeline>/<generation>/<host>`
    Answer(String, u64, String),
    /// `host/<id>`
    Host(String),
    /// `parked/<pipeline>/<topic>/<partition>`
    Parked(String, TopicPartition),
    /// `shadow/<pipeline>/<generation>/<host>`
    Shadow(String, u64, String),
}

impl Key {
    /// None: no key that this program knows.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let at = |topic: &str, partition: &str| Some(TopicPartition::new(topic, partition.parse().ok().filter(|number| *number >= 0)?));
        Some(match parts.as_slice() {
            ["head", pipeline] => Self::Head((*pipeline).to_owned()),
            ["generation", pipeline, number] => Self::Generation((*pipeline).to_owned(), number.parse().ok()?),
            ["component", digest, chunk] => Self::Component((*digest).to_owned(), chunk.parse().ok()?),
            ["cut", pipeline, number, topic, partition] => Self::Cut((*pipeline).to_owned(), number.parse().ok()?, at(topic, partition)?),
            ["answer", pipeline, number, host] => Self::Answer((*pipeline).to_owned(), number.parse().ok()?, (*host).to_owned()),
            ["shadow", pipeline, number, host] => Self::Shadow((*pipeline).to_owned(), number.parse().ok()?, (*host).to_owned()),
            ["host", id] => Self::Host((*id).to_owned()),
            ["parked", pipeline, topic, partition] => Self::Parked((*pipeline).to_owned(), at(topic, partition)?),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head(pipeline) => write!(f, "head/{pipeline}"),
            Self::Generation(pipeline, number) => write!(f, "generation/{pipeline}/{number}"),
            Self::Component(digest, chunk) => write!(f, "component/{digest}/{chunk}"),
            Self::Cut(pipeline, number, at) => write!(f, "cut/{pipeline}/{number}/{at}"),
            Self::Answer(pipeline, number, host) => write!(f, "answer/{pipeline}/{number}/{host}"),
            Self::Shadow(pipeline, number, host) => write!(f, "shadow/{pipeline}/{number}/{host}"),
            Self::Host(id) => write!(f, "host/{id}"),
            Self::Parked(pipeline, at) => write!(f, "parked/{pipeline}/{at}"),
        }
    }
}

/// What hosts are to do with a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Paused,
    /// Nothing runs while positions and state are reset.
    Stopped,
    Deleted,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

/// How a generation takes the place of the one that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Task by task, at the boundary of a transaction.
    Hot,
    /// Every host commits and gives its tasks up, then all begin anew from the committed positions.
    Drain,
    /// Nothing runs that it could take over from.
    New,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Drain => "drain",
            Self::New => "new",
        }
    }
}

/// The clocks of two machines differ by less than this, milliseconds.
pub const SKEW: i64 = 10_000;

/// Which generation of a pipeline is to run. Written by compare-and-set only (`Control::change`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The active one; 0 = none yet, or deleted.
    pub generation: u64,
    /// One that hosts are asked to prepare: load and compile it, and answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// One that works in some partitions, beside the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    pub state: State,
    /// A random id of the last write.
    pub change: String,
    /// Of the last write, milliseconds since the epoch.
    pub at: i64,
    pub by: String,
}

impl Head {
    /// Whether nothing more is to be taken of the user's sources. Once the command that asked for it has given up, that is over. `now`: milliseconds since the
    /// epoch.
    pub fn shuts(&self, now: i64) -> bool {
        self.next.as_ref().is_some_and(|next| next.empties && now <= next.until.saturating_add(SKEW))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub generation: u64,
    /// How it will take over.
    pub mode: Class,
    /// By when the command that asks gives up, milliseconds since the epoch: after that it was killed, and another may take its place.
    pub until: i64,
    /// Hosts are to take no more of the user's sources meanwhile, and to go on with what is under way: repartition topics are to be empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empties: bool,
}

/// A generation on trial, until it is promoted or rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub generation: u64,
    pub mode: Mode,
    /// When it began, milliseconds since the epoch.
    pub since: i64,
}

/// How a generation is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It works in these partition numbers: at least one, never all; or in all, for some keys.
    Canary {
        partitions: BTreeSet<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<Keys>,
        terms: Terms,
    },
    /// It processes what the active one does, over its state, and is compared with it; what it gives is dropped.
    Shadow {
        /// So many records in a row without a difference, over all hosts, promote it; None = a command decides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clean: Option<u64>,
    },
}

impl Mode {
    /// Whether what the two generations give is compared.
    pub fn compares(&self) -> bool {
        match self {
            Self::Canary { terms, .. } => terms.differences.is_some(),
            Self::Shadow { .. } => true,
        }
    }
}

impl Trial {
    /// The partition numbers in which it works.
    pub fn partitions(&self) -> Option<&BTreeSet<i32>> {
        match &self.mode {
            Mode::Canary { partitions, .. } => Some(partitions),
            Mode::Shadow { .. } => None,
        }
    }

    /// The keys of them for which it does; None = all.
    pub fn keys(&self) -> Option<Keys> {
        match &self.mode {
            Mode::Canary { keys, .. } => *keys,
            Mode::Shadow { .. } => None,
        }
    }
}

/// What decides about a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// How long it must do well before it is promoted, milliseconds; None = a command decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_after: Option<i64>,
    /// How much more of its records may be refused than of the generation beside it, as a share of them.
    pub errors: f64,
    /// How many times as long a record may take; None = that does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower: Option<f64>,
    /// Of how many of its records something else may come than of the generation beside it, as a share of them; None = they are not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences: Option<f64>,
}

// Shares are of a command line, never NaN.
impl Eq for Trial {}

/// How a generation came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Deploy,
    /// One stage's plugin was replaced.
    Swap {
        stage: String,
    },
    /// The content of an earlier generation.
    Rollback {
        of: u64,
    },
    /// The same content from other positions; `cleared`: without the state that there was.
    Reset {
        cleared: bool,
    },
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deploy => f.write_str("deploy"),
            Self::Swap { stage } => write!(f, "swap of stage {stage}"),
            Self::Rollback { of } => write!(f, "rollback to {of}"),
            Self::Reset { cleared: false } => f.write_str("reset of positions"),
            Self::Reset { cleared: true } => f.write_str("reset of positions and state"),
        }
    }
}

/// A component, whose chunks stand in the topic before the first record that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRef {
    /// SHA-256, hexadecimal.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    pub chunks: u32,
    /// What the plugin calls itself.
    pub name: String,
    pub version: String,
}

/// All that a host needs to run a pipeline, beside topics and secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// From 1, rising.
    pub number: u64,
    /// The generation that it replaces; 0 = none.
    pub base: u64,
    pub kind: Kind,
    /// The manifest's text.
    pub manifest: String,
    /// Its file's name, for diagnostics.
    pub name: String,
    /// Files with schemas, by their paths as the manifest has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// By what the manifest says under `plugin:`, standard plugins too: every host runs the very same component.
    pub plugins: BTreeMap<String, ComponentRef>,
    pub class: Class,
    /// The generation with which the pipeline's state was emptied last; 0 = never.
    #[serde(default)]
    pub epoch: u64,
    /// Of manifest, files and plugins: SHA-256, its first 16 hexadecimal digits.
    pub digest: String,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub by: String,
    /// Why it never became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// How far a host is with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// Loaded, compiled, checked against the log.
    Ready,
    /// No more of the user's sources is taken for the generation before, and what was taken is committed.
    Shut,
    /// Every task of this host runs it.
    Running,
    Failed,
    /// The host goes, or takes no part any more.
    Left,
}

impl Answered {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Shut => "shut",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// What a host says about a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub state: Answered,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Milliseconds since the epoch.
    pub at: i64,
}

/// A host that lives; written anew every five seconds, a tombstone when it leaves in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// The machine's name, for people.
    pub name: String,
    /// Of the program.
    pub version: String,
    pub protocol: u32,
    pub pid: u32,
    /// Milliseconds since the epoch, as is `at`.
    pub started: i64,
    pub at: i64,
}

/// A partition that stands still until `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    pub reason: String,
    pub generation: u64,
    pub host: String,
    /// Milliseconds since the epoch.
    pub at: i64,
}

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Head(Head),
    Generation(Generation),
    /// A chunk's bytes, and how many chunks the component has.
    Chunk(Vec<u8>, u32),
    Cut(Cut),
    Answer(Answer),
    Host(HostRecord),
    Parked(Parked),
    Shadow(Report),
}

impl Value {
    /// The value of a record under this key. `count`: the header of that name. Err: why it is none; never quotes it.
    pub fn parse(key: &Key, bytes: &[u8], count: Option<u32>) -> Result<Self, String> {
        fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
            serde_json::from_slice(bytes)
                .map_err(|error| format!("its value does not fit: line {}, column {}", error.line(), error.column()))
        }
        Ok(match key {
            Key::Head(_) => Self::Head(json(bytes)?),
            Key::Generation(..) => Self::Generation(json(bytes)?),
            Key::Component(..) => Self::Chunk(bytes.to_vec(), count.ok_or("it does not say how many chunks there are")?),
            Key::Cut(..) => Self::Cut(json(bytes)?),
            Key::Answer(..) => Self::Answer(json(bytes)?),
            Key::Host(_) => Self::Host(json(bytes)?),
            Key::Parked(..) => Self::Parked(json(bytes)?),
            Key::Shadow(..) => Self::Shadow(json(bytes)?),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        // Structs of texts and numbers always serialize.
        match self {
            Self::Head(head) => serde_json::to_vec(head),
            Self::Generation(generation) => serde_json::to_vec(generation),
            Self::Chunk(bytes, _) => return bytes.clone(),
            Self::Cut(cut) => serde_json::to_vec(cut),
            Self::Answer(answer) => serde_json::to_vec(answer),
            Self::Host(host) => serde_json::to_vec(host),
            Self::Parked(parked) => serde_json::to_vec(parked),
            Self::Shadow(report) => serde_json::to_vec(report),
        }
        .unwrap_or_default()
    }
}

/// A record to be written; None = a tombstone.
pub type Entry = (Key, Option<Value>);

/// Entries as records of the control topic, for whoever appends them within a transaction of its own. `now`: milliseconds since the epoch.
pub fn records(entries: &[Entry], now: i64) -> Records {
    let mut builder = RecordsBuilder::default();
    let protocol = PROTOCOL.to_string();
    for (key, value) in entries {
        let count = match value {
            Some(Value::Chunk(_, count)) => Some(count.to_string()),
            _ => None,
        };
        let headers = [(PROTOCOL_HEADER, Some(&protocol)), (COUNT_HEADER, count.as_ref())];
        let headers = headers.iter().filter_map(|(name, value)| Some((name.as_bytes(), Some(value.as_ref()?.as_bytes()))));
        let bytes = value.as_ref().map(Value::bytes);
        builder.push(now, Some(key.to_string().as_bytes()), bytes.as_deref(), headers);
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let texts = [
            "head/ratings",
            "generation/ratings/12",
            "component/ab12/0",
            "cut/ratings/12/ratings.by-club.repartition/3",
            "answer/ratings/12/0123456789ab",
            "host/0123456789ab",
            "parked/ratings/ratings/0",
            "shadow/ratings/12/0123456789ab",
        ];
        for text in texts {
            assert_eq!(Key::parse(text).map(|key| key.to_string()).as_deref(), Some(text));
        }
        for text in ["", "head", "head/", "head/a/b", "generation/p/x", "cut/p/1/t/-1", "canary/p/1", "component//0"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn records_say_what_the_design_says() {
        let head = Head {
            generation: 3,
            next: Some(Next { generation: 4, mode: Class::Hot, until: 9, empties: false }),
            trial: None,
            state: State::Running,
            change: "c".to_owned(),
            at: 5,
            by: "me".to_owned(),
        };
        let text = r#"{"generation":3,"next":{"generation":4,"mode":"hot","until":9},"state":"running","change":"c","at":5,"by":"me"}"#;
        assert_eq!(serde_json::to_string(&head).unwrap(), text);
        assert_eq!(Value::parse(&Key::Head("p".to_owned()), text.as_bytes(), None), Ok(Value::Head(head)));
        for (kind, text) in [
            (Kind::Deploy, r#""deploy""#),
            (Kind::Swap { stage: "a".to_owned() }, r#"{"swap":{"stage":"a"}}"#),
            (Kind::Rollback { of: 2 }, r#"{"rollback":{"of":2}}"#),
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), text);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_told_and_not_quoted() {
        let error = Value::parse(&Key::Host("h".to_owned()), br#"{"name":"secret"}"#, None).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        assert!(Value::parse(&Key::Component("d".to_owned(), 0), b"x", None).is_err());
    }
}
