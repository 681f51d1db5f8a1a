//! The frame: a header of fixed size that can be judged before anything else is believed.
//!
//! ```text
//!  0  u32  magic, the bytes "CRCL"
//!  4  u8   version of this layout
//!  5  u8   type
//!  6  u16  flags: bit 0 = skip this frame if its type is unknown
//!  8  u64  group, 0 for now
//! 16  u32  length of the meta
//! 20  u32  length of the bulk
//! 24  u32  CRC-32C of the body
//! 28  u32  CRC-32C of bytes 0 to 27
//! 32  …    meta, then bulk
//! ```
//!
//! All numbers are little-endian. The body's checksum covers the meta and then, in place of the bulk, the
//! four-byte checksum of each of its parts: an entry's own one, or the CRC-32C of the whole bulk where that
//! is one piece. So every byte is covered, the entries are tied to the message that carries them, and a
//! payload that was summed when its entry was made is not summed again for each peer.

use super::WireError;
use bytes::{BufMut, Bytes, BytesMut};

/// The length of a frame's header, in bytes.
pub const HEADER: usize = 32;

/// The longest meta, in bytes: a few hundred are usual, and the texts of errors are cut to fit. It bounds
/// what parsing a message can allocate.
pub const MAX_META: usize = 16 << 10;

const MAGIC: [u8; 4] = *b"CRCL";
const VERSION: u8 = 1;
/// The flag of a frame that a receiver who does not know its type may skip.
const SKIP: u16 = 1;

/// The length of the largest frame whose bulk is `bulk` bytes.
pub const fn frame_limit(bulk: usize) -> usize {
    HEADER + MAX_META + bulk
}

/// The types of frames. Numbers are never used twice; `docs/wire-format.md` lists those reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Type {
    Hello = 1,
    Welcome = 2,
    Refused = 3,
    Close = 4,
    Ping = 5,
    Pong = 6,
    Alarm = 7,
    FoundingAsk = 8,
    FoundingAnswer = 9,
    Places = 10,
    RequestVote = 16,
    RequestVoteReply = 17,
    AppendEntries = 18,
    AppendEntriesReply = 19,
    ReadIndex = 20,
    ReadIndexReply = 21,
    InstallSnapshot = 22,
    InstallSnapshotReply = 23,
    TimeoutNow = 24,
    Forward = 32,
    ForwardReply = 33,
    Query = 48,
    QueryReply = 49,
    Directory = 50,
}

impl Type {
    /// Every type that this version knows.
    pub(super) const ALL: [Type; 24] = [
        Type::Hello,
        Type::Welcome,
        Type::Refused,
        Type::Close,
        Type::Ping,
        Type::Pong,
        Type::Alarm,
        Type::FoundingAsk,
        Type::FoundingAnswer,
        Type::Places,
        Type::RequestVote,
        Type::RequestVoteReply,
        Type::AppendEntries,
        Type::AppendEntriesReply,
        Type::ReadIndex,
        Type::ReadIndexReply,
        Type::InstallSnapshot,
        Type::InstallSnapshotReply,
        Type::TimeoutNow,
        Type::Forward,
        Type::ForwardReply,
        Type::Query,
        Type::QueryReply,
        Type::Directory,
    ];

    fn from_number(number: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// An encoded frame: what to write, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The header and the meta.
    pub head: Bytes,
    /// The bulk: the entries of an AppendEntries as they are everywhere else, or one command or reply.
    pub bulk: Vec<Bytes>,
}

impl Frame {
    /// The length of the whole frame.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.head.len() + self.bulk.iter().map(Bytes::len).sum::<usize>()
    }

    /// The whole frame in one piece: a copy, for tests and the simulator.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.put_slice(&self.head);
        self.bulk.iter().for_each(|part| bytes.put_slice(part));
        bytes.freeze()
    }
}

/// Encodes a frame around `meta`. `sums` are the checksums of the parts of the bulk.
pub(super) fn seal(
    kind: Type,
    meta: &impl prost::Message,
    bulk: Vec<Bytes>,
    sums: impl IntoIterator<Item = u32>,
) -> Frame {
    let meta_len = meta.encoded_len();
    assert!(meta_len <= MAX_META, "a meta is made of numbers and of texts that are cut");
    let bulk_len: usize = bulk.iter().map(Bytes::len).sum();
    let bulk_len = u32::try_from(bulk_len).expect("a message is cut long before 4 GiB");
    let mut head = BytesMut::with_capacity(HEADER + meta_len);
    head.put_slice(&MAGIC);
    head.put_u8(VERSION);
    head.put_u8(kind as u8);
    head.put_u16_le(0);
    head.put_u64_le(0);
    head.put_u32_le(meta_len as u32);
    head.put_u32_le(bulk_len);
    head.put_u64_le(0);
    meta.encode(&mut head).expect("a BytesMut grows as needed");
    let body = body_checksum(&head[HEADER..], sums);
    head[24..28].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c(&head[..28]);
    head[28..32].copy_from_slice(&header.to_le_bytes());
    Frame { head: head.freeze(), bulk }
}

/// Encodes a frame whose bulk is one piece.
pub(super) fn seal_piece(kind: Type, meta: &impl prost::Message, piece: &Bytes) -> Frame {
    let bulk = if piece.is_empty() { Vec::new() } else { vec![piece.clone()] };
    seal(kind, meta, bulk, piece_sum(piece))
}

