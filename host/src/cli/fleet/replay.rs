//! `millstream replay`: records of a source once more, through any generation, shown and not written.

use super::super::progress::Line;
use super::super::{Context, Outcome, run, stop};
use super::Fleet;
use super::why::place;
use crate::dry_run::DryLog;
use crate::generation;
use crate::io::{Log, TopicPartition};
use crate::manifest::Secrets;
use crate::pipeline::{Pipeline, Scope};
use crate::plugin::engine::Engine;
use crate::record::Records;
use crate::replay::{self, Stretch};
use crate::runtime::{self, Creates};
use crate::task::BatchLimit;
use crate::verbs::{active, deployment, loaded};
use crate::worker::Options;
use anyhow::Context as _;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is shown is what the generation gives. A pipeline without state and tables gives exactly what it gave. One with state is put before the record first: its \
inputs are read from where the pipeline began, which takes as long as processing them, and is refused if they no longer hold everything. `--state empty` begins without state \
instead, and what is shown differs accordingly."
)]
pub struct Args {
    pipeline: String,
    /// Where to begin, as TOPIC/PARTITION@OFFSET of a source or a repartition topic
    #[arg(long, value_name = "RECORD", value_parser = place)]
    from: (TopicPartition, i64),
    /// So many offsets
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// By this generation [default: the active one]
    #[arg(long, value_name = "GENERATION")]
    generation: Option<u64>,
    /// What a pipeline with state begins with [default: what it had]
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
    let pipeline = loaded.pipeline;
    let (at, offset) = &args.from;
    let sources = pipeline.sources.iter().filter(|source| source.table.is_none());
    let sources: Vec<&str> = sources.map(|source| &*source.topic).collect();
    if !sources.contains(&&*at.topic) {
        return Err(anyhow::anyhow!("`{name}` does not read the topic {}: its sources read {}", at.topic, sources.join(", ")).into());
    }
    let log = control.log().clone();
    let bounds = log.bounds(at)?;
    if !(bounds.begin..bounds.end).contains(offset) {
        return Err(anyhow::anyhow!("{at} holds the offsets {} to {}, not {offset}", bounds.begin, bounds.end - 1).into());
    }
    let offsets = *offset..offset.saturating_add_unsigned(args.count);
    let own = pipeline.sources.iter().any(|source| source.topic == at.topic && source.carries.is_some());
    let empty = args.state == Some(State::Empty);
    if !own && (empty || !has_state(&pipeline)) {
        for table in pipeline.tables.iter().filter(|table| table.scope == Scope::Global) {
            tell(&format!("the global table `{}` is looked up as it is now: what records met then is not promised", table.name));
        }
        if has_state(&pipeline) {
            tell("it begins without state: what is shown is not what was given");
        }
        return alone(context, pipeline, log, at, offsets);
    }
    let known = deployment(&control, name, true)?.clone();
    let stretch = Stretch::new(&pipeline, &generation, &known, &*log, (at, offsets), empty)?;
    stretch.notes.iter().for_each(|note| tell(note));
    let generation = generation::Generation {
        number: generation.number,
        control: String::new().into(),
        host: String::new().into(),
        epoch: known.epoch(),
    };
    let stop = stop::on_signals(context.global.output)?;
    let mut shown = Shown { line: Line::anywhere(context) };
    let ended = replay::run(pipeline, generation, &stretch, log, &Secrets::load()?, &stop, &mut shown);
    shown.line.clear();
    ended.map_err(run::failure)
}

struct Shown {
    line: Line,
}

impl replay::Observer for Shown {
    fn progress(&mut self, read: u64, total: u64) {
        self.line.show(|| format!("{read} of {total} records read"));
    }

    fn results(&mut self, to: &TopicPartition, records: &Records) {
        run::print_records(to, records);
    }
}

fn tell(note: &str) {
    anstream::eprintln!("note: {note}");
}

/// Whether results depend on records before.
fn has_state(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().any(|stage| !stage.stores.is_empty()) || pipeline.tables.iter().any(|table| table.scope == Scope::Partitioned)
}

/// These records through the whole pipeline, with nothing before them.
fn alone(context: &Context, mut pipeline: Pipeline, log: Arc<dyn Log>, at: &TopicPartition, offsets: std::ops::Range<i64>) -> Outcome {
    // Under another name it finds no state of the pipeline's own.
    pipeline.name = format!("{}.replay", pipeline.name);
    let dry = Arc::new(DryLog::new(log, &pipeline)?.only(at.clone(), offsets));
    let as_log: Arc<dyn Log> = dry.clone();
    let setting =
        runtime::prepare(pipeline, &as_log, &Secrets::load()?, BatchLimit::default(), Creates::Nothing, None).map_err(run::failure)?;
    let setting = Arc::new(setting);
    let member = run::dry_member(&dry, &setting)?;
    let options = Options { until_end: true, ..Options::default() };
    let stop = stop::on_signals(context.global.output)?;
    let (_, ended) = runtime::run(&setting, &as_log, Some(member), options, &stop, &mut |_| {});
    ended.map_err(run::failure)
}
