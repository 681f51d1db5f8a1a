//! What a client and a node say to each other besides writes, which travel as those of a node do
//! ([`Forward`](super::Forward)): queries, and who leads.

use super::convert::{from_log_id, from_peer, to_log_id, to_peer};
use super::frame::{Frame, Raw, Type, seal_piece};
use super::membership::{decode_membership, encode_membership};
use super::{WireError, outcome, proto};
use crate::error::ReadError;
use bytes::Bytes;
use coracle_core::{LogId, Membership, Peer, Term};
use prost::Message;

/// The answer is not older than the question, wherever it is asked.
pub const LINEARIZABLE: u32 = 0;

/// A question to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The client's name for it, to match the answer.
    pub id: u64,
    /// How long the client still waits, in milliseconds.
    pub time_left: u64,
    /// How old the answer may be: [`LINEARIZABLE`], and others to come. A node refuses what it does not know.
    pub mode: u32,
    /// The question, encoded.
    pub query: Bytes,
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryReply {
    /// Echo of [`Query::id`].
    pub id: u64,
    /// The encoded answer of the machine, or why there is none.
    pub outcome: Result<Bytes, ReadError>,
}

/// Who leads, and who else is there, as one node knows it. A node tells its clients when they come, and on each change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directory {
    /// The node's term.
    pub term: Term,
    /// Whom it holds for the leader of that term.
    pub leader: Option<Peer>,
    /// Its newest membership, with the entry that it stands at; none if it was never told one.
    pub membership: Option<(LogId, Membership)>,
}

impl Query {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let Query { id, time_left, mode, ref query } = *self;
        seal_piece(Type::Query, &proto::Query { id, time_left, mode }, query)
    }

    pub(super) fn open(raw: Raw) -> Result<Query, WireError> {
        let (meta, query) = raw.piece()?;
        let proto::Query { id, time_left, mode } = proto::Query::decode(meta)?;
        Ok(Query { id, time_left, mode, query })
    }
}

impl QueryReply {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let failure = self.outcome.as_ref().err().map(outcome::from_read_error);
        let answer = self.outcome.as_ref().ok().cloned().unwrap_or_default();
        seal_piece(Type::QueryReply, &proto::ForwardReply { id: self.id, failure }, &answer)
    }

    pub(super) fn open(raw: Raw) -> Result<QueryReply, WireError> {
        let (meta, answer) = raw.piece()?;
        let proto::ForwardReply { id, failure } = proto::ForwardReply::decode(meta)?;
        let outcome = match failure {
            None => Ok(answer),
            Some(failure) if answer.is_empty() => Err(outcome::to_read_error(failure)),
            Some(_) => return Err(WireError::Invalid("an answer beside a failure")),
        };
        Ok(QueryReply { id, outcome })
    }
}

impl Directory {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let meta = proto::Directory {
            term: self.term.0,
            leader: self.leader.map(from_peer),
            newest: self.membership.as_ref().map(|(id, _)| from_log_id(*id)),
        };
        let membership = self.membership.as_ref().map(|(_, it)| encode_membership(it)).unwrap_or_default();
        seal_piece(Type::Directory, &meta, &membership)
    }

    pub(super) fn open(raw: Raw) -> Result<Directory, WireError> {
        let (meta, bulk) = raw.piece()?;
        let proto::Directory { term, leader, newest } = proto::Directory::decode(meta)?;
        let newest = to_log_id(newest);
        let membership = if bulk.is_empty() { None } else { Some((newest, decode_membership(&bulk)?)) };
        Ok(Directory { term: Term(term), leader: leader.map(to_peer), membership })
    }
}
