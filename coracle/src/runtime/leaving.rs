//! A leader that is asked to stop hands over first, so that nobody has to wait for an election timeout, and nobody hears
//! that the fate of a write is unknown. For so long at most; where nobody can take over, it stops at once.

use super::Runtime;
use crate::error::StopReason;
use crate::work::Transferred;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

/// How long a leader that stops tries to hand over: twice the longest election timeout, and so long at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits, when another leads, for the answers to those who still wait.
const ANSWERS: Duration = Duration::from_millis(500);

/// How far it has come.
pub(super) enum Leaving {
    /// It hands over, until then at most.
    Transfer(oneshot::Receiver<Transferred>, Instant),
    /// It takes no more requests, and those under way are answered, until then at most.
    Answers(Instant),
}

impl Runtime {
    /// Somebody wants the node to stop.
    pub(super) fn leave(&mut self) {
        if !self.parts.driver.raft().is_leader() {
            self.end = Some(StopReason::Requested);
            return;
        }
        let (answer, answered) = oneshot::channel();
        self.transfer(None, answer);
        let limit = (2 * self.parts.config.election_timeout.1).min(PATIENCE);
        self.leaving = Some(Leaving::Transfer(answered, Instant::now() + limit));
    }

    /// Ends the node when all is done, or nothing more can be.
    pub(super) fn look_after_leaving(&mut self) {
        match &mut self.leaving {
            None => {}
            Some(Leaving::Transfer(answered, until)) => {
                let over = match answered.try_recv() {
                    Err(TryRecvError::Empty) => false,
                    // Or somebody else has it hand over already.
                    _ => self.parts.driver.raft().transferring_to().is_none(),
                };
                if over || Instant::now() >= *until {
                    self.close();
                    self.leaving = Some(Leaving::Answers(Instant::now() + ANSWERS));
                }
            }
            Some(Leaving::Answers(until)) => {
                let led = self.parts.driver.raft().is_leader();
                if led || self.parts.driver.pending() == 0 || Instant::now() >= *until {
                    self.end = self.end.take().or(Some(StopReason::Requested));
                }
            }
        }
    }

    /// Takes no more requests.
    fn close(&mut self) {
        let reason = StopReason::Requested;
        self.parts.ending.send_replace(Some(reason.clone()));
        for request in self.parts.requests.close() {
            request.turn_away(&reason);
        }
    }
}
