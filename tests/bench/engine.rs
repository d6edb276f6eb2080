//! What a pipeline costs on the embedded engine, in nanoseconds a record: `cargo bench -p millstream --bench engine [-- RECORDS]`.
//!
//! First each plugin on the ratings example's records: the component (boundary and checks included) beside the same plugin compiled natively, taking
//! turns, medians of thread CPU time. Then the chain identity, filter, mask from topic to topic, with each stage's share of the time.

#[path = "shared.rs"]
mod shared;

use millstream::column::{Column, Strings};
use millstream::field::{Field, Path as FieldPath};
use millstream::format::{self, Wanted};
use millstream::io::Log;
use millstream::log::embedded::{EmbeddedLog, Options as LogOptions};
use millstream::manifest::{self, Secrets};
use millstream::pipeline::FormatKind;
use millstream::plugin::describe::{FieldType, Part, Request, Schema};
use millstream::plugin::engine::Engine;
use millstream::plugin::{Input, Limits, Loader, Services, standard};
use millstream::record::{Headers, Records, RecordsBuilder};
use millstream::runtime::{self, Creates};
use millstream::task::BatchLimit;
use millstream::worker::Options;
use millstream_guest::{Batch, Plugin, Setup};
use shared::{NoServices, median, thread_cpu};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 1000;
const RUNS: usize = 31;
const CALLS: usize = 100;

/// The recorded ratings that are whole, over and over.
fn ratings(count: usize) -> Records {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/examples/ratings/data/ratings.jsonl");
    let text = std::fs::read_to_string(file).expect("the example's records");
    let parsed: Vec<(String, String, i64)> = text
        .lines()
        .filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let whole = line["value"].as_object().is_some_and(|value| value.get("stars").is_some_and(serde_json::Value::is_i64));
            whole.then(|| {
                (line["key"].as_str().unwrap_or_default().to_owned(), line["value"].to_string(), line["timestamp"].as_i64().unwrap_or(0))
            })
        })
        .collect();
    let mut records = RecordsBuilder::default();
    for (key, value, time) in parsed.iter().cycle().take(count) {
        records.push(*time, Some(key.as_bytes()), Some(value.as_bytes()), []);
    }
    records.finish()
}

fn schema() -> Schema {
    let field = |name: &str, kind, nullable| FieldType { path: Field::parse(name).expect("a name"), kind, nullable };
    use millstream::column::Type;
    let fields = vec![field("stars", Type::Int, false), field("channel", Type::Text, true), field("message", Type::Text, true)];
    Schema { fields, open: true }
}

/// The component beside the native plugin, ns a record each.
fn compare<P: Plugin>(records: &Records, config: serde_json::Value) -> (f64, f64) {
    let component = standard::component(P::NAME).expect("a standard plugin");
    let plugin = Engine::new().expect("an engine").load(component).expect("a component");
    let request = Request { config: config.clone(), input: schema(), inputs: vec![schema()], tables: Default::default() };
    let description = plugin.describe(&request).expect("described");
    let mut instance = plugin.instantiate(&request, &description, Limits::default()).expect("an instance");
    let config = serde_json::from_value(config).expect("a configuration");
    let mut native = P::init(Setup { config, input: schema(), inputs: vec![schema()], tables: Default::default() }).expect("a plugin");

    let wanted: Vec<Wanted> = description
        .reads
        .iter()
        .filter_map(|read| match &read.path {
            Field::Value(path) => Some(Wanted { path: FieldPath(path.0.clone()), kind: read.kind, from: None }),
            _ => None,
        })
        .collect();
    assert_eq!(wanted.len(), description.reads.len(), "this bench gives no pseudo-fields");
    let json = format::of(FormatKind::Json);
    let view = millstream::column::Indexed { column: &records.values, index: None };
    let decoded = json.decode(view, ROWS, &wanted);
    let fields: Vec<&Column> = decoded.fields.iter().map(|field| &field.column).collect();
    let leaves = description.leaves.then(|| json.leaves(view, ROWS).0);
    let keys = description.parts.contains(&Part::Key).then_some(&records.keys);
    let headers = Headers { offsets: vec![0; ROWS + 1], names: Strings::default(), values: Column::blobs(Strings::default()) };
    let headers = description.parts.contains(&Part::Headers).then_some(&headers);
    let input = Input {
        rows: ROWS,
        stream_time: 0,
        timestamps: &records.timestamps,
        fields: &fields,
        keys,
        values: None,
        headers,
        leaves: leaves.as_ref(),
    };
    let batch = Batch {
        rows: ROWS,
        stream_time: 0,
        timestamps: records.timestamps.clone(),
        fields: fields.iter().map(|column| (*column).clone()).collect(),
        keys: keys.cloned(),
        values: None,
        headers: headers.cloned(),
        leaves: leaves.as_ref().map(|leaves| millstream_guest::Leaves {
            offsets: leaves.offsets.clone(),
            paths: leaves.paths.clone(),
            values: leaves.values.clone(),
        }),
    };
    let mut services: Box<dyn Services> = Box::new(NoServices);
    let (mut component, mut compiled) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = thread_cpu();
        for _ in 0..CALLS {
            std::hint::black_box(instance.call(&input, &mut services).expect("a verdict"));
        }
        component.push((thread_cpu() - start).as_nanos() as f64 / (CALLS * ROWS) as f64);
        // A native plugin owns its batch: the copies are made before the clock runs.
        let batches: Vec<Batch> = (0..CALLS).map(|_| batch.clone()).collect();
        let start = thread_cpu();
        for batch in batches {
            std::hint::black_box(native.process(batch).expect("a verdict"));
        }
        compiled.push((thread_cpu() - start).as_nanos() as f64 / (CALLS * ROWS) as f64);
    }
    (median(component), median(compiled))
}

