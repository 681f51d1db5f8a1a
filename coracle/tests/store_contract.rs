//! The contract of a log store, as one set of scenarios that both stores pass: in memory, on the disk's twin
//! in memory, and on a real directory.

mod wal_support;

use coracle::core::{Index, LogId, NodeId};
use coracle::entry::Entry;
use coracle::storage::disk::{DirDisk, Disk};
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::memory::MemoryStore;
use coracle::storage::wal::WalConfig;
use coracle::storage::{Change, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};
use proptest::prelude::*;
use std::sync::Arc;
use wal_support::*;

/// A store that can be stopped and started again.
trait Bench {
    fn start(&mut self) -> (Box<dyn LogStore>, Recovered);
}

impl Bench for MemoryStore {
    fn start(&mut self) -> (Box<dyn LogStore>, Recovered) {
        let mut store = self.clone();
        let recovered = store.load(&mut |_| {}).unwrap();
        (Box::new(store), recovered)
    }
}

impl Bench for MemDisk {
    fn start(&mut self) -> (Box<dyn LogStore>, Recovered) {
        *self = self.power_cut(512, || false);
        let disk: Arc<dyn Disk> = Arc::new(self.clone());
        let (wal, recovered) = start(&disk).unwrap();
        (Box::new(wal), recovered)
    }
}

impl Bench for tempfile::TempDir {
    fn start(&mut self) -> (Box<dyn LogStore>, Recovered) {
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(self.path()).unwrap());
        let config = WalConfig { segment_bytes: 64 << 10, ..WalConfig::default() };
        let (wal, recovered) = start_with(&disk, config).unwrap();
        (Box::new(wal), recovered)
    }
}

fn benches() -> Vec<(&'static str, Box<dyn Bench>)> {
    vec![
        ("memory", Box::new(MemoryStore::new())),
        ("log on a disk in memory", Box::new(MemDisk::new())),
        ("log in a directory", Box::new(tempfile::tempdir().unwrap())),
    ]
}

#[test]
fn a_new_store_is_empty() {
    for (name, mut bench) in benches() {
        let (store, recovered) = bench.start();
        assert_eq!(recovered, Recovered::default(), "{name}");
        assert!(matches!(store.reader().entries(Index(1), Index(9), 1), Err(ReadLogError::Missing)));
        assert!(matches!(store.reader().entries(Index(0), Index(9), 1), Err(ReadLogError::Purged)));
    }
}

#[test]
fn what_was_written_is_there_at_once_and_after_every_start() {
    let steps = workload();
    let states = states(&steps);
    for (name, mut bench) in benches() {
        let (mut store, _) = bench.start();
        for (step, state) in steps.iter().zip(&states[1..]) {
            step.run(&mut *store).unwrap();
            let first = state.purged.index.next();
            assert_eq!(read_all(&*store.reader(), first, Index(u64::MAX), 5000), state.entries, "{name}");
            drop(store);
            let (again, recovered) = bench.start();
            assert_eq!(Model::read(&recovered, &*again.reader()), *state, "{name}");
            store = again;
        }
    }
}

/// LG-7: whatever the limit, wherever the entries lie, and however the range falls.
#[test]
fn lg_7_reads_are_contiguous_for_every_limit() {
    for (name, mut bench) in benches() {
        let (mut store, _) = bench.start();
        let sizes = [10, 5000, 0, 20_000, 64, 4032, 4096, 1, 1, 1, 9000, 70_000, 3];
        let entries: Vec<Entry> =
            (1..).zip(sizes).map(|(index, size)| entry(index / 4, index, size)).collect();
        for some in entries.chunks(3) {
            changes(vec![Change::Append(some.to_vec())]).run(&mut *store).unwrap();
        }
        let reader = store.reader();
        for limit in [0, 1, 100, 200, 5064, 5138, 30_000, usize::MAX] {
            for first in 1..=entries.len() {
                for last in first..=entries.len() {
                    let (from, to) = (Index(first as u64), Index(last as u64));
                    assert_eq!(read_all(&*reader, from, to, limit), entries[first - 1..last], "{name}");
                }
            }
        }
    }
}

#[test]
fn what_breaks_the_contract_is_refused_and_changes_nothing() {
    for (name, mut bench) in benches() {
        let (mut store, _) = bench.start();
        changes(vec![append(2, 1..=9, 10)]).run(&mut *store).unwrap();
        store.purge(LogId::new(2, 4)).unwrap();
        store.purge(LogId::new(2, 3)).unwrap();
        let bad = [
            changes(vec![append(2, 11..=11, 1)]),
            changes(vec![append(2, 9..=9, 1)]),
            changes(vec![append(1, 10..=10, 1)]),
            changes(vec![append(2, 10..=10, 1), append(2, 12..=12, 1)]),
            changes(vec![Change::Truncate(Index(3))]),
            changes(vec![Change::Truncate(Index(6)), append(2, 8..=8, 1)]),
            changes(vec![Change::Reset(LogId::new(2, 3))]),
            Step::Purge(LogId::new(2, 10)),
            Step::Purge(LogId::new(3, 8)),
        ];
        for step in bad {
            let error = step.run(&mut *store).expect_err(name);
            assert!(matches!(error, StoreError::Refused(_)), "{name}: {error}");
        }
        changes(vec![Change::Truncate(Index(4)), append(3, 5..=6, 1)]).run(&mut *store).unwrap();
        drop(store);
        let (store, recovered) = bench.start();
        let ids = read_all(&*store.reader(), Index(5), Index(9), 1 << 20);
        let ids: Vec<LogId> = ids.iter().map(Entry::id).collect();
        assert_eq!(ids, [LogId::new(3, 5), LogId::new(3, 6)], "{name}");
        assert_eq!(recovered.purged, LogId::new(2, 4), "{name}");
    }
}

