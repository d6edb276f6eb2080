//! What a generation in the shadow gave, held against what was written: by input record, output and key, and field by field. No values, only where and which.

use crate::io::TopicPartition;
use crate::record::Records;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Places that are told as examples, by difference.
const EXAMPLES: usize = 3;
/// Differences that are told apart, at most: a plugin can make up names of fields.
const KINDS: usize = 200;

/// What a sink wrote of a batch.
#[derive(Clone, Debug)]
pub struct Written {
    pub topic: Arc<str>,
    /// By row: the place of the record that it comes of, a partition and an offset of the task's source.
    pub origins: Vec<(i32, i64)>,
    pub records: Records,
}

/// What a generation made of some records.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub written: Vec<Written>,
    pub refused: Vec<Refused>,
}

impl Given {
    pub fn extend(&mut self, other: Self) {
        self.written.extend(other.written);
        self.refused.extend(other.refused);
    }
}

/// A refused record: by which code, and its place, a partition and an offset of the task's source.
pub type Refused = (&'static str, (i32, i64));

/// How a generation in the shadow compares with what works, or a canary with what works beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Input records that both have processed.
    pub records: u64,
    /// Of them, those since the last difference.
    pub clean: u64,
    /// Of them, those with a difference.
    #[serde(default)]
    pub differing: u64,
    /// Records that were written, and those that the other would have written in their place or beside them.
    pub outputs: u64,
    /// By what differs, as `topic: field`; `topic: missing` and `topic: extra` for outputs that only one has; `refused: code` for records that only one refuses.
    pub differences: BTreeMap<String, Difference>,
    /// Bytes of rows that the shadow has of its own.
    pub bytes: u64,
    /// Why the shadow is over, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub count: u64,
    /// Input records, as `topic/partition@offset`.
    pub examples: Vec<String>,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        // Whose last difference came first is not known: no more is clean than behind each.
        self.clean = match (self.differences.is_empty(), other.differences.is_empty()) {
            (true, true) => self.clean + other.clean,
            (true, false) => other.clean,
            (false, true) => self.clean,
            (false, false) => self.clean.min(other.clean),
        };
        self.differing += other.differing;
        self.outputs += other.outputs;
        self.bytes += other.bytes;
        for (what, difference) in &other.differences {
            let known = self.differences.entry(what.clone()).or_default();
            known.count += difference.count;
            let room = EXAMPLES.saturating_sub(known.examples.len());
            known.examples.extend(difference.examples.iter().take(room).cloned());
        }
        if self.ended.is_none() {
            self.ended.clone_from(&other.ended);
        }
    }

    fn differs(&mut self, what: String, source: &str, (partition, offset): (i32, i64)) {
        self.clean = 0;
        let many = !self.differences.contains_key(&what) && self.differences.len() >= KINDS;
        let what = if many { "others".to_owned() } else { what };
        let known = self.differences.entry(what).or_default();
        known.count += 1;
        if known.examples.len() < EXAMPLES {
            known.examples.push(TopicPartition::new(source, partition).to_string() + &format!("@{offset}"));
        }
    }

    /// Compares what came of so many records of the topic `source`: of what works, and of what is tried. `known`: the fields that the pipelines name.
    /// `apart`: it came of none of them alone, as what changed at a commit; then each row that differs counts as a record.
    pub fn compare(&mut self, (source, known): (&str, &BTreeSet<String>), count: u64, apart: bool, works: &Given, tried: &Given) {
        self.records += count;
        self.clean += count;
        let topics: BTreeSet<&Arc<str>> = works.written.iter().chain(&tried.written).map(|written| &written.topic).collect();
        let mut found = Vec::new();
        for topic in topics {
            let (works, tried) = (of(&works.written, topic), of(&tried.written, topic));
            self.outputs += works.iter().chain(&tried).map(|written| written.origins.len() as u64).max().unwrap_or(0);
            if !same(&works, &tried) {
                differences(topic, (known, apart), &works, &tried, &mut found);
            }
        }
        let mut refused: BTreeMap<Refused, i64> = BTreeMap::new();
        works.refused.iter().for_each(|one| *refused.entry(*one).or_default() += 1);
        tried.refused.iter().for_each(|one| *refused.entry(*one).or_default() -= 1);
        let only_one = refused.into_iter().filter(|(_, more)| *more != 0);
        found.extend(only_one.map(|((code, origin), _)| Found { what: format!("refused: {code}"), origin, row: 0 }));
        let differing = found.iter().map(|found| (found.origin, if apart { found.row } else { 0 }));
        self.differing += differing.collect::<BTreeSet<_>>().len() as u64;
        for Found { what, origin, .. } in found {
            self.differs(what, source, origin);
        }
    }
}

