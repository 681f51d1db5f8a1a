//! What is sent is what arrives, and what was damaged never arrives.

mod generators;
mod memberships;

use self::generators::any_message;

use super::frame::{Type, seal};
use super::{
    Alarm, AlarmReason, Answer, Ask, Close, CloseReason, Decoder, Directory, Facts, HEADER, Hello, Incoming,
    MAX_BOOTS, MAX_META, MAX_METADATA, Mode, Objection, Purpose, Query, QueryReply, Refused, RefusedReason,
    Step, Watched, Welcome, WireError, carried, decode, encode, encode_membership, encode_places, ping, pong,
    proto,
};
use super::{Forward, ForwardReply, PeerMessage};
use crate::entry::{Entry, Kind, Stamp};
use crate::error::{Busy, Cause, Leader, ReadError, SessionError, StopReason, WriteError};
use crate::events::{Event, Position};
use crate::freshness::{Freshness, Seen};
use crate::place::Place;
use crate::proposal::{Numbered, Proposal};
use crate::storage::StoreError;
use bytes::{Bytes, BytesMut};
use coracle_core::{
    AppendEntries, AppendEntriesReply, Boot, ClusterId, Digest, Envelope, HandedOver, Incarnation, Index,
    InstallSnapshot, InstallSnapshotReply, LogId, MachineStop, Mark, Member, Membership, Message, NodeId,
    Peer, ReadIndex, ReadIndexReply, Refusal, RequestVote, RequestVoteReply, Round, Term, TimeoutNow,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: usize = 1 << 20;

/// Decodes what should be exactly one frame.
fn read(bytes: &[u8]) -> Result<Option<Incoming>, WireError> {
    let mut stream = BytesMut::from(bytes);
    let Some((incoming, length)) = Decoder::new(LIMIT).next(&mut stream)? else { return Ok(None) };
    assert_eq!((stream.len(), length), (0, bytes.len()));
    Ok(Some(incoming))
}

fn member(id: u64) -> Member {
    Member { id: NodeId(id), incarnation: Incarnation(id << 40), address: format!("host-{id}:7000") }
}

fn membership() -> Membership {
    let mut membership = Membership::of_voters(ClusterId(7 << 100 | 9), [member(1), member(2), member(3)]);
    // Node 2 is being replaced by a new disk of its name.
    let replaced = Member { incarnation: Incarnation(9), ..member(2) };
    membership.outgoing = [(NodeId(1), member(1)), (NodeId(2), replaced)].into();
    membership.voters.remove(&NodeId(1));
    membership
}

/// Whose certificates are known: of a member, and of one that is none any more.
fn marked() -> Membership {
    let mark = |key| Mark { issued: 1_700_000_000, key: [key; 32] };
    Membership { marks: [(NodeId(2), mark(2)), (NodeId(9), mark(9))].into(), ..membership() }
}

fn entry(term: u64, index: u64, kind: Kind, payload: &[u8]) -> Entry {
    let stamp = Stamp {
        cluster_time: index,
        wall_time: 1_700_000_000_000,
        session: 5,
        sequence: index,
        ..Stamp::default()
    };
    Entry::new(LogId::new(term, index), kind, stamp, payload)
}

fn envelope(message: Message) -> Envelope {
    let [from, to] = [1, 2].map(|id| Peer { id: NodeId(id), incarnation: Incarnation(id + 0xfeed) });
    Envelope { from, to, membership: LogId::new(3, 8), message }
}

fn raft(message: Message) -> PeerMessage {
    PeerMessage::Raft { envelope: envelope(message), entries: vec![] }
}

/// An AppendEntries with these entries.
fn append(prev: LogId, term: u64, entries: Vec<Entry>) -> PeerMessage {
    let append = AppendEntries {
        term: Term(term),
        prev,
        last: Index(prev.index.0 + entries.len() as u64),
        commit: Index(4),
        round: Round(17),
        lease: 0,
        persisted: Index(6),
        disk_age: 2,
        time: 1_000,
        agreed: Some(Digest { index: Index(1), format: 1, version: 3, bytes: *b"fedcba9876543210" }),
    };
    PeerMessage::Raft { envelope: envelope(Message::AppendEntries(append)), entries }
}

fn facts() -> Facts {
    Facts {
        protocol: (2, 3),
        required: 0,
        optional: 1 << 40,
        levels: (0, 2),
        cluster: Some(ClusterId(1 << 64 | 2)),
        from: Peer { id: NodeId(1), incarnation: Incarnation(0xaa) },
        boot: Boot(0xbb),
        membership: LogId::new(2, 9),
        max_frame: 1 << 20,
        boot_number: 300,
        boots: vec![Boot(0xba), Boot(0xbb)],
        address: "host:7000".to_owned(),
        names: Some(Peer { id: NodeId(2), incarnation: Incarnation(0xcc) }),
        metadata: Bytes::from_static(b"rack 7"),
        machine: 0,
    }
}

/// One frame of each type, by name.
fn samples() -> Vec<(&'static str, Bytes)> {
    let mut all = samples_of_a_connection();
    all.extend(samples_of_the_core());
    all.extend(samples_of_forwards());
    all.extend(samples_of_clients());
    all
}

fn sample(message: PeerMessage) -> Bytes {
    encode(&message).to_bytes()
}

fn samples_of_a_connection() -> Vec<(&'static str, Bytes)> {
    let hello =
        Hello { facts: facts(), to: NodeId(2), to_incarnation: Some(Incarnation(0)), purpose: Purpose::Raft };
    let refused = Refused {
        reason: RefusedReason::WrongCluster,
        text: "no".to_owned(),
        from: facts().from,
        boot: facts().boot,
    };
    let answer = Answer::Refused(NodeId(3), Objection::Promised(membership()));
    let join = Ask { token: Bytes::from_static(b"sesame"), ..Ask::new(Step::Join, marked(), 0) };
    let elsewhere = Answer::Refused(NodeId(3), Objection::NotLeader("host:7000".to_owned()));
    let place = Place { peer: facts().from, boot: facts().boot, address: facts().address };
    vec![
        ("hello", hello.encode()),
        ("welcome", Welcome { facts: facts() }.encode()),
        ("refused", refused.encode()),
        ("close", Close { reason: CloseReason::Stopping, text: "bye".to_owned() }.encode()),
        ("ping", ping(0)),
        ("pong", pong(9)),
        ("alarm", Alarm { reason: AlarmReason::Copy, boot: Boot(0xbc), number: 4 }.encode()),
        ("places", encode_places([place].iter())),
        ("founding ask", Ask::new(Step::Promise, membership(), 7).encode().to_bytes()),
        ("founding answer", answer.encode().to_bytes()),
        ("joining ask", join.encode().to_bytes()),
        ("joining answer", elsewhere.encode().to_bytes()),
    ]
}

fn samples_of_the_core() -> Vec<(&'static str, Bytes)> {
    let (campaign, term) = (Term(6), Term(6));
    let by = Peer { id: NodeId(7), incarnation: Incarnation(0xaa) };
    let (handed_over, leader) = (Some(HandedOver { by, term: Term(5) }), Some(NodeId(3)));
    let vote = RequestVote { campaign, pre: false, question: 79, last: LogId::new(5, 42), handed_over };
    let timeout_now = TimeoutNow { term, last: LogId::new(5, 42) };
    let refusal = Some(Refusal::Log);
    let vote_reply = RequestVoteReply { campaign, pre: true, question: 79, term, refusal, leader };
    let entries =
        vec![entry(5, 8, Kind::Noop, b""), entry(5, 9, Kind::Membership, &encode_membership(&membership()))];
    let append_reply = AppendEntriesReply {
        term,
        round: Round(17),
        promised: 0,
        matched: Index(7),
        last: Index(9),
        conflict: Some(LogId::new(4, 6)),
        applied: Index(3),
        disk_age: 1,
        digest: Some(Digest { index: Index(2), format: 1, version: 3, bytes: *b"0123456789abcdef" }),
        stop: None,
        wants: None,
    };
    let promised = AppendEntriesReply { promised: 60, conflict: None, ..append_reply };
    let (boot, sequence) = (Boot(77), 78);
    let granted = ReadIndexReply { term, boot, sequence, index: Some(Index(0)) };
    let (snapshot, file) = (LogId::new(5, 42), 80);
    let install = InstallSnapshot { term, snapshot, file, length: 1000, offset: 300 };
    let PeerMessage::Raft { envelope, .. } = raft(Message::InstallSnapshot(install)) else { unreachable!() };
    let installed = InstallSnapshotReply { term, snapshot, file, next: 307 };
    vec![
        ("vote", sample(raft(Message::RequestVote(vote)))),
        ("vote reply", sample(raft(Message::RequestVoteReply(vote_reply)))),
        ("append", sample(append(LogId::new(4, 7), 6, entries))),
        ("append reply", sample(raft(Message::AppendEntriesReply(append_reply)))),
        ("append that asks for a lease", sample(append_asking(60))),
        ("append reply that promises it", sample(raft(Message::AppendEntriesReply(promised)))),
        ("read index", sample(raft(Message::ReadIndex(ReadIndex { term, boot, sequence })))),
        ("read index reply", sample(raft(Message::ReadIndexReply(granted)))),
        ("install snapshot", sample(PeerMessage::Piece { envelope, bytes: Bytes::from_static(b"a piece") })),
        ("install snapshot reply", sample(raft(Message::InstallSnapshotReply(installed)))),
        ("timeout now", sample(raft(Message::TimeoutNow(timeout_now)))),
    ]
}

fn samples_of_forwards() -> Vec<(&'static str, Bytes)> {
    let command = Bytes::from_static(b"set x 1");
    let forward =
        |proposal| sample(PeerMessage::Forward(Forward { id: 1, time_left: 2, term: Term(6), proposal }));
    let place = Numbered { session: 3, lane: 5, number: 4, acknowledged: 2 };
    let failed = ForwardReply { id: 1, outcome: Err(WriteError::Unknown(Cause::Timeout)) };
    vec![
        ("forward", forward(Proposal::Command(command.clone()))),
        ("forward in a session", forward(Proposal::Numbered(place, Some(command)))),
        ("forward nothing", forward(Proposal::Numbered(place, None))),
        ("forward a session", forward(Proposal::Open(60_000))),
        ("forward its end", forward(Proposal::Close(3))),
        ("forward reply", sample(PeerMessage::ForwardReply(failed))),
    ]
}

fn event(index: u64, number: u32, payload: &'static [u8]) -> Event {
    Event {
        at: Position { index: Index(index), number },
        cluster_time: 1,
        payload: Bytes::from_static(payload),
    }
}

fn samples_of_clients() -> Vec<(&'static str, Bytes)> {
    let query =
        |mode| Query { id: 1, time_left: 2, mode, query: Bytes::from_static(b"x?") }.encode().to_bytes();
    let within = Freshness::Within(Duration::from_micros(300));
    let seen = Seen {
        answer: Bytes::from_static(b"yes"),
        applied: LogId::new(2, 9),
        age: Some(Duration::from_micros(7)),
    };
    let watched = |watched: Watched| {
        let seen = Seen { answer: watched.encode(), applied: LogId::ZERO, age: None };
        QueryReply { id: 1, outcome: Ok(seen) }.encode().to_bytes()
    };
    let answered = QueryReply { id: 1, outcome: Ok(seen) };
    let refused = QueryReply { id: 1, outcome: Err(ReadError::Lagging) };
    let newest = Some((LogId::new(2, 9), membership()));
    let directory = Directory { term: Term(6), leader: Some(facts().from), membership: newest, machine: 0 };
    vec![
        ("query", query(Mode::Unknown(9))),
        ("query at least", query(Mode::Read(Freshness::AtLeast(Index(300))))),
        ("query within", query(Mode::Read(within))),
        ("query watch", query(Mode::Watch(Position { index: Index(300), number: 4 }))),
        ("query answered", answered.encode().to_bytes()),
        ("events", watched(Watched::Events(vec![event(300, 4, b"it")]))),
        ("events compacted", watched(Watched::Compacted(Index(300)))),
        ("events off", watched(Watched::Off)),
        ("query reply", refused.encode().to_bytes()),
        ("directory", directory.encode().to_bytes()),
        ("directory with a version", Directory { machine: 2, ..directory }.encode().to_bytes()),
    ]
}

/// The bytes are the protocol: a change here is a break with every node that runs an older version.
#[test]
fn the_bytes_of_one_frame_of_each_type() {
    let shown = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let shown: Vec<_> = samples().iter().map(|(name, bytes)| format!("{name}: {}", shown(bytes))).collect();
    assert_eq!(shown.join("\n"), include_str!("golden.txt").trim_end());
    let types: BTreeSet<u8> = samples().iter().map(|(_, bytes)| bytes[5]).collect();
    assert_eq!(types.len(), Type::ALL.len());
}

#[test]
fn every_flipped_bit_of_every_frame_is_refused() {
    for (name, bytes) in samples() {
        assert!(read(&bytes).unwrap().is_some(), "{name}");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_frame_that_is_cut_anywhere_waits_for_the_rest_and_arrives_in_any_pieces() {
    for (name, bytes) in samples() {
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{name} of {length} bytes");
            assert!(matches!(decode(&bytes[..length]), Err(WireError::Short)), "{name} of {length} bytes");
        }
        let (mut stream, mut decoder) = (BytesMut::new(), Decoder::new(LIMIT));
        for (at, byte) in bytes.iter().enumerate() {
            stream.extend_from_slice(&[*byte]);
            let found = decoder.next(&mut stream).unwrap();
            assert_eq!(found.is_some(), at + 1 == bytes.len(), "{name} at {at}");
            assert!(decoder.missing(stream.len()) <= bytes.len().max(HEADER));
        }
    }
}

#[test]
fn the_simulator_decodes_exactly_one_message() {
    let message = append(LogId::new(4, 7), 6, vec![entry(5, 8, Kind::Noop, b"")]);
    let bytes = encode(&message).to_bytes();
    assert_eq!(decode(&bytes), Ok(Some(message)));
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing(1)));
    assert!(matches!(decode(&ping(0)), Err(WireError::Invalid(_))));
    assert_eq!(decode(&unknown(true, 100)), Ok(None));
}

