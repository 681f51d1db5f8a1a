//! Whether the replicas' machines are still alike (D5.1.14).
//!
//! At every index that is a multiple of [`CHECKED_EVERY`] each machine takes a digest of its state. Followers report
//! their newest in each answer, and the leader compares those of the same index with each other and its own. Only
//! digests of the same format and version of the machine say anything of each other. What a majority of the voters
//! agrees on is held for right; whoever differs from it is named, the leader itself not excepted. The leader's
//! heartbeats tell all what was agreed on, so each node finds out about itself.
//!
//! A report is a claim: the [`driver`](crate::driver) acts on it only where peers are authenticated. Elsewhere it
//! raises an alarm, and nothing else.

use coracle_core::{Digest, Index, Membership, NodeId, Peer};
use std::collections::{BTreeMap, VecDeque};

/// Digests are compared at the multiples of this index.
pub(crate) const CHECKED_EVERY: u64 = 1024;

/// The newest digests of one node that are kept, for those who come there later.
const KEPT: usize = 16;

/// What a comparison has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// This member's machine is another one, there, than that of a majority.
    Differs(NodeId, Index),
    /// No majority has the same machine there.
    NoMajority(Index),
}

/// What is known of all machines, at a leader.
#[derive(Default)]
pub(crate) struct Digests {
    /// By node, oldest first.
    reported: BTreeMap<Peer, VecDeque<Digest>>,
    /// Who turned out to differ, and where.
    diverged: BTreeMap<NodeId, Index>,
    /// The newest index at which no majority agreed, and that was told.
    split: Index,
    /// What majorities agreed on, where this node's machine has not come yet, oldest first; and the newest of all.
    awaited: VecDeque<Digest>,
    agreed: Option<Digest>,
}

impl Digests {
    /// The newest digest of this node.
    pub(crate) fn newest(&self, of: Peer) -> Option<Digest> {
        self.reported.get(&of)?.back().copied()
    }

    /// The newest that a majority of the machines is known to look like.
    pub(crate) fn agreed(&self) -> Option<Digest> {
        self.agreed
    }

    /// A majority agrees on this.
    pub(crate) fn agree(&mut self, right: Digest) {
        if self.agreed.is_none_or(|newest| newest.index < right.index) {
            self.agreed = Some(right);
            // Of too many the oldest stay: this node's machine comes to them first.
            self.awaited.truncate(KEPT - 1);
            self.awaited.push_back(right);
        }
    }

    /// Where the machine of `me` differs from what a majority agreed on, as far as that was not looked at before.
    pub(crate) fn compare_own(&mut self, me: Peer) -> Option<Index> {
        let own = self.reported.get(&me)?;
        let newest = own.back()?.index;
        let passed = self.awaited.partition_point(|right| right.index <= newest);
        let there = |index| own.iter().find(|digest| digest.index == index);
        let differs =
            |right: &Digest| there(right.index).is_some_and(|own| is_comparable(own, right) && own != right);
        self.awaited.drain(..passed).rfind(differs).map(|right| right.index)
    }

    /// The machine of this node was rebuilt: what was known of the one before says nothing of it.
    pub(crate) fn begin_anew(&mut self, me: Peer) {
        self.reported.remove(&me);
        self.diverged.remove(&me.id);
        self.awaited.clear();
    }

    /// This member's machine differs there. What is news in that.
    pub(crate) fn name(&mut self, id: NodeId, index: Index) -> Option<Finding> {
        self.diverged.insert(id, index).is_none().then_some(Finding::Differs(id, index))
    }

    /// Who turned out to differ from a majority, and where last.
    pub(crate) fn diverged(&self) -> &BTreeMap<NodeId, Index> {
        &self.diverged
    }

    /// A node says what its machine looks like. True if that is news: a machine that was started anew may look otherwise
    /// at the very index of its last word.
    pub(crate) fn report(&mut self, of: Peer, digest: Digest) -> bool {
        let kept = self.reported.entry(of).or_default();
        if kept.back().is_some_and(|newest| newest.index > digest.index || *newest == digest) {
            return false;
        }
        if kept.back().is_some_and(|newest| newest.index == digest.index) {
            kept.pop_back();
        }
        kept.push_back(digest);
        if kept.len() > KEPT {
            kept.pop_front();
        }
        true
    }

    /// Compares what was said of this index. What is news in that, and what a majority agrees on.
    pub(crate) fn compare(&mut self, members: &Membership, index: Index) -> (Vec<Finding>, Option<Digest>) {
        self.reported.retain(|peer, _| members.contains(*peer));
        let there = |kept: &VecDeque<Digest>| kept.iter().find(|digest| digest.index == index).copied();
        let said: BTreeMap<Peer, Digest> =
            self.reported.iter().filter_map(|(peer, kept)| Some((*peer, there(kept)?))).collect();
        let is_majority = |digest: &Digest| {
            members.reached(|peer| u8::from(said.get(&peer).is_some_and(|other| other == digest))) == 1
        };
        let Some(right) = said.values().find(|digest| is_majority(digest)).copied() else {
            let all = members.reached_by_all(|peer| said.contains_key(&peer));
            let comparable =
                said.values().collect::<Vec<_>>().windows(2).all(|two| is_comparable(two[0], two[1]));
            if all && comparable && index > self.split {
                self.split = index;
                return (vec![Finding::NoMajority(index)], None);
            }
            return (Vec::new(), None);
        };
        let mut found = Vec::new();
        for (peer, digest) in said.into_iter().filter(|(_, digest)| is_comparable(digest, &right)) {
            if digest == right {
                self.diverged.remove(&peer.id);
            } else {
                found.extend(self.name(peer.id, index));
            }
        }
        (found, Some(right))
    }
}

