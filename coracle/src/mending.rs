//! A machine that was given up is rebuilt from another member's, as the driver acts on it (D5.1.14).
//!
//! The node asks its leader for a snapshot from after everything that its own machine has done, and after every snapshot that
//! it keeps. Its log lacks nothing, and stays: what it has acknowledged it keeps, and it votes and stores all along. The
//! snapshot comes and is made durable as any other. Then the older ones are removed, the machine takes the state, and only
//! then the identity says that it is used again. A crash before that leaves a machine that is not used; one after that finds
//! the snapshot of another node's machine as the newest, and no other.

use crate::driver::Driver;
use crate::entry::Kind;
use crate::given_up::{PAUSE_AT_MOST, RebuildError, Step};
use crate::replica::{Event, Moment};
use crate::snapshots::FileOrder;
use crate::status::Rebuilding;
use crate::work::{Order, Waits, Work};
use coracle_core::{Index, LogId, Peer};
use std::mem;

/// How often a leader that has nothing newer than what is wanted writes an entry, so that there will be something, in ticks.
const GO_ON: u64 = 50;

impl<W: Waits, R: Waits> Driver<W, R> {
    /// Has the machine given up, if it is not yet, and rebuilt.
    pub(crate) fn rebuild(&mut self) -> Result<(), RebuildError> {
        let raft = self.raft();
        let members = raft.membership();
        if members.is_empty() {
            return Err(RebuildError::NotConfigured);
        }
        if members
            .members
            .values()
            .all(|member| member.id == raft.me().id || !members.is_voter(member.peer()))
        {
            return Err(RebuildError::Alone);
        }
        if self.fenced.is_none() {
            if let Some(stop) = self.machine_stop() {
                return Err(RebuildError::MachineStopped(stop.stop.at));
            }
            if raft.is_leader() {
                return Err(RebuildError::Leads);
            }
            // As long as there is one, not all can be given up: it never is by this.
            if raft.leader().is_none() {
                return Err(RebuildError::NoLeader);
            }
            self.give_up_machine(self.machine_applied());
        }
        self.mending.asked = true;
        Ok(())
    }

    /// How far the machine has come that is being rebuilt.
    pub(crate) fn rebuilding(&self) -> Option<Rebuilding> {
        match self.mending.step {
            Step::Rests => None,
            Step::Asks(after) => Some(Rebuilding::Asks(after)),
            _ => Some(Rebuilding::Takes),
        }
    }

    /// From after which entry a snapshot is wanted of the leader.
    pub(crate) fn wants(&self) -> Option<Index> {
        match self.mending.step {
            Step::Asks(after) => Some(after),
            _ => None,
        }
    }

    /// A member says whether it wants one.
    pub(crate) fn on_wanted(&mut self, of: Peer, after: Option<Index>) {
        match after {
            Some(after) if self.raft().membership().contains(of) => {
                self.mending.wanted.insert(of, after);
            }
            _ => drop(self.mending.wanted.remove(&of)),
        }
    }

    /// A snapshot is here, durable and verified.
    pub(crate) fn on_state_here(&mut self, snapshot: LogId) {
        if matches!(self.mending.step, Step::Asks(after) if snapshot.index > after) {
            self.mending.step = Step::Here;
        }
    }

    /// All snapshots but the newest are gone for good.
    pub(crate) fn on_cleared(&mut self) {
        if self.mending.step == Step::Clears {
            self.mending.step = Step::Cleared;
        }
    }

    /// The machine has said from which snapshot it was rebuilt last.
    pub(crate) fn on_machine_mended(&mut self, mended: Option<LogId>) {
        let Step::Takes(snapshot) = self.mending.step else { return };
        if mended == Some(snapshot) {
            self.mending.step = Step::Lifts(snapshot);
            if self.raft().broken().is("fence-lift-not-durable") {
                return self.on_mended();
            }
            self.actions.orders.push(Order::Mended);
        }
    }

    /// The identity says that the machine is used again.
    pub(crate) fn on_mended(&mut self) {
        let Step::Lifts(snapshot) = self.mending.step else { return };
        let (me, broken) = (self.raft().me(), self.raft().broken());
        (self.mending.step, self.mending.asked, self.fenced) = (Step::Rests, false, None);
        self.digests.begin_anew(me);
        let stays = broken.is("fence-lifted-before-restore") || broken.is("rebuilt-from-own-snapshot");
        self.events.push(Event::Mended(if stays { self.machine_applied() } else { snapshot.index }));
        if let Some(stop) = self.machine_stop() {
            // It is ruled what becomes of that, or it is still to be.
            self.actions.work.push(Work::Stop(stop.stop.at));
        }
        self.catch_up_again();
    }

