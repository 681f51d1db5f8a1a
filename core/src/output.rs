//! What happens to a node, and what it wants done.
//!
//! The order of effects is in the types: [`Output::send`] may leave at once, [`Output::send_after_sync`]
//! waits for the disk, and nothing else does. Whoever drives the core carries out each field as its
//! documentation says and needs to know no more of Raft.

use crate::{
    AppendEntries, Carried, Envelope, HardState, Index, InstallSnapshot, InstallSnapshotReply, LogId,
    Membership, NodeId, Peer, Term, Ticket, WriteId,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Everything that can happen to a node. Record a list of these and the run replays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time has passed. Timers fire on this alone; due about every 10 ms, after the turn's messages.
    Tick,
    /// A message came in, and what the entries that it carries are. Their bytes are kept by the driver meanwhile.
    Receive(Envelope, Carried),
    /// Asks to add `count` commands to the log.
    Propose {
        /// Handed back in [`TailChange::TakeProposed`] or [`Output::refused`].
        ticket: Ticket,
        /// How many entries. At least 1.
        count: u64,
    },
    /// Asks for an index at which a linearizable read may be served (thesis, section 6.4).
    Read {
        /// Handed back in [`Output::reads`] or [`Output::refused`].
        ticket: Ticket,
    },
    /// Nobody waits any more for the answers to these reads.
    Forget(BTreeSet<Ticket>),
    /// Makes a blank node the first of a cluster.
    Bootstrap {
        /// Handed back in [`TailChange::TakeMembership`] or [`Output::refused`].
        ticket: Ticket,
        /// The first membership; this node votes in it.
        membership: Membership,
    },
    /// Asks a leader to change the membership (§6).
    ChangeMembership {
        /// Handed back in [`TailChange::TakeMembership`] or [`Output::refused`].
        ticket: Ticket,
        /// The newest membership that the caller knows: if there is a newer one by now, nothing changes.
        expected: LogId,
        /// What it is to become. Not joint: if the voters differ, a joint one comes between by itself.
        to: Membership,
    },
    /// Asks a leader to let another voter lead (thesis, section 3.10).
    TransferLeadership {
        /// Handed back in [`Output::transfers`] or [`Output::refused`].
        ticket: Ticket,
        /// Whom; none: the one that is best prepared.
        to: Option<NodeId>,
    },
    /// These members know no transfers of leadership (an older version), so none of them is told to campaign. Counts until the
    /// next such input.
    KnowNoTransfers(BTreeSet<Peer>),
    /// This write, and every one before it, is durable.
    Persisted(WriteId),
    /// An [`Output::replicate`] left, as this message.
    Sent {
        /// To whom.
        to: Peer,
        /// In which term it was asked for.
        term: Term,
        /// The `prev` of the message.
        prev: LogId,
        /// The index of its last entry.
        last: Index,
        /// The bytes of its entries.
        bytes: u64,
    },
    /// An [`Output::replicate`] was given up: no connection, no room, no bytes, or the leader changed. It may have been
    /// reported as `Sent` before.
    Unsent {
        /// To whom.
        to: Peer,
        /// In which term it was asked for.
        term: Term,
        /// Its `prev`.
        prev: LogId,
    },
    /// The state machine has applied everything up to here.
    Applied(Index),
    /// A snapshot of this node's own machine is durable, and was read back: it stands for the log.
    SnapshotSaved {
        /// The entry up to which.
        snapshot: LogId,
        /// The newest entry that may go; what lies between it and the snapshot is kept for slow followers.
        purge: Index,
    },
    /// A piece of a snapshot was taken as [`Output::pieces`] asked for, or was not wanted.
    PieceTaken {
        /// Who sent it.
        from: Peer,
        /// What is to be answered: the term is that in which it came.
        reply: InstallSnapshotReply,
    },
    /// A snapshot that a leader sent is here as a whole, durable, and was read back.
    SnapshotReceived {
        /// The entry up to which it stands for the log.
        snapshot: LogId,
        /// The membership that was in force there.
        membership: (LogId, Membership),
    },
    /// This node's process is certainly gone (and with it its leadership, if it led; nor does it take over any more).
    LeaderDown(NodeId),
    /// Campaign now, as after an election timeout.
    Campaign,
    /// The node's state machine differs from that of a majority: from now on it stores and votes, and neither
    /// campaigns nor leads, until it is mended.
    Fence,
    /// The state machine is to be rebuilt from a snapshot from after this index: one that comes is taken, though the log
    /// lacks nothing of it (D5.1.14). None: it is not any more.
    WantState(Option<Index>),
    /// The state machine was rebuilt, durably: the node campaigns and leads as any other.
    Mended,
    /// The node's state machine has stopped before an entry that it cannot apply, and answers nobody; or it goes on.
    MachineStopped(bool),
}

