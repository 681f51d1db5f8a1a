//! The follower: takes what the leader says, and campaigns when it has heard nothing for too long.
//!
//! A learner is a follower without a vote, and a node without a membership is one that waits to be told.
//! All that is kept here belongs to one leader of one term; a new one starts afresh.

use crate::log::Accept;
use crate::read::FollowerReads;
use crate::shared::{Shared, Transition};
use crate::{
    AppendEntries, Carried, Dropped, Index, InstallSnapshot, LogId, Message, Peer, ReadGrant, ReadIndexReply,
    RefusedReason, RoleName, Round, TailChange, Tick, Ticket,
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Follower {
    /// Whom it follows, once an AppendEntries of this term has come.
    pub(crate) leader: Option<Peer>,
    /// When its patience began: at its start, at each word of the leader, at a vote that it granted.
    since: Tick,
    /// For how long its patience lasts, in ticks.
    timeout: u64,
    /// The newest index that an AppendEntries of this term has verified.
    verified: Index,
    /// The newest index that it has acknowledged in this term.
    acknowledged: Index,
    /// The newest round that it has heard of in this term.
    round: Round,
    /// For how long it promised then to depose nobody.
    promised: u64,
    pub(crate) reads: FollowerReads,
}

impl Follower {
    pub(crate) fn new(shared: &mut Shared) -> Follower {
        Follower {
            leader: None,
            since: shared.now,
            timeout: shared.draw_timeout(),
            verified: Index::ZERO,
            acknowledged: Index::ZERO,
            round: Round(0),
            promised: 0,
            reads: FollowerReads::default(),
        }
    }

    /// Whether it heard its leader so recently that it helps nobody to depose it (thesis, section 4.2.3).
    pub(crate) fn hears_leader(&self, shared: &Shared, now: Tick) -> bool {
        self.leader.is_some()
            && shared.rules.hears_leader(now.since(self.since), shared.settings.election_min)
    }

    /// A vote was granted: its candidate gets the time of a whole timeout.
    pub(crate) fn on_granted(&mut self, shared: &Shared) {
        self.since = shared.now;
    }

    /// It was a follower before, too: a new term alone is no word of a leader, and so buys nobody time. Else
    /// one that cannot win could keep waiting, term by term, the one that can.
    pub(crate) fn keep_waiting(&mut self, before: &Follower) {
        self.since = before.since;
    }

    /// The next tick campaigns, or the first one at which it has promised nobody not to.
    pub(crate) fn lose_patience(&mut self) {
        self.timeout = 0;
    }

    pub(crate) fn on_tick(&mut self, shared: &mut Shared) -> Transition {
        if shared.rules.timeout_elapses(shared.now.since(self.since), self.timeout) {
            if shared.may_campaign() {
                return Transition::PreVote;
            }
            // Without a vote it still notices that its leader is gone.
            return if self.leader.is_some() { Transition::Follow } else { Transition::Stay };
        }
        self.ask_leader(shared);
        Transition::Stay
    }

    /// AppendEntries (Figure 2). The term is ours: `raft.rs` has seen to that.
    pub(crate) fn on_append(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        append: AppendEntries,
        carried: &Carried,
    ) -> Transition {
        if shared.rules.is_second_leader(from, self.leader) {
            return shared.drop_input(Dropped::SecondLeader);
        }
        self.leader = Some(from);
        shared.needed = false;
        self.since = shared.now;
        if self.timeout == 0 {
            self.timeout = shared.draw_timeout();
        }
        if append.round >= self.round {
            self.promised = shared.promise(from, append.lease);
        }
        if shared.installing.is_some() {
            // The log is about to go: of all this only that the leader lives counts.
            if append.round > self.round {
                self.round = append.round;
                self.acknowledge(shared, None);
            }
            return Transition::Stay;
        }
        let accept = shared.log.accept(shared.rules, &append, carried);
        if accept == Accept::Impossible {
            return shared.drop_input(Dropped::ContradictsCommitted);
        }
        let mut answer = append.round > self.round;
        self.round = self.round.max(append.round);
        let mut conflict = None;
        match accept {
            Accept::Impossible => {}
            Accept::Conflict(limit) => {
                conflict = Some(limit);
                answer = true;
            }
            Accept::Accepted { truncated, appended_from } => {
                if let Some(last) = truncated {
                    shared.write_truncated(last);
                }
                if let Some(first) = appended_from {
                    shared.out.tail.push(TailChange::TakeReceived(first));
                    shared.write_appended(first);
                }
                if truncated.is_some() || !carried.memberships.is_empty() {
                    shared.announce_members();
                }
                self.verified = self.verified.max(append.last);
                let last = shared.log.last();
                if shared.rules.believes_commit_of(append.round, self.round) {
                    shared.commit_to(shared.rules.commit_of_follower(append.commit, append.last, last));
                }
                // Entries that were all here already: the leader may have missed the acknowledgement.
                answer |= append.count() > 0 && self.matched(shared) >= append.last;
            }
        }
        if answer {
            self.acknowledge(shared, conflict);
        }
        Transition::Stay
    }

    /// InstallSnapshot (Figure 13). The term is ours: `raft.rs` has seen to that.
    pub(crate) fn on_install(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        install: InstallSnapshot,
    ) -> Transition {
        if shared.rules.is_second_leader(from, self.leader) {
            return shared.drop_input(Dropped::SecondLeader);
        }
        self.leader = Some(from);
        shared.needed = false;
        self.since = shared.now;
        let snapshot = install.snapshot;
        let rebuilds = shared.wants_state.is_some_and(|after| snapshot.index > after);
        if snapshot.index > shared.log.commit() || rebuilds {
            if shared.installing.is_none() {
                shared.out.pieces.push((from, install));
            }
            return Transition::Stay;
        }
        if shared.log.term_at(snapshot.index).is_some_and(|term| term != snapshot.term) {
            return shared.drop_input(Dropped::ContradictsCommitted);
        }
        // It has all that already (SN-3): what is committed is in its leader's log.
        self.verified = self.verified.max(snapshot.index);
        self.acknowledge(shared, None);
        Transition::Stay
    }

    /// The log was reset to a snapshot of what is committed, which is in its leader's log.
    pub(crate) fn on_installed(&mut self, shared: &mut Shared, snapshot: LogId) {
        self.verified = self.verified.max(snapshot.index);
        self.acknowledge(shared, None);
    }

    /// A write is done: what it made durable can be acknowledged now.
    pub(crate) fn on_persisted(&mut self, shared: &mut Shared) {
        if self.matched(shared) > self.acknowledged {
            self.acknowledge(shared, None);
        }
    }

    /// The newest index that is durable and verified by an AppendEntries of this term.
    fn matched(&self, shared: &Shared) -> Index {
        shared.rules.acknowledged(self.verified, shared.disk.persisted())
    }

    fn acknowledge(&mut self, shared: &mut Shared, conflict: Option<LogId>) {
        let Some(leader) = self.leader else { return };
        let matched = self.matched(shared);
        self.acknowledged = self.acknowledged.max(matched);
        shared.answer_append(leader, (self.round, self.promised), matched, conflict);
    }

    pub(crate) fn on_read(&mut self, shared: &mut Shared, ticket: Ticket) {
        if shared.log.membership().is_empty() {
            shared.refuse(ticket, RefusedReason::NotConfigured);
        } else if self.leader.is_none() {
            shared.refuse(ticket, RefusedReason::NotLeader(None));
        } else {
            self.reads.join(ticket);
            self.ask_leader(shared);
        }
    }

    pub(crate) fn on_read_index_reply(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        reply: ReadIndexReply,
    ) -> Transition {
        if self.leader != Some(from) || !shared.rules.is_of_this_run(reply.boot, shared.boot) {
            return shared.drop_input(Dropped::Unexpected);
        }
        let question = shared.rules.question_answered(reply.sequence, self.reads.question());
        let Some(tickets) = self.reads.answered(question) else {
            return shared.drop_input(Dropped::Stale);
        };
        // What the leader holds for committed, as far as this term has verified it here: no read waits for a
        // heartbeat to say so again.
        if let Some(index) = reply.index {
            shared.commit_to(index.min(self.verified));
        }
        for ticket in tickets {
            match reply.index {
                Some(index) => shared.out.reads.push(ReadGrant { ticket, index }),
                None => shared.refuse(ticket, RefusedReason::NotLeader(None)),
            }
        }
        self.ask_leader(shared);
        Transition::Stay
    }

    fn ask_leader(&mut self, shared: &mut Shared) {
        let Some(leader) = self.leader else { return };
        let (term, boot, now) = (shared.term(), shared.boot, shared.now);
        let due = self.reads.due(term, boot, &mut shared.question, now, shared.settings.heartbeat);
        if let Some(question) = due {
            shared.send(leader, Message::ReadIndex(question));
        }
    }

    /// The role ends: nobody waits for an answer that cannot come.
    pub(crate) fn end(mut self, shared: &mut Shared) {
        if !shared.rules.answers_reads(RoleName::Follower) {
            return;
        }
        for ticket in self.reads.take_all() {
            shared.refuse(ticket, RefusedReason::NotLeader(None));
        }
    }
}