impl Difference {
    /// For people: what differs, how often, and where.
    pub fn told(&self, what: &str) -> String {
        let examples = if self.examples.is_empty() { String::new() } else { format!(" ({})", self.examples.join(", ")) };
        format!("{what}: {}{examples}", self.count)
    }
}

/// A difference: of which record's outputs, and of which of them.
struct Found {
    what: String,
    origin: (i32, i64),
    row: usize,
}

/// What differs in a topic.
fn differences(topic: &str, (known, apart): (&BTreeSet<String>, bool), works: &[&Written], tried: &[&Written], found: &mut Vec<Found>) {
    let mut other = by_origin(tried);
    for (origin, rows) in by_origin(works) {
        for (row, pair) in paired(rows, other.remove(&origin).unwrap_or_default(), apart).into_iter().enumerate() {
            let whats = match pair {
                (Some(one), Some(other)) => fields_that_differ(&one, &other).iter().map(|field| named(field, known)).collect(),
                (Some(_), None) => vec!["missing".to_owned()],
                _ => vec!["extra".to_owned()],
            };
            found.extend(whats.into_iter().map(|what| Found { what: format!("{topic}: {what}"), origin, row }));
        }
    }
    for (origin, rows) in other {
        found.extend((0..rows.len()).map(|row| Found { what: format!("{topic}: extra"), origin, row }));
    }
}

/// Which outputs of one place are held against each other. As many of one record: in their order. Else those of the same key, in their order; then those
/// that are left, in theirs.
fn paired<'w>(works: Vec<Row<'w>>, tried: Vec<Row<'w>>, apart: bool) -> Vec<(Option<Row<'w>>, Option<Row<'w>>)> {
    if !apart && works.len() == tried.len() {
        return works.into_iter().map(Some).zip(tried.into_iter().map(Some)).collect();
    }
    let key = |(written, row): Row<'w>| written.records.keys.bytes(row);
    let mut by_key: BTreeMap<Option<&[u8]>, VecDeque<usize>> = BTreeMap::new();
    for (at, row) in tried.iter().enumerate() {
        by_key.entry(key(*row)).or_default().push_back(at);
    }
    let (mut pairs, mut left, mut taken) = (Vec::new(), Vec::new(), vec![false; tried.len()]);
    for row in works {
        match by_key.get_mut(&key(row)).and_then(VecDeque::pop_front) {
            Some(at) => {
                taken[at] = true;
                pairs.push((Some(row), Some(tried[at])));
            }
            None => left.push(row),
        }
    }
    let mut others = tried.into_iter().zip(taken).filter(|(_, taken)| !taken).map(|(row, _)| row);
    pairs.extend(left.into_iter().map(|row| (Some(row), others.next())));
    pairs.extend(others.map(|row| (None, Some(row))));
    pairs
}

/// A field as it may be told: by its path where the pipeline names it. Names within what it does not name may be data.
fn named(field: &str, known: &BTreeSet<String>) -> String {
    if field.starts_with('$') || known.contains(field) {
        return field.to_owned();
    }
    let outer = field.rmatch_indices('.').map(|(at, _)| &field[..at]).find(|outer| known.contains(*outer));
    outer.map_or_else(|| "*".to_owned(), |outer| format!("{outer}.*"))
}

