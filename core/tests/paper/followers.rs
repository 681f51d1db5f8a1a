//! Figure 2, "Rules for Servers", followers (§5.2).

use super::*;

/// Figure 2, followers: "Respond to RPCs from candidates and leaders".
#[test]
fn followers_respond_to_candidates_and_leaders() {
    let mut c = Cluster::of(3);
    c.say(A, B, request_vote(2, LogId::new(1, 1)));
    c.persist(B);
    assert!(vote_granted(&c, B, A));
    c.say(A, B, Message::AppendEntries(append_entries(2, LogId::new(1, 1), 1, 0)));
    assert!(matches!(answer(&c, B, A), Message::AppendEntriesReply(reply) if reply.matched == Index(1)));
}

/// Figure 2, followers: an election timeout without hearing from a leader: "convert to candidate". (Here it asks for
/// pre-votes first; thesis, section 9.6.)
#[test]
fn a_follower_that_hears_nothing_becomes_a_candidate() {
    let mut c = Cluster::of(3);
    c.tick(A, 30);
    assert_eq!(c.role(A), RoleName::Follower);
    c.tick(A, 30);
    assert_eq!((c.role(A), c.term(A)), (RoleName::PreCandidate, 1));
    c.run();
    assert_eq!((c.role(A), c.term(A)), (RoleName::Leader, 2));
}

/// Figure 2, followers: AppendEntries "from current leader" put that off.
#[test]
fn a_follower_that_hears_its_leader_stays_one() {
    let mut c = Cluster::of(3);
    for _ in 0..20 {
        c.say(B, A, Message::AppendEntries(append_entries(1, LogId::new(1, 1), 1, 0)));
        c.tick(A, 30);
        assert_eq!(c.role(A), RoleName::Follower);
    }
    // One of an older term is no current leader.
    c.enter(A, 3);
    for _ in 0..2 {
        c.tick(A, 30);
        c.say(B, A, Message::AppendEntries(append_entries(1, LogId::new(1, 1), 1, 0)));
    }
    assert_eq!(c.role(A), RoleName::PreCandidate);
}

/// Figure 2, followers: so does "granting vote to candidate".
#[test]
fn a_follower_that_grants_a_vote_waits_anew() {
    let mut c = Cluster::of(3);
    c.tick(A, 30);
    c.say(B, A, request_vote(2, LogId::new(1, 1)));
    c.tick(A, 30);
    assert_eq!(c.role(A), RoleName::Follower);
}
