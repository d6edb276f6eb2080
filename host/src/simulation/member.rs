//! A member of the group with its producer, as the one of Kafka (`log/kafka/member.rs`, `log/kafka/transaction.rs`) behaves: what it knows is as old as
//! its last poll, commits are made beside it, errors mean what they mean there.

use super::broker::{Committer, Record, Refusal, Standing, TRANSACTION_LIFETIME, records_of};
use super::log::{Place, Places, committed};
use super::world::{Handle, say, with};
use crate::io::{Commit, CommitState, Event, FetchLimit, Guarantee, LogError, Member, Position, Remedy, TopicPartition};
use crate::planted::{Mistake, planted};
use crate::record::Records;
use std::sync::Arc;
use std::time::Duration;

/// How far a commit is.
enum Step {
    Flush,
    Positions,
    End,
    Answer(Result<(), LogError>),
}

struct Job {
    step: Step,
    positions: Vec<(TopicPartition, Position)>,
    committer: Committer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    Open,
    Committing,
}

pub struct SimulatedMember {
    handle: Handle,
    topics: Vec<Arc<str>>,
    /// As of the last assignment; -1 = none yet.
    generation: i32,
    places: Places,
    /// Told, and not yet started or released.
    assigned: Vec<TopicPartition>,
    /// A revocation was told and not yet confirmed; whether the partitions were lost.
    revoking: Option<bool>,
    /// There are no transactions: at least once.
    loose: bool,
    epoch: i32,
    state: State,
    opened: Duration,
    /// The brokers have heard of the transaction.
    registered: bool,
    /// Appended and not yet sent.
    unsent: Vec<(TopicPartition, Vec<Record>)>,
    /// What was not taken, as the commit will tell.
    failed: Option<LogError>,
    /// A new producer must go on.
    spoilt: bool,
    job: Option<Job>,
}

impl SimulatedMember {
    pub fn join(handle: Handle, topics: Vec<Arc<str>>, guarantee: Guarantee) -> Result<Self, LogError> {
        let loose = guarantee == Guarantee::AtLeastOnce;
        let epoch = if loose { 0 } else { handle.ask("starting a transactional producer", |broker, _| broker.init(&handle.name))? };
        with(|world| {
            world.broker.join(&handle.name, handle.process);
            world.processes[handle.process].joined = true;
        });
        say!("{handle} joins, epoch {epoch}");
        Ok(Self {
            handle,
            topics,
            generation: -1,
            places: Places::default(),
            assigned: Vec::new(),
            revoking: None,
            loose,
            epoch,
            state: State::None,
            opened: Duration::ZERO,
            registered: false,
            unsent: Vec::new(),
            failed: None,
            spoilt: false,
            job: None,
        })
    }

    fn standing(&self) -> Standing {
        with(|world| world.broker.standing(&self.handle.name, self.handle.process))
    }

    fn holds(&self) -> Vec<TopicPartition> {
        let mut held: Vec<_> = self.places.0.keys().chain(&self.assigned).cloned().collect();
        held.sort();
        held.dedup();
        held
    }

    /// What the group has to tell.
    fn rebalance(&mut self) -> Result<Option<Event>, LogError> {
        if self.revoking.is_some() {
            return Ok(None);
        }
        let held = self.holds();
        let standing = self.standing();
        if with(|world| world.broker.group.partial)
            && let Standing::Rebalancing | Standing::Stable(_) = standing
        {
            return Ok(self.rebalance_partly(standing, &held));
        }
        let lost = match standing {
            Standing::Fenced => {
                return Err(LogError { remedy: Remedy::Fenced, message: "the group: another process has this name".to_owned() });
            }
            Standing::Stable(generation) if generation == self.generation => return Ok(None),
            Standing::Stable(generation) if self.generation < 0 || held.is_empty() => {
                self.generation = generation;
                let assigned = with(|world| world.broker.assigned(&self.handle.name, &self.topics));
                say!("{} gets {} in generation {generation}", self.handle, list(&assigned));
                self.assigned.clone_from(&assigned);
                return Ok((!assigned.is_empty()).then_some(Event::Assigned(assigned)));
            }
            Standing::Waiting => return Ok(None),
            Standing::Rebalancing => false,
            Standing::Unknown | Standing::Stable(_) => true,
        };
        if held.is_empty() {
            self.joined();
            return Ok(None);
        }
        Ok(Some(self.revoke(held, lost)))
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>, lost: bool) -> Event {
        self.revoking = Some(lost);
        say!("{} is to give up {}{}", self.handle, list(&partitions), if lost { ": lost" } else { "" });
        Event::Revoked { partitions, lost }
    }

