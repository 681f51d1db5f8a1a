//! What the replica owns: the order of disk and messages, the tail, the feed of the machine, the limits.

use super::{Moment, NotDone, Purpose};
use crate::config::{Config, Storage};
use crate::entry::{Entry, Kind, Stamp};
use crate::error::Busy;
use crate::proposal::Proposal;
use crate::storage::Change;
use crate::storage::{ReadLogError, StoreError};
use crate::work::RequestId;
use bytes::Bytes;
use coracle_core::*;

type Replica = super::Replica<RequestId, RequestId>;
type Event = super::Event<RequestId, RequestId>;

const A: Peer = Peer { id: NodeId(1), incarnation: Incarnation(11) };
const B: Peer = Peer { id: NodeId(2), incarnation: Incarnation(22) };
const C: Peer = Peer { id: NodeId(3), incarnation: Incarnation(33) };

/// Node A of {A, B, C}, in term 1, with the membership as its only entry.
fn replica(change: impl Fn(&mut Config)) -> Replica {
    let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    change(&mut config);
    let member = |peer: Peer| Member { id: peer.id, incarnation: peer.incarnation, address: String::new() };
    let membership = Membership::of_voters(ClusterId(1), [A, B, C].map(member));
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, promised: 0 },
        runs: vec![Run::new(1, 1)],
        last: Index(1),
        memberships: vec![(LogId::new(1, 1), membership)],
        ..Restored::default()
    };
    let raft = Raft::new(A, Boot(1), config.core(), 7, restored, Tick(0)).unwrap();
    Replica::new(raft, &config, 500)
}

fn at(tick: u64) -> Moment {
    Moment::new(10 * tick, 1_000_000)
}

fn from(peer: Peer, message: Message) -> Event {
    Event::Message(envelope(peer, message), Vec::new())
}

fn envelope(from: Peer, message: Message) -> Envelope {
    Envelope { from, to: A, membership: LogId::new(1, 1), message }
}

fn entry(term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry::new(
        LogId::new(term, index),
        Kind::Command,
        Stamp { cluster_time: 900, ..Stamp::default() },
        payload,
    )
}

/// AppendEntries of leader B in `term`, carrying these entries of that term after `prev`.
fn append(term: u64, prev: LogId, count: u64, commit: u64) -> Event {
    let entries: Vec<_> = (1..=count).map(|i| entry(term, prev.index.0 + i, &[7; 100])).collect();
    let message = Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev,
        last: Index(prev.index.0 + count),
        commit: Index(commit),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    });
    Event::Message(envelope(B, message), entries)
}

fn vote(term: u64, candidate: Peer) -> Event {
    let last = LogId::new(1, 1);
    from(
        candidate,
        Message::RequestVote(RequestVote {
            campaign: Term(term),
            pre: false,
            question: 0,
            last,
            handed_over: None,
        }),
    )
}

/// Everything written so far is durable.
fn persist(replica: &mut Replica, now: u64) {
    let newest = replica.raft().newest_write();
    replica.on_event(at(now), Event::Persisted(newest));
}

/// Makes A the leader of its next term, its log durable up to its first own entry.
fn elect(replica: &mut Replica) {
    // It has heard nobody yet, so its first event must not be this late, or its clock would start here.
    replica.on_event(at(0), Event::Tick);
    elect_at(replica, 100);
}

fn elect_at(replica: &mut Replica, now: u64) {
    replica.on_event(at(now), Event::Tick);
    for pre in [true, false] {
        persist(replica, now);
        let asked = replica.take().send.into_iter().rev().find_map(|(envelope, _)| match envelope.message {
            Message::RequestVote(vote) => Some(vote.question),
            _ => None,
        });
        let question = asked.expect("it asks");
        let term = replica.raft().term();
        let campaign = if pre { term.next() } else { term };
        let reply = RequestVoteReply { campaign, pre, question, term, refusal: None, leader: None };
        replica.on_event(at(now), from(B, Message::RequestVoteReply(reply)));
    }
    assert!(replica.raft().is_leader());
    persist(replica, now);
    replica.take();
}

