//! What can go wrong, grouped by what the caller can do next.
//!
//! The rule behind all of it: "definitely failed" is never said of something that may still happen. A
//! write that was handed to the log and then lost sight of is [`WriteError::Unknown`].

use crate::state_machine::CodecError;
use crate::storage::StoreError;
use bytes::Bytes;
use coracle_core::{ClusterId, GivenUp, Index, LogId, NodeId};
use std::error::Error;
use std::io;
use std::sync::Arc;

/// An error with all that it came from, on one line. An error of this library says what it came from either in its own
/// text or by [`source`](Error::source), and never both ways; so its text alone may say too little for a log.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The node that a request should go to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Leader {
    /// Its name.
    pub id: NodeId,
    /// Its peer address, as the membership has it.
    pub address: String,
    /// What its application wants known of it ([`Config::metadata`](crate::Config::metadata)), such as where its clients
    /// reach it. Empty as long as this node has not met it.
    pub metadata: Bytes,
}

impl Leader {
    /// One of which nothing more is known.
    pub(crate) fn new(id: NodeId, address: String) -> Leader {
        Leader { id, address, metadata: Bytes::new() }
    }
}

/// Why a write has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Certainly not done: another node leads. Ask that one.
    #[error("node {} at {} is the leader", .leader.id, .leader.address)]
    NotLeader {
        /// Who leads.
        leader: Leader,
    },
    /// Certainly not done: no leader is known now. Try again soon.
    #[error("there is no leader now")]
    NoLeader,
    /// Certainly not done: a client could reach no node of the cluster.
    #[error("no node could be reached: {0}")]
    Unreachable(String),
    /// Certainly not done: the node was never told its cluster. See [`Node::set_configuration`](crate::Node::set_configuration).
    #[error("the node is not configured: call set_configuration on one node of the cluster")]
    NotConfigured,
    /// Certainly not done: too much is under way already. Try again after a pause.
    #[error("{0}: try again later")]
    Busy(Busy),
    /// Certainly not done: the command is for a version of the state machine that not all members are known to have, and would
    /// stop those that lack it. Write it when all are upgraded; see
    /// [`StateMachine::version_of`](crate::StateMachine::version_of).
    #[error(
        "the command needs version {needs} of the state machine, and all members are only known to have version {all_have}: \
         upgrade the others first"
    )]
    NotYet {
        /// What the command needs.
        needs: u16,
        /// What all members have, as far as this node has met them.
        all_have: u16,
    },
    /// Certainly not done, and never will be: the request itself is wrong.
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// It may or may not take effect, now or later.
    #[error("the outcome is unknown: {0}")]
    Unknown(Cause),
    /// Certainly not done: the state machine of the leader has stopped before this entry, which it cannot apply, and no
    /// other member's has passed it. Operators decide what becomes of it: see [`Node::skip_entry`](crate::Node::skip_entry).
    #[error("the state machine has stopped before entry {0}, which it cannot apply: see the node's status")]
    MachineStopped(LogId),
    /// Its session does not take it as it came. Whoever keeps a session handles this; what [`Node`](crate::Node) and its
    /// sessions return is never this, and what a [client](crate::client) returns is only
    /// [`Unsupported`](SessionError::Unsupported), where no session could be opened in time: then it certainly was not done.
    #[error("{0}")]
    Session(SessionError),
    /// Certainly not done: this node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

impl WriteError {
    /// Whether the write certainly took no effect and never will, so that it may be tried again, here or on another
    /// node. Otherwise it may have, or still may.
    pub fn certainly_not_done(&self) -> bool {
        match self {
            WriteError::Unknown(_) => false,
            // An earlier copy of it may have been done.
            WriteError::Session(why) => !matches!(why, SessionError::Expired | SessionError::Forgotten),
            _ => true,
        }
    }
}

/// Why a session does not take a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no such session, or no more: it was not heard for its lifetime. What was sent in it may have been done.
    #[error("the session has expired")]
    Expired,
    /// What comes before it in its lane has not come.
    #[error("a command that comes before it in its session has not come")]
    Gap,
    /// It was done, and its answer was acknowledged and forgotten.
    #[error("its answer was acknowledged before")]
    Forgotten,
    /// As many sessions, lanes or answers are kept as may be.
    #[error(
        "too many sessions are open, or too many of their answers were not acknowledged: try again later"
    )]
    Full,
    /// A member of the cluster is of a version that does not know sessions, or may be.
    #[error("not all members are known to know sessions: upgrade them, and see that the leader reaches each")]
    Unsupported,
}

