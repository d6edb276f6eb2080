//! `millstream swap`.

use super::super::{Context, Outcome};
use super::{Fleet, Terminal, component, show};
use crate::plugin::engine::Engine;
use crate::verbs::{self, How, Means};

#[derive(Debug, clap::Args)]
pub struct Args {
    pipeline: String,
    stage: String,
    /// A component's file, or the name of a standard plugin
    plugin: String,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let engine = Engine::new()?;
    let component = component(&args.plugin, &engine)?;
    let mut control = args.fleet.open(context)?;
    let means = Means { kafka: context.connection.brokers.is_some(), loader: &engine, caller: &Terminal::of(context) };
    let plugin = (args.plugin.as_str(), component);
    show(context, &verbs::swap(&mut control, &args.pipeline, &args.stage, plugin, &args.how, &means)?);
    Ok(())
}
