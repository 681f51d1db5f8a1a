//! The power goes, a write is torn, the disk refuses: whatever was acknowledged is there at the next start, and nothing
//! was invented.

mod wal_support;

use coracle::entry::MAX_PAYLOAD;
use coracle::raft::{Incarnation, Index, LogId};
use coracle::storage::disk::Disk;
use coracle::storage::mem_disk::{MemDisk, Op};
use coracle::storage::wal::WalConfig;
use coracle::storage::{Change, LogStore, ReadLogError, StoreError, identity};
use std::io;
use wal_support::*;

/// What may be left of a disk after a loss of power: nothing unsynced, everything, and some of it.
fn power_cuts(disk: &MemDisk, seed: u64) -> Vec<MemDisk> {
    let mut dice = Dice(seed * 2 + 1);
    vec![
        disk.power_cut(512, || false),
        disk.power_cut(512, || true),
        disk.power_cut(512, || dice.coin()),
        disk.power_cut(4096, || dice.coin()),
    ]
}

/// ST-1, ST-3, ST-6, ST-7: also the very first start, new names, truncation, purge, reset.
#[test]
fn st_7_the_power_goes_at_every_operation_and_once_more_during_recovery() {
    let steps = workload();
    let states = states(&steps);
    for cut in 0.. {
        let disk = MemDisk::new();
        disk.fail_from(cut);
        let done = run(&disk, &steps);
        for (variant, image) in power_cuts(&disk, cut).into_iter().enumerate() {
            // The second loss of power, at every operation of the start.
            for again in 0.. {
                let second = image.power_cut(512, || true);
                second.fail_from(again);
                let started = start(&shared(&second)).is_ok();
                let seed = cut << 8 | again << 2 | variant as u64;
                let promised = started.then(|| check(&image.copy(), &states, done));
                for third in power_cuts(&second, seed).into_iter().step_by(2) {
                    let found = check(&third, &states, done);
                    assert!(
                        promised.is_none_or(|promised| promised == found),
                        "what a start told is durable"
                    );
                }
                if started {
                    break;
                }
            }
            // And the log goes on from there.
            let at = check(&image, &states, done);
            assert_eq!(run(&image, &steps[at..]), steps.len() - at);
            check(&image.power_cut(512, || false), &states, steps.len());
        }
        if done == steps.len() {
            break;
        }
    }
}

#[test]
fn st_2_every_prefix_of_a_written_stream_is_a_log() {
    // The first segment has room for an entry, so that it stays.
    every_prefix(WalConfig { segment_bytes: 20 << 10, ..config() });
    every_prefix(roomy());
}

fn every_prefix(config: WalConfig) {
    let steps = without_purges();
    let states = states(&steps);
    let (_, segments, ends) = stream(&steps, config);
    let len = *ends.last().unwrap();
    let first_batch_ends = |bytes: &[u8]| {
        let body = u64::from_le_bytes(std::array::from_fn(|at| bytes[4096 + 48 + at])) as usize;
        4096 + (64 + body).next_multiple_of(4096)
    };
    let mut cuts: Vec<usize> = (0..=len).step_by(512).collect();
    cuts.extend(ends.iter().flat_map(|end| [end - 1, end + 1]).filter(|cut| *cut < len));
    let mut newest = 0;
    cuts.sort_unstable();
    for cut in cuts {
        for zeros in [false, true] {
            // With an identity that does not know yet how far the log came.
            let disk = MemDisk::new();
            identity::open_or_create(&disk, NODE, false, || Incarnation(7)).unwrap();
            let mut rest = cut;
            for (at, (name, bytes)) in segments.iter().enumerate() {
                let keep = rest.min(bytes.len());
                rest -= keep;
                let mut kept = bytes[..keep].to_vec();
                // The last block of a segment names the next one, and is written once that has joined the log.
                if segments.get(at + 1).is_some_and(|(_, next)| rest < first_batch_ends(next)) {
                    kept.truncate(bytes.len() - 4096);
                }
                if zeros && keep > 0 {
                    kept.resize(bytes.len() + 8192, 0);
                }
                if keep > 0 {
                    disk.put(name, &kept);
                }
            }
            let done = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            let at = check(&disk, &states, done);
            assert!(at >= newest || states[at] == states[newest], "a longer stream is no shorter log");
            newest = newest.max(at);
        }
    }
    assert_eq!(newest, steps.len());
}

