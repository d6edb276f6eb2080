//! The topics of the suite read back: input, repartition, outputs; the control topic; and what the group has committed, from the brokers' own topic.

use super::super::Place as Folder;
use super::super::crash_suite::checker::{Appended, Verdict};
use super::super::crash_suite::topics::{InputValue, PARTITIONS, number, parse, read, read_bytes};
use super::checker::{Carried, Commit, Content, Cut, Found, Head, Place, Stamp, Trial};
use super::{GROUP_STAGE, LIST_STAGE, OFFSETS_PARTITIONS, REPARTITION};
use millstream::fleet::{Answered, Generation, Key, Value};
use millstream::manifest;
use millstream::share::Keys;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct CarriedValue {
    id: i64,
    config: i64,
}

#[derive(Deserialize)]
struct OutputValue {
    id: i64,
    seq: i64,
    count: i64,
    hash: i64,
    config: i64,
    version: i64,
}

/// With the `id` of the record that it was made of.
fn output(topic: &str, key: &str, value: Option<&[u8]>) -> (Appended, i64, Stamp) {
    let OutputValue { id, seq, count, hash, config, version } = parse(topic, value);
    (Appended { key: number(key), seq, count, hash }, id, Stamp { config, version })
}

#[derive(Deserialize)]
struct Metadata {
    generation: Option<u64>,
    from: Option<i64>,
    keys: Option<Keys>,
}

/// Everything that stands in the topics, for readers of what is committed. What is wrong with single records is told at once.
pub fn found(place: &Folder, brokers: &str, verdict: &mut Verdict) -> Found {
    let partitions = PARTITIONS as usize;
    let mut found = Found { input: vec![Vec::new(); partitions], carried: vec![Vec::new(); partitions], ..Found::default() };
    let all = |topic: &str, take: &mut dyn FnMut(i32, i64, &str, Option<&[u8]>)| {
        read(brokers, &place.named(topic), "read_committed", take);
    };
    all("NAME.in", &mut |partition, offset, key, value| {
        found.input[partition as usize].push((offset, parse::<InputValue>("in", value).of(key)));
    });
    all(REPARTITION, &mut |partition, offset, key, value| {
        let CarriedValue { id, config } = parse("repartition", value);
        found.carried[partition as usize].push(Carried { offset, key: key.to_owned(), id, config });
    });
    all("NAME.lists", &mut |_, _, key, value| {
        let (record, _, stamp) = output("lists", key, value);
        found.lists.push((record, stamp));
    });
    all("NAME.groups", &mut |_, _, key, value| found.groups.push(output("groups", key, value)));
    control(place, brokers, &mut found, verdict);
    commits(place, brokers, &mut found);
    found
}

/// Cut-overs in the order in which they were told, and what each generation is made of.
fn control(place: &Folder, brokers: &str, found: &mut Found, verdict: &mut Verdict) {
    let name = place.named("NAME");
    let mut generations: BTreeMap<u64, Generation> = BTreeMap::new();
    read_bytes(brokers, &place.named("NAME.control"), 1, "read_committed", &mut |_, offset, key, value| {
        let text = String::from_utf8_lossy(key);
        let Some(key) = Key::parse(&text) else { return verdict.violation(format!("control topic, offset {offset}: the key {text}")) };
        // A chunk's count stands in a header, and its bytes are none of this check's matter.
        let (Some(bytes), false) = (value, matches!(key, Key::Component(..))) else { return };
        match (Value::parse(&key, bytes, None), key) {
            (Ok(Value::Cut(cut)), Key::Cut(_, generation, at)) => match seat(&name, &at.topic, at.partition) {
                Some(at) => {
                    let millstream::fleet::Cut { offset: from, keys, tried, .. } = cut;
                    found.cuts.push(Cut { generation, at, offset: from, keys, tried, told: offset });
                }
                None => verdict.violation(format!("a cut-over in {at}, which is not read")),
            },
            (Ok(Value::Generation(generation)), _) => drop(generations.insert(generation.number, generation)),
            (Ok(Value::Head(head)), _) => {
                let trial = head.trial.map(|trial| Trial {
                    generation: trial.generation,
                    share: trial.partitions().cloned().unwrap_or_default(),
                    keys: trial.keys(),
                });
                found.heads.push(Head { told: offset, active: head.generation, trial });
            }
            (Ok(Value::Answer(answer)), key) if answer.state == Answered::Failed => {
                verdict.violation(format!("control topic: {key} failed: {:?}", answer.error));
            }
            (Ok(_), _) => {}
            (Err(error), key) => verdict.violation(format!("control topic, offset {offset}: {key}: {error}")),
        }
    });
    let tried = found.heads.iter().filter_map(|head| head.trial.as_ref()).filter(|trial| !trial.share.is_empty());
    let active: BTreeSet<u64> = found.heads.iter().map(|head| head.active).chain(tried.map(|trial| trial.generation)).collect();
    found.contents = generations.iter().filter(|(number, _)| active.contains(number)).map(|(number, of)| (*number, content(of))).collect();
}

