//! Nodes that lose their disks, and come back blank: under their old names, on another disk, which is a stranger until
//! somebody has added it (D5.3.2). Only where a quorum of every membership that may be in force keeps its disks: what is
//! acknowledged has to be somewhere.

use super::{Happening, World};
use crate::sim::dice::Dice;
use crate::sim::ghost::Verdict;
use crate::sim::host::{Host, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use coracle_core::{Index, NodeId, Peer};

impl World {
    /// Whether this disk is whole, and is one that a node has now.
    pub(super) fn is_sound(&self, peer: Peer) -> bool {
        self.hosts.iter().any(|host| host.me == peer && !host.is_spoilt() && !host.dead)
    }

    /// Whether the cluster could go on, whatever membership comes into force, if this node lost its disk.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let lost = self.hosts[node].me;
        self.ghost.committed() > Index::ZERO
            && self.ghost.go_on_with(|peer| peer != lost && self.is_sound(peer))
    }

    /// Whether some node's newest membership is not committed, or joint.
    pub(super) fn is_changing(&self) -> bool {
        let changing = |up: &Running| {
            let raft = up.raft();
            raft.membership().is_joint() || raft.membership_id().index > self.ghost.committed()
        };
        self.hosts.iter().filter_map(|host| host.up.as_ref()).any(changing)
    }

    /// A node loses its disk: rather one whose disk is spoilt already.
    pub(in crate::sim) fn wipe(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        match self.may_be_wiped(node, dice) {
            Some(node) => self.wipe_now(node, dice),
            None => Ok(()),
        }
    }

    /// A node that may lose its disk: rather one whose disk is spoilt already than this one.
    pub(super) fn may_be_wiped(&self, node: usize, dice: &mut Dice) -> Option<usize> {
        let spoilt = |host: &Host| host.damaged || host.dead;
        let node = self.hosts.iter().position(spoilt).filter(|_| dice.chance(700)).unwrap_or(node);
        (spoilt(&self.hosts[node]) || self.may_lose(node)).then_some(node)
    }

    /// A node's disk is replaced by an empty one.
    pub(super) fn wipe_now(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        self.wipe_as(node, None, dice)
    }

    /// So it is, and the node may be another one from then on.
    pub(super) fn wipe_as(&mut self, node: usize, name: Option<NodeId>, dice: &mut Dice) -> Verdict {
        self.crash(node, dice)?;
        let before = self.hosts[node].me;
        let votes = |up: &Running| up.raft().membership().is_voter(before);
        let voted = self.hosts.iter().filter_map(|host| host.up.as_ref()).any(votes);
        self.met.count(Rare::Wiped);
        self.met.count_if(voted, Rare::WipedVoter);
        let changing = self.is_changing();
        self.met.count_if(changing, Rare::WipedChanging);
        let mark = self.hosts[node].mark;
        self.hosts[node].wipe();
        self.hosts[node].mark = mark;
        if let Some(name) = name {
            self.hosts[node].me.id = name;
            self.network.names.give(name, node);
            self.issue(node);
        }
        let fresh = self.hosts[node].me;
        self.ghost.on_wiped(node, fresh);
        self.ghost.on_place(fresh, &self.hosts[node].at.listens.clone());
        // Nobody has said anything to that disk yet.
        self.queue.retain(|_, what| !matches!(&**what, Happening::Deliver(parcel) if parcel.to == node));
        self.network.forget(node);
        self.step(12, node, fresh.incarnation.0);
        self.tell(|| format!("the disk of node {} is wiped: it is {fresh:?} now", node + 1));
        if !self.starts_soon(node) {
            self.at(dice.within(MS, 2 * ELECTION), Happening::Start { node });
        }
        Ok(())
    }

    /// A node was turned: what a disk that was empty has become.
    pub(super) fn watch_newcomer(&mut self, node: usize, restored: bool) {
        self.watch_joiner(node, restored);
        let host = &mut self.hosts[node];
        if !host.wiped {
            return;
        }
        let Some(up) = &host.up else { return };
        let raft = up.raft();
        let has_some = raft.last().index > Index::ZERO;
        self.met.count_if(has_some && !host.joined, Rare::BlankJoined);
        self.met.count_if(restored && !host.joined, Rare::BlankInstalled);
        host.joined |= has_some;
        let (id, newest) = raft.committed_membership();
        if newest.is_voter(host.me) && id.index > Index::ZERO {
            host.wiped = false;
            self.met.count(Rare::BlankVotes);
        }
    }
}
