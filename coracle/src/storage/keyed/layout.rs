//! The keys and values of a log in a key-value store, version 1.
//!
//! ```text
//! 00        the format: magic "CRKV", u32 version
//! 01        whose log it is: u64 node, u64 incarnation
//! 02        the hard state: u64 term, u64 node voted for (0: none), u64 its incarnation, and u64
//!           the longest lease that was promised, in ticks, if one was
//! 03        the newest entry that is gone: u64 term, u64 index (missing: none)
//! 04        the newest membership entry that is gone: u64 term, u64 index, payload (missing: none)
//! 05        how often the log was started: u64
//! 10 index  an entry, in its own encoding; the index in 8 bytes, big-endian, so that keys sort as entries do
//! ```
//!
//! The value of a key of one byte begins with a CRC-32C (u32) of that byte and of everything after the sum.
//! All numbers but the index in a key are little-endian.

use super::Operation;
use crate::entry::Entry;
use crate::storage::Identity;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_core::{HardState, Incarnation, Index, LogId, NodeId, Peer, Term};

const MAGIC: &[u8; 4] = b"CRKV";
/// The version that this code writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;

pub(super) const FORMAT: u8 = 0x00;
pub(super) const IDENTITY: u8 = 0x01;
pub(super) const HARD_STATE: u8 = 0x02;
pub(super) const PURGED: u8 = 0x03;
pub(super) const MEMBERSHIP: u8 = 0x04;
pub(super) const STARTS: u8 = 0x05;
const ENTRY: u8 = 0x10;

/// The key of the entry at this index.
pub(super) fn key(index: Index) -> Vec<u8> {
    let mut key = vec![ENTRY];
    key.extend(index.0.to_be_bytes());
    key
}

/// The index that a key stands for.
pub(super) fn index(key: &[u8]) -> Option<Index> {
    match key {
        [ENTRY, index @ ..] => Some(Index(u64::from_be_bytes(index.try_into().ok()?))),
        _ => None,
    }
}

pub(super) fn entry(entry: &Entry) -> Operation {
    Operation::Put { key: key(entry.index()), value: entry.bytes().clone() }
}

pub(super) fn remove(first: Index, last: Index) -> Operation {
    Operation::Delete { first: key(first), last: key(last) }
}

pub(super) fn format() -> Operation {
    record(FORMAT, &[u64::from(VERSION) << 32 | u64::from(u32::from_le_bytes(*MAGIC))], &[])
}

pub(super) fn identity(identity: &Identity) -> Operation {
    record(IDENTITY, &[identity.node.0, identity.incarnation.0], &[])
}

pub(super) fn hard_state(state: &HardState) -> Operation {
    let vote = state.vote.unwrap_or_default();
    let numbers = [state.term.0, vote.id.0, vote.incarnation.0, state.promised];
    // As it was before there were leases, where none was promised: so an older version opens it too.
    record(HARD_STATE, if state.promised == 0 { &numbers[..3] } else { &numbers }, &[])
}

pub(super) fn purged(upto: LogId) -> Operation {
    record(PURGED, &[upto.term.0, upto.index.0], &[])
}

pub(super) fn membership(id: LogId, payload: &[u8]) -> Operation {
    record(MEMBERSHIP, &[id.term.0, id.index.0], payload)
}

pub(super) fn forget_membership() -> Operation {
    Operation::Delete { first: vec![MEMBERSHIP], last: vec![MEMBERSHIP] }
}

pub(super) fn starts(count: u64) -> Operation {
    record(STARTS, &[count], &[])
}

fn record(key: u8, numbers: &[u64], rest: &[u8]) -> Operation {
    let mut value = BytesMut::with_capacity(4 + 8 * numbers.len() + rest.len());
    value.put_u32_le(0);
    numbers.iter().for_each(|number| value.put_u64_le(*number));
    value.put_slice(rest);
    let sum = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&sum.to_le_bytes());
    Operation::Put { key: vec![key], value: value.freeze() }
}

fn checksum(key: u8, after: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[key]), after)
}

/// The numbers of a record and what is after them, or what is wrong with it.
fn fields<const N: usize>(key: u8, value: &[u8]) -> Result<([u64; N], &[u8]), String> {
    let Some((sum, after)) = value.split_first_chunk::<4>().filter(|(_, after)| after.len() >= 8 * N) else {
        return Err(format!("the value has only {} bytes", value.len()));
    };
    if checksum(key, after) != u32::from_le_bytes(*sum) {
        return Err("the checksum is wrong".into());
    }
    let (numbers, rest) = after.split_at(8 * N);
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| numbers[8 * at + i]));
    Ok((std::array::from_fn(number), rest))
}

