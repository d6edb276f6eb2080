//! The generations of a pipeline, and from which offset on each ran.

use super::{Answer, Failure, deployment, print};
use crate::fleet::{Control, Generation};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub fn history(control: &Control, name: &str) -> Result<Answer, Failure> {
    let known = deployment(control, name, true)?;
    let active = known.active().map(|generation| generation.number);
    let on_trial = known.head.as_ref().and_then(|head| head.trial.as_ref()).map(|trial| trial.generation);
    let none = BTreeMap::new();
    let cuts = |generation: &Generation| known.cuts.get(&generation.number).unwrap_or(&none);
    let json = {
        let one = |generation: &Generation| {
            let cuts: Vec<_> = cuts(generation).iter().map(|(at, cut)| print::cut(at, cut)).collect();
            json!({
                "generation": generation.number,
                "base": generation.base,
                "kind": generation.kind,
                "class": generation.class,
                "digest": generation.digest,
                "at": generation.at,
                "by": generation.by,
                "active": active == Some(generation.number),
                "withdrawn": generation.withdrawn,
                "plugins": generation.plugins,
                "cuts": cuts,
            })
        };
        let generations: Vec<_> = known.generations.values().map(one).collect();
        json!({ "pipeline": name, "generations": generations })
    };
    let mut text = String::new();
    for generation in known.generations.values() {
        let standing = match (&generation.withdrawn, active == Some(generation.number)) {
            (Some(why), _) => format!("withdrawn: {why}"),
            (None, true) => "active".to_owned(),
            (None, false) if on_trial == Some(generation.number) => "on trial".to_owned(),
            (None, false) if known.next().is_some_and(|next| next.number == generation.number) => "being prepared".to_owned(),
            (None, false) => "past".to_owned(),
        };
        let _ = writeln!(
            text,
            "{} {} {} ({}, {}) by {}: {standing}",
            generation.number,
            print::time(generation.at),
            generation.kind,
            generation.class.name(),
            generation.digest,
            generation.by
        );
        let _ = write!(text, "{}", print::cuts(cuts(generation)));
    }
    Ok(Answer { json, text })
}
