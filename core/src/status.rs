//! What a node looks like from outside: everything that tests, simulators and tools may judge it by.

use crate::{Incarnation, Index, LogId, Membership, NodeId, Peer, Run, Term};
use alloc::vec::Vec;
use core::fmt;

/// A role by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RoleName {
    /// It has no membership and waits to be told one.
    Unconfigured,
    /// It receives the log and has no vote.
    Learner,
    /// It follows, or waits for a leader.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks to be elected.
    Candidate,
    /// It leads.
    Leader,
}

impl RoleName {
    /// The role in one lower-case word; a pre-candidate is a candidate.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleName::Unconfigured => "unconfigured",
            RoleName::Learner => "learner",
            RoleName::Follower => "follower",
            RoleName::PreCandidate | RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node, whole, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Which node, and which disk.
    pub me: Peer,
    /// What it is now.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in this term.
    pub vote: Option<Peer>,
    /// Whom it holds for the leader of this term.
    pub leader: Option<NodeId>,
    /// The newest index known to be committed.
    pub commit: Index,
    /// The newest durable index.
    pub persisted: Index,
    /// How far its state machine has applied.
    pub applied: Index,
    /// The newest entry that is no longer in the log.
    pub purged: LogId,
    /// The newest entry.
    pub last: LogId,
    /// The terms of all entries.
    pub runs: Vec<Run>,
    /// The membership in force.
    pub membership: Membership,
    /// The entry that put it in force.
    pub membership_id: LogId,
    /// Disk writes under way.
    pub writes_under_way: usize,
    /// At a leader: how the other members stand.
    pub peers: Vec<PeerStatus>,
    /// At a leader: for how many more ticks it may answer reads without asking, by its lease.
    pub lease: u64,
}

/// A member as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Which member.
    pub id: NodeId,
    /// Which disk of it.
    pub incarnation: Incarnation,
    /// The newest index known to be durable there and equal to the leader's.
    pub matched: Index,
    /// Whether it lacks entries that the leader has no more, and so is sent a snapshot.
    pub receives_snapshot: bool,
    /// The next index to send.
    pub next: Index,
    /// Where its log ends, as it last said.
    pub last: Index,
    /// How far its machine has applied, as it last said.
    pub applied: Index,
    /// Whether the logs are still being matched.
    pub probing: bool,
    /// AppendEntries under way to it.
    pub messages_in_flight: usize,
    /// The bytes of their entries.
    pub bytes_in_flight: u64,
    /// For how many ticks it has not answered.
    pub silent_for: u64,
    /// Whether it lost entries that it had acknowledged.
    pub lost_entries: bool,
}
