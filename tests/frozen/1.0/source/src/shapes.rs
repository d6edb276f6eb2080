//! Every shape of a verdict, and everything that a batch may hold.

use crate::columns::{blobs, bools, derived, floats, int, ints, marks, show, show_row, strings, texts, written};
use crate::{Config, read, told, writes};
use millstream_guest::column::{Cell, Strings, Type};
use millstream_guest::describe::{Base, Description, Output, OutputKey, Part, Read};
use millstream_guest::headers::HeadersBuilder;
use millstream_guest::verdict::{FROM_NONE, Outcome, Reject, ReplacedLeaves, Verdict};
use millstream_guest::{Batch, Setup, log};

/// Even numbers pass, odd ones are dropped, rows without one are refused.
pub fn select() -> Description {
    let warnings = vec!["a warning of the frozen guest".to_owned()];
    Description { reads: vec![read("n", Type::Int)], outputs: vec![Output::unchanged()], warnings, ..Description::default() }
}

pub fn process_select(batch: &Batch, secret: &str) -> Result<Verdict, String> {
    if secret != "known" {
        return Err("`init` was not told the secret".to_owned());
    }
    let (mut selected, mut rejects) = (Vec::new(), Vec::new());
    for row in 0..batch.rows {
        match int(&batch.fields[0], row) {
            Some(n) if n % 2 == 0 => selected.push(row as u32),
            Some(_) => log::write(3, Some(row as u32), "an odd number is dropped"),
            None => rejects.push(Reject { row: row as u32, reason: "there is no n".to_owned() }),
        }
    }
    let all = selected.len() + rejects.len() == batch.rows;
    Ok(Verdict { outcome: if all { Outcome::All } else { Outcome::Select(selected) }, rejects })
}

/// Reads all that a record has and tells it in `seen`; writes two outputs, one in each way.
pub fn all() -> Description {
    let reads = [
        ("b", Type::Boolean),
        ("i", Type::Int),
        ("f", Type::Float),
        ("t", Type::Text),
        ("y", Type::Bytes),
        ("j", Type::Json),
        ("$key", Type::Text),
        ("$timestamp", Type::Int),
        ("$headers.\"h\"", Type::Text),
        ("$topic", Type::Text),
        ("$partition", Type::Int),
        ("$offset", Type::Int),
    ];
    let out = Output {
        name: "out".to_owned(),
        base: Base::Extend,
        fields: vec![writes("i", Type::Int), writes("seen", Type::Text), writes("gone", Type::Text)],
        removes: vec![crate::columns::field("gone")],
        key: OutputKey::AsRead,
    };
    let fields = [("b", Type::Boolean), ("i", Type::Int), ("f", Type::Float), ("t", Type::Text), ("y", Type::Bytes), ("j", Type::Json)];
    Description {
        reads: reads.iter().map(|(path, kind)| Read { required: *path == "i", ..read(path, *kind) }).collect(),
        leaves: true,
        parts: vec![Part::Key, Part::Value, Part::Headers],
        outputs: vec![out, Output { name: "made".to_owned(), ..told(&fields) }],
        ..Description::default()
    }
}

pub fn process_all(batch: &Batch) -> Verdict {
    let refused = |row: &usize| int(&batch.fields[1], *row) == Some(13);
    let rejects = (0..batch.rows).filter(refused).map(|row| Reject { row: row as u32, reason: "13".to_owned() }).collect();
    let rows: Vec<usize> = (0..batch.rows).filter(|row| !refused(row)).collect();
    Verdict { outcome: Outcome::Derive(vec![extended(batch, &rows), made(batch, &rows)]), rejects }
}

fn extended(batch: &Batch, rows: &[usize]) -> millstream_guest::verdict::Derived {
    let index: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
    let number = |row: &usize| int(&batch.fields[1], *row);
    let mut out = derived(0, index.clone(), Vec::new());
    let mut counted = written(ints(rows.iter().map(|row| number(row).map(|i| i + 1))));
    counted.kept = marks(rows.iter().map(|row| number(row) == Some(5)));
    let mut gone = written(texts(rows.iter().map(|_| None)));
    gone.removed = marks(rows.iter().map(|_| true));
    out.fields = vec![
        counted,
        written(texts(seen(batch).into_iter().enumerate().filter(|(row, _)| rows.contains(row)).map(|(_, seen)| Some(seen)))),
        gone,
    ];
    out.timestamps = Some(rows.iter().map(|row| batch.timestamps[*row] + 1000).collect());
    out.keys = batch.keys.as_ref().map(|keys| keys.gather(&index));
    out.tombstones = marks(rows.iter().map(|row| matches!(batch.fields[0].cell(*row), Cell::Bool(false))));
    let mut headers = HeadersBuilder::default();
    for row in rows {
        for (name, value) in batch.headers.iter().flat_map(|headers| headers.of(*row)) {
            headers.push(name, value);
        }
        headers.push(b"frozen", Some(number(row).unwrap_or_default().to_string().as_bytes()));
        headers.push(b"nothing", None);
        headers.close();
    }
    out.headers = Some(headers.finish());
    let mut hidden = ReplacedLeaves { entries: Vec::new(), values: Strings::default() };
    if let Some(leaves) = &batch.leaves {
        for row in rows {
            for entry in leaves.offsets[*row]..leaves.offsets[*row + 1] {
                let path = leaves.paths.get(entry as usize);
                if path == b"secret" || path == b"list[1]" {
                    hidden.entries.push(entry);
                    hidden.values.push(b"hidden");
                }
            }
        }
    }
    out.leaves = Some(hidden);
    out
}

