//! One simulated node: the production driver, applier, write queue and write-ahead log on a disk in memory,
//! and a clock of its own.
//!
//! It does what the runtime does in production, one step at a time, and leaves to the world what the world
//! decides: when a message arrives, when a write is done, when the machine gets on, when the power goes.

mod duties;
mod files;
mod found;
mod heard;
mod others;
mod promises;
mod standing;
mod twin;
mod wants;

use self::duties::{Duties, Turned};
pub(super) use self::heard::{Heard, NOBODY, NotDone, REMOTE};
pub(super) use self::standing::{Asks, Link};
use self::standing::{Standing, Whereabouts};
pub(super) use self::twin::Twin;
pub(super) use self::wants::{Stop, Wants, Written};

use super::clock::Clock;
use super::dice::Dice;
use super::fresh::Reading;
use super::guest::Guests;
use super::machine::{Ask, Fired, Kv, Look};
use super::plan::Plan;
use crate::applier::{Done, Outcome};
use crate::config::Config;
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::{StopReason, in_full};
use crate::events::History;
use crate::files::{Filed, Files};
use crate::founding::{Promise, Question};
use crate::open::{newest_snapshot, newest_time, promise};
use crate::proposal::Proposal;
use crate::replica::{Load, Moment, Replica};
use crate::replicated::{Digest, SaveState};
use crate::rulings::Ruling;
use crate::snapshots::FileOrder;
use crate::state_machine::StateMachine;
use crate::stopped_machines::Found;
use crate::storage::disk::Disk;
use crate::storage::identity::{self, Boots};
use crate::storage::mem_disk::{MemDisk, Op};
use crate::storage::queue::WriteQueue;
use crate::storage::snapshots::Meta;
use crate::storage::wal::{self, Wal};
use crate::storage::{Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};
use crate::transport::PeerMessage;
use crate::transport::alarm::Kept;
use crate::wire::{Answer as FoundingAnswer, Ask as FoundingAsk};
use crate::work::{Actions, Order, RequestId, Unsent, Way, Work};
use coracle_core::{
    Boot, Broken, ClusterId, Incarnation, Index, LogId, MachineStop, Mark, Membership, NodeId, Peer, Raft,
    Term, WriteId,
};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A node, up or down.
pub(super) struct Host {
    pub(super) me: Peer,
    pub(super) disk: MemDisk,
    /// How often it was started: whatever was scheduled for an earlier boot is void.
    pub(super) run: u64,
    pub(super) up: Option<Running>,
    pub(super) clock: Clock,
    /// While frozen it handles nothing; what is due waits.
    pub(super) frozen_until: u64,
    /// In which run and term it holds commands back as a leader, and since when by its own clock.
    pub(super) holding: Option<((u64, Term), u64)>,
    /// Whether its disk is faulty at the moment, and may refuse anything.
    pub(super) faulty: bool,
    /// Whether its disk changed bytes that it had kept.
    pub(super) damaged: bool,
    /// Whether it has noticed, and stays down.
    pub(super) dead: bool,
    /// Which operation the disk is about to refuse, if it is one of these.
    pub(super) fault: Option<Op>,
    /// Whether the last crash cut a write.
    pub(super) torn: bool,
    /// Whether its disk hangs: what it is given now takes for ever.
    pub(super) hung: bool,
    /// The starts of its directory.
    pub(super) boots: Boots,
    /// What it knows of the starts of others, durably.
    kept: Kept,
    /// For each other node the newest of its boots that this one has met, and whether it goes on with that.
    met: BTreeMap<NodeId, (u64, bool)>,
    /// An earlier state of its disk, and in which boot that was.
    pub(super) old: Option<(u64, MemDisk)>,
    /// The other of two processes that run on the directory and on a copy of it.
    pub(super) twin: Option<Box<Twin>>,
    /// The newest run of either.
    pub(super) newest_run: u64,
    /// Whether its disk went back to that.
    pub(super) put_back: bool,
    /// How far its machine had come in this boot when it changed by itself.
    pub(super) rotten: Option<Index>,
    /// Whether that ever happened.
    pub(super) rotted: bool,
    /// Whether it has noticed that, and said that it does not forget it.
    pub(super) fenced: bool,
    /// Whether its machine rotted, or is said to have, since it was last rebuilt; whether it ever was; and whether its disk
    /// failed while it wrote down that it was.
    pub(super) wrong: bool,
    pub(super) rebuilt: bool,
    pub(super) unsure: bool,
    /// Before which entry its machine has stopped, as its disk says.
    pub(super) stop: Option<MachineStop>,
    /// Whether its machine has stopped in this boot, or before it.
    pub(super) rested: bool,
    /// The newest entry whose events its machine published before it went back, in this boot.
    pub(super) told: Index,
    /// What its program cannot apply.
    pub(super) fails: Arc<AtomicU64>,
    /// Whether it came back on an empty disk, and does not vote yet.
    pub(super) wiped: bool,
    /// Whether that one has entries since.
    pub(super) joined: bool,
    /// How it comes in under a name that is new, until it votes.
    pub(super) asks: Option<Asks>,
    /// The certificate that it shows.
    pub(super) mark: Mark,
    /// Where it is.
    pub(super) at: Whereabouts,
    /// The rule that its code breaks.
    pub(super) broken: Broken,
    /// The machines of a user, if there are any.
    pub(super) guests: Option<Guests>,
}

