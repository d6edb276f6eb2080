//! A model of Kafka: partitions with control records and a last stable offset, the coordinator of transactions, a group.
//!
//! ```text
//!   producer:  Empty --append--> Ongoing --end--> Ending (markers are written one by one) --last marker--> Empty
//! ```
//! What is left out: replicas, compaction, more than one group.

use super::random::Random;
use crate::io::{Position, TopicPartition};
use crate::record::{Records, RecordsBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Longer than this no transaction stays open.
pub const TRANSACTION_LIFETIME: Duration = Duration::from_secs(3);

/// The number of a transaction, over all producers.
pub type Transaction = usize;

#[derive(Clone, Debug)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub fn records_of(records: &Records) -> Vec<Record> {
    (0..records.len())
        .map(|row| Record {
            timestamp: records.timestamps[row],
            key: records.keys.bytes(row).map(<[u8]>::to_vec),
            value: records.values.bytes(row).map(<[u8]>::to_vec),
            headers: records.headers.of(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        })
        .collect()
}

pub fn columns_of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Records {
    let mut columns = RecordsBuilder::default();
    for record in records {
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        columns.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), headers);
    }
    columns.finish()
}

#[derive(Debug)]
enum Entry {
    Record {
        record: Record,
        transaction: Option<Transaction>,
    },
    /// A control record.
    Marker,
}

/// A partition; an offset is an index.
#[derive(Debug, Default)]
pub struct Partition {
    entries: Vec<Entry>,
    /// Everything below was deleted.
    pub begin: i64,
    /// Transactions without their marker, with their first offsets.
    open: BTreeMap<Transaction, i64>,
    aborted: BTreeSet<Transaction>,
}

impl Partition {
    pub fn high_watermark(&self) -> i64 {
        self.entries.len() as i64
    }

    pub fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.high_watermark())
    }

    /// What a read_committed reader finds from an offset on, at most so many records.
    pub fn committed(&self, from: i64, rows: usize) -> Vec<(i64, &Record)> {
        self.visible(from.max(self.begin)).take(rows).collect()
    }

    /// What was ever committed, deleted or not.
    pub fn all_committed(&self) -> Vec<(i64, &Record)> {
        self.visible(0).collect()
    }

    fn visible(&self, from: i64) -> impl Iterator<Item = (i64, &Record)> {
        let stable = (from..self.last_stable()).map(|offset| (offset, &self.entries[offset as usize]));
        stable.filter_map(|(offset, entry)| match entry {
            Entry::Record { record, transaction } if !transaction.is_some_and(|it| self.aborted.contains(&it)) => Some((offset, record)),
            _ => None,
        })
    }
}

/// Why a broker refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another producer has the transactional id, or another member the instance id.
    Fenced,
    /// The group has moved on, or does not know the member.
    IllegalGeneration,
    /// Markers of the transaction before are being written: try again.
    Concurrent,
    /// There is no such transaction.
    InvalidState,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: i32,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Whether the last transaction was committed.
    Empty(Option<bool>),
    Ongoing(Open),
    Ending {
        open: Open,
        commit: bool,
    },
    #[default]
    New,
}

#[derive(Debug)]
struct Open {
    number: Transaction,
    since: Duration,
    /// That have no marker yet.
    partitions: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, Position>,
}

/// A request to end a transaction that is under way still, though its sender has given up on it.
#[derive(Debug)]
struct Delayed {
    id: Arc<str>,
    epoch: i32,
    commit: bool,
}

/// Who commits positions: instance id, process, generation.
#[derive(Clone, Debug)]
pub struct Committer {
    pub instance: Arc<str>,
    pub process: usize,
    pub generation: i32,
}

#[derive(Debug)]
struct GroupMember {
    process: usize,
    /// Has given up what it had, and waits for the others.
    joined: bool,
}

#[derive(Debug, Default)]
pub struct Group {
    generation: i32,
    /// By instance id.
    members: BTreeMap<Arc<str>, GroupMember>,
    rebalancing: bool,
    /// Members keep through a rebalance what stays theirs (cooperative), instead of giving up all that they have (eager).
    pub partial: bool,
    /// Then: who has what, until it is released.
    owned: BTreeMap<TopicPartition, Arc<str>>,
    pub positions: BTreeMap<TopicPartition, Position>,
}

