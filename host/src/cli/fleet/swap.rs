//! `millstream swap`: another plugin for one stage of what is deployed.

use super::super::{Context, Outcome};
use super::deploy::{Candidate, How};
use super::{Fleet, active, bundle, component};
use crate::fleet::Kind;
use crate::plugin::engine::Engine;

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
    let base = active(&control, &args.pipeline)?;
    let bundle = bundle(&mut control, &base)?;
    let bundle = bundle.with_plugin(&args.stage, &args.plugin, component).map_err(anyhow::Error::msg)?;
    let loaded = bundle.pipeline(&engine)?;
    let log = control.log().clone();
    let candidate = Candidate { bundle, loaded, kind: Kind::Swap { stage: args.stage.clone() } };
    candidate.go(Some(control), Some(&*log), &args.how, context)
}
