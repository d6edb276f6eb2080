//! A member of a consumer group with its transactional producer: a worker's end of the log.
//!
//! Rebalances are written down by librdkafka's callback and acted on here, between two polls: `Revoked` is told, the worker commits and releases; `Assigned`
//! is told, the worker starts. librdkafka waits meanwhile, heartbeats go on. What the group protocols make of it is in `assignment`.

use super::assignment::Assignment;
use super::config::PATIENCE;
use super::context::{Context, Rebalance};
use super::errors;
use super::groups;
use super::native::{self, Client, Failure, Kind, Queue};
use super::transaction::Transactions;
use crate::io::{Commit, CommitState, Event, FetchLimit, Guarantee, LogError, Member, Membership, Position, TopicPartition};
use crate::record::Records;
use crate::settings::GroupProtocol;
use rdkafka::ClientConfig;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a broker that was lost may take to answer.
const PING: Duration = Duration::from_millis(250);

pub struct KafkaMember {
    transactions: Transactions,
    assignment: Assignment,
    closed: bool,
    group: String,
    brokers: String,
    /// The group has given this member up; the brokers may hang.
    suspicious: bool,
    client: Arc<Client>,
}

impl KafkaMember {
    pub fn join(
        protocol: GroupProtocol,
        consumer: &ClientConfig,
        producer: &ClientConfig,
        membership: &Membership,
    ) -> Result<Self, LogError> {
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
            assignment: Assignment::new(protocol, client.clone(), queue),
            closed: false,
            suspicious: false,
            group: membership.group.clone(),
            brokers: consumer.get("bootstrap.servers").unwrap_or_default().to_owned(),
            client,
        })
    }

    /// Acts on a rebalance as far as it is ours; what is told to the worker, if anything.
    fn rebalance(&mut self, rebalance: Rebalance) -> Result<Option<Event>, LogError> {
        let event = match rebalance {
            Rebalance::Assigned(partitions) => {
                let partitions = self.assignment.named(partitions);
                self.assignment.assigned(&partitions)?;
                (!partitions.is_empty()).then_some(Event::Assigned(partitions))
            }
            Rebalance::Revoked { partitions, lost } => {
                self.suspicious |= lost;
                let partitions = self.assignment.named(partitions);
                self.assignment.revoked(&partitions)?;
                (!partitions.is_empty()).then_some(Event::Revoked { partitions, lost })
            }
        };
        Ok(event)
    }

    /// Whether the client can go on at all.
    fn look_at_client(&self) -> Result<(), LogError> {
        match native::fatal(&self.client) {
            _ if self.client.context().unsupported() => Err(errors::unknown_protocol(&self.group)),
            Some(failure) => Err(errors::membership_failed(&self.group, &failure)),
            None if self.client.context().missed_assignment() => Err(errors::missed_assignment(&self.group)),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), LogError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.assignment.close()
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
            if let Some(event) = self.assignment.next(limit) {
                return event;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            self.assignment.fetch(limit, rest);
            self.look_at_client()?;
            if rest.is_zero() {
                // One more look at what came with this call; the next poll has the rest.
                if let Some(rebalance) = self.client.context().take_rebalance()
                    && let Some(event) = self.rebalance(rebalance)?
                {
                    return Ok(event);
                }
                return self.assignment.next(limit).unwrap_or(Ok(Event::Idle));
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
        self.assignment.start(partitions)
    }

    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.assignment.hold(partitions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.assignment.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.assignment.resume(partitions)
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.assignment.release(partitions)
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
