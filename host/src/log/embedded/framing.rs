//! Batches of records as bytes: how the embedded log keeps them, and how its socket carries them.
//!
//! All numbers are little-endian. A batch is
//!
//! | part | bytes |
//! |---|---|
//! | version (1), flags, two zeros, rows | 1, 1, 2, 4 |
//! | lowest timestamp | 8 |
//! | timestamps, above the lowest | 4 a row, or 8 with `LONG_TIMES` |
//! | keys, unless `NO_KEYS` (all null) | a column |
//! | values | a column |
//! | with `HEADERS`: the end of each record's entries, names, values | 4 a row, strings, a column |
//!
//! Strings are the end of each entry in the data (4 bytes each), then the data. A column is its validity bitmap, if its flag is set,
//! then strings. What comes from disk or socket is checked before use: a batch that does not add up is `Damaged`, never a panic.

use crate::column::{Bitmap, Column, Strings, Values};
use crate::record::{Headers, Records};

const VERSION: u8 = 1;

/// Bits of the second byte.
mod flag {
    pub const LONG_TIMES: u8 = 1;
    pub const NO_KEYS: u8 = 1 << 1;
    pub const NULL_KEYS: u8 = 1 << 2;
    pub const NULL_VALUES: u8 = 1 << 3;
    pub const HEADERS: u8 = 1 << 4;
    pub const NULL_HEADERS: u8 = 1 << 5;
    pub const KNOWN: u8 = 0x3f;
}

/// A stored batch is read whole from disk: small enough for that, big enough that its own cost does not count.
pub const BATCH_ROWS: usize = 4096;
pub const BATCH_BYTES: usize = 1 << 20;

/// Bytes that are no batch of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    #[error("the bytes of a batch do not add up")]
    Malformed,
    #[error("a batch is of framing version {0}, this program knows version 1")]
    Version(u8),
}

/// Records that break the rules of columns. A mistake of the program that made them, not of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("records whose {0} do not fit their rows")]
pub struct Misshapen(&'static str);

/// A batch as bytes, with what the log wants to know of it.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    pub rows: usize,
    pub highest_timestamp: i64,
    pub bytes: Vec<u8>,
}

/// Encodes records as one or more batches, in order.
pub fn encode(records: &Records) -> Result<Vec<EncodedBatch>, Misshapen> {
    let columns = Checked::new(records)?;
    let rows = records.len();
    let mut batches = Vec::with_capacity(rows / BATCH_ROWS + 1);
    let mut from = 0;
    while from < rows {
        let to = columns.cut(from, (from + BATCH_ROWS).min(rows));
        batches.push(columns.encode(from, to));
        from = to;
    }
    Ok(batches)
}

/// Encodes all records as one batch, for the socket.
pub fn encode_whole(records: &Records) -> Result<Vec<u8>, Misshapen> {
    Ok(Checked::new(records)?.encode(0, records.len()).bytes)
}

/// Records whose columns were found to fit.
struct Checked<'a> {
    records: &'a Records,
    keys: &'a Strings,
    values: &'a Strings,
    header_values: &'a Strings,
}

impl<'a> Checked<'a> {
    fn new(records: &'a Records) -> Result<Self, Misshapen> {
        let rows = records.len();
        let headers = &records.headers;
        let entries = if headers.offsets.is_empty() {
            0
        } else {
            check_offsets(&headers.offsets, rows, headers.names.len()).ok_or(Misshapen("header offsets"))?;
            headers.names.len()
        };
        check_offsets(&headers.names.offsets, headers.names.len(), headers.names.data.len()).ok_or(Misshapen("header names"))?;
        Ok(Self {
            records,
            keys: blobs(&records.keys, rows).ok_or(Misshapen("keys"))?,
            values: blobs(&records.values, rows).ok_or(Misshapen("values"))?,
            header_values: blobs(&headers.values, entries).ok_or(Misshapen("header values"))?,
        })
    }

    /// The bytes of all rows before `row`.
    fn bytes_before(&self, row: usize) -> usize {
        let headers = &self.records.headers;
        let entry = headers.offsets.get(row).map_or(0, |entry| *entry as usize);
        let at = |strings: &Strings, row: usize| strings.offsets.get(row).map_or(0, |offset| *offset as usize);
        at(self.keys, row) + at(self.values, row) + at(&headers.names, entry) + at(self.header_values, entry)
    }

