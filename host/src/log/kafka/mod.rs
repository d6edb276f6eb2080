//! The log on Apache Kafka, by librdkafka.
//!
//! `native` is the only place with calls of the C library; `fetch` turns its messages into columns, `producer` columns into messages;
//! `reader` and `member` are the two ways to read, `assignment` is what a member fetches, `heartbeats` whether it knows what it has, and `transaction` how it commits;
//! `exclusive` writes what hangs on what was read before.

mod admin;
mod assignment;
mod config;
mod context;
mod errors;
mod exclusive;
mod fetch;
mod groups;
mod heartbeats;
mod member;
mod native;
mod producer;
mod reader;
mod transaction;

use crate::io::{
    Bounds, CommittedState, Internal, Log, LogError, Member, Membership, Position, Reader, Remedy, Retention, Topic, TopicPartition,
};
use crate::log::Connection;
use crate::log::exclusive::try_until_done;
use crate::record::Records;
use crate::settings::{KafkaSettings, Settings};
use config::PATIENCE;
use context::Context;
use native::{Client, Kind};
use producer::Producer;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long brokers may refuse connections before they count as down; within it, further addresses of a name are tried.
const REFUSED: Duration = Duration::from_secs(2);

/// How long a passing state is waited out, as after an election, or where a topic was made just now. It is asked again once even if the first answer took longer.
const SETTLING: Duration = Duration::from_secs(2);

/// The last row of each key is kept. Segments are short, so that what was replaced does not stay for a week before it can be compacted.
const CHANGELOG: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.ms", "3600000")];
/// Like a changelog. A host that was away for a week at most learns by a tombstone what is no more. How big a record may be is left to the brokers.
const CONTROL: [(&str, &str); 3] = [("cleanup.policy", "compact"), ("segment.ms", "3600000"), ("delete.retention.ms", "604800000")];
/// Nothing goes before it was read, however old its time is.
const REPARTITION: [(&str, &str); 3] = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// A Kafka cluster.
pub struct KafkaLog {
    brokers: String,
    settings: KafkaSettings,
    lookup: Arc<Client>,
    /// Made at the first use.
    admin: OnceLock<admin::Admin>,
    /// Made at the first use: a client's isolation level decides which end of a partition it is told.
    uncommitted: Mutex<Option<Arc<Client>>>,
    /// Made at the first use. Records without a key go round from here.
    producer: Mutex<Option<(Producer, usize)>>,
    /// Held by whoever writes exclusively: threads of one process need not fence each other.
    exclusive: Mutex<()>,
}

/// Connects to the brokers, with the settings of this machine.
pub fn open(brokers: &str, connection: &Connection) -> anyhow::Result<Arc<dyn Log>> {
    let settings = Settings::load(connection.config.as_deref())?;
    Ok(Arc::new(KafkaLog::connect(brokers, settings.kafka)?))
}

impl KafkaLog {
    /// Waits until a broker answers; if none does, that is an error that names them.
    pub fn connect(brokers: &str, settings: KafkaSettings) -> Result<Self, LogError> {
        let lookup = client(&config::lookup(brokers, &settings))?;
        let log = Self {
            brokers: brokers.to_owned(),
            settings,
            lookup,
            admin: OnceLock::new(),
            uncommitted: Mutex::new(None),
            producer: Mutex::new(None),
            exclusive: Mutex::new(()),
        };
        log.reach()?;
        Ok(log)
    }

