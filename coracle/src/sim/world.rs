//! The world around the nodes: time, network, disks, faults and clients, in one queue of events.
//!
//! Everything that happens is an event at a moment of true time. The world takes the earliest, lets one
//! node handle it, has the judge look at what changed, and schedules what follows. Nothing here knows what
//! is right: that is the business of the [`ghost`](super::ghost).

use super::clients::Clients;
use super::dice::Dice;
use super::ghost::{Ghost, Verdict, broken};
use super::host::{Heard, Host, Wants, encode};
use super::plan::{ELECTION, MS, Plan};
use super::{Options, Report};
use crate::entry::Entry;
use crate::replica::{Event, Load, RequestId};
use crate::storage::WriteBatch;
use crate::transport::PeerMessage;
use crate::wire;
use bytes::Bytes;
use coracle_core::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3Default;

/// Events at one simulated moment happen in the order in which they were scheduled.
type When = (u64, u64);

/// What happens.
#[derive(Debug)]
enum Happening {
    /// A node's timer.
    Tick { node: usize, run: u64 },
    /// A message arrives.
    Deliver { to: usize, bytes: Bytes },
    /// The disk has done the batch that it was working on.
    Written { node: usize, run: u64 },
    /// The log was quiet for a while.
    Seal { node: usize, run: u64 },
    /// Entries were read from the store.
    Loaded { node: usize, run: u64, load: Load },
    /// A node's process starts again.
    Start { node: usize },
    /// A client wakes: it asks, or gives up on what it asked.
    Client { client: usize },
    /// Something goes wrong.
    Fault(Fault),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash,
    Partition,
    Freeze,
    Rumour,
    Clock,
}

/// One simulated run.
pub(super) struct World {
    options: Options,
    plan: Plan,
    dice: Dice,
    now: u64,
    order: u64,
    queue: BTreeMap<When, Happening>,
    hosts: Vec<Host>,
    /// Which links are cut: from, to.
    cut: Vec<Vec<bool>>,
    clients: Clients,
    ghost: Ghost,
    trace: Xxh3Default,
    report: Report,
    healed: bool,
}

impl World {
    pub(super) fn new(options: Options) -> World {
        let mut dice = Dice::new(options.seed);
        let plan = Plan::draw(&mut dice, options.nodes);
        #[cfg_attr(not(feature = "mutants"), allow(unused_mut))]
        let mut hosts: Vec<Host> = (1..=plan.nodes as u64).map(Host::new).collect();
        #[cfg(feature = "mutants")]
        hosts.iter_mut().for_each(|host| host.broken = Broken::rule(options.mutant));
        let ids = hosts.iter().map(|host| host.me.id).collect();
        let clients = Clients::new(&plan, dice.fork());
        let cut = vec![vec![false; plan.nodes]; plan.nodes];
        let report = Report { seed: options.seed, ..Report::default() };
        World {
            clients,
            ghost: Ghost::new(ids),
            hosts,
            cut,
            plan,
            dice,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            trace: Xxh3Default::new(),
            report,
            healed: false,
            options,
        }
    }

    /// Runs the whole life of the cluster, and tells what came of it.
    pub(super) fn run(mut self) -> Report {
        let verdict = self.live();
        if let Err(violation) = verdict {
            self.report.violation = Some(violation);
        }
        self.report.committed = self.ghost.committed().0;
        self.report.operations = self.clients.operations();
        self.report.sim_millis = self.now / MS;
        self.report.trace_hash = self.trace.digest();
        self.report
    }

    fn live(&mut self) -> Verdict {
        self.begin()?;
        while self.report.steps < self.options.steps {
            self.happen()?;
        }
        self.heal()?;
        self.clients.judge()
    }

    fn begin(&mut self) -> Verdict {
        for node in 0..self.hosts.len() {
            self.start(node)?;
        }
        let members = self.hosts.iter().map(|host| Member {
            id: host.me.id,
            incarnation: host.me.incarnation,
            address: String::new(),
        });
        let membership = Membership::of_voters(ClusterId(u128::from(self.options.seed)), members);
        self.turn(0, Event::Bootstrap(RequestId(0), membership))?;
        for client in 0..self.clients.len() {
            let wake = self.dice.below(ELECTION);
            self.at(wake, Happening::Client { client });
        }
        for (mean, fault) in [
            (self.plan.crash, Fault::Crash),
            (self.plan.partition, Fault::Partition),
            (self.plan.freeze, Fault::Freeze),
            (self.plan.rumour, Fault::Rumour),
            (if self.plan.clocks { 2 * ELECTION } else { 0 }, Fault::Clock),
        ] {
            self.again(mean, fault);
        }
        Ok(())
    }