fn acknowledge(replica: &mut Replica, peer: Peer, matched: u64) {
    let reply = AppendEntriesReply {
        term: replica.raft().term(),
        round: Round(0),
        promised: 0,
        matched: Index(matched),
        last: Index(matched),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
    };
    replica.on_event(at(100), from(peer, Message::AppendEntriesReply(reply)));
}

fn propose(replica: &mut Replica, commands: std::ops::Range<u64>, size: usize) {
    let commands =
        commands.map(|id| (RequestId(id), Proposal::Command(Bytes::from(vec![1; size])))).collect();
    replica.on_event(at(100), Event::Propose(commands));
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index().0).collect()
}

/// VT-1, D5.1.3: a vote leaves when it is on the disk, and not before.
#[test]
fn vt_1_a_vote_waits_for_its_write() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), vote(2, B));
    let effects = replica.take();
    assert_eq!(effects.writes[0].1.hard_state, Some(HardState { term: Term(2), vote: Some(B), promised: 0 }));
    assert!(effects.send.is_empty(), "{effects:?}");
    persist(&mut replica, 1);
    let sent = replica.take().send;
    assert!(
        matches!(sent[0].0.message, Message::RequestVoteReply(RequestVoteReply { refusal: None, .. })),
        "{sent:?}"
    );
}

/// D5.1.3: what is held waits for *every* write that was queued before it, not for some.
#[test]
fn a_held_message_waits_for_the_newest_write() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(2, LogId::new(1, 1), 1, 0));
    let first = replica.raft().newest_write();
    replica.on_event(at(100), vote(3, C));
    replica.take();
    replica.on_event(at(100), Event::Persisted(first));
    assert!(replica.take().send.is_empty());
    persist(&mut replica, 100);
    assert_eq!(replica.take().send.len(), 1);
}

/// D5.1.4: a message that was held is pointless once the term has changed.
#[test]
fn a_held_message_of_an_older_term_is_dropped() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), vote(2, B));
    replica.on_event(at(1), vote(3, C));
    persist(&mut replica, 1);
    let sent = replica.take().send;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!((sent[0].0.to, sent[0].0.message.term()), (C, Term(3)));
}

/// CM-4, S11: entries are acknowledged when they are durable; the heartbeat in them at once.
#[test]
fn an_acknowledgement_names_only_what_is_durable() {
    let mut replica = replica(|_| {});
    persist(&mut replica, 1);
    replica.on_event(at(1), append(1, LogId::new(1, 1), 2, 0));
    let matched = |sent: &[(Envelope, Vec<Entry>)]| match &sent[0].0.message {
        Message::AppendEntriesReply(reply) => reply.matched.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(matched(&replica.take().send), 1);
    persist(&mut replica, 1);
    assert_eq!(matched(&replica.take().send), 3);
}

/// D5.1.8, S15: the machine never runs ahead of its node's disk.
#[test]
fn the_machine_gets_what_is_committed_and_durable() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(1, LogId::new(1, 1), 3, 3));
    // Entry 1 was durable at the start; it has to be read back.
    let effects = replica.take();
    assert!(effects.apply.is_empty());
    let load = effects.loads.into_iter().next().unwrap();
    assert_eq!((load.first, load.last), (Index(1), Index(1)), "2 and 3 are committed, but not durable here");
    replica.on_event(at(1), Event::Loaded(load, Ok(vec![entry(1, 1, b"")])));
    assert_eq!(indexes(&replica.take().apply), [1]);
    assert!(replica.take().apply.is_empty());
    persist(&mut replica, 1);
    assert_eq!(indexes(&replica.take().apply), [2, 3], "4 is durable, but not committed");
}

