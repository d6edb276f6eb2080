//! Trials: a canary begins in some partitions, a generation in the shadow is only compared. The terms under which a generation is tried, and how a trial ends.

use super::{Answer, Caller, Exit, Failure, denied, deployment, failed, print};
use crate::clock::SystemClock;
use crate::fleet::diff::Diff;
use crate::fleet::trial::{self, share_of};
use crate::fleet::{Class, Control, Mode, Terms as Judged};
use crate::io::{Clock, Log};
use crate::manifest::parse_duration;
use crate::pipeline::Pipeline;
use crate::runtime;
use crate::share::Keys;
use crate::task::{division, shadow};
use serde_json::json;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Terms {
    /// Begin in some partitions only: a share of them as in 25%, or their numbers as in 0,3. Or for a share of the keys of every partition, as in keys=10%. Hosts
    /// roll it back by themselves if it does worse than what runs beside it, and promote it after a while if not
    #[arg(long, value_name = "PARTITIONS", value_parser = chosen)]
    canary: Option<Chosen>,
    /// How long a canary must do well before it is promoted, as in 10m; `never`: until `millstream promote`
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = after, requires = "canary")]
    promote_after: After,
    /// How much more of a canary's records may be refused than beside it, as a share of them
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share, requires = "canary")]
    max_errors: f64,
    /// How many times as long a record may take a canary as what runs beside it
    #[arg(long, value_name = "TIMES", value_parser = times, requires = "canary")]
    max_slowdown: Option<f64>,
    /// Of how many of a canary's records something else may come than of the generation beside it, as a share of them: that one runs over the canary's
    /// partitions too, and what it gives is compared and dropped
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "canary")]
    max_differences: Option<f64>,
    /// Run beside what runs, over its state, and compare: nothing of it is written. `millstream status` tells what differs
    #[arg(long, conflicts_with = "canary")]
    shadow: bool,
    /// Promote what is in the shadow after so many records in a row without a difference [default: by `millstream promote`]
    #[arg(long, value_name = "N", requires = "shadow", value_parser = clap::value_parser!(u64).range(1..))]
    promote_after_records: Option<u64>,
}

#[derive(Clone, Debug)]
enum Chosen {
    Share(f64),
    Keys(Keys),
    Numbers(BTreeSet<i32>),
}

/// Milliseconds; None = never.
#[derive(Clone, Copy, Debug, Default)]
struct After(Option<i64>);

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| "expected a share as in 0.5%".to_owned())
}

fn chosen(text: &str) -> Result<Chosen, String> {
    if let Some(keys) = text.strip_prefix("keys=") {
        let keys = Keys::of_share(share(keys)?);
        return keys.map(Chosen::Keys).ok_or_else(|| "a canary has some of the keys, and never all, as in keys=10%".to_owned());
    }
    if text.ends_with('%') {
        let some = share(text)?;
        return (some > 0.0).then_some(Chosen::Share(some)).ok_or_else(|| "a canary has some of the partitions, as in 25%".to_owned());
    }
    let numbers = text.split(',').map(|number| number.trim().parse::<i32>().ok().filter(|number| *number >= 0)).collect::<Option<_>>();
    numbers.map(Chosen::Numbers).ok_or_else(|| {
        "expected a share of the partitions as in 25%, numbers of partitions as in 0,3, or a share of the keys as in keys=10%".to_owned()
    })
}

fn after(text: &str) -> Result<After, String> {
    if text == "never" {
        return Ok(After(None));
    }
    let time = parse_duration(text)?;
    Ok(After(Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))))
}

fn times(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|times| *times >= 1.0 && times.is_finite())
        .ok_or_else(|| "expected a number of at least 1, as in 2.5".to_owned())
}

