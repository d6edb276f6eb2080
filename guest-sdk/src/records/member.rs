//! From columns to typed members of a record and back.

use super::Reject;
use crate::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use crate::field::{Field, Path};
use std::borrow::Cow;

/// A struct of fields: what a plugin reads, writes, or keeps as a row of state. Derive it.
#[diagnostic::on_unimplemented(message = "`{Self}` is no record", label = "add `#[derive(millstream_guest::Fields)]` to the struct")]
pub trait Fields<'a>: Member<'a> {
    /// `#[fields(replace)]`: an output is a new object of these fields, instead of the input's record with these fields written into it.
    const REPLACE: bool;
}

/// A type of a record's member: bool, i64, f64, text (`&str`, `String`, `Cow<str>`), bytes (`&[u8]`, `Vec<u8>`), [`Json`], [`JsonText`],
/// an `Option` or a [`Change`] of these, or a struct of such members.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of a field",
    note = "use bool, i64, f64, &str, String, Cow<str>, &[u8], Vec<u8>, Json<T>, JsonText, an Option of these, or a struct with #[derive(Fields)]"
)]
pub trait Member<'a>: Sized {
    /// Appends this type's columns, in the order in which `read` and `write` take them.
    fn declare(at: &At, into: &mut Vec<Declared>);
    /// The value of the cursor's row. Err: the row's value is not of this type.
    fn read(row: &mut Cursor<'_, 'a>) -> Result<Self, Reject>;
    /// Appends a row.
    fn write(&self, row: &mut Writer<'_>);
    /// Why this cannot be written, for a reject: `name` is the member's.
    fn flaw(&self, _name: &str) -> Option<String> {
        None
    }
}

/// A type that is one column.
pub trait Scalar<'a>: Sized {
    const KIND: Type;
    /// None: null, or not of this type.
    fn take(column: &Prepared<'a>, row: usize) -> Option<Self>;
    fn put(&self, into: &mut ColumnBuilder);
    fn fault(&self) -> Option<&'static str> {
        None
    }
}

/// A column as a member declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub path: Field,
    pub kind: Type,
    pub nullable: bool,
    /// A [`Change`]: rows may keep or lose the field.
    pub change: bool,
    /// `#[field(default = ...)]`: what rows of state hold that were written before there was the column.
    pub default: Option<serde_json::Value>,
}

/// Where a member stands in its record.
#[derive(Clone, Debug)]
pub struct At(Option<Field>);

impl At {
    /// The record itself.
    pub const RECORD: Self = Self(None);

    /// A member's name: a path below this one, or a pseudo-field. The derive has checked that it parses.
    pub fn member(&self, name: &str) -> Self {
        let field = Field::parse(name).unwrap_or_else(|_| Field::Value(Path(vec![name.to_owned()])));
        Self(Some(match (&self.0, field) {
            (Some(Field::Value(above)), Field::Value(below)) => Field::Value(Path([above.0.clone(), below.0].concat())),
            (_, field) => field,
        }))
    }

    fn column(&self, kind: Type, nullable: bool, change: bool) -> Declared {
        Declared { path: self.0.clone().unwrap_or(Field::Value(Path(Vec::new()))), kind, nullable, change, default: None }
    }
}

/// The columns of a record type.
pub fn declared<'a, T: Fields<'a>>() -> Vec<Declared> {
    let mut columns = Vec::new();
    T::declare(&At::RECORD, &mut columns);
    columns
}

/// A column whose text was checked once, as a whole, so that rows are cut out of it without a check of their own.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    column: &'a Column,
    text: &'a str,
}

impl<'a> Prepared<'a> {
    pub fn new(column: &'a Column) -> Result<Self, String> {
        use crate::column::Values;
        let text = match &column.values {
            Values::Texts(strings) | Values::Jsons(strings) => {
                std::str::from_utf8(&strings.data).map_err(|_| "a text column from the host is not UTF-8".to_owned())?
            }
            _ => "",
        };
        Ok(Self { column, text })
    }

    pub fn all(columns: &'a [Column]) -> Result<Vec<Self>, String> {
        columns.iter().map(Self::new).collect()
    }

    #[inline]
    pub fn cell(&self, row: usize) -> Cell<'a> {
        use crate::column::Values;
        if self.column.is_null(row) {
            return Cell::Null;
        }
        match &self.column.values {
            Values::Texts(strings) => self.cut(&strings.offsets, row).map_or(Cell::Null, Cell::Text),
            Values::Jsons(strings) => self.cut(&strings.offsets, row).map_or(Cell::Null, Cell::Json),
            _ => self.column.cell(row),
        }
    }

    fn cut(&self, offsets: &[u32], row: usize) -> Option<&'a str> {
        self.text.get(offsets[row] as usize..offsets[row + 1] as usize)
    }
}

