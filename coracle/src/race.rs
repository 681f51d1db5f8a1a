//! What hands work from one thread to another, under a scheduler that tries interleavings.
//!
//! The [inbox], the [outbox] and the log's [writer] are the production code, compiled once more with a scheduler's locks,
//! bells, channels and threads ([`primitives`]). Whoever would wait for ever is found by the scheduler itself: nobody
//! can go on then. No tick and no time limit helps here, as one does in production.
//!
//! `CORACLE_RACES` says how many interleavings of each kind are tried; `.ci/long` asks for more.

#[path = "inbox.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "compiled a second time, on purpose")]
mod inbox;
#[path = "transport/outbox.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "compiled a second time, on purpose")]
mod outbox;
mod primitives;
#[path = "writer.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "compiled a second time, on purpose")]
mod writer;

use crate::entry::{Entry, Kind, Stamp};
use crate::storage::memory::MemoryStore;
use crate::storage::{Change, LogReader, LogStore, Recovered, StoreError, WriteBatch};
use crate::wire::Frame;
use crate::work::Order;
use bytes::Bytes;
use coracle_core::{Broken, LogId, WriteId};
use inbox::Refused;
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::Rng;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use writer::{Report, Writer};

/// How many interleavings of each kind.
fn tries() -> usize {
    std::env::var("CORACLE_RACES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(2000)
}

/// Random schedules, and those of few preemptions at chosen places.
fn check(race: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(race.clone(), tries());
    shuttle::check_pct(race, tries(), 3);
}

/// With probability a half.
fn perhaps() -> bool {
    shuttle::rand::thread_rng().r#gen()
}

/// Polls it, and drops it unless it is ready.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Three handles ask; one gives up while it lets others run. Consensus takes two at a time, looks by itself now and then,
/// and gives up waiting now and then, as it does at a tick. All that was asked is taken, each once.
fn questions_reach_consensus() {
    let (sender, receiver) = inbox::bounded(inbox::Limits { questions: 100, bytes: 100 }, |_| 1);
    let sender = Arc::new(sender);
    let handles: Vec<_> = (0..3)
        .map(|handle| {
            let sender = sender.clone();
            spawn(async move {
                for number in 0..2 {
                    let question = sender.send(10 * handle + number);
                    if perhaps() {
                        assert!(matches!(poll_once(question).await, None | Some(Ok(()))));
                    } else {
                        question.await.unwrap();
                    }
                }
            })
        })
        .collect();
    drop(sender);
    block_on(async {
        let mut taken = Vec::new();
        while taken.len() < 6 {
            if perhaps() && poll_once(receiver.rung()).await.is_none() {
                taken.extend(receiver.take(2));
                continue;
            }
            receiver.rung().await;
            taken.extend(receiver.take(2));
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 10, 11, 20, 21]);
        for handle in handles {
            handle.await.unwrap();
        }
    });
}

/// Consensus ends while handles ask: each question is taken, or refused; nobody waits for ever.
fn consensus_ends() {
    let (sender, receiver) = inbox::bounded(inbox::Limits { questions: 100, bytes: 100 }, |_| 1);
    let sender = Arc::new(sender);
    let handles: Vec<_> = (0..3)
        .map(|handle| {
            let sender = sender.clone();
            spawn(async move { sender.send(handle).await })
        })
        .collect();
    block_on(async {
        let mut taken = Vec::new();
        receiver.rung().await;
        taken.extend(receiver.take(1));
        taken.extend(receiver.close());
        drop(receiver);
        for (number, handle) in handles.into_iter().enumerate() {
            let asked = handle.await.unwrap();
            assert_eq!(asked, if taken.contains(&number) { Ok(()) } else { Err(Refused::Closed) });
        }
    });
}

fn frame(tag: u8) -> Frame {
    Frame { head: Bytes::from(vec![tag]), bulk: Vec::new() }
}

/// Two push, a third closes once both are done, or early. The connection's writer takes all that was queued, in order,
/// and the last frame last, though it gives up waiting now and then; and whoever waits for the close hears of it.
fn frames_reach_the_connection() {
    let outbox = Arc::new(outbox::Outbox::new(100, 3, None));
    let pushers: Vec<_> = (0..2)
        .map(|pusher| {
            let outbox = outbox.clone();
            shuttle::thread::spawn(move || {
                (0..3)
                    .map(|number| 10 * pusher + number)
                    .filter(|tag| outbox.push(frame(*tag)))
                    .collect::<Vec<u8>>()
            })
        })
        .collect();
    let early = perhaps();
    let closer = {
        let outbox = outbox.clone();
        shuttle::thread::spawn(move || {
            let mut queued = Vec::new();
            if early {
                outbox.close(Bytes::from_static(b"z"));
            }
            for pusher in pushers {
                queued.extend(pusher.join().unwrap());
            }
            outbox.close(Bytes::from_static(b"z"));
            queued
        })
    };
    let told = {
        let outbox = outbox.clone();
        spawn(async move { outbox.closed().await })
    };
    block_on(async {
        let mut taken: Vec<u8> = Vec::new();
        loop {
            let pieces = match perhaps() {
                true => poll_once(outbox.take()).await,
                false => Some(outbox.take().await),
            };
            match pieces {
                None => yield_now().await,
                Some(None) => break,
                Some(Some(pieces)) => taken.extend(pieces.iter().map(|piece| piece[0])),
            }
        }
        assert_eq!(taken.pop(), Some(b'z'), "the last frame is the last");
        let mut queued = closer.join().unwrap();
        for pusher in 0..2 {
            assert!(taken.iter().filter(|tag| *tag / 10 == pusher).is_sorted(), "{taken:?}");
        }
        queued.sort_unstable();
        taken.sort_unstable();
        assert_eq!(taken, queued);
        told.await.unwrap();
    });
}

