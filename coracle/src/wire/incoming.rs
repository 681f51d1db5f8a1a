//! Frames as they come in, verified and decoded: the only place that knows every type.

use super::client::{Directory, Query, QueryReply};
use super::founding::{Answer, Ask};
use super::frame::{Frames, HEADER, Raw, Type};
use super::handshake::{Alarm, Close, Hello, Refused, Welcome};
use super::message::PeerMessage;
use super::places::to_places;
use super::{WireError, peer, proto};
use crate::place::Place;
use bytes::BytesMut;
use prost::Message;

/// One frame, decoded and verified.
#[derive(Clone, PartialEq, Debug)]
pub enum Incoming {
    /// The first frame on a connection, from the one who dialed.
    Hello(Hello),
    /// The answer to a [`Hello`] that is welcome.
    Welcome(Welcome),
    /// The answer to one that is not.
    Refused(Refused),
    /// The last frame on a connection.
    Close(Close),
    /// A question for a sign of life, with a number.
    Ping(u64),
    /// The answer to it, with its number.
    Pong(u64),
    /// The sender holds that something is wrong with the receiver's disk.
    Alarm(Alarm),
    /// Where the sender found members.
    Places(Vec<Place>),
    /// A question about a list of members that may found a cluster.
    FoundingAsk(Ask),
    /// The answer to it.
    FoundingAnswer(Answer),
    /// A client's question to the machine.
    Query(Query),
    /// The answer to it.
    QueryReply(QueryReply),
    /// Who leads, and who else is there, for a client.
    Directory(Directory),
    /// Anything else. A client's writes are among these, and the answers to them.
    Message(PeerMessage),
}

/// Takes frames off a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    frames: Frames,
}

impl Decoder {
    /// A decoder that refuses frames longer than `max_frame` bytes.
    pub fn new(max_frame: usize) -> Decoder {
        Decoder { frames: Frames::new(max_frame) }
    }

    /// Changes the limit: the handshake has a far smaller one than what follows.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.frames.set_max_frame(max_frame);
    }

    /// Takes the next frame off the front of `stream`, with its length, or nothing if more bytes are needed.
    /// After an error the stream is of no more use.
    pub fn next(&mut self, stream: &mut BytesMut) -> Result<Option<(Incoming, usize)>, WireError> {
        match self.frames.next(stream)? {
            Some((raw, length)) => Ok(Some((open(raw)?, length))),
            None => Ok(None),
        }
    }

    /// The length of the frame that has begun; 0 while its header is not there, and for one that is skipped.
    pub fn begun(&self) -> usize {
        self.frames.begun()
    }

    /// How many bytes are certainly still missing before [`Decoder::next`] can say more, given that `have`
    /// are there.
    pub fn missing(&self, have: usize) -> usize {
        self.frames.missing(have)
    }
}

/// Decodes exactly one frame that holds a message, as the simulator does: bytes in, message out. None if it
/// is of a type that this version may skip. There is no limit on its length: the bytes are here already.
pub fn decode(bytes: &[u8]) -> Result<Option<PeerMessage>, WireError> {
    let mut stream = BytesMut::from(bytes);
    let mut decoder = Decoder::new(usize::MAX);
    match decoder.next(&mut stream)? {
        Some((Incoming::Message(message), _)) if stream.is_empty() => Ok(Some(message)),
        Some((Incoming::Message(_), _)) => Err(WireError::Trailing(stream.len())),
        Some(_) => Err(WireError::Invalid("a frame of the connection itself where a message is expected")),
        None if decoder.missing(0) > HEADER || !stream.is_empty() || bytes.is_empty() => {
            Err(WireError::Short)
        }
        None => Ok(None),
    }
}

/// Verifies and decodes a frame.
fn open(raw: Raw) -> Result<Incoming, WireError> {
    Ok(match raw.kind {
        Type::Hello => Incoming::Hello(proto::Hello::decode(raw.plain()?)?.try_into()?),
        Type::Welcome => Incoming::Welcome(proto::Welcome::decode(raw.plain()?)?.try_into()?),
        Type::Refused => Incoming::Refused(proto::Refused::decode(raw.plain()?)?.into()),
        Type::Close => Incoming::Close(proto::Close::decode(raw.plain()?)?.into()),
        Type::Ping => Incoming::Ping(proto::Ping::decode(raw.plain()?)?.number),
        Type::Pong => Incoming::Pong(proto::Ping::decode(raw.plain()?)?.number),
        Type::Alarm => Incoming::Alarm(proto::Alarm::decode(raw.plain()?)?.into()),
        Type::Places => Incoming::Places(to_places(proto::Places::decode(raw.plain()?)?)?),
        Type::FoundingAsk => Incoming::FoundingAsk(Ask::open(raw)?),
        Type::FoundingAnswer => Incoming::FoundingAnswer(Answer::open(raw)?),
        Type::Query => Incoming::Query(Query::open(raw)?),
        Type::QueryReply => Incoming::QueryReply(QueryReply::open(raw)?),
        Type::Directory => Incoming::Directory(Directory::open(raw)?),
        Type::RequestVote
        | Type::RequestVoteReply
        | Type::AppendEntries
        | Type::AppendEntriesReply
        | Type::ReadIndex
        | Type::ReadIndexReply
        | Type::InstallSnapshot
        | Type::InstallSnapshotReply
        | Type::TimeoutNow
        | Type::Forward
        | Type::ForwardReply => Incoming::Message(peer::open(raw)?),
    })
}
