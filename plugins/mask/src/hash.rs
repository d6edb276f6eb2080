//! Keyed hashes: equal values stay equal, and nobody without the key can try values.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Fewer bytes could be guessed.
pub const MIN_KEY: usize = 16;

/// HMAC-SHA-256, hexadecimal, cut to a length.
#[derive(Clone)]
pub struct KeyedHash {
    /// After the key, before the value.
    keyed: Hmac<Sha256>,
    length: usize,
}

impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedHash").field("length", &self.length).finish_non_exhaustive()
    }
}

impl KeyedHash {
    /// Err: the key is too short.
    pub fn new(key: &[u8], length: usize) -> Result<Self, String> {
        if key.len() < MIN_KEY {
            return Err(format!("the secret for `hash` has {} bytes; at least {MIN_KEY} are needed", key.len()));
        }
        let keyed = Hmac::new_from_slice(key).map_err(|error| error.to_string())?;
        Ok(Self { keyed, length })
    }

    pub fn of(&self, value: &[u8]) -> String {
        let mut keyed = self.keyed.clone();
        keyed.update(value);
        let digest = keyed.finalize().into_bytes();
        let hex = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(self.length);
        hex.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 1 (a key of 20 bytes).
    #[test]
    fn known_answer() {
        let hash = KeyedHash::new(&[0x0b; 20], 64).unwrap();
        assert_eq!(hash.of(b"Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(KeyedHash::new(&[0x0b; 20], 16).unwrap().of(b"Hi There"), "b0344c61d8db3853");
        assert!(KeyedHash::new(b"short", 16).unwrap_err().contains("5 bytes"));
    }
}
