//! What a client hears of its request.

use crate::error::{Cause, ReadError, WriteError};
use crate::sim::machine::{Kv, Look, Seen, Told};
use crate::state_machine::StateMachine;
use crate::work::{Answer, RequestId};
use bytes::Bytes;
use coracle_core::{Index, NodeId};
use std::time::Duration;

/// What clients that are no members ask of nodes has numbers from here on.
pub(in crate::sim) const REMOTE: u64 = 1 << 62;

/// Whoever does not wait for an answer.
pub(in crate::sim) const NOBODY: RequestId = RequestId(0);

/// What happened to requests, for the clients.
#[derive(Debug)]
pub(in crate::sim) enum Heard {
    /// The machine's reply to a write.
    Reply(Told),
    /// The machine's answer to a read, how far it had applied, and how old that is said to be.
    Answer(Seen, Index, Option<Duration>),
    /// Certainly not done.
    NotDone(NotDone),
    /// May happen.
    Unknown,
    /// What goes to a client that is no member, as it travels.
    Sent(Result<Bytes, WriteError>),
    /// May have happened, in a session that has expired since.
    Expired,
}

/// Why a request was certainly not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum NotDone {
    /// Another node leads, or none that is known.
    NotLeader(Option<NodeId>),
    /// Too much is under way.
    Busy,
    /// Something else.
    Other,
}

impl Heard {
    /// What is heard of this answer.
    pub(super) fn of(answer: Answer<RequestId, (Look, RequestId)>) -> (RequestId, Heard) {
        match answer {
            Answer::Write(request, Ok(reply)) => (request, Heard::of_reply(&reply)),
            Answer::Write(request, Err(error)) => (request, Heard::of_failure(request, error)),
            Answer::Read((_, request), error) => (request, Heard::of_read(&error)),
        }
    }

    /// Why a write was not done, for whoever this is.
    pub(super) fn of_failure(request: RequestId, error: WriteError) -> Heard {
        if request.0 >= REMOTE { Heard::Sent(Err(error)) } else { Heard::of_write(&error) }
    }

    /// What a client that is no member makes of the end of its write.
    pub(in crate::sim) fn of_outcome(outcome: Result<Bytes, WriteError>) -> Heard {
        match outcome {
            Ok(reply) => Heard::of_reply(&reply),
            Err(error) => Heard::of_write(&error),
        }
    }

    pub(super) fn of_reply(reply: &Bytes) -> Heard {
        Kv::decode_reply(reply).map_or(Heard::Unknown, Heard::Reply)
    }

    pub(super) fn of_write(error: &WriteError) -> Heard {
        match error {
            WriteError::Unknown(Cause::SessionExpired) => Heard::Expired,
            WriteError::Unknown(_) => Heard::Unknown,
            WriteError::Busy(_) => Heard::NotDone(NotDone::Busy),
            WriteError::NotLeader { leader } => Heard::NotDone(NotDone::NotLeader(Some(leader.id))),
            WriteError::NoLeader => Heard::NotDone(NotDone::NotLeader(None)),
            _ => Heard::NotDone(NotDone::Other),
        }
    }

    pub(in crate::sim) fn of_read(error: &ReadError) -> Heard {
        Heard::NotDone(match error {
            ReadError::Busy(_) => NotDone::Busy,
            ReadError::NoLeader => NotDone::NotLeader(None),
            _ => NotDone::Other,
        })
    }
}
