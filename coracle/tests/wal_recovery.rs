//! The log is cut, torn, damaged and refused by its disk at every point, and must hold its word: whatever
//! was acknowledged is there, nothing was invented, and damage is told from a torn tail.

mod wal_support;

use coracle::core::{ClusterId, Incarnation, Index, LogId};
use coracle::entry::MAX_PAYLOAD;
use coracle::storage::contract::model::entry;
use coracle::storage::disk::{DirDisk, Disk, DiskFile};
use coracle::storage::mem_disk::{MemDisk, Op};
use coracle::storage::wal::{self, WalConfig};
use coracle::storage::{Change, LogStore, ReadLogError, StoreError, WriteBatch, identity};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wal_support::*;

fn shared(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Starts on the disk and takes all the steps; how many succeeded before one did not.
fn run(disk: &MemDisk, steps: &[Step]) -> usize {
    let Ok((mut wal, _)) = start(&shared(disk)) else { return 0 };
    steps.iter().take_while(|step| step.run(&mut wal).is_ok()).count()
}

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

/// Starts, and checks that what is there is the state after `done` steps, or, since the step under way may
/// have made it, the one after. Returns which.
#[track_caller]
fn check(disk: &MemDisk, states: &[Model], done: usize) -> usize {
    let (_, found) = start_and_read(&shared(disk)).unwrap_or_else(|e| panic!("after {done} steps: {e}"));
    let which = (done..states.len().min(done + 2)).find(|at| states[*at] == found);
    which.unwrap_or_else(|| panic!("after {done} steps: {found:?}\nexpected {:?}", states[done]))
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

/// The names of segments, and their bytes as far as they were used.
type Segments = Vec<(String, Vec<u8>)>;

/// The stream that a run writes, segment by segment, and its length after each step.
fn stream(steps: &[Step], config: WalConfig) -> (MemDisk, Segments, Vec<usize>) {
    let disk = MemDisk::new();
    let (mut wal, _) = start_with(&shared(&disk), config).unwrap();
    let used = || {
        let segments = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log"));
        let segments = segments.map(|name| {
            let mut bytes = disk.contents(&name).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(used.next_multiple_of(4096));
            (name, bytes)
        });
        segments.collect::<Segments>()
    };
    let total = |parts: &Segments| parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut ends = vec![total(&used())];
    for step in steps {
        step.run(&mut wal).unwrap();
        ends.push(total(&used()));
    }
    (disk.copy(), used(), ends)
}

/// A workload that frees no segment, so that its whole stream is there in the end.
fn without_purges() -> Vec<Step> {
    let resets = |step: &Step| match step {
        Step::Write(batch) => batch.changes.iter().any(|change| matches!(change, Change::Reset(_))),
        _ => false,
    };
    let kept = workload().into_iter().take_while(|step| !resets(step));
    let kept = kept.filter(|step| !matches!(step, Step::Purge(_)));
    kept.chain([Step::Idle, changes(vec![append(6, 34..=35, 77)]), Step::Idle]).collect()
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

/// ST-2, ST-9: a log whose newest batch is a seal, with every byte damaged once; in many segments, where
/// checkpoints attest, and in one, where only batches do.
#[test]
fn st_2_a_flip_in_an_attested_batch_is_refused_by_file_and_offset() {
    every_flip(config(), false);
    every_flip(roomy(), false);
}

/// Of a segment that a start need not read, the damage is found by whoever reads the entry.
#[test]
fn st_2_a_flip_in_a_segment_that_no_start_has_read_is_refused_by_the_reader() {
    every_flip(config(), true);
}

/// Makes the next start read all segments.
fn forget_places(disk: &MemDisk) {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".places"));
    names.for_each(|name| disk.remove(&name).unwrap());
}

/// Starts and reads everything; the first damage that one of them finds.
fn start_and_try(disk: &MemDisk) -> Result<Model, StoreError> {
    let (wal, recovered) = start(&shared(disk))?;
    let reader = wal.reader();
    for index in recovered.purged.index.0 + 1..=recovered.last.index.0 {
        match reader.entries(Index(index), Index(index), 0) {
            Ok(_) => {}
            Err(ReadLogError::Store(error)) => return Err(error),
            Err(other) => panic!("{other}"),
        }
    }
    Ok(held(&recovered, &*reader))
}

fn every_flip(config: WalConfig, hints: bool) {
    let steps = without_purges();
    assert!(matches!(steps.last(), Some(Step::Idle)), "sealed");
    let expected = states(&steps).pop().unwrap();
    let (disk, segments, _) = stream(&steps, config);
    if !hints {
        forget_places(&disk);
    }
    let (mut refused, mut harmless) = (0, 0);
    for (name, bytes) in &segments {
        // Payloads are all alike: a few of their bytes are enough.
        let places = (0..bytes.len()).filter(|at| at % 4096 < 512 || at % 61 == 0);
        for place in places {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            let image = disk.copy();
            image.put(name, &flipped);
            match start_and_try(&image) {
                Err(StoreError::Damaged { path, offset, .. }) => {
                    assert!(path.ends_with(name), "{} for {name}", path.display());
                    assert!(offset <= place as u64, "{offset} for {place}");
                    refused += 1;
                }
                Err(other) => panic!("{name} at {place}: {other}"),
                Ok(found) => {
                    assert_eq!(found, expected, "{name} at {place}");
                    harmless += 1;
                    if hints {
                        continue;
                    }
                    // The newest seal, and what names a segment that is there.
                    let seal = place >= bytes.len() - 4096;
                    let used = bytes[place..].iter().take(64).any(|byte| *byte != 0);
                    assert!(seal || !used || bytes[place] == 0, "{name} at {place} was not noticed");
                }
            }
        }
    }
    assert!(refused > 4_000 && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// Every bit of a log of 64 KiB that was closed cleanly.
#[test]
#[ignore = "half a minute; .ci/long runs it"]
fn st_2_every_bit_of_a_whole_log_is_detected_or_harmless() {
    let sizes = [1, 3000, 200, 4100, 900, 40, 6000, 2500];
    let mut steps: Vec<Step> = Vec::new();
    for (index, size) in (1..).zip(sizes.into_iter().cycle().take(9)) {
        steps.push(changes(vec![append(index / 5 + 1, index..=index, size)]));
    }
    steps.push(Step::Idle);
    let expected = states(&steps).pop().unwrap();
    let config = WalConfig { segment_bytes: 64 << 10, ..config() };
    let (disk, segments, _) = stream(&steps, config);
    assert_eq!(segments.len(), 1);
    let (name, _) = &segments[0];
    let bytes = disk.contents(name).unwrap();
    assert_eq!(bytes.len(), 64 << 10);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let check = |core: usize| {
        let mut refused = 0;
        for bit in (core..bytes.len() * 8).step_by(cores) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let image = disk.copy();
            image.put(name, &flipped);
            match start_and_try(&image) {
                Err(StoreError::Damaged { path, .. } | StoreError::Newer { path, .. }) => {
                    assert!(path.ends_with(name));
                    refused += 1;
                }
                Err(other) => panic!("bit {bit}: {other}"),
                Ok(found) => assert_eq!(found, expected, "bit {bit}"),
            }
        }
        refused
    };
    let refused: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|core| scope.spawn(move || check(core))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{refused} of {} flips refused, the others without effect", bytes.len() * 8);
    assert!(refused > 140_000, "{refused} refused");
}

/// A header attests even where the body after it is torn.
#[test]
fn st_2_damage_before_a_torn_batch_is_damage() {
    let steps: Vec<Step> = (1..=3).map(|at| changes(vec![append(1, 3 * at - 2..=3 * at, 1500)])).collect();
    let states = states(&steps);
    let (disk, segments, ends) = stream(&steps, roomy());
    let (name, bytes) = &segments[0];
    let torn_and_damaged = |torn: usize, damage: Option<usize>| {
        let mut bytes = bytes.clone();
        bytes[torn..].fill(0);
        damage.into_iter().for_each(|at| bytes[at] ^= 1);
        let image = disk.copy();
        image.put(name, &bytes);
        image
    };
    // The third batch is cut in its first block; then the second is damaged as well.
    assert_eq!(check(&torn_and_damaged(ends[2] + 4096, None), &states, 2), 2);
    let error = start(&shared(&torn_and_damaged(ends[2] + 4096, Some(ends[1] + 3000)))).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { offset, .. } if offset == ends[1] as u64), "{error}");
    // Without that header it is what a torn newest batch looks like, and dropped as such.
    assert_eq!(check(&torn_and_damaged(ends[2], Some(ends[1] + 3000)), &states, 1), 1);
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

#[test]
fn st_9_damage_under_a_running_log_is_answered_and_never_handed_out() {
    let disk = MemDisk::new();
    let (mut wal, _) = start(&shared(&disk)).unwrap();
    changes(vec![append(1, 1..=3, 500)]).run(&mut wal).unwrap();
    let name = disk.list().unwrap().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let bytes = disk.contents(&name).unwrap();
    let place = 200 + bytes.windows(564).position(|w| w == &entry(1, 2, 500).bytes()[..]).unwrap();
    disk.open(&name).unwrap().write_at(&[!bytes[place]], place as u64).unwrap();
    let reader = wal.reader();
    assert_eq!(reader.entries(Index(1), Index(1), 1).unwrap().len(), 1);
    let error = reader.entries(Index(2), Index(3), 1 << 20).unwrap_err();
    let ReadLogError::Store(StoreError::Damaged { path, offset, .. }) = &error else { panic!("{error}") };
    assert!(path.ends_with(&name) && *offset == place as u64 - 200, "{error}");
    // A whole entry in the wrong place, or of the wrong term, is none either.
    for wrong in [entry(1, 1, 500), entry(2, 2, 500)] {
        disk.open(&name).unwrap().write_at(wrong.bytes(), place as u64 - 200).unwrap();
        let error = reader.entries(Index(2), Index(3), 1 << 20).unwrap_err();
        assert!(matches!(error, ReadLogError::Store(StoreError::Damaged { .. })), "{error}");
    }
}

/// Damage that a snapshot covers is no reason to stop: its entries are purged, the rest is restated.
#[test]
fn st_9_damage_in_purged_segments_is_forgiven_and_above_it_refused() {
    let steps: Vec<Step> = (1..=12).map(|index| changes(vec![append(1, index..=index, 3000)])).collect();
    let disk = MemDisk::new();
    assert_eq!(run(&disk, &steps), steps.len());
    let oldest = disk.list().unwrap().into_iter().find(|name| name.ends_with(".log")).unwrap();
    for (purge, fine) in [(None, false), (Some(11), true)] {
        let disk = disk.copy();
        forget_places(&disk);
        if let Some(upto) = purge {
            let (mut wal, _) = start(&shared(&disk)).unwrap();
            // Not attested, so the files stay.
            wal.purge(LogId::new(1, upto)).unwrap();
        }
        for place in [10, 4200, 8300] {
            let image = disk.copy();
            image.open(&oldest).unwrap().write_at(&[0xff], place).unwrap();
            match start_and_read(&shared(&image)) {
                Ok((_, found)) => assert!(fine && found.entries.len() == 1, "{found:?}"),
                Err(StoreError::Damaged { path, .. }) => assert!(!fine && path.ends_with(&oldest)),
                Err(other) => panic!("{other}"),
            }
        }
        // And so is a missing one.
        disk.remove(&oldest).unwrap();
        match start_and_read(&shared(&disk)) {
            Ok(_) => assert!(fine),
            Err(error) => assert!(!fine && error.to_string().contains("begins late"), "{error}"),
        }
    }
}

#[test]
fn rs_1_a_log_that_is_gone_or_another_disks_is_refused() {
    let disk = MemDisk::new();
    run(&disk, &workload());
    identity::set_cluster(&disk, ClusterId(9)).unwrap();
    run(&disk, &[]);
    let segments: Vec<String> = disk.list().unwrap().into_iter().filter(|n| n.ends_with(".log")).collect();
    let wiped = disk.copy();
    for name in &segments {
        wiped.remove(name).unwrap();
    }
    assert!(matches!(start(&shared(&wiped)), Err(StoreError::Identity { .. })));
    wiped.put(&segments[0], &[0; 8192]);
    assert!(matches!(start(&shared(&wiped)), Err(StoreError::Identity { .. })), "an empty file is no log");
    // The same node, and another disk's identity.
    let stranger = MemDisk::new();
    identity::open_or_create(&stranger, NODE, false, || Incarnation(8)).unwrap();
    for name in &segments {
        stranger.put(name, &disk.contents(name).unwrap());
    }
    let error = start(&shared(&stranger)).err().unwrap();
    assert!(matches!(error, StoreError::Identity { .. }), "{error}");
    assert!(start(&shared(&disk)).is_ok());
}

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

/// Within a boot the last batch of a segment names the next one; and what the identity knows holds for the rest:
/// whichever file of a log is taken away, the start names it. So it does for an inspection.
#[test]
fn st_13_a_missing_newest_segment_is_damage_and_named() {
    let step = |index| changes(vec![append(1, index..=index, 3000)]);
    let disk = MemDisk::new();
    for restart in 0..2 {
        let steps: Vec<Step> = (1..=6).map(|at| step(6 * restart + at)).collect();
        assert_eq!(run(&disk, &steps), 6);
    }
    // In the middle of a run, and right after a start that has written nothing; purged, and not.
    let started = disk.copy();
    drop(start(&shared(&started)).unwrap());
    let purged = disk.copy();
    assert_eq!(
        run(&purged, &[Step::Purge(LogId::new(1, 12)), Step::Idle, step(13), step(14), Step::Idle]),
        5
    );
    for disk in [disk, started, purged] {
        let segments = || {
            let names = disk.list().unwrap().into_iter();
            names.filter(|name| name.ends_with(".log")).collect::<Vec<_>>()
        };
        let newest = segments().pop().unwrap();
        while let Some(gone) = segments().pop() {
            disk.remove(&gone).unwrap();
            let error = start(&shared(&disk)).err().unwrap();
            let StoreError::Damaged { path, detail, .. } = &error else { panic!("{error}") };
            assert!(detail.contains("missing"), "{error}");
            // Of several that are missing it is one of them; of all, the last that a start made, or a later one.
            let named = path.file_name().unwrap().to_str().unwrap();
            assert!(gone.as_str() <= named || segments().is_empty(), "{error} without {gone}");
            assert!(named <= newest.as_str(), "{error} without {gone}");
            let identity = identity::inspect(&disk).unwrap().0;
            let found = wal::inspect(&disk, Some(&identity)).unwrap();
            assert!(found.damage.iter().any(|damage| damage.error.to_string() == error.to_string()));
        }
    }
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

/// A disk that is another one at each look: what somebody sees who reads a log in use.
struct Moving {
    looks: Vec<MemDisk>,
    listed: AtomicUsize,
}

impl Moving {
    fn now(&self) -> &MemDisk {
        let look = self.listed.load(Ordering::Relaxed).max(1) - 1;
        &self.looks[look.min(self.looks.len() - 1)]
    }
}

impl Disk for Moving {
    fn path(&self) -> &Path {
        self.looks[0].path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        self.now().list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.now().open(name)
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// What looks damaged once, and no more the next time, was a batch under way; what stays is damage, and what
/// never holds still is told as such.
#[test]
fn only_damage_that_stays_is_damage_to_an_inspection() {
    let steps = [changes(vec![append(1, 1..=3, 2000)]), changes(vec![append(1, 4..=6, 2000)]), Step::Idle];
    let (whole, segments, ends) = stream(&steps, roomy());
    let (name, bytes) = &segments[0];
    let spoiled = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let image = whole.copy();
        image.put(name, &bytes);
        image
    };
    let look = |looks: Vec<MemDisk>| {
        let found = wal::inspect(&Moving { looks, listed: AtomicUsize::new(0) }, None);
        found.map(|found| found.damage.len())
    };
    let (first, second) = (ends[0] + 100, ends[1] + 100);
    assert_eq!(look(vec![whole.copy()]).unwrap(), 0);
    assert_eq!(look(vec![spoiled(first), whole.copy()]).unwrap(), 0, "once is not enough");
    assert_eq!(look(vec![spoiled(first), spoiled(first)]).unwrap(), 1);
    let restless: Vec<MemDisk> =
        (0..40).map(|at| spoiled(if at % 2 == 0 { first } else { second })).collect();
    assert!(look(restless).unwrap_err().to_string().contains("changed each of"));
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
