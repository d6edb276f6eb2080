//! Everything that a guest gives is checked here before the host uses it, by the rules of `wit/plugin.wit`. What passes can be indexed without
//! further checks. A message says what is wrong and where (output, field, row) and never quotes a value.

use crate::column::{Bitmap, Column, Strings, Type, Values};
use crate::field::Field;
use crate::plugin::describe::{Base, Description, Occasion, Output, OutputKey, Part, Request, StoreField, Window};
use crate::plugin::{Derived, FROM_NONE, Input, Outcome, Reject, ReplacedLeaves, Verdict, Written};
use crate::record::Headers;
use serde::de::IgnoredAny;
use std::collections::HashSet;

/// Offsets and lengths stay below this, so that either side may use signed 32-bit numbers.
const MAX_BYTES: usize = i32::MAX as usize;
/// Nesting of a JSON value, as in records.
const MAX_DEPTH: usize = 128;

/// What of the input a verdict is held against.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rows: usize,
    /// How many leaves the input has; None if the plugin did not ask for them.
    pub leaves: Option<usize>,
}

impl Shape {
    pub fn of(input: &Input<'_>) -> Self {
        Self { rows: input.rows, leaves: input.leaves.map(|leaves| leaves.values.len()) }
    }
}

/// Checks what came of a batch and puts its rejects into the order of rows.
pub fn verdict(verdict: &mut Verdict, description: &Description, shape: Shape) -> Result<(), String> {
    answer(verdict, description, shape)?;
    let Outcome::Derive(outputs) = &verdict.outcome else { return Ok(()) };
    let described = |derived: &Derived| &description.outputs[derived.output];
    match outputs.iter().find(|derived| derived.keys.is_some() && described(derived).key == OutputKey::Kept) {
        Some(derived) => Err(format!("output `{}` has new keys, but keys are described as kept", described(derived).name)),
        None => Ok(()),
    }
}

fn answer(verdict: &mut Verdict, description: &Description, shape: Shape) -> Result<(), String> {
    let rejected = rejects(&mut verdict.rejects, shape.rows)?;
    match &verdict.outcome {
        Outcome::All => Ok(()),
        Outcome::Select(rows) => select(rows, shape.rows, &rejected).map_err(|error| format!("select: {error}")),
        Outcome::Derive(outputs) => {
            let mut seen = vec![false; description.outputs.len()];
            for output in outputs {
                let Some(described) = description.outputs.get(output.output) else {
                    return Err(format!("derive names output {}, {} are described", output.output, description.outputs.len()));
                };
                if std::mem::replace(&mut seen[output.output], true) {
                    return Err(format!("derive names output `{}` twice", described.name));
                }
                derived(output, described, shape, &rejected).map_err(|error| format!("output `{}`{error}", described.name))?;
            }
            Ok(())
        }
    }
}

/// Checks what came of rows of a store, or of timers: `rows` were given.
pub fn emitted(verdict: &mut Verdict, description: &Description, rows: usize) -> Result<(), String> {
    if !verdict.rejects.is_empty() {
        return Err("rows are rejected, but there is no record to reject".to_owned());
    }
    let Outcome::Derive(outputs) = &verdict.outcome else {
        return Err("rows are selected, but results are derived".to_owned());
    };
    for derived in outputs {
        let name = description.outputs.get(derived.output).map_or("", |output| &output.name);
        if description.outputs.get(derived.output).is_some_and(|output| output.base != Base::Replace) {
            return Err(format!("output `{name}` is written without a record, but its base is not `replace`"));
        }
        if derived.keys.is_none() || derived.timestamps.is_none() {
            return Err(format!("output `{name}` is written without a record, and without keys and timestamps"));
        }
        if derived.source.contains(&FROM_NONE) {
            return Err(format!("output `{name}` has rows from none: each comes of one that was given"));
        }
    }
    answer(verdict, description, Shape { rows, leaves: None })
}

