//! A machine that cannot apply an entry, as the driver acts on it (D5.5.5): the machine stops, and not the node.
//!
//! The node says so durably before it tells the leader, and from then on its machine passes the entry only by what the
//! log says, whatever program is started on it. A leader puts a [`Ruling`] into the log when it is asked to. To skip an
//! entry, every member must have said that its machine has stopped before it: then none of them passes it in any other way,
//! whatever becomes of the ruling. Members that come later must not pass it either: as long as a ruling is not committed,
//! it holds every machine back whose log has it, and whoever lacks it is not told that the entry is committed.
//!
//! A leader whose machine has stopped hands over to a voter whose machine has passed the entry, if there is one. Otherwise
//! it stays, and takes no commands: consensus goes on, so that a ruling can be committed.

use crate::driver::Driver;
use crate::entry::Kind;
use crate::error::{ReadError, SnapshotError, WriteError};
use crate::replica::{Event, Moment};
use crate::rulings::{self, MOST, Ruling, RulingError, Rulings, Verdict};
use crate::stopped_machines::{Found, OWN};
use crate::storage::identity::KeptStop;
use crate::work::{Order, Waits, Work};
use coracle_core::{AppendEntries, Index, LogId, MachineStop, Member, NodeId, Peer, ReadIndexReply};

/// How often a leader whose machine has stopped looks for one whose machine goes on, in ticks.
const HAND_OVER: u64 = 50;

impl<W: Waits, R: Waits> Driver<W, R> {
    /// What was found at the start.
    pub(crate) fn knowing_rulings(mut self, found: Found) -> Driver<W, R> {
        let Found { stop, ruled, rules } = found;
        self.replica.knowing_rulings(ruled);
        self.skipping.rules = rules;
        if let Some(stop) = stop.filter(|_| !self.raft().broken().is("stop-forgotten-at-a-start")) {
            self.actions.work.push(Work::Stop(stop.stop.at));
            self.events.push(Event::MachineStopped(true));
            (self.skipping.own, self.skipping.durable) = (Some(stop), true);
        }
        self.tell_machine_of_skips();
        self
    }

    /// Before which entry this node's machine has stopped, and why.
    pub(crate) fn machine_stop(&self) -> Option<&KeptStop> {
        self.skipping.own.as_ref()
    }

    /// Before which entries the machines of members have stopped, as far as they have said so to this node.
    pub(crate) fn stopped_machines(&self) -> impl Iterator<Item = (Peer, LogId)> {
        self.skipping.reported.iter().map(|(peer, stop)| (*peer, stop.at))
    }

    /// What leaders are told of this node's machine, once it is durable.
    pub(crate) fn own_stop(&self) -> Option<MachineStop> {
        self.skipping.own.as_ref().filter(|_| self.skipping.durable).map(|own| own.stop)
    }

    /// Why the machine answers no reads.
    pub(crate) fn unread(&self) -> Option<ReadError> {
        let own = self.skipping.own.as_ref().filter(|_| !self.raft().broken().is("stopped-machine-answers"));
        let stopped = own.map(|own| ReadError::MachineStopped(own.stop.at));
        self.fenced.map(|_| ReadError::Diverged).or(stopped)
    }

    /// Why no snapshot is taken of it.
    pub(crate) fn unsaved(&self) -> Option<SnapshotError> {
        let stopped = self.skipping.own.as_ref().map(|own| SnapshotError::MachineStopped(own.stop.at));
        self.fenced.map(|_| SnapshotError::Diverged).or(stopped)
    }

    /// Why this node takes no commands, if it leads.
    pub(crate) fn unwritten(&self) -> Option<WriteError> {
        let own = self.skipping.own.as_ref().filter(|_| self.raft().is_leader());
        own.map(|own| WriteError::MachineStopped(own.stop.at))
    }

