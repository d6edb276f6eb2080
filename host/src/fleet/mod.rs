//! A fleet: hosts that share brokers and a name. What they agree on stands in one compacted topic, `<fleet>.control`: `record` says in which records,
//! `view` is what they amount to, `control` reads and writes them. Hosts and commands meet nowhere else.

pub mod bundle;
pub mod component;
pub mod control;
pub mod diff;
pub mod emptied;
mod fields;
pub mod host;
mod outdated;
pub mod record;
pub mod reset;
pub mod rollout;
pub mod running;
pub mod shown;
pub mod trial;
pub mod view;

pub use bundle::Bundle;
pub use component::Components;
pub use control::{Control, ControlError, Refusal};
pub use diff::{Diff, Permission};
pub use fields::{Change, What};
pub use outdated::KEPT;
pub use record::{
    Answer, Answered, Class, ComponentRef, Cut, Generation, Head, HostRecord, Key, Kind, Mode, Next, PROTOCOL, Parked, State, Terms, Trial,
    Value,
};
pub use rollout::{Ended, Rollout, RolloutError, Told};
pub use view::{Aside, Deployment, LIVE, View};

use crate::random::random;

/// The fleet of whoever names none.
pub const DEFAULT: &str = "millstream";

/// The control topic of a fleet; also the name under which it is written by one at a time.
pub fn control_topic(fleet: &str) -> String {
    format!("{fleet}.control")
}

/// A fleet's name is the beginning of a topic's. Err: what is wrong with it.
pub fn check_name(fleet: &str) -> Result<(), String> {
    let plain = fleet.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fleet.is_empty() || fleet.len() > 200 || !plain || fleet.starts_with('.') {
        return Err(format!("`{fleet}` is no name for a fleet: up to 200 letters, digits, `.`, `_` and `-`, as in a topic's name"));
    }
    Ok(())
}

/// A name that nobody else has: 128 random bits, hexadecimal.
pub fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Who speaks, for people: `user@machine`.
pub fn by() -> String {
    let named = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let user = named("USER").or_else(|| named("LOGNAME")).unwrap_or_else(|| format!("uid {}", rustix::process::geteuid().as_raw()));
    format!("{user}@{}", machine())
}

/// The name of this machine.
pub fn machine() -> String {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let read = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    let name = read.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "localhost".to_owned())
}