    /// Waits for an answer of any broker.
    fn reach(&self) -> Result<(), LogError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = native::ping(&self.lookup, Duration::from_millis(250));
            native::serve(&self.lookup, Duration::ZERO);
            if answer.is_ok() {
                self.lookup.context().reached();
                return Ok(());
            }
            if let Some(error) = lost(&self.lookup, REFUSED) {
                return Err(self.unreachable(&error.message));
            }
            if Instant::now() >= deadline {
                return Err(self.unreachable("no answer"));
            }
        }
    }

    fn unreachable(&self, reason: &str) -> LogError {
        let message = format!(
            "no Kafka broker answers at {}: {reason}; check that it runs, the address, and `security.protocol` in the settings",
            self.brokers
        );
        LogError { remedy: Remedy::Wait, message }
    }

    /// Asks the brokers. If that fails because none answers, says so at once.
    fn ask<T>(&self, what: &str, ask: impl Fn(&Client) -> Result<T, native::Failure>) -> Result<T, LogError> {
        native::serve(&self.lookup, Duration::ZERO);
        if self.lookup.context().down().0.is_some() {
            self.reach()?;
        }
        let deadline = Instant::now() + SETTLING;
        let mut asked_again = false;
        let answer = loop {
            match ask(&self.lookup) {
                Err(failure) if errors::away(failure.code) && (!asked_again || Instant::now() < deadline) => self.reach()?,
                answer => break answer,
            }
            // The brokers are there: it is a passing state.
            if std::mem::replace(&mut asked_again, true) {
                native::serve(&self.lookup, Duration::from_millis(20));
            }
        };
        answer.map_err(|failure| errors::failed(what, &failure))
    }

    fn admin(&self) -> Result<&admin::Admin, LogError> {
        match self.admin.get() {
            Some(known) => Ok(known),
            // Of two that are made at once, the second is dropped.
            None => admin::admin(&config::producer(&self.brokers, &self.settings)).map(|made| self.admin.get_or_init(|| made)),
        }
    }

    /// Topics with what they take.
    fn described(&self, found: Vec<(String, i32)>) -> Result<Vec<Topic>, LogError> {
        let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
        let limits = admin::max_message_bytes(self.admin()?, &names)?;
        let topic = |(name, partitions): &(String, i32)| Topic {
            name: name.as_str().into(),
            partitions: *partitions,
            max_message_bytes: limits.get(name).copied(),
        };
        Ok(found.iter().map(topic).collect())
    }

    /// Makes a topic and waits until it can be used; one that somebody else has made just now, too. False: there was one already.
    fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<bool, LogError> {
        self.ask("creating a topic", |client| native::ping(client, PATIENCE))?;
        let made = admin::create(self.admin()?, name, partitions, settings)?;
        let there = self.wait_until(|| Ok(!self.ask("creating a topic", |client| admin::topics(client, Some(name)))?.is_empty()))?;
        if there { Ok(made) } else { Err(wait(format!("the topic {name} was created, but the brokers do not show it yet; try again"))) }
    }

    /// Whether it came to be so in time. Brokers learn of topics that come and go one after the other.
    fn wait_until(&self, so: impl Fn() -> Result<bool, LogError>) -> Result<bool, LogError> {
        let deadline = Instant::now() + PATIENCE;
        while !so()? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            native::serve(&self.lookup, Duration::from_millis(20));
        }
        Ok(true)
    }

    /// A client for what is committed of a group. librdkafka binds a client to one group; it does not join by this.
    fn of_group(&self, group: &str) -> Result<Arc<Client>, LogError> {
        client(&config::group(&self.brokers, &self.settings, group))
    }

    /// How many partitions the topic of a partition has; that there is no such partition is an error. Asked first, since librdkafka waits for
    /// partitions that it does not know.
    fn require(&self, at: &TopicPartition) -> Result<i32, LogError> {
        let partitions = self.partitions(&at.topic)?;
        if (0..partitions).contains(&at.partition) {
            return Ok(partitions);
        }
        Err(LogError::stop(format!("{} has the partitions 0 to {}; there is no partition {}", at.topic, partitions - 1, at.partition)))
    }

    /// How many partitions a topic has; that it is not there is an error.
    fn partitions(&self, name: &str) -> Result<i32, LogError> {
        let found = self.ask(&format!("looking up the topic {name}"), |client| admin::topics(client, Some(name)))?;
        let first = found.into_iter().next();
        first.map(|(_, partitions)| partitions).ok_or_else(|| {
            LogError::stop(format!("there is no topic {name} on {}; create it: {}", self.brokers, self.creation(name, None)))
        })
    }
}

