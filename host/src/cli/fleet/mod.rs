//! Commands that steer a fleet: they read and write its control topic, and ask no host.

pub mod canary;
pub mod deploy;
pub mod history;
mod print;
pub mod replay;
pub mod reset;
pub mod rollback;
pub mod status;
pub mod steer;
pub mod swap;
pub mod why;

use super::{Context, Exit, Failure};
use crate::fleet::bundle::{Bundle, Component};
use crate::fleet::{self, ComponentRef, Control, ControlError, Deployment, Generation, Refusal, RolloutError, State, View};
use crate::io::Log;
use crate::manifest::Loaded;
use crate::plugin::Loader;
use std::sync::Arc;

/// Which fleet is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Fleet {
    /// The fleet: hosts and commands that share brokers (or a data folder) and this name
    #[arg(long, env = "MILLSTREAM_FLEET", value_name = "NAME", default_value = fleet::DEFAULT, value_parser = name)]
    pub fleet: String,
}

fn name(text: &str) -> Result<String, String> {
    fleet::check_name(text).map(|()| text.to_owned())
}

impl Fleet {
    /// The log, if there is one: who only looks makes no data folder.
    fn log(&self, context: &Context) -> Result<Option<Arc<dyn Log>>, Failure> {
        Ok(super::check::reachable_log(context)?)
    }

    /// The control topic, read to its end.
    fn open(&self, context: &Context) -> Result<Control, Failure> {
        let none = || failed(ControlError::NoFleet { fleet: self.fleet.clone() });
        let log = self.log(context)?.ok_or_else(none)?;
        let mut control = Control::open(log, &self.fleet, context.global.cache_folder().as_deref()).map_err(failed)?;
        control.refresh()?;
        tell_aside(control.view());
        Ok(control)
    }

    /// The log, if there is one, and the control topic, if there is such a fleet.
    fn find(&self, context: &Context) -> Result<(Option<Arc<dyn Log>>, Option<Control>), Failure> {
        let Some(log) = self.log(context)? else { return Ok((None, None)) };
        match Control::open(log.clone(), &self.fleet, context.global.cache_folder().as_deref()) {
            Ok(mut control) => {
                control.refresh()?;
                tell_aside(control.view());
                Ok((Some(log), Some(control)))
            }
            Err(ControlError::NoFleet { .. }) => Ok((Some(log), None)),
            Err(error) => Err(failed(error)),
        }
    }

    /// The same; begins the fleet if there is none.
    fn begin(&self, log: Arc<dyn Log>, context: &Context) -> Result<Control, Failure> {
        let mut control = Control::create(log, &self.fleet, context.global.cache_folder().as_deref()).map_err(failed)?;
        control.refresh()?;
        tell_aside(control.view());
        Ok(control)
    }
}

/// What could not be understood is told, for it may be a newer program's.
fn tell_aside(view: &View) {
    if let Some(last) = view.aside.back() {
        let many = if view.set_aside == 1 { "a record".to_owned() } else { format!("{} records", view.set_aside) };
        anstream::eprintln!(
            "note: {many} of the control topic cannot be understood, the last at offset {} (`{}`): {}",
            last.offset,
            last.key,
            last.why
        );
    }
}

fn failed(error: ControlError) -> Failure {
    match error {
        ControlError::Log(error) => error.into(),
        ControlError::Refused(Refusal::Conflict(_)) => Failure { exit: Exit::Conflict, error: error.into() },
        error => Failure { exit: Exit::Failure, error: error.into() },
    }
}

fn rollout_failed(error: RolloutError) -> Failure {
    let exit = match error {
        RolloutError::Control(error) => return failed(error),
        RolloutError::Refused { .. } | RolloutError::Fails { .. } => Exit::Refused,
        RolloutError::Late { .. } => Exit::Timeout,
        RolloutError::Clocks { .. } => Exit::Failure,
        RolloutError::Interrupted { .. } => Exit::Interrupted,
    };
    Failure { exit, error: error.into() }
}

fn denied(message: String) -> Failure {
    Failure { exit: Exit::Denied, error: anyhow::Error::msg(message) }
}

/// A pipeline of the fleet; deleted ones only if `deleted`.
fn deployment<'a>(control: &'a Control, pipeline: &str, deleted: bool) -> anyhow::Result<&'a Deployment> {
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
    anyhow::bail!("the pipeline `{pipeline}` {was} in the fleet `{}`; {hint}", control.fleet())
}

/// The active generation of a pipeline. Err: there is none, in words.
fn active(control: &Control, pipeline: &str) -> anyhow::Result<Generation> {
    let known = deployment(control, pipeline, false)?;
    let none = || anyhow::anyhow!("no generation of `{pipeline}` is active yet; `millstream history {pipeline}` shows what was tried");
    known.active().cloned().ok_or_else(none)
}

/// What a generation carries, out of the control topic.
fn bundle(control: &mut Control, generation: &Generation) -> anyhow::Result<Bundle> {
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
fn loaded(control: &mut Control, generation: &Generation, loader: &dyn Loader) -> Result<(Bundle, Loaded), Failure> {
    let bundle = bundle(control, generation)?;
    let loaded = bundle.pipeline(loader)?;
    Ok((bundle, loaded))
}

/// A component that is named on the command line: a file's, relative to where the command is called, or a standard plugin's.
fn component(written: &str, loader: &dyn Loader) -> anyhow::Result<Component> {
    use anyhow::Context as _;
    let bytes: std::borrow::Cow<'static, [u8]> = if crate::manifest::is_path(written) {
        std::fs::read(written).with_context(|| format!("cannot read {written}; `millstream build` makes the component of a plugin"))?.into()
    } else {
        let names = crate::plugin::standard::NAMES.join(", ");
        let found = crate::plugin::standard::component(written);
        found
            .with_context(|| {
                format!(
                    "there is no standard plugin `{written}`; there are {names}; a plugin of your own is a path such as ./{written}.wasm"
                )
            })?
            .into()
    };
    let plugin = loader.load(&bytes).with_context(|| format!("{written} cannot be used"))?;
    Ok(Component::new(bytes, plugin.about()))
}
