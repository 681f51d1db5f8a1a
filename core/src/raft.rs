//! The node: takes an input, lets the role handle it, and carries out what the role decides.
//!
//! This is the one place that changes roles and the one place of the term rule ("if RPC request or
//! response contains term T > currentTerm: set currentTerm = T, convert to follower", Figure 2). The rest
//! is a table of who handles what. Its parts are what a node does about snapshots (`raft/install.rs`) and about
//! being handed the leadership (`raft/transfer.rs`), and what can be seen of it (`raft/view.rs`).

use crate::candidate::Candidate;
use crate::disk::Disk;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::lease::Promises;
use crate::log::Log;
use crate::progress::Progress;
use crate::rng::Rng;
use crate::rules::Rules;
use crate::shared::{Shared, Transition};
use crate::{
    Alarm, AppendEntries, BadSetting, Boot, Broken, Carried, Dropped, Envelope, HardState, Held, Index,
    Input, LogId, Membership, Message, NodeId, Output, Peer, ReadIndex, ReadIndexReply, Refusal,
    RefusedReason, RequestVote, RequestVoteReply, RoleName, Round, Run, Settings, TailChange, Term, Tick,
    Ticket, WriteId,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;

mod install;
mod transfer;
mod view;

/// A Raft node without its body: no disk, no network, no clock, no threads.
///
/// Feed it everything that happens through [`step`](Raft::step) and carry out what it returns. It is
/// deterministic, so the same inputs give the same outputs, and cheap to clone, so a run can be forked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raft {
    pub(crate) shared: Shared,
    pub(crate) role: Role,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

/// What a node finds on its disk when it starts, all of it durable. The default is a blank node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// The newest term and vote.
    pub hard_state: HardState,
    /// The newest entry that is no longer in the log because a snapshot covers it.
    pub purged: LogId,
    /// The entry up to which the newest durable snapshot stands for the log: not before `purged`, and in the log, or
    /// equal to it.
    pub snapshot: LogId,
    /// The entry, after `snapshot`, up to which the state machine holds everything on a disk of its own, if it does. It
    /// was committed. None: the machine stands where the snapshot ends.
    pub applied: Option<Index>,
    /// The terms of the entries after `purged`.
    pub runs: Vec<Run>,
    /// The index of the last entry; `purged.index` if there is none.
    pub last: Index,
    /// The memberships that the log and the snapshot hold, oldest first.
    pub memberships: Vec<(LogId, Membership)>,
}

impl Raft {
    /// A node as it was when it stopped. It starts as a follower, and as the only voter campaigns with the first tick; the commit
    /// index is found out anew.
    ///
    /// `seed` decides the election timeouts: give every start of every node another one. `boot` names this
    /// life of the process.
    pub fn new(
        me: Peer,
        boot: Boot,
        settings: Settings,
        seed: u64,
        restored: Restored,
        now: Tick,
    ) -> Result<Raft, BadSetting> {
        settings.validate()?;
        let Restored { hard_state, purged, snapshot, applied, runs, last, memberships } = restored;
        let commit = snapshot.index.max(purged.index).max(applied.unwrap_or(Index::ZERO));
        let mut shared = Shared {
            me,
            boot,
            settings,
            rules: Rules::default(),
            rng: Rng::new(seed ^ me.id.0.rotate_left(32)),
            now,
            hard_state,
            promises: Promises::after_start(now, hard_state.promised),
            log: Log::new(purged, runs, last, commit, memberships),
            disk: Disk::new(last),
            applied: commit,
            installing: None,
            fenced: false,
            needed: false,
            wants_state: None,
            machine_stopped: false,
            no_transfers: BTreeSet::new(),
            question: 0,
            term_window: (now, hard_state.term),
            candidacy: boot.0.rotate_left(32),
            out: Output::default(),
            held: Vec::new(),
        };
        let mut follower = Follower::new(&mut shared);
        // Nobody else could be leader, so there is nobody to wait for.
        let membership = shared.log.membership();
        if membership.voting_peers().eq([me]) && !membership.is_joint() {
            follower.lose_patience();
        }
        Ok(Raft { shared, role: Role::Follower(follower) })
    }

