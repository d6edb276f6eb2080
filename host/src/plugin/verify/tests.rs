//! The rules one by one are tested with `tests/guests/hostile`; here: no mutation of a verdict makes the checks panic, and what they accept can be
//! indexed without a panic.

use super::*;
use crate::column::Cell;
use crate::plugin::describe::{FieldType, OutputKey};

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn bits(&mut self, rows: usize) -> Bitmap {
        if self.chance(40) { Bitmap::default() } else { Bitmap((0..rows.div_ceil(8)).map(|_| self.next() as u8).collect()) }
    }

    fn strings(&mut self, rows: usize, of: &[&str]) -> Strings {
        let mut strings = Strings::default();
        (0..rows).for_each(|_| strings.push(of[self.below(of.len())].as_bytes()));
        strings
    }

    fn column(&mut self, kind: Type, rows: usize) -> Column {
        let texts = ["", "a", "ä", "€uro", "𝄞"];
        let values = match kind {
            Type::Boolean => Values::Bools((0..rows.div_ceil(8)).map(|_| self.next() as u8).collect()),
            Type::Int => Values::Ints((0..rows).map(|_| self.next() as i64).collect()),
            Type::Float => Values::Floats((0..rows).map(|_| self.below(1000) as f64 / 8.0).collect()),
            Type::Text => Values::Texts(self.strings(rows, &texts)),
            Type::Bytes => Values::Blobs(self.strings(rows, &texts)),
            Type::Json => Values::Jsons(self.strings(rows, &["{}", "[1,2]", "\"ä\"", "-1.5e3", "true"])),
        };
        Column { values, validity: self.bits(rows) }
    }
}

const TYPES: [Type; 6] = [Type::Boolean, Type::Int, Type::Float, Type::Text, Type::Bytes, Type::Json];

fn described() -> Description {
    let fields: Vec<_> =
        TYPES.iter().map(|kind| FieldType { path: Field::parse(kind.name()).unwrap(), kind: *kind, nullable: true }).collect();
    let output =
        |name: &str, base| Output { name: name.to_owned(), base, fields: fields.clone(), removes: Vec::new(), key: OutputKey::Text };
    serde_json::from_value(serde_json::json!({ "outputs": [output("out", Base::Extend), output("new", Base::Replace)] })).unwrap()
}

/// A verdict without a fault.
fn valid(random: &mut Random, shape: Shape) -> Verdict {
    let rejects: Vec<_> = (0..shape.rows as u32).filter(|_| random.chance(10)).map(|row| Reject { row, reason: "no".to_owned() }).collect();
    let free: Vec<u32> = (0..shape.rows as u32).filter(|row| rejects.iter().all(|reject| reject.row != *row)).collect();
    let some: Vec<u32> = free.iter().copied().filter(|_| random.chance(70)).collect();
    let outcome = match random.below(10) {
        0 => Outcome::All,
        1 => Outcome::Select(some),
        _ => {
            let replace = random.chance(50);
            let mut source = some;
            if replace {
                source = source.iter().flat_map(|row| vec![*row; random.below(3)]).collect();
                source.extend(vec![FROM_NONE; random.below(4)]);
            }
            let rows = source.len();
            let fields = TYPES.map(|kind| Written {
                column: random.column(kind, rows),
                kept: if replace { Bitmap::default() } else { random.bits(rows) },
                removed: random.bits(rows),
            });
            let entries: Vec<u32> = (0..shape.leaves.unwrap_or(0) as u32).filter(|_| random.chance(50)).collect();
            let values = random.strings(entries.len(), &["*", "ü", ""]);
            let mut offsets = vec![0];
            (0..rows).for_each(|_| offsets.push(offsets.last().unwrap() + random.below(3) as u32));
            let headers = *offsets.last().unwrap() as usize;
            let names = random.strings(headers, &["h", "\u{e9}"]);
            Outcome::Derive(vec![Derived {
                output: usize::from(replace),
                fields: fields.to_vec(),
                timestamps: replace.then(|| vec![7; rows]),
                keys: replace.then(|| random.column(Type::Bytes, rows)),
                values: None,
                headers: Some(Headers { offsets, names, values: random.column(Type::Bytes, headers) }),
                leaves: (!replace).then_some(ReplacedLeaves { entries, values }),
                tombstones: random.bits(rows),
                source,
            }])
        }
    };
    Verdict { outcome, rejects }
}

