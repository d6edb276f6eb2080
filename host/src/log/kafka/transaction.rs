//! A member's transactions: begun by the worker, ended by a thread of their own, since every call that ends one blocks.
//!
//! ```text
//!          append                begin_commit               done
//!   none ----------> open(begun) -----------> committing ----------> none
//!                       ^  |                     |
//!                       |  +---- abort ---> none |  failed
//!                       +------------------------+
//! ```

use super::config::PATIENCE;
use super::errors;
use super::native::{self, Client, GroupMetadata};
use super::producer::Producer;
use crate::fault;
use crate::io::{CommitState, LogError, Remedy, TopicPartition};
use crate::record::Records;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, TopicPartitionList};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the first call may take: it ends what an older producer of the same name left open.
const INIT: Duration = Duration::from_secs(60);
/// How long a new client is given to find a broker before it looks for the one that coordinates its transactions.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one step of a commit or an abort may take. Longer than any transaction lives.
const STEP: Duration = Duration::from_secs(60);

enum Job {
    Commit { offsets: TopicPartitionList, group: GroupMetadata },
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    Open,
    Committing,
}

/// A transactional producer.
pub struct Transactions {
    config: ClientConfig,
    /// Where there are no transactions (at least once): the consumer that commits positions once all is acknowledged.
    committer: Option<Arc<Client>>,
    /// How long the brokers keep a transaction open.
    lifetime: Duration,
    producer: Producer,
    state: State,
    /// When the open transaction began.
    opened: Instant,
    /// Records of the open transaction were not taken. librdkafka's sequence numbers have a gap from then on: a new producer must go on.
    spoilt: bool,
    jobs: Option<Sender<Job>>,
    done: Receiver<Result<(), LogError>>,
    thread: Option<JoinHandle<()>>,
}