fn client(config: &rdkafka::ClientConfig) -> Result<Arc<Client>, LogError> {
    native::client(config, Kind::Lookup, Context::default())
        .map(Arc::new)
        .map_err(|error| LogError::stop(format!("cannot make a Kafka client: {error}")))
}

fn wait(message: String) -> LogError {
    LogError { remedy: Remedy::Wait, message }
}

fn has_members(doing: &str, group: &str) -> LogError {
    wait(format!(
        "{doing} the group {group}: it has members; stop its pipeline on all hosts, wait until their sessions have timed out, and try again"
    ))
}

/// Asks a group's coordinator, again while it is not ready: it may have been chosen just now, as on brokers that are new or were restarted.
fn coordinated<T>(client: &Client, ask: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(error) if error.remedy == Remedy::Wait && Instant::now() < deadline => native::serve(client, Duration::from_millis(50)),
            answer => return answer,
        }
    }
}

/// The error of brokers that have been away for `grace`.
fn lost(client: &Client, grace: Duration) -> Option<LogError> {
    let (since, reason) = client.context().down();
    let reason = reason.unwrap_or_else(|| "all brokers are down".to_owned());
    since.filter(|since| since.elapsed() >= grace).map(|_| LogError { remedy: Remedy::Wait, message: reason })
}

