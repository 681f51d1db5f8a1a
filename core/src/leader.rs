//! The leader: appends, replicates, counts acknowledgements, commits, and confirms reads.
//!
//! Its parts are how it changes the membership (`leader/change.rs`) and how it hands over (`leader/transfer.rs`).

use crate::lease::Lease;
use crate::progress::Progress;
use crate::read::{LeaderReads, Reader};
use crate::rules::Quorum;
use crate::shared::{Shared, Transition};
use crate::{
    Alarm, AppendEntries, AppendEntriesReply, Dropped, Index, InstallSnapshotReply, LogId, Member, Message,
    NodeId, Peer, ReadGrant, ReadIndex, ReadIndexReply, RefusedReason, Replicate, RoleName, TailChange, Tick,
    Ticket,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

mod change;
mod target;
mod transfer;
use target::{Cause, GaveWay, Transfer};

/// A node that was a member until the newest membership, and is still sent what says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leaving {
    pub(crate) member: Member,
    /// The entry with which it left.
    pub(crate) at: Index,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    /// The empty entry of this term. Until it is committed, the leader does not know what is.
    start: Index,
    /// When it took office.
    pub(crate) since: Tick,
    /// All members, itself among them, each in its very incarnation: of a node that is being replaced, both disks.
    pub(crate) progress: BTreeMap<Peer, Progress>,
    pub(crate) reads: LeaderReads,
    /// What it keeps to answer reads without asking, for a time.
    pub(crate) lease: Lease,
    /// Those who were members until the newest membership, and do not know it yet.
    pub(crate) leaving: BTreeMap<Peer, Leaving>,
    /// Whether the commit index has risen since the followers were last told of it without being sent entries.
    untold: bool,
    /// A transfer of its leadership that is under way.
    pub(crate) transfer: Option<Transfer>,
    /// Whether it has tried by itself to hand over in this term.
    pub(crate) gave_way: GaveWay,
    /// To whom it held commands in vain, and until when: before it holds them again it takes some.
    pub(crate) held_for: Option<(NodeId, Tick)>,
}

impl Leader {
    /// Takes office: appends an empty entry (§8) and tells everybody at once (§5.2).
    pub(crate) fn new(shared: &mut Shared) -> Leader {
        let own = (shared.me, Progress::own(shared.disk.persisted(), shared.now));
        let mut leader = Leader {
            start: shared.log.last().next(),
            since: shared.now,
            progress: BTreeMap::from([own]),
            reads: LeaderReads::new(shared.now),
            lease: Lease::default(),
            leaving: BTreeMap::new(),
            untold: false,
            transfer: None,
            gave_way: GaveWay::default(),
            held_for: None,
        };
        leader.meet_members(shared);
        if !leader.leaving.is_empty() {
            shared.announce_members();
        }
        let noop = shared.append_own(1);
        shared.out.tail.push(TailChange::TakeNoop(noop));
        leader.start_round(shared);
        leader.replicate(shared);
        leader
    }

    /// What a quorum of the members has reached, by any measure of their progress.
    fn reached<T: Ord + Copy + Default>(
        &self,
        shared: &Shared,
        what: Quorum,
        measure: impl Fn(&Progress) -> T,
    ) -> T {
        let value_of = |peer| self.progress.get(&peer).map_or(T::default(), &measure);
        shared.rules.reached(what, shared.log.membership(), value_of)
    }

    /// The last moment at which a quorum was known to follow.
    fn quorum_heard(&self, shared: &Shared) -> Tick {
        self.reached(shared, Quorum::Contact, |progress| progress.heard(shared.now))
    }

    /// Whether a quorum follows it so recently that it helps nobody to depose it.
    pub(crate) fn is_followed(&self, shared: &Shared) -> bool {
        let silent_for = shared.now.since(self.quorum_heard(shared));
        shared.rules.hears_leader(silent_for, shared.settings.election_min)
    }