    /// Has this node's machine rebuilt, and at a leader those of others.
    pub(crate) fn look_after_mending(&mut self, now: Moment) {
        self.look_after_wanted(now);
        if self.fenced.is_none() {
            return;
        }
        match self.mending.step {
            Step::Rests => self.begin_rebuilding(now),
            // One of its own that is still being written comes before it.
            Step::Here if !self.snapshots.is_taking() => {
                self.mending.step = Step::Clears;
                self.actions.files.push(FileOrder::Clear);
            }
            Step::Cleared => {
                let Some(newest) = self.snapshots.newest_meta().map(|meta| meta.id) else { return };
                let raft = self.raft();
                let durable = raft.commit().min(raft.persisted()) >= newest.index;
                if durable && !raft.is_installing() {
                    self.mending.step = Step::Takes(newest);
                    self.actions.work.push(Work::Mend(newest));
                    self.replica.on_event(now, Event::WantState(None));
                }
            }
            _ => {}
        }
    }

    /// What is asked for is newer than all that the machine has done or may yet do, and than every snapshot that is kept: so
    /// nothing is taken of its own, and the newest is right.
    fn begin_rebuilding(&mut self, now: Moment) {
        let by_itself = self.mending.by_itself && self.ticks >= self.mending.not_before;
        let Some(at) = self.fenced.filter(|_| by_itself || self.mending.asked) else { return };
        self.mending.not_before = self.ticks + self.mending.pause;
        self.mending.pause = (2 * self.mending.pause).min(PAUSE_AT_MOST);
        let broken = self.raft().broken();
        if broken.is("fence-lifted-too-early-on-disk") {
            self.actions.orders.push(Order::Mended);
        }
        if broken.is("rebuilt-from-own-snapshot") && self.snapshots.newest_meta().is_some() {
            self.mending.step = Step::Cleared;
            return;
        }
        let newest = self.snapshots.newest_meta().map_or(Index::ZERO, |meta| meta.id.index);
        let mut after = at.max(self.machine_applied()).max(self.replica.fed()).max(newest);
        if broken.is("rebuilt-from-older-snapshot") {
            after = Index::ZERO;
        }
        self.mending.step = Step::Asks(after);
        self.replica.on_event(now, Event::WantState(Some(after)));
    }

    /// A leader whose machine is in order has a snapshot that is new enough for all who want one.
    fn look_after_wanted(&mut self, now: Moment) {
        if !self.raft().is_leader() {
            return self.mending.wanted.clear();
        }
        let mut wanted = mem::take(&mut self.mending.wanted);
        wanted.retain(|peer, _| self.raft().membership().contains(*peer));
        // What lies ahead of this node is not there yet, or made up.
        let newest = wanted.values().filter(|after| **after <= self.raft().commit()).max().copied();
        self.mending.wanted = wanted;
        let Some(after) = newest else { return };
        let me = self.raft().me().id;
        if self.snapshots.newest().is_some_and(|newest| newest.last.index > after)
            || self.unsaved().is_some()
            || self.digests.diverged().contains_key(&me)
        {
            return;
        }
        if self.machine_applied() > after {
            return self.snapshots.want(after.next());
        }
        let may =
            self.no_space().is_none() && !self.raft().holds_proposals() && self.all_know(Kind::Timer.level());
        // (One by which no timer fires.)
        if may && self.raft().last().index <= after && self.ticks.is_multiple_of(GO_ON) {
            self.replica.on_event(now, Event::Fire);
        }
    }

    /// Who is sent a snapshot, as far as the newest will do.
    pub(crate) fn wanting(&self) -> Vec<Peer> {
        let mut wanting: Vec<Peer> = self.raft().needs_snapshot();
        let newest = self.snapshots.newest().map_or(Index::ZERO, |newest| newest.last.index);
        let others =
            self.mending.wanted().iter().filter(|(_, after)| newest > **after).map(|(peer, _)| *peer);
        let others: Vec<Peer> = others.filter(|peer| !wanting.contains(peer)).collect();
        wanting.extend(others);
        wanting
    }
}
