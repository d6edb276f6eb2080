//! The row of a store that a record was made from, and where it stands in the store's changelog.

use super::super::Context;
use super::super::progress::Line;
use crate::flow::provenance::Row;
use crate::io::{Event, FetchLimit, Fetched, Log, LogError, TopicPartition};
use crate::store::RowType;
use crate::store::changelog::{COMMIT_HEADER, VERSION_HEADER, topic_of};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIMIT: FetchLimit = FetchLimit { rows: 5_000, bytes: 4 << 20 };
const WAIT: Duration = Duration::from_millis(100);
/// As long as brokers keep a transaction open, which hides what lies behind it.
const PATIENCE: Duration = Duration::from_secs(12);

/// A record of the row's key in the changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stands {
    pub offset: i64,
    /// None: it was written before commits were told, or while they were not.
    commit: Option<i64>,
    deleted: bool,
    version: Option<String>,
}

/// What a changelog says of a row as of a commit.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest record of the key in that commit or before.
    newest: Option<Stands>,
    /// That before it, if it is still there.
    before: Option<Stands>,
    /// Written while commits were not told: in that commit, before, or after it.
    unknown: Vec<Stands>,
    /// A record of a later commit was met.
    over: bool,
    /// A lower number stands behind a higher one: they do not tell the order.
    falls: bool,
    last: Option<i64>,
    /// It was not read to its end, nor to a later commit.
    short: bool,
}

impl Found {
    /// Takes records of the changelog's partition, in their order. `commit`: of the record that was made from the row.
    fn take(&mut self, fetched: &Fetched, key: &[u8], commit: i64) {
        for (row, offset) in fetched.offsets.iter().enumerate() {
            let records = &fetched.records;
            let header = |name: &[u8]| records.headers.last(row, name).flatten().map(|value| String::from_utf8_lossy(value).into_owned());
            let number = header(COMMIT_HEADER).and_then(|text| text.parse::<i64>().ok());
            if let Some(number) = number {
                self.falls |= self.last.is_some_and(|last| number < last);
                self.last = self.last.max(Some(number));
                self.over |= number > commit;
                if self.over {
                    continue;
                }
                // What was written before this was written in time.
                std::mem::take(&mut self.unknown).into_iter().for_each(|stands| self.push(stands));
            }
            if self.over || records.keys.bytes(row) != Some(key) {
                continue;
            }
            let stands =
                Stands { offset: *offset, commit: number, deleted: records.values.bytes(row).is_none(), version: header(VERSION_HEADER) };
            match number {
                Some(_) => self.push(stands),
                None => self.unknown.push(stands),
            }
        }
    }

    fn push(&mut self, stands: Stands) {
        self.before = self.newest.replace(stands);
    }

    /// The newest record of the row in the commit or before. Err: why it is not known.
    fn newest(&self, commit: i64) -> Result<&Stands, &'static str> {
        match (&self.newest, self.unknown.is_empty()) {
            _ if self.falls => Err("commits in the changelog do not rise: the pipeline's positions were lost, or its state was begun anew"),
            // Once a key, a commit writes its row.
            (Some(newest), _) if newest.commit == Some(commit) => Ok(newest),
            _ if self.short => Err("a transaction that is open hides its end: ask again later"),
            (Some(newest), true) => Ok(newest),
            (_, false) => Err("the row was written while the pipeline did not tell its commits (`provenance: true` came or went)"),
            (None, true) => Err("it was compacted away since: the row was written again"),
        }
    }
}

