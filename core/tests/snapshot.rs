//! Snapshots (section 7): when the log may go, who is sent one, and what it does to the log that it replaces.

mod common;

use common::*;
use coracle_core::*;

/// Three nodes of which A leads, with `count` more entries that B and C have not got, C not even the first of them.
fn left_behind(count: u64) -> Cluster {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.isolate(C);
    c.propose(A, count);
    c.pass(10);
    assert_eq!((c.commit(A), c.commit(B), c.commit(C)), (2 + count, 2 + count, 2));
    c
}

/// All have committed the same, wherever their logs begin.
fn assert_same(c: &Cluster) {
    for id in [A, B, C] {
        assert_eq!((c.commit(id), c.raft(id).last()), (c.last(A), c.raft(A).last()), "{}", c.describe());
    }
}

#[test]
fn a_snapshot_stands_for_the_log_and_so_it_goes_but_for_a_tail() {
    let mut c = left_behind(8);
    c.snapshot(A, 3);
    let status = c.raft(A).status();
    assert_eq!((status.purged.index, status.last.index, status.commit), (Index(7), Index(10), Index(10)));
    assert_eq!(c.node(A).disk.log.len(), 3);
    assert_eq!(c.raft(A).membership().voters.len(), 3, "the membership is known though its entry is gone");
    c.propose(A, 2);
    c.pass(10);
    assert_eq!(c.commit(B), 12);
    c.snapshot(A, 0);
    assert_eq!((c.raft(A).status().purged.index, c.node(A).disk.log.len()), (Index(12), 0));
    c.crash(A);
    c.restart(A);
    let status = c.raft(A).status();
    assert_eq!((status.commit, status.applied, status.last.index), (Index(12), Index(12), Index(12)));
    assert_eq!(status.membership.voters.len(), 3);
}

/// What the machine has not applied, or what is not durable here, stays whatever a snapshot says.
#[test]
fn no_entry_goes_that_the_machine_has_not_applied() {
    let mut c = left_behind(8);
    let at = c.begin_snapshot(B);
    let ahead = LogId { index: Index(at.id.index.0 + 1), ..at.id };
    c.propose(A, 1);
    c.pass(10);
    let out = c.step(B, Input::SnapshotSaved { snapshot: ahead, purge: ahead.index });
    assert_eq!((out.purge, out.dropped), (None, Some(Dropped::Stale)));
}

#[test]
fn a_follower_that_lacks_what_is_purged_is_sent_a_snapshot_and_then_entries() {
    let mut c = left_behind(8);
    c.snapshot(A, 0);
    c.propose(A, 2);
    c.heal();
    c.pass(10);
    assert_eq!(c.raft(A).needs_snapshot(), [peer(C)]);
    assert_eq!(c.last(C), 2, "nothing that it could not use was sent");
    c.send_snapshot(A, C);
    c.pass(10);
    assert!(c.raft(A).needs_snapshot().is_empty());
    assert_eq!((c.commit(C), c.raft(C).status().purged.index), (12, Index(10)));
    c.propose(A, 1);
    c.pass(10);
    assert_eq!(c.commit(C), 13);
}

