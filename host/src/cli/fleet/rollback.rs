//! `millstream rollback`.

use super::super::{Context, Outcome};
use super::{Fleet, Terminal, show};
use crate::plugin::engine::Engine;
use crate::verbs::{self, Back, Means};

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    #[command(flatten)]
    back: Back,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    let means = Means { kafka: context.connection.brokers.is_some(), loader: &Engine::new()?, caller: &Terminal::of(context) };
    show(context, &verbs::roll_back(&mut control, &args.pipeline, &args.back, &means)?);
    Ok(())
}
