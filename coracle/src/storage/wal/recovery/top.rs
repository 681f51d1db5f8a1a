//! The newest segment, whose end may be torn: what nothing attests waits, and may be in doubt.

use super::super::batches::Batches;
use super::super::format::{BLOCK, End, Record, Wrong};
use super::super::index::Log;
use super::super::segment::Segment;
use super::debts::{damaged, missing, replay};
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use crate::storage::shape::Shape;
use coracle_core::Broken;
use std::collections::VecDeque;

/// A batch that is whole and not yet in the log.
struct Waiting {
    /// The end of the batch.
    after: End,
    /// Where it starts.
    offset: u64,
    records: Vec<Record>,
}

/// The top as far as it was read.
pub(super) struct Top {
    /// The end of the newest batch that is in the log.
    pub(super) end: End,
    /// The newest batch that is attested.
    pub(super) attested: u64,
    waiting: VecDeque<Waiting>,
    /// About the bytes that it says.
    weight: u64,
    /// It is replaced if it says no more than so many bytes; none, if it cannot be.
    little: Option<u64>,
}

impl Top {
    /// A top that follows this end, and of which only the checkpoint was read: up to `after`.
    pub(super) fn new(
        follows: End,
        attested: u64,
        little: Option<u64>,
        after: End,
        repeats: Vec<Record>,
    ) -> Top {
        let mut top = Top { end: follows, attested, waiting: VecDeque::new(), weight: 0, little };
        top.push(after, BLOCK, repeats);
        top
    }

    fn push(&mut self, after: End, offset: u64, records: Vec<Record>) {
        self.weight += records.iter().map(Record::weight).sum::<u64>();
        self.waiting.push_back(Waiting { after, offset, records });
    }

    /// Whether it says so little that it is to be replaced.
    fn is_little(&self) -> bool {
        self.little.is_some_and(|little| self.weight <= little)
    }

    /// Reads all batches, and judges the end.
    pub(super) fn read(
        &mut self,
        disk: &dyn Disk,
        log: &mut Log,
        segment: &Segment,
        batches: &mut Batches<'_>,
        broken: Broken,
    ) -> Result<(), StoreError> {
        let wrong = self.read_batches(disk, log, segment, batches)?;
        if self.is_little() {
            // It would be too late to find this out in the new segment.
            self.try_out(log.shape.clone(), segment)?;
        } else {
            self.settle(log, segment)?;
        }
        if self.attested > batches.end.batch && !broken.is("attestation-ignored") {
            return Err(damaged(segment, batches.end.offset, wrong));
        }
        Ok(())
    }

    /// Reads batch after batch, until one is not whole: what is wrong with that one.
    fn read_batches(
        &mut self,
        disk: &dyn Disk,
        log: &mut Log,
        segment: &Segment,
        batches: &mut Batches<'_>,
    ) -> Result<Wrong, StoreError> {
        loop {
            let offset = batches.end.offset;
            let (header, records) = match batches.next()? {
                Ok(batch) => batch,
                Err(wrong) => {
                    self.attested = self.attested.max(batches.attested_after()?);
                    return Ok(wrong);
                }
            };
            self.attested = self.attested.max(header.synced);
            if let Some(Record::Successor { number, .. }) = records.first() {
                self.settle(log, segment)?;
                let why = format!("{} says that the log goes on in it", segment.name());
                return Err(missing(disk, *number, &why));
            }
            self.push(batches.end, offset, records);
            if !self.is_little() {
                self.settle(log, segment)?;
            }
        }
    }

    /// Applies what is attested by now, and moves the end after it.
    fn settle(&mut self, log: &mut Log, segment: &Segment) -> Result<(), StoreError> {
        while self.waiting.front().is_some_and(|batch| batch.after.batch <= self.attested) {
            if let Some(Waiting { after, offset, records }) = self.waiting.pop_front() {
                replay(log, segment, offset, &records)?;
                self.end = after;
            }
        }
        Ok(())
    }

    /// Whether all that waits fits a log of this shape.
    fn try_out(&self, mut shape: Shape, segment: &Segment) -> Result<(), StoreError> {
        for Waiting { offset, records, .. } in &self.waiting {
            let fits = records.iter().try_for_each(|record| record.change(&mut shape));
            fits.map_err(|wrong| damaged(segment, *offset, wrong))?;
        }
        Ok(())
    }

    /// What waits: what is attested and not in the log, since the top is to be replaced, and what is in doubt.
    pub(super) fn waiting(self) -> (Vec<Record>, Vec<Record>) {
        let mut sure = self.waiting;
        let unsure = sure.split_off(sure.partition_point(|batch| batch.after.batch <= self.attested));
        let said = |batches: VecDeque<Waiting>| batches.into_iter().flat_map(|batch| batch.records).collect();
        (said(sure), said(unsure))
    }
}
