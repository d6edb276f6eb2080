//! What the records of a control topic amount to: the last word under each key. Whatever cannot be understood is kept aside and told, never guessed.

use super::component::Components;
use super::record::{Answer, COUNT_HEADER, Cut, Generation, Head, HostRecord, Key, PROTOCOL, PROTOCOL_HEADER, Parked, State, Value};
use crate::io::{Fetched, TopicPartition};
use crate::shadow::Report;
use std::collections::{BTreeMap, VecDeque};

/// A host that has not been heard of for so long is taken for gone, milliseconds.
pub const LIVE: i64 = 20_000;

/// Ids of changes that are remembered: an earlier write of one's own is looked for among the newest.
const REMEMBERED: usize = 1000;
/// Records that are kept aside, at most; the oldest go first.
const ASIDE: usize = 100;

/// Everything that is known of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    pub head: Option<Head>,
    pub generations: BTreeMap<u64, Generation>,
    /// By generation: where it began, by partition.
    pub cuts: BTreeMap<u64, BTreeMap<TopicPartition, Cut>>,
    /// By generation and host.
    pub answers: BTreeMap<u64, BTreeMap<String, Answer>>,
    pub parked: BTreeMap<TopicPartition, Parked>,
    /// By generation and host: how one on trial compares there.
    pub shadows: BTreeMap<u64, BTreeMap<String, Report>>,
}

impl Deployment {
    /// The generation that is to run.
    pub fn active(&self) -> Option<&Generation> {
        let head = self.head.as_ref().filter(|head| head.state != State::Deleted)?;
        self.generations.get(&head.generation)
    }

    /// The generation that hosts are asked to prepare.
    pub fn next(&self) -> Option<&Generation> {
        self.generations.get(&self.head.as_ref()?.next.as_ref()?.generation)
    }

    /// The last generation before this one that has worked in some partition; else the one that it replaces.
    pub fn ran_before(&self, number: u64) -> Option<&Generation> {
        let ran = self.cuts.range(..number).rev().find(|(_, cuts)| !cuts.is_empty()).map(|(ran, _)| *ran);
        self.generations.get(&ran.or_else(|| Some(self.generations.get(&number)?.base))?)
    }

    /// With which generation the state was emptied last; 0 = never.
    pub fn epoch(&self) -> u64 {
        self.generations.values().map(|generation| generation.epoch).max().unwrap_or(0)
    }

    /// Above every number that was ever given.
    pub fn next_number(&self) -> u64 {
        let known = self.generations.keys().chain(self.cuts.keys()).chain(self.answers.keys()).max().copied().unwrap_or(0);
        known.max(self.head.as_ref().map_or(0, |head| head.generation)) + 1
    }
}

/// A host, and when it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub record: HostRecord,
    /// The later of what the record says and of the record's own time, milliseconds since the epoch.
    pub at: i64,
    /// Records of it that were read: one more is a sign of life, whatever the clocks say.
    pub signs: u64,
}

impl Heard {
    pub fn is_live(&self, now: i64) -> bool {
        now.saturating_sub(self.at) < LIVE
    }
}

/// A record that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    pub offset: i64,
    /// As text; bytes that are none replaced.
    pub key: String,
    pub why: String,
}

/// The fold of a control topic.
#[derive(Debug)]
pub struct View {
    pub pipelines: BTreeMap<String, Deployment>,
    /// By host id.
    pub hosts: BTreeMap<String, Heard>,
    /// Oldest first.
    pub aside: VecDeque<Aside>,
    /// Records that could not be understood, those that are no longer kept too.
    pub set_aside: u64,
    pub components: Components,
    changes: VecDeque<String>,
}

impl View {
    pub fn new(components: Components) -> Self {
        Self {
            pipelines: BTreeMap::new(),
            hosts: BTreeMap::new(),
            aside: VecDeque::new(),
            set_aside: 0,
            components,
            changes: VecDeque::new(),
        }
    }

    pub fn pipeline(&self, name: &str) -> Option<&Deployment> {
        self.pipelines.get(name)
    }

