//! How nodes reach each other.
//!
//! What travels is a [`PeerMessage`]; what the node hears back is an [`Inbound`]. The TCP implementation
//! is in [`tcp`]. Nothing here decides anything: messages may be lost, and a slow or dead peer only loses
//! its own.

pub mod tcp;

mod accept;
pub(crate) mod alarm;
mod config;
mod dial;
mod founding;
mod handshake;
mod link;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod quiet;
mod shared;

pub use alarm::Alarm;

use crate::entry::Entry;
use crate::error::WriteError;
use crate::primitives;
use crate::wire::{Answer, Ask};
use bytes::Bytes;
use coracle_core::{ClusterId, Envelope, Message, Peer, Term};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Everything that one node says to another.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerMessage {
    /// A message of the consensus core, with the bytes of the entries that an AppendEntries carries.
    Raft {
        /// The message.
        envelope: Envelope,
        /// Exactly the entries that it names; empty for everything but AppendEntries.
        entries: Vec<Entry>,
    },
    /// A write that a follower hands to the leader: at most once, one hop.
    Forward(Forward),
    /// The answer to a [`Forward`].
    ForwardReply(ForwardReply),
}

impl PeerMessage {
    /// Whether a blank node joins the sender's cluster to answer this, if that names it: a vote request or an
    /// AppendEntries.
    pub fn binds(&self) -> bool {
        let PeerMessage::Raft { envelope, .. } = self else { return false };
        matches!(envelope.message, Message::RequestVote(_) | Message::AppendEntries(_))
    }
}

/// A forwarded write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The sender's name for it, to match the answer.
    pub id: u64,
    /// How long the caller still waits, in milliseconds.
    pub time_left: u64,
    /// The client session; 0 for none.
    pub session: u64,
    /// The number within the session.
    pub sequence: u64,
    /// The term of the leader that it is meant for. In another term it is refused: a leader that slept must
    /// not do what its sender has long given up, after newer commands of the same caller.
    pub term: Term,
    /// The encoded command.
    pub command: Bytes,
}

/// The answer to a forwarded write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardReply {
    /// Echo of [`Forward::id`].
    pub id: u64,
    /// The encoded reply of the machine, or why there is none.
    pub outcome: Result<Bytes, WriteError>,
}

/// What the transport tells the node.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all of them are messages, and a box would cost each of them"
)]
pub enum Inbound {
    /// A message from a peer whose handshake held.
    Message {
        /// Who the handshake said it is.
        from: Peer,
        /// The cluster that the handshake named.
        cluster: ClusterId,
        /// Whether the handshake said that the sender's newest membership names this very node, on this disk. Only
        /// then may a blank node join that cluster.
        names_me: bool,
        /// What it says.
        message: PeerMessage,
        /// Its share of the inbound byte budget, given back when this is dropped.
        held: Held,
    },
    /// A node asks about a list of members that may found a cluster.
    Founding {
        /// Who the handshake said it is.
        from: Peer,
        /// What it asks. Boxed, as it is rare and large.
        ask: Box<Ask>,
        /// Where the answer goes. Dropped, the question has none.
        answer: oneshot::Sender<Answer>,
    },
    /// Two processes, or two states, of one disk were met, or a peer says so of this node. It was logged; until peers
    /// are authenticated nothing else comes of it.
    Alarm(Alarm),
    /// The last connection to this peer ended: answers still awaited from it will not come.
    Disconnected(Peer),
    /// The peer's process is certainly gone: it said that it stops, or its connection ended and a fresh
    /// one was refused or answered by another boot of it.
    Down(Peer),
}

/// The part of the inbound byte budget that a message takes for as long as this lives: so that what was read
/// from the network, but not handled yet, is bounded. A message that came from elsewhere holds nothing.
#[derive(Debug, Default)]
pub struct Held(#[allow(dead_code, reason = "only its drop matters")] Option<OwnedSemaphorePermit>);
