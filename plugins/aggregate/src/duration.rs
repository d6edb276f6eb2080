//! Lengths of time as a manifest has them: `500ms`, `10s`, `1m`, `2h`, `1d`.

const UNITS: [(&str, i64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Milliseconds; None if the text is no length of time.
pub fn parse(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<i64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lengths_of_time() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("2 h", 7_200_000), ("1d", 86_400_000), ("0s", 0)] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
        for text in ["", "10", "s", "1w", "-1s", "1.5s", "99999999999999999999s", "9223372036854775807d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
