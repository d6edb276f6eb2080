//! The embedded log: the contract of logs, in this process and through the socket, and what only it promises.

mod commands;
mod crash;
mod speed;

use crate::log_contract::{self, contract_tests, fresh, numbers, read_all, texts};
use millstream::io::{
    Commit, Event, FetchLimit, Guarantee, Log, Member, Membership, Position, Reader, Remedy, StateWrites, TopicPartition,
};
use millstream::log::embedded::{AttachedLog, EmbeddedLog, Options};
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: FetchLimit = FetchLimit { rows: 1000, bytes: 1 << 20 };

mod contract {
    use super::*;

    fn open() -> Option<EmbeddedLogBox> {
        Some(Box::new(EmbeddedLog::temporary(Options::default()).unwrap()))
    }

    type EmbeddedLogBox = Box<dyn Log>;

    contract_tests!(open);
}

/// The same through the socket of another holder; members take the folder over from it.
mod contract_attached {
    use super::*;

    struct Attached {
        client: AttachedLog,
        _holder: AttachedLog,
        _folder: tempfile::TempDir,
    }

    impl std::ops::Deref for Attached {
        type Target = AttachedLog;

        fn deref(&self) -> &AttachedLog {
            &self.client
        }
    }

    fn open() -> Option<Attached> {
        let folder = tempfile::tempdir().unwrap();
        let holder = attach(folder.path());
        Some(Attached { client: attach(folder.path()), _holder: holder, _folder: folder })
    }

    contract_tests!(open);
}

fn attach(folder: &Path) -> AttachedLog {
    AttachedLog::open(folder, Options::default()).unwrap()
}

fn membership(group: &str, topic: &str) -> Membership {
    Membership { group: group.to_owned(), member: format!("{group}.0"), topics: vec![topic.into()], guarantee: Guarantee::ExactlyOnce }
}

fn position(topic: &str, offset: i64) -> Vec<(TopicPartition, Position)> {
    vec![(TopicPartition::new(topic, 0), Position { offset, metadata: offset.to_string() })]
}

/// The next `rows` values that a reader hands over.
fn take(reader: &mut dyn Reader, rows: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut read = Vec::new();
    while read.len() < rows {
        assert!(Instant::now() < deadline, "only {} of {rows} records came", read.len());
        if let Event::Records(fetched) = reader.poll(LIMIT, Duration::from_millis(100)).unwrap() {
            read.extend(texts(&fetched.records));
        }
    }
    read
}

fn strings(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn everything_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let log = EmbeddedLog::open(folder.path()).unwrap();
        if round == 0 {
            log.create_topic("t", 3).unwrap();
        }
        assert_eq!(log.topics().unwrap().len(), 1);
        assert_eq!(read_all(&log, "t", 2), strings(0..round * 10));
        log.produce("t", Some(2), &numbers(round * 10..round * 10 + 10)).unwrap();
    }
}

#[test]
fn state_is_committed_with_output_and_positions() {
    let log = EmbeddedLog::temporary(Options::default()).unwrap();
    let mut member = log.member(&membership("g", "in")).unwrap();
    let writes = |store: &str, task, rows: &[(&[u8], Option<&[u8]>)]| StateWrites {
        store: store.into(),
        task,
        rows: rows.iter().map(|(key, row)| (key.to_vec(), row.map(<[u8]>::to_vec))).collect(),
    };
    let state = vec![
        writes("s", 0, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"\xff\xff", Some(b"3"))]),
        writes("s", 1, &[(b"a", Some(b"other task"))]),
        writes("st", 0, &[(b"a", Some(b"other store"))]),
    ];
    member.begin_commit(Commit { positions: position("in", 0), state }).unwrap();
    let state = log.state("g").unwrap().unwrap();
    assert_eq!(state.get("s", 0, b"b").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!((state.get("s", 2, b"b").unwrap(), log.state("h").unwrap().unwrap().get("s", 0, b"b").unwrap()), (None, None));
    let keys = |low: &[u8], high: Option<&[u8]>, limit| {
        state.scan("s", 0, low, high, limit).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"", None, 10), [b"a".to_vec(), b"b".to_vec(), b"\xff\xff".to_vec()]);
    assert_eq!(
        (keys(b"b", Some(b"c"), 10), keys(b"", None, 1), keys(b"c", Some(b"b"), 10)),
        (vec![b"b".to_vec()], vec![b"a".to_vec()], vec![])
    );
    member.begin_commit(Commit { positions: position("in", 0), state: vec![writes("s", 0, &[(b"a", None)])] }).unwrap();
    assert_eq!((state.get("s", 0, b"a").unwrap(), state.get("s", 1, b"a").unwrap().is_some()), (None, true));

    // A commit that fails leaves nothing of itself.
    member.append(&TopicPartition::new("out", 0), &numbers(0..5)).unwrap();
    let huge = vec![b'k'; 70_000];
    let failing = Commit { positions: position("in", 0), state: vec![writes("s", 0, &[(b"c", Some(b"4")), (&huge, Some(b"5"))])] };
    let error = member.begin_commit(failing).unwrap_err().to_string();
    assert!(error.contains("store `s`") && error.contains("70000"), "{error}");
    assert_eq!((state.get("s", 0, b"c").unwrap(), read_all(&log, "out", 0).len()), (None, 0));
}