impl Group {
    /// Changes positions from outside; None if there are members, who alone may then.
    pub fn set_positions(&mut self, change: impl FnOnce(&mut BTreeMap<TopicPartition, Position>)) -> Option<()> {
        self.members.is_empty().then(|| change(&mut self.positions))
    }
}

/// What a member hears of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Has a place in this generation.
    Stable(i32),
    /// Is to give up what it has.
    Rebalancing,
    /// Has joined, and waits.
    Waiting,
    /// The group does not know it.
    Unknown,
    /// Another process has its name.
    Fenced,
}

#[derive(Debug, Default)]
pub struct Broker {
    pub topics: BTreeMap<Arc<str>, Vec<Partition>>,
    producers: BTreeMap<Arc<str>, Producer>,
    next: Transaction,
    delayed: Vec<Delayed>,
    pub group: Group,
}

impl Broker {
    pub fn partition(&self, at: &TopicPartition) -> &Partition {
        &self.topics[&at.topic][at.partition as usize]
    }

    pub fn partition_mut(&mut self, at: &TopicPartition) -> &mut Partition {
        &mut self.topics.get_mut(&at.topic).expect("the topic was created")[at.partition as usize]
    }

    /// Makes a producer the only one with its id; what an older one left open is aborted first.
    pub fn init(&mut self, id: &Arc<str>) -> Result<i32, Refusal> {
        let producer = self.producers.entry(id.clone()).or_default();
        match std::mem::take(&mut producer.state) {
            State::Ongoing(open) => {
                producer.epoch += 1;
                producer.state = State::Ending { open, commit: false };
                self.settle(id);
                Err(Refusal::Concurrent)
            }
            state @ State::Ending { .. } => {
                producer.state = state;
                Err(Refusal::Concurrent)
            }
            State::Empty(_) | State::New => {
                producer.epoch += 1;
                Ok(producer.epoch)
            }
        }
    }

    /// The transaction that is open, begun if there is none.
    fn open(&mut self, id: &Arc<str>, epoch: i32, now: Duration) -> Result<&mut Open, Refusal> {
        let next = &mut self.next;
        let producer = self.producers.get_mut(id).ok_or(Refusal::InvalidState)?;
        if producer.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        if matches!(producer.state, State::Empty(_) | State::New) {
            *next += 1;
            let open = Open { number: *next, since: now, partitions: BTreeSet::new(), positions: BTreeMap::new() };
            producer.state = State::Ongoing(open);
        }
        match &mut producer.state {
            State::Ongoing(open) => Ok(open),
            _ => Err(Refusal::Concurrent),
        }
    }

    pub fn append(&mut self, id: &Arc<str>, epoch: i32, now: Duration, to: &TopicPartition, records: &[Record]) -> Result<(), Refusal> {
        let open = self.open(id, epoch, now)?;
        open.partitions.insert(to.clone());
        let number = open.number;
        let partition = self.partition_mut(to);
        let end = partition.high_watermark();
        partition.open.entry(number).or_insert(end);
        partition.entries.extend(records.iter().map(|record| Entry::Record { record: record.clone(), transaction: Some(number) }));
        Ok(())
    }

    /// Appends outside any transaction.
    pub fn produce(&mut self, to: &TopicPartition, records: &[Record]) {
        let entries = records.iter().map(|record| Entry::Record { record: record.clone(), transaction: None });
        self.partition_mut(to).entries.extend(entries);
    }

    fn check(&self, committer: &Committer) -> Result<(), Refusal> {
        match self.group.members.get(&committer.instance) {
            Some(member) if member.process != committer.process => Err(Refusal::Fenced),
            Some(_) if committer.generation == self.group.generation => Ok(()),
            _ => Err(Refusal::IllegalGeneration),
        }
    }