impl Log for KafkaLog {
    fn topics(&self) -> Result<Vec<Topic>, LogError> {
        let found = self.ask("listing topics", |client| admin::topics(client, None))?;
        self.described(found)
    }

    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError> {
        let found = self.ask(&format!("looking up the topic {name}"), |client| admin::topics(client, Some(name)))?;
        Ok(self.described(found)?.into_iter().next())
    }

    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        match self.create(name, partitions, &[])? {
            true => Ok(()),
            false => Err(LogError::stop(format!("creating the topic {name}: it exists already"))),
        }
    }

    fn create_internal(&self, name: &str, partitions: i32, what: Internal) -> Result<(), LogError> {
        let settings: &[_] = match what {
            Internal::Changelog => &CHANGELOG,
            Internal::Repartition => &REPARTITION,
            Internal::Control => &CONTROL,
        };
        // Hosts that start at the same time want the same topics: one of them is the first.
        let created = self.create(name, partitions, settings).map(drop);
        if created.is_err() && self.topic(name)?.is_some() { Ok(()) } else { created }
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let what = format!("deleting the topic {name}");
        self.ask(&what, |client| native::ping(client, PATIENCE))?;
        admin::delete(self.admin()?, name)?;
        // It counts what it wrote to a partition, and would go on counting in a new one of this name.
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let gone = self.wait_until(|| Ok(self.ask(&what, |client| admin::topics(client, Some(name)))?.is_empty()))?;
        if gone { Ok(()) } else { Err(wait(format!("{what}: the brokers show it still; try again"))) }
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.ask(&format!("deleting the group {group}"), |client| native::ping(client, PATIENCE))?;
        let admin = self.admin()?;
        let deleted = coordinated(&self.lookup, || groups::delete(admin, group))?;
        if deleted { Ok(()) } else { Err(has_members("deleting", group)) }
    }

    fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        positions.iter().try_for_each(|(at, _)| self.require(at).map(drop))?;
        let client = self.of_group(group)?;
        let set = coordinated(&client, || groups::set_positions(&client, group, positions))?;
        if set { Ok(()) } else { Err(has_members("setting positions of", group)) }
    }

    fn retention(&self, topic: &str) -> Result<Option<Retention>, LogError> {
        self.partitions(topic)?;
        admin::retention(self.admin()?, topic)
    }

    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        admin::delete_before(self.admin()?, partitions)
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.require(partition)?;
        let uncommitted = {
            let mut slot = self.uncommitted.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *slot {
                Some(known) => known.clone(),
                none => none.insert(client(&config::uncommitted(&self.brokers, &self.settings))?).clone(),
            }
        };
        self.ask(&format!("looking up the end of {partition}"), |_| {
            Ok(uncommitted.fetch_watermarks(&partition.topic, partition.partition, PATIENCE)?.1)
        })
    }

    fn creation(&self, name: &str, partitions: Option<i32>) -> String {
        let partitions = partitions.map(|partitions| format!(" --partitions {partitions}")).unwrap_or_default();
        format!("millstream topic create {name}{partitions} --brokers {}", self.brokers)
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.require(partition)?;
        self.ask(&format!("looking up the ends of {partition}"), |client| {
            let (begin, end) = client.fetch_watermarks(&partition.topic, partition.partition, PATIENCE)?;
            Ok(Bounds { begin, end })
        })
    }

    fn offset_at(&self, partition: &TopicPartition, time: i64) -> Result<i64, LogError> {
        self.require(partition)?;
        let found = self.ask(&format!("looking up a time in {partition}"), |client| {
            let list = native::list([(&*partition.topic, partition.partition, Some(time.max(0)))])?;
            native::offsets_for_times(client, &list, PATIENCE)?;
            let entry = native::list_entries(&list).into_iter().next();
            match entry {
                Some(native::Entry { error: Some(code), .. }) => Err(native::Failure::new(code, code.to_string())),
                Some(entry) => Ok(entry.offset),
                None => Ok(-1),
            }
        })?;
        let bounds = self.bounds(partition)?;
        Ok(if found < 0 { bounds.end } else { found.min(bounds.end) })
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.ask("looking up committed positions", |client| native::ping(client, PATIENCE))?;
        let client = self.of_group(group)?;
        coordinated(&client, || groups::committed(&client, partitions))
    }

    fn produce(&self, topic: &str, partition: Option<i32>, records: &Records) -> Result<(), LogError> {
        let partitions = match partition {
            Some(partition) => self.require(&TopicPartition::new(topic, partition))?,
            None => self.partitions(topic)?,
        };
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = slot.take();
        let (producer, round) = match &mut taken {
            Some(known) => known,
            none => none.insert((Producer::new(&config::producer(&self.brokers, &self.settings))?, 0)),
        };
        producer.append(&topic.into(), records, |row| match (partition, records.keys.bytes(row)) {
            (Some(partition), _) => partition,
            (None, Some(key)) => crate::io::partition_for(key, partitions),
            (None, None) => {
                *round = round.wrapping_add(1);
                i32::try_from(*round % usize::try_from(partitions).unwrap_or(1)).unwrap_or_default()
            }
        })?;
        producer.flush(Duration::from_secs(90))?;
        // Kept only if all went well: what a failed one still holds must not be sent later.
        *slot = taken;
        Ok(())
    }

    fn exclusively(
        &self,
        name: &str,
        to: &TopicPartition,
        decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
    ) -> Result<(), LogError> {
        let _alone = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        let config = config::exclusive_producer(&self.brokers, &self.settings, name);
        try_until_done(name, to, || {
            // Each time, so that brokers that are away are noticed soon.
            self.require(to)?;
            exclusive::attempt(&config, to, decide)
        })
    }

    fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        let client = client(&config::lookup(&self.brokers, &self.settings))?;
        Ok(Box::new(reader::KafkaReader::new(client)))
    }

    fn member(&self, membership: &Membership) -> Result<Box<dyn Member>, LogError> {
        for topic in &membership.topics {
            self.partitions(topic)?;
        }
        let consumer = config::member(&self.brokers, &self.settings, membership);
        let producer = config::member_producer(&self.brokers, &self.settings, membership);
        Ok(Box::new(member::KafkaMember::join(self.settings.group_protocol, &consumer, &producer, membership)?))
    }

    fn state(&self, _group: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError> {
        // Changelogs are the state; rows are kept beside them.
        Ok(None)
    }
}
