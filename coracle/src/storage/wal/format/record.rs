//! What a batch says, record by record.

use super::fields::{HARD_STATE_SIZE, Wrong};
use crate::entry::Entry;
use crate::storage::Identity;
use crate::storage::shape::Shape;
use bytes::Bytes;
use coracle_core::{HardState, Index, LogId};

/// The bytes in front of a record's content.
pub(in crate::storage::wal) const RECORD_HEADER: usize = 24;

/// The end of a batch: where the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::storage::wal) struct End {
    /// The segment's number; 0 for the end of a log that has no batch.
    pub(in crate::storage::wal) segment: u64,
    /// The segment's generation.
    pub(in crate::storage::wal) generation: u64,
    /// The offset after the batch, on a block's edge.
    pub(in crate::storage::wal) offset: u64,
    /// The batch's number.
    pub(in crate::storage::wal) batch: u64,
    /// The batch's header checksum.
    pub(in crate::storage::wal) checksum: u32,
}

impl End {
    /// Before the first batch of a new log.
    pub(in crate::storage::wal) const NONE: End =
        End { segment: 0, generation: 0, offset: 0, batch: 0, checksum: 0 };
}

/// Where in a segment an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::storage::wal) struct Place {
    pub(in crate::storage::wal) offset: u32,
    pub(in crate::storage::wal) len: u32,
}

/// One thing that a batch says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::storage::wal) enum Record {
    /// In a checkpoint: whose log it is, and which batch it follows.
    Origin { identity: Identity, end: End },
    /// In a checkpoint: the whole shape, except for its memberships.
    State(Shape),
    /// In a checkpoint: one membership of the shape.
    Membership(LogId, Bytes),
    /// A new hard state.
    HardState(HardState),
    /// Forget all entries.
    Reset(LogId),
    /// Forget the entries after.
    Truncate(Index),
    /// More entries, and where each lies.
    Append(Vec<(Entry, Place)>),
    /// The entries up to here are in a snapshot.
    Purge(LogId),
    /// The log goes on in this segment, which has joined it. The record comes after the last batch that counts.
    Successor {
        /// The segment's number.
        number: u64,
        /// Its generation.
        generation: u64,
    },
}

impl Record {
    /// Applies it to the outline of a log.
    pub(in crate::storage::wal) fn change(&self, shape: &mut Shape) -> Result<(), Wrong> {
        match self {
            Record::HardState(hard_state) => shape.hard_state = *hard_state,
            Record::Reset(to) => shape.reset(*to)?,
            Record::Truncate(last) => shape.truncate(*last)?,
            Record::Append(entries) => entries.iter().try_for_each(|(e, _)| shape.append_entry(e))?,
            Record::Purge(upto) => shape.purge(*upto)?,
            Record::Origin { .. } | Record::State(_) | Record::Membership(..) | Record::Successor { .. } => {
                return Err("a record that does not belong there".into());
            }
        }
        Ok(())
    }

    /// About the bytes that it takes, and more than that of a small one.
    pub(in crate::storage::wal) fn weight(&self) -> u64 {
        match self {
            Record::Append(entries) => {
                RECORD_HEADER as u64 + entries.iter().map(|(_, place)| u64::from(place.len)).sum::<u64>()
            }
            _ => (RECORD_HEADER + HARD_STATE_SIZE) as u64,
        }
    }
}

/// The kinds, as they stand in a record.
pub(super) const ORIGIN: u8 = 1;
pub(super) const STATE: u8 = 2;
pub(super) const MEMBERSHIP: u8 = 3;
pub(super) const HARD_STATE: u8 = 4;
pub(super) const RESET: u8 = 5;
pub(super) const TRUNCATE: u8 = 6;
pub(super) const APPEND: u8 = 7;
pub(super) const PURGE: u8 = 8;
pub(super) const SUCCESSOR: u8 = 9;

/// The raft group of every record: there is one, until there are many.
pub(super) const GROUP: u64 = 0;

/// Bit 0 of an origin's flags: the cluster is known.
pub(super) const KNOWS_CLUSTER: u32 = 1;
