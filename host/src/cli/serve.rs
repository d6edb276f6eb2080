//! `millstream serve`: a host of a fleet.

use super::{Context, Failure, Outcome, Output, run, stop};
use crate::fleet::control::Control;
use crate::fleet::host::Host;
use crate::fleet::running::Place;
use crate::http;
use crate::http::api::Api;
use crate::http::host::{Listener, check_address};
use crate::http::tokens::Tokens;
use crate::io::Log;
use crate::log::embedded::{EmbeddedLog, FolderError, Identity, identity};
use crate::manifest::Secrets;
use crate::plugin::Loader;
use crate::plugin::engine::Engine;
use crate::task::BatchLimit;
use crate::worker::Options;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A host finds its work in the fleet's control topic: pipelines that were deployed (`millstream deploy`), which it runs together with the other hosts \
that have the same brokers and the same --fleet. Without --brokers it is the one host of the data folder."
)]
pub struct Args {
    /// Commit this often
    #[arg(long, default_value = "100", value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    commit_interval: u64,
    /// On Kafka: write committed state to the data folder this often; what is not there is read from the changelogs at the next start
    #[arg(long, default_value = "10000", value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    checkpoint_interval: u64,
    /// Threads of each pipeline that share its partitions [default: as many as there are cores on Kafka, one on the embedded log]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Serve figures (/metrics) and health (/healthz) of all pipelines, and the API (/v1) by which the fleet is steered, over HTTP; a port alone is one of 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", env = "MILLSTREAM_LISTEN")]
    listen: Option<String>,
    /// Answer only whoever has one of these tokens. A line is TOKEN, ROLE TOKEN or ROLE NAME TOKEN; the role is `admin`, or `read` for who may only look. Without it,
    /// MILLSTREAM_TOKENS may hold such lines
    #[arg(long, value_name = "FILE", requires = "listen")]
    tokens: Option<PathBuf>,
    /// Serve no API, only figures and health
    #[arg(long, requires = "listen")]
    figures_only: bool,
    #[command(flatten)]
    fleet: super::fleet::Fleet,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let interrupted = stop::on_signals(context.global.output)?;
    let tokens = if args.listen.is_some() { Tokens::load(args.tokens.as_deref())? } else { Tokens::default() };
    let listener = args.listen.as_deref().map(http::bind).transpose()?;
    if let Some(listener) = &listener {
        check_address(listener.local_addr()?, &tokens, args.figures_only).map_err(anyhow::Error::msg)?;
    }
    let data = context.connection.data_folder();
    let kafka = context.connection.brokers.is_some();
    let (log, id, _held): (Arc<dyn Log>, String, Option<Identity>) = match kafka {
        true => {
            let held = identity(&data, &format!("fleet-{}", args.fleet.fleet)).map_err(|error| in_use(error, &args.fleet.fleet))?;
            (context.connection.open()?, held.host_id.clone(), Some(held))
        }
        false => (Arc::new(EmbeddedLog::open_with(&data, context.connection.embedded_options())?), "embedded".to_owned(), None),
    };
    let control = Control::create(log.clone(), &args.fleet.fleet, context.global.cache_folder().as_deref())?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options {
        commit_interval: Duration::from_millis(args.commit_interval),
        checkpoint_interval: Duration::from_millis(args.checkpoint_interval),
        host: id.clone(),
        ..Options::default()
    };
    let loader: Arc<dyn Loader> = Arc::new(Engine::new()?);
    let place = Place {
        log: log.clone(),
        loader: loader.clone(),
        secrets: Arc::new(Secrets::load()?),
        data,
        kafka,
        limit: BatchLimit::default(),
        options,
        workers: args.workers.map_or_else(cores, usize::from),
    };
    let mut host = Host::new(control, place, id.clone(), &interrupted);
    let api = || {
        let control = (log.clone(), args.fleet.fleet.clone(), context.global.cache_folder());
        Api::new(control, kafka, loader.clone(), interrupted.clone())
    };
    let start = |listener| Listener::start(listener, host.shown(), log.clone(), tokens, (!args.figures_only).then(api));
    let listener = listener.map(start).transpose()?;
    if let Some(listener) = &listener {
        run::tell_address(context, listener.address);
    }
    if context.global.output == Output::Text {
        anstream::eprintln!("host {id} of the fleet `{}`; Ctrl-C commits what is done and leaves", args.fleet.fleet);
    }
    Ok(host.run()?)
}

fn in_use(error: FolderError, fleet: &str) -> Failure {
    match error {
        FolderError::Runs { folder, pid, .. } => {
            let pid = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            anyhow::anyhow!(
                "a host of the fleet `{fleet}` runs already with the data folder {}, in {pid}: give this one another by --data",
                folder.display()
            )
            .into()
        }
        error => error.into(),
    }
}
