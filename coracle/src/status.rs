//! How a node stands: what handles get, and how it looks as JSON and the like.

use crate::replicated::Digest;
use crate::storage::identity::KeptStop;
use bytes::Bytes;
use coracle_core::{ClusterId, Incarnation, Index, LogId, NodeId, Peer, PeerStatus};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// A node at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The consensus core: role, term, leader, marks, membership, peers.
    pub raft: coracle_core::Status,
    /// The cluster that the node belongs to; none while it is blank.
    pub cluster: Option<ClusterId>,
    /// The members of the membership in force, as this node's connections know them, by id.
    pub members: Vec<MemberStatus>,
    /// The newest entry that the state machine has applied.
    pub applied: LogId,
    /// The digest of everything up to exactly [`applied`](Status::applied): equal on all nodes.
    pub digest: Digest,
    /// The newest version of the state machine of which all members are known to be: what commands may need. See
    /// [`StateMachine::version_of`](crate::StateMachine::version_of).
    pub machine_version: u16,
    /// Bytes of committed entries that the state machine has not applied yet, as far as they are in memory.
    pub unapplied_bytes: u64,
    /// Whether the state machine has come, since the start of the node, as far as the log was committed when a
    /// leader was first heard of. Until then reads may take long.
    pub caught_up: bool,
    /// Requests of this node's callers that wait.
    pub pending: usize,
    /// Why the log has no room for more, while that is so: writes are refused as `Busy`, and reads go on.
    pub no_space: Option<String>,
    /// Known to a leader: the nodes whose state machine was found to be another one than that of a majority, and the
    /// index at which. Machines are compared every 1,024 entries.
    pub diverged: BTreeMap<NodeId, Index>,
    /// Where this node's own state machine was found to differ from that of a majority, with authenticated peers: since
    /// then it applies and answers nothing, and does not lead.
    pub fenced: Option<Index>,
    /// How far the state machine has come that is being rebuilt from another member's ([`Node::rebuild`](crate::Node::rebuild),
    /// [`Config::rebuild_diverged`](crate::Config::rebuild_diverged)).
    pub rebuilding: Option<Rebuilding>,
    /// Before which entry this node's own state machine has stopped, since it cannot apply it: since then it applies and
    /// answers nothing, and goes on when it is ruled what becomes of the entry
    /// ([`Node::skip_entry`](crate::Node::skip_entry), [`Node::retry_entry`](crate::Node::retry_entry)).
    pub machine_stopped: Option<MachineStopped>,
    /// Known to a leader: the members whose state machines have stopped, and before which entry.
    pub stopped_machines: BTreeMap<NodeId, LogId>,
    /// Bytes that the log takes on disk, its spare files included; 0 if it uses no disk.
    pub disk_bytes: u64,
    /// The snapshots of the state machine: what there is, and what is under way.
    pub snapshots: Snapshots,
    /// When the first of the certificates is not valid any more that this node shows or believes, if it has
    /// [one](crate::Config::tls): in time since 1970.
    pub certificate_expires: Option<Duration>,
    /// Where this node says that its peers reach it; empty if it does not know.
    pub address: String,
    /// Whether the membership says another address, where this node was looked for and is not. The leader takes over the
    /// new one when it has found this node there.
    pub moved: bool,
}

/// How far a state machine has come that is being rebuilt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Rebuilding {
    /// The leader is asked for a snapshot from after this entry.
    Asks(Index),
    /// The snapshot is here, and the machine takes its state from it.
    Takes,
}

/// A state machine that has stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MachineStopped {
    /// The entry that it cannot apply.
    pub entry: LogId,
    /// Why.
    pub why: String,
}

impl MachineStopped {
    pub(crate) fn of(kept: &KeptStop) -> MachineStopped {
        MachineStopped { entry: kept.stop.at, why: kept.why.clone() }
    }
}

/// The snapshots of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Snapshots {
    /// The newest that is durable here; none before the first.
    pub newest: Option<SnapshotStatus>,
    /// Whether one is being taken, written and read back.
    pub taking: bool,
    /// Those that are sent to followers which lack what is gone from the log.
    pub sending: Vec<SnapshotTransfer>,
    /// One that comes from the leader.
    pub receiving: Option<SnapshotTransfer>,
    /// Known to a leader: connected members whose version knows no snapshots. What they lack is kept in the log for a
    /// while; a member that lacks more gets it once it runs a newer version.
    pub unknown_to: Vec<NodeId>,
}

/// A snapshot on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotTransfer {
    /// To or from which node.
    pub peer: NodeId,
    /// The entry up to which it stands for the log.
    pub last: LogId,
    /// How many bytes of its file are there.
    pub done: u64,
    /// The bytes of its file.
    pub bytes: u64,
}

/// A snapshot of the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotStatus {
    /// The entry up to which it stands for the log.
    pub last: LogId,
    /// The bytes of its file.
    pub bytes: u64,
}

/// A member as a node's connections know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its name.
    #[serde(serialize_with = "id")]
    pub id: NodeId,
    /// Its disk.
    #[serde(serialize_with = "incarnation")]
    pub incarnation: Incarnation,
    /// Its peer address, as the membership has it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether a message to it would find a connection now. True of the node itself.
    pub connected: bool,
    /// Whether that connection is encrypted, and so shown to be the member's by its [certificate](crate::Config::tls).
    pub encrypted: bool,
    /// What its application wants known of it ([`Config::metadata`](crate::Config::metadata)). Empty as long as this node
    /// has not met it. Serialized as text.
    #[serde(serialize_with = "text")]
    pub metadata: Bytes,
}

