//! How a generation becomes the active one: its components and its record are written, every live host is asked to prepare it, and when all are
//! ready it is made active, all by changes of the control topic. Whatever goes wrong before that withdraws it, with the reason.
//!
//! asked -> every live host ready (-> what is to be emptied is empty) -> active -> every live host runs it -> every partition cut over
//!   └-> withdrawn: a host failed, the time is over, somebody else changed the pipeline, the command was interrupted

use super::bundle::Bundle;
use super::control::{Control, ControlError, Refusal};
use super::emptied;
use super::outdated::outdated;
use super::record::{Answer, Answered, Class, Cut, Entry, Generation, Head, Key, Kind, Mode, Next, SKEW, State, Trial, Value};
use super::view::{Deployment, Heard, View};
use crate::io::{Clock, LogError, TopicPartition};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long partitions are waited for once every host runs a generation: one without records is cut over by none.
const SETTLE: Duration = Duration::from_secs(5);
/// Hosts give a sign of life every five seconds: one that is heard of within this lives, whatever the clocks say.
const SIGN: Duration = Duration::from_secs(7);
/// A host that is silent for longer is gone, and no clock is wrong by so much, milliseconds.
const LONG_GONE: i64 = 600_000;
/// A member of a group that is silent for longer has lost its partitions, milliseconds: sessions last 45 s at most, unless the settings say otherwise.
const HELD: i64 = 60_000;
/// How long one look waits for news.
const LOOK: Duration = Duration::from_millis(100);

/// A generation that is to become active.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub pipeline: String,
    pub bundle: Bundle,
    pub kind: Kind,
    pub class: Class,
    /// The active generation as it was when this was decided; 0 = none.
    pub base: u64,
    /// For hosts to be ready, and again for them to run it.
    pub timeout: Duration,
    /// Topics that it reads, by partition: all are cut over when it runs everywhere.
    pub partitions: Vec<TopicPartition>,
    /// Repartition topics that the active generation empties before this one is active, by level: each is written by those before it alone.
    pub empties: Vec<Vec<TopicPartition>>,
    /// It is tried first.
    pub trial: Option<Mode>,
    pub by: String,
}

/// What is told on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// One that was left behind by a command that ended early gives way.
    Replaced {
        generation: u64,
        by: String,
    },
    /// These hosts are asked to prepare it.
    Asked {
        generation: u64,
        hosts: Vec<String>,
    },
    Answered {
        host: String,
        answer: Answer,
    },
    /// Nothing more is taken of the sources, until these topics are empty.
    Empties {
        generation: u64,
        topics: Vec<String>,
    },
    Active {
        generation: u64,
    },
}

/// What came of it: the generation is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No host lives that could run it.
    NoHost { generation: u64 },
    /// The pipeline is paused: it runs when it is resumed.
    Paused { generation: u64 },
    /// Every live host runs it; where it began, and where it did not begin yet.
    Running { generation: u64, cuts: BTreeMap<TopicPartition, Cut>, outstanding: Vec<TopicPartition> },
    /// It is active, but these hosts have not said in time that they run it.
    Outstanding { generation: u64, hosts: Vec<String> },
}

/// Why it did not become active, or does not run.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("generation {generation} of `{pipeline}` was withdrawn: host {host} cannot run it: {error}")]
    Refused { pipeline: String, generation: u64, host: String, error: String },
    #[error(
        "generation {generation} of `{pipeline}` was withdrawn: in {} s there was no answer of {hosts}; look at that host's log, or give it more time by --timeout", .within.as_secs()
    )]
    Late { pipeline: String, generation: u64, hosts: String, within: Duration },
    #[error(
        "host {host} lives, but its clock and this machine's are more than {} s apart: set them (NTP), for by time it is told who lives", .by / 1000
    )]
    Clocks { host: String, by: i64 },
    #[error(
        "generation {generation} of `{pipeline}` was withdrawn: in {} s what is under way was not processed to its end: {why}; the generation before goes on. Give it more time by --timeout", .within.as_secs()
    )]
    Full { pipeline: String, generation: u64, why: String, within: Duration },
    #[error("generation {generation} of `{pipeline}` was withdrawn: interrupted")]
    Interrupted { pipeline: String, generation: u64 },
    #[error(
        "generation {generation} of `{pipeline}` is active, but fails on host {host}: {error}; `millstream rollback {pipeline}` goes back"
    )]
    Fails { pipeline: String, generation: u64, host: String, error: String },
    #[error("generation {generation} of `{pipeline}` is no longer on trial, it was {why}; the generation before goes on")]
    TrialEnded { pipeline: String, generation: u64, why: String },
}

