//! What waits for the log's writer, and how it is merged: group commit.
//!
//! While one batch is being synced the next ones gather here, and then go to the disk together: one sync
//! for all of them. The order is that of the write ids, so the newest id of a merged batch stands for all
//! in it. A passive structure: a thread drives it in production, the simulator drives it there.

use super::{Change, WriteBatch};
use crate::entry::Entry;
use coracle_core::{Broken, WriteId};
use std::collections::VecDeque;

/// Bytes of entries in one merged batch at most; a single write may exceed it. Keeps the wait of the
/// first write of a batch for the last one's bytes short.
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

    /// Adds a write behind all others.
    pub fn push(&mut self, id: WriteId, batch: WriteBatch) {
        self.waiting.push_back((id, batch));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next batch to make durable, merged from as many writes as fit, and the newest id in it.
    pub fn take(&mut self) -> Option<(WriteId, WriteBatch)> {
        let (mut newest, mut merged) = self.waiting.pop_front()?;
        let mut bytes = merged.bytes();
        while let Some((_, next)) = self.waiting.front() {
            bytes += next.bytes();
            if bytes > self.max_bytes {
                break;
            }
            let (id, next) = self.waiting.pop_front().expect("just seen");
            newest = id;
            let older = merged.hard_state;
            merged.merge(next);
            if self.broken.is("merge-keeps-older-vote") {
                merged.hard_state = older.or(merged.hard_state);
            }
        }
        Some((newest, merged))
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
            hard_state: Some(HardState { term: Term(term), vote: None }),
            changes: vec![],
        };
        queue.push(WriteId(1), vote(1));
        queue.push(WriteId(2), append(1, 1..=3, 1));
        queue.push(WriteId(3), append(1, 4..=4, 1));
        queue.push(WriteId(4), vote(2));
        queue.push(WriteId(5), WriteBatch { hard_state: None, changes: vec![Change::Truncate(Index(2))] });
        queue.push(WriteId(6), append(2, 3..=3, 1));
        let (id, batch) = queue.take().unwrap();
        assert_eq!(id, WriteId(6));
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
        assert_eq!(queue.take().unwrap().0, WriteId(2));
        assert_eq!(queue.take().unwrap().0, WriteId(4));
    }
}
