//! Kafka's errors as what the caller must do about them.

use super::context::Undelivered;
use super::native::Failure;
use crate::io::{LogError, Remedy};
use rdkafka::types::RDKafkaErrorCode as Code;

/// What to do about an error that says nothing of a transaction.
pub fn remedy(code: Code) -> Remedy {
    match code {
        // Another member or producer has our name.
        Code::Fenced
        | Code::FencedInstanceId
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced
        | Code::FencedMemberEpoch => Remedy::Fenced,
        // The group has moved on without us; partitions and committed positions are told anew.
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::AssignmentLost
        | Code::PollExceeded
        | Code::StaleMemberEpoch
        | Code::MessageTimedOut => Remedy::Rewind,
        code if away(code) => Remedy::Wait,
        _ => Remedy::Stop,
    }
}

/// Whether an error says that the brokers are away, or not ready yet.
pub fn away(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::BrokerDestroy
            | Code::NodeUpdate
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::ConcurrentTransactions
            | Code::UnstableOffsetCommit
            | Code::KafkaStorageError
            | Code::OffsetNotAvailable
            | Code::UnreleasedInstanceId
    )
}

/// What the user can do, for the errors that only the user can end.
fn advice(code: Code) -> &'static str {
    match code {
        Code::TopicAuthorizationFailed => "; grant this user Read, Write and Describe on the topic",
        Code::GroupAuthorizationFailed => "; grant this user Read on the group",
        Code::TransactionalIdAuthorizationFailed => "; grant this user Write and Describe on the transactional id",
        Code::ClusterAuthorizationFailed => "; grant this user what the message asks for on the cluster",
        Code::Authentication | Code::SaslAuthenticationFailed => "; see the keys `sasl.*` under [kafka] in the settings",
        Code::SSL => "; see the keys `ssl.*` under [kafka] in the settings",
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => "; create the topic with `millstream topic create`",
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            "; raise the topic's `max.message.bytes`, or set `batch.size` under [kafka.producer] to at most that"
        }
        Code::InvalidRecord => "; a compacted topic takes no record without a key",
        Code::InvalidTimestamp => {
            "; its time is outside of the topic's `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`"
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange => "; the records there are no longer kept, or the topic was made anew",
        Code::InvalidTransactionTimeout => {
            "; lower `transaction.timeout.ms` under [kafka.producer], or raise the broker's `transaction.max.timeout.ms`"
        }
        Code::InvalidSessionTimeout => "; set `session.timeout.ms` under [kafka.consumer] within the broker's bounds",
        Code::UnsupportedAssignor => "; have `range` among the brokers' `group.consumer.assignors`",
        Code::UnreleasedInstanceId => {
            "; the group still has a member of this name: a process that runs, or one that ended without leaving, which the brokers wait for until its session is \
             over (`group.consumer.session.timeout.ms`, 45 s unless set)"
        }
        Code::UnsupportedCompressionType => "; choose another `compression.type` under [kafka.producer]",
        Code::PolicyViolation => "; a policy of the brokers forbids it",
        _ => "",
    }
}

/// The error of doing `what`.
pub fn failed(what: &str, failure: &Failure) -> LogError {
    let remedy = if failure.fatal && remedy(failure.code) != Remedy::Fenced { Remedy::Stop } else { remedy(failure.code) };
    LogError { remedy, message: message(what, failure) }
}

/// The error after which a member's client can do nothing more.
pub fn membership_failed(group: &str, failure: &Failure) -> LogError {
    let what = format!("the membership in the group {group}");
    match failure.code {
        Code::UnsupportedVersion | Code::UnsupportedFeature => unknown_protocol(group),
        // The client is lost, the name will be free.
        Code::UnreleasedInstanceId => LogError { remedy: Remedy::Wait, message: message(&what, failure) },
        _ => failed(&what, failure),
    }
}

/// A member does not know what has become of its assignment: only one that joins anew is told.
pub fn missed_assignment(group: &str) -> LogError {
    let message = format!(
        "the membership in the group {group}: the brokers answered a heartbeat too late, and what they may have said of the assignment is not told again; the \
         group is joined anew"
    );
    LogError { remedy: Remedy::Indefinite, message }
}

/// The brokers do not know the protocol that was chosen for the group.
pub fn unknown_protocol(group: &str) -> LogError {
    LogError::stop(format!(
        "joining the group {group}: these brokers do not know `group.protocol = \"consumer\"` (KIP-848). Leave it out of [kafka.consumer] in the settings, for the \
         classic protocol, or use brokers from 4.0 on that have it (`group.version` 1, `group.coordinator.rebalance.protocols` with `consumer`); nothing was \
         changed"
    ))
}

/// The error of a step of a transaction. A time-out leaves unknown what the brokers did, so that only a new producer may go on
/// (librdkafka lacks the second part of KIP-890: a late end of this transaction could hit the next one).
pub fn transaction_failed(what: &str, failure: &Failure) -> LogError {
    let remedy = if failure.fatal {
        match remedy(failure.code) {
            Remedy::Fenced => Remedy::Fenced,
            _ if is_permanent(failure.code) => Remedy::Stop,
            // The producer is lost, not the name.
            _ => Remedy::Indefinite,
        }
    } else if failure.requires_abort {
        match remedy(failure.code) {
            Remedy::Fenced => Remedy::Fenced,
            Remedy::Stop if is_of_a_record(failure.code) => Remedy::Isolate,
            Remedy::Stop if is_permanent(failure.code) => Remedy::Stop,
            _ => Remedy::Rewind,
        }
    } else if failure.retriable || away(failure.code) {
        Remedy::Indefinite
    } else {
        remedy(failure.code)
    };
    LogError { remedy, message: message(what, failure) }
}

/// Errors of which an abort and another try make nothing better.
fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::OffsetMetadataTooLarge
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::UnsupportedCompressionType
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedVersion
            | Code::InvalidTransactionTimeout
    )
}

/// Errors of one record, which the topic takes no other time either. Those around it in its transaction may be well.
fn is_of_a_record(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidRecord | Code::InvalidDifferentRecord | Code::InvalidTimestamp)
}

fn message(what: &str, failure: &Failure) -> String {
    format!("{what}: {}{}", failure.text, advice(failure.code))
}

/// Records that a topic did not take.
pub fn not_taken(undelivered: &Undelivered) -> LogError {
    let Undelivered { code, topic, partition, count } = undelivered;
    let records = if *count == 1 { "a record".to_owned() } else { format!("{count} records, the first") };
    let remedy = match self::remedy(*code) {
        _ if is_of_a_record(*code) => Remedy::Isolate,
        _ if is_permanent(*code) => Remedy::Stop,
        // What was produced is in an unknown place, but the transaction still ends by an abort.
        Remedy::Wait => Remedy::Rewind,
        other => other,
    };
    LogError { remedy, message: format!("{records} for {topic}/{partition} was not taken: {code}{}", advice(*code)) }
}
