//! What JSON costs, in nanoseconds a record: our projection, splice and leaves beside serde_json.
//!
//! `cargo bench --bench json`: each line is the best of several rounds, since a busy machine only ever adds time.

use millstream::column::{Bitmap, Cell, Column, ColumnBuilder, Indexed, Strings, Type};
use millstream::field::Path;
use millstream::format::{Change, Format, Wanted, json::Json};
use millstream::plugin::ReplacedLeaves;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROWS: usize = 1000;
const ROUNDS: usize = 30;

/// What a program with a record type of its own would do, with no wish to keep the other bytes.
#[derive(serde::Deserialize)]
struct Rating<'a> {
    user_id: i64,
    stars: i64,
    #[serde(borrow)]
    channel: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    message: std::borrow::Cow<'a, str>,
}

fn records() -> Column {
    let messages =
        ["worst. flight. ever. #neveragain", "why is it so difficult to keep the bathrooms clean?", "your team here rocks!", "meh"];
    let mut column = ColumnBuilder::new(Type::Bytes, ROWS);
    for row in 0..ROWS {
        let (id, user, stars, route) = (5313 + row, row * 7 % 20, row % 5 + 1, 6975 + row % 900);
        let (time, channel, message) = (1_519_304_105_213 + row * 211, ["web", "ios", "iOS-test", "android"][row % 4], messages[row % 4]);
        let record = format!(
            r#"{{"rating_id":{id},"user_id":{user},"stars":{stars},"route_id":{route},"rating_time":{time},"channel":"{channel}","message":"{message}"}}"#
        );
        column.bytes(record.as_bytes());
    }
    column.finish()
}

fn measure(name: &str, mut batch: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..10 {
            batch();
        }
        best = best.min(start.elapsed());
    }
    println!("{name:<58} {:>7.1} ns", best.as_nanos() as f64 / (10 * ROWS) as f64);
}

fn main() {
    let values = records();
    let all = Indexed { column: &values, index: None };
    let bytes: usize = (0..ROWS).filter_map(|row| values.bytes(row)).map(<[u8]>::len).sum();
    println!("{} bytes a record, {ROWS} records a batch", bytes / ROWS);

    let wanted = |path: &str, kind| Wanted { path: Path::parse(path).expect("a path"), kind, from: None };
    let four = [wanted("user_id", Type::Int), wanted("stars", Type::Int), wanted("channel", Type::Text), wanted("message", Type::Text)];
    for (name, fields) in [("decode 4 of 7 fields", &four[..]), ("decode 1 of 7 fields", &four[1..2])] {
        let decoder = Json.decoder(fields);
        measure(name, || {
            assert!(black_box(decoder.decode(all, ROWS)).failed.is_empty());
        });
    }
    measure("serde_json, the same 4 into a struct", || {
        for row in 0..ROWS {
            let rating: Rating<'_> = serde_json::from_slice(values.bytes(row).unwrap_or_default()).expect("a rating");
            black_box((rating.user_id, rating.stars, rating.channel, rating.message));
        }
    });
    measure("serde_json, checked and nothing kept", || {
        for row in 0..ROWS {
            black_box(serde_json::from_slice::<serde::de::IgnoredAny>(values.bytes(row).unwrap_or_default()).expect("JSON"));
        }
    });
    measure("serde_json, a tree (Value)", || {
        for row in 0..ROWS {
            black_box(serde_json::from_slice::<serde_json::Value>(values.bytes(row).unwrap_or_default()).expect("JSON"));
        }
    });

    let mut texts = ColumnBuilder::new(Type::Text, ROWS);
    (0..ROWS).for_each(|_| texts.cell(Cell::Text("a new text of some length")));
    let (texts, none) = (texts.finish(), Bitmap::default());
    let paths = ["message", "reviewed.by"].map(|path| Path::parse(path).expect("a path"));
    let change = |path| Change { path, column: Indexed { column: &texts, index: None }, kept: &none, removed: &none };
    let changes = paths.each_ref().map(change);
    measure("encode 1 field in place", || {
        assert!(black_box(Json.encode(Some(all), ROWS, &changes[..1])).failed.is_empty());
    });
    measure("encode 1 field in place, 1 new in a new parent", || {
        assert!(black_box(Json.encode(Some(all), ROWS, &changes)).failed.is_empty());
    });
    let decoded = Json.decode(all, ROWS, &four);
    let fresh: Vec<_> = four
        .iter()
        .zip(&decoded.fields)
        .map(|(wanted, field)| Change {
            path: &wanted.path,
            column: Indexed { column: &field.column, index: None },
            kept: &none,
            removed: &none,
        })
        .collect();
    measure("encode 4 fields into a new object", || {
        assert!(black_box(Json.encode(None, ROWS, &fresh)).failed.is_empty());
    });

    measure("leaves, 7 fields", || {
        assert!(black_box(Json.leaves(all, ROWS)).1.is_empty());
    });
    let (leaves, _) = Json.leaves(all, ROWS);
    let entries: Vec<u32> = (0..leaves.spans.len() as u32).filter(|entry| entry % 70 == 6).collect();
    let mut new = Strings::default();
    entries.iter().for_each(|_| new.push(b"xxxx xxxx xxxx 1111"));
    let replaced = ReplacedLeaves { entries, values: new };
    measure("replace 1 leaf in 10 records", || {
        black_box(Json.replace_leaves(all, ROWS, &leaves, &replaced));
    });
}
