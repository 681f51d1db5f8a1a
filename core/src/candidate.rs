//! The candidate: first asks whether it would be elected, then asks to be.
//!
//! A pre-vote (thesis, section 9.6) changes nobody's term or vote, so a node that cannot win disturbs
//! nobody. Questions are asked again at every heartbeat interval, because answers to a pre-vote change:
//! a voter that still heard the old leader a moment ago may have noticed its end by now.

use crate::shared::{Shared, Transition};
use crate::{
    Dropped, HandedOver, LogId, Member, Message, NodeId, Peer, RequestVote, RequestVoteReply, Tally, Term,
    Tick, WriteId,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Whether it only asks so far, in the term before the one that it wants.
    pub(crate) pre: bool,
    /// Which of this node's candidacies it is: only answers to this one count.
    number: u64,
    /// The newest answer of each voter.
    votes: BTreeMap<Peer, bool>,
    /// The write that carries its own vote, which counts when it is durable.
    own_vote: WriteId,
    since: Tick,
    timeout: u64,
    asked: Tick,
    /// The leader that told it to campaign, if one did.
    handed_over: Option<HandedOver>,
}

impl Candidate {
    /// Starts to ask. A pre-vote for itself needs no disk; the vote does, and it is in the newest write.
    pub(crate) fn new(shared: &mut Shared, pre: bool, handed_over: Option<HandedOver>) -> Candidate {
        shared.candidacy = shared.candidacy.wrapping_add(1);
        let mut candidate = Candidate {
            pre,
            number: shared.candidacy,
            votes: BTreeMap::new(),
            own_vote: shared.disk.newest(),
            since: shared.now,
            timeout: shared.draw_timeout(),
            asked: shared.now,
            handed_over,
        };
        if shared.rules.counts_own_vote(pre, false) {
            candidate.votes.insert(shared.me, true);
        }
        candidate.ask(shared);
        candidate
    }

    /// The term that it wants to lead.
    fn campaign(&self, shared: &Shared) -> Term {
        if self.pre { shared.term().next() } else { shared.term() }
    }

    fn ask(&mut self, shared: &mut Shared) {
        self.asked = shared.now;
        let vote = self.question(shared);
        let membership = shared.log.membership();
        let voters =
            membership.others(shared.me.id).map(Member::peer).filter(|peer| membership.is_voter(*peer));
        let silent: Vec<_> = voters.filter(|peer| self.votes.get(peer) != Some(&true)).collect();
        for peer in silent {
            shared.send(peer, Message::RequestVote(vote));
        }
    }

    /// Asks one voter out of turn.
    pub(crate) fn ask_again(&self, shared: &mut Shared, voter: Peer) {
        if shared.log.membership().is_voter(voter) {
            let vote = self.question(shared);
            shared.send(voter, Message::RequestVote(vote));
        }
    }

    fn question(&self, shared: &Shared) -> RequestVote {
        let campaign = self.campaign(shared);
        let (question, last) = (self.number, shared.log.last_id());
        RequestVote { campaign, pre: self.pre, question, last, handed_over: self.handed_over }
    }

    pub(crate) fn on_tick(&mut self, shared: &mut Shared) -> Transition {
        if shared.rules.timeout_elapses(shared.now.since(self.since), self.timeout) {
            return if shared.may_campaign() { Transition::PreVote } else { Transition::Follow };
        }
        if shared.now.since(self.asked) >= shared.settings.heartbeat {
            self.ask(shared);
        }
        Transition::Stay
    }

    pub(crate) fn on_persisted(&mut self, shared: &mut Shared, id: WriteId) -> Transition {
        if shared.rules.counts_own_vote(self.pre, id >= self.own_vote) {
            self.votes.insert(shared.me, true);
        }
        self.count(shared)
    }

    pub(crate) fn on_vote_reply(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        reply: RequestVoteReply,
    ) -> Transition {
        if !shared.rules.answers(&reply, &self.question(shared)) {
            return shared.drop_input(Dropped::Stale);
        }
        if !shared.log.membership().is_voter(from) {
            return shared.drop_input(Dropped::NotMember);
        }
        let granted = shared.rules.is_granted(&reply);
        // A refusal never takes a grant back: it may be an older answer that was overtaken.
        let silent = || shared.log.membership().voting_peers().find(|peer| !self.votes.contains_key(peer));
        let voter = shared.rules.counts_for(from, silent);
        let vote = self.votes.entry(voter).or_insert(granted);
        *vote |= granted;
        self.count(shared)
    }

    pub(crate) fn count(&self, shared: &Shared) -> Transition {
        let vote_of = |peer: Peer| self.votes.get(&peer).copied();
        match shared.rules.election(shared.log.membership(), self.pre, vote_of) {
            Tally::Won if self.pre => Transition::Campaign,
            // It asked nobody before its term was durable, so an answer that comes earlier is made up.
            Tally::Won if !self.votes.contains_key(&shared.me) => Transition::Stay,
            Tally::Won => Transition::Lead,
            // Answers to a pre-vote change with time; a lost election stays lost.
            Tally::Lost if !self.pre => Transition::Follow,
            Tally::Lost | Tally::Open => Transition::Stay,
        }
    }

    /// Whether it goes on rather than grant a pre-vote to a rival that asks as well.
    pub(crate) fn goes_before(&self, shared: &Shared, rival: NodeId, last: LogId) -> bool {
        let (own, since) = ((shared.log.last_id(), shared.me.id), shared.now.since(self.since));
        self.pre && shared.rules.goes_first(own, (last, rival), since, shared.settings.heartbeat)
    }
}