/// What a node wants done after one [`Input`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    /// First of all: whom to know from now on, and besides them [`Raft::leaving`](crate::Raft::leaving).
    pub members: Option<Membership>,
    /// Then: what the tail in memory drops and takes, in this order.
    pub tail: Vec<TailChange>,
    /// Load these entries and send them, each as one message; report `Sent` or `Unsent` for each.
    pub replicate: Vec<Replicate>,
    /// Send at once.
    pub send: Vec<Envelope>,
    /// Hand to the log's writer, after everything handed to it before. Report `Persisted`.
    pub write: Option<Write>,
    /// Hold each until its write is done, then send it, unless the term has changed by then.
    pub send_after_sync: Vec<Held>,
    /// Entries up to this one are not needed any more: a durable snapshot stands for them. To the log's writer.
    pub purge: Option<LogId>,
    /// Pieces of a snapshot that came with the message: store each, and report `PieceTaken`.
    pub pieces: Vec<(Peer, InstallSnapshot)>,
    /// What followers say of the pieces that they were sent.
    pub taken: Vec<(Peer, InstallSnapshotReply)>,
    /// The log was reset to this snapshot, durably: the state machine takes its state from there.
    pub installed: Option<LogId>,
    /// The new commit index. The state machine gets min(this, what is persisted here).
    pub commit: Option<Index>,
    /// Reads that may be served as soon as the state machine has applied up to their index.
    pub reads: Vec<ReadGrant>,
    /// Requests that certainly took no effect.
    pub refused: Vec<Refused>,
    /// Transfers of leadership that are over.
    pub transfers: Vec<(Ticket, TransferEnd)>,
    /// Something that should not happen did, and was survived: for the operator's eyes.
    pub alarms: Vec<Alarm>,
    /// Why the input was ignored, if it was.
    pub dropped: Option<Dropped>,
}

/// One change of the tail in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TailChange {
    /// Forget the entries after this index.
    Truncate(Index),
    /// Forget every entry: the log goes on after this one, up to which a snapshot stands for it.
    Reset(LogId),
    /// Take the entries of the message just received, from this index on.
    TakeReceived(Index),
    /// Take the commands of this proposal: they are in the log now, and may still be lost with their leader.
    TakeProposed {
        /// Where the first of them stands.
        first: LogId,
        /// How many there are.
        count: u64,
        /// Whose they are.
        ticket: Ticket,
    },
    /// Make the empty entry with which a leader starts its term.
    TakeNoop(LogId),
    /// Make an entry of this membership, which founds a cluster or changes it.
    TakeMembership {
        /// Where it stands.
        id: LogId,
        /// The membership.
        membership: Membership,
        /// Who asked for it; none if it ends a change that is under way.
        ticket: Option<Ticket>,
    },
}

/// A write for the log's writer, atomic: hard state, then reset, then truncation, then new entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Its name.
    pub id: WriteId,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Drop every entry: the log goes on after this one.
    pub reset: Option<LogId>,
    /// Drop every entry after this index.
    pub truncate: Option<Index>,
    /// Append the entries of the tail from the first to the second index.
    pub append: Option<(Index, Index)>,
}

/// Entries to send to a follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replicate {
    /// To whom.
    pub to: Peer,
    /// The AppendEntries, without entries yet: they follow its `prev`. [`Raft::envelope`](crate::Raft::envelope) puts
    /// it into its envelope.
    pub append: AppendEntries,
    /// The last entry that may be carried; at least the first one always may.
    pub last: Index,
    /// How many bytes of entries may be carried; one entry may always be.
    pub max_bytes: u64,
}