/// It need not be committed.
#[test]
fn what_a_store_gives_beyond_what_it_was_asked_for_is_never_applied() {
    for (given, applied) in [(&[1][..], true), (&[1, 2], false), (&[2], false), (&[], false)] {
        let mut replica = replica(|_| {});
        replica.on_event(at(1), append(1, LogId::new(1, 1), 1, 1));
        persist(&mut replica, 1);
        let load = replica.take().loads.remove(0);
        assert_eq!((load.first, load.last), (Index(1), Index(1)), "2 is not committed");
        let entries = given.iter().map(|index| entry(1, *index, b"")).collect();
        replica.on_event(at(1), Event::Loaded(load, Ok(entries)));
        let effects = replica.take();
        assert_eq!(indexes(&effects.apply), if applied { vec![1] } else { vec![] });
        assert_eq!(effects.fatal.is_none(), applied);
    }
}

/// LG-10: what a truncation overwrites is never written, sent or applied again.
#[test]
fn lg_10_a_truncation_reaches_the_tail_and_the_store() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(1, LogId::new(1, 1), 3, 0));
    replica.take();
    replica.on_event(at(1), append(2, LogId::new(1, 2), 1, 3));
    let batch = &replica.take().writes[0].1;
    let [Change::Truncate(Index(2)), Change::Append(entries)] = &batch.changes[..] else {
        panic!("{batch:?}")
    };
    assert_eq!(entries[0].id(), LogId::new(2, 3));
    assert_eq!(replica.entry_in_memory(Index(3)).unwrap().term(), Term(2));
    assert_eq!(replica.entry_in_memory(Index(4)), None);
}

/// D5.1.5, OV-4: a follower whose disk does not keep up drops entries, and still hears its leader. What a message with entries
/// says of the commit index is for who takes them (D5.5.5).
#[test]
fn a_follower_with_a_slow_disk_takes_heartbeats_only() {
    let mut replica = replica(|c| c.max_unpersisted_bytes = 300);
    replica.on_event(at(1), append(1, LogId::new(1, 1), 3, 0));
    let before = replica.raft().commit();
    replica.on_event(at(20), append(1, LogId::new(1, 4), 3, 3));
    assert_eq!(replica.raft().last().index, Index(4), "the second three did not fit");
    assert_eq!(replica.raft().commit(), before, "nor was anything committed by them");
    // Its patience started anew with that second message, though.
    replica.on_event(at(45), Event::Tick);
    assert_eq!(replica.raft().role_name(), RoleName::Follower);
    assert_eq!(replica.raft().leader(), Some(B.id));
    persist(&mut replica, 45);
    replica.on_event(at(46), append(1, LogId::new(1, 4), 3, 3));
    assert_eq!((replica.raft().last().index, replica.raft().commit()), (Index(7), Index(3)));
}

/// `max_unpersisted_bytes`: a leader refuses what its disk cannot take, and nothing else changes.
#[test]
fn a_leader_with_a_slow_disk_is_busy() {
    let mut replica = replica(|c| c.max_unpersisted_bytes = 1000);
    elect(&mut replica);
    propose(&mut replica, 0..7, 100);
    propose(&mut replica, 10..12, 100);
    let refused = replica.take().refused;
    assert_eq!(refused, [10, 11].map(|request| (RequestId(request), NotDone::Busy(Busy::Disk))));
    persist(&mut replica, 100);
    propose(&mut replica, 12..13, 100);
    assert!(replica.take().refused.is_empty());
}

/// OV-1, `max_uncommitted_bytes`: a leader without a quorum does not fill up.
#[test]
fn ov_1_a_leader_without_a_quorum_is_busy() {
    let mut replica = replica(|c| c.max_uncommitted_bytes = 1000);
    elect(&mut replica);
    propose(&mut replica, 0..6, 100);
    persist(&mut replica, 100);
    propose(&mut replica, 10..11, 100);
    assert_eq!(replica.take().refused, [(RequestId(10), NotDone::Busy(Busy::Quorum))]);
    let last = replica.raft().last().index.0;
    acknowledge(&mut replica, B, last);
    propose(&mut replica, 11..12, 100);
    assert!(replica.take().refused.is_empty());
}

