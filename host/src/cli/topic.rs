//! `millstream topic`.

use super::{Context, Outcome, Output};
use crate::io::{Log, LogError, TopicPartition};
use comfy_table::Table;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a topic
    Create {
        name: String,
        #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
    },
    /// List the topics
    List,
    /// Show a topic's partitions: first offset, end, records
    Describe {
        name: String,
        /// Show where this pipeline stands, and how far behind the end
        #[arg(long, short, value_name = "PIPELINE")]
        group: Option<String>,
    },
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let log = context.connection.open()?;
    let json = context.global.output == Output::Json;
    match &args.command {
        Command::Create { name, partitions } => {
            log.create_topic(name, *partitions)?;
            if json {
                println!("{}", json!({ "topic": name, "partitions": partitions }));
            } else {
                anstream::println!("created topic {name} with {partitions} partition{}", if *partitions == 1 { "" } else { "s" });
            }
        }
        Command::List => list(&*log, json)?,
        Command::Describe { name, group } => describe(&*log, name, group.as_deref(), json)?,
    }
    Ok(())
}

fn list(log: &dyn Log, json: bool) -> Result<(), LogError> {
    let mut topics = log.topics()?;
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    if json {
        let topics: Vec<Value> = topics.iter().map(|topic| json!({ "topic": &*topic.name, "partitions": topic.partitions })).collect();
        println!("{}", Value::from(topics));
        return Ok(());
    }
    if topics.is_empty() {
        anstream::println!("no topics yet; `millstream topic create NAME` or `millstream produce NAME` makes one");
        return Ok(());
    }
    let mut table = table(&["topic", "partitions"]);
    for topic in &topics {
        table.add_row([topic.name.to_string(), topic.partitions.to_string()]);
    }
    anstream::println!("{}", table.trim_fmt());
    Ok(())
}

fn describe(log: &dyn Log, name: &str, group: Option<&str>, json: bool) -> Result<(), LogError> {
    let topic = log.topic(name)?.ok_or_else(|| missing(log, name))?;
    let partitions: Vec<TopicPartition> =
        (0..topic.partitions).map(|partition| TopicPartition::new(topic.name.clone(), partition)).collect();
    let positions = match group {
        Some(group) => log.committed(group, &partitions)?,
        None => vec![None; partitions.len()],
    };
    let mut rows = Vec::new();
    for (at, position) in partitions.iter().zip(positions) {
        rows.push((at.partition, log.bounds(at)?, position.map(|position| position.offset)));
    }
    let total: i64 = rows.iter().map(|(_, bounds, _)| bounds.end - bounds.begin).sum();
    if json {
        let row = |(partition, bounds, position): &(i32, crate::io::Bounds, Option<i64>)| {
            let mut row = json!({ "partition": partition, "begin": bounds.begin, "end": bounds.end, "records": bounds.end - bounds.begin });
            if let (Some(_), Some(row)) = (group, row.as_object_mut()) {
                row.insert("position".to_owned(), json!(position));
                row.insert("lag".to_owned(), json!(bounds.end - position.unwrap_or(bounds.begin)));
            }
            row
        };
        let rows: Vec<Value> = rows.iter().map(row).collect();
        println!("{}", json!({ "topic": name, "group": group, "records": total, "partitions": rows }));
        return Ok(());
    }
    let mut headers = vec!["partition", "begin", "end", "records"];
    if group.is_some() {
        headers.extend(["position", "lag"]);
    }
    let mut table = table(&headers);
    for (partition, bounds, position) in rows {
        let mut cells =
            vec![partition.to_string(), bounds.begin.to_string(), bounds.end.to_string(), (bounds.end - bounds.begin).to_string()];
        if group.is_some() {
            cells.push(position.map_or_else(|| "-".to_owned(), |position| position.to_string()));
            cells.push((bounds.end - position.unwrap_or(bounds.begin)).to_string());
        }
        table.add_row(cells);
    }
    anstream::println!("{name}: {total} record{}", if total == 1 { "" } else { "s" });
    anstream::println!("{}", table.trim_fmt());
    Ok(())
}

fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::TableStyle::new());
    table.set_header(headers.to_vec());
    table
}

/// The error of a topic that is not there, with the name that was meant, perhaps.
pub(super) fn missing(log: &dyn Log, name: &str) -> LogError {
    let topics = log.topics().unwrap_or_default();
    let near =
        topics.iter().map(|topic| (strsim::jaro_winkler(name, &topic.name), &topic.name)).max_by(|one, other| one.0.total_cmp(&other.0));
    let hint = match near {
        Some((likeness, near)) if likeness > 0.75 => format!("did you mean `{near}`?"),
        Some(_) => "`millstream topic list` shows those that are".to_owned(),
        None => format!("there are no topics here yet; `millstream topic create {name}` makes this one"),
    };
    LogError::stop(format!("there is no topic `{name}`; {hint}"))
}
