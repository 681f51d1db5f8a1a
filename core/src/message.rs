//! What nodes say to each other, without the entries' bytes.
//!
//! An [`AppendEntries`] says which entries it carries by place only; the shell carries their bytes beside it, and its
//! receiver's shell reads from these what the core must know of them ([`Carried`]). Messages may be lost, repeated, reordered and delayed at will (§5.1 asks
//! for no more), and may come from anyone: whatever does not fit is dropped with a reason, never believed.

use crate::{Boot, Index, LogId, Membership, NodeId, Peer, Round, Run, Term};
use alloc::vec::Vec;

/// A message with its sender and receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Who says it.
    pub from: Peer,
    /// Whom it is meant for.
    pub to: Peer,
    /// The newest membership entry that the sender has, so that a receiver whose membership is older can
    /// tell a newcomer from a removed node.
    pub membership: LogId,
    /// What is said.
    pub message: Message,
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// RequestVote, or PreVote.
    RequestVote(RequestVote),
    /// The answer to [`RequestVote`].
    RequestVoteReply(RequestVoteReply),
    /// AppendEntries, or a heartbeat when it carries no entries.
    AppendEntries(AppendEntries),
    /// The answer to [`AppendEntries`].
    AppendEntriesReply(AppendEntriesReply),
    /// A follower asks the leader for an index to read at.
    ReadIndex(ReadIndex),
    /// The answer to [`ReadIndex`].
    ReadIndexReply(ReadIndexReply),
    /// InstallSnapshot: a piece of a snapshot.
    InstallSnapshot(InstallSnapshot),
    /// The answer to [`InstallSnapshot`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// A leader hands over.
    TimeoutNow(TimeoutNow),
}

/// RequestVote (§5.2), or with `pre` PreVote: the question whether one would succeed (thesis, section 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestVote {
    /// The term that the sender campaigns for; with `pre` it has not entered that term yet.
    pub campaign: Term,
    /// Whether this is PreVote, which only asks.
    pub pre: bool,
    /// Names the candidacy, so that a grant given to an earlier one of the same term is told apart.
    pub question: u64,
    /// The sender's newest entry (§5.4.1).
    pub last: LogId,
    /// Set if a leader told the sender to campaign: then whoever hears that very leader may vote all the same.
    pub handed_over: Option<HandedOver>,
}

/// Who hands its leadership over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandedOver {
    /// The leader.
    pub by: Peer,
    /// The term that it leads.
    pub term: Term,
}

/// Why a vote was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// The voter is in a newer term.
    Term = 1,
    /// The voter has voted for another node in this term.
    Voted = 2,
    /// The voter's log is more up-to-date.
    Log = 3,
    /// The voter hears a leader.
    Leader = 4,
    /// The voter asks the same question itself and goes first.
    Rival = 5,
}

/// The answer to a [`RequestVote`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestVoteReply {
    /// Echo of the campaign that this answers.
    pub campaign: Term,
    /// Echo of whether that only asked.
    pub pre: bool,
    /// Echo of the candidacy that asked.
    pub question: u64,
    /// The voter's own term.
    pub term: Term,
    /// None if the vote is granted.
    pub refusal: Option<Refusal>,
    /// Whom the voter holds for the leader.
    pub leader: Option<NodeId>,
}

/// AppendEntries (§5.3). Without entries it is a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry just before those carried.
    pub prev: LogId,
    /// The index of the last entry carried; `prev.index` if there is none.
    pub last: Index,
    /// The leader's commit index.
    pub commit: Index,
    /// The newest confirmation round.
    pub round: Round,
    /// For how long its receiver is asked to depose nobody, in ticks; 0 if it is not asked (D5.4.3).
    pub lease: u64,
    /// How far the leader's own log is durable.
    pub persisted: Index,
    /// For how long the leader's oldest disk write has been under way, in ticks.
    pub disk_age: u64,
    /// What the cluster's clock shows at the leader, in milliseconds. The shell fills it in as the message
    /// leaves and reads it on receipt; the core only carries it.
    pub time: u64,
    /// What a majority of the machines is known to look like. The shell fills it in and reads it on receipt.
    pub agreed: Option<Digest>,
}