impl Transactions {
    /// Makes the producer; another with the same transactional id is fenced, and what it left open is aborted.
    /// With `committer` there are no transactions: see the field.
    pub fn new(config: &ClientConfig, committer: Option<Arc<Client>>) -> Result<Self, LogError> {
        let lifetime =
            config.get("transaction.timeout.ms").and_then(|text| text.parse().ok()).map_or(Duration::from_secs(60), Duration::from_millis);
        let producer = Producer::new(config)?;
        let (jobs, inbox) = channel();
        let (outbox, done) = channel();
        let client = producer.client().clone();
        if committer.is_none() {
            init(&client)?;
        }
        let of_thread = committer.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-commit".to_owned())
            .spawn(move || work(&client, of_thread.as_ref(), &inbox, &outbox))
            .map_err(|error| LogError::stop(format!("cannot start a thread for commits: {error}")))?;
        Ok(Self {
            config: config.clone(),
            committer,
            lifetime,
            producer,
            state: State::None,
            opened: Instant::now(),
            spoilt: false,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }

    fn begin(&mut self) -> Result<(), LogError> {
        match self.state {
            State::Open => Ok(()),
            State::Committing => Err(LogError::stop("nothing may be written while a commit is in flight")),
            State::None => {
                if self.committer.is_none() {
                    native::begin_transaction(self.producer.client())
                        .map_err(|failure| errors::transaction_failed("beginning a transaction", &failure))?;
                }
                self.state = State::Open;
                self.opened = Instant::now();
                Ok(())
            }
        }
    }

    /// Brokers end a transaction that is open for too long, and then refuse its producer like one whose name was taken. It was not, so a new
    /// member may go on.
    fn fenced_by_age(&self, error: LogError) -> LogError {
        let age = self.opened.elapsed();
        if error.remedy != Remedy::Fenced || age < self.lifetime {
            return error;
        }
        let (age, lifetime) = (age.as_secs_f32(), self.lifetime.as_secs_f32());
        let message = format!(
            "{}: the transaction was open for {age:.1} s, `transaction.timeout.ms` allows {lifetime:.1} s; records are read again from the last commit",
            error.message
        );
        LogError { remedy: Remedy::Indefinite, message }
    }

    pub fn append(&mut self, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let appended = self.producer.append(&to.topic, records, |_| to.partition);
        appended.map_err(|error| {
            self.spoilt = true;
            self.fenced_by_age(error)
        })
    }

    pub fn begin_commit(&mut self, offsets: TopicPartitionList, group: GroupMetadata) -> Result<(), LogError> {
        self.begin()?;
        self.send(Job::Commit { offsets, group })?;
        self.state = State::Committing;
        Ok(())
    }

    fn send(&self, job: Job) -> Result<(), LogError> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    pub fn poll_commit(&mut self, wait: Duration) -> Result<CommitState, LogError> {
        if self.state != State::Committing {
            return Ok(CommitState::Done);
        }
        match self.done.recv_timeout(wait) {
            Ok(Ok(())) => {
                self.state = State::None;
                Ok(CommitState::Done)
            }
            Ok(Err(error)) => {
                // It is to be aborted, unless it can only be given up.
                self.state = State::Open;
                self.spoilt = true;
                Err(self.fenced_by_age(error))
            }
            Err(RecvTimeoutError::Timeout) => Ok(CommitState::InFlight),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    /// Drops what was appended. A commit in flight is waited for; if it came through, there is nothing to drop.
    pub fn abort(&mut self, wait: Duration) -> Result<(), LogError> {
        if self.state == State::Committing {
            match self.poll_commit(wait) {
                Ok(CommitState::Done) => return Ok(()),
                Ok(CommitState::InFlight) => {
                    return Err(LogError { remedy: Remedy::Indefinite, message: "a commit has not ended in time".to_owned() });
                }
                // Said already by whoever polled, or moot now.
                Err(_) => {}
            }
        }
        if self.state == State::None {
            return Ok(());
        }
        self.send(Job::Abort)?;
        match self.done.recv_timeout(wait) {
            Ok(Ok(())) => {
                self.state = State::None;
                self.producer.client().context().take_undelivered();
                if std::mem::take(&mut self.spoilt) {
                    let renewed = Self::new(&self.config, self.committer.clone())?;
                    *self = renewed;
                }
                Ok(())
            }
            Ok(Err(error)) => Err(self.fenced_by_age(error)),
            Err(RecvTimeoutError::Timeout) => {
                Err(LogError { remedy: Remedy::Indefinite, message: "an abort has not ended in time".to_owned() })
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Transactions {
    /// Aborts what is open: it would hold back all readers of its topics until it times out.
    pub fn end(&mut self) {
        if self.state != State::None && native::fatal(self.producer.client()).is_none() {
            self.spoilt = false;
            if let Err(error) = self.abort(PATIENCE) {
                tracing::debug!("{error}");
            }
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        self.end();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn gone() -> LogError {
    LogError { remedy: Remedy::Indefinite, message: "the thread that commits has ended".to_owned() }
}

/// Makes the client the only one with its transactional id. When it returns, whatever another of that name had open is committed or aborted for all readers.
pub fn init(client: &Client) -> Result<(), LogError> {
    let what = "starting a transactional producer";
    // Without a connection librdkafka looks for its coordinator only each half a second. If there is none it says why below.
    drop(native::ping(client, CONNECT));
    native::init_transactions(client, INIT).map_err(|failure| {
        if failure.retriable && !failure.fatal {
            return LogError { remedy: Remedy::Wait, message: format!("{what}: {}", failure.text) };
        }
        errors::failed(what, &failure)
    })
}

fn work(client: &Arc<Client>, committer: Option<&Arc<Client>>, jobs: &Receiver<Job>, done: &Sender<Result<(), LogError>>) {
    while let Ok(job) = jobs.recv() {
        let outcome = match job {
            Job::Commit { offsets, group } => match committer {
                None => commit(client, &offsets, &group),
                Some(committer) => acknowledge(client, committer, &offsets),
            },
            // What was sent stays: it will be there twice.
            Job::Abort if committer.is_some() => native::purge(client)
                .and_then(|()| native::flush(client, STEP))
                .map_err(|failure| errors::failed("dropping what was not sent", &failure)),
            Job::Abort => {
                native::abort_transaction(client, STEP).map_err(|failure| errors::transaction_failed("aborting a transaction", &failure))
            }
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Positions first: a transaction without them would not be refused when the group has moved on.
fn commit(client: &Client, offsets: &TopicPartitionList, group: &GroupMetadata) -> Result<(), LogError> {
    let sent = native::send_offsets(client, offsets, group, STEP).inspect(|()| fault::point("positions-sent"));
    let outcome = sent.and_then(|()| native::commit_transaction(client, STEP)).inspect(|()| fault::point("committed"));
    explained(client, outcome)
}

/// Commits a transaction that moves no positions.
pub fn commit_records(client: &Client) -> Result<(), LogError> {
    explained(client, native::commit_transaction(client, STEP))
}

fn explained(client: &Client, outcome: Result<(), native::Failure>) -> Result<(), LogError> {
    // "Erroneous state": the transaction was lost before. Reports of what was not delivered wait to be served.
    if outcome.as_ref().is_err_and(|failure| failure.code == Code::State) {
        native::serve(client, Duration::from_millis(100));
    }
    // Records that were not taken are the cause of what the transaction says, and name the topic.
    let undelivered = client.context().take_undelivered();
    outcome.map_err(|failure| {
        let error = errors::transaction_failed("committing", &failure);
        match undelivered {
            Some(undelivered) if error.remedy != Remedy::Fenced => errors::not_taken(&undelivered),
            _ => error,
        }
    })
}

/// At least once: positions are committed only when everything before them is acknowledged.
fn acknowledge(client: &Client, committer: &Client, offsets: &TopicPartitionList) -> Result<(), LogError> {
    let flushed = native::flush(client, STEP);
    if let Some(undelivered) = client.context().take_undelivered() {
        return Err(errors::not_taken(&undelivered));
    }
    flushed.map_err(|failure| errors::failed("writing: waiting for the brokers' acknowledgement", &failure))?;
    native::commit_offsets(committer, offsets).map_err(|failure| errors::failed("committing positions", &failure))
}
