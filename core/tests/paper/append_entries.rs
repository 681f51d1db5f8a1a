//! Figure 2, "AppendEntries RPC", receiver implementation.

use super::*;

fn reply(c: &Cluster, from: u64, to: u64) -> AppendEntriesReply {
    match answer(c, from, to) {
        Message::AppendEntriesReply(reply) => reply,
        other => panic!("not an answer to AppendEntries: {other:?}"),
    }
}

/// Figure 2, AppendEntries RPC, rule 1: "Reply false if term < currentTerm".
#[test]
fn rule_1_an_older_term_is_refused() {
    let mut c = Cluster::with_logs(&["1 1", "1 1"]);
    c.enter(B, 3);
    c.give(A, B, append_entries(2, LogId::new(1, 1), 2, 2));
    let reply = reply(&c, B, A);
    assert_eq!((reply.term, reply.matched), (Term(3), Index(0)), "the sender learns the newer term");
    assert_eq!((c.log(B), c.commit(B), c.leader_of(B)), ("1 1".into(), 0, None));
}

/// Figure 2, AppendEntries RPC, rule 2: "Reply false if log doesn't contain an entry at prevLogIndex whose term
/// matches prevLogTerm".
#[test]
fn rule_2_without_the_entry_before_nothing_is_taken() {
    // Its log is too short; it has another term there.
    for (prev, newest_that_can_match) in
        [(LogId::new(2, 3), LogId::new(1, 2)), (LogId::new(2, 2), LogId::new(1, 2))]
    {
        let mut c = Cluster::with_logs(&["1 2 2 2", "1 1"]);
        c.give(A, B, append_entries(2, prev, 4, 0));
        c.persist(B);
        let reply = reply(&c, B, A);
        assert_eq!((reply.conflict, reply.matched), (Some(newest_that_can_match), Index(0)));
        assert_eq!(c.log(B), "1 1");
    }
}

/// Figure 2, AppendEntries RPC, rule 3: an existing entry that conflicts, and "all that follow it", go.
#[test]
fn rule_3_conflicting_entries_are_deleted() {
    let mut c = Cluster::with_logs(&["1 1 3", "1 1 2 2 2"]);
    c.give(A, B, append_entries(3, LogId::new(1, 1), 3, 0));
    assert_eq!(c.log(B), "1 1 3");
}

/// Figure 2, AppendEntries RPC, rule 4: "Append any new entries not already in the log".
#[test]
fn rule_4_new_entries_are_appended_and_known_ones_are_not() {
    let mut c = Cluster::with_logs(&["1 1 1 1", "1 1"]);
    c.give(A, B, append_entries(1, LogId::new(1, 1), 4, 0));
    assert_eq!(c.log(B), "1 1 1 1");
    let again = c.give(A, B, append_entries(1, LogId::new(1, 1), 3, 0));
    assert_eq!((c.log(B), again.write), ("1 1 1 1".into(), None), "and nothing after them is deleted");
}

/// Figure 2, AppendEntries RPC, rule 5: commitIndex = min(leaderCommit, "index of last new entry").
#[test]
fn rule_5_the_commit_index_follows_as_far_as_the_message_goes() {
    for (leader_commit, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (9, 2)] {
        // A commits entry 2; B has not heard of it.
        let mut c = Cluster::of(3);
        c.cut(A, B);
        c.elect_by(A, &[C]);
        assert_eq!((c.commit(A), c.last(B)), (2, 1));
        c.give(A, B, append_entries(2, LogId::new(1, 1), 2, leader_commit));
        assert_eq!(c.commit(B), expected);
    }
}