impl From<LogError> for RolloutError {
    fn from(error: LogError) -> Self {
        Self::Control(error.into())
    }
}

/// The active generation's number; 0 = none.
pub fn active(view: &View, pipeline: &str) -> u64 {
    view.pipeline(pipeline).and_then(Deployment::active).map_or(0, |generation| generation.number)
}

/// Err: something of the pipeline is on its way, by whom; a later change has to wait for it. `now`: milliseconds since the epoch.
pub fn undisturbed(deployment: &Deployment, pipeline: &str, now: i64) -> Result<(), Refusal> {
    let Some((head, next)) = deployment.head.as_ref().and_then(|head| Some((head, head.next.as_ref()?))) else { return Ok(()) };
    if next.until.saturating_add(SKEW) < now {
        return Ok(());
    }
    Err(Refusal::Conflict(format!(
        "{} is deploying generation {} of `{pipeline}` at this moment: wait for it (`millstream status {pipeline}`), and try again",
        head.by, next.generation
    )))
}

/// Err: a generation is on trial, which is to be ended first.
pub fn off_trial(deployment: &Deployment, pipeline: &str) -> Result<(), Refusal> {
    let Some((head, trial)) = deployment.head.as_ref().and_then(|head| Some((head, head.trial.as_ref()?))) else { return Ok(()) };
    Err(Refusal::Conflict(format!(
        "generation {} of `{pipeline}` is on trial, by {}: `millstream promote {pipeline}` or `millstream rollback {pipeline}` ends that first",
        trial.generation, head.by
    )))
}

/// Why a generation was withdrawn.
fn known_end<'v>(view: &'v View, pipeline: &str, generation: u64) -> Option<&'v str> {
    view.pipeline(pipeline)?.generations.get(&generation)?.withdrawn.as_deref()
}

/// What a command left behind that ended before its time: the generation, withdrawn. Whoever changes the head puts it among the entries.
pub fn left_behind(deployment: &Deployment, pipeline: &str) -> Option<Entry> {
    let (left, head) = (deployment.next()?, deployment.head.as_ref()?);
    Some(withdrawn(pipeline, left, format!("the command of {} ended before hosts were ready", head.by)))
}

/// The generation, with the reason why it is taken back.
pub fn withdrawn(pipeline: &str, generation: &Generation, reason: String) -> Entry {
    let withdrawn = Generation { withdrawn: Some(reason), ..generation.clone() };
    (Key::Generation(pipeline.to_owned(), generation.number), Some(Value::Generation(withdrawn)))
}

