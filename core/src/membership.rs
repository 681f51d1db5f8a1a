//! Who takes part, and who must agree.
//!
//! A membership lists the nodes, says which of them vote, and, while it is *joint*, which voted before
//! (paper, section 6). Everything that needs "a majority" asks here: in a joint membership that means a
//! majority of each of the two sets, and a learner never counts.

use crate::{ClusterId, Member, NodeId, Peer};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The nodes of a cluster and their right to vote. Empty in a node that was never configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// Which cluster this is the membership of.
    pub cluster: ClusterId,
    /// All nodes by name. Those in neither set of voters are learners: they receive the log, no more.
    pub members: BTreeMap<NodeId, Member>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who voted before, and still must agree too. Empty unless the membership is joint.
    pub outgoing: BTreeSet<NodeId>,
}

/// How an election stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tally {
    /// A quorum said yes.
    Won,
    /// So many said no that no quorum can say yes any more.
    Lost,
    /// Neither yet.
    Open,
}

impl Membership {
    /// A membership in which all of `members` vote.
    pub fn of_voters(cluster: ClusterId, members: impl IntoIterator<Item = Member>) -> Membership {
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.id, member)).collect();
        let voters = members.keys().copied().collect();
        Membership { cluster, members, voters, outgoing: BTreeSet::new() }
    }

    /// Whether nobody votes: the state of a node before its cluster is bootstrapped.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether two sets of voters must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether this very incarnation is a member, voting or not.
    pub fn contains(&self, peer: Peer) -> bool {
        self.members.get(&peer.id).is_some_and(|member| member.incarnation == peer.incarnation)
    }

    /// Whether this very incarnation votes.
    pub fn is_voter(&self, peer: Peer) -> bool {
        self.contains(peer) && self.votes(peer.id)
    }

    fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// The members other than `id`, in the order of their names.
    pub fn others(&self, id: NodeId) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| member.id != id)
    }

    /// Whether the fields fit each other: voters are members, names are not zero, somebody votes.
    pub fn is_well_formed(&self) -> bool {
        let known = |id: &NodeId| self.members.get(id).is_some_and(|member| member.id == *id);
        !self.voters.is_empty()
            && self.voters.iter().all(known)
            && self.outgoing.iter().all(known)
            && self.members.keys().all(|id| id.0 != 0 && known(id))
    }

    /// The largest value that a quorum has reached, given what each voter has reached.
    ///
    /// With match indexes this is the commit index (section 5.3), with rounds the newest confirmed round,
    /// with moments of contact the last moment at which a quorum was known to follow.
    pub fn reached<T: Ord + Copy + Default>(&self, value_of: impl Fn(NodeId) -> T) -> T {
        let new = reached_by_majority(&self.voters, &value_of);
        if self.is_joint() { new.min(reached_by_majority(&self.outgoing, &value_of)) } else { new }
    }

    /// How an election stands, given each voter's answer.
    pub fn tally(&self, vote_of: impl Fn(NodeId) -> Option<bool>) -> Tally {
        let new = tally_of(&self.voters, &vote_of);
        let old = if self.is_joint() { tally_of(&self.outgoing, &vote_of) } else { Tally::Won };
        match (new, old) {
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            (Tally::Won, Tally::Won) => Tally::Won,
            _ => Tally::Open,
        }
    }
}

fn majority(voters: &BTreeSet<NodeId>) -> usize {
    voters.len() / 2 + 1
}

fn reached_by_majority<T: Ord + Copy + Default>(
    voters: &BTreeSet<NodeId>,
    value_of: &impl Fn(NodeId) -> T,
) -> T {
    if voters.is_empty() {
        return T::default();
    }
    let mut values: Vec<T> = voters.iter().map(|id| value_of(*id)).collect();
    values.sort_unstable();
    values[voters.len() - majority(voters)]
}

fn tally_of(voters: &BTreeSet<NodeId>, vote_of: &impl Fn(NodeId) -> Option<bool>) -> Tally {
    let count = |wanted| voters.iter().filter(|id| vote_of(**id) == Some(wanted)).count();
    if voters.is_empty() {
        Tally::Open
    } else if count(true) >= majority(voters) {
        Tally::Won
    } else if count(false) > voters.len() - majority(voters) {
        Tally::Lost
    } else {
        Tally::Open
    }
}
