//! The way of a generation, against hosts that answer as they are told.

use super::super::component::digest;
use super::super::record::{ComponentRef, HostRecord, PROTOCOL, Terms};
use super::super::trial;
use super::*;
use crate::clock::SystemClock;
use crate::fleet::bundle::Component;
use crate::io::Log;
use crate::log::embedded::{EmbeddedLog, Options};
use std::sync::Arc;
use std::thread::JoinHandle;

fn log() -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::temporary(Options::default()).unwrap())
}

fn open(log: &Arc<dyn Log>) -> Control {
    Control::create(log.clone(), "f", None).unwrap()
}

fn rollout(base: u64) -> Rollout {
    let bytes = &b"component"[..];
    let reference = ComponentRef { digest: digest(bytes), bytes: 9, chunks: 1, name: "n".to_owned(), version: "1".to_owned() };
    let components = BTreeMap::from([("./c.wasm".to_owned(), Component { reference, bytes: bytes.into() })]);
    let bundle = Bundle { name: "p.yaml".to_owned(), manifest: format!("pipeline: p # {base}"), files: BTreeMap::new(), components };
    Rollout {
        pipeline: "p".to_owned(),
        bundle,
        kind: Kind::Deploy,
        class: Class::Hot,
        base,
        timeout: Duration::from_secs(20),
        partitions: vec![TopicPartition::new("in", 0), TopicPartition::new("in", 1)],
        empties: Vec::new(),
        trial: None,
        by: "me".to_owned(),
    }
}

fn go(rollout: &Rollout, control: &mut Control) -> (Result<Ended, RolloutError>, Vec<Told>) {
    let mut told = Vec::new();
    let ended = rollout.run(control, &SystemClock::default(), &AtomicBool::new(false), &mut |one| told.push(one));
    (ended, told)
}

fn known<'a>(control: &'a mut Control, pipeline: &str) -> &'a Deployment {
    control.refresh().unwrap().pipeline(pipeline).unwrap()
}

