//! The simulator: whole clusters of the production code in one thread, from one seed.
//!
//! Everything but sockets and threads is the code that runs in production: replica, applier, write-ahead
//! log with its writer queue, wire bytes. Disk, network, clock and chance are simulated, so a run is decided
//! by its seed alone, and thousands of runs take a minute. After every step a judge that no fault
//! touches compares what the nodes say with what really happened.

mod clients;
mod dice;
mod ghost;
pub mod history;
mod host;
mod machine;
#[cfg(feature = "mutants")]
mod mutants;
mod plan;
mod world;

pub use ghost::Violation;
#[cfg(feature = "mutants")]
pub use mutants::{MUTANTS, Mutant};
use std::collections::BTreeMap;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How many nodes; drawn from the seed if not given.
    pub nodes: Option<usize>,
    /// How many steps with faults, before everything heals. A step is a message, a disk completion, a
    /// client call or a fault that a node handles, or a tick that changes a role or sends something.
    pub steps: u64,
    /// The rule that the simulated code breaks, by its name in [`MUTANTS`].
    #[cfg(feature = "mutants")]
    pub mutant: Option<&'static str>,
}

impl Options {
    /// A run of 2,000 steps from this seed.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            nodes: None,
            steps: 2000,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed that replays it.
    pub seed: u64,
    /// Steps taken, the healing included.
    pub steps: u64,
    /// Messages sent.
    pub messages: u64,
    /// Entries committed.
    pub committed: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Simulated time.
    pub sim_millis: u64,
    /// A hash over everything that happened: equal for equal seeds, on every machine.
    pub trace_hash: u64,
    /// How often each rare thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The invariant that was broken, if one was.
    pub violation: Option<Violation>,
}

impl Report {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// Runs one simulation.
pub fn run(options: Options) -> Report {
    world::World::new(options).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_seeds_hold() {
        let (mut steps, mut committed, mut operations) = (0, 0, 0);
        let mut counts = BTreeMap::new();
        for seed in 0..std::env::var("SEEDS").map_or(100, |n| n.parse().unwrap()) {
            let report = run(Options::new(seed));
            assert_eq!(report.violation, None, "seed {seed}");
            steps += report.steps;
            committed += report.committed;
            operations += report.operations;
            for (what, times) in report.counts {
                *counts.entry(what).or_insert(0) += times;
            }
        }
        println!("{steps} steps, {committed} committed, {operations} operations: {counts:#?}");
    }
}
