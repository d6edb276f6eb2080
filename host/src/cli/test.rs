//! `millstream test`: the tests that stand in a pipeline's file. Each runs twice on a log of its own, as one batch and as one record a call with
//! new instances; both must agree, with each other and with what is expected.

use super::{Context, Exit, Failure, Outcome, Output};
use crate::io::{Event, FetchLimit, Log, LogError, TopicPartition, partition_for, partitions_of};
use crate::log::embedded::{EmbeddedLog, Options as LogOptions};
use crate::manifest::{
    self, Case, Diagnostic, Diagnostics, Expect, ExpectRecord, Expected, ExpectedValue, GivenRecord, GivenValue, Loaded, Secrets, Severity,
    Span, Target,
};
use crate::pipeline::{KeyFormat, Policy, TimeField};
use crate::plugin::engine::Engine;
use crate::record::RecordsBuilder;
use crate::runtime::{self, Creates};
use crate::task::BatchLimit;
use crate::worker::Options;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline's file, or several
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let engine = Engine::new()?;
    let (mut passed, mut failed) = (0, 0);
    let mut report = Vec::new();
    for file in &args.files {
        let loaded = manifest::load(file, &engine)?;
        for case in loaded.cases.iter().filter(|case| args.only.as_ref().is_none_or(|only| case.name.contains(only))) {
            let mistakes = check(&loaded, case)?;
            let ok = mistakes.is_empty();
            if ok {
                passed += 1
            } else {
                failed += 1
            }
            let mistakes = Diagnostics(mistakes);
            match context.global.output {
                Output::Json => {
                    report.push(serde_json::json!({ "file": file, "test": case.name, "passed": ok, "diagnostics": mistakes.to_json() }))
                }
                Output::Text => {
                    anstream::println!("{} {}: {}", if ok { "ok    " } else { "FAILED" }, loaded.pipeline.name, case.name);
                    if !ok {
                        anstream::print!("{}", mistakes.render(std::io::IsTerminal::is_terminal(&std::io::stdout())));
                    }
                }
            }
        }
    }
    match context.global.output {
        Output::Json => println!("{}", serde_json::json!({ "tests": report, "passed": passed, "failed": failed })),
        Output::Text => anstream::println!("{passed} passed, {failed} failed"),
    }
    if failed > 0 {
        return Err(Failure { exit: Exit::Test, error: anyhow::anyhow!("{failed} of {} tests failed", passed + failed) });
    }
    if passed == 0 {
        let error = match &args.only {
            Some(text) => anyhow::anyhow!("no test has `{text}` in its name"),
            None => anyhow::anyhow!("there is no test to run: write some under `tests:`"),
        };
        return Err(Failure { exit: Exit::Test, error });
    }
    Ok(())
}

