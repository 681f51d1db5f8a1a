//! What a client hears of its request.

use crate::error::{Cause, ReadError, WriteError};
use crate::sim::machine::{Kv, Told};
use crate::state_machine::StateMachine;
use crate::work::{Answer, RequestId};
use bytes::Bytes;
use coracle_core::{Index, NodeId};

/// What happened to requests, for the clients.
#[derive(Debug)]
pub(in crate::sim) enum Heard {
    /// The machine's reply to a write.
    Reply(Told),
    /// The machine's answer to a read, and how far it had applied.
    Answer(Option<String>, Index),
    /// Certainly not done.
    NotDone(NotDone),
    /// May happen.
    Unknown,
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
    pub(super) fn of(answer: Answer<RequestId, (u8, RequestId)>) -> (RequestId, Heard) {
        match answer {
            Answer::Write(request, Ok(reply)) => (request, Heard::of_reply(&reply)),
            Answer::Write(request, Err(error)) => (request, Heard::of_write(&error)),
            Answer::Read((_, request), error) => (request, Heard::of_read(&error)),
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

    pub(super) fn of_read(error: &ReadError) -> Heard {
        Heard::NotDone(match error {
            ReadError::Busy(_) => NotDone::Busy,
            ReadError::NoLeader => NotDone::NotLeader(None),
            _ => NotDone::Other,
        })
    }
}