/// What has no room for another request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Busy {
    /// As many requests wait in the node as [`max_pending`](crate::Config::max_pending) allows, or as many bytes of
    /// commands as [`max_unproposed_bytes`](crate::Config::max_unproposed_bytes) does.
    #[error("too many requests wait")]
    Requests,
    /// [`max_unpersisted_bytes`](crate::Config::max_unpersisted_bytes) wait for the leader's disk.
    #[error("too much waits for the leader's disk")]
    Disk,
    /// [`max_uncommitted_bytes`](crate::Config::max_uncommitted_bytes) wait until a quorum has them.
    #[error("too much waits for a quorum")]
    Quorum,
    /// [`max_unapplied_bytes`](crate::Config::max_unapplied_bytes) wait for the leader's state machine.
    #[error("the leader's state machine lags too far")]
    Machine,
    /// The leader's log has no room for more: its disk is full. What exactly is missing says the leader's
    /// [`Status::no_space`](crate::Status::no_space).
    #[error("the leader's disk is full")]
    Space,
}

/// Why the outcome of a write is unknown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// No reply came in time.
    #[error("no reply came within the time limit")]
    Timeout,
    /// The leader lost its leadership before it knew.
    #[error("leadership was lost before the entry was committed")]
    LeadershipLost,
    /// The write was forwarded, and the connection to the leader ended before the answer.
    #[error("the connection to the leader ended before its answer")]
    Disconnected,
    /// It was applied, but its reply cannot be carried to the node that forwarded it: it has no encoding, or
    /// too long a one.
    #[error("it was done, but its reply cannot be carried to this node")]
    ReplyLost,
    /// The state machine stopped before this entry, which it cannot apply, and the write stands there or after it.
    #[error("the state machine has stopped before entry {0}, which it cannot apply")]
    MachineStopped(LogId),
    /// It was sent again and again, until its session had expired.
    #[error("the session of the node expired before an answer came")]
    SessionExpired,
    /// The node stopped before it knew.
    #[error("the node stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why a read has no answer. A read changes nothing, so it can always be tried again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader is known now, so no node can tell what is newest.
    #[error("there is no leader now")]
    NoLeader,
    /// The node was never told its cluster.
    #[error("the node is not configured: call set_configuration on one node of the cluster")]
    NotConfigured,
    /// Too much is under way already. Try again after a pause.
    #[error("{0}: try again later")]
    Busy(Busy),
    /// No quorum confirmed the leader in time.
    #[error("no quorum confirmed the leader within the time limit")]
    Timeout,
    /// It was known which entry the answer has to reflect, but this node's state machine did not come so far in time. Another
    /// node may; or there is no such entry yet.
    #[error("the state machine of this node did not come so far within the time limit")]
    Lagging,
    /// The state machine of this node turned out to differ from that of a majority, and answers no more. Others do.
    #[error(
        "the state machine of this node differs from that of a majority, and answers no more: ask another node"
    )]
    Diverged,
    /// The state machine of this node has stopped before this entry, which it cannot apply, and answers nothing. Another
    /// node's may have passed it.
    #[error(
        "the state machine of this node has stopped before entry {0}, which it cannot apply: ask another node, or see its status"
    )]
    MachineStopped(LogId),
    /// The question is wrong in itself, or its answer cannot be carried: it will not do better on another node.
    #[error("the query is not valid: {0}")]
    Invalid(String),
    /// A client found no node that could answer within the time limit.
    #[error("no node could be reached within the time limit: {0}")]
    Unreachable(String),
    /// The state machine panicked over this query. Nothing was changed, and the node goes on.
    #[error("the state machine panicked over the query: {0}")]
    Panicked(String),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting makes no sense, or two of them do not fit each other.
    #[error("the setting {setting} is not valid: {problem}")]
    Config {
        /// The field of [`Config`](crate::Config).
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A membership in the log cannot be read.
    #[error("the membership at {id} in the log cannot be decoded: {problem}")]
    Membership {
        /// The entry.
        id: LogId,
        /// What is wrong with it.
        problem: String,
    },
    /// The state machine could not take the state of the newest snapshot.
    #[error("the newest snapshot cannot be used: {0}")]
    Machine(StopReason),
    /// A state machine that keeps its own disk does not fit this node's log, or its disk cannot be read.
    #[error("the state machine's own disk cannot be used: {0}")]
    OwnDisk(String),
    /// The peer address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else that the node needs.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a cluster could not be bootstrapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// The list is empty, has a name twice or a name 0, or leaves out the node that is asked.
    #[error("the list of members is not valid: {0}")]
    Invalid(String),
    /// The node has a cluster already, with other members.
    #[error("the node belongs to a cluster with other members already")]
    AlreadyConfigured,
    /// These nodes could not be reached in time, or are not blank nodes of those names.
    #[error("not ready: {}", .0.iter().map(|(id, why)| format!("node {id} ({why})")).collect::<Vec<_>>().join(", "))]
    NotReady(Vec<(NodeId, String)>),
    /// A node has promised itself to another list, and two lists that share a node cannot both found a cluster. Nothing
    /// was founded. Ask for that list; or ask again later, when its founder can say that it gave up.
    #[error(
        "node {node} has promised itself to another list: {} (cluster {cluster}); found that one, or have its lowest node \
         running, so that it can say that it gave up, and try again; if that node is gone for good, stop node \
         {node} and empty its directory, in which there is nothing but the promise",
        .members.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(" ")
    )]
    PromisedToAnother {
        /// Which node.
        node: NodeId,
        /// The other list.
        members: Vec<(NodeId, String)>,
        /// The cluster that it would found: a hash of the list and of the disks of its members.
        cluster: ClusterId,
    },
    /// The configuration is in the log, but was not committed in time. It may still be.
    #[error("the configuration was not committed within the time limit; it may still be")]
    Timeout,
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why the membership was not changed, or not as far as was asked for. Ask again: what was done is not done twice.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Another node leads. Ask that one.
    #[error("node {} at {} is the leader", .leader.id, .leader.address)]
    NotLeader {
        /// Who leads.
        leader: Leader,
    },
    /// No leader is known now. Try again soon.
    #[error("there is no leader now")]
    NoLeader,
    /// The node was never told its cluster. See [`Node::set_configuration`](crate::Node::set_configuration).
    #[error("the node is not configured: call set_configuration on one node of the cluster")]
    NotConfigured,
    /// The change makes no sense.
    #[error("the change is not valid: {0}")]
    Invalid(String),
    /// A node that is to come is not there, or cannot come.
    #[error("node {node} at {address} cannot become a member: {why}")]
    NotReady {
        /// Which node.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// Why.
        why: String,
    },
    /// So few of those who would vote answer now that they could commit nothing. Nothing was changed.
    #[error("too few of the nodes that would vote answer now: nothing could be committed any more")]
    NoQuorum,
    /// Leadership was lost during a step. It may be finished by the next leader, or be taken back.
    #[error(
        "leadership was lost before the change was over: it may yet be finished, or be taken back; ask again"
    )]
    Unknown,
    /// The time is up. The steps that were done stay done.
    #[error("the time is up, and the change still waited for {0}; what was done stays done: ask again")]
    Timeout(String),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why no other node was seen to lead after a transfer of leadership. No write is lost by one, however it ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Another node leads. Ask that one.
    #[error("node {} at {} is the leader", .leader.id, .leader.address)]
    NotLeader {
        /// Who leads.
        leader: Leader,
    },
    /// No leader is known now. If this node led, it leads no more, and another is being elected.
    #[error("there is no leader now")]
    NoLeader,
    /// The node was never told its cluster. See [`Node::set_configuration`](crate::Node::set_configuration).
    #[error("the node is not configured: call set_configuration on one node of the cluster")]
    NotConfigured,
    /// Leadership goes to a voter only.
    #[error("node {0} is no voter of this cluster: only a voter can lead")]
    NotVoter(NodeId),
    /// This voter's version is older than transfers of leadership. Upgrade it first.
    #[error("node {0} runs a version that knows no transfers of leadership: upgrade it first")]
    KnowsNoTransfers(NodeId),
    /// Nobody else can lead now.
    #[error("no other voter that could lead answers now")]
    NoTarget,
    /// Another transfer is not over yet. It is soon.
    #[error("leadership is being handed over to node {0} already: ask again")]
    UnderWay(NodeId),
    /// It came to nothing, and the leader leads on.
    #[error("node {to} does not lead: {why}; the leader leads on")]
    GivenUp {
        /// Who was to lead.
        to: NodeId,
        /// Why it does not.
        why: GivenUp,
    },
    /// Another node than the one that was named was elected meanwhile.
    #[error("node {0} was elected instead: ask again")]
    AnotherLeads(NodeId),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why a node is no longer running.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to, or its last handle was dropped.
    #[error("it was asked to")]
    Requested,
    /// The log could not be written or read. What is on disk is as it was; a failed sync is never retried.
    #[error("the log cannot be written or read")]
    Storage(#[source] Arc<StoreError>),
    /// The state machine panicked.
    #[error("the state machine panicked at {at}: {message}")]
    Panicked {
        /// The entry that it was given.
        at: String,
        /// What the panic said.
        message: String,
    },
    /// A committed entry cannot be understood by this version of the program.
    #[error("the entry {id} cannot be applied: {problem}")]
    Apply {
        /// The entry.
        id: LogId,
        /// Why.
        problem: String,
    },
    /// A rule that must never break was broken.
    #[error("an invariant was violated: {0}")]
    Invariant(String),
}

