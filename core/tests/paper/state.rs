//! Figure 2, "State".

use super::*;

/// Figure 2, persistent state: currentTerm "increases monotonically", and survives a restart.
#[test]
fn current_term_is_persistent() {
    let mut c = Cluster::of(3);
    c.say(C, A, request_vote(5, LogId::ZERO));
    c.persist(A);
    c.crash(A);
    c.restart(A);
    assert_eq!(c.term(A), 5);
}

/// Figure 2, persistent state: votedFor survives a restart.
#[test]
fn voted_for_is_persistent() {
    let mut c = Cluster::of(3);
    c.say(C, A, request_vote(5, LogId::new(1, 1)));
    c.persist(A);
    c.crash(A);
    c.restart(A);
    assert_eq!(c.vote(A), Some(C));
    c.say(B, A, request_vote(5, LogId::new(1, 1)));
    assert!(!vote_granted(&c, A, B));
}

/// Figure 2, persistent state: log[] survives a restart.
#[test]
fn the_log_is_persistent() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 3);
    c.run();
    c.crash(B);
    c.restart(B);
    assert_eq!(c.log(B), "1 2 2 2 2");
}

/// Figure 2, persistent state: "updated on stable storage before responding to RPCs".
#[test]
fn persistent_state_is_on_stable_storage_before_any_response() {
    let mut c = Cluster::of(3);
    c.say(C, A, request_vote(5, LogId::new(1, 1)));
    assert!(c.mail(A, C).is_empty());
    c.persist(A);
    assert!(vote_granted(&c, A, C));
    let mut c = Cluster::of(3);
    c.elect(B);
    c.propose(B, 1);
    c.deliver(B, A);
    assert!(c.mail(A, B).is_empty());
    c.persist(A);
    assert!(matches!(answer(&c, A, B), Message::AppendEntriesReply(reply) if reply.matched == Index(3)));
}

/// Figure 2, volatile state: commitIndex starts at 0, after a restart too, and increases.
#[test]
fn commit_index_starts_at_zero_and_increases() {
    let mut c = Cluster::of(3);
    assert_eq!(c.commit(A), 0);
    c.elect(A);
    assert_eq!(c.commit(A), 2);
    c.propose(A, 1);
    c.run();
    assert_eq!(c.commit(A), 3);
    c.crash(A);
    c.restart(A);
    assert_eq!(c.commit(A), 0);
}

/// Figure 2, volatile state on leaders: nextIndex is "leader last log index + 1" at first, matchIndex 0, and both are
/// "reinitialized after election".
#[test]
fn next_index_and_match_index_are_reinitialized_after_election() {
    let mut c = Cluster::with_logs(&["1 1 1", "1 1 1", "1"]);
    c.sending = Sending::ByHand;
    for held in [3, 0] {
        c.silence(60);
        c.campaign(A);
        c.run_pre_vote(A, B);
        c.persist(A);
        let last = c.last(A);
        c.deliver(A, B);
        c.persist(B);
        c.deliver(B, A);
        assert_eq!(c.role(A), RoleName::Leader);
        for follower in [B, C] {
            let progress = c.progress(A, follower);
            assert_eq!((progress.next.0, progress.matched.0), (last + 1, 0));
        }
        c.run();
        assert_eq!(c.progress(A, B).matched.0, held, "B holds none of what A kept to itself");
        c.silence(60);
        c.tick(A, 1);
    }
}

/// Figure 2, volatile state on leaders: matchIndex "increases monotonically".
#[test]
fn match_index_increases_monotonically() {
    let mut c = Cluster::of(2);
    c.elect(A);
    c.propose(A, 1);
    c.deliver(A, B);
    c.persist(B);
    let early = c.take(B, A);
    c.propose(A, 1);
    c.run();
    assert_eq!(c.progress(A, B).matched.0, 4);
    c.hand(early);
    assert_eq!(c.progress(A, B).matched.0, 4);
}
