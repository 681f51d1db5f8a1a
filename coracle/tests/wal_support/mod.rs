//! What the tests of the write-ahead log share beside the model of the contract: a workload, and a start that
//! goes the way of a node's.
#![allow(dead_code)]

pub(crate) use coracle::storage::contract::model::{Model, Step, append, changes, hard_state, membership};

use coracle::entry::Entry;
use coracle::raft::{Broken, Incarnation, Index, LogId, NodeId};
use coracle::storage::disk::Disk;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::wal::{self, Wal, WalConfig};
use coracle::storage::{
    Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch, identity,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A log in a few words.
pub(crate) fn brief(model: &Model) -> String {
    let Model { hard_state, purged, entries, memberships } = model;
    let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_string()).collect();
    let state = format!("{}/{:?}", hard_state.term, hard_state.vote.map(|vote| vote.id.0));
    format!("{state} purged {purged} entries {} memberships {}", ids.join(" "), memberships.len())
}

/// What the store holds: what it said when it was loaded, and what its reader gives, which must agree.
pub(crate) fn held(recovered: &Recovered, reader: &dyn LogReader) -> Model {
    let (first, last) = (recovered.purged.index.next(), recovered.last.index);
    let model = Model {
        hard_state: recovered.hard_state,
        purged: recovered.purged,
        entries: read_all(reader, first, last, 1 << 20),
        memberships: recovered.memberships.clone(),
    };
    assert_eq!(&model.recovered(), recovered);
    model
}

/// All entries in the range, up to the end of the log, in messages of at most `max_bytes`, each contiguous with the one before.
pub(crate) fn read_all(reader: &dyn LogReader, first: Index, last: Index, max_bytes: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = first;
    while next <= last {
        let some = match reader.entries(next, last, max_bytes) {
            Ok(some) => some,
            Err(ReadLogError::Missing) => break,
            Err(e) => panic!("reading {next}: {e}"),
        };
        assert!(!some.is_empty());
        assert!(some.len() == 1 || some.iter().map(Entry::len).sum::<usize>() <= max_bytes);
        for entry in some {
            assert_eq!(entry.index(), next, "contiguous");
            next = next.next();
            entries.push(entry);
        }
    }
    entries
}

pub(crate) const NODE: NodeId = NodeId(1);

/// Small segments, no thread, and generations that are never the same.
pub(crate) fn config() -> WalConfig {
    static NEXT: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let draw = || NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    WalConfig { segment_bytes: 16 << 10, prepare_ahead: false, spares: 2, draw: Arc::new(draw) }
}

/// Starts as a node does: identity first, then the log.
pub(crate) fn start(disk: &Arc<dyn Disk>) -> Result<(Wal, Recovered), StoreError> {
    start_with(disk, config())
}

/// Segments that a short test does not fill.
pub(crate) fn roomy() -> WalConfig {
    WalConfig { segment_bytes: 256 << 10, ..config() }
}

pub(crate) fn start_with(disk: &Arc<dyn Disk>, config: WalConfig) -> Result<(Wal, Recovered), StoreError> {
    start_broken(disk, config, Broken::default())
}

/// Starts a log that breaks this rule.
pub(crate) fn start_broken(
    disk: &Arc<dyn Disk>,
    config: WalConfig,
    broken: Broken,
) -> Result<(Wal, Recovered), StoreError> {
    let exists = wal::exists(&**disk)?;
    let identity = identity::open_or_create(&**disk, NODE, exists, || Incarnation(7))?;
    let mut wal = Wal::open(disk.clone(), identity, config);
    wal.break_rule(broken);
    let recovered = wal.load(&mut |_| {})?;
    Ok((wal, recovered))
}

/// Starts, and reads everything.
pub(crate) fn start_and_read(disk: &Arc<dyn Disk>) -> Result<(Wal, Model), StoreError> {
    let (wal, recovered) = start(disk)?;
    let model = held(&recovered, &*wal.reader());
    Ok((wal, model))
}

