//! What comes of entries, panics, snapshots and the blob of a machine that keeps its own disk.

use super::*;
use crate::entry::Stamp;
use crate::snapshot::{self, Save};
use std::io;

/// Adds up; panics when told or asked 13.
#[derive(Default)]
struct Sum {
    sum: u64,
    lies: bool,
}

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, command: u64) -> u64 {
        assert_ne!(command, 13, "unlucky");
        self.sum += if self.lies { command + 1 } else { command };
        self.sum
    }

    fn query(&self, _: &QueryContext, query: u64) -> u64 {
        assert_ne!(query, 13, "unlucky");
        self.sum
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.sum)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.sum = sum)
    }
}

fn entry(term: u64, index: u64, command: u64) -> Entry {
    let payload = Sum::encode_command(&command).unwrap();
    Entry::new(LogId::new(term, index), Kind::Command, Stamp::default(), &payload)
}

fn noop(term: u64, index: u64) -> Entry {
    Entry::new(LogId::new(term, index), Kind::Noop, Stamp::default(), &[])
}

/// SN-7: what is in the log and not applied may be taken back: a snapshot knows nothing of it.
#[test]
fn sn_7_a_snapshot_carries_the_membership_that_was_applied_and_no_later_one() {
    let members = |term, index, payload: &[u8]| {
        Entry::new(LogId::new(term, index), Kind::Membership, Stamp::default(), payload)
    };
    let mut machine = Replicated::new(Sum::default());
    for entry in [members(1, 1, b"of three"), entry(1, 2, 5), members(1, 3, b"joint"), entry(1, 4, 6)] {
        let (meta, _) = machine.snapshot().unwrap();
        assert!(meta.membership.0 <= meta.id && meta.id < entry.id());
        machine.apply(&entry).unwrap();
    }
    let (meta, _) = machine.snapshot().unwrap();
    assert_eq!(
        (meta.id, meta.membership),
        (LogId::new(1, 4), (LogId::new(1, 3), Bytes::from_static(b"joint")))
    );
}

/// SN-15: all that replicas agree on besides the machine comes back with the blob, and no other place is believed.
#[test]
fn sn_15_the_blob_brings_back_where_the_machine_stood() {
    let mut one = Replicated::new(Sum::default());
    one.compared_every = 2;
    let members = Entry::new(LogId::new(1, 1), Kind::Membership, Stamp::default(), b"of three");
    for entry in [members, entry(1, 2, 5), entry(1, 3, 6)] {
        one.apply(&entry).unwrap();
    }
    assert_eq!(one.kept(), Ok(None), "this one keeps nothing");
    let blob = blob::encode(&one.meta());
    let meta = blob::decode(&blob).unwrap();
    assert_eq!((meta.id, &meta), (LogId::new(1, 3), &one.meta()));
    assert!(meta.compared.is_some() && meta.membership.0 == LogId::new(1, 1));
    let mut other = Replicated::new(Sum { sum: 11, ..Sum::default() });
    other.compared_every = 2;
    other.go_on_from(meta).unwrap();
    for machine in [&mut one, &mut other] {
        assert!(machine.apply(&entry(1, 3, 6)).is_err(), "it has that");
        machine.apply(&entry(1, 4, 7)).unwrap();
    }
    assert_eq!((other.meta(), other.machine.sum), (one.meta(), 18));
    for bit in 0..blob.len() * 8 {
        let mut damaged = blob.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(blob::decode(&damaged).is_err(), "bit {bit}");
    }
    (0..blob.len()).for_each(|length| assert!(blob::decode(&blob[..length]).is_err()));
}

#[test]
fn a_gap_or_a_repetition_stops_the_node() {
    let mut machine = Replicated::new(Sum::default());
    machine.apply(&noop(1, 1)).unwrap();
    assert!(matches!(machine.apply(&noop(1, 1)), Err(StopReason::Invariant(_))));
    assert!(matches!(machine.apply(&noop(1, 3)), Err(StopReason::Invariant(_))));
}

#[test]
fn a_panic_in_apply_is_a_reason_to_stop_and_says_where() {
    let mut machine = Replicated::new(Sum::default());
    let Err(StopReason::Panicked { at, message }) = machine.apply(&entry(1, 1, 13)) else { panic!() };
    assert_eq!(at, "entry 1.1");
    assert!(message.contains("unlucky"), "{message}");
}

#[test]
fn an_entry_of_a_newer_machine_stops_an_older_one_with_a_word() {
    let mut machine = Replicated::new(Sum::default());
    let payload = Sum::encode_command(&1).unwrap();
    let stamp = |version| Stamp { version, ..Stamp::default() };
    let entry = |index, version| Entry::new(LogId::new(1, index), Kind::Command, stamp(version), &payload);
    assert!(machine.apply(&entry(1, Sum::VERSION)).is_ok());
    let Err(StopReason::Apply { id, problem }) = machine.apply(&entry(2, 2)) else { panic!() };
    assert_eq!(id, LogId::new(1, 2));
    assert!(problem.contains("version 2") && problem.contains("upgrade"), "{problem}");
}

#[test]
fn a_panic_in_query_is_an_answer() {
    let machine = Replicated::new(Sum::default());
    let Err(ReadError::Panicked(message)) = machine.query(13) else { panic!() };
    assert!(message.contains("unlucky"), "{message}");
    assert_eq!(machine.query(1), Ok(0));
}

#[test]
fn the_digest_sees_entries_and_replies() {
    let run = |lies, commands: [u64; 2]| {
        let mut machine = Replicated::new(Sum { lies, ..Sum::default() });
        for (at, command) in commands.into_iter().enumerate() {
            machine.apply(&entry(1, at as u64 + 1, command)).unwrap();
        }
        machine.applied().1
    };
    assert_eq!(run(false, [1, 2]), run(false, [1, 2]));
    assert_ne!(run(false, [1, 2]), run(false, [2, 1]));
    assert_ne!(run(false, [1, 2]), run(true, [1, 2]));
}

/// Short rows and long ones have the digest of all their bytes, however they are cut.
#[test]
fn a_digest_is_that_of_the_whole_row() {
    let row: Vec<u8> = (0..2 * IN_ONE_PIECE).map(|at| (at % 251) as u8).collect();
    let mut room = Vec::new();
    for length in [0, 1, 16, 300, IN_ONE_PIECE - 1, IN_ONE_PIECE, IN_ONE_PIECE + 1, row.len()] {
        let row = &row[..length];
        for piece in [1, 16, 100, IN_ONE_PIECE, row.len().max(1)] {
            let mut whole = Row { room: &mut room, hash: None };
            row.chunks(piece).for_each(|part| whole.add(part));
            assert_eq!(
                u128::from_le_bytes(whole.end()),
                xxh3_128(row),
                "{length} bytes in pieces of {piece}"
            );
        }
    }
}