/// The numbers of a record that has nothing else.
fn numbers<const N: usize>(key: u8, value: &[u8]) -> Result<[u64; N], String> {
    match fields(key, value)? {
        (numbers, []) => Ok(numbers),
        (_, rest) => Err(format!("the value has {} bytes too many", rest.len())),
    }
}

/// The version of the format, known or not.
pub(super) fn read_format(value: &[u8]) -> Result<u64, String> {
    let [number] = numbers(FORMAT, value)?;
    if number as u32 != u32::from_le_bytes(*MAGIC) {
        return Err("it does not begin with the magic of a log".into());
    }
    Ok(number >> 32)
}

pub(super) fn read_identity(value: &[u8]) -> Result<(NodeId, Incarnation), String> {
    numbers(IDENTITY, value).map(|[node, incarnation]| (NodeId(node), Incarnation(incarnation)))
}

pub(super) fn read_hard_state(value: &[u8]) -> Result<HardState, String> {
    let (term, id, incarnation, promised) = match numbers(HARD_STATE, value) {
        Ok([term, id, incarnation]) => (term, id, incarnation, 0),
        Err(_) => numbers(HARD_STATE, value).map(|[term, id, inc, promised]| (term, id, inc, promised))?,
    };
    let vote = Peer { id: NodeId(id), incarnation: Incarnation(incarnation) };
    Ok(HardState { term: Term(term), vote: (id != 0).then_some(vote), promised })
}

pub(super) fn read_purged(value: &[u8]) -> Result<LogId, String> {
    numbers(PURGED, value).map(|[term, index]| LogId::new(term, index))
}

pub(super) fn read_membership(value: &[u8]) -> Result<(LogId, Bytes), String> {
    let ([term, index], payload) = fields(MEMBERSHIP, value)?;
    Ok((LogId::new(term, index), Bytes::copy_from_slice(payload)))
}

pub(super) fn read_starts(value: &[u8]) -> Result<u64, String> {
    numbers(STARTS, value).map(|[count]| count)
}

/// The entry under this key, verified.
pub(super) fn read_entry(key: &[u8], value: &[u8]) -> Result<Entry, String> {
    let at = index(key).ok_or_else(|| format!("a key of {} bytes", key.len()))?;
    let entry = Entry::decode(Bytes::copy_from_slice(value)).map_err(|error| error.to_string())?;
    if entry.index() == at { Ok(entry) } else { Err(format!("entry {} lies there", entry.id())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(operation: Operation) -> (Vec<u8>, Bytes) {
        match operation {
            Operation::Put { key, value } => (key, value),
            Operation::Delete { .. } => panic!("a record is put"),
        }
    }

    #[test]
    fn records_survive_their_encoding_and_every_flipped_bit_is_found() {
        let state = HardState {
            term: Term(7),
            vote: Some(Peer { id: NodeId(2), incarnation: Incarnation(u64::MAX) }),
            promised: 60,
        };
        let unvoted = HardState { term: Term(8), vote: None, promised: 0 };
        assert_eq!(read_hard_state(&value(hard_state(&state)).1), Ok(state));
        assert_eq!(read_hard_state(&value(hard_state(&unvoted)).1), Ok(unvoted));
        assert_eq!(read_purged(&value(purged(LogId::new(3, 9))).1), Ok(LogId::new(3, 9)));
        let members = (LogId::new(3, 4), Bytes::from_static(b"payload"));
        let (_, encoded) = value(membership(members.0, &members.1));
        assert_eq!(read_membership(&encoded), Ok(members));
        assert_eq!(read_format(&value(format()).1), Ok(u64::from(VERSION)));
        for bit in 0..encoded.len() * 8 {
            let mut bytes = encoded.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read_membership(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..encoded.len() {
            assert!(read_membership(&encoded[..len]).is_err(), "length {len}");
        }
        assert!(read_purged(&value(membership(LogId::new(3, 4), &[])).1).is_err(), "of another key");
    }

    #[test]
    fn keys_sort_as_their_entries_do() {
        let indexes = [0, 1, 255, 256, 65_536, u64::MAX].map(Index);
        assert!(indexes.map(key).is_sorted());
        assert!(indexes.iter().all(|i| index(&key(*i)) == Some(*i)));
        assert!(vec![STARTS] < key(Index(0)));
    }
}
