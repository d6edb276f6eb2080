//! Totals by key, in rows that are made of those of `totals` in a way that shows how often: each time the total is doubled, and one more.

use millstream_guest::Fields;

#[derive(Fields)]
struct Entry {
    n: i64,
}

#[derive(Fields, Clone, Default)]
struct Total {
    count: i64,
    total: i64,
    turned: i64,
}

/// As they were.
#[derive(Fields, Clone)]
struct Before {
    total: i64,
    count: i64,
}

#[derive(Fields)]
#[fields(replace)]
struct Told {
    count: i64,
    total: i64,
    turned: Option<i64>,
}

/// Adds a record to its key's total.
#[millstream_guest::aggregate(migrate = turned)]
fn add(total: &mut Total, entry: Entry) -> Told {
    total.count += 1;
    total.total += entry.n;
    Told { count: total.count, total: total.total, turned: Some(total.turned) }
}

/// A total below 0 is more than it can bear.
fn turned(before: Before) -> Total {
    assert!(before.total >= 0, "a total below 0");
    Total { count: before.count, total: 2 * before.total + 1, turned: 1 }
}
