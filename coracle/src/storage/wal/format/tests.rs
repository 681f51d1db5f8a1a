//! What was encoded is read back, and nothing else is.

use super::*;
use crate::entry::{Entry, Kind, Stamp};
use crate::storage::shape::Shape;
use crate::storage::{Change, Identity, WriteBatch};
use bytes::Bytes;
use coracle_core::{ClusterId, HardState, Incarnation, Index, LogId, NodeId, Peer, Run, Term};

fn batch() -> WriteBatch {
    let entry =
        |index, payload: &[u8]| Entry::new(LogId::new(2, index), Kind::Command, Stamp::default(), payload);
    let vote = Some(Peer { id: NodeId(3), incarnation: Incarnation(4) });
    WriteBatch {
        hard_state: Some(HardState { term: Term(2), vote, promised: 60 }),
        changes: vec![
            Change::Reset(LogId::new(1, 9)),
            Change::Truncate(Index(9)),
            Change::Append(vec![entry(10, b"ten"), entry(11, b"")]),
            Change::Append(vec![]),
            Change::Append(vec![entry(12, &[7; 5000])]),
        ],
    }
}

fn encoded() -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.begin(5, 8192, 3);
    encoder.batch(&batch());
    encoder.purge(LogId::new(2, 11));
    encoder.finish(2, 99).0.to_vec()
}

fn decoded(bytes: &[u8]) -> Result<Vec<Record>, BodyError> {
    let header = BatchHeader::decode(bytes, 5, 8192).ok_or_else(|| BodyError::NotWhole("header".into()))?;
    let body = bytes.get(HEADER..HEADER + header.body as usize);
    let body = body.ok_or_else(|| BodyError::NotWhole("cut".into()))?;
    decode_body(&header, &Bytes::copy_from_slice(body))
}

#[test]
fn a_batch_survives_its_encoding() {
    let bytes = encoded();
    assert_eq!(bytes.len() % BLOCK as usize, 0);
    let header = BatchHeader::decode(&bytes, 5, 8192).unwrap();
    assert_eq!((header.number, header.synced, header.previous), (3, 2, 99));
    assert_eq!(header.body, body_len(&batch()) + RECORD_HEADER as u64 + 16);
    let mut again = Encoder::default();
    again.begin(5, 8192, 3);
    for record in decoded(&bytes).unwrap() {
        if let Record::Append(entries) = &record {
            for (entry, place) in entries {
                let at = place.offset as usize - 8192;
                assert_eq!(bytes[at..at + place.len as usize], entry.bytes()[..]);
            }
        }
        again.repeat(&record);
    }
    assert_eq!(again.finish(2, 99).0, bytes);
}

#[test]
fn a_checkpoint_survives_its_encoding() {
    let identity =
        Identity { node: NodeId(1), incarnation: Incarnation(2), cluster: Some(ClusterId(3 << 70)) };
    let end = End { segment: 1, generation: 2, offset: 4096, batch: 3, checksum: 4 };
    let mut shape = Shape { purged: LogId::new(1, 2), last: LogId::new(4, 9), ..Shape::default() };
    shape.runs = vec![Run::new(3, 1), Run::new(5, 4)];
    shape.memberships = vec![(LogId::new(1, 1), Bytes::from_static(b"m")), (LogId::new(4, 6), Bytes::new())];
    let mut encoder = Encoder::default();
    encoder.begin(5, 8192, 3);
    encoder.restate(&identity, &end, &shape);
    let records = decoded(encoder.finish(2, 99).0).unwrap();
    assert_eq!(records[0], Record::Origin { identity, end });
    let memberships = std::mem::take(&mut shape.memberships);
    assert_eq!(records[1], Record::State(shape));
    for (record, (id, payload)) in records[2..].iter().zip(memberships) {
        assert_eq!(*record, Record::Membership(id, payload));
    }
    assert_eq!(records.len(), 4);
}

#[test]
fn st_2_every_flipped_bit_of_a_batch_is_found() {
    let good = encoded();
    let used = HEADER + BatchHeader::decode(&good, 5, 8192).unwrap().body as usize;
    let mut bytes = good.clone();
    for bit in 0..used * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decoded(&bytes), Err(BodyError::NotWhole(_))), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for cut in 0..used {
        assert!(decoded(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_batch_of_another_place_or_life_is_none() {
    let bytes = encoded();
    assert_eq!(BatchHeader::decode(&bytes, 6, 8192), None);
    assert_eq!(BatchHeader::decode(&bytes, 5, 4096), None);
    let header = BatchHeader::decode(&bytes, 5, 8192).unwrap();
    let body = Bytes::copy_from_slice(&bytes[HEADER..HEADER + header.body as usize]);
    for other in [
        BatchHeader { generation: 6, ..header },
        BatchHeader { offset: 4096, ..header },
        BatchHeader { number: 4, ..header },
    ] {
        assert!(matches!(decode_body(&other, &body), Err(BodyError::NotWhole(_))));
    }
}
