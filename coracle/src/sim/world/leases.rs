//! Leases, as the judge sees them (S32), and the clocks that they trust.

use super::World;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::situations::Rare;
use coracle_core::Term;

impl World {
    /// A node's clock got this rate and jump. Where there are leases it keeps the bound that they count on: it is slower than no
    /// other by more than the drift.
    pub(super) fn within_drift(&self, rate: u64, jump: u64) -> (u64, u64) {
        if self.plan.lease == 0 || self.runs_past_bound() {
            return (rate, jump);
        }
        (1000 - rate * self.plan.drift / 2000, 0)
    }

    /// The rate of a clock beside others of rate 1,000, as slow as it may be.
    pub(super) fn slowest(&self) -> u64 {
        let keeps = 1000 - self.plan.drift;
        if self.runs_past_bound() { keeps / 3 } else { keeps }
    }

    /// Whether clocks run past that bound: then no promise is worth anything.
    fn runs_past_bound(&self) -> bool {
        self.hosts.iter().any(|host| host.broken.is("clock-beyond-bound"))
    }

    /// While a leader would answer reads by its lease, nobody leads a later term.
    pub(super) fn watch_leases(&mut self, node: usize) -> Verdict {
        if self.plan.lease == 0 || self.runs_past_bound() {
            return Ok(());
        }
        let Some((term, left)) = self.office(node) else { return Ok(()) };
        self.met.count_if(left > 0, Rare::Leased);
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            let Some((theirs, rest)) = self.office(other) else { continue };
            let (older, lease) = if theirs < term { (other, rest) } else { (node, left) };
            self.met.count_if(lease == 0, Rare::LeaseOver);
            if lease > 0 {
                let (old, new) = (theirs.min(term), theirs.max(term));
                let detail = format!(
                    "node {} of term {old} would answer reads for {lease} ticks, and term {new} has a leader",
                    older + 1
                );
                return broken("S32", detail);
            }
        }
        Ok(())
    }

    /// The term that a node leads, and how much is left of its lease by its own clock.
    pub(super) fn office(&self, node: usize) -> Option<(Term, u64)> {
        let host = &self.hosts[node];
        let raft = host.up.as_ref()?.raft();
        let now = host.clock.moment(self.now).tick;
        raft.is_leader().then(|| (raft.term(), raft.lease_left_at(now)))
    }
}
