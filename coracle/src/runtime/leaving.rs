//! A leader that is asked to stop hands over first, so that nobody has to wait for an election timeout, and nobody hears
//! that the fate of a write is unknown. For so long at most; where nobody can take over, it stops at once.

use super::Runtime;
use crate::config::TICK;
use crate::error::StopReason;
use crate::work::Transferred;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// How long a leader that stops tries to hand over, in ticks: twice the longest election timeout, and so long at most.
const PATIENCE: u64 = 200;

/// How long it waits, when another leads, for the answers to those who still wait, in ticks.
const ANSWERS: u64 = 50;

/// How far it has come.
pub(super) enum Leaving {
    /// It hands over, until this tick at most.
    Transfer(oneshot::Receiver<Transferred>, u64),
    /// It takes no more requests, and those under way are answered, until this tick at most.
    Answers(u64),
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
        let longest = 2 * self.parts.config.election_timeout.1.as_nanos() / TICK.as_nanos();
        let limit = PATIENCE.min(u64::try_from(longest).unwrap_or(PATIENCE));
        self.leaving = Some(Leaving::Transfer(answered, self.parts.driver.ticks + limit));
    }

    /// Ends the node when all is done, or nothing more can be.
    pub(super) fn look_after_leaving(&mut self) {
        let now = self.parts.driver.ticks;
        let leads = self.parts.driver.raft().is_leader();
        match &mut self.leaving {
            None => {}
            Some(Leaving::Transfer(answered, until)) => {
                let over = match answered.try_recv() {
                    Err(TryRecvError::Empty) => false,
                    // Or somebody else has it hand over already.
                    _ => self.parts.driver.raft().transferring_to().is_none(),
                };
                if !over && now < *until {
                    return;
                }
                if leads {
                    // Nobody takes over.
                    self.end = self.end.take().or(Some(StopReason::Requested));
                } else {
                    self.close();
                    self.leaving = Some(Leaving::Answers(now + ANSWERS));
                }
            }
            Some(Leaving::Answers(until)) if leads || now >= *until || self.parts.driver.pending() == 0 => {
                self.end = self.end.take().or(Some(StopReason::Requested));
            }
            Some(Leaving::Answers(_)) => {}
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
