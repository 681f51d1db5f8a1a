//! Values that many messages have, as the core knows them and as they stand in a meta. Whatever a value needs and a
//! meta leaves out is an error: nothing is guessed.

use super::{WireError, proto};
use coracle_core::{
    Digest, Envelope, HandedOver, Incarnation, Index, LogId, MachineStop, Message, NodeId, Peer, Refusal,
    Term,
};

pub(super) fn from_log_id(id: LogId) -> proto::LogId {
    proto::LogId { term: id.term.0, index: id.index.0 }
}

pub(super) fn to_log_id(id: Option<proto::LogId>) -> LogId {
    id.map_or(LogId::ZERO, |id| LogId::new(id.term, id.index))
}

pub(super) fn from_digest(digest: Digest) -> proto::Digest {
    let Digest { index, format, version, bytes } = digest;
    let number = u128::from_le_bytes(bytes);
    proto::Digest { index: index.0, format, version, low: number as u64, high: (number >> 64) as u64 }
}

pub(super) fn to_digest(digest: proto::Digest) -> Digest {
    let proto::Digest { index, format, version, low, high } = digest;
    let number = u128::from(high) << 64 | u128::from(low);
    Digest { index: Index(index), format, version, bytes: number.to_le_bytes() }
}

pub(super) fn from_stop(MachineStop { at, after }: MachineStop) -> proto::MachineStop {
    proto::MachineStop { at: Some(from_log_id(at)), after: after.0 }
}

pub(super) fn to_stop(stop: proto::MachineStop) -> MachineStop {
    MachineStop { at: to_log_id(stop.at), after: Index(stop.after) }
}

pub(super) fn from_peer(peer: Peer) -> proto::Peer {
    proto::Peer { id: peer.id.0, incarnation: peer.incarnation.0 }
}

pub(super) fn to_peer(peer: proto::Peer) -> Peer {
    Peer { id: NodeId(peer.id), incarnation: Incarnation(peer.incarnation) }
}

pub(super) fn from_handed_over(handed: HandedOver) -> proto::HandedOver {
    proto::HandedOver { by: Some(from_peer(handed.by)), term: handed.term.0 }
}

pub(super) fn to_handed_over(handed: proto::HandedOver) -> Result<HandedOver, WireError> {
    let by = handed.by.ok_or(WireError::Invalid("a transfer of leadership by nobody"))?;
    Ok(HandedOver { by: to_peer(by), term: Term(handed.term) })
}

/// Where a message comes from and goes to.
pub(super) fn from_route(envelope: &Envelope) -> proto::Route {
    proto::Route {
        from: Some(from_peer(envelope.from)),
        to: Some(from_peer(envelope.to)),
        membership: Some(from_log_id(envelope.membership)),
    }
}

/// The message, if its route is whole.
pub(super) fn to_envelope(route: Option<proto::Route>, message: Message) -> Result<Envelope, WireError> {
    let missing = WireError::Invalid("a message without its sender or receiver");
    let (Some(from), Some(to), membership) =
        route.map_or((None, None, None), |r| (r.from, r.to, r.membership))
    else {
        return Err(missing);
    };
    Ok(Envelope { from: to_peer(from), to: to_peer(to), membership: to_log_id(membership), message })
}

/// An unknown refusal must never be read as a vote, so a number that is not known is an error.
pub(super) fn to_refusal(granted: bool, number: u32) -> Result<Option<Refusal>, WireError> {
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

/// The longest text of an error, in bytes: a few lines, and two of them fit into a meta.
pub(super) const MAX_TEXT: usize = 4 << 10;

/// The part of a text that is sent: its start, cut between two characters.
pub(super) fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}
