//! Why something that was asked for is not done, with the exit code that scripts may rely on.

use crate::manifest::Diagnostics;
use serde_json::{Value, json};

/// Exit codes that scripts may rely on; listed in `host/docs/command.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Anything without a code of its own.
    Failure = 1,
    /// Wrong arguments (as clap has it).
    Usage = 2,
    /// The pipeline's file has mistakes.
    Manifest = 3,
    /// A record failed and the policy is `fail`.
    Record = 4,
    /// A plugin failed: trap, limit, malformed output.
    Plugin = 5,
    /// The log cannot be reached or used.
    Log = 6,
    /// A test of the pipeline failed.
    Test = 7,
    /// Somebody else has changed, or is changing, the pipeline in the fleet.
    Conflict = 8,
    /// A host cannot run the generation.
    Refused = 9,
    /// Hosts have not answered in time.
    Timeout = 10,
    /// A permission that is not allowed, or a change that cannot be made under the same name.
    Denied = 11,
    /// A signal ended it before it was done; what it had begun is taken back.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let exit = if error.chain().any(|cause| cause.is::<crate::io::LogError>()) {
            Exit::Log
        } else if error.is::<Diagnostics>() {
            Exit::Manifest
        } else {
            Exit::Failure
        };
        Self { exit, error }
    }
}

impl Exit {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::Manifest => "manifest",
            Self::Record => "record",
            Self::Plugin => "plugin",
            Self::Log => "log",
            Self::Test => "test",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Failure {
    pub fn new(exit: Exit, message: String) -> Self {
        Self { exit, error: anyhow::Error::msg(message) }
    }

    /// As `--output json` prints it.
    pub fn to_json(&self) -> Value {
        let mut told = match self.error.downcast_ref::<Diagnostics>() {
            Some(found) => json!({ "diagnostics": found.to_json() }),
            None => json!({ "error": format!("{:#}", self.error) }),
        };
        told["exit"] = (self.exit as i32).into();
        told["name"] = self.exit.name().into();
        told
    }
}
