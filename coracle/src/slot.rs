//! One answer, from whoever has it to whoever waits for it.
//!
//! What a `oneshot` channel does, but in a place that both sides share whole: so the side that answers can be held as a
//! `dyn` of what it needs, by code that does not know the type of the answer, and no answer is boxed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The place for an answer.
pub(crate) struct Slot<T>(Mutex<State<T>>);

enum State<T> {
    /// There is no answer yet. Who is to be woken by it.
    Open(Option<Waker>),
    /// The answer, until it is taken.
    Answered(T),
    /// Nobody will answer any more.
    Lost,
    /// Nobody waits any more, or the answer was taken.
    Left,
}

/// What has a place for an answer.
pub(crate) trait Holds {
    /// What the answer is.
    type Answer;

    /// The place.
    fn slot(&self) -> &Slot<Self::Answer>;
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Slot<T> {
        Slot(Mutex::new(State::Open(None)))
    }

    /// Answers. Whoever has gone away meanwhile misses it.
    pub(crate) fn answer(&self, answer: T) {
        self.end(State::Answered(answer));
    }

    /// Nobody will answer. After an answer it means nothing.
    pub(crate) fn lose(&self) {
        self.end(State::Lost);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_left(&self) -> bool {
        matches!(*self.lock(), State::Left)
    }

    fn end(&self, end: State<T>) {
        let waker = {
            let mut state = self.lock();
            let State::Open(waker) = &mut *state else { return };
            let waker = waker.take();
            *state = end;
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer. Dropping it tells the other side that nobody does.
pub(crate) struct Waiting<H: Holds> {
    shared: Arc<H>,
    /// Whether all is told that there will be.
    over: bool,
}

impl<H: Holds> Waiting<H> {
    pub(crate) fn new(shared: Arc<H>) -> Waiting<H> {
        Waiting { shared, over: false }
    }

    /// What both sides share.
    pub(crate) fn shared(&self) -> &H {
        &self.shared
    }
}

impl<H: Holds> Future for Waiting<H> {
    /// None: nobody will answer.
    type Output = Option<H::Answer>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<H::Answer>> {
        let Waiting { shared, over } = self.get_mut();
        let mut state = shared.slot().lock();
        if let State::Open(waker) = &mut *state {
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        *over = true;
        match std::mem::replace(&mut *state, State::Left) {
            State::Answered(answer) => Poll::Ready(Some(answer)),
            _ => Poll::Ready(None),
        }
    }
}

impl<H: Holds> Drop for Waiting<H> {
    fn drop(&mut self) {
        if !self.over {
            // What is dropped here may be anybody's code, and so is dropped after the lock.
            let state = std::mem::replace(&mut *self.shared.slot().lock(), State::Left);
            drop(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    impl<T> Holds for Slot<T> {
        type Answer = T;

        fn slot(&self) -> &Slot<T> {
            self
        }
    }

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An answer of which it shows whether somebody holds it.
    type Held = Slot<Arc<()>>;

    fn pair() -> (Arc<Held>, Waiting<Held>) {
        let slot = Arc::new(Slot::new());
        (slot.clone(), Waiting::new(slot))
    }

    #[test]
    fn an_answer_wakes_whoever_waits_and_is_the_first_one() {
        let (slot, waiting) = pair();
        let mut waiting = pin!(waiting);
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        for bell in &bells {
            let waker = Waker::from(bell.clone());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let first = Arc::new(());
        slot.answer(first.clone());
        slot.answer(Arc::new(()));
        slot.lose();
        let rung = bells.map(|bell| bell.0.load(Ordering::Relaxed));
        assert_eq!(rung, [0, 1], "the newest one that polls is woken, once");
        let Poll::Ready(Some(answer)) = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("there is an answer");
        };
        assert!(Arc::ptr_eq(&answer, &first));
    }

    #[test]
    fn whoever_waits_hears_that_nobody_will_answer() {
        let (slot, waiting) = pair();
        let bell = Arc::new(Bell::default());
        let mut waiting = pin!(waiting);
        let waker = Waker::from(bell.clone());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        slot.lose();
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn whoever_answers_hears_that_nobody_waits_and_the_answer_is_dropped() {
        let (slot, waiting) = pair();
        assert!(!slot.is_left());
        drop(waiting);
        assert!(slot.is_left());
        let answer = Arc::new(());
        slot.answer(answer.clone());
        assert_eq!(Arc::strong_count(&answer), 1);
        let (slot, waiting) = pair();
        slot.answer(answer.clone());
        drop(waiting);
        assert_eq!(Arc::strong_count(&answer), 1, "an answer that is not taken goes with its future");
    }
}