/// A header with these fields, and a checksum that holds.
fn header(kind: u8, flags: u16, group: u64, meta: u32, bulk: u32) -> Vec<u8> {
    let mut bytes = b"CRCL\x01".to_vec();
    bytes.push(kind);
    bytes.extend(flags.to_le_bytes());
    bytes.extend(group.to_le_bytes());
    bytes.extend(meta.to_le_bytes());
    bytes.extend(bulk.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// A frame of a type that does not exist yet, `length` bytes long.
fn unknown(skip: bool, length: usize) -> Vec<u8> {
    let mut bytes = header(200, u16::from(skip), 5, 10, (length - HEADER - 10) as u32);
    bytes.resize(length, 0xee);
    bytes
}

#[test]
fn an_unknown_frame_is_skipped_if_it_may_be_and_refused_otherwise() {
    let (mut stream, mut decoder) = (BytesMut::new(), Decoder::new(LIMIT));
    stream.extend_from_slice(&[&unknown(true, 5_000)[..], &ping(0)].concat());
    assert_eq!(decoder.next(&mut stream), Ok(Some((Incoming::Ping(0), HEADER))));
    // In pieces, so that it never has to be held.
    for piece in unknown(true, 5_000).chunks(100) {
        stream.extend_from_slice(piece);
        assert_eq!(decoder.next(&mut stream), Ok(None));
        assert!(stream.is_empty());
    }
    stream.extend_from_slice(&ping(0));
    assert_eq!(decoder.next(&mut stream), Ok(Some((Incoming::Ping(0), HEADER))));
    assert_eq!(read(&unknown(false, 5_000)), Err(WireError::Type(200)));
}

#[test]
fn tr_3_a_length_is_judged_before_anything_is_allocated() {
    let of_append = |meta, bulk| read(&header(18, 0, 0, meta, bulk));
    let too_large = |result| matches!(result, Err(WireError::TooLarge { .. }));
    let room = (LIMIT - HEADER) as u32;
    assert_eq!(of_append(0, room), Ok(None), "the limit itself");
    assert!(too_large(of_append(0, room + 1)), "one more");
    assert!(too_large(of_append(1, room)), "both together");
    assert!(too_large(of_append(MAX_META as u32 + 1, 0)), "a long meta");
    for length in [1 << 31, u32::MAX] {
        assert!(too_large(of_append(length, 0)));
        assert!(too_large(of_append(0, length)));
        assert!(too_large(of_append(length, length)), "they do not overflow");
        assert!(too_large(read(&header(200, 1, 0, 0, length))), "nor may it be skipped");
    }
    // An empty AppendEntries says nothing of its sender.
    assert!(of_append(0, 0).is_err());
}

#[test]
fn other_versions_flags_and_groups_are_refused() {
    assert_eq!(read(&header(5, 2, 0, 0, 0)), Err(WireError::Flags(2)));
    assert_eq!(read(&header(5, 0, 1, 0, 0)), Err(WireError::Group(1)));
    let mut bytes = ping(0).to_vec();
    bytes[4] = 2;
    assert_eq!(read(&bytes), Err(WireError::Version(2)));
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), Err(WireError::Magic));
}