    /// As `rebalance`, where what stays is kept. Partitions come only when who had them has released them, one generation later.
    fn rebalance_partly(&mut self, standing: Standing, held: &[TopicPartition]) -> Option<Event> {
        let Standing::Stable(generation) = standing else {
            with(|world| world.broker.released(&self.handle.name, self.handle.process));
            return None;
        };
        if generation == self.generation {
            return None;
        }
        self.generation = generation;
        let target = with(|world| world.broker.assigned(&self.handle.name, &self.topics));
        let gone: Vec<_> = held.iter().filter(|at| !target.contains(at)).cloned().collect();
        if !gone.is_empty() {
            return Some(self.revoke(gone, false));
        }
        let more: Vec<_> = target.into_iter().filter(|at| !held.contains(at)).collect();
        let more = with(|world| world.broker.take_free(&self.handle.name, &more));
        say!("{} has {} and gets {} in generation {generation}", self.handle, list(held), list(&more));
        self.assigned.extend(more.iter().cloned());
        (!more.is_empty()).then_some(Event::Assigned(more))
    }

    /// As Kafka's: a rewind that crosses a rebalance starts nothing, and holds nothing. What is kept through it goes on.
    fn crosses_a_rebalance(&self) -> bool {
        let standing = self.standing();
        let same = matches!(standing, Standing::Stable(generation) if generation == self.generation);
        let keeps = with(|world| world.broker.group.partial) && !matches!(standing, Standing::Unknown | Standing::Fenced);
        self.revoking.is_some() || !(same || keeps)
    }

    fn joined(&mut self) {
        self.generation = -1;
        with(|world| {
            if world.broker.knows(&self.handle.name) {
                world.broker.released(&self.handle.name, self.handle.process);
            } else {
                world.broker.join(&self.handle.name, self.handle.process);
            }
        });
    }

    fn begin(&mut self) {
        if self.state == State::None {
            self.state = State::Open;
            self.opened = with(|world| world.now);
        }
    }

    /// As in `Transactions::fenced_by_age`.
    fn by_age(&self, error: LogError) -> LogError {
        let age = with(|world| world.now).saturating_sub(self.opened);
        if self.loose || error.remedy != Remedy::Fenced || age < TRANSACTION_LIFETIME {
            return error;
        }
        LogError { remedy: Remedy::Indefinite, message: format!("{}: the transaction was open for too long", error.message) }
    }

    /// Sends what was appended, at most so many pieces.
    fn send(&mut self, most: usize) -> Result<(), LogError> {
        for (to, records) in self.unsent.drain(..most.min(self.unsent.len())).collect::<Vec<_>>() {
            let (name, epoch) = (&self.handle.name, self.epoch);
            let loose = self.loose;
            let sent = self.handle.ask("appending", |broker, now| {
                if loose {
                    broker.produce(&to, &records);
                    return Ok(());
                }
                broker.append(name, epoch, now, &to, &records)
            });
            sent.map_err(|error| {
                self.spoilt = true;
                self.by_age(error)
            })?;
            self.registered = true;
        }
        Ok(())
    }

