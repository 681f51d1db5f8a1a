//! Changes of membership (§6; thesis, chapter 4), by joint consensus.
//!
//! A change that touches who votes goes through two entries. The first is *joint*: from its append on, whatever needs a
//! majority needs one of the old voters and one of the new ones. Once it is committed, the leader of that time, whoever
//! it is, appends the second, in which the new voters stand alone. A change that touches learners or addresses only is
//! one entry. Each is in force from its append, and truncation takes it back.
//!
//! A leader outside the new voters leads until the second entry is committed, does not count itself, and then leaves.
//! Those who lose their vote are sent that entry only when it is committed, so that nobody stops to vote for a change
//! that may yet be undone (D5.1.16).

use super::{Leader, Leaving};
use crate::progress::Progress;
use crate::shared::Shared;
use crate::{Index, LogId, Member, Membership, NodeId, Peer, RefusedReason, TailChange, Ticket};
use alloc::vec::Vec;

impl Leader {
    pub(crate) fn on_change(&mut self, shared: &mut Shared, ticket: Ticket, expected: LogId, to: Membership) {
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
        // It is on its way out. A change of its own would keep it in office until that is committed (D5.1.16).
        if self.has_left(shared) {
            return Err(RefusedReason::NotLeader(None));
        }
        if id != expected {
            return Err(RefusedReason::NotCurrent(id));
        }
        if !shared.rules.may_become(now, to, shared.me) {
            return Err(RefusedReason::BadMembership);
        }
        if let Some(late) = self.late_voter(shared, now, to) {
            return Err(RefusedReason::NotCaughtUp(late));
        }
        if !self.would_have_quorum(shared, to) {
            // Whoever has just taken office has not heard of anybody yet.
            let early = shared.now.since(self.since) < shared.settings.election_max;
            return Err(if early { RefusedReason::NotYet } else { RefusedReason::NoQuorum });
        }
        Ok(())
    }

    /// A voter to be that is no member yet, or that lacks more than what came within an election timeout.
    fn late_voter(&self, shared: &Shared, now: &Membership, to: &Membership) -> Option<NodeId> {
        let limit = shared.settings.election_min;
        let late = |peer: &Peer| {
            let progress = self.progress.get(peer);
            let caught_up = progress.is_some_and(|it| it.is_caught_up(shared.rules, shared.now, limit));
            shared.rules.is_late(now.contains(*peer), caught_up)
        };
        to.voting_peers().filter(|peer| !now.is_voter(*peer)).find(late).map(|peer| peer.id)
    }

    /// Whether a majority of the voters to be answers now. That it follows a new leader, a node says by its first answer.
    fn would_have_quorum(&self, shared: &Shared, to: &Membership) -> bool {
        let (now, limit) = (shared.now, shared.settings.election_max);
        let helps =
            |it: &Progress| shared.rules.helps_a_change(it.has_answered(), now.since(it.heard(now)), limit);
        let answers = |peer| self.progress.get(&peer).is_some_and(helps);
        to.reached(answers)
    }

    fn append_membership(&mut self, shared: &mut Shared, membership: Membership, ticket: Option<Ticket>) {
        let id = shared.log.append_membership(shared.term(), membership.clone());
        shared.write_appended(id.index);
        shared.out.tail.push(TailChange::TakeMembership { id, membership, ticket });
        self.meet_members(shared);
        shared.announce_members();
        self.replicate(shared);
    }

    /// Progress comes and goes with the newest membership (D5.1.15).
    pub(crate) fn meet_members(&mut self, shared: &mut Shared) {
        let (membership, at) = (shared.log.membership(), shared.log.membership_id().index);
        let (next, now) = (shared.log.last().next(), shared.now);
        let first = self.progress.len() == 1;
        let met = |member: &&Member| shared.rules.is_met(member.peer(), membership, first);
        for member in membership.others(shared.me.id).filter(met) {
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

    /// Up to where this node may be sent the log.
    pub(crate) fn furthest(&self, shared: &Shared, peer: Peer) -> Index {
        let log = &shared.log;
        let voted = log.membership_before().is_some_and(|before| before.is_voter(peer));
        let loses_vote = voted && !log.membership().is_voter(peer);
        shared.rules.furthest(loses_vote, log.membership_id().index, log.commit(), log.last())
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
            let progress = self.progress.get(peer);
            let knows = progress.is_none_or(|progress| progress.matched >= it.at);
            let gave_up = progress.is_none_or(|progress| progress.silent_for(now) > patience);
            shared.rules.lets_go(it.at, commit, knows, gave_up)
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
        // Whoever has been elected without a vote of its own decides what it was elected for.
        let decided = shared.log.term_at(shared.log.commit()) == Some(shared.term());
        let committed = decided && shared.log.membership_id().index <= shared.log.commit();
        shared.rules.must_leave(committed, shared.log.membership().is_voter(shared.me))
    }
}
