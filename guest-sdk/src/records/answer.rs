//! What a plugin's function may answer for a record, and how the answers of a batch become a verdict.

use super::Reject;
use super::member::{Declared, Fields, Writer, Written, columns, declared};
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::describe::{self, Base, FieldType, Mistake, OutputKey};
use crate::field::Field;
use crate::verdict::{Derived, Outcome, Verdict};

/// An answer for one record:
/// - `bool`: whether it is kept, unchanged;
/// - a struct with `#[derive(Fields)]`: its fields are written into the record (or, with `#[fields(replace)]`, a new one is made of them);
/// - an enum with `#[derive(Outputs)]`: the variant names the output;
/// - `Option` of these: `None` drops the record; `Vec`: any number of records;
/// - `Result<_, Reject>`: an error refuses the record, and the stage's error policy decides what becomes of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer for a record",
    note = "answer a bool, a struct with #[derive(Fields)], an enum with #[derive(Outputs)], an Option or Vec of these, or a Result<_, Reject>"
)]
pub trait Answer: Sized {
    /// Records go on unchanged or not at all.
    const SELECTS: bool = false;
    fn outputs() -> Vec<Output>;
    fn answer(self, sink: &mut Sink);
}

/// An output and its columns.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: &'static str,
    pub replace: bool,
    pub columns: Vec<Declared>,
}

impl Output {
    /// The output of a struct.
    pub fn of<'a, T: Fields<'a>>(name: &'static str) -> Self {
        Self { name, replace: T::REPLACE, columns: declared::<T>() }
    }

    /// An output of unchanged records.
    pub fn unchanged(name: &'static str) -> Self {
        Self { name, replace: false, columns: Vec::new() }
    }

    /// As the host gets it. Err: what no plugin can write.
    pub(super) fn describe(&self) -> Result<describe::Output, Mistake> {
        let mut fields = Vec::new();
        for column in &self.columns {
            match (&column.path, column.kind) {
                (Field::Value(_), kind) => fields.push(FieldType { path: column.path.clone(), kind, nullable: column.nullable }),
                (Field::Key, Type::Text | Type::Bytes | Type::Int) if !column.change => {}
                (Field::Timestamp, Type::Int) if !column.nullable => {}
                (path, kind) => {
                    let message = format!(
                        "the plugin writes `{path}` as {kind}: of the pseudo-fields only `$key` (text, bytes or int, always written) and `$timestamp` (int, never null) can be written"
                    );
                    return Err(Mistake { at: String::new(), span: None, message, proposal: None });
                }
            }
        }
        let base = if self.replace { Base::Replace } else { Base::Extend };
        let writes_key = self.columns.iter().any(|column| column.path == Field::Key);
        let key = if writes_key { OutputKey::Text } else { OutputKey::Kept };
        Ok(describe::Output { name: self.name.to_owned(), base, fields, removes: Vec::new(), key })
    }
}

/// Collects the answers of a batch.
#[derive(Debug)]
pub struct Sink {
    row: u32,
    selected: Vec<u32>,
    outputs: Vec<Rows>,
    flaw: Option<Reject>,
    rejects: Vec<crate::verdict::Reject>,
}

/// The rows of one output.
#[derive(Debug)]
struct Rows {
    declared: Vec<Declared>,
    columns: Vec<Written>,
    source: Vec<u32>,
    /// How many of `source` stand when the current record is refused.
    before: usize,
    /// Rows of refused records, in `source`'s places.
    refused: Vec<std::ops::Range<usize>>,
}

impl Sink {
    pub(super) fn new(outputs: &[Output], rows: usize) -> Self {
        let rows = |output: &Output| Rows {
            declared: output.columns.clone(),
            columns: columns(&output.columns, rows),
            source: Vec::new(),
            before: 0,
            refused: Vec::new(),
        };
        Self { row: 0, selected: Vec::new(), outputs: outputs.iter().map(rows).collect(), flaw: None, rejects: Vec::new() }
    }

    /// The current record goes on as it is.
    pub fn select(&mut self) {
        self.selected.push(self.row);
    }

    /// A record for an output.
    pub fn emit<'a, T: Fields<'a>>(&mut self, output: usize, record: &T) {
        match record.flaw("") {
            Some(flaw) => self.reject(Reject::new(flaw)),
            None => {
                let rows = &mut self.outputs[output];
                record.write(&mut Writer::new(&mut rows.columns));
                rows.source.push(self.row);
            }
        }
    }

    /// The current record goes on to an output as it is.
    pub fn pass(&mut self, output: usize) {
        self.outputs[output].source.push(self.row);
    }

    /// Refuses the current record, whatever it answered before.
    pub fn reject(&mut self, reject: Reject) {
        self.flaw.get_or_insert(reject);
    }

    pub(super) fn open(&mut self, row: usize) {
        self.row = row as u32;
        for output in &mut self.outputs {
            output.before = output.source.len();
        }
    }

