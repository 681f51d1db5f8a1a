//! The rules, on one page: those of Figure 2 in its order, then those of the thesis and of this design.
//!
//! Each is a small question with its sentence and its source; the roles ask them and carry out the answers.
//! A quotation without another source is from Figure 2, and the section after it explains it: §5.4.1 is one of the paper
//! (extended version), "thesis, section 6.4" one of Ongaro's thesis, and D5.1.3 a rule of this design, which goes beyond
//! both (`docs/design-rules.md`).
//!
//! Those of leases stand in `rules/lease.rs`.
//!
//! The names in quotation marks within the code are mutants: rules that can be broken on purpose, so that the
//! simulator can show that it would notice (`docs/testing.md` lists what finds each). They stand in the rules and nowhere
//! else in the core. Without the feature `mutants` nothing can be broken, and they are gone from the program.

mod lease;
mod read;

use crate::{
    AppendEntries, Broken, HandedOver, HardState, Index, LogId, Member, Membership, Message, NodeId, Peer,
    Refusal, RequestVote, RequestVoteReply, Round, Tally, Term, WriteId,
};
use alloc::vec::Vec;

/// The most voters of a membership that a change may ask for.
pub const MAX_VOTERS: usize = 9;

/// The rules that a node goes by: all of them, or all but one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) broken: Broken,
}

/// What a quorum is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quorum {
    /// What it holds durably: the commit index.
    Commit,
    /// Which round it has echoed.
    Read,
    /// When it was last heard of.
    Contact,
    /// Until when it deposes nobody.
    Lease,
}

/// State.
impl Rules {
    /// currentTerm and votedFor are "updated on stable storage before responding to RPCs": what is written of
    /// them.
    pub(crate) fn hard_state_to_write(self, state: HardState) -> Option<HardState> {
        if self.broken.is("new-term-not-written") && state.vote.is_none() {
            return None;
        }
        let forgets = self.broken.is("vote-not-written");
        Some(if forgets { HardState { vote: None, ..state } } else { state })
    }

    /// The same sentence: whether a message may leave at once, or waits for all writes that were handed out before it. A
    /// vote waits, and so does a candidate's question, which is its vote for itself; and nothing else is said in a term
    /// that is not durable yet (D5.1.3).
    pub(crate) fn leaves_at_once(self, message: &Message, term_is_durable: bool) -> bool {
        match message {
            Message::RequestVote(_) => self.broken.is("vote-request-not-held"),
            Message::RequestVoteReply(_) => self.broken.is("vote-not-held"),
            _ => term_is_durable || self.broken.is("term-not-awaited"),
        }
    }

    /// "votedFor: candidateId that received vote in current term" (§5.2): a vote lasts as long as its term, whatever
    /// the role; but "on conversion to candidate, start election: increment currentTerm, vote for self" (§5.2).
    pub(crate) fn hard_state_of_role(
        self,
        state: HardState,
        campaigns: bool,
        elected: bool,
        me: Peer,
    ) -> HardState {
        if campaigns {
            return HardState { term: state.term.next(), vote: Some(me), ..state };
        }
        let clears = self.broken.is("vote-cleared-with-role") && !elected;
        if clears { HardState { vote: None, ..state } } else { state }
    }

    /// "commitIndex: […] initialized to 0, increases monotonically."
    pub(crate) fn commit_index(self, known: Index, told: Index) -> Index {
        if self.broken.is("commit-goes-back") { told } else { known.max(told) }
    }

    /// "matchIndex[]: […] initialized to 0, increases monotonically."
    pub(crate) fn match_index(self, known: Index, acknowledged: Index) -> Index {
        if self.broken.is("match-goes-back") { acknowledged } else { known.max(acknowledged) }
    }
}

/// Rules for all servers.
impl Rules {
    /// "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower"
    /// (§5.1).
    pub(crate) fn is_newer_term(self, term: Term, current: Term, leads: bool) -> bool {
        term > current && !(leads && self.broken.is("leader-ignores-newer-terms"))
    }

    /// The newest term that a message may bring, given the one with which the stretch of time began over which that is
    /// bounded (D5.1.11). Each stretch of a maximum election timeout allows 2^31, so that any such time, which touches
    /// two of them, sees a rise of at most 2^32: whoever pushes needs decades to the end of all terms, and nodes that
    /// were pushed apart meet again.
    pub(crate) fn furthest_term(self, at_its_start: Term) -> Term {
        Term(at_its_start.0.saturating_add(1 << 31))
    }