    /// Hosts that were heard of lately, by id. `now`: milliseconds since the epoch.
    pub fn live(&self, now: i64) -> impl Iterator<Item = (&str, &HostRecord)> {
        self.hosts.iter().filter(move |(_, heard)| heard.is_live(now)).map(|(id, heard)| (id.as_str(), &heard.record))
    }

    /// How a generation on trial compares, over all hosts that live. `now`: milliseconds since the epoch.
    pub fn shadow(&self, pipeline: &str, generation: u64, now: i64) -> Report {
        let mut total = Report::default();
        let reports = self.pipeline(pipeline).and_then(|known| known.shadows.get(&generation));
        let live = reports.into_iter().flatten().filter(|(host, _)| self.hosts.get(*host).is_some_and(|heard| heard.is_live(now)));
        live.for_each(|(_, report)| total.add(report));
        total
    }

    /// Whether a change with this random id was read, perhaps overwritten since.
    pub fn saw(&self, change: &str) -> bool {
        self.changes.iter().any(|seen| seen == change)
    }

    pub fn fold(&mut self, fetched: &Fetched) {
        for (row, offset) in fetched.offsets.iter().enumerate() {
            let records = &fetched.records;
            let header = |name| number(fetched, row, name);
            let key = records.keys.bytes(row).unwrap_or_default();
            let told = self.record(key, records.values.bytes(row), records.timestamps[row], header(PROTOCOL_HEADER), header(COUNT_HEADER));
            if let Err(why) = told {
                let aside = Aside { offset: *offset, key: String::from_utf8_lossy(key).chars().take(200).collect(), why };
                tracing::warn!(offset = aside.offset, key = %aside.key, "a record of the control topic is set aside: {}", aside.why);
                self.set_aside += 1;
                self.aside.push_back(aside);
                if self.aside.len() > ASIDE {
                    self.aside.pop_front();
                }
            }
        }
    }

    /// Takes the chunks of one component out of records that were folded already.
    pub fn gather(&mut self, digest: &str, fetched: &Fetched) {
        for row in 0..fetched.offsets.len() {
            let key = fetched.records.keys.bytes(row).and_then(|key| Key::parse(std::str::from_utf8(key).ok()?));
            if let Some(Key::Component(of, chunk)) = key
                && of == digest
                && let Some(bytes) = fetched.records.values.bytes(row)
                && let Some(count) = number(fetched, row, COUNT_HEADER)
                && let Err(why) = self.components.add(digest, chunk, bytes, count)
            {
                tracing::warn!("the component {digest}: {why}");
            }
        }
    }

    /// Err: why the record is set aside; what stood under its key stays.
    fn record(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: i64,
        protocol: Option<u32>,
        count: Option<u32>,
    ) -> Result<(), String> {
        if let Some(newer) = protocol.filter(|protocol| *protocol > PROTOCOL) {
            return Err(format!("it is of protocol {newer}, this program knows {PROTOCOL}: a newer program writes here"));
        }
        let text = std::str::from_utf8(key).ok();
        let Some(key) = text.and_then(Key::parse) else {
            return Err("its key is none that this program knows: a newer program, or something else, writes here".to_owned());
        };
        match value {
            Some(value) => {
                let value = Value::parse(&key, value, count)?;
                self.put(key, value, timestamp)
            }
            None => {
                self.remove(&key);
                Ok(())
            }
        }
    }

