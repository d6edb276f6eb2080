//! What must have come out, by a model of the pipeline over its input; and the tests of this check, since one that finds nothing must be able to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Windows are so long, and take records so much longer, in milliseconds.
pub const WINDOW: i64 = 2000;
pub const GRACE: i64 = 1000;
/// Of a list's newest numbers.
const NEWEST: usize = 20;

/// A record of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub key: u32,
    pub group: u32,
    /// Counts the records of the key, from 1.
    pub seq: i64,
    /// Counts all records.
    pub id: i64,
    pub time: i64,
}

/// What list-append makes of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    pub key: u32,
    pub seq: i64,
    pub count: i64,
    pub hash: i64,
}

/// A result of the group, whose records come through a repartition.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouped {
    pub group: u32,
    pub count: i64,
    /// Of the records' `id`.
    pub total: i64,
}

/// A result of a key's window; also its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Windowed {
    pub key: u32,
    pub start: i64,
    pub count: i64,
    pub total: i64,
    pub list: Vec<i64>,
}

/// A list as it is kept.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct List {
    pub count: i64,
    pub hash: i64,
    pub newest: String,
}

/// The last row of each key in the changelogs.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct State {
    pub lists: BTreeMap<u32, List>,
    /// Count and total.
    pub groups: BTreeMap<u32, (i64, i64)>,
    /// By key and start.
    pub windows: BTreeMap<(u32, i64), Windowed>,
}

/// What stands in the topics, for readers of what is committed.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By partition, in order.
    pub input: Vec<Vec<Input>>,
    /// In the order of each partition.
    pub appended: Vec<Appended>,
    pub grouped: Vec<Grouped>,
    pub windowed: Vec<Windowed>,
    pub state: State,
}

/// Violations that are told.
const MOST_TOLD: usize = 40;

/// What was looked at, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub checked: u64,
    /// All of them; only the first are told.
    pub violations: u64,
    pub told: Vec<String>,
}

impl Verdict {
    pub fn violation(&mut self, what: String) {
        self.violations += 1;
        self.told.push(what);
        self.told.truncate(MOST_TOLD);
    }

    /// What another look has found.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.violations += other.violations;
        self.told.extend(other.told);
        self.told.truncate(MOST_TOLD);
    }

    /// Compares what was found with what is expected, one by one.
    pub fn alike<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &[T], expected: &[T]) {
        self.checked += found.len() as u64;
        if let Some(at) = (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at)) {
            let (found_one, expected_one) = (found.get(at), expected.get(at));
            let lengths = format!("{} records instead of {}", found.len(), expected.len());
            self.violation(format!("{what}: {lengths}, the first other one is the {at}th: {found_one:?} instead of {expected_one:?}"));
        }
    }
}

pub fn hash(before: i64, seq: i64) -> i64 {
    (before ^ seq).wrapping_mul(0x0100_0000_01b3).wrapping_add(0x1234_5678_9abc)
}

/// What comes of the input if nothing happens.
pub fn model(input: &[Vec<Input>]) -> Found {
    let mut found = Found { input: input.to_vec(), ..Found::default() };
    let state = &mut found.state;
    for partition in input {
        let mut stream_time = i64::MIN;
        for record in partition {
            let list = state.lists.entry(record.key).or_default();
            list.count += 1;
            list.hash = hash(list.hash, record.seq);
            found.appended.push(Appended { key: record.key, seq: record.seq, count: list.count, hash: list.hash });
            let mut newest: Vec<String> = list.newest.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
            newest.push(record.seq.to_string());
            list.newest = newest[newest.len().saturating_sub(NEWEST)..].join(",");

            let (count, total) = state.groups.entry(record.group).or_default();
            (*count, *total) = (*count + 1, *total + record.id);
            found.grouped.push(Grouped { group: record.group, count: *count, total: *total });

            stream_time = stream_time.max(record.time);
            let start = record.time - record.time.rem_euclid(WINDOW);
            if start + WINDOW + GRACE > stream_time {
                let none = Windowed { key: record.key, start, count: 0, total: 0, list: Vec::new() };
                let row = state.windows.entry((record.key, start)).or_insert(none);
                row.count += 1;
                row.total += record.seq;
                row.list.push(record.seq);
                found.windowed.push(row.clone());
            }
        }
        let keys: BTreeSet<u32> = partition.iter().map(|record| record.key).collect();
        state.windows.retain(|(key, start), _| !keys.contains(key) || start + WINDOW + GRACE > stream_time);
    }
    found
}

