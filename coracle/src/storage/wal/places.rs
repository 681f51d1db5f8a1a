//! Where the entries of a closed segment lie, in a file beside it, so that a start need not read the segment.
//!
//! Such a file is a hint and nothing else. It is never synced, and may be missing, torn or stale: it counts
//! only if it is whole and names the very end of the segment that the next checkpoint names, and otherwise
//! the segment is read. The checkpoint restates everything except where entries lie, and whoever reads an
//! entry verifies it, wherever it was found. So what is damaged in a segment that a start did not read is
//! found when it is needed, and is not handed out.

use super::format::{End, Place};
use super::segment;
use crate::storage::disk::{Disk, read_full};
use coracle_core::Index;
use std::io;

const SUFFIX: &str = ".places";
const MAGIC: [u8; 4] = *b"CRWP";
const VERSION: u32 = 1;
/// The bytes before the first place.
const HEADER: usize = 64;
/// The bytes of a place.
const PLACE: usize = 8;

/// What the file of one segment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Places {
    /// Where the segment ends.
    pub(super) end: End,
    /// The index of the first place; where it would be, if there is none.
    pub(super) first: Index,
    pub(super) places: Vec<Place>,
}

/// The name of the file for the segment with this number.
pub(super) fn name(number: u64) -> String {
    segment::name(number).replace(segment::SUFFIX, SUFFIX)
}

/// The number of the segment that a file is for, if it is such a file.
pub(super) fn number(file: &str) -> Option<u64> {
    segment::number(&format!("{}{}", file.strip_suffix(SUFFIX)?, segment::SUFFIX))
}

/// The length of a file with so many places.
pub(super) fn size(count: usize) -> u64 {
    (HEADER + count * PLACE) as u64
}

/// Writes the file. If that fails, the next start reads the segment.
pub(super) fn write(disk: &dyn Disk, number: u64, bytes: &[u8]) {
    let name = name(number);
    if let Err(error) = disk.create(&name).and_then(|file| file.write_at(bytes, 0)) {
        tracing::warn!(
            "cannot write {}, which is only a hint and will be missing: {error}",
            disk.path().join(name).display()
        );
    }
}

/// Removes the file, if it is there.
pub(super) fn remove(disk: &dyn Disk, number: u64) {
    let name = name(number);
    if let Err(error) = disk.remove(&name)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(
            "cannot remove {}, which is harmless but takes room: {error}",
            disk.path().join(name).display()
        );
    }
}

impl Places {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Places { end, first, places } = self;
        let mut bytes = Vec::with_capacity(HEADER + places.len() * PLACE);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&end.checksum.to_le_bytes());
        let count = places.len() as u64;
        for field in [end.segment, end.generation, end.offset, end.batch, first.0, count] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for place in places {
            bytes.extend_from_slice(&place.offset.to_le_bytes());
            bytes.extend_from_slice(&place.len.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What these bytes say, if they are whole.
    fn decode(bytes: &[u8]) -> Option<Places> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let whole = u32_at(0)? == crc32c::crc32c(bytes.get(4..)?);
        let known = bytes.get(4..8)? == MAGIC && u32_at(8)? == VERSION;
        let rest = bytes.get(HEADER..)?;
        if !whole || !known || u64_at(56)?.checked_mul(PLACE as u64)? != rest.len() as u64 {
            return None;
        }
        let end = End {
            checksum: u32_at(12)?,
            segment: u64_at(16)?,
            generation: u64_at(24)?,
            offset: u64_at(32)?,
            batch: u64_at(40)?,
        };
        let place = |bytes: &[u8]| Place {
            offset: u32::from_le_bytes(std::array::from_fn(|at| bytes[at])),
            len: u32::from_le_bytes(std::array::from_fn(|at| bytes[4 + at])),
        };
        Some(Places { end, first: Index(u64_at(48)?), places: rest.chunks_exact(PLACE).map(place).collect() })
    }

    /// Reads the file of the segment that ends here, with entries up to `last`. None if there is no such
    /// file, or it cannot be used.
    pub(super) fn read(disk: &dyn Disk, end: End, last: Index) -> Option<Places> {
        let file = disk.open(&name(end.segment)).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        // No segment holds more entries than it has bytes for.
        if len > HEADER + end.offset as usize {
            return None;
        }
        let mut bytes = vec![0; len];
        let count = read_full(&*file, &mut bytes, 0).ok()?;
        let places = Places::decode(&bytes[..count])?;
        let fits = places.first.0.checked_add(places.places.len() as u64) == Some(last.0 + 1);
        let inside = |place: &Place| u64::from(place.offset) + u64::from(place.len) <= end.offset;
        (places.end == end && fits && places.places.iter().all(inside)).then_some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    fn places() -> Places {
        let end = End { segment: 5, generation: 7, offset: 1 << 20, batch: 9, checksum: 11 };
        let places = (0..20).map(|at| Place { offset: 8192 + at * 100, len: 100 }).collect();
        Places { end, first: Index(101), places }
    }

    #[test]
    fn names_and_numbers_belong_together() {
        assert_eq!(name(26), "000000000000001a.places");
        assert_eq!(number("000000000000001a.places"), Some(26));
        assert_eq!(number("000000000000001a.log"), None);
        assert_eq!(number("1a.places"), None);
    }

    #[test]
    fn only_a_whole_file_of_this_very_end_counts() {
        let (disk, places) = (MemDisk::new(), places());
        let (end, last) = (places.end, Index(120));
        assert_eq!(Places::read(&disk, end, last), None);
        let good = places.encode();
        write(&disk, 5, &good);
        assert_eq!(Places::read(&disk, end, last), Some(places.clone()));
        assert_eq!(Places::read(&disk, end, Index(119)), None);
        assert_eq!(Places::read(&disk, End { generation: 8, ..end }, last), None);
        assert_eq!(Places::read(&disk, End { batch: 8, ..end }, last), None);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.put(&name(5), &bytes);
            assert_eq!(Places::read(&disk, end, last), None, "bit {bit}");
        }
        for cut in 0..good.len() {
            disk.put(&name(5), &good[..cut]);
            assert_eq!(Places::read(&disk, end, last), None, "cut at {cut}");
        }
        disk.put(&name(5), &Places { places: vec![], first: Index(121), ..places.clone() }.encode());
        assert_eq!(Places::read(&disk, end, last).map(|places| places.first), Some(Index(121)));
    }
}
