//! `millstream test`.

use super::{Context, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args, _context: &Context) -> Outcome {
    Err(anyhow::anyhow!("`test` is not here yet").into())
}
