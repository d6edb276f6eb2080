//! Deployments that group by something else, as `fleet::rollout` brings them about: hosts are asked to take no more of the sources, and say when what they took
//! is committed; the repartition topics are looked at until they are empty; then the generation is made active, and each host ends its worker and begins
//! anew. Between any two of these steps hosts die and come back, and commands are killed or give up.

use super::{below, fleet, once_in, violate};
use crate::fleet::diff::{Counts, diff};
use crate::fleet::record::SKEW;
use crate::fleet::{Class, Head, Next, State, emptied};
use crate::io::{Clock, LogError, TopicPartition};
use crate::planted::{Mistake, planted};
use crate::runtime;
use crate::simulation::log::SimulatedLog;
use crate::simulation::workload::{self, Kind};
use crate::simulation::world::{Handle, Process, SimulatedClock, pass, say, with};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// So many generations at most: each is loaded as a pipeline of its own.
const MOST: u64 = 8;
/// How long a command waits, milliseconds.
const TIMEOUTS: [i64; 4] = [300, 600, 2000, 20_000];

/// What the control topic has said, and who writes it.
pub struct Regrouping {
    /// All heads, from the first on.
    pub heads: Vec<Head>,
    /// Which hosts have said `shut`, of which generation.
    shut: BTreeSet<(Arc<str>, u64)>,
    command: Option<Command>,
    /// The command is in the midst of a step.
    busy: bool,
    /// The highest generation that there was, active or not.
    pub highest: u64,
}

/// A deployment that is under way.
#[derive(Clone)]
struct Command {
    handle: Handle,
    next: Next,
    levels: Vec<Vec<TopicPartition>>,
    /// The topics were found empty.
    empty: bool,
}

fn head(generation: u64, next: Option<Next>) -> Head {
    Head { generation, next, trial: None, state: State::Running, change: String::new(), at: SimulatedClock.now(), by: String::new() }
}

impl Regrouping {
    pub fn new() -> Self {
        Self { heads: vec![head(1, None)], shut: BTreeSet::new(), command: None, busy: false, highest: 1 }
    }

    fn last(&self) -> &Head {
        self.heads.last().expect("there is a first one")
    }

    /// The active generation.
    pub fn active(&self) -> u64 {
        self.last().generation
    }

    /// That was active before another one was.
    pub fn ran_before(&self, generation: u64) -> Option<u64> {
        self.heads.iter().map(|head| head.generation).filter(|ran| *ran < generation).max()
    }

    /// The command takes its generation back.
    fn withdraw(&mut self) {
        self.command = None;
        self.heads.push(head(self.active(), None));
    }

    /// Nothing is on its way.
    pub fn is_over(&self) -> bool {
        self.command.is_none() && self.last().next.is_none()
    }
}

fn regrouping<T>(work: impl FnOnce(&mut Regrouping) -> T) -> Option<T> {
    fleet(|fleet| fleet.regrouping.as_mut().map(work))
}

/// A host that starts has read the control topic to its end: the generation that it begins with, and the stores that came with it, behind one that ran before.
pub fn heard_at_a_start(slot: usize) -> Option<(u64, (BTreeSet<String>, u64))> {
    let now = SimulatedClock.now();
    let (generation, before) = fleet(|fleet| {
        let (told, slot) = (fleet.regrouping.as_ref()?, &mut fleet.slots[slot]);
        slot.knows = told.heads.len() - 1;
        slot.generation = told.active();
        slot.monitor = Arc::default();
        slot.monitor.shut(told.last().shuts(now));
        Some((slot.generation, told.ran_before(slot.generation)))
    })?;
    let names = |generation| runtime::store_names(&workload::pipeline_of(Kind::Emptied, generation));
    let new = before.map(|ran| runtime::new_stores(&names(generation), &names(ran), ran));
    Some((generation, new.unwrap_or_default()))
}

/// A host hears what is new and does what it says, whatever its worker is doing. `last`: it hears all that was said.
pub fn tend(slot: usize, last: bool) {
    let (hears, falls_deaf) = (once_in(2), once_in(4));
    let now = SimulatedClock.now();
    fleet(|fleet| {
        let (Some(told), slot) = (&mut fleet.regrouping, &mut fleet.slots[slot]) else { return };
        if slot.process.is_none() || slot.ghost {
            return;
        }
        let end = told.heads.len() - 1;
        if now >= slot.deaf || fleet.calm {
            slot.knows = if last { end } else { end.min(slot.knows + usize::from(hears)) };
        }
        let opens = |head: &Head| head.next.is_some() && !head.shuts(now);
        if opens(&told.heads[slot.knows]) && !planted(Mistake::OpensUnheard) {
            // Before it takes of the sources again it makes sure that nothing came of the deployment.
            slot.knows = end;
        }
        let head = &told.heads[slot.knows];
        if slot.generation < head.generation {
            slot.stop.store(true, Ordering::Relaxed);
            return;
        }
        slot.monitor.shut(head.shuts(now));
        if let (true, Some(next)) = (head.shuts(now) && slot.monitor.is_quiet(), &head.next)
            && told.shut.insert((slot.name.clone(), next.generation))
        {
            say!("{} says shut for generation {}", slot.name, next.generation);
            if falls_deaf {
                // For so long the control topic is out of its reach that it would take of the sources again.
                slot.deaf = next.until + 2 * SKEW;
            }
        }
    });
}

