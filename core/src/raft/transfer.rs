//! Leadership transfer at the node that takes over, and at those whose votes it needs; the leader's half, and what it is
//! all about, is in `leader/transfer.rs`.

use super::{Raft, Role};
use crate::shared::Transition;
use crate::{Dropped, GivenUp, HandedOver, NodeId, Peer, TimeoutNow};

impl Raft {
    /// TimeoutNow: the leader of this term wants this node to lead the next one.
    pub(crate) fn on_timeout_now(&mut self, from: Peer, ask: TimeoutNow) -> Transition {
        let shared = &mut self.shared;
        if shared.rules.is_old_timeout_now(ask.term, shared.term()) {
            return shared.drop_input(Dropped::Stale);
        }
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader == Some(from));
        if !shared.rules.obeys(follows) {
            return shared.drop_input(Dropped::Unexpected);
        }
        let votes = shared.log.membership().is_voter(shared.me);
        if !shared.rules.may_take_over(votes, shared.may_lead()) {
            return shared.drop_input(Dropped::NotMember);
        }
        let handed = HandedOver { by: from, term: ask.term };
        if shared.rules.waits_for_promises(shared.promises.bind(shared.now, Some(handed))) {
            return shared.drop_input(Dropped::Promised);
        }
        let holds = shared.log.term_at(ask.last.index) == Some(ask.last.term);
        if !shared.rules.is_up_to_take_over(holds, ask.last.index, shared.disk.persisted()) {
            return shared.drop_input(Dropped::Lagging);
        }
        Transition::TakeOver(handed)
    }

    /// Whether a candidate names the very leader that this node believes in, or is, and its term: then that leader gave
    /// way of its own accord.
    pub(crate) fn was_handed_over(&self, handed: Option<HandedOver>) -> bool {
        let leader = match &self.role {
            Role::Leader(_) => Some(self.shared.me),
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
        };
        self.shared.rules.overrules(handed, leader, self.shared.term())
    }

    /// This node's process is gone: it does not take over.
    pub(crate) fn lose_target(&mut self, id: NodeId) {
        if let Role::Leader(leader) = &mut self.role
            && leader.transfer.as_ref().is_some_and(|transfer| transfer.to.id == id)
            && self.shared.rules.ends_transfer(true)
        {
            leader.give_up_transfer(&mut self.shared, GivenUp::Silent);
        }
    }

    /// The machine has come further: a leader that is handing over may have waited for that.
    pub(crate) fn after_applied(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.go_on_handing_over(&mut self.shared);
        }
    }
}
