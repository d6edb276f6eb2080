//! Which bytes of the texts of a batch may belong to digits: a bit for each. Found for all texts at once, whole words at a time, so that a text is
//! told by a few instructions and without a loop of its own: in a guest every turn of a loop has to look at the clock.

/// Bytes of a block, and bits of a word of marks.
pub const BLOCK: usize = 64;

/// A mark for each byte of a buffer that is an ASCII digit, or not ASCII. The buffer is kept from batch to batch.
///
/// Where there is nothing that gathers marks in one step, it costs more than it saves: then there are none, and each text is counted by itself.
#[derive(Debug, Default)]
pub struct DigitMarks(#[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))] Vec<u64>);

impl DigitMarks {
    /// Marks the bytes of `data`.
    #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
    #[inline(never)]
    pub fn of(&mut self, data: &[u8]) -> &Self {
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        self.0.clear();
        self.0.extend(blocks.iter().map(marks));
        // A text's bits are taken from two words, wherever it stands.
        self.0.extend([marks(&last), 0]);
        self
    }

    #[cfg(not(any(test, all(target_arch = "wasm32", target_feature = "simd128"))))]
    pub fn of(&mut self, _: &[u8]) -> &Self {
        self
    }

    /// Whether at least `count` bytes from `from` to `to` may belong to digits; also true if there are more bytes than a word has bits. `data`: what
    /// was marked.
    #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
    #[inline]
    pub fn may_hold(&self, _: &[u8], from: u32, to: u32, count: u32) -> bool {
        let (word, bit) = (from as usize / BLOCK, from % BLOCK as u32);
        let Some([low, high]) = self.0.get(word..).and_then(<[u64]>::first_chunk::<2>) else { return true };
        let len = to - from;
        let bits = (low >> bit | high << 1 << (63 - bit)) & u64::MAX.unbounded_shr(BLOCK as u32 - len.min(BLOCK as u32));
        (len > BLOCK as u32) | (bits.count_ones() >= count)
    }

    #[cfg(not(any(test, all(target_arch = "wasm32", target_feature = "simd128"))))]
    #[inline]
    pub fn may_hold(&self, data: &[u8], from: u32, to: u32, _: u32) -> bool {
        data.get(from as usize..to as usize).is_none_or(crate::card::may_hold_card)
    }
}

/// How many bytes of a block may belong to digits.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
pub fn count(block: &[u8; BLOCK]) -> usize {
    marks(block).count_ones() as usize
}

/// How many bytes of a block may belong to digits.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline]
pub fn count(block: &[u8; BLOCK]) -> usize {
    // Each byte of a word has a counter of its own.
    let words = block.as_chunks::<8>().0.iter();
    let counters: u64 = words.map(|word| crate::card::may_be_digits(u64::from_le_bytes(*word)) >> 7).sum();
    (counters.wrapping_mul(crate::card::ONES) >> 56) as usize
}

/// The marks of a block, the first byte's lowest.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
fn marks(block: &[u8; BLOCK]) -> u64 {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_lt, i8x16_splat, u64x2, v128_xor};
    let words = block.as_chunks::<8>().0;
    let quarter = |at: usize| {
        let bytes = u64x2(u64::from_le_bytes(words[at]), u64::from_le_bytes(words[at + 1]));
        // A digit becomes its value, and what is not ASCII stays so: negative.
        let values = v128_xor(bytes, i8x16_splat(0x30));
        u64::from(i8x16_bitmask(i8x16_lt(values, i8x16_splat(10))))
    };
    quarter(0) | quarter(2) << 16 | quarter(4) << 32 | quarter(6) << 48
}

/// The marks of a block, the first byte's lowest.
#[cfg(all(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
#[inline]
fn marks(block: &[u8; BLOCK]) -> u64 {
    // The lowest bits of all bytes, gathered in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let words = block.as_chunks::<8>().0.iter().enumerate();
    words.fold(0, |marks, (at, word)| {
        let bits = crate::card::may_be_digits(u64::from_le_bytes(*word)) >> 7;
        marks | (bits.wrapping_mul(GATHER) >> 56) << (8 * at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn marks_count_as_bytes_do() {
        let mut random = Random::from_environment();
        let mut marks = DigitMarks::default();
        for _ in 0..300 {
            let share = random.pick(&[2, 5, 1000]);
            let data: Vec<u8> = (0..random.below(400))
                .map(|_| match random.below(share) {
                    0 => random.below(256) as u8,
                    1 => random.pick(b"/:az \x00\x7f\x80\xff"),
                    _ => random.pick(b"0189"),
                })
                .collect();
            let marks = marks.of(&data);
            for _ in 0..300 {
                let from = random.below(data.len() as u64 + 1) as usize;
                let to = from + random.below((data.len() - from) as u64 + 1) as usize;
                let digits = data[from..to].iter().filter(|byte| byte.is_ascii_digit() || **byte >= 0x80).count();
                let least = random.below(20) as u32;
                let expected = to - from > BLOCK || digits >= least as usize;
                assert_eq!(marks.may_hold(&data, from as u32, to as u32, least), expected, "seed {}: {from} {to} {data:?}", random.seed());
            }
        }
    }
}
