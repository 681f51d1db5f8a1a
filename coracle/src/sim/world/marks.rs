//! Certificates in a simulated world, of which only the marks matter: when each was issued, and its key (D5.3.6). Whoever takes
//! a connection judges what is shown on it by the newest membership in its log, with production's own rule. Nodes renew theirs;
//! the leader has the membership know the newest; and somebody tries all that were ever issued.

use super::World;
use crate::marking::marked;
use crate::members;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken as violated};
use crate::sim::host::{Event, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::transport::certificate::{CertificateName, Known, Role, Shown};
use coracle_core::{Mark, Membership, NodeId};

/// The first certificates begin to be valid then.
const FIRST: u64 = 1000;

impl World {
    /// A node has its first certificate, or the next: under the name that it has.
    pub(super) fn issue(&mut self, node: usize) {
        if !self.plan.marks {
            return;
        }
        let issued = self.stamp().max(self.hosts[node].mark.issued + 1);
        let mut key = [node as u8; 32];
        key[..8].copy_from_slice(&issued.to_le_bytes());
        self.hosts[node].mark = Mark { issued, key };
        let of = (self.hosts[node].me.id, self.hosts[node].mark);
        self.issued.push(of);
        self.tell(|| format!("node {} has a certificate of {issued}", node + 1));
    }

    /// The second, as certificates tell it.
    fn stamp(&self) -> u64 {
        FIRST + self.now / MS
    }

    /// A node renews its certificate; and somebody shows another one all that were ever issued.
    pub(in crate::sim) fn renew(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        self.issue(node);
        self.met.count(Rare::CertificateRenewed);
        let to = dice.below(self.hosts.len() as u64) as usize;
        if self.hosts[to].up.is_none() {
            return Ok(());
        }
        for (id, mark) in self.issued.clone() {
            let believed = self.believes_mark(to, id, mark);
            self.met.count_if(!believed, Rare::CertificateRefused);
            if believed {
                self.judge_certificate(to, id, mark)?;
            }
        }
        Ok(())
    }

    /// Whether a node takes a certificate for that of a node of this name.
    fn believes_mark(&self, node: usize, id: NodeId, mark: Mark) -> bool {
        let Some(up) = &self.hosts[node].up else { return false };
        let newest = up.raft().membership();
        let members = newest.all().map(|member| member.id).collect();
        let known = Known { marks: newest.marks.clone(), members, broken: self.hosts[node].broken };
        let name = CertificateName { cluster: "sim".to_owned(), role: Role::Node(id) };
        known.judge(&Shown { name, mark }).is_ok()
    }

    /// What is made of a certificate that a node has believed.
    fn judge_certificate(&self, node: usize, id: NodeId, mark: Mark) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let newest = (up.raft().membership_id(), up.raft().membership());
        self.ghost.judge_certificate(node, newest, id, mark)
    }

    /// Whether one end goes on with a connection, for what the other one has shown on it.
    pub(super) fn believes(&mut self, node: usize, other: usize) -> bool {
        let there = &self.hosts[other];
        if !self.plan.marks || there.up.is_none() || self.hosts[node].up.is_none() {
            return true;
        }
        let number = self.network.connection[node.min(other)][node.max(other)];
        let (peer, mark, shown) = (there.me, there.mark, (there.me, there.run, number));
        let known = |up: &Running| up.standing.believed.get(&other) == Some(&shown);
        if self.hosts[node].up.as_ref().is_some_and(known) {
            return true;
        }
        if !self.believes_mark(node, peer.id, mark) {
            self.met.count(Rare::CertificateShutOut);
            return false;
        }
        if self.misbelieved.is_none() {
            self.misbelieved = self.judge_certificate(node, peer.id, mark).err();
        }
        if let Some(up) = &mut self.hosts[node].up {
            up.standing.believed.insert(other, shown);
            if up.driver.raft().membership().contains(peer) {
                up.standing.shown.take(peer.id, mark);
            }
        }
        true
    }

    /// What a node does now and then about certificates: a leader has the membership know those that it has seen, and another one
    /// shows it its new one.
    pub(super) fn look_at_marks(&mut self, node: usize) -> Verdict {
        let (time, mark, broken) = (self.now, self.hosts[node].mark, self.hosts[node].broken);
        let Some(up) = self.hosts[node].up.as_mut().filter(|_| self.plan.marks) else { return Ok(()) };
        if !up.standing.looks_at_marks(time) {
            return Ok(());
        }
        let raft = up.driver.raft();
        let (me, id, now) = (raft.me(), raft.membership_id(), raft.membership().clone());
        let (leads, leader, commit) = (raft.is_leader(), raft.leader(), raft.commit());
        up.standing.shown.keep(&now);
        if leads {
            if now.is_joint() || id.index > commit {
                return Ok(());
            }
            let Some(to) = marked(&now, &up.standing.shown.with(me.id, mark), broken) else { return Ok(()) };
            self.met.count(Rare::CertificateKnown);
            return self.turn(node, Event::Change(time, id, to));
        }
        if !now.contains(me) || now.marks.get(&me.id).is_some_and(|known| known.issued >= mark.issued) {
            return Ok(());
        }
        let leader = leader.and_then(|leader| self.node(leader)).filter(|leader| {
            let cut = self.network.cut[node][*leader] || self.network.cut[*leader][node];
            !cut && *leader != node && self.frozen(*leader).is_none()
        });
        let Some(leader) = leader.filter(|leader| self.believes_mark(*leader, me.id, mark)) else {
            return Ok(());
        };
        self.judge_certificate(leader, me.id, mark)?;
        if let Some(up) = &mut self.hosts[leader].up
            && up.driver.raft().membership().contains(me)
        {
            up.standing.shown.take(me.id, mark);
        }
        Ok(())
    }

    /// The certificates of those who go are nobody's from then on; and whoever comes has one that is somebody's.
    pub(super) fn revoke(&mut self, leader: usize, now: &Membership, to: &mut Membership) -> Verdict {
        let stamp = self.stamp();
        let Some(up) = self.hosts[leader].up.as_ref().filter(|_| self.plan.marks) else { return Ok(()) };
        let broken = self.hosts[leader].broken;
        members::revoke(now, to, |id| up.standing.shown.of(id), stamp, broken);
        let mut gone = now.members.keys().filter(|id| !to.members.contains_key(id));
        if let Some(id) = gone.find(|id| !to.marks.contains_key(id)) {
            return violated("S37", format!("node {id} is to go, and its certificates are to stay good"));
        }
        let comes = |node: &usize| to.contains(self.hosts[*node].me) && !now.contains(self.hosts[*node].me);
        let coming: Vec<usize> = (0..self.hosts.len()).filter(comes).collect();
        for node in coming {
            if !self.believes_mark(leader, self.hosts[node].me.id, self.hosts[node].mark) {
                self.issue(node);
            }
        }
        Ok(())
    }

    /// Once all is healed, the membership comes to know the certificates that all show (L15).
    pub(super) fn know_all_marks(&mut self) -> Verdict {
        if !self.plan.marks {
            return Ok(());
        }
        self.until("L15", 20 * ELECTION, "membership that knows all certificates", |world| {
            world.hosts.iter().filter_map(|host| host.up.as_ref()).all(|up| {
                let (_, newest) = up.raft().committed_membership();
                world.hosts.iter().all(|host| newest.marks.get(&host.me.id) == Some(&host.mark))
            })
        })
    }
}
