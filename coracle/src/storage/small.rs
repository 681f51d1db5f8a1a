//! The small files of a directory (`identity`, `met`, `moved`): what they have in common.
//!
//! Each is replaced whole: written aside, synced, renamed, the directory synced. So a crash leaves the old one or the new
//! one. All begin alike:
//!
//! ```text
//!  0  u32  CRC-32C of all bytes after   4  four letters, one word for each kind of file
//!  8  u32  version                      12  u32  flags, or how many there are
//! 16  what the file is about
//! ```

use super::StoreError;
use super::disk::{Disk, failed, read_full};

/// The bytes before what the file is about.
pub(super) const HEADER: usize = 16;

/// A kind of file.
pub(super) struct Small {
    pub(super) name: &'static str,
    /// Where the next version of the file is prepared.
    pub(super) temporary: &'static str,
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
}

impl Small {
    pub(super) fn exists(&self, disk: &dyn Disk) -> Result<bool, StoreError> {
        let names = disk.list().map_err(failed("list", disk.path()))?;
        Ok(names.iter().any(|name| name == self.name))
    }

    /// All bytes of the file, which must be there, and one more than `most` where it is longer than that: so a longer
    /// one is noticed.
    pub(super) fn read(&self, disk: &dyn Disk, most: usize) -> Result<Vec<u8>, StoreError> {
        let path = disk.path().join(self.name);
        let file = disk.open(self.name).map_err(failed("open", &path))?;
        let mut bytes = vec![0; most + 1];
        let length = read_full(&*file, &mut bytes, 0).map_err(failed("read", &path))?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Whether these are the bytes of such a file, as it was written; of which version, others tell.
    pub(super) fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.len() >= HEADER && bytes[4..8] == self.magic && u32_at(bytes, 0) == crc32c::crc32c(&bytes[4..])
    }

    /// Replaces the file, durably. The first bytes of `bytes` are kept free for what all files begin with.
    pub(super) fn replace(&self, disk: &dyn Disk, word: u32, mut bytes: Vec<u8>) -> Result<(), StoreError> {
        bytes[4..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&word.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        let path = disk.path().join(self.temporary);
        let file = disk.create(self.temporary).map_err(failed("create", &path))?;
        file.write_at(&bytes, 0).map_err(failed("write to", &path))?;
        file.sync_data().map_err(failed("sync", &path))?;
        disk.rename(self.temporary, self.name).map_err(failed("rename", &path))?;
        disk.sync_dir().map_err(failed("sync", disk.path()))
    }
}

/// The version that a file says it is of.
pub(super) fn version(bytes: &[u8]) -> u32 {
    u32_at(bytes, 8)
}

/// Its flags, or how many there are.
pub(super) fn word(bytes: &[u8]) -> u32 {
    u32_at(bytes, 12)
}

/// The number that stands there; where the file ends before it, zero.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(std::array::from_fn(|i| bytes[i])))
}

/// The number that stands there; where the file ends before it, zero.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
