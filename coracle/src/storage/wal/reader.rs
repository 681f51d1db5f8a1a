//! Reads entries beside the writer, and believes none of them.
//!
//! The index says where an entry should be and the runs of terms say what it should be; the bytes must
//! agree with both and with their own checksum. Entries that lie close together are read in one piece.

use super::format::{BLOCK, Place};
use super::index::Shared;
use super::segment::Segment;
use crate::entry::Entry;
use crate::storage::disk::{failed, read_full};
use crate::storage::{LogReader, ReadLogError, StoreError};
use bytes::Bytes;
use coracle_core::{Index, LogId};
use std::sync::Arc;

/// The most that is read in one piece, in bytes, unless a single entry is larger: bounds the memory for
/// what lies between the entries.
const PIECE: u64 = 1 << 20;

/// A reader of the log.
pub(super) struct WalReader {
    log: Shared,
}

/// A read that was planned and not done yet, whatever becomes of the log meanwhile.
#[cfg(feature = "sim")]
pub(crate) struct PlannedRead(Vec<Wanted>);

#[cfg(feature = "sim")]
impl PlannedRead {
    /// Reads some of what was planned, at least one piece: `share` of eight parts. True if that was all.
    pub(crate) fn go_on(&mut self, share: usize, entries: &mut Vec<Entry>) -> Result<bool, StoreError> {
        let count = (self.0.len() * share / 8).max(1).min(self.0.len());
        entries.extend(read_all(&self.0[..count])?);
        self.0.drain(..count);
        Ok(self.0.is_empty())
    }
}

/// An entry that is to be read.
pub(super) struct Wanted {
    segment: Arc<Segment>,
    place: Place,
    id: LogId,
}

impl WalReader {
    pub(super) fn new(log: Shared) -> WalReader {
        WalReader { log }
    }

    /// Plans a read that is done later.
    #[cfg(feature = "sim")]
    pub(super) fn planned(
        &self,
        first: Index,
        last: Index,
        max_bytes: usize,
    ) -> Result<PlannedRead, ReadLogError> {
        self.plan(first, last, max_bytes).map(PlannedRead)
    }

    /// What lies where, decided under the lock. The segments stay readable however long the reading takes.
    pub(super) fn plan(
        &self,
        first: Index,
        last: Index,
        max_bytes: usize,
    ) -> Result<Vec<Wanted>, ReadLogError> {
        let log = self.log.read();
        if first <= log.shape.purged.index {
            return Err(ReadLogError::Purged);
        }
        let last = last.min(log.shape.last.index);
        let mut wanted = Vec::new();
        let mut bytes = 0;
        let mut index = first;
        while index <= last {
            let found = log.place(index).zip(log.shape.term(index));
            let Some(((segment, place), term)) = found else { break };
            bytes += place.len as usize;
            if bytes > max_bytes && !wanted.is_empty() {
                break;
            }
            wanted.push(Wanted { segment: segment.clone(), place, id: LogId { term, index } });
            index = index.next();
        }
        if wanted.is_empty() { Err(ReadLogError::Missing) } else { Ok(wanted) }
    }
}

impl LogReader for WalReader {
    fn entries(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError> {
        Ok(read_all(&self.plan(first, last, max_bytes)?)?)
    }

    fn disk_bytes(&self) -> u64 {
        self.log.read().disk_bytes
    }
}

/// Reads what was planned, in as many pieces as that takes.
pub(super) fn read_all(wanted: &[Wanted]) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(piece(rest));
        read(piece, &mut entries)?;
        rest = after;
    }
    Ok(entries)
}

/// How many of these, at least one, are best read together.
fn piece(wanted: &[Wanted]) -> usize {
    let together = |pair: &&[Wanted]| {
        let (a, b) = (&pair[0], &pair[1]);
        let end = u64::from(a.place.offset) + u64::from(a.place.len);
        let gap = u64::from(b.place.offset).checked_sub(end);
        let whole = (u64::from(b.place.offset) + u64::from(b.place.len))
            .checked_sub(u64::from(wanted[0].place.offset));
        Arc::ptr_eq(&a.segment, &b.segment)
            && gap.is_some_and(|gap| gap <= BLOCK)
            && whole.is_some_and(|whole| whole <= PIECE)
    };
    1 + wanted.windows(2).take_while(together).count()
}

/// Reads neighbours in one segment, and verifies each.
fn read(piece: &[Wanted], entries: &mut Vec<Entry>) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return Ok(()) };
    let segment = &first.segment;
    let start = first.place.offset;
    let len = (last.place.offset - start) as usize + last.place.len as usize;
    let mut buffer = vec![0; len];
    let count = read_full(&*segment.file, &mut buffer, u64::from(start));
    let count = count.map_err(failed("read", &segment.path))?;
    buffer.truncate(count);
    let bytes = Bytes::from(buffer);
    for Wanted { place, id, .. } in piece {
        let damaged = |detail: String| StoreError::Damaged {
            path: segment.path.clone(),
            offset: u64::from(place.offset),
            detail,
        };
        let at = (place.offset - start) as usize;
        let end = at + place.len as usize;
        if end > bytes.len() {
            return Err(damaged(format!("the file ends within entry {id}")));
        }
        // A small entry is copied, so that it does not keep the whole piece in memory.
        let small = u64::from(place.len) < BLOCK;
        let own = if small { Bytes::copy_from_slice(&bytes[at..end]) } else { bytes.slice(at..end) };
        let entry = Entry::decode(own).map_err(|e| damaged(format!("entry {id}: {e}")))?;
        if entry.id() != *id {
            return Err(damaged(format!("entry {} lies where entry {id} should be", entry.id())));
        }
        entries.push(entry);
    }
    Ok(())
}
