//! A host of a fleet: follows the control topic and runs what it says. It writes there only what is its own to say: that it lives, how far it is with a
//! generation, which partitions stand still.

use super::bundle::Bundle;
use super::control::{Control, ControlError};
use super::record::{Answer, Answered, Entry, Head, HostRecord, Key, Mode, PROTOCOL, Parked, State, Value};
use super::running::{self, Place, Prepared, Running};
use super::shown::{Board, Shown};
use super::trial::{self, Judgement};
use crate::clock::SystemClock;
use crate::generation::Generation;
use crate::io::{Clock, LogError, Remedy, TopicPartition};
use crate::monitor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How often a host says that it lives.
const SIGN: Duration = Duration::from_secs(5);
/// How long the topic is waited for before pipelines are looked after.
const ROUND: Duration = Duration::from_millis(50);
/// A run that ended with an error is begun anew after these pauses, the last one again and again.
const AGAIN: [Duration; 4] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];
/// How often a host says how a generation on trial compares.
const REPORT: Duration = Duration::from_secs(1);
/// How long brokers that are away are left alone.
const AWAY: Duration = Duration::from_secs(1);

pub struct Host<'a> {
    control: Control,
    place: Place,
    id: String,
    started: i64,
    clock: SystemClock,
    /// When it last said that it lives.
    said: Option<Instant>,
    charges: BTreeMap<String, Charge>,
    stop: &'a AtomicBool,
    board: Arc<Board>,
    troubled: bool,
}

/// A pipeline that the host looks after.
#[derive(Default)]
struct Charge {
    running: Option<Running>,
    preparing: Option<Preparing>,
    /// By generation; beside the run that is on, or beside none.
    prepared: BTreeMap<u64, Prepared>,
    /// How often a run has begun or ended: what is prepared beside one is of no use beside another.
    runs: u64,
    /// What was answered last, by generation.
    answered: BTreeMap<u64, Answered>,
    /// A generation that did not run, how often in a row, and when it is tried again.
    failed: Option<(u64, usize, Instant)>,
    /// Why a generation did not run, the last time.
    why: Option<(u64, String)>,
    /// The last change of the head that was heard.
    heard: String,
    /// The last one behind which the sources were opened again, though nobody has said so.
    opened: String,
    parked: BTreeMap<TopicPartition, monitor::Parked>,
    /// When it was told how a generation on trial compares.
    reported: Option<Instant>,
    /// Since when a trial is on here.
    tried: Option<Instant>,
}

/// A generation that a thread prepares.
struct Preparing {
    number: u64,
    /// `Charge::runs` when it began.
    runs: u64,
    result: Receiver<anyhow::Result<Prepared>>,
}

impl<'a> Host<'a> {
    pub fn new(control: Control, place: Place, id: String, stop: &'a AtomicBool) -> Self {
        let clock = SystemClock::default();
        let started = clock.now();
        Self { control, place, id, started, clock, said: None, charges: BTreeMap::new(), stop, board: Arc::default(), troubled: false }
    }