/// A record as it came out.
#[derive(Clone, Debug, PartialEq)]
struct Came {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

type Topics = BTreeMap<Arc<str>, Vec<Came>>;

fn check(loaded: &Loaded, case: &Case) -> Result<Vec<Diagnostic>, Failure> {
    let mistake = |span: Span, message: String, help: Option<String>| Diagnostic {
        severity: Severity::Error,
        source: loaded.source.clone(),
        span,
        message,
        help,
    };
    let whole = match attempt(loaded, case, 1000)? {
        Ok(topics) => topics,
        Err(message) => return Ok(vec![mistake(case.span, message, None)]),
    };
    let single = match attempt(loaded, case, 1)? {
        Ok(topics) => topics,
        Err(message) => return Ok(vec![mistake(case.span, format!("one record a call: {message}"), None)]),
    };
    let mut mistakes = Vec::new();
    for (topic, came) in &whole {
        if single.get(topic) != Some(came) {
            let message = format!("topic `{topic}` differs between one batch and one record a call with new instances");
            let help = "a plugin keeps something in memory from call to call; what must be kept belongs in a store".to_owned();
            mistakes.push(mistake(case.span, message, Some(help)));
        }
    }
    for expect in &case.expect {
        let none = Vec::new();
        compare(expect, whole.get(expect.topic.as_str()).unwrap_or(&none), &mut |span, message| {
            mistakes.push(mistake(span, message, None))
        });
    }
    Ok(mistakes)
}

/// Runs the case on a new log. The inner `Err` is the run's own failure.
fn attempt(loaded: &Loaded, case: &Case, rows: usize) -> Result<Result<Topics, String>, Failure> {
    let pipeline = &loaded.pipeline;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::temporary(LogOptions::default())?);
    let mut order = 0;
    let mut records: BTreeMap<Arc<str>, Vec<(i32, RecordsBuilder)>> = BTreeMap::new();
    for given in &case.given {
        let (topic, key, time) = match given.to {
            Target::Source(index) => (&pipeline.sources[index].topic, pipeline.sources[index].key, pipeline.sources[index].time.as_ref()),
            Target::Table(index) => (&pipeline.tables[index].topic, pipeline.tables[index].key, None),
        };
        let partitions = given.records.iter().filter_map(|record| record.partition).max().unwrap_or(0).saturating_add(1);
        log.create_topic(topic, partitions)?;
        for record in &given.records {
            order += 1;
            let key = match record.key.as_ref().map(|value| key_bytes(value, key)).transpose() {
                Ok(key) => key,
                Err(message) => return Ok(Err(message)),
            };
            let partition = record.partition.unwrap_or_else(|| key.as_deref().map_or(0, |key| partition_for(key, partitions)));
            let value = value_bytes(&record.value);
            let timestamp = record.timestamp.or_else(|| time_of(record, time?)).unwrap_or(order);
            let headers = record.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref().map(str::as_bytes)));
            let mut builder = RecordsBuilder::default();
            builder.push(timestamp, key.as_deref(), value.as_deref(), headers);
            records.entry(topic.clone()).or_default().push((partition, builder));
        }
    }
    for (topic, records) in records {
        for (partition, builder) in records {
            log.produce(&topic, Some(partition), &builder.finish())?;
        }
    }
    let limit = BatchLimit { rows, ..BatchLimit::default() };
    let mut setting = match runtime::prepare(pipeline.clone(), &log, &Secrets::load()?, limit, Creates::All, None) {
        Ok(setting) => setting,
        Err(error) => return Ok(Err(error.to_string())),
    };
    setting.fresh_instances = rows == 1;
    let options = Options { until_end: true, ..Options::default() };
    let (_, ended) = runtime::run(&Arc::new(setting), &log, None, options, &AtomicBool::new(false), &mut |_| {});
    if let Err(error) = ended {
        return Ok(Err(error.to_string()));
    }
    let dead = pipeline.policies().filter_map(|policy| match policy {
        Policy::DeadLetter { topic, .. } => Some(topic.clone()),
        _ => None,
    });
    let mut topics = Topics::new();
    // Repartition topics hold marks, of which there are as many as commits.
    let sinks = pipeline.sinks.iter().filter(|sink| sink.regroup.is_none());
    for topic in sinks.map(|sink| sink.topic.clone()).chain(dead) {
        let came = read_all(&*log, &topic)?;
        topics.insert(topic, came);
    }
    Ok(Ok(topics))
}