fn of<'w>(written: &'w [Written], topic: &Arc<str>) -> Vec<&'w Written> {
    written.iter().filter(|written| written.topic == *topic).collect()
}

/// The quick way: the very same rows of the very same records.
fn same(works: &[&Written], shadow: &[&Written]) -> bool {
    works.len() == shadow.len()
        && works.iter().zip(shadow).all(|(one, other)| {
            let rows = 0..one.records.len();
            one.origins == other.origins
                && one.records.len() == other.records.len()
                && rows.into_iter().all(|row| cells_are_same((one, row), (other, row)))
        })
}

/// A row of what a sink wrote.
type Row<'w> = (&'w Written, usize);

fn cells_are_same((one, row): Row<'_>, (other, at): Row<'_>) -> bool {
    one.records.timestamps[row] == other.records.timestamps[at]
        && one.records.keys.bytes(row) == other.records.keys.bytes(at)
        && one.records.values.bytes(row) == other.records.values.bytes(at)
        && one.records.headers.of(row).eq(other.records.headers.of(at))
}

/// Rows by the record that they come of, each in order.
fn by_origin<'w>(written: &[&'w Written]) -> BTreeMap<(i32, i64), Vec<Row<'w>>> {
    let mut rows: BTreeMap<_, Vec<Row<'w>>> = BTreeMap::new();
    for written in written {
        for (row, origin) in written.origins.iter().enumerate() {
            rows.entry(*origin).or_default().push((written, row));
        }
    }
    rows
}

fn fields_that_differ(one: &Row<'_>, other: &Row<'_>) -> BTreeSet<String> {
    let mut differ = BTreeSet::new();
    if cells_are_same(*one, *other) {
        return differ;
    }
    let ((one, row), (other, at)) = (*one, *other);
    if one.records.keys.bytes(row) != other.records.keys.bytes(at) {
        differ.insert("$key".to_owned());
    }
    if one.records.timestamps[row] != other.records.timestamps[at] {
        differ.insert("$timestamp".to_owned());
    }
    if !one.records.headers.of(row).eq(other.records.headers.of(at)) {
        differ.insert("$headers".to_owned());
    }
    let (ours, theirs) = (one.records.values.bytes(row), other.records.values.bytes(at));
    if ours != theirs {
        let parse = |value: Option<&[u8]>| value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let before = differ.len();
        match (parse(ours), parse(theirs)) {
            (Some(ours), Some(theirs)) => paths_that_differ("", &ours, &theirs, &mut differ),
            _ => drop(differ.insert("$value".to_owned())),
        }
        if differ.len() == before {
            // The same fields in another order or spelling.
            differ.insert("$value".to_owned());
        }
    }
    differ
}

