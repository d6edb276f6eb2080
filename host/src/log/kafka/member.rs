//! A member of a consumer group with its transactional producer: a worker's end of the log.
//!
//! Rebalancing is eager: `Revoked` names all partitions, the worker commits and releases them, `Assigned` names the new ones. librdkafka waits for
//! `start` and `release` meanwhile, heartbeats go on.
//!
//! The place of each partition is kept here, as the offset behind the last record handed over, and `resume` seeks to it. librdkafka's own place is
//! not relied on: it runs ahead by what waits in `Fetcher`, and its batch call counts the end of a partition like a record.

use super::config::PATIENCE;
use super::context::{Context, Rebalance};
use super::errors;
use super::fetch::{Fetcher, Names};
use super::groups;
use super::native::{self, Client, Failure, Kind, Queue};
use super::transaction::Transactions;
use crate::io::{Commit, CommitState, Event, FetchLimit, Fetched, Guarantee, LogError, Member, Membership, Position, TopicPartition};
use crate::record::Records;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a broker that was lost may take to answer.
const PING: Duration = Duration::from_millis(250);

/// Where a partition stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    next: i64,
    paused: bool,
}

pub struct KafkaMember {
    transactions: Transactions,
    fetcher: Fetcher,
    names: Names,
    /// Partitions that are fetched.
    started: BTreeMap<TopicPartition, Place>,
    /// A revocation was told and not yet confirmed.
    revoking: bool,
    closed: bool,
    brokers: String,
    /// The group has given this member up; the brokers may hang.
    suspicious: bool,
    client: Arc<Client>,
}

impl KafkaMember {
    pub fn join(consumer: &ClientConfig, producer: &ClientConfig, membership: &Membership) -> Result<Self, LogError> {
        let client = native::client(consumer, Kind::Member, Context::default())
            .map_err(|error| LogError::stop(format!("cannot make a Kafka consumer: {error}")))?;
        let client = Arc::new(client);
        // Before the group is joined: it ends what an older producer of this name left open, which the committed positions wait for.
        let committer = (membership.guarantee == Guarantee::AtLeastOnce).then(|| client.clone());
        let transactions = Transactions::new(producer, committer)?;
        let what = format!("joining the group {}", membership.group);
        let failed = |failure| errors::failed(&what, &failure);
        let queue = Queue::of_member(client.clone()).map_err(failed)?;
        let topics = native::list(membership.topics.iter().map(|topic| (&**topic, -1, None))).map_err(failed)?;
        native::subscribe(&client, &topics).map_err(failed)?;
        Ok(Self {
            transactions,
            fetcher: Fetcher::new(queue),
            names: Names::default(),
            started: BTreeMap::new(),
            revoking: false,
            closed: false,
            suspicious: false,
            brokers: consumer.get("bootstrap.servers").unwrap_or_default().to_owned(),
            client,
        })
    }

    /// Acts on a rebalance as far as it is ours, and tells the worker the rest.
    fn rebalance(&mut self, rebalance: Rebalance) -> Result<Option<Event>, LogError> {
        let Self { names, .. } = self;
        let mut named = |partitions: Vec<(String, i32)>| -> Vec<TopicPartition> {
            partitions.into_iter().map(|(topic, partition)| TopicPartition { topic: names.get(&topic), partition }).collect()
        };
        match rebalance {
            Rebalance::Assigned(partitions) => {
                let partitions = named(partitions);
                self.revoking = false;
                if partitions.is_empty() {
                    // More members than partitions.
                    self.assign()?;
                    return Ok(None);
                }
                Ok(Some(Event::Assigned(partitions)))
            }
            Rebalance::Revoked { partitions, lost } => {
                let partitions = named(partitions);
                self.revoking = true;
                self.suspicious |= lost;
                self.fetcher.forget(|_| true);
                if partitions.is_empty() {
                    self.release_all()?;
                    return Ok(None);
                }
                Ok(Some(Event::Revoked { partitions, lost }))
            }
        }
    }