/// Every record of a topic, by timestamp where it has several partitions.
fn read_all(log: &dyn Log, topic: &Arc<str>) -> Result<Vec<Came>, LogError> {
    let mut starts: Vec<(TopicPartition, i64)> = Vec::new();
    let mut left = BTreeMap::new();
    for partition in partitions_of(log, topic)? {
        let bounds = log.bounds(&partition)?;
        if bounds.end > bounds.begin {
            left.insert(partition.clone(), bounds.end);
        }
        starts.push((partition, bounds.begin));
    }
    let mut reader = log.reader()?;
    reader.assign(&starts)?;
    let mut came = Vec::new();
    while !left.is_empty() {
        if let Event::Records(fetched) = reader.poll(FetchLimit { rows: 1000, bytes: 1 << 20 }, Duration::from_millis(100))? {
            let records = &fetched.records;
            for row in 0..records.len() {
                came.push(Came {
                    timestamp: records.timestamps[row],
                    key: records.keys.bytes(row).map(<[u8]>::to_vec),
                    value: records.values.bytes(row).map(<[u8]>::to_vec),
                    headers: records.headers.of(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
                });
            }
            let next = fetched.offsets.last().map_or(0, |offset| offset + 1);
            if left.get(&fetched.from).is_some_and(|end| next >= *end) {
                left.remove(&fetched.from);
            }
        }
    }
    if starts.len() > 1 {
        came.sort_by_key(|record| record.timestamp);
    }
    Ok(came)
}

fn key_bytes(key: &Value, format: KeyFormat) -> Result<Vec<u8>, String> {
    let text = match key {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = || text.parse::<i64>().map_err(|_| format!("the key `{text}` is no whole number"));
    Ok(match format {
        KeyFormat::Text | KeyFormat::Bytes => text.into_bytes(),
        KeyFormat::Json => key.to_string().into_bytes(),
        KeyFormat::Int32 => i32::try_from(number()?).map_err(|_| format!("the key `{text}` is no int32"))?.to_be_bytes().to_vec(),
        KeyFormat::Int64 => number()?.to_be_bytes().to_vec(),
    })
}

fn value_bytes(value: &GivenValue) -> Option<Vec<u8>> {
    match value {
        GivenValue::Tombstone => None,
        GivenValue::Json(value) => Some(value.to_string().into_bytes()),
        GivenValue::Raw(text) => Some(text.clone().into_bytes()),
    }
}

/// The time that the record's own field tells: a case need not say it twice.
fn time_of(record: &GivenRecord, time: &TimeField) -> Option<i64> {
    let GivenValue::Json(value) = &record.value else { return None };
    time.field.0.iter().try_fold(value, |value, name| value.get(name))?.as_i64()?.checked_mul(time.unit)
}

/// Holds what came against what is expected: as many records, in order within a key.
fn compare(expect: &Expect, came: &[Came], tell: &mut dyn FnMut(Span, String)) {
    let topic = &expect.topic;
    let mut used = vec![false; came.len()];
    for expected in &expect.records {
        // Of each key, only the first record that is left.
        let mut keys: Vec<&Option<Vec<u8>>> = Vec::new();
        let mut candidates = Vec::new();
        for (at, record) in came.iter().enumerate().filter(|(at, _)| !used[*at]) {
            if !keys.contains(&&record.key) {
                keys.push(&record.key);
                candidates.push(at);
            }
        }
        match candidates.iter().find(|at| differences(expected, &came[**at]).is_empty()) {
            Some(at) => used[*at] = true,
            None => match candidates.first() {
                Some(at) => {
                    for (span, message) in differences(expected, &came[*at]) {
                        tell(span, format!("topic `{topic}`: {message}"));
                    }
                    used[*at] = true;
                }
                None => tell(expected.span, format!("topic `{topic}`: this record did not come")),
            },
        }
    }
    let extra: Vec<_> = came.iter().zip(&used).filter(|(_, used)| !**used).map(|(record, _)| shown(record)).collect();
    if !extra.is_empty() {
        tell(
            expect.span,
            format!("topic `{topic}` holds {} more: {}", extra.len(), extra.iter().take(5).cloned().collect::<Vec<_>>().join(", ")),
        );
    }
}

fn shown(record: &Came) -> String {
    let text =
        |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{} -> {}", text(&record.key), text(&record.value))
}

/// How a record differs from what is expected, each with the place in the file.
fn differences(expected: &ExpectRecord, came: &Came) -> Vec<(Span, String)> {
    let mut found = Vec::new();
    if let Some((key, span)) = &expected.key {
        let want = match key {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            other => Some(other.to_string().into_bytes()),
        };
        let same_json = || came.key.as_deref().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok()).as_ref() == Some(key);
        if want != came.key && !same_json() {
            found.push((*span, format!("the key is {}", text_of(came.key.as_deref()))));
        }
    }
    if let Some((time, span)) = &expected.timestamp
        && *time != came.timestamp
    {
        found.push((*span, format!("the timestamp is {}", came.timestamp)));
    }
    for (name, want) in &expected.headers {
        let header = came.headers.iter().rev().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| match value {
            Some(bytes) => Value::String(String::from_utf8_lossy(bytes).into_owned()),
            None => Value::Null,
        });
        differ(want, header.as_ref(), &format!("header `{name}`"), false, &mut found);
    }
    if let Some(want) = &expected.value {
        match &came.value {
            None => match want.what {
                ExpectedValue::Is(Value::Null) => {}
                _ => found.push((want.span, "the value is a tombstone".to_owned())),
            },
            Some(bytes) => match serde_json::from_slice::<Value>(bytes) {
                Ok(Value::Null) | Err(_) if matches!(&want.what, ExpectedValue::Is(Value::String(text)) if text.as_bytes() == bytes.as_slice()) =>
                    {}
                Ok(value) if matches!(want.what, ExpectedValue::Is(Value::Null)) => {
                    found.push((want.span, format!("expected a tombstone, the value is {value}")));
                }
                Ok(value) => differ(want, Some(&value), "", expected.exact, &mut found),
                Err(_) => found.push((want.span, "the value is no JSON".to_owned())),
            },
        }
    }
    found
}

