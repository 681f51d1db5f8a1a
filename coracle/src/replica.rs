//! The core with its bytes: carries out what [`Raft::step`] wants, and decides what waits for the disk.
//!
//! A passive structure. The [`driver`](crate::driver) feeds it [`Event`]s and carries out the [`Effects`] that
//! gather. Of what Raft's safety hangs on, this file owns three rules: the tail in memory equals the core's
//! log; what must not overtake a write is held until that write is done; and the machine gets no entry that
//! is not both committed and durable here.
//!
//! It also keeps those who ask until the core has decided about them: `W` is whom the outcome of a write
//! goes to, `R` whom that of a read does.

mod making;

use crate::cluster_clock::ClusterClock;
use crate::config::Config;
pub(crate) use crate::effects::{Effects, Event, Load, Moment, NotDone, Purpose};
use crate::entry::{self, Entry, Kind};
use crate::error::{Busy, StopReason};
use crate::limits::Limits;
use crate::proposal::Proposal;
use crate::rulings::{InLog, Ruling};
use crate::storage::{Change, ReadLogError, WriteBatch};
use crate::tail::Tail;
use crate::wire::{self, encode_membership};
use bytes::Bytes;
use coracle_core::{
    AppendEntries, Carried, Envelope, Held, Index, Input, LogId, Membership, Message, Output, Raft,
    ReadGrant, Refused, Replicate, TailChange, Ticket, Write,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

/// A node without threads, sockets and files.
pub(crate) struct Replica<W, R> {
    raft: Raft,
    tail: Tail,
    limits: Limits,
    /// What is stamped into a command: the machine's version, and whether its encoding is self-describing.
    machine: (u16, bool),
    /// What must not overtake a write.
    held: VecDeque<Held>,
    /// Who waits for the core's answer to a ticket.
    tickets: BTreeMap<Ticket, Asked<W, R>>,
    next_ticket: Ticket,
    clock: ClusterClock,
    /// The newest entry of this node's own by which timers fire.
    fires: LogId,
    /// The newest entry handed to the machine.
    fed: Index,
    /// Whether entries for the machine are being loaded.
    feeding: bool,
    /// Bytes of entries handed to the machine, and applied by it, since the start.
    handed: u64,
    applied: u64,
    /// The bytes of the piece of a snapshot that is being looked at.
    piece: Bytes,
    /// What the core wants replicated and was not looked at yet.
    replicate: VecDeque<Replicate>,
    effects: Effects<W, R>,
}

enum Asked<W, R> {
    Commands(Vec<(W, Proposal)>),
    Firing,
    Ruling(u64, Ruling),
    Reads(Vec<R>),
    Bootstrap,
    Change(u64),
    Transfer(u64),
}

impl<W, R> Replica<W, R> {
    /// A replica around a core that was just restored. `newest_time` is the cluster time of the last entry
    /// in its log.
    pub(crate) fn new(raft: Raft, config: &Config, newest_time: u64) -> Replica<W, R> {
        Replica {
            tail: Tail::new(raft.last().index),
            limits: Limits {
                unpersisted: config.max_unpersisted_bytes,
                uncommitted: config.max_uncommitted_bytes,
                unapplied: config.max_unapplied_bytes,
                cache: config.cache_bytes,
                apply: config.apply_bytes,
            },
            machine: config.machine,
            held: VecDeque::new(),
            tickets: BTreeMap::new(),
            next_ticket: Ticket(0),
            clock: ClusterClock::new(newest_time),
            fires: LogId::ZERO,
            fed: raft.status().applied,
            feeding: false,
            handed: 0,
            applied: 0,
            piece: Bytes::new(),
            replicate: VecDeque::new(),
            effects: Effects::default(),
            raft,
        }
    }

    /// The core, to look at.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The rulings that the log holds, written or not.
    pub(crate) fn rulings(&self) -> &InLog {
        self.tail.rulings()
    }

    /// The log that was found at the start holds these.
    pub(crate) fn knowing_rulings(&mut self, rulings: InLog) {
        self.tail.knowing_rulings(rulings);
    }

    /// Handles one event. The effects gather until [`take`](Replica::take).
    pub(crate) fn on_event(&mut self, now: Moment, event: Event<W, R>) {
        let now = self.counted(now);
        match event {
            Event::Tick => self.step(now, Input::Tick, Vec::new()),
            Event::Message(envelope, entries) => self.on_message(now, envelope, entries),
            Event::Propose(commands) => self.on_propose(now, commands),
            // Not counted among what users want written, and so never refused for that (D5.6.1).
            Event::Fire => {
                let ticket = self.ticket(Asked::Firing);
                self.step(now, Input::Propose { ticket, count: 1 }, Vec::new());
            }
            Event::Rule(caller, ruling) => self.rule(now, caller, ruling),
            Event::MachineStopped(stopped) => self.step(now, Input::MachineStopped(stopped), Vec::new()),
            Event::Rewind(base) => self.pass_over(base),
            Event::FeedFrom(index) => self.feed_from(index),
            Event::Read(requests) => {
                let ticket = self.ticket(Asked::Reads(requests));
                self.step(now, Input::Read { ticket }, Vec::new());
            }
            Event::Bootstrap(membership) => {
                let ticket = self.ticket(Asked::Bootstrap);
                self.step(now, Input::Bootstrap { ticket, membership }, Vec::new());
            }
            Event::Change(caller, expected, to) => self.change(now, caller, expected, to),
            Event::Transfer(caller, to) => {
                let ticket = self.ticket(Asked::Transfer(caller));
                self.step(now, Input::TransferLeadership { ticket, to }, Vec::new());
            }
            Event::NoTransfers(peers) => self.step(now, Input::KnowNoTransfers(peers), Vec::new()),
            Event::Persisted(id) => {
                self.step(now, Input::Persisted(id), Vec::new());
                self.release_held();
            }
            Event::Piece(envelope, bytes) => {
                self.piece = bytes;
                self.step(now, Input::Receive(envelope, Carried::default()), Vec::new());
                self.piece = Bytes::new();
            }
            Event::PieceTaken(from, reply) => {
                self.step(now, Input::PieceTaken { from, reply }, Vec::new());
            }
            Event::SnapshotReceived(snapshot, membership, time) => {
                self.clock.saw(now.millis, time);
                self.step(now, Input::SnapshotReceived { snapshot, membership }, Vec::new());
            }
            Event::SnapshotSaved(snapshot, purge) => {
                self.step(now, Input::SnapshotSaved { snapshot, purge }, Vec::new());
            }
            Event::Loaded(load, result) => self.on_loaded(now, load, result),
            Event::Unsent(to, term, prev) => {
                self.step(now, Input::Unsent { to, term, prev }, Vec::new());
            }
            Event::PeerDown(id) => self.step(now, Input::LeaderDown(id), Vec::new()),
            Event::Applied(index, bytes) => {
                self.applied = bytes;
                self.step(now, Input::Applied(index), Vec::new());
            }
            Event::Fence => self.step(now, Input::Fence, Vec::new()),
            Event::WantState(after) => self.step(now, Input::WantState(after), Vec::new()),
            Event::Mended(index) => {
                self.step(now, Input::Mended, Vec::new());
                // A newer snapshot may have come meanwhile, which the machine takes next.
                self.feed_from(self.fed.max(index));
            }
        }
        // Each message that leaves may open the next one.
        while let Some(replicate) = self.replicate.pop_front() {
            self.replicate(now, replicate);
        }
    }

    /// What the clock counts: milliseconds.
    fn counted(&self, now: Moment) -> Moment {
        let step = if self.breaks("clock-counts-ticks") { 10 } else { 1 };
        Moment { millis: now.millis / step * step, ..now }
    }

    fn rule(&mut self, now: Moment, caller: u64, ruling: Ruling) {
        let ticket = self.ticket(Asked::Ruling(caller, ruling));
        self.step(now, Input::Propose { ticket, count: 1 }, Vec::new());
    }

    fn change(&mut self, now: Moment, caller: u64, expected: LogId, to: Membership) {
        if let Some(why) = self.busy().filter(|_| self.raft.is_leader()) {
            return self.effects.changes.push((caller, Err(NotDone::Busy(why))));
        }
        let ticket = self.ticket(Asked::Change(caller));
        self.step(now, Input::ChangeMembership { ticket, expected, to }, Vec::new());
    }

    /// What is to be done now. Empty-handed callers may wait for the next event.
    pub(crate) fn take(&mut self) -> Effects<W, R> {
        self.feed();
        let fed = if self.raft.is_fenced() { Index::LIMIT } else { self.fed };
        self.tail.evict(self.raft.persisted().min(fed), self.limits.cache);
        mem::take(&mut self.effects)
    }

    /// The writes that the next [`take`](Replica::take) will give.
    #[cfg(feature = "sim")]
    pub(crate) fn writes(&self) -> &[(coracle_core::WriteId, WriteBatch)] {
        &self.effects.writes
    }

    /// The bytes of committed entries that the machine has not applied yet, as far as they are in memory.
    pub(crate) fn unapplied_bytes(&self) -> u64 {
        if self.raft.is_fenced() {
            return 0;
        }
        let waiting =
            self.tail.bytes_after(self.fed) - self.tail.bytes_after(self.raft.commit().max(self.fed));
        self.handed - self.applied + waiting
    }

    /// Forgets reads that nobody waits for any more. How many.
    pub(crate) fn forget_reads(&mut self, now: Moment, gone: impl Fn(&R) -> bool) -> usize {
        let mut forgotten = 0;
        let mut empty = BTreeSet::new();
        for (ticket, asked) in &mut self.tickets {
            if let Asked::Reads(reads) = asked {
                let before = reads.len();
                reads.retain(|read| !gone(read));
                forgotten += before - reads.len();
                if reads.is_empty() {
                    empty.insert(*ticket);
                }
            }
        }
        self.tickets.retain(|ticket, _| !empty.contains(ticket));
        if !empty.is_empty() {
            self.step(now, Input::Forget(empty), Vec::new());
        }
        forgotten
    }

    /// Whoever still waits for the core's decision: the node stops.
    pub(crate) fn turn_out(&mut self) -> (Vec<W>, Vec<R>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for asked in mem::take(&mut self.tickets).into_values() {
            match asked {
                Asked::Commands(commands) => writes.extend(commands.into_iter().map(|(write, _)| write)),
                Asked::Reads(some) => reads.extend(some),
                Asked::Firing | Asked::Bootstrap | Asked::Ruling(..) => {}
                Asked::Change(_) | Asked::Transfer(_) => {}
            }
        }
        (writes, reads)
    }

    /// An entry of the tail in memory.
    pub(crate) fn entry_in_memory(&self, index: Index) -> Option<&Entry> {
        self.tail.get(index)
    }

    fn breaks(&self, rule: &str) -> bool {
        self.raft.broken().is(rule)
    }

    fn ticket(&mut self, asked: Asked<W, R>) -> Ticket {
        self.next_ticket = Ticket(self.next_ticket.0 + 1);
        self.tickets.insert(self.next_ticket, asked);
        self.next_ticket
    }

    fn on_message(&mut self, now: Moment, mut envelope: Envelope, mut entries: Vec<Entry>) {
        if self.breaks("heartbeat-shed")
            && matches!(envelope.message, Message::AppendEntries(_))
            && self.tail.bytes_after(self.raft.persisted()) > self.limits.unpersisted
        {
            return;
        }
        if let Message::AppendEntries(append) = &mut envelope.message
            && !entries.is_empty()
            && self.tail.bytes_after(self.raft.persisted()) > self.limits.unpersisted
            && !self.breaks("follower-takes-all")
        {
            // The disk does not keep up: only the heartbeat in it counts, so that no election follows. What it says of the
            // commit index it says to one who takes the entries, and with them the rulings about what is committed (D5.5.5).
            append.drop_entries();
            append.commit = append.commit.min(self.raft.commit());
            entries.clear();
        }
        let prev = match &envelope.message {
            Message::AppendEntries(append) => append.prev.index,
            _ => Index::ZERO,
        };
        match wire::carried(prev, &entries) {
            Ok(carried) => self.step(now, Input::Receive(envelope, carried), entries),
            // It would not have got through the wire.
            Err(error) => tracing::trace!(%error, "message dropped"),
        }
    }

    /// What the cluster's clock shows here.
    pub(crate) fn cluster_time(&self, now: Moment) -> u64 {
        self.clock.read(now.millis)
    }

    /// Whether an entry of this office by which timers fire comes after this one.
    pub(crate) fn fires_after(&self, applied: LogId) -> bool {
        self.fires > applied
    }

    /// What has no room for another entry of this leader.
    pub(crate) fn busy(&self) -> Option<Busy> {
        let waiting = self.tail.bytes_after(self.raft.persisted());
        let uncommitted = self.tail.bytes_after(self.raft.commit());
        self.limits.exceeded(self.unapplied_bytes(), waiting, uncommitted)
    }

    /// Each command is admitted by itself, however many come in one turn (D5.1.12).
    fn on_propose(&mut self, now: Moment, mut commands: Vec<(W, Proposal)>) {
        if self.raft.is_leader() && !self.breaks("leader-takes-all") {
            let mut waiting = self.tail.bytes_after(self.raft.persisted());
            let mut uncommitted = self.tail.bytes_after(self.raft.commit());
            let unapplied = self.unapplied_bytes();
            let mut full = |command: &Proposal| {
                let full = self.limits.exceeded(unapplied, waiting, uncommitted);
                let bytes = (entry::HEADER + command.len()) as u64;
                (waiting, uncommitted) = (waiting + bytes, uncommitted + bytes);
                full
            };
            let first = commands.iter().enumerate().find_map(|(at, (_, command))| Some((at, full(command)?)));
            if let Some((at, why)) = first {
                let refused = commands.split_off(at).into_iter();
                self.effects.refused.extend(refused.map(|(request, _)| (request, NotDone::Busy(why))));
            }
            if commands.is_empty() {
                return;
            }
        }
        let count = commands.len() as u64;
        let ticket = self.ticket(Asked::Commands(commands));
        self.step(now, Input::Propose { ticket, count }, Vec::new());
    }

    /// Feeds the core, and carries out what it wants, up to where the driver is needed.
    fn step(&mut self, now: Moment, input: Input, received: Vec<Entry>) {
        let led = self.raft.is_leader().then(|| self.raft.term());
        let told = match &input {
            Input::Receive(Envelope { from, message: Message::AppendEntries(append), .. }, _) => {
                Some((from.id, append.term, append.time))
            }
            _ => None,
        };
        self.clock.start(now.millis);
        if led.is_none() && self.breaks("clock-stands-still") {
            self.clock.stop(now.millis);
        }
        let output = self.raft.step(now.tick, input);
        let leads = self.raft.is_leader().then(|| self.raft.term());
        if led.is_some() && leads.is_none() && self.breaks("clock-stands-still") {
            self.clock.saw(now.millis, 0);
        }
        if led.is_some() && led != leads && !self.breaks("deposed-not-told") {
            self.effects.leadership_lost = true;
        }
        if let Some((leader, term, time)) = told
            && leads.is_none()
            && (self.raft.leader(), self.raft.term()) == (Some(leader), term)
        {
            self.clock.hear(now.millis, time);
        }
        self.carry_out(now, output, &received);
    }

    /// Does what the core wants, up to where the driver is needed.
    fn carry_out(&mut self, now: Moment, output: Output, received: &[Entry]) {
        let Output {
            members,
            tail,
            replicate,
            send,
            write,
            send_after_sync,
            purge,
            pieces,
            taken,
            installed,
            commit: _,
            reads,
            refused,
            transfers,
            alarms,
            dropped,
        } = output;
        if let Some(reason) = dropped {
            tracing::trace!(?reason, "input dropped");
        }
        if let Some(members) = members {
            self.effects.members = Some((members, self.raft.leaving()));
        }
        for change in tail {
            self.change_tail(now, change, received);
        }
        if let Some(write) = write {
            let batch = self.batch(&write);
            self.effects.writes.push((write.id, batch));
        }
        for mut envelope in send {
            if let Message::AppendEntries(append) = &mut envelope.message {
                append.time = self.clock.read(now.millis);
            }
            self.effects.send.push((envelope, Vec::new()));
        }
        self.hold(send_after_sync);
        self.release_held();
        self.effects.purge = purge.or(self.effects.purge);
        if let Some(upto) = purge {
            self.tail.forget_rulings(upto.index);
        }
        self.effects.taken.extend(taken);
        let bytes = &self.piece;
        self.effects.pieces.extend(pieces.into_iter().map(|(from, install)| (from, install, bytes.clone())));
        if let Some(snapshot) = installed {
            self.pass_over(snapshot);
        }
        self.answer(refused, reads);
        for (ticket, end) in transfers {
            if let Some(Asked::Transfer(caller)) = self.tickets.remove(&ticket) {
                self.effects.transfers.push((caller, Ok(end)));
            }
        }
        self.effects.alarms.extend(alarms);
        self.replicate.extend(replicate);
    }

    /// The machine goes on from a snapshot: what was to be applied before that is in it.
    fn pass_over(&mut self, snapshot: LogId) {
        self.handed -= self.effects.apply.drain(..).map(|entry| entry.len() as u64).sum::<u64>();
        self.effects.installed = Some(snapshot);
        self.fed = snapshot.index;
    }

    /// The machine has applied everything up to there, and what it was handed after that is thrown away.
    fn feed_from(&mut self, index: Index) {
        self.handed -= self.effects.apply.drain(..).map(|entry| entry.len() as u64).sum::<u64>();
        self.fed = index;
    }

    /// Holds messages until the disk has come so far.
    fn hold(&mut self, messages: Vec<Held>) {
        for Held { mut after, term, envelope } in messages {
            if self.breaks("held-for-next-write-only") {
                after = after.min(self.raft.written().next());
            }
            // A newer message of the same kind to the same node says all that matters (D5.1.13): while a disk
            // hangs, what is held must not grow with every heartbeat.
            let kind = mem::discriminant(&envelope.message);
            let same = |held: &Envelope| held.to == envelope.to && mem::discriminant(&held.message) == kind;
            self.held.retain(|held| !same(&held.envelope));
            self.held.push_back(Held { after, term, envelope });
        }
    }

    /// Passes on what the core refuses and grants to whoever asked.
    fn answer(&mut self, refused: Vec<Refused>, reads: Vec<ReadGrant>) {
        for Refused { ticket, reason } in refused {
            let why = || NotDone::Refused(reason);
            match self.tickets.remove(&ticket) {
                Some(Asked::Commands(commands)) => {
                    self.effects.refused.extend(commands.into_iter().map(|(write, _)| (write, why())));
                }
                Some(Asked::Reads(reads)) => {
                    self.effects.refused_reads.extend(reads.into_iter().map(|read| (read, why())));
                }
                // They fire when it leads again, or another does.
                Some(Asked::Firing) => {}
                Some(Asked::Ruling(caller, _)) => self.effects.ruled.push((caller, None)),
                Some(Asked::Bootstrap) => self.effects.bootstrapped = Some(Err(reason)),
                Some(Asked::Change(caller)) => self.effects.changes.push((caller, Err(why()))),
                Some(Asked::Transfer(caller)) => self.effects.transfers.push((caller, Err(reason))),
                None => {}
            }
        }
        for ReadGrant { ticket, index } in reads {
            if let Some(Asked::Reads(requests)) = self.tickets.remove(&ticket) {
                self.effects.granted.extend(requests.into_iter().map(|request| (request, index)));
            }
        }
    }

    fn change_tail(&mut self, now: Moment, change: TailChange, received: &[Entry]) {
        match change {
            TailChange::Truncate(last) => self.tail.truncate(last),
            TailChange::Reset(snapshot) => self.tail = Tail::new(snapshot.index),
            TailChange::TakeReceived(first) => {
                for entry in received.iter().filter(|entry| entry.index() >= first) {
                    self.clock.saw(now.millis, entry.stamp().cluster_time);
                    self.tail.push(entry.clone());
                }
            }
            TailChange::TakeProposed { first, ticket, .. } => {
                let mut id = first;
                match self.tickets.remove(&ticket) {
                    Some(Asked::Firing) => self.make(now, id, Kind::Timer, &[]),
                    Some(Asked::Ruling(caller, ruling)) => {
                        self.make(now, id, Kind::Ruling, &ruling.encode());
                        self.effects.ruled.push((caller, Some(id)));
                    }
                    Some(Asked::Commands(commands)) => {
                        for (request, command) in commands {
                            self.make_proposed(now, id, &command);
                            self.effects.accepted.push((request, id));
                            id.index = id.index.next();
                        }
                    }
                    _ => {}
                }
            }
            TailChange::TakeNoop(id) => self.make(now, id, Kind::Noop, &[]),
            TailChange::TakeMembership { id, membership, ticket } => {
                self.make(now, id, Kind::Membership, &encode_membership(&membership));
                match ticket.and_then(|ticket| self.tickets.remove(&ticket)) {
                    Some(Asked::Bootstrap) => self.effects.bootstrapped = Some(Ok(())),
                    Some(Asked::Change(caller)) => self.effects.changes.push((caller, Ok(id))),
                    _ => {}
                }
            }
        }
    }

    fn batch(&self, write: &Write) -> WriteBatch {
        let reset = write.reset.map(Change::Reset);
        let truncate = write.truncate.map(Change::Truncate);
        let append = write.append.map(|(first, last)| {
            Change::Append(self.tail.range(first, last, u64::MAX).expect("what is written was just appended"))
        });
        WriteBatch {
            hard_state: write.hard_state,
            changes: reset.into_iter().chain(truncate).chain(append).collect(),
        }
    }

    /// Lets go of what waited for writes that are done. Messages of an older term are pointless by now.
    fn release_held(&mut self) {
        while let Some(held) = self.held.front()
            && held.after <= self.raft.written()
        {
            let Held { term, envelope, .. } = self.held.pop_front().expect("just seen");
            if term == self.raft.term() {
                self.effects.send.push((envelope, Vec::new()));
            }
        }
    }

    fn replicate(&mut self, now: Moment, replicate: Replicate) {
        let (first, last) = (replicate.append.prev.index.next(), replicate.last);
        let max_bytes = replicate.max_bytes;
        match self.tail.range(first, last, max_bytes) {
            Some(entries) => self.send_entries(now, replicate, entries),
            None => {
                let last = last.min(self.tail.first().prev());
                let purpose = Purpose::Replicate(Box::new(replicate));
                self.effects.loads.push(Load { first, last, max_bytes, purpose });
            }
        }
    }

    /// Sends what was asked for, cut to the entries at hand, and tells the core.
    fn send_entries(&mut self, now: Moment, replicate: Replicate, entries: Vec<Entry>) {
        let Some(newest) = entries.last() else { return };
        let Replicate { to, mut append, .. } = replicate;
        append.last = newest.index();
        append.time = self.clock.read(now.millis);
        let (term, prev, last) = (append.term, append.prev, append.last);
        let bytes = entries.iter().map(|entry| entry.len() as u64).sum();
        self.effects.send.push((self.raft.envelope(to, append), entries));
        self.step(now, Input::Sent { to, term, prev, last, bytes }, Vec::new());
    }

    fn on_loaded(&mut self, now: Moment, load: Load, result: Result<Vec<Entry>, ReadLogError>) {
        // The store is not ours, perhaps: what it gives beyond what it was asked for may not even be committed.
        let asked = |entries: &Vec<Entry>| {
            let range = load.first.0..=load.last.0;
            !entries.is_empty()
                && entries
                    .iter()
                    .zip(load.first.0..)
                    .all(|(entry, at)| entry.index().0 == at && range.contains(&at))
        };
        if result.as_ref().is_ok_and(|entries| !asked(entries)) {
            return self.fail(StopReason::Invariant(
                "the store gave other entries than it was asked for".to_owned(),
            ));
        }
        // Time has passed: an entry counts only if the log still holds that very entry.
        let holds = |entry: &Entry| self.raft.term_at(entry.index()) == Some(entry.term());
        let current = |entries: &Vec<Entry>| entries.iter().all(holds);
        match load.purpose {
            Purpose::Replicate(replicate) => {
                let (to, AppendEntries { term, prev, .. }) = (replicate.to, &replicate.append);
                let (term, prev) = (*term, *prev);
                match result {
                    Ok(entries) if self.raft.wants(&replicate) && current(&entries) => {
                        self.send_entries(now, *replicate, entries);
                    }
                    Err(ReadLogError::Store(error)) => self.fail(StopReason::Storage(Arc::new(error))),
                    _ => self.step(now, Input::Unsent { to, term, prev }, Vec::new()),
                }
            }
            Purpose::Apply => {
                self.feeding = false;
                match result {
                    // A snapshot took its place meanwhile, or is about to: the store may have been reset to it already.
                    _ if self.raft.is_fenced() || load.first != self.fed.next() => {}
                    Err(ReadLogError::Purged | ReadLogError::Missing) if self.raft.is_installing() => {}
                    Ok(entries) if current(&entries) => self.hand_over(entries),
                    Ok(_) => self.fail(StopReason::Invariant(
                        "the store gave other entries than the committed ones".to_owned(),
                    )),
                    Err(ReadLogError::Store(error)) => self.fail(StopReason::Storage(Arc::new(error))),
                    Err(error) => {
                        self.fail(StopReason::Invariant(format!(
                            "the store lost committed entries: {error}"
                        )));
                    }
                }
            }
        }
    }

    /// The newest index that the machine was handed.
    pub(crate) fn fed(&self) -> Index {
        self.fed
    }

    /// Hands the machine what is committed and durable here, as long as it keeps up.
    fn feed(&mut self) {
        let first = self.fed.next();
        let durable = if self.breaks("machine-ahead-of-disk") { Index::LIMIT } else { self.raft.persisted() };
        let last = self.raft.commit().min(durable);
        // What the machine was handed and has not applied is bounded.
        let room = self.limits.unapplied.saturating_sub(self.handed - self.applied);
        let waits = self.feeding || self.raft.is_installing();
        if self.raft.is_fenced() || waits || first > last || !self.effects.apply.is_empty() {
            return;
        }
        let bounded = !self.breaks("machine-bound-ignored");
        if room == 0 && bounded {
            return;
        }
        let batch = if bounded { self.limits.apply.min(room) } else { self.limits.apply };
        match self.tail.range(first, last, batch) {
            Some(entries) => self.hand_over(entries),
            None => {
                self.feeding = true;
                let last = last.min(self.tail.first().prev());
                let load = Load { first, last, max_bytes: batch, purpose: Purpose::Apply };
                self.effects.loads.push(load);
            }
        }
    }

    fn hand_over(&mut self, entries: Vec<Entry>) {
        let loaded = self.tail.get(self.fed.next()).is_none();
        if let Some(newest) = entries.last()
            && !(loaded && self.breaks("loaded-fed-twice"))
        {
            self.fed = newest.index();
        }
        self.handed += entries.iter().map(|entry| entry.len() as u64).sum::<u64>();
        self.effects.apply.extend(entries);
    }

    fn fail(&mut self, reason: StopReason) {
        self.effects.fatal.get_or_insert(reason);
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
