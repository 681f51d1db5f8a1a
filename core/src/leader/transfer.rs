//! Leadership transfer (thesis, section 3.10): a leader hands over to a voter of its choice.
//!
//! It goes in three steps. The target is brought up to date first, log and machine, while the leader takes commands as
//! always. Then the leader takes no more of them, for an election timeout at most, until all that it has is on the target's
//! disk, is committed, and is applied here, so that whoever waits for it was answered. Then it sends TimeoutNow, and the
//! target campaigns at once, without asking first. Its request for votes names the leader that gave way and that leader's
//! term, so that voters that still hear this very leader help to depose it, and those that hear another do not.
//!
//! A transfer that comes to nothing leaves a leader as it was. Losing any of its messages is safe, and so is obeying one
//! late: it is a campaign like any other, and votes go to logs that are up to date.

use super::Leader;
use super::target::{Cause, Step, Transfer};
use crate::progress::Progress;
use crate::shared::Shared;
use crate::{GivenUp, Member, Message, NodeId, Peer, RefusedReason, Ticket, TimeoutNow, TransferEnd};

impl Leader {
    /// To whom it is handing over, if it takes no commands for that.
    pub(crate) fn holds_for(&self) -> Option<NodeId> {
        self.transfer.as_ref().filter(|transfer| transfer.holds()).map(|transfer| transfer.to.id)
    }

    /// To whom it is handing over, if it changes no membership for that: one that has left is no part of the next.
    pub(crate) fn changes_nothing_for(&self) -> Option<NodeId> {
        let left = self.transfer.as_ref().filter(|transfer| transfer.cause == Cause::Left);
        self.holds_for().or(left.map(|transfer| transfer.to.id))
    }

    pub(crate) fn on_transfer(&mut self, shared: &mut Shared, ticket: Ticket, to: Option<NodeId>) {
        let under_way = self.transfer.as_ref().map(|transfer| transfer.to.id);
        if let Some(to) = under_way.or(self.rests_from(shared)) {
            return shared.refuse(ticket, RefusedReason::HandingOver(to));
        }
        let votes = |id| shared.log.membership().voters.contains(&id) && id != shared.me.id;
        if let Some(id) = to.filter(|id| !votes(*id)) {
            return shared.refuse(ticket, RefusedReason::NotVoter(id));
        }
        if let Some(id) = to.filter(|id| shared.no_transfers.iter().any(|peer| peer.id == *id)) {
            return shared.refuse(ticket, RefusedReason::KnowsNoTransfers(id));
        }
        match self.best_target(shared, to) {
            Some(target) => self.begin(shared, Cause::Asked(ticket), target),
            None => shared.refuse(ticket, RefusedReason::NoTarget),
        }
    }

    /// Of the voters that answer, lack nothing that is purged here, and know what a transfer is, or of this one alone, the one
    /// that has the most: in its log, then in its machine.
    fn best_target(&self, shared: &Shared, only: Option<NodeId>) -> Option<Peer> {
        let membership = shared.log.membership();
        let voters = membership.others(shared.me.id).filter(|member| membership.voters.contains(&member.id));
        let knowing = voters.map(Member::peer).filter(|peer| !shared.no_transfers.contains(peer));
        let reachable = knowing.filter_map(|peer| {
            let progress = self
                .progress
                .get(&peer)
                .filter(|it| it.is_reachable(shared.now, shared.settings.election_min))?;
            only.is_none_or(|id| id == peer.id).then_some((progress.matched, progress.applied, peer))
        });
        reachable.max_by_key(|(matched, applied, _)| (*matched, *applied)).map(|(.., peer)| peer)
    }

    /// For whom it has just held commands in vain: it takes what came meanwhile first, however soon the next transfer is
    /// wanted (LT-2).
    fn rests_from(&self, shared: &Shared) -> Option<NodeId> {
        let (to, until) = self.held_for?;
        let rests = shared.rules.rests(shared.now.since(until), shared.settings.heartbeat);
        rests.then_some(to)
    }

    /// A leader that should not lead any more hands over by itself, if it can. Whether it does, or did already.
    pub(crate) fn gives_way(&mut self, shared: &mut Shared, cause: Cause) -> bool {
        if self.rests_from(shared).is_some() {
            return true;
        }
        if self.transfer.is_none()
            && !self.gave_way.has_tried(cause)
            && let Some(target) = self.best_target(shared, None)
        {
            self.gave_way.tries(cause);
            self.begin(shared, cause, target);
        }
        self.transfer.is_some()
    }

