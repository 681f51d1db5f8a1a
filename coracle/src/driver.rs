//! A node as a passive structure: the replica, those who ask it, and how it joins a cluster. What it forwards is in
//! [`forwarding`](crate::forwarding), how it founds one in [`founding`](crate::founding).
//!
//! It is fed what happens, and each [`turn`](Driver::turn) says what is to be done: messages to send, orders
//! for the log's writer, work for the machine, answers. It has no clock, no files, no sockets and no
//! threads; production's loop turns it in [`runtime`](crate::runtime), and the simulator turns the very same.
//!
//! A caller stands in one table at a time: in the replica until the core has decided, among the forwarded
//! writes while the leader decides, and then in the machine, which answers it.
//!
//! `W` is whom the outcome of a write goes to, `R` a query with whom its answer goes to.

use crate::applier::Progress;
use crate::config::Config;
use crate::courier::Courier;
use crate::digests::Digests;
use crate::entry::Entry;
use crate::error::{Busy, Leader, ReadError, WriteError};
use crate::forwarding::Forwarding;
use crate::founding::Founding;
use crate::given_up::Mending;
use crate::handover::Handover;
use crate::proposal::Proposal;
use crate::replica::{Effects, Event, Load, Moment, NotDone, Replica};
use crate::snapshots::Snapshots;
use crate::stopped_machines::Skipping;
use crate::storage::ReadLogError;
use crate::transport::{ForwardReply, PeerMessage, Tls};
use crate::work::{Actions, Answer, Caller, Order, Unsent, Waits, Way, Work};
use bytes::Bytes;
use coracle_core::{
    AppendEntries, AppendEntriesReply, Boot, ClusterId, Envelope, Index, LogId, Member, Message, NodeId,
    Peer, Raft, RefusedReason, Term, WriteId,
};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Duration;

/// How often callers who gave up are looked for, in ticks.
const SWEEP: u64 = 100;

/// Messages kept while the name of a cluster is made durable. More are lost, which is always safe.
const HELD: usize = 64;

/// A node that somebody else turns.
pub(crate) struct Driver<W, R> {
    me: NodeId,
    /// How long a write that goes to the leader may take there.
    pub(crate) limit: Duration,
    /// How many bytes of commands may wait in the courier.
    most_carried: u64,
    pub(crate) forward: bool,
    max_pending: usize,
    pub(crate) replica: Replica<Caller<W>, R>,
    cluster: Option<ClusterId>,
    /// A cluster that this node is about to join, once its name is durable, and what was said until then.
    joining: Option<Joining<W, R>>,
    /// The cluster that this node's bootstrap has founded, until its entry is durable and can be named.
    pub(crate) founded: Option<ClusterId>,
    pub(crate) forwarding: Forwarding<W>,
    /// Writes that are sent until they are answered, in a session.
    pub(crate) courier: Courier<W>,
    /// Who is known to know what.
    pub(crate) knowing: Knowing,
    pub(crate) founding: Founding,
    /// Leadership that goes to another node.
    pub(crate) handover: Handover<W>,
    /// Writes in the log that are not decided yet, by index.
    expecting: VecDeque<(LogId, Caller<W>)>,
    /// What this turn has taken in.
    pub(crate) events: Vec<Event<Caller<W>, R>>,
    pub(crate) commands: Vec<(Caller<W>, Proposal)>,
    reads: Vec<R>,
    /// What the next turn has to say, whatever the replica wants.
    pub(crate) actions: Actions<W, R>,
    /// Callers in the replica, among the forwarded, and of entries that are not decided.
    pub(crate) open: usize,
    /// Callers that were handed to the machine since the start.
    handed: u64,
    pub(crate) machine: Progress,
    pub(crate) digests: Digests,
    /// Whether it knows for certain who its peers are. Otherwise what they say of machines is told, and no more.
    pub(crate) authenticated: bool,
    /// Where this node's machine turned out to differ from that of a majority. From then on it is not used.
    pub(crate) fenced: Option<Index>,
    /// How it is rebuilt, and who else wants a state for that.
    pub(crate) mending: Mending,
    /// The term after the last turn.
    term: Term,
    /// The end of the log at the start, until the machine has come there again.
    catching_up: Option<Index>,
    pub(crate) ticks: u64,
    /// Why the log has no room for more.
    no_space: Option<String>,
    pub(crate) snapshots: Snapshots,
    /// Machines that have stopped, and what was ruled about that.
    pub(crate) skipping: Skipping,
    /// Who waits for the end of a change of the membership, and where it stands.
    pub(crate) changing: Option<(u64, LogId)>,
}