    /// Where a batch that begins with `from` ends, `to` at the latest.
    fn cut(&self, from: usize, to: usize) -> usize {
        let start = self.bytes_before(from);
        if self.bytes_before(to) - start <= BATCH_BYTES {
            return to;
        }
        let (mut low, mut high) = (from + 1, to);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.bytes_before(middle) - start <= BATCH_BYTES { low = middle } else { high = middle - 1 }
        }
        low
    }

    fn encode(&self, from: usize, to: usize) -> EncodedBatch {
        let records = self.records;
        let rows = to - from;
        let times = &records.timestamps[from..to];
        let lowest = times.iter().copied().min().unwrap_or(0);
        let highest = times.iter().copied().max().unwrap_or(0);
        let long = highest.checked_sub(lowest).is_none_or(|span| span > i64::from(u32::MAX));

        let key_nulls = nulls(&records.keys.validity, from, to);
        let no_keys = key_nulls == rows;
        let value_nulls = nulls(&records.values.validity, from, to);
        let headers = &records.headers;
        let (first, last) = match (headers.offsets.get(from), headers.offsets.get(to)) {
            (Some(first), Some(last)) => (*first as usize, *last as usize),
            _ => (0, 0),
        };
        let header_nulls = nulls(&headers.values.validity, first, last);

        let mut flags = 0;
        for (set, bit) in [
            (long, flag::LONG_TIMES),
            (no_keys, flag::NO_KEYS),
            (!no_keys && key_nulls > 0, flag::NULL_KEYS),
            (value_nulls > 0, flag::NULL_VALUES),
            (last > first, flag::HEADERS),
            (header_nulls > 0, flag::NULL_HEADERS),
        ] {
            if set {
                flags |= bit;
            }
        }

        let size = self.bytes_before(to) - self.bytes_before(from);
        let mut bytes = Vec::with_capacity(16 + rows * 21 + (last - first) * 9 + size + 8);
        bytes.extend_from_slice(&[VERSION, flags, 0, 0]);
        bytes.extend_from_slice(&(rows as u32).to_le_bytes());
        bytes.extend_from_slice(&lowest.to_le_bytes());
        if long {
            bytes.extend(times.iter().flat_map(|time| time.to_le_bytes()));
        } else {
            bytes.extend(times.iter().flat_map(|time| ((time - lowest) as u32).to_le_bytes()));
        }
        if !no_keys {
            put_column(&mut bytes, self.keys, (key_nulls > 0).then_some(&records.keys.validity), from, to);
        }
        put_column(&mut bytes, self.values, (value_nulls > 0).then_some(&records.values.validity), from, to);
        if last > first {
            bytes.extend(headers.offsets[from + 1..=to].iter().flat_map(|entry| (entry - first as u32).to_le_bytes()));
            put_strings(&mut bytes, &headers.names, first, last);
            put_column(&mut bytes, self.header_values, (header_nulls > 0).then_some(&headers.values.validity), first, last);
        }
        EncodedBatch { rows, highest_timestamp: highest, bytes }
    }
}

fn check_offsets(offsets: &[u32], rows: usize, end: usize) -> Option<()> {
    let fits =
        offsets.len() == rows + 1 && offsets[0] == 0 && offsets[rows] as usize <= end && offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    fits.then_some(())
}

fn blobs(column: &Column, rows: usize) -> Option<&Strings> {
    let Values::Blobs(strings) = &column.values else { return None };
    check_offsets(&strings.offsets, rows, strings.data.len())?;
    let bitmap = &column.validity.0;
    (bitmap.is_empty() || bitmap.len() * 8 >= rows).then_some(strings)
}

fn nulls(validity: &Bitmap, from: usize, to: usize) -> usize {
    if validity.0.is_empty() { 0 } else { (from..to).filter(|row| !validity.get(*row)).count() }
}

fn put_column(bytes: &mut Vec<u8>, strings: &Strings, validity: Option<&Bitmap>, from: usize, to: usize) {
    if let Some(validity) = validity {
        let mut bits = Bitmap::default();
        push_bits(&mut bits, 0, Some(&validity.0), from, to);
        bytes.extend_from_slice(&bits.0);
    }
    put_strings(bytes, strings, from, to);
}

fn put_strings(bytes: &mut Vec<u8>, strings: &Strings, from: usize, to: usize) {
    let (start, end) = (strings.offsets[from], strings.offsets[to]);
    bytes.extend(strings.offsets[from + 1..=to].iter().flat_map(|offset| (offset - start).to_le_bytes()));
    bytes.extend_from_slice(&strings.data[start as usize..end as usize]);
}

