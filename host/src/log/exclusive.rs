//! Writes that hang on what was read before: tried anew while others come between.

use crate::io::{LogError, Remedy, TopicPartition};
use crate::random::random;
use std::thread;
use std::time::{Duration, Instant};

/// How often one write is tried. By then the pauses are many times as long as a try, so that of some dozens who write at once each has had its chance.
const TRIES: u32 = 12;
/// A try counts as at least that long.
const SHORTEST: Duration = Duration::from_millis(2);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(10);

/// How a try ended.
pub enum Tried {
    Done,
    /// Another came between, or how it ended is unknown: in words for the user.
    Again(String),
}

/// Tries until it is done, or fails for another reason. Two that hinder each other are parted by chance: a pause is up to twice as long as a try, then
/// four times, and so on.
pub fn try_until_done(name: &str, to: &TopicPartition, mut attempt: impl FnMut() -> Result<Tried, LogError>) -> Result<(), LogError> {
    let mut why = String::new();
    for tried in 1..=TRIES {
        let began = Instant::now();
        match attempt()? {
            Tried::Done => return Ok(()),
            Tried::Again(reason) => why = reason,
        }
        tracing::debug!("writing to {to} as `{name}`, try {tried}: {why}");
        if tried < TRIES {
            let most = began.elapsed().max(SHORTEST).saturating_mul(1 << tried.min(6)).min(LONGEST);
            thread::sleep(most.mul_f64(chance()));
        }
    }
    let message = format!("writing to {to} as `{name}`: others keep writing; after {TRIES} tries the last was in vain: {why}; try again");
    Err(LogError { remedy: Remedy::Wait, message })
}

/// From 0 to 1.
fn chance() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_gets_through_is_told() {
        let mut tries = 0;
        let error = try_until_done("name", &TopicPartition::new("topic", 3), || {
            tries += 1;
            Ok(Tried::Again("overtaken".to_owned()))
        });
        let error = error.expect_err("in vain");
        assert_eq!((tries, error.remedy), (TRIES, Remedy::Wait));
        for part in ["topic/3", "`name`", "overtaken", "try again"] {
            assert!(error.message.contains(part), "{error}");
        }
    }
}
