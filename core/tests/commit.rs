//! When an entry is safe, and who may say so: §5.4.2 and the hazards CM. What callers are
//! told about it when leadership is lost: hazards CS.

mod common;
use common::*;
use coracle_core::*;

/// What a leader says, with every field up to the script.
fn append(term: u64, prev: LogId, commit: u64) -> AppendEntries {
    AppendEntries {
        term: Term(term),
        prev,
        last: prev.index,
        commit: Index(commit),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
}

/// Figure 8 up to (c): entry 2.2 is on A, B and C, a majority, and A leads term 4.
fn figure_8_c() -> Cluster {
    let mut c = Cluster::of(5);
    c.sending = Sending::ByHand;
    // (a) A leads term 2 and its entry reaches B only.
    c.elect_by(A, &[B, C]);
    c.sent(A, B, 1);
    c.run();
    assert_eq!((c.log(A), c.log(B), c.log(C)), ("1 2".into(), "1 2".into(), "1".into()));
    // (b) A crashes; E leads term 3 with the votes of C and D, and keeps its entry to itself.
    c.crash(A);
    c.elect_by(E, &[C, D]);
    assert_eq!((c.log(E), c.term(E)), ("1 3".into(), 3));
    // (c) E crashes; A is back, leads term 4, and goes on where it stopped: with C.
    c.crash(E);
    c.restart(A);
    c.elect_by(A, &[B, C]);
    assert_eq!((c.log(A), c.term(A)), ("1 2 4".into(), 4));
    c.lose_all();
    c.sent(A, C, 1);
    c.run();
    c.sent(A, C, 1);
    c.run();
    assert_eq!(c.log(C), "1 2");
    c
}

/// CM-1, the paper's Figure 8 (d): the entry on a majority was not committed, and E may overwrite it.
#[test]
fn cm_1_figure_8_an_old_entry_on_a_majority_is_not_committed() {
    let mut c = figure_8_c();
    assert!(c.progress(A, C).matched == Index(2) && c.progress(A, B).matched == Index(2));
    assert_eq!(c.commit(A), 0, "three of five hold 2.2, and that means nothing");
    c.crash(A);
    c.restart(E);
    c.sending = Sending::AtOnce;
    c.elect(E);
    c.pass(10);
    for id in [B, C, D, E] {
        assert_eq!(c.log(id), "1 3 5", "2.2 is gone");
        assert_eq!(c.commit(id), 3);
    }
}

/// CM-1, Figure 8 (e): an entry of A's own term on a majority commits all before it, and E cannot win any more.
#[test]
fn cm_1_figure_8_an_entry_of_the_own_term_commits_the_older_ones() {
    let mut c = figure_8_c();
    c.sent(A, B, 1);
    c.sent(A, C, 1);
    c.run();
    assert_eq!(c.commit(A), 3, "CM-2 as well: the count does not stop at the older entry");
    c.crash(A);
    c.restart(E);
    c.sending = Sending::AtOnce;
    for _ in 0..5 {
        c.silence(60);
        c.campaign(E);
        c.run();
    }
    assert_ne!(c.role(E), RoleName::Leader, "B and C know better");
    c.elect(B);
    c.pass(10);
    assert_eq!(c.log(E), c.log(B));
    assert!(c.log(E).starts_with("1 2 4"));
}

/// CM-2: the first entry of the own term takes all before it along.
#[test]
fn cm_2_the_commit_index_jumps_over_older_entries() {
    let mut c = Cluster::with_logs(&["1 1 2 2", "1 1 2 2", "1"]);
    c.sending = Sending::ByHand;
    c.elect(A);
    c.pass(30);
    assert_eq!(c.commit(A), 0, "four entries on a majority, none of term 3");
    c.sent(A, B, 1);
    c.run();
    assert_eq!(c.commit(A), 5);
}

/// CM-3: what a follower holds after the last verified entry may be another leader's.
#[test]
fn cm_3_a_follower_commits_only_what_this_message_verified() {
    // For every place where the message may stand: the lesser of the leader's commit and its own last entry.
    for (prev, commit, expected) in [(1, 1, 1), (1, 3, 1), (2, 0, 0), (2, 1, 1), (2, 3, 2)] {
        let mut c = Cluster::with_logs(&["1 1", "1 1 2", "1 1"]);
        c.enter(C, 2);
        c.elect_by(A, &[C]);
        assert_eq!((c.log(A), c.commit(A)), ("1 1 3".into(), 3));
        c.say(A, B, Message::AppendEntries(append(3, LogId::new(1, prev), commit)));
        assert_eq!(c.commit(B), expected, "prev {prev}, commit {commit}");
        assert_eq!(c.log(B), "1 1 2", "and nothing is truncated for it");
    }
}

/// CM-4: alone, a leader's disk is the whole quorum.
#[test]
fn cm_4_a_single_leader_does_not_count_itself_before_its_disk_does() {
    let mut c = Cluster::of(1);
    c.elect(A);
    assert_eq!(c.commit(A), 2);
    c.propose(A, 1);
    c.tick(A, 100);
    assert_eq!(c.commit(A), 2, "the entry is on its way to the disk");
    c.persist(A);
    assert_eq!(c.commit(A), 3);
    c.crash(A);
    c.restart(A);
    assert_eq!(c.last(A), 3);
}

/// CM-4: of three, the leader and one follower are a quorum only if both disks say so.
#[test]
fn cm_4_of_three_the_leader_counts_by_its_own_disk() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.isolate(C);
    c.propose(A, 1);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!((c.progress(A, B).matched.0, c.commit(A)), (3, 2), "one disk of three");
    c.persist(A);
    assert_eq!(c.commit(A), 3);
    // The other way round: two followers are a quorum without the leader's disk.
    c.heal();
    c.propose(A, 1);
    for id in [B, C] {
        c.deliver(A, id);
        c.persist(id);
        c.deliver(id, A);
    }
    c.deliver(A, C);
    c.persist(C);
    c.deliver(C, A);
    assert_eq!((c.commit(A), c.raft(A).persisted().0), (4, 3), "thesis 10.2.1: two followers suffice");
}