    /// Such a stretch lasts for a maximum election timeout.
    pub(crate) fn bounds_terms_anew(self, since: u64, election_max: u64) -> bool {
        since >= election_max
    }

    /// A message is for one incarnation of one node, and a node does not write to itself (D5.3.2).
    fn is_delivered_right(self, from: Peer, to: Peer, me: Peer) -> bool {
        let before = to.id == me.id && to.incarnation < me.incarnation;
        let mine = to == me || (before && self.broken.is("wiped-disk-counts"));
        (mine || self.broken.is("any-receiver")) && from.id != me.id
    }

    /// Who says something, if it is for this node: another node, on the disk that it names and on no other (D5.3.2).
    pub(crate) fn sender(self, from: Peer, to: Peer, me: Peer, membership: &Membership) -> Option<Peer> {
        let named = membership.members.get(&from.id).map(Member::peer);
        let before = |named: &Peer| named.incarnation < from.incarnation;
        let other = named.filter(|named| before(named) && self.broken.is("wiped-disk-counts"));
        self.is_delivered_right(from, to, me).then_some(other.unwrap_or(from))
    }

    /// Whom the cluster has removed is not heard (D5.3.2). Whom it only does not know yet is: the sender goes by a
    /// membership (`theirs`) that is newer than the committed one here.
    pub(crate) fn was_removed(self, from: Peer, theirs: LogId, committed: &(LogId, Membership)) -> bool {
        let (id, membership) = committed;
        !membership.is_empty() && !membership.contains(from) && *id > theirs
    }
}

/// RequestVote RPC, receiver implementation.
impl Rules {
    /// Whether a vote is refused, and why. None: "grant vote".
    pub(crate) fn refusal(
        self,
        vote: &RequestVote,
        from: Peer,
        state: HardState,
        own_last: LogId,
    ) -> Option<Refusal> {
        if self.is_old_campaign(vote.campaign, state.term) {
            Some(Refusal::Term)
        } else if !self.vote_is_free(vote.campaign, from, state) {
            Some(Refusal::Voted)
        } else if !self.is_up_to_date(vote.last, own_last) {
            Some(Refusal::Log)
        } else {
            None
        }
    }

    /// 1. "Reply false if term < currentTerm" (§5.1).
    fn is_old_campaign(self, campaign: Term, current: Term) -> bool {
        campaign < current
    }

    /// 2. "If votedFor is null or candidateId" (§5.2): each voter votes once in a term. In a later term, for which a
    ///    pre-vote may ask, it has not voted yet.
    fn vote_is_free(self, campaign: Term, candidate: Peer, state: HardState) -> bool {
        campaign != state.term
            || state.vote.is_none_or(|cast| cast == candidate)
            || self.broken.is("second-vote")
    }

    /// 2. "and candidate's log is at least as up-to-date as receiver's log" (§5.4.1): the later last term, and of
    ///    equal last terms the longer log. That is the order of [`LogId`].
    fn is_up_to_date(self, candidate: LogId, own: LogId) -> bool {
        if self.broken.is("log-compared-by-index") {
            candidate.index >= own.index
        } else if self.broken.is("log-compared-by-term") {
            candidate.term >= own.term
        } else if self.broken.is("log-compared-index-first") {
            (candidate.index, candidate.term) >= (own.index, own.term)
        } else {
            candidate >= own
        }
    }
}

/// AppendEntries RPC, receiver implementation.
impl Rules {
    /// 1. "Reply false if term < currentTerm" (§5.1).
    pub(crate) fn is_old_append(self, term: Term, current: Term) -> bool {
        term < current && !self.broken.is("append-of-older-term")
    }

    /// 1. "Reply" (§5.1), so that a deposed leader hears of a term that is newer than its own.
    pub(crate) fn tells_old_leader(self, term: Term, current: Term) -> bool {
        term < current && !self.broken.is("old-leader-not-told")
    }

    /// "Election Safety: at most one leader can be elected in a given term" (Figure 3, §5.2). A second one is not
    /// believed.
    pub(crate) fn is_second_leader(self, from: Peer, leader: Option<Peer>) -> bool {
        leader.is_some_and(|leader| leader != from) && !self.broken.is("append-of-older-term")
    }