fn rejects(rejects: &mut [Reject], rows: usize) -> Result<Bitmap, String> {
    if rejects.is_empty() {
        return Ok(Bitmap::default());
    }
    if !rejects.is_sorted_by_key(|reject| reject.row) {
        rejects.sort_by_key(|reject| reject.row);
    }
    if let Some(reject) = rejects.last().filter(|reject| reject.row as usize >= rows) {
        return Err(format!("row {} is rejected, the batch has {rows} rows", reject.row));
    }
    if let Some(pair) = rejects.windows(2).find(|pair| pair[0].row == pair[1].row) {
        return Err(format!("row {} is rejected twice", pair[0].row));
    }
    let mut rejected = Bitmap::filled(rows, false);
    for reject in rejects {
        rejected.set(reject.row as usize);
    }
    Ok(rejected)
}

fn select(selected: &[u32], rows: usize, rejected: &Bitmap) -> Result<(), String> {
    if !selected.is_sorted_by(|a, b| a < b) {
        return Err("the rows are not strictly increasing".to_owned());
    }
    if let Some(row) = selected.last().filter(|row| **row as usize >= rows) {
        return Err(format!("row {row} is out of range, the batch has {rows} rows"));
    }
    none_rejected(selected, rejected)
}

fn none_rejected(rows: &[u32], rejected: &Bitmap) -> Result<(), String> {
    if !rejected.0.is_empty()
        && let Some(row) = rows.iter().find(|row| **row != FROM_NONE && rejected.get(**row as usize))
    {
        return Err(format!("row {row} is rejected too"));
    }
    Ok(())
}

/// Errors begin with a comma or colon: they follow the output's name.
fn derived(derived: &Derived, output: &Output, shape: Shape, rejected: &Bitmap) -> Result<(), String> {
    let rows = derived.source.len();
    let part = |name: &'static str| move |error: String| format!(", {name}: {error}");
    source(derived, output, shape.rows, rejected).map_err(part("source"))?;
    marks(&derived.tombstones, rows).map_err(part("tombstones"))?;
    if let Some(timestamps) = &derived.timestamps {
        count(timestamps.len(), rows).map_err(part("timestamps"))?;
    }
    if let Some(keys) = &derived.keys {
        column(keys, Type::Bytes, rows).map_err(part("keys"))?;
    }
    if let Some(headers) = &derived.headers {
        self::headers(headers, rows).map_err(part("headers"))?;
    }
    match &derived.values {
        Some(values) => {
            if !derived.fields.is_empty() || derived.leaves.is_some() {
                return Err(": it gives values together with fields or leaves".to_owned());
            }
            column(values, Type::Bytes, rows).map_err(part("values"))?;
        }
        None => {
            if derived.fields.len() != output.fields.len() {
                return Err(format!(": it gives {} fields, {} are described", derived.fields.len(), output.fields.len()));
            }
            for (field, described) in derived.fields.iter().zip(&output.fields) {
                written(field, described.kind, described.nullable, output.base, rows, &derived.tombstones)
                    .map_err(|error| format!(", field `{}`: {error}", described.path))?;
            }
        }
    }
    match &derived.leaves {
        Some(leaves) => replaced(leaves, derived, output, shape).map_err(part("leaves")),
        None => Ok(()),
    }
}

fn source(derived: &Derived, output: &Output, rows: usize, rejected: &Bitmap) -> Result<(), String> {
    if !derived.source.is_sorted() {
        return Err("the rows fall".to_owned());
    }
    // Sorted, so rows from none are the last, and the greatest row from the input stands before them.
    let from_input = derived.source.partition_point(|row| *row != FROM_NONE);
    if let Some(row) = derived.source[..from_input].last().filter(|row| **row as usize >= rows) {
        return Err(format!("row {row} is out of range, the batch has {rows} rows"));
    }
    if from_input < derived.source.len() {
        if output.base != Base::Replace {
            return Err("rows from none need an output whose base is `replace`".to_owned());
        }
        if derived.keys.is_none() || derived.timestamps.is_none() {
            return Err("rows from none need keys and timestamps".to_owned());
        }
    }
    none_rejected(&derived.source, rejected)
}

