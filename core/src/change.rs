//! Changes of membership (§6; thesis, chapter 4), by joint consensus.
//!
//! A change that touches who votes goes through two entries. The first is *joint*: from its append on, whatever needs a
//! majority needs one of the old voters and one of the new ones. Once it is committed, the leader of that time, whoever
//! it is, appends the second, in which the new voters stand alone. A change that touches learners or addresses only is
//! one entry. Each is in force from its append, and truncation takes it back.
//!
//! A leader outside the new voters leads until the second entry is committed, does not count itself, and then leaves.
//! Those who lose their vote are sent that entry only when it is committed, so that nobody stops to vote for a change
//! that may yet be undone (design, 5.1.16).

use crate::leader::{Leader, Leaving};
use crate::progress::Progress;
use crate::raft::Role;
use crate::shared::{Shared, Transition};
use crate::{Index, LogId, Member, Membership, NodeId, Peer, Raft, RefusedReason, TailChange, Ticket};
use alloc::vec::Vec;

/// The most voters of a membership that a change may ask for.
pub const MAX_VOTERS: usize = 9;

impl Raft {
    pub(crate) fn on_change(&mut self, ticket: Ticket, expected: LogId, to: Membership) -> Transition {
        let leader_id = self.leader();
        match &mut self.role {
            Role::Leader(leader) => leader.on_change(&mut self.shared, ticket, expected, to),
            _ if self.shared.log.membership().is_empty() => {
                self.shared.refuse(ticket, RefusedReason::NotConfigured);
            }
            _ => self.shared.refuse(ticket, RefusedReason::NotLeader(leader_id)),
        }
        Transition::Stay
    }