/// What the entries of an [`AppendEntries`] are, as its receiver reads it from them: nobody sends this. Empty for every
/// other message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Their terms: the first run starts after the entry just before them.
    pub runs: Vec<Run>,
    /// The memberships among them, by index.
    pub memberships: Vec<(Index, Membership)>,
}

/// The answer to an [`AppendEntries`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendEntriesReply {
    /// The follower's term.
    pub term: Term,
    /// The newest round that the follower has heard of in this term.
    pub round: Round,
    /// For how long it deposes nobody, in ticks, from when it heard of that round (D5.4.3).
    pub promised: u64,
    /// The newest index that is durable here *and* verified by an [`AppendEntries`] of this term.
    pub matched: Index,
    /// The newest index in the follower's log, durable or not.
    pub last: Index,
    /// Set when `prev` did not match: the newest entry here that is neither after `prev` nor of a greater
    /// term, so the newest that can match.
    pub conflict: Option<LogId>,
    /// How far the follower's machine has applied.
    pub applied: Index,
    /// For how long the follower's oldest disk write has been under way, in ticks.
    pub disk_age: u64,
    /// The newest digest of the follower's state. The shell fills it in; the core only carries it.
    pub digest: Option<Digest>,
    /// Before which entry the follower's machine has stopped, durably. The shell fills it in; the core only carries it.
    pub stop: Option<MachineStop>,
    /// Its machine is to be rebuilt: it wants a snapshot from after this index, though its log lacks nothing. The shell fills
    /// it in and reads it.
    pub wants: Option<Index>,
}

/// A machine that cannot apply an entry, and passes it only once the log says how (D5.5.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineStop {
    /// The entry.
    pub at: LogId,
    /// The newest entry by which such a stop was withdrawn that this machine has heeded; 0 if none.
    pub after: Index,
}

/// What a node's state machine looks like at one index, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    /// The index up to which was applied.
    pub index: Index,
    /// How it was computed: digests of different formats say nothing of each other.
    pub format: u32,
    /// The version of the machine: nor do those of different versions.
    pub version: u32,
    /// The digest.
    pub bytes: [u8; 16],
}

/// A follower's question for an index to read at (thesis, section 6.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndex {
    /// The follower's term.
    pub term: Term,
    /// Which boot of the follower asks.
    pub boot: Boot,
    /// Which of its questions this is; never used twice in one boot.
    pub sequence: u64,
}

/// The answer to a [`ReadIndex`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndexReply {
    /// The leader's term.
    pub term: Term,
    /// Echo of the question.
    pub boot: Boot,
    /// Echo of the question.
    pub sequence: u64,
    /// Where to read; none if the sender can't say, and why does not matter to the follower.
    pub index: Option<Index>,
}

/// InstallSnapshot (section 7): one piece of the file that holds a snapshot, for a follower that lacks entries which the
/// leader has no more. The shell carries the piece's bytes beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The entry up to which the snapshot stands for the log.
    pub snapshot: LogId,
    /// Names the file: two leaders' snapshots up to the same entry need not be the same bytes.
    pub file: u64,
    /// The length of the whole file, in bytes.
    pub length: u64,
    /// Where in it this piece begins.
    pub offset: u64,
}

/// The answer to an [`InstallSnapshot`]. That the whole of it is installed, an [`AppendEntriesReply`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallSnapshotReply {
    /// The follower's term.
    pub term: Term,
    /// Echo of the snapshot.
    pub snapshot: LogId,
    /// Echo of the file.
    pub file: u64,
    /// Where the next piece begins that is wanted; the length of the file if none is.
    pub next: u64,
}

/// TimeoutNow (thesis, section 3.10): the leader tells a voter to campaign at once, in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The entry that the receiver must hold durably to obey: the leader's last.
    pub last: LogId,
}

impl Message {
    /// The term that the sender is in, and that the receiver enters if it is newer. A pre-vote's campaign
    /// is not one: its sender has not entered that term.
    pub fn term(&self) -> Term {
        match self {
            Message::RequestVote(vote) if vote.pre => Term::ZERO,
            Message::RequestVote(vote) => vote.campaign,
            Message::RequestVoteReply(reply) => reply.term,
            Message::AppendEntries(append) => append.term,
            Message::AppendEntriesReply(reply) => reply.term,
            Message::ReadIndex(ask) => ask.term,
            Message::ReadIndexReply(reply) => reply.term,
            Message::InstallSnapshot(install) => install.term,
            Message::InstallSnapshotReply(reply) => reply.term,
            Message::TimeoutNow(ask) => ask.term,
        }
    }