impl Terms {
    /// How the generation is to be tried, if it is. Err: why it cannot be.
    pub fn mode(&self, pipeline: &Pipeline, log: &dyn Log, found: &Diff, base: Option<&Pipeline>) -> Result<Option<Mode>, Failure> {
        if self.canary.is_none() && !self.shadow {
            return Ok(None);
        }
        let name = &pipeline.name;
        let Some(base) = base else {
            return Err(denied(format!(
                "nothing of `{name}` runs yet: a trial stands beside a generation; leave --canary and --shadow out"
            )));
        };
        if found.class == Class::Hot && !runtime::can_turn(base, pipeline) {
            return Err(denied(format!(
                "tasks of `{name}` cannot turn to this where they stand: tables, repartition topics or stores stand in another order; leave --canary and --shadow out"
            )));
        }
        if found.class != Class::Hot {
            return Err(denied(format!(
                "this change is `{}`, and only what can be taken over task by task can be tried: {}; leave --canary and --shadow out",
                found.class.name(),
                found.reasons.join("; ")
            )));
        }
        let Some(chosen) = &self.canary else {
            if let Some(why) = shadow::refusal(pipeline) {
                return Err(denied(format!("`{name}` can have no generation in the shadow: {why}; leave --shadow out")));
            }
            return Ok(Some(Mode::Shadow { clean: self.promote_after_records }));
        };
        if let Some(why) = &found.irreversible {
            return Err(denied(format!("a canary must be able to be rolled back, and this change is not: {why}; leave --canary out")));
        }
        if self.max_differences.is_some()
            && let Some(why) = shadow::refusal(base).or_else(|| shadow::refusal(pipeline))
        {
            return Err(denied(format!("what a canary of `{name}` gives cannot be compared: {why}; leave --max-differences out")));
        }
        let terms = Judged {
            promote_after: self.promote_after.0,
            errors: self.max_errors,
            slower: self.max_slowdown,
            differences: self.max_differences,
        };
        let partitions = runtime::partitions_read(pipeline, log)?.unwrap_or(1);
        if let Chosen::Keys(keys) = chosen {
            if let Some(why) = division::refusal(base, pipeline) {
                return Err(denied(format!("`{name}` cannot be tried for some keys: {why}; try it in some partitions (--canary 25%)")));
            }
            if self.max_differences.is_some() {
                return Err(denied(format!(
                    "what a canary of `{name}` gives for some keys is not compared: leave --max-differences out, or try it in some partitions (--canary 25%)"
                )));
            }
            let mut most = partitions;
            for source in &pipeline.sources {
                most = most.max(log.topic(&source.topic)?.map_or(0, |topic| topic.partitions));
            }
            return Ok(Some(Mode::Canary { partitions: (0..most).collect(), keys: Some(*keys), terms }));
        }
        for source in &pipeline.sources {
            let count = log.topic(&source.topic)?.map_or(partitions, |topic| topic.partitions);
            if count != partitions {
                return Err(denied(format!(
                    "a canary has the tasks of some partition numbers, but `{}` has {count} partitions and others have {partitions}: it would have all of one and \
                     nothing of the other; leave --canary out, or try it by --shadow",
                    source.topic
                )));
            }
        }
        let numbers = match chosen {
            Chosen::Share(share) => share_of(partitions, *share).unwrap_or_default(),
            Chosen::Numbers(numbers) => numbers.clone(),
            Chosen::Keys(_) => BTreeSet::new(),
        };
        if let Some(beyond) = numbers.iter().find(|number| !(0..partitions).contains(*number)) {
            return Err(denied(format!("`{name}` reads partitions 0 to {}: there is no partition {beyond}", partitions - 1)));
        }
        if numbers.is_empty() || numbers.len() >= partitions as usize {
            return Err(denied(format!(
                "`{name}` reads partitions 0 to {}: a canary has at least one of them and never all; leave --canary out where there is but one",
                partitions - 1
            )));
        }
        Ok(Some(Mode::Canary { partitions: numbers, keys: None, terms }))
    }
}

/// For people: where it is, and what becomes of it.
pub fn told(mode: &Mode) -> String {
    let (partitions, keys, terms) = match mode {
        Mode::Canary { partitions, keys, terms } => (partitions, keys, terms),
        Mode::Shadow { clean: Some(clean) } => return format!("in the shadow; promoted after {clean} records without a difference"),
        Mode::Shadow { clean: None } => return "in the shadow; promoted by `millstream promote`".to_owned(),
    };
    let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
    let place = keys.map_or_else(|| format!("partitions {}", numbers.join(", ")), |keys| keys.to_string());
    let after = match terms.promote_after {
        Some(after) => format!("promoted after {}", print::span(after)),
        None => "promoted by `millstream promote`".to_owned(),
    };
    let slower = terms.slower.map(|slower| format!(", or a record takes {slower} times as long")).unwrap_or_default();
    let differs = |share: f64| format!(", or of more than {} % of them something else comes", 100.0 * share);
    let differs = terms.differences.map(differs).unwrap_or_default();
    format!("{place}; {after}, rolled back if {} % more of its records are refused than beside it{slower}{differs}", 100.0 * terms.errors)
}

/// The generation on trial of a pipeline.
pub fn on_trial(control: &Control, pipeline: &str) -> Option<u64> {
    trial::of(control.view(), pipeline).map(|(.., trial)| trial.generation)
}

/// Lets the generation on trial work in every partition.
pub fn promote(control: &mut Control, name: &str, caller: &dyn Caller) -> Result<Answer, Failure> {
    deployment(control, name, false)?;
    let generation = on_trial(control, name).ok_or_else(|| {
        Failure::new(Exit::Failure, format!("no generation of `{name}` is on trial; `millstream status {name}` shows what runs"))
    })?;
    let done = trial::promote(control, name, generation, SystemClock::default().now(), &caller.by()).map_err(failed)?;
    if !done {
        return Err(over(name, generation));
    }
    let line = format!("`{name}`: generation {generation} is promoted: it is to work in every partition\n");
    Ok(answer(name, generation, "promoted", line))
}

/// Rolling back while a generation is on trial.
pub fn roll_back(control: &mut Control, name: &str, generation: u64, caller: &dyn Caller) -> Result<Answer, Failure> {
    let by = caller.by();
    let reason = format!("by {by}");
    let number = trial::roll_back(control, name, generation, &reason, SystemClock::default().now(), &by).map_err(failed)?;
    let Some(number) = number else { return Err(over(name, generation)) };
    let line = format!(
        "`{name}`: generation {generation}, on trial, is rolled back: what ran beside it works in every partition, as generation {number}\n"
    );
    Ok(answer(name, number, "rolled_back", line))
}

fn over(name: &str, generation: u64) -> Failure {
    let message = format!("the trial of generation {generation} of `{name}` was ended meanwhile; see `millstream history {name}`");
    Failure::new(Exit::Conflict, message)
}

fn answer(name: &str, generation: u64, state: &str, text: String) -> Answer {
    Answer { json: json!({ "pipeline": name, "generation": generation, "state": state }), text }
}