    fn begin(&mut self, shared: &mut Shared, cause: Cause, to: Peer) {
        let upto = shared.log.commit();
        self.transfer = Some(Transfer { cause, to, since: shared.now, upto, step: Step::CatchUp });
        self.start_round(shared);
        self.go_on_handing_over(shared);
    }

    /// Goes the next step as soon as it can, and gives up when there is no use in waiting.
    pub(crate) fn go_on_handing_over(&mut self, shared: &mut Shared) {
        let Some(transfer) = &self.transfer else { return };
        if let Some(why) = self.obstacle(shared, transfer) {
            return self.give_up_transfer(shared, why);
        }
        let Some(progress) = self.progress.get(&transfer.to) else { return };
        let (now, to) = (shared.now, transfer.to);
        if transfer.step == Step::CatchUp {
            let (matched, applied) = (progress.matched, progress.applied);
            if !shared.rules.stops_taking(matched, applied, transfer.upto) {
                return;
            }
        }
        let (since, asked) = match transfer.step {
            Step::CatchUp => (now, None),
            Step::Hold { since, asked } => (since, asked),
        };
        let again = asked.is_none_or(|asked| now.since(asked) >= shared.settings.heartbeat);
        let asks = again && self.is_ready(shared, transfer.cause, progress);
        let last = shared.rules.last_to_hold(shared.log.last_id(), shared.log.id_at(progress.matched));
        if let Some(transfer) = &mut self.transfer {
            transfer.step = Step::Hold { since, asked: if asks { Some(now) } else { asked } };
        }
        if asks {
            self.lease.gave_way = true;
            let term = shared.term();
            shared.send(to, Message::TimeoutNow(TimeoutNow { term, last }));
        }
    }

    /// Whether the target holds all there is, and nobody waits here for anything that is in the log.
    fn is_ready(&self, shared: &Shared, cause: Cause, target: &Progress) -> bool {
        let last = shared.log.last();
        // A disk that hangs keeps its machine from ever coming so far, and one that has stopped has answered everybody.
        let answered = cause == Cause::Disk || shared.machine_stopped || shared.applied >= last;
        let settled = shared.log.commit() >= last && answered;
        shared.rules.may_hand_over(target.counted(), last, settled)
    }

    /// Why a transfer comes to nothing.
    fn obstacle(&self, shared: &Shared, transfer: &Transfer) -> Option<GivenUp> {
        let membership = shared.log.membership();
        let votes = membership.voters.contains(&transfer.to.id) && membership.is_voter(transfer.to);
        let now = shared.now;
        let (limit, began) = match transfer.step {
            Step::CatchUp => (shared.settings.election_max, transfer.since),
            Step::Hold { since, .. } => (shared.settings.election_min, since),
        };
        let late = now.since(began) >= limit;
        let answers = self
            .progress
            .get(&transfer.to)
            .is_some_and(|it| it.is_reachable(shared.now, shared.settings.election_min));
        if !votes {
            Some(GivenUp::NotVoter)
        } else if !shared.rules.ends_transfer(late || !answers) {
            None
        } else if !answers {
            Some(GivenUp::Silent)
        } else if transfer.was_asked() {
            Some(GivenUp::NotElected)
        } else {
            Some(GivenUp::Lagging)
        }
    }

    pub(crate) fn give_up_transfer(&mut self, shared: &mut Shared, why: GivenUp) {
        let Some(transfer) = self.transfer.take() else { return };
        if transfer.holds() {
            self.held_for = Some((transfer.to.id, shared.now));
        }
        if let Cause::Asked(ticket) = transfer.cause {
            shared.out.transfers.push((ticket, TransferEnd::GivenUp { to: transfer.to.id, why }));
        }
    }

    /// The role ends while it was handing over.
    pub(crate) fn end_transfer(&self, shared: &mut Shared) {
        if let Some(transfer) = &self.transfer
            && let Cause::Asked(ticket) = transfer.cause
        {
            let (to, asked) = (transfer.to.id, transfer.was_asked());
            shared.out.transfers.push((ticket, TransferEnd::Deposed { to, asked }));
        }
    }
}