/// CS-2, CS-6: the driver is told that leadership was lost, so that nobody waits for it.
#[test]
fn losing_leadership_is_told() {
    let mut replica = replica(|_| {});
    elect(&mut replica);
    propose(&mut replica, 0..1, 1);
    assert!(!replica.take().leadership_lost);
    replica.on_event(at(300), Event::Tick);
    let effects = replica.take();
    assert!(effects.leadership_lost && !replica.raft().is_leader());
}

/// LG-7: messages are cut by size, each starts right after the one before, and the core follows.
#[test]
fn lg_7_messages_are_cut_by_size_without_a_gap() {
    let mut replica = replica(|c| c.message_bytes = 500);
    elect(&mut replica);
    acknowledge(&mut replica, B, 2);
    propose(&mut replica, 0..20, 100);
    let mut next = 3;
    for (envelope, entries) in replica.take().send.iter().filter(|(e, _)| e.to == B) {
        let Message::AppendEntries(append) = &envelope.message else { continue };
        if entries.is_empty() {
            continue;
        }
        assert_eq!((append.prev.index.0 + 1, entries[0].index().0), (next, next));
        assert_eq!(append.last, entries.last().unwrap().index());
        assert!(entries.iter().map(Entry::len).sum::<usize>() <= 500);
        next = append.last.0 + 1;
    }
    assert_eq!(next, 23, "all twenty left");
}

/// `cache_bytes`, D5.1.6: entries that left memory are read from the store, and go out only if the log
/// still holds those very entries.
#[test]
fn a_slow_follower_is_served_from_the_store() {
    let mut replica = replica(|c| c.cache_bytes = 0);
    elect(&mut replica);
    propose(&mut replica, 0..3, 10);
    persist(&mut replica, 100);
    replica.take();
    acknowledge(&mut replica, B, 5);
    let load = replica.take().loads.into_iter().find(|load| load.purpose == Purpose::Apply).unwrap();
    let log: Vec<Entry> = (1..=5).map(|i| entry(if i == 1 { 1 } else { 2 }, i, b"x")).collect();
    let loaded = log[..load.last.0 as usize].to_vec();
    replica.on_event(at(100), Event::Loaded(load, Ok(loaded)));
    while !replica.take().apply.is_empty() {}
    assert!(replica.entry_in_memory(Index(4)).is_none(), "all is applied and nothing may be cached");

    // C has never answered; now it says that it has nothing after the first entry.
    let conflict = |replica: &mut Replica, round: u64| {
        replica.on_event(at(100 + 10 * round), Event::Tick);
        let reply = AppendEntriesReply {
            term: Term(2),
            round: Round(round),
            promised: 0,
            matched: Index(0),
            last: Index(1),
            conflict: Some(LogId::new(1, 1)),
            applied: Index(0),
            disk_age: 0,
            digest: None,
            stop: None,
            wants: None,
        };
        replica.on_event(at(100 + 10 * round), from(C, Message::AppendEntriesReply(reply)));
        let loads = replica.take().loads;
        loads.into_iter().find(|load| load.purpose != Purpose::Apply)
    };
    let load = conflict(&mut replica, 1).expect("the entries for C are not in memory");
    assert_eq!((load.first, load.last), (Index(2), Index(5)));
    let foreign = vec![entry(1, 2, b"of an older term")];
    replica.on_event(at(100), Event::Loaded(load, Ok(foreign)));
    assert!(replica.take().send.is_empty(), "not the entry that the log holds");

    let load = conflict(&mut replica, 3).expect("it is tried again");
    replica.on_event(at(100), Event::Loaded(load, Ok(log[1..].to_vec())));
    let sent = replica.take().send;
    let carried = sent.iter().find(|(envelope, entries)| envelope.to == C && !entries.is_empty()).unwrap();
    assert_eq!(indexes(&carried.1), [2, 3, 4, 5]);
}

/// ST-9: a log that cannot be read is a reason to stop, told in words.
#[test]
fn a_damaged_log_is_fatal() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(1, LogId::new(1, 1), 0, 1));
    let load = replica.take().loads.remove(0);
    let damaged = StoreError::Damaged { path: "log-1".into(), offset: 4096, detail: "checksum".into() };
    replica.on_event(at(1), Event::Loaded(load, Err(damaged.into())));
    let reason = crate::error::in_full(&replica.take().fatal.unwrap());
    assert!(reason.contains("log-1") && reason.contains("4096"), "{reason}");
}

