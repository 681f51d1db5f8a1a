//! Where a node keeps what it must not forget.
//!
//! [`LogStore`] is the contract; the write-ahead log ([`wal`]) is its default and durable
//! implementation, [`memory`] the one for tests and for clusters that may forget. The store belongs to
//! the writer's thread; a [`LogReader`] is shared and never waits for a sync.

#[cfg(feature = "contract")]
#[cfg_attr(docsrs, doc(cfg(feature = "contract")))]
pub mod contract;
pub mod disk;
pub mod engine;
pub mod identity;
pub mod keyed;
pub mod mem_disk;
pub mod memory;
pub(crate) mod met;
pub(crate) mod moved;
pub(crate) mod newcomer;
pub mod queue;
mod shape;
mod small;
pub mod snapshots;
pub mod wal;

pub use engine::Engine;
pub use met::Met;

use crate::entry::Entry;
use bytes::Bytes;
use coracle_core::{ClusterId, HardState, Incarnation, Index, LogId, NodeId, Run};
use std::fmt;
use std::path::PathBuf;

/// Who a data directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node's name.
    pub node: NodeId,
    /// The disk: drawn at random when the directory was made.
    pub incarnation: Incarnation,
    /// The cluster that the node has joined; none while it is blank.
    pub cluster: Option<ClusterId>,
}

/// For operators.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of incarnation {:016x}", self.node, self.incarnation.0)?;
        match self.cluster {
            Some(cluster) => write!(f, " in cluster {cluster}"),
            None => f.write_str(" in no cluster"),
        }
    }
}

/// One change of the log. Changes of a batch take effect in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Forget every entry; the log goes on after this one (a snapshot stands for all before).
    Reset(LogId),
    /// Forget every entry after this index. Never below what was purged.
    Truncate(Index),
    /// Add entries, contiguous with each other and with the log, terms not descending.
    Append(Vec<Entry>),
}

/// What one durable write changes, whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteBatch {
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Changes of the log, in order.
    pub changes: Vec<Change>,
}

/// What a store held when it was opened, all of it durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The hard state; the default if none was ever written.
    pub hard_state: HardState,
    /// The newest entry that was purged or reset to; [`LogId::ZERO`] if none. The log starts after it.
    pub purged: LogId,
    /// The newest entry; equal to `purged` if the log is empty.
    pub last: LogId,
    /// The runs of terms of the entries from after `purged` to `last`.
    pub runs: Vec<Run>,
    /// The payloads of all membership entries that the log still covers, ascending: those after `purged`
    /// and the newest at or before it.
    pub memberships: Vec<(LogId, Bytes)>,
}

/// Why a store cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused. After a failed write or sync the store refuses all further writes.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room for what the store would have to make next: no space on the disk, no open file left. Nothing
    /// was written and nothing is in doubt. The store goes on, and the same write may be tried again.
    #[error("no room to make {}; make room, and the log goes on", path.display())]
    NoSpace {
        /// The file that could not be made.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes that were acknowledged are no longer what they were.
    #[error("{} is damaged at offset {offset}: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset in it, in bytes.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// Bytes that are whole, but say what this version does not know.
    #[error(
        "{} was written by a newer version, as offset {offset} tells: {detail}; upgrade to that version",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The offset in it, in bytes.
        offset: u64,
        /// What is not known.
        detail: String,
    },
    /// Bytes that are whole, but of a version that is not read any more.
    #[error(
        "{} was made by a version before this one (its format is {version}), which is not read any more; start \
         with an empty directory",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process; stop that one, or use another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another node, or its identity and its log disagree.
    #[error("{}: {detail}", path.display())]
    Identity {
        /// The file or directory.
        path: PathBuf,
        /// What does not fit, and what to do.
        detail: String,
    },
    /// The batch breaks the contract: a gap, a descending term, a truncation of purged entries.
    #[error("the write was refused: {0}")]
    Refused(String),
    /// The store of another node failed, and this is what that node said.
    #[error("{0}")]
    Remote(String),
}

/// Durable storage of the log and the hard state.
///
/// A write is atomic, takes effect in the order of the calls and is **durable on return**: it survives
/// the loss of power. After an error of [`write`](LogStore::write) the store is finished: a sync that
/// failed is never tried again, since the system may have dropped the data and say yes the second time. The
/// exception is [`StoreError::NoSpace`], which says that the store is as it was before.
pub trait LogStore: Send {
    /// Reads back what earlier boots made durable. Called once, before anything else. May write, to make
    /// durable what it found in doubt. Calls `progress` now and then with the share that is done, 0 to 1.
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError>;

    /// Makes a batch durable.
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Forgets all entries up to `upto`, which must be in the log; a durable snapshot covers them.
    /// Their space is freed some time later.
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError>;

    /// Called when no write came for a while, and before a clean stop. A store may use it to make its
    /// newest write attested.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether it never waits for anything, as a log in memory, and always has room. It is then written by consensus itself, without
    /// a thread of its own, unless it belongs to a directory: what stands beside it there may wait.
    fn never_waits(&self) -> bool {
        false
    }

    /// A reader beside the writer, for slow followers and tools.
    fn reader(&self) -> Box<dyn LogReader>;
}

/// Why a reader has no entries to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadLogError {
    /// The first wanted entry was purged.
    #[error("the entry was purged")]
    Purged,
    /// The first wanted entry is after the end of what was written.
    #[error("the log ends before the entry")]
    Missing,
    /// The bytes on disk are wrong, or could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads entries that the store holds, each verified: checksum, index and term.
pub trait LogReader: Send + Sync {
    /// The entries from `first` to at most `last` (inclusive), contiguous from `first` on: at least one, and
    /// as many as fit in `max_bytes` of encoded entries.
    fn entries(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError>;

    /// How many bytes the store takes on disk, files kept for later included; 0 if it uses none. Answered
    /// from memory, without waiting for a disk.
    fn disk_bytes(&self) -> u64 {
        0
    }
}
