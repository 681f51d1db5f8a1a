//! The header of a snapshot: what it says besides the machine's state.

use super::{FIXED, MAGIC, Meta, PLAIN, WITH_RULINGS, WITH_SESSIONS, WITH_TIMERS, u32_at, u64_at};
use bytes::{Buf, Bytes};
use coracle_core::{Index, LogId};

/// The bytes of it; `file` names the file.
pub(super) fn encode(meta: &Meta, file: u64) -> Vec<u8> {
    let Meta { id, digest, cluster_time, machine_version, compared, membership, level, sessions, .. } = meta;
    let Meta { timers, entries_version, rulings, effects, .. } = meta;
    let (of, payload) = membership;
    let (version, more) = match level {
        _ if !rulings.is_empty() || !effects.is_empty() => {
            (WITH_RULINGS, 24 + sessions.len() + timers.len() + rulings.len() + effects.len())
        }
        2.. => (WITH_TIMERS, 16 + sessions.len() + timers.len()),
        _ if !timers.is_empty() || *entries_version > 1 => (WITH_TIMERS, 16 + sessions.len() + timers.len()),
        1 => (WITH_SESSIONS, 8 + sessions.len()),
        0 => (PLAIN, 0),
    };
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
    if version != PLAIN {
        bytes.extend(u32::from(*level).to_le_bytes());
        bytes.extend((sessions.len() as u32).to_le_bytes());
        bytes.extend(sessions);
    }
    if version >= WITH_TIMERS {
        bytes.extend((timers.len() as u32).to_le_bytes());
        bytes.extend(timers);
        bytes.extend(u32::from(*entries_version).to_le_bytes());
    }
    if version == WITH_RULINGS {
        bytes.extend((rulings.len() as u32).to_le_bytes());
        bytes.extend(rulings);
        bytes.extend((effects.len() as u32).to_le_bytes());
        bytes.extend(effects);
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
    let (level, [sessions, timers, rulings, effects], entries_version) =
        later_parts(u32_at(header, 8), header.get(end..)?)?;
    let meta = Meta {
        id: id_at(24),
        digest: bytes_at(40),
        cluster_time: u64_at(header, 56),
        machine_version: u16::try_from(u32_at(header, 64)).ok()?,
        compared: (compared.format != 0).then_some(compared),
        membership: (id_at(100), Bytes::copy_from_slice(&header[FIXED..end])),
        level,
        sessions,
        timers,
        entries_version,
        rulings,
        effects,
    };
    let sound = meta.id.index > Index::ZERO
        && meta.id.index < Index::LIMIT
        && meta.membership.0.index <= meta.id.index
        && (meta.level > 0 || meta.sessions.is_empty());
    sound.then_some((u64_at(header, 16), meta))
}

/// What stands after the membership in a header of this version: the level, the sessions, the timers, the rulings and the
/// effects, and the version of entries.
fn later_parts(version: u32, bytes: &[u8]) -> Option<(u16, [Bytes; 4], u16)> {
    let mut from = bytes;
    let level = if version > PLAIN { from.try_get_u32_le().ok()? } else { 0 };
    let part = |from: &mut &[u8], since| {
        let length = if version >= since { from.try_get_u32_le().ok()? as usize } else { 0 };
        let part = Bytes::copy_from_slice(from.get(..length)?);
        from.advance(length);
        Some(part)
    };
    let (sessions, timers) = (part(&mut from, WITH_SESSIONS)?, part(&mut from, WITH_TIMERS)?);
    let entries_version = if version >= WITH_TIMERS { from.try_get_u32_le().ok()? } else { 0 };
    let (rulings, effects) = (part(&mut from, WITH_RULINGS)?, part(&mut from, WITH_RULINGS)?);
    let (level, entries_version) = (u16::try_from(level).ok()?, u16::try_from(entries_version).ok()?);
    from.is_empty().then_some((level, [sessions, timers, rulings, effects], entries_version))
}
