//! `join`: records of two streams that come within a time of each other, or the latest rows of two tables.
//! Documentation for users: `host/docs/plugins/join.md`.

mod config;
mod index;
mod plan;
mod results;
mod streams;
mod tables;
#[cfg(test)]
mod tests;

pub use config::{Config, Join, Of, On};
use millstream_guest::column::Column;
use millstream_guest::describe::{Description, Mistake, Occasion};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Emitting, Plugin, Setup};
use plan::Plan;

millstream_guest::export!(Joined: emitting);

/// The plugin.
#[derive(Debug)]
pub struct Joined {
    plan: Plan,
}

impl Plugin for Joined {
    const NAME: &'static str = "join";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Joins two streams within a time, or the latest rows of two tables.";
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        Ok(Plan::new(&setup.config, &setup.inputs)?.describe())
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let plan = Plan::new(&setup.config, &setup.inputs).map_err(|mistakes| {
            mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect::<Vec<_>>().join("; ")
        })?;
        Ok(Self { plan })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        if batch.fields.len() != self.plan.reads.len() || batch.timestamps.len() != batch.rows {
            return Err("the batch is not what was asked for".to_owned());
        }
        match self.plan.window {
            Some(window) => self.plan.process_streams(window, &batch),
            None => self.plan.process_tables(&batch),
        }
    }
}

impl Emitting for Joined {
    fn emit(&mut self, store: u32, _: Occasion, keys: Column, fields: Vec<Column>) -> Result<Verdict, String> {
        self.plan.alone(store, &keys, &fields)
    }
}