fn text_of(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| format!("`{}`", String::from_utf8_lossy(bytes)))
}

fn differ(expected: &Expected, came: Option<&Value>, path: &str, exact: bool, found: &mut Vec<(Span, String)>) {
    let name = if path.is_empty() { "the value".to_owned() } else { path.to_owned() };
    let is = |came: Option<&Value>| came.map_or_else(|| "missing".to_owned(), Value::to_string);
    match (&expected.what, came) {
        (ExpectedValue::Missing, None) => {}
        (ExpectedValue::Missing, Some(value)) => found.push((expected.span, format!("{name} should be missing, it is {value}"))),
        (ExpectedValue::Is(want), came) => {
            let same = match (want, came) {
                (Value::Number(a), Some(Value::Number(b))) => a == b || a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64()),
                (want, Some(came)) => want == came,
                (_, None) => false,
            };
            if !same {
                found.push((expected.span, format!("{name} is {}, not {want}", is(came))));
            }
        }
        (ExpectedValue::List(items), Some(Value::Array(values))) if items.len() == values.len() => {
            for (at, (item, value)) in items.iter().zip(values).enumerate() {
                differ(item, Some(value), &format!("{path}[{at}]"), exact, found);
            }
        }
        (ExpectedValue::Fields(fields), Some(Value::Object(members))) => {
            for (field, want) in fields {
                let below = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                // A dotted name that is no member of its own leads into the object.
                let value = members.get(field).or_else(|| {
                    let mut parts = field.split('.');
                    let first = members.get(parts.next()?)?;
                    parts.try_fold(first, |value, part| value.get(part)).filter(|_| field.contains('.'))
                });
                differ(want, value, &below, exact, found);
            }
            if exact {
                let extra: Vec<_> = members.keys().filter(|name| !fields.iter().any(|(field, _)| field == *name)).cloned().collect();
                if !extra.is_empty() {
                    found.push((expected.span, format!("{name} has more fields: {}", extra.join(", "))));
                }
            }
        }
        (ExpectedValue::List(_) | ExpectedValue::Fields(_), came) => found.push((expected.span, format!("{name} is {}", is(came)))),
    }
}
