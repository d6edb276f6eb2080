//! One batch: one look-up for all rows, each answered as of its row's place.

use crate::Join;
use crate::plan::Plan;
use millstream_expression::Columns;
use millstream_guest::Batch;
use millstream_guest::column::{Bitmap, Cell, Column, ColumnBuilder, Type};
use millstream_guest::tables;
use millstream_guest::verdict::{Derived, Outcome, Reject, Verdict, Written};
use std::collections::BTreeMap;

/// The one table of the description.
const TABLE: u32 = 0;

pub fn process(plan: &Plan, batch: &Batch) -> Verdict {
    let rows = batch.rows;
    let mut rejects: BTreeMap<u32, String> = BTreeMap::new();
    let columns = Columns { rows, fields: &batch.fields, table: &[] };
    let key = plan.key.eval(columns);
    for error in key.errors {
        rejects.insert(error.row, format!("on: {}", error.reason));
    }
    let keys = as_text(&key.column, rows, &mut rejects);
    let all: Vec<u32> = (0..rows as u32).collect();
    let found = tables::lookup(TABLE, &all, &keys);

    let columns = Columns { table: &found.fields, ..columns };
    let added: Vec<Column> = plan
        .adds
        .iter()
        .map(|add| {
            let evaluated = add.expression.eval(columns);
            for error in evaluated.errors {
                // Without a row of the table there is nothing to compute.
                if found.present.get(error.row as usize) {
                    rejects.entry(error.row).or_insert_with(|| format!("add `{}`: {}", add.path, error.reason));
                }
            }
            unless_present(evaluated.column, &found.present, rows)
        })
        .collect();

    let stays = |row: &u32| !rejects.contains_key(row) && (plan.join == Join::Left || found.present.get(*row as usize));
    let source: Vec<u32> = all.into_iter().filter(stays).collect();
    let field = |column: Column| Written {
        column: if source.len() == rows { column } else { column.gather(&source) },
        kept: Bitmap::default(),
        removed: Bitmap::default(),
    };
    let fields = added.into_iter().map(field).collect();
    let derived = Derived {
        output: 0,
        source,
        fields,
        timestamps: None,
        keys: None,
        values: None,
        headers: None,
        leaves: None,
        tombstones: Bitmap::default(),
    };
    let rejects = rejects.into_iter().map(|(row, reason)| Reject { row, reason }).collect();
    Verdict { outcome: Outcome::Derive(vec![derived]), rejects }
}

/// Keys as the table has them: text; an int is its digits.
fn as_text(column: &Column, rows: usize, rejects: &mut BTreeMap<u32, String>) -> Column {
    if column.kind() == Type::Text {
        return column.clone();
    }
    let mut out = ColumnBuilder::new(Type::Text, rows);
    for row in 0..rows {
        match column.cell(row) {
            Cell::Null => out.null(),
            Cell::Text(text) => out.bytes(text.as_bytes()),
            Cell::Int(value) => out.bytes(value.to_string().as_bytes()),
            Cell::Json(text) => match serde_json::from_str(text) {
                Ok(serde_json::Value::String(text)) => out.bytes(text.as_bytes()),
                Ok(serde_json::Value::Number(number)) if number.is_i64() => out.bytes(number.to_string().as_bytes()),
                Ok(serde_json::Value::Null) => out.null(),
                _ => {
                    rejects.entry(row as u32).or_insert_with(|| "on: the key to look up is neither text nor int".to_owned());
                    out.null();
                }
            },
            Cell::Bool(_) | Cell::Float(_) | Cell::Blob(_) => out.null(),
        }
    }
    out.finish()
}

/// The column with null where the table has no row.
fn unless_present(mut column: Column, present: &Bitmap, rows: usize) -> Column {
    if (0..rows).all(|row| present.get(row)) {
        return column;
    }
    let mut validity = Bitmap::filled(rows, false);
    for row in (0..rows).filter(|row| present.get(*row) && !column.is_null(*row)) {
        validity.set(row);
    }
    column.validity = validity;
    column
}
