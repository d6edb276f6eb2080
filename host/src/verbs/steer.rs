//! Pausing, resuming and deleting: what hosts are to do with a pipeline.

use super::{Answer, Caller, Failure, deployment, failed};
use crate::clock::SystemClock;
use crate::fleet::rollout::{left_behind, undisturbed};
use crate::fleet::{Control, Head, Key, Refusal, State, Value};
use crate::io::Clock;
use serde_json::json;

/// Writes what is wanted; hosts follow.
pub fn steer(control: &mut Control, name: &str, wanted: State, caller: &dyn Caller) -> Result<Answer, Failure> {
    deployment(control, name, false)?;
    let mut before = None;
    let change = control.change(|view| {
        let Some((known, head)) = view.pipeline(name).and_then(|known| Some((known, known.head.as_ref()?))) else {
            return Err(Refusal::Wrong(format!("`{name}` is not deployed")));
        };
        let now = SystemClock::default().now();
        before = Some(head.state);
        match (head.state, wanted) {
            (State::Stopped, State::Paused | State::Running) => {
                return Err(Refusal::Wrong(format!(
                    "`{name}` is stopped, since a reset by {} has not ended: do it again (`millstream reset {name} --state keep` goes on from where it is)",
                    head.by
                )));
            }
            (State::Deleted, _) => return Err(Refusal::Conflict(format!("`{name}` was deleted meanwhile by {}", head.by))),
            // What stands parked goes on by every `resume`: hosts look for the change.
            (had, wanted) if had == wanted && wanted != State::Running => return Ok(Vec::new()),
            _ => {}
        }
        undisturbed(known, name, now)?;
        // One that was left behind, for nothing is on its way.
        let left = left_behind(known, name);
        let mut head = Head { state: wanted, next: None, at: now, by: caller.by(), ..head.clone() };
        if wanted == State::Deleted {
            head.generation = 0;
            head.trial = None;
        }
        Ok([(Key::Head(name.to_owned()), Some(Value::Head(head)))].into_iter().chain(left).collect())
    });
    change.map_err(failed)?;
    let hosts = control.view().live(SystemClock::default().now()).count();
    let json = json!({ "pipeline": name, "state": wanted.name(), "before": before.map(State::name), "hosts": hosts });
    let asked = match wanted {
        _ if before == Some(wanted) && wanted != State::Running => format!("`{name}` is {} already", wanted.name()),
        State::Running => format!("`{name}` is to run, parked partitions too"),
        State::Stopped => format!("`{name}` is stopped"),
        State::Paused => format!("`{name}` is to pause: what is processed is committed first"),
        State::Deleted => format!(
            "`{name}` is to end on every host; its topics, committed positions and history stay, and `millstream deploy` under this name goes on from them"
        ),
    };
    let who = match hosts {
        0 => "no host runs at the moment".to_owned(),
        hosts => format!("asked of {hosts} host{}; `millstream status` shows how far they are", if hosts == 1 { "" } else { "s" }),
    };
    Ok(Answer { json, text: format!("{asked}; {who}\n") })
}