/// What a generation's outputs tell of it, by its record.
pub fn content(generation: &Generation) -> Content {
    let stages = manifest::plugins(&generation.manifest);
    let version = |stage: &str| {
        let written = &stages.iter().find(|(name, _)| name == stage).expect("a stage of the manifest").1;
        let major = generation.plugins[written].version.split('.').next().unwrap_or_default();
        major.parse().expect("a version")
    };
    let config = generation.manifest.split_once("config: '").expect("a number of the manifest").1;
    // One that stops at records has more behind the number.
    let config = config.split(['\'', ' ']).next().unwrap_or_default().parse().expect("a number of the manifest");
    Content { config, list: version(LIST_STAGE), group: version(GROUP_STAGE) }
}

fn seat(pipeline: &str, topic: &str, partition: i32) -> Option<Place> {
    match topic.strip_prefix(pipeline)? {
        ".in" => Some(Place::Input(partition)),
        ".group-list.repartition" => Some(Place::Repartition(partition)),
        _ => None,
    }
}

/// Every position that was committed, as the brokers keep them in `__consumer_offsets` (the records' layout: `OffsetCommitKey.json` and
/// `OffsetCommitValue.json` of Apache Kafka). Read as committed: positions of torn transactions are not among them.
fn commits(place: &Folder, brokers: &str, found: &mut Found) {
    let name = place.named("NAME");
    read_bytes(brokers, "__consumer_offsets", OFFSETS_PARTITIONS, "read_committed", &mut |_, _, key, value| {
        let (Some((group, topic, partition)), Some(value)) = (offset_key(key), value) else { return };
        let Some(at) = seat(&name, &topic, partition).filter(|_| group == name) else { return };
        let (offset, metadata) = offset_value(value).unwrap_or_else(|| panic!("a position of {topic}/{partition}: {value:?}"));
        let metadata: Option<Metadata> = serde_json::from_str(&metadata).ok();
        let (generation, from, keys) = metadata.map_or((None, None, None), |metadata| (metadata.generation, metadata.from, metadata.keys));
        found.commits.push(Commit { at, offset, generation, from, keys });
    });
}

/// Reads numbers and texts as Kafka writes them.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<String> {
        let length = i16::from_be_bytes(self.take()?);
        self.of(usize::try_from(length).ok()?)
    }

    /// As versions write it whose layout is flexible: the length is larger by one, seven bits to a byte, the lowest first.
    fn compact_text(&mut self) -> Option<String> {
        let mut length = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.take()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        self.of(length.checked_sub(1)?)
    }

    fn of(&mut self, length: usize) -> Option<String> {
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Group, topic and partition. None: the record is not of a position, but of a group's members.
fn offset_key(key: &[u8]) -> Option<(String, String, i32)> {
    let mut bytes = Bytes(key);
    (i16::from_be_bytes(bytes.take()?) <= 1).then_some(())?;
    Some((bytes.text()?, bytes.text()?, i32::from_be_bytes(bytes.take()?)))
}

/// Offset and metadata. None: it is of a version of another layout.
fn offset_value(value: &[u8]) -> Option<(i64, String)> {
    let mut bytes = Bytes(value);
    let version = i16::from_be_bytes(bytes.take()?);
    let offset = i64::from_be_bytes(bytes.take()?);
    if version >= 3 {
        // The leader's epoch.
        bytes.take::<4>()?;
    }
    let metadata = match version {
        0..=3 => bytes.text(),
        4 => bytes.compact_text(),
        _ => None,
    };
    Some((offset, metadata?))
}
