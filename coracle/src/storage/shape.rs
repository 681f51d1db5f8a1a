//! What a log looks like without its entries: where it starts and ends, its terms, its memberships.
//!
//! Both stores keep one, and both judge by it: a batch that breaks the contract (a gap, a term that
//! descends, a truncation of what was purged) is refused here, before a byte is written. Recovery walks
//! the same steps again, so what was once accepted is accepted again.

use super::{Change, Recovered, WriteBatch};
use crate::entry::{Entry, Kind};
use bytes::Bytes;
use coracle_core::{HardState, Index, LogId, Run, Term};

/// The outline of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shape {
    /// The hard state.
    pub(crate) hard_state: HardState,
    /// The newest entry that is gone; the log starts after it.
    pub(crate) purged: LogId,
    /// The newest entry; equal to `purged` if there are none.
    pub(crate) last: LogId,
    /// The runs of terms from after `purged` to `last`.
    pub(crate) runs: Vec<Run>,
    /// The payloads of the membership entries after `purged`, and of the newest at or before it.
    pub(crate) memberships: Vec<(LogId, Bytes)>,
}

impl Shape {
    /// Whether the batch may be written; if not, why.
    pub(crate) fn check(&self, batch: &WriteBatch) -> Result<(), String> {
        if batch.changes.iter().all(|change| matches!(change, Change::Append(_))) {
            // The path of nearly all batches: nothing needs to be copied to judge them.
            let mut last = self.last;
            for change in &batch.changes {
                let Change::Append(entries) = change else { continue };
                last = entries.iter().try_fold(last, |last, entry| {
                    check_size(entry)?;
                    follow(last, entry.id())
                })?;
            }
            return Ok(());
        }
        let mut copy = self.clone();
        batch.changes.iter().try_for_each(|change| copy.change(change))
    }

    /// Whether the entries up to `upto` may be purged: `Ok(false)` if they are gone already.
    pub(crate) fn check_purge(&self, upto: LogId) -> Result<bool, String> {
        match upto.index {
            index if index < self.purged.index => Ok(false),
            index if index > self.last.index => {
                Err(format!("a purge up to {upto}, but the log ends with {}", self.last))
            }
            index => match self.term(index) {
                Some(term) if term == upto.term => Ok(index > self.purged.index),
                _ => Err(format!("a purge up to {upto}, but the log holds another entry there")),
            },
        }
    }

    /// The term of the entry at `index`, if the log holds it or starts after it.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.purged.index {
            return Some(self.purged.term);
        }
        if index < self.purged.index || index > self.last.index {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(self.runs[after.checked_sub(1)?].term)
    }

    /// Takes one change, or says why it does not fit; then the shape may have taken a part of it.
    pub(crate) fn change(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Reset(to) => self.reset(*to),
            Change::Truncate(last) => self.truncate(*last),
            Change::Append(entries) => entries.iter().try_for_each(|entry| self.append_entry(entry)),
        }
    }

    /// Forgets all entries; the log goes on after `to`.
    pub(crate) fn reset(&mut self, to: LogId) -> Result<(), String> {
        if to.index < self.purged.index {
            return Err(format!("a reset to {to}, but the log was purged up to {}", self.purged));
        }
        self.purged = to;
        self.last = to;
        self.runs.clear();
        self.memberships.clear();
        Ok(())
    }

    /// Forgets the entries after `last`.
    pub(crate) fn truncate(&mut self, last: Index) -> Result<(), String> {
        if last < self.purged.index {
            return Err(format!(
                "a truncation to index {last}, but the log was purged up to {}",
                self.purged
            ));
        }
        if last >= self.last.index {
            return Ok(());
        }
        let term = self.term(last).ok_or("a truncation to an index without a term")?;
        self.last = LogId { term, index: last };
        self.runs.retain(|run| run.first <= last);
        self.memberships.retain(|(id, _)| id.index <= last);
        Ok(())
    }

    /// Takes the next entry.
    #[inline]
    pub(crate) fn append_entry(&mut self, entry: &Entry) -> Result<(), String> {
        check_size(entry)?;
        // In memory of its own: what the entry was read with may be large.
        let payload = || Bytes::copy_from_slice(&entry.payload());
        let membership = (entry.kind() == Kind::Membership).then(payload);
        self.append(entry.id(), membership)
    }

    /// Takes the next entry; with its payload, if it is a membership.
    pub(crate) fn append(&mut self, id: LogId, membership: Option<Bytes>) -> Result<(), String> {
        let before = self.last;
        self.last = follow(before, id)?;
        if id.term != before.term || self.runs.is_empty() {
            self.runs.push(Run { first: id.index, term: id.term });
        }
        if let Some(payload) = membership {
            self.memberships.push((id, payload));
        }
        Ok(())
    }

    /// Forgets the entries up to `upto`, which is in the log.
    pub(crate) fn purge(&mut self, upto: LogId) -> Result<(), String> {
        if !self.check_purge(upto)? {
            return Ok(());
        }
        self.purged = upto;
        if upto.index == self.last.index {
            self.runs.clear();
        } else {
            // The run that the first kept entry lies in goes on from there.
            let next = upto.index.next();
            let before = self.runs.partition_point(|run| run.first <= next).saturating_sub(1);
            self.runs.drain(..before);
            if let Some(run) = self.runs.first_mut() {
                run.first = next;
            }
        }
        let old = self.memberships.partition_point(|(id, _)| id.index <= upto.index);
        self.memberships.drain(..old.saturating_sub(1));
        Ok(())
    }

    /// What a start is told.
    pub(crate) fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            purged: self.purged,
            last: self.last,
            runs: self.runs.clone(),
            memberships: self.memberships.clone(),
        }
    }
}

