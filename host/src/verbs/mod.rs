//! What can be asked of a fleet: the same from the command line and over HTTP. Each is a file; what it comes to is told as JSON for programs and in words
//! for people. They read and write the control topic, and ask no host.

mod check;
pub mod deploy;
mod failure;
mod history;
pub mod print;
mod rollback;
mod status;
mod steer;
mod swap;
pub mod trial;

pub use check::check_log;
pub use deploy::{Candidate, How};
pub use failure::{Exit, Failure};
pub use history::history;
pub use rollback::{Back, roll_back};
pub use status::status;
pub use steer::steer;
pub use swap::swap;
pub use trial::promote;

use crate::fleet::bundle::Bundle;
use crate::fleet::{ComponentRef, Control, ControlError, Deployment, Diff, Generation, Refusal, RolloutError, State, Told};
use crate::manifest::Loaded;
use crate::plugin::Loader;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What something came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As `--output json` prints it.
    pub json: Value,
    /// Lines for people, each with its end.
    pub text: String,
}

/// Whoever asks for something.
pub trait Caller {
    /// For the control topic: who it was.
    fn by(&self) -> String;
    /// Raised when it is to be given up. Asked for when something begins that can be.
    fn stop(&self) -> anyhow::Result<Arc<AtomicBool>>;
    /// What is told on the way.
    fn tell(&self, step: &Step<'_>);
}

/// What is told on the way.
#[derive(Debug)]
pub enum Step<'a> {
    /// It was compared with the active generation of this number; 0 = there is none.
    Compared { pipeline: &'a str, base: u64, diff: &'a Diff },
    /// It is on its way. `tried`: it goes on trial first.
    Rollout { pipeline: &'a str, tried: bool, told: &'a Told },
}

/// With what it is done.
pub struct Means<'a> {
    pub kafka: bool,
    pub loader: &'a dyn Loader,
    pub caller: &'a dyn Caller,
}

/// What was named is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotThere(pub String);

pub fn failed(error: ControlError) -> Failure {
    match error {
        ControlError::Log(error) => error.into(),
        ControlError::Refused(Refusal::Conflict(_)) => Failure { exit: Exit::Conflict, error: error.into() },
        error => Failure { exit: Exit::Failure, error: error.into() },
    }
}

pub fn rollout_failed(error: RolloutError) -> Failure {
    let exit = match error {
        RolloutError::Control(error) => return failed(error),
        RolloutError::Refused { .. } | RolloutError::Fails { .. } | RolloutError::TrialEnded { .. } => Exit::Refused,
        RolloutError::Late { .. } | RolloutError::Full { .. } => Exit::Timeout,
        RolloutError::Clocks { .. } => Exit::Failure,
        RolloutError::Interrupted { .. } => Exit::Interrupted,
    };
    Failure { exit, error: error.into() }
}

pub fn denied(message: String) -> Failure {
    Failure { exit: Exit::Denied, error: anyhow::Error::msg(message) }
}

/// A pipeline of the fleet; deleted ones only if `deleted`.
pub fn deployment<'a>(control: &'a Control, pipeline: &str, deleted: bool) -> anyhow::Result<&'a Deployment> {
    let view = control.view();
    let is = |known: &&Deployment| deleted || known.head.as_ref().is_none_or(|head| head.state != State::Deleted);
    if let Some(known) = view.pipeline(pipeline).filter(is) {
        return Ok(known);
    }
    let names: Vec<&str> = view.pipelines.iter().filter(|(_, known)| is(known)).map(|(name, _)| name.as_str()).collect();
    let near = names.iter().max_by(|one, other| strsim::jaro_winkler(pipeline, one).total_cmp(&strsim::jaro_winkler(pipeline, other)));
    let hint = match near.filter(|near| strsim::jaro_winkler(pipeline, near) > 0.75) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "nothing is deployed there yet; `millstream deploy FILE` does".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    let was = if view.pipeline(pipeline).is_some() { "was deleted" } else { "is not deployed" };
    let message = format!("the pipeline `{pipeline}` {was} in the fleet `{}`; {hint}", control.fleet());
    Err(NotThere(message).into())
}

/// The active generation of a pipeline. Err: there is none, in words.
pub fn active(control: &Control, pipeline: &str) -> anyhow::Result<Generation> {
    let known = deployment(control, pipeline, false)?;
    let none = || anyhow::anyhow!("no generation of `{pipeline}` is active yet; `millstream history {pipeline}` shows what was tried");
    known.active().cloned().ok_or_else(none)
}

/// What a generation carries, out of the control topic.
pub fn bundle(control: &mut Control, generation: &Generation) -> anyhow::Result<Bundle> {
    let fleet = control.fleet().to_owned();
    Bundle::of(generation, &mut |reference: &ComponentRef| {
        control.component(&reference.digest)?.ok_or_else(|| {
            anyhow::anyhow!(
                "the component {} {} ({}) of generation {} is not in the topic `{fleet}.control`: its chunks were deleted; deploy it again from its file",
                reference.name,
                reference.version,
                reference.digest.get(..8).unwrap_or_default(),
                generation.number
            )
        })
    })
}

/// A generation's bundle and checked pipeline.
pub fn loaded(control: &mut Control, generation: &Generation, loader: &dyn Loader) -> Result<(Bundle, Loaded), Failure> {
    let bundle = bundle(control, generation)?;
    let loaded = bundle.pipeline(loader)?;
    Ok((bundle, loaded))
}
