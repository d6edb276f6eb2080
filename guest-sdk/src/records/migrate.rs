//! Rows of state that were written as another type: functions from the older row to the newer.

use super::member::{Cursor, Declared, Member, Prepared, Writer, columns, declared};
use super::rows::Row;
use super::stateful::{Stateful, Stored};
use crate::column::{Column, Values};
use crate::describe::StoreField;
use crate::plugin::Migrating;

/// A way from an older type of rows to `R`: what the macros make of `migrate = function`.
pub struct Migration<R> {
    older: Vec<Declared>,
    columns: Box<Columns<R>>,
}

/// From the columns of older rows to newer rows.
type Columns<R> = dyn Fn(&[Column], &[Declared], usize) -> Result<Vec<R>, String>;

impl<R> std::fmt::Debug for Migration<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migration").field("older", &self.older).finish_non_exhaustive()
    }
}

/// The way that a function is.
pub fn migration<O: Row, R: Row>(function: fn(O) -> R) -> Migration<R> {
    let columns = move |fields: &[Column], declared: &[Declared], rows: usize| {
        let prepared = Prepared::all(fields)?;
        let read = |row: usize| O::read(&mut Cursor::new(&prepared, declared, row)).map(function);
        (0..rows).map(read).collect::<Result<Vec<_>, _>>().map_err(|reject| reject.reason)
    };
    Migration { older: declared::<O>(), columns: Box::new(columns) }
}

/// Gives the column that was declared last a default.
pub fn set_default(into: &mut [Declared], default: impl Into<serde_json::Value>) {
    if let Some(last) = into.last_mut() {
        last.default = Some(default.into());
    }
}

/// A column as a store's.
pub(super) fn field(column: &Declared) -> StoreField {
    StoreField { name: column.path.to_string(), kind: column.kind, nullable: column.nullable, default: column.default.clone() }
}

/// The older types of which a transform makes rows.
pub(super) fn listed<T: Stored>() -> Vec<Vec<StoreField>> {
    T::migrations().iter().map(|migration| migration.older.iter().map(field).collect()).collect()
}

impl<T: Stored> Migrating for Stateful<T> {
    fn migrate(&mut self, _store: u32, older: u32, keys: Column, fields: Vec<Column>) -> Result<Vec<Column>, String> {
        let migrations = T::migrations();
        let migration = migrations.get(older as usize).ok_or("it lists no such type of rows")?;
        let Values::Texts(texts) = &keys.values else { return Err("the keys of its store are text".to_owned()) };
        let count = texts.len();
        let rows = (migration.columns)(&fields, &migration.older, count)?;
        let mut written = columns(&declared::<T::Row>(), count);
        for row in &rows {
            if let Some(flaw) = row.flaw("") {
                return Err(flaw);
            }
            row.write(&mut Writer::new(&mut written));
        }
        Ok(written.into_iter().map(|column| column.builder.finish()).collect())
    }
}
