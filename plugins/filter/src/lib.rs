//! The standard plugin `filter`: keeps the records for which a condition holds.

use millstream_expression::{Columns, Expression, RowError, Scope};
use millstream_guest::describe::{Description, Mistake, Output};
use millstream_guest::verdict::{Outcome, Reject, Verdict};
use millstream_guest::{Batch, Plugin, Setup};
use schemars::JsonSchema;
use serde::Deserialize;

/// Keeps the records for which `where` is true, drops the others. A record for which it has no value (say, null is compared by `<`) is an error
/// of that record. Tombstones pass.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A condition in CEL over the record's fields, such as `stars < 3 && channel != "iOS-test"`.
    #[serde(rename = "where")]
    pub condition: String,
}

pub struct Filter {
    condition: Expression,
}

impl Plugin for Filter {
    const NAME: &'static str = "filter";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Keeps the records for which a condition holds";
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        let mut scope = Scope::new(&setup.input);
        Expression::condition_at("/where", &setup.config.condition, &mut scope)?;
        Ok(Description {
            reads: scope.reads().to_vec(),
            outputs: vec![Output::unchanged()],
            warnings: scope.warnings().to_vec(),
            ..Description::default()
        })
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let condition = Expression::condition_at("/where", &setup.config.condition, &mut Scope::new(&setup.input));
        let condition =
            condition.map_err(|mistakes| mistakes.iter().map(|mistake| mistake.message.as_str()).collect::<Vec<_>>().join("; "))?;
        Ok(Self { condition })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        let selected = self.condition.select(Columns { rows: batch.rows, fields: &batch.fields, table: &[] });
        let rejects: Vec<Reject> = selected.errors.into_iter().map(|RowError { row, reason }| Reject { row, reason }).collect();
        let outcome = match selected.rows.len() + rejects.len() == batch.rows {
            true => Outcome::All,
            false => Outcome::Select(selected.rows),
        };
        Ok(Verdict { outcome, rejects })
    }
}

millstream_guest::export!(Filter);

#[cfg(test)]
mod tests;
