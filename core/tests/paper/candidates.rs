//! Figure 2, "Rules for Servers", candidates (§5.2).

use super::*;

/// Figure 2, candidates, on conversion: "Increment currentTerm", "Vote for self", "Send RequestVote RPCs to all other
/// servers".
#[test]
fn a_candidate_enters_the_next_term_votes_for_itself_and_asks_all() {
    let mut c = Cluster::with_logs(&["1 1", "1", "1"]);
    candidate_a(&mut c);
    assert_eq!((c.role(A), c.term(A), c.vote(A)), (RoleName::Candidate, 2, Some(A)));
    assert_eq!(c.node(A).disk.hard_state, HardState { term: Term(2), vote: Some(peer(A)), promised: 0 });
    for to in [B, C] {
        let Message::RequestVote(vote) = answer(&c, A, to) else { panic!("it asks") };
        assert_eq!(
            Message::RequestVote(RequestVote { question: 0, ..vote }),
            request_vote(2, LogId::new(1, 2))
        );
    }
}

/// Figure 2, candidates: "If votes received from majority of servers: become leader".
#[test]
fn a_majority_of_votes_makes_a_leader() {
    let mut c = Cluster::of(5);
    c.silence(60);
    c.campaign(A);
    for voter in [B, C] {
        c.deliver(A, voter);
        c.deliver(voter, A);
    }
    c.persist(A);
    for (voter, role) in [(D, RoleName::Candidate), (E, RoleName::Leader)] {
        assert_eq!(c.role(A), RoleName::Candidate);
        c.deliver(A, voter);
        c.persist(voter);
        c.deliver(voter, A);
        assert_eq!(c.role(A), role);
    }
}

/// Figure 2, candidates: "If AppendEntries RPC received from new leader: convert to follower".
#[test]
fn a_new_leader_makes_a_follower_of_a_candidate() {
    let mut c = Cluster::of(3);
    candidate_a(&mut c);
    c.say(B, A, Message::AppendEntries(append_entries(2, LogId::new(1, 1), 1, 0)));
    assert_eq!((c.role(A), c.leader_of(A), c.vote(A)), (RoleName::Follower, Some(B), Some(A)));
    // One of an older term is no new leader.
    let mut c = Cluster::of(3);
    candidate_a(&mut c);
    c.say(B, A, Message::AppendEntries(append_entries(1, LogId::new(1, 1), 1, 0)));
    assert_eq!(c.role(A), RoleName::Candidate);
}

/// Figure 2, candidates: "If election timeout elapses: start new election".
#[test]
fn a_candidate_that_nobody_answers_starts_a_new_election() {
    let mut c = Cluster::of(3);
    candidate_a(&mut c);
    c.lose_all();
    c.tick(A, 30);
    assert_eq!((c.role(A), c.term(A)), (RoleName::Candidate, 2), "not before the shortest timeout");
    c.tick(A, 30);
    assert_eq!(c.role(A), RoleName::PreCandidate);
    c.run_pre_vote(A, C);
    assert_eq!((c.role(A), c.term(A)), (RoleName::Candidate, 3));
}
