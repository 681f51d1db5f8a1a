//! Figure 2, "Rules for Servers", leaders.

use super::*;

/// Figure 2, leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server".
#[test]
fn a_new_leader_tells_everybody_at_once() {
    let mut c = Cluster::of(3);
    candidate_a(&mut c);
    c.lose(A, C);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(c.role(A), RoleName::Leader);
    for to in [B, C] {
        let heartbeats = c.mail(A, to).into_iter();
        let mut heartbeats =
            heartbeats.filter(|m| matches!(m, Message::AppendEntries(append) if append.count() == 0));
        assert!(heartbeats.next().is_some());
    }
}

/// Figure 2, leaders: "repeat during idle periods to prevent election timeouts".
#[test]
fn an_idle_leader_goes_on_telling() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(1000);
    assert_eq!((c.leader(), c.term(B), c.term(C)), (Some(A), 2, 2));
}

/// Figure 2, leaders: "If command received from client: append entry to local log, respond after entry applied".
#[test]
fn a_command_is_appended_and_answered_when_it_is_committed() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 1);
    assert_eq!((c.log(A), c.commit(A)), ("1 2 2".into(), 2));
    assert_eq!(c.node(A).out.commit, None);
    c.run();
    assert_eq!(c.commit(A), 3);
}

/// Figure 2, leaders: "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting
/// at nextIndex".
#[test]
fn what_a_follower_lacks_is_sent_from_next_index_on() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.pass(10);
    let next = c.progress(A, B).next;
    c.propose(A, 3);
    let Message::AppendEntries(append) = answer(&c, A, B) else { panic!("AppendEntries") };
    assert_eq!((append.prev.index.next(), append.count()), (next, 3));
}

/// Figure 2, leaders: "If successful: update nextIndex and matchIndex for follower".
#[test]
fn success_moves_next_index_and_match_index() {
    let mut c = Cluster::of(3);
    c.elect(A);
    c.propose(A, 3);
    c.run();
    let progress = c.progress(A, B);
    assert_eq!((progress.matched.0, progress.next.0), (5, 6));
}

/// Figure 2, leaders: failure "because of log inconsistency: decrement nextIndex and retry". (By whole terms at a time,
/// as the end of §5.3 suggests.)
#[test]
fn failure_moves_next_index_back_and_retries() {
    let mut c = Cluster::with_logs(&["1 1 3 3 3", "1 1 2 2 2 2", "1 1 3 3 3"]);
    c.elect_by(A, &[C]);
    c.heal();
    assert_eq!(c.progress(A, B).next.0, 7, "after its own first entry, which left already");
    c.sending = Sending::ByHand;
    c.tick(A, 5);
    c.deliver(A, B);
    c.persist(B);
    c.deliver(B, A);
    assert_eq!(c.progress(A, B).next.0, 3, "the whole conflicting term at once");
    c.sent(A, B, 100);
    c.run();
    assert_eq!(c.log(B), c.log(A));
}

/// Figure 2, leaders: an N on "a majority of matchIndex[i]" with "log[N].term == currentTerm: set commitIndex = N".
#[test]
fn the_commit_index_needs_a_majority_and_the_own_term() {
    let mut c = Cluster::of(5);
    c.elect(A);
    c.pass(10);
    c.propose(A, 1);
    c.persist(A);
    for (follower, commit) in [(B, 2), (C, 3)] {
        c.deliver(A, follower);
        c.persist(follower);
        c.deliver(follower, A);
        assert_eq!(c.commit(A), commit);
    }
    // §5.4.2: entries of older terms are committed only along with one of its own.
    let mut c = Cluster::with_logs(&["1 1", "1 1", "1 1"]);
    c.sending = Sending::ByHand;
    c.elect(A);
    c.pass(10);
    assert_eq!((c.progress(A, B).matched.0, c.commit(A)), (2, 0));
}
