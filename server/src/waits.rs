//! Waiting for a client: for the rest of a command, or until it takes its replies.
//!
//! A wait has one deadline from its beginning on, however often a byte comes meanwhile. A client that holds memory and is
//! waited for can be made to give way: where that memory is used up, whoever has been waited for the longest is cut off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// For how long nobody has to give way. 1 s: time for what is on its way, over any network.
const GRACE: Duration = Duration::from_secs(1);

/// Who holds memory of one budget and is waited for, longest first.
#[derive(Debug, Default)]
pub struct Slow(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    all: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

impl Slow {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the one give way that has been waited for the longest, unless that is not long yet.
    pub fn make_room(&self) {
        let mut list = self.list();
        if list.all.first_key_value().is_some_and(|(_, (since, _))| since.elapsed() >= GRACE)
            && let Some((_, (_, cut))) = list.all.pop_first()
        {
            cut.notify_one();
        }
    }

    fn enlist(&self, since: Instant, cut: &Arc<Notify>) -> u64 {
        let mut list = self.list();
        list.next += 1;
        let number = list.next;
        list.all.insert(number, (since, cut.clone()));
        number
    }
}

/// The entries in lists of one that is waited for, which end when this is dropped.
#[derive(Debug)]
struct Listed {
    entries: Vec<(Arc<Slow>, u64)>,
    cut: Arc<Notify>,
}

impl Listed {
    fn in_all(lists: Vec<Arc<Slow>>, since: Instant) -> Option<Listed> {
        if lists.is_empty() {
            return None;
        }
        let cut = Arc::new(Notify::new());
        let enlist = |list: Arc<Slow>| {
            let number = list.enlist(since, &cut);
            (list, number)
        };
        Some(Listed { entries: lists.into_iter().map(enlist).collect(), cut })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        for (list, number) in &self.entries {
            list.list().all.remove(number);
        }
    }
}

/// Why a client is not waited for any longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// It took too long.
    Late,
    /// Others need the memory that it holds.
    GaveWay,
}

/// One wait, which begins when it is first asked about. It may be interrupted, and goes on then.
#[derive(Debug, Default)]
pub struct Wait {
    since: Option<Instant>,
    listed: Option<Listed>,
}

impl Wait {
    /// The client has done what it was waited for.
    pub fn end(&mut self) {
        // As a rule it never began.
        if self.since.is_some() {
            *self = Wait::default();
        }
    }

    /// Resolves when it has lasted for so long, or must give way to others in one of these lists, those at its beginning. Cancel
    /// safe.
    pub async fn over(&mut self, limit: Duration, lists: impl FnOnce() -> Vec<Arc<Slow>>) -> Over {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.listed.is_none() {
            self.listed = Listed::in_all(lists(), since);
        }
        let late = sleep_until(since + limit);
        let Some(listed) = &self.listed else {
            late.await;
            return Over::Late;
        };
        tokio::select! {
            () = late => Over::Late,
            () = listed.cut.notified() => Over::GaveWay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_one_deadline_however_often_it_is_interrupted() {
        let (mut wait, start) = (Wait::default(), Instant::now());
        let over = loop {
            if let Ok(over) = timeout(Duration::from_secs(7), wait.over(LIMIT, Vec::new)).await {
                break over;
            }
        };
        assert_eq!((over, start.elapsed()), (Over::Late, LIMIT));
        wait.end();
        assert!(timeout(LIMIT / 2, wait.over(LIMIT, Vec::new)).await.is_err(), "another wait begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_waited_for_the_longest_gives_way_but_not_at_once() {
        let slow = Arc::new(Slow::default());
        let lists = || vec![slow.clone()];
        let (mut first, mut second) = (Wait::default(), Wait::default());
        assert!(timeout(GRACE / 2, first.over(LIMIT, lists)).await.is_err());
        slow.make_room();
        assert!(timeout(GRACE, second.over(LIMIT, lists)).await.is_err());
        slow.make_room();
        assert_eq!(first.over(LIMIT, lists).await, Over::GaveWay);
        assert!(timeout(GRACE, second.over(LIMIT, lists)).await.is_err(), "one at a time");
        second.end();
        sleep(GRACE).await;
        slow.make_room();
        assert!(slow.list().all.is_empty());
    }
}
