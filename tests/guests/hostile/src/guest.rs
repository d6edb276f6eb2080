//! The modes that run, and `describe` for all of them.

use crate::malformed;
use crate::modes::Mode;
use std::cell::Cell;

wit_bindgen::generate!({ path: "../../../wit", world: "plugin" });

use exports::millstream::plugin::transform::Guest;
pub use millstream::plugin::types::{
    Batch, Column, Derived, HeaderColumns, Outcome, Reject, ReplacedLeaves, Strings, Values, Verdict, Written,
};
use millstream::plugin::{log, state, tables};

struct Hostile;
export!(Hostile);

std::thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Identity) };
}

fn mode(request: &str) -> Mode {
    let named = |mode: &&Mode| request.contains(&format!("\"mode\":\"{}\"", mode.name()));
    *Mode::ALL.iter().find(named).expect("a mode in the configuration")
}

const DESCRIPTION: &str = r#"{
    "reads": [{ "path": "a", "type": "text" }, { "path": "n", "type": "int" }],
    LEAVES
    "outputs": [
        { "name": "out", "base": "extend", "fields": [{ "path": "x", "type": "int" }, { "path": "t", "type": "text", "nullable": true }] },
        { "name": "NEW", "base": "replace", "fields": [
            { "path": "f", "type": "float", "nullable": true }, { "path": "b", "type": "boolean" }, { "path": "j", "type": "json", "nullable": true } ] }
    ],
    "stores": [{ "key": "KEY", "by": ["$key"], "fields": [{ "name": "count", "type": "int" }, { "name": "note", "type": "text", "nullable": true }] }],
    "tables": ["TABLE"]
}"#;

impl Guest for Hostile {
    fn about() -> String {
        r#"{ "name": "hostile", "version": "0.1.0", "unknown": true }"#.to_owned()
    }