/// Changes one element, or the length.
fn mutate<T: Clone>(random: &mut Random, list: &mut Vec<T>, other: impl FnOnce(&mut Random) -> T) {
    match random.below(4) {
        0 => list.truncate(random.below(list.len() + 1)),
        1 => list.push(other(random)),
        2 if list.len() > 1 => {
            let (one, two) = (random.below(list.len()), random.below(list.len()));
            list.swap(one, two);
        }
        _ if !list.is_empty() => {
            let at = random.below(list.len());
            list[at] = other(random);
        }
        _ => {}
    }
}

fn number(random: &mut Random) -> u32 {
    match random.below(4) {
        0 => random.next() as u32,
        1 => u32::MAX - random.below(3) as u32,
        2 => i32::MAX as u32 + random.below(3) as u32 - 1,
        _ => random.below(40) as u32,
    }
}

fn mutate_strings(random: &mut Random, strings: &mut Strings) {
    if random.chance(50) {
        mutate(random, &mut strings.offsets, number)
    } else {
        mutate(random, &mut strings.data, |random| random.next() as u8)
    }
}

fn mutate_column(random: &mut Random, column: &mut Column) {
    if random.chance(20) {
        return mutate(random, &mut column.validity.0, |random| random.next() as u8);
    }
    match &mut column.values {
        Values::Bools(bits) => mutate(random, bits, |random| random.next() as u8),
        Values::Ints(values) => mutate(random, values, |random| random.next() as i64),
        Values::Floats(values) => mutate(random, values, |random| f64::from_bits(random.next() | 0x7ff0 << 48)),
        Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => mutate_strings(random, strings),
    }
}

fn mutate_verdict(random: &mut Random, verdict: &mut Verdict) {
    if random.chance(10) {
        return mutate(random, &mut verdict.rejects, |random| Reject { row: number(random), reason: String::new() });
    }
    let derived = match &mut verdict.outcome {
        Outcome::All => return,
        Outcome::Select(rows) => return mutate(random, rows, number),
        Outcome::Derive(outputs) => {
            if random.chance(3) {
                let twice = outputs[0].clone();
                outputs.push(twice);
            }
            &mut outputs[0]
        }
    };
    let byte = |random: &mut Random| random.next() as u8;
    match random.below(9) {
        0 => derived.output = random.below(4),
        1 => mutate(random, &mut derived.source, number),
        2 => mutate(random, &mut derived.tombstones.0, byte),
        3 => {
            if let Some(headers) = &mut derived.headers {
                match random.below(3) {
                    0 => mutate(random, &mut headers.offsets, number),
                    1 => mutate_strings(random, &mut headers.names),
                    _ => mutate_column(random, &mut headers.values),
                }
            }
        }
        4 => {
            if let Some(leaves) = &mut derived.leaves {
                if random.chance(50) { mutate(random, &mut leaves.entries, number) } else { mutate_strings(random, &mut leaves.values) }
            }
        }
        5 => {
            if let Some(keys) = &mut derived.keys {
                mutate_column(random, keys);
            }
        }
        6 => match random.below(3) {
            0 => derived.timestamps = None,
            1 => derived.keys = None,
            _ => derived.values = Some(random.column(Type::Bytes, 3)),
        },
        _ => {
            let at = random.below(derived.fields.len());
            let Some(field) = derived.fields.get_mut(at) else { return };
            match random.below(4) {
                0 => mutate(random, &mut field.kept.0, byte),
                1 => mutate(random, &mut field.removed.0, byte),
                _ => mutate_column(random, &mut field.column),
            }
        }
    }
}

fn use_column(column: &Column, rows: usize) {
    for row in 0..rows {
        match column.cell(row) {
            Cell::Text(_) => assert!(std::str::from_utf8(column.bytes(row).unwrap()).is_ok()),
            Cell::Json(text) => drop(serde_json::from_str::<serde_json::Value>(text).unwrap()),
            Cell::Float(value) => assert!(value.is_finite()),
            _ => {}
        }
    }
    column.gather(&(0..rows as u32).rev().collect::<Vec<_>>());
}