/// What encodes `message` after `change` was made to the entries that it carries.
fn with_entries(
    prev: LogId,
    term: u64,
    count: u64,
    entries: &[Entry],
) -> Result<Option<Incoming>, WireError> {
    let peer = Some(proto::Peer { id: 1, incarnation: 1 });
    let meta = proto::AppendEntries {
        route: Some(proto::Route { from: peer, to: peer, membership: None }),
        term,
        prev: Some(proto::LogId { term: prev.term.0, index: prev.index.0 }),
        count,
        ..Default::default()
    };
    let bulk = entries.iter().map(|entry| entry.bytes().clone()).collect();
    read(&seal(Type::AppendEntries, &meta, bulk, entries.iter().map(Entry::checksum)).to_bytes())
}

#[test]
fn lg_7_entries_that_do_not_follow_prev_and_each_other_are_refused() {
    let e = |term, index| entry(term, index, Kind::Command, b"x");
    let prev = LogId::new(2, 7);
    let read = |term, count, entries: &[Entry]| with_entries(prev, term, count, entries);
    assert!(read(3, 2, &[e(2, 8), e(3, 9)]).is_ok());
    assert!(read(3, 2, &[e(2, 8), e(2, 10)]).is_err(), "a gap");
    assert!(read(3, 2, &[e(2, 8), e(2, 8)]).is_err(), "twice the same");
    assert!(read(3, 1, &[e(2, 9)]).is_err(), "a gap after prev");
    assert!(read(3, 1, &[e(2, 7)]).is_err(), "prev itself");
    assert!(read(3, 1, &[e(1, 8)]).is_err(), "a term before prev's");
    assert!(read(3, 2, &[e(3, 8), e(2, 9)]).is_err(), "a falling term");
    let later = read(3, 1, &[e(4, 8)]);
    let Ok(Some(Incoming::Message(PeerMessage::Raft { envelope, entries }))) = later else { panic!() };
    let carried = carried(prev.index, &entries).unwrap();
    assert!(!envelope.message.is_well_formed(&carried), "a term after the leader's: the core drops it");
    assert!(read(3, 3, &[e(2, 8), e(2, 9)]).is_err(), "fewer than named");
    assert!(read(3, 1, &[e(2, 8), e(2, 9)]).is_err(), "more than named");
    assert!(read(3, 1, &[entry(2, 8, Kind::Membership, b"garbage")]).is_err());
    let edge = LogId::new(2, u64::MAX);
    assert!(with_entries(edge, 3, 1, &[e(2, 8)]).is_err(), "an index past the last");
}

