//! Calls that outlast an election: what was certainly not done, and may be soon, is tried again until the time is over.

use crate::backup::{Backup, BackupError};
use crate::clock;
use crate::error::{Leader, ReadError, WriteError};
use crate::inner::Inner;
use crate::reading::{self, Query};
use crate::state_machine::StateMachine;
use crate::work::Way;
use crate::writing;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The pause before the first retry. News of a leader end a pause at once, so this is for the rest: a leader that just
/// stopped being one, or is busy.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between retries: thousands of calls that wait are then no load.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// The longest time that a call waits: more is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Writes a command in this way. What is [unknown](WriteError::Unknown) stays so.
pub(crate) async fn write<S: StateMachine>(
    inner: Arc<Inner>,
    command: S::Command,
    limit: Duration,
    way: Way,
) -> Result<S::Reply, WriteError> {
    let mut patience = inner.patience(clock::since_boot(), limit);
    // Which version the others have is heard of a moment after they are.
    while let Err(error) = inner.check_version(S::version_of(&command)) {
        if !patience.pause().await {
            return Err(error);
        }
    }
    let encoded = writing::encode::<S>(&inner, command)?;
    loop {
        match writing::send::<S>(&inner, encoded.clone(), patience.left, way).await {
            Err(
                WriteError::NotLeader { .. }
                | WriteError::NoLeader
                | WriteError::NotConfigured
                | WriteError::Busy(_),
            ) if patience.pause().await => {}
            outcome => return outcome,
        }
    }
}

/// Asks the machine for what is newest.
pub(crate) async fn read<S: StateMachine>(
    inner: Arc<Inner>,
    query: S::Query,
    limit: Duration,
) -> Result<S::Answer, ReadError> {
    let mut called = clock::since_boot();
    let mut patience = inner.patience(called, limit);
    let mut query = Query::<S>::newest(query);
    loop {
        let (error, back) = match reading::ask(&inner, query, called, patience.left).await {
            Ok(told) => return Ok(told.answer),
            Err(failed) => failed,
        };
        let soon = matches!(error, ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_));
        let Some(back) = back.filter(|_| soon) else { return Err(error) };
        if !patience.pause().await {
            return Err(error);
        }
        (query, called) = (back, clock::since_boot());
    }
}

/// A backup of everything that is done by now. Only its confirmation has to come in time.
pub(crate) async fn backup(inner: &Inner, limit: Duration) -> Result<Backup, BackupError> {
    let mut patience = inner.patience(clock::since_boot(), limit);
    loop {
        match inner.backup(patience.left).await {
            Err(BackupError::Unconfirmed(
                ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_),
            )) if patience.pause().await => {}
            given => return given,
        }
    }
}

/// The time that a call has, and what to wait for meanwhile.
struct Patience<'a> {
    leader: &'a watch::Receiver<Option<Leader>>,
    times_led: &'a AtomicU64,
    /// By the clock of this computer.
    deadline: Duration,
    /// How much of it is left for the next try.
    left: Duration,
    pause: Duration,
    /// How often it was told by then who leads: what is told after that is news.
    told: u64,
}

impl Inner {
    /// That of a call of this time.
    fn patience(&self, called: Duration, limit: Duration) -> Patience<'_> {
        Patience::new(&self.leader, &self.times_led, called, limit)
    }
}

impl<'a> Patience<'a> {
    fn new(
        leader: &'a watch::Receiver<Option<Leader>>,
        times_led: &'a AtomicU64,
        called: Duration,
        limit: Duration,
    ) -> Patience<'a> {
        let left = limit.min(LONGEST);
        // As a rule nobody waits for news, so this costs no more than a look.
        let told = times_led.load(Ordering::Acquire);
        Patience { leader, times_led, deadline: called + left, left, pause: FIRST_PAUSE, told }
    }

    /// Waits until another try makes sense. False when the time is up.
    async fn pause(&mut self) -> bool {
        let pause = self.pause.min(self.deadline.saturating_sub(clock::since_boot()));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let mut leader = self.leader.clone();
        leader.borrow_and_update();
        // Any change counts as news, also one that happened while the node was being asked.
        if self.times_led.load(Ordering::Acquire) == self.told {
            // The node is gone; the next try says so.
            if let Ok(Err(_)) = timeout(pause, leader.changed()).await {
                sleep(pause).await;
            }
        }
        self.told = self.times_led.load(Ordering::Acquire);
        self.left = self.deadline.saturating_sub(clock::since_boot());
        !self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::NodeId;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    fn waits(pause: Pin<&mut impl Future<Output = bool>>) -> bool {
        pause.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn news_of_a_leader_end_a_pause_also_those_that_came_while_the_node_was_asked() {
        let (leader, times_led) = (watch::channel(None), AtomicU64::new(0));
        let tell = |id| {
            times_led.fetch_add(1, Ordering::Release);
            leader.0.send_replace(Some(Leader::new(NodeId(id), String::new())));
        };
        let mut patience = Patience::new(&leader.1, &times_led, clock::since_boot(), LONGEST);
        patience.pause = LONGEST;
        tell(1);
        assert!(!waits(pin!(patience.pause())), "it heard of this leader before it paused");
        patience.pause = LONGEST;
        let mut pause = pin!(patience.pause());
        assert!(waits(pause.as_mut()), "nothing is new");
        tell(2);
        assert!(!waits(pause), "it hears of the next leader while it pauses");
    }
}
