//! The leader: appends, replicates, counts acknowledgements, commits, and confirms reads.

use crate::progress::Progress;
use crate::read::{LeaderReads, Reader};
use crate::shared::{Shared, Transition};
use crate::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    /// The empty entry of this term. Until it is committed, the leader does not know what is.
    start: Index,
    /// All members but itself, each in its very incarnation: of a node that is being replaced, both disks.
    pub(crate) progress: BTreeMap<Peer, Progress>,
    pub(crate) reads: LeaderReads,
    /// Whether the commit index has risen since the followers were last told of it without being sent entries.
    untold: bool,
}

impl Leader {
    /// Takes office: appends an empty entry (section 8) and tells everybody at once (section 5.2).
    pub(crate) fn new(shared: &mut Shared) -> Leader {
        let next = shared.log.last().next();
        let others = shared.log.membership().others(shared.me.id);
        let progress = others.map(|member| (member.peer(), Progress::new(next, shared.now))).collect();
        let noop = shared.append_own(1);
        shared.out.tail.push(TailChange::TakeNoop(noop));
        let mut leader =
            Leader { start: noop.index, progress, reads: LeaderReads::new(shared.now), untold: false };
        leader.start_round(shared);
        leader.replicate(shared);
        leader
    }

    /// The last moment at which a quorum was known to follow.
    fn quorum_heard(&self, shared: &Shared) -> Tick {
        let heard = |peer| match self.progress.get(&peer) {
            // It does not help to commit, so it does not help to stay: a new term trusts it anew.
            Some(progress) if progress.lost_entries => Tick::default(),
            Some(progress) => progress.heard,
            None if peer == shared.me => shared.now,
            None => Tick::default(),
        };
        shared.log.membership().reached(heard)
    }

    /// Whether a quorum follows it so recently that it helps nobody to depose it.
    pub(crate) fn is_followed(&self, shared: &Shared) -> bool {
        shared.now.since(self.quorum_heard(shared)) < shared.settings.election_min
    }

    pub(crate) fn on_tick(&mut self, shared: &mut Shared) -> Transition {
        let longest = shared.settings.election_max;
        // Check-quorum (thesis, section 6.2): nobody waits for a leader that cannot commit.
        if shared.now.since(self.quorum_heard(shared)) >= longest && !shared.broken.is("no-check-quorum") {
            return Transition::Follow;
        }
        let age = shared.disk.age(shared.now);
        if age > longest.saturating_mul(2)
            && !self.progress.is_empty()
            && !shared.broken.is("stalled-disk-leads")
        {
            shared.out.alarms.push(Alarm::DiskStalled { ticks: age });
            return Transition::Follow;
        }
        let (now, heartbeat) = (shared.now, shared.settings.heartbeat);
        if now.since(self.reads.round_started()) >= heartbeat {
            self.start_round(shared);
        }
        // On a clock of its own: where reads send the rounds, no heartbeat may ever be due here.
        for progress in self.progress.values_mut() {
            progress.paused = progress.paused.filter(|since| now.since(*since) < heartbeat);
        }
        self.announce_commit(shared);
        self.replicate(shared);
        Transition::Stay
    }

    pub(crate) fn on_propose(&mut self, shared: &mut Shared, ticket: Ticket, count: u64) {
        let first = shared.append_own(count);
        shared.out.tail.push(TailChange::TakeProposed { first, ticket });
        shared.out.accepted.push(Accepted { ticket, first, count });
        self.replicate(shared);
    }

    pub(crate) fn on_persisted(&mut self, shared: &mut Shared) {
        self.advance_commit(shared);
    }

    pub(crate) fn on_sent(&mut self, shared: &mut Shared, to: Peer, prev: LogId, last: Index, bytes: u64) {
        if let Some(progress) = self.progress.get_mut(&to) {
            if shared.broken.is("report-of-sending-lost") {
                return;
            }
            progress.on_sent(prev, last, bytes);
            self.replicate_to(shared, to);
        }
    }