/// The checksum over a meta and the checksums of its bulk's parts.
pub(super) fn body_checksum(meta: &[u8], sums: impl IntoIterator<Item = u32>) -> u32 {
    sums.into_iter().fold(crc32c::crc32c(meta), |sum, part| crc32c::crc32c_append(sum, &part.to_le_bytes()))
}

/// The checksum of a bulk that is one piece; an empty one is no piece.
fn piece_sum(piece: &Bytes) -> Option<u32> {
    (!piece.is_empty()).then(|| crc32c::crc32c(piece))
}

/// A frame whose header was verified; its body was not.
pub(super) struct Raw {
    pub(super) kind: Type,
    pub(super) checksum: u32,
    pub(super) meta: Bytes,
    pub(super) bulk: Bytes,
}

impl Raw {
    /// The meta and the bulk of a frame whose bulk is one piece, verified.
    pub(super) fn piece(self) -> Result<(Bytes, Bytes), WireError> {
        let sums = piece_sum(&self.bulk);
        self.verified(sums)
    }

    /// The meta of a frame that is nothing else, verified.
    pub(super) fn plain(self) -> Result<Bytes, WireError> {
        if !self.bulk.is_empty() {
            return Err(WireError::Invalid("bulk after a message that has none"));
        }
        self.verified([]).map(|(meta, _)| meta)
    }

    /// The meta and the bulk, if these are the checksums of the bulk's parts.
    pub(super) fn verified(self, sums: impl IntoIterator<Item = u32>) -> Result<(Bytes, Bytes), WireError> {
        if body_checksum(&self.meta, sums) != self.checksum {
            return Err(WireError::BodyChecksum);
        }
        Ok((self.meta, self.bulk))
    }
}

/// A header that passed every check that needs no body.
#[derive(Clone, Copy, Debug)]
struct Header {
    /// None: an unknown type that may be skipped.
    kind: Option<Type>,
    meta: usize,
    bulk: usize,
    checksum: u32,
}

impl Header {
    fn len(&self) -> usize {
        HEADER + self.meta + self.bulk
    }
}

/// Takes frames off a stream of bytes.
#[derive(Debug)]
pub(super) struct Frames {
    max_frame: usize,
    /// The header in front, once it was judged.
    header: Option<Header>,
    /// What is left to throw away of a frame that is skipped.
    skip: usize,
}

impl Frames {
    /// A decoder that refuses frames longer than `max_frame` bytes.
    pub(super) fn new(max_frame: usize) -> Frames {
        Frames { max_frame, header: None, skip: 0 }
    }

    /// Changes the limit: the handshake has a far smaller one than what follows.
    pub(super) fn set_max_frame(&mut self, max_frame: usize) {
        self.max_frame = max_frame;
    }

    /// Takes the next frame off the front of `stream`, with its length, or nothing if more bytes are needed.
    /// After an error the stream is of no more use.
    pub(super) fn next(&mut self, stream: &mut BytesMut) -> Result<Option<(Raw, usize)>, WireError> {
        loop {
            let skipped = self.skip.min(stream.len());
            let _ = stream.split_to(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            let header = match self.header {
                Some(header) => header,
                None if stream.len() < HEADER => return Ok(None),
                None => *self.header.insert(parse_header(&stream[..HEADER], self.max_frame)?),
            };
            let Some(kind) = header.kind else {
                self.skip = header.len();
                self.header = None;
                continue;
            };
            if stream.len() < header.len() {
                return Ok(None);
            }
            self.header = None;
            let mut bytes = stream.split_to(header.len()).freeze();
            let mut body = bytes.split_off(HEADER);
            let bulk = body.split_off(header.meta);
            let raw = Raw { kind, checksum: header.checksum, meta: body, bulk };
            return Ok(Some((raw, header.len())));
        }
    }

    /// The length of the frame that has begun; 0 while its header is not there, and for one that is skipped.
    pub(super) fn begun(&self) -> usize {
        self.header.map_or(0, |header| header.len())
    }

    /// How many bytes are certainly still missing before [`Frames::next`] can say more, given that `have`
    /// are there.
    pub(super) fn missing(&self, have: usize) -> usize {
        let need = self.skip + self.header.map_or(HEADER, |header| header.len());
        need.saturating_sub(have).max(1)
    }
}

/// Judges a header: its shape and checksum first, then its type, and its lengths before anyone uses them.
fn parse_header(bytes: &[u8], max_frame: usize) -> Result<Header, WireError> {
    if bytes[..4] != MAGIC {
        return Err(WireError::Magic);
    }
    if bytes[4] != VERSION {
        return Err(WireError::Version(bytes[4]));
    }
    if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
        return Err(WireError::HeaderChecksum);
    }
    let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
    let (meta, bulk) = (u32_at(bytes, 16), u32_at(bytes, 20));
    let length = HEADER as u64 + u64::from(meta) + u64::from(bulk);
    if length > max_frame as u64 {
        return Err(WireError::TooLarge { length, limit: max_frame as u64 });
    }
    let kind = Type::from_number(bytes[5]);
    let header = Header { kind, meta: meta as usize, bulk: bulk as usize, checksum: u32_at(bytes, 24) };
    if kind.is_none() {
        return if flags & SKIP != 0 { Ok(header) } else { Err(WireError::Type(bytes[5])) };
    }
    if header.meta > MAX_META {
        return Err(WireError::TooLarge { length: u64::from(meta), limit: MAX_META as u64 });
    }
    if flags & !SKIP != 0 {
        return Err(WireError::Flags(flags));
    }
    let group = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    if group != 0 {
        return Err(WireError::Group(group));
    }
    Ok(header)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