/// Goes over the columns of one row.
#[derive(Debug)]
pub struct Cursor<'c, 'a> {
    columns: &'c [Prepared<'a>],
    declared: &'c [Declared],
    next: usize,
    row: usize,
}

impl<'c, 'a> Cursor<'c, 'a> {
    pub fn new(columns: &'c [Prepared<'a>], declared: &'c [Declared], row: usize) -> Self {
        Self { columns, declared, next: 0, row }
    }

    #[inline]
    fn take<T: Scalar<'a>>(&mut self) -> Option<T> {
        let column = &self.columns[self.next];
        self.next += 1;
        T::take(column, self.row)
    }

    /// A reject about the column that was taken last.
    fn refuse(&self, what: &str) -> Reject {
        let path = self.next.checked_sub(1).and_then(|last| self.declared.get(last));
        Reject::new(path.map_or_else(|| what.to_owned(), |column| format!("`{}` {what}", column.path)))
    }
}

/// A column that is being written.
#[derive(Debug)]
pub struct Written {
    pub builder: ColumnBuilder,
    pub kept: Bitmap,
    pub removed: Bitmap,
}

/// Goes over the columns of a row that is being written.
#[derive(Debug)]
pub struct Writer<'w> {
    columns: std::slice::IterMut<'w, Written>,
}

impl<'w> Writer<'w> {
    pub fn new(columns: &'w mut [Written]) -> Self {
        Self { columns: columns.iter_mut() }
    }

    fn column(&mut self, write: impl FnOnce(&mut Written)) {
        if let Some(column) = self.columns.next() {
            write(column);
        }
    }
}

/// Builders for declared columns.
pub fn columns(declared: &[Declared], rows: usize) -> Vec<Written> {
    let column = |declared: &Declared| Written {
        builder: ColumnBuilder::new(declared.kind, rows),
        kept: Bitmap::default(),
        removed: Bitmap::default(),
    };
    declared.iter().map(column).collect()
}

impl<'a, T: Scalar<'a>> Member<'a> for T {
    fn declare(at: &At, into: &mut Vec<Declared>) {
        into.push(at.column(T::KIND, false, false));
    }

    #[inline]
    fn read(row: &mut Cursor<'_, 'a>) -> Result<Self, Reject> {
        // The host refuses null rows of a required field before the call, so that what is left is a value that does not parse.
        row.take().ok_or_else(|| row.refuse("does not hold what the plugin expects there"))
    }

    #[inline]
    fn write(&self, row: &mut Writer<'_>) {
        row.column(|column| self.put(&mut column.builder));
    }

    fn flaw(&self, name: &str) -> Option<String> {
        self.fault().map(|fault| format!("`{name}` {fault}"))
    }
}

impl<'a, T: Scalar<'a>> Member<'a> for Option<T> {
    fn declare(at: &At, into: &mut Vec<Declared>) {
        into.push(at.column(T::KIND, true, false));
    }

    #[inline]
    fn read(row: &mut Cursor<'_, 'a>) -> Result<Self, Reject> {
        let null = matches!(row.columns[row.next].cell(row.row), Cell::Null);
        let value = row.take();
        if value.is_none() && !null { Err(row.refuse("does not hold what the plugin expects there")) } else { Ok(value) }
    }

    #[inline]
    fn write(&self, row: &mut Writer<'_>) {
        row.column(|column| match self {
            Some(value) => value.put(&mut column.builder),
            None => column.builder.null(),
        });
    }

    fn flaw(&self, name: &str) -> Option<String> {
        self.as_ref().and_then(|value| value.flaw(name))
    }
}

/// What becomes of a field of the input's record, row by row. (A plain member is always written; an `Option` that is `None` writes null.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Stays as it is, byte for byte; if it is not there, it stays away.
    #[default]
    Keep,
    Remove,
    Set(T),
}

impl<'a, T: Scalar<'a>> Member<'a> for Change<T> {
    fn declare(at: &At, into: &mut Vec<Declared>) {
        into.push(at.column(T::KIND, true, true));
    }

    fn read(row: &mut Cursor<'_, 'a>) -> Result<Self, Reject> {
        Ok(Option::read(row)?.map_or(Self::Remove, Self::Set))
    }

    fn write(&self, row: &mut Writer<'_>) {
        row.column(|column| match self {
            Self::Set(value) => value.put(&mut column.builder),
            Self::Keep => {
                column.kept.set(column.builder.rows());
                column.builder.null();
            }
            Self::Remove => {
                column.removed.set(column.builder.rows());
                column.builder.null();
            }
        });
    }

    fn flaw(&self, name: &str) -> Option<String> {
        match self {
            Self::Set(value) => value.flaw(name),
            Self::Keep | Self::Remove => None,
        }
    }
}

