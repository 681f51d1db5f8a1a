//! What waits for the log's writer, and how it is merged: group commit.
//!
//! While one batch is being synced the next ones gather here, and then go to the disk together: one sync
//! for all of them. The order is that of the write ids, so the newest id of a merged batch stands for all
//! in it. A write that is too large for one goes in parts, between entries; its id comes with the last. A passive
//! structure: a thread drives it in production, the simulator drives it there.

use super::{Change, WriteBatch};
use crate::entry::Entry;
use coracle_core::{Broken, WriteId};
use std::collections::VecDeque;

/// Bytes of entries in one batch at most; a single entry may exceed it. Keeps the wait of the first write of a batch
/// for the last one's bytes short, and the batch far below what a store takes, whatever one turn has brought.
pub const MAX_BATCH_BYTES: usize = 4 << 20;

/// Writes in order, oldest first.
#[derive(Debug)]
pub struct WriteQueue {
    waiting: VecDeque<(WriteId, WriteBatch)>,
    /// Bytes of entries in one merged batch at most.
    max_bytes: usize,
    broken: Broken,
}

impl Default for WriteQueue {
    fn default() -> WriteQueue {
        WriteQueue { waiting: VecDeque::new(), max_bytes: MAX_BATCH_BYTES, broken: Broken::default() }
    }
}

impl WriteQueue {
    /// An empty queue of code that breaks a rule.
    pub(crate) fn new(broken: Broken) -> WriteQueue {
        WriteQueue { broken, ..WriteQueue::default() }
    }

    /// The queue, with another bound than [`MAX_BATCH_BYTES`].
    #[cfg(feature = "sim")]
    pub(crate) fn bounded(self, max_bytes: usize) -> WriteQueue {
        WriteQueue { max_bytes, ..self }
    }

    /// Adds a write after all others.
    pub fn push(&mut self, id: WriteId, batch: WriteBatch) {
        self.waiting.push_back((id, batch));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next batch to make durable: merged from as many writes as fit, or the next part of a large one. With it
    /// the newest id that is durable then; a part that is not the last has none.
    pub fn take(&mut self) -> Option<(Option<WriteId>, WriteBatch)> {
        let (mut newest, mut merged) = self.waiting.pop_front()?;
        let mut bytes = merged.bytes();
        if bytes > self.max_bytes {
            let part = merged.take_part(self.max_bytes);
            if merged == WriteBatch::default() {
                return Some((Some(newest), part));
            }
            self.waiting.push_front((newest, merged));
            return Some((None, part));
        }
        while let Some((_, next)) = self.waiting.front() {
            bytes += next.bytes();
            if bytes > self.max_bytes {
                break;
            }
            let (id, mut next) = self.waiting.pop_front().expect("just seen");
            newest = id;
            let older = merged.hard_state;
            if self.broken.is("merge-drops-truncation") && !merged.changes.is_empty() {
                next.changes.retain(|change| !matches!(change, Change::Truncate(_)));
            }
            merged.merge(next);
            if self.broken.is("merge-keeps-older-vote") {
                merged.hard_state = older.or(merged.hard_state);
            }
        }
        Some((Some(newest), merged))
    }
}

impl WriteBatch {
    /// The bytes of its entries.
    fn bytes(&self) -> usize {
        let of = |change: &Change| match change {
            Change::Append(entries) => entries.iter().map(Entry::len).sum(),
            Change::Reset(_) | Change::Truncate(_) => 0,
        };
        self.changes.iter().map(of).sum()
    }

    /// Takes out what comes first: the hard state, and the changes up to so many bytes of entries, at least one entry.
    /// In whatever order the changes came, each part leaves a log that is a beginning of the next.
    fn take_part(&mut self, max: usize) -> WriteBatch {
        let mut part = WriteBatch { hard_state: self.hard_state.take(), changes: Vec::new() };
        let mut changes = std::mem::take(&mut self.changes).into_iter();
        let (mut bytes, mut any) = (0, false);
        for change in changes.by_ref() {
            let Change::Append(mut entries) = change else {
                part.changes.push(change);
                continue;
            };
            let fits = |entry: &&Entry| {
                bytes += entry.len();
                bytes <= max
            };
            let fit = entries.iter().take_while(fits).count();
            let fit = if any { fit } else { fit.max(1) };
            let rest = entries.split_off(fit.min(entries.len()));
            any |= !entries.is_empty();
            if !entries.is_empty() {
                part.changes.push(Change::Append(entries));
            }
            if !rest.is_empty() {
                self.changes.push(Change::Append(rest));
                break;
            }
        }
        self.changes.extend(changes);
        part
    }

