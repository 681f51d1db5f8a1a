//! The kit for machines of one's own catches what is wrong with them, and passes what is sound.

use coracle::sim::history::Model;
use coracle::sim::kit::{Checks, Client, Draw, Failure, Input, Output, Passed, Shown, Told, simulate};
use coracle::snapshot::{self, Save};
use coracle::{Context, Publishes, QueryContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wrong with a bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// The reply comes out of a map without an order.
    HashOrder,
    /// So does something that no reply shows.
    HiddenOrder,
    /// It reads the clock.
    Clock,
    /// It reads the seconds of the clock.
    Seconds,
    /// A snapshot leaves something out that shows later.
    Forgets,
    /// What is restored comes beside what was there.
    Adds,
    /// Whoever was restored leaves everything out of the next snapshot.
    Once,
    /// Money comes from nowhere.
    Mints,
    /// It panics now and then.
    Panics,
    /// An event comes out of a map without an order.
    Events,
    /// A query answers with what was there before.
    Stale,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
enum Order {
    Put(u8, u64),
    Move(u8, u8, u64),
    Close(u8),
}

/// Accounts, and how often anything was done.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Books {
    accounts: BTreeMap<u8, u64>,
    deeds: u64,
    hidden: u64,
    before: BTreeMap<u8, u64>,
}

struct Bank {
    fault: Fault,
    books: Books,
    restored: bool,
}

impl Bank {
    fn with(fault: Fault) -> impl Fn() -> Bank + Send + Sync {
        move || Bank { fault, books: Books::default(), restored: false }
    }

    /// The account that comes first in a map without an order.
    fn any(&self) -> u64 {
        let map: HashMap<u8, u64> = self.books.accounts.clone().into_iter().collect();
        map.keys().next().copied().map_or(0, u64::from)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

impl StateMachine for Bank {
    type Command = Order;
    type Reply = u64;
    type Query = ();
    type Answer = (BTreeMap<u8, u64>, u64);

    const PUBLISHES: Publishes = Publishes::Emitted;

    fn apply(&mut self, context: &mut Context, order: Order) -> u64 {
        let fault = self.fault;
        self.books.before = self.books.accounts.clone();
        let accounts = &mut self.books.accounts;
        self.books.deeds += 1;
        let reply = match order {
            Order::Put(to, sum) => {
                *accounts.entry(to).or_default() += sum;
                accounts[&to]
            }
            Order::Move(from, to, sum) => {
                assert!(fault != Fault::Panics || from != to, "nobody owes himself");
                let has = accounts.entry(from).or_default();
                let sum = sum.min(*has);
                *has -= if fault == Fault::Mints && sum > 5 { sum - 1 } else { sum };
                *accounts.entry(to).or_default() += sum;
                sum
            }
            Order::Close(of) => accounts.remove(&of).unwrap_or(0),
        };
        if fault == Fault::Events {
            context.emit_bytes(vec![self.any() as u8]);
        }
        if fault == Fault::HiddenOrder {
            self.books.hidden = self.any();
        }
        match fault {
            Fault::HashOrder => self.any(),
            Fault::Clock => now().as_nanos() as u64,
            Fault::Seconds => now().as_secs(),
            Fault::Forgets if self.books.deeds.is_multiple_of(7) => 1_000_000,
            _ => reply,
        }
    }

    fn query(&self, _: &QueryContext, (): ()) -> (BTreeMap<u8, u64>, u64) {
        let books = if self.fault == Fault::Stale { &self.books.before } else { &self.books.accounts };
        (books.clone(), self.books.hidden)
    }

    fn snapshot(&self) -> impl Save {
        let mut books = self.books.clone();
        match self.fault {
            Fault::Forgets => books.deeds = 0,
            Fault::Once if self.restored => books = Books::default(),
            _ => {}
        }
        snapshot::save(books)
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let books: Books = snapshot::load(from)?;
        self.restored = true;
        if self.fault == Fault::Adds {
            self.books.accounts.extend(books.accounts);
            self.books = Books { accounts: self.books.accounts.clone(), ..books };
        } else {
            self.books = books;
        }
        Ok(())
    }
}

/// Puts, moves and closes at random.
fn teller(_: u64) -> impl Client<Bank> {
    |draw: &mut Draw<'_>| {
        let (from, to, sum) = (draw.below(4) as u8, draw.below(4) as u8, draw.below(20));
        match draw.below(8) {
            0 | 1 => Input::Query(()),
            2..=4 => Input::Command(Order::Put(to, sum)),
            5 | 6 => Input::Command(Order::Move(from, to, sum)),
            _ => Input::Command(Order::Close(to)),
        }
    }
}

fn caught(fault: Fault, checks: Checks<Bank>) -> Failure {
    let failure = *simulate(Bank::with(fault), teller, checks).seeds(0..20).run().unwrap_err();
    println!("{failure}");
    failure
}

/// The bank as it should be.
struct Sound;

impl Model for Sound {
    type State = BTreeMap<u8, u64>;
    type Input = Input<Order, ()>;
    type Output = Output<u64, (BTreeMap<u8, u64>, u64)>;

