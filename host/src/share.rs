//! Shares of keys: a canary may work for some keys of every partition.

use crate::io::murmur2;
use serde::{Deserialize, Serialize};

/// Of the hash by which keys have their places. Another than Kafka's: the keys of a partition are to lie anywhere.
const SEED: u32 = 0x3c6e_f372;

/// The keys whose place is below. The place of a key is its MurmurHash2 by a seed of its own, mixed once more as MurmurHash3 ends, and has nothing to do with
/// its partition. A record without a key belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    below: u32,
}

impl Keys {
    /// None: it would be none of the keys, or all.
    pub fn of_share(share: f64) -> Option<Self> {
        let below = (share * 2f64.powi(32)).round();
        (below >= 1.0 && below <= f64::from(u32::MAX)).then_some(Self { below: below as u32 })
    }

    pub fn hold(self, key: Option<&[u8]>) -> bool {
        key.is_some_and(|key| place(key) < self.below)
    }

    /// How many of all keys, as a share of them.
    pub fn share(self) -> f64 {
        f64::from(self.below) / 2f64.powi(32)
    }
}

impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As it was written: a share is kept in 32 bits.
        write!(f, "{} % of the keys", (self.share() * 1e8).round() / 1e6)
    }
}

fn place(key: &[u8]) -> u32 {
    let mut hash = murmur2(key, SEED);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::partition_for;

    #[test]
    fn every_partition_has_its_share_of_the_keys() {
        let keys = Keys::of_share(0.1).unwrap();
        for partitions in [1, 2, 3, 10, 12, 64] {
            for name in [|number: u32| number.to_string(), |number| format!("user-{number:06}")] {
                let mut all = vec![(0, 0); partitions as usize];
                for number in 0..100_000 {
                    let key = name(number);
                    let (held, count) = &mut all[partition_for(key.as_bytes(), partitions) as usize];
                    *count += 1;
                    *held += i32::from(keys.hold(Some(key.as_bytes())));
                }
                for (held, count) in all {
                    let expected = f64::from(count) * 0.1;
                    // Five standard deviations.
                    let off = (f64::from(held) - expected).abs() / (expected * 0.9).sqrt();
                    assert!(off < 5.0, "{held} of {count} keys in a partition of {partitions}");
                }
            }
        }
    }

    #[test]
    fn a_share_is_some_of_the_keys_and_never_all() {
        assert_eq!(Keys::of_share(0.0), None);
        assert_eq!(Keys::of_share(1.0), None);
        assert_eq!(Keys::of_share(0.1).unwrap().to_string(), "10 % of the keys");
        assert_eq!(Keys::of_share(0.0025).unwrap().to_string(), "0.25 % of the keys");
        assert!(!Keys::of_share(0.999).unwrap().hold(None), "a record without a key stays where it is");
        // Whoever reads a position of another host must find the same.
        assert_eq!(["a", "user-1", ""].map(|key| place(key.as_bytes())), [3_696_645_139, 3_757_846_556, 2_173_608_792]);
        assert_eq!(serde_json::to_string(&Keys::of_share(0.5).unwrap()).unwrap(), r#"{"below":2147483648}"#);
    }
}