    /// 2. "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm" (§5.3).
    pub(crate) fn matches(self, prev: LogId, own_term: Option<Term>) -> bool {
        own_term == Some(prev.term)
    }

    /// 3. "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry
    ///    and all that follow it" (§5.3), and 4. "Append any new entries not already in the log": the message's entries
    ///    are taken from the first that the log lacks or has in another term. A message that agrees with the log deletes
    ///    nothing, however old it is.
    pub(crate) fn first_to_take(
        self,
        append: &AppendEntries,
        differs_at: Option<Index>,
        commit: Index,
        last: Index,
    ) -> Option<Index> {
        let always = self.broken.is("every-append-truncates") && append.count() > 0;
        let always = (always && append.prev.index >= commit).then(|| append.prev.index.next());
        let spared = |first: &Index| *first > commit && *first <= last;
        let spares = self.broken.is("conflict-not-truncated");
        always.or(differs_at).filter(|first| !(spares && spared(first)))
    }

    /// 3. "delete the existing entry and all that follow it" (§5.3): the last entry that stays, if the first that is
    ///    taken stands where this log has one.
    pub(crate) fn last_to_keep(self, first_to_take: Index, last: Index) -> Option<Index> {
        (first_to_take <= last).then(|| first_to_take.prev())
    }

    /// 5. "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)" (§5.3): the
    ///    last one that this message has verified, since after it the log may hold another leader's entries.
    pub(crate) fn commit_of_follower(self, leader_commit: Index, verified: Index, last: Index) -> Index {
        leader_commit.min(if self.broken.is("commit-unverified") { last } else { verified })
    }

    /// A newer round has said as much; since an earlier one, the leader may have come to keep from this node that an entry is
    /// committed (D5.5.5).
    pub(crate) fn believes_commit_of(self, round: Round, newest: Round) -> bool {
        round >= newest
    }

    /// "If existing log entry has same index and term as snapshot's last included entry, retain log entries following it
    /// and reply"; else "discard the entire log" (Figure 13, 6 and 7).
    pub(crate) fn keeps_suffix(self, own_term: Option<Term>, snapshot: LogId) -> bool {
        own_term == Some(snapshot.term) || (own_term.is_some() && self.broken.is("snapshot-keeps-any-log"))
    }

    /// The log is "updated on stable storage before responding to RPCs": a follower acknowledges what is durable, and
    /// verified by its leader in this term (D5.1.2).
    pub(crate) fn acknowledged(self, verified: Index, persisted: Index) -> Index {
        if self.broken.is("ack-before-durable") {
            verified
        } else if self.broken.is("ack-unverified") {
            persisted
        } else {
            verified.min(persisted)
        }
    }
}

/// Followers.
impl Rules {
    /// "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to
    /// candidate: convert to candidate" (§5.2); and candidates, "if election timeout elapses: start new election" (§5.2).
    pub(crate) fn timeout_elapses(self, waited: u64, timeout: u64) -> bool {
        waited >= timeout
    }

    /// "or granting vote to candidate" (§5.2): a vote that was refused buys nobody time.
    pub(crate) fn restarts_timeout(self, granted: bool) -> bool {
        granted || self.broken.is("refusal-buys-time")
    }
}

/// Candidates.
impl Rules {
    /// Who votes may campaign (§5.2), unless it knows that its machine differs from that of a majority (D5.1.14).
    pub(crate) fn may_campaign(self, votes: bool, voted: bool, needed: bool, fenced: bool) -> bool {
        let outside = (voted || needed) && !self.broken.is("leaving-voter-never-campaigns");
        let may = votes || outside || self.broken.is("learner-campaigns");
        may && (!fenced || self.broken.is("fenced-node-leads"))
    }

    /// A candidate asks whether it would be elected before it enters a term (thesis, section 9.6), but for one that its
    /// leader told to campaign (thesis, section 3.10).
    pub(crate) fn asks_first(self, told: Option<HandedOver>) -> bool {
        told.is_none() && !self.broken.is("no-pre-vote")
    }

    /// "Vote for self" (§5.2): counted when it is durable, as every vote (D5.1.3). A pre-vote is none and needs no disk.
    pub(crate) fn counts_own_vote(self, pre: bool, durable: bool) -> bool {
        pre || durable || self.broken.is("own-vote-not-awaited")
    }