/// Readers on other threads while the log is written, truncated and purged.
#[test]
fn readers_see_only_whole_truth_beside_the_writer() {
    for (name, mut bench) in benches() {
        let (mut store, _) = bench.start();
        changes(vec![append(1, 1..=1, 10)]).run(&mut *store).unwrap();
        let readers: Vec<_> = (0..2).map(|_| store.reader()).collect();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in &readers {
                scope.spawn(|| {
                    let mut first = Index(1);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        match reader.entries(first, Index(u64::MAX), 2000) {
                            Ok(entries) => assert!((first.0..).zip(&entries).all(|(i, e)| e.index().0 == i)),
                            Err(ReadLogError::Purged) => first = first.next(),
                            Err(ReadLogError::Missing) => {}
                            Err(other) => panic!("{name}: {other}"),
                        }
                    }
                });
            }
            let mut last = 1;
            for round in 2..60u64 {
                let batch = vec![Change::Truncate(Index(last - 1)), append(round, last..=last + 3, 700)];
                changes(batch).run(&mut *store).unwrap();
                last += 3;
                if round % 7 == 0 {
                    store.purge(LogId::new(round, last - 2)).unwrap();
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

#[test]
fn a_directory_is_for_one_log_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(DirDisk::open(dir.path()).unwrap());
    let (wal, _) = start(&(disk.clone() as Arc<dyn Disk>)).unwrap();
    drop(disk);
    assert!(matches!(DirDisk::open(dir.path()), Err(StoreError::Locked { .. })));
    let reader = wal.reader();
    drop(wal);
    DirDisk::open(dir.path()).expect("a reader holds files, not the directory");
    drop(reader);
}

/// Turns dice into a step that the model allows.
fn step(model: &Model, what: u8, amount: u64, size: usize, flag: bool) -> Step {
    let (last, count) = (model.last(), model.entries.len() as u64);
    let next = |term: u64, from: u64, amount: u64| {
        let entries = (from..from + amount).map(|index| {
            if flag && index == from { membership(term, index) } else { entry(term, index, size) }
        });
        Change::Append(entries.collect())
    };
    match what {
        0 => Step::Idle,
        1 if count > 0 => Step::Purge(model.entries[(amount % count) as usize].id()),
        2 => {
            let keep = model.purged.index.0 + amount.min(count);
            let term = last.term.0 + 1;
            changes(vec![Change::Truncate(Index(keep)), next(term, keep + 1, amount)])
        }
        3 if flag => {
            let to = LogId { term: last.term.next(), index: Index(last.index.0 + amount) };
            changes(vec![Change::Reset(to), next(to.term.0, to.index.0 + 1, amount / 2)])
        }
        4 => Step::Write(WriteBatch {
            hard_state: hard_state(last.term.0 + amount, flag.then_some(NodeId(amount).0)),
            changes: vec![next(last.term.0.max(1), last.index.0 + 1, amount / 3)],
        }),
        _ => changes(vec![next(last.term.0.max(1), last.index.0 + 1, amount)]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_history_reads_back_as_a_plain_list(
        dice in prop::collection::vec((0u8..9, 0u64..9, 0usize..3000, any::<bool>(), 0u8..6), 1..40)
    ) {
        let mut memory = MemoryStore::new();
        let mut disk = MemDisk::new();
        let mut model = Model::default();
        let (mut wal, _) = disk.start();
        for (what, amount, size, flag, restart) in dice {
            let step = step(&model, what, amount, size, flag);
            model.apply(&step);
            step.run(&mut memory).unwrap();
            step.run(&mut *wal).unwrap();
            if restart == 0 {
                drop(wal);
                let (again, recovered) = disk.start();
                prop_assert_eq!(&Model::read(&recovered, &*again.reader()), &model);
                wal = again;
            }
            let first = model.purged.index.next();
            prop_assert_eq!(&read_all(&*wal.reader(), first, model.last().index, 4000), &model.entries);
        }
        let (_, recovered) = memory.clone().start();
        prop_assert_eq!(Model::read(&recovered, &*memory.reader()), model.clone());
        drop(wal);
        let (wal, recovered) = disk.start();
        prop_assert_eq!(Model::read(&recovered, &*wal.reader()), model);
    }
}
