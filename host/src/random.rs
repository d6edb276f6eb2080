//! Numbers that nobody else has: names, pauses. Not for what a seed is to bring about again.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 random bits; std seeds its hashers from the system's source.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