fn written(field: &Written, kind: Type, nullable: bool, base: Base, rows: usize, tombstones: &Bitmap) -> Result<(), String> {
    column(&field.column, kind, rows)?;
    marks(&field.kept, rows).map_err(|error| format!("kept: {error}"))?;
    marks(&field.removed, rows).map_err(|error| format!("removed: {error}"))?;
    if base == Base::Replace && field.kept.any(rows) {
        return Err("rows are kept, but the output's base is `replace`: there is nothing to keep".to_owned());
    }
    if !nullable && !field.column.validity.0.is_empty() {
        let byte = |marks: &Bitmap, at: usize| marks.0.get(at).copied().unwrap_or(0);
        for (at, valid) in field.column.validity.0.iter().enumerate() {
            let settled = valid | byte(&field.kept, at) | byte(&field.removed, at) | byte(tombstones, at);
            let row = at * 8 + settled.trailing_ones() as usize;
            if settled != 0xff && row < rows {
                return Err(format!("row {row} is null, the field is described as never null"));
            }
        }
    }
    Ok(())
}

fn replaced(leaves: &ReplacedLeaves, derived: &Derived, output: &Output, shape: Shape) -> Result<(), String> {
    let Some(entries) = shape.leaves else {
        return Err("leaves were not asked for".to_owned());
    };
    if output.base != Base::Extend {
        return Err("the output's base is not `extend`".to_owned());
    }
    if !derived.source.is_sorted_by(|a, b| a < b) {
        return Err("a source row is named twice".to_owned());
    }
    if !leaves.entries.is_sorted_by(|a, b| a < b) {
        return Err("the entries are not strictly increasing".to_owned());
    }
    if let Some(entry) = leaves.entries.last().filter(|entry| **entry as usize >= entries) {
        return Err(format!("entry {entry} is out of range, the batch has {entries} leaves"));
    }
    strings(&leaves.values, leaves.entries.len())?;
    utf8(&leaves.values, |_| false)
}

fn headers(headers: &Headers, rows: usize) -> Result<(), String> {
    let entries = headers.offsets.last().map_or(0, |last| *last as usize);
    // No offsets at all is how the host itself says "no headers".
    if !headers.offsets.is_empty() {
        offsets(&headers.offsets, rows, entries)?;
    }
    strings(&headers.names, entries).map_err(|error| format!("names: {error}"))?;
    column(&headers.values, Type::Bytes, entries).map_err(|error| format!("values: {error}"))
}

/// A column of a described type and a known count of rows.
pub fn column(column: &Column, kind: Type, rows: usize) -> Result<(), String> {
    if column.kind() != kind {
        return Err(format!("the column holds {}, expected is {kind}", column.kind()));
    }
    marks(&column.validity, rows).map_err(|error| format!("validity: {error}"))?;
    match &column.values {
        Values::Bools(bits) => match rows.div_ceil(8) {
            bytes if bits.len() == bytes => Ok(()),
            bytes => Err(format!("{} bytes of booleans, {rows} rows need {bytes}", bits.len())),
        },
        Values::Ints(values) => count(values.len(), rows),
        Values::Floats(values) => {
            count(values.len(), rows)?;
            // The rule, then the exception: a null row's slot is ignored.
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(()),
                false => match (0..rows).find(|row| !values[*row].is_finite() && !column.is_null(*row)) {
                    Some(row) => Err(format!("row {row} is not a finite number")),
                    None => Ok(()),
                },
            }
        }
        Values::Blobs(values) => strings(values, rows),
        Values::Texts(values) => {
            strings(values, rows)?;
            utf8(values, |row| column.is_null(row))
        }
        Values::Jsons(values) => {
            strings(values, rows)?;
            (0..rows)
                .filter(|row| !column.is_null(*row))
                .try_for_each(|row| json(values.get(row)).map_err(|error| format!("row {row} {error}")))
        }
    }
}

