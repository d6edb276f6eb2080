//! `millstream schema`: what records look like, and the schemas of manifest and contract.

use super::{Context, Failure, Outcome, Output};
use crate::format::infer::{Inferred, Samples};
use crate::io::{Event, FetchLimit, LogError, TopicPartition};
use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

/// Polls of a second without a record, after which a topic that has records is given up.
const PATIENCE: u32 = 30;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the `schema:` block that fits the records of a topic or file
    Infer(Infer),
    /// Print the JSON schema of a pipeline's file, for editors
    Manifest,
    /// Print the JSON schemas of what plugins say about themselves, by file name
    Contract,
}

#[derive(Debug, clap::Args)]
struct Infer {
    /// A topic, or a file of JSON lines (`-` = standard input). An existing file, or a name with `/`, is a file
    #[arg(value_name = "TOPIC|FILE")]
    from: String,
    /// It is a topic, even if there is a file of that name
    #[arg(long)]
    topic: bool,
    /// Look at so many records; of a topic, equally many from the beginning of each partition
    #[arg(long, value_name = "N", default_value = "1000")]
    limit: NonZeroUsize,
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.command {
        Command::Infer(args) => infer(args, context),
        Command::Manifest => print_json(&crate::manifest::json_schema()),
        Command::Contract => {
            let schemas = crate::plugin::schemas::contract_schemas();
            print_json(&Value::Object(schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()))
        }
    }
}

fn print_json(value: &Value) -> Outcome {
    anstream::println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Records as they were found.
#[derive(Default)]
struct Found {
    values: Vec<Value>,
    tombstones: usize,
    /// Values that are no JSON, and where the first one was.
    broken: usize,
    first_broken: Option<String>,
}

impl Found {
    fn add(&mut self, bytes: &[u8], place: impl FnOnce() -> String) {
        match serde_json::from_slice(bytes) {
            Ok(value) => self.values.push(value),
            Err(error) => {
                self.broken += 1;
                // Not the message: it may quote the record.
                self.first_broken.get_or_insert_with(|| format!("{}, byte {}", place(), error.column()));
            }
        }
    }

    fn count(&self) -> usize {
        self.values.len() + self.tombstones + self.broken
    }
}

fn infer(args: &Infer, context: &Context) -> Outcome {
    let is_file = !args.topic && (args.from == "-" || args.from.contains('/') || Path::new(&args.from).exists());
    let (mut found, from) = if is_file {
        hint_at_topic(&args.from, context);
        let name = if args.from == "-" { "standard input".to_owned() } else { args.from.clone() };
        (read_file(&args.from, args.limit.get()).with_context(|| format!("cannot read {name}"))?, name)
    } else {
        (read_topic(&args.from, args.limit.get(), context)?, format!("the topic {}", args.from))
    };
    let unwrapped = is_file && unwrap(&mut found);
    let mut samples = Samples::default();
    found.values.iter().for_each(|value| samples.add(value));
    if samples.objects == 0 {
        return Err(nothing(&found, &samples, &from).into());
    }
    let fields = samples.fields();
    match context.global.output {
        Output::Json => print_json(&as_json(&found, &samples, &fields, &from)),
        Output::Text => {
            anstream::print!("{}", as_yaml(&found, &samples, &fields, &from, unwrapped));
            Ok(())
        }
    }
}

/// Says so if a file was taken where a topic of that name exists too.
fn hint_at_topic(name: &str, context: &Context) {
    let connection = &context.connection;
    if name.contains('/') || name == "-" || (connection.brokers.is_none() && !connection.data_folder().exists()) {
        return;
    }
    if let Ok(log) = connection.open()
        && let Ok(Some(_)) = log.topic(name)
    {
        anstream::eprintln!("note: `{name}` is a file and a topic; this is the file (`--topic` takes the topic)");
    }
}

fn read_file(name: &str, limit: usize) -> anyhow::Result<Found> {
    let input: Box<dyn Read> = if name == "-" { Box::new(std::io::stdin().lock()) } else { Box::new(std::fs::File::open(name)?) };
    let mut input = BufReader::new(input);
    let mut found = Found::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if found.count() == limit || input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            found.add(&line, || format!("line {number}"));
        }
    }
    Ok(found)
}