/// Which entries members are known to know (D5.5.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Knowing {
    /// All know all.
    #[cfg(any(test, feature = "sim"))]
    All,
    /// These know those up to a level, as far as they were met.
    These(BTreeMap<Peer, u16>),
}

impl Knowing {
    /// Whether this one is known to know those of this level.
    pub(crate) fn has(&self, peer: Peer, level: u16) -> bool {
        self.level(peer).is_some_and(|known| known >= level)
    }

    /// Up to which level this one knows them; none if it was not met.
    pub(crate) fn level(&self, peer: Peer) -> Option<u16> {
        match self {
            #[cfg(any(test, feature = "sim"))]
            Knowing::All => Some(u16::MAX),
            Knowing::These(peers) => peers.get(&peer).copied(),
        }
    }
}

struct Joining<W, R> {
    cluster: ClusterId,
    held: Vec<Event<Caller<W>, R>>,
}

impl<W: Waits, R: Waits> Driver<W, R> {
    pub(crate) fn new(
        replica: Replica<Caller<W>, R>,
        cluster: Option<ClusterId>,
        boot: Boot,
        config: &Config,
    ) -> Driver<W, R> {
        Driver {
            me: config.id,
            limit: config.request_timeout,
            most_carried: config.max_unproposed_bytes,
            forward: config.forward,
            max_pending: config.max_pending,
            cluster,
            joining: None,
            founded: None,
            forwarding: Forwarding::new(boot, replica.raft().broken()),
            courier: Courier::new(config.session_timeout.as_millis() as u64, replica.raft().broken()),
            knowing: Knowing::These(BTreeMap::new()),
            founding: Founding::new(replica.raft().me(), cluster, None, 0, replica.raft().broken()),
            handover: Handover::new(config.max_uncommitted_bytes, 2 * config.core().election_max),
            expecting: VecDeque::new(),
            events: Vec::new(),
            commands: Vec::new(),
            reads: Vec::new(),
            actions: Actions::default(),
            open: 0,
            handed: 0,
            machine: Progress::default(),
            digests: Digests::default(),
            authenticated: config.tls.as_ref().is_some_and(Tls::is_required),
            fenced: None,
            mending: Mending::new(config.rebuild_diverged),
            term: replica.raft().term(),
            catching_up: Some(replica.raft().last().index),
            replica,
            ticks: 0,
            no_space: None,
            snapshots: Snapshots::new(config),
            skipping: Skipping::default(),
            changing: None,
        }
    }

    /// The core, to look at.
    pub(crate) fn raft(&self) -> &Raft {
        self.replica.raft()
    }