    /// At a leader: members that it must still reach, though they are none any more.
    pub fn leaving(&self) -> Vec<Member> {
        match &self.role {
            Role::Leader(leader) => leader.leaving.values().map(|it| it.member.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

impl Leader {
    fn on_change(&mut self, shared: &mut Shared, ticket: Ticket, expected: LogId, to: Membership) {
        match self.judge_change(shared, expected, &to) {
            Ok(()) => {
                let next = shared.rules.next_membership(shared.log.membership(), to);
                self.append_membership(shared, next, Some(ticket));
            }
            Err(reason) => shared.refuse(ticket, reason),
        }
    }

    fn judge_change(&self, shared: &Shared, expected: LogId, to: &Membership) -> Result<(), RefusedReason> {
        let (id, now) = (shared.log.membership_id(), shared.log.membership());
        if !shared.rules.may_change(self.may_read(shared)) {
            return Err(RefusedReason::NotYet);
        }
        if let Some(to) = self.changes_nothing_for() {
            return Err(RefusedReason::HandingOver(to));
        }
        if shared.rules.is_changing(now, id.index, shared.log.commit()) {
            return Err(RefusedReason::ChangeUnderWay);
        }
        if id != expected {
            return Err(RefusedReason::NotCurrent(id));
        }
        let own_name = to.members.get(&shared.me.id).is_none_or(|member| member.peer() == shared.me);
        let fits = to.is_well_formed() && !to.is_joint() && to.cluster == now.cluster;
        if !fits || !own_name || to.voters.len() > MAX_VOTERS {
            return Err(RefusedReason::BadMembership);
        }
        if let Some(late) = self.late_voter(shared, now, to) {
            return Err(RefusedReason::NotCaughtUp(late));
        }
        if !self.would_have_quorum(shared, to) {
            return Err(RefusedReason::NoQuorum);
        }
        Ok(())
    }

    /// A voter to be that is no member yet, or that lacks more than what came within an election timeout (thesis, section
    /// 4.2.1).
    fn late_voter(&self, shared: &Shared, now: &Membership, to: &Membership) -> Option<NodeId> {
        let late = |peer: &Peer| {
            let progress = self.progress.get(peer).filter(|_| now.contains(*peer));
            !progress.is_some_and(|it| it.is_caught_up(shared.now, shared.settings.election_min))
        };
        to.voting_peers().filter(|peer| !now.is_voter(*peer)).find(late).map(|peer| peer.id)
    }

    /// Whether a majority of the voters to be answers now.
    fn would_have_quorum(&self, shared: &Shared, to: &Membership) -> bool {
        let heard = |peer| self.progress.get(&peer).map_or_else(Default::default, |it| it.heard(shared.now));
        shared.now.since(to.reached(heard)) < shared.settings.election_max
    }

    fn append_membership(&mut self, shared: &mut Shared, membership: Membership, ticket: Option<Ticket>) {
        let id = shared.log.append_membership(shared.term(), membership.clone());
        shared.write_appended(id.index);
        shared.out.tail.push(TailChange::TakeMembership { id, membership, ticket });
        self.meet_members(shared);
        shared.announce_members();
        self.replicate(shared);
    }

    /// Progress comes and goes with the newest membership (design, 5.1.15).
    pub(crate) fn meet_members(&mut self, shared: &mut Shared) {
        let (membership, at) = (shared.log.membership(), shared.log.membership_id().index);
        let (next, now) = (shared.log.last().next(), shared.now);
        let meets = shared.rules.meets_newcomers() || self.progress.len() == 1;
        for member in membership.others(shared.me.id).filter(|_| meets) {
            self.leaving.remove(&member.peer());
            self.progress.entry(member.peer()).or_insert_with(|| Progress::new(next, now));
        }
        let before = shared.log.membership_before().into_iter().flat_map(Membership::all);
        for member in before.filter(|member| member.id != shared.me.id && !membership.contains(member.peer()))
        {
            let peer = member.peer();
            self.leaving.entry(peer).or_insert_with(|| Leaving { member: member.clone(), at });
            self.progress.entry(peer).or_insert_with(|| Progress::new(next, now));
        }
    }

    /// Up to where this node may be sent the log: one that loses its vote hears of that when it is certain.
    pub(crate) fn furthest(&self, shared: &Shared, peer: Peer) -> Index {
        let (log, last) = (&shared.log, shared.log.last());
        let at = log.membership_id().index;
        let loses = !log.membership().is_voter(peer)
            && log.membership_before().is_some_and(|before| before.is_voter(peer));
        if at > log.commit() && loses { at.prev() } else { last }
    }

    /// The commit index has risen: the new voters stand alone once the joint membership is committed.
    pub(crate) fn go_on_changing(&mut self, shared: &mut Shared) {
        let (id, membership) = (shared.log.membership_id(), shared.log.membership());
        if membership.is_joint() && shared.rules.ends_change(id.index, shared.log.commit()) {
            let alone = membership.after();
            self.append_membership(shared, alone, None);
        }
    }

    /// Forgets those who left: they know it, or do not answer.
    pub(crate) fn let_go(&mut self, shared: &mut Shared) {
        let (commit, now, patience) = (shared.log.commit(), shared.now, 2 * shared.settings.election_max);
        let gone = |peer: &Peer, it: &Leaving| {
            it.at <= commit
                && self
                    .progress
                    .get(peer)
                    .is_none_or(|progress| progress.matched >= it.at || progress.silent_for(now) > patience)
        };
        let gone: Vec<Peer> =
            self.leaving.iter().filter(|(peer, it)| gone(peer, it)).map(|(peer, _)| *peer).collect();
        for peer in &gone {
            self.leaving.remove(peer);
            self.progress.remove(peer);
        }
        if !gone.is_empty() {
            shared.announce_members();
        }
    }

    /// Whether this leader has no part in the cluster any more, for good.
    pub(crate) fn has_left(&self, shared: &Shared) -> bool {
        let committed = shared.log.membership_id().index <= shared.log.commit();
        shared.rules.must_leave(committed, shared.log.membership().is_voter(shared.me))
    }
}
