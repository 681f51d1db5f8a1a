//! The world around the nodes: time, and everything that happens in it, in one queue of events.
//!
//! Everything that happens is an event at a moment of true time. The world takes the earliest, lets one
//! node handle it, has the judge look at what changed, and schedules what follows. Nothing here knows what
//! is right: that is the business of the [`ghost`](super::ghost). What goes wrong is in
//! [`faults`], [`power`] and [`network`], what must come
//! right again in [`heal`].

mod asking;
mod bounds;
mod changes;
mod contest;
mod copies;
mod corner;
mod counting;
mod disk;
mod dues;
mod duties;
mod faults;
mod founding;
mod guests;
mod heal;
mod joiners;
mod leases;
mod marks;
mod mending;
mod moves;
mod network;
mod power;
mod reads;
mod snapshots;
mod stops;
mod timers;
mod transfers;
mod turns;
mod visits;
mod watchers;
mod wipes;

use self::copies::Aside;
use self::corner::Corner;
pub(super) use self::counting::Before;
use self::duties::Duty;
use self::network::{Network, Parcel};
use self::reads::Reading;
use self::turns::Turn;
use self::visits::{Visit, Visitors};
use self::watchers::Watchers;
use super::chance::{Chance, Decision, Kind};
use super::clients::Clients;
use super::ghost::effects::Effects;
use super::ghost::timers::Timers;
use super::ghost::{Ghost, Verdict, Violation, broken};
use super::guest::Guests;
use super::host::{Event, Heard, Host, Wants};
use super::plan::{ELECTION, MS, Plan};
use super::situations::{Met, Rare, SITUATIONS};
use super::{Options, Report};
use crate::founding::Question;
use crate::storage::Change;
use crate::transport::PeerMessage;
#[cfg(feature = "mutants")]
use coracle_core::Broken;
use coracle_core::{Alarm, Incarnation, Index, Mark, NodeId, Peer, Raft, WriteId};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use xxhash_rust::xxh3::Xxh3Default;

/// Events at one simulated moment happen in the order in which they were scheduled, but for some that go first.
type When = (u64, u8, u64);

/// How long a log is quiet before it seals.
const QUIET: u64 = 20 * MS;

/// The pause before a write is tried again that found no room.
const NO_ROOM_PAUSE: u64 = 50 * MS;

/// What happens.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node's timer.
    Tick {
        node: usize,
        run: u64,
    },
    /// A message arrives.
    Deliver(Parcel),
    /// The disk has done the batch that it was working on.
    Written {
        node: usize,
        run: u64,
    },
    /// The node is told that a write is done.
    Reported {
        node: usize,
        run: u64,
        id: WriteId,
    },
    /// The log was quiet for a while.
    Seal {
        node: usize,
        run: u64,
    },
    /// Entries were read from the store.
    Loaded {
        node: usize,
        run: u64,
        reading: Box<Reading>,
    },
    /// A slow machine gets on.
    Apply {
        node: usize,
        run: u64,
    },
    /// A node carries out what it has taken in.
    Turn {
        node: usize,
        run: u64,
    },
    /// A node's disk has done what was asked of the files of snapshots, or has written one.
    Filed {
        node: usize,
        run: u64,
    },
    Saved {
        node: usize,
        run: u64,
        sound: bool,
    },
    /// A node's transport tells it something.
    Noticed {
        node: usize,
        run: u64,
        event: Event,
    },
    /// A node's process ends, and starts again soon.
    Restart {
        node: usize,
        run: u64,
    },
    /// A node's process starts again.
    Start {
        node: usize,
    },
    /// A client wakes: it asks, or gives up on what it asked.
    Client {
        client: usize,
    },
    /// Something goes wrong.
    Fault(Kind),
    /// A link goes or comes, and so many more times.
    Flap {
        from: usize,
        to: usize,
        more: u64,
    },
    /// The next stage of a leader that is deposed, comes back and leads again.
    Turnover {
        leader: usize,
        stage: u8,
    },
    /// The next stage of a leader that is cut off.
    Corner {
        since: u64,
        stage: u8,
    },
    /// The two processes of a node and of a copy of its directory change places.
    ChangePlaces {
        node: usize,
        more: u64,
    },
    /// A node that was frozen gets what a client asked meanwhile.
    Asked {
        run: u64,
        question: super::clients::Question,
    },
    /// Something between a client that is no member and the nodes.
    Visit(Visit),
    /// A node has carried out an effect.
    Duty(Duty),
    /// A disk has room again.
    Room {
        node: usize,
    },
    /// The disk of a node that was removed is emptied.
    Outsider {
        node: usize,
        peer: Peer,
    },
    /// A node asks to be let in under a new name, on this disk.
    Joiner {
        node: usize,
        disk: Incarnation,
    },
}