/// D5.5.2, CK-1: the cluster's clock goes on from the newest time in the log by the monotonic clock,
/// whatever the wall clock does.
#[test]
fn ck_1_the_cluster_clock_follows_the_log_and_the_monotonic_clock() {
    let mut replica = replica(|_| {});
    // The log's newest entry has 500 ms; one with 900 ms comes at tick 1.
    replica.on_event(at(1), append(1, LogId::new(1, 1), 1, 0));
    elect(&mut replica);
    let time = |replica: &mut Replica, tick: u64, wall: u64| {
        let moment = Moment::new(10 * tick, wall);
        replica.on_event(moment, Event::Propose(vec![(RequestId(1), Proposal::Command(Bytes::new()))]));
        let last = replica.raft().last().index;
        let stamp = replica.entry_in_memory(last).unwrap().stamp();
        assert_eq!(stamp.wall_time, wall);
        stamp.cluster_time
    };
    assert_eq!(time(&mut replica, 100, 1_000), 1_890);
    assert_eq!(time(&mut replica, 105, 99_999_999), 1_940);
    assert_eq!(time(&mut replica, 110, 0), 1_990);
}

/// D5.5.2: it counts milliseconds. By ticks a key that is to live for 3 s could be over after 2.99.
#[test]
fn the_clusters_clock_counts_more_than_ticks() {
    let mut replica = replica(|_| {});
    elect(&mut replica);
    let mut time = |millis| {
        let propose = Event::Propose(vec![(RequestId(1), Proposal::Command(Bytes::new()))]);
        replica.on_event(Moment::new(millis, 0), propose);
        time_of_last(&replica)
    };
    let [one, other] = [time(10_009), time(10_011)];
    assert_eq!(other - one, 2);
}

/// The cluster time that the newest entry of the tail carries.
fn time_of_last(replica: &Replica) -> u64 {
    replica.entry_in_memory(replica.raft().last().index).unwrap().stamp().cluster_time
}

fn heartbeat_at(time: u64) -> Event {
    let Event::Message(mut envelope, entries) = append(1, LogId::new(1, 1), 0, 0) else { unreachable!() };
    let Message::AppendEntries(append) = &mut envelope.message else { unreachable!() };
    append.time = time;
    Event::Message(envelope, entries)
}

/// D5.5.2: the clock does not stand still between the newest entry and the next leader's first.
#[test]
fn the_clusters_clock_goes_on_between_two_leaders() {
    let mut replica = replica(|_| {});
    for tick in (0..=500).step_by(5) {
        replica.on_event(at(tick), heartbeat_at(500 + 10 * tick));
    }
    // The leader is gone; 610 ms later this node leads.
    elect_at(&mut replica, 561);
    assert_eq!(time_of_last(&replica), 500 + 5_610);
}

/// D5.5.2: a leader's clock is followed where it runs a little faster than the node's own, and no faster.
#[test]
fn a_leaders_clock_is_believed_at_most_a_tenth_faster_than_the_own() {
    for (speed, shown) in [(9, 5_000), (11, 5_500), (100, 5_500), (u64::MAX, 5_500)] {
        let mut replica = replica(|_| {});
        for tick in (0..=500).step_by(5) {
            replica.on_event(at(tick), heartbeat_at(500u64.saturating_add(tick.saturating_mul(speed))));
        }
        assert_eq!(replica.clock.read(5_000), 500 + shown, "{speed} ms in a tick of 10");
    }
}

/// Nobody sets the clock but the leader of this very term.
#[test]
fn a_deposed_leader_does_not_set_the_clock() {
    let mut replica = replica(|_| {});
    replica.on_event(at(0), vote(2, C));
    replica.on_event(at(100), heartbeat_at(500 + 1_100));
    assert_eq!(replica.clock.read(1_000), 500 + 1_000);
}

