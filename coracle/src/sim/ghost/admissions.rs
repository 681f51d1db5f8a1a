//! What the judge knows of nodes that join: under which name each disk is a member (S36).

use super::{Ghost, Index, Record, Verdict, broken};
use coracle_core::{Incarnation, LogId, Membership, NodeId, Peer};
use std::collections::BTreeSet;
use std::iter;

impl Ghost {
    /// A node has got its name.
    pub(in crate::sim) fn on_named(&mut self, node: usize, me: Peer) {
        (self.peers[node], self.ids[node]) = (me, me.id);
    }

    /// Under which name a disk is a member, by the newest membership that is committed.
    pub(in crate::sim) fn name_of(&self, disk: Incarnation) -> Option<NodeId> {
        let at = self.committed.iter().rposition(|seen| seen.membership)?;
        let id = LogId { term: self.committed[at].term, index: Index(at as u64 + 1) };
        let members = &self.memberships.get(id)?.members;
        members.values().find(|member| member.incarnation == disk).map(|member| member.id)
    }

    /// To let somebody in takes nothing from those who are there, and no disk comes in twice.
    pub(in crate::sim) fn judge_admission(
        &self,
        now: &Membership,
        step: &Membership,
        disk: Incarnation,
    ) -> Verdict {
        let stays = |(id, member)| step.members.get(id) == Some(member);
        if let Some((id, _)) = now.members.iter().find(|known| !stays(*known)) {
            return broken("S36", format!("node {id} is to go, that a disk {disk:?} can come in"));
        }
        if now.voters != step.voters {
            return broken("S36", format!("a disk {disk:?} comes in, and others vote for it"));
        }
        judge_names(step)
    }

    /// A voter to be knows of it: it holds an entry durably that names it a member. (One that was removed and has come back
    /// within an election timeout may lack the newest of them.)
    pub(super) fn judge_new_voters(
        &self,
        node: usize,
        at: LogId,
        before: &Membership,
        next: &Membership,
    ) -> Verdict {
        judge_names(next)?;
        let log = &self.nodes[node].log;
        for peer in next.voting_peers().filter(|peer| !before.is_voter(*peer)) {
            let named = |seen: &(LogId, &Membership)| {
                let has = |record: &Record| record.held(seen.0.index, log.get(seen.0.index));
                seen.1.contains(peer) && self.record(peer).is_some_and(has)
            };
            let mut before = iter::successors(self.memberships.newest(log, at.index), |(id, _)| {
                self.memberships.newest(log, id.index.prev())
            });
            if !before.any(|seen| named(&seen)) {
                let name = self.ids[node];
                let detail = format!("leader {name} lets {peer:?} vote, which holds no entry that names it");
                return broken("S36", detail);
            }
        }
        Ok(())
    }
}

/// No disk is a member under two names.
fn judge_names(of: &Membership) -> Verdict {
    let mut disks = BTreeSet::new();
    match of.members.values().find(|member| !disks.insert(member.incarnation)) {
        Some(twice) => broken("S36", format!("the disk of node {} is a member twice", twice.id)),
        None => Ok(()),
    }
}
