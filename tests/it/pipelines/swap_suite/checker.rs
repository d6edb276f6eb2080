//! What must be so of outputs, cut-overs and positions when generations took each other's place; and the tests of this check.

use super::super::crash_suite::checker::{Appended, Grouped, Input, Verdict, groups, hash, lists, model};
use millstream::generation::Tried;
use millstream::share::Keys;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A partition of a topic that the pipeline reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Input(i32),
    Repartition(i32),
}

impl Place {
    fn number(self) -> i32 {
        match self {
            Self::Input(number) | Self::Repartition(number) => number,
        }
    }
}

/// What a generation is made of, as far as its outputs tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number that the manifest has its stages write; every deployed file has one of its own.
    pub config: i64,
    /// Of the plugin of the stage `list`.
    pub list: i64,
    /// Of the plugin of the stage `group-list`.
    pub group: i64,
}

/// By what a record says it was made: the manifest's number and the plugin's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub config: i64,
    pub version: i64,
}

/// A record that a generation works from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub generation: u64,
    pub at: Place,
    pub offset: i64,
    /// The keys for which it works; None = all.
    pub keys: Option<Keys>,
    /// From where on it worked for some keys before.
    pub tried: Option<Tried>,
    /// Its place in the control topic.
    pub told: i64,
}

/// What is to work, from a place in the control topic on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub told: i64,
    pub active: u64,
    pub trial: Option<Trial>,
}

/// A generation on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub generation: u64,
    /// The partition numbers in which it is to work; none of a shadow.
    pub share: BTreeSet<i32>,
    /// And for which keys; None = all.
    pub keys: Option<Keys>,
}

/// A committed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub at: Place,
    pub offset: i64,
    /// Of its metadata; None = it carries none.
    pub generation: Option<u64>,
    pub from: Option<i64>,
    pub keys: Option<Keys>,
}

/// A record of the repartition topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub offset: i64,
    pub key: String,
    pub id: i64,
    pub config: i64,
}

/// What stands in the topics, for readers of what is committed.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By partition, in order, with offsets.
    pub input: Vec<Vec<(i64, Input)>>,
    /// By partition, in order.
    pub carried: Vec<Vec<Carried>>,
    /// In the order of each partition.
    pub lists: Vec<(Appended, Stamp)>,
    /// With the record's `id`; the key is the group.
    pub groups: Vec<(Appended, i64, Stamp)>,
    /// In the order in which they were told.
    pub cuts: Vec<Cut>,
    /// In the order of each place.
    pub commits: Vec<Commit>,
    /// In the order in which they were written.
    pub heads: Vec<Head>,
    /// Of generations that became active, or were to work somewhere.
    pub contents: BTreeMap<u64, Content>,
}

/// Which generation worked where, by the cut-overs alone.
struct Works(BTreeMap<Place, Vec<Cut>>);

impl Works {
    /// None: no generation has begun by this offset.
    fn at(&self, at: Place, offset: i64, key: &str) -> Option<u64> {
        let works = |cut: &&Cut| cut.offset <= offset && cut.keys.is_none_or(|keys| keys.hold(Some(key.as_bytes())));
        self.0.get(&at)?.iter().rev().find(works).map(|cut| cut.generation)
    }

    fn from(&self, at: Place, generation: u64, keys: Option<Keys>) -> Option<i64> {
        self.0.get(&at)?.iter().find(|cut| cut.generation == generation && cut.keys == keys).map(|cut| cut.offset)
    }
}

pub fn check(found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    let input: Vec<Vec<Input>> = found.input.iter().map(|records| records.iter().map(|(_, record)| record.clone()).collect()).collect();
    let appended: Vec<Appended> = found.lists.iter().map(|(record, _)| record.clone()).collect();
    lists(&mut verdict, &input, &appended, &model(&input));
    group_lists(&mut verdict, &found.groups, &input.concat());

    let works = cuts(&mut verdict, found);
    versions(&mut verdict, found, &works);
    commits(&mut verdict, found, &works);
    verdict
}