    /// An answer counts for the very question that it answers, whose number it repeats (D5.1.13). A pre-vote binds
    /// nobody, so that an old one says nothing: its voter may hear a leader by now. And a vote is of one term.
    pub(crate) fn answers(self, reply: &RequestVoteReply, asked: &RequestVote) -> bool {
        let any_kind = self.broken.is("pre-vote-counts-as-vote");
        let any_campaign = self.broken.is("vote-of-any-campaign");
        (reply.pre == asked.pre || any_kind)
            && (reply.campaign == asked.campaign || any_campaign)
            && (reply.question == asked.question || any_kind || any_campaign)
    }

    /// "voteGranted: true means candidate received vote."
    pub(crate) fn is_granted(self, reply: &RequestVoteReply) -> bool {
        reply.refusal.is_none() || self.broken.is("refusal-counts-as-vote")
    }

    /// "votes received from majority of servers" (§5.2): a server counts once, however often it answers.
    pub(crate) fn counts_for(self, from: Peer, silent: impl FnOnce() -> Option<Peer>) -> Peer {
        if self.broken.is("votes-not-voters") { silent().unwrap_or(from) } else { from }
    }

    /// "If votes received from majority of servers: become leader" (§5.2).
    pub(crate) fn election(
        self,
        membership: &Membership,
        pre: bool,
        vote_of: impl Fn(Peer) -> Option<bool>,
    ) -> Tally {
        if self.broken.is("joint-elects-by-new-voters") {
            return membership.after().tally(vote_of);
        }
        let granted = |peer| vote_of(peer) == Some(true);
        if self.broken.is("election-quorum-too-small")
            && !pre
            && one_too_few(membership, granted) == Some(true)
        {
            return Tally::Won;
        }
        membership.tally(vote_of)
    }

    /// Of two that ask for pre-votes at once the one with the greater log, then name, goes first (D5.4.2); but only for a
    /// moment, since it may not reach a quorum.
    pub(crate) fn goes_first(
        self,
        own: (LogId, NodeId),
        rival: (LogId, NodeId),
        since: u64,
        heartbeat: u64,
    ) -> bool {
        own > rival && since < heartbeat
    }
}

/// Changes of membership (§6; thesis, chapter 4), the first of which founds a cluster.
impl Rules {
    /// Only a node whose log and term are blank begins a cluster (D5.3.1): else it has one, or was asked for its vote in one.
    pub(crate) fn may_found(self, last: Index, term: Term) -> bool {
        last == Index::ZERO && term == Term::ZERO
    }

    /// What a cluster may begin with: fields that fit each other, one set of voters, and this very node among them.
    pub(crate) fn may_begin(self, membership: &Membership, me: Peer) -> bool {
        membership.is_well_formed() && !membership.is_joint() && membership.is_voter(me)
    }

    /// A leader changes nothing before it has committed an entry of its own term: else two changes that do not know of
    /// each other could be committed by sets that do not meet (MC-1).
    pub(crate) fn may_change(self, knows_commit: bool) -> bool {
        knows_commit || self.broken.is("change-before-own-commit")
    }

    /// One change at a time: the newest membership is joint, or not committed yet.
    pub(crate) fn is_changing(self, newest: &Membership, at: Index, commit: Index) -> bool {
        (newest.is_joint() || at > commit) && !self.broken.is("two-changes-at-once")
    }

    /// What a change may ask for: a membership of the same cluster, whose fields fit each other, not joint, with few enough
    /// voters that a majority of them stays quick, and in which the leader's name, if it is there, is the leader's own
    /// (D5.1.15).
    pub(crate) fn may_become(self, now: &Membership, to: &Membership, leader: Peer) -> bool {
        to.is_well_formed()
            && !to.is_joint()
            && to.cluster == now.cluster
            && to.voters.len() <= MAX_VOTERS
            && to.members.get(&leader.id).is_none_or(|member| member.peer() == leader)
    }

    /// "The leader should also abort the change if the new server […] is so slow that it will never catch up" (thesis,
    /// section 4.2.1): nobody gets a vote who is no member yet, or who has not caught up.
    pub(crate) fn is_late(self, member: bool, caught_up: bool) -> bool {
        !member || !(caught_up || self.broken.is("votes-before-caught-up"))
    }

