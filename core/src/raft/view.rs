//! The node, looked at: nothing here changes it.

use super::{Raft, Role};
use crate::leader::Leader;
use crate::shared::Shared;
use crate::{
    AppendEntries, Envelope, HardState, Index, LogId, Member, Membership, Message, NodeId, Peer, PeerStatus,
    Replicate, RoleName, Status, Term, Tick, WriteId,
};
use alloc::vec::Vec;

impl Raft {
    /// The node as it stands.
    pub fn status(&self) -> Status {
        let Shared { me, now, hard_state, log, disk, applied, .. } = &self.shared;
        Status {
            me: *me,
            role: self.role_name(),
            term: hard_state.term,
            vote: hard_state.vote,
            leader: self.leader(),
            commit: log.commit(),
            persisted: disk.persisted(),
            applied: *applied,
            purged: log.purged(),
            last: log.last_id(),
            runs: log.runs().to_vec(),
            membership: log.membership().clone(),
            membership_id: log.membership_id(),
            writes_under_way: disk.writes_under_way(),
            peers: match &self.role {
                Role::Leader(leader) => peers_of(leader, *now),
                _ => Vec::new(),
            },
            lease: self.lease_left_at(*now),
        }
    }

    /// What it is now.
    pub fn role_name(&self) -> RoleName {
        let membership = self.shared.log.membership();
        match &self.role {
            Role::Leader(_) => RoleName::Leader,
            Role::Candidate(candidate) if candidate.pre => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Follower(_) if membership.is_empty() => RoleName::Unconfigured,
            Role::Follower(_) if membership.is_voter(self.shared.me) => RoleName::Follower,
            Role::Follower(_) => RoleName::Learner,
        }
    }

    /// Whether its state machine turned out to differ from that of a majority (D5.1.14).
    pub fn is_fenced(&self) -> bool {
        self.shared.fenced
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whom it holds for the leader.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.shared.me.id),
            Role::Follower(follower) => follower.leader.map(|peer| peer.id),
            Role::Candidate(_) => None,
        }
    }

    /// The leader that it follows and has heard so recently, at this moment, that it helps nobody to depose it.
    pub fn hears_leader_at(&self, now: Tick) -> Option<Peer> {
        match &self.role {
            Role::Follower(follower) => follower.leader.filter(|_| follower.hears_leader(&self.shared, now)),
            _ => None,
        }
    }

    /// For how many more ticks from this moment on it answers reads by its lease (D5.4.3): 0 unless it leads, and holds one.
    pub fn lease_left_at(&self, now: Tick) -> u64 {
        match &self.role {
            Role::Leader(leader) => leader.lease_left(&self.shared, now),
            _ => 0,
        }
    }

    /// The leader that it knows, as the membership has it; one that is leaving it, too.
    pub fn leader_member(&self) -> Option<&Member> {
        let peer = match &self.role {
            Role::Leader(_) => self.shared.me,
            Role::Follower(follower) => follower.leader?,
            Role::Candidate(_) => return None,
        };
        let (now, before) = (self.shared.log.membership(), self.shared.log.membership_before());
        let mut known = now.all().chain(before.into_iter().flat_map(Membership::all));
        known.find(|member| member.peer() == peer)
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.shared.term()
    }

    /// Its term and its vote in it.
    pub fn hard_state(&self) -> HardState {
        self.shared.hard_state
    }

    /// At a leader: the newest index known to be durable at this member and equal to its leader's log.
    pub fn matched(&self, id: NodeId) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) => leader
                .progress
                .get(&self.shared.log.membership().members.get(&id)?.peer())
                .map(|progress| progress.matched),
            _ => None,
        }
    }

    /// Whether this is what `to` lacks next, as its leader knows by now. Entries that a driver has read from the disk
    /// meanwhile leave only if so; else it reports them as unsent.
    pub fn wants(&self, replicate: &Replicate) -> bool {
        let AppendEntries { term, prev, .. } = replicate.append;
        matches!(&self.role, Role::Leader(leader) if term == self.term() && leader.wants(replicate.to, prev))
    }

    /// The newest index known to be committed.
    pub fn commit(&self) -> Index {
        self.shared.log.commit()
    }

    /// The newest durable index.
    pub fn persisted(&self) -> Index {
        self.shared.disk.persisted()
    }

    /// The newest entry.
    pub fn last(&self) -> LogId {
        self.shared.log.last_id()
    }

    /// The newest id that was handed out in an [`Output::write`](crate::Output::write).
    pub fn newest_write(&self) -> WriteId {
        self.shared.disk.newest()
    }

    /// The newest write that is done, as far as the node was told.
    pub fn written(&self) -> WriteId {
        self.shared.disk.done()
    }

    /// An AppendEntries in its envelope, as the node goes by its membership now.
    pub fn envelope(&self, to: Peer, append: AppendEntries) -> Envelope {
        self.shared.envelope(to, Message::AppendEntries(append))
    }

    /// The same of any message that says nothing that is not durable.
    pub fn envelope_of(&self, to: Peer, message: Message) -> Envelope {
        self.shared.envelope(to, message)
    }

    /// The term of the entry at `index`, if the log holds it.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.shared.log.term_at(index)
    }

    /// The node itself.
    pub fn me(&self) -> Peer {
        self.shared.me
    }

    /// The membership in force.
    pub fn membership(&self) -> &Membership {
        self.shared.log.membership()
    }

    /// The entry that put the membership in force.
    pub fn membership_id(&self) -> LogId {
        self.shared.log.membership_id()
    }

    /// The newest membership that is committed, with its entry.
    pub fn committed_membership(&self) -> &(LogId, Membership) {
        self.shared.log.committed_membership()
    }

    /// At a leader: members that it must still reach, though they are none any more.
    pub fn leaving(&self) -> Vec<Member> {
        match &self.role {
            Role::Leader(leader) => leader.leaving.values().map(|it| it.member.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// At a leader: who lacks entries that are purged here, and so is sent a snapshot.
    pub fn needs_snapshot(&self) -> Vec<Peer> {
        match &self.role {
            Role::Leader(leader) => leader.needs_snapshot().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a snapshot was received, and the log is being reset to it.
    pub fn is_installing(&self) -> bool {
        self.shared.installing.is_some()
    }

    /// To whom this leader is handing over, if it is.
    pub fn transferring_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to.id),
            _ => None,
        }
    }

    /// Whether this leader takes no commands, since it is handing over. That lasts for an election timeout at most.
    pub fn holds_proposals(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.holds_for().is_some())
    }
}

fn peers_of(leader: &Leader, now: Tick) -> Vec<PeerStatus> {
    let peers = leader.progress.iter().filter(|(_, progress)| progress.is_peer()).map(|(peer, progress)| {
        let (messages_in_flight, bytes_in_flight) = progress.in_flight();
        PeerStatus {
            id: peer.id,
            incarnation: peer.incarnation,
            matched: progress.matched,
            next: progress.next,
            last: progress.last,
            applied: progress.applied,
            probing: progress.is_probing(),
            receives_snapshot: progress.needs_snapshot(),
            messages_in_flight,
            bytes_in_flight,
            silent_for: progress.silent_for(now),
            lost_entries: progress.is_distrusted(),
        }
    });
    peers.collect()
}
