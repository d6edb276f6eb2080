//! Card numbers in text: found by issuer prefix, length and Luhn's check digit, whatever stands between their digits.
//!
//! A *chain* is a sequence of digits with at most [`MAX_GAP`] characters between two of them that are neither letters nor digits; a *group* is an
//! unbroken run of digits in it. Two kinds of windows of a chain are taken for card numbers:
//! - whole groups, 13 to 19 digits, with a plausible first digit ([`plausible`]): `12345 4444-3333-2222-1111` holds one;
//! - any 15 or 16 digits that begin as the cards of the large issuers do ([`strict`]), so that an order number glued to the card does not hide it.
//!   Not so where the whole value is nothing but a number of at most 19 digits: identifiers and times would be hit at random.
//!
//! Where windows overlap, each of them ends with at most [`MAX_READABLE`] readable digits.

use crate::digits;
use std::cmp::Ordering;

/// Longest stretch between two digits of a card number, in characters.
const MAX_GAP: usize = 8;
/// Fewest and most digits of a card number.
pub const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;
/// A window is left as other windows made it if no more of its digits can be read: fewer than the ten that PCI DSS allows to show.
const MAX_READABLE: usize = 8;
/// Lengths in the order in which they are tried: the usual ones first, so that their last digits are the ones that stay.
const LENGTHS: [usize; 7] = [16, 15, 14, 13, 19, 18, 17];

/// Masks card numbers.
#[derive(Clone, Debug)]
pub struct Cards {
    pub keep_last: usize,
    pub mask: char,
}

/// A digit of a chain.
#[derive(Clone, Copy)]
struct Digit {
    at: usize,
    len: usize,
    value: u8,
    /// Whether nothing stands between it and the digit before.
    glued: bool,
    hidden: bool,
}

enum Class {
    Digit(u8),
    Separator,
    Other,
}

