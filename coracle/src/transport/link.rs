//! A connection to a peer, and how it may end.

use super::PeerMessage;
use super::introduction::Introduction;
use super::memory::Direct;
use super::outbox::Outbox;
use crate::wire::{Close, CloseReason, WireError};
use coracle_core::{Boot, ClusterId, Peer};
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// A connection to a peer whose handshake held.
#[derive(Debug)]
pub(super) struct Link {
    /// Tells links apart; a newer link has a greater one.
    pub(super) id: u64,
    /// Who is at the other end.
    pub(super) peer: Peer,
    /// Its boot.
    pub(super) boot: Boot,
    /// The cluster in whose name the two talk.
    pub(super) cluster: ClusterId,
    /// What the other end said of itself.
    pub(super) who: Introduction,
    /// Whether this node dialed it.
    pub(super) dialed: bool,
    /// From where it was dialed, if this node did not dial it.
    pub(super) source: Option<IpAddr>,
    /// The largest frame that the other end takes.
    pub(super) max_frame: usize,
    /// What waits to be written.
    pub(super) outbox: Outbox,
    /// The way past the outbox, once the peer is known to be in this process.
    pub(super) direct: OnceLock<Direct>,
    /// Whether it is asked for a sign of life, because another boot of the peer has connected.
    pub(super) challenge: Challenge,
}

/// The question to an old link whether its boot is still there.
#[derive(Debug, Default)]
pub(super) struct Challenge {
    /// The link of the other boot, whose id is the question's number.
    rival: Mutex<Option<Arc<Link>>>,
    /// Rung when the answer was heard, and what comes of it is done.
    pub(super) answered: Notify,
    /// Whether another link has taken the place of this one: it ends with the challenge.
    pub(super) replaced: AtomicBool,
}

impl Challenge {
    fn rival(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.rival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_open(&self) -> bool {
        self.rival().is_some()
    }

    pub(super) fn set(&self, rival: &Arc<Link>) {
        *self.rival() = Some(Arc::clone(rival));
    }

    pub(super) fn end(&self) {
        *self.rival() = None;
    }

    /// The rival, if this is the number of the question. The challenge stays open until it is ended.
    pub(super) fn answer(&self, number: u64) -> Option<Arc<Link>> {
        self.rival().as_ref().filter(|rival| rival.id == number).cloned()
    }
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer said goodbye.
    #[error("it was closed: {0}")]
    Closed(Close),
    /// This side said goodbye.
    #[error("this side closed it")]
    Finished,
    /// It was cut, by the network or the death of the peer's process.
    #[error("it was cut")]
    Cut,
    /// Nothing was heard, or nothing could be written, for too long.
    #[error("nothing was heard, or nothing could be written, for too long")]
    Silent,
    /// The peer said something that cannot be accepted.
    #[error("the other side said something that cannot be accepted: {0}")]
    Protocol(WireError),
}

impl Link {
    /// Hands a message to a peer in this process. Given back if it is to be written to the stream: pieces of snapshots always
    /// are, which wait there for all else.
    #[allow(
        clippy::result_large_err,
        reason = "what is given back is the message, which a box would cost each time"
    )]
    pub(super) fn hand_over(&self, message: PeerMessage) -> Result<(), PeerMessage> {
        match self.direct.get() {
            Some(direct) if !matches!(message, PeerMessage::Piece { .. }) => direct.hand_over(message),
            _ => Err(message),
        }
    }

    /// Says goodbye; the link ends when that is written.
    pub(super) fn close(&self, reason: CloseReason, text: &str) {
        self.outbox.close(Close { reason, text: text.to_owned() }.encode());
    }
}