    /// Adds positions to the transaction. `committer` None: they are taken whoever sends them.
    pub fn add_positions(
        &mut self,
        id: &Arc<str>,
        epoch: i32,
        now: Duration,
        committer: Option<&Committer>,
        positions: &[(TopicPartition, Position)],
    ) -> Result<(), Refusal> {
        if let Some(committer) = committer {
            self.check(committer)?;
        }
        self.open(id, epoch, now)?.positions.extend(positions.iter().cloned());
        Ok(())
    }

    /// Decides a transaction. Its markers are written later.
    pub fn end(&mut self, id: &Arc<str>, epoch: i32, commit: bool) -> Result<(), Refusal> {
        let producer = self.producers.get_mut(id).ok_or(Refusal::InvalidState)?;
        if producer.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        match std::mem::take(&mut producer.state) {
            State::Ongoing(open) => {
                producer.state = State::Ending { open, commit };
                self.settle(id);
                Ok(())
            }
            state => {
                let same = matches!(&state, State::Ending { commit: other, .. } | State::Empty(Some(other)) if *other == commit);
                producer.state = state;
                if same { Ok(()) } else { Err(Refusal::InvalidState) }
            }
        }
    }

    /// The request to end a transaction arrives at some later time.
    pub fn end_later(&mut self, id: &Arc<str>, epoch: i32, commit: bool) {
        self.delayed.push(Delayed { id: id.clone(), epoch, commit });
    }

    /// A transaction with all its markers is over.
    fn settle(&mut self, id: &Arc<str>) {
        let Some(producer) = self.producers.get_mut(id) else { return };
        if let State::Ending { open, commit } = &producer.state
            && open.partitions.is_empty()
            && open.positions.is_empty()
        {
            producer.state = State::Empty(Some(*commit));
        }
    }

    /// What goes on by itself: a marker is written, a late request arrives, a transaction grows too old.
    pub fn go_on(&mut self, random: &mut Random, now: Duration) {
        if !self.delayed.is_empty() && random.once_in(16) {
            let late = self.delayed.swap_remove(random.below(self.delayed.len()));
            // Its sender asks no more.
            let _ = self.end(&late.id, late.epoch, late.commit);
        }
        let mut ending = Vec::new();
        for (id, producer) in &mut self.producers {
            if matches!(&producer.state, State::Ongoing(open) if now >= open.since + TRANSACTION_LIFETIME)
                && let State::Ongoing(open) = std::mem::take(&mut producer.state)
            {
                producer.epoch += 1;
                producer.state = State::Ending { open, commit: false };
            }
            if matches!(producer.state, State::Ending { .. }) {
                ending.push(id.clone());
            }
        }
        if !ending.is_empty() {
            let id = ending[random.below(ending.len())].clone();
            self.write_marker(&id, random);
        }
    }

    fn write_marker(&mut self, id: &Arc<str>, random: &mut Random) {
        let Some(Producer { state: State::Ending { open, commit }, .. }) = self.producers.get_mut(id) else { return };
        let commit = *commit;
        let choice = random.below(open.partitions.len() + usize::from(!open.positions.is_empty()));
        if let Some(at) = open.partitions.iter().nth(choice).cloned() {
            open.partitions.remove(&at);
            let number = open.number;
            let partition = self.partition_mut(&at);
            partition.open.remove(&number);
            if !commit {
                partition.aborted.insert(number);
            }
            partition.entries.push(Entry::Marker);
        } else {
            let positions = std::mem::take(&mut open.positions);
            if commit {
                self.group.positions.extend(positions);
            }
        }
        self.settle(id);
    }

    /// Whether a transaction still has to say something of these positions.
    pub fn unstable(&self, partitions: &[TopicPartition]) -> bool {
        self.producers.values().any(|producer| match &producer.state {
            State::Ongoing(open) | State::Ending { open, .. } => partitions.iter().any(|at| open.positions.contains_key(at)),
            _ => false,
        })
    }

    /// Whether the group has committed positions behind every record of a topic.
    pub fn consumed(&self, topic: &Arc<str>) -> bool {
        self.topics[topic].iter().zip(0..).all(|(partition, number)| {
            let position = self.group.positions.get(&TopicPartition::new(topic.clone(), number)).map_or(0, |position| position.offset);
            partition.last_stable() == partition.high_watermark() && partition.committed(position, 1).is_empty()
        })
    }