#[test]
#[should_panic(expected = "exactly the entries after prev")]
fn lg_7_a_gap_does_not_leave_this_node() {
    let mut message = append(LogId::new(2, 7), 3, vec![entry(2, 8, Kind::Noop, b"")]);
    let PeerMessage::Raft { entries, .. } = &mut message else { unreachable!() };
    entries[0] = entry(2, 9, Kind::Noop, b"");
    encode(&message);
}

/// The checksum of each entry is part of the body's: a whole entry of another message does not fit.
#[test]
fn an_entry_that_was_swapped_is_found() {
    let sent = append(LogId::new(2, 7), 3, vec![entry(2, 8, Kind::Command, b"mine")]);
    let mut frame = encode(&sent);
    frame.bulk = vec![entry(2, 8, Kind::Command, b"evil").bytes().clone()];
    assert_eq!(decode(&frame.to_bytes()), Err(WireError::BodyChecksum));
}

#[test]
fn the_entries_are_shared_and_not_copied() {
    let entries = vec![entry(2, 8, Kind::Command, &[7; 1000])];
    let frame = encode(&append(LogId::new(2, 7), 3, entries.clone()));
    assert_eq!(frame.bulk[0].as_ptr(), entries[0].bytes().as_ptr());
}

#[test]
fn a_message_without_its_route_is_refused() {
    let meta = proto::RequestVote { campaign: 1, ..Default::default() };
    assert!(matches!(
        read(&seal(Type::RequestVote, &meta, Vec::new(), []).to_bytes()),
        Err(WireError::Invalid(_))
    ));
    let hello = proto::Hello::default();
    assert!(read(&seal(Type::Hello, &hello, Vec::new(), []).to_bytes()).is_err());
}

