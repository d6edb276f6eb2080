use super::*;

/// A run of five generations over two partitions, without a fault: each partition is cut over at an offset of its own, one generation is a canary in the
/// second partition alone, and the last one in both, for half of the keys before all.
fn faithful() -> Found {
    let contents = [(1, 10, 0, 0), (2, 11, 1, 0), (3, 13, 0, 1), (4, 12, 1, 1), (5, 14, 0, 0)];
    let contents = contents.map(|(generation, config, list, group)| (generation, Content { config, list, group }));
    let mut found =
        Found { input: vec![Vec::new(); 2], carried: vec![Vec::new(); 2], contents: BTreeMap::from(contents), ..Found::default() };
    let cuts = [(1, [Some(0), Some(0)]), (2, [Some(100), Some(110)]), (3, [None, Some(150)]), (4, [Some(200), Some(190)])];
    for (generation, offsets) in cuts {
        let told = generation as i64 * 10;
        let trial = (generation == 3).then(|| Trial { generation, share: BTreeSet::from([1]), keys: None });
        found.heads.push(Head { told, active: if generation == 3 { 2 } else { generation }, trial });
        for (partition, offset) in (0..).zip(offsets) {
            let Some(offset) = offset else { continue };
            found.cuts.push(Cut { generation, at: Place::Input(partition), offset, keys: None, tried: None, told: told + 1 });
            found.cuts.push(Cut {
                generation,
                at: Place::Repartition(partition),
                offset: offset * 2,
                keys: None,
                tried: None,
                told: told + 2,
            });
        }
    }
    let keys = Keys::of_share(0.5);
    found.heads.push(Head { told: 50, active: 4, trial: Some(Trial { generation: 5, share: BTreeSet::from([0, 1]), keys }) });
    found.heads.push(Head { told: 60, active: 5, trial: None });
    for (at, some, all) in
        [(Place::Input(0), 230, 260), (Place::Repartition(0), 450, 500), (Place::Input(1), 220, 270), (Place::Repartition(1), 470, 530)]
    {
        found.cuts.push(Cut { generation: 5, at, offset: some, keys, tried: None, told: 51 });
        let tried = keys.map(|keys| Tried { offset: some, keys });
        found.cuts.push(Cut { generation: 5, at, offset: all, keys: None, tried, told: 61 });
    }
    let works = cuts_of(&found);
    let mut seqs = [0; 6];
    for id in 1..=600 {
        let key = (id * 31 % 6) as u32;
        seqs[key as usize] += 1;
        let partition = (key % 2) as i32;
        let records = &mut found.input[partition as usize];
        let record = Input { key, group: (id % 3) as u32, seq: seqs[key as usize], id, time: id };
        records.push((records.len() as i64, record));
    }
    let input: Vec<Vec<Input>> = found.input.iter().map(|records| records.iter().map(|(_, record)| record.clone()).collect()).collect();
    let made = model(&input);
    let mut states: HashMap<u32, (i64, i64)> = HashMap::new();
    let mut appended = made.appended.into_iter();
    for partition in 0..2 {
        for (offset, record) in &found.input[partition] {
            let by = found.contents[&works.at(Place::Input(partition as i32), *offset, &format!("k{}", record.key)).unwrap()];
            found.lists.push((appended.next().unwrap(), Stamp { config: by.config, version: by.list }));
            // A transaction's mark takes an offset, so every other one is a record's.
            let to = record.group as usize % 2;
            let carried = &mut found.carried[to];
            let offset = carried.last().map_or(0, |last: &Carried| last.offset + 2);
            let key = format!("g{}", record.group);
            carried.push(Carried { offset, key: key.clone(), id: record.id, config: by.config });
            let by = found.contents[&works.at(Place::Repartition(to as i32), offset, &key).unwrap()];
            let (count, last) = states.entry(record.group).or_default();
            (*count, *last) = (*count + 1, hash(*last, record.seq));
            let made = Appended { key: record.group, seq: record.seq, count: *count, hash: *last };
            found.groups.push((made, record.id, Stamp { config: by.config, version: by.group }));
        }
    }
    for cut in found.cuts.clone() {
        let (generation, from) = (Some(cut.generation), Some(cut.offset));
        let ends = found.cuts.iter().filter(|other| other.at == cut.at && other.told > cut.told).map(|other| other.offset).min();
        let keys = cut.keys;
        found.commits.push(Commit { at: cut.at, offset: cut.offset, generation, from, keys });
        found.commits.push(Commit { at: cut.at, offset: ends.unwrap_or(1000), generation, from, keys });
    }
    found
}

