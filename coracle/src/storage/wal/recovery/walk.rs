//! The way up a log, from its oldest segment to its top: what each says is added to what those before it said.

use super::super::batches::Batches;
use super::super::format::{BLOCK, End};
use super::super::index::Log;
use super::super::places::Places;
use super::super::segment::Segment;
use super::chain::{Extent, Link};
use super::debts::{Debts, damaged, replay};
use super::known::{Closed, Known};
use super::top::Top;
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use coracle_core::Broken;
use std::sync::Arc;

/// A segment that counts, and how far its batches were read.
pub(in crate::storage::wal) struct Visited {
    pub(in crate::storage::wal) segment: Arc<Segment>,
    /// The number of its first batch.
    pub(in crate::storage::wal) first: u64,
    /// After the last batch that is whole.
    pub(in crate::storage::wal) end: End,
}

/// How far a log was read, and what it says up to there.
pub(super) struct Walk<'a> {
    disk: &'a dyn Disk,
    extent: Extent,
    known: &'a Known,
    broken: Broken,
    /// The log up to here.
    pub(super) log: Log,
    /// The end of the batches that the log follows from, unless damage hides it.
    replayed: Option<End>,
    /// What is wrong with it.
    pub(super) debts: Debts,
    /// The segments whose batches were read, ascending.
    pub(super) visited: Vec<Visited>,
    /// What was read up to a damage; see [`Survey::lost`](super::Survey::lost).
    pub(super) lost: Vec<Log>,
}

impl<'a> Walk<'a> {
    /// Before the oldest segment.
    pub(super) fn new(
        disk: &'a dyn Disk,
        extent: Extent,
        known: &'a Known,
        debts: Debts,
        broken: Broken,
    ) -> Walk<'a> {
        let log = Log::new(broken);
        Walk { disk, extent, known, broken, log, replayed: None, debts, visited: vec![], lost: vec![] }
    }

    /// Judges the checkpoint of the next segment by what was read, and goes on with it. What was read is lost, where
    /// the checkpoint does not follow from it.
    pub(super) fn begin(&mut self, link: &Link) -> Result<(), StoreError> {
        let Link { segment, checkpoint } = link;
        let follows = checkpoint.follows;
        let forgets = self.broken.is("checkpoint-forgets-vote");
        let disagree = self.replayed == Some(follows) && self.log.shape != checkpoint.shape && !forgets;
        if checkpoint.header.number != follows.batch + 1 || checkpoint.header.previous != follows.checksum {
            let detail = "the checkpoint does not follow the batch that it names";
            self.debts.add_hard(damaged(segment, BLOCK, detail))?;
        } else if disagree {
            let detail = "the checkpoint and the batches before it disagree";
            self.debts.add_hard(damaged(segment, BLOCK, detail))?;
        }
        if self.replayed != Some(follows) || disagree || forgets {
            let before = std::mem::replace(&mut self.log, Log::new(self.broken));
            if before.segments().count() > 0 {
                self.lost.push(before);
            }
            self.log.begin(checkpoint.shape.clone());
        }
        self.log.join(segment.clone());
        Ok(())
    }

    /// Passes a segment below the top: all of it was synced, up to where the next segment says. It is read only where
    /// nothing else tells what it says.
    pub(super) fn pass(&mut self, link: &Link, next: &Link) -> Result<(), StoreError> {
        let Link { segment, checkpoint } = link;
        let (limit, last) = (next.checkpoint.follows, next.checkpoint.shape.last.index);
        if self.extent != Extent::All
            && let Some(places) = Places::read(self.disk, limit, last)
        {
            self.replayed = Some(limit);
            self.log.adopt(places, next.checkpoint.shape.clone());
            return Ok(());
        }
        let first = checkpoint.header.number;
        if let Some(Closed { places, shape }) = self.known.get(segment, limit) {
            self.visited.push(Visited { first, end: limit, segment: segment.clone() });
            self.replayed = Some(limit);
            self.log.adopt(places.clone(), shape.clone());
            return Ok(());
        }
        let mut batches = Batches::new(segment, &checkpoint.header, self.broken);
        let result = read_to(&mut self.log, link, &mut batches, limit);
        self.replayed = result.is_ok().then_some(limit);
        self.visited.push(Visited { first, end: batches.end, segment: segment.clone() });
        result.or_else(|error| self.debts.add(last, error))
    }

    /// Reads the top, to its end. What is attested is in the log then; the rest waits in what is returned, and all of
    /// it does as long as the top may be replaced, which takes the batch that it follows.
    pub(super) fn arrive(&mut self, link: Link, attested: u64) -> Result<Top, StoreError> {
        let Link { segment, checkpoint } = link;
        let (first, follows) = (checkpoint.header.number, checkpoint.follows);
        let little = match self.extent {
            Extent::AsNeeded { little } if follows == End::NONE || self.replayed == Some(follows) => {
                Some(little)
            }
            _ => None,
        };
        let mut batches = Batches::new(&segment, &checkpoint.header, self.broken);
        let attested = attested.max(checkpoint.header.synced);
        let mut top = Top::new(follows, attested, little, batches.end, checkpoint.repeats);
        let result = top.read(self.disk, &mut self.log, &segment, &mut batches, self.broken);
        let end = batches.end;
        self.visited.push(Visited { first, end, segment: segment.clone() });
        result.or_else(|error| self.debts.add_hard(error))?;
        Ok(top)
    }
}

/// Replays all that a segment says, up to this end.
fn read_to(log: &mut Log, link: &Link, batches: &mut Batches<'_>, limit: End) -> Result<(), StoreError> {
    let segment = &link.segment;
    replay(log, segment, BLOCK, &link.checkpoint.repeats)?;
    while batches.end != limit {
        let offset = batches.end.offset;
        match batches.next()? {
            Ok((_, records)) if batches.end.offset <= limit.offset => {
                replay(log, segment, offset, &records)?;
            }
            Ok(_) => return Err(damaged(segment, offset, "the next segment begins elsewhere")),
            Err(wrong) => return Err(damaged(segment, offset, wrong)),
        }
    }
    Ok(())
}
