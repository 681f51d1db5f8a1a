//! The judge's own record of memberships, and what a quorum of each is.

use super::marks::{Floors, floors_of};
use super::{Ghost, Image, Verdict, broken};
use crate::entry::{Entry, Kind};
use crate::wire::decode_membership;
use coracle_core::{Index, LogId, Member, Membership, Peer, Term};
use std::collections::BTreeMap;

/// Every membership that was ever in a log, by its entry.
#[derive(Default)]
pub(super) struct Memberships {
    known: BTreeMap<LogId, Membership>,
    /// Which certificates are nobody's by each.
    floors: BTreeMap<LogId, Floors>,
    /// The bytes of the largest entry.
    pub(super) largest: u64,
}

impl Memberships {
    pub(super) fn get(&self, id: LogId) -> Option<&Membership> {
        self.known.get(&id)
    }

    pub(super) fn floors(&self, id: LogId) -> &Floors {
        const NONE: &Floors = &Floors::new();
        self.floors.get(&id).unwrap_or(NONE)
    }

    fn see(&mut self, entry: &Entry, before: Option<LogId>) -> Option<Membership> {
        let membership = decode_membership(&entry.payload()).ok()?;
        let before = before.and_then(|id| Some((self.known.get(&id)?, self.floors(id))));
        let floors = floors_of(before, &membership);
        // As its leader saw it, which was the first: others may take in several at once.
        self.floors.entry(entry.id()).or_insert(floors);
        self.largest = self.largest.max(entry.len() as u64);
        self.known.insert(entry.id(), membership.clone());
        Some(membership)
    }

    /// The newest in this log up to an index, and where it stands.
    pub(super) fn newest(&self, log: &Image, upto: Index) -> Option<(LogId, &Membership)> {
        let upto = log.entries.len().min(upto.0 as usize);
        let at = log.entries[..upto].iter().rposition(|entry| entry.membership)?;
        let id = LogId { term: log.entries[at].term, index: Index(at as u64 + 1) };
        Some((id, self.known.get(&id)?))
    }
}

/// Whether these are more than half of the voters, and of those of before while it is joint.
pub(in crate::sim) fn is_quorum(membership: &Membership, has: impl Fn(Peer) -> bool) -> bool {
    let before = || membership.outgoing.values().map(Member::peer);
    is_majority(membership.voting_peers(), &has)
        && (membership.outgoing.is_empty() || is_majority(before(), &has))
}

fn is_majority(voters: impl Iterator<Item = Peer>, has: impl Fn(Peer) -> bool) -> bool {
    let (all, those) = voters.fold((0, 0), |(all, those), peer| (all + 1, those + usize::from(has(peer))));
    2 * those > all
}

fn voters(membership: &Membership) -> Vec<Peer> {
    membership.voting_peers().collect()
}

impl Ghost {
    /// A node takes a membership into its log. A leader makes one only after it has committed an entry of its own term,
    /// one at a time, and goes from voters to other voters through a joint one (S14).
    pub(super) fn on_membership(&mut self, node: usize, office: Option<Term>, entry: &Entry) -> Verdict {
        if entry.kind() != Kind::Membership {
            return Ok(());
        }
        let (id, record) = (entry.id(), &self.nodes[node]);
        let before = self.memberships.newest(&record.log, id.index.prev());
        let before = before.map(|(at, membership)| (at, membership.clone()));
        let Some(next) = self.memberships.see(entry, before.as_ref().map(|(at, _)| *at)) else {
            return broken("S14", format!("{id} is no membership"));
        };
        let (Some((at, before)), true) = (before, office == Some(id.term)) else { return Ok(()) };
        let name = self.ids[node];
        let record = &self.nodes[node];
        if record.log.get(self.commits).is_none_or(|seen| seen.term != id.term) {
            let detail =
                format!("leader {name} changes the membership in {id} before it has committed in its term");
            return broken("S14", detail);
        }
        if at.index > self.commits {
            return broken(
                "S14",
                format!("leader {name} adds the membership {id}, and {at} is not committed"),
            );
        }
        // What cannot be committed cannot be taken back either.
        let answered = |peer: Peer| peer.id == name || record.answered.get(&peer) == Some(&id.term);
        if !before.is_joint() && !is_majority(next.voting_peers(), answered) {
            let detail = format!("leader {name} begins {id}, and no majority of its voters has answered it");
            return broken("S14", detail);
        }
        let steps = match (before.is_joint(), next.is_joint()) {
            (false, false) => voters(&before) == voters(&next),
            (false, true) => next.outgoing.values().map(Member::peer).eq(before.voting_peers()),
            (true, false) => voters(&before) == voters(&next),
            (true, true) => false,
        };
        if !steps {
            return broken("S14", format!("the membership {id} does not follow from {at}"));
        }
        if !before.is_joint() {
            self.judge_new_voters(node, at, &before, &next)?;
        }
        self.judge_marks(node, at, &before, &next)?;
        self.judge_addresses(&before, &next)
    }

    /// Whether the disks for which this is so are a quorum by the newest membership in the log of `node`, up to an index.
    pub(super) fn has_quorum(&self, node: usize, upto: Index, has: impl Fn(Peer) -> bool) -> bool {
        let newest = self.memberships.newest(&self.nodes[node].log, upto);
        newest.is_some_and(|(_, membership)| is_quorum(membership, has))
    }

    /// Whether these disks are a quorum by every membership that may be in force anywhere, or come into force again.
    pub(in crate::sim) fn go_on_with(&self, has: impl Fn(Peer) -> bool) -> bool {
        let Some(newest) = self.committed.iter().rposition(|seen| seen.membership) else { return false };
        let since = Index(newest as u64 + 1);
        let mut later = self.memberships.known.iter().filter(|(id, _)| id.index >= since);
        later.all(|(_, membership)| is_quorum(membership, &has))
    }

    /// What a change takes in a log that has room for its first entry: the two of a change.
    pub(in crate::sim) fn change_bytes(&self) -> u64 {
        2 * self.memberships.largest
    }

    /// S6: whether the entry is durable on a quorum: by what the log says by now, and if it is a membership itself, by that.
    pub(super) fn is_held(&self, node: usize, index: Index) -> bool {
        let entry = self.nodes[node].log.get(index);
        let has = |peer: Peer| self.record(peer).is_some_and(|record| record.held(index, entry));
        let own = entry.is_none_or(|seen| !seen.membership) || self.has_quorum(node, index, has);
        own && self.has_quorum(node, self.nodes[node].log.last(), has)
    }

    /// S14: whether a node may campaign and lead: it votes, or did before a membership that it does not know committed, or it
    /// is a learner without whose vote others may not be electable.
    pub(super) fn may_lead(&self, node: usize) -> bool {
        let record = &self.nodes[node];
        let votes = |membership: &Membership| membership.is_voter(self.peers[node]);
        let Some((at, newest)) = self.memberships.newest(&record.log, record.log.last()) else {
            return false;
        };
        let before = || self.memberships.newest(&record.log, at.index.prev());
        let needed = record.needed && newest.contains(self.peers[node]);
        let leaves = at.index > record.commit && before().is_some_and(|(_, before)| votes(before));
        votes(newest) || leaves || needed
    }
}