/// Appends the bits `from..to` of `source` (None = all set) to `target`, which has `have` bits; empty stays empty while all are set.
fn push_bits(target: &mut Bitmap, have: usize, source: Option<&[u8]>, from: usize, to: usize) {
    let Some(source) = source else {
        if !target.0.is_empty() {
            target.0.resize((have + to - from).div_ceil(8), 0);
            (have..have + to - from).for_each(|row| target.set(row));
        }
        return;
    };
    if target.0.is_empty() {
        *target = Bitmap::filled(have, true);
        (have..target.0.len() * 8).for_each(|row| target.clear(row));
    }
    target.0.resize((have + to - from).div_ceil(8), 0);
    for (to, from) in (have..).zip(from..to) {
        if source.get(from / 8).is_some_and(|byte| byte >> (from % 8) & 1 == 1) {
            target.set(to);
        }
    }
}

/// A batch, seen in its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    rows: usize,
    lowest: i64,
    /// 4 or 8 bytes a row.
    times: &'a [u8],
    /// None = all null.
    keys: Option<Blobs<'a>>,
    values: Blobs<'a>,
    headers: Option<HeaderView<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Blobs<'a> {
    validity: Option<&'a [u8]>,
    strings: StringsView<'a>,
}

#[derive(Clone, Copy, Debug)]
struct StringsView<'a> {
    ends: &'a [u8],
    data: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct HeaderView<'a> {
    ends: &'a [u8],
    names: StringsView<'a>,
    values: Blobs<'a>,
}

impl<'a> Batch<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let mut rest = bytes;
        let head = take(&mut rest, 16)?;
        let &[version, flags, ..] = head else { return Err(Damaged::Malformed) };
        if version != VERSION {
            return Err(Damaged::Version(version));
        }
        if flags & !flag::KNOWN != 0 {
            return Err(Damaged::Malformed);
        }
        let rows = number(head, 1).ok_or(Damaged::Malformed)?;
        let lowest = head[8..].try_into().map(i64::from_le_bytes).map_err(|_| Damaged::Malformed)?;
        let has = |bit: u8| flags & bit != 0;
        let times = take(&mut rest, rows * if has(flag::LONG_TIMES) { 8 } else { 4 })?;
        let keys = if has(flag::NO_KEYS) { None } else { Some(take_blobs(&mut rest, rows, has(flag::NULL_KEYS))?) };
        let values = take_blobs(&mut rest, rows, has(flag::NULL_VALUES))?;
        let headers = if has(flag::HEADERS) {
            let ends = take(&mut rest, rows * 4)?;
            let entries = last_end(ends);
            Some(HeaderView {
                ends,
                names: take_strings(&mut rest, entries)?,
                values: take_blobs(&mut rest, entries, has(flag::NULL_HEADERS))?,
            })
        } else {
            None
        };
        if rest.is_empty() { Ok(Self { rows, lowest, times, keys, values, headers }) } else { Err(Damaged::Malformed) }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows from `from` on have together at most `bytes` bytes.
    pub fn fitting(&self, from: usize, bytes: usize) -> usize {
        let start = self.bytes_before(from);
        let fits = |row: usize| self.bytes_before(row).saturating_sub(start) <= bytes;
        if fits(self.rows) {
            return self.rows.saturating_sub(from);
        }
        let (mut low, mut high) = (from, self.rows);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low.saturating_sub(from)
    }

    /// The bytes of keys, values and headers of all rows before `row`.
    fn bytes_before(&self, row: usize) -> usize {
        let headers = self.headers.map_or(0, |headers| {
            let entry = end_before(headers.ends, row);
            end_before(headers.names.ends, entry) + end_before(headers.values.strings.ends, entry)
        });
        self.keys.map_or(0, |keys| end_before(keys.strings.ends, row)) + end_before(self.values.strings.ends, row) + headers
    }

    /// The bytes of the rows `from..to`.
    pub fn bytes(&self, from: usize, to: usize) -> usize {
        self.bytes_before(to).saturating_sub(self.bytes_before(from))
    }

    fn time(&self, row: usize) -> Option<i64> {
        if self.times.len() == self.rows * 4 {
            self.lowest.checked_add(number(self.times, row)? as i64)
        } else {
            self.times.get(row * 8..row * 8 + 8)?.try_into().ok().map(i64::from_le_bytes)
        }
    }

    /// The first row whose timestamp is at least `time`.
    pub fn first_at(&self, time: i64) -> Option<usize> {
        (0..self.rows).find(|row| self.time(*row).is_some_and(|of| of >= time))
    }

    /// Appends the rows `from..to` to `records`. After an error `records` is of no use.
    pub fn append_to(&self, records: &mut Records, from: usize, to: usize) -> Result<(), Damaged> {
        if from > to || to > self.rows {
            return Err(Damaged::Malformed);
        }
        let have = records.len();
        let times = |width: usize| self.times.get(from * width..to * width).ok_or(Damaged::Malformed);
        if self.times.len() == self.rows * 4 {
            let (times, _) = times(4)?.as_chunks::<4>();
            records.timestamps.extend(times.iter().map(|above| self.lowest.wrapping_add(i64::from(u32::from_le_bytes(*above)))));
        } else {
            let (times, _) = times(8)?.as_chunks::<8>();
            records.timestamps.extend(times.iter().map(|time| i64::from_le_bytes(*time)));
        }
        match &self.keys {
            Some(keys) => keys.append_to(&mut records.keys, have, from, to)?,
            None => {
                push_bits(&mut records.keys.validity, have, Some(&[]), from, to);
                let Values::Blobs(keys) = &mut records.keys.values else { return Err(Damaged::Malformed) };
                keys.offsets.resize(have + to - from + 1, keys.data.len() as u32);
            }
        }
        self.values.append_to(&mut records.values, have, from, to)?;
        self.append_headers(&mut records.headers, have, from, to)
    }

    fn append_headers(&self, headers: &mut Headers, have: usize, from: usize, to: usize) -> Result<(), Damaged> {
        let entries = headers.names.len();
        let Some(view) = self.headers else {
            if !headers.offsets.is_empty() {
                headers.offsets.resize(have + to - from + 1, entries as u32);
            }
            return Ok(());
        };
        let (first, last) = (end_before(view.ends, from), end_before(view.ends, to));
        if headers.offsets.is_empty() {
            if first == last {
                return Ok(());
            }
            headers.offsets = vec![0; have + 1];
        }
        push_ends(&mut headers.offsets, view.ends, from, to, entries)?;
        view.names.append_to(&mut headers.names, first, last)?;
        view.values.append_to(&mut headers.values, entries, first, last)
    }
}