fn by_key<T: Clone>(records: &[T], key: impl Fn(&T) -> u32) -> BTreeMap<u32, Vec<T>> {
    let mut grouped: BTreeMap<u32, Vec<T>> = BTreeMap::new();
    for record in records {
        grouped.entry(key(record)).or_default().push(record.clone());
    }
    grouped
}

/// Holds what was found against the model of its own input.
pub fn check(found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    let expected = model(&found.input);
    lists(&mut verdict, &found.input, &found.appended, &expected);
    same_by_key(&mut verdict, "windows", &found.windowed, &expected.windowed, |record| record.key);
    groups(&mut verdict, &found.grouped, &found.input.concat());

    let (state, kept) = (&found.state, &expected.state);
    verdict.alike("rows of lists", &Vec::from_iter(&state.lists), &Vec::from_iter(&kept.lists));
    verdict.alike("rows of groups", &Vec::from_iter(&state.groups), &Vec::from_iter(&kept.groups));
    verdict.alike("rows of windows", &Vec::from_iter(&state.windows), &Vec::from_iter(&kept.windows));
    verdict
}

/// Every key's list took the key's records in order, none missing, none twice. `expected`: the model of the input.
pub fn lists(verdict: &mut Verdict, input: &[Vec<Input>], appended: &[Appended], expected: &Found) {
    for (key, records) in by_key(&input.concat(), |record| record.key) {
        let numbers: Vec<i64> = records.iter().map(|record| record.seq).collect();
        verdict.alike(&format!("input, key {key}"), &numbers, &(1..=numbers.len() as i64).collect::<Vec<_>>());
    }
    same_by_key(verdict, "list-append", appended, &expected.appended, |record| record.key);
}

fn same_by_key<T: Clone + PartialEq + std::fmt::Debug>(
    verdict: &mut Verdict,
    what: &str,
    found: &[T],
    expected: &[T],
    key: impl Fn(&T) -> u32,
) {
    let (found, expected) = (by_key(found, &key), by_key(expected, &key));
    let keys: BTreeSet<u32> = found.keys().chain(expected.keys()).copied().collect();
    for key in keys {
        let of = |all: &BTreeMap<u32, Vec<T>>| all.get(&key).cloned().unwrap_or_default();
        verdict.alike(&format!("{what}, key {key}"), &of(&found), &of(&expected));
    }
}

