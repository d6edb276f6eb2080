//! What copying a topic exactly-once costs: CPU seconds of this process per million records, on a real Kafka.
//!
//! `cargo bench -p millstream --bench kafka [-- RECORDS [ROUNDS]]`. A bare loop on rdkafka, twice (the second tells how much is noise); our log
//! alone; whole pipelines whose one stage, a filter, lets every record pass: one that reads no field and one that reads four. They take turns, each
//! round in another order, so that noise hits them alike: compare medians, and ratios to the bare loop of the same round. All have the same guarantee
//! (one transaction every 100 ms), client settings and allocator (mimalloc, for C too).

#[allow(dead_code, reason = "no benchmark disturbs its cluster")]
#[path = "../it/cluster.rs"]
mod cluster;

use cluster::{cluster, unique};
use millstream::io::{Commit, CommitState, Event, FetchLimit, Guarantee, Log, Membership, Position, TopicPartition};
use millstream::log::kafka::KafkaLog;
use millstream::manifest::{self, Secrets};
use millstream::plugin::engine::Engine;
use millstream::record::RecordsBuilder;
use millstream::runtime::{self, Creates};
use millstream::settings::KafkaSettings;
use millstream::task::{BatchLimit, Setting};
use millstream::worker::Options;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 8;
const INTERVAL: Duration = Duration::from_millis(100);

fn main() {
    // Cargo passes flags of its own.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(1_000_000);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let Some(cluster) = cluster() else { return };
    let log = Arc::new(KafkaLog::connect(&cluster.brokers, KafkaSettings::default()).expect("connected"));
    let shared: Arc<dyn Log> = log.clone();
    let input = fill(&log, count);
    let loops: [(&str, &dyn Fn(&str) -> Duration); 5] = [
        (BARE, &|output| timed(|| bare(&cluster.brokers, &input, output, count))),
        ("bare rdkafka again", &|output| timed(|| bare(&cluster.brokers, &input, output, count))),
        ("our log alone", &|output| timed(|| through_the_log(&log, &input, output, count))),
        ("pipeline, no field read", &|output| pipeline(&shared, &input, output, "", "true", count)),
        ("pipeline, four fields read", &|output| pipeline(&shared, &input, output, SCHEMA, FOUR_FIELDS, count)),
    ];
    // By loop, in the order of rounds: CPU seconds a million records, thousands of records a second.
    let mut costs: Vec<Vec<(f64, f64)>> = vec![Vec::new(); loops.len()];
    for round in 0..rounds {
        for turn in 0..loops.len() {
            let place = (turn + round) % loops.len();
            let (name, copy) = loops[place];
            let output = topic(&log, "out");
            let wall = Instant::now();
            let cpu = copy(&output);
            let millions = count as f64 / 1e6;
            let cost = (cpu.as_secs_f64() / millions, millions * 1e3 / wall.elapsed().as_secs_f64());
            println!("round {round} {name:>26}: {:.2} CPU s/M, {:.0} k records/s", cost.0, cost.1);
            costs[place].push(cost);
        }
    }
    println!("medians of {rounds} rounds, {count} records:");
    for ((name, _), own) in loops.iter().zip(&costs) {
        let ratios = own.iter().zip(&costs[0]).map(|(own, bare)| own.0 / bare.0).collect();
        let (cpu, rate) = own.iter().copied().unzip();
        let (cpu, rate, ratio) = (median(cpu), median(rate), median(ratios));
        println!("{name:>26}: {cpu:.2} CPU s/M, {rate:.0} k records/s, {ratio:.2} times {BARE}");
    }
}

const BARE: &str = "bare rdkafka";

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// The CPU time of some work.
fn timed(work: impl FnOnce()) -> Duration {
    let before = cpu();
    work();
    cpu() - before
}

/// CPU time of this process, all threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn topic(log: &KafkaLog, name: &str) -> String {
    let name = unique(name);
    log.create_topic(&name, PARTITIONS).expect("a topic");
    name
}

const SCHEMA: &str = ", schema: { user_id: int, channel: text, stars: int, country: text }";
const FOUR_FIELDS: &str = "user_id >= 0 && channel != \"\" && stars > 0 && country == \"CH\"";

/// JSON records of about 160 bytes.
fn fill(log: &KafkaLog, count: usize) -> String {
    let input = topic(log, "in");
    for start in (0..count).step_by(10_000) {
        let mut builder = RecordsBuilder::default();
        for number in start..count.min(start + 10_000) {
            let key = format!("user-{}", number % 50_000);
            let value = format!(
                r#"{{"user_id":{},"channel":"channel-{:03}","stars":{},"price":{}.{:02},"comment":"rated in record {number:010}, as many others were","country":"CH"}}"#,
                number % 50_000,
                number % 300,
                number % 5 + 1,
                number % 90,
                number % 100
            );
            builder.push(1_700_000_000_000 + number as i64, Some(key.as_bytes()), Some(value.as_bytes()), []);
        }
        log.produce(&input, None, &builder.finish()).expect("produced");
    }
    input
}

