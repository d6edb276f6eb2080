//! The command `millstream`: arguments, output, exit codes. Each command is a file.

mod build;
mod check;
mod completion;
mod consume;
mod demo;
mod dev;
mod files;
mod fleet;
mod new;
mod produce;
mod progress;
mod run;
mod schema;
mod serve;
mod stop;
mod test;
mod topic;

use crate::log::Connection;
use crate::log::embedded::EmbeddedLog;
pub use crate::verbs::{Exit, Failure};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "millstream", version, about = "A stream processor whose transforms are WebAssembly plugins", max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// What is printed to standard output: for people, or JSON for scripts
    #[arg(long, global = true, value_enum, default_value_t, env = "MILLSTREAM_OUTPUT")]
    pub output: Output,
    /// How the log is written to standard error
    #[arg(long, global = true, value_enum, default_value_t, env = "MILLSTREAM_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or as in `millstream=debug,wasmtime=warn`
    #[arg(long, global = true, default_value = "warn", env = "MILLSTREAM_LOG", value_name = "FILTER")]
    pub log: String,
    /// Where compiled plugins are kept [default: $XDG_CACHE_HOME/millstream, or ~/.cache/millstream]
    #[arg(long, global = true, env = "MILLSTREAM_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl Global {
    /// None where neither a folder nor a home is known.
    fn cache_folder(&self) -> Option<PathBuf> {
        let folder_of = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
        let caches = || folder_of("XDG_CACHE_HOME").or_else(|| Some(folder_of("HOME")?.join(".cache")));
        self.cache.clone().or_else(|| Some(caches()?.join("millstream")))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the ratings pipeline on records that come with it, and show what happened
    Demo(demo::Args),
    /// Start a plugin or a pipeline of your own
    New(new::Args),
    /// Build a plugin to a Wasm component
    Build(build::Args),
    /// Check a pipeline: names, types from source to sink, permissions, topics
    Check(check::Args),
    /// Infer a schema from records; print the schemas of manifest and contract
    Schema(schema::Args),
    /// Run the tests that stand in a pipeline's file
    Test(test::Args),
    /// Run a pipeline
    Run(run::Args),
    /// Run a pipeline while you work on it: what is saved is built and takes over
    Dev(dev::Args),
    /// Run a host of a fleet, and on it whatever is deployed
    Serve(serve::Args),
    /// Make a pipeline's file the active generation of a fleet
    Deploy(fleet::deploy::Args),
    /// Show what a pipeline's file would change about what is deployed
    Diff(fleet::deploy::DiffArgs),
    /// Show the hosts of a fleet, what runs, and how far it is
    Status(fleet::status::Args),
    /// Replace the plugin of one stage of what is deployed
    Swap(fleet::swap::Args),
    /// Go back to an earlier generation
    Rollback(fleet::rollback::Args),
    /// Let a generation that is on trial work in every partition
    Promote(fleet::promote::Args),
    /// Show the generations of a pipeline, and from which offset on each ran
    History(fleet::history::Args),
    /// Show where an output record comes from
    Why(fleet::why::Args),
    /// Process records of a source once more, by any generation, and show what it gives
    Replay(fleet::replay::Args),
    /// Have hosts pause a pipeline
    Pause(fleet::steer::Args),
    /// Have hosts run a pipeline again, parked partitions too
    Resume(fleet::steer::Args),
    /// Have a pipeline go on from other positions, with its state or without
    Reset(fleet::reset::Args),
    /// Have hosts end a pipeline; its topics stay
    Delete(fleet::steer::Args),
    /// Create, list and describe topics
    Topic(topic::Args),
    /// Append records to a topic
    Produce(produce::Args),
    /// Print records of a topic
    Consume(consume::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
}

pub type Outcome = Result<(), Failure>;

/// What a command has besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    pub global: Global,
    pub connection: Connection,
}

