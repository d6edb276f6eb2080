//! `millstream pause`, `resume` and `delete`.

use super::super::{Context, Outcome};
use super::{Fleet, Terminal, show};
use crate::fleet::State;
use crate::verbs;

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, wanted: State, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    show(context, &verbs::steer(&mut control, &args.pipeline, wanted, &Terminal::of(context))?);
    Ok(())
}
