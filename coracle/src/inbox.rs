//! The way from the handles to consensus: whoever asks at the same time goes over in one hop.
//!
//! The first of those lets the other tasks of its runtime run before it rings, so that those which are ready
//! to ask join it: under load one wake-up is shared by all of them, and the log gets larger batches. Where nobody joined the
//! last one, it does not wait. If it is dropped meanwhile it rings all the same, and if it is held up, consensus looks at
//! its next tick.

use super::primitives::{Mutex, MutexGuard, Notify, yield_now};
use std::sync::{Arc, PoisonError};

/// Why nothing more is taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// So much waits already.
    Full,
    /// Consensus has ended.
    Closed,
}

/// The handles' end.
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Consensus' end.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    bell: Notify,
    limits: Limits,
    /// How many bytes a question holds.
    weigh: fn(&T) -> usize,
}

/// What may wait in an inbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// So many questions at most.
    pub(crate) questions: usize,
    /// So many bytes of questions at most; a single one may hold more.
    pub(crate) bytes: usize,
}

impl Limits {
    /// None at all.
    const NONE: Limits = Limits { questions: usize::MAX, bytes: usize::MAX };
}

struct State<T> {
    waiting: Vec<T>,
    /// How many bytes they hold.
    bytes: usize,
    /// Somebody has rung since consensus last took what was there.
    rung: bool,
    /// When consensus took something last, nobody had joined whoever rang.
    alone: bool,
    /// Consensus takes no more.
    closed: bool,
}

/// An inbox in which only so much waits, of questions that hold so many bytes.
pub(crate) fn bounded<T>(limits: Limits, weigh: fn(&T) -> usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { waiting: Vec::new(), bytes: 0, rung: false, alone: false, closed: false });
    let shared = Arc::new(Shared { state, bell: Notify::new(), limits, weigh });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

impl<T> Sender<T> {
    /// Asks this, and sees to it that consensus is woken. What is refused is dropped. Dropping the future does
    /// not take the question back.
    pub(crate) async fn send(&self, question: T) -> Result<(), Refused> {
        self.push(question, self.shared.limits)?.ring().await;
        Ok(())
    }

    /// The same for a question that is answered however much waits.
    pub(crate) async fn send_always(&self, question: T) -> Result<(), Refused> {
        self.push(question, Limits::NONE)?.ring().await;
        Ok(())
    }

    fn push(&self, question: T, limits: Limits) -> Result<Bell<'_, T>, Refused> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let bytes = state.bytes.saturating_add((self.shared.weigh)(&question));
        if state.waiting.len() >= limits.questions || (state.bytes > 0 && bytes > limits.bytes) {
            return Err(Refused::Full);
        }
        state.bytes = bytes;
        state.waiting.push(question);
        // Whoever was first rings, for all that come until consensus looks.
        let first = state.waiting.len() == 1;
        Ok(Bell { shared: first.then_some(&self.shared), waits: !state.alone })
    }
}

/// Rings when it is dropped, if that is its owner's part.
struct Bell<'a, T> {
    shared: Option<&'a Shared<T>>,
    /// It lets others join.
    waits: bool,
}

impl<T> Bell<'_, T> {
    async fn ring(self) {
        if self.shared.is_some() && self.waits {
            yield_now().await;
        }
    }
}

impl<T> Drop for Bell<'_, T> {
    fn drop(&mut self) {
        let Some(shared) = self.shared else { return };
        let mut state = shared.lock();
        // Consensus may have looked by itself.
        if !state.waiting.is_empty() && !state.rung {
            state.rung = true;
            drop(state);
            shared.bell.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// Waits until somebody has rung. Cancel safe.
    pub(crate) async fn rung(&self) {
        while !self.shared.lock().rung {
            // The bell may have rung for what is taken already.
            self.shared.bell.notified().await;
        }
    }

    /// Takes what waits, up to so many.
    pub(crate) fn take(&self, most: usize) -> Vec<T> {
        let mut state = self.shared.lock();
        if state.rung {
            state.alone = state.waiting.len() == 1;
        }
        if state.waiting.len() <= most {
            (state.rung, state.bytes) = (false, 0);
            return std::mem::take(&mut state.waiting);
        }
        // For the rest, consensus comes again at once.
        state.rung = true;
        let rest = state.waiting.split_off(most);
        state.bytes = rest.iter().map(self.shared.weigh).sum();
        std::mem::replace(&mut state.waiting, rest)
    }

    /// Refuses what comes from now on, and takes what waits.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.shared.lock();
        (state.closed, state.bytes) = (true, 0);
        std::mem::take(&mut state.waiting)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // However consensus ended, whoever waits hears that nobody is there.
        drop(self.close());
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