/// A message that waits for the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The write that must be done first: the newest that was handed out when the message was made.
    pub after: WriteId,
    /// The term in which it was made.
    pub term: Term,
    /// The message.
    pub envelope: Envelope,
}

impl Output {
    /// What it says to others: at once, or when the disk is done.
    pub fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        self.send.iter().chain(self.send_after_sync.iter().map(|held| &held.envelope))
    }
}

/// A read that may be served once `index` is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadGrant {
    /// Whose it is.
    pub ticket: Ticket,
    /// What must be applied first.
    pub index: Index,
}

/// A request that took no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Whose it is.
    pub ticket: Ticket,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RefusedReason {
    /// Another node leads, or none that is known; or this one, for a moment longer, since it has left the voters.
    NotLeader(Option<NodeId>),
    /// The node has no membership.
    NotConfigured,
    /// The node has a membership, or a term, already.
    AlreadyConfigured,
    /// The membership makes no sense: to found, this node must vote in it; to change, it must be one of this cluster, not
    /// joint, with at most [`MAX_VOTERS`](crate::MAX_VOTERS), and not replace the leader under its own name.
    BadMembership,
    /// A leader that has not committed an entry of its own term yet changes nothing. Soon.
    NotYet,
    /// Another change is not over yet.
    ChangeUnderWay,
    /// The membership was changed meanwhile, by this entry.
    NotCurrent(LogId),
    /// This node is to vote, and is no member yet, or lacks too much of the log.
    NotCaughtUp(NodeId),
    /// Too few of those who are to vote answer now.
    NoQuorum,
    /// The leader is handing over to this node. For an election timeout at most.
    HandingOver(NodeId),
    /// Leadership goes to another voter only, and this node is none.
    NotVoter(NodeId),
    /// This node knows no transfers of leadership: its version is older.
    KnowsNoTransfers(NodeId),
    /// No other voter answers, or those that do lack what is purged here, or know no transfers.
    NoTarget,
}

/// What became of a transfer of leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferEnd {
    /// This node leads no more. Whoever leads the next term took over, most likely the target.
    Deposed {
        /// The target.
        to: NodeId,
        /// Whether that was told to campaign by then.
        asked: bool,
    },
    /// It came to nothing: this node leads on, and takes commands.
    GivenUp {
        /// The target.
        to: NodeId,
        /// Why.
        why: GivenUp,
    },
}

/// Why a transfer of leadership came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GivenUp {
    /// The target votes no more.
    NotVoter,
    /// It does not answer, or has lost entries.
    Silent,
    /// It did not catch up within an election timeout.
    Lagging,
    /// It was told to campaign, and was not elected within an election timeout.
    NotElected,
}

/// Something that should not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Alarm {
    /// A follower's log is shorter than what it acknowledged in this term. It is not counted any more.
    LostEntries {
        /// Which.
        follower: NodeId,
        /// What it had acknowledged.
        acknowledged: Index,
        /// Where its log ends now.
        last: Index,
    },
    /// Somebody claims a term that no honest election leads to so soon. It was believed in part.
    TermTooFar {
        /// Who.
        from: NodeId,
        /// Which.
        term: Term,
    },
    /// This node's disk did not finish a write for too long; leadership was given up.
    DiskStalled {
        /// For how many ticks.
        ticks: u64,
    },
}

/// Why an input was ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Dropped {
    /// It was meant for another node, or another life of this one.
    Misdelivered,
    /// Its sender was removed from the cluster.
    Removed,
    /// Its fields contradict each other.
    Malformed,
    /// It belongs to an older term, an older campaign, or was answered before.
    Stale,
    /// An answer from a node that is not a member, or not in this life.
    NotMember,
    /// Its term is further ahead than terms may rise in this time.
    TermTooFar,
    /// It makes no sense in this role.
    Unexpected,
    /// It asks this node to lead, which lacks, or has not on its disk, what it must hold for that.
    Lagging,
    /// It asks this node to campaign, which has promised another leader not to (D5.4.3).
    Promised,
    /// A second leader in one term: one of the two is wrong about the world.
    SecondLeader,
    /// It contradicts a committed entry: its sender is wrong about the world.
    ContradictsCommitted,
}