    /// Whether the record was taken.
    pub(super) fn close(&mut self, result: Result<(), Reject>) -> bool {
        let Some(reject) = self.flaw.take().or(result.err()) else { return true };
        if self.selected.last() == Some(&self.row) {
            self.selected.pop();
        }
        for output in &mut self.outputs {
            if output.source.len() > output.before {
                output.refused.push(output.before..output.source.len());
            }
        }
        self.rejects.push(crate::verdict::Reject { row: self.row, reason: reject.reason });
        false
    }

    /// As `close`, of a timer: why it was refused, if it was.
    pub(super) fn close_timer(&mut self, result: Result<(), Reject>) -> Option<Reject> {
        self.flaw.take().or(result.err())
    }

    pub(super) fn finish(self, selects: bool, rows: usize) -> Verdict {
        let outcome = if !selects {
            let outputs = self.outputs.into_iter().enumerate();
            Outcome::Derive(outputs.filter(|(_, rows)| !rows.source.is_empty()).map(|(output, rows)| rows.finish(output)).collect())
        } else if self.selected.len() + self.rejects.len() == rows {
            Outcome::All
        } else {
            Outcome::Select(self.selected)
        };
        Verdict { outcome, rejects: self.rejects }
    }
}

impl Rows {
    fn finish(self, output: usize) -> Derived {
        use crate::verdict;
        let live: Option<Vec<u32>> = (!self.refused.is_empty()).then(|| {
            let refused = |row: usize| self.refused.iter().any(|range| range.contains(&row));
            (0..self.source.len()).filter(|row| !refused(*row)).map(|row| row as u32).collect()
        });
        let source = match &live {
            Some(live) => live.iter().map(|row| self.source[*row as usize]).collect(),
            None => self.source,
        };
        let mut derived = Derived {
            output,
            source,
            fields: Vec::new(),
            timestamps: None,
            keys: None,
            values: None,
            headers: None,
            leaves: None,
            tombstones: Default::default(),
        };
        for (declared, written) in self.declared.iter().zip(self.columns) {
            let Written { builder, kept, removed } = written;
            let column = builder.finish();
            let (column, kept, removed) = match &live {
                Some(live) => {
                    let gather = |bits: crate::column::Bitmap| if bits.0.is_empty() { bits } else { bits.gather(live) };
                    (column.gather(live), gather(kept), gather(removed))
                }
                None => (column, kept, removed),
            };
            match &declared.path {
                Field::Key => derived.keys = Some(blobs(&column, derived.source.len())),
                Field::Timestamp => {
                    derived.timestamps = match column.values {
                        crate::column::Values::Ints(times) => Some(times),
                        _ => None,
                    }
                }
                _ => {
                    let bitmap = |bits: crate::column::Bitmap| padded(bits, derived.source.len());
                    derived.fields.push(verdict::Written { column, kept: bitmap(kept), removed: bitmap(removed) });
                }
            }
        }
        derived
    }
}

/// Bitmaps are empty or have a byte for each eight rows; setting bits grows them only up to the last one set.
fn padded(mut bits: crate::column::Bitmap, rows: usize) -> crate::column::Bitmap {
    if !bits.0.is_empty() {
        bits.0.resize(rows.div_ceil(8), 0);
    }
    bits
}

/// Keys as the log has them: text and bytes as they are, ints as their digits.
fn blobs(column: &Column, rows: usize) -> Column {
    let mut blobs = ColumnBuilder::new(Type::Bytes, rows);
    for row in 0..rows {
        match column.cell(row) {
            Cell::Text(text) => blobs.bytes(text.as_bytes()),
            Cell::Blob(bytes) => blobs.bytes(bytes),
            Cell::Int(value) => blobs.bytes(value.to_string().as_bytes()),
            _ => blobs.null(),
        }
    }
    blobs.finish()
}

impl Answer for bool {
    const SELECTS: bool = true;

    fn outputs() -> Vec<Output> {
        vec![Output::unchanged("out")]
    }

    #[inline]
    fn answer(self, sink: &mut Sink) {
        if self {
            sink.select();
        }
    }
}

impl<T: Answer> Answer for Option<T> {
    const SELECTS: bool = T::SELECTS;

    fn outputs() -> Vec<Output> {
        T::outputs()
    }

    fn answer(self, sink: &mut Sink) {
        if let Some(answer) = self {
            answer.answer(sink);
        }
    }
}

impl<T: Answer> Answer for Vec<T> {
    fn outputs() -> Vec<Output> {
        T::outputs()
    }

    fn answer(self, sink: &mut Sink) {
        const { assert!(!T::SELECTS, "a record is kept or dropped once: answer a bool, or a Vec of records") };
        for answer in self {
            answer.answer(sink);
        }
    }
}

impl<T: Answer> Answer for Result<T, Reject> {
    const SELECTS: bool = T::SELECTS;

    fn outputs() -> Vec<Output> {
        T::outputs()
    }

    #[inline]
    fn answer(self, sink: &mut Sink) {
        match self {
            Ok(answer) => answer.answer(sink),
            Err(reject) => sink.reject(reject),
        }
    }
}
