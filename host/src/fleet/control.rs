//! The control topic of a fleet, read and written. A host follows it (`poll`); a command reads to its end (`refresh`) and changes it by
//! compare-and-set (`change`). What only its writer writes (answers, signs of life, chunks) is produced plainly.

use super::component::{Components, digest};
use super::record::{CHUNK, Entry, Key, Value, records};
use super::view::View;
use super::{control_topic, random_id};
use crate::clock::SystemClock;
use crate::io::{Clock, Event, FetchLimit, Internal, Log, LogError, Reader, Remedy, TopicPartition};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: FetchLimit = FetchLimit { rows: 1000, bytes: 4 << 20 };
/// How long a transaction of somebody may hide what lies behind it: a crashed writer's is aborted by the brokers after ten seconds, looked for every ten.
const HIDDEN: Duration = Duration::from_secs(30);

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else has changed meanwhile what was to be changed; says who.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be as things stand: no such pipeline, nothing to go back to.
    #[error("{0}")]
    Wrong(String),
}

/// Why the control topic cannot be used, or is not changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no fleet `{fleet}` here: no topic `{fleet}.control`; `millstream deploy FILE` begins it, --fleet names another")]
    NoFleet { fleet: String },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The control topic of a fleet, as far as it was read.
pub struct Control {
    log: Arc<dyn Log>,
    fleet: String,
    at: TopicPartition,
    reader: Box<dyn Reader>,
    /// Everything below this offset that can be read is in the view.
    reached: i64,
    view: View,
    /// How long `refresh` waits for what an open transaction hides.
    patience: Duration,
}

impl Control {
    /// Finds the topic of a fleet. Nothing is read yet: `refresh` or `poll` do.
    ///
    /// `cache`: the folder under which components are kept, in `components`; None = in a temporary one.
    pub fn open(log: Arc<dyn Log>, fleet: &str, cache: Option<&Path>) -> Result<Self, ControlError> {
        super::check_name(fleet).map_err(LogError::stop)?;
        let name = control_topic(fleet);
        let Some(topic) = log.topic(&name)? else { return Err(ControlError::NoFleet { fleet: fleet.to_owned() }) };
        let remedy = "move it away, or name another fleet by --fleet";
        if topic.partitions != 1 {
            let message = format!("the topic `{name}` has {} partitions, but a control topic has one: {remedy}", topic.partitions);
            return Err(LogError::stop(message).into());
        }
        if log.retention(&name)?.is_some_and(|retention| !retention.compacted) {
            let message = format!(
                "the topic `{name}` is not compacted, so deployments in it would be lost with time: set cleanup.policy=compact, or {remedy}"
            );
            return Err(LogError::stop(message).into());
        }
        let components = Components::open(cache);
        let components = components.map_err(|error| LogError::stop(format!("cannot make a folder for components: {error}")))?;
        let at = TopicPartition::new(name, 0);
        let mut reader = log.reader()?;
        let begin = log.bounds(&at)?.begin;
        reader.assign(&[(at.clone(), begin)])?;
        Ok(Self { log, fleet: fleet.to_owned(), at, reader, reached: begin, view: View::new(components), patience: HIDDEN })
    }

    /// The same; makes the topic if it is missing.
    pub fn create(log: Arc<dyn Log>, fleet: &str, cache: Option<&Path>) -> Result<Self, ControlError> {
        super::check_name(fleet).map_err(LogError::stop)?;
        let name = control_topic(fleet);
        log.create_internal(&name, 1, Internal::Control)?;
        Self::open(log, fleet, cache)
    }

    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The partition: a task appends its cut-over to it within its own transaction, as `record::records` makes it.
    pub fn partition(&self) -> &TopicPartition {
        &self.at
    }

