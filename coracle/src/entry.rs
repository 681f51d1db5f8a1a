//! A log entry: what it says, and the one encoding that it has everywhere.
//!
//! The leader that creates an entry encodes it once and sums it once; the same bytes then go to its own
//! disk and to every peer, and each follower, each read from disk and each apply checks that sum. So an
//! entry that was damaged anywhere on its way is found before it does harm.
//!
//! ```text
//!  0  u32  CRC-32C of everything after this field
//!  4  u32  payload length
//!  8  u64  index
//! 16  u64  term
//! 24  u8   kind           25  u8  flags: bit 0, the payload is self-describing
//! 26  u16  level: that of its kind
//! 28  u16  the state machine's version, of a command and of timers that fire
//! 30  u16  zero
//! 32  u64  cluster time, in milliseconds
//! 40  u64  wall time, in milliseconds since 1970
//! 48  u64  session (0: none)
//! 56  u64  sequence within the session
//! 64  …    payload
//! ```
//!
//! All numbers are little-endian. What a version does not know, in kind, flags, level and zeros, it refuses.

use bytes::Bytes;
use coracle_core::{Index, LogId, Term};

/// The bytes in front of an entry's payload.
pub const HEADER: usize = 64;

/// The largest payload of one entry, in bytes: what a frame, a batch and a segment are sized for.
pub const MAX_PAYLOAD: usize = 32 << 20;

/// The flag of a payload that says by itself what it means: it names its fields.
const SELF_DESCRIBING: u8 = 1;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A user's command.
    Command = 1,
    /// The empty entry with which a leader starts its term (§8).
    Noop = 2,
    /// A membership, in force from the moment it is appended.
    Membership = 3,
    /// A session is opened or closed. Of level 1.
    Session = 4,
    /// A user's command within a session. Of level 1.
    Numbered = 5,
    /// Timers fire: all that are due at the time of the entry. Of level 2.
    Timer = 6,
    /// What becomes of an entry that cannot be applied: nothing is done in its place, or it is tried again. Of level 3.
    Ruling = 7,
}

impl Kind {
    /// The kind with this number, if this version knows it.
    pub fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Command),
            2 => Some(Kind::Noop),
            3 => Some(Kind::Membership),
            4 => Some(Kind::Session),
            5 => Some(Kind::Numbered),
            6 => Some(Kind::Timer),
            7 => Some(Kind::Ruling),
            _ => None,
        }
    }

    /// The level that a version must know to understand entries of this kind (D5.5.1).
    pub fn level(self) -> u16 {
        match self {
            Kind::Command | Kind::Noop | Kind::Membership => 0,
            Kind::Session | Kind::Numbered => 1,
            Kind::Timer => 2,
            Kind::Ruling => 3,
        }
    }
}

/// The fields of an entry that its creator chooses beside its place and payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// The cluster's clock, in milliseconds: never runs backwards along the log.
    pub cluster_time: u64,
    /// The creating leader's wall clock, in milliseconds since 1970.
    pub wall_time: u64,
    /// The session that it belongs to, by the index of the entry that opened it; 0 for none.
    pub session: u64,
    /// The command's number within its lane of the session.
    pub sequence: u64,
    /// The version of the state machine that the command is for, or that made timers fire; 0 of what is neither.
    pub version: u16,
    /// Whether the payload names its own fields, so that a tool can show it.
    pub self_describing: bool,
}

/// An entry in its one encoding. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    bytes: Bytes,
}

/// Why bytes are not an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Fewer bytes than the header, or than the header says.
    #[error("the entry is cut short: {have} of {need} bytes")]
    Short {
        /// Bytes needed.
        need: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// The payload length is over [`MAX_PAYLOAD`].
    #[error("an entry's payload of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLarge(usize),
    /// The checksum does not hold.
    #[error("the entry's checksum is wrong")]
    Checksum,
    /// Something that only a newer version of the program can know.
    #[error(
        "the entry is of kind {kind} and level {level} with flags {flags:#04x}, which this version does not \
         know: upgrade the program"
    )]
    Newer {
        /// The kind's number.
        kind: u8,
        /// The feature level.
        level: u16,
        /// The flags, and above them whatever stands where zeros should.
        flags: u32,
    },
}

impl Entry {
    /// Encodes an entry and sums it.
    ///
    /// # Panics
    ///
    /// If the payload is over [`MAX_PAYLOAD`]: no reader would take such an entry.
    pub fn new(id: LogId, kind: Kind, stamp: Stamp, payload: &[u8]) -> Entry {
        Entry::of_two(id, kind, stamp, &[], payload)
    }

