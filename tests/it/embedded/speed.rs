//! What a record costs on the embedded log. No test: it prints. `cargo test --release --test it embedded::speed -- --ignored --nocapture`

use super::{LIMIT, membership, position};
use millstream::io::{Commit, Event, FetchLimit, Log, TopicPartition};
use millstream::log::embedded::{Durability, EmbeddedLog, Options};
use millstream::record::{Records, RecordsBuilder};
use std::time::{Duration, Instant};

const BATCHES: usize = 1000;
const ROWS: usize = 1000;

/// JSON of about 160 bytes with a short key.
fn batch(number: usize) -> Records {
    let mut builder = RecordsBuilder::default();
    for row in 0..ROWS {
        let id = number * ROWS + row;
        let value = format!(
            "{{\"rating_id\":{id},\"user_id\":{},\"stars\":{},\"route_id\":{},\"rating_time\":{},\"channel\":\"iOS\",\"message\":\"more peanuts please, thank you very much {}\"}}",
            id * 7919 % 100_000,
            id % 5,
            id * 31 % 10_000,
            1_519_304_105_213_i64 + id as i64,
            id * 104_729 % 1_000_003
        );
        builder.push(1_519_304_105_213 + id as i64, Some((id % 1000).to_string().as_bytes()), Some(value.as_bytes()), []);
    }
    builder.finish()
}

#[test]
#[ignore = "a measurement"]
fn a_record() {
    let batches: Vec<Records> = (0..50).map(batch).collect();
    let bytes: usize = batches.iter().map(Records::bytes).sum::<usize>() / batches.len() * BATCHES;
    let folder =
        tempfile::tempdir_in(std::env::var("MILLSTREAM_TEST_DISK").unwrap_or_else(|_| std::env::temp_dir().display().to_string())).unwrap();
    for durability in [Durability::Process, Durability::Power] {
        let log =
            EmbeddedLog::open_with(&folder.path().join(format!("{durability:?}")), Options { durability, ..Options::default() }).unwrap();
        let mut member = log.member(&membership("g", "in")).unwrap();
        let to = TopicPartition::new("t", 0);
        let (began, cpu) = (Instant::now(), cpu());
        for number in 0..BATCHES {
            member.append(&to, &batches[number % batches.len()]).unwrap();
            // As every 100 ms at a million records a second, ten times a second.
            if number % 100 == 99 {
                member.begin_commit(Commit { positions: position("in", 0), state: Vec::new() }).unwrap();
            }
        }
        report(&format!("append, {durability:?}"), began, cpu, bytes);
        if durability == Durability::Process {
            for _ in 0..2 {
                read(&log, LIMIT, bytes);
            }
        }
        let (began, commits) = (Instant::now(), 200);
        for number in 0..commits {
            member.append(&to, &batches[number % batches.len()].gather(&[0, 1, 2])).unwrap();
            member.begin_commit(Commit { positions: position("in", 0), state: Vec::new() }).unwrap();
        }
        println!("a commit of 3 records, {durability:?}: {:.0} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(commits as u32));
    }
    let began = Instant::now();
    let log = EmbeddedLog::open(&folder.path().join("Process")).unwrap();
    println!("opened again in {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    read(&log, LIMIT, bytes);
}

fn read(log: &EmbeddedLog, limit: FetchLimit, bytes: usize) {
    let mut reader = log.reader().unwrap();
    reader.assign(&[(TopicPartition::new("t", 0), 0)]).unwrap();
    let (began, cpu, mut rows) = (Instant::now(), cpu(), 0);
    while let Event::Records(fetched) = reader.poll(limit, Duration::ZERO).unwrap() {
        rows += fetched.records.len();
    }
    assert!(rows >= BATCHES * ROWS);
    report("read", began, cpu, bytes);
}

/// CPU time of this thread, and of the whole process with fjall's own threads.
fn cpu() -> [Duration; 2] {
    use rustix::time::{ClockId, clock_gettime};
    [ClockId::ThreadCPUTime, ClockId::ProcessCPUTime].map(|clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    })
}

fn report(what: &str, began: Instant, [thread, process]: [Duration; 2], bytes: usize) {
    let per_record = |time: Duration| time.as_secs_f64() * 1e9 / (BATCHES * ROWS) as f64;
    let [thread_now, process_now] = cpu();
    println!(
        "{what}: {:.0} ns a record; CPU {:.0} ns, with the threads behind {:.0} ns; {} bytes each",
        per_record(began.elapsed()),
        per_record(thread_now - thread),
        per_record(process_now - process),
        bytes / (BATCHES * ROWS)
    );
}
