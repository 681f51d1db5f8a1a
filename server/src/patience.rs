//! Asking the node, with patience while there is no leader.
//!
//! A client should not notice an election: a request that was certainly not proposed is tried again until
//! the time limit. So is one that went to another node, in the session of this one, in which nothing is done twice. What
//! this node put into its own log, as a leader that was deposed then, is never tried again.
//!
//! A failure becomes an error whose first word says what the client may conclude. `CLUSTERDOWN` and
//! `BUSY`: certainly not done. `UNKNOWN`: it may take effect, now or later. `ERR`: the request is wrong.

use crate::kv::{Found, Lookup, Machine, Operation, Outcome};
use coracle::backup::{Backup, BackupError};
use coracle::{Leader, Node, ReadError, Session, WriteError, in_full};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The pause before the first retry. News of a leader end a pause at once, so this is for the rest: a
/// leader that just stopped being one, or is busy.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between retries: thousands of waiting connections are then no load.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Writes a batch, in at most about the time limit. An error is the text of an error reply.
pub(crate) async fn write<M: Machine>(
    node: &Node<M>,
    session: &Session<M>,
    batch: Vec<Operation>,
    limit: Duration,
) -> Result<Vec<Outcome>, String> {
    let mut patience = Patience::new(node, limit);
    let mut left = limit;
    loop {
        let error = match session.write_within(batch.clone(), left).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(error) => error,
        };
        let again = matches!(
            error,
            WriteError::NotLeader { .. }
                | WriteError::NoLeader
                | WriteError::NotConfigured
                | WriteError::Busy(_)
        );
        if !again || !patience.pause().await {
            return Err(match error {
                WriteError::NotLeader { .. } | WriteError::NoLeader => no_leader(limit),
                WriteError::NotConfigured => not_configured(),
                WriteError::Busy(why) => format!("BUSY {why}; this was not done"),
                WriteError::Invalid(problem) => format!("ERR {problem}"),
                WriteError::Unknown(cause) => format!("UNKNOWN {cause}; this may or may not take effect"),
                other => format!("CLUSTERDOWN {other}"),
            });
        }
        left = patience.left();
    }
}

/// Reads a batch, likewise. The answer may be shorter than the batch; then ask for the rest.
pub(crate) async fn read<M: Machine>(
    node: &Node<M>,
    batch: Vec<Lookup>,
    limit: Duration,
) -> Result<Vec<Found>, String> {
    let mut patience = Patience::new(node, limit);
    let mut left = limit;
    loop {
        let error = match node.read_within(batch.clone(), left).await {
            Ok(answers) => return Ok(answers),
            Err(error) => error,
        };
        let again = matches!(error, ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_));
        if !again || !patience.pause().await {
            return Err(match error {
                ReadError::NoLeader => no_leader(limit),
                ReadError::NotConfigured => not_configured(),
                ReadError::Busy(why) => format!("BUSY {why}; this was not done"),
                ReadError::Lagging => {
                    format!(
                        "CLUSTERDOWN this node lags, and did not catch up within {limit:?}; another may not"
                    )
                }
                ReadError::Panicked(_) => format!("ERR {error}"),
                ReadError::Timeout => format!("CLUSTERDOWN no majority confirmed the read within {limit:?}"),
                other => format!("CLUSTERDOWN {other}"),
            });
        }
        left = patience.left();
    }
}

/// A backup of everything that is done by now, likewise. The limit is for the confirmation alone: writing it takes as
/// long as the state is large.
pub(crate) async fn backup<M: Machine>(node: &Node<M>, limit: Duration) -> Result<Backup, String> {
    let mut patience = Patience::new(node, limit);
    loop {
        match node.backup().await {
            Ok(backup) => return Ok(backup),
            Err(BackupError::Unconfirmed(
                ReadError::NoLeader | ReadError::NotConfigured | ReadError::Busy(_),
            )) if patience.pause().await => {}
            Err(BackupError::Unconfirmed(ReadError::NoLeader)) => return Err(no_leader(limit)),
            Err(BackupError::Unconfirmed(ReadError::NotConfigured)) => return Err(not_configured()),
            Err(error) => return Err(no_backup(&error)),
        }
    }
}

/// What the first word says of a backup that there is not.
pub(crate) fn no_backup(error: &BackupError) -> String {
    match error {
        BackupError::Gone(_) => format!("GONE {error}"),
        BackupError::Unconfirmed(_) | BackupError::Stopped(_) => format!("CLUSTERDOWN {}", in_full(error)),
        other => format!("ERR {}", in_full(other)),
    }
}

fn no_leader(limit: Duration) -> String {
    format!("CLUSTERDOWN there was no leader within {limit:?}; this was not done")
}

fn not_configured() -> String {
    "CLUSTERDOWN this node has no cluster yet; to make one run \
     'coracle members init --to CLIENT-ADDRESS 1=PEER-ADDRESS 2=PEER-ADDRESS 3=PEER-ADDRESS'"
        .into()
}

/// The time that one request has, and what to wait for meanwhile.
struct Patience {
    deadline: Instant,
    pause: Duration,
    leader: watch::Receiver<Option<Leader>>,
}

impl Patience {
    fn new<M: Machine>(node: &Node<M>, limit: Duration) -> Patience {
        let mut leader = node.leader_changed();
        // From here on any change counts as news, also one that happens while the node is being asked.
        leader.borrow_and_update();
        Patience { deadline: Instant::now() + limit, pause: FIRST_PAUSE, leader }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits until another try makes sense. False when the time is up.
    async fn pause(&mut self) -> bool {
        let pause = self.pause.min(self.left());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        match timeout(pause, self.leader.changed()).await {
            Ok(Ok(())) => drop(self.leader.borrow_and_update()),
            // The node is gone; the next try says so.
            Ok(Err(_)) => tokio::time::sleep(pause).await,
            Err(_) => {}
        }
        !self.left().is_zero()
    }
}