impl Cards {
    /// The text with its card numbers masked; None if there is none. Bytes that are not UTF-8 count as separators.
    #[inline]
    pub fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        if text.len() < MIN_DIGITS {
            return None;
        }
        if text.len() <= MAX_DIGITS && is_number(text) {
            return if may_be_card(text) { self.mask_number(text) } else { None };
        }
        if may_hold_card(text) { self.mask_candidate(text) } else { None }
    }

    /// As `mask`, with nothing told beforehand.
    #[cfg(test)]
    pub fn mask_plainly(&self, text: &[u8]) -> Option<Vec<u8>> {
        let is_number = (MIN_DIGITS..=MAX_DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        if is_number { self.mask_number(text) } else { self.mask_candidate(text) }
    }

    #[inline(never)]
    fn mask_candidate(&self, text: &[u8]) -> Option<Vec<u8>> {
        if let Some(masked) = self.mask_scientific(text) {
            return Some(masked);
        }
        let mut found: Vec<Digit> = Vec::new();
        let mut chain: Vec<Digit> = Vec::new();
        let mut gap = 0;
        let mut at = 0;
        while at < text.len() {
            let (class, len) = classify(&text[at..]);
            match class {
                Class::Digit(value) => {
                    chain.push(Digit { at, len, value, glued: gap == 0 && !chain.is_empty(), hidden: false });
                    gap = 0;
                }
                Class::Separator if gap < MAX_GAP => gap += 1,
                Class::Separator | Class::Other => {
                    self.close(&mut chain, &mut found);
                    gap = 0;
                }
            }
            at += len;
        }
        self.close(&mut chain, &mut found);
        if found.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut copied = 0;
        let mut buffer = [0; 4];
        for digit in &found {
            out.extend_from_slice(&text[copied..digit.at]);
            out.extend_from_slice(self.mask.encode_utf8(&mut buffer).as_bytes());
            copied = digit.at + digit.len;
        }
        out.extend_from_slice(&text[copied..]);
        Some(out)
    }

    /// A value that is nothing but at most 19 digits: a card number as a whole (leading zeros aside), or none.
    #[inline(never)]
    fn mask_number(&self, text: &[u8]) -> Option<Vec<u8>> {
        let zeros = text.iter().take_while(|byte| **byte == b'0').count();
        let digits = &text[zeros..];
        if digits.len() < MIN_DIGITS {
            return None;
        }
        let values = || digits.iter().map(|byte| byte - b'0');
        if !(plausible(digits.len(), values()) && luhn(values())) {
            return None;
        }
        Some(self.spelled(text.len(), &text[text.len() - self.keep_last..]))
    }

    /// A number with an exponent (`44443333222211110e-1`), judged by what it stands for.
    fn mask_scientific(&self, text: &[u8]) -> Option<Vec<u8>> {
        let exponent_at = text.iter().position(|byte| matches!(byte, b'e' | b'E'))?;
        let (mantissa, exponent) = (&text[..exponent_at], &text[exponent_at + 1..]);
        let mantissa = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let digits: Vec<u8> = mantissa.iter().filter(|byte| **byte != b'.').map(|byte| byte.wrapping_sub(b'0')).collect();
        if digits.iter().any(|digit| *digit > 9) {
            return None;
        }
        let exponent: i64 = std::str::from_utf8(exponent).ok()?.parse().ok()?;
        let whole = usize::try_from(i64::try_from(point).ok()?.checked_add(exponent)?).ok()?;
        if whole > digits.len() + MAX_DIGITS {
            return None;
        }
        let significant = digits.iter().skip_while(|digit| **digit == 0).count();
        let number: Vec<u8> = digits.iter().copied().chain(std::iter::repeat(0)).take(whole).skip_while(|digit| *digit == 0).collect();
        let is_card = significant + 1 >= MIN_DIGITS
            && (MIN_DIGITS..=MAX_DIGITS).contains(&number.len())
            && plausible(number.len(), number.iter().copied())
            && luhn(number.iter().copied());
        let last: Vec<u8> = number[number.len().saturating_sub(self.keep_last)..].iter().map(|digit| digit + b'0').collect();
        is_card.then(|| self.spelled(number.len(), &last))
    }

    /// A number masked whether it is a card number or not.
    pub fn hide_number(&self, text: &[u8]) -> Vec<u8> {
        self.spelled(text.len(), &text[text.len().saturating_sub(self.keep_last)..])
    }

    /// `len` characters, of which the last are `last`.
    fn spelled(&self, len: usize, last: &[u8]) -> Vec<u8> {
        let mut out = self.mask.to_string().repeat(len - last.len()).into_bytes();
        out.extend_from_slice(last);
        out
    }

    /// Finds the card numbers of a chain, moves the digits to hide to `found` and empties the chain.
    fn close(&self, chain: &mut Vec<Digit>, found: &mut Vec<Digit>) {
        if chain.len() >= MIN_DIGITS {
            let values: Vec<u8> = chain.iter().map(|digit| digit.value).collect();
            for len in LENGTHS {
                for start in 0..(chain.len() + 1).saturating_sub(len) {
                    let end = start + len;
                    let grouped = !chain[start].glued && !chain.get(end).is_some_and(|next| next.glued);
                    if grouped && plausible(len, values[start..end].iter().copied()) && luhn(values[start..end].iter().copied()) {
                        self.hide(&mut chain[start..end]);
                    }
                }
            }
            for len in [16, 15] {
                for start in 0..(chain.len() + 1).saturating_sub(len) {
                    if strict(&values[start..start + len]) && luhn(values[start..start + len].iter().copied()) {
                        self.hide(&mut chain[start..start + len]);
                    }
                }
            }
            found.extend(chain.iter().filter(|digit| digit.hidden));
        }
        chain.clear();
    }

    fn hide(&self, window: &mut [Digit]) {
        if window.iter().filter(|digit| !digit.hidden).count() > MAX_READABLE {
            let hidden = window.len() - self.keep_last;
            window[..hidden].iter_mut().for_each(|digit| digit.hidden = true);
        }
    }
}

/// Whether there are enough bytes that may belong to digits. Every digit beyond ASCII has at least two bytes, none of them ASCII.
#[inline]
pub fn may_hold_card(text: &[u8]) -> bool {
    if text.len() < MIN_DIGITS {
        return false;
    }
    if text.len() <= 8 * WORD {
        // Most texts are short, and want neither blocks nor turns.
        let (words, _) = text.as_chunks::<WORD>();
        let counters = words.iter().fold(0u64, |counters, word| counters + (may_be_digits(u64::from_le_bytes(*word)) >> 7));
        return (counters.wrapping_mul(ONES) >> 56) as usize + rest_of(text) >= MIN_DIGITS;
    }
    may_hold_card_in_long(text)
}

fn may_hold_card_in_long(text: &[u8]) -> bool {
    let (blocks, rest) = text.as_chunks::<{ digits::BLOCK }>();
    let mut count = 0;
    for block in blocks {
        count += digits::count(block);
        if count >= MIN_DIGITS {
            return true;
        }
    }
    count + rest.iter().filter(|byte| byte.is_ascii_digit() || !byte.is_ascii()).count() >= MIN_DIGITS
}

