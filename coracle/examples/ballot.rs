//! A ballot whose first version is broken, as the test kit sees at once, and whose second one passes.
//!
//! ```sh
//! cargo run --example ballot --features sim
//! ```
//!
//! Both count votes, and say who is ahead. The first one keeps the votes in a `HashMap`, whose order is another one on each
//! node: of two with equally many votes, each node names whom it comes across first.

use coracle::sim::kit::{Checks, Draw, Failure, Input, Passed, simulate};
use coracle::snapshot::{self, Save};
use coracle::{Context, QueryContext, StateMachine};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, HashMap};
use std::io;

const NAMES: [&str; 4] = ["ann", "bob", "cid", "dora"];

/// The votes, in a map with or without an order.
trait Votes: Default + Clone + Serialize + DeserializeOwned + Send + 'static {
    fn vote(&mut self, name: String);
    fn all(&self) -> impl Iterator<Item = (&String, &u64)>;
}

impl Votes for HashMap<String, u64> {
    fn vote(&mut self, name: String) {
        *self.entry(name).or_default() += 1;
    }

    fn all(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.iter()
    }
}

impl Votes for BTreeMap<String, u64> {
    fn vote(&mut self, name: String) {
        *self.entry(name).or_default() += 1;
    }

    fn all(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.iter()
    }
}

#[derive(Default)]
struct Ballot<V>(V);

#[derive(Debug, Serialize, Deserialize)]
struct Vote(String);

impl<V: Votes> StateMachine for Ballot<V> {
    type Command = Vote;
    type Reply = String;
    type Query = ();
    type Answer = BTreeMap<String, u64>;

    /// Takes a vote, and says who is ahead now.
    fn apply(&mut self, _: &mut Context, Vote(name): Vote) -> String {
        self.0.vote(name);
        let ahead = self.0.all().max_by_key(|(_, votes)| **votes);
        ahead.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn query(&self, _: &QueryContext, (): ()) -> BTreeMap<String, u64> {
        self.0.all().map(|(name, votes)| (name.clone(), *votes)).collect()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|votes| self.0 = votes)
    }
}

fn test<V: Votes>() -> Result<Passed, Box<Failure>> {
    let client = |_| {
        |draw: &mut Draw<'_>| match draw.below(4) {
            0 => Input::Query(()),
            _ => Input::Command(Vote((*draw.pick(&NAMES)).to_owned())),
        }
    };
    simulate(Ballot::<V>::default, client, Checks::new().state(())).seeds(0..10).run()
}

fn main() {
    let failure = test::<HashMap<String, u64>>().expect_err("a machine that is not deterministic is caught");
    println!("{failure}");
    assert_eq!(failure.rule, "determinism");
    let passed = test::<BTreeMap<String, u64>>().expect("the same with a map that has an order is sound");
    println!("With a BTreeMap, {} clusters and {} commands passed.", passed.seeds, passed.commands);
}
