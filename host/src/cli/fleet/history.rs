//! `millstream history`.

use super::super::{Context, Outcome};
use super::{Fleet, show};
use crate::verbs;

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let control = args.fleet.open(context)?;
    show(context, &verbs::history(&control, &args.pipeline)?);
    Ok(())
}
