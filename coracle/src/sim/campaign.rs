//! Many runs together: how much was tried, what came up, and whether it was enough.

use super::paces::{PACES, Pace};
use super::situations::SITUATIONS;
use super::{Report, Violation};
use std::collections::BTreeMap;

/// Seeds from which on a campaign must have met every situation.
pub const ENOUGH: u64 = 2000;

/// A campaign of [`ENOUGH`] seeds meets every situation once in so many of them.
const OFTEN: u64 = 500;

/// Entries that a campaign commits per 1,000 steps at least. Fewer, and the faults leave no cluster to test.
pub const COMMIT_FLOOR: u64 = 15;

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Runs.
    pub seeds: u64,
    /// Their steps.
    pub steps: u64,
    /// Messages sent.
    pub messages: u64,
    /// Entries committed.
    pub committed: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Over the trace hashes of all runs, in their order.
    pub trace_hash: u64,
    /// How often each situation came up; those that never did are there with 0.
    pub counts: BTreeMap<&'static str, u64>,
    /// How often each fault happened, and all else that is decided by chance.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long things took.
    pub paces: BTreeMap<&'static str, Pace>,
    /// Runs whose clients' histories were too hard to judge.
    pub undecided: u64,
    /// The seeds that broke something, and what.
    pub violations: Vec<(u64, Violation)>,
}

impl Campaign {
    /// A campaign without a run.
    pub fn new() -> Campaign {
        let counts = SITUATIONS.iter().map(|(name, _)| (*name, 0)).collect();
        Campaign { counts, ..Campaign::default() }
    }

    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.messages += report.messages;
        self.committed += report.committed;
        self.operations += report.operations;
        let mixed = self.trace_hash.rotate_left(1) ^ report.trace_hash;
        self.trace_hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (what, times) in &report.counts {
            *self.counts.entry(what).or_default() += times;
        }
        for (what, times) in &report.faults {
            *self.faults.entry(what).or_default() += times;
        }
        for (what, pace) in &report.paces {
            let all = self.paces.entry(what).or_default();
            all.times += pace.times;
            all.sum += pace.sum;
        }
        self.undecided += u64::from(report.undecided);
        if let Some(violation) = &report.violation {
            self.violations.push((report.seed, violation.clone()));
        }
    }

    /// Entries committed per 1,000 steps.
    pub fn commits_per_thousand(&self) -> u64 {
        (self.committed * 1000).checked_div(self.steps).unwrap_or(0)
    }

    /// The situations that never came up.
    pub fn never_met(&self) -> Vec<&'static str> {
        let never = SITUATIONS.iter().filter(|(name, _)| self.counts.get(name).is_none_or(|n| *n == 0));
        never.map(|(name, _)| *name).collect()
    }

    /// What is wrong with it: a violation, or that it was too tame for its size. Empty if all is well.
    pub fn verdict(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self
            .violations
            .iter()
            .map(|(seed, violation)| format!("seed {seed} breaks {}", violation.invariant))
            .collect();
        if self.seeds >= ENOUGH {
            let least = self.seeds / OFTEN;
            for (name, _) in SITUATIONS {
                let met = self.counts.get(name).copied().unwrap_or(0);
                if met < least {
                    wrong.push(format!("it happened {met} times, less often than {least}: {name}"));
                }
            }
            for (name, most, meaning) in PACES {
                let mean = self.paces.get(name).map_or(0, |pace| pace.mean());
                if mean > *most {
                    wrong.push(format!("{name} is {mean} on average, more than {most}: {meaning}"));
                }
            }
            let commits = self.commits_per_thousand();
            if commits < COMMIT_FLOOR {
                wrong.push(format!("{commits} commits per 1,000 steps, fewer than {COMMIT_FLOOR}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(seeds: u64, counts: u64, committed: u64) -> Campaign {
        let mut campaign = Campaign::new();
        let counts: BTreeMap<_, _> = SITUATIONS.iter().map(|(name, _)| (*name, counts)).collect();
        for seed in 0..seeds {
            let counts = counts.clone();
            campaign.add(&Report { seed, steps: 1000, committed, counts, ..Report::default() });
        }
        campaign
    }

    #[test]
    fn a_campaign_of_some_size_must_have_met_everything_and_committed_enough() {
        assert_eq!(campaign(ENOUGH, 1, COMMIT_FLOOR).verdict(), Vec::<String>::new());
        let mut rare = campaign(ENOUGH, 1, COMMIT_FLOOR);
        rare.counts.insert(SITUATIONS[0].0, ENOUGH / OFTEN - 1);
        assert_eq!(rare.verdict().len(), 1, "met, but not once in {OFTEN}");
        assert_eq!(campaign(ENOUGH - 1, 0, 0).verdict(), Vec::<String>::new(), "too small to say");
        assert_eq!(campaign(ENOUGH, 0, COMMIT_FLOOR).verdict().len(), SITUATIONS.len());
        let idle = campaign(ENOUGH, 1, COMMIT_FLOOR - 1).verdict();
        assert!(idle.len() == 1 && idle[0].contains("commits per 1,000 steps"), "{idle:?}");
    }

    #[test]
    fn what_is_only_slow_is_a_verdict() {
        let (name, most, _) = PACES[0];
        for (sum, wrong) in [(most * 100, 0), ((most + 1) * 100, 1)] {
            let mut slow = campaign(ENOUGH, 1, COMMIT_FLOOR);
            slow.paces.insert(name, Pace { times: 100, sum });
            assert_eq!(slow.verdict().len(), wrong, "{:?}", slow.verdict());
        }
    }

    #[test]
    fn a_violation_is_a_verdict_at_any_size() {
        let mut campaign = Campaign::new();
        let violation = Some(Violation { invariant: "S1", detail: String::new() });
        campaign.add(&Report { seed: 7, violation, ..Report::default() });
        assert_eq!(campaign.verdict(), ["seed 7 breaks S1"]);
    }
}
