//! A log is damaged, cut, or its files are gone or another's: damage is told from a torn end, is named with its file and
//! its place, and is never handed out.

mod wal_support;

use coracle::in_full;
use coracle::raft::{ClusterId, Incarnation, Index, LogId};
use coracle::storage::contract::model::entry;
use coracle::storage::disk::{Disk, DiskFile};
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::wal::{self, WalConfig};
use coracle::storage::{LogStore, ReadLogError, StoreError, identity};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wal_support::*;

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

/// Within a run the last batch of a segment names the next one; and what the identity knows holds for the rest:
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
    assert!(in_full(&look(restless).unwrap_err()).contains("changed each of"));
}