/// The log ends with `last`; `next` is to follow it.
/// What a reader would refuse is never written, whoever made it (D5.1.12).
fn check_size(entry: &Entry) -> Result<(), String> {
    match Entry::encoded_len(entry.bytes()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("entry {}: {error}", entry.id())),
    }
}

fn follow(last: LogId, next: LogId) -> Result<LogId, String> {
    if last.index.0.checked_add(1) != Some(next.index.0) {
        return Err(format!("entry {next} does not follow {last}: a gap"));
    }
    if next.term < last.term {
        return Err(format!("entry {next} does not follow {last}: its term descends"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The shape that a plain list of entries and memberships has.
    fn outline(purged: LogId, entries: &[LogId]) -> (LogId, Vec<Run>) {
        let mut runs: Vec<Run> = Vec::new();
        for id in entries {
            if runs.last().is_none_or(|run| run.term != id.term) {
                runs.push(Run { first: id.index, term: id.term });
            }
        }
        (entries.last().copied().unwrap_or(purged), runs)
    }

    proptest! {
        #[test]
        fn the_shape_is_that_of_a_plain_list(steps in prop::collection::vec((0u8..10, 0u64..6, any::<bool>()), 1..60)) {
            let mut shape = Shape::default();
            let (mut purged, mut entries) = (LogId::ZERO, Vec::<LogId>::new());
            let mut members = Vec::<LogId>::new();
            for (what, amount, flag) in steps {
                match what {
                    0 => {
                        let keep = (amount as usize).min(entries.len());
                        entries.truncate(keep);
                        let last = purged.index.0 + keep as u64;
                        members.retain(|id| id.index.0 <= last);
                        shape.truncate(Index(last)).unwrap();
                    }
                    1 | 2 => {
                        let drop = (amount as usize).min(entries.len());
                        if let Some(upto) = drop.checked_sub(1).map(|at| entries[at]) {
                            purged = upto;
                            entries.drain(..drop);
                            let old = members.iter().filter(|id| id.index <= upto.index).count();
                            members.drain(..old.saturating_sub(1));
                            shape.purge(upto).unwrap();
                        }
                    }
                    3 if flag => {
                        let last = entries.last().copied().unwrap_or(purged);
                        purged = LogId::new(last.term.0 + amount, last.index.0 + amount);
                        entries.clear();
                        members.clear();
                        shape.reset(purged).unwrap();
                    }
                    _ => {
                        let last = entries.last().copied().unwrap_or(purged);
                        let id = LogId::new(last.term.0 + u64::from(amount == 0), last.index.0 + 1);
                        entries.push(id);
                        if flag {
                            members.push(id);
                        }
                        shape.append(id, flag.then(Bytes::new)).unwrap();
                    }
                }
                let (last, runs) = outline(purged, &entries);
                prop_assert_eq!(shape.purged, purged);
                prop_assert_eq!(shape.last, last);
                prop_assert_eq!(&shape.runs, &runs);
                let kept: Vec<LogId> = shape.memberships.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!(&kept, &members);
                for id in &entries {
                    prop_assert_eq!(shape.term(id.index), Some(id.term));
                }
            }
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        let mut shape = Shape::default();
        for index in 1..=5 {
            shape.append(LogId::new(2, index), None).unwrap();
        }
        shape.purge(LogId::new(2, 3)).unwrap();
        assert!(shape.clone().append(LogId::new(2, 7), None).is_err(), "a gap");
        assert!(shape.clone().append(LogId::new(2, 5), None).is_err(), "an overlap");
        assert!(shape.clone().append(LogId::new(1, 6), None).is_err(), "a descending term");
        assert!(shape.clone().truncate(Index(2)).is_err(), "below what was purged");
        assert!(shape.clone().reset(LogId::new(2, 2)).is_err(), "below what was purged");
        assert!(shape.check_purge(LogId::new(2, 6)).is_err(), "after the end");
        assert!(shape.check_purge(LogId::new(3, 4)).is_err(), "of another term");
        assert_eq!(shape.check_purge(LogId::new(2, 3)), Ok(false));
        assert_eq!(shape.check_purge(LogId::new(2, 5)), Ok(true));
    }
}