/// Whether they say anything of each other.
fn is_comparable(one: &Digest, other: &Digest) -> bool {
    (one.format, one.version) == (other.format, other.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::{ClusterId, Incarnation, Member};

    fn peer(id: u64) -> Peer {
        Peer { id: NodeId(id), incarnation: Incarnation(10 + id) }
    }

    fn members(count: u64) -> Membership {
        let member = |id| {
            let Peer { id, incarnation } = peer(id);
            Member { id, incarnation, address: String::new() }
        };
        Membership::of_voters(ClusterId(1), (1..=count).map(member))
    }

    fn digest(index: u64, state: u8) -> Digest {
        Digest { index: Index(index), format: 1, version: 1, bytes: [state; 16] }
    }

    /// What is found when these nodes say this of one index, in this order.
    fn found(count: u64, said: &[(u64, Digest)]) -> Vec<Finding> {
        let mut digests = Digests::default();
        let mut found = Vec::new();
        for (id, digest) in said {
            assert!(digests.report(peer(*id), *digest));
            found.extend(digests.compare(&members(count), digest.index).0);
        }
        found
    }

    #[test]
    fn whoever_differs_from_a_majority_is_named_whoever_leads_and_in_whatever_order() {
        for [a, b, c] in [[1, 2, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            for wrong in 1..=3 {
                let state = |id| digest(1024, u8::from(id == wrong));
                let found = found(3, &[(a, state(a)), (b, state(b)), (c, state(c))]);
                assert_eq!(found, [Finding::Differs(NodeId(wrong), Index(1024))]);
            }
        }
    }

    /// Whoever was started anew is heard at the index of its last word, too: without it there may be no majority there.
    #[test]
    fn a_machine_that_was_started_anew_is_heard_again_at_the_same_index() {
        let mut digests = Digests::default();
        let said = [(1, 1), (2, 2), (3, 3), (4, 1), (2, 1)];
        let told = said.map(|(id, state)| {
            assert!(digests.report(peer(id), digest(1024, state)), "node {id} says something new");
            digests.compare(&members(5), Index(1024))
        });
        assert!(told[..4].iter().all(|(found, right)| found.is_empty() && right.is_none()));
        assert_eq!(told[4], (vec![Finding::Differs(NodeId(3), Index(1024))], Some(digest(1024, 1))));
        assert!(!digests.report(peer(2), digest(1024, 1)), "the same again is no news");
    }

    #[test]
    fn without_a_majority_nobody_is_named() {
        let all = [(1, digest(1024, 1)), (2, digest(1024, 2)), (3, digest(1024, 3))];
        assert_eq!(found(3, &all), [Finding::NoMajority(Index(1024))]);
        assert_eq!(found(3, &all[..2]), [], "the third may agree with either");
        assert_eq!(found(2, &all[..2]), [Finding::NoMajority(Index(1024))]);
        assert_eq!(found(5, &all), [], "two are still to come");
    }

    #[test]
    fn only_the_same_index_format_and_version_are_compared() {
        let other = |change: fn(&mut Digest)| {
            let (two, mut third) = (digest(1024, 1), digest(1024, 2));
            change(&mut third);
            found(3, &[(1, two), (2, two), (3, third)])
        };
        assert_eq!(other(|_| ()), [Finding::Differs(NodeId(3), Index(1024))]);
        assert_eq!(other(|digest| digest.index = Index(2048)), []);
        assert_eq!(other(|digest| digest.format = 2), []);
        assert_eq!(other(|digest| digest.version = 2), []);
    }

    #[test]
    fn it_is_told_once_and_forgotten_when_it_is_right_again_or_gone() {
        let mut digests = Digests::default();
        let members = members(3);
        let mut all = |index, states: [u8; 3]| {
            let mut found = Vec::new();
            for (id, state) in (1..).zip(states) {
                digests.report(peer(id), digest(index, state));
                found.extend(digests.compare(&members, Index(index)).0);
            }
            (found.len(), digests.diverged().len())
        };
        assert_eq!(all(1024, [1, 1, 2]), (1, 1));
        assert_eq!(all(2048, [1, 1, 2]), (0, 1), "the same again");
        assert_eq!(all(3072, [1, 1, 1]), (0, 0), "a state that was mended");
        assert_eq!(all(4096, [2, 1, 1]), (1, 1));
    }

    #[test]
    fn of_what_was_agreed_on_the_oldest_wait_for_the_own_machine() {
        let mut digests = Digests::default();
        for index in 1..100 {
            digests.agree(digest(index, 1));
        }
        assert_eq!(digests.agreed(), Some(digest(99, 1)));
        assert_eq!(digests.awaited.len(), KEPT);
        digests.report(peer(1), digest(3, 2));
        assert_eq!(digests.compare_own(peer(1)), Some(Index(3)));
        assert_eq!(digests.compare_own(peer(1)), None, "that was looked at");
        digests.report(peer(1), digest(99, 2));
        assert_eq!(digests.compare_own(peer(1)), Some(Index(99)), "the newest is among those kept");
    }

    #[test]
    fn old_reports_and_strangers_count_for_nothing_and_little_is_kept() {
        let mut digests = Digests::default();
        for index in 1..100 {
            assert!(digests.report(peer(1), digest(index, 1)));
        }
        assert!(!digests.report(peer(1), digest(98, 2)), "an older one");
        assert_eq!(digests.reported[&peer(1)].len(), KEPT);
        digests.report(peer(9), digest(99, 1));
        digests.compare(&members(3), Index(99));
        assert!(!digests.reported.contains_key(&peer(9)));
    }
}
