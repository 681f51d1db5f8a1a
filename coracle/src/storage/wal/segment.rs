//! The files of the log: their names, and how a new one comes to be.
//!
//! A file's blocks are written before it becomes a segment, so that a sync of a batch has no metadata to
//! write. It gets its header and its checkpoint, is synced, and only then gets the name of a segment, which
//! is synced in its turn. So a file with such a name is part of the log, and everything else (`*.tmp`,
//! `spare-*`) is not. Where the files come from is the business of [`spares`](super::spares).

use super::format::{BLOCK, HEADER, SegmentHeader};
use crate::storage::StoreError;
use crate::storage::disk::{Disk, DiskFile, failed, for_want_of_room, read_full};
use coracle_core::Broken;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What the names of segments end with.
pub(super) const SUFFIX: &str = ".log";

/// One file of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// The length that batches may fill, in bytes.
    pub(super) size: u64,
}

impl Segment {
    /// The file's name.
    pub(super) fn name(&self) -> String {
        name(self.number)
    }

    /// Tells it from every other that there was or will be.
    pub(super) fn key(&self) -> (u64, u64) {
        (self.number, self.generation)
    }
}

/// The name of the segment with this number.
pub(super) fn name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number of the segment with this name, if it is a segment's.
pub(super) fn number(file: &str) -> Option<u64> {
    let number = u64::from_str_radix(file.strip_suffix(SUFFIX)?, 16).ok()?;
    (name(number) == file).then_some(number)
}

/// Whether the file of a segment is the one that was listed.
pub(super) fn is_there(disk: &dyn Disk, number: u64, generation: Option<u64>) -> Result<bool, StoreError> {
    let name = name(number);
    let path = disk.path().join(&name);
    let file = match disk.open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut block = [0; HEADER];
    let count = read_full(&*file, &mut block, 0).map_err(failed("read", &path))?;
    let header = SegmentHeader::decode(&block[..count]).ok().flatten();
    Ok(header.map(|header| header.generation) == generation)
}

/// Whether there is any file of a log.
pub(super) fn any(disk: &dyn Disk) -> Result<bool, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().any(|name| number(name).is_some()))
}

/// A file that will be a segment, and the name that it has until then.
pub(super) struct Blank {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) name: String,
    pub(super) size: u64,
}

/// Writes what a segment starts with, and lets it join the log: durable on return. Where the system has no room for
/// that, it has not joined, and its file is gone.
pub(super) fn join(
    disk: &dyn Disk,
    blank: Blank,
    number: u64,
    generation: u64,
    start: &[&[u8]],
    broken: Broken,
) -> Result<Segment, StoreError> {
    let new = name(number);
    if let Err(error) = prepare(disk, &blank, &new, start, broken) {
        let error = for_want_of_room(error);
        if matches!(error, StoreError::NoSpace { .. }) {
            // The error that counts is the first one; the file means nothing.
            let _ = disk.remove(&blank.name);
        }
        return Err(error);
    }
    if !broken.is("directory-not-synced") {
        disk.sync_dir().map_err(failed("sync", disk.path()))?;
    }
    Ok(Segment { number, generation, path: disk.path().join(new), file: blank.file, size: blank.size })
}

/// As long as the file has no segment's name, whatever fails is about a file that means nothing.
fn prepare(
    disk: &dyn Disk,
    blank: &Blank,
    new: &str,
    start: &[&[u8]],
    broken: Broken,
) -> Result<(), StoreError> {
    let old = disk.path().join(&blank.name);
    let mut offset = 0;
    for bytes in start {
        blank.file.write_at(bytes, offset).map_err(failed("write to", &old))?;
        offset += BLOCK.max(bytes.len() as u64);
    }
    if !broken.is("checkpoint-not-synced") {
        blank.file.sync_data().map_err(failed("sync", &old))?;
    }
    disk.rename(&blank.name, new).map_err(failed("rename", &old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_belong_together() {
        assert_eq!(name(26), "000000000000001a.log");
        assert_eq!(number("000000000000001a.log"), Some(26));
        for other in ["1a.log", "000000000000001A.log", "000000000000001a", "spare-0", "+00000000000001a.log"]
        {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