    fn describe(request: String) -> Result<String, String> {
        let leaves = |asked: bool| if asked { r#""leaves": true,"# } else { "" };
        let (mut name, mut key, mut table, mut leaf) = ("new", "text", "users", true);
        match mode(&request) {
            Mode::LoopDescribe => spin(),
            Mode::MemoryDescribe => hog(),
            Mode::GarbageDescribe => return Ok("{ \"outputs\": 7 }".to_owned()),
            Mode::EmptyDescribe => return Ok("{ \"outputs\": [] }".to_owned()),
            Mode::NoMistakes => return Err("[]".to_owned()),
            Mode::MistakesDescribe => return Err(r#"[{ "at": "/mode", "message": "wrong", "proposal": "Identity" }]"#.to_owned()),
            Mode::StateInDescribe => drop(state::get_many(0, &texts(&["k"]))),
            Mode::TwoOutputsOfAName => name = "out",
            Mode::UnknownTable => table = "nobody",
            Mode::FloatKeys => key = "float",
            Mode::LeavesNotAsked => leaf = false,
            _ => {}
        }
        let text = DESCRIPTION.replace("NEW", name).replace("KEY", key).replace("TABLE", table).replace("LEAVES", leaves(leaf));
        Ok(text)
    }

    fn init(request: String) -> Result<(), String> {
        // What the SDK does: the message of a panic is lost otherwise.
        std::panic::set_hook(Box::new(|info| {
            let message = info.payload().downcast_ref::<&str>().copied().unwrap_or("panic");
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
            log::write(5, 2, &format!("{message} at {place}"));
        }));
        MODE.set(mode(&request));
        match MODE.get() {
            Mode::FailInit => Err("no such list".to_owned()),
            Mode::PanicInit => panic!("in init"),
            Mode::LoopInit => spin(),
            Mode::StateInInit => {
                state::get_many(0, &texts(&["k"]));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn process(batch: Batch) -> Result<Verdict, String> {
        let all = Verdict { outcome: Outcome::All, rejects: Vec::new() };
        let note = |rows| column(Values::Texts(strings(&vec!["n"; rows])));
        match MODE.get() {
            Mode::Identity => return Ok(all),
            Mode::Half => return Ok(Verdict { outcome: Outcome::Select((0..batch.rows).step_by(2).collect()), rejects: Vec::new() }),
            Mode::Echo => {
                let written = |column| Written { column, kept: Vec::new(), removed: Vec::new() };
                let mut fields = batch.fields.into_iter().rev().map(written).collect::<Vec<_>>();
                fields.truncate(2);
                let source = (0..batch.rows).collect();
                let derived = malformed::derived(0, source, fields);
                return Ok(Verdict { outcome: Outcome::Derive(vec![derived]), rejects: Vec::new() });
            }
            Mode::State => {
                let keys = texts(&["a", "b"]);
                state::put_many(0, &keys, &[ints(&[1, 2]), note(2)]);
                state::delete_many(0, &texts(&["b"]));
                let found = state::get_many(0, &keys);
                assert_eq!(found.present, [0b01], "what was put, without what was deleted");
                let page = state::scan(0, &texts(&["a"]), &texts(&["z"]), 10);
                assert!(!page.more);
                let users = tables::lookup(0, &[0, 3], &keys);
                assert_eq!(users.fields.len(), 1);
            }
            Mode::Log => {
                log::write(2, 1, "about row 1");
                log::write(9, u32::MAX, "about none");
                log::write(3, 1000, "about a row that is not there");
            }
            Mode::EndlessLoop => spin(),
            Mode::MemoryHog => hog(),
            Mode::Unreachable => core::arch::wasm32::unreachable(),
            Mode::Panic => panic!("out of cheese"),
            Mode::Recursion => return Err(deep(1).to_string()),
            Mode::RecursionWithFrames => return Err(deep_with_frames(1).to_string()),
            Mode::WildPointer => {
                let beyond = std::hint::black_box(0x4000_0000 as *const u32);
                // SAFETY: none, it is what the test is about.
                return Err(unsafe { beyond.read_volatile() }.to_string());
            }
            Mode::FailProcess => return Err("no more".to_owned()),
            Mode::UnknownStore => drop(state::get_many(1, &texts(&["k"]))),
            Mode::KeysOfAnotherType => drop(state::get_many(0, &ints(&[1]))),
            Mode::NullKey => drop(state::get_many(0, &Column { validity: vec![0], ..texts(&["k"]) })),
            Mode::TooFewFields => state::put_many(0, &texts(&["k"]), &[ints(&[1])]),
            Mode::FieldOfAnotherType => state::put_many(0, &texts(&["k"]), &[note(1), note(1)]),
            Mode::FieldTooShort => state::put_many(0, &texts(&["k", "l"]), &[ints(&[1]), note(2)]),
            Mode::NullField => state::put_many(0, &texts(&["k"]), &[Column { validity: vec![0], ..ints(&[1]) }, note(1)]),
            Mode::ScanWithTwoKeys => drop(state::scan(0, &texts(&["a", "b"]), &texts(&["z"]), 1)),
            Mode::TextKeysNotUtf8 => state::delete_many(0, &column(Values::Texts(Strings { data: vec![0xff], offsets: vec![0, 1] }))),
            Mode::TableUnknown => drop(tables::lookup(1, &[0], &texts(&["k"]))),
            Mode::TableRowOutOfRange => drop(tables::lookup(0, &[4], &texts(&["k"]))),
            Mode::TableLengths => drop(tables::lookup(0, &[0, 1], &texts(&["k"]))),
            Mode::Refused => drop(state::get_many(0, &texts(&["refuse"]))),
            mode => return Ok(malformed::verdict(mode, &batch)),
        }
        Ok(all)
    }
}

fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns + 1);
    }
}

fn hog() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

#[inline(never)]
fn deep(depth: u64) -> u64 {
    if std::hint::black_box(depth) == 0 { 0 } else { deep(depth + 1).wrapping_mul(3) + 1 }
}

/// Frames in linear memory, whose stack ends first.
#[inline(never)]
fn deep_with_frames(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 2048]);
    if frame[7] == 0 { 0 } else { deep_with_frames(depth + 1).wrapping_add(std::hint::black_box(&frame)[9]) }
}

pub fn column(values: Values) -> Column {
    Column { values, validity: Vec::new() }
}

pub fn strings(texts: &[&str]) -> Strings {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for text in texts {
        data.extend_from_slice(text.as_bytes());
        offsets.push(data.len() as u32);
    }
    Strings { data, offsets }
}

pub fn texts(values: &[&str]) -> Column {
    column(Values::Texts(strings(values)))
}

pub fn blobs(values: &[&str]) -> Column {
    column(Values::Blobs(strings(values)))
}

pub fn ints(values: &[i64]) -> Column {
    column(Values::Ints(values.to_vec()))
}