    /// Nothing is under way.
    pub fn at_rest(&self) -> bool {
        self.delayed.is_empty() && self.producers.values().all(|producer| matches!(producer.state, State::Empty(_) | State::New))
    }

    // The group.

    /// A process takes its place; one with a known name takes over what the name has.
    pub fn join(&mut self, instance: &Arc<str>, process: usize) {
        let group = &mut self.group;
        group.owned.retain(|_, owner| owner != instance);
        if let Some(member) = group.members.get_mut(instance) {
            *member = GroupMember { process, joined: group.rebalancing };
            if group.partial {
                self.rebalance(Some(instance));
            }
        } else {
            group.members.insert(instance.clone(), GroupMember { process, joined: true });
            self.rebalance(Some(instance));
        }
        self.complete();
    }

    /// The session of a member ends.
    pub fn expire(&mut self, instance: &Arc<str>) {
        if self.group.members.remove(instance).is_some() {
            self.group.owned.retain(|_, owner| owner != instance);
            self.rebalance(None);
            self.complete();
        }
    }

    pub fn knows(&self, instance: &Arc<str>) -> bool {
        self.group.members.contains_key(instance)
    }

    fn rebalance(&mut self, but: Option<&Arc<str>>) {
        let group = &mut self.group;
        if !std::mem::replace(&mut group.rebalancing, true) {
            for (name, member) in &mut group.members {
                member.joined = Some(name) == but;
            }
        }
    }

    fn complete(&mut self) {
        let group = &mut self.group;
        if group.rebalancing && group.members.values().all(|member| member.joined) {
            group.rebalancing = false;
            group.generation += 1;
        }
    }

    pub fn standing(&self, instance: &Arc<str>, process: usize) -> Standing {
        let group = &self.group;
        match group.members.get(instance) {
            None => Standing::Unknown,
            Some(member) if member.process != process => Standing::Fenced,
            Some(member) if group.rebalancing && member.joined => Standing::Waiting,
            Some(_) if group.rebalancing => Standing::Rebalancing,
            Some(_) => Standing::Stable(group.generation),
        }
    }

    /// A member that keeps the rest has given something up: it can go to others in the next generation.
    pub fn released_some(&mut self, instance: &Arc<str>, process: usize, partitions: &[TopicPartition]) {
        if self.group.members.get(instance).is_some_and(|member| member.process == process) {
            self.group.owned.retain(|at, owner| owner != instance || !partitions.contains(at));
            self.rebalance(Some(instance));
            self.complete();
        }
    }

    /// Takes those of the partitions that nobody else has.
    pub fn take_free(&mut self, instance: &Arc<str>, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let owned = &mut self.group.owned;
        let free: Vec<_> = partitions.iter().filter(|at| owned.get(*at).is_none_or(|owner| owner == instance)).cloned().collect();
        owned.extend(free.iter().map(|at| (at.clone(), instance.clone())));
        free
    }

    /// Commits positions outside any transaction.
    pub fn commit_positions(&mut self, committer: &Committer, positions: &[(TopicPartition, Position)]) -> Result<(), Refusal> {
        self.check(committer)?;
        self.group.positions.extend(positions.iter().cloned());
        Ok(())
    }

    /// A member has given up what it had.
    pub fn released(&mut self, instance: &Arc<str>, process: usize) {
        if let Some(member) = self.group.members.get_mut(instance).filter(|member| member.process == process) {
            member.joined = true;
            self.complete();
        }
    }

    /// The partitions of a member: of each topic a range, so that partitions of one number meet.
    pub fn assigned(&self, instance: &Arc<str>, topics: &[Arc<str>]) -> Vec<TopicPartition> {
        let members = self.group.members.len();
        let Some(place) = self.group.members.keys().position(|name| name == instance) else { return Vec::new() };
        let mut assigned = Vec::new();
        for topic in topics {
            let count = self.topics[topic].len();
            let owned = (0..count).filter(|partition| partition * members / count == place);
            assigned.extend(owned.map(|partition| TopicPartition::new(topic.clone(), partition as i32)));
        }
        assigned
    }
}
