//! Which writes are under way, and how far the log is durable.
//!
//! The writer works in the order of the [`WriteId`]s and reports each as done, perhaps late. For each
//! write under way we keep the last index that it makes safe. A truncation lowers all of these at once, so
//! a late completion can never acknowledge an entry that was overwritten meanwhile, and no terms need
//! comparing.

use crate::rules::Rules;
use crate::{Index, Tick, WriteId};
use alloc::collections::VecDeque;

/// The disk as the core sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disk {
    /// The newest id handed out; zero before the first.
    newest: WriteId,
    /// The newest id that is done.
    done: WriteId,
    /// The newest write that carries the hard state.
    hard_state: WriteId,
    /// The writes under way, oldest first.
    under_way: VecDeque<UnderWay>,
    /// The newest index of the log that is durable.
    persisted: Index,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct UnderWay {
    id: WriteId,
    /// The last index that this write makes safe, lowered by every truncation since.
    safe: Index,
    since: Tick,
}

impl Disk {
    pub(crate) fn new(persisted: Index) -> Disk {
        Disk {
            newest: WriteId(0),
            done: WriteId(0),
            hard_state: WriteId(0),
            under_way: VecDeque::new(),
            persisted,
        }
    }

    pub(crate) fn persisted(&self) -> Index {
        self.persisted
    }

    pub(crate) fn newest(&self) -> WriteId {
        self.newest
    }

    pub(crate) fn done(&self) -> WriteId {
        self.done
    }

    pub(crate) fn writes_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Whether the current term and vote are durable.
    pub(crate) fn hard_state_is_durable(&self) -> bool {
        self.done >= self.hard_state
    }

    /// Names the next write.
    pub(crate) fn hand_out(&mut self) -> WriteId {
        self.newest = self.newest.next();
        self.newest
    }

    pub(crate) fn carries_hard_state(&mut self, id: WriteId) {
        self.hard_state = id;
    }

    /// The write named last leaves now; when it is done, everything up to `safe` is durable.
    pub(crate) fn start(&mut self, id: WriteId, safe: Index, now: Tick) {
        self.under_way.push_back(UnderWay { id, safe, since: now });
    }

    /// Entries after `last` are gone, or about to be.
    pub(crate) fn truncate(&mut self, rules: Rules, last: Index) {
        self.persisted = self.persisted.min(last);
        for write in &mut self.under_way {
            write.safe = rules.safe_after_truncation(write.safe, last);
        }
    }

    /// The log is durable up to a snapshot that it was reset to, and nothing that was written before says more.
    pub(crate) fn reset(&mut self, snapshot: Index) {
        self.persisted = snapshot;
        for write in &mut self.under_way {
            write.safe = snapshot;
        }
    }

    /// The write `id`, and so all before it, is done. False if that is no news.
    pub(crate) fn complete(&mut self, rules: Rules, id: WriteId) -> bool {
        if id <= self.done || id > self.newest {
            return false;
        }
        while let Some(write) = self.under_way.front()
            && rules.is_done(write.id, id)
        {
            self.persisted = self.persisted.max(write.safe);
            self.under_way.pop_front();
        }
        self.done = id;
        true
    }

    /// For how long the oldest unfinished write has been under way, in ticks.
    pub(crate) fn age(&self, now: Tick) -> u64 {
        self.under_way.front().map_or(0, |write| now.since(write.since))
    }

    pub(crate) fn check(&self, last: Index) -> Result<(), &'static str> {
        if self.persisted > last || self.under_way.iter().any(|write| write.safe > last) {
            return Err("nothing after the end of the log is or becomes durable");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write that makes everything up to `safe` durable.
    fn write(disk: &mut Disk, safe: u64) -> WriteId {
        let id = disk.hand_out();
        disk.start(id, Index(safe), Tick(id.0));
        id
    }

    #[test]
    fn completions_raise_the_mark_in_order_and_one_stands_for_all_before_it() {
        let mut disk = Disk::new(Index(3));
        let [first, second, third] = [4, 5, 6].map(|safe| write(&mut disk, safe));
        assert!(disk.complete(Rules::default(), first));
        assert_eq!((disk.persisted(), disk.writes_under_way()), (Index(4), 2));
        assert!(disk.complete(Rules::default(), third));
        assert_eq!((disk.persisted(), disk.writes_under_way()), (Index(6), 0));
        for old_news in [first, second, third, third.next(), WriteId(0)] {
            assert!(!disk.complete(Rules::default(), old_news));
        }
        assert_eq!(disk.persisted(), Index(6));
    }

    #[test]
    fn a_truncation_lowers_what_every_write_under_way_makes_safe() {
        let mut disk = Disk::new(Index(3));
        let [first, second] = [8, 9].map(|safe| write(&mut disk, safe));
        disk.truncate(Rules::default(), Index(5));
        let third = write(&mut disk, 7);
        disk.truncate(Rules::default(), Index(6));
        for (id, safe) in [(first, 5), (second, 5), (third, 6)] {
            assert!(disk.complete(Rules::default(), id));
            assert_eq!(disk.persisted(), Index(safe));
        }
        disk.truncate(Rules::default(), Index(2));
        assert_eq!(disk.persisted(), Index(2), "and the mark itself");
    }

    #[test]
    fn the_hard_state_is_durable_when_its_own_write_is_done() {
        let mut disk = Disk::new(Index(0));
        assert!(disk.hard_state_is_durable(), "what was restored is");
        let entries = write(&mut disk, 1);
        let vote = write(&mut disk, 1);
        disk.carries_hard_state(vote);
        disk.complete(Rules::default(), entries);
        assert!(!disk.hard_state_is_durable());
        disk.complete(Rules::default(), vote);
        assert!(disk.hard_state_is_durable());
    }

    #[test]
    fn the_age_is_that_of_the_oldest_write() {
        let mut disk = Disk::new(Index(0));
        assert_eq!(disk.age(Tick(100)), 0);
        let first = write(&mut disk, 1);
        write(&mut disk, 2);
        assert_eq!(disk.age(Tick(100)), 99);
        disk.complete(Rules::default(), first);
        assert_eq!(disk.age(Tick(100)), 98);
        assert_eq!(disk.age(Tick(0)), 0, "a clock that stands still ages nothing");
    }
}