    /// Whether it answers a question, which only whom this node knows was asked.
    pub fn is_answer(&self) -> bool {
        matches!(
            self,
            Message::RequestVoteReply(_)
                | Message::AppendEntriesReply(_)
                | Message::ReadIndexReply(_)
                | Message::InstallSnapshotReply(_)
        )
    }

    /// Whether the fields can be true at all, and of these entries. What a vote says of its sender's log is the sender's
    /// affair.
    pub fn is_well_formed(&self, carried: &Carried) -> bool {
        let fits = match self {
            Message::RequestVote(vote) => vote.is_well_formed(),
            Message::TimeoutNow(ask) => ask.last.term <= ask.term && ask.last.index < Index::LIMIT,
            Message::AppendEntries(append) => append.is_well_formed(carried),
            Message::InstallSnapshot(install) => install.is_well_formed(),
            _ => true,
        };
        fits && self.term() < Term::LIMIT
    }
}

impl RequestVote {
    /// Whether the fields can all be true: nobody is told to ask first, or to campaign for the leader's own term.
    pub fn is_well_formed(&self) -> bool {
        let told = self.handed_over.is_none_or(|handed| !self.pre && handed.term < self.campaign);
        self.campaign > Term::ZERO && self.campaign < Term::LIMIT && told
    }
}

impl InstallSnapshot {
    /// Whether the fields can all be true of one leader's snapshot.
    pub fn is_well_formed(&self) -> bool {
        self.snapshot.index > Index::ZERO
            && self.snapshot.index < Index::LIMIT
            && self.snapshot.term > Term::ZERO
            && self.snapshot.term <= self.term
            && self.offset <= self.length
    }
}

impl AppendEntries {
    /// The number of entries carried.
    pub fn count(&self) -> u64 {
        self.last.0.saturating_sub(self.prev.index.0)
    }

    /// The term of the entry at `index`, if it is carried.
    pub fn term_of(&self, carried: &Carried, index: Index) -> Option<Term> {
        let is_carried = index > self.prev.index && index <= self.last;
        let at = carried.runs.partition_point(|run| run.first <= index);
        carried.runs[..at].last().filter(|_| is_carried).map(|run| run.term)
    }

    /// Leaves out all entries: what is left is a heartbeat.
    pub fn drop_entries(&mut self) {
        self.last = self.prev.index;
    }

    /// Whether the fields can all be true of one leader's log, with these entries.
    pub fn is_well_formed(&self, carried: &Carried) -> bool {
        let Carried { runs, memberships } = carried;
        let ascending = runs.windows(2).all(|w| w[0].first < w[1].first && w[0].term < w[1].term);
        let fits = match (runs.first(), runs.last()) {
            (Some(first), Some(last)) => {
                first.first == self.prev.index.next()
                    && first.term > Term::ZERO
                    && first.term >= self.prev.term
                    && last.first <= self.last
                    && last.term <= self.term
            }
            _ => self.last == self.prev.index,
        };
        let is_carried = |index: Index| index > self.prev.index && index <= self.last;
        ascending
            && fits
            && self.term > Term::ZERO
            && self.last < Index::LIMIT
            && self.prev.term <= self.term
            && (self.prev.index == Index::ZERO) == (self.prev.term == Term::ZERO)
            && memberships.windows(2).all(|w| w[0].0 < w[1].0)
            && memberships.iter().all(|(index, m)| is_carried(*index) && m.is_well_formed())
    }
}

impl Carried {
    /// What to say of the entries after `prev`, of each its term, and its membership if it is one.
    pub fn after(prev: Index, entries: impl IntoIterator<Item = (Term, Option<Membership>)>) -> Carried {
        let mut carried = Carried::default();
        let mut index = prev;
        for (term, membership) in entries {
            index = index.next();
            if carried.runs.last().is_none_or(|run| run.term != term) {
                carried.runs.push(Run { first: index, term });
            }
            carried.memberships.extend(membership.map(|membership| (index, membership)));
        }
        carried
    }
}