/// What lives and dies with a boot.
pub(super) struct Running {
    pub(super) driver: Driver<RequestId, (Look, RequestId)>,
    pub(super) applier: Turned,
    /// What its machine has published.
    pub(super) history: History,
    pub(super) reading: Reading,
    pub(super) duties: Duties,
    /// Timers that have fired.
    fired: Fired,
    pub(super) queue: WriteQueue,
    /// Promises that the identity is to keep, and does not yet.
    pub(super) promises: VecDeque<Option<Promise>>,
    log: Wal,
    reader: Box<dyn LogReader>,
    /// Up to where the log is to be purged.
    purge: Option<LogId>,
    /// The files of snapshots, what is to be done with them, and whether that is under way.
    files: Files,
    filing: VecDeque<FileOrder>,
    pub(super) files_busy: bool,
    /// A snapshot that is being written.
    saving: Option<(Meta, SaveState)>,
    /// The batch that the disk is working on.
    pub(super) writing: Option<(Option<WriteId>, WriteBatch)>,
    /// When the newest batch that is not a seal was written.
    pub(super) unsealed: Option<u64>,
    /// The newest write whose completion was reported.
    pub(super) reported: WriteId,
    /// How many of the replica's pending writes the judge has seen.
    seen: usize,
    /// Whether the machine needs time.
    slow: bool,
    pub(super) limits: Limits,
    /// When the last completion was reported.
    pub(super) last_report: u64,
    /// The newest write that was under way when the log was last truncated, until it is done.
    pub(super) truncated_at: Option<WriteId>,
    /// How often its log was purged or truncated.
    pub(super) changes: u64,
    /// The newest term in which it led.
    pub(super) led: Option<Term>,
    /// Whether the machine will get on by itself.
    pub(super) applies: bool,
    /// How far its log was that of the committed entries when it started.
    pub(super) committed: Index,
    /// What it knows of where the others are.
    pub(super) standing: Standing,
}

/// An entry of a simulated run has at most so many bytes.
const LARGEST: u64 = 4096;

/// Machines are compared at the multiples of this index.
const COMPARED_EVERY: u64 = 4;

/// So many bytes of events are remembered.
const REMEMBERED: u64 = 1000;

/// The bounds that a node was started with.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The most that may be under way to one follower: messages and bytes.
    pub(super) in_flight: (usize, u64),
    /// Entries, and bytes of more than one entry, in a message.
    pub(super) message: (usize, u64),
    /// Bytes of more than one entry, handed to the machine at once.
    feed: u64,
}

