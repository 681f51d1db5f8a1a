//! What a handle asks of its node, and how the answers come back.

use crate::driver::Waits;
use crate::entry::Entry;
use crate::error::*;
use crate::replicated::Digest;
use crate::state_machine::StateMachine;
use crate::wire::{Answer, Ask};
use bytes::Bytes;
use coracle_core::{ClusterId, Index, LogId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// A node at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The consensus core: role, term, leader, marks, membership, peers.
    pub raft: coracle_core::Status,
    /// The cluster that the node belongs to; none while it is blank.
    pub cluster: Option<ClusterId>,
    /// The newest entry that the state machine has applied.
    pub applied: LogId,
    /// The digest of everything up to exactly [`applied`](Status::applied): equal on all nodes.
    pub digest: Digest,
    /// Bytes of committed entries that the state machine has not applied yet, as far as they are in memory.
    pub unapplied_bytes: u64,
    /// Whether the state machine has come, since the start of the node, as far as the log was committed when a
    /// leader was first heard of. Until then reads may take long.
    pub caught_up: bool,
    /// Requests of this node's callers that wait.
    pub pending: usize,
    /// Why the log has no room for more, while that is so: writes are refused as `Busy`, and reads go on.
    pub no_space: Option<String>,
    /// Known to a leader: the nodes whose state machine turned out to differ from that of a majority, and the
    /// index at which. Machines are compared every 1,024 entries.
    pub diverged: BTreeMap<NodeId, Index>,
    /// Where this node's own state machine turned out to differ from that of a majority, with authenticated peers: since
    /// then it applies and answers nothing, and does not lead.
    pub fenced: Option<Index>,
    /// Bytes that the log takes on disk, its spare files included; 0 if it uses no disk.
    pub disk_bytes: u64,
}

/// What a handle asks.
pub(crate) enum Request<S: StateMachine> {
    /// Replicate an encoded command.
    Write { command: Bytes, limit: Duration, writer: Writer<S> },
    /// Answer a query from a state that is not older than the request.
    Read { query: S::Query, reader: Reader<S> },
    /// Found the cluster of a list whose lowest node this is.
    Found { ask: Box<Ask>, answer: oneshot::Sender<Answer> },
    /// Tell how the node stands, at the end of a turn.
    Status { answer: oneshot::Sender<Status> },
    /// Look at an entry of the log.
    Entry { index: Index, answer: oneshot::Sender<Result<Entry, EntryLookupError>> },
}

impl<S: StateMachine> Request<S> {
    /// Answers a request that was never looked at: the node has stopped.
    pub(crate) fn turn_away(self, reason: &StopReason) {
        let reason = reason.clone();
        match self {
            Request::Write { writer, .. } => writer.answer(Err(WriteError::Stopped(reason))),
            Request::Read { reader, .. } => reader.answer(Err(ReadError::Stopped(reason))),
            Request::Entry { answer, .. } => drop(answer.send(Err(EntryLookupError::Stopped(reason)))),
            // The handle finds the reason by itself.
            Request::Found { answer, .. } => drop(answer),
            Request::Status { answer } => drop(answer),
        }
    }
}

/// What a machine replied.
pub(crate) enum Replied<S: StateMachine> {
    /// The machine of this node.
    Here(S::Reply),
    /// That of another one. The caller decodes it, since that is user code.
    Encoded(Bytes),
}

impl<S: StateMachine> Replied<S> {
    pub(crate) fn decode(self) -> Result<S::Reply, WriteError> {
        match self {
            Replied::Here(reply) => Ok(reply),
            // It is done; only what it returned cannot be told.
            Replied::Encoded(bytes) => {
                S::decode_reply(&bytes).map_err(|_| WriteError::Unknown(Cause::ReplyLost))
            }
        }
    }
}

/// Whom the outcome of a write goes to.
pub(crate) struct Writer<S: StateMachine>(pub(crate) oneshot::Sender<Result<Replied<S>, WriteError>>);

impl<S: StateMachine> Writer<S> {
    /// Whoever has gone away meanwhile misses the answer, and nothing else.
    pub(crate) fn answer(self, outcome: Result<Replied<S>, WriteError>) {
        drop(self.0.send(outcome));
    }
}

impl<S: StateMachine> Waits for Writer<S> {
    fn gave_up(&self) -> bool {
        self.0.is_closed()
    }
}

/// Whom the answer to a query goes to.
pub(crate) struct Reader<S: StateMachine> {
    pub(crate) answer: oneshot::Sender<Result<S::Answer, ReadError>>,
    /// Set once a quorum has confirmed the read, and only the machine is waited for.
    pub(crate) confirmed: Arc<AtomicBool>,
}

impl<S: StateMachine> Reader<S> {
    pub(crate) fn answer(self, outcome: Result<S::Answer, ReadError>) {
        drop(self.answer.send(outcome));
    }

    pub(crate) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }
}

impl<S: StateMachine> Waits for Reader<S> {
    fn gave_up(&self) -> bool {
        self.answer.is_closed()
    }
}
