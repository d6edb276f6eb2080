//! Totals by key, in rows that are those of `totals-next` and one column more. From the rows of `totals` there is no way: they lack `turned`.

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
    last: Option<i64>,
}

#[derive(Fields)]
#[fields(replace)]
struct Told {
    count: i64,
    total: i64,
    turned: Option<i64>,
}

/// Adds a record to its key's total.
#[millstream_guest::aggregate]
fn add(total: &mut Total, entry: Entry) -> Told {
    total.count += 1;
    total.total += entry.n;
    total.last = Some(entry.n);
    Told { count: total.count, total: total.total, turned: Some(total.turned) }
}