/// Flat, with plain numbers; what is no number to count with (disks, clusters, digests) is text.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raft = &self.raft;
        let shown = Shown {
            id: raft.me.id.0,
            incarnation: hex(raft.me.incarnation),
            role: raft.role.as_str(),
            term: raft.term.0,
            vote: raft.vote.map(Voted::of),
            leader: raft.leader.map(|leader| leader.0),
            cluster: self.cluster.as_ref().map(ClusterId::to_string),
            purged: Place::of(raft.purged),
            last: Place::of(raft.last),
            commit: raft.commit.0,
            persisted: raft.persisted.0,
            applied: Place::of(self.applied),
            digest: self.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            membership: Place::of(raft.membership_id),
            members: &self.members,
            peers: raft.peers.iter().map(Follower::of).collect(),
            writes_under_way: raft.writes_under_way,
            unapplied_bytes: self.unapplied_bytes,
            caught_up: self.caught_up,
            pending: self.pending,
            no_space: self.no_space.as_deref(),
            diverged: self.diverged.iter().map(|(id, index)| (id.0, index.0)).collect(),
            fenced: self.fenced.map(|index| index.0),
            rebuilding: self.rebuilding.map(|it| match it {
                Rebuilding::Asks(_) => "asks",
                Rebuilding::Takes => "takes",
            }),
            machine_stopped: self.machine_stopped.as_ref().map(Stopped::of),
            stopped_machines: self.stopped_machines.iter().map(|(id, at)| (id.0, Place::of(*at))).collect(),
            disk_bytes: self.disk_bytes,
            snapshot: self.snapshots.newest.map(|it| Snapshot { last: Place::of(it.last), bytes: it.bytes }),
            taking_snapshot: self.snapshots.taking,
            sending_snapshots: self.snapshots.sending.iter().map(Transfer::of).collect(),
            receiving_snapshot: self.snapshots.receiving.as_ref().map(Transfer::of),
            address: &self.address,
            moved: self.moved,
            certificate_expires: self.certificate_expires.map(|end| end.as_secs()),
            snapshots_unknown_to: self.snapshots.unknown_to.iter().map(|id| id.0).collect(),
        };
        shown.serialize(serializer)
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    id: u64,
    incarnation: String,
    role: &'static str,
    term: u64,
    vote: Option<Voted>,
    leader: Option<u64>,
    cluster: Option<String>,
    purged: Place,
    last: Place,
    commit: u64,
    persisted: u64,
    applied: Place,
    digest: String,
    membership: Place,
    members: &'a [MemberStatus],
    peers: Vec<Follower>,
    writes_under_way: usize,
    unapplied_bytes: u64,
    caught_up: bool,
    pending: usize,
    no_space: Option<&'a str>,
    diverged: BTreeMap<u64, u64>,
    fenced: Option<u64>,
    rebuilding: Option<&'static str>,
    machine_stopped: Option<Stopped<'a>>,
    stopped_machines: BTreeMap<u64, Place>,
    disk_bytes: u64,
    snapshot: Option<Snapshot>,
    taking_snapshot: bool,
    sending_snapshots: Vec<Transfer>,
    receiving_snapshot: Option<Transfer>,
    address: &'a str,
    moved: bool,
    certificate_expires: Option<u64>,
    snapshots_unknown_to: Vec<u64>,
}

#[derive(Serialize)]
struct Snapshot {
    last: Place,
    bytes: u64,
}

#[derive(Serialize)]
struct Stopped<'a> {
    entry: Place,
    why: &'a str,
}

impl<'a> Stopped<'a> {
    fn of(it: &'a MachineStopped) -> Stopped<'a> {
        Stopped { entry: Place::of(it.entry), why: &it.why }
    }
}

#[derive(Serialize)]
struct Transfer {
    peer: u64,
    last: Place,
    done: u64,
    bytes: u64,
}

impl Transfer {
    fn of(it: &SnapshotTransfer) -> Transfer {
        Transfer { peer: it.peer.0, last: Place::of(it.last), done: it.done, bytes: it.bytes }
    }
}

/// An entry's place.
#[derive(Serialize)]
struct Place {
    term: u64,
    index: u64,
}

impl Place {
    fn of(id: LogId) -> Place {
        Place { term: id.term.0, index: id.index.0 }
    }
}

#[derive(Serialize)]
struct Voted {
    id: u64,
    incarnation: String,
}

impl Voted {
    fn of(peer: Peer) -> Voted {
        Voted { id: peer.id.0, incarnation: hex(peer.incarnation) }
    }
}

/// A member as its leader knows it.
#[derive(Serialize)]
struct Follower {
    id: u64,
    matched: u64,
    next: u64,
    last: u64,
    applied: u64,
    probing: bool,
    lost_entries: bool,
    messages_in_flight: usize,
    bytes_in_flight: u64,
    silent_ms: u64,
}

impl Follower {
    fn of(peer: &PeerStatus) -> Follower {
        Follower {
            id: peer.id.0,
            matched: peer.matched.0,
            next: peer.next.0,
            last: peer.last.0,
            applied: peer.applied.0,
            probing: peer.probing,
            lost_entries: peer.lost_entries,
            messages_in_flight: peer.messages_in_flight,
            bytes_in_flight: peer.bytes_in_flight,
            silent_ms: peer.silent_for.saturating_mul(crate::config::TICK.as_millis() as u64),
        }
    }
}

fn hex(incarnation: Incarnation) -> String {
    format!("{:016x}", incarnation.0)
}

fn id<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(id.0)
}

fn incarnation<S: Serializer>(incarnation: &Incarnation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(*incarnation))
}

fn text<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}
