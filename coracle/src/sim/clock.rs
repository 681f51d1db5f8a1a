//! What a node's clock shows: not the true time.

use crate::replica::Moment;

/// A node's own idea of time: a rate and a jump ahead. Never backwards.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Local microseconds per 1000 true ones.
    pub(super) rate: u64,
    /// True time when the rate was last set, and the local time then.
    since: (u64, u64),
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { rate: 1000, since: (0, 0) }
    }

    pub(super) fn local(&self, now: u64) -> u64 {
        self.since.1 + (now - self.since.0) * self.rate / 1000
    }

    /// From `now` on it runs at another rate, after a jump.
    pub(super) fn set(&mut self, now: u64, rate: u64, jump: u64) {
        self.since = (now, self.local(now) + jump);
        self.rate = rate;
    }

    pub(super) fn moment(&self, now: u64) -> Moment {
        let local = self.local(now);
        Moment::new(local / 1000, local / 1000)
    }
}
