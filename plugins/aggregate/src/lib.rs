//! `aggregate`: counts, sums and the like, by key or group, without window or in tumbling, hopping or session windows.
//! Documentation for users: `host/docs/plugins/aggregate.md`.

mod config;
mod emit;
mod function;
mod group;
mod plan;
mod process;
mod sessions;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

pub use config::Config;
use millstream_guest::column::Column;
use millstream_guest::describe::{Description, Mistake, Occasion};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Emitting, Plugin, Setup};
use plan::Plan;

millstream_guest::export!(Aggregate: emitting);

/// The plugin.
#[derive(Debug)]
pub struct Aggregate {
    plan: Plan,
}

impl Plugin for Aggregate {
    const NAME: &'static str = "aggregate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Counts, sums and the like, by key or group, with or without windows.";
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        Ok(Plan::new(&setup.config, &setup.input)?.describe())
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let plan = Plan::new(&setup.config, &setup.input).map_err(|mistakes| {
            mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect::<Vec<_>>().join("; ")
        })?;
        Ok(Self { plan })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        self.plan.process(&batch)
    }
}

impl Emitting for Aggregate {
    fn emit(&mut self, store: u32, occasion: Occasion, keys: Column, fields: Vec<Column>) -> Result<Verdict, String> {
        self.plan.emit(store, occasion, &keys, &fields)
    }
}