/// The loop that anyone would write with the crate: poll a message, send a message.
fn bare(brokers: &str, input: &str, output: &str, count: usize) {
    let group = unique("bare");
    let consumer = BaseConsumer::from_config(
        ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", &group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.queue.backoff.ms", "2")
            .set("queued.min.messages", "5000")
            .set("queued.max.messages.kbytes", "4096"),
    )
    .expect("a consumer");
    let producer = BaseProducer::from_config(
        ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", &group)
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "100000")
            .set("delivery.report.only.error", "true"),
    )
    .expect("a producer");
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).expect("a transactional producer");
    consumer.subscribe(&[input]).expect("subscribed");
    let mut copied = 0;
    let mut positions = BTreeMap::new();
    let mut began: Option<Instant> = None;
    while copied < count || began.is_some() {
        if began.is_some_and(|began| began.elapsed() >= INTERVAL || copied == count) {
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in std::mem::take(&mut positions) {
                offsets.add_partition_offset(input, partition, Offset::Offset(offset)).expect("an offset");
            }
            let group = consumer.group_metadata().expect("a group");
            producer.send_offsets_to_transaction(&offsets, &group, wait).expect("positions");
            producer.commit_transaction(wait).expect("committed");
            began = None;
            continue;
        }
        let Some(message) = consumer.poll(INTERVAL) else { continue };
        let message = message.expect("a message");
        if began.is_none() {
            producer.begin_transaction().expect("begun");
            began = Some(Instant::now());
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord {
            topic: output,
            partition: Some(message.partition()),
            payload: message.payload(),
            key: message.key(),
            timestamp: message.timestamp().to_millis(),
            headers: message.headers().map(|headers| headers.detach()),
            delivery_opaque: (),
        };
        while let Err((error, again)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(5));
            record = again;
        }
        copied += 1;
        positions.insert(message.partition(), message.offset() + 1);
    }
}

/// The same by our log: batches of columns, and nothing in between.
fn through_the_log(log: &KafkaLog, input: &str, output: &str, count: usize) {
    let topic: Arc<str> = output.into();
    let membership =
        Membership { group: unique("log"), member: "bench.0".to_owned(), topics: vec![input.into()], guarantee: Guarantee::ExactlyOnce };
    let mut member = log.member(&membership).expect("a member");
    let limit = FetchLimit { rows: 1000, bytes: 1 << 20 };
    let mut copied = 0;
    let mut positions: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut began: Option<Instant> = None;
    while copied < count || began.is_some() {
        if began.is_some_and(|began| began.elapsed() >= INTERVAL || copied == count) {
            let positions = std::mem::take(&mut positions);
            let position = |offset| Position { offset, metadata: String::new() };
            let positions = positions.into_iter().map(|(at, offset)| (at, position(offset))).collect();
            member.begin_commit(Commit { positions, state: Vec::new() }).expect("begun");
            while member.poll_commit(INTERVAL).expect("committed") == CommitState::InFlight {}
            began = None;
            continue;
        }
        match member.poll(limit, INTERVAL).expect("a poll") {
            Event::Records(fetched) => {
                began.get_or_insert_with(Instant::now);
                member.append(&TopicPartition::new(topic.clone(), fetched.from.partition), &fetched.records).expect("appended");
                copied += fetched.records.len();
                if let Some(last) = fetched.offsets.last() {
                    positions.insert(fetched.from, last + 1);
                }
            }
            Event::Assigned(partitions) => {
                let places: Vec<_> = partitions.into_iter().map(|at| (at, 0)).collect();
                member.start(&places).expect("started");
            }
            _ => {}
        }
    }
    member.leave().expect("left");
}

/// The same by a pipeline as `run` runs it. What is done before its first record, such as compiling the plugin, does not count.
fn pipeline(log: &Arc<dyn Log>, input: &str, output: &str, schema: &str, condition: &str, count: usize) -> Duration {
    let name = unique("pipeline");
    let text = format!(
        "pipeline: {name}\nsources: {{ in: {{ topic: {input}{schema} }} }}\nstages:\n  - {{ name: all, plugin: filter, with: {{ where: '{condition}' }} }}\n\
         sinks: [{{ from: all, topic: {output} }}]\n"
    );
    let engine = Engine::new().expect("an engine");
    let loaded = manifest::load_text(Path::new("bench.yaml"), text, &engine).expect("a pipeline");
    let secrets = Secrets::load().expect("no secrets");
    let setting: Setting = runtime::prepare(loaded.pipeline, log, &secrets, BatchLimit::default(), Creates::Nothing, None).expect("ready");
    // The bare loop commits by time alone.
    let options = Options { until_end: true, commit_interval: INTERVAL, commit_rows: usize::MAX, ..Options::default() };
    timed(|| {
        let (summary, ended) = runtime::run(&Arc::new(setting), log, None, options, &AtomicBool::new(false), &mut |_| {});
        ended.expect("a whole run");
        assert_eq!(summary.records, count as u64);
    })
}