    /// Adds what comes after it.
    fn merge(&mut self, next: WriteBatch) {
        self.hard_state = next.hard_state.or(self.hard_state);
        for change in next.changes {
            match (self.changes.last_mut(), change) {
                (Some(Change::Append(entries)), Change::Append(more)) => entries.extend(more),
                (_, change) => self.changes.push(change),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Stamp};
    use coracle_core::{HardState, Index, LogId, Term};

    fn append(term: u64, indexes: std::ops::RangeInclusive<u64>, payload: usize) -> WriteBatch {
        let entry = |i| Entry::new(LogId::new(term, i), Kind::Command, Stamp::default(), &vec![0; payload]);
        WriteBatch { hard_state: None, changes: vec![Change::Append(indexes.map(entry).collect())] }
    }

    #[test]
    fn writes_merge_in_order_and_the_newest_id_stands_for_all() {
        let mut queue = WriteQueue::default();
        let vote = |term| WriteBatch {
            hard_state: Some(HardState { term: Term(term), vote: None, promised: 0 }),
            changes: vec![],
        };
        queue.push(WriteId(1), vote(1));
        queue.push(WriteId(2), append(1, 1..=3, 1));
        queue.push(WriteId(3), append(1, 4..=4, 1));
        queue.push(WriteId(4), vote(2));
        queue.push(WriteId(5), WriteBatch { hard_state: None, changes: vec![Change::Truncate(Index(2))] });
        queue.push(WriteId(6), append(2, 3..=3, 1));
        let (id, batch) = queue.take().unwrap();
        assert_eq!(id, Some(WriteId(6)));
        assert_eq!(batch.hard_state.unwrap().term, Term(2));
        let [Change::Append(old), Change::Truncate(Index(2)), Change::Append(new)] = &batch.changes[..]
        else {
            panic!("{batch:?}");
        };
        assert_eq!(old.len(), 4);
        assert_eq!(new[0].id(), LogId::new(2, 3));
        assert!(queue.is_empty() && queue.take().is_none());
    }

    #[test]
    fn a_merged_batch_is_bounded() {
        let mut queue = WriteQueue::default();
        for index in 1..=4 {
            queue.push(WriteId(index), append(1, index..=index, MAX_BATCH_BYTES / 2 - 100));
        }
        assert_eq!(queue.take().unwrap().0, Some(WriteId(2)));
        assert_eq!(queue.take().unwrap().0, Some(WriteId(4)));
    }

    /// D5.1.12: the hard state and the truncation go with the first part, the id comes with the last.
    #[test]
    fn a_large_write_goes_in_parts_and_completes_with_the_last() {
        let mut queue = WriteQueue::default();
        let mut large = append(2, 3..=12, MAX_BATCH_BYTES / 2 - 100);
        large.changes.insert(0, Change::Truncate(Index(2)));
        large.hard_state = Some(HardState { term: Term(2), vote: None, promised: 0 });
        queue.push(WriteId(1), large);
        queue.push(WriteId(2), append(2, 13..=13, MAX_BATCH_BYTES * 2));
        queue.push(WriteId(3), append(2, 14..=14, 1));
        let mut parts = Vec::new();
        while let Some(part) = queue.take() {
            parts.push(part);
        }
        let ids: Vec<Option<WriteId>> = parts.iter().map(|(id, _)| *id).collect();
        let last = [Some(WriteId(1)), Some(WriteId(2)), Some(WriteId(3))];
        assert_eq!(ids, [&[None; 4][..], &last].concat());
        assert!(parts[0].1.hard_state.is_some() && parts[1..].iter().all(|(_, p)| p.hard_state.is_none()));
        assert_eq!(parts[0].1.changes[0], Change::Truncate(Index(2)));
        assert!(parts.iter().all(|(id, part)| *id == Some(WriteId(2)) || part.bytes() <= MAX_BATCH_BYTES));
        let entries =
            parts.into_iter().flat_map(|(_, part)| part.changes).filter_map(|change| match change {
                Change::Append(entries) => Some(entries),
                _ => None,
            });
        let indexes: Vec<u64> = entries.flatten().map(|entry| entry.index().0).collect();
        assert_eq!(indexes, (3..=14).collect::<Vec<_>>());
    }

    /// Thirty-six concurrent commands of 30 MiB in one turn once were one write of more than 1 GiB, which was fatal.
    #[test]
    fn a_write_beyond_what_a_store_takes_is_no_write_to_the_store() {
        let mut queue = WriteQueue::default();
        queue.push(WriteId(1), append(1, 1..=36, 30 << 20));
        let mut count = 0;
        while let Some((id, part)) = queue.take() {
            count += 1;
            assert!(part.bytes() <= (30 << 20) + 64);
            assert_eq!(id.is_some(), count == 36);
        }
        assert_eq!(count, 36);
    }
}