/// D5.5.5: what a message from before says of the commit index counts for nothing once a newer round was heard: since then the
/// leader may have kept it from this node, which was removed meanwhile, and is a member again that lacks a ruling.
#[test]
fn a_follower_commits_nothing_by_what_an_earlier_round_said() {
    let mut c = Cluster::with_logs(&["1 1", "1 1", "1 1"]);
    c.enter(C, 2);
    c.elect_by(A, &[C]);
    let mut told = |round, commit| {
        let said = AppendEntries { round: Round(round), ..append(3, LogId::new(1, 2), commit) };
        c.say(A, B, Message::AppendEntries(said));
        c.commit(B)
    };
    assert_eq!([told(5, 0), told(4, 2), told(5, 1), told(6, 2)], [0, 0, 1, 2]);
}

/// CM-5: a leader that knows less does not turn the commit index back.
#[test]
fn cm_5_a_smaller_leader_commit_changes_nothing() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 2);
    c.pass(10);
    assert_eq!(c.commit(B), 4);
    for commit in [3, 1, 0] {
        c.say(A, B, Message::AppendEntries(append(2, LogId::new(2, 4), commit)));
        assert_eq!(c.commit(B), 4);
    }
    // The new leader has not heard of the last commit, the old one has.
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 2);
    c.deliver(A, B);
    c.persist(B);
    c.persist(A);
    c.deliver(B, A);
    c.lose_all();
    assert_eq!((c.commit(A), c.commit(B)), (4, 2));
    c.elect_by(B, &[C]);
    c.heal();
    c.pass(10);
    assert!(c.commit(A) >= 4);
}

/// B11 and B20 of the rows: an entry that is not there cannot be committed.
#[test]
fn a_commit_index_beyond_the_end_of_the_log_is_cut() {
    for commit in [2, 3, 1000, u64::MAX] {
        let mut c = Cluster::of(3);
        c.elect(A);
        c.pass(10);
        c.say(A, B, Message::AppendEntries(append(2, LogId::new(2, 2), commit)));
        assert_eq!(c.commit(B), 2);
    }
}

