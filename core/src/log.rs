//! The log as the core sees it: runs of terms, memberships, and the commit mark. No payloads.
//!
//! All that Raft ever asks of an entry is its term, so a log of millions of entries is a short list of
//! [`Run`]s here. How far the log is durable is the business of [`disk`](crate::disk).

use crate::{Append, Index, LogId, Membership, Run, Term};
use alloc::vec::Vec;

/// A node's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    /// The newest entry that is no longer in the log because a snapshot covers it.
    purged: LogId,
    /// The terms of the entries behind `purged`, up to `last`.
    runs: Vec<Run>,
    /// The newest entry's index; `purged.index` if the log is empty.
    last: Index,
    /// The newest index known to be committed.
    commit: Index,
    /// Every membership that can still matter, oldest first: the first is in force at `purged`.
    memberships: Vec<(LogId, Membership)>,
}

/// What became of an [`Append`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Accept {
    /// `prev` is not in the log. The newest entry that could match instead.
    Conflict(LogId),
    /// The message contradicts an entry that is committed: its sender is wrong about the world.
    Impossible,
    /// All entries are in the log now.
    Accepted {
        /// Set if entries behind this index had to go first.
        truncated: Option<Index>,
        /// The first of the entries that are new; none if all were there.
        appended_from: Option<Index>,
    },
}

impl Log {
    pub(crate) fn new(
        purged: LogId,
        runs: Vec<Run>,
        last: Index,
        memberships: Vec<(LogId, Membership)>,
    ) -> Log {
        let mut log = Log { purged, runs, last, commit: purged.index, memberships };
        // Before its first membership there was none, and there may be none again: that one may be truncated.
        if log.memberships.first().is_none_or(|(id, _)| id.index > purged.index) {
            log.memberships.insert(0, (LogId::ZERO, Membership::default()));
        }
        log
    }