/// A heartbeat, and entries, carry what the clock shows when they leave.
#[test]
fn what_a_leader_sends_carries_the_clusters_clock() {
    let mut replica = replica(|_| {});
    elect(&mut replica);
    acknowledge(&mut replica, B, 2);
    propose(&mut replica, 0..1, 1);
    replica.on_event(at(120), Event::Tick);
    let mut times = Vec::new();
    for (envelope, entries) in replica.take().send {
        if let Message::AppendEntries(append) = envelope.message
            && envelope.to == B
        {
            times.push((append.time, entries.is_empty()));
        }
    }
    assert!(times.contains(&(500 + 1_000, false)) && times.contains(&(500 + 1_200, true)), "{times:?}");
}

/// D5.1.13: while a disk hangs, of what is held only the newest per peer and kind is kept.
#[test]
fn what_a_hanging_disk_holds_does_not_grow() {
    let mut replica = replica(|_| {});
    for tick in 0..10_000 {
        replica.on_event(at(1), from(C, Message::RequestVote(pre_vote(2, tick))));
        replica.on_event(at(1), vote(2, B));
    }
    assert_eq!(replica.held.len(), 2, "an answer to B and one to C");
    persist(&mut replica, 1);
    let answers = replica.take().send;
    let to_c = answers.iter().rfind(|(envelope, _)| envelope.to == C).expect("it is answered");
    let Message::RequestVoteReply(reply) = &to_c.0.message else { panic!("{to_c:?}") };
    assert_eq!((reply.pre, reply.question), (true, 9_999), "the newest question");
}

fn pre_vote(campaign: u64, question: u64) -> RequestVote {
    RequestVote { campaign: Term(campaign), pre: true, question, last: LogId::new(1, 1), handed_over: None }
}

/// Reads that a leader cannot confirm leave nothing once their callers are gone, in the core either.
#[test]
fn reads_of_callers_who_gave_up_are_forgotten_everywhere() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(2, LogId::new(1, 1), 0, 1));
    replica.take();
    replica.on_event(at(1), Event::Read(vec![RequestId(1), RequestId(2)]));
    replica.on_event(at(1), Event::Read(vec![RequestId(3)]));
    assert_eq!(replica.forget_reads(at(2), |read| read.0 != 2), 2);
    assert_eq!(replica.tickets.len(), 1);
    let (_, left) = replica.turn_out();
    assert_eq!(left, [RequestId(2)]);
}

/// D5.1.12: of a burst in one turn, as much is taken as there is room for, and the rest is refused.
#[test]
fn a_burst_of_commands_is_admitted_one_by_one() {
    let mut replica = replica(|config| config.max_unpersisted_bytes = 1000);
    elect(&mut replica);
    let commands =
        (1..=9).map(|number| (RequestId(number), Proposal::Command(Bytes::from(vec![7; 400])))).collect();
    replica.on_event(at(101), Event::Propose(commands));
    let effects = replica.take();
    let accepted: Vec<u64> = effects.accepted.iter().map(|(request, _)| request.0).collect();
    let refused: Vec<u64> = effects.refused.iter().map(|(request, _)| request.0).collect();
    assert_eq!((accepted, refused), (vec![1, 2, 3], vec![4, 5, 6, 7, 8, 9]), "one may pass the limit");
    assert!(effects.refused.iter().all(|(_, why)| *why == NotDone::Busy(Busy::Disk)));
}

/// D5.1.14: what a fenced machine will never apply is not kept in memory for it.
#[test]
fn a_fenced_node_holds_no_entries_for_its_machine() {
    let mut replica = replica(|config| config.cache_bytes = 0);
    elect(&mut replica);
    propose(&mut replica, 1..6, 100);
    persist(&mut replica, 100);
    replica.take();
    let last = replica.raft().last().index;
    assert!(replica.entry_in_memory(last).is_some(), "the machine has it to come");
    replica.on_event(at(102), Event::Fence);
    assert!(replica.take().apply.is_empty());
    assert!(replica.entry_in_memory(last).is_none());
}

