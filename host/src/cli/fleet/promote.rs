//! `millstream promote`.

use super::super::{Context, Outcome};
use super::{Fleet, Terminal, show};
use crate::verbs;

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    show(context, &verbs::promote(&mut control, &args.pipeline, &Terminal::of(context))?);
    Ok(())
}
