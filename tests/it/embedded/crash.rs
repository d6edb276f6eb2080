//! Killed at any moment, the log holds whole transactions and nothing else.

use super::{Member, membership};
use crate::log_contract::{numbers, read_all, values};
use millstream::io::{Commit, Log, Position, StateWrites, TopicPartition};
use millstream::log::embedded::EmbeddedLog;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "MILLSTREAM_TEST_CRASH_FOLDER";
const ROUNDS: u64 = 12;

/// Bytes of output of a transaction besides the records that are counted: enough for the journal to be written in many pieces.
const BALLAST: usize = 300_000;

/// The life of the process that is killed: transactions without end, the nth of which says n in output, state and position.
#[test]
#[ignore = "the child of killed_at_any_moment_the_log_holds_whole_transactions"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let log = EmbeddedLog::open(Path::new(&folder)).unwrap();
    log.serve().unwrap();
    let mut member = log.member(&membership("g", "in")).unwrap();
    let at = TopicPartition::new("in", 0);
    let from = member.committed(std::slice::from_ref(&at)).unwrap()[0].as_ref().map_or(0, |position| position.offset);
    println!("\nready");
    for number in from as usize.. {
        append(&mut *member, number);
        let position = Position { offset: number as i64 + 1, metadata: String::new() };
        let row = (b"count".to_vec(), Some((number + 1).to_string().into_bytes()));
        let state = vec![StateWrites { store: "s".into(), task: 0, rows: vec![row] }];
        member.begin_commit(Commit { positions: vec![(at.clone(), position)], state }).unwrap();
    }
}

fn append(member: &mut dyn Member, number: usize) {
    let to = |topic: &str| TopicPartition::new(topic, 0);
    member.append(&to("one"), &numbers(number..number + 1)).unwrap();
    member.append(&to("three"), &numbers(3 * number..3 * number + 3)).unwrap();
    member.append(&to("ballast"), &values([vec![number as u8; BALLAST * (number % 4)]])).unwrap();
}

#[test]
fn killed_at_any_moment_the_log_holds_whole_transactions() {
    let seed =
        std::env::var("MILLSTREAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (MILLSTREAM_TEST_SEED)");
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["embedded::crash::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the child did not come up");
        // The moment of the fault, not a wait for something.
        std::thread::sleep(Duration::from_micros(random(seed, round) % 150_000));
        child.kill().unwrap();
        child.wait().unwrap();

        let log = EmbeddedLog::open(folder.path()).unwrap();
        let position = log.committed("g", &[TopicPartition::new("in", 0)]).unwrap()[0].clone();
        let count = position.map_or(0, |position| position.offset) as usize;
        let state = log
            .state("g")
            .unwrap()
            .unwrap()
            .get("s", 0, b"count")
            .unwrap()
            .map_or_else(|| "0".to_owned(), |row| String::from_utf8(row).unwrap());
        assert!(count >= before, "round {round}: {before} transactions were there, now {count}");
        assert_eq!(state, count.to_string(), "round {round}: state and position");
        let missing = |topic: &str| log.topic(topic).unwrap().is_none();
        if count > 0 || !(missing("one") || missing("three") || missing("ballast")) {
            assert_eq!(read_all(&log, "one", 0), super::strings(0..count), "round {round}");
            assert_eq!(read_all(&log, "three", 0), super::strings(0..count * 3), "round {round}");
            let ballast = log.bounds(&TopicPartition::new("ballast", 0)).unwrap();
            assert_eq!(ballast.end, count as i64, "round {round}");
        }
        before = count;
    }
    assert!(before > 0, "no transaction came through in {ROUNDS} rounds");
}

/// SplitMix64.
fn random(seed: u64, round: u64) -> u64 {
    let mut x = seed.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