#[test]
fn a_group_has_one_member() {
    let log = EmbeddedLog::temporary(Options { partitions: 2, ..Options::default() }).unwrap();
    let mut first = log.member(&membership("g", "t")).unwrap();
    let Event::Assigned(partitions) = first.poll(LIMIT, Duration::ZERO).unwrap() else { panic!("partitions come first") };
    assert_eq!(partitions.len(), 2, "the topic came to be with the log's default");
    assert!(log.member(&membership("g", "t")).err().unwrap().to_string().contains("`g` runs already"));
    log.member(&membership("h", "t")).unwrap();
    first.leave().unwrap();
    log.member(&membership("g", "t")).unwrap();
}

#[test]
fn a_commit_wants_positions_of_bounded_size() {
    let log = EmbeddedLog::temporary(Options::default()).unwrap();
    let mut member = log.member(&membership("g", "t")).unwrap();
    assert!(member.begin_commit(Commit::default()).is_err());
    let long = vec![(TopicPartition::new("t", 0), Position { offset: 0, metadata: "m".repeat(513) })];
    assert!(member.begin_commit(Commit { positions: long, state: Vec::new() }).unwrap_err().to_string().contains("513"));
}

#[test]
fn a_place_beyond_the_end_is_an_error() {
    let log = EmbeddedLog::temporary(Options::default()).unwrap();
    log.produce("t", None, &numbers(0..3)).unwrap();
    let mut reader = log.reader().unwrap();
    let error = reader.assign(&[(TopicPartition::new("t", 0), 4)]).unwrap_err().to_string();
    assert!(error.contains("offset 4") && error.contains("0 to 3"), "{error}");
}

#[test]
fn what_another_process_appends_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    let holder = EmbeddedLog::open(folder.path()).unwrap();
    holder.create_topic("t", 1).unwrap();
    let other = attach(folder.path());
    let mut reader = holder.reader().unwrap();
    reader.assign(&[(TopicPartition::new("t", 0), 0)]).unwrap();
    assert!(matches!(reader.poll(LIMIT, Duration::ZERO).unwrap(), Event::End { .. }));
    let appended = std::thread::spawn(move || other.produce("t", None, &numbers(0..1)).unwrap());
    let began = Instant::now();
    assert!(matches!(reader.poll(LIMIT, Duration::from_secs(30)).unwrap(), Event::Records(_)));
    assert!(began.elapsed() < Duration::from_secs(20), "the append did not end the wait");
    appended.join().unwrap();
}

#[test]
fn what_is_deleted_stays_deleted_and_leaves_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    // One name begins with the other.
    let groups = ["g", "gg"];
    let state = |log: &EmbeddedLog, group: &str| log.state(group).unwrap().unwrap().get("s", 0, b"key").unwrap();
    let at = |topic: &str| TopicPartition::new(topic, 0);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    for topic in ["first", "last", "gone"] {
        log.create_topic(topic, 1).unwrap();
        log.produce(topic, Some(0), &numbers(0..5)).unwrap();
    }
    for group in groups {
        let mut member = log.member(&membership(group, "gone")).unwrap();
        let rows = vec![(b"key".to_vec(), Some(b"row".to_vec()))];
        let positions = [position("gone", 3), position("last", 4)].concat();
        member.begin_commit(Commit { positions, state: vec![StateWrites { store: "s".into(), task: 0, rows }] }).unwrap();
    }
    log.delete_topic("gone").unwrap();
    log.delete_group("g").unwrap();
    drop(log);

    let log = EmbeddedLog::open(folder.path()).unwrap();
    assert_eq!(log.topics().unwrap().iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>(), ["first", "last"]);
    assert_eq!((state(&log, "g"), state(&log, "gg")), (None, Some(b"row".to_vec())));
    let committed = |log: &EmbeddedLog, group: &str| log.committed(group, &[at("gone"), at("last")]).unwrap();
    assert_eq!(committed(&log, "g"), [None, None]);
    // Another topic of that name, and one that is the next to be made.
    log.create_topic("next", 1).unwrap();
    log.create_topic("gone", 1).unwrap();
    assert_eq!(committed(&log, "gg"), [None, Some(position("last", 4)[0].1.clone())]);
    assert_eq!(log.committed("gg", &[at("next")]).unwrap(), [None]);
    drop(log);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    for (topic, end) in [("first", 5), ("last", 5), ("next", 0), ("gone", 0)] {
        assert_eq!(read_all(&log, topic, 0), strings(0..end), "{topic}");
    }
}

