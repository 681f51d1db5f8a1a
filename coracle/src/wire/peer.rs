//! From messages to frames and back.
//!
//! One function each way and, inside it, one arm for each message. Whatever a frame leaves out that the
//! message needs makes it invalid: nothing is guessed.

use super::convert::{
    from_digest, from_handed_over, from_log_id, from_route, from_stop, to_digest, to_envelope,
    to_handed_over, to_log_id, to_refusal, to_stop,
};
use super::frame::{Frame, Raw, Type, seal, seal_piece};
use super::message::{Forward, ForwardReply, PeerMessage};
use super::{WireError, membership, outcome, proto};
use crate::entry::{Entry, Kind};
use crate::proposal::{Numbered, Proposal};
use bytes::Bytes;
use coracle_core::{
    AppendEntries, AppendEntriesReply, Boot, Carried, Envelope, Index, InstallSnapshot, InstallSnapshotReply,
    LogId, Message, NodeId, ReadIndex, ReadIndexReply, RequestVote, RequestVoteReply, Round, Term,
    TimeoutNow,
};
use prost::Message as _;

/// What a forwarded write is.
mod what {
    pub(super) const COMMAND: u32 = 0;
    pub(super) const NUMBERED: u32 = 1;
    pub(super) const NOTHING: u32 = 2;
    pub(super) const OPEN: u32 = 3;
    pub(super) const CLOSE: u32 = 4;
}

/// Encodes a message.
///
/// # Panics
///
/// If the entries are not exactly those that the AppendEntries names: sending them would make a gap in the
/// receiver's log, so this is a bug of the caller and not an event to live with.
pub fn encode(message: &PeerMessage) -> Frame {
    match message {
        PeerMessage::Raft { envelope, entries } => encode_raft(envelope, entries),
        PeerMessage::Piece { envelope, bytes } => match &envelope.message {
            Message::InstallSnapshot(install) => encode_piece(Some(from_route(envelope)), install, bytes),
            // Nothing else has bytes of a snapshot beside it. Without them it is what it says; a piece may always be lost.
            _ => encode_raft(envelope, &[]),
        },
        PeerMessage::Forward(forward) => encode_forward(forward),
        PeerMessage::ForwardReply(reply) => {
            let failure = reply.outcome.as_ref().err().map(outcome::from_error);
            let meta = proto::ForwardReply { id: reply.id, failure };
            let bulk = reply.outcome.as_ref().ok().cloned().unwrap_or_default();
            seal_piece(Type::ForwardReply, &meta, &bulk)
        }
    }
}

fn encode_forward(forward: &Forward) -> Frame {
    let Forward { id, time_left, term, proposal } = forward;
    let meta = proto::Forward { id: *id, time_left: *time_left, term: term.0, ..proto::Forward::default() };
    let meta = match *proposal {
        Proposal::Command(_) => meta,
        Proposal::Numbered(Numbered { session, lane, number, acknowledged }, ref command) => {
            let what = if command.is_some() { what::NUMBERED } else { what::NOTHING };
            proto::Forward { what, session, sequence: number, lane, acknowledged, ..meta }
        }
        Proposal::Open(lifetime) => proto::Forward { what: what::OPEN, sequence: lifetime, ..meta },
        Proposal::Close(session) => proto::Forward { what: what::CLOSE, session, ..meta },
    };
    let command = proposal.command().cloned().unwrap_or_default();
    seal_piece(Type::Forward, &meta, &command)
}

fn open_forward(meta: proto::Forward, command: Bytes) -> Result<Forward, WireError> {
    let proto::Forward { id, time_left, session, sequence, term, what, lane, acknowledged } = meta;
    let empty = command.is_empty();
    let numbered =
        |command| Proposal::Numbered(Numbered { session, lane, number: sequence, acknowledged }, command);
    let proposal = match what {
        what::COMMAND => Proposal::Command(command),
        what::NUMBERED => numbered(Some(command)),
        what::NOTHING if empty => numbered(None),
        what::OPEN if empty => Proposal::Open(sequence),
        // There is no session 0.
        what::CLOSE if empty && session > 0 => Proposal::Close(session),
        _ => return Err(WireError::Invalid("an unknown kind of forwarded write")),
    };
    Ok(Forward { id, time_left, term: Term(term), proposal })
}