impl Limits {
    fn of(config: &Config) -> Limits {
        Limits {
            in_flight: (config.inflight_messages, config.inflight_bytes + LARGEST),
            message: (config.message_entries as usize, config.message_bytes),
            feed: config.apply_bytes,
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Event {
    /// Time has passed.
    Tick,
    /// A message came, from a node of this cluster, whose newest membership names this one or does not.
    Message(Peer, ClusterId, bool, PeerMessage),
    /// A client wants this written, in this way.
    Write(RequestId, Way, bytes::Bytes),
    /// A client that is no member wants this in the log, of a leader in this term.
    Submit(RequestId, Term, Proposal),
    /// A client wants to read this.
    Read(RequestId, Look, Option<Index>),
    /// This write and all before it are durable.
    Persisted(WriteId),
    /// The answer to a load.
    Loaded(Load, Result<Vec<Entry>, ReadLogError>),
    /// This peer's process is gone, they say.
    PeerDown(Peer),
    /// The connection to this peer ended.
    Disconnected(Peer),
    /// A message did not leave.
    Unsent(Unsent),
    /// Somebody asks about a founding, and is to be told under this name.
    Founding(u64, Peer, FoundingAsk),
    /// What came of a question about one.
    FoundingAnswer(Box<Question>, Result<FoundingAnswer, String>),
    /// One more promise is durable.
    Promised,
    /// What came of an order for the files of snapshots.
    Filed(Filed),
    /// Somebody wants a snapshot taken.
    WantSnapshot,
    /// Somebody wants the membership changed, from the one at this entry.
    Change(u64, LogId, Membership),
    /// Somebody wants another node to lead: this one, or the best.
    Transfer(Option<NodeId>),
    /// Somebody wants this ruled about an entry.
    Rule(Ruling),
    /// Somebody wants the machine rebuilt.
    Rebuild,
}

impl Host {
    pub(super) fn new(id: u64) -> Host {
        Host {
            me: Peer { id: NodeId(id), incarnation: Incarnation(1000 + id) },
            disk: MemDisk::new(),
            run: 0,
            up: None,
            clock: Clock::new(),
            frozen_until: 0,
            holding: None,
            faulty: false,
            damaged: false,
            dead: false,
            fault: None,
            torn: false,
            hung: false,
            boots: Boots::default(),
            kept: Kept::default(),
            met: BTreeMap::new(),
            old: None,
            twin: None,
            newest_run: 0,
            put_back: false,
            rotten: None,
            rotted: false,
            fenced: false,
            wrong: false,
            rebuilt: false,
            unsure: false,
            stop: None,
            rested: false,
            told: Index::ZERO,
            fails: Arc::default(),
            wiped: false,
            joined: false,
            asks: None,
            mark: Mark { issued: 0, key: [0; 32] },
            at: Whereabouts::at(format!("sim:{id}")),
            broken: Broken::default(),
            guests: None,
        }
    }

    /// Starts the process on what the disk holds. Returns what it recovered, and where its machine stands.
    pub(super) fn start(
        &mut self,
        now: u64,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Result<(Recovered, (LogId, Digest)), String> {
        self.newest_run += 1;
        (self.run, self.rotten) = (self.newest_run, None);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let text = |error: StoreError| in_full(&error);
        wal::tidy(&*disk).map_err(text)?;
        let exists = wal::exists(&*disk).map_err(text)?;
        let Peer { id, incarnation: fresh } = self.me;
        let mut identity = identity::open_or_create(&*disk, id, exists, || fresh).map_err(text)?;
        let mut log = Wal::open(disk.clone(), identity, found::wal_config(plan.segment, dice.bits()));
        log.broken = self.broken;
        let mut recovered = log.load(&mut |_| {}).map_err(text)?;
        let snapshot = newest_snapshot(&*disk, &mut log, &mut recovered, self.broken).map_err(text)?;
        let reader = log.reader();
        let newest = newest_time(&*reader, &recovered).map_err(|error| in_full(&error))?;
        let (mut applier, fired, restored) =
            self.machine(plan, &disk, snapshot.as_ref(), &recovered, identity.cluster)?;
        // A founder names the cluster in its identity only after its first entry was durable.
        if let (None, Some((_, membership))) = (identity.cluster, restored.memberships.last()) {
            identity = identity::set_cluster(&*disk, membership.cluster).map_err(text)?;
        }
        self.boots = identity::begin_run(&*disk, || Boot(dice.bits())).map_err(text)?;
        let found =
            Found::on(&*disk, &*reader, recovered.purged.index, recovered.last.index).map_err(text)?;
        let boot = self.boots.newest.last().copied().unwrap_or_default();
        let config = plan.config(self.me.id, dice);
        let raft = self.core(boot, &config, dice.bits(), restored, self.clock.moment(now).tick)?;
        let standing = self.stand(&*disk, raft.membership()).map_err(text)?;
        let newest = newest.max(snapshot.as_ref().map_or(0, |kept| kept.meta.cluster_time));
        let (began, replica) = ((recovered, found::stands(&applier)), Replica::new(raft, &config, newest));
        let driver = Driver::new(replica, identity.cluster, boot, &config).authenticated().among_equals();
        let driver = driver.starting_from(snapshot, 0).knowing_rulings(found);
        let driver = driver.fenced_at(identity::fenced(&*disk).map_err(text)?);
        self.up = Some(Running {
            driver: driver.remembering(promise(&*disk).map_err(text)?, self.boots.count),
            duties: Duties::of(&mut applier, self.broken),
            applier,
            history: History::new(REMEMBERED, Index::ZERO).breaking(self.broken),
            reading: Reading::new(self.broken),
            fired,
            queue: WriteQueue::new(self.broken).bounded(plan.write),
            promises: VecDeque::new(),
            log,
            reader,
            purge: None,
            files: Files::new(disk.clone(), files::PACE),
            filing: VecDeque::new(),
            files_busy: false,
            saving: None,
            writing: None,
            unsealed: None,
            reported: WriteId(0),
            seen: 0,
            slow: plan.apply > 0,
            limits: Limits::of(&config),
            last_report: 0,
            truncated_at: None,
            changes: 0,
            led: None,
            applies: false,
            committed: Index::ZERO,
            standing,
        });
        Ok(began)
    }

    /// Feeds an event, and carries nothing out: of writes and reads not even the first step. The batches that
    /// it will want written.
    pub(super) fn feed(&mut self, now: u64, event: Event) -> Vec<WriteBatch> {
        let moment = self.clock.moment(now);
        let Some(running) = &mut self.up else { return Vec::new() };
        let driver = &mut running.driver;
        let tick = matches!(event, Event::Tick);
        match event {
            Event::Tick => {}
            Event::Message(from, cluster, names_me, message) => {
                driver.on_message(from, cluster, names_me, message);
            }
            Event::Write(request, way, command) => driver.on_write(command, Duration::ZERO, way, request),
            Event::Submit(request, term, proposal) => driver.on_submitted(proposal, term, request),
            Event::Read(request, look, None) => driver.on_read((look, request)),
            Event::Read(request, look, Some(from)) => driver.on_read_from(from, (look, request)),
            Event::Persisted(id) => driver.on_persisted(id),
            Event::Loaded(load, result) => driver.on_loaded(load, result),
            Event::PeerDown(peer) => driver.on_down(peer),
            Event::Disconnected(peer) => driver.on_disconnected(peer),
            Event::Unsent(what) => driver.unsent(what),
            Event::Founding(name, from, ask) => driver.on_founding(name, from, ask),
            Event::FoundingAnswer(question, answer) => driver.on_founding_answer(&question, answer),
            Event::Promised => driver.on_promised(),
            Event::Filed(Filed::Piece(to, piece)) => driver.on_piece(to, piece),
            Event::Filed(Filed::Stored(from, reply)) => driver.on_stored(from, reply),
            Event::Filed(Filed::NoRoom) => driver.on_no_room(),
            Event::Filed(Filed::Cleared) => driver.on_cleared(),
            Event::Filed(Filed::Received(kept)) => driver.on_received(kept),
            Event::Filed(Filed::Saved(saved)) => driver.on_saved(saved.ok()),
            Event::Filed(Filed::Failed(_)) => {}
            // A node that cannot says so.
            Event::WantSnapshot => drop(driver.want_snapshot()),
            Event::Change(caller, expected, to) => driver.on_change(caller, expected, to),
            Event::Transfer(to) => driver.on_transfer(0, to),
            Event::Rule(ruling) => driver.on_rule(0, ruling),
            // A node that cannot says so.
            Event::Rebuild => drop(driver.rebuild()),
        }
        driver.handle(moment, tick);
        let writes = driver.replica().writes();
        let fresh = writes[running.seen..].iter().map(|(_, batch)| batch.clone()).collect();
        running.seen = writes.len();
        fresh
    }

    /// Carries out all that the node can do by itself.
    pub(super) fn settle(&mut self, now: u64) -> Wants {
        let moment = self.clock.moment(now);
        let mut wants = Wants::default();
        let Some(running) = &mut self.up else { return wants };
        running.turn(moment, &self.disk, &mut wants);
        wants
    }

    /// Lets a slow machine apply some of what it was handed.
    pub(super) fn apply(&mut self, now: u64, count: usize) -> Wants {
        let moment = self.clock.moment(now);
        let mut wants = Wants::default();
        let Some(running) = &mut self.up else { return wants };
        running.apply(count, &mut wants);
        if wants.fatal.is_none() {
            running.turn(moment, &self.disk, &mut wants);
        }
        wants
    }
}

impl Running {
    pub(super) fn raft(&self) -> &Raft {
        self.driver.raft()
    }

    /// How far the machine has come.
    pub(super) fn applied(&self) -> Index {
        self.applier.progress().applied.index
    }

    /// Bytes of entries that the machine was handed and has not applied.
    pub(super) fn backlog(&self) -> u64 {
        self.applier.backlog().map(|entry| entry.len() as u64).sum()
    }

    /// Whether the machine has something left to do.
    pub(super) fn lags(&self) -> bool {
        !self.applier.is_idle()
    }

    /// Whether the machine of `peer` is meant by the membership in force here.
    pub(super) fn names(&self, peer: Peer) -> bool {
        self.raft().membership().contains(peer)
    }

    /// The disk does what it is working on.
    pub(super) fn write(&mut self, now: u64) -> Result<Written, String> {
        let Some((id, batch)) = self.writing.take() else { return Ok(Written::Nothing) };
        match self.log.write(&batch) {
            Ok(()) => {}
            Err(StoreError::NoSpace { .. }) => {
                self.writing = Some((id, batch));
                return Ok(Written::NoRoom);
            }
            Err(error) => return Err(in_full(&error)),
        }
        self.unsealed = Some(now);
        self.changes += batch.changes.iter().filter(|it| matches!(it, Change::Truncate(_))).count() as u64;
        Ok(id.map_or(Written::Part, Written::Whole))
    }

    /// The queue was empty for a while.
    pub(super) fn seal(&mut self) -> Result<(), String> {
        self.unsealed = None;
        self.log.idle().map_err(|error| in_full(&error))
    }

    /// Turns the driver, and the machine if it is fast, until neither has anything left to do.
    fn turn(&mut self, moment: Moment, disk: &MemDisk, wants: &mut Wants) {
        loop {
            self.driver.on_progress(self.applier.progress());
            let actions = self.driver.turn(moment, false);
            let again = self.carry_out(actions, disk, wants);
            let lags = self.lags() && !self.slow;
            if lags {
                self.apply(usize::MAX, wants);
            }
            if wants.fatal.is_some() || !(again || lags) {
                return;
            }
        }
    }

    /// Carries out what the driver wants. True if it has to be turned again at once.
    fn carry_out(
        &mut self,
        actions: Actions<RequestId, (Look, RequestId)>,
        disk: &MemDisk,
        wants: &mut Wants,
    ) -> bool {
        let Actions {
            cluster: _,
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
        if let Some((membership, leaving)) = members {
            self.standing.settle(self.raft().me(), &membership, &leaving);
        }
        let mut again = self.obey(orders, disk, wants);
        wants.send.extend(send);
        wants.asks.extend(asks);
        wants.told.extend(told);
        wants.changed.extend(changed);
        wants.transferred.extend(transferred.into_iter().map(|(_, outcome)| outcome));
        wants.ruled.extend(ruled.into_iter().map(|(_, outcome)| outcome));
        wants.loads.extend(loads);
        self.filing.extend(files);
        for work in work {
            wants.leadership_lost |= matches!(work, Work::Deposed);
            if let Work::Apply(entries) = &work {
                let bytes: u64 = entries.iter().map(|entry| entry.len() as u64).sum();
                if entries.len() > 1 && bytes > self.limits.feed {
                    wants.unbounded = Some(format!("{bytes} bytes of entries are handed over at once"));
                }
            }
            self.applier.take(work);
        }
        again |= self.outcomes(wants);
        for answer in answers {
            wants.heard.push(Heard::of(answer));
        }
        wants.alarms.extend(alarms);
        wants.findings.extend(findings);
        wants.fatal = wants.fatal.take().or(fatal.map(|reason| said(&reason)));
        again
    }

    /// Carries out what concerns the disk. True if the driver has to be turned again at once.
    fn obey(&mut self, orders: Vec<Order>, disk: &MemDisk, wants: &mut Wants) -> bool {
        let mut again = false;
        let mut seen = mem::take(&mut self.seen);
        for order in orders {
            match order {
                Order::Write(id, batch) => {
                    if seen > 0 {
                        seen -= 1;
                    } else {
                        wants.queued.push(batch.clone());
                    }
                    self.queue.push(id, batch);
                }
                Order::Purge(upto) => self.purge = Some(upto),
                // What a host knows of others it keeps by itself.
                Order::Met(_) | Order::Places(_) => {}
                Order::Fence(index) => match identity::set_fence(disk, index) {
                    Ok(()) => wants.fenced = true,
                    Err(error) => wants.fatal = Some(in_full(&error)),
                },
                Order::Mended => {
                    wants.mended = Some(self.mend(disk, wants));
                    again = true;
                }
                Order::Stop(stop) => {
                    let kept = stop.as_ref().map(|kept| kept.stop);
                    match identity::set_stop(disk, stop) {
                        Ok(()) => wants.stops.push(Stop::Kept(kept)),
                        Err(error) => wants.fatal = Some(in_full(&error)),
                    }
                    self.driver.on_stop_kept(kept);
                    again = true;
                }
                Order::Rules => {
                    if let Err(error) = identity::set_rules(disk) {
                        wants.fatal = Some(in_full(&error));
                    }
                }
                Order::Name(cluster) => match self.name(disk, cluster) {
                    Ok(()) => again = true,
                    Err(error) => wants.fatal = Some(error),
                },
                Order::Promise(promise) => {
                    self.promises.push_back(promise);
                    wants.promises += 1;
                }
            }
        }
        again
    }

    fn apply(&mut self, count: usize, wants: &mut Wants) {
        for _ in 0..count {
            match self.applier.next() {
                None => break,
                Some(Ok(Done::Applied(entry, effect))) => {
                    let fired = mem::take(&mut *self.fired.lock().unwrap_or_else(PoisonError::into_inner));
                    wants.applied.push((entry, effect, self.applier.progress().digest, fired));
                }
                Some(Ok(Done::Restored(id))) => wants.restored.push((id, self.applier.progress().digest)),
                Some(Ok(Done::SnapshotTaken)) => {}
                Some(Ok(Done::Stopped(at, why))) => {
                    wants.stops.push(Stop::Machine(at));
                    self.driver.on_machine_stopped(at, said(&why));
                }
                Some(Ok(Done::Passed(at))) => self.driver.on_machine_passed(at),
                Some(Err(reason)) => {
                    wants.fatal = Some(reason.to_string());
                    break;
                }
            }
        }
        // Some batches are longer, so that what was applied and is not kept is lost now and then.
        let ends = self.applier.progress().applied.index.0 % 4 != 3;
        if ends && let Err(reason) = self.applier.persist() {
            wants.fatal = wants.fatal.take().or(Some(said(&reason)));
        }
        let news = self.applier.news();
        self.duties.learn(&mut self.applier);
        wants.news.push(news.clone());
        self.history.take(news);
        self.outcomes(wants);
    }

    /// Carries out what the machine says. True if the driver has to be turned.
    fn outcomes(&mut self, wants: &mut Wants) -> bool {
        let mut turn = false;
        for outcome in self.applier.outcomes() {
            match outcome {
                Outcome::Reply(request, told) => wants.heard.push((request, Heard::Reply(told))),
                Outcome::Encoded(request, bytes) => wants.heard.push((request, Heard::Sent(Ok(bytes)))),
                Outcome::Answer(request, Ok((value, applied))) => {
                    wants.heard.push((request, Heard::Answer(value, applied.index, None)));
                }
                Outcome::Answer(request, Err(error)) => wants.heard.push((request, Heard::of_read(&error))),
                Outcome::Failed(request, error) => {
                    wants.heard.push((request, Heard::of_failure(request, error)));
                }
                Outcome::Send(peer, reply) => wants.send.push((peer, PeerMessage::ForwardReply(reply))),
                Outcome::Snapshot(meta, save) => {
                    self.saving = Some((*meta, save));
                    wants.saves = true;
                }
                Outcome::NoSnapshot => {
                    self.driver.on_saved(None);
                    turn = true;
                }
                Outcome::Carried(flight, outcome) => {
                    self.driver.on_carried(flight, outcome);
                    turn = true;
                }
                Outcome::Checked(from, forward) => {
                    self.driver.on_checked(from, forward);
                    turn = true;
                }
            }
        }
        turn
    }
}

/// A command's bytes.
pub(super) fn encode(ask: &Ask) -> bytes::Bytes {
    Kv::encode_command(ask).expect("a small command has bytes")
}

/// Why a node stops, in full.
fn said(reason: &StopReason) -> String {
    match reason {
        StopReason::Storage(error) => in_full(&**error),
        other => in_full(other),
    }
}
