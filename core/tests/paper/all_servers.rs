//! Figure 2, "Rules for Servers", all servers.

use super::*;

/// Figure 2, all servers: "If commitIndex > lastApplied: increment lastApplied, apply". The core says how far; whoever
/// drives it applies, and says so.
#[test]
fn what_is_committed_is_handed_out_to_be_applied() {
    let mut c = Cluster::of(1);
    c.elect(A);
    c.propose(A, 2);
    c.persist_one(A);
    assert_eq!(c.node(A).out.commit, Some(Index(4)));
    c.step(A, Input::Applied(Index(3)));
    assert_eq!(c.raft(A).status().applied, Index(3));
    c.step(A, Input::Applied(Index(2)));
    assert_eq!(c.raft(A).status().applied, Index(3), "never back");
}

/// Figure 2, all servers: a request or response of "term T > currentTerm: set currentTerm = T, convert to follower", in
/// every role and for every kind of message.
#[test]
fn a_newer_term_makes_a_follower_of_everybody() {
    let reply = AppendEntriesReply {
        term: Term(9),
        round: Round(0),
        promised: 0,
        matched: Index(0),
        last: Index(0),
        conflict: None,
        applied: Index(0),
        disk_age: 0,
        digest: None,
        stop: None,
        wants: None,
    };
    let refused = RequestVoteReply {
        campaign: Term(2),
        pre: false,
        question: 0,
        term: Term(9),
        refusal: Some(Refusal::Term),
        leader: None,
    };
    let messages = [
        request_vote(9, LogId::ZERO),
        Message::RequestVoteReply(refused),
        Message::AppendEntries(append_entries(9, LogId::new(1, 1), 1, 0)),
        Message::AppendEntriesReply(reply),
        Message::ReadIndex(ReadIndex { term: Term(9), boot: Boot(1), sequence: 1 }),
        Message::ReadIndexReply(ReadIndexReply { term: Term(9), boot: Boot(1), sequence: 1, index: None }),
    ];
    for message in messages {
        for role in [RoleName::Follower, RoleName::PreCandidate, RoleName::Candidate, RoleName::Leader] {
            let mut c = Cluster::of(3);
            match role {
                RoleName::PreCandidate => c.campaign(A),
                RoleName::Candidate => candidate_a(&mut c),
                RoleName::Leader => {
                    c.elect(A);
                    // Its followers are silent, so it does not insist (thesis, section 4.2.3).
                    c.silence(40);
                }
                _ => {}
            }
            assert_eq!(c.role(A), role);
            c.say(C, A, message.clone());
            assert_eq!((c.role(A), c.term(A)), (RoleName::Follower, 9), "{role} hears {message:?}");
            c.persist(A);
            assert_eq!(c.node(A).disk.hard_state.term, Term(9));
        }
    }
}
