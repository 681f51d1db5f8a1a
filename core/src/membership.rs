//! Who takes part, and who must agree.
//!
//! A membership lists the nodes, says which of them vote, and, while it is *joint*, which voted before
//! (§6). Everything that needs "a majority" asks here: in a joint membership that means a
//! majority of each of the two sets, and a learner never counts. Both sets name disks, not only nodes: were
//! they names alone, a new disk of node 2 would count in both majorities, and so for two nodes.

use crate::{ClusterId, Mark, Member, NodeId, Peer};
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
    /// Who voted before, and still must agree too, each as it was then: of a node that is being replaced, the
    /// old disk stands here and the new one in `members`. Empty unless the membership is joint.
    pub outgoing: BTreeMap<NodeId, Member>,
    /// The newest certificates of nodes, where those have any: of members, and of nodes that are none any more, so that
    /// theirs are nobody's.
    pub marks: BTreeMap<NodeId, Mark>,
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
        Membership { cluster, members, voters, ..Membership::default() }
    }

    /// Whether nobody votes: the state of a node before its cluster is bootstrapped.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether two sets of voters must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// What follows a joint membership: the new voters stand alone.
    pub fn after(&self) -> Membership {
        Membership { outgoing: BTreeMap::new(), ..self.clone() }
    }

    /// Whether this very incarnation is a member, voting or not.
    pub fn contains(&self, peer: Peer) -> bool {
        names(&self.members, peer) || names(&self.outgoing, peer)
    }

    /// Whether this very incarnation votes.
    pub fn is_voter(&self, peer: Peer) -> bool {
        let votes = self.voters.contains(&peer.id) && names(&self.members, peer);
        votes || names(&self.outgoing, peer)
    }

    /// Whoever takes part: the members, and those that voted before and are none any more.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        let before = self.outgoing.values().filter(|member| !names(&self.members, member.peer()));
        self.members.values().chain(before)
    }

    /// All but those named `id`.
    pub fn others(&self, id: NodeId) -> impl Iterator<Item = &Member> {
        self.all().filter(move |member| member.id != id)
    }

    /// The very incarnations that vote from now on.
    pub fn voting_peers(&self) -> impl Iterator<Item = Peer> {
        self.voters.iter().filter_map(|id| self.members.get(id)).map(Member::peer)
    }

    /// Whether the fields fit each other: voters are members, names are not zero, somebody votes. Whoever lets one in asks
    /// this: the core of what a message brings or a caller wants, the library of bytes from a disk or a wire.
    pub fn is_well_formed(&self) -> bool {
        let known = |id: &NodeId| self.members.get(id).is_some_and(|member| member.id == *id);
        !self.voters.is_empty()
            && self.voters.iter().all(known)
            && self.outgoing.iter().all(|(id, member)| id.0 != 0 && member.id == *id)
            && self.members.keys().all(|id| id.0 != 0 && known(id))
    }

    /// The largest value that a quorum has reached, given what each voter has reached.
    ///
    /// With match indexes this is the commit index (§5.3), with rounds the newest confirmed round,
    /// with moments of contact the last moment at which a quorum was known to follow.
    pub fn reached<T: Ord + Copy + Default>(&self, value_of: impl Fn(Peer) -> T) -> T {
        let new = reached_by_majority(self.voting_peers(), &value_of);
        let old = || reached_by_majority(self.outgoing.values().map(Member::peer), &value_of);
        if self.is_joint() { new.min(old()) } else { new }
    }

    /// Whether every voter has reached it, those of the outgoing set included.
    pub fn reached_by_all(&self, has: impl Fn(Peer) -> bool) -> bool {
        self.voting_peers().chain(self.outgoing.values().map(Member::peer)).all(has)
    }

    /// How an election stands, given each voter's answer.
    pub fn tally(&self, vote_of: impl Fn(Peer) -> Option<bool>) -> Tally {
        let new = tally_of(self.voting_peers(), &vote_of);
        let before = self.outgoing.values().map(Member::peer);
        let old = if self.is_joint() { tally_of(before, &vote_of) } else { Tally::Won };
        match (new, old) {
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            (Tally::Won, Tally::Won) => Tally::Won,
            _ => Tally::Open,
        }
    }
}

/// Whether `list` has this very incarnation.
fn names(list: &BTreeMap<NodeId, Member>, peer: Peer) -> bool {
    list.get(&peer.id).is_some_and(|member| member.incarnation == peer.incarnation)
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

fn reached_by_majority<T: Ord + Copy + Default>(
    voters: impl Iterator<Item = Peer>,
    value_of: &impl Fn(Peer) -> T,
) -> T {
    let mut values: Vec<T> = voters.map(value_of).collect();
    values.sort_unstable();
    let at = values.len().checked_sub(majority(values.len()));
    at.map_or(T::default(), |at| values[at])
}

fn tally_of(voters: impl Iterator<Item = Peer>, vote_of: &impl Fn(Peer) -> Option<bool>) -> Tally {
    let votes: Vec<Option<bool>> = voters.map(vote_of).collect();
    let count = |wanted| votes.iter().filter(|vote| **vote == Some(wanted)).count();
    if votes.is_empty() {
        Tally::Open
    } else if count(true) >= majority(votes.len()) {
        Tally::Won
    } else if count(false) > votes.len() - majority(votes.len()) {
        Tally::Lost
    } else {
        Tally::Open
    }
}