fn cuts_of(found: &Found) -> Works {
    cuts(&mut Verdict::default(), found)
}

#[test]
fn a_run_without_a_fault_is_found_right() {
    let found = faithful();
    assert_eq!((found.lists.len(), found.groups.len()), (600, 600));
    let verdict = check(&found);
    assert_eq!((verdict.violations, verdict.told), (0, vec![]));
    assert!(verdict.checked > 2400, "{}", verdict.checked);
}

#[test]
fn every_way_to_be_wrong_is_seen() {
    type Doctor = (&'static str, fn(&mut Found));
    let doctors: [Doctor; 33] = [
        ("list-append", |found| _ = found.lists.remove(300)),
        ("list-append", |found| found.lists.insert(300, found.lists[299].clone())),
        ("list-append", |found| {
            let key = found.lists[300].0.key;
            let next = (301..).find(|at| found.lists[*at].0.key == key).unwrap();
            found.lists.swap(300, next);
        }),
        ("group 1", |found| found.groups.retain(|(result, ..)| result.key != 1 || result.count != 100)),
        ("group list", |found| found.groups[300].0.hash ^= 1),
        ("a second time", |found| {
            let group = found.groups[300].0.key;
            let before = (0..300).rev().find(|at| found.groups[*at].0.key == group).unwrap();
            found.groups[300].1 = found.groups[before].1;
        }),
        ("of key", |found| found.lists[120].1.version ^= 1),
        ("of key", |found| found.lists[120].1.config -= 1),
        ("of group", |found| found.groups[500].2.version ^= 1),
        ("of group", |found| found.groups[500].2.config -= 1),
        ("in the repartition topic", |found| found.carried[0][150].config -= 1),
        ("is there a second time", |found| {
            let twice = Carried { offset: 5000, ..found.carried[0][0].clone() };
            found.carried[0].push(twice);
        }),
        ("which is not in the repartition topic", |found| _ = found.carried[1].remove(20)),
        // A cut-over one record too late or too early.
        ("was made by", |found| found.cuts[4].offset += 1),
        ("was made by", |found| found.cuts[4].offset -= 1),
        ("told a second time", |found| found.cuts.push(found.cuts[11])),
        ("never active", |found| {
            found.cuts.push(Cut { generation: 6, at: Place::Input(0), offset: 290, keys: None, tried: None, told: 99 })
        }),
        // A canary in a partition that it has no share in, one that works before it is to, and a shadow that commits.
        ("was not to work there", |found| found.cuts[8].at = Place::Input(0)),
        ("was not to work there", |found| found.cuts[8].told = 25),
        ("was not to work there", |found| found.heads[2].trial.as_mut().unwrap().share.clear()),
        // A canary that takes other keys than its own, or all before it is promoted, or whose share is not told of later.
        ("was made by", |found| {
            let place = found.cuts.iter().position(|cut| cut.keys.is_some()).unwrap();
            found.cuts[place].keys = Keys::of_share(0.01);
        }),
        ("was not to work there", |found| _ = found.heads.remove(5)),
        ("is told to have worked for some keys", |found| found.cuts.last_mut().unwrap().tried = None),
        ("was committed after", |found| {
            let some = *found.commits.iter().find(|commit| commit.keys.is_some()).unwrap();
            found.commits.push(Commit { offset: 1001, ..some });
        }),
        ("after generation", |found| found.cuts.swap(0, 4)),
        ("after generation", |found| found.cuts[10].offset = 50),
        ("no generation is told to have worked", |found| _ = found.cuts.remove(0)),
        ("instead of", |found| _ = found.cuts.remove(4)),
        ("does not say of which generation", |found| found.commits[3].generation = None),
        ("a position says that generation 2 works from", |found| {
            found
                .commits
                .iter_mut()
                .filter(|commit| commit.generation == Some(2))
                .for_each(|commit| commit.from = commit.from.map(|from| from + 1));
        }),
        // A host that is behind goes on under the old generation.
        ("was committed after", |found| {
            let old = found.commits[1];
            found.commits.push(Commit { offset: 1001, ..old });
        }),
        ("who processed", |found| found.commits[1].offset -= 1),
        ("is the active one", |found| found.commits.retain(|commit| commit.at != Place::Input(1) || commit.generation != Some(5))),
    ];
    for (place, (told, doctor)) in doctors.iter().enumerate() {
        let mut found = faithful();
        doctor(&mut found);
        let verdict = check(&found);
        assert!(verdict.told.iter().any(|text| text.contains(told)), "doctor {place}: {:?}", verdict.told);
    }
}