/// A command does something, or a host.
pub fn happen() {
    if once_in(2) {
        return deploy(once_in(2));
    }
    let slot = below(fleet(|fleet| fleet.slots.len()));
    tend(slot, once_in(2));
    if once_in(4) && fleet(|fleet| SimulatedClock.now() < fleet.slots[slot].deaf) {
        pass(Duration::from_millis(SKEW as u64 / 4));
    }
}

/// A command begins, or goes on by a step. `begins`: if there is none, one may.
pub fn deploy(begins: bool) {
    let Some((busy, command)) = regrouping(|told| (std::mem::replace(&mut told.busy, true), told.command.clone())) else { return };
    if busy {
        return;
    }
    match command {
        Some(command) => go_on(command),
        None if begins => begin(),
        None => withdraw_left(),
    }
    regrouping(|told| told.busy = false);
}

fn begin() {
    let now = SimulatedClock.now();
    let possible = |told: &mut Regrouping| {
        let free = told.last().next.as_ref().is_none_or(|next| next.until.saturating_add(SKEW) < now);
        (free && told.highest < MOST).then_some((told.active(), told.highest + 1))
    };
    let Some((active, generation)) = regrouping(possible).flatten() else { return };
    let [old, new] = [active, generation].map(|generation| workload::pipeline_of(Kind::Emptied, generation));
    let found = diff(Some((&old, &Counts::new())), (&new, &Counts::new()));
    if !old_and_new_differ(active, generation) {
        // The topic and its grouping stay, and the lists alone are others: that empties nothing.
        regrouping(|told| told.highest = generation);
        return;
    }
    if found.class != Class::Drain || found.empties.is_empty() {
        violate(format!("generation {generation} behind {active} is of class {:?}, and empties {:?}", found.class, found.empties));
        return;
    }
    let handle = with(|world| {
        let name: Arc<str> = "command".into();
        world.processes.push(Process { name: name.clone(), folder: usize::MAX, dead: false, rival: false, joined: false });
        Handle { process: world.processes.len() - 1, name }
    });
    // Err: no host has made them yet, or no broker answers.
    let Ok(levels) = emptied::levels(&old, &SimulatedLog(handle.clone())) else { return };
    let now = SimulatedClock.now();
    let next = Next { generation, mode: found.class, until: now + TIMEOUTS[below(TIMEOUTS.len())], empties: true };
    say!("{handle}: generation {generation} is to take the place of {active}, until {}", next.until);
    regrouping(|told| {
        told.highest = generation;
        told.heads.push(head(active, Some(next.clone())));
        told.command = Some(Command { handle, next, levels, empty: false });
    });
}

/// Whether one that is to come groups by something else, or in another topic.
fn old_and_new_differ(old: u64, new: u64) -> bool {
    workload::stage_of(old) != workload::stage_of(new) || workload::grouped_by(old) != workload::grouped_by(new)
}

/// What a command left behind that was killed.
fn withdraw_left() {
    let now = SimulatedClock.now();
    regrouping(|told| {
        if told.last().next.as_ref().is_some_and(|next| next.until.saturating_add(SKEW) < now) {
            told.heads.push(head(told.active(), None));
        }
    });
}

fn go_on(mut command: Command) {
    let (Next { generation, until, .. }, handle) = (command.next.clone(), command.handle.clone());
    if once_in(60) && fleet(|fleet| !fleet.calm) {
        say!("{handle} is killed");
        regrouping(|told| told.command = None);
        return;
    }
    let now = SimulatedClock.now();
    let shut = all_shut(generation);
    // Its time is over, or somebody interrupts it.
    if now >= until || shut && once_in(8) && fleet(|fleet| !fleet.calm) {
        say!("{handle}: generation {generation} is withdrawn");
        with(|world| world.figures.withdrawn += 1);
        regrouping(|told| {
            // Found empty too late: hosts may take of the sources again, and nobody says so.
            if command.empty { told.command = None } else { told.withdraw() }
        });
        return;
    }
    if command.empty {
        say!("{handle}: generation {generation} is active");
        with(|world| world.figures.regrouped += 1);
        fleet(|fleet| fleet.pipeline = workload::pipeline_of(Kind::Emptied, generation));
        regrouping(|told| {
            told.command = None;
            told.heads.push(head(generation, None));
        });
        return;
    }
    if !shut {
        return;
    }
    let left = emptied::left(&SimulatedLog(handle.clone()), &SimulatedClock, "sim", &command.levels);
    match left {
        Ok(Some(_)) => {}
        Ok(None) => {
            command.empty = true;
            regrouping(|told| told.command = Some(command));
        }
        Err(LogError { message, .. }) => {
            say!("{handle} ends: {message}");
            regrouping(|told| told.command = None);
        }
    }
}

/// Whether every host that lives has said so, and who does not holds nothing any more.
fn all_shut(generation: u64) -> bool {
    fleet(|fleet| {
        let Some(told) = &fleet.regrouping else { return false };
        let said = |name: &Arc<str>| told.shut.contains(&(name.clone(), generation));
        fleet.slots.iter().filter(|slot| !slot.ghost).all(|slot| match slot.process {
            Some(_) => said(&slot.name),
            None => !with(|world| world.broker.knows(&slot.name)),
        })
    })
}
