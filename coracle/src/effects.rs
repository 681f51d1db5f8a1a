//! What a replica is told, and what it wants done.

use crate::config::TICK;
use crate::entry::Entry;
use crate::error::{Busy, StopReason};
use crate::proposal::Proposal;
use crate::rulings::Ruling;
use crate::storage::{ReadLogError, WriteBatch};
use bytes::Bytes;
use coracle_core::{
    Alarm, Envelope, Index, InstallSnapshot, InstallSnapshotReply, LogId, Member, Membership, NodeId, Peer,
    RefusedReason, Replicate, Term, Tick, TransferEnd, WriteId,
};
use std::collections::BTreeSet;

/// When something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moment {
    /// On the monotonic clock that runs through suspend, in milliseconds.
    pub(crate) millis: u64,
    /// The same as the core counts it.
    pub(crate) tick: Tick,
    /// On the wall clock, in milliseconds since 1970.
    pub(crate) wall: u64,
}

impl Moment {
    /// Where the monotonic clock and the wall clock show these milliseconds.
    pub(crate) fn new(millis: u64, wall: u64) -> Moment {
        Moment { millis, tick: Tick(millis / TICK.as_millis() as u64), wall }
    }
}

/// What a driver tells a replica.
#[derive(Debug)]
pub(crate) enum Event<W, R> {
    /// About every 10 ms, after the turn's messages.
    Tick,
    /// A message came in, with the entries of an AppendEntries.
    Message(Envelope, Vec<Entry>),
    /// These want to be written, in this order.
    Propose(Vec<(W, Proposal)>),
    /// Timers of the machine are due, and are to fire.
    Fire,
    /// These callers want to read.
    Read(Vec<R>),
    /// The first membership of a cluster.
    Bootstrap(Membership),
    /// A caller wants the membership changed, from the one at this entry.
    Change(u64, LogId, Membership),
    /// A caller wants another node to lead: this one, or the best.
    Transfer(u64, Option<NodeId>),
    /// These members know no transfers of leadership.
    NoTransfers(BTreeSet<Peer>),
    /// This write and all before it are durable.
    Persisted(WriteId),
    /// A piece of a snapshot came in, with its bytes.
    Piece(Envelope, Bytes),
    /// It was taken, or was not wanted: what is to be answered, and to whom.
    PieceTaken(Peer, InstallSnapshotReply),
    /// A snapshot from a leader is here as a whole: its entry, its membership, and the cluster time there.
    SnapshotReceived(LogId, (LogId, Membership), u64),
    /// A snapshot of this node's machine is durable; the log may go up to the index.
    SnapshotSaved(LogId, Index),
    /// The answer to a [`Load`].
    Loaded(Load, Result<Vec<Entry>, ReadLogError>),
    /// Entries that the core was told had left did not: to whom, in which term, and after which entry.
    Unsent(Peer, Term, LogId),
    /// This peer's process is certainly gone.
    PeerDown(NodeId),
    /// The machine has applied up to here, and so many bytes of entries since the start.
    Applied(Index, u64),
    /// A caller, under this name, wants this ruled about an entry.
    Rule(u64, Ruling),
    /// The machine has stopped before an entry, or goes on.
    MachineStopped(bool),
    /// The machine goes back to the state of this snapshot, or to where it began, and is fed from there.
    Rewind(LogId),
    /// The machine is where it was, and is fed what comes after this index.
    FeedFrom(Index),
    /// The machine differs from that of a majority: it is fed no more, and this node leads no more.
    Fence,
    /// It is to be rebuilt from a snapshot from after this index, or is not any more.
    WantState(Option<Index>),
    /// It was rebuilt, and has the state of this snapshot: it is fed from there.
    Mended(Index),
}

/// Entries to read from the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Load {
    /// The first entry wanted.
    pub(crate) first: Index,
    /// The last entry wanted.
    pub(crate) last: Index,
    /// As many as fit in this; at least one.
    pub(crate) max_bytes: u64,
    /// What for.
    pub(crate) purpose: Purpose,
}

/// What entries are loaded for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A follower that is behind.
    Replicate(Box<Replicate>),
    /// The state machine.
    Apply,
}

/// What a replica wants done, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Effects<W, R> {
    /// Whom to know from now on, and those who are leaving, who still must hear of it.
    pub(crate) members: Option<(Membership, Vec<Member>)>,
    /// To the log's writer, in this order. Report `Persisted`.
    pub(crate) writes: Vec<(WriteId, WriteBatch)>,
    /// To send. Losing one is always safe.
    pub(crate) send: Vec<(Envelope, Vec<Entry>)>,
    /// To forget from the log, once the writes are done.
    pub(crate) purge: Option<LogId>,
    /// Pieces of a snapshot to store. Report `PieceTaken` for each.
    pub(crate) pieces: Vec<(Peer, InstallSnapshot, Bytes)>,
    /// What followers say of the pieces that they were sent.
    pub(crate) taken: Vec<(Peer, InstallSnapshotReply)>,
    /// The log was reset to this snapshot: the machine is to be restored from it, before anything that comes later.
    pub(crate) installed: Option<LogId>,
    /// To load from the store, off this thread. Report `Loaded` for each.
    pub(crate) loads: Vec<Load>,
    /// Writes that are in the log now, each with its entry.
    pub(crate) accepted: Vec<(W, LogId)>,
    /// Writes that certainly took no effect.
    pub(crate) refused: Vec<(W, NotDone)>,
    /// Reads that get no index.
    pub(crate) refused_reads: Vec<(R, NotDone)>,
    /// What came of a bootstrap.
    pub(crate) bootstrapped: Option<Result<(), RefusedReason>>,
    /// What came of a change of the membership: its entry is in the log, or why not.
    pub(crate) changes: Vec<(u64, Result<LogId, NotDone>)>,
    /// What came of transfers of leadership.
    pub(crate) transfers: Vec<(u64, Result<TransferEnd, RefusedReason>)>,
    /// What came of rulings: the entry in the log, if it is one.
    pub(crate) ruled: Vec<(u64, Option<LogId>)>,
    /// The next entries for the state machine.
    pub(crate) apply: Vec<Entry>,
    /// Reads that may be served once the machine has applied up to the index.
    pub(crate) granted: Vec<(R, Index)>,
    /// Leadership was lost: the fate of what is in the log but not applied is unknown here.
    pub(crate) leadership_lost: bool,
    /// Something worth an operator's attention.
    pub(crate) alarms: Vec<Alarm>,
    /// The log cannot be read: the node must stop, for this reason.
    pub(crate) fatal: Option<StopReason>,
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Effects<W, R> {
        Effects {
            members: None,
            writes: Vec::new(),
            send: Vec::new(),
            purge: None,
            pieces: Vec::new(),
            taken: Vec::new(),
            installed: None,
            loads: Vec::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            refused_reads: Vec::new(),
            bootstrapped: None,
            changes: Vec::new(),
            transfers: Vec::new(),
            ruled: Vec::new(),
            apply: Vec::new(),
            granted: Vec::new(),
            leadership_lost: false,
            alarms: Vec::new(),
            fatal: None,
        }
    }
}

/// Why a request took no effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotDone {
    /// The core refused.
    Refused(RefusedReason),
    /// Too much waits.
    Busy(Busy),
}