/// A follower's entries were purged while they were read for it: that ends in a snapshot, and not in reading again and
/// again.
#[test]
fn a_read_of_what_was_purged_ends_in_a_snapshot_and_not_in_a_loop() {
    let mut replica = replica(|_| {});
    elect(&mut replica);
    acknowledge(&mut replica, B, 2);
    let lacks_all = AppendEntriesReply {
        term: replica.raft().term(),
        round: Round(0),
        promised: 0,
        matched: Index(0),
        last: Index(0),
        conflict: Some(LogId::ZERO),
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
    };
    replica.on_event(at(100), from(C, Message::AppendEntriesReply(lacks_all)));
    let of_follower = |loads: Vec<super::Load>| loads.into_iter().find(|load| load.purpose != Purpose::Apply);
    let load = of_follower(replica.take().loads).expect("the first entry is not in memory");
    replica.on_event(at(100), Event::Applied(Index(2), 0));
    replica.on_event(at(100), Event::SnapshotSaved(LogId::new(2, 2), Index(1)));
    assert_eq!(replica.take().purge, Some(LogId::new(1, 1)));
    replica.on_event(at(100), Event::Loaded(load, Err(ReadLogError::Purged)));
    for tick in 101..130 {
        replica.on_event(at(tick), Event::Tick);
        assert_eq!(of_follower(replica.take().loads), None, "tick {tick}");
    }
    assert_eq!(replica.raft().needs_snapshot(), [C]);
}

/// The store may be reset to a snapshot before the node hears so: what is read for the machine then is gone for a reason.
#[test]
fn what_is_read_for_the_machine_while_the_log_is_reset_may_be_gone() {
    let mut replica = replica(|_| {});
    replica.on_event(at(1), append(2, LogId::new(1, 1), 0, 1));
    let load = replica.take().loads.pop().expect("the first entry is not in memory");
    assert_eq!(load.purpose, Purpose::Apply);
    let membership = Membership::of_voters(
        ClusterId(1),
        [A, B].map(|peer| Member { id: peer.id, incarnation: peer.incarnation, address: "x".to_owned() }),
    );
    let known = (LogId::new(2, 40), membership);
    replica.on_event(at(1), Event::SnapshotReceived(LogId::new(2, 50), known, 90_000));
    replica.on_event(at(1), Event::Loaded(load, Err(ReadLogError::Purged)));
    let effects = replica.take();
    assert!(effects.fatal.is_none() && effects.loads.is_empty(), "{effects:?}");
    persist(&mut replica, 1);
    assert_eq!(replica.take().installed, Some(LogId::new(2, 50)));
}

/// A log that is reset to a snapshot holds no entry that knows the time and the membership: the snapshot tells both.
#[test]
fn a_snapshot_brings_the_cluster_time_and_the_membership() {
    let mut replica = replica(|_| {});
    replica.on_event(at(0), Event::Tick);
    replica.on_event(at(1), append(2, LogId::new(1, 1), 0, 0));
    let member = |peer: Peer| Member { id: peer.id, incarnation: peer.incarnation, address: "x".to_owned() };
    let membership = Membership::of_voters(ClusterId(1), [A, B].map(member));
    let known = (LogId::new(2, 40), membership.clone());
    replica.on_event(at(1), Event::SnapshotReceived(LogId::new(2, 50), known, 90_000));
    persist(&mut replica, 1);
    let effects = replica.take();
    assert_eq!(effects.installed, Some(LogId::new(2, 50)));
    assert_eq!(
        (replica.raft().membership_id(), replica.raft().membership()),
        (LogId::new(2, 40), &membership)
    );
    elect_at(&mut replica, 200);
    propose(&mut replica, 0..1, 1);
    let time = replica.take().writes.iter().find_map(|(_, batch)| match &batch.changes[..] {
        [Change::Append(entries)] => Some(entries[0].stamp().cluster_time),
        _ => None,
    });
    assert!(time.is_some_and(|time| time >= 90_000), "{time:?}");
}
