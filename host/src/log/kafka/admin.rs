//! Topics: what there is, what they take, making them.

use super::config::PATIENCE;
use super::errors;
use super::native::{self, Client, Failure};
use crate::io::{LogError, Retention, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The names of topics with their partition counts; of one topic, nothing if it is not there.
pub fn topics(client: &Client, name: Option<&str>) -> Result<Vec<(String, i32)>, Failure> {
    let metadata = client.fetch_metadata(name, PATIENCE)?;
    let mut found = Vec::new();
    for topic in metadata.topics() {
        match topic.error().map(Code::from) {
            None => found.push((topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {}
            // A list goes on without the topics that this user may not see.
            Some(_) if name.is_none() => {}
            Some(code) => return Err(Failure::new(code, code.to_string())),
        }
    }
    found.sort();
    Ok(found)
}

pub type Admin = AdminClient<DefaultClientContext>;

/// A client takes a tenth of a second to end: one is made, and kept.
pub fn admin(config: &ClientConfig) -> Result<Admin, LogError> {
    config.create().map_err(|error| LogError::stop(format!("cannot make a Kafka client: {error}")))
}

pub fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// What topics take at most, as far as this user may ask.
pub fn max_message_bytes(admin: &Admin, topics: &[&str]) -> Result<HashMap<String, usize>, LogError> {
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let what = "looking up the largest record that topics take";
    let described = block_on(admin.describe_configs(&wanted, &options())).map_err(|error| errors::failed(what, &error.into()))?;
    let mut limits = HashMap::new();
    for resource in described {
        match resource {
            Ok(resource) => {
                let limit = resource.get("max.message.bytes").and_then(|entry| entry.value.as_ref()).and_then(|value| value.parse().ok());
                if let (OwnedResourceSpecifier::Topic(name), Some(limit)) = (&resource.specifier, limit) {
                    limits.insert(name.clone(), limit);
                }
            }
            Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::UnknownTopicOrPartition) => {}
            Err(code) => return Err(errors::failed(what, &Failure::new(code, code.to_string()))),
        }
    }
    Ok(limits)
}

/// How a topic keeps its records, as far as this user may ask.
pub fn retention(admin: &Admin, topic: &str) -> Result<Option<Retention>, LogError> {
    let what = format!("looking up the settings of the topic {topic}");
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options()));
    let described = described.map_err(|error| errors::failed(&what, &error.into()))?;
    match described.into_iter().next() {
        Some(Ok(resource)) => {
            let value = |key: &str| resource.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
            let number = |key: &str| value(key).parse::<i64>().unwrap_or(-1);
            Ok(Some(Retention {
                compacted: value("cleanup.policy") == "compact",
                unlimited: value("cleanup.policy") == "delete" && number("retention.ms") < 0 && number("retention.bytes") < 0,
                tombstones: Duration::from_millis(u64::try_from(number("delete.retention.ms")).unwrap_or(0)),
            }))
        }
        Some(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) | None => Ok(None),
        Some(Err(code)) => Err(errors::failed(&what, &Failure::new(code, code.to_string()))),
    }
}

/// Makes a topic with the brokers' own replication. `settings`: of the topic, beside the brokers' defaults. False: there is one already.
pub fn create(admin: &Admin, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<bool, LogError> {
    if partitions < 1 {
        return Err(LogError::stop(format!("creating the topic {name}: it needs at least one partition, not {partitions}")));
    }
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let what = format!("creating the topic {name}");
    match block_on(admin.create_topics([&topic], &options())) {
        Ok(results) => match results.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(errors::failed(&what, &Failure::new(code, code.to_string()))),
            _ => Ok(true),
        },
        Err(error) => Err(errors::failed(&what, &error.into())),
    }
}

/// Deletes a topic; one that is not there is fine.
pub fn delete(admin: &Admin, name: &str) -> Result<(), LogError> {
    let what = format!("deleting the topic {name}");
    match block_on(admin.delete_topics(&[name], &options())) {
        Ok(results) => match results.into_iter().next() {
            Some(Ok(_) | Err((_, Code::UnknownTopicOrPartition | Code::UnknownTopic))) | None => Ok(()),
            Some(Err((_, code))) => Err(errors::failed(&what, &Failure::new(code, code.to_string()))),
        },
        Err(error) => Err(errors::failed(&what, &error.into())),
    }
}

/// Deletes the records below these offsets.
pub fn delete_before(admin: &Admin, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
    let what = "deleting records that were processed";
    let list = native::list(partitions.iter().map(|(at, offset)| (&*at.topic, at.partition, Some(*offset))));
    let list = list.map_err(|failure| errors::failed(what, &failure))?;
    let deleted = block_on(admin.delete_records(&list, &options())).map_err(|error| errors::failed(what, &error.into()))?;
    match native::list_entries(&deleted).into_iter().find_map(|entry| Some((entry.error?, entry.topic, entry.partition))) {
        Some((code, topic, partition)) => {
            Err(errors::failed(&format!("{what} from {topic}/{partition}"), &Failure::new(code, code.to_string())))
        }
        None => Ok(()),
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future of the admin client, which a thread of its own completes. No runtime: this may be called inside of one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
