//! The simulator: whole clusters of the production code in one thread, from one seed.
//!
//! Everything but sockets and threads is the code that runs in production: replica, applier, write-ahead
//! log with its writer queue, wire bytes. Disk, network, clock and chance are simulated, so a run is decided
//! by its seed alone, and thousands of runs take a minute on each core. After every step a judge that no fault
//! touches compares what the nodes say with what really happened.

mod campaign;
mod chance;
mod clients;
mod clock;
mod cores;
pub mod counting;
mod dice;
mod fresh;
mod ghost;
mod guest;
pub mod history;
mod host;
pub mod kit;
mod machine;
mod names;
mod paces;
mod plan;
mod shrink;
mod situations;
mod story;
mod witness;
mod world;

#[cfg(feature = "mutants")]
pub use crate::mutants::{MUTANTS, Mutant};
pub use campaign::{COMMIT_FLOOR, Campaign, ENOUGH};
pub use chance::{Decision, Kind};
pub use cores::{cores, on_cores};
pub use ghost::Violation;
pub use paces::{PACES, Pace};
pub use shrink::{Shrinking, Shrunk, shrink};
pub use situations::SITUATIONS;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
    /// If given, nothing goes wrong and nothing is asked but this: a run that was [shrunk](shrink).
    pub only: Option<Vec<Decision>>,
    /// Whether to tell in the report all that was decided.
    pub remember: bool,
    /// Whether to tell in the report all that happened, a line each.
    pub story: bool,
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
            only: None,
            remember: false,
            story: false,
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
    /// A hash over everything that happened: equal for equal seeds, on every computer.
    pub trace_hash: u64,
    /// How often each of the [situations](SITUATIONS) came up.
    pub counts: BTreeMap<&'static str, u64>,
    /// How often each [kind](Kind) of fault, and of all else that is decided by chance, happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long things took: each of [`PACES`] that came up.
    pub paces: BTreeMap<&'static str, Pace>,
    /// What was decided, in order, if it was to be remembered.
    pub decisions: Vec<Decision>,
    /// What happened, if it was to be told.
    pub story: Vec<String>,
    /// Whether the history of the clients was too hard to judge. All other checks were made.
    pub undecided: bool,
    /// The invariant that was broken, if one was.
    pub violation: Option<Violation>,
}

/// Runs one simulation. If the simulated code panics, that is the violation; then the report has nothing else.
pub fn run(options: Options) -> Report {
    live(options.seed, || world::World::new(options))
}

/// Has a world live to its end.
fn live(seed: u64, world: impl FnOnce() -> world::World) -> Report {
    catch_unwind(AssertUnwindSafe(|| world().run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let detail = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned();
        let violation = Some(Violation { invariant: "panic", detail });
        Report { seed, violation, ..Report::default() }
    })
}
