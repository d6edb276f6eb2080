//! Differences, times and tables as people read them.

use crate::fleet::{Change, Class, Cut, Diff, What};
use crate::io::TopicPartition;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A diff, with what it is a diff of.
pub fn diff(diff: &Diff, pipeline: &str, base: u64) -> String {
    let mut out = match base {
        0 => format!("pipeline {pipeline}: new\n"),
        base => format!("pipeline {pipeline}: compared with generation {base}\n"),
    };
    for line in &diff.pipeline {
        let _ = writeln!(out, "  {line}");
    }
    for (what, changes) in [("stage", &diff.stages), ("sink", &diff.sinks), ("store", &diff.stores), ("topic", &diff.topics)] {
        for Change { name, change, details } in changes {
            let sign = match change {
                What::Added => '+',
                What::Removed => '-',
                What::Changed => '~',
            };
            let _ = writeln!(out, "{sign} {what} {name}");
            for line in details {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    for (sign, what, list) in [('+', "gains", &diff.gained), ('-', "loses", &diff.lost)] {
        for one in list {
            let _ = writeln!(out, "{sign} stage {} {what} the permission `{}`", one.stage, one.permission);
        }
    }
    if diff.is_empty() {
        out.push_str("  nothing that a host would do differently\n");
    }
    let _ = writeln!(out, "class: {} ({})", diff.class.name(), explained(diff.class));
    for reason in diff.reasons.iter().filter(|_| base > 0) {
        let _ = writeln!(out, "  because {reason}");
    }
    if let Some(why) = &diff.left {
        let _ = writeln!(out, "cannot go on from what is there: {why}");
    }
    if let Some(why) = &diff.irreversible {
        let _ = writeln!(out, "cannot be taken back: {why}");
    }
    out
}

fn explained(class: Class) -> &'static str {
    match class {
        Class::Hot => "taken over task by task, at the boundary of a transaction",
        Class::Drain => "every host commits and gives its tasks up, then all begin anew",
        Class::New => "nothing to take over from",
    }
}

/// Where a generation began, a line for each partition.
pub fn cuts(cuts: &BTreeMap<TopicPartition, Cut>) -> String {
    let line = |(at, cut): (&TopicPartition, &Cut)| {
        let keys = cut.keys.map(|keys| format!(" for {keys}")).unwrap_or_default();
        let tried = cut.tried.map(|tried| format!("; from offset {} for {}", tried.offset, tried.keys)).unwrap_or_default();
        format!("  {at} from offset {}{keys} (host {}){tried}\n", cut.offset, cut.host)
    };
    cuts.iter().map(line).collect()
}

/// The same of one of them, as JSON.
pub fn cut(at: &TopicPartition, cut: &Cut) -> Value {
    let mut told = json!({ "topic": *at.topic, "partition": at.partition, "offset": cut.offset, "host": cut.host, "at": cut.at });
    if let Some(keys) = cut.keys {
        told["keys"] = keys.share().into();
    }
    if let Some(tried) = cut.tried {
        told["tried"] = json!({ "offset": tried.offset, "keys": tried.keys.share() });
    }
    told
}

/// Milliseconds since the epoch as UTC.
pub fn time(at: i64) -> String {
    let (days, rest) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000) / 1000);
    // Civil from days, after Howard Hinnant: years begin with March, so that the leap day is their last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A span of milliseconds in words.
pub fn span(milliseconds: i64) -> String {
    match milliseconds.max(0) / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

pub fn table(headers: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::TableStyle::new());
    table.set_header(headers.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_772_323_199_999, "2026-02-28T23:59:59Z"),
            (1_772_323_200_000, "2026-03-01T00:00:00Z"),
            (-1000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(at), text);
        }
        assert_eq!([span(-5), span(119_999), span(120_000), span(7_200_000), span(172_800_000)], ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
