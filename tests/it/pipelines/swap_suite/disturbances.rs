//! What befalls hosts while the suite has generations take each other's place.

use super::{PATIENCE, SERVE, Suite};
use crate::pipelines::crash_suite::host::Host;
use std::time::Duration;

/// What befalls hosts while generations change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Killed at any moment, and started again.
    Kill,
    /// Killed in the transaction that tells a cut-over, before it is committed.
    KillAtCut,
    /// Leaves in good order, and comes back.
    Leave,
    /// A third host joins, and leaves afterwards.
    Join,
}

pub const DISTURBANCES: [Disturbance; 4] = [Disturbance::Kill, Disturbance::Leave, Disturbance::KillAtCut, Disturbance::Join];
/// In the long form every so many swaps.
pub const DISTURBED: usize = 8;

impl Disturbance {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 at any moment",
            Self::KillAtCut => "kill -9 in the transaction of a cut-over",
            Self::Leave => "a host leaves and comes back",
            Self::Join => "a third host joins and leaves",
        }
    }
}

impl Suite {
    pub fn restart_to_die_at_cut(&mut self, host: usize) {
        self.hosts[host].kill();
        self.hosts[host].start(&self.place, Some("cut:1"));
        self.goes_on();
    }

    /// While a command is under way. Answers the host that joined.
    pub fn disturb(&mut self, disturbance: Disturbance, host: usize) -> Option<Host> {
        let pause = Duration::from_millis(self.random.below(1500));
        match disturbance {
            Disturbance::Kill => {
                std::thread::sleep(pause);
                self.hosts[host].kill();
            }
            Disturbance::KillAtCut => {
                use std::os::unix::process::ExitStatusExt;
                let ended = self.hosts[host].end_within(PATIENCE);
                if ended.and_then(|status| status.signal()) != Some(9) {
                    self.verdict.violation(format!("host {} came to no cut-over: {ended:?}\n{}", host, self.hosts[host].said()));
                    self.hosts[host].kill();
                }
            }
            Disturbance::Leave => {
                std::thread::sleep(pause);
                let status = self.hosts[host].stop();
                if !status.success() {
                    self.verdict.violation(format!("a host did not stop well ({status}):\n{}", self.hosts[host].said()));
                }
                std::thread::sleep(pause);
            }
            Disturbance::Join => {
                self.guests += 1;
                let mut guest = Host::new(&self.place, &format!("guest-{}", self.guests), &SERVE);
                guest.start(&self.place, None);
                return Some(guest);
            }
        }
        self.hosts[host].start(&self.place, None);
        None
    }

    pub fn leaves(&mut self, mut guest: Host) {
        let status = guest.stop();
        if !status.success() {
            self.verdict.violation(format!("host {} did not stop well ({status}):\n{}", guest.name, guest.said()));
        }
    }
}