#[test]
fn a_refusal_that_this_version_does_not_know_is_not_a_vote() {
    let peer = Some(proto::Peer { id: 1, incarnation: 1 });
    let route = Some(proto::Route { from: peer, to: peer, membership: None });
    for (granted, refusal) in [(false, 0), (false, 99), (true, 1)] {
        let meta = proto::RequestVoteReply { route, granted, refusal, ..Default::default() };
        assert!(read(&seal(Type::RequestVoteReply, &meta, Vec::new(), []).to_bytes()).is_err());
    }
}

#[test]
fn a_failure_that_this_version_does_not_know_leaves_the_outcome_unknown() {
    let failure = proto::Failure { code: 99, ..Default::default() };
    let meta = proto::ForwardReply { id: 1, failure: Some(failure) };
    let bytes = seal(Type::ForwardReply, &meta, Vec::new(), []).to_bytes();
    let reply = ForwardReply { id: 1, outcome: Err(WriteError::Unknown(Cause::Disconnected)) };
    assert_eq!(decode(&bytes), Ok(Some(PeerMessage::ForwardReply(reply))));
}

#[test]
fn the_text_of_an_error_is_cut_between_characters_and_always_fits() {
    let long = "ü".repeat(100_000);
    let reason = StopReason::Panicked { at: long.clone(), message: long.clone() };
    let reply = ForwardReply { id: u64::MAX, outcome: Err(WriteError::Stopped(reason)) };
    let bytes = encode(&PeerMessage::ForwardReply(reply)).to_bytes();
    assert!(bytes.len() < HEADER + MAX_META);
    assert!(matches!(decode(&bytes), Ok(Some(PeerMessage::ForwardReply(_)))));
    assert!(Close { reason: CloseReason::Protocol, text: long }.encode().len() < 8 << 10);
}

