//! Who waits for an answer of the cluster: a future at one end, and at the other whoever will have it.

use crate::slot::{Holds, Slot, Waiting};
use crate::work::Waits;
use std::sync::Arc;

/// The place for an answer, which both ends share.
pub(crate) struct Place<T>(Slot<T>);

impl<T> Holds for Place<T> {
    type Answer = T;

    fn slot(&self) -> &Slot<T> {
        &self.0
    }
}

/// Whom the answer goes to. Dropped without one, it says that none will come.
pub(crate) struct Caller<T> {
    place: Arc<Place<T>>,
    /// After which tick it waits no more.
    pub(crate) until: u64,
}

impl<T> Caller<T> {
    /// Both ends.
    pub(crate) fn new() -> (Caller<T>, Waiting<Place<T>>) {
        let place = Arc::new(Place(Slot::new()));
        (Caller { place: place.clone(), until: u64::MAX }, Waiting::new(place))
    }

    /// Gives it the answer.
    pub(crate) fn answer(self, answer: T) {
        self.place.0.answer(answer);
    }
}

impl<T> Drop for Caller<T> {
    fn drop(&mut self) {
        // After an answer it means nothing.
        self.place.0.lose();
    }
}

impl<T> Waits for Caller<T> {
    fn gave_up(&self) -> bool {
        self.place.0.is_left()
    }
}
