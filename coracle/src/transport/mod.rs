//! How nodes reach each other.
//!
//! What travels is a [`PeerMessage`]; what the node hears back is an [`Inbound`]. The TCP implementation
//! is in [`tcp`], and serves a [`MemoryNetwork`] too. Nothing here decides anything: messages may be lost, and a slow or dead peer only loses
//! its own.

pub mod tcp;

mod accept;
pub(crate) mod alarm;
mod budget;
pub(crate) mod certificate;
mod config;
mod conversation;
pub(crate) mod dial;
mod farewell;
mod founding;
mod handshake;
mod introduction;
mod link;
mod memory;
mod notices;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod pipe;
pub(crate) mod places;
mod quiet;
#[cfg_attr(not(feature = "tls"), path = "insecure.rs")]
mod secure;
mod shared;
mod socket;
pub(crate) mod visit;

pub use crate::wire::{Forward, ForwardReply, PeerMessage};
pub use alarm::Alarm;
pub use certificate::{CertificateName, Role};
pub use memory::MemoryNetwork;
pub use secure::Tls;
#[cfg(feature = "tls")]
pub use secure::{BlockingStream, Encrypted, TlsDialer, TlsError, TlsFiles, TlsMode};
pub use visit::Visitor;

use crate::primitives;
use crate::wire::{Answer, Ask};
use bytes::Bytes;
use coracle_core::{ClusterId, Membership, Peer};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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
    /// A node asks to be taken into the cluster.
    Newcomer {
        /// Who, and by what right. Boxed, as it is rare and large.
        newcomer: Box<Newcomer>,
        /// Where the answer goes. Dropped, the question has none.
        answer: oneshot::Sender<Answer>,
    },
    /// A client has come. Whoever serves it takes it over; dropped, it is sent away.
    Client(Box<Visitor>),
    /// Two processes, or two states, of one disk were met, or a peer says so of this node. It was logged; until peers
    /// are authenticated nothing else comes of it.
    Alarm(Alarm),
    /// The last connection to this peer ended: answers still awaited from it will not come.
    Disconnected(Peer),
    /// The peer's process is certainly gone: it said that it stops, or its connection ended and a fresh
    /// one was refused or answered by another boot of it.
    Down(Peer),
}

/// A node that asks to be taken into a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// Who the handshake said it is.
    pub from: Peer,
    /// What it wants to be, alone in a list.
    pub list: Membership,
    /// What it shows of what the cluster's nodes have in common.
    pub token: Bytes,
    /// Whether it has shown the certificate for its name.
    pub authenticated: bool,
    /// Whether it has a cluster already, which is this one.
    pub has_cluster: bool,
}

/// The part of the inbound byte budget that a message takes for as long as this lives: so that what was read
/// from the network, but not handled yet, is bounded. A message that came from elsewhere holds nothing.
#[derive(Debug, Default)]
pub struct Held(#[allow(dead_code, reason = "only its drop matters")] Option<OwnedSemaphorePermit>);