/// What counts in the last bytes, beyond whole words, of a text of a word or more.
#[inline]
fn rest_of(text: &[u8]) -> usize {
    // The bytes before, which were counted, are shifted out, and the zeros that come in are no digits.
    let left = text.len() % WORD;
    let last = text.last_chunk::<WORD>().map_or(0, |last| u64::from_le_bytes(*last));
    let marks = may_be_digits(last.checked_shr((8 * (WORD - left)) as u32).unwrap_or(0));
    ((marks >> 7).wrapping_mul(ONES) >> 56) as usize
}

/// Bytes of a word.
const WORD: usize = 8;
/// The lowest bit of every byte.
pub const ONES: u64 = u64::MAX / 255;

/// The highest bit of every byte that is an ASCII digit, or not ASCII.
#[inline]
pub fn may_be_digits(word: u64) -> u64 {
    // A digit becomes its value, and what is not ASCII stays so.
    let values = word ^ (ONES * 0x30);
    let above_nine = (values & (ONES * 0x7f)) + ONES * (0x80 - 10);
    (values | !above_nine) & (ONES * 0x80)
}

/// Whether a number may be one of a card, by its first digit: most numbers of 13 digits and more are times, and told so at once.
fn may_be_card(number: &[u8]) -> bool {
    !(number.len() < 15 && matches!(number.first(), Some(b'1')))
}

/// Whether a text is a number of so many digits, and so begins, that it is a time rather than a card number.
#[inline]
pub fn is_time(text: &[u8]) -> bool {
    text.len() <= MAX_DIGITS && !may_be_card(text) && is_number(text)
}

/// Whether a text of one to three words is nothing but ASCII digits.
fn is_number(text: &[u8]) -> bool {
    let Some(last) = text.len().checked_sub(WORD) else { return false };
    // Words may overlap the one before.
    let word = |at: usize| text.get(at..).and_then(<[u8]>::first_chunk::<WORD>).map_or(0, |word| u64::from_le_bytes(*word));
    let digits = [0, last.min(WORD), last].map(|at| may_be_digits(word(at)) & !word(at));
    digits[0] & digits[1] & digits[2] == ONES * 0x80
}

fn classify(text: &[u8]) -> (Class, usize) {
    let Some(first) = text.first().copied() else { return (Class::Other, 1) };
    if first.is_ascii() {
        let class = match first {
            b'0'..=b'9' => Class::Digit(first - b'0'),
            b'a'..=b'z' | b'A'..=b'Z' => Class::Other,
            _ => Class::Separator,
        };
        return (class, 1);
    }
    let head = &text[..text.len().min(4)];
    let valid = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let Some(letter) = valid.chars().next() else { return (Class::Separator, 1) };
    let class = match unicode_digit(letter) {
        Some(value) => Class::Digit(value),
        None if letter.is_alphanumeric() => Class::Other,
        None => Class::Separator,
    };
    (class, letter.len_utf8())
}

/// The zeros of the decimal digits beyond ASCII (general category Nd); nine more follow each.
const ZEROS: [u32; 64] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040,
    0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50,
    0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
    0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e950, 0x1fbf0,
];

fn unicode_digit(letter: char) -> Option<u8> {
    let code = letter as u32;
    let place = ZEROS
        .binary_search_by(
            |zero| if code < *zero { Ordering::Greater } else { if code > zero + 9 { Ordering::Less } else { Ordering::Equal } },
        )
        .ok()?;
    u8::try_from(code - ZEROS[place]).ok()
}

