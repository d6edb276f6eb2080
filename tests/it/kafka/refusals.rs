//! Brokers that do not know the group protocol that was chosen.
#![allow(unsafe_code)]

use super::{LIMIT, WAIT, read_values, records, settings, topic, until};
use crate::cluster::{Cluster, unique};
use crate::program::millstream;
use millstream::io::{Log, LogError, Remedy, TopicPartition};
use millstream::log::kafka::KafkaLog;
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::Arc;

const CONSUMER: &str = "[kafka.consumer]\ngroup.protocol = \"consumer\"\n";

fn is_refusal(message: &str, group: &str) {
    for part in [group, "group.protocol", "[kafka.consumer]", "4.0", "nothing was changed"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
}

/// What a member is told that cannot join.
fn refusal(log: &KafkaLog, group: &str, input: &Arc<str>) -> LogError {
    let mut member = log.member(&super::members::membership(group, "host.0", &[input])).expect("a member");
    until("a refusal", || member.poll(LIMIT, WAIT).err())
}

/// As with brokers before 4.0, of which librdkafka tells nobody.
#[test]
fn brokers_without_the_api_are_refused_with_the_remedy() {
    /// `ConsumerGroupHeartbeat`, which the crate has no name for.
    const HEARTBEAT: i16 = 68;
    let mut config = rdkafka::ClientConfig::new();
    let owner: BaseProducer = config.set("test.mock.num.brokers", "1").create().expect("mock brokers");
    let cluster = owner.client().mock_cluster().expect("its cluster");
    cluster.create_topic("in", 1, 1).expect("a topic");
    // SAFETY: the client is live, and has a mock cluster.
    let set = unsafe {
        let cluster = rdkafka::bindings::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        rdkafka::bindings::rd_kafka_mock_set_apiversion(cluster, HEARTBEAT, -1, -1)
    };
    assert_eq!(set, rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    let log = KafkaLog::connect(&cluster.bootstrap_servers(), settings(CONSUMER)).expect("connected");
    let error = refusal(&log, "old-brokers", &"in".into());
    assert_eq!(error.remedy, Remedy::Stop, "{error}");
    is_refusal(&error.message, "old-brokers");
}

#[test]
fn brokers_where_it_is_off_are_refused_with_the_remedy_and_nothing_is_changed() {
    let Some(cluster) = Cluster::own_with("group.coordinator.rebalance.protocols=classic\n") else { return };
    let log = KafkaLog::connect(&cluster.brokers, settings(CONSUMER)).expect("connected");
    let (input, output) = (topic(&log, "in", 1), topic(&log, "out", 1));
    log.produce(&input, None, &records(["{}"])).expect("produced");
    let error = refusal(&log, "member", &input);
    assert_eq!(error.remedy, Remedy::Stop, "{error}");
    is_refusal(&error.message, "member");

    // The program ends with it, and goes on where the setting is left out.
    let group = unique("refused");
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = format!("pipeline: {group}\nsources: {{ in: {{ topic: {input} }} }}\nsinks: [{{ from: in, topic: {output} }}]\n");
    std::fs::write(folder.path().join("pipeline.yaml"), manifest).expect("a manifest");
    let run = || {
        let mut command = millstream(folder.path());
        command.args(["run", "pipeline.yaml", "--until-end"]).env("MILLSTREAM_BROKERS", &cluster.brokers).output().expect("a run")
    };
    std::fs::write(folder.path().join("millstream.toml"), CONSUMER).expect("settings");
    let refused = run();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    is_refusal(&said, &group);
    let at = [TopicPartition::new(input.clone(), 0)];
    assert_eq!(log.committed(&group, &at).expect("positions"), [None]);
    std::fs::remove_file(folder.path().join("millstream.toml")).expect("no settings");
    let ran = run();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(read_values(&log, &output), ["{}"]);
}