    /// The same, of a payload in two parts.
    pub(crate) fn of_two(id: LogId, kind: Kind, stamp: Stamp, prefix: &[u8], payload: &[u8]) -> Entry {
        let length = prefix.len() + payload.len();
        assert!(length <= MAX_PAYLOAD, "an entry's payload is over the limit");
        let mut bytes = Vec::with_capacity(HEADER + length);
        // The place of the checksum of all that follows.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&id.index.0.to_le_bytes());
        bytes.extend_from_slice(&id.term.0.to_le_bytes());
        bytes.extend_from_slice(&[kind as u8, if stamp.self_describing { SELF_DESCRIBING } else { 0 }]);
        bytes.extend_from_slice(&kind.level().to_le_bytes());
        bytes.extend_from_slice(&stamp.version.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&stamp.cluster_time.to_le_bytes());
        bytes.extend_from_slice(&stamp.wall_time.to_le_bytes());
        bytes.extend_from_slice(&stamp.session.to_le_bytes());
        bytes.extend_from_slice(&stamp.sequence.to_le_bytes());
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(payload);
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        Entry { bytes: bytes.into() }
    }

    /// The length of the whole entry whose first bytes are `start`, judged before anything is allocated.
    pub fn encoded_len(start: &[u8]) -> Result<usize, EntryError> {
        if start.len() < HEADER {
            return Err(EntryError::Short { need: HEADER, have: start.len() });
        }
        let payload = u32_at(start, 4) as usize;
        if payload > MAX_PAYLOAD { Err(EntryError::TooLarge(payload)) } else { Ok(HEADER + payload) }
    }

    /// Takes exactly one encoded entry, and verifies its checksum, kind and flags.
    pub fn decode(bytes: Bytes) -> Result<Entry, EntryError> {
        let need = Entry::encoded_len(&bytes)?;
        if bytes.len() != need {
            return Err(EntryError::Short { need, have: bytes.len() });
        }
        if crc32c::crc32c(&bytes[4..]) != u32_at(&bytes, 0) {
            return Err(EntryError::Checksum);
        }
        let (kind, level) = (bytes[24], u16_at(&bytes, 26));
        let flags = u32::from(bytes[25]) | u32::from(u16_at(&bytes, 30)) << 8;
        let known = Kind::from_number(kind).is_some_and(|kind| kind.level() == level);
        if flags & !u32::from(SELF_DESCRIBING) != 0 || !known {
            return Err(EntryError::Newer { kind, level, flags });
        }
        Ok(Entry { bytes })
    }

    /// The whole encoding: what goes to disks and peers.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The checksum that its creator gave it, over everything else in it.
    pub fn checksum(&self) -> u32 {
        u32_at(&self.bytes, 0)
    }

    /// Its term and index.
    pub fn id(&self) -> LogId {
        LogId { term: self.term(), index: self.index() }
    }

    /// Its position in the log.
    pub fn index(&self) -> Index {
        Index(u64_at(&self.bytes, 8))
    }

    /// The term in which it was created.
    pub fn term(&self) -> Term {
        Term(u64_at(&self.bytes, 16))
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        Kind::from_number(self.bytes[24]).expect("checked when the entry was made")
    }

    /// Its clocks and session.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            cluster_time: u64_at(&self.bytes, 32),
            wall_time: u64_at(&self.bytes, 40),
            session: u64_at(&self.bytes, 48),
            sequence: u64_at(&self.bytes, 56),
            version: u16_at(&self.bytes, 28),
            self_describing: self.bytes[25] & SELF_DESCRIBING != 0,
        }
    }

    /// Whether it carries a user's command, in a session or not.
    pub fn is_command(&self) -> bool {
        matches!(self.kind(), Kind::Command | Kind::Numbered)
    }

    /// What it carries, sharing the entry's bytes.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER..)
    }

    /// The bytes that it takes in memory, on the wire and on disk.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({} {:?}, {} bytes)", self.id(), self.kind(), self.len() - HEADER)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::new(LogId::new(7, 42), Kind::Command, stamp(), b"payload")
    }

    fn stamp() -> Stamp {
        Stamp { cluster_time: 1, wall_time: 2, session: 3, sequence: 4, version: 5, self_describing: true }
    }

    /// D5.2.11: what only a newer version can know is refused, with what to do.
    #[test]
    fn what_a_version_does_not_know_says_upgrade() {
        for (at, value) in [(24, 77), (25, 2), (25, 0x80), (26, 1), (27, 1), (30, 1), (31, 1)] {
            let mut bytes = sample().bytes().to_vec();
            bytes[at] = value;
            let checksum = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            let error = Entry::decode(Bytes::from(bytes)).unwrap_err();
            assert!(error.to_string().contains("upgrade"), "byte {at}: {error}");
        }
    }

    #[test]
    fn an_entry_survives_its_encoding() {
        let entry = sample();
        let back = Entry::decode(entry.bytes().clone()).unwrap();
        assert_eq!(back.id(), LogId::new(7, 42));
        assert_eq!(back.kind(), Kind::Command);
        assert_eq!(back.stamp(), stamp());
        assert_eq!(&back.payload()[..], b"payload");
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_found() {
        let bytes = sample().bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode(Bytes::from(damaged)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_is_judged_before_it_is_believed() {
        let mut bytes = sample().bytes().to_vec();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Entry::encoded_len(&bytes), Err(EntryError::TooLarge(u32::MAX as usize)));
        assert!(matches!(Entry::decode(Bytes::from(bytes)), Err(EntryError::TooLarge(_))));
    }
}
