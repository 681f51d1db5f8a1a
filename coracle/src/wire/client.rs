//! What a client and a node say to each other besides writes, which travel as those of a node do
//! ([`Forward`](super::Forward)): queries, watches, and who leads.

use super::convert::{from_log_id, from_peer, to_log_id, to_peer};
use super::frame::{Frame, Raw, Type, seal_piece};
use super::membership::{decode_membership, encode_membership};
use super::{WireError, outcome, proto};
use crate::error::ReadError;
use crate::events::{Event, Position};
use crate::freshness::{Freshness, Seen};
use bytes::Bytes;
use coracle_core::{Index, LogId, Membership, Peer, Term};
use prost::Message;
use std::time::Duration;

/// What a client wants to know. The numbers are those of the protocol; one that a node does not know is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 0 to 2: the machine's answer, this fresh. Times travel in microseconds: what is less is cut off.
    Read(Freshness),
    /// 3: what is [published](Watched) from this place on, as soon as there is something.
    Watch(Position),
    /// One of a version to come.
    Unknown(u32),
}

/// A question to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The client's name for it, to match the answer.
    pub id: u64,
    /// How long the client still waits, in milliseconds.
    pub time_left: u64,
    /// What it wants.
    pub mode: Mode,
    /// The question to the machine, encoded.
    pub query: Bytes,
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryReply {
    /// Echo of [`Query::id`].
    pub id: u64,
    /// The encoded answer of the machine, or why there is none. Its age is counted from when it left.
    pub outcome: Result<Seen<Bytes>, ReadError>,
}

/// The answer to a [watch](Mode::Watch).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// The next events, none of them left out; nothing was published in time if it is empty.
    Events(Vec<Event>),
    /// The node does not remember the events of entries up to this one.
    Compacted(Index),
    /// The node remembers no events.
    Off,
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
    /// The version of the state machine that all members have, as far as it knows; 0: it does not say.
    pub machine: u16,
}

impl Mode {
    fn to_numbers(self) -> (u32, u64, u32) {
        match self {
            Mode::Read(Freshness::Linearizable) => (0, 0, 0),
            Mode::Read(Freshness::AtLeast(Index(index))) => (1, index, 0),
            Mode::Read(Freshness::Within(bound)) => (2, micros(bound), 0),
            Mode::Watch(Position { index, number }) => (3, index.0, number),
            Mode::Unknown(mode) => (mode, 0, 0),
        }
    }

    fn of_numbers(mode: u32, bound: u64, number: u32) -> Mode {
        match mode {
            0 => Mode::Read(Freshness::Linearizable),
            1 => Mode::Read(Freshness::AtLeast(Index(bound))),
            2 => Mode::Read(Freshness::Within(Duration::from_micros(bound))),
            3 => Mode::Watch(Position { index: Index(bound), number }),
            unknown => Mode::Unknown(unknown),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Query {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let Query { id, time_left, mode, ref query } = *self;
        let (mode, bound, number) = mode.to_numbers();
        seal_piece(Type::Query, &proto::Query { id, time_left, mode, bound, number }, query)
    }

    pub(super) fn open(raw: Raw) -> Result<Query, WireError> {
        let (meta, query) = raw.piece()?;
        let proto::Query { id, time_left, mode, bound, number } = proto::Query::decode(meta)?;
        Ok(Query { id, time_left, mode: Mode::of_numbers(mode, bound, number), query })
    }
}

impl QueryReply {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let id = self.id;
        match &self.outcome {
            Ok(Seen { answer, applied, age }) => {
                // Never younger than it is.
                let age = age.map(|age| micros(age.saturating_add(Duration::from_nanos(999))));
                let meta = proto::QueryReply { id, failure: None, applied: Some(from_log_id(*applied)), age };
                seal_piece(Type::QueryReply, &meta, answer)
            }
            Err(error) => {
                let failure = Some(outcome::from_read_error(error));
                let meta = proto::QueryReply { id, failure, applied: None, age: None };
                seal_piece(Type::QueryReply, &meta, &Bytes::new())
            }
        }
    }

    pub(super) fn open(raw: Raw) -> Result<QueryReply, WireError> {
        let (meta, answer) = raw.piece()?;
        let proto::QueryReply { id, failure, applied, age } = proto::QueryReply::decode(meta)?;
        let outcome = match failure {
            None => Ok(Seen { answer, applied: to_log_id(applied), age: age.map(Duration::from_micros) }),
            Some(failure) if answer.is_empty() => Err(outcome::to_read_error(failure)),
            Some(_) => return Err(WireError::Invalid("an answer beside a failure")),
        };
        Ok(QueryReply { id, outcome })
    }
}

impl Watched {
    /// Encodes it as the answer to a query.
    pub fn encode(&self) -> Bytes {
        let mut watched = proto::Watched::default();
        match self {
            Watched::Events(events) => watched.events = events.iter().map(from_event).collect(),
            Watched::Compacted(upto) => watched.compacted = Some(upto.0),
            Watched::Off => watched.off = true,
        }
        watched.encode_to_vec().into()
    }

    /// Decodes one.
    pub fn decode(answer: Bytes) -> Result<Watched, WireError> {
        let proto::Watched { events, compacted, off } = proto::Watched::decode(answer)?;
        Ok(match compacted {
            _ if off => Watched::Off,
            Some(upto) => Watched::Compacted(Index(upto)),
            None => Watched::Events(events.into_iter().map(to_event).collect()),
        })
    }
}

fn from_event(event: &Event) -> proto::Event {
    let Event { at: Position { index, number }, cluster_time, ref payload } = *event;
    proto::Event { index: index.0, number, cluster_time, payload: payload.clone() }
}

fn to_event(event: proto::Event) -> Event {
    let proto::Event { index, number, cluster_time, payload } = event;
    Event { at: Position { index: Index(index), number }, cluster_time, payload }
}

impl Directory {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Frame {
        let meta = proto::Directory {
            term: self.term.0,
            leader: self.leader.map(from_peer),
            newest: self.membership.as_ref().map(|(id, _)| from_log_id(*id)),
            machine: self.machine.into(),
        };
        let membership = self.membership.as_ref().map(|(_, it)| encode_membership(it)).unwrap_or_default();
        seal_piece(Type::Directory, &meta, &membership)
    }

    pub(super) fn open(raw: Raw) -> Result<Directory, WireError> {
        let (meta, bulk) = raw.piece()?;
        let proto::Directory { term, leader, newest, machine } = proto::Directory::decode(meta)?;
        let newest = to_log_id(newest);
        let membership = if bulk.is_empty() { None } else { Some((newest, decode_membership(&bulk)?)) };
        let machine = u16::try_from(machine).map_err(|_| WireError::Invalid("a version beyond all"))?;
        Ok(Directory { term: Term(term), leader: leader.map(to_peer), membership, machine })
    }
}