/// Lines as `produce` takes and `consume` prints them hold the record under `value`, `value_text` or `value_base64`.
fn unwrap(found: &mut Found) -> bool {
    const VALUES: [&str; 3] = ["value", "value_text", "value_base64"];
    const AROUND: [&str; 7] = ["key", "key_base64", "headers", "timestamp", "topic", "partition", "offset"];
    let wraps = |line: &Value| {
        line.as_object().is_some_and(|line| {
            let values = VALUES.iter().filter(|name| line.contains_key(**name)).count();
            values == 1 && line.keys().all(|name| VALUES.contains(&name.as_str()) || AROUND.contains(&name.as_str()))
        })
    };
    if found.values.is_empty() || !found.values.iter().all(wraps) {
        return false;
    }
    for (index, line) in std::mem::take(&mut found.values).into_iter().enumerate() {
        let Value::Object(mut line) = line else { continue };
        let place = || format!("record {}", index + 1);
        match (line.remove("value"), line.remove("value_text"), line.remove("value_base64")) {
            (Some(Value::Null), ..) => found.tombstones += 1,
            (Some(value), ..) => found.values.push(value),
            (_, Some(Value::String(text)), _) => found.add(text.as_bytes(), place),
            (.., Some(Value::String(text))) => found.add(&STANDARD.decode(text).unwrap_or_default(), place),
            // `produce` would refuse the line.
            _ => found.add(b"", place),
        }
    }
    true
}

fn read_topic(name: &str, limit: usize, context: &Context) -> Result<Found, Failure> {
    let log = context.connection.open()?;
    let Some(topic) = log.topic(name)? else {
        let mut names: Vec<String> = log.topics()?.iter().map(|topic| topic.name.to_string()).collect();
        names.sort();
        let known = if names.is_empty() { "there are no topics".to_owned() } else { format!("topics are {}", names.join(", ")) };
        return Err(anyhow::anyhow!("there is no topic and no file `{name}`; {known}").into());
    };
    // By partition: what may still be taken, and up to which offset. Only the records that are there now.
    let share = limit.div_ceil(usize::try_from(topic.partitions).unwrap_or(1).max(1));
    let mut open = Vec::new();
    let mut start = Vec::new();
    for partition in 0..topic.partitions {
        let partition = TopicPartition::new(topic.name.clone(), partition);
        let bounds = log.bounds(&partition)?;
        if bounds.begin < bounds.end {
            start.push((partition.clone(), bounds.begin));
            open.push((partition, share, bounds.end));
        }
    }
    let mut found = Found::default();
    let mut reader = log.reader()?;
    reader.assign(&start)?;
    let mut idle = 0;
    while !open.is_empty() && found.count() < limit {
        match reader.poll(FetchLimit { rows: share, bytes: 1 << 20 }, Duration::from_secs(1))? {
            Event::Records(fetched) => {
                idle = 0;
                let Some((_, left, end)) = open.iter_mut().find(|(partition, ..)| *partition == fetched.from) else { continue };
                for (row, offset) in fetched.offsets.iter().enumerate() {
                    if *left == 0 || *offset >= *end || found.count() == limit {
                        *left = 0;
                        break;
                    }
                    *left -= 1;
                    match fetched.records.values.bytes(row) {
                        None => found.tombstones += 1,
                        Some(value) => found.add(value, || format!("{} offset {offset}", fetched.from)),
                    }
                    if *offset + 1 >= *end {
                        *left = 0;
                    }
                }
                open.retain(|(_, left, _)| *left > 0);
            }
            Event::End { at, offset } => open.retain(|(partition, _, end)| *partition != at || offset < *end),
            Event::Idle if idle == PATIENCE => {
                return Err(LogError::stop(format!("nothing came from the topic {name} for {PATIENCE} s, though there are records")).into());
            }
            Event::Idle => idle += 1,
            Event::Assigned(_) | Event::Revoked { .. } => {}
        }
    }
    Ok(found)
}