    fn put(&mut self, key: Key, value: Value, timestamp: i64) -> Result<(), String> {
        match (key, value) {
            (Key::Head(pipeline), Value::Head(head)) => {
                self.changes.push_back(head.change.clone());
                if self.changes.len() > REMEMBERED {
                    self.changes.pop_front();
                }
                self.pipelines.entry(pipeline).or_default().head = Some(head);
            }
            (Key::Generation(pipeline, number), Value::Generation(generation)) => {
                if generation.number != number {
                    return Err(format!("it holds the generation {}", generation.number));
                }
                self.pipelines.entry(pipeline).or_default().generations.insert(number, generation);
            }
            (Key::Component(digest, chunk), Value::Chunk(bytes, count)) => return self.components.add(&digest, chunk, &bytes, count),
            (Key::Cut(pipeline, number, at), Value::Cut(cut)) => {
                self.pipelines.entry(pipeline).or_default().cuts.entry(number).or_default().insert(at, cut);
            }
            (Key::Answer(pipeline, number, host), Value::Answer(answer)) => {
                self.pipelines.entry(pipeline).or_default().answers.entry(number).or_default().insert(host, answer);
            }
            (Key::Host(id), Value::Host(record)) => {
                let newer = (record.protocol > PROTOCOL).then_some(record.protocol);
                let at = record.at.max(timestamp);
                let signs = self.hosts.get(&id).map_or(0, |known| known.signs) + 1;
                let known = self.hosts.insert(id, Heard { record, at, signs });
                // Told once, not with every sign of life.
                if let Some(newer) = newer.filter(|newer| known.is_none_or(|known| known.record.protocol != *newer)) {
                    return Err(format!("the host speaks protocol {newer}, this program {PROTOCOL}"));
                }
            }
            (Key::Parked(pipeline, at), Value::Parked(parked)) => {
                self.pipelines.entry(pipeline).or_default().parked.insert(at, parked);
            }
            (Key::Shadow(pipeline, number, host), Value::Shadow(report)) => {
                self.pipelines.entry(pipeline).or_default().shadows.entry(number).or_default().insert(host, report);
            }
            // `Value::parse` goes by the key.
            _ => return Err("its value is another key's".to_owned()),
        }
        Ok(())
    }

    fn remove(&mut self, key: &Key) {
        let pipelines = &mut self.pipelines;
        match key {
            Key::Head(pipeline) => drop(pipelines.get_mut(pipeline).and_then(|known| known.head.take())),
            Key::Generation(pipeline, number) => drop(pipelines.get_mut(pipeline).and_then(|known| known.generations.remove(number))),
            Key::Component(digest, chunk) => self.components.remove(digest, *chunk),
            Key::Cut(pipeline, number, at) => drop(pipelines.get_mut(pipeline).and_then(|known| known.cuts.get_mut(number)?.remove(at))),
            Key::Answer(pipeline, number, host) => {
                drop(pipelines.get_mut(pipeline).and_then(|known| known.answers.get_mut(number)?.remove(host)));
            }
            Key::Shadow(pipeline, number, host) => {
                drop(pipelines.get_mut(pipeline).and_then(|known| known.shadows.get_mut(number)?.remove(host)));
            }
            Key::Host(id) => drop(self.hosts.remove(id)),
            Key::Parked(pipeline, at) => drop(pipelines.get_mut(pipeline).and_then(|known| known.parked.remove(at))),
        }
    }
}

