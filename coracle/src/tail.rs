//! The newest entries of the log, in memory.
//!
//! It is equal to the end of the core's log at all times. Whatever is not durable yet is read here and
//! nowhere else, so nothing is ever read from disk that may still change; what is durable may be evicted
//! from the old end, and is then read from the store.

use crate::entry::Entry;
use crate::rulings::{InLog, ruling_in};
use coracle_core::Index;
use std::collections::VecDeque;

/// The entries from [`first`](Tail::first) to the end of the log.
#[derive(Debug)]
pub(crate) struct Tail {
    first: Index,
    entries: VecDeque<Slot>,
    /// The bytes of all entries that ever passed through: the measure that slots are stamped with.
    bytes: u64,
    /// The rulings in the whole log, in what is evicted too: a machine must know of them before it comes to the entries that
    /// they are about, and that may be before they are written (D5.5.5).
    rulings: InLog,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// [`Tail::bytes`] just before this entry came.
    before: u64,
}

impl Tail {
    /// An empty tail after a log that ends at `last`.
    pub(crate) fn new(last: Index) -> Tail {
        Tail { first: last.next(), entries: VecDeque::new(), bytes: 0, rulings: InLog::new() }
    }

    /// The oldest index held; one after the end if none is.
    pub(crate) fn first(&self) -> Index {
        self.first
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.first.0 + self.entries.len() as u64 - 1)
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index(), self.last().next(), "the tail has no gaps");
        let before = self.bytes;
        self.bytes += entry.len() as u64;
        self.rulings.extend(ruling_in(&entry));
        self.entries.push_back(Slot { entry, before });
    }

    /// Forgets everything after `last`.
    pub(crate) fn truncate(&mut self, last: Index) {
        self.rulings.split_off(&last.next());
        if last < self.first.prev() {
            self.entries.clear();
            self.first = last.next();
        } else {
            let keep = (last.0 + 1 - self.first.0) as usize;
            if let Some(slot) = self.entries.get(keep) {
                self.bytes = slot.before;
            }
            self.entries.truncate(keep);
        }
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.first.0)?;
        self.entries.get(at as usize).map(|slot| &slot.entry)
    }

    /// The entries from `first` to `last` as far as `max_bytes` allow, at least one. None if `first` is not
    /// held.
    pub(crate) fn range(&self, first: Index, last: Index, max_bytes: u64) -> Option<Vec<Entry>> {
        self.get(first)?;
        let start = (first.0 - self.first.0) as usize;
        let count = (last.0.saturating_sub(first.0) + 1) as usize;
        let mut bytes = 0;
        let within = self.entries.iter().skip(start).take(count).enumerate().take_while(|(at, slot)| {
            bytes += slot.entry.len() as u64;
            *at == 0 || bytes <= max_bytes
        });
        Some(within.map(|(_, slot)| slot.entry.clone()).collect())
    }

    pub(crate) fn rulings(&self) -> &InLog {
        &self.rulings
    }

    /// The log that was found at the start holds these.
    pub(crate) fn knowing_rulings(&mut self, rulings: InLog) {
        self.rulings = rulings;
    }

    /// What is purged up to there is in a snapshot.
    pub(crate) fn forget_rulings(&mut self, upto: Index) {
        self.rulings = self.rulings.split_off(&upto.next());
    }

    /// The bytes of the entries after `index`, as far as they are held.
    pub(crate) fn bytes_after(&self, index: Index) -> u64 {
        let at = (index.0 + 1).saturating_sub(self.first.0) as usize;
        self.entries.get(at).map_or(0, |slot| self.bytes - slot.before)
    }

    /// Forgets the oldest entries, none after `upto`, until at most `max_bytes` are held.
    pub(crate) fn evict(&mut self, upto: Index, max_bytes: u64) {
        while let Some(slot) = self.entries.front()
            && self.first <= upto
            && self.bytes - slot.before > max_bytes
        {
            self.entries.pop_front();
            self.first = self.first.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Stamp};
    use crate::rulings::{Ruling, Verdict};
    use coracle_core::LogId;

    fn tail(from: u64, to: u64) -> Tail {
        let mut tail = Tail::new(Index(from - 1));
        for index in from..=to {
            tail.push(entry(1, index));
        }
        tail
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry::new(LogId::new(term, index), Kind::Command, Stamp::default(), &[0; 36])
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.index().0).collect())
    }

    #[test]
    fn a_range_takes_what_fits_and_at_least_one() {
        let tail = tail(5, 9);
        assert_eq!(indexes(tail.range(Index(5), Index(9), 300)), Some(vec![5, 6, 7]));
        assert_eq!(indexes(tail.range(Index(8), Index(20), 1 << 20)), Some(vec![8, 9]));
        assert_eq!(indexes(tail.range(Index(6), Index(6), 1)), Some(vec![6]));
        assert_eq!(indexes(tail.range(Index(4), Index(9), 1)), None);
        assert_eq!(indexes(tail.range(Index(10), Index(10), 1)), None);
    }

    /// LG-10: what was truncated is not found again, whatever takes its place.
    #[test]
    fn lg_10_truncation_forgets_the_entries_and_their_bytes() {
        let mut tail = tail(5, 9);
        assert_eq!(tail.bytes_after(Index(4)), 500);
        assert_eq!(tail.bytes_after(Index(7)), 200);
        tail.truncate(Index(6));
        assert_eq!((tail.last(), tail.bytes_after(Index(4))), (Index(6), 200));
        tail.push(entry(2, 7));
        assert_eq!(tail.get(Index(7)).map(|entry| entry.term().0), Some(2));
        tail.truncate(Index(2));
        assert_eq!((tail.first(), tail.last(), tail.bytes_after(Index(2))), (Index(3), Index(2), 0));
        tail.push(entry(3, 3));
        assert_eq!(tail.bytes_after(Index(2)), 100);
    }

    /// D5.5.5: a ruling is known as soon as its entry is in the log, and for as long as it is there, in memory or not.
    #[test]
    fn rulings_come_and_go_with_the_log_and_not_with_what_is_held_of_it() {
        let ruling = Ruling { entry: LogId::new(1, 5), verdict: Verdict::Skip };
        let at = |index| Entry::new(LogId::new(1, index), Kind::Ruling, Stamp::default(), &ruling.encode());
        let mut tail = tail(5, 7);
        tail.push(at(8));
        tail.push(at(9));
        assert_eq!(tail.rulings().clone(), [(Index(8), ruling), (Index(9), ruling)].into());
        tail.evict(Index(9), 0);
        tail.truncate(Index(8));
        assert_eq!(tail.rulings().clone(), [(Index(8), ruling)].into());
        tail.forget_rulings(Index(8));
        assert!(tail.rulings().is_empty());
    }

    #[test]
    fn eviction_spares_what_is_not_durable() {
        let mut tail = tail(5, 9);
        tail.evict(Index(6), 0);
        assert_eq!(tail.first(), Index(7));
        tail.evict(Index(9), 150);
        assert_eq!((tail.first(), tail.last()), (Index(9), Index(9)));
    }
}