/// The order in which records of several partitions reach a group is not promised; that each does once, and those of a key in order, is. A result's total
/// is larger than the one before by the `id` of the record that it stands for.
pub fn groups(verdict: &mut Verdict, found: &[Grouped], input: &[Input]) {
    let sent: HashMap<i64, &Input> = input.iter().map(|record| (record.id, record)).collect();
    let mut results = by_key(found, |record| record.group);
    for (group, records) in by_key(input, |record| record.group) {
        let results = results.remove(&group).unwrap_or_default();
        verdict.checked += results.len() as u64;
        let mut before = 0;
        let mut seen = BTreeSet::new();
        let mut newest: HashMap<u32, i64> = HashMap::new();
        for (result, count) in results.iter().zip(1..) {
            let id = result.total - std::mem::replace(&mut before, result.total);
            let of = sent.get(&id).filter(|record| record.group == group);
            if result.count != count {
                verdict.violation(format!("group {group}: the {count}th result has the count {}", result.count));
                break;
            }
            let Some(record) = of else {
                verdict.violation(format!("group {group}: the {count}th result adds {id}, which is no record of it"));
                break;
            };
            if !seen.insert(id) {
                verdict.violation(format!("group {group}: the {count}th result counts record {id} a second time"));
            }
            let last = newest.insert(record.key, record.seq).unwrap_or_default();
            if last > record.seq {
                verdict.violation(format!("group {group}: record {} of key {} came after {last}", record.seq, record.key));
            }
        }
        if results.len() != records.len() {
            verdict.violation(format!("group {group}: {} results of {} records", results.len(), records.len()));
        }
    }
    for (group, results) in results {
        verdict.violation(format!("group {group}: {} results of no record", results.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two partitions, seven keys, three groups, some records late.
    fn faithful() -> Found {
        let mut input = vec![Vec::new(), Vec::new()];
        let mut seqs = [0; 7];
        for id in 1..=700 {
            let key = (id * 31 % 7) as u32;
            seqs[key as usize] += 1;
            let time = 1_000_000 + id * 20 - if id % 13 == 0 { 5000 } else { 0 };
            input[(key % 2) as usize].push(Input { key, group: (id % 3) as u32, seq: seqs[key as usize], id, time });
        }
        model(&input)
    }

    #[test]
    fn the_model_itself_is_found_right() {
        let found = faithful();
        assert!(found.windowed.len() < found.appended.len(), "no record is late");
        assert!(!found.state.windows.is_empty());
        let verdict = check(&found);
        assert_eq!((verdict.violations, verdict.told), (0, vec![]));
        assert!(verdict.checked > 2000);
    }

    #[test]
    fn every_way_to_be_wrong_is_seen() {
        type Doctor = (&'static str, fn(&mut Found));
        let doctors: [Doctor; 16] = [
            ("list-append", |found| _ = found.appended.remove(300)),
            ("list-append", |found| _ = found.appended.pop()),
            ("list-append", |found| found.appended.insert(300, found.appended[299].clone())),
            ("list-append", |found| found.appended.insert(700, found.appended[5].clone())),
            ("list-append", |found| {
                let key = found.appended[300].key;
                let next = (301..700).find(|at| found.appended[*at].key == key).unwrap();
                found.appended.swap(300, next);
            }),
            ("list-append", |found| found.appended[300].hash ^= 1),
            ("windows", |found| _ = found.windowed.remove(300)),
            ("windows", |found| found.windowed[300].list.swap(0, 1)),
            ("windows", |found| found.windowed.push(found.windowed[0].clone())),
            ("group 1", |found| found.grouped.retain(|result| result.group != 1 || result.count != 100)),
            ("second time", |found| {
                // The same record once more, in place of another: the counts are as they should be.
                let of: Vec<usize> = (0..700).filter(|at| found.grouped[*at].group == 2).collect();
                let step = found.grouped[of[50]].total - found.grouped[of[49]].total;
                let other = found.grouped[of[51]].total - found.grouped[of[50]].total;
                of[51..].iter().for_each(|at| found.grouped[*at].total += step - other);
            }),
            ("group 9", |found| found.grouped.push(Grouped { group: 9, count: 1, total: 1 })),
            ("rows of lists", |found| found.state.lists.values_mut().for_each(|list| list.newest.push_str(",1"))),
            ("rows of groups", |found| found.state.groups.retain(|group, _| *group != 1)),
            ("rows of windows", |found| _ = found.state.windows.pop_last()),
            ("input", |found| _ = found.input[0].remove(10)),
        ];
        for (place, (told, doctor)) in doctors.iter().enumerate() {
            let mut found = faithful();
            doctor(&mut found);
            let verdict = check(&found);
            assert!(verdict.told.iter().any(|text| text.contains(told)), "doctor {place}: {:?}", verdict.told);
        }
    }
}
