//! What nobody asks for any more in a control topic: components of generations that are long gone by, and what hosts answered to those. Generations and their
//! cut-overs stay: they are the history, and small.

use super::record::{ComponentRef, Entry, Generation, Key};
use super::view::{Deployment, View};
use std::collections::{BTreeMap, BTreeSet};

/// Of each pipeline, the newest generations that were not withdrawn: one can go back to them.
pub const KEPT: usize = 20;

/// Tombstones for all of it. A component that several generations have, of whatever pipelines, stays as long as one of them is kept. `wanted`: of the
/// generation that is about to be written.
pub fn outdated<'v>(view: &'v View, wanted: impl IntoIterator<Item = &'v str>) -> Vec<Entry> {
    let mut needed: BTreeSet<&str> = wanted.into_iter().collect();
    let mut known: BTreeMap<&str, &ComponentRef> = BTreeMap::new();
    let mut entries = Vec::new();
    for (pipeline, deployment) in &view.pipelines {
        let kept = kept(deployment);
        for (number, generation) in &deployment.generations {
            let components = generation.plugins.values().map(|component| (&*component.digest, component));
            match kept.contains(number) {
                true => needed.extend(components.map(|(digest, _)| digest)),
                false => known.extend(components),
            }
        }
        let answers = deployment.answers.iter().filter(|(number, _)| !kept.contains(number));
        let hosts = answers.flat_map(|(number, hosts)| hosts.keys().map(|host| (*number, host)));
        entries.extend(hosts.map(|(number, host)| (Key::Answer(pipeline.clone(), number, host.clone()), None)));
    }
    let gone = known.into_iter().filter(|(digest, _)| !needed.contains(digest) && view.components.has(digest));
    let chunks = gone.flat_map(|(digest, component)| (0..component.chunks).map(|chunk| Key::Component(digest.to_owned(), chunk)));
    entries.extend(chunks.map(|key| (key, None)));
    entries
}

/// The generations that somebody may still ask for.
fn kept(known: &Deployment) -> BTreeSet<u64> {
    let newest = known.generations.values().rev().filter(|generation| generation.withdrawn.is_none()).take(KEPT);
    let mut kept: BTreeSet<u64> = newest.map(|generation| generation.number).collect();
    // What works, what it replaced, what is on its way, and what a deployment behind a deletion would go on from.
    if let Some(head) = &known.head {
        kept.extend(
            [Some(head.generation), head.next.as_ref().map(|next| next.generation), head.trial.as_ref().map(|trial| trial.generation)]
                .into_iter()
                .flatten(),
        );
        kept.extend(known.generations.get(&head.generation).map(|generation| generation.base));
    }
    kept.extend(known.ran_before(u64::MAX).map(|ran: &Generation| ran.number));
    kept
}
