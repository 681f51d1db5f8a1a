//! What a node has in every role: its place in the world, its term and vote, its log and its disk.
//!
//! The roles act through this: it knows which message has to wait for the disk, and it collects the
//! [`Output`] of the step.

use crate::disk::Disk;
use crate::lease::Promises;
use crate::log::Log;
use crate::rng::Rng;
use crate::rules::Rules;
use crate::{
    AppendEntriesReply, Boot, Dropped, Envelope, HandedOver, HardState, Index, LogId, Membership, Message,
    Output, Peer, Refused, RefusedReason, Round, Settings, TailChange, Term, Tick, Ticket, Write, WriteId,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shared {
    pub(crate) me: Peer,
    pub(crate) boot: Boot,
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) rng: Rng,
    /// The newest moment that a step was given.
    pub(crate) now: Tick,
    pub(crate) hard_state: HardState,
    /// Until when it has promised to depose nobody.
    pub(crate) promises: Promises,
    pub(crate) log: Log,
    pub(crate) disk: Disk,
    /// How far the state machine has applied.
    pub(crate) applied: Index,
    /// A snapshot that is being installed: the write that resets the log to it must be done first.
    pub(crate) installing: Option<Installing>,
    /// Whether its machine turned out to differ from that of a majority.
    pub(crate) fenced: bool,
    /// A member that does not vote has refused its vote, since its log is newer, to a candidate by whose membership it votes,
    /// and has heard of no leader since.
    pub(crate) needed: bool,
    /// Its machine is to be rebuilt: a snapshot from after this index is taken though the log lacks nothing.
    pub(crate) wants_state: Option<Index>,
    /// Whether its machine has stopped before an entry: nobody waits for what it has not applied.
    pub(crate) machine_stopped: bool,
    /// Who cannot be told to campaign.
    pub(crate) no_transfers: BTreeSet<Peer>,
    /// The number of this boot's newest question to a leader. Lives here since it is never used twice.
    pub(crate) question: u64,
    /// When the current stretch began over which the rise of the term is bounded, and the term at that time.
    pub(crate) term_window: (Tick, Term),
    /// The number of its newest candidacy. It starts where the boot's name says, so that no two boots share one.
    pub(crate) candidacy: u64,
    /// What this step wants done.
    pub(crate) out: Output,
    /// What it wants said when the writes handed out until its end are done.
    pub(crate) held: Vec<Envelope>,
}

/// A snapshot whose reset of the log is on its way to the disk. Until it is there nothing is appended (D5.1.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Installing {
    pub(crate) write: WriteId,
    pub(crate) snapshot: LogId,
    pub(crate) membership: (LogId, Membership),
}

/// What a handler decides about the role. `raft.rs` alone carries it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transition {
    /// The role stays.
    Stay,
    /// Become a follower in the current term, of whoever turns out to lead it.
    Follow,
    /// Ask for pre-votes (thesis, section 9.6).
    PreVote,
    /// Enter the next term and ask for votes.
    Campaign,
    /// The same, told so by the leader.
    TakeOver(HandedOver),
    /// A quorum has voted for this node.
    Lead,
}

impl Shared {
    pub(crate) fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The newest term that a message may bring now.
    pub(crate) fn furthest_term(&mut self) -> Term {
        let (since, _) = self.term_window;
        if self.rules.bounds_terms_anew(self.now.since(since), self.settings.election_max) {
            self.term_window = (self.now, self.term());
        }
        let (_, at_its_start) = self.term_window;
        self.rules.furthest_term(at_its_start)
    }

    /// Whether this node may campaign: it may lead, and has promised nobody not to.
    pub(crate) fn may_campaign(&self) -> bool {
        self.may_lead() && !self.rules.waits_for_promises(self.promises.bind(self.now, None))
    }

    /// Whether this node may campaign and lead, but for what it has promised: it votes in the membership in force, in this life, and its machine
    /// is not known to differ from that of a majority. One that voted in the membership before may too, without counting
    /// itself, as long as it does not know the newest committed; and so may a learner without whose vote nobody may be
    /// electable (D5.1.16; thesis, section 4.2.2).
    pub(crate) fn may_lead(&self) -> bool {
        let votes = self.log.membership().is_voter(self.me);
        let open = self.log.membership_id().index > self.log.commit();
        let voted = open && self.log.membership_before().is_some_and(|before| before.is_voter(self.me));
        self.installing.is_none() && self.rules.may_campaign(votes, voted, self.needed, self.fenced)
    }

    /// A timeout for this election, drawn from (min, max] (§5.2).
    pub(crate) fn draw_timeout(&mut self) -> u64 {
        self.rng.in_range(self.settings.election_min, self.settings.election_max)
    }

    /// Sends a message: at once, or when the writes that were handed out so far are done.
    pub(crate) fn send(&mut self, to: Peer, message: Message) {
        let envelope = self.envelope(to, message);
        if self.rules.leaves_at_once(&envelope.message, self.disk.hard_state_is_durable()) {
            self.out.send.push(envelope);
        } else {
            self.held.push(envelope);
        }
    }

    pub(crate) fn envelope(&self, to: Peer, message: Message) -> Envelope {
        Envelope { from: self.me, to, membership: self.log.membership_id(), message }
    }

