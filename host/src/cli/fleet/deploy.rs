//! `millstream deploy` and `millstream diff`; and the way that `swap` and `rollback` share with them.

use super::super::{Context, Failure, Outcome, Output, check, run};
use super::{Fleet, canary, denied, loaded, print, rollout_failed};
use crate::clock::SystemClock;
use crate::fleet::bundle::Bundle;
use crate::fleet::diff::{Diff, counts, diff};
use crate::fleet::{self, Class, Control, Ended, Generation, Kind, Mode, Rollout, Told};
use crate::io::{Log, TopicPartition};
use crate::manifest::Loaded;
use crate::plugin::engine::Engine;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

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

/// What every command takes that makes another generation active.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct How {
    /// Allow what a plugin gains: a permission such as `state`, or that of one stage alone. May be given several times
    #[arg(long, value_name = "[STAGE=]PERMISSION")]
    allow: Vec<String>,
    #[arg(skip)]
    allow_all: bool,
    /// Check and compare, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    canary: canary::Canary,
    /// How long hosts may take to prepare it, and again to run it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl How {
    /// For who tries things out: whatever is gained is allowed.
    pub fn trying() -> Self {
        Self { allow_all: true, timeout: 60, ..Self::default() }
    }
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
    if args.how.dry_run {
        let (log, control) = args.fleet.find(context)?;
        return candidate.go(control, log.as_deref(), &args.how, context);
    }
    let log = context.connection.open()?;
    // A mistake is to be found before a fleet begins.
    check::check_log(&candidate.loaded, &*log, context.connection.brokers.is_some())?;
    let control = args.fleet.begin(log.clone(), context)?;
    candidate.go(Some(control), Some(&*log), &args.how, context)
}

pub fn diff_file(args: &DiffArgs, context: &Context) -> Outcome {
    let (bundle, loaded) = Bundle::read(&args.file, &Engine::new()?)?;
    let (log, mut control) = args.fleet.find(context)?;
    let candidate = Candidate { bundle, loaded, kind: Kind::Deploy };
    let (found, base) = candidate.compare(control.as_mut(), log.as_deref())?;
    let name = &candidate.loaded.pipeline.name;
    match context.global.output {
        Output::Text => anstream::print!("{}", print::diff(&found, name, base.as_ref().map_or(0, |base| base.number))),
        Output::Json => println!("{}", told_json(name, base.as_ref(), &found)),
    }
    Ok(())
}

fn told_json(pipeline: &str, base: Option<&Generation>, diff: &Diff) -> Value {
    json!({ "pipeline": pipeline, "base": base.map(|base| base.number), "diff": diff })
}

/// A pipeline that is to become the active generation.
pub struct Candidate {
    pub bundle: Bundle,
    pub loaded: Loaded,
    pub kind: Kind,
}

impl Candidate {
    /// Compared with the active generation, and that one.
    fn compare(&self, control: Option<&mut Control>, log: Option<&dyn Log>) -> Result<(Diff, Option<Generation>), Failure> {
        let new = &self.loaded.pipeline;
        let count = |pipeline, as_made| log.map_or_else(|| Ok(Default::default()), |log| counts(pipeline, log, as_made));
        let new_counts = count(new, true)?;
        let Some(control) = control else { return Ok((diff(None, (new, &new_counts)), None)) };
        let base = control.view().pipeline(&new.name).and_then(|known| known.active()).cloned();
        let Some(base) = base else { return Ok((diff(None, (new, &new_counts)), None)) };
        let (_, old) = loaded(control, &base, &Engine::new()?)?;
        let old_counts = count(&old.pipeline, false)?;
        Ok((diff(Some((&old.pipeline, &old_counts)), (new, &new_counts)), Some(base)))
    }

    /// Checks it against the log and the active generation, tells what it changes, and brings it about.
    pub fn go(&self, control: Option<Control>, log: Option<&dyn Log>, how: &How, context: &Context) -> Outcome {
        let stop = run::stop_on_signals()?;
        self.go_until(control, log, how, context, &stop)
    }

    /// The same; a raised `stop` withdraws it, as long as it is not active.
    pub fn go_until(
        &self,
        mut control: Option<Control>,
        log: Option<&dyn Log>,
        how: &How,
        context: &Context,
        stop: &AtomicBool,
    ) -> Outcome {
        let text = context.global.output == Output::Text;
        let name = &self.loaded.pipeline.name;
        self.bundle.check_size().map_err(anyhow::Error::msg)?;
        if let Some(log) = log {
            check::check_log(&self.loaded, log, context.connection.brokers.is_some())?;
        }
        let (found, base) = self.compare(control.as_mut(), log)?;
        if let Some(base) = base.as_ref().filter(|base| base.digest == self.bundle.digest()) {
            match text {
                true => anstream::println!("{name}: unchanged, generation {} has the same content ({})", base.number, base.digest),
                false => {
                    println!("{}", json!({ "pipeline": name, "state": "unchanged", "generation": base.number, "digest": base.digest }));
                }
            }
            return Ok(());
        }
        let number = base.as_ref().map_or(0, |base| base.number);
        if text {
            anstream::print!("{}", print::diff(&found, name, number));
        }
        self.refuse(&found, base.as_ref(), how)?;
        let (Some(control), Some(log), false) = (&mut control, log, how.dry_run) else {
            if !text {
                let mut told = told_json(name, base.as_ref(), &found);
                told["state"] = "dry_run".into();
                println!("{told}");
            }
            return Ok(());
        };
        let trial = how.canary.mode(&self.loaded.pipeline, log, &found, base.as_ref())?;
        let mut partitions = Vec::new();
        for source in &self.loaded.pipeline.sources {
            let count = log.topic(&source.topic)?.map_or(0, |topic| topic.partitions);
            partitions.extend((0..count).map(|partition| TopicPartition::new(source.topic.clone(), partition)));
        }
        let rollout = Rollout {
            pipeline: name.clone(),
            bundle: self.bundle.clone(),
            kind: self.kind.clone(),
            class: found.class,
            base: number,
            timeout: Duration::from_secs(how.timeout),
            partitions,
            trial: trial.clone(),
            by: fleet::by(),
        };
        let ended =
            rollout.run(control, &SystemClock::default(), stop, &mut |told| tell(name, trial.is_some(), &told)).map_err(rollout_failed)?;
        self.ended(ended, trial.as_ref(), told_json(name, base.as_ref(), &found), text)
    }

