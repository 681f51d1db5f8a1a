//! The reference: a log as a plain list, and the steps that change it.

use crate::entry::{Entry, Kind, Stamp};
use crate::storage::{Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};
use bytes::Bytes;
use coracle_core::{HardState, Incarnation, Index, LogId, NodeId, Peer, Run, Term};
use std::fmt;

/// One call of a store.
#[derive(Clone, Debug)]
pub enum Step {
    /// [`LogStore::write`].
    Write(WriteBatch),
    /// [`LogStore::purge`].
    Purge(LogId),
    /// [`LogStore::idle`].
    Idle,
}

impl Step {
    /// Makes the call.
    pub fn run(&self, store: &mut dyn LogStore) -> Result<(), StoreError> {
        match self {
            Step::Write(batch) => store.write(batch),
            Step::Purge(upto) => store.purge(*upto),
            Step::Idle => store.idle(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Idle => f.write_str("idle"),
            Step::Purge(upto) => write!(f, "purge up to {upto}"),
            Step::Write(WriteBatch { hard_state, changes }) => {
                f.write_str("write")?;
                if let Some(HardState { term, vote, promised }) = hard_state {
                    write!(f, " the hard state of term {term}")?;
                    if *promised > 0 {
                        write!(f, " with a promise of {promised} ticks")?;
                    }
                    vote.iter().try_for_each(|peer| write!(f, " with a vote for {}", peer.id))?;
                    f.write_str(";")?;
                }
                changes.iter().try_for_each(|change| match change {
                    Change::Reset(to) => write!(f, " reset to {to};"),
                    Change::Truncate(last) => write!(f, " truncate to {last};"),
                    Change::Append(entries) => match (entries.first(), entries.last()) {
                        (Some(first), Some(last)) => {
                            let bytes = entries.iter().map(Entry::len).sum::<usize>();
                            write!(f, " append {} to {} in {bytes} bytes;", first.id(), last.id())
                        }
                        _ => write!(f, " append nothing;"),
                    },
                })
            }
        }
    }
}

/// A log as a plain list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    /// The hard state.
    pub hard_state: HardState,
    /// The newest entry that is gone.
    pub purged: LogId,
    /// The entries after it.
    pub entries: Vec<Entry>,
    /// The memberships among them, and the newest one that is gone.
    pub memberships: Vec<(LogId, Bytes)>,
}

impl Model {
    /// The newest entry.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, Entry::id)
    }

    /// Takes a step that keeps the contract.
    pub fn apply(&mut self, step: &Step) {
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
                batch.changes.iter().for_each(|change| self.change(change));
            }
        }
    }

    fn change(&mut self, change: &Change) {
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
                let memberships = entries.iter().filter(|entry| entry.kind() == Kind::Membership);
                self.memberships.extend(memberships.map(|entry| (entry.id(), entry.payload())));
            }
        }
    }

    /// What a store that holds this says when it is loaded.
    pub fn recovered(&self) -> Recovered {
        let mut runs: Vec<Run> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.term()) {
                runs.push(Run { first: entry.index(), term: entry.term() });
            }
        }
        Recovered {
            hard_state: self.hard_state,
            purged: self.purged,
            last: self.last(),
            runs,
            memberships: self.memberships.clone(),
        }
    }

    /// What a read of a store that holds this gives, or nothing.
    pub fn read(&self, first: Index, last: Index, max_bytes: usize) -> Option<&[Entry]> {
        let at = first.0.checked_sub(self.purged.index.0 + 1)? as usize;
        let entries = self.entries.get(at..)?;
        let mut bytes = 0;
        let fits = entries.iter().take_while(|entry| {
            bytes += entry.len();
            entry.index() <= last && (bytes <= max_bytes || entry.index() == first)
        });
        let count = fits.count();
        (count > 0).then(|| &entries[..count])
    }
}

/// All entries from `first` to the end of the log, in reads of at most `max_bytes`.
pub fn read_all(reader: &dyn LogReader, first: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = first;
    loop {
        match reader.entries(next, Index(u64::MAX), max_bytes) {
            Ok(some) if some.is_empty() => return Ok(entries),
            Ok(some) => {
                entries.extend(some);
                next = entries.last().map_or(next, |entry| entry.index().next());
            }
            Err(ReadLogError::Missing) => return Ok(entries),
            Err(error) => return Err(error),
        }
    }
}

/// A command whose payload tells its place.
pub fn entry(term: u64, index: u64, size: usize) -> Entry {
    let payload: Vec<u8> = (0..size).map(|at| (at as u64 * 31 + term * 7 + index) as u8).collect();
    let stamp = Stamp { cluster_time: index, wall_time: term, session: 0, sequence: 0, ..Stamp::default() };
    Entry::new(LogId::new(term, index), Kind::Command, stamp, &payload)
}

/// A membership, of bytes that mean nothing: a store does not look at them.
pub fn membership(term: u64, index: u64) -> Entry {
    let payload = format!("members of {index}.{term}");
    Entry::new(LogId::new(term, index), Kind::Membership, Stamp::default(), payload.as_bytes())
}

/// Commands of one term.
pub fn append(term: u64, range: std::ops::RangeInclusive<u64>, size: usize) -> Change {
    Change::Append(range.map(|index| entry(term, index, size)).collect())
}

/// A hard state, with or without a vote.
pub fn hard_state(term: u64, vote: Option<u64>) -> Option<HardState> {
    let vote = vote.map(|id| Peer { id: NodeId(id), incarnation: Incarnation(id * 100) });
    Some(HardState { term: Term(term), vote, promised: 0 })
}

/// The same with a promise of a lease.
pub fn promising(hard_state: Option<HardState>, promised: u64) -> Option<HardState> {
    hard_state.map(|state| HardState { promised, ..state })
}

/// A batch of changes without a hard state.
pub fn changes(changes: Vec<Change>) -> Step {
    Step::Write(WriteBatch { hard_state: None, changes })
}
