//! The configuration of each client: what is ours, then what the user's settings add.

use crate::io::{Guarantee, Membership};
use crate::settings::{GroupProtocol, KafkaSettings};
use rdkafka::ClientConfig;
use sha2::Digest;
use std::sync::Arc;
use std::time::Duration;

/// The longest wait for an answer of the brokers.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a transaction may stay open before the brokers abort it, unless the settings say otherwise.
const TRANSACTION_TIMEOUT: &str = "10000";

fn base(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "millstream")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true");
    // librdkafka filters its log by this level before it hands lines out; what is shown is decided by --log.
    config.set_log_level(if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        rdkafka::config::RDKafkaLogLevel::Debug
    } else {
        rdkafka::config::RDKafkaLogLevel::Notice
    });
    config
}

fn with(mut config: ClientConfig, settings: &[&std::collections::BTreeMap<String, String>]) -> ClientConfig {
    for (key, value) in settings.iter().flat_map(|table| table.iter()) {
        // Another name of a key that is ours by default: both would be set, in any order.
        if key == "max.partition.fetch.bytes" {
            config.remove("fetch.message.max.bytes");
        }
        config.set(key, value);
    }
    config
}

fn consumer_base(brokers: &str) -> ClientConfig {
    let mut config = base(brokers);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // Positions come from the caller. One that is out of range is an error, never a silent jump.
        .set("auto.offset.reset", "error")
        // A broker answers one fetch after the other, and one that finds nothing waits so long: before the end of a partition is told (who restores waits
        // for that), and before a partition is fetched that was started meanwhile. The default is 500.
        .set("fetch.wait.max.ms", "100")
        // The default of a second stalls bursts.
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.error.backoff.ms", "100")
        // A broker that hangs is noticed no later than by a transaction. The default is a minute.
        .set("socket.timeout.ms", "10000")
        // Per partition: together they bound the memory, at the same speed as the much larger defaults. An answer of a megabyte can hold 200 000
        // small records that compress well, each of which takes 150 bytes and more in the client; 128 kB were as quick.
        .set("queued.min.messages", "5000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.message.max.bytes", "131072");
    config
}

/// A client for metadata, offsets and readers.
pub fn lookup(brokers: &str, settings: &KafkaSettings) -> ClientConfig {
    with(consumer_base(brokers), &[&settings.common, &settings.consumer])
}

/// A client that is told the ends of partitions with what is not committed.
pub fn uncommitted(brokers: &str, settings: &KafkaSettings) -> ClientConfig {
    let mut config = lookup(brokers, settings);
    config.set("isolation.level", "read_uncommitted");
    config
}

/// A client that looks up where a group stands.
pub fn group(brokers: &str, settings: &KafkaSettings, group: &str) -> ClientConfig {
    let mut config = lookup(brokers, settings);
    config.set("group.id", group);
    config
}

/// A group's member. The assignor is `range`, which keeps co-partitioned topics together; a static name lets a restart take its own partitions back.
pub fn member(brokers: &str, settings: &KafkaSettings, membership: &Membership) -> ClientConfig {
    let Membership { group, member, topics, .. } = membership;
    let mut config = consumer_base(brokers);
    if settings.group_protocol == GroupProtocol::Classic {
        config.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "1000");
    }
    let mut config = with(config, &[&settings.common, &settings.consumer]);
    config.set("group.id", group).set("group.instance.id", format!("{group}.{member}"));
    match settings.group_protocol {
        GroupProtocol::Classic => {
            // Brokers give a static member that comes back what it had, and do not look whether it wants other topics now: one that does is another member.
            config.set("group.instance.id", format!("{group}.{member}.{}", digest(topics)));
            config.set("group.protocol", "classic").set("partition.assignment.strategy", "range");
        }
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer").set("group.remote.assignor", "range");
            // That brokers do not know this protocol is said nowhere but in this part of the log: see `Context::logged`.
            let debug = config.get("debug").map_or_else(|| "cgrp".to_owned(), |wanted| format!("{wanted},cgrp"));
            config.set("debug", debug).set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
        }
    }
    config
}

/// Tells sets of topics apart.
fn digest(topics: &[Arc<str>]) -> String {
    let mut sorted = topics.to_vec();
    sorted.sort();
    let digest = sha2::Sha256::digest(sorted.join("\n"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn producer_base(brokers: &str) -> ClientConfig {
    let mut config = base(brokers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        // How big a record may be is the topic's decision, not the client's.
        .set("message.max.bytes", "1000000000")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "262144")
        // One report for a record that failed; none for the others, which the commit vouches for.
        .set("delivery.report.only.error", "true");
    config
}

/// The producer of `produce`.
pub fn producer(brokers: &str, settings: &KafkaSettings) -> ClientConfig {
    let mut config = producer_base(brokers);
    config.set("message.timeout.ms", "60000");
    with(config, &[&settings.common, &settings.producer])
}

/// The producer of what is written under `name` by one at a time: the brokers fence all others of that name.
pub fn exclusive_producer(brokers: &str, settings: &KafkaSettings, name: &str) -> ClientConfig {
    let mut config = producer_base(brokers);
    config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT);
    let mut config = with(config, &[&settings.common, &settings.producer]);
    config.set("transactional.id", name);
    config
}

/// A member's producer.
pub fn member_producer(brokers: &str, settings: &KafkaSettings, membership: &Membership) -> ClientConfig {
    let mut config = producer_base(brokers);
    match membership.guarantee {
        Guarantee::ExactlyOnce => {
            config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT);
            let mut config = with(config, &[&settings.common, &settings.producer]);
            config.set("transactional.id", format!("{}.{}", membership.group, membership.member));
            config
        }
        Guarantee::AtLeastOnce => with(config, &[&settings.common, &settings.producer]),
    }
}
