//! The standard plugin `map`: sets, renames, casts and removes fields.

mod cast;
mod plan;
mod process;

use millstream_expression::Ordered;
use millstream_guest::column::Type;
use millstream_guest::describe::{Description, Mistake};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Plugin, Setup};
use plan::Plan;
use schemars::JsonSchema;
use serde::Deserialize;

/// Changes fields. All of it sees the record as it came in; no field is changed twice.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path to CEL expression: `full_name: 'first + " " + last'`. `$key` and `$timestamp` can be set too.
    pub set: Ordered<String>,
    /// Old path to new path. A field that is missing or null is not written under its new name.
    pub rename: Ordered<String>,
    /// Paths that are removed.
    pub remove: Vec<String>,
    /// Path to type. A value that does not convert is an error of its record; null stays null.
    pub cast: Ordered<Type>,
}

pub struct Map {
    plan: Plan,
}

impl Plugin for Map {
    const NAME: &'static str = "map";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Sets, renames, casts and removes fields";
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        Plan::new(&setup.config, &setup.input).map(Plan::describe)
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let plan = Plan::new(&setup.config, &setup.input);
        let plan = plan.map_err(|mistakes| mistakes.iter().map(|mistake| mistake.message.as_str()).collect::<Vec<_>>().join("; "))?;
        Ok(Self { plan })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        Ok(process::process(&self.plan, &batch))
    }
}

millstream_guest::export!(Map);

#[cfg(test)]
mod tests;
