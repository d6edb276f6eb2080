//! `millstream replay`: records of a source once more, through any generation, shown and not written.

use super::super::{Context, Outcome, run};
use super::Fleet;
use super::why::place;
use crate::dry_run::DryLog;
use crate::io::{Log, TopicPartition};
use crate::manifest::Secrets;
use crate::pipeline::{Pipeline, Scope};
use crate::plugin::engine::Engine;
use crate::runtime::{self, Creates};
use crate::task::BatchLimit;
use crate::verbs::{active, deployment, loaded};
use crate::worker::Options;
use anyhow::Context as _;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is shown is what the generation gives: exactly what it gave if no stage has state or looks up a table. State is not brought back to what it was at \
that place: for a pipeline with state, `--state empty` begins without any, and what is shown differs accordingly."
)]
pub struct Args {
    pipeline: String,
    /// Where to begin, as TOPIC/PARTITION@OFFSET of a source
    #[arg(long, value_name = "RECORD", value_parser = place)]
    from: (TopicPartition, i64),
    /// So many offsets
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// By this generation [default: the active one]
    #[arg(long, value_name = "GENERATION")]
    generation: Option<u64>,
    /// What a pipeline with state begins with
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    fleet: Fleet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// None: results differ from those that were written
    Empty,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut control = args.fleet.open(context)?;
    let name = &args.pipeline;
    let generation = match args.generation {
        None => active(&control, name)?,
        Some(number) => {
            let known = deployment(&control, name, true)?.generations.get(&number).cloned();
            known.with_context(|| format!("`{name}` has no generation {number}; `millstream history {name}` shows those that are"))?
        }
    };
    let (_, loaded) = loaded(&mut control, &generation, &Engine::new()?)?;
    let mut pipeline = loaded.pipeline;
    let (at, offset) = &args.from;
    let sources: Vec<&str> = pipeline.sources.iter().filter(|source| source.is_stream()).map(|source| &*source.topic).collect();
    if !sources.contains(&&*at.topic) {
        return Err(anyhow::anyhow!("`{name}` does not read the topic {}: its sources read {}", at.topic, sources.join(", ")).into());
    }
    if let Some(why) = stateful(&pipeline).filter(|_| args.state != Some(State::Empty)) {
        return Err(anyhow::anyhow!(
            "{why}: what it gave at that place cannot be given again; `--state empty` shows what it gives without"
        )
        .into());
    }
    let log = control.log().clone();
    let bounds = log.bounds(at)?;
    if !(bounds.begin..bounds.end).contains(offset) {
        return Err(anyhow::anyhow!("{at} holds the offsets {} to {}, not {offset}", bounds.begin, bounds.end - 1).into());
    }
    // Under another name it finds no state of the pipeline's own.
    pipeline.name = format!("{name}.replay");
    let dry = Arc::new(DryLog::new(log, &pipeline)?.only(at.clone(), *offset..offset.saturating_add_unsigned(args.count)));
    let as_log: Arc<dyn Log> = dry.clone();
    let setting =
        runtime::prepare(pipeline, &as_log, &Secrets::load()?, BatchLimit::default(), Creates::Nothing, None).map_err(run::failure)?;
    let setting = Arc::new(setting);
    let member = run::dry_member(&dry, &setting)?;
    let options = Options { until_end: true, ..Options::default() };
    let stop = run::stop_on_signals()?;
    let (_, ended) = runtime::run(&setting, &as_log, Some(member), options, &stop, &mut |_| {});
    ended.map_err(run::failure)
}

/// Why results depend on more than the record.
fn stateful(pipeline: &Pipeline) -> Option<String> {
    if let Some(stage) = pipeline.stages.iter().find(|stage| !stage.stores.is_empty()) {
        return Some(format!("stage `{}` has state", stage.name));
    }
    let table = pipeline.tables.first()?;
    let scope = if table.scope == Scope::Partitioned { "partitioned" } else { "global" };
    Some(format!("the {scope} table `{}` is looked up, which has changed since", table.name))
}