/// A host that says what `says` makes of being asked (`Ready`) and of an active generation (`Running`), and cuts over the partition 0 of `in`.
struct Host {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Says = fn(Answered) -> Option<(Answered, &'static str)>;

impl Host {
    fn start(log: &Arc<dyn Log>, id: &str, says: Says) -> Self {
        let mut control = open(log);
        let now = SystemClock::default().now();
        let (name, version, id) = ("machine".to_owned(), "0.1.0".to_owned(), id.to_owned());
        let record = HostRecord { name, version, protocol: PROTOCOL, pid: 1, started: now, at: now };
        control.produce(&[(Key::Host(id.clone()), Some(Value::Host(record)))]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                control.poll(Duration::from_millis(20)).unwrap();
                let Some(head) = control.view().pipeline("p").and_then(|known| known.head.clone()) else { continue };
                let asked = head.next.as_ref().map(|next| (next.generation, Answered::Ready));
                let active = (head.generation > 0 && head.state == State::Running).then_some((head.generation, Answered::Running));
                for (generation, what) in asked.into_iter().chain(active) {
                    if done.contains(&(generation, what)) {
                        continue;
                    }
                    done.push((generation, what));
                    let Some((state, error)) = says(what) else { continue };
                    let error = (!error.is_empty()).then(|| error.to_owned());
                    let mut entries =
                        vec![(Key::Answer("p".to_owned(), generation, id.clone()), Some(Value::Answer(Answer { state, error, at: 1 })))];
                    if state == Answered::Running {
                        let cut = Cut { offset: 7, host: id.clone(), at: 1, keys: None, tried: None };
                        entries.push((Key::Cut("p".to_owned(), generation, TopicPartition::new("in", 0)), Some(Value::Cut(cut))));
                    }
                    control.produce(&entries).unwrap();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn willing(what: Answered) -> Option<(Answered, &'static str)> {
    Some((what, ""))
}

#[test]
fn without_a_host_it_is_active_at_once() {
    let log = log();
    let mut control = open(&log);
    let (ended, told) = go(&rollout(0), &mut control);
    assert_eq!(ended.unwrap(), Ended::NoHost { generation: 1 });
    assert_eq!(told, [Told::Active { generation: 1 }]);
    let known = known(&mut control, "p");
    let head = known.head.as_ref().unwrap();
    assert!(head.generation == 1 && head.next.is_none() && head.state == State::Running && head.by == "me", "{head:?}");
    let generation = known.active().unwrap();
    assert!(generation.base == 0 && generation.withdrawn.is_none() && generation.digest == rollout(0).bundle.digest());
    let digest = generation.plugins["./c.wasm"].digest.clone();
    let mut other = open(&log);
    other.refresh().unwrap();
    assert_eq!(other.component(&digest).unwrap().as_deref(), Some(&b"component"[..]));
}

#[test]
fn every_live_host_prepares_it_before_it_is_active() {
    let log = log();
    let hosts = [Host::start(&log, "a", willing), Host::start(&log, "b", willing)];
    let mut control = open(&log);
    let (ended, told) = go(&rollout(0), &mut control);
    let Ended::Running { generation: 1, cuts, outstanding } = ended.unwrap() else { panic!("{told:?}") };
    assert_eq!(cuts[&TopicPartition::new("in", 0)].offset, 7);
    assert_eq!(outstanding, [TopicPartition::new("in", 1)]);
    assert_eq!(told[0], Told::Asked { generation: 1, hosts: vec!["a".to_owned(), "b".to_owned()] });
    let active = told.iter().position(|one| *one == Told::Active { generation: 1 }).unwrap();
    let ready = |one: &&Told| matches!(one, Told::Answered { answer, .. } if answer.state == Answered::Ready);
    assert_eq!(told[..active].iter().filter(ready).count(), 2, "{told:?}");
    drop(hosts);
    let known = known(&mut control, "p");
    assert!(known.head.as_ref().is_some_and(|head| head.generation == 1 && head.next.is_none()));
}

#[test]
fn a_host_that_cannot_run_it_has_it_withdrawn() {
    let log = log();
    let mut control = open(&log);
    go(&rollout(0), &mut control).0.unwrap();
    let _hosts = [
        Host::start(&log, "a", willing),
        Host::start(&log, "b", |what| (what == Answered::Ready).then_some((Answered::Failed, "the secret `pepper` is missing"))),
    ];
    let (ended, _) = go(&rollout(1), &mut control);
    let error = ended.unwrap_err();
    assert!(matches!(&error, RolloutError::Refused { host, .. } if host == "b"), "{error}");
    assert!(error.to_string().contains("pepper"), "{error}");
    let known = known(&mut control, "p");
    assert!(known.head.as_ref().is_some_and(|head| head.generation == 1 && head.next.is_none()));
    assert!(known.generations[&2].withdrawn.as_ref().is_some_and(|why| why.contains("pepper")));
    assert!(known.generations[&1].withdrawn.is_none());
}

#[test]
fn a_host_that_does_not_answer_has_it_withdrawn_in_time() {
    let log = log();
    let _host = Host::start(&log, "silent", |_| None);
    let mut control = open(&log);
    let late = Rollout { timeout: Duration::from_millis(300), ..rollout(0) };
    let error = go(&late, &mut control).0.unwrap_err();
    assert!(matches!(&error, RolloutError::Late { hosts, .. } if hosts == "silent"), "{error}");
    let known = known(&mut control, "p");
    assert!(known.head.as_ref().is_some_and(|head| head.generation == 0 && head.next.is_none()));
    assert!(known.generations[&1].withdrawn.as_ref().is_some_and(|why| why.contains("no answer of silent")));
}

/// A machine's clock that goes ahead of the others', and with `leap` more at each look.
struct Ahead(SystemClock, std::sync::atomic::AtomicI64, i64);

impl Clock for Ahead {
    fn now(&self) -> i64 {
        self.0.now() + self.1.fetch_add(self.2, Ordering::Relaxed)
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn ahead(by: i64, leap: i64) -> Ahead {
    Ahead(SystemClock::default(), std::sync::atomic::AtomicI64::new(by), leap)
}

#[test]
fn a_host_that_falls_silent_over_it_has_it_withdrawn() {
    let log = log();
    let _host = Host::start(&log, "a", |_| None);
    let mut control = open(&log);
    // It lives when it is asked, and is silent for long a few looks later.
    let error = rollout(0).run(&mut control, &ahead(0, 4000), &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, RolloutError::Refused { host, .. } if host == "a"), "{error}");
    assert!(known(&mut control, "p").active().is_none());
}

#[test]
fn a_host_that_left_in_good_order_is_not_waited_for() {
    let log = log();
    let _host = Host::start(&log, "a", |_| None);
    let (mut control, other) = (open(&log), open(&log));
    let ended = rollout(0).run(&mut control, &SystemClock::default(), &AtomicBool::new(false), &mut |told| {
        if matches!(told, Told::Asked { .. }) {
            other.produce(&[(Key::Host("a".to_owned()), None)]).unwrap();
        }
    });
    assert!(matches!(ended.unwrap(), Ended::Running { generation: 1, .. }));
}

#[test]
fn clocks_that_differ_are_told_before_a_living_host_is_passed_over() {
    let log = log();
    let mut control = open(&log);
    let now = SystemClock::default().now();
    let sign = |at| {
        let (name, version) = ("m".to_owned(), "1".to_owned());
        vec![(Key::Host("a".to_owned()), Some(Value::Host(HostRecord { name, version, protocol: PROTOCOL, pid: 1, started: 0, at })))]
    };
    control.produce(&sign(now)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (other, stopped) = (open(&log), stop.clone());
    let signs = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(200));
            other.produce(&sign(now)).unwrap();
        }
    });
    let ended = rollout(0).run(&mut control, &ahead(60_000, 0), &AtomicBool::new(false), &mut |_| {});
    stop.store(true, Ordering::Relaxed);
    signs.join().unwrap();
    assert!(matches!(ended, Err(RolloutError::Clocks { .. })), "{ended:?}");
    assert!(control.refresh().unwrap().pipeline("p").is_none(), "nothing was written");
}

#[test]
fn an_interrupted_command_takes_back_what_it_asked() {
    let log = log();
    let _host = Host::start(&log, "silent", |_| None);
    let mut control = open(&log);
    let error = rollout(0).run(&mut control, &SystemClock::default(), &AtomicBool::new(true), &mut |_| {}).unwrap_err();
    assert!(matches!(error, RolloutError::Interrupted { generation: 1, .. }), "{error}");
    assert!(known(&mut control, "p").head.as_ref().is_some_and(|head| head.next.is_none()));
}

#[test]
fn of_two_at_once_one_wins_and_the_other_says_who() {
    let log = log();
    let _host = Host::start(&log, "silent", |_| None);
    let (mut one, mut other) = (open(&log), open(&log));
    let mut second = None;
    let first = Rollout { timeout: Duration::from_millis(300), ..rollout(0) };
    let ended = first.run(&mut one, &SystemClock::default(), &AtomicBool::new(false), &mut |told| {
        if matches!(told, Told::Asked { .. }) {
            second = Some(go(&Rollout { by: "you".to_owned(), ..rollout(0) }, &mut other).0.unwrap_err());
        }
    });
    let second = second.unwrap();
    assert!(matches!(&second, RolloutError::Control(ControlError::Refused(Refusal::Conflict(_)))), "{second}");
    assert!(second.to_string().contains("me is deploying generation 1"), "{second}");
    assert!(matches!(ended, Err(RolloutError::Late { .. })));
    assert_eq!(known(&mut one, "p").generations.len(), 1, "who came second wrote nothing");
}

#[test]
fn who_decided_by_another_generation_is_told_who_was_first() {
    let log = log();
    let mut control = open(&log);
    go(&rollout(0), &mut control).0.unwrap();
    let error = go(&rollout(0), &mut control).0.unwrap_err().to_string();
    assert!(error.contains("me made generation 1 active"), "{error}");
    assert_eq!(go(&rollout(1), &mut control).0.unwrap(), Ended::NoHost { generation: 2 });
}

#[test]
fn what_a_killed_command_left_behind_gives_way() {
    let log = log();
    let mut control = open(&log);
    let left = rollout(0);
    let now = SystemClock::default().now();
    for (until, waits) in [(now - SKEW + 5000, true), (now - SKEW - 1000, false)] {
        control
            .change(|_| {
                let next = Some(Next { generation: 1, mode: Class::New, until, empties: false });
                let head =
                    Head { generation: 0, next, trial: None, state: State::Running, change: String::new(), at: 0, by: "killed".to_owned() };
                let generation = Value::Generation(left.generation(1, 0, 0));
                Ok(vec![(Key::Generation("p".to_owned(), 1), Some(generation)), (Key::Head("p".to_owned()), Some(Value::Head(head)))])
            })
            .unwrap();
        let (ended, told) = go(&rollout(0), &mut control);
        if waits {
            assert!(ended.unwrap_err().to_string().contains("killed is deploying generation 1"));
        } else {
            assert_eq!(ended.unwrap(), Ended::NoHost { generation: 2 });
            assert_eq!(told[0], Told::Replaced { generation: 1, by: "killed".to_owned() });
        }
    }
    assert!(known(&mut control, "p").generations[&1].withdrawn.as_ref().is_some_and(|why| why.contains("killed ended")));
}

#[test]
fn what_is_deleted_while_hosts_prepare_does_not_come_back() {
    let log = log();
    let _host = Host::start(&log, "silent", |_| None);
    let (mut one, mut other) = (open(&log), open(&log));
    let ended = rollout(0).run(&mut one, &SystemClock::default(), &AtomicBool::new(false), &mut |told| {
        if matches!(told, Told::Asked { .. }) {
            other
                .change(|view| {
                    let head = view.pipeline("p").unwrap().head.clone().unwrap();
                    let head = Head { generation: 0, next: None, trial: None, state: State::Deleted, by: "you".to_owned(), ..head };
                    Ok(vec![(Key::Head("p".to_owned()), Some(Value::Head(head)))])
                })
                .unwrap();
        }
    });
    assert!(ended.unwrap_err().to_string().contains("you deleted it"));
    // Under the same name it begins anew, with a number of its own.
    drop(_host);
    let known = known(&mut one, "p");
    assert!(known.active().is_none() && known.next_number() == 2);
}

#[test]
fn a_paused_pipeline_stays_paused() {
    let log = log();
    let mut control = open(&log);
    go(&rollout(0), &mut control).0.unwrap();
    control
        .change(|view| {
            let head = Head { state: State::Paused, ..view.pipeline("p").unwrap().head.clone().unwrap() };
            Ok(vec![(Key::Head("p".to_owned()), Some(Value::Head(head)))])
        })
        .unwrap();
    let _host = Host::start(&log, "a", willing);
    assert_eq!(go(&rollout(1), &mut control).0.unwrap(), Ended::Paused { generation: 2 });
    assert!(known(&mut control, "p").head.as_ref().is_some_and(|head| head.state == State::Paused && head.generation == 2));
}

#[test]
fn what_fails_when_it_is_active_is_told_with_the_way_back() {
    let log = log();
    let says: Says = |what| Some(if what == Answered::Running { (Answered::Failed, "it trapped") } else { (what, "") });
    let _host = Host::start(&log, "a", says);
    let mut control = open(&log);
    let error = go(&rollout(0), &mut control).0.unwrap_err();
    assert!(matches!(&error, RolloutError::Fails { generation: 1, .. }), "{error}");
    assert!(error.to_string().contains("it trapped") && error.to_string().contains("millstream rollback p"), "{error}");
    assert!(known(&mut control, "p").generations[&1].withdrawn.is_none(), "it is active");
}

#[test]
fn components_of_generations_long_gone_by_are_removed() {
    let log = log();
    let mut control = open(&log);
    let version = |number: u64, bytes: String| {
        let component = bytes.into_bytes();
        let length = component.len() as u64;
        let reference =
            ComponentRef { digest: digest(&component), bytes: length, chunks: 1, name: "n".to_owned(), version: "1".to_owned() };
        let mut rollout = rollout(number - 1);
        rollout.bundle.components.insert("./d.wasm".to_owned(), Component { reference, bytes: component.into() });
        rollout
    };
    let last = super::super::KEPT as u64 + 5;
    for number in 1..=last {
        // The fourth one's comes back at the moment at which it would go.
        let bytes = if number == last { 4 } else { number };
        assert_eq!(go(&version(number, format!("version {bytes}")), &mut control).0.unwrap(), Ended::NoHost { generation: number });
        let old = Key::Answer("p".to_owned(), number, "a".to_owned());
        control.produce(&[(old, Some(Value::Answer(Answer { state: Answered::Running, error: None, at: 1 })))]).unwrap();
    }
    let mut again = open(&log);
    let view = again.refresh().unwrap();
    let there: Vec<u64> = (1..last).filter(|number| view.components.has(&digest(format!("version {number}").as_bytes()))).collect();
    assert_eq!(there, (4..last).collect::<Vec<u64>>());
    assert!(view.components.has(&digest(b"component")), "all have it");
    let known = view.pipeline("p").unwrap();
    assert_eq!(known.generations.len() as u64, last, "history stays");
    assert!(known.answers[&3].is_empty() && !known.answers[&last].is_empty(), "{:?}", known.answers);
}

/// What a command that puts a second generation on trial ends with, if a host ends the trial before it looks again.
fn tried(ends: fn(&mut Control)) -> Result<Ended, RolloutError> {
    let log = log();
    let mut control = open(&log);
    // It says that it runs what is active, and nothing of what is on trial.
    let _host = Host::start(&log, "one", willing);
    assert!(matches!(go(&rollout(0), &mut control).0, Ok(Ended::Running { .. })));
    let judge = std::thread::spawn({
        let mut control = open(&log);
        move || {
            while trial::of(control.view(), "p").is_none() {
                control.poll(Duration::from_millis(20)).unwrap();
            }
            ends(&mut control);
        }
    });
    let terms = Terms { promote_after: Some(0), errors: 0.0, slower: None, differences: None };
    let tried = Rollout { trial: Some(Mode::Canary { partitions: [0].into(), keys: None, terms }), ..rollout(1) };
    let (ended, _) = go(&tried, &mut control);
    judge.join().unwrap();
    ended
}

#[test]
fn a_trial_that_hosts_promote_before_the_command_looks_again_is_no_conflict() {
    let ended = tried(|control| assert!(trial::promote(control, "p", 2, 0, "host one").unwrap()));
    assert!(matches!(ended, Ok(Ended::Running { generation: 2, .. })), "{ended:?}");
}

#[test]
fn a_trial_that_hosts_roll_back_before_the_command_looks_again_is_told_with_the_reason() {
    let ended = tried(|control| assert_eq!(trial::roll_back(control, "p", 2, "too slow", 0, "host one").unwrap(), Some(3)));
    let Err(error @ RolloutError::TrialEnded { generation: 2, .. }) = ended else { panic!("{ended:?}") };
    assert!(error.to_string().contains("rolled back: too slow"), "{error}");
}