/// The number in a header of a record.
fn number(fetched: &Fetched, row: usize, wanted: &str) -> Option<u32> {
    let found = fetched.records.headers.of(row).find(|(name, _)| *name == wanted.as_bytes())?.1?;
    std::str::from_utf8(found).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::record::{Answered, records};
    use super::*;
    use crate::record::RecordsBuilder;

    fn view() -> View {
        View::new(Components::open(None).unwrap())
    }

    fn fetched(records: crate::record::Records) -> Fetched {
        Fetched { from: TopicPartition::new("f.control", 0), offsets: (0..records.len() as i64).collect(), records }
    }

    fn host(at: i64, protocol: u32) -> Value {
        let (name, version) = ("machine".to_owned(), "0.1.0".to_owned());
        Value::Host(HostRecord { name, version, protocol, pid: 1, started: 0, at })
    }

    fn head(change: &str, generation: u64) -> Value {
        let (change, by) = (change.to_owned(), "me".to_owned());
        Value::Head(Head { generation, next: None, trial: None, state: State::Running, change, at: 0, by })
    }

    #[test]
    fn the_last_word_under_a_key_counts_and_a_tombstone_takes_it_back() {
        let mut view = view();
        let p = || "p".to_owned();
        let at = TopicPartition::new("t", 3);
        let answer = |state| Value::Answer(Answer { state, error: None, at: 0 });
        let parked = Value::Parked(Parked { reason: "r".to_owned(), generation: 1, host: "h".to_owned(), at: 0 });
        view.fold(&fetched(records(
            &[
                (Key::Head(p()), Some(head("one", 1))),
                (Key::Answer(p(), 2, "h".to_owned()), Some(answer(Answered::Ready))),
                (Key::Answer(p(), 2, "h".to_owned()), Some(answer(Answered::Running))),
                (Key::Cut(p(), 2, at.clone()), Some(Value::Cut(Cut { offset: 7, host: "h".to_owned(), at: 0, keys: None, tried: None }))),
                (Key::Parked(p(), at.clone()), Some(parked.clone())),
                (Key::Head(p()), Some(head("two", 2))),
            ],
            0,
        )));
        let known = view.pipeline("p").unwrap();
        assert_eq!(known.head.as_ref().unwrap().generation, 2);
        assert_eq!(known.answers[&2]["h"].state, Answered::Running);
        assert_eq!(known.cuts[&2][&at].offset, 7);
        assert_eq!(known.parked.len(), 1);
        assert_eq!(known.next_number(), 3);
        assert!(view.saw("one") && view.saw("two") && !view.saw("three"), "an overwritten change was one all the same");
        view.fold(&fetched(records(&[(Key::Parked(p(), at.clone()), None), (Key::Head(p()), None), (Key::Host("x".to_owned()), None)], 0)));
        let known = view.pipeline("p").unwrap();
        assert!(known.parked.is_empty() && known.head.is_none());
        assert!(view.aside.is_empty(), "{:?}", view.aside);
    }

    #[test]
    fn a_host_lives_as_long_as_it_is_heard_of() {
        let mut view = view();
        let entries = [(Key::Host("a".to_owned()), Some(host(1000, 1))), (Key::Host("b".to_owned()), Some(host(50_000, 1)))];
        view.fold(&fetched(records(&entries, 2000)));
        let live = |now| view.live(now).map(|(id, _)| id.to_owned()).collect::<Vec<_>>();
        assert_eq!(live(2000 + LIVE - 1), ["a", "b"], "by the record's own time where that is later");
        assert_eq!(live(2000 + LIVE), ["b"]);
    }

    #[test]
    fn what_is_not_understood_is_kept_aside_and_changes_nothing() {
        let mut view = view();
        view.fold(&fetched(records(&[(Key::Head("p".to_owned()), Some(head("one", 1)))], 0)));
        let mut builder = RecordsBuilder::default();
        builder.push(0, Some(b"canary/p/2"), Some(b"{}"), []);
        builder.push(0, Some(b"\xff"), Some(b"{}"), []);
        builder.push(0, None, Some(b"{}"), []);
        builder.push(0, Some(b"head/p"), Some(b"not json"), []);
        builder.push(0, Some(b"head/p"), None, [(&b"protocol"[..], Some(&b"2"[..]))]);
        builder.push(0, Some(b"component/short/0"), Some(b"x"), [(&b"chunks"[..], Some(&b"1"[..]))]);
        builder.push(
            0,
            Some(b"generation/p/2"),
            Some(br#"{"number":3,"base":0,"kind":"deploy","manifest":"","name":"","plugins":{},"class":"new","digest":"","at":0,"by":""}"#),
            [],
        );
        view.fold(&fetched(builder.finish()));
        let newer = [(Key::Host("h".to_owned()), Some(host(0, 2))), (Key::Host("h".to_owned()), Some(host(1, 2)))];
        view.fold(&fetched(records(&newer, 0)));
        let why: Vec<_> = view.aside.iter().map(|aside| aside.why.as_str()).collect();
        assert_eq!(why.len(), 8, "{why:#?}");
        assert!(why[4].contains("protocol 2") && why[7].contains("protocol 2"), "{why:#?}");
        assert_eq!(view.pipeline("p").unwrap().head.as_ref().unwrap().generation, 1);
        assert!(view.pipeline("p").unwrap().generations.is_empty());
        assert!(view.hosts.contains_key("h"), "a newer host is there all the same");
    }
}
