//! The driver of a running node: takes what happens, turns the passive structures, carries out what they
//! want. It decides nothing.
//!
//! One task owns the [`Replica`] and the [`Applier`], so nothing here needs a lock. A turn takes all that
//! has come in, reads the clock, feeds the replica, and carries out its effects; so under load the costs
//! of a turn are shared by many requests.

use crate::applier::{Applier, Outcome};
use crate::clock;
use crate::config::{Config, TICK};
use crate::entry::{Entry, MAX_PAYLOAD};
use crate::error::*;
use crate::replica::{Effects, Event, Load, NotDone, Replica, RequestId};
use crate::requests::{Forwarded, Request, Status, Waiter, WriteAnswer};
use crate::state_machine::StateMachine;
use crate::storage::disk::Disk;
use crate::storage::{LogReader, ReadLogError, identity};
use crate::transport::tcp::Tcp;
use crate::transport::{Forward, ForwardReply, Inbound, PeerMessage};
use crate::writer::{Report, Writer};
use bytes::Bytes;
use coracle_core::*;
use std::collections::HashMap;
use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Requests, and messages, taken in one turn at most, so that neither shuts out the other.
const TURN: usize = 1024;

/// How long a stop waits for the disk. A sync that takes longer hangs, and the stop must not.
const DISK_PATIENCE: Duration = Duration::from_secs(4);

/// How often abandoned reads are looked for, in ticks.
const SWEEP: u64 = 100;

/// Everything that a running node consists of.
pub(crate) struct Parts<S: StateMachine> {
    pub(crate) config: Config,
    pub(crate) replica: Replica,
    pub(crate) applier: Applier<S>,
    pub(crate) transport: Arc<Tcp>,
    pub(crate) writer: Writer,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    pub(crate) reader: Arc<dyn LogReader>,
    /// None for a store in memory.
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) requests: mpsc::Receiver<Request<S>>,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    pub(crate) leader: watch::Sender<Option<Leader>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) stopped: Stopped,
}

/// Tells the handles that the node has stopped, however that came about.
pub(crate) struct Stopped(pub(crate) watch::Sender<Option<StopReason>>);

impl Drop for Stopped {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            StopReason::Invariant("the node's driver panicked".to_owned())
        } else {
            // The runtime that drove the node was shut down.
            StopReason::Requested
        };
        self.0.send_if_modified(|told| {
            let untold = told.is_none();
            told.get_or_insert(reason);
            untold
        });
    }
}

pub(crate) struct Driver<S: StateMachine> {
    parts: Parts<S>,
    waiters: HashMap<RequestId, Waiter<S>>,
    next_request: u64,
    forwarded: Forwarded<S>,
    /// The cluster that the own bootstrap has founded, until its entry is durable and the identity can
    /// name it.
    founded: Option<ClusterId>,
    loaded: mpsc::UnboundedReceiver<(Load, Result<Vec<Entry>, ReadLogError>)>,
    loads: mpsc::UnboundedSender<(Load, Result<Vec<Entry>, ReadLogError>)>,
    /// What the role was when it was last told of, for the log.
    told: (RoleName, Term),
    ticks: u64,
    /// Set when the node has to stop.
    end: Option<StopReason>,
}

/// What a turn has taken in.
struct Intake<S: StateMachine> {
    events: Vec<Event>,
    commands: Vec<(RequestId, Bytes)>,
    reads: Vec<RequestId>,
    statuses: Vec<oneshot::Sender<Status>>,
    _machine: std::marker::PhantomData<S>,
}

impl<S: StateMachine> Driver<S> {
    pub(crate) fn new(parts: Parts<S>) -> Driver<S> {
        let (loads, loaded) = mpsc::unbounded_channel();
        let told = (parts.replica.raft().role_name(), parts.replica.raft().term());
        Driver {
            parts,
            waiters: HashMap::new(),
            next_request: 0,
            forwarded: Forwarded::new(),
            founded: None,
            loaded,
            loads,
            told,
            ticks: 0,
            end: None,
        }
    }

