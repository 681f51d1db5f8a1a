//! What a leader does by itself: it takes office, and has those [timers](crate::timers) fire that are due.

use crate::driver::Driver;
use crate::entry::Kind;
use crate::replica::{Event, Moment};
use crate::work::Waits;
use coracle_core::{Member, Term};

impl<W: Waits, R: Waits> Driver<W, R> {
    /// The term in which this node is in office: it leads, and its machine has applied an entry of that term, and so all
    /// that was decided before.
    pub(crate) fn office(&self) -> Option<Term> {
        let (raft, term) = (self.raft(), self.raft().term());
        let applied = raft.term_at(self.machine_applied()) == Some(term);
        (raft.is_leader() && (applied || raft.broken().is("effects-before-office"))).then_some(term)
    }

    /// Writes an entry by which timers fire, if this node leads, the first timer of its machine is due, and no such entry is
    /// under way. Its machine must have come as far as this office, or it would not know what the one before had fire.
    ///
    /// At a tick, so that a machine that always sets another timer which is due writes no more than one entry for each.
    pub(crate) fn fire(&mut self, now: Moment) {
        let (raft, applied) = (self.raft(), self.machine.applied);
        let Some((due, by)) = self.machine.due.filter(|_| raft.is_leader()) else { return };
        let broken = raft.broken();
        let waits = self.no_space().is_some()
            || self.machine_stop().is_some()
            || raft.holds_proposals()
            || applied.term != raft.term()
            || self.replica.fires_after(applied)
            || self.replica.cluster_time(now) < due
            || !self.all_know(Kind::Timer.level())
            || broken.is("timers-wait-for-room") && self.replica.busy().is_some()
            || broken.is("earlier-timers-forgotten") && raft.term_at(by) != Some(raft.term());
        if !waits {
            self.replica.on_event(now, Event::Fire);
        }
    }

    /// Whether all that will ever apply an entry of this level know what it is (D5.5.1).
    pub(crate) fn all_know(&self, level: u16) -> bool {
        let me = self.raft().me();
        let mut members = self.raft().membership().members.values().map(Member::peer);
        self.machine.level >= level || members.all(|member| member == me || self.knowing.has(member, level))
    }
}
