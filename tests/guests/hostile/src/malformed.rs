//! A verdict that is right in every respect, and the ways to break it.

use crate::guest::*;
use crate::modes::Mode;

const FROM_NONE: u32 = u32::MAX;

fn written(column: Column) -> Written {
    Written { column, kept: Vec::new(), removed: Vec::new() }
}

pub fn derived(output: u32, source: Vec<u32>, fields: Vec<Written>) -> Derived {
    Derived { output, source, fields, timestamps: None, keys: None, values: None, headers: None, leaves: None, tombstones: Vec::new() }
}

/// Both outputs, with all that they may hold; row 3 is rejected.
fn good() -> (Derived, Derived, Vec<Reject>) {
    let mut text = texts(&["ä", "ignored", "€"]);
    text.validity = vec![0b101];
    let mut out = derived(0, vec![0, 1, 2], vec![written(ints(&[1, 2, 3])), written(text)]);
    out.fields[1].kept = vec![0b010];
    out.headers = Some(HeaderColumns { offsets: vec![0, 1, 1, 2], names: strings(&["h", "i"]), values: blobs(&["1", "2"]) });
    out.leaves = Some(ReplacedLeaves { entries: vec![0, 2], values: strings(&["*", "ü"]) });
    out.tombstones = vec![0b100];
    let mut new = derived(
        1,
        vec![0, 0, FROM_NONE],
        vec![
            written(column(Values::Floats(vec![1.5, 0.0, -0.0]))),
            written(column(Values::Bools(vec![0b011]))),
            written(column(Values::Jsons(strings(&["{\"a\":[1]}", "7", " \"null\" "])))),
        ],
    );
    new.fields[0].removed = vec![0b001];
    new.timestamps = Some(vec![1, 2, 3]);
    new.keys = Some(blobs(&["a", "b", "c"]));
    (out, new, vec![Reject { row: 3, reason: "not this one".to_owned() }])
}