    /// From now on it breaks this rule.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, broken: Broken) {
        self.shared.rules = Rules { broken };
    }

    /// The rule that it breaks.
    #[doc(hidden)]
    pub fn broken(&self) -> Broken {
        self.shared.rules.broken
    }

    /// Handles one input at the moment `now`, and returns what is to be done.
    ///
    /// `now` never runs backwards (an older one is taken as the newest seen), and is read after the inputs
    /// of the turn were taken, so that a process that slept finds its messages before its timers.
    pub fn step(&mut self, now: Tick, input: Input) -> Output {
        self.shared.now = self.shared.now.max(now);
        let transition = match input {
            Input::Tick => self.on_tick(),
            Input::Receive(envelope, carried) => self.on_receive(envelope, &carried),
            Input::Propose { ticket, count } => self.on_propose(ticket, count),
            Input::Read { ticket } => self.on_read(ticket),
            Input::Forget(tickets) => self.on_forget(&tickets),
            Input::Bootstrap { ticket, membership } => self.on_bootstrap(ticket, membership),
            Input::ChangeMembership { ticket, expected, to } => self.on_change(ticket, expected, to),
            Input::TransferLeadership { ticket, to } => self.on_transfer(ticket, to),
            Input::KnowNoTransfers(peers) => {
                self.shared.no_transfers = peers;
                Transition::Stay
            }
            Input::Persisted(id) => self.on_persisted(id),
            Input::Sent { to, term, prev, last, bytes } => {
                self.on_report(term, |leader, shared| leader.on_sent(shared, to, prev, last, bytes))
            }
            Input::Unsent { to, term, prev } => {
                self.on_report(term, |leader, shared| leader.on_unsent(shared, to, prev))
            }
            Input::Applied(index) => self.on_applied(index),
            Input::SnapshotSaved { snapshot, purge } => self.on_snapshot_saved(snapshot, purge),
            Input::PieceTaken { from, reply } => self.on_piece_taken(from, reply),
            Input::SnapshotReceived { snapshot, membership } => {
                self.on_snapshot_received(snapshot, membership)
            }
            Input::LeaderDown(id) => self.on_leader_down(id),
            Input::Campaign => self.on_campaign(),
            Input::Fence => self.on_fence(),
            Input::WantState(after) => {
                self.shared.wants_state = after;
                Transition::Stay
            }
            Input::Mended => {
                (self.shared.fenced, self.shared.wants_state) = (false, None);
                Transition::Stay
            }
            Input::MachineStopped(stopped) => {
                self.shared.machine_stopped = stopped;
                Transition::Stay
            }
        };
        self.change_role(transition);
        self.finish()
    }

    /// Which invariant of its own the node breaks, if any. Holds after every step.
    pub fn check(&self) -> Result<(), &'static str> {
        let log = &self.shared.log;
        log.check()?;
        self.shared.disk.check(log.last())?;
        if let Role::Leader(leader) = &self.role {
            let ahead = |p: &Progress| p.next > p.matched || !p.is_peer();
            if !leader.progress.values().all(|p| ahead(p) && p.matched <= log.last()) {
                return Err("a leader sends what is not matched yet, and matches what it has");
            }
        }
        if log.last_id().term > self.shared.term() {
            return Err("no entry is of a later term than its holder");
        }
        Ok(())
    }

    fn on_tick(&mut self) -> Transition {
        match &mut self.role {
            Role::Follower(follower) => follower.on_tick(&mut self.shared),
            Role::Candidate(candidate) => candidate.on_tick(&mut self.shared),
            Role::Leader(leader) => leader.on_tick(&mut self.shared),
        }
    }

    fn on_receive(&mut self, envelope: Envelope, carried: &Carried) -> Transition {
        let Envelope { from, to, membership, message } = envelope;
        let shared = &mut self.shared;
        let Some(from) = shared.rules.sender(from, to, shared.me, shared.log.membership()) else {
            return shared.drop_input(Dropped::Misdelivered);
        };
        // Requests are refused to those whom the cluster has removed, and does not only not know yet. Answers
        // count by the newest membership: a member is asked from the moment that it is appended (D5.1.15).
        let removed = shared.rules.was_removed(from, membership, shared.log.committed_membership());
        // So do those of whoever is being told that it has left.
        let leaving = matches!(&self.role, Role::Leader(leader) if leader.leaving.contains_key(&from));
        let asked = message.is_answer() && (leaving || shared.log.membership().contains(from));
        if removed && !asked {
            return shared.drop_input(Dropped::Removed);
        }
        if !message.is_well_formed(carried) {
            return shared.drop_input(Dropped::Malformed);
        }
        // Before the term rule: a node that hears a leader helps nobody to depose it, and so does not even
        // take over the candidate's term (thesis, section 4.2.3).
        if let Message::RequestVote(vote) = &message
            && (self.is_bound(vote) || self.sticks_to_leader(vote))
        {
            self.answer_vote(from, *vote, Some(Refusal::Leader));
            return Transition::Stay;
        }
        let leads = self.is_leader();
        if self.shared.rules.is_newer_term(message.term(), self.shared.term(), leads) {
            let furthest = self.shared.furthest_term();
            let term = message.term().min(furthest);
            if term > self.shared.term() {
                self.shared.set_hard_state(term, None);
                self.change_role(Transition::Follow);
            }
            if message.term() > furthest {
                self.shared.out.alarms.push(Alarm::TermTooFar { from: from.id, term: message.term() });
                return self.shared.drop_input(Dropped::TermTooFar);
            }
        }
        let (rules, current) = (self.shared.rules, self.shared.term());
        let is_old = rules.is_old_reply(message.term(), current);
        match message {
            Message::RequestVote(vote) => self.on_vote(from, vote),
            Message::RequestVoteReply(reply) => match &mut self.role {
                // A pre-vote is answered in the voter's own term, which may lie behind ours.
                Role::Candidate(candidate) => candidate.on_vote_reply(&mut self.shared, from, reply),
                _ => self.shared.drop_input(Dropped::Stale),
            },
            Message::AppendEntries(append) if rules.is_old_append(append.term, current) => {
                self.on_old_append(from, append.term)
            }
            Message::AppendEntries(append) => self.on_append(from, append, carried),
            Message::ReadIndex(ask) => self.on_read_index(from, ask),
            Message::AppendEntriesReply(_) | Message::ReadIndexReply(_) if is_old => {
                self.shared.drop_input(Dropped::Stale)
            }
            Message::AppendEntriesReply(reply) => match &mut self.role {
                Role::Leader(leader) => leader.on_append_reply(&mut self.shared, from, reply),
                _ => self.shared.drop_input(Dropped::Unexpected),
            },
            Message::InstallSnapshot(install) => self.on_install_snapshot(from, install),
            Message::InstallSnapshotReply(reply) => self.on_install_snapshot_reply(from, reply),
            Message::TimeoutNow(ask) => self.on_timeout_now(from, ask),
            Message::ReadIndexReply(reply) => match &mut self.role {
                Role::Follower(follower) => follower.on_read_index_reply(&mut self.shared, from, reply),
                _ => self.shared.drop_input(Dropped::Unexpected),
            },
        }
    }

    /// Whether it has promised to depose nobody (D5.4.3), but for one that the very leader whom it promised so told to
    /// campaign.
    fn is_bound(&self, vote: &RequestVote) -> bool {
        let shared = &self.shared;
        let bound = shared.promises.bind(shared.now, vote.handed_over);
        shared.rules.keeps_promise(bound, !vote.pre && vote.campaign > shared.term())
    }

    /// Whether it hears a leader that did not give way itself.
    fn sticks_to_leader(&self, vote: &RequestVote) -> bool {
        !self.shared.rules.helps_to_depose(self.hears_leader()) && !self.was_handed_over(vote.handed_over)
    }

    fn hears_leader(&self) -> bool {
        match &self.role {
            Role::Follower(follower) => follower.hears_leader(&self.shared, self.shared.now),
            Role::Candidate(_) => false,
            Role::Leader(leader) => leader.is_followed(&self.shared),
        }
    }

    /// RequestVote (Figure 2), and the question before it. Judged by term and log alone, not by our own
    /// membership, which may be behind.
    fn on_vote(&mut self, from: Peer, vote: RequestVote) -> Transition {
        let refusal = self.judge_vote(from, vote);
        let granted = refusal.is_none() && !vote.pre;
        if granted && self.shared.hard_state.vote.is_none() {
            self.shared.set_hard_state(vote.campaign, Some(from));
        }
        if let Role::Follower(follower) = &mut self.role
            && self.shared.rules.restarts_timeout(granted)
        {
            follower.on_granted(&self.shared);
        }
        let membership = self.shared.log.membership();
        if refusal == Some(Refusal::Log) && membership.contains(self.shared.me) {
            self.shared.needed |= !membership.is_voter(self.shared.me);
        }
        self.answer_vote(from, vote, refusal);
        if let (Some(Refusal::Rival), Role::Candidate(candidate)) = (refusal, &self.role) {
            // It hears the leader no more either, for which it may have refused us a moment ago.
            candidate.ask_again(&mut self.shared, from);
        }
        match &self.role {
            // Of two that ask, one goes on; the other waits for it with fresh patience.
            Role::Candidate(candidate) if candidate.pre && vote.pre && refusal.is_none() => {
                Transition::Follow
            }
            _ => Transition::Stay,
        }
    }

    fn judge_vote(&self, from: Peer, vote: RequestVote) -> Option<Refusal> {
        let (state, last) = (self.shared.hard_state, self.shared.newest_held());
        if let Some(refusal) = self.shared.rules.refusal(&vote, from, state, last) {
            return Some(refusal);
        }
        match &self.role {
            Role::Candidate(candidate)
                if vote.pre && candidate.goes_before(&self.shared, from.id, vote.last) =>
            {
                Some(Refusal::Rival)
            }
            _ => None,
        }
    }

    fn answer_vote(&mut self, from: Peer, vote: RequestVote, refusal: Option<Refusal>) {
        let reply = RequestVoteReply {
            campaign: vote.campaign,
            pre: vote.pre,
            question: vote.question,
            term: self.shared.term(),
            refusal,
            leader: self.leader(),
        };
        self.shared.send(from, Message::RequestVoteReply(reply));
    }

    fn on_append(&mut self, from: Peer, append: AppendEntries, carried: &Carried) -> Transition {
        if matches!(self.role, Role::Candidate(_)) {
            // "If AppendEntries RPC received from new leader: convert to follower."
            self.change_role(Transition::Follow);
        }
        match &mut self.role {
            Role::Follower(follower) => follower.on_append(&mut self.shared, from, append, carried),
            _ => self.shared.drop_input(Dropped::SecondLeader),
        }
    }

    /// A leader of an older term learns from the answer that it was deposed.
    pub(crate) fn on_old_append(&mut self, from: Peer, term: Term) -> Transition {
        if self.shared.rules.tells_old_leader(term, self.shared.term()) {
            self.shared.answer_append(from, (Round(0), 0), Index::ZERO, None);
        }
        self.shared.drop_input(Dropped::Stale)
    }

    fn on_read_index(&mut self, from: Peer, ask: ReadIndex) -> Transition {
        match &mut self.role {
            Role::Leader(leader) if ask.term == self.shared.hard_state.term => {
                leader.on_read_index(&mut self.shared, from, ask);
            }
            _ => {
                let (term, ReadIndex { boot, sequence, .. }) = (self.shared.term(), ask);
                let reply = ReadIndexReply { term, boot, sequence, index: None };
                self.shared.send(from, Message::ReadIndexReply(reply));
            }
        }
        Transition::Stay
    }

    fn on_propose(&mut self, ticket: Ticket, count: u64) -> Transition {
        self.ask_leader(ticket, |leader, shared| leader.on_propose(shared, ticket, count))
    }

    fn on_change(&mut self, ticket: Ticket, expected: LogId, to: Membership) -> Transition {
        self.ask_leader(ticket, |leader, shared| leader.on_change(shared, ticket, expected, to))
    }

    fn on_transfer(&mut self, ticket: Ticket, to: Option<NodeId>) -> Transition {
        self.ask_leader(ticket, |leader, shared| leader.on_transfer(shared, ticket, to))
    }

    /// What only a leader can do. Whoever asks another node is told who leads.
    fn ask_leader(&mut self, ticket: Ticket, ask: impl FnOnce(&mut Leader, &mut Shared)) -> Transition {
        let leader_id = self.leader();
        match &mut self.role {
            Role::Leader(leader) => ask(leader, &mut self.shared),
            _ if self.shared.log.membership().is_empty() => {
                self.shared.refuse(ticket, RefusedReason::NotConfigured);
            }
            _ => self.shared.refuse(ticket, RefusedReason::NotLeader(leader_id)),
        }
        Transition::Stay
    }

    fn on_read(&mut self, ticket: Ticket) -> Transition {
        match &mut self.role {
            Role::Leader(leader) => leader.on_read(&mut self.shared, ticket),
            Role::Follower(follower) => follower.on_read(&mut self.shared, ticket),
            Role::Candidate(_) => {
                if self.shared.rules.answers_reads(RoleName::Candidate) {
                    self.shared.refuse(ticket, RefusedReason::NotLeader(None));
                }
            }
        }
        Transition::Stay
    }

    fn on_forget(&mut self, tickets: &BTreeSet<Ticket>) -> Transition {
        match &mut self.role {
            Role::Leader(leader) => leader.reads.forget(tickets),
            Role::Follower(follower) => follower.reads.forget(tickets),
            Role::Candidate(_) => {}
        }
        Transition::Stay
    }

    /// The first membership becomes the first entry. It needs a term, so this node takes the first one and
    /// its own vote in it: no other node can campaign in it, since none knows of the cluster yet.
    fn on_bootstrap(&mut self, ticket: Ticket, membership: Membership) -> Transition {
        let shared = &mut self.shared;
        if !shared.rules.may_found(shared.log.last(), shared.term()) {
            shared.refuse(ticket, RefusedReason::AlreadyConfigured);
            return Transition::Stay;
        }
        if !shared.rules.may_begin(&membership, shared.me) {
            shared.refuse(ticket, RefusedReason::BadMembership);
            return Transition::Stay;
        }
        shared.set_hard_state(Term(1), Some(shared.me));
        let id = shared.log.append_membership(Term(1), membership.clone());
        shared.write_appended(id.index);
        shared.out.tail.push(TailChange::TakeMembership { id, membership, ticket: Some(ticket) });
        shared.announce_members();
        if let Role::Follower(follower) = &mut self.role {
            follower.lose_patience();
        }
        Transition::Stay
    }

    fn on_persisted(&mut self, id: WriteId) -> Transition {
        if !self.shared.disk.complete(self.shared.rules, id) {
            return self.shared.drop_input(Dropped::Stale);
        }
        if let Some(snapshot) = self.shared.end_installing(id)
            && let Role::Follower(follower) = &mut self.role
        {
            follower.on_installed(&mut self.shared, snapshot);
        }
        match &mut self.role {
            Role::Follower(follower) => follower.on_persisted(&mut self.shared),
            Role::Leader(leader) => leader.on_persisted(&mut self.shared),
            Role::Candidate(candidate) => return candidate.on_persisted(&mut self.shared, id),
        }
        Transition::Stay
    }

    /// What became of entries that a leader of this term wanted sent.
    fn on_report(&mut self, term: Term, tell: impl FnOnce(&mut Leader, &mut Shared)) -> Transition {
        match &mut self.role {
            Role::Leader(leader) if term == self.shared.hard_state.term => {
                tell(leader, &mut self.shared);
                Transition::Stay
            }
            _ => self.shared.drop_input(Dropped::Stale),
        }
    }

    fn on_applied(&mut self, index: Index) -> Transition {
        self.shared.applied = self.shared.applied.max(index);
        self.after_applied();
        Transition::Stay
    }

    fn on_leader_down(&mut self, id: NodeId) -> Transition {
        self.lose_target(id);
        match &self.role {
            Role::Follower(follower) if follower.leader.is_some_and(|leader| leader.id == id) => {
                if self.shared.may_campaign() {
                    return Transition::PreVote;
                }
                self.change_role(Transition::Follow);
                if let Role::Follower(follower) = &mut self.role
                    && self.shared.may_lead()
                {
                    // It promised that very leader to wait, and waits no longer than that.
                    follower.lose_patience();
                }
                Transition::Stay
            }
            _ => Transition::Stay,
        }
    }

    fn on_campaign(&mut self) -> Transition {
        if self.shared.may_campaign() && !self.is_leader() { Transition::PreVote } else { Transition::Stay }
    }

    fn on_fence(&mut self) -> Transition {
        self.shared.fenced = true;
        match &self.role {
            Role::Follower(_) => Transition::Stay,
            Role::Candidate(_) | Role::Leader(_) => Transition::Follow,
        }
    }

    /// Carries out what a handler decided, and what follows from that.
    pub(crate) fn change_role(&mut self, mut transition: Transition) {
        while transition != Transition::Stay {
            transition = self.enter(transition);
        }
    }

    fn enter(&mut self, transition: Transition) -> Transition {
        let handed_over = match transition {
            Transition::TakeOver(handed_over) => Some(handed_over),
            _ => None,
        };
        let shared = &mut self.shared;
        let (campaigns, elected) =
            (transition == Transition::Campaign || handed_over.is_some(), transition == Transition::Lead);
        let state = shared.rules.hard_state_of_role(shared.hard_state, campaigns, elected, shared.me);
        if campaigns {
            shared.set_hard_state(state.term, state.vote);
        } else {
            shared.hard_state = state;
        }
        let role = match transition {
            Transition::Stay => return Transition::Stay,
            Transition::Follow => Role::Follower(Follower::new(shared)),
            Transition::PreVote if !shared.rules.asks_first(handed_over) => return Transition::Campaign,
            Transition::PreVote => Role::Candidate(Candidate::new(shared, true, None)),
            Transition::Campaign | Transition::TakeOver(_) => {
                Role::Candidate(Candidate::new(shared, false, handed_over))
            }
            Transition::Lead => Role::Leader(Leader::new(shared)),
        };
        match mem::replace(&mut self.role, role) {
            Role::Follower(old) => {
                if let Role::Follower(new) = &mut self.role {
                    new.keep_waiting(&old);
                }
                old.end(shared);
            }
            Role::Leader(leader) => leader.end(shared),
            Role::Candidate(_) => {}
        }
        match &self.role {
            // Alone, one's own pre-vote is a quorum.
            Role::Candidate(candidate) => candidate.count(shared),
            _ => Transition::Stay,
        }
    }

    fn finish(&mut self) -> Output {
        let mut out = mem::take(&mut self.shared.out);
        if let Some(write) = &out.write {
            let (last, now) = (self.shared.log.last(), self.shared.now);
            self.shared.disk.start(write.id, last, now);
        }
        let (after, term) = (self.shared.disk.newest(), self.shared.term());
        let held = self.shared.held.drain(..);
        out.send_after_sync.extend(held.map(|envelope| Held { after, term, envelope }));
        debug_assert_eq!(self.check(), Ok(()));
        out
    }
}
