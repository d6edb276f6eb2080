//! The content of an earlier generation, as a new one.

use super::deploy::{Candidate, How};
use super::{Answer, Exit, Failure, Means, NotThere, active, deployment, loaded, trial};
use crate::fleet::{Control, Kind};

/// To which generation, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Back {
    /// The generation whose content is to run again [default: the one before the active one; while one is on trial, what runs beside it]
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
    #[command(flatten)]
    how: How,
}

pub fn roll_back(control: &mut Control, name: &str, back: &Back, means: &Means<'_>) -> Result<Answer, Failure> {
    let base = active(control, name)?;
    if let Some(tried) = trial::on_trial(control, name).filter(|_| back.to.is_none()) {
        return trial::roll_back(control, name, tried, means.caller);
    }
    let to = back.to.unwrap_or(base.base);
    if to == 0 {
        let message = format!("generation {} of `{name}` is the first: there is none before it to go back to", base.number);
        return Err(Failure::new(Exit::Failure, message));
    }
    let of = deployment(control, name, false)?.generations.get(&to).cloned();
    let of = of.ok_or_else(|| NotThere(format!("`{name}` has no generation {to}; `millstream history {name}` shows those that are")))?;
    if let Some(why) = &of.withdrawn {
        return Err(Failure::new(Exit::Failure, format!("generation {to} of `{name}` was withdrawn and never ran: {why}")));
    }
    let (bundle, loaded) = loaded(control, &of, means.loader)?;
    let log = control.log().clone();
    Candidate { bundle, loaded, kind: Kind::Rollback { of: to } }.go(Some(control), Some(&*log), &back.how, means)
}
