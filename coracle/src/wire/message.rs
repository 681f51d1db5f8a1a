//! What nodes say to each other once they are connected.

use super::{SESSIONS, SNAPSHOTS, TRANSFERS};
use crate::entry::Entry;
use crate::error::WriteError;
use crate::proposal::Proposal;
use bytes::Bytes;
use coracle_core::{Envelope, Message, Term};

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
    /// A piece of a snapshot: an InstallSnapshot, with the bytes that it says are beside it.
    Piece {
        /// The message.
        envelope: Envelope,
        /// The bytes of the file, from its offset on.
        bytes: Bytes,
    },
    /// A write that a follower hands to the leader, over one hop: at most once, or within a session.
    Forward(Forward),
    /// The answer to a [`Forward`].
    ForwardReply(ForwardReply),
}

impl PeerMessage {
    /// The features that whoever gets it must have.
    pub fn needs(&self) -> u64 {
        match self {
            PeerMessage::Piece { .. } => SNAPSHOTS,
            PeerMessage::Raft { envelope, .. } => match envelope.message {
                Message::InstallSnapshot(_) | Message::InstallSnapshotReply(_) => SNAPSHOTS,
                Message::TimeoutNow(_) => TRANSFERS,
                _ => 0,
            },
            PeerMessage::Forward(Forward { proposal: Proposal::Command(_), .. }) => 0,
            PeerMessage::Forward(_) => SESSIONS,
            PeerMessage::ForwardReply(_) => 0,
        }
    }

    /// Whether a blank node joins the sender's cluster to answer this, if that names it: a vote request, an
    /// AppendEntries, or a piece of a snapshot.
    pub fn binds(&self) -> bool {
        let (PeerMessage::Raft { envelope, .. } | PeerMessage::Piece { envelope, .. }) = self else {
            return false;
        };
        let asks = &envelope.message;
        matches!(asks, Message::RequestVote(_) | Message::AppendEntries(_) | Message::InstallSnapshot(_))
    }
}

/// A forwarded write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The sender's name for it, to match the answer.
    pub id: u64,
    /// How long the caller still waits, in milliseconds.
    pub time_left: u64,
    /// The term of the leader that it is meant for. In another term it is refused: a leader that slept must
    /// not do what its sender has long given up, after newer commands of the same caller.
    pub term: Term,
    /// What is to be written.
    pub proposal: Proposal,
}

/// The answer to a forwarded write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardReply {
    /// Echo of [`Forward::id`].
    pub id: u64,
    /// The encoded reply of the machine, or why there is none.
    pub outcome: Result<Bytes, WriteError>,
}