    /// What runs here, for figures and health.
    pub fn shown(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Runs until it is told to stop. Then every pipeline commits what is done and leaves.
    pub fn run(&mut self) -> Result<(), LogError> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.round() {
                Ok(()) => {
                    self.board.reached();
                    if std::mem::take(&mut self.troubled) {
                        tracing::info!(fleet = self.control.fleet(), "the control topic can be read again");
                    }
                }
                Err(error) if error.remedy == Remedy::Stop => return Err(error),
                Err(error) => {
                    self.board.lost();
                    // Told once, however long it lasts; what runs goes on by itself.
                    if !std::mem::replace(&mut self.troubled, true) {
                        tracing::warn!(fleet = self.control.fleet(), "{error}; what runs goes on, deployments are heard of later");
                    }
                    std::thread::park_timeout(AWAY);
                }
            }
        }
        self.leave()
    }

    /// Hears what is new, and looks after each pipeline.
    fn round(&mut self) -> Result<(), LogError> {
        let since = Instant::now();
        while self.control.poll(ROUND)? > 0 && since.elapsed() < SIGN / 5 {}
        if self.said.is_none_or(|said| said.elapsed() >= SIGN) {
            self.say_alive()?;
        }
        let names: Vec<String> = self.control.view().pipelines.keys().cloned().collect();
        for name in names {
            let mut charge = self.charges.remove(&name).unwrap_or_default();
            let tended = self.tend(&name, &mut charge);
            self.show(&name, &charge);
            self.charges.insert(name, charge);
            tended?;
        }
        Ok(())
    }

    fn say_alive(&mut self) -> Result<(), LogError> {
        let now = self.clock.now();
        let record = HostRecord {
            name: super::machine(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            started: self.started,
            at: now,
        };
        self.control.produce(&[(Key::Host(self.id.clone()), Some(Value::Host(record)))])?;
        self.said = Some(Instant::now());
        Ok(())
    }

    fn tend(&mut self, name: &str, charge: &mut Charge) -> Result<(), LogError> {
        let head = |control: &Control| control.view().pipeline(name).and_then(|known| known.head.clone());
        let Some(mut known) = head(&self.control) else { return Ok(()) };
        if known.next.as_ref().is_some_and(|next| next.empties) && !known.shuts(self.clock.now()) && charge.opened != known.change {
            // The command that had the sources shut has given up by now. But before they are taken of again it must be sure that the generation was not made
            // active at the last moment, and is heard of late.
            self.control.refresh()?;
            let Some(newest) = head(&self.control) else { return Ok(()) };
            charge.opened.clone_from(&newest.change);
            known = newest;
        }
        let head = known;
        self.hear(name, charge)?;
        self.begin_preparing(name, charge, &head)?;
        self.let_ended_go(name, charge)?;
        let wanted = if matches!(head.state, State::Deleted | State::Stopped) { 0 } else { head.generation };
        match &charge.running {
            Some(running) if wanted == 0 => {
                tracing::info!(pipeline = name, "the pipeline is {}: it ends here", head.state.name());
                let number = running.number;
                self.end(name, charge);
                self.answer(name, charge, number, Answered::Left, None)?;
            }
            Some(running) if running.number < wanted || running.trial != head.trial.as_ref().map(|trial| trial.generation) => {
                self.replace(name, charge, wanted, &head)?;
            }
            None if wanted > 0 => self.replace(name, charge, wanted, &head)?,
            _ => {}
        }
        let shut = head.shuts(self.clock.now());
        self.steer(charge, &head, shut);
        if let (true, Some(next), Some(running)) = (shut, &head.next, &charge.running)
            && running.number == head.generation
            && running.is_quiet()
        {
            self.answer(name, charge, next.generation, Answered::Shut, None)?;
        }
        if let Some((number, trial)) =
            charge.running.as_ref().filter(|running| running.is_turned()).map(|running| (running.number, running.trial))
        {
            charge.failed = None;
            for number in std::iter::once(number).chain(trial) {
                if charge.answered.get(&number) != Some(&Answered::Running) {
                    charge.running.as_ref().inspect(|running| running.drop_spare());
                }
                self.answer(name, charge, number, Answered::Running, None)?;
            }
        }
        self.tell_parked(name, charge)?;
        self.judge(name, charge, &head)
    }

    /// Promotes a trial or rolls it back, by what this host sees of it.
    fn judge(&mut self, name: &str, charge: &mut Charge, head: &Head) -> Result<(), LogError> {
        let (Some(trial), Some(running)) = (&head.trial, &charge.running) else { return Ok(()) };
        if running.trial != Some(trial.generation) || head.state != State::Running || !running.is_turned() {
            charge.tried = None;
            return Ok(());
        }
        let began = *charge.tried.get_or_insert_with(Instant::now);
        let lasts = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = self.clock.now();
        let judgement = match &trial.mode {
            Mode::Canary { terms, .. } => {
                let parked = running.parked().into_values().find(|parked| parked.generation == trial.generation);
                let (own, beside) = (running.works(trial.generation), running.works(running.number));
                let mut compared = None;
                if terms.differences.is_some() {
                    self.report_shadow(name, charge, trial.generation)?;
                    compared = Some(self.control.view().shadow(name, trial.generation, now));
                }
                trial::judge(terms, own, beside, compared.as_ref(), parked.as_ref().map(|parked| &*parked.why), lasts)
            }
            Mode::Shadow { clean } => {
                self.report_shadow(name, charge, trial.generation)?;
                let total = self.control.view().shadow(name, trial.generation, now);
                trial::judge_shadow(*clean, &total)
            }
        };
        let by = format!("host {}", self.id);
        let decided = match &judgement {
            Judgement::Undecided => return Ok(()),
            Judgement::Promote => {
                trial::promote(&mut self.control, name, trial.generation, now, &by).map(|done| done.then_some(trial.generation))
            }
            Judgement::RollBack(reason) => trial::roll_back(&mut self.control, name, trial.generation, reason, now, &by),
        };
        match decided {
            Ok(Some(generation)) => {
                tracing::warn!(pipeline = name, trial = trial.generation, generation, "the trial is over: {judgement:?}")
            }
            // Another was first.
            Ok(None) | Err(ControlError::Refused(_)) => {}
            Err(ControlError::Log(error)) => return Err(error),
            Err(ControlError::NoFleet { .. }) => return Err(LogError::stop("the control topic is gone")),
        }
        Ok(())
    }

    /// Says how the generation on trial compares here, now and then.
    fn report_shadow(&self, name: &str, charge: &mut Charge, generation: u64) -> Result<(), LogError> {
        let Some(running) = charge.running.as_ref().filter(|_| charge.reported.is_none_or(|at| at.elapsed() >= REPORT)) else {
            return Ok(());
        };
        charge.reported = Some(Instant::now());
        let report = running.shadow();
        self.control.produce(&[(Key::Shadow(name.to_owned(), generation, self.id.clone()), Some(Value::Shadow(report)))])
    }

    /// What a preparation came to.
    fn hear(&mut self, name: &str, charge: &mut Charge) -> Result<(), LogError> {
        let Some(Preparing { number, runs, result }) = &charge.preparing else { return Ok(()) };
        let (number, runs) = (*number, *runs);
        let outcome = match result.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => Err(anyhow::anyhow!("the thread that prepares it panicked: a mistake in the program")),
        };
        charge.preparing = None;
        match outcome {
            // It is prepared anew.
            _ if runs != charge.runs => Ok(()),
            Ok(prepared) => {
                charge.prepared.insert(number, prepared);
                self.answer(name, charge, number, Answered::Ready, None)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(pipeline = name, generation = number, "{error}");
                charge.put_off(number);
                self.answer(name, charge, number, Answered::Failed, Some(error))
            }
        }
    }

    /// Loads and compiles in a thread of its own what is asked for, or is to run: nobody waits for it here.
    fn begin_preparing(&mut self, name: &str, charge: &mut Charge, head: &Head) -> Result<(), LogError> {
        if charge.preparing.is_some() || matches!(head.state, State::Deleted | State::Stopped) {
            return Ok(());
        }
        let runs = charge.running.as_ref().map_or(0, |running| running.number);
        let tries = charge.running.as_ref().and_then(|running| running.trial).unwrap_or(0);
        let asked =
            [Some(head.generation), head.trial.as_ref().map(|trial| trial.generation), head.next.as_ref().map(|next| next.generation)];
        charge.prepared.retain(|known, _| asked.contains(&Some(*known)));
        // What is made to take over where something stands needs to know it.
        if charge.running.as_ref().is_some_and(|running| running.setting().is_none()) {
            return Ok(());
        }
        let active = Some(head.generation).filter(|active| runs < *active && tries != *active);
        // What is to come is prepared beside what runs; alone only if that cannot run here.
        let alone = charge.running.is_none() && active.is_some_and(|active| !charge.waits(active));
        let next = head.next.as_ref().map(|next| next.generation).filter(|next| !alone && !charge.answered.contains_key(next));
        // Beside what runs.
        let trial = head.trial.as_ref().map(|trial| trial.generation).filter(|trial| runs > 0 && tries != *trial);
        let wanted = [active, trial, next].into_iter().flatten();
        let Some(number) = wanted.into_iter().find(|number| !charge.prepared.contains_key(number) && !charge.waits(*number)) else {
            return Ok(());
        };
        let Some(record) = self.control.view().pipeline(name).and_then(|known| known.generations.get(&number).cloned()) else {
            return Ok(());
        };
        let last = self.control.view().pipeline(name).and_then(|known| known.ran_before(number).cloned());
        let bundle = match self.bundle(&record)? {
            Ok(bundle) => bundle,
            Err(missing) => {
                charge.put_off(number);
                return self.answer(name, charge, number, Answered::Failed, Some(missing));
            }
        };
        let last = match &last {
            Some(ran) => self.bundle(ran)?.ok().map(|bundle| (ran.number, bundle)),
            None => None,
        };
        let generation = self.generation(number, record.epoch);
        let now = charge.running.as_ref().and_then(|running| Some((running.setting()?, running.sweeps())));
        let (place, (done, result)) = (self.place.clone(), mpsc::channel());
        let prepare = move || {
            drop(done.send(running::prepare(
                &place,
                &bundle,
                &generation,
                last.as_ref().map(|(ran, bundle)| (*ran, bundle)),
                now.as_ref().map(|(now, sweeps)| (&**now, *sweeps)),
            )))
        };
        let thread = std::thread::Builder::new().name(format!("prepare {name}")).spawn(prepare);
        thread.map_err(|error| LogError::stop(format!("cannot start a thread: {error}")))?;
        tracing::info!(pipeline = name, generation = number, "preparing a generation");
        charge.preparing = Some(Preparing { number, runs: charge.runs, result });
        Ok(())
    }

    /// A generation's manifest and components. Err within: a component is not there.
    fn bundle(&mut self, generation: &super::record::Generation) -> Result<Result<Bundle, String>, LogError> {
        let mut failure = None;
        let bundle = Bundle::of(generation, &mut |reference| match self.control.component(&reference.digest) {
            Ok(Some(component)) => Ok(component),
            Ok(None) => {
                anyhow::bail!("the component {} {} ({}) is not in the control topic", reference.name, reference.version, reference.digest)
            }
            Err(error) => {
                let message = error.message.clone();
                failure = Some(error);
                Err(anyhow::anyhow!(message))
            }
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(bundle.map_err(|error| format!("{error:#}"))),
        }
    }

    fn generation(&self, number: u64, epoch: u64) -> Generation {
        Generation { number, control: self.control.partition().topic.clone(), host: self.id.as_str().into(), epoch }
    }

    /// The generation that is to run takes the place of what runs, if it is prepared.
    fn replace(&mut self, name: &str, charge: &mut Charge, wanted: u64, head: &Head) -> Result<(), LogError> {
        if charge.waits(wanted) {
            return Ok(());
        }
        if let Some(running) = &mut charge.running {
            if running.turn_to(wanted, head.trial.as_ref(), &charge.prepared) {
                return Ok(());
            }
            // What is on trial is waited for.
            if running.number == wanted || !charge.prepared.contains_key(&wanted) {
                return Ok(());
            }
            if running.setting().is_none() && running.ended().is_none() {
                return Ok(());
            }
            tracing::info!(pipeline = name, generation = wanted, "the run ends, to begin anew by another generation");
            // As it is, it would stand on the run that ends.
            let fresh = charge.prepared.remove(&wanted).map(Prepared::without_run);
            self.end(name, charge);
            charge.prepared.extend(fresh.map(|fresh| (wanted, fresh)));
        }
        let Some(prepared) = charge.prepared.remove(&wanted) else { return Ok(()) };
        let paused = head.state == State::Paused;
        match Running::start(&self.place, &prepared, paused, head.shuts(self.clock.now())) {
            Ok(running) => {
                charge.running = Some(running);
                charge.runs += 1;
                charge.prepared.clear();
                Ok(())
            }
            Err(error) => {
                charge.put_off(wanted);
                self.answer(name, charge, wanted, Answered::Failed, Some(format!("cannot start a thread: {error}")))
            }
        }
    }

    /// A run that ended by itself is begun anew after a while.
    fn let_ended_go(&mut self, name: &str, charge: &mut Charge) -> Result<(), LogError> {
        let Some(running) = &mut charge.running else { return Ok(()) };
        let Some(ended) = running.ended() else { return Ok(()) };
        let number = running.number;
        self.forget(name, charge);
        charge.put_off(number);
        let error = ended.err().unwrap_or_else(|| "the run ended by itself".to_owned());
        tracing::error!(pipeline = name, generation = number, "{error}");
        self.answer(name, charge, number, Answered::Failed, Some(error))
    }

    fn end(&self, name: &str, charge: &mut Charge) {
        if let Some(running) = &mut charge.running {
            running.stop();
            if let Err(error) = running.join() {
                tracing::error!("{error}");
            }
        }
        self.forget(name, charge);
    }

    /// Nothing is kept that stands on a run that is over: it would hold the folder of its state.
    fn forget(&self, name: &str, charge: &mut Charge) {
        charge.running = None;
        charge.runs += 1;
        charge.prepared.clear();
        self.show(name, charge);
    }

    /// Pauses, resumes, shuts the sources, and has parked tasks try again.
    fn steer(&self, charge: &mut Charge, head: &Head, shut: bool) {
        let news = charge.heard != head.change;
        charge.heard.clone_from(&head.change);
        let Some(running) = &charge.running else { return };
        running.monitor.shut(shut);
        match head.state {
            State::Paused => running.monitor.pause(),
            _ => {
                running.monitor.resume();
                if news {
                    running.monitor.revive();
                }
            }
        }
    }

    /// Says how far it is with a generation, if that is news.
    fn answer(&self, name: &str, charge: &mut Charge, number: u64, state: Answered, error: Option<String>) -> Result<(), LogError> {
        match (&error, state) {
            (Some(error), _) => charge.why = Some((number, error.clone())),
            (None, Answered::Running) => charge.why = None,
            _ => {}
        }
        if charge.answered.get(&number) == Some(&state) && state != Answered::Failed {
            return Ok(());
        }
        let answer = Answer { state, error, at: self.clock.now() };
        self.control.produce(&[(Key::Answer(name.to_owned(), number, self.id.clone()), Some(Value::Answer(answer)))])?;
        charge.answered.insert(number, state);
        // Of earlier generations nobody asks any more.
        charge.answered.retain(|known, _| *known + 100 > number);
        Ok(())
    }

    /// Says which partitions stand still here, and which no longer do.
    fn tell_parked(&self, name: &str, charge: &mut Charge) -> Result<(), LogError> {
        let parked = charge.running.as_ref().map(Running::parked).unwrap_or_default();
        if parked == charge.parked {
            return Ok(());
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (at, own) in parked.iter().filter(|(at, own)| charge.parked.get(*at) != Some(*own)) {
            let value = Parked { reason: own.why.to_string(), generation: own.generation, host: self.id.clone(), at: self.clock.now() };
            entries.push((Key::Parked(name.to_owned(), at.clone()), Some(Value::Parked(value))));
        }
        let gone = charge.parked.keys().filter(|at| !parked.contains_key(*at));
        entries.extend(gone.map(|at| (Key::Parked(name.to_owned(), at.clone()), None)));
        self.control.produce(&entries)?;
        charge.parked = parked;
        Ok(())
    }

    fn show(&self, name: &str, charge: &Charge) {
        let head = self.control.view().pipeline(name).and_then(|known| known.head.as_ref()).filter(|head| head.state != State::Deleted);
        let run = charge.running.as_ref().and_then(|running| Some((running.setting()?, running.monitor.clone())));
        if head.is_none() && run.is_none() {
            return self.board.remove(name);
        }
        let active = head.map_or(0, |head| head.generation);
        let trial = head.and_then(|head| head.trial.as_ref()).map(|trial| trial.generation);
        let failure = charge.why.as_ref().filter(|(number, _)| *number == active).map(|(_, why)| why.clone());
        self.board.put(name, Shown { active, trial, run, failure });
    }

    /// Ends all that runs, and says so.
    fn leave(&mut self) -> Result<(), LogError> {
        let mut charges = std::mem::take(&mut self.charges);
        for running in charges.values().filter_map(|charge| charge.running.as_ref()) {
            running.stop();
        }
        for (name, charge) in &mut charges {
            let Some(number) = charge.running.as_ref().map(|running| running.number) else { continue };
            self.end(name, charge);
            self.answer(name, charge, number, Answered::Left, None)?;
            self.tell_parked(name, charge)?;
        }
        self.control.produce(&[(Key::Host(self.id.clone()), None)])
    }
}

impl Charge {
    /// A generation did not run: it is tried again later, and later each time.
    fn put_off(&mut self, number: u64) {
        let times = self.failed.filter(|(failed, ..)| *failed == number).map_or(0, |(_, times, _)| times + 1);
        self.failed = Some((number, times, Instant::now() + AGAIN[times.min(AGAIN.len() - 1)]));
    }

    fn waits(&self, number: u64) -> bool {
        self.failed.is_some_and(|(failed, _, until)| failed == number && Instant::now() < until)
    }
}