    /// The machine cannot apply this entry.
    pub(crate) fn on_machine_stopped(&mut self, at: LogId, why: String) {
        if self.skipping.own.is_some() || self.fenced.is_some() {
            return;
        }
        let stop = MachineStop { at, after: self.retried(at, self.raft().commit()) };
        let stop = KeptStop { stop, why };
        if !self.raft().broken().is("stop-not-durable") {
            self.actions.orders.push(Order::Stop(Some(stop.clone())));
        }
        self.events.push(Event::MachineStopped(true));
        let untrue = self.raft().broken().is("stop-not-durable");
        (self.skipping.own, self.skipping.durable) = (Some(stop), untrue);
        self.skipping.failed = true;
    }

    /// The machine has applied an entry that the cluster skips.
    pub(crate) fn on_machine_passed(&mut self, at: LogId) {
        self.give_up_machine(at.index);
    }

    /// The identity says this of the machine.
    pub(crate) fn on_stop_kept(&mut self, stop: Option<MachineStop>) {
        let own = self.skipping.own.as_ref().map(|own| own.stop);
        self.skipping.durable = own.is_some() && own == stop;
    }

    /// A member says how its machine stands.
    pub(crate) fn on_stop_reported(&mut self, of: Peer, stop: Option<MachineStop>) {
        match stop {
            Some(stop) if self.raft().membership().contains(of) => {
                self.skipping.reported.insert(of, stop);
            }
            _ => drop(self.skipping.reported.remove(&of)),
        }
    }

    /// A caller, under this name, wants this ruled.
    pub(crate) fn on_rule(&mut self, caller: u64, ruling: Ruling) {
        self.skipping.asked.push((caller, ruling));
    }

    /// Before rulings go to the log for the first time, the identity says that there may be some.
    pub(crate) fn mark_rulings(&mut self) {
        if !self.skipping.rules && !self.replica.rulings().is_empty() {
            self.skipping.rules = true;
            self.actions.orders.push(Order::Rules);
        }
    }

    /// The rulings that the log holds, in their order.
    fn ruled(&self) -> impl DoubleEndedIterator<Item = (Index, Ruling)> {
        self.replica.rulings().iter().map(|(at, ruling)| (*at, *ruling))
    }

    /// The machine must know before it comes to such an entry.
    pub(crate) fn tell_machine_of_skips(&mut self) {
        if self.replica.rulings().is_empty() && self.skipping.told.is_empty() {
            return;
        }
        let broken = self.raft().broken();
        let commit = if broken.is("skip-not-committed") { Index::LIMIT } else { self.raft().commit() };
        let mut skips = rulings::skips(self.ruled(), commit);
        if broken.is("skips-next-entry") {
            skips = skips.into_iter().map(|(id, at)| (LogId { index: id.index.next(), ..id }, at)).collect();
        }
        if skips != self.skipping.told {
            self.actions.work.push(Work::Skips(skips.clone()));
            self.skipping.told = skips;
        }
    }

    /// What the newest snapshot says was ruled up to it.
    fn ruled_before(&self) -> (LogId, Rulings) {
        let newest = self.snapshots.newest_meta();
        let rulings = newest.and_then(|meta| Rulings::decode(&meta.rulings)).unwrap_or_default();
        (newest.map_or(LogId::ZERO, |meta| meta.id), rulings)
    }

    /// Where it was ruled last, up to there, that this entry is tried again; 0 if never.
    fn retried(&self, entry: LogId, upto: Index) -> Index {
        let retry = Ruling { entry, verdict: Verdict::Retry };
        let in_log = self.ruled().rev().find(|(at, ruling)| *at <= upto && *ruling == retry);
        let before = self.ruled_before().1.retried(entry).unwrap_or(Index::ZERO);
        in_log.map_or(before, |(at, _)| at.max(before))
    }

    /// Does what rulings say, and puts into the log those that are asked for.
    pub(crate) fn look_after_rulings(&mut self, now: Moment) {
        self.tell_machine_of_skips();
        self.look_at_own_stop(now);
        for (caller, ruling) in std::mem::take(&mut self.skipping.asked) {
            match self.may_rule(ruling) {
                Ok(()) => self.replica.on_event(now, Event::Rule(caller, ruling)),
                Err(error) => self.actions.ruled.push((caller, Err(error))),
            }
        }
        self.answer_rulers();
        self.step_aside();
    }

