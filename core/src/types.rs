//! The small values that everything else is made of.
//!
//! Each is a newtype, so that a term is never taken for an index, and each derives a total order, so
//! that the rules of the paper can be written as comparisons.

use alloc::string::String;
use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number! {
    /// The name of a node within its cluster, at least 1. Chosen by the operator and never reused.
    NodeId
}
number! {
    /// One life of a node's disk: 64 random bits drawn when the data directory is made.
    ///
    /// A voter is a disk, not a name. A node whose disk was wiped has forgotten its votes, so it comes
    /// back as another incarnation, and its answers no longer count.
    Incarnation
}
number! {
    /// A boot: one life of a node's process, named by 64 random bits that are drawn at its start.
    Boot
}
number! {
    /// Raft's logical clock (§5.1). Zero before the first election.
    Term
}
number! {
    /// A position in the log. The first entry has index 1; zero stands before it.
    Index
}
number! {
    /// A disk write that was handed to the log's writer. Only grows within one boot.
    WriteId
}
number! {
    /// Names a proposal or a read between the core and its caller; the core only hands it back.
    Ticket
}
number! {
    /// A confirmation round of a leader (thesis, section 6.4): each heartbeat carries the newest.
    Round
}
number! {
    /// A moment on the node's monotonic clock, in ticks of 10 ms. Its origin means nothing.
    Tick
}

/// What is known of the certificate of a node: of which moment it is, and which key it is for. The core keeps it with the
/// membership, and judges nobody by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// When it began to be valid, in seconds since 1970.
    pub issued: u64,
    /// A cryptographic hash of its public key.
    pub key: [u8; 32],
}

impl Term {
    /// Before any election.
    pub const ZERO: Term = Term(0);

    /// No honest term comes near it: that would take an election every nanosecond for centuries. Whoever
    /// claims it is not believed, so every term has another one after it.
    pub const LIMIT: Term = Term(u64::MAX / 2);

    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Index = Index(0);

    /// No honest index comes near it. Whoever claims it is not believed, so every log can grow.
    pub const LIMIT: Index = Index(u64::MAX / 2);

    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }

    /// The index before this one; zero has none and stays.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl WriteId {
    /// The id after this one.
    pub fn next(self) -> WriteId {
        WriteId(self.0 + 1)
    }
}

impl Round {
    /// The round after this one.
    pub fn next(self) -> Round {
        Round(self.0 + 1)
    }
}

impl Tick {
    /// How many ticks passed since `earlier`; none if the clock stood still.
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `ticks` later.
    pub fn after(self, ticks: u64) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }
}

/// Names an entry: two entries with the same `LogId` are the same entry (Log Matching, §5.3).
///
/// The field order matters: the derived `Ord` *is* "at least as up-to-date" (§5.4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term in which a leader created the entry.
    pub term: Term,
    /// Its position in the log.
    pub index: Index,
}

impl LogId {
    /// Before the first entry.
    pub const ZERO: LogId = LogId { term: Term::ZERO, index: Index::ZERO };

    /// The entry at `index` created in `term`.
    pub fn new(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: Index(index) }
    }
}

impl fmt::Display for LogId {
    /// Writes `index.term`, as the hazards and the tests do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.term)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A node in one of its lives: whom a message is from, and to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Peer {
    /// Its name.
    pub id: NodeId,
    /// Its disk.
    pub incarnation: Incarnation,
}

/// 128 bits that name a cluster: a hash over its first members and their incarnations, which are random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// A node as the membership knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Its disk: another incarnation of the same id is a stranger.
    pub incarnation: Incarnation,
    /// Where others dial it, as `host:port`. Opaque to the core.
    pub address: String,
}

impl Member {
    /// The member as the sender or receiver of a message.
    pub fn peer(&self) -> Peer {
        Peer { id: self.id, incarnation: self.incarnation }
    }
}

/// What a node must never forget (Figure 2, "persistent state on all servers"), apart from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The newest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<Peer>,
    /// The longest lease that it ever promised, in ticks; 0 if it never did (D5.4.3).
    pub promised: u64,
}

/// The start of a stretch of entries that share a term. A log is a list of these, ascending in both fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The index of the first entry of the stretch.
    pub first: Index,
    /// The term of every entry in it.
    pub term: Term,
}

impl Run {
    /// The run that starts at `first` in `term`.
    pub fn new(first: u64, term: u64) -> Run {
        Run { first: Index(first), term: Term(term) }
    }
}