    /// "The replication of entries to the new server is split into rounds" (thesis, section 4.2.1): one ends where the
    /// leader's log ended when it began.
    pub(crate) fn ends_round_of_catching_up(self, held: Index, upto: Index) -> bool {
        held >= upto
    }

    /// "If the last round lasts less than an election timeout, then the leader adds the new server to the cluster" (thesis,
    /// section 4.2.1), and so with the one that goes on.
    pub(crate) fn is_caught_up(self, last_round: Option<u64>, this_round: u64, limit: u64) -> bool {
        last_round.is_some_and(|took| took < limit) && this_round < limit
    }

    /// A change after which no majority would answer is refused: a joint membership cannot be taken back, and one that cannot
    /// be committed ends the cluster. A voter counts that has answered this leader, and not too long ago.
    pub(crate) fn helps_a_change(self, in_this_term: bool, silent_for: u64, election_max: u64) -> bool {
        (in_this_term || self.broken.is("silence-taken-for-answer")) && silent_for < election_max
    }

    /// What follows `now` on the way to `to`. Where the voters stay the same, disk by disk, that is `to`. Otherwise it is
    /// joint: "agreement (for elections and entry commitment) requires separate majorities from both the old and new
    /// configurations" (§6).
    pub(crate) fn next_membership(self, now: &Membership, to: Membership) -> Membership {
        if now.voting_peers().eq(to.voting_peers()) || self.broken.is("change-without-joint") {
            return to;
        }
        let voters = now.members.iter().filter(|(id, _)| now.voters.contains(id));
        Membership { outgoing: voters.map(|(id, member)| (*id, member.clone())).collect(), ..to }
    }

    /// "Once C_old,new has been committed, […] it is now safe for the leader to create a log entry describing C_new and
    /// replicate it to the cluster" (§6).
    pub(crate) fn ends_change(self, at: Index, commit: Index) -> bool {
        (at <= commit || self.broken.is("joint-left-uncommitted")) && !self.broken.is("joint-never-left")
    }

    /// "The leader steps down (returns to follower state) once it has committed the C_new log entry" (§6) in which it does
    /// not vote.
    pub(crate) fn must_leave(self, committed: bool, votes: bool) -> bool {
        committed && !votes && !self.broken.is("removed-leader-stays")
    }

    /// A member has progress from the moment that its membership is appended (D5.1.15). `first`: the leader knows nobody
    /// yet.
    pub(crate) fn is_met(self, peer: Peer, newest: &Membership, first: bool) -> bool {
        newest.contains(peer) && (first || !self.broken.is("newcomers-not-met"))
    }

    /// Up to where a member may be sent the log: one that loses its vote by the entry `at` hears of that when it is
    /// certain, so that nobody stops to vote for a change that may yet be undone (D5.1.16).
    pub(crate) fn furthest(self, loses_vote: bool, at: Index, commit: Index, last: Index) -> Index {
        if loses_vote && at > commit { at.prev() } else { last }
    }

    /// Whoever left is forgotten when it knows that for certain, or does not answer.
    pub(crate) fn lets_go(self, at: Index, commit: Index, knows: bool, gave_up: bool) -> bool {
        at <= commit && (knows || gave_up)
    }

    /// "A server always uses the latest configuration in its log, regardless of whether the entry is committed" (§6), and
    /// so the one before when that is truncated (MC-3).
    pub(crate) fn keeps_membership(self, at: Index, last: Index) -> bool {
        at <= last || self.broken.is("truncation-keeps-membership")
    }
}

/// Leadership transfer (thesis, section 3.10).
impl Rules {
    /// "The prior leader stops accepting new client requests", once it makes sense: a target that is far behind is
    /// brought up to date first, its log and its machine.
    pub(crate) fn stops_taking(self, matched: Index, applied: Index, upto: Index) -> bool {
        matched >= upto && applied >= upto
    }

    /// "The prior leader fully updates the target server's log to match its own": what the target holds durably is all
    /// there is (LT-1). And what is in the log is committed and applied by then, so that nobody hears that its fate is
    /// unknown.
    pub(crate) fn may_hand_over(self, held: Index, last: Index, settled: bool) -> bool {
        (held >= last && settled) || self.broken.is("transfer-to-lagging")
    }