    /// The machine goes on once it is ruled how.
    fn look_at_own_stop(&mut self, now: Moment) {
        let Some(own) = self.skipping.own.clone().filter(|_| self.fenced.is_none()) else { return };
        let (at, raft) = (own.stop.at, self.raft());
        let (base, before) = self.ruled_before();
        let skipped = before.skips(at) || self.skipping.told.get(&at).is_some_and(Option::is_some);
        let retried = self.retried(at, raft.commit()) > own.stop.after;
        // What is being installed is not in the log yet.
        if !(skipped || retried) || raft.is_installing() {
            return;
        }
        if skipped && base.index >= at.index && !before.skips(at) {
            // What it was sent was made by a machine that has applied the entry.
            return self.give_up_machine(at.index);
        }
        (self.skipping.own, self.skipping.durable) = (None, false);
        self.actions.orders.push(Order::Stop(None));
        self.actions.work.push(Work::Resume);
        self.replica.on_event(now, Event::MachineStopped(false));
        // One that has not tried it in this boot is where it was, unless a newer state came meanwhile.
        let keeps = !self.skipping.failed || self.raft().broken().is("failed-state-kept");
        if keeps && base.index <= self.machine.applied.index {
            self.replica.on_event(now, Event::FeedFrom(self.machine.applied.index));
        } else {
            self.replica.on_event(now, Event::Rewind(base));
        }
        self.skipping.failed = false;
        self.catch_up_again();
    }

    /// Whether this may be put into the log now.
    fn may_rule(&self, ruling: Ruling) -> Result<(), RulingError> {
        let (raft, entry) = (self.raft(), ruling.entry);
        if !raft.is_leader() {
            let other = self.leader().filter(|leader| leader.id != raft.me().id);
            return Err(other.map_or(RulingError::NoLeader, |leader| RulingError::NotLeader { leader }));
        }
        // It does not know yet all that was committed before its term.
        if raft.term_at(raft.commit()) != Some(raft.term()) {
            return Err(RulingError::Busy);
        }
        // Others may have passed it long ago, so that it is gone from this log.
        let gone = ruling.verdict == Verdict::Retry && entry.index <= raft.status().purged.index;
        if entry.index > raft.commit() || !gone && raft.term_at(entry.index) != Some(entry.term) {
            return Err(RulingError::NoEntry(entry));
        }
        let (_, before) = self.ruled_before();
        if before.skips(entry) || self.skipping.told.contains_key(&entry) {
            return Err(RulingError::Skipped(entry));
        }
        if !self.all_know(Kind::Ruling.level()) {
            return Err(RulingError::Unsupported);
        }
        if before.len() + self.replica.rulings().len() >= MOST {
            return Err(RulingError::TooMany);
        }
        if raft.holds_proposals() || self.no_space().is_some() {
            return Err(RulingError::Busy);
        }
        let members = self.not_stopped_before(ruling);
        if members.is_empty() { Ok(()) } else { Err(RulingError::NotStopped { entry, members }) }
    }

    /// Which members stand in the way of a ruling. A report from before the newest ruling to try the entry again, committed
    /// or not, binds nobody any more.
    fn not_stopped_before(&self, ruling: Ruling) -> Vec<NodeId> {
        let (raft, broken) = (self.raft(), self.raft().broken());
        let since = self.retried(ruling.entry, Index::LIMIT);
        let stopped = |peer: Peer| {
            let own = if peer == raft.me() { self.own_stop() } else { None };
            let stop = own.or_else(|| self.skipping.reported.get(&peer).copied());
            stop.is_some_and(|stop| stop.at == ruling.entry && stop.after >= since)
        };
        let peers: Vec<Peer> = raft.membership().members.values().map(Member::peer).collect();
        let enough = match ruling.verdict {
            // It frees whoever has stopped, and nobody else knows of it.
            Verdict::Retry => peers.iter().any(|peer| stopped(*peer)),
            Verdict::Skip if broken.is("skip-by-majority") => {
                raft.membership().reached(|peer| u8::from(stopped(peer))) == 1
            }
            Verdict::Skip => false,
        };
        peers.into_iter().filter(|peer| !enough && !stopped(*peer)).map(|peer| peer.id).collect()
    }