/// One simulated run.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) now: u64,
    order: u64,
    queue: BTreeMap<When, Box<Happening>>,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    pub(super) visitors: Visitors,
    pub(super) watchers: Watchers,
    pub(super) ghost: Ghost,
    timers: Timers,
    effects: Effects,
    trace: Xxh3Default,
    pub(super) report: Report,
    pub(super) met: Met,
    pub(super) healed: bool,
    /// When the rates of clocks last changed, and how far any of them can have come by then.
    fastest: (u64, u64),
    /// Ticks of living nodes so far, and those of them that knew no leader.
    pub(super) ticks: (u64, u64),
    /// Whether what is under way to a follower can be told from what leaves: not where a turn that goes on hears
    /// of messages before the judge sees it send.
    pub(super) counts_flight: bool,
    /// Of each node, the turn that goes on.
    pub(super) turns: Vec<Option<Turn>>,
    /// For each node, what waits with the process that is not in front.
    aside: Vec<Aside>,
    /// Whether leaders put new addresses of members into the membership.
    pub(super) takes_over: bool,
    /// Questions about the founding that have no answer yet, by name: who asks, and what.
    pub(super) questions: BTreeMap<u64, (usize, Question)>,
    /// The leader that is being cut off while it may hold a lease.
    corner: Option<Corner>,
    /// What was ruled about entries that cannot be applied.
    pub(super) rulings: stops::Rulings,
    /// Every certificate that was ever issued, and the first that was believed and is nobody's.
    issued: Vec<(NodeId, Mark)>,
    misbelieved: Option<Violation>,
    /// What a user brought.
    pub(super) guests: Option<Guests>,
}

impl World {
    pub(super) fn new(options: Options) -> World {
        let chance = Chance::new(options.seed, options.only.as_deref(), options.remember);
        let mut dice = chance.plain(0, 0, 0);
        let plan = Plan::draw(&mut dice, options.nodes);
        #[cfg_attr(not(feature = "mutants"), allow(unused_mut))]
        let mut hosts: Vec<Host> = (1..=plan.nodes as u64).map(Host::new).collect();
        #[cfg(feature = "mutants")]
        hosts.iter_mut().for_each(|host| host.broken = Broken::rule(options.mutant));
        let fails = |host: &Host| host.fails.store(plan.poison, Ordering::Relaxed);
        hosts.iter().for_each(fails);
        let peers = hosts.iter().map(|host| host.me).collect();
        let report = Report { seed: options.seed, ..Report::default() };
        let mut ghost = Ghost::new(peers);
        hosts.iter().for_each(|host| ghost.on_place(host.me, &host.at.listens));
        World {
            clients: Clients::new(&plan),
            visitors: Visitors::default(),
            watchers: Watchers::new(hosts.len()),
            ghost,
            timers: Timers::new(plan.timers),
            effects: Effects::new(plan.nodes),
            hosts,
            network: Network::new(plan.nodes),
            turns: (0..plan.nodes).map(|_| None).collect(),
            aside: (0..plan.nodes).map(|_| Aside::default()).collect(),
            questions: BTreeMap::new(),
            corner: None,
            rulings: stops::Rulings::new(),
            issued: Vec::new(),
            misbelieved: None,
            guests: None,
            takes_over: true,
            counts_flight: plan.gather == 0,
            plan,
            chance,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            trace: Xxh3Default::new(),
            report,
            met: Met::new(),
            healed: false,
            fastest: (0, 0),
            ticks: (0, 0),
            options,
        }
    }

    /// Runs the whole life of the cluster, and tells what came of it.
    pub(super) fn run(mut self) -> Report {
        let verdict = self.live();
        if let Err(Violation { invariant, detail }) = &verdict {
            self.tell(|| format!("{invariant} is broken: {detail}"));
        }
        self.report.violation = verdict.err();
        self.report.committed = self.ghost.committed().0;
        self.report.operations = self.clients.operations();
        self.report.sim_millis = self.now / MS;
        self.report.trace_hash = self.trace.digest();
        self.clients.count_unknown();
        for (at, (name, _)) in SITUATIONS.iter().enumerate() {
            let times = self.met.0[at] + self.ghost.met.0[at] + self.clients.met.0[at];
            self.report.counts.insert(name, times);
        }
        for (kind, times) in Kind::ALL.iter().zip(self.chance.happened) {
            self.report.faults.insert(kind.as_str(), times);
        }
        self.report.decisions = self.chance.taken();
        self.report
    }

