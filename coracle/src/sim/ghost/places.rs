//! The judge's own record of disks that were wiped, and of where each was.

use super::{Ghost, Record, Verdict, broken};
use crate::place::Place;
use coracle_core::{Membership, Peer};

impl Ghost {
    /// The record of a disk, also of one that was wiped.
    pub(super) fn record(&self, peer: Peer) -> Option<&Record> {
        let at = self.peers.iter().position(|known| *known == peer);
        at.map(|at| &self.nodes[at]).or_else(|| self.wiped.get(&peer))
    }

    /// A node comes back on an empty disk.
    pub(in crate::sim) fn on_wiped(&mut self, node: usize, fresh: Peer) {
        let before = std::mem::replace(&mut self.peers[node], fresh);
        self.ids[node] = fresh.id;
        self.wiped.insert(before, std::mem::take(&mut self.nodes[node]));
    }

    /// From now on a node listens here.
    pub(in crate::sim) fn on_place(&mut self, peer: Peer, address: &str) {
        self.was_at.entry(peer).or_default().insert(address.to_owned());
    }

    fn was_at(&self, peer: Peer, address: &str) -> bool {
        self.was_at.get(&peer).is_some_and(|known| known.contains(address))
    }

    /// What a node keeps of where others were found is true, or was (S27).
    pub(in crate::sim) fn judge_places<'a>(
        &self,
        node: usize,
        found: impl Iterator<Item = &'a Place>,
    ) -> Verdict {
        for Place { peer, address, .. } in found {
            if !self.was_at(*peer, address) {
                let (id, of) = (self.ids[node], peer.id);
                return broken("S27", format!("node {id} says that it found node {of} at {address}"));
            }
        }
        Ok(())
    }

    /// An address that is new in a membership is one at which that member was (S27).
    pub(super) fn judge_addresses(&self, before: &Membership, next: &Membership) -> Verdict {
        for member in next.members.values() {
            let known = before.members.get(&member.id).is_some_and(|old| old == member);
            if !known && !self.was_at(member.peer(), &member.address) {
                let (id, at) = (member.id, &member.address);
                return broken("S27", format!("the membership says that node {id} is at {at}: it never was"));
            }
        }
        Ok(())
    }
}
