//! Trials among the swaps: canaries in some partitions and shadows, each of which ends by a command or by itself, for better or for worse.

use super::{Deployed, Disturbance, PATIENCE, Step, Suite};
use crate::pipelines::crash_suite::host::Host;
use crate::pipelines::crash_suite::topics::PARTITIONS;
use crate::pipelines::{text, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Output};
use std::time::Instant;

/// How a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Promoted,
    RolledBack,
    /// It has done well for a while; one in the shadow gives the same as what works.
    PromotedByItself,
    /// It stops at a record, or gives something else.
    RolledBackByItself,
}

pub const ENDS: [End; 4] = [End::Promoted, End::RolledBack, End::PromotedByItself, End::RolledBackByItself];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    Canary(End),
    /// For some keys of every partition.
    Keys(End),
    Shadow(End),
}

impl Trial {
    pub fn name(self) -> &'static str {
        match self {
            Self::Canary(End::Promoted) => "canary; promoted",
            Self::Canary(End::RolledBack) => "canary; rolled back",
            Self::Canary(End::PromotedByItself) => "canary; promoted by itself",
            Self::Canary(End::RolledBackByItself) => "canary; rolled back by itself",
            Self::Keys(End::Promoted) => "canary by keys; promoted",
            Self::Keys(End::RolledBack) => "canary by keys; rolled back",
            Self::Keys(End::PromotedByItself) => "canary by keys; promoted by itself",
            Self::Keys(End::RolledBackByItself) => "canary by keys; rolled back by itself",
            Self::Shadow(End::Promoted) => "shadow; promoted",
            Self::Shadow(End::RolledBack) => "shadow; rolled back",
            Self::Shadow(End::PromotedByItself) => "shadow; promoted by itself",
            Self::Shadow(End::RolledBackByItself) => "shadow; rolled back by itself",
        }
    }

    fn end(self) -> End {
        match self {
            Self::Canary(end) | Self::Keys(end) | Self::Shadow(end) => end,
        }
    }

    /// The same, so that surely every host has a cut-over to tell when it ends: of one that is promoted, partitions of the canary have none.
    pub fn cutting_everywhere(self) -> Self {
        match self {
            Self::Canary(_) => Self::Canary(End::RolledBack),
            Self::Keys(_) => Self::Keys(End::RolledBack),
            Self::Shadow(_) => Self::Shadow(End::Promoted),
        }
    }

    fn is_canary(self) -> bool {
        !matches!(self, Self::Shadow(_))
    }
}

impl Suite {
    /// A generation is tried, and that ends. Answers the host that joined meanwhile.
    pub fn try_out(&mut self, trial: Trial, disturbance: Option<Disturbance>, host: usize) -> Option<Host> {
        let base = *self.deployed.last_key_value().expect("something is deployed").0;
        let by_itself = matches!(trial.end(), End::PromotedByItself | End::RolledBackByItself);
        let early = disturbance != Some(Disturbance::KillAtCut) && (by_itself || self.random.below(2) == 0);
        let (early, late) = if early { (disturbance, None) } else { (None, disturbance) };

        let share = if matches!(trial, Trial::Keys(_)) { (0..PARTITIONS).collect() } else { self.share() };
        let (command, next) = self.begin_trial(trial, &share);
        let mut guest = early.and_then(|disturbance| self.disturb(disturbance, host));
        let output = command.wait_with_output().unwrap();
        let generation = self.tried(trial, &output);
        if trial.is_canary() {
            self.tried.insert(generation, next);
        }
        match trial {
            _ if by_itself => {}
            Trial::Canary(_) | Trial::Keys(_) => {
                until("the canary's partitions are cut over", || self.cut_over(generation, &share));
                self.goes_on();
            }
            Trial::Shadow(_) => self.compares(generation),
        }

        let all = (0..PARTITIONS).collect();
        let active = match trial.end() {
            End::Promoted | End::RolledBack => {
                if late == Some(Disturbance::KillAtCut) {
                    self.restart_to_die_at_cut(host);
                }
                let verb = if trial.end() == End::Promoted { "promote" } else { "rollback" };
                let command = self.spawn(&[verb, "NAME"]);
                guest = guest.or(late.and_then(|disturbance| self.disturb(disturbance, host)));
                let output = command.wait_with_output().unwrap();
                let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
                answer["generation"].as_u64().unwrap_or_else(|| self.give_up(verb, &output))
            }
            End::PromotedByItself | End::RolledBackByItself => self.ended_by_itself(generation),
        };
        let expected = match trial {
            _ if matches!(trial.end(), End::Promoted | End::PromotedByItself) => generation,
            Trial::Canary(_) | Trial::Keys(_) => generation + 1,
            Trial::Shadow(_) => base,
        };
        self.last = generation.max(active);
        if active != expected {
            self.verdict.violation(format!("{}: generation {active} is active instead of {expected}", trial.name()));
        }
        until("every partition is cut over", || self.cut_over(active, &all) && self.is_whole(active));
        if active == generation {
            self.tried.remove(&generation);
            self.deployed.insert(generation, next);
        } else if active != base {
            self.deployed.insert(active, self.deployed[&base]);
        }
        guest
    }

    /// Whether no partition is told to be the generation's for some keys alone.
    fn is_whole(&self, generation: u64) -> bool {
        let history = self.told(&["history", "NAME"]);
        let all = history["generations"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|one| one["generation"].as_u64() == Some(generation));
        one.and_then(|one| one["cuts"].as_array()).is_some_and(|cuts| cuts.iter().all(|cut| cut["keys"].is_null()))
    }