    pub(crate) fn on_tick(&mut self, shared: &mut Shared) -> Transition {
        let longest = shared.settings.election_max;
        // Check-quorum (thesis, section 6.2): nobody waits for a leader that cannot commit.
        if shared.rules.has_lost_quorum(shared.now.since(self.quorum_heard(shared)), longest) {
            return Transition::Follow;
        }
        let age = shared.disk.age(shared.now);
        self.gave_way.disk &= shared.rules.disk_is_sick(age, longest);
        if shared.rules.disk_is_sick(age, longest) {
            self.gives_way(shared, Cause::Disk);
        }
        if shared.rules.disk_is_stalled(age, longest) && self.peers().next().is_some() {
            shared.out.alarms.push(Alarm::DiskStalled { ticks: age });
            return Transition::Follow;
        }
        let (now, heartbeat) = (shared.now, shared.settings.heartbeat);
        if shared.rules.heartbeat_is_due(now.since(self.reads.round_started()), heartbeat) {
            self.start_round(shared);
        }
        // On a clock of its own: where reads send the rounds, no heartbeat may ever be due here.
        for progress in self.progress.values_mut() {
            progress.paused = progress.paused.filter(|since| now.since(*since) < heartbeat);
        }
        self.announce_commit(shared);
        self.replicate(shared);
        self.let_go(shared);
        self.go_on_handing_over(shared);
        let leaves = self.has_left(shared) && !self.gives_way(shared, Cause::Left);
        if leaves { Transition::Follow } else { Transition::Stay }
    }

    pub(crate) fn on_propose(&mut self, shared: &mut Shared, ticket: Ticket, count: u64) {
        if let Some(to) = self.holds_for() {
            return shared.refuse(ticket, RefusedReason::HandingOver(to));
        }
        let first = shared.append_own(count);
        shared.out.tail.push(TailChange::TakeProposed { first, count, ticket });
        self.replicate(shared);
    }

    pub(crate) fn on_persisted(&mut self, shared: &mut Shared) {
        self.advance_commit(shared);
        self.go_on_handing_over(shared);
    }