/// Everything that a log can go through, over several segments of [`config`]'s size.
pub(crate) fn workload() -> Vec<Step> {
    vec![
        Step::Write(WriteBatch { hard_state: hard_state(1, Some(1)), changes: vec![] }),
        changes(vec![Change::Append(vec![membership(1, 1)])]),
        Step::Idle,
        changes(vec![append(1, 2..=5, 100)]),
        changes(vec![append(1, 6..=9, 2000)]),
        changes(vec![Change::Append(vec![membership(1, 10)]), append(1, 11..=12, 10)]),
        Step::Write(WriteBatch {
            hard_state: hard_state(3, None),
            changes: vec![Change::Truncate(Index(8)), append(3, 9..=11, 300)],
        }),
        Step::Idle,
        changes(vec![Change::Append(vec![membership(3, 12)]), append(3, 13..=13, 40_000)]),
        changes(vec![append(3, 14..=20, 5)]),
        Step::Purge(LogId::new(3, 10)),
        Step::Idle,
        changes(vec![append(3, 21..=24, 3000)]),
        Step::Write(WriteBatch {
            hard_state: hard_state(4, Some(2)),
            changes: vec![Change::Truncate(Index(10)), append(4, 11..=30, 9)],
        }),
        changes(vec![Change::Append(vec![membership(4, 31)])]),
        Step::Purge(LogId::new(4, 30)),
        changes(vec![append(5, 32..=33, 4100)]),
        Step::Write(WriteBatch {
            hard_state: hard_state(6, None),
            changes: vec![Change::Reset(LogId::new(6, 50)), append(6, 51..=52, 64)],
        }),
        Step::Idle,
        changes(vec![append(6, 53..=60, 1500)]),
        Step::Purge(LogId::new(6, 60)),
        changes(vec![append(6, 61..=61, 1)]),
        changes(vec![append(7, 62..=62, 1)]),
        Step::Idle,
    ]
}

/// The model before the first step, and after each.
pub(crate) fn states(steps: &[Step]) -> Vec<Model> {
    let mut states = vec![Model::default()];
    for step in steps {
        let mut next = states[states.len() - 1].clone();
        next.apply(step);
        states.push(next);
    }
    states
}

/// A small generator of random numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.roll() & 0x100 != 0
    }
}

/// The same disk, to be used as any other.
pub(crate) fn shared(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Starts on the disk and takes all the steps; how many succeeded before one did not.
pub(crate) fn run(disk: &MemDisk, steps: &[Step]) -> usize {
    let Ok((mut wal, _)) = start(&shared(disk)) else { return 0 };
    steps.iter().take_while(|step| step.run(&mut wal).is_ok()).count()
}

/// Starts, and checks that what is there is the state after `done` steps, or, since the step under way may
/// have made it, the one after. Returns which.
#[track_caller]
pub(crate) fn check(disk: &MemDisk, states: &[Model], done: usize) -> usize {
    let (_, found) = start_and_read(&shared(disk)).unwrap_or_else(|e| panic!("after {done} steps: {e}"));
    let which = (done..states.len().min(done + 2)).find(|at| states[*at] == found);
    which.unwrap_or_else(|| panic!("after {done} steps: {found:?}\nexpected {:?}", states[done]))
}

/// The names of segments, and their bytes as far as they were used.
pub(crate) type Segments = Vec<(String, Vec<u8>)>;

/// The stream that a run writes, segment by segment, and its length after each step.
pub(crate) fn stream(steps: &[Step], config: WalConfig) -> (MemDisk, Segments, Vec<usize>) {
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
pub(crate) fn without_purges() -> Vec<Step> {
    let resets = |step: &Step| match step {
        Step::Write(batch) => batch.changes.iter().any(|change| matches!(change, Change::Reset(_))),
        _ => false,
    };
    let kept = workload().into_iter().take_while(|step| !resets(step));
    let kept = kept.filter(|step| !matches!(step, Step::Purge(_)));
    kept.chain([Step::Idle, changes(vec![append(6, 34..=35, 77)]), Step::Idle]).collect()
}