    /// Partition numbers for a canary: at least one, never all.
    fn share(&mut self) -> BTreeSet<i32> {
        let count = 1 + self.random.below(PARTITIONS as u64 - 1) as usize;
        let mut share = BTreeSet::new();
        while share.len() < count {
            share.insert(self.random.below(PARTITIONS as u64) as i32);
        }
        share
    }

    /// Calls the command that begins a trial, by any of those that can.
    fn begin_trial(&mut self, trial: Trial, share: &BTreeSet<i32>) -> (Child, Deployed) {
        let numbers = match trial {
            Trial::Keys(_) => format!("keys={}%", 10 * (1 + self.random.below(9))),
            _ => share.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
        };
        let mut how = match trial {
            Trial::Canary(End::PromotedByItself) | Trial::Keys(End::PromotedByItself) => {
                vec!["--canary", &numbers, "--promote-after", "2s"]
            }
            Trial::Canary(_) | Trial::Keys(_) => vec!["--canary", &numbers, "--promote-after", "never"],
            Trial::Shadow(End::PromotedByItself) => vec!["--shadow", "--promote-after-records", "300"],
            Trial::Shadow(_) => vec!["--shadow"],
        };
        how.extend(["--timeout", "90"]);
        let now = self.active();
        let compared = matches!(trial, Trial::Canary(_)) && self.random.below(2) == 0;
        if compared {
            // All of it differs.
            how.extend(["--max-differences", if trial.end() == End::RolledBackByItself { "10%" } else { "100%" }]);
        }
        match trial {
            Trial::Shadow(End::PromotedByItself) => {
                // The one before may have been put in other words, too.
                self.write_as(now, &format!("# In the words of {}.\n", self.last + 1));
                (self.spawn(&[&["deploy", "pipeline.yaml"][..], &how].concat()), now)
            }
            Trial::Keys(end) if end != End::RolledBackByItself => {
                // Rows of another version of the plugin may be of another type.
                let mut next = self.another(now.side);
                (next.content.list, next.content.group) = (now.content.list, now.content.group);
                self.write_as(next, "");
                (self.spawn(&[&["deploy", "pipeline.yaml"][..], &how].concat()), next)
            }
            Trial::Canary(End::RolledBackByItself) | Trial::Keys(_) | Trial::Shadow(End::RolledBackByItself) if !compared => {
                let mut next = self.another(now.side);
                if let Trial::Keys(_) = trial {
                    (next.content.list, next.content.group) = (now.content.list, now.content.group);
                }
                self.write_as(next, "");
                let file = self.place.path().join("pipeline.yaml");
                let manifest = std::fs::read_to_string(&file).unwrap();
                let number = next.content.config;
                // No record whose number can be divided by 50 has a value.
                let fails = manifest.replacen(&format!("'{number}'"), &format!("'{number} + 0 / (id % 50)'"), 1);
                std::fs::write(file, fails).unwrap();
                (self.spawn(&[&["deploy", "pipeline.yaml"][..], &how].concat()), next)
            }
            _ => {
                let alike: Vec<u64> = self.others().into_iter().filter(|number| self.deployed[number].side == now.side).collect();
                let step = match self.random.below(3) {
                    0 => Step::Deploy,
                    1 if !alike.is_empty() => Step::Rollback,
                    _ => Step::Swap,
                };
                self.begin_with(step, &alike, &how)
            }
        }
    }

    /// The number of the generation that a command has put on trial.
    fn tried(&mut self, trial: Trial, output: &Output) -> u64 {
        let next = self.last + 1;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match answer["generation"].as_u64().filter(|_| output.status.success()) {
            Some(generation) => {
                if answer["state"] != "running" || answer["diff"]["class"] != "hot" || generation != next {
                    let (said, told) = (text(&output.stdout), text(&output.stderr));
                    self.verdict.violation(format!("{}: not on trial as {}: {said}\n{told}", trial.name(), next));
                }
                generation
            }
            // It was over before the command had heard of every host that runs it.
            None if trial.end() == End::RolledBackByItself && text(&output.stderr).contains("rolled back") => next,
            None if trial.end() == End::RolledBackByItself && text(&output.stdout).contains("rolled back") => next,
            None => self.give_up(trial.name(), output),
        }
    }

    fn give_up(&self, what: &str, output: &Output) -> ! {
        panic!("{what}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    }

    /// Waits until hosts have told of differences: everything that is put in the shadow writes other numbers or versions.
    fn compares(&mut self, generation: u64) {
        let what = [self.place.named("NAME.lists"), self.place.named("NAME.groups")];
        let seen = |differences: &serde_json::Map<String, Value>| {
            differences.keys().any(|known| what.iter().any(|topic| known.starts_with(topic)))
        };
        until("the shadow is compared", || {
            // While a torn transaction holds positions, nobody is told of them.
            let status = self.told(&["status", "NAME"]);
            let pipeline = &status["pipelines"][0];
            let on = pipeline.is_null() || pipeline["trial"]["generation"].as_u64() == Some(generation);
            assert!(on, "the trial is over: {status}");
            pipeline["shadow"]["differences"].as_object().is_some_and(seen)
        });
    }

    /// Waits for the end of a trial that nobody ends. Answers the generation that is active then.
    fn ended_by_itself(&self, generation: u64) -> u64 {
        let since = Instant::now();
        loop {
            let pipeline = &self.told(&["status", "NAME"])["pipelines"][0];
            let active = pipeline["active"]["generation"].as_u64();
            if let (true, Some(active)) = (pipeline["trial"].is_null(), active) {
                return active;
            }
            assert!(since.elapsed() < PATIENCE, "the trial of generation {generation} does not end: {pipeline}");
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
    }
}
