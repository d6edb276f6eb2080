//! What a member fetches, and from where: the one place that knows how the two group protocols differ.
//!
//! *Classic*: all partitions are revoked, then all are assigned. Each change replaces the client's whole assignment, every partition at its place.
//!
//! *Consumer* (KIP-848): partitions come and go alone, the others stay. An assignment is confirmed at once, with nothing to fetch; a partition is added to
//! the client at its first `start`, and taken from it by `release` alone, since whatever call takes one confirms a revocation, told to the worker or not.
//! librdkafka halts what stays through a rebalance, and lets it go on behind the last message that its batch call gave out: so everything is called back to
//! its place before each call that ends a halt.
//!
//! The place of each partition is kept here, as the offset behind the last record, or the end, handed over. librdkafka's own is not relied on: it runs ahead by what
//! waits in `Fetcher`, and its batch call counts the end of a partition like a record.

use super::config::PATIENCE;
use super::errors;
use super::fetch::{Fetcher, Names};
use super::native::{self, Client, Failure, Queue};
use crate::io::{Event, FetchLimit, Fetched, LogError, Remedy, TopicPartition};
use crate::settings::GroupProtocol;
use rdkafka::TopicPartitionList;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts to move a partition that librdkafka is about to start.
const MOVE_AGAIN: Duration = Duration::from_millis(2);

/// Whether a partition is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Fetched,
    /// Until it is resumed, or started.
    Paused,
    /// Until it is started. Consumer protocol only: a classic member takes it out of the client.
    Held,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    next: i64,
    state: State,
}

/// A member's partitions in its client.
pub struct Assignment {
    protocol: GroupProtocol,
    fetcher: Fetcher,
    names: Names,
    /// Those that the client has.
    started: BTreeMap<TopicPartition, Place>,
    /// A revocation was told and not yet confirmed.
    revoking: bool,
    client: Arc<Client>,
}

fn list<'a>(partitions: impl IntoIterator<Item = (&'a TopicPartition, Option<i64>)>) -> Result<TopicPartitionList, Failure> {
    native::list(partitions.into_iter().map(|(at, offset)| (&*at.topic, at.partition, offset)))
}

impl Assignment {
    pub fn new(protocol: GroupProtocol, client: Arc<Client>, queue: Queue) -> Self {
        Self { protocol, fetcher: Fetcher::new(queue), names: Names::default(), started: BTreeMap::new(), revoking: false, client }
    }

    pub fn named(&mut self, partitions: Vec<(String, i32)>) -> Vec<TopicPartition> {
        partitions.into_iter().map(|(topic, partition)| TopicPartition { topic: self.names.get(&topic), partition }).collect()
    }

    /// Takes what has come from the client's queue, waiting for the first.
    pub fn fetch(&mut self, limit: FetchLimit, wait: Duration) {
        let Self { started, names, revoking, .. } = self;
        self.fetcher.fetch(limit, wait, |topic, partition| {
            let at = TopicPartition { topic: names.get(topic), partition };
            (!*revoking && started.get(&at).is_some_and(|place| place.state == State::Fetched)).then_some(at)
        });
    }

    /// What is to be handed over next; it counts as handed over.
    pub fn next(&mut self, limit: FetchLimit) -> Option<Result<Event, LogError>> {
        let event = self.fetcher.next(limit)?;
        let (at, next) = match &event {
            Ok(Event::Records(Fetched { from, offsets, .. })) => (from, offsets.last().map(|last| last + 1)),
            // Behind the last record the end of a transaction may have been passed, and what was passed may be deleted.
            Ok(Event::End { at, offset }) => (at, Some(*offset)),
            _ => return Some(event),
        };
        if let (Some(place), Some(next)) = (self.started.get_mut(at), next) {
            place.next = next;
        }
        Some(event)
    }

