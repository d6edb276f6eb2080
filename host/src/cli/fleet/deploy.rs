//! `millstream deploy` and `millstream diff`.

use super::super::{Context, Outcome, Output, check};
use super::{Fleet, Terminal, show};
use crate::fleet::Kind;
use crate::fleet::bundle::Bundle;
use crate::plugin::engine::Engine;
use crate::verbs::{Candidate, How, Means, check_log};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    fleet: Fleet,
}

#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The pipeline's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    fleet: Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let engine = Engine::new()?;
    let (bundle, loaded) = Bundle::read(&args.file, &engine)?;
    if !loaded.warnings.0.is_empty() && context.global.output == Output::Text {
        check::print_diagnostics(&loaded.warnings);
    }
    let candidate = Candidate { bundle, loaded, kind: Kind::Deploy };
    let kafka = context.connection.brokers.is_some();
    let means = Means { kafka, loader: &engine, caller: &Terminal::of(context) };
    if args.how.dry_run {
        let (log, mut control) = args.fleet.find(context)?;
        show(context, &candidate.go(control.as_mut(), log.as_deref(), &args.how, &means)?);
        return Ok(());
    }
    let log = context.connection.open()?;
    // A mistake is to be found before a fleet begins.
    check_log(&candidate.loaded, &*log, kafka)?;
    let mut control = args.fleet.begin(log.clone(), context)?;
    show(context, &candidate.go(Some(&mut control), Some(&*log), &args.how, &means)?);
    Ok(())
}

pub fn diff_file(args: &DiffArgs, context: &Context) -> Outcome {
    let engine = Engine::new()?;
    let (bundle, loaded) = Bundle::read(&args.file, &engine)?;
    let (log, mut control) = args.fleet.find(context)?;
    let candidate = Candidate { bundle, loaded, kind: Kind::Deploy };
    show(context, &candidate.diff(control.as_mut(), log.as_deref(), &engine)?);
    Ok(())
}