    pub(super) fn live(&mut self) -> Verdict {
        self.contest()?;
        self.begin()?;
        // A single voter to whom nobody says anything takes no steps.
        let until = self.now + 200 * ELECTION;
        while self.report.steps < self.options.steps && self.now < until {
            self.happen()?;
        }
        self.heal()?;
        self.report.undecided = !self.clients.judge()?;
        Ok(())
    }

    fn begin(&mut self) -> Verdict {
        for node in 0..self.hosts.len() {
            self.issue(node);
            self.start(node)?;
        }
        self.found()?;
        // Until its first entry is durable there is no cluster that could be attacked.
        while self.ghost.durable(0).0 < Index(1) {
            self.happen()?;
        }
        for client in 0..self.clients.len() {
            let wake = self.chance.plain(1, client, 0).below(ELECTION);
            self.at(wake, Happening::Client { client });
        }
        self.schedule_faults();
        Ok(())
    }

    /// A connection ended: both ends will notice.
    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            let run = self.hosts[node].run;
            let delay = self.chance.plain(7, node * 10 + peer, self.now).within(1, ELECTION / 4);
            let event = Event::Disconnected(self.hosts[peer].me);
            self.at(delay, Happening::Noticed { node, run, event });
        }
    }

    fn on_noticed(&mut self, node: usize, run: u64, event: Event) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Noticed { node, run, event });
            return Ok(());
        }
        if let Event::Unsent(unsent) = &event {
            self.ghost.on_unsent(node, *unsent);
        }
        self.turn(node, event)
    }

    // ---- time

    pub(super) fn at(&mut self, delay: u64, what: Happening) {
        self.order += 1;
        let first = self.plan.ties > 0 && self.chance.happens(Kind::Tie, 0, self.plan.ties).is_some();
        let when = self.now + delay;
        if first && self.queue.range((when, 1, 0)..(when, 2, 0)).next().is_some() {
            self.met.count(Rare::Tied);
        }
        self.queue.insert((when, u8::from(!first), self.order), Box::new(what));
    }

    /// It happens before what is due at that moment already.
    pub(super) fn first_at(&mut self, delay: u64, what: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay, 0, self.order), Box::new(what));
    }

    pub(super) fn happen(&mut self) -> Verdict {
        let verdict = self.happen_next();
        // What a guest does wrong comes before whatever follows from it.
        let verdict = self.judge_guests().and(verdict);
        verdict.and(self.misbelieved.take().map_or(Ok(()), Err))
    }

    fn happen_next(&mut self) -> Verdict {
        let Some(((when, ..), what)) = self.queue.pop_first() else {
            return broken("queue", "nothing will ever happen again".to_owned());
        };
        self.now = when;
        let Some(what) = self.due(*what) else { return Ok(()) };
        match what {
            Happening::Tick { node, run } => self.on_tick(node, run),
            Happening::Deliver(parcel) => self.on_deliver(parcel),
            Happening::Written { node, run } => self.on_written(node, run),
            Happening::Reported { node, run, id } => self.on_reported(node, run, id),
            Happening::Seal { node, run } => self.on_seal(node, run),
            Happening::Loaded { node, run, reading } => self.on_loaded(node, run, reading),
            Happening::Apply { node, run } => self.on_apply(node, run),
            Happening::Turn { node, run } => self.on_turn(node, run),
            Happening::Filed { node, run } => self.on_filed(node, run),
            Happening::Saved { node, run, sound } => self.on_saved(node, run, sound),
            Happening::Noticed { node, run, event } => self.on_noticed(node, run, event),
            Happening::Restart { node, run } => self.restart(node, run),
            Happening::Start { node } => self.start(node),
            Happening::Client { client } => self.on_client(client),
            Happening::Fault(kind) => self.on_fault(kind),
            Happening::Flap { from, to, more } => self.on_flap(from, to, more),
            Happening::Turnover { leader, stage } => {
                self.on_turnover(leader, stage);
                Ok(())
            }
            Happening::Corner { since, stage } => {
                self.on_corner(since, stage);
                Ok(())
            }
            Happening::ChangePlaces { node, more } => self.change_places(node, more),
            Happening::Asked { run, question } => self.on_asked(run, question),
            Happening::Visit(visit) => self.on_visit(visit),
            Happening::Duty(duty) => self.on_duty(duty),
            Happening::Outsider { node, peer } => self.on_outsider(node, peer),
            Happening::Joiner { node, disk } => self.on_joiner(node, disk),
            Happening::Room { node } => {
                self.end_disk_faults(node);
                Ok(())
            }
        }
    }

    /// A frozen node handles things when it thaws, in their order.
    pub(super) fn frozen(&self, node: usize) -> Option<u64> {
        let until = self.hosts[node].frozen_until;
        (until > self.now).then(|| until - self.now)
    }

    pub(super) fn lives(&self, node: usize, run: u64) -> bool {
        self.hosts[node].run == run && self.hosts[node].up.is_some()
    }

    pub(super) fn starts_soon(&self, node: usize) -> bool {
        self.queue.values().any(|what| matches!(&**what, Happening::Start { node: other } if *other == node))
    }

    pub(super) fn step(&mut self, kind: u8, node: usize, detail: u64) {
        self.report.steps += 1;
        self.trace.update(&[kind, node as u8]);
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&detail.to_le_bytes());
    }

    /// Something that belongs to what happened.
    pub(super) fn note(&mut self, detail: u64) {
        self.trace.update(&detail.to_le_bytes());
    }

    /// Adds a line to the story, if there is to be one.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.options.story {
            let line = self.line(line());
            self.report.story.push(line);
        }
    }

    pub(super) fn line(&self, what: String) -> String {
        format!("{:6}.{:03}  {what}", self.now / MS, self.now % MS)
    }

    /// How far the fastest clock may have come, in milliseconds.
    pub(super) fn fastest(&self) -> u64 {
        let (since, showed) = self.fastest;
        let rate = self.hosts.iter().map(|host| host.clock.rate).max().unwrap_or(1000);
        (showed + (self.now - since) * rate / 1000) / MS
    }

    /// From now on a node's clock runs at another rate, after a jump.
    pub(super) fn set_clock(&mut self, node: usize, rate: u64, jump: u64) {
        self.fastest = (self.now, self.fastest() * MS + MS + jump);
        self.hosts[node].clock.set(self.now, rate, jump);
    }

    // ---- nodes

    fn on_tick(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        // A node that slept finds its messages before its timers: so its tick comes after them.
        let thaw = self.frozen(node);
        let delay = thaw.map_or(10 * MS * 1000 / self.hosts[node].clock.rate, |thaw| thaw + 1);
        self.at(delay, Happening::Tick { node, run });
        if thaw.is_some() {
            return Ok(());
        }
        // Nobody leads a node that was removed.
        let gone = |raft: &Raft| !raft.membership().is_empty() && !raft.membership().contains(raft.me());
        // Nor one that was not let in again yet on its new disk, or knows nobody where he is.
        let lost = self.hosts[node].wiped || self.is_lonely(node);
        if let Some(up) = self.hosts[node].up.as_ref().filter(|up| !lost && !gone(up.raft())) {
            self.ticks.0 += 1;
            self.ticks.1 += u64::from(up.raft().leader().is_none());
        }
        let role = |host: &Host| host.up.as_ref().map(|up| (up.raft().role_name(), up.raft().term()));
        let before = role(&self.hosts[node]);
        let sent = self.report.messages;
        self.look_around(node)?;
        self.look_at_marks(node)?;
        let applied = self.has_to_fire(node);
        self.turn(node, Event::Tick)?;
        self.watch_firing(node, applied)?;
        self.ghost.on_tick(node, self.hosts[node].clock.local(self.now) / MS);
        if role(&self.hosts[node]) != before || self.report.messages != sent {
            self.step(1, node, self.report.messages);
            self.watch_window(node)?;
        }
        Ok(())
    }

    fn on_apply(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Apply { node, run });
            return Ok(());
        }
        if let Some(up) = &mut self.hosts[node].up {
            up.applies = false;
        }
        self.met.count(Rare::SlowApply);
        let count = 1 + self.chance.plain(2, node, self.now).below(4) as usize;
        let wants = self.hosts[node].apply(self.now, count);
        self.carry_out(node, wants)
    }

    pub(super) fn carry_out(&mut self, node: usize, wants: Wants) -> Verdict {
        let Wants {
            send,
            loads,
            asks,
            told,
            changed,
            transferred,
            ruled,
            stops,
            promises,
            queued,
            applied,
            restored,
            news,
            saves,
            heard,
            alarms,
            findings,
            fenced,
            mended,
            leadership_lost,
            unbounded,
            fatal,
        } = wants;
        self.judge(node, &queued)?;
        self.watch_machine(node, &applied, &heard, (&stops, &ruled))?;
        if let Some(detail) = unbounded {
            return broken("S22", format!("node {}: {detail}", node + 1));
        }
        self.on_changed(node, &changed, &transferred);
        self.look_after_files(node, &restored, saves)?;
        self.watch_newcomer(node, !restored.is_empty());
        let rotten = self.hosts[node].rotten.is_some();
        for (entry, effect, digest, fired) in &applied {
            self.ghost.on_applied(node, entry, Some(*digest).filter(|_| !rotten))?;
            self.clients.on_applied(entry, *effect)?;
            self.watch_fired(node, entry, *effect, fired)?;
        }
        self.watch_effects(node, fatal.is_some())?;
        self.watch_events(node, &news, applied.iter().map(|(entry, ..)| entry.index()))?;
        mended.into_iter().try_for_each(|durable| self.on_mended(node, durable))?;
        let answers = heard.iter().any(|(_, heard)| matches!(heard, Heard::Answer(..)));
        self.watch_fence(node, &findings, !applied.is_empty() || answers)?;
        if fenced {
            self.on_fenced(node, leadership_lost)?;
        }
        self.watch_alarms(alarms)?;
        if let Some(reason) = fatal {
            return self.on_disk_refused(node, &reason);
        }
        self.purge(node)?;
        let run = self.hosts[node].run;
        if !self.lives(node, run) {
            // Its disk refused something of this turn: a process that is gone sends nothing.
            return Ok(());
        }
        self.work(node);
        loads.into_iter().for_each(|load| self.read(node, load));
        self.send_all(node, send)?;
        heard.into_iter().try_for_each(|(request, heard)| self.hear(node, request, heard))?;
        self.converse(node, promises, asks, told)?;
        if let Some(up) = self.hosts[node].up.as_mut().filter(|up| up.lags() && !up.applies) {
            up.applies = true;
            let delay = self.chance.within(Kind::SlowApply, node, 1, self.plan.apply.max(1));
            self.at(delay, Happening::Apply { node, run });
        }
        Ok(())
    }

    fn send_all(&mut self, node: usize, send: Vec<(Peer, PeerMessage)>) -> Verdict {
        let run = self.hosts[node].run;
        for (to, message) in send {
            match message {
                PeerMessage::Raft { envelope, entries } => {
                    self.watch_message(node, &entries)?;
                    self.ghost.on_send(node, &envelope)?;
                    self.watch_flight(node, &envelope, &entries)?;
                    if let Err(unsent) = self.send(node, envelope, entries) {
                        self.at(0, Happening::Noticed { node, run, event: Event::Unsent(unsent) });
                    }
                }
                PeerMessage::Piece { envelope, bytes } => self.send_piece(node, envelope, bytes),
                message => self.send_reliably(node, to, message),
            }
        }
        Ok(())
    }

    fn watch_alarms(&mut self, alarms: Vec<Alarm>) -> Verdict {
        for alarm in alarms {
            match alarm {
                Alarm::DiskStalled { .. } => self.met.count(Rare::DiskStepDown),
                Alarm::LostEntries { follower, .. }
                    if self.node(follower).is_some_and(|node| self.hosts[node].put_back) => {}
                other => return broken("S12", format!("an alarm without a reason: {other:?}")),
            }
        }
        Ok(())
    }

    /// Gives an idle disk its next batch.
    pub(super) fn work(&mut self, node: usize) {
        let run = self.hosts[node].run;
        let Some(up) = &mut self.hosts[node].up else { return };
        if up.writing.is_some() {
            return;
        }
        up.writing = up.queue.take();
        let unsealed = up.unsealed == Some(self.now);
        if let Some((_, batch)) = &up.writing {
            // A log that is slow to give way to a snapshot meets the next leader's.
            let resets = !self.healed && batch.changes.iter().any(|it| matches!(it, Change::Reset(_)));
            let odds = if resets { self.plan.stall.max(200) } else { self.plan.stall };
            let stalls = self.chance.happens(Kind::Stall, node, odds);
            let delay = match stalls {
                _ if self.hosts[node].hung => 30 * ELECTION,
                Some(mut dice) => {
                    self.met.count(Rare::Stalled);
                    dice.within(ELECTION / 2, 5 * ELECTION)
                }
                None => self.chance.within(Kind::SlowDisk, node, 1, self.plan.disk),
            };
            self.at(delay, Happening::Written { node, run });
        } else if unsealed {
            self.at(QUIET, Happening::Seal { node, run });
        }
    }
}

/// The decision as a word, for a story.
pub(super) fn named(decision: Decision) -> String {
    format!("[{decision}]")
}