impl Rollout {
    /// Brings it about. A raised `stop` withdraws it, as long as it is not active.
    pub fn run(
        &self,
        control: &mut Control,
        clock: &dyn Clock,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Ended, RolloutError> {
        self.clocks(control, clock)?;
        for component in self.bundle.components.values() {
            control.put_component(&component.bytes)?;
        }
        let asked = self.ask(control, clock, tell)?;
        let generation = asked.generation;
        if asked.hosts.is_empty() {
            return Ok(Ended::NoHost { generation });
        }
        let mut heard = BTreeMap::new();
        self.prepared(control, clock, stop, &asked, (&mut heard, tell))?;
        if !self.empties.is_empty() {
            self.empty(control, clock, stop, generation, (&mut heard, tell))?;
        }
        let Some(state) = self.activate(control, clock, generation)? else {
            if self.is_next(control.view(), generation) {
                let (why, within) = ("it was over too late, sources are open again".to_owned(), self.timeout);
                self.withdraw(control, clock, generation, &why)?;
                return Err(RolloutError::Full { pipeline: self.pipeline.clone(), generation, why, within });
            }
            return Err(ControlError::Refused(Refusal::Conflict(self.overtaken(control.view(), generation))).into());
        };
        tell(Told::Active { generation });
        if state == State::Paused {
            return Ok(Ended::Paused { generation });
        }
        self.runs(control, clock, stop, generation, (&mut heard, tell))
    }

    /// Who lives is told by time. A host that is taken for gone and gives a sign of life all the same would be passed over.
    fn clocks(&self, control: &mut Control, clock: &dyn Clock) -> Result<(), RolloutError> {
        control.refresh()?;
        let now = clock.now();
        let silent = |view: &View| -> BTreeMap<String, u64> {
            let gone = view.hosts.iter().filter(|(_, heard)| !heard.is_live(now) && now.saturating_sub(heard.at) < LONG_GONE);
            gone.map(|(id, heard)| (id.clone(), heard.signs)).collect()
        };
        let before = silent(control.view());
        let deadline = clock.elapsed() + SIGN;
        while !before.is_empty() && clock.elapsed() < deadline {
            control.poll(LOOK)?;
            for (host, heard) in &control.view().hosts {
                let by = now.saturating_sub(heard.at);
                // One that came back in time with a new record is no matter of clocks.
                if before.get(host).is_some_and(|signs| heard.signs > *signs) && !heard.is_live(now) {
                    return Err(RolloutError::Clocks { host: host.clone(), by });
                }
            }
        }
        Ok(())
    }

    /// Writes the generation, and asks hosts to prepare it; where none lives it is active at once.
    fn ask(&self, control: &mut Control, clock: &dyn Clock, tell: &mut dyn FnMut(Told)) -> Result<Asked, RolloutError> {
        let mut asked = None;
        let mut replaced = None;
        control.change(|view| {
            let now = clock.now();
            let none = Deployment::default();
            let known = view.pipeline(&self.pipeline).unwrap_or(&none);
            let active = active(view, &self.pipeline);
            if active != self.base {
                return Err(Refusal::Conflict(self.overtaken(view, self.base)));
            }
            undisturbed(known, &self.pipeline, now)?;
            off_trial(known, &self.pipeline)?;
            let components = || self.bundle.components.values().map(|component| &*component.reference.digest);
            if components().any(|digest| !view.components.has(digest)) {
                // It was there when this began, of a generation long gone by.
                return Err(Refusal::Conflict("another deployment has removed a component that this one needs: try again".to_owned()));
            }
            if known.head.as_ref().is_some_and(|head| head.state == State::Stopped) {
                return Err(Refusal::Conflict(format!(
                    "`{0}` is being reset: wait for that, or do it again (`millstream reset {0}`)",
                    self.pipeline
                )));
            }
            let hosts: Vec<String> = view.live(now).map(|(id, _)| id.to_owned()).collect();
            let hindered = match &known.head {
                _ if hosts.is_empty() => Some("no host lives: start one with `millstream serve`".to_owned()),
                Some(head) if head.state == State::Paused => Some(format!("the pipeline is paused: `millstream resume {}`", self.pipeline)),
                _ => None,
            };
            if let Some(why) = hindered.filter(|_| !self.empties.is_empty()) {
                let what = format!("`{}` has repartition topics that are to be emptied first, and {why}", self.pipeline);
                return Err(Refusal::Wrong(what));
            }
            if hosts.is_empty() && self.trial.is_some() {
                return Err(Refusal::Wrong(format!("no host lives that could try `{}`: start one with `millstream serve`", self.pipeline)));
            }
            let mut entries: Vec<Entry> = Vec::new();
            replaced = None;
            if let (Some(left), Some(head)) = (known.next(), &known.head) {
                replaced = Some(Told::Replaced { generation: left.number, by: head.by.clone() });
                entries.extend(left_behind(known, &self.pipeline));
            }
            let number = known.next_number();
            let generation = self.generation(number, now, known.epoch());
            entries.push((Key::Generation(self.pipeline.clone(), number), Some(Value::Generation(generation))));
            // A pipeline that was deleted begins anew.
            let state = known.head.as_ref().map(|head| head.state).filter(|state| *state != State::Deleted).unwrap_or(State::Running);
            let mut head = Head { generation: active, next: None, trial: None, state, change: String::new(), at: now, by: self.by.clone() };
            if hosts.is_empty() {
                head.generation = number;
            } else {
                let until = now.saturating_add(i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX));
                head.next = Some(Next { generation: number, mode: self.class, until, empties: false });
            }
            asked = Some(Asked { generation: number, hosts });
            entries.push((Key::Head(self.pipeline.clone()), Some(Value::Head(head))));
            entries.extend(outdated(view, components()));
            Ok(entries)
        })?;
        if let Some(replaced) = replaced {
            tell(replaced);
        }
        let Some(asked) = asked else {
            return Err(LogError::stop("a change of the control topic was neither made nor refused").into());
        };
        tell(match asked.hosts.is_empty() {
            true => Told::Active { generation: asked.generation },
            false => Told::Asked { generation: asked.generation, hosts: asked.hosts.clone() },
        });
        Ok(asked)
    }