    pub(crate) fn on_unsent(&mut self, shared: &Shared, to: Peer) {
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.on_unsent(shared.now);
        }
    }

    pub(crate) fn on_append_reply(
        &mut self,
        shared: &mut Shared,
        from: Peer,
        reply: AppendEntriesReply,
    ) -> Transition {
        if !shared.log.membership().contains(from) {
            return shared.drop_input(Dropped::NotMember);
        }
        let Some(progress) = self.progress.get_mut(&from) else {
            return shared.drop_input(Dropped::NotMember);
        };
        if reply.matched > shared.log.last() || reply.round > self.reads.round() {
            return shared.drop_input(Dropped::Malformed);
        }
        progress.heard = shared.now;
        progress.round = progress.round.max(reply.round);
        progress.applied = progress.applied.max(reply.applied);
        progress.last = reply.last;
        let (round, acknowledged) = progress.heartbeat;
        if reply.round >= round && reply.last < acknowledged && !progress.lost_entries {
            progress.on_lost_entries(reply.last);
            let (follower, last) = (from.id, reply.last);
            shared.out.alarms.push(Alarm::LostEntries { follower, acknowledged, last });
        }
        if shared.broken.is("match-goes-back") {
            progress.matched = progress.matched.min(reply.matched);
        }
        if shared.broken.is("next-goes-below-match") {
            progress.next = reply.conflict.map_or(progress.next, |limit| limit.index.next());
        }
        let news = progress.on_matched(reply.matched);
        match reply.conflict {
            Some(_) if shared.broken.is("conflict-ignored") => {}
            Some(limit) => {
                let limit = shared.log.newest_within(limit);
                progress.on_conflict(limit.index, reply.round, self.reads.round());
            }
            None => progress.probing = false,
        }
        if news {
            self.advance_commit(shared);
        }
        self.confirm_reads(shared);
        self.replicate_to(shared, from);
        Transition::Stay
    }

    pub(crate) fn on_read(&mut self, shared: &mut Shared, ticket: Ticket) {
        if shared.broken.is("read-without-round") {
            return shared.out.reads.push(ReadGrant { ticket, index: shared.log.commit() });
        }
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
        if shared.broken.is("read-joins-round-under-way") && self.reads.join_started(reader) {
            return;
        }
        self.reads.join(reader);
        self.start_round_if_due(shared);
    }

    /// Commits what a quorum holds, but counts only for entries of its own term (section 5.4.2): an
    /// older entry on a majority may still be overwritten.
    fn advance_commit(&mut self, shared: &mut Shared) {
        let unsynced = shared.broken.is("leader-counts-unsynced");
        let own = if unsynced { shared.log.last() } else { shared.disk.persisted() };
        let holds = |peer| match self.progress.get(&peer) {
            Some(progress) => progress.counted(),
            None if peer == shared.me => own,
            None => Index::ZERO,
        };
        let held = shared.log.membership().reached(holds);
        let held =
            shared.broken.lower_quorum("commit-quorum-too-small", shared.log.membership(), holds, held);
        let next = shared.log.term_at(shared.log.commit().next());
        if shared.broken.is("commit-stops-at-older-term") && next != Some(shared.term()) {
            return;
        }
        let own_term = shared.log.term_at(held) == Some(shared.term());
        if (!own_term && !shared.broken.is("older-term-committed-by-count")) || !shared.commit_to(held) {
            return;
        }
        self.untold = true;
        self.start_round_if_due(shared);
    }

    /// Tells the followers of a commit index that has risen. Entries carry it too, and so does the answer to a
    /// follower's read; a message of its own is not worth its cost at each commit, but the next tick's.
    fn announce_commit(&mut self, shared: &mut Shared) {
        if mem::take(&mut self.untold) {
            let peers: Vec<Peer> = self.progress.keys().copied().collect();
            for peer in peers {
                self.send_empty(shared, peer);
            }
        }
    }

    fn start_round_if_due(&mut self, shared: &mut Shared) {
        if self.may_read(shared) && self.reads.is_due(shared.now, shared.settings.heartbeat) {
            self.start_round(shared);
        }
    }

    /// Whether it knows by now what was committed before its term.
    fn may_read(&self, shared: &Shared) -> bool {
        shared.log.commit() >= self.start || shared.broken.is("read-before-own-commit")
    }

    /// A heartbeat to all, carrying a new round.
    fn start_round(&mut self, shared: &mut Shared) {
        self.untold = false;
        let read_index = self.may_read(shared).then(|| shared.log.commit());
        let round = self.reads.start_round(shared.now, read_index);
        let peers: Vec<Peer> = self.progress.keys().copied().collect();
        for peer in peers {
            self.send_empty(shared, peer);
            if let Some(progress) = self.progress.get_mut(&peer) {
                // Kept until it was answered: constant reads send rounds faster than they are answered.
                if progress.round >= progress.heartbeat.0 {
                    progress.heartbeat = (round, progress.matched);
                }
            }
        }
        self.confirm_reads(shared);
    }

    /// Grants the reads of every round that a quorum has echoed.
    fn confirm_reads(&mut self, shared: &mut Shared) {
        let own = self.reads.round();
        let echoed = |peer| match self.progress.get(&peer) {
            Some(progress) => progress.round,
            None if peer == shared.me => own,
            None => Round(0),
        };
        let round = shared.log.membership().reached(echoed);
        let round =
            shared.broken.lower_quorum("read-quorum-too-small", shared.log.membership(), echoed, round);
        let granted = self.reads.confirm(round);
        let term = shared.term();
        for (index, reader) in granted {
            match reader {
                Reader::Local(ticket) if shared.broken.is("read-granted-at-zero") => {
                    shared.out.reads.push(ReadGrant { ticket, index: Index::ZERO });
                }
                Reader::Local(ticket) => shared.out.reads.push(ReadGrant { ticket, index }),
                Reader::Remote { peer, boot, sequence } => {
                    let reply = ReadIndexReply { term, boot, sequence, index: Some(index) };
                    shared.send(peer, Message::ReadIndexReply(reply));
                }
            }
        }
        self.start_round_if_due(shared);
    }

    fn replicate(&mut self, shared: &mut Shared) {
        let peers: Vec<Peer> = self.progress.keys().copied().collect();
        for peer in peers {
            self.replicate_to(shared, peer);
        }
    }

    /// Asks the driver to send what this follower lacks, as far as its window allows.
    fn replicate_to(&mut self, shared: &mut Shared, peer: Peer) {
        let Some(progress) = self.progress.get_mut(&peer) else { return };
        if progress.next > shared.log.last() {
            return;
        }
        let unbounded = shared.broken.is("window-unbounded") && progress.open.is_none();
        let budget = progress.budget(&shared.settings).or(unbounded.then_some(shared.settings.message_bytes));
        let Some(max_bytes) = budget else { return };
        let Some(prev) = shared.log.id_at(progress.next.prev()) else { return };
        progress.open = Some(prev);
        let furthest = Index(prev.index.0.saturating_add(shared.settings.message_entries));
        let last = furthest.min(shared.log.last());
        let envelope = self.append_envelope(shared, peer, prev, last);
        shared.out.replicate.push(Replicate { envelope, max_bytes });
    }

    /// An AppendEntries without entries, from where this follower is thought to be.
    fn send_empty(&mut self, shared: &mut Shared, peer: Peer) {
        let Some(progress) = self.progress.get(&peer) else { return };
        let prev = shared.log.id_at(progress.next.prev()).unwrap_or(shared.log.purged());
        let envelope = self.append_envelope(shared, peer, prev, prev.index);
        shared.out.send.push(envelope);
    }

    fn append_envelope(&self, shared: &Shared, to: Peer, prev: LogId, last: Index) -> Envelope {
        let first = prev.index.next();
        let entries = last > prev.index;
        let append = AppendEntries {
            term: shared.term(),
            prev,
            last,
            runs: if entries { shared.log.runs_between(first, last) } else { Vec::new() },
            memberships: if entries { shared.log.memberships_between(first, last) } else { Vec::new() },
            commit: shared.log.commit(),
            round: self.reads.round(),
            lease: 0,
            persisted: shared.disk.persisted(),
            disk_age: shared.disk.age(shared.now),
            time: 0,
            agreed: None,
        };
        shared.envelope(to, Message::AppendEntries(append))
    }

    /// The role ends: this node can no longer tell what the callers want to know.
    pub(crate) fn end(self, shared: &mut Shared) {
        if shared.broken.is("leader-forgets-reads") {
            return;
        }
        for ticket in self.reads.local_tickets() {
            shared.refuse(ticket, RefusedReason::NotLeader(None));
        }
    }
}