/// Reads a changelog up to a commit.
pub fn look(log: &dyn Log, context: &Context, at: &TopicPartition, key: &[u8], commit: i64) -> Result<Option<Found>, LogError> {
    if !log.topic(&at.topic)?.is_some_and(|topic| (0..topic.partitions).contains(&at.partition)) {
        return Ok(None);
    }
    let (begin, end) = (log.bounds(at)?.begin, log.high_watermark(at)?);
    let mut found = Found::default();
    let (mut reader, mut next, mut moved) = (log.reader()?, begin, Instant::now());
    reader.assign(&[(at.clone(), begin)])?;
    let mut line = Line::anywhere(context);
    // What was committed with a record that can be read may be hidden for a moment by what another has open.
    while next < end && !found.over && moved.elapsed() < PATIENCE {
        let before = next;
        match reader.poll(LIMIT, WAIT)? {
            Event::Records(fetched) => {
                next = fetched.offsets.last().map_or(next, |last| last + 1);
                found.take(&fetched, key, commit);
            }
            Event::End { offset, .. } => next = next.max(offset),
            _ => {}
        }
        if next > before {
            moved = Instant::now();
        }
        line.show(|| format!("{at}: {} of {} offsets read", next - begin, end - begin));
    }
    line.clear();
    found.short = next < end && !found.over;
    Ok(Some(found))
}

/// What is told of a row: as JSON, and as lines for people.
pub struct Told {
    pub json: Value,
    pub lines: Vec<String>,
}

/// `pipeline`: whose store it is.
pub fn tell(log: &dyn Log, context: &Context, pipeline: &str, row: &Row) -> Result<Told, LogError> {
    let mut json = json!({ "stage": row.stage, "store": row.store, "task": row.task, "key": row.key, "version": row.version });
    if let Some(bytes) = &row.base64 {
        json["base64"] = json!(bytes);
    }
    if let Some(start) = row.start {
        json["window"] = match row.end {
            Some(end) => json!({ "start": start, "end": end }),
            None => json!({ "last": start }),
        };
    }
    let mut told = Told { json, lines: Vec::new() };
    let Some((store, key)) = row.store.as_ref().zip(row.changelog_key()) else {
        let why = if row.withheld {
            "its key is not told: the record's own key is another, so it may be meant to hide it"
        } else {
            "which row it was is not told: the plugin does not say it, and it does not follow from the fields of the store's keys"
        };
        let of = row.store.as_ref().map_or_else(|| format!("stage {}", row.stage), |store| format!("store {store}"));
        told.lines.push(format!("made from a row of {of}; {why}"));
        told.json["why_not"] = json!(why);
        return Ok(told);
    };
    let window = match (row.start, row.end) {
        (Some(start), Some(end)) => format!(", window {start} to {end}"),
        (Some(last), None) => format!(", the session with its last record at {last}"),
        _ => String::new(),
    };
    let shown = row.key.clone().unwrap_or_else(|| format!("base64 {}", row.base64.clone().unwrap_or_default()));
    told.lines.push(format!("made from the row of store {store}, task {}: key {shown}{window}", row.task));
    told.lines.extend(row.version.iter().map(|version| format!("  version {}", type_of(version))));
    let at = TopicPartition::new(topic_of(pipeline, store), row.task);
    let not = |told: &mut Told, why: String| {
        told.lines.push(format!("  {why}"));
        told.json["why_not"] = json!(why);
    };
    let Some(commit) = row.commit else {
        not(&mut told, "there is no changelog in which it stands: it was written on the embedded log, which keeps the newest version of a row alone, or at least once".to_owned());
        return Ok(told);
    };
    let Some(found) = look(log, context, &at, &key, commit)? else {
        not(&mut told, format!("its changelog {at} is no longer there"));
        return Ok(told);
    };
    match found.newest(commit) {
        Err(why) => not(&mut told, format!("where it stands in {at} is not known: {why}")),
        Ok(newest) => {
            let when = if newest.commit == Some(commit) { "with the record" } else { "before it" };
            let what = if newest.deleted { "deleted" } else { "written" };
            let mut place = stands(&at, newest);
            place["committed"] = json!(if newest.commit == Some(commit) { "with" } else { "before" });
            told.lines.push(format!("  it was {what} {when} at {at}@{}{}", newest.offset, other_type(newest, row)));
            if newest.deleted && row.closed {
                // Handed over as it was before its window closed.
                match &found.before {
                    Some(before) => {
                        told.lines.push(format!("  handed over as it stands at {at}@{}, with what the same commit added to it", before.offset))
                    }
                    None => told.lines.push("  as it was handed over it stands there no more, or never did: its window closed within a commit, or it was compacted away".to_owned()),
                }
                place["before"] = found.before.as_ref().map_or(Value::Null, |before| stands(&at, before));
            } else if newest.commit == Some(commit) && !newest.deleted {
                told.lines.push("  later records of the same commit may be in it too".to_owned());
            }
            told.json["changelog"] = place;
        }
    }
    Ok(told)
}

