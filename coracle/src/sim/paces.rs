//! How long things take on average, so that what is only slow is seen, too.
//!
//! A liveness invariant says that something happens at last, with room for the worst of luck. The mean over
//! a campaign has little of that: it hardly moves from one campaign to the next, and much where a
//! timer is wrong, a message is lost for good or a follower is brought up entry by entry.

use super::Report;

/// What is measured: its name, its mean at most, and its meaning. Two campaigns of 2,000 seeds differ by two in a
/// hundred; the bounds are ten to twenty in a hundred above what they measured.
pub const PACES: &[(&str, u64, &str)] = &[
    ("leaderless", 590, "of 1,000 ticks of living members in the time of faults, those that know no leader"),
    ("leader", 165, "ms from the end of all faults to a leader that all follow"),
    ("write", 60, "ms from the last answer to old requests to a new write acknowledged"),
    ("equal", 420, "ms from then to equal machines everywhere"),
    ("besieged", 370, "ms to a commit in a partition that leaves a quorum"),
    ("elections", 500, "of 1,000 runs, terms from the end of all faults to that of the run"),
];

/// One of [`PACES`], as it was measured.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How often.
    pub times: u64,
    /// All together.
    pub sum: u64,
}

impl Pace {
    /// The mean, rounded down; 0 of nothing.
    pub fn mean(self) -> u64 {
        self.sum.checked_div(self.times).unwrap_or(0)
    }
}

impl Report {
    pub(super) fn pace(&mut self, name: &'static str, times: u64, sum: u64) {
        let pace = self.paces.entry(name).or_default();
        pace.times += times;
        pace.sum += sum;
    }
}
