//! Time in tests, for all crates: how long to wait for what must happen, and what to do where time itself is the claim.
//!
//! A test passes by what happened and in which order, never by how fast. What only bounds hanging is [`PATIENCE`].
//! A computer that is busy may break some orders of events, such as that a link which is alive is kept; it can never
//! make them up. For these there is [`unless_starved`].
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy computer; reached only where a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A time limit, a timeout of elections or whatever else that must not come to pass while a test runs.
pub const NEVER: Duration = Duration::from_secs(3600);

/// What the control thread sleeps for, again and again.
const SLEEP: Duration = Duration::from_millis(10);

/// A computer is starved if that took longer than this.
pub const STARVED: Duration = Duration::from_millis(50);

/// How often something is tried on a computer that is starved each time.
pub const TRIES: usize = 5;

/// A thread that needs the processor now and then, and remembers how late it once got it.
pub struct Control {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    longest: Arc<AtomicU64>,
}

impl Control {
    /// Starts it.
    pub fn start() -> Control {
        let (stop, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, longest) = (Arc::clone(&stop), Arc::clone(&longest));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    std::thread::sleep(SLEEP);
                    longest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            }
        });
        Control { stop, thread, longest }
    }

    /// The longest sleep, the one under way included.
    pub fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }
}

/// Tries something that only a computer without a processor to spare may keep from coming true. A failure counts
/// at once if a control thread was never starved meanwhile; otherwise it says nothing, and there is another try. Five
/// failures that say nothing are no success either.
pub async fn unless_starved<T>(mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut failures = Vec::new();
    for _ in 0..TRIES {
        let control = Control::start();
        let outcome = attempt().await;
        let longest = control.end();
        match outcome {
            Ok(value) => return value,
            Err(failure) if longest <= STARVED => panic!("{failure}, though no sleep took over {longest:?}"),
            Err(failure) => failures.push(format!("{failure} (a sleep of {SLEEP:?} took {longest:?})")),
        }
    }
    panic!("inconclusive {TRIES} times, since the computer was starved: {failures:#?}");
}

/// Calls what must not wait for anything, on the thread that would have to do what it might wait for. Ends the process
/// if it does not return.
pub fn returns<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let (done, returned) = std::sync::mpsc::channel::<()>();
    let what = what.to_owned();
    std::thread::spawn(move || {
        if returned.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{what}: it did not return within {PATIENCE:?}");
            std::process::abort();
        }
    });
    let value = call();
    drop(done);
    value
}
