//! Figure 2, "RequestVote RPC", receiver implementation.

use super::*;

/// Figure 2, RequestVote RPC, rule 1: "Reply false if term < currentTerm".
#[test]
fn rule_1_an_older_term_is_refused() {
    let mut c = Cluster::of(3);
    c.enter(B, 5);
    c.say(A, B, request_vote(4, LogId::new(9, 9)));
    let Message::RequestVoteReply(reply) = answer(&c, B, A) else { panic!("an answer") };
    assert_eq!((reply.refusal, reply.term), (Some(Refusal::Term), Term(5)));
}

/// Figure 2, RequestVote RPC, rule 2: "If votedFor is null or candidateId".
#[test]
fn rule_2_one_vote_per_term_and_again_to_the_same_candidate() {
    let mut c = Cluster::of(3);
    for (candidate, granted) in [(A, true), (C, false), (A, true)] {
        c.say(candidate, B, request_vote(2, LogId::new(1, 1)));
        c.persist(B);
        assert_eq!(vote_granted(&c, B, candidate), granted);
    }
}

/// Figure 2, RequestVote RPC, rule 2: "candidate's log is at least as up-to-date as receiver's log" (§5.4.1).
#[test]
fn rule_2_only_to_a_log_at_least_as_up_to_date() {
    for (last, granted) in [
        (LogId::new(2, 1), false),
        (LogId::new(2, 2), false),
        (LogId::new(3, 2), true),
        (LogId::new(2, 3), true),
        (LogId::new(1, 9), false),
    ] {
        let mut c = Cluster::with_logs(&["1", "1 1 2"]);
        c.say(A, B, request_vote(7, last));
        c.persist(B);
        assert_eq!(vote_granted(&c, B, A), granted, "{last} against 3.2");
    }
}
