//! Which rows of both sides a key has: so that all rows that a batch needs are asked for at once, by their keys.
//!
//! A row of this index holds those of one key in a stretch of time twice as long as `within`: a record has all its partners in two of them, and a key with
//! many records is not written anew for each. It has the time of its last possible record, so the host drops it when that record would be closed.

/// A record of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub time: i64,
    /// Of records of one side, key and time: which one.
    pub number: u32,
    /// Of a left one in a left join: it has had a partner.
    pub matched: bool,
    pub at: At,
}

/// Where the fields of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At this row of the batch.
    Batch(u32),
    /// In the store; not asked for yet.
    Kept,
    /// At this row of what the store was asked for.
    Found(u32),
}

/// Bytes of an entry: time, number, whether it is matched.
const ENTRY: usize = 8 + 4 + 1;

pub fn read(bytes: &[u8]) -> Vec<Entry> {
    let entry = |bytes: &[u8]| {
        let (time, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        Some(Entry { time: i64::from_le_bytes(*time), number: u32::from_le_bytes(*number), matched: rest == [1], at: At::Kept })
    };
    bytes.chunks_exact(ENTRY).filter_map(entry).collect()
}

pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY);
    for entry in entries {
        out.extend(entry.time.to_le_bytes());
        out.extend(entry.number.to_le_bytes());
        out.push(u8::from(entry.matched));
    }
    out
}

/// Puts a record among those of its side, in the order of time, then of arrival.
pub fn insert(entries: &mut Vec<Entry>, time: i64, matched: bool, at: At) -> u32 {
    let place = entries.partition_point(|entry| entry.time <= time);
    let before = place.checked_sub(1).map(|before| entries[before]).filter(|before| before.time == time);
    let number = before.map_or(0, |before| before.number.saturating_add(1));
    entries.insert(place, Entry { time, number, matched, at });
    number
}

/// The stretches of time that hold the records within `within` of a time: two, each by the time of its last possible record.
pub fn stretches(time: i64, within: i64) -> [i64; 2] {
    let first = last_of(time.saturating_sub(within), within);
    [first, first.saturating_add(within.saturating_mul(2))]
}

/// The time of the last possible record of the stretch that holds a time.
pub fn last_of(time: i64, within: i64) -> i64 {
    let length = within.saturating_mul(2);
    time.div_euclid(length).saturating_mul(length).saturating_add(length - 1)
}

/// Bytes before a key of a windowed store: times in their order.
fn prefix(time: i64) -> [u8; 8] {
    (time ^ i64::MIN).to_be_bytes()
}

/// The key of an index row.
pub fn index_key(last: i64, key: &[u8]) -> Vec<u8> {
    [&prefix(last), key].concat()
}

/// Bytes behind the key of a row: `#` and its number, which stay readable in a changelog.
const NUMBER: usize = 9;

/// The key of a record's row.
pub fn row_key(time: i64, key: &[u8], number: u32) -> Vec<u8> {
    [&prefix(time), key, format!("#{number:08x}").as_bytes()].concat()
}

/// Time, key and number of a record's row. None: it is no such key.
pub fn split(row_key: &[u8]) -> Option<(i64, &[u8], u32)> {
    let (time, rest) = row_key.split_first_chunk()?;
    let (key, number) = rest.split_at_checked(rest.len().checked_sub(NUMBER)?)?;
    let number = std::str::from_utf8(number).ok()?.strip_prefix('#')?;
    Some((i64::from_be_bytes(*time) ^ i64::MIN, key, u32::from_str_radix(number, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_and_stand_in_order() {
        let mut entries = Vec::new();
        for (time, number) in [(5, 0), (-3, 0), (5, 1), (9, 0), (5, 2), (i64::MIN, 0)] {
            assert_eq!(insert(&mut entries, time, time == 9, At::Kept), number);
        }
        let times: Vec<_> = entries.iter().map(|entry| (entry.time, entry.number, entry.matched)).collect();
        assert_eq!(times, [(i64::MIN, 0, false), (-3, 0, false), (5, 0, false), (5, 1, false), (5, 2, false), (9, 0, true)]);
        assert_eq!(read(&write(&entries)), entries);
    }

    #[test]
    fn two_stretches_hold_all_partners() {
        for within in [1, 2, 5, 7] {
            for time in -40..40 {
                let [first, second] = stretches(time, within);
                assert!((time - within..=time + within).all(|other| [first, second].contains(&last_of(other, within))), "{time} {within}");
                assert!([first, second].contains(&last_of(time, within)));
            }
        }
        for time in [i64::MIN, i64::MAX] {
            // No overflow.
            stretches(time, i64::MAX);
            stretches(time, 1 << 50);
        }
    }

    #[test]
    fn keys_are_taken_apart() {
        for (time, key, number) in [(0, &b"k#00000000"[..], 7), (-1, b"", 0), (i64::MAX, &[255, 0], u32::MAX)] {
            assert_eq!(split(&row_key(time, key, number)), Some((time, key, number)));
        }
        assert_eq!(split(b"12345678k"), None);
        assert!(row_key(-1, b"k", 0) < row_key(0, b"a", 0) && row_key(0, b"a", 9) < row_key(0, b"a", 10));
    }
}