    /// As of what was read last.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Reads what is there for at most so long; how many records came. For hosts, which follow the topic.
    pub fn poll(&mut self, wait: Duration) -> Result<usize, LogError> {
        match self.reader.poll(LIMIT, wait)? {
            Event::Records(fetched) => {
                self.view.fold(&fetched);
                self.reached = self.reached.max(fetched.offsets.last().map_or(0, |last| last + 1));
                Ok(fetched.offsets.len())
            }
            // What cannot be read (marks of transactions, what was aborted) counts as passed.
            Event::End { offset, .. } => {
                self.reached = self.reached.max(offset);
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// Reads to the end as it is now: everything that was committed before this call is in the view. An open transaction of somebody hides what lies
    /// behind it, which may be another's change: it is waited for, for half a minute at most.
    pub fn refresh(&mut self) -> Result<&View, LogError> {
        let end = self.log.high_watermark(&self.at)?;
        if self.reached > end {
            let message = format!(
                "the topic `{}` ends at offset {end}, but was read up to {}: it was deleted and made anew; start again",
                self.at.topic, self.reached
            );
            return Err(LogError::stop(message));
        }
        let mut since = Instant::now();
        while self.reached < end {
            let before = self.reached;
            self.poll(Duration::from_millis(100))?;
            if self.reached > before {
                since = Instant::now();
            } else if since.elapsed() > self.patience {
                return Err(LogError {
                    remedy: Remedy::Wait,
                    message: format!(
                        "the topic `{}` cannot be read beyond offset {} of {end}: a transaction of some writer is open there for more than {} s; \
                         if its process is gone, the brokers end it after its timeout: try again then",
                        self.at.topic,
                        self.reached,
                        self.patience.as_secs()
                    ),
                });
            }
        }
        Ok(&self.view)
    }

    /// Changes heads, and what goes with them, by compare-and-set: nobody else's change lies between what `decide` is shown and what it gives. It may be
    /// called several times, each time with what is there by then. A head among the entries gets a new `change`; no entries: nothing is changed.
    pub fn change(&mut self, mut decide: impl FnMut(&View) -> Result<Vec<Entry>, Refusal>) -> Result<(), ControlError> {
        let id = random_id();
        let mut refused = None;
        let log = self.log.clone();
        let (name, at) = (self.at.topic.clone(), self.at.clone());
        log.exclusively(&name, &at, &mut || {
            refused = None;
            self.refresh()?;
            if self.view.saw(&id) {
                return Ok(None);
            }
            let mut entries = match decide(&self.view) {
                Ok(entries) => entries,
                Err(refusal) => {
                    refused = Some(refusal);
                    return Ok(None);
                }
            };
            let mut heads = 0;
            for (_, value) in &mut entries {
                if let Some(Value::Head(head)) = value {
                    head.change.clone_from(&id);
                    heads += 1;
                }
            }
            if entries.is_empty() {
                return Ok(None);
            }
            if heads == 0 {
                return Err(LogError::stop("a change of the control topic without a head could not be told from another's"));
            }
            Ok(Some(records(&entries, SystemClock::default().now())))
        })?;
        match refused {
            Some(refusal) => Err(refusal.into()),
            None => {
                self.refresh()?;
                Ok(())
            }
        }
    }

    /// Writes what nobody else writes: answers, signs of life.
    pub fn produce(&self, entries: &[Entry]) -> Result<(), LogError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.log.produce(&self.at.topic, Some(self.at.partition), &records(entries, SystemClock::default().now()))
    }

    /// Puts a component into the topic, unless it is there: its digest, and in how many chunks it stands.
    pub fn put_component(&mut self, component: &[u8]) -> Result<(String, u32), LogError> {
        let digest = digest(component);
        let chunks: Vec<&[u8]> = if component.is_empty() { vec![component] } else { component.chunks(CHUNK).collect() };
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        self.refresh()?;
        if !self.view.components.has(&digest) {
            for (chunk, bytes) in (0..).zip(chunks) {
                self.produce(&[(Key::Component(digest.clone(), chunk), Some(Value::Chunk(bytes.to_vec(), count)))])?;
            }
        }
        Ok((digest, count))
    }

    /// A component by its digest, verified. None: not all of it was read from the topic.
    ///
    /// Err: it was read, but its file is gone, and the topic cannot be read for it again.
    pub fn component(&mut self, digest: &str) -> Result<Option<Vec<u8>>, LogError> {
        if !self.view.components.has(digest) {
            return Ok(None);
        }
        if let Some(found) = self.view.components.get(digest) {
            return Ok(Some(found));
        }
        // Somebody emptied the cache: the chunks are read anew, by a reader of their own.
        let end = self.reached;
        let begin = self.log.bounds(&self.at)?.begin;
        let mut reader = self.log.reader()?;
        reader.assign(&[(self.at.clone(), begin)])?;
        self.view.components.forget(digest);
        let (mut next, mut since) = (begin, Instant::now());
        while next < end && since.elapsed() < self.patience {
            match reader.poll(LIMIT, Duration::from_millis(100))? {
                Event::Records(fetched) => {
                    self.view.gather(digest, &fetched);
                    next = next.max(fetched.offsets.last().map_or(0, |last| last + 1));
                    since = Instant::now();
                }
                Event::End { offset, .. } => next = next.max(offset),
                _ => {}
            }
        }
        let found = self.view.components.get(digest);
        let lost = || {
            LogError::stop(format!(
                "the component {digest} cannot be kept as a file, or not read again from `{}`: is the disk of the cache folder (--cache) full?",
                self.at.topic
            ))
        };
        found.map(Some).ok_or_else(lost)
    }
}

#[cfg(test)]
mod tests;
