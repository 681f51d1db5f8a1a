//! A client that wants its answers: a few connections, each with one request under way. It heeds what it is told: after
//! `BUSY … retry after N ms` it asks again after N ms.

use coracle_server::client::{Client, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// How many connections it has.
const CONNECTIONS: usize = 8;

/// How long it waits for an answer before it says that none came.
const LIMIT: Duration = Duration::from_secs(30);

/// What it saw that it should not have is told of so many times at most.
const PROBLEMS: usize = 5;

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
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
    pub(crate) fn start(address: &str) -> Honest {
        let seen = Arc::new(Seen::default());
        let threads = (0..CONNECTIONS)
            .map(|number| {
                let (seen, address) = (seen.clone(), address.to_owned());
                std::thread::spawn(move || {
                    if let Err(problem) = talk(&address, number, &seen) {
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

    pub(crate) fn stop(self) -> Record {
        self.seen.stop.store(true, Ordering::Relaxed);
        // One that failed has said so.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let problems =
            std::mem::take(&mut *self.seen.problems.lock().unwrap_or_else(PoisonError::into_inner));
        Record { busy: self.seen.busy.load(Ordering::Relaxed), problems }
    }
}

fn talk(address: &str, number: usize, seen: &Seen) -> Result<(), String> {
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
            break;
        }
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How long it was told to wait.
fn retry_after(error: &str) -> Result<Duration, String> {
    let told = error.rsplit_once("retry after ").and_then(|(_, rest)| rest.strip_suffix(" ms")?.parse().ok());
    told.map(Duration::from_millis).ok_or_else(|| format!("a BUSY that does not say for how long: {error}"))
}
