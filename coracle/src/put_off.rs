//! What a machine is not handed at once, since nobody waits for it.
//!
//! A follower hears of each commit by itself, and to wake its machine for each costs more than to apply it. So entries wait for more
//! of them, until the next tick at the latest. Whatever is asked of the machine takes them along, in their order.

use crate::entry::Entry;
use crate::work::Work;

/// How many entries wait at most, and how many bytes of them.
const ENTRIES: usize = 64;
const BYTES: usize = 64 << 10;

/// Work that waits.
pub(crate) struct PutOff<W, R> {
    waiting: Vec<Work<W, R>>,
    bytes: usize,
}

impl<W, R> PutOff<W, R> {
    /// Of a machine that may have so many bytes before it: what waits must not be all of them.
    pub(crate) fn new(unapplied: u64) -> PutOff<W, R> {
        PutOff { waiting: Vec::new(), bytes: (unapplied / 2).min(BYTES as u64) as usize }
    }

    /// What is to be handed over now, this included. `due`: all of it, whatever it is.
    pub(crate) fn and(&mut self, work: Vec<Work<W, R>>, due: bool) -> Vec<Work<W, R>> {
        if self.waiting.is_empty() {
            self.waiting = work;
        } else {
            self.waiting.extend(work);
        }
        if due || self.is_much() { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }

    /// Whether it is more than a few entries, or something else.
    fn is_much(&self) -> bool {
        let (mut entries, mut bytes) = (0, 0);
        for work in &self.waiting {
            let Work::Apply(more) = work else { return true };
            entries += more.len();
            bytes += more.iter().map(Entry::len).sum::<usize>();
        }
        entries >= ENTRIES || bytes >= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Stamp};
    use crate::work::RequestId;
    use coracle_core::{Index, LogId};

    type Test = PutOff<RequestId, RequestId>;

    fn apply(indices: std::ops::Range<u64>, bytes: usize) -> Vec<Work<RequestId, RequestId>> {
        let payload = vec![0; bytes];
        let entry = |index| Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), &payload);
        vec![Work::Apply(indices.map(entry).collect())]
    }

    #[test]
    fn a_few_entries_wait_until_they_are_due_or_something_is_asked_after_them() {
        let mut put_off = Test::new(u64::MAX);
        assert!(put_off.and(apply(1..2, 10), false).is_empty());
        assert!(put_off.and(apply(2..3, 10), false).is_empty());
        assert_eq!(put_off.and(Vec::new(), true).len(), 2);
        assert!(put_off.and(Vec::new(), true).is_empty(), "nothing is handed over twice");
        assert!(put_off.and(apply(3..4, 10), false).is_empty());
        let work = put_off.and(vec![Work::Read(Index(3), RequestId(1))], false);
        assert!(matches!(&work[..], [Work::Apply(_), Work::Read(Index(3), _)]));
    }

    #[test]
    fn many_entries_and_large_ones_do_not_wait() {
        let mut put_off = Test::new(u64::MAX);
        assert!(put_off.and(apply(1..64, 10), false).is_empty());
        assert_eq!(put_off.and(apply(64..65, 10), false).len(), 2);
        assert_eq!(put_off.and(apply(65..66, BYTES), false).len(), 1);
        assert_eq!(put_off.and(apply(66..67, 10), true).len(), 1);
        let mut put_off = Test::new(2000);
        assert_eq!(put_off.and(apply(1..2, 1000), false).len(), 1, "nothing else could come in");
    }
}
