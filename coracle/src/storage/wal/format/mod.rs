//! The bytes of the log: what a segment's header, a batch and a record look like.
//!
//! Nothing here touches a file. Writing cannot fail; reading believes nothing: every length is judged
//! against the bytes at hand, every number against what this version knows. `docs/disk-format.md` has the
//! tables, so that a reader can be written from them alone; this file and that one change together.
//!
//! A batch is covered by three kinds of checksum. The header's is over the header alone, so that a header
//! counts (as an attestation, see [`recovery`](super::recovery)) even where its body is torn. The body's is over the
//! generation, the position and everything in the body except the entries, of which it takes the first
//! eight bytes: their own checksum and length. And each entry has the one that its creator gave it. So a
//! payload is summed once in its life, and still no bit of a batch is uncovered, nor can a batch that was
//! true in another place, or in another life of the file, be taken for one here.

mod decoder;
mod encoder;
mod fields;
mod header;
mod record;
#[cfg(test)]
mod tests;

pub(super) use self::decoder::{BodyError, decode_body};
pub(super) use self::encoder::{Encoder, body_len};
pub(super) use self::fields::Wrong;
pub(super) use self::header::{BLOCK, BatchHeader, HEADER, OtherVersion, SegmentHeader, blocks};
pub(super) use self::record::{End, Place, RECORD_HEADER, Record};