/// The whole program; returns the exit code.
pub fn main() -> i32 {
    tell_lost_output();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    if let Err(error) = start_log(&cli.global) {
        anstream::eprintln!("error: {error:#}");
        return Exit::Usage as i32;
    }
    if let Some(folder) = cli.global.cache_folder() {
        crate::plugin::engine::keep_compiled(folder);
    }
    let context = Context { global: cli.global, connection: cli.connection };
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args, &context),
        Command::New(args) => new::run(&args, &context),
        Command::Build(args) => build::run(&args, &context),
        Command::Check(args) => check::run(&args, &context),
        Command::Schema(args) => schema::run(&args, &context),
        Command::Test(args) => test::run(&args, &context),
        Command::Run(args) => run::run(&args, &context),
        Command::Dev(args) => dev::run(&args, &context),
        Command::Serve(args) => serve::run(&args, &context),
        Command::Deploy(args) => fleet::deploy::run(&args, &context),
        Command::Diff(args) => fleet::deploy::diff_file(&args, &context),
        Command::Status(args) => fleet::status::run(&args, &context),
        Command::Swap(args) => fleet::swap::run(&args, &context),
        Command::Rollback(args) => fleet::rollback::run(&args, &context),
        Command::Promote(args) => fleet::promote::run(&args, &context),
        Command::History(args) => fleet::history::run(&args, &context),
        Command::Why(args) => fleet::why::run(&args, &context),
        Command::Replay(args) => fleet::replay::run(&args, &context),
        Command::Pause(args) => fleet::steer::run(&args, crate::fleet::State::Paused, &context),
        Command::Resume(args) => fleet::steer::run(&args, crate::fleet::State::Running, &context),
        Command::Reset(args) => fleet::reset::run(&args, &context),
        Command::Delete(args) => fleet::steer::run(&args, crate::fleet::State::Deleted, &context),
        Command::Topic(args) => topic::run(&args, &context),
        Command::Produce(args) => produce::run(&args, &context),
        Command::Consume(args) => consume::run(&args, &context),
        Command::Completion(args) => completion::run(&args, &context),
    };
    EmbeddedLog::remove_temporary();
    outcome.err().map_or(0, |failure| tell(context.global.output, &failure))
}

/// Tells why a command failed; its exit code.
fn tell(output: Output, failure: &Failure) -> i32 {
    match (output, failure.error.downcast_ref::<crate::manifest::Diagnostics>()) {
        (Output::Json, _) => println!("{}", failure.to_json()),
        (Output::Text, Some(found)) => check::print_diagnostics(found),
        (Output::Text, None) => anstream::eprintln!("error: {:#}", failure.error),
    }
    failure.exit as i32
}

/// Wrong arguments, or help that was asked for.
fn refused(error: &clap::Error) -> i32 {
    let arguments: Vec<_> = std::env::args_os().collect();
    let json = arguments.iter().any(|one| one == "--output=json")
        || arguments.windows(2).any(|two| two[0] == "--output" && two[1] == "json")
        || std::env::var_os("MILLSTREAM_OUTPUT").is_some_and(|output| output == "json");
    if !(json && error.use_stderr()) {
        error.exit();
    }
    let told = error.render().to_string();
    let told = told.trim();
    tell(Output::Json, &Failure { exit: Exit::Usage, error: anyhow::anyhow!(told.strip_prefix("error: ").unwrap_or(told).to_owned()) })
}

/// Standard output that cannot be written ends the program like any other failure. The macros that print panic then.
fn tell_lost_output() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        match panic.payload().downcast_ref::<String>().and_then(|why| why.strip_prefix("failed printing to stdout: ")) {
            Some(why) => output_failed(why),
            None => before(panic),
        }
    }));
}

fn output_failed(why: &str) -> ! {
    EmbeddedLog::remove_temporary();
    // Whoever closed the other end has seen enough.
    if why.contains("Broken pipe") {
        std::process::exit(0);
    }
    drop(writeln!(std::io::stderr(), "error: cannot write to standard output: {why}"));
    std::process::exit(Exit::Failure as i32)
}

fn start_log(global: &Global) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(&global.log).map_err(|error| anyhow::anyhow!("--log: {error}"))?;
    // Colours are for terminals: in a file they stand between a field's name and its value.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