    fn generation(&self, number: u64, now: i64, epoch: u64) -> Generation {
        Generation {
            epoch,
            number,
            base: self.base,
            kind: self.kind.clone(),
            manifest: self.bundle.manifest.clone(),
            name: self.bundle.name.clone(),
            files: self.bundle.files.clone(),
            plugins: self.bundle.plugins(),
            class: self.class,
            digest: self.bundle.digest(),
            at: now,
            by: self.by.clone(),
            withdrawn: None,
        }
    }

    /// Waits until every live host is ready; else withdraws it.
    fn prepared(
        &self,
        control: &mut Control,
        clock: &dyn Clock,
        stop: &AtomicBool,
        asked: &Asked,
        (heard, tell): (&mut Answers, &mut dyn FnMut(Told)),
    ) -> Result<(), RolloutError> {
        let generation = asked.generation;
        let deadline = clock.elapsed() + self.timeout;
        loop {
            let standing = self.standing(control.view(), generation, clock.now(), &[Answered::Ready, Answered::Running], heard, tell);
            self.not_overtaken(control.view(), generation)?;
            let failed = standing.failed.or_else(|| self.gone(control.view(), asked, clock.now()));
            if failed.is_none() && standing.waiting.is_empty() {
                return Ok(());
            }
            let late = (clock.elapsed() >= deadline).then(|| {
                let (pipeline, hosts, within) = (self.pipeline.clone(), standing.waiting.join(", "), self.timeout);
                (format!("no answer of {hosts} in {} s", within.as_secs()), RolloutError::Late { pipeline, generation, hosts, within })
            });
            self.goes_on(control, clock, stop, generation, failed, late)?;
            control.poll(LOOK)?;
        }
    }

    /// Has hosts take no more of the sources, and waits until the topics that are to be empty are; else withdraws it.
    fn empty(
        &self,
        control: &mut Control,
        clock: &dyn Clock,
        stop: &AtomicBool,
        generation: u64,
        (heard, tell): (&mut Answers, &mut dyn FnMut(Told)),
    ) -> Result<(), RolloutError> {
        let timeout = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        control.change(|view| {
            let head = view.pipeline(&self.pipeline).and_then(|known| known.head.as_ref()).filter(|_| self.is_next(view, generation));
            let Some((head, next)) = head.and_then(|head| Some((head, head.next.clone()?))) else { return Ok(Vec::new()) };
            let next = Next { empties: true, until: clock.now().saturating_add(timeout), ..next };
            let head = Head { next: Some(next), at: clock.now(), by: self.by.clone(), ..head.clone() };
            Ok(vec![(Key::Head(self.pipeline.clone()), Some(Value::Head(head)))])
        })?;
        let mut topics: Vec<String> = self.empties.iter().flatten().map(|at| at.topic.to_string()).collect();
        topics.dedup();
        tell(Told::Empties { generation, topics });
        let log = control.log().clone();
        let deadline = clock.elapsed() + self.timeout;
        loop {
            control.poll(LOOK)?;
            self.not_overtaken(control.view(), generation)?;
            let now = clock.now();
            let standing = self.standing(control.view(), generation, now, &[Answered::Shut], heard, tell);
            let silent = |(id, heard): (&String, &Heard)| {
                (!heard.is_live(now) && now.saturating_sub(heard.at) < HELD)
                    .then(|| format!("host {id} is silent, and may still hold partitions"))
            };
            let why = if !standing.waiting.is_empty() {
                format!("these hosts have not committed yet what they took of the sources: {}", standing.waiting.join(", "))
            } else if let Some(why) = control.view().hosts.iter().find_map(silent) {
                why
            } else {
                match emptied::left(&*log, clock, &self.pipeline, &self.empties) {
                    Ok(None) => return Ok(()),
                    Ok(Some((at, position))) => format!(
                        "{at} is processed up to offset {position} only; does it stand still (`millstream status {}`)?",
                        self.pipeline
                    ),
                    // Asked again: whoever ended here would leave the sources shut.
                    Err(error) => error.message,
                }
            };
            let late = (clock.elapsed() >= deadline).then(|| {
                let reason = format!("in {} s what is under way was not processed: {why}", self.timeout.as_secs());
                (reason, RolloutError::Full { pipeline: self.pipeline.clone(), generation, why, within: self.timeout })
            });
            self.goes_on(control, clock, stop, generation, standing.failed, late)?;
        }
    }

    /// Err: somebody else has changed the pipeline.
    fn not_overtaken(&self, view: &View, generation: u64) -> Result<(), ControlError> {
        if self.is_next(view, generation) { Ok(()) } else { Err(Refusal::Conflict(self.overtaken(view, generation)).into()) }
    }

