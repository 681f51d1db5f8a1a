//! Clients at work, and what the cluster owes them afterwards.
//!
//! Two kinds at once. Writers set one new key after the other: each that was acknowledged must be there for
//! ever. And some clients read, write and append on a few keys that they share; all that they saw must be
//! explained by one machine that does one thing at a time (linearizability).

use bytes::Bytes;
use coracle::sim::history::kv::{Command, Input, KeyValue, Output};
use coracle::sim::history::{Budget, History, OperationId, Verdict};
use coracle_attacks::dice::Dice;
use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, REQUEST_LIMIT};
use coracle_server::demo::{Acknowledged, Writer, read_back};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Failure;
use crate::library::Library;

/// Writers of new keys.
const WRITERS: usize = 3;

/// Clients that share keys, and how many keys.
const SHARING: u64 = 3;
pub(crate) const SHARED: u64 = 3;

/// How often clients are at rest when the blow falls, in percent.
const AT_REST: u64 = 30;

/// A value large enough to fill what the log has set aside within seconds, in bytes.
const BULK: usize = 256 << 10;

/// After an error a client waits so long.
const PAUSE: Duration = Duration::from_millis(2);

/// What the clients that share keys saw.
pub(crate) type Story = Arc<Mutex<History<Input, Output>>>;

/// Clients at work.
pub(crate) struct Load {
    writers: Vec<Writer>,
    /// What writers that have ended wrote.
    acknowledged: Vec<Acknowledged>,
    sharing: Vec<JoinHandle<()>>,
    library: Option<Library>,
    /// How many of their reads were judged by themselves, or what was wrong with one.
    judged: Result<u64, String>,
    stop: Arc<AtomicBool>,
    story: Story,
    round: u64,
}

/// What they saw.
pub(crate) struct Seen {
    /// The new keys.
    acknowledged: Vec<Acknowledged>,
    judged: Result<u64, String>,
    story: Story,
    round: u64,
}

impl Load {
    /// Sets them to work on a cluster. The shared keys are those of this round.
    pub(crate) fn start(cluster: &Cluster, round: u64, seed: u64) -> Load {
        let addresses: Vec<_> = cluster.client_addresses();
        let stop = Arc::new(AtomicBool::new(false));
        let story = Story::default();
        let sharing = (0..SHARING).map(|client| {
            let (addresses, stop, story) = (addresses.clone(), stop.clone(), story.clone());
            let dice = Dice::new(seed ^ client);
            std::thread::spawn(move || share(&addresses, client, round, dice, &stop, &story))
        });
        let sharing = sharing.collect();
        let nodes = cluster.ids().into_iter().map(|id| cluster.node(id).place.peer_addr.clone()).collect();
        let library = Some(Library::start(nodes, round, seed, stop.clone(), story.clone()));
        let writers = (0..WRITERS).map(|first| Writer::start(addresses.clone(), first)).collect();
        Load { writers, acknowledged: Vec::new(), sharing, library, judged: Ok(0), stop, story, round }
    }

    /// How many new keys were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        let running: usize = self.writers.iter().map(|writer| writer.record().acknowledged.len()).sum();
        running + self.acknowledged.len()
    }

    /// Lets them finish what is under way.
    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self.writers.drain(..);
        self.acknowledged.extend(writers.flat_map(|writer| writer.stop().acknowledged));
        for client in self.sharing.drain(..) {
            // A panic of a client shows: its operations stay unanswered.
            let _ = client.join();
        }
        if let Some(library) = self.library.take() {
            self.judged = library.finish();
        }
    }

    /// Lets them finish, and tells what they saw.
    pub(crate) fn stop(mut self) -> Seen {
        self.finish();
        Seen { acknowledged: self.acknowledged, judged: self.judged, story: self.story, round: self.round }
    }
}

/// Now and then all clients are at rest when the blow falls: the newest batch of each log was acknowledged,
/// and no later one attests it yet.
pub(crate) fn at_rest(mut load: Load, dice: &mut Dice) -> Load {
    if dice.chance(AT_REST) {
        load.finish();
    }
    load
}

impl Seen {
    /// Holds the cluster to its word: every acknowledged key is read from every node, and the history is
    /// judged with the last reads in it.
    fn judge(&self, cluster: &Cluster) -> Result<(), String> {
        self.judged.clone()?;
        for id in cluster.ids() {
            read_back(cluster, id, &self.acknowledged)?;
            let mut client = cluster.node(id).client().map_err(|error| format!("node {id}: {error}"))?;
            for key in 0..SHARED {
                let key = key_of(self.round, key);
                if !operate(&mut client, SHARING + id, Input::new(key.clone(), Command::Get), &self.story) {
                    return Err(format!("CLUSTERDOWN: node {id} does not answer a GET of {key}"));
                }
            }
        }
        let story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
        match KeyValue::new().check(&story, Budget::default()) {
            Verdict::Linearizable => Ok(()),
            Verdict::NotLinearizable(why) => Err(format!("what clients saw is not linearizable: {why}")),
            Verdict::Undecided => Err("the history is too hard to judge: make the rounds shorter".into()),
        }
    }

