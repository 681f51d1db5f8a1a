//! What stands at the start of a segment and of a batch, each with its own checksum.

use super::fields::{Cursor, Wrong, put_u32, put_u64};

/// Batches start on multiples of this, in bytes: a block of the page cache and of nearly every disk, so
/// that a write in flight never touches a block with synced bytes.
pub(in crate::storage::wal) const BLOCK: u64 = 4096;

/// The bytes in front of a batch's body, and the used ones of a segment's first block.
pub(in crate::storage::wal) const HEADER: usize = 64;

/// The largest body of a batch that is believed, in bytes: twice
/// [`MAX_BATCH_BYTES`](crate::storage::wal::MAX_BATCH_BYTES), since a checkpoint may repeat the largest batch.
const MAX_BODY: u64 = 2 * crate::storage::wal::MAX_BATCH_BYTES;

/// The version that this code writes, and the only one that it reads.
pub(in crate::storage::wal) const VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 4] = *b"CRWS";
pub(super) const BATCH_MAGIC: [u8; 4] = *b"CRWB";

/// Rounds up to a whole block.
pub(in crate::storage::wal) fn blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK)
}

/// Bytes are whole, but of another version.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::storage::wal) enum OtherVersion {
    /// One that is not read any more.
    Older(u32),
    /// One that this code does not know, and what tells.
    Newer(Wrong),
}

/// What says that a newer version wrote it.
pub(super) const RESERVED: &str = "bytes that were kept free are in use";

/// The first block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::storage::wal) struct SegmentHeader {
    /// The segment's number, which is in its name too. Later segments have greater ones.
    pub(in crate::storage::wal) number: u64,
    /// Drawn when the segment joined the log: tells its bytes from older ones in the same file.
    pub(in crate::storage::wal) generation: u64,
    /// The number of its first batch.
    pub(in crate::storage::wal) first: u64,
    /// The newest batch whose sync had returned.
    pub(in crate::storage::wal) synced: u64,
}

impl SegmentHeader {
    pub(in crate::storage::wal) fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut out, VERSION);
        put_u32(&mut out, 0);
        for field in [self.number, self.generation, self.first, self.synced] {
            put_u64(&mut out, field);
        }
        sealed_header(&out)
    }

    /// The header in these bytes; `None` if there is none, an error if it is another version's.
    pub(in crate::storage::wal) fn decode(bytes: &[u8]) -> Result<Option<SegmentHeader>, OtherVersion> {
        let Some(mut fields) = open_header(bytes, SEGMENT_MAGIC) else { return Ok(None) };
        let mut all = || {
            let (version, flags) = (fields.u32()?, fields.u32()?);
            let numbers = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
            Ok::<_, Wrong>((version, flags, numbers, fields.u64()? | fields.u64()?))
        };
        let (version, flags, numbers, reserved) = all().map_err(OtherVersion::Newer)?;
        if version < VERSION {
            return Err(OtherVersion::Older(version));
        }
        if version > VERSION || flags != 0 {
            let wrong = format!("a segment of version {version} with flags {flags:#x}");
            return Err(OtherVersion::Newer(wrong));
        }
        if reserved != 0 {
            return Err(OtherVersion::Newer(RESERVED.to_owned()));
        }
        let [number, generation, first, synced] = numbers;
        Ok(Some(SegmentHeader { number, generation, first, synced }))
    }
}

/// What stands in front of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::storage::wal) struct BatchHeader {
    /// That of the segment.
    pub(in crate::storage::wal) generation: u64,
    /// Where in the segment the batch starts.
    pub(in crate::storage::wal) offset: u64,
    /// Counts up by one from batch to batch, over all segments.
    pub(in crate::storage::wal) number: u64,
    /// The newest batch whose sync had returned when this one was written.
    pub(in crate::storage::wal) synced: u64,
    /// The header checksum of the batch before.
    pub(in crate::storage::wal) previous: u32,
    /// The checksum of the body.
    pub(in crate::storage::wal) body_checksum: u32,
    /// The length of the body; 0 for a seal.
    pub(in crate::storage::wal) body: u64,
    /// Zero, as long as no version has a use for it.
    pub(in crate::storage::wal) reserved: u64,
    /// This header's own checksum.
    pub(in crate::storage::wal) checksum: u32,
}

impl BatchHeader {
    /// The header in these bytes of the segment of this generation at this offset, if there is one.
    pub(in crate::storage::wal) fn decode(bytes: &[u8], generation: u64, offset: u64) -> Option<BatchHeader> {
        let mut fields = open_header(bytes, BATCH_MAGIC)?;
        let checksum = u32::from_le_bytes(bytes[..4].try_into().ok()?);
        let header = (|| {
            Ok::<_, Wrong>(BatchHeader {
                generation: fields.u64()?,
                offset: fields.u64()?,
                number: fields.u64()?,
                synced: fields.u64()?,
                previous: fields.u32()?,
                body_checksum: fields.u32()?,
                body: fields.u64()?,
                reserved: fields.u64()?,
                checksum,
            })
        })()
        .ok()?;
        (header.generation == generation && header.offset == offset && header.body <= MAX_BODY)
            .then_some(header)
    }

    /// The bytes on disk, up to the next block.
    pub(in crate::storage::wal) fn padded(&self) -> u64 {
        blocks(HEADER as u64 + self.body)
    }
}

/// Fills in the checksum and pads.
pub(super) fn sealed_header(fields: &[u8]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..fields.len()].copy_from_slice(fields);
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The fields after the magic, if checksum and magic hold.
fn open_header(bytes: &[u8], magic: [u8; 4]) -> Option<Cursor<'_>> {
    let bytes = bytes.get(..HEADER)?;
    if bytes[4..8] != magic || crc32c::crc32c(&bytes[4..]).to_le_bytes() != bytes[..4] {
        return None;
    }
    Some(Cursor { bytes, at: 8 })
}

/// Where the checksum of a body starts: with the place that the body is true in.
pub(super) fn body_seed(generation: u64, offset: u64, number: u64) -> u32 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&generation.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..].copy_from_slice(&number.to_le_bytes());
    crc32c::crc32c(&bytes)
}
