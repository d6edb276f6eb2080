//! Deployments that group by something else: what was under way for the generation before is processed to its end by that one.

use super::{Broker, Changelog, int, json, newest_lists, partitions, text};
use crate::simulation::workload::{self, Kind, OUTPUT, grouped_by, hash, member, team, user};
use std::collections::BTreeMap;

/// A result.
struct Made {
    generation: u64,
    hash: i64,
}

/// The group of a number.
fn group_of(number: i64, generation: u64) -> String {
    let of = member(number);
    if grouped_by(generation) == "user" { user(of) } else { team(of) }
}

/// Each number came out once, those of a user in order; no generation has read one that was sent for another grouping; and the lists of each generation
/// are made of exactly the numbers that it gave out. `counts`: by user, how many were produced; `generations`: how many there were.
pub fn emptied(broker: &Broker, counts: &[i64], generations: u64) -> Result<(), String> {
    let mut made: BTreeMap<i64, Made> = BTreeMap::new();
    let mut reached = vec![0; counts.len()];
    for at in partitions(broker, &OUTPUT.into()) {
        for (offset, record) in broker.partition(&at).committed(0, usize::MAX) {
            let value = json(record);
            let (number, seq) = (int(&value, "number"), int(&value, "seq"));
            let of = member(number);
            if made.insert(number, Made { generation: int(&value, "version") as u64, hash: int(&value, "hash") }).is_some() {
                return Err(format!("{at}@{offset}: {seq} of {} is counted twice", user(of)));
            }
            if std::mem::replace(&mut reached[of], seq) >= seq {
                return Err(format!("{at}@{offset}: {seq} of {} comes behind a later one", user(of)));
            }
        }
    }
    sent(broker, &made)?;
    for (of, count) in counts.iter().enumerate() {
        let lost = (1..=*count).find(|seq| !made.contains_key(&workload::number(of, *seq)));
        if let Some(seq) = lost {
            return Err(format!("{seq} of {} is lost: it did not come out", user(of)));
        }
    }
    let mut kept = 0;
    for generation in 1..=generations {
        let changelog = workload::changelogs(&workload::pipeline_of(Kind::Emptied, generation)).swap_remove(0);
        kept += lists(broker, &changelog, generation, &made)?;
    }
    if kept != made.len() {
        return Err(format!("{} numbers came out, and the lists have {kept}", made.len()));
    }
    Ok(())
}

/// Each number went through a repartition topic once, by the key of the generation that took it from there.
fn sent(broker: &Broker, made: &BTreeMap<i64, Made>) -> Result<(), String> {
    let mut seen: BTreeMap<i64, String> = BTreeMap::new();
    for at in Kind::Emptied.before_lists().iter().flat_map(|topic| partitions(broker, &(*topic).into())) {
        for (offset, record) in broker.partition(&at).all_committed().into_iter().filter(|(_, record)| record.value.is_some()) {
            let value = json(record);
            let (number, place) = (int(&value, "number"), format!("{at}@{offset}"));
            let Some(Made { generation, .. }) = made.get(&number) else {
                return Err(format!("{place}: {} of {} lies there, and did not come out", int(&value, "seq"), text(&value, "user")));
            };
            let (key, group) = (record.key.as_deref().unwrap_or_default(), group_of(number, *generation));
            if key != format!("{group:?}").as_bytes() {
                return Err(format!(
                    "{place}: it was sent by the key {}, and generation {generation}, which groups by {}, has read it",
                    key.escape_ascii(),
                    grouped_by(*generation)
                ));
            }
            if let Some(before) = seen.insert(number, place.clone()) {
                return Err(format!("{place}: it was sent before, {before}"));
            }
        }
    }
    Ok(())
}

/// What a generation keeps is what it gave out, each number at the place that its result tells; how many there are.
fn lists(broker: &Broker, changelog: &Changelog, generation: u64, made: &BTreeMap<i64, Made>) -> Result<usize, String> {
    let mut kept = 0;
    for (group, list) in newest_lists(broker, changelog) {
        let mut prefix = String::new();
        for entry in list.split_terminator(',') {
            prefix.push_str(&format!("{entry},"));
            kept += 1;
            let number: i64 = entry.parse().map_err(|_| format!("the list {list} of {group} has what is no number"))?;
            let fits = made.get(&number).is_some_and(|made| made.generation == generation && made.hash == hash(&prefix));
            if !fits || group_of(number, generation) != group {
                return Err(format!("generation {generation} has the list {list} for {group}, and {entry} came out of another"));
            }
        }
    }
    Ok(kept)
}
