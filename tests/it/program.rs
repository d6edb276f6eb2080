//! The program under test: it hears nothing from the environment of the tests, and keeps compiled plugins where all tests share them.

use std::path::{Path, PathBuf};
use std::process::Command;

const HEARD: [&str; 11] = [
    "MILLSTREAM_BROKERS",
    "MILLSTREAM_DATA",
    "MILLSTREAM_CONFIG",
    "MILLSTREAM_SYNC",
    "MILLSTREAM_LISTEN",
    "MILLSTREAM_OUTPUT",
    "MILLSTREAM_LOG",
    "MILLSTREAM_LOG_FORMAT",
    "MILLSTREAM_FAULT",
    "MILLSTREAM_FLEET",
    "MILLSTREAM_TOKENS",
];

/// Without it every run of the program would compile its plugins anew, for seconds.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")
}

pub fn millstream(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.current_dir(folder).env("MILLSTREAM_CACHE", cache());
    for name in HEARD {
        command.env_remove(name);
    }
    command
}
