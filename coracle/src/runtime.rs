//! The loop of a running node: takes what happens, turns the [`driver`](crate::driver), carries out what it
//! wants. It decides nothing.
//!
//! It has a thread of its own, with the transport's tasks and the timers, and never waits for the disk, for
//! the machine, or for whatever else the caller's runtime does. A turn takes all that has come in, *then*
//! reads the clock; so a process that slept finds its messages before its timers, and under load the costs of
//! a turn are shared by many requests.

use crate::alarms;
use crate::backup::Waiting;
use crate::clock;
use crate::config::{Config, TICK};
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::{Cause, EntryLookupError, ReadError, SnapshotError, StopReason, WriteError, in_full};
use crate::files::{Filed, SnapshotWriter};
use crate::founding::Question;
use crate::inbox;
use crate::machine::{self, Machine};
use crate::place::Place;
use crate::replica::Load;
use crate::requests::{Reader, Request, Writer};
use crate::rulings::Ruled;
use crate::serving::Serving;
use crate::snapshots::FileOrder;
use crate::status::{MachineStopped, MemberStatus, SnapshotStatus, Status};
use crate::storage::disk::Disk;
use crate::storage::met::Met;
use crate::storage::{LogReader, ReadLogError};
use crate::transport::tcp::Tcp;
use crate::transport::{ForwardReply, Inbound, PeerMessage};
use crate::wire;
use crate::work::{Actions, Answer, Caller, Changed, Order, Transferred, Unsent};
use crate::writer::{self, Report};
use bytes::Bytes;
use coracle_core::{Index, NodeId, Peer, RoleName, Term};
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, timeout};

mod callers;
mod directory;
mod leading;
mod leaving;
mod saving;
mod stopped;
mod versions;
use callers::Callers;
pub(crate) use leading::Told;
use leaving::Leaving;
pub(crate) use stopped::Stopped;
use versions::Old;

/// Requests, and messages, taken in one turn at most, so that neither shuts out the other.
const TURN: usize = 1024;

/// After so many turns the system is asked for news, whatever else is to be done.
const TURNS: u64 = 8;

/// How often it is looked whether other members were met in newer boots, in ticks: whoever pretends to be one, which
/// anybody can until peers are authenticated, costs the disk no more than that.
const REMEMBER: u64 = 100;

/// How long a stop waits for the disk. A sync that takes longer hangs, and the stop must not.
pub(crate) const DISK_PATIENCE: Duration = Duration::from_secs(4);

/// Everything that a running node consists of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) driver: Driver<Writer, Reader>,
    pub(crate) machine: Machine,
    pub(crate) machine_reports: mpsc::UnboundedReceiver<machine::Report>,
    pub(crate) transport: Arc<Tcp>,
    pub(crate) writer: writer::Writer,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    /// To the worker for the files of snapshots, and what it and those who write one say.
    pub(crate) files: std::sync::mpsc::Sender<FileOrder>,
    pub(crate) filed: mpsc::UnboundedReceiver<Filed>,
    /// Where they are.
    pub(crate) snapshots: SnapshotWriter,
    pub(crate) reader: Arc<dyn LogReader>,
    /// None for a store in memory.
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) requests: inbox::Receiver<Request>,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// Those who are served besides this node's own callers.
    pub(crate) serving: Serving,
    pub(crate) told: Told,
    pub(crate) stop: watch::Receiver<bool>,
    /// Told as soon as the node begins to stop.
    pub(crate) ending: watch::Sender<Option<StopReason>>,
    pub(crate) stopped: Stopped,
    /// The newest version of the machine of which all members are, for the handles.
    pub(crate) machine_version: Arc<AtomicU16>,
}

type Loaded = (Load, Result<Vec<Entry>, ReadLogError>);
type Asked = (Question, Result<wire::Answer, String>);

pub(crate) struct Runtime {
    parts: Parts,
    loaded: mpsc::UnboundedReceiver<Loaded>,
    loads: mpsc::UnboundedSender<Loaded>,
    asked: mpsc::UnboundedReceiver<Asked>,
    asks: mpsc::UnboundedSender<Asked>,
    /// Who waits for an answer about a founding.
    founders: Callers<wire::Answer>,
    /// Who waits for the end of a change of the membership.
    changers: Callers<Changed>,
    /// Who waits for another node to lead.
    transferers: Callers<Transferred>,
    /// Who waits for a ruling about an entry.
    rulers: Callers<Ruled>,
    /// How far a leader has come that hands over before it stops.
    leaving: Option<Leaving>,
    /// Who waits for a snapshot.
    waiting: Waiting,
    /// Who wants to know how the node stands after this turn.
    statuses: Vec<oneshot::Sender<Status>>,
    /// Who waits for a snapshot, and up to where it must reach.
    snapshots: Vec<(Index, oneshot::Sender<Result<SnapshotStatus, SnapshotError>>)>,
    /// In which boots the disks of other members were met, as it was written down last, and when that was looked at.
    met: (Vec<Met>, u64),
    /// Where members were found, as it was written down last.
    places: Vec<Place>,
    /// What the applications of members want known of them, as far as those were met.
    metadata: BTreeMap<Peer, Bytes>,
    /// Members of older versions.
    old: Old,
    /// What the role was when it was last told of, for the log.
    told: (RoleName, Term),
    /// Set when the node has to stop.
    end: Option<StopReason>,
}

