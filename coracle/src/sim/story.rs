//! A run as a conversation: one line for each thing that happened, for people.

use crate::storage::{Change, WriteBatch};
use crate::transport::{ForwardReply, PeerMessage};
use coracle_core::HardState;

/// A forwarded write, or its answer, in a few words.
pub(super) fn forwarded(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Forward(forward) => {
            format!("write this in term {} (forward {})", forward.term, forward.id)
        }
        PeerMessage::ForwardReply(ForwardReply { id, outcome: Ok(_) }) => format!("done (forward {id})"),
        PeerMessage::ForwardReply(ForwardReply { id, outcome: Err(error) }) => {
            format!("{error} (forward {id})")
        }
        PeerMessage::Raft { envelope, .. } | PeerMessage::Piece { envelope, .. } => {
            envelope.message.to_string()
        }
    }
}

/// The bytes of the entries that a write adds.
pub(super) fn bytes(batch: &WriteBatch) -> u64 {
    let appended = batch.changes.iter().map(|change| match change {
        Change::Append(entries) => entries.iter().map(|entry| entry.len() as u64).sum(),
        _ => 0,
    });
    appended.sum()
}

/// A write in a few words.
pub(super) fn batch(batch: &WriteBatch) -> String {
    let mut parts = Vec::new();
    if let Some(HardState { term, vote, .. }) = batch.hard_state {
        let vote = vote.map_or("nobody".to_owned(), |peer| format!("node {}", peer.id));
        parts.push(format!("term {term} with a vote for {vote}"));
    }
    for change in &batch.changes {
        match change {
            Change::Truncate(last) => parts.push(format!("nothing after {last}")),
            Change::Append(entries) => {
                let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_string()).collect();
                parts.push(format!("entries {}", ids.join(" ")));
            }
            Change::Reset(id) => parts.push(format!("a reset to {id}")),
        }
    }
    parts.join(", ")
}