    /// All faults end; then what must happen must happen within bounds.
    fn heal(&mut self) -> Verdict {
        self.healed = true;
        self.plan.heal();
        for row in &mut self.cut {
            row.fill(false);
        }
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            host.frozen_until = 0;
            host.clock.set(self.now, 1000, 0);
            if host.up.is_none() && !self.starts_soon(node) {
                self.start(node)?;
            }
        }
        // L1: a leader within 10 election timeouts (and those on the way, held by up to ten more).
        self.until("L1", 20 * ELECTION, "a leader that all follow", |world| {
            let mut leaders = world.hosts.iter().map(|h| h.up.as_ref().and_then(|up| up.raft().leader()));
            let first = leaders.next().flatten();
            first.is_some() && leaders.all(|leader| leader == first)
        })?;
        // L4: everybody who asked knows by then.
        self.clients.stop_asking();
        self.until("L4", 20 * ELECTION, "an answer to every request", |world| world.clients.idle())?;
        // L3: new writes are acknowledged.
        let before = self.clients.acknowledged();
        self.clients.ask_again();
        self.until("L3", 20 * ELECTION, "a new write acknowledged", |world| {
            world.clients.acknowledged() > before
        })?;
        self.clients.stop_asking();
        self.until("L2", 20 * ELECTION, "equal machines everywhere", |world| {
            let commit = world.ghost.committed();
            world.clients.idle()
                && world.hosts.iter().all(|host| {
                    host.up.as_ref().is_some_and(|up| {
                        up.raft().last().index == commit && up.applier.applied().0.index == commit
                    })
                })
        })?;
        // L6: a healthy leader stays, once the last message that was held has arrived.
        let settled = self.now + 11 * ELECTION;
        while self.now < settled {
            self.happen()?;
        }
        let term = |world: &World| world.hosts[0].up.as_ref().map(|up| up.raft().term());
        let before = term(self);
        let until = self.now + 100 * ELECTION;
        // A hundred timeouts take long; a few tell as much about a healthy cluster.
        let until = until.min(self.now + 10 * ELECTION);
        while self.now < until {
            self.happen()?;
        }
        if term(self) != before {
            return broken("L6", format!("a healthy leader was deposed: {before:?} became {:?}", term(self)));
        }
        Ok(())
    }

    fn until(
        &mut self,
        invariant: &'static str,
        bound: u64,
        what: &str,
        mut holds: impl FnMut(&World) -> bool,
    ) -> Verdict {
        let until = self.now + bound;
        while !holds(self) {
            if self.now > until {
                let states: Vec<_> =
                    self.hosts.iter().map(|host| host.up.as_ref().map(|up| up.raft().status())).collect();
                return broken(invariant, format!("no {what} after {} s: {states:#?}", bound / MS / 1000));
            }
            self.happen()?;
        }
        Ok(())
    }

    // ---- time

    fn at(&mut self, delay: u64, what: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), what);
    }

    fn again(&mut self, mean: u64, fault: Fault) {
        if mean > 0 {
            let delay = self.dice.within(1, 2 * mean);
            self.at(delay, Happening::Fault(fault));
        }
    }

    fn happen(&mut self) -> Verdict {
        let Some(((when, _), what)) = self.queue.pop_first() else {
            return broken("queue", "nothing will ever happen again".to_owned());
        };
        self.now = when;
        match what {
            Happening::Tick { node, run } => self.on_tick(node, run),
            Happening::Deliver { to, bytes } => self.on_deliver(to, bytes),
            Happening::Written { node, run } => self.on_written(node, run),
            Happening::Seal { node, run } => self.on_seal(node, run),
            Happening::Loaded { node, run, load } => self.on_loaded(node, run, load),
            Happening::Start { node } => self.start(node),
            Happening::Client { client } => self.on_client(client),
            Happening::Fault(fault) => self.on_fault(fault),
        }
    }

    /// A frozen node handles things when it thaws, in their order.
    fn frozen(&mut self, node: usize) -> Option<u64> {
        let until = self.hosts[node].frozen_until;
        (until > self.now).then(|| until - self.now)
    }

    fn lives(&self, node: usize, run: u64) -> bool {
        self.hosts[node].run == run && self.hosts[node].up.is_some()
    }

    fn step(&mut self, kind: u8, node: usize, detail: u64) {
        self.report.steps += 1;
        self.trace.update(&[kind, node as u8]);
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&detail.to_le_bytes());
    }

    // ---- nodes

    fn on_tick(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        // A node that slept finds its messages before its timers: so its tick comes behind them.
        let delay = self.frozen(node).map_or(10 * MS * 1000 / self.hosts[node].clock.rate, |thaw| thaw + 1);
        let thawing = self.frozen(node).is_some();
        self.at(delay, Happening::Tick { node, run });
        if thawing {
            return Ok(());
        }
        let role = |host: &Host| host.up.as_ref().map(|up| (up.raft().role_name(), up.raft().term()));
        let before = role(&self.hosts[node]);
        let sent = self.report.messages;
        self.turn(node, Event::Tick)?;
        if role(&self.hosts[node]) != before || self.report.messages != sent {
            self.step(1, node, self.report.messages);
        }
        Ok(())
    }

    fn on_deliver(&mut self, to: usize, bytes: Bytes) -> Verdict {
        if let Some(thaw) = self.frozen(to) {
            self.at(thaw, Happening::Deliver { to, bytes });
            return Ok(());
        }
        if self.hosts[to].up.is_none() {
            return Ok(());
        }
        let Ok(Some(PeerMessage::Raft { envelope, entries })) = wire::decode(&bytes) else {
            return broken("wire", "a message that was sent cannot be decoded".to_owned());
        };
        self.step(2, to, bytes.len() as u64);
        let from = self.index(envelope.from.id);
        let acknowledges = matches!(envelope.message, Message::AppendReply(_));
        self.turn(to, Event::Message(envelope, entries))?;
        if acknowledges && let Some(up) = &self.hosts[to].up {
            self.ghost.on_matched(to, up.raft(), from)?;
        }
        Ok(())
    }

    fn on_written(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Written { node, run });
            return Ok(());
        }
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let batch = up.writing.as_ref().map(|(_, batch)| batch.clone()).unwrap_or_default();
        match up.write(self.now) {
            Ok(Some(id)) => {
                self.step(3, node, id.0);
                self.ghost.on_durable(node, &batch)?;
                self.turn(node, Event::Persisted(id))
            }
            Ok(None) => Ok(()),
            Err(error) => broken("disk", format!("a healthy disk refuses: {error}")),
        }
    }

    fn on_seal(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let quiet = up.unsealed.is_some_and(|since| self.now - since >= 20 * MS);
        if up.writing.is_none() && quiet {
            self.report.count("a seal written");
            if let Err(error) = up.seal() {
                return broken("disk", format!("a healthy disk refuses a seal: {error}"));
            }
        }
        Ok(())
    }

    fn on_loaded(&mut self, node: usize, run: u64, load: Load) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let result = up.load(&load);
        self.report.count("entries loaded from disk");
        self.step(4, node, load.first.0);
        self.turn(node, Event::Loaded(load, result))
    }

    fn start(&mut self, node: usize) -> Verdict {
        let host = &mut self.hosts[node];
        if host.up.is_some() {
            return Ok(());
        }
        let recovered = match host.start(self.now, &self.plan, &mut self.dice) {
            Ok(recovered) => recovered,
            Err(error) => return broken("S20", format!("node {} does not start: {error}", host.me.id)),
        };
        let run = host.run;
        let mut entries: Vec<Entry> = Vec::new();
        if let Some(up) = &host.up {
            while (entries.len() as u64) < recovered.last.index.0 {
                let first = Index(entries.len() as u64 + 1);
                let purpose = crate::replica::Purpose::Apply;
                let load = Load { first, last: recovered.last.index, max_bytes: 1 << 20, purpose };
                match up.load(&load) {
                    Ok(more) => entries.extend(more),
                    Err(error) => {
                        return broken("S20", format!("what was recovered cannot be read: {error}"));
                    }
                }
            }
        }
        self.step(5, node, recovered.last.index.0);
        self.ghost.on_start(node, &recovered, &entries)?;
        let first = self.dice.below(10 * MS);
        self.at(first, Happening::Tick { node, run });
        Ok(())
    }

    fn starts_soon(&self, node: usize) -> bool {
        self.queue.values().any(|what| matches!(what, Happening::Start { node: other } if *other == node))
    }

    /// Lets a node handle an event, and carries out what it wants.
    fn turn(&mut self, node: usize, event: Event) -> Verdict {
        let Wants { send, loads, queued, applied, heard, alarms, leadership_lost, fatal } =
            self.hosts[node].turn(self.now, event);
        let term = self.hosts[node].up.as_ref().filter(|up| up.raft().is_leader()).map(|up| up.raft().term());
        let leads = term.is_some() && term == self.ghost.leads(node);
        for batch in &queued {
            self.ghost.on_queued(node, leads, batch)?;
        }
        if let Some(up) = &self.hosts[node].up {
            self.ghost.on_step(node, up.raft())?;
        }
        for (entry, digest) in &applied {
            self.ghost.on_applied(node, entry, *digest)?;
            self.clients.on_applied(entry)?;
        }
        if leadership_lost {
            self.report.count("leadership lost");
        }
        if let Some(alarm) = alarms.first()
            && !matches!(alarm, Alarm::DiskStalled { .. })
        {
            return broken("S12", format!("a healthy cluster raises an alarm: {alarm:?}"));
        }
        if let Some(reason) = fatal {
            return broken("S22", format!("node {} stops: {reason}", self.hosts[node].me.id));
        }
        self.work(node, &queued);
        let run = self.hosts[node].run;
        for load in loads {
            let delay = self.dice.within(1, self.plan.load.max(1));
            self.at(delay, Happening::Loaded { node, run, load });
        }
        for (envelope, entries) in send {
            self.ghost.on_send(node, &envelope)?;
            self.send(node, envelope, entries);
        }
        for (request, heard) in heard {
            self.hear(request, heard)?;
        }
        Ok(())
    }

    fn hear(&mut self, request: RequestId, heard: Heard) -> Verdict {
        self.trace.update(&request.0.to_le_bytes());
        self.clients.on_heard(request, heard)
    }

    /// Gives an idle disk its next batch.
    fn work(&mut self, node: usize, queued: &[WriteBatch]) {
        if queued.iter().any(|batch| {
            batch.changes.iter().any(|change| matches!(change, crate::storage::Change::Truncate(_)))
        }) {
            self.report.count("a log truncated");
        }
        let run = self.hosts[node].run;
        let Some(up) = &mut self.hosts[node].up else { return };
        if up.writing.is_some() {
            return;
        }
        up.writing = up.queue.take();
        let busy = up.writing.is_some();
        if busy {
            let stalls = self.dice.chance(self.plan.stall);
            let limit = if stalls { 2 * ELECTION } else { self.plan.disk };
            let delay = self.dice.within(1, limit);
            self.at(delay, Happening::Written { node, run });
        } else if up.unsealed == Some(self.now) {
            self.at(20 * MS, Happening::Seal { node, run });
        }
    }

    // ---- network

    fn index(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    fn send(&mut self, from: usize, envelope: Envelope, entries: Vec<Entry>) {
        self.report.messages += 1;
        let to = self.index(envelope.to.id);
        if self.cut[from][to] {
            self.report.count("a message cut off by a partition");
            return;
        }
        if self.dice.chance(self.plan.drop) {
            self.report.count("a message dropped");
            return;
        }
        let bytes = wire::encode(&PeerMessage::Raft { envelope, entries }).to_bytes();
        let copies = if self.dice.chance(self.plan.duplicate) { self.dice.within(2, 3) } else { 1 };
        if copies > 1 {
            self.report.count("a message duplicated");
        }
        for _ in 0..copies {
            let held = self.dice.chance(self.plan.hold);
            if held {
                self.report.count("a message held");
            }
            let limit = if held { 10 * ELECTION } else { self.plan.latency };
            let delay = self.dice.within(1, limit);
            self.at(delay, Happening::Deliver { to, bytes: bytes.clone() });
        }
    }

    // ---- faults

    fn on_fault(&mut self, fault: Fault) -> Verdict {
        if self.healed {
            return Ok(());
        }
        let node = self.dice.below(self.hosts.len() as u64) as usize;
        match fault {
            Fault::Crash => {
                self.again(self.plan.crash, fault);
                self.crash(node)
            }
            Fault::Partition => {
                self.again(self.plan.partition, fault);
                self.partition(node);
                Ok(())
            }
            Fault::Freeze => {
                self.again(self.plan.freeze, fault);
                self.report.count("a node frozen");
                let time = self.dice.within(MS, 10 * ELECTION);
                self.hosts[node].frozen_until = self.now + time;
                Ok(())
            }
            Fault::Rumour => {
                self.again(self.plan.rumour, fault);
                self.report.count("a rumour that a peer is gone");
                let gone = self.dice.below(self.hosts.len() as u64) + 1;
                if gone as usize - 1 == node || self.frozen(node).is_some() {
                    return Ok(());
                }
                self.turn(node, Event::PeerDown(NodeId(gone)))
            }
            Fault::Clock => {
                self.again(2 * ELECTION, fault);
                self.report.count("a clock set");
                let (rate, jumps) = (self.dice.within(500, 2000), self.dice.chance(200));
                let jump = if jumps { self.dice.below(5 * ELECTION) } else { 0 };
                self.hosts[node].clock.set(self.now, rate, jump);
                Ok(())
            }
        }
    }

    /// Ends a process, or its power, in the middle of whatever its disk is doing.
    fn crash(&mut self, node: usize) -> Verdict {
        let power = self.dice.chance(self.plan.power);
        let host = &mut self.hosts[node];
        let Some(mut up) = host.up.take() else { return Ok(()) };
        if up.raft().is_leader() {
            self.report.count(if up.raft().commit() < up.raft().last().index {
                "a leader crashes between append and commit"
            } else {
                "a leader crashes"
            });
        }
        if up.writing.is_some() {
            self.report.count("a crash while the disk writes");
            // Some of its operations happen, and the one at which it is cut may happen in part.
            let cut = host.disk.operations() + self.dice.below(8);
            host.disk.fail_from(cut);
            // Whether it failed or got through in time: nobody is there to hear of it.
            drop(up.write(self.now));
        }
        drop(up);
        self.report.count(if power { "a loss of power" } else { "a crash of a process" });
        let odds = *self.dice.pick(&[0, 300, 700, 1000]);
        let dice = &mut self.dice;
        let survives = || dice.chance(odds);
        if power {
            let sector = if odds.is_multiple_of(2) { 512 } else { 4096 };
            host.disk = host.disk.power_cut(sector, survives);
        } else {
            // The page cache outlives the process.
            host.disk.fail_from(u64::MAX);
        }
        self.clients.on_crash(self.hosts[node].me.id);
        let delay = self.dice.within(MS, 4 * ELECTION);
        self.step(6, node, u64::from(power));
        self.at(delay, Happening::Start { node });
        Ok(())
    }

    fn partition(&mut self, node: usize) {
        let size = self.hosts.len();
        let kind = self.dice.below(6);
        self.report.count(match kind {
            0 | 1 => "a partition healed",
            2 => "a node cut off",
            3 => "a link cut one way",
            4 => "a partition in two halves",
            _ => "links cut at random",
        });
        for row in &mut self.cut {
            row.fill(false);
        }
        for from in 0..size {
            for to in 0..size {
                let cut = match kind {
                    0 | 1 => false,
                    2 => (from == node) != (to == node),
                    3 => from == node && to != node,
                    4 => (from <= node) != (to <= node),
                    _ => self.dice.chance(300),
                };
                self.cut[from][to] = cut && from != to;
            }
        }
    }

    // ---- clients

    fn on_client(&mut self, client: usize) -> Verdict {
        let committed = self.ghost.committed();
        let pause = self.dice.within(1, self.plan.think.max(1));
        self.at(pause, Happening::Client { client });
        let Some((node, request, ask)) = self.clients.wake(client, self.now, self.hosts.len(), committed)?
        else {
            return Ok(());
        };
        self.step(7, node, request.0);
        if self.frozen(node).is_some() || self.hosts[node].up.is_none() {
            // The connection is refused, or nobody answers; only the first is certain.
            return if self.hosts[node].up.is_none() { self.clients.refused(request) } else { Ok(()) };
        }
        match ask {
            Ok(command) => self.turn(node, Event::Propose(vec![(request, encode(&command))])),
            Err(key) => {
                if let Some(up) = &mut self.hosts[node].up {
                    up.wants_read(request, key);
                }
                self.turn(node, Event::Read(vec![request]))
            }
        }
    }
}