impl Runtime {
    pub(crate) fn new(parts: Parts) -> Runtime {
        let (loads, loaded) = mpsc::unbounded_channel();
        let told = (parts.driver.raft().role_name(), parts.driver.raft().term());
        let (asks, asked) = mpsc::unbounded_channel();
        let (met, places) = ((parts.transport.met(), 0), parts.transport.places());
        Runtime {
            parts,
            loaded,
            loads,
            asked,
            asks,
            founders: Callers::default(),
            changers: Callers::default(),
            transferers: Callers::default(),
            rulers: Callers::default(),
            leaving: None,
            waiting: Waiting::default(),
            statuses: Vec::new(),
            snapshots: Vec::new(),
            met,
            places,
            metadata: BTreeMap::new(),
            old: Old::default(),
            told,
            end: None,
        }
    }

    /// Runs until the node is asked to stop, or has to.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            if self.end.is_some() {
                break;
            }
            // However much comes from within, sockets and timers have their turn.
            if turn.is_multiple_of(TURNS) {
                yield_now().await;
            }
            let mut tick = false;
            tokio::select! {
                biased;
                _ = self.parts.stop.changed(), if self.leaving.is_none() => self.leave(),
                report = self.parts.reports.recv() => match report {
                    Some(report) => self.on_report(report),
                    None => self.end = Some(StopReason::Invariant("the log's writer ended".to_owned())),
                },
                Some(report) = self.parts.machine_reports.recv() => self.on_machine(report),
                Some(filed) = self.parts.filed.recv() => self.on_filed(filed),
                Some(inbound) = self.parts.inbound.recv() => self.on_inbound(inbound),
                () = self.parts.requests.rung() => {}
                Some((load, result)) = self.loaded.recv() => self.parts.driver.on_loaded(load, result),
                Some((question, answer)) = self.asked.recv() => {
                    self.parts.driver.on_founding_answer(&question, answer);
                }
                _ = ticks.tick() => tick = true,
            }
            self.take_in();
            tokio::select! {
                biased;
                _ = ticks.tick() => tick = true,
                () = ready(()) => {}
            }
            self.turn(tick);
        }
        self.shut_down().await;
    }

    /// Takes whatever else has come in already.
    fn take_in(&mut self) {
        while let Ok(report) = self.parts.reports.try_recv() {
            self.on_report(report);
        }
        while let Ok(report) = self.parts.machine_reports.try_recv() {
            self.on_machine(report);
        }
        while let Ok(filed) = self.parts.filed.try_recv() {
            self.on_filed(filed);
        }
        while let Ok((load, result)) = self.loaded.try_recv() {
            self.parts.driver.on_loaded(load, result);
        }
        for _ in 0..TURN {
            let Ok(inbound) = self.parts.inbound.try_recv() else { break };
            self.on_inbound(inbound);
        }
        for request in self.parts.requests.take(TURN) {
            self.on_request(request);
        }
    }

    fn turn(&mut self, tick: bool) {
        self.parts.driver.on_progress(self.parts.machine.progress());
        let actions = self.parts.driver.turn(clock::now(), tick);
        self.carry_out(actions, tick);
        if tick {
            self.meet_leader();
            self.remember();
            self.look_for_old_versions();
            self.tell_of_snapshots();
        }
        self.look_who_waits();
        self.tell();
        for answer in std::mem::take(&mut self.statuses) {
            drop(answer.send(self.status()));
        }
        self.answer_snapshots();
        self.look_after_leaving();
    }

    /// Has it written down in which boots the disks of other members were met, and where, where that is news.
    fn remember(&mut self) {
        self.met.1 += 1;
        if self.met.1.is_multiple_of(REMEMBER) {
            let met = self.parts.transport.met();
            if met != self.met.0 {
                self.parts.writer.order(Order::Met(met.clone()));
                self.met.0 = met;
            }
            let places = self.parts.transport.places();
            if places != self.places {
                self.parts.writer.order(Order::Places(places.clone()));
                self.places = places;
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Durable(id) => self.parts.driver.on_persisted(id),
            Report::Named(cluster) => self.parts.driver.on_named(cluster),
            Report::Promised => self.parts.driver.on_promised(),
            Report::NoSpace(reason) => {
                tracing::warn!("no room on the disk: writes are refused as busy, and reads go on: {reason}");
                self.parts.driver.on_space(Some(reason));
            }
            Report::Space => {
                tracing::info!("there is room on the disk again: writes are accepted");
                self.parts.driver.on_space(None);
            }
            Report::Stopped(stop) => self.parts.driver.on_stop_kept(stop),
            Report::Mended => {
                let node = self.parts.config.id;
                tracing::info!(%node, "the state machine was rebuilt from another member's, and goes on");
                self.parts.driver.on_mended();
            }
            Report::Failed(error) => self.end = Some(StopReason::Storage(Arc::new(error))),
        }
    }

    fn on_machine(&mut self, report: machine::Report) {
        match report {
            machine::Report::Carried(flight, outcome) => self.parts.driver.on_carried(flight, outcome),
            machine::Report::Checked(from, forward) => self.parts.driver.on_checked(from, forward),
            machine::Report::Stopped(at, why) => {
                let node = self.parts.config.id;
                tracing::error!(%node, entry = %at, "{}", alarms::machine_stopped(at, &why));
                self.parts.driver.on_machine_stopped(at, why);
            }
            machine::Report::Passed(at) => self.parts.driver.on_machine_passed(at),
            machine::Report::Ended(reason) => self.end = self.end.take().or(Some(reason)),
        }
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Message { from, cluster, names_me, message, .. } => {
                self.parts.driver.on_message(from, cluster, names_me, message);
            }
            Inbound::Client(visitor) => self.parts.serving.take_in(*visitor),
            Inbound::Founding { from, ask, answer } => self.on_founding(from, *ask, answer),
            Inbound::Newcomer { newcomer, answer } => self.parts.serving.admit(*newcomer, answer),
            // The transport has logged it.
            Inbound::Alarm(_) => {}
            Inbound::Disconnected(peer) => self.parts.driver.on_disconnected(peer),
            Inbound::Down(peer) => self.parts.driver.on_down(peer),
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Write { command, limit, way, writer } => {
                self.parts.driver.on_write(command, limit, way, writer);
            }
            Request::Submit { proposal, term, writer } => {
                self.parts.driver.on_submitted(proposal, term, writer);
            }
            Request::Read { reader, from: None } => self.parts.driver.on_read(reader),
            Request::Read { reader, from: Some(index) } => self.parts.driver.on_read_from(index, reader),
            Request::Backup { reaches, answer } => self.waiting.add(reaches, answer),
            Request::SameBackup { snapshot, file, answer } => self.give_out(snapshot, Some(file), answer),
            Request::Found { ask, answer } => {
                let me = self.parts.driver.raft().me();
                self.on_founding(me, *ask, answer);
            }
            Request::Change { expected, to, answer } => {
                let name = self.changers.add(answer);
                self.parts.driver.on_change(name, expected, *to);
            }
            Request::Rule { ruling, answer } => {
                let name = self.rulers.add(answer);
                self.parts.driver.on_rule(name, ruling);
            }
            Request::Transfer { to, answer } => self.transfer(to, answer),
            Request::Rebuild { answer } => drop(answer.send(self.parts.driver.rebuild())),
            Request::Status { answer } => self.statuses.push(answer),
            Request::Snapshot { answer } => match self.parts.driver.want_snapshot() {
                Ok(index) => self.snapshots.push((index, answer)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Request::Entry { index, answer } => self.on_entry(index, answer),
        }
    }

    fn transfer(&mut self, to: Option<NodeId>, answer: oneshot::Sender<Transferred>) {
        let name = self.transferers.add(answer);
        self.parts.driver.on_transfer(name, to);
    }

    fn on_founding(&mut self, from: Peer, ask: wire::Ask, answer: oneshot::Sender<wire::Answer>) {
        let name = self.founders.add(answer);
        self.parts.driver.on_founding(name, from, ask);
    }

    fn on_entry(&mut self, index: Index, answer: oneshot::Sender<Result<Entry, EntryLookupError>>) {
        if let Some(entry) = self.parts.driver.replica().entry_in_memory(index) {
            drop(answer.send(Ok(entry.clone())));
            return;
        }
        // The sender goes along so that a stop waits for this read too.
        let (reader, under_way) = (self.parts.reader.clone(), self.loads.clone());
        tokio::task::spawn_blocking(move || {
            let entry = match reader.entries(index, index, 0) {
                Ok(entries) => entries.into_iter().next().ok_or(EntryLookupError::NotFound),
                Err(ReadLogError::Purged | ReadLogError::Missing) => Err(EntryLookupError::NotFound),
                Err(ReadLogError::Store(error)) => Err(EntryLookupError::Storage(Arc::new(error))),
            };
            drop(answer.send(entry));
            drop((reader, under_way));
        });
    }

    fn carry_out(&mut self, actions: Actions<Writer, Reader>, tick: bool) {
        let Actions {
            cluster,
            members,
            orders,
            send,
            asks,
            told,
            changed,
            transferred,
            ruled,
            files,
            loads,
            work,
            answers,
            alarms,
            findings,
            fatal,
        } = actions;
        let (id, transport) = (self.parts.config.id, &self.parts.transport);
        if let Some(cluster) = cluster {
            tracing::info!(node = %id, %cluster, "joined a cluster");
            transport.set_cluster(cluster);
        }
        if let Some((membership, leaving)) = members {
            transport.set_membership(self.parts.driver.raft().membership_id(), &membership, &leaving);
        }
        let fences = orders.iter().any(|order| matches!(order, Order::Fence(_)));
        for order in orders {
            self.parts.writer.order(order);
        }
        self.send(send);
        self.ask(asks);
        for (name, answer) in told {
            // Whoever has gone away meanwhile asks again.
            self.founders.answer(name, answer);
        }
        for (name, outcome) in changed {
            self.changers.answer(name, outcome);
        }
        for (name, outcome) in transferred {
            self.transferers.answer(name, outcome);
        }
        for (name, outcome) in ruled {
            self.rulers.answer(name, outcome);
        }
        for order in files {
            drop(self.parts.files.send(order));
        }
        self.load(loads);
        let driver = &self.parts.driver;
        let awaited = driver.raft().is_leader() || driver.is_machine_awaited() || !driver.caught_up();
        self.parts.machine.hand_over(work, tick || awaited);
        for answer in answers {
            match answer {
                Answer::Write(writer, outcome) => writer.answer(outcome.map_err(|error| self.named(error))),
                Answer::Read(reader, error) => reader.refuse(error),
            }
        }
        for alarm in alarms {
            tracing::error!(node = %id, "{}", alarms::alarm(&alarm));
        }
        for finding in findings {
            tracing::error!(node = %id, "{}", alarms::finding(finding));
        }
        if fences {
            tracing::error!(node = %id, "{}", alarms::FENCED);
        }
        self.end = fatal.or(self.end.take());
    }

    /// Sends, and tells the driver what cannot be sent.
    fn send(&mut self, messages: Vec<(Peer, PeerMessage)>) {
        for (to, message) in messages {
            let what = Unsent::of(&message);
            if !self.parts.transport.send(to, message) {
                tracing::trace!(peer = %to.id, "a message was dropped: there is no connection");
                self.parts.driver.unsent(what);
            }
        }
    }

    /// Asks other nodes about a founding, each in a task of its own.
    fn ask(&self, questions: Vec<Question>) {
        for question in questions {
            let (transport, asks) = (self.parts.transport.clone(), self.asks.clone());
            tokio::spawn(async move {
                let answer = transport.ask(&question.to.address, question.to.peer(), &question.ask).await;
                drop(asks.send((question, answer.map_err(|error| error.to_string()))));
            });
        }
    }

    /// Reads from the store, on other threads.
    fn load(&self, loads: Vec<Load>) {
        for load in loads {
            let (reader, loaded) = (self.parts.reader.clone(), self.loads.clone());
            tokio::task::spawn_blocking(move || {
                let result = reader.entries(load.first, load.last, load.max_bytes as usize);
                drop(loaded.send((load, result)));
            });
        }
    }

    fn status(&mut self) -> Status {
        let members = self.members();
        let driver = &self.parts.driver;
        let progress = self.parts.machine.progress();
        Status {
            raft: driver.raft().status(),
            cluster: driver.cluster(),
            members,
            applied: progress.applied,
            digest: progress.digest,
            unapplied_bytes: driver.replica().unapplied_bytes(),
            caught_up: driver.caught_up(),
            pending: driver.pending(),
            no_space: driver.no_space().map(str::to_owned),
            diverged: driver.digests().diverged().clone(),
            fenced: driver.fenced(),
            rebuilding: driver.rebuilding(),
            machine_stopped: driver.machine_stop().map(MachineStopped::of),
            stopped_machines: driver.stopped_machines().map(|(peer, at)| (peer.id, at)).collect(),
            disk_bytes: self.parts.reader.disk_bytes(),
            snapshots: driver.snapshots.shown(),
            certificate_expires: self.parts.transport.certificate_expires(),
            address: self.parts.transport.advertised(),
            moved: self.parts.transport.is_away(),
            machine_version: self.parts.machine_version.load(Ordering::Relaxed),
        }
    }

    /// The members, and what is known of them by their connections.
    fn members(&mut self) -> Vec<MemberStatus> {
        let raft = self.parts.driver.raft();
        let (me, membership) = (raft.me(), raft.membership().clone());
        let members = membership.members.values().map(|member| {
            let peer = member.peer();
            let connected = self.meet(peer) || peer == me;
            let metadata = self.metadata_of(peer);
            MemberStatus {
                id: member.id,
                incarnation: member.incarnation,
                address: member.address.clone(),
                voter: membership.is_voter(peer),
                connected,
                encrypted: self.parts.transport.peer(peer).is_some_and(|known| known.encrypted),
                metadata,
            }
        });
        members.collect()
    }

    /// Whether there is a connection to a member. If so, what it says of itself is kept.
    fn meet(&mut self, peer: Peer) -> bool {
        let Some(introduction) = self.parts.transport.peer(peer) else { return false };
        let membership = self.parts.driver.raft().membership();
        self.metadata.retain(|known, _| known == &peer || membership.contains(*known));
        self.metadata.insert(peer, introduction.metadata);
        true
    }

    /// What the application of a member wants known of it, if it was met.
    fn metadata_of(&self, peer: Peer) -> Bytes {
        if peer == self.parts.driver.raft().me() {
            return self.parts.config.metadata.clone().into();
        }
        self.metadata.get(&peer).cloned().unwrap_or_default()
    }

    /// Answers everybody, says goodbye to the peers, and closes the store.
    async fn shut_down(mut self) {
        let reason = self.end.take().unwrap_or(StopReason::Requested);
        if reason != StopReason::Requested {
            // Whoever runs the node is told by `stopped`, and reports it.
            tracing::info!(node = %self.parts.config.id, reason = in_full(&reason), "the node stops");
        }
        // Before the requests are closed: whoever finds them so looks for the reason here.
        self.parts.ending.send_replace(Some(reason.clone()));
        for request in self.parts.requests.close() {
            request.turn_away(&reason);
        }
        let unknown = || WriteError::Unknown(Cause::Stopped(reason.clone()));
        let (writes, reads) = self.parts.driver.stop();
        for caller in writes {
            match caller {
                Caller::Here(writer) | Caller::Client(writer) => writer.answer(Err(unknown())),
                // Its caller is among the others.
                Caller::Carried(_) => {}
                Caller::Forwarded(peer, id) => {
                    let reply = ForwardReply { id, outcome: Err(unknown()) };
                    self.parts.transport.send(peer, PeerMessage::ForwardReply(reply));
                }
            }
        }
        for reader in reads {
            reader.refuse(ReadError::Stopped(reason.clone()));
        }
        let Runtime { parts, loaded, loads, .. } = self;
        let Parts { config, writer, reader, disk, transport, stopped, told, machine, files, serving, .. } =
            parts;
        told.leader.send_replace(None);
        told.office.send_replace(None);
        if !machine.finish().await {
            let node = config.id;
            tracing::error!(%node, "the state machine is still busy; the node stops without it, and the data directory stays locked until it returns");
        }
        serving.finish().await;
        transport.close().await;
        if timeout(DISK_PATIENCE, writer.finish()).await.is_err() {
            tracing::error!(
                "the last write has not finished; the node stops without it, and the data directory stays locked until it does: check \
                 the disk"
            );
        }
        // Loads under way hold the store's files: wait until the last of them is done.
        drop((reader, loads));
        drain(loaded, "a read").await;
        // And so do the snapshots that are read, received and written.
        drop((files, parts.snapshots));
        drain(parts.filed, "the work on a snapshot").await;
        drop(disk);
        stopped.0.send_replace(Some(reason));
    }
}

/// Waits until nobody can report any more: whoever does so holds files.
async fn drain<T>(mut reports: mpsc::UnboundedReceiver<T>, what: &str) {
    let drained = async { while reports.recv().await.is_some() {} };
    if timeout(DISK_PATIENCE, drained).await.is_err() {
        tracing::error!(
            "{what} has not finished; the node stops without it, and the data directory stays locked until it does: check the disk"
        );
    }
}
