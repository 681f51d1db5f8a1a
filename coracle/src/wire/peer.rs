//! From messages to frames and back.
//!
//! One function each way and, inside it, one arm for each message. Whatever a frame leaves out that the
//! message needs makes it invalid: nothing is guessed.

use super::frame::{self, Frame, Raw, Type, body_checksum, seal};
use super::{Answer, Ask, Decoder, Incoming, WireError, membership, outcome, proto};
use crate::entry::{Entry, Kind};
use crate::transport::{Forward, ForwardReply, PeerMessage};
use bytes::{Bytes, BytesMut};
use coracle_core::{
    AppendEntries, AppendEntriesReply, Boot, Digest, Envelope, Incarnation, Index, LogId, Message, NodeId,
    Peer, ReadIndex, ReadIndexReply, Refusal, RequestVote, RequestVoteReply, Round, Term,
};
use prost::Message as _;

/// Encodes a message.
///
/// # Panics
///
/// If the entries are not exactly those that the AppendEntries names: sending them would make a gap in the
/// receiver's log, so this is a bug of the caller and not an event to live with.
pub fn encode(message: &PeerMessage) -> Frame {
    match message {
        PeerMessage::Raft { envelope, entries } => encode_raft(envelope, entries),
        PeerMessage::Forward(forward) => {
            let meta = proto::Forward {
                id: forward.id,
                time_left: forward.time_left,
                session: forward.session,
                sequence: forward.sequence,
                term: forward.term.0,
            };
            seal_piece(Type::Forward, &meta, &forward.command)
        }
        PeerMessage::ForwardReply(reply) => {
            let failure = reply.outcome.as_ref().err().map(outcome::from_error);
            let meta = proto::ForwardReply { id: reply.id, failure };
            let bulk = reply.outcome.as_ref().ok().cloned().unwrap_or_default();
            seal_piece(Type::ForwardReply, &meta, &bulk)
        }
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
        None if decoder.missing(0) > frame::HEADER || !stream.is_empty() || bytes.is_empty() => {
            Err(WireError::Short)
        }
        None => Ok(None),
    }
}

fn encode_raft(envelope: &Envelope, entries: &[Entry]) -> Frame {
    let route = Some(proto::Route {
        from: Some(from_peer(envelope.from)),
        to: Some(from_peer(envelope.to)),
        membership: Some(from_log_id(envelope.membership)),
    });
    let carries = matches!(envelope.message, Message::AppendEntries(_));
    assert!(carries || entries.is_empty(), "only AppendEntries carries entries");
    match &envelope.message {
        Message::AppendEntries(append) => encode_append(route, append, entries),
        Message::RequestVote(vote) => {
            let last = Some(from_log_id(vote.last));
            let (campaign, pre, question) = (vote.campaign.0, vote.pre, vote.question);
            let meta = proto::RequestVote { route, campaign, pre, last, question };
            seal(Type::RequestVote, &meta, Vec::new(), [])
        }
        Message::RequestVoteReply(reply) => {
            let meta = proto::RequestVoteReply {
                route,
                campaign: reply.campaign.0,
                pre: reply.pre,
                term: reply.term.0,
                granted: reply.refusal.is_none(),
                refusal: reply.refusal.map_or(0, |refusal| refusal as u32),
                leader: reply.leader.map_or(0, |leader| leader.0),
                question: reply.question,
            };
            seal(Type::RequestVoteReply, &meta, Vec::new(), [])
        }
        Message::AppendEntriesReply(reply) => {
            let meta = proto::AppendEntriesReply {
                route,
                term: reply.term.0,
                round: reply.round.0,
                matched: reply.matched.0,
                last: reply.last.0,
                conflict: reply.conflict.map(from_log_id),
                applied: reply.applied.0,
                disk_age: reply.disk_age,
                digest: reply.digest.map(from_digest),
            };
            seal(Type::AppendEntriesReply, &meta, Vec::new(), [])
        }
        Message::ReadIndex(ask) => {
            let meta = proto::ReadIndex { route, term: ask.term.0, boot: ask.boot.0, sequence: ask.sequence };
            seal(Type::ReadIndex, &meta, Vec::new(), [])
        }
        Message::ReadIndexReply(reply) => {
            let meta = proto::ReadIndexReply {
                route,
                term: reply.term.0,
                boot: reply.boot.0,
                sequence: reply.sequence,
                index: reply.index.map(|index| index.0),
            };
            seal(Type::ReadIndexReply, &meta, Vec::new(), [])
        }
    }
}