/// Decodes a whole batch.
pub fn decode(bytes: &[u8]) -> Result<Records, Damaged> {
    let batch = Batch::parse(bytes)?;
    let mut records = Records::default();
    batch.append_to(&mut records, 0, batch.rows())?;
    Ok(records)
}

impl Blobs<'_> {
    fn append_to(&self, column: &mut Column, have: usize, from: usize, to: usize) -> Result<(), Damaged> {
        push_bits(&mut column.validity, have, self.validity, from, to);
        match &mut column.values {
            Values::Blobs(strings) => self.strings.append_to(strings, from, to),
            _ => Err(Damaged::Malformed),
        }
    }
}

impl StringsView<'_> {
    fn append_to(&self, strings: &mut Strings, from: usize, to: usize) -> Result<(), Damaged> {
        let (start, end) = (end_before(self.ends, from), end_before(self.ends, to));
        let data = self.data.get(start..end).ok_or(Damaged::Malformed)?;
        let base = strings.data.len();
        if base + data.len() > i32::MAX as usize {
            return Err(Damaged::Malformed);
        }
        strings.data.extend_from_slice(data);
        push_ends(&mut strings.offsets, self.ends, from, to, base)
    }
}

/// Appends the ends of the rows `from..to` to `offsets`, as they are with the first of them at `base`.
fn push_ends(offsets: &mut Vec<u32>, ends: &[u8], from: usize, to: usize, base: usize) -> Result<(), Damaged> {
    let start = end_before(ends, from) as u32;
    let (ends, _) = ends.get(from * 4..to * 4).ok_or(Damaged::Malformed)?.as_chunks::<4>();
    let mut before = start;
    let mut rising = true;
    offsets.extend(ends.iter().map(|end| {
        let end = u32::from_le_bytes(*end);
        rising &= end >= before;
        before = end;
        (base as u32).wrapping_add(end.wrapping_sub(start))
    }));
    if rising { Ok(()) } else { Err(Damaged::Malformed) }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Damaged> {
    let (taken, after) = rest.split_at_checked(bytes).ok_or(Damaged::Malformed)?;
    *rest = after;
    Ok(taken)
}

fn take_strings<'a>(rest: &mut &'a [u8], rows: usize) -> Result<StringsView<'a>, Damaged> {
    let ends = take(rest, rows * 4)?;
    Ok(StringsView { ends, data: take(rest, last_end(ends))? })
}

