//! The history of a machine's events, as the machine and all who watch it share it, and how they wake.

use crate::clock;
use crate::events::{Event, History, News, Position};
use coracle_core::Index;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// For how long after a look it counts as watched: whoever has got something asks again soon.
const WATCHED: Duration = Duration::from_secs(1);

/// How many events are taken out of the history at a time.
const BATCH: usize = 64;

/// What a machine publishes.
pub(crate) struct Published {
    history: Mutex<History>,
    /// Rings when there is something new. True: the machine is used no more, since it differs from the others.
    pub(crate) news: watch::Sender<bool>,
    /// Until when it counts as watched after the last look, in milliseconds since the computer started.
    watched_until: AtomicU64,
    /// Whether anything is published at all.
    pub(crate) keeps: bool,
}

impl Published {
    /// Of a machine that has applied nothing; so many bytes are kept at most.
    pub(crate) fn new(most: u64) -> Published {
        let history = Mutex::new(History::new(most, Index::ZERO));
        let watched_until = AtomicU64::new(0);
        Published { history, news: watch::channel(false).0, watched_until, keeps: most > 0 }
    }

    /// The machine published this.
    pub(crate) fn take(&self, news: News) {
        if self.keeps && news != News::default() {
            self.history.lock().unwrap_or_else(PoisonError::into_inner).take(news);
            self.news.send_modify(|_| {});
        }
    }

    /// Whether somebody waits for what is new, or did a moment ago, and so will again.
    pub(crate) fn is_watched(&self) -> bool {
        let now = clock::since_boot().as_millis() as u64;
        self.news.receiver_count() > 0 || now < self.watched_until.load(Ordering::Relaxed)
    }

    /// The machine is not to be trusted.
    pub(crate) fn fence(&self) {
        self.news.send_replace(true);
    }

    /// It is rebuilt, and can be trusted again.
    pub(crate) fn mend(&self) {
        self.news.send_replace(false);
    }

    /// The next events from there on, a few of them. An error: those of entries up to this one are gone.
    pub(crate) fn from(&self, at: Position) -> Result<Vec<Event>, Index> {
        let until = clock::since_boot() + WATCHED;
        self.watched_until.store(until.as_millis() as u64, Ordering::Relaxed);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).from(at, BATCH)
    }
}
