//! What the tests of the stores share: a plain model of a log, steps that change it, and a start that
//! goes the way of a node's.
#![allow(dead_code)]

use bytes::Bytes;
use coracle::core::{Broken, HardState, Incarnation, Index, LogId, NodeId, Peer, Run, Term};
use coracle::entry::{Entry, Kind, Stamp};
use coracle::storage::disk::Disk;
use coracle::storage::wal::{self, Wal, WalConfig};
use coracle::storage::{
    Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch, identity,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One call of a store.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(WriteBatch),
    Purge(LogId),
    Idle,
}

impl Step {
    pub(crate) fn run(&self, store: &mut dyn LogStore) -> Result<(), StoreError> {
        match self {
            Step::Write(batch) => store.write(batch),
            Step::Purge(upto) => store.purge(*upto),
            Step::Idle => store.idle(),
        }
    }
}

/// A log as a plain list.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) purged: LogId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) memberships: Vec<(LogId, Bytes)>,
}

impl Model {
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, Entry::id)
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Idle => {}
            Step::Purge(upto) => {
                self.entries.retain(|entry| entry.index() > upto.index);
                self.purged = self.purged.max(*upto);
                let old = self.memberships.iter().filter(|(id, _)| id.index <= upto.index).count();
                self.memberships.drain(..old.saturating_sub(1));
            }
            Step::Write(batch) => {
                self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
                for change in &batch.changes {
                    match change {
                        Change::Reset(to) => {
                            self.purged = *to;
                            self.entries.clear();
                            self.memberships.clear();
                        }
                        Change::Truncate(last) => {
                            self.entries.retain(|entry| entry.index() <= *last);
                            self.memberships.retain(|(id, _)| id.index <= *last);
                        }
                        Change::Append(entries) => {
                            self.entries.extend(entries.iter().cloned());
                            let memberships = entries.iter().filter(|e| e.kind() == Kind::Membership);
                            self.memberships.extend(memberships.map(|e| (e.id(), e.payload())));
                        }
                    }
                }
            }
        }
    }

    /// In a few words.
    pub(crate) fn brief(&self) -> String {
        let Model { hard_state, purged, entries, memberships } = self;
        let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_string()).collect();
        let state = format!("{}/{:?}", hard_state.term, hard_state.vote.map(|vote| vote.id.0));
        format!("{state} purged {purged} entries {} memberships {}", ids.join(" "), memberships.len())
    }

    /// What the store holds: what it said when it was loaded, and what its reader gives.
    pub(crate) fn read(recovered: &Recovered, reader: &dyn LogReader) -> Model {
        let (first, last) = (recovered.purged.index.next(), recovered.last.index);
        let entries = read_all(reader, first, last, 1 << 20);
        let mut runs: Vec<Run> = Vec::new();
        for entry in &entries {
            if runs.last().is_none_or(|run| run.term != entry.term()) {
                runs.push(Run { first: entry.index(), term: entry.term() });
            }
        }
        assert_eq!(recovered.runs, runs);
        assert_eq!(recovered.last, entries.last().map_or(recovered.purged, Entry::id));
        Model {
            hard_state: recovered.hard_state,
            purged: recovered.purged,
            entries,
            memberships: recovered.memberships.clone(),
        }
    }
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
    let model = Model::read(&recovered, &*wal.reader());
    Ok((wal, model))
}

pub(crate) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let payload: Vec<u8> = (0..size).map(|at| (at as u64 * 31 + term * 7 + index) as u8).collect();
    let stamp = Stamp { cluster_time: index, wall_time: term, session: 0, sequence: 0 };
    Entry::new(LogId::new(term, index), Kind::Command, stamp, &payload)
}

pub(crate) fn membership(term: u64, index: u64) -> Entry {
    let payload = format!("members of {index}.{term}");
    Entry::new(LogId::new(term, index), Kind::Membership, Stamp::default(), payload.as_bytes())
}

pub(crate) fn append(term: u64, range: std::ops::RangeInclusive<u64>, size: usize) -> Change {
    Change::Append(range.map(|index| entry(term, index, size)).collect())
}

pub(crate) fn hard_state(term: u64, vote: Option<u64>) -> Option<HardState> {
    let vote = vote.map(|id| Peer { id: NodeId(id), incarnation: Incarnation(id * 100) });
    Some(HardState { term: Term(term), vote })
}

pub(crate) fn changes(changes: Vec<Change>) -> Step {
    Step::Write(WriteBatch { hard_state: None, changes })
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