    /// TimeoutNow names the leader's last entry, which the target must hold.
    pub(crate) fn last_to_hold(self, last: LogId, matched: Option<LogId>) -> LogId {
        if self.broken.is("transfer-to-lagging") { matched.unwrap_or(last) } else { last }
    }

    /// "If leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer
    /// and resumes accepting client requests" (LT-2).
    pub(crate) fn ends_transfer(self, hopeless: bool) -> bool {
        hopeless && !self.broken.is("transfer-never-ends")
    }

    /// It does so for a moment at least, before it hands over anew.
    pub(crate) fn rests(self, since: u64, heartbeat: u64) -> bool {
        since < heartbeat
    }

    /// The target "starts a new election"; but the order of a leader that is deposed by now is none.
    pub(crate) fn is_old_timeout_now(self, term: Term, current: Term) -> bool {
        term < current && !self.broken.is("timeout-now-of-older-term")
    }

    /// Only a follower of the very leader that says so takes over.
    pub(crate) fn obeys(self, follows: bool) -> bool {
        follows || self.broken.is("timeout-now-of-older-term")
    }

    /// Who takes over votes, by its own newest membership, and may campaign (EL-13, D5.1.9).
    pub(crate) fn may_take_over(self, votes: bool, may_campaign: bool) -> bool {
        (votes && may_campaign) || self.broken.is("learner-takes-over")
    }

    /// Who takes over holds the entry that it must hold, on its disk (LT-1).
    pub(crate) fn is_up_to_take_over(self, holds: bool, last: Index, persisted: Index) -> bool {
        (holds && last <= persisted) || self.broken.is("takes-over-unflushed")
    }

    /// Members that hear a leader help to depose it if it gave way itself (D5.4.4): the candidate names that very leader,
    /// and its term.
    pub(crate) fn overrules(self, handed: Option<HandedOver>, leader: Option<Peer>, current: Term) -> bool {
        let any = self.broken.is("transfer-of-any-leader");
        handed.is_some_and(|handed| any || (Some(handed.by) == leader && handed.term == current))
    }
}

/// Leaders.
impl Rules {
    /// "Send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle periods to prevent election
    /// timeouts" (§5.2).
    pub(crate) fn heartbeat_is_due(self, since: u64, heartbeat: u64) -> bool {
        since >= heartbeat
    }

    /// "If last log index ≥ nextIndex for a follower: send AppendEntries RPC with log entries starting at nextIndex"
    /// (§5.3).
    pub(crate) fn has_entries_for(self, last: Index, next: Index) -> bool {
        last >= next
    }

    /// "matchIndex" is what a follower holds for good: one whose log ends before what it had acknowledged, when it was sent
    /// what it answers now, has lost entries, and is counted no more (D5.3.3).
    pub(crate) fn has_lost_entries(self, answers: bool, last: Index, acknowledged: Index) -> bool {
        answers && last < acknowledged
    }

    /// "a majority of matchIndex[i] ≥ N" (§5.3): the largest value that a quorum has reached, of whatever it is asked
    /// for.
    pub(crate) fn reached<T: Ord + Copy + Default>(
        self,
        what: Quorum,
        membership: &Membership,
        value_of: impl Fn(Peer) -> T,
    ) -> T {
        let too_small = match what {
            Quorum::Commit => self.broken.is("commit-quorum-too-small"),
            Quorum::Read => self.broken.is("read-quorum-too-small"),
            Quorum::Lease => self.broken.is("lease-quorum-too-small"),
            Quorum::Contact => false,
        };
        if what == Quorum::Commit && self.broken.is("joint-commits-by-new-voters") {
            return membership.after().reached(&value_of);
        }
        if what == Quorum::Lease && self.broken.is("lease-by-new-voters") {
            return membership.after().reached(&value_of);
        }
        let reached = membership.reached(&value_of);
        if too_small { one_too_few(membership, value_of).unwrap_or(reached) } else { reached }
    }

    /// The leader's own log counts as far as it is durable, as everybody's (D5.1.3; thesis, section 10.2.1).
    pub(crate) fn own_match(self, persisted: Index, last: Index) -> Index {
        if self.broken.is("leader-counts-unsynced") { last } else { persisted }
    }