/// The newest checkpoint is attested by nothing yet, and what it repeats is still in the old file. Once the identity
/// says that it was synced, it may not be missing.
#[test]
fn until_a_checkpoint_is_attested_the_old_files_stay_as_they_are() {
    let steps = [changes(vec![append(1, 1..=3, 50)])];
    let states = states(&steps);
    let (disk, ..) = stream(&steps, config());
    let before = disk.contents(identity::IDENTITY).unwrap();
    let (mut wal, _) = start(&shared(&disk)).unwrap();
    let newest = disk.list().unwrap().into_iter().rfind(|name| name.ends_with(".log")).unwrap();
    let damaged = disk.copy();
    damaged.open(&newest).unwrap().write_at(&[0xff], 4200).unwrap();
    let error = start(&shared(&damaged)).err().unwrap();
    assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with(&newest)), "{error}");
    damaged.put(identity::IDENTITY, &before);
    assert_eq!(check(&damaged, &states, 1), 1);
    wal.idle().unwrap();
    disk.open(&newest).unwrap().write_at(&[0xff], 4200).unwrap();
    let error = start(&shared(&disk)).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { offset: 4096, .. }), "{error}");
}

/// A workload, then a batch whose sync is cut; every choice of its blocks, and many of its sectors.
#[test]
fn st_3_any_sectors_of_the_batch_in_flight_may_be_there() {
    let steps = [changes(vec![append(1, 1..=3, 700)]), changes(vec![append(1, 4..=9, 1500)])];
    let states = states(&steps);
    let clean = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&clean), roomy()).unwrap();
    steps[0].run(&mut wal).unwrap();
    clean.fail_from(clean.operations() + 1);
    steps[1].run(&mut wal).expect_err("written, and not synced");
    let mut outcomes = [0; 2];
    for choice in 0u32..8 {
        let mut at = 0;
        let image = clean.power_cut(4096, || {
            at += 1;
            choice >> (at - 1) & 1 == 1
        });
        outcomes[check(&image, &states, 1) - 1] += 1;
    }
    assert_eq!(outcomes, [7, 1], "whole only with all of its three blocks");
    let mut dice = Dice(5);
    for _ in 0..500 {
        let image = clean.power_cut(512, || dice.roll() & 15 != 0);
        check(&image, &states, 1);
    }
}

#[test]
fn st_3_old_bytes_of_an_earlier_life_of_the_file_are_not_read() {
    let steps = [changes(vec![append(1, 1..=2, 50)]), changes(vec![append(1, 3..=3, 50)])];
    let states = states(&steps);
    let (disk, segments, ends) = stream(&steps[..1], config());
    let (_, older, _) = stream(&steps, config());
    let (name, mut bytes) = segments[0].clone();
    // The same batches at the same places with the same numbers, of another generation.
    bytes.extend_from_slice(&older[0].1[ends[1]..]);
    disk.put(&name, &bytes);
    assert_eq!(check(&disk, &states[..2], 1), 1);
}