    /// The core took rulings into the log, or did not.
    pub(crate) fn on_ruled(&mut self, ruled: Vec<(u64, Option<LogId>)>) {
        for (caller, at) in ruled {
            match at {
                Some(at) => self.skipping.waiting.push((caller, at)),
                None => self.actions.ruled.push((caller, Err(RulingError::Busy))),
            }
        }
    }

    /// Answers those whose ruling is committed, or of which nobody here can tell.
    fn answer_rulers(&mut self) {
        for (caller, at) in std::mem::take(&mut self.skipping.waiting) {
            let raft = self.raft();
            let ours = raft.term_at(at.index).is_none_or(|term| term == at.term);
            if raft.commit() >= at.index && ours {
                self.actions.ruled.push((caller, Ok(at)));
            } else if raft.is_leader() && ours {
                self.skipping.waiting.push((caller, at));
            } else {
                self.actions.ruled.push((caller, Err(RulingError::Unknown)));
            }
        }
    }

    /// A leader whose machine has stopped hands over to a voter whose machine has passed the entry.
    fn step_aside(&mut self) {
        let raft = self.raft();
        let Some(own) = self.own_stop().filter(|_| raft.is_leader()) else { return };
        if !self.ticks.is_multiple_of(HAND_OVER) || raft.transferring_to().is_some() {
            return;
        }
        let membership = raft.membership();
        let passed = raft.status().peers.into_iter().filter(|peer| {
            let this = Peer { id: peer.id, incarnation: peer.incarnation };
            let votes = membership.voters.contains(&peer.id) && membership.is_voter(this);
            votes && peer.applied >= own.at.index && !self.skipping.reported.contains_key(&this)
        });
        if let Some(to) = passed.max_by_key(|peer| peer.matched).map(|peer| peer.id) {
            self.events.push(Event::Transfer(OWN, Some(to)));
        }
    }

    /// Whoever lacks a ruling that this leader's log holds is not told that the entry is committed which it is about: it
    /// would apply that.
    pub(crate) fn hold_back_commit(&self, append: &mut AppendEntries, entries: usize) {
        let has = Index(append.prev.index.0 + entries as u64);
        if let Some(entry) = self.first_skipped_unknown_at(has) {
            append.commit = append.commit.min(entry.prev());
        }
    }

    /// Nor is it told by the answer to a read, which is refused until it has the ruling.
    pub(crate) fn hold_back_read(&self, to: Peer, reply: &mut ReadIndexReply) {
        let saved = self.snapshots.newest_meta().is_some_and(|meta| !meta.rulings.is_empty());
        if self.replica.rulings().is_empty() && !saved {
            return;
        }
        let peers = self.raft().status().peers;
        let peer = peers.iter().find(|peer| (peer.id, peer.incarnation) == (to.id, to.incarnation));
        let unknown = self.first_skipped_unknown_at(peer.map_or(Index::ZERO, |peer| peer.matched));
        reply.index = reply.index.filter(|index| unknown.is_none_or(|entry| *index < entry));
    }

    /// The first entry that is skipped by a ruling which a log that ends there does not hold. What this log has purged is in the
    /// snapshot, and whoever has not got as far may have the entry and not the ruling.
    fn first_skipped_unknown_at(&self, has: Index) -> Option<Index> {
        // All that it says stands at or before its end, so this costs nothing for those who have come so far.
        let newest = self.snapshots.newest_meta().filter(|meta| meta.id.index > has);
        let saved = newest.and_then(|meta| Rulings::decode(&meta.rulings)).unwrap_or_default();
        let all = self.ruled().chain(saved.iter());
        let unknown = all.filter(|(at, ruling)| ruling.verdict == Verdict::Skip && *at > has);
        unknown.map(|(_, ruling)| ruling.entry.index).min()
    }
}
