//! The files of a log: how many there are, which are used again, and what happens when there is no room for another.

mod wal_support;

use coracle::raft::{Index, LogId};
use coracle::storage::disk::{DirDisk, Disk};
use coracle::storage::mem_disk::{MemDisk, Op};
use coracle::storage::wal::{self, WalConfig};
use coracle::storage::{LogStore, StoreError, WriteBatch};
use std::path::Path;
use std::sync::Arc;
use wal_support::*;

#[test]
fn a_quiet_log_is_sealed_once() {
    let disk = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&disk), roomy()).unwrap();
    wal.idle().unwrap();
    let sealed = disk.operations();
    wal.idle().unwrap();
    assert_eq!(disk.operations(), sealed);
    changes(vec![append(1, 1..=1, 1)]).run(&mut wal).unwrap();
    wal.idle().unwrap();
    let writes = |trace: &[Op]| trace.iter().filter(|op| **op == Op::Write).count();
    assert_eq!(writes(&disk.trace()[sealed as usize..]), 2, "one write a batch");
}

/// Each start repeats what the newest segment says, if that is little.
#[test]
fn st_13_two_thousand_starts_with_a_write_each_leave_a_handful_of_files() {
    let disk = MemDisk::new();
    let config = || WalConfig { segment_bytes: 1 << 20, ..config() };
    for index in 1..=2000 {
        let (mut wal, recovered) = start_with(&shared(&disk), config()).unwrap();
        assert_eq!(recovered.last.index.0, index - 1);
        changes(vec![append(1, index..=index, 50)]).run(&mut wal).unwrap();
        // Now and then cleanly, now and then not.
        if index % 3 == 0 {
            wal.idle().unwrap();
        }
    }
    let files = disk.list().unwrap().len();
    assert!(files <= 10, "{files} files");
    let (wal, recovered) = start_with(&shared(&disk), config()).unwrap();
    assert_eq!(held(&recovered, &*wal.reader()).entries.len(), 2000);
}

#[test]
fn many_starts_do_not_fill_the_disk() {
    let disk = MemDisk::new();
    let size = |disk: &MemDisk| -> usize {
        disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap().len()).sum()
    };
    assert_eq!(run(&disk, &[changes(vec![append(1, 1..=1, 1)])]), 1);
    let one = size(&disk);
    for _ in 0..10 {
        assert_eq!(run(&disk, &[Step::Idle]), 1);
    }
    assert!(size(&disk) <= one + 10 * 3 * 4096, "each start leaves a header, a checkpoint and a seal");
    assert_eq!(start_and_read(&shared(&disk)).unwrap().1.entries.len(), 1);
}

/// OV-2: a log that is purged as it grows reuses its files, and says what it takes.
#[test]
fn purged_segments_are_recycled_within_the_budget() {
    for spares in [0, 1, 2] {
        let disk = MemDisk::new();
        // Room for two entries, and the name of the next segment.
        let segment_bytes = 20 << 10;
        let config = WalConfig { spares, segment_bytes, ..config() };
        let (mut wal, _) = start_with(&shared(&disk), config).unwrap();
        let reader = wal.reader();
        let files = || {
            let names = disk.list().unwrap().into_iter().filter(|name| !name.starts_with("id"));
            names.map(|name| disk.contents(&name).unwrap().len() as u64).sum::<u64>()
        };
        let mut warm = 0;
        for index in 1..=300 {
            changes(vec![append(1, index..=index, 3000)]).run(&mut wal).unwrap();
            if index > 10 && index % 2 == 0 {
                wal.purge(LogId::new(1, index - 5)).unwrap();
                wal.idle().unwrap();
                assert_eq!(reader.disk_bytes(), files(), "after entry {index}");
                let segments = disk.list().unwrap().iter().filter(|name| name.ends_with(".log")).count();
                let budget = (segments + spares) as u64 * segment_bytes + segments as u64 * 128;
                assert!(files() <= budget, "{:?}", disk.list());
            }
            if index == 50 {
                warm = disk.trace().len();
            }
        }
        let count = |wanted| disk.trace()[warm..].iter().filter(|op| **op == wanted).count();
        let (created, turns) = (count(Op::Create), count(Op::SyncDir));
        assert!(turns > 100, "{turns} segments");
        // Every purge here frees two segments at once; and each turn writes where the entries lie.
        let expected = turns * (2 - spares) / 2 + turns;
        assert!(created.abs_diff(expected) <= 2, "{created} new files of {turns} with {spares} spares");
        drop((wal, reader));
        assert_eq!(start_and_read(&shared(&disk)).unwrap().1.entries.len(), 5);
    }
}

/// A recycled file whose old name comes back with the header of the new segment is no damage.
#[test]
fn st_8_a_recycled_file_under_its_old_name_counts_for_nothing() {
    let disk = MemDisk::new();
    let (mut wal, _) = start(&shared(&disk)).unwrap();
    let newest = |wal: &mut dyn LogStore, index| {
        changes(vec![append(1, index..=index, 3000)]).run(wal).unwrap();
        disk.list().unwrap().into_iter().rfind(|name| name.ends_with(".log")).unwrap()
    };
    let first = newest(&mut wal, 1);
    for index in 2..20 {
        newest(&mut wal, index);
    }
    wal.purge(LogId::new(1, 18)).unwrap();
    wal.idle().unwrap();
    let mut last = newest(&mut wal, 20);
    let before = last.clone();
    for index in 21.. {
        last = newest(&mut wal, index);
        if last != before {
            break;
        }
    }
    drop(wal);
    let reborn = disk.contents(&last).unwrap();
    disk.put(&first, &reborn);
    let entries = start_and_read(&shared(&disk)).unwrap().1.entries;
    assert_eq!(entries[0].index(), Index(19));
    // The other way about, somebody has renamed a file.
    disk.put("00000000000000ff.log", &reborn);
    let refused = start(&shared(&disk)).err().unwrap().to_string();
    assert!(refused.contains("restore the names"), "{refused}");
}