    /// What is not done without being allowed, or not under this name.
    fn refuse(&self, found: &Diff, base: Option<&Generation>, how: &How) -> Result<(), Failure> {
        let Some(base) = base else { return Ok(()) };
        let name = &self.loaded.pipeline.name;
        if found.class == Class::New {
            return Err(denied(format!(
                "generation {} of `{name}` runs, and this cannot take its place: {}. Give the pipeline another name, or `millstream delete {name}` first",
                base.number,
                found.reasons.join("; ")
            )));
        }
        // What an earlier generation had was allowed when it was deployed; what rows are like now is another matter.
        if let Kind::Rollback { of } = self.kind {
            return match &found.irreversible {
                None => Ok(()),
                Some(why) => {
                    Err(denied(format!("generation {of} of `{name}` cannot be gone back to: {why}. Deploy a file that keeps the schema")))
                }
            };
        }
        let allowed = |stage: &str, permission: &str| {
            how.allow_all
                || how.allow.iter().any(|allow| match allow.split_once('=') {
                    Some((one, other)) => one == stage && other == permission,
                    None => allow == permission,
                })
        };
        let refused: Vec<_> = found.gained.iter().filter(|one| !allowed(&one.stage, &one.permission)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let what: Vec<String> = refused.iter().map(|one| format!("stage `{}` gains `{}`", one.stage, one.permission)).collect();
        let flags: Vec<String> = refused.iter().map(|one| format!("--allow {}={}", one.stage, one.permission)).collect();
        Err(denied(format!("what was not permitted before is asked for: {}. If that is meant: {}", what.join(", "), flags.join(" "))))
    }

    fn ended(&self, ended: Ended, trial: Option<&Mode>, mut told: Value, text: bool) -> Outcome {
        let name = &self.loaded.pipeline.name;
        let (generation, state, line) = match &ended {
            Ended::NoHost { generation } => {
                let line = format!("{name}: generation {generation} is active; no host runs yet: start one with `millstream serve`\n");
                (*generation, "no_host", line)
            }
            Ended::Paused { generation } => {
                (*generation, "paused", format!("{name}: generation {generation} is active and paused: `millstream resume {name}`\n"))
            }
            Ended::Running { generation, cuts, outstanding } => {
                let mut line = match trial {
                    None => format!("{name}: generation {generation} runs on every live host\n{}", print::cuts(cuts)),
                    Some(mode) => {
                        told["trial"] = json!(mode);
                        format!("{name}: generation {generation} is on trial: {}\n{}", canary::told(mode), print::cuts(cuts))
                    }
                };
                if !outstanding.is_empty() {
                    let places = outstanding.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(", ");
                    line.push_str(&format!("  not begun yet, as no record came since: {places}; see `millstream history {name}`\n"));
                }
                let cut = |(at, cut): (&TopicPartition, &fleet::Cut)| json!({ "topic": *at.topic, "partition": at.partition, "offset": cut.offset, "host": cut.host });
                told["cuts"] = cuts.iter().map(cut).collect();
                told["outstanding"] = outstanding.iter().map(|at| json!({ "topic": *at.topic, "partition": at.partition })).collect();
                (*generation, "running", line)
            }
            Ended::Outstanding { generation, hosts } => {
                let error = anyhow::anyhow!(
                    "generation {generation} of `{name}` is active, but these hosts have not said that they run it: {}; see `millstream status {name}`",
                    hosts.join(", ")
                );
                return Err(Failure { exit: super::Exit::Timeout, error });
            }
        };
        if text {
            anstream::print!("{line}");
        } else {
            told["generation"] = generation.into();
            told["state"] = state.into();
            println!("{told}");
        }
        Ok(())
    }
}

/// To standard error, as it comes.
fn tell(pipeline: &str, tried: bool, told: &Told) {
    match told {
        Told::Replaced { generation, by } => {
            anstream::eprintln!("{pipeline}: generation {generation}, left behind by a command of {by} that ended early, is withdrawn");
        }
        Told::Asked { generation, hosts } => {
            anstream::eprintln!("{pipeline}: generation {generation}: asked of {} to prepare it", hosts.join(", "));
        }
        Told::Answered { host, answer } => {
            let error = answer.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            anstream::eprintln!("{pipeline}: host {host}: {}{error}", answer.state.name());
        }
        Told::Active { generation } if tried => anstream::eprintln!("{pipeline}: generation {generation} is on trial"),
        Told::Active { generation } => anstream::eprintln!("{pipeline}: generation {generation} is active"),
    }
}
