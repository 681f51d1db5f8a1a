//! What a handle asks of the driver, and who waits for which answer.

use crate::applier::Digest;
use crate::entry::Entry;
use crate::error::*;
use crate::state_machine::StateMachine;
use bytes::Bytes;
use coracle_core::{ClusterId, Index, LogId, Membership, Peer, Term};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the outcome of a write goes.
pub(crate) type WriteAnswer<S> = oneshot::Sender<Result<<S as StateMachine>::Reply, WriteError>>;

/// Where the outcome of a read goes.
pub(crate) type ReadAnswer<S> = oneshot::Sender<Result<<S as StateMachine>::Answer, ReadError>>;

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
    /// Requests of this node's callers that wait.
    pub pending: usize,
    /// Bytes that the log takes on disk, its spare files included; 0 if it uses no disk.
    pub disk_bytes: u64,
}

/// What a handle asks of the driver.
pub(crate) enum Request<S: StateMachine> {
    /// Replicate an encoded command.
    Write { command: Bytes, limit: Duration, answer: WriteAnswer<S> },
    /// Answer a query from a state that is not older than the request.
    Read { query: S::Query, answer: ReadAnswer<S> },
    /// Make this the first membership.
    Bootstrap { membership: Membership, answer: oneshot::Sender<Result<(), ConfigurationError>> },
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
            Request::Write { answer, .. } => drop(answer.send(Err(WriteError::Stopped(reason)))),
            Request::Read { answer, .. } => drop(answer.send(Err(ReadError::Stopped(reason)))),
            Request::Bootstrap { answer, .. } => drop(answer.send(Err(ConfigurationError::Stopped(reason)))),
            Request::Entry { answer, .. } => drop(answer.send(Err(EntryLookupError::Stopped(reason)))),
            // The handle finds the reason by itself.
            Request::Status { answer } => drop(answer),
        }
    }
}

/// Who waits for an answer.
pub(crate) enum Waiter<S: StateMachine> {
    Write(WriteAnswer<S>),
    /// Another node forwarded the write.
    Forwarded(Peer, u64),
    /// The query waits here until the replica knows the index.
    Read(Option<S::Query>, ReadAnswer<S>),
    Bootstrap(oneshot::Sender<Result<(), ConfigurationError>>),
}

/// Writes of this node's callers that went to the leader: at most once, over one hop.
pub(crate) struct Forwarded<S: StateMachine> {
    newest: u64,
    waiting: HashMap<u64, Sent<S>>,
}

struct Sent<S: StateMachine> {
    leader: Peer,
    term: Term,
    answer: WriteAnswer<S>,
}

impl<S: StateMachine> Forwarded<S> {
    pub(crate) fn new() -> Forwarded<S> {
        Forwarded { newest: 0, waiting: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A number for the next one.
    pub(crate) fn number(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// It went to this leader of this term.
    pub(crate) fn insert(&mut self, number: u64, leader: Peer, term: Term, answer: WriteAnswer<S>) {
        self.waiting.insert(number, Sent { leader, term, answer });
    }

    /// The answer of `from`: the encoded reply, or why there is none.
    pub(crate) fn on_reply(&mut self, from: Peer, number: u64, outcome: Result<Bytes, WriteError>) {
        if self.waiting.get(&number).is_none_or(|sent| sent.leader != from) {
            return;
        }
        let Some(Sent { answer, .. }) = self.waiting.remove(&number) else { return };
        let outcome = outcome.and_then(|bytes| {
            // It is done; only what it returned cannot be told.
            S::decode_reply(&bytes).map_err(|_| WriteError::Unknown(Cause::ReplyLost))
        });
        drop(answer.send(outcome));
    }

    /// The answers to what went to this peer will not come.
    pub(crate) fn lose(&mut self, peer: Peer) {
        self.end(&Cause::Disconnected, |sent| sent.leader == peer);
    }

    /// The term has changed: leaders of older ones may not answer any more, or only when they wake.
    pub(crate) fn on_term(&mut self, term: Term) {
        self.end(&Cause::LeadershipLost, |sent| sent.term < term);
    }

    fn end(&mut self, cause: &Cause, which: impl Fn(&Sent<S>) -> bool) {
        for (_, Sent { answer, .. }) in self.waiting.extract_if(|_, sent| which(sent)) {
            drop(answer.send(Err(WriteError::Unknown(cause.clone()))));
        }
    }

    /// Forgets those whose callers have given up.
    pub(crate) fn sweep(&mut self) {
        self.waiting.retain(|_, sent| !sent.answer.is_closed());
    }

    /// The node stops.
    pub(crate) fn stop(mut self, reason: &StopReason) {
        self.end(&Cause::Stopped(reason.clone()), |_| true);
    }
}
