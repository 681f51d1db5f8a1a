//! The driver's side of the [courier](crate::courier): which writes are carried in the node's session, and to whom.

use crate::courier::To;
use crate::driver::Driver;
use crate::entry::MAX_PAYLOAD;
use crate::error::{SessionError, WriteError};
use crate::proposal::Proposal;
use crate::transport::{Forward, PeerMessage};
use crate::work::{Answer, Caller, Waits, Way};
use bytes::Bytes;
use coracle_core::Member;
use std::time::Duration;

/// The level of what a session writes.
const SESSIONS: u16 = 1;

impl<W: Waits, R: Waits> Driver<W, R> {
    /// In which lane a write is carried, if it is.
    pub(crate) fn carries(&self, way: Way) -> Option<u32> {
        let raft = self.raft();
        match way {
            Way::Once => None,
            // A leader takes it without a detour, unless that would overtake others.
            Way::Lane(lane) if self.courier.is_idle(lane) => {
                let leader = raft.leader_member().map(Member::peer);
                let knows = leader.is_some_and(|leader| self.knowing.has(leader, SESSIONS));
                (self.forward && !raft.is_leader() && knows).then_some(lane)
            }
            Way::Lane(lane) | Way::Session(lane) => Some(lane),
        }
    }

    /// Whether this leader may put it into the log.
    pub(crate) fn may_propose(&self, proposal: &Proposal) -> bool {
        self.all_know(proposal.kind().level())
    }

    /// Sends what waits in the session to whoever leads now.
    pub(crate) fn carry(&mut self) {
        // Those of the same connections that are held while leadership changes come first.
        if !self.handover.is_idle() {
            return;
        }
        let raft = self.replica.raft();
        let to = if raft.is_leader() {
            Some(To::Here(raft.term()))
        } else {
            raft.leader_member().map(Member::peer).map(|leader| To::Peer(leader, raft.term()))
        };
        let proposals = self.courier.send(to, self.ticks, &mut self.forwarding.newest);
        for (flight, proposal) in proposals {
            match to {
                Some(To::Peer(leader, _)) if !self.knowing.has(leader, SESSIONS) => {
                    let error = WriteError::Session(SessionError::Unsupported);
                    self.courier.on_answer(flight, Err(error), self.ticks);
                }
                Some(To::Peer(leader, term)) => {
                    let time_left = self.limit.as_millis() as u64;
                    let forward = Forward { id: flight, time_left, term, proposal };
                    self.actions.send.push((leader, PeerMessage::Forward(forward)));
                }
                _ if proposal.len() > MAX_PAYLOAD => {
                    let problem = format!("the command takes {} bytes in a session", proposal.len());
                    self.courier.on_answer(flight, Err(WriteError::Invalid(problem)), self.ticks);
                }
                _ if self.may_propose(&proposal) => {
                    self.open += 1;
                    self.commands.push((Caller::Carried(flight), proposal));
                }
                _ => {
                    let error = WriteError::Session(SessionError::Unsupported);
                    self.courier.on_answer(flight, Err(error), self.ticks);
                }
            }
        }
    }

    /// What the machine, or another node, says of something that was sent.
    pub(crate) fn on_carried(&mut self, flight: u64, outcome: Result<Bytes, WriteError>) {
        self.courier.on_answer(flight, outcome, self.ticks);
    }

    /// Tells callers what came of their writes.
    pub(crate) fn tell_carried(&mut self) {
        let heard = self.courier.heard();
        let answers = heard.answers.into_iter().map(|(caller, outcome)| Answer::Write(caller, outcome));
        self.actions.answers.extend(answers);
        for (caller, command) in heard.back {
            self.on_write(command, Duration::ZERO, Way::Once, caller);
        }
    }
}