const PIPELINE: &str = "\
pipeline: bench
sources: { ratings: { topic: ratings, schema: { stars: int, channel: text?, message: text? } } }
stages:
  - { name: identity, plugin: filter, with: { where: 'true' } }
  - { name: filter, plugin: filter, with: { where: 'channel != \"iOS-test\"' } }
  - { name: mask, plugin: mask, with: { rules: [{ fields: '**', card: { keep_last: 4 } }] } }
sinks: [{ from: mask, topic: masked }]
";

fn main() {
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(300_000);
    let sample = ratings(ROWS);
    println!("ns a record, batches of {ROWS}, median of {RUNS}: component, native, difference, ratio");
    let row = |name: &str, (component, native): (f64, f64)| {
        println!("{name:28} {component:8.1} {native:8.1} {:8.1} {:8.2}", component - native, component / native);
    };
    row("identity (filter `true`)", compare::<millstream_filter::Filter>(&sample, serde_json::json!({ "where": "true" })));
    row("filter (channel)", compare::<millstream_filter::Filter>(&sample, serde_json::json!({ "where": "channel != \"iOS-test\"" })));
    let everywhere = serde_json::json!({ "rules": [{ "fields": "**", "card": { "keep_last": 4 } }] });
    row("mask (cards everywhere)", compare::<millstream_mask::Mask>(&sample, everywhere));

    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::temporary(LogOptions::default()).expect("a log"));
    log.create_topic("ratings", 1).expect("a topic");
    let records = ratings(count);
    for from in (0..count).step_by(10_000) {
        let rows: Vec<u32> = (from as u32..(from + 10_000).min(count) as u32).collect();
        log.produce("ratings", Some(0), &records.gather(&rows)).expect("appended");
    }
    let engine = Engine::new().expect("an engine");
    let loaded = manifest::load_text(Path::new("bench.yaml"), PIPELINE.to_owned(), &engine).expect("a pipeline");
    let secrets = Secrets::load().expect("no secrets");
    let setting = runtime::prepare(loaded.pipeline, &log, &secrets, BatchLimit::default(), Creates::All, None).expect("ready");
    let options = Options { until_end: true, ..Options::default() };
    // A stage counts the time that passes, so that its share is one of the same clock.
    let (start, wall) = (thread_cpu(), Instant::now());
    let (summary, ended) = runtime::run(&Arc::new(setting), &log, None, options, &AtomicBool::new(false), &mut |_| {});
    ended.expect("a whole run");
    let (cpu, wall) = (thread_cpu() - start, wall.elapsed());
    let each = |time: Duration| time.as_nanos() as f64 / summary.records as f64;
    println!("\nthe chain from topic to topic, {} records, ns a record", summary.records);
    let mut stages = 0.0;
    for (name, did) in ["identity", "filter", "mask"].iter().zip(&summary.stages) {
        let share = each(did.time);
        stages += share;
        println!("{name:28} {share:8.1}");
    }
    println!("{:28} {:8.1}", "source, sink, log, commit", each(wall) - stages);
    println!("{:28} {:8.1}, of which this thread's CPU time {:.1}", "all", each(wall), each(cpu));
}