    /// For tests, and the simulator: all members know all.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn among_equals(mut self) -> Driver<W, R> {
        self.knowing = Knowing::All;
        self
    }

    /// The replica, to look at.
    pub(crate) fn replica(&self) -> &Replica<Caller<W>, R> {
        &self.replica
    }

    /// The cluster that it belongs to.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Whether it belongs to no cluster, and is not about to join one.
    #[cfg(feature = "sim")]
    pub(crate) fn is_blank(&self) -> bool {
        self.cluster.is_none() && self.joining.is_none()
    }

    /// Whether the machine has come, since the start, as far as the log was then.
    pub(crate) fn caught_up(&self) -> bool {
        self.catching_up.is_none() && self.fenced.is_none() && self.machine_stop().is_none()
    }

    /// The machine is not where it was.
    pub(crate) fn catch_up_again(&mut self) {
        self.catching_up = Some(self.replica.raft().last().index);
    }

    /// Where its machine turned out to differ from that of a majority.
    pub(crate) fn fenced(&self) -> Option<Index> {
        self.fenced
    }

    /// What is known of the machines of all members, if this node leads.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Why the log has no room for more, while that is so.
    pub(crate) fn no_space(&self) -> Option<&str> {
        self.no_space.as_deref()
    }

    /// Whether a write is not even tried here: too many wait, or the log has no room.
    pub(crate) fn full(&self) -> Option<Busy> {
        if self.is_crowded() {
            Some(Busy::Requests)
        } else if self.no_space.is_some() && self.replica.raft().is_leader() {
            Some(Busy::Space)
        } else {
            None
        }
    }

    /// Whether as many wait for an answer as may.
    fn is_crowded(&self) -> bool {
        self.pending() >= self.max_pending
    }

    /// The newest version of the machine of which all members are: what entries are made for from now on.
    pub(crate) fn set_machine_version(&mut self, version: u16) {
        self.replica.set_machine_version(version);
    }

    /// How far the machine has come, as it has said last.
    #[cfg(feature = "sim")]
    pub(crate) fn progress(&self) -> Progress {
        self.machine
    }

    /// How far the machine has applied.
    pub(crate) fn machine_applied(&self) -> Index {
        self.machine.applied.index
    }

    /// How many wait for an answer.
    pub(crate) fn pending(&self) -> usize {
        self.open + (self.handed - self.machine.answered) as usize + self.courier.pending()
    }

    // ---- what happens

    /// A caller of this node wants this written, and waits for so long.
    pub(crate) fn on_write(&mut self, command: Bytes, limit: Duration, way: Way, caller: W) {
        if let Some(why) = self.full() {
            return self.actions.answers.push(Answer::Write(caller, Err(WriteError::Busy(why))));
        }
        if let Some(lane) = self.carries(way) {
            if self.courier.bytes() > self.most_carried {
                return self
                    .actions
                    .answers
                    .push(Answer::Write(caller, Err(WriteError::Busy(Busy::Requests))));
            }
            return self.courier.take(lane, command, caller);
        }
        if let Some(why) = self.unwritten() {
            return self.actions.answers.push(Answer::Write(caller, Err(why)));
        }
        self.open += 1;
        let raft = self.replica.raft();
        let leader = raft.leader_member().map(Member::peer);
        match leader {
            Some(leader) if self.forward && !raft.is_leader() => {
                let term = raft.term();
                let message = self.forwarding.send(leader, term, command, limit, caller, false);
                self.actions.send.push((leader, message));
            }
            _ => self.commands.push((Caller::Here(caller), Proposal::Command(command))),
        }
    }

    /// A caller of this node wants to read.
    pub(crate) fn on_read(&mut self, read: R) {
        if let Some(why) = self.unread() {
            return self.actions.answers.push(Answer::Read(read, why));
        }
        if self.is_crowded() {
            return self.actions.answers.push(Answer::Read(read, ReadError::Busy(Busy::Requests)));
        }
        self.open += 1;
        self.reads.push(read);
    }

    /// A caller of this node wants to read a state that has applied at least this entry, and asks no other node.
    pub(crate) fn on_read_from(&mut self, index: Index, read: R) {
        let refused = if let Some(why) = self.unread() {
            why
        } else if self.cluster.is_none() {
            ReadError::NotConfigured
        } else if self.is_crowded() {
            ReadError::Busy(Busy::Requests)
        } else {
            self.handed += 1;
            return self.actions.work.push(Work::Read(index, read));
        };
        self.actions.answers.push(Answer::Read(read, refused));
    }

    /// A peer of this cluster says something. `names_me`: its newest membership names this very node.
    ///
    /// A blank node joins a cluster by a vote request or an AppendEntries from one who names it, and by nothing
    /// else (D5.3.4). It remembers that durably before it says a word.
    pub(crate) fn on_message(
        &mut self,
        from: Peer,
        cluster: ClusterId,
        names_me: bool,
        message: PeerMessage,
    ) {
        let broken = self.replica.raft().broken();
        let names_me = names_me || broken.is("wiped-disk-counts") || broken.is("blank-node-binds-to-anybody");
        let held = match (self.cluster, &mut self.joining) {
            (Some(own), _) if own == cluster => None,
            (Some(_), _) => return,
            (None, Some(joining)) if joining.cluster == cluster => Some(&mut joining.held),
            (None, Some(_)) => return,
            (None, None) if !(names_me && message.binds()) => return,
            (None, joining) => {
                self.actions.orders.push(Order::Name(cluster));
                self.founding.belongs(cluster);
                Some(&mut joining.insert(Joining { cluster, held: Vec::new() }).held)
            }
        };
        match (message, held) {
            (PeerMessage::Raft { envelope, entries }, None) => {
                // What is for another node, or for an earlier life of this one, says nothing to it (TR-2).
                let (mine, last) =
                    (envelope.to == self.replica.raft().me(), self.replica.raft().last().index);
                match &envelope.message {
                    _ if !mine => {}
                    Message::AppendEntriesReply(AppendEntriesReply { digest, stop, wants, .. }) => {
                        self.on_stop_reported(from, *stop);
                        self.on_wanted(from, *wants);
                        if let Some(digest) = digest {
                            self.on_digest(from, *digest);
                        }
                    }
                    // One ahead of the log is told again later; a made-up one would outlast all true ones.
                    Message::AppendEntries(AppendEntries { agreed: Some(right), .. })
                        if right.index <= last =>
                    {
                        self.on_agreed(*right);
                    }
                    _ => {}
                }
                self.events.push(Event::Message(envelope, entries));
            }
            (PeerMessage::Raft { envelope, entries }, Some(held)) if held.len() < HELD => {
                held.push(Event::Message(envelope, entries));
            }
            (PeerMessage::Piece { envelope, bytes }, None) => self.events.push(Event::Piece(envelope, bytes)),
            (PeerMessage::Forward(forward), None) => self.on_forward(from, forward),
            (PeerMessage::ForwardReply(ForwardReply { id, outcome }), None) => {
                if self.forwarding.awaits(id, from) {
                    self.end_forward(id, outcome);
                } else if self.courier.awaits(id, from) {
                    self.courier.on_answer(id, outcome, self.ticks);
                }
            }
            (_, Some(_)) => {}
        }
    }

    /// The last connection to this peer ended: its answers will not come.
    pub(crate) fn on_disconnected(&mut self, peer: Peer) {
        self.end_forwards_to(peer);
        self.courier.on_disconnected(peer, self.ticks);
    }

    /// This peer's process is certainly gone.
    pub(crate) fn on_down(&mut self, peer: Peer) {
        self.on_disconnected(peer);
        self.events.push(Event::PeerDown(peer.id));
    }

    /// A message of [`Actions::send`] could not be sent.
    pub(crate) fn unsent(&mut self, what: Unsent) {
        match what {
            Unsent::Forward(id) => {
                let error = self.not_leader();
                self.courier.on_answer(id, Err(error.clone()), self.ticks);
                self.end_forward(id, Err(error));
            }
            Unsent::Entries(to, term, prev) => self.events.push(Event::Unsent(to, term, prev)),
            Unsent::Other => {}
        }
    }

    /// This write and all before it are durable.
    pub(crate) fn on_persisted(&mut self, id: WriteId) {
        // Only the newest counts: it stands for all before.
        match self.events.last_mut() {
            Some(Event::Persisted(last)) => *last = id,
            _ => self.events.push(Event::Persisted(id)),
        }
    }

    /// The log has no room for more, for this reason; or it has room again.
    pub(crate) fn on_space(&mut self, none: Option<String>) {
        self.no_space = none;
    }

    /// The identity names the cluster now.
    pub(crate) fn on_named(&mut self, cluster: ClusterId) {
        if let Some(joining) = self.joining.take_if(|joining| joining.cluster == cluster) {
            self.join(cluster);
            self.events.extend(joining.held);
        }
    }

    /// What was asked of the store.
    pub(crate) fn on_loaded(&mut self, load: Load, result: Result<Vec<Entry>, ReadLogError>) {
        self.events.push(Event::Loaded(load, result));
    }

    /// How far the machine has come.
    pub(crate) fn on_progress(&mut self, progress: Progress) {
        if (progress.applied, progress.bytes) != (self.machine.applied, self.machine.bytes) {
            self.events.push(Event::Applied(progress.applied.index, progress.bytes));
        } else if self.raft().broken().is("answers-counted-with-entries") {
            return;
        }
        self.snapshots.on_busy(progress.busy, progress.bytes);
        self.machine = progress;
        self.on_machine_mended(progress.mended);
        if let Some(own) = progress.compared {
            self.on_digest(self.replica.raft().me(), own);
        }
    }

    /// Whether somebody waits in the machine.
    pub(crate) fn is_machine_awaited(&self) -> bool {
        self.handed > self.machine.answered
    }

    /// Handles what was fed since the last time, but for writes and reads, then the timers, if it is time.
    pub(crate) fn handle(&mut self, now: Moment, tick: bool) {
        for event in mem::take(&mut self.events) {
            self.replica.on_event(now, event);
        }
        if tick {
            self.replica.on_event(now, Event::Tick);
            self.fire(now);
            self.founding.on_tick();
            self.pass_on_founding();
            self.ticks += 1;
            if self.ticks.is_multiple_of(SWEEP) {
                self.sweep(now);
            }
        }
    }

    /// One turn: handles everything that was fed since the last one, then the timers, if it is time. What is
    /// to be done now.
    pub(crate) fn turn(&mut self, now: Moment, tick: bool) -> Actions<W, R> {
        self.handle(now, false);
        self.carry();
        let commands = self.admit();
        if !commands.is_empty() {
            self.replica.on_event(now, Event::Propose(commands));
        }
        let reads = mem::take(&mut self.reads);
        if !reads.is_empty() {
            self.replica.on_event(now, Event::Read(reads));
        }
        self.handle(now, tick);
        if let Some(list) = self.founding.ready() {
            self.found(now, list);
        }
        self.look_after_mending(now);
        self.look_after_rulings(now);
        loop {
            let effects = self.replica.take();
            let more = !effects.apply.is_empty();
            self.absorb(effects);
            if !more {
                break;
            }
        }
        self.look_after_snapshots();
        self.look_after_changes();
        self.look_after_transfers();
        // An identity that named a cluster without its first entry would be of one that nobody can continue.
        let durable = self.replica.raft().persisted() > Index::ZERO;
        if let Some(cluster) = self.founded.take_if(|_| durable) {
            self.actions.orders.push(Order::Name(cluster));
            self.founding.founded();
        }
        let term = self.replica.raft().term();
        if mem::replace(&mut self.term, term) != term {
            self.end_forwards_before(term);
        }
        self.look_after_forwards();
        // What the log held at the start, and a leader did not take back, is applied again.
        let (raft, applied) = (self.replica.raft(), self.machine.applied.index);
        self.catching_up.take_if(|end| {
            let end = (*end).min(raft.last().index);
            let applied =
                applied >= raft.commit().min(raft.persisted()) || raft.broken().is("ready-unapplied");
            raft.leader().is_some() && raft.commit() >= end && applied
        });
        self.send_along();
        self.pass_on_founding();
        self.tell_carried();
        mem::take(&mut self.actions)
    }

    /// The node stops: who still waits here.
    pub(crate) fn stop(&mut self) -> (Vec<Caller<W>>, Vec<R>) {
        let (mut writes, mut reads) = self.replica.turn_out();
        writes.extend(mem::take(&mut self.commands).into_iter().map(|(caller, _)| caller));
        writes.extend(self.handover.turn_out());
        writes.extend(self.forwarding.turn_out().map(Caller::Here));
        writes.extend(self.courier.turn_out().into_iter().map(Caller::Here));
        reads.append(&mut self.reads);
        let expecting = mem::take(&mut self.expecting).into_iter().map(|(_, caller)| caller);
        writes.extend(expecting.filter(|_| !self.raft().broken().is("stop-forgets-writers")));
        self.open = 0;
        (writes, reads)
    }

    /// Who leads, with the address, and without the metadata, which the transport knows.
    pub(crate) fn leader(&self) -> Option<Leader> {
        let member = self.replica.raft().leader_member()?;
        Some(Leader::new(member.id, member.address.clone()))
    }

    // ---- how

    /// Whoever waits for an entry goes to the machine together with it, or with the news that leadership was lost.
    fn send_along(&mut self) {
        let work = &mut self.actions.work;
        let all = work.iter().any(|work| matches!(work, Work::Deposed));
        let fed = self.replica.fed();
        let decided = self.expecting.partition_point(|(id, _)| all || id.index <= fed);
        if decided > 0 {
            (self.open, self.handed) = (self.open - decided, self.handed + decided as u64);
            let expecting = self.expecting.drain(..decided).map(|(id, caller)| Work::Expect(id, caller));
            work.splice(0..0, expecting);
        }
    }

    /// Carries over what the replica wants.
    pub(crate) fn absorb(&mut self, effects: Effects<Caller<W>, R>) {
        let Effects {
            members,
            writes,
            send,
            purge,
            pieces,
            taken,
            installed,
            loads,
            accepted,
            refused,
            refused_reads,
            bootstrapped: _,
            changes,
            transfers,
            ruled,
            apply,
            granted,
            leadership_lost,
            alarms,
            fatal,
        } = effects;
        let actions = &mut self.actions;
        if members.is_some() {
            actions.members = members;
        }
        self.on_changes_taken(changes);
        self.on_transfers(transfers);
        self.on_ruled(ruled);
        self.mark_rulings();
        self.tell_machine_of_skips();
        let actions = &mut self.actions;
        self.snapshots.on_writes(&writes);
        actions.orders.extend(writes.into_iter().map(|(id, batch)| Order::Write(id, batch)));
        self.send(send);
        let actions = &mut self.actions;
        actions.loads.extend(loads);
        actions.work.extend(installed.map(Work::Restore));
        self.expecting.extend(accepted.into_iter().map(|(caller, id)| (id, caller)));
        (self.open, self.handed) = (self.open - granted.len(), self.handed + granted.len() as u64);
        if !apply.is_empty() {
            actions.work.push(Work::Apply(apply));
        }
        actions.work.extend(granted.into_iter().map(|(read, index)| Work::Read(index, read)));
        if leadership_lost {
            actions.work.push(Work::Deposed);
        }
        actions.alarms.extend(alarms);
        actions.fatal = actions.fatal.take().or(fatal);
        for (caller, why) in refused {
            self.refuse_write(caller, self.refusal(&why));
        }
        self.absorb_snapshots(purge, pieces, taken);
        for (read, why) in refused_reads {
            self.open -= usize::from(!self.raft().broken().is("refused-read-counted"));
            let error = match self.refusal(&why) {
                WriteError::Busy(why) => ReadError::Busy(why),
                WriteError::NotConfigured => ReadError::NotConfigured,
                _ => ReadError::NoLeader,
            };
            self.actions.answers.push(Answer::Read(read, error));
        }
    }

    /// Adds to what the core says what it knows nothing of.
    fn send(&mut self, send: Vec<(Envelope, Vec<Entry>)>) {
        let (own, agreed) = (self.digests.newest(self.replica.raft().me()), self.digests.agreed());
        let (stop, wants) = (self.own_stop(), self.wants());
        for (mut envelope, entries) in send {
            match &mut envelope.message {
                Message::AppendEntriesReply(reply) => {
                    (reply.digest, reply.stop, reply.wants) = (own, stop, wants);
                }
                Message::AppendEntries(append) => {
                    self.hold_back_commit(append, entries.len());
                    append.agreed = agreed.filter(|_| entries.is_empty());
                }
                Message::ReadIndexReply(reply) => self.hold_back_read(envelope.to, reply),
                _ => {}
            }
            self.actions.send.push((envelope.to, PeerMessage::Raft { envelope, entries }));
        }
    }

    fn refusal(&self, why: &NotDone) -> WriteError {
        match why {
            NotDone::Busy(why) => WriteError::Busy(*why),
            NotDone::Refused(RefusedReason::NotConfigured) => WriteError::NotConfigured,
            NotDone::Refused(_) => self.not_leader(),
        }
    }

    pub(crate) fn not_leader(&self) -> WriteError {
        match self.leader() {
            Some(leader) if leader.id != self.me => WriteError::NotLeader { leader },
            _ if self.replica.raft().membership().is_empty() => WriteError::NotConfigured,
            _ => WriteError::NoLeader,
        }
    }

    pub(crate) fn join(&mut self, cluster: ClusterId) {
        self.founding.belongs(cluster);
        self.cluster = Some(cluster);
        self.actions.cluster = Some(cluster);
    }

    /// Forgets callers who have given up. What is in the log goes its way without them.
    fn sweep(&mut self, now: Moment) {
        let before = self.expecting.len();
        self.expecting.retain(|(_, caller)| !caller.gave_up());
        let expecting = before - self.expecting.len();
        self.courier.sweep();
        self.open -= self.forwarding.sweep()
            + self.handover.sweep()
            + expecting
            + self.replica.forget_reads(now, R::gave_up);
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
