//! Leadership that is handed over, as the judge sees it (S26).

use super::{Ghost, Verdict, broken};
use coracle_core::{HandedOver, Index, LogId, NodeId, Peer, Term, TimeoutNow};

/// A node just before it is told to campaign, or is asked for a vote in a leader's place.
#[derive(Clone, Copy)]
pub(in crate::sim) struct Follows {
    pub(in crate::sim) term: Term,
    pub(in crate::sim) leader: Option<NodeId>,
}

impl Ghost {
    /// A leader tells a node to campaign: that node has all that the leader has, on its disk.
    pub(super) fn on_order(&self, leader: usize, to: Peer, ask: &TimeoutNow) -> Verdict {
        let Some(target) = self.record(to) else { return Ok(()) };
        let log = &self.nodes[leader].log;
        // One that gave up in the same turn has taken more since, and what it had is what it named.
        let gave_up = self.nodes[leader].hands_over_to != Some(to.id);
        let last = if gave_up { ask.last.index } else { log.last() };
        // A target that is in a later term by now may have dropped some of it.
        if target.durable_state.term > ask.term || target.held(last, log.get(last)) {
            return Ok(());
        }
        let detail = format!(
            "leader {} hands over to node {}, which holds {} of {last} on its disk",
            self.ids[leader],
            to.id,
            target.durable.last()
        );
        broken("S26", detail)
    }

    /// What a node may be told to do: campaign as a voter that holds this entry on its disk, and follows whoever says so.
    pub(in crate::sim) fn may_obey(
        &self,
        node: usize,
        before: Follows,
        from: NodeId,
        term: Term,
        last: LogId,
    ) -> Verdict {
        let record = &self.nodes[node];
        let id = self.ids[node];
        let problem = if before.term != term || before.leader != Some(from) {
            format!("node {id} of {before:?} campaigns on the word of node {from} of term {term}")
        } else if record.durable.get(last.index).map(|entry| entry.term) != Some(last.term) {
            format!("node {id} campaigns in a leader's place without {last} on its disk")
        } else if !self.votes(node) {
            format!("node {id} campaigns in a leader's place, and does not vote")
        } else {
            return Ok(());
        };
        broken("S26", problem)
    }

    /// Whether a node votes by the newest membership in its log.
    fn votes(&self, node: usize) -> bool {
        let record = &self.nodes[node];
        let newest = self.memberships.newest(&record.log, Index(u64::MAX));
        newest.is_some_and(|(_, it)| it.is_voter(self.peers[node]))
    }

    /// A node that heard a leader helped to depose it: it is that very leader, of that term, who gave way.
    pub(in crate::sim) fn may_help(
        &self,
        node: usize,
        before: Follows,
        leader: Peer,
        handed: HandedOver,
    ) -> Verdict {
        if handed.by == leader && handed.term == before.term {
            return Ok(());
        }
        let (id, HandedOver { by, term }) = (self.ids[node], handed);
        let detail = format!(
            "node {id} hears leader {} of {}, and helps since node {} of {term} gave way",
            leader.id, before.term, by.id
        );
        broken("S26", detail)
    }
}

impl std::fmt::Debug for Follows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.leader {
            Some(leader) => write!(f, "term {} under node {leader}", self.term),
            None => write!(f, "term {} without a leader", self.term),
        }
    }
}
