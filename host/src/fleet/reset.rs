//! A pipeline goes on from other positions, with the state that it has or without: every host ends it, positions are moved and state is deleted while nothing
//! runs, and the same content begins anew as another generation. Whatever fails in between leaves it stopped, and said so.

use super::control::{Control, ControlError, Refusal};
use super::record::{Answered, Generation, Head, Key, Kind, State, Value};
use super::rollout::{off_trial, undisturbed};
use super::view::View;
use crate::io::{Clock, Log, LogError, Position, Remedy, TopicPartition};
use crate::pipeline::Pipeline;
use crate::runtime;
use crate::store::changelog::topic_of;
use crate::task::Metadata;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is tried whether the group is free.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to become of a pipeline.
pub struct Reset<'a> {
    pub pipeline: Pipeline,
    /// Where partitions of its sources go on; asked when nothing runs any more.
    pub to: &'a dyn Fn() -> Result<Vec<(TopicPartition, i64)>, LogError>,
    /// State, repartition topics and what was read of partitioned tables go.
    pub clear: bool,
    /// For hosts to end it.
    pub timeout: Duration,
    pub by: String,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("`{pipeline}` is still run by some member of its group after {} s: {reason}. Nothing was reset, and it runs on", .within.as_secs())]
    Busy { pipeline: String, within: Duration, reason: String },
    #[error("interrupted: nothing was reset, and `{0}` runs on")]
    Interrupted(String),
    #[error("`{pipeline}` is stopped, and its reset did not end: {error}. Do it again")]
    Half { pipeline: String, error: LogError },
}

impl From<LogError> for ResetError {
    fn from(error: LogError) -> Self {
        Self::Control(error.into())
    }
}