/// SN-1, Figure 13, rules 6 and 7: a log that holds the snapshot's entry keeps what follows, any other goes whole.
#[test]
fn sn_1_a_log_that_contradicts_the_snapshot_goes_and_one_that_holds_it_stays() {
    // C led an older term, and has entries that nobody else has.
    let mut c = Cluster::of(3);
    c.elect(C);
    c.pass(10);
    c.isolate(C);
    c.propose(C, 9);
    c.persist(C);
    c.elect(A);
    c.propose(A, 3);
    c.pass(60);
    c.snapshot(A, 0);
    assert!(c.last(C) > c.last(A), "its log is longer");
    c.heal();
    c.pass(10);
    assert_eq!(c.raft(A).needs_snapshot(), [peer(C)]);
    c.send_snapshot(A, C);
    c.pass(10);
    assert_eq!((c.node(C).disk.log.len(), c.commit(C)), (0, c.commit(A)));
    // B holds all that a snapshot stands for: nothing changes, and the answer is immediate.
    c.propose(A, 2);
    c.pass(10);
    c.snapshot(A, 0);
    c.propose(A, 2);
    c.deliver(A, B);
    c.persist(B);
    let (before, envelope) = (c.node(B).memory.clone(), c.install(A, B));
    let out = c.step(B, Input::Receive(envelope, Carried::default()));
    assert!(out.pieces.is_empty() && out.write.is_none());
    assert!(matches!(out.send[0].message, Message::AppendEntriesReply(reply) if reply.matched >= Index(7)));
    assert_eq!(c.node(B).memory, before);
    c.pass(10);
    assert_same(&c);
}

/// SN-2: a local snapshot that was begun before a newer one came says nothing any more.
#[test]
fn sn_2_a_snapshot_that_ends_after_a_newer_one_was_installed_is_nothing() {
    let mut c = left_behind(8);
    let old = c.begin_snapshot(C);
    c.snapshot(A, 0);
    c.heal();
    c.pass(10);
    c.send_snapshot(A, C);
    c.pass(10);
    let before = c.raft(C).status();
    c.end_snapshot(C, old, 0);
    assert_eq!(c.node(C).out.purge, None);
    assert_eq!(c.raft(C).status(), before);
}

/// SN-3: an old snapshot is answered at once, and one that contradicts what is committed is not believed.
#[test]
fn sn_3_a_snapshot_of_what_is_committed_here_is_answered_and_changes_nothing() {
    let mut c = left_behind(8);
    c.snapshot(A, 5);
    c.propose(A, 2);
    c.pass(10);
    let envelope = c.install(A, B);
    let out = c.step(B, Input::Receive(envelope.clone(), Carried::default()));
    let answered = |reply: AppendEntriesReply| reply.matched == Index(12) && reply.conflict.is_none();
    assert!(matches!(out.send[0].message, Message::AppendEntriesReply(reply) if answered(reply)));
    assert!(out.write.is_none() && out.pieces.is_empty() && out.tail.is_empty());
    let Message::InstallSnapshot(mut install) = envelope.message.clone() else { panic!() };
    install.snapshot.term = Term(install.snapshot.term.0 - 1);
    let out = c.step(
        B,
        Input::Receive(
            Envelope { message: Message::InstallSnapshot(install), ..envelope },
            Carried::default(),
        ),
    );
    assert_eq!((out.dropped, out.send.len()), (Some(Dropped::ContradictsCommitted), 0));
}

/// D5.1.14: whose machine is to be rebuilt takes a snapshot from after what it was wrong at, though its log lacks nothing, and
/// the log stays as it is.
#[test]
fn a_snapshot_for_a_machine_is_taken_though_the_log_lacks_nothing() {
    let mut c = left_behind(8);
    c.snapshot(A, 5);
    c.propose(A, 2);
    c.pass(10);
    let envelope = c.install(A, B);
    let before = (c.raft(B).last(), c.commit(B));
    for (after, taken) in [(Some(10), false), (Some(9), true), (None, false)] {
        c.step(B, Input::WantState(after.map(Index)));
        let out = c.step(B, Input::Receive(envelope.clone(), Carried::default()));
        assert_eq!(out.pieces.len(), usize::from(taken), "after {after:?}");
        assert!(out.write.is_none() && out.tail.is_empty());
        assert_eq!((c.raft(B).last(), c.commit(B), c.raft(B).is_installing()), (before.0, before.1, false));
    }
    c.pass(10);
    c.propose(A, 1);
    c.pass(10);
    assert_eq!(c.commit(B), 13, "it goes on as before");
}

