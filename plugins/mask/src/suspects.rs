//! The few texts of a batch in which a card number may be: told by their lengths and their digits, in passes over all of them.
//!
//! Each pass is a function of its own: in a large one a guest's compiler runs out of registers.

use crate::card::{self, MIN_DIGITS};
use crate::digits::DigitMarks;
use millstream_guest::column::Strings;

const LEAST: u32 = MIN_DIGITS as u32;
/// Texts that one turn tells: in a guest every turn of a loop has to look at the clock.
const TURN: usize = 8;

/// The buffers, kept from batch to batch.
#[derive(Debug, Default)]
pub struct Suspects {
    marks: DigitMarks,
    found: Vec<u32>,
}

impl Suspects {
    /// Indices of texts, rising: all in which a card number may be, and few others.
    pub fn of(&mut self, texts: &Strings) -> &[u32] {
        let Self { marks, found } = self;
        let ends = &texts.offsets[..=texts.len()];
        found.clear();
        found.resize(texts.len(), 0);
        let long = long_enough(ends, found);
        let many = with_digits(ends, &texts.data, marks, &mut found[..long]);
        let left = no_times(ends, &texts.data, &mut found[..many]);
        found.truncate(left);
        found
    }
}

/// Puts the indices of the texts that have as many bytes as a card number has digits into `found`, which has room for all; answers how many they are.
#[inline(never)]
fn long_enough(ends: &[u32], found: &mut [u32]) -> usize {
    let Some((first, ends)) = ends.split_first() else { return 0 };
    // Each is written; the next takes its place if it is none.
    let (mut from, mut index, mut count) = (*first, 0, 0);
    let mut tell = |to: &u32| {
        if let Some(place) = found.get_mut(count) {
            *place = index;
        }
        count += usize::from(to.wrapping_sub(from) >= LEAST);
        (from, index) = (*to, index + 1);
    };
    let (turns, rest) = ends.as_chunks::<TURN>();
    turns.iter().for_each(|turn| turn.iter().for_each(&mut tell));
    rest.iter().for_each(&mut tell);
    count
}

/// Of the texts `found`, keeps those with enough bytes that may be digits.
#[inline(never)]
fn with_digits(ends: &[u32], data: &[u8], marks: &mut DigitMarks, found: &mut [u32]) -> usize {
    let marks = marks.of(data);
    keep(ends, found, |from, to| marks.may_hold(data, from, to, LEAST))
}

/// Of the texts `found`, keeps those that are not told as a time by their first digit, as most numbers are.
#[inline(never)]
fn no_times(ends: &[u32], data: &[u8], found: &mut [u32]) -> usize {
    keep(ends, found, |from, to| data.get(from as usize..to as usize).is_some_and(|text| !card::is_time(text)))
}

#[inline(always)]
fn keep(ends: &[u32], found: &mut [u32], test: impl Fn(u32, u32) -> bool) -> usize {
    let mut kept = 0;
    for place in 0..found.len() {
        let index = found[place];
        let Some([from, to]) = ends.get(index as usize..).and_then(<[u32]>::first_chunk::<2>) else { return kept };
        found[kept] = index;
        kept += usize::from(test(*from, *to));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Cards;
    use crate::random::Random;

    /// Batches of random texts, near card numbers and far from them: what is found by passes against every text looked at in full.
    #[test]
    fn no_text_that_is_masked_is_passed_over() {
        const PARTS: [&str; 16] = [
            "4444333322221111",
            "4444-3333-2222-1111",
            "378282246310005",
            "1519304105213",
            "15193041052134",
            "180012345675e3",
            "0004222222222222",
            "4222222222222",
            "٤٤٤٤",
            "４",
            "4444333322221112",
            "e-1",
            ".",
            " ",
            "worst flight ",
            "12",
        ];
        let cards = Cards { keep_last: 4, mask: 'x' };
        let (mut random, mut suspects, mut masked) = (Random::from_environment(), Suspects::default(), 0);
        for _ in 0..2_000 {
            let mut texts = Strings::default();
            for _ in 0..random.below(40) {
                let mut text = Vec::new();
                for _ in 0..random.below(4) {
                    match random.below(3) {
                        0 => (0..random.below(20)).for_each(|_| text.push(b'0' + random.below(10) as u8)),
                        1 => text.extend_from_slice(random.pick(&PARTS).as_bytes()),
                        // Too long to be counted at once.
                        _ if random.below(4) == 0 => text.extend_from_slice(&[b'-', b'a'].repeat(40)),
                        _ => (0..random.below(30)).for_each(|_| text.push(random.below(256) as u8)),
                    }
                }
                texts.push(&text);
            }
            let plainly: Vec<_> =
                (0..texts.len()).filter_map(|index| Some((index as u32, cards.mask_plainly(texts.get(index))?))).collect();
            let found: Vec<_> =
                suspects.of(&texts).iter().filter_map(|index| Some((*index, cards.mask(texts.get(*index as usize))?))).collect();
            assert_eq!(found, plainly, "seed {}: {texts:?}", random.seed());
            masked += plainly.len();
        }
        assert!(masked > 1_000, "too few texts hold a card number to say anything: {masked}");
    }
}
