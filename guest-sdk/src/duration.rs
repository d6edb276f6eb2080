//! Lengths of time as a manifest has them: `500ms`, `10s`, `1.5m`, `2h`, `1d`.

const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
/// Some 30000 years; a double holds every millisecond up to here.
const MOST: f64 = 1e15;

/// Milliseconds; None if the text is no length of time, or of no whole number of milliseconds.
pub fn parse(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    let millis = number.parse::<f64>().ok()? * factor;
    (millis <= MOST && millis.fract() == 0.0).then_some(millis as i64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lengths_of_time() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("2 h", 7_200_000), ("1d", 86_400_000), ("0s", 0), ("1.5m", 90_000)]
        {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
        for text in ["", "10", "s", "1w", "-1s", "1.5ms", "1.s.", ".", "99999999999999999999s", "9223372036854775807d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