/// As a stage would, and more.
fn use_verdict(verdict: &Verdict, shape: Shape) {
    let mut free = vec![true; shape.rows];
    verdict.rejects.iter().for_each(|reject| assert!(std::mem::replace(&mut free[reject.row as usize], false)));
    match &verdict.outcome {
        Outcome::All => {}
        Outcome::Select(rows) => rows.iter().for_each(|row| assert!(std::mem::replace(&mut free[*row as usize], false))),
        Outcome::Derive(outputs) => {
            for derived in outputs {
                let rows = derived.source.len();
                assert!(derived.source.iter().all(|row| *row == FROM_NONE || free[*row as usize]));
                derived.fields.iter().for_each(|field| use_column(&field.column, rows));
                derived.keys.iter().chain(&derived.values).for_each(|column| use_column(column, rows));
                if let Some(timestamps) = &derived.timestamps {
                    assert_eq!(timestamps.len(), rows);
                }
                if let Some(headers) = &derived.headers {
                    (0..rows).for_each(|row| headers.of(row).for_each(drop));
                    headers.gather(&(0..rows as u32).collect::<Vec<_>>());
                }
                if let Some(leaves) = &derived.leaves {
                    let mut left = vec![true; shape.leaves.unwrap()];
                    for (at, entry) in leaves.entries.iter().enumerate() {
                        assert!(std::mem::replace(&mut left[*entry as usize], false));
                        std::str::from_utf8(leaves.values.get(at)).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_is_accepted_can_be_indexed() {
    let seed = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64));
    println!("MILLSTREAM_SEED={seed}");
    let mut random = Random(seed);
    let description = described();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let shape = Shape { rows: random.below(20), leaves: Some(random.below(30)) };
        let mut verdict = valid(&mut random, shape);
        super::verdict(&mut verdict, &description, shape).unwrap_or_else(|error| panic!("a good verdict is refused: {error}\n{verdict:?}"));
        use_verdict(&verdict, shape);
        for _ in 0..=random.below(3) {
            mutate_verdict(&mut random, &mut verdict);
        }
        match super::verdict(&mut verdict, &description, shape) {
            Ok(()) => {
                use_verdict(&verdict, shape);
                accepted += 1;
            }
            Err(error) => {
                assert!(!error.is_empty());
                refused += 1;
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "the mutations say nothing: {accepted} accepted, {refused} refused");
}

fn texts(data: &[u8], offsets: &[u32]) -> Values {
    Values::Texts(Strings { data: data.to_vec(), offsets: offsets.to_vec() })
}

#[test]
fn the_slot_of_a_null_row_is_ignored() {
    let validity = Bitmap(vec![0b101]);
    for values in [
        texts(b"a\xffb", &[0, 1, 2, 3]),
        Values::Floats(vec![1.0, f64::NAN, 1.0]),
        Values::Jsons(Strings { data: b"1{2".to_vec(), offsets: vec![0, 1, 2, 3] }),
    ] {
        let mut column = Column { values, validity: validity.clone() };
        super::column(&column, column.kind(), 3).unwrap();
        column.validity = Bitmap::default();
        assert!(super::column(&column, column.kind(), 3).unwrap_err().starts_with("row 1 is not"), "{column:?}");
    }
}

#[test]
fn null_is_allowed_where_the_field_does_not_come_from_the_column() {
    let column = Column { values: Values::Ints(vec![0; 9]), validity: Bitmap(vec![0b1111_1110, 0]) };
    let none = Bitmap::default;
    let marks = Bitmap(vec![0b1, 0b1]);
    let check = |kept: Bitmap, removed: Bitmap, tombstones: Bitmap| {
        let field = Written { column: column.clone(), kept, removed };
        written(&field, Type::Int, false, Base::Extend, 9, &tombstones)
    };
    assert!(check(marks.clone(), none(), none()).is_ok());
    assert!(check(none(), marks.clone(), none()).is_ok());
    assert!(check(none(), none(), marks).is_ok());
    assert_eq!(check(none(), none(), none()).unwrap_err(), "row 0 is null, the field is described as never null");
    assert_eq!(check(Bitmap(vec![1, 0]), none(), none()).unwrap_err(), "row 8 is null, the field is described as never null");
}

#[test]
fn depth_counts_brackets_outside_of_strings() {
    let in_a_string = format!("[\"{}\\\"[\"]", "[".repeat(300));
    assert_eq!(json(in_a_string.as_bytes()), Ok(()));
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(json(nested(128).as_bytes()), Ok(()));
    assert!(json(nested(129).as_bytes()).is_err());
    assert_eq!(json(format!("[{}[]]", "[],".repeat(500)).as_bytes()), Ok(()));
}

#[test]
fn paths_that_lead_into_each_other_are_found() {
    let field = |text: &str| Field::parse(text).unwrap();
    let found = |texts: &[&str]| {
        let fields: Vec<_> = texts.iter().map(|text| field(text)).collect();
        overlap(&fields.iter().collect::<Vec<_>>()).map(|(one, other)| (one.to_string(), other.to_string()))
    };
    assert_eq!(found(&["a.b", "c", "a.bc", "a"]), Some(("a".to_owned(), "a.b".to_owned())));
    assert_eq!(found(&["a", "b.a", "a"]), Some(("a".to_owned(), "a".to_owned())));
    assert_eq!(found(&["a.b", "a.c", "ab"]), None);
}

/// What comes of rows or timers that were given: derived, with keys and times, in an output that starts anew, and nothing rejected.
#[test]
fn results_of_no_record_are_held_to_their_rules() {
    let description = described();
    let mut random = Random(5);
    let mut derived = |output: usize, source: Vec<u32>| {
        let rows = source.len();
        let fields = TYPES.map(|kind| Written { column: random.column(kind, rows), kept: Bitmap::default(), removed: Bitmap::default() });
        Derived {
            output,
            source,
            fields: fields.into(),
            timestamps: Some(vec![0; rows]),
            keys: Some(random.column(Type::Bytes, rows)),
            values: None,
            headers: None,
            leaves: None,
            tombstones: Bitmap::default(),
        }
    };
    let good = derived(1, vec![0, 0, 2]);
    let of = |derived: Derived| Verdict { outcome: Outcome::Derive(vec![derived]), rejects: Vec::new() };
    let check = |mut verdict: Verdict| emitted(&mut verdict, &description, 3);
    assert_eq!(check(of(good.clone())), Ok(()));
    assert_eq!(check(Verdict { outcome: Outcome::Derive(Vec::new()), rejects: Vec::new() }), Ok(()));
    for (verdict, told) in [
        (Verdict { rejects: vec![Reject { row: 0, reason: String::new() }], ..of(good.clone()) }, "rejected"),
        (Verdict { outcome: Outcome::All, rejects: Vec::new() }, "selected"),
        (Verdict { outcome: Outcome::Select(vec![0]), rejects: Vec::new() }, "selected"),
        (of(derived(0, vec![0])), "`out`"),
        (of(Derived { keys: None, ..good.clone() }), "without keys"),
        (of(Derived { timestamps: None, ..good.clone() }), "without keys and timestamps"),
        (of(derived(1, vec![0, FROM_NONE])), "from none"),
        (of(derived(1, vec![3])), "out of range"),
        (of(derived(2, vec![0])), "output 2"),
    ] {
        let error = check(verdict).unwrap_err();
        assert!(error.contains(told), "{error}: {told}");
    }
}

#[test]
fn keys_are_given_as_described() {
    let request: Request = serde_json::from_value(serde_json::json!({ "config": {}, "input": { "fields": [] } })).unwrap();
    let told = |key: OutputKey, base: Base, parts: Vec<Part>| {
        let output = Output { name: "out".to_owned(), base, fields: Vec::new(), removes: Vec::new(), key };
        let described = Description { outputs: vec![output], parts, ..Description::default() };
        let keys = Some(Column::blobs(Strings { data: b"k".to_vec(), offsets: vec![0, 1] }));
        let (fields, tombstones) = (Vec::new(), Bitmap::default());
        let derived =
            Derived { output: 0, source: vec![0], fields, keys, timestamps: None, values: None, headers: None, leaves: None, tombstones };
        let mut given = Verdict { outcome: Outcome::Derive(vec![derived]), rejects: Vec::new() };
        (description(&described, &request), verdict(&mut given, &described, Shape { rows: 1, leaves: None }))
    };
    let as_read = told(OutputKey::AsRead, Base::Extend, vec![Part::Key]);
    assert_eq!((as_read, told(OutputKey::Text, Base::Replace, Vec::new())), ((Ok(()), Ok(())), (Ok(()), Ok(()))));
    assert!(told(OutputKey::Kept, Base::Extend, Vec::new()).1.unwrap_err().contains("kept"));
    assert!(told(OutputKey::AsRead, Base::Extend, Vec::new()).0.unwrap_err().contains("as they were read"));
    assert!(told(OutputKey::AsRead, Base::Replace, vec![Part::Key]).0.unwrap_err().contains("as they were read"));
}
