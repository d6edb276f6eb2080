//! Windows and timers.

use crate::columns::{blobs, derived, field, ints, show};
use crate::{read, told};
use millstream_guest::column::{Column, ColumnBuilder, Strings, Type, Values};
use millstream_guest::describe::{Description, Occasion, Store, StoreField, Timers, Window};
use millstream_guest::verdict::{Outcome, Verdict};
use millstream_guest::{Batch, state, timers as set, windows};

const WINDOW: Window = Window { size: 100, advance: 0, session: true, grace: 50 };

/// Each record is a session of its own.
pub fn sessions() -> Description {
    let rows = Store {
        name: String::new(),
        key: Type::Bytes,
        fields: vec![StoreField::new("count", Type::Int, false)],
        by: vec![field("$key")],
        windowed: true,
        emits: vec![Occasion::Closed],
        migrates: Vec::new(),
    };
    Description {
        reads: vec![read("$key", Type::Text), read("$window.start", Type::Int), read("$window.end", Type::Int)],
        outputs: vec![told(&[("count", Type::Int), ("start", Type::Int), ("end", Type::Int)])],
        stores: vec![rows],
        window: Some(WINDOW),
        ..Description::default()
    }
}

/// As windowed stores have them: the time, sign-flipped big-endian, before the key.
fn session_key(time: i64, key: &str) -> Vec<u8> {
    [&((time as u64) ^ (1 << 63)).to_be_bytes(), key.as_bytes()].concat()
}

fn bytes(keys: &[Vec<u8>]) -> Column {
    let mut column = ColumnBuilder::new(Type::Bytes, keys.len());
    keys.iter().for_each(|key| column.bytes(key));
    column.finish()
}

pub fn process_sessions(batch: &Batch) -> Verdict {
    let (stream_times, mut late, mut source) = (windows::stream_times(), Vec::new(), Vec::new());
    for row in 0..batch.rows {
        let time = batch.timestamps[row];
        if time < WINDOW.open_from(stream_times[row]) {
            late.push(row as u32);
            continue;
        }
        let keys = bytes(&[session_key(time, &show(&batch.fields[0], row))]);
        let found = state::get_many(0, &keys);
        let count = if found.present.get(0) { crate::columns::int(&found.fields[0], 0).unwrap_or_default() } else { 0 };
        state::put_many(0, keys, vec![ints([Some(count + 1)])]);
        source.push(row as u32);
    }
    windows::late(&late);
    let fields = vec![ints(source.iter().map(|_| None)), batch.fields[1].gather(&source), batch.fields[2].gather(&source)];
    Verdict { outcome: Outcome::Derive(vec![derived(0, source, fields)]), rejects: Vec::new() }
}

pub fn emit(store: u32, occasion: Occasion, keys: &Column, fields: &[Column]) -> Verdict {
    assert!(store == 0 && occasion == Occasion::Closed, "rows of another store, or for another reason");
    let Values::Blobs(stored) = &keys.values else { panic!("keys of another type") };
    let (times, names): (Vec<i64>, Vec<String>) = stored.iter().map(split).unzip();
    let none = || ints(times.iter().map(|_| None));
    let mut out = derived(0, (0..times.len() as u32).collect(), vec![fields[0].clone(), none(), none()]);
    out.keys = Some(blobs(names.into_iter().map(Some)));
    out.timestamps = Some(times);
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}

fn split(key: &[u8]) -> (i64, String) {
    let (time, name) = key.split_first_chunk::<8>().expect("a time");
    ((u64::from_be_bytes(*time) ^ (1 << 63)) as i64, String::from_utf8_lossy(name).into_owned())
}

/// Each record sets timers 10 and 20 ms behind its time; one of the number 0 deletes those that a record of this key 5 ms before has set.
pub fn timers() -> Description {
    Description {
        reads: vec![read("$key", Type::Text), read("n", Type::Int)],
        outputs: vec![told(&[("due", Type::Int), ("place", Type::Int)])],
        timers: Some(Timers { key: Type::Text, by: vec![field("$key")] }),
        ..Description::default()
    }
}

pub fn process_timers(batch: &Batch) -> Verdict {
    for row in 0..batch.rows {
        let (time, key) = (batch.timestamps[row], batch.fields[0].gather(&[row as u32, row as u32]));
        match crate::columns::int(&batch.fields[1], row) {
            Some(0) => set::delete_many(&[time + 5, time + 15], &key),
            _ => set::set_many(&[time + 10, time + 20], &key),
        }
    }
    Verdict { outcome: Outcome::Derive(Vec::new()), rejects: Vec::new() }
}

/// A timer at a time that 7 divides sets another, one second later.
pub fn fire(times: &[i64], keys: &Column) -> Verdict {
    let again: Vec<u32> = (0..times.len() as u32).filter(|place| times[*place as usize] % 7 == 0).collect();
    let later: Vec<i64> = again.iter().map(|place| times[*place as usize] + 1000).collect();
    set::set_many(&later, &keys.gather(&again));
    // Where each stands among those of its time, whatever the calls are.
    let places = (0..times.len()).map(|place| times[..place].iter().filter(|time| **time == times[place]).count() as i64);
    let fields = vec![ints(times.iter().map(|time| Some(*time))), ints(places.map(Some))];
    let mut out = derived(0, (0..times.len() as u32).collect(), fields);
    let mut names = Strings::default();
    (0..times.len()).for_each(|row| names.push(keys.bytes(row).expect("a key")));
    out.keys = Some(Column::blobs(names));
    out.timestamps = Some(times.to_vec());
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}