fn take_blobs<'a>(rest: &mut &'a [u8], rows: usize, nulls: bool) -> Result<Blobs<'a>, Damaged> {
    let validity = if nulls { Some(take(rest, rows.div_ceil(8))?) } else { None };
    Ok(Blobs { validity, strings: take_strings(rest, rows)? })
}

/// The `place`th u32.
fn number(bytes: &[u8], place: usize) -> Option<usize> {
    let bytes = bytes.get(place * 4..place * 4 + 4)?;
    bytes.try_into().ok().map(|bytes| u32::from_le_bytes(bytes) as usize)
}

/// Where row `row` begins, which is where the one before ends.
fn end_before(ends: &[u8], row: usize) -> usize {
    if row == 0 { 0 } else { number(ends, row - 1).unwrap_or(0) }
}

fn last_end(ends: &[u8]) -> usize {
    end_before(ends, ends.len() / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordsBuilder;
    use proptest::prelude::*;

    type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn records(rows: &[Row]) -> Records {
        let mut builder = RecordsBuilder::default();
        for (time, key, value, headers) in rows {
            let headers = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
            builder.push(*time, key.as_deref(), value.as_deref(), headers);
        }
        builder.finish()
    }

    fn rows(records: &Records) -> Vec<Row> {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let row = |row: usize| {
            let headers = records.headers.of(row).map(|(name, value)| (name.to_vec(), owned(value))).collect();
            (records.timestamps[row], owned(records.keys.bytes(row)), owned(records.values.bytes(row)), headers)
        };
        (0..records.len()).map(row).collect()
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let blob = || proptest::collection::vec(any::<u8>(), 0..6);
        let nullable = || proptest::option::of(blob());
        let time = prop_oneof![4 => 0..1000i64, 1 => any::<i64>()];
        (time, nullable(), nullable(), proptest::collection::vec((blob(), nullable()), 0..3))
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back_in_any_slices(batches in proptest::collection::vec(proptest::collection::vec(any_row(), 1..30), 1..4), step in 1usize..12) {
            let mut merged = Records::default();
            for batch in &batches {
                for encoded in encode(&records(batch)).unwrap() {
                    let view = Batch::parse(&encoded.bytes).unwrap();
                    for from in (0..view.rows()).step_by(step) {
                        view.append_to(&mut merged, from, (from + step).min(view.rows())).unwrap();
                    }
                }
            }
            prop_assert_eq!(rows(&merged), batches.concat());
            prop_assert!(Checked::new(&merged).is_ok());
        }

        #[test]
        fn damaged_bytes_are_an_error_or_records_that_hold(batch in proptest::collection::vec(any_row(), 1..20), place in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = encode_whole(&records(&batch)).unwrap();
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(records) = decode(&bytes) {
                prop_assert!(Checked::new(&records).is_ok());
                rows(&records);
            }
        }
    }

    #[test]
    fn big_records_are_cut_into_batches_by_bytes() {
        let big: Vec<Row> = (0..5).map(|row| (row, None, Some(vec![b'x'; BATCH_BYTES / 2]), Vec::new())).collect();
        let sizes: Vec<usize> = encode(&records(&big)).unwrap().iter().map(|batch| batch.rows).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let huge = records(&[(0, None, Some(vec![b'x'; 5 * BATCH_BYTES]), Vec::new()), (1, None, Some(b"y".to_vec()), Vec::new())]);
        assert_eq!(encode(&huge).unwrap().iter().map(|batch| batch.rows).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn rows_fit_by_their_bytes() {
        let rows: Vec<Row> = (0..10).map(|row| (row, Some(vec![0; 2]), Some(vec![0; 8]), Vec::new())).collect();
        let bytes = encode_whole(&records(&rows)).unwrap();
        let batch = Batch::parse(&bytes).unwrap();
        assert_eq!((batch.fitting(0, 35), batch.fitting(8, 100), batch.fitting(3, 9)), (3, 2, 0));
        assert_eq!(batch.first_at(7), Some(7));
    }

    #[test]
    fn a_newer_framing_is_named() {
        let mut bytes = encode_whole(&records(&[(0, None, None, Vec::new())])).unwrap();
        bytes[0] = 9;
        assert_eq!(decode(&bytes).unwrap_err(), Damaged::Version(9));
    }
}
