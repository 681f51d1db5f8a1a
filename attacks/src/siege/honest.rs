//! A client that wants its answers: a few connections, each with one request under way. It heeds what it is told: after
//! `BUSY … retry after N ms` it asks again after N ms.

use coracle_server::client::{Client, Value};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How long it waits for an answer before it says that none came.
const LIMIT: Duration = Duration::from_secs(30);

/// What it saw that it should not have is told of so many times at most.
const PROBLEMS: usize = 5;

struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    /// How long each of the answers took, in microseconds, from the question that was not refused.
    took: Mutex<Histogram<u64>>,
    busy: AtomicU64,
    problems: Mutex<Vec<String>>,
}

pub(crate) struct Honest {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// What it saw.
pub(crate) struct Record {
    pub(crate) busy: u64,
    pub(crate) problems: Vec<String>,
}

impl Honest {
    /// One of so many connections, each of which asks again so long after an answer.
    pub(crate) fn start(address: &str, connections: usize, pause: Duration) -> Honest {
        let seen = Arc::new(Seen {
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            took: Mutex::new(microseconds()),
            busy: AtomicU64::new(0),
            problems: Mutex::default(),
        });
        let threads = (0..connections)
            .map(|number| {
                let (seen, address) = (seen.clone(), address.to_owned());
                std::thread::spawn(move || {
                    if let Err(problem) = talk(&address, number, pause, &seen) {
                        let mut problems = seen.problems.lock().unwrap_or_else(PoisonError::into_inner);
                        if problems.len() < PROBLEMS {
                            problems.push(format!("the honest client saw {problem}"));
                        }
                    }
                })
            })
            .collect();
        Honest { seen, threads }
    }

    /// How many answers it has had.
    pub(crate) fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::Relaxed)
    }

    /// What 99 in a hundred answers took at most since this was asked last.
    pub(crate) fn took(&self) -> Duration {
        let mut took = self.seen.took.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = took.value_at_quantile(0.99);
        took.reset();
        Duration::from_micros(longest)
    }

    pub(crate) fn stop(self) -> Record {
        self.seen.stop.store(true, Ordering::Relaxed);
        // One that failed has said so.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let problems =
            std::mem::take(&mut *self.seen.problems.lock().unwrap_or_else(PoisonError::into_inner));
        Record { busy: self.seen.busy.load(Ordering::Relaxed), problems }
    }
}

/// Three digits of anything up to a minute.
fn microseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds in order")
}

fn talk(address: &str, number: usize, pause: Duration, seen: &Seen) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut client = Client::connect(address, LIMIT).map_err(text)?;
    let key = format!("honest {number}").into_bytes();
    let mut newest = Vec::new();
    for turn in 0u64.. {
        if seen.stop.load(Ordering::Relaxed) {
            break;
        }
        let value = turn.to_string().into_bytes();
        let asked: &[&[u8]] = if turn % 2 == 0 { &[b"SET", &key, &value] } else { &[b"GET", &key] };
        loop {
            let since = Instant::now();
            match client.ask(asked).map_err(text)? {
                Value::Simple(_) if turn % 2 == 0 => newest.clone_from(&value),
                Value::Bulk(found) if turn % 2 == 1 && found == newest => {}
                Value::Null if turn % 2 == 1 && newest.is_empty() => {}
                Value::Error(error) if error.starts_with("BUSY ") => {
                    seen.busy.fetch_add(1, Ordering::Relaxed);
                    sleep(retry_after(&error)?);
                    continue;
                }
                other => {
                    return Err(format!(
                        "{other:?} as the answer to {:?}",
                        asked[0].escape_ascii().to_string()
                    ));
                }
            }
            let mut took = seen.took.lock().unwrap_or_else(PoisonError::into_inner);
            took.saturating_record(since.elapsed().as_micros() as u64);
            break;
        }
        seen.answered.fetch_add(1, Ordering::Relaxed);
        sleep(pause);
    }
    Ok(())
}

/// How long it was told to wait.
fn retry_after(error: &str) -> Result<Duration, String> {
    let told = error.rsplit_once("retry after ").and_then(|(_, rest)| rest.strip_suffix(" ms")?.parse().ok());
    told.map(Duration::from_millis).ok_or_else(|| format!("a BUSY that does not say for how long: {error}"))
}