macro_rules! scalars {
    ($($kind:ident $type:ty: $cell:ident($value:ident) => $take:expr, $this:ident, $into:ident => $put:expr;)*) => {$(
        impl<'a> Scalar<'a> for $type {
            const KIND: Type = Type::$kind;

            #[inline]
            fn take(column: &Prepared<'a>, row: usize) -> Option<Self> {
                match column.cell(row) {
                    Cell::$cell($value) => Some($take),
                    _ => None,
                }
            }

            #[inline]
            fn put(&self, $into: &mut ColumnBuilder) {
                let $this = self;
                $put
            }
        }
    )*};
}
scalars! {
    Boolean bool: Bool(value) => value, this, into => into.bool(*this);
    Int i64: Int(value) => value, this, into => into.int(*this);
    Text &'a str: Text(value) => value, this, into => into.bytes(this.as_bytes());
    Text String: Text(value) => value.to_owned(), this, into => into.bytes(this.as_bytes());
    Text Cow<'a, str>: Text(value) => Cow::Borrowed(value), this, into => into.bytes(this.as_bytes());
    Bytes &'a [u8]: Blob(value) => value, this, into => into.bytes(this);
    Bytes Vec<u8>: Blob(value) => value.to_vec(), this, into => into.bytes(this);
}

impl<'a> Scalar<'a> for f64 {
    const KIND: Type = Type::Float;

    #[inline]
    fn take(column: &Prepared<'a>, row: usize) -> Option<Self> {
        match column.cell(row) {
            Cell::Float(value) => Some(value),
            _ => None,
        }
    }

    #[inline]
    fn put(&self, into: &mut ColumnBuilder) {
        into.float(*self);
    }

    fn fault(&self) -> Option<&'static str> {
        (!self.is_finite()).then_some("is no finite number")
    }
}

/// JSON source text, verbatim: of anything nested, or of unknown type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(pub String);

impl<'a> Scalar<'a> for JsonText {
    const KIND: Type = Type::Json;

    fn take(column: &Prepared<'a>, row: usize) -> Option<Self> {
        match column.cell(row) {
            Cell::Json(text) => Some(Self(text.to_owned())),
            _ => None,
        }
    }

    fn put(&self, into: &mut ColumnBuilder) {
        into.bytes(self.0.as_bytes());
    }

    fn fault(&self) -> Option<&'static str> {
        serde_json::from_str::<serde::de::IgnoredAny>(&self.0).err().map(|_| "is no JSON")
    }
}

/// Anything that serde reads and writes, as JSON: lists, maps, nested structs. A value of another form rejects the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<'a, T: serde::Serialize + serde::de::DeserializeOwned> Scalar<'a> for Json<T> {
    const KIND: Type = Type::Json;

    fn take(column: &Prepared<'a>, row: usize) -> Option<Self> {
        match column.cell(row) {
            Cell::Json(text) => serde_json::from_str(text).ok().map(Self),
            _ => None,
        }
    }

    fn put(&self, into: &mut ColumnBuilder) {
        // `fault` has refused what does not serialize.
        into.bytes(&serde_json::to_vec(&self.0).unwrap_or_else(|_| b"null".to_vec()));
    }

    fn fault(&self) -> Option<&'static str> {
        serde_json::to_writer(std::io::sink(), &self.0).err().map(|_| "cannot be written as JSON")
    }
}

/// Whether `Field::parse` takes a name; in constant evaluation, so that a wrong name in `#[field("...")]` does not compile.
pub const fn is_field_name(name: &str) -> bool {
    let name = name.as_bytes();
    if let [b'$', rest @ ..] = name {
        return match rest {
            b"key" | b"timestamp" | b"topic" | b"partition" | b"offset" | b"window.start" | b"window.end" => true,
            [b'h', b'e', b'a', b'd', b'e', b'r', b's', b'.', name @ ..] => parts(name) == 1,
            _ => false,
        };
    }
    parts(name) > 0
}

/// How many parts a path has; 0 = it is none.
const fn parts(path: &[u8]) -> usize {
    let (mut at, mut parts) = (0, 0);
    loop {
        let start = at;
        if at < path.len() && path[at] == b'"' {
            at += 1;
            loop {
                if at >= path.len() {
                    return 0;
                }
                match path[at] {
                    b'"' => break,
                    b'\\' if at + 1 < path.len() && matches!(path[at + 1], b'"' | b'\\') => at += 2,
                    b'\\' => return 0,
                    _ => at += 1,
                }
            }
            at += 1;
        } else {
            while at < path.len() && !matches!(path[at], b'.' | b'"') {
                at += 1;
            }
            if at == start {
                return 0;
            }
        }
        parts += 1;
        if at == path.len() {
            return parts;
        }
        if path[at] != b'.' {
            return 0;
        }
        at += 1;
    }
}
