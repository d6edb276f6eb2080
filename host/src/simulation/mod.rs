//! Runs of a pipeline in a simulated world, where whatever can happen between two calls of a worker happens: see `host/docs/simulation.md`.
//!
//! A failure prints its seed; `MILLSTREAM_SEED=N` runs that one again and tells what happens, `MILLSTREAM_CASES=N` runs more of them.

mod broker;
mod checker;
mod fleet;
mod log;
mod member;
mod model;
mod random;
mod workload;
mod world;

use crate::planted::{Mistake, plant};
use fleet::Mood;
use std::panic::{AssertUnwindSafe, catch_unwind};
use workload::Kind;
use world::Figures;

const SEEDS: u64 = 600;
/// Seeds that have found a mistake once: they run beside the first ones, always.
const PINNED: [(Kind, u64); 2] = [(Kind::Windows, 1551), (Kind::Timers, 2415)];
/// Within so many a planted mistake must be found.
const PLANTED_SEEDS: u64 = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, pipeline: &crate::pipeline::Pipeline, kind: Kind, mood: Mood, loud: bool) -> Result<Figures, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| fleet::run(seed, pipeline, kind, mood, loud)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("without words")))
    })
}

fn hold(kind: Kind) {
    hold_in(kind, Mood::Any);
}

/// Runs many seeds; each kind of fault must be among them.
fn hold_in(kind: Kind, mood: Mood) {
    let pipeline = workload::pipeline(kind);
    if let Some(seed) = number("MILLSTREAM_SEED") {
        run(seed, &pipeline, kind, mood, true).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        return;
    }
    let seeds = number("MILLSTREAM_CASES").unwrap_or(if mood == Mood::Any { SEEDS } else { SEEDS / 4 });
    let mut total = Figures::default();
    let mut failed = Vec::new();
    let pinned = PINNED.iter().filter(|(of, seed)| mood == Mood::Any && *of == kind && *seed >= seeds).map(|(_, seed)| *seed);
    for seed in (0..seeds).chain(pinned) {
        match run(seed, &pipeline, kind, mood, false) {
            Ok(figures) => total += figures,
            Err(what) => failed.push(format!("MILLSTREAM_SEED={seed}: {what}")),
        }
        if failed.len() >= 10 {
            break;
        }
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds fail:\n{}", failed.len(), failed.join("\n"));
    eprintln!("{seeds} seeds: {total:?}");
    let Figures { calls, crashes, stills, errors, indefinite, refused, expired, replaced, copies, regrouped, withdrawn } = total;
    let of_kind =
        if kind == Kind::Emptied { vec![("regrouped", regrouped), ("withdrawn", withdrawn)] } else { vec![("replaced", replaced)] };
    let faults = [
        ("calls", calls / 100),
        ("crashes", crashes),
        ("stills", stills),
        ("errors", errors),
        ("indefinite", indefinite),
        ("refused", refused),
        ("expired", expired),
        ("copies", copies),
    ];
    for (what, count) in faults.into_iter().chain(of_kind) {
        assert!(count > seeds / 20, "{what}: only {count} in {seeds} seeds");
    }
}

#[test]
fn each_number_comes_out_once_and_in_order() {
    hold(Kind::Lists);
}

#[test]
fn each_number_comes_out_once_and_in_order_through_a_repartition_topic() {
    hold(Kind::Regrouped);
}

#[test]
fn each_number_counts_once_whatever_its_repartition_topics_group_by() {
    hold(Kind::Emptied);
}

#[test]
fn windows_are_given_out_once_and_records_meet_the_rows_of_their_place() {
    hold(Kind::Windows);
}

#[test]
fn results_of_windows_come_once_through_a_repartition_topic() {
    hold(Kind::Chained);
}

#[test]
fn each_number_comes_out_at_least_once() {
    hold(Kind::AtLeastOnce);
}

#[test]
fn timers_fire_once_and_in_order() {
    hold(Kind::Timers);
}

#[test]
fn tasks_that_stay_in_a_rebalance_begin_anew_if_their_work_is_lost() {
    hold_in(Kind::Windows, Mood::Parting);
}

#[test]
fn two_workers_of_a_host_do_not_restore_against_each_other() {
    let pipeline = workload::pipeline(Kind::Lists);
    for seed in 0..10 {
        let found = fleet::two_of_a_host_restore(seed, &pipeline, number("MILLSTREAM_SEED") == Some(seed));
        assert!(found.is_ok(), "seed {seed}: {found:?}");
    }
}

/// The first seed that finds a planted mistake.
fn found(mistake: Mistake, kind: Kind) -> Option<(u64, String)> {
    let pipeline = workload::pipeline(kind);
    let moods = [Mood::Any, Mood::Restless, Mood::Parting];
    plant(Some(mistake));
    let found =
        (0..PLANTED_SEEDS).find_map(|seed| run(seed, &pipeline, kind, moods[(seed % 3) as usize], false).err().map(|what| (seed, what)));
    plant(None);
    found
}

#[test]
fn planted_mistakes_are_found() {
    use Mistake::*;
    let mistakes = [
        (ApplyBeforeCommit, Kind::Lists),
        (RestoreToLastStable, Kind::Lists),
        (NoPositions, Kind::Lists),
        (OnePastPositions, Kind::Lists),
        (OverlayKept, Kind::Lists),
        (UnprovedCheckpoint, Kind::Lists),
        (GoesOnAfterIndefinite, Kind::Lists),
        (NoGeneration, Kind::Lists),
        (PositionsApart, Kind::Lists),
        (TimersApart, Kind::Timers),
        (NoPatience, Kind::Windows),
        (PositionsFirst, Kind::AtLeastOnce),
        (NoCut, Kind::Lists),
        (NotBehind, Kind::Lists),
        (SweepBelow, Kind::Lists),
        (PausesKept, Kind::Windows),
        (NotEmptied, Kind::Emptied),
        (NotShut, Kind::Emptied),
        (OpensUnheard, Kind::Emptied),
    ];
    let mut unseen = Vec::new();
    for (mistake, kind) in mistakes {
        match found(mistake, kind) {
            Some((seed, what)) => eprintln!("{mistake:?}: seed {seed}: {what}"),
            None => unseen.push(mistake),
        }
    }
    assert!(unseen.is_empty(), "not found within {PLANTED_SEEDS} seeds: {unseen:?}");
}