    /// Err: a host has failed, the command is interrupted, or it is too late: the generation is withdrawn.
    fn goes_on(
        &self,
        control: &mut Control,
        clock: &dyn Clock,
        stop: &AtomicBool,
        generation: u64,
        failed: Option<(String, String)>,
        late: Option<(String, RolloutError)>,
    ) -> Result<(), RolloutError> {
        let pipeline = self.pipeline.clone();
        let (reason, error) = if let Some((host, error)) = failed {
            (format!("host {host}: {error}"), RolloutError::Refused { pipeline, generation, host, error })
        } else if stop.load(Ordering::Relaxed) {
            ("the command was interrupted".to_owned(), RolloutError::Interrupted { pipeline, generation })
        } else if let Some(late) = late {
            late
        } else {
            return Ok(());
        };
        self.withdraw(control, clock, generation, &reason)?;
        Err(error)
    }

    /// A host that was asked and is silent since: perhaps because of what it was asked. One that left in good order is not waited for.
    fn gone(&self, view: &View, asked: &Asked, now: i64) -> Option<(String, String)> {
        let answers = view.pipeline(&self.pipeline).and_then(|known| known.answers.get(&asked.generation));
        let silent = |host: &&String| {
            let answered = answers.is_some_and(|answers| answers.contains_key(*host));
            !answered && view.hosts.get(*host).is_some_and(|heard| !heard.is_live(now))
        };
        let host = asked.hosts.iter().find(silent)?;
        Some((host.clone(), "it gives no sign of life since it was asked; did it end? look at its log".to_owned()))
    }

    fn is_next(&self, view: &View, generation: u64) -> bool {
        let head = view.pipeline(&self.pipeline).and_then(|known| known.head.as_ref());
        head.is_some_and(|head| head.state != State::Deleted && head.next.as_ref().is_some_and(|next| next.generation == generation))
    }

    /// Who came between, in words.
    fn overtaken(&self, view: &View, generation: u64) -> String {
        let pipeline = &self.pipeline;
        let Some(head) = view.pipeline(pipeline).and_then(|known| known.head.as_ref()) else {
            return format!("`{pipeline}` is gone from the control topic: somebody cleared it");
        };
        let did = match (head.state, &head.next) {
            (State::Deleted, _) => "deleted it".to_owned(),
            (_, Some(next)) if next.generation != generation => format!("is deploying generation {}", next.generation),
            _ => match known_end(view, pipeline, generation) {
                Some(why) => format!("ended generation {generation}: {why}"),
                None => format!("made generation {} active", head.generation),
            },
        };
        format!("`{pipeline}` was changed meanwhile: {} {did}; see `millstream history {pipeline}`, and try again", head.by)
    }

    /// Takes the generation back, unless somebody else has already.
    fn withdraw(&self, control: &mut Control, clock: &dyn Clock, generation: u64, reason: &str) -> Result<(), ControlError> {
        control.change(|view| {
            let Some(known) = view.pipeline(&self.pipeline) else { return Ok(Vec::new()) };
            let (Some(head), true) = (&known.head, self.is_next(view, generation)) else { return Ok(Vec::new()) };
            let head = Head { next: None, at: clock.now(), by: self.by.clone(), ..head.clone() };
            let mut entries = vec![(Key::Head(self.pipeline.clone()), Some(Value::Head(head)))];
            entries.extend(known.generations.get(&generation).map(|generation| withdrawn(&self.pipeline, generation, reason.to_owned())));
            Ok(entries)
        })
    }

    /// Makes it the active one: the pipeline's state. None: it is no longer the one that is prepared.
    fn activate(&self, control: &mut Control, clock: &dyn Clock, generation: u64) -> Result<Option<State>, ControlError> {
        let mut state = None;
        control.change(|view| {
            state = None;
            let Some(head) = view.pipeline(&self.pipeline).and_then(|known| known.head.as_ref()) else { return Ok(Vec::new()) };
            if !self.is_next(view, generation) || active(view, &self.pipeline) != self.base {
                return Ok(Vec::new());
            }
            if head.next.as_ref().is_some_and(|next| next.empties && clock.now() > next.until) {
                // Hosts may take of the sources again.
                return Ok(Vec::new());
            }
            state = Some(head.state);
            let (now, by) = (clock.now(), self.by.clone());
            let head = match &self.trial {
                None => Head { generation, next: None, at: now, by, ..head.clone() },
                Some(mode) => {
                    let trial = Trial { generation, mode: mode.clone(), since: now };
                    Head { trial: Some(trial), next: None, at: now, by, ..head.clone() }
                }
            };
            Ok(vec![(Key::Head(self.pipeline.clone()), Some(Value::Head(head)))])
        })?;
        Ok(state)
    }

