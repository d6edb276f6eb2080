//! `mask`: hides card numbers, e-mail addresses, whole fields or given texts, in named fields or everywhere in a record.
//! Documentation for users: `host/docs/plugins/mask.md`.

mod card;
mod config;
mod digits;
mod email;
mod hash;
mod json_text;
mod paths;
mod plan;
mod process;
#[cfg(test)]
mod random;
mod replace;
mod rule;
mod suspects;
#[cfg(test)]
mod tests;

pub use config::Config;
use millstream_guest::describe::{Description, Mistake};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Plugin, Setup};
use paths::LeafRules;
use plan::Plan;
use rule::Actions;
use suspects::Suspects;

millstream_guest::export!(Mask);

/// The plugin.
#[derive(Debug)]
pub struct Mask {
    plan: Plan,
    actions: Actions,
    leaf_rules: LeafRules,
    suspects: Suspects,
}

impl Plugin for Mask {
    const NAME: &'static str = "mask";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Masks card numbers, e-mail addresses, whole fields and given texts.";
    const PROTECTS: bool = true;
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        let mut mistakes = plan::check_secrets(&setup.config);
        match Plan::new(&setup.config, &setup.input) {
            Ok(plan) if mistakes.is_empty() => Ok(plan.describe()),
            Ok(_) => Err(mistakes),
            Err(more) => {
                mistakes.extend(more);
                Err(mistakes)
            }
        }
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        let plan = Plan::new(&setup.config, &setup.input).map_err(|mistakes| {
            mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect::<Vec<_>>().join("; ")
        })?;
        Ok(Self { actions: Actions::new(&setup.config)?, leaf_rules: LeafRules::new(&plan), plan, suspects: Suspects::default() })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        self.mask(&batch)
    }
}
