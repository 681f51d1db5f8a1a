//! Takes batches apart, and believes nothing.

use super::fields::{Cursor, Wrong};
use super::header::{BatchHeader, HEADER, RESERVED, body_seed};
use super::record::{
    APPEND, End, GROUP, HARD_STATE, KNOWS_CLUSTER, MEMBERSHIP, ORIGIN, PURGE, Place, RECORD_HEADER, RESET,
    Record, STATE, SUCCESSOR, TRUNCATE,
};
use crate::entry::{Entry, EntryError};
use crate::storage::Identity;
use crate::storage::shape::Shape;
use bytes::Bytes;
use coracle_core::{ClusterId, Incarnation, Index, NodeId, Run, Term};

/// Why a batch cannot be taken.
#[derive(Debug)]
pub(in crate::storage::wal) enum BodyError {
    /// Its bytes are not those that were written: torn, or damaged.
    NotWhole(Wrong),
    /// Its bytes are whole, but say what this version does not know.
    Unknown(Wrong),
}

/// Takes the body of a batch apart, once every checksum holds.
pub(in crate::storage::wal) fn decode_body(
    header: &BatchHeader,
    body: &Bytes,
) -> Result<Vec<Record>, BodyError> {
    if header.reserved != 0 {
        return Err(BodyError::Unknown(RESERVED.to_owned()));
    }
    // First the sums, as far as they can be followed, and nothing believed; then the meaning.
    let mut sum = body_seed(header.generation, header.offset, header.number);
    let mut entries: Vec<(usize, usize)> = Vec::new();
    let mut cursor = Cursor { bytes: body, at: 0 };
    while cursor.at < body.len() {
        let start = cursor.at;
        let (kind, len) = record_bounds(&mut cursor).map_err(BodyError::NotWhole)?;
        sum = crc32c::crc32c_append(sum, &body[start..cursor.at]);
        let content = cursor.at;
        let bytes = cursor.take(len).map_err(BodyError::NotWhole)?;
        if kind != APPEND {
            sum = crc32c::crc32c_append(sum, bytes);
            continue;
        }
        let mut at = 0;
        while at < bytes.len() {
            let len = Entry::encoded_len(&bytes[at..]).map_err(|e| BodyError::NotWhole(e.to_string()))?;
            if len > bytes.len() - at {
                return Err(BodyError::NotWhole("an entry reaches beyond its record".into()));
            }
            sum = crc32c::crc32c_append(sum, &bytes[at..at + 8]);
            entries.push((content + at, len));
            at += len;
        }
    }
    if sum != header.body_checksum {
        return Err(BodyError::NotWhole("the checksum of the batch's body is wrong".into()));
    }
    let mut places = entries.into_iter();
    let entry = |(at, len): (usize, usize)| {
        let entry = Entry::decode(body.slice(at..at + len)).map_err(|e| match e {
            EntryError::Newer { .. } => BodyError::Unknown(e.to_string()),
            _ => BodyError::NotWhole(format!("{e}, {at} bytes into the batch's body")),
        })?;
        let offset = (header.offset as usize + HEADER + at) as u32;
        Ok::<_, BodyError>((entry, Place { offset, len: len as u32 }))
    };
    let mut records = Vec::new();
    let mut cursor = Cursor { bytes: body, at: 0 };
    while cursor.at < body.len() {
        let (kind, count, len) = record_header(&mut cursor).map_err(BodyError::Unknown)?;
        let end = cursor.at + len;
        let record = if kind == APPEND {
            let mut all = Vec::new();
            while cursor.at < end {
                let Some(place) = places.next() else { break };
                all.push(entry(place)?);
                cursor.at = place.0 + place.1;
            }
            Record::Append(all)
        } else {
            let start = cursor.at;
            let record = decode_record(kind, count, &mut cursor, body, end).map_err(BodyError::Unknown)?;
            if cursor.at != end {
                let detail = format!("a record of kind {kind} has {len} bytes, not {}", cursor.at - start);
                return Err(BodyError::Unknown(detail));
            }
            record
        };
        records.push(record);
    }
    Ok(records)
}

/// Kind and content length of the record that starts here, whatever it means.
fn record_bounds(cursor: &mut Cursor<'_>) -> Result<(u8, usize), Wrong> {
    let head = cursor.take(RECORD_HEADER)?;
    let len = u64::from_le_bytes(std::array::from_fn(|i| head[16 + i]));
    Ok((head[0], usize::try_from(len).map_err(|_| "a record of an impossible length")?))
}

/// Kind, count and content length of the record that starts here, if this version knows its flags.
fn record_header(cursor: &mut Cursor<'_>) -> Result<(u8, u32, usize), Wrong> {
    let [kind, flags, free, more] = cursor.u32()?.to_le_bytes();
    let (count, group, len) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
    if free != 0 || more != 0 {
        return Err(RESERVED.to_owned());
    }
    if flags != 0 || group != GROUP {
        return Err(format!("a record of group {group} with flags {flags:#x}"));
    }
    let len = usize::try_from(len).map_err(|_| "a record of an impossible length")?;
    Ok((kind, count, len))
}

fn decode_record(
    kind: u8,
    count: u32,
    cursor: &mut Cursor<'_>,
    body: &Bytes,
    end: usize,
) -> Result<Record, Wrong> {
    Ok(match kind {
        ORIGIN => {
            let (node, incarnation) = (NodeId(cursor.u64()?), Incarnation(cursor.u64()?));
            let cluster = u128::from(cursor.u64()?) | u128::from(cursor.u64()?) << 64;
            let [segment, generation, offset, batch] =
                [cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?];
            let (checksum, flags) = (cursor.u32()?, cursor.u32()?);
            if flags & !KNOWS_CLUSTER != 0 {
                return Err(format!("an origin with flags {flags:#x}"));
            }
            let cluster = (flags & KNOWS_CLUSTER != 0).then_some(ClusterId(cluster));
            let end = End { segment, generation, offset, batch, checksum };
            Record::Origin { identity: Identity { node, incarnation, cluster }, end }
        }
        STATE => {
            let mut shape = Shape { hard_state: cursor.hard_state()?, ..Shape::default() };
            shape.purged = cursor.log_id()?;
            shape.last = cursor.log_id()?;
            for _ in 0..count {
                shape.runs.push(Run { first: Index(cursor.u64()?), term: Term(cursor.u64()?) });
            }
            Record::State(shape)
        }
        MEMBERSHIP => {
            let id = cursor.log_id()?;
            let payload = Bytes::copy_from_slice(&body[cursor.at.min(end)..end]);
            cursor.at = end;
            Record::Membership(id, payload)
        }
        HARD_STATE => Record::HardState(cursor.hard_state()?),
        RESET => Record::Reset(cursor.log_id()?),
        TRUNCATE => Record::Truncate(Index(cursor.u64()?)),
        PURGE => Record::Purge(cursor.log_id()?),
        SUCCESSOR => Record::Successor { number: cursor.u64()?, generation: cursor.u64()? },
        _ => return Err(format!("a record of kind {kind}")),
    })
}
