//! `millstream status`.

use super::super::{Context, Outcome};
use super::{Fleet, show};
use crate::verbs;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this pipeline
    pipeline: Option<String>,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let control = args.fleet.open(context)?;
    show(context, &verbs::status(&control, args.pipeline.as_deref())?);
    Ok(())
}