impl StopReason {
    /// The store of another node failed, as that node says.
    pub(crate) fn remote_storage(problem: String) -> StopReason {
        StopReason::Storage(Arc::new(StoreError::Remote(problem)))
    }
}

/// Why [`Node::get_entry`](crate::Node::get_entry) has no entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryLookupError {
    /// The log ends before it, or begins after it.
    #[error("the log does not hold this entry")]
    NotFound,
    /// It could not be read from disk.
    #[error("the entry cannot be read")]
    Storage(#[source] Arc<StoreError>),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why [`Node::snapshot`](crate::Node::snapshot) has made none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The state machine of this node has applied nothing yet.
    #[error("the state machine has applied nothing yet: there is nothing to take a snapshot of")]
    NothingApplied,
    /// The state machine of this node turned out to differ from that of a majority: nothing is taken from it.
    #[error("the state machine of this node differs from that of a majority: take one on another node")]
    Diverged,
    /// The state machine of this node has stopped before this entry, which it cannot apply: nothing is taken from it.
    #[error("the state machine of this node has stopped before entry {0}, which it cannot apply")]
    MachineStopped(LogId),
    /// It could not be written, or what was read back is not what was written. The one before it stays.
    #[error("the snapshot could not be written: {0}")]
    Failed(String),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Why [`Events`](crate::Events) go no further. What came before is whole.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// This node does not remember the events of entries up to this one, and the next would be one of them. Read the state,
    /// and watch on from the entry after the one that it reflects; or watch another node, which may remember more.
    #[error("the events up to entry {0} are compacted: read the state, and watch on from there")]
    Compacted(Index),
    /// The node remembers no events ([`Config::events_bytes`](crate::Config::events_bytes) is 0).
    #[error("the node keeps no events: events_bytes is 0")]
    Off,
    /// The state machine of this node turned out to differ from that of a majority: what it publishes is not to be trusted.
    #[error("the state machine of this node differs from that of a majority: watch another node")]
    Diverged,
    /// A client's: for as long as a request may take, no node could be watched, for this reason. What was published meanwhile is
    /// not lost: call again.
    #[error("no node could be watched: {0}")]
    Unreachable(String),
    /// This node, or this client, has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Two are the same if they say the same.
impl PartialEq for StoreError {
    fn eq(&self, other: &StoreError) -> bool {
        in_full(self) == in_full(other)
    }
}

impl Eq for StoreError {}

impl From<CodecError> for WriteError {
    fn from(error: CodecError) -> WriteError {
        WriteError::Invalid(error.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable() -> StoreError {
        StoreError::Io { action: "sync", path: "log-7".into(), source: io::Error::other("the disk is gone") }
    }

    /// What an error came from is in its text or in its source, and nothing is told twice or lost.
    #[test]
    fn an_error_says_what_it_came_from_once() {
        let store = || Arc::new(unreadable());
        let stop = || StopReason::Storage(store());
        let system = || io::Error::other("the disk is gone");
        let errors: Vec<Box<dyn Error>> = vec![
            Box::new(unreadable()),
            Box::new(StoreError::NoSpace { path: "log-7".into(), source: system() }),
            Box::new(StartError::Listen { address: "a:1".to_owned(), source: system() }),
            Box::new(StartError::System { action: "do it", source: system() }),
            Box::new(StartError::Store(unreadable())),
            Box::new(stop()),
            Box::new(EntryLookupError::Storage(store())),
            Box::new(EntryLookupError::Stopped(stop())),
            Box::new(WriteError::Stopped(stop())),
            Box::new(WriteError::Unknown(Cause::Stopped(stop()))),
            Box::new(ReadError::Stopped(stop())),
            Box::new(SnapshotError::Stopped(stop())),
            Box::new(ConfigurationError::Stopped(stop())),
        ];
        for error in errors {
            let full = in_full(&*error);
            assert_eq!(full.matches("the disk is gone").count(), 1, "{full}");
        }
        assert_eq!(
            in_full(&stop()),
            "the log cannot be written or read: cannot sync log-7: the disk is gone"
        );
        assert!(stop().source().is_some(), "the error is kept");
    }
}
