//! Commands that steer a fleet: they read and write its control topic, and ask no host.

pub mod deploy;
pub mod history;
pub mod promote;
pub mod replay;
pub mod reset;
pub mod rollback;
mod row;
pub mod status;
pub mod steer;
pub mod swap;
pub mod why;

use super::{Context, Failure, Output, stop};
use crate::fleet::bundle::Component;
use crate::fleet::{self, Control, ControlError, Told, View};
use crate::io::Log;
use crate::plugin::Loader;
use crate::verbs::{Answer, Caller, Step, failed, print};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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

/// Prints what something came to.
fn show(context: &Context, answer: &Answer) {
    match context.global.output {
        Output::Json => println!("{}", answer.json),
        Output::Text => anstream::print!("{}", answer.text),
    }
}

/// Whoever calls the command.
struct Terminal {
    output: Output,
}

impl Terminal {
    fn of(context: &Context) -> Self {
        Self { output: context.global.output }
    }
}

impl Caller for Terminal {
    fn by(&self) -> String {
        fleet::by()
    }

    fn stop(&self) -> anyhow::Result<Arc<AtomicBool>> {
        stop::on_signals(self.output)
    }

    fn tell(&self, step: &Step<'_>) {
        match step {
            Step::Compared { pipeline, base, diff } if self.output == Output::Text => {
                anstream::print!("{}", print::diff(diff, pipeline, *base));
            }
            Step::Compared { .. } => {}
            Step::Rollout { pipeline, tried, told } => tell(pipeline, *tried, told),
        }
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
        Told::Empties { generation, topics } => anstream::eprintln!(
            "{pipeline}: nothing more is taken of the sources until generation {generation} runs; being emptied: {}",
            topics.join(", ")
        ),
        Told::Active { generation } if tried => anstream::eprintln!("{pipeline}: generation {generation} is on trial"),
        Told::Active { generation } => anstream::eprintln!("{pipeline}: generation {generation} is active"),
    }
}
