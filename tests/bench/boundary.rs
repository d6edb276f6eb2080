//! What the boundary between host and guest costs, in nanoseconds of CPU time a record: `cargo bench -p millstream --bench boundary`.
//! Batches of 1000 records, each with a time, a text of 16 bytes and an int; the median of 15 runs.

#[path = "shared.rs"]
mod shared;

use millstream::column::{ColumnBuilder, Type};
use millstream::guest_build;
use millstream::plugin::describe::Request;
use millstream::plugin::engine::Engine;
use millstream::plugin::{Input, Leaves, Limits, Loader, Services};
use shared::{NoServices, median, thread_cpu};
use std::hint::black_box;
use std::path::Path;

const CALLS: usize = 2000;
const RUNS: usize = 15;

/// Median nanoseconds a record.
fn measure(rows: usize, mut call: impl FnMut()) -> f64 {
    let runs = (0..RUNS)
        .map(|_| {
            let start = thread_cpu();
            (0..CALLS).for_each(|_| call());
            (thread_cpu() - start).as_nanos() as f64 / (CALLS * rows) as f64
        })
        .collect();
    median(runs)
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let target_dir = Path::new(env!("CARGO_BIN_EXE_millstream")).ancestors().nth(2).expect("the target folder").join("guests");
    let packages = ["millstream-hostile".to_owned()];
    let manifest = root.join("Cargo.toml");
    let build =
        guest_build::Build { manifest: &manifest, packages: &packages, target_dir: &target_dir, profile: Some("plugin"), locked: true };
    let folder = build.run(&guest_build::find_toolchain(|message| eprintln!("{message}")).expect("a compiler")).expect("a guest");
    let module = std::fs::read(folder.join(guest_build::module_file(&packages[0]))).expect("its module");
    let plugin = Engine::new().expect("an engine").load(&guest_build::component(&module).expect("a component")).expect("a plugin");

    println!("{:<12}{:>8}{:>14}{:>14}{:>14}", "guest", "rows", "ns/record", "no fields", "native");
    for rows in [1, 10, 100, 1000] {
        let mut a = ColumnBuilder::new(Type::Text, rows);
        let mut n = ColumnBuilder::new(Type::Int, rows);
        (0..rows).for_each(|row| {
            a.bytes(format!("text-{row:011}").as_bytes());
            n.int(row as i64);
        });
        let (a, n) = (a.finish(), n.finish());
        let timestamps: Vec<i64> = (0..rows as i64).collect();
        let leaves = Leaves { offsets: vec![0; rows + 1], ..Leaves::default() };
        let fields = [&a, &n];
        let input = |fields| Input {
            rows,
            stream_time: 0,
            timestamps: &timestamps,
            fields,
            keys: None,
            values: None,
            headers: None,
            leaves: Some(&leaves),
        };
        for mode in ["Identity", "Half", "Echo"] {
            let request: Request = serde_json::from_value(serde_json::json!({
                "config": { "mode": mode },
                "input": { "fields": [] },
                "tables": { "users": { "fields": [] } },
            }))
            .expect("a request");
            let description = plugin.describe(&request).expect("a description");
            let mut instance = plugin.instantiate(&request, &description, Limits::default()).expect("an instance");
            let mut services: Box<dyn Services> = Box::new(NoServices);
            let mut ns = |fields| {
                measure(rows, || {
                    black_box(instance.call(black_box(&input(fields)), &mut services).expect("a verdict"));
                })
            };
            let with_fields = ns(&fields);
            let without = (mode != "Echo").then(|| ns(&[]));
            // What a native function has to do for the same answer: read the column, make the selection or the new columns.
            let native = measure(rows, || match mode {
                "Identity" => {
                    black_box(&a);
                }
                "Half" => {
                    black_box((0..rows as u32).step_by(2).collect::<Vec<_>>());
                }
                _ => {
                    black_box((a.clone(), n.clone(), (0..rows as u32).collect::<Vec<_>>()));
                }
            });
            let without = without.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}"));
            println!("{mode:<12}{rows:>8}{with_fields:>14.1}{without:>14}{native:>14.1}");
        }
    }
}
