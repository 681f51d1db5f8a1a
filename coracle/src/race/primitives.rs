//! A scheduler's locks, bells, channels and threads.

pub(crate) use shuttle::future::yield_now;
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use shuttle::thread;
use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    /// Bells forget a ring for which nobody waits: on purpose.
    pub(super) static FORGETFUL: Cell<bool> = const { Cell::new(false) };
}

/// Tokio's bell, as it is documented: one ring is kept until somebody waits; a waiter that gives up after it was
/// chosen hands its ring on.
#[derive(Debug)]
pub(crate) struct Notify {
    state: Mutex<Bell>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: bool,
    waiting: VecDeque<(u64, Waker)>,
    chosen: Vec<u64>,
    next: u64,
}

impl Bell {
    /// Whom to wake.
    fn ring(&mut self) -> Option<Waker> {
        match self.waiting.pop_front() {
            Some((number, waker)) => {
                self.chosen.push(number);
                Some(waker)
            }
            None => {
                self.rung = !FORGETFUL.get();
                None
            }
        }
    }
}

impl Notify {
    pub(crate) fn new() -> Notify {
        Notify { state: Mutex::new(Bell::default()) }
    }

    pub(crate) fn notify_one(&self) {
        let waker = self.state.lock().unwrap().ring();
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { bell: self, number: None }
    }
}

pub(crate) struct Notified<'a> {
    bell: &'a Notify,
    /// Its number, while it waits.
    number: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let bell = self.bell;
        let mut state = bell.state.lock().unwrap();
        let number = match self.number {
            Some(number) if state.chosen.contains(&number) => {
                state.chosen.retain(|chosen| *chosen != number);
                self.number = None;
                return Poll::Ready(());
            }
            Some(number) => number,
            None if std::mem::take(&mut state.rung) => return Poll::Ready(()),
            None => {
                state.next += 1;
                state.next
            }
        };
        self.number = Some(number);
        state.waiting.retain(|(waits, _)| *waits != number);
        state.waiting.push_back((number, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // A panicking test drops whatever there is.
        let Ok(mut state) = self.bell.state.lock() else { return };
        state.waiting.retain(|(waits, _)| *waits != number);
        let chosen = state.chosen.contains(&number);
        state.chosen.retain(|chosen| *chosen != number);
        let waker = if chosen { state.ring() } else { None };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A channel whose time limits come to pass at any time.
pub(crate) mod mpsc {
    use shuttle::rand::Rng;
    use shuttle::sync::mpsc;
    pub(crate) use std::sync::mpsc::RecvTimeoutError;
    use std::sync::mpsc::{RecvError, TryRecvError};
    use std::time::Duration;

    pub(crate) use mpsc::Sender;

    pub(crate) struct Receiver<T>(mpsc::Receiver<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Receiver(receiver))
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.try_recv()
        }

        pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
            loop {
                match self.try_recv() {
                    Ok(value) => return Ok(value),
                    Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) if shuttle::rand::thread_rng().r#gen() => {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    Err(TryRecvError::Empty) => shuttle::thread::yield_now(),
                }
            }
        }
    }
}