#[test]
fn st_4_after_any_failed_operation_nothing_succeeds_and_a_new_start_holds() {
    let steps = workload();
    let states = states(&steps);
    let clean = MemDisk::new();
    assert_eq!(run(&clean, &steps), steps.len());
    let trace = clean.trace();
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for (number, op) in trace.iter().enumerate() {
            let disk = MemDisk::new();
            disk.fail_at(number as u64, kind);
            let mut done = 0;
            if let Ok((mut wal, _)) = start(&shared(&disk)) {
                for step in &steps {
                    match step.run(&mut wal) {
                        Ok(()) => done += 1,
                        // Nothing was in doubt, and the log goes on.
                        Err(StoreError::NoSpace { source, .. }) => {
                            assert_eq!((source.kind(), kind), (kind, io::ErrorKind::StorageFull));
                            step.run(&mut wal).unwrap();
                            done += 1;
                        }
                        Err(StoreError::Io { source, .. }) => {
                            assert_eq!(source.kind(), kind);
                            break;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                if done < steps.len() {
                    for step in &steps[done..] {
                        let error = step.run(&mut wal).expect_err("the log is finished");
                        assert!(matches!(error, StoreError::Io { .. }), "{error}");
                    }
                    let reader = wal.reader();
                    let last = states[done].last().index;
                    if !states[done].entries.is_empty() {
                        assert_eq!(reader.entries(last, last, 0).unwrap()[0].index(), last, "reads go on");
                    }
                }
            }
            // Housekeeping may fail and costs only space or time: a segment that cannot be recycled, a file
            // that says where the entries of another lie. What a sync promises is no housekeeping.
            // Where there is no room, a write is tried again, and a seal is left out.
            let room = kind == io::ErrorKind::StorageFull;
            assert!(room || done < steps.len() || !matches!(op, Op::Sync | Op::SyncDir), "{op:?} {number}");
            for image in power_cuts(&disk, number as u64) {
                check(&image, &states, done);
            }
            // The end of the process alone: what the failed sync dropped can still be read, and is told on.
            check(&disk, &states, done);
            for image in power_cuts(&disk, number as u64) {
                check(&image, &states, done);
            }
        }
    }
}

/// LG-10: entries that were cut off do not come back, neither at once nor after a start.
#[test]
fn lg_10_overwritten_entries_read_as_the_new_ones() {
    let steps = [
        changes(vec![append(2, 10..=20, 900)]),
        changes(vec![Change::Truncate(Index(12)), append(3, 13..=16, 900)]),
        changes(vec![append(3, 17..=22, 900)]),
    ];
    let reset = changes(vec![Change::Reset(LogId::new(1, 9))]);
    let steps: Vec<Step> = [reset].into_iter().chain(steps).collect();
    let expected = states(&steps).pop().unwrap();
    let disk = shared(&MemDisk::new());
    let (mut wal, _) = start(&disk).unwrap();
    let reader = wal.reader();
    for (step, state) in steps.iter().zip(&states(&steps)[1..]) {
        step.run(&mut wal).unwrap();
        assert_eq!(read_all(&*reader, Index(10), Index(30), 1 << 20), state.entries);
        assert_eq!(read_all(&*reader, Index(10), Index(30), 1), state.entries);
    }
    drop(wal);
    let (_, found) = start_and_read(&disk).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_reader_keeps_what_it_found_while_segments_are_purged() {
    let disk = shared(&MemDisk::new());
    let (mut wal, _) = start(&disk).unwrap();
    for index in 1..=20 {
        changes(vec![append(1, index..=index, 3000)]).run(&mut wal).unwrap();
    }
    let before = disk.list().unwrap().len();
    let reader = wal.reader();
    assert_eq!(read_all(&*reader, Index(1), Index(20), 10_000).len(), 20);
    wal.purge(LogId::new(1, 15)).unwrap();
    assert!(disk.list().unwrap().len() >= before, "not before the purge is attested");
    wal.idle().unwrap();
    assert!(disk.list().unwrap().len() < before - 3, "space is freed");
    assert!(matches!(reader.entries(Index(15), Index(20), 1), Err(ReadLogError::Purged)));
    assert_eq!(read_all(&*reader, Index(16), Index(20), 10_000).len(), 5);
    assert!(matches!(reader.entries(Index(21), Index(29), 1), Err(ReadLogError::Missing)));
}

/// D5.1.12: what a start would refuse is never written.
#[test]
fn the_largest_entry_is_read_back() {
    let disk = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&disk), roomy()).unwrap();
    let largest = changes(vec![append(1, 1..=1, MAX_PAYLOAD)]);
    largest.run(&mut wal).unwrap();
    let (_, found) = start_and_read(&shared(&disk.copy())).unwrap();
    assert_eq!(found.entries[0].payload().len(), MAX_PAYLOAD);
}