/// In which order records of several partitions reach a group is not promised: each list is taken as it came out. That each of the group's records is in it
/// once, and those of a key in order, is asked of its totals; that each output was made over the one before, of its hash.
fn group_lists(verdict: &mut Verdict, found: &[(Appended, i64, Stamp)], input: &[Input]) {
    let mut states: HashMap<u32, (i64, i64)> = HashMap::new();
    let mut grouped = Vec::with_capacity(found.len());
    for (record, id, _) in found {
        let (total, last) = states.entry(record.key).or_default();
        (*total, *last) = (*total + id, hash(*last, record.seq));
        grouped.push(Grouped { group: record.key, count: record.count, total: *total });
        if record.hash != *last {
            verdict.violation(format!("group list {}: the hash of output {} is not of those before it", record.key, record.count));
            *last = record.hash;
        }
    }
    groups(verdict, &grouped, input);
}

/// Each is told once, of a canary for some keys and then for all; from one to the next generations rise and offsets do not fall.
fn cuts(verdict: &mut Verdict, found: &Found) -> Works {
    let mut works: BTreeMap<Place, Vec<Cut>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for cut in &found.cuts {
        verdict.checked += 1;
        let Cut { generation, at, offset, .. } = *cut;
        if !told.insert((generation, at, cut.keys.is_some())) {
            verdict.violation(format!("{at:?}: the cut-over to generation {generation} is told a second time, at {offset}"));
            continue;
        }
        if !found.contents.contains_key(&generation) {
            verdict.violation(format!("{at:?}: generation {generation} was cut over to, and was never active"));
        }
        let number = at.number();
        let asked = |head: &Head| {
            let tried = |trial: &Trial| trial.generation == generation && trial.share.contains(&number) && trial.keys == cut.keys;
            let active = head.active == generation && cut.keys.is_none();
            head.told < cut.told && (active || head.trial.as_ref().is_some_and(tried))
        };
        if !found.heads.iter().any(asked) {
            verdict.violation(format!("{at:?}: generation {generation} began at {offset}, and was not to work there by then"));
        }
        let before = works.entry(at).or_default();
        if let Some(last) = before.last().filter(|last| last.offset > offset || last.generation > generation) {
            let (last, of) = (last.offset, last.generation);
            verdict.violation(format!("{at:?}: generation {generation} begins at {offset} after generation {of} began at {last}"));
        }
        let some = before.iter().find(|some| some.generation == generation);
        let some = some.and_then(|some| Some(Tried { offset: some.offset, keys: some.keys? }));
        if cut.tried != some {
            verdict.violation(format!(
                "{at:?}: generation {generation} is told to have worked for some keys by {:?}, was {some:?}",
                cut.tried
            ));
        }
        before.push(*cut);
    }
    Works(works)
}

/// Every record was made by the generation that worked at the place of what it was made of.
fn versions(verdict: &mut Verdict, found: &Found, works: &Works) {
    let mut compare =
        |what: &dyn Fn() -> String, (at, offset, key): (Place, i64, &str), made: &dyn Fn(&Content) -> bool, by: &dyn std::fmt::Debug| {
            verdict.checked += 1;
            let Some(generation) = works.at(at, offset, key) else {
                return verdict.violation(format!("{}: no generation is told to have worked at offset {offset} of {at:?}", what()));
            };
            match found.contents.get(&generation) {
                Some(content) if made(content) => {}
                content => verdict.violation(format!(
                    "{}, of offset {offset} of {at:?}, where generation {generation} worked, was made by {by:?} instead of {content:?}",
                    what()
                )),
            }
        };
    let mut of_id = HashMap::new();
    let mut of_seq = HashMap::new();
    for (partition, records) in (0..).zip(&found.input) {
        for (offset, record) in records {
            let key = format!("k{}", record.key);
            of_id.insert(record.id, (Place::Input(partition), *offset, key.clone()));
            of_seq.insert((record.key, record.seq), (Place::Input(partition), *offset, key));
        }
    }
    let mut carried_at = HashMap::new();
    let mut strays = Vec::new();
    for (partition, records) in (0..).zip(&found.carried) {
        for record in records {
            let what = || format!("record {} in the repartition topic", record.id);
            let twice = carried_at.insert(record.id, (Place::Repartition(partition), record.offset, record.key.as_str())).is_some();
            match of_id.get(&record.id) {
                Some((at, offset, key)) if !twice => {
                    compare(&what, (*at, *offset, key), &|content| content.config == record.config, &format!("config {}", record.config));
                }
                Some(_) => strays.push(format!("{} is there a second time", what())),
                None => strays.push(format!("{} is none of the input", what())),
            }
        }
    }
    for (record, stamp) in &found.lists {
        let what = || format!("output {} of key {}", record.seq, record.key);
        if let Some((at, offset, key)) = of_seq.get(&(record.key, record.seq)) {
            let made = |content: &Content| *stamp == Stamp { config: content.config, version: content.list };
            compare(&what, (*at, *offset, key), &made, stamp);
        }
    }
    for (record, id, stamp) in &found.groups {
        let what = || format!("output {} of group {}", record.count, record.key);
        match carried_at.get(id) {
            Some((at, offset, key)) => {
                let made = |content: &Content| *stamp == Stamp { config: content.config, version: content.group };
                compare(&what, (*at, *offset, key), &made, stamp);
            }
            None => strays.push(format!("{} is of record {id}, which is not in the repartition topic", what())),
        }
    }
    for stray in strays {
        verdict.violation(stray);
    }
}