/// A store that now and then has no room, and at last fails, if it is to; what it holds is known outside.
struct Store {
    inner: MemoryStore,
    held: Arc<Mutex<Vec<u64>>>,
    fails_at: Option<u64>,
    closed: Arc<Mutex<bool>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        *self.closed.lock().unwrap() = true;
    }
}

impl LogStore for Store {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        self.inner.load(progress)
    }
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        shuttle::thread::yield_now();
        if shuttle::rand::thread_rng().gen_ratio(1, 4) {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StoreError::NoSpace { path: "next".into(), source });
        }
        for change in &batch.changes {
            let Change::Append(entries) = change else { continue };
            for entry in entries {
                if Some(entry.index().0) == self.fails_at {
                    return Err(StoreError::Refused("broken".into()));
                }
                self.held.lock().unwrap().push(entry.index().0);
            }
        }
        Ok(())
    }
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.inner.purge(upto)
    }
    fn reader(&self) -> Box<dyn LogReader> {
        self.inner.reader()
    }
}

/// Consensus orders writes, and hears of each, or of the failure; then it lets the writer finish. What it heard of is
/// held, and the store is closed when the writer says that it has ended.
fn writes_become_durable() {
    const WRITES: u64 = 4;
    let (held, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
    let fails_at = if perhaps() { Some(shuttle::rand::thread_rng().gen_range(1..=WRITES)) } else { None };
    let (inner, kept, shut) = (MemoryStore::new(), held.clone(), closed.clone());
    let store = Store { inner, held: kept, fails_at, closed: shut };
    let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut writer = Writer::start("w".into(), Box::new(store), None, reports, Broken::default()).unwrap();
    // It may stop without waiting for what it has ordered.
    let waits = perhaps();
    block_on(async {
        for number in 1..=WRITES {
            let entry = Entry::new(LogId::new(1, number), Kind::Noop, Stamp::default(), &[]);
            let batch = WriteBatch { hard_state: None, changes: vec![Change::Append(vec![entry])] };
            writer.order(Order::Write(WriteId(number), batch));
            if perhaps() {
                yield_now().await;
            }
        }
        let (mut durable, mut failed) = (0, false);
        while waits && durable < WRITES && !failed {
            match told.recv().await.expect("the writer is there") {
                Report::Durable(WriteId(number)) => {
                    assert!(number > durable, "{number} after {durable}");
                    assert!((1..=number).all(|number| held.lock().unwrap().contains(&number)));
                    durable = number;
                }
                Report::Failed(_) => failed = true,
                Report::NoSpace(_) | Report::Space | Report::Named(_) | Report::Promised => {}
                Report::Stopped(_) | Report::Mended => {}
            }
        }
        assert!(!failed || !*closed.lock().unwrap(), "it stays open until the node lets go");
        assert_eq!(failed, waits && fails_at.is_some());
        writer.finish().await;
        assert!(*closed.lock().unwrap(), "and is closed then");
        let held = held.lock().unwrap();
        assert!(held.iter().copied().eq(1..=held.len() as u64), "in order, each once: {held:?}");
    });
}

/// D5.5.4: no question is left lying, whatever the threads' order.
#[test]
fn a_question_always_reaches_consensus() {
    check(questions_reach_consensus);
}

#[test]
fn whoever_asks_hears_that_consensus_has_ended() {
    check(consensus_ends);
}

#[test]
fn a_frame_always_reaches_the_connection() {
    check(frames_reach_the_connection);
}

#[test]
fn every_write_is_reported_and_the_store_closed_at_last() {
    check(writes_become_durable);
}

/// With bells that ring only for who waits already, wake-ups are lost, and the scheduler notices.
#[test]
fn a_lost_wake_up_would_be_found() {
    for race in [questions_reach_consensus, frames_reach_the_connection] {
        primitives::FORGETFUL.set(true);
        let found = catch_unwind(AssertUnwindSafe(|| shuttle::check_random(race, 2000)));
        primitives::FORGETFUL.set(false);
        let panic = found.expect_err("a wake-up was lost");
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains("deadlock"), "{said}");
    }
}