/// 5.1.9: until the log is durably reset, the follower appends nothing, asks for no vote, and acknowledges nothing.
#[test]
fn until_the_log_is_reset_nothing_is_appended_or_acknowledged() {
    let mut c = left_behind(8);
    c.snapshot(A, 0);
    c.propose(A, 2);
    c.heal();
    c.pass(10);
    let envelope = c.install(A, C);
    c.step(C, Input::Receive(envelope, Carried::default()));
    assert!(c.raft(C).is_installing());
    assert_eq!((c.raft(C).last().index.0, c.commit(C)), (2, 2), "the marks have not moved");
    let append = c.raft(A).status();
    let append = AppendEntries {
        term: append.term,
        prev: LogId::new(append.term.0, 2),
        last: Index(2),
        commit: Index(10),
        round: Round(1000),
        lease: 0,
        persisted: Index(10),
        disk_age: 0,
        time: 0,
        agreed: None,
    };
    let out = c.give(A, C, append);
    assert!(out.write.is_none() && out.tail.is_empty());
    for reply in out.send {
        assert!(matches!(reply.message, Message::AppendEntriesReply(reply) if reply.matched <= Index(2)));
    }
    c.isolate(C);
    for _ in 0..200 {
        c.tick(C, 1);
        assert!(
            c.node(C).out.envelopes().next().is_none()
                && !matches!(c.raft(C).role_name(), RoleName::PreCandidate)
        );
    }
    c.persist(C);
    assert_eq!((c.raft(C).is_installing(), c.commit(C), c.raft(C).persisted().0), (false, 10, 10));
    c.heal();
    c.pass(10);
    assert_same(&c);
}

/// SN-9: a crash between any two steps of an install leaves a node that goes on, from before or from after.
#[test]
fn sn_9_a_crash_at_any_step_of_an_install_is_survived() {
    for crash_after in 0..4 {
        let mut c = left_behind(8);
        c.snapshot(A, 0);
        c.propose(A, 2);
        c.heal();
        c.pass(10);
        if crash_after > 0 {
            let envelope = c.install(A, C);
            c.step(C, Input::Receive(envelope, Carried::default()));
        }
        if crash_after > 1 {
            c.write_one(C);
        }
        if crash_after > 2 {
            c.persist(C);
        }
        c.crash(C);
        c.restart(C);
        let expected = if crash_after == 0 { 2 } else { 10 };
        assert_eq!(c.last(C), expected, "after step {crash_after}");
        c.pass(100);
        if crash_after == 0 {
            c.send_snapshot(A, C);
            c.pass(10);
        }
        assert_same(&c);
        assert_eq!(c.commit(C), c.commit(A));
    }
}

/// What a snapshot stands for is committed for good, so whoever sent it may be deposed by the time it is whole.
#[test]
fn a_snapshot_of_a_deposed_leader_is_installed_and_not_acknowledged_to_it() {
    let mut c = left_behind(8);
    c.snapshot(A, 0);
    c.heal();
    c.pass(10);
    let envelope = c.install(A, C);
    c.step(C, Input::Receive(envelope, Carried::default()));
    c.isolate(C);
    c.pass(70);
    c.enter(C, 20);
    c.heal();
    assert_eq!((c.commit(C), c.raft(C).leader()), (10, None));
    c.pass(200);
    assert_same(&c);
}

/// A blank node comes to its membership by the snapshot, as it does by the log.
#[test]
fn a_blank_node_takes_its_membership_from_the_snapshot() {
    let mut c = left_behind(8);
    c.snapshot(A, 0);
    c.snapshot(B, 0);
    c.crash(C);
    c.nodes.get_mut(&C).unwrap().disk = Image { hard_state: c.node(C).disk.hard_state, ..Image::default() };
    c.restart(C);
    assert!(c.raft(C).membership().is_empty());
    c.heal();
    c.pass(10);
    c.send_snapshot(A, C);
    c.pass(10);
    assert_eq!((c.raft(C).membership(), c.raft(C).role_name()), (c.raft(A).membership(), RoleName::Follower));
}
