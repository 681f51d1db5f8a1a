//! Those who wait for an answer, each under a name of this boot.

use std::collections::BTreeMap;
use tokio::sync::oneshot;

pub(super) struct Callers<T> {
    waiting: BTreeMap<u64, oneshot::Sender<T>>,
    newest: u64,
}

impl<T> Default for Callers<T> {
    fn default() -> Callers<T> {
        Callers { waiting: BTreeMap::new(), newest: 0 }
    }
}

impl<T> Callers<T> {
    /// One more waits. Its name.
    pub(super) fn add(&mut self, answer: oneshot::Sender<T>) -> u64 {
        self.newest += 1;
        self.waiting.insert(self.newest, answer);
        self.newest
    }

    /// Answers whoever waits under this name, if it still does.
    pub(super) fn answer(&mut self, name: u64, answer: T) {
        if let Some(waits) = self.waiting.remove(&name) {
            // It may have given up meanwhile.
            drop(waits.send(answer));
        }
    }
}
