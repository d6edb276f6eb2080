//! What a client's callbacks leave behind for its owner.

use super::heartbeats::Heartbeats;
use rdkafka::ClientContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A change of a member's partitions, not yet acted on.
#[derive(Debug)]
pub enum Rebalance {
    Assigned(Vec<(String, i32)>),
    Revoked { partitions: Vec<(String, i32)>, lost: bool },
}

/// The first record that a broker did not take, and how many there were.
#[derive(Clone, Debug)]
pub struct Undelivered {
    pub code: Code,
    pub topic: String,
    pub partition: i32,
    pub count: usize,
}

#[derive(Debug, Default)]
struct State {
    rebalances: VecDeque<Rebalance>,
    undelivered: Option<Undelivered>,
    down_since: Option<Instant>,
    last_error: Option<String>,
    unsupported: bool,
    heartbeats: Heartbeats,
}

/// Shared between a client's owner and librdkafka's callbacks.
#[derive(Debug, Default)]
pub struct Context {
    state: Mutex<State>,
    closing: AtomicBool,
}

impl ClientContext for Context {}

impl Context {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// librdkafka's log, in syslog's levels. Its warnings about keys that are for the other kind of client are none of the user's business.
    pub fn logged(&self, level: i32, facility: &str, message: &str) {
        // librdkafka looks for another coordinator then, for ever, and tells it nowhere else.
        if facility == "COORD" && message.contains("ConsumerGroupHeartbeatRequest not supported") {
            self.state().unsupported = true;
        }
        if matches!(facility, "HEARTBEAT" | "REQTMOUT") {
            self.state().heartbeats.logged(facility, message);
        }
        match level {
            _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
            // A fatal error is found by whoever uses the client, and is told with what is done about it.
            _ if facility == "FATAL" => tracing::info!(target: "librdkafka", "{facility}: {message}"),
            0..=2 => tracing::error!(target: "librdkafka", "{facility}: {message}"),
            // A broker that cannot be reached is an "error" at each attempt: whoever waits for it reports it once, with a remedy.
            3..=5 => tracing::info!(target: "librdkafka", "{facility}: {message}"),
            6 => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
            _ => tracing::trace!(target: "librdkafka", "{facility}: {message}"),
        }
    }

    pub fn broken(&self, all_brokers: bool, reason: String) {
        tracing::debug!(target: "librdkafka", "{reason}");
        let mut state = self.state();
        if all_brokers {
            state.down_since.get_or_insert_with(Instant::now);
        } else {
            state.last_error = Some(reason);
        }
    }

    /// A broker answered.
    pub fn reached(&self) {
        let mut state = self.state();
        state.down_since = None;
        state.last_error = None;
    }

    /// Since when no broker answers, and why.
    pub fn down(&self) -> (Option<Instant>, Option<String>) {
        let state = self.state();
        (state.down_since, state.last_error.clone())
    }

    /// Whether the member has missed what the brokers have said of its assignment.
    pub fn missed_assignment(&self) -> bool {
        self.state().heartbeats == Heartbeats::Lost
    }

    /// Whether the brokers have no API for the group's protocol.
    pub fn unsupported(&self) -> bool {
        self.state().unsupported
    }

    pub fn undelivered(&self, code: Code, topic: impl FnOnce() -> String, partition: i32) {
        let mut state = self.state();
        match &mut state.undelivered {
            Some(first) => first.count += 1,
            none => *none = Some(Undelivered { code, topic: topic(), partition, count: 1 }),
        }
    }

    pub fn take_undelivered(&self) -> Option<Undelivered> {
        self.state().undelivered.take()
    }

    pub fn rebalanced(&self, rebalance: Rebalance) {
        self.state().rebalances.push_back(rebalance);
    }

    pub fn take_rebalance(&self) -> Option<Rebalance> {
        self.state().rebalances.pop_front()
    }

    pub fn has_rebalance(&self) -> bool {
        !self.state().rebalances.is_empty()
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}