/// A column of no null rows, for keys of stores.
pub fn column_without_nulls(column: &Column, kind: Type, rows: usize) -> Result<(), String> {
    self::column(column, kind, rows)?;
    match (0..rows).find(|row| column.is_null(*row)) {
        Some(row) => Err(format!("row {row} is null")),
        None => Ok(()),
    }
}

/// The columns of a store's rows.
pub fn rows_of_store(columns: &[Column], fields: &[StoreField], rows: usize) -> Result<(), String> {
    if columns.len() != fields.len() {
        return Err(format!("a row has {} fields, {} are given", fields.len(), columns.len()));
    }
    columns.iter().zip(fields).try_for_each(|(column, field)| {
        let check = if field.nullable { self::column } else { column_without_nulls };
        check(column, field.kind, rows).map_err(|error| format!("field `{}`: {error}", field.name))
    })
}

/// Rows of a column that says nothing else about its length. For booleans, the most that its bytes may hold.
pub fn rows(column: &Column) -> usize {
    match &column.values {
        Values::Bools(bits) => bits.len() * 8,
        Values::Ints(values) => values.len(),
        Values::Floats(values) => values.len(),
        Values::Texts(strings) | Values::Blobs(strings) | Values::Jsons(strings) => strings.offsets.len().saturating_sub(1),
    }
}

fn count(found: usize, rows: usize) -> Result<(), String> {
    if found == rows { Ok(()) } else { Err(format!("{found} entries for {rows} rows")) }
}

/// A bitmap that may be absent.
fn marks(bitmap: &Bitmap, rows: usize) -> Result<(), String> {
    let bytes = rows.div_ceil(8);
    if bitmap.0.is_empty() || bitmap.0.len() == bytes {
        Ok(())
    } else {
        Err(format!("{} bytes of marks, {rows} rows need {bytes}", bitmap.0.len()))
    }
}

fn strings(strings: &Strings, rows: usize) -> Result<(), String> {
    offsets(&strings.offsets, rows, strings.data.len())
}

fn offsets(offsets: &[u32], rows: usize, end: usize) -> Result<(), String> {
    if offsets.len() != rows + 1 {
        return Err(format!("{} offsets, {rows} rows need {}", offsets.len(), rows + 1));
    }
    if offsets[0] != 0 {
        return Err("the offsets do not begin with 0".to_owned());
    }
    if !offsets.is_sorted() {
        return Err("the offsets fall".to_owned());
    }
    if offsets[rows] as usize != end {
        return Err("the last offset is not the end of the data".to_owned());
    }
    if end >= MAX_BYTES {
        return Err("2^31 bytes or more".to_owned());
    }
    Ok(())
}

/// One pass over all the data; only if that fails, row by row, since a null row's slot may hold anything. The offsets are checked already.
fn utf8(strings: &Strings, is_null: impl Fn(usize) -> bool) -> Result<(), String> {
    if strings.data.is_ascii() {
        return Ok(());
    }
    if let Ok(text) = std::str::from_utf8(&strings.data)
        && strings.offsets.iter().all(|offset| text.is_char_boundary(*offset as usize))
    {
        return Ok(());
    }
    match (0..strings.len()).find(|row| !is_null(*row) && std::str::from_utf8(strings.get(*row)).is_err()) {
        Some(row) => Err(format!("row {row} is not UTF-8")),
        None => Ok(()),
    }
}

fn json(bytes: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    // Built without recursion, so that depth cannot harm it.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| "is not a JSON value")?;
    if text.trim_ascii() == "null" {
        return Err("is the text `null`: null rows are marked in validity");
    }
    if too_deep(bytes) { Err("is nested deeper than 128") } else { Ok(()) }
}

/// Of valid JSON.
fn too_deep(text: &[u8]) -> bool {
    if text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    false
}