    fn start(&self) -> BTreeMap<u8, u64> {
        BTreeMap::new()
    }

    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State> {
        let Input::Command(order) = input else {
            let fits = output.is_none_or(|output| *output == Output::Answer((state.clone(), 0)));
            return fits.then(|| state.clone());
        };
        let mut bank = Bank::with(Fault::None)();
        bank.books.accounts = state.clone();
        let reply = bank.apply(&mut Context::new(Default::default(), 0, 0), order.clone());
        let fits = output.is_none_or(|output| *output == Output::Reply(reply));
        fits.then_some(bank.books.accounts)
    }
}

#[test]
fn a_sound_machine_passes_every_check() {
    let checks = Checks::new().state(()).model(Sound).always((), |_| Ok(())).at_the_end((), |_, history| {
        if history.is_empty() { Err("nobody asked anything".to_owned()) } else { Ok(()) }
    });
    let Passed { seeds, commands, undecided, .. } =
        simulate(Bank::with(Fault::None), teller, checks).seeds(0..20).run().unwrap();
    assert!((seeds, undecided) == (20, 0) && commands > 500, "{commands}");
}

#[test]
#[ignore = "takes minutes; .ci/long runs it"]
fn no_sound_machine_is_ever_accused() {
    let checks = Checks::new().state(()).model(Sound);
    let passed =
        simulate(Bank::with(Fault::None), teller, checks).seeds(7_000_100_000..7_000_102_000).run().unwrap();
    println!("{passed:?}");
    let counting = |_| Counting(Arc::default());
    let passed = simulate(|| Sum(0), counting, Checks::new().state(()))
        .seeds(7_000_200_000..7_000_201_000)
        .run()
        .unwrap();
    println!("{passed:?}");
    let leases = simulate(Leases::default, lessee, Checks::new().state(()));
    println!("{:?}", leases.seeds(7_000_300_000..7_000_301_000).run().unwrap());
}

#[test]
fn a_machine_that_iterates_a_hash_map_is_caught_by_its_replies() {
    let failure = caught(Fault::HashOrder, Checks::new());
    assert_eq!(failure.rule, "determinism");
    assert!(failure.entry.is_some() && failure.command.is_some(), "{failure}");
    assert!((1..=6).contains(&failure.calls.len()), "{failure}");
}

#[test]
fn so_is_one_whose_events_come_in_such_an_order() {
    let failure = caught(Fault::Events, Checks::new());
    assert!(failure.rule == "determinism" && failure.detail.contains("events"), "{failure}");
}

/// No reply shows it, and the query that shows the whole state does.
#[test]
fn a_difference_in_the_state_is_caught_before_it_shows() {
    let failure = caught(Fault::HiddenOrder, Checks::new().state(()));
    assert_eq!(failure.rule, "determinism");
    assert!((1..=6).contains(&failure.calls.len()), "{failure}");
}

#[test]
fn a_machine_that_reads_the_clock_is_caught() {
    let failure = caught(Fault::Clock, Checks::new());
    assert_eq!((failure.rule, failure.calls.len()), ("determinism", 1), "{failure}");
}

/// A second rarely ends between two machines; another process waits for the next one.
#[test]
fn a_machine_that_reads_the_seconds_is_caught_in_another_process() {
    let name = "a_machine_that_reads_the_seconds_is_caught_in_another_process";
    let checks = Checks::new().in_another_process([name, "--exact", "--test-threads=1"]);
    let run = simulate(Bank::with(Fault::Seconds), teller, checks).seeds(0..1).steps(50);
    let failure = run.run().unwrap_err();
    // Where a second did end meanwhile, that is caught, too.
    assert!(["processes", "determinism"].contains(&failure.rule), "{failure}");
    assert!(failure.entry.is_some(), "{failure}");
}

#[test]
fn a_sound_machine_does_the_same_in_another_process() {
    let name = "a_sound_machine_does_the_same_in_another_process";
    let checks = Checks::new().state(()).in_another_process([name, "--exact"]);
    simulate(Bank::with(Fault::None), teller, checks).seeds(0..2).run().unwrap();
}

#[test]
fn another_process_that_never_comes_is_no_success() {
    let checks = Checks::new().in_another_process(["no_such_test", "--exact"]);
    let failure = simulate(Bank::with(Fault::None), teller, checks).seeds(0..1).run().unwrap_err();
    assert_eq!(failure.rule, "processes");
    assert!(failure.detail.contains("did not come here again"), "{failure}");
}

#[test]
fn a_snapshot_that_leaves_something_out_is_caught_when_it_shows() {
    let failure = caught(Fault::Forgets, Checks::new());
    assert_eq!(failure.rule, "snapshot");
    assert!((7..=14).contains(&failure.calls.len()), "{failure}");
}

#[test]
fn a_machine_that_restores_into_what_it_had_is_caught() {
    let failure = caught(Fault::Adds, Checks::new().state(()));
    assert_eq!(failure.rule, "snapshot");
    assert!(failure.detail.contains("restores the snapshot of it"), "{failure}");
    assert!((2..=6).contains(&failure.calls.len()), "{failure}");
}

#[test]
fn a_snapshot_of_what_was_restored_is_as_good() {
    let failure = caught(Fault::Once, Checks::new().state(()));
    assert!(
        failure.rule == "snapshot" && failure.detail.contains("restores the snapshot of a second"),
        "{failure}"
    );
    assert_eq!(failure.calls.len(), 1, "{failure}");
}

#[test]
fn a_panic_names_its_entry_and_takes_one_call() {
    let failure = caught(Fault::Panics, Checks::new());
    assert_eq!((failure.rule, failure.calls.len()), ("panic", 1), "{failure}");
    assert!(failure.detail.contains("nobody owes himself"), "{failure}");
}

#[test]
fn a_condition_is_held_against_every_entry() {
    let checks = Checks::new().always((), |(accounts, _): &(BTreeMap<u8, u64>, u64)| {
        let most = accounts.values().max().copied().unwrap_or(0);
        if most <= 40 { Ok(()) } else { Err(format!("somebody has {most}")) }
    });
    let failure = caught(Fault::None, checks);
    assert_eq!(failure.rule, "always");
    assert!((3..=4).contains(&failure.calls.len()), "{failure}");
}

#[test]
fn what_the_model_could_not_have_said_is_caught() {
    let failure = caught(Fault::Mints, Checks::new().model(Sound));
    assert_eq!(failure.rule, "model");
    assert!((3..=5).contains(&failure.calls.len()), "{failure}");
}

/// A read that does not see the newest write, of a machine that is deterministic.
#[test]
fn a_stale_answer_is_not_linearizable() {
    let failure = caught(Fault::Stale, Checks::new().model(Sound));
    assert_eq!((failure.rule, failure.calls.len()), ("model", 2), "{failure}");
}

/// What shows only at the end of a cluster's life is told as what happened there, with few faults.
#[test]
fn what_takes_a_cluster_is_told_as_a_conversation() {
    let checks = Checks::new().at_the_end((), |(accounts, _): &(BTreeMap<u8, u64>, u64), _| {
        if accounts.contains_key(&1) { Err("there is an account 1".to_owned()) } else { Ok(()) }
    });
    let failure = simulate(Bank::with(Fault::None), teller, checks).seeds(0..20).shrinking(60).run();
    let failure = failure.unwrap_err();
    assert_eq!(failure.rule, "end");
    // Which of them is near the end depends on the mixture of faults.
    let tells = |line: &String| line.contains("Put(") || line.contains("Move(");
    assert!(failure.calls.is_empty() && failure.story.iter().any(tells), "{failure}");
}

/// Keeps notes, of which an author is not encoded.
#[derive(Default)]
struct Notes(u64);

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    text: u64,
    #[serde(skip)]
    author: u64,
}