/// What a crash or a full disk left half-made is in nobody's way, even where a file of it takes all the room.
#[test]
fn st_5_files_under_way_never_refuse_the_next_start() {
    let disk = MemDisk::new();
    assert_eq!(run(&disk, &[changes(vec![append(1, 1..=1, 1)])]), 1);
    for name in ["segment.tmp", "identity.tmp", "spare.tmp"] {
        disk.put(name, &[0xff; 100_000]);
    }
    wal::tidy(&disk).unwrap();
    assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".tmp")), "{:?}", disk.list());
    // Also where nobody tidies up.
    disk.put("segment.tmp", &[0xff; 100_000]);
    disk.put("identity.tmp", &[0xff; 100_000]);
    assert_eq!(start_and_read(&shared(&disk)).unwrap().1.entries.len(), 1);
}

/// D5.2.9: without room for the next segment, nothing is in doubt. Reads go on, and so do votes and the purge
/// that makes room; and once there is room, the same write succeeds.
#[test]
fn st_5_no_room_for_the_next_segment_puts_nothing_in_doubt() {
    let disk = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&disk), roomy()).unwrap();
    let reader = wal.reader();
    let mut model = Model::default();
    disk.set_full(true);
    let step = |index| changes(vec![append(1, index..=index, 3000)]);
    let mut next = 1;
    let refused = loop {
        match step(next).run(&mut wal) {
            Ok(()) => model.apply(&step(next)),
            Err(error) => break error,
        }
        next += 1;
    };
    assert!(matches!(&refused, StoreError::NoSpace { .. }), "{refused}");
    assert!(refused.to_string().contains("make room"), "{refused}");
    assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".tmp")), "{:?}", disk.list());
    for term in 2..=3 {
        assert!(matches!(step(next).run(&mut wal), Err(StoreError::NoSpace { .. })));
        wal.idle().unwrap();
        assert_eq!(read_all(&*reader, Index(1), Index(next), 1 << 20), model.entries);
        let vote = Step::Write(WriteBatch { hard_state: hard_state(term, Some(2)), changes: vec![] });
        vote.run(&mut wal).unwrap();
        model.apply(&vote);
        // What is there is durable, as it is told.
        let (_, found) = start_and_read(&shared(&disk.power_cut(512, || false))).unwrap();
        assert_eq!(found, model);
    }
    // Votes end as well at last, and even then nothing is in doubt.
    for term in 4.. {
        let vote = Step::Write(WriteBatch { hard_state: hard_state(term, None), changes: vec![] });
        match vote.run(&mut wal) {
            Ok(()) => model.apply(&vote),
            Err(StoreError::NoSpace { .. }) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(term < 100);
    }
    disk.clear_faults();
    step(next).run(&mut wal).unwrap();
    model.apply(&step(next));
    drop(wal);
    assert_eq!(start_and_read(&shared(&disk)).unwrap().1, model);
}

/// A purge frees the segments that it covers, and one of them becomes the next.
#[test]
fn st_5_a_purge_makes_room_on_a_full_disk() {
    let disk = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&disk), roomy()).unwrap();
    let step = |index| changes(vec![append(1, index..=index, 3000)]);
    (1..=100).for_each(|index| step(index).run(&mut wal).unwrap());
    disk.set_full(true);
    let full = (101..).find(|index| step(*index).run(&mut wal).is_err()).unwrap();
    wal.purge(LogId::new(1, 90)).unwrap();
    let vote = Step::Write(WriteBatch { hard_state: hard_state(2, None), changes: vec![] });
    vote.run(&mut wal).unwrap();
    step(full).run(&mut wal).unwrap();
    disk.clear_faults();
    drop(wal);
    let (_, found) = start_and_read(&shared(&disk)).unwrap();
    assert_eq!((found.purged, found.entries.len() as u64), (LogId::new(1, 90), full - 90));
}

/// D5.2.9: descriptors are bounded whatever the length of the log, while it is written, opened and read.
#[test]
fn ov_2_a_log_of_two_thousand_segments_takes_few_descriptors() {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let descriptors = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let paths = all.filter_map(|one| std::fs::read_link(one.unwrap().path()).ok());
        paths.filter(|path| path.starts_with(dir.path())).count()
    };
    let open = || -> Arc<dyn Disk> { Arc::new(DirDisk::open(dir.path()).unwrap()) };
    let (mut wal, _) = start(&open()).unwrap();
    let mut most = 0;
    for index in 1..=2000 {
        changes(vec![append(1, index..=index, 4090)]).run(&mut wal).unwrap();
        if index % 100 == 0 {
            most = most.max(descriptors());
        }
    }
    drop(wal);
    let segments = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "log"));
    assert!(segments.count() >= 2000);
    let (wal, recovered) = start(&open()).unwrap();
    most = most.max(descriptors());
    assert_eq!(held(&recovered, &*wal.reader()).entries.len(), 2000);
    most = most.max(descriptors());
    assert!(most <= 100, "{most} descriptors");
}
