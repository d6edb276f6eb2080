//! Results that the host asks for: of groups that changed since the last commit, or of windows that are closed.

use crate::group::split;
use crate::plan::{Emit, Plan};
use crate::process::{Fields, STORE};
use crate::value::Value;
use millstream_guest::column::Column;
use millstream_guest::describe::Occasion;
use millstream_guest::verdict::Verdict;

impl Plan {
    pub fn emit(&self, store: u32, occasion: Occasion, keys: &Column, fields: &[Column]) -> Result<Verdict, String> {
        if store != STORE || fields.len() != self.stored.len() {
            return Err("the rows are not what was asked for".to_owned());
        }
        let rows = fields.first().map_or(0, |_| rows_of(keys));
        if self.is_session() && occasion == Occasion::Closed {
            self.forget(keys, rows);
        }
        let wanted = match occasion {
            Occasion::Changed => Emit::Changes,
            Occasion::Closed => Emit::Final,
        };
        let mut results = self.results(if self.emit == wanted { rows } else { 0 });
        for row in (0..rows).filter(|_| self.emit == wanted) {
            let broken = || {
                format!("the key of row {row} is not one of this plugin's: was the stage changed? start the pipeline under another name")
            };
            let key = keys.bytes(row).ok_or_else(broken)?;
            let (time, group) = match self.window {
                None => (None, key),
                Some(_) => split(key).map(|(time, group)| (Some(time), group)).ok_or_else(broken)?,
            };
            let stored: Vec<Value> = fields.iter().map(|column| Value::of(column.cell(row))).collect();
            let window = match (self.window, time) {
                // Of a session: its first and its last record.
                (Some(window), Some(last)) if window.session => Some((stored[1].int(), last)),
                (Some(window), Some(start)) => Some((start, start.saturating_add(window.size))),
                _ => None,
            };
            let values = self.group.read(group, self.group_types()).ok_or_else(broken)?;
            self.give_out(row as u32, group, &Fields::Values(&values), window, &stored, &mut results);
        }
        Ok(self.verdict(results, true, Vec::new()))
    }
}

fn rows_of(keys: &Column) -> usize {
    use millstream_guest::column::Values;
    match &keys.values {
        Values::Texts(strings) | Values::Blobs(strings) => strings.len(),
        _ => 0,
    }
}