fn nothing(found: &Found, samples: &Samples, from: &str) -> anyhow::Error {
    let why = match &found.first_broken {
        _ if found.count() == 0 => "there are no records".to_owned(),
        Some(place) => format!(
            "{} of {} values are not valid JSON (the first: {place}); a file must hold one value a line",
            found.broken,
            found.count()
        ),
        None => format!("{} values are no objects, {} are tombstones", samples.others, found.tombstones),
    };
    anyhow::anyhow!("no schema can be inferred from {from}: {why}")
}

fn type_of(field: &Inferred) -> String {
    format!("{}{}", field.kind, if field.nullable { "?" } else { "" })
}

/// What was left out of account, in words.
fn left_out(found: &Found, samples: &Samples) -> Vec<String> {
    let broken = found.first_broken.as_ref().map_or_else(String::new, |place| format!(" (the first: {place})"));
    [
        (found.broken, format!("not valid JSON{broken}")),
        (samples.others, "no objects".to_owned()),
        (found.tombstones, "tombstones".to_owned()),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

fn as_json(found: &Found, samples: &Samples, fields: &[Inferred], from: &str) -> Value {
    let schema: serde_json::Map<_, _> = fields.iter().map(|field| (field.path.to_string(), Value::from(type_of(field)))).collect();
    let details: Vec<_> = fields
        .iter()
        .map(|field| {
            json!({ "path": field.path, "type": field.kind, "nullable": field.nullable, "values": field.values, "nulls": field.nulls, "remark": field.remark })
        })
        .collect();
    json!({
        "from": from, "records": samples.objects, "not_json": found.broken, "not_objects": samples.others, "tombstones": found.tombstones,
        "schema": schema, "fields": details,
    })
}

fn as_yaml(found: &Found, samples: &Samples, fields: &[Inferred], from: &str, unwrapped: bool) -> String {
    let mut text = format!("# From {} records of {from}.", samples.objects);
    if unwrapped {
        text += " Lines are `{key, value, ...}`: this is the schema of `value`.";
    }
    let left_out = left_out(found, samples);
    if !left_out.is_empty() {
        text += &format!(" Left out: {}.", left_out.join(", "));
    }
    text += "\nschema:\n";
    let lines: Vec<_> =
        fields.iter().map(|field| (format!("  {}: {}", yaml_key(&field.path.to_string()), type_of(field)), field)).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    for (line, field) in lines {
        let missing = samples.objects.saturating_sub(field.values + field.nulls);
        let mut remarks = Vec::new();
        if field.nulls > 0 {
            remarks.push(format!("null in {}", field.nulls));
        }
        if missing > 0 {
            remarks.push(format!("missing in {missing}"));
        }
        remarks.extend(Some(field.remark.clone()).filter(|remark| !remark.is_empty()));
        let padding = width - line.chars().count();
        let remarks = if remarks.is_empty() { String::new() } else { format!("; {}", remarks.join("; ")) };
        text += &format!("{line}{:padding$}  # {} of {}{remarks}\n", "", field.values, samples.objects);
    }
    text
}

/// A path as a key of YAML: plain if nobody could take it for something else, else in quotes (JSON's strings are YAML's).
fn yaml_key(path: &str) -> String {
    let plain = path.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && path.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.'))
        && !["null", "true", "false"].contains(&path.to_lowercase().as_str());
    if plain {
        path.to_owned()
    } else if path.chars().any(char::is_control) {
        Value::from(path).to_string()
    } else {
        format!("'{}'", path.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_where_yaml_needs_it() {
        for (path, key) in [
            ("a", "a"),
            ("address.city", "address.city"),
            ("größe", "größe"),
            ("a.\"b.c\"", "'a.\"b.c\"'"),
            ("it's", "'it''s'"),
            ("null", "'null'"),
            ("1st", "'1st'"),
            ("a b", "'a b'"),
            ("a: b", "'a: b'"),
            ("\"\"", "'\"\"'"),
            ("tab\t", "\"tab\\t\""),
        ] {
            assert_eq!(yaml_key(path), key);
        }
    }
}
