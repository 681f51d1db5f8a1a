//! What a simulated node wants of its world.

use super::Heard;
use crate::digests::Finding;
use crate::entry::Entry;
use crate::events::News;
use crate::founding::Question;
use crate::replica::Load;
use crate::rulings::Ruled;
use crate::storage::WriteBatch;
use crate::transport::PeerMessage;
use crate::wire::Answer as FoundingAnswer;
use crate::work::{Changed, RequestId, Transferred};
use coracle_core::{Alarm, LogId, MachineStop, Peer, WriteId};

/// A machine that cannot apply an entry.
#[derive(Debug)]
pub(in crate::sim) enum Stop {
    /// It has stopped before this one.
    Machine(LogId),
    /// The node's disk says so, or that it goes on.
    Kept(Option<MachineStop>),
}

/// What a host wants of the world, after it was turned.
#[derive(Default)]
pub(in crate::sim) struct Wants {
    pub(in crate::sim) send: Vec<(Peer, PeerMessage)>,
    pub(in crate::sim) loads: Vec<Load>,
    pub(in crate::sim) asks: Vec<Question>,
    pub(in crate::sim) told: Vec<(u64, FoundingAnswer)>,
    /// What came of changes of the membership.
    pub(in crate::sim) changed: Vec<(u64, Changed)>,
    /// What came of transfers of leadership.
    pub(in crate::sim) transferred: Vec<Transferred>,
    /// What came of rulings about entries.
    pub(in crate::sim) ruled: Vec<Ruled>,
    /// How its machine stopped, and went on.
    pub(in crate::sim) stops: Vec<Stop>,
    /// How many promises the disk is given.
    pub(in crate::sim) promises: usize,
    /// The batches queued for the disk, in order: what the log in memory says now.
    pub(in crate::sim) queued: Vec<WriteBatch>,
    /// Entries that the machine was given, whether a command took effect, the digest then, and what fired.
    pub(in crate::sim) applied: Vec<(Entry, bool, [u8; 16], Vec<u64>)>,
    /// The snapshots from which the machine took its state, and its digest then, before any of `applied` after it.
    pub(in crate::sim) restored: Vec<(LogId, [u8; 16])>,
    /// What the machine published meanwhile.
    pub(in crate::sim) news: Vec<News>,
    /// A snapshot is to be written.
    pub(in crate::sim) saves: bool,
    pub(in crate::sim) heard: Vec<(RequestId, Heard)>,
    pub(in crate::sim) alarms: Vec<Alarm>,
    pub(in crate::sim) findings: Vec<Finding>,
    /// Its machine is used no more, durably.
    pub(in crate::sim) fenced: bool,
    /// It was rebuilt and is used again, durably, or that could not be written down.
    pub(in crate::sim) mended: Option<bool>,
    pub(in crate::sim) leadership_lost: bool,
    /// More at once than its bound allows.
    pub(in crate::sim) unbounded: Option<String>,
    /// The node stops, for this reason.
    pub(in crate::sim) fatal: Option<String>,
}

/// What came of a write.
pub(in crate::sim) enum Written {
    /// Nothing was to be written.
    Nothing,
    /// A part of a large write is durable.
    Part,
    /// This write and all before it are durable.
    Whole(WriteId),
    /// There is no room for it; it is tried again.
    NoRoom,
}
