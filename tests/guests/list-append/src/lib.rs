//! Keyed list-append: each record's number is appended to its key's list. How long the list was and a hash over all of it go out, so that a checker sees
//! from one output what state the record met. The version is that of the package: `list-append-next` is the same source as another version, so that the
//! checker sees too which of them made an output.

use millstream_guest::{Fields, Rows};

#[derive(Fields)]
struct Entry<'a> {
    #[field("$key")]
    key: &'a str,
    seq: i64,
}

/// How many numbers at the end of a list are kept as they are.
const NEWEST: usize = 20;

#[derive(Fields, Clone, Default)]
struct List {
    count: i64,
    hash: i64,
    /// The last numbers, with commas between them.
    newest: String,
}

#[derive(Fields)]
struct Appended {
    count: i64,
    hash: i64,
    version: i64,
}

/// The package's major version.
fn version() -> i64 {
    env!("CARGO_PKG_VERSION_MAJOR").parse().unwrap_or(-1)
}

/// Appends to the list of the record's key.
#[millstream_guest::stateful]
fn append(entry: Entry<'_>, lists: &mut Rows<List>) -> Appended {
    let mut list = lists.get(entry.key).cloned().unwrap_or_default();
    list.count += 1;
    list.hash = hash(list.hash, entry.seq);
    if list.newest.split(',').count() >= NEWEST
        && let Some((_, rest)) = list.newest.split_once(',')
    {
        list.newest = rest.to_owned();
    }
    if !list.newest.is_empty() {
        list.newest.push(',');
    }
    list.newest.push_str(&entry.seq.to_string());
    let appended = Appended { count: list.count, hash: list.hash, version: version() };
    lists.put(entry.key, list);
    appended
}

/// The hash of a list that was longer by one than the one with the hash `before`.
pub fn hash(before: i64, seq: i64) -> i64 {
    (before ^ seq).wrapping_mul(0x0100_0000_01b3).wrapping_add(0x1234_5678_9abc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::{Case, Record};
    use serde_json::json;

    #[test]
    fn each_key_has_a_list_of_its_own() {
        let records = [("a", 1), ("b", 1), ("a", 2)].map(|(key, seq)| Record::new(json!({ "seq": seq })).key(key));
        let answers = Case::<Append>::new().run(records);
        let counts: Vec<_> = answers.values("out").iter().map(|value| value["count"].clone()).collect();
        assert_eq!(counts, [1, 1, 2]);
        assert_eq!(answers.state("a"), Some(&json!({ "count": 2, "hash": hash(hash(0, 1), 2), "newest": "1,2" })));
    }

    #[test]
    fn the_end_of_a_list_is_kept() {
        let answers = Case::<Append>::new().run((1..=50).map(|seq| Record::new(json!({ "seq": seq })).key("a")));
        let newest = (31..=50).map(|seq: i64| seq.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(answers.state("a").unwrap()["newest"], newest);
    }
}