#[test]
fn who_uses_a_topic_that_is_deleted_is_told() {
    let log = EmbeddedLog::temporary(Options::default()).unwrap();
    log.produce("last", None, &numbers(0..1)).unwrap();
    log.produce("gone", None, &numbers(0..5)).unwrap();
    let gone = TopicPartition::new("gone", 0);
    let mut reader = log.reader().unwrap();
    reader.assign(&[(gone.clone(), 0)]).unwrap();
    let mut member = log.member(&membership("g", "gone")).unwrap();
    assert!(matches!(member.poll(LIMIT, Duration::ZERO).unwrap(), Event::Assigned(_)));
    member.start(&[(gone.clone(), 5)]).unwrap();
    assert!(matches!(member.poll(LIMIT, Duration::ZERO).unwrap(), Event::End { .. }));
    member.append(&gone, &numbers(0..1)).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| member.poll(LIMIT, Duration::from_secs(30)).map(drop));
        log.delete_topic("gone").unwrap();
        // One that is made now is another, whatever its number would be.
        log.produce("new", None, &numbers(100..105)).unwrap();
        for error in [waits.join().unwrap().unwrap_err(), reader.poll(LIMIT, Duration::ZERO).map(drop).unwrap_err()] {
            assert!(error.message.contains("`gone` was deleted"), "{error}");
        }
    });
    assert!(member.begin_commit(Commit { positions: position("last", 1), state: Vec::new() }).unwrap_err().message.contains("`gone`"));
    assert_eq!(log.committed("g", &[TopicPartition::new("last", 0)]).unwrap(), [None], "nothing of that commit is there");
}

#[test]
fn topics_and_groups_are_deleted_and_moved_by_other_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, other) = (attach(folder.path()), attach(folder.path()));
    let at = [TopicPartition::new("t", 0)];
    let member = runs.member(&membership("g", "t")).unwrap();
    for error in [other.move_group("g", &position("t", 7)), other.delete_group("g")].map(Result::unwrap_err) {
        assert!(error.remedy == Remedy::Wait && error.message.contains("the group g has a member"), "{error}");
    }
    drop(member);
    other.move_group("g", &position("t", 7)).unwrap();
    assert_eq!(runs.committed("g", &at).unwrap(), [Some(position("t", 7)[0].1.clone())]);
    let long = vec![(at[0].clone(), Position { offset: 0, metadata: "m".repeat(513) })];
    assert!(other.move_group("g", &long).unwrap_err().message.contains("513"));
    other.delete_group("g").unwrap();
    assert_eq!(runs.committed("g", &at).unwrap(), [None]);
    other.delete_topic("t").unwrap();
    assert_eq!(runs.topics().unwrap(), []);
}

#[test]
fn exclusive_writes_of_several_processes_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [holder, client, another] = [(); 3].map(|()| attach(folder.path()));
    log_contract::count_together(&[&client, &holder, &another], 6, 20);
    for (first, second) in [(&client, &holder), (&holder, &client), (&client, &another), (&holder, &holder)] {
        log_contract::who_is_overtaken_decides_anew(first, second);
        log_contract::who_is_not_overtaken_decides_once(first, second);
    }
}

#[test]
fn an_exclusive_write_survives_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let (mut holder, mut next) = (Some(attach(folder.path())), None);
    let client = attach(folder.path());
    client.create_topic("t", 1).unwrap();
    let at = TopicPartition::new("t", 0);
    let mut decided = 0;
    client
        .exclusively("name", &at, &mut || {
            decided += 1;
            let read = log_contract::read_whole(&client, &at, &mut || {});
            // Whoever holds the folder next knows nothing of what was read under the last holder, also if it has been asked for a turn of its own.
            if let Some(holder) = holder.take() {
                log_contract::count_on(&holder, "name", &at).unwrap();
                drop(holder);
                next.insert(attach(folder.path())).exclusively("name", &at, &mut || Ok(None)).unwrap();
            }
            Ok(Some(numbers(read.len() + 1..read.len() + 2)))
        })
        .unwrap();
    assert_eq!((decided, read_all(&client, "t", 0)), (2, strings(1..3)));
}

