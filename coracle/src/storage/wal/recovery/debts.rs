//! What is wrong with a log, and whether it still matters: damage is a debt that a purge may pay.

use super::super::format::Record;
use super::super::index::Log;
use super::super::segment::{self, Segment};
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use crate::storage::shape::Shape;
use coracle_core::Index;

/// What must be purged in the end, or else this is the error.
struct Debt {
    upto: Index,
    error: StoreError,
    /// The number of the segment that should be there and is not.
    gone: Option<u64>,
}

/// All that is wrong with a log.
#[derive(Default)]
pub(super) struct Debts(Vec<Debt>);

impl Debts {
    /// Notes damage that no purge up to less than `upto` makes up for. What is not damage ends the survey.
    pub(super) fn add(&mut self, upto: Index, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::Damaged { .. } | StoreError::Identity { .. } => {
                self.0.push(Debt { upto, error, gone: None });
            }
            error => return Err(error),
        }
        Ok(())
    }

    /// Notes this damage, if there is any.
    pub(super) fn add_hard_if(&mut self, error: Option<StoreError>) -> Result<(), StoreError> {
        error.map_or(Ok(()), |error| self.add_hard(error))
    }

    /// Notes that a segment is gone, which a purge up to `upto` makes up for.
    pub(super) fn add_gone(&mut self, upto: Index, number: u64, error: StoreError) {
        self.0.push(Debt { upto, error, gone: Some(number) });
    }

    /// Notes damage that nothing makes up for.
    pub(super) fn add_hard(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.add(Index(u64::MAX), error)
    }

    /// Says of each damage whether what was purged covers it.
    pub(super) fn pay<'a>(self, shape: &Shape, after: impl Iterator<Item = &'a Record>) -> Vec<Damage> {
        let purges = after.filter_map(|record| match record {
            Record::Purge(upto) | Record::Reset(upto) => Some(upto.index),
            _ => None,
        });
        let purged = purges.fold(shape.purged.index, Index::max);
        let damage = |Debt { upto, error, gone }| Damage { forgiven: purged >= upto, error, gone };
        self.0.into_iter().map(damage).collect()
    }
}

/// A damage, and whether a start forgives it: everything that it hit is purged.
pub(in crate::storage::wal) struct Damage {
    pub(in crate::storage::wal) error: StoreError,
    pub(in crate::storage::wal) forgiven: bool,
    /// The number of the segment that should be there and is not, if it is that.
    pub(in crate::storage::wal) gone: Option<u64>,
}

/// The file of a segment that was there is not, or its first batch is not whole.
pub(super) fn missing(disk: &dyn Disk, number: u64, why: &str) -> StoreError {
    let path = disk.path().join(segment::name(number));
    let detail = format!("{why}, but this segment, or a later one, is missing or not whole; bring it back");
    StoreError::Damaged { path, offset: 0, detail }
}

pub(super) fn damaged(segment: &Segment, offset: u64, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: segment.path.clone(), offset, detail: detail.into() }
}

/// Applies the records of a batch that starts here.
pub(super) fn replay(
    log: &mut Log,
    segment: &Segment,
    offset: u64,
    records: &[Record],
) -> Result<(), StoreError> {
    let mut records = records.iter();
    records.try_for_each(|record| log.replay(record)).map_err(|wrong| damaged(segment, offset, wrong))
}
