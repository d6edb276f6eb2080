//! How a pipeline becomes the active generation: what deploying, swapping and rolling back share.

use super::{Answer, Exit, Failure, Means, Step, check_log, denied, loaded, print, rollout_failed, trial};
use crate::clock::SystemClock;
use crate::fleet::bundle::Bundle;
use crate::fleet::diff::{Diff, counts, diff};
use crate::fleet::emptied;
use crate::fleet::{Class, Control, Ended, Generation, Kind, Mode, Rollout};
use crate::io::{Log, TopicPartition};
use crate::manifest::Loaded;
use crate::pipeline::Pipeline;
use crate::plugin::Loader;
use serde_json::{Value, json};
use std::time::Duration;

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
    pub dry_run: bool,
    #[command(flatten)]
    trial: trial::Terms,
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
    fn compare(
        &self,
        control: Option<&mut Control>,
        log: Option<&dyn Log>,
        loader: &dyn Loader,
    ) -> Result<(Diff, Option<(Generation, Pipeline)>), Failure> {
        let new = &self.loaded.pipeline;
        let count = |pipeline, as_made| log.map_or_else(|| Ok(Default::default()), |log| counts(pipeline, log, as_made));
        let new_counts = count(new, true)?;
        let mut alone = diff(None, (new, &new_counts));
        let Some(control) = control else { return Ok((alone, None)) };
        let known = control.view().pipeline(&new.name);
        let base = known.and_then(|known| known.active()).cloned();
        // It was deleted, and its positions and state are still there, but for state that was emptied since.
        let left = known.and_then(|known| known.ran_before(u64::MAX).filter(|ran| ran.number >= known.epoch())).cloned();
        let Some(old) = base.as_ref().or(left.as_ref()) else { return Ok((alone, None)) };
        let number = old.number;
        let (_, old) = loaded(control, old, loader)?;
        let old_counts = count(&old.pipeline, false)?;
        let compared = diff(Some((&old.pipeline, &old_counts)), (new, &new_counts));
        if let Some(base) = base {
            return Ok((compared, Some((base, old.pipeline))));
        }
        if compared.class == Class::New {
            alone.left = Some(format!(
                "positions and state of generation {number}, which was deleted, are still there: {}",
                compared.reasons.join("; ")
            ));
        }
        Ok((alone, None))
    }

    /// What it would change.
    pub fn diff(&self, control: Option<&mut Control>, log: Option<&dyn Log>, loader: &dyn Loader) -> Result<Answer, Failure> {
        let (found, base) = self.compare(control, log, loader)?;
        let base = base.map(|(base, _)| base);
        let name = &self.loaded.pipeline.name;
        let text = print::diff(&found, name, base.as_ref().map_or(0, |base| base.number));
        Ok(Answer { json: told_json(name, base.as_ref(), &found), text })
    }

    /// Checks it against the log and the active generation, tells what it changes, and brings it about. Without a log or a fleet, as in a dry run, nothing
    /// is changed.
    pub fn go(&self, mut control: Option<&mut Control>, log: Option<&dyn Log>, how: &How, means: &Means<'_>) -> Result<Answer, Failure> {
        let name = &self.loaded.pipeline.name;
        self.bundle.check_size().map_err(anyhow::Error::msg)?;
        if let Some(log) = log {
            check_log(&self.loaded, log, means.kafka)?;
        }
        let (found, base) = self.compare(control.as_deref_mut(), log, means.loader)?;
        let (base, old) = base.unzip();
        if let Some(base) = base.as_ref().filter(|base| base.digest == self.bundle.digest()) {
            return Ok(Answer {
                json: json!({ "pipeline": name, "state": "unchanged", "generation": base.number, "digest": base.digest }),
                text: format!("{name}: unchanged, generation {} has the same content ({})\n", base.number, base.digest),
            });
        }
        let number = base.as_ref().map_or(0, |base| base.number);
        means.caller.tell(&Step::Compared { pipeline: name, base: number, diff: &found });
        self.refuse(&found, base.as_ref(), how)?;
        let mut told = told_json(name, base.as_ref(), &found);
        let (Some(control), Some(log), false) = (control, log, how.dry_run) else {
            told["state"] = "dry_run".into();
            return Ok(Answer { json: told, text: String::new() });
        };
        let trial = how.trial.mode(&self.loaded.pipeline, log, &found, old.as_ref())?;
        let mut partitions = Vec::new();
        for source in &self.loaded.pipeline.sources {
            let count = log.topic(&source.topic)?.map_or(0, |topic| topic.partitions);
            partitions.extend((0..count).map(|partition| TopicPartition::new(source.topic.clone(), partition)));
        }
        let empties = match &old {
            Some(old) if !found.empties.is_empty() => emptied::levels(old, log)?,
            _ => Vec::new(),
        };
        let rollout = Rollout {
            empties,
            pipeline: name.clone(),
            bundle: self.bundle.clone(),
            kind: self.kind.clone(),
            class: found.class,
            base: number,
            timeout: Duration::from_secs(how.timeout),
            partitions,
            trial: trial.clone(),
            by: means.caller.by(),
        };
        let stop = means.caller.stop()?;
        let mut tell = |told| means.caller.tell(&Step::Rollout { pipeline: name, tried: trial.is_some(), told: &told });
        let ended = rollout.run(control, &SystemClock::default(), &stop, &mut tell).map_err(rollout_failed)?;
        self.ended(ended, trial.as_ref(), told)
    }

    /// What is not done without being allowed, or not under this name.
    fn refuse(&self, found: &Diff, base: Option<&Generation>, how: &How) -> Result<(), Failure> {
        let name = &self.loaded.pipeline.name;
        if let Some(left) = &found.left {
            return Err(denied(format!("`{name}` cannot go on from what is there: {left}. Give the pipeline another name")));
        }
        let Some(base) = base else { return Ok(()) };
        if found.class == Class::New {
            return Err(denied(format!(
                "generation {} of `{name}` runs, and this cannot take its place: {}. Give the pipeline another name",
                base.number,
                found.reasons.join("; ")
            )));
        }
        // What an earlier generation had was allowed when it was deployed; what rows are like now is another matter.
        if let Kind::Rollback { of } = self.kind {
            return match &found.undoes {
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

    fn ended(&self, ended: Ended, trial: Option<&Mode>, mut told: Value) -> Result<Answer, Failure> {
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
                        format!("{name}: generation {generation} is on trial: {}\n{}", trial::told(mode), print::cuts(cuts))
                    }
                };
                if !outstanding.is_empty() {
                    let places = outstanding.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(", ");
                    line.push_str(&format!("  not begun yet, as no record came since: {places}; see `millstream history {name}`\n"));
                }
                told["cuts"] = cuts.iter().map(|(at, cut)| print::cut(at, cut)).collect();
                told["outstanding"] = outstanding.iter().map(|at| json!({ "topic": *at.topic, "partition": at.partition })).collect();
                (*generation, "running", line)
            }
            Ended::Outstanding { generation, hosts } => {
                let error = anyhow::anyhow!(
                    "generation {generation} of `{name}` is active, but these hosts have not said that they run it: {}; see `millstream status {name}`",
                    hosts.join(", ")
                );
                return Err(Failure { exit: Exit::Timeout, error });
            }
        };
        told["generation"] = generation.into();
        told["state"] = state.into();
        Ok(Answer { json: told, text: line })
    }
}