fn encode_append(route: Option<proto::Route>, append: &AppendEntries, entries: &[Entry]) -> Frame {
    // LG-7: packing that skips or repeats an entry must not leave this node.
    let first = append.prev.index.0 + 1;
    let in_place = entries.iter().zip(first..).all(|(entry, index)| entry.index().0 == index);
    assert!(
        in_place && entries.len() as u64 == append.count(),
        "AppendEntries carries exactly the entries after prev up to last"
    );
    let meta = proto::AppendEntries {
        route,
        term: append.term.0,
        prev: Some(from_log_id(append.prev)),
        count: append.count(),
        commit: append.commit.0,
        round: append.round.0,
        persisted: append.persisted.0,
        disk_age: append.disk_age,
        time: append.time,
        agreed: append.agreed.map(from_digest),
    };
    let bulk = entries.iter().map(|entry| entry.bytes().clone()).collect();
    seal(Type::AppendEntries, &meta, bulk, entries.iter().map(Entry::checksum))
}

pub(super) fn seal_piece(kind: Type, meta: &impl prost::Message, piece: &Bytes) -> Frame {
    let bulk = if piece.is_empty() { Vec::new() } else { vec![piece.clone()] };
    seal(kind, meta, bulk, piece_sum(piece))
}

/// The checksum of a bulk that is one piece; an empty one is no piece.
pub(super) fn piece_sum(piece: &Bytes) -> Option<u32> {
    (!piece.is_empty()).then(|| crc32c::crc32c(piece))
}

/// Verifies and decodes a frame.
pub(super) fn open(raw: Raw) -> Result<Incoming, WireError> {
    match raw.kind {
        Type::FoundingAsk => return Ok(Incoming::FoundingAsk(Ask::open(raw)?)),
        Type::FoundingAnswer => return Ok(Incoming::FoundingAnswer(Answer::open(raw)?)),
        _ => {}
    }
    let Raw { kind, checksum, meta, bulk } = raw;
    let verify = |sum: u32| if sum == checksum { Ok(()) } else { Err(WireError::BodyChecksum) };
    let message = match kind {
        Type::AppendEntries => {
            let entries = frame::entries(bulk)?;
            verify(body_checksum(&meta, entries.iter().map(Entry::checksum)))?;
            open_append(proto::AppendEntries::decode(meta)?, entries)?
        }
        Type::Forward => {
            verify(body_checksum(&meta, piece_sum(&bulk)))?;
            let meta = proto::Forward::decode(meta)?;
            PeerMessage::Forward(Forward {
                id: meta.id,
                time_left: meta.time_left,
                session: meta.session,
                sequence: meta.sequence,
                term: Term(meta.term),
                command: bulk,
            })
        }
        Type::ForwardReply => {
            verify(body_checksum(&meta, piece_sum(&bulk)))?;
            let meta = proto::ForwardReply::decode(meta)?;
            let outcome = match meta.failure {
                None => Ok(bulk),
                Some(failure) if bulk.is_empty() => Err(outcome::to_error(failure)),
                Some(_) => return Err(WireError::Invalid("a reply beside a failure")),
            };
            PeerMessage::ForwardReply(ForwardReply { id: meta.id, outcome })
        }
        _ if !bulk.is_empty() => return Err(WireError::Invalid("bulk after a message that has none")),
        _ => {
            verify(body_checksum(&meta, []))?;
            return open_plain(kind, meta);
        }
    };
    Ok(Incoming::Message(message))
}

/// Decodes a frame that is nothing but its meta.
fn open_plain(kind: Type, meta: Bytes) -> Result<Incoming, WireError> {
    let (route, message) = match kind {
        Type::Hello => return Ok(Incoming::Hello(proto::Hello::decode(meta)?.try_into()?)),
        Type::Welcome => return Ok(Incoming::Welcome(proto::Welcome::decode(meta)?.try_into()?)),
        Type::Refused => return Ok(Incoming::Refused(proto::Refused::decode(meta)?.into())),
        Type::Close => return Ok(Incoming::Close(proto::Close::decode(meta)?.into())),
        Type::Ping => return Ok(Incoming::Ping(proto::Ping::decode(meta)?.number)),
        Type::Pong => return Ok(Incoming::Pong(proto::Ping::decode(meta)?.number)),
        Type::Alarm => return Ok(Incoming::Alarm(proto::Alarm::decode(meta)?.into())),
        Type::AppendEntries
        | Type::Forward
        | Type::ForwardReply
        | Type::FoundingAsk
        | Type::FoundingAnswer => {
            return Err(WireError::Invalid("a message with bulk among those without"));
        }
        Type::RequestVote => {
            let meta = proto::RequestVote::decode(meta)?;
            let vote = RequestVote {
                campaign: Term(meta.campaign),
                pre: meta.pre,
                question: meta.question,
                last: to_log_id(meta.last),
            };
            (meta.route, Message::RequestVote(vote))
        }
        Type::RequestVoteReply => {
            let meta = proto::RequestVoteReply::decode(meta)?;
            let reply = RequestVoteReply {
                campaign: Term(meta.campaign),
                pre: meta.pre,
                question: meta.question,
                term: Term(meta.term),
                refusal: to_refusal(meta.granted, meta.refusal)?,
                leader: (meta.leader != 0).then_some(NodeId(meta.leader)),
            };
            (meta.route, Message::RequestVoteReply(reply))
        }
        Type::AppendEntriesReply => {
            let meta = proto::AppendEntriesReply::decode(meta)?;
            let reply = AppendEntriesReply {
                term: Term(meta.term),
                round: Round(meta.round),
                matched: Index(meta.matched),
                last: Index(meta.last),
                conflict: meta.conflict.map(|id| to_log_id(Some(id))),
                applied: Index(meta.applied),
                disk_age: meta.disk_age,
                digest: meta.digest.map(to_digest),
            };
            (meta.route, Message::AppendEntriesReply(reply))
        }
        Type::ReadIndex => {
            let meta = proto::ReadIndex::decode(meta)?;
            let ask = ReadIndex { term: Term(meta.term), boot: Boot(meta.boot), sequence: meta.sequence };
            (meta.route, Message::ReadIndex(ask))
        }
        Type::ReadIndexReply => {
            let meta = proto::ReadIndexReply::decode(meta)?;
            let reply = ReadIndexReply {
                term: Term(meta.term),
                boot: Boot(meta.boot),
                sequence: meta.sequence,
                index: meta.index.map(Index),
            };
            (meta.route, Message::ReadIndexReply(reply))
        }
    };
    let envelope = to_envelope(route, message)?;
    Ok(Incoming::Message(PeerMessage::Raft { envelope, entries: Vec::new() }))
}

