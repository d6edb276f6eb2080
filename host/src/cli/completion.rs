//! `millstream completion`.

use super::{Cli, Context, Outcome};
use clap::CommandFactory;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub fn run(args: &Args, _context: &Context) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "millstream", &mut std::io::stdout());
    Ok(())
}