    pub(crate) fn purged(&self) -> LogId {
        self.purged
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    pub(crate) fn last_id(&self) -> LogId {
        LogId { term: self.runs.last().map_or(self.purged.term, |run| run.term), index: self.last }
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    /// Raises the commit mark; it never goes back, and never passes the end of the log.
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        let index = index.min(self.last);
        let rises = index > self.commit;
        self.commit = self.commit.max(index);
        rises
    }

    /// The term of the entry at `index`, if the log still knows it.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.purged.index {
            return Some(self.purged.term);
        }
        if index < self.purged.index || index > self.last {
            return None;
        }
        let at = self.runs.partition_point(|run| run.first <= index);
        at.checked_sub(1).map(|at| self.runs[at].term)
    }

    /// The entry at `index`, if the log still knows it.
    pub(crate) fn id_at(&self, index: Index) -> Option<LogId> {
        self.term_at(index).map(|term| LogId { term, index })
    }

    /// The newest entry that is neither behind `limit.index` nor of a greater term than `limit.term`.
    ///
    /// Both sides of a conflict skip with this: no entry behind it can be common to the two logs, so each
    /// round trip rules out at least one whole term of one of them.
    pub(crate) fn newest_within(&self, limit: LogId) -> LogId {
        let mut index = self.last.min(limit.index);
        let mut runs = self.runs.as_slice();
        while let Some((run, older)) = runs.split_last() {
            if run.first <= index && run.term <= limit.term {
                return LogId { term: run.term, index };
            }
            index = index.min(run.first.prev());
            runs = older;
        }
        self.purged
    }

    /// The runs of the entries from `first` to `last`, the first one starting at `first`.
    pub(crate) fn runs_between(&self, first: Index, last: Index) -> Vec<Run> {
        let start = self.runs.partition_point(|run| run.first <= first).saturating_sub(1);
        let within = self.runs[start..].iter().take_while(|run| run.first <= last);
        within.map(|run| Run { first: run.first.max(first), term: run.term }).collect()
    }

    /// The memberships among the entries from `first` to `last`.
    pub(crate) fn memberships_between(&self, first: Index, last: Index) -> Vec<(Index, Membership)> {
        let within = self.memberships.iter().filter(|(id, _)| id.index >= first && id.index <= last);
        within.map(|(id, membership)| (id.index, membership.clone())).collect()
    }

    /// The membership in force: the newest in the log, committed or not (section 6).
    pub(crate) fn membership(&self) -> &Membership {
        &self.newest_membership().1
    }

    /// The entry that put it in force.
    pub(crate) fn membership_id(&self) -> LogId {
        self.newest_membership().0
    }

    fn newest_membership(&self) -> &(LogId, Membership) {
        self.memberships.last().expect("a log always knows one membership, be it the empty one")
    }

    /// The newest membership that is committed, with its entry.
    pub(crate) fn committed_membership(&self) -> &(LogId, Membership) {
        let committed = self.memberships.iter().rev().find(|(id, _)| id.index <= self.commit);
        committed.unwrap_or(&self.memberships[0])
    }

    /// Adds `count` entries of `term`, and returns the first.
    pub(crate) fn append_own(&mut self, term: Term, count: u64) -> LogId {
        let first = LogId { term, index: self.last.next() };
        self.append(&[Run { first: first.index, term }], Index(self.last.0 + count), &[]);
        first
    }

    /// Adds a membership as an entry of `term`.
    pub(crate) fn append_membership(&mut self, term: Term, membership: Membership) -> LogId {
        let id = self.append_own(term, 1);
        self.memberships.push((id, membership));
        id
    }

    /// Takes what is new in a leader's message (Figure 2, AppendEntries RPC, rules 2 to 4).
    pub(crate) fn accept(&mut self, message: &Append) -> Accept {
        // What is purged here is committed, hence in every leader's log: only what lies behind it is compared.
        if message.prev.index >= self.purged.index {
            match self.term_at(message.prev.index) {
                Some(term) if term == message.prev.term => {}
                _ if message.prev.index <= self.commit => return Accept::Impossible,
                _ => return Accept::Conflict(self.newest_within(message.prev)),
            }
        }
        let carried = message.term_of(self.purged.index);
        if carried.is_some_and(|term| term != self.purged.term) {
            return Accept::Impossible;
        }
        let Some(first_new) = self.divergence(message) else {
            return Accept::Accepted { truncated: None, appended_from: None };
        };
        if first_new <= self.commit {
            return Accept::Impossible;
        }
        // Only a real conflict of terms truncates: an old message must not undo a newer one.
        let truncated = (first_new <= self.last).then(|| first_new.prev());
        if let Some(last) = truncated {
            self.truncate(last);
        }
        self.append(&message.runs, message.last, &message.memberships);
        Accept::Accepted { truncated, appended_from: Some(first_new) }
    }

    /// The first index that the message carries and this log lacks, or has with another term.
    fn divergence(&self, message: &Append) -> Option<Index> {
        let mut index = message.prev.index.max(self.purged.index).next();
        for (at, run) in message.runs.iter().enumerate() {
            let end = message.runs.get(at + 1).map_or(message.last, |next| next.first.prev());
            while index <= end {
                if self.term_at(index) != Some(run.term) {
                    return Some(index);
                }
                // Skip to the end of the stretch that both logs have in this term.
                let own = self.runs.partition_point(|run| run.first <= index);
                let own_end = self.runs.get(own).map_or(self.last, |next| next.first.prev());
                index = own_end.min(end).next();
            }
        }
        None
    }

    /// Adds what `runs` says about the indexes behind the end, up to `last`.
    fn append(&mut self, runs: &[Run], last: Index, memberships: &[(Index, Membership)]) {
        let first = self.last.next();
        for (at, run) in runs.iter().enumerate() {
            let end = runs.get(at + 1).map_or(last, |next| next.first.prev());
            if end >= first && self.runs.last().is_none_or(|newest| newest.term != run.term) {
                self.runs.push(Run { first: run.first.max(first), term: run.term });
            }
            self.last = self.last.max(end);
        }
        for (index, membership) in memberships.iter().filter(|(index, _)| *index >= first) {
            let term = self.term_at(*index).expect("just appended");
            self.memberships.push((LogId { term, index: *index }, membership.clone()));
        }
    }

    /// Drops everything behind `last`. Memberships that go leave the one before them in force.
    fn truncate(&mut self, last: Index) {
        debug_assert!(last >= self.commit, "a committed entry is never truncated");
        self.last = last;
        self.runs.truncate(self.runs.partition_point(|run| run.first <= last));
        self.memberships.retain(|(id, _)| id.index <= last);
    }

    /// Says which of its own rules the log breaks, if any.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let ascending = self.runs.windows(2).all(|w| w[0].first < w[1].first && w[0].term < w[1].term);
        let rules = [
            (ascending, "runs ascend in index and term"),
            (self.purged.index <= self.commit, "what is purged is committed"),
            (self.commit <= self.last, "the commit mark lies within the log"),
            (
                self.runs.first().is_none_or(|run| run.first == self.purged.index.next()),
                "no gap at the start",
            ),
            (self.runs.is_empty() == (self.last == self.purged.index), "runs cover the log"),
            (self.runs.last().is_none_or(|run| run.first <= self.last), "no run behind the end"),
            (self.memberships.windows(2).all(|w| w[0].0 < w[1].0), "memberships ascend"),
            (self.membership_id().index <= self.last, "no membership behind the end"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}
