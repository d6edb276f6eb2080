//! A store against a model: random writes, commits, aborts and reads, on all layers at once. A failure prints its seed; `MILLSTREAM_SEED=N` runs that
//! one again, `MILLSTREAM_CASES=N` runs more of them.

use super::{StateStore, row};
use crate::column::{Cell, Column, ColumnBuilder, Strings, Type, Values};
use crate::io::{CommittedState, LogError, StateRows, StateWrites};
use crate::plugin::describe::{Store, StoreField};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Xorshift: enough for tests, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % count as u64) as usize
    }
}

fn for_seeds(cases: u64, property: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("MILLSTREAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLSTREAM_CASES").unwrap_or(cases),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| property(&mut Random::new(seed))) {
            eprintln!("run it again with MILLSTREAM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The log's store: what is committed.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Memory {
    fn apply(&self, writes: StateWrites) {
        let mut rows = self.0.lock().unwrap();
        for (key, row) in writes.rows {
            match row {
                Some(row) => drop(rows.insert(key, row)),
                None => drop(rows.remove(&key)),
            }
        }
    }
}

impl CommittedState for Memory {
    fn get(&self, _: &str, _: i32, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, _: &str, _: i32, low: &[u8], high: Option<&[u8]>, limit: usize) -> Result<StateRows, LogError> {
        let rows = self.0.lock().unwrap();
        let inside = rows.range(low.to_vec()..).take_while(|(key, _)| high.is_none_or(|high| key.as_slice() < high));
        Ok(inside.take(limit).map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    fn keep_row_types(&self, _: &str, _: &[u8]) -> Result<(), LogError> {
        Ok(())
    }
}

/// What the store should hold, as whole maps: each begins as a copy of the one below it.
#[derive(Clone, Default)]
struct Model {
    committed: BTreeMap<String, i64>,
    in_flight: BTreeMap<String, i64>,
    open: BTreeMap<String, i64>,
    batch: BTreeMap<String, i64>,
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Column {
    let mut strings = Strings::default();
    keys.into_iter().for_each(|key| strings.push(key.as_bytes()));
    Column { values: Values::Texts(strings), validity: Default::default() }
}

fn ints(values: &[i64]) -> Vec<Column> {
    let mut column = ColumnBuilder::new(Type::Int, values.len());
    values.iter().for_each(|value| column.int(*value));
    vec![column.finish()]
}

fn int(cell: Cell<'_>) -> i64 {
    if let Cell::Int(value) = cell { value } else { panic!("an int is stored, not {cell:?}") }
}

/// Keys of which some lead to others, and few enough that layers meet.
fn key(random: &mut Random) -> String {
    let mut key = random.below(6).to_string();
    (0..random.below(3)).for_each(|_| key.push(char::from(b'a' + random.below(3) as u8)));
    key
}

fn write(random: &mut Random, store: &mut StateStore, model: &mut Model) {
    let rows: Vec<(String, i64)> = (0..1 + random.below(6)).map(|_| (key(random), random.below(1000) as i64)).collect();
    let named = keys(rows.iter().map(|(key, _)| key.as_str()));
    if random.below(2) == 0 {
        store.put_many(&named, &ints(&rows.iter().map(|(_, value)| *value).collect::<Vec<_>>())).unwrap();
        model.batch.extend(rows);
    } else {
        store.delete_many(&named).unwrap();
        model.batch.retain(|key, _| rows.iter().all(|(deleted, _)| deleted != key));
    }
}

fn read(random: &mut Random, store: &mut StateStore, model: &Model) {
    let wanted: Vec<String> = (0..1 + random.below(4)).map(|_| key(random)).collect();
    let found = store.get_many(&keys(wanted.iter().map(String::as_str))).unwrap();
    for (row, key) in wanted.iter().enumerate() {
        let read = found.present.get(row).then(|| int(found.fields[0].cell(row)));
        assert_eq!(read, model.batch.get(key).copied(), "get `{key}`");
    }
}

fn scan(random: &mut Random, store: &mut StateStore, model: &Model) {
    let (low, high, limit) = (key(random), key(random), random.below(12));
    let page = store.scan(&keys([low.as_str()]), &keys([high.as_str()]), limit as u32).unwrap();
    let inside: Vec<_> = model.batch.iter().filter(|(key, _)| (&low..&high).contains(key)).collect();
    let expected: Vec<_> = inside.iter().take(limit).map(|(key, value)| (Cell::Text(key), **value)).collect();
    let Values::Texts(found) = &page.keys.values else { panic!("keys are text") };
    let read: Vec<_> = (0..found.len()).map(|row| (page.keys.cell(row), int(page.fields[0].cell(row)))).collect();
    assert_eq!((read, page.more), (expected, inside.len() > limit), "scan from `{low}` to `{high}`, at most {limit}");
}

#[test]
fn all_layers_agree_with_a_model() {
    for_seeds(1000, |random| {
        let fields = vec![StoreField { name: "n".to_owned(), kind: Type::Int, nullable: false, default: None }];
        let described = Store {
            name: String::new(),
            key: Type::Text,
            fields,
            by: Vec::new(),
            windowed: false,
            emits: Vec::new(),
            migrates: Vec::new(),
        };
        let (memory, mut model) = (Arc::new(Memory::default()), Model::default());
        for _ in 0..random.below(40) {
            let (key, value) = (key(random), random.below(1000) as i64);
            memory.0.lock().unwrap().insert(key.clone().into_bytes(), row::encode(0, [Cell::Int(value)].into_iter()));
            model.committed.insert(key, value);
        }
        let whole = model.committed.clone();
        model = Model { in_flight: whole.clone(), open: whole.clone(), batch: whole, ..model };
        let mut store = StateStore::new("s", 0, &described, None, memory.clone(), crate::store::RowTypes::in_memory("s"));
        // The commit in flight; None inside: the log has it, the store has not heard of it.
        let mut in_flight: Option<Option<StateWrites>> = None;
        for _ in 0..120 {
            match random.below(16) {
                0 => {
                    store.keep_batch();
                    model.open = model.batch.clone();
                }
                1 => {
                    store.drop_batch();
                    model.batch = model.open.clone();
                }
                // A commit holds whole batches.
                2 | 3 if in_flight.is_none() => {
                    store.keep_batch();
                    model.open = model.batch.clone();
                    model.in_flight = model.open.clone();
                    in_flight = store.begin_commit().map(Some);
                }
                4 | 5 => match in_flight.take() {
                    Some(Some(writes)) => {
                        memory.apply(writes);
                        in_flight = Some(None);
                    }
                    Some(None) => {
                        store.committed();
                        model.committed = model.in_flight.clone();
                    }
                    None => {}
                },
                // What the log has, it keeps.
                6 if random.below(4) == 0 => {
                    if matches!(in_flight.take(), Some(None)) {
                        model.committed = model.in_flight.clone();
                    }
                    store.abort();
                    let whole = model.committed.clone();
                    model = Model { in_flight: whole.clone(), open: whole.clone(), batch: whole.clone(), committed: whole };
                }
                7..=9 => read(random, &mut store, &model),
                10..=12 => scan(random, &mut store, &model),
                _ => write(random, &mut store, &mut model),
            }
        }
    });
}
