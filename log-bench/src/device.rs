//! What the device wrote, as the system counts it: everybody's writes, the file system's journal included.
//!
//! What the system counts for a process (`write_bytes` in `/proc/self/io`) is of no use here: it counts a
//! whole piece of the page cache, up to a megabyte, for each block of it that is overwritten.

use crate::Failure;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The unit of the device's counter, in bytes, whatever its blocks are.
const SECTOR: u64 = 512;

/// The counter of the device that a directory is on.
pub(crate) struct Device(PathBuf);

impl Device {
    /// The device under this directory.
    pub(crate) fn under(directory: &Path) -> Result<Device, Failure> {
        let dev = fs::metadata(directory)?.dev();
        // The numbers as glibc splits them.
        let major = (dev >> 8) & 0xfff | (dev >> 32) & !0xfff;
        let minor = dev & 0xff | (dev >> 12) & !0xff;
        Ok(Device(PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))))
    }

    /// Bytes written since some time in the past; none where there is no counter.
    pub(crate) fn written(&self) -> Option<u64> {
        // The seventh field: sectors written.
        let stat = fs::read_to_string(&self.0).ok()?;
        stat.split_whitespace().nth(6)?.parse::<u64>().ok().map(|sectors| sectors * SECTOR)
    }
}