    /// Makes librdkafka fetch what is started, each partition from its place.
    fn assign(&mut self) -> Result<(), LogError> {
        self.fetcher.forget(|_| true);
        let failed = |failure| errors::failed("fetching the assigned partitions", &failure);
        let places = self.started.iter().map(|(at, place)| (&*at.topic, at.partition, Some(place.next)));
        native::assign(&self.client, Some(&native::list(places).map_err(failed)?)).map_err(failed)?;
        let paused: Vec<_> =
            self.started.iter().filter(|(_, place)| place.paused).map(|(at, _)| (&*at.topic, at.partition, None)).collect();
        if !paused.is_empty() {
            native::pause(&self.client, &native::list(paused).map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the pauses of partitions whose places are to be replaced or dropped: librdkafka keeps a pause through an assignment.
    fn unpause(&mut self, which: impl Fn(&TopicPartition) -> bool) -> Result<(), LogError> {
        let paused = self.started.iter_mut().filter(|(at, place)| place.paused && which(at));
        let list: Vec<_> = paused
            .map(|(at, place)| {
                place.paused = false;
                (&*at.topic, at.partition, None)
            })
            .collect();
        if list.is_empty() {
            return Ok(());
        }
        let failed = |failure: Failure| errors::failed("ending pauses", &failure);
        native::resume(&self.client, &native::list(list).map_err(failed)?).map_err(failed)
    }

    fn release_all(&mut self) -> Result<(), LogError> {
        self.unpause(|_| true)?;
        self.started.clear();
        self.fetcher.forget(|_| true);
        self.revoking = false;
        native::assign(&self.client, None).map_err(|failure| errors::failed("giving partitions up", &failure))
    }

    /// Notes what is handed over.
    fn hand_over(&mut self, event: Event) -> Event {
        if let Event::Records(Fetched { from, offsets, .. }) = &event
            && let (Some(place), Some(last)) = (self.started.get_mut(from), offsets.last())
        {
            place.next = last + 1;
        }
        event
    }

    fn close(&mut self) -> Result<(), LogError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        native::close_member(&self.client).map_err(|failure| errors::failed("leaving the group", &failure))
    }
}

impl Member for KafkaMember {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            while let Some(rebalance) = self.client.context().take_rebalance() {
                if let Some(event) = self.rebalance(rebalance)? {
                    return Ok(event);
                }
            }
            if let Some(event) = self.fetcher.next(limit) {
                return Ok(self.hand_over(event?));
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            let Self { started, names, revoking, .. } = self;
            self.fetcher.fetch(limit, rest, |topic, partition| {
                let at = TopicPartition { topic: names.get(topic), partition };
                (!*revoking && started.get(&at).is_some_and(|place| !place.paused)).then_some(at)
            });
            if let Some(failure) = native::fatal(&self.client) {
                return Err(errors::failed("the group's membership", &failure));
            }
            if rest.is_zero() {
                // One more look at what came with this call; the next poll has the rest.
                if let Some(rebalance) = self.client.context().take_rebalance()
                    && let Some(event) = self.rebalance(rebalance)?
                {
                    return Ok(event);
                }
                return match self.fetcher.next(limit) {
                    Some(event) => Ok(self.hand_over(event?)),
                    None => Ok(Event::Idle),
                };
            }
        }
    }

    fn away(&mut self) -> Option<String> {
        let reason = match super::lost(&self.client, super::REFUSED) {
            Some(error) => error.message,
            None if self.suspicious => "the session with the group has ended".to_owned(),
            None => return None,
        };
        // That it was lost is told by the client, that it is back is not; and what comes may have been fetched before.
        if native::ping(&self.client, PING).is_ok() {
            self.suspicious = false;
            self.client.context().reached();
            return None;
        }
        Some(format!("no Kafka broker answers at {}: {reason}", self.brokers))
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        groups::committed(&self.client, partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        // A rewind that crosses a rebalance: what is assigned next will be started then.
        if self.revoking || self.client.context().has_rebalance() {
            return Ok(());
        }
        self.unpause(|at| partitions.iter().any(|(started, _)| started == at))?;
        for (at, offset) in partitions {
            let topic = self.names.get(&at.topic);
            let at = TopicPartition { topic, partition: at.partition };
            self.started.insert(at, Place { next: (*offset).max(0), paused: false });
        }
        self.assign()
    }

    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        if self.revoking || self.client.context().has_rebalance() {
            return Ok(());
        }
        let before = self.started.len();
        self.unpause(|at| partitions.contains(at))?;
        self.started.retain(|at, _| !partitions.contains(at));
        // Not by a pause: librdkafka lets up to a second pass before it fetches again, and keeps the pause when all are assigned anew.
        if self.started.len() < before { self.assign() } else { Ok(()) }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut pausing = Vec::new();
        for at in partitions {
            if let Some(place) = self.started.get_mut(at)
                && !std::mem::replace(&mut place.paused, true)
            {
                pausing.push((&*at.topic, at.partition, None));
            }
        }
        if pausing.is_empty() {
            return Ok(());
        }
        self.fetcher.forget(|at| partitions.contains(at));
        let failed = |failure| errors::failed("pausing partitions", &failure);
        native::pause(&self.client, &native::list(pausing).map_err(failed)?).map_err(failed)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut resuming = Vec::new();
        for at in partitions {
            if let Some(place) = self.started.get_mut(at)
                && std::mem::replace(&mut place.paused, false)
            {
                resuming.push((&*at.topic, at.partition, Some(place.next)));
            }
        }
        if resuming.is_empty() {
            return Ok(());
        }
        let failed = |failure: Failure| errors::failed("resuming partitions", &failure);
        let list = native::list(resuming).map_err(failed)?;
        // Our place, not librdkafka's. One that has not begun to fetch cannot be moved: then all are assigned anew, each to its place.
        let moved =
            native::seek(&self.client, &list, PATIENCE).is_ok() && native::list_entries(&list).iter().all(|entry| entry.error.is_none());
        if !moved {
            return self.assign();
        }
        native::resume(&self.client, &list).map_err(failed)
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.unpause(|at| partitions.contains(at))?;
        for at in partitions {
            self.started.remove(at);
        }
        self.fetcher.forget(|at| partitions.contains(at));
        // The group goes on when all are released.
        if self.started.is_empty() { self.release_all() } else { Ok(()) }
    }

    fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
        self.transactions.append(to, records)
    }

    fn begin_commit(&mut self, commit: Commit) -> Result<(), LogError> {
        if !commit.state.is_empty() {
            return Err(LogError::stop("state is committed to changelogs on Kafka: a mistake in the program"));
        }
        if commit.positions.is_empty() {
            return Err(LogError::stop("a commit carries positions; this one has none"));
        }
        let failed = |failure: Failure| errors::transaction_failed("committing", &failure);
        let offsets = groups::list_of(&commit.positions).map_err(failed)?;
        let group = native::group_metadata(&self.client).map_err(failed)?;
        self.transactions.begin_commit(offsets, group)
    }

    fn poll_commit(&mut self, wait: Duration) -> Result<CommitState, LogError> {
        self.transactions.poll_commit(wait)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.transactions.abort(Duration::from_secs(60))
    }

    fn abandon(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!("{error}");
        }
    }

    fn leave(mut self: Box<Self>) -> Result<(), LogError> {
        let aborted = self.transactions.abort(PATIENCE);
        self.close()?;
        aborted
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        // Before the group is left, so that whoever takes over finds nothing open.
        self.transactions.end();
        if let Err(error) = self.close() {
            tracing::debug!("{error}");
        }
    }
}
