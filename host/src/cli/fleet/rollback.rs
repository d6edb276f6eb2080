//! `millstream rollback`: the content of an earlier generation, as a new one.

use super::super::{Context, Outcome};
use super::deploy::{Candidate, How};
use super::{Fleet, active, canary, deployment, loaded};
use crate::fleet::Kind;
use crate::plugin::engine::Engine;
use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    /// The generation whose content is to run again [default: the one before the active one; while one is on trial, what runs beside it]
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    let name = &args.pipeline;
    let base = active(&control, name)?;
    if let Some(trial) = canary::on_trial(&control, name).filter(|_| args.to.is_none()) {
        return canary::roll_back(&mut control, name, trial, context);
    }
    let to = args.to.unwrap_or(base.base);
    if to == 0 {
        let first = anyhow::anyhow!("generation {} of `{name}` is the first: there is none before it to go back to", base.number);
        return Err(first.into());
    }
    let known = deployment(&control, name, false)?;
    let of = known.generations.get(&to).cloned();
    let of = of.with_context(|| format!("`{name}` has no generation {to}; `millstream history {name}` shows those that are"))?;
    if let Some(why) = &of.withdrawn {
        return Err(anyhow::anyhow!("generation {to} of `{name}` was withdrawn and never ran: {why}").into());
    }
    let (bundle, loaded) = loaded(&mut control, &of, &Engine::new()?)?;
    let log = control.log().clone();
    Candidate { bundle, loaded, kind: Kind::Rollback { of: to } }.go(Some(control), Some(&*log), &args.how, context)
}
