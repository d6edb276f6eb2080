//! The model's ends as a worker sees them: `Log` and `Reader`.

use super::broker::{columns_of, records_of};
use super::member::SimulatedMember;
use super::world::{Handle, pass, with};
use crate::io::{
    Bounds, CommittedState, Event, FetchLimit, Fetched, Log, LogError, Member, Membership, Position, Reader, Topic, TopicPartition,
};
use crate::record::Records;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub struct SimulatedLog(pub Handle);

impl Log for SimulatedLog {
    fn topics(&self) -> Result<Vec<Topic>, LogError> {
        let names: Vec<_> = with(|world| world.broker.topics.keys().cloned().collect());
        names.iter().filter_map(|name| self.topic(name).transpose()).collect()
    }

    fn topic(&self, name: &str) -> Result<Option<Topic>, LogError> {
        self.0.reach()?;
        Ok(with(|world| {
            let (name, partitions) = world.broker.topics.get_key_value(name)?;
            Some(Topic { name: name.clone(), partitions: partitions.len() as i32, max_message_bytes: None })
        }))
    }

    fn create_topic(&self, name: &str, partitions: i32) -> Result<(), LogError> {
        self.0.reach()?;
        with(|world| {
            let topic = world.broker.topics.entry(name.into()).or_default();
            // Of two workers that create it, one comes later.
            if topic.is_empty() {
                topic.resize_with(partitions as usize, Default::default);
            }
        });
        Ok(())
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        Err(LogError::stop(format!("the model of Kafka deletes no topics, {name} neither: who reads one that is gone is not modelled")))
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.0.reach()?;
        with(|world| world.broker.group.set_positions(|positions| positions.clear())).ok_or_else(|| has_members(group))
    }

    fn move_group(&self, group: &str, positions: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.0.reach()?;
        with(|world| world.broker.group.set_positions(|of| of.extend(positions.iter().cloned()))).ok_or_else(|| has_members(group))
    }

    fn delete_before(&self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.0.reach()?;
        with(|world| {
            for (at, offset) in partitions {
                let partition = world.broker.partition_mut(at);
                partition.begin = partition.begin.max(*offset);
            }
        });
        Ok(())
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.0.reach()?;
        Ok(with(|world| world.broker.partition(partition).high_watermark()))
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.0.reach()?;
        Ok(with(|world| {
            let partition = world.broker.partition(partition);
            Bounds { begin: partition.begin, end: partition.last_stable() }
        }))
    }

    fn offset_at(&self, partition: &TopicPartition, _: i64) -> Result<i64, LogError> {
        Ok(self.bounds(partition)?.end)
    }

    fn committed(&self, _: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.0.reach()?;
        committed(partitions)
    }

    fn produce(&self, _: &str, _: Option<i32>, _: &Records) -> Result<(), LogError> {
        Err(LogError::stop("a worker writes by its member"))
    }

    fn exclusively(
        &self,
        name: &str,
        to: &TopicPartition,
        decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
    ) -> Result<(), LogError> {
        let id = name.into();
        // Each turn of another ends at some time.
        for _ in 0..400 {
            self.0.reach()?;
            match with(|world| world.broker.init(&id)) {
                Ok(epoch) => {
                    let Some(records) = decide()?.filter(|records| !records.is_empty()) else { return Ok(()) };
                    let records = records_of(&records);
                    self.0.reach()?;
                    let appended = with(|world| world.broker.append(&id, epoch, world.now, to, &records));
                    self.0.reach()?;
                    if appended.is_ok() && with(|world| world.broker.end(&id, epoch, true)).is_ok() {
                        return Ok(());
                    }
                }
                // What another left open is being ended.
                Err(_) => with(|world| world.go_on()),
            }
        }
        Err(super::world::wait("others keep writing"))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, LogError> {
        self.0.enter()?;
        Ok(Box::new(SimulatedReader { handle: self.0.clone(), places: Places::default() }))
    }

    fn member(&self, membership: &Membership) -> Result<Box<dyn Member>, LogError> {
        self.0.reach()?;
        Ok(Box::new(SimulatedMember::join(self.0.clone(), membership.topics.clone(), membership.guarantee)?))
    }

    fn state(&self, _: &str) -> Result<Option<Arc<dyn CommittedState>>, LogError> {
        Ok(None)
    }
}

fn has_members(group: &str) -> LogError {
    super::world::wait(&format!("the group {group} has members"))
}

/// Committed positions, once no transaction has a word to say of them.
pub fn committed(partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
    for _ in 0..400 {
        let found = with(|world| {
            if world.broker.unstable(partitions) {
                world.now += Duration::from_millis(5);
                world.go_on();
                return None;
            }
            Some(partitions.iter().map(|at| world.broker.group.positions.get(at).cloned()).collect())
        });
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(super::world::wait("looking up committed positions: unstable"))
}

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub next: i64,
    pub paused: bool,
    /// The end that was told last.
    pub told: i64,
}

impl Place {
    pub fn at(next: i64) -> Self {
        Self { next, paused: false, told: -1 }
    }
}

/// The partitions that are read.
#[derive(Default)]
pub struct Places(pub BTreeMap<TopicPartition, Place>);

impl Places {
    /// What one of the partitions has, whichever comes first.
    pub fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        if let Some((at, _)) = self.0.iter().find(|(at, place)| place.next < with(|world| world.broker.partition(at).begin)) {
            return Err(LogError::stop(format!("{at}: the records there are no longer kept")));
        }
        let event = with(|world| {
            let mut ready: Vec<_> = self
                .0
                .iter_mut()
                .filter(|(at, place)| {
                    let stable = world.broker.partition(at).last_stable();
                    !place.paused && (place.next < stable || place.told < stable)
                })
                .collect();
            if ready.is_empty() {
                return None;
            }
            let (at, place) = ready.swap_remove(world.random.below(ready.len()));
            let rows = 1 + world.random.below(limit.rows);
            let partition = world.broker.partition(at);
            let found = partition.committed(place.next, rows);
            let Some((last, _)) = found.last() else {
                // Control records, and what was aborted.
                place.next = partition.last_stable();
                place.told = place.next;
                return Some(Event::End { at: at.clone(), offset: place.next });
            };
            place.next = last + 1;
            let offsets = found.iter().map(|(offset, _)| *offset).collect();
            let records = columns_of(found.iter().map(|(_, record)| *record));
            Some(Event::Records(Fetched { from: at.clone(), offsets, records }))
        });
        Ok(event.unwrap_or_else(|| {
            pass(wait);
            Event::Idle
        }))
    }
}

struct SimulatedReader {
    handle: Handle,
    places: Places,
}

impl Reader for SimulatedReader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.handle.enter()?;
        self.places.0 = partitions.iter().map(|(at, from)| (at.clone(), Place::at(*from))).collect();
        Ok(())
    }

    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        self.handle.reach()?;
        self.places.poll(limit, wait)
    }
}