    /// Answers an AppendEntries: what is durable and verified here, and where the logs could match if they do not.
    /// `round` is the newest that it has heard of, and `promised` what it promised then.
    pub(crate) fn answer_append(
        &mut self,
        to: Peer,
        (round, promised): (Round, u64),
        matched: Index,
        conflict: Option<LogId>,
    ) {
        let reply = AppendEntriesReply {
            term: self.term(),
            round,
            promised,
            matched,
            last: self.log.last(),
            conflict,
            applied: self.applied,
            disk_age: self.disk.age(self.now),
            digest: None,
            stop: None,
            wants: None,
        };
        self.send(to, Message::AppendEntriesReply(reply));
    }

    /// Takes a new term, or casts the vote of this one, and has it written.
    pub(crate) fn set_hard_state(&mut self, term: Term, vote: Option<Peer>) {
        debug_assert!(term >= self.hard_state.term, "a term never goes back");
        debug_assert!(
            term > self.hard_state.term || self.hard_state.vote.is_none_or(|cast| Some(cast) == vote),
            "a vote is never changed within its term"
        );
        if term > self.hard_state.term {
            // Messages of the old term are pointless now, and must not look like ones of the new.
            self.out.replicate.clear();
            self.out.send.clear();
            self.held.clear();
        }
        self.hard_state = HardState { term, vote, ..self.hard_state };
        self.write_hard_state();
    }

    /// Promises this leader of its term to depose nobody for so long, from now on. What it promises.
    pub(crate) fn promise(&mut self, leader: Peer, asked: u64) -> u64 {
        let promised = self.rules.promise(asked, self.settings.election_max);
        if promised > 0 {
            let to = HandedOver { by: leader, term: self.term() };
            self.promises.give(to, self.now.after(promised));
        }
        if self.rules.saves_promise(promised, self.hard_state.promised) {
            // Nothing is said until this is durable, and so not the promise either.
            self.hard_state.promised = promised;
            self.write_hard_state();
        }
        promised
    }

    fn write_hard_state(&mut self) {
        let Some(hard_state) = self.rules.hard_state_to_write(self.hard_state) else { return };
        let write = self.write();
        write.hard_state = Some(hard_state);
        let id = write.id;
        self.disk.carries_hard_state(id);
    }

    /// Appends entries of this node's term and has them written.
    pub(crate) fn append_own(&mut self, count: u64) -> LogId {
        let first = self.log.append_own(self.term(), count);
        self.write_appended(first.index);
        first
    }

    /// Everything from `first` to the end of the log is new.
    pub(crate) fn write_appended(&mut self, first: Index) {
        let last = self.log.last();
        let write = self.write();
        write.append = Some((write.append.map_or(first, |(earlier, _)| earlier), last));
    }

    /// Everything after `last` is gone.
    pub(crate) fn write_truncated(&mut self, last: Index) {
        self.disk.truncate(self.rules, last);
        self.out.tail.push(TailChange::Truncate(last));
        self.write().truncate = Some(last);
    }

    /// The log is to go on after a snapshot, once that is durable.
    pub(crate) fn write_reset(&mut self, snapshot: LogId, membership: (LogId, Membership)) {
        let write = self.write();
        write.reset = Some(snapshot);
        let write = write.id;
        self.installing = Some(Installing { write, snapshot, membership });
    }

    /// Its newest entry: a snapshot that is being installed counts, since a start would find it.
    pub(crate) fn newest_held(&self) -> LogId {
        let installing = self.installing.as_ref().map_or(LogId::ZERO, |it| it.snapshot);
        self.log.last_id().max(installing)
    }

    /// Writes up to `done` are durable. The snapshot that the log was reset to, if that was one of them.
    pub(crate) fn end_installing(&mut self, done: WriteId) -> Option<LogId> {
        let Installing { snapshot, membership, .. } = self.installing.take_if(|it| it.write <= done)?;
        self.disk.reset(snapshot.index);
        self.log.reset(snapshot, membership);
        self.out.tail.push(TailChange::Reset(snapshot));
        self.out.installed = Some(snapshot);
        self.out.commit = Some(snapshot.index);
        self.announce_members();
        Some(snapshot)
    }

    /// Follows the commit index up to `index`, if that rises.
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        let rises = self.log.commit_to(self.rules, index);
        if rises {
            self.out.commit = Some(self.log.commit());
        }
        rises
    }

    /// Tells the driver whom to know, after the membership in force may have changed.
    pub(crate) fn announce_members(&mut self) {
        self.out.members = Some(self.log.membership().clone());
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, reason: RefusedReason) {
        self.out.refused.push(Refused { ticket, reason });
    }

    pub(crate) fn drop_input(&mut self, why: Dropped) -> Transition {
        self.out.dropped = Some(why);
        Transition::Stay
    }

    /// The one write of this step, named when the step first needs it.
    fn write(&mut self) -> &mut Write {
        let disk = &mut self.disk;
        self.out.write.get_or_insert_with(|| Write {
            id: disk.hand_out(),
            hard_state: None,
            reset: None,
            truncate: None,
            append: None,
        })
    }
}
