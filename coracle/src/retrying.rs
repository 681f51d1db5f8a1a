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
    let mut patience = Patience::new(&inner, limit);
    // Which version the others have is heard of a moment after they are.
    while let Err(error) = inner.check_version(S::version_of(&command)) {
        if !patience.pause().await {
            return Err(error);
        }
    }
    let encoded = writing::encode::<S>(&inner, command)?;
    loop {
        match writing::send::<S>(&inner, encoded.clone(), patience.left(), way).await {
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
    let mut patience = Patience::new(&inner, limit);
    let mut query = Query::<S>::newest(query);
    loop {
        let (error, back) = match reading::ask(&inner, query, patience.left()).await {
            Ok(seen) => return Ok(seen.answer),
            Err(failed) => failed,
        };
        let soon = matches!(error, ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_));
        let Some(back) = back.filter(|_| soon) else { return Err(error) };
        if !patience.pause().await {
            return Err(error);
        }
        query = back;
    }
}

/// A backup of everything that is done by now. Only its confirmation has to come in time.
pub(crate) async fn backup(inner: &Inner, limit: Duration) -> Result<Backup, BackupError> {
    let mut patience = Patience::new(inner, limit);
    loop {
        match inner.backup(patience.left()).await {
            Err(BackupError::Unconfirmed(
                ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_),
            )) if patience.pause().await => {}
            given => return given,
        }
    }
}

/// The time that a call has, and what to wait for meanwhile.
struct Patience {
    /// By the clock of this computer.
    deadline: Duration,
    pause: Duration,
    leader: watch::Receiver<Option<Leader>>,
}

impl Patience {
    fn new(inner: &Inner, limit: Duration) -> Patience {
        let mut leader = inner.leader.clone();
        // From here on any change counts as news, also one that happens while the node is being asked.
        leader.borrow_and_update();
        Patience { deadline: clock::since_boot() + limit.min(LONGEST), pause: FIRST_PAUSE, leader }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(clock::since_boot())
    }

    /// Waits until another try makes sense. False when the time is up.
    async fn pause(&mut self) -> bool {
        let pause = self.pause.min(self.left());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        match timeout(pause, self.leader.changed()).await {
            Ok(Ok(())) => drop(self.leader.borrow_and_update()),
            // The node is gone; the next try says so.
            Ok(Err(_)) => sleep(pause).await,
            Err(_) => {}
        }
        !self.left().is_zero()
    }
}
