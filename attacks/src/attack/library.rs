//! Clients of the library at work beside those that speak RESP, on the same keys and in the same history; and what they read that
//! need not be linearizable, judged by itself.
//!
//! One client counts up on a key of its own, and remembers when each number was acknowledged. Others read that key within bounds of
//! age, and at least as far as they have read before: none may miss a number that was acknowledged before the age that it was told,
//! or before its bound, and who reads on from what it has seen never sees less.

use crate::load::{SHARED, Story, key_of};
use bytes::Bytes;
use coracle::client::{Client, ClientConfig, Session};
use coracle::sim::history::kv::{Command, Input, Output};
use coracle::{Freshness, Index, ReadError, WriteError};
use coracle_attacks::dice::Dice;
use coracle_server::kv::{Found, Kv, Lookup, Operation, Outcome, When};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Clients that share keys with those that speak RESP.
const SHARING: u64 = 2;

/// In the history their names come after all others.
const FIRST: u64 = 1_000;

/// The bounds of age that are read within, in milliseconds; 0: at least as far as was read before.
const BOUNDS: [u64; 3] = [0, 50, 2_000];

/// After an error a client waits so long.
const PAUSE: Duration = Duration::from_millis(2);

/// When each number was acknowledged.
type Steps = Arc<Mutex<Vec<(Instant, u64)>>>;

/// Clients at work.
pub(crate) struct Library {
    thread: JoinHandle<Result<u64, String>>,
}

/// What all of them have.
#[derive(Clone)]
struct Work {
    client: Client<Kv>,
    round: u64,
    stop: Arc<AtomicBool>,
    story: Story,
    steps: Steps,
}

impl Library {
    /// Sets them to work on the nodes at these peer addresses.
    pub(crate) fn start(
        nodes: Vec<String>,
        round: u64,
        seed: u64,
        stop: Arc<AtomicBool>,
        story: Story,
    ) -> Library {
        let thread = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(async {
                let mut config = ClientConfig::new(nodes);
                config.request_timeout = Duration::from_secs(2);
                let client = Client::start(config).map_err(|error| error.to_string())?;
                work(Work { client, round, stop, story, steps: Steps::default() }, seed).await
            })
        });
        Library { thread }
    }

    /// Lets them finish. How many reads were judged, or what one of them saw that it should not.
    pub(crate) fn finish(self) -> Result<u64, String> {
        self.thread.join().unwrap_or_else(|_| Err("a client of the library panicked".to_owned()))
    }
}

async fn work(work: Work, seed: u64) -> Result<u64, String> {
    let mut tasks = JoinSet::new();
    for client in 0..SHARING {
        tasks.spawn(share(work.clone(), client, Dice::new(seed ^ (FIRST + client))));
    }
    tasks.spawn(step(work.clone()));
    for bound in BOUNDS {
        tasks.spawn(read(work.clone(), Duration::from_millis(bound)));
    }
    let mut judged = 0;
    while let Some(ended) = tasks.join_next().await {
        judged += ended.map_err(|error| error.to_string())??;
    }
    Ok(judged)
}

/// Reads and writes the shared keys, in an order of its own.
async fn share(work: Work, client: u64, mut dice: Dice) -> Result<u64, String> {
    let (session, mut number) = (work.client.session(), 0);
    while !work.stop.load(Ordering::Relaxed) {
        number += 1;
        let value = Bytes::from(format!("L{client}.{number} "));
        let command = match dice.below(10) {
            0..4 => Command::Get,
            4..7 => Command::Put(value),
            _ => Command::Append(value),
        };
        let input = Input::new(key_of(work.round, dice.below(SHARED)), command);
        let history = || work.story.lock().unwrap_or_else(PoisonError::into_inner);
        let id = history().invoke(FIRST + client, input.clone());
        let outcome = operate(&session, input).await;
        let failed = outcome.is_err();
        match outcome {
            Ok(output) => history().complete(id, output),
            Err(true) => history().refuse(id),
            Err(false) => {}
        }
        if failed {
            sleep(PAUSE).await;
        }
    }
    Ok(0)
}

/// Does one operation. An error: whether it certainly was not done.
async fn operate(session: &Session<Kv>, input: Input) -> Result<Output, bool> {
    let key = input.key.clone();
    let operation = match input.command {
        Command::Put(value) => Operation::Set { key, value, when: When::Always, get: false },
        Command::Append(value) => Operation::Append { key, value },
        _ => {
            let found = session.read(vec![Lookup::Get(key)]).await.map_err(|_| true)?;
            return Ok(Output::Value(value_of(found)));
        }
    };
    let written = session.write(vec![operation]).await;
    written.map(|_| Output::Done).map_err(|error| error.certainly_not_done())
}

fn value_of(found: Vec<Found>) -> Option<Bytes> {
    match found.into_iter().next() {
        Some(Found::Value(value)) => value.map(|value| value.to_bytes()),
        _ => None,
    }
}

fn counter(round: u64) -> Bytes {
    format!("step:{round}").into()
}

/// Counts up.
async fn step(work: Work) -> Result<u64, String> {
    let session = work.client.session();
    while !work.stop.load(Ordering::Relaxed) {
        let add = Operation::Add { key: counter(work.round), by: 1 };
        match session.write(vec![add]).await.as_deref() {
            Ok([Outcome::Number(number)]) => {
                let mut steps = work.steps.lock().unwrap_or_else(PoisonError::into_inner);
                steps.push((Instant::now(), *number as u64));
            }
            Ok(other) => return Err(format!("a counter was answered by {other:?}")),
            Err(WriteError::Invalid(why)) => return Err(format!("a counter is invalid: {why}")),
            Err(_) => sleep(PAUSE).await,
        }
    }
    Ok(0)
}

/// Reads the counter, within this bound of age, or from what was read before on.
async fn read(work: Work, bound: Duration) -> Result<u64, String> {
    let (mut judged, mut seen, mut newest) = (0, Index(0), 0);
    let chained = bound.is_zero();
    while !work.stop.load(Ordering::Relaxed) {
        let freshness = if chained { Freshness::AtLeast(seen) } else { Freshness::Within(bound) };
        let called = Instant::now();
        let read = match work.client.read_as(vec![Lookup::Get(counter(work.round))], freshness).await {
            Ok(read) => read,
            Err(ReadError::Invalid(why)) => return Err(format!("a read is invalid: {why}")),
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let answered = Instant::now();
        let text = value_of(read.answer).unwrap_or_else(|| Bytes::from_static(b"0"));
        let number: u64 = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let least = if chained {
            newest
        } else {
            // What was true of both moments.
            let told = read.age.and_then(|age| answered.checked_sub(age));
            let since = called.checked_sub(bound).max(told);
            let steps = work.steps.lock().unwrap_or_else(PoisonError::into_inner);
            since.map_or(0, |since| steps.iter().rfind(|(at, _)| *at < since).map_or(0, |(_, step)| *step))
        };
        if number < least {
            let age = read.age;
            return Err(format!(
                "{freshness:?} saw {number}, said to be {age:?} old, where {least} was to be seen"
            ));
        }
        (seen, newest, judged) = (read.applied.index.max(seen), number, judged + 1);
        sleep(PAUSE).await;
    }
    Ok(judged)
}