    pub(crate) fn on_sent(&mut self, shared: &mut Shared, to: Peer, prev: LogId, last: Index, bytes: u64) {
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.on_sent(shared.rules, prev, last, bytes);
            self.replicate_to(shared, to);
        }
    }

    pub(crate) fn on_unsent(&mut self, shared: &mut Shared, to: Peer, prev: LogId) {
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.on_unsent(shared.now, prev);
            self.replicate_to(shared, to);
        }
    }

    /// Whether entries after `prev` are still what goes to `to` next.
    pub(crate) fn wants(&self, to: Peer, prev: LogId) -> bool {
        self.progress.get(&to).is_some_and(|progress| progress.wants(prev))
    }

    pub(crate) fn on_append_reply(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        reply: AppendEntriesReply,
    ) -> Transition {
        let Some(progress) = self.progress.get_mut(&from) else {
            return shared.drop_input(Dropped::NotMember);
        };
        if reply.matched > shared.log.last() || reply.round > self.reads.round() {
            return shared.drop_input(Dropped::Malformed);
        }
        if let Some(acknowledged) = progress.on_answer(shared.rules, shared.now, &reply) {
            let (follower, last) = (from.id, reply.last);
            shared.out.alarms.push(Alarm::LostEntries { follower, acknowledged, last });
        }
        if let Some(left) = self.lease.left(reply.round) {
            let (now, drift) = (shared.now, shared.settings.clock_drift);
            let promised = reply.promised.min(shared.settings.lease);
            progress.on_promise(shared.rules.lease_until(left, now, promised, drift));
        }
        let news = progress.on_matched(shared.rules, reply.matched);
        progress.on_round_of_catching_up(shared.rules, shared.now, shared.log.last());
        match reply.conflict {
            Some(limit) => {
                let limit = shared.log.newest_within(limit);
                progress.on_conflict(shared.rules, limit.index, reply.round, self.reads.round());
            }
            None => progress.on_no_conflict(),
        }
        if progress.needs_snapshot() && shared.log.term_at(progress.matched).is_some() {
            progress.on_installed();
        }
        if news {
            self.advance_commit(shared);
        }
        self.confirm_reads(shared);
        self.replicate_to(shared, from);
        self.go_on_handing_over(shared);
        Transition::Stay
    }

    pub(crate) fn on_install_reply(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        reply: InstallSnapshotReply,
    ) -> Transition {
        let Some(progress) = self.progress.get_mut(&from) else {
            return shared.drop_input(Dropped::NotMember);
        };
        // One whose log lacks nothing may be sent one all the same, for its machine: the shell knows.
        progress.on_contact(shared.now);
        shared.out.taken.push((from, reply));
        Transition::Stay
    }

    /// Who lacks entries that are purged here.
    pub(crate) fn needs_snapshot(&self) -> impl Iterator<Item = Peer> + '_ {
        self.progress.iter().filter(|(_, progress)| progress.needs_snapshot()).map(|(peer, _)| *peer)
    }

    pub(crate) fn on_read(&mut self, shared: &mut Shared, ticket: Ticket) {
        self.join(shared, Reader::Local(ticket));
    }

    pub(crate) fn on_read_index(&mut self, shared: &mut Shared, from: Peer, ask: ReadIndex) {
        if !shared.log.membership().contains(from) {
            shared.drop_input(Dropped::NotMember);
            return;
        }
        self.join(shared, Reader::Remote { peer: from, boot: ask.boot, sequence: ask.sequence });
    }

    fn join(&mut self, shared: &mut Shared, reader: Reader) {
        if self.lease_left(shared, shared.now) > 0 {
            return self.grant(shared, shared.log.commit(), reader);
        }
        self.reads.join(shared.rules, reader);
        self.start_round_if_due(shared);
    }

    /// Commits what a quorum holds, but counts only for entries of its own term (§5.4.2): an
    /// older entry on a majority may still be overwritten.
    fn advance_commit(&mut self, shared: &mut Shared) {
        let own = shared.rules.own_match(shared.disk.persisted(), shared.log.last());
        if let Some(progress) = self.progress.get_mut(&shared.me) {
            progress.matched = own;
        }
        let held = self.reached(shared, Quorum::Commit, Progress::counted);
        let (commit, current) = (shared.log.commit(), shared.term());
        if !shared.rules.commits(held, commit, current, |at| shared.log.term_at(at))
            || !shared.commit_to(held)
        {
            return;
        }
        self.untold = true;
        self.go_on_changing(shared);
        self.start_round_if_due(shared);
    }

    /// Tells the followers of a commit index that has risen. Entries carry it too, and so does the answer to a
    /// follower's read; a message of its own is not worth its cost at each commit, but the next tick's.
    fn announce_commit(&mut self, shared: &mut Shared) {
        if mem::take(&mut self.untold) {
            let peers: Vec<Peer> = self.peers().collect();
            for peer in peers {
                self.send_empty(shared, peer);
            }
        }
    }

    /// Whom it sends to.
    fn peers(&self) -> impl Iterator<Item = Peer> + '_ {
        self.progress.iter().filter(|(_, progress)| progress.is_peer()).map(|(peer, _)| *peer)
    }

    fn start_round_if_due(&mut self, shared: &mut Shared) {
        if self.may_read(shared) && self.reads.is_due(shared.now, shared.settings.heartbeat) {
            self.start_round(shared);
        }
    }

    /// Whether it knows by now what was committed before its term.
    pub(crate) fn may_read(&self, shared: &Shared) -> bool {
        shared.rules.knows_commit(shared.log.commit(), self.start)
    }

    /// For how many more ticks from `now` on nobody else can be elected, so that what is committed here is all that is
    /// (D5.4.3): a quorum of the newest membership has promised it. 0 if that is not known, or not any more.
    pub(crate) fn lease_left(&self, shared: &Shared, now: Tick) -> u64 {
        if shared.settings.lease == 0
            || !self.may_read(shared)
            || !shared.rules.may_lease(self.lease.gave_way)
        {
            return 0;
        }
        let left = self.reached(shared, Quorum::Lease, Progress::promised).since(now);
        // It promises itself no end, alone or not.
        left.min(shared.settings.lease)
    }

    /// A heartbeat to all, carrying a new round.
    pub(crate) fn start_round(&mut self, shared: &mut Shared) {
        self.untold = false;
        let read_index = self.may_read(shared).then(|| shared.log.commit());
        let round = self.reads.start_round(shared.now, read_index);
        self.lease.on_round(round, shared.now, shared.settings.lease);
        let peers: Vec<Peer> = self.peers().collect();
        for peer in peers {
            self.send_empty(shared, peer);
        }
        for progress in self.progress.values_mut() {
            progress.on_round(round);
        }
        self.confirm_reads(shared);
    }

    /// Grants the reads of every round that a quorum has echoed.
    fn confirm_reads(&mut self, shared: &mut Shared) {
        let round = self.reached(shared, Quorum::Read, |progress| progress.round);
        let granted = self.reads.confirm(shared.rules, round);
        for (index, reader) in granted {
            self.grant(shared, index, reader);
        }
        self.start_round_if_due(shared);
    }

    fn grant(&self, shared: &mut Shared, index: Index, reader: Reader) {
        match reader {
            Reader::Local(ticket) => {
                let index = shared.rules.read_index(index);
                shared.out.reads.push(ReadGrant { ticket, index });
            }
            Reader::Remote { peer, boot, sequence } => {
                let reply = ReadIndexReply { term: shared.term(), boot, sequence, index: Some(index) };
                shared.send(peer, Message::ReadIndexReply(reply));
            }
        }
    }

    pub(crate) fn replicate(&mut self, shared: &mut Shared) {
        let peers: Vec<Peer> = self.peers().collect();
        for peer in peers {
            self.replicate_to(shared, peer);
        }
    }

    /// Asks the driver to send what this follower lacks, as far as its window allows.
    fn replicate_to(&mut self, shared: &mut Shared, peer: Peer) {
        let furthest = self.furthest(shared, peer);
        let Some(progress) = self.progress.get_mut(&peer) else { return };
        if !shared.rules.has_entries_for(furthest, progress.next) {
            return;
        }
        // Whatever is under way: an answer to what was lost meanwhile never comes.
        let Some(prev) = shared.log.id_at(progress.next.prev()) else { return progress.on_purged() };
        let Some(max_bytes) = progress.budget(shared.rules, &shared.settings) else { return };
        progress.open = Some(prev);
        let last = furthest.min(Index(prev.index.0.saturating_add(shared.settings.message_entries)));
        let append = self.append_entries(shared, prev);
        shared.out.replicate.push(Replicate { to: peer, append, last, max_bytes });
    }

    /// An AppendEntries without entries, from where this follower is thought to be.
    fn send_empty(&mut self, shared: &mut Shared, peer: Peer) {
        let Some(progress) = self.progress.get(&peer) else { return };
        let prev = shared.log.id_at(progress.next.prev()).unwrap_or(shared.log.purged());
        let message = Message::AppendEntries(self.append_entries(shared, prev));
        shared.out.send.push(shared.envelope(peer, message));
    }

    /// An AppendEntries whose entries, if it is to carry some, follow `prev`.
    fn append_entries(&self, shared: &Shared, prev: LogId) -> AppendEntries {
        AppendEntries {
            term: shared.term(),
            prev,
            last: prev.index,
            commit: shared.log.commit(),
            round: self.reads.round(),
            lease: if self.lease.gave_way { 0 } else { shared.settings.lease },
            persisted: shared.disk.persisted(),
            disk_age: shared.disk.age(shared.now),
            time: 0,
            agreed: None,
        }
    }

    /// The role ends: this node can no longer tell what the callers want to know.
    pub(crate) fn end(self, shared: &mut Shared) {
        self.end_transfer(shared);
        if !shared.rules.answers_reads(RoleName::Leader) {
            return;
        }
        for ticket in self.reads.local_tickets() {
            shared.refuse(ticket, RefusedReason::NotLeader(None));
        }
    }
}