fn luhn(digits: impl DoubleEndedIterator<Item = u8>) -> bool {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit);
            if place % 2 == 0 {
                digit
            } else if digit > 4 {
                digit * 2 - 9
            } else {
                digit * 2
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn leading(digits: impl Iterator<Item = u8>, count: usize) -> u32 {
    digits.take(count).fold(0, |number, digit| number * 10 + u32::from(digit))
}

/// Whether a card may begin so, for 13 to 19 digits that stand alone. First digits from 4 on are all taken, whoever issues them (ISO/IEC 7812 leaves
/// none unused); below that only the issuers' own ranges, because dates and times begin with 0 to 3: `1519304105213`, `2024-01-15 10:30:45`.
fn plausible(len: usize, digits: impl Iterator<Item = u8> + Clone) -> bool {
    match digits.clone().next() {
        Some(1) => len == 15,
        Some(2) => match leading(digits, 4) {
            2014 | 2149 => len == 15,
            2200..=2205 => (16..=19).contains(&len),
            2221..=2720 => len == 16,
            _ => false,
        },
        Some(3) => match leading(digits, 3) {
            340..=349 | 370..=379 => len == 15,
            300..=305 | 309 | 360..=369 | 380..=399 => (14..=19).contains(&len),
            352..=358 => (16..=19).contains(&len),
            _ => false,
        },
        Some(4..) => true,
        _ => false,
    }
}

/// Whether the cards of the large issuers begin so, for 15 or 16 digits out of more.
fn strict(digits: &[u8]) -> bool {
    let first = |count| leading(digits.iter().copied(), count);
    match digits.len() {
        15 => matches!(first(2), 34 | 37),
        16 => matches!(first(2), 35 | 40..=49 | 51..=55 | 60 | 62 | 64 | 65) || (2221..=2720).contains(&first(4)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const CARDS: Cards = Cards { keep_last: 4, mask: 'x' };

    fn masked(text: &str) -> String {
        CARDS.mask(text.as_bytes()).map_or_else(|| text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("4444-3333-2222-1111", "xxxx-xxxx-xxxx-1111"),
            ("4444 3333 2222 1111", "xxxx xxxx xxxx 1111"),
            ("4444.3333/2222\u{a0}1111", "xxxx.xxxx/xxxx\u{a0}1111"),
            ("4444\u{2009}3333\u{3000}2222\u{200b}1111", "xxxx\u{2009}xxxx\u{3000}xxxx\u{200b}1111"),
            ("4444333322221111", "xxxxxxxxxxxx1111"),
            ("0004444333322221111", "xxxxxxxxxxxxxxx1111"),
            ("4 4 4 4 3 3 3 3 2 2 2 2 1 1 1 1", "x x x x x x x x x x x x 1 1 1 1"),
            ("4444 - 3333 - 2222 - 1111", "xxxx - xxxx - xxxx - 1111"),
            ("pay by 4444-3333-2222-1111, or 5555 5555 5555 4444!", "pay by xxxx-xxxx-xxxx-1111, or xxxx xxxx xxxx 4444!"),
            ("order 12345 4444-3333-2222-1111 at 10:30", "order 12345 xxxx-xxxx-xxxx-1111 at 10:30"),
            ("ref 1234444333322221111", "ref 123xxxxxxxxxxxx1111"),
            ("ref 44443333222211119", "ref xxxxxxxxxxxx11119"),
            ("4444333322221111.0", "xxxxxxxxxxxx1111.0"),
            ("4.444333322221111e15", "xxxxxxxxxxxx1111"),
            ("44443333222211110e-1", "xxxxxxxxxxxx1111"),
            ("378282246310005", "xxxxxxxxxxx0005"),
            ("３４", "３４"),
            ("４４４４ ３３３３ ２２２２ １１１１", "xxxx xxxx xxxx １１１１"),
            ("٤٤٤٤٣٣٣٣٢٢٢٢١١١١", "xxxxxxxxxxxx١١١١"),
            ("4222222222222", "xxxxxxxxx2222"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
            assert_eq!(masked(expected), expected, "masking again changes nothing: {text}");
        }
    }

    #[test]
    fn what_is_no_card_stays() {
        for text in [
            "1519304105213",
            "1519304105213123",
            "1519304105213123457",
            "2024-01-15 10:30:45",
            "2024-01-15 10:30:45.123456",
            "4444333322221112",
            "4444 3333 2222 111",
            "room 4444, code 3333 and then 2222 or 1111",
            "0000000000000",
            "00000000000000000000",
            "0.1234567890123e-7",
            "4e999999999999999999",
            "444433332222",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    /// Ten consecutive times in milliseconds hold a valid check digit; none is hit.
    #[test]
    fn times_stay() {
        for time in 1_519_304_105_213i64..1_519_304_105_313 {
            for text in [time.to_string(), (time * 1000).to_string(), (time * 1_000_000).to_string()] {
                assert_eq!(masked(&text), text);
            }
        }
    }

    #[test]
    fn options() {
        let cards = Cards { keep_last: 0, mask: '•' };
        assert_eq!(cards.mask(b"4444-3333-2222-1111").unwrap(), "••••-••••-••••-••••".as_bytes());
        assert_eq!(cards.mask(b"4444333322221111").unwrap(), "•".repeat(16).as_bytes());
    }

    #[test]
    fn bytes_that_are_no_text_are_separators() {
        assert_eq!(CARDS.mask(b"\xff4444\xfe3333\xc32222\xe2\x801111").unwrap(), b"\xffxxxx\xfexxxx\xc3xxxx\xe2\x801111");
    }

    /// A card number of an issuer that `strict` knows, and its separators.
    fn planted(random: &mut Random) -> (Vec<u8>, String) {
        let (prefix, len): (&[u8], usize) = random.pick(&[(&[4], 16), (&[5, 3], 16), (&[3, 7], 15), (&[2, 3, 0, 0], 16), (&[6, 5], 16)]);
        let mut digits = prefix.to_vec();
        while digits.len() < len - 1 {
            digits.push(random.below(10) as u8);
        }
        let check = (0..10).find(|check| luhn(digits.iter().copied().chain([*check]))).unwrap();
        digits.push(check);
        let style = random.below(4);
        let mut text = String::new();
        for (place, digit) in digits.iter().enumerate() {
            let separated = match style {
                0 => false,
                1 => place % 4 == 0,
                2 => true,
                _ => random.below(3) == 0,
            };
            if separated && place > 0 {
                for _ in 0..=random.below(3) {
                    text.push(random.pick(&[' ', '-', '.', '/', '\u{a0}', '\u{2009}', '_', ',', '\u{3000}', '\u{ad}', '\t', '|']));
                }
            }
            let zero = random.pick(&['0', '0', '0', '０', '٠']);
            text.push(char::from_u32(zero as u32 + u32::from(*digit)).unwrap());
        }
        (digits, text)
    }

    /// The digits of a text; what is hidden reads as a gap.
    fn readable(text: &str) -> String {
        text.chars()
            .filter_map(|letter| match letter {
                'x' => Some('x'),
                _ => letter.to_digit(10).or(unicode_digit(letter).map(u32::from)).and_then(|digit| char::from_digit(digit, 10)),
            })
            .collect()
    }

    /// The counts by words against those byte by byte, and a number told by words against one told byte by byte.
    #[test]
    fn words_count_as_bytes_do() {
        let mut random = Random::from_environment();
        for _ in 0..20_000 {
            let mut text = Vec::new();
            // Around the lengths of words, turns and blocks; some with few digits among much else, some with next to nothing but digits.
            let len = random.pick(&[13, 20, 40, 230, 700]) - random.below(13) as usize;
            let share = random.pick(&[2, 30, 90, 100, 1000]);
            for _ in 0..len {
                text.push(match random.below(share) {
                    0 => random.pick(b"0123456789"),
                    1 => random.below(256) as u8,
                    _ => {
                        if share == 100 {
                            random.pick(b"0189")
                        } else {
                            random.pick(b"/:az \x00\x2f\x3a\x7f")
                        }
                    }
                });
            }
            let digits = text.iter().filter(|byte| byte.is_ascii_digit() || **byte >= 0x80).count();
            assert_eq!(may_hold_card(&text), digits >= MIN_DIGITS, "seed {}: {text:?}", random.seed());
            let text = &text[..text.len().min(3 * WORD)];
            let number = text.len() >= WORD && text.iter().all(u8::is_ascii_digit);
            assert_eq!(is_number(text), number, "seed {}: {text:?}", random.seed());
        }
    }

    #[test]
    fn no_planted_number_survives() {
        let mut random = Random::from_environment();
        for _ in 0..20_000 {
            let mut text = String::new();
            let mut numbers = Vec::new();
            for _ in 0..=random.below(3) {
                text.push_str(random.pick(&["", "order 12345 ", "a", "Ж", "77 ", "998", "at 10:30 - ", "\u{a0}", "no. 4:"]));
                let (digits, spelled) = planted(&mut random);
                text.push_str(&spelled);
                text.push_str(random.pick(&["", ", ", "z", " 123", " 12/29 ", "9", "…", "\n"]));
                numbers.push(digits);
            }
            // A text of digits alone is a number, and judged as one.
            if text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != numbers[0].len() {
                continue;
            }
            let out = masked(&text);
            let left = readable(&out);
            for digits in numbers {
                let number: String = digits.iter().map(|digit| char::from(digit + b'0')).collect();
                assert!(!left.contains(&number), "seed {}: {number} survives in {out:?} of {text:?}", random.seed());
                assert!(!left.contains(&number[..12]), "seed {}: most of {number} survives in {out:?}", random.seed());
            }
        }
    }

    #[test]
    fn text_without_candidates_is_unchanged() {
        let mut random = Random::from_environment();
        for _ in 0..20_000 {
            let mut text = String::new();
            // Never thirteen digits in a chain: letters between.
            for _ in 0..random.below(8) {
                text.push_str(random.pick(&["a", "ж", "  ", "-", "\u{a0}", "worst. flight.", "€"]));
                for _ in 0..random.below(12) {
                    text.push(char::from(b'0' + random.below(10) as u8));
                }
                text.push_str(random.pick(&["x ", "Ω", "and"]));
            }
            assert_eq!(CARDS.mask(text.as_bytes()), None, "seed {}: {text:?}", random.seed());
        }
    }
}
