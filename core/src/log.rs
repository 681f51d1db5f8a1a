//! The log as the core sees it: runs of terms, memberships, and the commit mark. No payloads.
//!
//! All that Raft ever asks of an entry is its term, so a log of millions of entries is a short list of
//! [`Run`]s here. How far the log is durable is the business of [`disk`](crate::disk).

use crate::rules::Rules;
use crate::{AppendEntries, Carried, Index, LogId, Membership, Run, Term};
use alloc::vec::Vec;

/// A node's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    /// The newest entry that is no longer in the log because a snapshot covers it.
    purged: LogId,
    /// The terms of the entries after `purged`, up to `last`.
    runs: Vec<Run>,
    /// The newest entry's index; `purged.index` if the log is empty.
    last: Index,
    /// The newest index known to be committed.
    commit: Index,
    /// Every membership that can still matter, oldest first: the first is in force at `purged`.
    memberships: Vec<(LogId, Membership)>,
}

/// What became of an [`AppendEntries`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Accept {
    /// `prev` is not in the log. The newest entry that could match instead.
    Conflict(LogId),
    /// The message contradicts an entry that is committed: its sender is wrong about the world.
    Impossible,
    /// All entries are in the log now.
    Accepted {
        /// Set if entries after this index had to go first.
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
        commit: Index,
        memberships: Vec<(LogId, Membership)>,
    ) -> Log {
        let mut log = Log { purged, runs, last, commit, memberships };
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
    pub(crate) fn commit_to(&mut self, rules: Rules, index: Index) -> bool {
        let index = index.min(self.last);
        let rises = index > self.commit;
        self.commit = rules.commit_index(self.commit, index);
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

    /// The newest entry that is neither after `limit.index` nor of a greater term than `limit.term`.
    ///
    /// Both sides of a conflict skip with this: no entry after it can be common to the two logs, so each
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
        if self.purged.index <= limit.index && self.purged.term <= limit.term {
            return self.purged;
        }
        // Only what is purged could match, of which the log knows no more than that it was there.
        LogId { index: limit.index.min(self.purged.index.prev()), ..limit }
    }

    /// The membership in force: the newest in the log, committed or not (§6).
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

    /// The membership that was in force before the newest one, if the log still knows it.
    pub(crate) fn membership_before(&self) -> Option<&Membership> {
        let [.., (_, before), _] = self.memberships.as_slice() else { return None };
        Some(before)
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
    pub(crate) fn accept(&mut self, rules: Rules, message: &AppendEntries, carried: &Carried) -> Accept {
        // What is purged here is committed, hence in every leader's log: only what lies after it is compared.
        if message.prev.index >= self.purged.index {
            match self.term_at(message.prev.index) {
                own if rules.matches(message.prev, own) => {}
                _ if message.prev.index <= self.commit => return Accept::Impossible,
                _ => return Accept::Conflict(self.newest_within(message.prev)),
            }
        }
        let known = message.term_of(carried, self.purged.index);
        if known.is_some_and(|term| term != self.purged.term) {
            return Accept::Impossible;
        }
        let differs_at = self.divergence(message, carried);
        let Some(first_new) = rules.first_to_take(message, differs_at, self.commit, self.last) else {
            return Accept::Accepted { truncated: None, appended_from: None };
        };
        if first_new <= self.commit {
            return Accept::Impossible;
        }
        let truncated = rules.last_to_keep(first_new, self.last);
        if let Some(last) = truncated {
            self.truncate(rules, last);
        }
        self.append(&carried.runs, message.last, &carried.memberships);
        Accept::Accepted { truncated, appended_from: Some(first_new) }
    }

    /// The first index that the message carries and this log lacks, or has with another term.
    fn divergence(&self, message: &AppendEntries, carried: &Carried) -> Option<Index> {
        let mut index = message.prev.index.max(self.purged.index).next();
        for (at, run) in carried.runs.iter().enumerate() {
            let end = carried.runs.get(at + 1).map_or(message.last, |next| next.first.prev());
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

    /// Adds what `runs` says about the indexes after the end, up to `last`.
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

    /// Drops everything after `last`. Memberships that go leave the one before them in force.
    fn truncate(&mut self, rules: Rules, last: Index) {
        debug_assert!(last >= self.commit, "a committed entry is never truncated");
        self.last = last;
        self.runs.truncate(self.runs.partition_point(|run| run.first <= last));
        self.memberships.retain(|(id, _)| rules.keeps_membership(id.index, last));
    }

    /// Forgets the entries up to `upto`, for which a snapshot stands. The newest of them; none if that is no news.
    pub(crate) fn compact(&mut self, upto: Index) -> Option<LogId> {
        let upto = upto.min(self.commit);
        let id = self.id_at(upto).filter(|_| upto > self.purged.index)?;
        let next = (upto < self.last).then(|| self.term_at(upto.next())).flatten();
        self.purged = id;
        self.runs.drain(..self.runs.partition_point(|run| run.first <= upto.next()));
        if let Some(term) = next {
            self.runs.insert(0, Run { first: upto.next(), term });
        }
        let older = self.memberships.partition_point(|(at, _)| at.index <= upto);
        self.memberships.drain(..older.saturating_sub(1));
        Some(id)
    }

    /// Forgets everything: a snapshot stands for the log up to `snapshot`, where this membership was in force.
    pub(crate) fn reset(&mut self, snapshot: LogId, membership: (LogId, Membership)) {
        let memberships = alloc::vec![membership];
        *self = Log {
            purged: snapshot,
            runs: Vec::new(),
            last: snapshot.index,
            commit: snapshot.index,
            memberships,
        };
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
            (self.runs.last().is_none_or(|run| run.first <= self.last), "no run after the end"),
            (self.memberships.windows(2).all(|w| w[0].0 < w[1].0), "memberships ascend"),
            (self.membership_id().index <= self.last, "no membership after the end"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterId, Incarnation, Member, NodeId, Round};
    use alloc::string::String;
    use alloc::vec;
    use proptest::prelude::*;

    /// The terms of the entries from `purged + 1` on.
    fn log(purged: LogId, terms: &[u64]) -> Log {
        let last = Index(purged.index.0 + terms.len() as u64);
        Log::new(purged, runs(purged.index.0 + 1, terms), last, purged.index, vec![])
    }

    fn runs(first: u64, terms: &[u64]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (index, term) in (first..).zip(terms) {
            if runs.last().is_none_or(|run| run.term != Term(*term)) {
                runs.push(Run::new(index, *term));
            }
        }
        runs
    }

    fn append(prev: LogId, terms: &[u64]) -> (AppendEntries, Carried) {
        let carried = Carried { runs: runs(prev.index.0 + 1, terms), memberships: vec![] };
        let append = AppendEntries {
            term: Term(99),
            prev,
            last: Index(prev.index.0 + terms.len() as u64),
            commit: Index(0),
            round: Round(0),
            lease: 0,
            persisted: Index(0),
            disk_age: 0,
            time: 0,
            agreed: None,
        };
        (append, carried)
    }

    fn take(log: &mut Log, (append, carried): &(AppendEntries, Carried)) -> Accept {
        log.accept(Rules::default(), append, carried)
    }

    fn terms(log: &Log) -> Vec<u64> {
        (log.purged.index.0 + 1..=log.last.0)
            .map(|at| log.term_at(Index(at)).expect("in the log").0)
            .collect()
    }

    fn of_one(id: u64) -> Membership {
        let member = Member { id: NodeId(id), incarnation: Incarnation(id), address: String::new() };
        Membership::of_voters(ClusterId(1), [member])
    }

    #[test]
    fn term_at_knows_the_purged_entry_and_those_after_it_only() {
        let log = log(LogId::new(2, 5), &[2, 3, 3]);
        let found: Vec<_> = (4..=9).map(|at| log.term_at(Index(at)).map(|term| term.0)).collect();
        assert_eq!(found, [None, Some(2), Some(2), Some(3), Some(3), None]);
        assert_eq!(log.last_id(), LogId::new(3, 8));
        assert_eq!(self::log(LogId::new(2, 5), &[]).last_id(), LogId::new(2, 5), "an empty one ends there");
    }

    #[test]
    fn newest_within_is_never_after_its_limit_nor_of_a_greater_term() {
        let log = log(LogId::ZERO, &[1, 1, 3, 3, 5]);
        for (limit, newest) in [
            (LogId::new(9, 9), LogId::new(5, 5)),
            (LogId::new(5, 4), LogId::new(3, 4)),
            (LogId::new(4, 9), LogId::new(3, 4)),
            (LogId::new(2, 9), LogId::new(1, 2)),
            (LogId::new(2, 1), LogId::new(1, 1)),
            (LogId::new(0, 9), LogId::ZERO),
        ] {
            assert_eq!(log.newest_within(limit), newest, "{limit}");
        }
    }

    #[test]
    fn the_membership_in_force_goes_and_comes_with_its_entry() {
        let mut log = log(LogId::ZERO, &[1]);
        assert!(log.membership().is_empty());
        log.append_membership(Term(1), of_one(1));
        log.append_own(Term(1), 2);
        log.append_membership(Term(2), of_one(2));
        assert_eq!((log.membership(), log.membership_id()), (&of_one(2), LogId::new(2, 5)));
        assert!(log.committed_membership().1.is_empty(), "nothing is committed");
        log.commit_to(Rules::default(), Index(4));
        assert_eq!(log.committed_membership(), &(LogId::new(1, 2), of_one(1)));
        log.truncate(Rules::default(), Index(4));
        assert_eq!(log.membership_id(), LogId::new(1, 2));
        assert_eq!(log.check(), Ok(()));
    }

    #[test]
    fn a_restored_log_has_a_membership_before_its_first() {
        let id = LogId::new(1, 1);
        let mut log =
            Log::new(LogId::ZERO, vec![Run::new(1, 1)], Index(1), Index::ZERO, vec![(id, of_one(1))]);
        assert!(log.committed_membership().1.is_empty());
        log.truncate(Rules::default(), Index(0));
        assert_eq!(log.membership_id(), LogId::ZERO);
        // One that a snapshot covers needs none before it.
        let log = Log::new(LogId::new(1, 3), vec![], Index(3), Index(3), vec![(id, of_one(1))]);
        assert_eq!(log.committed_membership().0, id);
    }

    #[test]
    fn a_message_that_contradicts_what_is_committed_or_purged_is_impossible() {
        let mut log = log(LogId::new(2, 5), &[2, 3, 3]);
        log.commit_to(Rules::default(), Index(7));
        for (prev, terms) in [
            (LogId::new(2, 7), &[][..]),
            (LogId::new(3, 5), &[]),
            (LogId::new(2, 6), &[4]),
            (LogId::new(1, 4), &[1]),
            (LogId::new(1, 3), &[1, 3, 3]),
        ] {
            let before = log.clone();
            assert_eq!(take(&mut log, &append(prev, terms)), Accept::Impossible, "{prev} {terms:?}");
            assert_eq!(log, before);
        }
        assert_eq!(take(&mut log, &append(LogId::new(3, 9), &[])), Accept::Conflict(LogId::new(3, 8)));
    }

    fn ascending() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(0..3u64, 0..12).prop_map(|steps| {
            let mut term = 1;
            let add = |step: u64| {
                term += step.saturating_sub(1);
                term
            };
            steps.into_iter().map(add).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The runs against a plain list of terms, on which Figure 2's rules 2 to 4 are three lines.
        #[test]
        fn accept_does_what_figure_2_does_entry_by_entry(
            own in ascending(),
            theirs in ascending(),
            from in 0..12usize,
            to in 0..12usize,
        ) {
            let (from, to) = (from.min(to).min(theirs.len()), from.max(to).min(theirs.len()));
            let prev_term = |list: &[u64]| from.checked_sub(1).map_or(Some(0), |at| list.get(at).copied());
            let prev = LogId::new(prev_term(&theirs).unwrap(), from as u64);
            let mut log = log(LogId::ZERO, &own);
            let accepted = take(&mut log, &append(prev, &theirs[from..to]));
            prop_assert_eq!(log.check(), Ok(()));
            if prev_term(&own) != prev_term(&theirs) {
                prop_assert!(matches!(accepted, Accept::Conflict(limit) if limit.index <= prev.index));
                prop_assert_eq!(terms(&log), own);
                return Ok(());
            }
            let mut expected = own.clone();
            let mut first_new = None;
            for (at, term) in theirs.iter().enumerate().take(to).skip(from) {
                if expected.get(at) != Some(term) {
                    expected.truncate(at);
                    expected.push(*term);
                    first_new = first_new.or(Some(Index(at as u64 + 1)));
                }
            }
            let truncated = first_new.filter(|first| first.0 <= own.len() as u64).map(Index::prev);
            prop_assert_eq!(accepted, Accept::Accepted { truncated, appended_from: first_new });
            prop_assert_eq!(terms(&log), expected);
        }

        /// Whatever a leader and a follower hold, asking each other in turn finds where their logs part.
        #[test]
        fn both_sides_of_a_conflict_converge_on_the_common_prefix(own in ascending(), theirs in ascending()) {
            let (own, theirs) = (log(LogId::ZERO, &own), log(LogId::ZERO, &theirs));
            let mut prev = own.last_id();
            let mut rounds = 0;
            while theirs.term_at(prev.index) != Some(prev.term) {
                prev = own.newest_within(theirs.newest_within(prev));
                rounds += 1;
                prop_assert!(rounds <= own.runs.len() + theirs.runs.len() + 1);
            }
        }
    }
}
