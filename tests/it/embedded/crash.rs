//! Killed at any moment, the log holds whole transactions and nothing else.

use super::{Member, membership};
use crate::log_contract::{numbers, read_all, values};
use millstream::io::{Commit, Log, Position, StateWrites, TopicPartition};
use millstream::log::embedded::EmbeddedLog;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "MILLSTREAM_TEST_CRASH_FOLDER";
const ROUNDS: u64 = 8;

/// Bytes of output of a transaction besides the records that are counted: enough for the journal to be written in many pieces.
const BALLAST: usize = 300_000;

/// The life of the process that is killed: transactions without end, the nth of which says n in output, state and position.
#[test]
#[ignore = "the child of killed_at_any_moment_the_log_holds_whole_transactions"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let log = EmbeddedLog::open(Path::new(&folder)).unwrap();
    let mut member = log.member(&membership("g", "in")).unwrap();
    let at = TopicPartition::new("in", 0);
    let from = member.committed(std::slice::from_ref(&at)).unwrap()[0].as_ref().map_or(0, |position| position.offset);
    println!("\nready");
    for number in from as usize.. {
        transact(&mut *member, number, BALLAST * (number % 4));
    }
}

/// The nth transaction says n in output, state and position.
fn transact(member: &mut dyn Member, number: usize, ballast: usize) {
    let to = |topic: &str| TopicPartition::new(topic, 0);
    member.append(&to("one"), &numbers(number..number + 1)).unwrap();
    member.append(&to("three"), &numbers(3 * number..3 * number + 3)).unwrap();
    member.append(&to("ballast"), &values([vec![number as u8; ballast]])).unwrap();
    let position = Position { offset: number as i64 + 1, metadata: String::new() };
    let row = (b"count".to_vec(), Some((number + 1).to_string().into_bytes()));
    let state = vec![StateWrites { store: "s".into(), task: 0, rows: vec![row] }];
    member.begin_commit(Commit { positions: vec![(to("in"), position)], state }).unwrap();
}

/// How many transactions the log of a folder holds: output, state and position must agree.
fn whole_transactions(folder: &Path, when: &str) -> usize {
    let log = EmbeddedLog::open(folder).unwrap();
    let position = log.committed("g", &[TopicPartition::new("in", 0)]).unwrap()[0].clone();
    let count = position.map_or(0, |position| position.offset) as usize;
    let state = log.state("g").unwrap().unwrap().get("s", 0, b"count").unwrap();
    let state = state.map_or_else(|| "0".to_owned(), |row| String::from_utf8(row).unwrap());
    assert_eq!(state, count.to_string(), "{when}: state and position");
    for (topic, each) in [("one", 1), ("three", 3), ("ballast", 1)] {
        match log.topic(topic).unwrap() {
            Some(_) if topic == "ballast" => assert_eq!(log.bounds(&TopicPartition::new(topic, 0)).unwrap().end, count as i64, "{when}"),
            Some(_) => assert_eq!(read_all(&log, topic, 0), super::strings(0..count * each), "{when}: {topic}"),
            None => assert_eq!(count, 0, "{when}: {topic} is missing"),
        }
    }
    count
}

/// What a crash in the middle of a write leaves: the journal up to some byte, then nothing. Cut there on purpose, at many bytes.
#[test]
fn a_journal_cut_at_any_byte_holds_whole_transactions() {
    const TRANSACTIONS: usize = 20;
    let seed = seed();
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    let mut member = log.member(&membership("g", "in")).unwrap();
    let journal = || {
        let files = std::fs::read_dir(folder.path().join("log")).unwrap().map(|file| file.unwrap().path());
        let mut journals: Vec<_> = files.filter(|file| file.extension().is_some_and(|ending| ending == "jnl")).collect();
        assert_eq!(journals.len(), 1, "one journal, not yet full");
        journals.pop().unwrap()
    };
    let used = |journal: &Path| std::fs::read(journal).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let before = used(&journal());
    for number in 0..TRANSACTIONS {
        transact(&mut *member, number, 10);
    }
    // While the log is open, all that there is is in the journal.
    let journal = journal();
    let bytes = std::fs::read(&journal).unwrap();
    let end = used(&journal);
    let mut counts = std::collections::BTreeSet::new();
    for round in 0..40 {
        let cut = before + (random(seed, round) % (end - before + 1) as u64) as usize;
        let cut_folder = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), cut_folder.path(), &journal);
        let mut file = std::fs::File::create(cut_folder.path().join("log").join(journal.file_name().unwrap())).unwrap();
        file.write_all(&bytes[..cut]).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        drop(file);
        counts.insert(whole_transactions(cut_folder.path(), &format!("journal cut at byte {cut} of {before} to {end}")));
    }
    assert!(counts.len() > 5, "cuts at all places leave {counts:?} transactions");
}

fn copy_folder(from: &Path, to: &Path, without: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to, without);
        } else if kind.is_file() && entry.path() != without {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
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

        let count = whole_transactions(folder.path(), &format!("round {round}"));
        assert!(count >= before, "round {round}: {before} transactions were there, now {count}");
        before = count;
    }
    assert!(before > 0, "no transaction came through in {ROUNDS} rounds");
}

fn seed() -> u64 {
    let seed =
        std::env::var("MILLSTREAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (MILLSTREAM_TEST_SEED)");
    seed
}

/// SplitMix64.
fn random(seed: u64, round: u64) -> u64 {
    let mut x = seed.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
