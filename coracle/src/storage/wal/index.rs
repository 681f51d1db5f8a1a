//! Where each entry lies: the part of the log that the writer and all readers share.
//!
//! Everything in it is durable. The writer changes it under a lock once a sync has returned, never
//! during one; a reader takes under the lock what it needs to know, and reads files after it has let go.
//! That is safe because no byte of the log is ever changed in place, a file that was removed stays readable
//! for whoever holds it, and one that is held is not recycled: to have the segment is to have it pinned.

use super::format::{End, Place, Record};
use super::places::{self, Places};
use super::segment::Segment;
use crate::entry::Entry;
use crate::storage::shape::Shape;
use crate::storage::{Change, WriteBatch};
use coracle_core::{Broken, Index, LogId};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

#[cfg(shuttle)]
use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(shuttle))]
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The log as the writer and all readers share it. Nobody does anything slow under its lock, so the writer
/// waits for no reader and no reader for a sync.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<RwLock<Log>>);

impl Shared {
    /// A log that nobody writes any more.
    pub(super) fn new(log: Log) -> Shared {
        Shared(Arc::new(RwLock::new(log)))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Log> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the writer alone.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The durable log, without its bytes.
#[derive(Default)]
pub(super) struct Log {
    /// Its outline.
    pub(super) shape: Shape,
    /// Its files, the one that is written last.
    held: VecDeque<Held>,
    /// The bytes that the log takes on disk, as the writer last added them up.
    pub(super) disk_bytes: u64,
    broken: Broken,
}

/// One segment and the entries in it that count: a contiguous stretch, perhaps none. From segment to
/// segment, the stretches follow each other.
struct Held {
    segment: Arc<Segment>,
    /// The index of the first place; of an empty stretch, where it would be.
    first: Index,
    places: Vec<Place>,
    /// The newest index when the next segment began: nothing after it can be in here.
    end: Index,
}

impl Log {
    /// A log without entries.
    pub(super) fn new(broken: Broken) -> Log {
        Log { broken, ..Log::default() }
    }

    /// The log goes on in this segment.
    pub(super) fn join(&mut self, segment: Arc<Segment>) {
        let end = self.shape.last.index;
        if let Some(current) = self.held.back_mut() {
            current.end = end;
            current.places.shrink_to_fit();
        }
        self.held.push_back(Held { segment, first: end.next(), places: Vec::new(), end });
    }

    /// The newest segment was none: nothing in it counts.
    pub(super) fn leave(&mut self) {
        self.held.pop_back();
    }

    /// The log begins here: no file before counts, and this is its shape.
    pub(super) fn begin(&mut self, shape: Shape) {
        self.held.clear();
        self.shape = shape;
    }

    /// The numbers of all segments, ascending.
    pub(super) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.held.iter().map(|held| held.segment.number)
    }

    /// The index of the first entry in its files, or where it would be.
    pub(super) fn first(&self) -> Index {
        self.held.front().map_or(self.shape.last.index.next(), |held| held.first)
    }

    /// The lengths of all its files, with those that say where entries lie. One that a start has shortened
    /// is as long as the system says.
    pub(super) fn segment_bytes(&self) -> u64 {
        let len = |held: &Held| held.segment.file.len().unwrap_or(held.segment.size);
        let closed = self.held.iter().rev().skip(1);
        let places = closed.map(|held| places::size(held.places.len()));
        self.held.iter().map(len).sum::<u64>() + places.sum::<u64>()
    }

    /// Takes out the oldest segments that hold purged entries only.
    pub(super) fn take_purged(&mut self) -> Vec<Arc<Segment>> {
        let mut purged = Vec::new();
        while self.held.len() > 1 && self.held[0].end <= self.shape.purged.index {
            purged.extend(self.held.pop_front().map(|held| held.segment));
        }
        purged
    }

    /// Where the entries of the newest segment lie, which ends here.
    pub(super) fn places(&self, end: End) -> Option<Places> {
        let held = self.held.back()?;
        Some(Places { end, first: held.first, places: held.places.clone() })
    }

    /// Takes over where the entries of the newest segment lie, instead of replaying it; after it, this is
    /// the shape.
    pub(super) fn adopt(&mut self, Places { first, places, .. }: Places, shape: Shape) {
        let Some(mut newest) = self.held.pop_back() else { return };
        // What it truncated of the segments before it is gone.
        self.cut(first);
        (newest.first, newest.places) = (first, places);
        self.held.push_back(newest);
        self.shape = shape;
    }

    /// Takes a batch that is durable in the newest segment, its entries at these places. It fits: the
    /// shape was asked before it was written.
    pub(super) fn apply(&mut self, batch: &WriteBatch, places: &[Place]) -> Result<(), String> {
        if let Some(hard_state) = batch.hard_state {
            self.shape.hard_state = hard_state;
        }
        let mut places = places;
        for change in &batch.changes {
            match change {
                Change::Reset(to) => self.reset(*to)?,
                Change::Truncate(last) => self.truncate(*last)?,
                Change::Append(entries) => {
                    let (own, rest) = places.split_at(entries.len().min(places.len()));
                    places = rest;
                    entries.iter().try_for_each(|entry| self.shape.append_entry(entry))?;
                    self.placed(entries.first(), own)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a record that was read in the newest segment. What only a checkpoint restates is not for here.
    pub(super) fn replay(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Origin { .. } | Record::State(_) | Record::Membership(..) => {
                Err("a record that only the first batch of a segment has".into())
            }
            Record::Successor { number, .. } => Err(format!("the log goes on in segment {number}")),
            Record::HardState(hard_state) => {
                self.shape.hard_state = *hard_state;
                Ok(())
            }
            Record::Reset(to) => self.reset(*to),
            Record::Truncate(last) => self.truncate(*last),
            Record::Append(entries) => entries.iter().try_for_each(|(e, place)| self.append(e, *place)),
            Record::Purge(upto) => self.shape.purge(*upto),
        }
    }

    fn reset(&mut self, to: LogId) -> Result<(), String> {
        self.shape.reset(to)?;
        for held in &mut self.held {
            held.places.clear();
            held.first = to.index.next();
        }
        Ok(())
    }

    fn truncate(&mut self, last: Index) -> Result<(), String> {
        self.shape.truncate(last)?;
        self.cut(last.next());
        Ok(())
    }

    /// Nothing from this index on counts.
    fn cut(&mut self, end: Index) {
        for held in self.held.iter_mut().rev() {
            if held.first.0 + held.places.len() as u64 <= end.0 {
                break;
            }
            if self.broken.is("reader-keeps-truncated") {
                break;
            }
            held.places.truncate(end.0.saturating_sub(held.first.0) as usize);
            held.first = held.first.min(end);
        }
    }

    fn append(&mut self, entry: &Entry, place: Place) -> Result<(), String> {
        self.shape.append_entry(entry)?;
        self.placed(Some(entry), &[place])
    }

    /// The entries from `first` on lie at these places of the newest segment.
    fn placed(&mut self, first: Option<&Entry>, places: &[Place]) -> Result<(), String> {
        let Some(first) = first else { return Ok(()) };
        let held = self.held.back_mut().ok_or("an entry outside of all segments")?;
        debug_assert_eq!(held.first.0 + held.places.len() as u64, first.index().0);
        held.places.extend_from_slice(places);
        Ok(())
    }

    /// Where the entry at `index` lies, if the log holds it.
    pub(super) fn place(&self, index: Index) -> Option<(&Arc<Segment>, Place)> {
        let held = &self.held[self.held.partition_point(|held| held.first <= index).checked_sub(1)?];
        let place = held.places.get(usize::try_from(index.0 - held.first.0).ok()?)?;
        Some((&held.segment, *place))
    }
}
