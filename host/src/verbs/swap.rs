//! Another plugin for one stage of what is deployed.

use super::deploy::{Candidate, How};
use super::{Answer, Failure, Means, active, bundle};
use crate::fleet::bundle::Component;
use crate::fleet::{Control, Kind};

/// `written`: how the plugin is named in the manifest from now on, a path or a standard plugin.
pub fn swap(
    control: &mut Control,
    name: &str,
    stage: &str,
    (written, component): (&str, Component),
    how: &How,
    means: &Means<'_>,
) -> Result<Answer, Failure> {
    let base = active(control, name)?;
    let bundle = bundle(control, &base)?;
    let bundle = bundle.with_plugin(stage, written, component).map_err(anyhow::Error::msg)?;
    let loaded = bundle.pipeline(means.loader)?;
    let log = control.log().clone();
    let candidate = Candidate { bundle, loaded, kind: Kind::Swap { stage: stage.to_owned() } };
    candidate.go(Some(control), Some(&*log), how, means)
}
