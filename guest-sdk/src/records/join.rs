//! Transforms that look up a row of a table for each record.

use super::member::{Cursor, Declared, Prepared};
use super::{Output, Reject, Sink, Transform, description, each_row, place_of};
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::describe::{Description, Mistake, Schema};
use crate::plugin::{Batch, Plugin, Setup};
use crate::tables;
use crate::verdict::Verdict;

/// A transform with a table.
pub trait Join: Transform {
    /// The table's name in the manifest.
    const TABLE: &'static str;
    /// The field of the record that is the key in the table.
    const ON: &'static str;
    /// The columns of the table's rows.
    fn columns() -> Vec<Declared>;
    /// `found`: the table's row, if there is one.
    fn record(config: &Self::Config, row: &mut Cursor<'_, '_>, found: Option<&mut Cursor<'_, '_>>, sink: &mut Sink) -> Result<(), Reject>;
}

/// The plugin of a [`Join`].
#[derive(Debug)]
pub struct Joined<T: Transform> {
    config: T::Config,
    reads: Vec<Declared>,
    /// Of the key in `reads`.
    on: usize,
    outputs: Vec<Output>,
    wanted: Vec<Declared>,
    /// Of the wanted columns in the table's.
    places: Vec<usize>,
}

/// Finds the wanted columns in the table.
fn places<T: Join>(tables: &std::collections::BTreeMap<String, Schema>) -> Result<Vec<usize>, Vec<Mistake>> {
    let wrong = |message: String| Mistake { at: String::new(), span: None, message, proposal: None };
    let Some(table) = tables.get(T::TABLE) else {
        let known: Vec<_> = tables.keys().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        return Err(vec![wrong(format!("the plugin reads the table `{}`, which the manifest does not have ({known})", T::TABLE))]);
    };
    let place = |wanted: &Declared| {
        let Some(place) = table.fields.iter().position(|field| field.path == wanted.path) else {
            return Err(wrong(format!("the plugin reads `{}` of the table `{}`, which is not in its schema", wanted.path, T::TABLE)));
        };
        let field = &table.fields[place];
        if field.kind != wanted.kind {
            return Err(wrong(format!(
                "the plugin reads `{}` of the table `{}` as {}, but it is {}",
                wanted.path,
                T::TABLE,
                wanted.kind,
                field.kind
            )));
        }
        if field.nullable && !wanted.nullable {
            return Err(wrong(format!(
                "the plugin needs `{}` of the table `{}` in every row, but its schema allows null",
                wanted.path,
                T::TABLE
            )));
        }
        Ok(place)
    };
    let (places, mistakes): (Vec<_>, Vec<_>) = T::columns().iter().map(place).partition(Result::is_ok);
    if mistakes.is_empty() {
        Ok(places.into_iter().flatten().collect())
    } else {
        Err(mistakes.into_iter().filter_map(Result::err).collect())
    }
}

impl<T: Join> Plugin for Joined<T> {
    const NAME: &'static str = T::NAME;
    const VERSION: &'static str = T::VERSION;
    const SUMMARY: &'static str = T::SUMMARY;
    type Config = T::Config;

    fn describe(setup: &Setup<T::Config>) -> Result<Description, Vec<Mistake>> {
        places::<T>(&setup.tables)?;
        let mut reads = T::reads();
        let on = place_of::<Option<&str>>(&mut reads, T::ON);
        let mut description = description::<T>(&reads)?;
        description.tables = vec![T::TABLE.to_owned()];
        description.table_keys = vec![Some(reads[on].path.clone())];
        Ok(description)
    }

    fn init(setup: Setup<T::Config>) -> Result<Self, String> {
        let places = places::<T>(&setup.tables)
            .map_err(|mistakes| mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>().join("; "))?;
        let mut reads = T::reads();
        let on = place_of::<Option<&str>>(&mut reads, T::ON);
        Ok(Self { config: setup.config, reads, on, outputs: T::outputs(), wanted: T::columns(), places })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        let columns = Prepared::all(&batch.fields)?;
        let rows: Vec<_> = (0..batch.rows as u32).collect();
        let found = tables::lookup(0, &rows, &keys(&columns[self.on], batch.rows));
        let of_table = Prepared::all(&found.fields)?;
        let of_table: Vec<_> = self.places.iter().map(|place| of_table[*place]).collect();
        Ok(each_row::<T>(&self.outputs, batch.rows, |row, sink| {
            let mut found = found.present.get(row).then(|| Cursor::new(&of_table, &self.wanted, row));
            let result = T::record(&self.config, &mut Cursor::new(&columns, &self.reads, row), found.as_mut(), sink);
            sink.close(result);
        }))
    }
}

/// Keys as a table has them: text, numbers as their digits; null finds nothing.
fn keys(column: &Prepared<'_>, rows: usize) -> Column {
    let mut keys = ColumnBuilder::new(Type::Text, rows);
    for row in 0..rows {
        match column.cell(row) {
            Cell::Text(text) | Cell::Json(text) => keys.bytes(text.as_bytes()),
            Cell::Int(value) => keys.bytes(value.to_string().as_bytes()),
            Cell::Bool(value) => keys.bytes(value.to_string().as_bytes()),
            Cell::Float(value) => keys.bytes(value.to_string().as_bytes()),
            Cell::Blob(_) | Cell::Null => keys.null(),
        }
    }
    keys.finish()
}
