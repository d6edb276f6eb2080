//! What befalls the folders of hosts.

use super::worker::{Slot, start};
use super::{below, fleet};
use crate::simulation::world::with;
use crate::store::LocalMemory;
use std::sync::Arc;

/// Somebody deletes the folder of a host that does not run, or puts an old copy back; or makes a copy.
pub fn tamper() {
    fleet(|fleet| {
        with(|world| {
            let folder = world.random.below(world.folders.len());
            let runs = fleet.slots.iter().any(|slot| slot.folder == folder && slot.process.is_some());
            match world.random.below(4) {
                0 | 1 => fleet.copies.push((folder, world.folders[folder].copy())),
                2 if !runs => {
                    world.figures.copies += 1;
                    world.folders[folder] = LocalMemory::default();
                }
                3 if !runs => {
                    let own: Vec<_> = fleet.copies.iter().filter(|(of, _)| *of == folder).collect();
                    if !own.is_empty() {
                        world.figures.copies += 1;
                        world.folders[folder] = own[world.random.below(own.len())].1.copy();
                    }
                }
                _ => {}
            }
        });
    });
}

/// Another process starts with the name of one that runs, on a copy of its folder.
pub fn replace() {
    let slot = below(fleet(|fleet| fleet.slots.len()));
    let fits =
        fleet(|fleet| fleet.slots[slot].process.is_some() && !fleet.slots[slot].ghost && !fleet.shape.one_host && fleet.slots.len() < 4);
    if !fits {
        return;
    }
    let folder = with(|world| {
        world.figures.replaced += 1;
        let copy = world.folders[fleet(|fleet| fleet.slots[slot].folder)].copy();
        world.folders.push(copy);
        world.claims.push(Arc::default());
        world.folders.len() - 1
    });
    fleet(|fleet| {
        let old = &mut fleet.slots[slot];
        let new = Slot { folder, ..Slot::new((slot, 0)) };
        // The old one keeps its folder and goes on as long as it is let.
        let old = std::mem::replace(old, new);
        fleet.slots.push(Slot { ghost: true, ..old });
    });
    start(slot);
}
