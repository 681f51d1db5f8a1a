//! What the driver hands out: work for the machine, orders for the log's writer, messages, answers; and whom they are for.

use crate::digests::Finding;
use crate::entry::Entry;
use crate::error::{Busy, ReadError, StopReason, WriteError};
use crate::founding::{Promise, Question};
use crate::place::Place;
use crate::replica::Load;
use crate::rulings::{Ruled, Skips};
use crate::snapshots::FileOrder;
use crate::storage::WriteBatch;
use crate::storage::identity::KeptStop;
use crate::storage::met::Met;
use crate::transport::{Forward, PeerMessage};
use crate::wire::Answer as FoundingAnswer;
use bytes::Bytes;
use coracle_core::{
    Alarm, ClusterId, Envelope, GivenUp, Index, LogId, Member, Membership, Message, NodeId, Peer,
    RefusedReason, Term, WriteId,
};

/// Somebody who waits for an answer.
pub(crate) trait Waits {
    /// Whether nobody waits there any more.
    fn gave_up(&self) -> bool;
}

impl<Q, A: Waits> Waits for (Q, A) {
    fn gave_up(&self) -> bool {
        self.1.gave_up()
    }
}

/// A request that is known by its number: for the simulator and for tests, where everybody is patient.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RequestId(pub(crate) u64);

#[cfg(any(test, feature = "sim"))]
impl Waits for RequestId {
    fn gave_up(&self) -> bool {
        false
    }
}

/// Whose write it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller<W> {
    /// A caller of this node.
    Here(W),
    /// A client of this node, whose answer goes to it encoded.
    Client(W),
    /// Another node forwarded it, under this number.
    Forwarded(Peer, u64),
    /// This node's [courier](crate::courier) sent it, under this number.
    Carried(u64),
}

impl<W: Waits> Waits for Caller<W> {
    fn gave_up(&self) -> bool {
        match self {
            Caller::Here(caller) | Caller::Client(caller) => caller.gave_up(),
            // The other node knows, and drops the answer.
            Caller::Forwarded(..) | Caller::Carried(_) => false,
        }
    }
}

/// How a caller's write reaches the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Sent once: to the leader, if that is another node and writes are forwarded.
    Once,
    /// Where another node leads, or others of this lane still wait: in this lane of the node's session.
    Lane(u32),
    /// Always in this lane.
    Session(u32),
}

/// What the machine is handed, in this order.
pub(crate) enum Work<W, R> {
    /// The reply to this entry is for this caller.
    Expect(LogId, Caller<W>),
    /// The next committed entries.
    Apply(Vec<Entry>),
    /// Answer this from a state that has applied at least up to there.
    Read(Index, R),
    /// Leadership was lost.
    Deposed,
    /// Look whether this forwarded command can be applied; if so, it comes back.
    Check(Peer, Forward),
    /// Apply and answer nothing any more: this machine differs from that of a majority.
    Fence,
    /// The machine was given up: take the state of this snapshot, and go on from there.
    Mend(LogId),
    /// Apply and answer nothing until it is told to resume: the machine has stopped before this entry in an earlier boot.
    Stop(LogId),
    /// These entries are skipped, or are not to be passed yet.
    Skips(Skips),
    /// It was ruled what becomes of the entry that the machine has stopped before. The state to go on from comes next.
    Resume,
    /// Take a snapshot: it is to be written beside the machine.
    Snapshot,
    /// Take the state of this snapshot, and forget what was still to be applied. No entry: that with which it began.
    Restore(LogId),
}

impl<W, R> Work<W, R> {
    /// Whether it is somebody's query.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Work::Read(..))
    }

    /// The same, with what each read asks beside whoever asks it. None: it asks nothing.
    pub(crate) fn with_queries<Q>(self, query: impl FnOnce(&R) -> Option<Q>) -> Option<Work<W, (Q, R)>> {
        Some(match self {
            Work::Read(index, reader) => Work::Read(index, (query(&reader)?, reader)),
            Work::Expect(id, caller) => Work::Expect(id, caller),
            Work::Apply(entries) => Work::Apply(entries),
            Work::Deposed => Work::Deposed,
            Work::Check(from, forward) => Work::Check(from, forward),
            Work::Fence => Work::Fence,
            Work::Mend(snapshot) => Work::Mend(snapshot),
            Work::Stop(at) => Work::Stop(at),
            Work::Skips(skips) => Work::Skips(skips),
            Work::Resume => Work::Resume,
            Work::Snapshot => Work::Snapshot,
            Work::Restore(snapshot) => Work::Restore(snapshot),
        })
    }
}