/// Builds an AppendEntries from what its meta says and its entries are.
fn open_append(meta: proto::AppendEntries, entries: Vec<Entry>) -> Result<PeerMessage, WireError> {
    let prev = to_log_id(meta.prev);
    if entries.len() as u64 != meta.count {
        return Err(WireError::Invalid("AppendEntries names another number of entries than it carries"));
    }
    let mut append = AppendEntries {
        term: Term(meta.term),
        prev,
        last: prev.index,
        runs: Vec::new(),
        memberships: Vec::new(),
        commit: Index(meta.commit),
        round: Round(meta.round),
        persisted: Index(meta.persisted),
        disk_age: meta.disk_age,
        time: meta.time,
        agreed: meta.agreed.map(to_digest),
    };
    let mut term = prev.term;
    for entry in &entries {
        if append.last.0.checked_add(1) != Some(entry.index().0) {
            return Err(WireError::Invalid("the entries of AppendEntries do not follow each other"));
        }
        if entry.term() < term {
            return Err(WireError::Invalid("the terms of the entries fall"));
        }
        let membership = match entry.kind() {
            Kind::Membership => Some(membership::decode_membership(&entry.payload())?),
            _ => None,
        };
        append.push(entry.term(), membership);
        term = entry.term();
    }
    let envelope = to_envelope(meta.route, Message::AppendEntries(append))?;
    Ok(PeerMessage::Raft { envelope, entries })
}

fn to_envelope(route: Option<proto::Route>, message: Message) -> Result<Envelope, WireError> {
    let missing = WireError::Invalid("a message without its sender or receiver");
    let (Some(from), Some(to), membership) =
        route.map_or((None, None, None), |r| (r.from, r.to, r.membership))
    else {
        return Err(missing);
    };
    Ok(Envelope { from: to_peer(from), to: to_peer(to), membership: to_log_id(membership), message })
}

/// An unknown refusal must never be read as a vote, so a number that is not known is an error.
fn to_refusal(granted: bool, number: u32) -> Result<Option<Refusal>, WireError> {
    match (granted, number) {
        (true, 0) => Ok(None),
        (false, 1) => Ok(Some(Refusal::Term)),
        (false, 2) => Ok(Some(Refusal::Voted)),
        (false, 3) => Ok(Some(Refusal::Log)),
        (false, 4) => Ok(Some(Refusal::Leader)),
        (false, 5) => Ok(Some(Refusal::Rival)),
        _ => Err(WireError::Invalid("a vote that is neither granted nor refused for a known reason")),
    }
}

pub(super) fn from_log_id(id: LogId) -> proto::LogId {
    proto::LogId { term: id.term.0, index: id.index.0 }
}

pub(super) fn to_log_id(id: Option<proto::LogId>) -> LogId {
    id.map_or(LogId::ZERO, |id| LogId::new(id.term, id.index))
}

fn from_digest(digest: Digest) -> proto::Digest {
    let Digest { index, format, version, bytes } = digest;
    let number = u128::from_le_bytes(bytes);
    proto::Digest { index: index.0, format, version, low: number as u64, high: (number >> 64) as u64 }
}

fn to_digest(digest: proto::Digest) -> Digest {
    let proto::Digest { index, format, version, low, high } = digest;
    let number = u128::from(high) << 64 | u128::from(low);
    Digest { index: Index(index), format, version, bytes: number.to_le_bytes() }
}

pub(super) fn from_peer(peer: Peer) -> proto::Peer {
    proto::Peer { id: peer.id.0, incarnation: peer.incarnation.0 }
}

pub(super) fn to_peer(peer: proto::Peer) -> Peer {
    Peer { id: NodeId(peer.id), incarnation: Incarnation(peer.incarnation) }
}