    /// "If there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥ N, and log[N].term ==
    /// currentTerm: set commitIndex = N" (§5.3, §5.4). An older entry on a majority may still be overwritten (§5.4.2,
    /// Figure 8); one of the leader's own term commits all before it.
    pub(crate) fn commits(
        self,
        held: Index,
        commit: Index,
        current: Term,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> bool {
        if self.broken.is("commit-stops-at-older-term") && term_at(commit.next()) != Some(current) {
            return false;
        }
        term_at(held) == Some(current) || self.broken.is("older-term-committed-by-count")
    }

    /// An answer of an older term says nothing of this one (D5.1.2). The paper rejects requests with "a stale term
    /// number" (§5.1); answers need it as much.
    pub(crate) fn is_old_reply(self, term: Term, current: Term) -> bool {
        term < current && !self.broken.is("reply-of-older-term")
    }

    /// "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry" (§5.3): to where the logs could
    /// match at most, whole terms at a time, as the end of that section suggests. nextIndex stays above matchIndex, which
    /// only increases: an answer that says less than is known by now is an old one.
    pub(crate) fn may_back_up(self, limit: Index, matched: Index, next: Index) -> bool {
        let old = limit < matched && !self.broken.is("next-goes-below-match");
        limit.next() <= next && !old && !self.broken.is("conflict-ignored")
    }

    /// Entries on their way to one follower are bounded (D5.1.6), in messages and in bytes.
    pub(crate) fn window_is_open(self, messages: usize, most: usize, bytes_left: u64) -> bool {
        (messages < most && bytes_left > 0) || self.broken.is("window-unbounded")
    }

    /// A request to send entries stays open until the driver has reported what became of it (D5.1.6): none is after that.
    pub(crate) fn open_after_report(self, open: Option<LogId>) -> Option<LogId> {
        open.filter(|_| self.broken.is("report-of-sending-lost"))
    }

    /// nextIndex moves by such a report alone (D5.1.6), if what left was still wanted; what was not is a harmless extra.
    pub(crate) fn moves_next(self, wanted: bool, last: Index, next: Index) -> bool {
        wanted && last >= next
    }

    /// A leader steps down "if an election timeout elapses without a successful round of heartbeats to a majority of
    /// its cluster" (thesis, section 6.2).
    pub(crate) fn has_lost_quorum(self, silent_for: u64, election_max: u64) -> bool {
        silent_for >= election_max && !self.broken.is("no-check-quorum")
    }

    /// A leader whose own disk hangs hands over, before it gives up (D5.1.10).
    pub(crate) fn disk_is_sick(self, age: u64, election_max: u64) -> bool {
        age > election_max && !self.broken.is("stalled-disk-leads")
    }

    /// A leader whose own disk hangs gives way to one whose disk does not (D5.1.10).
    pub(crate) fn disk_is_stalled(self, age: u64, election_max: u64) -> bool {
        age > election_max.saturating_mul(2) && !self.broken.is("stalled-disk-leads")
    }
}

/// Members that hear a leader (§6; thesis, section 4.2.3; D5.4.2).
impl Rules {
    /// "within the minimum election timeout of hearing from a current leader": a leader itself hears a quorum, or does not.
    pub(crate) fn hears_leader(self, silent_for: u64, election_min: u64) -> bool {
        silent_for < election_min
    }

    /// "if a server receives a RequestVote request within the minimum election timeout of hearing from a current
    /// leader, it does not update its term or grant its vote."
    pub(crate) fn helps_to_depose(self, hears_leader: bool) -> bool {
        !hears_leader || self.broken.is("no-stickiness")
    }
}

/// The disk.
impl Rules {
    /// A write makes safe what it wrote and no truncation has taken back since (D5.1.1).
    pub(crate) fn safe_after_truncation(self, safe: Index, last: Index) -> Index {
        if self.broken.is("truncation-spares-writes-under-way") { safe } else { safe.min(last) }
    }

    /// The writer works in order, so a write is done when it, or a later one, is reported (D5.1.1).
    pub(crate) fn is_done(self, write: WriteId, reported: WriteId) -> bool {
        write <= reported || self.broken.is("completion-of-one-is-of-all")
    }
}

/// The largest value that one voter fewer than a quorum has reached.
fn one_too_few<T: Ord + Copy>(membership: &Membership, value_of: impl Fn(Peer) -> T) -> Option<T> {
    let mut values: Vec<T> = membership.voting_peers().map(value_of).collect();
    values.sort_unstable();
    values.get(values.len() - values.len() / 2).copied()
}