/// What `describe` answered, against what it was asked.
pub fn description(description: &Description, request: &Request) -> Result<(), String> {
    let Some(first) = description.outputs.first() else {
        return Err("no output is described".to_owned());
    };
    if description.leaves && first.base != Base::Extend {
        return Err(format!("leaves are asked for, but the base of the first output `{}` is not `extend`", first.name));
    }
    unique("output", description.outputs.iter().map(|output| output.name.as_str()))?;
    unique("store", description.stores.iter().map(|store| store.name.as_str()))?;
    for output in &description.outputs {
        if output.key == OutputKey::AsRead && !(output.base == Base::Extend && description.parts.contains(&Part::Key)) {
            let name = &output.name;
            return Err(format!("output `{name}` has keys as they were read: its base must be `extend`, and the part `key` asked for"));
        }
        let fields = output.fields.iter().map(|field| &field.path);
        for path in fields.chain(&output.removes) {
            if !matches!(path, Field::Value(_)) {
                return Err(format!("output `{}` writes `{path}`: keys, times and headers are given beside the fields", output.name));
            }
        }
        if let Some((one, other)) = overlap(&output.fields.iter().map(|field| &field.path).collect::<Vec<_>>()) {
            return Err(format!("output `{}` writes both `{one}` and `{other}`", output.name));
        }
    }
    for store in &description.stores {
        if !matches!(store.key, Type::Text | Type::Int | Type::Bytes) {
            return Err(format!("keys of store `{}` are {}: they may be text, int or bytes", store.name, store.key));
        }
        if store.windowed && store.key != Type::Bytes {
            return Err(format!("keys of store `{}` are {}: with windows they are bytes", store.name, store.key));
        }
        if store.emits.contains(&Occasion::Closed) && !(store.windowed && description.window.is_some()) {
            return Err(format!("closed rows of store `{}` are asked for, but it has no windows", store.name));
        }
        unique("store field", store.fields.iter().map(|field| field.name.as_str()))?;
        if let Some(field) = store.fields.iter().find(|field| !crate::store::turn::fits(field)) {
            return Err(format!("the default of the column `{}` of store `{}` is not of its type, {}", field.name, store.name, field.kind));
        }
        for older in &store.migrates {
            unique("field of an older row", older.iter().map(|field| field.name.as_str()))?;
        }
    }
    if let Some(timers) = description.timers.as_ref().filter(|timers| !matches!(timers.key, Type::Text | Type::Int | Type::Bytes)) {
        return Err(format!("keys of timers are {}: they may be text, int or bytes", timers.key));
    }
    if let Some(table) = description.tables.iter().find(|table| !request.tables.contains_key(*table)) {
        return Err(format!("table `{table}` is asked for, but the pipeline has none of that name"));
    }
    description.window.map_or(Ok(()), |window| self::window(window, description))
}

/// Windows that one row may belong to.
const MOST_WINDOWS: i64 = 1000;

fn window(window: Window, description: &Description) -> Result<(), String> {
    if window.size <= 0 || window.grace < 0 {
        return Err("a window's size must be above 0, its grace not below".to_owned());
    }
    if window.advance < 0 || window.advance > window.size || window.session && window.advance != 0 {
        return Err("a window's advance must be from 1 to its size, and a session has none".to_owned());
    }
    if window.size / window.advance() > MOST_WINDOWS {
        return Err(format!("a row would belong to more than {MOST_WINDOWS} windows"));
    }
    if description.leaves && window.advance() < window.size {
        return Err("leaves cannot be had where rows come several times, once for each window".to_owned());
    }
    Ok(())
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("there are two {what}s with the name `{name}`"));
        }
    }
    Ok(())
}

/// A path and the same, or a longer one that it leads to.
fn overlap<'a>(paths: &[&'a Field]) -> Option<(&'a Field, &'a Field)> {
    // In order, what a path leads to follows it directly.
    let mut sorted = paths.to_vec();
    sorted.sort();
    sorted.windows(2).find_map(|pair| match pair {
        [one @ Field::Value(short), other @ Field::Value(long)] if short.is_prefix_of(long) => Some((*one, *other)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
