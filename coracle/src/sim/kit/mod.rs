//! The kit for machines of one's own: a [`StateMachine`](crate::StateMachine) in simulated clusters, under every fault.
//!
//! [`simulate`] takes a machine, its clients and what is to be checked, and runs them on the production code of this
//! library: each seed is a cluster of its own, with crashes, losses of power, partitions, slow disks, snapshots that
//! are taken and installed, and messages that are lost, late or doubled. A machine that breaks a [rule](RULES) is a
//! [`Failure`], which names the seed and the entry, and the fewest calls that show it.
//! [`testing_your_machine`](crate::testing_your_machine) is the guide.
//!
//! A run follows from its seed alone as far as the machine and its clients do. One that iterates a `HashMap` does not, and
//! may take another seed to be caught the next time.

mod again;
mod calls;
mod checks;
mod failure;
mod small;
mod typed;

pub use calls::{Client, Draw, HistoryOf, Input, InputOf, Output, OutputOf, Shown, Told};
pub use checks::Checks;
pub use failure::{Failure, RULES};

use self::again::Again;
use self::small::smallest;
use self::typed::Typed;
use super::guest::{Guests, Program, Step};
use super::shrink::shrink_with;
use super::world::World;
use super::{Options, Report, live};
use std::any::type_name;
use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

/// Seeds that are tried unless others are named.
const SEEDS: Range<u64> = 0..50;

/// Runs that a failure of the cluster is shrunk by, unless another number is named.
const SHRINKING: usize = 400;

/// What shows by chance gets so many chances to.
const CHANCES: usize = 3;

/// Simulates clusters of this machine with these clients, and checks what [`Checks`] say. `machine` makes a machine as it is
/// before the first command, and `client` the client with this number. Nothing happens before [`run`](Simulation::run).
///
/// ```
/// # use coracle::snapshot::{self, Save};
/// # use coracle::{Context, QueryContext, StateMachine};
/// # use std::io;
/// # #[derive(Clone, Default)]
/// # struct Counter(u64);
/// # impl StateMachine for Counter {
/// #     type Command = u64;
/// #     type Reply = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     fn apply(&mut self, _: &mut Context, by: u64) -> u64 { self.0 += by; self.0 }
/// #     fn query(&self, _: &QueryContext, (): ()) -> u64 { self.0 }
/// #     fn snapshot(&self) -> impl Save { snapshot::save(self.0) }
/// #     fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
/// #         snapshot::load(from).map(|saved| self.0 = saved)
/// #     }
/// # }
/// use coracle::sim::kit::{Checks, Draw, Input, simulate};
///
/// let client = |_| |draw: &mut Draw<'_>| match draw.below(3) {
///     0 => Input::Query(()),
///     _ => Input::Command(draw.below(10)),
/// };
/// let passed = simulate(Counter::default, client, Checks::new().state(())).seeds(0..5).run().unwrap();
/// assert!(passed.commands > 100);
/// ```
#[track_caller]
pub fn simulate<S: Shown, C: Client<S> + 'static>(
    machine: impl Fn() -> S + Send + Sync + 'static,
    client: impl Fn(u64) -> C + Send + Sync + 'static,
    mut checks: Checks<S>,
) -> Simulation {
    let again = checks.again.take();
    let site = format!("{} of {}", Location::caller(), type_name::<S>());
    let client = Box::new(move |number| Box::new(client(number)) as Box<dyn Client<S>>);
    let program = Arc::new(Typed { machine: Box::new(machine), client, checks });
    Simulation { program, seeds: SEEDS, steps: None, nodes: None, shrinking: SHRINKING, again, site }
}

/// What is to be simulated.
#[must_use = "nothing happens before it is run"]
pub struct Simulation {
    program: Arc<dyn Program>,
    seeds: Range<u64>,
    steps: Option<u64>,
    nodes: Option<usize>,
    shrinking: usize,
    again: Option<Vec<String>>,
    /// Where it is called, and for which machine.
    site: String,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// What passed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Passed {
    /// Clusters that were simulated.
    pub seeds: u64,
    /// Steps that they took.
    pub steps: u64,
    /// Commands that took effect.
    pub commands: u64,
    /// Calls that clients began.
    pub calls: u64,
    /// Histories for which the search for an order was too long, which were judged by everything but the model.
    pub undecided: u64,
}

impl Simulation {
    /// One cluster for each of these seeds; 0 to 49 unless said otherwise. A few seconds in a build with optimisation.
    pub fn seeds(self, seeds: Range<u64>) -> Simulation {
        Simulation { seeds, ..self }
    }

    /// How many steps with faults each takes; 2,000 unless said otherwise.
    pub fn steps(self, steps: u64) -> Simulation {
        Simulation { steps: Some(steps), ..self }
    }

    /// How many nodes each has; drawn from the seed unless said otherwise.
    pub fn nodes(self, nodes: usize) -> Simulation {
        Simulation { nodes: Some(nodes), ..self }
    }

    /// How many runs it may take to make a failure small that shows in a cluster only; 400 unless said otherwise.
    pub fn shrinking(self, runs: usize) -> Simulation {
        Simulation { shrinking: runs, ..self }
    }

    /// Runs all of it, up to the first failure.
    ///
    /// # Errors
    /// The [`Failure`], made small.
    pub fn run(self) -> Result<Passed, Box<Failure>> {
        again::answer(&self.site, &*self.program);
        let mut passed = Passed::default();
        let mut again = Again::new();
        for seed in self.seeds.clone() {
            let (report, guests) = self.simulate(self.options(seed));
            if report.violation.is_some() {
                return Err(Box::new(self.failure(seed, report, &guests)));
            }
            let log = guests.with(|record| record.commands());
            passed.seeds += 1;
            passed.steps += report.steps;
            passed.commands += log.len() as u64;
            passed.calls += report.operations;
            passed.undecided += u64::from(report.undecided);
            again.keep(seed, log);
        }
        if passed.commands == 0 {
            let detail = format!("{} clusters were simulated", passed.seeds);
            return Err(Box::new(Failure::new(self.seeds.start, "idle", detail)));
        }
        match &self.again {
            None => Ok(passed),
            Some(arguments) => again.ask(&self.site, arguments, &self.program).map(|()| passed),
        }
    }

    fn options(&self, seed: u64) -> Options {
        let options = Options { nodes: self.nodes, ..Options::new(seed) };
        Options { steps: self.steps.unwrap_or(options.steps), ..options }
    }

    fn simulate(&self, options: Options) -> (Report, Guests) {
        let guests = Guests::of(self.program.clone());
        let report = live(options.seed, || World::new(options).hosting(&guests));
        (report, guests)
    }

    /// The failure that a run showed, made small.
    fn failure(&self, seed: u64, report: Report, guests: &Guests) -> Failure {
        let Some(violation) = report.violation else { return Failure::new(seed, "idle", String::new()) };
        let rule = violation.invariant;
        let failure = Failure::of(seed, violation, guests);
        let steps: Vec<Step> = guests.with(|record| record.steps());
        if let Some(small) = smallest(&self.program, &steps, rule) {
            return failure.made_small(&small, &*self.program);
        }
        // What depends on chance does not always show.
        let run = |options: Options| {
            let mut reports = (0..CHANCES).map(|_| self.simulate(options.clone()).0);
            let last = |report: &Report| report.violation.is_some();
            reports.find(last).unwrap_or_else(|| self.simulate(options.clone()).0)
        };
        let shrunk = shrink_with(&self.options(seed), &run, &mut |it| it.runs < self.shrinking);
        match shrunk {
            Some(shrunk) => failure.told(&shrunk),
            None => failure,
        }
    }
}
