//! Walks the batches of one segment, and says of each whether it is whole.

use super::format::{BLOCK, BatchHeader, BodyError, End, HEADER, Record, Wrong, decode_body};
use super::segment::Segment;
use crate::storage::StoreError;
use crate::storage::disk::{DiskFile, failed, read_full};
use bytes::{Bytes, BytesMut};
use coracle_core::Broken;
use std::io;

/// How much is read at once where a segment is read to its end, in bytes.
const STRETCH: usize = 4 << 20;

/// A batch that is whole, or what is wrong with it.
pub(super) type Batch = Result<(BatchHeader, Vec<Record>), Wrong>;

/// Walks the batches of one segment.
pub(super) struct Batches<'a> {
    segment: &'a Segment,
    window: Window<'a>,
    /// After the newest whole batch.
    pub(super) end: End,
    broken: Broken,
}

impl<'a> Batches<'a> {
    /// At the very first batch, of which nothing is known yet.
    pub(super) fn before(segment: &'a Segment) -> Batches<'a> {
        let end = End { segment: segment.number, generation: segment.generation, offset: BLOCK, ..End::NONE };
        // The first batch is small, and there may be thousands of segments.
        Batches { segment, window: Window::new(segment, BLOCK as usize), end, broken: Broken::default() }
    }

    /// After the first batch.
    pub(super) fn new(segment: &'a Segment, first: &BatchHeader, broken: Broken) -> Batches<'a> {
        let window = Window::new(segment, STRETCH);
        let mut batches = Batches { window, broken, ..Batches::before(segment) };
        batches.step(first);
        batches
    }

    fn step(&mut self, header: &BatchHeader) {
        self.end.offset += header.padded();
        self.end.batch = header.number;
        self.end.checksum = header.checksum;
    }

    /// The next batch, if it is whole and follows the one before.
    pub(super) fn next(&mut self) -> Result<Batch, StoreError> {
        Ok(match self.read()? {
            Ok((header, _))
                if (header.number != self.end.batch + 1 || header.previous != self.end.checksum)
                    && !self.broken.is("earlier-life-accepted") =>
            {
                Err(format!("batch {} does not follow batch {}", header.number, self.end.batch))
            }
            Ok((header, records)) => {
                self.step(&header);
                Ok((header, records))
            }
            wrong => wrong,
        })
    }

    /// The batch that starts at the end, if it is whole.
    pub(super) fn read(&mut self) -> Result<Batch, StoreError> {
        let Some(header) = self.header(self.end.offset)? else {
            return Ok(Err("the header of the batch is not whole".into()));
        };
        let start = self.end.offset + HEADER as u64;
        if header.body > self.segment.size.saturating_sub(start) {
            return Ok(Err("the file ends within the batch".into()));
        }
        let body = self.window.get(start, header.body as usize);
        let body = body.map_err(failed("read", &self.segment.path))?;
        if body.len() as u64 != header.body {
            return Ok(Err("the file ends within the batch".into()));
        }
        match decode_body(&header, &body) {
            Ok(records) => Ok(Ok((header, records))),
            Err(BodyError::NotWhole(wrong)) => Ok(Err(wrong)),
            Err(BodyError::Unknown(detail)) => {
                let (path, offset) = (self.segment.path.clone(), self.end.offset);
                Err(StoreError::Newer { path, offset, detail })
            }
        }
    }

    fn header(&mut self, offset: u64) -> Result<Option<BatchHeader>, StoreError> {
        let bytes = self.window.get(offset, HEADER).map_err(failed("read", &self.segment.path))?;
        let generation = match bytes.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) if self.broken.is("earlier-life-accepted") => u64::from_le_bytes(bytes),
            _ => self.segment.generation,
        };
        Ok(BatchHeader::decode(&bytes, generation, offset))
    }

    /// The newest batch that any header from the end on attests, whether its body is whole or not.
    pub(super) fn attested_after(&mut self) -> Result<u64, StoreError> {
        let mut attested = 0;
        let mut offset = self.end.offset;
        while offset < self.segment.size {
            attested = attested.max(self.header(offset)?.map_or(0, |header| header.synced));
            offset += BLOCK;
        }
        Ok(attested)
    }

    /// Whether there is any header after the first block of the first batch; without a segment's header
    /// that says the generation, whether there is any at all.
    pub(super) fn any_after(&mut self, generation_known: bool) -> Result<bool, StoreError> {
        self.window = Window::new(self.segment, STRETCH);
        let mut offset = if generation_known { 2 * BLOCK } else { BLOCK };
        while offset < self.segment.size {
            let bytes = self.window.get(offset, HEADER).map_err(failed("read", &self.segment.path))?;
            let generation = match bytes.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) if !generation_known => u64::from_le_bytes(bytes),
                _ => self.segment.generation,
            };
            if BatchHeader::decode(&bytes, generation, offset).is_some() {
                return Ok(true);
            }
            offset += BLOCK;
        }
        Ok(false)
    }
}

/// Reads a file in long stretches.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    /// How much is read at once.
    stretch: usize,
    start: u64,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment, stretch: usize) -> Window<'a> {
        Window { file: &*segment.file, size: segment.size, stretch, start: 0, bytes: Bytes::new() }
    }

    /// The bytes from `offset` on, fewer where the file ends. They keep their whole stretch in memory.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let at = offset.checked_sub(self.start).map(|at| at as usize);
        let at = match at.filter(|at| at + len <= self.bytes.len()) {
            Some(at) => at,
            None => {
                self.fill(offset, len)?;
                0
            }
        };
        Ok(self.bytes.slice(at..self.bytes.len().min(at + len)))
    }

    /// Takes the next stretch, in the memory of the last one if nobody else holds it.
    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let rest = self.size.saturating_sub(offset).min(len.max(self.stretch) as u64) as usize;
        let mut buffer = match std::mem::take(&mut self.bytes).try_into_mut() {
            Ok(mut old) if old.capacity() >= rest => {
                old.resize(rest, 0);
                old
            }
            _ => BytesMut::zeroed(rest),
        };
        let count = read_full(self.file, &mut buffer, offset)?;
        buffer.truncate(count);
        self.bytes = buffer.freeze();
        self.start = offset;
        Ok(())
    }
}
