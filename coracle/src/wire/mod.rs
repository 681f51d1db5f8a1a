//! The bytes that nodes say to each other: the only place that knows them.
//!
//! A *frame* is a fixed header, a small `prost` message (its *meta*: tags are fixed by hand, so old and new
//! versions can skip what they do not know), and raw bytes after it (its *bulk*: the entries of an
//! AppendEntries, or the command of a forwarded write). The bulk is never copied on its way out: all peers
//! are sent the same [`bytes::Bytes`].
//!
//! What arrives is judged from the outside in: the header's own checksum before its lengths are believed,
//! the lengths before anything is allocated, the body's checksum before it is parsed, each entry's checksum
//! before it is looked at. Of an AppendEntries the header names only `prev` and the number of entries; the
//! terms and memberships are read from the verified entries themselves, so nobody can say one thing in the
//! header and another in the log.
//!
//! Nothing in here does I/O: [`encode`] makes bytes and [`Decoder`] takes them, over sockets and in the
//! simulator alike. `docs/wire-format.md` has the tables.

mod client;
mod convert;
mod founding;
mod frame;
mod handshake;
mod incoming;
mod membership;
mod message;
mod outcome;
mod peer;
mod places;
mod proto;
#[cfg(test)]
mod tests;

pub use crate::place::Place;
pub use client::{Directory, Mode, Query, QueryReply, Watched};
pub use founding::{Answer, Ask, Objection, Step};
pub use frame::{Frame, HEADER, MAX_META, frame_limit};
pub use handshake::{
    Alarm, AlarmReason, Close, CloseReason, Facts, Hello, MAX_BOOTS, MAX_METADATA, Purpose, Refused,
    RefusedReason, Welcome,
};
pub(crate) use handshake::{ping, pong};
pub use incoming::{Decoder, Incoming, decode};
pub use membership::{
    MAX_ADDRESS, MAX_LIST, MAX_MARKS, MAX_MEMBERS, MAX_MEMBERSHIP, check_membership, decode_membership,
    encode_membership,
};
pub use message::{Forward, ForwardReply, PeerMessage};
pub(crate) use peer::carried;
pub use peer::encode;
pub use places::MAX_PLACES;
pub(crate) use places::encode_places;

use crate::entry::EntryError;

/// The oldest protocol that this version speaks. 1 was spoken before handshakes told of boots and of what a
/// membership says of the receiver, and is spoken no more.
pub const PROTOCOL_MIN: u32 = 2;
/// The newest protocol that this version speaks. Two nodes speak the newest that both know.
pub const PROTOCOL_MAX: u32 = 2;
/// The feature of snapshots: messages about them travel only between two that both know it.
pub const SNAPSHOTS: u64 = 1;
/// The feature of transfers of leadership: TimeoutNow travels only between two that both know it.
pub const TRANSFERS: u64 = 2;
/// The feature of moves: where members were found is told only to those who know what that is.
pub const MOVES: u64 = 4;
/// The feature of sessions: whoever has it takes what is forwarded within one, and understands entries of level 1.
pub const SESSIONS: u64 = 8;
/// The feature of timers: whoever has it understands entries of level 2.
pub const TIMERS: u64 = 16;
/// The feature of rulings: whoever has it understands entries of level 3.
pub const RULINGS: u64 = 32;
/// The feature of marks: whoever has it knows nodes by the certificates that the membership knows of.
pub const MARKS: u64 = 64;
/// The features, one bit each, that this version understands. A peer that requires another is refused.
pub const FEATURES: u64 = SNAPSHOTS | TRANSFERS | MOVES | SESSIONS | TIMERS | RULINGS | MARKS;
/// The oldest feature level of the log that this version can apply.
pub const LEVEL_MIN: u32 = 0;
/// The newest feature level of the log that this version can apply.
pub const LEVEL_MAX: u32 = 3;

/// Why bytes are not a frame that this version accepts. After any of these the stream is out of step, so the
/// connection ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes do not start like a frame: most likely something else speaks on this port.
    #[error("this is not the protocol of a peer")]
    Magic,
    /// The layout of the frame is of a version that this one does not know.
    #[error("the frame is of version {0}, which this program does not know")]
    Version(u8),
    /// The header was damaged.
    #[error("the checksum of a frame's header is wrong")]
    HeaderChecksum,
    /// The meta, or what ties the bulk to it, was damaged.
    #[error("the checksum of a frame's body is wrong")]
    BodyChecksum,
    /// Flags that this version does not know.
    #[error("the frame has the flags {0:#06x}, which this version does not know")]
    Flags(u16),
    /// A group other than 0, while there is only one.
    #[error("the frame is for group {0}, which does not exist")]
    Group(u64),
    /// A type that this version does not know, and that may not be skipped.
    #[error("the frame is of type {0}, which this version does not know")]
    Type(u8),
    /// A length over the limit; nothing was allocated for it.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// The length claimed.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes end before the frame does.
    #[error("the frame is cut short")]
    Short,
    /// There is more after the frame where nothing should be.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// The meta is not a message of its type.
    #[error("the message cannot be parsed: {0}")]
    Parse(String),
    /// The message cannot be true, or leaves out what it must say.
    #[error("the message is not valid: {0}")]
    Invalid(&'static str),
    /// An entry is not one.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl From<prost::DecodeError> for WireError {
    fn from(error: prost::DecodeError) -> WireError {
        WireError::Parse(error.to_string())
    }
}
