//! How rows of an older type become rows of the newer: by name, or by the plugin's export `migration`.

use super::row::{self, FoundBuilder, Row, Value};
use super::types::{RowColumn, RowType};
use super::{Key, StateStore, decode_int};
use crate::column::{Cell, Column, ColumnBuilder, Type};
use crate::io::Guarantee;
use crate::plugin::describe::{Store, StoreField};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plugin's own way from an older type of a store's rows.
pub trait Migrate: Send {
    /// Rows of the `from`-th of the types that the store's description lists, with the columns in the order that stands there. Answers with the columns of the
    /// store. Err: why not; nothing is done.
    fn migrate(&mut self, from: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, String>;
}

/// Where a column of the newer type comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// The older row's column at this place, and what stands for null if the column must not be null.
    Column(usize, Option<Value>),
    /// An int that becomes a float; the same.
    Widened(usize, Option<Value>),
    /// There was no such column.
    New(Value),
}

/// The way of rows from one type to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// For each column of the newer type.
    ByName(Vec<From>),
    /// Through the plugin: which of the listed types they are of, and the place of each of its columns in the older row.
    ByPlugin(usize, Vec<usize>),
}

/// The way from an older type to what a store is described as. Err: there is none, and why.
pub fn way(from: &RowType, to: &Store) -> Result<Way, String> {
    for (index, listed) in to.migrates.iter().enumerate() {
        if let Some(places) = places_of(listed, from) {
            return Ok(Way::ByPlugin(index, places));
        }
    }
    by_name(from, &to.fields).map(Way::ByName)
}

