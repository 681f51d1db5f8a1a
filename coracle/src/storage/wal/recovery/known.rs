//! Closed segments that were read whole, remembered from one survey to the next.

use super::super::batches::Batches;
use super::super::format::End;
use super::super::index::Log;
use super::super::places::Places;
use super::super::segment::{Segment, is_there};
use super::chain::Link;
use crate::storage::StoreError;
use crate::storage::disk::Disk;
use crate::storage::shape::Shape;
use coracle_core::Broken;
use std::collections::BTreeMap;

/// Closed segments that were read whole: what is stable is not read twice, however often a log in use is surveyed.
#[derive(Default)]
pub(in crate::storage::wal) struct Known(BTreeMap<(u64, u64), Closed>);

/// What one of them says, up to this end: where its entries lie, and the shape of the log after it.
pub(super) struct Closed {
    pub(super) places: Places,
    pub(super) shape: Shape,
}

impl Known {
    /// Reads what it does not know yet, the newest first: where another process purges the log meanwhile, that comes from
    /// the other end, and the newest segments are not gone before it is their turn. What cannot be read is left to whoever
    /// judges it; what is gone, with all before it, need not be read.
    pub(super) fn read(&mut self, disk: &dyn Disk, links: &[Link]) -> Result<(), StoreError> {
        self.0.retain(|key, _| links.iter().any(|link| link.segment.key() == *key));
        for pair in links.windows(2).rev() {
            let [link, next] = pair else { continue };
            let (segment, limit) = (&link.segment, next.checkpoint.follows);
            if self.get(segment, limit).is_some() {
                continue;
            }
            match closed(link, limit)? {
                Some(closed) => drop(self.0.insert(segment.key(), closed)),
                None if !is_there(disk, segment.number, Some(segment.generation))? => break,
                None => {}
            }
        }
        Ok(())
    }

    /// A segment, if it was read up to here.
    pub(super) fn get(&self, segment: &Segment, limit: End) -> Option<&Closed> {
        self.0.get(&segment.key()).filter(|closed| closed.places.end == limit)
    }
}

/// Reads a segment below the top, if it is whole up to this end.
fn closed(link: &Link, limit: End) -> Result<Option<Closed>, StoreError> {
    let Link { segment, checkpoint } = link;
    let mut log = Log::new(Broken::default());
    log.begin(checkpoint.shape.clone());
    log.join(segment.clone());
    let mut batches = Batches::new(segment, &checkpoint.header, Broken::default());
    let mut records = checkpoint.repeats.clone();
    loop {
        if records.iter().any(|record| log.replay(record).is_err()) || batches.end.offset > limit.offset {
            return Ok(None);
        }
        if batches.end == limit {
            let shape = log.shape.clone();
            return Ok(log.places(limit).map(|places| Closed { places, shape }));
        }
        records = match batches.next()? {
            Ok((_, records)) => records,
            Err(_) => return Ok(None),
        };
    }
}