/// A37: the commit index is what a majority holds, for every way in which five nodes can lag.
#[test]
fn the_commit_index_is_the_median_of_what_the_voters_hold() {
    for lag in [[0, 0, 0, 0], [9, 9, 0, 0], [9, 9, 9, 0], [9, 9, 9, 9], [1, 5, 9, 2], [9, 3, 1, 8]] {
        let mut c = Cluster::of(5);
        c.elect(A);
        c.pass(10);
        c.propose(A, 9);
        c.lose_all();
        c.persist(A);
        let base = 2;
        let mut held = vec![base + 9];
        for (id, lag) in [B, C, D, E].into_iter().zip(lag) {
            let reply = Index(base + 9 - lag);
            held.push(reply.0);
            // What it holds for real, so that the box agrees.
            let mut message = append(2, LogId::new(2, 2), 0);
            message.last = reply;
            c.give(A, id, message);
            c.persist(id);
            c.deliver(id, A);
        }
        held.sort_unstable();
        assert_eq!(c.commit(A), held[2], "{lag:?}");
    }
}

/// CS-2: an accepted entry is in the log. Whatever becomes of the leader, the core never calls it refused (the box checks
/// that after each step), for it may still be committed by the next one.
#[test]
fn cs_2_an_accepted_entry_is_never_refused_and_may_commit_under_the_next_leader() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    let ticket = c.propose(A, 1);
    c.deliver(A, B);
    c.persist(B);
    c.lose_all();
    c.isolate(A);
    c.tick(A, 61);
    assert_eq!(c.role(A), RoleName::Follower, "it stepped down, with the entry in doubt");
    assert_eq!(c.refused(A, ticket), None);
    c.elect(B);
    c.heal();
    c.pass(20);
    assert!(c.commit(A) >= 3, "the entry of the lost leader is committed");
    assert_eq!(c.refused(A, ticket), None);
    assert_eq!(c.node(A).accepted.last().unwrap().1, LogId::new(2, 3));
}

/// CS-2: what is refused was never in the log.
#[test]
fn cs_2_a_refused_proposal_leaves_no_trace() {
    let blank = Cluster::with_logs(&["1", "1", "-"]);
    let mut c = blank;
    let before: Vec<String> = c.ids().into_iter().map(|id| c.log(id)).collect();
    let follower = c.propose(A, 3);
    assert_eq!(c.refused(A, follower), Some(RefusedReason::NotLeader(None)));
    let unconfigured = c.propose(C, 3);
    assert_eq!(c.refused(C, unconfigured), Some(RefusedReason::NotConfigured));
    c.campaign(B);
    let candidate = c.propose(B, 3);
    assert_eq!(c.refused(B, candidate), Some(RefusedReason::NotLeader(None)));
    assert_eq!(before, c.ids().into_iter().map(|id| c.log(id)).collect::<Vec<_>>());
    assert!(c.ids().into_iter().all(|id| c.node(id).accepted.is_empty()));
    // B17: a follower names its leader.
    let mut c = Cluster::of(3);
    c.elect(A);
    let redirected = c.propose(B, 1);
    assert_eq!(c.refused(B, redirected), Some(RefusedReason::NotLeader(Some(NodeId(A)))));
}

/// The acknowledgement that matters may be the last of many.
#[test]
fn a_lost_acknowledgement_delays_a_commit_by_one_heartbeat_at_most() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 1);
    for id in [B, C] {
        c.deliver(A, id);
        c.persist(id);
    }
    c.lose_all();
    c.persist(A);
    assert_eq!(c.commit(A), 2);
    c.pass(c.settings.heartbeat);
    assert_eq!(c.commit(A), 3);
}

/// A commit costs no message of its own: the next entries carry it, or the next tick.
#[test]
fn a_commit_is_told_with_the_next_entries_or_at_the_next_tick() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    c.propose(A, 1);
    c.persist(A);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    let (committed, told) = (c.commit(A), c.commit(B));
    assert!(committed > told);
    assert!(c.mail(A, B).is_empty(), "no message for the commit alone");
    c.propose(A, 1);
    c.deliver(A, B);
    assert_eq!(c.commit(B), committed, "the next entries say it");
    c.persist(A);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(c.commit(A), committed + 1);
    c.tick(A, 1);
    c.deliver(A, B);
    assert_eq!(c.commit(B), committed + 1, "the tick says it");
    c.tick(A, 1);
    assert!(c.mail(A, B).is_empty(), "once");
}
