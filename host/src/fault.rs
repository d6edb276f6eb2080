//! Faults for tests, in debug builds only: named points of a commit and a restore at which this process ends, or stops for a while, as if from outside.
//! `MILLSTREAM_FAULT=NAME:N` ends it when the point is passed for the Nth time, `NAME:N:stop` stops it there until it is sent SIGCONT.
//! A release build has none of this.

#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        /// Passes that are left.
        left: AtomicU64,
        signal: Signal,
    }
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("MILLSTREAM_FAULT").ok()?;
        let mut parts = text.split(':');
        let name = parts.next()?.to_owned();
        let left = AtomicU64::new(parts.next()?.parse().ok()?);
        let signal = if parts.next() == Some("stop") { Signal::STOP } else { Signal::KILL };
        Some(Armed { name, left, signal })
    });
    let Some(armed) = armed.as_ref().filter(|armed| armed.name == name) else { return };
    // Counted down to zero once; what passes after that passes.
    if armed.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) == Ok(1) {
        eprintln!("MILLSTREAM_FAULT={name}: here");
        let _ = kill_process(getpid(), armed.signal);
    }
}
