//! `millstream check`.

use super::{Context, Outcome};
use crate::manifest::Diagnostics;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args, _context: &Context) -> Outcome {
    Err(anyhow::anyhow!("`check` is not here yet").into())
}

/// To standard error: with the lines of the file on a terminal, else one line for each.
pub(super) fn print_diagnostics(found: &Diagnostics) {
    let fancy = std::io::IsTerminal::is_terminal(&std::io::stderr());
    anstream::eprint!("{}", found.render(fancy));
    anstream::eprintln!("{}", found.summary());
}