#[test]
fn pipelines_keep_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let runs = attach(folder.path());
    let _member = runs.member(&membership("g", "t")).unwrap();
    let other = attach(folder.path());
    for error in [other.member(&membership("h", "t")).err(), EmbeddedLog::open(folder.path()).err()] {
        let error = error.unwrap().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("pipelines run in the process that holds"),
            "{error}"
        );
    }
    other.produce("t", None, &numbers(0..4)).unwrap();
    assert_eq!(read_all(&runs, "t", 0), strings(0..4));
    assert_eq!(other.committed("g", &[TopicPartition::new("t", 0)]).unwrap(), [None]);
}

#[test]
fn a_reader_goes_on_with_the_next_holder() {
    let folder = tempfile::tempdir().unwrap();
    let first = attach(folder.path());
    first.produce("t", None, &numbers(0..5)).unwrap();
    let client = attach(folder.path());
    let mut reader = client.reader().unwrap();
    reader.assign(&[(TopicPartition::new("t", 0), 0)]).unwrap();
    assert_eq!(take(&mut *reader, 5), strings(0..5));
    drop(first);
    // Nobody holds the folder now: the client does.
    client.produce("t", None, &numbers(5..8)).unwrap();
    assert_eq!(take(&mut *reader, 3), strings(5..8));
    // A pipeline takes it over, and the reader follows.
    let runs = EmbeddedLog::open(folder.path()).unwrap();
    runs.produce("t", None, &numbers(8..10)).unwrap();
    assert_eq!(take(&mut *reader, 2), strings(8..10));
    assert_eq!(client.topics().unwrap().len(), 1);
    drop(runs);
    client.produce("t", None, &numbers(10..11)).unwrap();
    assert_eq!(take(&mut *reader, 1), strings(10..11));
}

#[test]
fn an_end_is_told_once_though_the_holder_changes() {
    let folder = tempfile::tempdir().unwrap();
    let first = attach(folder.path());
    first.produce("t", None, &numbers(0..5)).unwrap();
    let client = attach(folder.path());
    let mut reader = client.reader().unwrap();
    reader.assign(&[(TopicPartition::new("t", 0), 5)]).unwrap();
    assert!(matches!(reader.poll(LIMIT, Duration::from_secs(5)).unwrap(), Event::End { offset: 5, .. }));
    drop(first);
    assert!(matches!(reader.poll(LIMIT, Duration::from_millis(600)).unwrap(), Event::Idle));
}

#[test]
fn a_folder_with_a_long_path_has_a_socket_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120));
    let holder = attach(&deep);
    let client = attach(&deep);
    client.produce("t", None, &numbers(0..2)).unwrap();
    assert_eq!(read_all(&holder, "t", 0), strings(0..2));
}

#[test]
fn folder_and_socket_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    for _ in 0..2 {
        let _holder = attach(&folder);
        let socket = std::fs::read_to_string(folder.join("socket")).unwrap();
        let around = Path::new(&socket).parent().unwrap();
        assert_eq!((mode(&folder), mode(around)), (0o700, 0o700));
        std::fs::set_permissions(around, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_stale_socket_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    drop(attach(folder.path()));
    let stale = folder.path().join("run").join("socket");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    std::fs::write(folder.path().join("socket"), stale.as_os_str().as_encoded_bytes()).unwrap();
    let holder = attach(folder.path());
    let client = attach(folder.path());
    client.produce("t", None, &numbers(0..2)).unwrap();
    assert_eq!(read_all(&holder, "t", 0), strings(0..2));
}

#[test]
fn a_folder_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("format"), "7\n").unwrap();
    let error = AttachedLog::open(folder.path(), Options::default()).unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
}

#[test]
fn many_readers_and_writers_at_once_lose_nothing() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let holder = attach(folder.path());
    let topic = fresh("t");
    holder.create_topic(&topic, 1).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, topic) = (if writer % 2 == 0 { holder.clone() } else { attach(folder.path()) }, &topic);
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let from = (writer * BATCHES + batch) * 3;
                    log.produce(topic, Some(0), &numbers(from..from + 3)).unwrap();
                }
            });
        }
        let (log, topic) = (attach(folder.path()), &topic);
        scope.spawn(move || {
            let mut reader = log.reader().unwrap();
            reader.assign(&[(TopicPartition::new(topic.as_str(), 0), 0)]).unwrap();
            let mut read: Vec<usize> = take(&mut *reader, WRITERS * BATCHES * 3).iter().map(|text| text.parse().unwrap()).collect();
            assert!(
                read.chunks(3).all(|batch| batch[0] % 3 == 0 && batch[1] == batch[0] + 1 && batch[2] == batch[0] + 2),
                "a batch stays together"
            );
            read.sort_unstable();
            assert_eq!(read, (0..WRITERS * BATCHES * 3).collect::<Vec<_>>());
        });
    });
}
