//! A file without a log: the bytes of a batch as the write-ahead log frames them, one write, one sync.
//!
//! The frame is a header before the batch, one before its record, and zeros up to a whole block. Nothing
//! is summed, indexed or published.

use crate::Failure;
use crate::contender::{BASELINE, Contender};
use coracle::raft::LogId;
use coracle::storage::disk::{DirDisk, Disk, DiskFile};
use coracle::storage::{Change, WriteBatch};
use std::path::Path;
use std::sync::Arc;

/// The bytes in front of a batch and of its record.
const FRAME: usize = 64 + 24;
const BLOCK: usize = 4096;

/// The length of the recycled file, in bytes, as a segment's; after its end it begins anew.
const RECYCLED: u64 = 64 << 20;

/// How many zeros are written at once, in bytes. The page cache keeps in one piece what was written at once,
/// and a sync of a block looks through its piece: with a megabyte that costs 25 us more.
const STRETCH: usize = 64 << 10;

/// The growing file begins anew after this length, in bytes, between two turns.
const GROWN: u64 = 256 << 20;

/// One file.
pub(crate) struct Raw {
    disk: DirDisk,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    offset: u64,
    grows: bool,
}

impl Raw {
    /// A file of zeros, synced, that is written over again and again.
    pub(crate) fn recycled(directory: &Path) -> Result<Raw, Failure> {
        let raw = Raw::new(directory, false)?;
        let zeros = vec![0; STRETCH];
        for offset in (0..RECYCLED).step_by(zeros.len()) {
            raw.file.write_at(&zeros, offset)?;
        }
        raw.file.sync_data()?;
        raw.disk.sync_dir()?;
        Ok(raw)
    }

    /// An empty file that grows with each batch.
    pub(crate) fn growing(directory: &Path) -> Result<Raw, Failure> {
        Raw::new(directory, true)
    }

    fn new(directory: &Path, grows: bool) -> Result<Raw, Failure> {
        let disk = DirDisk::open(directory)?;
        let file = disk.create("raw")?;
        Ok(Raw { disk, file, buffer: Vec::new(), offset: 0, grows })
    }
}

impl Contender for Raw {
    fn name(&self) -> &'static str {
        if self.grows { "raw, growing" } else { BASELINE }
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Failure> {
        self.buffer.clear();
        self.buffer.resize(FRAME, 0);
        for change in &batch.changes {
            if let Change::Append(entries) = change {
                entries.iter().for_each(|entry| self.buffer.extend_from_slice(entry.bytes()));
            }
        }
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        if !self.grows && self.offset + self.buffer.len() as u64 > RECYCLED {
            self.offset = 0;
        }
        self.file.write_at(&self.buffer, self.offset)?;
        self.file.sync_data()?;
        self.offset += self.buffer.len() as u64;
        Ok(())
    }

    fn forget(&mut self, _upto: LogId) -> Result<(), Failure> {
        if self.grows && self.offset > GROWN {
            self.file = self.disk.create("raw")?;
            self.offset = 0;
        }
        Ok(())
    }
}