    /// The group has given these, perhaps none: there may be more members than partitions.
    pub fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.revoking = false;
        match self.protocol {
            GroupProtocol::Classic if partitions.is_empty() => self.replace(),
            GroupProtocol::Classic => Ok(()),
            GroupProtocol::Consumer => self.add(&[]),
        }
    }

    /// The group wants these back.
    pub fn revoked(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.revoking = true;
        self.fetcher.forget(|_| true);
        if !partitions.is_empty() {
            return Ok(());
        }
        match self.protocol {
            GroupProtocol::Classic => self.give_up(),
            GroupProtocol::Consumer => self.release(partitions),
        }
    }

    pub fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        if self.is_replaced() {
            return Ok(());
        }
        let paused = self.end_pauses(|at| partitions.iter().any(|(started, _)| started == at));
        let mut new = Vec::new();
        for (at, offset) in partitions {
            let next = (*offset).max(0);
            match self.started.get_mut(at) {
                Some(place) => place.next = next,
                None => new.push((TopicPartition { topic: self.names.get(&at.topic), partition: at.partition }, next)),
            }
        }
        match self.protocol {
            GroupProtocol::Classic => {
                self.started.extend(new.into_iter().map(|(at, next)| (at, Place { next, state: State::Fetched })));
                self.replace()
            }
            GroupProtocol::Consumer => self.add(&new),
        }?;
        self.unpause(&paused)
    }

    pub fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        if self.protocol == GroupProtocol::Consumer {
            return self.halt(partitions, State::Held);
        }
        if self.is_replaced() {
            return Ok(());
        }
        let paused = self.end_pauses(|at| partitions.contains(at));
        let before = self.started.len();
        self.started.retain(|at, _| !partitions.contains(at));
        // Not by a pause: librdkafka lets up to a second pass before it fetches again, and keeps the pause when all are assigned anew.
        if self.started.len() < before {
            self.replace()?;
        }
        self.unpause(&paused)
    }

    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.halt(partitions, State::Paused)
    }

    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut resuming = Vec::new();
        for at in partitions {
            if let Some(place) = self.started.get_mut(at).filter(|place| place.state == State::Paused) {
                place.state = State::Fetched;
                resuming.push((at, place.next));
            }
        }
        if resuming.is_empty() {
            return Ok(());
        }
        if self.protocol == GroupProtocol::Consumer {
            self.move_to(&resuming)?;
        } else if !self.seek(&resuming)?.is_empty() {
            // One that has not begun to fetch cannot be moved: then all are assigned anew, each to its place.
            return self.replace();
        }
        let failed = |failure: Failure| errors::failed("resuming partitions", &failure);
        let resuming = list(resuming.iter().map(|(at, _)| (*at, None))).map_err(failed)?;
        native::resume(&self.client, &resuming).map_err(failed)
    }

    pub fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let paused = self.end_pauses(|at| partitions.contains(at));
        let gone: Vec<_> = partitions.iter().filter(|at| self.started.remove(*at).is_some()).collect();
        self.fetcher.forget(|at| partitions.contains(at));
        match self.protocol {
            // The group goes on when all are released.
            GroupProtocol::Classic if self.started.is_empty() => self.give_up(),
            GroupProtocol::Classic => Ok(()),
            GroupProtocol::Consumer => {
                self.revoking = false;
                self.recall()?;
                let failed = |failure| errors::failed("giving partitions up", &failure);
                let gone = list(gone.into_iter().map(|at| (at, None))).map_err(failed)?;
                native::incremental_unassign(&self.client, &gone).map_err(failed)
            }
        }?;
        self.unpause(&paused)
    }

    /// Leaves the group; whatever rebalance waits is confirmed.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.client.context().close();
        let failed = |failure| errors::failed("leaving the group", &failure);
        match self.protocol {
            GroupProtocol::Classic => native::assign(&self.client, None),
            GroupProtocol::Consumer => list([])
                .and_then(|none| native::incremental_assign(&self.client, &none))
                .and_then(|()| list(self.started.keys().map(|at| (at, None))))
                .and_then(|all| native::incremental_unassign(&self.client, &all)),
        }
        // Then it has come to nothing already.
        .unwrap_or_else(|failure| tracing::debug!("{}", failure.text));
        match native::close_member(&self.client, PATIENCE) {
            // It has left, or never joined: a host that is told to stop while it waits for its name ends well.
            Err(_) if native::fatal(&self.client).is_some() => Ok(()),
            left => left.map_err(failed),
        }
    }

    /// Classic: a rewind that crosses a rebalance changes nothing, since whatever is assigned next will be started then.
    fn is_replaced(&self) -> bool {
        self.protocol == GroupProtocol::Classic && (self.revoking || self.client.context().has_rebalance())
    }

    /// Classic: makes librdkafka fetch what is started and nothing else, each partition from its place.
    fn replace(&mut self) -> Result<(), LogError> {
        self.fetcher.forget(|_| true);
        let failed = |failure| errors::failed("fetching the assigned partitions", &failure);
        let places = list(self.started.iter().map(|(at, place)| (at, Some(place.next)))).map_err(failed)?;
        native::assign(&self.client, Some(&places)).map_err(failed)?;
        let paused: Vec<_> = self.started.iter().filter(|(_, place)| place.state == State::Paused).map(|(at, _)| (at, None)).collect();
        if paused.is_empty() {
            return Ok(());
        }
        native::pause(&self.client, &list(paused).map_err(failed)?).map_err(failed)
    }

    /// Classic: fetches nothing any more, which confirms a revocation.
    fn give_up(&mut self) -> Result<(), LogError> {
        let paused = self.end_pauses(|_| true);
        self.started.clear();
        self.fetcher.forget(|_| true);
        self.revoking = false;
        native::assign(&self.client, None).map_err(|failure| errors::failed("giving partitions up", &failure))?;
        self.unpause(&paused)
    }

    /// Consumer: makes librdkafka fetch these too, which confirms an assignment.
    fn add(&mut self, new: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.recall()?;
        let failed = |failure| errors::failed("fetching the assigned partitions", &failure);
        let places = list(new.iter().map(|(at, next)| (at, Some(*next)))).map_err(failed)?;
        native::incremental_assign(&self.client, &places).map_err(failed)?;
        self.started.extend(new.iter().map(|(at, next)| (at.clone(), Place { next: *next, state: State::Fetched })));
        Ok(())
    }

    /// Consumer: moves librdkafka to our place in all that it fetches. What is paused or held is moved when that ends.
    fn recall(&mut self) -> Result<(), LogError> {
        self.fetcher.forget(|_| true);
        let fetched = self.started.iter().filter(|(_, place)| place.state == State::Fetched);
        self.move_to(&fetched.map(|(at, place)| (at, place.next)).collect::<Vec<_>>())
    }

    /// Consumer: moves partitions, also those that librdkafka has yet to start, as it does when it has stopped others.
    fn move_to(&self, places: &[(&TopicPartition, i64)]) -> Result<(), LogError> {
        let deadline = Instant::now() + PATIENCE;
        let mut left = self.seek(places)?;
        // A client with a fatal error fetches nothing any more, and says so at the next poll.
        while !left.is_empty() && native::fatal(&self.client).is_none() {
            if Instant::now() >= deadline {
                let message = format!("{} cannot be fetched from offset {}: the client does not start it", left[0].0, left[0].1);
                return Err(LogError { remedy: Remedy::Indefinite, message });
            }
            std::thread::sleep(MOVE_AGAIN);
            left = self.seek(&left)?;
        }
        Ok(())
    }

    /// Moves partitions that are being fetched; returns those that are not yet.
    fn seek<'a>(&self, places: &[(&'a TopicPartition, i64)]) -> Result<Vec<(&'a TopicPartition, i64)>, LogError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |failure: Failure| errors::failed("moving partitions", &failure);
        let moving = list(places.iter().map(|(at, next)| (*at, Some(*next)))).map_err(failed)?;
        if native::seek(&self.client, &moving, PATIENCE).is_err() {
            return Ok(places.to_vec());
        }
        let entries = native::list_entries(&moving);
        let is_left = |at: &TopicPartition| {
            entries.iter().any(|entry| entry.error.is_some() && entry.partition == at.partition && entry.topic == *at.topic)
        };
        Ok(places.iter().filter(|(at, _)| is_left(at)).copied().collect())
    }

    /// Stops fetching from partitions that stay in the client.
    fn halt(&mut self, partitions: &[TopicPartition], state: State) -> Result<(), LogError> {
        let mut pausing = Vec::new();
        for at in partitions {
            if let Some(place) = self.started.get_mut(at) {
                if place.state == State::Fetched {
                    pausing.push((at, None));
                }
                place.state = place.state.max(state);
            }
        }
        if pausing.is_empty() {
            return Ok(());
        }
        self.fetcher.forget(|at| partitions.contains(at));
        let failed = |failure| errors::failed("pausing partitions", &failure);
        native::pause(&self.client, &list(pausing).map_err(failed)?).map_err(failed)
    }

    /// Notes that pauses end, of partitions whose places are to be replaced or dropped; returns those that the client still keeps.
    fn end_pauses(&mut self, which: impl Fn(&TopicPartition) -> bool) -> Vec<TopicPartition> {
        let paused = self.started.iter_mut().filter(|(at, place)| place.state != State::Fetched && which(at));
        paused
            .map(|(at, place)| {
                place.state = State::Fetched;
                at.clone()
            })
            .collect()
    }

    /// Ends pauses in the client, which keeps them through an assignment. Only behind that: it would fetch from its own place until then, which may be
    /// one past the end.
    fn unpause(&self, paused: &[TopicPartition]) -> Result<(), LogError> {
        if paused.is_empty() {
            return Ok(());
        }
        let failed = |failure: Failure| errors::failed("ending pauses", &failure);
        native::resume(&self.client, &list(paused.iter().map(|at| (at, None))).map_err(failed)?).map_err(failed)
    }
}