pub fn verdict(mode: Mode, batch: &Batch) -> Verdict {
    let select = |rows: &[u32], rejects: Vec<Reject>| Verdict { outcome: Outcome::Select(rows.to_vec()), rejects };
    let reject = |row| Reject { row, reason: "no".to_owned() };
    let (mut out, mut new, rejects) = good();
    let mut extra = Vec::new();
    let int = |values: &[i64]| written(ints(values));
    let bytes = |data: &[u8], offsets: &[u32]| Strings { data: data.to_vec(), offsets: offsets.to_vec() };
    let text = |data: &[u8], offsets: &[u32]| written(column(Values::Texts(bytes(data, offsets))));
    let json = |rows: &[&str]| written(column(Values::Jsons(strings(rows))));
    match mode {
        Mode::SelectFalls => return select(&[1, 0], Vec::new()),
        Mode::SelectRepeats => return select(&[1, 1], Vec::new()),
        Mode::SelectOutOfRange => return select(&[0, batch.rows], Vec::new()),
        Mode::SelectRejected => return select(&[0, 1], vec![reject(1)]),
        Mode::RejectOutOfRange => return select(&[], vec![reject(batch.rows)]),
        Mode::RejectTwice => return select(&[], vec![reject(1), reject(0), reject(1)]),
        Mode::ReasonNotUtf8 => {
            // SAFETY: none, it is what the test is about.
            let reason = unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe]) };
            return select(&[], vec![Reject { row: 0, reason }]);
        }
        Mode::ManyLongReasons => {
            let long = "x".repeat(8 << 20).into_boxed_str();
            let (start, length) = (Box::leak(long).as_mut_ptr(), 8 << 20);
            // SAFETY: none: many strings own the same bytes, so that little of the guest's memory becomes much of the host's. The host never
            // lets the guest go on to free them.
            let reason = || unsafe { String::from_raw_parts(start, length, length) };
            return select(&[], (0..100_000).map(|row| Reject { row, reason: reason() }).collect());
        }
        Mode::OutputUnknown => new.output = 2,
        Mode::OutputTwice => extra.push(derived(0, vec![], vec![int(&[]), text(b"", &[0])])),
        Mode::SourceFalls => out.source = vec![1, 0, 2],
        Mode::SourceOutOfRange => out.source = vec![0, 1, batch.rows],
        Mode::SourceRejected => out.source = vec![0, 1, 3],
        Mode::FromNoneInExtend => out.source = vec![0, 1, FROM_NONE],
        Mode::FromNoneWithoutKeys => new.keys = None,
        Mode::FromNoneWithoutTimestamps => new.timestamps = None,
        Mode::FieldsMissing => drop(out.fields.pop()),
        Mode::FieldsTooMany => out.fields.push(int(&[1, 2, 3])),
        Mode::FieldTypeWrong => out.fields[0] = written(column(Values::Floats(vec![1.0; 3]))),
        Mode::IntsTooFew => out.fields[0] = int(&[1, 2]),
        Mode::IntsTooMany => out.fields[0] = int(&[1, 2, 3, 4]),
        Mode::FloatNan => new.fields[0] = written(column(Values::Floats(vec![1.0, f64::NAN, 1.0]))),
        Mode::FloatInfinite => new.fields[0] = written(column(Values::Floats(vec![1.0, 1.0, f64::NEG_INFINITY]))),
        Mode::BoolsTooShort => new.fields[1] = written(column(Values::Bools(Vec::new()))),
        Mode::OffsetsTooFew => out.fields[1] = text(b"ab", &[0, 1, 2]),
        Mode::OffsetsEmpty => out.fields[1] = text(b"", &[]),
        Mode::OffsetsNotFromZero => out.fields[1] = text(b"abc", &[1, 1, 2, 3]),
        Mode::OffsetsFall => out.fields[1] = text(b"abc", &[0, 2, 1, 3]),
        Mode::OffsetsBeyondData => out.fields[1] = text(b"abc", &[0, 1, 2, 0xffff_fff0]),
        Mode::OffsetsBeforeEnd => out.fields[1] = text(b"abc", &[0, 1, 2, 2]),
        Mode::TextNotUtf8 => out.fields[1] = text(b"a\xffc", &[0, 1, 2, 3]),
        Mode::TextCutsCharacter => out.fields[1] = text("aä".as_bytes(), &[0, 1, 2, 3]),
        Mode::JsonInvalid => new.fields[2] = json(&["1", "{", "2"]),
        Mode::JsonInjects => new.fields[2] = json(&["1", "2,\"admin\":true", "3"]),
        Mode::JsonNull => new.fields[2] = json(&["1", "null", "3"]),
        Mode::JsonTooDeep => {
            let deep = "[".repeat(129) + &"]".repeat(129);
            new.fields[2] = json(&["1", &deep, "3"]);
        }
        Mode::JsonNotUtf8 => new.fields[2] = written(column(Values::Jsons(bytes(b"1\"\xff\"2", &[0, 1, 4, 5])))),
        Mode::ValidityTooShort => {
            out = derived(0, vec![0, 0, 0, 0, 0, 0, 0, 0, 0], vec![int(&[1; 9]), written(texts(&["t"; 9]))]);
            out.fields[1].column.validity = vec![0xff];
        }
        Mode::ValidityTooLong => out.fields[1].column.validity = vec![0xff, 0xff],
        Mode::KeptTooShort => {
            out = derived(0, vec![0, 0, 0, 0, 0, 0, 0, 0, 0], vec![int(&[1; 9]), written(texts(&["t"; 9]))]);
            out.fields[1].kept = vec![0xff];
        }
        Mode::KeptInReplace => new.fields[0].kept = vec![0b100],
        Mode::RemovedTooLong => out.fields[0].removed = vec![0, 0],
        Mode::NullNeverNull => out.fields[0].column.validity = vec![0b101],
        Mode::TombstonesTooLong => out.tombstones = vec![0, 0],
        Mode::TimestampsTooFew => new.timestamps = Some(vec![1]),
        Mode::KeysOfText => new.keys = Some(texts(&["a", "b", "c"])),
        Mode::KeysTooFew => new.keys = Some(blobs(&["a", "b"])),
        Mode::ValuesWithFields => new.values = Some(blobs(&["a", "b", "c"])),
        Mode::ValuesOfText => {
            new.fields.clear();
            new.values = Some(texts(&["a", "b", "c"]));
        }
        Mode::ValuesTooMany => {
            new.fields.clear();
            new.values = Some(blobs(&["a", "b", "c", "d"]));
        }
        Mode::HeadersTooFew => out.headers.iter_mut().for_each(|headers| headers.offsets = vec![0, 1, 2]),
        Mode::HeadersFall => out.headers.iter_mut().for_each(|headers| headers.offsets = vec![0, 2, 1, 2]),
        Mode::HeaderNamesTooFew => out.headers.iter_mut().for_each(|headers| headers.names = strings(&["h"])),
        Mode::HeaderValuesTooFew => out.headers.iter_mut().for_each(|headers| headers.values = blobs(&["1"])),
        Mode::HeaderValuesOfText => out.headers.iter_mut().for_each(|headers| headers.values = texts(&["1", "2"])),
        // The rest of the verdict is right: what is wrong is that `describe` did not ask.
        Mode::LeavesNotAsked => {}
        Mode::LeavesInReplace => {
            new = derived(1, vec![0, 1, 2], new.fields);
            new.leaves = out.leaves.take();
        }
        Mode::LeavesOfRepeatedRow => out.source = vec![0, 1, 1],
        Mode::LeavesFall => out.leaves.iter_mut().for_each(|leaves| leaves.entries = vec![2, 0]),
        Mode::LeavesRepeat => out.leaves.iter_mut().for_each(|leaves| leaves.entries = vec![2, 2]),
        Mode::LeavesOutOfRange => out.leaves.iter_mut().for_each(|leaves| leaves.entries = vec![2, 3]),
        Mode::LeavesTooFew => out.leaves.iter_mut().for_each(|leaves| leaves.values = strings(&["*"])),
        Mode::LeavesNotUtf8 => out.leaves.iter_mut().for_each(|leaves| leaves.values = bytes(b"\xff*", &[0, 1, 2])),
        // `Good`, and every mode that has been dealt with already.
        _ => {}
    }
    Verdict { outcome: Outcome::Derive([vec![out, new], extra].concat()), rejects }
}