fn stands(at: &TopicPartition, stands: &Stands) -> Value {
    json!({ "topic": &*at.topic, "partition": at.partition, "offset": stands.offset, "deleted": stands.deleted, "version": stands.version })
}

/// A row that the changelog has in another type: it became the newer one when it was read.
fn other_type(stands: &Stands, row: &Row) -> String {
    let version = stands.version.as_ref().filter(|version| !stands.deleted && row.version.as_ref() != Some(version));
    version.map(|version| format!(", as version {}", type_of(version))).unwrap_or_default()
}

fn type_of(version: &str) -> String {
    RowType::read(version).map_or_else(|| version.to_owned(), |known| format!("({known})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordsBuilder;

    /// Records of a changelog: key, whether there is a row, commit.
    fn found(records: &[(&str, bool, Option<i64>)], commit: i64) -> Found {
        let mut builder = RecordsBuilder::default();
        for (key, row, number) in records {
            let number = number.map(|number| number.to_string());
            let headers = number.iter().map(|number| (COMMIT_HEADER, Some(number.as_bytes())));
            builder.push(0, Some(key.as_bytes()), row.then_some(b"{}".as_slice()), headers);
        }
        let fetched =
            Fetched { from: TopicPartition::new("c", 0), offsets: (0..records.len() as i64).collect(), records: builder.finish() };
        let mut found = Found::default();
        found.take(&fetched, b"k", commit);
        found
    }

    fn newest(records: &[(&str, bool, Option<i64>)], commit: i64) -> Result<(i64, Option<i64>), &'static str> {
        let found = found(records, commit);
        found.newest(commit).map(|newest| (newest.offset, found.before.as_ref().map(|before| before.offset)))
    }

    #[test]
    fn the_newest_of_a_commit_or_before_is_found() {
        let all = [("k", true, Some(3)), ("x", true, Some(3)), ("k", true, Some(5)), ("k", false, Some(8)), ("k", true, Some(9))];
        assert_eq!(newest(&all, 3), Ok((0, None)));
        assert_eq!(newest(&all, 4), Ok((0, None)));
        assert_eq!(newest(&all, 5), Ok((2, Some(0))));
        assert_eq!(newest(&all, 8), Ok((3, Some(2))));
        assert_eq!(newest(&all, 100), Ok((4, Some(3))));
        assert!(newest(&all, 2).unwrap_err().contains("compacted away"));
    }

    #[test]
    fn what_was_written_while_commits_were_not_told_is_taken_only_where_that_is_certain() {
        // Before the first number it is before every commit.
        let before = [("k", true, None), ("x", true, Some(3))];
        assert_eq!(newest(&before, 3), Ok((0, None)));
        // Between two numbers too, unless the commit lies between them.
        let between = [("k", true, Some(3)), ("k", true, None), ("x", true, Some(7))];
        assert_eq!(newest(&between, 7), Ok((1, Some(0))));
        assert_eq!(newest(&between, 3), Ok((0, None)));
        assert!(newest(&between, 5).unwrap_err().contains("came or went"));
        assert!(newest(&[("k", true, None)], 5).unwrap_err().contains("came or went"));
    }

    #[test]
    fn what_an_open_transaction_hides_is_taken_for_possible() {
        for (commit, known) in [(3, true), (4, false)] {
            let mut found = found(&[("k", true, Some(3)), ("x", true, Some(3))], commit);
            found.short = true;
            assert_eq!(found.newest(commit).is_ok(), known);
        }
    }

    #[test]
    fn numbers_that_fall_tell_nothing() {
        assert!(newest(&[("k", true, Some(3)), ("k", true, Some(1))], 3).unwrap_err().contains("do not rise"));
    }
}