    /// How many operations there are on shared keys.
    fn operations(&self) -> usize {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// All that was ever acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Vec<Acknowledged>,
    operations: usize,
    /// Reads by the library that need not be linearizable.
    judged: u64,
    rounds: u64,
}

/// All of it is read back after so many rounds; what is new after each.
const FULL_CHECK: u64 = 20;

/// How often a line tells how far it is, in rounds.
const PROGRESS: u64 = 50;

/// How often a question is asked again that is refused for now; each time takes up to a second.
const PATIENCE: usize = 30;

/// The least that is acknowledged in a round on average, for the campaign to mean something.
const LEAST: usize = 10;

impl Ledger {
    /// Judges what a round's clients saw, lets the nodes agree, and now and then, or if it is the last round,
    /// reads back everything.
    pub(crate) fn judge(&mut self, cluster: &Cluster, seen: Seen, last: bool) -> Result<(), String> {
        patiently(|| seen.judge(cluster))?;
        cluster.agree()?;
        self.rounds += 1;
        if self.rounds.is_multiple_of(PROGRESS) {
            eprintln!("{} rounds done", self.rounds);
        }
        self.operations += seen.operations();
        self.judged += seen.judged.unwrap_or(0);
        self.acknowledged.extend(seen.acknowledged);
        if last || self.rounds.is_multiple_of(FULL_CHECK) {
            let all = &self.acknowledged;
            cluster.ids().into_iter().try_for_each(|id| patiently(|| read_back(cluster, id, all)))?;
        }
        Ok(())
    }

    /// Whether the clients did enough.
    pub(crate) fn is_enough(&self, rounds: u64) -> Result<(), Failure> {
        if self.acknowledged.len() >= LEAST * rounds as usize {
            return Ok(());
        }
        Err(Failure::Trouble("so few writes were acknowledged that this shows nothing".into()))
    }
}

/// Asks again while a node only says that it cannot answer now: on a computer that is busy with other things
/// a leader may be lost at any time.
fn patiently(mut ask: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut last = ask();
    for _ in 0..PATIENCE {
        match &last {
            Err(problem) if problem.contains("CLUSTERDOWN") || problem.contains("BUSY") => last = ask(),
            _ => break,
        }
    }
    last
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { acknowledged, operations, judged, .. } = self;
        write!(
            f,
            "none of {} acknowledged writes was lost on any node, {operations} operations on shared keys are \
             linearizable, {judged} reads within a bound or from an entry on saw what they had to, and all nodes \
             agree",
            acknowledged.len()
        )
    }
}

pub(crate) fn key_of(round: u64, key: u64) -> String {
    format!("shared:{round}:{key}")
}

fn share(addresses: &[String], client: u64, round: u64, mut dice: Dice, stop: &AtomicBool, story: &Story) {
    let mut number = 0;
    for address in addresses.iter().cycle().skip(client as usize) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut connected) = Client::connect(address, REQUEST_LIMIT) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let value = Bytes::from(format!("{client}.{number} "));
            let command = match dice.below(10) {
                0..4 => Command::Get,
                4..7 => Command::Put(value),
                _ => Command::Append(value),
            };
            let input = Input::new(key_of(round, dice.below(SHARED)), command);
            if !operate(&mut connected, client, input, story) {
                std::thread::sleep(PAUSE);
                break;
            }
        }
    }
}

/// Does one operation and records it. Returns whether there was a good answer.
fn operate(connected: &mut Client, client: u64, input: Input, story: &Story) -> bool {
    let request: Vec<Bytes> = match &input.command {
        Command::Put(value) => vec!["SET".into(), input.key.clone(), value.clone()],
        Command::Append(value) => vec!["APPEND".into(), input.key.clone(), value.clone()],
        _ => vec!["GET".into(), input.key.clone()],
    };
    let words: Vec<&[u8]> = request.iter().map(AsRef::as_ref).collect();
    let history = || story.lock().unwrap_or_else(PoisonError::into_inner);
    let id: OperationId = history().invoke(client, input);
    let answer = connected.ask(&words);
    let mut history = history();
    let output = match answer {
        Ok(Value::Simple(_) | Value::Number(_)) => Output::Done,
        Ok(Value::Bulk(value)) => Output::Value(Some(value.into())),
        Ok(Value::Null) => Output::Value(None),
        Ok(Value::Error(error)) if !error.starts_with("UNKNOWN") => {
            history.refuse(id);
            return false;
        }
        // Without an answer nobody knows.
        Ok(_) | Err(_) => return false,
    };
    history.complete(id, output);
    true
}

/// A client that writes large values over one key, to any node that takes them.
pub(crate) struct Bulk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bulk {
    /// Starts it.
    pub(crate) fn start(cluster: &Cluster) -> Bulk {
        let stop = Arc::new(AtomicBool::new(false));
        let addresses: Vec<_> = cluster.client_addresses();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let value = vec![b'v'; BULK];
                for address in addresses.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let Ok(mut client) = Client::connect(address, REQUEST_LIMIT) else { continue };
                    while !stop.load(Ordering::Relaxed)
                        && matches!(client.ask(&[b"SET", b"bulk", &value]), Ok(Value::Simple(_)))
                    {
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Bulk { stop, thread }
    }

    /// Lets it finish what is under way.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic shows: nothing is filled.
        let _ = self.thread.join();
    }
}