impl StateMachine for Notes {
    type Command = Note;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, note: Note) -> u64 {
        self.0 += note.text + note.author;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

#[test]
fn a_command_that_loses_something_in_its_encoding_is_caught() {
    let client = |_| |draw: &mut Draw<'_>| Input::Command(Note { text: 1, author: 1 + draw.below(3) });
    let failure = simulate(Notes::default, client, Checks::new()).seeds(0..1).shrinking(5).run().unwrap_err();
    assert!(failure.rule == "encoding" && failure.detail.contains("author: 0"), "{failure}");
}

/// Says where it runs: nodes make three machines each.
#[derive(Default)]
struct Place(u64);

impl StateMachine for Place {
    type Command = ();
    type Reply = u64;
    type Query = ();
    type Answer = ();

    fn apply(&mut self, _: &mut Context, (): ()) -> u64 {
        self.0 / 3
    }

    fn query(&self, _: &QueryContext, (): ()) {}

    fn snapshot(&self) -> impl Save {
        snapshot::save(())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        snapshot::load(from)
    }
}

/// Machines that are alike on each node, and unlike those of others.
#[test]
fn a_machine_that_knows_its_node_is_caught_by_those_of_others() {
    let made = AtomicU64::new(0);
    let machine = move || Place(made.fetch_add(1, Ordering::Relaxed));
    let client = |_| |_: &mut Draw<'_>| Input::Command(());
    let failure = simulate(machine, client, Checks::new()).seeds(0..1).run().unwrap_err();
    assert!(failure.rule == "determinism" && failure.detail.contains("another node"), "{failure}");
}

/// Leases that end by timers. The broken ones end with whichever comes first in a map without an order.
#[derive(Default)]
struct Leases {
    held: BTreeMap<u64, u64>,
    ended: u64,
    broken: bool,
    /// Whether it sets another timer for a time out of a map without an order, which nothing else shows.
    unsure: bool,
}

/// A timer of no lease.
const SPARE: u64 = 1000;

impl StateMachine for Leases {
    type Command = u64;
    type Reply = bool;
    type Query = ();
    type Answer = (BTreeMap<u64, u64>, u64);

    fn apply(&mut self, context: &mut Context, name: u64) -> bool {
        let until = context.cluster_time + 50 * (1 + name % 3);
        context.set_timer(name, until).unwrap();
        if self.unsure {
            let times = HashMap::from([(10, ()), (20, ())]);
            context.set_timer(SPARE, until + times.keys().next().copied().unwrap_or_default()).unwrap();
        }
        self.held.insert(name, until).is_none()
    }

    fn on_timer(&mut self, _: &mut Context, name: u64) {
        if name == SPARE {
            return;
        }
        self.ended += 1;
        self.held.remove(&name).expect("it was set");
        if self.broken {
            let held: HashMap<u64, u64> = self.held.clone().into_iter().collect();
            self.ended += held.keys().next().copied().unwrap_or_default();
        }
    }

    fn query(&self, _: &QueryContext, (): ()) -> (BTreeMap<u64, u64>, u64) {
        (self.held.clone(), self.ended)
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save((self.held.clone(), self.ended))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        snapshot::load(from).map(|(held, ended)| (self.held, self.ended) = (held, ended))
    }
}

fn lessee(_: u64) -> impl Client<Leases> {
    |draw: &mut Draw<'_>| Input::Command(draw.below(5))
}

#[test]
fn timers_fire_in_machines_of_others_too() {
    let name = "timers_fire_in_machines_of_others_too";
    let ended = Checks::new().state(()).at_the_end((), |(_, ended): &(BTreeMap<u64, u64>, u64), _| {
        if *ended > 0 { Ok(()) } else { Err("no lease ever ended".to_owned()) }
    });
    let checks = ended.in_another_process([name, "--exact"]);
    simulate(Leases::default, lessee, checks).seeds(0..10).run().unwrap();
    let broken = || Leases { broken: true, ..Leases::default() };
    let failure = simulate(broken, lessee, Checks::new().state(())).seeds(0..10).run().unwrap_err();
    assert!(failure.rule == "determinism", "{failure}");
    assert!(failure.command.as_ref().is_some_and(|command| command.contains("fires")), "{failure}");
    assert!((3..=8).contains(&failure.calls.len()), "{failure}");
    let unsure = || Leases { unsure: true, ..Leases::default() };
    let failure = simulate(unsure, lessee, Checks::new()).seeds(0..10).run().unwrap_err();
    assert!(failure.rule == "determinism" && failure.detail.contains("other timers"), "{failure}");
    assert_eq!(failure.calls.len(), 1, "{failure}");
}

/// Adds one at a time, and counts how often that was done.
struct Counting(Arc<AtomicU64>);

struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, context: &mut Context, by: u64) -> u64 {
        self.0 += by;
        context.emit_bytes(self.0.to_le_bytes().to_vec());
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

impl Client<Sum> for Counting {
    fn ask(&mut self, draw: &mut Draw<'_>) -> Input<u64, ()> {
        if draw.chance(300) { Input::Query(()) } else { Input::Command(1) }
    }

    fn told(&mut self, input: &Input<u64, ()>, told: Told<u64, u64>) {
        if let (Input::Command(by), Told::Done(Output::Reply(sum))) = (input, told) {
            assert!(sum >= *by);
            self.0.fetch_add(*by, Ordering::Relaxed);
        }
    }
}

fn acknowledged<S: Shown>(history: &coracle::sim::kit::HistoryOf<S>) -> (u64, u64) {
    let commands = history.operations().iter().filter(|it| matches!(it.input, Input::Command(_)));
    commands.fold((0, 0), |(done, open), it| match it.outcome {
        coracle::sim::history::Outcome::Returned { .. } => (done + 1, open),
        coracle::sim::history::Outcome::Unknown => (done, open + 1),
        coracle::sim::history::Outcome::Refused => (done, open),
    })
}

/// Clients hear what became of their calls, and the sum is that of what was acknowledged, and of some whose outcome nobody
/// knows.
#[test]
fn a_counter_holds_what_was_acknowledged_and_no_more_than_was_asked() {
    let told = Arc::new(AtomicU64::new(0));
    let checks = Checks::new().state(()).at_the_end((), |sum: &u64, history| {
        let (done, open) = acknowledged::<Sum>(history);
        if (done..=done + open).contains(sum) { Ok(()) } else { Err(format!("{sum}, of {done} and {open}")) }
    });
    let clients = told.clone();
    let simulated = simulate(|| Sum(0), move |_| Counting(clients.clone()), checks).seeds(100..120);
    let Passed { commands, .. } = simulated.run().unwrap();
    let told = told.load(Ordering::Relaxed);
    assert!(commands > 500 && told <= commands && told > commands / 2, "{commands}, {told}");
}

#[test]
fn a_client_or_a_condition_that_panics_is_told_with_its_words() {
    let asks = |_| {
        |draw: &mut Draw<'_>| -> Input<u64, ()> {
            assert!(draw.chance(900), "no more ideas");
            Input::Command(1)
        }
    };
    let failure = simulate(|| Sum(0), asks, Checks::new()).seeds(0..1).shrinking(20).run().unwrap_err();
    assert!(failure.rule == "panic" && failure.detail.contains("no more ideas"), "{failure}");
    let checks = Checks::new().always((), |sum: &u64| {
        assert!(*sum < 5, "{sum} is too many");
        Ok(())
    });
    let adds = |_| |_: &mut Draw<'_>| Input::<u64, ()>::Command(1);
    let failure = simulate(|| Sum(0), adds, checks).seeds(0..1).run().unwrap_err();
    assert_eq!((failure.rule, failure.calls.len()), ("always", 5), "{failure}");
    assert!(failure.detail.contains("5 is too many"), "{failure}");
}

#[test]
fn where_nothing_is_asked_nothing_was_tested() {
    let nobody = |_| |_: &mut Draw<'_>| Input::<u64, ()>::Query(());
    let failure = simulate(|| Sum(0), nobody, Checks::new()).seeds(0..1).steps(100).shrinking(5).run();
    let failure = failure.unwrap_err();
    assert!(["idle", "L3"].contains(&failure.rule), "{failure}");
}