    /// Runs until the node is asked to stop, or has to.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = true;
        while self.end.is_none() {
            let mut intake = Intake::default();
            let mut tick = false;
            if more {
                // The machine has entries left to apply: look at what came in, but wait for nothing.
                tokio::task::yield_now().await;
                if *self.parts.stop.borrow() {
                    self.end = Some(StopReason::Requested);
                }
            } else {
                tokio::select! {
                    biased;
                    _ = self.parts.stop.changed() => self.end = Some(StopReason::Requested),
                    report = self.parts.reports.recv() => match report {
                        Some(report) => self.on_report(report, &mut intake),
                        None => self.end = Some(StopReason::Storage("the log's writer ended".to_owned())),
                    },
                    Some(inbound) = self.parts.inbound.recv() => self.on_inbound(inbound, &mut intake),
                    request = self.parts.requests.recv() => match request {
                        Some(request) => self.on_request(request, &mut intake),
                        None => self.end = Some(StopReason::Requested),
                    },
                    Some((load, result)) = self.loaded.recv() => {
                        intake.events.push(Event::Loaded(load, result));
                    }
                    _ = ticks.tick() => tick = true,
                }
            }
            self.take_in(&mut intake);
            tokio::select! {
                biased;
                _ = ticks.tick() => tick = true,
                () = ready(()) => {}
            }
            more = self.turn(intake, tick);
        }
        self.shut_down().await;
    }

    /// Takes whatever else has come in already.
    fn take_in(&mut self, intake: &mut Intake<S>) {
        while let Ok(report) = self.parts.reports.try_recv() {
            self.on_report(report, intake);
        }
        while let Ok((load, result)) = self.loaded.try_recv() {
            intake.events.push(Event::Loaded(load, result));
        }
        for _ in 0..TURN {
            let Ok(inbound) = self.parts.inbound.try_recv() else { break };
            self.on_inbound(inbound, intake);
        }
        for _ in 0..TURN {
            let Ok(request) = self.parts.requests.try_recv() else { break };
            self.on_request(request, intake);
        }
    }

    /// One turn. True if the machine has more to apply.
    fn turn(&mut self, intake: Intake<S>, tick: bool) -> bool {
        // The clock is read after the inputs were taken: a process that slept finds its messages before
        // its timers.
        let now = clock::now();
        let Intake { events, commands, reads, statuses, .. } = intake;
        let replica = &mut self.parts.replica;
        for event in events {
            replica.on_event(now, event);
        }
        if !commands.is_empty() {
            replica.on_event(now, Event::Propose(commands));
        }
        if !reads.is_empty() {
            replica.on_event(now, Event::Read(reads));
        }
        if tick {
            replica.on_event(now, Event::Tick);
            self.ticks += 1;
            if self.ticks.is_multiple_of(SWEEP) {
                self.sweep();
            }
        }
        let more = self.carry_out();
        self.name_cluster();
        self.tell();
        for answer in statuses {
            drop(answer.send(self.status()));
        }
        more
    }

    fn on_report(&mut self, report: Report, intake: &mut Intake<S>) {
        match report {
            Report::Durable(id) => {
                // Only the newest counts: it stands for all before.
                if let Some(Event::Persisted(last)) = intake.events.last_mut() {
                    *last = id;
                } else {
                    intake.events.push(Event::Persisted(id));
                }
            }
            Report::NoSpace(reason) => tracing::warn!("writes wait: {reason}"),
            Report::Space => tracing::info!("there is room again, and writes go on"),
            Report::Failed(error) => self.end = Some(StopReason::Storage(error.to_string())),
        }
    }

    fn on_inbound(&mut self, inbound: Inbound, intake: &mut Intake<S>) {
        match inbound {
            Inbound::Message { from, cluster, names_me, message, .. } => {
                if !self.belongs(cluster, names_me && message.binds()) {
                    return;
                }
                match message {
                    PeerMessage::Raft { envelope, entries } => {
                        intake.events.push(Event::Message(envelope, entries));
                    }
                    PeerMessage::Forward(forward) => self.on_forward(from, forward, intake),
                    PeerMessage::ForwardReply(ForwardReply { id, outcome }) => {
                        self.forwarded.on_reply(from, id, outcome);
                    }
                }
            }
            // The transport has logged it.
            Inbound::Alarm(_) => {}
            Inbound::Disconnected(peer) => self.forwarded.lose(peer),
            Inbound::Down(peer) => {
                self.forwarded.lose(peer);
                intake.events.push(Event::PeerDown(peer.id));
            }
        }
    }

    /// Whether a message of this cluster is for this node. A blank node joins a cluster by a message that
    /// `binds`: a vote request or an AppendEntries from one whose newest membership names this very node, and
    /// nothing else (design, 5.3.4). It remembers that durably before it says a word.
    fn belongs(&mut self, cluster: ClusterId, binds: bool) -> bool {
        if let Some(own) = self.parts.cluster {
            return own == cluster;
        }
        if !binds {
            return false;
        }
        if let Some(disk) = &self.parts.disk
            && let Err(error) = identity::set_cluster(&**disk, cluster)
        {
            self.end = Some(StopReason::Storage(error.to_string()));
            return false;
        }
        tracing::info!(node = %self.parts.config.id, %cluster, "joined a cluster");
        self.parts.cluster = Some(cluster);
        self.parts.transport.set_cluster(cluster);
        true
    }

    /// Names the cluster that this node has founded in its identity, once its first entry is durable. Not
    /// earlier: an identity without that entry would be of a cluster that nobody can continue.
    fn name_cluster(&mut self) {
        let durable = self.parts.replica.raft().persisted() > Index::ZERO;
        if let Some(cluster) = self.founded.take_if(|_| durable)
            && let Some(disk) = &self.parts.disk
            && let Err(error) = identity::set_cluster(&**disk, cluster)
        {
            self.end = Some(StopReason::Storage(error.to_string()));
        }
    }

    fn on_request(&mut self, request: Request<S>, intake: &mut Intake<S>) {
        match request {
            Request::Write { command, limit, answer } => self.on_write(command, limit, answer, intake),
            Request::Read { query, answer } => {
                if self.waiters.len() >= self.parts.config.max_pending {
                    drop(answer.send(Err(ReadError::Busy)));
                    return;
                }
                let request = self.wait(Waiter::Read(Some(query), answer));
                intake.reads.push(request);
            }
            Request::Bootstrap { membership, answer } => {
                if self.parts.cluster.is_some() {
                    drop(answer.send(Err(ConfigurationError::AlreadyConfigured)));
                    return;
                }
                // From here on this node is of its own cluster, and no other can claim it.
                self.parts.cluster = Some(membership.cluster);
                self.founded = Some(membership.cluster);
                self.parts.transport.set_cluster(membership.cluster);
                let request = self.wait(Waiter::Bootstrap(answer));
                intake.events.push(Event::Bootstrap(request, membership));
            }
            Request::Status { answer } => intake.statuses.push(answer),
            Request::Entry { index, answer } => self.on_entry(index, answer),
        }
    }

    fn on_write(&mut self, command: Bytes, limit: Duration, answer: WriteAnswer<S>, intake: &mut Intake<S>) {
        if self.waiters.len() + self.forwarded.len() >= self.parts.config.max_pending {
            drop(answer.send(Err(WriteError::Busy)));
            return;
        }
        let raft = self.parts.replica.raft();
        let leader = raft.leader().and_then(|id| raft.membership().members.get(&id)).map(Member::peer);
        match leader {
            Some(leader) if self.parts.config.forward && !raft.is_leader() => {
                let id = self.forwarded.number();
                let time_left = limit.as_millis() as u64;
                let term = raft.term();
                let forward = Forward { id, time_left, session: 0, sequence: 0, term, command };
                if self.parts.transport.send(leader, PeerMessage::Forward(forward)) {
                    self.forwarded.insert(id, leader, term, answer);
                } else {
                    drop(answer.send(Err(self.not_leader())));
                }
            }
            _ => {
                let request = self.wait(Waiter::Write(answer));
                intake.commands.push((request, command));
            }
        }
    }

    /// A follower's write: proposed if this node leads, sent back otherwise; never sent on.
    fn on_forward(&mut self, from: Peer, forward: Forward, intake: &mut Intake<S>) {
        let Forward { id, term, command, .. } = forward;
        let raft = self.parts.replica.raft();
        let refusal = if !raft.is_leader() || raft.term() != term {
            Some(self.not_leader())
        } else if self.waiters.len() >= self.parts.config.max_pending {
            Some(WriteError::Busy)
        } else {
            // What a peer sends is looked at before it can become an entry that no node can apply.
            S::decode_command(&command).err().map(WriteError::from)
        };
        match refusal {
            Some(error) => self.reply_to_forward(from, id, Err(error)),
            None => {
                let request = self.wait(Waiter::Forwarded(from, id));
                intake.commands.push((request, command));
            }
        }
    }

    fn reply_to_forward(&self, to: Peer, id: u64, outcome: Result<Bytes, WriteError>) {
        // If the connection is gone, the other side has answered its caller already.
        let reply = PeerMessage::ForwardReply(ForwardReply { id, outcome });
        if !self.parts.transport.send(to, reply) {
            tracing::debug!(peer = %to.id, "the answer to a forwarded write found no connection");
        }
    }

    fn on_entry(&mut self, index: Index, answer: oneshot::Sender<Result<Entry, EntryLookupError>>) {
        if let Some(entry) = self.parts.replica.entry_in_memory(index) {
            drop(answer.send(Ok(entry.clone())));
            return;
        }
        // The sender goes along so that a stop waits for this read too.
        let (reader, under_way) = (self.parts.reader.clone(), self.loads.clone());
        tokio::task::spawn_blocking(move || {
            let entry = match reader.entries(index, index, 0) {
                Ok(entries) => entries.into_iter().next().ok_or(EntryLookupError::NotFound),
                Err(ReadLogError::Purged | ReadLogError::Missing) => Err(EntryLookupError::NotFound),
                Err(ReadLogError::Store(error)) => Err(EntryLookupError::Storage(error.to_string())),
            };
            drop(answer.send(entry));
            drop((reader, under_way));
        });
    }

    /// Carries out what the replica wants. True if the machine has more to apply.
    fn carry_out(&mut self) -> bool {
        let Effects {
            members,
            writes,
            send,
            loads,
            accepted,
            refused,
            apply,
            granted,
            leadership_lost,
            alarms,
            fatal,
        } = self.parts.replica.take();
        if let Some(membership) = members {
            self.parts.transport.set_membership(self.parts.replica.raft().membership_id(), &membership);
        }
        for (id, batch) in writes {
            self.parts.writer.write(id, batch);
        }
        for (envelope, entries) in send {
            // Losing a message is always safe; the core notices what is missing.
            let to = envelope.to;
            if !self.parts.transport.send(to, PeerMessage::Raft { envelope, entries }) {
                tracing::trace!(peer = %to.id, "a message found no connection");
            }
        }
        for load in loads {
            let (reader, loads) = (self.parts.reader.clone(), self.loads.clone());
            tokio::task::spawn_blocking(move || {
                let result = reader.entries(load.first, load.last, load.max_bytes as usize);
                drop(loads.send((load, result)));
            });
        }
        for (request, id) in accepted {
            self.parts.applier.expect(id, request);
        }
        let more = !apply.is_empty();
        for entry in apply {
            if let Err(reason) = self.parts.applier.apply(&entry) {
                self.end = Some(reason);
                break;
            }
        }
        for (request, index) in granted {
            if let Some(Waiter::Read(query, _)) = self.waiters.get_mut(&request)
                && let Some(query) = query.take()
                && let Err(reason) = self.parts.applier.read(index, request, query)
            {
                self.end = Some(reason);
            }
        }
        if leadership_lost {
            self.parts.applier.leadership_lost();
        }
        for (request, why) in refused {
            self.refuse(request, &why);
        }
        for answer in self.parts.applier.take_answers() {
            self.answer(answer);
        }
        for alarm in alarms {
            tracing::error!(node = %self.parts.config.id, ?alarm, "the consensus core raised an alarm");
        }
        if let Some(reason) = fatal {
            self.end = Some(StopReason::Storage(reason));
        }
        if more {
            let applied = self.parts.applier.applied().0.index;
            self.parts.replica.on_event(clock::now(), Event::Applied(applied));
        }
        more
    }

    fn wait(&mut self, waiter: Waiter<S>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.waiters.insert(request, waiter);
        request
    }

    fn refuse(&mut self, request: RequestId, why: &NotDone) {
        let write_error = match why {
            NotDone::Busy => WriteError::Busy,
            NotDone::Refused(RefusedReason::NotConfigured) => WriteError::NotConfigured,
            NotDone::Refused(_) => self.not_leader(),
        };
        match self.waiters.remove(&request) {
            Some(Waiter::Write(answer)) => drop(answer.send(Err(write_error))),
            Some(Waiter::Forwarded(peer, id)) => self.reply_to_forward(peer, id, Err(write_error)),
            Some(Waiter::Read(_, answer)) => drop(answer.send(Err(match write_error {
                WriteError::Busy => ReadError::Busy,
                WriteError::NotConfigured => ReadError::NotConfigured,
                _ => ReadError::NoLeader,
            }))),
            Some(Waiter::Bootstrap(answer)) => {
                drop(answer.send(Err(match why {
                    NotDone::Refused(RefusedReason::BadMembership) => {
                        ConfigurationError::Invalid("this node does not vote in it".to_owned())
                    }
                    _ => ConfigurationError::AlreadyConfigured,
                })));
            }
            None => {}
        }
    }

    fn answer(&mut self, answer: Outcome<S>) {
        // Whoever has gone away meanwhile misses the answer, and nothing else.
        match answer {
            Outcome::Reply(request, reply) => match self.waiters.remove(&request) {
                Some(Waiter::Write(answer)) => drop(answer.send(Ok(reply))),
                Some(Waiter::Forwarded(peer, id)) => {
                    let reply = S::encode_reply(&reply).ok().filter(|bytes| bytes.len() <= MAX_PAYLOAD);
                    let outcome = reply.ok_or(WriteError::Unknown(Cause::ReplyLost));
                    self.reply_to_forward(peer, id, outcome);
                }
                _ => {}
            },
            Outcome::Configured(request) => {
                if let Some(Waiter::Bootstrap(answer)) = self.waiters.remove(&request) {
                    drop(answer.send(Ok(())));
                }
            }
            Outcome::Answer(request, value) => {
                if let Some(Waiter::Read(_, answer)) = self.waiters.remove(&request) {
                    drop(answer.send(Ok(value)));
                }
            }
            Outcome::Failed(request, error) => match self.waiters.remove(&request) {
                Some(Waiter::Write(answer)) => drop(answer.send(Err(error))),
                Some(Waiter::Forwarded(peer, id)) => self.reply_to_forward(peer, id, Err(error)),
                // The entry may yet be committed by the next leader, which may be this node.
                Some(Waiter::Bootstrap(answer)) => drop(answer.send(Err(ConfigurationError::Timeout))),
                _ => {}
            },
        }
    }

    /// Forgets requests whose callers have given up. What is in the log goes its way without them.
    fn sweep(&mut self) {
        let gone: Vec<RequestId> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| match waiter {
                Waiter::Write(answer) => answer.is_closed(),
                Waiter::Read(_, answer) => answer.is_closed(),
                Waiter::Bootstrap(answer) => answer.is_closed(),
                Waiter::Forwarded(..) => false,
            })
            .map(|(request, _)| *request)
            .collect();
        for request in &gone {
            self.waiters.remove(request);
        }
        self.forwarded.sweep();
        if !gone.is_empty() {
            let waiters = &self.waiters;
            self.parts.applier.forget_reads(|request| !waiters.contains_key(&request));
        }
    }

    /// Who leads, with the address.
    fn leader(&self) -> Option<Leader> {
        let raft = self.parts.replica.raft();
        let member = raft.leader().and_then(|id| raft.membership().members.get(&id))?;
        Some(Leader { id: member.id, address: member.address.clone() })
    }

    fn not_leader(&self) -> WriteError {
        match self.leader() {
            Some(leader) if leader.id != self.parts.config.id => WriteError::NotLeader { leader },
            _ if self.parts.replica.raft().membership().is_empty() => WriteError::NotConfigured,
            _ => WriteError::NoLeader,
        }
    }

    fn status(&self) -> Status {
        let (applied, digest) = self.parts.applier.applied();
        let pending = self.waiters.len() + self.forwarded.len();
        Status {
            raft: self.parts.replica.raft().status(),
            cluster: self.parts.cluster,
            applied,
            digest,
            pending,
            disk_bytes: self.parts.reader.disk_bytes(),
        }
    }

    /// Tells the handles, and the log, of a new leader or role.
    fn tell(&mut self) {
        let leader = self.leader();
        self.parts.leader.send_if_modified(|told| {
            let changed = *told != leader;
            told.clone_from(&leader);
            changed
        });
        let raft = self.parts.replica.raft();
        let role = (raft.role_name(), raft.term());
        if role != self.told {
            if role.1 != self.told.1 {
                self.forwarded.on_term(role.1);
            }
            self.told = role;
            let leader = leader.map(|leader| leader.id.0);
            tracing::info!(node = %self.parts.config.id, role = %role.0, term = %role.1, leader, "role");
        }
    }

    /// Answers everybody, says goodbye to the peers, and closes the store.
    async fn shut_down(mut self) {
        let reason = self.end.take().unwrap_or(StopReason::Requested);
        if reason != StopReason::Requested {
            // Whoever runs the node is told by `stopped`, and reports it.
            tracing::info!(node = %self.parts.config.id, %reason, "the node stops");
        }
        self.parts.requests.close();
        while let Ok(request) = self.parts.requests.try_recv() {
            request.turn_away(&reason);
        }
        for (_, waiter) in mem::take(&mut self.waiters) {
            let unknown = || WriteError::Unknown(Cause::Stopped(reason.clone()));
            match waiter {
                Waiter::Write(answer) => drop(answer.send(Err(unknown()))),
                Waiter::Forwarded(peer, id) => self.reply_to_forward(peer, id, Err(unknown())),
                Waiter::Read(_, answer) => drop(answer.send(Err(ReadError::Stopped(reason.clone())))),
                Waiter::Bootstrap(answer) => {
                    drop(answer.send(Err(ConfigurationError::Stopped(reason.clone()))));
                }
            }
        }
        let Driver { parts, loaded, loads, forwarded, .. } = self;
        forwarded.stop(&reason);
        let Parts { writer, reader, disk, transport, stopped, leader, replica, applier, .. } = parts;
        leader.send_replace(None);
        transport.close().await;
        drop((replica, applier));
        if timeout(DISK_PATIENCE, writer.finish()).await.is_err() {
            tracing::error!("the disk does not finish its last write; the directory stays locked");
        }
        // Loads under way hold the store's files: wait until the last of them is done.
        drop((reader, loads));
        let mut loaded = loaded;
        let drained = async { while loaded.recv().await.is_some() {} };
        if timeout(DISK_PATIENCE, drained).await.is_err() {
            tracing::error!("the disk does not finish a read; the directory stays locked");
        }
        drop(disk);
        stopped.0.send_replace(Some(reason));
    }
}

impl<S: StateMachine> Default for Intake<S> {
    fn default() -> Intake<S> {
        Intake {
            events: Vec::new(),
            commands: Vec::new(),
            reads: Vec::new(),
            statuses: Vec::new(),
            _machine: std::marker::PhantomData,
        }
    }
}