fn encode_raft(envelope: &Envelope, entries: &[Entry]) -> Frame {
    let route = Some(from_route(envelope));
    let carries = matches!(envelope.message, Message::AppendEntries(_));
    assert!(carries || entries.is_empty(), "only AppendEntries carries entries");
    match &envelope.message {
        Message::AppendEntries(append) => encode_append(route, append, entries),
        Message::RequestVote(vote) => {
            let last = Some(from_log_id(vote.last));
            let (campaign, pre, question) = (vote.campaign.0, vote.pre, vote.question);
            let handed_over = vote.handed_over.map(from_handed_over);
            let meta = proto::RequestVote { route, campaign, pre, handed_over, last, question };
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
            let meta = append_reply(route, reply);
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
        Message::InstallSnapshot(install) => encode_piece(route, install, &Bytes::new()),
        Message::InstallSnapshotReply(reply) => {
            let meta = proto::InstallSnapshotReply {
                route,
                term: reply.term.0,
                snapshot: Some(from_log_id(reply.snapshot)),
                file: reply.file,
                next: reply.next,
            };
            seal(Type::InstallSnapshotReply, &meta, Vec::new(), [])
        }
        Message::TimeoutNow(ask) => encode_timeout_now(route, ask),
    }
}

fn encode_timeout_now(route: Option<proto::Route>, ask: &TimeoutNow) -> Frame {
    let meta = proto::TimeoutNow { route, term: ask.term.0, last: Some(from_log_id(ask.last)) };
    seal(Type::TimeoutNow, &meta, Vec::new(), [])
}

fn encode_piece(route: Option<proto::Route>, install: &InstallSnapshot, bytes: &Bytes) -> Frame {
    let meta = proto::InstallSnapshot {
        route,
        term: install.term.0,
        snapshot: Some(from_log_id(install.snapshot)),
        file: install.file,
        length: install.length,
        offset: install.offset,
    };
    seal_piece(Type::InstallSnapshot, &meta, bytes)
}

/// The answer to an AppendEntries, as it is sent.
fn append_reply(route: Option<proto::Route>, reply: &AppendEntriesReply) -> proto::AppendEntriesReply {
    proto::AppendEntriesReply {
        route,
        term: reply.term.0,
        round: reply.round.0,
        promised: reply.promised,
        matched: reply.matched.0,
        last: reply.last.0,
        conflict: reply.conflict.map(from_log_id),
        applied: reply.applied.0,
        disk_age: reply.disk_age,
        digest: reply.digest.map(from_digest),
        stop: reply.stop.map(from_stop),
        wants: reply.wants.map(|after| after.0),
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
        lease: append.lease,
        persisted: append.persisted.0,
        disk_age: append.disk_age,
        time: append.time,
        agreed: append.agreed.map(from_digest),
    };
    let bulk = entries.iter().map(|entry| entry.bytes().clone()).collect();
    seal(Type::AppendEntries, &meta, bulk, entries.iter().map(Entry::checksum))
}

/// Verifies and decodes a message.
pub(super) fn open(raw: Raw) -> Result<PeerMessage, WireError> {
    match raw.kind {
        Type::AppendEntries => {
            let entries = entries(raw.bulk.clone())?;
            let (meta, _) = raw.verified(entries.iter().map(Entry::checksum))?;
            open_append(proto::AppendEntries::decode(meta)?, entries)
        }
        Type::Forward => {
            let (meta, command) = raw.piece()?;
            open_forward(proto::Forward::decode(meta)?, command).map(PeerMessage::Forward)
        }
        Type::InstallSnapshot => {
            let (meta, bytes) = raw.piece()?;
            open_piece(proto::InstallSnapshot::decode(meta)?, bytes)
        }
        Type::ForwardReply => {
            let (meta, reply) = raw.piece()?;
            let meta = proto::ForwardReply::decode(meta)?;
            let outcome = match meta.failure {
                None => Ok(reply),
                Some(failure) if reply.is_empty() => Err(outcome::to_error(failure)),
                Some(_) => return Err(WireError::Invalid("a reply beside a failure")),
            };
            Ok(PeerMessage::ForwardReply(ForwardReply { id: meta.id, outcome }))
        }
        kind => {
            let (route, message) = open_plain(kind, raw.plain()?)?;
            Ok(PeerMessage::Raft { envelope: to_envelope(route, message)?, entries: Vec::new() })
        }
    }
}

/// Decodes a message of the core that is nothing but its meta.
fn open_plain(kind: Type, meta: Bytes) -> Result<(Option<proto::Route>, Message), WireError> {
    match kind {
        Type::RequestVote => {
            let meta = proto::RequestVote::decode(meta)?;
            Ok((meta.route, Message::RequestVote(to_vote(meta)?)))
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
            Ok((meta.route, Message::RequestVoteReply(reply)))
        }
        Type::AppendEntriesReply => {
            let meta = proto::AppendEntriesReply::decode(meta)?;
            let reply = AppendEntriesReply {
                term: Term(meta.term),
                round: Round(meta.round),
                promised: meta.promised,
                matched: Index(meta.matched),
                last: Index(meta.last),
                conflict: meta.conflict.map(|id| to_log_id(Some(id))),
                applied: Index(meta.applied),
                disk_age: meta.disk_age,
                digest: meta.digest.map(to_digest),
                stop: meta.stop.map(to_stop),
                wants: meta.wants.map(Index),
            };
            Ok((meta.route, Message::AppendEntriesReply(reply)))
        }
        Type::ReadIndex => {
            let meta = proto::ReadIndex::decode(meta)?;
            let ask = ReadIndex { term: Term(meta.term), boot: Boot(meta.boot), sequence: meta.sequence };
            Ok((meta.route, Message::ReadIndex(ask)))
        }
        Type::ReadIndexReply => {
            let meta = proto::ReadIndexReply::decode(meta)?;
            let reply = ReadIndexReply {
                term: Term(meta.term),
                boot: Boot(meta.boot),
                sequence: meta.sequence,
                index: meta.index.map(Index),
            };
            Ok((meta.route, Message::ReadIndexReply(reply)))
        }
        Type::InstallSnapshotReply => {
            let meta = proto::InstallSnapshotReply::decode(meta)?;
            let reply = InstallSnapshotReply {
                term: Term(meta.term),
                snapshot: to_log_id(meta.snapshot),
                file: meta.file,
                next: meta.next,
            };
            Ok((meta.route, Message::InstallSnapshotReply(reply)))
        }
        Type::TimeoutNow => {
            let meta = proto::TimeoutNow::decode(meta)?;
            let ask = TimeoutNow { term: Term(meta.term), last: to_log_id(meta.last) };
            Ok((meta.route, Message::TimeoutNow(ask)))
        }
        _ => Err(WireError::Invalid("a frame that is no message of the core")),
    }
}

fn to_vote(meta: proto::RequestVote) -> Result<RequestVote, WireError> {
    Ok(RequestVote {
        campaign: Term(meta.campaign),
        pre: meta.pre,
        question: meta.question,
        last: to_log_id(meta.last),
        handed_over: meta.handed_over.map(to_handed_over).transpose()?,
    })
}

/// Builds an InstallSnapshot from what its meta says and the piece beside it.
fn open_piece(meta: proto::InstallSnapshot, bytes: Bytes) -> Result<PeerMessage, WireError> {
    let install = InstallSnapshot {
        term: Term(meta.term),
        snapshot: to_log_id(meta.snapshot),
        file: meta.file,
        length: meta.length,
        offset: meta.offset,
    };
    if install.offset.checked_add(bytes.len() as u64).is_none_or(|end| end > install.length) {
        return Err(WireError::Invalid("a piece of a snapshot goes on after its end"));
    }
    let envelope = to_envelope(meta.route, Message::InstallSnapshot(install))?;
    Ok(PeerMessage::Piece { envelope, bytes })
}

/// Builds an AppendEntries from what its meta says and its entries are.
fn open_append(meta: proto::AppendEntries, entries: Vec<Entry>) -> Result<PeerMessage, WireError> {
    let prev = to_log_id(meta.prev);
    if entries.len() as u64 != meta.count {
        return Err(WireError::Invalid("AppendEntries names another number of entries than it carries"));
    }
    let last = follows(prev, &entries)?;
    // Whoever takes these entries asks again; here is where wrong ones are refused.
    carried(prev.index, &entries)?;
    let append = AppendEntries {
        term: Term(meta.term),
        prev,
        last,
        commit: Index(meta.commit),
        round: Round(meta.round),
        lease: meta.lease,
        persisted: Index(meta.persisted),
        disk_age: meta.disk_age,
        time: meta.time,
        agreed: meta.agreed.map(to_digest),
    };
    let envelope = to_envelope(meta.route, Message::AppendEntries(append))?;
    Ok(PeerMessage::Raft { envelope, entries })
}

/// The index of the last of these entries, if they follow `prev` and each other.
fn follows(prev: LogId, entries: &[Entry]) -> Result<Index, WireError> {
    let mut last = prev;
    for entry in entries {
        if last.index.0.checked_add(1) != Some(entry.index().0) {
            return Err(WireError::Invalid("the entries of AppendEntries do not follow each other"));
        }
        if entry.term() < last.term {
            return Err(WireError::Invalid("the terms of the entries fall"));
        }
        last = entry.id();
    }
    Ok(last.index)
}

/// What the core must know of the entries after `prev`.
pub(crate) fn carried(prev: Index, entries: &[Entry]) -> Result<Carried, WireError> {
    let known = entries.iter().map(|entry| {
        let is_membership = entry.kind() == Kind::Membership;
        let membership =
            is_membership.then(|| membership::decode_membership(&entry.payload())).transpose()?;
        Ok((entry.term(), membership))
    });
    Ok(Carried::after(prev, known.collect::<Result<Vec<_>, WireError>>()?))
}

/// Entries of fewer bytes together leave the buffer that they came in, which they would keep alive as long as they
/// are cached: half of what is read at once.
const SMALL: usize = 16 << 10;

/// Cuts a bulk into entries, each verified.
pub(super) fn entries(mut bulk: Bytes) -> Result<Vec<Entry>, WireError> {
    let mut entries = Vec::new();
    if bulk.len() < SMALL {
        bulk = Bytes::copy_from_slice(&bulk);
    }
    while !bulk.is_empty() {
        let length = Entry::encoded_len(&bulk)?;
        if length > bulk.len() {
            return Err(WireError::Short);
        }
        entries.push(Entry::decode(bulk.split_to(length))?);
    }
    Ok(entries)
}