/// Positions go on under one generation at a time, each beginning where the one before it has ended.
fn commits(verdict: &mut Verdict, found: &Found, works: &Works) {
    // With the generation, whether it works for all keys: that comes after some.
    let mut last: BTreeMap<Place, (i64, (u64, bool))> = BTreeMap::new();
    for commit in &found.commits {
        verdict.checked += 1;
        let Commit { at, offset, generation, from, keys } = *commit;
        let (Some(generation), Some(from)) = (generation, from) else {
            verdict.violation(format!("{at:?}: the position {offset} does not say of which generation it is, and from where on"));
            continue;
        };
        let told = works.from(at, generation, keys);
        if told != Some(from) {
            verdict.violation(format!("{at:?}: a position says that generation {generation} works from {from} on, its cut-over {told:?}"));
        }
        if offset < from {
            verdict.violation(format!("{at:?}: the position {offset} lies before {from}, where its generation {generation} began"));
        }
        let works = (generation, keys.is_none());
        let (before, worked) = last.insert(at, (offset, works)).unwrap_or((0, (0, true)));
        let of = worked.0;
        if works < worked || offset < before {
            verdict.violation(format!("{at:?}: {offset} of generation {generation} was committed after {before} of generation {of}"));
        }
        if works > worked {
            let left = records(found, at).find(|record| (before..from).contains(record));
            if let Some(left) = left {
                verdict
                    .violation(format!("{at:?}: generation {of} ended at {before}, {generation} began at {from}: who processed {left}?"));
            }
            if from < before {
                verdict.violation(format!("{at:?}: generation {generation} began at {from}, generation {of} worked up to {before}"));
            }
        }
    }
    let places = |count: usize, place: fn(i32) -> Place| (0..count as i32).map(place);
    let newest = found.heads.last().map_or(0, |head| head.active);
    for at in places(found.input.len(), Place::Input).chain(places(found.carried.len(), Place::Repartition)) {
        let (of, all) = last.get(&at).map_or((0, true), |(_, works)| *works);
        if of != newest || !all {
            verdict.violation(format!("{at:?}: at the end generation {of} works, {newest} is the active one"));
        }
        let last_cut = works.0.get(&at).and_then(|cuts| cuts.last()).map_or(0, |cut| cut.generation);
        if last_cut != of {
            verdict.violation(format!("{at:?}: the last cut-over is to generation {last_cut}, the last position of {of}"));
        }
    }
}

/// The offsets of records.
fn records(found: &Found, at: Place) -> Box<dyn Iterator<Item = i64> + '_> {
    match at {
        Place::Input(partition) => Box::new(found.input[partition as usize].iter().map(|(offset, _)| *offset)),
        Place::Repartition(partition) => Box::new(found.carried[partition as usize].iter().map(|record| record.offset)),
    }
}

#[cfg(test)]
mod tests;