/// Whether a way may be taken: at least once, a row might go through the plugin's migration again.
pub fn allowed(way: &Way, guarantee: Guarantee) -> Result<(), String> {
    match (way, guarantee) {
        (Way::ByPlugin(..), Guarantee::AtLeastOnce) => {
            Err("they would go through the plugin's `migration`, which `guarantee: at-least-once` does not have: say `exactly-once`"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// The place of each listed column in a row of this type, if it is the same one.
fn places_of(listed: &[StoreField], from: &RowType) -> Option<Vec<usize>> {
    let is = |field: &StoreField, column: &RowColumn| {
        column.name == field.name && column.kind == field.kind && (field.nullable || !column.nullable)
    };
    let places: Option<Vec<_>> = listed.iter().map(|field| from.columns.iter().position(|column| is(field, column))).collect();
    places.filter(|places| places.len() == from.columns.len())
}

fn by_name(from: &RowType, to: &[StoreField]) -> Result<Vec<From>, String> {
    let of = |field: &StoreField| {
        let default = default(field);
        let Some((place, before)) = from.columns.iter().enumerate().find(|(_, column)| column.name == field.name) else {
            return match default {
                Some(value) => Ok(From::New(value)),
                None if field.nullable => Ok(From::New(Value::Null)),
                None => Err(format!("`{}` is added, may not be null, and has no default", field.name)),
            };
        };
        let null = default.filter(|_| !field.nullable);
        if before.nullable && !field.nullable && null.is_none() {
            return Err(format!("`{}` may be null in older rows, may not in newer ones, and has no default", field.name));
        }
        match (before.kind, field.kind) {
            (before, now) if before == now => Ok(From::Column(place, null)),
            (Type::Int, Type::Float) => Ok(From::Widened(place, null)),
            (before, now) => Err(format!("`{}` was {before} and is {now}", field.name)),
        }
    };
    to.iter().map(of).collect()
}

/// What a column holds in rows older than itself. None: there is no default, or it is not of the column's type, which is checked where it is described.
pub fn default(field: &StoreField) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match (field.default.as_ref()?, field.kind) {
        (Json::Bool(value), Type::Boolean) => Value::Bool(*value),
        (Json::Number(number), Type::Int) => Value::Int(number.as_i64()?),
        (Json::Number(number), Type::Float) => Value::Float(number.as_f64().filter(|value| value.is_finite())?),
        (Json::String(text), Type::Text) => Value::Bytes(text.as_bytes().into()),
        (value, Type::Json) if !value.is_null() => Value::Bytes(value.to_string().into_bytes().into()),
        _ => return None,
    })
}

/// What a change of a row's type does, column by column, for people.
pub fn told(from: &RowType, to: &RowType) -> Vec<String> {
    let find = |one: &RowType, name: &str| one.columns.iter().find(|column| column.name == name).cloned();
    let kind = |column: &RowColumn| format!("{}{}", column.kind, if column.nullable { "?" } else { "" });
    let mut told = Vec::new();
    for column in &to.columns {
        match find(from, &column.name) {
            None => told.push(format!("`{}: {}` is added", column.name, kind(column))),
            Some(before) if before.kind == Type::Int && column.kind == Type::Float => {
                told.push(format!("`{}` is widened: {} -> {}", column.name, kind(&before), kind(column)));
            }
            Some(before) if before != *column => told.push(format!("`{}`: {} -> {}", column.name, kind(&before), kind(column))),
            Some(_) => {}
        }
    }
    let dropped = from.columns.iter().filter(|column| find(to, &column.name).is_none());
    told.extend(dropped.map(|column| format!("`{}: {}` is dropped", column.name, kind(column))));
    if told.is_empty() && from != to {
        told.push("the order of the columns".to_owned());
    }
    told
}

/// A row by name.
fn turned(row: &Row, kinds: &[Type], ways: &[From], number: u8) -> Vec<u8> {
    let or = |value: &Value, null: &Option<Value>| match (value, null) {
        (Value::Null, Some(null)) => null.clone(),
        (value, _) => value.clone(),
    };
    let value = |from: &From| match from {
        From::Column(place, null) => or(&row.0[*place], null),
        From::Widened(place, null) => match &row.0[*place] {
            Value::Int(value) => Value::Float(*value as f64),
            value => or(value, null),
        },
        From::New(value) => value.clone(),
    };
    let values: Vec<Value> = ways.iter().map(value).collect();
    row::encode(number, values.iter().zip(kinds).map(|(value, kind)| value.cell(*kind)))
}

impl StateStore {
    /// Whether a row is of the type that is described.
    pub(super) fn is_current(&self, row: &[u8]) -> bool {
        row::split(row).0 == self.number
    }

    /// Makes rows of the newest type of those that are older. How many there were. Err: why one cannot be; nothing is changed.
    pub(super) fn turn(&mut self, rows: &mut [(Key, Vec<u8>)]) -> Result<usize, String> {
        let mut older: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (place, (_, row)) in rows.iter().enumerate().filter(|(_, (_, row))| !self.is_current(row)) {
            older.entry(row::split(row).0).or_default().push(place);
        }
        let mut newer = Vec::new();
        for (number, places) in older {
            let (from, way) = self.way(number)?;
            let kinds = from.kinds();
            let decoded = places.iter().map(|place| Row::decode(row::split(&rows[*place].1).1, &kinds).ok_or_else(|| self.broken()));
            let decoded = decoded.collect::<Result<Vec<_>, _>>()?;
            match &*way {
                Way::ByName(ways) => {
                    let turned = decoded.iter().map(|row| turned(row, &self.fields, ways, self.number));
                    newer.extend(places.iter().copied().zip(turned));
                }
                Way::ByPlugin(index, columns) => {
                    let keys = places.iter().map(|place| rows[*place].0.as_slice());
                    let columns = self.migrated(*index, columns, &kinds, keys, &decoded)?;
                    let encoded = |at: usize| row::encode(self.number, columns.iter().map(|column| column.cell(at)));
                    newer.extend(places.iter().enumerate().map(|(at, place)| (*place, encoded(at))));
                }
            }
        }
        let count = newer.len();
        for (place, row) in newer {
            rows[place].1 = row;
        }
        Ok(count)
    }

    /// Rows of an older type, through the plugin.
    fn migrated<'k>(
        &mut self,
        from: usize,
        places: &[usize],
        kinds: &[Type],
        keys: impl Iterator<Item = &'k [u8]>,
        rows: &[Row],
    ) -> Result<Vec<Column>, String> {
        let mut column = ColumnBuilder::new(self.key, rows.len());
        for key in keys {
            match self.key {
                Type::Int => column.int(decode_int(key).ok_or_else(|| self.broken())?),
                _ => column.bytes(key),
            }
        }
        let listed: Vec<Type> = places.iter().map(|place| kinds[*place]).collect();
        let mut fields = FoundBuilder::new(&listed, rows.len());
        for row in rows {
            fields.push(&Row(places.iter().map(|place| row.0[*place].clone()).collect()));
        }
        let Some(migrate) = &mut self.migrate else {
            // Where it may not be asked.
            let why = "rows of an older type go through the plugin's `migration`, which `guarantee: at-least-once` does not have";
            return Err(format!("store `{}`: {why}: say `exactly-once`; the rows are as they were", self.name));
        };
        let found = migrate.migrate(from, &column.finish(), &fields.finish().fields);
        let columns = found.map_err(|why| format!("rows of an older type of store `{}` were not migrated: {why}", self.name))?;
        // A null where the column is described as never null would be found by the plugin only later.
        if columns.len() != self.fields.len() || columns.iter().zip(&self.fields).any(|(column, kind)| column.kind() != *kind) {
            return Err(format!("the migration of store `{}` answers with other columns", self.name));
        }
        Ok(columns)
    }

    /// The type with this number, and the way from there.
    fn way(&mut self, number: u8) -> Result<(Arc<RowType>, Arc<Way>), String> {
        if let Some(known) = self.ways.get(&number) {
            return known.clone();
        }
        let found = match self.types.of(number) {
            None => Err(self.broken()),
            Some(_) if self.strict => Err(self.broken()),
            Some(from) => match way(&from, &self.described) {
                Ok(way) => Ok((from, Arc::new(way))),
                Err(why) => Err(no_way(&self.name, &from, &RowType::of(&self.described.fields), &why)),
            },
        };
        self.ways.insert(number, found.clone());
        found
    }
}

/// Rows are left of a type from which there is no way.
pub fn no_way(store: &str, from: &RowType, to: &RowType, why: &str) -> String {
    format!(
        "there are rows of store `{store}` of an older type ({from}), and they do not become rows of the newer one ({to}) by name: {why}. Let the plugin export \
         `migration` from the older type, or go back to a plugin that knows it, or run the pipeline under another name to start anew; the rows are as they were"
    )
}

/// The cells of a default, for whoever checks a description.
pub fn fits(field: &StoreField) -> bool {
    field.default.is_none() || default(field).is_some_and(|value| value.cell(field.kind) != Cell::Null)
}