    /// Whether it works in this partition.
    fn is_for(&self, at: &TopicPartition) -> bool {
        match &self.trial {
            None => true,
            Some(Mode::Canary { partitions, .. }) => partitions.contains(&at.partition),
            Some(Mode::Shadow { .. }) => false,
        }
    }

    /// Waits until every live host runs it, then a little for the partitions.
    fn runs(
        &self,
        control: &mut Control,
        clock: &dyn Clock,
        stop: &AtomicBool,
        generation: u64,
        (heard, tell): (&mut Answers, &mut dyn FnMut(Told)),
    ) -> Result<Ended, RolloutError> {
        let deadline = clock.elapsed() + self.timeout;
        let mut since = None;
        loop {
            let standing = self.standing(control.view(), generation, clock.now(), &[Answered::Running], heard, tell);
            let head = control.view().pipeline(&self.pipeline).and_then(|known| known.head.as_ref());
            let is_on = |head: &Head| match &self.trial {
                None => head.generation == generation,
                // Hosts may have promoted it already.
                Some(_) => head.generation == generation || head.trial.as_ref().is_some_and(|trial| trial.generation == generation),
            };
            if head.is_none_or(|head| !is_on(head) || head.state == State::Deleted) {
                if let Some(why) = known_end(control.view(), &self.pipeline, generation).filter(|_| self.trial.is_some()) {
                    return Err(RolloutError::TrialEnded { pipeline: self.pipeline.clone(), generation, why: why.to_owned() });
                }
                return Err(ControlError::Refused(Refusal::Conflict(self.overtaken(control.view(), generation))).into());
            }
            if head.is_some_and(|head| head.state == State::Paused) {
                return Ok(Ended::Paused { generation });
            }
            if let Some((host, error)) = standing.failed {
                return Err(RolloutError::Fails { pipeline: self.pipeline.clone(), generation, host, error });
            }
            let over = clock.elapsed() >= deadline || stop.load(Ordering::Relaxed);
            if standing.waiting.is_empty() {
                let since = *since.get_or_insert(clock.elapsed());
                let known = control.view().pipeline(&self.pipeline).and_then(|known| known.cuts.get(&generation));
                let cuts = known.cloned().unwrap_or_default();
                let outstanding: Vec<_> = self.partitions.iter().filter(|at| self.is_for(at) && !cuts.contains_key(*at)).cloned().collect();
                if outstanding.is_empty() || over || clock.elapsed() >= since + SETTLE {
                    return Ok(Ended::Running { generation, cuts, outstanding });
                }
            } else if over {
                return Ok(Ended::Outstanding { generation, hosts: standing.waiting });
            }
            control.poll(LOOK)?;
        }
    }

    /// Which live hosts have not said one of the words, and who failed; news are told.
    fn standing(
        &self,
        view: &View,
        generation: u64,
        now: i64,
        words: &[Answered],
        heard: &mut Answers,
        tell: &mut dyn FnMut(Told),
    ) -> Standing {
        let none = BTreeMap::new();
        let answers = view.pipeline(&self.pipeline).and_then(|known| known.answers.get(&generation)).unwrap_or(&none);
        for (host, answer) in answers.iter().filter(|(host, answer)| heard.get(*host) != Some(answer)) {
            tell(Told::Answered { host: host.clone(), answer: answer.clone() });
        }
        heard.clone_from(answers);
        let mut standing = Standing::default();
        for (host, _) in view.live(now) {
            match answers.get(host) {
                Some(answer) if answer.state == Answered::Failed => {
                    let error = answer.error.clone().unwrap_or_else(|| "it does not say why; look at its log".to_owned());
                    standing.failed.get_or_insert((host.to_owned(), error));
                }
                Some(answer) if answer.state == Answered::Left || words.contains(&answer.state) => {}
                _ => standing.waiting.push(host.to_owned()),
            }
        }
        standing
    }
}

/// What was told already of hosts' answers, by host.
type Answers = BTreeMap<String, Answer>;

struct Asked {
    generation: u64,
    /// Empty: it is active at once.
    hosts: Vec<String>,
}

#[derive(Default)]
struct Standing {
    waiting: Vec<String>,
    failed: Option<(String, String)>,
}

#[cfg(test)]
mod tests;