    /// One step of the commit, made by a thread beside the worker.
    fn work(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let (name, epoch) = (self.handle.name.clone(), self.epoch);
        let taken = |outcome: Result<(), LogError>, next| match outcome {
            Ok(()) => next,
            Err(error) => Step::Answer(Err(error)),
        };
        let commit_alone = |unsure: bool| -> Result<(), LogError> {
            let come = with(|world| !unsure || world.random.once_in(2));
            let commit = |broker: &mut super::broker::Broker, _| broker.commit_positions(&job.committer, &job.positions);
            let committed = if come { self.handle.ask("committing positions", commit) } else { Ok(()) };
            if unsure { Err(super::world::wait("committing positions: the time is up")) } else { committed }
        };
        job.step = match job.step {
            Step::Flush if planted(Mistake::PositionsFirst) && self.loose => taken(commit_alone(false), Step::Positions),
            Step::Positions if planted(Mistake::PositionsFirst) && self.loose => {
                Step::Answer(self.failed.take().map_or_else(|| self.send(usize::MAX), Err))
            }
            Step::Positions if self.loose => {
                let unsure = with(|world| {
                    let unsure = world.random.once_in(world.faults.indefinite);
                    world.figures.indefinite += u64::from(unsure);
                    unsure
                });
                Step::Answer(commit_alone(unsure))
            }
            Step::Flush => taken(self.failed.take().map_or_else(|| self.send(usize::MAX), Err), Step::Positions),
            Step::Positions => {
                let committer = (!planted(Mistake::NoGeneration)).then_some(&job.committer);
                let outcome = if planted(Mistake::PositionsApart) {
                    with(|world| world.broker.group.positions.extend(job.positions.iter().cloned()));
                    Ok(())
                } else if job.positions.is_empty() {
                    Ok(())
                } else {
                    self.registered = true;
                    let add = |broker: &mut super::broker::Broker, now| broker.add_positions(&name, epoch, now, committer, &job.positions);
                    self.handle.ask("committing positions", add)
                };
                taken(outcome, Step::End)
            }
            Step::End if !self.registered => Step::Answer(Ok(())),
            Step::End => match self.indefinite(true) {
                Some(error) => Step::Answer(Err(error)),
                None => Step::Answer(self.handle.ask("committing", |broker, _| broker.end(&name, epoch, true))),
            },
            answer => answer,
        };
        if let Step::Answer(answer) = &job.step {
            let answer = answer.as_ref().map_or_else(|error| error.message.clone(), |()| "done".to_owned());
            say!("{} commits {}: {answer}", self.handle, places(&job.positions));
        }
        self.job = Some(job);
    }

    /// Now and then nobody hears how a transaction ended: the brokers did it, or will do it, or never heard of it.
    fn indefinite(&self, commit: bool) -> Option<LogError> {
        with(|world| {
            if !world.random.once_in(world.faults.indefinite) {
                return None;
            }
            world.figures.indefinite += 1;
            match world.random.below(3) {
                0 => {}
                1 => world.broker.end(&self.handle.name, self.epoch, commit).unwrap_or_default(),
                _ => world.broker.end_later(&self.handle.name, self.epoch, commit),
            }
            Some(LogError { remedy: Remedy::Indefinite, message: "ending a transaction: the time is up".to_owned() })
        })
    }

    /// Some steps of the commit, as many as happen to be made meanwhile.
    fn meanwhile(&mut self) {
        while self.job.as_ref().is_some_and(|job| !matches!(job.step, Step::Answer(_))) && with(|world| world.random.once_in(world.slow)) {
            self.work();
        }
        if self.state == State::Open
            && with(|world| world.random.once_in(3))
            && let Err(error) = self.send(1)
        {
            self.failed.get_or_insert(error);
        }
    }

    fn enter(&mut self) -> Result<(), LogError> {
        self.handle.enter()?;
        self.meanwhile();
        Ok(())
    }

    fn reach(&mut self) -> Result<(), LogError> {
        self.handle.reach()?;
        self.meanwhile();
        Ok(())
    }

    fn answer(&mut self) -> Option<Result<(), LogError>> {
        match self.job.take() {
            Some(Job { step: Step::Answer(answer), .. }) => Some(answer),
            job => {
                self.job = job;
                None
            }
        }
    }

    /// A new producer of the same name.
    fn renew(&mut self) -> Result<(), LogError> {
        let name = self.handle.name.clone();
        if self.loose {
            self.spoilt = false;
            return Ok(());
        }
        self.epoch = self.handle.ask("starting a transactional producer", |broker, _| broker.init(&name))?;
        self.spoilt = false;
        Ok(())
    }
}

fn list(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(" ")
}

fn places(positions: &[(TopicPartition, Position)]) -> String {
    positions.iter().map(|(at, position)| format!("{at}@{}", position.offset)).collect::<Vec<_>>().join(" ")
}

