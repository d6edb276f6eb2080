//! The standard plugin `enrich`: adds what a table knows of a record.

mod plan;
mod process;

use millstream_expression::Ordered;
use millstream_guest::describe::{Description, Mistake};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Plugin, Setup};
use plan::Plan;
use schemars::JsonSchema;
use serde::Deserialize;

/// Looks up a row of a table for each record and adds fields computed from both. Tombstones pass.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A table of the pipeline.
    pub table: String,
    /// The key to look for, a field or a CEL expression of type text or int: `user_id`. Null finds nothing.
    pub on: String,
    /// What becomes of a record for which the table has no row.
    #[serde(default)]
    pub join: Join,
    /// Path to CEL expression over the record's fields and the table's columns: `club_status: users.club_status`.
    pub add: Ordered<String>,
}

/// What becomes of a record for which the table has no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// It is dropped.
    #[default]
    Inner,
    /// It stays, and what is added is null.
    Left,
}

pub struct Enrich {
    plan: Plan,
}

impl Plugin for Enrich {
    const NAME: &'static str = "enrich";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Adds what a table knows of a record";
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        Plan::new(setup).map(Plan::describe)
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let plan = Plan::new(&setup);
        let plan = plan.map_err(|mistakes| mistakes.iter().map(|mistake| mistake.message.as_str()).collect::<Vec<_>>().join("; "))?;
        Ok(Self { plan })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        Ok(process::process(&self.plan, &batch))
    }
}

millstream_guest::export!(Enrich);

#[cfg(test)]
mod tests;