fn paths_that_differ(path: &str, one: &Value, other: &Value, differ: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (ours.get(name), theirs.get(name)) {
                    (Some(one), Some(other)) => paths_that_differ(&path, one, other, differ),
                    _ => drop(differ.insert(path)),
                }
            }
        }
        _ if one == other => {}
        _ => drop(differ.insert(if path.is_empty() { "$value".to_owned() } else { path.to_owned() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordsBuilder;

    fn given(rows: &[(i64, &str, &str)]) -> Given {
        let mut records = RecordsBuilder::default();
        rows.iter().for_each(|(_, key, value)| records.push(0, Some(key.as_bytes()), Some(value.as_bytes()), []));
        let origins = rows.iter().map(|(offset, ..)| (0, *offset)).collect();
        let written = vec![Written { topic: "out".into(), origins, records: records.finish() }];
        Given { written, refused: Vec::new() }
    }

    fn known() -> BTreeSet<String> {
        ["a", "b", "b.c"].map(str::to_owned).into()
    }

    fn told(works: &[(i64, &str, &str)], shadow: &[(i64, &str, &str)]) -> Vec<String> {
        let mut report = Report::default();
        report.compare(("in", &known()), 5, false, &given(works), &given(shadow));
        assert_eq!(report.clean, if report.differences.is_empty() { 5 } else { 0 });
        report.differences.iter().map(|(what, it)| format!("{what} {} {}", it.count, it.examples.join(" "))).collect()
    }

    #[test]
    fn exactly_what_differs_is_told() {
        let base = [(1, "k", r#"{"a":1,"b":{"c":2}}"#), (2, "k", r#"{"a":1}"#), (2, "k", r#"{"a":2}"#)];
        assert_eq!(told(&base, &base), Vec::<String>::new());
        let mut report = Report::default();
        report.compare(("in", &known()), 2, false, &given(&base[1..]), &given(&[(2, "l", "{}"), (2, "l", "{}")]));
        assert_eq!(report.differing, 1, "a record counts once, however much of it differs");
        let mut other = base;
        other[0].2 = r#"{"a":1,"b":{"c":3}}"#;
        assert_eq!(told(&base, &other), ["out: b.c 1 in/0@1"]);
        other[1].1 = "l";
        other[2].2 = r#"{"a":2,"d":null}"#;
        assert_eq!(told(&base, &other), ["out: $key 1 in/0@2", "out: * 1 in/0@2", "out: b.c 1 in/0@1"]);
        let nested = [(1, "k", r#"{"b":{"4111":1}}"#)];
        assert_eq!(told(&nested, &[(1, "k", r#"{"b":{"4111":2}}"#)]), ["out: b.* 1 in/0@1"], "a name that may be data is not told");
        assert_eq!(told(&base, &base[1..]), ["out: missing 1 in/0@1"], "one record's outputs are not held against another's");
        assert_eq!(told(&base[..2], &base), ["out: extra 1 in/0@2"]);
        assert_eq!(told(&[], &base[..1]), ["out: extra 1 in/0@1"]);
        let changed = [(1, "k", "1"), (1, "l", "1"), (1, "m", "1")];
        assert_eq!(
            told(&changed, &[changed[0], changed[2]]),
            ["out: missing 1 in/0@1"],
            "those of the same key are held against each other"
        );
        report = Report::default();
        report.compare(("in", &known()), 9, true, &given(&changed), &given(&[(1, "k", "2"), (1, "m", "2")]));
        assert_eq!((report.records, report.differing), (9, 3), "what comes of no record alone counts by rows");
        assert_eq!(told(&base[..1], &[(1, "k", r#"{ "a":1,"b":{"c":2}}"#)]), ["out: $value 1 in/0@1"]);
    }

    #[test]
    fn reports_of_hosts_are_added_up() {
        let mut report = Report::default();
        let one = [(1, "k", "1")];
        let refused = vec![("rejected", (0, 7)), ("rejected", (0, 8)), ("too_large", (0, 9))];
        let works = Given { refused: vec![refused[2]], ..given(&one) };
        report.compare(("in", &known()), 4, false, &works, &Given { refused, ..given(&[(1, "k", "2")]) });
        assert_eq!((report.differing, report.differences["refused: rejected"].examples.join(" ").as_str()), (3, "in/0@7 in/0@8"));
        assert!(!report.differences.contains_key("refused: too_large"), "both refuse it");
        report.compare(("in", &known()), 4, false, &given(&one), &given(&one));
        assert_eq!((report.records, report.clean, report.outputs), (8, 4, 2));
        let mut total = report.clone();
        total.add(&report);
        assert_eq!((total.records, total.clean, total.differences["out: $value"].count), (16, 4, 2));
        let mut other = Report { records: 50, clean: 50, ..Report::default() };
        other.add(&report);
        assert_eq!((other.records, other.clean), (58, 4), "one task that differs is not outweighed");
        assert_eq!(total.differences["refused: rejected"].count, 4);
    }
}