impl Member for SimulatedMember {
    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        self.reach()?;
        if let Some(event) = self.rebalance()? {
            return Ok(event);
        }
        if self.revoking.is_some() {
            with(|world| world.now += wait);
            return Ok(Event::Idle);
        }
        self.places.poll(limit, wait)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.reach()?;
        committed(partitions)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.enter()?;
        if self.crosses_a_rebalance() {
            return Ok(());
        }
        for (at, from) in partitions {
            self.places.0.insert(at.clone(), Place::at(*from));
            self.assigned.retain(|assigned| assigned != at);
        }
        Ok(())
    }

    fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.enter()?;
        if self.crosses_a_rebalance() {
            return Ok(());
        }
        for at in partitions {
            if self.places.0.remove(at).is_some() {
                self.assigned.push(at.clone());
            }
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.enter()?;
        for at in partitions {
            if let Some(place) = self.places.0.get_mut(at) {
                place.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.enter()?;
        for at in partitions {
            let Some(place) = self.places.0.get_mut(at) else {
                return Err(LogError::stop(format!("{at} is resumed, and was not started")));
            };
            *place = Place::at(place.next);
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.enter()?;
        for at in partitions {
            self.places.0.remove(at);
        }
        self.assigned.retain(|at| !partitions.contains(at));
        let partial = with(|world| world.broker.group.partial);
        if partial && self.revoking == Some(false) {
            self.revoking = None;
            with(|world| world.broker.released_some(&self.handle.name, self.handle.process, partitions));
        } else if self.holds().is_empty() {
            self.revoking = None;
            self.joined();
        }
        Ok(())
    }

    fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
        self.enter()?;
        if self.state == State::Committing {
            return Err(LogError::stop("nothing may be written while a commit is in flight"));
        }
        self.begin();
        self.unsent.push((to.clone(), records_of(records)));
        let untaken = with(|world| {
            let untaken = world.random.once_in(world.faults.untaken);
            world.figures.errors += u64::from(untaken);
            untaken
        });
        if untaken {
            self.spoilt = true;
            self.unsent.pop();
            return Err(LogError { remedy: Remedy::Rewind, message: format!("a record for {to} was not taken") });
        }
        Ok(())
    }

    fn begin_commit(&mut self, commit: Commit) -> Result<(), LogError> {
        self.enter()?;
        if commit.positions.is_empty() && !planted(Mistake::NoPositions) || !commit.state.is_empty() {
            return Err(LogError::stop("a commit carries positions, and no state"));
        }
        if self.state == State::Committing {
            return Err(LogError::stop("a commit is in flight already"));
        }
        self.begin();
        self.state = State::Committing;
        let Handle { process, name: instance } = self.handle.clone();
        let committer = Committer { instance, process, generation: self.generation };
        self.job = Some(Job { step: Step::Flush, positions: commit.positions, committer });
        Ok(())
    }

    fn poll_commit(&mut self, wait: Duration) -> Result<CommitState, LogError> {
        self.enter()?;
        if self.state != State::Committing {
            return Ok(CommitState::Done);
        }
        if !wait.is_zero() {
            self.work();
        }
        match self.answer() {
            None => {
                with(|world| world.now += wait / 10);
                Ok(CommitState::InFlight)
            }
            Some(Ok(())) => {
                self.state = State::None;
                self.registered = false;
                Ok(CommitState::Done)
            }
            Some(Err(error)) => {
                self.state = State::Open;
                self.spoilt = true;
                Err(self.by_age(error))
            }
        }
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.enter()?;
        while self.state == State::Committing {
            self.work();
            match self.answer() {
                None => {}
                Some(Ok(())) => {
                    self.state = State::None;
                    self.registered = false;
                    return Ok(());
                }
                Some(Err(error)) => {
                    say!("{}: {error}", self.handle);
                    self.state = State::Open;
                    self.spoilt = true;
                }
            }
        }
        if self.state == State::None {
            return Ok(());
        }
        self.unsent.clear();
        self.failed = None;
        // At least once: what was sent stays.
        if self.registered && !self.loose {
            if let Some(error) = self.indefinite(false) {
                return Err(error);
            }
            let (name, epoch) = (self.handle.name.clone(), self.epoch);
            let ended = self.handle.ask("aborting", |broker, _| match broker.end(&name, epoch, false) {
                // What was decided otherwise, nobody undoes.
                Err(Refusal::InvalidState) if planted(Mistake::GoesOnAfterIndefinite) => Ok(()),
                ended => ended,
            });
            say!("{} aborts: {}", self.handle, ended.as_ref().map_or_else(|error| error.message.as_str(), |()| "done"));
            ended.map_err(|error| self.by_age(error))?;
        }
        self.state = State::None;
        self.registered = false;
        if self.spoilt && !planted(Mistake::GoesOnAfterIndefinite) {
            self.renew()?;
        }
        Ok(())
    }

    fn leave(mut self: Box<Self>) -> Result<(), LogError> {
        // Static members keep their place until their session ends.
        self.abort()
    }
}
