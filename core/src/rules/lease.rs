//! The rules of leases (thesis, section 6.4.1; D5.4.3).

use super::Rules;
use crate::Tick;

impl Rules {
    /// "the leader could use its normal heartbeat mechanism to extend its lease": a follower promises what the heartbeat
    /// asks for, up to its own longest election timeout, so that no mistake of a leader's settings binds it for good.
    pub(crate) fn promise(self, asked: u64, election_max: u64) -> u64 {
        asked.min(election_max)
    }

    /// The longest promise is durable before the first of that length is given, so that a start knows of it.
    pub(crate) fn saves_promise(self, promised: u64, saved: u64) -> bool {
        promised > saved && !self.broken.is("promise-not-saved")
    }

    /// Who has promised campaigns for nobody, itself included, however long it waits for a leader.
    pub(crate) fn waits_for_promises(self, bound: bool) -> bool {
        bound && !self.broken.is("campaigns-within-promise")
    }

    /// It grants no vote and no pre-vote, and so does not even take over the term: a newer one does not shorten the promise.
    pub(crate) fn keeps_promise(self, bound: bool, newer_term: bool) -> bool {
        let ends = newer_term && self.broken.is("promise-ends-with-term");
        bound && !ends && !self.broken.is("votes-within-promise")
    }

    /// Until when a promise counts for the leader: from when the round had *left* that the answer names, since it may
    /// have been received at once; less the drift of clocks, in thousandths; and less two ticks, since neither's clock shows
    /// fractions of one.
    pub(crate) fn lease_until(self, left: Tick, heard: Tick, promised: u64, drift: u64) -> Tick {
        let since = if self.broken.is("lease-from-answer") { heard } else { left };
        let drift = if self.broken.is("lease-ignores-drift") { 0 } else { drift };
        let counted = promised.saturating_mul(1000u64.saturating_sub(drift)) / 1000;
        since.after(counted.saturating_sub(2))
    }

    /// Once it has told another to take over, a leader serves no read by its lease for the rest of its term: its target's
    /// campaign may come late.
    pub(crate) fn may_lease(self, gave_way: bool) -> bool {
        !gave_way || self.broken.is("lease-after-timeout-now")
    }
}