/// What the log's writer is given, in this order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Make this durable.
    Write(WriteId, WriteBatch),
    /// Name the cluster in the identity.
    Name(ClusterId),
    /// Write into the identity that the machine differs from that of a majority, and where that was noticed.
    Fence(Index),
    /// Write into the identity that it was rebuilt.
    Mended,
    /// Write into the identity that the machine has stopped before an entry, or that it goes on.
    Stop(Option<KeptStop>),
    /// Write into the identity that the log may hold rulings.
    Rules,
    /// Write down in which boots the disks of other members were met.
    Met(Vec<Met>),
    /// Write down where members were found that are not where the membership says.
    Places(Vec<Place>),
    /// Keep this promise in the identity, or none.
    Promise(Option<Promise>),
    /// Forget the entries up to this one, for which a durable snapshot stands.
    Purge(LogId),
}

/// An answer that needs no machine.
pub(crate) enum Answer<W, R> {
    /// The encoded reply of another node's machine, or why there is none.
    Write(W, Result<Bytes, WriteError>),
    /// Why there is no answer.
    Read(R, ReadError),
}

/// What came of a change of the membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Changed {
    /// It is over: the membership of this entry is committed, and not joint.
    Done(LogId),
    /// It certainly took no effect: the core refused it.
    Refused(RefusedReason),
    /// It certainly took no effect: too much waits.
    Busy(Busy),
    /// Leadership was lost before its end: it may yet be finished by the next leader, or be taken back.
    Unknown,
}

/// What came of a transfer of leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transferred {
    /// This node leads now.
    Leads(NodeId),
    /// The core refused it: nothing was changed.
    Refused(RefusedReason),
    /// It came to nothing, for this reason, and this node leads on.
    GivenUp(NodeId, GivenUp),
    /// This node leads no more, and no other was seen to for so long.
    Unknown,
}

/// What is to be done after a turn, in the order of the fields.
pub(crate) struct Actions<W, R> {
    /// The cluster that the node has just become part of.
    pub(crate) cluster: Option<ClusterId>,
    /// Whom to know from now on, and those who are leaving, who still must hear of it.
    pub(crate) members: Option<(Membership, Vec<Member>)>,
    /// To the log's writer.
    pub(crate) orders: Vec<Order>,
    /// To send. Tell [`unsent`](Driver::unsent) what cannot be.
    pub(crate) send: Vec<(Peer, PeerMessage)>,
    /// To ask other nodes about a founding. Each comes back by [`on_founding_answer`](Driver::on_founding_answer).
    pub(crate) asks: Vec<Question>,
    /// Answers to those who asked about a founding, by the name that they were given.
    pub(crate) told: Vec<(u64, FoundingAnswer)>,
    /// What came of changes of the membership, by the name that each was given.
    pub(crate) changed: Vec<(u64, Changed)>,
    /// What came of transfers of leadership, by the name that each was given.
    pub(crate) transferred: Vec<(u64, Transferred)>,
    /// What came of rulings about entries, by the name that each was given.
    pub(crate) ruled: Vec<(u64, Ruled)>,
    /// What is to be done with the files of snapshots, on another thread, in this order.
    pub(crate) files: Vec<FileOrder>,
    /// To load from the store, on another thread.
    pub(crate) loads: Vec<Load>,
    /// To the machine.
    pub(crate) work: Vec<Work<W, R>>,
    /// To callers.
    pub(crate) answers: Vec<Answer<W, R>>,
    /// Something worth an operator's attention.
    pub(crate) alarms: Vec<Alarm>,
    /// Machines that are not alike.
    pub(crate) findings: Vec<Finding>,
    /// The node must stop, for this reason.
    pub(crate) fatal: Option<StopReason>,
}

impl<W, R> Default for Actions<W, R> {
    fn default() -> Actions<W, R> {
        Actions {
            cluster: None,
            members: None,
            orders: Vec::new(),
            send: Vec::new(),
            asks: Vec::new(),
            told: Vec::new(),
            changed: Vec::new(),
            transferred: Vec::new(),
            ruled: Vec::new(),
            files: Vec::new(),
            loads: Vec::new(),
            work: Vec::new(),
            answers: Vec::new(),
            alarms: Vec::new(),
            findings: Vec::new(),
            fatal: None,
        }
    }
}

/// A message that could not be sent, in as many words as the driver needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unsent {
    /// A forwarded write.
    Forward(u64),
    /// Entries: to whom, in which term, and after which entry.
    Entries(Peer, Term, LogId),
    /// Losing it is always safe.
    Other,
}

impl Unsent {
    /// What to say if this cannot be sent.
    pub(crate) fn of(message: &PeerMessage) -> Unsent {
        match message {
            PeerMessage::Forward(forward) => Unsent::Forward(forward.id),
            PeerMessage::Raft {
                envelope: Envelope { to, message: Message::AppendEntries(append), .. },
                ..
            } if append.count() > 0 => Unsent::Entries(*to, append.term, append.prev),
            _ => Unsent::Other,
        }
    }
}