/// What clients and nodes say to each other survives, and a refusal that is not known is one that may pass.
#[test]
fn what_clients_and_nodes_say_survives() {
    let errors = [
        ReadError::NoLeader,
        ReadError::NotConfigured,
        ReadError::Busy(Busy::Machine),
        ReadError::Timeout,
        ReadError::Lagging,
        ReadError::Diverged,
        ReadError::MachineStopped(LogId::new(3, 17)),
        ReadError::Panicked("over it".to_owned()),
        ReadError::Invalid("it is not one".to_owned()),
        ReadError::Stopped(StopReason::Invariant("one".to_owned())),
    ];
    for error in errors {
        let reply = QueryReply { id: u64::MAX, outcome: Err(error) };
        assert_eq!(read(&reply.encode().to_bytes()), Ok(Some(Incoming::QueryReply(reply))));
    }
    let modes = [
        Mode::Read(Freshness::Linearizable),
        Mode::Read(Freshness::AtLeast(Index(u64::MAX))),
        Mode::Read(Freshness::Within(Duration::from_micros(1))),
        Mode::Watch(Position { index: Index(7), number: u32::MAX }),
        Mode::Unknown(4),
    ];
    for (mode, answer) in modes.into_iter().zip([b"".as_slice(), b"yes", b"", b"no", b""]) {
        let (answer, age) = (Bytes::from_static(answer), Some(Duration::from_micros(3)));
        for age in [None, Some(Duration::ZERO), age] {
            let seen = Seen { answer: answer.clone(), applied: LogId::new(3, 8), age };
            let reply = QueryReply { id: 0, outcome: Ok(seen) };
            assert_eq!(read(&reply.encode().to_bytes()), Ok(Some(Incoming::QueryReply(reply))));
        }
        let query = Query { id: 7, time_left: u64::MAX, mode, query: answer };
        assert_eq!(read(&query.encode().to_bytes()), Ok(Some(Incoming::Query(query))));
    }
    let old = Seen { answer: Bytes::new(), applied: LogId::ZERO, age: Some(Duration::from_nanos(1)) };
    let older = Seen { age: Some(Duration::from_micros(1)), ..old.clone() };
    let (old, older) = (QueryReply { id: 0, outcome: Ok(old) }, QueryReply { id: 0, outcome: Ok(older) });
    assert_eq!(read(&old.encode().to_bytes()), Ok(Some(Incoming::QueryReply(older))), "never younger");
    for watched in [
        Watched::Events(Vec::new()),
        Watched::Events(vec![event(3, 0, b""), event(3, 1, b"two")]),
        Watched::Compacted(Index::ZERO),
        Watched::Off,
    ] {
        assert_eq!(Watched::decode(watched.encode()), Ok(watched));
    }
    assert!(Watched::decode(Bytes::from_static(b"\xff")).is_err());
    for membership in [None, Some((LogId::new(2, 9), membership()))] {
        let directory = Directory { term: Term(3), leader: None, membership, machine: 0 };
        assert_eq!(read(&directory.encode().to_bytes()), Ok(Some(Incoming::Directory(directory))));
    }
    let failure = Some(proto::Failure { code: 999, ..Default::default() });
    let unknown = seal(Type::QueryReply, &proto::ForwardReply { id: 1, failure }, Vec::new(), []);
    let outcome = Err(ReadError::Timeout);
    assert_eq!(read(&unknown.to_bytes()), Ok(Some(Incoming::QueryReply(QueryReply { id: 1, outcome }))));
}

