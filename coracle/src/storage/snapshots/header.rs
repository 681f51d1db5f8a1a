//! The header of a snapshot: what it says besides the machine's state.

use super::{FIXED, MAGIC, Meta, PLAIN, WITH_SESSIONS, u32_at, u64_at};
use bytes::Bytes;
use coracle_core::{Index, LogId};

/// The bytes of it; `file` names the file.
pub(super) fn encode(meta: &Meta, file: u64) -> Vec<u8> {
    let Meta { id, digest, cluster_time, machine_version, compared, membership, level, sessions } = meta;
    let (of, payload) = membership;
    let (version, more) = if *level > 0 { (WITH_SESSIONS, 8 + sessions.len()) } else { (PLAIN, 0) };
    let length = FIXED + payload.len() + more;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend([0; 4]);
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend((length as u32).to_le_bytes());
    for number in [file, id.index.0, id.term.0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(digest);
    bytes.extend(cluster_time.to_le_bytes());
    bytes.extend(u32::from(*machine_version).to_le_bytes());
    let none = coracle_core::Digest { index: Index::ZERO, format: 0, version: 0, bytes: [0; 16] };
    let compared = compared.unwrap_or(none);
    bytes.extend(compared.format.to_le_bytes());
    bytes.extend(compared.index.0.to_le_bytes());
    bytes.extend(compared.version.to_le_bytes());
    bytes.extend(compared.bytes);
    for number in [of.index.0, of.term.0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    if version == WITH_SESSIONS {
        bytes.extend(u32::from(*level).to_le_bytes());
        bytes.extend((sessions.len() as u32).to_le_bytes());
        bytes.extend(sessions);
    }
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What a header whose checksum holds says; none if it cannot be true.
pub(super) fn decode(header: &[u8]) -> Option<(u64, Meta)> {
    let id_at = |at: usize| LogId::new(u64_at(header, at + 8), u64_at(header, at));
    let bytes_at = |at: usize| std::array::from_fn::<u8, 16, _>(|i| header[at + i]);
    let compared = coracle_core::Digest {
        index: Index(u64_at(header, 72)),
        format: u32_at(header, 68),
        version: u32_at(header, 80),
        bytes: bytes_at(84),
    };
    let end = FIXED.checked_add(u32_at(header, 116) as usize).filter(|end| *end <= header.len())?;
    let (level, sessions) = match &header[end..] {
        [] if u32_at(header, 8) == PLAIN => (0, &[][..]),
        more if u32_at(header, 8) == WITH_SESSIONS && more.len() >= 8 => (u32_at(more, 0), &more[8..]),
        _ => return None,
    };
    let level = u16::try_from(level).ok()?;
    if level > 0 && u32_at(header, end + 4) as usize != sessions.len() {
        return None;
    }
    let meta = Meta {
        id: id_at(24),
        digest: bytes_at(40),
        cluster_time: u64_at(header, 56),
        machine_version: u16::try_from(u32_at(header, 64)).ok()?,
        compared: (compared.format != 0).then_some(compared),
        membership: (id_at(100), Bytes::copy_from_slice(&header[FIXED..end])),
        level,
        sessions: Bytes::copy_from_slice(sessions),
    };
    let sound = meta.id.index > Index::ZERO
        && meta.id.index < Index::LIMIT
        && meta.membership.0.index <= meta.id.index
        && (level > 0 || sessions.is_empty());
    sound.then_some((u64_at(header, 16), meta))
}