/// Everything that the batch holds of each row.
fn seen(batch: &Batch) -> Vec<String> {
    let mut stream_time = batch.stream_time;
    let mut told = Vec::new();
    for row in 0..batch.rows {
        let mut seen = show_row(&batch.fields, row);
        seen.push_str(&format!("|stream {stream_time}"));
        stream_time = stream_time.max(batch.timestamps[row]);
        seen.push_str(&format!(
            "|key {}|value {}",
            show(batch.keys.as_ref().expect("keys"), row),
            show(batch.values.as_ref().expect("values"), row)
        ));
        for (name, value) in batch.headers.as_ref().expect("headers").of(row) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.push_str(&format!("|header {}={}", text(name), value.map_or("-".to_owned(), text)));
        }
        let leaves = batch.leaves.as_ref().expect("leaves");
        for entry in leaves.offsets[row]..leaves.offsets[row + 1] {
            let text = |strings: &Strings| String::from_utf8_lossy(strings.get(entry as usize)).into_owned();
            seen.push_str(&format!("|leaf {}={}", text(&leaves.paths), text(&leaves.values)));
        }
        told.push(seen);
    }
    told
}

/// Each row twice, of all types; behind the row whose number is 7, which is the last, one that comes from none.
fn made(batch: &Batch, rows: &[usize]) -> millstream_guest::verdict::Derived {
    let twice: Vec<u32> = rows.iter().flat_map(|row| [*row as u32; 2]).collect();
    let mut fields: Vec<_> = batch.fields[..6].iter().map(|column| column.gather(&twice)).collect();
    let mut source = twice.clone();
    let mut times: Vec<i64> = twice.iter().map(|row| batch.timestamps[*row as usize]).collect();
    let mut keys: Vec<Option<String>> = twice.iter().map(|row| Some(format!("made-{}", show(&batch.fields[1], *row as usize)))).collect();
    if rows.iter().any(|row| int(&batch.fields[1], *row) == Some(7)) {
        source.push(FROM_NONE);
        times.push(42);
        keys.push(None);
        fields = vec![
            bools(rows_of(&fields[0], twice.len(), |cell| matches!(cell, Cell::Bool(true)), true)),
            ints(rows_of(&fields[1], twice.len(), |cell| if let Cell::Int(value) = cell { value } else { 0 }, i64::MIN)),
            floats(rows_of(&fields[2], twice.len(), |cell| if let Cell::Float(value) = cell { value } else { 0.0 }, -0.5e-300)),
            texts(rows_of(&fields[3], twice.len(), text_of, "from none \u{1d11e} \"\\".to_owned())),
            strings(Type::Bytes, rows_of(&fields[4], twice.len(), text_of, "bytes".to_owned())),
            strings(Type::Json, rows_of(&fields[5], twice.len(), text_of, "{\"a\": [1]}".to_owned())),
        ];
    }
    let mut made = derived(1, source, fields);
    made.fields[2].removed = marks((0..made.source.len()).map(|row| row % 2 == 1));
    made.timestamps = Some(times);
    made.keys = Some(blobs(keys));
    made
}

fn text_of(cell: Cell<'_>) -> String {
    match cell {
        Cell::Text(text) | Cell::Json(text) => text.to_owned(),
        Cell::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// The cells of a column that are set, and one more.
fn rows_of<'a, T>(
    column: &'a millstream_guest::column::Column,
    rows: usize,
    of: impl Fn(Cell<'a>) -> T + 'a,
    last: T,
) -> impl Iterator<Item = Option<T>> {
    (0..rows)
        .map(move |row| Some(column.cell(row)).filter(|cell| *cell != Cell::Null).map(&of))
        .chain([Some(last)])
        .collect::<Vec<_>>()
        .into_iter()
}

/// Values as bytes.
pub fn raw() -> Description {
    let out = Output { key: OutputKey::Text, ..Output::unchanged() };
    Description { parts: vec![Part::Key, Part::Value], tombstones: true, outputs: vec![out], ..Description::default() }
}

pub fn process_raw(batch: &Batch) -> Verdict {
    let (keys, values) = (batch.keys.as_ref().expect("keys"), batch.values.as_ref().expect("values"));
    let mut out = derived(0, (0..batch.rows as u32).collect(), Vec::new());
    let changed =
        |column: &millstream_guest::column::Column, row, mark: &str| (!column.is_null(row)).then(|| format!("{}{mark}", show(column, row)));
    out.keys = Some(blobs((0..batch.rows).map(|row| changed(keys, row, "?"))));
    out.values = Some(blobs((0..batch.rows).map(|row| changed(values, row, "!"))));
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}

/// Two inputs that are told apart, one with a field of its own.
pub fn of_inputs(setup: &Setup<Config>) -> Description {
    let fields: Vec<String> =
        setup.inputs.iter().map(|input| input.fields.iter().map(|field| field.path.to_string()).collect::<Vec<_>>().join("+")).collect();
    Description {
        reads: vec![read("$input", Type::Int), read("$key", Type::Text), Read { input: Some(1), ..read("n", Type::Int) }],
        outputs: vec![told(&[("input", Type::Int), ("n", Type::Int)])],
        input_keys: vec![crate::columns::field("$key"), crate::columns::field("$key")],
        warnings: vec![format!("inputs {}", fields.join(" and "))],
        ..Description::default()
    }
}

pub fn process_inputs(batch: &Batch) -> Verdict {
    let fields = vec![batch.fields[0].clone(), batch.fields[2].clone()];
    let out = derived(0, (0..batch.rows as u32).collect(), fields);
    Verdict { outcome: Outcome::Derive(vec![out]), rejects: Vec::new() }
}
