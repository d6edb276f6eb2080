//! Durations, sizes and moments as a manifest writes them.

use crate::pipeline::Start;
use std::time::Duration;

/// `500ms`, `10s`, `1.5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        "" => return Err("a unit is missing: ms, s, m, h or d".to_owned()),
        other => return Err(format!("`{other}` is no unit: ms, s, m, h or d are")),
    };
    let number: f64 = number.parse().map_err(|_| "a number and a unit are expected".to_owned())?;
    let millis = number * unit;
    // Below what a record's time can hold by far.
    if millis > 1e15 { Err("it is too long".to_owned()) } else { Ok(Duration::from_millis(millis.round() as u64)) }
}

/// `512KiB`, `64MiB`, `1GiB`, `100B`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "" => return Err("a unit is missing: B, KiB, MiB or GiB".to_owned()),
        other => return Err(format!("`{other}` is no unit: B, KiB, MiB and GiB are")),
    };
    let number: usize = number.parse().map_err(|_| "a whole number and a unit are expected".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too big".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

pub(crate) fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => moment(text).map(Start::At).ok_or_else(String::new),
    }
}

/// RFC 3339 to milliseconds since the epoch.
fn moment(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let mark = |at: usize, wanted: &[u8]| bytes.get(at).filter(|byte| wanted.contains(byte)).map(drop);
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    for (at, wanted) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        mark(at, wanted)?;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let (digits, after) = fraction.split_at(end);
        if digits.is_empty() {
            return None;
        }
        millis = format!("{digits:0<3}").get(..3)?.parse().ok()?;
        rest = after;
    }
    let ahead = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) => {
            let two = |high: &u8, low: &u8| i64::from(high - b'0') * 10 + i64::from(low - b'0');
            let minutes = two(h1, h2) * 60 + two(m1, m2);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days since 1970 by the civil calendar, years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute - ahead) * 60 + second) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["1", "s", "1x", "-1s", "1.2.3s", "99999999999999999d", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("64MiB"), Ok(64 << 20));
        for wrong in ["64", "64MB", "1.5MiB", "99999999999999GiB", ""] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:15.25Z", 951_827_415_250),
            ("2026-11-20T11:00:00+01:00", 1_795_168_800_000),
            ("1969-12-31T23:59:59Z", -1000),
        ] {
            assert_eq!(moment(text), Some(millis), "{text}");
        }
        for wrong in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "é026-01-01T00:00:00Z",
        ] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