// Every message survives, whatever its numbers.

/// A heartbeat that asks for so long a lease.
fn append_asking(lease: u64) -> PeerMessage {
    let mut message = append(LogId::new(3, 4), 5, vec![]);
    if let PeerMessage::Raft { envelope: Envelope { message: Message::AppendEntries(append), .. }, .. } =
        &mut message
    {
        append.lease = lease;
    }
    message
}

#[test]
fn a_lease_that_is_asked_for_survives() {
    assert_eq!(decode(&sample(append_asking(60))), Ok(Some(append_asking(60))));
}

proptest! {
    #[test]
    fn every_message_survives(message in any_message()) {
        let frame = encode(&message);
        let bytes = frame.to_bytes();
        prop_assert_eq!(frame.len(), bytes.len());
        prop_assert_eq!(decode(&bytes), Ok(Some(message)));
    }

    #[test]
    fn many_messages_survive_a_stream_that_is_cut_anywhere(
        messages in proptest::collection::vec(any_message(), 1..6),
        piece in 1usize..300,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).to_bytes()).collect();
        let (mut stream, mut decoder, mut read) = (BytesMut::new(), Decoder::new(LIMIT), Vec::new());
        for piece in bytes.chunks(piece) {
            stream.extend_from_slice(piece);
            while let Some((incoming, _)) = decoder.next(&mut stream).unwrap() {
                let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
                read.push(message);
            }
        }
        prop_assert_eq!(read, messages);
    }

    /// No bytes from the network may cause a panic, least of all those whose checksums hold.
    #[test]
    fn any_meta_is_decoded_or_refused(
        which in 0..Type::ALL.len(),
        meta in proptest::collection::vec(any::<u8>(), 0..80),
        bulk in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = header(Type::ALL[which] as u8, 0, 0, meta.len() as u32, bulk.len() as u32);
        let piece = (!bulk.is_empty()).then(|| crc32c::crc32c(&bulk));
        bytes[24..28].copy_from_slice(&super::frame::body_checksum(&meta, piece).to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        let _ = read(&[bytes, meta, bulk].concat());
    }

    #[test]
    fn the_handshake_survives(
        numbers in any::<[u64; 8]>(),
        small in any::<[u32; 7]>(),
        cluster in proptest::option::of(any::<u128>()),
        to_incarnation in proptest::option::of(any::<u64>()),
        text in ".{0,50}",
        mut boots in proptest::collection::vec(any::<u64>().prop_map(Boot), 0..MAX_BOOTS),
        address in ".{0,50}",
        names in proptest::option::of(any::<(u64, u64)>()),
        (metadata, machine) in (proptest::collection::vec(any::<u8>(), 0..MAX_METADATA), any::<u16>()),
    ) {
        let [required, optional, id, life, boot, term, index, to] = numbers;
        let from = Peer { id: NodeId(id), incarnation: Incarnation(life) };
        if let Some(last) = boots.last_mut() {
            *last = Boot(boot);
        }
        let facts = Facts {
            protocol: (small[0], small[1]),
            required,
            optional,
            levels: (small[2], small[3]),
            cluster: cluster.map(ClusterId),
            from,
            boot: Boot(boot),
            membership: LogId::new(term, index),
            max_frame: small[4],
            boot_number: boots.len() as u64 + u64::from(small[6]),
            boots,
            address,
            names: names.map(|(id, life)| Peer { id: NodeId(id), incarnation: Incarnation(life) }),
            metadata: metadata.into(),
            machine,
        };
        let purpose = [Purpose::Raft, Purpose::Probe, Purpose::Bulk, Purpose::Client, Purpose::Other(99)];
        let purpose = purpose[small[5] as usize % purpose.len()];
        let to_incarnation = to_incarnation.map(Incarnation);
        let hello = Hello { facts: facts.clone(), to: NodeId(to), to_incarnation, purpose };
        prop_assert_eq!(read(&hello.encode()), Ok(Some(Incoming::Hello(hello))));
        let welcome = Welcome { facts };
        prop_assert_eq!(read(&welcome.encode()), Ok(Some(Incoming::Welcome(welcome))));
        let reason = RefusedReason::Other(small[6] | 1 << 20);
        let refused = Refused { reason, text: text.clone(), from, boot: Boot(boot) };
        prop_assert_eq!(read(&refused.encode()), Ok(Some(Incoming::Refused(refused))));
        let close = Close { reason: CloseReason::Unneeded, text };
        prop_assert_eq!(read(&close.encode()), Ok(Some(Incoming::Close(close))));
        let alarm = Alarm { reason: AlarmReason::Other(small[6] | 1 << 20), boot: Boot(boot), number: id };
        prop_assert_eq!(read(&alarm.encode()), Ok(Some(Incoming::Alarm(alarm))));
        prop_assert_eq!(read(&ping(id)), Ok(Some(Incoming::Ping(id))));
        prop_assert_eq!(read(&pong(id)), Ok(Some(Incoming::Pong(id))));
    }
}

/// A follower caches entries for long: small ones must not keep what they came in with.
#[test]
fn small_entries_leave_the_buffer_that_brought_them_and_large_ones_are_not_copied() {
    for (payload, copied) in [(100, true), (40_000, false)] {
        let entry = Entry::new(LogId::new(1, 1), Kind::Command, Stamp::default(), &vec![7; payload]);
        let buffer = Bytes::from([&entry.bytes()[..], &[0; 32 << 10]].concat());
        let bulk = buffer.slice(..entry.bytes().len());
        let entries = super::peer::entries(bulk).unwrap();
        assert_eq!(entries, [entry]);
        assert_eq!(entries[0].bytes().as_ptr() != buffer.as_ptr(), copied, "{payload}");
    }
}