impl Reset<'_> {
    /// Brings it about: the number of the generation that goes on from there.
    pub fn run(&self, control: &mut Control, clock: &dyn Clock, stop: &AtomicBool) -> Result<u64, ResetError> {
        let before = self.turn_to(control, clock, State::Stopped)?;
        let log = control.log().clone();
        if let Err(error) = self.await_end(control, clock, stop) {
            self.turn_to(control, clock, before)?;
            return Err(error);
        }
        let half = |error| ResetError::Half { pipeline: self.pipeline.name.clone(), error };
        self.apply(&*log, clock, stop).map_err(half)?;
        // What was stopped by an earlier reset is to run.
        let then = if before == State::Stopped { State::Running } else { before };
        Ok(self.begin(control, clock, then)?)
    }

    fn head<'v>(&self, view: &'v View) -> Result<(&'v super::Deployment, &'v Head), Refusal> {
        let known = view.pipeline(&self.pipeline.name).and_then(|known| Some((known, known.head.as_ref()?)));
        known
            .filter(|(_, head)| head.state != State::Deleted)
            .ok_or_else(|| Refusal::Conflict(format!("`{}` was deleted meanwhile", self.pipeline.name)))
    }

    /// The state before.
    fn turn_to(&self, control: &mut Control, clock: &dyn Clock, state: State) -> Result<State, ControlError> {
        let mut before = state;
        control.change(|view| {
            let (known, head) = self.head(view)?;
            undisturbed(known, &self.pipeline.name, clock.now())?;
            off_trial(known, &self.pipeline.name)?;
            before = head.state;
            let head = Head { state, next: None, at: clock.now(), by: self.by.clone(), ..head.clone() };
            Ok(vec![(Key::Head(self.pipeline.name.clone()), Some(Value::Head(head)))])
        })?;
        Ok(before)
    }

    /// Waits until no live host says that it runs the pipeline: then nothing more is committed.
    fn await_end(&self, control: &mut Control, clock: &dyn Clock, stop: &AtomicBool) -> Result<(), ResetError> {
        let name = &self.pipeline.name;
        let deadline = clock.elapsed() + self.timeout;
        loop {
            control.refresh()?;
            let view = control.view();
            let runs = |host: &str| {
                // What it said last is of the highest generation that it speaks of.
                let said = view.pipeline(name)?.answers.values().rev().find_map(|answers| answers.get(host))?;
                (said.state == Answered::Running).then(|| host.to_owned())
            };
            let Some(host) = view.live(clock.now()).find_map(|(host, _)| runs(host)) else { return Ok(()) };
            if stop.load(Ordering::Relaxed) {
                return Err(ResetError::Interrupted(name.clone()));
            }
            if clock.elapsed() >= deadline {
                let reason = format!("host {host} has not said that it has ended");
                return Err(ResetError::Busy { pipeline: name.clone(), within: self.timeout, reason });
            }
            control.poll(AGAIN)?;
        }
    }

    /// Does something that the log refuses while the group has members. One that has left may count until its session is over.
    fn once_free(&self, clock: &dyn Clock, stop: &AtomicBool, mut work: impl FnMut() -> Result<(), LogError>) -> Result<(), LogError> {
        let deadline = clock.elapsed() + self.timeout;
        loop {
            match work() {
                Err(error) if error.remedy == Remedy::Wait && clock.elapsed() < deadline && !stop.load(Ordering::Relaxed) => {
                    clock.pause(AGAIN)
                }
                outcome => return outcome,
            }
        }
    }

    /// Each step can be done again: changelogs first, without which nothing begins that has positions; positions last.
    fn apply(&self, log: &dyn Log, clock: &dyn Clock, stop: &AtomicBool) -> Result<(), LogError> {
        let name = &self.pipeline.name;
        let to = (self.to)()?;
        let at: Vec<TopicPartition> = to.iter().map(|(at, _)| at.clone()).collect();
        let before = log.committed(name, &at)?;
        let positions = to.into_iter().zip(before).map(|((at, offset), before)| {
            let before = before.and_then(|position| Metadata::of(&position.metadata)).unwrap_or_default();
            // Time goes on with the state that knows it.
            let metadata = match self.clear {
                true => Metadata { generation: before.generation, ..Metadata::default() },
                false => Metadata { from: None, closed: false, ..before },
            };
            (at, Position { offset, metadata: metadata.text() })
        });
        let positions: Vec<_> = positions.collect();
        if self.clear {
            let changelogs = runtime::store_names(&self.pipeline).into_iter().map(|store| topic_of(name, &store));
            let own = self.pipeline.sources.iter().filter(|source| source.carries.is_some()).map(|source| source.topic.to_string());
            changelogs.chain(own).try_for_each(|topic| log.delete_topic(&topic))?;
            self.once_free(clock, stop, || log.delete_group(name))?;
        }
        self.once_free(clock, stop, || log.move_group(name, &positions))
    }

    /// The same content as a new generation: from which offset on it works is told as of any other.
    fn begin(&self, control: &mut Control, clock: &dyn Clock, state: State) -> Result<u64, ControlError> {
        let mut number = 0;
        control.change(|view| {
            let (known, head) = self.head(view)?;
            let Some(active) = known.generations.get(&head.generation) else {
                return Err(Refusal::Wrong(format!("no generation of `{}` is active", self.pipeline.name)));
            };
            number = known.next_number();
            let (at, by) = (clock.now(), self.by.clone());
            let generation = Generation {
                number,
                base: active.number,
                kind: Kind::Reset { cleared: self.clear },
                epoch: if self.clear { number } else { known.epoch() },
                at,
                by: by.clone(),
                withdrawn: None,
                ..active.clone()
            };
            let head = Head { generation: number, next: None, state, at, by, ..head.clone() };
            Ok(vec![
                (Key::Generation(self.pipeline.name.clone(), number), Some(Value::Generation(generation))),
                (Key::Head(self.pipeline.name.clone()), Some(Value::Head(head))),
            ])
        })?;
        Ok(number)
    }
}
