//! A run as a conversation: one line for each thing that happened, for people.

use crate::storage::{Change, WriteBatch};
use crate::transport::{ForwardReply, PeerMessage};
use coracle_core::*;
use std::fmt::Write as _;

/// A message in a few words.
pub(super) fn message(envelope: &Envelope) -> String {
    let mut text = String::new();
    let refused = |refusal: Option<Refusal>| match refusal {
        None => "yes".to_owned(),
        Some(why) => format!("no ({why:?})"),
    };
    let _ = match &envelope.message {
        Message::Vote(vote) => {
            let what = if vote.pre { "would you vote" } else { "vote" };
            write!(text, "{what} for me in term {}? My log ends at {}", vote.campaign, vote.last)
        }
        Message::VoteReply(reply) => {
            let what = if reply.pre { "pre-vote" } else { "vote" };
            write!(text, "{what} for term {}: {}", reply.campaign, refused(reply.refusal))
        }
        Message::Append(append) if append.count() == 0 => {
            let Append { term, prev, commit, round, .. } = append;
            write!(text, "I lead term {term}; you have {prev}; commit {commit}; round {}", round.0)
        }
        Message::Append(append) => {
            let Append { term, prev, last, commit, .. } = append;
            let terms: Vec<String> = append.runs.iter().map(|run| run.term.to_string()).collect();
            let terms = terms.join(", ");
            write!(text, "I lead term {term}; behind {prev} up to {last} of term {terms}; commit {commit}")
        }
        Message::AppendReply(reply) => {
            let AppendReply { term, matched, last, conflict, round, .. } = reply;
            let _ = write!(text, "in term {term} I have {matched} for good, {last} in all");
            match conflict {
                Some(limit) => write!(text, "; yours can match at most {limit}"),
                None => write!(text, "; round {}", round.0),
            }
        }
        Message::ReadIndex(ask) => write!(text, "where may I read? (question {})", ask.sequence),
        Message::ReadIndexReply(reply) => match reply.index {
            Some(index) => write!(text, "read at {index} (question {})", reply.sequence),
            None => write!(text, "I cannot say where to read (question {})", reply.sequence),
        },
    };
    text
}

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
        PeerMessage::Raft { envelope, .. } => self::message(envelope),
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
    if let Some(HardState { term, vote }) = batch.hard_state {
        let vote = vote.map_or("nobody".to_owned(), |peer| format!("node {}", peer.id));
        parts.push(format!("term {term} with a vote for {vote}"));
    }
    for change in &batch.changes {
        match change {
            Change::Truncate(last) => parts.push(format!("nothing behind {last}")),
            Change::Append(entries) => {
                let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_string()).collect();
                parts.push(format!("entries {}", ids.join(" ")));
            }
            Change::Reset(id) => parts.push(format!("a reset to {id}")),
        }
    }
    parts.join(", ")
}
